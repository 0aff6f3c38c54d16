//! Numbers as people read them, in few columns. Pure.

/// Bytes with three digits and a binary unit: `1.23 MiB`.
pub(super) fn bytes(bytes: f64) -> String {
    let (mut value, mut unit) = (bytes.max(0.0), 0);
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three_digits(value, unit == 0), UNITS[unit])
}

/// Milliseconds: `0.42 ms`, `12.3 ms`, `1.20 s`.
pub(super) fn milliseconds(milliseconds: f64) -> String {
    if milliseconds >= 999.5 {
        return format!("{} s", three_digits(milliseconds / 1000.0, false));
    }
    format!("{} ms", three_digits(milliseconds, false))
}

/// A count: `123`, `12.3k`, `4.56M`.
pub(super) fn count(count: f64) -> String {
    match count {
        ..999.5 => three_digits(count, count.fract() == 0.0),
        ..999.5e3 => format!("{}k", three_digits(count / 1e3, false)),
        ..999.5e6 => format!("{}M", three_digits(count / 1e6, false)),
        _ => format!("{}G", three_digits(count / 1e9, false)),
    }
}

/// Dollars, with as many places as say something: `$1.23`, `$0.0042`.
pub(super) fn usd(usd: f64) -> String {
    match usd {
        0.0 => "$0.00".into(),
        ..0.01 => format!("${usd:.6}"),
        ..1.0 => format!("${usd:.4}"),
        _ => format!("${usd:.2}"),
    }
}

/// A span: `42s`, `3m12s`, `5h03m`, `2d04h`.
pub(super) fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

fn three_digits(value: f64, is_whole: bool) -> String {
    match value {
        _ if is_whole => format!("{value:.0}"),
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A path in so many columns: its end, for that tells files apart.
pub(super) fn shortened(path: &str, columns: usize) -> String {
    let letters: Vec<char> = path.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect();
    if letters.len() <= columns {
        return letters.into_iter().collect();
    }
    let kept = columns.saturating_sub(1);
    std::iter::once('…').chain(letters[letters.len() - kept..].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(1536.0), "1.50 KiB");
        assert_eq!(bytes(1023.0 * 1024.0), "1.00 MiB");
        assert_eq!(milliseconds(12.34), "12.3 ms");
        assert_eq!(milliseconds(1200.0), "1.20 s");
        assert_eq!(count(12_345.0), "12.3k");
        assert_eq!(usd(0.0042), "$0.004200");
        assert_eq!(span(3_800.0), "1h03m");
    }

    #[test]
    fn a_long_path_keeps_its_end_and_control_characters_are_not_drawn() {
        assert_eq!(shortened("a/b/c.parquet", 9), "….parquet");
        assert_eq!(shortened("a\u{1b}[2J", 20), "a?[2J");
    }
}

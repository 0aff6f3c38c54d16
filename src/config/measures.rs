//! Sizes, times and modes as people write them. Pure.

use std::time::Duration;

/// More than any machine has, and little enough to be reckoned with.
const SIZE_BYTES_MAX: f64 = (1_u64 << 60) as f64;
/// Longer than any mount lives, and short enough to be added to any time.
const DURATION_SECONDS_MAX: f64 = 100.0 * 365.0 * 86_400.0;

/// A size such as `512MiB`, `4G` or `1048576`. Both `G` and `GiB` are 2^30 bytes, `GB` is 10^9.
pub(super) fn size_bytes(text: &str) -> Option<u64> {
    let (number, unit) = parted(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    let bytes = number * factor as f64;
    (0.0..SIZE_BYTES_MAX).contains(&bytes).then_some(bytes as u64)
}

/// A time such as `500ms`, `10s`, `5m`, `1h` or `0`; seconds without a unit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = parted(text)?;
    let seconds = match unit.to_ascii_lowercase().as_str() {
        "ms" => number / 1000.0,
        "" | "s" | "sec" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|_| seconds <= DURATION_SECONDS_MAX)
}

/// Permission bits such as `644` or `0o755`.
pub(super) fn mode(text: &str) -> Option<u32> {
    let digits = text.trim_start_matches("0o");
    u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777)
}

fn parted(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("512MiB", Some(512 << 20)),
            ("4G", Some(4 << 30)),
            ("1.5 GiB", Some(3 << 29)),
            ("1GB", Some(1_000_000_000)),
            ("77", Some(77)),
            ("", None),
            ("MiB", None),
            ("5 apples", None),
            ("-1", None),
            ("17179869184GiB", None),
        ] {
            assert_eq!(size_bytes(text), bytes, "{text}");
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, time) in [
            ("500ms", Some(Duration::from_millis(500))),
            ("10", Some(Duration::from_secs(10))),
            ("5m", Some(Duration::from_secs(300))),
            ("0", Some(Duration::ZERO)),
            ("soon", None),
            ("36500d", Some(Duration::from_secs(36_500 * 86_400))),
            ("150000000000000d", None),
        ] {
            assert_eq!(duration(text), time, "{text}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode("644"), Some(0o644));
        assert_eq!(mode("0755"), Some(0o755));
        assert_eq!(mode("999"), None);
        assert_eq!(mode("17777"), None);
    }
}

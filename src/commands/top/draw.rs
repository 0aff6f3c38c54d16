//! The picture: a pure function of the model and the palette onto a frame of any size.
//!
//! Nothing is told by colour alone: bars have lengths, states have words. Only the sixteen colours of every terminal are
//! used, and none where NO_COLOR is set.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Paragraph, RenderDirection, Sparkline};

use super::model::{Model, MountSeen};
use super::rates::Rates;
use super::words::{bytes, count, milliseconds, shortened, span, usd};
use crate::export::status::{DirtyFile, Status};

/// The least that can be read.
const COLUMNS_MIN: u16 = 60;
const ROWS_MIN: u16 = 20;

/// What is coloured how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Palette {
    has_colour: bool,
}

impl Palette {
    pub(super) fn new(has_colour: bool) -> Self {
        Self { has_colour }
    }

    fn colour(self, colour: Color) -> Style {
        if self.has_colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn alarm(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, palette: Palette) {
    let area = frame.area();
    if area.width < COLUMNS_MIN || area.height < ROWS_MIN {
        let text = format!("too small: {COLUMNS_MIN}x{ROWS_MIN} at least\n(q quits)");
        frame.render_widget(Paragraph::new(text).alignment(Alignment::Center), area);
        return;
    }
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    frame.render_widget(help(model, palette), foot);
    let Some(mount) = model.shown() else {
        frame.render_widget(Paragraph::new(Line::styled("s3mount top", palette.strong())), head);
        frame.render_widget(Paragraph::new("\nnothing is mounted; waiting").alignment(Alignment::Center), body);
        return;
    };
    frame.render_widget(title(model, mount, palette, head.width), head);
    let Some(status) = &mount.status else {
        let text = mount.failure.clone().unwrap_or_else(|| "asking".into());
        frame.render_widget(Paragraph::new(format!("\n{text}")).alignment(Alignment::Center), body);
        return;
    };
    let middle_rows = 8.max(body.height / 4).min(10);
    let files_rows = (status.files.len() as u16 + 2).clamp(4, (body.height / 3).max(6));
    let [curves, middle, files] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(middle_rows), Constraint::Length(files_rows)])
            .areas(body);
    draw_curves(frame, curves, mount, palette);
    let [left, right] = Layout::horizontal([Constraint::Percentage(48), Constraint::Percentage(52)]).areas(middle);
    frame.render_widget(requests(status, mount.rates(), palette, left), left);
    frame.render_widget(holdings(status, mount.rates(), palette, right), right);
    frame.render_widget(unpublished(status, palette, files), files);
}

fn framed(title: Line<'static>, palette: Palette) -> Block<'static> {
    Block::bordered().border_type(BorderType::Rounded).border_style(palette.faint()).title(title)
}

fn title(model: &Model, mount: &MountSeen, palette: Palette, columns: u16) -> Paragraph<'static> {
    let mut spans = vec![Span::styled(" s3mount ", palette.strong())];
    if model.mounts.len() > 1 {
        spans.push(Span::styled(format!("[{}/{}] ", model.chosen + 1, model.mounts.len()), palette.faint()));
    }
    let state = match (&mount.failure, &mount.status) {
        (Some(failure), _) => Span::styled(format!("NO ANSWER: {failure}"), palette.alarm()),
        (None, Some(status)) if status.state == "serving" => {
            Span::styled(format!("up {}", span(status.uptime_seconds)), palette.colour(Color::Green))
        }
        (None, Some(status)) => Span::styled(status.state.clone(), palette.colour(Color::Yellow)),
        (None, None) => Span::styled("asking", palette.faint()),
    };
    let source = mount.status.as_ref().map(|status| status.source.clone()).unwrap_or_default();
    let room = usize::from(columns).saturating_sub(state.width() + 26).max(24) / 2;
    spans.push(Span::styled(shortened(&source, room), palette.colour(Color::Cyan).add_modifier(Modifier::BOLD)));
    spans.push(Span::raw(format!(" on {}  ", shortened(&mount.dir, room))));
    spans.push(state);
    if model.is_paused {
        spans.push(Span::styled("  PAUSED", palette.colour(Color::Yellow).add_modifier(Modifier::BOLD)));
    }
    Paragraph::new(Line::from(spans))
}

fn help(model: &Model, palette: Palette) -> Paragraph<'static> {
    let mut keys = vec![("q", "quit"), ("p", if model.is_paused { "go on" } else { "pause" })];
    if model.mounts.len() > 1 {
        keys.push(("← →", "other mount"));
    }
    let mut spans = vec![Span::raw(" ")];
    for (key, what) in keys {
        spans.push(Span::styled(key, palette.strong()));
        spans.push(Span::styled(format!(" {what}   "), palette.faint()));
    }
    Paragraph::new(Line::from(spans))
}

/// One curve: what it is called and what is said of it now, the longest first, and its value at a moment.
struct Curve {
    place: Rect,
    titles: Vec<(&'static str, String)>,
    colour: Color,
    value: fn(&Rates) -> f64,
    spelled: fn(f64) -> String,
}

/// A rate, as it is spelled.
fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", bytes(bytes_per_second))
}

/// The titles of a latency: as much as fits, and the high percentile always.
fn latency_titles(long: &'static str, short: &'static str, now: Option<(f64, f64)>) -> Vec<(&'static str, String)> {
    let Some((median, high)) = now else { return vec![(long, "idle".into()), (short, "idle".into())] };
    let both = format!("p50 {}  p99 {}", milliseconds(median), milliseconds(high));
    vec![(long, both.clone()), (short, both), (short, format!("p99 {}", milliseconds(high)))]
}

/// Four curves: two by two, side by side where there is room.
fn draw_curves(frame: &mut Frame<'_>, area: Rect, mount: &MountSeen, palette: Palette) {
    let rows = Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).split(area);
    let halves = |row| Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).split(row);
    let (upper, lower) = (halves(rows[0]), halves(rows[1]));
    let now = mount.rates().cloned().unwrap_or_default();
    let curves = [
        Curve {
            place: upper[0],
            titles: vec![("read", rate(now.read))],
            colour: Color::Green,
            value: |it| it.read,
            spelled: rate,
        },
        Curve {
            place: upper[1],
            titles: vec![("written", rate(now.written))],
            colour: Color::Blue,
            value: |it| it.written,
            spelled: rate,
        },
        Curve {
            place: lower[0],
            titles: latency_titles("read latency", "latency", now.read_ms),
            colour: Color::Yellow,
            value: |it| it.read_ms.map_or(0.0, |(_, high)| high),
            spelled: milliseconds,
        },
        Curve {
            place: lower[1],
            titles: latency_titles("S3 first byte", "first byte", now.first_byte_ms),
            colour: Color::Magenta,
            value: |it| it.first_byte_ms.map_or(0.0, |(_, high)| high),
            spelled: milliseconds,
        },
    ];
    for curve in curves {
        draw_curve(frame, &curve, mount, palette);
    }
}

fn draw_curve(frame: &mut Frame<'_>, curve: &Curve, mount: &MountSeen, palette: Palette) {
    let columns = usize::from(curve.place.width.saturating_sub(2));
    let values: Vec<f64> = mount.history.iter().rev().take(columns).map(curve.value).collect();
    let top = values.iter().copied().fold(0.0, f64::max);
    // Whole numbers are wanted, and a latency may be a fraction of a millisecond.
    let scaled: Vec<u64> = values.iter().map(|value| (value * 1000.0).round() as u64).collect();
    let titles = curve.titles.iter().map(|(name, value)| {
        Line::from(vec![Span::raw(format!(" {name} ")), Span::styled(value.clone(), palette.strong()), Span::raw(" ")])
    });
    let titles: Vec<Line<'_>> = titles.collect();
    let title = titles.iter().find(|title| title.width() <= columns).or(titles.last()).cloned().unwrap_or_default();
    let block = framed(title, palette);
    let block = if top > 0.0 {
        let peak = format!(" peak {} ", (curve.spelled)(top));
        block.title_bottom(Line::styled(peak, palette.faint()).right_aligned())
    } else {
        block
    };
    let drawn = Sparkline::default()
        .block(block)
        .data(scaled)
        .direction(RenderDirection::RightToLeft)
        .style(palette.colour(curve.colour));
    frame.render_widget(drawn, curve.place);
}

fn requests(status: &Status, rates: Option<&Rates>, palette: Palette, area: Rect) -> Paragraph<'static> {
    let total: u64 = status.requests.values().sum();
    let title = Line::from(vec![
        Span::raw(" requests "),
        Span::styled(format!("{}/s", count(rates.map_or(0.0, |it| it.requests))), palette.strong()),
        Span::raw(format!("  {} in all ", count(total as f64))),
    ]);
    let columns = usize::from(area.width.saturating_sub(2));
    let name_columns = columns.saturating_sub(21);
    let mut lines =
        vec![Line::styled(format!(" {:name_columns$}{:>6}{:>7}{:>7}", "", "/s", "all", "failed"), palette.faint())];
    for kind in rates.map(|it| it.by_kind.as_slice()).unwrap_or_default() {
        let failed = if kind.errors > 0 { palette.alarm() } else { palette.faint() };
        let busy = if kind.per_second > 0.0 { palette.strong() } else { palette.faint() };
        lines.push(Line::from(vec![
            Span::styled(format!(" {:name_columns$}", operation(&kind.name, name_columns)), busy),
            Span::styled(format!("{:>6}", count(kind.per_second)), busy),
            Span::raw(format!("{:>7}", count(kind.total as f64))),
            Span::styled(format!("{:>7}", count(kind.errors as f64)), failed),
        ]));
    }
    Paragraph::new(lines).block(framed(title, palette))
}

/// An operation of S3 in so many columns: by a shorter name where its own does not fit.
fn operation(name: &str, columns: usize) -> String {
    if name.len() <= columns {
        return name.to_owned();
    }
    shortened(&name.replace("MultipartUpload", "Upload").replace("ObjectsV2", "Objects"), columns)
}

/// A bar of so many columns, filled to a share.
fn bar(share: f64, columns: usize) -> (String, String) {
    let filled = ((share.clamp(0.0, 1.0) * columns as f64).round() as usize).min(columns);
    ("█".repeat(filled), "░".repeat(columns - filled))
}

fn holdings(status: &Status, rates: Option<&Rates>, palette: Palette, area: Rect) -> Paragraph<'static> {
    let columns = usize::from(area.width.saturating_sub(2));
    let bar_columns = columns.saturating_sub(34).clamp(4, 40);
    let gauge = |name: &str, used: u64, most: u64, colour: Color| {
        let (filled, empty) = bar(used as f64 / most.max(1) as f64, bar_columns);
        Line::from(vec![
            Span::raw(format!(" {name:10}")),
            Span::styled(filled, palette.colour(colour)),
            Span::styled(empty, palette.faint()),
            Span::raw(format!(" {} of {}", bytes(used as f64), bytes(most as f64))),
        ])
    };
    let looked = status.cache.hits + status.cache.misses;
    let since = if looked == 0 { "-".into() } else { percent(status.cache.hits as f64 / looked as f64) };
    let hits = rates.and_then(|it| it.hit_share).map_or_else(|| "idle".into(), percent);
    let errors: u64 = status.errors.values().sum();
    let trouble = if errors + status.retries > 0 { palette.colour(Color::Yellow) } else { palette.faint() };
    let mut lines = vec![
        gauge("cache", status.cache.memory_bytes, status.cache.memory_bytes_max, Color::Green),
        gauge("in flight", status.memory.in_flight_bytes, status.memory.in_flight_bytes_max, Color::Cyan),
        gauge("staged", status.memory.staged_bytes, status.memory.staged_bytes_max, Color::Blue),
        Line::from(vec![
            Span::raw(" hits      "),
            Span::styled(hits, palette.strong()),
            Span::raw(format!(" now, {since} in all")),
        ]),
        Line::from(vec![
            Span::raw(" trouble   "),
            Span::styled(format!("{errors} failed, {} retries, {} late", status.retries, status.hedges), trouble),
        ]),
    ];
    if status.unkept_files > 0 {
        lines.push(Line::styled(format!(" here only {} files: s3mount status", status.unkept_files), palette.alarm()));
    }
    if status.uploads_kept > 0 {
        lines.push(Line::styled(
            format!(" kept      {} uploads: s3mount recover list", status.uploads_kept),
            palette.alarm(),
        ));
    }
    let mut block = framed(dollars(status, rates, palette), palette);
    if status.cost.over_budget {
        let budget = status.cost.budget_usd_per_hour.map(usd).unwrap_or_default();
        let told = format!(" OVER BUDGET of {budget}/h: read-ahead / {} ", status.cost.read_ahead_divisor);
        block = block.title_bottom(Line::styled(told, palette.alarm()));
    }
    Paragraph::new(lines).block(block)
}

fn dollars(status: &Status, rates: Option<&Rates>, palette: Palette) -> Line<'static> {
    let cost = &status.cost;
    let now = rates.map_or(cost.usd_per_hour, |it| it.usd_per_hour);
    let spans = vec![
        Span::raw(" cost "),
        Span::styled(format!("{}/h", usd(now)), palette.strong()),
        Span::raw(format!("  {} in all ", usd(cost.usd))),
    ];
    Line::from(spans)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn unpublished(status: &Status, palette: Palette, area: Rect) -> Paragraph<'static> {
    let title = Line::from(vec![
        Span::raw(" not in S3 yet "),
        Span::styled(
            if status.dirty_files == 1 { "1 file".into() } else { format!("{} files", status.dirty_files) },
            palette.strong(),
        ),
        Span::raw(format!("  {} ", bytes(status.dirty_bytes as f64))),
    ]);
    let rows = usize::from(area.height.saturating_sub(2));
    let mut lines: Vec<Line<'static>> = if status.files.is_empty() {
        vec![Line::styled(" everything is in S3", palette.faint())]
    } else {
        let fits = status.files.len() <= rows;
        let shown = if fits { rows } else { rows.saturating_sub(1) };
        status.files.iter().take(shown).map(|file| dirty_file(file, palette, area)).collect()
    };
    if status.files.len() > rows {
        let more = status.dirty_files.max(0) as usize - lines.len().min(status.dirty_files.max(0) as usize);
        lines.push(Line::styled(format!(" and {more} more"), palette.faint()));
    }
    Paragraph::new(lines).block(framed(title, palette))
}

fn dirty_file(file: &DirtyFile, palette: Palette, area: Rect) -> Line<'static> {
    let columns = usize::from(area.width.saturating_sub(2));
    let bar_columns = (columns / 4).clamp(10, 50);
    let name_columns = columns.saturating_sub(bar_columns + 38).max(8);
    let share = if file.size_bytes == 0 { 0.0 } else { file.in_s3_bytes as f64 / file.size_bytes as f64 };
    let (filled, empty) = bar(share, bar_columns);
    Line::from(vec![
        Span::raw(format!(" {:name_columns$} ", shortened(&file.path, name_columns))),
        Span::styled(filled, palette.colour(Color::Cyan)),
        Span::styled(empty, palette.faint()),
        Span::raw(format!(" {:>10} of {:<10}", bytes(file.in_s3_bytes as f64), bytes(file.size_bytes as f64))),
        Span::styled(format!(" {:>7}", span(file.oldest_seconds)), palette.faint()),
    ])
}

#[cfg(test)]
mod tests;

//! What the picture says, at the sizes that it is looked at.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::*;
use crate::export::status::{CacheUse, LatencyTold};

/// A mount that has been reading and writing for a while.
fn busy() -> Model {
    let mut model = Model::default();
    model.found(&[(1, "/mnt/data".into()), (2, "/mnt/other".into())]);
    for second in 1..=50_u64 {
        let mut status = Status {
            state: "serving".into(),
            source: "bucket/prefix".into(),
            pid: 1,
            uptime_seconds: second as f64,
            bytes_read: second * second * (1 << 20),
            bytes_written: second << 20,
            dirty_files: 2,
            dirty_bytes: 24 << 20,
            retries: 3,
            hedges: 2,
            cache: CacheUse {
                memory_bytes: 1 << 28,
                memory_bytes_max: 1 << 29,
                hits: 90 * second,
                misses: 10 * second,
            },
            ..Status::default()
        };
        status.requests.insert("GetObject".into(), second * 100);
        status.requests.insert("UploadPart".into(), second * 2);
        status.requests.insert("CompleteMultipartUpload".into(), 1);
        status.errors.insert("UploadPart".into(), 5);
        status.cost.usd = second as f64 * 0.0001;
        let read = LatencyTold { count: second, buckets: vec![(2.5, second)], ..LatencyTold::default() };
        status.latencies.insert("ReadLatency".into(), read);
        let first_byte = LatencyTold { count: second, buckets: vec![(43.25, second)], ..LatencyTold::default() };
        status.latencies.insert("S3FirstByteLatency".into(), first_byte);
        for (path, in_s3_bytes) in [("results/part-0001.parquet", 48 << 20), ("logs/today.log", 0)] {
            status.files.push(DirtyFile {
                path: path.into(),
                key: format!("prefix/{path}"),
                size_bytes: 64 << 20,
                in_s3_bytes,
                dirty_bytes: 12 << 20,
                oldest_seconds: 75.0,
            });
        }
        model.mounts[0].hear(Ok(status));
    }
    model
}

fn drawn(model: &Model, columns: u16, rows: u16, has_colour: bool) -> (String, Vec<Color>) {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).expect("a buffer is always there");
    terminal.draw(|frame| draw(frame, model, Palette::new(has_colour))).expect("a buffer can be drawn on");
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for row in 0..rows {
        for column in 0..columns {
            text.push_str(buffer[(column, row)].symbol());
        }
        text.push('\n');
    }
    (text, buffer.content.iter().flat_map(|cell| [cell.fg, cell.bg]).collect())
}

#[test]
fn everything_is_told_at_80x24_and_at_200x50() {
    for (columns, rows) in [(80, 24), (200, 50)] {
        let (text, _) = drawn(&busy(), columns, rows, true);
        for told in [
            "bucket/prefix on /mnt/data",
            "[1/2]",
            "up 50s",
            "read 99.0 MiB/s",
            "written 1.00 MiB/s",
            if columns == 80 {
                " latency p50 2.50 ms  p99 2.50 ms "
            } else {
                " read latency p50 2.50 ms  p99 2.50 ms "
            },
            if columns == 80 {
                " first byte p50 43.2 ms  p99 43.2 ms "
            } else {
                " S3 first byte p50 43.2 ms  p99 43.2 ms "
            },
            "GetObject",
            "UploadPart",
            if columns == 80 { "CompleteUpload " } else { "CompleteMultipartUpload " },
            "requests 102/s",
            "256 MiB of 512 MiB",
            "90.0 %",
            "5 failed, 3 retries, 2 late",
            "$0.3600/h",
            "$0.005000 in all",
            "2 files",
            "part-0001.parquet",
            "48.0 MiB of 64.0 MiB",
            "1m15s",
            "q quit",
            "← → other mount",
        ] {
            assert!(text.contains(told), "{told:?} is missing at {columns}x{rows}:\n{text}");
        }
    }
}

#[test]
fn a_title_that_does_not_fit_is_shortened_and_not_cut() {
    let (text, _) = drawn(&busy(), 60, 20, true);
    assert!(text.contains(" latency p99 2.50 ms ─") && text.contains(" first byte p99 43.2 ms ─"), "{text}");
}

#[test]
fn a_terminal_that_is_too_small_is_told_so() {
    for (columns, rows) in [(59, 24), (80, 19), (1, 1), (30, 5)] {
        let (text, _) = drawn(&busy(), columns, rows, true);
        assert!(columns < 20 || text.contains("too small: 60x20 at least"), "{text}");
    }
}

#[test]
fn a_daemon_that_does_not_answer_is_shown_with_what_it_said_last() {
    let mut model = busy();
    model.mounts[0].hear(Err("it does not answer".into()));
    let (text, _) = drawn(&model, 80, 24, true);
    assert!(text.contains("NO ANSWER: it does not answer") && text.contains("GetObject"), "{text}");
    model.obey(super::super::model::Wish::Next);
    assert!(drawn(&model, 80, 24, true).0.contains("asking"));
    assert!(drawn(&Model::default(), 80, 24, true).0.contains("nothing is mounted"));
}

#[test]
fn no_color_means_none_and_sixteen_are_enough_otherwise() {
    let (_, colours) = drawn(&busy(), 80, 24, false);
    assert!(colours.iter().all(|colour| *colour == Color::Reset));
    let (_, colours) = drawn(&busy(), 80, 24, true);
    assert!(colours.contains(&Color::Green));
    assert!(!colours.iter().any(|colour| matches!(colour, Color::Rgb(..) | Color::Indexed(_))));
}

#[test]
fn more_files_than_rows_are_counted() {
    let mut model = busy();
    let status = model.mounts[0].status.as_mut().expect("the mount answered");
    let file = status.files[0].clone();
    status.files = vec![file; 40];
    status.dirty_files = 40;
    let (text, _) = drawn(&model, 80, 24, true);
    let shown = text.matches("part-0001.parquet").count();
    assert!(text.contains(&format!("and {} more", 40 - shown)), "{text}");
}

#[test]
fn over_budget_is_said() {
    let mut model = busy();
    model.mounts[0].status.as_mut().expect("the mount answered").cost.over_budget = true;
    assert!(drawn(&model, 80, 24, true).0.contains("OVER BUDGET"));
}

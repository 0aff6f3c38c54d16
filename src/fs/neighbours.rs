//! Programs that open the files of a directory one after the other, in the order in which it lists them: the next ones are
//! asked for beside the present one, so that a thread that reads a thousand small files does not wait a thousand times.
//!
//! Owns the walks that are under way and how far ahead of each S3 is asked; `namespace` knows what follows, `read` asks. A
//! walk ends at its first miss. Invariant: an open is answered by an earlier GET only if that was made at most
//! `open_ahead` before and found the version that this mount knows of (docs/decisions/0022).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::FileSystem;
use crate::read::Reader;
use crate::types::{Ino, ObjectInfo};

/// Walks that are followed at once.
const WALKS_MAX: usize = 16;
/// The part of `open_ahead`, as a divisor, that is to pass between the GET for a file and its open: what stands in line must
/// not grow too old when the program slows down.
const HORIZON_DIVISOR: u32 = 2;
/// Files that are asked for ahead of a walk, at least and at most: 64 at a first byte of 25 ms are 2,500 files a second.
const AHEAD: std::ops::RangeInclusive<u128> = 2..=64;

/// One program's way through one directory.
#[derive(Debug)]
struct Walk {
    directory: Ino,
    /// Places of the files that follow, as far as they were looked up; the first is the one that is to be opened next.
    following: VecDeque<usize>,
    /// Where the last file stood.
    last: usize,
    /// Files that were opened in their turn.
    run: u32,
    seen: Instant,
    /// Time from one open to the next, lately.
    gap: Duration,
}

/// What to do beside an open.
#[derive(Debug, PartialEq, Eq)]
struct Ahead {
    /// Look files up from this place on.
    from: usize,
    count: usize,
    /// And ask S3 for them.
    bring: bool,
}

/// The walks of a mount.
#[derive(Debug, Default)]
pub(super) struct Walks(Vec<Walk>);

impl Walks {
    /// Where the next files of the walks through the directory are believed to stand.
    fn guesses(&self, directory: Ino) -> Vec<usize> {
        let here = self.0.iter().filter(|walk| walk.directory == directory);
        here.filter_map(|walk| walk.following.front().copied()).collect()
    }

    /// The file at `position` is opened.
    fn opened(&mut self, directory: Ino, position: usize, now: Instant, horizon: Duration) -> Option<Ahead> {
        let in_turn = |walk: &Walk| walk.directory == directory && walk.following.front() == Some(&position);
        if let Some(walk) = self.0.iter_mut().find(|walk| in_turn(walk)) {
            walk.following.pop_front();
            let gap = now.saturating_duration_since(walk.seen);
            walk.gap = if walk.run == 0 { gap } else { (walk.gap + gap) / 2 };
            (walk.last, walk.run, walk.seen) = (position, walk.run.saturating_add(1), now);
            let ahead = horizon.as_nanos() / walk.gap.as_nanos().max(1);
            let ahead = usize::try_from(ahead.clamp(*AHEAD.start(), *AHEAD.end())).unwrap_or(0);
            let from = walk.following.back().copied().unwrap_or(position) + 1;
            let count = ahead.saturating_sub(walk.following.len());
            return (count > 0).then_some(Ahead { from, count, bring: true });
        }
        let new =
            Walk { directory, following: VecDeque::new(), last: position, run: 0, seen: now, gap: Duration::ZERO };
        // A second reader of the same directory does not end the walk of the first, unless there are too many of them.
        let strays = self.0.iter().position(|walk| walk.directory == directory && walk.run == 0);
        match strays {
            Some(index) => self.0[index] = new,
            None if self.0.len() < WALKS_MAX => self.0.push(new),
            None => {
                let oldest = self.0.iter_mut().min_by_key(|walk| walk.seen)?;
                *oldest = new;
            }
        }
        Some(Ahead { from: position + 1, count: 1, bring: false })
    }

    /// The files that were found behind the one at `last`.
    fn follow(&mut self, directory: Ino, last: usize, positions: impl Iterator<Item = usize>) {
        if let Some(walk) = self.0.iter_mut().find(|walk| walk.directory == directory && walk.last == last) {
            for position in positions {
                // Two opens of one file at once look the same files up.
                if walk.following.back().is_none_or(|&back| back < position) {
                    walk.following.push_back(position);
                }
            }
        }
    }
}

impl FileSystem {
    /// Takes note that a file is opened, asks for those that will follow it, and gives its reader if it was asked for
    /// itself a moment ago.
    pub(super) async fn neighbour(&self, ino: Ino, known: &ObjectInfo) -> Option<Reader> {
        let age_max = self.options.open_ahead;
        if age_max.is_zero() {
            return None;
        }
        let now = self.clock.now();
        let no_older_than = now.checked_sub(age_max)?;
        self.bring_following(ino, now, no_older_than);
        self.read.brought(known, no_older_than).await
    }

    fn bring_following(&self, ino: Ino, now: Instant, no_older_than: Instant) {
        let guesses = |directory| self.walks.lock().guesses(directory);
        let Some((directory, position)) = self.namespace.place(ino, guesses) else { return };
        let Some(ahead) = self.walks.lock().opened(directory, position, now, self.options.open_ahead / HORIZON_DIVISOR)
        else {
            return;
        };
        let files = self.namespace.files_from(directory, ahead.from, ahead.count);
        let mut found = files.len();
        for (index, file) in files.iter().enumerate().filter(|_| ahead.bring) {
            let Some(object) = &file.object else { continue };
            if !self.read.bring(object, &self.clock, no_older_than) {
                // What did not fit is looked up again at the next open.
                found = index;
                break;
            }
        }
        self.walks.lock().follow(directory, position, files[..found].iter().map(|file| file.position));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: Ino = Ino(2);
    const HORIZON: Duration = Duration::from_millis(100);

    /// Opens the files at `positions`, all files of a directory of plain files, `gap` apart; what is asked for at each.
    fn walk(positions: impl IntoIterator<Item = usize>, gap: Duration) -> Vec<usize> {
        let (mut walks, mut now) = (Walks::default(), Instant::now());
        let mut brought = Vec::new();
        for position in positions {
            now += gap;
            let ahead = walks.opened(DIRECTORY, position, now, HORIZON);
            brought.push(ahead.as_ref().map_or(0, |ahead| if ahead.bring { ahead.count } else { 0 }));
            if let Some(ahead) = ahead {
                walks.follow(DIRECTORY, position, ahead.from..ahead.from + ahead.count);
            }
        }
        brought
    }

    #[test]
    fn the_second_file_in_order_brings_the_next_ones() {
        assert_eq!(walk(0..2, Duration::from_millis(25)), [0, 4]);
    }

    #[test]
    fn a_fast_reader_has_more_files_brought_than_a_slow_one() {
        let ahead = |gap| walk(0..100, gap).iter().sum::<usize>() - 98;
        assert_eq!(ahead(Duration::from_micros(500)), 64);
        assert_eq!(ahead(Duration::from_millis(20)), 5);
        assert_eq!(ahead(Duration::from_secs(1)), 2);
    }

    #[test]
    fn files_that_are_opened_in_no_order_bring_nothing() {
        let mut positions: Vec<usize> = (0..1000).collect();
        fastrand::Rng::with_seed(5).shuffle(&mut positions);
        let brought: usize = walk(positions, Duration::from_millis(1)).iter().sum();
        assert!(brought <= 64 * 4, "{brought}");
    }

    #[test]
    fn two_readers_of_one_directory_each_have_their_walk() {
        let (mut walks, now) = (Walks::default(), Instant::now());
        let mut open = |position| {
            let ahead = walks.opened(DIRECTORY, position, now, HORIZON);
            if let Some(ahead) = &ahead {
                walks.follow(DIRECTORY, position, ahead.from..ahead.from + ahead.count);
            }
            ahead.is_some_and(|ahead| ahead.bring)
        };
        open(0);
        assert!(open(1));
        open(500);
        assert!(open(501));
        assert!(open(2), "the first one goes on");
        assert!(open(502));
    }
}

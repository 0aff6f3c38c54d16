//! Which requests list one directory: its key space as ranges that follow one another, and who asks next. Pure.
//!
//! One range at first. Once the first page is full a second request bets on where the third page begins; once three pages
//! are full the directory is big, and the largest ranges are cut in two for as long as requests are to be had and a range is
//! thought to hold more than its next page (docs/decisions/0020). A range ends where its neighbour begins, so that every
//! key lies in exactly one, whatever changes meanwhile.
//!
//! Cuts are never behind a `/`, so that keys that are rolled up into one prefix lie in one range.

use super::split::{NameModel, Scale};
use crate::store::KEYS_PER_REQUEST_MAX;

/// Full pages after which a directory is big.
const PAGES_OF_BIG: usize = 3;
/// A range that is thought to hold less than this behind its next page is not cut, in pages: a cut costs a request.
const REST_PAGES_MIN: f64 = 0.4;

/// Pages that are thought to lie behind what is known, at least: one for each request.
const AHEAD_PAGES_MIN: f64 = 16.0;
/// The same, as a multiple of the names that are known.
const AHEAD_FACTOR: f64 = 3.0;

/// What becomes of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its next page can be asked for.
    Idle,
    /// Its next page is on the way.
    Asked,
    /// All of it is known.
    Done,
}

/// Names a range for as long as the plan lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RangeId(u32);

/// Keys behind `after` up to `end`, both whole keys.
#[derive(Debug)]
pub(super) struct Range<T> {
    id: RangeId,
    after: Option<String>,
    end: Option<String>,
    continuation: Option<String>,
    /// Everything up to this key is known.
    pub(super) passed: String,
    phase: Phase,
    names: usize,
    /// What the caller keeps with it.
    pub(super) kept: T,
}

impl<T: Default> Range<T> {
    fn new(id: u32, after: Option<String>, end: Option<String>) -> Self {
        let passed = after.clone().unwrap_or_default();
        Self {
            id: RangeId(id),
            after,
            end,
            continuation: None,
            passed,
            phase: Phase::Idle,
            names: 0,
            kept: T::default(),
        }
    }
}

impl<T> Range<T> {
    /// Whether a key belongs to it and not to a neighbour.
    pub(super) fn holds(&self, key: &str) -> bool {
        self.end.as_deref().is_none_or(|end| key <= end) && self.after.as_deref().is_none_or(|after| key > after)
    }

    /// Whether all of it is known.
    pub(super) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }
}

/// What to ask for next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// Where the answer belongs.
    pub(super) range: RangeId,
    /// As in a list request.
    pub(super) start_after: Option<String>,
    /// As in a list request.
    pub(super) continuation: Option<String>,
}

/// Where a page began and ended.
#[derive(Clone, Debug, Default)]
pub(super) struct PageEnds {
    /// Its first key or rolled-up prefix; `None` of an empty page.
    pub(super) first: Option<String>,
    /// Its last one.
    pub(super) last: Option<String>,
    /// Its names came in order.
    pub(super) in_order: bool,
    /// Where the next page begins.
    pub(super) continuation: Option<String>,
}

/// The server does not list in order, or not from where it was asked: only page after page is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Disorder;

/// The requests of one listing.
#[derive(Debug)]
pub(super) struct Plan<T> {
    prefix: String,
    pub(super) ranges: Vec<Range<T>>,
    model: NameModel,
    /// How unevenly the names of the first page lay, in names.
    unevenness: f64,
    /// Names of a full page, as the first one had them.
    page: f64,
    /// The first name of all.
    first_name: String,
    next_id: u32,
    pages: usize,
    serial: bool,
}

impl<T: Default> Plan<T> {
    /// All keys below `prefix`.
    pub(super) fn new(prefix: &str, serial: bool) -> Self {
        Self {
            prefix: prefix.to_owned(),
            ranges: vec![Range::new(0, None, None)],
            model: NameModel::default(),
            unevenness: 0.0,
            page: KEYS_PER_REQUEST_MAX as f64,
            first_name: String::new(),
            next_id: 1,
            pages: 0,
            serial,
        }
    }

    /// Whether everything is known.
    pub(super) fn is_complete(&self) -> bool {
        self.ranges.iter().all(Range::is_done)
    }

    fn at(&self, id: RangeId) -> Option<usize> {
        self.ranges.iter().position(|range| range.id == id)
    }

    /// Begins anew, page after page; what the ranges kept is handed back.
    pub(super) fn restart_serially(&mut self) -> Vec<T> {
        let first = Range::new(self.next_id, None, None);
        self.next_id += 1;
        self.serial = true;
        std::mem::replace(&mut self.ranges, vec![first]).into_iter().map(|range| range.kept).collect()
    }

    /// A request that failed is to be made again.
    pub(super) fn failed(&mut self, id: RangeId) {
        if let Some(at) = self.at(id)
            && self.ranges[at].phase == Phase::Asked
        {
            self.ranges[at].phase = Phase::Idle;
        }
    }

    /// All requests are forgotten, to be made again.
    pub(super) fn all_failed(&mut self) {
        for range in self.ranges.iter_mut().filter(|range| range.phase == Phase::Asked) {
            range.phase = Phase::Idle;
        }
    }

    /// Whether nothing has been asked for yet.
    pub(super) fn is_untouched(&self) -> bool {
        let is_first = |range: &Range<T>| range.phase == Phase::Idle && range.continuation.is_none();
        self.pages == 0 && self.ranges.len() == 1 && self.ranges.iter().all(is_first)
    }

    /// The next request, with `asked` of them on the way and at most `asked_max` wanted.
    pub(super) fn next(&mut self, asked: usize, asked_max: usize) -> Option<Ask> {
        let asked_max = match self.pages {
            _ if self.serial => 1,
            0 => 1,
            pages if pages < PAGES_OF_BIG => asked_max.min(2),
            _ => asked_max,
        };
        if asked >= asked_max {
            return None;
        }
        let idle = self.ranges.iter().position(|range| range.phase == Phase::Idle);
        let at = match idle {
            Some(at) => at,
            None if self.pages == 1 || self.pages >= PAGES_OF_BIG => self.cut()?,
            None => return None,
        };
        let range = &mut self.ranges[at];
        range.phase = Phase::Asked;
        let continuation = range.continuation.clone();
        let start_after = if continuation.is_none() { range.after.clone() } else { None };
        Some(Ask { range: range.id, start_after, continuation })
    }

    fn name<'a>(&self, key: &'a str) -> &'a str {
        key.strip_prefix(&*self.prefix).unwrap_or_default().trim_end_matches('/')
    }

    /// What a range is thought to hold that is not known yet: its number span and names. `None` if nobody can say. Behind
    /// the last cut nothing is thought to lie from the number `horizon` on.
    fn outlook(&self, scale: &Scale, range: &Range<T>, density: f64, horizon: u128) -> Option<(u128, u128, f64)> {
        let from = scale.number(self.name(&range.passed));
        let to = range.end.as_ref().map_or(horizon, |end| scale.number(self.name(end)));
        let covered = self.covered(scale, range);
        // What a range has shown of itself counts once it is more than chance.
        let density =
            if range.names as f64 >= self.page && covered > 0.0 { range.names as f64 / covered } else { density };
        (to > from).then(|| (from, to, (to - from) as f64 * density))
    }

    /// Cuts the range with the largest outlook behind its next page; answers the new range.
    fn cut(&mut self) -> Option<usize> {
        let scale = self.model.scale();
        let covered: f64 = self.ranges.iter().map(|range| self.covered(&scale, range)).sum();
        let names: usize = self.ranges.iter().map(|range| range.names).sum();
        if covered <= 0.0 {
            return None;
        }
        let density = names as f64 / covered;
        // A directory is thought to hold a few times what it has shown: numbers have room for far more than there are.
        let beyond = (self.page * AHEAD_PAGES_MIN).max(names as f64 * AHEAD_FACTOR) / density;
        let farthest = self.ranges.iter().rev().find(|range| range.names > 0).map_or("", |range| &range.passed);
        let horizon = scale.number(self.name(farthest)).saturating_add(beyond as u128).min(scale.largest());
        let largest = self
            .ranges
            .iter()
            .enumerate()
            .filter(|(_, range)| range.phase == Phase::Asked)
            .filter_map(|(at, range)| Some((at, self.outlook(&scale, range, density, horizon)?)))
            .max_by(|(_, a), (_, b)| a.2.total_cmp(&b.2));
        let (at, (from, to, expected)) = largest?;
        let pages = expected / self.page;
        if pages < 1.0 + REST_PAGES_MIN {
            return None;
        }
        // The left part keeps whole pages, a little less than it is thought to hold, lest a handful of names cost one more.
        let left_pages = if self.pages == 1 { 1.0 } else { (pages / 2.0).round().max(1.0) };
        let left = left_pages * (self.page - self.unevenness.min(self.page * 0.15));
        let step = (to - from) as f64 / expected;
        let number = from + (left * step).round() as u128;
        let cut = format!("{}{}", self.prefix, scale.name(number));
        let range = &self.ranges[at];
        let inside = cut > range.passed && range.holds(&cut) && range.end.as_deref() != Some(&*cut);
        if !inside || self.name(&cut).contains('/') || self.name(&cut).is_empty() {
            return None;
        }
        let end = self.ranges[at].end.replace(cut.clone());
        self.ranges.insert(at + 1, Range::new(self.next_id, Some(cut), end));
        self.next_id += 1;
        Some(at + 1)
    }

    /// The number span that a range has passed.
    fn covered(&self, scale: &Scale, range: &Range<T>) -> f64 {
        let start = range.after.as_ref().map_or(&*self.first_name, |after| self.name(after));
        let span = scale.number(self.name(&range.passed)).saturating_sub(scale.number(start)) as f64;
        // The first name stands at the beginning of the span and not one step behind it.
        let steps = range.names as f64;
        if range.after.is_none() && range.names > 1 { span * steps / (steps - 1.0) } else { span }
    }

    fn learn(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.model.learn(name));
        if let (0, [first, .., last]) = (self.pages, names) {
            self.first_name = (*first).to_owned();
            self.page = names.len() as f64;
            let scale = self.model.scale();
            let (from, to) = (scale.number(first), scale.number(last));
            let middle = scale.number(names[names.len() / 2]);
            let share = middle.saturating_sub(from) as f64 / (to.saturating_sub(from) as f64).max(1.0);
            let off = (share * (names.len() - 1) as f64 - (names.len() / 2) as f64).abs();
            // Numbered names lie evenly to the letter; of random ones the middle is off by half the root of their number.
            self.unevenness = if off < 1.0 { 0.0 } else { 2.0 * off };
        }
    }

    /// A range that waits for a page.
    pub(super) fn asked(&self, id: RangeId) -> Option<&Range<T>> {
        self.ranges.iter().find(|range| range.id == id && range.phase == Phase::Asked)
    }

    /// A page came for a range, with `names` of keys that the range [holds](Range::holds), in order. Answers where the range
    /// stands; `None` for a page that nobody waits for any more.
    pub(super) fn arrived(&mut self, id: RangeId, names: &[&str], page: PageEnds) -> Result<Option<usize>, Disorder> {
        let Some(at) = self.at(id).filter(|&at| self.ranges[at].phase == Phase::Asked) else { return Ok(None) };
        let alone = self.ranges.len() == 1 || self.serial;
        let range = &self.ranges[at];
        let behind = page.first.as_ref().is_none_or(|first| *first > range.passed || range.passed.is_empty());
        let is_ordered = page.in_order && behind;
        if !is_ordered && !alone {
            return Err(Disorder);
        }
        self.serial |= !is_ordered;
        self.learn(names);
        self.pages += 1;
        let range = &mut self.ranges[at];
        range.names += names.len();
        if let Some(last) = page.last {
            range.passed = last;
        }
        range.phase = Phase::Idle;
        let ended = range.end.as_ref().is_some_and(|end| range.passed >= *end);
        // Keys behind the end of the range were in the page, and are the neighbour's to bring.
        let more_behind = range.end.as_ref().is_some_and(|end| range.passed > *end);
        if ended && let Some(end) = &range.end {
            range.passed.clone_from(end);
        }
        if page.continuation.is_none() && !more_behind {
            // Nothing lies behind: neighbours that have not brought anything yet need not be waited for.
            for range in &mut self.ranges[at..] {
                range.phase = Phase::Done;
            }
        } else if ended {
            self.ranges[at].phase = Phase::Done;
        } else {
            self.ranges[at].continuation = page.continuation;
        }
        Ok(Some(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(names: &[String], more: bool) -> PageEnds {
        PageEnds {
            first: names.first().cloned(),
            last: names.last().cloned(),
            in_order: true,
            continuation: more.then(|| "more".to_owned()),
        }
    }

    /// Lists `names` with a server of pages of 1000; answers requests and rounds of requests that are made together.
    fn list(names: &[String]) -> (usize, usize) {
        let mut plan: Plan<()> = Plan::new("", false);
        let (mut requests, mut rounds, mut seen) = (0, 0, 0);
        while !plan.is_complete() {
            let mut asks = Vec::new();
            while let Some(ask) = plan.next(asks.len(), 16) {
                asks.push(ask);
            }
            requests += asks.len();
            rounds += 1;
            for ask in asks {
                let Some(range) = plan.asked(ask.range) else { continue };
                let from = names.partition_point(|name| *name <= range.passed);
                let to = (from + 1000).min(names.len());
                let held: Vec<&str> =
                    names[from..to].iter().filter(|name| range.holds(name)).map(String::as_str).collect();
                seen += held.len();
                plan.arrived(ask.range, &held, page(&names[from..to], to < names.len())).expect("in order");
            }
        }
        assert_eq!(seen, names.len());
        (requests, rounds)
    }

    fn numbered(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("f{n:07}.dat")).collect()
    }

    fn hashed(count: u64) -> Vec<String> {
        let mut names: Vec<String> =
            (1..=count).map(|n| format!("{:016x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(7) ^ n)).collect();
        names.sort();
        names
    }

    #[test]
    fn a_directory_of_one_page_is_one_request() {
        assert_eq!(list(&numbered(0)), (1, 1));
        assert_eq!(list(&numbered(1000)), (1, 1));
    }

    #[test]
    fn a_bet_costs_one_request_at_most() {
        for (count, most) in [(1001, 3), (1500, 3), (2000, 3), (2500, 3), (3000, 4)] {
            let (requests, rounds) = list(&numbered(count));
            assert!(requests <= most && rounds <= 3, "{count} names: {requests} requests in {rounds} rounds");
            let (requests, _) = list(&hashed(count as u64));
            assert!(requests <= count.div_ceil(1000) + 2, "{count} hashes: {requests} requests");
        }
    }

    #[test]
    fn big_directories_are_listed_side_by_side() {
        for (count, more, rounds_max) in [(10_000, 10, 5), (50_000, 20, 8), (300_000, 60, 30)] {
            let (requests, rounds) = list(&numbered(count));
            assert!(requests <= count / 1000 + more, "{count} names: {requests} requests");
            assert!(rounds <= rounds_max, "{count} names: {rounds} rounds");
            let (requests, rounds) = list(&hashed(count as u64));
            assert!(requests <= count / 1000 * 5 / 4 + more, "{count} hashes: {requests} requests");
            assert!(rounds <= rounds_max, "{count} hashes: {rounds} rounds");
        }
    }

    #[test]
    fn names_of_no_pattern_are_listed_all_the_same() {
        let mut names: Vec<String> =
            (0..20_000_u32).map(|n| format!("{}{}", "ab\u{e9}".repeat((n % 7) as usize), n * n)).collect();
        names.extend((0..5000).map(|n| format!("zz{n}")));
        names.sort();
        names.dedup();
        let (requests, _) = list(&names);
        assert!(requests <= 60, "{} names: {requests} requests", names.len());
    }
}

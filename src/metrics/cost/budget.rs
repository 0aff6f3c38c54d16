//! The rate of spending over a sliding window, and how far it makes the prefetcher slow down.
//!
//! Owns what was spent when. Never refuses anything: who is told to slow down may do so. Invariant: the rate is what the
//! last [`WINDOW`] cost, over the whole window, so that a burst of a second does not pass for an hour of them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is looked back on.
const WINDOW: Duration = Duration::from_secs(300);
/// Samples closer together than this share one.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// How often a mount over its budget is slowed further, and one under it let go again: long enough to see an effect.
const STEP_EVERY: Duration = Duration::from_secs(10);
/// The budget must be kept by this much before speed comes back, lest it sway.
const RECOVERED_SHARE: f64 = 0.8;
/// The most that read-ahead windows are divided by.
const DIVISOR_MAX: u64 = 64;

/// What is spent now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spending {
    /// Since the mount began, in US dollars.
    pub total_usd: f64,
    /// In the last five minutes, made an hour's, in US dollars.
    pub usd_per_hour: f64,
    /// The budget in US dollars an hour, if there is one.
    pub budget_usd_per_hour: Option<f64>,
    /// Whether the rate is over the budget, or was and has not recovered.
    pub is_over: bool,
    /// What read-ahead windows are divided by: 1 is full speed.
    pub read_ahead_divisor: u64,
}

/// A crossing that the operator wants to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetChange {
    /// The rate is over the budget now.
    Exceeded,
    /// It is well under it again.
    Recovered,
}

/// Watches the total.
#[derive(Debug)]
pub struct CostMeter {
    budget_usd_per_hour: Option<f64>,
    /// Totals by time, oldest first; the first is the last one before the window, if any is.
    samples: VecDeque<(Instant, f64)>,
    stepped: Option<Instant>,
    spending: Spending,
}

impl CostMeter {
    /// A meter that begins with nothing spent.
    pub fn new(budget_usd_per_hour: Option<f64>, now: Instant) -> Self {
        let spending =
            Spending { total_usd: 0.0, usd_per_hour: 0.0, budget_usd_per_hour, is_over: false, read_ahead_divisor: 1 };
        Self { budget_usd_per_hour, samples: VecDeque::from([(now, 0.0)]), stepped: None, spending }
    }

    /// What is spent, as of the last [`CostMeter::record`].
    pub fn spending(&self) -> Spending {
        self.spending
    }

    /// Takes the total as of `now`; tells a crossing of the budget.
    pub fn record(&mut self, now: Instant, total_usd: f64) -> Option<BudgetChange> {
        let begin = now.checked_sub(WINDOW);
        while self.samples.get(1).is_some_and(|(at, _)| begin.is_some_and(|begin| *at <= begin)) {
            self.samples.pop_front();
        }
        let before = self.samples.front().map_or(0.0, |(_, total)| *total);
        if self.samples.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= SAMPLE_EVERY) {
            self.samples.push_back((now, total_usd));
        }
        self.spending.total_usd = total_usd;
        self.spending.usd_per_hour = (total_usd - before).max(0.0) * 3600.0 / WINDOW.as_secs_f64();
        self.steer(now)
    }

    fn steer(&mut self, now: Instant) -> Option<BudgetChange> {
        let budget = self.budget_usd_per_hour?;
        let it = &mut self.spending;
        let is_over = it.usd_per_hour > budget;
        let is_well_under = it.usd_per_hour <= budget * RECOVERED_SHARE;
        if self.stepped.is_none_or(|last| now.saturating_duration_since(last) >= STEP_EVERY) {
            let divisor = match (is_over, is_well_under) {
                (true, _) => (it.read_ahead_divisor * 2).min(DIVISOR_MAX),
                (false, true) => (it.read_ahead_divisor / 2).max(1),
                (false, false) => it.read_ahead_divisor,
            };
            if divisor != it.read_ahead_divisor {
                it.read_ahead_divisor = divisor;
                self.stepped = Some(now);
            }
        }
        let was_over = it.is_over;
        it.is_over = if was_over { !is_well_under } else { is_over };
        match (was_over, it.is_over) {
            (false, true) => Some(BudgetChange::Exceeded),
            (true, false) => Some(BudgetChange::Recovered),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::clock::Clock;

    /// A meter that is told every second what a constant rate spends.
    struct Driven {
        clock: Clock,
        meter: CostMeter,
        total_usd: f64,
        changes: Vec<BudgetChange>,
    }

    impl Driven {
        fn new(budget: Option<f64>) -> Self {
            let clock = Clock::manual(SystemTime::UNIX_EPOCH);
            let meter = CostMeter::new(budget, clock.now());
            Self { clock, meter, total_usd: 0.0, changes: Vec::new() }
        }

        fn spend(&mut self, usd_per_hour: f64, seconds: u64) {
            for _ in 0..seconds {
                self.clock.advance(Duration::from_secs(1));
                self.total_usd += usd_per_hour / 3600.0;
                self.changes.extend(self.meter.record(self.clock.now(), self.total_usd));
            }
        }

        fn rate(&self) -> f64 {
            self.meter.spending().usd_per_hour
        }
    }

    #[test]
    fn a_constant_rate_is_told_after_one_window() {
        let mut driven = Driven::new(None);
        driven.spend(3.0, 150);
        assert!((driven.rate() - 1.5).abs() < 0.02, "half of the window was idle: {}", driven.rate());
        driven.spend(3.0, 600);
        assert!((driven.rate() - 3.0).abs() < 0.02, "{}", driven.rate());
        driven.spend(0.0, 301);
        assert!(driven.rate() < 1e-9, "{}", driven.rate());
        assert_eq!(driven.meter.spending().read_ahead_divisor, 1);
    }

    #[test]
    fn the_budget_is_told_once_when_it_is_exceeded_and_once_when_it_recovers() {
        let mut driven = Driven::new(Some(1.0));
        driven.spend(0.9, 900);
        assert_eq!(driven.changes, []);
        driven.spend(4.0, 600);
        assert_eq!(driven.changes, [BudgetChange::Exceeded]);
        assert!(driven.meter.spending().is_over);
        driven.spend(0.9, 900);
        assert_eq!(driven.changes, [BudgetChange::Exceeded], "just under the budget is no recovery");
        driven.spend(0.1, 900);
        assert_eq!(driven.changes, [BudgetChange::Exceeded, BudgetChange::Recovered]);
    }

    #[test]
    fn read_ahead_slows_by_steps_and_comes_back_by_steps() {
        let mut driven = Driven::new(Some(1.0));
        driven.spend(100.0, 4);
        assert_eq!(driven.meter.spending().read_ahead_divisor, 2, "the first step comes at once");
        driven.spend(100.0, 10);
        assert_eq!(driven.meter.spending().read_ahead_divisor, 4);
        driven.spend(100.0, 600);
        assert_eq!(driven.meter.spending().read_ahead_divisor, DIVISOR_MAX);
        driven.spend(0.0, 320);
        let divisor = driven.meter.spending().read_ahead_divisor;
        assert!(1 < divisor && divisor < DIVISOR_MAX, "{divisor}");
        driven.spend(0.0, 60);
        assert_eq!(driven.meter.spending().read_ahead_divisor, 1);
    }

    #[test]
    fn memory_is_bounded_however_often_it_is_told() {
        let mut driven = Driven::new(None);
        for _ in 0..20_000 {
            driven.clock.advance(Duration::from_millis(50));
            driven.meter.record(driven.clock.now(), 1.0);
        }
        assert!(driven.meter.samples.len() <= 302, "{}", driven.meter.samples.len());
    }
}

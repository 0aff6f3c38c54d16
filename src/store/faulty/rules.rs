//! Which call meets which fault: rules that a test writes, and a seeded die.

use std::sync::Arc;

use parking_lot::Mutex;

use super::Fault;
use crate::metrics::RequestKind;
use crate::store::StoreError;

/// One rule: which calls it is for, how many of them it lets pass, and how often it strikes.
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    kind: Option<RequestKind>,
    key: Option<String>,
    calls_spared: u64,
    strikes_left: u64,
    rate: f64,
}

impl Rule {
    /// `fault` for every call.
    pub fn new(fault: Fault) -> Self {
        Self { fault, kind: None, key: None, calls_spared: 0, strikes_left: u64::MAX, rate: 1.0 }
    }

    /// Only for calls of this operation.
    #[must_use]
    pub fn on(mut self, kind: RequestKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Only for this key (of a LIST: this prefix).
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// Lets the first `calls` that it is for pass.
    #[must_use]
    pub fn after(mut self, calls: u64) -> Self {
        self.calls_spared = calls;
        self
    }

    /// Strikes at most so often.
    #[must_use]
    pub fn times(mut self, strikes: u64) -> Self {
        self.strikes_left = strikes;
        self
    }

    /// Strikes one call with this probability, 0 to 1.
    #[must_use]
    pub fn rate(mut self, rate: f64) -> Self {
        self.rate = rate;
        self
    }
}

/// The rules of one [`FaultyStore`](super::FaultyStore). Clones are the same rules.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    rules: Vec<Rule>,
    die: fastrand::Rng,
    injected: u64,
}

impl Faults {
    /// No rules yet. The same seed and the same calls meet the same faults.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State { rules: Vec::new(), die: fastrand::Rng::with_seed(seed), injected: 0 })))
    }

    /// Adds a rule; of several that fit a call, the first added strikes.
    pub fn add(&self, rule: Rule) {
        self.0.lock().rules.push(rule);
    }

    /// The `nth` call of `kind` from now on (1 is the next) fails before its effect.
    pub fn fail_nth(&self, kind: RequestKind, nth: u64, error: StoreError) {
        self.add(Rule::new(Fault::Before(error)).on(kind).after(nth.saturating_sub(1)).times(1));
    }

    /// The `nth` call of `kind` from now on has its effect and then fails.
    pub fn lose_reply_of_nth(&self, kind: RequestKind, nth: u64, error: StoreError) {
        self.add(Rule::new(Fault::After(error)).on(kind).after(nth.saturating_sub(1)).times(1));
    }

    /// Forgets all rules.
    pub fn clear(&self) {
        self.0.lock().rules.clear();
    }

    /// How many calls met a fault.
    pub fn injected(&self) -> u64 {
        self.0.lock().injected
    }

    pub(super) fn next(&self, kind: RequestKind, key: &str) -> Option<Fault> {
        let state = &mut *self.0.lock();
        let mut fault = None;
        for rule in &mut state.rules {
            if rule.kind.is_some_and(|k| k != kind) || rule.key.as_deref().is_some_and(|k| k != key) {
                continue;
            }
            // Every rule counts every call that it is for, whichever of them strikes.
            if rule.calls_spared > 0 {
                rule.calls_spared -= 1;
            } else if fault.is_none() && rule.strikes_left > 0 && (rule.rate >= 1.0 || state.die.f64() < rule.rate) {
                rule.strikes_left -= 1;
                fault = Some(rule.fault.clone());
            }
        }
        state.injected += u64::from(fault.is_some());
        fault
    }
}

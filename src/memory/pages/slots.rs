//! Which pages of a pool are free, and which is taken next. Pure: knows numbers, and no memory.
//!
//! Slots `2n` and `2n + 1` are a pair: they share a huge page, which the kernel brings and takes as one. Invariant: a slot is in one
//! state, and what the lists have of it is looked at again when it is its turn.

use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(super) struct Slots {
    states: Vec<State>,
    /// Slots that became warm, the latest last.
    warm: Vec<usize>,
    warm_count: usize,
    /// Pairs that became warm, each once, the oldest first, and whether each pair is among them.
    warm_pairs: VecDeque<usize>,
    is_listed: Vec<bool>,
    /// Pairs that became cold, and slots that became cold while their neighbours were owned.
    cold_pairs: Vec<usize>,
    cold_halves: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Owned,
    /// Free, its memory is there.
    Warm,
    /// Free, its memory is about to go.
    Cooling,
    /// Free, the kernel has its memory.
    Cold,
}

/// A slot that was taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) slot: usize,
    /// How many cold slots are so no more.
    pub(super) woken: usize,
}

/// Slots whose memory is to go back to the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cooling {
    pub(super) first: usize,
    /// One or a pair.
    pub(super) count: usize,
}

impl Slots {
    /// As many cold slots more, an even number.
    pub(super) fn grow(&mut self, count: usize) {
        let first = self.states.len();
        self.states.resize(first + count, State::Cold);
        self.is_listed.resize((first + count) / 2, false);
        self.cold_pairs.extend((first..first + count).step_by(2).rev());
    }

    /// The next slot; `None` if all are owned.
    pub(super) fn take(&mut self) -> Option<Taken> {
        while let Some(slot) = self.warm.pop() {
            if self.states[slot] == State::Warm {
                self.states[slot] = State::Owned;
                self.warm_count -= 1;
                return Some(Taken { slot, woken: 0 });
            }
        }
        while let Some(slot) = self.cold_halves.pop() {
            if self.states[slot] == State::Cold && self.states[slot ^ 1] != State::Cold {
                self.states[slot] = State::Owned;
                return Some(Taken { slot, woken: 1 });
            }
        }
        // Whoever touches one half brings the other along.
        let slot = self.cold_pairs.pop()?;
        self.states[slot] = State::Owned;
        self.warm_up(slot + 1);
        Some(Taken { slot, woken: 2 })
    }

    fn warm_up(&mut self, slot: usize) {
        self.states[slot] = State::Warm;
        self.warm.push(slot);
        self.warm_count += 1;
    }

    /// A slot that nobody owns any more. If more than `retained_max` are warm, the answer has some that are to be cooled.
    pub(super) fn give_back(&mut self, slot: usize, retained_max: usize) -> Option<Cooling> {
        self.warm_up(slot);
        if self.states[slot ^ 1] == State::Warm && !std::mem::replace(&mut self.is_listed[slot / 2], true) {
            self.warm_pairs.push_back(slot & !1);
        }
        if self.warm_count <= retained_max {
            return None;
        }
        while let Some(pair) = self.warm_pairs.pop_front() {
            self.is_listed[pair / 2] = false;
            if self.states[pair..pair + 2] == [State::Warm; 2] {
                return Some(self.cool(pair, 2));
            }
        }
        Some(self.cool(slot, 1))
    }

    fn cool(&mut self, first: usize, count: usize) -> Cooling {
        self.states[first..first + count].fill(State::Cooling);
        self.warm_count -= count;
        Cooling { first, count }
    }

    /// The kernel has their memory.
    pub(super) fn cooled(&mut self, cooling: &Cooling) {
        self.states[cooling.first..cooling.first + cooling.count].fill(State::Cold);
        let pair = cooling.first & !1;
        if self.states[pair..pair + 2] == [State::Cold; 2] {
            self.cold_pairs.push(pair);
        } else {
            self.cold_halves.push(cooling.first);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_two_owners_share_a_slot_none_is_lost_and_what_is_warm_is_bounded(
            steps in proptest::collection::vec((0..3, any::<usize>()), 1..400),
            retained in 0_usize..6,
        ) {
            let mut slots = Slots::default();
            let (mut owned, mut cooling): (Vec<usize>, Vec<Cooling>) = Default::default();
            let mut resident = 0;
            for (step, which) in steps {
                match step {
                    0 => {
                        let busy = owned.len() + cooling.iter().map(|it| it.count).sum::<usize>();
                        let is_free = slots.states.len() > busy;
                        let taken = slots.take();
                        prop_assert_eq!(taken.is_some(), is_free, "a free slot is found");
                        match taken {
                            None => slots.grow(4),
                            Some(taken) => {
                                prop_assert!(!owned.contains(&taken.slot));
                                owned.push(taken.slot);
                                resident += taken.woken;
                            }
                        }
                    }
                    1 if !owned.is_empty() => {
                        let slot = owned.swap_remove(which % owned.len());
                        cooling.extend(slots.give_back(slot, retained));
                    }
                    2 if !cooling.is_empty() => {
                        let cooled = cooling.swap_remove(which % cooling.len());
                        resident -= cooled.count;
                        slots.cooled(&cooled);
                    }
                    _ => {}
                }
                let count = |state| slots.states.iter().filter(|&&it| it == state).count();
                prop_assert_eq!(count(State::Owned), owned.len());
                prop_assert_eq!(count(State::Warm), slots.warm_count);
                prop_assert_eq!(resident, slots.states.len() - count(State::Cold));
                prop_assert!(slots.warm_count <= retained + 1);
                let lists = [slots.warm.len(), slots.warm_pairs.len(), slots.cold_pairs.len(), slots.cold_halves.len()];
                prop_assert!(lists.into_iter().max() <= Some(2 * slots.states.len()), "{:?}", lists);
            }
        }
    }

    #[test]
    fn pairs_are_cooled_before_halves_and_the_oldest_first() {
        let mut slots = Slots::default();
        slots.grow(6);
        let owned: Vec<usize> = (0..6).map(|_| slots.take().expect("one").slot).collect();
        assert_eq!(owned, [0, 1, 2, 3, 4, 5]);
        for slot in [2, 0, 3, 1] {
            assert_eq!(slots.give_back(slot, 4), None);
        }
        assert_eq!(slots.give_back(5, 4), Some(Cooling { first: 2, count: 2 }));
        assert_eq!(slots.give_back(4, 0), Some(Cooling { first: 0, count: 2 }));
    }
}

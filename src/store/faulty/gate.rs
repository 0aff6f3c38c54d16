//! A gate at which calls wait until a test opens it; the test can wait for them to arrive.

use tokio::sync::watch;

/// A gate. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate {
    state: watch::Sender<GateState>,
}

#[derive(Clone, Copy, Debug, Default)]
struct GateState {
    is_open: bool,
    arrived: usize,
}

impl Default for Gate {
    fn default() -> Self {
        Self { state: watch::Sender::new(GateState::default()) }
    }
}

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self::default()
    }

    /// Waits until `count` calls have come to the gate since the beginning, those that passed it included.
    pub async fn arrived(&self, count: usize) {
        self.wait(|state| state.arrived >= count).await;
    }

    /// Lets all calls through, those to come too.
    pub fn open(&self) {
        self.state.send_modify(|state| state.is_open = true);
    }

    /// Holds calls again that come from now on.
    pub fn close(&self) {
        self.state.send_modify(|state| state.is_open = false);
    }

    pub(super) async fn pass(&self) {
        self.state.send_modify(|state| state.arrived += 1);
        self.wait(|state| state.is_open).await;
    }

    async fn wait(&self, condition: impl FnMut(&GateState) -> bool) {
        self.state.subscribe().wait_for(condition).await.expect("the gate holds the sender itself");
    }
}

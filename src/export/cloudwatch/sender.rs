//! Sends what waits, oldest first, and says in the log once what hinders it.
//!
//! Nothing here is ever waited for by an operation of the file system. A request whose answer is lost is sent again: its
//! data may then count twice, which beats a hole.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::datum::Datum;
use super::pending::{Batch, Pending};

/// A request that takes longer is given up and sent again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest and longest pause after a failure.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How often a refused request is cut in two: a single datum among a thousand is found by ten cuts.
const CUTS_MAX: usize = 20;
/// Pause while the end waits for the last data.
const PAUSE_AT_THE_END: Duration = Duration::from_millis(200);

/// Why data were not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutError {
    /// We may not.
    Denied(String),
    /// These data will never be taken.
    Refused(String),
    /// Nobody answers, or not now.
    Away(String),
}

/// Where data go.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Sends data in one request.
    async fn put(&self, data: Vec<Datum>) -> Result<(), PutError>;
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// No waiting from now on.
    Closing,
    /// The last interval is in the ring.
    Closed,
}

/// What the log was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Denied,
    Refused,
    Away,
}

pub(super) struct Sender {
    sink: Box<dyn Sink>,
    pending: Arc<Mutex<Pending>>,
    wake: Arc<Notify>,
    jitter: Duration,
    said: Said,
    /// Nothing of the last batch was taken.
    is_refused: bool,
}

impl Sender {
    /// `jitter` passes between the end of an interval and its sending, so that not all mounts of a fleet send at once.
    pub(super) fn new(sink: Box<dyn Sink>, pending: Arc<Mutex<Pending>>, wake: Arc<Notify>, jitter: Duration) -> Self {
        Self { sink, pending, wake, jitter, said: Said::Nothing, is_refused: false }
    }

    /// Sends until the last interval is sent, or cannot be.
    pub(super) async fn run(mut self, mut phase: watch::Receiver<Phase>) {
        let mut failures = 0;
        loop {
            if *phase.borrow() == Phase::Running {
                let wait = if failures == 0 { self.jitter } else { pause(failures) };
                tokio::select! {
                    () = async {
                        if failures == 0 {
                            self.wake.notified().await;
                        }
                        tokio::time::sleep(wait).await;
                    } => {}
                    _ = phase.wait_for(|phase| *phase != Phase::Running) => {}
                }
            }
            // What is sent after this is known to be all there will be.
            let _ = phase.wait_for(|phase| *phase != Phase::Closing).await;
            let is_closed = *phase.borrow() == Phase::Closed;
            match self.send_all().await {
                Ok(()) if is_closed => return,
                Ok(()) => failures = 0,
                Err(PutError::Denied(_)) if is_closed => return,
                Err(_) if is_closed => tokio::time::sleep(PAUSE_AT_THE_END).await,
                Err(_) => failures += 1,
            }
        }
    }

    /// Sends everything that waits, until a request fails.
    pub(super) async fn send_all(&mut self) -> Result<(), PutError> {
        loop {
            let Some(batch) = self.pending.lock().batch() else { return Ok(()) };
            self.send_batch(batch).await?;
        }
    }

    /// Sends a batch. Where it is refused its halves are sent, and theirs, so that one datum that CloudWatch will never take
    /// costs no other; what is refused in the end is left out. A failure leaves what was not sent to the next call.
    async fn send_batch(&mut self, batch: Batch) -> Result<(), PutError> {
        // Where nothing was taken the last time, a look at the halves tells whether this batch is worth more.
        let (mut pieces, mut cuts_left) = (vec![batch], if self.is_refused { 1 } else { CUTS_MAX });
        let (mut is_taken, mut is_whole) = (false, true);
        while let Some(piece) = pieces.pop() {
            let last = piece.last();
            let outcome = match tokio::time::timeout(REQUEST_TIMEOUT, self.sink.put(piece.data())).await {
                Ok(outcome) => outcome,
                Err(_) => Err(PutError::Away(format!("no answer within {REQUEST_TIMEOUT:?}"))),
            };
            match outcome {
                Ok(()) => {
                    is_taken = true;
                    self.pending.lock().done(last);
                    if matches!(self.said, Said::Denied | Said::Away) {
                        self.are_taken_again();
                    }
                }
                Err(error @ PutError::Refused(_)) => {
                    let halves = if cuts_left > 0 { piece.halves() } else { None };
                    match halves {
                        Some((first, second)) => {
                            cuts_left -= 1;
                            pieces.extend([second, first]);
                        }
                        None => {
                            is_whole = false;
                            self.say(&error);
                            self.pending.lock().done(last);
                        }
                    }
                }
                Err(error) => {
                    self.say(&error);
                    return Err(error);
                }
            }
        }
        self.is_refused = !is_taken;
        if is_whole && self.said == Said::Refused {
            self.are_taken_again();
        }
        Ok(())
    }

    fn are_taken_again(&mut self) {
        let waiting = self.pending.lock().intervals();
        tracing::info!(waiting, "CloudWatch takes metrics again");
        self.said = Said::Nothing;
    }

    fn say(&mut self, error: &PutError) {
        let (said, line) = match error {
            PutError::Denied(detail) => (
                Said::Denied,
                format!(
                    "CloudWatch takes no metrics: cloudwatch:PutMetricData is not allowed ({detail}); add the action to \
                     the IAM policy, or leave --cloudwatch out"
                ),
            ),
            PutError::Refused(detail) => {
                (Said::Refused, format!("CloudWatch refuses metrics of this mount, and they are left out: {detail}"))
            }
            PutError::Away(detail) => (
                Said::Away,
                format!("CloudWatch does not take metrics now, they are sent later ({detail}); the mount goes on"),
            ),
        };
        if said != self.said {
            self.said = said;
            tracing::warn!("{line}");
        }
    }
}

/// Doubles from failure to failure, with full jitter in its upper half.
fn pause(failures: u32) -> Duration {
    let most = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(10))).min(PAUSE_MAX);
    most.mul_f64(0.5 + fastrand::f64() / 2.0)
}

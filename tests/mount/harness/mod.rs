//! What the facts stand on: servers, mounts, an independent S3 client, a watchdog. Knows no fact.

pub mod bytes;
pub mod facts;
pub mod imds;
pub mod mount;
pub mod outcome;
pub mod place;
pub mod process;
pub mod s3;
pub mod server;
pub mod sim;
pub mod sys;
pub mod watchdog;

pub mod prelude {
    //! What every file of facts uses.
    pub use super::bytes::{fingerprint, pattern, pattern_at};
    pub use super::facts::{Context, Fact, S3, SIM, skip};
    pub(crate) use super::facts::{own, shared};
    pub use super::outcome::{Failure, Outcome, refused, same_bytes};
    pub use super::place::Place;
    pub use super::process::{poll, quiet, run};
    pub use super::server::Kind;
    pub use super::sys;
}

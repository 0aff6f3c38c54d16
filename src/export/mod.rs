//! A metrics snapshot for the world outside.

pub mod cloudwatch;
pub mod prometheus;
pub mod status;

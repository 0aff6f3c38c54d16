//! A metrics snapshot for the world outside.

pub mod status;

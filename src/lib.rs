//! s3mount: an S3 bucket as a file system. The map of the house: modules in dependency order; who may use whom is
//! told in docs/ARCHITECTURE.md and held by tests/architecture.rs.

// A daemon has nobody to print to, and `println!` panics where a reader has gone: see `commands::say`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod types;

pub mod clock;
pub mod config;
pub mod memory;
pub mod metrics;

pub mod store;

pub mod cache;

pub mod namespace;
pub mod read;
pub mod write;

pub mod fs;

pub mod fuse;

pub mod ec2;
pub mod export;
pub mod lifecycle;

pub mod commands;

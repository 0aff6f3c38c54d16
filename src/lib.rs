//! s3mount: an S3 bucket as a file system. The map of the house: modules in dependency order; who may use whom is
//! told in docs/ARCHITECTURE.md and held by tests/architecture.rs.

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

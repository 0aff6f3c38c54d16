//! The facts, by what they are about. Each file gives its own in the order in which they are run.

mod attributes;
mod bill;
mod cloudwatch;
mod counted;
mod descriptors;
mod directories;
mod disk_cache;
mod doctor;
mod durability;
mod ec2;
mod ends;
mod faults;
mod files;
mod install;
mod large;
mod limits;
mod locks;
mod maps;
mod names;
mod passthrough;
mod posix;
mod pressure;
mod ranges;
mod readers;
pub mod remount;
mod rename;
mod tools;
mod two_mounts;
mod unlink;
mod versions;

use crate::harness::facts::Fact;

/// Every fact.
pub fn all() -> Vec<Fact> {
    [
        names::facts(),
        directories::facts(),
        files::facts(),
        descriptors::facts(),
        ranges::facts(),
        maps::facts(),
        locks::facts(),
        attributes::facts(),
        posix::facts(),
        rename::facts(),
        unlink::facts(),
        versions::facts(),
        two_mounts::facts(),
        durability::facts(),
        counted::facts(),
        disk_cache::facts(),
        passthrough::facts(),
        bill::facts(),
        cloudwatch::facts(),
        install::facts(),
        faults::facts(),
        limits::facts(),
        ends::facts(),
        ec2::facts(),
        doctor::facts(),
        pressure::facts(),
        large::facts(),
        tools::facts(),
        readers::facts(),
    ]
    .concat()
}

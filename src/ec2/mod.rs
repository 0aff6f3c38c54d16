//! What the instance tells about itself: the metadata service, what a machine of this type can do, its own disks, spot notices.
//!
//! Never needed: a machine that is no instance, or whose metadata service is away, mounts all the same.

mod bandwidth;
pub mod imds;
mod instance;
mod instance_store;
mod machine;
pub mod spot;
#[cfg(test)]
pub(crate) mod stub;

pub use self::bandwidth::{Bandwidth, bandwidth_of, is_memory_optimised};
pub use self::imds::{Imds, ImdsError};
pub use self::instance::Instance;
pub use self::instance_store::{InstanceStore, Roots, instance_stores, mapped_devices};

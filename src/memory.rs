//! Memory that carries file contents: recycled pages (`pages`) and the byte budgets that bound them (`budget`); local disk where
//! it is not enough (`spill`).
//!
//! A page holds [`PAGE_BYTES`]; blocks of the reader and staging of the writer are pages, so a published page becomes a cached
//! block without a copy.

mod budget;
mod pages;
mod spill;

pub use self::budget::{Budget, Lease, Overdraft, Overdrawn};
pub use self::pages::{PAGE_BYTES, Page, PagePool};
pub use self::spill::{Spill, SpilledPage};

//! What was typed, and what it means: a validated configuration, every limit with its unit in its name.

mod limits;

pub use self::limits::{AttributeDefaults, NamespaceLimits, ReadLimits, WriteLimits};

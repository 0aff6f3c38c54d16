//! Reads of pinned object versions: prefetch, single flight, cache.

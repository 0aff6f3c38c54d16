//! Writes: staging, parts, publishing, and what is kept when publishing fails.

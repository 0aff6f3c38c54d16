//! What the instance tells about itself.

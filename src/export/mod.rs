//! A metrics snapshot for the world outside.

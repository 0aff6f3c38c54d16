//! Names and attributes: which keys are which files, and what is known of them.

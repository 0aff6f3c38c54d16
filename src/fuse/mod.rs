//! The kernel's side: requests in, replies and invalidations out. No policy lives here, and no type of fuser leaves.

mod adapter;
mod attr;
mod directory;
mod errno;
pub mod mount;
mod notify;
mod passthrough;
mod process;
mod reply;
pub mod session;
mod tasks;
mod xattr;

//! The kernel's side: requests in, replies and invalidations out. No policy.

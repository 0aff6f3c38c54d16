//! Invalidations on their way to the kernel.
//!
//! They are written by a thread of their own, never from inside a handler: the kernel may wait for an inode that a
//! pending request holds.

use std::thread::{self, JoinHandle};

use fuser::{INodeNo, Notifier};
use tokio::sync::mpsc;

use crate::fs::KernelEvent;

/// Writes every event to the kernel until the senders are gone.
pub(super) fn spawn(
    notifier: Notifier,
    mut events: mpsc::UnboundedReceiver<KernelEvent>,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name("notify".into()).spawn(move || {
        while let Some(event) = events.blocking_recv() {
            let outcome = match &event {
                KernelEvent::Inode { ino, offset, len } => notifier.inval_inode(INodeNo(ino.0), *offset, *len),
                KernelEvent::Entry { parent, name } => notifier.inval_entry(INodeNo(parent.0), name.as_ref()),
            };
            if let Err(error) = outcome {
                // The mount is ending, or the kernel knows nothing of the inode: nothing is cached then.
                tracing::debug!(?event, %error, "the kernel did not take an invalidation");
            }
        }
    })
}

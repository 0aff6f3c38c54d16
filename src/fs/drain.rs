//! The end of a mount: everything is published, what cannot be is kept, and what neither S3 nor the journal takes is told by name.
//!
//! Invariant: what several drains came to is said file by file, a later one's word going before: a drain that is broken off, or runs
//! beside another, loses nothing of it.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;

use super::FileSystem;
use super::opened::InodeUse;
use super::unkept::{Fate, Unkept, keep};
use crate::types::Ino;
use crate::write::Writer;

/// What drains came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Files that were published.
    pub published: usize,
    /// Files that could not be published and were kept for `s3mount recover`.
    pub kept: usize,
    /// Files that could be neither published nor kept: they end with the process.
    pub unkept: Vec<Unkept>,
}

/// What the drains of a mount came to so far.
#[derive(Debug, Default)]
pub struct Drains(Mutex<BTreeMap<Ino, Fate>>);

impl Drains {
    /// As of now.
    pub fn drained(&self) -> Drained {
        let mut drained = Drained::default();
        for fate in self.0.lock().values() {
            match fate {
                Fate::Published => drained.published += 1,
                Fate::Kept(_) => drained.kept += 1,
                Fate::Unkept(why) => drained.unkept.push(why.clone()),
            }
        }
        drained
    }

    /// A drain has ended, and these files stay. What did before, is in the journal since, or removed.
    fn ended(&self, unkept: &BTreeSet<Ino>) {
        self.0.lock().retain(|ino, fate| !matches!(fate, Fate::Unkept(_)) || unkept.contains(ino));
    }

    /// What became of a file; gives why, if it is worth another try.
    fn tell(&self, ino: Ino, fate: Fate) -> Option<Unkept> {
        let unkept = match &fate {
            Fate::Unkept(why) => Some(why.clone()),
            Fate::Published | Fate::Kept(_) => None,
        };
        self.0.lock().insert(ino, fate);
        unkept
    }
}

/// Files published at the same time by a drain; each of them uploads several parts at once.
const DRAIN_FILES_MAX: usize = 16;

/// Why bytes are kept that nobody tried to publish any more.
const ENDED: &str = "the mount was ended before the upload finished";

impl FileSystem {
    /// Publishes every file with unpublished bytes; what fails is kept for recovery. For the end of a mount.
    pub async fn drain(&self) -> Drained {
        let drains = Drains::default();
        self.drain_into(&drains).await;
        drains.drained()
    }

    /// The same, told as it goes on.
    pub async fn drain_into(&self, drains: &Drains) {
        let mut left = BTreeSet::new();
        let unkept = each(self.open.dirty(), |inode| self.drain_one(inode, drains)).await;
        // Side by side they stood in each other's way, and what was kept has left room behind: one by one now.
        for (inode, why) in unkept {
            let _tree = self.tree.read().await;
            let _order = inode.order.lock().await;
            let writer = inode.view.lock().writer.clone().filter(Writer::is_dirty);
            let Some(writer) = writer else { continue };
            let fate = self.keep_or_stay(&inode, &writer, &why.upload).await;
            left.extend(drains.tell(inode.ino, fate).map(|_| inode.ino));
        }
        drains.ended(&left);
    }

    /// The file, and why, if neither S3 nor the journal took it.
    async fn drain_one(&self, inode: InodeUse, drains: &Drains) -> Option<(InodeUse, Unkept)> {
        let _tree = self.tree.read().await;
        let order = inode.order.lock().await;
        let fate = match self.publish_in_order(&inode).await {
            Ok(()) => Fate::Published,
            Err(error) => {
                let writer = inode.view.lock().writer.clone()?;
                self.give_up(&inode, &writer, &error.to_string()).await
            }
        };
        // Before another drain has its turn.
        let unkept = drains.tell(inode.ino, fate);
        drop(order);
        unkept.map(|why| (inode, why))
    }

    /// Keeps every unpublished byte for recovery without another try at S3. For an end that cannot wait.
    pub async fn keep_all(&self, drains: &Drains) {
        // Nobody's order is waited for: publications that are under way may take as long as S3 likes. One that ends all the same takes
        // what was kept of it out of the journal.
        let mut left = BTreeSet::new();
        for (inode, _) in each(self.open.dirty(), |inode| keep_one(inode, drains)).await {
            left.extend(keep_one(inode, drains).await.map(|(inode, _)| inode.ino));
        }
        drains.ended(&left);
    }

    /// What drains came to by now: what they kept of files that were still written may have been published since.
    pub fn drained(&self, drains: &Drains) -> Drained {
        drains.0.lock().values_mut().for_each(|fate| {
            if let Fate::Kept(Some(id)) = fate
                && !self.write.is_kept(id)
            {
                *fate = Fate::Published;
            }
        });
        drains.drained()
    }

    /// Has the disk cache finish what it was to keep, within `limit`: for the end of a mount. Blocks.
    pub fn settle_disk_cache(&self, limit: std::time::Duration) {
        self.read.settle_disk(limit);
    }

    /// Objects of unlinked files that are still open, deleted now: for the end of a mount.
    pub async fn delete_all_unlinked(&self) {
        for inode in self.open.unlinked() {
            let _order = inode.order.lock().await;
            self.delete_unlinked(&inode).await;
        }
    }
}

async fn keep_one(inode: InodeUse, drains: &Drains) -> Option<(InodeUse, Unkept)> {
    let writer = inode.view.lock().writer.clone()?;
    let unkept = drains.tell(inode.ino, keep(&writer, ENDED).await);
    unkept.map(|why| (inode, why))
}

/// Does something with each of the files, with several at once; what it gives.
async fn each<T, F: Future<Output = Option<T>>>(files: Vec<InodeUse>, work: impl Fn(InodeUse) -> F) -> Vec<T> {
    let mut given = Vec::new();
    let mut waiting = files.into_iter();
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < DRAIN_FILES_MAX
            && let Some(inode) = waiting.next()
        {
            running.push(work(inode));
        }
        match running.next().await {
            Some(one) => given.extend(one),
            None => return given,
        }
    }
}

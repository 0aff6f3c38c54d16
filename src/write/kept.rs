//! From a writer to the journal: what is written to disk when a publication fails.

use std::io;

use super::Piece;
use super::journal::{Keeping, KeptBase, KeptPart};
use super::writer::Inner;
use crate::store::WriteCondition;
use crate::types::ByteRange;

impl Inner {
    /// Puts everything that S3 does not have into the journal, in place of what was kept of this file before. Blocks.
    pub(super) fn keep(&self, reason: &str) -> io::Result<()> {
        if self.shared.journal.is_disabled() {
            tracing::error!(key = %self.state.lock().key, reason, "unpublished bytes are lost: there is no journal, as was wished");
            return Ok(());
        }
        let (keeping, bytes) = {
            let state = self.state.lock();
            let mut bytes: Vec<_> =
                state.staging.written().iter().map(|range| (range, state.staging.share(range))).collect();
            let base = state.base.as_ref().map(|base| KeptBase {
                key: base.key().as_str().to_owned(),
                etag: base.etag().as_str().to_owned(),
                size_bytes: base.size_bytes,
                shown_bytes: state.base_len,
            });
            // After a conflict the base is gone from S3; where it is at hand it is kept along.
            if let Some(primed) = &state.primed {
                // Where a part was dropped the upload has what was written, and the base shows no more.
                let mut newer = state.dropped();
                state.staging.written().iter().for_each(|range| newer.insert(range));
                for gap in newer.gaps(ByteRange::new(0, state.base_len)) {
                    bytes.push((gap, vec![Piece::Staged(primed.slice(gap.start as usize..gap.end as usize))]));
                }
                bytes.sort_by_key(|(range, _)| range.start);
            }
            let parts: Vec<KeptPart> = state.kept_parts();
            let upload = state.upload.as_ref().filter(|_| !parts.is_empty());
            let keeping = Keeping {
                key: state.key.as_str().to_owned(),
                size_bytes: state.size,
                base,
                upload: upload.map(|upload| (upload.0.to_string(), parts)),
                exclusive: state.condition == WriteCondition::Absent,
                content_type: state.attributes.content_type.as_deref().map(str::to_owned),
                metadata: state.attributes.metadata.as_ref().clone(),
                reason: reason.to_owned(),
            };
            (keeping, bytes)
        };
        let upload = keeping.upload.as_ref().map(|(upload, _)| upload.clone());
        let key = keeping.key.clone();
        let id = self.shared.journal.keep(keeping, &bytes, self.shared.clock.wall())?;
        tracing::error!(%key, %id, reason, "unpublished bytes are kept; `s3mount recover` has them");
        if let Some(upload) = upload {
            // Its parts are needed now; nobody aborts it but recover.
            self.shared.journal.ended(&upload);
        }
        let before = self.kept.lock().replace(id);
        if let Some(before) = before {
            // Not there any more if somebody recovered it meanwhile.
            let _ = self.shared.journal.discard(&before);
        }
        Ok(())
    }

    /// What was kept has been published after all.
    pub(super) fn forget_kept(&self) {
        let kept = self.kept.lock().take();
        if let Some(kept) = kept
            && let Err(error) = self.shared.journal.discard(&kept)
        {
            tracing::debug!(%kept, %error, "what was kept and then published is not in the journal any more");
        }
    }
}

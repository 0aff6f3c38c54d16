//! `s3mount recover`: bytes that could not be uploaded, shown, exported, pushed or discarded.

use super::say::{complain, say};
use crate::config::S3Config;
use crate::config::cli::{RecoverAction, RecoverArgs};
use crate::lifecycle::recovery::{self, Row};
use crate::lifecycle::{Failure, place};

/// Does what was asked; lists if nothing was.
pub(super) fn run(arguments: RecoverArgs) -> Result<(), Failure> {
    let root = place::state_root(arguments.state_dir.as_deref());
    let s3 = S3Config::new(arguments.s3).map_err(|error| Failure::usage(error.to_string()))?;
    match arguments.action.unwrap_or(RecoverAction::List) {
        RecoverAction::List => {
            let rows = recovery::list(&root);
            if rows.is_empty() {
                say!("nothing is kept below {}", root.display());
            }
            rows.iter().for_each(show);
        }
        RecoverAction::Discard { id } => {
            if let Some(left) = recovery::discard(&root, &s3, &id)? {
                complain!("s3mount: {id} is discarded; {left}");
            }
        }
        RecoverAction::Export { id, path, holes } => {
            recovery::export(&root, &s3, &id, &path, holes)?;
            say!("{} is written; {id} is still kept: s3mount recover discard {id}", path.display());
        }
        RecoverAction::Push { id, force } => say!("{} is written", recovery::push(&root, &s3, &id, force)?),
    }
    Ok(())
}

fn show(row: &Row) {
    let (id, bucket) = (&row.id, &row.bucket);
    match &row.what {
        Some((key, size_bytes, reason)) => {
            say!("{id}  s3://{bucket}/{key}  {}  {reason}", indicatif::BinaryBytes(*size_bytes));
        }
        None => say!("{id}  s3://{bucket}/?  torn record; its bytes: {}", row.data.display()),
    }
}

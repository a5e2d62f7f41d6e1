//! `--delete-before`: a session that only deletes, and then the one that copies.
//!
//! What is to be deleted is known only when the whole source was listed, and a session asks for files long before
//! that. So that the room is there before the first file needs it, the trees are compared twice. Each session
//! is one like any other; what both would say is said once.

use crate::endpoint::Outcome;
use crate::job::Job;
use protocol::arguments::Missing;
use protocol::itemize::Item;
use protocol::options::{Delete, SyncOptions};
use protocol::stats::{Problem, Stats};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use sync_agent::monitor::Monitor;

/// The two jobs that one is, where it is to delete first.
pub(crate) fn sessions(job: &Job) -> Option<(Job, Job)> {
    let options = &job.options;
    if !job.deletes_first || options.dry_run || !options.delete.extraneous {
        return None;
    }
    // With both of these nothing is made and no file is updated.
    let clearing =
        SyncOptions { existing: true, ignore_existing: true, remove_source_files: false, ..options.clone() };
    let mut copying = options.clone();
    copying.delete = Delete { extraneous: false, replaced_directories: true, ..options.delete };
    if copying.arguments.missing == Missing::Deleted {
        copying.arguments.missing = Missing::Ignored;
    }
    Some((Job { options: clearing, ..job.clone() }, Job { options: copying, ..job.clone() }))
}

/// What both sessions came to.
pub(crate) fn joined(cleared: &Outcome, mut copied: Outcome) -> Outcome {
    let first = &cleared.finished.stats;
    let Stats { created, deleted, metadata_updated, .. } = &mut copied.finished.stats;
    created.add(&first.created);
    deleted.add(&first.deleted);
    *metadata_updated += first.metadata_updated;
    copied.finished.exit = copied.finished.exit.worst(cleared.finished.exit);
    copied.sent_bytes += cleared.sent_bytes;
    copied.received_bytes += cleared.received_bytes;
    copied.frames += cleared.frames;
    copied
}

/// Passes on what happens in both sessions, what is the same once.
pub(crate) struct Once<'a> {
    monitor: &'a dyn Monitor,
    told: Mutex<HashSet<blake3::Hash>>,
}

impl<'a> Once<'a> {
    pub(crate) fn new(monitor: &'a dyn Monitor) -> Once<'a> {
        Once { monitor, told: Mutex::default() }
    }

    fn is_new(&self, what: &impl std::fmt::Debug) -> bool {
        let what = blake3::hash(format!("{what:?}").as_bytes());
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(what)
    }
}

impl Monitor for Once<'_> {
    fn item(&self, item: Item) {
        self.monitor.item(item);
    }

    fn problem(&self, problem: Problem) {
        if self.is_new(&problem) {
            self.monitor.problem(problem);
        }
    }

    fn made_root(&self, path: &[u8]) {
        self.monitor.made_root(path);
    }

    fn note(&self, message: &str) {
        if self.is_new(&message) {
            self.monitor.note(message);
        }
    }
}

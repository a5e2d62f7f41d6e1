//! Where the time of an end's threads goes, so that a user sees why a run took what it took.

use protocol::stats::Times;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What a thread is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// Listing directories, looking at entries, deciding.
    Scan,
    /// Reading files.
    Read,
    /// BLAKE3.
    Hash,
    /// Signatures, and the search for what a basis has.
    Match,
    /// zstd.
    Compress,
    /// Waiting for the line to take a frame.
    Send,
    /// Waiting for the other end.
    Wait,
    /// Writing files.
    Write,
    /// Syncing, renaming, last metadata.
    Commit,
}

const ACTIVITIES: usize = Activity::Commit as usize + 1;

/// Time by activity, added up over all threads of an end.
#[derive(Debug, Default)]
pub struct Clock([AtomicU64; ACTIVITIES]);

impl Clock {
    /// Does `work` on the account of `activity`.
    pub(crate) fn time<T>(&self, activity: Activity, work: impl FnOnce() -> T) -> T {
        let since = Instant::now();
        let result = work();
        self.add(activity, since);
        result
    }

    /// What passed since then was `activity`.
    pub(crate) fn add(&self, activity: Activity, since: Instant) {
        let passed = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0[activity as usize].fetch_add(passed, Ordering::Relaxed);
    }

    /// What it shows now.
    #[must_use]
    pub fn times(&self) -> Times {
        let of = |activity: Activity| self.0[activity as usize].load(Ordering::Relaxed);
        Times {
            scan_ns: of(Activity::Scan),
            read_ns: of(Activity::Read),
            hash_ns: of(Activity::Hash),
            match_ns: of(Activity::Match),
            compress_ns: of(Activity::Compress),
            send_ns: of(Activity::Send),
            wait_ns: of(Activity::Wait),
            write_ns: of(Activity::Write),
            commit_ns: of(Activity::Commit),
        }
    }
}

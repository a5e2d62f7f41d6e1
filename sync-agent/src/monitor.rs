//! Who is told what happens: the seam between the engine and whoever watches it.

use crate::clock::Clock;
use protocol::itemize::Item;
use protocol::stats::{Cause, Operation, Problem, Side};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Hears of everything that happens to an entry, from any thread.
pub trait Monitor: Send + Sync {
    /// Something was done to an entry (of a dry run: would be done).
    fn item(&self, item: Item);
    /// An entry failed; the run goes on.
    fn problem(&self, problem: Problem);
    /// The destination directory did not exist and was made.
    fn made_root(&self, path: &[u8]);
    /// Something the operator must know that is not about one entry.
    fn note(&self, message: &str);
}

/// How far a run is; any thread may look at it any time.
#[derive(Debug, Default)]
pub struct Progress {
    /// Entries listed so far.
    pub listed_entries: AtomicU64,
    /// Bytes of the regular files listed so far.
    pub listed_bytes: AtomicU64,
    /// Whether the two above are final.
    pub scanned: AtomicBool,
    /// Entries that are up to date or were dealt with.
    pub done_entries: AtomicU64,
    /// Bytes of files that are up to date, or arrived, or were matched.
    pub done_bytes: AtomicU64,
    /// Where this end's time goes.
    pub clock: Clock,
}

impl Progress {
    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}

/// The problem of a failed system call.
pub(crate) fn errno(
    side: Side,
    path: &protocol::path::RelPath,
    operation: Operation,
    error: rustix::io::Errno,
) -> Problem {
    Problem { side, path: path.clone(), operation, cause: Cause::Errno(error.raw_os_error()) }
}

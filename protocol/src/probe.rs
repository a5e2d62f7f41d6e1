//! What a client asks an agent to measure (`bench`), and what the agent answers: messages only.
//!
//! One probe is under way at a time. Whatever a probe may cost is in the probe itself and bounded by
//! [`limits`]; the agent does no more than that, and less where its permissions or its disk say so.

use crate::limits;
use bincode::{Decode, Encode};

/// One thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Probe {
    /// What the machine is.
    Machine,
    /// Answer at once: the round trip.
    Echo,
    /// Send this much filler: the way to the client.
    Send {
        /// How much, in bytes.
        bytes: u64,
    },
    /// Take this much filler, then answer: the way from the client.
    Receive {
        /// How much, in bytes.
        bytes: u64,
    },
    /// List the tree.
    Scan {
        /// No longer than this.
        limit_ms: u32,
    },
    /// Read files of the tree, as the scan before picked them.
    ReadTree {
        /// No longer than this.
        limit_ms: u32,
    },
    /// Write a file of its own, sync it, read it back from the disk, remove it.
    Disk {
        /// Its size in bytes; the agent makes it smaller where there is little room.
        bytes: u64,
        /// Each of writing and reading no longer than this.
        limit_ms: u32,
    },
    /// Create small files, sync and rename them as a commit does, remove them.
    Create {
        /// How many.
        files: u32,
        /// No longer than this.
        limit_ms: u32,
    },
    /// Hash on one core.
    Hash {
        /// For so long.
        limit_ms: u32,
    },
    /// Compress what [`Probe::ReadTree`] read, on one core.
    Compress {
        /// zstd's level.
        level: u8,
        /// For so long.
        limit_ms: u32,
    },
    /// Nothing more: answer when nothing is left behind, and end.
    Finish,
}

impl Probe {
    /// Whether it asks for no more than [`limits`] allow.
    pub(crate) fn is_sane(&self) -> bool {
        let is_short = |limit_ms| limit_ms <= limits::PROBE_MS;
        match *self {
            Probe::Machine | Probe::Echo | Probe::Finish => true,
            Probe::Send { bytes } | Probe::Receive { bytes } => bytes <= limits::PROBE_BYTES,
            Probe::Scan { limit_ms } | Probe::ReadTree { limit_ms } | Probe::Hash { limit_ms } => {
                is_short(limit_ms)
            }
            Probe::Disk { bytes, limit_ms } => bytes <= limits::PROBE_BYTES && is_short(limit_ms),
            Probe::Create { files, limit_ms } => files <= limits::PROBE_FILES && is_short(limit_ms),
            Probe::Compress { level, limit_ms } => (1..=19).contains(&level) && is_short(limit_ms),
        }
    }
}

/// The answer to a [`Probe`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ProbeResult {
    /// Done; the client has the clock.
    Done,
    /// It can't be measured here, and why; the other probes can.
    Refused(String),
    /// To [`Probe::Machine`].
    Machine(Machine),
    /// To [`Probe::Scan`].
    Tree(TreeSize),
    /// To [`Probe::ReadTree`], [`Probe::Create`] and [`Probe::Hash`].
    Work(Work),
    /// To [`Probe::Disk`].
    Disk {
        /// To the disk, synced.
        write: Work,
        /// From the disk.
        read: Work,
    },
    /// To [`Probe::Compress`].
    Compressed {
        /// What went in.
        work: Work,
        /// What came out, in bytes.
        packed_bytes: u64,
        /// It was the tree's own data.
        of_tree: bool,
    },
}

/// What a machine is, as far as it matters for a forecast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Machine {
    /// Cores that the process may use.
    pub cores: u32,
    /// What may still be written to the place's file system, in bytes.
    pub free_bytes: u64,
}

/// An amount of work and the time it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Work {
    /// Files, where the work is of files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
    /// Nanoseconds.
    pub elapsed_ns: u64,
}

/// What a scan found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct TreeSize {
    /// Entries of every kind.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// Bytes of the regular files.
    pub bytes: u64,
    /// Files over [`limits::SMALL_FILE_BYTES`], which are updated by deltas.
    pub large_files: u64,
    /// Bytes of those.
    pub large_bytes: u64,
    /// Directories and entries that could not be read.
    pub unreadable: u64,
    /// The limit did not cut it short.
    pub is_whole: bool,
    /// Nanoseconds.
    pub elapsed_ns: u64,
}

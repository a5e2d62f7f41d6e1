//! What a run did, in numbers, and how it ended: the summary, the problems, the exit status.

use bincode::{Decode, Encode};

/// How many entries of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Kinds {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Devices.
    pub devices: u64,
    /// FIFOs and sockets.
    pub specials: u64,
}

impl Kinds {
    /// Counts one more of `kind`.
    pub fn count(&mut self, kind: &crate::entry::Kind) {
        use crate::entry::Kind;
        *match kind {
            Kind::File { .. } => &mut self.files,
            Kind::Directory => &mut self.directories,
            Kind::Symlink { .. } => &mut self.symlinks,
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => &mut self.devices,
            Kind::Fifo | Kind::Socket => &mut self.specials,
        } += 1;
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.files + self.directories + self.symlinks + self.devices + self.specials
    }

    /// Adds `other` kind by kind.
    pub fn add(&mut self, other: &Kinds) {
        self.files += other.files;
        self.directories += other.directories;
        self.symlinks += other.symlinks;
        self.devices += other.devices;
        self.specials += other.specials;
    }
}

/// Where the time of one end's threads went, in nanoseconds, added up over its threads: together it may be more
/// than the run took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Times {
    /// Listing directories, looking at entries, deciding.
    pub scan_ns: u64,
    /// Reading files.
    pub read_ns: u64,
    /// BLAKE3.
    pub hash_ns: u64,
    /// Signatures, and the search for what a basis has.
    pub match_ns: u64,
    /// zstd.
    pub compress_ns: u64,
    /// Waiting for the line to take a frame.
    pub send_ns: u64,
    /// Waiting for the other end.
    pub wait_ns: u64,
    /// Writing files.
    pub write_ns: u64,
    /// Syncing, renaming, last metadata.
    pub commit_ns: u64,
}

impl Times {
    /// Each with its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 9] {
        [
            ("scan", self.scan_ns),
            ("read", self.read_ns),
            ("hash", self.hash_ns),
            ("match", self.match_ns),
            ("compress", self.compress_ns),
            ("send", self.send_ns),
            ("wait", self.wait_ns),
            ("write", self.write_ns),
            ("commit", self.commit_ns),
        ]
    }
}

/// What the destination's end did; of a dry run, what it would have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Stats {
    /// What the source listed.
    pub listed: Kinds,
    /// Sum of the sizes of the regular files listed.
    pub listed_bytes: u64,
    /// What came into being under a name that did not exist.
    pub created: Kinds,
    /// What was removed.
    pub deleted: Kinds,
    /// Existing regular files whose content was replaced.
    pub files_updated: u64,
    /// Existing entries of which only owner, mode, time or link target was set.
    pub metadata_updated: u64,
    /// Sum of the sizes of the regular files whose content was made new.
    pub transferred_bytes: u64,
    /// File data that came from the source.
    pub literal_bytes: u64,
    /// File data that was found at the destination.
    pub matched_bytes: u64,
    /// Entries compared by content alone (`--checksum`, `verify`).
    pub compared_files: u64,
    /// Bytes of content hashed at the destination for those comparisons.
    pub compared_bytes: u64,
    /// Sum of the lengths of what the symbolic links listed point to.
    pub listed_target_bytes: u64,
}

/// What was being done to an entry when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[allow(missing_docs, reason = "the names are the documentation; `as_str` has the words")]
pub enum Operation {
    List,
    Stat,
    Open,
    Read,
    ReadLink,
    Create,
    Write,
    Rename,
    Remove,
    SetOwner,
    SetMode,
    SetTimes,
    Compare,
    Sync,
    ReadAttributes,
    SetAttributes,
    Link,
    PutAside,
}

impl Operation {
    /// The words for a message: "cannot … PATH".
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::List => "list",
            Operation::Stat => "stat",
            Operation::Open => "open",
            Operation::Read => "read",
            Operation::ReadLink => "read link",
            Operation::Create => "create",
            Operation::Write => "write",
            Operation::Rename => "rename into place",
            Operation::Remove => "remove",
            Operation::SetOwner => "set owner of",
            Operation::SetMode => "set mode of",
            Operation::SetTimes => "set times of",
            Operation::Compare => "compare",
            Operation::Sync => "sync",
            Operation::ReadAttributes => "read extended attributes of",
            Operation::SetAttributes => "set extended attributes of",
            Operation::Link => "link",
            Operation::PutAside => "keep the old one of (so it was left as it is)",
        }
    }
}

/// Why one entry failed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Cause {
    /// A system call said no; the number is Linux's.
    Errno(i32),
    /// It was listed and is gone.
    Vanished,
    /// It changed each time it was read.
    KeptChanging,
    /// The copy's content is not the source's.
    ContentDiffers,
    /// What stands in its place is not removed without `--delete`.
    NotEmpty,
    /// `--copy-links` met a link that points nowhere.
    DanglingLink,
    /// `--copy-links` met a link into one of its own parents.
    LinkLoop,
    /// A file took a directory's place, or the reverse, between listing and reading.
    ChangedKind,
    /// It has more extended attributes than are carried.
    TooManyAttributes,
    /// The first of its names was not copied.
    FirstNameMissing,
    /// A link of the destination does not stay beneath it.
    LeadsOut,
    /// It is not what was copied any more, so the source keeps it.
    ChangedSince,
    /// What its attribute says of owner, mode and kind can't be read.
    StoredBadly,
    /// It is the destination's file itself, so the source keeps it.
    SameFile,
}

/// Which end met a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[allow(missing_docs, reason = "the design's two words")]
pub enum Side {
    Source,
    Destination,
}

/// One entry's failure: the run went on, the exit status remembers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Problem {
    /// Where it happened.
    pub side: Side,
    /// The entry, below the root of the transfer.
    pub path: crate::path::RelPath,
    /// What was being done.
    pub operation: Operation,
    /// Why it failed.
    pub cause: Cause,
}

impl Problem {
    /// The exit status that this problem alone would give.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.cause {
            Cause::Vanished | Cause::KeptChanging => Exit::Vanished,
            Cause::ContentDiffers => Exit::Differs,
            Cause::Errno(errno) if is_full(errno) => Exit::Full,
            _ => Exit::Partial,
        }
    }
}

/// Whether `errno` says that the destination has no room left (`ENOSPC`, `EDQUOT`).
#[must_use]
pub fn is_full(errno: i32) -> bool {
    matches!(errno, 28 | 122)
}

/// How a run ended: rsync's numbers where rsync has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Encode, Decode)]
#[repr(u8)]
pub enum Exit {
    /// Done, and on disk.
    #[default]
    Done = 0,
    /// The command line is wrong, or asks for what this program does not do.
    Usage = 1,
    /// The two ends are of versions that do not speak with each other.
    Incompatible = 2,
    /// The source or destination argument selects nothing usable.
    Selection = 3,
    /// The session could not be set up.
    StartUp = 5,
    /// The connection failed or broke.
    Connection = 10,
    /// A disk refused.
    FileIo = 11,
    /// The peer broke the protocol.
    Protocol = 12,
    /// Stopped by a signal.
    Interrupted = 20,
    /// Some entries failed.
    Partial = 23,
    /// Some source files vanished or kept changing.
    Vanished = 24,
    /// The deletions were refused: more than `--max-delete`, or an empty source.
    MaxDelete = 25,
    /// Nothing came from the peer for `--timeout` seconds.
    Timeout = 30,
    /// Another run works on the destination.
    Busy = 40,
    /// The host's key is unknown, has changed, or is revoked.
    HostKey = 41,
    /// The host accepts none of the keys.
    Authentication = 42,
    /// There is no agent at the other end.
    NoAgent = 43,
    /// The destination is full.
    Full = 44,
    /// Content differs.
    Differs = 45,
    /// A migration step was refused.
    Refused = 46,
}

impl Exit {
    /// The number for the shell.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The worse of two outcomes of single entries, and of a deletion that was refused.
    #[must_use]
    pub fn worst(self, other: Exit) -> Exit {
        const ORDER: [Exit; 6] =
            [Exit::Done, Exit::Vanished, Exit::Partial, Exit::MaxDelete, Exit::Differs, Exit::Full];
        let rank = |exit| ORDER.iter().position(|&known| known == exit).unwrap_or(ORDER.len());
        if rank(other) > rank(self) { other } else { self }
    }
}

//! What the operator asked of a run, as both ends need to know it.

use crate::arguments::ArgumentRules;
use crate::bases::{Bases, Fuzzy};
use crate::entry::Kind;
use crate::filter::FilterRules;
use crate::links::Links;
use crate::ownership::{OwnerMaps, Privileges};
use crate::plan::Plan;
use crate::replaced::{Placing, Replaced};
use crate::window::TimeWindow;
use bincode::{Decode, Encode};

/// Which metadata a copy keeps, and what else of a tree than files and directories.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Preserve {
    /// Symbolic links as links.
    pub links: bool,
    /// Permission bits.
    pub perms: bool,
    /// Owner (only where the destination's agent may set it).
    pub owner: bool,
    /// Group (only the groups the destination's agent may set).
    pub group: bool,
    /// Modification times.
    pub times: bool,
    /// Character and block devices.
    pub devices: bool,
    /// FIFOs and sockets.
    pub specials: bool,
    /// Owner and group by number, not by name.
    pub numeric_ids: bool,
    /// Extended attributes: all but the system's own as root, those of users otherwise.
    pub xattrs: bool,
    /// ACLs.
    pub acls: bool,
    /// Names of one inode as such.
    pub hard_links: bool,
    /// Access times of what is not a directory or link.
    pub atimes: bool,
    /// Which of the modification times are left alone although times are kept.
    pub omit_times: OmitTimes,
    /// Whether a file may be executed, where its other permission bits are not kept.
    pub executability: bool,
}

/// Kinds of entries whose modification times are not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct OmitTimes {
    /// Those of directories.
    pub directories: bool,
    /// Those of symbolic links.
    pub links: bool,
}

impl Preserve {
    /// Whether the modification time of such an entry is kept.
    #[must_use]
    pub fn keeps_time_of(&self, kind: &Kind) -> bool {
        let is_omitted = match kind {
            Kind::Directory => self.omit_times.directories,
            Kind::Symlink { .. } => self.omit_times.links,
            _ => false,
        };
        self.times && !is_omitted
    }

    /// Everything that `--archive` keeps; owners and groups by number if `numeric_ids`.
    #[must_use]
    pub fn all(numeric_ids: bool) -> Preserve {
        Preserve {
            links: true,
            perms: true,
            owner: true,
            group: true,
            times: true,
            devices: true,
            specials: true,
            numeric_ids,
            ..Preserve::default()
        }
    }
}

/// Which existing files are taken as up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum QuickCheck {
    /// Same size and same modification time.
    #[default]
    SizeAndTime,
    /// Same size.
    SizeOnly,
    /// Same content, by hash.
    Checksum,
    /// None: every file is transferred.
    Never,
}

/// How frames are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// zstd at this level, but for what does not shrink.
    Zstd {
        /// 1 to 19.
        level: u8,
    },
    /// zstd while the line is slower than that.
    Auto,
    /// The same; until the line has been measured it is taken for slow, for the other end is far away.
    AutoFar,
}

/// Permission bits of one class that others get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct ModeCopy {
    /// Where the class's three bits are: 6 for the user's, 3 for the group's, 0 for the others'.
    pub shift: u8,
    /// The bits of the classes that get them.
    pub to: u16,
}

/// One change of permission bits, as `--chmod` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct ModeChange {
    /// Applies to directories.
    pub directories: bool,
    /// Applies to everything else.
    pub files: bool,
    /// Bits that are cleared first.
    pub clear: u16,
    /// Bits that are set then.
    pub set: u16,
    /// Execute bits (of `0111`) that are set only where the entry is a directory or has one already.
    pub set_if_executable: u16,
    /// Bits that are set then because another class had them.
    pub copy: Option<ModeCopy>,
}

/// What to do with what the destination has and the source has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Delete {
    /// Remove it.
    pub extraneous: bool,
    /// Refuse, before the first removal, when there is more than this.
    pub max_entries: Option<u64>,
    /// Let an empty source empty the destination.
    pub allow_empty_source: bool,
    /// Empty directories that something else is to replace, also where nothing else is removed.
    pub replaced_directories: bool,
    /// Remove also where the source could not list or look at everything.
    pub ignore_errors: bool,
}

/// What room the content of files takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Room {
    /// Holes are not read at the source, and zeros take no room at the destination.
    pub sparse: bool,
    /// All of a file's room is reserved before its first byte is written.
    pub reserved: bool,
}

/// How files are read at the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Reading {
    /// Devices are files with what is on them.
    pub devices: bool,
    /// Access times are left as they are.
    pub noatime: bool,
}

/// Sizes of files that are transferred; others are listed, and left as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct SizeRange {
    /// Files that are smaller are not.
    pub least_bytes: Option<u64>,
    /// Files that are larger are not.
    pub most_bytes: Option<u64>,
}

impl SizeRange {
    /// Whether a file of this size is transferred.
    #[must_use]
    pub fn includes(self, size_bytes: u64) -> bool {
        self.least_bytes.is_none_or(|least| size_bytes >= least)
            && self.most_bytes.is_none_or(|most| size_bytes <= most)
    }
}

/// What the client hears of entries that nothing is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Telling {
    /// Those that are up to date (`-ii`, `-vv`).
    pub unchanged: bool,
    /// Those that an option leaves alone (`--info=skip`).
    pub spared: bool,
}

/// Everything the two ends need to know of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[allow(clippy::struct_excessive_bools, reason = "each is one of rsync's independent switches")]
pub struct SyncOptions {
    /// Descend into directories.
    pub recursive: bool,
    /// Stay on the file system of each source argument.
    pub one_file_system: bool,
    /// What of the metadata is kept.
    pub preserve: Preserve,
    /// What is taken as up to date.
    pub quick_check: QuickCheck,
    /// Skip files that are newer at the destination.
    pub update: bool,
    /// Create nothing new.
    pub existing: bool,
    /// Update nothing that exists.
    pub ignore_existing: bool,
    /// Never search for matching blocks.
    pub whole_file: bool,
    /// Patch files in place, through a journal, instead of replacing them.
    pub inplace: bool,
    /// Block size in bytes for every file, instead of one that follows from its size.
    pub block_size: Option<u32>,
    /// Deletions.
    pub delete: Delete,
    /// What is left out, at both ends.
    pub filter: FilterRules,
    /// Permission changes, applied to what the source listed.
    pub chmod: Vec<ModeChange>,
    /// Frame compression.
    pub compression: Compression,
    /// Neither use nor keep an index of what was hashed before.
    pub without_index: bool,
    /// Change nothing.
    pub dry_run: bool,
    /// Compare everything, change nothing, report every difference.
    pub verify: bool,
    /// Report each changed entry to the client.
    pub itemize: bool,
    /// Send no faster than this, from either end; 0: as fast as it goes.
    pub bandwidth_bytes_per_s: u64,
    /// End the session when nothing is heard of the peer for this long; 0: never.
    pub timeout_s: u32,
    /// What becomes of symbolic links.
    pub links: Links,
    /// How arguments are taken.
    pub arguments: ArgumentRules,
    /// How near modification times must be to count as the same.
    pub time_window: TimeWindow,
    /// Without descending, make the directories that are met.
    pub directories: bool,
    /// Remove from the source what is not a directory, once it is on disk at the destination.
    pub remove_source_files: bool,
    /// Where else at the destination a file may be.
    pub bases: Bases,
    /// Where a basis of another name may be.
    pub fuzzy: Fuzzy,
    /// What becomes of what is replaced or deleted.
    pub replaced: Replaced,
    /// Where files are before they have their names.
    pub placing: Placing,
    /// Update only files that have grown (`--append`).
    pub only_grown: bool,
    /// Directories with nothing to copy in them are left out.
    pub prune_empty_dirs: bool,
    /// Files of other sizes are not transferred.
    pub sizes: SizeRange,
    /// What else than changes is reported to the client.
    pub telling: Telling,
    /// Changes that the run is held to; none: whatever differs.
    pub plan: Option<Plan>,
    /// What room the content of files takes.
    pub room: Room,
    /// How files are read at the source.
    pub reading: Reading,
    /// What owners and groups become.
    pub owners: OwnerMaps,
    /// What each end does about what only a super-user may set.
    pub privileges: Privileges,
}

impl SyncOptions {
    /// Whether a directory that something else replaces is emptied for it.
    #[must_use]
    pub fn empties_directories(&self) -> bool {
        self.delete.extraneous || self.delete.replaced_directories
    }

    /// Whether the source loses what was copied in this run.
    #[must_use]
    pub fn removes_source(&self) -> bool {
        self.remove_source_files && !self.dry_run && !self.verify
    }

    /// Whether what exists may be left with another content than the source's, or what does not exist left out, by choice.
    #[must_use]
    pub fn may_spare(&self) -> bool {
        self.existing || self.ignore_existing || self.update || self.only_grown
    }

    /// Whether the source remembers all that it listed: where names are given late, what it is to remove is told long after
    /// the window has moved on.
    #[must_use]
    pub fn remembers_listing(&self) -> bool {
        self.removes_source() && (self.placing.delayed || self.preserve.hard_links)
    }
}

impl ModeChange {
    /// `mode` after this change.
    #[must_use]
    pub fn apply(&self, mode: u16, is_dir: bool) -> u16 {
        if !(if is_dir { self.directories } else { self.files }) {
            return mode;
        }
        let conditional = if is_dir || mode & 0o111 != 0 { self.set_if_executable } else { 0 };
        let spread =
            |copy: ModeCopy| ((mode.checked_shr(u32::from(copy.shift)).unwrap_or(0) & 7) * 0o111) & copy.to;
        mode & !self.clear | self.set | conditional | self.copy.map_or(0, spread)
    }
}

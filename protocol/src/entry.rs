//! One file list entry: what a listing says of one name.

use crate::attributes::{Attributes, Extra, HardLink};
use crate::limits;
use crate::path::Name;
use bincode::{Decode, Encode};
use std::sync::Arc;

/// A point in time as a file system keeps it; before 1970 `secs` is negative and `nanos` still counts up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct Timestamp {
    /// Whole seconds since 1970, rounded down.
    pub secs: i64,
    /// Nanoseconds within the second, 0 to 999,999,999.
    pub nanos: u32,
}

/// What kind of thing a name stands for, with what only that kind has.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Kind {
    /// A regular file.
    File {
        /// Length in bytes.
        size_bytes: u64,
    },
    /// A directory; its content has a listing of its own.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, never followed by this program unless `--copy-links` says so.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device.
    CharDevice {
        /// Major and minor number.
        device: (u32, u32),
    },
    /// A block device.
    BlockDevice {
        /// Major and minor number.
        device: (u32, u32),
    },
}

impl Kind {
    /// Whether both are the same kind of thing, whatever is in them.
    #[must_use]
    pub fn same_kind(&self, other: &Kind) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Whether this is a FIFO, a socket or a device: nothing that is ever opened for its data.
    #[must_use]
    pub fn is_node(&self) -> bool {
        matches!(self, Kind::Fifo | Kind::Socket | Kind::CharDevice { .. } | Kind::BlockDevice { .. })
    }
}

/// What one name in a directory is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Its name in the directory.
    pub name: Name,
    /// What it is.
    pub kind: Kind,
    /// Permission and set-id bits (`07777`).
    pub mode: u16,
    /// Owner, by number; the piece that holds the entry has the names.
    pub uid: u32,
    /// Group, by number.
    pub gid: u32,
    /// Time of the last change of content.
    pub mtime: Timestamp,
    /// The modification time was less than two seconds old when the entry was read, so a later change
    /// may have left it as it is: equal times prove nothing yet.
    pub young: bool,
    /// What only some options ask for.
    pub extra: Option<Box<Extra>>,
}

impl Entry {
    /// Length in bytes of a regular file, 0 of anything else.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        match self.kind {
            Kind::File { size_bytes } => size_bytes,
            _ => 0,
        }
    }

    /// Its extended attributes, where they are known.
    #[must_use]
    pub fn attributes(&self) -> Option<&Arc<Attributes>> {
        self.extra.as_ref()?.attributes.as_ref()
    }

    /// The inode that it shares with other names, where that is told.
    #[must_use]
    pub fn link(&self) -> Option<HardLink> {
        self.extra.as_ref()?.link
    }

    /// Says whether it is the first of its names, of an entry that has several.
    pub fn set_leads(&mut self, leads: bool) {
        if let Some(link) = self.extra.as_mut().and_then(|extra| extra.link.as_mut()) {
            link.leads = leads;
        }
    }

    /// When it was read last, where that is told.
    #[must_use]
    pub fn atime(&self) -> Option<Timestamp> {
        self.extra.as_ref()?.atime
    }

    /// Makes these its extended attributes.
    pub fn set_attributes(&mut self, attributes: Option<Arc<Attributes>>) {
        if attributes.is_some() || self.extra.is_some() {
            self.extra.get_or_insert_default().attributes = attributes;
        }
    }

    /// Whether this is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// Whether this is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        matches!(self.kind, Kind::File { .. })
    }

    /// Whether every number and length in it is one that a file system can have.
    pub(crate) fn is_sane(&self) -> bool {
        let target_fits = match &self.kind {
            Kind::Symlink { target } => {
                !target.is_empty() && target.len() <= limits::TARGET_BYTES && !target.contains(&0)
            }
            Kind::File { size_bytes } => i64::try_from(*size_bytes).is_ok(),
            _ => true,
        };
        let is_time = |time: Timestamp| time.nanos < 1_000_000_000;
        target_fits
            && self.mode <= 0o7777
            && is_time(self.mtime)
            && self.atime().is_none_or(is_time)
            && (self.link().is_none() || !self.is_dir())
    }
}

//! What becomes of what a run replaces or deletes, and how what comes gets into its place.

use bincode::{Decode, Encode};

/// What becomes of what is replaced or deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub enum Replaced {
    /// It is gone.
    #[default]
    Gone,
    /// It gets another name (`--backup`).
    Backup {
        /// Below this directory, relative to the destination; none: where it is.
        directory: Option<Vec<u8>>,
        /// What its name ends in then; never empty where it stays in its directory.
        suffix: Vec<u8>,
    },
    /// It is moved to a dated place below this directory, from where it can be put back (`--trash`).
    Trash {
        /// As typed, relative to the destination.
        directory: Vec<u8>,
    },
}

impl Replaced {
    /// The suffix of backups that stand beside the files, if that is where they go.
    #[must_use]
    pub fn suffix_beside(&self) -> Option<&[u8]> {
        match self {
            Replaced::Backup { directory: None, suffix } => Some(suffix),
            _ => None,
        }
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        *self == Replaced::Gone
    }
}

/// Where a file is until it has its name, and when it gets it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Placing {
    /// A directory for what is being written, relative to the destination (`--temp-dir`).
    pub temp_dir: Option<Vec<u8>>,
    /// A directory for what an interrupted run leaves of a file (`--partial-dir`): absolute, or relative to the
    /// file's own directory.
    pub partial_dir: Option<Vec<u8>>,
    /// No file gets its name before all are there (`--delay-updates`).
    pub delayed: bool,
}

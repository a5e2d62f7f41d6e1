//! What the scan collects before it is sent: entries into pieces, pieces into frames.

use super::{Job, Listed};
use crate::link::LinkState;
use crate::packer::Packer;
use crate::tree;
use protocol::entry::{Entry, Kind};
use protocol::limits;
use protocol::message::Piece;
use protocol::options::SyncOptions;
use std::sync::Arc;

/// Pieces collected for one frame.
pub(super) struct Sheet {
    pub(super) pieces: Vec<Piece>,
    /// The directories in them: listed only when the pieces were sent, so that no child overtakes its
    /// parent.
    pub(super) jobs: Vec<Job>,
    pub(super) entries: usize,
    pub(super) bytes: usize,
    pub(super) packer: Packer,
    /// Where the thread is in each source.
    pub(super) walks: Vec<tree::Walk>,
}

/// Entries (and one for each piece) that make a frame worth sending: some 30 KiB.
pub(super) const SHEET_ENTRIES: usize = 512;
/// Bytes of names, targets and paths that do.
pub(super) const SHEET_BYTES: usize = 64 << 10;
/// Bytes of names and targets in one piece: with the longest path still well within a frame.
const PIECE_BYTES: usize = 256 << 10;

impl Sheet {
    pub(super) fn new(options: &SyncOptions, link: &Arc<LinkState>) -> Sheet {
        Sheet {
            pieces: Vec::new(),
            jobs: Vec::new(),
            entries: 0,
            bytes: 0,
            packer: Packer::new(options.compression, link),
            walks: Vec::new(),
        }
    }
}

/// How a piece ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Another piece of the directory follows.
    MoreFollows,
    /// It is the last one, and everything in the directory was seen.
    Complete,
    /// It is the last one, and something could not be read.
    Incomplete,
}

/// A piece being collected.
pub(super) struct Part {
    pub(super) entries: Vec<Entry>,
    pub(super) listed: Vec<Listed>,
    pub(super) bytes: usize,
}

impl Part {
    /// Has room for so many names, as far as they go into one piece.
    pub(super) fn with_room(names: usize) -> Part {
        let room = names.min(limits::PIECE_ENTRIES);
        Part { entries: Vec::with_capacity(room), listed: Vec::with_capacity(room), bytes: 0 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= limits::PIECE_ENTRIES || self.bytes >= PIECE_BYTES
    }

    pub(super) fn push(&mut self, entry: Entry, listed: Listed) {
        self.bytes += entry.name.as_bytes().len() + 64;
        if let Kind::Symlink { target } = &entry.kind {
            self.bytes += target.len();
        }
        self.bytes += entry.attributes().map_or(0, |attributes| attributes.cost_bytes());
        self.entries.push(entry);
        self.listed.push(listed);
    }
}

//! What differed between an entry and what the destination had, and rsync's eleven letters for it.

use crate::ContentHash;
use crate::entry::{Entry, Kind, Timestamp};
use crate::path::RelPath;
use bincode::{Decode, Encode};

/// What happens to an entry's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Content {
    /// It stays; at most metadata is set.
    #[default]
    Kept,
    /// A regular file's data is transferred.
    Transferred,
    /// A directory, link or node is made at the destination itself.
    Made,
    /// It is made a further name of another entry.
    Linked,
}

/// What differs between what the source has and what the destination had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Change {
    /// What happens to the content.
    pub content: Content,
    /// Nothing of that name (or only another kind of thing) was there.
    pub new: bool,
    /// The content was compared and differs; of a link or device: its value.
    pub value: bool,
    /// The size differs.
    pub size: bool,
    /// The modification time differs, or (without `--times`) becomes that of the transfer.
    pub time: bool,
    /// The permission bits differ.
    pub perms: bool,
    /// The owner differs.
    pub owner: bool,
    /// The group differs.
    pub group: bool,
    /// Extended attributes differ.
    pub xattrs: bool,
    /// ACLs differ.
    pub acls: bool,
    /// The access time differs.
    pub atime: bool,
}

impl Change {
    /// Whether nothing at all differs.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Change::default()
    }
}

/// What a line for the operator may say of an entry beside what differs (`--out-format`, `--list-only`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Particulars {
    /// Permission and set-id bits (`07777`).
    pub mode: u16,
    /// Owner, by number.
    pub uid: u32,
    /// Group, by number.
    pub gid: u32,
    /// Time of the last change of content.
    pub mtime: Timestamp,
    /// File data that came from the source for it.
    pub literal_bytes: u64,
    /// BLAKE3 of a file's content, where it was transferred.
    pub content: Option<ContentHash>,
    /// What the destination has there, as far as a plan depends on it: a hash; 0 of nothing, and where no plan is made or
    /// carried out.
    pub was: u64,
}

impl Particulars {
    /// Those of an entry of which nothing was transferred.
    #[must_use]
    pub fn of(entry: &Entry) -> Particulars {
        let &Entry { mode, uid, gid, mtime, .. } = entry;
        Particulars { mode, uid, gid, mtime, ..Particulars::default() }
    }
}

/// Why an option leaves an entry alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Spared {
    /// `--existing`: nothing of that name is there.
    IsNew,
    /// `--ignore-existing`: something of that name is there.
    Exists,
    /// `--update`: what is there is newer.
    IsNewer,
    /// It is no kind of thing that is copied; always told.
    NotCopied,
}

/// One line for the operator: what was done, or would be done, to which entry.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Item {
    /// An entry was created, updated, or had metadata set.
    Updated {
        /// The entry, below the root of the transfer.
        path: RelPath,
        /// What it is now.
        kind: Kind,
        /// What differed; nothing of an entry that is up to date, told only where that was asked for.
        change: Change,
        /// What else is known of it.
        particulars: Particulars,
        /// The name that was there first, of an entry that became a further name of it.
        first: Option<RelPath>,
    },
    /// An extraneous entry was removed.
    Deleted {
        /// The entry.
        path: RelPath,
        /// It was a directory.
        is_dir: bool,
        /// What it was, as in [`Particulars::was`].
        was: u64,
    },
    /// An option leaves an entry as it is; told only where that was asked for.
    Spared {
        /// The entry.
        path: RelPath,
        /// It is a directory.
        is_dir: bool,
        /// Which option.
        why: Spared,
    },
}

/// Which way the data goes, seen from the client: rsync's first letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrow {
    /// `>`: to this machine (pull and local).
    Received,
    /// `<`: to another machine (push).
    Sent,
}

/// rsync's itemized letters for a change, `YXcstpoguax`.
///
/// `times` says whether modification times are preserved (`t` rather than `T`).
///
/// # Source
/// rsync(1) 3.5.0, `--itemize-changes`.
#[must_use]
pub fn letters(kind: &Kind, change: &Change, arrow: Arrow, times: bool) -> String {
    let verb = match (change.content, arrow) {
        (Content::Kept, _) => '.',
        (Content::Made, _) => 'c',
        (Content::Linked, _) => 'h',
        (Content::Transferred, Arrow::Received) => '>',
        (Content::Transferred, Arrow::Sent) => '<',
    };
    let noun = match kind {
        Kind::File { .. } => 'f',
        Kind::Directory => 'd',
        Kind::Symlink { .. } => 'L',
        Kind::CharDevice { .. } | Kind::BlockDevice { .. } => 'D',
        Kind::Fifo | Kind::Socket => 'S',
    };
    if change.new {
        return format!("{verb}{noun}+++++++++");
    }
    let is_linked_alone = change.content == Content::Linked;
    if change.is_none() || is_linked_alone && (Change { content: Content::Kept, ..*change }).is_none() {
        return format!("{verb}{noun}         ");
    }
    let letter = |set: bool, letter: char| if set { letter } else { '.' };
    [
        verb,
        noun,
        letter(change.value, 'c'),
        letter(change.size, 's'),
        letter(change.time, if times { 't' } else { 'T' }),
        letter(change.perms, 'p'),
        letter(change.owner, 'o'),
        letter(change.group, 'g'),
        letter(change.atime, 'u'),
        letter(change.acls, 'a'),
        letter(change.xattrs, 'x'),
    ]
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_those_of_rsync() {
        let file = Kind::File { size_bytes: 1 };
        let changed = Change { content: Content::Transferred, size: true, time: true, ..Change::default() };
        assert_eq!(letters(&file, &changed, Arrow::Received, true), ">f.st......");
        assert_eq!(letters(&file, &changed, Arrow::Sent, false), "<f.sT......");
        let made = Change { content: Content::Made, new: true, ..Change::default() };
        assert_eq!(letters(&Kind::Directory, &made, Arrow::Sent, true), "cd+++++++++");
        assert_eq!(letters(&file, &Change::default(), Arrow::Sent, true), ".f         ");
        let touched = Change { perms: true, owner: true, group: true, ..Change::default() };
        assert_eq!(letters(&Kind::Directory, &touched, Arrow::Sent, true), ".d...pog...");
    }
}

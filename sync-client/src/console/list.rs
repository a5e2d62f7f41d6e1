//! `--list-only`: lines that look like `ls -l`, in rsync's order.

use super::format::mode_letters;
use super::local_time::LocalTime;
use super::number::Human;
use protocol::entry::Kind;
use protocol::itemize::Particulars;
use protocol::path::RelPath;
use std::cmp::Ordering;

/// One entry that the source listed.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) path: RelPath,
    pub(crate) kind: Kind,
    pub(crate) particulars: Particulars,
}

impl Listed {
    /// The line but for the name: mode, size, time.
    pub(crate) fn columns(&self, human: Human, zone: &LocalTime) -> String {
        let letter = match self.kind {
            Kind::File { .. } => '-',
            Kind::Directory => 'd',
            Kind::Symlink { .. } => 'l',
            Kind::Fifo => 'p',
            Kind::Socket => 's',
            Kind::CharDevice { .. } => 'c',
            Kind::BlockDevice { .. } => 'b',
        };
        let width = if human.is_plain() { 11 } else { 14 };
        format!(
            "{letter}{} {:>width$} {}",
            mode_letters(self.particulars.mode),
            human.number(size_bytes(&self.kind)),
            zone.stamp(self.particulars.mtime.secs),
        )
    }

    /// rsync's order: in each directory what is no directory comes first, then each directory with what it holds.
    pub(crate) fn order(&self, other: &Listed) -> Ordering {
        let (mut ours, mut theirs) = (self.components(), other.components());
        loop {
            match (ours.next(), theirs.next()) {
                (None, theirs) => return if theirs.is_none() { Ordering::Equal } else { Ordering::Less },
                (Some(_), None) => return Ordering::Greater,
                (Some(ours), Some(theirs)) if ours == theirs => {}
                (Some((our_dir, ours)), Some((their_dir, theirs))) => {
                    return our_dir.cmp(&their_dir).then_with(|| {
                        // A directory's name counts with the slash behind it.
                        let slash = || our_dir.then_some(&b'/');
                        ours.iter().chain(slash()).cmp(theirs.iter().chain(slash()))
                    });
                }
            }
        }
    }

    /// The names on the way, with whether each is a directory; none of the root.
    fn components(&self) -> impl Iterator<Item = (bool, &[u8])> {
        let depth = self.path.depth();
        let is_dir = self.kind == Kind::Directory;
        let names = self.path.as_bytes().split(|&byte| byte == b'/').filter(|name| !name.is_empty());
        names.enumerate().map(move |(at, name)| (at + 1 < depth || is_dir, name))
    }
}

/// The length that is shown: of a file its own, of a link that of its target; of a directory it is not known.
pub(crate) fn size_bytes(kind: &Kind) -> u64 {
    match kind {
        Kind::File { size_bytes } => *size_bytes,
        Kind::Symlink { target } => target.len() as u64,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str) -> Listed {
        let kind = if name.ends_with('/') || name.is_empty() {
            Kind::Directory
        } else {
            Kind::File { size_bytes: 1_234_567 }
        };
        let path = match name.trim_end_matches('/') {
            "" => RelPath::root(),
            path => RelPath::new(path.as_bytes()).unwrap(),
        };
        Listed { path, kind, particulars: Particulars { mode: 0o640, ..Particulars::default() } }
    }

    #[test]
    fn files_come_before_directories_and_parents_before_children() {
        let order = ["", "a", "z", "a.b/", "a.b/x", "a/", "a/b", "a/c/", "a/c/a", "b/"];
        let mut entries: Vec<Listed> = order.iter().rev().map(|name| listed(name)).collect();
        entries.sort_by(Listed::order);
        let sorted: Vec<_> = entries.iter().map(|entry| entry.path.as_bytes()).collect();
        let expected: Vec<_> = order.iter().map(|name| name.trim_end_matches('/').as_bytes()).collect();
        assert_eq!(sorted, expected);
    }

    #[test]
    fn columns_are_those_of_rsync() {
        let zone = LocalTime::utc();
        for (human, line) in [
            (Human::default(), "-rw-r-----      1,234,567 1970/01/01 00:00:00"),
            (Human::PLAIN, "-rw-r-----     1234567 1970/01/01 00:00:00"),
            (Human::of(1), "-rw-r-----          1.23M 1970/01/01 00:00:00"),
        ] {
            assert_eq!(listed("f").columns(human, &zone), line);
        }
    }
}

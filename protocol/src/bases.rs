//! Alternate bases: directories of the destination in which a file is looked for that it lacks (`--compare-dest`,
//! `--copy-dest`, `--link-dest`), and files of similar names (`--fuzzy`).
//!
//! Pure: what a directory has is given, how well it agrees with the source is the answer. What is made of it is the
//! destination's affair.

use crate::decide::metadata_change;
use crate::entry::{Entry, Kind, Timestamp};
use crate::itemize::{Change, Content};
use crate::options::{QuickCheck, SyncOptions};
use bincode::{Decode, Encode};

/// What becomes of an entry that one of the directories has in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum BaseKind {
    /// The destination does without it.
    Compare,
    /// It is copied.
    Copy,
    /// It gets another name in the destination.
    #[default]
    Link,
}

/// Alternate bases, in the order in which they are looked at; all of one kind, as rsync has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Bases {
    /// What they are for.
    pub kind: BaseKind,
    /// Their paths as typed, relative to the destination.
    pub directories: Vec<Vec<u8>>,
}

/// Where a basis of another name is looked for when a file is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Fuzzy {
    /// Nowhere.
    #[default]
    Off,
    /// In the file's directory.
    Beside,
    /// In its directory and those of the alternate bases.
    BesideAndInBases,
}

/// How much an entry of a base has in common with the source's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Agreement {
    /// It is the same kind of thing.
    Kind,
    /// Its content is the same too.
    Content,
    /// All that is kept of it is the same.
    All,
}

/// How well an entry of a base agrees with `source` (translated for this end); none where it is another kind of thing.
#[must_use]
pub fn agreement(source: &Entry, base: &Entry, options: &SyncOptions) -> Option<Agreement> {
    if !source.kind.same_kind(&base.kind) {
        return None;
    }
    if !same_content(source, base, options) {
        return Some(Agreement::Kind);
    }
    // When it was read is no reason to have it twice.
    let differs = !Change { atime: false, ..metadata_change(source, base, options) }.is_none();
    Some(if differs { Agreement::Content } else { Agreement::All })
}

fn same_content(source: &Entry, base: &Entry, options: &SyncOptions) -> bool {
    if !source.is_file() {
        return source.kind == base.kind;
    }
    let same_size = source.size_bytes() == base.size_bytes();
    match options.quick_check {
        QuickCheck::SizeAndTime => same_size && options.time_window.same(source.mtime, base.mtime),
        // By hash, of those that have the same size: the caller compares.
        QuickCheck::SizeOnly | QuickCheck::Checksum => same_size,
        QuickCheck::Never => false,
    }
}

/// Whether the same size (and time) is not enough: the content of both has to be compared.
#[must_use]
pub fn must_compare(source: &Entry, options: &SyncOptions) -> bool {
    source.is_file()
        && match options.quick_check {
            QuickCheck::Checksum => true,
            QuickCheck::SizeAndTime => source.young,
            QuickCheck::SizeOnly | QuickCheck::Never => false,
        }
}

/// What differs between an entry and what it is made from: of one that agrees in all, nothing.
#[must_use]
pub fn change(source: &Entry, base: &Entry, agrees: Agreement, options: &SyncOptions) -> Change {
    // Without `--times` a copy gets the time of the copying, and rsync says so.
    let gets_time = options.bases.kind == BaseKind::Copy && source.is_file() && !options.preserve.times;
    if agrees == Agreement::All && !gets_time {
        return Change::default();
    }
    let mut change = metadata_change(source, base, options);
    change.time |= !options.preserve.keeps_time_of(&source.kind);
    change.size = source.size_bytes() != base.size_bytes();
    change.content = Content::Made;
    match source.kind {
        Kind::File { .. } if agrees == Agreement::Kind => {
            change.content = Content::Transferred;
            change.value = options.quick_check == QuickCheck::Checksum;
        }
        Kind::File { .. } | Kind::Directory => {}
        _ => change.value = true,
    }
    change
}

/// A file that may be like a missing one.
#[derive(Debug, Clone, Copy)]
pub struct Similar<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its length in bytes.
    pub size_bytes: u64,
    /// When it was last written.
    pub mtime: Timestamp,
}

/// The file that is most like `missing`: one of its size and time, else the one whose name has most in common with its
/// own, at least half.
#[must_use]
pub fn most_similar<'a>(
    missing: &Entry,
    files: impl Iterator<Item = Similar<'a>> + Clone,
) -> Option<&'a [u8]> {
    let files = files.filter(|file| file.size_bytes > 0);
    let mut same =
        files.clone().filter(|file| (file.size_bytes, file.mtime) == (missing.size_bytes(), missing.mtime));
    if let Some(moved) = same.next() {
        return Some(moved.name);
    }
    let wanted = missing.name.as_bytes();
    let distances = files.filter_map(|file| {
        let longer = wanted.len().max(file.name.len());
        let least = wanted.len().abs_diff(file.name.len());
        let distance = if least * 2 > longer { least } else { distance(wanted, file.name) };
        (distance * 2 <= longer).then_some((distance, file.name))
    });
    distances.min().map(|(_, name)| name)
}

/// Levenshtein's: how many bytes to insert, remove or replace.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Preserve;
    use crate::path::Name;

    fn file(name: &str, size_bytes: u64, secs: i64, mode: u16) -> Entry {
        Entry {
            name: Name::new(name.as_bytes()).unwrap(),
            kind: Kind::File { size_bytes },
            mode,
            uid: 0,
            gid: 0,
            mtime: Timestamp { secs, nanos: 0 },
            young: false,
            extra: None,
        }
    }

    fn archive(quick_check: QuickCheck) -> SyncOptions {
        let preserve = Preserve { perms: true, times: true, ..Preserve::default() };
        SyncOptions { preserve, quick_check, ..SyncOptions::default() }
    }

    #[test]
    fn a_base_agrees_in_kind_content_or_all() {
        let here = file("f", 10, 100, 0o644);
        let fifo = Entry { kind: Kind::Fifo, ..here.clone() };
        for (base, check, expected) in [
            (here.clone(), QuickCheck::SizeAndTime, Some(Agreement::All)),
            (file("f", 10, 100, 0o600), QuickCheck::SizeAndTime, Some(Agreement::Content)),
            (file("f", 10, 101, 0o644), QuickCheck::SizeAndTime, Some(Agreement::Kind)),
            (file("f", 10, 101, 0o644), QuickCheck::SizeOnly, Some(Agreement::Content)),
            (file("f", 11, 100, 0o644), QuickCheck::SizeOnly, Some(Agreement::Kind)),
            (here.clone(), QuickCheck::Never, Some(Agreement::Kind)),
            (fifo, QuickCheck::SizeAndTime, None),
        ] {
            assert_eq!(agreement(&here, &base, &archive(check)), expected, "{base:?} {check:?}");
        }
        assert!(Agreement::All > Agreement::Content && Agreement::Content > Agreement::Kind);
    }

    #[test]
    fn what_agrees_in_all_is_not_a_change() {
        let (here, options) = (file("f", 10, 100, 0o644), archive(QuickCheck::SizeAndTime));
        assert!(change(&here, &here, Agreement::All, &options).is_none());
        let there = file("f", 11, 99, 0o644);
        let change = change(&here, &there, Agreement::Kind, &options);
        assert_eq!((change.content, change.size, change.time), (Content::Transferred, true, true));
        assert!(!change.new, "it is compared with the base");
    }

    #[test]
    fn the_most_similar_file_has_size_and_time_or_half_of_the_name() {
        let missing = file("backup-2026-02.tar", 500, 100, 0o644);
        let at = |name, size_bytes, secs| Similar { name, size_bytes, mtime: Timestamp { secs, nanos: 0 } };
        let old: Similar<'_> = at(b"backup-2026-01.tar", 400, 1);
        let older: Similar<'_> = at(b"backup-2025-11.tar", 400, 1);
        let moved: Similar<'_> = at(b"x", 500, 100);
        let empty: Similar<'_> = at(b"backup-2026-02.tar.new", 0, 1);
        let other: Similar<'_> = at(b"unlike", 400, 1);
        for (files, expected) in [
            (vec![other, older, old, moved], Some(&b"x"[..])),
            (vec![other, older, old], Some(b"backup-2026-01.tar")),
            (vec![other, empty], None),
        ] {
            assert_eq!(most_similar(&missing, files.iter().copied()), expected);
        }
        assert_eq!(distance(b"kitten", b"sitting"), 3);
        assert_eq!(distance(b"", b"abc"), 3);
    }
}

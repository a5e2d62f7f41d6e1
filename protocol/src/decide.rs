//! What has to happen to one entry: a pure comparison of what the source listed and the destination has.

use crate::attributes::is_acl;
use crate::entry::{Entry, Kind};
use crate::itemize::{Change, Content};
use crate::options::{QuickCheck, SyncOptions};

/// What to do with one entry of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing: an option leaves it alone.
    Skip,
    /// Nothing: it is up to date.
    Keep,
    /// Set the metadata that differs.
    SetMetadata,
    /// Make a directory, link or node, in place of whatever has the name.
    Make,
    /// Transfer a regular file's content.
    Transfer {
        /// A regular file of that name is there to match blocks with.
        has_basis: bool,
    },
    /// Compare a regular file's content first; transfer it where it differs.
    Compare,
}

/// Compares `source`, as it should become here (owner and mode already translated for this end),
/// with what the destination has under its name.
#[must_use]
pub fn decide(source: &Entry, existing: Option<&Entry>, options: &SyncOptions) -> (Action, Change) {
    match existing {
        Some(existing) if existing.kind.same_kind(&source.kind) => decide_existing(source, existing, options),
        _ => decide_new(source, existing.is_some(), options),
    }
}

fn decide_new(source: &Entry, other_kind_there: bool, options: &SyncOptions) -> (Action, Change) {
    let left_alone = options.existing && !other_kind_there || options.ignore_existing && other_kind_there;
    if left_alone {
        return (Action::Skip, Change::default());
    }
    let change = |content| Change { content, new: true, ..Change::default() };
    if source.is_file() {
        (Action::Transfer { has_basis: false }, change(Content::Transferred))
    } else {
        (Action::Make, change(Content::Made))
    }
}

fn decide_existing(source: &Entry, existing: &Entry, options: &SyncOptions) -> (Action, Change) {
    let mut change = metadata_change(source, existing, options);
    if options.ignore_existing && !source.is_dir() {
        return (Action::Skip, Change::default());
    }
    match (&source.kind, &existing.kind) {
        (Kind::File { size_bytes }, Kind::File { size_bytes: there }) => {
            if options.update && options.time_window.keeps_newer(existing.mtime, source.mtime) {
                return (Action::Skip, Change::default());
            }
            change.size = size_bytes != there;
            decide_file(source, existing, options, change)
        }
        (Kind::Directory, _) => keep_or_set(change),
        (now, there) if now == there => keep_or_set(change),
        _ => {
            change.value = true;
            change.content = Content::Made;
            change.time |= !options.preserve.keeps_time_of(&source.kind);
            (Action::Make, change)
        }
    }
}

fn decide_file(
    source: &Entry,
    existing: &Entry,
    options: &SyncOptions,
    mut change: Change,
) -> (Action, Change) {
    let same_time = options.time_window.same(source.mtime, existing.mtime);
    let fresh_enough = match options.quick_check {
        QuickCheck::SizeAndTime => same_time && !change.size,
        QuickCheck::SizeOnly => !change.size,
        QuickCheck::Checksum | QuickCheck::Never => false,
    };
    let compare = match options.quick_check {
        QuickCheck::Checksum => !change.size,
        QuickCheck::SizeAndTime => fresh_enough && source.young,
        _ => false,
    };
    if compare {
        return (Action::Compare, change);
    }
    if fresh_enough {
        return keep_or_set(change);
    }
    change.value = options.quick_check == QuickCheck::Checksum;
    (Action::Transfer { has_basis: true }, transferred(change, options))
}

/// `change` of a file whose content turned out to differ although its size and time may not.
#[must_use]
pub fn content_differs(mut change: Change, options: &SyncOptions) -> Change {
    change.value = true;
    transferred(change, options)
}

/// What is left to do of a file whose content was compared and is the same.
#[must_use]
pub fn content_same(change: Change) -> (Action, Change) {
    keep_or_set(change)
}

fn transferred(mut change: Change, options: &SyncOptions) -> Change {
    change.content = Content::Transferred;
    change.time |= !options.preserve.times;
    change
}

fn keep_or_set(change: Change) -> (Action, Change) {
    if change.is_none() { (Action::Keep, change) } else { (Action::SetMetadata, change) }
}

/// What of the kept metadata differs; a link has no mode of its own.
#[must_use]
pub fn metadata_change(source: &Entry, existing: &Entry, options: &SyncOptions) -> Change {
    let keep = &options.preserve;
    let is_link = matches!(source.kind, Kind::Symlink { .. });
    let differ = |is_meant: &dyn Fn(&[u8]) -> bool| match (source.attributes(), existing.attributes()) {
        (Some(source), Some(existing)) => !source.agree(existing, is_meant),
        (Some(source), None) => source.iter().any(|(name, _)| is_meant(name)),
        (None, _) => false,
    };
    Change {
        time: keep.keeps_time_of(&source.kind) && !options.time_window.same(source.mtime, existing.mtime),
        perms: !is_link && source.mode != existing.mode,
        owner: source.uid != existing.uid,
        group: source.gid != existing.gid,
        xattrs: differ(&|name| !is_acl(name)),
        acls: differ(&is_acl),
        atime: source.atime().is_some() && source.atime() != existing.atime(),
        ..Change::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Timestamp;
    use crate::options::Preserve;
    use crate::path::Name;

    fn file(size_bytes: u64, secs: i64) -> Entry {
        Entry {
            name: Name::new(*b"f").unwrap(),
            kind: Kind::File { size_bytes },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Timestamp { secs, nanos: 5 },
            young: false,
            extra: None,
        }
    }

    fn archive() -> SyncOptions {
        SyncOptions {
            recursive: true,
            preserve: Preserve { perms: true, times: true, links: true, ..Preserve::default() },
            ..SyncOptions::default()
        }
    }

    #[test]
    fn quick_check_compares_size_and_nanoseconds_for_equality_only() {
        let options = archive();
        let here = file(10, 100);
        assert_eq!(decide(&here, Some(&here), &options).0, Action::Keep);
        for changed in [file(11, 100), file(10, 99), file(10, 101), file(10, -1)] {
            let transfer = Action::Transfer { has_basis: true };
            assert_eq!(decide(&changed, Some(&here), &options).0, transfer);
        }
        let mut later = here.clone();
        later.mtime.nanos += 1;
        assert_eq!(decide(&later, Some(&here), &options).0, Action::Transfer { has_basis: true });
    }

    #[test]
    fn a_young_modification_time_proves_nothing() {
        let here = file(10, 100);
        let young = Entry { young: true, ..here.clone() };
        assert_eq!(decide(&young, Some(&here), &archive()).0, Action::Compare);
    }

    #[test]
    fn options_choose_what_is_up_to_date() {
        let (old, new) = (file(10, 100), file(10, 200));
        let with = |quick_check| SyncOptions { quick_check, ..archive() };
        let transfer = Action::Transfer { has_basis: true };
        for (options, source, existing, expected) in [
            (with(QuickCheck::SizeOnly), &new, &old, Action::SetMetadata),
            (with(QuickCheck::Checksum), &old, &old, Action::Compare),
            (with(QuickCheck::Checksum), &file(11, 100), &old, transfer),
            (with(QuickCheck::Never), &old, &old, transfer),
            (SyncOptions { update: true, ..archive() }, &old, &new, Action::Skip),
            (SyncOptions { update: true, ..archive() }, &new, &old, transfer),
            (SyncOptions { ignore_existing: true, ..archive() }, &new, &old, Action::Skip),
            (SyncOptions { existing: true, ..archive() }, &new, &old, transfer),
        ] {
            assert_eq!(decide(source, Some(existing), &options).0, expected, "{options:?}");
        }
        let existing_only = SyncOptions { existing: true, ..archive() };
        assert_eq!(decide(&new, None, &existing_only).0, Action::Skip);
        assert_eq!(decide(&new, None, &archive()).0, Action::Transfer { has_basis: false });
    }

    #[test]
    fn another_kind_of_thing_is_replaced_and_a_changed_link_is_made_anew() {
        let link = |target: &[u8]| Entry { kind: Kind::Symlink { target: target.into() }, ..file(0, 1) };
        let (action, change) = decide(&link(b"a"), Some(&link(b"b")), &archive());
        assert_eq!((action, change.value, change.new), (Action::Make, true, false));
        assert_eq!(decide(&link(b"a"), Some(&link(b"a")), &archive()).0, Action::Keep);
        let (action, change) = decide(&link(b"a"), Some(&file(1, 1)), &archive());
        assert_eq!((action, change.new), (Action::Make, true));
    }
}

//! What only some options keep of a tree: extended attributes, ACLs among them, hard links, access times and holes.

use crate::snapshot::escaped;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use walkdir::WalkDir;

/// Attributes of every entry, by path below the root, a line each: `PATH NAME VALUE`.
///
/// # Panics
/// Where they can't be read.
#[must_use]
pub fn attributes(root: &Path) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for_each(root, |path, relative| {
        let mut names = Vec::with_capacity(64 << 10);
        rustix::fs::llistxattr(path, rustix::buffer::spare_capacity(&mut names))
            .expect("attributes can be listed");
        for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let mut value = Vec::with_capacity(64 << 10);
            rustix::fs::lgetxattr(path, name, rustix::buffer::spare_capacity(&mut value))
                .expect("it is there");
            let mut line = format!("{relative} {} ", escaped(name));
            value.iter().for_each(|byte| {
                let _ = write!(line, "{byte:02x}");
            });
            lines.insert(line);
        }
    });
    lines
}

/// Sets one attribute, of a link itself.
///
/// # Panics
/// Where that fails.
pub fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty())
        .unwrap_or_else(|error| panic!("{name} of {}: {error}", path.display()));
}

/// An ACL that lets one more user in, as `system.posix_acl_access` and `system.posix_acl_default` have it.
#[must_use]
pub fn acl_for(uid: u32) -> Vec<u8> {
    let nobody = u32::MAX;
    let entries = [(1_u16, 7_u16, nobody), (2, 7, uid), (4, 5, nobody), (16, 7, nobody), (32, 0, nobody)];
    let entry = |(tag, bits, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [2_u32.to_le_bytes().to_vec()].into_iter().chain(entries.map(entry)).flatten().collect()
}

/// The names that share an inode, group by group.
///
/// # Panics
/// Where the tree can't be read.
#[must_use]
pub fn link_groups(root: &Path) -> BTreeSet<BTreeSet<String>> {
    let mut groups: BTreeMap<(u64, u64), BTreeSet<String>> = BTreeMap::new();
    for_each(root, |path, relative| {
        let stat = path.symlink_metadata().expect("it is there");
        if !stat.is_dir() {
            groups.entry((stat.dev(), stat.ino())).or_default().insert(relative);
        }
    });
    groups.into_values().filter(|names| names.len() > 1).collect()
}

/// Access times of everything but directories and links, in nanoseconds.
///
/// # Panics
/// Where the tree can't be read.
#[must_use]
pub fn access_times(root: &Path) -> BTreeMap<String, i128> {
    let mut times = BTreeMap::new();
    for_each(root, |path, relative| {
        let stat = path.symlink_metadata().expect("it is there");
        if !stat.is_dir() && !stat.is_symlink() {
            times.insert(relative, i128::from(stat.atime()) * 1_000_000_000 + i128::from(stat.atime_nsec()));
        }
    });
    times
}

fn for_each(root: &Path, mut each: impl FnMut(&Path, String)) {
    for entry in WalkDir::new(root) {
        let entry = entry.expect("the tree can be read");
        let relative = entry.path().strip_prefix(root).expect("it is below the root");
        each(entry.path(), escaped(relative.as_os_str().as_bytes()));
    }
}

//! All that a copy must reproduce of a tree, taken by path and on one thread, for comparing two trees.

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, openat, readlink, statat};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use walkdir::WalkDir;

/// How many differences a report shows.
const SHOWN_DIFFERENCES: usize = 40;

/// What is at a name, and all about it that a copy must reproduce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is, with what only such a thing has.
    pub kind: Kind,
    /// The permission, set-id and sticky bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Nanoseconds since 1970, before it negative.
    pub mtime_ns: i128,
}

/// What is at a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Its length.
        size_bytes: u64,
        /// BLAKE3 of its content; `None` where this user may not read it.
        content: Option<blake3::Hash>,
    },
    /// A directory. Its size is the file system's affair and not compared.
    Directory,
    /// A symbolic link.
    Symlink {
        /// What it says.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice {
        /// Its number.
        rdev: u64,
    },
    /// A block device.
    BlockDevice {
        /// Its number.
        rdev: u64,
    },
}

/// A tree: every node by its path below the root, the root itself as the empty path.
pub type Snapshot = BTreeMap<Vec<u8>, Node>;

/// What [`assert_same`] leaves out.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    /// Owners and groups.
    pub owner: bool,
    /// Permission bits.
    pub mode: bool,
    /// All modification times.
    pub mtime: bool,
    /// Modification times of directories.
    pub directory_mtime: bool,
    /// Whatever lies below these names at the top.
    pub top_names: Vec<Vec<u8>>,
}

/// Leaves nothing out.
pub const NOTHING: Ignore =
    Ignore { owner: false, mode: false, mtime: false, directory_mtime: false, top_names: Vec::new() };

/// Walks a tree. Symbolic links are not followed, nothing but regular files is opened.
///
/// # Panics
/// Where the tree cannot be read or changes meanwhile.
#[must_use]
pub fn snapshot(root: &Path) -> Snapshot {
    let node_of = |entry: Result<walkdir::DirEntry, walkdir::Error>| {
        let entry = entry.expect("the tree can be read");
        let relative = entry.path().strip_prefix(root).expect("it is below the root");
        (relative.as_os_str().as_bytes().to_vec(), node(entry.path()))
    };
    WalkDir::new(root).follow_links(false).into_iter().map(node_of).collect()
}

/// One name's node.
///
/// # Panics
/// Where it cannot be read.
#[must_use]
pub fn node(path: &Path) -> Node {
    let stat = statat(CWD, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
    let stat = stat.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Node {
        kind: kind(path, &stat),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime_ns: i128::from(stat.st_mtime) * 1_000_000_000 + stat.st_mtime_nsec as i128,
    }
}

fn kind(path: &Path, stat: &Stat) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File { size_bytes: stat.st_size as u64, content: content(path) },
        FileType::Directory => Kind::Directory,
        FileType::Symlink => {
            Kind::Symlink { target: readlink(path, Vec::new()).expect("it is a link").into_bytes() }
        }
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharDevice { rdev: stat.st_rdev },
        FileType::BlockDevice => Kind::BlockDevice { rdev: stat.st_rdev },
        FileType::Unknown => panic!("{}: unknown type", path.display()),
    }
}

/// By path handle flags rather than `File::open`, so that a FIFO put there meanwhile cannot hang the test.
fn content(path: &Path) -> Option<blake3::Hash> {
    let opened = openat(
        CWD,
        path,
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let mut file = match opened {
        Ok(file) => std::fs::File::from(file),
        Err(rustix::io::Errno::ACCESS) => return None,
        Err(error) => panic!("{}: {error}", path.display()),
    };
    let hash = hash_of(&mut file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Some(hash)
}

fn hash_of(file: &mut impl Read) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            len => hasher.update(&buffer[..len]),
        };
    }
}

/// Panics with a list of differences (at most 40 lines) where the trees are not the same.
///
/// # Panics
/// Where they are not.
#[track_caller]
pub fn assert_same(expected: &Snapshot, actual: &Snapshot, ignore: &Ignore) {
    let differences = differences(expected, actual, ignore);
    if differences.is_empty() {
        return;
    }
    let mut report = format!("{} differences (expected | actual)\n", differences.len());
    for line in differences.iter().take(SHOWN_DIFFERENCES) {
        let _ = writeln!(report, "  {line}");
    }
    if differences.len() > SHOWN_DIFFERENCES {
        let _ = writeln!(report, "  … {} more", differences.len() - SHOWN_DIFFERENCES);
    }
    panic!("{report}");
}

/// One line for each name that differs, in order of names.
#[must_use]
pub fn differences(expected: &Snapshot, actual: &Snapshot, ignore: &Ignore) -> Vec<String> {
    let names: BTreeSet<&Vec<u8>> = expected.keys().chain(actual.keys()).collect();
    let line = |name: &Vec<u8>| {
        let top = name.split(|&byte| byte == b'/').next().unwrap_or_default();
        if ignore.top_names.iter().any(|ignored| ignored == top) {
            return None;
        }
        match (expected.get(name), actual.get(name)) {
            (Some(node), None) => Some(format!("{}: missing, expected {:?}", escaped(name), node.kind)),
            (None, Some(node)) => Some(format!("{}: extraneous, {:?}", escaped(name), node.kind)),
            (Some(expected), Some(actual)) => {
                let what = node_differences(expected, actual, ignore);
                (!what.is_empty()).then(|| format!("{}: {}", escaped(name), what.join(", ")))
            }
            (None, None) => None,
        }
    };
    names.into_iter().filter_map(line).collect()
}

fn node_differences(expected: &Node, actual: &Node, ignore: &Ignore) -> Vec<String> {
    let mut found = Vec::new();
    if expected.kind != actual.kind {
        found.push(kind_difference(&expected.kind, &actual.kind));
    }
    if !ignore.mode && expected.mode != actual.mode {
        found.push(format!("mode {:04o} | {:04o}", expected.mode, actual.mode));
    }
    if !ignore.owner && (expected.uid, expected.gid) != (actual.uid, actual.gid) {
        found.push(format!("owner {}:{} | {}:{}", expected.uid, expected.gid, actual.uid, actual.gid));
    }
    let ignored_mtime = ignore.mtime || (ignore.directory_mtime && expected.kind == Kind::Directory);
    if !ignored_mtime && expected.mtime_ns != actual.mtime_ns {
        found.push(format!("mtime_ns {} | {}", expected.mtime_ns, actual.mtime_ns));
    }
    found
}

fn kind_difference(expected: &Kind, actual: &Kind) -> String {
    match (expected, actual) {
        (Kind::File { size_bytes: a, .. }, Kind::File { size_bytes: b, .. }) if a == b => {
            format!("content (of {a} bytes)")
        }
        (Kind::File { size_bytes: a, .. }, Kind::File { size_bytes: b, .. }) => format!("size {a} | {b}"),
        (Kind::Symlink { target: a }, Kind::Symlink { target: b }) => {
            format!("target {} | {}", escaped(a), escaped(b))
        }
        _ => format!("{expected:?} | {actual:?}"),
    }
}

/// Bytes for a message: what is not printable ASCII as `\xNN`, the root as `.`.
#[must_use]
pub fn escaped(name: &[u8]) -> String {
    if name.is_empty() { ".".to_owned() } else { name.escape_ascii().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Sandbox;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn two_trees() -> (Sandbox, Snapshot) {
        let sandbox = Sandbox::new();
        fs::write(sandbox.source().join("file"), "content").expect("a new file");
        symlink("a", sandbox.source().join("link")).expect("a new link");
        let before = snapshot(&sandbox.source());
        (sandbox, before)
    }

    #[test]
    fn the_root_is_the_empty_path() {
        let (_sandbox, snapshot) = two_trees();
        assert_eq!(snapshot.keys().map(|name| &name[..]).collect::<Vec<_>>(), [&b""[..], b"file", b"link"]);
        assert_eq!(snapshot[&b""[..].to_vec()].kind, Kind::Directory);
        assert_same(&snapshot, &snapshot, &NOTHING);
    }

    #[test]
    fn each_difference_is_a_line() {
        let (sandbox, before) = two_trees();
        let root = sandbox.source();
        fs::write(root.join("file"), "CONTENT").expect("it is ours");
        fs::set_permissions(root.join("file"), fs::Permissions::from_mode(0o4711)).expect("it is ours");
        fs::remove_file(root.join("link")).expect("it is ours");
        symlink("b", root.join("link")).expect("a new link");
        fs::write(root.join("new\nname"), "").expect("a new file");
        let ignore = Ignore { mtime: true, ..NOTHING };
        let found = differences(&before, &snapshot(&root), &ignore);
        let expected_mode = before[&b"file"[..].to_vec()].mode;
        let expected = [
            format!("file: content (of 7 bytes), mode {expected_mode:04o} | 4711"),
            "link: target a | b".to_owned(),
            "new\\nname: extraneous, File { size_bytes: 0, content: Some(Hash(\"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262\")) }".to_owned(),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    #[should_panic(expected = "mtime_ns")]
    fn a_time_of_another_nanosecond_differs() {
        let (sandbox, before) = two_trees();
        crate::tree::set_mtime(&sandbox.source().join("link"), 5, 6);
        assert_same(&before, &snapshot(&sandbox.source()), &NOTHING);
    }
}

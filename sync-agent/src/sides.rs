//! Directories that options name beside the destination: alternate bases, backups, the trash, the scratch directory.
//!
//! Their paths are the operator's, relative to the destination. An agent that is held to a directory opens them beneath
//! that one only: `..` and links may lead about in it, never out.

use crate::tree::{Dir, Handle as _};
use protocol::path::RelPath;
use rustix::io::Errno;

/// Where such paths start.
#[derive(Debug)]
pub(crate) struct Sides<'a> {
    from: From<'a>,
    /// Bits that directories made here don't get.
    umask: u16,
}

#[derive(Debug)]
enum From<'a> {
    /// The destination itself.
    Home(Dir),
    /// The directory that the agent is held to, and where the destination is in it.
    Held(&'a Dir, RelPath),
    /// The destination is not there yet, and won't be: this is where it would be made, and its name there.
    Parent(Dir),
}

impl<'a> Sides<'a> {
    /// Beside the destination that is open.
    pub(crate) fn of(home: Dir, umask: u16) -> Sides<'a> {
        Sides { from: From::Home(home), umask }
    }

    /// Beside the destination at `path` beneath `root`.
    pub(crate) fn held(root: &'a Dir, path: RelPath, umask: u16) -> Sides<'a> {
        Sides { from: From::Held(root, path), umask }
    }

    /// Beside a destination that a dry run does not make in `parent`.
    pub(crate) fn of_absent(parent: Dir) -> Sides<'a> {
        Sides { from: From::Parent(parent), umask: 0 }
    }

    /// Opens the directory that an option names.
    pub(crate) fn open(&self, path: &[u8]) -> Result<Dir, Errno> {
        match &self.from {
            From::Home(home) => home.open_from(path),
            From::Held(root, home) => root.open_beneath(&self.beneath(home, path)),
            From::Parent(parent) => match path.strip_prefix(b"..") {
                Some(b"") => parent.open_from(b"."),
                Some(rest) if rest.starts_with(b"/") => parent.open_from(&[b".", rest].concat()),
                _ if path.starts_with(b"/") => parent.open_from(path),
                _ => Err(Errno::NOENT),
            },
        }
    }

    /// A path as seen from the directory that the agent is held to: there an absolute one starts too.
    fn beneath(&self, home: &RelPath, path: &[u8]) -> Vec<u8> {
        let is_absolute = path.starts_with(b"/");
        let path = &path[path.iter().position(|&byte| byte != b'/').unwrap_or(path.len())..];
        let start = if is_absolute || home.is_root() { b"." } else { home.as_bytes() };
        [start, b"/", path].concat()
    }

    /// Opens the directory that an option names; makes it, and those above it, where it is missing.
    pub(crate) fn open_or_make(&self, path: &[u8]) -> Result<Dir, Errno> {
        match self.open(path) {
            Err(Errno::NOENT) => {}
            opened => return opened,
        }
        let last = path.iter().rposition(|&byte| byte != b'/').ok_or(Errno::NOENT)?;
        let trimmed = &path[..=last];
        let slash = trimmed.iter().rposition(|&byte| byte == b'/');
        let (above, name) = match slash {
            Some(0) => (&b"/"[..], &trimmed[1..]),
            Some(at) => (&trimmed[..at], &trimmed[at + 1..]),
            None => (&b"."[..], trimmed),
        };
        let parent = self.open_or_make(above)?;
        match parent.make_dir(name) {
            Ok(()) => parent.hold(name)?.set_mode(0o777 & !self.umask)?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        self.open(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn paths_are_relative_to_the_destination_and_missing_directories_are_made() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("home")).unwrap();
        let sides = Sides::of(Dir::open(&dir.path().join("home")).unwrap(), 0o022);
        assert_eq!(sides.open(b"../old").unwrap_err(), Errno::NOENT);
        sides.open_or_make(b"../old/deep//er/").unwrap();
        sides.open_or_make(b"inside").unwrap();
        assert!(dir.path().join("old/deep/er").is_dir() && dir.path().join("home/inside").is_dir());
    }

    #[test]
    fn an_agent_that_is_held_to_a_directory_finds_no_way_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/home")).unwrap();
        fs::create_dir_all(dir.path().join("root/old")).unwrap();
        fs::create_dir_all(dir.path().join("outside")).unwrap();
        std::os::unix::fs::symlink("../outside", dir.path().join("root/link")).unwrap();
        std::os::unix::fs::symlink("old", dir.path().join("root/inner")).unwrap();
        let root = Dir::open(&dir.path().join("root")).unwrap();
        let sides = Sides::held(&root, RelPath::new(*b"home").unwrap(), 0);
        for path in [&b"../old"[..], b"/old", b"/home/../old", b"../inner"] {
            assert!(sides.open(path).is_ok(), "{path:?}");
        }
        for path in [&b"../../outside"[..], b"/../outside", b"../link", b"/link", b"../../x"] {
            assert_eq!(sides.open(path).unwrap_err(), Errno::XDEV, "{path:?}");
            assert_eq!(sides.open_or_make(path).unwrap_err(), Errno::XDEV, "{path:?}");
        }
        assert!(!dir.path().join("x").exists());
    }
}

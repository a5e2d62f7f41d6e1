//! `--fake-super`: owner, mode and kind of an entry kept in an attribute of an ordinary file.
//!
//! rsync's own format, so that either program reads what the other one kept: `user.rsync.%stat` is `MODE MAJOR,MINOR
//! UID:GID`, the mode in octal with the kind. Devices, FIFOs and sockets are empty files, links are files with the target in
//! them, for links have no attributes of users. The file itself stays open to its owner, whatever the mode that is kept.
//!
//! The source looks at entries through it ([`show`]), the destination too, and keeps what it would set
//! ([`crate::metadata`]).

use crate::tree::{Dir, Handle, Info, append_from};
use protocol::entry::{Entry, Kind};
use protocol::limits;
use rustix::fs::FileType;
use rustix::io::Errno;
use std::os::unix::fs::FileExt as _;

const NAME: &[u8] = b"user.rsync.%stat";
/// Mode bits that are permissions.
const PERMISSIONS: u32 = 0o7777;

/// What is kept of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Kind and permissions.
    mode: u32,
    node: (u32, u32),
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The kind of an entry, with its number if it is a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KindBits {
    kind: u32,
    node: (u32, u32),
}

/// Why what is kept can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredError {
    Errno(Errno),
    /// It has another form, or speaks of what such a file can't stand for.
    Form,
}

impl KindBits {
    pub(crate) fn of(kind: &Kind) -> KindBits {
        let (kind, node) = match kind {
            Kind::File { .. } => (FileType::RegularFile, (0, 0)),
            Kind::Directory => (FileType::Directory, (0, 0)),
            Kind::Symlink { .. } => (FileType::Symlink, (0, 0)),
            Kind::Fifo => (FileType::Fifo, (0, 0)),
            Kind::Socket => (FileType::Socket, (0, 0)),
            Kind::CharDevice { device } => (FileType::CharacterDevice, *device),
            Kind::BlockDevice { device } => (FileType::BlockDevice, *device),
        };
        KindBits { kind: kind.as_raw_mode(), node }
    }
}

impl Stat {
    pub(crate) fn new(KindBits { kind, node }: KindBits, mode: u16, uid: u32, gid: u32) -> Stat {
        Stat { mode: kind | u32::from(mode), node, uid, gid }
    }

    /// Permission bits.
    pub(crate) fn permissions(self) -> u16 {
        (self.mode & PERMISSIONS) as u16
    }

    /// The mode of the file that it is kept of: open to its owner, and without what is not for everybody.
    pub(crate) fn outer_mode(self, is_dir: bool) -> u16 {
        self.permissions() & 0o777 | if is_dir { 0o700 } else { 0o600 }
    }

    /// What a file or directory is without anything kept of it, once its mode is the outer one.
    fn outer(self, info: &Info) -> Stat {
        let kind = info.file_type().as_raw_mode();
        let mode = kind | u32::from(self.outer_mode(info.is_dir()));
        Stat { mode, node: (0, 0), uid: info.uid, gid: info.gid }
    }

    fn parse(value: &[u8]) -> Option<Stat> {
        let text = std::str::from_utf8(value).ok()?;
        let mut words = text.split_ascii_whitespace();
        let (mode, node, owner) =
            (words.next()?, words.next()?.split_once(',')?, words.next()?.split_once(':')?);
        let mode = u32::from_str_radix(mode, 8).ok()?;
        let number = |digits: &str| digits.parse().ok();
        let stat = Stat {
            mode,
            node: (number(node.0)?, number(node.1)?),
            uid: number(owner.0)?,
            gid: number(owner.1)?,
        };
        let is_known = FileType::from_raw_mode(mode) != FileType::Unknown;
        (is_known && words.next().is_none()).then_some(stat)
    }

    fn value(self) -> String {
        let Stat { mode, node: (major, minor), uid, gid } = self;
        format!("{mode:o} {major},{minor} {uid}:{gid}")
    }

    /// Keeps it; where the file is all of it by itself, nothing is kept. Its mode is the outer one already.
    pub(crate) fn keep(self, entry: &impl Handle, info: &Info, there: Option<Stat>) -> Result<(), Errno> {
        if self == self.outer(info) {
            return if there.is_some() { entry.remove_attribute(NAME) } else { Ok(()) };
        }
        if there == Some(self) { Ok(()) } else { entry.set_attribute(NAME, self.value().as_bytes()) }
    }
}

/// What is kept of a file or directory.
pub(crate) fn read(entry: &impl Handle, info: &Info) -> Result<Option<Stat>, StoredError> {
    if !info.is_file() && !info.is_dir() {
        return Ok(None);
    }
    let Some(value) = entry.attribute(NAME).map_err(StoredError::Errno)? else { return Ok(None) };
    let stat = Stat::parse(&value).ok_or(StoredError::Form)?;
    let is_dir = FileType::from_raw_mode(stat.mode) == FileType::Directory;
    if is_dir == info.is_dir() { Ok(Some(stat)) } else { Err(StoredError::Form) }
}

/// The mode that goes with an entry's ACL.
pub(crate) fn mode(entry: &impl Handle) -> Result<u16, Errno> {
    let info = entry.info()?;
    let stat = read(entry, &info).ok().flatten();
    Ok(stat.map_or(info.raw_mode & 0o7777, Stat::permissions))
}

/// Makes `entry`, which is what the file system says of `name` in `dir` (`.` is the directory itself), what is kept of it.
pub(crate) fn show(dir: &Dir, name: &[u8], info: &Info, entry: &mut Entry) -> Result<(), StoredError> {
    if !info.is_file() && !info.is_dir() {
        return Ok(());
    }
    let held = dir.hold(name).map_err(StoredError::Errno)?;
    let Some(stat) = read(&held, info)? else { return Ok(()) };
    let device = stat.node;
    match FileType::from_raw_mode(stat.mode) {
        FileType::RegularFile | FileType::Directory => {}
        FileType::Symlink => entry.kind = Kind::Symlink { target: target(dir, name, info)? },
        FileType::Fifo => entry.kind = Kind::Fifo,
        FileType::Socket => entry.kind = Kind::Socket,
        FileType::CharacterDevice => entry.kind = Kind::CharDevice { device },
        FileType::BlockDevice => entry.kind = Kind::BlockDevice { device },
        FileType::Unknown => return Err(StoredError::Form),
    }
    (entry.mode, entry.uid, entry.gid) = (stat.permissions(), stat.uid, stat.gid);
    Ok(())
}

/// Makes the file that stands for a link or node.
pub(crate) fn make(dir: &Dir, name: &[u8], kind: &Kind) -> Result<(), Errno> {
    let file = dir.create_file(name)?;
    match kind {
        Kind::Symlink { target } => {
            file.write_all_at(target, 0).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        }
        _ => Ok(()),
    }
}

/// The target of a link that is a file.
fn target(dir: &Dir, name: &[u8], info: &Info) -> Result<Vec<u8>, StoredError> {
    let length =
        usize::try_from(info.size_bytes).ok().filter(|length| (1..=limits::TARGET_BYTES).contains(length));
    let length = length.ok_or(StoredError::Form)?;
    let file = dir.open_file(name).map_err(StoredError::Errno)?;
    let mut target = Vec::new();
    let is_whole = append_from(&file, &mut target, length, 0).map_err(StoredError::Errno)?;
    if is_whole && !target.contains(&0) { Ok(target) } else { Err(StoredError::Form) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rsync_writes_is_read_and_written_the_same() {
        for value in ["60644 7,200 0:0", "100755 0,0 1:2", "120777 0,0 3:3", "41777 0,0 54321:54322"] {
            let stat = Stat::parse(value.as_bytes()).unwrap();
            assert_eq!(stat.value(), value);
        }
        let stat = Stat::parse(b"104755 0,0 1:2").unwrap();
        assert_eq!((stat.permissions(), stat.outer_mode(false)), (0o4755, 0o755));
        for bad in
            [&b""[..], b"junk", b"100644", b"100644 0,0", b"100644 0 1:2", b"9 0,0 1:2", b"644 0,0 1:2"]
        {
            assert_eq!(Stat::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Stat::parse(b"100644 0,0 1:2 x"), None);
        assert_eq!(Stat::parse(b"100644 0,0 1:-2"), None);
    }
}

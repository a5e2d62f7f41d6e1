//! The only module that turns names into system calls: a file system seen through directory handles.
//!
//! Nothing is ever opened by an absolute path, and below a tree's root no symbolic link is followed
//! (`openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`, `O_NOFOLLOW` on the last name), so a
//! directory swapped for a link between two calls leads nowhere. The exceptions are a source that follows links
//! (`--copy-links` and its kin; held to a root it stays beneath that even then) and a destination that keeps its
//! links to directories (`--keep-dirlinks`), which never leaves its own root.

use protocol::entry::{Entry, Kind, Timestamp};
use protocol::path::{Name, RelPath};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::fs::{Timespec, Timestamps};
use rustix::io::Errno;
use rustix::time::ClockId;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

mod handle;
mod rename;
pub use handle::Handle;

/// Where this program keeps what is not complete yet, inside a destination; neither end ever copies,
/// lists or deletes it, nor anything whose name begins so.
pub const STAGING_NAME: &[u8] = b".sync-agent-staging";
/// What is not complete yet of a backup, beside where it is to be.
pub(crate) const STAGED_BACKUP_NAME: &[u8] = b".sync-agent-staging-backup";

/// What a symbolic link is to a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// An entry of its own.
    Never,
    /// What it points to, as long as that is beneath the tree's base.
    Beneath,
    /// What it points to.
    Anywhere,
}

/// A directory tree below a handle.
#[derive(Debug)]
pub struct Tree {
    base: OwnedFd,
    /// Where the tree's root is, seen from the base.
    prefix: RelPath,
    follow: Follow,
}

/// An open directory.
#[derive(Debug)]
pub struct Dir(OwnedFd);

/// An entry held without being opened (`O_PATH`): for metadata, whatever its mode.
#[derive(Debug)]
pub struct Held(OwnedFd);

/// What the file system says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// File type and mode bits.
    pub raw_mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Last change of content.
    pub mtime: Timestamp,
    /// When it was read last.
    pub atime: Timestamp,
    /// Last change of content or metadata.
    pub ctime: Timestamp,
    /// Device that holds it.
    pub device: (u32, u32),
    /// Inode.
    pub inode: u64,
    /// Device that it is.
    pub node: (u32, u32),
    /// How many names it has.
    pub links: u32,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Longest path given to the kernel at once; a longer one is walked in parts.
const PATH_PART_BYTES: usize = 3000;
/// An ACL with 30 entries.
const SHORT_ATTRIBUTE_BYTES: usize = 256;

impl Tree {
    /// The tree at `path`, as the operator named it: links in `path` itself are followed.
    ///
    /// # Errors
    /// `path` is not a directory, or can't be opened.
    pub fn open(path: &Path, follow: Follow) -> Result<Tree, Errno> {
        let base = fs::openat(fs::CWD, path, DIRECTORY, Mode::empty())?;
        Ok(Tree { base, prefix: RelPath::root(), follow })
    }

    /// The tree below an open directory, in which no link is followed.
    #[must_use]
    pub fn below(root: Dir) -> Tree {
        Tree { base: root.0, prefix: RelPath::root(), follow: Follow::Never }
    }

    /// The tree at `path` beneath `base`, out of which no link leads.
    ///
    /// # Errors
    /// `path` is not a directory, can't be opened, or leads out of `base`.
    pub fn open_beneath(base: &Dir, path: &RelPath, follow: Follow) -> Result<Tree, Errno> {
        let root = resolve(&base.0, path, DIRECTORY, ResolveFlags::BENEATH)?;
        if follow == Follow::Never {
            return Ok(Tree { base: root, prefix: RelPath::root(), follow });
        }
        let base = base.0.try_clone().map_err(|_| Errno::MFILE)?;
        Ok(Tree { base, prefix: path.clone(), follow: Follow::Beneath })
    }

    /// The same tree, in which a link stands for what it points to, as long as that is beneath the root and the link
    /// is not absolute.
    #[must_use]
    pub fn following_beneath(self) -> Tree {
        Tree { follow: Follow::Beneath, ..self }
    }

    /// Whether links in it are followed.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.follow != Follow::Never
    }

    /// A directory of the tree.
    ///
    /// # Errors
    /// It is not a directory, can't be opened, or a link stands in the way.
    pub fn dir(&self, path: &RelPath) -> Result<Dir, Errno> {
        self.resolve(path, DIRECTORY).map(Dir)
    }

    /// A directory of the tree that no link leads to, also where links are followed.
    ///
    /// # Errors
    /// As [`Tree::dir`].
    pub fn dir_without_links(&self, path: &RelPath) -> Result<Dir, Errno> {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        resolve(&self.dir(&RelPath::root())?.0, path, DIRECTORY, how).map(Dir)
    }

    /// What stands at the end of a link (or the entry itself), following links as the tree allows.
    ///
    /// # Errors
    /// It does not exist or is out of bounds (`EXDEV`, `ELOOP`).
    pub fn info_followed(&self, path: &RelPath) -> Result<Info, Errno> {
        let fd = self.resolve(path, OFlags::PATH | OFlags::CLOEXEC)?;
        info_of(&fd)
    }

    /// Opens what stands at the end of a link for reading.
    ///
    /// # Errors
    /// As [`Tree::info_followed`].
    pub fn open_followed(&self, path: &RelPath) -> Result<File, Errno> {
        self.resolve(path, READ).map(File::from)
    }

    /// Holds what stands at the end of a link.
    ///
    /// # Errors
    /// As [`Tree::info_followed`].
    pub fn hold_followed(&self, path: &RelPath) -> Result<Held, Errno> {
        self.resolve(path, OFlags::PATH | OFlags::CLOEXEC).map(Held)
    }

    fn resolve(&self, path: &RelPath, flags: OFlags) -> Result<OwnedFd, Errno> {
        let how = match self.follow {
            Follow::Never => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            Follow::Beneath => ResolveFlags::BENEATH,
            Follow::Anywhere => ResolveFlags::empty(),
        } | ResolveFlags::NO_MAGICLINKS;
        if self.prefix.is_root() {
            return resolve(&self.base, path, flags, how);
        }
        let mut whole = self.prefix.as_bytes().to_vec();
        if !path.is_root() {
            whole.push(b'/');
            whole.extend_from_slice(path.as_bytes());
        }
        resolve_bytes(&self.base, &whole, flags, how)
    }
}

/// Opens one directory of a tree after another; the parent of the last one stays open, for most are
/// followed by a sibling, and one name costs less than a path.
#[derive(Debug, Default)]
pub struct Walk {
    parent: Option<(RelPath, Dir)>,
}

impl Walk {
    /// A directory of `tree`, which is the same one in every call.
    ///
    /// # Errors
    /// As [`Tree::dir`].
    pub fn dir(&mut self, tree: &Tree, path: &RelPath) -> Result<Dir, Errno> {
        match path.split_last() {
            Some((parent, name)) if tree.follow == Follow::Never => {
                let parent = self.parent(tree, parent)?;
                let flags = DIRECTORY | OFlags::NOFOLLOW;
                retry(|| fs::openat(&parent.0, name.as_bytes(), flags, Mode::empty())).map(Dir)
            }
            _ => tree.dir(path),
        }
    }

    /// Holds a directory of `tree`, without the right to read it.
    ///
    /// # Errors
    /// As [`Tree::dir`].
    pub fn hold(&mut self, tree: &Tree, path: &RelPath) -> Result<Held, Errno> {
        match path.split_last() {
            Some(_) if tree.follow != Follow::Never => {
                tree.resolve(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC).map(Held)
            }
            Some((parent, name)) => self.parent(tree, parent)?.hold(name.as_bytes()),
            None => tree.dir(path)?.hold_self(),
        }
    }

    fn parent(&mut self, tree: &Tree, path: RelPath) -> Result<&Dir, Errno> {
        if self.parent.as_ref().is_none_or(|(open, _)| *open != path) {
            self.parent = None;
            let dir = tree.dir(&path)?;
            self.parent = Some((path, dir));
        }
        self.parent.as_ref().map(|(_, dir)| dir).ok_or(Errno::NOENT)
    }
}

fn resolve(base: &OwnedFd, path: &RelPath, flags: OFlags, how: ResolveFlags) -> Result<OwnedFd, Errno> {
    resolve_bytes(base, path.as_bytes(), flags, how)
}

fn resolve_bytes(base: &OwnedFd, path: &[u8], flags: OFlags, how: ResolveFlags) -> Result<OwnedFd, Errno> {
    if path.len() <= PATH_PART_BYTES {
        let path: &[u8] = if path.is_empty() { b"." } else { path };
        return retry(|| fs::openat2(base, path, flags, Mode::empty(), how));
    }
    let cut = path[..PATH_PART_BYTES].iter().rposition(|&byte| byte == b'/').ok_or(Errno::NAMETOOLONG)?;
    let part = retry(|| {
        fs::openat2(
            base,
            &path[..cut],
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            how,
        )
    })?;
    resolve_bytes(&part, &path[cut + 1..], flags, how)
}

/// `openat2` answers `EAGAIN` when a rename crossed its way, and open may be interrupted.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    for _ in 0..100 {
        match call() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    call()
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

impl Dir {
    /// A directory by the path the operator gave.
    ///
    /// # Errors
    /// It is not a directory or can't be opened.
    pub fn open(path: &Path) -> Result<Dir, Errno> {
        retry(|| fs::openat(fs::CWD, path, DIRECTORY, Mode::empty())).map(Dir)
    }

    /// Another handle to the same directory.
    ///
    /// # Errors
    /// Too many open files.
    pub fn try_clone(&self) -> Result<Dir, Errno> {
        self.0.try_clone().map(Dir).map_err(|_| Errno::MFILE)
    }

    /// The same directory with a reading position of its own.
    ///
    /// # Errors
    /// The system's.
    pub fn reopened(&self) -> Result<Dir, Errno> {
        fs::openat(&self.0, c".", DIRECTORY, Mode::empty()).map(Dir)
    }

    /// A directory below this one.
    ///
    /// # Errors
    /// As [`Tree::dir`].
    pub fn dir(&self, name: &Name) -> Result<Dir, Errno> {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        resolve_bytes(&self.0, name.as_bytes(), DIRECTORY, how).map(Dir)
    }

    /// Lets listing it leave no access time, as [`leave_atime`].
    pub fn leave_atime(&self) {
        leave_atime(&self.0);
    }

    /// The directory's own attributes.
    ///
    /// # Errors
    /// The system's.
    pub fn own_info(&self) -> Result<Info, Errno> {
        info_of(&self.0)
    }

    /// The names in it, in order of their bytes, without `.`, `..` and [`STAGING_NAME`]. Once for a handle:
    /// it reads on where the handle stands.
    ///
    /// # Errors
    /// Reading failed; what was read before is lost on purpose, a part of a directory is not a listing.
    pub fn names(&self) -> Result<Names, Errno> {
        let mut names = Names::default();
        let mut buffer = [MaybeUninit::uninit(); 32 << 10];
        let mut entries = fs::RawDir::new(&self.0, &mut buffer);
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => names.push(entry.file_name().to_bytes()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        names.sort();
        Ok(names)
    }

    /// What `name` is; a link is a link.
    ///
    /// # Errors
    /// The system's; `ENOENT` where there is nothing.
    pub fn info(&self, name: &[u8]) -> Result<Info, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        fs::statx(&self.0, name, flags, StatxFlags::BASIC_STATS).map(|statx| Info::new(&statx))
    }

    /// Whether something is mounted on the directory `name`, of this file system or another one.
    pub(crate) fn is_mounted(&self, name: &[u8]) -> bool {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let Ok(there) = fs::statx(&self.0, name, flags, StatxFlags::BASIC_STATS) else { return false };
        let info = Info::new(&there);
        let is_elsewhere = || self.own_info().is_ok_and(|own| own.device != info.device);
        info.is_dir() && (there.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) || is_elsewhere())
    }

    /// Where the link `name` points.
    ///
    /// # Errors
    /// The system's.
    pub fn read_link(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        fs::readlinkat(&self.0, name, Vec::with_capacity(256)).map(|target| target.into_bytes())
    }

    /// Opens a file for reading; never follows a link, never waits on a FIFO.
    ///
    /// # Errors
    /// The system's; `ELOOP` for a link.
    pub fn open_file(&self, name: &[u8]) -> Result<File, Errno> {
        retry(|| fs::openat(&self.0, name, READ | OFlags::NOFOLLOW, Mode::empty())).map(File::from)
    }

    /// Opens an existing file for reading and writing in place.
    ///
    /// # Errors
    /// The system's; `ELOOP` for a link.
    pub fn open_to_patch(&self, name: &[u8]) -> Result<File, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        retry(|| fs::openat(&self.0, name, flags, Mode::empty())).map(File::from)
    }

    /// Creates a file that must not exist yet, for its owner alone.
    ///
    /// # Errors
    /// The system's; `EEXIST`.
    pub fn create_file(&self, name: &[u8]) -> Result<File, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        retry(|| fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)).map(File::from)
    }

    /// Makes a directory for its owner alone.
    ///
    /// # Errors
    /// The system's.
    pub fn make_dir(&self, name: &[u8]) -> Result<(), Errno> {
        fs::mkdirat(&self.0, name, Mode::RWXU)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// The system's.
    pub fn make_link(&self, name: &[u8], target: &[u8]) -> Result<(), Errno> {
        fs::symlinkat(target, &self.0, name)
    }

    /// Makes a FIFO, socket or device, for its owner alone.
    ///
    /// # Errors
    /// The system's.
    pub fn make_node(&self, name: &[u8], kind: &Kind) -> Result<(), Errno> {
        let (kind, (major, minor)) = match kind {
            Kind::Fifo => (FileType::Fifo, (0, 0)),
            Kind::Socket => (FileType::Socket, (0, 0)),
            Kind::CharDevice { device } => (FileType::CharacterDevice, *device),
            Kind::BlockDevice { device } => (FileType::BlockDevice, *device),
            Kind::File { .. } | Kind::Directory | Kind::Symlink { .. } => return Err(Errno::INVAL),
        };
        fs::mknodat(&self.0, name, kind, Mode::RUSR | Mode::WUSR, fs::makedev(major, minor))
    }

    /// Gives what has `name` another one, `to_name` in `to`; a link is not followed.
    ///
    /// # Errors
    /// The system's; `EEXIST`, `EXDEV`, `EPERM` where the file system knows no hard links.
    pub fn link(&self, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<(), Errno> {
        fs::linkat(&self.0, name, &to.0, to_name, AtFlags::empty())
    }

    /// A directory by a path of the operator's, from this one; links in it are followed.
    ///
    /// # Errors
    /// It is not a directory or can't be opened.
    pub fn open_from(&self, path: &[u8]) -> Result<Dir, Errno> {
        retry(|| fs::openat(&self.0, path, DIRECTORY, Mode::empty())).map(Dir)
    }

    /// The same, but not out of this directory, by whatever links or `..` there are in `path`.
    ///
    /// # Errors
    /// As [`Dir::open_from`]; `EXDEV` where it leads out.
    pub fn open_beneath(&self, path: &[u8]) -> Result<Dir, Errno> {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        resolve_bytes(&self.0, path, DIRECTORY, how).map(Dir)
    }

    /// Where the directory is now, for the operator and for later runs.
    ///
    /// # Errors
    /// The system's.
    pub fn path(&self) -> Result<Vec<u8>, Errno> {
        use rustix::fd::AsRawFd as _;
        let path = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        fs::readlinkat(fs::CWD, path, Vec::new()).map(|path| path.into_bytes())
    }

    /// The value of one of its extended attributes, if it has that: by one call where it is short, or there is none.
    ///
    /// # Errors
    /// The system's.
    pub fn attribute(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        use rustix::fd::AsRawFd as _;
        let mut value = [0; SHORT_ATTRIBUTE_BYTES];
        let path = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        match fs::getxattr(path, name, &mut value[..]) {
            Ok(length) => Ok(value.get(..length).map(<[u8]>::to_vec)),
            Err(Errno::NODATA) => Ok(None),
            Err(Errno::RANGE) => self.hold_self()?.attribute(name),
            Err(error) => Err(error),
        }
    }

    /// Removes anything but a directory.
    ///
    /// # Errors
    /// The system's; `EISDIR`.
    pub fn remove_file(&self, name: &[u8]) -> Result<(), Errno> {
        fs::unlinkat(&self.0, name, AtFlags::empty())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// The system's; `ENOTEMPTY`.
    pub fn remove_dir(&self, name: &[u8]) -> Result<(), Errno> {
        fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)
    }

    /// Holds an entry, to read and set its metadata.
    ///
    /// # Errors
    /// The system's.
    pub fn hold(&self, name: &[u8]) -> Result<Held, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        retry(|| fs::openat(&self.0, name, flags, Mode::empty())).map(Held)
    }

    /// Holds the directory itself.
    ///
    /// # Errors
    /// The system's.
    pub fn hold_self(&self) -> Result<Held, Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        fs::openat(&self.0, c".", flags, Mode::empty()).map(Held)
    }

    /// Writes the whole file system that the directory is on to disk.
    ///
    /// # Errors
    /// Something could not be written; what, the system does not say.
    pub fn sync_file_system(&self) -> Result<(), Errno> {
        fs::syncfs(&self.0)
    }

    /// What this user may still write to the directory's file system, in bytes.
    ///
    /// # Errors
    /// The system's.
    pub fn free_bytes(&self) -> Result<u64, Errno> {
        let stat = fs::fstatvfs(&self.0)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Takes the lock that stands for the tree, which ends with the handle, and shares in those of the directories
    /// above it, which end with the handles that are returned: a run on one of those and this one keep each
    /// other away, whichever came first.
    ///
    /// # Errors
    /// `EWOULDBLOCK` when another process has it, of this directory or of one above it.
    pub fn lock(&self) -> Result<Vec<Dir>, Errno> {
        self.lock_alone()?;
        let mut locks = Vec::new();
        let mut info = self.own_info()?;
        let mut above = fs::openat(&self.0, c"..", DIRECTORY, Mode::empty());
        // What can't be opened can't be another run's either, if that is of the same user.
        while let Ok(dir) = above {
            let next = info_of(&dir)?;
            if (next.device, next.inode) == (info.device, info.inode) {
                break;
            }
            // A file system that knows no locks keeps nobody away.
            if fs::flock(&dir, fs::FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK) {
                return Err(Errno::WOULDBLOCK);
            }
            info = next;
            above = fs::openat(&dir, c"..", DIRECTORY, Mode::empty());
            locks.push(Dir(dir));
        }
        Ok(locks)
    }

    /// Takes the lock of this directory without a look at those above it.
    ///
    /// # Errors
    /// As [`Dir::lock`].
    pub fn lock_alone(&self) -> Result<(), Errno> {
        fs::flock(&self.0, fs::FlockOperation::NonBlockingLockExclusive)
    }

    /// Whether nothing can be written on the directory's file system, whoever asks.
    ///
    /// # Errors
    /// The system's.
    pub fn is_read_only(&self) -> Result<bool, Errno> {
        Ok(fs::fstatvfs(&self.0)?.f_flag.contains(fs::StatVfsMountFlags::RDONLY))
    }

    /// Writes the directory's own entries to disk.
    ///
    /// # Errors
    /// The system's.
    pub fn sync_entries(&self) -> Result<(), Errno> {
        fs::fsync(&self.0)
    }
}

fn times(mtime: Option<Timestamp>, atime: Option<Timestamp>) -> Timestamps {
    const UTIME_OMIT: i64 = (1 << 30) - 2;
    let spec = |time: Option<Timestamp>| match time {
        Some(time) => Timespec { tv_sec: time.secs, tv_nsec: i64::from(time.nanos) },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    };
    Timestamps { last_access: spec(atime), last_modification: spec(mtime) }
}

/// Appends exactly `length` bytes of a file from `at`, without clearing the memory first.
///
/// # Errors
/// The system's; none (`Ok(false)`) where the file ends early.
pub fn append_from(file: &File, bytes: &mut Vec<u8>, length: usize, mut at: u64) -> Result<bool, Errno> {
    let end = bytes.len() + length;
    bytes.reserve(length);
    while bytes.len() < end {
        match rustix::io::pread(file, rustix::buffer::spare_capacity(bytes), at) {
            Ok(0) => return Ok(false),
            Ok(count) => at += count as u64,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    // The vector may have had room for more than was asked for.
    bytes.truncate(end);
    Ok(true)
}

/// Lets what is read through this handle leave no access time, if this user may ask for that: its owner and root may.
pub fn leave_atime(fd: &impl AsFd) {
    let flags = fs::fcntl_getfl(fd).unwrap_or(OFlags::empty());
    let _ = fs::fcntl_setfl(fd, flags | OFlags::NOATIME);
}

/// How much there is to read on an open device. Of one that has no end, or can't tell, that is nothing, as with rsync.
#[must_use]
pub fn device_bytes(device: &File) -> u64 {
    fs::seek(device, fs::SeekFrom::End(0)).unwrap_or(0)
}

/// Attributes of an open file.
///
/// # Errors
/// The system's.
pub fn info_of(fd: &impl AsFd) -> Result<Info, Errno> {
    fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map(|statx| Info::new(&statx))
}

impl Info {
    fn new(statx: &fs::Statx) -> Info {
        let time = |time: &fs::StatxTimestamp| Timestamp { secs: time.tv_sec, nanos: time.tv_nsec };
        Info {
            raw_mode: statx.stx_mode,
            uid: statx.stx_uid,
            gid: statx.stx_gid,
            size_bytes: statx.stx_size,
            mtime: time(&statx.stx_mtime),
            atime: time(&statx.stx_atime),
            ctime: time(&statx.stx_ctime),
            device: (statx.stx_dev_major, statx.stx_dev_minor),
            inode: statx.stx_ino,
            node: (statx.stx_rdev_major, statx.stx_rdev_minor),
            links: statx.stx_nlink,
        }
    }

    /// The file type alone.
    #[must_use]
    pub fn file_type(&self) -> FileType {
        FileType::from_raw_mode(u32::from(self.raw_mode))
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.file_type() == FileType::Directory
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.file_type() == FileType::RegularFile
    }

    /// Whether it is a character or block device.
    #[must_use]
    pub fn is_device(&self) -> bool {
        matches!(self.file_type(), FileType::CharacterDevice | FileType::BlockDevice)
    }

    /// The same with the length of its content, which `file` is open on: of a device that is what is on it.
    #[must_use]
    pub fn with_content_of(self, file: &File) -> Info {
        if self.is_device() { Info { size_bytes: device_bytes(file), ..self } } else { self }
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub fn is_link(&self) -> bool {
        self.file_type() == FileType::Symlink
    }

    /// The file list entry for this; `target` of a link only.
    #[must_use]
    pub fn entry(&self, name: Name, target: Vec<u8>, now: Timestamp) -> Option<Entry> {
        let kind = match self.file_type() {
            FileType::RegularFile => Kind::File { size_bytes: self.size_bytes },
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink { target },
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => Kind::CharDevice { device: self.node },
            FileType::BlockDevice => Kind::BlockDevice { device: self.node },
            _ => return None,
        };
        Some(Entry {
            name,
            kind,
            mode: self.raw_mode & 0o7777,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            extra: None,
            young: (self.mtime.secs - YOUNG_S..=self.mtime.secs + YOUNG_S).contains(&now.secs),
        })
    }

    /// Whether both are of the same content, as far as attributes can tell: nobody wrote between.
    #[must_use]
    pub fn same_content(&self, later: &Info) -> bool {
        (self.size_bytes, self.mtime, self.ctime, self.device, self.inode)
            == (later.size_bytes, later.mtime, later.ctime, later.device, later.inode)
    }

    /// Whether the tick in which it was last changed is over: a change from now on gets another ctime.
    pub(crate) fn is_settled(&self) -> bool {
        self.settles_in().is_zero()
    }

    fn settles_in(&self) -> Duration {
        let nanos = |time: Timestamp| i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
        let (passed, tick) = (nanos(now()) - nanos(self.ctime), self.tick_ns());
        // Long before it was changed: the clock was set back, and it won't get that time again soon.
        let left = if passed < -tick { 0 } else { tick - passed };
        Duration::from_nanos(u64::try_from(left).unwrap_or(0))
    }

    /// How long another change may get the same ctime: a file system whose times are whole seconds, or even ones, gives
    /// itself away by them.
    fn tick_ns(&self) -> i128 {
        if self.ctime.nanos == 0 { COARSE_TICK_NS } else { TICK_NS }
    }

    /// Waits for that; true, because then it is.
    pub(crate) fn settle(&self) -> bool {
        std::thread::sleep(self.settles_in());
        true
    }
}

/// A modification time this near to now may come again with another content.
const YOUNG_S: i64 = 2;

/// At least a tick of any kernel's clock for file times (100 Hz and more).
const TICK_NS: i128 = 20_000_000;
/// FAT counts in two seconds, old ext4 inodes in one.
const COARSE_TICK_NS: i128 = 2_000_000_000;

/// Attributes of an open file, taken when the tick in which it was last changed is over: whatever is
/// written from now on shows in them.
///
/// # Errors
/// The system's.
pub fn settled_info_of(file: &File) -> Result<Info, Errno> {
    let info = info_of(file)?;
    if info.is_settled() {
        return Ok(info);
    }
    info.settle();
    info_of(file)
}

/// This machine's clock.
#[must_use]
pub fn now() -> Timestamp {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => {
            let secs = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            Timestamp { secs, nanos: since.subsec_nanos() }
        }
        Err(_) => Timestamp::default(),
    }
}

/// The clock from which files get their times here: behind [`now`] by a tick at most, and cheaper to ask for each
/// of a million files.
#[must_use]
pub fn file_clock() -> Timestamp {
    let now = rustix::time::clock_gettime(ClockId::RealtimeCoarse);
    Timestamp { secs: now.tv_sec, nanos: u32::try_from(now.tv_nsec).unwrap_or(0) }
}

/// The names of a directory in one block of memory: a directory may have a million.
#[derive(Debug, Default)]
pub struct Names {
    bytes: Vec<u8>,
    spans: Vec<(u32, u16)>,
    has_staging: bool,
}

impl Names {
    /// A list of these, which are in order.
    pub fn of<'a>(given: impl Iterator<Item = &'a [u8]>) -> Names {
        let mut names = Names::default();
        given.for_each(|name| names.push(name));
        names
    }

    fn push(&mut self, name: &[u8]) {
        if matches!(name, b"." | b"..") {
            return;
        }
        if matches!(name, STAGING_NAME | STAGED_BACKUP_NAME) {
            self.has_staging |= name == STAGING_NAME;
            return;
        }
        let from = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(name);
        self.spans.push((from, length));
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.spans.sort_unstable_by_key(|&span| slice(bytes, span));
    }

    /// Whether [`STAGING_NAME`] was there too.
    #[must_use]
    pub fn has_staging(&self) -> bool {
        self.has_staging
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The name at a position, in order.
    #[must_use]
    pub fn at(&self, position: usize) -> Option<&[u8]> {
        self.spans.get(position).map(|&span| slice(&self.bytes, span))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|&span| slice(&self.bytes, span))
    }
}

fn slice(bytes: &[u8], (from, length): (u32, u16)) -> &[u8] {
    &bytes[from as usize..from as usize + usize::from(length)]
}

/// A path from bytes.
#[must_use]
pub fn path_of(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

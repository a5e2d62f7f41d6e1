//! The files of this machine, by handles of their directories.
//!
//! A directory is opened once, without a symbolic link on the way; what is read, written, renamed and synced are names
//! in that handle, so that a directory swapped meanwhile leads nowhere else. A file is replaced by exchanging names
//! with the new one: what the name held *until that moment* is then at hand, and goes back if it is not what was read.
//! Where a file system can't exchange, it is compared right before the rename. Two runs of this program take turns by a
//! lock on the file, the staged one too. (Not on the directory: a copy locks those above its destination.)

use super::{Access, FileError, LIMIT_BYTES, Place};
use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags, XattrFlags, fchown,
    fgetxattr, flistxattr, flock, fsetxattr, fsync, linkat, openat, openat2, renameat, renameat_with, statat,
    unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// The machine that this program runs on.
#[derive(Debug, Clone, Copy)]
pub struct ThisMachine;

const NO_FILE: &str = "is not a regular file";
const TOO_BIG: &str = "is too big (over 16 MiB) for a configuration file";
const LINKED: &str =
    "has other names (hard links) that would keep the old content; make it a file of its own";
const LOCKED: &str =
    "is kept locked by another program; nothing was written, run this again when that is done";
/// Others hold the lock for milliseconds.
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// What the kernel takes as one list of names, and as one value.
const MAX_ATTRIBUTE_BYTES: usize = 64 << 10;

impl Place for ThisMachine {
    fn find(&self, path: &Path) -> Result<PathBuf, FileError> {
        match (fs::canonicalize(path), path.file_name()) {
            (Err(error), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let directory = fs::canonicalize(parent.unwrap_or(Path::new(".")));
                Ok(tried("find", path, directory)?.join(name))
            }
            (result, _) => tried("find", path, result),
        }
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, FileError> {
        // A directory that may only be searched is enough.
        Spot::open(path, OFlags::PATH)?.present()?.bytes()
    }

    fn create(&self, path: &Path, bytes: &[u8], access: Access<'_>) -> Result<(), FileError> {
        let spot = Spot::open(path, OFlags::RDONLY)?;
        let staged = match access {
            Access::Mode(mode) => {
                spot.stage(bytes, |file| file.set_permissions(Permissions::from_mode(mode)))?
            }
            Access::Of(path) => {
                let model = Spot::open(path, OFlags::PATH)?.present()?;
                spot.stage(bytes, |file| model.give_to(file))?
            }
        };
        spot.name_new(staged)?;
        spot.sync()
    }

    fn replace(&self, path: &Path, old: &[u8], new: &[u8]) -> Result<(), FileError> {
        let spot = Spot::open(path, OFlags::RDONLY)?;
        let present = spot.present_as(old)?;
        let staged = spot.stage(new, |file| present.give_to(file))?;
        spot.exchange(staged, old)?;
        spot.sync()
    }

    fn remove(&self, path: &Path, old: &[u8]) -> Result<(), FileError> {
        let spot = Spot::open(path, OFlags::RDONLY)?;
        match spot.present_as(old) {
            Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result?,
        };
        tried("remove", path, unlinkat(&spot.directory, spot.name, AtFlags::empty()))?;
        spot.sync()
    }

    fn exists(&self, path: &Path) -> Result<bool, FileError> {
        match fs::symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(false)
            }
            Err(error) => tried("look at", path, Err(error)),
        }
    }

    fn neighbours(&self, path: &Path) -> Result<Vec<PathBuf>, FileError> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let entries = tried("list", directory, fs::read_dir(directory))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        Ok(paths)
    }
}

fn tried<T>(
    operation: &'static str,
    path: &Path,
    result: Result<T, impl Into<io::Error>>,
) -> Result<T, FileError> {
    result.map_err(|source| FileError::Io { operation, path: path.to_owned(), source: source.into() })
}

/// A name in a directory that is held open.
struct Spot<'a> {
    directory: OwnedFd,
    name: &'a OsStr,
    path: &'a Path,
}

impl<'a> Spot<'a> {
    fn open(path: &'a Path, access: OFlags) -> Result<Spot<'a>, FileError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(FileError::Unusable { path: path.to_owned(), reason: NO_FILE });
        };
        let flags = access | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat2(rustix::fs::CWD, parent, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
        Ok(Spot { directory: tried("open", parent, directory)?, name, path })
    }

    /// What has the name now, locked until it is closed. A file system without locks has to do without.
    fn locked(&self) -> Result<Present<'a>, FileError> {
        for _ in 0..LOCK_TRIES {
            let present = self.present()?;
            if flock(&present.file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
                thread::sleep(LOCK_PAUSE);
            // Whoever held the lock may have replaced the file.
            } else if self.present()?.metadata.ino() == present.metadata.ino() {
                return Ok(present);
            }
        }
        self.unusable(LOCKED)
    }

    fn unusable<T>(&self, reason: &'static str) -> Result<T, FileError> {
        Err(FileError::Unusable { path: self.path.to_owned(), reason })
    }

    /// What has the name now.
    fn present(&self) -> Result<Present<'a>, FileError> {
        self.present_at(self.name)
    }

    fn present_at(&self, name: &OsStr) -> Result<Present<'a>, FileError> {
        // Looked at first: opening a device may do something, opening a FIFO would wait.
        let status = tried("open", self.path, statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return self.unusable(NO_FILE);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(tried("open", self.path, openat(&self.directory, name, flags, Mode::empty()))?);
        let metadata = tried("look at", self.path, file.metadata())?;
        if !metadata.is_file() {
            return self.unusable(NO_FILE);
        }
        Ok(Present { file, metadata, path: self.path })
    }

    /// What has the name now, if it may be changed and holds these bytes.
    fn present_as(&self, old: &[u8]) -> Result<Present<'a>, FileError> {
        let present = self.locked()?;
        if present.metadata.nlink() > 1 {
            return self.unusable(LINKED);
        }
        if present.bytes()? != old {
            return Err(self.changed());
        }
        Ok(present)
    }

    fn changed(&self) -> FileError {
        FileError::Changed { path: self.path.to_owned() }
    }

    /// A synced file with these bytes, yet without a name that anybody reads.
    fn stage(
        &self,
        bytes: &[u8],
        finish: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<Staged<'_>, FileError> {
        let mut staged = tried("write beside", self.path, Staged::create(&self.directory))?;
        tried("write", self.path, staged.file.write_all(bytes))?;
        tried("keep owner, mode and attributes of", self.path, finish(&staged.file))?;
        tried("sync", self.path, staged.file.sync_all())?;
        Ok(staged)
    }

    /// Gives a staged file the name, which nobody has.
    fn name_new(&self, staged: Staged<'_>) -> Result<(), FileError> {
        let (from, to) = (&staged.name, self.name);
        let mut named = renameat_with(&self.directory, from, &self.directory, to, RenameFlags::NOREPLACE);
        if named.is_err_and(is_not_known) {
            named = linkat(&self.directory, from, &self.directory, to, AtFlags::empty());
        } else if named.is_ok() {
            staged.keep();
        }
        match named {
            Err(Errno::EXIST) => Err(FileError::Exists { path: self.path.to_owned() }),
            named => tried("create", self.path, named),
        }
    }

    /// Gives a staged file the name, which holds `old` and nothing else.
    fn exchange(&self, staged: Staged<'_>, old: &[u8]) -> Result<(), FileError> {
        let swap = || {
            renameat_with(&self.directory, &staged.name, &self.directory, self.name, RenameFlags::EXCHANGE)
        };
        match swap() {
            Ok(()) => {}
            Err(errno) if is_not_known(errno) => {
                if self.present()?.bytes()? != old {
                    return Err(self.changed());
                }
                let renamed = renameat(&self.directory, &staged.name, &self.directory, self.name);
                tried("replace", self.path, renamed)?;
                staged.keep();
                return Ok(());
            }
            Err(Errno::NOENT) => return Err(self.changed()),
            Err(errno) => return tried("replace", self.path, Err(errno)),
        }
        // What has the staged name now is what had the file's name until the exchange.
        let displaced = self.present_at(&staged.name).and_then(|displaced| displaced.bytes());
        if displaced.is_ok_and(|bytes| bytes == old) {
            return Ok(());
        }
        if let Err(errno) = swap() {
            let beside = self.path.with_file_name(&staged.name);
            staged.keep();
            return Err(FileError::NotPutBack { path: self.path.to_owned(), beside, source: errno.into() });
        }
        Err(self.changed())
    }

    fn sync(&self) -> Result<(), FileError> {
        tried("sync the directory of", self.path, fsync(&self.directory))
    }
}

/// Whether a file system does not know this way of renaming.
fn is_not_known(errno: Errno) -> bool {
    matches!(errno, Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP)
}

/// A regular file as it is now.
struct Present<'a> {
    file: File,
    metadata: Metadata,
    path: &'a Path,
}

impl Present<'_> {
    fn bytes(&self) -> Result<Vec<u8>, FileError> {
        let mut bytes = Vec::new();
        tried("read", self.path, (&self.file).take(LIMIT_BYTES + 1).read_to_end(&mut bytes))?;
        if bytes.len() as u64 > LIMIT_BYTES {
            return Err(FileError::Unusable { path: self.path.to_owned(), reason: TOO_BIG });
        }
        Ok(bytes)
    }

    /// Gives a new file the owner, mode and attributes of this one, in this order: `chown` clears bits.
    fn give_to(&self, new: &File) -> io::Result<()> {
        let (old, own) = (&self.metadata, new.metadata()?);
        if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
            fchown(new, Some(Uid::from_raw(old.uid())), Some(Gid::from_raw(old.gid())))?;
        }
        new.set_permissions(Permissions::from_mode(old.mode() & 0o7777))?;
        for (name, value) in attributes(&self.file)? {
            let is_set = fsetxattr(new, &name, &value, XattrFlags::empty());
            // Labels of the system's own: it sets them itself and may keep others from it.
            if !name.as_bytes().starts_with(b"security.") && !name.as_bytes().starts_with(b"trusted.") {
                is_set?;
            }
        }
        Ok(())
    }
}

/// The extended attributes, access lists among them.
fn attributes(file: &File) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let mut names = vec![0; MAX_ATTRIBUTE_BYTES];
    let len = match flistxattr(file, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        result => result?,
    };
    let mut attributes = Vec::new();
    for name in names[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let name = OsStr::from_bytes(name);
        let mut value = vec![0; MAX_ATTRIBUTE_BYTES];
        match fgetxattr(file, name, &mut value[..]) {
            Ok(len) => value.truncate(len),
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => continue,
            Err(errno) => return Err(errno.into()),
        }
        attributes.push((name.to_owned(), value));
    }
    Ok(attributes)
}

/// A new file under a name of our own, removed again unless it is kept.
struct Staged<'d> {
    directory: &'d OwnedFd,
    name: OsString,
    file: File,
    is_kept: bool,
}

impl Staged<'_> {
    fn create(directory: &OwnedFd) -> io::Result<Staged<'_>> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Only this user can read it until it is complete.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = OsString::from(format!(".sync-client-{}-{count}", std::process::id()));
            match openat(directory, &name, flags, Mode::from_raw_mode(0o600)) {
                // A run that was killed had the same number.
                Err(Errno::EXIST) => {}
                opened => {
                    let file = File::from(opened?);
                    // Nobody else can hold it yet.
                    let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
                    return Ok(Staged { directory, name, file, is_kept: false });
                }
            }
        }
    }

    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            // What can't be removed is a hidden file that nobody reads.
            let _ = unlinkat(self.directory, &self.name, AtFlags::empty());
        }
    }
}

//! The file layer of an edit: a configuration is read whole, and replaced at once or not at all.
//!
//! [`Place`] is what a step needs of wherever the file lies; [`LocalFile`] is this machine. What always holds for it:
//! the name has the old or the new bytes at any moment, on disk when [`Place::replace`] returns; owner, mode and
//! attributes stay; a symbolic link stays one, its target is replaced; nothing is written over what somebody changed
//! since it was read; no other name that is made can be loaded by `include *.conf` or `include *`.

use rustix::fs::{Mode, OFlags, XattrFlags, fchown, fgetxattr, flistxattr, fsetxattr, open};
use rustix::process::{Gid, Uid};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Far more than a configuration has.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// Backups of one file under different numbers.
const MAX_BACKUPS: u32 = 1000;

/// Where a configuration lies.
pub trait Place {
    /// The whole file.
    ///
    /// # Errors
    /// It can't be read.
    fn read(&self) -> Result<Vec<u8>, FileError>;

    /// Puts `new` where `old` is; on disk when it returns.
    ///
    /// # Errors
    /// It holds something else than `old`, or can't be written. Then it is as it was.
    fn replace(&self, old: &[u8], new: &[u8]) -> Result<(), FileError>;

    /// Keeps a copy beside it, which no `include` loads, and says under which name.
    ///
    /// # Errors
    /// It can't be written.
    fn back_up(&self, bytes: &[u8]) -> Result<PathBuf, FileError>;
}

/// Why a file can't be read or replaced.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not what a configuration can be.
    #[error("{} {what}", path.display())]
    Unsuitable {
        /// What it is.
        what: &'static str,
        /// Which.
        path: PathBuf,
    },
    /// Somebody else wrote it.
    #[error("{} was changed by somebody else meanwhile; nothing was written, run it again", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
}

/// A file of this machine.
#[derive(Debug)]
pub struct LocalFile {
    /// Without symbolic links.
    path: PathBuf,
    name: OsString,
    directory: PathBuf,
}

impl LocalFile {
    /// Looks the file up, through symbolic links: configurations are often links, and stay such.
    ///
    /// # Errors
    /// It is not there, or no regular file.
    pub fn find(path: &Path) -> Result<LocalFile, FileError> {
        let resolved = tried("find", path, fs::canonicalize(path))?;
        let (Some(name), Some(directory)) = (resolved.file_name(), resolved.parent()) else {
            return Err(FileError::Unsuitable { what: "is no regular file", path: resolved });
        };
        let (name, directory) = (name.to_owned(), directory.to_owned());
        let file = LocalFile { path: resolved, name, directory };
        file.open()?;
        Ok(file)
    }

    /// Where it is, without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> Result<(File, Metadata), FileError> {
        // A FIFO would block, a device could do anything: looked at before a byte is read.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let opened = open(&self.path, flags, Mode::empty()).map_err(io::Error::from);
        let file = File::from(tried("open", &self.path, opened)?);
        let metadata = tried("look at", &self.path, file.metadata())?;
        let unsuitable = |what| Err(FileError::Unsuitable { what, path: self.path.clone() });
        if !metadata.is_file() {
            return unsuitable("is no regular file");
        }
        if metadata.len() > MAX_FILE_BYTES {
            return unsuitable("has more than 16 MiB; that is no nginx configuration");
        }
        Ok((file, metadata))
    }

    fn read_open(&self, file: File) -> Result<Vec<u8>, FileError> {
        let mut bytes = Vec::new();
        tried("read", &self.path, file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))?;
        Ok(bytes)
    }

    /// `NAME.before-proxy`; hidden where `include *` may load whatever lies there.
    fn backup_path(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(if self.name.as_bytes().ends_with(b".conf") { "" } else { "." });
        name.push(&self.name);
        name.push(".before-proxy");
        if number > 0 {
            name.push(format!(".{number}"));
        }
        self.directory.join(name)
    }
}

impl Place for LocalFile {
    fn read(&self) -> Result<Vec<u8>, FileError> {
        let (file, _) = self.open()?;
        self.read_open(file)
    }

    fn replace(&self, old: &[u8], new: &[u8]) -> Result<(), FileError> {
        let (file, metadata) = self.open()?;
        if metadata.nlink() > 1 {
            let what =
                "has other names (hard links), which would keep the old content; make it a file of its own";
            return Err(FileError::Unsuitable { what, path: self.path.clone() });
        }
        let attributes = attributes(&file);
        if self.read_open(file)? != old {
            return Err(FileError::Changed { path: self.path.clone() });
        }
        let mut prefix = OsString::from(".");
        prefix.push(&self.name);
        let private = Permissions::from_mode(0o600);
        let made = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".sync-client")
            .permissions(private)
            .tempfile_in(&self.directory);
        let mut temporary = tried("make a file in", &self.directory, made)?;
        let write =
            temporary.write_all(new).and_then(|()| take_over(temporary.as_file(), &metadata, &attributes));
        tried("write a file like", &self.path, write.and_then(|()| temporary.as_file().sync_all()))?;
        tried("replace", &self.path, temporary.persist(&self.path).map_err(|error| error.error))?;
        sync_directory(&self.directory)
    }

    fn back_up(&self, bytes: &[u8]) -> Result<PathBuf, FileError> {
        let (_, metadata) = self.open()?;
        for number in 0..MAX_BACKUPS {
            let path = self.backup_path(number);
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(mut file) => {
                    let write = file.write_all(bytes).and_then(|()| take_over(&file, &metadata, &[]));
                    tried("write", &path, write.and_then(|()| file.sync_all()))?;
                    sync_directory(&self.directory)?;
                    return Ok(path);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let is_regular = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
                    if is_regular && fs::read(&path).is_ok_and(|kept| kept == bytes) {
                        return Ok(path);
                    }
                }
                Err(source) => return Err(FileError::Io { what: "make", path, source }),
            }
        }
        Err(FileError::Unsuitable {
            what: "has 1000 backups beside it; remove some",
            path: self.path.clone(),
        })
    }
}

fn tried<T>(what: &'static str, path: &Path, result: io::Result<T>) -> Result<T, FileError> {
    result.map_err(|source| FileError::Io { what, path: path.to_owned(), source })
}

fn sync_directory(path: &Path) -> Result<(), FileError> {
    tried("sync", path, File::open(path).and_then(|directory| directory.sync_all()))
}

/// Gives a new file the owner, mode and attributes of the old one; in this order, for `chown` clears bits.
fn take_over(file: &File, old: &Metadata, attributes: &[(OsString, Vec<u8>)]) -> io::Result<()> {
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        fchown(file, Some(Uid::from_raw(old.uid())), Some(Gid::from_raw(old.gid())))?;
    }
    file.set_permissions(Permissions::from_mode(old.mode() & 0o7777))?;
    for (name, value) in attributes {
        // Some are the system's own, which sets them itself.
        let _ = fsetxattr(file, name.as_os_str(), value, XattrFlags::empty());
    }
    Ok(())
}

/// The extended attributes that can be read.
fn attributes(file: &File) -> Vec<(OsString, Vec<u8>)> {
    let mut names = vec![0; 64 << 10];
    let Ok(len) = flistxattr(file, &mut names[..]) else { return Vec::new() };
    let mut attributes = Vec::new();
    for name in names[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let name = OsStr::from_bytes(name);
        let mut value = vec![0; 64 << 10];
        if let Ok(len) = fgetxattr(file, name, &mut value[..]) {
            value.truncate(len);
            attributes.push((name.to_owned(), value));
        }
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_wrote_is_not_written_over() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("site.conf");
        fs::write(&path, "theirs").expect("a new file");
        let file = LocalFile::find(&path).expect("it is there");
        assert!(matches!(file.replace(b"ours", b"new"), Err(FileError::Changed { .. })));
        assert_eq!(file.read().expect("it is there"), b"theirs");
        file.replace(b"theirs", b"new").expect("it is as it was read");
        assert_eq!(file.read().expect("it is there"), b"new");
        assert_eq!(fs::read_dir(directory.path()).expect("it is there").count(), 1);
        fs::hard_link(&path, directory.path().join("other")).expect("a link");
        assert!(matches!(file.replace(b"new", b"newer"), Err(FileError::Unsuitable { .. })));
    }

    #[test]
    fn a_backup_is_never_written_over_and_made_once() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("site.conf");
        fs::write(&path, "now").expect("a new file");
        let file = LocalFile::find(&path).expect("it is there");
        let names: Vec<PathBuf> = [b"one", b"one", b"two", b"one"]
            .iter()
            .map(|bytes| file.back_up(*bytes).expect("there is room"))
            .collect();
        let directory = file.directory.as_path();
        let (first, second) =
            (directory.join("site.conf.before-proxy"), directory.join("site.conf.before-proxy.1"));
        assert_eq!(names, [first.clone(), first.clone(), second.clone(), first.clone()]);
        assert_eq!(
            (fs::read(first).ok(), fs::read(second).ok()),
            (Some(b"one".to_vec()), Some(b"two".to_vec()))
        );
    }
}

//! Configuration files that others read: read whole, replaced at once or not at all, with what belongs to them beside.
//!
//! [`Place`] is what the commands need of the machine where a file lies; [`ThisMachine`] is the one they run on. What
//! every implementation holds: a name has its old or its new bytes at any moment, on disk when the call returns;
//! owner, mode and attributes stay; nothing that somebody else wrote since it was read is lost; no symbolic link is
//! followed but by [`Place::find`]; names made on the way begin with `.sync-client-`, so no `include *` loads them.
//! [`Original`] is a file as it was read there. Nothing here knows what is in one. `proxy`, `register` and `key` call this.

mod local;

pub use local::ThisMachine;

use protocol::path::escaped;
use protocol::stats::{Exit, is_full};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// A file bigger than this is no configuration.
pub const LIMIT_BYTES: u64 = 16 << 20;
/// Backups of one file under different numbers.
const MAX_BACKUPS: u32 = 1000;

/// The files of one machine. Paths are those that [`Place::find`] gave, or others in the same directory.
pub trait Place: Send + Sync {
    /// Where a path leads, through symbolic links; the last name need not be there.
    ///
    /// # Errors
    /// The directory is not there or can't be searched.
    fn find(&self, path: &Path) -> Result<PathBuf, FileError>;

    /// The whole file.
    ///
    /// # Errors
    /// It is not there, is no regular file, or is bigger than [`LIMIT_BYTES`].
    fn read(&self, path: &Path) -> Result<Vec<u8>, FileError>;

    /// Makes a file that is complete and on disk as soon as it has its name.
    ///
    /// # Errors
    /// [`FileError::Exists`], or it can't be written.
    fn create(&self, path: &Path, bytes: &[u8], access: Access<'_>) -> Result<(), FileError>;

    /// Puts `new` where `old` is, with the same owner, mode and attributes.
    ///
    /// # Errors
    /// It holds something else than `old`, has other names (hard links), or can't be written. Then it is as it was;
    /// only where the directory can't be synced it may be the new one.
    fn replace(&self, path: &Path, old: &[u8], new: &[u8]) -> Result<(), FileError>;

    /// Removes a file that holds `old`; one that is not there is no error.
    ///
    /// # Errors
    /// It holds something else, has other names, or can't be removed.
    fn remove(&self, path: &Path, old: &[u8]) -> Result<(), FileError>;

    /// Whether anything has this name.
    ///
    /// # Errors
    /// It can't be told.
    fn exists(&self, path: &Path) -> Result<bool, FileError>;

    /// The names in the file's directory, as paths, sorted.
    ///
    /// # Errors
    /// The directory can't be read.
    fn neighbours(&self, path: &Path) -> Result<Vec<PathBuf>, FileError>;
}

/// Who may do what with a new file.
#[derive(Debug, Clone, Copy)]
pub enum Access<'a> {
    /// This user, by this mode.
    Mode(u32),
    /// As with this file.
    Of(&'a Path),
}

/// Why a file can't be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum FileError {
    #[error("cannot {operation} {}", shown(path))]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{} {reason}", shown(path))]
    Unusable { path: PathBuf, reason: &'static str },
    #[error("{} was changed by somebody else meanwhile; nothing was written, run this again", shown(path))]
    Changed { path: PathBuf },
    #[error(
        "{} is there already and is not overwritten; choose another name or remove it first",
        shown(path)
    )]
    Exists { path: PathBuf },
    #[error(
        "{} is written by the config follower of {}, which overwrites an edit when it starts: edit the leader's copy (below \
         config-leader on the leader's machine; addresses are in its conf/platform.yml) and restart the followers; \
         --even-generated edits this one all the same",
        shown(path),
        shown(root)
    )]
    Generated { path: PathBuf, root: PathBuf },
    #[error(
        "{} is of somebody else's edit, which lies beside it as {}: look at both",
        shown(path),
        shown(beside)
    )]
    NotPutBack { path: PathBuf, beside: PathBuf, source: io::Error },
}

impl FileError {
    /// The status that this ends a command with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            FileError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::Selection,
            FileError::Io { source, .. } if source.raw_os_error().is_some_and(is_full) => Exit::Full,
            FileError::Io { .. } | FileError::NotPutBack { .. } => Exit::FileIo,
            FileError::Unusable { .. } => Exit::Selection,
            FileError::Changed { .. } | FileError::Exists { .. } | FileError::Generated { .. } => {
                Exit::Refused
            }
        }
    }
}

/// A path as it may be printed.
#[must_use]
pub fn shown(path: &Path) -> String {
    escaped(path.as_os_str().as_bytes())
}

/// A path with `suffix` after it.
#[must_use]
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A file as it was read.
pub struct Original<'p> {
    place: &'p dyn Place,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl<'p> Original<'p> {
    /// Reads the whole file, or the one that a symbolic link leads to.
    ///
    /// # Errors
    /// As [`Place::read`].
    pub fn read(place: &'p dyn Place, path: &Path) -> Result<Original<'p>, FileError> {
        let path = place.find(path)?;
        let bytes = place.read(&path)?;
        Ok(Original { place, path, bytes })
    }

    /// What was in it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it can be read and still has these bytes.
    #[must_use]
    pub fn is_as_read(&self) -> bool {
        self.place.read(&self.path).is_ok_and(|now| now == self.bytes)
    }

    /// Where it really is, without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it lies.
    #[must_use]
    pub fn place(&self) -> &'p dyn Place {
        self.place
    }

    /// Puts `new` in the place of what was read.
    ///
    /// # Errors
    /// As [`Place::replace`].
    pub fn replace(&self, new: &[u8]) -> Result<(), FileError> {
        self.place.replace(&self.path, &self.bytes, new)
    }

    /// Puts back what was read in the place of `new`.
    ///
    /// # Errors
    /// As [`Place::replace`].
    pub fn put_back(&self, new: &[u8]) -> Result<(), FileError> {
        self.place.replace(&self.path, new, &self.bytes)
    }

    /// What belongs to it, under its name with `suffix` after it.
    #[must_use]
    pub fn sidecar(&self, suffix: &str) -> Sidecar<'_> {
        Sidecar { of: self, path: with_suffix(&self.path, suffix) }
    }

    /// Keeps a copy beside it and says under which name: `FILE.SUFFIX`, hidden where an `include *` may load all
    /// that is not; with a number where another content has that name.
    ///
    /// # Errors
    /// It can't be written.
    pub fn back_up(&self, suffix: &str) -> Result<Backup<'_>, FileError> {
        for number in 0..MAX_BACKUPS {
            let path = self.backup_path(suffix, number);
            match self.place.create(&path, &self.bytes, Access::Of(&self.path)) {
                Ok(()) => return Ok(Backup { of: self, path, is_new: true }),
                Err(FileError::Exists { path }) => {
                    if self.place.read(&path).is_ok_and(|kept| kept == self.bytes) {
                        return Ok(Backup { of: self, path, is_new: false });
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(FileError::Unusable {
            path: self.path.clone(),
            reason: "has 1000 backups beside it; remove some",
        })
    }

    fn backup_path(&self, suffix: &str, number: u32) -> PathBuf {
        let name = self.path.file_name().unwrap_or(OsStr::new(""));
        let mut backup = std::ffi::OsString::from(if name.as_bytes().ends_with(b".conf") { "" } else { "." });
        backup.push(name);
        backup.push(suffix);
        if number > 0 {
            backup.push(format!(".{number}"));
        }
        self.path.with_file_name(backup)
    }
}

/// A copy of a file as it was read.
pub struct Backup<'o> {
    of: &'o Original<'o>,
    path: PathBuf,
    is_new: bool,
}

impl Backup<'_> {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it, unless it was there before.
    ///
    /// # Errors
    /// As [`Place::remove`].
    pub fn remove(&self) -> Result<(), FileError> {
        if self.is_new { self.of.place.remove(&self.path, &self.of.bytes) } else { Ok(()) }
    }
}

/// A file that belongs to another one and lies beside it, with its owner and mode.
pub struct Sidecar<'o> {
    of: &'o Original<'o>,
    path: PathBuf,
}

impl Sidecar<'_> {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it; none where there is none.
    ///
    /// # Errors
    /// As [`Place::read`].
    pub fn read(&self) -> Result<Option<Vec<u8>>, FileError> {
        match self.of.place.read(&self.path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes `old` become `new`, where none is no file.
    ///
    /// # Errors
    /// It holds something else than `old`, or can't be written.
    pub fn change(&self, old: Option<&[u8]>, new: Option<&[u8]>) -> Result<(), FileError> {
        let place = self.of.place;
        match (old, new) {
            (None, None) => Ok(()),
            (None, Some(new)) => match place.create(&self.path, new, Access::Of(&self.of.path)) {
                Err(FileError::Exists { path }) => Err(FileError::Changed { path }),
                result => result,
            },
            (Some(old), Some(new)) => place.replace(&self.path, old, new),
            (Some(old), None) => place.remove(&self.path, old),
        }
    }
}

#[cfg(test)]
mod tests;

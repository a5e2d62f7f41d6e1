//! Configuration files that others read: read whole, shown as a diff, agreed to, replaced at once.
//!
//! A replaced file is never half-written and keeps its owner and mode: the new bytes go to a temporary file in the
//! same directory, are synced, get the name, and the directory is synced. What was read is compared with what is there
//! right before the rename, so that an edit made meanwhile is not lost. A symbolic link stays: the file that it
//! leads to is replaced. Temporary names begin with `.sync-client-`, so no `include *.conf` loads them.
//! The commands that edit a file call this; nothing here knows what is in one.

use protocol::path::escaped;
use protocol::stats::Exit;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A file bigger than this is no configuration written by hand.
pub const LIMIT_BYTES: u64 = 4 << 20;
/// Lines around a change that a diff shows.
const CONTEXT_LINES: usize = 3;

/// Why a file can't be read or replaced.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ReplaceError {
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
    #[error("not agreed to; nothing was changed")]
    Declined,
    #[error("there is no terminal to ask on; give --yes to go ahead, --dry-run to see what would be done")]
    NobodyToAsk,
}

impl ReplaceError {
    /// The status that this ends a command with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            ReplaceError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::Selection,
            ReplaceError::Io { source, .. }
                if source.raw_os_error().is_some_and(protocol::stats::is_full) =>
            {
                Exit::Full
            }
            ReplaceError::Io { .. } => Exit::FileIo,
            ReplaceError::Unusable { .. } => Exit::Selection,
            _ => Exit::Refused,
        }
    }
}

/// A path as it may be printed.
#[must_use]
pub fn shown(path: &Path) -> String {
    escaped(path.as_os_str().as_bytes())
}

fn tried<T>(operation: &'static str, path: &Path, result: io::Result<T>) -> Result<T, ReplaceError> {
    result.map_err(|source| ReplaceError::Io { operation, path: path.to_owned(), source })
}

/// A file as it was read.
#[derive(Debug)]
pub struct Original {
    path: PathBuf,
    bytes: Vec<u8>,
    metadata: Metadata,
}

impl Original {
    /// Reads the whole file, or the one that a symbolic link leads to.
    ///
    /// # Errors
    /// It is not there, is no regular file, or is bigger than [`LIMIT_BYTES`].
    pub fn read(path: &Path) -> Result<Original, ReplaceError> {
        let path = tried("open", path, fs::canonicalize(path))?;
        let unusable = |reason| ReplaceError::Unusable { path: path.clone(), reason };
        // Asked before it is opened: opening a FIFO would wait.
        if !tried("look at", &path, fs::metadata(&path))?.is_file() {
            return Err(unusable("is not a regular file"));
        }
        let mut bytes = Vec::new();
        let file = tried("open", &path, File::open(&path))?;
        let metadata = tried("look at", &path, file.metadata())?;
        tried("read", &path, file.take(LIMIT_BYTES + 1).read_to_end(&mut bytes))?;
        if bytes.len() as u64 > LIMIT_BYTES {
            return Err(unusable("is too big (over 4 MiB) for a configuration file"));
        }
        Ok(Original { path, bytes, metadata })
    }

    /// What was in it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where it really is, without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of a file beside it: this one's with `suffix` after it.
    #[must_use]
    pub fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    /// Gives the name to `bytes`, with the same owner and mode.
    ///
    /// # Errors
    /// The file is no longer what was read, has other names (hard links), or can't be written with its owner.
    pub fn replace(&self, bytes: &[u8]) -> Result<(), ReplaceError> {
        if self.metadata.nlink() > 1 {
            let reason = "has other names (hard links) that would keep the old content; edit it by hand";
            return Err(ReplaceError::Unusable { path: self.path.clone(), reason });
        }
        let staged = self.staged(&self.path, bytes)?;
        let now = Original::read(&self.path)?;
        let is_same = now.bytes == self.bytes && now.metadata.ino() == self.metadata.ino();
        if !is_same {
            return Err(ReplaceError::Changed { path: self.path.clone() });
        }
        rename(staged, &self.path)
    }

    /// Writes a file that belongs to this one, with its owner and mode, whether it is there already or not.
    ///
    /// # Errors
    /// It can't be written.
    pub fn put_beside(&self, path: &Path, bytes: &[u8]) -> Result<(), ReplaceError> {
        rename(self.staged(path, bytes)?, path)
    }

    /// A synced file with `bytes` and this one's owner and mode, yet without a name that anybody reads.
    fn staged(&self, path: &Path, bytes: &[u8]) -> Result<tempfile::NamedTempFile, ReplaceError> {
        let mut staged = temporary(path)?;
        let keep = |file: &File| -> io::Result<()> {
            let own = file.metadata()?;
            let (uid, gid) = (self.metadata.uid(), self.metadata.gid());
            if (own.uid(), own.gid()) != (uid, gid) {
                fchown(file, Some(uid), Some(gid))?;
            }
            // After the owner: changing that clears set-id bits.
            file.set_permissions(Permissions::from_mode(self.metadata.mode() & 0o7777))
        };
        tried("write", path, staged.write_all(bytes))?;
        tried("keep the owner and mode of", path, keep(staged.as_file()))?;
        tried("sync", path, staged.as_file().sync_all())?;
        Ok(staged)
    }
}

/// Makes a file that was not there, synced, complete as soon as it has its name.
///
/// # Errors
/// [`ReplaceError::Exists`], or it can't be written.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), ReplaceError> {
    let mut staged = temporary(path)?;
    tried("write", path, staged.write_all(bytes))?;
    tried("write", path, staged.as_file().set_permissions(Permissions::from_mode(mode)))?;
    tried("sync", path, staged.as_file().sync_all())?;
    match staged.persist_noclobber(path) {
        Ok(_) => sync_directory_of(path),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            Err(ReplaceError::Exists { path: path.to_owned() })
        }
        Err(error) => tried("create", path, Err(error.error)),
    }
}

/// Removes a file for good; one that is not there is no error.
///
/// # Errors
/// It can't be removed.
pub fn remove(path: &Path) -> Result<(), ReplaceError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => tried("remove", path, result).and_then(|()| sync_directory_of(path)),
    }
}

fn rename(staged: tempfile::NamedTempFile, path: &Path) -> Result<(), ReplaceError> {
    tried("replace", path, staged.persist(path).map_err(|error| error.error))?;
    sync_directory_of(path)
}

/// A new file beside `path` that only this user can read.
fn temporary(path: &Path) -> Result<tempfile::NamedTempFile, ReplaceError> {
    let made = tempfile::Builder::new()
        .prefix(".sync-client-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(directory_of(path));
    tried("write beside", path, made)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_directory_of(path: &Path) -> Result<(), ReplaceError> {
    let directory = directory_of(path);
    tried("sync", directory, File::open(directory).and_then(|directory| directory.sync_all()))
}

/// How to ask the operator; none where there is no terminal. Only `main` knows the terminal.
#[derive(Clone, Copy)]
pub struct Prompts {
    /// Asks a question to be answered by yes or no.
    pub confirm: fn(&str) -> Option<bool>,
    /// Asks for what must not be seen.
    pub secret: fn(&str) -> Option<String>,
}

impl Prompts {
    /// Goes on only if the operator agrees, now or by `--yes` beforehand.
    ///
    /// # Errors
    /// [`ReplaceError::Declined`] or [`ReplaceError::NobodyToAsk`].
    pub fn agree(&self, agreed_before: bool, question: &str) -> Result<(), ReplaceError> {
        if agreed_before {
            return Ok(());
        }
        match (self.confirm)(question) {
            Some(true) => Ok(()),
            Some(false) => Err(ReplaceError::Declined),
            None => Err(ReplaceError::NobodyToAsk),
        }
    }
}

/// The difference of two texts as a unified diff of one hunk, line by line, escaped; empty where there is none.
///
/// It is meant for an edit at one place: what lies between the first and the last changed line is one change.
#[must_use]
pub fn diff(name: &str, old: &[u8], new: &[u8]) -> Vec<String> {
    if old == new {
        return Vec::new();
    }
    let (old, new): (Vec<&[u8]>, Vec<&[u8]>) =
        (old.split_inclusive(is_newline).collect(), new.split_inclusive(is_newline).collect());
    let same = |pairs: &mut dyn Iterator<Item = (&&[u8], &&[u8])>| pairs.take_while(|(a, b)| a == b).count();
    let head = same(&mut old.iter().zip(&new));
    let tail = same(&mut old[head..].iter().rev().zip(new[head..].iter().rev()));
    let from = head.saturating_sub(CONTEXT_LINES);
    let after = tail.min(CONTEXT_LINES);
    let range = |lines: &[&[u8]]| {
        let count = lines.len() - tail + after - from;
        // Where no line is left, the format names the one before.
        format!("{},{count}", if count == 0 { from } else { from + 1 })
    };
    let mut text = vec![
        format!("--- {name}"),
        format!("+++ {name}"),
        format!("@@ -{} +{} @@", range(&old), range(&new)),
    ];
    let mut add = |sign: char, lines: &[&[u8]]| {
        for line in lines {
            let is_ended = line.ends_with(b"\n");
            text.push(format!("{sign}{}", escaped(line.strip_suffix(b"\n").unwrap_or(line))));
            if !is_ended {
                text.push("\\ No newline at end of file".to_owned());
            }
        }
    };
    add(' ', &old[from..head]);
    add('-', &old[head..old.len() - tail]);
    add('+', &new[head..new.len() - tail]);
    add(' ', &old[old.len() - tail..old.len() - tail + after]);
    text
}

fn is_newline(byte: &u8) -> bool {
    *byte == b'\n'
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn place() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("it is there").flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_a_link_to_it_stays_a_link() {
        let place = place();
        let (file, link) = (place.path().join("file.conf"), place.path().join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o4751)).unwrap();
        symlink("file.conf", &link).unwrap();
        Original::read(&link).unwrap().replace(b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o4751);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(place.path()), ["file.conf", "link"]);
    }

    #[test]
    fn an_edit_made_meanwhile_is_not_lost() {
        let place = place();
        let file = place.path().join("file");
        fs::write(&file, "old").unwrap();
        let original = Original::read(&file).unwrap();
        fs::write(&file, "edited").unwrap();
        assert!(matches!(original.replace(b"new"), Err(ReplaceError::Changed { .. })));
        assert_eq!(fs::read(&file).unwrap(), b"edited");
        assert_eq!(names(place.path()), ["file"]);
    }

    #[test]
    fn what_is_no_single_file_is_refused() {
        let place = place();
        let (file, other) = (place.path().join("file"), place.path().join("other"));
        assert!(matches!(Original::read(place.path()), Err(ReplaceError::Unusable { .. })));
        assert_eq!(Original::read(&file).unwrap_err().exit(), Exit::Selection);
        fs::write(&file, "old").unwrap();
        fs::hard_link(&file, &other).unwrap();
        assert!(matches!(Original::read(&file).unwrap().replace(b"new"), Err(ReplaceError::Unusable { .. })));
        assert_eq!(fs::read(&file).unwrap(), b"old");
    }

    #[test]
    fn a_new_file_never_takes_the_place_of_another() {
        let place = place();
        let file = place.path().join("file");
        create(&file, b"first", 0o600).unwrap();
        assert!(matches!(create(&file, b"second", 0o600), Err(ReplaceError::Exists { .. })));
        assert_eq!(fs::read(&file).unwrap(), b"first");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(names(place.path()), ["file"]);
    }

    #[test]
    fn a_diff_shows_the_changed_lines_and_three_around() {
        let cases: [(&str, &str, &[&str]); 4] = [
            ("same\n", "same\n", &[]),
            (
                "1\n2\n3\n4\nold\n6\n7\n8\n9\n",
                "1\n2\n3\n4\nnew\n6\n7\n8\n9\n",
                &["@@ -2,7 +2,7 @@", " 2", " 3", " 4", "-old", "+new", " 6", " 7", " 8"],
            ),
            (
                "{ \"ip\": \"\u{7}\" }",
                "{}",
                &[
                    "@@ -1,1 +1,1 @@",
                    "-{ \"ip\": \"\\#007\" }",
                    "\\ No newline at end of file",
                    "+{}",
                    "\\ No newline at end of file",
                ],
            ),
            ("a\na\n", "a\na\na\n", &["@@ -1,2 +1,3 @@", " a", " a", "+a"]),
        ];
        for (old, new, expected) in cases {
            let shown = diff("name", old.as_bytes(), new.as_bytes());
            assert_eq!(shown.get(2..).unwrap_or_default(), expected, "{old:?}");
        }
    }
}

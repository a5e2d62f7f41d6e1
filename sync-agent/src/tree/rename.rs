//! Moving a name: over what is there, only where nothing is, or in exchange for what is there.

use super::Dir;
use rustix::fs::{self, RenameFlags};
use rustix::io::Errno;

impl Dir {
    /// Moves `name` to `to_name` in `to`, replacing what is there.
    ///
    /// # Errors
    /// The system's.
    pub fn rename(&self, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<(), Errno> {
        fs::renameat(&self.0, name, &to.0, to_name)
    }

    /// Moves `name` to `to_name` in `to`, where nothing is.
    ///
    /// # Errors
    /// The system's; `EEXIST`.
    pub fn rename_to_free(&self, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<(), Errno> {
        match fs::renameat_with(&self.0, name, &to.0, to_name, RenameFlags::NOREPLACE) {
            // A file system that can't promise it, as an NFS.
            Err(error) if is_unknown(error) => match to.info(to_name) {
                Err(Errno::NOENT) => self.rename(name, to, to_name),
                Ok(_) => Err(Errno::EXIST),
                Err(error) => Err(error),
            },
            renamed => renamed,
        }
    }

    /// Gives what has either name the other, in one step; says whether the file system knows how.
    ///
    /// # Errors
    /// The system's.
    pub fn exchange(&self, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<bool, Errno> {
        match fs::renameat_with(&self.0, name, &to.0, to_name, RenameFlags::EXCHANGE) {
            Err(error) if is_unknown(error) => Ok(false),
            exchanged => exchanged.map(|()| true),
        }
    }
}

fn is_unknown(error: Errno) -> bool {
    matches!(error, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}

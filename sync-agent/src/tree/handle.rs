//! Metadata through a handle, open or not.
//!
//! A handle without access has few of the calls of open files, but its name in /proc leads to the entry itself, even
//! to a link, and can't be swapped.

use super::{Held, Info, info_of, times};
use protocol::entry::Timestamp;
use rustix::fd::AsRawFd as _;
use rustix::fs::{self, AtFlags, Gid, Mode, Uid, XattrFlags};
use rustix::io::Errno;
use std::fs::File;

/// Linux's bound for the list of an entry's attributes, and for one value.
const LARGEST_BYTES: usize = 64 << 10;

/// What metadata can be read and set of. Every error is the system's.
pub trait Handle {
    /// Its name in /proc.
    fn proc_path(&self) -> String;

    /// Its attributes.
    ///
    /// # Errors
    /// The system's.
    fn info(&self) -> Result<Info, Errno>;

    /// Sets owner and group where given.
    ///
    /// # Errors
    /// The system's; `EPERM`.
    fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno>;

    /// Sets the permission bits of anything but a link.
    ///
    /// # Errors
    /// The system's.
    fn set_mode(&self, mode: u16) -> Result<(), Errno>;

    /// Sets the modification time and leaves the access time.
    ///
    /// # Errors
    /// The system's.
    fn set_mtime(&self, mtime: Timestamp) -> Result<(), Errno>;

    /// The names of its extended attributes, each ended by a NUL; none on a file system that has no attributes.
    ///
    /// # Errors
    /// The system's.
    fn attribute_names(&self) -> Result<Vec<u8>, Errno> {
        let mut names = Vec::with_capacity(LARGEST_BYTES);
        match fs::listxattr(self.proc_path(), rustix::buffer::spare_capacity(&mut names)) {
            Ok(_) => Ok(names),
            Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The value of one; none where it is gone.
    ///
    /// # Errors
    /// The system's.
    fn attribute(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        let mut value = Vec::with_capacity(LARGEST_BYTES);
        match fs::getxattr(self.proc_path(), name, rustix::buffer::spare_capacity(&mut value)) {
            Ok(_) => {
                value.shrink_to_fit();
                Ok(Some(value))
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets one, whether it is there or not.
    ///
    /// # Errors
    /// The system's.
    fn set_attribute(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        fs::setxattr(self.proc_path(), name, value, XattrFlags::empty())
    }

    /// Removes one, which may be gone already.
    ///
    /// # Errors
    /// The system's.
    fn remove_attribute(&self, name: &[u8]) -> Result<(), Errno> {
        match fs::removexattr(self.proc_path(), name) {
            Err(Errno::NODATA) => Ok(()),
            result => result,
        }
    }
}

impl Handle for Held {
    fn proc_path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }

    fn info(&self) -> Result<Info, Errno> {
        info_of(&self.0)
    }

    fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        fs::chownat(&self.0, c"", uid, gid, AtFlags::EMPTY_PATH)
    }

    fn set_mode(&self, mode: u16) -> Result<(), Errno> {
        fs::chmodat(fs::CWD, self.proc_path(), Mode::from_raw_mode(u32::from(mode)), AtFlags::empty())
    }

    fn set_mtime(&self, mtime: Timestamp) -> Result<(), Errno> {
        fs::utimensat(&self.0, c"", &times(mtime), AtFlags::EMPTY_PATH)
    }
}

impl Handle for File {
    fn proc_path(&self) -> String {
        format!("/proc/self/fd/{}", self.as_raw_fd())
    }

    fn info(&self) -> Result<Info, Errno> {
        info_of(self)
    }

    fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        fs::fchown(self, uid.map(Uid::from_raw), gid.map(Gid::from_raw))
    }

    fn set_mode(&self, mode: u16) -> Result<(), Errno> {
        fs::fchmod(self, Mode::from_raw_mode(u32::from(mode)))
    }

    fn set_mtime(&self, mtime: Timestamp) -> Result<(), Errno> {
        fs::futimens(self, &times(mtime))
    }
}

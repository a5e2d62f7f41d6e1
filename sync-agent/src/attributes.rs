//! Extended attributes: which of them an end reads and sets, reading them, and making an entry's what they are to be.
//!
//! As rsync has it, root takes every name but the system's own, everybody else those of users. An end takes of what the
//! other one tells only what it may set itself, so a difference in rights is not a difference between trees.

use crate::tree::Handle;
use protocol::attributes::{Attributes, AttributesError};
use protocol::options::Preserve;
use rustix::io::Errno;
use std::sync::Arc;

/// Which names this end takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    xattrs: bool,
    is_root: bool,
}

/// Why an entry's attributes can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadError {
    Errno(Errno),
    TooMany,
}

impl Taken {
    /// Those that `preserve` asks for and this process may set; none where it asks for none.
    pub(crate) fn new(preserve: &Preserve) -> Option<Taken> {
        let is_root = rustix::process::geteuid().is_root();
        preserve.xattrs.then_some(Taken { xattrs: preserve.xattrs, is_root })
    }

    pub(crate) fn is_root(self) -> bool {
        self.is_root
    }

    fn takes(self, name: &[u8]) -> bool {
        let is_users = name.starts_with(b"user.");
        self.xattrs && (is_users || self.is_root && !name.starts_with(b"system.")) && !is_rsyncs(name)
    }

    /// What this end takes of a set.
    pub(crate) fn of(self, all: &Arc<Attributes>) -> Arc<Attributes> {
        if all.iter().all(|(name, _)| self.takes(name)) {
            return Arc::clone(all);
        }
        Arc::new(all.only(|name| self.takes(name)))
    }

    /// An entry's.
    pub(crate) fn read(self, entry: &impl Handle) -> Result<Arc<Attributes>, ReadError> {
        let names = entry.attribute_names().map_err(ReadError::Errno)?;
        let mut all = Vec::new();
        for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty() && self.takes(name)) {
            if let Some(value) = entry.attribute(name).map_err(ReadError::Errno)? {
                all.push((name.to_vec(), value));
            }
        }
        let set = Attributes::new(all).map_err(|error| match error {
            AttributesError::TooLarge => ReadError::TooMany,
            AttributesError::Name => ReadError::Errno(Errno::INVAL),
        })?;
        Ok(Arc::new(set))
    }

    /// Makes an entry's what they are to be. They are read anew: a change of owner, or of content, has dropped some.
    pub(crate) fn set(self, entry: &impl Handle, wanted: &Attributes) -> Result<(), Errno> {
        let there = match self.read(entry) {
            Ok(there) => there,
            Err(ReadError::Errno(error)) => return Err(error),
            Err(ReadError::TooMany) => return Err(Errno::TOOBIG),
        };
        for (name, _) in there.iter().filter(|(name, _)| wanted.value(name).is_none()) {
            entry.remove_attribute(name)?;
        }
        for (name, value) in wanted.iter().filter(|(name, value)| there.value(name) != Some(value)) {
            entry.set_attribute(name, value)?;
        }
        Ok(())
    }
}

/// What rsync's `--fake-super` keeps in attributes is about the entry, not of it.
fn is_rsyncs(name: &[u8]) -> bool {
    name.starts_with(b"user.rsync.%") || name.starts_with(b"rsync.%")
}

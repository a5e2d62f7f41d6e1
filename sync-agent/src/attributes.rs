//! Extended attributes: which of them an end reads and sets, reading them, and making an entry's what they are to be.
//!
//! As rsync has it, root takes every name but the system's own, everybody else those of users. An end takes of what the
//! other one tells only what it may set itself, so a difference in rights is not a difference between trees.

use crate::owners::Owners;
use crate::stored;
use crate::tree::Handle;
use protocol::attributes::{Attributes, AttributesError, is_acl};
use protocol::options::Preserve;
use protocol::ownership::Privilege;
use rustix::io::Errno;
use std::borrow::Cow;
use std::sync::Arc;

pub(crate) mod acl;

/// Which names this end takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    xattrs: bool,
    acls: bool,
    reach: Reach,
    is_root: bool,
}

/// How far an end's attributes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Those of users.
    Users,
    /// All but the system's own.
    All,
    /// All of these, as rsync's `--fake-super` keeps them: those that are not of users under names of users.
    Stored,
}

/// Why an entry's attributes can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadError {
    Errno(Errno),
    TooMany,
}

impl Taken {
    /// Those that `preserve` asks for and this process may set; none where it asks for none.
    pub(crate) fn new(preserve: &Preserve, privilege: Privilege) -> Option<Taken> {
        let is_root = rustix::process::geteuid().is_root();
        let reach = match privilege {
            Privilege::Stored => Reach::Stored,
            Privilege::Claimed => Reach::All,
            Privilege::OwnUsers if is_root => Reach::All,
            Privilege::OwnUsers | Privilege::Waived => Reach::Users,
        };
        let (xattrs, acls) = (preserve.xattrs, preserve.acls);
        (xattrs || acls).then_some(Taken { xattrs, acls, reach, is_root })
    }

    pub(crate) fn is_root(self) -> bool {
        self.is_root
    }

    fn takes(self, name: &[u8]) -> bool {
        if is_acl(name) {
            return self.acls;
        }
        let is_in_reach = match self.reach {
            Reach::Users => name.starts_with(b"user."),
            Reach::All | Reach::Stored => !name.starts_with(b"system."),
        };
        self.xattrs && is_in_reach && !is_rsyncs(name)
    }

    /// What the source's set is to be here, for an entry of this mode: what this end takes of it, and whom its ACLs name by
    /// the numbers of this machine.
    pub(crate) fn here(self, all: &Arc<Attributes>, mode: u16, owners: &Owners<'_>) -> Arc<Attributes> {
        if all.iter().all(|(name, _)| self.takes(name) && !is_acl(name)) {
            return Arc::clone(all);
        }
        let mut here = all.only(|name| self.takes(name));
        for (name, acl) in all.iter().filter(|(name, _)| is_acl(name)) {
            let acl = acl::mapped(acl, |who| owners.named(who));
            here.replace(name, if name == ACCESS_ACL { acl::with_mode(&acl, mode) } else { acl });
        }
        Arc::new(here)
    }

    /// An entry's.
    pub(crate) fn read(self, entry: &impl Handle) -> Result<Arc<Attributes>, ReadError> {
        let names = entry.attribute_names().map_err(ReadError::Errno)?;
        let mut all = Vec::new();
        for stored in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let name = self.shown(stored);
            if !self.takes(name) {
                continue;
            }
            let Some(mut value) = entry.attribute(stored).map_err(ReadError::Errno)? else { continue };
            if is_acl(name) {
                value = self.shown_acl(name, value, entry)?;
                if name == ACCESS_ACL && acl::is_mode_alone(&value) {
                    continue;
                }
            }
            all.push((name.to_vec(), value));
        }
        let set = Attributes::new(all).map_err(|error| match error {
            AttributesError::TooLarge => ReadError::TooMany,
            AttributesError::Name => ReadError::Errno(Errno::INVAL),
        })?;
        Ok(Arc::new(set))
    }

    /// Makes an entry's what they are to be; whether that may have changed its mode. They are read anew: a change of owner,
    /// or of content, has dropped some.
    pub(crate) fn set(self, entry: &impl Handle, wanted: &Attributes) -> Result<bool, Errno> {
        let there = match self.read(entry) {
            Ok(there) => there,
            Err(ReadError::Errno(error)) => return Err(error),
            Err(ReadError::TooMany) => return Err(Errno::TOOBIG),
        };
        for (name, _) in there.iter().filter(|(name, _)| wanted.value(name).is_none()) {
            entry.remove_attribute(&self.stored(name))?;
        }
        for (name, value) in wanted.iter().filter(|(name, value)| there.value(name) != Some(value)) {
            if self.reach == Reach::Stored && is_acl(name) {
                let value = acl::stored(value, acl_mode(name, entry)?).ok_or(Errno::INVAL)?;
                entry.set_attribute(&self.stored(name), &value)?;
            } else {
                entry.set_attribute(&self.stored(name), value)?;
            }
        }
        Ok(self.acls && !there.agree(wanted, is_acl))
    }

    /// The name of what is kept under `stored`.
    fn shown(self, stored: &[u8]) -> &[u8] {
        match (self.reach, stored.strip_prefix(STORED)) {
            (Reach::Stored, Some(b"%aacl")) => ACCESS_ACL,
            (Reach::Stored, Some(b"%dacl")) => DEFAULT_ACL,
            (Reach::Stored, Some(name)) if is_disguised(name) => name,
            // An ACL of the file itself, which only stands for the entry, is not the entry's.
            (Reach::Stored, None) if is_acl(stored) => NO_NAME,
            _ => stored,
        }
    }

    /// The name that `name` is kept under.
    fn stored(self, name: &[u8]) -> Cow<'_, [u8]> {
        match (self.reach, name) {
            (Reach::Stored, ACCESS_ACL) => [STORED, b"%aacl"].concat().into(),
            (Reach::Stored, DEFAULT_ACL) => [STORED, b"%dacl"].concat().into(),
            (Reach::Stored, name) if !name.starts_with(b"user.") => [STORED, name].concat().into(),
            _ => name.into(),
        }
    }

    fn shown_acl(self, name: &[u8], value: Vec<u8>, entry: &impl Handle) -> Result<Vec<u8>, ReadError> {
        if self.reach != Reach::Stored {
            return Ok(acl::sorted(value));
        }
        let mode = acl_mode(name, entry).map_err(ReadError::Errno)?;
        acl::unstored(&value, mode).ok_or(ReadError::Errno(Errno::INVAL))
    }
}

/// Whether this is what an end keeps under a name of users: not what is one of users, nor what is the system's, whoever put it
/// there.
fn is_disguised(name: &[u8]) -> bool {
    let is_other = |start: &[u8]| name.starts_with(start);
    !(name.is_empty() || is_other(b"%") || is_other(b"user.") || is_other(b"system."))
}

/// The mode that an ACL goes with; none of a default one.
fn acl_mode(name: &[u8], entry: &impl Handle) -> Result<Option<u16>, Errno> {
    if name == ACCESS_ACL { stored::mode(entry).map(Some) } else { Ok(None) }
}

const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
/// Before what `--fake-super` keeps.
const STORED: &[u8] = b"user.rsync.";
/// What nobody takes.
const NO_NAME: &[u8] = b"system.";

/// What rsync's `--fake-super` keeps in attributes is about the entry, not of it.
fn is_rsyncs(name: &[u8]) -> bool {
    name.starts_with(b"user.rsync.%") || name.starts_with(b"rsync.%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_of_users_are_kept_under_names_that_are() {
        let taken = Taken { xattrs: true, acls: true, reach: Reach::Stored, is_root: false };
        for (stored, name) in [
            (&b"user.a"[..], &b"user.a"[..]),
            (b"user.rsync.trusted.t", b"trusted.t"),
            (b"user.rsync.%aacl", ACCESS_ACL),
            (b"user.rsync.%dacl", DEFAULT_ACL),
        ] {
            assert_eq!((taken.shown(stored), &*taken.stored(name)), (name, stored));
            assert!(taken.takes(name));
        }
        for own in [&b"user.rsync."[..], b"user.rsync.user.a", b"user.rsync.system.posix_acl_access"] {
            assert_eq!(taken.shown(own), own);
        }
        for other in [&b"user.rsync.%stat"[..], ACCESS_ACL] {
            assert!(!taken.takes(taken.shown(other)));
        }
    }
}

//! What an entry has of the directory that it is made in: its default ACL, and its group where it has the set-group-ID bit.
//!
//! The kernel gives that to what is made there. What is made in staging and gets its name by a rename has to be given it,
//! and must have nothing of staging's own surroundings: who may read it would be decided by another directory.
//!
//! Called by the committer, before the rename.

use crate::metadata::{MetadataError, Wanted};
use crate::tree::{Dir, Handle};
use protocol::stats::Operation;
use rustix::io::Errno;

pub(crate) const SET_GROUP_ID: u16 = 0o2000;
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";

/// What entries of one directory inherit.
#[derive(Debug)]
pub(crate) struct Inherited {
    acl: Option<Vec<u8>>,
    gid: Option<u32>,
}

/// Where an entry's permission bits come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permissions {
    /// The source's, or those of what was there: they stay.
    Decided,
    /// Nobody said: the directory's default ACL limits them, as the umask does elsewhere.
    Fresh,
}

impl Inherited {
    /// Of a directory, which is to have `mode` at the end, if that is set; none where that is nothing. With `--acls` each entry
    /// has the source's ACL, whatever the directory's.
    pub(crate) fn of(dir: &Dir, mode: Option<u16>, are_acls_kept: bool) -> Result<Option<Inherited>, Errno> {
        let info = dir.own_info()?;
        let gid = (mode.unwrap_or(info.raw_mode) & SET_GROUP_ID != 0).then_some(info.gid);
        let acl = if are_acls_kept { None } else { default_acl(dir)? };
        Ok((gid.is_some() || acl.is_some()).then_some(Inherited { acl, gid }))
    }

    /// The mode of a new directory whose permission bits nobody said, as the umask leaves it.
    pub(crate) fn directory_mode(&self, mode: u16) -> u16 {
        let set_group_id = if self.gid.is_some() { SET_GROUP_ID } else { 0 };
        mode & self.acl.as_deref().map_or(0o7777, allowed_by) | set_group_id
    }

    /// Gives it to an entry, as far as nothing else is wanted of that.
    pub(crate) fn give(
        &self,
        entry: &impl Handle,
        wanted: &Wanted,
        permissions: Permissions,
    ) -> Result<(), MetadataError> {
        let info = entry.info().map_err(|error| (Operation::Stat, error))?;
        let gid = self.gid.filter(|&gid| wanted.metadata.leaves_group() && gid != info.gid);
        if gid.is_some() {
            entry.set_owner(None, gid).map_err(|error| (Operation::SetOwner, error))?;
        }
        let acl = self.acl.as_ref().filter(|_| !info.is_link());
        if let Some(acl) = acl {
            entry.set_attribute(ACCESS_ACL, acl).map_err(|error| (Operation::SetAttributes, error))?;
        }
        if (gid.is_some() || acl.is_some()) && !info.is_link() {
            // Both may have changed it.
            let mode = match (permissions, acl) {
                (Permissions::Fresh, Some(acl)) => info.raw_mode & 0o7777 & allowed_by(acl),
                _ => info.raw_mode & 0o7777,
            };
            entry.set_mode(mode).map_err(|error| (Operation::SetMode, error))?;
        }
        Ok(())
    }
}

/// Permission bits that an ACL lets its classes have: of the group's, what the mask says.
fn allowed_by(acl: &[u8]) -> u16 {
    let (mut owner, mut group, mut mask, mut others) = (0o7, 0o7, None, 0o7);
    for entry in acl.get(4..).unwrap_or_default().chunks_exact(8) {
        let (tag, bits) =
            (u16::from_le_bytes([entry[0], entry[1]]), u16::from_le_bytes([entry[2], entry[3]]) & 0o7);
        match tag {
            0x01 => owner = bits,
            0x04 => group = bits,
            0x10 => mask = Some(bits),
            0x20 => others = bits,
            _ => {}
        }
    }
    0o7000 | owner << 6 | mask.unwrap_or(group) << 3 | others
}

fn default_acl(dir: &Dir) -> Result<Option<Vec<u8>>, Errno> {
    match dir.attribute(DEFAULT_ACL) {
        Err(Errno::OPNOTSUPP) => Ok(None),
        result => result,
    }
}

/// Takes from a directory that was just made what it has of the one above it.
pub(crate) fn take_away(dir: &impl Handle) -> Result<(), Errno> {
    for name in [DEFAULT_ACL, ACCESS_ACL] {
        match dir.remove_attribute(name) {
            Err(Errno::OPNOTSUPP) => return dir.set_mode(0o700),
            result => result?,
        }
    }
    dir.set_mode(0o700)
}

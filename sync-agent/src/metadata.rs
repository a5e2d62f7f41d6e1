//! What an entry's metadata is to become at the destination, and setting it.
//!
//! Always in the order owner, extended attributes, mode, time: setting the owner clears set-id bits and capabilities,
//! attributes may need a mode of their own, and anything may change the time. Always through a handle.

use crate::attributes::Taken;
use crate::inherited::{Inherited, SET_GROUP_ID};
use crate::owners::{Owners, Ownership};
use crate::stored::{self, KindBits, Stat, StoredError};
use crate::tree::{Dir, Handle, Info};
use protocol::attributes::Attributes;
use protocol::entry::{Entry, Timestamp};
use protocol::options::{ModeChange, SyncOptions};
use protocol::ownership::Privilege;
use protocol::stats::Operation;
use rustix::io::Errno;
use std::sync::Arc;

/// A failed step.
pub(crate) type MetadataError = (Operation, Errno);

/// What one entry is to become.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The entry as it should be here: for comparison with what is.
    pub(crate) entry: Entry,
    /// What is set of it.
    pub(crate) metadata: Metadata,
}

/// The metadata that one entry is to have; what is `None` stays as it is. Small: a directory's is remembered until
/// all of its content is there.
#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    owner: Option<u32>,
    group: Option<u32>,
    mode: Option<u16>,
    mtime: Option<Timestamp>,
    atime: Option<Timestamp>,
    attributes: Option<(Taken, Arc<Attributes>)>,
    /// Owner, group, mode and kind are kept in an attribute.
    stored: Option<KindBits>,
    /// It is a directory that this run made in one that gives nothing on: neither does it, so that nobody has to look.
    gives_nothing: bool,
}

/// Translates the source's metadata for this machine.
#[derive(Debug)]
pub(crate) struct Translation<'a> {
    pub(crate) options: &'a SyncOptions,
    pub(crate) ownership: Ownership,
    pub(crate) umask: u16,
    /// Which extended attributes are set.
    pub(crate) taken: Option<Taken>,
}

impl Translation<'_> {
    /// What `entry` of the source is to become where `existing` stands now.
    pub(crate) fn wanted(
        &self,
        mut entry: Entry,
        existing: Option<&Entry>,
        owners: &mut Owners<'_>,
    ) -> Wanted {
        let is_dir = entry.is_dir();
        // A link has no mode to change, also where one is kept.
        if !is_link(&entry) {
            let changed = |mode, change: &ModeChange| change.apply(mode, is_dir);
            entry.mode = self.options.chmod.iter().fold(entry.mode, changed);
        }
        let owner = owners.user(entry.uid);
        let group = owners.group(entry.gid);
        let replaced = existing.filter(|there| there.is_dir() == is_dir && is_link(there) == is_link(&entry));
        let mode = if self.options.preserve.perms {
            entry.mode
        } else {
            let fresh = entry.mode & 0o777 & !self.umask;
            replaced.map_or(fresh, |there| self.kept_mode(&entry, there))
        };
        entry.mode = mode;
        if let Some(there) = existing {
            entry.uid = owner.unwrap_or(there.uid);
            entry.gid = group.unwrap_or(there.gid);
        }
        let mtime = self.options.preserve.keeps_time_of(&entry.kind).then_some(entry.mtime);
        let atime = entry.atime();
        let attributes =
            self.taken.and_then(|taken| Some((taken, taken.here(entry.attributes()?, mode, owners))));
        entry.set_attributes(attributes.as_ref().map(|(_, attributes)| Arc::clone(attributes)));
        let stored = self.stores().then(|| KindBits::of(&entry.kind));
        let mode = (stored.is_some() || !is_link(&entry)).then_some(mode);
        let metadata =
            Metadata { owner, group, mode, mtime, atime, attributes, stored, gives_nothing: false };
        Wanted { entry, metadata }
    }

    /// Whether owners, modes and kinds are kept in attributes.
    pub(crate) fn stores(&self) -> bool {
        self.options.privileges.destination == Privilege::Stored
    }

    /// Makes `entry`, which is what the file system says of `name` in `dir`, what it stands for. What is kept badly counts
    /// for nothing, and is kept anew.
    pub(crate) fn show(&self, dir: &Dir, name: &[u8], info: &Info, entry: &mut Entry) -> Result<(), Errno> {
        if !self.stores() {
            return Ok(());
        }
        match stored::show(dir, name, info, entry) {
            Ok(()) | Err(StoredError::Form) => Ok(()),
            Err(StoredError::Errno(error)) => Err(error),
        }
    }

    /// The mode of what is there, where permission bits are not kept; with `--executability` whether it may be executed
    /// is the source's all the same.
    fn kept_mode(&self, entry: &Entry, there: &Entry) -> u16 {
        let mode = there.mode;
        if !self.options.preserve.executability || !entry.is_file() {
            return mode;
        }
        match (entry.mode & 0o111, mode & 0o111) {
            (0, _) => mode & !0o111,
            // Who may read it may execute it.
            (_, 0) => mode | (mode & 0o444) >> 2,
            _ => mode,
        }
    }
}

fn is_link(entry: &Entry) -> bool {
    matches!(entry.kind, protocol::entry::Kind::Symlink { .. })
}

impl Wanted {
    /// It is a new directory, of which permission bits are not kept.
    pub(crate) fn inherit(&mut self, inherited: &Inherited) {
        self.entry.mode = inherited.directory_mode(self.entry.mode);
        self.metadata.mode = self.metadata.mode.map(|mode| inherited.directory_mode(mode));
    }

    /// The same with another modification time, if times are kept.
    pub(crate) fn at(&self, mtime: Timestamp) -> Wanted {
        let mut wanted = self.clone();
        wanted.entry.mtime = mtime;
        wanted.metadata.mtime = wanted.metadata.mtime.map(|_| mtime);
        wanted
    }
}

impl Metadata {
    /// All of what an entry has.
    pub(crate) fn of(info: &Info) -> Metadata {
        Metadata::exactly(info.uid, info.gid, info.raw_mode & 0o7777, info.mtime)
    }

    /// All of it, as given.
    pub(crate) fn exactly(uid: u32, gid: u32, mode: u16, mtime: Timestamp) -> Metadata {
        Metadata {
            owner: Some(uid),
            group: Some(gid),
            mode: Some(mode),
            mtime: Some(mtime),
            atime: None,
            attributes: None,
            stored: None,
            gives_nothing: false,
        }
    }

    /// The permission and set-id bits, if they are set.
    pub(crate) fn mode(&self) -> Option<u16> {
        self.mode
    }

    /// Of a directory: it was made in one that gives nothing on.
    pub(crate) fn inherits_nothing(&mut self) {
        self.gives_nothing = true;
    }

    /// Whether a directory is known to give nothing on, unless it is to have the set-group-ID bit itself.
    pub(crate) fn gives_nothing(&self) -> bool {
        self.gives_nothing && self.mode.is_none_or(|mode| mode & SET_GROUP_ID == 0)
    }

    /// Whether the group stays what it is.
    pub(crate) fn leaves_group(&self) -> bool {
        self.group.is_none()
    }

    /// Sets the access time alone.
    pub(crate) fn apply_atime(&self, entry: &impl Handle) -> Result<(), Errno> {
        if self.atime.is_some() { entry.set_times(None, self.atime) } else { Ok(()) }
    }

    /// Sets it.
    pub(crate) fn apply(&self, entry: &impl Handle) -> Result<(), MetadataError> {
        let info = entry.info().map_err(|error| (Operation::Stat, error))?;
        let plan = self.plan(&info);
        if let Some(kind) = self.stored {
            self.store(kind, entry, &info)?;
            return plan.set_times(entry);
        }
        if plan.owner.is_some() || plan.group.is_some() {
            entry.set_owner(plan.owner, plan.group).map_err(|error| (Operation::SetOwner, error))?;
        }
        let mode = match &self.attributes {
            Some((taken, attributes)) => {
                let locked = !taken.is_root() && !info.is_link() && info.raw_mode & 0o200 == 0;
                if locked {
                    // Only who may write to a file may set its attributes.
                    let mode = info.raw_mode & 0o7777 | 0o200;
                    entry.set_mode(mode).map_err(|error| (Operation::SetMode, error))?;
                }
                let set = taken.set(entry, attributes).map_err(|error| (Operation::SetAttributes, error))?;
                if locked || set { self.mode.or(Some(info.raw_mode & 0o7777)) } else { plan.mode }
            }
            None => plan.mode,
        };
        if let Some(mode) = mode.filter(|_| !info.is_link()) {
            entry.set_mode(mode).map_err(|error| (Operation::SetMode, error))?;
        }
        plan.set_times(entry)
    }

    /// Keeps owner, group, mode and kind in an attribute: those that are not to be set stay what is kept, root's at first.
    fn store(&self, kind: KindBits, entry: &impl Handle, info: &Info) -> Result<(), MetadataError> {
        let failed = |error| (Operation::SetAttributes, error);
        let there = match stored::read(entry, info) {
            Ok(there) => there,
            Err(StoredError::Form) => None,
            Err(StoredError::Errno(error)) => return Err(failed(error)),
        };
        let uid = self.owner.or(there.map(|there| there.uid)).unwrap_or(0);
        let gid = self.group.or(there.map(|there| there.gid)).unwrap_or(0);
        let stat = Stat::new(kind, self.mode.unwrap_or(info.raw_mode & 0o7777), uid, gid);
        let mode = stat.outer_mode(info.is_dir());
        if mode != info.raw_mode & 0o7777 {
            entry.set_mode(mode).map_err(|error| (Operation::SetMode, error))?;
        }
        stat.keep(entry, info, there).map_err(failed)?;
        if let Some((taken, attributes)) = &self.attributes {
            taken.set(entry, attributes).map_err(failed)?;
        }
        Ok(())
    }

    /// What of it is not so already.
    fn plan(&self, info: &Info) -> Plan {
        let owner = self.owner.filter(|&uid| uid != info.uid);
        let group = self.group.filter(|&gid| gid != info.gid);
        let owner_changes = owner.is_some() || group.is_some();
        let mode =
            self.mode.filter(|&mode| mode != info.raw_mode & 0o7777 || (owner_changes && mode > 0o777));
        let mtime = self.mtime.filter(|&mtime| mtime != info.mtime);
        let atime = self.atime.filter(|&atime| atime != info.atime);
        Plan { owner, group, mode, mtime, atime }
    }
}

struct Plan {
    owner: Option<u32>,
    group: Option<u32>,
    mode: Option<u16>,
    mtime: Option<Timestamp>,
    atime: Option<Timestamp>,
}

impl Plan {
    fn set_times(&self, entry: &impl Handle) -> Result<(), MetadataError> {
        if self.mtime.is_none() && self.atime.is_none() {
            return Ok(());
        }
        entry.set_times(self.mtime, self.atime).map_err(|error| (Operation::SetTimes, error))
    }
}

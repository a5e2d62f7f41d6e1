//! Holding a run to its plan (`--apply-plan`): what changed at the destination since the plan was made stays as it is.
//!
//! What is there counts in the mark of each change. It is asked twice: when the change is decided, and again just before
//! it is made, for hours may lie between. What the plan had nothing for gets its name only if nothing has that. The
//! operator hears of what was left from the client, which knows what of the plan was not done.
//!
//! Without a plan nothing here asks the file system for anything. Who merges, commits and deletes calls it.

use crate::receiver::Target;
use crate::run::Run;
use crate::tree::{Dir, Info};
use crate::workers::lock;
use protocol::itemize::Item;
use rustix::io::Errno;
use std::collections::HashMap;
use std::sync::Mutex;

type Inode = ((u32, u32), u64);

/// Inodes that had several names when the run came to them, by device and number. Their ctime does not count: it changes
/// when the run takes one of the names away. Where the run sets metadata through one name, what was before still counts for
/// the others.
#[derive(Debug, Default)]
pub(crate) struct Several(Mutex<HashMap<Inode, Option<Set>>>);

/// What the run made of an inode's metadata, and what the plan had of it.
#[derive(Debug, Clone, Copy)]
struct Set {
    now: u64,
    was: u64,
}

impl Several {
    /// Whether it is such an inode, and what was set of it.
    fn of(&self, info: &Info) -> Option<Option<Set>> {
        let inode = (info.device, info.inode);
        let mut known = lock(&self.0);
        if info.links > 1 { Some(*known.entry(inode).or_default()) } else { known.get(&inode).copied() }
    }
}

/// How what is staged may take its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taking {
    /// From whatever has it.
    Over,
    /// If nothing has it.
    Free,
    /// Not at all: the plan is about something else.
    Never,
}

impl Run<'_> {
    /// What is there, for a plan. Of a directory only that it is one: its time changes with what is done in it.
    pub(crate) fn was(&self, existing: Option<&Info>) -> u64 {
        let Some(info) = existing.filter(|_| self.options.dry_run || self.options.plan.is_some()) else {
            return 0;
        };
        let several = if info.is_dir() { None } else { self.several.of(info) };
        let now = shown(info, several.is_none());
        several.flatten().filter(|set| set.now == now).map_or(now, |set| set.was)
    }

    /// The run set the metadata of what was `existing`, and it is `now` what it is: for its other names, if it has any.
    pub(crate) fn has_set(&self, existing: &Info, now: impl FnOnce() -> Result<Info, Errno>) {
        if self.options.plan.is_none() || existing.links < 2 {
            return;
        }
        let was = self.was(Some(existing));
        if let Ok(info) = now() {
            let set = Set { now: shown(&info, false), was };
            lock(&self.several.0).insert((info.device, info.inode), Some(set));
        }
    }

    /// Whether the run is held to a plan that has not this change.
    pub(crate) fn is_unplanned(&self, change: impl FnOnce() -> Item) -> bool {
        self.options.plan.as_ref().is_some_and(|plan| !plan.has(&change()))
    }

    /// The same of what was decided for `target`.
    pub(crate) fn is_unplanned_for(&self, target: &Target) -> bool {
        self.is_unplanned(|| self.told(target))
    }

    /// Whether the run is held to a plan, and what it was decided by is no longer what is there.
    pub(crate) fn is_overtaken(&self, target: &Target, now: impl FnOnce() -> Result<Info, Errno>) -> bool {
        let is_same = |now: Info| self.was(Some(&now)) == self.was(target.existing.as_ref());
        self.options.plan.is_some() && !now().is_ok_and(is_same)
    }

    /// How `target` may take its name in `dir`.
    pub(crate) fn taking(&self, dir: &Dir, target: &Target) -> Result<Taking, Errno> {
        if self.options.plan.is_none() {
            return Ok(Taking::Over);
        }
        if self.is_silent(target) {
            return Ok(match target.existing {
                None => Taking::Free,
                Some(_) => {
                    self.monitor
                        .note(&format!("{} stays as it is: the plan has no line of it", target.path()));
                    Taking::Never
                }
            });
        }
        if self.is_unplanned_for(target) {
            return Ok(Taking::Never);
        }
        match dir.info(target.name().as_bytes()) {
            Ok(now) if self.is_overtaken(target, || Ok(now)) => Ok(Taking::Never),
            // It goes first, and then nothing may have come instead.
            Ok(now) if now.is_dir() => Ok(Taking::Free),
            Ok(_) => Ok(Taking::Over),
            Err(Errno::NOENT) if target.existing.is_none() => Ok(Taking::Free),
            Err(Errno::NOENT) => Ok(Taking::Never),
            Err(error) => Err(error),
        }
    }

    /// Whether nothing is told of it: all of it is in an alternate base.
    fn is_silent(&self, target: &Target) -> bool {
        target.change.is_none() && target.first.is_none()
    }
}

/// A hash of what a plan counts of an entry, never 0.
fn shown(info: &Info, with_ctime: bool) -> u64 {
    let mut hasher = blake3::Hasher::new();
    if info.is_dir() {
        hasher.update(b"directory");
    } else {
        hasher
            .update(&info.raw_mode.to_le_bytes())
            .update(&info.uid.to_le_bytes())
            .update(&info.gid.to_le_bytes())
            .update(&info.size_bytes.to_le_bytes())
            .update(&info.mtime.secs.to_le_bytes())
            .update(&info.mtime.nanos.to_le_bytes())
            .update(&info.inode.to_le_bytes());
    }
    if with_ctime && !info.is_dir() {
        // Who sets the mtime back cannot set this back.
        hasher.update(&info.ctime.secs.to_le_bytes()).update(&info.ctime.nanos.to_le_bytes());
    }
    hasher.finalize().as_bytes().first_chunk().map_or(1, |head| u64::from_le_bytes(*head).max(1))
}

//! `--remove-source-files`: what is on disk at the destination goes from the source.
//!
//! The destination tells the source of an entry only after a sync of everything that it wrote, the entry's name
//! included. The source removes it only if it still is what was listed; whatever was done to it meanwhile, it stays.
//! Until an entry's fate is known its piece of the listing is not released, so that the source knows what it was;
//! where names are given late (hard links, `--delay-updates`) the source remembers all that it listed instead.

use crate::commit::Commit;
use crate::error::SessionError;
use crate::monitor::errno;
use crate::receiver::Target;
use crate::run::Run;
use crate::scan::{Listed, ListedPiece};
use crate::sources::Sources;
use crate::tree::Info;
use crate::workers::lock;
use protocol::message::{Identity, Message, Removal};
use protocol::options::SyncOptions;
use protocol::stats::{Cause, Operation, Problem, Side};
use rustix::io::Errno;
use std::sync::Mutex;

/// What is at the destination, but perhaps not yet on its disk.
#[derive(Debug, Default)]
pub(crate) struct Removals(Mutex<Vec<Removal>>);

/// So many are worth a sync: far less than the window has, or it would never open again.
const WORTH_A_SYNC: usize = 2048;
/// Removals in one frame: far below its limit.
const REMOVALS_PER_FRAME: usize = 4096;

impl Run<'_> {
    /// The destination, or a base, has what the source has, and had it before; to be called while the entry's piece is not
    /// resolved.
    pub(crate) fn is_there(&self, list: u32, index: u32, info: Option<&Info>) {
        if self.holds_pieces() {
            lock(&self.session).will_remove(list);
        }
        if self.options.removes_source() {
            self.may_go(Removal { list, index, identity: info.map(identity) });
        }
    }

    /// As [`Run::is_there`], of the file that it was compared with.
    pub(crate) fn stays_there(&self, target: &Target) {
        let of_base = target.alternate.as_ref().map(|alternate| &alternate.info);
        self.is_there(target.list, target.index, target.existing.as_ref().or(of_base));
    }

    /// The destination will have these once they are committed; to be called while their pieces are not resolved.
    pub(crate) fn will_be_there<'t>(&self, targets: impl Iterator<Item = &'t Target>) {
        if self.holds_pieces() {
            let mut session = lock(&self.session);
            targets.for_each(|target| session.will_remove(target.list));
        }
    }

    /// What was to be committed is in place.
    pub(crate) fn came(&self, target: &Target) {
        if self.options.removes_source() {
            self.may_go(Removal { list: target.list, index: target.index, identity: None });
        }
    }

    /// What was to be committed is not in place.
    pub(crate) fn did_not_come(&self, target: &Target) {
        if self.holds_pieces() {
            lock(&self.session).stays(target.list);
        }
    }

    /// Whether a piece is kept until the fate of its entries is known: the source would forget them.
    fn holds_pieces(&self) -> bool {
        self.options.removes_source() && !self.options.remembers_listing()
    }

    fn may_go(&self, removal: Removal) {
        let mut removals = lock(&self.removals.0);
        removals.push(removal);
        if removals.len().is_multiple_of(WORTH_A_SYNC) {
            // A committer that has no room for it will come to it by itself.
            let _ = self.commits.try_send(Commit::Confirm);
        }
    }

    /// Makes durable what is in place, then tells the source to remove it.
    pub(crate) fn confirm_removals(&self) -> Result<(), SessionError> {
        let removals = std::mem::take(&mut *lock(&self.removals.0));
        if removals.is_empty() {
            return Ok(());
        }
        self.sync().map_err(|error| {
            SessionError::io("write the destination to disk (syncfs); the source keeps its files", error)
        })?;
        lock(&self.session).remove(removals.len());
        for removals in removals.chunks(REMOVALS_PER_FRAME) {
            self.outgoing.say(&Message::Remove(removals.to_vec()))?;
        }
        if self.holds_pieces() {
            let mut session = lock(&self.session);
            removals.iter().for_each(|removal| session.stays(removal.list));
        }
        self.advance()
    }
}

/// Removes entries of the source.
pub(crate) struct Remover<'a> {
    sources: &'a Sources,
    /// Devices were read as files (`--copy-devices`).
    reads_devices: bool,
}

impl<'a> Remover<'a> {
    pub(crate) fn new(sources: &'a Sources, options: &SyncOptions) -> Remover<'a> {
        Remover { sources, reads_devices: options.reading.devices }
    }

    /// Removes an entry that still is what was listed; one that is gone already is no problem.
    pub(crate) fn remove(
        &self,
        piece: &ListedPiece,
        Removal { index, identity: there, .. }: Removal,
    ) -> Result<(), Problem> {
        let Some(listed) = piece.entries.get(index as usize) else { return Ok(()) };
        let path = piece.directory.join(&listed.name);
        let stays = |cause| {
            let (side, operation) = (Side::Source, Operation::Remove);
            Err(Problem { side, path: path.clone(), operation, cause })
        };
        // A mount or a link of names leads from one to the other. When both were listed, nothing was removed yet.
        if there == Some(identity(&listed.info)) {
            return stays(Cause::SameFile);
        }
        match self.remove_if_same(piece, listed) {
            Ok(true) | Err(Errno::NOENT) => Ok(()),
            Ok(false) => stays(Cause::ChangedSince),
            Err(error) => Err(errno(Side::Source, &path, Operation::Remove, error)),
        }
    }

    fn remove_if_same(&self, piece: &ListedPiece, listed: &Listed) -> Result<bool, Errno> {
        if self.reads_devices && listed.info.is_device() {
            // Its content was copied, and nothing says whether that is the same still.
            return Ok(false);
        }
        let origin = &self.sources.origins[usize::from(listed.origin)];
        // What a followed link leads to is copied, but it is not this source's to lose.
        let dir = origin.dir_without_links(&piece.directory)?;
        let now = if listed.followed {
            origin.info_followed(&piece.directory.join(&listed.name))?
        } else {
            dir.info(listed.name.as_bytes())?
        };
        if !is_same(&listed.info, &now) {
            return Ok(false);
        }
        dir.remove_file(listed.name.as_bytes()).map(|()| true)
    }
}

fn identity(info: &Info) -> Identity {
    Identity { device: info.device, inode: info.inode, ctime: info.ctime }
}

/// Whether nothing was done to an entry since. The ctime of one with several names also changes when another of them
/// goes, perhaps in this very run.
fn is_same(listed: &Info, now: &Info) -> bool {
    let ctime = if listed.links > 1 { listed.ctime } else { now.ctime };
    now.raw_mode == listed.raw_mode && listed.same_content(&Info { ctime, ..*now })
}

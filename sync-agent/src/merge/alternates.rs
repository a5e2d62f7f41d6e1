//! What an alternate base, or a file of a similar name, has of what is missing here.

use super::{LONG_AGO, Merge, OwnListing};
use crate::bases::{Alternate, Neighbours};
use crate::receiver::{Target, Task};
use crate::tree::{Dir, Info};
use crate::workers::lock;
use protocol::bases::{Agreement, BaseKind, agreement, change as change_from, must_compare};
use protocol::decide::Action;
use protocol::entry::Entry;
use protocol::itemize::Change;
use std::sync::Arc;

impl Merge<'_, '_> {
    /// What the alternate bases have of an entry, the best of it first. Where a file is already, only what agrees in all is
    /// better, as rsync has it.
    pub(super) fn alternate(
        &mut self,
        listed: &Entry,
        there: Option<&Entry>,
        otherwise: Change,
    ) -> Option<Box<Alternate>> {
        let options = self.run.options;
        let exists = there.is_some_and(|there| there.kind.same_kind(&listed.kind));
        if there.is_some() && !listed.is_file() && !listed.is_dir() {
            // As with rsync, whatever is there.
            return None;
        }
        let must_compare = must_compare(listed, options);
        let leaves_out = self.run.bases.kind() == BaseKind::Compare;
        if exists && (!listed.is_file() || must_compare || self.run.bases.kind() == BaseKind::Copy) {
            return None;
        }
        let name = listed.name.as_bytes();
        let mut found = Vec::new();
        for (base, dir) in &self.own.bases {
            let Ok(info) = dir.info(name) else { continue };
            let link = if info.is_link() { dir.read_link(name).ok() } else { None };
            let Some(mut entry) = info.entry(listed.name.clone(), link.unwrap_or_default(), LONG_AGO) else {
                continue;
            };
            if self.look_closer(listed, dir, &info, &mut entry).is_err() {
                continue;
            }
            let compared = self.run.translation.wanted(listed.clone(), Some(&entry), &mut self.owners).entry;
            let Some(agrees) = agreement(&compared, &entry, options) else { continue };
            // A further name that is left out would have nothing to be a link to: names of one inode are made.
            let agrees =
                if leaves_out && listed.link().is_some() { agrees.min(Agreement::Content) } else { agrees };
            let is_itself = exists && self.own.dir.as_ref().is_some_and(|own| is_one(own, &info, name));
            if is_itself && agrees == Agreement::All {
                return None;
            }
            let change = change_from(&compared, &entry, agrees, options);
            found.push(Alternate {
                base: Some(*base),
                name: None,
                info,
                agrees,
                change,
                otherwise,
                next: None,
            });
        }
        found.retain(|alternate| !exists || alternate.agrees == Agreement::All);
        // Of those that agree as well as each other the first one stays first.
        found.sort_by_key(|alternate| std::cmp::Reverse(alternate.agrees));
        if must_compare && found.first().is_some_and(|best| best.agrees >= Agreement::Content) {
            found.retain(|alternate| alternate.agrees >= Agreement::Content);
        } else {
            found.truncate(1);
        }
        found.into_iter().rev().fold(None, |next, alternate| Some(Box::new(Alternate { next, ..alternate })))
    }

    pub(super) fn take_from_base(&mut self, agrees: Agreement, target: Target) {
        let is_left_out = agrees == Agreement::All && self.run.bases.kind() == BaseKind::Compare;
        if !target.wanted.entry.is_file() {
            if !is_left_out {
                return self.act(Action::Make, target);
            }
            return self.run.done(&target);
        }
        if agrees == Agreement::Kind {
            return self.act(Action::Transfer { has_basis: true }, target);
        }
        if target.existing.is_some_and(|info| info.is_dir()) {
            self.own.room.push(target.name().clone());
        }
        if must_compare(&target.wanted.entry, self.run.options) {
            return self.compare(target);
        }
        if !self.run.takes_from_base(&target) {
            return;
        }
        let mut session = lock(&self.run.session);
        session.hold(self.directory);
        session.reserve(self.list);
        drop(session);
        self.run.task(Task::FromBase(Arc::new(target)));
    }

    /// A file of another name that a missing one may be like.
    pub(super) fn similar(&mut self, target: &Target) -> Option<Alternate> {
        let OwnListing { neighbours, names, dir, bases, .. } = &mut *self.own;
        let look = || Neighbours::of(self.run.options.fuzzy, names, dir.as_ref(), bases);
        neighbours.get_or_insert_with(look).most_similar(&target.wanted.entry, target.change)
    }
}

/// Whether `info` is of what has that name in `dir`.
fn is_one(dir: &Dir, info: &Info, name: &[u8]) -> bool {
    dir.info(name).is_ok_and(|own| (own.device, own.inode) == (info.device, info.inode))
}

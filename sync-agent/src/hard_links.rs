//! Hard links: names of the source that share an inode share one at the destination.
//!
//! The source numbers the inodes that have several names. The first name that it lists of one is copied like any other
//! entry; every other name becomes a link to that, as soon as that has its content: already from staging, so that nobody
//! waits for a commit. Where an option may spare the first name, which then has other content than the source, the first one
//! leads that is not spared, whichever is merged first. Both ends remember only such inodes, the source only until it has seen all of their names. A
//! name whose first one is not copied is a problem of its own, and the next run's business.

use crate::commit::{Placement, Ready};
use crate::monitor::errno;
use crate::receiver::Target;
use crate::run::Run;
use crate::sink::Content;
use crate::staging::{Area, Staged};
use crate::tree::Info;
use crate::workers::lock;
use protocol::attributes::HardLink;
use protocol::entry::Entry;
use protocol::path::{Name, RelPath};
use protocol::stats::{Cause, Operation, Problem, Side};
use rustix::io::Errno;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

type Inode = ((u32, u32), u64);

/// The source's side: which listed names are of one inode.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    /// The number, and how many names are still to be seen.
    known: Mutex<HashMap<Inode, (u32, u32)>>,
    next: AtomicU32,
}

impl Numbers {
    /// What is told of an entry; nothing of one that has no other name.
    pub(crate) fn of(&self, info: &Info) -> Option<HardLink> {
        if info.is_dir() || info.links < 2 {
            return None;
        }
        let inode = (info.device, info.inode);
        let mut known = lock(&self.known);
        let Some((group, left)) = known.get_mut(&inode) else {
            let group = self.next.fetch_add(1, Ordering::Relaxed);
            known.insert(inode, (group, info.links - 1));
            return Some(HardLink { group, leads: true });
        };
        let group = *group;
        *left -= 1;
        if *left == 0 {
            known.remove(&inode);
        }
        Some(HardLink { group, leads: false })
    }
}

/// The destination's side: where the first names are.
#[derive(Debug, Default)]
pub(crate) struct Links(Mutex<HashMap<u32, Group>>);

#[derive(Debug)]
enum Group {
    /// The first name is under way; these are to be linked to it.
    Awaited(Vec<Arc<Target>>),
    There(Place),
}

/// Where the first name is.
#[derive(Debug, Clone)]
struct Place {
    /// Where it is until it has its name.
    staged: Option<(Arc<Area>, String)>,
    parent: Arc<RelPath>,
    name: Name,
    /// Its inode, if it had that name before.
    inode: Option<Inode>,
}

/// For a comparison: which group of the source has an inode of the destination; none where its names are no group there.
#[derive(Debug, Default)]
pub(crate) struct Shared(Mutex<HashMap<Inode, Option<u32>>>);

impl Shared {
    /// Whether an entry shares its inode with one that is another file at the source.
    pub(crate) fn is_wrong(&self, entry: &Entry, info: &Info) -> bool {
        if info.is_dir() || info.links < 2 {
            return false;
        }
        let group = entry.link().map(|link| link.group);
        match lock(&self.0).entry((info.device, info.inode)) {
            Slot::Vacant(slot) => {
                slot.insert(group);
                false
            }
            Slot::Occupied(known) => group.is_none() || *known.get() != group,
        }
    }
}

impl Links {
    /// Makes a name the first one of its group, where none is yet.
    pub(crate) fn take_lead(&self, link: HardLink) -> bool {
        match lock(&self.0).entry(link.group) {
            Slot::Vacant(slot) => {
                slot.insert(Group::Awaited(Vec::new()));
                true
            }
            Slot::Occupied(_) => false,
        }
    }

    /// The first name has its place: what is known of where it was staged is of no more use.
    pub(crate) fn placed(&self, target: &Target) {
        if let Some(link) = led(target)
            && let Some(Group::There(place)) = lock(&self.0).get_mut(&link.group)
        {
            place.staged = None;
        }
    }

    /// Those whose first name did not come.
    pub(crate) fn take_waiting(&self) -> Vec<Arc<Target>> {
        let groups = std::mem::take(&mut *lock(&self.0)).into_values();
        groups
            .flat_map(|group| if let Group::Awaited(waiting) = group { waiting } else { Vec::new() })
            .collect()
    }

    fn there(&self, group: u32, place: Place) -> Vec<Arc<Target>> {
        match lock(&self.0).insert(group, Group::There(place)) {
            Some(Group::Awaited(waiting)) => waiting,
            _ => Vec::new(),
        }
    }

    /// Where the first name is; none, and `target` is remembered, where it is not there yet.
    fn place_or_wait(&self, group: u32, target: &Arc<Target>) -> Option<Place> {
        match lock(&self.0).entry(group).or_insert_with(|| Group::Awaited(Vec::new())) {
            Group::There(place) => Some(place.clone()),
            Group::Awaited(waiting) => {
                waiting.push(Arc::clone(target));
                None
            }
        }
    }
}

/// The link that `target` is the first name of.
fn led(target: &Target) -> Option<HardLink> {
    target.wanted.entry.link().filter(|link| link.leads)
}

/// The first name has its content, under the name that it had before.
pub(crate) fn first_stays(run: &Run<'_>, target: &Target) {
    let inode = target.existing.map(|info| (info.device, info.inode));
    first_is(run, target, None, inode);
}

/// The first name has its content, in staging; in a dry run it would have. From a scratch directory no link leads to the
/// destination: [`first_left_scratch`] is for those.
pub(crate) fn first_is_staged(run: &Run<'_>, target: &Target, staged: Option<&Staged>) {
    if staged.is_some_and(|staged| staged.area.is_scratch()) {
        return;
    }
    first_is(run, target, staged.map(|staged| (Arc::clone(&staged.area), staged.name.clone())), None);
}

/// The committer copied the first name to a file system of the destination: what can be linked to it now, for the
/// committer to place with it. It must not wait for itself.
pub(crate) fn first_left_scratch(run: &Run<'_>, target: &Target, staged: &Staged) -> Vec<Ready> {
    let Some(HardLink { group, .. }) = led(target) else { return Vec::new() };
    let staged = Some((Arc::clone(&staged.area), staged.name.clone()));
    let place =
        Place { staged, parent: Arc::clone(&target.parent), name: target.name().clone(), inode: None };
    let waiting = run.links.there(group, place.clone());
    let ready: Vec<Ready> = waiting.iter().filter_map(|waiting| link_ready(run, waiting, &place)).collect();
    run.will_be_there(ready.iter().map(|ready| &*ready.target));
    ready
}

fn first_is(run: &Run<'_>, target: &Target, staged: Option<(Arc<Area>, String)>, inode: Option<Inode>) {
    let Some(HardLink { group, .. }) = led(target) else { return };
    let place = Place { staged, parent: Arc::clone(&target.parent), name: target.name().clone(), inode };
    for waiting in run.links.there(group, place.clone()) {
        link(run, &waiting, &place);
    }
}

/// Makes a link of an entry that is not the first of its names. Its directory is held until that is done.
pub(crate) fn follow(run: &Run<'_>, target: Target, group: u32) {
    let target = Arc::new(target);
    lock(&run.session).hold(target.directory);
    if let Some(place) = run.links.place_or_wait(group, &target) {
        link(run, &target, &place);
    }
}

/// Everything was copied: whoever still waits for a first name waits in vain.
pub(crate) fn give_up_waiting(run: &Run<'_>) {
    for target in run.links.take_waiting() {
        let (side, operation, cause) = (Side::Destination, Operation::Link, Cause::FirstNameMissing);
        run.problem(Problem { side, path: target.path(), operation, cause });
        run.let_go(target.directory);
    }
}

fn link(run: &Run<'_>, target: &Arc<Target>, place: &Place) {
    run.commit(link_ready(run, target, place).into_iter().collect());
}

/// The further name, in staging; none where there is nothing to place.
fn link_ready(run: &Run<'_>, target: &Arc<Target>, place: &Place) -> Option<Ready> {
    run.done(target);
    let inode = target.existing.map(|info| (info.device, info.inode));
    let is_linked = if inode.is_some() && inode == place.inode {
        run.stays_there(target);
        true
    } else {
        false
    };
    let target = Arc::new(Target { first: Some(place.parent.join(&place.name)), ..Target::clone(target) });
    if is_linked || run.options.dry_run {
        if !is_linked {
            run.linked(&target);
        }
        run.let_go(target.directory);
        return None;
    }
    match stage(run, &target, place) {
        Ok(staged) if is_same_inode(run, &staged, inode) => {
            // A rename between two names of one inode does nothing, and leaves both.
            staged.discard();
            run.stays_there(&target);
            run.let_go(target.directory);
            None
        }
        Ok(staged) => {
            let (how, content) = (Placement::Rename, Content::default());
            Some(Ready { target, staged, how, bytes: 0, content })
        }
        Err(error) => {
            run.problem(errno(Side::Destination, &target.path(), Operation::Link, error));
            run.let_go(target.directory);
            None
        }
    }
}

/// Whether what was linked from a base has the further name already, of an earlier run.
fn is_same_inode(run: &Run<'_>, staged: &Staged, existing: Option<Inode>) -> bool {
    let may_be = existing.is_some() && !run.bases.is_empty();
    let identity = |info: Info| (info.device, info.inode);
    may_be && staged.area.dir.info(staged.name.as_bytes()).ok().map(identity) == existing
}

/// Another name of the first one, in staging.
fn stage(run: &Run<'_>, target: &Target, place: &Place) -> Result<Staged, Errno> {
    let area = run.area(target)?;
    let staged = area.name();
    let name = staged.name.as_bytes();
    let _ = area.dir.remove_file(name);
    let from_staging = match &place.staged {
        Some((at, first)) => at.dir.link(first.as_bytes(), &area.dir, name),
        None => Err(Errno::NOENT),
    };
    match from_staging {
        // It has its name by now.
        Err(Errno::NOENT) => run.tree.dir(&place.parent)?.link(place.name.as_bytes(), &area.dir, name)?,
        result => result?,
    }
    Ok(staged)
}

//! Deletion: what the destination has and the source has not, at the end of a run.
//!
//! Everything is known before the first removal, so `--max-delete` and the guard against an empty
//! source can refuse it as a whole. What the filter protects stays, and with it the directories it is in.

use crate::commit::Ready;
use crate::merge::Extraneous;
use crate::retire::Left;
use crate::run::Run;
use crate::tree::{Dir, Handle as _, Held, Info};
use crate::workers::lock;
use protocol::entry::Kind;
use protocol::itemize::Item;
use protocol::path::{Name, RelPath};
use protocol::stats::{Exit, Operation};
use rustix::io::Errno;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Removes what is extraneous; returns why it refuses to.
pub(crate) fn delete_extraneous(run: &Run<'_>) -> Result<(), String> {
    let mut all = std::mem::take(&mut *lock(&run.extraneous));
    all.extend(missing_elsewhere(run));
    let refused = refusal(run, &all);
    for Extraneous { directory, path, names, room, missing } in all {
        if refused.is_none() {
            match run.tree.dir(&path) {
                Ok(dir) => {
                    for name in &names {
                        remove(run, &dir, &path, name);
                    }
                    for name in missing.iter().filter(|name| may_go(run, &dir, &path, name)) {
                        remove(run, &dir, &path, name);
                    }
                    for name in room.iter().filter(|name| makes_room(run, &dir, &path, name)) {
                        remove_content(run, &dir, &path, name);
                    }
                }
                Err(error) => {
                    let side = protocol::stats::Side::Destination;
                    run.problem(crate::monitor::errno(side, &path, Operation::Open, error));
                }
            }
            if let Some(directory) = directory {
                lock(&run.session).touch(directory);
            }
        }
        if let Some(directory) = directory {
            run.let_go(directory);
        }
    }
    match refused {
        None => Ok(()),
        Some(why) => {
            let mut worst = lock(&run.worst);
            *worst = worst.worst(Exit::MaxDelete);
            Err(why)
        }
    }
}

/// Counterparts of missing arguments in directories that are not in the transfer.
fn missing_elsewhere(run: &Run<'_>) -> Vec<Extraneous> {
    let mut all: Vec<Extraneous> = Vec::new();
    for (parent, name) in std::mem::take(&mut *lock(&run.missing)).iter().filter_map(RelPath::split_last) {
        match all.iter_mut().find(|known| *known.path == parent) {
            Some(known) => known.missing.push(name),
            None if run.tree.dir(&parent).is_err() => {}
            None => {
                let (path, missing) = (Arc::new(parent), vec![name]);
                all.push(Extraneous { directory: None, path, names: Vec::new(), room: Vec::new(), missing });
            }
        }
    }
    all
}

/// Whether a missing argument's counterpart goes: a directory that holds something only where deletions were asked for.
fn may_go(run: &Run<'_>, dir: &Dir, parent: &RelPath, name: &Name) -> bool {
    let holds_something = || {
        let below = dir.dir(name).and_then(|below| below.names());
        below.is_ok_and(|names| !names.is_empty())
    };
    if is_kept(run, dir, parent, name) {
        return false;
    }
    let is_dir = dir.info(name.as_bytes()).is_ok_and(|info| info.is_dir());
    if run.options.empties_directories() || !is_dir || !holds_something() {
        return true;
    }
    run.monitor.note(&format!("cannot delete non-empty directory: {}", parent.join(name)));
    false
}

fn refusal(run: &Run<'_>, all: &[Extraneous]) -> Option<String> {
    let options = &run.options.delete;
    if run.options.verify || all.is_empty() {
        return None;
    }
    if run.empty_source.load(Ordering::Relaxed) && !options.allow_empty_source {
        return Some(
            "the source is empty and the destination is not: is it mounted, is the path right? \
             Nothing was deleted; --allow-empty-source empties the destination"
                .to_owned(),
        );
    }
    let limit = options.max_entries?;
    let mut count = 0_u64;
    for Extraneous { path, names, room, missing, .. } in all {
        if let Ok(dir) = run.tree.dir(path) {
            let is_there =
                |name: &&Name| dir.info(name.as_bytes()).is_ok() && !is_kept(run, &dir, path, name);
            let below = |name: &Name| count_below(run, &dir, path, name);
            let named = names.iter().chain(missing.iter().filter(is_there)).map(below);
            let in_the_way = room.iter().map(|name| below(name).saturating_sub(1));
            count = named.chain(in_the_way).fold(count, u64::saturating_add);
        }
    }
    let shown = if count == u64::MAX { "more than can be counted".to_owned() } else { count.to_string() };
    (count > limit).then(|| {
        format!("to be deleted: {shown}, more than --max-delete={limit} allows; nothing was deleted")
    })
}

/// How many entries would go with one, itself included; without end where that can't be seen.
fn count_below(run: &Run<'_>, dir: &Dir, parent: &RelPath, name: &Name) -> u64 {
    if !dir.info(name.as_bytes()).is_ok_and(|info| info.is_dir()) {
        return 1;
    }
    let Ok(below) = dir.dir(name) else { return u64::MAX };
    let path = parent.join(name);
    // What is wrong with its rules is told when it would be removed.
    let _ = run.rules.enter(&below, &path);
    let Ok(names) = below.names() else { return u64::MAX };
    names
        .iter()
        .filter_map(|name| Name::new(name).ok())
        .filter(|name| !is_kept_in_deleted(run, &below, &path, name))
        .map(|name| count_below(run, &below, &path, &name))
        .fold(1, u64::saturating_add)
}

/// Removes an entry with everything below it that is not protected; reports what can't be. Whether nothing of it is
/// left in its directory: a backup may be.
fn remove(run: &Run<'_>, dir: &Dir, parent: &RelPath, name: &Name) -> bool {
    let path = parent.join(name);
    let info = match dir.info(name.as_bytes()) {
        Ok(info) => info,
        Err(Errno::NOENT) => return true,
        Err(error) => return fail(run, &path, error),
    };
    let is_dir = info.is_dir();
    if is_dir && run.is_behind_link(&info) {
        let note = format!("{path} stays: a link that is kept at the destination leads to it");
        run.monitor.note(&note);
        return false;
    }
    if is_dir && !remove_content(run, dir, parent, name) || is_unplanned(run, &path, &info) {
        return false;
    }
    let removed = match (run.options.dry_run, is_dir) {
        (true, _) if !is_dir && run.retirement.leaves_beside(name) => Ok(Left::Beside),
        (true, _) => Ok(Left::Elsewhere),
        (false, true) => {
            run.retirement.remove_dir(run.tree, dir, parent, name, &info).map(|()| Left::Elsewhere)
        }
        (false, false) => run.retirement.remove(run.tree, dir, parent, name),
    };
    let is_empty = match removed {
        Ok(left) => left == Left::Elsewhere,
        Err(error) => return fail(run, &path, error),
    };
    let entry = info.entry(name.clone(), b"-".to_vec(), protocol::entry::Timestamp::default());
    lock(&run.stats).deleted.count(&entry.map_or(Kind::Fifo, |entry| entry.kind));
    run.item(Item::Deleted { path, is_dir, was: run.was(Some(&info)) });
    is_empty
}

/// Removes what is in a directory; whether all of it is gone.
pub(crate) fn remove_content(run: &Run<'_>, dir: &Dir, parent: &RelPath, name: &Name) -> bool {
    let path = parent.join(name);
    let closed = make_accessible(run, dir, name);
    let opened = dir.dir(name).and_then(|below| below.names().map(|names| (below, names)));
    let (below, names) = match opened {
        Ok(opened) => opened,
        Err(error) => return fail(run, &path, error),
    };
    if let Err(error) = run.rules.enter(&below, &path) {
        run.monitor.note(&format!("{path} is not deleted: {error}"));
        return fail(run, &path, Errno::INVAL);
    }
    let mut all = true;
    for name in names.iter().filter_map(|name| Name::new(name).ok()) {
        all &= !is_kept_in_deleted(run, &below, &path, &name) && remove(run, &below, &path, &name);
    }
    if names.has_staging() && !run.options.dry_run {
        // A run with this directory as its root left it, or is still at work.
        if let Err(error) = below.lock_alone() {
            return fail(run, &path, error);
        }
        let _ = crate::staging::remove_all(&below, crate::tree::STAGING_NAME);
    }
    if let (false, Some((held, mode))) = (all, closed) {
        let _ = held.set_mode(mode);
    }
    all
}

/// Gives who is not root the right to empty a directory that they may look into, as rsync does; returns the mode to restore
/// if it stays.
fn make_accessible(run: &Run<'_>, dir: &Dir, name: &Name) -> Option<(Held, u16)> {
    if run.options.dry_run || run.translation.ownership.is_root {
        return None;
    }
    let held = dir.hold(name.as_bytes()).ok()?;
    let mode = held.info().ok()?.raw_mode & 0o7777;
    (mode & 0o700 == 0o500 && held.set_mode(mode | 0o200).is_ok()).then_some((held, mode))
}

/// Whether a directory's content goes: what takes its place is there, and nothing in it is protected.
fn makes_room(run: &Run<'_>, dir: &Dir, parent: &RelPath, name: &Name) -> bool {
    let is_next = |ready: &Ready| *ready.target.parent == *parent && ready.target.name() == name;
    let is_ready = run.options.dry_run || lock(&run.waiting).iter().any(is_next);
    // Where something is mounted nothing else can be: emptying it would be in vain.
    is_ready && !dir.is_mounted(name.as_bytes()) && !holds_protected(run, dir, parent, name)
}

/// Whether something below a directory is kept by the filter.
fn holds_protected(run: &Run<'_>, dir: &Dir, parent: &RelPath, name: &Name) -> bool {
    let Ok(below) = dir.dir(name) else { return false };
    let path = parent.join(name);
    if run.rules.enter(&below, &path).is_err() {
        return true;
    }
    let names = below.names().unwrap_or_default();
    let options = run.options;
    let may_keep = !options.filter.is_empty()
        || !options.replaced.is_gone()
        || options.plan.is_some()
        || options.one_file_system;
    may_keep
        && names.iter().filter_map(|name| Name::new(name).ok()).any(|name| {
            is_kept_in_deleted(run, &below, &path, &name) || holds_protected(run, &below, &path, &name)
        })
}

/// Whether an entry of the destination is not to be deleted: a rule or a plan keeps it, or it is what earlier runs kept.
pub(crate) fn is_kept(run: &Run<'_>, dir: &Dir, parent: &RelPath, name: &Name) -> bool {
    run.rules.protect(dir, parent, name) || is_beyond_deletion(run, dir, parent, name)
}

/// The same of an entry of a directory that is being deleted itself.
fn is_kept_in_deleted(run: &Run<'_>, dir: &Dir, parent: &RelPath, name: &Name) -> bool {
    run.rules.protect_in_deleted(dir, parent, name) || is_beyond_deletion(run, dir, parent, name)
}

/// Whether it is what earlier runs kept, not in the plan that the run is held to, or beyond the file system that it keeps to.
fn is_beyond_deletion(run: &Run<'_>, dir: &Dir, parent: &RelPath, name: &Name) -> bool {
    let is_unplanned = || match dir.info(name.as_bytes()) {
        // What is in it may be planned.
        Ok(info) => !info.is_dir() && is_unplanned(run, &parent.join(name), &info),
        Err(_) => false,
    };
    run.retirement.protects(dir, name)
        || run.options.plan.is_some() && is_unplanned()
        || run.options.one_file_system && dir.is_mounted(name.as_bytes())
}

fn is_unplanned(run: &Run<'_>, path: &RelPath, info: &Info) -> bool {
    run.is_unplanned(|| Item::Deleted { path: path.clone(), is_dir: info.is_dir(), was: run.was(Some(info)) })
}

fn fail(run: &Run<'_>, path: &RelPath, error: Errno) -> bool {
    run.problem(crate::monitor::errno(protocol::stats::Side::Destination, path, Operation::Remove, error));
    false
}

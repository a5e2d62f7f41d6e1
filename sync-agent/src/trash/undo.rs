//! Undoing a run: what it took comes back, and what it had put there goes to the trash.
//!
//! Nothing is lost by it, whatever happens meanwhile: an entry is only moved, into a place where nothing is or in exchange
//! for what is there, or copied, compared and written to disk before the original goes. What stands there now and is not
//! what the run put there stays, and what belongs there stays in the trash. An undo that was cut short is ended by the
//! next one.

use super::log::{self, Log, Record, Records};
use super::{LOG, NEW, TREE, TrashError, io};
use crate::metadata::Metadata;
use crate::retire::{self, needed_mode, same_directory};
use crate::tree::{self, Dir, Follow, Handle as _, Held, Info, STAGED_BACKUP_NAME, Tree};
use protocol::path::{Name, RelPath};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashSet};

/// What became of one entry of a run that is undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undone {
    /// It is back (or would be).
    Restored(RelPath),
    /// It stays in the trash.
    Refused(RelPath, Refusal),
}

/// Why an entry stays in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What stands there is not what the run put there.
    #[error("what is there now is not what the run put there, or was changed since")]
    Changed,
    /// A directory has its name, with something in it.
    #[error("a directory that is not empty has its name")]
    Directory,
    /// What should be a directory above it is something else.
    #[error("the directory that it was in is something else now")]
    Parent,
    /// A system call failed.
    #[error("{}", std::io::Error::from(*.0))]
    Errno(Errno),
}

impl From<Errno> for Refusal {
    fn from(error: Errno) -> Refusal {
        Refusal::Errno(error)
    }
}

/// Puts back what a run removed or replaced; with `dry_run`, says what would be. Tells `each` what becomes of every entry.
///
/// # Errors
/// Nothing was changed, or what was changed could not be written to disk.
pub fn undo(
    directory: &Dir,
    name: &str,
    dry_run: bool,
    each: &mut dyn FnMut(Undone),
) -> Result<(), TrashError> {
    let (records, log) = log::read(directory, name)?;
    let shown = protocol::path::escaped(&records.destination);
    let home = Dir::open(tree::path_of(&records.destination));
    let home = home.map_err(|error| io(&format!("open the destination {shown}"), error))?;
    let info = home.own_info().map_err(|error| io(&format!("look at {shown}"), error))?;
    if (info.device, info.inode) != records.home {
        return Err(TrashError::Moved(shown));
    }
    let _locks = match home.lock() {
        Ok(locks) => locks,
        Err(Errno::WOULDBLOCK) => return Err(TrashError::Busy(shown)),
        Err(error) => return Err(io(&format!("lock {shown}"), error)),
    };
    let run = directory.open_beneath(name.as_bytes()).map_err(|error| io("open the run", error))?;
    let kept = match run.open_beneath(TREE) {
        Err(Errno::NOENT) => return Err(TrashError::Undone(name.to_owned())),
        opened => opened.map_err(|error| io("open what the run kept", error))?,
    };
    let tree = Tree::open(tree::path_of(&records.destination), Follow::Never)
        .map_err(|error| io(&format!("open {shown}"), error))?;
    let tree = if records.follows { tree.following_beneath() } else { tree };
    let older = if dry_run { Vec::new() } else { other_runs(directory, name, &records)? };
    let mut undo = Undo {
        directory,
        run: &run,
        tree,
        records: &records,
        log,
        older,
        dry_run,
        each,
        directories: BTreeMap::new(),
        file_systems: BTreeMap::new(),
        stays: false,
    };
    undo.make_directories(&kept);
    undo.restore(&kept, &RelPath::root());
    undo.set_metadata();
    let (stays, file_systems) = (undo.stays, undo.file_systems);
    if dry_run {
        return Ok(());
    }
    let mut synced = file_systems.values().chain([&home, directory]);
    let synced = synced.try_for_each(Dir::sync_file_system);
    synced.map_err(|error| io("write the destination to disk", error))?;
    if !stays && run.remove_dir(TREE).is_ok() && run.info(NEW) == Err(Errno::NOENT) {
        let removed = run.remove_file(LOG).and_then(|()| directory.remove_dir(name.as_bytes()));
        removed.map_err(|error| io("remove what is left of the run", error))?;
    }
    Ok(())
}

/// The runs that had put there what this one took.
fn other_runs(directory: &Dir, name: &str, records: &Records) -> Result<Vec<Older>, TrashError> {
    let names = directory.reopened().and_then(|dir| dir.names());
    let names = names.map_err(|error| io("read the trash", error))?;
    let others =
        names.iter().filter_map(|other| std::str::from_utf8(other).ok()).filter(|other| *other != name);
    let older = others.filter_map(|other| {
        // What can't be read can't be undone either.
        let (other, log) =
            log::read(directory, other).ok().filter(|(other, _)| other.home == records.home)?;
        let put: HashSet<Vec<u8>> = other.taken_by(records).into_iter().collect();
        (!put.is_empty()).then_some(Older { log, put })
    });
    Ok(older.collect())
}

/// A run that had put there, at some paths, what the one that is undone took.
#[derive(Debug)]
struct Older {
    log: Log,
    put: HashSet<Vec<u8>>,
}

struct Undo<'a> {
    /// The trash.
    directory: &'a Dir,
    /// The directory of the run in it.
    run: &'a Dir,
    /// The destination.
    tree: Tree,
    records: &'a Records,
    log: Log,
    older: Vec<Older>,
    dry_run: bool,
    each: &'a mut dyn FnMut(Undone),
    /// What directories of the destination get back at the end, children after parents.
    directories: BTreeMap<Vec<u8>, (RelPath, Metadata)>,
    /// Those that were written to.
    file_systems: BTreeMap<(u32, u32), Dir>,
    stays: bool,
}

/// What has the name of something that is to come back.
enum Standing {
    Nothing,
    /// What the run put there.
    OfRun(Info),
    /// The entry itself: a run that was killed before it replaced it, or an undo before it removed what it had copied back.
    Itself,
}

impl Undo<'_> {
    fn refuse(&mut self, path: RelPath, why: Refusal) {
        self.stays = true;
        (self.each)(Undone::Refused(path, why));
    }

    /// Directories that were removed, parents first.
    fn make_directories(&mut self, kept: &Dir) {
        let Ok(kept) = kept.try_clone().map(Tree::below) else { return };
        for (path, metadata) in self.records.removed_dirs.values() {
            match self.make_directory(&kept, path, metadata) {
                Ok(true) => (self.each)(Undone::Restored(path.clone())),
                Ok(false) => {}
                Err(why) => self.refuse(path.clone(), why),
            }
        }
    }

    /// Whether it was missing.
    fn make_directory(&mut self, kept: &Tree, path: &RelPath, metadata: &Metadata) -> Result<bool, Refusal> {
        let Some((above, name)) = path.split_last() else { return Ok(false) };
        let Some(parent) = self.parent(&above)? else { return Ok(true) };
        let standing = match parent.info(name.as_bytes()) {
            Ok(now) if now.is_dir() => {
                if self.records.is_of_run(path, &now) {
                    // An undo made it that was cut short.
                    self.directories.insert(path.as_bytes().to_vec(), (path.clone(), metadata.clone()));
                }
                return Ok(false);
            }
            Ok(now) if self.records.is_of_run(path, &now) => Some(now),
            Ok(_) => return Err(Refusal::Changed),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(Refusal::Errno(error)),
        };
        if self.dry_run {
            return Ok(true);
        }
        self.remember(&above, &parent);
        let like = kept.dir(path).and_then(|dir| dir.hold_self()).ok();
        stage_directory(like.as_ref(), &parent, metadata)?;
        if standing.is_some() {
            self.put_aside(&parent, name.as_bytes(), &above, &name)?;
        }
        // Before it has its name: an undo that ends another one knows it then, and gives it its times.
        let made = parent.info(STAGED_BACKUP_NAME)?;
        self.log.add(self.directory, &Record::Replaced(&made), path)?;
        parent.rename_to_free(STAGED_BACKUP_NAME, &parent, name.as_bytes())?;
        self.directories.insert(path.as_bytes().to_vec(), (path.clone(), metadata.clone()));
        self.tell_older(path, &made);
        Ok(true)
    }

    /// The directory that something comes back to; none in a dry run that would have made it.
    fn parent(&self, path: &RelPath) -> Result<Option<Dir>, Refusal> {
        match self.tree.dir(path) {
            Err(Errno::NOENT | Errno::NOTDIR)
                if self.dry_run && self.records.removed_dirs.contains_key(path.as_bytes()) =>
            {
                Ok(None)
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Err(Refusal::Parent),
            opened => Ok(Some(opened?)),
        }
    }

    /// A directory that is about to change keeps its metadata.
    fn remember(&mut self, path: &RelPath, dir: &Dir) {
        let Ok(info) = dir.own_info() else { return };
        let known = self.directories.entry(path.as_bytes().to_vec());
        known.or_insert_with(|| (path.clone(), Metadata::of(&info)));
        if let Ok(dir) = dir.try_clone() {
            self.file_systems.entry(info.device).or_insert(dir);
        }
    }

    /// Moves back what is in a directory of the trash.
    fn restore(&mut self, trash: &Dir, path: &RelPath) {
        let names = match trash.reopened().and_then(|dir| dir.names()) {
            Ok(names) => names,
            Err(error) => return self.refuse(path.clone(), Refusal::Errno(error)),
        };
        for name in names.iter().filter_map(|name| Name::new(name).ok()) {
            let below = path.join(&name);
            match self.restore_entry(trash, path, &name, &below) {
                Ok(true) => (self.each)(Undone::Restored(below)),
                Ok(false) => {}
                Err(why) => self.refuse(below, why),
            }
        }
        if !self.dry_run {
            // A copy that was not complete; its original is where it was.
            let _ = trash.remove_file(STAGED_BACKUP_NAME);
        }
    }

    /// Whether an entry came back by this.
    fn restore_entry(
        &mut self,
        trash: &Dir,
        parent: &RelPath,
        name: &Name,
        path: &RelPath,
    ) -> Result<bool, Refusal> {
        let kept = trash.info(name.as_bytes())?;
        if self.records.was_put(path, &kept) && !self.dry_run {
            // An undo was cut short between the exchange and what follows it.
            self.put_aside(trash, name.as_bytes(), parent, name)?;
            return Ok(false);
        }
        if !kept.is_dir() {
            self.put_back(trash, parent, name, &kept)?;
            return Ok(true);
        }
        self.restore(&trash.dir(name)?, path);
        // It has the attributes of a directory that may not be back yet.
        let is_back = !self.records.removed_dirs.contains_key(path.as_bytes()) || self.tree.dir(path).is_ok();
        if is_back && !self.dry_run {
            let _ = trash.remove_dir(name.as_bytes());
        }
        Ok(false)
    }

    fn put_back(&mut self, trash: &Dir, parent: &RelPath, name: &Name, kept: &Info) -> Result<(), Refusal> {
        let path = parent.join(name);
        let Some(dir) = self.parent(parent)? else { return Ok(()) };
        let standing = self.standing(&dir, name, &path, kept)?;
        if self.dry_run {
            return Ok(());
        }
        let is_as_taken = self.records.is_as_taken(&path, kept);
        self.remember(parent, &dir);
        match standing {
            Standing::Itself => trash.remove_file(name.as_bytes())?,
            Standing::Nothing => self.move_back(trash, &dir, parent, name)?,
            Standing::OfRun(now) => match trash.exchange(name.as_bytes(), &dir, name.as_bytes()) {
                Err(Errno::XDEV) => self.copy_back(trash, &dir, parent, name, Some(&now))?,
                Ok(true) => self.end_exchange(trash, &dir, parent, name, &now)?,
                Ok(false) => {
                    self.put_aside(&dir, name.as_bytes(), parent, name)?;
                    self.move_back(trash, &dir, parent, name)?;
                }
                Err(error) => return Err(Refusal::Errno(error)),
            },
        }
        if is_as_taken {
            self.tell_older(&path, &dir.info(name.as_bytes())?);
        }
        Ok(())
    }

    fn standing(&self, dir: &Dir, name: &Name, path: &RelPath, kept: &Info) -> Result<Standing, Refusal> {
        match dir.info(name.as_bytes()) {
            Err(Errno::NOENT) => Ok(Standing::Nothing),
            Err(error) => Err(Refusal::Errno(error)),
            Ok(now) if is_one(kept, &now) || self.records.is_back(path, &now) => Ok(Standing::Itself),
            Ok(now) if now.is_dir() && !retire::is_empty(&dir.dir(name)?)? => Err(Refusal::Directory),
            Ok(now) if self.records.is_of_run(path, &now) => Ok(Standing::OfRun(now)),
            Ok(_) => Err(Refusal::Changed),
        }
    }

    /// What the run had put there is in the trash now, in the place of what came back.
    fn end_exchange(
        &self,
        trash: &Dir,
        dir: &Dir,
        parent: &RelPath,
        name: &Name,
        expected: &Info,
    ) -> Result<(), Refusal> {
        if !is_one(&trash.info(name.as_bytes())?, expected) {
            // Somebody was faster.
            trash.exchange(name.as_bytes(), dir, name.as_bytes())?;
            return Err(Refusal::Changed);
        }
        self.put_aside(trash, name.as_bytes(), parent, name)
    }

    /// To where nothing is.
    fn move_back(&mut self, trash: &Dir, dir: &Dir, parent: &RelPath, name: &Name) -> Result<(), Refusal> {
        match trash.rename_to_free(name.as_bytes(), dir, name.as_bytes()) {
            Err(Errno::XDEV) => self.copy_back(trash, dir, parent, name, None),
            renamed => Ok(renamed?),
        }
    }

    /// To another file system.
    fn copy_back(
        &mut self,
        trash: &Dir,
        dir: &Dir,
        parent: &RelPath,
        name: &Name,
        standing: Option<&Info>,
    ) -> Result<(), Refusal> {
        retire::stage_copy(trash, name.as_bytes(), dir)?;
        let copied = dir.info(STAGED_BACKUP_NAME)?;
        self.log.add(self.directory, &Record::Back(&copied), &parent.join(name))?;
        if standing.is_some() {
            self.put_aside(dir, name.as_bytes(), parent, name)?;
        }
        dir.rename_to_free(STAGED_BACKUP_NAME, dir, name.as_bytes())?;
        dir.sync_entries()?;
        Ok(trash.remove_file(name.as_bytes())?)
    }

    /// Moves what the run had put at `name` in `parent`, and what has `from_name` in `from` now, to what is new in the trash.
    fn put_aside(&self, from: &Dir, from_name: &[u8], parent: &RelPath, name: &Name) -> Result<(), Refusal> {
        match self.run.make_dir(NEW) {
            Err(Errno::EXIST) => {}
            made => made?,
        }
        let to = same_directory(&self.run.open_beneath(NEW)?, &self.tree, parent)?;
        let free = free_name(&to, name)?;
        match from.rename_to_free(from_name, &to, &free) {
            Err(Errno::XDEV) => Ok(move_by_copy(from, from_name, &to, &free)?),
            renamed => Ok(renamed?),
        }
    }

    /// What is back is the same to the run that had put it there, though it was moved about.
    fn tell_older(&mut self, path: &RelPath, now: &Info) {
        for older in self.older.iter_mut().filter(|older| older.put.contains(path.as_bytes())) {
            // Without the record that run's undo refuses it: nothing worse.
            let _ = older.log.add(self.directory, &Record::Replaced(now), path);
        }
    }

    /// The metadata of directories, children before parents.
    fn set_metadata(&mut self) {
        for (path, metadata) in std::mem::take(&mut self.directories).into_values().rev() {
            let held = self.tree.dir(&path).and_then(|dir| dir.hold_self());
            if let Ok(held) = held
                && let Err((_, error)) = metadata.apply(&held)
            {
                (self.each)(Undone::Refused(path, Refusal::Errno(error)));
            }
        }
    }
}

/// Makes a directory in `parent` under a name that is nobody's, with the attributes of `like`. What it needs to be filled
/// comes off at the end.
fn stage_directory(like: Option<&Held>, parent: &Dir, metadata: &Metadata) -> Result<(), Errno> {
    crate::staging::remove_all(parent, STAGED_BACKUP_NAME)?;
    parent.make_dir(STAGED_BACKUP_NAME)?;
    let held = parent.hold(STAGED_BACKUP_NAME)?;
    if let Some(like) = like {
        retire::copy_attributes(like, &held)?;
    }
    // What this user can't set is told at the end.
    let _ = metadata.apply(&held);
    match needed_mode() {
        0 => Ok(()),
        needed => held.set_mode(held.info()?.raw_mode & 0o7777 | needed),
    }
}

/// A name in `dir` that nothing has: `name`, unless an undo before had put something there too.
fn free_name(dir: &Dir, name: &Name) -> Result<Vec<u8>, Errno> {
    for number in 1..MOST_OF_A_NAME {
        let free = match number {
            1 => name.as_bytes().to_vec(),
            _ => [name.as_bytes(), format!(".{number}").as_bytes()].concat(),
        };
        match dir.info(&free) {
            Err(Errno::NOENT) => return Ok(free),
            found => found?,
        };
    }
    Err(Errno::EXIST)
}

const MOST_OF_A_NAME: u32 = 1000;

/// Moves an entry, or an empty directory, to another file system.
fn move_by_copy(from: &Dir, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<(), Errno> {
    let info = from.info(name)?;
    if info.is_dir() {
        stage_directory(Some(&from.hold(name)?), to, &Metadata::of(&info))?;
        to.rename_to_free(STAGED_BACKUP_NAME, to, to_name)?;
        return from.remove_dir(name);
    }
    retire::stage_copy(from, name, to)?;
    to.rename_to_free(STAGED_BACKUP_NAME, to, to_name)?;
    to.sync_entries()?;
    from.remove_file(name)
}

fn is_one(one: &Info, other: &Info) -> bool {
    (one.device, one.inode) == (other.device, other.inode)
}

//! Where files are before they have their names: a private directory inside the destination.
//!
//! Every file system of the destination has an area of its own, so that a rename is all that a commit
//! takes. With `--temp-dir` on another file system content is written there first, and copied to such an area when it is
//! complete. A staged file is called after a hash of its path: what a run left behind is found by the next
//! one and serves as a basis (`.keep`), never as content by itself. Everything else in an area belongs to
//! nobody and is removed.

use crate::error::SessionError;
use crate::inherited;
use crate::journal;
use crate::metadata::Metadata;
use crate::retire::{copy_content, hash};
use crate::tree::{Dir, Info, STAGING_NAME, Tree};
use crate::workers::lock;
use protocol::path::RelPath;
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A staged file's name without its ending.
type Key = [u8; 16];

/// All areas of one destination.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    areas: Mutex<HashMap<(u32, u32), Arc<Area>>>,
    /// An area outside the destination, with its device (`--temp-dir`).
    scratch: Option<((u32, u32), Arc<Area>)>,
}

/// The staging directory of one file system.
#[derive(Debug)]
pub(crate) struct Area {
    /// The staging directory itself.
    pub(crate) dir: Dir,
    home: Home,
    /// What an earlier run, or an earlier try, left of a file; its length in bytes.
    kept: Mutex<HashMap<Key, u64>>,
    next: AtomicU64,
}

/// The directory that an area is in.
#[derive(Debug)]
enum Home {
    /// One of the destination's.
    InTree(RelPath),
    /// Another one; and the area's name in it.
    Scratch(Dir, String),
}

/// A new file in an area.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) area: Arc<Area>,
    pub(crate) name: String,
    key: Option<Key>,
}

const PART: &str = ".part";
const KEEP: &str = ".keep";
/// A journal that is being written or waits for the sync: its file was not touched yet.
const PATCH: &str = ".patch";
/// A journal whose file may be half patched.
const BEGUN: &str = ".begun";

fn key(path: &RelPath) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&blake3::hash(path.as_bytes()).as_bytes()[..16]);
    key
}

fn file_name(key: &Key, ending: &str) -> String {
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    hex + ending
}

/// Why what stands in the place of a staging area in `dir` can't be one, if it can't.
pub(crate) fn obstacle(dir: &Dir) -> Option<&'static str> {
    let info = dir.info(STAGING_NAME).ok()?;
    if !info.is_dir() {
        return Some("has something called .sync-agent-staging that is not a directory: move it away");
    }
    (!is_trusted(&info)).then_some(
        "has a .sync-agent-staging that another user made or may write to, so it is not used: remove it",
    )
}

/// Nobody else can have put anything into it, least of all a journal.
fn is_trusted(info: &Info) -> bool {
    info.uid == rustix::process::geteuid().as_raw() && info.raw_mode & 0o077 == 0
}

impl Staging {
    /// Opens (or makes) the area of the file system that the directory at `path` is on, unless it is
    /// open; says where it is if it was opened now: in the directory nearest to the root.
    pub(crate) fn area(
        &self,
        tree: &Tree,
        path: &RelPath,
        device: (u32, u32),
    ) -> Result<(Arc<Area>, Option<RelPath>), Errno> {
        let mut areas = lock(&self.areas);
        if let Some(area) = areas.get(&device) {
            return Ok((Arc::clone(area), None));
        }
        let home = home(tree, path, device)?;
        let area = Arc::new(Area::open(tree, &home)?);
        areas.insert(device, Arc::clone(&area));
        Ok((area, Some(home)))
    }

    /// Takes over the area that an earlier run left in the directory at `path`, if that is where this
    /// run would have its own; says whether it did. One elsewhere belongs to a run with another root.
    pub(crate) fn take_over(&self, tree: &Tree, path: &RelPath, device: (u32, u32)) -> Result<bool, Errno> {
        if home(tree, path, device)? != *path {
            return Ok(false);
        }
        self.area(tree, path, device).map(|(_, opened)| opened.is_some())
    }

    /// With an area in `dir`, for files that go to another file system. It is called after the destination, which this run
    /// has for itself: others may use the same directory.
    pub(crate) fn with_scratch(dir: &Dir, destination: &Info) -> Result<Staging, Errno> {
        let (major, minor) = destination.device;
        let staging = String::from_utf8_lossy(STAGING_NAME);
        let name = format!("{staging}-{major}-{minor}-{}", destination.inode);
        let area = Area::open_in(dir, name.as_bytes(), Home::Scratch(dir.try_clone()?, name.clone()))?;
        area.recover()?;
        Ok(Staging { scratch: Some((dir.own_info()?.device, Arc::new(area))), ..Staging::default() })
    }

    /// The area outside the destination, if there is one and a rename from it would not do for this device either.
    pub(crate) fn scratch(&self, device: Option<(u32, u32)>) -> Option<Arc<Area>> {
        self.scratch.as_ref().filter(|(own, _)| Some(*own) != device).map(|(_, area)| Arc::clone(area))
    }

    /// Where what is left of a file of this device may be.
    fn areas_of(&self, device: (u32, u32)) -> impl Iterator<Item = Arc<Area>> {
        let area = lock(&self.areas).get(&device).cloned();
        area.into_iter().chain(self.scratch(Some(device)))
    }

    pub(crate) fn areas(&self) -> Vec<Arc<Area>> {
        lock(&self.areas).values().cloned().collect()
    }

    /// Writes every file system of the destination to disk.
    pub(crate) fn sync(&self) -> Result<(), SessionError> {
        let sync = |area: &Arc<Area>| area.dir.sync_file_system();
        self.areas().iter().try_for_each(sync).map_err(|error| {
            SessionError::io(
                "write the destination to disk (syncfs); nothing of this batch was renamed",
                error,
            )
        })
    }

    /// Writes the names in every area to disk.
    pub(crate) fn sync_entries(&self) -> Result<(), SessionError> {
        let sync = |area: &Arc<Area>| area.dir.sync_entries();
        let synced = self.areas().iter().try_for_each(sync);
        synced.map_err(|error| SessionError::io("write the staging directory to disk", error))
    }

    /// What is left of `path`, as a file to read, with its length.
    pub(crate) fn kept(&self, device: (u32, u32), path: &RelPath) -> Option<(File, u64)> {
        let key = key(path);
        self.areas_of(device).find_map(|area| {
            let length = *lock(&area.kept).get(&key)?;
            let file = area.dir.open_file(file_name(&key, KEEP).as_bytes()).ok()?;
            Some((file, length))
        })
    }

    /// Whether anything at all was left for a file of this path.
    pub(crate) fn has_kept(&self, device: (u32, u32), path: &RelPath) -> bool {
        self.areas_of(device).any(|area| {
            let kept = lock(&area.kept);
            !kept.is_empty() && kept.contains_key(&key(path))
        })
    }

    /// Removes what is no longer of use and the areas that are empty then. `keep` says whether what
    /// earlier tries left may still be of use to a later run.
    pub(crate) fn close(&self, tree: &Tree, keep: bool) {
        let scratch = self.scratch.iter().map(|(_, area)| Arc::clone(area));
        for area in lock(&self.areas).drain().map(|(_, area)| area).chain(scratch) {
            if !keep {
                let _ = area.clear();
            }
            let _ = match &area.home {
                Home::InTree(home) => tree.dir(home).and_then(|home| home.remove_dir(STAGING_NAME)),
                Home::Scratch(home, name) => home.remove_dir(name.as_bytes()),
            };
        }
    }
}

/// The directory nearest to the root from which `path` is reached without leaving its file system.
fn home(tree: &Tree, path: &RelPath, device: (u32, u32)) -> Result<RelPath, Errno> {
    let mut home = path.clone();
    while let Some((parent, _)) = home.split_last() {
        if tree.dir(&parent)?.own_info()?.device != device {
            break;
        }
        home = parent;
    }
    Ok(home)
}

impl Area {
    fn open(tree: &Tree, home: &RelPath) -> Result<Area, Errno> {
        let area = Area::open_in(&tree.dir(home)?, STAGING_NAME, Home::InTree(home.clone()))?;
        area.roll_forward(tree)?;
        area.recover()?;
        Ok(area)
    }

    fn open_in(parent: &Dir, name: &[u8], home: Home) -> Result<Area, Errno> {
        let made = match parent.make_dir(name) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error),
        };
        let name = protocol::path::Name::new(name).map_err(|_| Errno::INVAL)?;
        if made {
            // Its mode may not let its owner in yet.
            inherited::take_away(&parent.hold(name.as_bytes())?)?;
        }
        let dir = parent.dir(&name)?;
        if !is_trusted(&dir.own_info()?) {
            return Err(Errno::PERM);
        }
        Ok(Area { dir, home, kept: Mutex::default(), next: AtomicU64::new(0) })
    }

    /// Whether a rename from here leads nowhere.
    pub(crate) fn is_scratch(&self) -> bool {
        matches!(self.home, Home::Scratch(..))
    }

    /// Carries out the journals of files that an earlier run was patching in place when it ended.
    fn roll_forward(&self, tree: &Tree) -> Result<(), Errno> {
        let names = self.dir.reopened()?.names()?;
        let journals: Vec<&[u8]> = names.iter().filter(|name| name.ends_with(BEGUN.as_bytes())).collect();
        let mut done = Vec::new();
        for name in journals {
            if journal::redo(&self.dir, name, tree) {
                done.push(name);
            }
        }
        if done.is_empty() {
            return Ok(());
        }
        self.dir.sync_file_system()?;
        done.iter().try_for_each(|name| self.dir.remove_file(name))
    }

    /// Sorts what an earlier run left: the longer of what there is for a file is kept, the rest goes.
    fn recover(&self) -> Result<(), Errno> {
        for name in self.dir.reopened()?.names()?.iter().filter(|name| !name.ends_with(BEGUN.as_bytes())) {
            let Some((key, is_part)) = parse_name(name) else {
                remove_all(&self.dir, name)?;
                continue;
            };
            let info = self.dir.info(name)?;
            let mut kept = lock(&self.kept);
            let longest = kept.get(&key).copied();
            if !info.is_file() || longest.is_some_and(|length| length >= info.size_bytes) {
                remove_all(&self.dir, name)?;
                continue;
            }
            if is_part {
                self.dir.rename(name, &self.dir, file_name(&key, KEEP).as_bytes())?;
            }
            kept.insert(key, info.size_bytes);
        }
        Ok(())
    }

    /// A new, empty file for the content of `path`.
    pub(crate) fn create(self: &Arc<Area>, path: &RelPath) -> Result<(Staged, File), Errno> {
        let key = key(path);
        let name = file_name(&key, PART);
        let file = self.dir.create_file(name.as_bytes())?;
        Ok((Staged { area: Arc::clone(self), name, key: Some(key) }, file))
    }

    /// A new, empty file for content that is of no use to a later run.
    pub(crate) fn create_small(self: &Arc<Area>) -> Result<(Staged, File), Errno> {
        let staged = self.name();
        let file = self.dir.create_file(staged.name.as_bytes())?;
        Ok((staged, file))
    }

    /// A new, empty journal for patching the file at `path`.
    pub(crate) fn create_journal(self: &Arc<Area>, path: &RelPath) -> Result<(Staged, File), Errno> {
        let key = key(path);
        let name = file_name(&key, PATCH);
        let file = self.dir.create_file(name.as_bytes())?;
        Ok((Staged { area: Arc::clone(self), name, key: None }, file))
    }

    /// A name for a link, a node, or what makes room: of no use to a later run.
    pub(crate) fn name(self: &Arc<Area>) -> Staged {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Staged { area: Arc::clone(self), name: format!("{number}.tmp"), key: None }
    }

    fn clear(&self) -> Result<(), Errno> {
        // A journal that is still there belongs to a file that is half patched.
        let names = self.dir.reopened()?.names()?;
        let mut useless = names.iter().filter(|name| !name.ends_with(BEGUN.as_bytes()));
        useless.try_for_each(|name| remove_all(&self.dir, name))
    }
}

impl Staged {
    /// Marks a journal that is on disk: from now on its file may be half patched. The caller syncs the
    /// area's entries before it touches the file.
    pub(crate) fn begin_patch(&mut self) -> Result<(), Errno> {
        let begun = self.name.replace(PATCH, BEGUN);
        self.area.dir.rename(self.name.as_bytes(), &self.area.dir, begun.as_bytes())?;
        self.name = begun;
        Ok(())
    }

    /// Keeps what was written so far as a basis for the next try.
    pub(crate) fn keep(self, length: u64) {
        let Some(key) = self.key.filter(|_| length > 0) else { return self.discard() };
        let to = file_name(&key, KEEP);
        match self.area.dir.rename(self.name.as_bytes(), &self.area.dir, to.as_bytes()) {
            Ok(()) => {
                lock(&self.area.kept).insert(key, length);
            }
            Err(_) => self.discard(),
        }
    }

    /// Copies it to an area on another file system, and reads both again to compare them.
    pub(crate) fn copy_to(&self, area: &Arc<Area>, metadata: &Metadata) -> Result<Staged, Errno> {
        let (copy, out) = area.create_small()?;
        let copied = self.area.dir.open_file(self.name.as_bytes()).and_then(|file| {
            copy_content(&file, &out)?;
            if hash(&file)? != hash(&area.dir.open_file(copy.name.as_bytes())?)? {
                return Err(Errno::IO);
            }
            metadata.apply(&out).map_err(|(_, error)| error)
        });
        match copied {
            Ok(()) => Ok(copy),
            Err(error) => {
                copy.discard();
                Err(error)
            }
        }
    }

    /// Removes it.
    pub(crate) fn discard(self) {
        let _ = self.area.dir.remove_file(self.name.as_bytes());
    }

    /// It has its place: what was kept for it is of no more use.
    pub(crate) fn placed(&self) {
        if let Some(key) = self.key
            && lock(&self.area.kept).remove(&key).is_some()
        {
            let _ = self.area.dir.remove_file(file_name(&key, KEEP).as_bytes());
        }
    }
}

fn parse_name(name: &[u8]) -> Option<(Key, bool)> {
    let name = std::str::from_utf8(name).ok()?;
    let (hex, is_part) = match (name.strip_suffix(PART), name.strip_suffix(KEEP)) {
        (Some(hex), _) => (hex, true),
        (None, Some(hex)) => (hex, false),
        (None, None) => return None,
    };
    if hex.len() != 32 || !hex.is_ascii() {
        return None;
    }
    let mut key = Key::default();
    for (byte, digits) in key.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some((key, is_part))
}

/// Removes an entry with everything below it, without following links.
pub(crate) fn remove_all(dir: &Dir, name: &[u8]) -> Result<(), Errno> {
    match dir.remove_file(name) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(Errno::NOENT) => return Ok(()),
        result => return result,
    }
    let below = dir.dir(&protocol::path::Name::new(name).map_err(|_| Errno::INVAL)?)?;
    below.names()?.iter().try_for_each(|name| remove_all(&below, name))?;
    let _ = below.remove_dir(STAGING_NAME);
    dir.remove_dir(name)
}

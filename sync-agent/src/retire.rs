//! What becomes of what a run replaces or deletes: gone, a backup, or in the trash.
//!
//! What is replaced gets its second name before the new content takes the first one over, so at any moment the name
//! holds the old or the new content; what is deleted is moved, which is one step too. Where a second name can't be
//! given (another file system, or one without hard links) it is copied, compared and written to disk before. If it
//! can't be kept, it is left as it is.
//!
//! Called by the committer, by the deletion, and where a directory takes a file's place.

use crate::bases;
use crate::error::SessionError;
use crate::holes;
use crate::metadata::Metadata;
use crate::sides::Sides;
use crate::sink::CopyError;
use crate::trash::Trash;
use crate::tree::{self, Dir, Handle, Info, STAGED_BACKUP_NAME, Tree};
use crate::workers::lock;
use protocol::ContentHash;
use protocol::options::{Room, SyncOptions};
use protocol::path::{Name, RelPath};
use protocol::replaced::Replaced;
use protocol::stats::Exit;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// See the module.
#[derive(Debug)]
pub(crate) enum Retirement<'a> {
    Gone,
    Backup(Backups<'a>),
    Trash(Trash),
}

/// Where a deleted entry is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Not in its directory.
    Elsewhere,
    /// In its directory, under another name.
    Beside,
}

impl<'a> Retirement<'a> {
    /// As asked for; a trash is opened at once, the directory for backups when the first is made.
    pub(crate) fn open(
        options: &SyncOptions,
        sides: &'a Sides<'a>,
        tree: &Tree,
        home: &Dir,
    ) -> Result<Retirement<'a>, SessionError> {
        match &options.replaced {
            Replaced::Gone => Ok(Retirement::Gone),
            Replaced::Backup { directory, suffix } => {
                let elsewhere = directory.as_ref().map(|path| Elsewhere::new(path, sides)).transpose();
                let elsewhere = elsewhere.map_err(|error| refused(&options.replaced, error))?;
                // The destination itself is no place elsewhere: what is kept there would have the names of what replaces it.
                let elsewhere = elsewhere.filter(|elsewhere| !elsewhere.is(home));
                if elsewhere.is_none() && suffix.is_empty() {
                    return Err(SessionError::refused(
                        Exit::Usage,
                        "--backup-dir is the destination itself, where a backup without --suffix has the name of what \
                         replaces it; give another directory, or a suffix",
                    ));
                }
                Ok(Retirement::Backup(Backups { suffix: suffix.clone(), turn: Mutex::default(), elsewhere }))
            }
            Replaced::Trash { directory } => {
                let dry_run = options.dry_run;
                let opened = if dry_run { sides.open(directory) } else { sides.open_or_make(directory) };
                let trash = match opened {
                    Err(Errno::NOENT) if dry_run => return Ok(Retirement::Gone),
                    opened => opened.and_then(|opened| Trash::open(&opened, tree, home)),
                };
                trash.map(Self::Trash).map_err(|error| refused(&options.replaced, error))
            }
        }
    }

    fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self {
            Retirement::Backup(backups) => Some(lock(&backups.turn)),
            Retirement::Gone | Retirement::Trash(_) => None,
        }
    }

    /// Keeps what has `name` before it is replaced: until then the name stays with it.
    pub(crate) fn keep(&self, tree: &Tree, dir: &Dir, parent: &RelPath, name: &Name) -> Result<(), Errno> {
        let to = match self {
            Retirement::Gone => return Ok(()),
            Retirement::Backup(backups) => backups.place(tree, dir, parent, name)?,
            Retirement::Trash(trash) => (trash.place(tree, parent)?, name.as_bytes().to_vec()),
        };
        match dir.info(name.as_bytes()) {
            Err(Errno::NOENT) => return Ok(()),
            Ok(info) if info.is_dir() => return Ok(()),
            Ok(info) => self.tell_taken(parent, name, &info)?,
            Err(error) => return Err(error),
        }
        let _turn = self.turn();
        second_name(dir, name.as_bytes(), &to.0, &to.1)
    }

    fn tell_taken(&self, parent: &RelPath, name: &Name, was: &Info) -> Result<(), Errno> {
        match self {
            Retirement::Trash(trash) => trash.taken(&parent.join(name), was),
            Retirement::Gone | Retirement::Backup(_) => Ok(()),
        }
    }

    /// What took the place of something that was kept is there now.
    pub(crate) fn replaced(&self, dir: &Dir, parent: &RelPath, name: &Name) -> Result<(), Errno> {
        match self {
            Retirement::Trash(trash) => trash.replaced(&parent.join(name), &dir.info(name.as_bytes())?),
            Retirement::Gone | Retirement::Backup(_) => Ok(()),
        }
    }

    /// Takes anything but a directory away.
    pub(crate) fn remove(
        &self,
        tree: &Tree,
        dir: &Dir,
        parent: &RelPath,
        name: &Name,
    ) -> Result<Left, Errno> {
        let (to, to_name) = match self {
            Retirement::Gone => return dir.remove_file(name.as_bytes()).map(|()| Left::Elsewhere),
            Retirement::Backup(backups) => {
                if backups.is_one_beside(name) {
                    return dir.remove_file(name.as_bytes()).map(|()| Left::Elsewhere);
                }
                backups.place(tree, dir, parent, name)?
            }
            Retirement::Trash(trash) => {
                trash.taken(&parent.join(name), &dir.info(name.as_bytes())?)?;
                (trash.place(tree, parent)?, name.as_bytes().to_vec())
            }
        };
        match dir.rename(name.as_bytes(), &to, &to_name) {
            Err(Errno::XDEV) => {
                let _turn = self.turn();
                copy(dir, name.as_bytes(), &to, &to_name)?;
                dir.remove_file(name.as_bytes())?;
            }
            result => result?,
        }
        match self {
            Retirement::Backup(Backups { elsewhere: None, .. }) => Ok(Left::Beside),
            Retirement::Gone | Retirement::Backup(_) | Retirement::Trash(_) => Ok(Left::Elsewhere),
        }
    }

    /// Removes a directory that is empty now; it was `info` before it was emptied.
    pub(crate) fn remove_dir(
        &self,
        tree: &Tree,
        dir: &Dir,
        parent: &RelPath,
        name: &Name,
        info: &Info,
    ) -> Result<(), Errno> {
        let Retirement::Trash(trash) = self else { return dir.remove_dir(name.as_bytes()) };
        if !is_empty(&dir.dir(name)?)? {
            return Err(Errno::NOTEMPTY);
        }
        let path = parent.join(name);
        let like = trash.place(tree, &path)?.hold_self()?;
        copy_attributes(&dir.hold(name.as_bytes())?, &like)?;
        // An ACL changes the mode, and what is kept below must stay within reach.
        like.set_mode(info.raw_mode & 0o7777 | needed_mode())?;
        trash.taken(&path, info)?;
        dir.remove_dir(name.as_bytes())?;
        trash.removed_dir(&path, info)
    }

    /// Whether something other than a directory that is taken away stays beside, under another name.
    pub(crate) fn leaves_beside(&self, name: &Name) -> bool {
        match self {
            Retirement::Backup(backups) => backups.elsewhere.is_none() && !backups.is_one_beside(name),
            Retirement::Gone | Retirement::Trash(_) => false,
        }
    }

    /// Whether this is what earlier runs kept, which no deletion takes.
    pub(crate) fn protects(&self, dir: &Dir, name: &Name) -> bool {
        let kept_in = match self {
            Retirement::Gone => return false,
            Retirement::Backup(backups) if backups.elsewhere.is_none() => return backups.is_one_beside(name),
            Retirement::Backup(backups) => match backups.elsewhere.as_ref().and_then(Elsewhere::identity) {
                Some(identity) => identity,
                None => return false,
            },
            Retirement::Trash(trash) => trash.identity(),
        };
        dir.info(name.as_bytes()).is_ok_and(|info| info.is_dir() && (info.device, info.inode) == kept_in)
    }
}

/// What was asked for can't be done here.
pub(crate) fn refused(asked: &Replaced, error: Errno) -> SessionError {
    match asked {
        Replaced::Trash { directory } if error == Errno::XDEV => {
            let why = format!(
                "--trash {:?} is not on the destination's file system, or outside the directory that the agent is held \
                 to: what it keeps is moved there, not copied; nothing was changed",
                protocol::path::escaped(directory)
            );
            SessionError::refused(Exit::Selection, why)
        }
        Replaced::Trash { directory } => bases::refused("--trash", directory, error),
        Replaced::Backup { directory, .. } => {
            bases::refused("--backup-dir", directory.as_deref().unwrap_or_default(), error)
        }
        Replaced::Gone => SessionError::io("open what is beside the destination", error),
    }
}

/// `--backup`.
#[derive(Debug)]
pub(crate) struct Backups<'a> {
    suffix: Vec<u8>,
    /// Threads that make backups take turns: what is not complete has one name.
    turn: Mutex<()>,
    elsewhere: Option<Elsewhere<'a>>,
}

/// `--backup-dir`.
#[derive(Debug)]
struct Elsewhere<'a> {
    path: Vec<u8>,
    sides: &'a Sides<'a>,
    opened: Mutex<Option<Arc<Dir>>>,
    /// The directory of the last backup: most are followed by a sibling.
    last: Mutex<Option<(RelPath, Arc<Dir>)>>,
}

impl Backups<'_> {
    /// The directory and the name that a backup gets.
    fn place(
        &self,
        tree: &Tree,
        dir: &Dir,
        parent: &RelPath,
        name: &Name,
    ) -> Result<(Arc<Dir>, Vec<u8>), Errno> {
        let to = match &self.elsewhere {
            None => Arc::new(dir.try_clone()?),
            Some(elsewhere) => elsewhere.directory(tree, parent)?,
        };
        Ok((to, [name.as_bytes(), &self.suffix].concat()))
    }

    fn is_one_beside(&self, name: &Name) -> bool {
        self.elsewhere.is_none() && name.as_bytes().ends_with(&self.suffix)
    }
}

impl<'a> Elsewhere<'a> {
    fn new(path: &[u8], sides: &'a Sides<'a>) -> Result<Elsewhere<'a>, Errno> {
        let opened = match sides.open(path) {
            Ok(dir) => Some(Arc::new(dir)),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error),
        };
        Ok(Elsewhere { path: path.to_vec(), sides, opened: Mutex::new(opened), last: Mutex::default() })
    }

    fn is(&self, dir: &Dir) -> bool {
        let there = dir.own_info().map(|info| (info.device, info.inode));
        self.identity().is_some_and(|identity| there == Ok(identity))
    }

    fn identity(&self) -> Option<((u32, u32), u64)> {
        let info = lock(&self.opened).as_ref()?.own_info().ok()?;
        Some((info.device, info.inode))
    }

    fn root(&self) -> Result<Arc<Dir>, Errno> {
        let mut opened = lock(&self.opened);
        if let Some(dir) = &*opened {
            return Ok(Arc::clone(dir));
        }
        let dir = Arc::new(self.sides.open_or_make(&self.path)?);
        *opened = Some(Arc::clone(&dir));
        Ok(dir)
    }

    fn directory(&self, tree: &Tree, path: &RelPath) -> Result<Arc<Dir>, Errno> {
        let mut last = lock(&self.last);
        if let Some((_, dir)) = last.as_ref().filter(|(known, _)| known == path) {
            return Ok(Arc::clone(dir));
        }
        let dir = Arc::new(same_directory(self.root()?.as_ref(), tree, path)?);
        *last = Some((path.clone(), Arc::clone(&dir)));
        Ok(dir)
    }
}

/// The directory at `path` below `root`; those of it that are missing get owner and mode of the destination's.
pub(crate) fn same_directory(root: &Dir, tree: &Tree, path: &RelPath) -> Result<Dir, Errno> {
    let Some((above, name)) = path.split_last() else { return root.try_clone() };
    match Tree::below(root.try_clone()?).dir(path) {
        Err(Errno::NOENT) => {}
        opened => return opened,
    }
    let parent = same_directory(root, tree, &above)?;
    match parent.make_dir(name.as_bytes()) {
        Ok(()) => {
            let like = tree.dir(path)?.own_info()?;
            // Who is not root gives what he can; the mode comes last, an owner clears bits of it.
            let held = parent.hold(name.as_bytes())?;
            let _ = held.set_owner(Some(like.uid), Some(like.gid));
            held.set_mode(like.raw_mode & 0o7777 | needed_mode())?;
        }
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    parent.dir(&name)
}

/// What this user needs of a directory's mode to move things in and out of it.
pub(crate) fn needed_mode() -> u16 {
    if rustix::process::geteuid().is_root() { 0 } else { 0o700 }
}

/// Whether a directory has nothing in it, not even what a run left in the middle of its work.
pub(crate) fn is_empty(dir: &Dir) -> Result<bool, Errno> {
    dir.names().map(|names| names.is_empty() && !names.has_staging())
}

/// Gives what has `name` a second one, in place of whatever file has that.
fn second_name(dir: &Dir, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<(), Errno> {
    match dir.link(name, to, to_name) {
        Err(Errno::EXIST) => {}
        Err(error) if is_no_link(error) => return copy(dir, name, to, to_name),
        linked => return linked,
    }
    let identity = |info: Info| (info.device, info.inode);
    if to.info(to_name).map(identity) == dir.info(name).map(identity) {
        // A run that was killed before it replaced the file had come as far.
        return Ok(());
    }
    let _ = to.remove_file(STAGED_BACKUP_NAME);
    match dir.link(name, to, STAGED_BACKUP_NAME) {
        Err(error) if is_no_link(error) => return copy(dir, name, to, to_name),
        linked => linked?,
    }
    rename_staged(to, to_name)
}

fn is_no_link(error: Errno) -> bool {
    matches!(error, Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP | Errno::NOSYS)
}

fn rename_staged(to: &Dir, to_name: &[u8]) -> Result<(), Errno> {
    to.rename(STAGED_BACKUP_NAME, to, to_name).inspect_err(|_| {
        let _ = to.remove_file(STAGED_BACKUP_NAME);
    })
}

/// Copies an entry with its metadata, in place of whatever file has the name; it is on disk then.
fn copy(dir: &Dir, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<(), Errno> {
    stage_copy(dir, name, to)?;
    rename_staged(to, to_name)?;
    to.sync_entries()
}

/// Copies an entry with its metadata, under a name that is nobody's; the content is on disk then.
pub(crate) fn stage_copy(dir: &Dir, name: &[u8], to: &Dir) -> Result<(), Errno> {
    let info = dir.info(name)?;
    let _ = to.remove_file(STAGED_BACKUP_NAME);
    let made = if info.is_file() { copy_file(dir, name, to) } else { make_same(dir, name, &info, to) };
    let complete = made.and_then(|()| {
        let held = to.hold(STAGED_BACKUP_NAME)?;
        copy_attributes(&dir.hold(name)?, &held)?;
        Metadata::of(&info).apply(&held).map_err(|(_, error)| error)
    });
    if let Err(error) = complete {
        let _ = to.remove_file(STAGED_BACKUP_NAME);
        return Err(error);
    }
    if info.is_file() {
        let file = to.open_file(STAGED_BACKUP_NAME)?;
        file.sync_all().map_err(errno)?;
    }
    Ok(())
}

/// Gives a copy the extended attributes and ACLs of what it is a copy of, as far as its file system has them and this user
/// may set them, and no others.
pub(crate) fn copy_attributes(from: &impl Handle, to: &impl Handle) -> Result<(), Errno> {
    let split = |names: Vec<u8>| -> Vec<Vec<u8>> {
        names.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
    };
    let wanted = split(from.attribute_names()?);
    for name in split(to.attribute_names()?).iter().filter(|name| !wanted.contains(name)) {
        unless_refused(to.remove_attribute(name))?;
    }
    for name in &wanted {
        if let Some(value) = from.attribute(name)? {
            unless_refused(to.set_attribute(name, &value))?;
        }
    }
    Ok(())
}

fn unless_refused(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => Ok(()),
        result => result,
    }
}

fn copy_file(dir: &Dir, name: &[u8], to: &Dir) -> Result<(), Errno> {
    let from = dir.open_file(name)?;
    let before = tree::info_of(&from)?;
    let copied = to.create_file(STAGED_BACKUP_NAME)?;
    copy_content(&from, &copied)?;
    copied.sync_data().map_err(errno)?;
    let same = hash(&dir.open_file(name)?)? == hash(&to.open_file(STAGED_BACKUP_NAME)?)?;
    if same && before.same_content(&tree::info_of(&from)?) { Ok(()) } else { Err(Errno::STALE) }
}

/// Copies all of a file to a new one, with its holes.
pub(crate) fn copy_content(from: &File, to: &File) -> Result<(), Errno> {
    let bytes = from.metadata().map_err(errno)?.len();
    holes::copy_range(from, to, 0, bytes, Room::default()).map_err(|error| match error {
        CopyError::Basis => Errno::IO,
        CopyError::Write(error) => errno(error),
    })
}

/// What two copies are compared by.
pub(crate) fn hash(file: &File) -> Result<ContentHash, Errno> {
    file.metadata().and_then(|metadata| holes::hash(file, metadata.len())).map_err(errno)
}

fn make_same(dir: &Dir, name: &[u8], info: &Info, to: &Dir) -> Result<(), Errno> {
    if info.is_link() {
        return to.make_link(STAGED_BACKUP_NAME, &dir.read_link(name)?);
    }
    let any = Name::new(STAGED_BACKUP_NAME).map_err(|_| Errno::INVAL)?;
    let entry = info.entry(any, Vec::new(), Default::default()).ok_or(Errno::INVAL)?;
    to.make_node(STAGED_BACKUP_NAME, &entry.kind)
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

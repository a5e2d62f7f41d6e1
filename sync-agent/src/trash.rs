//! The trash: what runs replaced or deleted, each run's in a dated directory, and putting it back.
//!
//! A run moves what it takes away, so all that belongs to it (owner, mode, times, attributes, other names) stays as it
//! was; for that the trash must be on the destination's file system. Undoing a run moves it back, unless what stands
//! in its place now is not what the run put there.
//!
//! # Format
//! ```text
//! DIR/2026-11-23T10-15-00Z/tree/…    what was taken, at its path below the destination
//! DIR/2026-11-23T10-15-00Z/log       records, each ended by a NUL, which no path contains:
//!     sync-agent trash 1 DEVICE INODE PATH                 the destination; devices as MAJOR:MINOR
//!     dir MODE UID GID MTIME PATH                          a directory that was removed; octal, seconds.nanoseconds
//!     taken PATH                                           nothing of the run stands there
//!     replaced DEVICE INODE SIZE MTIME CTIME PATH          what the run put there
//! ```
//! A record is written after what it tells. Of a run that was killed the last ones may be missing: what has none is
//! put back only where nothing stands.

use crate::metadata::Metadata;
use crate::retire::same_directory;
use crate::tree::{self, Dir, Follow, Info, Tree};
use crate::workers::lock;
use protocol::entry::Timestamp;
use protocol::path::{Name, RelPath};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};

const TREE: &[u8] = b"tree";
const LOG: &[u8] = b"log";
const MAGIC: &str = "sync-agent trash 1";

/// The trash of a run.
#[derive(Debug)]
pub(crate) struct Trash {
    directory: Dir,
    info: Info,
    /// The first record.
    header: Vec<u8>,
    /// Made when there is something to keep.
    run: Mutex<Option<Arc<Opened>>>,
}

#[derive(Debug)]
struct Opened {
    tree: Dir,
    log: Mutex<File>,
}

impl Trash {
    /// The trash in `directory` for the destination `home`.
    ///
    /// # Errors
    /// `EXDEV` where they are on different file systems.
    pub(crate) fn open(directory: &Dir, home: &Dir) -> Result<Trash, Errno> {
        let (info, own) = (directory.own_info()?, home.own_info()?);
        if info.device != own.device {
            return Err(Errno::XDEV);
        }
        let (major, minor) = own.device;
        let mut header = format!("{MAGIC} {major}:{minor} {} ", own.inode).into_bytes();
        header.extend(home.path()?);
        Ok(Trash { directory: directory.try_clone()?, info, header, run: Mutex::default() })
    }

    pub(crate) fn identity(&self) -> ((u32, u32), u64) {
        (self.info.device, self.info.inode)
    }

    /// Where what is in the directory at `parent` of the destination goes.
    pub(crate) fn place(&self, tree: &Tree, parent: &RelPath) -> Result<Arc<Dir>, Errno> {
        same_directory(&self.run()?.tree, tree, parent).map(Arc::new)
    }

    /// An entry was moved here.
    pub(crate) fn taken(&self, path: &RelPath) -> Result<(), Errno> {
        self.record("taken", path)
    }

    /// What is in the trash was replaced, by what is `now` there.
    pub(crate) fn replaced(&self, path: &RelPath, now: &Info) -> Result<(), Errno> {
        self.record(&format!("replaced {}", identity(now)), path)
    }

    /// A directory was removed; it was `info`.
    pub(crate) fn removed_dir(&self, path: &RelPath, info: &Info) -> Result<(), Errno> {
        let Info { raw_mode, uid, gid, mtime, .. } = info;
        self.record(&format!("dir {:o} {uid} {gid} {}", raw_mode & 0o7777, time(*mtime)), path)
    }

    fn record(&self, what: &str, path: &RelPath) -> Result<(), Errno> {
        let mut record = format!("{what} ").into_bytes();
        record.extend_from_slice(path.as_bytes());
        record.push(0);
        lock(&self.run()?.log).write_all(&record).map_err(|error| errno(&error))
    }

    fn run(&self) -> Result<Arc<Opened>, Errno> {
        let mut run = lock(&self.run);
        if let Some(run) = &*run {
            return Ok(Arc::clone(run));
        }
        let dir = self.new_dated()?;
        dir.make_dir(TREE)?;
        let mut log = dir.create_file(LOG)?;
        log.write_all(&[&self.header[..], b"\0"].concat()).map_err(|error| errno(&error))?;
        let opened = Arc::new(Opened { tree: dir.open_beneath(TREE)?, log: Mutex::new(log) });
        *run = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// A directory of this moment's name, or the next one.
    fn new_dated(&self) -> Result<Dir, Errno> {
        let date = date(tree::now().secs);
        for number in 1.. {
            let name = if number == 1 { date.clone() } else { format!("{date}-{number}") };
            match self.directory.make_dir(name.as_bytes()) {
                Err(Errno::EXIST) if number < MOST_IN_A_SECOND => {}
                made => return made.and_then(|()| self.directory.open_beneath(name.as_bytes())),
            }
        }
        Err(Errno::EXIST)
    }
}

const MOST_IN_A_SECOND: u32 = 1000;

/// A run in a trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrashedRun {
    /// The name of its directory: when it was.
    pub name: String,
    /// The destination that it changed.
    pub destination: Vec<u8>,
    /// Entries that it removed or replaced.
    pub entries: u64,
}

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

/// A trash that can't be read or undone.
#[derive(Debug, thiserror::Error)]
pub enum TrashError {
    /// A system call failed.
    #[error("cannot {0}")]
    Io(String, #[source] std::io::Error),
    /// There is no such run.
    #[error("there is no run {0:?} in this trash; `sync-client trash list` names them")]
    NoRun(String),
    /// Its log is not one.
    #[error("the log of {0:?} is damaged, or of another version of this program; nothing was changed")]
    Log(String),
    /// The directory at that path is another one now.
    #[error("{0} is not the directory that this run changed: move that one back first; nothing was changed")]
    Moved(String),
    /// A run is at work there.
    #[error("a run is working on {0}; wait for it to end")]
    Busy(String),
}

/// The runs in a trash, the oldest first.
///
/// # Errors
/// It can't be read.
pub fn list(directory: &Dir) -> Result<Vec<TrashedRun>, TrashError> {
    let names = directory.reopened().and_then(|dir| dir.names());
    let names = names.map_err(|error| io("read the trash", error))?;
    let runs = names.iter().filter_map(|name| std::str::from_utf8(name).ok());
    Ok(runs
        .filter_map(|name| {
            let records = read(directory, name).ok()?;
            let tree = directory.open_beneath(name.as_bytes()).and_then(|dir| dir.open_beneath(TREE)).ok()?;
            let entries = count(&tree).ok()? + records.removed_dirs.len() as u64;
            Some(TrashedRun { name: name.to_owned(), destination: records.destination, entries })
        })
        .collect())
}

fn count(dir: &Dir) -> Result<u64, Errno> {
    let mut entries = 0;
    for name in dir.names()?.iter() {
        let Ok(name) = Name::new(name) else { continue };
        let is_dir = dir.info(name.as_bytes())?.is_dir();
        entries += if is_dir { count(&dir.dir(&name)?)? } else { 1 };
    }
    Ok(entries)
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
    let records = read(directory, name)?;
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
    let trash = run.open_beneath(TREE).map_err(|error| io("open what the run kept", error))?;
    let tree = Tree::open(tree::path_of(&records.destination), Follow::Never)
        .map_err(|error| io(&format!("open {shown}"), error))?;
    let mut undo = Undo { tree, records: &records, dry_run, each, times: BTreeMap::new(), stays: false };
    undo.make_directories();
    undo.restore(&trash, &RelPath::root());
    let stays = undo.stays;
    undo.set_times();
    if !dry_run {
        home.sync_file_system().map_err(|error| io("write the destination to disk", error))?;
        if !stays {
            let _ = crate::staging::remove_all(directory, name.as_bytes());
        }
    }
    Ok(())
}

fn io(what: &str, error: Errno) -> TrashError {
    TrashError::Io(what.to_owned(), error.into())
}

struct Undo<'a> {
    tree: Tree,
    records: &'a Records,
    dry_run: bool,
    each: &'a mut dyn FnMut(Undone),
    /// What directories of the destination get back at the end, children after parents.
    times: BTreeMap<Vec<u8>, (RelPath, Metadata)>,
    stays: bool,
}

impl Undo<'_> {
    fn refuse(&mut self, path: RelPath, why: Refusal) {
        self.stays = true;
        (self.each)(Undone::Refused(path, why));
    }

    /// Directories that were removed, parents first.
    fn make_directories(&mut self) {
        let removed: Vec<(RelPath, Metadata)> = self.records.removed_dirs.values().cloned().collect();
        for (path, metadata) in removed {
            match self.make_directory(&path) {
                Ok(true) => {
                    self.times.insert(path.as_bytes().to_vec(), (path.clone(), metadata));
                    (self.each)(Undone::Restored(path));
                }
                Ok(false) => {}
                Err(why) => self.refuse(path, why),
            }
        }
    }

    /// Whether it was missing.
    fn make_directory(&mut self, path: &RelPath) -> Result<bool, Refusal> {
        let Some((above, name)) = path.split_last() else { return Ok(false) };
        let parent = match self.tree.dir(&above) {
            // It would have been made.
            Err(Errno::NOENT | Errno::NOTDIR)
                if self.dry_run && self.records.removed_dirs.contains_key(above.as_bytes()) =>
            {
                return Ok(true);
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(Refusal::Parent),
            opened => opened.map_err(Refusal::Errno)?,
        };
        match parent.info(name.as_bytes()) {
            Ok(now) if now.is_dir() => return Ok(false),
            Ok(now) if self.records.is_of_run(path, &now) => {
                if !self.dry_run {
                    self.remember(&above, &parent);
                    parent.remove_file(name.as_bytes()).map_err(Refusal::Errno)?;
                }
            }
            Ok(_) => return Err(Refusal::Changed),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(Refusal::Errno(error)),
        }
        if !self.dry_run {
            self.remember(&above, &parent);
            parent.make_dir(name.as_bytes()).map_err(Refusal::Errno)?;
        }
        Ok(true)
    }

    /// A directory that is about to change keeps its time.
    fn remember(&mut self, path: &RelPath, dir: &Dir) {
        if let Ok(info) = dir.own_info() {
            let known = self.times.entry(path.as_bytes().to_vec());
            known.or_insert_with(|| (path.clone(), Metadata::of(&info)));
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
            match trash.info(name.as_bytes()) {
                Ok(info) if info.is_dir() => match trash.dir(&name) {
                    Ok(dir) => {
                        self.restore(&dir, &below);
                        if !self.dry_run {
                            let _ = trash.remove_dir(name.as_bytes());
                        }
                    }
                    Err(error) => self.refuse(below, Refusal::Errno(error)),
                },
                Ok(_) => match self.put_back(trash, path, &name) {
                    Ok(()) => (self.each)(Undone::Restored(below)),
                    Err(why) => self.refuse(below, why),
                },
                Err(error) => self.refuse(below, Refusal::Errno(error)),
            }
        }
    }

    fn put_back(&mut self, trash: &Dir, parent: &RelPath, name: &Name) -> Result<(), Refusal> {
        let path = parent.join(name);
        let dir = match self.tree.dir(parent) {
            // It would have been made.
            Err(Errno::NOENT | Errno::NOTDIR)
                if self.dry_run && self.records.removed_dirs.contains_key(parent.as_bytes()) =>
            {
                return Ok(());
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(Refusal::Parent),
            opened => opened.map_err(Refusal::Errno)?,
        };
        let is_empty_dir = match dir.info(name.as_bytes()) {
            Err(Errno::NOENT) => false,
            Err(error) => return Err(Refusal::Errno(error)),
            Ok(now) if now.is_dir() => {
                let names = dir.dir(name).and_then(|below| below.names()).map_err(Refusal::Errno)?;
                if !names.is_empty() {
                    return Err(Refusal::Directory);
                }
                true
            }
            Ok(now) if self.records.is_of_run(&path, &now) => false,
            // A run that was killed before it replaced it: it has two names.
            Ok(now) if trash.info(name.as_bytes()).is_ok_and(|kept| is_one(&kept, &now)) => {
                let gone = if self.dry_run { Ok(()) } else { trash.remove_file(name.as_bytes()) };
                return gone.map_err(Refusal::Errno);
            }
            Ok(_) => return Err(Refusal::Changed),
        };
        if self.dry_run {
            return Ok(());
        }
        self.remember(parent, &dir);
        if is_empty_dir {
            dir.remove_dir(name.as_bytes()).map_err(Refusal::Errno)?;
        }
        trash.rename(name.as_bytes(), &dir, name.as_bytes()).map_err(Refusal::Errno)
    }

    /// The metadata of directories, children before parents.
    fn set_times(self) {
        for (path, metadata) in self.times.into_values().rev() {
            let held = self.tree.dir(&path).and_then(|dir| dir.hold_self());
            if let Ok(held) = held
                && let Err((_, error)) = metadata.apply(&held)
            {
                (self.each)(Undone::Refused(path, Refusal::Errno(error)));
            }
        }
    }
}

/// A log, read.
#[derive(Debug, Default)]
struct Records {
    home: ((u32, u32), u64),
    destination: Vec<u8>,
    /// By path, so parents come before children.
    removed_dirs: BTreeMap<Vec<u8>, (RelPath, Metadata)>,
    replaced: HashMap<Vec<u8>, String>,
}

impl Records {
    /// Whether what is there now is what the run put there. Of a file with several names, the going of one changes the ctime
    /// that the others show, also that of an undo that was cut short.
    fn is_of_run(&self, path: &RelPath, now: &Info) -> bool {
        let Some(put) = self.replaced.get(path.as_bytes()) else { return false };
        let file = |identity: &str| identity.split(' ').take(2).map(str::to_owned).collect::<Vec<_>>();
        let but_ctime = |identity: &str| identity.rsplit_once(' ').map(|(rest, _)| rest.to_owned());
        let now = identity(now);
        let has_names = || self.replaced.values().filter(|other| file(other) == file(put)).count() > 1;
        *put == now || but_ctime(put) == but_ctime(&now) && has_names()
    }

    fn parse(log: &[u8]) -> Option<Records> {
        let mut records = Records::default();
        // What follows the last NUL is a record that was cut.
        let end = log.iter().rposition(|&byte| byte == 0)?;
        for (number, record) in log[..end].split(|&byte| byte == 0).enumerate() {
            if number == 0 {
                let fields = record.strip_prefix(MAGIC.as_bytes())?.strip_prefix(b" ")?;
                let ([device, inode], path) = split(fields)?;
                let (major, minor) = device.split_once(':')?;
                records.home = ((major.parse().ok()?, minor.parse().ok()?), inode.parse().ok()?);
                records.destination = path.to_vec();
            } else if let Some(rest) = record.strip_prefix(b"dir ") {
                let ([mode, uid, gid, mtime], path) = split(rest)?;
                let (secs, nanos) = mtime.split_once('.')?;
                let mtime = Timestamp { secs: secs.parse().ok()?, nanos: nanos.parse().ok()? };
                let mode = u16::from_str_radix(mode, 8).ok()?;
                let metadata = Metadata::exactly(uid.parse().ok()?, gid.parse().ok()?, mode, mtime);
                records.removed_dirs.insert(path.to_vec(), (RelPath::new(path).ok()?, metadata));
            } else if let Some(rest) = record.strip_prefix(b"replaced ") {
                let (fields, path): ([&str; 5], _) = split(rest)?;
                records.replaced.insert(path.to_vec(), fields.join(" "));
            }
        }
        Some(records)
    }
}

/// The first words of a record, and the path that is the rest.
fn split<const N: usize>(mut record: &[u8]) -> Option<([&str; N], &[u8])> {
    let mut fields = [""; N];
    for field in &mut fields {
        let space = record.iter().position(|&byte| byte == b' ')?;
        *field = std::str::from_utf8(&record[..space]).ok()?;
        record = &record[space + 1..];
    }
    Some((fields, record))
}

fn read(directory: &Dir, name: &str) -> Result<Records, TrashError> {
    let missing = || TrashError::NoRun(name.to_owned());
    let single = Name::new(name.as_bytes()).map_err(|_| missing())?;
    let run = directory.dir(&single).map_err(|_| missing())?;
    let mut log = run.open_file(LOG).map_err(|_| TrashError::Log(name.to_owned()))?;
    let mut bytes = Vec::new();
    log.read_to_end(&mut bytes).map_err(|error| TrashError::Io("read the log".to_owned(), error))?;
    Records::parse(&bytes).ok_or_else(|| TrashError::Log(name.to_owned()))
}

fn is_one(one: &Info, other: &Info) -> bool {
    (one.device, one.inode) == (other.device, other.inode)
}

/// What tells whether a file is still the same one, untouched.
fn identity(info: &Info) -> String {
    let (major, minor) = info.device;
    // A directory changes with what is put into it; that it is the same one is enough.
    if info.is_dir() {
        return format!("{major}:{minor} {} - - -", info.inode);
    }
    let (mtime, ctime) = (time(info.mtime), time(info.ctime));
    format!("{major}:{minor} {} {} {mtime} {ctime}", info.inode, info.size_bytes)
}

fn time(time: Timestamp) -> String {
    format!("{}.{}", time.secs, time.nanos)
}

/// Seconds since 1970 as a date that is a good file name and sorts by time.
///
/// # Source
/// Days to year, month and day: Hinnant, "chrono-Compatible Low-Level Date Algorithms", 2013, `civil_from_days`.
fn date(secs: i64) -> String {
    let (days, second) = (secs.div_euclid(86_400) + 719_468, secs.rem_euclid(86_400));
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * shifted + 2) / 5 + 1, (shifted + 2) % 12 + 1);
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let mut text = String::new();
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let _ = write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}-{minute:02}-{:02}Z", second % 60);
    text
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (secs, expected) in [
            (0, "1970-01-01T00-00-00Z"),
            (951_782_399, "2000-02-28T23-59-59Z"),
            (951_782_400, "2000-02-29T00-00-00Z"),
            (1_795_428_900, "2026-11-23T10-15-00Z"),
            (4_107_542_400, "2100-03-01T00-00-00Z"),
        ] {
            assert_eq!(date(secs), expected);
        }
    }

    #[test]
    fn a_log_cut_anywhere_is_read_up_to_there_or_refused() {
        let log = b"sync-agent trash 1 8:1 77 /srv/a b\0dir 1755 1 2 -5.7 d\xff\0taken d/x\0replaced 8:1 9 3 1.0 2.0 r \0";
        let whole = Records::parse(log).unwrap();
        assert_eq!((whole.home, &whole.destination[..]), (((8, 1), 77), &b"/srv/a b"[..]));
        assert_eq!(whole.removed_dirs.len(), 1);
        assert_eq!(whole.replaced[&b"r "[..]], "8:1 9 3 1.0 2.0");
        for length in 0..log.len() {
            if let Some(cut) = Records::parse(&log[..length]) {
                assert_eq!(cut.home, whole.home, "{length}");
                assert!(cut.replaced.is_empty(), "{length}");
            }
        }
        for damaged in [&b"sync-agent trash 2 8:1 77 /\0"[..], b"", b"\0", b"sync-agent trash 1 8 77 /\0"] {
            assert!(Records::parse(damaged).is_none(), "{damaged:?}");
        }
    }
}

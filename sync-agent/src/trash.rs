//! The trash: what runs replaced or deleted, each run's in a dated directory, and putting it back ([`undo`]).
//!
//! A run moves what it takes away, so all that belongs to it (owner, mode, times, attributes, other names) stays as it
//! was; for that the trash must be on the destination's file system. Only what is on another one, mounted below the
//! destination, is copied. A removed directory leaves its attributes on the one that has its path in the trash.
//!
//! # Format
//! ```text
//! DIR/2026-11-23T10-15-00Z/tree/…    what was taken, at its path below the destination; gone when all of it is back
//! DIR/2026-11-23T10-15-00Z/new/…     what the run had put there, when it is undone
//! DIR/2026-11-23T10-15-00Z/log       what was done, see `log.rs`
//! ```

mod log;
mod undo;

pub use undo::{Refusal, Undone, undo};

use crate::retire::same_directory;
use crate::tree::{self, Dir, Info, Tree};
use crate::workers::lock;
use log::Record;
use protocol::path::{Name, RelPath};
use rustix::io::Errno;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

const TREE: &[u8] = b"tree";
const LOG: &[u8] = b"log";
const NEW: &[u8] = b"new";

/// The trash of a run.
#[derive(Debug)]
pub(crate) struct Trash {
    directory: Dir,
    info: Info,
    /// The first records.
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
    pub(crate) fn open(directory: &Dir, tree: &Tree, home: &Dir) -> Result<Trash, Errno> {
        let (info, own) = (directory.own_info()?, home.own_info()?);
        if info.device != own.device {
            return Err(Errno::XDEV);
        }
        let header = log::header(&own, &home.path()?, tree);
        Ok(Trash { directory: directory.try_clone()?, info, header, run: Mutex::default() })
    }

    pub(crate) fn identity(&self) -> ((u32, u32), u64) {
        (self.info.device, self.info.inode)
    }

    /// Where what is in the directory at `parent` of the destination goes.
    pub(crate) fn place(&self, tree: &Tree, parent: &RelPath) -> Result<Arc<Dir>, Errno> {
        same_directory(&self.run()?.tree, tree, parent).map(Arc::new)
    }

    /// What is about to be moved here, or to be removed; now it is `info`.
    pub(crate) fn taken(&self, path: &RelPath, info: &Info) -> Result<(), Errno> {
        self.record(&Record::Taken(info), path)
    }

    /// What is in the trash was replaced, by what is `now` there.
    pub(crate) fn replaced(&self, path: &RelPath, now: &Info) -> Result<(), Errno> {
        self.record(&Record::Replaced(now), path)
    }

    /// A directory was removed; it was `info`.
    pub(crate) fn removed_dir(&self, path: &RelPath, info: &Info) -> Result<(), Errno> {
        self.record(&Record::RemovedDirectory(info), path)
    }

    fn record(&self, record: &Record<'_>, path: &RelPath) -> Result<(), Errno> {
        lock(&self.run()?.log).write_all(&record.of(path)).map_err(|error| errno(&error))
    }

    fn run(&self) -> Result<Arc<Opened>, Errno> {
        let mut run = lock(&self.run);
        if let Some(run) = &*run {
            return Ok(Arc::clone(run));
        }
        let dir = self.new_dated()?;
        dir.make_dir(TREE)?;
        let mut log = dir.create_file(LOG)?;
        log.write_all(&self.header).map_err(|error| errno(&error))?;
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
    /// Entries that it removed or replaced; of one that was undone, those that it had put there.
    pub entries: u64,
    /// All that it took is back.
    pub is_undone: bool,
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
    /// There is nothing left to put back.
    #[error(
        "{0:?} is undone already; what it had put there is below its directory `new`, which you may delete"
    )]
    Undone(String),
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
            let (records, _) = log::read(directory, name).ok()?;
            let run = directory.open_beneath(name.as_bytes()).ok()?;
            let (entries, is_undone) = match run.open_beneath(TREE) {
                Ok(tree) => (count(&tree).ok()? + records.removed_dirs.len() as u64, false),
                Err(_) => (run.open_beneath(NEW).and_then(|new| count(&new)).ok()?, true),
            };
            Some(TrashedRun { name: name.to_owned(), destination: records.destination, entries, is_undone })
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

fn io(what: &str, error: Errno) -> TrashError {
    TrashError::Io(what.to_owned(), error.into())
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
}

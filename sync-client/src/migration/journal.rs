//! What was begun, done and failed: the memory of a migration, on the destination.
//!
//! # The file
//! `journal.jsonl` in the plan's state directory: one JSON object a line, only ever appended to.
//!
//! | field | what |
//! |---|---|
//! | `seq` | 0, 1, 2 …; a gap means that lines were lost |
//! | `time_ms` | milliseconds since 1970, by the destination's clock |
//! | `step`, `action` | what it is about |
//! | `state` | `begun`, `done`, `failed`; `noted` for what is only to be remembered |
//! | `data` | whatever the action has to tell: figures, a script's last words |
//!
//! The first record is `journal`/`opened` with the format's version and the pair of cores it belongs to.
//!
//! What always holds: [`Journal::record`] returns after the line is on disk (`fsync`; of a new file the directory's too). A
//! last line without its newline was being written when the machine stopped: it never counted, and is cut off. Any other
//! damage is refused, for a migration that has forgotten something is not one to continue. The lock is a lock on the file
//! `lock` beside it, which ends with its process.

use super::text;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The version of the file's format.
const VERSION: u64 = 1;
const FILE_NAME: &str = "journal.jsonl";
const LOCK_NAME: &str = "lock";
/// `status` has the lock for a moment, and so has what a killed run had just begun to start.
const MOMENT: Duration = Duration::from_millis(500);
/// Between two tries.
const LOOK: Duration = Duration::from_millis(10);
/// A journal longer than this is not one.
const MAX_BYTES: u64 = 256 << 20;

/// What became of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Begun,
    Done,
    Failed,
    Noted,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) seq: u64,
    pub(crate) time_ms: u64,
    pub(crate) step: String,
    pub(crate) action: String,
    pub(crate) state: State,
    #[serde(default)]
    pub(crate) data: Value,
}

/// A journal that can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("cannot {what} {} (state_dir in the plan names the place)", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("another process works on this migration (it holds {}); wait for its end, or look at it with `sync-client status`", path.display())]
    Busy { path: PathBuf },
    #[error("{} is damaged in line {line}: {why}\nA migration must not forget what it did: mend that line, or put the file aside and begin again with `sync-client check`", path.display())]
    Damaged { path: PathBuf, line: usize, why: String },
    #[error("{} belongs to another migration ({theirs}), not to this one ({ours}): name another state_dir in the plan", path.display())]
    Foreign { path: PathBuf, theirs: String, ours: String },
}

/// The open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    /// The file to append to, and the lock; neither where the journal is only read.
    file: Option<(File, File)>,
    /// How much of the file counts.
    len: u64,
    path: PathBuf,
    records: Vec<Record>,
}

impl Journal {
    /// Opens the journal of a migration in `dir`, makes it where there is none, and takes the lock.
    pub(crate) fn open(dir: &Path, identity: &str) -> Result<Journal, JournalError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| JournalError::Io { what, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io("make the directory", dir))?;
        let lock = lock(&dir.join(LOCK_NAME), MOMENT)?;
        let path = dir.join(FILE_NAME);
        let is_new = !path.exists();
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(io("open", &path))?;
        let (records, whole_bytes) = read_records(&mut file, &path)?;
        file.set_len(whole_bytes).map_err(io("cut the torn end of", &path))?;
        let mut journal = Journal { file: Some((file, lock)), len: whole_bytes, path, records };
        if is_new {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync", dir))?;
            // Those above may be new as well; what belongs to others may refuse, and is not.
            dir.ancestors()
                .skip(1)
                .filter_map(|dir| File::open(dir).ok())
                .for_each(|dir| drop(dir.sync_all()));
        }
        match journal.records.first() {
            None => journal.record(
                "journal",
                "opened",
                State::Noted,
                json!({"version": VERSION, "migration": identity}),
            )?,
            Some(first) => belongs(first, &journal.path, identity)?,
        }
        Ok(journal)
    }

    /// A journal that is looked at and takes no record.
    pub(crate) fn only_read(dir: &Path, identity: &str) -> Result<Journal, JournalError> {
        let records = Journal::read(dir, identity)?;
        Ok(Journal { file: None, len: 0, path: dir.join(FILE_NAME), records })
    }

    /// Reads a journal without the lock; no records where there is no file.
    pub(crate) fn read(dir: &Path, identity: &str) -> Result<Vec<Record>, JournalError> {
        let path = dir.join(FILE_NAME);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => {
                opened.map_err(|source| JournalError::Io { what: "open", path: path.clone(), source })?
            }
        };
        let (records, _) = read_records(&mut file, &path)?;
        if let Some(first) = records.first() {
            belongs(first, &path, identity)?;
        }
        Ok(records)
    }

    /// Whether a process works on the migration now.
    pub(crate) fn is_locked(dir: &Path) -> Result<bool, JournalError> {
        let path = dir.join(LOCK_NAME);
        if !path.exists() {
            return Ok(false);
        }
        match lock(&path, Duration::ZERO) {
            Ok(_) => Ok(false),
            Err(JournalError::Busy { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Appends a line and waits until it is on disk.
    pub(crate) fn record(
        &mut self,
        step: &str,
        action: &str,
        state: State,
        data: Value,
    ) -> Result<(), JournalError> {
        let Some((file, _)) = &mut self.file else { return Ok(()) };
        let record = Record {
            seq: self.records.last().map_or(0, |last| last.seq + 1),
            time_ms: text::now_ms(),
            step: step.to_owned(),
            action: action.to_owned(),
            state,
            data,
        };
        let io = |source| JournalError::Io { what: "write", path: self.path.clone(), source };
        let mut line = serde_json::to_vec(&record).map_err(|error| io(error.into()))?;
        line.push(b'\n');
        // One write: a line is torn only by a machine that stops, or a disk that is full.
        if let Err(error) = file.write_all(&line).and_then(|()| file.sync_data()) {
            // What got there must not begin the next line.
            let _ = file.set_len(self.len);
            return Err(io(error));
        }
        self.len += line.len() as u64;
        self.records.push(record);
        Ok(())
    }

    /// All lines so far.
    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }
}

/// Takes the lock, or says who has it after this time.
fn lock(path: &Path, patience: Duration) -> Result<File, JournalError> {
    let io = |source| JournalError::Io { what: "lock", path: path.to_owned(), source };
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(io)?;
    let until = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(io(error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                return Err(JournalError::Busy { path: path.to_owned() });
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK),
        }
    }
}

/// The records, and how many bytes of the file they are.
fn read_records(file: &mut File, path: &Path) -> Result<(Vec<Record>, u64), JournalError> {
    let io = |source| JournalError::Io { what: "read", path: path.to_owned(), source };
    let damaged = |line, why: String| JournalError::Damaged { path: path.to_owned(), line, why };
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(io)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(damaged(1, "the file is far too long".to_owned()));
    }
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let mut records: Vec<Record> = Vec::new();
    for (at, line) in bytes[..whole].split_inclusive(|&byte| byte == b'\n').enumerate() {
        let record: Record =
            serde_json::from_slice(line).map_err(|error| damaged(at + 1, error.to_string()))?;
        if record.seq != at as u64 {
            return Err(damaged(at + 1, format!("its number is {} and should be {at}", record.seq)));
        }
        records.push(record);
    }
    Ok((records, whole as u64))
}

fn belongs(first: &Record, path: &Path, identity: &str) -> Result<(), JournalError> {
    let theirs = first.data["migration"].as_str().unwrap_or_default();
    if first.data["version"].as_u64() != Some(VERSION) {
        let why = "it was written by another release".to_owned();
        return Err(JournalError::Damaged { path: path.to_owned(), line: 1, why });
    }
    if theirs == identity {
        return Ok(());
    }
    let (theirs, ours) = (text::foreign(theirs.as_bytes()), identity.to_owned());
    Err(JournalError::Foreign { path: path.to_owned(), theirs, ours })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn opened(dir: &Path) -> Result<Journal, JournalError> {
        Journal::open(dir, "a to b")
    }

    fn written() -> (tempfile::TempDir, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let mut journal = opened(place.path()).unwrap();
        journal.record("cold", "stop source", State::Begun, Value::Null).unwrap();
        journal.record("cold", "stop source", State::Done, json!({"exit": 0})).unwrap();
        let path = place.path().join(FILE_NAME);
        (place, path)
    }

    #[test]
    fn what_was_recorded_is_there_again_and_numbers_go_on() {
        let (place, _) = written();
        let mut journal = opened(place.path()).unwrap();
        assert_eq!(journal.records()[2].data, json!({"exit": 0}));
        journal.record("cold", "pass", State::Begun, Value::Null).unwrap();
        let records = Journal::read(place.path(), "a to b").unwrap();
        assert_eq!(records.iter().map(|record| record.seq).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_line_cut_at_any_byte_never_counted() {
        let (place, path) = written();
        let whole = fs::read(&path).unwrap();
        let last = whole[..whole.len() - 1].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
        for cut in last..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut journal = opened(place.path()).unwrap();
            assert_eq!(journal.records().len(), 2, "cut at {cut}");
            journal.record("cold", "again", State::Begun, Value::Null).unwrap();
            assert_eq!(Journal::read(place.path(), "a to b").unwrap().len(), 3);
        }
    }

    #[test]
    fn any_other_damage_is_refused_with_its_line() {
        let (place, path) = written();
        let whole = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        for (damage, line) in [
            (format!("{}\nnonsense\n{}\n", lines[0], lines[2]), "line 2"),
            (format!("{}\n{}\n", lines[0], lines[2]), "line 2"),
            (format!("{}\n", lines[1]), "line 1"),
        ] {
            fs::write(&path, damage).unwrap();
            let error = opened(place.path()).unwrap_err().to_string();
            assert!(error.contains(line), "{error}");
        }
    }

    #[test]
    fn one_process_at_a_time_works_on_one_migration() {
        let (place, _) = written();
        let held = opened(place.path()).unwrap();
        assert!(matches!(opened(place.path()), Err(JournalError::Busy { .. })));
        drop(held);
        let moment = lock(&place.path().join(LOCK_NAME), Duration::ZERO).unwrap();
        let opening = std::thread::scope(|scope| {
            let opening = scope.spawn(|| opened(place.path()));
            std::thread::sleep(MOMENT / 10);
            drop(moment);
            opening.join().unwrap()
        });
        drop(opening.unwrap());
        let error = Journal::open(place.path(), "a to c").unwrap_err().to_string();
        assert!(error.contains("another migration (a to b)"), "{error}");
    }
}

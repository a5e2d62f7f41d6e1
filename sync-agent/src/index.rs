//! What this machine's files hashed to when they were last read whole, so that a pass that must be exact
//! (`--checksum`, `verify`) reads only the files that changed since.
//!
//! It is a cache. Damaged, stale, missing, foreign, held by another run, or in a directory that can't be
//! written, it costs time, never correctness and never a run: whatever goes wrong after
//! [`Index::at`] leaves an index that knows and keeps nothing. Both ends ask it before they read a file.
//!
//! # Why a match may be trusted
//! A file matches when device, inode, size, mtime and **ctime** (nanoseconds) are all what they were. A
//! program can set an mtime back, but not a ctime. Three gaps are left. `SETTLED_S` closes the first two at
//! Linux's usual settings, by keeping nothing of a file that changed within that time before it was read:
//! - A file written through a shared mapping takes a new ctime only at the first write to a clean page;
//!   more writes to that page show in no attribute until it was written back
//!   (`vm.dirty_expire_centisecs`, 30 s, and the flusher's turn, 5 s). On tmpfs no write back ever comes,
//!   and the gap stays.
//! - After a power loss an inode may be back with its new times and its data without the new bytes, for as
//!   long as that write back was outstanding.
//! - Device numbers are given out anew at each boot, and by some file systems at each mount. Another
//!   device's file matches only with the same inode, size and both times to the nanosecond. In practice
//!   that is a snapshot or a raw copy of the same file, which has the same content, because changing either
//!   one moves its ctime. The file system's identity would cost a `statfs` for each file and not tell a raw
//!   copy either, so it is left out.
//!
//! A match says that nobody changed the file, not that its disk still returns what was written: who looks
//! for silent damage of a disk reads the file.
//!
//! # The file
//! `index.redb`, with the entries in the table `whole-file-blake3-1` and the last run's generation in `meta-1` (the
//! values of large files' blocks have a table of their own, in `values`, and so have their pages, in `pages`, and where which
//! content is, in `places`);
//! a changed layout gets a new name, and then the old table stays unread.
//! The key's numbers are big-endian, so that inodes made together share pages; the value's little-endian.
//!
//! | key, 16 bytes | value, 76 bytes |
//! |---|---|
//! | device major u32, minor u32, inode u64 | size u64; mtime, ctime: seconds i64, nanoseconds u32 each; BLAKE3 32; generation u32; check 8 |
//!
//! The check is the head of a BLAKE3 over key and value: a flipped bit must be a miss, not another hash. redb itself
//! panics on some damaged files, on some while it unwinds, which nothing can catch: so it is shown a file only if
//! its BLAKE3 is that in `index.redb.blake3`, which the run that closed it wrote and the run that opens it removes.
//! After a run that was killed there is none, and a new index is begun. Each opening begins a
//! generation: the entries that no run confirmed for longest go first when there are too many.

use crate::tree::Info;
use crate::workers::lock;
use protocol::ContentHash;
use protocol::entry::Timestamp;
use redb::backends::FileBackend;
use redb::{Database, Durability, TableDefinition};
use redb::{ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

type Key = [u8; KEY_BYTES];
type Value = [u8; VALUE_BYTES];

const KEY_BYTES: usize = 16;
const VALUE_BYTES: usize = 76;
const GENERATION_AT: usize = 64;
const CHECK_AT: usize = 68;

mod pages;
mod parts;
mod places;
mod values;

pub(crate) use places::Place;
pub(crate) use values::FileValues;

const TABLE: TableDefinition<'_, Key, Value> = TableDefinition::new("whole-file-blake3-1");
/// Where the generation of the last run is, under [`GENERATION`].
const META: TableDefinition<'_, &str, u32> = TableDefinition::new("meta-1");
const GENERATION: &str = "generation";

const FILE_NAME: &str = "index.redb";
const DAMAGED_NAME: &str = "index.redb.damaged";
const SUM_NAME: &str = "index.redb.blake3";

/// How long before it was read a file must have been left alone: Linux's 30 s until a dirty page is written
/// back, 5 s until the flusher looks, and some for a busy disk.
const SETTLED_S: i64 = 60;
/// Memory that redb may keep pages in.
const CACHE_BYTES: usize = 4 << 20;
/// A hit this many generations old is written again, so that what is in use isn't dropped; not on every
/// hit, so that a pass over an unchanged tree writes nothing.
const RENEW_AFTER_GENERATIONS: u32 = 8;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Parts of files' values in the file, of up to 32 KiB; beyond it, a quarter goes.
    stored_parts: u64,
    /// Entries, and places, in memory before they are written.
    buffered: usize,
    /// Entries in the file; beyond it, a quarter goes.
    stored: u64,
    /// Places in the file, of some 400 bytes; beyond it, a quarter goes. A run that fetches a file reads all of it.
    stored_places: u64,
}

const LIMITS: Limits =
    Limits { buffered: 4096, stored: 4_000_000, stored_parts: 8192, stored_places: 300_000 };

/// The cache of one process, for both its ends and all their threads. It is opened when it is first asked.
#[derive(Debug)]
pub struct Index {
    dir: Option<PathBuf>,
    limits: Limits,
    store: OnceLock<Option<Store>>,
}

#[derive(Debug)]
struct Store {
    /// Taken in `drop` alone.
    database: Option<Database>,
    dir: PathBuf,
    generation: u32,
    limits: Limits,
    buffer: Mutex<BTreeMap<Key, Value>>,
    places: Mutex<places::Buffer>,
    /// Something failed: nothing is read or written any more.
    failed: AtomicBool,
    /// It failed because the file is damaged.
    damaged: AtomicBool,
}

impl Index {
    /// The index in `dir`. When it is first asked it is opened; it and `dir` (mode 0700) are made where they are
    /// missing, and a damaged file is put aside as `index.redb.damaged` and a new one begun.
    ///
    /// The file is locked: a process opens it once and shares it between its ends.
    #[must_use]
    pub fn at(dir: &Path) -> Index {
        Index { dir: Some(dir.to_owned()), limits: LIMITS, store: OnceLock::new() }
    }

    /// An index that knows and keeps nothing.
    #[must_use]
    pub fn disabled() -> Index {
        Index { dir: None, limits: LIMITS, store: OnceLock::new() }
    }

    /// Whether it may know or keep anything.
    pub(crate) fn is_kept(&self) -> bool {
        self.dir.is_some()
    }

    /// The hash of the file with these attributes, if it was remembered and did not change since.
    #[must_use]
    pub fn hash(&self, info: &Info) -> Option<ContentHash> {
        let store = self.store()?;
        let key = key_of(info);
        let buffered = lock(&store.buffer).get(&key).copied();
        let value = match buffered {
            Some(value) => value,
            None => store.attempt(|database| find(database, &key))??,
        };
        let (hash, generation) = decode(&key, &value, info)?;
        if store.generation.saturating_sub(generation) > RENEW_AFTER_GENERATIONS {
            store.keep(key, encode(&key, info, &hash, store.generation));
        }
        Some(hash)
    }

    /// Remembers the hash of a regular file that was read from start to end, with these attributes before
    /// and after. `read_from` is this machine's clock ([`crate::tree::now`]) from before the first byte was
    /// read; a file that changed within 60 s before that is not remembered (see the module).
    pub fn remember(&self, info: &Info, read_from: Timestamp, hash: &ContentHash) {
        let Some(store) = self.store() else { return };
        if info.is_file() && is_settled(info.mtime, read_from) && is_settled(info.ctime, read_from) {
            let key = key_of(info);
            store.keep(key, encode(&key, info, hash, store.generation));
        }
    }

    /// Writes what is still in memory to disk; dropping the index does the same.
    pub fn close(self) {}

    fn store(&self) -> Option<&Store> {
        let dir = self.dir.as_ref()?;
        self.store.get_or_init(|| Store::open(dir, self.limits)).as_ref()
    }
}

impl Store {
    fn open(dir: &Path, limits: Limits) -> Option<Store> {
        let opened = match begin(dir) {
            Err(Refusal::Damaged) => {
                std::fs::rename(dir.join(FILE_NAME), dir.join(DAMAGED_NAME)).ok()?;
                begin(dir)
            }
            opened => opened,
        };
        let (database, generation) = opened.ok()?;
        Some(Store {
            database: Some(database),
            dir: dir.to_owned(),
            generation,
            limits,
            buffer: Mutex::default(),
            places: Mutex::default(),
            failed: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
        })
    }

    fn keep(&self, key: Key, value: Value) {
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        let mut buffer = lock(&self.buffer);
        buffer.insert(key, value);
        if buffer.len() >= self.limits.buffered {
            let full = std::mem::take(&mut *buffer);
            drop(buffer);
            // Not durable: a crash loses entries, and a sync for every 4096 files is dearer than they are.
            self.attempt(|database| write(database, full, self, Durability::None));
        }
    }

    /// Does something with the database. The first failure, or panic, is the last attempt.
    fn attempt<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Option<T> {
        if self.failed.load(Ordering::Relaxed) {
            return None;
        }
        let database = self.database.as_ref()?;
        let damaged = match catch_unwind(AssertUnwindSafe(|| work(database))) {
            Ok(Ok(done)) => return Some(done),
            Ok(Err(error)) => is_damage(&error),
            Err(_) => true,
        };
        self.failed.store(true, Ordering::Relaxed);
        self.damaged.fetch_or(damaged, Ordering::Relaxed);
        None
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let places = std::mem::take(&mut *lock(&self.places));
        self.attempt(|database| places::write(database, places, self));
        let rest = std::mem::take(&mut *lock(&self.buffer));
        self.attempt(|database| write(database, rest, self, Durability::Immediate));
        let database = self.database.take();
        let is_sound = !self.failed.load(Ordering::Relaxed);
        if catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() || self.damaged.load(Ordering::Relaxed)
        {
            let _ = std::fs::rename(self.dir.join(FILE_NAME), self.dir.join(DAMAGED_NAME));
        } else if is_sound && let Ok(sum) = sum(&self.dir.join(FILE_NAME)) {
            let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
            let _ = options.open(self.dir.join(SUM_NAME)).and_then(|mut file| file.write_all(sum.as_bytes()));
        }
    }
}

/// The BLAKE3 of a file, in hexadecimal.
fn sum(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Why there is no index.
enum Refusal {
    /// The file is no index, or not as it was closed: a new one may take its place.
    Damaged,
    /// Another run has it, or its place can't be used.
    Unusable,
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Refusal {
        Refusal::Unusable
    }
}

impl Refusal {
    fn of(error: redb::Error) -> Refusal {
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Refusal::Unusable,
            redb::Error::Io(cause) if !is_damage_io(&cause) => Refusal::Unusable,
            _ => Refusal::Damaged,
        }
    }
}

fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Io(cause) => is_damage_io(cause),
        redb::Error::PreviousIo | redb::Error::LockPoisoned(_) => false,
        _ => true,
    }
}

/// A file too short, or not redb's: no trouble of the disk.
fn is_damage_io(cause: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    cause.raw_os_error().is_none() && matches!(cause.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

/// Opens or makes the file, and begins a generation.
fn begin(dir: &Path) -> Result<(Database, u32), Refusal> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join(FILE_NAME))?;
    let metadata = file.metadata()?;
    // Before it is looked at: redb locks it too, but only when it reads it. The lock ends with the file.
    if !metadata.is_file() || file.try_lock().is_err() {
        return Err(Refusal::Unusable);
    }
    let backend = FileBackend::new(file).map_err(|error| Refusal::of(error.into()))?;
    let left = std::fs::read_to_string(dir.join(SUM_NAME)).unwrap_or_default();
    if metadata.len() > 0 && left != sum(&dir.join(FILE_NAME))? {
        return Err(Refusal::Damaged);
    }
    if !left.is_empty() {
        std::fs::remove_file(dir.join(SUM_NAME))?;
    }
    catch_unwind(|| begin_in(backend)).unwrap_or(Err(Refusal::Damaged))
}

fn begin_in(backend: FileBackend) -> Result<(Database, u32), Refusal> {
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(backend)
        .map_err(|error| Refusal::of(error.into()))?;
    let generation = next_generation(&database).map_err(Refusal::of)?;
    Ok((database, generation))
}

fn next_generation(database: &Database) -> Result<u32, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::None)?;
    let mut meta = transaction.open_table(META)?;
    let last = meta.get(GENERATION)?.map_or(0, |stored| stored.value());
    let generation = last.saturating_add(1);
    meta.insert(GENERATION, generation)?;
    drop(meta);
    drop(transaction.open_table(TABLE)?);
    drop(transaction.open_table(values::TABLE)?);
    drop(transaction.open_table(pages::TABLE)?);
    drop(transaction.open_table(places::TABLE)?);
    transaction.commit()?;
    Ok(generation)
}

fn find(database: &Database, key: &Key) -> Result<Option<Value>, redb::Error> {
    let table = database.begin_read()?.open_table(TABLE)?;
    Ok(table.get(key)?.map(|stored| stored.value()))
}

fn write(
    database: &Database,
    entries: BTreeMap<Key, Value>,
    store: &Store,
    durability: Durability,
) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(durability)?;
    let mut table = transaction.open_table(TABLE)?;
    // In order of the keys, neighbours share pages.
    for (key, value) in entries {
        table.insert(key, value)?;
    }
    if table.len()? > store.limits.stored {
        drop_oldest(&mut table, store.limits.stored / 4 * 3, |value| generation_of(&value))?;
    }
    drop(table);
    transaction.commit()?;
    Ok(())
}

/// Leaves `kept` entries: whole generations go, oldest first, and of the last one to go only as many as needed.
fn drop_oldest<K: redb::Key + 'static, V: redb::Value + 'static>(
    table: &mut redb::Table<'_, K, V>,
    kept: u64,
    generation_of: impl for<'a> Fn(V::SelfType<'a>) -> u32,
) -> Result<(), redb::Error> {
    let mut counts = BTreeMap::<u32, u64>::new();
    for entry in table.iter()? {
        *counts.entry(generation_of(entry?.1.value())).or_default() += 1;
    }
    let mut excess = table.len()?.saturating_sub(kept);
    let mut drops: BTreeMap<u32, u64> = counts
        .into_iter()
        .map_while(|(generation, count)| {
            let drops = count.min(excess);
            excess -= drops;
            (drops > 0).then_some((generation, drops))
        })
        .collect();
    table.retain(|_, value| match drops.get_mut(&generation_of(value)) {
        Some(left) if *left > 0 => {
            *left -= 1;
            false
        }
        _ => true,
    })?;
    Ok(())
}

/// Whether `time` is long enough before `read_from`; a time to come never is.
fn is_settled(time: Timestamp, read_from: Timestamp) -> bool {
    let latest = (read_from.secs.saturating_sub(SETTLED_S), read_from.nanos);
    (time.secs, time.nanos) <= latest
}

fn key_of(info: &Info) -> Key {
    let mut key = [0; KEY_BYTES];
    key[..4].copy_from_slice(&info.device.0.to_be_bytes());
    key[4..8].copy_from_slice(&info.device.1.to_be_bytes());
    key[8..].copy_from_slice(&info.inode.to_be_bytes());
    key
}

fn encode(key: &Key, info: &Info, hash: &ContentHash, generation: u32) -> Value {
    let mut value = [0; VALUE_BYTES];
    value[..32].copy_from_slice(&attributes(info));
    value[32..GENERATION_AT].copy_from_slice(hash);
    value[GENERATION_AT..CHECK_AT].copy_from_slice(&generation.to_le_bytes());
    let check = check_of(key, &value);
    value[CHECK_AT..].copy_from_slice(&check);
    value
}

/// Hash and generation, where the value is whole and of a file with these attributes.
fn decode(key: &Key, value: &Value, info: &Info) -> Option<(ContentHash, u32)> {
    if value[..32] != attributes(info) || value[CHECK_AT..] != check_of(key, value) {
        return None;
    }
    let mut hash = ContentHash::default();
    hash.copy_from_slice(&value[32..GENERATION_AT]);
    Some((hash, generation_of(value)))
}

fn attributes(info: &Info) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&info.size_bytes.to_le_bytes());
    bytes[8..16].copy_from_slice(&info.mtime.secs.to_le_bytes());
    bytes[16..20].copy_from_slice(&info.mtime.nanos.to_le_bytes());
    bytes[20..28].copy_from_slice(&info.ctime.secs.to_le_bytes());
    bytes[28..].copy_from_slice(&info.ctime.nanos.to_le_bytes());
    bytes
}

fn generation_of(value: &Value) -> u32 {
    number(&value[GENERATION_AT..CHECK_AT])
}

/// The little-endian number that the bytes begin with.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |&bytes| u32::from_le_bytes(bytes))
}

fn check_of(key: &Key, value: &Value) -> [u8; VALUE_BYTES - CHECK_AT] {
    let whole = blake3::Hasher::new().update(key).update(&value[..CHECK_AT]).finalize();
    let mut check = [0; VALUE_BYTES - CHECK_AT];
    check.copy_from_slice(&whole.as_bytes()[..VALUE_BYTES - CHECK_AT]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt as _;

    const NOW: Timestamp = Timestamp { secs: 1_800_000_000, nanos: 500 };

    fn info(inode: u64) -> Info {
        let time = Timestamp { secs: NOW.secs - 1000, nanos: 7 };
        Info {
            raw_mode: 0o100_644,
            uid: 0,
            gid: 0,
            size_bytes: 5000 + inode,
            mtime: time,
            atime: Timestamp::default(),
            ctime: Timestamp { nanos: 8, ..time },
            device: (8, 1),
            inode,
            node: (0, 0),
            links: 1,
        }
    }

    fn hash(inode: u64) -> ContentHash {
        *blake3::hash(&inode.to_le_bytes()).as_bytes()
    }

    fn open(dir: &Path) -> Index {
        open_with(dir, LIMITS)
    }

    fn open_with(dir: &Path, limits: Limits) -> Index {
        let index = Index { limits, ..Index::at(dir) };
        index.store();
        index
    }

    fn fill(index: &Index, inodes: std::ops::Range<u64>) {
        for inode in inodes {
            index.remember(&info(inode), NOW, &hash(inode));
        }
    }

    fn found(index: &Index, inodes: std::ops::Range<u64>) -> usize {
        let hits = inodes.filter_map(|inode| index.hash(&info(inode)).map(|got| (inode, got)));
        hits.inspect(|(inode, got)| assert_eq!(*got, hash(*inode))).count()
    }

    fn sandbox() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    #[test]
    fn finds_what_it_remembered_before_and_after_it_was_closed() {
        let sandbox = sandbox();
        let dir = sandbox.path().join("state/below");
        let index = open(&dir);
        fill(&index, 0..10_000);
        assert_eq!(found(&index, 0..10_000), 10_000);
        index.close();
        assert_eq!(found(&open(&dir), 0..10_001), 10_000);
        let mode = |path: &Path| path.metadata().expect("it was made").permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join(FILE_NAME))), (0o700, 0o600));
    }

    #[test]
    fn any_changed_attribute_is_a_miss() {
        let sandbox = sandbox();
        let index = open(sandbox.path());
        fill(&index, 1..2);
        type Change = fn(&mut Info);
        let changes: [(&str, Change); 8] = [
            ("size", |info| info.size_bytes += 1),
            ("mtime seconds", |info| info.mtime.secs += 1),
            ("mtime nanoseconds", |info| info.mtime.nanos += 1),
            ("ctime seconds", |info| info.ctime.secs += 1),
            ("ctime nanoseconds", |info| info.ctime.nanos += 1),
            ("device major", |info| info.device.0 += 1),
            ("device minor", |info| info.device.1 += 1),
            ("inode", |info| info.inode += 1),
        ];
        for (what, change) in changes {
            let mut changed = info(1);
            change(&mut changed);
            assert_eq!(index.hash(&changed), None, "{what}");
        }
        assert_eq!(index.hash(&info(1)), Some(hash(1)));
    }

    #[test]
    fn a_later_hash_of_a_file_replaces_the_earlier_one() {
        let sandbox = sandbox();
        let index = open(sandbox.path());
        fill(&index, 1..2);
        let changed = Info { size_bytes: 1, ..info(1) };
        index.remember(&changed, NOW, &[9; 32]);
        drop(index);
        let index = open(sandbox.path());
        assert_eq!((index.hash(&changed), index.hash(&info(1))), (Some([9; 32]), None));
    }

    #[test]
    fn young_files_and_what_is_no_file_are_not_kept() {
        let sandbox = sandbox();
        let index = open(sandbox.path());
        let at = |secs| Timestamp { secs: NOW.secs + secs, nanos: NOW.nanos };
        let cases = [
            (at(-SETTLED_S), at(-SETTLED_S), true),
            (at(-SETTLED_S), Timestamp { nanos: NOW.nanos + 1, ..at(-SETTLED_S) }, false),
            (at(-1), at(-1000), false),
            (at(-1000), at(-1), false),
            (at(1), at(-1000), false),
            (at(-1000), at(100_000), false),
            (Timestamp { secs: i64::MIN, nanos: 0 }, at(-1000), true),
        ];
        for (number, (mtime, ctime, kept)) in (1..).zip(cases) {
            let info = Info { mtime, ctime, ..info(number) };
            index.remember(&info, NOW, &hash(number));
            assert_eq!(index.hash(&info).is_some(), kept, "case {number}");
        }
        let directory = Info { raw_mode: 0o040_755, ..info(100) };
        index.remember(&directory, NOW, &hash(100));
        assert_eq!(index.hash(&directory), None);
    }

    #[test]
    fn a_file_that_is_not_an_index_is_put_aside() {
        let half = {
            let sandbox = sandbox();
            fill(&open(sandbox.path()), 0..5000);
            let whole = std::fs::read(sandbox.path().join(FILE_NAME)).expect("it was written");
            whole[..whole.len() / 2].to_vec()
        };
        let cases: [(&str, Vec<u8>); 4] = [
            ("text", b"hello".to_vec()),
            ("zeros", vec![0; 1 << 20]),
            ("noise", vec![0xa5; 70_000]),
            ("half", half),
        ];
        for (what, content) in cases {
            let sandbox = sandbox();
            std::fs::write(sandbox.path().join(FILE_NAME), &content).expect("a writable sandbox");
            let index = open(sandbox.path());
            fill(&index, 0..10);
            drop(index);
            assert_eq!(found(&open(sandbox.path()), 0..10), 10, "{what}");
            let aside = std::fs::metadata(sandbox.path().join(DAMAGED_NAME)).expect("it was put aside");
            assert!(aside.is_file(), "{what}");
        }
    }

    #[test]
    fn an_index_that_is_open_elsewhere_is_left_alone() {
        let sandbox = sandbox();
        let first = open(sandbox.path());
        fill(&first, 0..10);
        let second = open(sandbox.path());
        fill(&second, 10..20);
        assert_eq!(found(&second, 0..20), 0);
        drop((second, first));
        assert_eq!(found(&open(sandbox.path()), 0..20), 10);
    }

    #[test]
    fn a_place_that_cannot_hold_it_gives_an_index_that_keeps_nothing() {
        let sandbox = sandbox();
        let file = sandbox.path().join("file");
        std::fs::write(&file, b"").expect("a writable sandbox");
        let taken = sandbox.path().join("taken");
        std::fs::create_dir_all(taken.join(FILE_NAME)).expect("a writable sandbox");
        for dir in [file.join("below"), file, taken, PathBuf::from("/proc/no/such")] {
            let index = open(&dir);
            fill(&index, 0..10);
            assert_eq!(found(&index, 0..10), 0);
        }
        assert_eq!(found(&Index::disabled(), 0..1), 0);
    }

    #[test]
    fn the_oldest_generations_go_when_there_are_too_many() {
        let limits = Limits { buffered: 10, stored: 100, ..LIMITS };
        let sandbox = sandbox();
        for generation in 0..3 {
            let index = open_with(sandbox.path(), limits);
            fill(&index, generation * 40..(generation + 1) * 40);
        }
        let index = open(sandbox.path());
        assert_eq!([found(&index, 0..40), found(&index, 40..80), found(&index, 80..120)], [5, 40, 40]);
        drop(index);
        let index = open_with(sandbox.path(), limits);
        fill(&index, 1000..3000);
        drop(index);
        assert!(found(&open(sandbox.path()), 0..3000) <= 100);
    }

    #[test]
    fn what_is_asked_for_now_and_then_outlives_what_is_not() {
        let limits = Limits { buffered: 10, stored: 100, ..LIMITS };
        let sandbox = sandbox();
        fill(&open_with(sandbox.path(), limits), 0..60);
        for _ in 0..=RENEW_AFTER_GENERATIONS {
            assert_eq!(found(&open_with(sandbox.path(), limits), 30..60), 30);
        }
        fill(&open_with(sandbox.path(), limits), 60..101);
        let index = open(sandbox.path());
        assert_eq!([found(&index, 30..60), found(&index, 60..101)], [30, 41]);
    }

    #[test]
    fn several_threads_use_it_at_once() {
        let sandbox = sandbox();
        let index = open_with(sandbox.path(), Limits { buffered: 50, stored: 100_000, ..LIMITS });
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (index, inodes) = (&index, thread * 1000..(thread + 1) * 1000);
                scope.spawn(move || {
                    for inode in inodes {
                        fill(index, inode..inode + 1);
                        found(index, 0..inode % 50);
                    }
                });
            }
        });
        drop(index);
        assert_eq!(found(&open(sandbox.path()), 0..4000), 4000);
    }

    fn damaged_index() -> Vec<u8> {
        let sandbox = sandbox();
        let index = open(sandbox.path());
        fill(&index, 0..300);
        drop(index);
        std::fs::read(sandbox.path().join(FILE_NAME)).expect("it was written")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn damage_anywhere_costs_entries_and_nothing_else(
            flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..40),
            within in prop::sample::select(vec![64, 4096, 65_536, usize::MAX]),
        ) {
            static WHOLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            let mut bytes = WHOLE.get_or_init(damaged_index).clone();
            let reach = within.min(bytes.len());
            for (at, flip) in flips {
                bytes[at.index(reach)] ^= flip;
            }
            let sandbox = sandbox();
            std::fs::write(sandbox.path().join(FILE_NAME), bytes).expect("a writable sandbox");
            let sum = blake3::hash(WHOLE.get_or_init(damaged_index)).to_hex();
            std::fs::write(sandbox.path().join(SUM_NAME), sum.as_str()).expect("a writable sandbox");
            let index = open(sandbox.path());
            found(&index, 0..300);
            fill(&index, 300..400);
            found(&index, 0..400);
            index.close();
            found(&open(sandbox.path()), 0..400);
        }
    }

    proptest! {
        #[test]
        fn a_value_decodes_to_what_was_encoded_and_a_flipped_bit_to_nothing(
            (size_bytes, inode, generation) in any::<(u64, u64, u32)>(),
            (mtime, ctime) in any::<((i64, u32), (i64, u32))>(),
            device in any::<(u32, u32)>(),
            hash in any::<ContentHash>(),
            bit in 0..8 * (KEY_BYTES + VALUE_BYTES),
        ) {
            let time = |(secs, nanos)| Timestamp { secs, nanos };
            let info = Info { size_bytes, inode, mtime: time(mtime), ctime: time(ctime), device, ..info(1) };
            let mut key = key_of(&info);
            let mut value = encode(&key, &info, &hash, generation);
            prop_assert_eq!(decode(&key, &value, &info), Some((hash, generation)));
            match (bit / 8).checked_sub(KEY_BYTES) {
                Some(at) => value[at] ^= 1 << (bit % 8),
                None => key[bit / 8] ^= 1 << (bit % 8),
            }
            prop_assert_eq!(decode(&key, &value, &info), None);
        }
    }
}

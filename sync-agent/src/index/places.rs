//! Where in a destination which content is, so that a file that the source renamed or copied is made from what is here.
//!
//! Nothing in it is trusted, and nothing is looked at to keep it: a place says where to look, and what is found there is
//! hashed whole before it gets a name. So a place that is stale costs one look, and is forgotten then; those of files that
//! were deleted or replaced stay until somebody looks.
//!
//! # The table
//! `content-places-1`. The numbers of the key are big-endian, so that a part of it finds all that begins with it.
//!
//! | key, 60 bytes | value |
//! |---|---|
//! | the key of the destination's root 16; size u64; the source's mtime: seconds i64, nanoseconds u32; head of the BLAKE3 16; head of the path's BLAKE3 8 | generation u32; path below the root |

use super::{Index, Store, drop_oldest, key_of, number};
use crate::tree::Info;
use crate::workers::lock;
use protocol::ContentHash;
use protocol::entry::Timestamp;
use protocol::path::RelPath;
use redb::{Database, Durability, TableDefinition};
use redb::{ReadableDatabase as _, ReadableTableMetadata as _};
use std::collections::BTreeMap;

pub(super) type PlaceKey = [u8; KEY_BYTES];

pub(super) const TABLE: TableDefinition<'_, PlaceKey, &[u8]> = TableDefinition::new("content-places-1");

const KEY_BYTES: usize = 60;
const ROOT_BYTES: usize = 16;
const SIZED_BYTES: usize = 24;
const TIMED_BYTES: usize = 36;
const HASHED_BYTES: usize = 52;
const GENERATION_BYTES: usize = 4;

/// As many places are looked at for one file.
const MOST_PLACES: usize = 8;

/// What is to be written: the path, or none for a place that is to be forgotten.
pub(super) type Buffer = BTreeMap<PlaceKey, Option<RelPath>>;

/// A file below a root that had some content when a run left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: RelPath,
    key: PlaceKey,
}

impl Place {
    /// The place of a file below `root`. Its mtime is the source's, whatever it has here.
    pub(crate) fn new(
        root: &Info,
        path: RelPath,
        size_bytes: u64,
        mtime: Timestamp,
        hash: &ContentHash,
    ) -> Place {
        let mut key = timed(root, size_bytes, mtime);
        key[TIMED_BYTES..HASHED_BYTES].copy_from_slice(&hash[..HASHED_BYTES - TIMED_BYTES]);
        let name = blake3::hash(path.as_bytes());
        key[HASHED_BYTES..].copy_from_slice(&name.as_bytes()[..KEY_BYTES - HASHED_BYTES]);
        Place { path, key }
    }

    /// Whether it had this content.
    pub(crate) fn had(&self, hash: &ContentHash) -> bool {
        self.key[TIMED_BYTES..HASHED_BYTES] == hash[..HASHED_BYTES - TIMED_BYTES]
    }

    /// When the source's file had been written.
    pub(crate) fn mtime(&self) -> Timestamp {
        let secs = self.key[SIZED_BYTES..].first_chunk().copied().unwrap_or_default();
        let nanos = self.key[SIZED_BYTES + 8..].first_chunk().copied().unwrap_or_default();
        Timestamp { secs: i64::from_be_bytes(secs), nanos: u32::from_be_bytes(nanos) }
    }
}

impl Index {
    /// Whether any place below `root` is known.
    pub(crate) fn knows_places(&self, root: &Info) -> bool {
        !self.places(&sized(root, 0), ROOT_BYTES, 1).is_empty()
    }

    /// Some places of files of this size and time.
    pub(crate) fn places_like(&self, root: &Info, size_bytes: u64, mtime: Timestamp) -> Vec<Place> {
        self.places(&timed(root, size_bytes, mtime), TIMED_BYTES, MOST_PLACES)
    }

    /// The places of files of this size; none where there are too many for the size to say much.
    pub(crate) fn places_sized(&self, root: &Info, size_bytes: u64) -> Vec<Place> {
        let mut places = self.places(&sized(root, size_bytes), SIZED_BYTES, MOST_PLACES + 1);
        if places.len() > MOST_PLACES {
            places.clear();
        }
        places
    }

    /// Places of this content: with this time if there are any, else with any.
    pub(crate) fn places_of(
        &self,
        root: &Info,
        size_bytes: u64,
        mtime: Timestamp,
        hash: &ContentHash,
    ) -> Vec<Place> {
        let exactly = Place::new(root, RelPath::root(), size_bytes, mtime, hash);
        let mut places = self.places(&exactly.key, HASHED_BYTES, MOST_PLACES);
        if places.is_empty() {
            places = self.places_sized(root, size_bytes);
            places.retain(|place| place.had(hash));
        }
        places
    }

    /// Places whose keys begin with so much of `key`.
    fn places(&self, key: &PlaceKey, bytes: usize, most: usize) -> Vec<Place> {
        let Some(store) = self.store() else { return Vec::new() };
        let noted = lock(&store.places);
        store.attempt(|database| find(database, key, bytes, most, &noted)).unwrap_or_default()
    }

    /// Remembers a place. It is for the next run; this one may find it or not.
    pub(crate) fn keep_place(&self, place: Place) {
        self.note_place(place.key, Some(place.path));
    }

    /// What was at that place is not there any more.
    pub(crate) fn forget_place(&self, place: &Place) {
        self.note_place(place.key, None);
    }

    fn note_place(&self, key: PlaceKey, path: Option<RelPath>) {
        let Some(store) = self.store() else { return };
        let mut buffer = lock(&store.places);
        buffer.insert(key, path);
        if buffer.len() >= store.limits.buffered {
            let full = std::mem::take(&mut *buffer);
            drop(buffer);
            store.attempt(|database| write(database, full, store));
        }
    }
}

fn sized(root: &Info, size_bytes: u64) -> PlaceKey {
    let mut key = [0; KEY_BYTES];
    key[..ROOT_BYTES].copy_from_slice(&key_of(root));
    key[ROOT_BYTES..SIZED_BYTES].copy_from_slice(&size_bytes.to_be_bytes());
    key
}

fn timed(root: &Info, size_bytes: u64, mtime: Timestamp) -> PlaceKey {
    let mut key = sized(root, size_bytes);
    key[SIZED_BYTES..SIZED_BYTES + 8].copy_from_slice(&mtime.secs.to_be_bytes());
    key[SIZED_BYTES + 8..TIMED_BYTES].copy_from_slice(&mtime.nanos.to_be_bytes());
    key
}

fn find(
    database: &Database,
    key: &PlaceKey,
    bytes: usize,
    most: usize,
    noted: &Buffer,
) -> Result<Vec<Place>, redb::Error> {
    let (mut first, mut last) = (*key, *key);
    first[bytes..].fill(0);
    last[bytes..].fill(u8::MAX);
    let table = database.begin_read()?.open_table(TABLE)?;
    let mut places = Vec::new();
    for entry in table.range(first..=last)? {
        let (key, value) = entry?;
        let is_forgotten = matches!(noted.get(&key.value()), Some(None));
        let path = value.value().get(GENERATION_BYTES..).unwrap_or_default();
        if let Ok(path) = RelPath::new(path)
            && !is_forgotten
        {
            places.push(Place { path, key: key.value() });
        }
        if places.len() == most {
            break;
        }
    }
    Ok(places)
}

/// Not durable by itself: what a crash loses is found by no one, and that is all.
pub(super) fn write(database: &Database, places: Buffer, store: &Store) -> Result<(), redb::Error> {
    if places.is_empty() {
        return Ok(());
    }
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::None)?;
    let mut table = transaction.open_table(TABLE)?;
    let mut value = Vec::new();
    for (key, path) in places {
        match path {
            Some(path) => {
                value.clear();
                value.extend_from_slice(&store.generation.to_le_bytes());
                value.extend_from_slice(path.as_bytes());
                table.insert(key, value.as_slice())?;
            }
            None => drop(table.remove(key)?),
        }
    }
    if table.len()? > store.limits.stored_places {
        drop_oldest(&mut table, store.limits.stored_places / 4 * 3, number)?;
    }
    drop(table);
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::super::{LIMITS, Limits};
    use super::*;
    use std::path::Path;

    const TIME: Timestamp = Timestamp { secs: 1_600_000_000, nanos: 7 };
    const LATER: Timestamp = Timestamp { secs: 1_600_000_001, nanos: 0 };

    fn root(inode: u64) -> Info {
        Info {
            raw_mode: 0o040_755,
            uid: 0,
            gid: 0,
            size_bytes: 0,
            mtime: TIME,
            atime: TIME,
            ctime: TIME,
            device: (8, 1),
            inode,
            node: (0, 0),
            links: 2,
        }
    }

    fn path(name: &str) -> RelPath {
        RelPath::new(name.as_bytes()).unwrap()
    }

    fn place(name: &str, size_bytes: u64, mtime: Timestamp, content: u8) -> Place {
        Place::new(&root(1), path(name), size_bytes, mtime, &[content; 32])
    }

    fn names(places: Vec<Place>) -> Vec<String> {
        let mut names: Vec<String> =
            places.iter().map(|place| String::from_utf8(place.path.as_bytes().to_vec()).unwrap()).collect();
        names.sort();
        names
    }

    fn keep(dir: &Path, places: Vec<Place>) {
        let index = Index::at(dir);
        places.into_iter().for_each(|place| index.keep_place(place));
    }

    #[test]
    fn places_are_found_by_size_time_and_content_below_their_root_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Index::at(dir.path()).knows_places(&root(1)));
        keep(
            dir.path(),
            vec![
                place("a", 50_001, TIME, 1),
                place("b/c", 50_001, TIME, 2),
                place("d", 50_001, LATER, 1),
                place("e", 50_002, TIME, 3),
            ],
        );
        let index = Index::at(dir.path());
        assert!(index.knows_places(&root(1)) && !index.knows_places(&root(2)));
        assert_eq!(names(index.places_like(&root(1), 50_001, TIME)), ["a", "b/c"]);
        assert_eq!(names(index.places_sized(&root(1), 50_001)), ["a", "b/c", "d"]);
        assert_eq!(names(index.places_of(&root(1), 50_001, TIME, &[1; 32])), ["a"]);
        let another_time = Timestamp { secs: 1, nanos: 0 };
        assert_eq!(names(index.places_of(&root(1), 50_001, another_time, &[1; 32])), ["a", "d"]);
        assert!(index.places_of(&root(1), 50_001, TIME, &[9; 32]).is_empty());
        assert!(index.places_like(&root(2), 50_001, TIME).is_empty());
        let found = index.places_of(&root(1), 50_001, LATER, &[1; 32]);
        assert_eq!((found[0].mtime(), found[0].had(&[1; 32]), found[0].had(&[2; 32])), (LATER, true, false));
    }

    #[test]
    fn what_was_forgotten_is_not_in_the_way_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let places = || (0..20).map(|number| place(&format!("f{number}"), 50_001, TIME, 1));
        keep(dir.path(), places().collect());
        let index = Index::at(dir.path());
        assert!(index.places_sized(&root(1), 50_001).is_empty(), "the size says little");
        assert_eq!(index.places_like(&root(1), 50_001, TIME).len(), MOST_PLACES);
        places().skip(1).for_each(|place| index.forget_place(&place));
        assert_eq!(names(index.places_like(&root(1), 50_001, TIME)), ["f0"], "before it is written");
        drop(index);
        assert_eq!(names(Index::at(dir.path()).places_sized(&root(1), 50_001)), ["f0"], "and after");
    }

    #[test]
    fn the_oldest_places_go_when_there_are_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { buffered: 10, stored_places: 100, ..LIMITS };
        for run in 0..3 {
            let index = Index { limits, ..Index::at(dir.path()) };
            for number in 0..40 {
                index.keep_place(place("f", 50_000 + run * 1000 + number, TIME, 1));
            }
        }
        let index = Index::at(dir.path());
        let found = |run: u64| {
            let sizes = (0..40).map(|number| 50_000 + run * 1000 + number);
            sizes.filter(|&size| !index.places_like(&root(1), size, TIME).is_empty()).count()
        };
        assert_eq!([found(0), found(1), found(2)], [5, 40, 40]);
    }
}

//! What a tree is: how many entries of which size, how fast they are listed, how fast some of them are read.
//!
//! The walk uses as many threads as a source's scan does. It reads file content only through `read`, and evicts
//! nothing from the system's cache: the tree may be a live database's.

use super::{Budget, Ended, elapsed_ns};
use crate::tree::{Dir, Tree};
use crate::workers::lock;
use protocol::limits::SMALL_FILE_BYTES;
use protocol::path::{Name, RelPath};
use protocol::probe::{TreeSize, Work};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Threads that list, as in a run.
const SCANNERS: usize = 2;
/// Files that each of them picks for reading.
const PICKED_FILES: usize = 1024;
/// Read of one file at most, so that one large file does not take the whole time.
const FILE_BYTES: u64 = 4 << 20;
/// Places in the tree's bytes that are a sample of its content, for hashing and compressing.
const SAMPLE_PLACES: usize = 16;
/// Kept of each place.
const PLACE_BYTES: u64 = 256 << 10;

/// What a scan found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) size: TreeSize,
    pub(super) picked: Picked,
    random: u64,
}

/// What is read of the tree later.
#[derive(Default)]
pub(super) struct Picked {
    /// Some of the files, each as likely as any other: what a file costs.
    files: Vec<RelPath>,
    /// Files with an offset in bytes, each byte of the tree as likely as any other: what the content is like.
    places: Vec<(RelPath, u64)>,
}

struct Walk<'a> {
    tree: &'a Tree,
    budget: &'a Budget<'a>,
    todo: Mutex<Todo>,
    changed: Condvar,
}

struct Todo {
    directories: Vec<RelPath>,
    active: usize,
}

/// Lists the tree, or as much of it as there is time for.
pub(super) fn scan(tree: &Tree, budget: &Budget<'_>) -> Found {
    let started = Instant::now();
    let todo = Mutex::new(Todo { directories: vec![RelPath::root()], active: 0 });
    let walk = &Walk { tree, budget, todo, changed: Condvar::new() };
    let mut found = std::thread::scope(|scope| {
        let others: Vec<_> = (1..SCANNERS).map(|_| scope.spawn(|| walk.work())).collect();
        let mut found = walk.work();
        for other in others {
            // A panic was printed; what the thread had found is missing, so the scan is not whole.
            match other.join() {
                Ok(other) => found.add(other),
                Err(_) => found.size.unreadable += 1,
            }
        }
        found
    });
    found.size.is_whole = lock(&walk.todo).directories.is_empty() && !budget.is_over();
    found.size.elapsed_ns = elapsed_ns(started);
    found
}

impl Walk<'_> {
    fn work(&self) -> Found {
        let mut found = Found { random: 0x9e37_79b9_7f4a_7c15, ..Found::default() };
        while let Some(path) = self.next() {
            let below = self.list(&path, &mut found);
            let mut todo = lock(&self.todo);
            todo.directories.extend(below);
            todo.active -= 1;
            drop(todo);
            self.changed.notify_all();
        }
        found
    }

    fn next(&self) -> Option<RelPath> {
        let mut todo = lock(&self.todo);
        loop {
            if self.budget.is_over() {
                return None;
            }
            if let Some(path) = todo.directories.pop() {
                todo.active += 1;
                return Some(path);
            }
            if todo.active == 0 {
                return None;
            }
            todo = self.changed.wait(todo).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lists one directory and returns those in it.
    fn list(&self, path: &RelPath, found: &mut Found) -> Vec<RelPath> {
        let opened = self.tree.dir(path).and_then(|dir| dir.names().map(|names| (dir, names)));
        let Ok((dir, names)) = opened else {
            found.size.unreadable += 1;
            return Vec::new();
        };
        let mut below = Vec::new();
        for name in names.iter().filter_map(|name| Name::new(name).ok()) {
            if self.budget.is_over() {
                // Left for nobody, so that the scan does not count as whole.
                return vec![path.clone()];
            }
            if path.has_room_for(&name) {
                below.extend(found.count(&dir, path, &name));
            }
        }
        below
    }
}

impl Found {
    /// Counts an entry; returns its path if it is a directory.
    fn count(&mut self, dir: &Dir, parent: &RelPath, name: &Name) -> Option<RelPath> {
        let Ok(info) = dir.info(name.as_bytes()) else {
            self.size.unreadable += 1;
            return None;
        };
        self.size.entries += 1;
        if info.is_file() {
            self.size.files += 1;
            self.size.bytes = self.size.bytes.saturating_add(info.size_bytes);
            if info.size_bytes > SMALL_FILE_BYTES {
                self.size.large_files += 1;
                self.size.large_bytes = self.size.large_bytes.saturating_add(info.size_bytes);
            }
            self.pick(parent, name, info.size_bytes);
        }
        info.is_dir().then(|| parent.join(name))
    }

    /// Reservoir sampling (Vitter's algorithm R): each file so far is picked with the same chance, and each of
    /// the places lies in it with the chance of its part of all bytes so far.
    fn pick(&mut self, parent: &RelPath, name: &Name, size_bytes: u64) {
        for place in 0..SAMPLE_PLACES {
            let offset = self.random_below(self.size.bytes);
            if offset < size_bytes {
                let place_in_tree = (parent.join(name), offset);
                match self.picked.places.get_mut(place) {
                    Some(picked) => *picked = place_in_tree,
                    None => self.picked.places.push(place_in_tree),
                }
            }
        }
        if self.picked.files.len() < PICKED_FILES {
            return self.picked.files.push(parent.join(name));
        }
        let place = self.random_below(self.size.files);
        if let Some(picked) = usize::try_from(place).ok().and_then(|place| self.picked.files.get_mut(place)) {
            *picked = parent.join(name);
        }
    }

    /// A number below `end`, or 0.
    fn random_below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // The upper half of the product is the number scaled down, without a division.
        ((u128::from(self.random) * u128::from(end)) >> 64) as u64
    }

    fn add(&mut self, other: Found) {
        let all_bytes = self.size.bytes.saturating_add(other.size.bytes);
        for (place, theirs) in other.picked.places.into_iter().enumerate() {
            let is_theirs = self.random_below(all_bytes) < other.size.bytes;
            match self.picked.places.get_mut(place) {
                Some(ours) if is_theirs => *ours = theirs,
                Some(_) => {}
                None => self.picked.places.push(theirs),
            }
        }
        self.picked.files.extend(other.picked.files);
        let (size, more) = (&mut self.size, other.size);
        size.entries += more.entries;
        size.files += more.files;
        size.bytes = all_bytes;
        size.large_files += more.large_files;
        size.large_bytes = size.large_bytes.saturating_add(more.large_bytes);
        size.unreadable += more.unreadable;
    }
}

/// Reads the picked files as they are, in the cache or not.
pub(super) fn read(tree: &Tree, picked: &Picked, budget: &Budget<'_>) -> Result<Work, Ended> {
    let (mut work, mut buffer) = (Work::default(), Vec::new());
    let started = Instant::now();
    for path in &picked.files {
        if budget.is_over() {
            break;
        }
        buffer.clear();
        // It may have vanished since the scan.
        let Some(bytes) = read_file(tree, path, 0, FILE_BYTES, &mut buffer) else { continue };
        work.files += 1;
        work.bytes += bytes;
    }
    work.elapsed_ns = elapsed_ns(started);
    if budget.is_stopped() {
        return Err(Ended::Stopped);
    }
    if work.files == 0 {
        return Err(Ended::Failed("there is no file that can be read".to_owned()));
    }
    Ok(work)
}

/// Content from the picked places; of a tree of small files, from more of them.
pub(super) fn sample(tree: &Tree, picked: &Picked) -> Vec<u8> {
    let most = SAMPLE_PLACES * PLACE_BYTES as usize;
    let files = picked.files.iter().map(|path| (path, 0));
    let mut sample = Vec::with_capacity(most);
    for (path, offset) in picked.places.iter().map(|(path, offset)| (path, *offset)).chain(files) {
        let room = (most - sample.len()) as u64;
        if room == 0 || (offset == 0 && sample.len() >= most / 4) {
            break;
        }
        // What vanished is no part of the sample.
        let _ = read_file(tree, path, offset, room.min(PLACE_BYTES), &mut sample);
    }
    sample
}

/// Appends at most so many bytes of a file.
fn read_file(tree: &Tree, path: &RelPath, offset: u64, bytes: u64, buffer: &mut Vec<u8>) -> Option<u64> {
    let (parent, name) = path.split_last()?;
    let mut file = tree.dir(&parent).ok()?.open_file(name.as_bytes()).ok()?;
    if !crate::tree::info_of(&file).ok()?.is_file() {
        return None;
    }
    file.seek(SeekFrom::Start(offset)).ok()?;
    file.take(bytes).read_to_end(buffer).ok().map(|bytes| bytes as u64)
}

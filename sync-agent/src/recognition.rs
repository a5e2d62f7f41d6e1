//! Files that the source renamed or copied: what is here under another name is copied here, and not sent.
//!
//! A run remembers in the index what hash each file over 16 KiB has that it brought, and where it is (its *place*).
//! A later run that is to fetch a file, new or changed, looks there for one of the same size and time; where it finds
//! one that still looks like it, it asks the source for the hash instead of the content. If some place had that hash, the
//! file is copied from there into staging and hashed from the copy; else, and whenever anything is not as remembered,
//! the file is fetched as if nobody had looked. So the source has read the whole file and the destination the whole
//! copy, as with a file that was sent: nothing that is remembered is taken for true.
//!
//! What always holds: nothing is looked up for a file that is up to date, and nothing at all in a run of which the index
//! knows no place, as that of a first copy. The mergers look, the receivers hear the answer, the tasks copy, the
//! committer remembers.

use crate::basis::{self, Basis};
use crate::commit::{Placement, Ready};
use crate::error::SessionError;
use crate::hard_links;
use crate::index::{Index, Place};
use crate::receiver::{Target, Task};
use crate::run::Run;
use crate::sink::{Content, CopyError, Output, Sink};
use crate::staging::Staged;
use crate::tree::{self, Dir, Info};
use crate::workers::lock;
use protocol::message::{HashKind, ReadFile};
use protocol::options::{QuickCheck, SyncOptions};
use protocol::{ContentHash, limits};
use rustix::io::Errno;
use std::fs::File;
use std::sync::{Arc, OnceLock};

/// What a run knows of the places below its root.
#[derive(Debug)]
pub(crate) struct Recognition {
    /// The destination's root; none where nothing is to be recognised.
    root: Option<Info>,
    /// Whether the index knows any place below it; looked up for the first file that is to be fetched.
    knows_any: OnceLock<bool>,
    /// Counts the files that are held open.
    holds: Arc<()>,
}

/// A file here that may be what is to be fetched.
#[derive(Debug)]
pub(crate) struct Candidate {
    place: Place,
    /// Kept open, so that it can still be read when this run has replaced it: files that change places, logs that move on.
    held: Option<(File, Arc<()>)>,
}

/// A file of which some place had the content.
#[derive(Debug)]
pub(crate) struct Recognised {
    target: Arc<Target>,
    hash: ContentHash,
    candidates: Vec<Candidate>,
}

/// Candidates kept open at once, of the 1024 files that a process may usually have.
const MOST_HELD: usize = 64;
/// Sizes that are a multiple of this are those of preallocated files: as such they say nothing.
const ROUND_BYTES: u64 = 4096;

impl Recognition {
    /// For a run below `root`, if it has one.
    pub(crate) fn new(root: Option<&Dir>, index: &Index, options: &SyncOptions) -> Recognition {
        let by_time = matches!(options.quick_check, QuickCheck::SizeAndTime | QuickCheck::SizeOnly);
        // Where files go whole it is because sending costs nothing.
        let is_on = by_time && !options.whole_file && index.is_kept();
        let root = root.filter(|_| is_on).and_then(|dir| dir.own_info().ok());
        Recognition { root, knows_any: OnceLock::new(), holds: Arc::default() }
    }

    /// Remembers where the content of a file is that now has its name.
    pub(crate) fn remember(&self, index: &Index, target: &Target, content: &Content) {
        let (Some(root), Some(hash)) = (&self.root, &content.hash) else { return };
        let size_bytes = target.wanted.entry.size_bytes();
        if size_bytes > limits::SMALL_FILE_BYTES {
            index.keep_place(Place::new(root, target.path(), size_bytes, target.wanted.entry.mtime, hash));
        }
    }

    /// Whether there may be a place for `target` at all.
    fn root_for(&self, run: &Run<'_>, target: &Target) -> Option<&Info> {
        let root = self.root.as_ref()?;
        // In place, what is there stays the file that it is.
        let is_patched = run.options.inplace && target.old_file().is_some();
        let is_worth_it = target.wanted.entry.size_bytes() > limits::SMALL_FILE_BYTES && !is_patched;
        (is_worth_it && *self.knows_any.get_or_init(|| run.index.knows_places(root))).then_some(root)
    }
}

/// A file here that may be what `target` is to be: then the source is to be asked for its hash first.
pub(crate) fn seek(run: &Run<'_>, target: &Target) -> Option<Candidate> {
    let root = run.recognition.root_for(run, target)?;
    let (size_bytes, mtime) = (target.wanted.entry.size_bytes(), target.wanted.entry.mtime);
    let mut places = run.index.places_like(root, size_bytes, mtime);
    if places.is_empty() && target.old_file().is_none() && !size_bytes.is_multiple_of(ROUND_BYTES) {
        // A copy that has a time of its own.
        places = run.index.places_sized(root, size_bytes);
    }
    let path = target.path();
    places.into_iter().filter(|place| place.path != path).find_map(|place| {
        match open(run, &place, size_bytes) {
            Ok(file) => {
                let may_hold = Arc::strong_count(&run.recognition.holds) <= MOST_HELD;
                let held = may_hold.then(|| (file, Arc::clone(&run.recognition.holds)));
                Some(Candidate { place, held })
            }
            Err(_) => {
                run.index.forget_place(&place);
                None
            }
        }
    })
}

/// The source said what a file hashes to for which there is a candidate.
pub(crate) fn answered(
    run: &Run<'_>,
    file: u32,
    target: Arc<Target>,
    candidate: Candidate,
    read: ReadFile,
) -> Result<(), SessionError> {
    lock(&run.session).reserve(target.list);
    let candidates = candidates(run, &target, candidate, &read);
    run.task(if candidates.is_empty() {
        Task::Delta(target)
    } else {
        Task::Recognised(Recognised { target, hash: read.hash, candidates })
    });
    run.resolve(file)
}

/// Who may have the content, if it is still that of the file that was listed.
fn candidates(run: &Run<'_>, target: &Target, first: Candidate, read: &ReadFile) -> Vec<Candidate> {
    let entry = &target.wanted.entry;
    let Some(root) = run.recognition.root.as_ref().filter(|_| read.mtime == entry.mtime) else {
        return Vec::new();
    };
    let path = target.path();
    let mut places = run.index.places_of(root, entry.size_bytes(), entry.mtime, &read.hash);
    places.retain(|place| *place != first.place && place.path != path);
    let first = Some(first).filter(|first| first.place.had(&read.hash));
    let others = places.into_iter().map(|place| Candidate { place, held: None });
    first.into_iter().chain(others).collect()
}

/// Makes a file from what is here; fetches it where none of that is what it was.
pub(crate) fn make(run: &Run<'_>, recognised: Recognised) -> Result<(), SessionError> {
    let Recognised { target, hash, candidates } = recognised;
    for candidate in candidates {
        match copy(run, &target, candidate, &hash) {
            Ok((staged, content)) => return complete(run, target, staged, content),
            Err(CopyError::Basis) => {}
            // The file that comes meets the same, and says so.
            Err(CopyError::Write(_)) => break,
        }
    }
    basis::request_delta(run, &target)
}

fn copy(
    run: &Run<'_>,
    target: &Arc<Target>,
    candidate: Candidate,
    hash: &ContentHash,
) -> Result<(Staged, Content), CopyError> {
    let Candidate { place, held } = candidate;
    let opened = match held {
        Some((file, _)) => Ok(file),
        None => open(run, &place, target.wanted.entry.size_bytes()),
    };
    let basis = opened.and_then(Basis::alone);
    let copied = basis.map_err(|_| CopyError::Basis).and_then(|basis| staged_copy(run, target, basis, hash));
    if matches!(copied, Err(CopyError::Basis)) {
        run.index.forget_place(&place);
    }
    copied
}

/// A copy with its metadata, hashed, in staging.
fn staged_copy(
    run: &Run<'_>,
    target: &Arc<Target>,
    basis: Basis,
    hash: &ContentHash,
) -> Result<(Staged, Content), CopyError> {
    let mut sink =
        Sink::new(Arc::clone(target), target.wanted.entry.size_bytes(), None, None, HashKind::Plain);
    let copied = sink.copy_all(run, &basis);
    let verified = copied
        .and_then(|()| Ok(sink.set_length(run)?))
        .and_then(|()| sink.verify(hash).ok_or(CopyError::Basis));
    let content = match verified {
        Ok(content) => content,
        Err(error) => {
            sink.discard();
            return Err(error);
        }
    };
    let Output::Staged(staged, out) = sink.into_output() else { return Err(CopyError::Basis) };
    match target.wanted.metadata.apply(&out) {
        Ok(()) => Ok((staged, content)),
        Err((_, error)) => {
            staged.discard();
            Err(CopyError::Write(error.into()))
        }
    }
}

fn complete(
    run: &Run<'_>,
    target: Arc<Target>,
    staged: Staged,
    content: Content,
) -> Result<(), SessionError> {
    run.done(&target);
    hard_links::first_is_staged(run, &target, Some(&staged));
    let (list, bytes, how) = (target.list, target.wanted.entry.size_bytes(), Placement::Rename);
    run.commit(vec![Ready { target, staged, how, bytes, content }]);
    lock(&run.session).unreserve(list);
    run.advance()
}

/// Opens what is at a place now, if it looks like what was there.
fn open(run: &Run<'_>, place: &Place, size_bytes: u64) -> Result<File, Errno> {
    let (parent, name) = place.path.split_last().ok_or(Errno::ISDIR)?;
    let file = run.tree.dir(&parent)?.open_file(name.as_bytes())?;
    let info = tree::info_of(&file)?;
    // Not every file system keeps the nanoseconds.
    let same_time = !run.options.preserve.times || info.mtime.secs == place.mtime().secs;
    if info.is_file() && info.size_bytes == size_bytes && same_time { Ok(file) } else { Err(Errno::STALE) }
}

//! Group commit: many staged files become durable by one `syncfs`, then get their names.
//!
//! A name appears only after its content is on disk; the names themselves are on disk after the last
//! sync of the run, which comes before exit status 0. A sync that fails ends the run: what the kernel
//! did with the pages is not known, so it is not tried again.

use crate::error::SessionError;
use crate::journal;
use crate::receiver::Target;
use crate::run::Run;
use crate::staging::Staged;
use crate::tree::Dir;
use crate::workers::lock;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, at, select};
use protocol::entry::Kind;
use protocol::path::RelPath;
use protocol::stats::{Cause, Operation, Problem, Side};
use rustix::io::Errno;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A verified entry with its metadata, waiting for its name.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) target: Arc<Target>,
    pub(crate) staged: Staged,
    pub(crate) how: Placement,
    pub(crate) bytes: u64,
    pub(crate) literal: u64,
    pub(crate) matched: u64,
}

/// How a staged entry gets its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// It is renamed to its name.
    Rename,
    /// It is a journal, by which the file of that name is patched.
    Patch,
}

/// What the committer is told.
#[derive(Debug)]
pub(crate) enum Commit {
    /// An entry is ready.
    Ready(Ready),
    /// Commit what is there, and answer.
    Flush(Sender<()>),
}

const BATCH_ENTRIES: usize = 4096;
const BATCH_BYTES: u64 = 512 << 20;
const BATCH_TIME: Duration = Duration::from_secs(5);

/// The committing thread.
pub(crate) fn work(
    run: &Run<'_>,
    commits: &Receiver<Commit>,
    stopped: &Receiver<()>,
) -> Result<(), SessionError> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    let mut due = Instant::now() + BATCH_TIME;
    loop {
        let commit_now = select! {
            recv(commits) -> commit => commit.map_err(|_| RecvTimeoutError::Disconnected),
            recv(stopped) -> _ => return Ok(()),
            recv(at(due)) -> _ => Err(RecvTimeoutError::Timeout),
        };
        match commit_now {
            Ok(Commit::Ready(ready)) => {
                if batch.is_empty() {
                    due = Instant::now() + BATCH_TIME;
                }
                bytes += ready.bytes;
                batch.push(ready);
                if batch.len() < BATCH_ENTRIES && bytes < BATCH_BYTES {
                    continue;
                }
                commit(run, &mut batch)?;
            }
            Ok(Commit::Flush(done)) => {
                commit(run, &mut batch)?;
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => commit(run, &mut batch)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        bytes = 0;
        due = Instant::now() + BATCH_TIME;
    }
}

fn commit(run: &Run<'_>, batch: &mut Vec<Ready>) -> Result<(), SessionError> {
    if !batch.is_empty() {
        run.staging.sync()?;
        let mut parent = Parent { open: None };
        let (patches, renames): (Vec<Ready>, Vec<Ready>) =
            batch.drain(..).partition(|ready| ready.how == Placement::Patch);
        renames.into_iter().for_each(|ready| place(run, &mut parent, ready));
        patch_all(run, patches)?;
    }
    complete_directories(run);
    Ok(())
}

/// The directory of the last rename, still open.
struct Parent {
    open: Option<(Arc<RelPath>, Dir)>,
}

impl Parent {
    fn dir(&mut self, run: &Run<'_>, path: &Arc<RelPath>) -> Result<&Dir, Errno> {
        if !self.open.as_ref().is_some_and(|(open, _)| Arc::ptr_eq(open, path)) {
            self.open = None;
            let dir = run.tree.dir(path)?;
            self.open = Some((Arc::clone(path), dir));
        }
        self.open.as_ref().map(|(_, dir)| dir).ok_or(Errno::NOENT)
    }
}

/// Places what took a directory's name, once the content of that directory is gone.
pub(crate) fn place_waiting(run: &Run<'_>) {
    let mut parent = Parent { open: None };
    for ready in std::mem::take(&mut *lock(&run.waiting)) {
        if let Ok(dir) = parent.dir(run, &ready.target.parent) {
            // Not empty: what is in it stays, and the rename says so.
            let _ = dir.remove_dir(ready.target.name().as_bytes());
        }
        settle(run, &mut parent, ready);
    }
}

fn place(run: &Run<'_>, parent: &mut Parent, ready: Ready) {
    let replaces_directory = ready.target.existing.is_some_and(|info| info.is_dir());
    if replaces_directory {
        lock(&run.waiting).push(ready);
    } else {
        settle(run, parent, ready);
    }
}

fn settle(run: &Run<'_>, parent: &mut Parent, ready: Ready) {
    let Ready { target, staged, literal, matched, .. } = ready;
    let placed = parent
        .dir(run, &target.parent)
        .and_then(|dir| staged.area.dir.rename(staged.name.as_bytes(), dir, target.name().as_bytes()));
    match placed {
        Ok(()) => {
            staged.placed();
            lock(&run.session).touch(target.directory);
            match target.wanted.entry.kind {
                Kind::File { .. } => run.transferred(&target, target.change, literal, matched),
                _ => {
                    run.created(&target);
                    run.done(&target);
                }
            }
        }
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR) => {
            staged.discard();
            run.problem(Problem {
                side: Side::Destination,
                path: target.path(),
                operation: Operation::Rename,
                cause: Cause::NotEmpty,
            });
        }
        Err(error) => {
            staged.discard();
            run.fail(&target, Operation::Rename, error);
        }
    }
    run.let_go(target.directory);
}

/// Patches files in place. Their journals are on disk; that they are used is on disk before the first byte
/// changes, and the files are on disk before the journals go.
fn patch_all(run: &Run<'_>, mut patches: Vec<Ready>) -> Result<(), SessionError> {
    if patches.is_empty() {
        return Ok(());
    }
    for ready in &mut patches {
        ready.staged.begin_patch().map_err(|error| SessionError::io("begin a patch in place", error))?;
    }
    run.staging.sync_entries()?;
    let patched: Vec<Staged> = patches.into_iter().filter_map(|ready| patch(run, ready)).collect();
    run.staging.sync()?;
    patched.into_iter().for_each(Staged::discard);
    Ok(())
}

/// Patches a file in place; returns its journal, which goes when the file is on disk. The journal of a
/// patch that failed half-way stays, for the next run to carry out.
fn patch(run: &Run<'_>, ready: Ready) -> Option<Staged> {
    let Ready { target, staged, literal, matched, .. } = ready;
    let size_bytes = target.wanted.entry.size_bytes();
    let patched = journal::apply(&staged.area.dir, staged.name.as_bytes(), run.tree, size_bytes);
    let is_patched = patched.is_ok();
    let applied = patched
        .map_err(|error| (Operation::Write, error))
        .and_then(|file| target.wanted.apply_to_file(&file));
    match applied {
        Ok(()) => run.transferred(&target, target.change, literal, matched),
        Err((operation, error)) => run.fail(&target, operation, error),
    }
    run.let_go(target.directory);
    is_patched.then_some(staged)
}

/// Sets the metadata of directories whose content is complete, children before parents.
pub(crate) fn complete_directories(run: &Run<'_>) {
    let complete = lock(&run.session).take_complete();
    for directory in complete {
        let held = run.tree.dir(&directory.path).and_then(|dir| dir.hold_self());
        let applied =
            held.map_err(|error| (Operation::Open, error)).and_then(|held| directory.metadata.apply(&held));
        if let Err((operation, error)) = applied {
            run.problem(crate::monitor::errno(Side::Destination, &directory.path, operation, error));
        }
    }
}

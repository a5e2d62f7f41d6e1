//! Group commit: many staged files become durable by one `syncfs`, then get their names.
//!
//! A name appears only after its content is on disk; the names themselves are on disk after the last
//! sync of the run, which comes before exit status 0. A sync that fails ends the run: what the kernel
//! did with the pages is not known, so it is not tried again.

use crate::clock::Activity;
use crate::error::SessionError;
use crate::hard_links;
use crate::index::FileValues;
use crate::inherited::{Inherited, Permissions};
use crate::journal;
use crate::metadata::{Metadata, MetadataError};
use crate::planned::Taking;
use crate::receiver::Target;
use crate::run::Run;
use crate::sink::Content;
use crate::staging::Staged;
use crate::tree::{self, Dir, Info, Walk};
use crate::workers::lock;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, at, select};
use protocol::ContentHash;
use protocol::bases::{Agreement, BaseKind};
use protocol::destination::DirectoryId;
use protocol::entry::Kind;
use protocol::limits;
use protocol::path::RelPath;
use protocol::signature::BlockSize;
use protocol::stats::{Cause, Operation, Problem, Side};
use rustix::io::Errno;
use std::fs::File;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A verified entry with its metadata, waiting for its name.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) target: Arc<Target>,
    pub(crate) staged: Staged,
    pub(crate) how: Placement,
    pub(crate) bytes: u64,
    pub(crate) content: Content,
}

/// A file in place whose blocks' values are kept, but not found before it is certain that a later write would show.
#[derive(Debug)]
pub(crate) struct Unconfirmed {
    target: Arc<Target>,
    info: Info,
    hash: ContentHash,
    block_size: BlockSize,
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
    /// Entries are ready.
    Ready(Vec<Ready>),
    /// Commit what is there, and answer.
    Flush(Sender<()>),
    /// Enough is in place to tell the source that it may go there.
    Confirm,
}

const BATCH_ENTRIES: usize = 4096;
const BATCH_BYTES: u64 = 128 << 20;
const BATCH_TIME: Duration = Duration::from_secs(5);
/// Files that are patched in place at the same time.
const PATCHERS: usize = 2;

/// The committing thread.
pub(crate) fn work(
    run: &Run<'_>,
    commits: &Receiver<Commit>,
    stopped: &Receiver<()>,
) -> Result<(), SessionError> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    let mut due = Instant::now() + BATCH_TIME;
    let is_delayed = run.options.placing.delayed;
    loop {
        let commit_now = select! {
            recv(commits) -> commit => commit.map_err(|_| RecvTimeoutError::Disconnected),
            recv(stopped) -> _ => return finish_stopped(run, commits, batch),
            recv(at(due)) -> _ => Err(RecvTimeoutError::Timeout),
        };
        match commit_now {
            Ok(Commit::Ready(ready)) => {
                if batch.is_empty() {
                    due = Instant::now() + BATCH_TIME;
                }
                bytes += ready.iter().map(|ready| ready.bytes).sum::<u64>();
                batch.extend(ready);
                if is_delayed || batch.len() < BATCH_ENTRIES && bytes < BATCH_BYTES {
                    continue;
                }
                commit(run, &mut batch)?;
            }
            Ok(Commit::Flush(done)) => {
                commit(run, &mut batch)?;
                let _ = done.send(());
            }
            // What is delayed waits for the flush at the end.
            Err(RecvTimeoutError::Timeout) if is_delayed => commit(run, &mut Vec::new())?,
            Ok(Commit::Confirm) if is_delayed => commit(run, &mut Vec::new())?,
            Ok(Commit::Confirm) | Err(RecvTimeoutError::Timeout) => commit(run, &mut batch)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        bytes = 0;
        due = Instant::now() + BATCH_TIME;
    }
}

/// The run ends early. If that is for a full disk, what is verified still gets its name, which takes no room; to be
/// called again when nobody verifies any more. The queue is emptied in any case: nobody is to wait for a place in it.
pub(crate) fn finish_stopped(
    run: &Run<'_>,
    commits: &Receiver<Commit>,
    mut batch: Vec<Ready>,
) -> Result<(), SessionError> {
    for commit in commits.try_iter() {
        if let Commit::Ready(ready) = commit {
            batch.extend(ready);
        }
    }
    let may_commit = run.is_full.load(Ordering::Acquire) && !run.options.placing.delayed;
    if may_commit { commit(run, &mut batch) } else { Ok(()) }
}

fn commit(run: &Run<'_>, batch: &mut Vec<Ready>) -> Result<(), SessionError> {
    run.progress.clock.time(Activity::Commit, || commit_all(run, batch))
}

fn commit_all(run: &Run<'_>, batch: &mut Vec<Ready>) -> Result<(), SessionError> {
    if !batch.is_empty() {
        confirm_values(run, |info| info.is_settled());
        leave_scratch(run, batch);
        run.staging.sync()?;
        let mut parent = Parent::default();
        let (patches, renames): (Vec<Ready>, Vec<Ready>) =
            batch.drain(..).partition(|ready| ready.how == Placement::Patch);
        let ended: Vec<Ended> =
            renames.into_iter().filter_map(|ready| place(run, &mut parent, ready)).collect();
        let mut session = lock(&run.session);
        for Ended { directory, touched } in ended {
            if touched {
                session.touch(directory);
            }
            session.let_go(directory);
        }
        drop(session);
        patch_all(run, patches)?;
    }
    complete_directories(run);
    run.confirm_removals()
}

/// An entry whose story is over: its directory can be let go.
struct Ended {
    directory: DirectoryId,
    /// It has its name: the directory's time is no longer what it was.
    touched: bool,
}

/// The directory of the last rename, still open.
#[derive(Default)]
struct Parent {
    walk: Walk,
    open: Option<(Arc<RelPath>, Dir)>,
    /// What its entries have of it.
    inherited: Option<Inherited>,
}

impl Parent {
    fn dir(&mut self, run: &Run<'_>, target: &Target) -> Result<&Dir, Errno> {
        let path = &target.parent;
        if !self.open.as_ref().is_some_and(|(open, _)| Arc::ptr_eq(open, path)) {
            self.open = None;
            let dir = self.walk.dir(run.tree, path)?;
            let session = lock(&run.session);
            let known = session.metadata(target.directory);
            let (mode, gives_nothing) =
                (known.and_then(Metadata::mode), known.is_some_and(Metadata::gives_nothing));
            drop(session);
            self.inherited = match gives_nothing {
                true => None,
                false => Inherited::of(&dir, mode, run.options.preserve.acls)?,
            };
            self.open = Some((Arc::clone(path), dir));
        }
        self.open.as_ref().map(|(_, dir)| dir).ok_or(Errno::NOENT)
    }
}

/// Places what took a directory's name, once the content of that directory is gone.
pub(crate) fn place_waiting(run: &Run<'_>) {
    let mut parent = Parent::default();
    for ready in std::mem::take(&mut *lock(&run.waiting)) {
        let Ended { directory, touched } = settle(run, &mut parent, ready);
        let mut session = lock(&run.session);
        if touched {
            session.touch(directory);
        }
        session.let_go(directory);
    }
}

fn place(run: &Run<'_>, parent: &mut Parent, ready: Ready) -> Option<Ended> {
    let replaces_directory = ready.target.existing.is_some_and(|info| info.is_dir());
    if replaces_directory {
        lock(&run.waiting).push(ready);
        return None;
    }
    Some(settle(run, parent, ready))
}

/// What is new gets what its directory gives to what is made in it; not what is a further name of something that is there.
fn give_inherited(
    run: &Run<'_>,
    parent: &mut Parent,
    target: &Target,
    staged: &Staged,
) -> Result<(), MetadataError> {
    parent.dir(run, target).map_err(|error| (Operation::Open, error))?;
    let agrees = target.alternate.as_ref().map(|alternate| alternate.agrees);
    let is_linked_base = agrees == Some(Agreement::All) && run.bases.kind() == BaseKind::Link;
    match &parent.inherited {
        Some(inherited) if target.first.is_none() && !is_linked_base => {
            let held = staged.area.dir.hold(staged.name.as_bytes());
            let is_fresh = !run.options.preserve.perms && target.existing.is_none();
            let permissions = if is_fresh { Permissions::Fresh } else { Permissions::Decided };
            inherited.give(&held.map_err(|error| (Operation::Open, error))?, &target.wanted, permissions)
        }
        _ => Ok(()),
    }
}

/// Why something that is staged does not get its name.
enum Unplaced {
    /// The plan is about something else.
    Unplanned,
    Failed(MetadataError),
}

impl From<MetadataError> for Unplaced {
    fn from(error: MetadataError) -> Unplaced {
        Unplaced::Failed(error)
    }
}

fn settle(run: &Run<'_>, parent: &mut Parent, ready: Ready) -> Ended {
    let Ready { target, staged, content, .. } = ready;
    let placed = give_name(run, parent, &target, &staged);
    let touched = placed.is_ok();
    match placed {
        Ok(()) => {
            staged.placed();
            has_its_name(run, parent, &target, content);
        }
        Err(why) => {
            run.links.lost(&target);
            staged.discard();
            run.did_not_come(&target);
            tell_unplaced(run, &target, why);
        }
    }
    Ended { directory: target.directory, touched }
}

fn give_name(run: &Run<'_>, parent: &mut Parent, target: &Target, staged: &Staged) -> Result<(), Unplaced> {
    let cannot_rename = |error| (Operation::Rename, error);
    let taking = parent.dir(run, target).and_then(|dir| run.taking(dir, target)).map_err(cannot_rename)?;
    if taking == Taking::Never {
        return Err(Unplaced::Unplanned);
    }
    if let Some(existing) = target.existing {
        make_way(run, parent, target, &existing).map_err(|error| (Operation::PutAside, error))?;
    }
    give_inherited(run, parent, target, staged)?;
    let dir = parent.dir(run, target).map_err(cannot_rename)?;
    let (area, name, to) = (&staged.area.dir, staged.name.as_bytes(), target.name().as_bytes());
    let renamed = match taking {
        Taking::Free => match area.rename_to_free(name, dir, to) {
            // A directory that was to go is not empty: that is told.
            Err(Errno::EXIST) if target.existing.is_none() => return Err(Unplaced::Unplanned),
            result => result,
        },
        _ => area.rename(name, dir, to),
    };
    Ok(renamed.map_err(cannot_rename)?)
}

fn has_its_name(run: &Run<'_>, parent: &mut Parent, target: &Arc<Target>, content: Content) {
    if let Some(partials) = run.partials {
        partials.forget(run, target);
    }
    tell_replaced(run, parent, target);
    run.links.placed(target);
    run.came(target);
    match target.wanted.entry.kind {
        _ if target.first.is_some() => run.linked(target),
        Kind::File { .. } if target.is_from_base() => run.created(target),
        Kind::File { .. } => {
            run.transferred(target, &content);
            run.recognition.remember(run.index, target, &content);
            if let Some(replaced) =
                target.old_file().filter(|old| old.size_bytes >= limits::VALUES_FROM_BYTES)
            {
                run.index.forget_values(replaced);
            }
            if let (Some(values), Ok(dir)) = (content.values, parent.dir(run, target)) {
                keep_values(run, target, dir.info(target.name().as_bytes()), &values);
            }
        }
        _ => {
            run.created(target);
            run.done(target);
        }
    }
}

fn tell_unplaced(run: &Run<'_>, target: &Target, why: Unplaced) {
    match why {
        // Who holds the run to its plan tells what of it was not done.
        Unplaced::Unplanned => {}
        Unplaced::Failed((Operation::Rename, Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR)) => {
            let (side, operation, cause) = (Side::Destination, Operation::Rename, Cause::NotEmpty);
            run.problem(Problem { side, path: target.path(), operation, cause });
        }
        Unplaced::Failed((operation, error)) => run.fail(target, operation, error),
    }
}

/// A directory goes; what else is to be kept gets its place among that.
fn make_way(run: &Run<'_>, parent: &mut Parent, target: &Target, existing: &Info) -> Result<(), Errno> {
    if existing.is_dir() {
        // Not empty: what is in it stays, and the rename says so.
        let (dir, name) = (parent.dir(run, target)?, target.name());
        let _ = run.retirement.remove_dir(run.tree, dir, &target.parent, name, existing);
    }
    keep_old(run, parent, target)
}

/// What the entry is about to replace gets its place among what is kept.
fn keep_old(run: &Run<'_>, parent: &mut Parent, target: &Target) -> Result<(), Errno> {
    if run.options.replaced.is_gone() {
        return Ok(());
    }
    let dir = parent.dir(run, target)?;
    run.retirement.keep(run.tree, dir, &target.parent, target.name())
}

/// Something that was kept was replaced.
fn tell_replaced(run: &Run<'_>, parent: &mut Parent, target: &Target) {
    if run.options.replaced.is_gone() || target.existing.is_none() {
        return;
    }
    let told =
        parent.dir(run, target).and_then(|dir| run.retirement.replaced(dir, &target.parent, target.name()));
    if let Err(error) = told {
        run.fail(target, Operation::PutAside, error);
    }
}

/// What was written on another file system is copied to where a rename is all that is left to do.
fn leave_scratch(run: &Run<'_>, batch: &mut Vec<Ready>) {
    let (away, mut here): (Vec<Ready>, Vec<Ready>) =
        batch.drain(..).partition(|ready| ready.staged.area.is_scratch());
    for ready in away {
        let Ready { target, staged, how, bytes, content } = ready;
        let moved = run.area(&target).and_then(|area| staged.copy_to(&area, &target.wanted.metadata));
        staged.discard();
        match moved {
            Ok(staged) => {
                here.extend(hard_links::first_left_scratch(run, &target, &staged));
                here.push(Ready { target, staged, how, bytes, content });
            }
            Err(error) => {
                run.did_not_come(&target);
                run.fail(&target, Operation::Write, error);
                run.let_go(target.directory);
            }
        }
    }
    *batch = here;
}

/// Patches files in place. Their journals are on disk; that they are used is on disk before the first byte
/// changes, and the files are on disk before the journals go.
fn patch_all(run: &Run<'_>, patches: Vec<Ready>) -> Result<(), SessionError> {
    let mut opened: Vec<(Ready, File)> = patches.into_iter().filter_map(|ready| open(run, ready)).collect();
    if opened.is_empty() {
        return Ok(());
    }
    for (ready, _) in &mut opened {
        ready.staged.begin_patch().map_err(|error| SessionError::io("begin a patch in place", error))?;
    }
    run.staging.sync_entries()?;
    let patched = patch_beside(run, opened)?;
    run.staging.sync()?;
    for Patched { target, staged, values, file } in patched {
        staged.discard();
        // After the sync: from here on a write through a mapping shows in the file's times again.
        if let Some(values) = values {
            keep_values(run, &target, tree::info_of(&file), &values);
        }
    }
    Ok(())
}

/// Patches several files at a time: at the end of a run nothing else is left to do, and a service waits.
fn patch_beside(run: &Run<'_>, opened: Vec<(Ready, File)>) -> Result<Vec<Patched>, SessionError> {
    let threads = PATCHERS.min(opened.len());
    let waiting = Mutex::new(opened.into_iter());
    let work = || {
        let next = || lock(&waiting).next();
        std::iter::from_fn(next).filter_map(|(ready, file)| patch(run, ready, file)).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        // Where no thread can be started, this one does all of it.
        let start = |_| std::thread::Builder::new().name("commit".to_owned()).spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..threads).filter_map(start).collect();
        let mut patched = work();
        for other in others {
            patched.extend(other.join().map_err(|_| SessionError::Panic("commit"))?);
        }
        Ok(patched)
    })
}

/// A file that was patched, with its journal, which goes when the file is on disk.
struct Patched {
    target: Arc<Target>,
    staged: Staged,
    values: Option<Box<FileValues>>,
    file: File,
}

/// The values of a file that was just placed, for the index; `info` is its own from after that.
pub(crate) fn keep_values(
    run: &Run<'_>,
    target: &Arc<Target>,
    info: Result<Info, Errno>,
    known: &FileValues,
) {
    let Ok(info) = info else { return };
    if run.index.keep_values(&info, known) {
        let FileValues { hash, block_size, .. } = *known;
        lock(&run.unconfirmed).push(Unconfirmed { target: Arc::clone(target), info, hash, block_size });
    }
}

/// Lets the values of those files be found that are old enough by their own times and still what they were.
pub(crate) fn confirm_values(run: &Run<'_>, is_settled: impl Fn(&Info) -> bool) {
    let mut walk = Walk::default();
    let (settled, young) =
        std::mem::take(&mut *lock(&run.unconfirmed)).into_iter().partition(|file| is_settled(&file.info));
    *lock(&run.unconfirmed) = young;
    let settled: Vec<Unconfirmed> = settled;
    for Unconfirmed { target, info, hash, block_size } in settled {
        let now = walk.dir(run.tree, &target.parent).and_then(|dir| dir.info(target.name().as_bytes()));
        if now.is_ok_and(|now| info.same_content(&now)) {
            run.index.confirm_values(&info, &hash, block_size);
        }
    }
}

/// Opens the file that is to be patched; one that can't be keeps its content.
fn open(run: &Run<'_>, ready: Ready) -> Option<(Ready, File)> {
    let Ready { target, staged, .. } = &ready;
    let size_bytes = target.wanted.entry.size_bytes();
    let area = &staged.area.dir;
    let opened = target.existing.ok_or(Errno::STALE).and_then(|existing| {
        journal::open_target(
            area,
            staged.name.as_bytes(),
            run.tree,
            &existing,
            size_bytes,
            run.options.room.sparse,
        )
    });
    match opened {
        Ok(file) => Some((ready, file)),
        Err(error) => {
            run.fail(target, Operation::Write, error);
            run.did_not_come(target);
            run.let_go(target.directory);
            ready.staged.discard();
            None
        }
    }
}

/// Patches a file in place. The journal of a patch that failed half-way stays, for the next run to carry out.
fn patch(run: &Run<'_>, ready: Ready, file: File) -> Option<Patched> {
    let Ready { target, staged, mut content, .. } = ready;
    let patched = journal::apply(&staged.area.dir, staged.name.as_bytes(), &file);
    let is_patched = patched.is_ok();
    let applied =
        patched.map_err(|error| (Operation::Write, error)).and_then(|()| target.wanted.metadata.apply(&file));
    let values = content.values.take().filter(|_| applied.is_ok());
    match applied {
        Ok(()) => {
            run.transferred(&target, &content);
            run.recognition.remember(run.index, &target, &content);
            run.came(&target);
        }
        Err((operation, error)) => {
            run.fail(&target, operation, error);
            run.did_not_come(&target);
        }
    }
    run.let_go(target.directory);
    is_patched.then_some(Patched { target, staged, values, file })
}

/// Sets the metadata of directories whose content is complete, children before parents.
pub(crate) fn complete_directories(run: &Run<'_>) {
    let complete = lock(&run.session).take_complete();
    let mut walk = Walk::default();
    for directory in complete {
        let held = walk.hold(run.tree, &directory.path);
        let applied =
            held.map_err(|error| (Operation::Open, error)).and_then(|held| directory.metadata.apply(&held));
        if let Err((operation, error)) = applied {
            run.problem(crate::monitor::errno(Side::Destination, &directory.path, operation, error));
        }
    }
}

//! The destination's receiver: turns answers into staged files, and verifies them.
//!
//! Nothing gets a name here. A file is written to staging, hashed while it is written, and handed to
//! the committer only if its BLAKE3 is the one that the source computed while it read. As long as what
//! arrives is what the old file has at the same place, nothing is written at all.

use crate::bases::{self, Alternate};
use crate::basis::{self, OldValues};
use crate::clock::Activity;
use crate::commit::{self, Placement, Ready};
use crate::error::SessionError;
use crate::hard_links;
use crate::holes;
use crate::journal::Journal;
use crate::metadata::Wanted;
use crate::recognition::{self, Candidate, Recognised};
use crate::run::Run;
use crate::sink::{self, COPY_BYTES, Content, CopyError, Output, Sink};
use crate::staging::Staged;
use crate::tree::{Handle as _, Info};
use crate::workers::lock;
use protocol::ContentHash;
use protocol::bases::Agreement;
use protocol::decide::{Action, content_differs, content_same};
use protocol::destination::DirectoryId;
use protocol::itemize::Change;
use protocol::limits;
use protocol::message::{Data, Failure, HashKind, Message, ReadFile, Record, Step, Want};
use protocol::options::Room;
use protocol::path::{Name, RelPath};
use protocol::stats::{Cause, Operation, Problem, Side, is_full};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// An entry of the source with what it is to become here.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) directory: DirectoryId,
    pub(crate) parent: Arc<RelPath>,
    pub(crate) list: u32,
    pub(crate) index: u32,
    pub(crate) wanted: Wanted,
    pub(crate) change: Change,
    pub(crate) existing: Option<Info>,
    /// The device of the directory that it is in.
    pub(crate) device: Option<(u32, u32)>,
    /// How often it changed while it was read.
    pub(crate) changes: u8,
    /// How often what arrived was not what the source read.
    pub(crate) mismatches: u8,
    /// Compared in place it had little in common with its basis.
    pub(crate) is_misaligned: bool,
    /// The source has it with holes: it is compared as such.
    pub(crate) has_holes: bool,
    /// Its content was found to be another one: what an index says of it is not to be trusted.
    pub(crate) is_suspect: bool,
    /// It becomes a further name of this entry.
    pub(crate) first: Option<RelPath>,
    /// A file elsewhere that it is made from.
    pub(crate) alternate: Option<Box<Alternate>>,
}

impl Target {
    pub(crate) fn name(&self) -> &Name {
        &self.wanted.entry.name
    }

    pub(crate) fn path(&self) -> RelPath {
        self.parent.join(self.name())
    }

    /// The regular file that has its name now.
    pub(crate) fn old_file(&self) -> Option<&Info> {
        self.existing.as_ref().filter(|info| info.is_file())
    }

    /// The regular file that blocks of it may be found in.
    pub(crate) fn basis(&self) -> Option<&Info> {
        self.alternate.as_ref().map(|alternate| &alternate.info).or(self.old_file())
    }

    pub(crate) fn open_basis(&self, run: &Run<'_>) -> Result<File, Errno> {
        match &self.alternate {
            Some(alternate) => alternate.open(run, self),
            None => run.tree.dir(&self.parent)?.open_file(self.name().as_bytes()),
        }
    }

    /// Whether it is made from a file that has the same content.
    pub(crate) fn is_from_base(&self) -> bool {
        self.alternate.as_ref().is_some_and(|alternate| alternate.agrees >= Agreement::Content)
    }

    pub(crate) fn without_alternate(&self) -> Target {
        let change = self.alternate.as_ref().map_or(self.change, |alternate| alternate.otherwise);
        Target { alternate: None, change, ..self.clone() }
    }
}

/// Work that reads files of the destination.
#[derive(Debug)]
pub(crate) enum Task {
    /// Ask for a delta and send the signature.
    Delta(Arc<Target>),
    /// Hash the file for a comparison that was asked for under this number.
    Hash(u32, HashKind, Arc<Target>),
    /// Make it from a file of an alternate base.
    FromBase(Arc<Target>),
    /// Make it from a file of another name.
    Recognised(Recognised),
}

/// A file that was asked for.
#[derive(Debug)]
pub(crate) struct Flight {
    want: Want,
    target: Arc<Target>,
    values: Option<Arc<OldValues>>,
    /// Of a file whose hash was asked for; apart, for thousands are asked for whole at a time.
    comparison: Option<Box<Comparison>>,
}

#[derive(Debug, Default)]
struct Comparison {
    /// Its two sides, as they come in.
    ours: Option<Option<ContentHash>>,
    theirs: Option<(u64, ReadFile)>,
    /// What it may be a copy of: its hash is to tell.
    candidate: Option<Candidate>,
}

impl Flight {
    pub(crate) fn new(want: Want, target: Arc<Target>) -> Flight {
        Flight { want, target, values: None, comparison: None }
    }

    /// One of a file that may be a copy of another one here.
    pub(crate) fn of_copy(target: Arc<Target>, candidate: Candidate) -> Flight {
        let comparison = Comparison { candidate: Some(candidate), ..Comparison::default() };
        Flight { comparison: Some(Box::new(comparison)), ..Flight::new(Want::Hash, target) }
    }

    pub(crate) fn with_values(self, values: Option<Arc<OldValues>>) -> Flight {
        Flight { values, ..self }
    }

    fn comparison(&mut self) -> &mut Comparison {
        self.comparison.get_or_insert_default()
    }
}

/// Carries out a task.
pub(crate) fn carry_out(run: &Run<'_>, task: Task) -> Result<(), SessionError> {
    match task {
        Task::Delta(target) => basis::request_delta(run, &target),
        Task::Hash(file, kind, target) => {
            let ours = basis::hash_existing(run, &target, kind);
            if let Some(flight) = lock(&run.flights).get_mut(&file) {
                flight.comparison().ours = Some(ours);
            }
            compare(run, file)
        }
        Task::FromBase(target) => bases::make_file(run, &target),
        Task::Recognised(recognised) => recognition::make(run, recognised),
    }
}

/// One writing thread: the files of its lanes.
pub(crate) struct Receiver<'a, 'r> {
    run: &'a Run<'r>,
    sinks: HashMap<u32, Sink>,
    buffer: Vec<u8>,
    /// What the frame at hand has brought to an end, told to the others at once.
    ready: Vec<Ready>,
    resolved: Vec<u32>,
    let_go: Vec<DirectoryId>,
}

impl<'a, 'r> Receiver<'a, 'r> {
    pub(crate) fn new(run: &'a Run<'r>) -> Receiver<'a, 'r> {
        Receiver {
            run,
            sinks: HashMap::new(),
            buffer: vec![0; COPY_BYTES],
            ready: Vec::new(),
            resolved: Vec::new(),
            let_go: Vec::new(),
        }
    }

    /// Takes in a frame's answers, which the session has checked.
    pub(crate) fn receive(&mut self, data: &Data) -> Result<(), SessionError> {
        let result = self.records(data);
        // Also what was verified before the disk was full gets its name.
        self.run.commit(std::mem::take(&mut self.ready));
        result?;
        self.tell()
    }

    fn records(&mut self, data: &Data) -> Result<(), SessionError> {
        let mut bulk = data.bulk.as_slice();
        let mut small = self.targets_of_small(data).into_iter();
        for Record { file, step } in &data.records {
            let mut take = |bytes: u32| {
                let (now, rest) = bulk.split_at((bytes as usize).min(bulk.len()));
                bulk = rest;
                now
            };
            match *step {
                Step::Open { size_bytes, hash } => self.open(*file, size_bytes, hash)?,
                Step::Literal { bytes } => self.literal(*file, take(bytes))?,
                Step::Match { block, count } => {
                    self.take_in(*file, |sink, run, buffer| sink.copy(run, block, count, buffer))?;
                }
                Step::Pages { page, count } => {
                    self.take_in(*file, |sink, run, buffer| sink.copy_pages(run, page, count, buffer))?;
                }
                Step::Zeros { bytes } => self.zeros(*file, bytes)?,
                Step::Lacks { bytes } => {
                    let bits = take(bytes);
                    if let Some((want, target)) = self.flight(*file) {
                        basis::send_lacking(self.run, &target, *file, want, bits)?;
                    }
                }
                Step::End(read) => self.end(*file, read)?,
                Step::Small { bytes, read } => {
                    let content = take(bytes);
                    if let Some(target) = small.next().flatten() {
                        self.small(*file, &target, content, read)?;
                    }
                }
                Step::Hashed { size_bytes, read } => self.hashed(*file, size_bytes, read)?,
                Step::Failed(failure) => self.failed(*file, failure)?,
            }
        }
        Ok(())
    }

    fn hashed(&self, file: u32, size_bytes: u64, read: ReadFile) -> Result<(), SessionError> {
        let copied = match lock(&self.run.flights).get_mut(&file) {
            None => return Ok(()),
            Some(flight) => {
                let comparison = flight.comparison();
                comparison.theirs = Some((size_bytes, read));
                comparison.candidate.take().map(|candidate| (Arc::clone(&flight.target), candidate))
            }
        };
        match copied {
            Some((target, candidate)) => recognition::answered(self.run, file, target, candidate, read),
            None => compare(self.run, file),
        }
    }

    /// For each small file of a frame, what it is to become.
    fn targets_of_small(&self, data: &Data) -> Vec<Option<Arc<Target>>> {
        let flights = lock(&self.run.flights);
        let small = data.records.iter().filter(|record| matches!(record.step, Step::Small { .. }));
        small.map(|record| flights.get(&record.file).map(|flight| Arc::clone(&flight.target))).collect()
    }

    /// Tells the session what has come to an end.
    fn tell(&mut self) -> Result<(), SessionError> {
        if self.resolved.is_empty() {
            return Ok(());
        }
        let result = self.run.resolve_all(&self.resolved, &self.let_go);
        self.resolved.clear();
        self.let_go.clear();
        result
    }

    /// Keeps what was written of files that are not complete, for the next run.
    pub(crate) fn keep_parts(self) {
        self.sinks.into_values().for_each(|sink| sink.keep_part(self.run));
    }

    fn flight(&self, file: u32) -> Option<(Want, Arc<Target>)> {
        lock(&self.run.flights).get(&file).map(|flight| (flight.want, Arc::clone(&flight.target)))
    }

    fn is_of_copy(&self, file: u32) -> bool {
        let flights = lock(&self.run.flights);
        let comparison = flights.get(&file).and_then(|flight| flight.comparison.as_ref());
        comparison.is_some_and(|comparison| comparison.candidate.is_some())
    }

    fn open(&mut self, file: u32, size_bytes: u64, hash: HashKind) -> Result<(), SessionError> {
        let opened = lock(&self.run.flights)
            .get(&file)
            .map(|flight| (flight.want, Arc::clone(&flight.target), flight.values.clone()));
        let Some((want, target, values)) = opened else { return Ok(()) };
        let block_size = want.basis()?.map(|(block_size, _)| block_size);
        let mut sink = Sink::new(target, size_bytes, block_size, values, hash);
        if block_size.is_some()
            && let Err(error) = sink.open_basis(self.run)
        {
            self.broken(&mut sink, Operation::Open, &error.into())?;
        }
        self.sinks.insert(file, sink);
        Ok(())
    }

    /// Lets a file's sink take what comes next of it; a file without one is passed over.
    fn take_in(
        &mut self,
        file: u32,
        take: impl FnOnce(&mut Sink, &Run<'_>, &mut [u8]) -> Result<(), CopyError>,
    ) -> Result<(), SessionError> {
        let Some(mut sink) = self.sinks.remove(&file) else { return Ok(()) };
        if let Err(error) = take(&mut sink, self.run, &mut self.buffer) {
            self.not_written(&mut sink, error)?;
        }
        self.sinks.insert(file, sink);
        Ok(())
    }

    fn literal(&mut self, file: u32, bytes: &[u8]) -> Result<(), SessionError> {
        self.take_in(file, |sink, run, _| sink.write(run, bytes))
    }

    fn zeros(&mut self, file: u32, bytes: u32) -> Result<(), SessionError> {
        static ZEROS: [u8; COPY_BYTES] = [0; COPY_BYTES];
        if self.run.options.room.sparse {
            return self.take_in(file, |sink, run, _| sink.hole(run, u64::from(bytes)));
        }
        let mut left = bytes as usize;
        while left > 0 && !self.run.stopped.load(Ordering::Relaxed) {
            let now = left.min(COPY_BYTES);
            self.literal(file, &ZEROS[..now])?;
            left -= now;
        }
        Ok(())
    }

    fn end(&mut self, file: u32, read: ReadFile) -> Result<(), SessionError> {
        let Some(mut sink) = self.sinks.remove(&file) else { return Ok(()) };
        let target = Arc::clone(&sink.target);
        if sink.is_broken() {
            return self.give_up(file, &sink.target);
        }
        if sink.lacks_basis() {
            // As after a mismatch: once more, whole.
            return self.mismatch(file, &sink.target);
        }
        // Of other names of the old file nobody asked for new metadata.
        let is_alone = target.old_file().is_none_or(|info| info.links == 1);
        let stays = sink.is_old_file() && is_alone && self.run.options.replaced.is_gone();
        if !stays && let Err(error) = sink.leave_old(self.run) {
            self.not_written(&mut sink, error)?;
            return match sink.into_output() {
                Output::NoBasis => self.mismatch(file, &target),
                _ => self.give_up(file, &target),
            };
        }
        let Some(content) = sink.verify(&read.hash) else {
            sink.discard();
            return self.mismatch(file, &sink.target);
        };
        let target = at_mtime(&sink.target, read, sink.size_bytes);
        if self.run.is_unplanned_for(&target) {
            sink.discard();
            return self.is_no_longer_planned(file, &target);
        }
        if stays {
            return self.unchanged(file, target, content);
        }
        if let Err(error) = sink.set_length(self.run) {
            self.broken(&mut sink, Operation::Write, &error)?;
        }
        match sink.into_output() {
            Output::Staged(staged, out) => self.complete(file, target, staged, &out, content),
            Output::Patch(staged, journal) => self.complete_patch(file, target, staged, *journal, content),
            Output::NoBasis => self.mismatch(file, &target),
            Output::Same | Output::Broken => self.give_up(file, &target),
        }
    }

    fn small(
        &mut self,
        file: u32,
        target: &Target,
        content: &[u8],
        read: ReadFile,
    ) -> Result<(), SessionError> {
        let clock = &self.run.progress.clock;
        if *clock.time(Activity::Hash, || blake3::hash(content)).as_bytes() != read.hash {
            return self.mismatch(file, target);
        }
        let since = Instant::now();
        let result = self.write_small(file, target, content, read);
        self.run.progress.clock.add(Activity::Write, since);
        result
    }

    fn write_small(
        &mut self,
        file: u32,
        target: &Target,
        content: &[u8],
        read: ReadFile,
    ) -> Result<(), SessionError> {
        let existing = sink::patched(self.run, target);
        let literal = Content::literal(content, read.hash);
        let target = at_mtime(target, read, content.len() as u64);
        if self.run.is_unplanned_for(&target) {
            return self.is_no_longer_planned(file, &target);
        }
        if let Some(existing) = existing {
            return self.small_patch(file, target, &existing, content, literal);
        }
        let created = self.run.scratch(&target).and_then(|area| area.create_small());
        let (staged, out) = match created {
            Ok(created) => created,
            Err(error) => return self.failed_here(file, &target, Operation::Create, &error.into()),
        };
        if let Err(error) = self.write_content(&out, content) {
            staged.discard();
            return self.failed_here(file, &target, Operation::Write, &error);
        }
        self.complete(file, target, staged, &out, literal)
    }

    /// Writes all of a small file.
    fn write_content(&self, out: &File, content: &[u8]) -> io::Result<()> {
        if !self.run.options.room.sparse {
            return out.write_all_at(content, 0);
        }
        holes::write(out, content, 0, Room::default())?;
        out.set_len(content.len() as u64)
    }

    fn small_patch(
        &mut self,
        file: u32,
        target: Target,
        existing: &Info,
        content: &[u8],
        literal: Content,
    ) -> Result<(), SessionError> {
        let path = target.path();
        let begun = self.run.area(&target).and_then(|area| area.create_journal(&path));
        let written = begun.map_err(io::Error::from).and_then(|(staged, out)| {
            let mut journal = Journal::begin(out, &path, existing);
            if let Ok(begun) = &mut journal
                && let Err(error) = self.record(begun, content)
            {
                journal = Err(error);
            }
            match journal {
                Ok(journal) => Ok((staged, journal)),
                Err(error) => {
                    staged.discard();
                    Err(error)
                }
            }
        });
        match written {
            Ok((staged, journal)) => self.complete_patch(file, target, staged, journal, literal),
            Err(error) => self.failed_here(file, &target, Operation::Write, &error),
        }
    }

    fn record(&self, journal: &mut Journal, content: &[u8]) -> io::Result<()> {
        if self.run.options.room.sparse {
            journal.record_sparse(0, content)
        } else {
            journal.record(0, content)
        }
    }

    /// A verified patch: hands its journal to the committer.
    fn complete_patch(
        &mut self,
        file: u32,
        target: Target,
        staged: Staged,
        journal: Journal,
        content: Content,
    ) -> Result<(), SessionError> {
        if let Err(error) = journal.finish(target.wanted.entry.size_bytes()) {
            staged.discard();
            return self.failed_here(file, &target, Operation::Write, &error);
        }
        self.run.done(&target);
        let how = Placement::Patch;
        let bytes = content.literal + content.values_bytes();
        self.ready.push(Ready { target: Arc::new(target), staged, how, bytes, content });
        self.resolved.push(file);
        Ok(())
    }

    /// A verified file: sets its metadata and hands it to the committer.
    fn complete(
        &mut self,
        file: u32,
        target: Target,
        staged: Staged,
        out: &File,
        content: Content,
    ) -> Result<(), SessionError> {
        if let Err((operation, error)) = target.wanted.metadata.apply(out) {
            staged.discard();
            return self.failed_here(file, &target, operation, &error.into());
        }
        self.run.done(&target);
        let bytes = target.wanted.entry.size_bytes();
        let how = Placement::Rename;
        hard_links::first_is_staged(self.run, &target, Some(&staged));
        self.ready.push(Ready { target: Arc::new(target), staged, how, bytes, content });
        self.resolved.push(file);
        Ok(())
    }

    /// The old file has the new content already: only its metadata is set.
    fn unchanged(&mut self, file: u32, target: Target, mut content: Content) -> Result<(), SessionError> {
        content.literal = 0;
        let target = Arc::new(target);
        let held = self.run.tree.dir(&target.parent).and_then(|dir| dir.hold(target.name().as_bytes()));
        if let Ok(held) = &held
            && self.run.is_overtaken(&target, || held.info())
        {
            self.run.done(&target);
            return self.give_up(file, &target);
        }
        let applied = held
            .map_err(|error| (Operation::Open, error))
            .and_then(|held| target.wanted.metadata.apply(&held));
        self.run.done(&target);
        match applied {
            Ok(()) => {
                self.run.transferred(&target, &content);
                self.run.recognition.remember(self.run.index, &target, &content);
                hard_links::first_stays(self.run, &target);
                self.run.stays_there(&target);
                if let (Some(values), Ok(dir)) = (content.values, self.run.tree.dir(&target.parent)) {
                    commit::keep_values(self.run, &target, dir.info(target.name().as_bytes()), &values);
                }
            }
            Err((operation, error)) => self.run.fail(&target, operation, error),
        }
        self.give_up(file, &target)
    }

    /// The file is not what it was when the plan was made: it is left alone.
    fn is_no_longer_planned(&mut self, file: u32, target: &Target) -> Result<(), SessionError> {
        self.run.problem(problem(target, Side::Source, Operation::Read, Cause::KeptChanging));
        self.give_up(file, target)
    }

    fn mismatch(&mut self, file: u32, target: &Target) -> Result<(), SessionError> {
        if target.mismatches == 0 {
            return retry(self.run, file, Target { mismatches: 1, ..target.clone() }, Some(Want::Whole));
        }
        self.run.problem(problem(target, Side::Destination, Operation::Compare, Cause::ContentDiffers));
        self.give_up(file, target)
    }

    fn failed(&mut self, file: u32, failure: Failure) -> Result<(), SessionError> {
        let Some((want, target)) = self.flight(file) else { return Ok(()) };
        if let Some(sink) = self.sinks.remove(&file) {
            sink.keep_part(self.run);
        }
        let cause = match failure {
            Failure::Changed if target.changes < limits::CHANGE_RETRIES => {
                let again = Target { changes: target.changes + 1, ..Target::clone(&target) };
                let want = (want.hash().is_some() && !self.is_of_copy(file)).then_some(want);
                return retry(self.run, file, again, want);
            }
            Failure::Misaligned => {
                let again = Target { is_misaligned: true, ..Target::clone(&target) };
                return retry(self.run, file, again, None);
            }
            Failure::HasHoles => {
                let again = Target { has_holes: true, ..Target::clone(&target) };
                return retry(self.run, file, again, None);
            }
            Failure::Changed => Cause::KeptChanging,
            Failure::Vanished => Cause::Vanished,
            Failure::ChangedKind => Cause::ChangedKind,
            Failure::Errno { errno, .. } => Cause::Errno(errno),
        };
        let operation = match failure {
            Failure::Errno { operation, .. } => operation,
            _ => Operation::Read,
        };
        self.run.problem(problem(&target, Side::Source, operation, cause));
        self.give_up(file, &target)
    }

    /// Reports what failed here, which ends the file's story.
    fn failed_here(
        &mut self,
        file: u32,
        target: &Target,
        operation: Operation,
        error: &io::Error,
    ) -> Result<(), SessionError> {
        self.entry_failed(target, operation, error)?;
        self.give_up(file, target)
    }

    /// Ends the story of a file that is not committed.
    fn give_up(&mut self, file: u32, target: &Target) -> Result<(), SessionError> {
        self.let_go.push(target.directory);
        self.resolved.push(file);
        Ok(())
    }

    /// A basis that can't be read is done without; what can't be written ends the file.
    fn not_written(&self, sink: &mut Sink, error: CopyError) -> Result<(), SessionError> {
        match error {
            CopyError::Basis if sink.is_broken() => Ok(()),
            CopyError::Basis => {
                sink.has_no_basis();
                Ok(())
            }
            CopyError::Write(error) => self.broken(sink, Operation::Write, &error),
        }
    }

    /// Reports what failed here and passes over the rest of the file.
    fn broken(&self, sink: &mut Sink, operation: Operation, error: &io::Error) -> Result<(), SessionError> {
        if sink.is_broken() {
            return Ok(());
        }
        sink.discard();
        self.entry_failed(&sink.target, operation, error)
    }

    /// One entry's failure; a full disk is everybody's.
    fn entry_failed(
        &self,
        target: &Target,
        operation: Operation,
        error: &io::Error,
    ) -> Result<(), SessionError> {
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        if is_full(errno.raw_os_error()) {
            let cause = io::Error::from(errno);
            self.run.is_full.store(true, Ordering::Release);
            let what = format!(
                "write {} at the destination (make room on its file system and run again; the files that arrived \
                 whole are in place)",
                target.path()
            );
            return Err(SessionError::io(what, cause));
        }
        self.run.fail(target, operation, errno);
        Ok(())
    }
}

/// The target as the source found it when it read: a little later than when it was listed.
fn at_mtime(target: &Target, read: ReadFile, size_bytes: u64) -> Target {
    let mut target = target.clone();
    target.wanted = target.wanted.at(read.mtime);
    target.wanted.entry.kind = protocol::entry::Kind::File { size_bytes };
    target
}

fn problem(target: &Target, side: Side, operation: Operation, cause: Cause) -> Problem {
    Problem { side, path: target.path(), operation, cause }
}

/// Asks for a file again, before the first request is resolved; as a delta where nothing is said.
fn retry(run: &Run<'_>, file: u32, target: Target, want: Option<Want>) -> Result<(), SessionError> {
    let target = Arc::new(target);
    match want {
        Some(want) => {
            let request = lock(&run.session).request(target.list, target.index, want);
            if let Some(request) = request {
                run.expect(request, Flight::new(want, Arc::clone(&target)));
                run.outgoing.say(&Message::Request(vec![request]))?;
                if let Some(kind) = want.hash() {
                    run.task(Task::Hash(request.file, kind, target));
                }
            }
        }
        None => {
            lock(&run.session).reserve(target.list);
            run.task(Task::Delta(target));
        }
    }
    run.resolve(file)
}

/// Ends a comparison once both hashes are there.
fn compare(run: &Run<'_>, file: u32) -> Result<(), SessionError> {
    let (target, ours, size_bytes, theirs) = {
        let mut flights = lock(&run.flights);
        let Some(flight) = flights.get_mut(&file) else { return Ok(()) };
        let comparison = flight.comparison();
        let (Some(ours), Some((size_bytes, theirs))) = (comparison.ours, comparison.theirs) else {
            return Ok(());
        };
        // Both threads that bring a side look for the other: one of them ends the comparison.
        comparison.theirs = None;
        (Arc::clone(&flight.target), ours, size_bytes, theirs)
    };
    let our_bytes = target.basis().map(|info| info.size_bytes);
    match ours {
        None => run.let_go(target.directory),
        Some(hash) if hash == theirs.hash && our_bytes == Some(size_bytes) => {
            if target.is_from_base() {
                return take_from_base(run, file, &target);
            }
            match content_same(target.change) {
                (Action::SetMetadata, _) if run.is_unplanned_for(&target) => run.done(&target),
                (Action::SetMetadata, _) => run.set_metadata(&target),
                _ => {
                    run.unchanged(|| target.path(), &target.wanted.entry);
                    run.done(&target);
                    hard_links::first_stays(run, &target);
                    run.stays_there(&target);
                }
            }
            run.let_go(target.directory);
        }
        Some(_) if target.is_from_base() => return try_next_base(run, file, &target, size_bytes),
        Some(_) if run.options.only_grown && our_bytes >= Some(size_bytes) => {
            run.done(&target);
            run.let_go(target.directory);
        }
        Some(_) => {
            let change = content_differs(target.change, run.options);
            let target = Target { change, is_suspect: true, ..Target::clone(&target) };
            if run.is_unplanned_for(&target) {
                run.done(&target);
                run.let_go(target.directory);
            } else if run.options.dry_run {
                run.would_transfer(&target);
                run.let_go(target.directory);
            } else {
                let small = size_bytes <= limits::SMALL_FILE_BYTES || run.options.whole_file;
                return retry(run, file, target, small.then_some(Want::Whole));
            }
        }
    }
    run.resolve(file)
}

/// The file of an alternate base has the content: the new one is made from it.
fn take_from_base(run: &Run<'_>, file: u32, target: &Arc<Target>) -> Result<(), SessionError> {
    if run.takes_from_base(target) {
        lock(&run.session).reserve(target.list);
        run.task(Task::FromBase(Arc::clone(target)));
    } else {
        run.let_go(target.directory);
    }
    run.resolve(file)
}

/// It has another content: the next one may have it, else it is a basis.
fn try_next_base(run: &Run<'_>, file: u32, target: &Target, size_bytes: u64) -> Result<(), SessionError> {
    let Some(alternate) = &target.alternate else { return run.resolve(file) };
    if let Some(next) = &alternate.next {
        let target = Target { change: next.change, alternate: Some(next.clone()), ..target.clone() };
        let want = basis::hash_to_compare(run, &target);
        return retry(run, file, target, Some(want));
    }
    let basis = Alternate { agrees: Agreement::Kind, ..Alternate::clone(alternate) };
    let change = content_differs(target.change, run.options);
    let target = Target { change, alternate: Some(Box::new(basis)), ..target.clone() };
    if run.options.dry_run {
        run.would_transfer(&target);
        run.let_go(target.directory);
        return run.resolve(file);
    }
    let small = size_bytes <= limits::SMALL_FILE_BYTES || run.options.whole_file;
    retry(run, file, target, small.then_some(Want::Whole))
}

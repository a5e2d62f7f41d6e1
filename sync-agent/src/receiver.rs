//! The destination's receiver: turns answers into staged files, and verifies them.
//!
//! Nothing gets a name here. A file is written to staging, hashed while it is written, and handed to
//! the committer only if its BLAKE3 is the one that the source computed while it read. As long as what
//! arrives is what the old file has at the same place, nothing is written at all.

use crate::basis::{self, Basis, OldValues};
use crate::clock::{Activity, Clock};
use crate::commit::{Placement, Ready};
use crate::error::SessionError;
use crate::index::FileValues;
use crate::journal::Journal;
use crate::metadata::Wanted;
use crate::run::Run;
use crate::staging::Staged;
use crate::tree::{self, Info};
use crate::workers::lock;
use protocol::ContentHash;
use protocol::decide::{Action, content_differs, content_same};
use protocol::destination::DirectoryId;
use protocol::itemize::Change;
use protocol::limits;
use protocol::message::{Data, Failure, Message, ReadFile, Record, Step, Want};
use protocol::path::{Name, RelPath};
use protocol::signature::BlockSize;
use protocol::stats::{Cause, Operation, Problem, Side, is_full};
use protocol::subtree::{self, TreeHasher, Value};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// What a file's content consists of.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// Bytes that came from the source.
    pub(crate) literal: u64,
    /// Bytes that were here before.
    pub(crate) matched: u64,
    /// What the index is to know of it.
    pub(crate) values: Option<Box<FileValues>>,
}

impl Content {
    fn literal(content: &[u8]) -> Content {
        Content { literal: content.len() as u64, ..Content::default() }
    }
}

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
}

impl Target {
    pub(crate) fn name(&self) -> &Name {
        &self.wanted.entry.name
    }

    pub(crate) fn path(&self) -> RelPath {
        self.parent.join(self.name())
    }

    /// The regular file that has its name now.
    pub(crate) fn basis(&self) -> Option<&Info> {
        self.existing.as_ref().filter(|info| info.is_file())
    }
}

/// Work that reads files of the destination.
#[derive(Debug)]
pub(crate) enum Task {
    /// Ask for a delta and send the signature.
    Delta(Arc<Target>),
    /// Hash the file for a comparison that was asked for under this number.
    Hash(u32, Arc<Target>),
}

/// A file that was asked for.
#[derive(Debug)]
pub(crate) struct Flight {
    want: Want,
    target: Arc<Target>,
    values: Option<Arc<OldValues>>,
    /// The two sides of a comparison, as they come in.
    ours: Option<Option<ContentHash>>,
    theirs: Option<(u64, ReadFile)>,
}

impl Flight {
    pub(crate) fn new(want: Want, target: Arc<Target>) -> Flight {
        Flight { want, target, values: None, ours: None, theirs: None }
    }

    pub(crate) fn with_values(self, values: Option<Arc<OldValues>>) -> Flight {
        Flight { values, ..self }
    }
}

/// Carries out a task.
pub(crate) fn carry_out(run: &Run<'_>, task: &Task) -> Result<(), SessionError> {
    match task {
        Task::Delta(target) => basis::request_delta(run, target),
        Task::Hash(file, target) => {
            let ours = basis::hash_existing(run, target);
            if let Some(flight) = lock(&run.flights).get_mut(file) {
                flight.ours = Some(ours);
            }
            compare(run, *file)
        }
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

/// A file being written.
struct Sink {
    target: Arc<Target>,
    size_bytes: u64,
    position: u64,
    hasher: TreeHasher,
    block_size: BlockSize,
    basis: Option<Basis>,
    /// The values of the basis's blocks, of a file that is compared in place.
    values: Option<Arc<OldValues>>,
    /// Something of the basis was taken to be what its values say, and not read.
    trusts_values: bool,
    output: Output,
    literal_bytes: u64,
    matched_bytes: u64,
}

enum Output {
    /// So far it is what the old file has.
    Same,
    Staged(Staged, File),
    /// The old file is to be patched in place.
    Patch(Staged, Box<Journal>),
    /// It failed here, and was reported; what still comes is passed over.
    Broken,
}

const COPY_BYTES: usize = 256 << 10;

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
                Step::Open { size_bytes } => self.open(*file, size_bytes)?,
                Step::Literal { bytes } => self.literal(*file, take(bytes))?,
                Step::Match { block, count } => self.matched(*file, block, count)?,
                Step::Zeros { bytes } => self.zeros(*file, bytes)?,
                Step::End(read) => self.end(*file, read)?,
                Step::Small { bytes, read } => {
                    let content = take(bytes);
                    if let Some(target) = small.next().flatten() {
                        self.small(*file, &target, content, read)?;
                    }
                }
                Step::Hashed { size_bytes, read } => {
                    if let Some(flight) = lock(&self.run.flights).get_mut(file) {
                        flight.theirs = Some((size_bytes, read));
                    }
                    compare(self.run, *file)?;
                }
                Step::Failed(failure) => self.failed(*file, failure)?,
            }
        }
        Ok(())
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
        for sink in self.sinks.into_values() {
            match sink.output {
                Output::Staged(staged, _) => staged.keep(sink.position),
                Output::Patch(staged, _) => staged.discard(),
                Output::Same | Output::Broken => {}
            }
        }
    }

    fn flight(&self, file: u32) -> Option<(Want, Arc<Target>)> {
        lock(&self.run.flights).get(&file).map(|flight| (flight.want, Arc::clone(&flight.target)))
    }

    fn open(&mut self, file: u32, size_bytes: u64) -> Result<(), SessionError> {
        let opened = lock(&self.run.flights)
            .get(&file)
            .map(|flight| (flight.want, Arc::clone(&flight.target), flight.values.clone()));
        let Some((want, target, values)) = opened else { return Ok(()) };
        let basis_block = want.basis()?.map(|(block_size, _)| block_size);
        // Of a search the blocks have another length than those that values are kept of.
        let tree_block = match &values {
            Some(values) => values.block_size,
            None => subtree::fast_block_size(size_bytes),
        };
        let mut sink = Sink {
            target,
            size_bytes,
            position: 0,
            hasher: TreeHasher::new(tree_block),
            block_size: basis_block.unwrap_or(tree_block),
            basis: None,
            values,
            trusts_values: false,
            output: Output::Same,
            literal_bytes: 0,
            matched_bytes: 0,
        };
        if basis_block.is_some() {
            match Basis::open(self.run, &sink.target) {
                Ok(basis) => sink.basis = basis,
                Err(error) => self.broken(&mut sink, Operation::Open, &error.into())?,
            }
        }
        self.sinks.insert(file, sink);
        Ok(())
    }

    fn literal(&mut self, file: u32, bytes: &[u8]) -> Result<(), SessionError> {
        let Some(mut sink) = self.sinks.remove(&file) else { return Ok(()) };
        sink.literal_bytes += bytes.len() as u64;
        if let Err(error) = self.write(&mut sink, bytes) {
            self.broken(&mut sink, Operation::Write, &error)?;
        }
        self.sinks.insert(file, sink);
        Ok(())
    }

    fn zeros(&mut self, file: u32, bytes: u32) -> Result<(), SessionError> {
        static ZEROS: [u8; COPY_BYTES] = [0; COPY_BYTES];
        let mut left = bytes as usize;
        while left > 0 && !self.run.stopped.load(Ordering::Relaxed) {
            let now = left.min(COPY_BYTES);
            self.literal(file, &ZEROS[..now])?;
            left -= now;
        }
        Ok(())
    }

    fn matched(&mut self, file: u32, block: u64, count: u32) -> Result<(), SessionError> {
        let Some(mut sink) = self.sinks.remove(&file) else { return Ok(()) };
        if let Err(error) = self.copy(&mut sink, block, count) {
            self.broken(&mut sink, Operation::Read, &error)?;
        }
        self.sinks.insert(file, sink);
        Ok(())
    }

    /// Appends blocks of the basis.
    fn copy(&mut self, sink: &mut Sink, block: u64, count: u32) -> io::Result<()> {
        let Some(basis) = sink.basis.take() else { return Ok(()) };
        let size = u64::from(sink.block_size.bytes());
        let from = block * size;
        let to = ((block + u64::from(count)) * size).min(basis.total_bytes);
        let copied = match known_values(sink, block, count, to) {
            Some(values) => self.copy_known(sink, &basis, to, values),
            None => self.copy_read(sink, &basis, from, to),
        };
        sink.matched_bytes += to - from;
        sink.basis = Some(basis);
        copied
    }

    /// The next bytes, up to `to`, stand at the same place of the basis and hash to these values.
    fn copy_known(&self, sink: &mut Sink, basis: &Basis, to: u64, values: Vec<Value>) -> io::Result<()> {
        if let (Output::Staged(_, file), Some(old)) = (&sink.output, basis.as_old()) {
            self.run.progress.clock.time(Activity::Write, || copy_range(old, file, sink.position, to))?;
        }
        if values.into_iter().all(|value| sink.hasher.push(value)) {
            sink.trusts_values = true;
            sink.position = to;
            Ok(())
        } else {
            // Values are of blocks at their own places, and so is what came before them.
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    fn copy_read(&mut self, sink: &mut Sink, basis: &Basis, from: u64, to: u64) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let in_place = matches!(sink.output, Output::Same | Output::Patch(..));
        let stays = in_place && from == sink.position && basis.as_old().is_some();
        let mut copy = || {
            let mut at = from;
            while at < to {
                let length = usize::try_from(to - at).unwrap_or(usize::MAX).min(buffer.len());
                let chunk = &mut buffer[..length];
                let clock = &self.run.progress.clock;
                clock.time(Activity::Read, || basis.read_exact_at(chunk, at))?;
                at += length as u64;
                if stays {
                    clock.time(Activity::Hash, || sink.hasher.update(chunk));
                    sink.position += length as u64;
                } else {
                    self.leave_old(sink, Some(basis))?;
                    append(sink, chunk, clock)?;
                }
            }
            Ok(())
        };
        let copied = copy();
        self.buffer = buffer;
        copied
    }

    fn write(&self, sink: &mut Sink, bytes: &[u8]) -> io::Result<()> {
        let basis = sink.basis.take();
        let left = self.leave_old(sink, basis.as_ref());
        sink.basis = basis;
        left?;
        append(sink, bytes, &self.run.progress.clock)
    }

    /// The new content is no longer the old one: what was the same so far is copied to a staged file.
    fn leave_old(&self, sink: &mut Sink, basis: Option<&Basis>) -> io::Result<()> {
        if !matches!(sink.output, Output::Same) {
            return Ok(());
        }
        if let Some(existing) = self.patched(&sink.target) {
            let path = sink.target.path();
            let (staged, file) = self.run.area(&sink.target)?.create_journal(&path)?;
            match Journal::begin(file, &path, &existing) {
                Ok(journal) => sink.output = Output::Patch(staged, Box::new(journal)),
                Err(error) => {
                    staged.discard();
                    return Err(error);
                }
            }
            return Ok(());
        }
        let (staged, file) = self.run.area(&sink.target)?.create(&sink.target.path())?;
        let copied = match basis.and_then(Basis::as_old) {
            Some(old) => copy_range(old, &file, 0, sink.position),
            None => Ok(()),
        };
        sink.output = Output::Staged(staged, file);
        copied
    }

    /// The old file, if it is to be patched in place.
    fn patched(&self, target: &Target) -> Option<Info> {
        target.basis().copied().filter(|_| self.run.options.inplace)
    }

    fn end(&mut self, file: u32, read: ReadFile) -> Result<(), SessionError> {
        let Some(mut sink) = self.sinks.remove(&file) else { return Ok(()) };
        if matches!(sink.output, Output::Broken) {
            return self.give_up(file, &sink.target);
        }
        let tree_block = sink.hasher.block_size();
        let (hash, values) = std::mem::replace(&mut sink.hasher, TreeHasher::new(tree_block)).finish();
        if hash != read.hash || !still_has_values(&sink) {
            if let Output::Staged(staged, _) | Output::Patch(staged, _) = sink.output {
                staged.discard();
            }
            return self.mismatch(file, &sink.target);
        }
        let old_bytes = sink.target.basis().map(|info| info.size_bytes);
        if matches!(sink.output, Output::Same) && old_bytes == Some(sink.size_bytes) {
            let target = at_mtime(&sink.target, read, sink.size_bytes);
            return self.unchanged(file, &target, sink.matched_bytes);
        }
        let basis = sink.basis.take();
        if let Err(error) = self.leave_old(&mut sink, basis.as_ref()) {
            self.broken(&mut sink, Operation::Write, &error)?;
        }
        let target = at_mtime(&sink.target, read, sink.size_bytes);
        let content = Content {
            literal: sink.literal_bytes,
            matched: sink.matched_bytes,
            values: worth_keeping(&sink, hash, values),
        };
        match sink.output {
            Output::Staged(staged, out) => self.complete(file, target, staged, &out, content),
            Output::Patch(staged, journal) => self.complete_patch(file, target, staged, *journal, content),
            _ => self.give_up(file, &sink.target),
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
        let existing = self.patched(target);
        let target = at_mtime(target, read, content.len() as u64);
        if let Some(existing) = existing {
            return self.small_patch(file, target, &existing, content);
        }
        let created = self.run.area(&target).and_then(|area| area.create_small());
        let (staged, out) = match created {
            Ok(created) => created,
            Err(error) => return self.failed_here(file, &target, Operation::Create, &error.into()),
        };
        if let Err(error) = out.write_all_at(content, 0) {
            staged.discard();
            return self.failed_here(file, &target, Operation::Write, &error);
        }
        self.complete(file, target, staged, &out, Content::literal(content))
    }

    fn small_patch(
        &mut self,
        file: u32,
        target: Target,
        existing: &Info,
        content: &[u8],
    ) -> Result<(), SessionError> {
        let path = target.path();
        let begun = self.run.area(&target).and_then(|area| area.create_journal(&path));
        let written = begun.map_err(io::Error::from).and_then(|(staged, out)| {
            let mut journal = Journal::begin(out, &path, existing);
            if let Ok(begun) = &mut journal
                && let Err(error) = begun.record(0, content)
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
            Ok((staged, journal)) => {
                self.complete_patch(file, target, staged, journal, Content::literal(content))
            }
            Err(error) => self.failed_here(file, &target, Operation::Write, &error),
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
        let bytes = content.literal;
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
        if let Err((operation, error)) = target.wanted.metadata.apply_to_file(out) {
            staged.discard();
            return self.failed_here(file, &target, operation, &error.into());
        }
        self.run.done(&target);
        let bytes = target.wanted.entry.size_bytes();
        let how = Placement::Rename;
        self.ready.push(Ready { target: Arc::new(target), staged, how, bytes, content });
        self.resolved.push(file);
        Ok(())
    }

    /// The old file has the new content already: only its metadata is set.
    fn unchanged(&mut self, file: u32, target: &Target, matched: u64) -> Result<(), SessionError> {
        let held = self.run.tree.dir(&target.parent).and_then(|dir| dir.hold(target.name().as_bytes()));
        let applied = held
            .map_err(|error| (Operation::Open, error))
            .and_then(|held| target.wanted.metadata.apply(&held));
        self.run.done(target);
        match applied {
            Ok(()) => self.run.transferred(target, target.change, 0, matched),
            Err((operation, error)) => self.run.fail(target, operation, error),
        }
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
        match self.sinks.remove(&file).map(|sink| (sink.output, sink.position)) {
            Some((Output::Staged(staged, _), position)) => staged.keep(position),
            Some((Output::Patch(staged, _), _)) => staged.discard(),
            _ => {}
        }
        let cause = match failure {
            Failure::Changed if target.changes < limits::CHANGE_RETRIES => {
                let again = Target { changes: target.changes + 1, ..Target::clone(&target) };
                let want = (want == Want::Hash).then_some(Want::Hash);
                return retry(self.run, file, again, want);
            }
            Failure::Misaligned => {
                let again = Target { is_misaligned: true, ..Target::clone(&target) };
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

    /// Reports what failed here and passes over the rest of the file.
    fn broken(&self, sink: &mut Sink, operation: Operation, error: &io::Error) -> Result<(), SessionError> {
        let output = std::mem::replace(&mut sink.output, Output::Broken);
        match output {
            Output::Broken => return Ok(()),
            Output::Staged(staged, _) | Output::Patch(staged, _) => staged.discard(),
            Output::Same => {}
        }
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

/// Appends to the staged file.
fn append(sink: &mut Sink, bytes: &[u8], clock: &Clock) -> io::Result<()> {
    let position = sink.position;
    match &mut sink.output {
        Output::Staged(_, file) => clock.time(Activity::Write, || file.write_all_at(bytes, position))?,
        Output::Patch(_, journal) => clock.time(Activity::Write, || journal.record(position, bytes))?,
        Output::Same | Output::Broken => return Ok(()),
    }
    clock.time(Activity::Hash, || sink.hasher.update(bytes));
    sink.position += bytes.len() as u64;
    Ok(())
}

/// Copies the bytes `at..to` to the same place of another file. Where the file system can, both share them.
fn copy_range(from: &File, into: &File, at: u64, to: u64) -> io::Result<()> {
    let (mut read_at, mut write_at) = (at, at);
    while read_at < to {
        let left = usize::try_from(to - read_at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut read_at), into, Some(&mut write_at), left) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => {
                return copy_range_by_hand(from, into, read_at, to);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_range_by_hand(from: &File, into: &File, mut at: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    while at < to {
        let length = usize::try_from(to - at).unwrap_or(usize::MAX).min(buffer.len());
        from.read_exact_at(&mut buffer[..length], at)?;
        into.write_all_at(&buffer[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

/// The values of these blocks of the basis, which end at `to`, where they stand for what comes next.
fn known_values(sink: &Sink, block: u64, count: u32, to: u64) -> Option<Vec<Value>> {
    let size = u64::from(sink.block_size.bytes());
    // The hash of a file of one block does not follow from its value, and a short block is a file's last.
    let stands = block * size == sink.position && sink.size_bytes > size;
    let is_whole = to.is_multiple_of(size) || to == sink.size_bytes;
    sink.values.as_ref().filter(|_| stands && is_whole)?.get(block, count)
}

/// Whether the old file is still the one whose values were taken for its content.
fn still_has_values(sink: &Sink) -> bool {
    let old = sink.basis.as_ref().and_then(Basis::as_old);
    let unchanged = |values: &OldValues| {
        old.is_some_and(|old| tree::info_of(old).is_ok_and(|info| values.info.same_content(&info)))
    };
    !sink.trusts_values || sink.values.as_deref().is_some_and(unchanged)
}

/// The values of a large file, for the index.
fn worth_keeping(sink: &Sink, hash: ContentHash, values: Vec<Value>) -> Option<Box<FileValues>> {
    let block_size = sink.hasher.block_size();
    let is_of_use = sink.size_bytes >= limits::VALUES_FROM_BYTES
        && block_size == subtree::block_size_for(sink.size_bytes);
    (is_of_use && !values.is_empty()).then(|| Box::new(FileValues { hash, block_size, values }))
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
                if want == Want::Hash {
                    run.task(Task::Hash(request.file, target));
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
        let (Some(ours), Some((size_bytes, theirs))) = (flight.ours, flight.theirs) else {
            return Ok(());
        };
        // Both threads that bring a side look for the other: one of them ends the comparison.
        flight.theirs = None;
        (Arc::clone(&flight.target), ours, size_bytes, theirs)
    };
    let our_bytes = target.existing.map(|info| info.size_bytes);
    match ours {
        None => run.let_go(target.directory),
        Some(hash) if hash == theirs.hash && our_bytes == Some(size_bytes) => {
            match content_same(target.change) {
                (Action::SetMetadata, _) => run.set_metadata(&target),
                _ => run.done(&target),
            }
            run.let_go(target.directory);
        }
        Some(_) => {
            let change = content_differs(target.change, run.options);
            let target = Target { change, ..Target::clone(&target) };
            if run.options.dry_run {
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

//! A file being written at the destination, from the first of its bytes to the last.
//!
//! It is hashed while it grows. As long as what arrives is what the old file has at the same place, nothing is written
//! at all; then the new content goes to a staged file, or with `--inplace` to a journal. Nothing gets a name here.
//!
//! What stays where it is of a large old file, the whole of it or with `--inplace`, is not read where its blocks' values are
//! known ([`OldValues`]): the values stand for it in the hash. They are worth as much as the old file is untouched, so
//! it is looked at again at the end. What is copied from it is hashed from the copy.
//!
//! In runs that keep holes zeros are left out of a staged file, which gets its length at the end, and punched by a journal.

use crate::basis::{Basis, OldValues};
use crate::clock::Activity;
use crate::holes;
use crate::index::FileValues;
use crate::journal::Journal;
use crate::receiver::Target;
use crate::run::Run;
use crate::staging::Staged;
use crate::tree::Info;
use protocol::message::HashKind;
use protocol::pages::PAGE_BYTES;
use protocol::signature::BlockSize;
use protocol::sparse::SparseHasher;
use protocol::stats::is_full;
use protocol::subtree::{self, TreeHasher, Value};
use protocol::{ContentHash, limits};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// Bytes copied at a time.
pub(crate) const COPY_BYTES: usize = 256 << 10;

/// What a file's content consists of.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// Bytes that came from the source.
    pub(crate) literal: u64,
    /// Bytes that were here before.
    pub(crate) matched: u64,
    /// What the index is to know of it.
    pub(crate) values: Option<Box<FileValues>>,
    /// What the whole of it hashes to, if that is BLAKE3 of its bytes.
    pub(crate) hash: Option<ContentHash>,
}

impl Content {
    /// What its values take in memory.
    pub(crate) fn values_bytes(&self) -> u64 {
        self.values.as_ref().map_or(0, |known| (known.values.len() * size_of::<Value>()) as u64)
    }

    /// All of it came from the source.
    pub(crate) fn literal(content: &[u8], hash: ContentHash) -> Content {
        Content { literal: content.len() as u64, hash: Some(hash), ..Content::default() }
    }
}

/// See the module.
pub(crate) struct Sink {
    pub(crate) target: Arc<Target>,
    pub(crate) size_bytes: u64,
    position: u64,
    hasher: ContentHasher,
    /// Length of the blocks that a match names.
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

/// Where the new content goes.
pub(crate) enum Output {
    /// So far it is what the old file has.
    Same,
    Staged(Staged, File),
    /// The old file is to be patched in place.
    Patch(Staged, Box<Journal>),
    /// Its basis can't be read here: what still comes is passed over, then it is asked for whole.
    NoBasis,
    /// It failed here, and was reported; what still comes is passed over.
    Broken,
}

/// Why blocks of a basis could not be appended.
pub(crate) enum CopyError {
    /// They can't be read.
    Basis,
    /// They can't be written.
    Write(io::Error),
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> CopyError {
        CopyError::Write(error)
    }
}

impl Sink {
    /// At the start of a file of `size_bytes`; `block_size` is that of the basis it was asked for against.
    pub(crate) fn new(
        target: Arc<Target>,
        size_bytes: u64,
        block_size: Option<BlockSize>,
        values: Option<Arc<OldValues>>,
        hash: HashKind,
    ) -> Sink {
        // The blocks of a search have another length than those that values are kept of.
        let tree_block = match &values {
            Some(values) => values.block_size,
            None => subtree::fast_block_size(size_bytes),
        };
        Sink {
            target,
            size_bytes,
            position: 0,
            hasher: ContentHasher::new(hash, tree_block),
            block_size: block_size.unwrap_or(tree_block),
            basis: None,
            values,
            trusts_values: false,
            output: Output::Same,
            literal_bytes: 0,
            matched_bytes: 0,
        }
    }

    pub(crate) fn open_basis(&mut self, run: &Run<'_>) -> Result<(), Errno> {
        self.basis = Basis::open(run, &self.target)?;
        Ok(())
    }

    /// Appends bytes that came from the source.
    pub(crate) fn write(&mut self, run: &Run<'_>, bytes: &[u8]) -> Result<(), CopyError> {
        self.literal_bytes += bytes.len() as u64;
        self.leave_old(run)?;
        Ok(self.append(run, bytes)?)
    }

    /// Appends zeros that came from the source, of any number, as a hole.
    pub(crate) fn hole(&mut self, run: &Run<'_>, bytes: u64) -> Result<(), CopyError> {
        let to = self.position + bytes;
        if self.has_hole_to(to) {
            self.matched_bytes += bytes;
        } else {
            self.literal_bytes += bytes;
            self.leave_old(run)?;
        }
        match &mut self.output {
            Output::Staged(_, file) => holes::leave_out(file, self.position, bytes, run.options.room)?,
            Output::Patch(_, journal) => journal.zeros(self.position, bytes)?,
            Output::Same => {}
            Output::NoBasis | Output::Broken => return Ok(()),
        }
        run.progress.clock.time(Activity::Hash, || self.hasher.zeros(bytes));
        self.position = to;
        Ok(())
    }

    /// Whether the old file, which the new one is so far, has a hole up to `to`.
    fn has_hole_to(&self, to: u64) -> bool {
        let basis = self.basis.as_ref().filter(|basis| to <= basis.total_bytes);
        let old = basis.and_then(Basis::as_old).filter(|_| matches!(self.output, Output::Same));
        old.is_some_and(|old| holes::next_data(old, self.position, to) == to)
    }

    /// Appends blocks of the basis.
    pub(crate) fn copy(
        &mut self,
        run: &Run<'_>,
        block: u64,
        count: u32,
        buffer: &mut [u8],
    ) -> Result<(), CopyError> {
        let size = u64::from(self.block_size.bytes());
        let from = block * size;
        self.with_basis(|sink, basis| {
            let to = ((block + u64::from(count)) * size).min(basis.total_bytes);
            let stays = sink.stays(basis, from);
            let known =
                if sink.is_in_place(basis, from) { sink.known_values(block, count, to) } else { None };
            match (known, &sink.output, basis.as_old()) {
                (Some(values), ..) => sink.keep_known(to, values)?,
                (None, Output::Staged(..), Some(old)) if stays => sink.copy_shared(run, old, to, buffer)?,
                _ => sink.copy_read(run, basis, from, to, buffer)?,
            }
            Ok(to - from)
        })
    }

    /// Appends pages of the basis, which stand elsewhere in it.
    pub(crate) fn copy_pages(
        &mut self,
        run: &Run<'_>,
        page: u64,
        count: u32,
        buffer: &mut [u8],
    ) -> Result<(), CopyError> {
        let from = page * u64::from(PAGE_BYTES);
        let bytes = u64::from(count) * u64::from(PAGE_BYTES);
        self.with_basis(|sink, basis| {
            sink.copy_read(run, basis, from, from + bytes, buffer)?;
            Ok(bytes)
        })
    }

    /// Lets `copy` append bytes of the basis, and counts them.
    fn with_basis(
        &mut self,
        copy: impl FnOnce(&mut Sink, &Basis) -> Result<u64, CopyError>,
    ) -> Result<(), CopyError> {
        let Some(basis) = self.basis.take() else { return Ok(()) };
        let copied = copy(self, &basis);
        self.basis = Some(basis);
        self.matched_bytes += copied?;
        Ok(())
    }

    /// Whether what comes next is the old file's at the same place.
    fn stays(&self, basis: &Basis, from: u64) -> bool {
        from == self.position && basis.as_old().is_some()
    }

    /// Whether that, and it need not be written either.
    fn is_in_place(&self, basis: &Basis, from: u64) -> bool {
        self.stays(basis, from) && matches!(self.output, Output::Same | Output::Patch(..))
    }

    /// Appends all of a file that is elsewhere here. What it was opened as it need not stay: hashed is the copy.
    pub(crate) fn copy_all(&mut self, run: &Run<'_>, basis: &Basis) -> Result<(), CopyError> {
        self.leave(run, None)?;
        let Some(file) = basis.as_old() else { return Err(CopyError::Basis) };
        let mut buffer = vec![0; COPY_BYTES];
        self.copy_shared(run, file, self.size_bytes, &mut buffer)?;
        self.matched_bytes += self.size_bytes;
        Ok(())
    }

    /// The values of these blocks of the basis, which end at `to`, where they stand for what comes next.
    fn known_values(&self, block: u64, count: u32, to: u64) -> Option<Vec<Value>> {
        let size = u64::from(self.block_size.bytes());
        // The hash of a file of one block does not follow from its value, and a short block is a file's last.
        let stands = block * size == self.position && self.size_bytes > size;
        let is_whole = to.is_multiple_of(size) || to == self.size_bytes;
        self.values.as_ref().filter(|_| stands && is_whole)?.get(block, count)
    }

    /// The next bytes, up to `to`, stay where they are in the old file and hash to these values.
    fn keep_known(&mut self, to: u64, values: Vec<Value>) -> Result<(), CopyError> {
        if !values.into_iter().all(|value| self.hasher.push(value)) {
            // What came before did not end with a block: without its basis the file arrives all the same.
            return Err(CopyError::Basis);
        }
        self.trusts_values = true;
        self.position = to;
        Ok(())
    }

    /// The next bytes, up to `to`, stand at the same place of the old file: the staged one may share them. Hashed is what is
    /// in the staged one then.
    fn copy_shared(
        &mut self,
        run: &Run<'_>,
        old: &File,
        to: u64,
        buffer: &mut [u8],
    ) -> Result<(), CopyError> {
        let Output::Staged(_, file) = &self.output else { return Ok(()) };
        let clock = &run.progress.clock;
        clock.time(Activity::Write, || copy_part(run, old, file, self.position, to))?;
        while self.position < to {
            let length = usize::try_from(to - self.position).unwrap_or(usize::MAX).min(buffer.len());
            let chunk = &mut buffer[..length];
            clock.time(Activity::Read, || file.read_exact_at(chunk, self.position))?;
            clock.time(Activity::Hash, || self.hasher.update(chunk));
            self.position += length as u64;
        }
        Ok(())
    }

    fn copy_read(
        &mut self,
        run: &Run<'_>,
        basis: &Basis,
        from: u64,
        to: u64,
        buffer: &mut [u8],
    ) -> Result<(), CopyError> {
        let is_in_place = self.is_in_place(basis, from);
        if !is_in_place {
            self.leave(run, Some(basis))?;
        }
        let clock = &run.progress.clock;
        let mut at = from;
        while at < to {
            let length = usize::try_from(to - at).unwrap_or(usize::MAX).min(buffer.len());
            let chunk = &mut buffer[..length];
            clock.time(Activity::Read, || basis.read_exact_at(chunk, at)).map_err(|_| CopyError::Basis)?;
            at += length as u64;
            if is_in_place {
                clock.time(Activity::Hash, || self.hasher.update(chunk));
                self.position += length as u64;
            } else {
                self.append(run, chunk)?;
            }
        }
        Ok(())
    }

    /// The new content is no longer the old one: what was the same so far is copied to a staged file.
    pub(crate) fn leave_old(&mut self, run: &Run<'_>) -> Result<(), CopyError> {
        let basis = self.basis.take();
        let left = self.leave(run, basis.as_ref());
        self.basis = basis;
        left
    }

    fn leave(&mut self, run: &Run<'_>, basis: Option<&Basis>) -> Result<(), CopyError> {
        if !matches!(self.output, Output::Same) {
            return Ok(());
        }
        let path = self.target.path();
        if let Some(existing) = patched(run, &self.target) {
            let area = run.area(&self.target).map_err(io::Error::from)?;
            let (staged, file) = area.create_journal(&path).map_err(io::Error::from)?;
            match Journal::begin(file, &path, &existing) {
                Ok(journal) => self.output = Output::Patch(staged, Box::new(journal)),
                Err(error) => {
                    staged.discard();
                    return Err(error.into());
                }
            }
            return Ok(());
        }
        let scratch = run.scratch(&self.target).map_err(io::Error::from)?;
        let (staged, file) = scratch.create(&path).map_err(io::Error::from)?;
        let reserved = match run.options.room.reserved {
            true => holes::reserve(&file, 0, self.size_bytes).map_err(|error| CopyError::Write(error.into())),
            false => Ok(()),
        };
        let copied = reserved.and_then(|()| match basis.and_then(Basis::as_old) {
            Some(old) => self.copy_front(run, old, &file),
            None => Ok(()),
        });
        self.output = Output::Staged(staged, file);
        copied
    }

    /// What was the same so far goes into the staged file. Where values stood for it, its hash is made anew, of the copy.
    fn copy_front(&mut self, run: &Run<'_>, old: &File, staged: &File) -> Result<(), CopyError> {
        let clock = &run.progress.clock;
        clock.time(Activity::Write, || copy_part(run, old, staged, 0, self.position))?;
        if !self.trusts_values {
            return Ok(());
        }
        self.hasher.restart();
        self.trusts_values = false;
        let mut buffer = vec![0; COPY_BYTES];
        let mut at = 0;
        while at < self.position {
            let length = usize::try_from(self.position - at).unwrap_or(usize::MAX).min(buffer.len());
            let chunk = &mut buffer[..length];
            clock.time(Activity::Read, || staged.read_exact_at(chunk, at))?;
            clock.time(Activity::Hash, || self.hasher.update(chunk));
            at += length as u64;
        }
        Ok(())
    }

    fn append(&mut self, run: &Run<'_>, bytes: &[u8]) -> io::Result<()> {
        let (position, clock, room) = (self.position, &run.progress.clock, run.options.room);
        match &mut self.output {
            Output::Staged(_, file) if room.sparse => {
                clock.time(Activity::Write, || holes::write(file, bytes, position, room))?;
            }
            Output::Patch(_, journal) if room.sparse => {
                clock.time(Activity::Write, || journal.record_sparse(position, bytes))?;
            }
            Output::Staged(_, file) => clock.time(Activity::Write, || file.write_all_at(bytes, position))?,
            Output::Patch(_, journal) => clock.time(Activity::Write, || journal.record(position, bytes))?,
            Output::Same | Output::NoBasis | Output::Broken => return Ok(()),
        }
        clock.time(Activity::Hash, || self.hasher.update(bytes));
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// What the content consists of, if it is what the source read.
    pub(crate) fn verify(&mut self, expected: &ContentHash) -> Option<Content> {
        let (hash, values) = self.hasher.finish();
        let seen = self.values.as_ref().filter(|_| self.trusts_values).map(|values| &values.info);
        let is_untouched = self.basis.as_ref().is_none_or(|basis| basis.is_untouched(seen));
        if hash != *expected || !is_untouched {
            return None;
        }
        let is_of_use = |known: &FileValues| {
            !known.values.is_empty()
                && self.size_bytes >= limits::VALUES_FROM_BYTES
                && known.block_size == subtree::block_size_for(self.size_bytes)
        };
        Some(Content {
            literal: self.literal_bytes,
            matched: self.matched_bytes,
            hash: values.is_some().then_some(hash),
            values: values.filter(is_of_use).map(Box::new),
        })
    }

    /// The basis can't be read.
    pub(crate) fn has_no_basis(&mut self) {
        self.discard();
        self.output = Output::NoBasis;
    }

    pub(crate) fn lacks_basis(&self) -> bool {
        matches!(self.output, Output::NoBasis)
    }

    /// Whether all of the new content is that of the old file.
    pub(crate) fn is_old_file(&self) -> bool {
        let old_bytes = self.target.old_file().map(|info| info.size_bytes);
        let is_own = self.target.alternate.is_none();
        is_own && matches!(self.output, Output::Same) && old_bytes == Some(self.size_bytes)
    }

    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.output, Output::Broken)
    }

    /// What was written is of no use; nor is what still comes.
    pub(crate) fn discard(&mut self) {
        match std::mem::replace(&mut self.output, Output::Broken) {
            Output::Staged(staged, _) | Output::Patch(staged, _) => staged.discard(),
            Output::Same | Output::NoBasis | Output::Broken => {}
        }
    }

    /// Gives what was written the length that it has with the hole at its end.
    pub(crate) fn set_length(&self, run: &Run<'_>) -> io::Result<()> {
        match &self.output {
            Output::Staged(_, file) if run.options.room.sparse => file.set_len(self.position),
            _ => Ok(()),
        }
    }

    /// Keeps what was written, for another try or the next run.
    pub(crate) fn keep_part(self, run: &Run<'_>) {
        // What is shorter than it is said to be is read no further.
        let _ = self.set_length(run);
        match self.output {
            Output::Staged(staged, _) => run.keep_part(&self.target, staged, self.position),
            Output::Patch(staged, _) => staged.discard(),
            Output::Same | Output::NoBasis | Output::Broken => {}
        }
    }

    pub(crate) fn into_output(self) -> Output {
        self.output
    }
}

/// Hashes a file as its source does.
enum ContentHasher {
    Plain(TreeHasher),
    Sparse(SparseHasher),
}

impl ContentHasher {
    fn new(kind: HashKind, block_size: BlockSize) -> ContentHasher {
        match kind {
            HashKind::Plain => ContentHasher::Plain(TreeHasher::new(block_size)),
            HashKind::Sparse => ContentHasher::Sparse(SparseHasher::default()),
        }
    }

    fn restart(&mut self) {
        *self = match self {
            ContentHasher::Plain(hasher) => ContentHasher::Plain(TreeHasher::new(hasher.block_size())),
            ContentHasher::Sparse(_) => ContentHasher::Sparse(SparseHasher::default()),
        };
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            ContentHasher::Plain(hasher) => hasher.update(bytes),
            ContentHasher::Sparse(hasher) => hasher.update(bytes),
        }
    }

    fn zeros(&mut self, mut bytes: u64) {
        static ZEROS: [u8; COPY_BYTES] = [0; COPY_BYTES];
        match self {
            ContentHasher::Plain(hasher) => {
                while bytes > 0 {
                    let now = usize::try_from(bytes).unwrap_or(COPY_BYTES).min(COPY_BYTES);
                    hasher.update(&ZEROS[..now]);
                    bytes -= now as u64;
                }
            }
            ContentHasher::Sparse(hasher) => hasher.zeros(bytes),
        }
    }

    /// As [`TreeHasher::push`].
    fn push(&mut self, value: Value) -> bool {
        match self {
            ContentHasher::Plain(hasher) => hasher.push(value),
            ContentHasher::Sparse(_) => false,
        }
    }

    /// The hash, and the blocks' values where there are any; it is at its start again.
    fn finish(&mut self) -> (ContentHash, Option<FileValues>) {
        match self {
            ContentHasher::Plain(hasher) => {
                let block_size = hasher.block_size();
                let (hash, values) = std::mem::replace(hasher, TreeHasher::new(block_size)).finish();
                (hash, Some(FileValues { hash, block_size, values }))
            }
            ContentHasher::Sparse(hasher) => (std::mem::take(hasher).finish(), None),
        }
    }
}

/// The old file, if it is to be patched in place; not one with other names, which are other files of the source, nor one that
/// gets other names meanwhile, for that changes it before the patch does, nor one that is to be kept as it was.
pub(crate) fn patched(run: &Run<'_>, target: &Target) -> Option<Info> {
    let in_place = run.options.inplace && run.options.replaced.is_gone() && target.alternate.is_none();
    let is_alone = |info: &Info| info.links == 1 && target.wanted.entry.link().is_none();
    // One that its owner may not write to is replaced.
    let is_open = |info: &Info| run.translation.ownership.is_root || info.raw_mode & 0o200 != 0;
    target.old_file().copied().filter(|info| in_place && is_alone(info) && is_open(info))
}

/// As [`copy_range`], in a run that keeps holes with them.
pub(crate) fn copy_part(run: &Run<'_>, from: &File, into: &File, at: u64, to: u64) -> Result<(), CopyError> {
    if run.options.room.sparse {
        holes::copy_range(from, into, at, to, run.options.room)
    } else {
        copy_range(from, into, at, to)
    }
}

/// Copies the bytes `at..to` to the same place of another file. Where the file system can, both share them.
pub(crate) fn copy_range(from: &File, into: &File, at: u64, to: u64) -> Result<(), CopyError> {
    let (mut read_at, mut write_at) = (at, at);
    while read_at < to {
        let left = usize::try_from(to - read_at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut read_at), into, Some(&mut write_at), left) {
            Ok(0) => return Err(CopyError::Basis),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => {
                return copy_range_by_hand(from, into, read_at, to);
            }
            Err(error) if is_full(error.raw_os_error()) => return Err(CopyError::Write(error.into())),
            // It may be either file; the next try does without this one.
            Err(_) => return Err(CopyError::Basis),
        }
    }
    Ok(())
}

fn copy_range_by_hand(from: &File, into: &File, mut at: u64, to: u64) -> Result<(), CopyError> {
    let mut buffer = vec![0; usize::try_from(to - at).unwrap_or(COPY_BYTES).min(COPY_BYTES)];
    while at < to {
        let length = usize::try_from(to - at).unwrap_or(usize::MAX).min(buffer.len());
        from.read_exact_at(&mut buffer[..length], at).map_err(|_| CopyError::Basis)?;
        into.write_all_at(&buffer[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

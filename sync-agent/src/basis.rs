//! What the destination already has of a file: the basis that a delta is made against.
//!
//! Usually the old file. Where an earlier run left a part of the new one, that part comes first and
//! the old file goes on from there: what was fetched once is found again, and the rest still matches.
//!
//! A large old file is compared block by block at the same place first ([`protocol::subtree`]). Its blocks' values come
//! from the index, or the file is read once; what matches is not read again.

use crate::clock::Activity;
use crate::error::SessionError;
use crate::holes;
use crate::monitor::errno;
use crate::receiver::{Flight, Target};
use crate::run::Run;
use crate::tree::{self, Info};
use crate::workers::lock;
use protocol::message::{HashKind, Message, Request, Want, signature_frame};
use protocol::narrow;
use protocol::options::Compression;
use protocol::pages;
use protocol::signature::{self, BlockSize};
use protocol::sparse;
use protocol::stats::{Operation, Side};
use protocol::subtree::{self, Value};
use protocol::{ContentHash, limits};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes read and hashed at a time.
const CHUNK_BYTES: usize = 512 << 10;
/// Signature bytes in a frame: whole entries of either kind.
const SIGNATURE_FRAME_BYTES: usize = 48 << 10;

/// An open basis.
#[derive(Debug)]
pub(crate) struct Basis {
    /// What an earlier run left, and up to where it is used.
    kept: Option<(File, u64)>,
    /// The old file, and what it was when it was opened.
    old: Option<(File, Info)>,
    pub(crate) total_bytes: u64,
}

impl Basis {
    /// Opens what there is for `target`; none where that is nothing.
    pub(crate) fn open(run: &Run<'_>, target: &Target) -> Result<Option<Basis>, Errno> {
        let kept = run.kept(target);
        let old = match target.basis() {
            Some(_) => {
                let file = target.open_basis(run)?;
                let info = tree::settled_info_of(&file)?;
                Some((file, info))
            }
            None => None,
        };
        let old_bytes = target.basis().map_or(0, |info| info.size_bytes);
        let kept_bytes = kept.as_ref().map_or(0, |&(_, length)| length);
        let total_bytes = old_bytes.max(kept_bytes);
        if total_bytes == 0 {
            return Ok(None);
        }
        let block_bytes = u64::from(delta_block_size(run, total_bytes).bytes());
        let used = if kept_bytes >= old_bytes { kept_bytes } else { kept_bytes - kept_bytes % block_bytes };
        let kept = kept.map(|(file, _)| (file, used)).filter(|&(_, used)| used > 0);
        Ok(Some(Basis { kept, old, total_bytes }))
    }

    /// A file that is all of the basis.
    pub(crate) fn alone(file: File) -> Result<Basis, Errno> {
        let info = tree::info_of(&file)?;
        Ok(Basis { kept: None, old: Some((file, info)), total_bytes: info.size_bytes })
    }

    /// The old file, if it is all of the basis.
    pub(crate) fn as_old(&self) -> Option<&File> {
        self.old.as_ref().filter(|_| self.kept.is_none()).map(|(file, _)| file)
    }

    /// Whether it has so many holes that it is compared by what is in none.
    fn has_holes(&self) -> bool {
        let kept = self.kept.as_ref().map(|(file, used)| (file, *used));
        let old = self.old.as_ref().map(|(file, info)| (file, info.size_bytes));
        kept.into_iter().chain(old).any(|(file, bytes)| holes::are_worth_it(file, bytes))
    }

    /// Calls `each` with the start and end of everything that is in no hole.
    fn for_each_data<E>(&self, mut each: impl FnMut(u64, u64) -> Result<(), E>) -> Result<(), E> {
        let used = self.kept.as_ref().map_or(0, |&(_, used)| used);
        if let Some((kept, _)) = &self.kept {
            holes::for_each_data(kept, 0, used, &mut each)?;
        }
        match &self.old {
            Some((old, info)) => holes::for_each_data(old, used, info.size_bytes, each),
            None => Ok(()),
        }
    }

    /// Calls `each` with the number of every block that is not in a hole as a whole, ascending.
    fn for_each_block<E>(
        &self,
        block_size: BlockSize,
        mut each: impl FnMut(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let bytes = u64::from(block_size.bytes());
        let mut next = 0;
        self.for_each_data(|from, to| {
            let end = (to - 1) / bytes + 1;
            (next.max(from / bytes)..end).try_for_each(&mut each)?;
            next = next.max(end);
            Ok(())
        })
    }

    /// The smallest size of which there are not too many blocks for a comparison, and how many there are.
    fn sparse_blocks(&self) -> Option<(BlockSize, u32)> {
        sparse::block_sizes().find_map(|block_size| {
            let mut count = 0;
            let counted = self.for_each_block(block_size, |_| {
                count += 1;
                if u64::from(count) <= limits::VALUES { Ok(()) } else { Err(()) }
            });
            counted.is_ok().then_some((block_size, count))
        })
    }

    /// Whether nobody has written to the old file since it was opened here, nor since it was `seen`.
    pub(crate) fn is_untouched(&self, seen: Option<&Info>) -> bool {
        self.old.as_ref().is_none_or(|(file, opened)| {
            tree::info_of(file)
                .is_ok_and(|now| opened.same_content(&now) && seen.is_none_or(|seen| seen.same_content(&now)))
        })
    }

    /// Fills `buffer` from `at`.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let Some((kept, used)) = &self.kept else {
            return self.read_old(buffer, at);
        };
        let from_kept = usize::try_from(used.saturating_sub(at)).unwrap_or(usize::MAX).min(buffer.len());
        let (first, rest) = buffer.split_at_mut(from_kept);
        kept.read_exact_at(first, at)?;
        if rest.is_empty() { Ok(()) } else { self.read_old(rest, at + from_kept as u64) }
    }

    fn read_old(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match &self.old {
            Some((old, _)) => old.read_exact_at(buffer, at),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Blocks of a search that is to save bytes on the wire, whatever it costs: the signature grows less than more is found.
const SMALL_BLOCK_BYTES: u32 = 2048;

/// The block size of a search.
fn delta_block_size(run: &Run<'_>, basis_bytes: u64) -> BlockSize {
    match run.options.block_size {
        Some(bytes) => BlockSize::at_least(bytes, basis_bytes),
        None if saves_bytes(run) => BlockSize::at_least(SMALL_BLOCK_BYTES, basis_bytes),
        None => BlockSize::for_basis(basis_bytes),
    }
}

/// Whether the operator wants few bytes on the wire (`-z`) rather than a short run.
fn saves_bytes(run: &Run<'_>) -> bool {
    matches!(run.options.compression, Compression::Zstd { .. })
}

/// Whether the signature goes in two steps: of small files it weighs little, and one that is not where it was needs all of it.
fn is_narrowed(run: &Run<'_>, target: &Target, basis: &Basis) -> bool {
    saves_bytes(run)
        && run.options.block_size.is_none()
        && !target.is_misaligned
        && basis.total_bytes >= limits::VALUES_FROM_BYTES
        && narrow::block_size(narrow::small_block_size(basis.total_bytes).bytes(), basis.total_bytes).is_ok()
}

/// The values of the old file's blocks, as far as they are known: a source that matches one knows them too.
#[derive(Debug)]
pub(crate) struct OldValues {
    /// The old file when its values were looked up, or before it was read.
    pub(crate) info: Info,
    pub(crate) block_size: BlockSize,
    /// What the old file hashes to, if that is known.
    hash: Option<ContentHash>,
    known: Mutex<Vec<Value>>,
}

impl OldValues {
    /// Where the basis is an old file worth comparing in place.
    fn of(run: &Run<'_>, target: &Target, basis: &Basis) -> Option<OldValues> {
        let is_worth_it = basis.total_bytes >= limits::VALUES_FROM_BYTES
            && !target.is_misaligned
            && run.options.block_size.is_none()
            && !saves_bytes(run);
        basis.as_old().filter(|_| is_worth_it)?;
        let info = basis.old.as_ref().map(|(_, info)| *info)?;
        if info.size_bytes != basis.total_bytes {
            return None;
        }
        if target.is_suspect {
            run.index.forget_values(&info);
        }
        let (block_size, hash, known) = match run.index.values(&info) {
            Some(known) => (known.block_size, Some(known.hash), known.values),
            None => (subtree::block_size_for(info.size_bytes), None, Vec::new()),
        };
        Some(OldValues { info, block_size, hash, known: Mutex::new(known) })
    }

    /// The values of some blocks, if all of them are known.
    pub(crate) fn get(&self, block: u64, count: u32) -> Option<Vec<Value>> {
        let from = usize::try_from(block).ok()?;
        lock(&self.known).get(from..from.checked_add(count as usize)?).map(<[Value]>::to_vec)
    }
}

/// Asks for what differs from a file's basis, and sends what the source needs to find it; for the whole file where
/// the basis can't be read.
pub(crate) fn request_delta(run: &Run<'_>, target: &Arc<Target>) -> Result<(), SessionError> {
    let basis = Basis::open(run, target).ok().flatten();
    // A source that has said so once would say so again.
    let is_sparse = |basis: &Basis| target.has_holes || run.options.room.sparse && basis.has_holes();
    if let Some(basis) = basis.as_ref().filter(|basis| is_sparse(basis)) {
        return request_sparse(run, target, basis);
    }
    let values = basis.as_ref().and_then(|basis| OldValues::of(run, target, basis)).map(Arc::new);
    let want = match (&basis, &values) {
        (None, _) => Want::Whole,
        (Some(basis), Some(values)) => {
            let basis_head = values.hash.as_ref().map(pages::head);
            Want::Aligned {
                block_size: values.block_size.bytes(),
                basis_bytes: basis.total_bytes,
                basis_head,
            }
        }
        (Some(basis), None) if is_narrowed(run, target, basis) => Want::Narrowed {
            block_size: narrow::small_block_size(basis.total_bytes).bytes(),
            basis_bytes: basis.total_bytes,
        },
        (Some(basis), None) => Want::Delta {
            block_size: delta_block_size(run, basis.total_bytes).bytes(),
            basis_bytes: basis.total_bytes,
        },
    };
    let Some(request) = request(run, target, want, values.clone())? else { return Ok(()) };
    match (basis, values) {
        (Some(basis), Some(values)) => send_values(run, request.file, &basis, &values)?,
        (Some(basis), None) if matches!(want, Want::Narrowed { .. }) => {
            send_large(run, request.file, &basis)?
        }
        (Some(basis), None) => send_signature(run, request.file, &basis)?,
        _ => {}
    }
    lock(&run.session).unreserve(target.list);
    run.advance()
}

/// Asks for what differs from a basis with holes, and sends what its blocks hash to that are in none.
fn request_sparse(run: &Run<'_>, target: &Arc<Target>, basis: &Basis) -> Result<(), SessionError> {
    let blocks = basis.sparse_blocks();
    let want = blocks.map_or(Want::Whole, |(block_size, blocks)| Want::Sparse {
        block_size: block_size.bytes(),
        basis_bytes: basis.total_bytes,
        blocks,
    });
    let Some(request) = request(run, target, want, None)? else { return Ok(()) };
    if let Some((block_size, count)) = blocks {
        send_blocks(run, request.file, basis, block_size, count)?;
    }
    lock(&run.session).unreserve(target.list);
    run.advance()
}

/// Asks for a file as soon as there is room for its signature; none where the run ends before that.
fn request(
    run: &Run<'_>,
    target: &Arc<Target>,
    want: Want,
    values: Option<Arc<OldValues>>,
) -> Result<Option<Request>, SessionError> {
    let mut session = lock(&run.session);
    let request = loop {
        match session.request(target.list, target.index, want) {
            Some(request) => break request,
            None if run.stopped.load(std::sync::atomic::Ordering::Relaxed) => return Ok(None),
            None => session = run.room.wait(session).unwrap_or_else(PoisonError::into_inner),
        }
    };
    drop(session);
    run.expect(request, Flight::new(want, Arc::clone(target)).with_values(values));
    run.outgoing.say(&Message::Request(vec![request]))?;
    Ok(Some(request))
}

/// Sends as many blocks as were announced, whatever became of the basis since: what is not there matches nothing.
fn send_blocks(
    run: &Run<'_>,
    file: u32,
    basis: &Basis,
    block_size: BlockSize,
    count: u32,
) -> Result<(), SessionError> {
    let mut entries = Entries { run, file, pending: Vec::new() };
    let mut buffer = vec![0; block_size.bytes() as usize];
    let (mut left, mut next) = (count, 0);
    basis.for_each_block(block_size, |number| {
        next = number + 1;
        if left == 0 {
            return Ok(());
        }
        left -= 1;
        let length = block_size.length_of(number, basis.total_bytes) as usize;
        let block = &mut buffer[..length];
        let clock = &run.progress.clock;
        let at = number * u64::from(block_size.bytes());
        let head = match clock.time(Activity::Read, || basis.read_exact_at(block, at)) {
            Ok(()) => clock.time(Activity::Hash, || sparse::head(block)),
            Err(_) => sparse::Head::default(),
        };
        entries.append(&sparse::entry(number, &head))
    })?;
    for missing in 0..u64::from(left) {
        entries.append(&sparse::entry(next + missing, &sparse::Head::default()))?;
    }
    entries.flush()
}

fn send_signature(run: &Run<'_>, file: u32, basis: &Basis) -> Result<(), SessionError> {
    let block_size = delta_block_size(run, basis.total_bytes);
    let mut entries = Entries { run, file, pending: Vec::new() };
    // A basis that can't be read matches nothing: any content will do, BLAKE3 decides.
    for_each_chunk(run, basis, block_size, |_, chunk, _| {
        let clock = &run.progress.clock;
        entries.append(&clock.time(Activity::Match, || signature::calculate(chunk, block_size)))
    })?;
    entries.flush()
}

/// Sends what the large blocks of a signature in two steps hash to.
fn send_large(run: &Run<'_>, file: u32, basis: &Basis) -> Result<(), SessionError> {
    let block_size = narrow::large_block_size(basis.total_bytes);
    let mut entries = Entries { run, file, pending: Vec::new() };
    // As for a signature, what can't be read matches nothing.
    for_each_chunk(run, basis, block_size, |at, chunk, _| {
        let values = || subtree::entries(&subtree::values(chunk, at, block_size));
        entries.append(&run.progress.clock.time(Activity::Hash, values))
    })?;
    entries.flush()
}

/// Sends the signature of what the source lacks, by its bits, and no less: what can't be read matches nothing.
pub(crate) fn send_lacking(
    run: &Run<'_>,
    target: &Target,
    file: u32,
    want: Want,
    bits: &[u8],
) -> Result<(), SessionError> {
    let Want::Narrowed { basis_bytes, .. } = want else { return Ok(()) };
    let Some((block_size, _)) = want.basis()? else { return Ok(()) };
    let basis = Basis::open(run, target).ok().flatten();
    let mut entries = Entries { run, file, pending: Vec::new() };
    let mut buffer = Vec::new();
    for bytes in narrow::lacking(bits, basis_bytes) {
        let clock = &run.progress.clock;
        buffer.clear();
        buffer.resize(usize::try_from(bytes.end - bytes.start).unwrap_or(0), 0);
        if let Some(basis) = &basis {
            // Half of it, or what another basis has there, is no less true than nothing.
            let _ = clock.time(Activity::Read, || basis.read_exact_at(&mut buffer, bytes.start));
        }
        entries.append(&clock.time(Activity::Match, || signature::calculate(&buffer, block_size)))?;
    }
    entries.flush()
}

/// Sends the head of each block's value; reads the old file for those that are not known.
fn send_values(run: &Run<'_>, file: u32, basis: &Basis, values: &OldValues) -> Result<(), SessionError> {
    let mut entries = Entries { run, file, pending: Vec::new() };
    let known = subtree::entries(&lock(&values.known));
    if !known.is_empty() {
        entries.append(&known)?;
        return entries.flush();
    }
    let mut is_of_use = true;
    for_each_chunk(run, basis, values.block_size, |at, chunk, is_read| {
        // What follows a block that can't be read is not compared; nor what nobody waits for any more.
        is_of_use = is_of_use && is_read && lock(&run.flights).contains_key(&file);
        if !is_of_use {
            let blocks = chunk.len().div_ceil(values.block_size.bytes() as usize);
            return entries.append(&vec![0; blocks * subtree::ENTRY_BYTES]);
        }
        let hash = || subtree::values(chunk, at, values.block_size);
        let fresh = run.progress.clock.time(Activity::Hash, hash);
        let heads = subtree::entries(&fresh);
        // First, so that whoever learns of a match finds its value.
        lock(&values.known).extend(fresh);
        entries.append(&heads)
    })?;
    entries.flush()
}

/// Entries of blocks on their way to the source, collected until they are worth a frame.
struct Entries<'a, 'r> {
    run: &'a Run<'r>,
    file: u32,
    pending: Vec<u8>,
}

impl Entries<'_, '_> {
    fn append(&mut self, entries: &[u8]) -> Result<(), SessionError> {
        self.pending.extend_from_slice(entries);
        if self.pending.len() >= SIGNATURE_FRAME_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), SessionError> {
        for part in self.pending.chunks(SIGNATURE_FRAME_BYTES) {
            self.run.outgoing.send(signature_frame(self.file, part))?;
        }
        self.pending.clear();
        Ok(())
    }
}

/// Reads a basis by whole blocks; `each` gets where they stand and whether they could be read (else they are zeros).
fn for_each_chunk(
    run: &Run<'_>,
    basis: &Basis,
    block_size: BlockSize,
    mut each: impl FnMut(u64, &[u8], bool) -> Result<(), SessionError>,
) -> Result<(), SessionError> {
    let block_bytes = block_size.bytes() as usize;
    let chunk_bytes = CHUNK_BYTES.div_ceil(block_bytes) * block_bytes;
    let mut buffer = vec![0; chunk_bytes.min(usize::try_from(basis.total_bytes).unwrap_or(chunk_bytes))];
    let mut at = 0;
    while at < basis.total_bytes {
        let left = usize::try_from(basis.total_bytes - at).unwrap_or(usize::MAX);
        let chunk = &mut buffer[..chunk_bytes.min(left)];
        let read = run.progress.clock.time(Activity::Read, || basis.read_exact_at(chunk, at));
        if read.is_err() {
            chunk.fill(0);
        }
        each(at, chunk, read.is_ok())?;
        at += chunk.len() as u64;
    }
    Ok(())
}

/// What is asked for to compare the content of a file with that of its basis.
pub(crate) fn hash_to_compare(run: &Run<'_>, target: &Target) -> Want {
    let has_holes = |info: &Info| {
        let opened = || target.open_basis(run).is_ok_and(|file| holes::are_worth_it(&file, info.size_bytes));
        run.options.room.sparse && opened()
    };
    if target.basis().is_some_and(has_holes) { Want::SparseHash } else { Want::Hash }
}

/// Hashes the destination's file for a comparison; reports where that fails.
pub(crate) fn hash_existing(run: &Run<'_>, target: &Target, kind: HashKind) -> Option<ContentHash> {
    let hash = match kind {
        HashKind::Plain => hash(run, target),
        HashKind::Sparse => sparse_hash(run, target),
    };
    match hash {
        Ok(hash) => Some(hash),
        Err(error) => {
            let error = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            run.problem(errno(Side::Destination, &target.path(), Operation::Read, error));
            None
        }
    }
}

fn sparse_hash(run: &Run<'_>, target: &Target) -> io::Result<ContentHash> {
    let file = target.open_basis(run)?;
    let before = tree::info_of(&file)?;
    let hash = run.progress.clock.time(Activity::Hash, || holes::hash(&file, before.size_bytes))?;
    let mut stats = lock(&run.stats);
    stats.compared_files += 1;
    stats.compared_bytes += before.size_bytes;
    Ok(hash)
}

fn hash(run: &Run<'_>, target: &Target) -> io::Result<ContentHash> {
    let file = target.open_basis(run)?;
    let before = tree::info_of(&file)?;
    if let Some(hash) = run.index.hash(&before) {
        return Ok(hash);
    }
    let read_from = tree::now();
    let mut hasher = blake3::Hasher::new();
    let size = before.size_bytes;
    let mut buffer = vec![0; CHUNK_BYTES.min(usize::try_from(size).unwrap_or(CHUNK_BYTES))];
    let mut at = 0;
    while at < size {
        let left = usize::try_from(size - at).unwrap_or(usize::MAX);
        let chunk = &mut buffer[..CHUNK_BYTES.min(left)];
        let clock = &run.progress.clock;
        clock.time(Activity::Read, || file.read_exact_at(chunk, at))?;
        clock.time(Activity::Hash, || hasher.update(chunk));
        at += chunk.len() as u64;
    }
    let mut stats = lock(&run.stats);
    stats.compared_files += 1;
    stats.compared_bytes += size;
    let hash = hasher.finalize().into();
    if before.same_content(&tree::info_of(&file)?) {
        run.index.remember(&before, read_from, &hash);
    }
    Ok(hash)
}

//! What the destination already has of a file: the basis that a delta is made against.
//!
//! Usually the old file. Where an earlier run left a part of the new one, that part comes first and
//! the old file goes on from there: what was fetched once is found again, and the rest still matches.

use crate::clock::Activity;
use crate::error::SessionError;
use crate::monitor::errno;
use crate::receiver::Target;
use crate::run::Run;
use crate::tree;
use crate::workers::lock;
use protocol::ContentHash;
use protocol::message::{Message, Want, signature_frame};
use protocol::signature::{self, BlockSize};
use protocol::stats::{Operation, Side};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, PoisonError};

/// Bytes read and hashed at a time.
const CHUNK_BYTES: usize = 512 << 10;
/// Signature bytes in a frame.
const SIGNATURE_FRAME_BYTES: usize = 48 << 10;

/// An open basis.
#[derive(Debug)]
pub(crate) struct Basis {
    /// What an earlier run left, and up to where it is used.
    kept: Option<(File, u64)>,
    old: Option<File>,
    pub(crate) total_bytes: u64,
    pub(crate) block_size: BlockSize,
}

impl Basis {
    /// Opens what there is for `target`; none where that is nothing.
    pub(crate) fn open(run: &Run<'_>, target: &Target) -> Result<Option<Basis>, Errno> {
        let kept = target.device.and_then(|device| run.staging.kept(device, &target.path()));
        let old = match target.basis() {
            Some(_) => Some(run.tree.dir(&target.parent)?.open_file(target.name().as_bytes())?),
            None => None,
        };
        let old_bytes = target.basis().map_or(0, |info| info.size_bytes);
        let kept_bytes = kept.as_ref().map_or(0, |&(_, length)| length);
        let total_bytes = old_bytes.max(kept_bytes);
        if total_bytes == 0 {
            return Ok(None);
        }
        let block_size = match run.options.block_size {
            Some(bytes) => BlockSize::at_least(bytes, total_bytes),
            None => BlockSize::for_basis(total_bytes),
        };
        let whole_blocks = kept_bytes - kept_bytes % u64::from(block_size.bytes());
        let used = if kept_bytes >= old_bytes { kept_bytes } else { whole_blocks };
        let kept = kept.map(|(file, _)| (file, used)).filter(|&(_, used)| used > 0);
        Ok(Some(Basis { kept, old, total_bytes, block_size }))
    }

    /// The old file, if it is all of the basis.
    pub(crate) fn as_old(&self) -> Option<&File> {
        self.old.as_ref().filter(|_| self.kept.is_none())
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
            Some(old) => old.read_exact_at(buffer, at),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Asks for a delta of a file and sends the signature of its basis; for the whole file where the
/// basis can't be read.
pub(crate) fn request_delta(run: &Run<'_>, target: &Arc<Target>) -> Result<(), SessionError> {
    let basis = Basis::open(run, target).ok().flatten();
    let want = basis.as_ref().map_or(Want::Whole, |basis| Want::Delta {
        block_size: basis.block_size.bytes(),
        basis_bytes: basis.total_bytes,
    });
    let mut session = lock(&run.session);
    let request = loop {
        match session.request(target.list, target.index, want) {
            Some(request) => break request,
            None if run.stopped.load(std::sync::atomic::Ordering::Relaxed) => return Ok(()),
            None => session = run.room.wait(session).unwrap_or_else(PoisonError::into_inner),
        }
    };
    drop(session);
    run.expect(request, Arc::clone(target));
    run.outgoing.say(&Message::Request(vec![request]))?;
    if let Some(basis) = basis {
        send_signature(run, request.file, &basis)?;
    }
    lock(&run.session).unreserve(target.list);
    run.advance()
}

fn send_signature(run: &Run<'_>, file: u32, basis: &Basis) -> Result<(), SessionError> {
    let block_bytes = basis.block_size.bytes() as usize;
    let chunk_bytes = CHUNK_BYTES.div_ceil(block_bytes) * block_bytes;
    let mut buffer = vec![0; chunk_bytes.min(usize::try_from(basis.total_bytes).unwrap_or(chunk_bytes))];
    let mut pending = Vec::with_capacity(SIGNATURE_FRAME_BYTES * 2);
    let mut at = 0;
    while at < basis.total_bytes {
        let left = usize::try_from(basis.total_bytes - at).unwrap_or(usize::MAX);
        let chunk = &mut buffer[..chunk_bytes.min(left)];
        let clock = &run.progress.clock;
        if clock.time(Activity::Read, || basis.read_exact_at(chunk, at)).is_err() {
            // A basis that can't be read matches nothing: any content will do, BLAKE3 decides.
            chunk.fill(0);
        }
        let entries = clock.time(Activity::Match, || signature::calculate(chunk, basis.block_size));
        pending.extend_from_slice(&entries);
        at += chunk.len() as u64;
        if pending.len() >= SIGNATURE_FRAME_BYTES || at == basis.total_bytes {
            for part in pending.chunks(SIGNATURE_FRAME_BYTES) {
                run.outgoing.send(signature_frame(file, part))?;
            }
            pending.clear();
        }
    }
    Ok(())
}

/// Hashes the destination's file for a comparison; reports where that fails.
pub(crate) fn hash_existing(run: &Run<'_>, target: &Target) -> Option<ContentHash> {
    match hash(run, target) {
        Ok(hash) => Some(hash),
        Err(error) => {
            let error = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            run.problem(errno(Side::Destination, &target.path(), Operation::Read, error));
            None
        }
    }
}

fn hash(run: &Run<'_>, target: &Target) -> io::Result<ContentHash> {
    let file = run.tree.dir(&target.parent)?.open_file(target.name().as_bytes())?;
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

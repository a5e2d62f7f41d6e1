//! Files with holes: what is in a hole is not read, and told as zeros.
//!
//! The hash is the sparse one ([`protocol::sparse`]). A basis is compared by its blocks at the same places; what is zeros
//! needs none. Called by the sender, in runs that keep holes.

use super::{Feed, Sender, read_exact, read_failure, unchanged};
use crate::clock::Activity;
use crate::error::SessionError;
use crate::holes;
use crate::tree::Info;
use protocol::message::{Failure, HashKind, Step};
use protocol::sparse::{Blocks, GROUP_BYTES, SparseHasher, is_zero};
use std::fs::File;

/// How much of a hole goes into one step.
const HOLE_BYTES: u64 = 1 << 31;

/// What a file is compared with.
pub(super) struct Against<'a> {
    pub(super) blocks: Blocks,
    pub(super) feed: &'a Feed,
}

impl Against<'_> {
    /// Whether the basis has this block; none when the session is over.
    fn stands(&mut self, number: u64, block: &[u8]) -> Result<Option<bool>, SessionError> {
        while !self.blocks.is_known(number) {
            match self.feed.take() {
                Some(entries) => self.blocks.extend(&entries)?,
                None => return Ok(None),
            }
        }
        Ok(Some(self.blocks.stands(number, block)))
    }
}

impl Sender<'_> {
    /// Sends what is in no hole, but for what the basis has.
    pub(super) fn send_sparse(
        &mut self,
        number: u32,
        file: &File,
        before: &Info,
        mut against: Option<Against<'_>>,
    ) -> Result<Result<(), Failure>, SessionError> {
        let block_bytes =
            against.as_ref().map_or(GROUP_BYTES, |against| against.blocks.block_size().bytes()) as usize;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(block_bytes.max(buffer.len()), 0);
        let mut hasher = SparseHasher::default();
        let size_bytes = before.size_bytes;
        self.builder.step(number, Step::Open { size_bytes, hash: HashKind::Sparse });
        let mut at = 0;
        while at < size_bytes {
            let data = holes::next_data(file, at, size_bytes);
            let block_at = if data == size_bytes { data } else { data - data % block_bytes as u64 };
            self.zeros(number, block_at - at, &mut hasher)?;
            let left = usize::try_from(size_bytes - block_at).unwrap_or(usize::MAX);
            let block = &mut buffer[..block_bytes.min(left)];
            let clock = &self.progress.clock;
            if let Err(failure) = clock.time(Activity::Read, || read_exact(file, block, block_at)) {
                return Ok(Err(failure));
            }
            at = block_at + block.len() as u64;
            if is_zero(block) {
                self.zeros(number, block.len() as u64, &mut hasher)?;
                continue;
            }
            clock.time(Activity::Hash, || hasher.update(block));
            let block_number = block_at / block_bytes as u64;
            let stands = match &mut against {
                Some(against) => clock.time(Activity::Match, || against.stands(block_number, block))?,
                None => Some(false),
            };
            match stands {
                Some(true) => self.builder.step(number, Step::Match { block: block_number, count: 1 }),
                Some(false) => self.literal(number, block)?,
                None => return Ok(Err(Failure::Changed)),
            }
            if self.builder.is_full() {
                self.flush()?;
            }
        }
        self.buffer = buffer;
        Ok(self.end(number, file, before, (hasher.finish(), None)))
    }

    /// The next bytes are so many zeros.
    fn zeros(&mut self, number: u32, mut bytes: u64, hasher: &mut SparseHasher) -> Result<(), SessionError> {
        hasher.zeros(bytes);
        while bytes > 0 {
            let now = bytes.min(HOLE_BYTES);
            self.builder.step(number, Step::Zeros { bytes: now as u32 });
            if self.builder.is_full() {
                self.flush()?;
            }
            bytes -= now;
        }
        Ok(())
    }

    /// Answers with the sparse hash.
    pub(super) fn sparse_hash(&mut self, number: u32, file: &File, before: &Info) -> Result<(), Failure> {
        let size_bytes = before.size_bytes;
        let hashed = self.progress.clock.time(Activity::Hash, || holes::hash(file, size_bytes));
        let hash = hashed.map_err(|error| read_failure(&error))?;
        let read = unchanged(file, before, hash)?;
        self.builder.step(number, Step::Hashed { size_bytes, read });
        Ok(())
    }
}

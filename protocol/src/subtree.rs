//! A file's BLAKE3 as a tree over its blocks: for each block the chaining value of its subtree, and from
//! these the hash of the whole.
//!
//! A database is rewritten in place and grows. Compared block by block at the same place, by values that both
//! ends compute anyway while they hash, such a file costs no second hash, and a block whose value is known
//! need not be read again to know the hash of the whole. Where that finds nothing, because the content has
//! moved, the rolling search goes on ([`crate::matcher`]).
//!
//! A value that travels is cut to [`ENTRY_BYTES`]: it only finds. The hash of the whole file decides.
//!
//! # Source
//! BLAKE3 specification, section 2.1 (the tree: the left subtree is the largest power of two of chunks that leaves
//! something for the right one) and 2.5; the crate's `hazmat` module.

use crate::matcher::{Op, Ops};
use crate::pages::{PAGE_BYTES, PageHash, PageSearch};
use crate::signature::BlockSize;
use crate::{ContentHash, ProtocolError, limits};
use blake3::Hasher;
use blake3::hazmat::{self, HasherExt as _, Mode};

/// The chaining value of a block's subtree.
pub type Value = [u8; 32];

/// Bytes of a value on the wire.
pub const ENTRY_BYTES: usize = 16;

/// From here on BLAKE3's vector code is at its full speed, twice that of pages.
const FAST_BYTES: u32 = 16 << 10;
/// Files up to this are compared page by page.
const PAGED_FILE_BYTES: u64 = 64 << 20;

/// The block size for a file that is compared with its basis: a page, for that is what one changed byte costs, in large files 16 KiB, doubled until the
/// values are within [`limits::VALUES`].
#[must_use]
pub fn block_size_for(file_bytes: u64) -> BlockSize {
    if file_bytes <= PAGED_FILE_BYTES { BlockSize::trusted(PAGE_BYTES) } else { fast_block_size(file_bytes) }
}

/// The block size for a file that is only hashed: never a page. Of large files both are the same.
#[must_use]
pub fn fast_block_size(file_bytes: u64) -> BlockSize {
    let mut bytes = FAST_BYTES;
    while file_bytes.div_ceil(u64::from(bytes)) > limits::VALUES && bytes < BlockSize::LARGEST {
        bytes *= 2;
    }
    BlockSize::trusted(bytes)
}

/// Checks a block size that a peer, or a file, gave for values of `file_bytes`.
///
/// # Errors
/// No power of two, smaller than 4 KiB, or so small that there would be too many.
pub fn block_size(bytes: u32, file_bytes: u64) -> Result<BlockSize, ProtocolError> {
    let in_bounds = (PAGE_BYTES..=BlockSize::LARGEST).contains(&bytes) && bytes.is_power_of_two();
    if in_bounds && file_bytes.div_ceil(u64::from(bytes)) <= limits::VALUES {
        Ok(BlockSize::trusted(bytes))
    } else {
        Err(ProtocolError::Unexpected { what: "request", why: "its block size is out of bounds" })
    }
}

/// The hash of a file from its blocks' values; none where there are fewer than two, because the hash of one block
/// does not follow from its value.
#[must_use]
pub fn root(values: &[Value]) -> Option<ContentHash> {
    let (left, right) = halves(values)?;
    Some(*hazmat::merge_subtrees_root(&merged(left), &merged(right), Mode::Hash).as_bytes())
}

fn merged(values: &[Value]) -> Value {
    match halves(values) {
        Some((left, right)) => hazmat::merge_subtrees_non_root(&merged(left), &merged(right), Mode::Hash),
        None => values.first().copied().unwrap_or_default(),
    }
}

fn halves(values: &[Value]) -> Option<(&[Value], &[Value])> {
    let left = values.len().checked_sub(1).filter(|&less| less > 0)?.checked_ilog2()?;
    Some(values.split_at(1 << left))
}

/// The values of blocks in a row, the first of which stands at `at` of a file of several; the last may be short.
#[must_use]
pub fn values(blocks: &[u8], at: u64, block_size: BlockSize) -> Vec<Value> {
    let value = |(offset, block): (u64, &[u8])| {
        Hasher::new().set_input_offset(at + offset).update(block).finalize_non_root()
    };
    let offsets = (0..).step_by(block_size.bytes() as usize);
    offsets.zip(blocks.chunks(block_size.bytes() as usize)).map(value).collect()
}

/// What travels of values.
#[must_use]
pub fn entries(values: &[Value]) -> Vec<u8> {
    values.iter().flat_map(|value| &value[..ENTRY_BYTES]).copied().collect()
}

/// Hashes a file from its start, block by block.
#[derive(Debug)]
pub struct TreeHasher {
    block_size: BlockSize,
    /// Of the blocks that are complete and not the last so far.
    values: Vec<Value>,
    block: Hasher,
    /// How much of the block is hashed.
    filled: usize,
}

impl TreeHasher {
    /// At the start of a file.
    #[must_use]
    pub fn new(block_size: BlockSize) -> TreeHasher {
        TreeHasher { block_size, values: Vec::new(), block: Hasher::new(), filled: 0 }
    }

    /// The length of its blocks.
    #[must_use]
    pub fn block_size(&self) -> BlockSize {
        self.block_size
    }

    fn block_bytes(&self) -> usize {
        self.block_size.bytes() as usize
    }

    /// The next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.filled == self.block_bytes() {
                self.close_block();
            }
            let (now, rest) = bytes.split_at(bytes.len().min(self.block_bytes() - self.filled));
            self.block.update(now);
            self.filled += now.len();
            bytes = rest;
        }
    }

    /// The next block is one whose value is known, of a file of several blocks. False, and nothing done, where
    /// the file so far does not end with a block.
    pub fn push(&mut self, value: Value) -> bool {
        if self.filled == self.block_bytes() {
            self.close_block();
        }
        let is_at_start = self.filled == 0;
        if is_at_start {
            self.values.push(value);
            self.restart();
        }
        is_at_start
    }

    /// The file's hash, and its blocks' values where it has several.
    #[must_use]
    pub fn finish(mut self) -> (ContentHash, Vec<Value>) {
        if self.values.is_empty() {
            return (self.block.finalize().into(), Vec::new());
        }
        if self.filled > 0 {
            self.close_block();
        }
        let hash = root(&self.values).unwrap_or_default();
        (hash, self.values)
    }

    /// The number of the block that the last byte is in.
    fn last_block(&self) -> u64 {
        self.values.len() as u64
    }

    /// The value of that block, as far as it has come.
    fn last_value(&self) -> Value {
        self.block.finalize_non_root()
    }

    fn close_block(&mut self) {
        self.values.push(self.last_value());
        self.restart();
    }

    fn restart(&mut self) {
        self.block = Hasher::new();
        self.block.set_input_offset((self.values.len() * self.block_bytes()) as u64);
        self.filled = 0;
    }
}

/// The source's side: hashes a file, and compares each block with that at the same place of the basis.
#[derive(Debug)]
pub struct Comparison {
    hasher: TreeHasher,
    /// What the destination says that its blocks hash to, as far as it has come.
    entries: Vec<u8>,
    basis_bytes: u64,
    file_bytes: u64,
    has_matched: bool,
    /// Bytes since the last match for which the basis had other ones.
    missed_bytes: u64,
    /// Looks for what is not in place, where pages are remembered.
    pages: Option<PageSearch>,
}

/// So much at the start of a file that is nowhere in place says that its content has moved, or is another one.
const MISSED_AT_START_BYTES: u64 = 1 << 20;
/// The same later on: a database may well write so much in one place.
const MISSED_BYTES: u64 = 32 << 20;

impl Comparison {
    /// A file of `file_bytes` against a basis of `basis_bytes`, no block of it known yet.
    #[must_use]
    pub fn new(
        block_size: BlockSize,
        basis_bytes: u64,
        file_bytes: u64,
        pages: Option<PageSearch>,
    ) -> Comparison {
        Comparison {
            hasher: TreeHasher::new(block_size),
            entries: Vec::new(),
            basis_bytes,
            file_bytes,
            has_matched: false,
            missed_bytes: 0,
            pages,
        }
    }

    /// Appends entries as they came over the wire.
    ///
    /// # Errors
    /// A part of an entry, or more entries than the basis has blocks.
    pub fn extend(&mut self, entries: &[u8]) -> Result<(), ProtocolError> {
        let all = self.hasher.block_size.blocks(self.basis_bytes).saturating_mul(ENTRY_BYTES as u64);
        if !entries.len().is_multiple_of(ENTRY_BYTES) || (self.entries.len() + entries.len()) as u64 > all {
            return Err(ProtocolError::Unexpected { what: "signature", why: "not an entry for each block" });
        }
        self.entries.extend_from_slice(entries);
        Ok(())
    }

    /// The length of its blocks.
    #[must_use]
    pub fn block_size(&self) -> BlockSize {
        self.hasher.block_size
    }

    /// Whether the basis is known up to `end`, as far as it goes.
    #[must_use]
    pub fn is_known_to(&self, end: u64) -> bool {
        let known = (self.entries.len() / ENTRY_BYTES) as u64;
        known >= self.hasher.block_size.blocks(end.min(self.basis_bytes))
    }

    /// Takes in the next bytes, whole blocks or up to the file's end, and appends what they are to `ops`.
    pub fn advance(&mut self, data: &[u8], ops: &mut Vec<Op>) {
        let mut out = Ops::new(ops);
        for block in data.chunks(self.hasher.block_size.bytes() as usize) {
            self.hasher.update(block);
            let number = self.hasher.last_block();
            let end = out.done + block.len();
            if self.stands(number, block.len() as u64) {
                self.has_matched = true;
                self.missed_bytes = 0;
                out.matched(number, 1, end);
                if let Some(pages) = &mut self.pages {
                    pages.stays(block);
                }
            } else {
                let is_within = self.hasher.block_size.blocks(self.basis_bytes) > number + 1;
                let found = self.pages.as_mut().map_or(0, |pages| pages.search(block, &mut out));
                self.missed_bytes += if is_within { (block.len() - found) as u64 } else { 0 };
                out.literal_to(end);
            }
        }
    }

    /// Whether the block that was hashed last is that of the basis.
    fn stands(&self, block: u64, length: u64) -> bool {
        // The hash of a file of one block is not that block's value.
        let has_several = self.file_bytes > u64::from(self.hasher.block_size.bytes());
        let entry =
            usize::try_from(block).ok().and_then(|block| self.entries.chunks_exact(ENTRY_BYTES).nth(block));
        has_several
            && self.hasher.block_size.length_of(block, self.basis_bytes) == length
            && entry.is_some_and(|entry| self.hasher.last_value()[..ENTRY_BYTES] == *entry)
    }

    /// Whether what came is so much and so much else than the basis has there that its place must be searched.
    #[must_use]
    pub fn is_misaligned(&self) -> bool {
        self.missed_bytes >= if self.has_matched { MISSED_BYTES } else { MISSED_AT_START_BYTES }
    }

    /// The file's hash, and what its pages hash to where they are to be remembered.
    #[must_use]
    pub fn finish(self) -> (ContentHash, Option<Vec<PageHash>>) {
        (self.hasher.finish().0, self.pages.map(PageSearch::finish))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCK: usize = PAGE_BYTES as usize;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut reader = Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        let mut bytes = vec![0; len];
        reader.fill(&mut bytes);
        bytes
    }

    fn hashed(data: &[u8]) -> (ContentHash, Vec<Value>) {
        let mut hasher = TreeHasher::new(block_size_for(data.len() as u64));
        hasher.update(data);
        hasher.finish()
    }

    /// Compares as a sender does, window by window; what was literal, and whether it gave up.
    fn compare(basis: &[u8], target: &[u8]) -> (Vec<Op>, ContentHash, bool) {
        let size = block_size_for(basis.len() as u64);
        let mut comparison = Comparison::new(size, basis.len() as u64, target.len() as u64, None);
        comparison.extend(&entries(&hashed(basis).1)).unwrap();
        let (mut all, mut gave_up) = (Vec::new(), false);
        for window in target.chunks(8 * BLOCK) {
            let mut ops = Vec::new();
            comparison.advance(window, &mut ops);
            all.extend(ops);
            gave_up |= comparison.is_misaligned();
        }
        (all, comparison.finish().0, gave_up)
    }

    #[test]
    fn block_sizes_keep_the_values_within_their_limit() {
        assert_eq!(block_size_for(64 << 20).bytes(), 4 << 10);
        assert_eq!(block_size_for((64 << 20) + 1).bytes(), 16 << 10);
        assert_eq!(fast_block_size(1).bytes(), 16 << 10);
        assert_eq!(block_size_for(4 << 30).bytes(), 16 << 10);
        assert_eq!(block_size_for((4 << 30) + 1).bytes(), 32 << 10);
        assert_eq!(block_size_for(20 << 30).bytes(), 128 << 10);
        for (bytes, file_bytes, allowed) in [
            (16 << 10, 4 << 30, true),
            (16 << 10, (4 << 30) + 1, false),
            (4 << 10, 1 << 30, true),
            (4 << 10, (1 << 30) + 1, false),
            (2 << 10, 1, false),
            (48 << 10, 1, false),
            (32 << 20, 1, false),
            (0, 1, false),
        ] {
            assert_eq!(block_size(bytes, file_bytes).is_ok(), allowed, "{bytes} of {file_bytes}");
        }
    }

    #[test]
    fn a_file_that_is_elsewhere_or_another_one_is_given_up_soon_and_a_rewritten_part_is_not() {
        let basis = noise(1, 4 << 20);
        let shifted = [b"line", &basis[..]].concat();
        assert!(compare(&basis, &shifted).2);
        assert!(compare(&basis, &noise(2, 4 << 20)).2);
        let mut rewritten = basis.clone();
        rewritten[1 << 20..3 << 20].copy_from_slice(&noise(3, 2 << 20));
        assert!(!compare(&basis, &rewritten).2);
        let grown = [&basis[..], &noise(4, 8 << 20)].concat();
        assert!(!compare(&basis, &grown).2);
    }

    #[test]
    fn entries_come_whole_and_no_more_than_the_basis_has_blocks() {
        let mut comparison = Comparison::new(block_size_for(1), 3 * BLOCK as u64 - 1, 1 << 20, None);
        assert!(comparison.extend(&[0; ENTRY_BYTES - 1]).is_err());
        assert!(comparison.extend(&[0; 4 * ENTRY_BYTES]).is_err());
        assert!(!comparison.is_known_to(1));
        assert!(comparison.extend(&[0; 2 * ENTRY_BYTES]).is_ok());
        assert!(comparison.is_known_to(2 * BLOCK as u64) && !comparison.is_known_to(u64::MAX));
        assert!(comparison.extend(&[0; ENTRY_BYTES]).is_ok() && comparison.is_known_to(u64::MAX));
    }

    proptest! {
        #[test]
        fn hash_and_values_are_those_of_blake3(
            blocks in 0usize..70, rest in prop_oneof![Just(0usize), Just(1), Just(1024), 0usize..BLOCK],
            piece in prop_oneof![Just(1 << 20), Just(BLOCK), 1usize..3 * BLOCK],
            known in any::<u64>(),
        ) {
            let data = noise(blocks as u64, blocks * BLOCK + rest);
            let expected: ContentHash = blake3::hash(&data).into();
            let mut hasher = TreeHasher::new(block_size_for(0));
            data.chunks(piece).for_each(|piece| hasher.update(piece));
            let (hash, values) = hasher.finish();
            prop_assert_eq!(hash, expected);
            prop_assert_eq!(root(&values).unwrap_or(expected), expected);
            if values.len() > 1 {
                let (front, back) = data.split_at(BLOCK);
                let apart = [super::values(front, 0, block_size_for(0)), super::values(back, BLOCK as u64, block_size_for(0))];
                prop_assert_eq!(apart.concat(), values.clone());
            }
            prop_assert_eq!(values.len(), if data.len() > BLOCK { data.len().div_ceil(BLOCK) } else { 0 });

            // The same where some blocks' values are known before.
            let mut hasher = TreeHasher::new(block_size_for(0));
            for (number, block) in data.chunks(BLOCK).enumerate() {
                match values.get(number) {
                    Some(&value) if known >> (number % 64) & 1 == 1 => prop_assert!(hasher.push(value)),
                    _ => hasher.update(block),
                }
            }
            prop_assert_eq!(hasher.finish(), (expected, values));
        }

        #[test]
        fn what_matches_stands_at_the_same_place_of_the_basis(
            basis_bytes in 0usize..40 * BLOCK, target_bytes in 0usize..40 * BLOCK,
            changed in proptest::collection::vec(0usize..40 * BLOCK, 0..6),
        ) {
            let basis = noise(5, basis_bytes);
            let mut target = noise(5, target_bytes);
            changed.into_iter().filter(|&at| at < target_bytes).for_each(|at| target[at] ^= 1);
            let (ops, hash, _) = compare(&basis, &target);
            prop_assert_eq!(hash, ContentHash::from(blake3::hash(&target)));
            let mut at = 0;
            for op in ops {
                match op {
                    Op::Literal(range) => at += range.len(),
                    Op::Match { block, count } => {
                        prop_assert_eq!(block as usize * BLOCK, at);
                        let end = (at + count as usize * BLOCK).min(basis_bytes);
                        prop_assert!(end <= target_bytes && basis[at..end] == target[at..end]);
                        at = end;
                    }
                    Op::Pages { .. } => panic!("nothing is remembered of the basis"),
                }
            }
            prop_assert_eq!(at, target_bytes);
        }
    }
}

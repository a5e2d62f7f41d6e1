//! A search in two steps, for runs that are to send few bytes rather than take little time: what stands at the same
//! place is found by the values of large blocks ([`crate::subtree`]), and only for the rest does the destination send
//! the signature of small ones.
//!
//! A database leaves most of its pages where they are and writes changed copies of some elsewhere. Such a copy is
//! found in small blocks, but their signature weighs more than they save. Yet of what stands the source has
//! the same bytes: it computes that part of the signature itself.

use crate::matcher::{Matcher, Op, Signature};
use crate::pages::{PageHash, PageSearch};
use crate::signature::{self, BlockSize, ENTRY_BYTES};
use crate::subtree::{self, Comparison};
use crate::{ContentHash, ProtocolError};
use std::ops::Range;

/// The block size of the first step.
#[must_use]
pub fn large_block_size(basis_bytes: u64) -> BlockSize {
    subtree::fast_block_size(basis_bytes)
}

/// The block size of the second step: the smallest of which there are not too many.
#[must_use]
pub fn small_block_size(basis_bytes: u64) -> BlockSize {
    BlockSize::at_least(BlockSize::SMALLEST, basis_bytes)
}

/// Checks the block size of the second step that a peer gave, and that there may be a first one.
///
/// # Errors
/// Out of bounds, or none that large blocks can be divided into.
pub fn block_size(bytes: u32, basis_bytes: u64) -> Result<BlockSize, ProtocolError> {
    let large = subtree::block_size(large_block_size(basis_bytes).bytes(), basis_bytes)?;
    let small = BlockSize::new(bytes, basis_bytes)?;
    if large.bytes().is_multiple_of(bytes) {
        Ok(small)
    } else {
        Err(ProtocolError::Unexpected { what: "request", why: "its block size is out of bounds" })
    }
}

/// Length of the bits that say which large blocks of a basis the source lacks, in bytes.
#[must_use]
pub fn bits_bytes(basis_bytes: u64) -> u64 {
    large_block_size(basis_bytes).blocks(basis_bytes).div_ceil(8)
}

/// What the source lacks of a basis, in bytes from where to where, by its bits; ascending.
pub fn lacking(bits: &[u8], basis_bytes: u64) -> impl Iterator<Item = Range<u64>> {
    let size = large_block_size(basis_bytes);
    let numbers = 0..size.blocks(basis_bytes);
    numbers.filter(|&number| has_bit(bits, number)).map(move |number| {
        let from = number * u64::from(size.bytes());
        from..from + size.length_of(number, basis_bytes)
    })
}

fn has_bit(bits: &[u8], number: u64) -> bool {
    let byte = usize::try_from(number / 8).ok().and_then(|at| bits.get(at));
    byte.is_some_and(|byte| byte & 1 << (number % 8) != 0)
}

/// One large block in so many may be elsewhere; where there are more, a signature of larger blocks weighs less.
const MOST_LACKING: u64 = 8;

/// The source's side.
#[derive(Debug)]
pub struct Narrowing {
    comparison: Comparison,
    /// Of the large blocks that stand at first, in the end of all.
    signature: Signature,
    basis_bytes: u64,
    file_bytes: u64,
    /// How much of the file was compared.
    at: u64,
    /// How many large blocks stand in it.
    standing: u64,
    bits: Vec<u8>,
    ops: Vec<Op>,
}

impl Narrowing {
    /// A file of `file_bytes` against a basis of `basis_bytes`, no large block of it known yet.
    #[must_use]
    pub fn new(
        block_size: BlockSize,
        basis_bytes: u64,
        file_bytes: u64,
        pages: Option<PageSearch>,
    ) -> Narrowing {
        let large = large_block_size(basis_bytes);
        let mut bits = vec![0; usize::try_from(bits_bytes(basis_bytes)).unwrap_or(0)];
        for number in 0..large.blocks(basis_bytes) {
            set_bit(&mut bits, number, true);
        }
        Narrowing {
            comparison: Comparison::new(large, basis_bytes, file_bytes, pages),
            signature: Signature::blank(block_size, basis_bytes),
            basis_bytes,
            file_bytes,
            at: 0,
            standing: 0,
            bits,
            ops: Vec::new(),
        }
    }

    /// The first step's comparison, to extend it and to ask about it.
    pub fn comparison_mut(&mut self) -> &mut Comparison {
        &mut self.comparison
    }

    /// Takes in the file's next bytes, whole large blocks or up to its end.
    pub fn advance(&mut self, data: &[u8]) {
        self.ops.clear();
        self.comparison.advance(data, &mut self.ops);
        let large = u64::from(large_block_size(self.basis_bytes).bytes());
        let small = self.signature.block_size();
        for op in &self.ops {
            let Op::Match { block, count } = *op else { continue };
            let from = usize::try_from(block * large - self.at).unwrap_or(usize::MAX);
            let to = usize::try_from((block + u64::from(count)) * large - self.at).unwrap_or(usize::MAX);
            let standing = &data[from..to.min(data.len())];
            self.signature
                .put(block * large / u64::from(small.bytes()), &signature::calculate(standing, small));
            self.standing += u64::from(count);
            (block..block + u64::from(count)).for_each(|number| set_bit(&mut self.bits, number, false));
        }
        self.at += data.len() as u64;
    }

    /// Whether so much is known to be elsewhere that a signature of the whole weighs less than what will be lacking.
    #[must_use]
    pub fn is_of_no_use(&self) -> bool {
        let blocks = |bytes: u64| large_block_size(self.basis_bytes).blocks(bytes.min(self.basis_bytes));
        let beyond = blocks(u64::MAX) - blocks(self.file_bytes);
        let lacking = blocks(self.at) - self.standing + beyond;
        self.comparison.is_misaligned() || lacking * MOST_LACKING > blocks(u64::MAX)
    }

    /// A bit for each large block of the basis, the lowest first: whether its small ones are to be sent.
    #[must_use]
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// All of the file was compared: the second step begins.
    #[must_use]
    pub fn lacking(self) -> Lacking {
        let small = self.signature.block_size();
        let small_bytes = u64::from(small.bytes());
        let blocks = lacking(&self.bits, self.basis_bytes)
            .map(|bytes| bytes.start / small_bytes..bytes.end.div_ceil(small_bytes));
        let mut missing: Vec<Range<u64>> = blocks.collect();
        missing.reverse();
        Lacking { signature: self.signature, missing, found: self.comparison.finish() }
    }
}

fn set_bit(bits: &mut [u8], number: u64, value: bool) {
    let byte = usize::try_from(number / 8).ok().and_then(|at| bits.get_mut(at));
    if let Some(byte) = byte {
        *byte = *byte & !(1 << (number % 8)) | u8::from(value) << (number % 8);
    }
}

/// The second step, while entries are still to come.
#[derive(Debug)]
pub struct Lacking {
    signature: Signature,
    /// Numbers of small blocks, the next ones last.
    missing: Vec<Range<u64>>,
    /// What the comparison found of the file itself.
    found: (ContentHash, Option<Vec<PageHash>>),
}

impl Lacking {
    /// How many bytes of entries are still to come.
    #[must_use]
    pub fn missing_bytes(&self) -> u64 {
        self.missing.iter().map(|blocks| blocks.end - blocks.start).sum::<u64>() * ENTRY_BYTES as u64
    }

    /// Takes in entries as they came over the wire.
    ///
    /// # Errors
    /// A part of an entry, or more entries than were lacking.
    pub fn extend(&mut self, mut entries: &[u8]) -> Result<(), ProtocolError> {
        while !entries.is_empty() {
            let room_bytes =
                self.missing.last().map_or(0, |blocks| (blocks.end - blocks.start) * ENTRY_BYTES as u64);
            let length = entries.len().min(usize::try_from(room_bytes).unwrap_or(usize::MAX));
            if length == 0 || !length.is_multiple_of(ENTRY_BYTES) {
                return Err(ProtocolError::Unexpected {
                    what: "signature",
                    why: "not an entry for each block",
                });
            }
            let (now, rest) = entries.split_at(length);
            entries = rest;
            let Some(blocks) = self.missing.last_mut() else { continue };
            self.signature.put(blocks.start, now);
            blocks.start += (length / ENTRY_BYTES) as u64;
            if blocks.is_empty() {
                self.missing.pop();
            }
        }
        Ok(())
    }

    /// Whether nothing is lacking any more.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// The search, from the file's start; and of the file as it was compared its hash, and what its pages hash to where
    /// they are to be remembered.
    #[must_use]
    pub fn finish(self) -> (Matcher, (ContentHash, Option<Vec<PageHash>>)) {
        (Matcher::new(self.signature), self.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::Op;
    use proptest::prelude::*;

    const LARGE: usize = 16 << 10;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    /// Both ends of it; the operations, how many bytes of entries travelled, or none where it was of no use.
    fn search(basis: &[u8], target: &[u8], window: usize) -> Option<(Vec<Op>, usize)> {
        let basis_bytes = basis.len() as u64;
        let (large, small) = (large_block_size(basis_bytes), small_block_size(basis_bytes));
        let mut narrowing = Narrowing::new(small, basis_bytes, target.len() as u64, None);
        let values = subtree::entries(&subtree::values(basis, 0, large));
        narrowing.comparison_mut().extend(&values).unwrap();
        target.chunks(window * LARGE).for_each(|data| narrowing.advance(data));
        if narrowing.is_of_no_use() {
            return None;
        }
        let bits = narrowing.bits().to_vec();
        assert_eq!(bits.len() as u64, bits_bytes(basis_bytes));
        let entries: Vec<u8> = lacking(&bits, basis_bytes)
            .flat_map(|bytes| signature::calculate(&basis[bytes.start as usize..bytes.end as usize], small))
            .collect();
        let mut lacking = narrowing.lacking();
        assert_eq!(lacking.missing_bytes(), entries.len() as u64);
        // In frames that end anywhere between two entries.
        entries.chunks(ENTRY_BYTES * 5).for_each(|part| lacking.extend(part).unwrap());
        assert!(lacking.is_complete());
        assert!(lacking.extend(&[0; ENTRY_BYTES]).is_err());
        let (mut matcher, (hash, _)) = lacking.finish();
        assert_eq!(hash, ContentHash::from(blake3::hash(target)));
        let whole = signature::calculate(basis, small);
        assert!(matcher.signature().is_complete());
        let mut of_whole = Signature::new(small, basis_bytes);
        of_whole.extend(&whole).unwrap();
        assert_eq!(*matcher.signature(), of_whole, "it is the signature of the whole basis");
        let mut ops = Vec::new();
        assert_eq!(matcher.advance(target, true, &mut ops), target.len());
        Some((ops, values.len() + bits.len() + entries.len()))
    }

    fn literal_bytes(ops: &[Op]) -> usize {
        ops.iter().map(|op| if let Op::Literal(range) = op { range.len() } else { 0 }).sum()
    }

    #[test]
    fn a_changed_copy_of_what_stays_is_found_for_few_bytes() {
        let basis = noise(1, 64 * LARGE);
        let mut copy = basis[9 * LARGE + 77..11 * LARGE].to_vec();
        copy[5000] ^= 1;
        let target = [&basis[..], &copy].concat();
        let (ops, sent) = search(&basis, &target, 3).unwrap();
        assert!(literal_bytes(&ops) < 2048, "{ops:?}");
        assert_eq!(sent, 64 * subtree::ENTRY_BYTES + 8);
    }

    #[test]
    fn what_was_written_over_is_found_elsewhere() {
        let basis = noise(2, 64 * LARGE);
        let mut target = basis.clone();
        target.extend_from_slice(&basis[9 * LARGE..10 * LARGE]);
        target[9 * LARGE..10 * LARGE].copy_from_slice(&noise(3, LARGE));
        let (ops, sent) = search(&basis, &target, 1).unwrap();
        assert_eq!(literal_bytes(&ops), LARGE);
        assert_eq!(sent, 64 * subtree::ENTRY_BYTES + 8 + LARGE / 512 * ENTRY_BYTES);
    }

    #[test]
    fn a_file_of_which_much_is_elsewhere_is_given_up() {
        let basis = noise(4, 64 * LARGE);
        let mut target = basis.clone();
        (0..9).for_each(|number| target[number * 7 * LARGE] ^= 1);
        assert!(search(&basis, &target, 2).is_none());
        target[0] ^= 1;
        assert!(search(&basis, &target, 2).is_some());
        assert!(search(&basis, &[&[0; 9], &basis[..]].concat(), 2).is_none());
        assert!(search(&basis, &basis[..55 * LARGE], 2).is_none());
        assert!(search(&basis, &basis[..57 * LARGE], 2).is_some());
        let of_much_less = Narrowing::new(small_block_size(1 << 30), 1 << 30, 1 << 29, None);
        assert!(of_much_less.is_of_no_use(), "before anything was read");
    }

    #[test]
    fn block_sizes_divide_one_another_and_are_bounded() {
        for (bytes, basis_bytes, allowed) in [
            (512, 1 << 20, true),
            (512, 512 << 20, true),
            (512, (512 << 20) + 1, false),
            (16 << 10, 1 << 20, true),
            (32 << 10, 1 << 20, false),
            (768, 1 << 20, false),
            (256, 1 << 20, false),
            (0, 1 << 20, false),
            (u32::MAX, 1 << 20, false),
            (16 << 20, 4 << 40, true),
            (16 << 20, (4 << 40) + 1, false),
            (16 << 20, u64::MAX, false),
        ] {
            assert_eq!(block_size(bytes, basis_bytes).is_ok(), allowed, "{bytes} of {basis_bytes}");
        }
        for shift in 0..43 {
            let basis_bytes = 1 << shift;
            let small = small_block_size(basis_bytes);
            assert_eq!(block_size(small.bytes(), basis_bytes).ok(), Some(small), "of {basis_bytes}");
        }
    }

    #[test]
    fn what_lacks_is_said_in_bits() {
        let basis_bytes = 10 * LARGE as u64 + 5;
        let bytes: Vec<_> = lacking(&[0b1000_0001, 0b1111_1100], basis_bytes).collect();
        let at = |number: u64| number * LARGE as u64;
        assert_eq!(bytes, [0..at(1), at(7)..at(8), at(10)..basis_bytes]);
        assert_eq!(lacking(&[], basis_bytes).count(), 0);
    }

    proptest! {
        #[test]
        fn the_operations_make_the_file(
            basis_blocks in 1usize..40, rest in 0usize..LARGE, window in 1usize..5,
            changed in proptest::collection::vec(0usize..40 * LARGE, 0..4),
            moved in proptest::collection::vec((0usize..40 * LARGE, 0usize..3 * LARGE), 0..3),
            cut in 0usize..LARGE,
        ) {
            let basis = noise(6, basis_blocks * LARGE + rest);
            let mut target = basis.clone();
            for (from, len) in moved {
                let from = from.min(basis.len());
                target.extend_from_slice(&basis[from..(from + len).min(basis.len())]);
            }
            let end = target.len();
            changed.into_iter().filter(|&at| at < end).for_each(|at| target[at] ^= 1);
            target.truncate(target.len() - cut.min(target.len()));
            if let Some((ops, _)) = search(&basis, &target, window) {
                let size = small_block_size(basis.len() as u64).bytes() as usize;
                let mut made = Vec::new();
                for op in ops {
                    match op {
                        Op::Match { block, count } => {
                            let from = block as usize * size;
                            made.extend_from_slice(&basis[from..(from + count as usize * size).min(basis.len())]);
                        }
                        Op::Literal(range) => made.extend_from_slice(&target[range]),
                        Op::Pages { .. } => panic!("no pages are remembered"),
                    }
                }
                prop_assert!(made == target);
            }
        }
    }
}

//! The delta engine's source side: which parts of a file the destination already has.
//!
//! Most changed files here are databases: pages rewritten in place, and growth. So the matcher first
//! compares whole blocks at the place where the next block of the basis is expected, at the speed of
//! the (vectorised) signature; only what differs is searched byte by byte with the rolling hash. A
//! match found by rolling sets a new expectation, so that after an insertion the fast comparison goes
//! on at the new alignment. Rolling is paid for from a credit that its finds refill: a file that has
//! nothing in common with its basis goes at nearly whole-file speed.
//!
//! It holds no file and does no I/O: the caller feeds it windows of bytes and gets operations. The
//! signature may still be growing meanwhile. The operations always describe exactly the bytes given,
//! whatever the signature says; whether its claims are true is decided by the file's BLAKE3.

use crate::ProtocolError;
use crate::signature::{self, BlockSize, ENTRY_BYTES, WEAK_BYTES};
use std::ops::Range;

/// A piece of the target: from the basis, or literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// These blocks of the basis, in a row.
    Match {
        /// The first block.
        block: u64,
        /// How many.
        count: u32,
    },
    /// These bytes of the window.
    Literal(Range<usize>),
    /// These pages of the basis, in a row ([`crate::pages`]).
    Pages {
        /// The first page.
        page: u64,
        /// How many.
        count: u32,
    },
}

/// A basis's signature as far as it has arrived.
#[derive(Debug, PartialEq, Eq)]
pub struct Signature {
    entries: Vec<u8>,
    block_size: BlockSize,
    basis_bytes: u64,
}

impl Signature {
    /// The signature of a basis of `basis_bytes`, no block of it known yet.
    #[must_use]
    pub fn new(block_size: BlockSize, basis_bytes: u64) -> Signature {
        Signature { entries: Vec::new(), block_size, basis_bytes }
    }

    /// The same with an entry for every block, to be [put](Signature::put) in its place; until then it matches nothing.
    pub(crate) fn blank(block_size: BlockSize, basis_bytes: u64) -> Signature {
        let length = usize::try_from(block_size.signature_bytes(basis_bytes)).unwrap_or(0);
        Signature { entries: vec![0; length], block_size, basis_bytes }
    }

    /// These are the entries from this block on.
    pub(crate) fn put(&mut self, block: u64, entries: &[u8]) {
        let from = usize::try_from(block).unwrap_or(usize::MAX).saturating_mul(ENTRY_BYTES);
        if let Some(place) = self.entries.get_mut(from..from.saturating_add(entries.len())) {
            place.copy_from_slice(entries);
        }
    }

    /// Appends entries as they came over the wire.
    ///
    /// # Errors
    /// A part of an entry, or more entries than the basis has blocks.
    pub fn extend(&mut self, entries: &[u8]) -> Result<(), ProtocolError> {
        let unexpected = |why| Err(ProtocolError::Unexpected { what: "signature", why });
        if !entries.len().is_multiple_of(ENTRY_BYTES) {
            return unexpected("a part of an entry");
        }
        let total_bytes = (self.entries.len() + entries.len()) as u64;
        if total_bytes > self.block_size.signature_bytes(self.basis_bytes) {
            return unexpected("more blocks than the basis has");
        }
        self.entries.extend_from_slice(entries);
        Ok(())
    }

    /// Whether every block is known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.known_blocks() == self.block_size.blocks(self.basis_bytes)
    }

    /// How many bytes of the basis the known blocks cover.
    #[must_use]
    pub fn known_bytes(&self) -> u64 {
        self.known_blocks().saturating_mul(u64::from(self.block_size.bytes())).min(self.basis_bytes)
    }

    pub(crate) fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// Length of every block but the last, in bytes.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        self.block_size.bytes() as usize
    }

    fn known_blocks(&self) -> u64 {
        (self.entries.len() / ENTRY_BYTES) as u64
    }

    fn entry(&self, block: u64) -> Option<&[u8]> {
        let from = usize::try_from(block).ok()?.checked_mul(ENTRY_BYTES)?;
        self.entries.get(from..from + ENTRY_BYTES)
    }

    fn length_of(&self, block: u64) -> u64 {
        self.block_size.length_of(block, self.basis_bytes)
    }
}

/// Finds the parts of one file that are in its basis. See the module's documentation.
pub struct Matcher {
    signature: Signature,
    index: Option<WeakIndex>,
    /// The block that should come at the current position of the target.
    expected: u64,
    /// The current position of the target, in bytes.
    position: u64,
    /// For each kind of [`Search`], how many bytes it may still roll over.
    credits: [i64; 2],
    probes: u32,
}

/// Bytes that may be rolled over before the first find.
const CREDIT: i64 = 2 << 20;
/// What one block found by rolling adds, up to twice [`CREDIT`].
const FIND_CREDIT: i64 = 64 << 10;
/// Without credit, one region in this many is searched all the same.
const PROBE_EVERY: u32 = 16;
/// How much of a region such a probe searches, in bytes.
const PROBE_BYTES: usize = 64 << 10;

impl Matcher {
    /// A matcher at the start of the file.
    #[must_use]
    pub fn new(signature: Signature) -> Matcher {
        Matcher { signature, index: None, expected: 0, position: 0, credits: [CREDIT; 2], probes: 0 }
    }

    /// The signature, to extend it.
    pub fn signature_mut(&mut self) -> &mut Signature {
        &mut self.signature
    }

    /// The signature.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Decides over the first bytes of `data`, which continue where the last call stopped, and appends
    /// what they are to `ops`. Returns how many bytes that is: all of them if `last`, else all but less
    /// than a block.
    pub fn advance(&mut self, data: &[u8], last: bool, ops: &mut Vec<Op>) -> usize {
        let mut out = Ops::new(ops);
        loop {
            let left = &data[out.done..];
            let block_bytes = self.block_bytes();
            let decidable = if last { left.len() } else { left.len() - left.len() % block_bytes };
            if decidable == 0 {
                return out.done;
            }
            self.advance_aligned(data, out.done + decidable, &mut out);
        }
    }

    /// Looks up the blocks up to `end`; stops early where the alignment changes.
    fn advance_aligned(&mut self, data: &[u8], end: usize, out: &mut Ops<'_>) {
        let size = self.block_bytes();
        let start = out.done;
        let places = self.places(&data[start..end]);
        let at = |block: usize| (start + block * size).min(end);
        let mut next_expected = self.expected + places.len() as u64;
        let mut block = 0;
        while block < places.len() {
            let run = run_length(&places[block..]);
            let run_end = at(block + run);
            let is_rest = block + run == places.len();
            match places[block] {
                Some(first) => {
                    out.matched(first, run as u64, run_end);
                    if is_rest && run > 1 {
                        next_expected = first + run as u64;
                    }
                }
                None if is_rest => {
                    next_expected = self.realign(data, start, end, out).unwrap_or(next_expected);
                }
                None => {
                    self.roll(data, run_end, Search::Gap, out);
                    out.literal_to(run_end);
                }
            }
            block += run;
        }
        self.position += (out.done - start) as u64;
        self.expected = next_expected;
    }

    /// For each block of `data` (the last may be short), where it is in the basis: the expected block, or
    /// one that was elsewhere. A database moves its pages by whole blocks, and finding those costs no search.
    fn places(&mut self, data: &[u8]) -> Vec<Option<u64>> {
        let size = self.block_bytes();
        if self.signature.known_blocks() == 0 {
            return vec![None; data.len().div_ceil(size)];
        }
        let entries = signature::calculate(data, self.signature.block_size);
        let mut places = Vec::with_capacity(entries.len() / ENTRY_BYTES);
        for (i, entry) in entries.chunks_exact(ENTRY_BYTES).enumerate() {
            let expected = self.expected + i as u64;
            let len = size.min(data.len() - i * size) as u64;
            let is_expected =
                self.signature.length_of(expected) == len && self.signature.entry(expected) == Some(entry);
            places.push(if is_expected { Some(expected) } else { self.moved(entry, len) });
        }
        places
    }

    /// Where else a block stands in the basis.
    fn moved(&mut self, entry: &[u8], len: u64) -> Option<u64> {
        let index = self.index.get_or_insert_with(|| WeakIndex::new(&self.signature));
        index.update(&self.signature);
        index.block_of(&self.signature, entry, len)
    }

    /// Nothing from here to `end` is where it was expected: looks for where the file goes on instead
    /// and returns the block to expect there. Where nothing is found, the bytes are literal, and what
    /// follows is expected where it stands in the basis: files change in place more often than not.
    fn realign(&mut self, data: &[u8], start: usize, end: usize, out: &mut Ops<'_>) -> Option<u64> {
        if let Some(block) = self.roll(data, end, Search::First, out) {
            return Some(block + 1);
        }
        let size = self.block_bytes();
        let past_grid = (self.position + (end - start) as u64) % size as u64;
        let on_grid = end.checked_sub(past_grid as usize).filter(|&at| at > out.done);
        out.literal_to(on_grid.unwrap_or(end));
        on_grid.map(|at| (self.position + (at - start) as u64) / size as u64)
    }

    /// Searches `data[out.done..end]` byte by byte for blocks of the basis, with literals between what
    /// it finds. Returns the last block found.
    fn roll(&mut self, data: &[u8], end: usize, search: Search, out: &mut Ops<'_>) -> Option<u64> {
        let size = self.block_bytes();
        let end = self.affordable_end(end, search, out.done)?;
        let index = self.index.get_or_insert_with(|| WeakIndex::new(&self.signature));
        index.update(&self.signature);
        let credit = &mut self.credits[search as usize];
        let mut last_found = None;
        while out.done + size <= end {
            let rest = &data[out.done..end];
            let Some((at, block)) = index.find(&self.signature, rest, credit) else {
                break;
            };
            out.literal_to(out.done + at);
            out.matched(block, 1, out.done + size);
            *credit = (*credit + FIND_CREDIT).min(2 * CREDIT);
            last_found = Some(block);
            if search == Search::First {
                break;
            }
        }
        last_found
    }

    /// How far a search may go: all the way with credit, else now and then a probe.
    fn affordable_end(&mut self, end: usize, search: Search, from: usize) -> Option<usize> {
        if search == Search::Gap && end - from <= self.block_bytes() {
            // One block between two that stand where they stood: it was rewritten in place.
            return None;
        }
        if i64::try_from(end - from).is_ok_and(|cost| cost <= self.credits[search as usize]) {
            return Some(end);
        }
        self.probes += 1;
        if !self.probes.is_multiple_of(PROBE_EVERY) {
            return None;
        }
        Some(end.min(from + PROBE_BYTES))
    }

    fn block_bytes(&self) -> usize {
        self.signature.block_bytes()
    }
}

/// How many of the blocks at the front follow one another in the basis, or are not in it.
fn run_length(places: &[Option<u64>]) -> usize {
    let Some(first) = places[0] else {
        return places.iter().take_while(|place| place.is_none()).count();
    };
    (first..).zip(places).take_while(|&(block, place)| *place == Some(block)).count()
}

/// What a byte-by-byte search is for. Each has a credit of its own: a database whose changed pages are nowhere
/// else must not cost the search for where a file goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Search {
    /// A region between matches: every find saves a block.
    Gap,
    /// The rest of the window: the first find tells how the file goes on.
    First,
}

/// The operations so far; what lies before `done` is decided.
pub(crate) struct Ops<'a> {
    ops: &'a mut Vec<Op>,
    pub(crate) done: usize,
}

impl<'a> Ops<'a> {
    /// Operations over bytes of which nothing is decided yet.
    pub(crate) fn new(ops: &'a mut Vec<Op>) -> Ops<'a> {
        Ops { ops, done: 0 }
    }

    pub(crate) fn matched(&mut self, block: u64, blocks: u64, end: usize) {
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        match self.ops.last_mut() {
            Some(Op::Match { block: first, count }) if *first + u64::from(*count) == block => {
                *count += blocks;
            }
            _ => self.ops.push(Op::Match { block, count: blocks }),
        }
        self.done = end;
    }

    /// The page after those that were found last, if nothing came since.
    pub(crate) fn next_page(&self) -> Option<u64> {
        match self.ops.last() {
            Some(Op::Pages { page, count }) => Some(page + u64::from(*count)),
            _ => None,
        }
    }

    pub(crate) fn moved(&mut self, page: u64, end: usize) {
        match self.ops.last_mut() {
            Some(Op::Pages { page: first, count }) if *first + u64::from(*count) == page => *count += 1,
            _ => self.ops.push(Op::Pages { page, count: 1 }),
        }
        self.done = end;
    }

    pub(crate) fn literal_to(&mut self, end: usize) {
        if end > self.done {
            match self.ops.last_mut() {
                Some(Op::Literal(range)) if range.end == self.done => range.end = end,
                _ => self.ops.push(Op::Literal(self.done..end)),
            }
            self.done = end;
        }
    }
}

/// From weak hashes to blocks: a bit per hash to say no quickly, then chains of bounded length.
struct WeakIndex {
    bits: Vec<u64>,
    heads: Vec<u32>,
    next: Vec<u32>,
    shift: u32,
    indexed_blocks: usize,
}

const NONE: u32 = u32::MAX;
/// One hash in 64 of those that no block has gets past the bits; each that does costs a miss of the cache.
const BITS_PER_SLOT: usize = 32;
/// Blocks of one weak hash that are tried: more are decoys, or repetitions of the same content.
const CHAIN: usize = 8;

impl WeakIndex {
    fn new(signature: &Signature) -> WeakIndex {
        let blocks = signature.block_size.blocks(signature.basis_bytes) as usize;
        let slots = (blocks * 2).next_power_of_two().max(1024);
        WeakIndex {
            bits: vec![0; slots * BITS_PER_SLOT / 64],
            heads: vec![NONE; slots],
            next: Vec::with_capacity(blocks),
            shift: 32 - slots.trailing_zeros(),
            indexed_blocks: 0,
        }
    }

    fn slot(&self, weak: u32) -> usize {
        (weak.wrapping_mul(0x9E37_79B1) >> self.shift) as usize
    }

    fn bit(&self, weak: u32) -> (usize, u64) {
        let bit = (weak.wrapping_mul(0x9E37_79B1) >> (self.shift - BITS_PER_SLOT.ilog2())) as usize;
        (bit / 64, 1 << (bit % 64))
    }

    /// Takes in the blocks that became known since the last time.
    fn update(&mut self, signature: &Signature) {
        for entry in signature.entries[self.indexed_blocks * ENTRY_BYTES..].chunks_exact(ENTRY_BYTES) {
            let block = u32::try_from(self.indexed_blocks).unwrap_or(NONE);
            let weak = weak_of(entry);
            let slot = self.slot(weak);
            let mut length = 0;
            let mut at = self.heads[slot];
            let mut known = false;
            while at != NONE && length < CHAIN {
                known |= signature.entry(u64::from(at)) == Some(entry);
                at = self.next[at as usize];
                length += 1;
            }
            self.next.push(NONE);
            if !known && length < CHAIN {
                self.next[block as usize] = self.heads[slot];
                self.heads[slot] = block;
                let (word, bit) = self.bit(weak);
                self.bits[word] |= bit;
            }
            self.indexed_blocks += 1;
        }
    }

    /// The first place in `data` where a whole block of the basis stands; pays for the way from `credit`.
    fn find(&self, signature: &Signature, data: &[u8], credit: &mut i64) -> Option<(usize, u64)> {
        let size = signature.block_size.bytes() as usize;
        let mut rolling = Rolling::new(&data[..size]);
        let mut at = 0;
        loop {
            let weak = rolling.hash();
            let (word, bit) = self.bit(weak);
            if self.bits[word] & bit != 0
                && let Some(block) = self.confirm(signature, weak, &data[at..at + size], credit)
            {
                *credit -= (at + size) as i64;
                return Some((at, block));
            }
            let Some(&incoming) = data.get(at + size) else {
                *credit -= (at + size) as i64;
                return None;
            };
            rolling.rotate(size, data[at], incoming);
            at += 1;
        }
    }

    /// The block with this entry, of those known.
    fn block_of(&self, signature: &Signature, entry: &[u8], len: u64) -> Option<u64> {
        let weak = weak_of(entry);
        let (word, bit) = self.bit(weak);
        if self.bits[word] & bit == 0 {
            return None;
        }
        let mut at = self.heads[self.slot(weak)];
        while at != NONE {
            let block = u64::from(at);
            if signature.entry(block) == Some(entry) && signature.length_of(block) == len {
                return Some(block);
            }
            at = self.next[at as usize];
        }
        None
    }

    fn confirm(&self, signature: &Signature, weak: u32, data: &[u8], credit: &mut i64) -> Option<u64> {
        let mut at = self.heads[self.slot(weak)];
        let mut computed: Option<Vec<u8>> = None;
        while at != NONE {
            let block = u64::from(at);
            if let Some(entry) = signature.entry(block)
                && weak_of(entry) == weak
                && signature.length_of(block) == data.len() as u64
            {
                let ours = computed.get_or_insert_with(|| {
                    *credit -= data.len() as i64;
                    signature::calculate(data, signature.block_size)
                });
                if ours == entry {
                    return Some(block);
                }
            }
            at = self.next[at as usize];
        }
        None
    }
}

fn weak_of(entry: &[u8]) -> u32 {
    let bytes = entry.first_chunk::<WEAK_BYTES>().copied().unwrap_or_default();
    u32::from_be_bytes(bytes)
}

/// fast_rsync's weak hash, rolled one byte at a time.
///
/// # Source
/// Tridgell and Mackerras, "The rsync algorithm", 1996, with librsync's offset of 31 to each byte.
struct Rolling {
    sum: u16,
    weighted: u16,
}

const OFFSET: u16 = 31;

impl Rolling {
    fn new(window: &[u8]) -> Rolling {
        let (mut sum, mut weighted) = (0u16, 0u16);
        for &byte in window {
            sum = sum.wrapping_add(u16::from(byte) + OFFSET);
            weighted = weighted.wrapping_add(sum);
        }
        Rolling { sum, weighted }
    }

    #[inline]
    fn rotate(&mut self, size: usize, outgoing: u8, incoming: u8) {
        let (outgoing, incoming) = (u16::from(outgoing), u16::from(incoming));
        self.sum = self.sum.wrapping_add(incoming).wrapping_sub(outgoing);
        self.weighted =
            self.weighted.wrapping_add(self.sum).wrapping_sub((size as u16).wrapping_mul(outgoing + OFFSET));
    }

    #[inline]
    fn hash(&self) -> u32 {
        u32::from(self.sum) | u32::from(self.weighted) << 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect()
    }

    fn matcher(basis: &[u8], block_bytes: u32) -> Matcher {
        let size = BlockSize::new(block_bytes, basis.len() as u64).unwrap();
        let mut signature = Signature::new(size, basis.len() as u64);
        signature.extend(&signature::calculate(basis, size)).unwrap();
        Matcher::new(signature)
    }

    /// Runs the matcher over `target` in windows and rebuilds it; returns it with the literal bytes.
    fn rebuild(basis: &[u8], target: &[u8], block_bytes: u32, window: usize) -> (Vec<u8>, usize) {
        let mut matcher = matcher(basis, block_bytes);
        let (mut built, mut literal_bytes, mut from) = (Vec::new(), 0, 0);
        loop {
            let end = (from + window).min(target.len());
            let data = &target[from..end];
            let last = end == target.len();
            let mut ops = Vec::new();
            let used = matcher.advance(data, last, &mut ops);
            for op in ops {
                match op {
                    Op::Literal(range) => {
                        literal_bytes += range.len();
                        built.extend_from_slice(&data[range]);
                    }
                    Op::Match { block, count } => {
                        let at = block as usize * block_bytes as usize;
                        let end = (at + count as usize * block_bytes as usize).min(basis.len());
                        built.extend_from_slice(&basis[at..end]);
                    }
                    Op::Pages { .. } => panic!("a search finds blocks"),
                }
            }
            from += used;
            if last {
                return (built, literal_bytes);
            }
            assert!(used > 0 || window < block_bytes as usize);
        }
    }

    #[test]
    fn the_rolling_hash_is_that_of_fast_rsync() {
        let data = noise(1, 3000);
        let size = BlockSize::new(1000, 3000).unwrap();
        let mut rolling = Rolling::new(&data[..1000]);
        for at in 0..2000 {
            let expected = weak_of(&signature::calculate(&data[at..at + 1000], size));
            assert_eq!(rolling.hash(), expected, "at {at}");
            rolling.rotate(1000, data[at], data[at + 1000]);
        }
    }

    #[test]
    fn literal_bytes_stay_near_what_changed() {
        let basis = noise(2, 3 << 20);
        let mut paged = basis.clone();
        for page in [0, 7, 8, 300, 767] {
            paged[page * 4096..][..4096].copy_from_slice(&noise(page as u64 + 9, 4096));
        }
        let inserted = [&noise(3, 37)[..], &basis].concat();
        let cut = [&basis[..1_000_001], &basis[1_300_000..]].concat();
        let grown = [&basis[..], &noise(4, 100_000)].concat();
        let moved = [&basis[2 << 20..], &basis[..2 << 20]].concat();
        for (what, target, bound) in [
            ("equal", basis.clone(), 0),
            ("five pages", paged, 5 * 4096),
            ("insertion at the front", inserted, 37 + 2 * 4096),
            ("a cut", cut, 2 * 4096),
            ("growth", grown, 100_000),
            ("a swap of halves", moved, 2 * 4096),
            ("empty", Vec::new(), 0),
        ] {
            let (built, literal_bytes) = rebuild(&basis, &target, 4096, 1 << 20);
            assert!(built == target, "{what}");
            assert!(literal_bytes <= bound, "{what}: {literal_bytes} literal bytes");
        }
    }

    #[test]
    fn in_place_changes_after_much_noise_still_match_in_place() {
        let basis = noise(5, 32 << 20);
        let mut target = basis.clone();
        let changed = 20 << 20;
        target[1 << 20..][..changed].copy_from_slice(&noise(6, changed));
        let (built, literal_bytes) = rebuild(&basis, &target, 4096, 1 << 20);
        assert!(built == target);
        assert_eq!(literal_bytes, changed);
    }

    #[test]
    fn an_insertion_into_a_changed_file_is_found_again_after_the_credit_is_gone() {
        let basis = noise(7, 64 << 20);
        let target = [&noise(8, 10 << 20)[..], &basis].concat();
        let (built, literal_bytes) = rebuild(&basis, &target, 4096, 1 << 20);
        assert!(built == target);
        assert!(literal_bytes < 30 << 20, "{literal_bytes}");
    }

    #[test]
    fn decoys_with_the_same_weak_hash_cost_bounded_time_and_no_content() {
        // Swapping equal amounts between bytes two apart keeps both sums of the weak hash.
        let block = noise(9, 4096);
        let decoys: Vec<u8> = (0..2000usize)
            .flat_map(|i| {
                let mut decoy = block.clone();
                let at = i * 2 % 4000;
                decoy[at] = decoy[at].wrapping_add(1);
                decoy[at + 1] = decoy[at + 1].wrapping_sub(2);
                decoy[at + 2] = decoy[at + 2].wrapping_add(1);
                decoy
            })
            .collect();
        let target = [&[1u8][..], &block.repeat(2000)].concat();
        let started = std::time::Instant::now();
        let (built, _) = rebuild(&decoys, &target, 4096, 1 << 20);
        assert!(built == target);
        assert!(started.elapsed().as_secs() < 20);
    }

    #[test]
    fn a_signature_may_not_have_more_blocks_than_its_basis() {
        let size = BlockSize::new(4096, 10_000).unwrap();
        let mut signature = Signature::new(size, 10_000);
        assert!(signature.extend(&[0; ENTRY_BYTES - 1]).is_err());
        assert!(signature.extend(&[0; 4 * ENTRY_BYTES]).is_err());
        assert!(signature.extend(&[0; 3 * ENTRY_BYTES]).is_ok() && signature.is_complete());
        assert!(signature.extend(&[0; ENTRY_BYTES]).is_err());
    }

    #[derive(Debug, Clone)]
    enum Edit {
        Insert(usize, u64, usize),
        Remove(usize, usize),
        Rewrite(usize, u64, usize),
        Repeat(usize, usize),
    }

    fn edits() -> impl Strategy<Value = Vec<Edit>> {
        let at = 0usize..200_000;
        let len = 1usize..20_000;
        proptest::collection::vec(
            prop_oneof![
                (at.clone(), any::<u64>(), len.clone()).prop_map(|(a, s, l)| Edit::Insert(a, s, l)),
                (at.clone(), len.clone()).prop_map(|(a, l)| Edit::Remove(a, l)),
                (at.clone(), any::<u64>(), len.clone()).prop_map(|(a, s, l)| Edit::Rewrite(a, s, l)),
                (at, len).prop_map(|(a, l)| Edit::Repeat(a, l)),
            ],
            0..8,
        )
    }

    fn edit(mut data: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
        for edit in edits {
            let clamp = |at: usize, len: usize| {
                let at = at.min(data.len());
                at..(at + len).min(data.len())
            };
            match *edit {
                Edit::Insert(at, seed, len) => {
                    data.splice(clamp(at, 0), noise(seed, len));
                }
                Edit::Remove(at, len) => {
                    data.drain(clamp(at, len));
                }
                Edit::Rewrite(at, seed, len) => {
                    let range = clamp(at, len);
                    let new = noise(seed, range.len());
                    data[range].copy_from_slice(&new);
                }
                Edit::Repeat(at, len) => {
                    let piece = data[clamp(at, len)].to_vec();
                    data.extend_from_slice(&piece);
                }
            }
        }
        data
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 96, rng_seed: proptest::test_runner::RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn operations_always_rebuild_the_target_as_fast_rsync_s_do(
            seed: u64, len in 0usize..200_000, changes in edits(),
            block_bytes in prop_oneof![Just(512u32), Just(700), Just(4096)],
            window in prop_oneof![Just(8192usize), Just(50_000), Just(1 << 20)],
        ) {
            let basis = noise(seed, len);
            let target = edit(basis.clone(), &changes);
            let (built, _) = rebuild(&basis, &target, block_bytes, window);
            prop_assert!(built == target);

            let options = fast_rsync::SignatureOptions { block_size: block_bytes, crypto_hash_size: 8 };
            let theirs = fast_rsync::Signature::calculate(&basis, options);
            let (mut delta, mut reference) = (Vec::new(), Vec::new());
            fast_rsync::diff(&theirs.index(), &target, &mut delta).unwrap();
            fast_rsync::apply(&basis, &delta, &mut reference).unwrap();
            prop_assert!(reference == built);
        }
    }
}

//! Files with holes (`--sparse`): a hash and a comparison that cost what the data costs, whatever the length.
//!
//! BLAKE3 of a terabyte of zeros takes minutes, at both ends. So a file that is sent with its holes has a hash of its
//! own kind, the *sparse* one, which zeros do not enter: BLAKE3, keyed by [`CONTEXT`], of a record for each aligned group
//! of [`GROUP_BYTES`] that is not all zeros (its number, 8 bytes, and the BLAKE3 of its bytes, 32), and of the file's
//! length (8 bytes) at the end; numbers little endian. Records have one length and the end another, so two contents with
//! one hash are two contents with one BLAKE3. Where holes are does not enter: a hole and written zeros are the same content.
//! The context keeps both kinds apart: a sparse hash is never some file's plain one.
//!
//! The comparison with a basis is block by block at the same place, as in [`crate::subtree`], by the blocks of the basis
//! that are not zeros: [`Blocks`]. Content that has moved is not found.

use crate::signature::BlockSize;
use crate::{ContentHash, ProtocolError, limits};
use blake3::Hasher;
use std::collections::VecDeque;

/// Keeps the sparse hash apart from every other use of BLAKE3.
pub const CONTEXT: &str = "sync-agent 2026-11 hash of a file's content without its zeros";
/// Of a group that is not all zeros every byte is hashed.
pub const GROUP_BYTES: u32 = 64 << 10;
/// Bytes of a block's number and of the head of its hash on the wire.
pub const ENTRY_BYTES: usize = 8 + HEAD_BYTES;
/// Bytes of a block's hash that travel: they only find. The hash of the whole file decides.
pub const HEAD_BYTES: usize = 16;

/// The head of a block's hash.
pub type Head = [u8; HEAD_BYTES];

/// Whether all bytes are zeros. Looked at by pieces that vector code takes at once; most content says no at the first.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|piece| piece.iter().fold(0, |all, &byte| all | byte) == 0)
}

/// Makes the sparse hash of a file, from its start on.
#[derive(Debug)]
pub struct SparseHasher {
    records: Hasher,
    position: u64,
    /// The group at hand, from its first byte that is not zero on, with the zeros before that.
    group: Option<Box<Hasher>>,
}

impl Default for SparseHasher {
    fn default() -> SparseHasher {
        SparseHasher { records: Hasher::new_derive_key(CONTEXT), position: 0, group: None }
    }
}

impl SparseHasher {
    /// The next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(self.group_left()));
            if self.group.is_some() || !is_zero(now) {
                self.open_group().update(now);
            }
            self.pass(now.len());
            bytes = rest;
        }
    }

    /// The next bytes are this many zeros.
    pub fn zeros(&mut self, mut bytes: u64) {
        while bytes > 0 {
            let left = self.group_left();
            let is_between_groups = self.group.is_none() && left == GROUP_BYTES as usize;
            if is_between_groups && bytes >= u64::from(GROUP_BYTES) {
                let whole = bytes - bytes % u64::from(GROUP_BYTES);
                self.position += whole;
                bytes -= whole;
                continue;
            }
            let now = usize::try_from(bytes).unwrap_or(left).min(left);
            if let Some(group) = &mut self.group {
                group.update(&ZEROS[..now]);
            }
            self.pass(now);
            bytes -= now as u64;
        }
    }

    /// The file's hash.
    #[must_use]
    pub fn finish(mut self) -> ContentHash {
        self.close_group();
        self.records.update(&self.position.to_le_bytes());
        self.records.finalize().into()
    }

    fn group_left(&self) -> usize {
        (GROUP_BYTES - (self.position % u64::from(GROUP_BYTES)) as u32) as usize
    }

    fn open_group(&mut self) -> &mut Hasher {
        let passed = GROUP_BYTES as usize - self.group_left();
        self.group.get_or_insert_with(|| {
            let mut group = Box::new(Hasher::new());
            group.update(&ZEROS[..passed]);
            group
        })
    }

    /// Goes on within the group, or to the next one.
    fn pass(&mut self, bytes: usize) {
        if bytes == self.group_left() {
            self.close_group();
        }
        self.position += bytes as u64;
    }

    fn close_group(&mut self) {
        if let Some(group) = self.group.take() {
            let number = self.position / u64::from(GROUP_BYTES);
            self.records.update(&number.to_le_bytes());
            self.records.update(group.finalize().as_bytes());
        }
    }
}

static ZEROS: [u8; GROUP_BYTES as usize] = [0; GROUP_BYTES as usize];

/// Checks the size of the blocks that a file is compared by.
///
/// # Errors
/// No power of two, or out of its bounds.
pub fn block_size(bytes: u32) -> Result<BlockSize, ProtocolError> {
    if bytes.is_power_of_two() && (GROUP_BYTES..=BlockSize::LARGEST).contains(&bytes) {
        Ok(BlockSize::trusted(bytes))
    } else {
        Err(ProtocolError::Unexpected { what: "request", why: "its block size is out of bounds" })
    }
}

/// The block sizes that there are, ascending.
pub fn block_sizes() -> impl Iterator<Item = BlockSize> {
    (0..)
        .map(|doublings| GROUP_BYTES << doublings)
        .take_while(|&bytes| bytes <= BlockSize::LARGEST)
        .map(BlockSize::trusted)
}

/// What a block of a basis is found by.
#[must_use]
pub fn head(block: &[u8]) -> Head {
    let mut head = Head::default();
    head.copy_from_slice(&blake3::hash(block).as_bytes()[..HEAD_BYTES]);
    head
}

/// What travels of a block.
#[must_use]
pub fn entry(number: u64, head: &Head) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    let (first, second) = entry.split_at_mut(8);
    first.copy_from_slice(&number.to_le_bytes());
    second.copy_from_slice(head);
    entry
}

/// The blocks of a basis that are not zeros, as they come in. They are asked for in order, each once.
#[derive(Debug)]
pub struct Blocks {
    block_size: BlockSize,
    basis_bytes: u64,
    /// Those that were not asked for yet.
    arrived: VecDeque<(u64, Head)>,
    last: Option<u64>,
    /// How many are still to come.
    left: u32,
}

impl Blocks {
    /// Those of a basis of `basis_bytes`, of which there are `count`.
    #[must_use]
    pub fn new(block_size: BlockSize, basis_bytes: u64, count: u32) -> Blocks {
        Blocks { block_size, basis_bytes, arrived: VecDeque::new(), last: None, left: count }
    }

    /// Their size.
    #[must_use]
    pub fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// Appends entries as they came over the wire.
    ///
    /// # Errors
    /// A part of an entry, more than were announced, or numbers that do not ascend.
    pub fn extend(&mut self, entries: &[u8]) -> Result<(), ProtocolError> {
        let wrong = |why| Err(ProtocolError::Unexpected { what: "signature", why });
        if !entries.len().is_multiple_of(ENTRY_BYTES) {
            return wrong("not an entry for each block");
        }
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            let Some((number, rest)) = entry.split_first_chunk() else { return wrong("not an entry") };
            let Some(head) = rest.first_chunk() else { return wrong("not an entry") };
            let number = u64::from_le_bytes(*number);
            let Some(left) = self.left.checked_sub(1) else { return wrong("more blocks than announced") };
            if self.last.is_some_and(|last| last >= number) {
                return wrong("its blocks are not in order");
            }
            (self.left, self.last) = (left, Some(number));
            self.arrived.push_back((number, *head));
        }
        Ok(())
    }

    /// Whether what there is of this block has arrived.
    #[must_use]
    pub fn is_known(&self, number: u64) -> bool {
        self.left == 0 || self.last.is_some_and(|last| last >= number)
    }

    /// Whether the basis has this block at this place, `number` being behind those asked for before.
    pub fn stands(&mut self, number: u64, block: &[u8]) -> bool {
        while self.arrived.front().is_some_and(|(first, _)| *first < number) {
            self.arrived.pop_front();
        }
        let is_as_long = self.block_size.length_of(number, self.basis_bytes) == block.len() as u64;
        is_as_long
            && self.arrived.front().is_some_and(|(first, known)| *first == number && *known == head(block))
    }
}

/// Whether so many blocks of a basis are within the limits.
pub(crate) fn is_within_limits(count: u32) -> bool {
    u64::from(count) <= limits::VALUES
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GROUP: usize = GROUP_BYTES as usize;

    /// The definition, on a content that is there as a whole.
    fn defined(content: &[u8]) -> ContentHash {
        let mut hasher = Hasher::new_derive_key(CONTEXT);
        for (number, group) in (0u64..).zip(content.chunks(GROUP)) {
            if group.iter().any(|&byte| byte != 0) {
                hasher.update(&number.to_le_bytes());
                hasher.update(blake3::hash(group).as_bytes());
            }
        }
        hasher.update(&(content.len() as u64).to_le_bytes());
        hasher.finalize().into()
    }

    fn of_zeros(bytes: u64) -> ContentHash {
        let mut hasher = SparseHasher::default();
        hasher.zeros(bytes);
        hasher.finish()
    }

    #[test]
    fn zeros_cost_nothing_and_their_number_counts() {
        assert_eq!(of_zeros(5 * GROUP as u64 + 7), defined(&vec![0; 5 * GROUP + 7]));
        assert_ne!(of_zeros(1 << 40), of_zeros((1 << 40) + 1));
        assert_ne!(of_zeros(1 << 62), of_zeros(u64::MAX));
        assert_ne!(of_zeros(0), ContentHash::from(blake3::hash(b"")));
    }

    #[test]
    fn blocks_come_whole_in_order_and_no_more_than_announced() {
        let size = block_size(GROUP_BYTES).unwrap();
        let one = |number| entry(number, &head(b"x"));
        for (count, entries, allowed) in [
            (2, [one(1), one(2)].concat(), true),
            (2, [one(2), one(1)].concat(), false),
            (2, [one(1), one(1)].concat(), false),
            (1, [one(1), one(2)].concat(), false),
            (2, one(1)[1..].to_vec(), false),
        ] {
            let mut blocks = Blocks::new(size, 1 << 40, count);
            assert_eq!(blocks.extend(&entries).is_ok(), allowed, "{count} {entries:?}");
        }
        let mut blocks = Blocks::new(size, 1 << 40, 2);
        blocks.extend(&one(3)).unwrap();
        assert!(blocks.is_known(3) && !blocks.is_known(4));
        blocks.extend(&one(1 << 30)).unwrap();
        assert!(blocks.is_known(u64::MAX));
    }

    #[test]
    fn block_sizes_double_from_a_group_to_the_largest() {
        let sizes: Vec<u32> = block_sizes().map(BlockSize::bytes).collect();
        assert_eq!((sizes[0], sizes[sizes.len() - 1], sizes.len()), (64 << 10, 16 << 20, 9));
        assert!(sizes.iter().all(|&bytes| block_size(bytes).is_ok()));
        for wrong in [0, 1, 4 << 10, 96 << 10, 32 << 20] {
            assert!(block_size(wrong).is_err(), "{wrong}");
        }
    }

    #[derive(Debug, Clone)]
    enum Part {
        Bytes(u8, usize),
        Zeros(usize),
    }

    fn parts() -> impl Strategy<Value = Vec<Part>> {
        let length = prop_oneof![1usize..2000, Just(GROUP), Just(4096), 1usize..3 * GROUP];
        let part = (prop_oneof![Just(0u8), 1u8..], length, any::<bool>()).prop_map(|(byte, length, told)| {
            if told { Part::Zeros(length) } else { Part::Bytes(byte, length) }
        });
        proptest::collection::vec(part, 0..12)
    }

    proptest! {
        #[test]
        fn the_hash_is_that_of_the_content_however_it_comes(parts in parts()) {
            let mut content = Vec::new();
            let mut hasher = SparseHasher::default();
            for part in parts {
                match part {
                    Part::Bytes(byte, length) => {
                        content.resize(content.len() + length, byte);
                        hasher.update(&vec![byte; length]);
                    }
                    Part::Zeros(length) => {
                        content.resize(content.len() + length, 0);
                        hasher.zeros(length as u64);
                    }
                }
            }
            prop_assert_eq!(hasher.finish(), defined(&content));
        }

        #[test]
        fn a_block_stands_where_the_basis_has_the_same_bytes(
            basis in proptest::collection::vec(0u8..3, 0..20), file in proptest::collection::vec(0u8..3, 0..20),
            basis_rest in 0usize..3, file_rest in 0usize..3,
        ) {
            let size = block_size(GROUP_BYTES).unwrap();
            let content = |groups: &[u8], rest: usize| {
                let mut content: Vec<u8> = groups.iter().flat_map(|&byte| vec![byte; GROUP]).collect();
                content.resize(content.len() + rest, 1);
                content
            };
            let (basis, file) = (content(&basis, basis_rest), content(&file, file_rest));
            let is_data = |group: &&(u64, &[u8])| !is_zero(group.1);
            let of_basis: Vec<(u64, &[u8])> = (0..).zip(basis.chunks(GROUP)).collect();
            let entries: Vec<u8> =
                of_basis.iter().filter(is_data).flat_map(|(number, group)| entry(*number, &head(group))).collect();
            let mut blocks = Blocks::new(size, basis.len() as u64, (entries.len() / ENTRY_BYTES) as u32);
            blocks.extend(&entries).unwrap();
            for (number, group) in (0u64..).zip(file.chunks(GROUP)).filter(|(_, group)| !is_zero(group)) {
                let same = basis.chunks(GROUP).nth(number as usize) == Some(group);
                prop_assert_eq!(blocks.stands(number, group), same);
            }
        }
    }
}

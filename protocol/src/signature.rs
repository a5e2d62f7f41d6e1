//! Signatures: for each block of a basis a weak hash that rolls and a strong one that finds.
//!
//! The format is fast_rsync's, entry by entry without its header, so that the signatures of
//! consecutive windows concatenate to the signature of the whole. Both hashes only find; the
//! whole file's BLAKE3 decides (see the agent's receiver).

use crate::{ProtocolError, limits};

/// Bytes of the weak hash in an entry, big endian.
pub const WEAK_BYTES: usize = 4;
/// Bytes of MD4 kept in an entry: with 2^20 blocks a false find is a matter of 2^-44 a file, and
/// costs a second transfer, never content.
pub const STRONG_BYTES: usize = 8;
/// Bytes of one block's entry.
pub const ENTRY_BYTES: usize = WEAK_BYTES + STRONG_BYTES;

/// A block's length: at least 512 bytes, at most 16 MiB, with few enough blocks for the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSize(u32);

impl BlockSize {
    pub(crate) const SMALLEST: u32 = 512;
    pub(crate) const LARGEST: u32 = 16 << 20;
    /// A database page; changes come in these.
    const PAGE: u32 = 4096;

    /// Checks a block size for a basis of `basis_bytes`.
    ///
    /// # Errors
    /// Out of bounds, or so small that the signature would pass [`limits::SIGNATURE_BYTES`].
    pub fn new(bytes: u32, basis_bytes: u64) -> Result<BlockSize, ProtocolError> {
        let size = BlockSize(bytes);
        let in_bounds = (Self::SMALLEST..=Self::LARGEST).contains(&bytes);
        if in_bounds && size.signature_bytes(basis_bytes) <= limits::SIGNATURE_BYTES {
            Ok(size)
        } else {
            Err(ProtocolError::Unexpected { what: "request", why: "its block size is out of bounds" })
        }
    }

    /// The block size for a basis: a page, doubled until the signature is within its limit.
    #[must_use]
    pub fn for_basis(basis_bytes: u64) -> BlockSize {
        Self::at_least(Self::PAGE, basis_bytes)
    }

    /// The first of `bytes` (forced into bounds), twice that, and so on, with which the signature is
    /// within its limit.
    #[must_use]
    pub fn at_least(bytes: u32, basis_bytes: u64) -> BlockSize {
        let mut size = BlockSize(bytes.clamp(Self::SMALLEST, Self::LARGEST));
        while size.signature_bytes(basis_bytes) > limits::SIGNATURE_BYTES && size.0 < Self::LARGEST {
            size.0 = (size.0 * 2).min(Self::LARGEST);
        }
        size
    }

    /// The length in bytes.
    #[must_use]
    pub fn bytes(self) -> u32 {
        self.0
    }

    /// How many blocks `len_bytes` have; the last may be short.
    #[must_use]
    pub fn blocks(self, len_bytes: u64) -> u64 {
        len_bytes.div_ceil(u64::from(self.0))
    }

    /// Length in bytes of a block of a file of `len_bytes`; only the last one is shorter, none is beyond it.
    #[must_use]
    pub fn length_of(self, block: u64, len_bytes: u64) -> u64 {
        let size = u64::from(self.0);
        len_bytes.saturating_sub(block.saturating_mul(size)).min(size)
    }

    /// A block size that was checked by another rule.
    pub(crate) fn trusted(bytes: u32) -> BlockSize {
        BlockSize(bytes)
    }

    /// Length of the signature of `len_bytes`.
    #[must_use]
    pub fn signature_bytes(self, len_bytes: u64) -> u64 {
        self.blocks(len_bytes).saturating_mul(ENTRY_BYTES as u64)
    }
}

/// The entries of `data`'s blocks, one after another; only the last block may be short.
#[must_use]
pub fn calculate(data: &[u8], block_size: BlockSize) -> Vec<u8> {
    const FAST_RSYNC_HEADER_BYTES: usize = 12;
    let options =
        fast_rsync::SignatureOptions { block_size: block_size.0, crypto_hash_size: STRONG_BYTES as u32 };
    let mut entries = fast_rsync::Signature::calculate(data, options).into_serialized();
    entries.drain(..FAST_RSYNC_HEADER_BYTES);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_of_windows_concatenate_to_that_of_the_whole() {
        let data: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        let size = BlockSize::new(1024, data.len() as u64).unwrap();
        let windows: Vec<u8> = data.chunks(32 << 10).flat_map(|window| calculate(window, size)).collect();
        assert_eq!(windows, calculate(&data, size));
        assert_eq!(windows.len() as u64, size.signature_bytes(data.len() as u64));
    }

    #[test]
    fn block_sizes_are_bounded_by_the_number_of_blocks() {
        assert_eq!(BlockSize::for_basis(1).bytes(), 4096);
        assert_eq!(BlockSize::for_basis(4 << 30).bytes(), 4096);
        assert_eq!(BlockSize::for_basis(20 << 30).bytes(), 32 << 10);
        assert!(BlockSize::new(0, 1).is_err());
        assert!(BlockSize::new(512, 20 << 30).is_err());
        assert!(BlockSize::new(u32::MAX, 1).is_err());
    }
}

//! The byte stream cut into frames: a fixed header, a bounded body, compression frame by frame.
//!
//! A [`Frame`] owns its bytes with the header in front, so that it is written by one call and handed
//! between threads without a copy. Compression is per frame: any frame can be opened alone, by any
//! thread, and its declared length bounds what opening it may allocate.

use crate::{ProtocolError, limits};
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// What each end sends first: no text that a login shell would print.
pub const PREAMBLE: [u8; 8] = *b"\0migsync";
/// What a client sends first on a further channel of a session that has begun: not a session of its own.
pub const JOIN_PREAMBLE: [u8; 8] = *b"\0migjoin";
/// Bytes before a frame's body: length (4, little endian), kind, flags.
pub const HEADER_BYTES: usize = 6;

const FLAG_ZSTD: u8 = 1;
/// Bytes in front of a compressed body: its length when opened (4, little endian).
const OPENED_BYTES: usize = 4;
/// A body shorter than this is not worth a compressor's call.
const WORTH_COMPRESSING_BYTES: usize = 512;

/// One frame, header and body. The memory of a large one is used again for the next.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame(Vec<u8>);

/// Memory of large frames that are gone. One thread makes them, another drops them: left to the allocator, their
/// pages are given back and fetched again for each.
static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
/// How many are kept: about what is under way between two ends.
const SPARES: usize = 16;
/// Memory of less than this is left to the allocator.
const LARGE_BYTES: usize = limits::DATA_BYTES / 2;

/// Empty, with room for `capacity_bytes`; what it held before may still be behind its end.
fn spare(capacity_bytes: usize) -> Vec<u8> {
    let fits = |bytes: &Vec<u8>| bytes.capacity() >= capacity_bytes;
    let kept = (capacity_bytes >= LARGE_BYTES)
        .then(|| {
            let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
            let at = spare.iter().rposition(fits)?;
            Some(spare.swap_remove(at))
        })
        .flatten();
    kept.unwrap_or_else(|| Vec::with_capacity(capacity_bytes))
}

/// Keeps the memory for the next frame.
pub(crate) fn recycle(bytes: Vec<u8>) {
    if (LARGE_BYTES..=limits::DATA_BYTES * 2).contains(&bytes.capacity()) {
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARES {
            spare.push(bytes);
        }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        recycle(std::mem::take(&mut self.0));
    }
}

/// A header that was checked: what a reader needs to read the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header([u8; HEADER_BYTES]);

impl Header {
    /// Checks the first bytes of a frame.
    ///
    /// # Errors
    /// A length past [`limits::FRAME_BYTES`], or unknown flags.
    pub fn new(bytes: [u8; HEADER_BYTES]) -> Result<Header, ProtocolError> {
        let header = Header(bytes);
        if header.body_bytes() > limits::FRAME_BYTES {
            return Err(ProtocolError::Frame("its declared length is beyond the limit"));
        }
        if bytes[5] & !FLAG_ZSTD != 0 {
            return Err(ProtocolError::Frame("unknown flags"));
        }
        Ok(header)
    }

    /// Length of the body that follows, in bytes.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]) as usize
    }

    /// A frame with this header, for a reader to fill in all of its body.
    #[must_use]
    pub fn frame(self) -> Frame {
        let length = HEADER_BYTES + self.body_bytes();
        let mut bytes = spare(length);
        // Only what was never used is cleared.
        bytes.resize(length, 0);
        bytes[..HEADER_BYTES].copy_from_slice(&self.0);
        Frame(bytes)
    }
}

impl Frame {
    /// Starts a frame: the vector has room for the header, the caller appends the body.
    pub(crate) fn begin(capacity_bytes: usize) -> Vec<u8> {
        let mut bytes = spare(HEADER_BYTES + capacity_bytes);
        bytes.clear();
        bytes.resize(HEADER_BYTES, 0);
        bytes
    }

    /// Completes what [`Frame::begin`] started.
    pub(crate) fn finish(mut bytes: Vec<u8>, kind: u8) -> Frame {
        let body_bytes = bytes.len() - HEADER_BYTES;
        debug_assert!(body_bytes <= limits::FRAME_BYTES, "a frame of {body_bytes} bytes, kind {kind}");
        let length = u32::try_from(body_bytes).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes[4] = kind;
        bytes[5] = 0;
        Frame(bytes)
    }

    pub(crate) fn kind(&self) -> u8 {
        self.0[4]
    }

    /// The whole frame as it goes over the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The body alone.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.0[HEADER_BYTES..]
    }

    /// The body, to be read into.
    pub fn body_mut(&mut self) -> &mut [u8] {
        &mut self.0[HEADER_BYTES..]
    }

    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    fn is_compressed(&self) -> bool {
        self.0[5] & FLAG_ZSTD != 0
    }

    /// The frame as it was before [`Compressor::compress`].
    ///
    /// # Errors
    /// The compressed bytes are damaged, or do not open to exactly the length they declare.
    pub fn open(self) -> Result<Frame, ProtocolError> {
        if !self.is_compressed() {
            return Ok(self);
        }
        let (declared, packed) = self
            .body()
            .split_first_chunk::<OPENED_BYTES>()
            .ok_or(ProtocolError::Frame("a compressed frame without its length"))?;
        let opened_bytes = u32::from_le_bytes(*declared) as usize;
        if opened_bytes > limits::FRAME_BYTES {
            return Err(ProtocolError::Frame("a compressed frame opens beyond the limit"));
        }
        let mut bytes = spare(HEADER_BYTES + opened_bytes);
        bytes.resize(HEADER_BYTES + opened_bytes, 0);
        match zstd::bulk::decompress_to_buffer(packed, &mut bytes[HEADER_BYTES..]) {
            Ok(written) if written == opened_bytes => Ok(Frame::finish(bytes, self.kind())),
            _ => Err(ProtocolError::Frame("a compressed frame does not open to its declared length")),
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame(kind {}, {} bytes)", self.kind(), self.body().len())
    }
}

/// Compresses frames where it pays: after frames that would not shrink it lets some pass untried,
/// so that data like images costs next to nothing.
pub struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    packed: Vec<u8>,
    untried_left: u32,
    misses: u32,
}

impl Compressor {
    /// A compressor at zstd's `level`.
    #[must_use]
    pub fn new(level: u8) -> Option<Compressor> {
        let zstd = zstd::bulk::Compressor::new(i32::from(level)).ok()?;
        Some(Compressor { zstd, packed: Vec::new(), untried_left: 0, misses: 0 })
    }

    /// `frame`, compressed if that makes it smaller by a sixteenth at least.
    #[must_use]
    pub fn compress(&mut self, frame: Frame) -> Frame {
        let body = frame.body();
        if body.len() < WORTH_COMPRESSING_BYTES || frame.is_compressed() {
            return frame;
        }
        if self.untried_left > 0 {
            self.untried_left -= 1;
            return frame;
        }
        let worth = body.len() - body.len() / 16;
        self.packed.resize(worth, 0);
        match self.zstd.compress_to_buffer(body, &mut self.packed[..]) {
            Ok(packed_bytes) => {
                self.misses = 0;
                let mut bytes = Frame::begin(OPENED_BYTES + packed_bytes);
                let opened = u32::try_from(body.len()).unwrap_or(u32::MAX);
                bytes.extend_from_slice(&opened.to_le_bytes());
                bytes.extend_from_slice(&self.packed[..packed_bytes]);
                let mut packed = Frame::finish(bytes, frame.kind());
                packed.0[5] |= FLAG_ZSTD;
                packed
            }
            Err(_) => {
                self.misses = (self.misses + 1).min(5);
                self.untried_left = (1 << self.misses) - 1;
                frame
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: &[u8]) -> Frame {
        let mut bytes = Frame::begin(body.len());
        bytes.extend_from_slice(body);
        Frame::finish(bytes, 7)
    }

    #[test]
    fn compression_has_an_inverse_and_leaves_noise_alone() {
        let mut compressor = Compressor::new(3).unwrap();
        let text = b"the same words again ".repeat(1000);
        let packed = compressor.compress(frame(&text));
        assert!(packed.as_bytes().len() < text.len() / 10);
        assert_eq!(packed.open().unwrap(), frame(&text));
        let mut state = 1u64;
        let noise: Vec<u8> = (0..5000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        assert_eq!(compressor.compress(frame(&noise)), frame(&noise));
    }

    #[test]
    fn a_compressed_frame_opens_to_what_it_declares_or_not_at_all() {
        let mut compressor = Compressor::new(3).unwrap();
        let packed = compressor.compress(frame(&[0; 100_000]));
        for declared in [0u32, 99_999, 100_001, limits::FRAME_BYTES as u32 + 1, u32::MAX] {
            let mut lying = packed.clone();
            lying.body_mut()[..4].copy_from_slice(&declared.to_le_bytes());
            assert!(lying.open().is_err(), "{declared}");
        }
    }

    #[test]
    fn a_header_beyond_the_limits_is_refused() {
        assert!(Header::new([0, 0, 16, 0, 1, 0]).is_ok());
        assert!(Header::new([1, 0, 16, 0, 1, 0]).is_err());
        assert!(Header::new([255, 255, 255, 255, 1, 0]).is_err());
        assert!(Header::new([1, 0, 0, 0, 1, 2]).is_err());
    }
}

//! Compression of outgoing frames, where the link is what a run waits for.
//!
//! `--compress` asks for it always. Without it each thread looks at what the line has taken lately: one that is
//! slower than a processor compresses is worth it, a faster one is not. The line's rate is only known while
//! frames wait for it, so a run that is held up by a disk stays as it is. Where the other end is far away the line is taken for
//! slow from the beginning ([`Compression::AutoFar`]): the first frames would be gone before it was measured.

use crate::link::LinkState;
use protocol::frame::{Compressor, Frame};
use protocol::options::Compression;
use std::sync::Arc;

/// A line that takes less than this (1 Gbit/s does, also as measured when buffers on the way have just emptied) is
/// compressed for, at level 1.
///
/// # Source
/// zstd 1.5 packs database pages at 510 MB/s a core at level 1 and at 200 MB/s at level 3, for the same ratio
/// (`zstd -b1`, `-b3` on a WiredTiger file); two threads pack, and have files to read and hash besides.
const SLOW_BYTES_PER_S: u64 = 160_000_000;
/// Below this, level 3.
const VERY_SLOW_BYTES_PER_S: u64 = 30_000_000;

/// Compresses the frames of one thread.
pub(crate) struct Packer {
    how: Compression,
    link: Arc<LinkState>,
    compressor: Option<(u8, Compressor)>,
}

impl Packer {
    pub(crate) fn new(how: Compression, link: &Arc<LinkState>) -> Packer {
        if how == Compression::AutoFar {
            link.presume_far();
        }
        Packer { how, link: Arc::clone(link), compressor: None }
    }

    /// `frame`, compressed if that pays.
    pub(crate) fn pack(&mut self, frame: Frame) -> Frame {
        let Some(level) = self.level() else { return frame };
        if self.compressor.as_ref().is_none_or(|&(made_for, _)| made_for != level) {
            self.compressor = Compressor::new(level).map(|compressor| (level, compressor));
        }
        match &mut self.compressor {
            Some((_, compressor)) => compressor.compress(frame),
            None => frame,
        }
    }

    fn level(&self) -> Option<u8> {
        match (self.how, self.link.rate_bytes_per_s()) {
            (Compression::Zstd { level }, _) => Some(level),
            (Compression::None, _) => None,
            (Compression::Auto | Compression::AutoFar, rate) => match rate {
                Some(..VERY_SLOW_BYTES_PER_S) => Some(3),
                Some(..SLOW_BYTES_PER_S) => Some(1),
                _ => None,
            },
        }
    }
}

//! What one core does with data: BLAKE3, and zstd as the frames of a run are compressed.

use super::{Budget, Ended, elapsed_ns};
use protocol::frame::Compressor;
use protocol::limits::FILLER_BYTES;
use protocol::message::filler_frame;
use protocol::probe::{ProbeResult, Work};
use std::io::Write as _;
use std::time::Instant;

/// Less of a tree's content than this says nothing about all of it.
const SAMPLE_BYTES: usize = 256 << 10;
/// Length of a made sample.
const MADE_BYTES: usize = 1 << 20;

/// Hashes a sample again and again.
pub(super) fn hash(sample: &[u8], budget: &Budget<'_>) -> ProbeResult {
    let made = if sample.is_empty() { made() } else { Vec::new() };
    let data = if sample.is_empty() { &made } else { sample };
    let (mut hasher, started, mut bytes) = (blake3::Hasher::new(), Instant::now(), 0);
    loop {
        for chunk in data.chunks(FILLER_BYTES) {
            hasher.update(chunk);
            bytes += chunk.len() as u64;
        }
        if budget.is_over() {
            break;
        }
    }
    std::hint::black_box(hasher.finalize());
    ProbeResult::Work(Work { files: 0, bytes, elapsed_ns: elapsed_ns(started) })
}

/// Compresses a sample again and again, frame by frame.
pub(super) fn compress(sample: &[u8], level: u8, budget: &Budget<'_>) -> Result<ProbeResult, Ended> {
    let of_tree = sample.len() >= SAMPLE_BYTES;
    let made = if of_tree { Vec::new() } else { made() };
    let data = if of_tree { sample } else { &made };
    let mut compressor = Compressor::new(level)
        .ok_or_else(|| Ended::Failed(format!("zstd does not start at level {level}")))?;
    let (started, mut bytes, mut packed_bytes) = (Instant::now(), 0, 0);
    'measured: loop {
        for chunk in data.chunks(FILLER_BYTES) {
            packed_bytes += compressor.compress(filler_frame(chunk)).as_bytes().len() as u64;
            bytes += chunk.len() as u64;
            if budget.is_over() {
                break 'measured;
            }
        }
    }
    let work = Work { files: 0, bytes, elapsed_ns: elapsed_ns(started) };
    Ok(ProbeResult::Compressed { work, packed_bytes, of_tree })
}

/// Records as a database or a log has them: repeated words, numbers that differ.
fn made() -> Vec<u8> {
    let mut text = Vec::with_capacity(MADE_BYTES + 200);
    let noise = super::noise(MADE_BYTES);
    for (line, number) in noise.chunks_exact(8).enumerate() {
        let number = number.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
        let _ = writeln!(
            text,
            "{{\"_id\":{line},\"user\":\"user{}\",\"created\":17{:08},\"token\":\"{number:016x}\",\"state\":\"{}\"}}",
            number % 10_000,
            number % 100_000_000,
            ["open", "closed", "waiting"][(number % 3) as usize],
        );
        if text.len() >= MADE_BYTES {
            break;
        }
    }
    text
}

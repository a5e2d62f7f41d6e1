//! What was measured, as the report, the page and `--json` have it. A figure that is absent was not measured.

use super::forecast::Forecast;
use protocol::probe::{TreeSize, Work};
use serde::Serialize;

/// Everything that was measured.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Measured {
    pub(super) source: EndFigures,
    pub(super) destination: Option<EndFigures>,
    pub(super) link: Option<Link>,
    pub(super) tree: Tree,
    pub(super) notes: Vec<String>,
}

/// One end.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct EndFigures {
    pub(super) place: String,
    pub(super) cores: u32,
    pub(super) free_bytes: Option<u64>,
    pub(super) scanned_entries: u64,
    pub(super) scan_entries_per_s: Option<f64>,
    /// From the disk, in one large file.
    pub(super) read_bytes_per_s: Option<f64>,
    /// To the disk, synced.
    pub(super) write_bytes_per_s: Option<f64>,
    /// Small files made, synced and renamed.
    pub(super) create_files_per_s: Option<f64>,
    /// Files of the tree, read as they are.
    pub(super) tree_files_per_s: Option<f64>,
    /// What opening and finding one of them takes beyond its bytes.
    pub(super) file_overhead_s: Option<f64>,
    /// On one core.
    pub(super) hash_bytes_per_s: Option<f64>,
    /// On one core, by level.
    pub(super) zstd: Vec<Zstd>,
}

/// Compression at one level.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Zstd {
    pub(super) level: u8,
    pub(super) bytes_per_s: f64,
    /// Length of what came out for one of what went in.
    pub(super) ratio: f64,
    /// It was the tree's own data.
    pub(super) of_tree: bool,
}

/// The way between the ends.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Link {
    /// From nothing to an agent's hello.
    pub(super) connect_s: f64,
    pub(super) round_trip_s: f64,
    pub(super) to_destination: Vec<Flow>,
    pub(super) to_source: Vec<Flow>,
}

/// What so many connections carry together.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Flow {
    pub(super) connections: usize,
    pub(super) bytes_per_s: f64,
}

/// The tree at the source.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Tree {
    pub(super) entries: u64,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) large_files: u64,
    pub(super) large_bytes: u64,
    pub(super) unreadable: u64,
    /// It was scanned to its end.
    pub(super) is_whole: bool,
}

/// The last object of `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    event: &'static str,
    #[serde(flatten)]
    pub(super) measured: Measured,
    pub(super) forecast: Forecast,
    pub(super) elapsed_s: f64,
    exit_code: u8,
}

impl Summary {
    pub(super) fn new(measured: Measured, forecast: Forecast, elapsed_s: f64) -> Summary {
        Summary { event: "summary", measured, forecast, elapsed_s, exit_code: 0 }
    }
}

impl From<TreeSize> for Tree {
    fn from(size: TreeSize) -> Tree {
        Tree {
            entries: size.entries,
            files: size.files.min(size.entries),
            bytes: size.bytes,
            large_files: size.large_files.min(size.files),
            large_bytes: size.large_bytes.min(size.bytes),
            unreadable: size.unreadable,
            is_whole: size.is_whole,
        }
    }
}

impl Zstd {
    pub(super) fn new(level: u8, work: &Work, packed_bytes: u64, of_tree: bool) -> Zstd {
        let ratio = packed_bytes as f64 / (work.bytes as f64).max(1.0);
        let bytes_per_s = bytes_per_s(work).unwrap_or(1.0);
        Zstd { level, bytes_per_s, ratio: ratio.min(1.0), of_tree }
    }
}

impl Link {
    /// What one connection carries, which is what a run has.
    pub(super) fn run_bytes_per_s(&self) -> Option<f64> {
        self.to_destination.first().map(|flow| flow.bytes_per_s)
    }

    /// The other way, for signatures.
    pub(super) fn back_bytes_per_s(&self) -> Option<f64> {
        self.to_source.first().map(|flow| flow.bytes_per_s)
    }
}

/// A rate, where anything was done.
pub(super) fn per_s(amount: u64, elapsed_ns: u64) -> Option<f64> {
    (amount > 0).then(|| amount as f64 * 1e9 / (elapsed_ns.max(1)) as f64)
}

pub(super) fn bytes_per_s(work: &Work) -> Option<f64> {
    per_s(work.bytes, work.elapsed_ns)
}

/// Seconds that each file took beyond what its bytes take at this rate.
pub(super) fn overhead_s(work: &Work, bytes_per_s: f64) -> f64 {
    let beyond_s = work.elapsed_ns as f64 / 1e9 - work.bytes as f64 / bytes_per_s;
    (beyond_s / (work.files as f64).max(1.0)).max(0.0)
}

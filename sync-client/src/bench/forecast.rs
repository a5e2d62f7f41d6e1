//! From figures to durations: how long the first pass, the next one and the cold one would take.
//!
//! Arithmetic only. A pass connects; then it is a line of stages that work beside each other, so it takes what its
//! slowest stage takes: the bottleneck. What this leaves out makes a forecast too short, never too long, but for what
//! it assumes; [`Forecast::assumptions`] says all of it.

use super::figures::{EndFigures, Measured};
use serde::Serialize;

/// Threads of one end that read, hash and compress.
const THREADS: u32 = 2;
/// Bytes of one entry in a listing on the wire.
const LISTED_BYTES: f64 = 60.0;
/// Bytes of signature for one byte of a basis: 12 for a block of 4096.
const SIGNATURE_PART: f64 = 12.0 / 4096.0;
/// Entries from which a scan of the destination says how fast it is.
const TELLING_ENTRIES: u64 = 1000;
/// Compression must save this part of a pass to be advised.
const WORTH_PART: f64 = 0.05;

/// How long each pass would take.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Forecast {
    pub(super) change_percent: f64,
    /// `none`, or the value for `--compress` with which the first pass is shortest.
    pub(super) compression: String,
    /// What the first pass takes without any.
    pub(super) uncompressed_s: f64,
    pub(super) first_pass: FirstPass,
    pub(super) next_pass: Pass,
    pub(super) cold_pass: Pass,
    pub(super) assumptions: Vec<String>,
}

/// The pass that copies everything.
#[derive(Debug, Clone, Serialize)]
pub(super) struct FirstPass {
    pub(super) elapsed_s: f64,
    pub(super) bottleneck: &'static str,
    pub(super) bottleneck_at: &'static str,
    pub(super) stages: Vec<Stage>,
}

/// A pass that copies what changed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Pass {
    /// Where what changed are whole files.
    pub(super) least_s: f64,
    /// Where the changes are spread over every large file.
    pub(super) most_s: f64,
    pub(super) changed_bytes: f64,
    /// `scan` or `changed bytes`, in the shorter case.
    pub(super) bottleneck: &'static str,
    /// The same in the longer case.
    pub(super) most_bottleneck: &'static str,
}

/// What one part of the line would take if it were alone.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Stage {
    pub(super) what: &'static str,
    pub(super) at: &'static str,
    pub(super) elapsed_s: f64,
}

/// What a pass has to do.
#[derive(Clone, Copy)]
struct Load {
    /// Read and hashed at the source, and written at the destination.
    touched_bytes: f64,
    touched_files: f64,
    /// Sent.
    sent_bytes: f64,
    /// The destination reads its old file too, and sends its signature.
    has_basis: bool,
}

/// The forecast for a tree of which `change_percent` changes while a first pass runs.
pub(super) fn forecast(measured: &Measured, change_percent: f64) -> Forecast {
    let model = Model::new(measured);
    let (level, first_pass) = model.first_pass();
    let uncompressed_s = model.first_pass_with(None).elapsed_s;
    let scan = model.scan();
    let next_share = change_percent / 100.0;
    let next_pass = model.pass(&scan, level, next_share, next_share);
    // What changes goes on at the same pace: a shorter pass leaves less for the one after it.
    let pace = |pass_s: f64| (next_share * pass_s / first_pass.elapsed_s.max(1e-9)).min(next_share);
    let cold_pass = model.pass(&scan, level, pace(next_pass.least_s), pace(next_pass.most_s));
    let compression = level.map_or("none".to_owned(), |level| format!("zstd:{level}"));
    let assumptions = assumptions(measured, change_percent);
    Forecast { change_percent, compression, uncompressed_s, first_pass, next_pass, cold_pass, assumptions }
}

struct Model<'a> {
    measured: &'a Measured,
    /// The source's own figures stand for a destination that was not given.
    destination: &'a EndFigures,
}

impl Model<'_> {
    fn new(measured: &Measured) -> Model<'_> {
        Model { measured, destination: measured.destination.as_ref().unwrap_or(&measured.source) }
    }

    fn connect_s(&self) -> f64 {
        self.measured.link.as_ref().map_or(0.0, |link| link.connect_s)
    }

    /// With the compression that makes it shortest.
    fn first_pass(&self) -> (Option<u8>, FirstPass) {
        let levels = self.measured.source.zstd.iter().map(|zstd| zstd.level);
        let mut best = (None, self.first_pass_with(None));
        for level in levels.filter(|_| self.measured.link.is_some()) {
            let pass = self.first_pass_with(Some(level));
            if pass.elapsed_s < best.1.elapsed_s * (1.0 - WORTH_PART) {
                best = (Some(level), pass);
            }
        }
        best
    }

    fn first_pass_with(&self, level: Option<u8>) -> FirstPass {
        let tree = &self.measured.tree;
        let (bytes, files) = (tree.bytes as f64, tree.files as f64);
        let load = Load { touched_bytes: bytes, touched_files: files, sent_bytes: bytes, has_basis: false };
        let mut stages = vec![self.scan()];
        stages.extend(self.stages(&load, level));
        let Stage { what, at, elapsed_s } = *slowest(&stages);
        FirstPass { elapsed_s: self.connect_s() + elapsed_s, bottleneck: what, bottleneck_at: at, stages }
    }

    fn pass(&self, scan: &Stage, level: Option<u8>, least_share: f64, most_share: f64) -> Pass {
        let tree = &self.measured.tree;
        let (bytes, files) = (tree.bytes as f64, tree.files as f64);
        let (large_bytes, large_files) = (tree.large_bytes as f64, tree.large_files as f64);
        let whole_files = Load {
            touched_bytes: bytes * least_share,
            touched_files: files * least_share,
            sent_bytes: bytes * least_share,
            has_basis: false,
        };
        let spread = Load {
            touched_bytes: if most_share > 0.0 { large_bytes.max(bytes * most_share) } else { 0.0 },
            touched_files: if most_share > 0.0 { large_files.max(files * most_share) } else { 0.0 },
            sent_bytes: bytes * most_share,
            has_basis: true,
        };
        let judge = |load: &Load| {
            let changed_s = slowest(&self.stages(load, level)).elapsed_s;
            let bottleneck = if scan.elapsed_s >= changed_s { "scan" } else { "changed bytes" };
            (self.connect_s() + scan.elapsed_s.max(changed_s), bottleneck)
        };
        let (one, other) = (judge(&whole_files), judge(&spread));
        let (least, most) = if one.0 <= other.0 { (one, other) } else { (other, one) };
        Pass {
            least_s: least.0,
            most_s: most.0,
            changed_bytes: bytes * most_share,
            bottleneck: least.1,
            most_bottleneck: most.1,
        }
    }

    /// Both ends list at once, and the source's listing crosses the link.
    fn scan(&self) -> Stage {
        let entries = self.measured.tree.entries as f64;
        let at_source = stage("scan", "source", seconds(entries, self.measured.source.scan_entries_per_s));
        let is_telling = self.destination.scanned_entries >= TELLING_ENTRIES;
        let rate = self.destination.scan_entries_per_s.filter(|_| is_telling);
        let at_destination = stage("scan", "destination", seconds(entries, rate));
        let rate = self.measured.link.as_ref().and_then(|link| link.run_bytes_per_s());
        let across = stage("scan", "link", seconds(entries * LISTED_BYTES, rate));
        *slowest(&[at_source, at_destination, across])
    }

    /// Everything but the scan.
    fn stages(&self, load: &Load, level: Option<u8>) -> Vec<Stage> {
        let (source, destination) = (&self.measured.source, self.destination);
        let overhead_s = source.file_overhead_s.unwrap_or(0.0) * load.touched_files;
        let read_s = seconds(load.touched_bytes, source.read_bytes_per_s) + overhead_s;
        let basis_s =
            if load.has_basis { seconds(load.touched_bytes, destination.read_bytes_per_s) } else { 0.0 };
        let write_s = seconds(load.touched_bytes, destination.write_bytes_per_s)
            + seconds(load.touched_files, destination.create_files_per_s)
            + basis_s;
        let mut stages = vec![stage("read", "source", read_s), self.hash(load.touched_bytes)];
        let zstd = level.and_then(|level| source.zstd.iter().find(|zstd| zstd.level == level));
        if let Some(zstd) = zstd {
            let compress_s = seconds(load.sent_bytes, on_threads(source, Some(zstd.bytes_per_s)));
            stages.push(stage("compress", "source", compress_s));
        }
        if let Some(link) = &self.measured.link {
            let sent = load.sent_bytes * zstd.map_or(1.0, |zstd| zstd.ratio);
            let there_s = seconds(sent, link.run_bytes_per_s());
            let signature = if load.has_basis { load.touched_bytes * SIGNATURE_PART } else { 0.0 };
            stages.push(stage("link", "link", there_s.max(seconds(signature, link.back_bytes_per_s()))));
        }
        stages.push(stage("write", "destination", write_s));
        stages
    }

    /// Each end hashes all of it; in one process they share the cores.
    fn hash(&self, bytes: f64) -> Stage {
        let (source, destination) = (&self.measured.source, self.destination);
        let source_s = seconds(bytes, on_threads(source, source.hash_bytes_per_s));
        let destination_s = seconds(bytes, on_threads(destination, destination.hash_bytes_per_s));
        match &self.measured.link {
            None => stage("hash", "source", source_s + destination_s),
            Some(_) if destination_s > source_s => stage("hash", "destination", destination_s),
            Some(_) => stage("hash", "source", source_s),
        }
    }
}

fn stage(what: &'static str, at: &'static str, elapsed_s: f64) -> Stage {
    Stage { what, at, elapsed_s }
}

fn on_threads(end: &EndFigures, bytes_per_s: Option<f64>) -> Option<f64> {
    bytes_per_s.map(|rate| rate * f64::from(end.cores.clamp(1, THREADS)))
}

/// What was not measured takes no time: the report names it.
fn seconds(amount: f64, per_s: Option<f64>) -> f64 {
    per_s.filter(|rate| *rate > 0.0).map_or(0.0, |rate| amount / rate)
}

/// The first of the slowest; there is always one.
fn slowest(stages: &[Stage]) -> &Stage {
    let mut slowest = &stages[0];
    for stage in stages {
        if stage.elapsed_s > slowest.elapsed_s {
            slowest = stage;
        }
    }
    slowest
}

fn assumptions(measured: &Measured, change_percent: f64) -> Vec<String> {
    let mut list = vec![
        "each stage works beside the others on its own; what they share (cores, disks, a busy link) makes a pass \
         longer"
            .to_owned(),
        format!(
            "{change_percent} % of the bytes and files change while the first pass runs, and changes go on at that \
             pace; another share: --change PERCENT"
        ),
        "the shorter time is for changes that are whole files; the longer one for changes spread over every file above \
         16 KiB, which both ends then read (a database)"
            .to_owned(),
        "one SSH connection, and two threads an end that read, hash and compress".to_owned(),
    ];
    if !measured.tree.is_whole {
        list.push("the scan was cut short: the tree is larger than this, and so are the times".to_owned());
    }
    if measured.tree.unreadable > 0 {
        list.push(format!(
            "{} directories or entries could not be read and are not counted",
            measured.tree.unreadable
        ));
    }
    match &measured.destination {
        None => list.push("no destination was given: this disk stands for it too".to_owned()),
        Some(end) if end.write_bytes_per_s.is_none() => {
            list.push("writing at the destination was not measured: it is not in the times".to_owned());
        }
        Some(_) => {}
    }
    if measured.source.write_bytes_per_s.is_none() && measured.source.read_bytes_per_s.is_some() {
        list.push(
            "the source's disk was measured by its own files, some of them may have been cached".to_owned(),
        );
    }
    list
}

#[cfg(test)]
mod tests {
    use super::super::figures::{Flow, Link, Tree, Zstd};
    use super::*;

    const GB: f64 = 1e9;

    /// 100 GB in 1000 files, 90 GB of them in 100 large ones.
    fn measured() -> Measured {
        let end = EndFigures {
            cores: 8,
            scanned_entries: 2000,
            scan_entries_per_s: Some(1000.0),
            read_bytes_per_s: Some(2.0 * GB),
            write_bytes_per_s: Some(GB),
            create_files_per_s: Some(1e6),
            hash_bytes_per_s: Some(5.0 * GB),
            zstd: vec![Zstd { level: 1, bytes_per_s: 0.5 * GB, ratio: 0.5, of_tree: true }],
            ..EndFigures::default()
        };
        let flow = |bytes_per_s| vec![Flow { connections: 1, bytes_per_s }];
        Measured {
            source: end.clone(),
            destination: Some(end),
            link: Some(Link {
                connect_s: 0.0,
                round_trip_s: 0.01,
                to_destination: flow(0.1 * GB),
                to_source: flow(0.1 * GB),
            }),
            tree: Tree {
                entries: 2000,
                files: 1000,
                bytes: 100_000_000_000,
                large_files: 100,
                large_bytes: 90_000_000_000,
                unreadable: 0,
                is_whole: true,
            },
            notes: Vec::new(),
        }
    }

    fn near(left: f64, right: f64) -> bool {
        (left - right).abs() <= right.abs() * 0.01
    }

    #[test]
    fn a_slow_link_is_the_bottleneck_and_compression_halves_the_first_pass() {
        let forecast = forecast(&measured(), 1.0);
        assert_eq!((forecast.first_pass.bottleneck, &*forecast.compression), ("link", "zstd:1"));
        assert!(near(forecast.first_pass.elapsed_s, 500.0), "{forecast:?}");
        assert!(near(forecast.uncompressed_s, 1000.0), "{forecast:?}");
    }

    #[test]
    fn compression_that_is_slower_than_the_link_is_not_advised() {
        let mut measured = measured();
        measured.source.zstd[0].bytes_per_s = 0.01 * GB;
        let forecast = forecast(&measured, 1.0);
        assert_eq!(forecast.compression, "none");
        assert!(near(forecast.first_pass.elapsed_s, 1000.0), "{forecast:?}");
    }

    #[test]
    fn whichever_stage_is_slowest_is_named() {
        type Slow = fn(&mut Measured);
        let cases: [(&str, &str, f64, Slow); 5] = [
            ("read", "source", 10_000.0, |m| m.source.read_bytes_per_s = Some(0.01 * GB)),
            ("hash", "destination", 5_000.0, |m| {
                m.destination.as_mut().unwrap().hash_bytes_per_s = Some(0.01 * GB);
            }),
            ("write", "destination", 10_000.0, |m| {
                m.destination.as_mut().unwrap().write_bytes_per_s = Some(0.01 * GB);
            }),
            ("write", "destination", 10_100.0, |m| {
                m.destination.as_mut().unwrap().create_files_per_s = Some(0.1);
            }),
            ("scan", "source", 20_000.0, |m| m.source.scan_entries_per_s = Some(0.1)),
        ];
        for (what, at, elapsed_s, slow) in cases {
            let mut measured = measured();
            slow(&mut measured);
            let first = forecast(&measured, 1.0).first_pass;
            assert_eq!((first.bottleneck, first.bottleneck_at), (what, at));
            assert!(near(first.elapsed_s, elapsed_s), "{what}: {first:?}");
        }
    }

    #[test]
    fn what_each_file_costs_counts_beside_its_bytes() {
        let mut measured = measured();
        measured.source.file_overhead_s = Some(2.0);
        assert!(near(forecast(&measured, 1.0).first_pass.elapsed_s, 2050.0));
    }

    #[test]
    fn the_next_pass_takes_the_scan_or_what_changed_and_the_cold_one_no_longer() {
        let forecast = forecast(&measured(), 1.0);
        // 1 GB over the link in half: 5 s; 90 GB read at the destination and written: 135 s. The scan takes 2 s.
        assert!(near(forecast.next_pass.least_s, 5.0), "{forecast:?}");
        assert!(near(forecast.next_pass.most_s, 135.0), "{forecast:?}");
        assert_eq!(forecast.next_pass.bottleneck, "changed bytes");
        // In 5 s of 500 changes a hundredth of the share: less than the scan takes.
        assert!(near(forecast.cold_pass.least_s, 2.0), "{forecast:?}");
        assert_eq!(forecast.cold_pass.bottleneck, "scan");
        assert!(forecast.cold_pass.most_s <= forecast.next_pass.most_s);
    }

    #[test]
    fn nothing_changed_leaves_the_scan() {
        let forecast = forecast(&measured(), 0.0);
        assert!(near(forecast.next_pass.most_s, 2.0) && near(forecast.cold_pass.most_s, 2.0));
    }

    #[test]
    fn listings_cross_the_link_too() {
        let mut measured = measured();
        measured.tree.entries = 100_000_000;
        measured.source.scan_entries_per_s = Some(1e9);
        measured.destination.as_mut().unwrap().scan_entries_per_s = Some(1e9);
        assert!(near(forecast(&measured, 0.0).next_pass.least_s, 60.0));
    }

    #[test]
    fn figures_that_are_absent_or_absurd_break_nothing() {
        let mut measured = Measured { tree: measured().tree, ..Measured::default() };
        let empty = forecast(&measured, 1.0);
        assert!(empty.first_pass.elapsed_s == 0.0 && empty.cold_pass.most_s == 0.0);
        measured.source.read_bytes_per_s = Some(f64::MIN_POSITIVE);
        measured.tree.bytes = u64::MAX;
        assert!(forecast(&measured, 100.0).first_pass.elapsed_s > 0.0);
    }
}

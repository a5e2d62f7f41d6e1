//! What is said at the end of a run: rsync's statistics and totals, and `--json`'s last line.

use super::number::Human;
use crate::endpoint::Outcome;
use protocol::stats::{Exit, Kinds, Times};
use serde::Serialize;
use serde_json::json;

/// `--stats`: rsync's labels, then ours, which rsync has not.
pub(crate) fn statistics(outcome: &Outcome, human: Human) -> Vec<String> {
    let stats = &outcome.finished.stats;
    let number = |number: u64| human.number(number);
    let listing_s = outcome.finished.source_times.scan_ns as f64 / 1e9;
    vec![
        String::new(),
        format!("Number of files: {}", kinds(&stats.listed, number)),
        format!("Number of created files: {}", kinds(&stats.created, number)),
        format!("Number of deleted files: {}", kinds(&stats.deleted, number)),
        format!("Number of regular files transferred: {}", number(stats.created.files + stats.files_updated)),
        format!("Total file size: {} bytes", number(total_bytes(outcome))),
        format!("Total transferred file size: {} bytes", number(stats.transferred_bytes)),
        format!("Literal data: {} bytes", number(stats.literal_bytes)),
        format!("Matched data: {} bytes", number(stats.matched_bytes)),
        // Listings go in pieces among everything else: they have no size and no time of their own.
        "File list size: 0".to_owned(),
        format!("File list generation time: {listing_s:.3} seconds"),
        "File list transfer time: 0.000 seconds".to_owned(),
        format!("Total bytes sent: {}", number(outcome.sent_bytes)),
        format!("Total bytes received: {}", number(outcome.received_bytes)),
        format!("Number of entries with only metadata set: {}", number(stats.metadata_updated)),
        format!("Time of the source's threads: {}", seconds(&outcome.finished.source_times)),
        format!("Time of the destination's threads: {}", seconds(&outcome.finished.times)),
    ]
}

/// The last two lines of `-v`.
pub(crate) fn totals(outcome: &Outcome, elapsed_s: f64, human: Human, dry_run: bool) -> [String; 3] {
    let moved = outcome.sent_bytes + outcome.received_bytes;
    let total = total_bytes(outcome);
    let speedup = Human::default().decimal(total as f64 / (moved as f64).max(1.0));
    [
        String::new(),
        format!(
            "sent {} bytes  received {} bytes  {} bytes/sec",
            human.number(outcome.sent_bytes),
            human.number(outcome.received_bytes),
            human.decimal(moved as f64 / elapsed_s.max(0.001))
        ),
        format!(
            "total size is {}  speedup is {speedup}{}",
            human.number(total),
            if dry_run { " (DRY RUN)" } else { "" }
        ),
    ]
}

/// The last line of a log file.
pub(crate) fn logged(outcome: &Outcome) -> String {
    format!(
        "sent {} bytes  received {} bytes  total size {}",
        outcome.sent_bytes,
        outcome.received_bytes,
        total_bytes(outcome)
    )
}

/// As rsync counts: of files and of links.
fn total_bytes(outcome: &Outcome) -> u64 {
    outcome.finished.stats.listed_bytes + outcome.finished.stats.listed_target_bytes
}

/// A rate as rsync's progress shows it.
pub(crate) fn rate(bytes_per_s: f64) -> (f64, &'static str) {
    let kilo = bytes_per_s / 1024.0;
    if kilo > 1024.0 * 1024.0 {
        (kilo / (1024.0 * 1024.0), "GB/s")
    } else if kilo > 1024.0 {
        (kilo / 1024.0, "MB/s")
    } else {
        (kilo, "kB/s")
    }
}

/// What there was of each activity, the longest first.
fn seconds(times: &Times) -> String {
    let mut spent: Vec<(&str, u64)> = times.named().into_iter().filter(|&(_, ns)| ns >= 1_000_000).collect();
    spent.sort_by_key(|&(_, ns)| std::cmp::Reverse(ns));
    if spent.is_empty() {
        return "none".to_owned();
    }
    let shown = spent.iter().map(|(name, ns)| format!("{name} {:.2} s", *ns as f64 / 1e9));
    shown.collect::<Vec<_>>().join(", ")
}

/// The same for `--json`: seconds by activity.
fn time_object(times: &Times) -> serde_json::Value {
    times.named().into_iter().map(|(name, ns)| (format!("{name}_s"), json!(ns as f64 / 1e9))).collect()
}

/// The last line of `--json`.
#[derive(Serialize)]
pub(crate) struct Summary {
    event: &'static str,
    /// What the source listed.
    entries: u64,
    files_created: u64,
    files_updated: u64,
    entries_created: u64,
    metadata_updated: u64,
    entries_deleted: u64,
    total_bytes: u64,
    literal_bytes: u64,
    matched_bytes: u64,
    compared_files: u64,
    compared_bytes: u64,
    sent_bytes: u64,
    received_bytes: u64,
    frames: u64,
    problems: u64,
    /// Nothing was changed: the lines before are a plan.
    dry_run: bool,
    elapsed_s: f64,
    /// Where the time of each end's threads went.
    source_times: serde_json::Value,
    destination_times: serde_json::Value,
    exit_code: u8,
}

impl Summary {
    pub(crate) fn new(
        outcome: &Outcome,
        problems: u64,
        elapsed_s: f64,
        exit: Exit,
        dry_run: bool,
    ) -> Summary {
        let stats = &outcome.finished.stats;
        Summary {
            event: "summary",
            entries: stats.listed.total(),
            files_created: stats.created.files,
            files_updated: stats.files_updated,
            entries_created: stats.created.total(),
            metadata_updated: stats.metadata_updated,
            entries_deleted: stats.deleted.total(),
            total_bytes: stats.listed_bytes,
            literal_bytes: stats.literal_bytes,
            matched_bytes: stats.matched_bytes,
            compared_files: stats.compared_files,
            compared_bytes: stats.compared_bytes,
            sent_bytes: outcome.sent_bytes,
            received_bytes: outcome.received_bytes,
            frames: outcome.frames,
            problems,
            dry_run,
            elapsed_s: (elapsed_s * 1000.0).round() / 1000.0,
            source_times: time_object(&outcome.finished.source_times),
            destination_times: time_object(&outcome.finished.times),
            exit_code: exit.code(),
        }
    }
}

fn kinds(kinds: &Kinds, number: impl Fn(u64) -> String) -> String {
    let parts: Vec<String> = [
        ("reg", kinds.files),
        ("dir", kinds.directories),
        ("link", kinds.symlinks),
        ("dev", kinds.devices),
        ("special", kinds.specials),
    ]
    .into_iter()
    .filter(|&(_, count)| count > 0)
    .map(|(name, count)| format!("{name}: {}", number(count)))
    .collect();
    let total = number(kinds.total());
    if parts.is_empty() { total } else { format!("{total} ({})", parts.join(", ")) }
}

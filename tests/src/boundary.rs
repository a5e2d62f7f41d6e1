//! Kills a step of the migration at a record of its journal.

use crate::process::{Output, Running, Signal, signal, topmost_named, until};
use serde_json::Value;
use std::time::Duration;

/// Until a record may take long: a busy machine runs containers slowly.
const LIMIT: Duration = Duration::from_secs(300);

/// Lets `running` go on until the journal has a record from `known` on that `is_boundary`, and kills `sync-client` there, with
/// what it began still running. Gives that record, or how it ended before.
///
/// # Errors
/// How it ended where it was not killed.
///
/// # Panics
/// Where neither comes.
pub fn kill_at(
    mut running: Running,
    mut known: usize,
    records: impl Fn() -> Vec<Value>,
    mut is_boundary: impl FnMut(&Value) -> bool,
) -> Result<Value, Output> {
    let boundary = until(LIMIT, "the next boundary", || {
        // Before the look at the journal: what was written last is seen as well.
        let has_ended = running.ended_within(Duration::ZERO);
        let records = records();
        let new = records.get(known..).unwrap_or_default();
        known = records.len();
        // Each is asked for, the last one counts.
        let reached =
            new.iter().fold(None, |reached, record| is_boundary(record).then_some(record).or(reached));
        reached.map(|record| Some(record.clone())).or(has_ended.then_some(None))
    });
    if let Some(client) = topmost_named(running.id(), "sync-client") {
        signal(client, Signal::KILL);
    }
    let output = running.wait();
    boundary.filter(|_| output.code() == 128 + 9).ok_or(output)
}

/// What a record is about: step, action and state.
#[must_use]
pub fn key(record: &Value) -> [String; 3] {
    ["step", "action", "state"].map(|field| record[field].as_str().unwrap_or_default().to_owned())
}

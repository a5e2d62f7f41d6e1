//! `report`: the migration as one page that needs nothing else, and the same as JSON. All of it is in the journal.

mod page;

use super::journal::{Journal, Record, State};
use super::plan::Plan;
use super::position::{Position, action};
use super::say::Say;
use super::step::{self, StepError};
use super::text::{now_ms, utc};
use super::{proxy, register};
use crate::probe;
use serde::Serialize;
use serde_json::Value;
use std::io::Write as _;
use std::path::Path;

/// Everything that the page says.
#[derive(Debug, Serialize)]
struct Report {
    event: &'static str,
    migration: String,
    made_ms: u64,
    max_downtime_s: u32,
    position: Position,
    forecasts: Vec<Forecast>,
    events: Vec<Event>,
    /// The last `probe create` and the last `probe check`.
    probes: Vec<Probed>,
    /// When the last check was, and its rows.
    checked_ms: Option<u64>,
    checks: Value,
    left_to_do: Vec<String>,
}

/// What was forecast after a round of bulk passes.
#[derive(Debug, Serialize)]
struct Forecast {
    time_ms: u64,
    round: u64,
    cold_s: f64,
    scan_s: f64,
    changed_bytes: f64,
    unsettled: u64,
}

/// What became of a probe.
#[derive(Debug, Serialize)]
struct Probed {
    time_ms: u64,
    command: String,
    is_done: bool,
    accounts: Option<u64>,
    /// None where nothing was compared.
    differences: Option<u64>,
    error: Option<String>,
}

/// Something that was done to a service, or a step.
#[derive(Debug, Serialize)]
struct Event {
    begun_ms: u64,
    step: String,
    action: String,
    /// None where its end is not known.
    elapsed_s: Option<f64>,
    is_done: bool,
    error: Option<String>,
}

/// Writes the page, prints the JSON, or both.
pub(crate) fn write(plan: &Plan, file: Option<&Path>, umask: u16, say: &Say) -> Result<(), StepError> {
    let records = Journal::read(plan.state_dir.as_path(), &plan.identity())?;
    let report = Report::of(plan, &records);
    if let Some(path) = file {
        put(path, umask, &page::page(&report))
            .map_err(|source| StepError::Report { path: path.to_owned(), source })?;
    }
    let shown = file.map_or_else(
        || "give a file for the page, or --json".to_owned(),
        |file| format!("The report: {}", file.display()),
    );
    say.tell(&shown, &serde_json::to_value(&report).unwrap_or(Value::Null));
    Ok(())
}

/// Whole under its name, or not at all.
fn put(path: &Path, umask: u16, page: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = std::fs::Permissions::from_mode(0o666 & !u32::from(umask));
    let mut file = tempfile::Builder::new().prefix(".report-").permissions(mode).tempfile_in(parent)?;
    file.write_all(page.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

impl Report {
    fn of(plan: &Plan, records: &[Record]) -> Report {
        let position = Position::of(records).under(&plan.made_of());
        let table = records.iter().rev().find(|record| record.step == "check" && record.action == "table");
        Report {
            event: "report",
            migration: plan.identity(),
            made_ms: now_ms(),
            max_downtime_s: plan.limits.max_downtime_s,
            forecasts: forecasts(records),
            events: events(records),
            probes: probes(records),
            checked_ms: table.map(|table| table.time_ms),
            checks: table.map_or(Value::Null, |table| table.data["rows"].clone()),
            left_to_do: left_to_do(plan, &position, records),
            position,
        }
    }
}

/// Each action with its end; passes are told apart from them.
fn events(records: &[Record]) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for record in records.iter().filter(|record| record.action != action::PASS) {
        match record.state {
            State::Begun => events.push(Event {
                begun_ms: record.time_ms,
                step: record.step.clone(),
                action: record.action.clone(),
                elapsed_s: None,
                is_done: false,
                error: None,
            }),
            State::Done | State::Failed => {
                let same = |event: &&mut Event| event.step == record.step && event.action == record.action;
                if let Some(event) =
                    events.iter_mut().rev().find(same).filter(|event| event.elapsed_s.is_none())
                {
                    event.elapsed_s = Some(record.time_ms.saturating_sub(event.begun_ms) as f64 / 1000.0);
                    event.is_done = record.state == State::Done;
                    event.error = record.data["error"].as_str().map(str::to_owned);
                }
            }
            State::Noted => {}
        }
    }
    events
}

fn forecasts(records: &[Record]) -> Vec<Forecast> {
    let forecast = |record: &Record| {
        let number = |key: &str| record.data[key].as_f64();
        Some(Forecast {
            time_ms: record.time_ms,
            round: record.data["round"].as_u64()?,
            cold_s: number("cold_s")?,
            scan_s: number("scan_s")?,
            changed_bytes: number("changed_bytes")?,
            unsettled: record.data["unsettled"].as_u64().unwrap_or(0),
        })
    };
    records.iter().filter(|record| record.action == action::FORECAST).filter_map(forecast).collect()
}

fn probes(records: &[Record]) -> Vec<Probed> {
    let last = |step: &str| {
        let mut ended = records.iter().rev().filter(|record| record.step == step);
        let record = ended.find(|record| matches!(record.state, State::Done | State::Failed))?;
        Some(Probed {
            time_ms: record.time_ms,
            command: record.step.clone(),
            is_done: record.state == State::Done,
            accounts: record.data["accounts"].as_u64(),
            differences: record.data["differences"].as_u64(),
            error: record.data["error"].as_str().map(str::to_owned),
        })
    };
    [probe::CREATE, probe::CHECK].iter().filter_map(|step| last(step)).collect()
}

/// What nobody has done yet, in the order in which it is to be done.
fn left_to_do(plan: &Plan, position: &Position, records: &[Record]) -> Vec<String> {
    let mut list = Vec::new();
    if let Some(next) = step::all().iter().find(|step| !step.is_done(position)) {
        list.push(format!("sync-client {}", next.command()));
    }
    if plan.register.is_some() && position.stopped_ms.is_none() {
        list.push(
            "Lower the DNS entry's time to live (dns.defaultTTL) on the register hosts, as long before the move as it is now"
                .to_owned(),
        );
    }
    let is_probed = |step: &str| position.done.iter().any(|done| done == step);
    match (&plan.probe, position.is_healthy) {
        (Some(_), false) if !is_probed(probe::CREATE) => {
            list.push("sync-client probe create, before cold".to_owned())
        }
        (Some(_), true) if !is_probed(probe::CHECK) => list.push("sync-client probe check".to_owned()),
        (None, true) => {
            list.push("Look at the destination: log in to an account, see that its data is there".to_owned());
        }
        _ => {}
    }
    if position.serving.iter().any(|step| step == proxy::NAME) {
        list.push(format!(
            "Leave the source's NGINX on {}; then sync-client proxy disable",
            until(records).map_or_else(
                || "until the DNS entry's time to live is over".to_owned(),
                |time_ms| format!("until {}, when the DNS entry's time to live is over", utc(time_ms)),
            )
        ));
    }
    list.push("Set the DNS entry's time to live to what it was".to_owned());
    list.push(remove_key(plan));
    list.push("Decommission the source, once clients have left it and a backup of the destination exists; until then keep it as it is".to_owned());
    list
}

/// Until when others may remember the old address: the longest time to live, from the last restart of a DNS server.
fn until(records: &[Record]) -> Option<u64> {
    let set = records.iter().rev().find(|record| {
        record.step == register::NAME && record.action == action::SERVING && record.state == State::Done
    })?;
    let told = records.iter().filter(|record| record.step == register::NAME);
    let ttl_s = told.filter_map(|record| record.data["ttl_s"].as_u64()).max()?;
    Some(set.time_ms.saturating_add(ttl_s.saturating_mul(1000)))
}

fn remove_key(plan: &Plan) -> String {
    let keys = plan.source.ssh.iter().flat_map(|ssh| &ssh.identities);
    let files: Vec<String> =
        keys.map(|key| format!("sync-client key remove --file {}", key.display())).collect();
    let how = if files.is_empty() { "the migration's key".to_owned() } else { files.join(", ") };
    format!(
        "Remove the key from this host and from authorized_keys of the source and the register hosts: {how}"
    )
}

#[cfg(test)]
mod tests {
    use super::super::init;
    use super::super::plan::Layout;
    use super::*;
    use serde_json::json;

    #[test]
    fn the_page_needs_nothing_else_and_obeys_nobody_s_words() {
        let plan = Plan::parse(&init::plan(Layout::Of2019), Path::new("plan.toml")).unwrap();
        let record = |seq, action: &str, state, data| Record {
            seq,
            time_ms: 1_795_419_251_000 + seq * 1000,
            step: "cold".to_owned(),
            action: action.to_owned(),
            state,
            data,
        };
        let hostile = "<script>alert(1)</script>";
        let mut records = vec![
            record(0, action::STOP_SOURCE, State::Begun, Value::Null),
            record(1, action::STOP_SOURCE, State::Failed, json!({"error": hostile})),
            record(2, action::START_SOURCE, State::Begun, Value::Null),
            record(
                3,
                "table",
                State::Noted,
                json!({"rows": [{"verdict": "warn", "what": "x", "detail": hostile}]}),
            ),
        ];
        records[3].step = "check".to_owned();
        let page = page::page(&Report::of(&plan, &records));
        assert_eq!(page.matches("&lt;script&gt;").count(), 2);
        for text in [
            "2026-11-23<br>07:34:11",
            "1.0 s, <span class=\"fail\">failed",
            "its end is not known",
            "Remove the key",
        ] {
            assert!(page.contains(text), "{text} in {page}");
        }
        for foreign in ["<script", "http", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }
}

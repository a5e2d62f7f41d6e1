//! `report`: the migration as one page that needs nothing else, and the same as JSON. All of it is in the journal.

use super::journal::{Journal, Record, State};
use super::plan::Plan;
use super::position::{Pass, Position, action};
use super::say::Say;
use super::step::{self, StepError};
use super::text::{duration, now_ms, utc};
use crate::bench::{STYLE, escaped_html};
use crate::console::bytes;
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// For tables beside the style that all pages have.
const TABLE_STYLE: &str = "table{border-collapse:collapse;width:100%;font-size:.9rem}td,th{text-align:left;padding:.25rem .4rem;\
border-top:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}th{color:var(--soft);font-weight:500}\
.warn,.fail{color:var(--slow);font-weight:600}.of{display:inline-block;height:.6rem;background:var(--bar);min-width:2px}.cold{background:var(--slow)}";

/// Everything that the page says.
#[derive(Debug, Serialize)]
struct Report {
    event: &'static str,
    migration: String,
    made_ms: u64,
    position: Position,
    events: Vec<Event>,
    /// Rows of the last check.
    checks: Value,
    left_to_do: Vec<String>,
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
        put(path, umask, &page(&report))
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
            events: events(records),
            checks: table.map_or(Value::Null, |table| table.data["rows"].clone()),
            left_to_do: left_to_do(&position),
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

fn left_to_do(position: &Position) -> Vec<String> {
    let mut list = Vec::new();
    if let Some(next) = step::all().iter().find(|step| !step.is_done(position)) {
        list.push(format!("sync-client {}", next.command()));
    }
    if position.is_healthy {
        list.push("Look at the destination: log in to an account, see that its data is there".to_owned());
    }
    if position.serving.iter().any(|step| step == "proxy") {
        list.push("Leave the source's NGINX on until the DNS entry's time to live is over".to_owned());
    }
    list.push("Remove the migration's key from both hosts".to_owned());
    list.push("Keep the source as it is until the DNS entry's time to live is over and a backup of the destination exists".to_owned());
    list
}

fn page(report: &Report) -> String {
    let mut page = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n");
    let _ = writeln!(
        page,
        "<title>Migration</title>\n<style>{STYLE}{TABLE_STYLE}</style></head><body>\n<h1>Migration</h1>"
    );
    let _ = writeln!(
        page,
        "<p class=\"soft\">{}; made {}</p>",
        escaped_html(&report.migration),
        utc(report.made_ms)
    );
    head(&report.position, &mut page);
    passes(&report.position.passes, &mut page);
    happened(&report.events, &mut page);
    checks(&report.checks, &mut page);
    page.push_str("<h2>Left to do</h2>\n<ul>\n");
    for text in &report.left_to_do {
        let _ = writeln!(page, "<li>{}</li>", escaped_html(text));
    }
    page.push_str("</ul>\n</body></html>\n");
    page
}

fn head(position: &Position, page: &mut String) {
    let cold_s =
        position.passes.iter().filter(|pass| pass.is_cold).map(|pass| pass.elapsed_s).reduce(f64::max);
    let or_none = |seconds: Option<f64>| seconds.map_or("none yet".to_owned(), duration);
    page.push_str("<dl>\n");
    for (name, text) in [
        ("Downtime", or_none(position.downtime_s)),
        ("Cold pass", or_none(cold_s)),
        ("Its forecast", or_none(position.forecast_s())),
    ] {
        let _ = writeln!(page, "<div><dt>{name}</dt><dd>{text}</dd></div>");
    }
    for (set, copy) in &position.copies {
        let copy = json!(copy);
        let copy = copy.as_str().unwrap_or_default();
        let _ = writeln!(page, "<div><dt>{}</dt><dd>{copy}</dd></div>", escaped_html(set));
    }
    page.push_str("</dl>\n");
}

/// A row for each pass; the bar is its time beside the longest.
fn passes(passes: &[Pass], page: &mut String) {
    if passes.is_empty() {
        return;
    }
    let longest_s = passes.iter().map(|pass| pass.elapsed_s).fold(0.001, f64::max);
    page.push_str(
        "<h2>Passes</h2>\n<table><tr><th>begun</th><th>data set</th><th>new</th><th>took</th></tr>\n",
    );
    for pass in passes {
        let (class, what) = if pass.is_cold { ("of cold", ", cold") } else { ("of", "") };
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}{what}</td><td>{} in {} files of {}</td><td>{}<br><span class=\"{class}\" style=\"width:{:.0}%\"></span></td></tr>",
            utc(pass.begun_ms),
            escaped_html(&pass.set),
            bytes(pass.changed_bytes),
            pass.changed_files,
            bytes(pass.total_bytes),
            duration(pass.elapsed_s),
            100.0 * pass.elapsed_s / longest_s
        );
    }
    page.push_str("</table>\n");
}

fn happened(events: &[Event], page: &mut String) {
    page.push_str("<h2>What happened</h2>\n<table><tr><th>begun</th><th>what</th><th>took</th></tr>\n");
    for event in events {
        let what = if event.action == action::RUN {
            event.step.clone()
        } else {
            format!("{}: {}", event.step, event.action)
        };
        let end = match (event.elapsed_s, event.is_done) {
            (None, _) => "<span class=\"warn\">its end is not known</span>".to_owned(),
            (Some(seconds), true) => duration(seconds),
            (Some(seconds), false) => {
                let error = escaped_html(event.error.as_deref().unwrap_or_default());
                format!("{}, <span class=\"fail\">failed</span>: {error}", duration(seconds))
            }
        };
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{end}</td></tr>",
            utc(event.begun_ms),
            escaped_html(&what)
        );
    }
    page.push_str("</table>\n");
}

fn checks(rows: &Value, page: &mut String) {
    let Some(rows) = rows.as_array().filter(|rows| !rows.is_empty()) else { return };
    page.push_str("<h2>The last check</h2>\n<table>\n");
    for row in rows {
        let text = |key: &str| escaped_html(row[key].as_str().unwrap_or_default());
        let _ = writeln!(
            page,
            "<tr><td class=\"{0}\">{0}</td><td>{1}</td><td>{2}</td></tr>",
            text("verdict"),
            text("what"),
            text("detail")
        );
    }
    page.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::super::init;
    use super::super::plan::Layout;
    use super::*;

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
        let page = page(&Report::of(&plan, &records));
        assert_eq!(page.matches("&lt;script&gt;").count(), 2);
        for text in [
            "2026-11-23 07:34:11 UTC",
            "1.0 s, <span class=\"fail\">failed",
            "its end is not known",
            "Remove the migration",
        ] {
            assert!(page.contains(text), "{text} in {page}");
        }
        for foreign in ["<script", "http", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }
}

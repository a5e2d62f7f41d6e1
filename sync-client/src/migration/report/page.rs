//! The report as HTML: no script, nothing fetched, every foreign word escaped; readable on a phone.

use super::{Event, Forecast, Probed, Report};
use crate::bench::{STYLE, escaped_html};
use crate::console::bytes;
use crate::migration::position::{Pass, action};
use crate::migration::text::{duration, utc};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Beside the style that all pages have.
const TABLE_STYLE: &str = "table{border-collapse:collapse;width:100%;font-size:.9rem}td,th{text-align:left;padding:.25rem .4rem;\
border-top:1px solid var(--line);vertical-align:top}th{color:var(--soft);font-weight:500}\
.w{overflow-wrap:anywhere}.n,.t{white-space:nowrap}.n{min-width:4rem}.t{font-size:.8rem}.pass{color:var(--bar)}.warn,.fail{color:var(--slow);font-weight:600}\
.of{display:inline-block;height:.6rem;background:var(--bar);min-width:2px}.cold{background:var(--slow)}";

pub(super) fn page(report: &Report) -> String {
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
    head(report, &mut page);
    left(&report.left_to_do, &mut page);
    probes(&report.probes, &mut page);
    forecasts(report, &mut page);
    passes(&report.position.passes, &mut page);
    happened(&report.events, &mut page);
    checks(report, &mut page);
    page.push_str("</body></html>\n");
    page
}

/// A cell with the day above the time: narrow enough for a phone.
fn at(time_ms: u64) -> String {
    let text = utc(time_ms);
    let (day, time) = text.split_once(' ').unwrap_or((&text, ""));
    format!("<td class=\"t\">{day}<br>{}</td>", time.trim_end_matches(" UTC"))
}

/// The length of the last cold pass: its data sets ran at once.
fn cold_s(passes: &[Pass]) -> Option<f64> {
    let last = passes.iter().rev().take_while(|pass| pass.is_cold);
    last.map(|pass| pass.elapsed_s).reduce(f64::max)
}

fn head(report: &Report, page: &mut String) {
    let position = &report.position;
    let or_none = |seconds: Option<f64>| seconds.map_or("none yet".to_owned(), duration);
    page.push_str("<dl>\n");
    let mut figure = |name: &str, text: &str| {
        let _ = writeln!(page, "<div><dt>{}</dt><dd>{}</dd></div>", escaped_html(name), escaped_html(text));
    };
    figure("Downtime", &or_none(position.downtime_s));
    figure("Limit", &duration(f64::from(report.max_downtime_s)));
    figure("Cold pass", &or_none(cold_s(&position.passes)));
    figure("Its forecast", &or_none(position.forecast_s()));
    for (set, copy) in &position.copies {
        figure(set, json!(copy).as_str().unwrap_or_default());
    }
    page.push_str("</dl>\n");
}

fn left(texts: &[String], page: &mut String) {
    page.push_str("<h2>Left to do</h2>\n<ul>\n");
    for text in texts {
        let _ = writeln!(page, "<li>{}</li>", escaped_html(text));
    }
    page.push_str("</ul>\n");
}

fn probes(probes: &[Probed], page: &mut String) {
    if probes.is_empty() {
        return;
    }
    page.push_str("<h2>The accounts</h2>\n<table>\n");
    for probe in probes {
        let accounts = match probe.accounts {
            Some(1) => " in 1 account".to_owned(),
            Some(count) => format!(" in {count} accounts"),
            None => String::new(),
        };
        let (class, text) = match (probe.differences, &probe.error) {
            (Some(0), _) => ("pass", format!("identical{accounts}")),
            (Some(count), _) => ("fail", format!("{count} differences{accounts}")),
            (None, Some(error)) => ("fail", error.clone()),
            (None, None) if probe.is_done => ("pass", format!("made{accounts}")),
            (None, None) => ("fail", "not finished".to_owned()),
        };
        let _ = writeln!(
            page,
            "<tr>{}<td>{}</td><td class=\"w {class}\">{}</td></tr>",
            at(probe.time_ms),
            escaped_html(&probe.command),
            escaped_html(&text)
        );
    }
    page.push_str("</table>\n");
}

/// A row for each round of bulk passes, and what the cold pass then took.
fn forecasts(report: &Report, page: &mut String) {
    if report.forecasts.is_empty() {
        return;
    }
    let actual_s = cold_s(&report.position.passes);
    let all = report.forecasts.iter().map(|forecast| forecast.cold_s).chain(actual_s);
    let longest_s = all.fold(0.001, f64::max);
    page.push_str(
        "<h2>Forecast and actual</h2>\n<table><tr><th>UTC</th><th>cold pass would copy</th><th>and take</th></tr>\n",
    );
    for Forecast { time_ms, round, cold_s, scan_s, changed_bytes, unsettled } in &report.forecasts {
        let settled = match unsettled {
            0 => String::new(),
            count => format!("; {count} files changed in both rounds"),
        };
        let _ = writeln!(
            page,
            "<tr>{}<td>round {round}: {}; {} to list{settled}</td><td class=\"n\">{}{}</td></tr>",
            at(*time_ms),
            bytes(*changed_bytes as u64),
            duration(*scan_s),
            duration(*cold_s),
            bar("of", cold_s / longest_s)
        );
    }
    if let Some(actual_s) = actual_s {
        let _ = writeln!(
            page,
            "<tr><td colspan=\"2\">it took</td><td class=\"n\">{}{}</td></tr>",
            duration(actual_s),
            bar("of cold", actual_s / longest_s)
        );
    }
    page.push_str("</table>\n");
}

fn bar(class: &str, part: f64) -> String {
    format!("<br><span class=\"{class}\" style=\"width:{:.0}%\"></span>", 100.0 * part.clamp(0.0, 1.0))
}

/// A row for each pass; the bar is its time beside the longest.
fn passes(passes: &[Pass], page: &mut String) {
    if passes.is_empty() {
        return;
    }
    let longest_s = passes.iter().map(|pass| pass.elapsed_s).fold(0.001, f64::max);
    page.push_str(
        "<h2>Passes</h2>\n<table><tr><th>UTC</th><th>data set, and what was new</th><th>took</th></tr>\n",
    );
    for pass in passes {
        let (class, what) = if pass.is_cold { ("of cold", ", cold") } else { ("of", "") };
        let deleted = match pass.deleted_entries {
            0 => String::new(),
            count => format!(", {count} entries deleted"),
        };
        let _ = writeln!(
            page,
            "<tr>{}<td>{}{what}<br>{} in {} files of {}{deleted}; {} over the line</td><td class=\"n\">{}{}</td></tr>",
            at(pass.begun_ms),
            escaped_html(&pass.set),
            bytes(pass.changed_bytes),
            pass.changed_files,
            bytes(pass.total_bytes),
            bytes(pass.moved_bytes),
            duration(pass.elapsed_s),
            bar(class, pass.elapsed_s / longest_s)
        );
    }
    page.push_str("</table>\n");
}

fn happened(events: &[Event], page: &mut String) {
    page.push_str("<h2>What happened</h2>\n<table><tr><th>UTC</th><th>what</th><th>took</th></tr>\n");
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
            "<tr>{}<td>{}</td><td class=\"w\">{end}</td></tr>",
            at(event.begun_ms),
            escaped_html(&what)
        );
    }
    page.push_str("</table>\n");
}

fn checks(report: &Report, page: &mut String) {
    let rows: &[Value] = report.checks.as_array().map_or(&[], Vec::as_slice);
    if rows.is_empty() {
        return;
    }
    let time = report.checked_ms.map_or_else(String::new, utc);
    let _ = writeln!(page, "<h2>The last check</h2>\n<p class=\"soft\">{time}</p>\n<table>");
    for row in rows {
        let text = |key: &str| escaped_html(row[key].as_str().unwrap_or_default());
        let _ = writeln!(
            page,
            "<tr><td class=\"{0}\">{0}</td><td class=\"w\">{1}</td><td class=\"w\">{2}</td></tr>",
            text("verdict"),
            text("what"),
            text("detail")
        );
    }
    page.push_str("</table>\n");
}

//! `status`: what the journal says is done, what is next, how to go back. It looks at nothing else and takes no lock.

use super::journal::{Journal, Record, State};
use super::plan::Plan;
use super::position::{Copy, Position, Service};
use super::say::Say;
use super::step::{self, StepError};
use super::text::{duration, utc};
use crate::probe;
use serde_json::{Value, json};

/// Prints where a migration stands.
pub(crate) fn show(plan: &Plan, say: &Say) -> Result<(), StepError> {
    let dir = plan.state_dir.as_path();
    let records = Journal::read(dir, &plan.identity())?;
    let position = Position::of(&records).under(&plan.made_of());
    let is_busy = Journal::is_locked(dir)?;
    let (next, back) = (next(&position), back(&position));
    let mut event = serde_json::to_value(&position).unwrap_or(Value::Null);
    event["event"] = json!("status");
    event["records"] = json!(records.len());
    event["is_running"] = json!(is_busy);
    event["next"] = json!(next);
    event["back"] = json!(back);
    say.tell(&lines(plan, &records, &position, is_busy).join("\n"), &event);
    say.line(&format!("next         {next}"));
    say.line(&format!("back         {back}"));
    Ok(())
}

fn lines(plan: &Plan, records: &[Record], position: &Position, is_busy: bool) -> Vec<String> {
    let mut lines = vec![format!("Migration of {}", plan.identity())];
    let mut line = |name: &str, text: String| lines.push(format!("{name:<12} {text}"));
    match records.last() {
        None => line("journal", format!("none yet in {}", plan.state_dir.as_path().display())),
        Some(last) => {
            line("journal", format!("{} records, the last of {}", records.len(), utc(last.time_ms)))
        }
    }
    if is_busy {
        line("now", "a process works on it".to_owned());
    } else if let Some((step, action)) = &position.interrupted {
        let what =
            if action == super::position::action::RUN { step.clone() } else { format!("{step}: {action}") };
        let known = step::all().into_iter().find(|known| known.name() == step);
        let command = known.map_or_else(|| step.clone(), |known| known.command().to_owned());
        line(
            "interrupted",
            format!("{what} (begun, and its end is not known; run `sync-client {command}` again)"),
        );
    }
    let done = if position.done.is_empty() { "nothing".to_owned() } else { position.done.join(", ") };
    line("done", done);
    let copies: Vec<String> = plan
        .data
        .iter()
        .map(|set| {
            let copy = position.copies.get(set.name.as_str()).copied().unwrap_or_default();
            format!(
                "{} {}",
                set.name,
                match copy {
                    Copy::None => "not begun",
                    Copy::Warm => "warm",
                    Copy::Complete => "complete",
                }
            )
        })
        .collect();
    line("copies", copies.join(", "));
    line("services", format!("source {}, destination {}", word(position.source), word(position.destination)));
    if !position.serving.is_empty() {
        line("clients", format!("reach the destination by {}", position.serving.join(" and ")));
    }
    let waiting: Vec<&str> =
        position.edited.iter().filter(|step| !position.serving.contains(step)).map(String::as_str).collect();
    if !waiting.is_empty() {
        line("edited", format!("{} (not live, as far as is known)", waiting.join(", ")));
    }
    if let Some(forecast_s) = position.forecast_s() {
        line("cold pass", format!("forecast to take {}", duration(forecast_s)));
    }
    if let Some(downtime_s) = position.downtime_s {
        line("downtime", duration(downtime_s));
    } else if let Some(at) = position.stopped_ms {
        line("downtime", format!("since {}", utc(at)));
    }
    if let Some(last) = records.iter().rev().find(|it| it.step == probe::CHECK && it.state != State::Begun) {
        let found = match last.data["differences"].as_u64() {
            Some(0) => "identical".to_owned(),
            Some(1) => "1 difference".to_owned(),
            Some(count) => format!("{count} differences"),
            None => "not compared".to_owned(),
        };
        line("probe check", format!("{found}, {}", utc(last.time_ms)));
    }
    lines
}

fn word(service: Service) -> &'static str {
    match service {
        Service::Untouched => "as it was",
        Service::Unsure => "unknown (an action on it did not end well)",
        Service::Stopped => "stopped",
        Service::Started => "started",
    }
}

fn next(position: &Position) -> String {
    match step::all().iter().find(|step| !step.is_done(position)) {
        Some(step) => format!("sync-client {}", step.command()),
        None => "nothing: every step is done".to_owned(),
    }
}

fn back(position: &Position) -> &'static str {
    if position.has_served {
        "no longer without loss: clients reach the destination, or did (sync-client rollback says more)"
    } else if position.stopped_ms.is_some() || position.destination != Service::Untouched {
        "sync-client rollback: stops the destination, starts the source"
    } else {
        "nothing to do: no service was touched"
    }
}

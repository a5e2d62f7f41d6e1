//! `status`: what the journal says is done, what is next, how to go back. It looks at nothing else and takes no lock.

use super::journal::{Journal, Record, State};
use super::plan::Plan;
use super::position::action::RUN;
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
        let what = if action == RUN { step.clone() } else { format!("{step}: {action}") };
        line(
            "interrupted",
            format!("{what} (begun, and its end is not known; run `sync-client {}` again)", command(step)),
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

/// What the operator types for a step of the journal.
fn command(step: &str) -> String {
    let known = step::all().into_iter().find(|known| known.name() == step);
    known.map_or_else(|| step.to_owned(), |known| known.command().to_owned())
}

/// What was interrupted comes first; then the steps in their order.
fn next(position: &Position) -> String {
    let interrupted = position.interrupted.as_ref().map(|(step, _)| command(step));
    let undone =
        || step::all().iter().find(|step| !step.is_done(position)).map(|step| step.command().to_owned());
    match interrupted.or_else(undone) {
        Some(command) => format!("sync-client {command}"),
        None => "nothing: every step is done".to_owned(),
    }
}

fn back(position: &Position) -> &'static str {
    let is_source_up = matches!(position.source, Service::Untouched | Service::Started);
    let is_destination_down = matches!(position.destination, Service::Untouched | Service::Stopped);
    if position.has_served {
        return "no longer without loss: clients reach the destination, or did (sync-client rollback says more)";
    }
    match (is_source_up && is_destination_down && position.edited.is_empty(), position.source) {
        (true, Service::Started) => "nothing to do: the source was started again",
        (true, _) => "nothing to do: the source's service was not touched",
        (false, _) => "sync-client rollback: stops the destination, starts the source",
    }
}

#[cfg(test)]
mod tests {
    use super::super::position::action;
    use super::*;

    /// A record's step, action and state.
    type Line = (&'static str, &'static str, State);

    fn position(lines: &[Line]) -> Position {
        let records: Vec<Record> = lines
            .iter()
            .zip(0..)
            .map(|(&(step, action, state), seq)| Record {
                seq,
                time_ms: seq,
                step: step.to_owned(),
                action: action.to_owned(),
                state,
                data: json!({"sets": ["a"], "set": "a", "undone": step == "undone"}),
            })
            .collect();
        Position::of(&records)
    }

    const BOTH: [State; 2] = [State::Begun, State::Done];

    /// A command with its actions, each begun and done.
    fn whole(step: &'static str, actions: &[(&'static str, &'static str)]) -> Vec<Line> {
        let mut lines = vec![(step, RUN, State::Begun)];
        lines.extend(actions.iter().flat_map(|&(step, action)| BOTH.map(|state| (step, action, state))));
        lines.push((step, RUN, State::Done));
        lines
    }

    /// Everything before a command of the table.
    fn until_cold() -> Vec<Line> {
        let mut lines = whole("check", &[]);
        lines.extend(whole("bulk", &[("bulk", action::PASS)]));
        lines
    }

    fn until_served() -> Vec<Line> {
        let mut lines = until_cold();
        lines.extend(whole("cold", COLD));
        lines.extend(whole("proxy", PROXY));
        lines
    }

    const COLD: &[(&str, &str)] = &[
        ("cold", action::STOP_SOURCE),
        ("cold", action::PASS),
        ("cold", action::COMPLETE),
        ("cold", "ensure permissions"),
        ("cold", action::START_DESTINATION),
        ("cold", action::HEALTHY),
    ];
    const PROXY: &[(&str, &str)] =
        &[("proxy", action::EDIT), ("proxy", action::SERVING), ("proxy", "check who answers")];

    #[test]
    fn killed_at_any_record_of_any_command_it_says_which_one_is_next_and_how_to_go_back() {
        let untouched = "nothing to do: the source's service was not touched";
        let rollback = "sync-client rollback";
        let lost = "no longer without loss";
        // What came before, the command, what the operator types for it, and from which action on the way back is which.
        for (before, step, actions, typed, ways) in [
            (vec![], "check", &[][..], "check", &[(RUN, untouched)][..]),
            (whole("check", &[]), "bulk", &[("bulk", action::PASS)], "bulk", &[(RUN, untouched)]),
            (until_cold(), "cold", COLD, "cold", &[(RUN, untouched), (action::STOP_SOURCE, rollback)]),
            (
                [until_cold(), whole("cold", COLD)].concat(),
                "proxy",
                PROXY,
                "proxy enable",
                &[(RUN, rollback), (action::SERVING, lost)],
            ),
            (
                until_served(),
                "register",
                &[("register", action::EDIT), ("register", action::SERVING)],
                "register set",
                &[(RUN, lost)],
            ),
            (
                until_served(),
                "proxy disable",
                &[("proxy", action::RESTORE), ("proxy disable", "NGINX on source")],
                "proxy disable",
                &[(RUN, lost)],
            ),
            (
                [until_cold(), whole("cold", COLD)].concat(),
                "rollback",
                &[
                    ("proxy", action::RESTORE),
                    ("rollback", action::STOP_DESTINATION),
                    ("rollback", action::START_SOURCE),
                ],
                "rollback",
                &[(RUN, rollback)],
            ),
        ] {
            let lines = whole(step, actions);
            for killed in 1..lines.len() {
                let position = position(&[&before[..], &lines[..killed]].concat());
                assert_eq!(next(&position), format!("sync-client {typed}"), "{step} killed after {killed}");
                let reached = |action: &str| lines[..killed].iter().any(|line| line.1 == action);
                let way = ways.iter().rev().find(|(action, _)| reached(action)).expect("the run").1;
                let is_over = step == "rollback" && killed + 1 == lines.len();
                let way = if is_over { "nothing to do: the source was started again" } else { way };
                assert!(back(&position).starts_with(way), "{step} {killed}: {}", back(&position));
            }
            let ended = position(&[&before[..], &lines].concat());
            assert_eq!(ended.interrupted, None, "{step}");
        }
    }

    #[test]
    fn who_goes_on_by_another_command_is_no_longer_interrupted_and_who_looks_is() {
        let killed =
            [until_cold(), vec![("cold", RUN, State::Begun), ("cold", action::STOP_SOURCE, State::Begun)]]
                .concat();
        let looked = position(&[killed.clone(), whole("check", &[])].concat());
        assert_eq!(next(&looked), "sync-client cold");
        let gone_back =
            position(&[killed, whole("rollback", &[("rollback", action::START_SOURCE)])].concat());
        assert_eq!((gone_back.interrupted.clone(), next(&gone_back).as_str()), (None, "sync-client check"));
        assert_eq!(back(&gone_back), "nothing to do: the source was started again");
    }
}

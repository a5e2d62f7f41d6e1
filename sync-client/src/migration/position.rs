//! Where a migration stands: what follows from its journal, and nothing else.
//!
//! The words of the actions that decide are here, so that who writes them and who reads them agree.

use super::journal::{Record, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Actions by which the position is found; data sets are in the records' data.
pub(crate) mod action {
    pub(crate) const RUN: &str = "run";
    pub(crate) const PASS: &str = "pass";
    pub(crate) const FORECAST: &str = "forecast";
    pub(crate) const COMPLETE: &str = "complete";
    pub(crate) const STOP_SOURCE: &str = "stop source";
    pub(crate) const START_SOURCE: &str = "start source";
    pub(crate) const STOP_DESTINATION: &str = "stop destination";
    pub(crate) const START_DESTINATION: &str = "start destination";
    pub(crate) const HEALTHY: &str = "destination healthy";
    /// Clients reach the destination from here on, by the record's step; `data.undone` where that was taken back.
    pub(crate) const SERVING: &str = "clients reach destination";
    /// A file that sends clients on is edited or put back, for `proxy` and `register` each; not yet read by anybody.
    pub(crate) const EDIT: &str = "edit";
    pub(crate) const RESTORE: &str = "restore";
}

/// How good a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Copy {
    /// Not begun.
    #[default]
    None,
    /// Of a source that may have changed meanwhile, or only in part: no database.
    Warm,
    /// Of a source that was stopped, and proven unchanged.
    Complete,
}

/// A service, as far as the journal knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Service {
    /// As it was before the migration.
    #[default]
    Untouched,
    /// An action on it was begun and did not end.
    Unsure,
    Stopped,
    Started,
}

/// A pass over one data set that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pass {
    pub(crate) set: String,
    pub(crate) is_cold: bool,
    pub(crate) begun_ms: u64,
    pub(crate) elapsed_s: f64,
    /// Until the source was listed.
    pub(crate) scan_s: f64,
    pub(crate) entries: u64,
    pub(crate) total_bytes: u64,
    /// Of files whose content was made new.
    pub(crate) changed_bytes: u64,
    pub(crate) changed_files: u64,
    pub(crate) literal_bytes: u64,
    pub(crate) deleted_entries: u64,
    pub(crate) moved_bytes: u64,
}

/// Where a migration stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Position {
    /// Steps whose last run was done.
    pub(crate) done: Vec<String>,
    /// The command that was begun and never ended, and in which action.
    pub(crate) interrupted: Option<(String, String)>,
    /// By data set.
    pub(crate) copies: BTreeMap<String, Copy>,
    /// What each complete copy was made of, as the plan said then.
    #[serde(skip)]
    made_of: BTreeMap<String, Value>,
    pub(crate) source: Service,
    pub(crate) destination: Service,
    pub(crate) is_healthy: bool,
    /// The destination was begun to be started on what was copied.
    has_handed_over: bool,
    /// Steps whose files are edited, as far as is known.
    pub(crate) edited: Vec<String>,
    /// Steps by which clients reach the destination now.
    pub(crate) serving: Vec<String>,
    /// Clients reached the destination at some time since the source was last started: they may have written there.
    pub(crate) has_served: bool,
    pub(crate) passes: Vec<Pass>,
    /// Of the cold pass, in seconds, one for each round of bulk passes.
    pub(crate) forecasts: Vec<f64>,
    /// When the source was begun to be stopped, for this downtime.
    pub(crate) stopped_ms: Option<u64>,
    pub(crate) downtime_s: Option<f64>,
}

impl Position {
    /// Follows the records from the first to the last.
    pub(crate) fn of(records: &[Record]) -> Position {
        let mut position = Position::default();
        let mut open: Vec<(&str, &str)> = Vec::new();
        for record in records {
            let key = (record.step.as_str(), record.action.as_str());
            let is_run = record.action == action::RUN;
            match record.state {
                State::Begun => {
                    // A step that begins anew takes up what its last run left open.
                    if is_run {
                        open.retain(|(step, _)| *step != record.step);
                    }
                    open.push(key);
                }
                // Whatever another command left open, this one went on from there; who only looks did not.
                State::Done if is_run && !LOOKING.contains(&record.step.as_str()) => open.clear(),
                State::Done | State::Failed => open.retain(|other| *other != key),
                State::Noted => {}
            }
            position.follow(record);
        }
        position.interrupted = interrupted(&open);
        position
    }

    /// The same for a plan that may have been edited since: a complete copy made of something else is none of its.
    pub(crate) fn under(mut self, made_of: &BTreeMap<String, Value>) -> Position {
        for (set, copy) in &mut self.copies {
            if *copy == Copy::Complete && self.made_of.get(set) != made_of.get(set) {
                (*copy, self.is_healthy) = (Copy::Warm, false);
            }
        }
        self
    }

    fn follow(&mut self, record: &Record) {
        let is_done = record.state == State::Done;
        match record.action.as_str() {
            action::RUN => {
                self.done.retain(|step| *step != record.step);
                if is_done {
                    self.done.push(record.step.clone());
                }
            }
            action::PASS => self.pass(record),
            action::FORECAST => self.forecasts.extend(record.data["cold_s"].as_f64()),
            action::COMPLETE if is_done => {
                for (set, made_of) in record.data["sets"].as_object().into_iter().flatten() {
                    self.copies.insert(set.clone(), Copy::Complete);
                    self.made_of.insert(set.clone(), made_of.clone());
                }
            }
            action::STOP_SOURCE => {
                self.source = service(record.state, Service::Stopped);
                if record.state == State::Begun {
                    self.stopped_ms.get_or_insert(record.time_ms);
                    self.downtime_s = None;
                }
            }
            action::START_SOURCE => {
                self.source = service(record.state, Service::Started);
                // Until it serves, its clients wait.
                if is_done {
                    (self.stopped_ms, self.downtime_s) = (None, None);
                }
                (self.is_healthy, self.has_handed_over) = (false, false);
                (self.serving, self.has_served) = (Vec::new(), false);
                // What was done for this stop is to be done again for the next one.
                self.done.clear();
                self.cool_down();
            }
            action::STOP_DESTINATION => self.stop_destination(record.state),
            action::START_DESTINATION => {
                self.has_handed_over = true;
                self.destination = service(record.state, Service::Started);
                self.is_healthy = false;
            }
            action::HEALTHY if is_done => {
                self.is_healthy = true;
                self.downtime_s = self.stopped_ms.map(|at| record.time_ms.saturating_sub(at) as f64 / 1000.0);
            }
            action::EDIT if record.state == State::Begun => put(&mut self.edited, &record.step, true),
            action::RESTORE => {
                put(&mut self.done, &record.step, false);
                if is_done {
                    put(&mut self.edited, &record.step, false);
                }
            }
            action::SERVING => {
                let is_serving = record.data["undone"] != Value::Bool(true);
                self.has_served |= is_serving;
                put(&mut self.serving, &record.step, is_serving);
            }
            _ => {}
        }
    }

    fn pass(&mut self, record: &Record) {
        match record.state {
            State::Begun => {
                if let Some(set) = record.data["set"].as_str() {
                    self.copies.insert(set.to_owned(), Copy::Warm);
                }
            }
            State::Done => self.passes.extend(serde_json::from_value::<Pass>(record.data.clone()).ok()),
            State::Failed | State::Noted => {}
        }
    }

    /// A destination that ran may have written: what it leaves is its own, no longer the source's.
    fn stop_destination(&mut self, state: State) {
        if self.has_handed_over {
            self.cool_down();
        }
        self.destination = service(state, Service::Stopped);
        (self.is_healthy, self.has_handed_over) = (false, false);
    }

    fn cool_down(&mut self) {
        self.copies.values_mut().for_each(|copy| *copy = Copy::Warm);
    }

    /// Whether the destination may be started on what was copied.
    pub(crate) fn is_complete(&self, sets: &[&str]) -> bool {
        sets.iter().all(|set| self.copies.get(*set) == Some(&Copy::Complete))
    }

    /// Whether the destination was begun to be started on complete copies: nothing is copied into it any more.
    pub(crate) fn is_handed_over(&self, sets: &[&str]) -> bool {
        self.is_complete(sets) && self.has_handed_over
    }

    /// Whether a step has edited files, or clients reach the destination by it.
    pub(crate) fn is_in_place(&self, step: &str) -> bool {
        self.edited.iter().chain(&self.serving).any(|other| other == step)
    }

    /// The last forecast of the cold pass.
    pub(crate) fn forecast_s(&self) -> Option<f64> {
        self.forecasts.last().copied()
    }
}

/// Commands that change nothing at either core.
const LOOKING: [&str; 3] = ["check", "probe create", "probe check"];

/// The last command that is open, and the innermost of its actions: a step may act in another one's name (`rollback` puts back
/// what `proxy` edited), and is itself what has to be run again.
fn interrupted(open: &[(&str, &str)]) -> Option<(String, String)> {
    let &(inner, action) = open.last()?;
    let outer = open.iter().rev().find(|(_, action)| *action == action::RUN).map_or(inner, |(step, _)| step);
    let action = if inner == outer { action.to_owned() } else { format!("{inner} {action}") };
    Some((outer.to_owned(), action))
}

fn put(steps: &mut Vec<String>, step: &str, is_in: bool) {
    steps.retain(|other| other != step);
    if is_in {
        steps.push(step.to_owned());
    }
}

fn service(state: State, wanted: Service) -> Service {
    if state == State::Done { wanted } else { Service::Unsure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A journal in short: step, action, state, data; a second apart.
    fn position(lines: &[(&str, &str, State, Value)]) -> Position {
        let records: Vec<Record> = lines
            .iter()
            .zip(0..)
            .map(|((step, action, state, data), seq)| Record {
                seq,
                time_ms: seq * 1000,
                step: (*step).to_owned(),
                action: (*action).to_owned(),
                state: *state,
                data: data.clone(),
            })
            .collect();
        Position::of(&records)
    }

    fn copied() -> Vec<(&'static str, &'static str, State, Value)> {
        vec![
            ("cold", action::RUN, State::Begun, Value::Null),
            ("cold", action::STOP_SOURCE, State::Begun, Value::Null),
            ("cold", action::STOP_SOURCE, State::Done, Value::Null),
            ("cold", action::STOP_DESTINATION, State::Begun, Value::Null),
            ("cold", action::STOP_DESTINATION, State::Done, Value::Null),
            ("cold", action::PASS, State::Begun, json!({"set": "db"})),
            ("cold", action::PASS, State::Failed, Value::Null),
            ("cold", action::PASS, State::Begun, json!({"set": "db"})),
            ("cold", action::COMPLETE, State::Done, json!({"sets": {"db": "/a to /b"}})),
        ]
    }

    #[test]
    fn a_copy_is_complete_until_either_side_may_have_changed() {
        assert!(position(&copied()).is_complete(&["db"]));
        assert!(!position(&copied()).is_complete(&["db", "files"]));
        for (action, data) in [(action::PASS, json!({"set": "db"})), (action::START_SOURCE, Value::Null)] {
            let mut lines = copied();
            lines.push(("x", action, State::Begun, data));
            assert!(!position(&lines).is_complete(&["db"]), "{action}");
        }
        let mut lines = copied();
        lines.push(("cold", action::START_DESTINATION, State::Begun, Value::Null));
        assert!(position(&lines).is_handed_over(&["db"]));
        lines.push(("rollback", action::STOP_DESTINATION, State::Begun, Value::Null));
        assert_eq!(position(&lines).copies["db"], Copy::Warm);
    }

    #[test]
    fn a_copy_of_something_else_is_not_complete() {
        let made_of = |text: &str| BTreeMap::from([("db".to_owned(), json!(text))]);
        assert!(position(&copied()).under(&made_of("/a to /b")).is_complete(&["db"]));
        for other in [made_of("/a to /c"), BTreeMap::new()] {
            assert_eq!(position(&copied()).under(&other).copies["db"], Copy::Warm);
        }
    }

    #[test]
    fn stopping_a_destination_that_did_not_run_spoils_no_copy() {
        let mut lines = copied();
        lines.push(("cold", action::STOP_DESTINATION, State::Begun, Value::Null));
        lines.push(("cold", action::STOP_DESTINATION, State::Done, Value::Null));
        assert!(position(&lines[..9]).is_complete(&["db"]));
        assert!(position(&lines).is_complete(&["db"]));
    }

    #[test]
    fn downtime_is_from_the_first_stop_to_healthy_also_over_an_interruption() {
        let mut lines = copied();
        lines.push(("cold", action::STOP_SOURCE, State::Begun, Value::Null));
        lines.push(("cold", action::STOP_SOURCE, State::Done, Value::Null));
        lines.push(("cold", action::HEALTHY, State::Done, Value::Null));
        let position = position(&lines);
        assert_eq!((position.downtime_s, position.stopped_ms), (Some(10.0), Some(1000)));
    }

    #[test]
    fn clients_once_sent_on_are_not_forgotten_by_an_undo() {
        let mut lines = vec![
            ("proxy", action::EDIT, State::Begun, Value::Null),
            ("proxy", action::RESTORE, State::Done, Value::Null),
            ("proxy", action::EDIT, State::Failed, Value::Null),
        ];
        let tested = position(&lines);
        assert!(tested.edited.is_empty() && !tested.has_served, "its test failed before it went live");
        lines.extend([
            ("proxy", action::EDIT, State::Begun, Value::Null),
            ("proxy", action::SERVING, State::Begun, Value::Null),
            ("register", action::SERVING, State::Begun, Value::Null),
            ("proxy", action::RUN, State::Done, Value::Null),
            ("proxy", action::RESTORE, State::Done, Value::Null),
            ("proxy", action::SERVING, State::Done, json!({"undone": true})),
        ]);
        let undone = position(&lines);
        assert_eq!((undone.serving, undone.done), (vec!["register".to_owned()], Vec::new()));
        lines.push(("register", action::SERVING, State::Done, json!({"undone": true})));
        let undone = position(&lines);
        assert!(undone.serving.is_empty() && undone.has_served);
        lines.push(("x", action::START_SOURCE, State::Begun, Value::Null));
        assert!(!position(&lines).has_served);
    }

    #[test]
    fn what_was_begun_and_did_not_end_is_named() {
        assert_eq!(
            position(&copied()[..2]).interrupted,
            Some(("cold".to_owned(), action::STOP_SOURCE.to_owned()))
        );
        assert_eq!(position(&copied()[..2]).source, Service::Unsure);
        let ended = [
            ("check", action::RUN, State::Begun, Value::Null),
            ("check", action::RUN, State::Done, Value::Null),
        ];
        let position = position(&ended);
        assert_eq!((position.interrupted, position.done), (None, vec!["check".to_owned()]));
    }
}

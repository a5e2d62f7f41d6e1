//! `--apply-plan`: carries out what a dry run told, as long as nothing of it changed since.
//!
//! The plan is what `sync --dry-run --json` printed; the mark of each line is what counts ([`protocol::plan`]), the rest is
//! for people. Lines may be taken out, and what they tell is then left alone. First the same dry run is made again: a
//! line that it does not print refuses the whole plan before anything is touched. Then the run is held to the marks, so
//! that what changes in the meantime is left alone too, up to the moment before it would be replaced or removed; whatever
//! of the plan was not done is named at the end.

use crate::endpoint::{self, Environment, Outcome, RunError, Watch};
use crate::job::{Job, UsageError};
use protocol::itemize::Item;
use protocol::plan::{MARK_BYTES, Mark, PLAN_MARKS, Plan, mark};
use protocol::stats::{Exit, Problem};
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use sync_agent::monitor::{Monitor, Progress};

/// Names of changes that a message lists.
const LISTED: usize = 20;

/// A plan as read.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Each change's name.
    changes: BTreeMap<Mark, String>,
    plan: Plan,
}

/// A plan that can't be carried out.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} of {planned} changes of the plan are not what is to be done any more, so nothing was touched:\n  {}\nMake a new \
     plan with the same options: sync --dry-run --json",
    .changed.len(), listed(.changed)
)]
pub struct PlanError {
    planned: usize,
    changed: Vec<String>,
}

impl Planned {
    /// Reads what `sync --dry-run --json` printed.
    ///
    /// # Errors
    /// The file can't be read, or is no such plan.
    pub fn read(file: &OsStr) -> Result<Planned, UsageError> {
        let wrong = |what: String| UsageError(format!("--apply-plan {}: {what}", file.display()));
        let text = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        let mut changes = BTreeMap::new();
        let mut is_whole = false;
        for (at, line) in text.lines().enumerate() {
            let object: serde_json::Value =
                serde_json::from_str(line).map_err(|error| wrong(format!("line {}: {error}", at + 1)))?;
            is_whole |= object["event"] == "summary" && object["dry_run"] == true;
            if object["event"] != "item" {
                continue;
            }
            let name = object["name"].as_str().unwrap_or_default().to_owned();
            let mark = object["mark"].as_str().and_then(parse_mark);
            let mark = mark.ok_or_else(|| wrong(format!("line {}: it has no mark", at + 1)))?;
            changes.insert(mark, name);
        }
        if !is_whole {
            return Err(wrong(
                "its last line is not the summary of a dry run (sync --dry-run --json)".to_owned(),
            ));
        }
        let plan = Plan::new(changes.keys().copied().collect());
        let plan = plan.ok_or_else(|| {
            wrong(format!(
                "{} changes; a plan has at most {PLAN_MARKS}: plan parts of the tree",
                changes.len()
            ))
        })?;
        Ok(Planned { changes, plan })
    }
}

/// A mark as a plan has it.
pub(crate) fn show_mark(mark: &Mark) -> String {
    mark.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_mark(text: &str) -> Option<Mark> {
    let mut mark = Mark::default();
    if text.len() != 2 * MARK_BYTES || !text.is_ascii() {
        return None;
    }
    for (at, byte) in mark.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(mark)
}

fn listed(names: &[String]) -> String {
    let mut shown = names.iter().take(LISTED).cloned().collect::<Vec<_>>();
    if names.len() > LISTED {
        shown.push(format!("and {} more", names.len() - LISTED));
    }
    shown.join("\n  ")
}

/// Carries out a job as planned.
///
/// # Errors
/// Why nothing was done, or the run could not be finished.
pub fn sync(
    job: &Job,
    planned: &Planned,
    environment: &Environment,
    watch: &Watch<'_>,
) -> Result<Outcome, RunError> {
    let now = rehearse(job, environment, watch)?;
    let gone = planned.changes.iter().filter(|(mark, _)| !now.contains(*mark));
    let changed: Vec<String> = gone.map(|(_, name)| name.clone()).collect();
    if !changed.is_empty() {
        return Err(PlanError { planned: planned.changes.len(), changed }.into());
    }
    let others = now.len() - planned.changes.len();
    if others > 0 {
        watch.monitor.note(&format!("{others} changes that are not in the plan are left alone"));
    }
    let mut held = job.clone();
    held.options.plan = Some(planned.plan.clone());
    held.options.itemize = true;
    let left = Mutex::new(planned.changes.clone());
    let counting = Counting { inner: watch.monitor, left: &left };
    let watch = Watch { monitor: &counting, progress: watch.progress, stop: watch.stop.clone() };
    let mut outcome = endpoint::sync(&held, environment, &watch)?;
    let left: Vec<String> = lock(&left).values().cloned().collect();
    if !left.is_empty() {
        counting.inner.note(&format!(
            "not done of the plan ({} of {} changes), because it failed as told above, or because what it is about \
             changed meanwhile:\n  {}",
            left.len(),
            planned.changes.len(),
            listed(&left)
        ));
        outcome.finished.exit = outcome.finished.exit.worst(Exit::Refused);
    }
    Ok(outcome)
}

/// The marks of what is to be done now.
fn rehearse(job: &Job, environment: &Environment, watch: &Watch<'_>) -> Result<HashSet<Mark>, RunError> {
    let mut rehearsal = job.clone();
    rehearsal.options.dry_run = true;
    rehearsal.options.itemize = true;
    let (listening, progress) = (Listening::default(), Progress::default());
    let watch = Watch { monitor: &listening, progress: &progress, stop: watch.stop.clone() };
    endpoint::sync(&rehearsal, environment, &watch)?;
    Ok(listening.0.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears what a dry run would do; what goes wrong in it the run itself will say.
#[derive(Default)]
struct Listening(Mutex<HashSet<Mark>>);

impl Monitor for Listening {
    fn item(&self, item: Item) {
        lock(&self.0).extend(mark(&item));
    }
    fn problem(&self, _: Problem) {}
    fn made_root(&self, _: &[u8]) {}
    fn note(&self, _: &str) {}
}

/// Passes everything on, and keeps what of the plan is not done yet.
struct Counting<'a> {
    inner: &'a dyn Monitor,
    left: &'a Mutex<BTreeMap<Mark, String>>,
}

impl Monitor for Counting<'_> {
    fn item(&self, item: Item) {
        if let Some(mark) = mark(&item) {
            lock(self.left).remove(&mark);
        }
        self.inner.item(item);
    }
    fn problem(&self, problem: Problem) {
        self.inner.problem(problem);
    }
    fn made_root(&self, path: &[u8]) {
        self.inner.made_root(path);
    }
    fn note(&self, message: &str) {
        self.inner.note(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_shown() {
        let mark: Mark = [0, 1, 2, 0xff, 4, 5, 6, 7, 8, 9, 10, 0xab];
        assert_eq!(parse_mark(&show_mark(&mark)), Some(mark));
        for text in
            ["", "00", "zz0102ff0405060708090aab", "000102ff0405060708090aabcc", "é00102ff0405060708090aa"]
        {
            assert_eq!(parse_mark(text), None, "{text}");
        }
    }
}

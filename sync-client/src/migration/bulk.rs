//! `bulk`: passes over all data sets while the source's service is up, until the cold pass will be short.

use super::engine::{self, Report, Warmth};
use super::evidence;
use super::forecast::{self, Enough, Forecast};
use super::journal::State;
use super::plan::DataSet;
use super::position::{Position, action};
use super::run::{End, Run};
use super::step::{Step, StepError};
use super::text::{self, duration};
use crate::console::bytes;
use protocol::stats::Exit;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Files that are named as never settling.
const NAMED: usize = 10;

pub(crate) struct Bulk;

impl Step for Bulk {
    fn name(&self) -> &'static str {
        "bulk"
    }

    fn is_done(&self, position: &Position) -> bool {
        position.stopped_ms.is_some() || position.done.iter().any(|step| step == self.name())
    }

    fn rehearse(&self, run: &mut Run<'_>) -> Result<Vec<String>, StepError> {
        refuse_served_destination(run)?;
        refuse_live_destination(run)?;
        let mut lines = Vec::new();
        for set in &run.plan.data {
            sentinels(run, set)?;
            let (environment, stop) = (&run.environment, run.operator.stop);
            let report = engine::pass(run.plan, set, Warmth::Rehearsal, environment, stop)?;
            let report = report.accept(&[Exit::Done, Exit::Vanished, Exit::Partial])?;
            let pass = &report.pass;
            let is_refused = pass.deleted_entries > run.plan.limits.max_delete;
            let refused = if is_refused { ": MORE than limits.max_delete, it would be refused" } else { "" };
            lines.push(format!(
                "copy {}: {} of {} in {} files, and delete {} entries{refused}",
                set.name,
                bytes(pass.changed_bytes),
                bytes(pass.total_bytes),
                pass.changed_files,
                pass.deleted_entries
            ));
        }
        Ok(lines)
    }

    fn carry_out(&self, run: &mut Run<'_>) -> Result<(), StepError> {
        refuse_served_destination(run)?;
        let (sets, limits) = (run.sets(), run.plan.limits);
        let mut forecasts = Vec::new();
        let mut before = BTreeSet::new();
        let mut rounds = 0;
        loop {
            rounds += 1;
            let (changed, incomplete) = round(run, rounds)?;
            let unsettled: Vec<String> = changed.intersection(&before).cloned().collect();
            before = changed;
            if let Some(forecast) = forecast::forecast(&sets, &run.position().passes, text::now_ms()) {
                forecasts.push(forecast.cold_s);
                tell_forecast(run, rounds, &forecast, &unsettled)?;
            }
            let enough = forecast::enough(&forecasts, rounds, limits.max_downtime_s, limits.max_passes);
            if let Some(enough) = enough {
                conclude(run, enough, &forecasts, &unsettled);
                return incomplete.map_or(Ok(()), Err);
            }
        }
    }
}

/// One pass over every data set, one after another: the source is busy with its own work. Gives what changed, and what
/// could not be copied: where that is still so in the last round, it would fail in the downtime too.
fn round(run: &mut Run<'_>, number: u32) -> Result<(BTreeSet<String>, Option<StepError>), StepError> {
    let (mut changed, mut incomplete) = (BTreeSet::new(), None);
    for set in &run.plan.data {
        refuse_live_destination(run)?;
        sentinels(run, set)?;
        let report = pass(run, "bulk", set, Warmth::Bulk)?;
        tell_pass(run, &format!("round {number}"), &report);
        changed.extend(report.changed.iter().map(|file| format!("{}/{file}", set.name)));
        incomplete = report.accept(&[Exit::Done, Exit::Vanished]).err().or(incomplete);
    }
    Ok((changed, incomplete))
}

/// A pass with its records.
fn pass(run: &mut Run<'_>, step: &str, set: &DataSet, warmth: Warmth) -> Result<Report, StepError> {
    run.action(step, action::PASS, json!({"set": set.name.as_str()}), |run| {
        let report = engine::pass(run.plan, set, warmth, &run.environment, run.operator.stop)?;
        // A live source changes under the pass: the next one has what this one could not get.
        let report = report.accept(&[Exit::Done, Exit::Vanished, Exit::Partial])?;
        let data = serde_json::to_value(&report.pass).unwrap_or(Value::Null);
        Ok((report, data))
    })
}

/// Says what a pass did.
pub(crate) fn tell_pass(run: &Run<'_>, what: &str, report: &Report) {
    let pass = &report.pass;
    let deleted = match pass.deleted_entries {
        0 => String::new(),
        count => format!(", {count} entries deleted"),
    };
    let text = format!(
        "{what}, {}: {} of {} new in {} files{deleted}, {}",
        pass.set,
        bytes(pass.changed_bytes),
        bytes(pass.total_bytes),
        pass.changed_files,
        duration(pass.elapsed_s)
    );
    let mut event = serde_json::to_value(pass).unwrap_or(Value::Null);
    event["event"] = json!("pass");
    run.say.tell(&text, &event);
    for line in report.problems.iter().chain(&report.notes) {
        run.say.note(&format!("  {line}"));
    }
}

fn tell_forecast(
    run: &mut Run<'_>,
    rounds: u32,
    forecast: &Forecast,
    unsettled: &[String],
) -> Result<(), StepError> {
    let Forecast { cold_s, scan_s, changed_bytes } = *forecast;
    let data = json!({"event": "forecast", "round": rounds, "cold_s": cold_s, "scan_s": scan_s,
        "changed_bytes": changed_bytes, "unsettled": unsettled.len()});
    run.record("bulk", action::FORECAST, State::Noted, data.clone())?;
    run.say.tell(
        &format!(
            "  cold pass now: {} ({} to list, {} changed); limit {}",
            duration(cold_s),
            duration(scan_s),
            bytes(changed_bytes as u64),
            duration(f64::from(run.plan.limits.max_downtime_s))
        ),
        &data,
    );
    Ok(())
}

fn conclude(run: &Run<'_>, enough: Enough, forecasts: &[f64], unsettled: &[String]) {
    let series: Vec<String> = forecasts.iter().map(|seconds| duration(*seconds)).collect();
    let why = match enough {
        Enough::Within => "the cold pass is forecast within limits.max_downtime_s",
        Enough::Level => {
            "another pass would not make the cold one shorter; it is longer than limits.max_downtime_s"
        }
        Enough::Rounds => {
            "limits.max_passes is reached; the cold pass is not forecast within limits.max_downtime_s"
        }
    };
    let event = json!({"event": "bulk", "is_within": enough == Enough::Within, "forecasts_s": forecasts,
        "unsettled": unsettled});
    run.say.tell(&format!("Forecasts of the cold pass: {}; {why}.", series.join(" → ")), &event);
    if !unsettled.is_empty() {
        run.say.line(&format!("{} files changed in each of the last two rounds:", unsettled.len()));
        unsettled.iter().take(NAMED).for_each(|file| run.say.line(&format!("  {file}")));
    }
    run.say.line("The copy is warm: nothing may be started on it. Next: sync-client cold");
}

/// What clients wrote at the destination is nowhere else, also while its service is down.
pub(crate) fn refuse_served_destination(run: &Run<'_>) -> Result<(), StepError> {
    if run.position().has_served {
        return Err(StepError::refused(
            "clients reach the destination already, or did: another copy would lose what they wrote. See sync-client status",
        ));
    }
    Ok(())
}

/// A live mongod at the destination under `--delete` loses its files.
pub(crate) fn refuse_live_destination(run: &Run<'_>) -> Result<(), StepError> {
    let mut signs = evidence::running(run, End::Destination)?;
    let locks = evidence::locked(run, End::Destination)?;
    signs.extend(locks.iter().map(|lock| {
        format!(
            "{} is not empty: a mongod runs, or was killed (if surely none runs, empty that file)",
            lock.display()
        )
    }));
    if signs.is_empty() {
        return Ok(());
    }
    let stop = &run.plan.destination.service.stop;
    Err(StepError::refused(format!(
        "the destination's service works on the data that would be overwritten:\n  {}\nStop it (`{stop}` in {}) and run this again",
        signs.join("\n  "),
        run.plan.destination.root.as_path().display()
    )))
}

/// An empty, unmounted or mistyped source is not the data.
pub(crate) fn sentinels(run: &Run<'_>, set: &DataSet) -> Result<(), StepError> {
    let directory = run.plan.source_path(set);
    for sentinel in &set.sentinels {
        let path = directory.join(sentinel.as_path());
        if run.host(End::Source).stat(&path)?.is_none() {
            return Err(StepError::refused(format!(
                "data set {}: there is no {} at the source, so {} is not the data that it should be: \
                 is it mounted, is the path right?",
                set.name,
                sentinel.as_path().display(),
                directory.display()
            )));
        }
    }
    Ok(())
}

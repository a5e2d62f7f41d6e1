//! `cold`: the downtime. Stop, prove, copy what changed, prove again, start.
//!
//! What is proven before the copy: no container of the plan runs, no process has a file of a data set open, `mongod.lock` is empty
//! (or the operator agrees to a recovery). After it: still nobody has one open, and nothing below a data set has a ctime from
//! after the first proof, by the source's own clock. Only then is a copy complete.

use super::bulk;
use super::engine::{self, Report, Warmth};
use super::evidence;
use super::host::Command;
use super::journal::State;
use super::position::{Position, action};
use super::rollback;
use super::run::{End, Run};
use super::service;
use super::step::{Step, StepError};
use super::text::{self, duration};
use crate::console::{print_error, with_causes};
use protocol::stats::Exit;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::Path;

/// Prints the clock; what changes after the pause has a later ctime than that, however coarse the kernel's clock is.
const CLOCK_SCRIPT: &str = "date +%s.%N && sleep 0.05";
/// Prints what below the directories changed since a time.
const CHANGED_SCRIPT: &str = r#"since=$1; shift
while [ $# -gt 0 ]; do find "$1" "$2/" -newerct "@$since" -print || exit 1; shift 2; done"#;

pub(crate) struct Cold;

impl Step for Cold {
    fn name(&self) -> &'static str {
        "cold"
    }

    fn is_done(&self, position: &Position) -> bool {
        position.is_healthy
    }

    fn rehearse(&self, run: &mut Run<'_>) -> Result<Vec<String>, StepError> {
        bulk::refuse_served_destination(run)?;
        let (source, destination) = (&run.plan.source, &run.plan.destination);
        let in_root = |core: &super::plan::Core| core.root.as_path().display().to_string();
        let mut lines = Vec::new();
        if !run.position().is_handed_over(&run.sets()) {
            lines.push(format!("stop the source: {} in {}", source.service.stop, in_root(source)));
            lines.push(format!(
                "stop the destination if it runs: {} in {}",
                destination.service.stop,
                in_root(destination)
            ));
            lines.push("prove that no container and no process works on the data".to_owned());
            lines.extend(run.sets().iter().map(|set| format!("copy what changed of {set}")));
            lines.push("prove that nothing changed at the source meanwhile".to_owned());
        }
        let permissions = destination.service.ensure_permissions.as_ref();
        lines.extend(permissions.map(|script| format!("run {script} in {}", in_root(destination))));
        lines.push(format!(
            "start the destination: {} in {}",
            destination.service.start,
            in_root(destination)
        ));
        lines.push(format!("wait up to {} s until it is healthy", destination.service.health_s));
        Ok(lines)
    }

    fn carry_out(&self, run: &mut Run<'_>) -> Result<(), StepError> {
        bulk::refuse_served_destination(run)?;
        let is_handed_over = run.position().is_handed_over(&run.sets());
        let result = if is_handed_over && !service::source_runs_again(run, "cold")? {
            run.say.note("The destination was begun to be started on complete copies; going on there.");
            start(run)
        } else {
            prepare(run)?;
            copy(run).and_then(|()| start(run))
        };
        result.or_else(|error| offer_way_back(run, error))
    }
}

/// What can be refused while the service is still up.
fn prepare(run: &Run<'_>) -> Result<(), StepError> {
    for set in &run.plan.data {
        bulk::sentinels(run, set)?;
    }
    for end in [End::Source, End::Destination] {
        agree_to_blindness(run, end)?;
    }
    let limit_s = f64::from(run.plan.limits.max_downtime_s);
    let forecast = match run.position().forecast_s() {
        Some(seconds) if seconds <= limit_s => format!("the pass is forecast to take {}", duration(seconds)),
        Some(seconds) => format!(
            "the pass is forecast to take {}, MORE than limits.max_downtime_s ({})",
            duration(seconds),
            duration(limit_s)
        ),
        None => "there is no forecast: no `bulk` was done".to_owned(),
    };
    run.confirm(&format!("The source's service is stopped now, and its clients with it; {forecast}. Go on?"))
}

/// From the stop to complete copies.
fn copy(run: &mut Run<'_>) -> Result<(), StepError> {
    service::stop(run, "cold", End::Source)?;
    if service::may_run(run, End::Destination)? {
        service::stop(run, "cold", End::Destination)?;
    }
    for end in [End::Source, End::Destination] {
        service::prove_stopped(run, end)?;
        agree_to_recovery(run, end)?;
    }
    let since = source_clock(run)?;
    passes(run)?;
    prove_unchanged(run, &since)?;
    run.record("cold", action::COMPLETE, State::Done, json!({"sets": run.plan.made_of()}))
}

/// Who is not root sees the open files of its own processes alone.
fn agree_to_blindness(run: &Run<'_>, end: End) -> Result<(), StepError> {
    if !evidence::holders(run.host(end), &[])?.is_limited {
        return Ok(());
    }
    run.confirm(&format!(
        "The user at the {} is not root, so open files of other users' processes can't be seen: nothing proves that none has the \
         data open. Go on all the same?",
        end.as_str()
    ))
}

/// A mongod that was killed leaves its lock; its data opens only through its journal.
fn agree_to_recovery(run: &mut Run<'_>, end: End) -> Result<(), StepError> {
    let locks = evidence::locked(run, end)?;
    let Some(lock) = locks.first() else { return Ok(()) };
    if end == End::Destination {
        // What is there is overwritten, and nothing has it open.
        run.say
            .note(&format!("{} is not empty, but nothing runs: a mongod was killed here.", lock.display()));
        return Ok(());
    }
    run.record("cold", "unclean stop", State::Noted, json!({"lock": lock.display().to_string()}))?;
    run.confirm(&format!(
        "mongod did not end cleanly: {} is not empty (was it killed after 10 s?). The copy then has to recover from its journal when \
         it starts; a clean stop is better: start the source, stop it with more time. Go on all the same?",
        lock.display()
    ))
}

fn source_clock(run: &Run<'_>) -> Result<OsString, StepError> {
    let host = run.host(End::Source);
    let none: [&str; 0] = [];
    let ran = host.run(&Command::script(CLOCK_SCRIPT, none))?;
    let text = String::from_utf8_lossy(ran.stdout.trim_ascii()).into_owned();
    if ran.is_success() && text.parse::<f64>().is_ok() {
        return Ok(text.into());
    }
    Err(host.failed("read the clock by", Path::new("date"), &ran.stderr).into())
}

/// The last pass over every data set, all at once.
fn passes(run: &mut Run<'_>) -> Result<(), StepError> {
    run.stopped()?;
    for set in &run.plan.data {
        run.record("cold", action::PASS, State::Begun, json!({"set": set.name.as_str()}))?;
    }
    let (plan, environment, stop) = (run.plan, run.environment.clone(), run.operator.stop);
    let results: Vec<Result<Report, StepError>> = std::thread::scope(|scope| {
        let environment = &environment;
        let threads: Vec<_> = plan
            .data
            .iter()
            .map(|set| scope.spawn(move || engine::pass(plan, set, Warmth::Cold, environment, stop)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(Err(StepError::refused("a pass panicked"))))
            .collect()
    });
    let mut first_error = None;
    for result in results {
        match result.and_then(|report| judge(run, report)) {
            Ok(report) => {
                let data = serde_json::to_value(&report.pass).unwrap_or(Value::Null);
                run.record("cold", action::PASS, State::Done, data)?;
                bulk::tell_pass(run, "cold pass", &report);
            }
            Err(error) => {
                let data = json!({"error": with_causes(&error), "exit_code": error.exit_code()});
                run.record("cold", action::PASS, State::Failed, data)?;
                first_error.get_or_insert(error);
            }
        }
    }
    first_error.map_or(Ok(()), Err)
}

/// Nothing may be missing, and nothing may have changed under the pass.
fn judge(run: &Run<'_>, report: Report) -> Result<Report, StepError> {
    if report.exit == Exit::Vanished {
        let files: Vec<String> = report.problems.into_iter().take(5).collect();
        return Err(changed(run, &files));
    }
    report.accept(&[Exit::Done])
}

/// Nothing below the data sets changed since the first proof, and still nobody has anything open.
fn prove_unchanged(run: &Run<'_>, since: &OsString) -> Result<(), StepError> {
    let host = run.host(End::Source);
    let places = evidence::parameters(&evidence::places(run, End::Source));
    let parameters = std::iter::once(since.clone()).chain(places);
    let ran = host.run(&Command::script(CHANGED_SCRIPT, parameters).limited(evidence::SEARCH_S))?;
    if !ran.is_success() {
        return Err(host
            .failed("look for changes below", run.plan.source.root.as_path(), &ran.stderr)
            .into());
    }
    let files: Vec<String> = ran.lines().take(5).map(text::foreign).collect();
    if files.is_empty() && evidence::running(run, End::Source)?.is_empty() {
        return Ok(());
    }
    Err(changed(run, &files))
}

/// Something still writes at the source.
fn changed(run: &Run<'_>, files: &[String]) -> StepError {
    let holders = evidence::running(run, End::Source).unwrap_or_default();
    let mut message = "the source changed while it was copied, so this is no copy of one moment:".to_owned();
    for line in files.iter().chain(&holders) {
        message.push_str("\n  ");
        message.push_str(line);
    }
    if holders.is_empty() {
        message.push_str(
            "\nNothing has these files open now. Look for what writes there (cron, a backup, a script)",
        );
    }
    message.push_str("\nEnd it and run `sync-client cold` again");
    StepError::Refused(message)
}

/// From complete copies to a healthy destination.
fn start(run: &mut Run<'_>) -> Result<(), StepError> {
    if !run.position().is_complete(&run.sets()) {
        return Err(StepError::refused("the destination is not started on copies that are not complete"));
    }
    service::ensure_permissions(run, "cold")?;
    service::start(run, "cold", End::Destination)?;
    run.action("cold", action::HEALTHY, Value::Null, |run| {
        service::wait_until_healthy(run, End::Destination)?;
        Ok(((), Value::Null))
    })?;
    tell_downtime(run);
    tell_log_errors(run)
}

/// The destination is healthy: logs that can't be read are no reason to go back.
fn tell_log_errors(run: &mut Run<'_>) -> Result<(), StepError> {
    let errors = match service::errors_in_logs(run, End::Destination) {
        Ok(errors) => errors,
        Err(error) => {
            run.say.note(&format!("The destination's logs could not be looked at: {}", with_causes(&error)));
            return Ok(());
        }
    };
    if !errors.is_empty() {
        run.record("cold", "log errors", State::Noted, json!({"lines": errors}))?;
        run.say
            .note("Lines with errors in the destination's logs; look at them before clients are sent there:");
        errors.iter().for_each(|line| run.say.note(&format!("  {line}")));
    }
    Ok(())
}

fn tell_downtime(run: &Run<'_>) {
    let position = run.position();
    let passes: Vec<_> =
        position.passes.iter().rev().filter(|pass| pass.is_cold).take(run.plan.data.len()).collect();
    let longest_s = passes.iter().map(|pass| pass.elapsed_s).fold(0.0, f64::max);
    let total = position.downtime_s.map_or("unknown".to_owned(), duration);
    let forecast = position.forecast_s().map_or("none".to_owned(), duration);
    let by_set: Value = passes.iter().map(|pass| (pass.set.clone(), json!(pass.elapsed_s))).collect();
    run.say.tell(
        &format!(
            "Downtime: {total} from the stop to healthy; of that {} copying (forecast {forecast})",
            duration(longest_s)
        ),
        &json!({"event": "downtime", "downtime_s": position.downtime_s, "copy_s": longest_s,
            "forecast_s": position.forecast_s(), "sets_s": by_set}),
    );
    passes
        .iter()
        .rev()
        .for_each(|pass| run.say.line(&format!("  {:<16} {}", pass.set, duration(pass.elapsed_s))));
    run.say.line(
        "Clients still reach the source's address. As long as they do, sync-client rollback goes back.",
    );
}

/// The source is down and its clients wait: says why at once, and how the source serves again.
fn offer_way_back(run: &mut Run<'_>, error: StepError) -> Result<(), StepError> {
    if run.position().stopped_ms.is_none() {
        return Err(error);
    }
    let source = &run.plan.source;
    let way = format!(
        "The source's service is stopped. `sync-client rollback` starts it again ({} in {}).",
        source.service.start,
        source.root.as_path().display()
    );
    let exit_code = error.exit_code();
    // Stopped by a signal it does nothing more; where the journal can't be written nothing more may be done.
    if exit_code == Exit::Interrupted.code() || matches!(error, StepError::Journal(_)) {
        run.say.note(&way);
        return Err(error);
    }
    run.record("cold", "failure", State::Noted, json!({"error": with_causes(&error)}))?;
    print_error(&error);
    run.say.note(&way);
    let what = match run.confirm("Start the source's service again now?") {
        Err(_) => "the source is still stopped: sync-client rollback starts it, sync-client cold tries again",
        Ok(()) => match rollback::go_back(run, "cold") {
            Ok(()) => "the source serves again",
            Err(failed) => {
                print_error(&failed);
                "the source could not be started: sync-client rollback tries again"
            }
        },
    };
    Err(StepError::Told { what, exit_code })
}

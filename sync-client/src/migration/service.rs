//! Stopping and starting a core's service: the plan's commands, run in ROOT, with what they said in the journal.

use super::evidence;
use super::host::{Command, HostError, Ran};
use super::journal::State;
use super::plan::Action;
use super::position::{Service, action};
use super::run::{End, Run};
use super::step::StepError;
use super::text;
use crate::console::with_causes;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How much of a command's last words go to the journal.
const SAID_BYTES: usize = 4 << 10;
/// How long containers and processes may take to be gone after the stop command ended.
const SETTLE: Duration = Duration::from_secs(15);
/// Between two looks at a service that starts or stops.
const LOOK: Duration = Duration::from_millis(250);
/// Log lines of one container that are looked through and shown.
const LOG_LINES: &str = "200";
const SHOWN_LINES: usize = 10;

/// Stops one side's service. A command that fails where nothing runs has nothing left to stop, as when this is done again:
/// `docker stop` of no container is an error.
pub(crate) fn stop(run: &mut Run<'_>, step: &str, end: End) -> Result<(), StepError> {
    let service = &run.core(end).service;
    let name = if end == End::Source { action::STOP_SOURCE } else { action::STOP_DESTINATION };
    perform(run, step, name, end, &service.stop, service.stop_s, |run, ran| {
        let is_excused = ran.has_failed() && is_seen_stopped(run, end)?;
        if is_excused {
            run.say.note(&format!(
                "  it {}, but nothing of the plan runs there: {}",
                ran.ending(),
                last_words(ran)
            ));
        }
        Ok(is_excused)
    })
}

/// Whether the engine was asked and every process looked at, and nothing of the service runs.
fn is_seen_stopped(run: &Run<'_>, end: End) -> Result<bool, StepError> {
    let (host, core) = (run.host(end), run.core(end));
    Ok(evidence::containers(host, core)?.is_some()
        && !evidence::holders(host, &[])?.is_limited
        && evidence::running(run, end)?.is_empty())
}

/// Starts one side's service.
pub(crate) fn start(run: &mut Run<'_>, step: &str, end: End) -> Result<(), StepError> {
    let service = &run.core(end).service;
    let name = if end == End::Source { action::START_SOURCE } else { action::START_DESTINATION };
    perform(run, step, name, end, &service.start, service.start_s, never_excused)
}

/// Runs the script that sets owners at the destination, where the plan names one.
pub(crate) fn ensure_permissions(run: &mut Run<'_>, step: &str) -> Result<(), StepError> {
    let service = &run.core(End::Destination).service;
    match &service.ensure_permissions {
        Some(script) => {
            let name = "ensure permissions";
            perform(run, step, name, End::Destination, script, service.start_s, never_excused)
        }
        None => Ok(()),
    }
}

fn never_excused(_: &Run<'_>, _: &Ran) -> Result<bool, StepError> {
    Ok(false)
}

fn perform<'a>(
    run: &mut Run<'a>,
    step: &str,
    name: &str,
    end: End,
    action: &Action,
    limit_s: u32,
    excuse: impl FnOnce(&Run<'a>, &Ran) -> Result<bool, StepError>,
) -> Result<(), StepError> {
    let begun = json!({"command": action.to_string()});
    run.action(step, name, begun, |run| {
        run.say.tell(
            &format!("{name}: {action}"),
            &json!({"event": "action", "step": step, "action": name, "command": action.to_string()}),
        );
        let ran = run.host(end).run(&command(run, end, action, limit_s).awaited().outlived())?;
        if ran.is_success() || excuse(run, &ran)? {
            return Ok(((), said(&ran)));
        }
        Err(StepError::refused(format!(
            "{name}: `{action}` in {} {}: {}",
            run.core(end).root.as_path().display(),
            ran.ending(),
            last_words(&ran)
        )))
    })
}

fn command(run: &Run<'_>, end: End, action: &Action, limit_s: u32) -> Command {
    Command::new(action.words()).within(run.core(end).root.as_path()).limited(limit_s)
}

pub(crate) fn said(ran: &Ran) -> Value {
    json!({
        "status": ran.status,
        "elapsed_s": ran.elapsed_s,
        "stdout": text::tail(&ran.stdout, SAID_BYTES),
        "stderr": text::tail(&ran.stderr, SAID_BYTES),
    })
}

pub(crate) fn last_words(ran: &Ran) -> String {
    let said = if ran.stderr.trim_ascii().is_empty() { &ran.stdout } else { &ran.stderr };
    text::tail(said, 500)
}

/// Whether one side's service may be running: something shows it, or the journal does not say that it was stopped since
/// it was started.
pub(crate) fn may_run(run: &Run<'_>, end: End) -> Result<bool, StepError> {
    let position = run.position();
    let known = if end == End::Source { position.source } else { position.destination };
    Ok(matches!(known, Service::Started | Service::Unsure)
        || !evidence::running(run, end)?.is_empty()
        || !evidence::locked(run, end)?.is_empty())
}

/// Whether somebody else started the source again since it was stopped. Then what was copied is no longer all there is,
/// and the journal knows it.
pub(crate) fn source_runs_again(run: &mut Run<'_>, step: &str) -> Result<bool, StepError> {
    let signs = match evidence::working(run, End::Source) {
        Ok(signs) if signs.is_empty() => return Ok(false),
        Ok(signs) => signs,
        Err(HostError::Interrupted) => return Err(StepError::Interrupted),
        // Its machine may be gone for good: then nothing is left but to go on.
        Err(error) => {
            run.confirm(&format!(
                "Whether the source's service is still stopped can't be seen ({}). Go on all the same?",
                with_causes(&error)
            ))?;
            return Ok(false);
        }
    };
    run.say.note(&format!(
        "The source's service runs again, though this migration stopped it:\n  {}",
        signs.join("\n  ")
    ));
    run.record(step, action::START_SOURCE, State::Done, json!({"found": signs}))?;
    Ok(true)
}

/// Looks until nothing works on the data of one side any more.
pub(crate) fn prove_stopped(run: &Run<'_>, end: End) -> Result<(), StepError> {
    let patience = Instant::now() + SETTLE;
    loop {
        let signs = evidence::running(run, end)?;
        if signs.is_empty() {
            return Ok(());
        }
        run.stopped()?;
        if Instant::now() >= patience {
            return Err(StepError::refused(format!(
                "the {} is not stopped, though its stop command succeeded:\n  {}\nEnd what is named here and run this again",
                end.as_str(),
                signs.join("\n  ")
            )));
        }
        std::thread::sleep(LOOK);
    }
}

/// Waits until one side's service is well: its health command succeeds, or its containers are up.
pub(crate) fn wait_until_healthy(run: &mut Run<'_>, end: End) -> Result<(), StepError> {
    let service = &run.core(end).service;
    let patience = Instant::now() + Duration::from_secs(u64::from(service.health_s));
    loop {
        let Some(ill) = ill(run, end)? else { return Ok(()) };
        run.stopped()?;
        if Instant::now() >= patience {
            return Err(StepError::refused(format!(
                "the {}'s service was not healthy within {} s: {ill}",
                end.as_str(),
                service.health_s
            )));
        }
        std::thread::sleep(LOOK);
    }
}

/// What is wrong with a service, if something is.
pub(crate) fn ill(run: &Run<'_>, end: End) -> Result<Option<String>, StepError> {
    let (host, core) = (run.host(end), run.core(end));
    if let Some(health) = &core.service.health {
        let ran = host.run(&command(run, end, health, core.service.health_s))?;
        if !ran.is_success() {
            return Ok(Some(format!("`{health}` {}: {}", ran.ending(), last_words(&ran))));
        }
    }
    let Some(containers) = evidence::containers(host, core)? else { return Ok(None) };
    for wanted in &core.service.containers {
        match containers.iter().find(|container| container.service == *wanted) {
            None => return Ok(Some(format!("no container of {wanted} runs"))),
            Some(container) if !container.is_up() => {
                return Ok(Some(format!("container {}: {}", container.name, container.status)));
            }
            Some(_) => {}
        }
    }
    Ok(None)
}

/// Lines with errors in the logs of the containers that the plan names, since the service was started.
pub(crate) fn errors_in_logs(run: &Run<'_>, end: End) -> Result<Vec<String>, StepError> {
    let (host, core) = (run.host(end), run.core(end));
    let mut found = Vec::new();
    for container in evidence::containers(host, core)?.unwrap_or_default() {
        if !core.service.logs.contains(&container.service) {
            continue;
        }
        let ran = host.run(&evidence::docker(core, ["logs", "--tail", LOG_LINES, &container.name]))?;
        let is_error = |line: &&[u8]| {
            let line = String::from_utf8_lossy(line).to_ascii_lowercase();
            ["error", "fatal", "exception", "panic"].iter().any(|word| line.contains(word))
        };
        // Whatever the service wrote to its standard error comes on that of `docker logs`.
        let lines = ran.lines().chain(ran.stderr.split(|&byte| byte == b'\n'));
        let errors = lines.filter(is_error).take(SHOWN_LINES);
        found.extend(errors.map(|line| format!("{}: {}", container.service, text::foreign(line))));
    }
    Ok(found)
}

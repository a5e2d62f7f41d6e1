//! `rollback`: the destination is stopped and the source started again, as long as that loses nothing.

use super::host::quoted;
use super::plan::{DataSet, Plan};
use super::position::Service;
use super::run::{End, Run};
use super::service;
use super::step::StepError;
use super::{proxy, register};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Back to a source that serves.
pub(crate) fn rollback(run: &mut Run<'_>) -> Result<(), StepError> {
    let position = run.position();
    if position.has_served {
        return Err(refusal(run.plan));
    }
    let has_run = position.destination != Service::Untouched;
    if matches!(position.source, Service::Untouched | Service::Started)
        && position.stopped_ms.is_none()
        && !has_run
        && position.edited.is_empty()
    {
        run.say.note("Nothing to go back from: this migration has stopped nothing. The copies may stay.");
        return Ok(());
    }
    if run.settings.dry_run {
        for step in &position.edited {
            run.say.note(&format!("would put back what {step} edited"));
        }
        run.say
            .note(&format!("would stop the destination if it runs: {}", run.plan.destination.service.stop));
        run.say.note(&format!("would start the source: {}", run.plan.source.service.start));
        return Ok(());
    }
    run.confirm(
        "The destination's service is stopped and the source's started again; what was written to the destination since its \
         start is left there. Go on?",
    )?;
    run.recorded("rollback", |run| go_back(run, "rollback"))
}

/// Stops the destination if it runs, then starts the source: never both on one service.
pub(crate) fn go_back(run: &mut Run<'_>, step: &str) -> Result<(), StepError> {
    // Edits that nothing has read yet: the source must not start on them.
    let edited = run.position().edited;
    if edited.iter().any(|step| step == register::NAME) {
        register::restore(run)?;
    }
    if edited.iter().any(|step| step == proxy::NAME) {
        proxy::restore(run)?;
    }
    if service::may_run(run, End::Destination)? {
        service::stop(run, step, End::Destination)?;
        // Two services on one platform's data is what must not be.
        service::prove_stopped(run, End::Destination)?;
    }
    service::start(run, step, End::Source)?;
    service::wait_until_healthy(run, End::Source)?;
    run.say.note(
        "The source's service is up again. The copies are warm: `bulk` and `cold` bring them up to date.",
    );
    Ok(())
}

/// Why there is no way back, and how the data would go.
fn refusal(plan: &Plan) -> StepError {
    let lines: Vec<String> = plan.data.iter().map(|set| format!("  {}", reverse(plan, set))).collect();
    StepError::refused(format!(
        "clients reach the destination, or did, so going back would lose what they wrote since. To go back with that data: \
         `sync-client register undo`, `sync-client proxy disable`, stop both services, copy the data the other way, start the source:\n{}",
        lines.join("\n")
    ))
}

/// The line that copies a data set from the destination back to the source.
fn reverse(plan: &Plan, set: &DataSet) -> String {
    let word = |bytes: &[u8]| String::from_utf8_lossy(&quoted(bytes)).into_owned();
    let path = |path: &Path| format!("{}/", path.display());
    let mut words = vec!["sync-client sync --archive --checksum --numeric-ids --delete".to_owned()];
    let mut target = path(&plan.source_path(set));
    if let Some(ssh) = &plan.source.ssh {
        for identity in &ssh.identities {
            words.push(format!("--identity {}", word(identity.as_os_str().as_bytes())));
        }
        let user = ssh.user.as_ref().map(|user| format!("{}@", user.as_str())).unwrap_or_default();
        let port = ssh.port.map(|port| format!(":{port}")).unwrap_or_default();
        let host = ssh.host.as_str();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        target = format!("ssh://{user}{host}{port}{target}");
    }
    words.push(word(path(&plan.destination_path(set)).as_bytes()));
    words.push(word(target.as_bytes()));
    words.join(" ")
}

//! `rollback`: the destination is stopped and the source started again, as long as that loses nothing.
//!
//! Once clients may have written to the destination it only says how that data is copied back. Whoever did so goes on by
//! `rollback --data-returned`: it compares the source with the destination before it starts the source, and the journal
//! begins anew from there.

use super::engine::{self, Warmth};
use super::evidence;
use super::host::quoted;
use super::plan::{DataSet, Plan, Ssh};
use super::position::Service;
use super::run::{End, Run};
use super::service;
use super::step::StepError;
use super::{proxy, register};
use protocol::stats::Exit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The command once the data was copied back.
pub(crate) const RETURNED: &str = "rollback --data-returned";

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
    stop_destination(run, step)?;
    start_source(run, step)
}

fn stop_destination(run: &mut Run<'_>, step: &str) -> Result<(), StepError> {
    if service::may_run(run, End::Destination)? {
        service::stop(run, step, End::Destination)?;
        // Two services on one platform's data is what must not be.
        service::prove_stopped(run, End::Destination)?;
    }
    Ok(())
}

fn start_source(run: &mut Run<'_>, step: &str) -> Result<(), StepError> {
    service::start(run, step, End::Source)?;
    service::wait_until_healthy(run, End::Source)?;
    run.say.note(
        "The source's service is up again. The copies are warm: `bulk` and `cold` bring them up to date.",
    );
    Ok(())
}

/// Back to a source that holds what clients wrote to the destination.
pub(crate) fn after_return(run: &mut Run<'_>) -> Result<(), StepError> {
    let position = run.position();
    if !position.has_served {
        return rollback(run);
    }
    if let Some(step) = position.edited.iter().chain(&position.serving).next() {
        return Err(StepError::refused(format!(
            "clients are still sent to the destination by {step}: `sync-client register undo` and `sync-client proxy disable` first"
        )));
    }
    let is_up = !evidence::running(run, End::Source)?.is_empty();
    if run.settings.dry_run {
        run.say
            .note(&format!("would stop the destination if it runs: {}", run.plan.destination.service.stop));
        run.say.note("would compare the source with the destination");
        run.say.note(&format!("would start the source: {}", run.plan.source.service.start));
        return Ok(());
    }
    run.confirm(if is_up {
        "The source is up already, so nobody can compare whether it holds what clients wrote to the destination. Is that so?"
    } else {
        "The destination's service is stopped, and the source's started if it holds the same data. Go on?"
    })?;
    run.recorded(RETURNED, |run| {
        stop_destination(run, RETURNED)?;
        if !is_up {
            must_be_equal(run)?;
        }
        start_source(run, RETURNED)
    })
}

/// Nothing may be left at the destination that the source has not.
fn must_be_equal(run: &Run<'_>) -> Result<(), StepError> {
    let mut differences = Vec::new();
    for set in &run.plan.data {
        // What is at the destination alone counts as well, also where passes keep it.
        let set = DataSet { delete: true, ..set.clone() };
        let report = engine::pass(run.plan, &set, Warmth::Rehearsal, &run.environment, run.operator.stop)?;
        let pass = report.accept(&[Exit::Done])?.pass;
        if pass.changed_files + pass.deleted_entries > 0 {
            differences.push(format!(
                "  {}: {} files differ, {} entries are at the destination alone",
                set.name, pass.changed_files, pass.deleted_entries
            ));
        }
    }
    if differences.is_empty() {
        run.say.note("The source holds what the destination holds.");
        return Ok(());
    }
    Err(StepError::refused(format!(
        "the source does not hold what the destination holds, so starting it would lose what clients wrote:\n{}\nCopy the data \
         back, then run this again:\n{}",
        differences.join("\n"),
        reverse_lines(run.plan)
    )))
}

/// Why there is no way back, and how the data would go.
fn refusal(plan: &Plan) -> StepError {
    StepError::refused(format!(
        "clients reach the destination, or did, so going back would lose what they wrote since. To go back with that data: \
         `sync-client register undo`, `sync-client proxy disable`, stop the destination ({} in {}), copy the data the other \
         way, then `sync-client {RETURNED}`, which compares and starts the source:\n{}",
        plan.destination.service.stop,
        plan.destination.root.as_path().display(),
        reverse_lines(plan)
    ))
}

/// For each data set the line that copies it from the destination back to the source.
fn reverse_lines(plan: &Plan) -> String {
    let lines: Vec<String> = plan.data.iter().map(|set| format!("  {}", reverse(plan, set))).collect();
    lines.join("\n")
}

/// The line that copies a data set from the destination back to the source: what was left out of the copy stays there.
fn reverse(plan: &Plan, set: &DataSet) -> String {
    let mut words = vec!["sync-client sync --archive --checksum".to_owned()];
    let switches = [(set.numeric_ids, "--numeric-ids"), (set.xattrs, "--xattrs"), (set.delete, "--delete")];
    words.extend(switches.iter().filter(|(is_on, _)| *is_on).map(|(_, switch)| (*switch).to_owned()));
    words.extend(set.exclude.iter().map(|pattern| option("--exclude", pattern.as_bytes())));
    let mut target = contents_of(&plan.source_path(set));
    if let Some(ssh) = &plan.source.ssh {
        words.extend(access(ssh));
        let user = ssh.user.as_ref().map(|user| format!("{}@", user.as_str())).unwrap_or_default();
        let port = ssh.port.map(|port| format!(":{port}")).unwrap_or_default();
        let host = ssh.host.as_str();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        target = format!("ssh://{user}{host}{port}{target}");
    }
    words.extend([contents_of(&plan.destination_path(set)), target].map(|side| word(side.as_bytes())));
    words.join(" ")
}

fn contents_of(path: &Path) -> String {
    format!("{}/", path.display())
}

/// The plan's way to a host, as options of `sync`.
fn access(ssh: &Ssh) -> Vec<String> {
    let paths = |name: &'static str, paths: &[PathBuf]| {
        paths.iter().map(|path| option(name, path.as_os_str().as_bytes())).collect::<Vec<_>>()
    };
    let mut words = Vec::new();
    if ssh.command != "ssh" {
        words.push(option("-e", ssh.command.as_bytes()));
    }
    words.extend(paths("--identity", &ssh.identities));
    words.extend(paths("--known-hosts", &ssh.known_hosts));
    words.extend(ssh.host_key.as_ref().map(|key| option("--host-key", key.as_bytes())));
    words.extend(ssh.accept_new.then(|| "--accept-new".to_owned()));
    if ssh.agent != "sync-agent" {
        words.push(option("--agent-path", ssh.agent.as_bytes()));
    }
    words
}

fn option(name: &str, value: &[u8]) -> String {
    format!("{name} {}", word(value))
}

fn word(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&quoted(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::init;
    use super::super::plan::Layout;
    use super::*;

    #[test]
    fn the_lines_back_leave_alone_what_was_never_copied_and_reach_the_source_as_the_plan_does() {
        let text = init::plan(Layout::Of2019)
            .replace("# host_key = \"SHA256:…\"", "host_key = \"SHA256:x\"")
            .replace("agent = \"sync-agent\"", "agent = \"/opt/sync agent\"")
            .replace(
                "path = \"core/hfs/data\"",
                "path = \"core/hfs/data\"\ndelete = false\nnumeric_ids = false",
            );
        let plan = Plan::parse(&text, Path::new("plan.toml")).unwrap();
        let error = refusal(&plan).to_string();
        let lines: Vec<&str> = error.lines().skip(1).map(str::trim).collect();
        assert_eq!(lines.len(), 4, "{error}");
        let way = "--identity '~/.ssh/migration' --known-hosts '~/.ssh/known_hosts' --host-key SHA256:x --agent-path '/opt/sync agent'";
        let line = |switches: &str, path: &str| {
            format!(
                "sync-client sync --archive --checksum {switches}{way} /var/pryv/{path}/ ssh://root@old-core.example.com:22/var/pryv/{path}/"
            )
        };
        assert_eq!(lines[0], line("--numeric-ids --xattrs --delete ", "core/mongodb/data"));
        assert_eq!(lines[1], line("--numeric-ids --xattrs --delete --exclude /previews ", "core/core/data"));
        assert_eq!(lines[3], line("--xattrs ", "core/hfs/data"));
    }
}

//! `proxy` with the plan: the source's NGINX sends clients to the destination while names spread, and back.
//!
//! The order of `enable`: the file is edited (as [`crate::nginx`] does), NGINX tests it, and a failure puts the old file
//! back. Only then the journal says that clients reach the destination, which is the point of no return; NGINX is started
//! alone, never the whole service on old data; the check has to succeed. Each part changes nothing the second time,
//! so that an interrupted run is taken up by the same command: an edited file is tested and started again.
//! `disable` is the way back for requests, not for data: what clients wrote meanwhile is on the destination.

use super::files::Files;
use super::host::{Command, Host};
use super::journal::State;
use super::plan::{self, Action};
use super::position::action;
use super::run::{End, Run};
use super::service;
use super::step::{Step, StepError};
use crate::generated;
use crate::nginx::{self, Address, Edited, NginxError, Target, TrustedFile};
use crate::place::{Original, shown};
use crate::proxy::{BACKUP_SUFFIX, report};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The step, in the journal and for `migrate`.
pub(crate) const NAME: &str = "proxy";
/// Between two looks at who answers.
const LOOK: Duration = Duration::from_secs(1);
/// For one look.
const CHECK_S: u32 = 30;
/// Succeeds when both addresses give the name's root the same status, and that is not the proxy's own failure: the source's
/// own service is stopped, so behind its address nobody else could.
const CHECK_SCRIPT: &str = r#"status() {
  curl --silent --show-error --max-time 10 --output /dev/null --write-out '%{http_code}' $4 --resolve "$1:$3:$2" "https://$1:$3/"
}
through=$(status "$1" "$2" 443 "$5") || exit 1
direct=$(status "$1" "$3" "$4" "$5") || exit 1
echo "status $through through the source, $direct from the destination"
[ "$through" = "$direct" ] && [ "$through" -lt 500 ]"#;

/// `proxy enable`.
pub(crate) struct Enable;

impl Step for Enable {
    fn name(&self) -> &'static str {
        NAME
    }

    fn command(&self) -> &'static str {
        "proxy enable"
    }

    fn rehearse(&self, run: &mut Run<'_>) -> Result<Vec<String>, StepError> {
        let Some(proxy) = &run.plan.proxy else {
            return Ok(vec!["do nothing: the plan has no [proxy]".to_owned()]);
        };
        let host = run.shared_host(End::Source);
        let files = Files::of(&*host);
        let (original, edited, target) = look(run, proxy, &files)?;
        let lines = run.say.lines();
        report::edited(&lines, original.path(), &edited, &target);
        lines.diff(&shown(original.path()), original.bytes(), &edited.bytes);
        let mut said = vec![format!("edit {} on the source", shown(original.path()))];
        said.push(format!("test it there: {}", proxy.test));
        said.push(started(proxy.start.as_ref()));
        said.push("check from here that the source's address answers with the destination".to_owned());
        Ok(said)
    }

    fn carry_out(&self, run: &mut Run<'_>) -> Result<(), StepError> {
        let plan = run.plan;
        let Some(proxy) = &plan.proxy else {
            run.say.note("The plan has no [proxy]: NGINX stays as it is.");
            return Ok(());
        };
        must_be_healthy(run)?;
        run.confirm(
            "Clients that still reach the source's address write to the destination from here on: going back loses \
             nothing only before. Go on?",
        )?;
        let host = run.shared_host(End::Source);
        edit(run, proxy, &*host)?;
        // From the next record on there is no way back.
        run.stopped()?;
        run.record(NAME, action::SERVING, State::Begun, Value::Null)?;
        go_live(run, proxy, &*host)?;
        run.record(NAME, action::SERVING, State::Done, Value::Null)
    }
}

/// Clients are sent to nobody who does not serve, and not away from where they still write.
pub(crate) fn must_be_healthy(run: &mut Run<'_>) -> Result<(), StepError> {
    let position = run.position();
    if !position.is_healthy || !position.is_complete(&run.sets()) {
        return Err(StepError::refused(
            "the destination does not serve complete copies yet: clients are sent there after sync-client cold",
        ));
    }
    if let Some(ill) = service::ill(run, End::Destination)? {
        return Err(StepError::refused(format!(
            "the destination is not healthy now: {ill}\nMend that, or run sync-client cold, which starts it again"
        )));
    }
    if !position.has_served && service::source_runs_again(run, NAME)? {
        return Err(StepError::refused(
            "the source's service runs again, and what is written there is in no copy: run sync-client cold once more",
        ));
    }
    Ok(())
}

fn started(start: Option<&Action>) -> String {
    start.map_or_else(
        || "leave it to you to start NGINX alone: the plan has no proxy.start".to_owned(),
        |start| format!("start NGINX alone: {start}"),
    )
}

/// The file on the source, and what it becomes.
pub(crate) fn look<'f>(
    run: &Run<'_>,
    proxy: &plan::Proxy,
    files: &'f Files<'_>,
) -> Result<(Original<'f>, Edited, Target), StepError> {
    let original = read(run, proxy, files)?;
    if !run.settings.even_generated {
        generated::must_not_be(files, original.path()).map_err(unusable)?;
    }
    let target = target(run, proxy).map_err(|error| refused(&original, &error))?;
    let edited = nginx::enable(original.bytes(), &target).map_err(|error| refused(&original, &error))?;
    Ok((original, edited, target))
}

fn read<'f>(run: &Run<'_>, proxy: &plan::Proxy, files: &'f Files<'_>) -> Result<Original<'f>, StepError> {
    Original::read(files, &proxy.file.below(&run.plan.source.root)).map_err(unusable)
}

fn unusable(source: crate::place::FileError) -> StepError {
    StepError::File { host: "source".to_owned(), source }
}

fn refused(original: &Original<'_>, error: &NginxError) -> StepError {
    StepError::refused(format!("{}: {}", shown(original.path()), crate::console::with_causes(error)))
}

fn target(run: &Run<'_>, proxy: &plan::Proxy) -> Result<Target, NginxError> {
    let address = std::net::SocketAddr::new(run.plan.destination.address, proxy.port);
    let trusted = proxy.trusted_certificate.as_ref().map(|path| path.display().to_string());
    let trusted = trusted.as_deref().unwrap_or(TrustedFile::DEFAULT);
    let trusted = if proxy.verify { Some(TrustedFile::new(trusted)?) } else { None };
    Ok(Target { address: Address::parse(&address.to_string())?, upstreams: proxy.upstreams.clone(), trusted })
}

/// Edits the file and has it tested; a failure leaves the old one.
fn edit(run: &mut Run<'_>, proxy: &plan::Proxy, host: &dyn Host) -> Result<(), StepError> {
    let files = Files::of(host);
    let (original, edited, target) = look(run, proxy, &files)?;
    let lines = run.say.lines();
    report::edited(&lines, original.path(), &edited, &target);
    lines.diff(&shown(original.path()), original.bytes(), &edited.bytes);
    let is_first = matches!(nginx::disable(original.bytes()), Err(NginxError::NotEnabled));
    let is_live = run.position().serving.iter().any(|step| step == NAME);
    let data = json!({"file": shown(original.path()), "to": target.address.as_str()});
    run.action(NAME, action::EDIT, data, |run| {
        if original.bytes() != edited.bytes {
            if is_first {
                original.back_up(BACKUP_SUFFIX).map_err(unusable)?;
            }
            original.replace(&edited.bytes).map_err(unusable)?;
        }
        let root = run.plan.source.root.as_path();
        let Err(failed) = run.perform(NAME, "test NGINX on", host, root, &proxy.test) else {
            return Ok(((), Value::Null));
        };
        match is_live {
            // NGINX may serve by an earlier edit, which stays.
            true if original.bytes() == edited.bytes => return Err(failed),
            true => original.put_back(&edited.bytes).map_err(unusable)?,
            // Also where this run changed nothing: what was killed before its test must not stay.
            false => put_back(run, proxy, &files)?,
        }
        run.say.note("The old file is in its place again; NGINX was not touched.");
        Err(failed)
    })
}

fn go_live(run: &mut Run<'_>, proxy: &plan::Proxy, host: &dyn Host) -> Result<(), StepError> {
    match &proxy.start {
        Some(start) => run.perform(NAME, "start NGINX on", host, run.plan.source.root.as_path(), start)?,
        None => run.say.note(
            "The plan has no proxy.start: start NGINX on the source now, and it alone. run-core starts mongod and core on old \
             data as well.",
        ),
    }
    run.action(NAME, "check who answers", Value::Null, |run| {
        let patience = Instant::now() + Duration::from_secs(u64::from(proxy.check_s));
        loop {
            let Err(why) = answers(run, proxy)? else { break };
            run.stopped()?;
            if Instant::now() >= patience {
                return Err(StepError::refused(format!(
                    "the source's address did not answer with the destination within {} s: {why}\nClients may reach the \
                     destination all the same. Mend that and run `sync-client proxy enable` again, or take it back: \
                     `sync-client proxy disable`",
                    proxy.check_s
                )));
            }
            std::thread::sleep(LOOK);
        }
        run.say.note("The source's address answers with the destination.");
        Ok(((), Value::Null))
    })
}

/// Whether the destination answers behind the source's address; why not.
fn answers(run: &Run<'_>, proxy: &plan::Proxy) -> Result<Result<(), String>, StepError> {
    let plan = run.plan;
    let command = match (&proxy.check, name(plan)) {
        (Some(check), _) => Command::new(check.words()),
        (None, Some(name)) => {
            let port = proxy.port.to_string();
            let (source, destination) =
                (plan.source.address.to_string(), plan.destination.address.to_string());
            let verify = if proxy.verify { "--proto =https" } else { "--insecure" };
            Command::script(CHECK_SCRIPT, [name, &source, &destination, &port, verify])
        }
        (None, None) => {
            return Err(StepError::refused(
                "nothing says how to see who answers: give proxy.check, or the name in certificate.name",
            ));
        }
    };
    let host = run.host(End::Destination);
    let ran = host.run(&command.within(plan.destination.root.as_path()).limited(CHECK_S))?;
    Ok(if ran.is_success() {
        Ok(())
    } else {
        Err(format!("{}: {}", ran.ending(), service::last_words(&ran)))
    })
}

fn name(plan: &plan::Plan) -> Option<&str> {
    plan.certificate.as_ref().map(|certificate| certificate.name.as_str())
}

/// `proxy disable`: the file as it was, NGINX stopped (or started on it), and that in the journal.
pub(crate) fn disable(run: &mut Run<'_>) -> Result<(), StepError> {
    let plan = run.plan;
    let Some(proxy) = &plan.proxy else { return Err(StepError::refused("the plan has no [proxy]")) };
    let host = run.shared_host(End::Source);
    let files = Files::of(&*host);
    let original = read(run, proxy, &files)?;
    let live = proxy.stop.as_ref().or(proxy.start.as_ref());
    match nginx::disable(original.bytes()) {
        Err(NginxError::NotEnabled) if !run.position().is_in_place(NAME) => {
            run.say.note("Nothing to take back: the file is not edited.");
            return Ok(());
        }
        Ok(restored) => {
            report::restored(&run.say.lines(), original.path(), &restored);
            run.say.lines().diff(&shown(original.path()), original.bytes(), &restored.bytes);
        }
        // It was killed after the file was put back: NGINX may still be on the edited one.
        Err(NginxError::NotEnabled) => {}
        Err(error) => return Err(refused(&original, &error)),
    }
    if run.settings.dry_run {
        run.say.note(&format!("would put back {} on the source", shown(original.path())));
        live.iter().for_each(|live| run.say.note(&format!("would run {live} on the source")));
        return Ok(());
    }
    run.confirm("Clients of the source's address no longer reach the destination; what they wrote stays there. Go on?")?;
    run.recorded("proxy disable", |run| {
        restore(run)?;
        match live {
            Some(live) => run.perform("proxy disable", "NGINX on", &*host, plan.source.root.as_path(), live)?,
            None => run.say.note("The plan has neither proxy.stop nor proxy.start: stop NGINX on the source now."),
        }
        if proxy.stop.is_some() && answers(run, proxy)?.is_ok() {
            return Err(StepError::refused(
                "the source's address still answers with the destination: is another NGINX there? Stop it and run this again",
            ));
        }
        run.record(NAME, action::SERVING, State::Done, json!({"undone": true}))
    })
}

/// Puts the old file back, for whoever starts NGINX next.
pub(crate) fn restore(run: &mut Run<'_>) -> Result<(), StepError> {
    let plan = run.plan;
    let Some(proxy) = &plan.proxy else { return Ok(()) };
    let host: Arc<dyn Host> = run.shared_host(End::Source);
    put_back(run, proxy, &Files::of(&*host))
}

fn put_back(run: &mut Run<'_>, proxy: &plan::Proxy, files: &Files<'_>) -> Result<(), StepError> {
    run.action(NAME, action::RESTORE, Value::Null, |run| {
        let original = read(run, proxy, files)?;
        match nginx::disable(original.bytes()) {
            Err(NginxError::NotEnabled) => {}
            Err(error) => return Err(refused(&original, &error)),
            Ok(restored) => original.replace(&restored.bytes).map_err(unusable)?,
        }
        Ok(((), Value::Null))
    })
}

/// `proxy show`: the file on the source, and who answers.
pub(crate) fn show(run: &Run<'_>) -> Result<(), StepError> {
    let Some(proxy) = &run.plan.proxy else { return Err(StepError::refused("the plan has no [proxy]")) };
    let files = Files::of(run.host(End::Source));
    let original = read(run, proxy, &files)?;
    let overview = nginx::show(original.bytes()).map_err(|error| refused(&original, &error))?;
    report::listed(&run.say.lines(), original.path(), &overview);
    let (text, is_destination) = match answers(run, proxy)? {
        Ok(()) => ("The source's address answers with the destination.".to_owned(), true),
        Err(why) => (format!("The source's address does not answer with the destination: {why}"), false),
    };
    run.say.tell(&text, &json!({"event": "answer", "is_destination": is_destination}));
    Ok(())
}

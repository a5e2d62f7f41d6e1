//! `register` with the plan: the core's new address in the files of every register host, and back.
//!
//! All hosts' files are edited first, with what an undo needs beside each. Then the journal says that clients reach the
//! destination, each host's DNS server is restarted (it reads its file at start only), and each is asked over UDP until
//! it gives the new address. A repeated run edits nothing, restarts and asks again.

use super::files::Files;
use super::host::{Host, Machine};
use super::journal::State;
use super::plan::{self, RegisterHost};
use super::position::action;
use super::proxy::must_be_healthy;
use super::run::Run;
use super::step::{Step, StepError};
use crate::console::with_causes;
use crate::dns::{self, Family};
use crate::generated;
use crate::place::{FileError, Original, shown};
use crate::register::document::Document;
use crate::register::{self, CoreName, EditError, Edited, Records, UNDO_SUFFIX};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The step, in the journal and for `migrate`.
pub(crate) const NAME: &str = "register";
/// For one question.
const ASK: Duration = Duration::from_secs(5);
/// Between two questions.
const LOOK: Duration = Duration::from_millis(500);

/// `register set`.
pub(crate) struct Set;

impl Step for Set {
    fn name(&self) -> &'static str {
        NAME
    }

    fn command(&self) -> &'static str {
        "register set"
    }

    fn rehearse(&self, run: &mut Run<'_>) -> Result<Vec<String>, StepError> {
        let Some(register) = &run.plan.register else {
            return Ok(vec!["do nothing: the plan has no [register]".to_owned()]);
        };
        let mut said = Vec::new();
        for host in &register.hosts {
            let machine = run.register(host)?;
            let files = Files::of(&machine);
            for (original, edited) in changes(run, register, host, &files)? {
                run.say.lines().diff(&shown(original.path()), original.bytes(), &edited.bytes);
                said.push(format!("edit {} on {}", shown(original.path()), host.name));
            }
            said.push(format!("restart the DNS server on {}: {}", host.name, host.restart));
            said.extend(host.dns.map(|server| format!("ask {server} for {}", asked(register))));
        }
        Ok(said)
    }

    fn carry_out(&self, run: &mut Run<'_>) -> Result<(), StepError> {
        let plan = run.plan;
        let Some(register) = &plan.register else {
            run.say.note("The plan has no [register]: the names stay as they are.");
            return Ok(());
        };
        must_be_healthy(run)?;
        run.confirm("New clients reach the destination by its name from here on, and write there. Go on?")?;
        let machines = machines(run, register)?;
        // All are looked at before one is changed.
        for (host, machine) in register.hosts.iter().zip(&machines) {
            changes(run, register, host, &Files::of(machine))?;
        }
        for (host, machine) in register.hosts.iter().zip(&machines) {
            set_host(run, register, host, machine)?;
        }
        // From the next record on there is no way back.
        run.stopped()?;
        run.record(NAME, action::SERVING, State::Begun, Value::Null)?;
        for (host, machine) in register.hosts.iter().zip(&machines) {
            run.perform(NAME, "restart DNS on", machine, host.root.as_path(), &host.restart)?;
        }
        for (host, machine) in register.hosts.iter().zip(&machines) {
            ask_for_what_is_named(run, register, host, machine)?;
        }
        run.record(NAME, action::SERVING, State::Done, Value::Null)
    }
}

fn machines(run: &Run<'_>, register: &plan::Register) -> Result<Vec<Machine>, StepError> {
    register.hosts.iter().map(|host| run.register(host)).collect()
}

fn unusable(host: &RegisterHost) -> impl Fn(FileError) -> StepError {
    let host = host.name.to_string();
    move |source| StepError::File { host: host.clone(), source }
}

fn refused(original: &Original<'_>, error: &(dyn std::error::Error + 'static)) -> StepError {
    StepError::refused(format!("{}: {}", shown(original.path()), with_causes(error)))
}

fn core(register: &plan::Register) -> Result<CoreName, StepError> {
    let name = register.core.as_str();
    name.parse().map_err(|why| StepError::refused(format!("register.core {name:?}: {why}")))
}

/// The name that servers are asked for.
pub(crate) fn asked(register: &plan::Register) -> String {
    format!("{}.{}", register.core.as_str(), register.domain.as_str())
}

/// The DNS server's file, and the register's where the plan names one.
fn paths(host: &RegisterHost) -> impl Iterator<Item = (bool, PathBuf)> {
    let more = host.register_file.as_ref().map(|file| (false, file.below(&host.root)));
    std::iter::once((true, host.dns_file.below(&host.root))).chain(more)
}

/// The files of a host that name the core, and what they become.
fn changes<'f>(
    run: &Run<'_>,
    register: &plan::Register,
    host: &RegisterHost,
    files: &'f Files<'_>,
) -> Result<Vec<(Original<'f>, Edited)>, StepError> {
    let mut changes = Vec::new();
    for (original, edited) in edits(run, register, host, files)? {
        match edited {
            Some(edited) => changes.push((original, edited)),
            None => run.say.note(&format!(
                "{} has no entry {}: left as it is",
                shown(original.path()),
                register.core.as_str()
            )),
        }
    }
    Ok(changes)
}

/// Each file of a host, the DNS server's first, and what it becomes; the register's own stays where it does not name the core.
pub(crate) fn edits<'f>(
    run: &Run<'_>,
    register: &plan::Register,
    host: &RegisterHost,
    files: &'f Files<'_>,
) -> Result<Vec<(Original<'f>, Option<Edited>)>, StepError> {
    let core = core(register)?;
    let mut edits = Vec::new();
    for (is_dns, path) in paths(host) {
        let original = Original::read(files, &path).map_err(unusable(host))?;
        if !run.settings.even_generated {
            generated::must_not_be(files, original.path()).map_err(unusable(host))?;
        }
        let is_named = is_dns || names(&original, &core)?;
        let edited = is_named.then(|| edited(run, &original, &core)).transpose()?;
        edits.push((original, edited));
    }
    Ok(edits)
}

/// A file with the destination's address. Of several addresses the source's alone gives way: the others are other machines.
fn edited(run: &Run<'_>, original: &Original<'_>, core: &CoreName) -> Result<Edited, StepError> {
    let (source, destination) = (run.plan.source.address, run.plan.destination.address);
    let all = addresses(original, core);
    let is_there = |address: IpAddr| all.iter().any(|text| text.parse() == Ok(address));
    let old = match all.as_slice() {
        [] | [_] => None,
        _ if is_there(source) => Some(source.to_string()),
        // A repeated run.
        _ if is_there(destination) => Some(destination.to_string()),
        _ => {
            return Err(StepError::refused(format!(
                "{}: {} has several addresses, and none is the source's ({source}): put it right there first",
                shown(original.path()),
                core.as_str()
            )));
        }
    };
    let edited = register::set(original.bytes(), core, destination, old.as_deref());
    edited.map_err(|error| refused(original, &error))
}

/// The core's addresses; none where the file is not understood, which the edit refuses.
fn addresses(original: &Original<'_>, core: &CoreName) -> Vec<String> {
    let Ok(document) = Document::parse(original.bytes()) else { return Vec::new() };
    let entry = document.entry(core.as_str()).ok().flatten();
    let all = entry.and_then(|entry| entry.addresses).map(|found| found.all);
    all.into_iter().flatten().map(|address| address.text).collect()
}

fn names(original: &Original<'_>, core: &CoreName) -> Result<bool, StepError> {
    let document = Document::parse(original.bytes()).map_err(|error| refused(original, &error))?;
    // A file of another shape names no core.
    Ok(document.entry(core.as_str()).is_ok_and(|entry| entry.is_some()))
}

fn set_host(
    run: &mut Run<'_>,
    register: &plan::Register,
    host: &RegisterHost,
    machine: &Machine,
) -> Result<(), StepError> {
    let files = Files::of(machine);
    let core = core(register)?;
    for (original, edited) in changes(run, register, host, &files)? {
        tell_ttl(run, &original);
        tell_elsewhere(run, &original, &edited).map_err(unusable(host))?;
        let edited = edited.bytes;
        if edited == original.bytes() {
            continue;
        }
        run.say.lines().diff(&shown(original.path()), original.bytes(), &edited);
        let data = json!({"host": host.name.as_str(), "file": shown(original.path())});
        run.action(NAME, action::EDIT, data, |_| {
            let undo = original.sidecar(UNDO_SUFFIX);
            let kept = undo.read().map_err(unusable(host))?;
            let earlier = kept.as_deref().map(Records::parse).transpose();
            let earlier = earlier.map_err(|error| refused(&original, &error))?;
            let records = Records::with_edit(earlier.as_ref(), &core, original.bytes(), &edited)
                .map_err(|error| refused(&original, &error))?;
            register::write(&original, &edited, &undo, kept.as_deref(), records.as_ref())
                .map_err(unusable(host))?;
            Ok(((), Value::Null))
        })?;
    }
    Ok(())
}

/// Other places where the old address stands; they are left.
fn tell_elsewhere(run: &Run<'_>, original: &Original<'_>, edited: &Edited) -> Result<(), FileError> {
    let Ok(document) = Document::parse(&edited.bytes) else { return Ok(()) };
    let (out, address) = (run.say.lines(), run.plan.destination.address);
    register::tell_elsewhere(&out, &[], original, &document, &edited.old, address)
}

/// How long others remember the old address, and so how long the proxy must stay.
fn tell_ttl(run: &Run<'_>, original: &Original<'_>) {
    if let Ok(document) = Document::parse(original.bytes()) {
        let (text, event) = register::ttl(&document);
        run.say.tell(&text, &event);
    }
}

/// Asks a host's DNS server until it answers with these addresses, of one family, and no other.
fn wait_for(
    run: &mut Run<'_>,
    register: &plan::Register,
    host: &RegisterHost,
    due: &[IpAddr],
) -> Result<(), StepError> {
    let Some(server) = host.dns else {
        run.say.note(&format!("{} has no `dns` in the plan: nobody was asked what it answers", host.name));
        return Ok(());
    };
    let (name, addresses) = (asked(register), register::listed(due));
    let family = Family::of(due.first().copied().unwrap_or(run.plan.destination.address));
    run.action(NAME, &format!("ask DNS of {}", host.name), json!({"server": server, "due": due}), |run| {
        let patience = Instant::now() + Duration::from_secs(u64::from(register.answer_s));
        let ttl_s = loop {
            let said = match dns::ask(server, &name, family, ASK) {
                Ok(answer) if are_same(&answer.addresses, due) => break answer.ttl_s,
                Ok(answer) => register::listed(&answer.addresses),
                Err(error) => with_causes(&error),
            };
            run.stopped()?;
            if Instant::now() >= patience {
                return Err(StepError::refused(format!(
                    "{}: {server} does not give {name} the address {addresses} within {} s, but: {said}\nWas its DNS server really \
                     restarted? Then run this again",
                    host.name, register.answer_s
                )));
            }
            std::thread::sleep(LOOK);
        };
        let event = json!({"event": "answer", "server": server, "name": name, "addresses": due, "ttl_s": ttl_s});
        run.say.tell(&format!("{}: {server} answers {name} with {addresses}", host.name), &event);
        Ok(((), json!({"ttl_s": ttl_s})))
    })
}

/// Servers give several addresses in any order.
fn are_same(one: &[IpAddr], other: &[IpAddr]) -> bool {
    one.iter().collect::<BTreeSet<_>>() == other.iter().collect()
}

/// `register undo`: every file as it was, the servers restarted and asked for the old address.
pub(crate) fn undo(run: &mut Run<'_>) -> Result<(), StepError> {
    let plan = run.plan;
    let Some(register) = &plan.register else { return Err(StepError::refused("the plan has no [register]")) };
    if !run.position().is_in_place(NAME) {
        run.say.note("Nothing to take back: this migration has set no address.");
        return Ok(());
    }
    if run.settings.dry_run {
        for host in &register.hosts {
            run.say
                .note(&format!("would put back the address on {} and restart: {}", host.name, host.restart));
        }
        return Ok(());
    }
    run.confirm("New clients reach the source's address again; what was written to the destination stays there. Go on?")?;
    run.recorded("register undo", |run| {
        restore(run)?;
        let machines = machines(run, register)?;
        for (host, machine) in register.hosts.iter().zip(&machines) {
            run.perform("register undo", "restart DNS on", machine, host.root.as_path(), &host.restart)?;
        }
        for (host, machine) in register.hosts.iter().zip(&machines) {
            ask_for_what_is_named(run, register, host, machine)?;
        }
        run.record(NAME, action::SERVING, State::Done, json!({"undone": true}))
    })
}

/// Asks a host's DNS server for what its file says: others beside the destination's address, or after an undo another than
/// the plan's.
fn ask_for_what_is_named(
    run: &mut Run<'_>,
    register: &plan::Register,
    host: &RegisterHost,
    machine: &Machine,
) -> Result<(), StepError> {
    let files = Files::of(machine);
    let original = Original::read(&files, &host.dns_file.below(&host.root)).map_err(unusable(host))?;
    let document = Document::parse(original.bytes()).map_err(|error| refused(&original, &error))?;
    let entry = document.entry(register.core.as_str()).map_err(|error| refused(&original, &error))?;
    let ips = entry.map(|entry| entry.ips()).unwrap_or_default();
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = ips.into_iter().partition(IpAddr::is_ipv4);
    if v4.is_empty() && v6.is_empty() {
        run.say.note(&format!(
            "{} names no address of {}: nobody was asked",
            host.name,
            register.core.as_str()
        ));
    }
    for due in [v4, v6].iter().filter(|due| !due.is_empty()) {
        wait_for(run, register, host, due)?;
    }
    Ok(())
}

/// Puts every file back, for whoever starts the servers next.
pub(crate) fn restore(run: &mut Run<'_>) -> Result<(), StepError> {
    let plan = run.plan;
    let Some(register) = &plan.register else { return Ok(()) };
    run.action(NAME, action::RESTORE, Value::Null, |run| {
        for (host, machine) in register.hosts.iter().zip(&machines(run, register)?) {
            let files = Files::of(machine);
            for (_, path) in paths(host) {
                let original = Original::read(&files, &path).map_err(unusable(host))?;
                restore_file(run, register, host, &original)?;
            }
        }
        Ok(((), Value::Null))
    })
}

fn restore_file(
    run: &Run<'_>,
    register: &plan::Register,
    host: &RegisterHost,
    original: &Original<'_>,
) -> Result<(), StepError> {
    let sidecar = original.sidecar(UNDO_SUFFIX);
    let Some(kept) = sidecar.read().map_err(unusable(host))? else { return Ok(()) };
    let core = core(register)?;
    let records = Records::parse(&kept).map_err(|error| refused(original, &error))?;
    let undone = match records.undo(original.bytes(), Some(&core)) {
        // What is kept there is of another core.
        Err(EditError::NotSet { .. }) => return Ok(()),
        undone => undone.map_err(|error| refused(original, &error))?,
    };
    run.say.lines().diff(&shown(original.path()), original.bytes(), &undone.bytes);
    if undone.bytes != original.bytes() {
        original.replace(&undone.bytes).map_err(unusable(host))?;
    }
    let left = undone.left.as_ref().map(Records::to_bytes);
    sidecar.change(Some(&kept), left.as_deref()).map_err(unusable(host))
}

/// `register show`: the entry in each file, the time to live, and what each server answers now.
pub(crate) fn show(run: &Run<'_>) -> Result<(), StepError> {
    let Some(register) = &run.plan.register else {
        return Err(StepError::refused("the plan has no [register]"));
    };
    let name = asked(register);
    for host in &register.hosts {
        let machine = run.register(host)?;
        let files = Files::of(&machine);
        let original = Original::read(&files, &host.dns_file.below(&host.root)).map_err(unusable(host))?;
        let document = Document::parse(original.bytes()).map_err(|error| refused(&original, &error))?;
        let entry = document.entry(register.core.as_str()).map_err(|error| refused(&original, &error))?;
        run.say.line(&format!("{} ({}):", machine.name(), shown(original.path())));
        match &entry {
            Some(entry) => register::tell_entry(&run.say.lines(), &document, entry),
            None => run.say.note(&format!("  no entry {}", register.core.as_str())),
        }
        tell_ttl(run, &original);
        let Some(server) = host.dns else { continue };
        let said = match dns::ask(server, &name, Family::of(run.plan.destination.address), ASK) {
            Ok(answer) => answer.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", "),
            Err(error) => with_causes(&error),
        };
        let event = json!({"event": "answer", "server": server, "name": name, "said": said});
        run.say.tell(&format!("{server} answers {name} with: {said}"), &event);
    }
    Ok(())
}

//! The plan's `[register]`: what each host's files say of the core, whether they can be edited, who answers for the name now.

use super::{Table, Verdict, is_interrupted, scripts};
use crate::console::with_causes;
use crate::dns::{self, Family};
use crate::migration::files::Files;
use crate::migration::host::Machine;
use crate::migration::plan::{self, RegisterHost};
use crate::migration::register::{self, asked};
use crate::migration::step::StepError;
use crate::migration::text::{self, duration};
use crate::place::shown;
use crate::register::document::{DEFAULT_TTL_S, Document};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// For one question; a server that is there answers at once.
const ASK: Duration = Duration::from_secs(3);

/// Rows for each host.
pub(super) fn look(table: &mut Table<'_, '_>) -> Result<(), StepError> {
    let Some(register) = &table.run.plan.register else { return Ok(()) };
    for host in &register.hosts {
        let what = format!("register {}", host.name);
        match of_host(table, register, host) {
            Ok(()) => {}
            Err(error) if is_interrupted(&error) => return Err(error),
            Err(error) => table.row(Verdict::Fail, &what, words(&error)),
        }
        server(table, register, host);
    }
    Ok(())
}

/// What is missing is named as such; the rest as it comes.
fn words(error: &StepError) -> String {
    match error {
        StepError::File { source: crate::place::FileError::Io { path, source, .. }, .. }
            if source.kind() == io::ErrorKind::NotFound =>
        {
            format!("there is no {}", shown(path))
        }
        error => with_causes(error),
    }
}

/// Its files, with the edit made in memory, and its restart.
fn of_host(
    table: &mut Table<'_, '_>,
    register: &plan::Register,
    host: &RegisterHost,
) -> Result<(), StepError> {
    let what = format!("register {}", host.name);
    let machine: Machine = table.run.register(host)?;
    let source = table.run.plan.source.address.to_string();
    let files = Files::of(&machine);
    for (at, (original, edited)) in
        register::edits(table.run, register, host, &files)?.into_iter().enumerate()
    {
        let core = register.core.as_str();
        let (verdict, detail) = match (at, edited) {
            (0, _) => judge_names(original.bytes(), core, &source),
            (_, Some(_)) => {
                (Verdict::Pass, format!("{} names {core}: changed as well", shown(original.path())))
            }
            (_, None) => (Verdict::Pass, format!("{} has no entry {core}: left", shown(original.path()))),
        };
        table.row(verdict, &what, detail);
    }
    scripts::of_machine(table, &what, &machine, host.root.as_path(), &[("restart", &host.restart)])
}

/// A `dns.json`: does it send the core's clients to the source, and how long will they go on?
fn judge_names(content: &[u8], core: &str, source: &str) -> (Verdict, String) {
    let document = match Document::parse(content) {
        Ok(document) => document,
        Err(error) => return (Verdict::Fail, with_causes(&error)),
    };
    let addresses: Vec<String> = match document.entry(core) {
        Err(error) => return (Verdict::Fail, with_causes(&error)),
        Ok(None) => return (Verdict::Fail, format!("it has no entry {core}")),
        Ok(Some(entry)) => {
            entry.addresses.into_iter().flat_map(|found| found.all).map(|one| one.text).collect()
        }
    };
    let ttl_s = document.ttl_s().unwrap_or(DEFAULT_TTL_S);
    let remembered = format!(
        "others remember answers for {} (dns.defaultTTL): so long the source has to send clients on. Lower it as long before",
        duration(ttl_s as f64)
    );
    let shown = text::foreign(addresses.join(", ").as_bytes());
    if addresses.iter().any(|address| address == source) {
        return (Verdict::Pass, format!("{core} is {shown}; {remembered}"));
    }
    (Verdict::Warn, format!("{core} is {shown}, not the source's {source}; {remembered}"))
}

/// Who answers for the name now.
fn server(table: &mut Table<'_, '_>, register: &plan::Register, host: &RegisterHost) {
    let what = format!("DNS of {}", host.name);
    let name = asked(register);
    let Some(server) = host.dns else {
        let detail = "no `dns` in the plan: nobody will be asked whether it answers with the new address";
        return table.row(Verdict::Warn, &what, detail);
    };
    let source = table.run.plan.source.address;
    let (is_good, detail) = match dns::ask(server, &name, Family::of(source), ASK) {
        Ok(answer) => {
            let all: Vec<String> = answer.addresses.iter().map(IpAddr::to_string).collect();
            let all = if all.is_empty() { "no address".to_owned() } else { all.join(", ") };
            let is_source = answer.addresses.contains(&source);
            let but = if is_source { String::new() } else { format!(", not the source's {source}") };
            (is_source, format!("{server} answers {name} with {all}{but}"))
        }
        Err(error) => {
            let why = with_causes(&error);
            (
                false,
                format!(
                    "{why}\n`register set` asks it after the restart, and fails where it does not answer"
                ),
            )
        }
    };
    table.judge(is_good, Verdict::Warn, &what, detail);
}

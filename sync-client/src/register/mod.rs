//! `register`: a core's address in the file of a register's DNS server, set, put back, shown.
//!
//! The story of `set`: read, edit (`edit`, pure), show the difference and where else the old address stands, ask, write
//! what an undo needs beside the file, then the file. In that order, so that a kill at any moment leaves a file
//! that `undo` can bring back. What is kept is `FILE.sync-client-undo`; no server loads a file of that name. `show`
//! also asks a running server ([`crate::dns`]), for it reads its file at start only.

pub(crate) mod document;
mod edit;

use crate::console::Lines;
use crate::dns::{self, DnsError, Family};
use crate::generated;
use crate::options::{changing, json, option, path, plan};
use crate::place::{FileError, Original, Sidecar, ThisMachine, shown};
use crate::prompts::{PromptError, Prompts};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use document::{DEFAULT_TTL_S, Document, Entry, words};
pub use document::{DocumentError, Position};
pub use edit::{CoreName, EditError, Edited, Records, Undone, set};
use protocol::path::escaped;
use protocol::stats::Exit;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// What an undo needs is beside the file, under its name with this after it.
pub const UNDO_SUFFIX: &str = ".sync-client-undo";
const DNS_PORT: u16 = 53;

/// `register set`, `register undo`, `register show`.
#[must_use]
pub fn command() -> Command {
    Command::new("register")
        .about("Set a core's address in a register's dns.json, put it back, show it, ask the DNS server")
        .long_about(
            "Changes the address of one core in the JSON file of a register's DNS server (dns.staticDataInDomain.NAME.ip), \
             and nothing else in it: every other byte stays. The server reads its file at start only: restart it \
             afterwards, on each register host, and let `register show --ask` see that it answers with the new address.\n\nWithout --file it \
             is a step of the migration: the plan's core on all its register hosts, restarted and asked.",
        )
        .after_help(
            "Examples:\n  \
             sync-client register set --file dns.json --core co1 --ip 203.0.113.7 --dry-run\n  \
             sync-client register show --file dns.json --core co1 --ask 192.0.2.53 --domain example.com\n  \
             sync-client register undo --file dns.json\n\n\
             Exit status: 0 done, 1 usage, 3 no such file or entry, 10 and 30 no answer, 11 file, 44 disk full, 45 the server answers \
             otherwise, 46 refused (not JSON, not agreed to, changed since …).",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(set_command())
        .subcommand(undo_command())
        .subcommand(show_command())
}

fn set_command() -> Command {
    let command = Command::new("set")
        .about("Give a core its new address")
        .arg(file())
        .arg(core("The core, as in co1 of co1.example.com").requires("file"))
        .arg(
            option("ip", "ADDRESS", "Its new address, IPv4 or IPv6")
                .requires("file")
                .value_parser(value_parser!(IpAddr)),
        )
        .mut_arg("file", |file| file.requires("core").requires("ip"))
        .arg(
            option("old", "ADDRESS", "Of several addresses only this one gives way [default: all do]")
                .requires("file"),
        )
        .arg(
            path("also", "FILE", "Another file to look for the old address in (repeatable)")
                .requires("file")
                .action(ArgAction::Append),
        )
        .arg(plan())
        .arg(generated::option());
    changing(command)
}

fn undo_command() -> Command {
    let command = Command::new("undo")
        .about("Put back what `register set` changed in a file")
        .arg(file())
        .arg(core("Only this core [default: all that were set]").requires("file"))
        .arg(plan());
    changing(command)
}

fn show_command() -> Command {
    Command::new("show")
        .about("Show the addresses in a file, how long answers live, and what a DNS server answers")
        .arg(file())
        .arg(core("Only this core").requires("file"))
        .arg(plan())
        .arg(option("ask", "SERVER[:PORT]", "Ask this DNS server over UDP for the core").requires("core"))
        .arg(option("domain", "DOMAIN", "The platform's domain [default: dns.domain of the file]"))
        .arg(
            option("timeout", "SECONDS", "How long to wait for an answer [default: 5]")
                .value_parser(value_parser!(u64).range(1..=3600)),
        )
        .arg(json())
}

fn file() -> Arg {
    path(
        "file",
        "FILE",
        "The file of the DNS server: dns.json, or register.json [default: the plan's, on its hosts]",
    )
}

fn core(help: &'static str) -> Arg {
    option("core", "NAME", help).value_parser(value_parser!(CoreName))
}

/// Why a command ended.
#[derive(Debug, Error)]
enum RegisterError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Prompt(#[from] PromptError),
    #[error("{}:{source}", shown(path))]
    Document { path: PathBuf, source: DocumentError },
    #[error("{}: {source}", shown(path))]
    Edit { path: PathBuf, source: EditError },
    #[error("there is nothing to undo: {} is not there; `register set` writes it", shown(path))]
    NothingToUndo { path: PathBuf },
    #[error("{} has no entry {core}; it has {}", shown(path), escaped(names.as_bytes()))]
    NoEntry { path: PathBuf, core: String, names: String },
    #[error("--ask {text}: {reason}")]
    Server { text: String, reason: String },
    #[error("the file names no domain (dns.domain); give --domain")]
    NoDomain,
    #[error("{core} has no address in {} to compare an answer with", shown(path))]
    NoAddress { path: PathBuf, core: String },
    #[error("no usable answer")]
    Dns(#[from] DnsError),
    #[error("{server} answers {name} with {found}, the file says {due}; was the server restarted?")]
    Differs { server: SocketAddr, name: String, found: String, due: String },
}

impl RegisterError {
    fn exit(&self) -> Exit {
        match self {
            RegisterError::File(error) => error.exit(),
            RegisterError::Prompt(error) => error.exit(),
            RegisterError::NoEntry { .. } | RegisterError::NoAddress { .. } => Exit::Selection,
            RegisterError::Server { .. }
            | RegisterError::NoDomain
            | RegisterError::Dns(DnsError::Name { .. }) => Exit::Usage,
            RegisterError::Dns(DnsError::Silent { .. }) => Exit::Timeout,
            RegisterError::Dns(DnsError::NoSuchName { .. }) | RegisterError::Differs { .. } => Exit::Differs,
            RegisterError::Dns(_) => Exit::Connection,
            _ => Exit::Refused,
        }
    }
}

/// Carries out the command and returns the exit status.
pub fn run(matches: &ArgMatches, prompts: &Prompts) -> u8 {
    let Some((name, matches)) = matches.subcommand() else { return Exit::Usage.code() };
    let out = Lines { json: matches.get_flag("json"), is_shown: prompts.is_shown };
    let result = match name {
        "set" => set_file(matches, prompts, &out),
        "undo" => undo_file(matches, prompts, &out),
        _ => show_file(matches, &out),
    };
    match result {
        Ok(()) => Exit::Done.code(),
        Err(error) => out.fail(&error, error.exit()),
    }
}

fn original(matches: &ArgMatches) -> Result<Original<'static>, FileError> {
    Original::read(&ThisMachine, matches.get_one::<PathBuf>("file").map_or(Path::new(""), PathBuf::as_path))
}

fn set_file(matches: &ArgMatches, prompts: &Prompts, out: &Lines) -> Result<(), RegisterError> {
    let (Some(core), Some(&ip)) = (matches.get_one::<CoreName>("core"), matches.get_one::<IpAddr>("ip"))
    else {
        return Ok(());
    };
    let original = original(matches)?;
    generated::must_be_ours(matches, original.place(), original.path())?;
    let refused = |source| RegisterError::Edit { path: original.path().to_owned(), source };
    let old = matches.get_one::<String>("old").map(String::as_str);
    let edited = set(original.bytes(), core, ip, old).map_err(|source| edit_error(&original, source))?;
    let is_changed = edited.bytes != original.bytes();
    tell_change(out, &original, core, ip, &edited);
    out.diff(&shown(original.path()), original.bytes(), &edited.bytes);
    let document = Document::parse(&edited.bytes)
        .map_err(|source| RegisterError::Document { path: original.path().to_owned(), source })?;
    let named: Vec<PathBuf> = matches.get_many("also").into_iter().flatten().cloned().collect();
    tell_elsewhere(out, &named, &original, &document, &edited.old, ip)?;
    let (ttl, event) = ttl(&document);
    out.remark(&ttl, &event);
    if ip.is_ipv6() {
        let note = "the platform's DNS server of 2019 gives A records only: ask yours for this address (register show --ask)";
        out.remark(note, &json!({"event": "note", "message": note}));
    }
    let is_written = is_changed && !matches.get_flag("dry-run");
    if is_written {
        let undo = original.sidecar(UNDO_SUFFIX);
        let kept = undo.read()?;
        let earlier = kept.as_deref().map(|bytes| records(&undo, bytes)).transpose()?;
        let records = Records::with_edit(earlier.as_ref(), core, original.bytes(), &edited.bytes);
        let records = records.map_err(refused)?;
        let _stop = prompts.agree(matches, &format!("Change {}?", shown(original.path())))?;
        write(&original, &edited.bytes, &undo, kept.as_deref(), records.as_ref())?;
        let restart = "now restart the DNS server, which reads it at start only";
        let file = shown(original.path());
        out.note(&format!("written; {restart}. To go back: sync-client register undo --file {file}"));
    }
    out.object(&json!({"event": "summary", "file": shown(original.path()), "core": core.as_str(), "ip": ip,
        "old": edited.old, "kept": edited.kept, "changed": is_written, "exit_code": 0}));
    Ok(())
}

/// Errors that begin with a place stand right after the file's name, as compilers print them.
fn edit_error(original: &Original<'_>, source: EditError) -> RegisterError {
    let path = original.path().to_owned();
    match source {
        EditError::Document(source) => RegisterError::Document { path, source },
        source => RegisterError::Edit { path, source },
    }
}

/// What an undo needs first: killed in between, the file is as it was, and `undo` sees that.
pub(crate) fn write(
    original: &Original<'_>,
    bytes: &[u8],
    undo: &Sidecar<'_>,
    kept: Option<&[u8]>,
    records: Option<&Records>,
) -> Result<(), FileError> {
    let records = records.map(Records::to_bytes);
    if let Some(records) = &records {
        undo.change(kept, Some(records))?;
    }
    if let Err(error) = original.replace(bytes) {
        // What was kept there before may be of somebody else's edit.
        if let Some(records) = &records
            && original.place().read(original.path()).is_ok_and(|now| now != bytes)
        {
            undo.change(Some(records), kept)?;
        }
        return Err(error);
    }
    if records.is_none() {
        undo.change(kept, None)?;
    }
    Ok(())
}

fn records(undo: &Sidecar<'_>, bytes: &[u8]) -> Result<Records, RegisterError> {
    Records::parse(bytes).map_err(|source| RegisterError::Edit { path: undo.path().to_owned(), source })
}

fn tell_change(out: &Lines, original: &Original<'_>, core: &CoreName, ip: IpAddr, edited: &Edited) {
    let Edited { position, old, kept, .. } = edited;
    let (file, core) = (shown(original.path()), core.as_str());
    let before = if old.is_empty() {
        "no address before (check the name)".to_owned()
    } else {
        escaped(old.join(", ").as_bytes())
    };
    let beside = if kept.is_empty() {
        String::new()
    } else {
        format!(" (beside {})", escaped(kept.join(", ").as_bytes()))
    };
    let text = if edited.bytes == original.bytes() {
        format!("{file}:{position}: {core} is {ip} already; nothing to do")
    } else {
        format!("{file}:{position}: {core}: {before} -> {ip}{beside}")
    };
    out.remark(
        &text,
        &json!({"event": "change", "file": file, "line": position.line, "column": position.column, "core": core,
            "old": old, "ip": ip, "kept": kept, "differs": edited.bytes != original.bytes()}),
    );
}

/// Names the places where an address that gave way still stands: here, in the JSON files beside, in those named.
pub(crate) fn tell_elsewhere(
    out: &Lines,
    named: &[PathBuf],
    original: &Original<'_>,
    document: &Document<'_>,
    old: &[String],
    ip: IpAddr,
) -> Result<(), FileError> {
    let gone: BTreeSet<&str> = old.iter().map(String::as_str).collect();
    let gone: Vec<&str> = gone.into_iter().filter(|old| !edit::is_same(old, &ip.to_string())).collect();
    let tell = |old: &str, file: &Path, position: Position, path: &str| {
        let place = if path.is_empty() { String::new() } else { format!(" {}", escaped(path.as_bytes())) };
        let (old, file) = (escaped(old.as_bytes()), shown(file));
        out.remark(
            &format!("{old} also stands in {file}:{position}{place}; left as it is"),
            &json!({"event": "elsewhere", "address": old, "file": file, "line": position.line,
                "column": position.column, "path": path}),
        );
    };
    for old in &gone {
        for (path, span) in document.strings_with(old) {
            tell(old, original.path(), document.position(span.start), &path);
        }
    }
    let named = named.iter().map(|path| Original::read(original.place(), path));
    let named = named.collect::<Result<Vec<_>, _>>()?;
    // A neighbour that can't be read is nobody's question.
    let beside = original.place().neighbours(original.path()).unwrap_or_default().into_iter();
    let beside = beside.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let beside = beside.filter_map(|path| Original::read(original.place(), &path).ok());
    let mut seen = BTreeSet::from([original.path().to_owned()]);
    for other in named.into_iter().chain(beside) {
        if !seen.insert(other.path().to_owned()) {
            continue;
        }
        for old in &gone {
            for at in words(other.bytes(), old) {
                tell(old, other.path(), Position::of(other.bytes(), at), "");
            }
        }
    }
    Ok(())
}

/// How long others keep an answer, for people and as an object.
pub(crate) fn ttl(document: &Document<'_>) -> (String, serde_json::Value) {
    let written = document.ttl_s();
    let ttl_s = written.unwrap_or(DEFAULT_TTL_S);
    let origin = match written {
        Some(_) => "dns.defaultTTL",
        None => "the server's default; the file sets no dns.defaultTTL",
    };
    let text = format!(
        "TTL {ttl_s} s ({origin}): others may keep the old address for {} after the last DNS server was restarted; \
         leave the proxy on for that long",
        duration(ttl_s)
    );
    (text, json!({"event": "ttl", "ttl_s": ttl_s, "in_file": written.is_some()}))
}

fn duration(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let parts = [(hours, "h"), (minutes, "min"), (rest, "s")];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count} {unit}")).collect();
    if parts.is_empty() { "no time".to_owned() } else { parts.join(" ") }
}

fn undo_file(matches: &ArgMatches, prompts: &Prompts, out: &Lines) -> Result<(), RegisterError> {
    let original = original(matches)?;
    let undo = original.sidecar(UNDO_SUFFIX);
    let Some(kept) = undo.read()? else {
        return Err(RegisterError::NothingToUndo { path: undo.path().to_owned() });
    };
    let records = records(&undo, &kept)?;
    let core = matches.get_one::<CoreName>("core");
    let undone = records.undo(original.bytes(), core).map_err(|source| edit_error(&original, source))?;
    let is_changed = undone.bytes != original.bytes();
    let file = shown(original.path());
    out.diff(&file, original.bytes(), &undone.bytes);
    if !is_changed {
        out.note(&format!("{file}: the address is what it was before already"));
    } else if !undone.is_first && !records.is_unchanged(original.bytes()) {
        out.note(&format!("{file} was changed since by somebody else: only the address is put back"));
    }
    let is_done = !matches.get_flag("dry-run");
    if is_done {
        let _stop = prompts.agree(matches, &format!("Change {file}?"))?;
        if is_changed {
            original.replace(&undone.bytes)?;
        }
        undo.change(Some(&kept), undone.left.as_ref().map(Records::to_bytes).as_deref())?;
        let exact = if undone.is_first { ", byte for byte as it was before" } else { "" };
        let cores = escaped(undone.cores.join(", ").as_bytes());
        if is_changed {
            out.note(&format!("{cores} put back in {file}{exact}; now restart the DNS server"));
        }
    }
    out.object(
        &json!({"event": "summary", "file": file, "cores": undone.cores, "changed": is_changed && is_done,
        "byte_for_byte": undone.is_first, "exit_code": 0}),
    );
    Ok(())
}

fn show_file(matches: &ArgMatches, out: &Lines) -> Result<(), RegisterError> {
    let original = original(matches)?;
    let refused = |source| RegisterError::Document { path: original.path().to_owned(), source };
    let document = Document::parse(original.bytes()).map_err(refused)?;
    let entries = document.entries().map_err(refused)?;
    let core = matches.get_one::<CoreName>("core");
    let wanted: Vec<&Entry<'_>> =
        entries.iter().filter(|entry| core.is_none_or(|core| entry.name == core.as_str())).collect();
    if let (Some(core), []) = (core, wanted.as_slice()) {
        let names = entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(", ");
        let (path, core) = (original.path().to_owned(), core.as_str().to_owned());
        return Err(RegisterError::NoEntry { path, core, names });
    }
    for entry in &wanted {
        tell_entry(out, &document, entry);
    }
    let (ttl, event) = ttl(&document);
    out.tell(&ttl, &event);
    if let (Some(server), Some(entry)) = (matches.get_one::<String>("ask"), wanted.first()) {
        ask(matches, out, &original, &document, server, entry)?;
    }
    out.object(
        &json!({"event": "summary", "file": shown(original.path()), "entries": wanted.len(), "exit_code": 0}),
    );
    Ok(())
}

/// One entry, for people and as an object.
pub(crate) fn tell_entry(out: &Lines, document: &Document<'_>, entry: &Entry<'_>) {
    let position = document.position(entry.span.start);
    let addresses: Vec<&str> =
        entry.addresses.iter().flat_map(|found| &found.all).map(|address| address.text.as_str()).collect();
    let mut said = addresses.iter().map(|text| {
        let is_address = text.parse::<IpAddr>().is_ok();
        escaped(text.as_bytes()) + if is_address { "" } else { " (not an address: a placeholder?)" }
    });
    let mut text = said.by_ref().collect::<Vec<_>>().join(", ");
    if let Some(alias) = &entry.alias {
        let words = alias.split_whitespace().collect::<Vec<_>>().join(" ");
        text =
            format!("{text}{}alias {}", if text.is_empty() { "" } else { ", " }, escaped(words.as_bytes()));
    }
    if text.is_empty() {
        text = "no address".to_owned();
    }
    out.tell(
        &format!("{:<12} {text}  ({position})", escaped(entry.name.as_bytes())),
        &json!({"event": "entry", "core": entry.name, "addresses": addresses, "alias": entry.alias,
            "line": position.line, "column": position.column}),
    );
}

/// Asks a server for each kind of address that the file has, and compares.
fn ask(
    matches: &ArgMatches,
    out: &Lines,
    original: &Original<'_>,
    document: &Document<'_>,
    server: &str,
    entry: &Entry<'_>,
) -> Result<(), RegisterError> {
    let domain = matches.get_one::<String>("domain").map(String::as_str).or(document.domain());
    let name = format!("{}.{}", entry.name, domain.ok_or(RegisterError::NoDomain)?);
    let timeout = Duration::from_secs(matches.get_one::<u64>("timeout").copied().unwrap_or(5));
    let server = address_of(server)?;
    let due = entry.ips();
    if due.is_empty() {
        return Err(RegisterError::NoAddress { path: original.path().to_owned(), core: entry.name.clone() });
    }
    for family in [Family::V4, Family::V6] {
        let due: Vec<IpAddr> = due.iter().copied().filter(|ip| Family::of(*ip) == family).collect();
        if due.is_empty() {
            continue;
        }
        let answer = dns::ask(server, &name, family, timeout)?;
        let is_same = answer.addresses == due;
        let found = listed(&answer.addresses);
        let ttl = answer.ttl_s.map_or(String::new(), |ttl_s| format!(", TTL {ttl_s} s"));
        let event = json!({"event": "answer", "server": server, "name": name, "addresses": answer.addresses,
            "ttl_s": answer.ttl_s, "matches": is_same});
        if !is_same {
            out.object(&event);
            return Err(RegisterError::Differs { server, name, found, due: listed(&due) });
        }
        out.tell(&format!("{server} answers {name} with {found}, as the file says{ttl}"), &event);
    }
    Ok(())
}

pub(crate) fn listed(addresses: &[IpAddr]) -> String {
    if addresses.is_empty() {
        return "no address".to_owned();
    }
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

/// `ADDRESS`, `ADDRESS:PORT`, `[V6]:PORT`, `NAME` or `NAME:PORT`.
fn address_of(text: &str) -> Result<SocketAddr, RegisterError> {
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok((ip, DNS_PORT).into());
    }
    let has_port = text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let resolved = if has_port { text.to_socket_addrs() } else { (text, DNS_PORT).to_socket_addrs() };
    let failed = |reason: String| RegisterError::Server { text: text.to_owned(), reason };
    let mut found = resolved.map_err(|error| failed(error.to_string()))?;
    found.next().ok_or_else(|| failed("the name has no address".to_owned()))
}

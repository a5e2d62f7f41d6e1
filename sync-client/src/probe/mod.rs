//! `probe`: accounts that show by the HTTP API whether a migration kept what they held.
//!
//! `create` makes test data at the source (`account`), reads everything those accounts hold, and keeps it as hashes
//! (`snapshot`). `check` reads everything again, from the destination or whoever answers at an address, and names what
//! differs (`compare`). `api` is the HTTP; it asks the address that was named, so no DNS is needed, and none is believed.
//!
//! What always holds: passwords come from a file or variable that the plan names, and neither they nor tokens nor contents are
//! printed or written anywhere; the snapshot is replaced only when every account was read; `create` refuses once the source was
//! begun to be stopped, for what is made then would not be copied. Called by `main`.

mod account;
mod api;
mod compare;
mod picture;
mod snapshot;
pub(crate) mod url;

use crate::console::{print_error, with_causes};
use crate::migration::Operator;
use crate::migration::journal::{Journal, State};
use crate::migration::plan::{Account, Plan, Probe};
use crate::migration::position::{Position, action};
use crate::migration::say::Say;
use crate::migration::step::StepError;
use crate::migration::text;
use crate::options;
use api::{Api, ApiError, Way};
use clap::{Arg, ArgMatches, Command};
use compare::{Contents, differences};
use protocol::stats::Exit;
use serde_json::{Value, json};
use snapshot::{Snapshot, SnapshotError};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The words of the journal.
pub(crate) const CREATE: &str = "probe create";
pub(crate) const CHECK: &str = "probe check";
/// A password is shorter.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// A probe that could not be made or compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error(
        "the plan has no [probe]: name the url of the API and an account in it (`sync-client check --init` shows how)"
    )]
    NoProbe,
    #[error("account {username}: cannot read the password in {}", path.display())]
    PasswordFile { username: String, path: PathBuf, source: io::Error },
    #[error("account {username}: others may read the password in {0}; chmod 600 {0}", path.display())]
    Exposed { username: String, path: PathBuf },
    #[error("account {username}: the environment variable {variable} that the plan names is not set")]
    NoVariable { username: String, variable: String },
    #[error("account {username}: the password is empty, too long, or no text")]
    NoPassword { username: String },
    #[error("account {username}")]
    Api { username: String, source: ApiError },
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(
        "account {username} is in the {there} and not in the {missing}: put the plan as it was, or run `sync-client probe create` again"
    )]
    Accounts { username: String, there: &'static str, missing: &'static str },
    #[error(
        "the source was stopped for the cold pass: what would be made now is in no copy, and what to compare with would be lost (`sync-client probe check` compares)"
    )]
    TooLate,
}

impl ProbeError {
    /// The exit status.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            ProbeError::NoProbe | ProbeError::NoVariable { .. } | ProbeError::NoPassword { .. } => {
                Exit::Usage.code()
            }
            ProbeError::PasswordFile { .. } | ProbeError::Exposed { .. } => Exit::Authentication.code(),
            ProbeError::Api { source, .. } => source.exit().code(),
            ProbeError::Snapshot(SnapshotError::Io { .. }) => Exit::FileIo.code(),
            ProbeError::Snapshot(_) | ProbeError::Accounts { .. } | ProbeError::TooLate => {
                Exit::Refused.code()
            }
        }
    }
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Source,
    Destination,
    Address(IpAddr, Option<u16>),
}

impl Asked {
    fn parse(text: &str) -> Result<Asked, String> {
        let is_either = |address: SocketAddr| Asked::Address(address.ip(), Some(address.port()));
        match text {
            "source" => Ok(Asked::Source),
            "destination" => Ok(Asked::Destination),
            _ => text
                .parse()
                .map(is_either)
                .or_else(|_| text.parse().map(|ip| Asked::Address(ip, None)))
                .map_err(|_| {
                    "write `source`, `destination`, or an IP address with or without a port".to_owned()
                }),
        }
    }

    fn address(self, plan: &Plan, default_port: u16) -> SocketAddr {
        match self {
            Asked::Source => SocketAddr::new(plan.source.address, default_port),
            Asked::Destination => SocketAddr::new(plan.destination.address, default_port),
            Asked::Address(ip, port) => SocketAddr::new(ip, port.unwrap_or(default_port)),
        }
    }
}

/// The command `probe`.
#[must_use]
pub fn command() -> Command {
    let create = part(
        "create",
        "Make test data at the source, and remember what its accounts hold",
        "Logs in to each account of the plan, makes a stream, events, one with a picture, and a high-frequency series, as far as they \
         are not there yet, then reads all that the account holds and keeps its hashes in the plan's state_dir. Run it before \
         `cold`.",
        "source",
    );
    let check = part(
        "check",
        "Compare what the accounts hold now with what they held",
        "Logs in again, reads everything, each attachment too, and names each difference; changes nothing. Through the \
         source's nginx, once that sends requests on: --at source.",
        "destination",
    );
    Command::new("probe")
        .about("Test data by the HTTP API, and its comparison after the migration")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(create.arg(options::flag("dry-run", "Say what would be made; ask nobody").short('n')))
        .subcommand(check)
}

fn part(name: &'static str, about: &'static str, long: &'static str, at: &'static str) -> Command {
    let plan = options::path("plan", "FILE", "The plan").default_value("plan.toml");
    let asked = Arg::new("at")
        .long("at")
        .value_name("WHERE")
        .value_parser(Asked::parse)
        .default_value(at)
        .help("Who is asked: `source`, `destination` (their addresses in the plan), or ADDRESS[:PORT]; names are not looked up");
    Command::new(name)
        .about(about)
        .long_about(long)
        .after_help(
            "Exit status: 0 done, or nothing differs; 45 something differs; 1 plan or command line; 10 nobody answers; 12 not this API; \
             20 interrupted; 30 timeout; 40 another process works on this migration; 41 certificate; 42 login; 46 refused: the \
             message says why.",
        )
        .arg(plan)
        .arg(asked)
        .arg(options::json())
}

/// Runs a part of [`command`]; `variable` reads the environment.
#[must_use]
pub fn run(matches: &ArgMatches, operator: &Operator<'_>, variable: &dyn Fn(&str) -> Option<String>) -> u8 {
    let Some((name, matches)) = matches.subcommand() else { return Exit::Usage.code() };
    let on = |flag: &str| matches.try_get_one::<bool>(flag).ok().flatten().copied().unwrap_or(false);
    let say = Say::new(on("json"));
    let result = carry_out(name, matches, on("dry-run"), &say, operator, variable);
    let code = result.as_ref().map_or_else(StepError::exit_code, |()| Exit::Done.code());
    if let Err(error) = &result {
        print_error(error);
    }
    say.summary(if name == "create" { CREATE } else { CHECK }, code, result.as_ref().err());
    code
}

fn carry_out(
    name: &str,
    matches: &ArgMatches,
    dry_run: bool,
    say: &Say,
    operator: &Operator<'_>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<(), StepError> {
    let path = matches.get_one::<PathBuf>("plan").map_or(Path::new("plan.toml"), PathBuf::as_path);
    let plan = Plan::read(path)?;
    let probe = plan.probe.as_ref().ok_or(ProbeError::NoProbe)?;
    let asked = matches.get_one::<Asked>("at").copied().unwrap_or(Asked::Destination);
    let at = asked.address(&plan, probe.url.port());
    if dry_run {
        for account in &probe.accounts {
            for line in account::rehearsal(&probe.marker, probe.series) {
                say.note(&format!(
                    "would {line} in the account {} at {at}, if it is not there",
                    account.username
                ));
            }
        }
        return Ok(());
    }
    // Before anything is begun: what is missing here is no fault of a service.
    let accounts: Vec<(&Account, String)> = probe
        .accounts
        .iter()
        .map(|account| Ok((account, password(account, variable)?)))
        .collect::<Result<_, ProbeError>>()?;
    let way = way(probe, &plan, at, operator);
    let mut journal = Journal::open(plan.state_dir.as_path(), &plan.identity())?;
    let step = if name == "create" { CREATE } else { CHECK };
    if step == CREATE && Position::of(journal.records()).stopped_ms.is_some() {
        return Err(ProbeError::TooLate.into());
    }
    let data = recorded(&mut journal, step, at, || match step {
        CREATE => create(&plan, probe, &way, &accounts, say),
        _ => check(&plan, &way, &accounts, say),
    })?;
    if has_differences(&data) {
        let what = "the accounts do not hold what they held";
        return Err(StepError::Told { what, exit_code: Exit::Differs.code() });
    }
    Ok(())
}

/// The journal knows when it began and how it ended; with differences it is not done.
fn recorded(
    journal: &mut Journal,
    step: &str,
    at: SocketAddr,
    work: impl FnOnce() -> Result<Value, StepError>,
) -> Result<Value, StepError> {
    journal.record(step, action::RUN, State::Begun, json!({"at": at.to_string()}))?;
    let result = work();
    let (state, data) = match &result {
        Ok(data) => (if has_differences(data) { State::Failed } else { State::Done }, data.clone()),
        Err(error) => (State::Failed, json!({"error": with_causes(error)})),
    };
    journal.record(step, action::RUN, state, data)?;
    result
}

fn has_differences(data: &Value) -> bool {
    data["differences"].as_u64().is_some_and(|count| count > 0)
}

fn way<'a>(probe: &'a Probe, plan: &Plan, at: SocketAddr, operator: &Operator<'a>) -> Way<'a> {
    let of_register =
        || plan.register.as_ref().map(|register| format!("https://sw.{}", register.domain.as_str()));
    Way {
        url: &probe.url,
        at,
        origin: probe.origin.clone().or_else(of_register).unwrap_or_else(|| probe.url.origin()),
        app_id: &probe.app_id,
        ca_file: probe.ca_file.as_ref().map(|path| path.as_path()),
        verify: probe.verify,
        timeout: Duration::from_secs(probe.timeout_s.max(1).into()),
        stop: operator.stop,
    }
}

/// Makes what is missing, then remembers all there is.
fn create(
    plan: &Plan,
    probe: &Probe,
    way: &Way<'_>,
    accounts: &[(&Account, String)],
    say: &Say,
) -> Result<Value, StepError> {
    let mut all = BTreeMap::new();
    for (account, password) in accounts {
        let username = account.username.as_str();
        let (made, contents) = at_account(username, || {
            let api = Api::log_in(way, username, password)?;
            let made = account::make(&api, &probe.marker, probe.series)?;
            Ok((made, account::read(&api)?))
        })?;
        say.tell(
            &format!("{username}: {made} made that were not there; it holds {contents}"),
            &counts(username, &contents, json!({"made": made})),
        );
        for (name, _) in contents.attachments.iter().filter(|(_, content)| content.is_none()) {
            say.note(&format!("{username}: {} has no attachment {name}, though an event names it", way.at));
        }
        all.insert(username.to_owned(), contents);
    }
    let count = all.len();
    let snapshot = Snapshot::new(plan.identity(), text::now_ms(), all);
    let path = snapshot.write(plan.state_dir.as_path()).map_err(ProbeError::from)?;
    say.line(&format!(
        "what they hold is in {}; after the migration: sync-client probe check",
        path.display()
    ));
    Ok(json!({"accounts": count}))
}

/// Compares; the value has the number of differences.
fn check(plan: &Plan, way: &Way<'_>, accounts: &[(&Account, String)], say: &Say) -> Result<Value, StepError> {
    let snapshot = Snapshot::read(plan.state_dir.as_path(), &plan.identity()).map_err(ProbeError::from)?;
    let named = |username: &str| accounts.iter().any(|(account, _)| account.username == username);
    if let Some(username) = snapshot.accounts.keys().find(|username| !named(username)) {
        let username = username.clone();
        return Err(ProbeError::Accounts { username, there: "snapshot", missing: "plan" }.into());
    }
    let mut count = 0;
    for (account, password) in accounts {
        let username = account.username.as_str();
        let before = snapshot.accounts.get(username).ok_or_else(|| ProbeError::Accounts {
            username: username.to_owned(),
            there: "plan",
            missing: "snapshot",
        })?;
        let after = at_account(username, || account::read(&Api::log_in(way, username, password)?))?;
        let differences = differences(before, &after);
        for difference in &differences {
            let mut event = json!(difference);
            event["event"] = json!("difference");
            event["account"] = json!(username);
            say.tell(&format!("{username}: {difference}"), &event);
        }
        count += differences.len();
        let verdict = match differences.len() {
            0 => format!("identical: {after}, as of {}", text::utc(snapshot.time_ms)),
            1 => format!("1 difference since {}: {after}", text::utc(snapshot.time_ms)),
            many => format!("{many} differences since {}: {after}", text::utc(snapshot.time_ms)),
        };
        say.tell(
            &format!("{username}: {verdict}"),
            &counts(username, &after, json!({"differences": differences.len()})),
        );
    }
    Ok(json!({"accounts": accounts.len(), "differences": count}))
}

fn at_account<T>(username: &str, work: impl FnOnce() -> Result<T, ApiError>) -> Result<T, StepError> {
    let username = username.to_owned();
    work().map_err(|source| ProbeError::Api { username, source }.into())
}

fn counts(username: &str, contents: &Contents, more: Value) -> Value {
    let mut event = json!({
        "event": "account",
        "account": username,
        "streams": contents.streams.len(),
        "events": contents.events.len(),
        "attachments": contents.attachments.len(),
        "series": contents.series.len(),
    });
    if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
        event.extend(more);
    }
    event
}

fn password(account: &Account, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, ProbeError> {
    let username = account.username.clone();
    let text = match (&account.password_file, &account.password_env) {
        (Some(path), _) => read_password(&username, path.as_path())?,
        (None, Some(name)) => match variable(name) {
            Some(text) => text,
            None => return Err(ProbeError::NoVariable { username, variable: name.clone() }),
        },
        (None, None) => String::new(),
    };
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(ProbeError::NoPassword { username });
    }
    Ok(text.to_owned())
}

fn read_password(username: &str, path: &Path) -> Result<String, ProbeError> {
    let of = || (username.to_owned(), path.to_owned());
    let failed = |source| {
        let (username, path) = of();
        ProbeError::PasswordFile { username, path, source }
    };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
        let (username, path) = of();
        return Err(ProbeError::Exposed { username, path });
    }
    let mut bytes = Vec::new();
    file.take(MAX_PASSWORD_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    let text = String::from_utf8(bytes).ok().filter(|text| text.len() as u64 <= MAX_PASSWORD_BYTES);
    text.ok_or_else(|| ProbeError::NoPassword { username: username.to_owned() })
}

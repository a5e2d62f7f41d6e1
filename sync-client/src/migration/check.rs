//! `check`: everything that can be known before a migration, as a table. It changes nothing at either core.
//!
//! Each look is a function that adds its rows; one that can't be done is a row as well, so one that fails hides no other. Only
//! where the source does not answer are its rows left out. A failed row refuses the step, a warning does not.

mod attributes;
mod proxy;
mod register;
mod scripts;

use super::bulk;
use super::compose::{self, Compose};
use super::evidence;
use super::files::host_error;
use super::host::{Command, Host, HostError};
use super::journal::State;
use super::plan::{Core, Kind, Secret};
use super::position::Position;
use super::run::{End, Run};
use super::service;
use super::step::{Step, StepError};
use super::text;
use crate::console::{bytes, with_causes};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Clocks further apart than this mislead who compares times.
const CLOCK_S: f64 = 2.0;
/// A certificate that ends within this time is a warning.
const CERTIFICATE_S: &str = "1209600";
/// What steps run at both ends.
const TOOLS: [&str; 16] = [
    "bash", "flock", "timeout", "find", "awk", "stat", "head", "wc", "mktemp", "readlink", "chown", "chmod",
    "sync", "mv", "date", "df",
];

const TOOLS_SCRIPT: &str = r#"for tool; do command -v "$tool" >/dev/null || echo "$tool"; done"#;
const MEASURE_SCRIPT: &str = r#"[ -d "$1" ] || { echo 0 0 0; exit; }
find "$1/" -printf '%y %s\n' | awk '{ n++ } $1 == "f" { f++; b += $2 } END { printf "%d %d %.0f\n", n, f, b }'"#;
const SPACE_SCRIPT: &str = r#"d=$1; while [ ! -d "$d" ]; do d=${d%/*}; [ -n "$d" ] || d=/; done
df -B1 --output=avail,iavail,target -- "$d" | tail -n 1"#;
const FOREIGN_SCRIPT: &str = r#"id -u; find "$@" ! -uid "$(id -u)" -print -quit"#;
const REACH_SCRIPT: &str = r#"timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2""#;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Pass,
    Warn,
    Fail,
}

/// The rows so far, printed as they come.
struct Table<'r, 'a> {
    run: &'r Run<'a>,
    counts: BTreeMap<Verdict, u32>,
    rows: Vec<Value>,
}

impl Table<'_, '_> {
    fn row(&mut self, verdict: Verdict, what: &str, detail: impl Into<String>) {
        *self.counts.entry(verdict).or_default() += 1;
        let detail = detail.into();
        let word = match verdict {
            Verdict::Pass => "pass",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        self.run.say.tell(
            &format!("{word}  {what:<22} {}", detail.replace('\n', "\n                            ")),
            &json!({"event": "check", "verdict": verdict, "what": what, "detail": detail}),
        );
        self.rows.push(json!({"verdict": verdict, "what": what, "detail": detail}));
    }

    /// One row of two outcomes.
    fn judge(&mut self, is_good: bool, bad: Verdict, what: &str, detail: impl Into<String>) {
        self.row(if is_good { Verdict::Pass } else { bad }, what, detail);
    }

    fn count(&self, verdict: Verdict) -> u32 {
        self.counts.get(&verdict).copied().unwrap_or(0)
    }
}

type Look = fn(&mut Table<'_, '_>) -> Result<(), StepError>;

/// What is looked at, and whether the source has to answer for it.
const LOOKS: [(&str, bool, Look); 17] = [
    ("agent", true, agent),
    ("tools", true, tools),
    ("privileges", true, privileges),
    ("data", true, data),
    ("attributes", true, attributes::look),
    ("commands", true, scripts::look),
    ("source service", true, source_service),
    ("destination service", false, destination_service),
    ("stop command", true, stop_command),
    ("compose", true, composes),
    ("secrets", true, secrets),
    ("certificate", false, certificate),
    ("ports", true, ports),
    ("layout", true, layout),
    ("proxy", true, proxy::look),
    ("register", false, register::look),
    ("clock", true, clock),
];

pub(crate) struct Check;

impl Step for Check {
    fn name(&self) -> &'static str {
        "check"
    }

    fn is_done(&self, position: &Position) -> bool {
        // A look costs little, and the world changes; but a core that was stopped on purpose would fail.
        position.stopped_ms.is_some()
    }

    fn rehearse(&self, run: &mut Run<'_>) -> Result<Vec<String>, StepError> {
        let table = look(run)?;
        conclude(table.count(Verdict::Fail)).map(|()| Vec::new())
    }

    fn carry_out(&self, run: &mut Run<'_>) -> Result<(), StepError> {
        let table = look(run)?;
        let (failed, rows) = (table.count(Verdict::Fail), table.rows);
        run.record("check", "table", State::Noted, json!({"rows": rows}))?;
        conclude(failed)
    }
}

fn conclude(failed: u32) -> Result<(), StepError> {
    match failed {
        0 => Ok(()),
        1 => Err(StepError::refused("a check failed; mend what it names and run this again")),
        _ => {
            Err(StepError::refused(format!("{failed} checks failed; mend what they name and run this again")))
        }
    }
}

fn look<'r, 'a>(run: &'r Run<'a>) -> Result<Table<'r, 'a>, StepError> {
    let mut table = Table { run, counts: BTreeMap::new(), rows: Vec::new() };
    let answers = connection(&mut table);
    for (what, needs_source, look) in LOOKS {
        run.stopped()?;
        if needs_source && !answers {
            continue;
        }
        match look(&mut table) {
            Ok(()) => {}
            Err(error) if is_interrupted(&error) => return Err(error),
            Err(error) => {
                table.row(Verdict::Fail, what, format!("could not be looked at: {}", with_causes(&error)))
            }
        }
    }
    let count = |verdict| table.count(verdict);
    let (passed, warned, failed) = (count(Verdict::Pass), count(Verdict::Warn), count(Verdict::Fail));
    run.say.line(&format!("{passed} passed, {warned} to think about, {failed} failed"));
    Ok(table)
}

/// The operator stopped the run: that is no row.
fn is_interrupted(error: &StepError) -> bool {
    let host = match error {
        StepError::Interrupted => return true,
        StepError::Host(error) => Some(error),
        StepError::File { source, .. } => host_error(source),
        _ => None,
    };
    matches!(host, Some(HostError::Interrupted))
}

/// SSH, the host key, and that the key may run commands.
fn connection(table: &mut Table<'_, '_>) -> bool {
    let run = table.run;
    let answer = run.host(End::Source).run(&Command::new(["echo", "sync-client"]));
    let place =
        run.plan.source.ssh.as_ref().map_or("this machine".to_owned(), |ssh| ssh.host.as_str().to_owned());
    match answer {
        Ok(ran) if ran.is_success() && ran.stdout.trim_ascii() == b"sync-client" => {
            table.row(Verdict::Pass, "source", format!("{place} answers and runs commands"));
            true
        }
        Ok(ran) => {
            table.row(
                Verdict::Fail,
                "source",
                format!(
                    "{place} does not run a plain command ({}): a key held to one command can copy, but steps that stop and start \
                     need one that is not; a login shell that prints must be silent\n{}",
                    ran.ending(),
                    text::tail(if ran.stderr.is_empty() { &ran.stdout } else { &ran.stderr }, 300)
                ),
            );
            false
        }
        Err(error) => {
            table.row(Verdict::Fail, "source", with_causes(&error));
            false
        }
    }
}

fn agent(table: &mut Table<'_, '_>) -> Result<(), StepError> {
    let Some(ssh) = &table.run.plan.source.ssh else { return Ok(()) };
    let ran = table.run.host(End::Source).run(&Command::script(r#"eval "$1 --version""#, [&ssh.agent]))?;
    let said = text::foreign(if ran.is_success() { &ran.stdout } else { &ran.stderr });
    let ours = concat!("sync-agent ", env!("CARGO_PKG_VERSION"));
    let advice =
        "copy this release's sync-agent into /usr/local/bin there, or name its place by source.ssh.agent";
    let detail = match (ran.is_success(), said == ours) {
        (true, true) => said.clone(),
        (true, false) => format!("{said}, and this is {ours}: {advice}"),
        (false, _) => format!("{said}: {advice}"),
    };
    table.judge(ran.is_success() && said == ours, Verdict::Fail, "agent", detail);
    Ok(())
}

fn tools(table: &mut Table<'_, '_>) -> Result<(), StepError> {
    for end in [End::Source, End::Destination] {
        let ran = table.run.host(end).run(&Command::script(TOOLS_SCRIPT, TOOLS))?;
        let missing: Vec<String> = ran.lines().map(text::foreign).collect();
        let what = format!("{} tools", end.as_str());
        let detail = if missing.is_empty() {
            "all there".to_owned()
        } else {
            format!("install {}", missing.join(", "))
        };
        table.judge(ran.is_success() && missing.is_empty(), Verdict::Fail, &what, detail);
    }
    Ok(())
}

/// Who is not root can neither read everything nor give files away, and sees only its own processes.
fn privileges(table: &mut Table<'_, '_>) -> Result<(), StepError> {
    let run = table.run;
    let existing = |end: End| -> Result<Vec<PathBuf>, HostError> {
        let mut found = Vec::new();
        for set in &run.plan.data {
            let directory = evidence::directory(run, set, end);
            if run.host(end).stat(&directory)?.is_some() {
                found.push(directory);
            }
        }
        Ok(found)
    };
    let directories = existing(End::Source)?;
    if directories.is_empty() {
        return Ok(());
    }
    let ran = run
        .host(End::Source)
        .run(&Command::script(FOREIGN_SCRIPT, &directories).limited(evidence::SEARCH_S))?;
    let mut lines = ran.lines().map(text::foreign);
    let is_root = lines.next().as_deref() == Some("0");
    let foreign = lines.next();
    table.judge(
        is_root,
        Verdict::Warn,
        "source user",
        if is_root {
            "root: reads everything, sees every process".to_owned()
        } else {
            "not root: what it may not read fails, and other users' processes are not seen".to_owned()
        },
    );
    let is_root_here = rustix::process::geteuid().is_root();
    let needs_root = foreign.is_some() || is_root;
    let detail = match (is_root_here, foreign) {
        (true, _) => "root: owners are kept by number".to_owned(),
        (false, Some(file)) => {
            format!("not root, and {file} belongs to somebody else: run sync-client as root here")
        }
        (false, None) => "not root: what belongs to others could not be given to them".to_owned(),
    };
    table.judge(
        is_root_here,
        if needs_root { Verdict::Fail } else { Verdict::Warn },
        "destination user",
        detail,
    );
    Ok(())
}

/// Sizes, sentinels, and room for it all.
fn data(table: &mut Table<'_, '_>) -> Result<(), StepError> {
    let run = table.run;
    // By file system: what is needed more than there is.
    let mut needs: BTreeMap<String, (u64, u64, u64, u64)> = BTreeMap::new();
    for set in &run.plan.data {
        let what = format!("data {}", set.name);
        let (there, here) = (run.plan.source_path(set), run.plan.destination_path(set));
        let (entries, files, size) = measure(run.host(End::Source), &there)?;
        if run.host(End::Source).stat(&there)?.is_none_or(|stat| !stat.is_dir) {
            table.row(
                Verdict::Fail,
                &what,
                format!("there is no directory {} at the source", there.display()),
            );
            continue;
        }
        if let Err(error) = bulk::sentinels(run, set) {
            table.row(Verdict::Fail, &what, error.to_string());
            continue;
        }
        table.row(Verdict::Pass, &what, format!("{} in {files} files, {entries} entries", bytes(size)));
        let (has_entries, _, has_size) = measure(run.host(End::Destination), &here)?;
        let (free, free_inodes, target) = space(run.host(End::Destination), &here)?;
        let need = needs.entry(target).or_insert((0, 0, free, free_inodes));
        need.0 += size.saturating_sub(has_size);
        need.1 += entries.saturating_sub(has_entries);
    }
    for (target, (size, entries, free, free_inodes)) in needs {
        let detail = format!(
            "{} needed, {} free; {entries} inodes needed, {free_inodes} free",
            bytes(size),
            bytes(free)
        );
        // What changes is written beside the old before it takes its place.
        let is_tight = size + size / 10 > free || entries + entries / 10 > free_inodes;
        let bad = if size > free || entries > free_inodes { Verdict::Fail } else { Verdict::Warn };
        table.judge(!is_tight, bad, &format!("room on {target}"), detail);
    }
    Ok(())
}

/// Entries, files and bytes below a directory.
fn measure(host: &dyn Host, directory: &Path) -> Result<(u64, u64, u64), HostError> {
    let ran = host.run(&Command::script(MEASURE_SCRIPT, [directory]).limited(evidence::SEARCH_S))?;
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let mut numbers = text.split_whitespace().map(|word| word.parse().ok());
    let mut number = || numbers.next().flatten();
    match (number(), number(), number()) {
        (Some(entries), Some(files), Some(size)) if ran.is_success() => Ok((entries, files, size)),
        _ => Err(host.failed("measure", directory, &ran.stderr)),
    }
}

/// Free bytes and inodes, and the file system's mount point. One without a count of inodes has enough.
fn space(host: &dyn Host, directory: &Path) -> Result<(u64, u64, String), HostError> {
    let ran = host.run(&Command::script(SPACE_SCRIPT, [directory]))?;
    let line = text::foreign(&ran.stdout);
    let mut words = line.split_whitespace();
    let free = words.next().and_then(|word| word.parse().ok());
    let free_inodes =
        words.next().and_then(|word| word.parse().ok()).filter(|count| *count > 0).unwrap_or(u64::MAX);
    match (free, words.next()) {
        (Some(free), Some(target)) if ran.is_success() => Ok((free, free_inodes, target.to_owned())),
        _ => Err(host.failed("look for room at", directory, &ran.stderr)),
    }
}

fn source_service(table: &mut Table<'_, '_>) -> Result<(), StepError> {
    let run = table.run;
    let signs = evidence::running(run, End::Source)?;
    let ill = service::ill(run, End::Source)?;
    match ill {
        Some(ill) => table.row(Verdict::Warn, "source service", format!("it should be up: {ill}")),
        None if signs.is_empty() => table.row(Verdict::Warn, "source service", "nothing shows that it is up"),
        None => table.row(Verdict::Pass, "source service", "up"),
    }
    for set in run.plan.data.iter().filter(|set| set.kind == Kind::Mongodb) {
        let lock = run.plan.source_path(set).join("mongod.lock");
        let state = run.host(End::Source).stat(&lock)?;
        let detail = match &state {
            None => "there is none: is this a MongoDB directory?",
            Some(stat) if stat.len == 0 => "empty: no mongod works here now",
            Some(_) => "held: a mongod works here",
        };
        table.judge(state.is_some(), Verdict::Warn, &format!("mongod.lock {}", set.name), detail);
    }
    Ok(())
}

fn destination_service(table: &mut Table<'_, '_>) -> Result<(), StepError> {
    match bulk::refuse_live_destination(table.run) {
        Ok(()) => table.row(Verdict::Pass, "destination service", "down"),
        Err(error @ StepError::Refused(_)) => {
            table.row(Verdict::Fail, "destination service", error.to_string())
        }
        Err(error) => return Err(error),
    }
    let service = &table.run.plan.destination.service;
    let is_seen = service.health.is_some() || !(service.docker.is_empty() || service.containers.is_empty());
    let detail = match (&service.health, is_seen) {
        (Some(health), _) => format!("is what `{health}` says"),
        (None, true) => format!("is that these are up: {}", service.containers.join(", ")),
        (None, false) => "nobody looks: name destination.service.health, or docker and containers".to_owned(),
    };
    table.judge(is_seen, Verdict::Warn, "destination health", detail);
    Ok(())
}

/// `stop-containers` stops every container of the host.
fn stop_command(table: &mut Table<'_, '_>) -> Result<(), StepError> {
    let run = table.run;
    for end in [End::Source, End::Destination] {
        let core = run.core(end);
        let stop = core.service.stop.to_string();
        if !stop.contains("stop-containers") {
            continue;
        }
        let known: Vec<String> = service_names(run.host(end), core)?;
        let others: Vec<String> = evidence::containers(run.host(end), core)?
            .unwrap_or_default()
            .into_iter()
            .filter(|container| !known.contains(&container.service))
            .map(|container| container.name)
            .collect();
        let what = format!("{} stop", end.as_str());
        let detail = if others.is_empty() {
            format!("{stop} stops every container of the host, and kills after 10 s; no other runs")
        } else {
            format!(
                "{stop} stops every container of the host, these too: {}. To stop this project alone: stop = [\"docker-compose\", \
                 \"-f\", FILE, \"stop\", \"--timeout\", \"120\"]",
                others.join(", ")
            )
        };
        table.judge(others.is_empty(), Verdict::Warn, &what, detail);
    }
    Ok(())
}

fn service_names(host: &dyn Host, core: &Core) -> Result<Vec<String>, StepError> {
    let files = compose_files(host, core)?;
    Ok(files
        .iter()
        .flat_map(|(_, compose)| compose.services.iter().map(|service| service.name.clone()))
        .collect())
}

fn compose_files(host: &dyn Host, core: &Core) -> Result<Vec<(PathBuf, Compose)>, StepError> {
    let mut files = Vec::new();
    for file in &core.service.compose_files {
        let path = file.below(&core.root);
        let content = host.read_file(&path)?;
        let content = content.ok_or_else(|| {
            StepError::refused(format!("there is no {} at the {}", path.display(), host.name()))
        })?;
        let compose = compose::parse(&String::from_utf8_lossy(&content)).map_err(|why| {
            StepError::refused(format!("{} at the {} is not understood: {why}", path.display(), host.name()))
        })?;
        files.push((path, compose));
    }
    Ok(files)
}

/// Volumes that nobody thought of, and images that differ.
fn composes(table: &mut Table<'_, '_>) -> Result<(), StepError> {
    let run = table.run;
    let theirs = compose_files(run.host(End::Source), run.core(End::Source))?;
    if theirs.is_empty() {
        table.row(
            Verdict::Warn,
            "volumes",
            "no compose file is named: nobody looks whether all data is copied",
        );
        return Ok(());
    }
    let forgotten: Vec<String> =
        theirs.iter().flat_map(|(path, compose)| compose::unaccounted(run.plan, compose, path)).collect();
    let detail = if forgotten.is_empty() {
        "each that is written to is copied, or named as left".to_owned()
    } else {
        format!(
            "neither copied nor named as left:\n{}\nadd a [[data]], or name it in `left`",
            forgotten.join("\n")
        )
    };
    table.judge(forgotten.is_empty(), Verdict::Fail, "volumes", detail);
    let ours = compose_files(run.host(End::Destination), run.core(End::Destination))?;
    let image = |files: &[(PathBuf, Compose)], name: &str| {
        let mut services = files.iter().flat_map(|(_, compose)| &compose.services);
        services.find(|service| service.name == name).map(|service| service.image.clone().unwrap_or_default())
    };
    let names = theirs.iter().flat_map(|(_, compose)| compose.services.iter().map(|service| &service.name));
    let different: Vec<String> = names
        .filter_map(|name| {
            let (one, other) = (image(&theirs, name)?, image(&ours, name));
            (other.as_ref() != Some(&one))
                .then(|| format!("{name}: {one}, here {}", other.unwrap_or("none".to_owned())))
        })
        .collect();
    let detail = if different.is_empty() { "the same on both".to_owned() } else { different.join("\n") };
    table.judge(different.is_empty(), Verdict::Warn, "images", detail);
    Ok(())
}

/// Whether the values are equal; the values themselves go nowhere.
fn secrets(table: &mut Table<'_, '_>) -> Result<(), StepError> {
    let run = table.run;
    for secret in &run.plan.secrets {
        let hash = |end: End| hash_of(run.host(end), run.core(end), secret);
        let (one, other) = (hash(End::Source)?, hash(End::Destination)?);
        let detail = match (&one, &other) {
            (Ok(one), Ok(other)) if one == other => "equal on both".to_owned(),
            (Ok(_), Ok(_)) => "differs: make the destination's that of the source".to_owned(),
            (Err(why), _) => format!("source: {why}"),
            (_, Err(why)) => format!("destination: {why}"),
        };
        table.judge(one.is_ok() && one == other, Verdict::Fail, &format!("secret {secret}"), detail);
    }
    Ok(())
}

fn hash_of(host: &dyn Host, core: &Core, secret: &Secret) -> Result<Result<blake3::Hash, String>, HostError> {
    let path = secret.file.below(&core.root);
    let Some(content) = host.read_file(&path)? else {
        return Ok(Err(format!("there is no {}", path.display())));
    };
    if secret.keys.is_empty() {
        return Ok(Ok(blake3::hash(&content)));
    }
    let json: Value = match serde_json::from_slice(&content) {
        Ok(json) => json,
        // The parser's own message may quote the file.
        Err(error) => return Ok(Err(format!("{} is no JSON (line {})", path.display(), error.line()))),
    };
    let value = secret.keys.iter().try_fold(&json, |value, key| value.get(key));
    Ok(value
        .map(|value| blake3::hash(value.to_string().as_bytes()))
        .ok_or_else(|| "it has no such key".to_owned()))
}

fn certificate(table: &mut Table<'_, '_>) -> Result<(), StepError> {
    let run = table.run;
    let Some(certificate) = &run.plan.certificate else { return Ok(()) };
    let path = certificate.file.below(&run.plan.destination.root);
    let host = run.host(End::Destination);
    const SCRIPT: &str = r#"command -v openssl >/dev/null || exit 65
[ -r "$1" ] || exit 66
openssl x509 -noout -in "$1" -checkhost "$2" | grep -q 'does match' || exit 67
openssl x509 -noout -in "$1" -checkend "$3" >/dev/null || exit 68"#;
    let parameters = [path.as_os_str(), certificate.name.as_str().as_ref(), CERTIFICATE_S.as_ref()];
    let ran = host.run(&Command::script(SCRIPT, parameters))?;
    let name = certificate.name.as_str();
    let (verdict, detail) = match ran.status {
        Some(0) => (Verdict::Pass, format!("holds for {name}, for two weeks at least")),
        Some(65) => (Verdict::Warn, "openssl is not installed here: not looked at".to_owned()),
        Some(66) => (Verdict::Fail, format!("there is no {} here", path.display())),
        Some(67) => {
            (Verdict::Fail, format!("{} does not hold for {name}, or is no certificate", path.display()))
        }
        _ => (Verdict::Warn, format!("{} ends within two weeks", path.display())),
    };
    table.row(verdict, "certificate", detail);
    Ok(())
}

/// The destination's published ports: free here, and not walled off from the source.
fn ports(table: &mut Table<'_, '_>) -> Result<(), StepError> {
    let run = table.run;
    let core = run.core(End::Destination);
    let address = core.address.to_string();
    let files = compose_files(run.host(End::Destination), core)?;
    let mut ports: Vec<u16> = files
        .iter()
        .flat_map(|(_, compose)| compose.services.iter().flat_map(|service| service.ports.clone()))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    for port in ports {
        let number = port.to_string();
        let what = format!("port {port}");
        let here = run.host(End::Destination).run(&Command::script(REACH_SCRIPT, ["127.0.0.1", &number]))?;
        if here.is_success() {
            table.row(
                Verdict::Warn,
                &what,
                "something listens here already, though the service should be down",
            );
            continue;
        }
        let there = run.host(End::Source).run(&Command::script(REACH_SCRIPT, [&address, &number]))?;
        // Refused at once: the way is free, and nobody listens yet.
        let is_walled = there.status == Some(124);
        let detail = if is_walled {
            format!("no answer from {address} to the source within 5 s: a firewall? The proxy needs this way")
        } else {
            "free here, and reached from the source".to_owned()
        };
        table.judge(!is_walled, Verdict::Warn, &what, detail);
    }
    Ok(())
}

/// Where a leader hands out configuration, an edit of its outcome does not last.
fn layout(table: &mut Table<'_, '_>) -> Result<(), StepError> {
    let run = table.run;
    let (host, root) = (run.host(End::Source), run.plan.source.root.as_path());
    for name in ["config-leader", "config-follower"] {
        if host.stat(&root.join(name))?.is_some() {
            table.row(
                Verdict::Warn,
                "layout",
                format!(
                    "{} is there: NGINX's and the DNS server's files are generated and overwritten; they are edited at the leader, \
                     below config-leader/data/",
                    root.join(name).display()
                ),
            );
            return Ok(());
        }
    }
    table.row(Verdict::Pass, "layout", "files are not generated by a configuration leader");
    Ok(())
}

fn clock(table: &mut Table<'_, '_>) -> Result<(), StepError> {
    let run = table.run;
    let before = text::now_ms() as f64 / 1000.0;
    let ran = run.host(End::Source).run(&Command::new(["date", "+%s.%N"]))?;
    let after = text::now_ms() as f64 / 1000.0;
    let theirs: Option<f64> = String::from_utf8_lossy(&ran.stdout).trim().parse().ok();
    let Some(theirs) = theirs.filter(|_| ran.is_success()) else {
        table.row(Verdict::Warn, "clock", "the source's clock could not be read");
        return Ok(());
    };
    let apart_s = (before - theirs).max(theirs - after).max(0.0);
    let detail = if apart_s <= CLOCK_S {
        "both clocks agree".to_owned()
    } else {
        format!("the source's is {apart_s:.0} s apart: run NTP on both, for sessions and tokens have times")
    };
    table.judge(apart_s <= CLOCK_S, Verdict::Warn, "clock", detail);
    Ok(())
}

//! The arguments as typed, resolved once into what is to be done.

use crate::args::{ARCHIVE, refused_option};
use crate::bench::BenchJob;
use crate::chmod;
use crate::location::{Host, Location};
use crate::ssh::system::{self, SshArgs};
use clap::ArgMatches;
use clap::parser::ValueSource;
use protocol::filter::{FilterError, FilterRules};
use protocol::options::{Compression, Delete, Preserve, QuickCheck, SyncOptions};
use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// Everything `sync` or `verify` is to do.
#[derive(Debug)]
pub struct Job {
    /// Where the data is.
    pub source: Side,
    /// Where it goes.
    pub destination: Side,
    /// What both ends need to know.
    pub options: SyncOptions,
    /// How another machine is reached.
    pub connection: Connection,
    /// What is printed.
    pub output: OutputOptions,
    /// Where this end keeps its index, instead of the user's state directory.
    pub state_dir: Option<PathBuf>,
}

/// One side of a transfer: paths on one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// The other machine, or none for this one.
    pub host: Option<Host>,
    /// Source arguments, or the one destination argument.
    pub paths: Vec<Vec<u8>>,
}

/// How to reach another machine.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// What to start instead of the built-in client, with its arguments.
    pub program: Option<Vec<OsString>>,
    /// What a `-e 'ssh …'` said, for the built-in client.
    pub ssh: SshArgs,
    /// `--port`.
    pub port: Option<u16>,
    /// `--identity`.
    pub identities: Vec<PathBuf>,
    /// `--known-hosts`.
    pub known_hosts: Vec<PathBuf>,
    /// `--host-key`.
    pub pinned: Option<String>,
    /// `--accept-new`.
    pub accept_new: bool,
    /// The agent's command at the other side, as the shell there takes it.
    pub agent: Vec<u8>,
    /// `--timeout`, also for connecting.
    pub timeout_s: u32,
    /// `--connections`: over how many channels a push goes; none is as many as the round trip needs.
    pub channels: Option<u8>,
}

/// `--state-dir`: where this end keeps its index, if one was named.
fn state_dir(matches: &ArgMatches) -> Option<PathBuf> {
    matches.get_one::<OsString>("state-dir").map(PathBuf::from)
}

/// What is printed, and where.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is one of rsync's independent switches")]
pub struct OutputOptions {
    /// `-v`, counted.
    pub verbose: u8,
    /// `-q`.
    pub quiet: bool,
    /// `-i`.
    pub itemize: bool,
    /// `--stats`.
    pub stats: bool,
    /// `--progress`.
    pub progress: bool,
    /// `--json`.
    pub json: bool,
    /// `-h`.
    pub human: bool,
    /// `--log-file`.
    pub log_file: Option<PathBuf>,
    /// `--times`: the letter for a changed time.
    pub times: bool,
    /// Nothing is changed.
    pub dry_run: bool,
    /// Both trees are compared.
    pub verify: bool,
}

/// A command line that can't be carried out; its text is for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

fn usage<T>(message: impl Into<String>) -> Result<T, UsageError> {
    Err(UsageError(message.into()))
}

/// Resolves `sync`'s arguments; `umask` is that of the operator.
///
/// # Errors
/// Says which argument is wrong and what to write instead.
pub fn sync(matches: &ArgMatches, umask: u16) -> Result<Job, UsageError> {
    if let Some(option) = refused_option(matches) {
        return usage(format!("rsync's {option} is not done by this program (yet); nothing was changed"));
    }
    let (source, destination) = sides(matches)?;
    let is_local = source.host.is_none() && destination.host.is_none();
    let keep = Archive::new(matches);
    let on = |name: &str| matches.get_flag(name);
    let checks = [
        (on("checksum"), QuickCheck::Checksum),
        (on("size-only"), QuickCheck::SizeOnly),
        (on("ignore-times"), QuickCheck::Never),
    ];
    let quick_check =
        checks.iter().find(|(given, _)| *given).map_or(QuickCheck::SizeAndTime, |&(_, check)| check);
    let delete = Delete {
        extraneous: on("delete"),
        max_entries: matches.get_one::<u64>("max-delete").copied(),
        allow_empty_source: on("allow-empty-source"),
    };
    if on("delete") && !keep.is_on("recursive") {
        return usage(
            "--delete needs --recursive (-r) or --archive (-a): without it nothing is listed to compare with",
        );
    }
    let options = SyncOptions {
        recursive: keep.is_on("recursive"),
        copy_links: on("copy-links"),
        one_file_system: on("one-file-system"),
        preserve: keep.preserve(on("numeric-ids")),
        quick_check,
        update: on("update"),
        existing: on("existing"),
        ignore_existing: on("ignore-existing"),
        whole_file: whole_file(matches, is_local),
        inplace: on("inplace"),
        block_size: text(matches, "block-size")?.map(|size| block_size(&size)).transpose()?,
        delete,
        filter: filter(matches)?,
        chmod: chmods(matches, umask)?,
        chown: chown(matches),
        compression: compression(matches)?,
        without_index: on("no-index"),
        dry_run: on("dry-run"),
        verify: false,
        itemize: on("itemize-changes")
            || matches.get_count("verbose") > 0
            || on("json")
            || matches.contains_id("log-file"),
        bandwidth_bytes_per_s: bandwidth(matches)?,
        timeout_s: matches.get_one::<u32>("timeout").copied().unwrap_or(0),
    };
    let output = OutputOptions {
        itemize: on("itemize-changes"),
        stats: on("stats"),
        times: options.preserve.times,
        dry_run: options.dry_run,
        ..output(matches)
    };
    let connection = connection(matches)?;
    Ok(Job { source, destination, options, connection, output, state_dir: state_dir(matches) })
}

/// Resolves `verify`'s arguments.
///
/// # Errors
/// As [`sync`].
pub fn verify(matches: &ArgMatches) -> Result<Job, UsageError> {
    let (source, destination) = sides(matches)?;
    let preserve = Preserve::all(matches.get_flag("numeric-ids"));
    let options = SyncOptions {
        recursive: true,
        copy_links: matches.get_flag("copy-links"),
        one_file_system: matches.get_flag("one-file-system"),
        preserve,
        quick_check: QuickCheck::Checksum,
        delete: Delete { extraneous: true, ..Delete::default() },
        filter: filter(matches)?,
        dry_run: true,
        verify: true,
        itemize: true,
        bandwidth_bytes_per_s: bandwidth(matches)?,
        timeout_s: matches.get_one::<u32>("timeout").copied().unwrap_or(0),
        ..SyncOptions::default()
    };
    let output = OutputOptions { itemize: true, times: true, dry_run: true, verify: true, ..output(matches) };
    Ok(Job { source, destination, options, connection: connection(matches)?, output, state_dir: None })
}

/// Resolves `bench`'s arguments.
///
/// # Errors
/// As [`sync`].
pub fn bench(matches: &ArgMatches) -> Result<BenchJob, UsageError> {
    let (source, destination) = bench_sides(matches)?;
    let options = SyncOptions {
        bandwidth_bytes_per_s: bandwidth(matches)?,
        timeout_s: matches.get_one::<u32>("timeout").copied().unwrap_or(0),
        ..SyncOptions::default()
    };
    let (json, quiet) = (matches.get_flag("json"), matches.get_flag("quiet"));
    let output = OutputOptions { json, quiet, ..OutputOptions::default() };
    let connection = connection(matches)?;
    Ok(BenchJob {
        job: Job { source, destination, options, connection, output, state_dir: None },
        seconds: number(matches, "seconds", 2.0, 0.05..=60.0)?,
        size_bytes: text(matches, "size")?.map_or(Ok(256 << 20), |size| bench_size(&size))?,
        change_percent: number(matches, "change", 1.0, 0.0..=100.0)?,
        read_only: matches.get_flag("no-write").then_some("--no-write was given"),
        html: matches.get_one::<OsString>("html").map(PathBuf::from),
    })
}

/// A side that was not given has no path and no host.
fn bench_sides(matches: &ArgMatches) -> Result<(Side, Side), UsageError> {
    let side = |argument: &OsString| match Location::parse(argument) {
        Ok(Location::Local(path)) => Ok(Side { host: None, paths: vec![path] }),
        Ok(Location::Remote { host, path }) => Ok(Side { host: Some(host), paths: vec![path] }),
        Err(error) => usage(error.to_string()),
    };
    let mut paths = values(matches, "paths");
    let source = paths.next().map_or_else(|| usage("a directory is needed"), side)?;
    let none = Side { host: None, paths: Vec::new() };
    let destination = paths.next().map_or(Ok(none), side)?;
    if source.host.is_some() && destination.host.is_some() {
        return usage(
            "one side must be on this machine: run sync-client on the source or on the destination",
        );
    }
    Ok((source, destination))
}

fn number(
    matches: &ArgMatches,
    name: &str,
    default: f64,
    allowed: std::ops::RangeInclusive<f64>,
) -> Result<f64, UsageError> {
    let given = matches.get_one::<f64>(name).copied().unwrap_or(default);
    if allowed.contains(&given) {
        return Ok(given);
    }
    usage(format!("--{name}: {given} is not from {} to {}", allowed.start(), allowed.end()))
}

fn bench_size(size: &str) -> Result<u64, UsageError> {
    match amount(size, 1).filter(|bytes| *bytes >= 1 << 20) {
        Some(bytes) => Ok(bytes),
        None => usage(format!("--size: {size:?} is not a number of bytes from 1M")),
    }
}

fn sides(matches: &ArgMatches) -> Result<(Side, Side), UsageError> {
    let paths: Vec<&OsString> = matches.get_many::<OsString>("paths").unwrap_or_default().collect();
    let Some((destination, sources)) = paths.split_last().filter(|(_, sources)| !sources.is_empty()) else {
        return usage(
            "a source and a destination are needed: sync-client sync [OPTIONS] SOURCE… DESTINATION",
        );
    };
    let parse =
        |argument: &OsString| Location::parse(argument).map_err(|error| UsageError(error.to_string()));
    let destination = match parse(destination)? {
        Location::Local(path) => Side { host: None, paths: vec![path] },
        Location::Remote { host, path } => Side { host: Some(host), paths: vec![path] },
    };
    let mut source: Option<Side> = None;
    for argument in sources {
        // rsync's short form for a further source on the same machine.
        if let (Some(side), Some(path)) = (&mut source, argument.as_bytes().strip_prefix(b":"))
            && side.host.is_some()
        {
            side.paths.push(path.to_vec());
            continue;
        }
        let (host, path) = match parse(argument)? {
            Location::Local(path) => (None, path),
            Location::Remote { host, path } => (Some(host), path),
        };
        match &mut source {
            None => source = Some(Side { host, paths: vec![path] }),
            Some(side) if side.host == host => side.paths.push(path),
            Some(_) => return usage("all sources must be on one machine"),
        }
    }
    match source {
        Some(source) if source.host.is_some() && destination.host.is_some() => {
            usage("one side must be on this machine: run sync-client on the source or on the destination")
        }
        Some(source) => Ok((source, destination)),
        None => usage("a source is needed"),
    }
}

/// The archive options after `-a`, `--no-X` and the rest took effect from left to right.
struct Archive<'a>(&'a ArgMatches);

impl Archive<'_> {
    fn new(matches: &ArgMatches) -> Archive<'_> {
        Archive(matches)
    }

    fn last(&self, name: &str) -> Option<usize> {
        let given = self.0.value_source(name) == Some(ValueSource::CommandLine);
        given.then(|| self.0.indices_of(name).into_iter().flatten().max()).flatten()
    }

    fn is_on(&self, name: &str) -> bool {
        let is_node = matches!(name, "devices" | "specials");
        let on = [self.last(name), self.last("archive"), is_node.then(|| self.last("D")).flatten()];
        let off = [
            self.last(&format!("no-{name}")),
            self.last("no-archive"),
            is_node.then(|| self.last("no-D")).flatten(),
        ];
        on.into_iter().max() > off.into_iter().max()
    }

    fn preserve(&self, numeric_ids: bool) -> Preserve {
        debug_assert!(ARCHIVE.iter().all(|(name, _, _)| self.0.try_contains_id(name).is_ok()));
        Preserve {
            links: self.is_on("links"),
            perms: self.is_on("perms"),
            owner: self.is_on("owner"),
            group: self.is_on("group"),
            times: self.is_on("times"),
            devices: self.is_on("devices"),
            specials: self.is_on("specials"),
            numeric_ids,
        }
    }
}

fn whole_file(matches: &ArgMatches, is_local: bool) -> bool {
    let archive = Archive(matches);
    match (archive.last("whole-file"), archive.last("no-whole-file")) {
        // Between two disks of one machine looking for a delta costs more than it saves.
        (None, None) => is_local,
        (on, off) => on > off,
    }
}

fn text(matches: &ArgMatches, name: &str) -> Result<Option<String>, UsageError> {
    match matches.get_one::<OsString>(name) {
        None => Ok(None),
        Some(value) => match value.to_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => usage(format!("--{name}: not text")),
        },
    }
}

fn values<'a>(matches: &'a ArgMatches, name: &str) -> impl Iterator<Item = &'a OsString> {
    matches.get_many::<OsString>(name).unwrap_or_default()
}

fn block_size(size: &str) -> Result<u32, UsageError> {
    let bytes = amount(size, 1).and_then(|bytes| u32::try_from(bytes).ok());
    match bytes.filter(|bytes| (512..=16 << 20).contains(bytes)) {
        Some(bytes) => Ok(bytes),
        None => usage(format!("--block-size: {size:?} is not a number of bytes from 512 to 16M")),
    }
}

fn bandwidth(matches: &ArgMatches) -> Result<u64, UsageError> {
    let Some(rate) = text(matches, "bwlimit")? else { return Ok(0) };
    match amount(&rate, 1024) {
        Some(bytes) => Ok(bytes),
        None => usage(format!(
            "--bwlimit: {rate:?} is not a rate; write KiB a second, or a number with K, M or G"
        )),
    }
}

/// A number with rsync's suffixes; `unit` is what a bare number counts.
fn amount(text: &str, unit: u64) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].to_ascii_lowercase().as_str() {
        "" => unit,
        "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return None,
    };
    let bytes = number * factor as f64;
    (bytes.is_finite() && bytes < 1e18).then_some(bytes as u64)
}

fn compression(matches: &ArgMatches) -> Result<Compression, UsageError> {
    let archive = Archive(matches);
    let Some(how) =
        text(matches, "compress")?.filter(|_| archive.last("compress") > archive.last("no-compress"))
    else {
        let is_off = archive.last("no-compress").is_some();
        return Ok(if is_off { Compression::None } else { Compression::Auto });
    };
    match how.as_str() {
        "none" => Ok(Compression::None),
        "auto" => Ok(Compression::Auto),
        "zstd" => Ok(Compression::Zstd { level: 3 }),
        other => match other.strip_prefix("zstd:").and_then(|level| level.parse().ok()) {
            Some(level @ 1..=19) => Ok(Compression::Zstd { level }),
            _ => usage(format!("--compress: {other:?} is not one of auto, zstd, zstd:1 to zstd:19, none")),
        },
    }
}

/// The filter rules in the order in which they were given.
fn filter(matches: &ArgMatches) -> Result<FilterRules, UsageError> {
    let mut given = Vec::new();
    for name in ["exclude", "include", "exclude-from", "include-from"] {
        let indices = matches.indices_of(name).into_iter().flatten();
        given.extend(indices.zip(values(matches, name)).map(|(index, value)| (index, name, value)));
    }
    given.sort_by_key(|&(index, ..)| index);
    let mut rules = FilterRules::default();
    for (_, name, value) in given {
        let wrong = |error: FilterError| {
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            UsageError(format!("--{name} {}: {error}{cause}", value.display()))
        };
        match name {
            "exclude" => rules.push_exclude(value.as_bytes()).map_err(wrong)?,
            "include" => rules.push_include(value.as_bytes()).map_err(wrong)?,
            "exclude-from" => rules.push_exclude_file(&read(name, value)?).map_err(wrong)?,
            _ => rules.push_include_file(&read(name, value)?).map_err(wrong)?,
        }
    }
    Ok(rules)
}

fn read(option: &str, file: &OsStr) -> Result<Vec<u8>, UsageError> {
    let content = if file == "-" {
        let mut content = Vec::new();
        std::io::stdin().read_to_end(&mut content).map(|_| content)
    } else {
        std::fs::read(file)
    };
    content.map_err(|error| UsageError(format!("--{option}: cannot read {}: {error}", file.display())))
}

fn chmods(matches: &ArgMatches, umask: u16) -> Result<Vec<protocol::options::ModeChange>, UsageError> {
    let mut all = Vec::new();
    for value in values(matches, "chmod") {
        all.extend(chmod::parse(&value.to_string_lossy(), umask).map_err(UsageError)?);
    }
    Ok(all)
}

fn chown(matches: &ArgMatches) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let Some(value) = matches.get_one::<OsString>("chown") else { return (None, None) };
    let mut parts = value.as_bytes().splitn(2, |&byte| byte == b':');
    let mut part = || parts.next().filter(|part| !part.is_empty()).map(<[u8]>::to_vec);
    (part(), part())
}

fn output(matches: &ArgMatches) -> OutputOptions {
    OutputOptions {
        verbose: matches.get_count("verbose"),
        quiet: matches.get_flag("quiet"),
        progress: matches.get_flag("progress") || matches.get_flag("P"),
        json: matches.get_flag("json"),
        human: matches.get_flag("human-readable"),
        log_file: matches.get_one::<OsString>("log-file").map(PathBuf::from),
        ..OutputOptions::default()
    }
}

fn connection(matches: &ArgMatches) -> Result<Connection, UsageError> {
    let shell = text(matches, "rsh")?;
    let is_system = match text(matches, "ssh")?.as_deref() {
        None | Some("builtin") => false,
        Some("system") => true,
        Some(other) => return usage(format!("--ssh: {other:?} is neither builtin nor system")),
    };
    let connection = Connection {
        port: matches.get_one::<u16>("port").copied(),
        identities: values(matches, "identity").map(PathBuf::from).collect(),
        known_hosts: values(matches, "known-hosts").map(PathBuf::from).collect(),
        pinned: text(matches, "host-key")?,
        accept_new: matches.get_flag("accept-new"),
        agent: matches
            .get_one::<OsString>("agent-path")
            .map_or(b"sync-agent".to_vec(), |path| path.as_bytes().to_vec()),
        timeout_s: matches.get_one::<u32>("timeout").copied().unwrap_or(0),
        channels: matches.get_one::<u8>("connections").copied(),
        ..Connection::default()
    };
    through(connection, &shell.unwrap_or_else(|| "ssh".to_owned()), is_system)
}

/// The connection through the remote shell `shell` (`-e`): the built-in client does it where it knows all that the
/// line says and the system's is not asked for; else that program is started.
pub(crate) fn through(
    mut connection: Connection,
    shell: &str,
    is_system: bool,
) -> Result<Connection, UsageError> {
    match system::parse_ssh_command(shell).filter(|_| !is_system) {
        Some(ssh) => connection.ssh = ssh,
        None => {
            let words = system::split_words(shell).filter(|words| !words.is_empty());
            let Some(words) = words else {
                return usage(format!("-e {shell:?}: quotes that do not close, or no program"));
            };
            let mut program: Vec<OsString> = words.into_iter().map(OsString::from).collect();
            let mut add = |flag: &str, value: OsString| program.extend([OsString::from(flag), value]);
            connection.port.into_iter().for_each(|port| add("-p", port.to_string().into()));
            connection.identities.iter().for_each(|identity| add("-i", identity.into()));
            let is_ssh = program_name(shell) == "ssh";
            let trust = trust_options(&connection);
            if connection.pinned.is_some() || !(trust.is_empty() || is_ssh) {
                return usage(
                    "--host-key, --known-hosts and --accept-new are for the built-in SSH client; \
                     give the program of -e its own options for that",
                );
            }
            program.extend(trust);
            connection.program = Some(program);
        }
    }
    Ok(connection)
}

fn program_name(shell: &str) -> &str {
    let program = shell.split_whitespace().next().unwrap_or_default();
    program.rsplit('/').next().unwrap_or_default()
}

/// Whom to trust, as options of OpenSSH's client.
fn trust_options(connection: &Connection) -> Vec<OsString> {
    let mut options = Vec::new();
    if !connection.known_hosts.is_empty() {
        let mut files = OsString::from("UserKnownHostsFile=");
        for (at, file) in connection.known_hosts.iter().enumerate() {
            files.push(if at > 0 { " " } else { "" });
            files.push(file);
        }
        options.extend([OsString::from("-o"), files]);
    }
    if connection.accept_new {
        options.extend(["-o", "StrictHostKeyChecking=accept-new"].map(OsString::from));
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Job, String> {
        let words = ["sync-client", "sync"].into_iter().chain(line.split_whitespace());
        let matches =
            crate::args::command().try_get_matches_from(words).map_err(|error| error.to_string())?;
        let (_, sync) = matches.subcommand().ok_or("no command")?;
        super::sync(sync, 0o022).map_err(|error| error.to_string())
    }

    #[test]
    fn the_line_of_the_written_procedure_works_as_it_stands() {
        let line = [
            "sync-client",
            "sync",
            "--verbose",
            "--copy-links",
            "--archive",
            "--compress",
            "--delete",
            "-e",
            "ssh -i KEY",
            "USER@HOST:SRC/",
            "DST/",
        ];
        let matches = crate::args::command().try_get_matches_from(line).unwrap();
        let job = super::sync(matches.subcommand().unwrap().1, 0o022).unwrap();
        assert!(job.options.copy_links && job.options.recursive && job.options.delete.extraneous);
        assert_eq!(job.options.compression, Compression::Zstd { level: 3 });
        assert_eq!(job.connection.ssh.identities, [PathBuf::from("KEY")]);
        assert_eq!(job.source.paths, [b"SRC/".to_vec()]);
        assert_eq!(job.source.host.unwrap().user.as_deref(), Some("USER"));
    }

    #[test]
    fn options_take_effect_from_left_to_right() {
        for (line, owner, times) in [
            ("-a a b", true, true),
            ("-a --no-o a b", false, true),
            ("--no-owner -a a b", true, true),
            ("-a --no-o --no-times a b", false, false),
            ("-rt a b", false, true),
            ("-a --no-t -t a b", true, true),
        ] {
            let keep = parse(line).unwrap().options.preserve;
            assert_eq!((keep.owner, keep.times), (owner, times), "{line}");
        }
        assert!(parse("-avzxc a b").unwrap().options.one_file_system);
        assert!(parse("-zav a b").unwrap().options.recursive);
        assert!(!parse("-a --no-D a b").unwrap().options.preserve.devices);
    }

    #[test]
    fn what_rsync_has_and_this_has_not_is_refused_by_name() {
        for (line, name) in [
            ("-aH a b", "--hard-links"),
            ("-aX a b", "--xattrs"),
            ("-a --link-dest=x a b", "--link-dest"),
            ("-a --files-from=x a b", "--files-from"),
            ("-a -f x a b", "--filter"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(name), "{line}: {error}");
        }
        for line in [
            "--host-key=x -e myssh h:a b",
            "--ssh=other a b",
            "-a a",
            "-a h:a h:b",
            "-a h:a g:b c",
            "-a --bwlimit=x a b",
            "--delete a b",
            "-a h::m b",
            "-a --connections=0 a h:b",
            "-a --connections=9 a h:b",
            "-a --connections=x a h:b",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn every_value_of_an_option_that_may_be_repeated_counts() {
        let job = parse(
            "-a --exclude=/logs --exclude=/local --include=x --chmod=u+x --chmod=g+w --identity=1 --identity=2 \
             --known-hosts=1 --known-hosts=2 --port=1 --port=2 -v -v -a a b",
        )
        .unwrap();
        let excludes =
            |path: &str| job.options.filter.excludes(path.as_bytes(), true, protocol::filter::Side::Sender);
        assert!(excludes("logs") && excludes("local") && !excludes("x"));
        assert_eq!(job.options.chmod.len(), 2);
        assert_eq!((job.connection.identities.len(), job.connection.known_hosts.len()), (2, 2));
        assert_eq!((job.connection.port, job.output.verbose), (Some(2), 2));
    }

    #[test]
    fn amounts_have_rsync_s_units() {
        for (text, bytes) in [("1", 1024), ("1.5m", 1_572_864), ("2MB", 2_000_000), ("100B", 100), ("0", 0)] {
            assert_eq!(amount(text, 1024), Some(bytes), "{text}");
        }
        for text in ["", "x", "1x", "-1"] {
            assert_eq!(amount(text, 1024), None, "{text}");
        }
    }
}

//! The arguments as typed, resolved once into what is to be done.
//!
//! Each topic of the command line has a module: its options as they are typed (`arguments`), and what they come to.

use crate::accepted;
use crate::bench::BenchJob;
use crate::console::Format;
use crate::console::LocalTime;
use crate::location::{Host, Location, LocationError};
use crate::planned::Planned;
use clap::ArgMatches;
use jiff::Timestamp;
use places::Descent;
use protocol::options::{Delete, Preserve, QuickCheck, SyncOptions};
use protocol::stats::Exit;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use typed::{amount, number, text, values};

pub(crate) mod bases;
pub(crate) mod connection;
pub(crate) mod deletion;
pub(crate) mod links;
pub(crate) mod metadata;
pub(crate) mod output;
pub(crate) mod places;
pub(crate) mod selection;
pub(crate) mod stop;
pub(crate) mod transfer;
pub(crate) mod typed;
pub(crate) mod update;
pub(crate) mod verbosity;

pub use connection::Connection;
pub(crate) use connection::{is_ssh, through};
pub use output::{Buffering, LogFile, OutputOptions, Stream, Way};
pub use selection::FileList;
pub use verbosity::{Topic, Verbosity};

/// Everything `sync` or `verify` is to do.
#[derive(Debug, Clone)]
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
    /// What is to be deleted goes before anything is copied.
    pub deletes_first: bool,
    /// What of the source is copied, if a list says so.
    pub list: Option<FileList>,
    /// When the run ends by itself.
    pub stop_at: Option<Timestamp>,
    /// `--apply-plan`: the changes that the run is held to.
    pub planned: Option<Planned>,
}

impl Job {
    /// Which way the data goes.
    #[must_use]
    pub fn way(&self) -> Way {
        Way::of(&self.source, &self.destination)
    }
}

/// What the command line's meaning depends on; the program reads it from where it was started.
#[derive(Debug, Clone)]
pub struct Given {
    /// The operator's umask.
    pub umask: u16,
    /// What the operator has CVS ignore.
    pub cvs_words: Vec<u8>,
    /// `RSYNC_RSH`: the remote shell where the line names none.
    pub remote_shell: Option<OsString>,
    /// The operator's time zone.
    pub zone: LocalTime,
    /// When the line was typed.
    pub now: Timestamp,
}

impl Given {
    /// Nothing but a umask: no environment, no zone, no clock.
    #[must_use]
    pub fn umask(umask: u16) -> Given {
        Given {
            umask,
            cvs_words: Vec::new(),
            remote_shell: None,
            zone: LocalTime::utc(),
            now: Timestamp::UNIX_EPOCH,
        }
    }
}

/// One side of a transfer: paths on one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// The other machine, or none for this one.
    pub host: Option<Host>,
    /// Source arguments, or the one destination argument.
    pub paths: Vec<Vec<u8>>,
}

/// `--state-dir`: where this end keeps its index, if one was named.
fn state_dir(matches: &ArgMatches) -> Option<PathBuf> {
    matches.get_one::<OsString>("state-dir").map(PathBuf::from)
}

/// A command line that can't be carried out; its text is for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Why nothing is begun.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The command line is wrong, or asks for what is not done.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// A file that the line names can't be read.
    #[error("{0}")]
    File(String),
    /// An argument names what this program can't speak to, or nothing.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// Another rsync has started this program as its other half.
    #[error(
        "an rsync at the other side wants to speak its own protocol; this program is sync-client: run sync-client \
         there, or let that side start /usr/bin/rsync here (--rsync-path)"
    )]
    StartedByRsync,
}

impl JobError {
    /// The exit status.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            JobError::StartedByRsync | JobError::Location(LocationError::Daemon(_)) => Exit::StartUp,
            JobError::File(_) => Exit::FileIo,
            JobError::Usage(_) | JobError::Location(_) => Exit::Usage,
        }
    }
}

fn usage<T>(message: impl Into<String>) -> Result<T, UsageError> {
    Err(UsageError(message.into()))
}

/// What `--info=help` or `--debug=help` asks for, instead of a run.
#[must_use]
pub fn help(matches: &ArgMatches) -> Option<String> {
    output::help_of_flags(matches)
}

fn refuse<T>(message: impl Into<String>) -> Result<T, JobError> {
    Err(UsageError(message.into()).into())
}

/// Resolves `sync`'s arguments.
///
/// # Errors
/// Says which argument is wrong and what to write instead.
pub fn sync(matches: &ArgMatches, given: &Given) -> Result<Job, JobError> {
    if let Some(refusal) = accepted::refusal(matches) {
        return refuse(refusal);
    }
    transfer::check_checksum_choice(matches)?;
    let (source, destination, lists) = sides(matches)?;
    let output = output::resolve_sync(matches, lists)?;
    if output.list_only {
        return list(matches, given, source, output);
    }
    let is_local = source.host.is_none() && destination.host.is_none();
    let on = |name: &str| matches.get_flag(name);
    let list = selection::list_of_files(matches, &source, &destination)?;
    let (descent, arguments) = match list {
        Some(_) => (places::descent_of_list(matches), places::rules_of_list(matches)?),
        None => (places::descent(matches), places::rules(matches)),
    };
    let Descent { recursive, directories } = descent;
    let delete = deletion::resolve(matches, recursive || directories)?;
    let options = SyncOptions {
        recursive,
        one_file_system: on("one-file-system"),
        preserve: metadata::preserve(matches),
        quick_check: update::quick_check(matches),
        update: on("update"),
        existing: on("existing"),
        ignore_existing: on("ignore-existing"),
        whole_file: transfer::whole_file(matches, is_local),
        inplace: on("inplace"),
        block_size: transfer::block_size(matches)?,
        delete,
        filter: selection::filter(matches, &given.cvs_words)?,
        chmod: metadata::chmods(matches, given.umask)?,
        compression: transfer::compression(matches)?,
        without_index: on("no-index"),
        dry_run: on("dry-run"),
        verify: false,
        itemize: output.names_entries(),
        bandwidth_bytes_per_s: connection::bandwidth(matches)?,
        timeout_s: matches.get_one::<u32>("timeout").copied().unwrap_or(0),
        links: links::resolve(matches, &source),
        arguments,
        time_window: update::time_window(matches),
        directories,
        remove_source_files: on("remove-source-files"),
        prune_empty_dirs: on("prune-empty-dirs"),
        sizes: selection::sizes(matches)?,
        telling: output.telling(),
        room: transfer::room(matches),
        reading: transfer::reading(matches),
        owners: metadata::owner_maps(matches)?,
        privileges: metadata::privileges(matches, Way::of(&source, &destination))?,
        ..SyncOptions::default()
    };
    let options = bases::resolve(matches, options)?;
    let planned = matches.get_one::<OsString>("apply-plan").map(|file| Planned::read(file)).transpose()?;
    if planned.is_some() && options.dry_run {
        return refuse("--apply-plan carries a plan out, --dry-run makes one: leave out one of them");
    }
    if planned.is_some() && options.remove_source_files {
        return refuse(
            "--remove-source-files cannot be used with --apply-plan: a plan has no line of what would be removed from the \
             source; apply the plan first, then run without it",
        );
    }
    if planned.is_some() && options.preserve.hard_links && options.may_spare() {
        return refuse(
            "--apply-plan cannot be used with -H and one of -u, --existing, --ignore-existing, --append: which name the \
             others become links to is decided in the run; leave out -H, or the plan",
        );
    }
    let output = OutputOptions {
        times: options.preserve.times,
        recursive: options.recursive,
        dry_run: options.dry_run,
        ..output
    };
    Ok(Job {
        source,
        destination,
        options,
        connection: connection::resolve(matches, given)?,
        output,
        state_dir: state_dir(matches),
        deletes_first: deletion::comes_first(matches),
        list,
        stop_at: stop::resolve(matches, given.now, &given.zone)?,
        planned,
    })
}

/// `--list-only`: a dry run of a copy into nothing, which tells all there is of each entry. Where the list ends
/// is for [`crate::endpoint`] to say.
fn list(matches: &ArgMatches, given: &Given, source: Side, output: OutputOptions) -> Result<Job, JobError> {
    let recursive = metadata::is_kept(matches, "recursive");
    let mut filter = selection::filter(matches, &given.cvs_words)?;
    if !recursive {
        // One level: as if by -r --exclude='/*/*'.
        filter.push_exclude(b"/*/*").map_err(|error| UsageError(error.to_string()))?;
    }
    let options = SyncOptions {
        recursive: true,
        links: links::resolve(matches, &source),
        one_file_system: matches.get_flag("one-file-system"),
        preserve: Preserve::all(true),
        filter,
        dry_run: true,
        itemize: true,
        bandwidth_bytes_per_s: connection::bandwidth(matches)?,
        timeout_s: matches.get_one::<u32>("timeout").copied().unwrap_or(0),
        ..SyncOptions::default()
    };
    let shows_targets = metadata::is_kept(matches, "links");
    Ok(Job {
        source,
        destination: Side { host: None, paths: Vec::new() },
        options,
        connection: connection::resolve(matches, given)?,
        output: OutputOptions { recursive, shows_targets, ..output },
        state_dir: None,
        deletes_first: false,
        list: None,
        stop_at: stop::resolve(matches, given.now, &given.zone)?,
        planned: None,
    })
}

/// Resolves `verify`'s arguments.
///
/// # Errors
/// As [`sync`].
pub fn verify(matches: &ArgMatches, given: &Given) -> Result<Job, JobError> {
    let (source, destination, _) = sides(matches)?;
    let options = SyncOptions {
        recursive: true,
        one_file_system: matches.get_flag("one-file-system"),
        preserve: metadata::compared(matches),
        chmod: metadata::chmods(matches, given.umask)?,
        owners: metadata::owner_maps(matches)?,
        privileges: metadata::privileges(matches, Way::of(&source, &destination))?,
        quick_check: QuickCheck::Checksum,
        delete: Delete { extraneous: true, ..Delete::default() },
        filter: selection::filter(matches, &[])?,
        dry_run: true,
        verify: true,
        itemize: true,
        bandwidth_bytes_per_s: connection::bandwidth(matches)?,
        timeout_s: matches.get_one::<u32>("timeout").copied().unwrap_or(0),
        links: links::resolve(matches, &source),
        time_window: update::time_window(matches),
        ..SyncOptions::default()
    };
    let output = OutputOptions {
        format: Some(Format::itemized()),
        times: true,
        recursive: true,
        dry_run: true,
        verify: true,
        ..output::resolve(matches)?
    };
    Ok(Job {
        source,
        destination,
        options,
        connection: connection::resolve(matches, given)?,
        output,
        state_dir: None,
        deletes_first: false,
        list: None,
        stop_at: None,
        planned: None,
    })
}

/// Resolves `bench`'s arguments.
///
/// # Errors
/// As [`sync`].
pub fn bench(matches: &ArgMatches, given: &Given) -> Result<BenchJob, JobError> {
    let (source, destination) = bench_sides(matches)?;
    let options = SyncOptions {
        bandwidth_bytes_per_s: connection::bandwidth(matches)?,
        timeout_s: matches.get_one::<u32>("timeout").copied().unwrap_or(0),
        ..SyncOptions::default()
    };
    let (json, quiet) = (matches.get_flag("json"), matches.get_flag("quiet"));
    let output = OutputOptions { json, quiet, ..OutputOptions::default() };
    let connection = connection::resolve(matches, given)?;
    Ok(BenchJob {
        job: Job {
            source,
            destination,
            options,
            connection,
            output,
            state_dir: None,
            deletes_first: false,
            list: None,
            stop_at: None,
            planned: None,
        },
        seconds: number(matches, "seconds", 2.0, 0.05..=60.0)?,
        size_bytes: text(matches, "size")?.map_or(Ok(256 << 20), |size| bench_size(&size))?,
        change_percent: number(matches, "change", 1.0, 0.0..=100.0)?,
        read_only: matches.get_flag("no-write").then_some("--no-write was given"),
        html: matches.get_one::<OsString>("html").map(PathBuf::from),
    })
}

/// A side that was not given has no path and no host.
fn bench_sides(matches: &ArgMatches) -> Result<(Side, Side), JobError> {
    let side = |argument: &OsString| match Location::parse(argument) {
        Ok(Location::Local(path)) => Ok(Side { host: None, paths: vec![path] }),
        Ok(Location::Remote { host, path }) => Ok(Side { host: Some(host), paths: vec![path] }),
        Err(error) => Err(JobError::from(error)),
    };
    let mut paths = values(matches, "paths");
    let source = paths.next().map_or_else(|| refuse("a directory is needed"), side)?;
    let none = Side { host: None, paths: Vec::new() };
    let destination = paths.next().map_or(Ok(none), side)?;
    if source.host.is_some() && destination.host.is_some() {
        return refuse(ONE_SIDE_HERE);
    }
    Ok((source, destination))
}

fn bench_size(size: &str) -> Result<u64, UsageError> {
    match amount(size, 1).filter(|bytes| *bytes >= 1 << 20) {
        Some(bytes) => Ok(bytes),
        None => usage(format!("--size: {size:?} is not a number of bytes from 1M")),
    }
}

/// Source and destination, and whether the latter is none: a source alone is listed.
fn sides(matches: &ArgMatches) -> Result<(Side, Side, bool), JobError> {
    let paths: Vec<&OsString> = values(matches, "paths").collect();
    let (destination, sources) = match paths.split_last() {
        Some((destination, sources)) if !sources.is_empty() => (Some(*destination), sources),
        Some(_) => (None, &paths[..]),
        None => {
            return refuse(
                "a source and a destination are needed: sync-client sync [OPTIONS] SOURCE… DESTINATION",
            );
        }
    };
    let parse = |argument: &OsString| Location::parse(argument);
    let side = |argument: &OsString| {
        Ok::<Side, JobError>(match parse(argument)? {
            Location::Local(path) => Side { host: None, paths: vec![path] },
            Location::Remote { host, path } => Side { host: Some(host), paths: vec![path] },
        })
    };
    let lists = destination.is_none();
    let nowhere = Side { host: None, paths: Vec::new() };
    let destination = destination.map_or(Ok(nowhere), side)?;
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
            Some(_) => return refuse("all sources must be on one machine"),
        }
    }
    match source {
        Some(source) if source.host.is_some() && destination.host.is_some() => refuse(ONE_SIDE_HERE),
        Some(source) => Ok((source, destination, lists)),
        None => refuse("a source is needed"),
    }
}

const ONE_SIDE_HERE: &str =
    "one side must be on this machine: run sync-client on the source or on the destination";

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::options::Compression;

    fn parse(line: &str) -> Result<Job, String> {
        let words = ["sync-client", "sync"].into_iter().chain(line.split_whitespace());
        let matches =
            crate::args::command().try_get_matches_from(words).map_err(|error| error.to_string())?;
        let (_, sync) = matches.subcommand().ok_or("no command")?;
        super::sync(sync, &Given::umask(0o022)).map_err(|error| error.to_string())
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
        let job = super::sync(matches.subcommand().unwrap().1, &Given::umask(0o022)).unwrap();
        assert_eq!(job.options.links.followed, protocol::links::Followed::All);
        assert!(job.options.recursive && job.options.delete.extraneous);
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
        for (line, name) in [("-a --write-devices a b", "--write-devices"), ("-a -N a b", "--crtimes")] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(name), "{line}: {error}");
        }
        for line in [
            "--host-key=x -e myssh h:a b",
            "--ssh=other a b",
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
        assert_eq!(job.connection.port, Some(2));
    }

    #[test]
    fn a_window_is_in_seconds_and_a_negative_one_counts_nanoseconds() {
        use protocol::window::TimeWindow;
        for (line, window) in [
            ("-a a b", TimeWindow::Exact),
            ("-a -@2 a b", TimeWindow::Seconds(2)),
            ("-a --modify-window=0 a b", TimeWindow::Seconds(0)),
            ("-a -@2 -@-1 a b", TimeWindow::Exact),
        ] {
            assert_eq!(parse(line).unwrap().options.time_window, window, "{line}");
        }
        assert!(parse("-a -@1.5 a b").is_err() && parse("-a -@1s a b").is_err());
    }

    #[test]
    fn deletions_happen_at_one_time_and_need_directories_that_are_entered() {
        let delete = |line: &str| parse(line).map(|job| (job.options.delete.extraneous, job.deletes_first));
        for (line, expected) in [
            ("-a a b", (false, false)),
            ("-a --del a b", (true, false)),
            ("-a --delete-before --delete a b", (true, true)),
            ("-a --delete-after a b", (true, false)),
            ("-d --delete-delay a b", (true, false)),
        ] {
            assert_eq!(delete(line).unwrap(), expected, "{line}");
        }
        for line in ["-a --delete-before --delete-after a b", "--delete-during a b", "-a --max-delete=x a b"]
        {
            assert!(delete(line).is_err(), "{line}");
        }
        assert_eq!(parse("-a --delete --max-delete=-1 a b").unwrap().options.delete.max_entries, Some(0));
    }

    #[test]
    fn directories_are_entered_made_or_skipped() {
        for (line, recursive, directories) in [
            ("-a a b", true, false),
            ("-ad a b", true, false),
            ("-d a b", false, true),
            ("-d --no-d a b", false, false),
            ("-a --no-r -d a b", false, true),
            ("-a --old-dirs a b", false, true),
        ] {
            let options = parse(line).unwrap().options;
            assert_eq!((options.recursive, options.directories), (recursive, directories), "{line}");
        }
    }

    #[test]
    fn amounts_have_rsync_s_units() {
        for (text, bytes) in [
            ("1", 1024),
            ("1.5m", 1_572_864),
            ("2MB", 2_000_000),
            ("100B", 100),
            ("0", 0),
            ("1.5mb-1", 1_499_999),
            ("2g+1", 2_147_483_649),
            ("1T", 1 << 40),
        ] {
            assert_eq!(amount(text, 1024), Some(bytes), "{text}");
        }
        for text in ["", "x", "1x", "-1"] {
            assert_eq!(amount(text, 1024), None, "{text}");
        }
    }
}

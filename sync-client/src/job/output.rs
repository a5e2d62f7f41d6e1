//! What is printed, and where.

use super::typed::{Order, flag, given_values, list, no, text, value};
use super::verbosity::{Topic, Verbosity, check_debug};
use super::{Side, UsageError, usage};
use crate::console::{Format, Human};
use clap::{Arg, ArgAction, ArgMatches, Command};
use protocol::itemize::Arrow;
use protocol::options::Telling;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// Which way the data goes, seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the words are those of everybody")]
pub enum Way {
    #[default]
    Local,
    Pull,
    Push,
}

impl Way {
    /// The way from one side to the other.
    pub(crate) fn of(source: &Side, destination: &Side) -> Way {
        match (&source.host, &destination.host) {
            (Some(_), _) => Way::Pull,
            (None, Some(_)) => Way::Push,
            (None, None) => Way::Local,
        }
    }

    /// The first of the itemized letters, where something is transferred.
    #[must_use]
    pub fn arrow(self) -> Arrow {
        match self {
            Way::Push => Arrow::Sent,
            Way::Pull | Way::Local => Arrow::Received,
        }
    }
}

/// Where what is said goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stream {
    /// Standard output; errors to standard error.
    #[default]
    Output,
    /// All of it to standard error (`--stderr=all`).
    Error,
}

/// When what is said is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Buffering {
    /// Line by line.
    #[default]
    Lines,
    /// When a block is full (`--outbuf=B`).
    Blocks,
}

/// `--log-file`.
#[derive(Debug, Clone)]
pub struct LogFile {
    /// Where.
    pub path: PathBuf,
    /// What is logged of each item.
    pub format: Format,
}

/// What is printed, and where.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is one of rsync's independent switches")]
pub struct OutputOptions {
    /// `-v`, `--info`, `--stats`, `--progress`.
    pub said: Verbosity,
    /// `-q`.
    pub quiet: bool,
    /// `-i`, `--out-format`; where there is none, names are printed if the topic is on.
    pub format: Option<Format>,
    /// `--json`.
    pub json: bool,
    /// `-h`.
    pub human: Human,
    /// `-8`.
    pub eight_bit: bool,
    /// `--stderr`.
    pub stream: Stream,
    /// `--outbuf`.
    pub buffering: Buffering,
    /// `--log-file`.
    pub log: Option<LogFile>,
    /// `--list-only`: the source is listed instead of copied.
    pub list_only: bool,
    /// Of a list: where links lead (`--links`).
    pub shows_targets: bool,
    /// What is up to date is told too (`-ii`).
    pub unchanged: bool,
    /// `--times`: the letter for a changed time.
    pub times: bool,
    /// `--recursive`.
    pub recursive: bool,
    /// Nothing is changed.
    pub dry_run: bool,
    /// Both trees are compared.
    pub verify: bool,
}

impl OutputOptions {
    /// Whether anything is said, or logged, of single entries.
    #[must_use]
    pub fn names_entries(&self) -> bool {
        let topics = [Topic::Name, Topic::Del, Topic::Progress];
        self.format.is_some()
            || self.json
            || self.list_only
            || self.log.is_some()
            || topics.into_iter().any(|topic| self.said.says(topic))
    }

    /// Whether `--json` has an object for each entry that something is done to.
    #[must_use]
    pub fn tells_programs(&self) -> bool {
        self.format.is_some() || self.said.says(Topic::Name) || self.dry_run
    }

    /// What is to be reported of entries that nothing is done to.
    #[must_use]
    pub fn telling(&self) -> Telling {
        let unchanged = self.unchanged || self.said.level(Topic::Name) > 1;
        Telling { unchanged, spared: self.said.says(Topic::Skip) }
    }
}

/// What every command that compares or copies trees takes.
pub(crate) fn arguments(command: Command) -> Command {
    command
        .next_help_heading("Output")
        .arg(
            Arg::new("verbose").short('v').long("verbose").action(ArgAction::Count).help("Name what is done"),
        )
        .arg(flag("quiet", Some('q'), "Print errors only"))
        .arg(flag("json", None, "Print one JSON object a line, the last one a summary"))
        .arg(value("log-file", "FILE", "Append what is done to FILE"))
        .arg(value("log-file-format", "FORMAT", "What is logged of each item [default: '%i %n%L']"))
        .arg(
            Arg::new("human-readable")
                .short('h')
                .long("human-readable")
                .action(ArgAction::Count)
                .help("Print numbers with units of 1000; twice: of 1024"),
        )
        .arg(no("human-readable", Some('h')))
        .arg(flag("8-bit-output", Some('8'), "Print names' bytes above ASCII as they are"))
        .arg(value(
            "outbuf",
            "MODE",
            "Write output when a line (N, L) or a block (B) is complete [default: L]",
        ))
        .arg(value("stderr", "MODE", "errors [default], all: everything goes to standard error, or client"))
        .arg(flag("msgs2stderr", None, "Same as --stderr=all").hide(true))
        .arg(no("msgs2stderr", None))
        .arg(flag("progress", None, "Print a line for each file that is done"))
        .arg(flag("P", Some('P'), "Same as --partial --progress").long(None))
        .arg(no("progress", None))
        .arg(list("info", "FLAGS", "What is said: names of topics with levels; --info=help lists them"))
        .arg(list("debug", "FLAGS", "rsync's flags are accepted; nothing is said about them"))
}

/// What only `sync` takes.
pub(crate) fn arguments_of_sync(command: Command) -> Command {
    arguments(command)
        .arg(Arg::new("itemize-changes").short('i').long("itemize-changes").action(ArgAction::Count).help(
            "Print a line of letters for each change, as rsync does; twice: for what is up to date too",
        ))
        .arg(value(
            "out-format",
            "FORMAT",
            "Print FORMAT for each change, with rsync's escapes (%i %n %L %l …)",
        ))
        .arg(flag("stats", None, "Print statistics at the end"))
        .arg(flag("list-only", None, "List SOURCE instead of copying it (so does a SOURCE alone)"))
}

/// What every command that compares or copies trees is told.
pub(crate) fn resolve(matches: &ArgMatches) -> Result<OutputOptions, UsageError> {
    let mut said = Verbosity::of(matches.get_count("verbose"));
    if shows_progress(matches) {
        said.raise(Topic::Flist, 2);
        said.raise(Topic::Name, 1);
        said.raise(Topic::Progress, 1);
    }
    apply_flags(matches, &mut said)?;
    Ok(OutputOptions {
        said,
        quiet: matches.get_flag("quiet"),
        json: matches.get_flag("json"),
        human: human(matches),
        eight_bit: matches.get_flag("8-bit-output"),
        stream: stream(matches)?,
        buffering: buffering(matches)?,
        log: log(matches),
        ..OutputOptions::default()
    })
}

/// What `sync` is told. `lists`: there is no destination.
pub(crate) fn resolve_sync(matches: &ArgMatches, lists: bool) -> Result<OutputOptions, UsageError> {
    let itemized = matches.get_count("itemize-changes");
    let given = matches.get_one::<OsString>("out-format");
    let format = given.map(|format| Format::parse(format.as_bytes()));
    let mut options = resolve(matches)?;
    options.format = format.or_else(|| (itemized > 0).then(Format::itemized));
    if options.format.is_some() {
        options.said.raise(Topic::Name, 1);
    }
    if matches.get_flag("stats") {
        options.said.raise(Topic::Stats, if matches.get_count("verbose") > 1 { 3 } else { 2 });
    }
    // Whatever the flags name counts more than what other options bring.
    apply_flags(matches, &mut options.said)?;
    options.unchanged = itemized > 1;
    options.list_only = lists || matches.get_flag("list-only");
    Ok(options)
}

fn apply_flags(matches: &ArgMatches, said: &mut Verbosity) -> Result<(), UsageError> {
    for flags in given_values(matches, "info") {
        said.apply(&flags?)?;
    }
    for flags in given_values(matches, "debug") {
        check_debug(&flags?)?;
    }
    Ok(())
}

/// `--info=help` or `--debug=help`, if one was given.
pub(crate) fn help_of_flags(matches: &ArgMatches) -> Option<String> {
    let asks = |name: &'static str| {
        given_values(matches, name)
            .flatten()
            .any(|flags| flags.split(',').any(|flag| flag.eq_ignore_ascii_case("help")))
    };
    if asks("info") {
        return Some(super::verbosity::info_help());
    }
    asks("debug").then(super::verbosity::debug_help)
}

fn shows_progress(matches: &ArgMatches) -> bool {
    let order = Order(matches);
    order.last("progress").max(order.last("P")) > order.last("no-progress")
}

fn human(matches: &ArgMatches) -> Human {
    let order = Order(matches);
    if order.last("no-human-readable") > order.last("human-readable") {
        return Human::PLAIN;
    }
    Human::of(matches.get_count("human-readable"))
}

fn stream(matches: &ArgMatches) -> Result<Stream, UsageError> {
    let order = Order(matches);
    let typed = text(matches, "stderr")?
        .filter(|_| order.last("stderr") > order.last("msgs2stderr").max(order.last("no-msgs2stderr")));
    let mode = match &typed {
        Some(mode) => mode.to_ascii_lowercase(),
        None if order.last("msgs2stderr") > order.last("no-msgs2stderr") => "all".to_owned(),
        None => "errors".to_owned(),
    };
    let is = |word: &str| !mode.is_empty() && word.starts_with(&mode);
    match () {
        // One client prints all there is to print, in either mode.
        () if is("errors") || is("client") => Ok(Stream::Output),
        () if is("all") => Ok(Stream::Error),
        () => usage(format!("--stderr: {mode:?} is not one of errors, all, client")),
    }
}

fn buffering(matches: &ArgMatches) -> Result<Buffering, UsageError> {
    let Some(mode) = text(matches, "outbuf")? else { return Ok(Buffering::Lines) };
    match mode.chars().next().map(|letter| letter.to_ascii_uppercase()) {
        Some('N' | 'U' | 'L') => Ok(Buffering::Lines),
        Some('B' | 'F') => Ok(Buffering::Blocks),
        _ => usage(format!("--outbuf: {mode:?} is not one of N, L, B")),
    }
}

fn log(matches: &ArgMatches) -> Option<LogFile> {
    let path = matches.get_one::<OsString>("log-file").map(PathBuf::from)?;
    let format = matches.get_one::<OsString>("log-file-format");
    let format = format.map_or_else(Format::itemized, |format| Format::parse(format.as_bytes()));
    Some(LogFile { path, format })
}

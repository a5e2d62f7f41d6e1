//! What is printed, and where.

use super::typed::{flag, value};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::ffi::OsString;
use std::path::PathBuf;

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

pub(crate) fn arguments(command: Command) -> Command {
    command
        .next_help_heading("Output")
        .arg(
            Arg::new("verbose").short('v').long("verbose").action(ArgAction::Count).help("Name what is done"),
        )
        .arg(flag("quiet", Some('q'), "Print errors only"))
        .arg(flag("progress", None, "Show progress even when standard error is not a terminal"))
        .arg(flag("P", Some('P'), "Same as --partial --progress").long(None))
        .arg(flag("json", None, "Print one JSON object a line, the last one a summary"))
        .arg(value("log-file", "FILE", "Append what is done to FILE"))
        .arg(flag("human-readable", Some('h'), "Print numbers with units"))
}

pub(crate) fn resolve(matches: &ArgMatches) -> OutputOptions {
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

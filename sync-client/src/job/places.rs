//! Which directories are entered, and how arguments become places of the transfer.

use super::typed::{Order, flag, no};
use super::{UsageError, metadata, usage};
use clap::{ArgMatches, Command};
use protocol::arguments::{ArgumentRules, Missing, Relative};

pub(crate) fn arguments(command: Command) -> Command {
    command
        .next_help_heading("Arguments")
        .arg(flag("dirs", Some('d'), "Copy directories without what is in them (but for SOURCE/ itself)"))
        .arg(no("dirs", Some('d')))
        .arg(flag("old-dirs", None, "The same, also with -r").alias("old-d").hide(true))
        .arg(flag("relative", Some('R'), "Copy SOURCE with its path, or the part of it behind /./"))
        .arg(no("relative", Some('R')))
        .arg(flag("no-implied-dirs", None, "With -R: leave the directories on the way to SOURCE as they are"))
        .arg(flag("implied-dirs", None, "Undo --no-implied-dirs").hide(true))
        .arg(flag("mkpath", None, "Make all missing directories of DESTINATION's path"))
        .arg(no("mkpath", None))
        .arg(flag("ignore-missing-args", None, "Pass over a SOURCE that is not there"))
        .arg(flag("delete-missing-args", None, "Remove from DESTINATION a SOURCE that is not there"))
        .arg(flag(
            "remove-source-files",
            None,
            "Remove files (not directories) from SOURCE once they are on disk at DESTINATION",
        ))
}

/// How far directories are entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descent {
    /// All the way down.
    pub(crate) recursive: bool,
    /// If not, directories that are met are made.
    pub(crate) directories: bool,
}

/// `-r` wins over `-d`, and `--old-dirs` over both.
pub(crate) fn descent(matches: &ArgMatches) -> Descent {
    let order = Order(matches);
    let is_flat = matches.get_flag("old-dirs");
    let recursive = !is_flat && metadata::is_kept(matches, "recursive");
    let dirs = order.last("dirs") > order.last("no-dirs");
    Descent { recursive, directories: !recursive && (is_flat || dirs) }
}

/// The same where a list names what is copied: `-a` does not say to descend, and directories that are named are made.
pub(crate) fn descent_of_list(matches: &ArgMatches) -> Descent {
    let order = Order(matches);
    let recursive = !matches.get_flag("old-dirs") && order.last("recursive") > order.last("no-recursive");
    Descent { recursive, directories: !recursive }
}

/// How arguments are taken.
pub(crate) fn rules(matches: &ArgMatches) -> ArgumentRules {
    let order = Order(matches);
    let is_relative = order.last("relative") > order.last("no-relative");
    with_relative(matches, if is_relative { with_paths(matches) } else { Relative::No })
}

/// How the names of a list are taken: each goes with its path.
pub(crate) fn rules_of_list(matches: &ArgMatches) -> Result<ArgumentRules, UsageError> {
    for (off, what) in
        [("no-relative", "its names go with their paths"), ("no-dirs", "directories it names are made")]
    {
        if Order(matches).last(off).is_some() {
            return usage(format!("--files-from: {what}; leave --{off} out"));
        }
    }
    Ok(with_relative(matches, with_paths(matches)))
}

fn with_paths(matches: &ArgMatches) -> Relative {
    let order = Order(matches);
    let is_without = order.last("no-implied-dirs") > order.last("implied-dirs");
    if is_without { Relative::WithoutImplied } else { Relative::Yes }
}

fn with_relative(matches: &ArgMatches, relative: Relative) -> ArgumentRules {
    let order = Order(matches);
    let missing = match (matches.get_flag("ignore-missing-args"), matches.get_flag("delete-missing-args")) {
        (_, true) => Missing::Deleted,
        (true, false) => Missing::Ignored,
        (false, false) => Missing::Reported,
    };
    ArgumentRules { relative, missing, make_path: order.last("mkpath") > order.last("no-mkpath") }
}

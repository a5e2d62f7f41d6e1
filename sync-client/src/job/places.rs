//! Which directories are entered, and how arguments become places of the transfer.

use super::metadata;
use super::typed::{Order, flag, no};
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

/// How arguments are taken.
pub(crate) fn rules(matches: &ArgMatches) -> ArgumentRules {
    let order = Order(matches);
    let is_on = |on: &str, off: &str| order.last(on) > order.last(off);
    let is_relative = is_on("relative", "no-relative");
    let relative = match is_on("no-implied-dirs", "implied-dirs") {
        _ if !is_relative => Relative::No,
        true => Relative::WithoutImplied,
        false => Relative::Yes,
    };
    let missing = match (matches.get_flag("ignore-missing-args"), matches.get_flag("delete-missing-args")) {
        (_, true) => Missing::Deleted,
        (true, false) => Missing::Ignored,
        (false, false) => Missing::Reported,
    };
    ArgumentRules { relative, missing, make_path: is_on("mkpath", "no-mkpath") }
}

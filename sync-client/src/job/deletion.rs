//! What happens to what the destination has and the source has not.

use super::typed::{flag, value};
use super::{UsageError, usage};
use clap::{ArgMatches, Command, value_parser};
use protocol::options::Delete;

/// rsync's options for when to delete; each says that deletions are wanted.
const WHEN: [&str; 4] = ["delete-before", "delete-during", "delete-delay", "delete-after"];

pub(crate) fn arguments(command: Command) -> Command {
    command
        .arg(flag("delete", None, "Remove from DESTINATION what SOURCE has not, at the end"))
        .arg(flag("delete-before", None, "The same in a pass of its own, before anything is copied"))
        .arg(flag("delete-during", None, "Same as --delete").alias("del"))
        .arg(flag("delete-delay", None, "Same as --delete"))
        .arg(flag("delete-after", None, "Same as --delete"))
        .arg(flag("delete-excluded", None, "Remove what is left out here as well (implies --delete)"))
        .arg(flag("ignore-errors", None, "Delete also where SOURCE could not be read"))
        .arg(flag("force", None, "Empty a directory that something else is to replace"))
        .arg(
            value("max-delete", "N", "Delete nothing if it would be more than N entries (exit 25)")
                .value_parser(value_parser!(i64)),
        )
        .arg(flag("allow-empty-source", None, "Let an empty source empty the destination"))
}

/// Deletions, as far as a run that enters directories or not can do them.
pub(crate) fn resolve(matches: &ArgMatches, enters: bool) -> Result<Delete, UsageError> {
    let times = WHEN.iter().filter(|when| matches.get_flag(when)).count();
    if times > 1 {
        return usage(
            "only one of --delete-before, --delete-during, --delete-delay and --delete-after can be done",
        );
    }
    let delete = Delete {
        extraneous: matches.get_flag("delete") || matches.get_flag("delete-excluded") || times > 0,
        // As for rsync, less than none is none.
        max_entries: matches.get_one::<i64>("max-delete").map(|&most| u64::try_from(most).unwrap_or(0)),
        allow_empty_source: matches.get_flag("allow-empty-source"),
        replaced_directories: matches.get_flag("force"),
        ignore_errors: matches.get_flag("ignore-errors"),
    };
    if delete.extraneous && !enters {
        return usage(
            "--delete needs --recursive (-r), --archive (-a) or --dirs (-d): without one of them nothing is listed to \
             compare with",
        );
    }
    Ok(delete)
}

/// Whether deletions come before anything is copied.
pub(crate) fn comes_first(matches: &ArgMatches) -> bool {
    matches.get_flag("delete-before")
}

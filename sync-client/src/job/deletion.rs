//! What happens to what the destination has and the source has not.

use super::typed::{flag, value};
use super::{UsageError, usage};
use clap::{ArgMatches, Command, value_parser};
use protocol::options::Delete;

pub(crate) fn arguments(command: Command) -> Command {
    command
        .arg(flag("delete", None, "Remove from DESTINATION what SOURCE has not").alias("del"))
        .arg(flag("delete-excluded", None, "Remove what is left out here as well (implies --delete)"))
        .arg(
            value("max-delete", "N", "Delete nothing if it would be more than N entries (exit 25)")
                .value_parser(value_parser!(u64)),
        )
        .arg(flag("allow-empty-source", None, "Let an empty source empty the destination"))
}

/// Deletions, as far as a run that descends into directories or not can do them.
pub(crate) fn resolve(matches: &ArgMatches, recursive: bool) -> Result<Delete, UsageError> {
    let delete = Delete {
        extraneous: matches.get_flag("delete") || matches.get_flag("delete-excluded"),
        max_entries: matches.get_one::<u64>("max-delete").copied(),
        allow_empty_source: matches.get_flag("allow-empty-source"),
    };
    if delete.extraneous && !recursive {
        return usage(
            "--delete needs --recursive (-r) or --archive (-a): without it nothing is listed to compare with",
        );
    }
    Ok(delete)
}

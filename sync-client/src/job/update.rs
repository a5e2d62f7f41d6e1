//! Which files that exist are updated.

use super::typed::flag;
use clap::{ArgMatches, Command};
use protocol::options::QuickCheck;

pub(crate) fn arguments(command: Command) -> Command {
    command
        .arg(flag("checksum", Some('c'), "Compare content, not size and time"))
        .arg(flag("ignore-times", Some('I'), "Transfer files even where size and time are the same"))
        .arg(flag("size-only", None, "Take files of the same size as up to date"))
        .arg(flag("update", Some('u'), "Skip files that are newer at the destination"))
        .arg(flag("existing", None, "Create nothing new").alias("ignore-non-existing"))
        .arg(flag("ignore-existing", None, "Update nothing that exists"))
}

/// Which existing files are taken as up to date.
pub(crate) fn quick_check(matches: &ArgMatches) -> QuickCheck {
    let checks = [
        ("checksum", QuickCheck::Checksum),
        ("size-only", QuickCheck::SizeOnly),
        ("ignore-times", QuickCheck::Never),
    ];
    checks
        .iter()
        .find(|(name, _)| matches.get_flag(name))
        .map_or(QuickCheck::SizeAndTime, |&(_, check)| check)
}

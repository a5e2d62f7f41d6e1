//! Which files that exist are updated.

use super::typed::{flag, value};
use clap::{ArgMatches, Command, value_parser};
use protocol::options::QuickCheck;
use protocol::window::TimeWindow;

pub(crate) fn arguments(command: Command) -> Command {
    command
        .arg(flag("checksum", Some('c'), "Compare content, not size and time"))
        .arg(flag("ignore-times", Some('I'), "Transfer files even where size and time are the same"))
        .arg(flag("size-only", None, "Take files of the same size as up to date"))
        .arg(flag("update", Some('u'), "Skip files that are newer at the destination"))
        .arg(flag("existing", None, "Create nothing new").alias("ignore-non-existing"))
        .arg(flag("ignore-existing", None, "Update nothing that exists"))
}

/// `--modify-window`, for `verify` too.
pub(crate) fn window(command: Command) -> Command {
    command.arg(
        value(
            "modify-window",
            "SECONDS",
            "Take times so many seconds apart as the same; -1 [default]: to the nanosecond",
        )
        .short('@')
        .value_parser(value_parser!(i32)),
    )
}

/// How near times must be; less than none is rsync's word for nanoseconds.
pub(crate) fn time_window(matches: &ArgMatches) -> TimeWindow {
    let seconds = matches.get_one::<i32>("modify-window").and_then(|&seconds| u32::try_from(seconds).ok());
    seconds.map_or(TimeWindow::Exact, TimeWindow::Seconds)
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

//! What becomes of symbolic links.

use super::Side;
use super::typed::flag;
use clap::{ArgMatches, Command};
use protocol::links::{Followed, Links, Munging};

pub(crate) fn arguments(command: Command) -> Command {
    command
        .next_help_heading("Symbolic links")
        .arg(flag("copy-links", Some('L'), "Copy what symbolic links point to"))
        .arg(flag(
            "copy-dirlinks",
            Some('k'),
            "Copy what links to directories point to; other links as links",
        ))
        .arg(flag(
            "copy-unsafe-links",
            None,
            "Copy what links out of the copied tree point to; other links as links",
        ))
        .arg(flag("safe-links", None, "Leave out links that lead out of the copied tree"))
        .arg(flag(
            "munge-links",
            None,
            "Make links at this end unusable when they arrive, usable when they leave",
        ))
        .arg(flag(
            "keep-dirlinks",
            Some('K'),
            "Take DESTINATION's links to directories inside it for those directories",
        ))
}

/// What becomes of links on the way from `source`.
pub(crate) fn resolve(matches: &ArgMatches, source: &Side) -> Links {
    let on = |name: &str| matches.get_flag(name);
    let followed = match (on("copy-unsafe-links"), on("copy-dirlinks")) {
        _ if on("copy-links") => Followed::All,
        (false, false) => Followed::None,
        (leading_out, to_directories) => Followed::Some { leading_out, to_directories },
    };
    let munging = match source.host {
        _ if !on("munge-links") => Munging::Off,
        Some(_) => Munging::Put,
        None => Munging::TakenAway,
    };
    Links { followed, only_inside: on("safe-links"), keep_directories: on("keep-dirlinks"), munging }
}

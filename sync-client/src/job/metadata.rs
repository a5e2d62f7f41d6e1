//! Which metadata a copy keeps, and how it is changed on the way.

use super::UsageError;
use super::typed::{Order, flag, list, no, value, values};
use crate::chmod;
use clap::{ArgMatches, Command};
use protocol::options::Preserve;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

/// rsync's archive options with their letters; each has a `--no-` form.
const ARCHIVE: [(&str, char, &str); 8] = [
    ("recursive", 'r', "Descend into directories"),
    ("links", 'l', "Copy symbolic links as links"),
    ("perms", 'p', "Keep permission bits"),
    ("times", 't', "Keep modification times"),
    ("group", 'g', "Keep the group"),
    ("owner", 'o', "Keep the owner (as root)"),
    ("devices", '\0', "Keep devices (as root)"),
    ("specials", '\0', "Keep FIFOs and sockets"),
];

pub(crate) fn arguments(command: Command) -> Command {
    let mut command = command
        .next_help_heading("What is kept")
        .arg(flag("archive", Some('a'), "Same as -rlptgoD"))
        .arg(flag("D", Some('D'), "Same as --devices --specials").long(None));
    for (name, letter, help) in ARCHIVE {
        let letter = (letter != '\0').then_some(letter);
        command = command.arg(flag(name, letter, help));
        command = command.arg(no(name, letter));
    }
    command
        .arg(no("D", None))
        .arg(no("archive", Some('a')))
        .arg(flag(
            "xattrs",
            Some('X'),
            "Keep extended attributes (as root all but the system's, else those of users)",
        ))
        .arg(no("xattrs", Some('X')))
        .arg(flag("numeric-ids", None, "Owner and group by number, not by name"))
        .arg(value("chown", "USER:GROUP", "Owner and group of everything, by name or number"))
        .arg(list("chmod", "CHANGES", "Change permission bits, for example D755,F644 or go-w"))
}

/// Whether one of the archive options is on, after `-a`, `-D` and every `--no-X` took effect from left to right.
pub(crate) fn is_kept(matches: &ArgMatches, name: &str) -> bool {
    let order = Order(matches);
    let is_node = matches!(name, "devices" | "specials");
    let on = [order.last(name), order.last("archive"), is_node.then(|| order.last("D")).flatten()];
    let off = [
        order.last(&format!("no-{name}")),
        order.last("no-archive"),
        is_node.then(|| order.last("no-D")).flatten(),
    ];
    on.into_iter().max() > off.into_iter().max()
}

/// What is kept of the metadata.
pub(crate) fn preserve(matches: &ArgMatches) -> Preserve {
    let is_on = |name| is_kept(matches, name);
    Preserve {
        links: is_on("links"),
        perms: is_on("perms"),
        owner: is_on("owner"),
        group: is_on("group"),
        times: is_on("times"),
        devices: is_on("devices"),
        specials: is_on("specials"),
        numeric_ids: matches.get_flag("numeric-ids"),
        xattrs: kept_beside(matches, "xattrs"),
    }
}

/// Whether an option that `-a` does not stand for is on: the last of it and its `--no-` form counts.
fn kept_beside(matches: &ArgMatches, name: &str) -> bool {
    let order = Order(matches);
    order.last(name) > order.last(&format!("no-{name}"))
}

pub(crate) fn chmods(
    matches: &ArgMatches,
    umask: u16,
) -> Result<Vec<protocol::options::ModeChange>, UsageError> {
    let mut all = Vec::new();
    for value in values(matches, "chmod") {
        all.extend(chmod::parse(&value.to_string_lossy(), umask).map_err(UsageError)?);
    }
    Ok(all)
}

pub(crate) fn chown(matches: &ArgMatches) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let Some(value) = matches.get_one::<OsString>("chown") else { return (None, None) };
    let mut parts = value.as_bytes().splitn(2, |&byte| byte == b':');
    let mut part = || parts.next().filter(|part| !part.is_empty()).map(<[u8]>::to_vec);
    (part(), part())
}

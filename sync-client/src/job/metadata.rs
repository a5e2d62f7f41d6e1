//! Which metadata a copy keeps, and how it is changed on the way.

use super::typed::{Order, flag, list, no, values};
use super::{UsageError, Way, usage};
use crate::{chmod, owner_map};
use clap::{ArgMatches, Command};
use protocol::options::{OmitTimes, Preserve};
use protocol::ownership::{Mapping, OwnerMaps, Privilege, Privileges};
use std::ffi::{OsStr, OsString};
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
        .arg(flag("acls", Some('A'), "Keep ACLs (implies --perms)"))
        .arg(no("acls", Some('A')))
        .arg(flag("hard-links", Some('H'), "Keep names of one file as names of one file"))
        .arg(no("hard-links", Some('H')))
        .arg(flag("atimes", Some('U'), "Keep access times of files"))
        .arg(no("atimes", Some('U')))
        .arg(flag("omit-dir-times", Some('O'), "Leave the modification times of directories alone"))
        .arg(no("omit-dir-times", Some('O')))
        .arg(flag("omit-link-times", Some('J'), "Leave the modification times of symbolic links alone"))
        .arg(no("omit-link-times", Some('J')))
        .arg(flag("executability", Some('E'), "Keep whether files may be executed, where --perms is off"))
        .arg(no("executability", Some('E')))
        .arg(flag("numeric-ids", None, "Owner and group by number, not by name"))
        .arg(list("chown", "USER:GROUP", "Owner and group of everything, by name or number"))
        .arg(list("usermap", "FROM:TO,…", "Owners that become others (implies --owner)"))
        .arg(list("groupmap", "FROM:TO,…", "Groups that become others (implies --group)"))
        .arg(flag("super", None, "Try as the destination what only root may do, and report what fails"))
        .arg(no("super", None))
        .arg(flag(
            "fake-super",
            None,
            "Keep in attributes what only root may set, as rsync does; at this end (a local copy: both)",
        ))
        .arg(
            list("remote-option", "OPTION", "--fake-super, --super or --no-super for the other end alone")
                .short('M'),
        )
        .arg(list("chmod", "CHANGES", "Change permission bits, for example D755,F644 or go-w"))
}

/// Whether one of the archive options is on, after `-a`, `-D` and every `--no-X` took effect from left to right.
pub(crate) fn is_kept(matches: &ArgMatches, name: &str) -> bool {
    let (on, off) = switched(matches, name);
    on > off
}

/// Where one of the archive options was last switched on, and off.
fn switched(matches: &ArgMatches, name: &str) -> (Option<usize>, Option<usize>) {
    let order = Order(matches);
    let is_node = matches!(name, "devices" | "specials");
    let on = [
        order.last(name),
        order.last("archive"),
        is_node.then(|| order.last("D")).flatten(),
        mapped_at(matches, name),
    ];
    let off = [
        order.last(&format!("no-{name}")),
        order.last("no-archive"),
        is_node.then(|| order.last("no-D")).flatten(),
    ];
    (on.into_iter().max().flatten(), off.into_iter().max().flatten())
}

/// Where owners (or groups) were last said to become others, which keeps them.
fn mapped_at(matches: &ArgMatches, name: &str) -> Option<usize> {
    let (map, part) = match name {
        "owner" => ("usermap", chowned_user as fn(&OsStr) -> Option<Vec<u8>>),
        "group" => ("groupmap", chowned_group as fn(&OsStr) -> Option<Vec<u8>>),
        _ => return None,
    };
    let is_chowned = values(matches, "chown").any(|value| part(value).is_some());
    let chowned = is_chowned.then(|| Order(matches).last("chown")).flatten();
    Order(matches).last(map).max(chowned)
}

/// What is kept of the metadata.
pub(crate) fn preserve(matches: &ArgMatches) -> Preserve {
    preserve_where(matches, |name| is_kept(matches, name))
}

/// What of the metadata is compared: what `-a` keeps without being given, the rest as a copy has it.
pub(crate) fn compared(matches: &ArgMatches) -> Preserve {
    preserve_where(matches, |name| {
        let (on, off) = switched(matches, name);
        on >= off
    })
}

fn preserve_where(matches: &ArgMatches, is_on: impl Fn(&str) -> bool) -> Preserve {
    Preserve {
        links: is_on("links"),
        perms: is_on("perms") || kept_beside(matches, "acls"),
        owner: is_on("owner"),
        group: is_on("group"),
        times: is_on("times"),
        devices: is_on("devices"),
        specials: is_on("specials"),
        numeric_ids: matches.get_flag("numeric-ids"),
        xattrs: kept_beside(matches, "xattrs"),
        acls: kept_beside(matches, "acls"),
        hard_links: kept_beside(matches, "hard-links"),
        atimes: kept_beside(matches, "atimes"),
        omit_times: OmitTimes {
            directories: kept_beside(matches, "omit-dir-times"),
            links: kept_beside(matches, "omit-link-times"),
        },
        executability: kept_beside(matches, "executability"),
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

/// What owners and groups become: `--usermap` and `--groupmap`, or `--chown`, which is short for both.
pub(crate) fn owner_maps(matches: &ArgMatches) -> Result<OwnerMaps, UsageError> {
    Ok(OwnerMaps {
        users: mappings(matches, "user", chowned_user)?,
        groups: mappings(matches, "group", chowned_group)?,
    })
}

fn mappings(
    matches: &ArgMatches,
    what: &str,
    part: fn(&OsStr) -> Option<Vec<u8>>,
) -> Result<Vec<Mapping>, UsageError> {
    let option = if what == "user" { "usermap" } else { "groupmap" };
    let mut maps = values(matches, option);
    let mut chowns = values(matches, "chown").filter_map(|value| part(value));
    match (maps.next(), maps.next(), chowns.next(), chowns.next()) {
        (None, _, None, _) => Ok(Vec::new()),
        (Some(map), None, None, _) => owner_map::parse(map.as_bytes(), what).map_err(UsageError),
        (None, _, Some(to), None) => owner_map::parse(&[b"*:", &to[..]].concat(), what).map_err(UsageError),
        (Some(_), Some(_), ..) => usage(format!("--{option} can be given once; write all pairs into one")),
        (None, _, Some(_), Some(_)) => usage(format!("--chown can name a {what} once")),
        (Some(_), None, Some(_), _) => usage(format!("--chown and --{option} both say what {what}s become")),
    }
}

fn chowned_user(value: &OsStr) -> Option<Vec<u8>> {
    let user = value.as_bytes().split(|&byte| byte == b':').next();
    user.filter(|user| !user.is_empty()).map(<[u8]>::to_vec)
}

fn chowned_group(value: &OsStr) -> Option<Vec<u8>> {
    let group = value.as_bytes().splitn(2, |&byte| byte == b':').nth(1);
    group.filter(|group| !group.is_empty()).map(<[u8]>::to_vec)
}

/// What either end does about what only a super-user may set. As in rsync an option is this end's, and `-M` makes it the
/// other's; of a local copy the destination is the other end, and does by itself as this one.
pub(crate) fn privileges(matches: &ArgMatches, way: Way) -> Result<Privileges, UsageError> {
    let order = Order(matches);
    let given =
        [("super", Privilege::Claimed), ("no-super", Privilege::Waived), ("fake-super", Privilege::Stored)];
    let last = given
        .iter()
        .filter_map(|&(name, privilege)| Some((order.last(name)?, privilege)))
        .max_by_key(|&(at, _)| at);
    let here = last.map(|(_, privilege)| privilege);
    let there = remote_options(matches)?.last().copied();
    let (source, destination) = match way {
        Way::Pull => (there, here),
        // That it is to try is told to the other end, as rsync does.
        Way::Push => (here, there.or(here.filter(|&here| here == Privilege::Claimed))),
        Way::Local => (here, there.or(here)),
    };
    let source = source.unwrap_or_default();
    Ok(Privileges { source, destination: destination.unwrap_or_default() })
}

/// What of `-M` means something here.
fn remote_options(matches: &ArgMatches) -> Result<Vec<Privilege>, UsageError> {
    let option = |value: &OsString| match value.as_bytes() {
        b"--super" => Ok(Privilege::Claimed),
        b"--no-super" => Ok(Privilege::Waived),
        b"--fake-super" => Ok(Privilege::Stored),
        _ => usage(format!(
            "-M, --remote-option takes --fake-super, --super and --no-super, not {:?}: every other option reaches the agent \
             by the protocol, and what is the agent's own (--root, --read-only) goes into \
             --agent-path='sync-agent --root DIR'",
            protocol::path::escaped(value.as_bytes())
        )),
    };
    values(matches, "remote-option").map(option).collect()
}

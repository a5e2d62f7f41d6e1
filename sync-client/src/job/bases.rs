//! What files are made from besides the source, what becomes of those they replace, and where they are until they have
//! their names.

use super::typed::{Order, flag, list, no, value, values};
use super::{UsageError, usage};
use clap::{Arg, ArgAction, ArgMatches, Command};
use protocol::bases::{BaseKind, Bases, Fuzzy};
use protocol::options::SyncOptions;
use protocol::replaced::{Placing, Replaced};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

/// As many alternate bases as rsync takes.
const MOST_BASES: usize = 20;

const KINDS: [(&str, BaseKind); 3] =
    [("compare-dest", BaseKind::Compare), ("copy-dest", BaseKind::Copy), ("link-dest", BaseKind::Link)];

pub(crate) fn arguments(command: Command) -> Command {
    command
        .next_help_heading("What is kept of the old, and made from it")
        .arg(flag(
            "backup",
            Some('b'),
            "Keep what is replaced or deleted: under its name with a ~, see --suffix",
        ))
        .arg(no("backup", Some('b')))
        .arg(value(
            "backup-dir",
            "DIR",
            "Keep it below DIR instead (relative to DESTINATION; implies --backup)",
        ))
        .arg(value(
            "suffix",
            "SUFFIX",
            "What the names of backups end in [default: ~, with --backup-dir nothing]",
        ))
        .arg(value(
            "trash",
            "DIR",
            "Move what is replaced or deleted to a dated place below DIR; see `sync-client trash`",
        ))
        .arg(list(
            "compare-dest",
            "DIR",
            "Do without files that are the same in DIR (relative to DESTINATION)",
        ))
        .arg(list("copy-dest", "DIR", "The same, but copy them from there"))
        .arg(list("link-dest", "DIR", "The same, but link to them there"))
        .arg(
            Arg::new("fuzzy").short('y').long("fuzzy").action(ArgAction::Count).help(
                "Look for a similar file to make a missing one from; twice: in the DIRs of --…-dest too",
            ),
        )
        .arg(no("fuzzy", Some('y')))
        .arg(flag("append", None, "Update only files that have grown, in place; what they had is verified"))
        .arg(flag("append-verify", None, "The same"))
        .arg(value("partial-dir", "DIR", "Where to keep what was transferred of a file when interrupted"))
        .arg(flag("delay-updates", None, "Give files their names at the end, all at once"))
        .arg(no("delay-updates", None))
        .arg(value("temp-dir", "DIR", "Write files in DIR first, if it is on another file system").short('T'))
}

/// Adds what these options come to.
pub(crate) fn resolve(matches: &ArgMatches, options: SyncOptions) -> Result<SyncOptions, UsageError> {
    let is_append = matches.get_flag("append") || matches.get_flag("append-verify");
    let order = Order(matches);
    let is_delayed = order.last("delay-updates") > order.last("no-delay-updates");
    let placing = Placing {
        temp_dir: directory(matches, "temp-dir")?,
        partial_dir: directory(matches, "partial-dir")?.filter(|path| path != b"."),
        delayed: is_delayed,
    };
    let in_place = if is_append { "--append" } else { "--inplace" };
    if (options.inplace || is_append) && is_delayed {
        return usage(format!("{in_place} cannot be used with --delay-updates"));
    }
    if (options.inplace || is_append) && placing.partial_dir.is_some() {
        return usage(format!("{in_place} cannot be used with --partial-dir"));
    }
    if is_append && matches.get_flag("whole-file") {
        return usage("--append cannot be used with --whole-file");
    }
    let mut filter = options.filter;
    if let Some(beside) = placing.partial_dir.as_deref().filter(|path| !path.starts_with(b"/")) {
        let pattern = [beside.strip_suffix(b"/").unwrap_or(beside), b"/"].concat();
        filter.push_exclude(&pattern).map_err(|error| UsageError(format!("--partial-dir: {error}")))?;
    }
    let replaced = replaced(matches)?;
    let mut preserve = options.preserve;
    // Backups beside the files change the times of directories at any time: as rsync, they are let be.
    preserve.omit_times.directories |= replaced.suffix_beside().is_some();
    Ok(SyncOptions {
        filter,
        preserve,
        bases: bases(matches)?,
        fuzzy: match matches.get_count("fuzzy") {
            _ if order.last("no-fuzzy") > order.last("fuzzy") => Fuzzy::Off,
            0 => Fuzzy::Off,
            1 => Fuzzy::Beside,
            _ => Fuzzy::BesideAndInBases,
        },
        replaced,
        placing,
        inplace: options.inplace || is_append,
        whole_file: options.whole_file && !is_append,
        only_grown: is_append,
        ..options
    })
}

fn bases(matches: &ArgMatches) -> Result<Bases, UsageError> {
    let given: Vec<_> = KINDS.iter().filter(|(name, _)| values(matches, name).next().is_some()).collect();
    match given[..] {
        [] => Ok(Bases::default()),
        [&(name, kind)] => {
            let directories: Vec<Vec<u8>> =
                values(matches, name).map(|path| path.as_bytes().to_vec()).collect();
            if directories.len() > MOST_BASES || directories.iter().any(Vec::is_empty) {
                return usage(format!("--{name}: 1 to {MOST_BASES} directories, none of them empty"));
            }
            Ok(Bases { kind, directories })
        }
        [(one, _), (other, _), ..] => usage(format!(
            "the --{other} option conflicts with the --{one} option: give directories of one kind"
        )),
    }
}

fn replaced(matches: &ArgMatches) -> Result<Replaced, UsageError> {
    let directory_of_backups = directory(matches, "backup-dir")?;
    let order = Order(matches);
    let is_backup = order.last("backup").max(order.last("backup-dir")) > order.last("no-backup");
    if let Some(trash) = directory(matches, "trash")? {
        if is_backup {
            return usage("--trash keeps what is replaced already: leave --backup and --backup-dir out");
        }
        return Ok(Replaced::Trash { directory: trash });
    }
    if !is_backup {
        return Ok(Replaced::Gone);
    }
    let default: &[u8] = if directory_of_backups.is_some() { b"" } else { b"~" };
    let suffix = matches.get_one::<OsString>("suffix").map_or(default, |suffix| suffix.as_bytes());
    if suffix.contains(&b'/') {
        return usage("--suffix cannot contain slashes");
    }
    if suffix.is_empty() && directory_of_backups.is_none() {
        return usage("--suffix cannot be empty without a --backup-dir");
    }
    Ok(Replaced::Backup { directory: directory_of_backups, suffix: suffix.to_vec() })
}

fn directory(matches: &ArgMatches, name: &str) -> Result<Option<Vec<u8>>, UsageError> {
    match matches.get_one::<OsString>(name).map(|path| path.as_bytes()) {
        None => Ok(None),
        Some([]) => usage(format!("--{name}: a directory is needed")),
        Some(path) => Ok(Some(path.to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> SyncOptions {
        let words = ["sync-client", "sync"].into_iter().chain(line.split_whitespace());
        let matches = crate::args::command().try_get_matches_from(words).unwrap();
        super::super::sync(matches.subcommand().unwrap().1, &super::super::Given::umask(0o022))
            .unwrap()
            .options
    }

    #[test]
    fn backups_have_the_suffix_and_the_directory_that_rsync_gives_them() {
        let backup = |directory: Option<&str>, suffix: &str| Replaced::Backup {
            directory: directory.map(|path| path.as_bytes().to_vec()),
            suffix: suffix.as_bytes().to_vec(),
        };
        for (line, expected) in [
            ("-a a b", Replaced::Gone),
            ("-ab a b", backup(None, "~")),
            ("-ab --suffix=.old a b", backup(None, ".old")),
            ("-a --suffix=.old a b", Replaced::Gone),
            ("-a --backup-dir=../c a b", backup(Some("../c"), "")),
            ("-a --backup-dir=../c --suffix=- a b", backup(Some("../c"), "-")),
            ("-ab --no-backup a b", Replaced::Gone),
            ("-a --no-b --backup a b", backup(None, "~")),
            ("-a --trash=../t a b", Replaced::Trash { directory: b"../t".to_vec() }),
        ] {
            assert_eq!(options(line).replaced, expected, "{line}");
        }
    }

    #[test]
    fn bases_keep_their_order_and_append_is_in_place() {
        let made = options("-a --link-dest=1 -yy --link-dest ../2 a b");
        assert_eq!(made.bases.directories, [b"1".to_vec(), b"../2".to_vec()]);
        assert_eq!((made.bases.kind, made.fuzzy), (BaseKind::Link, Fuzzy::BesideAndInBases));
        let made = options("-a --append -y --no-fuzzy a b");
        assert_eq!(
            (made.inplace, made.only_grown, made.whole_file, made.fuzzy),
            (true, true, false, Fuzzy::Off)
        );
        let made = options("-a --partial-dir=.part --delay-updates -T /t a b");
        assert!(made.placing.delayed && made.placing.temp_dir == Some(b"/t".to_vec()));
        assert!(made.filter.excludes(b"dir/.part", true, protocol::filter::Side::Receiver));
    }
}

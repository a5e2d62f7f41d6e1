//! Which entries of the source are copied at all.

use super::typed::{Order, amount, flag, list, read, text, value, values};
use super::{JobError, Side, UsageError, refuse, usage};
use crate::location::Location;
use clap::{Arg, ArgAction, ArgMatches, Command};
use protocol::filter::{FilterError, FilterRules, RuleFiles};
use protocol::names::{self, ListFile};
use protocol::options::SizeRange;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

/// What of the source is copied (`--files-from`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileList {
    /// The names, a zero byte behind each.
    Here(Vec<u8>),
    /// They are in a file on the other machine.
    There(ListFile),
}

/// For what compares and for what copies.
pub(crate) fn arguments(command: Command) -> Command {
    command
        .next_help_heading("Selection")
        .arg(list("exclude", "PATTERN", "Leave out what matches (rsync's patterns)"))
        .arg(list("include", "PATTERN", "Do not leave out what matches"))
        .arg(list("exclude-from", "FILE", "Read exclude patterns from FILE (- is standard input)"))
        .arg(list("include-from", "FILE", "Read include patterns from FILE (- is standard input)"))
        .arg(
            list(
                "filter",
                "RULE",
                "A filter rule as rsync knows it: '- *.o', 'P keep/', ': .rules', '. FILE'",
            )
            .short('f'),
        )
        .arg(
            Arg::new("per-directory")
                .short('F')
                // Not counted: where each of them stands among other rules matters.
                .action(ArgAction::Append)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("")
                .value_name("")
                .help("Directories' .rsync-filter files are rules; -FF leaves these files out"),
        )
        .arg(flag("cvs-exclude", Some('C'), "Leave out what CVS does (object files, backups, .git/ …)"))
        .arg(flag("from0", Some('0'), "Files of rules or names have a zero byte for each line's end"))
        .arg(flag("one-file-system", Some('x'), "Do not cross into other file systems"))
}

/// For what copies alone.
pub(crate) fn copy_arguments(command: Command) -> Command {
    arguments(command)
        .arg(
            value("files-from", "FILE", "Copy what FILE names (- is standard input, :FILE on the other machine)")
                .long_help(
                    "Copy what FILE names, a name below SOURCE on each line. The directories on the way are made \
                     too; what is in a directory is copied with -r, which -a does not stand for here, or where the name \
                     ends in a slash. - is standard input; :FILE or HOST:FILE is on the other machine.",
                ),
        )
        .arg(flag("prune-empty-dirs", Some('m'), "Leave out directories that nothing is copied in"))
        .arg(value("max-size", "SIZE", "Transfer no file that is larger (K, M, G …; +1 or -1 at the end)"))
        .arg(value("min-size", "SIZE", "Transfer no file that is smaller"))
}

/// Sizes of files that are transferred.
pub(crate) fn sizes(matches: &ArgMatches) -> Result<SizeRange, UsageError> {
    let size = |name| {
        let Some(given) = text(matches, name)? else { return Ok(None) };
        let Some(size_bytes) = size(&given) else {
            return usage(format!("--{name}: {given:?} is no size; write a number with K, M, G, T or P"));
        };
        Ok(Some(size_bytes))
    };
    Ok(SizeRange { least_bytes: size("min-size")?, most_bytes: size("max-size")? })
}

/// As rsync has them: one byte more or less may be said at the end.
fn size(text: &str) -> Option<u64> {
    if let Some(rest) = text.strip_suffix("+1") {
        return amount(rest, 1)?.checked_add(1);
    }
    if let Some(rest) = text.strip_suffix("-1") {
        return amount(rest, 1)?.checked_sub(1);
    }
    amount(text, 1)
}

/// The list of what is copied, read if it is on this machine.
pub(crate) fn list_of_files(
    matches: &ArgMatches,
    source: &Side,
    destination: &Side,
) -> Result<Option<FileList>, JobError> {
    let Some(file) = matches.get_one::<OsString>("files-from") else { return Ok(None) };
    if source.paths.len() != 1 {
        return refuse("--files-from: its names are below one SOURCE; give just that one");
    }
    let zero_ended = matches.get_flag("from0");
    let there = |path: &[u8]| Ok(Some(FileList::There(ListFile { path: path.to_vec(), zero_ended })));
    let remote = source.host.as_ref().or(destination.host.as_ref());
    match (file.as_bytes().strip_prefix(b":"), remote) {
        (Some([]), _) => return refuse("--files-from: \":\" needs the name of a file after it"),
        (Some(path), Some(_)) => return there(path),
        (Some(_), None) => {
            return refuse(
                "--files-from: \":FILE\" is a file on the other machine, and both sides are on this one",
            );
        }
        (None, _) => {}
    }
    match Location::parse(file) {
        Ok(Location::Remote { host, path }) if remote.is_some_and(|remote| remote.name == host.name) => {
            there(&path)
        }
        Ok(Location::Remote { host, .. }) => refuse(format!(
            "--files-from: {} is neither the source's machine nor the destination's",
            host.name
        )),
        _ => Ok(Some(FileList::Here(names::zero_ended(&read("files-from", file)?, zero_ended)))),
    }
}

/// The filter rules in the order in which they were given; `cvs_words` is what the operator has CVS ignore.
pub(crate) fn filter(matches: &ArgMatches, cvs_words: &[u8]) -> Result<FilterRules, JobError> {
    let mut rules = FilterRules::default();
    if matches.try_get_one("delete-excluded").is_ok_and(|given| given == Some(&true)) {
        rules.hide_only();
    }
    let zero_ended_from = Order(matches).last("from0");
    let mut files = OperatorsFiles { cvs_words };
    for (index, name, value) in given(matches) {
        rules.end_lines_by_zero(zero_ended_from.is_some_and(|from| from < index));
        let result = match name {
            "exclude" => rules.push_exclude(value.as_bytes()),
            "include" => rules.push_include(value.as_bytes()),
            "exclude-from" => rules.push_exclude_file(&read(name, &value)?),
            "include-from" => rules.push_include_file(&read(name, &value)?),
            _ => rules.push_filter(value.as_bytes(), &mut files),
        };
        let option = if name == "per-directory" { "-F".to_owned() } else { format!("--{name}") };
        result.map_err(|error: FilterError| UsageError(format!("{option} {}: {error}", value.display())))?;
    }
    rules.end_lines_by_zero(zero_ended_from.is_some());
    if matches.get_flag("cvs-exclude") {
        for rule in [":C", "-C"] {
            rules
                .push_filter(rule.as_bytes(), &mut files)
                .map_err(|error| UsageError(format!("--cvs-exclude: {error}")))?;
        }
    }
    Ok(rules)
}

/// Options that add rules, in their order.
fn given(matches: &ArgMatches) -> Vec<(usize, &'static str, OsString)> {
    let mut given = Vec::new();
    for name in ["exclude", "include", "exclude-from", "include-from", "filter"] {
        let indices = matches.indices_of(name).into_iter().flatten();
        given.extend(indices.zip(values(matches, name)).map(|(index, value)| (index, name, value.clone())));
    }
    let indices = matches.indices_of("per-directory").into_iter().flatten();
    let rules = [": /.rsync-filter", "- .rsync-filter"];
    given.extend(indices.zip(rules).map(|(index, rule)| (index, "per-directory", OsString::from(rule))));
    given.sort_by_key(|&(index, ..)| index);
    given
}

/// Files of rules that the command line names.
struct OperatorsFiles<'a> {
    cvs_words: &'a [u8],
}

impl RuleFiles for OperatorsFiles<'_> {
    fn merged(&mut self, name: &[u8], _: Option<&[u8]>) -> Result<Vec<u8>, String> {
        read("filter", OsStr::from_bytes(name)).map_err(|error| error.to_string())
    }

    fn in_directory(&mut self, _: &[u8], _: &[u8]) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }

    fn cvs_words(&mut self) -> Vec<u8> {
        self.cvs_words.to_vec()
    }
}

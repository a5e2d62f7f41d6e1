//! Which entries of the source are copied at all.

use super::UsageError;
use super::typed::{flag, list, read, values};
use clap::{ArgMatches, Command};
use protocol::filter::{FilterError, FilterRules};
use std::os::unix::ffi::OsStrExt as _;

pub(crate) fn arguments(command: Command) -> Command {
    command
        .next_help_heading("Selection")
        .arg(list("exclude", "PATTERN", "Leave out what matches (rsync's patterns)"))
        .arg(list("include", "PATTERN", "Do not leave out what matches"))
        .arg(list("exclude-from", "FILE", "Read exclude patterns from FILE (- is standard input)"))
        .arg(list("include-from", "FILE", "Read include patterns from FILE (- is standard input)"))
        .arg(flag("one-file-system", Some('x'), "Do not cross into other file systems"))
}

/// The filter rules in the order in which they were given.
pub(crate) fn filter(matches: &ArgMatches) -> Result<FilterRules, UsageError> {
    let mut given = Vec::new();
    for name in ["exclude", "include", "exclude-from", "include-from"] {
        let indices = matches.indices_of(name).into_iter().flatten();
        given.extend(indices.zip(values(matches, name)).map(|(index, value)| (index, name, value)));
    }
    given.sort_by_key(|&(index, ..)| index);
    let mut rules = FilterRules::default();
    for (_, name, value) in given {
        let wrong = |error: FilterError| {
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            UsageError(format!("--{name} {}: {error}{cause}", value.display()))
        };
        match name {
            "exclude" => rules.push_exclude(value.as_bytes()).map_err(wrong)?,
            "include" => rules.push_include(value.as_bytes()).map_err(wrong)?,
            "exclude-from" => rules.push_exclude_file(&read(name, value)?).map_err(wrong)?,
            _ => rules.push_include_file(&read(name, value)?).map_err(wrong)?,
        }
    }
    Ok(rules)
}

//! What the topics of the command line share: kinds of options, and values as they were typed.

use super::{JobError, UsageError, usage};
use clap::builder::OsStringValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};
use std::ffi::{OsStr, OsString};
use std::io::Read as _;

pub(crate) fn flag(name: &'static str, letter: Option<char>, help: &'static str) -> Arg {
    let arg = Arg::new(name).long(name).action(ArgAction::SetTrue).overrides_with(name).help(help);
    match letter {
        Some(letter) => arg.short(letter),
        None => arg,
    }
}

/// An option with a value; the last one given counts.
pub(crate) fn value(name: &'static str, what: &'static str, help: &'static str) -> Arg {
    with_value(name, what, help).overrides_with(name)
}

/// An option with a value that may be given several times, and all of them count.
pub(crate) fn list(name: &'static str, what: &'static str, help: &'static str) -> Arg {
    with_value(name, what, help).action(ArgAction::Append)
}

pub(crate) fn with_value(name: &'static str, what: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name(what)
        .help(help)
        .value_parser(OsStringValueParser::new())
        .allow_hyphen_values(true)
}

/// The hidden `--no-NAME` (and `--no-LETTER`) of an option.
pub(crate) fn no(name: &'static str, letter: Option<char>) -> Arg {
    let long: &'static str = Box::leak(format!("no-{name}").into_boxed_str());
    let arg = Arg::new(long).long(long).action(ArgAction::SetTrue).overrides_with(long).hide(true);
    match letter {
        Some(letter) => arg.alias(Box::leak(format!("no-{letter}").into_boxed_str()) as &'static str),
        None => arg,
    }
}

/// The order in which options were given: the last of `-a`, `--X` and `--no-X` counts.
#[derive(Clone, Copy)]
pub(crate) struct Order<'a>(pub(crate) &'a ArgMatches);

impl Order<'_> {
    /// Where an option was given last, if it was.
    pub(crate) fn last(self, name: &str) -> Option<usize> {
        let given = self.0.value_source(name) == Some(ValueSource::CommandLine);
        given.then(|| self.0.indices_of(name).into_iter().flatten().max()).flatten()
    }
}

pub(crate) fn text(matches: &ArgMatches, name: &str) -> Result<Option<String>, UsageError> {
    match matches.get_one::<OsString>(name) {
        None => Ok(None),
        Some(value) => match value.to_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => usage(format!("--{name}: not text")),
        },
    }
}

pub(crate) fn values<'a>(matches: &'a ArgMatches, name: &str) -> impl Iterator<Item = &'a OsString> {
    matches.get_many::<OsString>(name).unwrap_or_default()
}

/// Every value of an option, as text.
pub(crate) fn given_values(
    matches: &ArgMatches,
    name: &'static str,
) -> impl Iterator<Item = Result<String, UsageError>> {
    values(matches, name).map(move |value| match value.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => usage(format!("--{name}: not text")),
    })
}

pub(crate) fn number(
    matches: &ArgMatches,
    name: &str,
    default: f64,
    allowed: std::ops::RangeInclusive<f64>,
) -> Result<f64, UsageError> {
    let given = matches.get_one::<f64>(name).copied().unwrap_or(default);
    if allowed.contains(&given) {
        return Ok(given);
    }
    usage(format!("--{name}: {given} is not from {} to {}", allowed.start(), allowed.end()))
}

/// A number with rsync's suffixes; `unit` is what a bare number counts.
///
/// # Source
/// rsync(1) 3.5.0, `--max-size`.
pub(crate) fn amount(text: &str, unit: u64) -> Option<u64> {
    let (text, offset) = match text.as_bytes() {
        [.., b'+', b'1'] => (&text[..text.len() - 2], 1),
        [.., b'-', b'1'] if text.len() > 2 => (&text[..text.len() - 2], -1),
        _ => (text, 0),
    };
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].to_ascii_lowercase().as_str() {
        "" => unit,
        "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "p" | "pib" => 1 << 50,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "pb" => 1_000_000_000_000_000,
        _ => return None,
    };
    let bytes = number * factor as f64;
    (bytes.is_finite() && bytes < 9e18).then_some(bytes as u64)?.checked_add_signed(offset)
}

pub(crate) fn read(option: &str, file: &OsStr) -> Result<Vec<u8>, JobError> {
    let content = if file == "-" {
        let mut content = Vec::new();
        std::io::stdin().read_to_end(&mut content).map(|_| content)
    } else {
        std::fs::read(file)
    };
    content.map_err(|error| JobError::File(format!("--{option}: cannot read {}: {error}", file.display())))
}

//! Options that the commands around a copy have in common, by one name, letter and help each.

use clap::{Arg, ArgAction, Command, value_parser};
use std::path::PathBuf;

/// A switch.
#[must_use]
pub fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// An option with a value.
#[must_use]
pub fn option(name: &'static str, what: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(what).help(help)
}

/// An option with a path.
#[must_use]
pub fn path(name: &'static str, what: &'static str, help: &'static str) -> Arg {
    option(name, what, help).value_parser(value_parser!(PathBuf))
}

/// `--json`.
#[must_use]
pub fn json() -> Arg {
    flag("json", "Print one JSON object a line, the last one a summary")
}

/// `-n`, `-y` and `--json`, for what changes files.
#[must_use]
pub fn changing(command: Command) -> Command {
    command
        .arg(flag("dry-run", "Change nothing; print what would be changed").short('n'))
        .arg(flag("yes", "Do not ask").short('y'))
        .arg(json())
}

/// `--plan`, for what works on a file at hand (`--file`) or on the migration's.
#[must_use]
pub fn plan() -> Arg {
    path("plan", "FILE", "Without --file: the migration's plan, which says where and how")
        .default_value("plan.toml")
}

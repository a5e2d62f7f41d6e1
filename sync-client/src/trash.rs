//! `trash`: the runs of `sync --trash`, and putting back what one of them replaced or deleted.
//!
//! Works on the machine where the destination is.

use crate::console::Lines;
use crate::options::{changing, json as json_option};
use crate::prompts::{PromptError, Prompts};
use clap::{Arg, ArgMatches, Command, value_parser};
use protocol::path::escaped;
use protocol::stats::Exit;
use serde_json::json;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use sync_agent::trash::{self, TrashError, TrashedRun, Undone};
use sync_agent::tree::Dir;

/// `trash list`, `trash undo`.
#[must_use]
pub fn command() -> Command {
    Command::new("trash")
        .about("Show what `sync --trash DIR` kept, and undo a run")
        .after_help(
            "Examples:\n  \
             sync-client sync -a --delete --trash=/srv/.trash SRC/ /srv/data/\n  \
             sync-client trash list /srv/.trash\n  \
             sync-client trash undo -n /srv/.trash 2026-11-23T10-15-00Z      what would be put back\n  \
             sync-client trash undo /srv/.trash 2026-11-23T10-15-00Z\n\n\
             Exit status: 0 done, 1 usage, 11 file, 23 some entries stay in the trash, 40 a run is at work there, \
             46 refused.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("list").about("Name the runs in a trash, the oldest first").arg(directory()).arg(json_option()),
        )
        .subcommand(changing(
            Command::new("undo")
                .about("Put back what a run replaced or deleted, as it was")
                .long_about(
                    "Moves back what a run replaced or deleted, with all that belongs to it: owner, mode, times, \
                     attributes. What the run had put in its place moves to DIR/RUN/new: nothing is lost. What was \
                     changed or put there since stays, and what belongs there stays in the trash. What the run added \
                     stays too. Later runs are undone first.",
                )
                .arg(directory())
                .arg(Arg::new("run").value_name("RUN").required(true).help("As `trash list` names it")),
        ))
}

fn directory() -> Arg {
    Arg::new("directory")
        .value_name("DIR")
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help("The directory that was given as --trash")
}

/// Runs it; returns the exit status.
#[must_use]
pub fn run(matches: &ArgMatches, prompts: &Prompts) -> u8 {
    let Some((name, matches)) = matches.subcommand() else { return Exit::Usage.code() };
    let out = Lines { json: matches.get_flag("json"), is_shown: prompts.is_shown };
    let result = open(matches).and_then(|directory| match name {
        "list" => list(&directory, &out),
        _ => undo(&directory, matches, prompts, &out),
    });
    match result {
        Ok(exit) => exit.code(),
        Err(error) => out.fail(&error, error.exit()),
    }
}

#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("cannot open the trash {0}")]
    Open(String, #[source] std::io::Error),
    #[error(transparent)]
    Trash(#[from] TrashError),
    #[error(transparent)]
    Prompt(#[from] PromptError),
}

impl CommandError {
    fn exit(&self) -> Exit {
        match self {
            CommandError::Open(..) | CommandError::Trash(TrashError::Io(..)) => Exit::FileIo,
            CommandError::Trash(TrashError::NoRun(_)) => Exit::Usage,
            CommandError::Trash(TrashError::Busy(_)) => Exit::Busy,
            CommandError::Trash(TrashError::Undone(_) | TrashError::Log(_) | TrashError::Moved(_)) => {
                Exit::Refused
            }
            CommandError::Prompt(error) => error.exit(),
        }
    }
}

fn open(matches: &ArgMatches) -> Result<Dir, CommandError> {
    let path = matches.get_one::<PathBuf>("directory").cloned().unwrap_or_default();
    Dir::open(&path).map_err(|error| {
        CommandError::Open(escaped(path.as_os_str().as_bytes()), std::io::Error::from(error))
    })
}

fn list(directory: &Dir, out: &Lines) -> Result<Exit, CommandError> {
    let runs = trash::list(directory)?;
    for TrashedRun { name, destination, entries, is_undone } in &runs {
        let destination = escaped(destination);
        let text = match is_undone {
            false => format!("{name}  {entries} entries of {destination}"),
            true => format!("{name}  undone; {entries} entries that it had put into {destination}"),
        };
        out.tell(
            &text,
            &json!({"event": "run", "run": name, "entries": entries, "undone": is_undone, "destination": destination}),
        );
    }
    if runs.is_empty() {
        out.note("nothing is in this trash");
    }
    out.object(&json!({"event": "summary", "runs": runs.len(), "exit_code": 0}));
    Ok(Exit::Done)
}

fn undo(directory: &Dir, matches: &ArgMatches, prompts: &Prompts, out: &Lines) -> Result<Exit, CommandError> {
    let name = matches.get_one::<String>("run").map_or("", String::as_str);
    let dry_run = matches.get_flag("dry-run");
    let _stop = match dry_run {
        true => None,
        false => Some(
            prompts.agree(matches, &format!("Put back what run {} took away?", escaped(name.as_bytes())))?,
        ),
    };
    let (mut restored, mut refused) = (0_u64, 0_u64);
    trash::undo(directory, name, dry_run, &mut |undone| match undone {
        Undone::Restored(path) => {
            restored += 1;
            let path = escaped(path.as_bytes());
            let verb = if dry_run { "would be put back" } else { "put back" };
            out.tell(&format!("{verb}: {path}"), &json!({"event": "restored", "name": path}));
        }
        Undone::Refused(path, why) => {
            refused += 1;
            let (path, why) = (escaped(path.as_bytes()), why.to_string());
            out.remark(
                &format!("stays in the trash: {path}: {why}"),
                &json!({"event": "refused", "name": path, "why": why}),
            );
        }
    })?;
    let exit = if refused == 0 { Exit::Done } else { Exit::Partial };
    out.note(&format!("{restored} entries put back, {refused} left in the trash"));
    out.object(&json!({"event": "summary", "restored": restored, "refused": refused, "dry_run": dry_run,
        "exit_code": exit.code()}));
    Ok(exit)
}

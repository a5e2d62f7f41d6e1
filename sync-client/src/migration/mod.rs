//! The migration of a whole core: one plan file, steps that can be repeated, a journal on the destination.
//!
//! # The types
//! - `plan::Plan`: everything that is particular to one migration, from a TOML file. What parses is sound: paths are
//!   absolute or below ROOT and lead nowhere else, data sets don't overlap, a MongoDB directory is an exact mirror.
//! - `host::Host`: a machine on which commands run and files are read; this one or one behind the SSH client
//!   that `sync` uses. Everything a step asks of a machine goes through `host::Host::run`, so a test can stand in for it.
//! - `files::Files`: the configuration files of such a machine, as the commands on files at hand change them.
//! - `journal::Journal`: what was begun, done, and failed, one JSON object a line. `position::Position` is what follows from it:
//!   how good each copy is, who was stopped, what is next, how to go back.
//! - `step::Step`: one command of the migration; `step::all` is their order, and the only place where a new one is added.
//! - `run::Run`: what a step works with: plan, hosts, journal, the operator's answers, what is printed.
//!
//! # What always holds
//! 1. An action that changes something is in the journal, on disk, as *begun* before it starts and as *done* or
//!    *failed* after it ended. What is only *begun* may have happened in part.
//! 2. The journal says what was promised; what is so is looked at again each time. No step takes a service as stopped because
//!    a record says so.
//! 3. Nothing is written into a directory that a process holds open at the destination.
//! 4. A copy is *complete* only if the source was proven stopped before it and unchanged after it. Whatever may change either side
//!    (source started, by a step or by hand; destination started; another pass begun) takes that away again, and so does a plan
//!    that names other directories. The destination is started, and clients are sent there, only where every copy is complete.
//!    Once clients may have written there, nothing is copied into it any more.
//! 5. One process at a time works on a migration (the journal's lock). A journal belongs to one pair of cores.
//!
//! # How a step is made repeatable
//! Each action either changes nothing the second time (stop, a pass, permissions, start) or looks at the journal first
//! (the position decides). A step that was interrupted is run again from its beginning: passes over what is already there
//! take a scan. `cold` alone goes on in its middle: once the destination was begun to be started it copies no more.
//!
//! Called by `main`; the steps call [`crate::endpoint::sync`] for data. Like the rest of the library this reads neither environment
//! nor terminal: [`Operator`] brings the answers.

mod bulk;
mod check;
mod cold;
mod compose;
mod engine;
mod evidence;
mod files;
mod forecast;
mod host;
mod init;
pub(crate) mod journal;
mod migrate;
pub(crate) mod plan;
pub(crate) mod position;
mod proxy;
mod register;
mod report;
mod rollback;
mod run;
pub(crate) mod say;
mod service;
mod status;
pub(crate) mod step;
pub(crate) mod text;

use crate::console::print_error;
use crate::endpoint::Environment;
use crate::generated::OVERRIDE;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use crossbeam_channel::Receiver;
use plan::{Layout, Plan};
use protocol::stats::Exit;
use run::{Run, Settings};
use say::Say;
use std::path::PathBuf;
use step::StepError;

/// What `main` brings: who the user is, how to stop, whom to ask.
pub struct Operator<'a> {
    /// The user, the machine and the terminal.
    pub environment: &'a Environment,
    /// Becomes readable when the operator stops the run.
    pub stop: &'a Receiver<()>,
    /// Asks a question that is answered by yes or no; none where nobody can be asked.
    pub confirm: &'a dyn Fn(&str) -> Option<bool>,
}

/// The commands of the migration.
#[must_use]
pub fn commands() -> Vec<Command> {
    vec![
        step(
            "check",
            "Look at everything that can be known before a migration",
            "Looks at both cores and prints a table of what passes, what needs a thought and what would fail, with what to do \
             about it. Changes nothing.\n\nWith --init it prints a plan to begin with, and looks at nothing.",
        )
        .arg(Arg::new("init").long("init").action(ArgAction::SetTrue).help("Print a commented plan to begin with"))
        .arg(
            Arg::new("layout")
                .long("layout")
                .value_name("LAYOUT")
                .value_parser(["2019", "2020"])
                .default_value("2019")
                .help("Where --init says things are: `2019` (core/…, run-core) or `2020` (pryv/…, run-pryv)"),
        ),
        step(
            "bulk",
            "Copy all data sets while the service is up, until the last pass will be short",
            "Copies every data set from the source while its service is up, pass after pass, and forecasts after each \
             how long the cold pass would take: until that is within limits.max_downtime_s, or no longer falls. What it \
             copies is warm: no service is ever started on it.",
        ),
        step(
            "cold",
            "Stop the source, copy what changed, start the destination: the downtime",
            "Stops the source's service and the destination's, proves that nothing holds the data open, copies what changed \
             since the last pass, proves that nothing changed meanwhile, starts the destination and waits until it is \
             healthy. Asks before it stops anything. When it fails it says how the source is started again, and does \
             so with --yes.",
        ),
        step(
            "rollback",
            "Start the source again, as long as that loses nothing",
            "Stops the destination's service and starts the source's. Refuses once clients may have written to the \
             destination: then it says how data goes back. After that, --data-returned starts the source again.",
        )
        .arg(
            Arg::new("data-returned")
                .long("data-returned")
                .action(ArgAction::SetTrue)
                .help("What clients wrote to the destination was copied back to the source: compare, and start the source"),
        ),
        step(
            "migrate",
            "All steps in order",
            "Runs the steps that are not done yet, in their order, and asks before each that changes a service.",
        ),
        step(
            "status",
            "Say what is done, what is next, and how to go back",
            "Reads the journal, and nothing else.",
        ),
        step(
            "report",
            "Write what happened as one page: passes, forecasts, downtime, checks",
            "Writes what the journal holds as one HTML page that needs nothing else, readable on a phone. With --json the \
             same is printed.",
        )
        .arg(Arg::new("file").value_name("FILE").value_parser(value_parser!(PathBuf)).help("The page, for example report.html"))
        .mut_arg("json", |json| json.required_unless_present("file")),
    ]
}

fn step(name: &'static str, about: &'static str, long: &'static str) -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let command = Command::new(name)
        .about(about)
        .long_about(long)
        .after_help(
            "Exit status: 0 done, 1 plan or command line, 10 connection, 20 interrupted, 25 deletions refused, 30 timeout, \
             40 another process works on this migration, 41 host key, 42 authentication, 43 no agent, 46 refused: the message says why. \
             A pass that failed gives the exit status of `sync`.",
        )
        .arg(
            Arg::new("plan")
                .long("plan")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .default_value("plan.toml")
                .help("The plan"),
        )
        .arg(flag("json", "Print one JSON object a line, the last one a summary"));
    if matches!(name, "status" | "report") {
        return command;
    }
    let command = command.arg(flag("dry-run", "Say what would be done; change nothing").short('n'));
    if name == "check" { command } else { command.arg(flag("yes", "Answer every question with yes")) }
}

/// What a command line asks of the migration: one of [`commands`], or `proxy` and `register` without a file at hand.
#[must_use]
pub fn asked<'m>(name: &'m str, matches: &'m ArgMatches) -> Option<(String, &'m ArgMatches)> {
    if commands().iter().any(|command| command.get_name() == name) {
        return Some((name.to_owned(), matches));
    }
    let (action, matches) = matches.subcommand().filter(|_| matches!(name, "proxy" | "register"))?;
    (!matches.contains_id("file")).then(|| (format!("{name} {action}"), matches))
}

/// Runs what [`asked`] gave and returns the exit status.
#[must_use]
pub fn run(name: &str, matches: &ArgMatches, operator: &Operator<'_>) -> u8 {
    let on = |flag: &str| matches.try_get_one::<bool>(flag).ok().flatten().copied().unwrap_or(false);
    let say = Say::new(on("json"));
    if on("init") {
        let layout = matches.get_one::<String>("layout").map(String::as_str);
        say.raw(init::plan(if layout == Some("2020") { Layout::Of2020 } else { Layout::Of2019 }));
        return Exit::Done.code();
    }
    let settings = Settings {
        // What only looks takes no lock and makes no journal either.
        dry_run: on("dry-run") || name.ends_with(" show"),
        yes: on("yes"),
        even_generated: on(OVERRIDE),
    };
    let result = matches
        .get_one::<PathBuf>("plan")
        .ok_or_else(|| StepError::refused("no plan was named"))
        .and_then(|path| Ok(Plan::read(path)?))
        .and_then(|plan| match name {
            "status" => status::show(&plan, &say),
            "report" => {
                let file = matches.get_one::<PathBuf>("file").map(PathBuf::as_path);
                report::write(&plan, file, operator.environment.umask, &say)
            }
            "rollback" if on("data-returned") => {
                carry_out(rollback::RETURNED, &plan, settings, operator, &say)
            }
            _ => carry_out(name, &plan, settings, operator, &say),
        });
    let code = result.as_ref().map_or_else(StepError::exit_code, |()| Exit::Done.code());
    if let Err(error) = &result {
        print_error(error);
    }
    say.summary(name, code, result.as_ref().err());
    code
}

fn carry_out(
    name: &str,
    plan: &Plan,
    settings: Settings,
    operator: &Operator<'_>,
    say: &Say,
) -> Result<(), StepError> {
    let mut run = Run::open(plan, settings, operator, say)?;
    match name {
        "migrate" => migrate::migrate(&mut run),
        "rollback" => rollback::rollback(&mut run),
        rollback::RETURNED => rollback::after_return(&mut run),
        "proxy disable" => proxy::disable(&mut run),
        "proxy show" => proxy::show(&run),
        "register undo" => register::undo(&mut run),
        "register show" => register::show(&run),
        _ => {
            let steps = step::all();
            let step = steps.iter().find(|step| step.command() == name);
            step.map_or_else(|| Err(StepError::refused("there is no such step")), |step| step.run(&mut run))
        }
    }
}

//! The command line as it is typed: every command. The options of `sync` stand
//! with their topics, in [`crate::job`].

use crate::accepted;
use crate::job::typed::{flag, value};
use crate::job::{
    bases, connection, deletion, links, metadata, output, places, selection, stop, transfer, update,
};
use clap::{Arg, ArgAction, Command, value_parser};
use std::ffi::OsString;

/// The whole command line.
#[must_use]
pub fn command() -> Command {
    Command::new("sync-client")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Moves a live server's data to a new machine: exact, verified, fast")
        .long_about(
            "Moves a live server's data to a new machine: exact, verified, fast.\n\n\
             `sync` takes the options you know from rsync. The other side needs only sync-agent on its PATH \
             and a running SSH server. Exit status 0 means: verified by BLAKE3, and on disk.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(sync())
        .subcommand(verify())
        .subcommand(bench())
        .subcommands(crate::migration::commands())
        .subcommand(crate::probe::command())
        .subcommand(crate::register::command())
        .subcommand(crate::key::command())
        .subcommand(crate::proxy::command())
        .subcommand(crate::trash::command())
        .subcommand(
            Command::new("demo")
                .about("Show a whole migration of a small sample, on this machine, over real SSH")
                .long_about(
                    "Makes a small sample in a temporary directory, serves it by an agent of its own over SSH on \
                     loopback, pulls it, changes it, pulls it again, verifies it, and prints what happened. Needs \
                     nothing installed and no root; leaves nothing behind.",
                ),
        )
        .subcommand(
            Command::new("completions").about("Print a completion script for a shell").arg(
                Arg::new("shell").required(true).value_parser(value_parser!(clap_complete::Shell)),
            ),
        )
        .subcommand(
            Command::new("man")
                .about("Print a manual page (for `man -l -`)")
                .arg(Arg::new("command").help("The command [default: the program]")),
        )
}

fn sync() -> Command {
    let command = Command::new("sync")
        .about("Copy or mirror a tree: pull, push or local, with rsync's options")
        .long_about(
            "Copies SOURCE… into DESTINATION; a SOURCE alone is listed. Either side may be on another machine: [USER@]HOST:PATH or \
             ssh://[USER@]HOST[:PORT]/PATH.\n\n\
             As with rsync, a trailing slash on a source means its contents, none means the directory itself. \
             Existing files are updated by a delta of what changed; every file is verified by BLAKE3 before it \
             gets its name, and exit status 0 means that everything is on disk.",
        )
        .after_help(
            "Examples:\n  \
             sync-client sync -a --delete root@old:/srv/mongodb/data/ /srv/mongodb/data/\n  \
             sync-client sync -ain --delete SRC/ DST/        what would be done\n  \
             sync-client sync -av -e 'ssh -i KEY -p 2222' SRC/ user@new:DST/\n\n\
             Exit status: 0 done and on disk, 1 usage, 2 incompatible peer, 3 selection, 5 start-up, \
             10 connection, 11 file I/O, 12 protocol, 20 interrupted, 23 some entries failed, 24 some source files \
             vanished or kept changing, 25 deletions refused, 30 timeout, 40 destination busy, 41 host key, \
             42 authentication, 43 no agent, 44 destination full, 45 content differs.",
        )
        .disable_help_flag(true)
        .arg(Arg::new("help").long("help").action(ArgAction::Help).help("Print help"))
        .arg(
            Arg::new("paths")
                .value_name("SOURCE… DESTINATION")
                .num_args(1..)
                .value_parser(value_parser!(OsString))
                .help("Sources, and last the destination; a source alone is listed"),
        )
        .arg(
            Arg::new("version")
                .short('V')
                .long("version")
                .action(ArgAction::Count)
                .help("Print the version; twice: as JSON"),
        );
    let command = metadata::arguments(command);
    let command = command
        .next_help_heading("What is done")
        .arg(flag(
            "dry-run",
            Some('n'),
            "Change nothing; with -i or -v, say what would be done; with --json, print a plan",
        ))
        .arg(value(
            "apply-plan",
            "FILE",
            "Do what a dry run printed (--dry-run --json), if nothing of it changed since",
        ));
    let command = transfer::arguments(update::window(update::arguments(deletion::arguments(command))));
    let command = bases::arguments(command);
    let command = places::arguments(links::arguments(selection::copy_arguments(command)));
    let command = stop::arguments(connection::arguments(command));
    let command = output::arguments_of_sync(command);
    accepted::with_negations(accepted::arguments(command))
}

fn verify() -> Command {
    let command = Command::new("verify")
        .about("Compare two trees: content by BLAKE3, and metadata; changes nothing")
        .long_about(
            "Hashes every file of both trees and compares content, types, modes, owners, times and link targets; with -X, -A, \
             -H and -U also extended attributes, ACLs, which names are of one file, and access times. Give the options of \
             the copy again that say what is kept and changed. Changes nothing anywhere. Names every difference in rsync's \
             letters (what `sync -ac --delete` would do) and exits with 45 if there is one.",
        )
        .disable_help_flag(true)
        .arg(Arg::new("help").long("help").action(ArgAction::Help).help("Print help"))
        .arg(
            Arg::new("paths")
                .value_names(["SOURCE", "DESTINATION"])
                .num_args(2)
                .required(true)
                .value_parser(value_parser!(OsString)),
        );
    let command = metadata::arguments(command);
    let command = links::arguments(selection::arguments(update::window(command)));
    let command = connection::arguments(command);
    output::arguments(command)
}

fn bench() -> Command {
    let command = Command::new("bench")
        .about("Measure the link, disks and processors of a copy, and forecast how long it would take")
        .long_about(
            "Measures what a copy of SOURCE to DESTINATION would have to work with, names the bottleneck, and forecasts \
             the first pass, the next one and the cold one (after the service stopped: the downtime).\n\n\
             Measured are the link (round trip; both ways over 1, 2 and 4 SSH connections), and at each end the disk \
             (one file written, synced, read back; small files created), the scan of the tree, BLAKE3 and zstd on one \
             core. Either side may be on another machine, as for `sync`; the other machine needs the same sync-agent. \
             Without DESTINATION only the source is measured, and the link to it.\n\n\
             The trees are only read. What is written goes to .sync-agent-staging inside the directory, takes no more than \
             --size and a tenth of the free space, and is removed at once, also after an error or Ctrl-C. While it is there, \
             a `sync` into the same directory is refused (40). Expect 10 to 15 times --seconds in all, and a busy disk and \
             link meanwhile: on a live server think of --bwlimit (then one connection is measured) and \
             --no-write.",
        )
        .after_help(
            "Examples:\n  \
             sync-client bench root@old:/srv/mongodb/data/ /srv/mongodb/\n  \
             sync-client bench --change 5 --html bench.html root@old:/srv/data/ /srv/\n  \
             sync-client bench --no-write root@old:/srv/data/      reads only, nothing is written anywhere\n  \
             sync-client bench /srv/data/ /mnt/backup/             two disks of this machine\n\n\
             Exit status: 0 measured (what could not be is a note), 1 usage, 3 a directory that can't be used, \
             10 connection, 20 interrupted, 30 timeout, 41 host key, 42 authentication, 43 no agent.",
        )
        .arg(
            Arg::new("paths")
                .value_names(["SOURCE", "DESTINATION"])
                .num_args(1..=2)
                .required(true)
                .value_parser(value_parser!(OsString))
                .help("Directories: [USER@]HOST:PATH, ssh://[USER@]HOST[:PORT]/PATH, or a local path"),
        )
        .arg(
            value("seconds", "S", "How long one measurement may take, 0.05 to 60 [default: 2]")
                .value_parser(value_parser!(f64)),
        )
        .arg(value("size", "BYTES", "Size of the file written at each end, with K, M or G [default: 256M]"))
        .arg(
            value("change", "PERCENT", "Share of the tree that changes during a first pass [default: 1]")
                .value_parser(value_parser!(f64)),
        )
        .arg(flag("no-write", None, "Write nothing at either end: the disks are measured by reading the tree"))
        .arg(value("html", "FILE", "Write the figures as one page with plots"));
    connection::arguments(command)
        .next_help_heading("Output")
        .arg(flag("quiet", Some('q'), "No progress on standard error"))
        .arg(flag("json", None, "Print one JSON object a line, the last one a summary"))
}

//! `proxy` on the command line.

use crate::generated;
use crate::options::{changing, flag, json, option, path, plan};
use clap::builder::OsStringValueParser;
use clap::{Arg, ArgAction, Command};

/// `proxy` with its three commands.
#[must_use]
pub fn command() -> Command {
    Command::new("proxy")
        .about("Let this machine's nginx send requests to the new one, and back")
        .long_about(
            "Edits an nginx configuration so that requests that still reach the old machine, while DNS spreads, go to the \
             new one by TLS. The old lines stay as comments; `disable` restores every byte and needs nothing but the \
             file. nginx is not reloaded.\n\nWithout --file it is a step of the migration: the plan's file on the source, tested, \
             NGINX started alone, and checked that the destination answers.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(enable())
        .subcommand(edit(
            Command::new("disable")
                .about("Take the edit out: every byte as it was")
                .long_about(
                    "Takes out what `enable` put in. What else was changed in the file since then stays; an edit that was \
                     itself changed is refused (46), with its line.",
                ),
        ))
        .subcommand(
            Command::new("show")
                .about("Show upstreams, what uses them, and whether the edit is there")
                .arg(file())
                .arg(plan())
                .arg(json()),
        )
}

fn enable() -> Command {
    let command = Command::new("enable")
        .about("Send the requests of some upstreams to another machine")
        .long_about(
            "In the upstreams that move, comments out the servers and puts in the new machine; lets every proxy_pass to \
             them go by TLS, with the client's name and path, so that the other nginx sees what this one saw. The \
             upstreams are core_server, websocket_server, hfs_server, preview_server, preview_server_forward, \
             audit_server and mfa_server, as far as they are there, or those named. What stays is listed with the \
             reason. An edit that is there already is replaced.",
        )
        .after_help(
            "Examples:\n  \
             sync-client proxy enable --file site-443.conf --to 203.0.113.9 --dry-run\n  \
             sync-client proxy enable --file site-443.conf --to 203.0.113.9 --test-command 'nginx -t'\n  \
             sync-client proxy enable --file site-443.conf --to [2001:db8::9]:8443 --upstream core_server --yes\n\n\
             Exit status: 0 done, 1 usage, 3 no such file, 11 file, 20 stopped, 44 disk full, 46 refused (the line is named).",
        )
        .arg(
            option("to", "ADDRESS[:PORT]", "The new machine: an IPv4 or IPv6 address, or a host name [port: 443]")
                .requires("file"),
        )
        .arg(
            option("upstream", "NAME", "Upstreams that move, instead of the known ones")
                .num_args(1..)
                .requires("file")
                .action(ArgAction::Append),
        )
        .arg(option(
            "trusted-certificate",
            "FILE",
            "What the new machine's certificate is verified with, as nginx sees it [default: /etc/ssl/certs/ca-certificates.crt]",
        ).requires("file"))
        .arg(
            flag("no-verify", "Do not verify the new machine's certificate (a self-signed one)")
                .requires("file")
                .conflicts_with("trusted-certificate"),
        )
        .arg(generated::option());
    edit(command).mut_arg("file", |file| file.requires("to"))
}

/// Options of what changes a file.
fn edit(command: Command) -> Command {
    changing(
        command
            .arg(file())
            .arg(
                option(
                    "test-command",
                    "COMMAND",
                    "Run this in a shell when the file is written; if it fails, the old one is put back",
                )
                .value_parser(OsStringValueParser::new())
                .requires("file"),
            )
            .arg(plan()),
    )
}

fn file() -> Arg {
    path(
        "file",
        "FILE",
        "The nginx configuration; a symbolic link is followed and stays [default: the plan's, on its hosts]",
    )
}

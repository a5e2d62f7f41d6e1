//! The ways data can go, so that a test can loop over all: pull, push and local, by OpenSSH and by our own server.

use crate::process::Output;
use crate::rsync;
use crate::sandbox::Sandbox;
use crate::serve::Serve;
use crate::sshd::{Agent, Options, Sshd};
use std::path::Path;

/// Who accepts the connection at the far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// OpenSSH, which starts `sync-agent --stdio`; addressed as `-e "ssh …" USER@HOST:PATH`.
    Sshd,
    /// `sync-agent serve`; addressed as `ssh://USER@HOST:PORT/PATH`.
    Serve,
}

/// Which way data goes, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the far end to here.
    Pull(Transport),
    /// From here to the far end.
    Push(Transport),
    /// Both ends here.
    Local,
}

/// Every direction.
pub const ALL: [Direction; 5] = [
    Direction::Local,
    Direction::Pull(Transport::Sshd),
    Direction::Push(Transport::Sshd),
    Direction::Pull(Transport::Serve),
    Direction::Push(Transport::Serve),
];

/// What a direction puts on a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Options before the arguments.
    pub options: Vec<String>,
    /// The source argument.
    pub source: String,
    /// The destination argument.
    pub destination: String,
}

impl Line {
    /// The whole line: `first`, then its own options and arguments.
    #[must_use]
    pub fn with(&self, first: &[&str]) -> Vec<String> {
        let own = self.options.iter().chain([&self.source, &self.destination]);
        first.iter().map(|&option| option.to_owned()).chain(own.cloned()).collect()
    }
}

/// The servers that the directions need, running.
#[derive(Debug)]
pub struct Stage {
    /// OpenSSH, with the built agent.
    pub sshd: Sshd,
    /// Our own server, over the whole file system, so that paths mean the same through both.
    pub serve: Serve,
}

impl Stage {
    /// Starts both servers.
    ///
    /// # Panics
    /// Where one does not come up.
    #[must_use]
    pub fn start(sandbox: &Sandbox) -> Stage {
        Stage { sshd: Sshd::start(sandbox), serve: Serve::start(sandbox, Path::new("/"), false) }
    }

    /// What our command line says for this direction. The paths are absolute; a slash at the end stays.
    #[must_use]
    pub fn line(&self, direction: Direction, source: &str, destination: &str) -> Line {
        match direction {
            Direction::Local => {
                Line { options: Vec::new(), source: source.to_owned(), destination: destination.to_owned() }
            }
            Direction::Pull(Transport::Serve) => Line {
                options: Vec::new(),
                source: self.serve.url(source),
                destination: destination.to_owned(),
            },
            Direction::Push(Transport::Serve) => Line {
                options: Vec::new(),
                source: source.to_owned(),
                destination: self.serve.url(destination),
            },
            Direction::Pull(Transport::Sshd) | Direction::Push(Transport::Sshd) => {
                shell_line(&self.sshd, direction, source, destination)
            }
        }
    }

    /// Runs `sync-client sync OPTIONS` in this direction.
    #[must_use]
    pub fn sync(
        &self,
        sandbox: &Sandbox,
        direction: Direction,
        options: &[&str],
        source: &str,
        destination: &str,
    ) -> Output {
        sandbox.sync(self.line(direction, source, destination).with(options))
    }

    /// Runs rsync with the same options in the same direction, over OpenSSH where there is a far end.
    #[must_use]
    pub fn rsync(
        &self,
        sandbox: &Sandbox,
        direction: Direction,
        options: &[&str],
        source: &str,
        destination: &str,
    ) -> Output {
        rsync::run(sandbox, shell_line(&self.sshd, direction, source, destination).with(options))
    }
}

/// The line with a remote shell, which rsync and our client both take.
fn shell_line(sshd: &Sshd, direction: Direction, source: &str, destination: &str) -> Line {
    let address = sshd.address();
    let (mut options, mut arguments) =
        (vec!["-e".to_owned(), address.remote_shell()], (source.to_owned(), destination.to_owned()));
    match direction {
        Direction::Pull(_) => arguments.0 = address.host_path(source),
        Direction::Push(_) => arguments.1 = address.host_path(destination),
        Direction::Local => options.clear(),
    }
    Line { options, source: arguments.0, destination: arguments.1 }
}

/// A server without an agent, for tests of rsync's own lines.
#[must_use]
pub fn sshd_for_rsync(sandbox: &Sandbox) -> Sshd {
    Sshd::start_with(sandbox, &Options { agent: Agent::Missing, ..Options::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{NOTHING, assert_same, snapshot};
    use crate::tree;

    #[test]
    fn rsync_copies_every_fixture_in_every_direction() {
        crate::require!("sshd", "rsync");
        let sandbox = Sandbox::new();
        let sshd = sshd_for_rsync(&sandbox);
        tree::fixture("all", &sandbox.source());
        let source = format!("{}/", sandbox.source().display());
        for (direction, arrow) in [(Direction::Local, '>'), (ALL[1], '>'), (ALL[2], '<')] {
            let destination = sandbox.path().join(format!("{direction:?}"));
            let line = shell_line(&sshd, direction, &source, destination.to_str().expect("ASCII"));
            let output = rsync::run(&sandbox, line.with(&["-a", "-i"]));
            assert!(
                output.success().itemized().contains(&format!("{arrow}f+++++++++ sizes/random-1")),
                "{output}"
            );
            assert_same(&snapshot(&sandbox.source()), &snapshot(&destination), &NOTHING);
        }
    }
}

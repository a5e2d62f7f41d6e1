//! `sync-agent serve`: the product's own SSH server, with keys of the sandbox.

use crate::address::Address;
use crate::process::{Running, descendants_named};
use crate::sandbox::{Sandbox, make_key, program, public_part, write_private};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const READY_LIMIT: Duration = Duration::from_secs(20);

/// A running `sync-agent serve`; ended when dropped.
#[derive(Debug)]
pub struct Serve {
    running: Running,
    address: Address,
    host_key: String,
    _directory: TempDir,
}

impl Serve {
    /// Starts it on a free port; the sandbox trusts its host key and its key opens it.
    ///
    /// # Panics
    /// Where it does not say within 20 s where it listens, with all it printed.
    #[must_use]
    pub fn start(sandbox: &Sandbox, root: &Path, read_only: bool) -> Serve {
        let directory =
            tempfile::Builder::new().prefix("serve-").tempdir_in(sandbox.path()).expect("a new directory");
        let (host_key, authorized) =
            (directory.path().join("host_ed25519"), directory.path().join("authorized_keys"));
        make_key(&host_key, "ed25519");
        write_private(&authorized, &(sandbox.public_key() + "\n"));
        let mut command = sandbox.command(program("sync-agent"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--host-key"]).arg(&host_key);
        command.arg("--authorized-keys").arg(&authorized).arg("--root").arg(root);
        if read_only {
            command.arg("--read-only");
        }
        let running = Running::start(command);
        let port = running.wait_for(READY_LIMIT, "`listening on 127.0.0.1:PORT`", listening_port);
        let host_key = public_part(&host_key);
        sandbox.trust(port, std::slice::from_ref(&host_key));
        Serve { running, address: sandbox.address(port), host_key, _directory: directory }
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.running.id()
    }

    /// How the sandbox's client reaches it.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// `ssh://USER@127.0.0.1:PORT/PATH`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        self.address.url(path)
    }

    /// The public part of the host key it was given: `TYPE BASE64`.
    #[must_use]
    pub fn host_key(&self) -> &str {
        &self.host_key
    }

    /// The line it prints after `listening on …`: its host key in the form of `known_hosts`.
    ///
    /// # Panics
    /// Where it prints none within 20 s.
    #[must_use]
    pub fn host_key_line(&self) -> String {
        self.running.wait_for(READY_LIMIT, "its host key", |text| {
            let mut lines =
                text.split_inclusive('\n').skip_while(|line| !line.starts_with("listening on ")).skip(1);
            lines.next()?.strip_suffix('\n').map(String::from)
        })
    }

    /// The processes it started, where it starts one a session.
    #[must_use]
    pub fn agents(&self) -> Vec<u32> {
        descendants_named(self.running.id(), "sync-agent")
    }

    /// What it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        self.running.printed()
    }
}

/// The port of a whole line `listening on 127.0.0.1:PORT…`.
pub(crate) fn listening_port(text: &str) -> Option<u16> {
    let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let rest = whole.filter_map(|line| line.strip_prefix("listening on 127.0.0.1:")).next()?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_a_whole_line_only() {
        assert_eq!(listening_port("listening on 127.0.0.1:40"), None);
        assert_eq!(listening_port("listening on 127.0.0.1:4022\n"), Some(4022));
        assert_eq!(listening_port("listening on 127.0.0.1:4022, to 127.0.0.1:22\n"), Some(4022));
    }
}

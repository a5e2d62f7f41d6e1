//! How a client reaches an SSH server of a test, in each form that the command line takes.

use std::path::{Path, PathBuf};

/// A server on 127.0.0.1, and what a client needs to be let in.
#[derive(Debug, Clone)]
pub struct Address {
    /// Who logs in.
    pub user: String,
    /// Where it listens.
    pub port: u16,
    /// The private key.
    pub key: PathBuf,
    /// The trusted host keys.
    pub known_hosts: PathBuf,
}

impl Address {
    /// The remote shell for `-e`, of rsync's line and of ours.
    #[must_use]
    pub fn remote_shell(&self) -> String {
        let (key, known_hosts) = (self.key.display(), self.known_hosts.display());
        format!(
            "ssh -i {key} -p {} -o UserKnownHostsFile={known_hosts} -o StrictHostKeyChecking=yes",
            self.port
        )
    }

    /// `USER@127.0.0.1:PATH`, which goes with [`Address::remote_shell`].
    #[must_use]
    pub fn host_path(&self, path: &str) -> String {
        format!("{}@127.0.0.1:{path}", self.user)
    }

    /// `ssh://USER@127.0.0.1:PORT/PATH`, of an absolute path; keys and known hosts are those of the home.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("ssh://{}@127.0.0.1:{}{path}", self.user, self.port)
    }

    /// The same through another port (a [`crate::wan::Proxy`]); trust that port too.
    #[must_use]
    pub fn at_port(&self, port: u16) -> Address {
        Address { port, ..self.clone() }
    }

    /// The same with other trusted host keys.
    #[must_use]
    pub fn with_known_hosts(&self, known_hosts: &Path) -> Address {
        Address { known_hosts: known_hosts.to_owned(), ..self.clone() }
    }

    /// The line of a `known_hosts` file for a server at this port.
    #[must_use]
    pub fn known_hosts_line(port: u16, host_key: &str) -> String {
        format!("[127.0.0.1]:{port} {host_key}")
    }
}

//! A real OpenSSH server of a test's own, on a loopback port of its own, or in a [`Machine`].
//!
//! Every session runs `session` (a forced command), which gives the asked-for command the sandbox's home and
//! a path that starts with a directory of this module's: there lies the agent, a stand-in, or nothing.

use crate::address::Address;
use crate::machine::Machine;
use crate::process::{Running, descendants_named, until};
use crate::requirement::installed;
use crate::sandbox::{Sandbox, make_key, program, public_part, user_name, write_private, write_script};
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const READY_LIMIT: Duration = Duration::from_secs(20);

/// What a session finds under the name `sync-agent`.
#[derive(Debug, Clone, Default)]
pub enum Agent {
    /// The built program.
    #[default]
    Built,
    /// Nothing.
    Missing,
    /// This script.
    Script(String),
}

/// How a server differs from the plain one.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What stands for the agent.
    pub agent: Agent,
    /// What the login shell prints before the session's command, as a chatty profile does.
    pub noise: Option<String>,
    /// Lets nobody in.
    pub refuses_all_keys: bool,
    /// These lines of `authorized_keys` instead of the sandbox's key; a `command=` of theirs is what is run.
    pub authorized_keys: Option<String>,
    /// Sessions that one connection may have; 0 is more than any test needs.
    pub max_sessions: u32,
    /// Runs there, at that machine's address and with its home; nobody trusts it yet.
    pub machine: Option<Machine>,
}

/// A running sshd; ended with its sessions when dropped.
#[derive(Debug)]
pub struct Sshd {
    directory: TempDir,
    home: PathBuf,
    running: Option<Running>,
    address: Address,
    /// Whether all sessions run `session`, whatever their key says.
    forces_session: bool,
    max_sessions: u32,
    machine: Option<Machine>,
}

impl Sshd {
    /// The plain server with the built agent; its host keys are trusted by the sandbox.
    ///
    /// # Panics
    /// Where it does not come up, with its log.
    #[must_use]
    pub fn start(sandbox: &Sandbox) -> Sshd {
        Sshd::start_with(sandbox, &Options::default())
    }

    /// A server that differs by `options`; its host keys are trusted by the sandbox.
    ///
    /// # Panics
    /// Where it does not come up, with its log.
    #[must_use]
    pub fn start_with(sandbox: &Sandbox, options: &Options) -> Sshd {
        let directory =
            tempfile::Builder::new().prefix("sshd-").tempdir_in(sandbox.path()).expect("a new directory");
        let max_sessions = if options.max_sessions == 0 { 1000 } else { options.max_sessions };
        let mut sshd = Sshd {
            directory,
            home: options.machine.as_ref().map_or_else(|| sandbox.home(), Machine::home),
            running: None,
            address: sandbox.address(0),
            max_sessions,
            forces_session: options.authorized_keys.is_none(),
            machine: options.machine.clone(),
        };
        sshd.write_files(sandbox, options);
        sshd.make_host_keys();
        sshd.come_up_somewhere();
        if options.machine.is_none() {
            sandbox.trust(sshd.port(), &sshd.host_keys());
        }
        sshd
    }

    /// Stops, and comes up again at the same port with other host keys, which nobody trusts yet.
    ///
    /// # Panics
    /// Where it does not come up, with its log.
    pub fn restart_with_new_host_keys(&mut self) {
        self.stop();
        for kind in HOST_KEY_KINDS {
            fs::remove_file(self.host_key_file(kind)).expect("the server's key");
            fs::remove_file(self.host_key_file(kind).with_extension("pub")).expect("the server's key");
        }
        self.make_host_keys();
        let port = self.port();
        until(READY_LIMIT, "sshd at its old port", || self.comes_up(port).then_some(()));
    }

    /// Ends it and its sessions; its port stays known.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port
    }

    /// How the sandbox's client reaches it.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The remote shell for `-e`.
    #[must_use]
    pub fn remote_shell(&self) -> String {
        self.address.remote_shell()
    }

    /// `ssh://USER@127.0.0.1:PORT/PATH`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        self.address.url(path)
    }

    /// Its public host keys: `TYPE BASE64`.
    #[must_use]
    pub fn host_keys(&self) -> Vec<String> {
        HOST_KEY_KINDS.iter().map(|kind| public_part(&self.host_key_file(kind))).collect()
    }

    /// The agents that run in its sessions now.
    #[must_use]
    pub fn agents(&self) -> Vec<u32> {
        self.running.as_ref().map(|running| descendants_named(running.id(), "sync-agent")).unwrap_or_default()
    }

    /// Waits until no agent runs in its sessions.
    ///
    /// # Panics
    /// When one still does after `limit`.
    pub fn wait_for_agents_to_end(&self, limit: Duration) {
        until(limit, "end of all agents", || self.agents().is_empty().then_some(()));
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.running.as_ref().map(Running::printed).unwrap_or_default()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn host_key_file(&self, kind: &str) -> PathBuf {
        self.file(&format!("host_{kind}"))
    }

    fn make_host_keys(&self) {
        for kind in HOST_KEY_KINDS {
            make_key(&self.host_key_file(kind), kind);
        }
    }

    fn write_files(&self, sandbox: &Sandbox, options: &Options) {
        let programs = self.file("bin");
        fs::create_dir(&programs).expect("a new directory");
        let agent = programs.join("sync-agent");
        match &options.agent {
            Agent::Built => symlink(program("sync-agent"), agent).expect("a new link"),
            Agent::Missing => {}
            Agent::Script(text) => write_script(&agent, text),
        }
        let own = || if options.refuses_all_keys { String::new() } else { sandbox.public_key() + "\n" };
        let keys = options.authorized_keys.clone().unwrap_or_else(own);
        write_private(&self.file("authorized_keys"), &keys);
        write_private(&self.file("noise"), options.noise.as_deref().unwrap_or_default());
        write_script(&self.file("session"), &self.session_script());
        fs::set_permissions(self.directory.path(), fs::Permissions::from_mode(0o755))
            .expect("the directory is ours");
    }

    fn session_script(&self) -> String {
        let (bin, noise, home) = (self.file("bin"), self.file("noise"), &self.home);
        format!(
            "#!/bin/sh\nexport HOME='{}' PATH='{}:/usr/bin:/bin'\ncd \"$HOME\"\ncat '{}'\nexec /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"\n",
            home.display(),
            bin.display(),
            noise.display()
        )
    }

    /// As root, sshd separates its privileges in `/run/sshd`, which a container may lack.
    fn come_up_somewhere(&mut self) {
        let _ = fs::create_dir_all("/run/sshd");
        until(READY_LIMIT, "sshd at a free port", || {
            let port = free_port();
            self.comes_up(port).then_some(())
        });
    }

    fn comes_up(&mut self, port: u16) -> bool {
        fs::write(self.file("sshd_config"), self.config(port)).expect("a file of the sandbox");
        let sshd = installed("sshd");
        let mut command =
            self.machine.as_ref().map_or_else(|| Command::new(&sshd), |machine| machine.command(&sshd));
        command.env_clear().args(["-D", "-e", "-f"]).arg(self.file("sshd_config"));
        let mut running = Running::start(command);
        let answers = until(READY_LIMIT, "sshd's banner", || {
            if running.ended_within(Duration::ZERO) {
                let log = running.printed();
                assert!(log.contains("Address already in use"), "sshd does not start\n{log}");
                return Some(false);
            }
            self.has_banner(port).then_some(true)
        });
        if answers {
            self.running = Some(running);
            self.address.port = port;
        }
        answers
    }

    fn listens(&self) -> Ipv4Addr {
        self.machine.as_ref().map_or(Ipv4Addr::LOCALHOST, Machine::address)
    }

    /// Whether an SSH server answers there.
    fn has_banner(&self, port: u16) -> bool {
        let connect = || TcpStream::connect((self.listens(), port));
        let connected = match &self.machine {
            Some(machine) => machine.in_network(connect),
            None => connect(),
        };
        let Ok(mut stream) = connected else { return false };
        let mut banner = [0; 4];
        stream.set_read_timeout(Some(READY_LIMIT)).is_ok()
            && stream.read_exact(&mut banner).is_ok()
            && &banner == b"SSH-"
    }

    fn config(&self, port: u16) -> String {
        let file = |name: &str| self.file(name).display().to_string();
        let mut lines = vec![
            format!("Port {port}"),
            format!("ListenAddress {}", self.listens()),
            "PidFile none".to_owned(),
            "StrictModes no".to_owned(),
            "UsePAM no".to_owned(),
            "PermitRootLogin yes".to_owned(),
            "PasswordAuthentication no".to_owned(),
            "KbdInteractiveAuthentication no".to_owned(),
            "UseDNS no".to_owned(),
            "PrintMotd no".to_owned(),
            "MaxStartups 1000".to_owned(),
            format!("MaxSessions {}", self.max_sessions),
            "MaxAuthTries 20".to_owned(),
            "LogLevel VERBOSE".to_owned(),
            format!("AllowUsers {}", user_name()),
            format!("AuthorizedKeysFile {}", file("authorized_keys")),
        ];
        lines.push(if self.forces_session {
            format!("SetEnv HOME={}\nForceCommand {}", self.home.display(), file("session"))
        } else {
            format!("SetEnv HOME={} PATH={}:/usr/bin:/bin", self.home.display(), file("bin"))
        });
        lines.extend(
            HOST_KEY_KINDS.iter().map(|kind| format!("HostKey {}", self.host_key_file(kind).display())),
        );
        lines.join("\n") + "\n"
    }
}

const HOST_KEY_KINDS: [&str; 2] = ["ed25519", "rsa"];

/// A port that nobody holds at this moment.
///
/// # Panics
/// Where loopback has none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}

/// A `known_hosts` file of these lines in the sandbox.
#[must_use]
pub fn known_hosts_of(sandbox: &Sandbox, name: &str, lines: &[String]) -> PathBuf {
    let path: PathBuf = Path::new(&sandbox.home()).join(name);
    write_private(&path, &(lines.join("\n") + "\n"));
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{process, requirement, rsync};

    fn without_agent() -> Options {
        Options { agent: Agent::Missing, ..Options::default() }
    }

    fn ssh(sandbox: &Sandbox, sshd: &Sshd, command: &str) -> process::Output {
        let mut shell = sandbox.command("/bin/sh");
        let line = format!("{} {}@127.0.0.1 '{command}'", sshd.remote_shell(), sshd.address().user);
        shell.args(["-c", &line]);
        process::run(shell)
    }

    #[test]
    fn rsync_runs_over_it() {
        crate::require!("sshd", "rsync");
        let sandbox = Sandbox::new();
        let sshd = Sshd::start_with(&sandbox, &without_agent());
        fs::write(sandbox.source().join("name"), "content").expect("a new file");
        let (source, destination) = (
            format!("{}/", sandbox.source().display()),
            sshd.address().host_path(sandbox.destination().to_str().expect("ASCII")),
        );
        rsync::run(&sandbox, ["-a", "-e", &sshd.remote_shell(), &source, &destination]).success();
        assert_eq!(fs::read(sandbox.destination().join("name")).expect("it was copied"), b"content");
    }

    #[test]
    fn sessions_have_the_home_of_the_sandbox_and_the_agent_first() {
        crate::require!("sshd");
        let sandbox = Sandbox::new();
        let options = Options {
            agent: Agent::Script("#!/bin/sh\necho $HOME $PWD \"$@\"\n".to_owned()),
            ..Options::default()
        };
        let sshd = Sshd::start_with(&sandbox, &options);
        let home = sandbox.home().display().to_string();
        assert_eq!(
            ssh(&sandbox, &sshd, "sync-agent --stdio").success().stdout_text(),
            format!("{home} {home} --stdio\n")
        );
    }

    #[test]
    fn a_noisy_shell_prints_first_and_a_missing_agent_is_127() {
        crate::require!("sshd");
        let sandbox = Sandbox::new();
        let options = Options { noise: Some("Welcome!\n".to_owned()), ..without_agent() };
        let sshd = Sshd::start_with(&sandbox, &options);
        let output = ssh(&sandbox, &sshd, "sync-agent --stdio");
        assert_eq!(output.expect_code(127).stdout_text(), "Welcome!\n");
    }

    #[test]
    fn other_host_keys_are_refused_by_ssh() {
        crate::require!("sshd");
        let sandbox = Sandbox::new();
        let mut sshd = Sshd::start_with(&sandbox, &without_agent());
        ssh(&sandbox, &sshd, "true").success();
        let port = sshd.port();
        sshd.restart_with_new_host_keys();
        assert_eq!(sshd.port(), port);
        ssh(&sandbox, &sshd, "true").expect_code(255).expect_stderr("REMOTE HOST IDENTIFICATION HAS CHANGED");
    }

    #[test]
    fn a_stopped_server_leaves_no_session_behind() {
        crate::require!("sshd");
        let sandbox = Sandbox::new();
        let options = Options {
            agent: Agent::Script("#!/bin/sh\necho $$ >\"$HOME/pid\"\nwhile :; do sleep 1; done\n".to_owned()),
            ..Options::default()
        };
        let mut sshd = Sshd::start_with(&sandbox, &options);
        let mut shell = sandbox.command("/bin/sh");
        shell.args([
            "-c",
            &format!("exec {} {}@127.0.0.1 sync-agent", sshd.remote_shell(), sshd.address().user),
        ]);
        let client = Running::start(shell);
        let id: u32 = until(READY_LIMIT, "the session's id", || {
            fs::read_to_string(sandbox.home().join("pid")).ok()?.trim().parse().ok()
        });
        assert!(sshd.agents().contains(&id));
        sshd.stop();
        until(READY_LIMIT, "end of the session", || {
            (!Path::new(&format!("/proc/{id}")).exists()).then_some(())
        });
        client.wait().expect_code(255);
        assert!(requirement::find("ssh").is_some());
    }
}

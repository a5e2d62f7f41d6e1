//! How another machine is reached.

use super::typed::{amount, flag, list, text, value, values};
use super::{Given, UsageError, usage};
use crate::ssh::Family;
use crate::ssh::system::{self, SshArgs};
use clap::builder::OsStringValueParser;
use clap::{ArgMatches, Command, value_parser};
use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// How to reach another machine.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// What to start instead of the built-in client, with its arguments.
    pub program: Option<Vec<OsString>>,
    /// What a `-e 'ssh …'` said, for the built-in client.
    pub ssh: SshArgs,
    /// `--port`.
    pub port: Option<u16>,
    /// `--identity`.
    pub identities: Vec<PathBuf>,
    /// `--known-hosts`.
    pub known_hosts: Vec<PathBuf>,
    /// `--host-key`.
    pub pinned: Option<String>,
    /// `--accept-new`.
    pub accept_new: bool,
    /// The agent's command at the other side, as the shell there takes it.
    pub agent: Vec<u8>,
    /// `--timeout`, also for connecting.
    pub timeout_s: u32,
    /// `--contimeout`: for connecting alone.
    pub connect_timeout_s: Option<u32>,
    /// `--address`: of this machine, where the connection comes from.
    pub address: Option<IpAddr>,
    /// `-4`, `-6`.
    pub family: Family,
    /// `--connections`: over how many channels a push goes; none is as many as the round trip needs.
    pub channels: Option<u8>,
}

pub(crate) fn arguments(command: Command) -> Command {
    command
        .next_help_heading("Connection")
        .arg(
            value("rsh", "COMMAND", "Remote shell: `ssh -i KEY -p PORT …` is understood by the built-in client, anything else is started")
                .short('e'),
        )
        .arg(value("ssh", "WHICH", "`builtin` (default), or `system`: start ssh, with its own configuration").value_parser(OsStringValueParser::new()))
        .arg(value("agent-path", "PATH", "The agent at the other side [default: sync-agent]").alias("rsync-path"))
        .arg(list("identity", "FILE", "Private key (instead of ssh-agent and the default ones)"))
        .arg(flag("ipv4", Some('4'), "Connect over IPv4 only").overrides_with("ipv6"))
        .arg(flag("ipv6", Some('6'), "Connect over IPv6 only").overrides_with("ipv4"))
        .arg(value("address", "ADDRESS", "Connect from this address of this machine").value_parser(value_parser!(IpAddr)))
        .arg(value("contimeout", "SECONDS", "How long connecting may take [default: 30]").value_parser(value_parser!(u32)))
        .arg(value("port", "PORT", "Port of the SSH server [default: 22]").value_parser(value_parser!(u16)))
        .arg(list("known-hosts", "FILE", "Known host keys (instead of ~/.ssh/known_hosts and the system's)"))
        .arg(value("host-key", "FINGERPRINT", "Accept exactly this host key (SHA256:…)"))
        .arg(flag("accept-new", None, "Learn the key of a host that is not known at all"))
        .arg(value("timeout", "SECONDS", "End when nothing is heard for so long (exit 30); 0: never").value_parser(value_parser!(u32)))
        .arg(
            value("connections", "N", "SSH channels that a push goes over, 1 to 8 [default: as many as the round trip needs]")
                .value_parser(value_parser!(u8).range(1..=8)),
        )
        .arg(value("bwlimit", "RATE", "Send at most this much a second: KiB, or with K, M, G"))
}

pub(crate) fn resolve(matches: &ArgMatches, given: &Given) -> Result<Connection, UsageError> {
    let shell = match text(matches, "rsh")? {
        Some(shell) => shell,
        None => remote_shell(given)?,
    };
    let is_system = match text(matches, "ssh")?.as_deref() {
        None | Some("builtin") => false,
        Some("system") => true,
        Some(other) => return usage(format!("--ssh: {other:?} is neither builtin nor system")),
    };
    let connection = Connection {
        port: matches.get_one::<u16>("port").copied(),
        identities: values(matches, "identity").map(PathBuf::from).collect(),
        known_hosts: values(matches, "known-hosts").map(PathBuf::from).collect(),
        pinned: text(matches, "host-key")?,
        accept_new: matches.get_flag("accept-new"),
        agent: matches
            .get_one::<OsString>("agent-path")
            .map_or(b"sync-agent".to_vec(), |path| path.as_bytes().to_vec()),
        timeout_s: matches.get_one::<u32>("timeout").copied().unwrap_or(0),
        connect_timeout_s: matches.get_one::<u32>("contimeout").copied().filter(|&seconds| seconds > 0),
        address: matches.get_one::<IpAddr>("address").copied(),
        family: match (matches.get_flag("ipv4"), matches.get_flag("ipv6")) {
            (true, _) => Family::V4,
            (_, true) => Family::V6,
            _ => Family::Any,
        },
        channels: matches.get_one::<u8>("connections").copied(),
        ..Connection::default()
    };
    through(connection, &shell, is_system)
}

/// `RSYNC_RSH`, or ssh.
fn remote_shell(given: &Given) -> Result<String, UsageError> {
    match given.remote_shell.as_ref().filter(|shell| !shell.is_empty()).map(|shell| shell.to_str()) {
        None => Ok("ssh".to_owned()),
        Some(Some(shell)) => Ok(shell.to_owned()),
        Some(None) => usage("RSYNC_RSH: not text"),
    }
}

/// The connection through the remote shell `shell` (`-e`): the built-in client does it where it knows all that the
/// line says and the system's is not asked for; else that program is started.
pub(crate) fn through(
    mut connection: Connection,
    shell: &str,
    is_system: bool,
) -> Result<Connection, UsageError> {
    match system::parse_ssh_command(shell).filter(|_| !is_system) {
        Some(ssh) => connection.ssh = ssh,
        None => {
            let words = system::split_words(shell).filter(|words| !words.is_empty());
            let Some(words) = words else {
                return usage(format!("-e {shell:?}: quotes that do not close, or no program"));
            };
            let mut program: Vec<OsString> = words.into_iter().map(OsString::from).collect();
            let mut add = |flag: &str, value: OsString| program.extend([OsString::from(flag), value]);
            connection.port.into_iter().for_each(|port| add("-p", port.to_string().into()));
            connection.identities.iter().for_each(|identity| add("-i", identity.into()));
            let is_ssh = is_ssh(&program[0]);
            let trust = trust_options(&connection);
            if let Some(address) = connection.address {
                if !is_ssh {
                    return usage("--address is for SSH; give the program of -e its own option for that");
                }
                program.extend([OsString::from("-b"), address.to_string().into()]);
            }
            if connection.pinned.is_some() || !(trust.is_empty() || is_ssh) {
                return usage(
                    "--host-key, --known-hosts and --accept-new are for the built-in SSH client; \
                     give the program of -e its own options for that",
                );
            }
            program.extend(trust);
            connection.program = Some(program);
        }
    }
    Ok(connection)
}

/// Whether a program is OpenSSH's client, by its name, as rsync tells.
pub(crate) fn is_ssh(program: &OsString) -> bool {
    program.as_bytes().rsplit(|&byte| byte == b'/').next() == Some(b"ssh")
}

/// Whom to trust, as options of OpenSSH's client.
fn trust_options(connection: &Connection) -> Vec<OsString> {
    let mut options = Vec::new();
    if !connection.known_hosts.is_empty() {
        let mut files = OsString::from("UserKnownHostsFile=");
        for (at, file) in connection.known_hosts.iter().enumerate() {
            files.push(if at > 0 { " " } else { "" });
            files.push(file);
        }
        options.extend([OsString::from("-o"), files]);
    }
    if connection.accept_new {
        options.extend(["-o", "StrictHostKeyChecking=accept-new"].map(OsString::from));
    }
    options
}

pub(crate) fn bandwidth(matches: &ArgMatches) -> Result<u64, UsageError> {
    let Some(rate) = text(matches, "bwlimit")? else { return Ok(0) };
    match amount(&rate, 1024) {
        Some(bytes @ 1..512) => {
            usage(format!("--bwlimit: {bytes} bytes a second is too small; 512 is the least, 0 is no limit"))
        }
        // To the nearest KiB, as in rsync.
        Some(bytes) => Ok((bytes + 512) / 1024 * 1024),
        None => usage(format!(
            "--bwlimit: {rate:?} is not a rate; write KiB a second, or a number with K, M or G"
        )),
    }
}

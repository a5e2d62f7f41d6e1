//! A machine of the migration: commands run on it, files are read, all through one [`Host::run`].
//!
//! [`Machine`] is this machine or one behind SSH (the built-in client or the operator's program, as in `sync`). Both run
//! the same line by a POSIX shell: `cd DIR && exec timeout … WORDS`, every word quoted by [`quoted`], so nothing that a plan or
//! a file name holds is ever taken for shell. `timeout` ends the command where it runs; a local deadline behind it covers a
//! connection that hangs. Scripts of our own get their values as positional parameters, never by substitution.
//!
//! What always holds: what is captured is bounded. Files are changed through `files::Files`.

use crate::endpoint::{self, Environment};
use crate::job::{self, Connection, Side};
use crate::location;
use crate::ssh::system;
use crate::ssh::{Exit as Ended, Process, ProcessOutcome, SshConnection, SshError};
use crossbeam_channel::Receiver;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::plan::Ssh;

/// How much of a command's output is kept, from its beginning.
const CAPTURED_BYTES: usize = 8 << 20;
/// A configuration file longer than this is none.
pub(crate) const FILE_BYTES: u64 = 4 << 20;
/// How long after a command's own limit its end may take to arrive.
const GRACE: Duration = Duration::from_secs(30);
/// Between the signal that asks a command to end and the one that ends it.
const KILL_AFTER_S: u32 = 10;
/// The exit status by which `timeout` says that the time was over.
const TIMED_OUT: u32 = 124;
/// For what only looks.
const LOOK_S: u32 = 120;
/// How long the last words of a command may take whose output something keeps open that it started.
const LINGER: Duration = Duration::from_secs(2);
/// Between two looks whether such a command has ended.
const LOOK: Duration = Duration::from_millis(50);

/// What is to be run.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    words: Vec<OsString>,
    directory: Option<PathBuf>,
    input: Vec<u8>,
    limit_s: u32,
    is_awaited: bool,
    is_outlived: bool,
}

impl Command {
    /// A program and its arguments.
    pub(crate) fn new<W: Into<OsString>>(words: impl IntoIterator<Item = W>) -> Command {
        let words = words.into_iter().map(Into::into).collect();
        Command {
            words,
            directory: None,
            input: Vec::new(),
            limit_s: LOOK_S,
            is_awaited: false,
            is_outlived: false,
        }
    }

    /// A POSIX shell script with its positional parameters.
    pub(crate) fn script<W: AsRef<OsStr>>(script: &str, parameters: impl IntoIterator<Item = W>) -> Command {
        let fixed = ["sh", "-c", script, "sh"].map(OsString::from);
        Command::new(fixed.into_iter().chain(parameters.into_iter().map(|word| word.as_ref().to_owned())))
    }

    /// Run in this directory instead of the login directory.
    pub(crate) fn within(mut self, directory: &Path) -> Command {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Ended after so long.
    pub(crate) fn limited(mut self, limit_s: u32) -> Command {
        self.limit_s = limit_s.max(1);
        self
    }

    /// Waited for also when the operator stops the run: what changes a service is not left half way unseen. Two of them in one
    /// directory wait for each other, so that a run that goes on after a kill meets nothing that the killed one left running.
    pub(crate) fn awaited(mut self) -> Command {
        self.is_awaited = true;
        self
    }

    /// Over when its own process is: what it started may go on, and keep its output open.
    pub(crate) fn outlived(mut self) -> Command {
        self.is_outlived = true;
        self
    }

    /// Given to its standard input.
    pub(crate) fn fed(mut self, input: &[u8]) -> Command {
        self.input = input.to_vec();
        self
    }

    /// The line for a shell.
    fn line(&self) -> Vec<u8> {
        let mut line = Vec::new();
        if let Some(directory) = &self.directory {
            line.extend_from_slice(b"cd ");
            line.extend(quoted(directory.as_os_str().as_bytes()));
            line.extend_from_slice(b" && ");
        }
        line.extend_from_slice(b"exec ");
        if self.takes_turns() {
            // The lock is not handed down: a service that a script leaves in the background would keep it.
            line.extend_from_slice(format!("flock -o -E {TIMED_OUT} -w {} . ", self.limit_s).as_bytes());
        }
        line.extend_from_slice(format!("timeout -k {KILL_AFTER_S} {}", self.limit_s).as_bytes());
        for word in &self.words {
            line.push(b' ');
            line.extend(quoted(word.as_bytes()));
        }
        line
    }

    fn takes_turns(&self) -> bool {
        self.is_awaited && self.directory.is_some()
    }

    /// How long it may take until its end is here.
    fn patience(&self) -> Duration {
        let turns = if self.takes_turns() { 2 } else { 1 };
        Duration::from_secs(turns * u64::from(self.limit_s)) + GRACE
    }
}

/// A word that a POSIX shell takes as it is. It must not hold a NUL byte, which no argument can.
pub(crate) fn quoted(word: &[u8]) -> Vec<u8> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./:,+@%".contains(byte);
    if !word.is_empty() && word.iter().all(is_plain) {
        return word.to_vec();
    }
    let mut text = vec![b'\''];
    for &byte in word {
        if byte == b'\'' {
            text.extend_from_slice(b"'\\''");
        } else {
            text.push(byte);
        }
    }
    text.push(b'\'');
    text
}

/// What a command did.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ran {
    /// The exit status; none where a signal ended it.
    pub(crate) status: Option<u32>,
    pub(crate) stdout: Vec<u8>,
    /// The end of it.
    pub(crate) stderr: Vec<u8>,
    pub(crate) elapsed_s: f64,
}

impl Ran {
    pub(crate) fn is_success(&self) -> bool {
        self.status == Some(0)
    }

    /// It ended by itself, with an error.
    pub(crate) fn has_failed(&self) -> bool {
        self.status.is_some_and(|status| status != 0 && status != TIMED_OUT)
    }

    /// How it ended, in words.
    pub(crate) fn ending(&self) -> String {
        match self.status {
            Some(TIMED_OUT) => "did not end in time and was ended".to_owned(),
            Some(status) => format!("ended with status {status}"),
            None => "was ended by a signal".to_owned(),
        }
    }

    /// Standard output, line by line.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())
    }
}

/// Why a machine could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    #[error(transparent)]
    Ssh(#[from] SshError),
    #[error("{host}: cannot start a command")]
    Start { host: String, source: io::Error },
    #[error("{host}: `{command}` gave no answer within {limit_s} s; the connection may hang")]
    Silent { host: String, command: String, limit_s: u64 },
    #[error("{host}: the remote shell failed: {said}")]
    Shell { host: String, exit: u8, said: String },
    #[error("{host}: the connection ended before `{command}` did; what it did is not known")]
    Lost { host: String, command: String },
    #[error("stopped by a signal; `sync-client status` says where the migration stands")]
    Interrupted,
    #[error("{host}: cannot {what} {}: {said}", path.display())]
    File { host: String, what: &'static str, path: PathBuf, said: String },
}

impl HostError {
    /// The exit status.
    pub(crate) fn exit_code(&self) -> u8 {
        use protocol::stats::Exit;
        match self {
            HostError::Ssh(error) => error.exit_status(),
            HostError::Shell { exit, .. } => *exit,
            HostError::Start { .. } => Exit::StartUp.code(),
            HostError::Silent { .. } => Exit::Timeout.code(),
            HostError::Lost { .. } => Exit::Connection.code(),
            HostError::Interrupted => Exit::Interrupted.code(),
            HostError::File { .. } => Exit::FileIo.code(),
        }
    }
}

/// What stands under a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) is_dir: bool,
    pub(crate) len: u64,
}

/// A machine that steps work on.
pub(crate) trait Host: Send + Sync {
    /// As the operator knows it.
    fn name(&self) -> &str;

    /// Runs a command to its end, whatever its exit status.
    fn run(&self, command: &Command) -> Result<Ran, HostError>;

    /// A file's content; none where there is none.
    fn read_file(&self, path: &Path) -> Result<Option<Vec<u8>>, HostError> {
        const SCRIPT: &str = r#"[ -e "$1" ] || exit 66; head -c "$2" < "$1""#;
        let limit = (FILE_BYTES + 1).to_string();
        let ran = self.run(&Command::script(SCRIPT, [path.as_os_str(), OsStr::new(&limit)]))?;
        match ran.status {
            Some(66) => Ok(None),
            Some(0) if ran.stdout.len() as u64 <= FILE_BYTES => Ok(Some(ran.stdout)),
            Some(0) => Err(self.failed("read", path, b"it is too long for a configuration file")),
            _ => Err(self.failed("read", path, &ran.stderr)),
        }
    }

    /// What stands there, links followed; none where nothing does.
    fn stat(&self, path: &Path) -> Result<Option<Stat>, HostError> {
        const SCRIPT: &str = r#"[ -e "$1" ] || exit 66; stat -L -c '%F:%s' -- "$1""#;
        let ran = self.run(&Command::script(SCRIPT, [path.as_os_str()]))?;
        let text = String::from_utf8_lossy(&ran.stdout).into_owned();
        match (ran.status, text.trim().rsplit_once(':')) {
            (Some(66), _) => Ok(None),
            (Some(0), Some((kind, len))) => {
                Ok(Some(Stat { is_dir: kind == "directory", len: len.parse().unwrap_or(0) }))
            }
            _ => Err(self.failed("look at", path, &ran.stderr)),
        }
    }

    /// An error about one of its files.
    fn failed(&self, what: &'static str, path: &Path, said: &[u8]) -> HostError {
        let said = super::text::foreign(said);
        HostError::File { host: self.name().to_owned(), what, path: path.to_owned(), said }
    }
}

/// This machine, or one behind SSH.
pub(crate) struct Machine {
    name: String,
    way: Way,
    stop: Receiver<()>,
}

enum Way {
    Here,
    Ssh(Box<Access>),
}

struct Access {
    side: Side,
    connection: Connection,
    environment: Environment,
    /// The built-in client's, once there is one.
    line: Mutex<Option<SshConnection>>,
}

impl Access {
    /// Starts a command by the built-in client, over the connection of the commands before it.
    fn exec(&self, line: &[u8]) -> Result<Process, SshError> {
        let mut known = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has ended since says so before the command starts: nothing is run twice.
        if let Some(process) = known.as_ref().and_then(|known| known.exec(line).ok()) {
            return Ok(process);
        }
        let mut options = endpoint::ssh_options(&self.side, &self.connection, &self.environment);
        options.stderr = Arc::new(|_| {});
        known.insert(SshConnection::connect(&options)?).exec(line)
    }
}

impl Machine {
    /// This machine.
    pub(crate) fn here(name: &str, stop: &Receiver<()>) -> Machine {
        Machine { name: name.to_owned(), way: Way::Here, stop: stop.clone() }
    }

    /// One behind SSH; it is connected when it is first asked.
    pub(crate) fn behind(
        name: &str,
        ssh: &Ssh,
        environment: &Environment,
        stop: &Receiver<()>,
    ) -> Result<Machine, job::UsageError> {
        let (side, connection) = reach(ssh)?;
        let access = Access { side, connection, environment: environment.clone(), line: Mutex::new(None) };
        Ok(Machine { name: name.to_owned(), way: Way::Ssh(Box::new(access)), stop: stop.clone() })
    }

    fn start(&self, line: &[u8]) -> Result<Process, HostError> {
        let start = |words: &[OsString]| {
            let started = system::spawn(words, Arc::new(|_| {}));
            started.map_err(|source| HostError::Start { host: self.name.clone(), source })
        };
        match &self.way {
            Way::Here => {
                start(&[OsString::from("/bin/sh"), OsString::from("-c"), OsString::from_vec(line.to_vec())])
            }
            Way::Ssh(access) => match &access.connection.program {
                Some(program) => {
                    let family = access.connection.family;
                    start(&endpoint::shell_words(program, &access.side, family, &[line]))
                }
                None => Ok(access.exec(line)?),
            },
        }
    }

    /// Waits for the end, the operator's stop, or the time.
    fn finish(&self, process: Process, command: &Command) -> Result<Ran, HostError> {
        let started = Instant::now();
        let limit = command.patience();
        let Process { reader, writer, outcome } = process;
        let (stdout, output_ends) = capture(reader, writer, command.input.clone());
        let _reader = self.wait_for_output(&output_ends, &outcome, command, started + limit)?;
        let ended = outcome.wait(limit.saturating_sub(started.elapsed()).max(GRACE));
        let stderr = outcome.stderr_tail();
        let status = match ended {
            None => return Err(self.silent(command)),
            Some(Ended::Unknown) => {
                return Err(HostError::Lost { host: self.name.clone(), command: shown(command) });
            }
            Some(Ended::Signal(_)) => None,
            Some(ended @ Ended::Status(status)) => {
                if let (true, Some(exit)) = (self.is_program(), system::exit_status(&ended, &stderr)) {
                    let said = super::text::foreign(&stderr);
                    return Err(HostError::Shell { host: self.name.clone(), exit, said });
                }
                Some(status)
            }
        };
        let stdout = std::mem::take(&mut *stdout.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Ran { status, stdout, stderr, elapsed_s: started.elapsed().as_secs_f64() })
    }

    /// Until all output came, or no more is waited for.
    fn wait_for_output(
        &self,
        output_ends: &Receiver<Reader>,
        outcome: &ProcessOutcome,
        command: &Command,
        mut until: Instant,
    ) -> Result<Option<Reader>, HostError> {
        let never = crossbeam_channel::never();
        let stop = if command.is_awaited { &never } else { &self.stop };
        let mut has_ended = false;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            crossbeam_channel::select! {
                recv(output_ends) -> reader => return Ok(reader.ok()),
                recv(stop) -> _ => {
                    outcome.kill();
                    return Err(HostError::Interrupted);
                }
                default(if command.is_outlived { left.min(LOOK) } else { left }) => {}
            }
            if command.is_outlived && !has_ended && outcome.wait(Duration::ZERO).is_some() {
                (has_ended, until) = (true, until.min(Instant::now() + LINGER));
            }
            if Instant::now() < until {
                continue;
            }
            if has_ended {
                return Ok(None);
            }
            outcome.kill();
            return Err(self.silent(command));
        }
    }

    fn is_program(&self) -> bool {
        matches!(&self.way, Way::Ssh(access) if access.connection.program.is_some())
    }

    fn silent(&self, command: &Command) -> HostError {
        let limit_s = u64::from(command.limit_s) + GRACE.as_secs();
        HostError::Silent { host: self.name.clone(), command: shown(command), limit_s }
    }
}

type Reader = Box<dyn Read + Send>;

/// Feeds a command and keeps what it prints, on a thread of its own. Gives what came so far, and the reader when all came: a
/// channel whose both sides are dropped is closed before it tells the exit status.
fn capture(
    mut reader: Reader,
    mut writer: Box<dyn Write + Send>,
    input: Vec<u8>,
) -> (Arc<Mutex<Vec<u8>>>, Receiver<Reader>) {
    let (ended, ends) = crossbeam_channel::bounded(1);
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeping = Arc::clone(&kept);
    std::thread::spawn(move || {
        // Who reads not all of its input ends for a reason of its own, which its exit status tells.
        let _ = writer.write_all(&input).and_then(|()| writer.flush());
        drop(writer);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(len) if len > 0 => {
                    let mut kept = keeping.lock().unwrap_or_else(PoisonError::into_inner);
                    let room = CAPTURED_BYTES - kept.len();
                    kept.extend_from_slice(&buffer[..len.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        let _ = ended.send(reader);
    });
    (kept, ends)
}

/// The first words of a command, for a message.
fn shown(command: &Command) -> String {
    let words: Vec<_> = command.words.iter().take(3).map(|word| word.to_string_lossy()).collect();
    let line = words.join(" ");
    line.lines().next().unwrap_or_default().chars().take(60).collect()
}

impl Host for Machine {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, command: &Command) -> Result<Ran, HostError> {
        self.finish(self.start(&command.line())?, command)
    }
}

/// A plan's access to a host, as `sync` takes it. The side has no path yet.
pub(crate) fn reach(ssh: &Ssh) -> Result<(Side, Connection), job::UsageError> {
    let host = location::Host {
        user: ssh.user.as_ref().map(|user| user.as_str().to_owned()),
        name: ssh.host.as_str().to_owned(),
        port: ssh.port,
    };
    let connection = Connection {
        identities: ssh.identities.clone(),
        known_hosts: ssh.known_hosts.clone(),
        pinned: ssh.host_key.clone(),
        accept_new: ssh.accept_new,
        agent: ssh.agent.clone().into_bytes(),
        timeout_s: ssh.timeout_s,
        ..Connection::default()
    };
    let connection = job::through(connection, &ssh.command, false)?;
    Ok((Side { host: Some(host), paths: Vec::new() }, connection))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn here() -> Machine {
        Machine::here("here", &crossbeam_channel::never())
    }

    #[test]
    fn any_word_arrives_as_it_is() {
        let words =
            ["", "a b", "it's", "$HOME `id` \\ \"x\" *", "-n", "new\nline", "ä€", "'", "a;b|c&d<e>f(g)"];
        let ran = here().run(&Command::script(r#"for word; do printf '%s\0' "$word"; done"#, words)).unwrap();
        let expected: Vec<u8> = words.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
        assert_eq!((ran.status, ran.stdout), (Some(0), expected));
    }

    #[test]
    fn a_command_runs_where_it_should_and_tells_how_it_ended() {
        let place = tempfile::tempdir().unwrap();
        let odd = place.path().join("it's a $place");
        fs::create_dir(&odd).unwrap();
        // The platform's scripts begin with a space or with no interpreter at all.
        fs::write(
            odd.join("run core"),
            " #!/usr/bin/env bash\n[[ $1 == up ]] && pwd && echo no >&2 && exit 3\n",
        )
        .unwrap();
        let ran = here().run(&Command::new(["bash", "run core", "up"]).within(&odd)).unwrap();
        assert_eq!(ran.stdout.trim_ascii(), odd.as_os_str().as_bytes());
        assert_eq!((ran.status, &*ran.stderr), (Some(3), &b"no\n"[..]));
        let nowhere = here().run(&Command::new(["true"]).within(&odd.join("nowhere"))).unwrap();
        assert!(!nowhere.is_success());
    }

    #[test]
    fn a_command_that_takes_too_long_is_ended_with_what_it_started() {
        let ran = here().run(&Command::new(["sleep", "100"]).limited(1)).unwrap();
        assert_eq!(ran.ending(), "did not end in time and was ended");
        assert!(ran.elapsed_s < 20.0);
    }

    #[test]
    fn what_changes_a_service_waits_for_what_a_killed_run_left_running() {
        let place = tempfile::tempdir().unwrap();
        let (begun, log) = (place.path().join("begun"), place.path().join("log"));
        let command = |line: &str| Command::new(["sh", "-c", line]).within(place.path()).awaited();
        let first = command("touch begun; sleep 0.5; echo first >> log");
        std::thread::scope(|scope| {
            scope.spawn(|| here().run(&first).unwrap());
            while !begun.exists() {
                std::thread::yield_now();
            }
            assert!(here().run(&command("echo second >> log")).unwrap().is_success());
        });
        assert_eq!(fs::read_to_string(log).unwrap(), "first\nsecond\n");
        // What a script leaves in the background is not waited for.
        let daemon = command("sleep 100 > /dev/null 2>&1 & echo $! > pid").limited(5);
        assert!(here().run(&daemon).unwrap().is_success());
        assert!(here().run(&command("kill $(cat pid)").limited(5)).unwrap().is_success());
    }

    #[test]
    fn what_a_command_leaves_behind_is_not_waited_for() {
        let none: [&str; 0] = [];
        let script = "sleep 20 & echo said; echo 'and this' >&2; exit 3";
        let ran = here().run(&Command::script(script, none).outlived()).unwrap();
        assert_eq!((ran.status, &*ran.stdout, &*ran.stderr), (Some(3), &b"said\n"[..], &b"and this\n"[..]));
        assert!(ran.elapsed_s < 15.0, "{ran:?}");
    }

    #[test]
    fn a_stopped_run_waits_for_no_command() {
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        drop(stop);
        let machine = Machine::here("here", &stopped);
        assert!(matches!(machine.run(&Command::new(["sleep", "100"])), Err(HostError::Interrupted)));
    }

    #[test]
    fn what_is_absent_is_no_error() {
        let place = tempfile::tempdir().unwrap();
        let absent = place.path().join("absent");
        assert_eq!(here().read_file(&absent).unwrap(), None);
        assert_eq!(here().stat(&absent).unwrap(), None);
        assert!(here().stat(place.path()).unwrap().unwrap().is_dir);
    }
}

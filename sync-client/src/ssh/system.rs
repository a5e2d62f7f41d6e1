//! A program of the operator's as the transport (`-e PROGRAM`, `--ssh=system`), as rsync starts one.
//!
//! The program's stdin and stdout are the session; its stderr is passed on and its end kept. An `-e` that
//! is plain `ssh` with options we know is not started at all: [`parse_ssh_command`] tells what it says, and
//! the built-in client does it.

use std::ffi::OsString;
use std::io::{self, BufWriter, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::{Exit, Process, ProcessOutcome, StderrSink};
use crate::child;

/// How big the pipes to and from the program are made, where the system allows.
const PIPE_BYTES: usize = 1 << 20;

/// Starts `program_and_args`; `stderr` gets what it says as it comes, on a thread of its own.
///
/// # Errors
/// When the list is empty or the program can't be started.
pub fn spawn(program_and_args: &[OsString], stderr: StderrSink) -> io::Result<Process> {
    let (program, args) = program_and_args
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no program to start"))?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child::spawn(&mut command)?;
    let missing = || io::Error::other("the program has no pipes");
    let stdin = child.stdin.take().ok_or_else(missing)?;
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let child_stderr = child.stderr.take().ok_or_else(missing)?;
    // Bigger pipes only save switches; a refusal (a user's limit on pipe pages) does no harm.
    let _ = rustix::pipe::fcntl_setpipe_size(&stdin, PIPE_BYTES);
    let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_BYTES);

    let child = Child { process: Arc::new(Mutex::new(Some(child))) };
    let outcome = ProcessOutcome { child: Some(child.clone()), ..ProcessOutcome::new() };
    watch(child, child_stderr, outcome.clone(), stderr)?;
    Ok(Process {
        reader: Box::new(stdout),
        writer: Box::new(BufWriter::with_capacity(256 << 10, stdin)),
        outcome,
    })
}

/// What a started program's end and stderr mean for us, in our own exit statuses.
///
/// OpenSSH exits with 255 for all its own failures; only its words tell them apart.
pub fn exit_status(exit: &Exit, stderr_tail: &[u8]) -> Option<u8> {
    if *exit != Exit::Status(255) {
        return None;
    }
    let words = String::from_utf8_lossy(stderr_tail);
    let says = |phrase: &str| words.contains(phrase);
    if says("Host key verification failed") || says("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        Some(41)
    } else if says("Permission denied") || says("Too many authentication failures") {
        Some(42)
    } else {
        Some(10)
    }
}

/// A started program that can be killed without hitting another that got its process id.
#[derive(Clone)]
pub(super) struct Child {
    process: Arc<Mutex<Option<std::process::Child>>>,
}

impl Child {
    pub(super) fn kill(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = process.as_mut() {
            // It has just ended: nothing left to kill.
            let _ = process.kill();
        }
    }

    /// Waits for the end without holding the lock, then collects the process under it.
    fn collect(&self) -> Option<ExitStatus> {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        let id = self.process.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.id();
        let pid = Pid::from_raw(i32::try_from(id).ok()?)?;
        while waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            .is_err_and(|error| error == rustix::io::Errno::INTR)
        {}
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.take()?.wait().ok()
    }
}

fn watch(
    child: Child,
    mut child_stderr: std::process::ChildStderr,
    outcome: ProcessOutcome,
    sink: StderrSink,
) -> io::Result<()> {
    let listener = outcome.clone();
    let listening = thread::Builder::new().name("ssh-stderr".to_owned()).spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            match child_stderr.read(&mut buffer) {
                Ok(0) => return,
                Ok(len) => listener.stderr(&buffer[..len], &*sink),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    })?;
    thread::Builder::new().name("ssh-wait".to_owned()).spawn(move || {
        let status = child.collect();
        // A grandchild (ControlPersist) may hold stderr open: its last words get a moment, not for ever.
        let patience = std::time::Instant::now() + std::time::Duration::from_millis(500);
        while !listening.is_finished() && std::time::Instant::now() < patience {
            thread::sleep(std::time::Duration::from_millis(5));
        }
        if let Some(status) = status {
            outcome.exited(match (status.code(), status.signal()) {
                (Some(code), _) => Exit::Status(u32::try_from(code).unwrap_or(255)),
                (None, Some(signal)) => Exit::Signal(signal.to_string()),
                (None, None) => Exit::Unknown,
            });
        }
        outcome.over();
    })?;
    Ok(())
}

/// What `-e 'ssh …'` says. Paths are as typed: a leading `~/` is for the program to resolve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SshArgs {
    /// `-i`, `IdentityFile`.
    pub identities: Vec<PathBuf>,
    /// `-p`, `Port`.
    pub port: Option<u16>,
    /// `-l`, `User`.
    pub user: Option<String>,
    /// `UserKnownHostsFile`.
    pub known_hosts: Vec<PathBuf>,
    /// `StrictHostKeyChecking=accept-new` (true) or `=yes` (false).
    pub accept_new: Option<bool>,
    /// `ConnectTimeout`, in seconds.
    pub connect_timeout_s: Option<u64>,
    /// `IdentitiesOnly=yes`.
    pub identities_only: bool,
    /// `BatchMode=yes`: never ask for a passphrase.
    pub batch: bool,
}

/// Understands `ssh` with the options of [`SshArgs`]; none for any other program or option, which the
/// caller then starts as it is (so it also serves `StrictHostKeyChecking=no` and `~/.ssh/config`).
pub fn parse_ssh_command(command: &str) -> Option<SshArgs> {
    let words = split_words(command)?;
    let mut words = words.iter().map(String::as_str);
    if words.next()? != "ssh" {
        return None;
    }
    let mut args = SshArgs::default();
    while let Some(word) = words.next() {
        let flag = word.get(..2)?;
        if matches!(word, "-T" | "-x" | "-a") {
            continue;
        }
        let attached = &word[2..];
        let mut value = || if attached.is_empty() { words.next() } else { Some(attached) };
        match flag {
            "-i" => args.identities.push(path(value()?)?),
            "-p" => set(&mut args.port, number(value()?)?),
            "-l" => set(&mut args.user, value()?.to_owned()),
            "-o" => option(&mut args, value()?)?,
            _ => return None,
        }
    }
    Some(args)
}

/// rsync's rules: words end at spaces; single and double quotes keep them, doubled inside they stand for
/// themselves; a backslash is nothing special. None when a quote is left open.
///
/// # Source
/// rsync(1), `--rsh`.
pub fn split_words(command: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = command.chars().peekable();
    while let Some(char) = chars.next() {
        match quote {
            Some(open) if char == open => {
                if chars.next_if_eq(&open).is_some() {
                    word.get_or_insert_default().push(open);
                } else {
                    quote = None;
                }
            }
            None if char == '\'' || char == '"' => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            None if char == ' ' || char == '\t' => words.extend(word.take()),
            _ => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// As with ssh, the first value of an option counts.
fn set<T>(slot: &mut Option<T>, value: T) {
    slot.get_or_insert(value);
}

/// `%` starts ssh's own tokens, `$` its variables; none of them is ours to expand.
fn path(text: &str) -> Option<PathBuf> {
    let plain = !text.is_empty() && !text.contains(['%', '$']) && text != "none";
    plain.then(|| PathBuf::from(text))
}

fn number<T: std::str::FromStr + PartialOrd + Default>(text: &str) -> Option<T> {
    text.parse().ok().filter(|number| *number > T::default())
}

fn option(args: &mut SshArgs, text: &str) -> Option<()> {
    let end = text.find(['=', ' ', '\t'])?;
    let name = text[..end].to_ascii_lowercase();
    let value = text[end..].trim_start_matches([' ', '\t']);
    let value = value.strip_prefix('=').unwrap_or(value).trim_matches([' ', '\t']);
    if value.is_empty() || value.contains('"') {
        return None;
    }
    match (name.as_str(), value.to_ascii_lowercase().as_str()) {
        ("identityfile", _) => args.identities.push(path(value)?),
        ("port", _) => set(&mut args.port, number(value)?),
        ("user", _) => set(&mut args.user, value.to_owned()),
        ("userknownhostsfile", _) if args.known_hosts.is_empty() => {
            args.known_hosts = value.split([' ', '\t']).map(path).collect::<Option<_>>()?;
        }
        ("userknownhostsfile", _) => {}
        ("stricthostkeychecking", "yes" | "true") => set(&mut args.accept_new, false),
        ("stricthostkeychecking", "accept-new") => set(&mut args.accept_new, true),
        ("connecttimeout", _) => set(&mut args.connect_timeout_s, number(value)?),
        ("identitiesonly", "yes" | "true") => args.identities_only = true,
        ("batchmode", "yes" | "true") => args.batch = true,
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_commands_are_understood_or_left_alone() {
        let with = |change: &dyn Fn(&mut SshArgs)| {
            let mut args = SshArgs::default();
            change(&mut args);
            Some(args)
        };
        let key = |path: &'static str| with(&move |args| args.identities = vec![path.into()]);
        let cases = [
            ("ssh", with(&|_| {})),
            ("ssh -i KEY", key("KEY")),
            ("ssh  -iKEY ", key("KEY")),
            ("ssh -i '/a b/k'", key("/a b/k")),
            ("ssh -i \"/a b/k\"", key("/a b/k")),
            ("ssh -i /a' 'b/k", key("/a b/k")),
            ("ssh -i 'it''s'", key("it's")),
            ("ssh -i ~/.ssh/k", key("~/.ssh/k")),
            ("ssh -o IdentityFile=/k", key("/k")),
            ("ssh -oidentityfile=/k -T -x -a", key("/k")),
            ("ssh -o 'IdentityFile /k'", key("/k")),
            ("ssh -o 'IdentityFile = /k'", key("/k")),
            ("ssh -i a -i b", with(&|args| args.identities = vec!["a".into(), "b".into()])),
            ("ssh -p 2222 -l me", with(&|args| (args.port, args.user) = (Some(2222), Some("me".into())))),
            ("ssh -p2222 -p 1", with(&|args| args.port = Some(2222))),
            (
                "ssh -o Port=22 -o User=root",
                with(&|args| (args.port, args.user) = (Some(22), Some("root".into()))),
            ),
            (
                "ssh -o 'UserKnownHostsFile=/a /b'",
                with(&|args| args.known_hosts = vec!["/a".into(), "/b".into()]),
            ),
            ("ssh -o StrictHostKeyChecking=yes", with(&|args| args.accept_new = Some(false))),
            ("ssh -o StrictHostKeyChecking=accept-new", with(&|args| args.accept_new = Some(true))),
            ("ssh -o ConnectTimeout=7", with(&|args| args.connect_timeout_s = Some(7))),
            (
                "ssh -o IdentitiesOnly=yes -o BatchMode=yes",
                with(&|args| {
                    (args.identities_only, args.batch) = (true, true);
                }),
            ),
            ("ssh -o StrictHostKeyChecking=no", None),
            ("ssh -o ProxyJump=x", None),
            ("ssh -J x", None),
            ("ssh -v", None),
            ("ssh -Tv", None),
            ("ssh -F /c", None),
            ("ssh -i", None),
            ("ssh -p 0", None),
            ("ssh -p 99999", None),
            ("ssh -p x", None),
            ("ssh -o Port", None),
            ("ssh -o Port=", None),
            ("ssh -i %d/k", None),
            ("ssh -i '", None),
            ("ssh host", None),
            ("ssh é", None),
            ("ssh -", None),
            ("/usr/bin/ssh -i k", None),
            ("rsh", None),
            ("", None),
            ("   ", None),
        ];
        for (command, expected) in cases {
            assert_eq!(parse_ssh_command(command), expected, "{command}");
        }
    }

    #[test]
    fn the_words_of_openssh_choose_the_exit_status() {
        let cases = [
            (Exit::Status(255), "Host key verification failed.\r\n", Some(41)),
            (Exit::Status(255), "me@h: Permission denied (publickey).", Some(42)),
            (Exit::Status(255), "ssh: connect to host h port 22: Connection refused", Some(10)),
            (Exit::Status(12), "Permission denied", None),
            (Exit::Signal("9".to_owned()), "", None),
        ];
        for (exit, words, expected) in cases {
            assert_eq!(exit_status(&exit, words.as_bytes()), expected, "{words}");
        }
    }

    #[test]
    fn a_program_is_a_pair_of_pipes_with_an_end() {
        use std::io::Write;
        use std::time::Duration;
        let args = ["sh", "-c", "cat; echo last words >&2; exit 7"].map(OsString::from);
        let said = Arc::new(Mutex::new(Vec::<u8>::new()));
        let sink = Arc::clone(&said);
        let mut process =
            spawn(&args, Arc::new(move |bytes| sink.lock().expect("not poisoned").extend(bytes)))
                .expect("started");
        process.writer.write_all(b"there and back").expect("written");
        drop(process.writer);
        let mut text = String::new();
        process.reader.read_to_string(&mut text).expect("read");
        assert_eq!(text, "there and back");
        assert_eq!(process.outcome.wait(Duration::from_secs(10)), Some(Exit::Status(7)));
        assert_eq!(process.outcome.stderr_tail(), b"last words\n");
        assert_eq!(*said.lock().expect("not poisoned"), b"last words\n");
    }

    #[test]
    fn a_program_that_hangs_can_be_killed() {
        use std::time::Duration;
        let process = spawn(&["sleep", "100"].map(OsString::from), Arc::new(|_| {})).expect("started");
        assert_eq!(process.outcome.wait(Duration::from_millis(10)), None);
        process.outcome.kill();
        assert_eq!(process.outcome.wait(Duration::from_secs(10)), Some(Exit::Signal("9".to_owned())));
    }
}

//! Programs that a test starts: what they print is collected, they have a deadline, and none outlives its test.
//!
//! Waiting is by pidfd and condition variable, never by a guessed time.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
pub use rustix::process::Signal;
use rustix::process::{Pid, PidfdFlags, kill_process, pidfd_open};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a program may take where a test names no deadline: `SYNC_TEST_DEADLINE_S`, or 120 s.
#[must_use]
pub fn deadline() -> Duration {
    let given = std::env::var("SYNC_TEST_DEADLINE_S").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(120))
}

/// Asks again and again until `condition` gives something.
///
/// # Panics
/// With `what`, when `limit` has passed.
pub fn until<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "after {limit:?} still no: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A program that has ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The line that was run, for messages.
    pub line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to standard output.
    pub stdout: Vec<u8>,
    /// All it wrote to standard error.
    pub stderr: Vec<u8>,
    /// From start to end.
    pub elapsed: Duration,
}

impl Output {
    /// The exit status; a signal counts as 128 and its number, as in a shell.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Itself, if it ended with 0.
    ///
    /// # Panics
    /// With all it printed, if it did not.
    #[track_caller]
    pub fn success(&self) -> &Output {
        self.expect_code(0)
    }

    /// Itself, if it ended with this status.
    ///
    /// # Panics
    /// With all it printed, if it did not.
    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &Output {
        self.expect_code_in(&[code])
    }

    /// Itself, if it ended with one of these.
    ///
    /// # Panics
    /// With all it printed, if it did not.
    #[track_caller]
    pub fn expect_code_in(&self, codes: &[i32]) -> &Output {
        assert!(codes.contains(&self.code()), "exit status {} where {codes:?} was due\n{self}", self.code());
        self
    }

    /// Itself, if its standard error holds `text`.
    ///
    /// # Panics
    /// With all it printed, if it does not.
    #[track_caller]
    pub fn expect_stderr(&self, text: &str) -> &Output {
        assert!(self.stderr_text().contains(text), "{text:?} is not in the message\n{self}");
        self
    }

    /// Standard output as text, what is not UTF-8 replaced.
    #[must_use]
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text, what is not UTF-8 replaced.
    #[must_use]
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// rsync's itemized lines of standard output (`>f+++++++++ name`, `*deleting   name`), sorted.
    #[must_use]
    pub fn itemized(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.stdout_text().lines().filter(|line| is_itemized(line)).map(String::from).collect();
        lines.sort();
        lines
    }

    /// The last line of a `--json` run.
    ///
    /// # Panics
    /// With all it printed, where that is no summary.
    #[must_use]
    #[track_caller]
    pub fn summary(&self) -> serde_json::Value {
        let text = self.stdout_text();
        let last = text.lines().last().unwrap_or_default();
        match serde_json::from_str::<serde_json::Value>(last) {
            Ok(value) if value["event"] == "summary" => value,
            _ => panic!("the last line is no JSON summary\n{self}"),
        }
    }

    /// One number of the `--json` summary.
    ///
    /// # Panics
    /// With all it printed, where there is no such number.
    #[must_use]
    #[track_caller]
    pub fn summary_number(&self, name: &str) -> u64 {
        self.summary()[name].as_u64().unwrap_or_else(|| panic!("the summary has no number {name:?}\n{self}"))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "$ {}\n{} after {:?}", self.line, self.status, self.elapsed)?;
        writeln!(f, "--- stdout\n{}", cut(&self.stdout_text()))?;
        write!(f, "--- stderr\n{}", cut(&self.stderr_text()))
    }
}

/// The start and the end of a long text.
fn cut(text: &str) -> String {
    const EACH_LINES: usize = 100;
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= 2 * EACH_LINES {
        return text.to_owned();
    }
    let (head, tail) = (&lines[..EACH_LINES], &lines[lines.len() - EACH_LINES..]);
    format!("{}\n… {} lines …\n{}", head.join("\n"), lines.len() - 2 * EACH_LINES, tail.join("\n"))
}

fn is_itemized(line: &str) -> bool {
    let bytes = line.as_bytes();
    line.starts_with("*deleting ")
        || (bytes.len() > 12
            && b"<>ch.".contains(&bytes[0])
            && b"fdLDS".contains(&bytes[1])
            && bytes[11] == b' ')
}

/// What a pipe has given so far.
#[derive(Debug, Default)]
struct Collected {
    bytes: Mutex<(Vec<u8>, bool)>,
    more: Condvar,
}

impl Collected {
    fn start(mut pipe: impl Read + Send + 'static) -> Arc<Collected> {
        let collected = Arc::new(Collected::default());
        let filled = Arc::clone(&collected);
        thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            loop {
                let len = pipe.read(&mut buffer).unwrap_or(0);
                let mut state = filled.lock();
                state.0.extend_from_slice(&buffer[..len]);
                state.1 = len == 0;
                filled.more.notify_all();
                if len == 0 {
                    break;
                }
            }
        });
        collected
    }

    fn lock(&self) -> MutexGuard<'_, (Vec<u8>, bool)> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `found` finds something, the pipe is closed, or the time is over.
    fn wait<T>(&self, limit: Duration, found: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if let Some(value) = found(&state.0) {
                return Some(value);
            }
            let left = end.saturating_duration_since(Instant::now());
            if state.1 || left.is_zero() {
                return None;
            }
            state = self.more.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.lock().0.clone()
    }
}

/// A program that runs; ended with all its descendants when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    line: String,
    started: Instant,
    stdout: Arc<Collected>,
    stderr: Arc<Collected>,
}

impl Running {
    /// Starts it, with nothing on its standard input.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn start(command: Command) -> Running {
        Running::start_with(command, Stdio::null())
    }

    /// Starts it with a standard input that says nothing, and ends when this does.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn start_held(command: Command) -> Running {
        Running::start_with(command, Stdio::piped())
    }

    fn start_with(mut command: Command, input: Stdio) -> Running {
        let line = shown(&command);
        let started = Instant::now();
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
        let stdout = Collected::start(child.stdout.take().expect("it is piped"));
        let stderr = Collected::start(child.stderr.take().expect("it is piped"));
        Running { child, line, started, stdout, stderr }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it ended before `limit` had passed.
    #[must_use]
    pub fn ended_within(&mut self, limit: Duration) -> bool {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return true;
        }
        let handle =
            pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).expect("it is not yet reaped");
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let time = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&time)) {
                Ok(ready) => return ready > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("poll: {error}"),
            }
        }
    }

    /// Waits for its end, at most [`deadline`].
    ///
    /// # Panics
    /// With all it printed, when it takes longer.
    #[must_use]
    pub fn wait(self) -> Output {
        self.wait_within(deadline())
    }

    /// Waits for its end, at most `limit`.
    ///
    /// # Panics
    /// With all it printed, when it takes longer.
    #[must_use]
    pub fn wait_within(mut self, limit: Duration) -> Output {
        let ended = self.ended_within(limit);
        if !ended {
            end_tree(self.child.id());
        }
        let status = self.child.wait().expect("it is this process's child");
        let elapsed = self.started.elapsed();
        // A descendant may hold the pipe open; what it writes later is not this program's.
        for pipe in [&self.stdout, &self.stderr] {
            pipe.wait(Duration::from_secs(5), |_| None::<()>);
        }
        let (stdout, stderr) = (self.stdout.bytes(), self.stderr.bytes());
        let output = Output { line: self.line.clone(), status, stdout, stderr, elapsed };
        assert!(ended, "did not end within {limit:?}\n{output}");
        output
    }

    /// Waits until its standard output holds what `found` looks for.
    ///
    /// # Panics
    /// With all it printed, when that does not come within `limit` or it ends before.
    pub fn wait_for<T>(&self, limit: Duration, what: &str, found: impl Fn(&str) -> Option<T>) -> T {
        let value = self.stdout.wait(limit, |bytes| found(&String::from_utf8_lossy(bytes)));
        value.unwrap_or_else(|| {
            panic!("within {limit:?} {} did not print {what}\n{}", self.line, self.printed())
        })
    }

    /// All it has printed so far, standard output before standard error.
    #[must_use]
    pub fn printed(&self) -> String {
        let text = [self.stdout.bytes(), self.stderr.bytes()].concat();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Sends a signal to this process alone.
    pub fn signal(&mut self, signal: Signal) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// `kill -9` of this process alone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            end_tree(self.child.id());
            let _ = self.child.wait();
        }
    }
}

/// Runs a program to its end, at most [`deadline`].
///
/// # Panics
/// Where it cannot be started or takes longer.
#[must_use]
pub fn run(command: Command) -> Output {
    Running::start(command).wait()
}

/// The command as an operator could paste it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = words.map(|word| {
        let text = word.to_string_lossy();
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=@,%+".contains(&byte));
        if plain && !text.is_empty() {
            text.into_owned()
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The processes below `root`, itself not among them, parents before children.
#[must_use]
pub fn descendants(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(parent) = parent(id) {
            children.entry(parent).or_default().push(id);
        }
    }
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        for &child in children.get(&id).into_iter().flatten() {
            found.push(child);
            open.push(child);
        }
    }
    found
}

fn parent(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name between parentheses may hold anything; the state and the parent follow the last one.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    if state == "Z" { None } else { fields.next()?.parse().ok() }
}

/// The descendants of `root` that run the program of this name (its first 15 bytes).
#[must_use]
pub fn descendants_named(root: u32, name: &str) -> Vec<u32> {
    descendants(root).into_iter().filter(|&id| is_named(id, name)).collect()
}

/// The topmost process that runs the program of this name: `root`, or one below it that it was started through. What that one
/// forks has its name too, until it runs another program.
#[must_use]
pub fn topmost_named(root: u32, name: &str) -> Option<u32> {
    std::iter::once(root).chain(descendants(root)).find(|&id| is_named(id, name))
}

fn is_named(id: u32, name: &str) -> bool {
    let short = &name[..name.len().min(15)];
    fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim_end() == short)
}

/// Sends a signal to a process that a test started, by its id.
pub fn signal(id: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(id as i32) {
        let _ = kill_process(pid, signal);
    }
}

/// Ends a process and all below it; those of an sshd are in sessions of their own, so a group would miss them.
fn end_tree(root: u32) {
    // Stopped first, so that it cannot have another child meanwhile.
    signal(root, Signal::STOP);
    let below = descendants(root);
    signal(root, Signal::KILL);
    for id in below {
        signal(id, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_status_are_collected() {
        let output = run(shell("echo one; echo two >&2; exit 7"));
        assert_eq!((output.code(), &*output.stdout, &*output.stderr), (7, &b"one\n"[..], &b"two\n"[..]));
        output.expect_code(7).expect_stderr("two");
    }

    #[test]
    #[should_panic(expected = "exit status 3 where [0] was due")]
    fn an_unexpected_status_panics() {
        run(shell("exit 3")).success();
    }

    #[test]
    #[should_panic(expected = "did not end within")]
    fn a_program_over_its_deadline_is_ended() {
        let _ = Running::start(shell("echo begun; sleep 1000")).wait_within(Duration::from_millis(100));
    }

    #[test]
    fn a_dropped_program_takes_its_descendants_along() {
        let running = Running::start(shell("setsid sh -c 'echo begun $$; sleep 1000; :' & wait"));
        let below: u32 = running.wait_for(Duration::from_secs(10), "its child's id", |text| {
            text.strip_prefix("begun ")?.strip_suffix('\n')?.parse().ok()
        });
        assert!(descendants(running.id()).contains(&below));
        drop(running);
        until(Duration::from_secs(10), "end of the child", || parent(below).is_none().then_some(()));
    }

    #[test]
    fn itemized_lines_are_told_from_others() {
        for line in
            [">f+++++++++ name", "*deleting   name", ".d..t...... ./", "cL+++++++++ a -> b", "<f.st...... x"]
        {
            assert!(is_itemized(line), "{line}");
        }
        for line in ["sending incremental file list", "", "created directory /x/y", "total size is 3"] {
            assert!(!is_itemized(line), "{line}");
        }
    }
}

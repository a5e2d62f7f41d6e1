//! What a report says of the machine and the programs: enough to compare runs, nothing that names a host.

use crate::programs::Programs;
use serde::Serialize;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use tests::requirement::installed;

/// Where and with what a run was made.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// When it began, in UTC.
    pub date: String,
    /// Kernel release.
    pub kernel: String,
    /// Processor model.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// File system under the trees.
    pub file_system: String,
    /// rsync's version.
    pub rsync: String,
    /// OpenSSH's version.
    pub ssh: String,
    /// Our version.
    pub ours: String,
}

impl Machine {
    /// As it is now; trees are in `directory`.
    #[must_use]
    pub fn look(programs: &Programs, directory: &Path) -> Machine {
        Machine {
            date: first_line("date", ["-u", "+%Y-%m-%d %H:%M UTC"]),
            kernel: first_line("uname", ["-sr"]),
            processor: field("/proc/cpuinfo", "model name"),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory_mib(),
            file_system: first_line(
                "stat",
                ["-f".as_ref(), "-c".as_ref(), "%T".as_ref(), directory.as_os_str()],
            ),
            rsync: first_line(installed("rsync"), ["--version"]),
            ssh: first_line(installed("ssh"), ["-V"]),
            ours: format!("{}{}", first_line(programs.client(), ["--version"]), revision()),
        }
    }
}

/// Where the workspace is a git repository, the commit.
fn revision() -> String {
    let revision = first_line("git", ["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]);
    let is_hash = revision.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if is_hash && !revision.contains(' ') { format!(", commit {revision}") } else { String::new() }
}

/// The first line that a program prints, wherever it prints it; empty where it cannot be started.
fn first_line<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = A>) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else { return String::new() };
    let text =
        String::from_utf8_lossy(if output.stdout.is_empty() { &output.stderr } else { &output.stdout });
    text.lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The value of the first `NAME : VALUE` line of a file in `/proc`.
fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}

fn memory_mib() -> u64 {
    let kib = field("/proc/meminfo", "MemTotal");
    kib.split_ascii_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

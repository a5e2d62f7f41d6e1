//! The peak resident memory of one process, by `tools/peak.py` (ru_maxrss of wait4).

use crate::process::{Output, run, until};
use crate::requirement::{installed, tool};
use crate::sandbox::Sandbox;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Runs `command` to its end; also gives its peak, in bytes.
///
/// # Panics
/// Where it cannot be started or takes too long.
#[must_use]
pub fn of(sandbox: &Sandbox, command: &Command) -> (Output, u64) {
    let file = tempfile::Builder::new().prefix("peak-").tempfile_in(sandbox.path()).expect("a new file");
    let mut measured = sandbox.command(installed("python3"));
    measured.arg(tool("peak.py")).arg(file.path()).arg(command.get_program()).args(command.get_args());
    let output = run(measured);
    (output, read_last(file.path()))
}

/// A script that stands for `agent` and appends its peak to `file` when it has ended.
#[must_use]
pub fn agent_script(agent: &Path, file: &Path) -> String {
    let (python, script) = (installed("python3"), tool("peak.py"));
    format!(
        "#!/bin/sh\nexec '{}' '{}' '{}' '{}' \"$@\"\n",
        python.display(),
        script.display(),
        file.display(),
        agent.display()
    )
}

/// The peak of the last run that was measured into `file`, in bytes; waits for a run that is just ending.
///
/// # Panics
/// Where none comes within 30 s.
#[must_use]
pub fn read_last(file: &Path) -> u64 {
    until(Duration::from_secs(30), "a measured peak", || {
        let text = fs::read_to_string(file).ok()?;
        let kib: u64 = text.strip_suffix('\n')?.lines().last()?.parse().ok()?;
        Some(kib * 1024)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_held_is_seen_and_the_status_kept() {
        crate::require!("python3");
        let sandbox = Sandbox::new();
        let mut command = Command::new(installed("python3"));
        command.args(["-c", "b = bytearray(b'x') * (100 << 20); raise SystemExit(5)"]);
        let (output, peak_bytes) = of(&sandbox, &command);
        output.expect_code(5);
        assert!((100 << 20..200 << 20).contains(&peak_bytes), "{peak_bytes}");
    }
}

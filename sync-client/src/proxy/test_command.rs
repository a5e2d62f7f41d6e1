//! Runs the operator's test of a configuration, which may hang or be stopped.

use crate::child;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// `nginx -t` takes milliseconds, unless it waits for DNS.
const LONGEST: Duration = Duration::from_secs(120);

/// Why the test is not passed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Status(ExitStatus),
    #[error("it can't be run: {0}")]
    Start(#[from] io::Error),
    #[error("no end after {} s", LONGEST.as_secs())]
    Timeout,
    #[error("stopped by a signal")]
    Stopped,
}

/// Runs it in a shell; what it prints goes to standard error, so that `--json` stays readable.
pub(super) fn run(command: &OsStr, stop: &Receiver<()>) -> Result<(), Failure> {
    let mut shell = Command::new("/bin/sh");
    let errors = || io::stderr().as_fd().try_clone_to_owned();
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(errors()?).stderr(errors()?);
    // A group of its own: Ctrl-C is for this process, which then ends all of it and puts the old file back.
    let mut child = child::spawn(shell.process_group(0))?;
    let end = Instant::now() + LONGEST;
    loop {
        if let Some(status) = child.try_wait()? {
            return if status.success() { Ok(()) } else { Err(Failure::Status(status)) };
        }
        let is_stopped = stop.recv_timeout(Duration::from_millis(20)) != Err(RecvTimeoutError::Timeout);
        if is_stopped || Instant::now() >= end {
            end_group(&mut child);
            return Err(if is_stopped { Failure::Stopped } else { Failure::Timeout });
        }
    }
}

fn end_group(child: &mut Child) {
    // Not yet waited for, so the number is still this child's.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let _ = child.wait();
}

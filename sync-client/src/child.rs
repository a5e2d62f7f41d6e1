//! Programs that this one starts: they have the operator's umask, though this process runs with none.

use rustix::fs::Mode;
use rustix::process::umask;
use std::io;
use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock, PoisonError};

static OPERATOR: OnceLock<Mode> = OnceLock::new();
static SPAWNING: Mutex<()> = Mutex::new(());

/// From now on this process has no umask, and the programs that it starts have the one that it had; returns that.
#[must_use]
pub fn keep_umask() -> u16 {
    let operator = umask(Mode::empty());
    OPERATOR.get_or_init(|| operator).as_raw_mode() as u16 & 0o777
}

/// Starts a program.
///
/// # Errors
/// The system's.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let Some(&operator) = OPERATOR.get() else { return command.spawn() };
    let _alone = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
    // What another thread makes in this moment gets less than it asked for, never more.
    umask(operator);
    let spawned = command.spawn();
    umask(Mode::empty());
    spawned
}

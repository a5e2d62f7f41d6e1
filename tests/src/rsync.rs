//! The installed rsync, to stand beside.

use crate::process::{self, Output};
use crate::requirement::installed;
use crate::sandbox::Sandbox;
use std::ffi::OsStr;

/// Runs rsync with these arguments, in the sandbox's clean environment.
///
/// # Panics
/// Where it is not installed or takes too long.
#[must_use]
pub fn run<A: AsRef<OsStr>>(sandbox: &Sandbox, arguments: impl IntoIterator<Item = A>) -> Output {
    let mut command = sandbox.command(installed("rsync"));
    command.args(arguments);
    process::run(command)
}

//! A small file system of a test's own. Only root can mount one.

use crate::process::run;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs; unmounted when dropped.
#[derive(Debug)]
pub struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    /// Mounts one of that size over the directory `path`.
    ///
    /// # Panics
    /// Where that fails.
    #[must_use]
    pub fn mount(path: &Path, size_bytes: u64) -> Tmpfs {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size_bytes}"), "tmpfs"]).arg(path);
        run(command).success();
        Tmpfs { path: path.to_owned() }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        // Lazily: a failed test may still have a program in it.
        command.arg("-l").arg(&self.path);
        let _ = run(command);
    }
}

//! A place of one test's own: directories, home, keys, known hosts; and the built programs, run from there.
//!
//! Programs get a clean environment, `PATH` and `HOME` alone, so that nothing of the operator's leaks in.

use crate::address::Address;
use crate::process::{self, Output, Running};
use crate::requirement::installed;
use std::env;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The path that programs get.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// A temporary directory with a home; removed when dropped.
#[derive(Debug)]
pub struct Sandbox {
    directory: TempDir,
}

impl Sandbox {
    /// Below `SYNC_TEST_DIR`, or in memory where `/dev/shm` is there, else in the system's temporary directory.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn new() -> Sandbox {
        let memory = Path::new("/dev/shm");
        let default = if memory.is_dir() { memory.to_owned() } else { env::temp_dir() };
        Sandbox::below(&chosen_or(default))
    }

    /// Below `SYNC_TEST_DIR`, or on the disk of the system's temporary directory: for what is too big for memory.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn on_disk() -> Sandbox {
        Sandbox::below(&chosen_or(env::temp_dir()))
    }

    /// Below `parent`.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn below(parent: &Path) -> Sandbox {
        let directory =
            tempfile::Builder::new().prefix("sync-test-").tempdir_in(parent).expect("a temporary directory");
        let sandbox = Sandbox { directory };
        for path in [sandbox.home(), sandbox.ssh(), sandbox.source(), sandbox.destination()] {
            fs::create_dir(&path).expect("a new directory");
        }
        fs::set_permissions(sandbox.ssh(), fs::Permissions::from_mode(0o700)).expect("the directory is ours");
        make_key(&sandbox.key(), "ed25519");
        write_private(&sandbox.known_hosts(), "");
        sandbox
    }

    /// Its root; all else is below.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// `HOME` of the programs.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.path().join("home")
    }

    fn ssh(&self) -> PathBuf {
        self.home().join(".ssh")
    }

    /// Where programs keep what outlives a run, in this home.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.home().join(".local/state")
    }

    /// The tree to copy: made, empty.
    #[must_use]
    pub fn source(&self) -> PathBuf {
        self.path().join("source")
    }

    /// Where to copy it: made, empty.
    #[must_use]
    pub fn destination(&self) -> PathBuf {
        self.path().join("destination")
    }

    /// The private key that the SSH servers of this sandbox let in (its public part has `.pub`).
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.ssh().join("id_ed25519")
    }

    /// The public part of [`Sandbox::key`], one line.
    ///
    /// # Panics
    /// Where it was removed.
    #[must_use]
    pub fn public_key(&self) -> String {
        public_part(&self.key())
    }

    /// The host keys that are trusted.
    #[must_use]
    pub fn known_hosts(&self) -> PathBuf {
        self.ssh().join("known_hosts")
    }

    /// Adds host keys (lines `TYPE BASE64 …`) of the server at this port of 127.0.0.1.
    ///
    /// # Panics
    /// Where the file cannot be written.
    pub fn trust(&self, port: u16, host_keys: &[String]) {
        let mut file =
            OpenOptions::new().append(true).open(self.known_hosts()).expect("the sandbox's known_hosts");
        for key in host_keys {
            writeln!(file, "{}", Address::known_hosts_line(port, key)).expect("the sandbox's known_hosts");
        }
    }

    /// How a client of this sandbox reaches a server at this port.
    #[must_use]
    pub fn address(&self, port: u16) -> Address {
        Address { user: user_name(), port, key: self.key(), known_hosts: self.known_hosts() }
    }

    /// A command with this sandbox's clean environment.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", PATH).env("HOME", self.home()).current_dir(self.home());
        command
    }

    /// `sync-client ARGUMENTS`, not yet started.
    #[must_use]
    pub fn client_command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.command(program("sync-client"));
        command.args(arguments);
        command
    }

    /// Runs `sync-client ARGUMENTS` to its end.
    #[must_use]
    pub fn client<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        process::run(self.client_command(arguments))
    }

    /// `sync-client sync ARGUMENTS`, not yet started.
    #[must_use]
    pub fn sync_command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.client_command(["sync"]);
        command.args(arguments);
        command
    }

    /// Runs `sync-client sync ARGUMENTS` to its end.
    #[must_use]
    pub fn sync<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        process::run(self.sync_command(arguments))
    }

    /// Starts `sync-client sync ARGUMENTS`.
    #[must_use]
    pub fn start_sync<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Running {
        Running::start(self.sync_command(arguments))
    }
}

impl Default for Sandbox {
    fn default() -> Sandbox {
        Sandbox::new()
    }
}

fn chosen_or(default: PathBuf) -> PathBuf {
    env::var_os("SYNC_TEST_DIR").map_or(default, PathBuf::from)
}

/// A built program of this project: in `SYNC_BIN_DIR`, or in the profile's directory beside the running test
/// (`target/PROFILE/deps/TEST`), or in the other profile's.
///
/// # Panics
/// With what to build, where there is none.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let directories = program_directories();
    let found = directories.iter().map(|directory| directory.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("{name} is not built: `cargo build --release -p {name}`, or set SYNC_BIN_DIR; looked in {directories:?}")
    })
}

fn program_directories() -> Vec<PathBuf> {
    if let Some(given) = env::var_os("SYNC_BIN_DIR") {
        return vec![PathBuf::from(given)];
    }
    let test = env::current_exe().expect("a running program has a path");
    let profile = test.parent().and_then(Path::parent).expect("cargo puts tests in target/PROFILE/deps");
    let target = profile.parent().unwrap_or(profile);
    vec![profile.to_owned(), target.join("release"), target.join("debug")]
}

/// The name of the user who runs the tests.
///
/// # Panics
/// Where the user has none.
#[must_use]
pub fn user_name() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).ok().flatten();
    user.expect("the user who runs the tests has a name").name
}

/// Makes a key pair without a passphrase; `kind` is as for `ssh-keygen -t`.
///
/// # Panics
/// Where `ssh-keygen` fails or is absent.
pub fn make_key(path: &Path, kind: &str) {
    let mut command = Command::new(installed("ssh-keygen"));
    command.args(["-q", "-N", "", "-C", "test", "-t", kind, "-f"]).arg(path);
    process::run(command).success();
}

/// The public key beside a private one: one line, without its comment.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn public_part(key: &Path) -> String {
    let text =
        fs::read_to_string(key.with_extension("pub")).expect("a public key lies beside the private one");
    text.split_ascii_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// Writes a file that only its owner may read.
///
/// # Panics
/// Where it cannot be written.
pub fn write_private(path: &Path, text: &str) {
    fs::write(path, text).expect("a file of the sandbox");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("the file is ours");
}

/// Writes a program.
///
/// # Panics
/// Where it cannot be written.
pub fn write_script(path: &Path, text: &str) {
    fs::write(path, text).expect("a file of the sandbox");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
}

/// The names in a directory, sorted.
///
/// # Panics
/// Where it cannot be read.
#[must_use]
pub fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("it is there").flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_see_the_path_and_the_home_alone() {
        let sandbox = Sandbox::new();
        let output = process::run(sandbox.command("/usr/bin/env"));
        let mut names: Vec<String> = output
            .stdout_text()
            .lines()
            .filter_map(|line| Some(line.split_once('=')?.0.to_owned()))
            .collect();
        names.sort();
        assert_eq!(names, ["HOME", "PATH"]);
        assert!(output.stdout_text().contains(sandbox.home().to_str().expect("ASCII")));
    }

    #[test]
    fn it_is_gone_when_dropped_and_has_keys_before() {
        let sandbox = Sandbox::new();
        assert!(sandbox.public_key().starts_with("ssh-ed25519 "));
        let path = sandbox.path().to_owned();
        drop(sandbox);
        assert!(!path.exists());
    }
}

//! A real Docker Engine in each [`Machine`], and images made of the programs that are installed here.
//!
//! dockerd keeps to its machine: it starts its containerd itself, below the machine's own `/run`, so that two of them know
//! nothing of each other, and `docker` there needs no address. Where the machine's data is, overlay2 works; elsewhere dockerd
//! takes what does (vfs at the worst). Two things decided the way it is started: `ip netns exec` would mount a new `/sys`
//! without the cgroups ("Devices cgroup isn't mounted"), so a machine keeps `/sys` and gets its network by `unshare`; and
//! cgroups are the one thing that outlives a machine's processes, so all of its containers get a parent that is removed.
//! Networks between containers, their names and published ports work by bridges and iptables as anywhere; the default bridge,
//! which compose projects don't use, is left out. No image can be pulled here: each is a tar of a program with its
//! libraries, as Debian's packages have them, imported by `docker import`.

use crate::machine::Machine;
use crate::process::{self, Output, Running, until};
use crate::requirement::installed;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What an engine needs of the machine that the tests run on.
pub const NEEDED: [&str; 7] = ["root", "dockerd", "docker-compose", "iptables", "nsenter", "unshare", "ip"];
const READY_LIMIT: Duration = Duration::from_secs(60);
const CGROUPS: &str = "/sys/fs/cgroup";

/// A running dockerd.
#[derive(Debug)]
pub struct Engine {
    machine: Machine,
    running: Option<Running>,
    cgroup: String,
}

impl Engine {
    /// Starts it, with its data in `directory`; [`Engine::wait`] before it is used.
    #[must_use]
    pub fn start(machine: &Machine, directory: &Path) -> Engine {
        let cgroup = format!("sync-test-{}", machine.id());
        let mut command = machine.command(installed("dockerd"));
        command.args(["--bridge=none", &format!("--cgroup-parent=/{cgroup}"), "--data-root"]).arg(directory);
        Engine { machine: machine.clone(), running: Some(Running::start(command)), cgroup }
    }

    /// Waits until it answers.
    ///
    /// # Panics
    /// With its log, where it ends or does not.
    pub fn wait(&mut self) {
        let running = self.running.as_mut().expect("it was started");
        until(READY_LIMIT, "dockerd's answer", || {
            assert!(!running.ended_within(Duration::ZERO), "dockerd does not run\n{}", running.printed());
            let mut command = self.machine.command(installed("docker"));
            command.args(["version"]);
            (process::run(command).code() == 0).then_some(())
        });
    }

    /// Makes an image under this name.
    ///
    /// # Panics
    /// Where that fails.
    pub fn import(&self, image: &Image, name: &str) {
        let mut command = self.machine.command(installed("docker"));
        command.arg("import").arg(&image.tar).arg(name);
        process::run(command).success();
    }

    /// `docker` with these arguments.
    #[must_use]
    pub fn docker(&self, arguments: &[&str]) -> Output {
        let mut command = self.machine.command(installed("docker"));
        command.args(arguments);
        process::run(command)
    }

    /// The compose services that run.
    #[must_use]
    pub fn services(&self) -> Vec<String> {
        let listed = self.docker(&["ps", "--format", r#"{{.Label "com.docker.compose.service"}}"#]);
        let mut names: Vec<String> = listed.success().stdout_text().lines().map(str::to_owned).collect();
        names.sort();
        names
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.running.as_ref().map(Running::printed).unwrap_or_default();
            let end: Vec<&str> = log.lines().filter(|line| line.contains("level=error")).collect();
            eprintln!("dockerd of {}:\n{}", self.machine.name(), end.join("\n"));
        }
        self.running = None;
        self.machine.end();
        let hierarchies = fs::read_dir(CGROUPS).into_iter().flatten().flatten().map(|entry| entry.path());
        for hierarchy in hierarchies.chain([PathBuf::from(CGROUPS)]) {
            remove_cgroup(&hierarchy.join(&self.cgroup));
        }
    }
}

/// A directory of cgroups, with those below; its files are no files, so that only `rmdir` takes it away, once the kernel has
/// let go of the last process.
fn remove_cgroup(directory: &Path) {
    let Ok(below) = fs::read_dir(directory) else { return };
    for entry in below.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_cgroup(&entry.path());
    }
    let end = Instant::now() + READY_LIMIT;
    while fs::remove_dir(directory).is_err() && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
}

/// A root directory for containers, packed.
#[derive(Debug)]
pub struct Image {
    tar: PathBuf,
    _directory: TempDir,
}

impl Image {
    /// Packs each program (`path here`, `path in the image`) with its libraries, and the directories that it writes to.
    ///
    /// # Panics
    /// Where one is missing.
    #[must_use]
    pub fn of(below: &Path, programs: &[(&Path, &str)], directories: &[&str]) -> Image {
        let directory = tempfile::Builder::new().prefix("image-").tempdir_in(below).expect("a new directory");
        let root = directory.path().join("root");
        for directory in directories.iter().chain(&["tmp", "etc", "run"]) {
            fs::create_dir_all(root.join(directory)).expect("a new directory");
        }
        for users in ["/etc/passwd", "/etc/group"] {
            copy(Path::new(users), &root, users);
        }
        for (program, inside) in programs {
            copy(program, &root, inside);
            for library in libraries(program) {
                copy(Path::new(&library), &root, &library);
            }
        }
        let tar = directory.path().join("image.tar");
        let mut command = Command::new("tar");
        command.arg("-cf").arg(&tar).arg("-C").arg(&root).arg(".");
        process::run(command).success();
        fs::remove_dir_all(&root).expect("ours");
        Image { tar, _directory: directory }
    }
}

fn copy(from: &Path, root: &Path, to: &str) {
    let to = root.join(to.trim_start_matches('/'));
    fs::create_dir_all(to.parent().expect("below the root")).expect("a new directory");
    fs::copy(from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}

/// The paths that `ldd` finds, the loader's too.
fn libraries(program: &Path) -> Vec<String> {
    let mut command = Command::new("ldd");
    command.arg(program);
    let said = process::run(command).success().stdout_text();
    said.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

//! Machines of a test's own: namespaces for network, processes, mounts, host name and IPC, joined by a switch.
//!
//! A machine lives as long as its first process, which waits for the end of its standard input. So whatever a test starts in
//! it ends with the test, however that ends, and its mounts and interfaces go along: the kernel sees to it. The files of the
//! real machine are its own, but for `/srv`, `/run` and its home. Only root can make one.

use crate::process::{Running, descendants};
use crate::requirement::installed;
use rustix::fd::AsFd as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The path that programs get: the system's own programs before others of the same name.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Prints `ready`; ends with its standard input.
const FIRST_PROCESS: &str = r#"set -e
mount --make-rprivate /
echo "$1" > /proc/sys/kernel/hostname
mount -t tmpfs -o size=64m tmpfs /run
mkdir /run/sshd
mount --bind "$2/srv" /srv
ip link set lo up
echo ready
read -r end || exit 0"#;

/// A machine that runs; ended with all in it when the last of its handles is dropped.
#[derive(Debug, Clone)]
pub struct Machine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    running: Mutex<Option<Running>>,
    first_process: u32,
    directory: PathBuf,
    name: String,
    address: Ipv4Addr,
}

impl Machine {
    /// Starts a machine that keeps its files in `directory`, which is made. It is on no network yet.
    ///
    /// # Panics
    /// Where that fails, with what was printed.
    #[must_use]
    pub fn start(directory: &Path, name: &str, address: Ipv4Addr) -> Machine {
        for part in ["srv", "home"] {
            fs::create_dir_all(directory.join(part)).expect("a directory of the sandbox");
        }
        let mut command = Command::new(installed("unshare"));
        command
            .env_clear()
            .env("PATH", PATH)
            .args(["--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", FIRST_PROCESS, "sh", name])
            .arg(directory);
        let running = Running::start_held(command);
        running.wait_for(READY_LIMIT, "that it is ready", |text| text.contains("ready").then_some(()));
        let first_process = *descendants(running.id()).first().expect("unshare has forked");
        let (directory, name) = (directory.to_owned(), name.to_owned());
        Machine(Arc::new(Inner {
            running: Mutex::new(Some(running)),
            first_process,
            directory,
            name,
            address,
        }))
    }

    /// Its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The number of its first process, as seen from outside: no other machine has it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.first_process
    }

    /// The address of its interface.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.0.address
    }

    /// `HOME` of its programs.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.0.directory.join("home")
    }

    /// What its programs know as `/srv`.
    #[must_use]
    pub fn srv(&self) -> PathBuf {
        self.0.directory.join("srv")
    }

    /// A command in it, with a clean environment, in its home.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(installed("nsenter"));
        command
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", self.home())
            .args(["--all", "--target", &self.0.first_process.to_string()])
            .arg(format!("--wd={}", self.home().display()))
            .arg(program);
        command
    }

    /// Joins machines by a switch that is in this one, all in one network of 24 bits. This one gets `more` addresses too.
    ///
    /// # Panics
    /// Where `ip` fails.
    pub fn switch(&self, others: &[&Machine], more: &[Ipv4Addr]) {
        let ip = |line: String| {
            // In this network alone: the other ends are given to machines by their processes as seen from outside.
            let mut command = Command::new(installed("nsenter"));
            command.args(["--target", &self.0.first_process.to_string(), "--net", "ip"]);
            command.args(line.split(' '));
            crate::process::run(command).success();
        };
        ip("link add switch type bridge".to_owned());
        ip("link set switch up".to_owned());
        for address in [&self.0.address].into_iter().chain(more) {
            ip(format!("address add {address}/24 dev switch"));
        }
        for other in others {
            let (name, owner) = (&other.0.name, other.0.first_process);
            ip(format!("link add {name} type veth peer name eth0 netns {owner}"));
            ip(format!("link set {name} master switch up"));
            let up = format!("ip address add {}/24 dev eth0 && ip link set eth0 up", other.address());
            let mut command = other.command("sh");
            command.args(["-c", &up]);
            crate::process::run(command).success();
        }
    }

    /// Runs `work` on a thread that is in this machine's network; sockets made there stay there.
    ///
    /// # Panics
    /// Where `work` does, or the kernel refuses.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/proc/{}/ns/net", self.0.first_process);
        let network = File::open(path).expect("a machine that runs");
        let moved = move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).expect("as root");
            work()
        };
        thread::scope(|scope| scope.spawn(moved).join()).unwrap_or_else(|why| std::panic::resume_unwind(why))
    }

    /// Whether a program of this name (its first 15 bytes) runs in it.
    #[must_use]
    pub fn runs(&self, name: &str) -> bool {
        let comm = |id: &u32| fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
        self.0.processes().iter().any(|id| comm(id).trim_end() == &name[..name.len().min(15)])
    }

    /// Ends all in it, and waits for that, so that nobody writes to directories that are removed next.
    pub fn end(&self) {
        self.0.end();
    }
}

impl Inner {
    /// All that runs in it, by its number outside: of its own processes, what they started in further namespaces as well.
    fn processes(&self) -> Vec<u32> {
        let space = |id: u32| fs::read_link(format!("/proc/{id}/ns/pid")).ok();
        let Some(own) = space(self.first_process) else { return Vec::new() };
        let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let own: Vec<u32> = ids.filter(|&id| space(id).as_ref() == Some(&own)).collect();
        let below: Vec<u32> = own.iter().flat_map(|&id| descendants(id)).collect();
        own.into_iter().chain(below).collect()
    }

    fn end(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(running) = running else { return };
        let all = self.processes();
        drop(running);
        let is_gone = |id: &u32| fs::read_link(format!("/proc/{id}/exe")).is_err();
        let end = Instant::now() + READY_LIMIT;
        while !all.iter().all(is_gone) && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;
    use crate::sandbox::Sandbox;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    fn pair(sandbox: &Sandbox) -> [Machine; 2] {
        let [one, other] = ["one", "other"].map(|name| sandbox.path().join(name));
        let one = Machine::start(&one, "one", Ipv4Addr::new(10, 77, 0, 1));
        let other = Machine::start(&other, "other", Ipv4Addr::new(10, 77, 0, 2));
        one.switch(&[&other], &[]);
        [one, other]
    }

    #[test]
    fn machines_reach_each_other_and_see_nothing_else_of_one_another() {
        crate::require!("root", "nsenter", "unshare", "ip");
        let sandbox = Sandbox::new();
        let [one, other] = pair(&sandbox);
        let listener = other.in_network(|| TcpListener::bind((other.address(), 80)).expect("its own port"));
        let mut stream = one.in_network(|| TcpStream::connect((other.address(), 80)).expect("it listens"));
        drop(listener.accept().expect("somebody connects"));
        assert_eq!(stream.read(&mut [0]).expect("it is closed"), 0);
        fs::write(one.srv().join("here"), "").expect("its own directory");
        let mut look = one.command("sh");
        look.args(["-c", "hostname; ls /srv; ls /proc | grep -c '^[0-9]'"]);
        let said = process::run(look).success().stdout_text();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..2], ["one", "here"]);
        assert!(lines[2].parse::<u32>().expect("a number") < 10, "{said}");
        assert!(fs::read_dir(other.srv()).expect("its own").next().is_none());
    }

    #[test]
    fn what_runs_in_a_machine_ends_with_it() {
        crate::require!("root", "nsenter", "unshare", "ip");
        let sandbox = Sandbox::new();
        let machine = Machine::start(&sandbox.path().join("m"), "m", Ipv4Addr::new(10, 77, 0, 1));
        let mut command = machine.command("sh");
        command.args(["-c", "setsid sleep 1000 > /dev/null 2>&1 & echo begun"]);
        process::run(command).success();
        let known = machine.0.processes();
        assert!(machine.runs("sleep"));
        drop(machine);
        for id in known {
            assert!(fs::read_link(format!("/proc/{id}/exe")).is_err(), "{id} still runs");
        }
    }
}

//! Memory grows with what is in flight, never with the tree or a file: peak resident memory of every process.
//!
//! `SYNC_TEST_FULL` makes them 1,000,000 files and 20 GiB instead of 100,000 and 2 GiB.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use tests::peak;
use tests::sandbox::{Sandbox, program};
use tests::seed::Rng;
use tests::snapshot::{NOTHING, assert_same, snapshot};
use tests::sshd::{Agent, Options, Sshd};
use tests::tree::{many_files, set_mtime};

const BOUND_BYTES: u64 = 128 << 20;

/// A client and an agent whose peaks are measured.
struct Measured<'a> {
    sandbox: &'a Sandbox,
    sshd: Sshd,
    agent_peaks: std::path::PathBuf,
}

impl Measured<'_> {
    fn start(sandbox: &Sandbox) -> Measured<'_> {
        let agent_peaks = sandbox.path().join("agent-peaks");
        let script = peak::agent_script(&program("sync-agent"), &agent_peaks);
        let sshd = Sshd::start_with(sandbox, &Options { agent: Agent::Script(script), ..Options::default() });
        Measured { sandbox, sshd, agent_peaks }
    }

    fn push(&self, what: &str) {
        let (from, to) = self.arguments();
        self.run(what, &from, &self.sshd.address().host_path(&to));
    }

    fn pull(&self, what: &str) {
        let (from, to) = self.arguments();
        self.run(what, &self.sshd.address().host_path(&from), &to);
    }

    fn arguments(&self) -> (String, String) {
        (format!("{}/", self.sandbox.source().display()), self.sandbox.destination().display().to_string())
    }

    fn run(&self, what: &str, from: &str, to: &str) {
        let _ = fs::remove_file(&self.agent_peaks);
        let shell = self.sshd.remote_shell();
        let (output, client_bytes) =
            peak::of(self.sandbox, &self.sandbox.sync_command(["-a", "--delete", "-e", &shell, from, to]));
        output.success();
        for (end, bytes) in [("client", client_bytes), ("agent", peak::read_last(&self.agent_peaks))] {
            assert!(
                bytes <= BOUND_BYTES,
                "{what}: peak of the {end} {} MiB, bound {} MiB",
                bytes >> 20,
                BOUND_BYTES >> 20
            );
        }
    }
}

fn is_full() -> bool {
    env::var_os("SYNC_TEST_FULL").is_some()
}

#[test]
fn many_files_stay_within_the_bound() {
    tests::require!("sshd", "python3");
    let sandbox = Sandbox::new();
    let measured = Measured::start(&sandbox);
    many_files(&sandbox.source(), if is_full() { 1_000_000 } else { 100_000 });
    measured.push("first push");
    measured.push("push of nothing");
    fs::remove_dir_all(sandbox.destination()).expect("it is ours");
    measured.pull("first pull");
    measured.pull("pull of nothing");
    assert_same(&snapshot(&sandbox.source()), &snapshot(&sandbox.destination()), &NOTHING);
}

#[test]
fn a_large_file_stays_within_the_bound() {
    tests::require!("sshd", "python3");
    let sandbox = Sandbox::on_disk();
    let measured = Measured::start(&sandbox);
    let large = sandbox.source().join("large");
    make_large(&large, if is_full() { 20 << 30 } else { 2 << 30 });
    measured.push("first push");
    change_pages(&large);
    measured.push("push of changed pages");
    change_pages(&large);
    measured.pull("pull of changed pages");
    assert_same(&snapshot(&sandbox.source()), &snapshot(&sandbox.destination()), &NOTHING);
}

/// Mostly a hole, with a page of data in each 4 MiB: quick to make, and still all its bytes are to be copied.
fn make_large(path: &Path, size_bytes: u64) {
    let file = File::create(path).expect("a new file");
    file.set_len(size_bytes).expect("a sparse file");
    let mut rng = Rng::new(1);
    for offset in (0..size_bytes).step_by(4 << 20) {
        file.write_all_at(&rng.bytes(4096), offset).expect("a sparse file");
    }
    set_mtime(path, 1_600_000_000, 0);
}

fn change_pages(path: &Path) {
    let file = File::options().write(true).open(path).expect("the file is ours");
    let metadata = file.metadata().expect("it is open");
    let before_s = std::os::unix::fs::MetadataExt::mtime(&metadata);
    let mut rng = Rng::new(before_s as u64);
    for _ in 0..200 {
        let offset = rng.below(metadata.len() / 4096) * 4096;
        file.write_all_at(&rng.bytes(4096), offset).expect("the file is ours");
    }
    set_mtime(path, before_s + 1, 0);
}

//! `--inplace`: the same file, patched, and never left half-way after a crash.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;
use tests::process::Running;
use tests::sandbox::Sandbox;
use tests::seed::{Rng, seeds};
use tests::snapshot::{NOTHING, assert_same, snapshot};
use tests::tree::write_at;

const FILE_BYTES: usize = 24 << 20;
const SOON: Duration = Duration::from_secs(60);

fn inode(path: &Path) -> u64 {
    fs::metadata(path).expect("it is there").ino()
}

/// Rewrites pages of the file and lets it grow or shrink; a new modification time each round.
fn change(path: &Path, rng: &mut Rng, round: i64) {
    let mut content = fs::read(path).expect("it is ours");
    for _ in 0..200 {
        let at = rng.below((content.len() / 4096) as u64) as usize * 4096;
        content[at..at + 4096].copy_from_slice(&rng.bytes(4096));
    }
    let length = FILE_BYTES as u64 + rng.below(100_000);
    let grown = rng.bytes(100_000);
    content.extend_from_slice(&grown);
    content.truncate(length as usize);
    write_at(path, &content, 1_600_000_000 + round);
}

#[test]
fn a_patched_file_keeps_its_inode_and_only_changed_pages_are_written() {
    let sandbox = Sandbox::new();
    let mut rng = Rng::new(1);
    let (from, to) = (sandbox.source().join("file"), sandbox.destination().join("file"));
    write_at(&from, &rng.bytes(FILE_BYTES), 1_600_000_000);
    write_at(&sandbox.source().join("small"), b"small", 1_600_000_000);
    let paths = [format!("{}/", sandbox.source().display()), sandbox.destination().display().to_string()];
    sandbox.sync(["-a", &paths[0], &paths[1]]).success();
    let before = [inode(&to), inode(&sandbox.destination().join("small"))];
    change(&from, &mut rng, 1);
    write_at(&sandbox.source().join("small"), b"other", 1_600_000_001);
    let output = sandbox.sync(["-a", "--inplace", "--json", &paths[0], &paths[1]]);
    output.success();
    assert!(output.summary_number("literal_bytes") < 2 << 20, "{output}");
    assert_eq!([inode(&to), inode(&sandbox.destination().join("small"))], before);
    assert_same(&snapshot(&sandbox.source()), &snapshot(&sandbox.destination()), &NOTHING);
}

#[test]
fn a_patch_killed_at_any_moment_is_rolled_back_or_forward_by_the_next_run() {
    let sandbox = Sandbox::new();
    let paths = [format!("{}/", sandbox.source().display()), sandbox.destination().display().to_string()];
    for seed in seeds(12) {
        let mut rng = Rng::new(seed);
        let (from, to) = (sandbox.source().join("file"), sandbox.destination().join("file"));
        write_at(&from, &rng.bytes(FILE_BYTES), 1_500_000_000);
        sandbox.sync(["-a", &paths[0], &paths[1]]).success();
        let old = fs::read(&to).expect("it is there");
        change(&from, &mut rng, 1);
        let new = fs::read(&from).expect("it is ours");
        let mut run = sandbox.start_sync(["-a", "--inplace", &paths[0], &paths[1]]);
        let _ = run.ended_within(Duration::from_millis(rng.below(150)));
        run.kill();
        let killed = run.wait_within(SOON);
        // The next run is for another file of the same destination: it rolls the journal forward all the same.
        fs::rename(&from, sandbox.path().join("aside")).expect("it is ours");
        sandbox.sync(["-a", &paths[0], &paths[1]]).expect_code_in(&[0]);
        let found = fs::read(&to).expect("it is there");
        assert!(found == old || found == new, "seed {seed}: neither old nor new\n{killed}");
        fs::rename(sandbox.path().join("aside"), &from).expect("it is ours");
        sandbox.sync(["-a", "--inplace", &paths[0], &paths[1]]).success();
        assert_same(&snapshot(&sandbox.source()), &snapshot(&sandbox.destination()), &NOTHING);
    }
}

#[test]
fn a_file_that_cannot_be_written_to_fails_alone() {
    let sandbox = Sandbox::new();
    let (from, to) = (sandbox.source(), sandbox.destination());
    fs::copy("/bin/sleep", to.join("program")).expect("a copy");
    write_at(&from.join("program"), &Rng::new(1).bytes(100_000), 1_600_000_000);
    write_at(&from.join("other"), b"new", 1_600_000_000);
    let mut command = sandbox.command(to.join("program"));
    command.arg("600");
    // Nobody writes to what is being executed.
    let mut running = Running::start(command);
    let line = [format!("{}/", from.display()), to.display().to_string()];
    sandbox.sync(["-a", "--inplace"].iter().map(|&word| word.to_owned()).chain(line.clone())).expect_code(23);
    assert_eq!(fs::read(to.join("other")).expect("it is there"), b"new");
    assert!(!to.join(".sync-agent-staging").exists(), "nothing is left of what was never begun");
    running.kill();
    drop(running);
    sandbox.sync(["-a".to_owned()].into_iter().chain(line)).success();
    assert_same(&snapshot(&from), &snapshot(&to), &NOTHING);
}

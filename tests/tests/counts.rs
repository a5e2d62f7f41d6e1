//! What a run costs, counted where a clock would flake: system calls, frames and bytes for a fixed tree.
//!
//! The bounds are what the design needs and a little more for the program itself; a change that needs another call
//! for each entry, or a frame for each directory, breaks them.

use std::collections::HashMap;
use std::fs;
use tests::process::{Output, run};
use tests::sandbox::{Sandbox, program};
use tests::seed::Rng;
use tests::tree::{set_mtime, write_at};

const DIRECTORIES: u64 = 50;
const FILES: u64 = 2000;
const ENTRIES: u64 = DIRECTORIES + FILES;
/// What starting, loading and ending a program takes, whatever it does.
const PROGRAM: u64 = 400;

fn make_tree(sandbox: &Sandbox) {
    for directory in 0..DIRECTORIES {
        let directory = sandbox.source().join(format!("directory-{directory:03}"));
        fs::create_dir(&directory).expect("a new directory");
        for file in 0..FILES / DIRECTORIES {
            write_at(&directory.join(format!("file-{file:03}")), b"some content", 1_600_000_000);
        }
        set_mtime(&directory, 1_600_000_000, 0);
    }
    set_mtime(&sandbox.source(), 1_600_000_000, 0);
}

/// Mirrors the tree on this machine (both ends in one process), with its system calls counted.
fn counted_sync(sandbox: &Sandbox) -> (Output, HashMap<String, u64>) {
    let counts = sandbox.path().join("counts");
    let mut command = sandbox.command("strace");
    command.args(["-f", "-c", "-o"]).arg(&counts).arg(program("sync-client"));
    command.args(["sync", "-a", "--json"]);
    command.arg(format!("{}/", sandbox.source().display())).arg(sandbox.destination());
    let output = run(command);
    output.success();
    let table = fs::read_to_string(counts).expect("strace has written it");
    // Columns: % time, seconds, usecs/call, calls, errors if any, name.
    let row = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        Some(((*columns.last()?).to_owned(), columns.get(3)?.parse().ok()?))
    };
    (output, table.lines().filter_map(row).collect())
}

fn assert_at_most(counts: &HashMap<String, u64>, names: &[&str], bound: u64) {
    let count: u64 = names.iter().map(|name| counts.get(*name).copied().unwrap_or(0)).sum();
    assert!(count <= bound, "{names:?}: {count} calls, bound {bound}\n{counts:?}");
}

#[test]
fn a_first_copy_takes_a_fixed_number_of_calls_for_each_file() {
    tests::require!("strace");
    let sandbox = Sandbox::new();
    make_tree(&sandbox);
    let (output, counts) = counted_sync(&sandbox);
    assert_eq!(output.summary_number("files_created"), FILES);
    // Listed, opened, and looked at again when it was read; then the staged file before its metadata is set.
    assert_at_most(&counts, &["statx", "fstat", "newfstatat", "lstat"], 4 * ENTRIES + PROGRAM);
    assert_at_most(&counts, &["open", "openat", "openat2"], 2 * FILES + 8 * DIRECTORIES + PROGRAM);
    assert_at_most(&counts, &["pwrite64"], FILES);
    assert_at_most(&counts, &["rename", "renameat", "renameat2"], FILES);
    assert_at_most(&counts, &["fchmod", "fchmodat", "fchown", "fchownat"], ENTRIES + 10);
    assert_at_most(&counts, &["utimensat"], ENTRIES + 10);
    assert_at_most(&counts, &["fsync", "fdatasync"], 0);
    assert_at_most(&counts, &["syncfs"], 10);
    // A directory that the run made itself is not asked for an ACL that it gives on.
    assert_at_most(&counts, &["getxattr", "lgetxattr", "fgetxattr"], 10);
    // Small files travel many to a frame, requests and listings of many directories together.
    let frames = output.summary_number("frames");
    assert!(frames <= DIRECTORIES, "{frames} frames");
}

#[test]
fn a_run_that_finds_nothing_to_do_looks_once_and_says_little() {
    tests::require!("strace");
    let sandbox = Sandbox::new();
    make_tree(&sandbox);
    counted_sync(&sandbox);
    let (output, counts) = counted_sync(&sandbox);
    assert_eq!(output.summary_number("files_created") + output.summary_number("metadata_updated"), 0);
    assert_at_most(
        &counts,
        &["statx", "fstat", "newfstatat", "lstat"],
        2 * ENTRIES + 2 * DIRECTORIES + PROGRAM,
    );
    assert_at_most(&counts, &["open", "openat", "openat2"], 6 * DIRECTORIES + PROGRAM);
    assert_at_most(&counts, &["getdents64"], 4 * (DIRECTORIES + 1) + 20);
    let changing = ["pwrite64", "rename", "renameat", "unlinkat", "fchmod", "fchown", "utimensat", "mkdirat"];
    assert_at_most(&counts, &changing, 0);
    let frames = output.summary_number("frames");
    assert!(frames <= 40, "{frames} frames");
    let bytes = output.summary_number("sent_bytes") + output.summary_number("received_bytes");
    assert!(bytes <= 80 * ENTRIES, "{bytes} bytes for {ENTRIES} entries");
}

#[test]
fn what_is_found_of_a_long_file_goes_on_at_once() {
    let sandbox = Sandbox::new();
    let content = Rng::new(11).bytes(64 << 20);
    write_at(&sandbox.destination().join("file"), &content, 1_600_000_000);
    write_at(&sandbox.source().join("file"), &[b"a line\n", &content[..]].concat(), 1_600_000_001);
    let from = format!("{}/", sandbox.source().display());
    let to = sandbox.destination().display().to_string();
    let output = sandbox.sync(["-a", "--no-whole-file", "--json", &from, &to].map(str::to_owned));
    output.success();
    assert!(output.summary_number("literal_bytes") <= 8192, "{output}");
    // One each 4 MiB, so that the destination writes while the source still searches; the signature goes in 5.
    let frames = output.summary_number("frames");
    assert!((20..60).contains(&frames), "{frames} frames");
}

//! `sync-client bench`: every figure is there, the bottleneck is named, nothing is left behind.

use rustix::process::Signal;
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tests::process::{self, Output, Running, until};
use tests::sandbox::Sandbox;
use tests::serve::Serve;
use tests::snapshot::{NOTHING, Snapshot, assert_same, snapshot};
use tests::sshd::Sshd;
use tests::tree::write_at;

const SOON: Duration = Duration::from_secs(30);
/// Short and small: these tests are about what is said, not about how fast this machine is.
const QUICK: [&str; 3] = ["--seconds=0.05", "--size=4M", "--json"];

/// Files of both kinds that matter to a forecast, at both ends.
fn trees(sandbox: &Sandbox) {
    for (place, files) in [(sandbox.source(), 40), (sandbox.destination(), 20)] {
        fs::create_dir(place.join("attachments")).expect("a new directory");
        for number in 0..files {
            write_at(&place.join(format!("attachments/{number}")), b"a small file", 1_600_000_000);
        }
        let line = b"{\"name\":\"value\",\"state\":\"open\"}\n";
        write_at(&place.join("collection.wt"), &line.repeat(20_000), 1_600_000_000);
    }
}

fn both(sandbox: &Sandbox) -> [Snapshot; 2] {
    [snapshot(&sandbox.source()), snapshot(&sandbox.destination())]
}

fn assert_untouched(sandbox: &Sandbox, before: &[Snapshot; 2]) {
    for (before, after) in before.iter().zip(&both(sandbox)) {
        assert_same(before, after, &NOTHING);
    }
}

fn bench_command(sandbox: &Sandbox, arguments: &[&str], paths: &[OsString]) -> std::process::Command {
    let mut command = sandbox.client_command(["bench"]);
    command.args(arguments).args(paths);
    command
}

fn bench(sandbox: &Sandbox, arguments: &[&str], paths: &[OsString]) -> Output {
    process::run(bench_command(sandbox, arguments, paths))
}

fn url(sshd: &Sshd, path: &Path) -> OsString {
    sshd.url(path.to_str().expect("ASCII")).into()
}

#[track_caller]
fn assert_positive(value: &Value, names: &[&str]) {
    for name in names {
        assert!(value[name].as_f64().is_some_and(|figure| figure > 0.0), "{name} in {value}");
    }
}

const PROCESSOR: [&str; 2] = ["cores", "hash_bytes_per_s"];
const DISK: [&str; 5] =
    ["free_bytes", "scan_entries_per_s", "read_bytes_per_s", "write_bytes_per_s", "create_files_per_s"];

#[track_caller]
fn assert_whole(summary: &Value) {
    for end in ["source", "destination"] {
        assert_positive(&summary[end], &PROCESSOR);
        assert_positive(&summary[end], &DISK);
        for zstd in summary[end]["zstd"].as_array().expect("levels") {
            assert_positive(zstd, &["level", "bytes_per_s", "ratio"]);
        }
    }
    assert_positive(&summary["source"], &["tree_files_per_s"]);
    assert_positive(&summary["tree"], &["entries", "files", "bytes", "large_files", "large_bytes"]);
    assert_eq!(summary["tree"]["is_whole"], true);
    let forecast = &summary["forecast"];
    assert_positive(&forecast["first_pass"], &["elapsed_s"]);
    for pass in ["next_pass", "cold_pass"] {
        assert_positive(&forecast[pass], &["least_s", "most_s"]);
        assert!(["scan", "changed bytes"].contains(&forecast[pass]["bottleneck"].as_str().expect("a name")));
    }
    let bottleneck = forecast["first_pass"]["bottleneck"].as_str().expect("a name");
    assert!(["scan", "read", "hash", "compress", "link", "write"].contains(&bottleneck), "{bottleneck}");
    assert_eq!(summary["exit_code"], 0);
}

#[track_caller]
fn assert_link(summary: &Value) {
    assert_positive(&summary["link"], &["connect_s", "round_trip_s"]);
    for way in ["to_destination", "to_source"] {
        let flows = summary["link"][way].as_array().expect("flows");
        let connections: Vec<_> = flows.iter().filter_map(|flow| flow["connections"].as_u64()).collect();
        assert_eq!(connections, [1, 2, 4], "{way}");
        flows.iter().for_each(|flow| assert_positive(flow, &["bytes_per_s"]));
    }
}

#[test]
fn pull_and_push_have_all_figures_and_leave_nothing_behind() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    trees(&sandbox);
    let sshd = Sshd::start(&sandbox);
    let before = both(&sandbox);
    let (source, destination) = (sandbox.source(), sandbox.destination());
    for paths in
        [[url(&sshd, &source), destination.clone().into()], [source.clone().into(), url(&sshd, &destination)]]
    {
        let output = bench(&sandbox, &QUICK, &paths);
        let summary = output.success().summary();
        assert_whole(&summary);
        assert_link(&summary);
        assert_eq!(summary["notes"], Value::Array(Vec::new()), "{output}");
        assert_eq!(summary["tree"]["entries"], 42);
        sshd.wait_for_agents_to_end(SOON);
        assert_untouched(&sandbox, &before);
    }
}

#[test]
fn two_directories_of_this_machine_need_no_link() {
    let sandbox = Sandbox::new();
    trees(&sandbox);
    let before = both(&sandbox);
    let output = bench(&sandbox, &QUICK, &[sandbox.source().into(), sandbox.destination().into()]);
    let summary = output.success().summary();
    assert_whole(&summary);
    assert_eq!(summary["link"], Value::Null);
    let alone = bench(&sandbox, &QUICK, &[sandbox.source().into()]).success().summary();
    assert_eq!((&alone["destination"], &alone["link"]), (&Value::Null, &Value::Null));
    assert_positive(&alone["forecast"]["first_pass"], &["elapsed_s"]);
    assert_untouched(&sandbox, &before);
}

#[test]
fn one_remote_directory_is_measured_without_one_here() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    trees(&sandbox);
    let sshd = Sshd::start(&sandbox);
    let summary = bench(&sandbox, &QUICK, &[url(&sshd, &sandbox.source())]).success().summary();
    assert_link(&summary);
    assert_positive(&summary["source"], &DISK);
    assert_positive(&summary["destination"], &PROCESSOR);
    assert_eq!(summary["destination"]["write_bytes_per_s"], Value::Null);
}

#[test]
fn the_report_has_bars_and_the_page_needs_nothing_else() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    trees(&sandbox);
    let sshd = Sshd::start(&sandbox);
    let page = sandbox.path().join("bench.html");
    let html = format!("--html={}", page.display());
    let paths = [url(&sshd, &sandbox.source()), sandbox.destination().into()];
    let output = bench(&sandbox, &[QUICK[0], QUICK[1], &html], &paths);
    let text = output.success().stdout_text();
    for part in
        ["Link: round trip", "4 connections", "####", "bottleneck is", "Next pass:", "Cold pass:", "assumes"]
    {
        assert!(text.contains(part), "{part:?} is not in\n{output}");
    }
    let page = fs::read_to_string(page).expect("it was written");
    for foreign in ["http://", "https://", "<script", "<link", "src=", "url(", "@import"] {
        assert!(!page.contains(foreign), "{foreign:?}");
    }
    assert!(page.contains("<svg") && page.contains("prefers-color-scheme") && page.ends_with("</html>\n"));
}

#[test]
fn a_read_only_agent_measures_all_but_writing() {
    let sandbox = Sandbox::new();
    trees(&sandbox);
    let before = both(&sandbox);
    let serve = Serve::start(&sandbox, &sandbox.source(), true);
    let paths = [serve.url("/").into(), sandbox.destination().into()];
    let output = bench(&sandbox, &QUICK, &paths);
    let summary = output.success().summary();
    let source = &summary["source"];
    assert_positive(
        source,
        &["cores", "hash_bytes_per_s", "scan_entries_per_s", "read_bytes_per_s", "tree_files_per_s"],
    );
    assert_eq!(source["write_bytes_per_s"], Value::Null);
    assert!(summary["notes"].to_string().contains("read-only"), "{output}");
    assert_link(&summary);
    assert_positive(&summary["destination"], &DISK);
    assert_untouched(&sandbox, &before);
}

#[test]
fn an_agent_is_held_to_its_root() {
    let sandbox = Sandbox::new();
    trees(&sandbox);
    let serve = Serve::start(&sandbox, &sandbox.source(), true);
    let path = serve.url("/attachments/../../destination");
    let output = bench(&sandbox, &QUICK, &[path.into()]);
    output.expect_code(3).expect_stderr("leads out of the directory");
}

#[test]
fn nothing_is_written_when_told_so() {
    let sandbox = Sandbox::new();
    trees(&sandbox);
    let arguments = [&QUICK[..], &["--no-write"]].concat();
    let paths = [sandbox.source().into(), sandbox.destination().into()];
    let summary = bench(&sandbox, &arguments, &paths).success().summary();
    assert_eq!(summary["destination"]["write_bytes_per_s"], Value::Null);
    assert_positive(&summary["source"], &["read_bytes_per_s"]);
}

#[test]
fn a_wrong_directory_is_named_at_either_end() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    trees(&sandbox);
    let sshd = Sshd::start(&sandbox);
    let missing = sandbox.path().join("missing");
    for paths in [
        vec![missing.clone().into()],
        vec![url(&sshd, &missing), sandbox.destination().into()],
        vec![sandbox.source().into(), url(&sshd, &missing)],
        vec![url(&sshd, &sandbox.source()), sandbox.source().join("collection.wt").into()],
    ] {
        let output = bench(&sandbox, &QUICK, &paths);
        output.expect_code(3).expect_stderr("give a directory that exists");
        let text = output.stdout_text();
        let last: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON");
        assert_eq!((&last["event"], &last["exit_code"]), (&"error".into(), &3.into()));
    }
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    let sandbox = Sandbox::new();
    for arguments in [
        vec!["--seconds=0", "x"],
        vec!["--seconds=1000", "x"],
        vec!["--size=1", "x"],
        vec!["--change=101", "x"],
        vec!["a:x", "b:y"],
        vec![],
    ] {
        assert_eq!(bench(&sandbox, &arguments, &[]).code(), 1, "{arguments:?}");
    }
}

#[test]
fn a_run_on_the_destination_is_not_disturbed() {
    let sandbox = Sandbox::new();
    trees(&sandbox);
    let destination = fs::File::open(sandbox.destination()).expect("it is there");
    rustix::fs::flock(&destination, rustix::fs::FlockOperation::LockExclusive).expect("nobody else has it");
    let output = bench(&sandbox, &QUICK, &[sandbox.source().into(), sandbox.destination().into()]);
    let summary = output.success().summary();
    assert_eq!(summary["destination"]["write_bytes_per_s"], Value::Null);
    assert!(summary["notes"].to_string().contains("another run"), "{output}");
}

/// Stops a bench while it writes at the other end.
fn stopped_by(signal: Signal) -> (Sandbox, Option<Output>) {
    let sandbox = Sandbox::new();
    trees(&sandbox);
    let before = both(&sandbox);
    let modified = || fs::metadata(sandbox.source()).and_then(|info| info.modified()).expect("it is there");
    let modified_before = modified();
    let sshd = Sshd::start(&sandbox);
    let staging = sandbox.source().join(".sync-agent-staging");
    // The source's disk is the second thing measured; as large and long as the machine lets it be.
    let paths = [url(&sshd, &sandbox.source()), sandbox.destination().into()];
    let mut running =
        Running::start(bench_command(&sandbox, &["--seconds=20", "--size=1G", "--json"], &paths));
    until(SOON, "a file in the staging directory", || staging.is_dir().then_some(()));
    running.signal(signal);
    let output = running.wait_within(SOON);
    // The agent of a client that was killed is not below sshd any more.
    let is_clean = || !staging.exists() && modified() == modified_before;
    until(SOON, "an end without staging", || is_clean().then_some(()));
    sshd.wait_for_agents_to_end(SOON);
    assert_untouched(&sandbox, &before);
    let is_told = signal == Signal::INT;
    (sandbox, is_told.then_some(output))
}

#[test]
fn stopped_by_a_signal_it_removes_what_it_wrote() {
    tests::require!("sshd");
    let (_sandbox, output) = stopped_by(Signal::INT);
    output.expect("it was told").expect_code(20).expect_stderr("stopped by a signal");
}

#[test]
fn an_agent_whose_client_is_gone_removes_what_it_wrote() {
    tests::require!("sshd");
    let _ = stopped_by(Signal::KILL);
}

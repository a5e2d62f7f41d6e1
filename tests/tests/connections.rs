//! A push over several channels of one connection: faster where the round trip is long, and never a reason to fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tests::address::Address;
use tests::process::{self, Output, Running, Signal, until};
use tests::sandbox::{Sandbox, program};
use tests::seed::Rng;
use tests::serve::Serve;
use tests::snapshot::{NOTHING, assert_same, snapshot};
use tests::sshd::{Agent, Options, Sshd};
use tests::tree::write_at;
use tests::wan::Proxy;

const SOON: Duration = Duration::from_secs(30);
/// So slow that a push of [`source_of`] 64 MiB lasts until the test has seen what it looks for.
const SLOWLY: &str = "--bwlimit=8M";

/// Files that can't be compressed.
fn source_of(sandbox: &Sandbox, mebibytes: usize) {
    let mut rng = Rng::new(1);
    for number in 0..mebibytes / 4 {
        write_at(&sandbox.source().join(format!("{number:03}")), &rng.bytes(4 << 20), 1_600_000_000);
    }
}

fn push_command(
    sandbox: &Sandbox,
    address: &Address,
    options: &[&str],
    destination: &Path,
) -> std::process::Command {
    let mut command = sandbox.sync_command(["-a"]);
    command.args(options).args(["-e", &address.remote_shell()]);
    let (source, destination) = (sandbox.source(), destination.display().to_string());
    command.arg(format!("{}/", source.display())).arg(address.host_path(&destination));
    command
}

fn push(sandbox: &Sandbox, address: &Address, options: &[&str]) -> Output {
    process::run(push_command(sandbox, address, options, &sandbox.destination()))
}

fn start_push(sandbox: &Sandbox, address: &Address, options: &[&str]) -> Running {
    Running::start(push_command(sandbox, address, options, &sandbox.destination()))
}

fn assert_converged(sandbox: &Sandbox) {
    assert_same(&snapshot(&sandbox.source()), &snapshot(&sandbox.destination()), &NOTHING);
}

/// Waits until so many agents run; their process ids.
fn agents(sshd: &Sshd, count: usize) -> Vec<u32> {
    until(SOON, "all agents", || Some(sshd.agents()).filter(|agents| agents.len() == count))
}

/// Waits until so much has arrived that all channels have long been in use: they join in a small part of that time.
fn wait_for_bytes(sandbox: &Sandbox, bytes: u64) {
    let arrived = |directory: PathBuf| -> u64 {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.metadata().ok())
            .filter(fs::Metadata::is_file)
            .map(|file| file.len())
            .sum()
    };
    until(SOON, "bytes at the destination", || {
        let staging = sandbox.destination().join(".sync-agent-staging");
        (arrived(sandbox.destination()) + arrived(staging) >= bytes).then_some(())
    });
}

#[test]
fn over_a_long_link_a_push_does_not_wait_for_the_window_of_one_channel() {
    tests::require!("sshd", "python3");
    let sandbox = Sandbox::new();
    let sshd = Sshd::start(&sandbox);
    source_of(&sandbox, 64);
    let proxy = Proxy::start(sshd.port(), 100, 0, 0, 0);
    sandbox.trust(proxy.port(), &sshd.host_keys());
    let address = sshd.address().at_port(proxy.port());
    let mut elapsed = Vec::new();
    for options in [&["--connections=1"][..], &[]] {
        let destination = sandbox.path().join(format!("copy {}", elapsed.len()));
        let output = process::run(push_command(&sandbox, &address, options, &destination));
        output.success();
        assert_same(&snapshot(&sandbox.source()), &snapshot(&destination), &NOTHING);
        sshd.wait_for_agents_to_end(SOON);
        elapsed.push(output.elapsed);
    }
    // 2 MiB in 100 ms are 3.2 s for the first; the second has eight times the window.
    assert!(elapsed[1] < elapsed[0].mul_f64(0.75), "one channel {:?}, several {:?}", elapsed[0], elapsed[1]);
}

#[test]
fn a_server_next_door_sees_one_channel_unless_more_are_asked_for() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    let sshd = Sshd::start(&sandbox);
    source_of(&sandbox, 64);
    for (options, count) in [(&[SLOWLY, "--connections=1"][..], 1), (&[SLOWLY, "--connections=3"], 3)] {
        let run = start_push(&sandbox, sshd.address(), options);
        agents(&sshd, count);
        wait_for_bytes(&sandbox, 8 << 20);
        assert_eq!(sshd.agents().len(), count, "{options:?}");
        drop(run);
        sshd.wait_for_agents_to_end(SOON);
        fs::remove_dir_all(sandbox.destination()).expect("it is ours");
    }
    push(&sandbox, sshd.address(), &["--connections=8"]).success();
    assert_converged(&sandbox);
    sshd.wait_for_agents_to_end(SOON);
}

#[test]
fn what_does_not_give_further_channels_gets_by_with_one() {
    tests::require!("sshd", "ssh");
    let agent = program("sync-agent");
    // A server that allows no second session; an agent that knows no joining, one that is deaf to it; another transport.
    let refusing = Options { max_sessions: 1, ..Options::default() };
    let script = |refusal: &str| {
        // Looks at the first word, and gives it back.
        let text = format!(
            "#!/bin/sh\nword=$(dd bs=1 count=8 2>/dev/null | tr -d '\\000')\n\
             if [ \"$word\" = migjoin ]; then {refusal}; fi\n\
             {{ printf '\\000%s' \"$word\"; exec cat; }} | '{}' --stdio\n",
            agent.display()
        );
        Options { agent: Agent::Script(text), ..Options::default() }
    };
    let cases = [
        (refusing, &["--connections=8"][..]),
        (script("exit 1"), &["--connections=8"]),
        (script("exec cat >/dev/null"), &["--connections=8"]),
        (script("printf 'Welcome to the machine.'; exec cat >/dev/null"), &["--connections=8"]),
        (Options::default(), &["--connections=8", "--ssh=system"]),
    ];
    for (options, line) in cases {
        let sandbox = Sandbox::new();
        let sshd = Sshd::start_with(&sandbox, &options);
        source_of(&sandbox, 8);
        let output = push(&sandbox, sshd.address(), line);
        output.success();
        assert!(output.elapsed < SOON && output.stderr.is_empty(), "{options:?}\n{output}");
        assert_converged(&sandbox);
        sshd.wait_for_agents_to_end(SOON);
    }
}

#[test]
fn our_own_server_needs_one_and_is_asked_for_more_in_vain() {
    let sandbox = Sandbox::new();
    source_of(&sandbox, 8);
    let serve = Serve::start(&sandbox, Path::new("/"), false);
    let to = serve.url(&sandbox.destination().display().to_string());
    let from = format!("{}/", sandbox.source().display());
    sandbox.sync(["-a", "--connections=8", &from, &to]).success();
    assert_converged(&sandbox);
}

#[test]
fn an_agent_that_a_forced_command_holds_to_a_directory_takes_several() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    source_of(&sandbox, 64);
    let (agent, root) = (program("sync-agent"), sandbox.destination());
    let script = format!("#!/bin/sh\nexec '{}' --stdio --root '{}'\n", agent.display(), root.display());
    let sshd = Sshd::start_with(&sandbox, &Options { agent: Agent::Script(script), ..Options::default() });
    let options = ["--connections=4", SLOWLY];
    let run = Running::start(push_command(&sandbox, sshd.address(), &options, Path::new("/")));
    agents(&sshd, 4);
    run.wait_within(SOON).success();
    assert_converged(&sandbox);
    sshd.wait_for_agents_to_end(SOON);
}

#[test]
fn a_session_that_loses_any_of_its_processes_is_lost_and_the_next_run_converges() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    let sshd = Sshd::start(&sandbox);
    source_of(&sandbox, 64);
    for victim in 0..3 {
        let run = start_push(&sandbox, sshd.address(), &["--connections=3", SLOWLY]);
        let agents = agents(&sshd, 3);
        wait_for_bytes(&sandbox, 8 << 20);
        process::signal(agents[victim], Signal::KILL);
        let output = run.wait_within(SOON);
        output.expect_code(10);
        sshd.wait_for_agents_to_end(SOON);
        fs::remove_dir_all(sandbox.destination()).expect("it is ours");
    }
    push(&sandbox, sshd.address(), &[]).success();
    assert_converged(&sandbox);
}

#[test]
fn a_client_that_is_killed_or_stopped_leaves_no_process_behind() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    let sshd = Sshd::start(&sandbox);
    source_of(&sandbox, 64);
    for (signal, code) in [(Signal::KILL, 137), (Signal::INT, 20)] {
        let mut run = start_push(&sandbox, sshd.address(), &["--connections=4", SLOWLY]);
        agents(&sshd, 4);
        wait_for_bytes(&sandbox, 8 << 20);
        let started = Instant::now();
        run.signal(signal);
        run.wait_within(SOON).expect_code(code);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        sshd.wait_for_agents_to_end(SOON);
        fs::remove_dir_all(sandbox.destination()).expect("it is ours");
    }
}

#[test]
fn a_silent_line_ends_a_push_over_several_by_its_timeout() {
    tests::require!("sshd", "python3");
    let sandbox = Sandbox::new();
    let sshd = Sshd::start(&sandbox);
    source_of(&sandbox, 64);
    let proxy = Proxy::start(sshd.port(), 0, 0, 0, 20_000_000);
    sandbox.trust(proxy.port(), &sshd.host_keys());
    let address = sshd.address().at_port(proxy.port());
    let output = push(&sandbox, &address, &["--connections=4", "--timeout=2"]);
    output.expect_code(30);
    assert!(output.elapsed < SOON, "{output}");
}

#[test]
fn a_pull_says_that_it_goes_over_one_whatever_was_asked_for() {
    let sandbox = Sandbox::new();
    source_of(&sandbox, 8);
    let serve = Serve::start(&sandbox, Path::new("/"), false);
    let from = serve.url(&format!("{}/", sandbox.source().display()));
    let to = sandbox.destination().display().to_string();
    let output = sandbox.sync(["-a", "--connections=2", &from, &to]);
    output.success();
    assert!(output.stderr_text().contains("this pull went over one channel"), "{}", output.stderr_text());
    assert_converged(&sandbox);
    assert_eq!(sandbox.sync(["-a", "--connections=1", &from, &to]).stderr_text(), "");
}

//! What can go wrong: what the operator is told, and that every name keeps its old or its new content.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};
use tests::address::Address;
use tests::directions::{ALL, Direction, Stage, Transport};
use tests::mount::{Image, Tmpfs};
use tests::process::{self, Output, Running, Signal, until};
use tests::sandbox::{Sandbox, make_key, public_part};
use tests::seed::{Rng, seeds};
use tests::serve::Serve;
use tests::snapshot::{Kind, NOTHING, Snapshot, assert_same, differences, escaped, snapshot};
use tests::sshd::{Agent, Options, Sshd, known_hosts_of};
use tests::tree::{random_changes, random_tree, set_mtime, write_at};
use tests::wan::Proxy;

const SOON: Duration = Duration::from_secs(30);

fn contents_of(path: &Path) -> String {
    format!("{}/", path.display())
}

/// Pulls the sandbox's source through this address.
fn pull_command(sandbox: &Sandbox, address: &Address, options: &[&str]) -> std::process::Command {
    let mut command = sandbox.sync_command(["-a"]);
    command.args(options).args(["-e", &address.remote_shell()]);
    command.arg(address.host_path(&contents_of(&sandbox.source()))).arg(sandbox.destination());
    command
}

fn pull(sandbox: &Sandbox, address: &Address, options: &[&str]) -> Output {
    process::run(pull_command(sandbox, address, options))
}

fn push_command(sandbox: &Sandbox, address: &Address, options: &[&str]) -> std::process::Command {
    let mut command = sandbox.sync_command(["-a"]);
    command.args(options).args(["-e", &address.remote_shell()]);
    command
        .arg(contents_of(&sandbox.source()))
        .arg(address.host_path(&sandbox.destination().display().to_string()));
    command
}

fn assert_converged(sandbox: &Sandbox) {
    assert_same(&snapshot(&sandbox.source()), &snapshot(&sandbox.destination()), &NOTHING);
}

/// The destination is as it was: empty, in the tests that say this.
fn assert_untouched(sandbox: &Sandbox) {
    let names: Vec<_> = fs::read_dir(sandbox.destination()).expect("it is there").collect();
    assert!(names.is_empty(), "{names:?}");
}

/// Every name of the old tree and of the new one holds the content of one of them, or is absent where one lacks it.
/// A directory that becomes something else, or the reverse, may be caught between its removal and the new thing.
/// Names of neither are staged work, which only the next run must have cleared.
fn assert_old_or_new(old: &Snapshot, new: &Snapshot, actual: &Snapshot) {
    for name in old.keys().chain(new.keys()) {
        let found = actual.get(name).map(|node| &node.kind);
        let allowed = [old, new].map(|tree| tree.get(name).map(|node| &node.kind));
        let becomes_or_was_directory =
            allowed.iter().filter(|&&kind| kind == Some(&Kind::Directory)).count() == 1;
        let is_between = found.is_none() && becomes_or_was_directory;
        assert!(
            is_between || allowed.contains(&found),
            "{}: {found:?} is neither of {allowed:?}",
            escaped(name)
        );
    }
}

fn one_file_to_copy(sandbox: &Sandbox) {
    write_at(&sandbox.source().join("file"), b"content", 1_600_000_000);
}

// Host keys

#[test]
fn an_unknown_host_key_is_refused_and_shown() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    one_file_to_copy(&sandbox);
    let sshd = Sshd::start(&sandbox);
    let address = sshd.address().with_known_hosts(&known_hosts_of(&sandbox, "nobody-known", &[]));
    pull(&sandbox, &address, &[])
        .expect_code(41)
        .expect_stderr("SHA256:")
        .expect_stderr(&format!("[127.0.0.1]:{}", sshd.port()));
    assert_untouched(&sandbox);
}

#[test]
fn an_unknown_host_key_is_learnt_when_asked_to() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    one_file_to_copy(&sandbox);
    let sshd = Sshd::start(&sandbox);
    let address = sshd.address().with_known_hosts(&known_hosts_of(&sandbox, "nobody-known", &[]));
    pull(&sandbox, &address, &["--accept-new"]).success();
    pull(&sandbox, &address, &[]).success();
    assert_converged(&sandbox);
}

#[test]
fn a_changed_host_key_is_refused_even_where_new_ones_are_accepted() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    one_file_to_copy(&sandbox);
    let mut sshd = Sshd::start(&sandbox);
    sshd.restart_with_new_host_keys();
    pull(&sandbox, sshd.address(), &[]).expect_code(41);
    pull(&sandbox, sshd.address(), &["--accept-new"]).expect_code(41);
    assert_untouched(&sandbox);
}

#[test]
fn a_revoked_host_key_is_refused() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    one_file_to_copy(&sandbox);
    let sshd = Sshd::start(&sandbox);
    let trusted = sshd.host_keys().into_iter().map(|key| Address::known_hosts_line(sshd.port(), &key));
    let revoked = sshd.host_keys().into_iter().map(|key| format!("@revoked * {key}"));
    let lines: Vec<String> = trusted.chain(revoked).collect();
    let address = sshd.address().with_known_hosts(&known_hosts_of(&sandbox, "revoked", &lines));
    pull(&sandbox, &address, &[]).expect_code(41);
    pull(&sandbox, &address, &["--accept-new"]).expect_code(41);
    assert_untouched(&sandbox);
}

#[test]
fn our_own_servers_host_key_is_checked_too() {
    let sandbox = Sandbox::new();
    one_file_to_copy(&sandbox);
    let serve = Serve::start(&sandbox, Path::new("/"), true);
    let (from, to) =
        (serve.url(&contents_of(&sandbox.source())), sandbox.destination().display().to_string());
    let other = sandbox.path().join("other_host_key");
    make_key(&other, "ed25519");
    fs::write(sandbox.known_hosts(), "").expect("the sandbox's known_hosts");
    sandbox.sync(["-a", &from, &to]).expect_code(41).expect_stderr("SHA256:");
    sandbox.trust(serve.port(), &[public_part(&other)]);
    sandbox.sync(["-a", &from, &to]).expect_code(41);
    assert_untouched(&sandbox);
    assert!(serve.host_key_line().contains(serve.host_key()), "{}", serve.log());
}

// Authentication and the agent

#[test]
fn a_wrong_key_is_refused() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    one_file_to_copy(&sandbox);
    let sshd = Sshd::start_with(&sandbox, &Options { refuses_all_keys: true, ..Options::default() });
    pull(&sandbox, sshd.address(), &[]).expect_code(42);
    assert_untouched(&sandbox);
}

#[test]
fn our_own_server_refuses_a_wrong_key() {
    let sandbox = Sandbox::new();
    one_file_to_copy(&sandbox);
    let serve = Serve::start(&sandbox, Path::new("/"), true);
    fs::remove_file(sandbox.key()).expect("the sandbox's key");
    make_key(&sandbox.key(), "ed25519");
    let (from, to) =
        (serve.url(&contents_of(&sandbox.source())), sandbox.destination().display().to_string());
    sandbox.sync(["-a", &from, &to]).expect_code(42);
    assert_untouched(&sandbox);
}

#[test]
fn a_missing_agent_is_named() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    one_file_to_copy(&sandbox);
    let sshd = Sshd::start_with(&sandbox, &Options { agent: Agent::Missing, ..Options::default() });
    pull(&sandbox, sshd.address(), &[]).expect_code(43).expect_stderr("sync-agent");
    assert_untouched(&sandbox);
}

#[test]
fn what_a_noisy_shell_prints_is_named() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    one_file_to_copy(&sandbox);
    let noise = Some("Welcome to the machine.\nYou have new mail.\n".to_owned());
    let sshd = Sshd::start_with(&sandbox, &Options { noise, ..Options::default() });
    pull(&sandbox, sshd.address(), &[]).expect_code_in(&[2, 43]).expect_stderr("Welcome to the machine.");
    assert_untouched(&sandbox);
}

#[test]
fn an_agent_of_another_making_is_refused() {
    tests::require!("sshd");
    let fakes = [
        "#!/bin/sh\necho 'sync-agent: unknown option --stdio' >&2\nexit 1\n",
        "#!/bin/sh\nexit 0\n",
        "#!/bin/sh\nprintf 'SSYNC\\000\\000\\001\\000\\000\\000\\001'\ncat >/dev/null\n",
        "#!/bin/sh\nhead -c 1000000 /dev/zero\ncat >/dev/null\n",
    ];
    for fake in fakes {
        let sandbox = Sandbox::new();
        one_file_to_copy(&sandbox);
        let sshd = Sshd::start_with(
            &sandbox,
            &Options { agent: Agent::Script(fake.to_owned()), ..Options::default() },
        );
        pull(&sandbox, sshd.address(), &["--timeout=10"]).expect_code_in(&[2, 43]);
        assert_untouched(&sandbox);
    }
}

#[test]
fn an_agent_that_says_nothing_has_a_deadline() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    one_file_to_copy(&sandbox);
    let silent = Agent::Script("#!/bin/sh\nexec cat >/dev/null\n".to_owned());
    let sshd = Sshd::start_with(&sandbox, &Options { agent: silent, ..Options::default() });
    pull(&sandbox, sshd.address(), &["--timeout=2"]).expect_code(30);
}

#[test]
fn a_port_where_nobody_listens_is_a_connection_error() {
    tests::require!("ssh-keygen");
    let sandbox = Sandbox::new();
    one_file_to_copy(&sandbox);
    pull(&sandbox, &sandbox.address(tests::sshd::free_port()), &[]).expect_code(10);
}

// The connection

/// A tree whose copy is under way for some megabytes, and an older copy of it.
fn old_copy_and_changed_source(sandbox: &Sandbox, seed: u64) -> (Snapshot, Snapshot) {
    random_tree(seed, &sandbox.source());
    let mut rng = Rng::new(seed);
    for number in 0..8 {
        write_at(&sandbox.source().join(format!("large-{number}")), &rng.bytes(1 << 20), 1_600_000_000);
    }
    set_mtime(&sandbox.source(), 1_600_000_000, 0);
    let first = [contents_of(&sandbox.source()), sandbox.destination().display().to_string()];
    sandbox.sync(["-a", &first[0], &first[1]]).success();
    let old = snapshot(&sandbox.destination());
    random_changes(seed, &sandbox.source());
    for number in 4..12 {
        write_at(&sandbox.source().join(format!("large-{number}")), &rng.bytes(1 << 20), 1_600_000_001);
    }
    set_mtime(&sandbox.source(), 1_600_000_001, 0);
    (old, snapshot(&sandbox.source()))
}

fn empty_both(sandbox: &Sandbox) {
    for directory in [sandbox.source(), sandbox.destination()] {
        fs::remove_dir_all(&directory).and_then(|()| fs::create_dir(&directory)).expect("it is ours");
    }
}

#[test]
fn a_cut_connection_leaves_old_or_new_content_and_the_next_run_converges() {
    tests::require!("sshd", "python3");
    let sandbox = Sandbox::new();
    let sshd = Sshd::start(&sandbox);
    let ways = [pull_command, push_command];
    for (seed, cut_after) in (1..).zip([20_000, 200_000, 2_000_000, 6_000_000]) {
        for way in ways {
            empty_both(&sandbox);
            let (old, new) = old_copy_and_changed_source(&sandbox, seed);
            let proxy = Proxy::start(sshd.port(), 0, 0, cut_after, 0);
            sandbox.trust(proxy.port(), &sshd.host_keys());
            let output = process::run(way(&sandbox, &sshd.address().at_port(proxy.port()), &["--delete"]));
            output.expect_code(10);
            proxy.wait_for_cut(SOON);
            sshd.wait_for_agents_to_end(SOON);
            assert_old_or_new(&old, &new, &snapshot(&sandbox.destination()));
            process::run(way(&sandbox, sshd.address(), &["--delete"])).success();
            assert_converged(&sandbox);
        }
    }
}

#[test]
fn a_silent_connection_times_out() {
    tests::require!("sshd", "python3");
    let sandbox = Sandbox::new();
    let sshd = Sshd::start(&sandbox);
    let (old, new) = old_copy_and_changed_source(&sandbox, 1);
    let proxy = Proxy::start(sshd.port(), 0, 0, 0, 1_000_000);
    sandbox.trust(proxy.port(), &sshd.host_keys());
    let address = sshd.address().at_port(proxy.port());
    for command in [
        pull_command(&sandbox, &address, &["--timeout=2"]),
        push_command(&sandbox, &address, &["--timeout=2"]),
    ] {
        let output = process::run(command);
        output.expect_code(30);
        assert!(output.elapsed < SOON, "{output}");
        sshd.wait_for_agents_to_end(SOON);
        assert_old_or_new(&old, &new, &snapshot(&sandbox.destination()));
    }
    pull(&sandbox, sshd.address(), &["--delete"]).success();
    assert_converged(&sandbox);
}

#[test]
fn a_push_that_is_stalled_with_full_queues_times_out() {
    tests::require!("sshd", "python3");
    let sandbox = Sandbox::new();
    let sshd = Sshd::start(&sandbox);
    write_at(&sandbox.source().join("large"), &Rng::new(1).bytes(96 << 20), 1_600_000_000);
    let proxy = Proxy::start(sshd.port(), 0, 0, 0, 3_000_000);
    sandbox.trust(proxy.port(), &sshd.host_keys());
    let output =
        process::run(push_command(&sandbox, &sshd.address().at_port(proxy.port()), &["--timeout=2"]));
    output.expect_code(30);
    assert!(output.elapsed < SOON, "{output}");
}

#[test]
fn a_second_client_on_one_destination_is_told_so_at_once_and_no_lock_outlives_a_kill() {
    tests::require!("sshd", "python3");
    let sandbox = Sandbox::new();
    let sshd = Sshd::start(&sandbox);
    old_copy_and_changed_source(&sandbox, 1);
    let proxy = Proxy::start(sshd.port(), 0, 0, 0, 1_000_000);
    sandbox.trust(proxy.port(), &sshd.host_keys());
    // The first holds the destination, for as long as its link is silent.
    let mut first = Running::start(pull_command(&sandbox, &sshd.address().at_port(proxy.port()), &[]));
    proxy.wait_for_stall(SOON);
    let started = Instant::now();
    pull(&sandbox, sshd.address(), &[]).expect_code(40);
    Running::start(push_command(&sandbox, sshd.address(), &[])).wait().expect_code(40);
    assert!(started.elapsed() < SOON);
    assert!(!first.ended_within(Duration::ZERO), "{}", first.printed());
    first.kill();
    drop(first);
    pull(&sandbox, sshd.address(), &["--delete"]).success();
    assert_converged(&sandbox);
}

#[test]
fn a_run_inside_the_destination_of_another_is_told_so() {
    let sandbox = Sandbox::new();
    let inside = sandbox.destination().join("inside");
    fs::create_dir(&inside).expect("a new directory");
    write_at(&sandbox.source().join("file"), b"new", 1_600_000_000);
    let lock = fs::File::open(sandbox.destination()).expect("it is there");
    lock.try_lock().expect("nobody has it");
    let line = ["-a", &contents_of(&sandbox.source()), &inside.display().to_string()].map(str::to_owned);
    sandbox.sync(&line).expect_code(40).expect_stderr("above it");
    drop(lock);
    sandbox.sync(&line).success();
}

#[test]
fn a_sync_that_fails_ends_the_run_and_nothing_of_its_batch_gets_a_name() {
    tests::require!("strace");
    let sandbox = Sandbox::new();
    // More than fits into every queue between the receivers and the committer.
    for number in 0..20_000 {
        if number % 1000 == 0 {
            fs::create_dir(sandbox.source().join(format!("{:02}", number / 1000))).expect("a new directory");
        }
        let path = sandbox.source().join(format!("{:02}/{number:05}", number / 1000));
        fs::write(path, number.to_string()).expect("a new file");
    }
    let mut command = sandbox.command("strace");
    command.args(["-f", "-o", "/dev/null", "-e", "trace=syncfs", "-e", "inject=syncfs:error=EIO"]);
    command.arg(tests::sandbox::program("sync-client")).args(["sync", "-a", &contents_of(&sandbox.source())]);
    command.arg(sandbox.destination());
    let output = process::run(command);
    output.expect_code(11).expect_stderr("syncfs");
    assert!(output.elapsed < SOON, "{output}");
    let is_file = |(path, node): (&Vec<u8>, &tests::snapshot::Node)| {
        matches!(node.kind, Kind::File { .. }) && !escaped(path).contains(".sync-agent-staging")
    };
    assert_eq!(snapshot(&sandbox.destination()).iter().filter(|&entry| is_file(entry)).count(), 0);
    let line = ["-a", &contents_of(&sandbox.source()), &sandbox.destination().display().to_string()];
    sandbox.sync(line).success();
    assert_converged(&sandbox);
}

/// Cuts the power of the destination's disk at a random moment of a run that replaces an older copy, and right
/// after a run that ended well.
#[test]
fn a_power_cut_leaves_old_or_new_content_and_nothing_is_lost_after_exit_0() {
    tests::require!("root", "mkfs.ext4");
    for seed in seeds(4) {
        let sandbox = Sandbox::new();
        let disk = Image::create(sandbox.path(), 96 << 20);
        let (old, new) = old_copy_and_changed_source(&sandbox, seed);
        let destination = disk.path().join("copy");
        let line = |from: &Path, to: &Path| {
            ["-a", "--delete", &contents_of(from), to.to_str().expect("text")].map(str::to_owned)
        };
        sandbox.sync(line(&sandbox.destination(), &destination)).success();
        let whole = Duration::from_millis(200);
        let mut run = sandbox.start_sync(line(&sandbox.source(), &destination));
        // Not to be in step with it: the moment itself is what varies.
        let _ = run.ended_within(whole * (Rng::new(seed).below(100) as u32) / 100);
        run.signal(Signal::STOP);
        let cut = disk.after_power_cut(&sandbox.path().join("during"));
        run.signal(Signal::CONT);
        run.wait_within(SOON).success();
        assert_old_or_new(&old, &new, &snapshot(&cut.path().join("copy")));
        sandbox.sync(line(&sandbox.source(), &cut.path().join("copy"))).success();
        assert_same(&new, &snapshot(&cut.path().join("copy")), &NOTHING);
        drop(cut);
        let cut = disk.after_power_cut(&sandbox.path().join("after"));
        assert_same(&new, &snapshot(&cut.path().join("copy")), &NOTHING);
    }
}

// What a user without rights meets

/// `sync-client sync ARGUMENTS` in the sandbox, which is made theirs to enter, as a user without rights.
fn sync_as_nobody(sandbox: &Sandbox, arguments: &[&str]) -> Output {
    use std::os::unix::process::CommandExt as _;
    const NOBODY: u32 = 65534;
    let program = sandbox.path().join("client-for-all");
    if !program.exists() {
        fs::copy(tests::sandbox::program("sync-client"), &program).expect("room for a copy");
        for path in [sandbox.path(), &program] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        }
        std::os::unix::fs::chown(sandbox.destination(), Some(NOBODY), None).expect("a test as root");
    }
    let mut command = sandbox.command(&program);
    command.arg("sync").args(arguments).env("HOME", "/nonexistent").uid(NOBODY).gid(NOBODY);
    process::run(command)
}

#[test]
fn what_the_source_may_not_look_at_is_not_deleted() {
    tests::require!("root");
    let sandbox = Sandbox::new();
    let (from, to) = (contents_of(&sandbox.source()), sandbox.destination());
    let at = |path: &str| sandbox.source().join(path);
    for path in ["closed", "open"] {
        fs::create_dir(at(path)).expect("a new directory");
        write_at(&at(path).join("file"), b"content", 1_600_000_000);
    }
    let line = ["-rt", "--delete", &from, to.to_str().expect("text")];
    sync_as_nobody(&sandbox, &line).success();
    fs::remove_file(at("open/file")).expect("it is ours");
    // Its names can be read, but nothing else of what is in it.
    fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o744)).expect("it is ours");
    sync_as_nobody(&sandbox, &line).expect_code(23).expect_stderr("closed/file");
    assert!(to.join("closed/file").exists(), "it is there at the source");
    assert!(!to.join("open/file").exists(), "elsewhere deletions go on");
}

#[test]
fn links_that_lead_nowhere_protect_what_they_stood_for() {
    let sandbox = Sandbox::new();
    let (from, to) = (contents_of(&sandbox.source()), sandbox.destination());
    std::os::unix::fs::symlink("nowhere", sandbox.source().join("dangling")).expect("a new link");
    std::os::unix::fs::symlink(".", sandbox.source().join("loop")).expect("a new link");
    fs::create_dir(to.join("loop")).expect("a new directory");
    for path in ["dangling", "loop/file"] {
        write_at(&to.join(path), b"what the link once stood for", 1_600_000_000);
    }
    sandbox.sync(["-aL", "--delete", &from, to.to_str().expect("text")]).expect_code(23);
    for path in ["dangling", "loop/file"] {
        assert!(to.join(path).exists(), "{path}");
    }
}

#[test]
fn a_user_without_rights_leaves_modes_and_devices_alone() {
    tests::require!("root");
    let sandbox = Sandbox::new();
    let (from, to) = (contents_of(&sandbox.source()), sandbox.destination());
    let mut command = sandbox.command("mknod");
    command.arg(sandbox.source().join("null")).args(["c", "1", "3"]);
    process::run(command).success();
    write_at(&sandbox.source().join("file"), b"new", 1_600_000_000);
    fs::create_dir(sandbox.source().join("x")).expect("a new directory");
    write_at(&sandbox.source().join("x/k.keep"), b"kept", 1_600_000_000);
    let to = to.to_str().expect("text");
    let skipped = sync_as_nobody(&sandbox, &["-rtD", "--chmod=D555", &from, to]);
    assert!(skipped.success().stdout_text().contains("skipping non-regular file \"null\""), "{skipped}");
    assert!(!sandbox.destination().join("null").exists());
    fs::remove_dir_all(sandbox.source().join("x")).expect("it is ours");
    sync_as_nobody(&sandbox, &["-rt", "--delete", "--exclude=*.keep", &from, to]).success();
    let mode =
        fs::metadata(sandbox.destination().join("x")).expect("a kept file is in it").permissions().mode();
    assert_eq!(mode & 0o7777, 0o555);
}

// What is refused before the first byte moves

#[test]
fn what_cannot_become_a_destination_is_refused_at_once() {
    tests::require!("root");
    let sandbox = Sandbox::new();
    write_at(&sandbox.source().join("file"), b"new", 1_600_000_000);
    let source = contents_of(&sandbox.source());
    let destination = sandbox.path().join("disk");
    fs::create_dir(&destination).expect("a new directory");
    let disk = Tmpfs::mount(&destination, 8 << 20);
    let line = ["-a", &source, &destination.display().to_string()].map(str::to_owned);
    for (name, make, unmake) in [
        ("mounted read-only", &["mount", "-o", "remount,ro"][..], &["mount", "-o", "remount,rw"][..]),
        ("not a directory", &["touch"], &["rm"]),
        ("another user", &["install", "-d", "-o", "nobody"], &["rmdir"]),
    ] {
        let run = |words: &[&str]| {
            let mut command = sandbox.command(words[0]);
            command.args(&words[1..]);
            let staging = destination.join(".sync-agent-staging");
            command.arg(if words[0] == "mount" { &destination } else { &staging });
            process::run(command).success();
        };
        run(make);
        sandbox.sync(&line).expect_code(11).expect_stderr(name).expect_stderr("nothing was changed");
        assert!(!destination.join("file").exists(), "{name}");
        run(unmake);
    }
    sandbox.sync(&line).success();
    drop(disk);
}

#[test]
fn overlapping_trees_are_refused() {
    let sandbox = Sandbox::new();
    let path = |name: &str| sandbox.source().join(name).display().to_string();
    for name in ["a", "backup"] {
        fs::create_dir(path(name)).expect("a new directory");
    }
    write_at(&sandbox.source().join("a/file"), b"precious", 1_600_000_000);
    for (line, text) in [
        (&["-a", &path(""), &path("backup")][..], "--exclude=/backup"),
        (&["-a", "--delete", &path("a/"), &path("")], "inside the destination"),
        (&["-a", &path(".sync-agent-staging/"), &path("backup")], "can't be a source"),
    ] {
        sandbox.sync(line).expect_code(3).expect_stderr(text);
    }
    sandbox.sync(["-a", "--exclude=/backup", &path(""), &path("backup")]).success();
    sandbox.sync(["-a", &path("a/"), &path("")]).success();
    for name in ["a/file", "backup/a/file", "file"] {
        assert_eq!(fs::read(path(name)).expect("it is there"), b"precious", "{name}");
    }
}

#[test]
fn a_signal_ends_a_run_that_is_still_connecting() {
    let sandbox = Sandbox::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = silent.local_addr().expect("it is bound").port();
    let shell = format!("ssh -p {port} -i {}", sandbox.key().display());
    let destination = sandbox.destination().display().to_string();
    let mut run = sandbox.start_sync(["-a", "-e", &shell, "127.0.0.1:/nowhere/", &destination]);
    let (_connection, _) = silent.accept().expect("the client connects");
    let started = Instant::now();
    run.signal(process::Signal::INT);
    run.wait().expect_code(20);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

// The disk

#[test]
fn a_full_disk_keeps_the_old_content_and_leaves_nothing_stray() {
    tests::require!("root", "sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    let mut rng = Rng::new(1);
    write_at(&sandbox.source().join("fits-not"), &rng.bytes(16 << 20), 1_600_000_000);
    for direction in ALL {
        let small = sandbox.path().join(format!("small-{direction:?}").replace(['(', ')'], "-"));
        fs::create_dir(&small).expect("a new directory");
        let disk = Tmpfs::mount(&small, 8 << 20);
        write_at(&disk.path().join("fits-not"), b"old", 1_500_000_000);
        let names_before: Vec<_> = snapshot(disk.path()).into_keys().collect();
        let output = stage.sync(
            &sandbox,
            direction,
            &["-a"],
            &contents_of(&sandbox.source()),
            &small.display().to_string(),
        );
        output.expect_code(44);
        assert_eq!(fs::read(disk.path().join("fits-not")).expect("it is there"), b"old", "{direction:?}");
        assert_eq!(snapshot(disk.path()).into_keys().collect::<Vec<_>>(), names_before, "{direction:?}");
    }
}

// kill -9

/// Which process a round kills.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Client,
    Agent,
}

/// Kills at a moment that the seed decides, as a share of what a whole run takes.
fn killed_at_random_moments(direction: Direction, victim: Victim) {
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    let (from, to) = (contents_of(&sandbox.source()), sandbox.destination().display().to_string());
    let line = stage.line(direction, &from, &to).with(&["-a", "--delete"]);
    let mut whole = Duration::from_millis(300);
    for seed in seeds(12) {
        empty_both(&sandbox);
        let (old, new) = old_copy_and_changed_source(&sandbox, seed);
        let moment = whole * (Rng::new(seed).below(100) as u32) / 100;
        let mut client = sandbox.start_sync(&line);
        // Not to be in step with it: the moment itself is what varies.
        let ended = client.ended_within(moment);
        match victim {
            Victim::Client => client.kill(),
            Victim::Agent => {
                for id in stage.sshd.agents() {
                    process::signal(id, rustix::process::Signal::KILL);
                }
            }
        }
        let output = client.wait_within(SOON);
        let due: &[i32] = if victim == Victim::Client { &[0, 128 + 9] } else { &[0, 10, 12, 43] };
        output.expect_code_in(due);
        stage.sshd.wait_for_agents_to_end(SOON);
        if output.code() == 0 {
            assert_converged(&sandbox);
        } else {
            assert!(!ended, "{output}");
            assert_old_or_new(&old, &new, &snapshot(&sandbox.destination()));
        }
        let again = until(SOON, "a free destination", || {
            Some(sandbox.sync(&line)).filter(|output| output.code() != 40)
        });
        whole = whole.max(again.success().elapsed);
        let left = differences(&new, &snapshot(&sandbox.destination()), &NOTHING);
        assert!(left.is_empty(), "seed {seed}, killed after {moment:?}: {left:#?}\n{output}\n{again}");
    }
}

#[test]
fn a_killed_local_run_converges_after() {
    tests::require!("sshd");
    killed_at_random_moments(Direction::Local, Victim::Client);
}

#[test]
fn a_killed_pull_converges_after() {
    tests::require!("sshd");
    killed_at_random_moments(Direction::Pull(Transport::Sshd), Victim::Client);
}

#[test]
fn a_killed_push_converges_after() {
    tests::require!("sshd");
    killed_at_random_moments(Direction::Push(Transport::Sshd), Victim::Client);
}

#[test]
fn a_killed_push_to_our_own_server_converges_after() {
    tests::require!("sshd");
    killed_at_random_moments(Direction::Push(Transport::Serve), Victim::Client);
}

#[test]
fn a_push_whose_agent_is_killed_converges_after() {
    tests::require!("sshd");
    killed_at_random_moments(Direction::Push(Transport::Sshd), Victim::Agent);
}

#[test]
fn a_pull_whose_agent_is_killed_converges_after() {
    tests::require!("sshd");
    killed_at_random_moments(Direction::Pull(Transport::Sshd), Victim::Agent);
}

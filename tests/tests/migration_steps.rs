//! The steps that send clients on, over a real sshd: `proxy` with a real nginx and TLS at both ends, `register` with two
//! DNS servers that read their file at start only. Hazards 16 to 21 of the procedure, each made and answered.
//!
//! What stands in: nginx is started by a script of ROOT instead of a container engine; the DNS server is in the test.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use tests::platform::{NAMES, Platform, Register};
use tests::process::{Running, Signal, until};

const SOON: Duration = Duration::from_secs(60);
#[test]
fn migrate_goes_from_nothing_to_done_and_the_undos_give_the_first_bytes_back() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let platform = Platform::new();
    let (cores, site) = (&platform.cores, platform.site());
    let migrated = cores.step(&["migrate", "--yes"]);
    migrated.success();
    assert!(
        migrated.stdout_text().contains("The source's address answers with the destination."),
        "{migrated}"
    );
    assert_eq!(cores.history(&cores.source()), ["run", "stop", "nginx"], "NGINX alone was started");
    for register in &platform.registers {
        assert_eq!(register.text(), NAMES.replace("127.0.0.1", "127.0.0.2"), "nothing but the address");
    }
    let status = cores.status();
    assert_eq!(status["next"], "nothing: every step is done");
    assert_eq!(status["serving"], serde_json::json!(["proxy", "register"]));
    assert!(cores.step(&["proxy", "show"]).success().stdout_text().contains("answers with the destination"));
    assert!(cores.step(&["register", "show"]).success().stdout_text().contains("with: 127.0.0.2"));
    assert!(cores.step(&["migrate", "--yes"]).success().stdout_text().contains("== proxy: done"));

    let refused = |sign: &str| {
        cores.step(&["rollback", "--yes"]).expect_code(46).expect_stderr(sign);
        cores.step(&["cold", "--yes"]).expect_code(46);
    };
    refused("sync-client sync --archive");
    cores.step(&["register", "undo", "--yes"]).success();
    cores.step(&["proxy", "disable", "--yes"]).success();
    assert_eq!(platform.site(), site);
    for register in &platform.registers {
        assert_eq!(register.text(), NAMES);
        assert!(!register.root.join("conf/dns.json.sync-client-undo").exists());
    }
    assert_eq!(cores.status()["serving"], serde_json::json!([]));
    refused("or did, so going back would lose");
    assert!(
        cores.step(&["proxy", "disable", "--yes"]).success().stdout_text().contains("Nothing to take back")
    );
}

#[test]
fn a_configuration_that_fails_its_test_never_goes_live() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let platform = Platform::new();
    let (cores, site) = (&platform.cores, platform.site());
    cores.step(&["proxy", "enable", "--yes"]).expect_code(46).expect_stderr("after sync-client cold");
    platform.until_cold();
    cores.step(&["proxy", "enable"]).expect_code(46).expect_stderr("give --yes");
    fs::write(cores.source().join("nginx-test"), "echo 'host not found in upstream' >&2\nexit 1\n")
        .expect("ours");
    let failed = cores.step(&["proxy", "enable", "--yes"]);
    failed.expect_code(46).expect_stderr("host not found in upstream");
    assert_eq!(platform.site(), site);
    let status = cores.status();
    assert_eq!((&status["edited"], &status["has_served"]), (&serde_json::json!([]), &false.into()));
    assert!(!cores.history(&cores.source()).contains(&"nginx".to_owned()), "it was not touched");
    cores.step(&["rollback", "--yes"]).success();
}

#[test]
fn killed_between_edit_and_start_it_goes_back_or_on() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let platform = Platform::new();
    let (cores, site) = (&platform.cores, platform.site());
    let (script, mark) = (cores.source().join("nginx-test"), cores.source().join("at-test"));
    let test = fs::read_to_string(&script).expect("ours");
    let kill = || {
        platform.until_cold();
        fs::write(&script, format!("touch at-test\nsleep 2\n{test}")).expect("ours");
        let mut running = cores.start_until(&["proxy", "enable", "--yes"], &mark);
        running.kill();
        let _ = running.wait();
        fs::remove_file(&mark).expect("it was at its test");
        fs::write(&script, &test).expect("ours");
        assert!(platform.site() != site, "killed after the edit");
        let status = cores.status();
        assert_eq!(
            (&status["edited"], &status["has_served"]),
            (&serde_json::json!(["proxy"]), &false.into())
        );
    };
    kill();
    cores.step(&["rollback", "--yes"]).success();
    assert_eq!(platform.site(), site, "the source starts on its own file");
    assert!(cores.is_up(&cores.source()));
    kill();
    cores.step(&["proxy", "enable", "--yes"]).success();
    assert_eq!(cores.status()["serving"], serde_json::json!(["proxy"]));
    cores.step(&["proxy", "disable", "--yes"]).success();
    assert_eq!(platform.site(), site);
}

#[test]
fn after_a_kill_at_any_record_migrate_goes_on_to_the_same_end() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let step = std::env::var("SYNC_KILL_STEP").ok().and_then(|text| text.parse().ok()).unwrap_or(9);
    for kept in (1..64).step_by(step) {
        let platform = Platform::new();
        let (cores, site) = (&platform.cores, platform.site());
        let mut running = Running::start(cores.sandbox.client_command(["migrate", "--yes"]));
        until(SOON, "a record to kill at", || {
            (cores.records().len() >= kept || running.ended_within(Duration::ZERO)).then_some(())
        });
        running.kill();
        let _ = running.wait();
        cores.sshd.wait_for_agents_to_end(SOON);
        // A child that had not yet become another program holds the lock for a moment longer.
        until(SOON, "the end of all of it", || (cores.status()["is_running"] == false).then_some(()));
        cores.step(&["migrate", "--yes"]).success();
        assert_eq!(cores.status()["next"], "nothing: every step is done", "killed at {kept}");
        assert!(!cores.is_up(&cores.source()) && cores.is_up(&cores.destination()), "killed at {kept}");
        cores.step(&["register", "undo", "--yes"]).success();
        cores.step(&["proxy", "disable", "--yes"]).success();
        let after = platform.registers.each_ref().map(Register::text);
        assert_eq!(
            (platform.site(), after),
            (site, [NAMES.to_owned(), NAMES.to_owned()]),
            "killed at {kept}"
        );
    }
}

#[test]
fn what_a_config_follower_writes_is_refused_on_every_host() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let platform = Platform::new();
    let (cores, site) = (&platform.cores, platform.site());
    platform.until_cold();
    let roots = [cores.source(), platform.registers[1].root.clone()];
    for (root, step) in roots.iter().zip(["proxy enable", "register set"]) {
        fs::create_dir(root.join("config-follower")).expect("new");
        let step: Vec<&str> = step.split(' ').chain(["--yes"]).collect();
        cores.step(&step).expect_code(46).expect_stderr("platform.yml");
    }
    assert_eq!((platform.site(), platform.registers[0].text()), (site, NAMES.to_owned()));
    cores.step(&["register", "set", "--yes", "--even-generated"]).success();
}

#[test]
fn no_register_host_is_touched_where_one_of_them_has_no_json() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let platform = Platform::new();
    let cores = &platform.cores;
    platform.until_cold();
    let hosts = [&platform.registers[0], &platform.registers[1]];
    fs::write(hosts[1].root.join("conf/dns.json"), "{\"dns\": ${DNS}}").expect("ours");
    cores.step(&["register", "set", "--yes"]).expect_code(46).expect_stderr("not JSON");
    assert_eq!(hosts[0].text(), NAMES);
    assert!(!hosts[0].root.join("history").exists(), "nothing was restarted");
}

#[test]
fn a_dns_server_that_was_not_restarted_is_found_out() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let platform = Platform::new();
    let cores = &platform.cores;
    platform.until_cold();
    let slave = &platform.registers[1].root;
    let restart = fs::read_to_string(slave.join("restart")).expect("ours");
    fs::write(slave.join("restart"), "true\n").expect("ours");
    let set = cores.step(&["register", "set", "--yes"]);
    set.expect_code(46).expect_stderr("the address 127.0.0.2 within 3 s, but: 127.0.0.1");
    assert!(set.stdout_text().contains("TTL 7200 s"), "{set}");
    assert_eq!(cores.status()["has_served"], true, "the master answers with the new address");
    fs::write(slave.join("restart"), restart).expect("ours");
    cores.step(&["register", "set", "--yes"]).success();
    cores.step(&["register", "undo", "--yes"]).success();
    assert_eq!(platform.registers[1].text(), NAMES);
}

#[test]
fn a_rehearsal_of_either_changes_nothing() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let platform = Platform::new();
    let (cores, site) = (&platform.cores, platform.site());
    for (step, said) in [
        (["proxy", "enable"], "+upstream core_server { server 127.0.0.2:"),
        (["proxy", "disable"], "Nothing to take back"),
        (["register", "set"], "\"ip\": \"127.0.0.2\""),
        (["register", "undo"], "Nothing to take back"),
    ] {
        let rehearsed = cores.step(&[step[0], step[1], "--dry-run"]);
        assert!(rehearsed.success().stdout_text().contains(said), "{rehearsed}");
    }
    assert!(!cores.state().exists() && platform.site() == site && platform.registers[0].text() == NAMES);
    cores.step(&["proxy", "enable", "--to", "127.0.0.2"]).expect_code(1);
    cores.step(&["register", "set", "--core", "co1"]).expect_code(1);
}

#[test]
fn a_signal_before_nginx_is_touched_leaves_the_way_back_open() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let platform = Platform::new();
    let (cores, site) = (&platform.cores, platform.site());
    platform.until_cold();
    let (script, mark) = (cores.source().join("nginx-test"), cores.source().join("at-test"));
    let test = fs::read_to_string(&script).expect("ours");
    fs::write(&script, format!("touch at-test\nsleep 1\n{test}")).expect("ours");
    let mut running = cores.start_until(&["proxy", "enable", "--yes"], &mark);
    running.signal(Signal::TERM);
    running.wait().expect_code(20);
    assert_eq!(cores.status()["has_served"], false, "NGINX was not started");
    cores.step(&["rollback", "--yes"]).success();
    assert_eq!(platform.site(), site);
}

#[test]
fn clients_are_sent_to_nobody_who_does_not_serve_and_not_past_a_source_that_does() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let platform = Platform::new();
    let (cores, site) = (&platform.cores, platform.site());
    platform.until_cold();
    let refused = |step: &str, sign: &str| {
        let step: Vec<&str> = step.split(' ').chain(["--yes"]).collect();
        cores.step(&step).expect_code(46).expect_stderr(sign);
        assert_eq!((platform.site(), platform.registers[0].text()), (site.clone(), NAMES.to_owned()));
        assert_eq!(cores.status()["has_served"], false);
    };
    cores.script("destination", "stop-containers");
    refused("proxy enable", "no container of core runs");
    refused("register set", "no container of core runs");
    cores.script("destination", "run-core");
    cores.script("source", "run-core");
    refused("register set", "the source's service runs again");
    cores.script("source", "stop-containers");
    // What was written meanwhile is still in no copy.
    refused("proxy enable", "after sync-client cold");
    cores.step(&["cold", "--yes"]).success();
    cores.step(&["proxy", "enable", "--yes"]).success();
}

#[test]
fn an_undo_asks_for_what_the_file_said_before() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let platform = Platform::new();
    let cores = &platform.cores;
    platform.until_cold();
    // Neither the address of the plan; and one that names the core only since.
    let before =
        [NAMES.replace("127.0.0.1", "192.0.2.77"), r#"{"dns": {"staticDataInDomain": {}}}"#.to_owned()];
    for (register, text) in platform.registers.iter().zip(&before) {
        fs::write(register.root.join("conf/dns.json"), text).expect("ours");
    }
    cores.step(&["register", "set", "--yes"]).success();
    let undone = cores.step(&["register", "undo", "--yes"]);
    assert!(undone.success().stdout_text().contains("answers co1.example.com with 192.0.2.77"), "{undone}");
    let after = platform.registers.each_ref().map(Register::text);
    assert_eq!(after, before);
}

#[test]
fn another_core_s_edit_in_a_register_s_file_is_not_in_the_way() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let platform = Platform::new();
    let cores = &platform.cores;
    platform.until_cold();
    cores.edit_plan(|plan| {
        plan.replace("restart = \"restart\"", "restart = \"restart\"\nregister_file = \"conf/register.json\"")
    });
    let others: Vec<PathBuf> =
        platform.registers.iter().map(|register| register.root.join("conf/register.json")).collect();
    for other in &others {
        fs::write(other, NAMES.replace("co1", "co2")).expect("new");
        let file = other.display().to_string();
        cores
            .step(&["register", "set", "--file", &file, "--core", "co2", "--ip", "192.0.2.9", "--yes"])
            .success();
    }
    cores.step(&["register", "set", "--yes"]).success();
    cores.step(&["register", "undo", "--yes"]).success();
    for other in &others {
        assert!(fs::read_to_string(other).expect("ours").contains("192.0.2.9"), "it stays");
    }
}

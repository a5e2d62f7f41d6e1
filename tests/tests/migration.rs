//! The migration's steps over a real sshd: two cores with scripts, containers and data of their own; each hazard of the
//! procedure made, and the tool's answer seen.
//!
//! What stands in: `docker` is a script that answers from files in ROOT (`tests/whole.rs` has the engine), the service is a process that
//! holds a file of the database open, or WiredTiger's own writer.

use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tests::cores::{ATTACHMENTS, COMPOSE, Cores, DATABASE, RUN, STOP};
use tests::process::{Running, until};
use tests::sandbox::Sandbox;
use tests::snapshot::{NOTHING, assert_same, snapshot};
use tests::tree::write_at;
use tests::wiredtiger::{Database, loader};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_core_moves_from_check_to_healthy_and_back() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    let (source, destination) = (cores.source(), cores.destination());
    chown(source.join(DATABASE).join("collection-1.wt"), Some(999), Some(999)).expect("as root");
    cores.step(&["check"]).success();

    let bulk = cores.step(&["bulk", "--json"]);
    assert!(bulk.success().stdout_text().contains("\"event\":\"forecast\""), "{bulk}");
    assert_eq!(cores.status()["copies"]["mongodb"], "warm");
    assert!(cores.history(&destination).is_empty(), "nothing was run there");

    // Same size, same time: only content tells.
    let attachment = "core/core/data/attachments/u1/e1/f1";
    write_at(&source.join(attachment), b"an IMAGE", 1_600_000_000);
    let cold = cores.step(&["cold", "--yes", "--json"]);
    let text = cold.success().stdout_text();
    let downtime = text.lines().find(|line| line.contains("\"event\":\"downtime\"")).expect("a downtime");
    let downtime: Value = serde_json::from_str(downtime).expect("JSON");
    assert!(downtime["downtime_s"].as_f64().is_some_and(|seconds| seconds > 0.0), "{downtime}");
    assert!(downtime["sets_s"]["mongodb"].is_f64() && downtime["forecast_s"].is_f64(), "{downtime}");

    assert!(!cores.is_up(&source) && cores.is_up(&destination));
    assert_eq!(cores.history(&destination), ["permissions", "run"]);
    assert_same(&snapshot(&source.join(ATTACHMENTS)), &snapshot(&destination.join(ATTACHMENTS)), &NOTHING);
    let database = destination.join(DATABASE);
    assert_eq!(fs::metadata(database.join("collection-1.wt")).expect("copied").uid(), 999);
    assert!(!database.join("WiredTigerLog.0000000099").exists() && !database.join("data").exists());

    let status = cores.status();
    assert_eq!((&status["copies"]["mongodb"], &status["is_healthy"]), (&"complete".into(), &true.into()));
    assert!(cores.step(&["cold", "--yes"]).success().stdout_text().contains("going on there"));

    cores.step(&["rollback", "--yes"]).success();
    assert!(cores.is_up(&source) && !cores.is_up(&destination));
    assert_eq!(cores.status()["copies"]["mongodb"], "warm");
}

#[test]
fn migrate_runs_every_step_and_passes_over_what_is_done() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    let unasked = cores.step(&["migrate"]);
    unasked.expect_code(46).expect_stderr("give --yes");
    assert!(cores.is_up(&cores.source()), "nothing was stopped unasked");
    cores.step(&["migrate", "--yes"]).success();
    assert!(cores.is_up(&cores.destination()));
    let again = cores.step(&["migrate", "--yes"]).success().stdout_text();
    for step in ["check: done", "bulk: done", "cold: done"] {
        assert!(again.contains(step), "{again}");
    }
    assert!(cores.step(&["status"]).success().stdout_text().contains("every step is done"));

    let report = cores.step(&["report", "report.html", "--json"]).success().stdout_text();
    let report: Value = serde_json::from_str(report.lines().next().expect("a line")).expect("JSON");
    assert!(report["position"]["downtime_s"].is_f64() && report["checks"].is_array(), "{report}");
    let page = fs::read_to_string(cores.sandbox.home().join("report.html")).expect("it was written");
    assert!(page.contains("mongodb, cold") && page.contains("stop source") && page.ends_with("</html>\n"));
    cores.step(&["report"]).expect_code(1);
    cores.step(&["report", "nowhere/report.html"]).expect_code(11);
}

#[test]
fn a_live_database_is_a_database_after_the_cold_pass() {
    tests::require!("sshd", "root", "wiredtiger");
    let cores = Cores::new();
    let (source, destination) = (cores.source(), cores.destination());
    cores.script("source", "stop-containers");
    fs::remove_dir_all(source.join(DATABASE)).expect("ours");
    let database = Database::create(&source.join(DATABASE), 2, 4000, 7);
    // mongod is WiredTiger's own writer, which knows no clean end: as after the kill that follows 10 s of `docker stop`.
    let writer = format!("setsid {} run core/mongodb/data 2 600 3", loader().display());
    fs::write(
        source.join("run-core"),
        RUN.replace("setsid bash -c 'exec 3>>core/mongodb/data/WiredTiger.lock; exec sleep 1000'", &writer),
    )
    .expect("ours");
    fs::write(destination.join("run-core"), "echo run >> history\ncp -r core/mongodb/data as-started\nprintf 'a\\tcore\\ti\\tUp 1 s\\nb\\tmongodb\\ti\\tUp 1 s\\n' > containers\n")
        .expect("ours");
    cores.write_plan(|plan| plan.replace("max_delete = 20", "max_delete = 1000"));
    cores.script("source", "run-core");
    let bulk = cores.step(&["bulk"]);
    bulk.expect_code_in(&[0, 23]);
    cores.step(&["cold", "--yes"]).success();
    assert_same(&snapshot(database.path()), &snapshot(&destination.join(DATABASE)), &NOTHING);
    assert_eq!(
        database.digest_of(&destination.join("as-started"), &cores.sandbox),
        database.digest(&cores.sandbox)
    );
}

#[test]
fn nothing_is_written_under_a_destination_that_runs() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    let destination = cores.destination();
    let before = snapshot(&destination.join(DATABASE));
    let refused = |sign: &str| {
        for step in [&["bulk"][..], &["bulk", "--dry-run"]] {
            cores.step(step).expect_code(46).expect_stderr(sign);
        }
    };
    fs::write(destination.join("containers"), "d_mongodb_1\tmongodb\timage\tUp 3 minutes\n")
        .expect("a new file");
    refused("container d_mongodb_1");
    fs::remove_file(destination.join("containers")).expect("ours");

    let held = fs::File::open(destination.join(DATABASE).join("WiredTiger")).expect("it is there");
    refused("has ");
    drop(held);
    assert_same(&before, &snapshot(&destination.join(DATABASE)), &NOTHING);

    fs::write(destination.join(DATABASE).join("mongod.lock"), "1\n").expect("ours");
    refused("mongod.lock is not empty");
    assert!(fs::exists(destination.join(DATABASE).join("collection-of-the-first-start.wt")).expect("ours"));
}

#[test]
fn a_source_that_is_not_the_data_deletes_nothing() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    let (source, destination) = (cores.source(), cores.destination());
    fs::rename(source.join(DATABASE).join("WiredTiger"), source.join("aside")).expect("ours");
    cores.step(&["bulk"]).expect_code(46).expect_stderr("there is no WiredTiger at the source");
    fs::rename(source.join("aside"), source.join(DATABASE).join("WiredTiger")).expect("ours");

    for number in 0..30 {
        fs::write(destination.join(DATABASE).join(format!("index-{number}.wt")), "").expect("a new file");
    }
    let rehearsed = cores.step(&["bulk", "--dry-run"]);
    assert!(rehearsed.success().stdout_text().contains("delete 32 entries: MORE than limits"), "{rehearsed}");
    cores.step(&["bulk"]).expect_code(25).expect_stderr("limits.max_delete");
    assert!(destination.join(DATABASE).join("index-29.wt").exists());
}

#[test]
fn a_source_that_changes_in_the_cold_pass_is_refused_and_starts_again() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    let (source, destination) = (cores.source(), cores.destination());
    let writer = "setsid bash -c 'while :; do date +%N > core/core/data/attachments/late; sleep 0.02; done' >/dev/null 2>&1 </dev/null &\necho $! > late-pid\n";
    fs::write(source.join("stop-containers"), format!("{STOP}{writer}")).expect("ours");
    let cold = cores.step(&["cold", "--yes"]);
    cold.expect_code(46).expect_stderr("the source changed while it was copied").expect_stderr("late");
    cold.expect_stderr("not finished; the source serves again");
    assert!(cores.is_up(&source) && !cores.is_up(&destination), "{cold}");
    assert!(cores.history(&destination).is_empty(), "never started on a copy that is not complete");
    assert_eq!(cores.status()["copies"]["attachments"], "warm");
}

#[test]
fn what_still_holds_the_data_open_after_the_stop_is_named() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    let source = cores.source();
    fs::write(source.join("stop-containers"), "rm -f containers\n: > core/mongodb/data/mongod.lock\n")
        .expect("ours");
    let cold = cores.step(&["cold", "--yes"]);
    cold.expect_code(46)
        .expect_stderr("is not stopped")
        .expect_stderr("(sleep) has ")
        .expect_stderr("WiredTiger.lock");
}

#[test]
fn an_unclean_stop_needs_the_operator_s_word() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    let source = cores.source();
    fs::write(source.join("stop-containers"), STOP.replace(": > core/mongodb/data/mongod.lock", ""))
        .expect("ours");
    let cold = cores.step(&["cold", "--yes"]);
    assert!(cold.success().stdout_text().contains("mongod did not end cleanly"), "{cold}");
}

#[test]
fn a_stop_command_that_fails_or_hangs_ends_the_step_with_its_last_words() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    fs::write(cores.source().join("stop-containers"), "echo 'no such project' >&2\nexit 3\n").expect("ours");
    cores.step(&["cold", "--yes"]).expect_code(46).expect_stderr("ended with status 3: no such project");
    let failed = cores.records().into_iter().find(|record| record["state"] == "failed").expect("a record");
    assert_eq!(failed["action"], "stop source");
    fs::write(cores.source().join("stop-containers"), "sleep 1000\n").expect("ours");
    cores.write_plan(|plan| plan.replace("stop_s = 20", "stop_s = 1"));
    cores.step(&["cold", "--yes"]).expect_code(46).expect_stderr("did not end in time");
}

#[test]
fn a_stop_command_that_finds_nothing_to_stop_is_done() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    // As `docker stop $(docker ps -q)` ends where no container runs.
    let nothing =
        "[[ -e containers ]] || { echo '\"docker stop\" requires at least 1 argument.' >&2; exit 1; }\n";
    fs::write(cores.source().join("stop-containers"), format!("{nothing}{STOP}")).expect("ours");
    cores.script("source", "stop-containers");
    let cold = cores.step(&["cold", "--yes"]);
    assert!(cold.success().stdout_text().contains("but nothing of the plan runs there"), "{cold}");
    assert!(cores.is_up(&cores.destination()));
}

#[test]
fn a_destination_that_does_not_get_healthy_gives_way_to_the_source() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    let destination = cores.destination();
    fs::write(
        destination.join("run-core"),
        RUN.replace(
            "mongodb\\tregistry/mongodb:3.6\\tUp 2 seconds",
            "mongodb\\ti\\tRestarting (1) 1 second ago",
        ),
    )
    .expect("ours");
    cores.write_plan(|plan| plan.replace("health_s = 5", "health_s = 1"));
    let cold = cores.step(&["cold", "--yes"]);
    cold.expect_code(46).expect_stderr("c_mongodb_1: Restarting");
    assert!(cores.is_up(&cores.source()) && !cores.is_up(&destination), "{cold}");
}

#[test]
fn after_a_kill_at_any_record_of_the_cold_step_it_goes_on_or_back() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    let (source, destination) = (cores.source(), cores.destination());
    cores.step(&["bulk"]).success();
    // More than a cold step has: the last ones are not killed any more.
    for kept in 1..24 {
        let before = cores.records().len();
        let mut running = Running::start(cores.sandbox.client_command(["cold", "--yes"]));
        until(SOON, "a record to kill at", || {
            (cores.records().len() >= before + kept || running.ended_within(Duration::ZERO)).then_some(())
        });
        running.kill();
        let ended = running.wait();
        // What was begun over SSH ends by itself; then the world stands still.
        cores.sshd.wait_for_agents_to_end(SOON);
        let status = cores.status();
        assert_eq!(status["is_running"], false);
        // It may have been killed between its last record and its end.
        let is_over =
            cores.records().last().is_some_and(|last| last["action"] == "run" && last["state"] == "done");
        if ended.code() == 128 + 9 && !is_over {
            assert!(status["interrupted"].is_array(), "killed at {kept}: {status}");
        }
        if kept % 2 == 0 {
            cores.step(&["cold", "--yes"]).success();
            assert!(!cores.is_up(&source) && cores.is_up(&destination), "killed at {kept}");
        }
        cores.step(&["rollback", "--yes"]).success();
        assert!(cores.is_up(&source) && !cores.is_up(&destination), "killed at {kept}");
    }
    cores.step(&["cold", "--yes"]).success();
    assert_same(&snapshot(&source.join(ATTACHMENTS)), &snapshot(&destination.join(ATTACHMENTS)), &NOTHING);
}

#[test]
fn one_migration_at_a_time_and_a_foreign_journal_is_refused() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    cores.step(&["check"]).success();
    let lock = fs::File::options().write(true).open(cores.state().join("lock")).expect("the journal's lock");
    lock.lock().expect("nobody has it");
    cores.step(&["bulk"]).expect_code(40).expect_stderr("another process");
    assert_eq!(cores.status()["is_running"], true);
    drop(lock);
    cores.write_plan(|plan| plan.replacen("it's the old ROOT", "another ROOT", 1));
    cores.step(&["status"]).expect_code(46).expect_stderr("belongs to another migration");
}

#[test]
fn the_check_names_what_would_go_wrong() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    let (source, destination) = (cores.source(), cores.destination());
    // A volume nobody copies, another image, another secret, a leader's files, other containers under stop-containers.
    let more = "  influxdb:\n    image: influxdb:1.2\n    volumes:\n      - ./core/influxdb/data:/var/lib/influxdb\n";
    fs::write(source.join("core.yml"), format!("{COMPOSE}{more}")).expect("ours");
    fs::write(destination.join("core.yml"), COMPOSE.replace("mongodb:3.6", "mongodb:4.2")).expect("ours");
    fs::write(destination.join("core/core/conf/core.json"), r#"{"auth": {"adminAccessKey": "other"}}"#)
        .expect("ours");
    fs::create_dir(source.join("config-follower")).expect("new");
    let containers = fs::read_to_string(source.join("containers")).expect("it is up");
    fs::write(source.join("containers"), containers + "wiki\t\tmediawiki\tUp 3 years\n").expect("ours");
    fs::write(destination.join("containers"), "d_mongodb_1\tmongodb\timage\tUp 3 minutes\n").expect("ours");
    let register = cores.sandbox.path().join("register");
    fs::create_dir(&register).expect("new");
    let names = r#"{"dns": {"defaultTTL": 7200, "staticDataInDomain": {"co1": {"ip": "127.0.0.1"}}}}"#;
    fs::write(register.join("dns.json"), names).expect("new");
    cores.write_plan(|plan| {
        let host = |name: &str, file: &str| {
            format!(
                "[[register.hosts]]\nname = {name:?}\nroot = {register:?}\ndns_file = {file:?}\nrestart = \"x\"\n"
            )
        };
        let hosts = host("master", "dns.json") + &host("slave", "absent.json");
        plan + "[register]\ncore = \"co1\"\ndomain = \"example.com\"\n" + &hosts
    });
    let check = cores.step(&["check", "--json"]);
    check.expect_code(46);
    for (what, said) in [
        ("register master", "pass: co1 is 127.0.0.1; others remember answers for 2 h 00 min"),
        ("register slave", "fail: there is no "),
        ("source", "pass: "),
        ("agent", "pass: sync-agent "),
        ("volumes", "fail: neither copied nor named as left:\ninfluxdb: ./core/influxdb/data"),
        ("images", "warn: mongodb: registry/mongodb:3.6, here registry/mongodb:4.2"),
        ("secret core/core/conf/core.json#auth.adminAccessKey", "fail: differs"),
        ("layout", "warn: "),
        ("source stop", "warn: bash stop-containers stops every container of the host, these too: wiki"),
        ("destination service", "fail: "),
        ("source user", "pass: root"),
        ("data mongodb", "pass: "),
        ("mongod.lock mongodb", "pass: held"),
        ("clock", "pass: "),
    ] {
        let verdict = cores.verdict(&check, what);
        assert!(verdict.starts_with(said), "{what}: {verdict}");
    }
    assert!(!check.stdout_text().contains("s3cret") && !check.stdout_text().contains("\"other\""), "{check}");
}

#[test]
fn every_volume_of_the_platform_s_own_compose_file_is_accounted_for() {
    tests::require!("sshd", "root");
    let samples = std::env::var_os("SYNC_SAMPLES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/samples"), PathBuf::from);
    let Ok(compose) = fs::read_to_string(samples.join("core/2019-06-core.yml")) else {
        eprintln!(
            "the platform's samples are not here ({}); SYNC_SAMPLES names their place",
            samples.display()
        );
        return;
    };
    let cores = Cores::new();
    for root in [cores.source(), cores.destination()] {
        fs::write(root.join("core.yml"), &compose).expect("ours");
    }
    let verdict = cores.verdict(&cores.step(&["check", "--json"]), "volumes");
    for forgotten in ["./core/influxdb/data/", "./core/hfs/data/", "/dev/log"] {
        assert!(verdict.contains(forgotten), "{verdict}");
    }
    assert!(!verdict.contains("mongodb") && !verdict.contains("/log/\n"), "{verdict}");
    cores.write_plan(|plan| {
        plan.replace(
            "\"core/*/log\"",
            "\"core/*/log\", \"/dev/log\", \"core/influxdb/data\", \"core/hfs/data\"",
        )
    });
    let verdict = cores.verdict(&cores.step(&["check", "--json"]), "volumes");
    assert!(verdict.starts_with("pass"), "{verdict}");
}

#[test]
fn the_system_s_ssh_serves_as_well() {
    tests::require!("sshd", "root", "ssh");
    let cores = Cores::new();
    cores.write_plan(|plan| {
        let known_hosts = cores.sandbox.known_hosts();
        plan.replace(
            "[source.service]",
            &format!(
                "command = \"/usr/bin/ssh -o UserKnownHostsFile={}\"\n[source.service]",
                known_hosts.display()
            ),
        )
        .replacen(&format!("known_hosts = [{known_hosts:?}]\n"), "", 1)
    });
    cores.step(&["migrate", "--yes"]).success();
    assert!(cores.is_up(&cores.destination()));
}

#[test]
fn a_source_that_does_not_answer_is_a_row_and_the_others_are_there() {
    tests::require!("sshd", "root");
    let mut cores = Cores::new();
    cores.sshd.restart_with_new_host_keys();
    let check = cores.step(&["check", "--json"]);
    check.expect_code(46);
    assert!(cores.verdict(&check, "source").contains("HAS CHANGED"), "{check}");
    assert!(cores.verdict(&check, "destination service").starts_with("pass"), "{check}");
    cores.step(&["bulk"]).expect_code(41);
}

#[test]
fn a_step_that_is_stopped_by_a_signal_says_so_and_is_taken_up_again() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    // The script is in the middle: it is waited for, nothing more is begun.
    fs::write(cores.source().join("stop-containers"), format!("{STOP}sleep 1\n")).expect("ours");
    let mut running = Running::start(cores.sandbox.client_command(["cold", "--yes"]));
    until(SOON, "the stop", || {
        (!cores.is_up(&cores.source()) || running.ended_within(Duration::ZERO)).then_some(())
    });
    running.signal(Signal::TERM);
    running.wait().expect_code(20).expect_stderr("sync-client status");
    let last =
        cores.records().into_iter().rev().find(|record| record["action"] == "stop source").expect("a record");
    assert_eq!(last["state"], "done");
    let text = cores.step(&["status"]).success().stdout_text();
    assert!(text.contains("source stopped") && text.contains("next         sync-client cold"), "{text}");
    cores.step(&["cold", "--yes"]).success();
}

#[test]
fn once_clients_reach_the_destination_there_is_no_way_back_but_the_data_s() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    cores.step(&["migrate", "--yes"]).success();
    cores.append_record("proxy", "clients reach destination", "done");
    let rollback = cores.step(&["rollback", "--yes"]);
    rollback
        .expect_code(46)
        .expect_stderr("would lose what they wrote")
        .expect_stderr("sync-client sync --archive");
    cores.step(&["cold", "--yes"]).expect_code(46).expect_stderr("clients reach the destination already");
    assert!(cores.is_up(&cores.destination()) && !cores.is_up(&cores.source()));
}

#[test]
fn a_rehearsal_changes_nothing_and_makes_no_journal() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    let before = (snapshot(&cores.source()), snapshot(&cores.destination()));
    for step in ["check", "bulk", "cold", "rollback"] {
        let output = cores.step(&[step, "--dry-run"]);
        output.success();
        if step == "cold" {
            let text = output.stdout_text();
            assert!(text.contains("would stop the source: bash stop-containers"), "{text}");
        }
    }
    assert!(!cores.state().exists());
    assert_same(&before.0, &snapshot(&cores.source()), &NOTHING);
    assert_same(&before.1, &snapshot(&cores.destination()), &NOTHING);
}

#[test]
fn a_plan_that_is_absent_or_wrong_is_exit_1_and_init_makes_one() {
    let sandbox = Sandbox::new();
    sandbox.client(["status"]).expect_code(1).expect_stderr("check --init");
    let made = sandbox.client(["check", "--init", "--layout", "2020"]);
    fs::write(sandbox.home().join("plan.toml"), &made.success().stdout).expect("a new file");
    sandbox.client(["status"]).success();
    let wrong = made.stdout_text().replace("max_delete", "max_deletes");
    fs::write(sandbox.home().join("plan.toml"), wrong).expect("ours");
    sandbox.client(["status"]).expect_code(1).expect_stderr("do you mean `max_delete`?");
    let mode = fs::metadata(sandbox.home().join("plan.toml")).expect("ours").permissions().mode();
    assert_eq!(mode & 0o111, 0);
}

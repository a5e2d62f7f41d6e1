//! The hazards of the written procedure, row by row: the situation made, the tool's answer seen.
//!
//! [`ROWS`] says which test shows which row. Those that are here are the ones that no other theme has.

use rustix::fs::{XattrFlags, getxattr, setxattr};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use tests::cores::{ATTACHMENTS, Cores, DATABASE, RUN, STOP};
use tests::platform::{NAMES, Platform, SITE};
use tests::process;
use tests::snapshot::{NOTHING, assert_same, snapshot};
use tests::tree::write_at;

/// The row, where its test is, and the test.
const ROWS: [(u32, &str, &str); 47] = [
    (
        1,
        "tests/tests/hazards.rs",
        "row_1_a_destination_that_runs_is_stopped_before_the_cold_pass_or_nothing_is_copied",
    ),
    (1, "tests/tests/migration.rs", "nothing_is_written_under_a_destination_that_runs"),
    (2, "tests/tests/migration.rs", "a_core_moves_from_check_to_healthy_and_back"),
    (2, "tests/tests/migration.rs", "a_source_that_changes_in_the_cold_pass_is_refused_and_starts_again"),
    (2, "tests/tests/migration.rs", "a_live_database_is_a_database_after_the_cold_pass"),
    (3, "tests/tests/migration.rs", "an_unclean_stop_needs_the_operator_s_word"),
    (3, "tests/tests/migration.rs", "the_check_names_what_would_go_wrong"),
    (4, "tests/tests/migration.rs", "a_core_moves_from_check_to_healthy_and_back"),
    (5, "tests/tests/hazards.rs", "row_5_a_database_that_can_not_become_an_exact_mirror_is_never_started"),
    (5, "tests/tests/migration.rs", "a_core_moves_from_check_to_healthy_and_back"),
    (6, "tests/tests/hazards.rs", "row_6_a_slash_more_or_less_nests_no_directory"),
    (7, "tests/tests/hazards.rs", "row_7_who_can_not_give_files_away_is_told_before"),
    (7, "tests/tests/migration.rs", "a_core_moves_from_check_to_healthy_and_back"),
    (8, "tests/tests/hazards.rs", "row_8_attributes_are_copied_unless_they_are_left_behind_by_choice"),
    (9, "tests/tests/migration.rs", "a_source_that_is_not_the_data_deletes_nothing"),
    (10, "tests/tests/migration.rs", "every_volume_of_the_platform_s_own_compose_file_is_accounted_for"),
    (11, "tests/tests/proxy.rs", "the_destination_answers_as_the_source_did_with_path_name_and_websockets"),
    (11, "tests/tests/proxy.rs", "the_written_procedure_to_the_letter_does_what_the_hazards_say"),
    (12, "tests/tests/proxy.rs", "the_destination_answers_as_the_source_did_with_path_name_and_websockets"),
    (12, "tests/tests/proxy.rs", "the_written_procedure_to_the_letter_does_what_the_hazards_say"),
    (13, "tests/tests/proxy.rs", "a_destination_that_can_not_be_verified_gets_no_request_unless_told_so"),
    (13, "tests/tests/proxy.rs", "clients_of_two_names_get_each_their_own_also_over_resumed_tls_sessions"),
    (14, "tests/tests/proxy.rs", "nginx_takes_the_platforms_files_as_edited"),
    (14, "tests/tests/proxy.rs", "what_can_not_be_edited_is_refused_with_its_reason"),
    (14, "sync-client/src/nginx/tests.rs", "upstreams_can_be_named_and_the_others_stay"),
    (
        15,
        "tests/tests/proxy.rs",
        "the_file_keeps_its_link_mode_owner_and_attributes_and_nothing_else_is_loaded",
    ),
    (16, "tests/tests/hazards.rs", "row_16_an_nginx_that_did_not_read_the_edit_is_found_out"),
    (16, "tests/tests/migration_steps.rs", "a_configuration_that_fails_its_test_never_goes_live"),
    (17, "tests/tests/hazards.rs", "row_17_where_nothing_starts_nginx_alone_it_says_so"),
    (
        17,
        "tests/tests/migration_steps.rs",
        "migrate_goes_from_nothing_to_done_and_the_undos_give_the_first_bytes_back",
    ),
    (18, "tests/tests/hazards.rs", "row_18_generated_files_are_a_failed_check_with_the_place_to_edit"),
    (18, "tests/tests/migration_steps.rs", "what_a_config_follower_writes_is_refused_on_every_host"),
    (
        19,
        "tests/tests/hazards.rs",
        "row_19_of_several_addresses_the_source_s_alone_gives_way_and_other_places_are_named",
    ),
    (19, "tests/tests/register.rs", "bad_input_is_refused_with_its_place_and_nothing_is_written"),
    (19, "sync-client/src/register/edit/tests.rs", "the_platforms_own_files_come_back_byte_for_byte"),
    (
        20,
        "tests/tests/hazards.rs",
        "row_20_both_dns_servers_are_asked_before_and_after_and_the_check_says_how_long_others_remember",
    ),
    (20, "tests/tests/migration_steps.rs", "a_dns_server_that_was_not_restarted_is_found_out"),
    (
        21,
        "tests/tests/hazards.rs",
        "row_21_data_copied_back_by_the_lines_that_were_printed_lets_the_source_start",
    ),
    (
        21,
        "tests/tests/migration.rs",
        "once_clients_reach_the_destination_there_is_no_way_back_but_the_data_s",
    ),
    (22, "tests/tests/migration.rs", "the_check_names_what_would_go_wrong"),
    (23, "tests/tests/key.rs", "the_line_lets_nobody_in_from_another_address"),
    (23, "tests/tests/key.rs", "the_line_lets_the_key_read_its_root_and_nothing_else"),
    (23, "tests/tests/key.rs", "remove_takes_the_pair_and_its_lines_and_keeps_every_other_byte"),
    (23, "tests/tests/hazards.rs", "row_23_the_report_and_the_page_say_which_key_is_left"),
    (
        24,
        "tests/tests/hazards.rs",
        "row_24_scripts_without_an_interpreter_run_and_one_that_is_missing_fails_the_check",
    ),
    (24, "tests/tests/migration.rs", "a_core_moves_from_check_to_healthy_and_back"),
    (24, "sync-client/src/migration/host.rs", "a_command_runs_where_it_should_and_tells_how_it_ended"),
];

#[test]
fn every_row_has_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (row, file, test) in ROWS {
        let text = fs::read_to_string(root.join(file)).expect("a file of the repository");
        assert!(
            text.contains(&format!("#[test]\nfn {test}(")) || text.contains(&format!("    fn {test}(")),
            "row {row}: {test} in {file}"
        );
    }
    let shown: Vec<u32> = (1..=24).filter(|row| ROWS.iter().any(|(other, ..)| other == row)).collect();
    assert_eq!(shown.len(), 24, "{shown:?}");
}

#[test]
fn row_1_a_destination_that_runs_is_stopped_before_the_cold_pass_or_nothing_is_copied() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    let (source, destination) = (cores.source(), cores.destination());
    // As step 2 of the written procedure leaves it.
    cores.script("destination", "run-core");
    cores.step(&["bulk"]).expect_code(46).expect_stderr("container c_mongodb_1");
    // Its stop command says yes and does nothing.
    fs::write(destination.join("stop-containers"), "exit 0\n").expect("ours");
    let before = snapshot(&destination.join(DATABASE));
    let cold = cores.step(&["cold", "--yes"]);
    cold.expect_code(46).expect_stderr("the destination is not stopped").expect_stderr("c_mongodb_1");
    assert_same(&before, &snapshot(&destination.join(DATABASE)), &NOTHING);
    assert!(!cores.is_up(&source), "never both at once\n{cold}");

    fs::write(destination.join("stop-containers"), STOP).expect("ours");
    cores.step(&["rollback", "--yes"]).success();
    assert!(cores.is_up(&source) && !cores.is_up(&destination));
    cores.script("destination", "run-core");
    cores.step(&["cold", "--yes"]).success();
    assert_eq!(cores.history(&destination), ["run", "stop", "run", "stop", "permissions", "run"]);
    assert!(!destination.join(DATABASE).join("collection-of-the-first-start.wt").exists());
}

#[test]
fn row_5_a_database_that_can_not_become_an_exact_mirror_is_never_started() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    let (source, destination) = (cores.source(), cores.destination());
    for number in 0..30 {
        let stale = destination.join(DATABASE).join(format!("WiredTigerLog.{number:010}"));
        fs::write(stale, "of another life").expect("a new file");
    }
    let cold = cores.step(&["cold", "--yes"]);
    cold.expect_code(25).expect_stderr("limits.max_delete").expect_stderr("the source serves again");
    assert_eq!(cores.status()["copies"]["mongodb"], "warm", "incomplete");
    assert!(cores.history(&destination).is_empty() && cores.is_up(&source), "{cold}");
    cores.write_plan(|plan| plan.replace("max_delete = 20", "max_delete = 100"));
    cores.step(&["cold", "--yes"]).success();
    let left = fs::read_dir(destination.join(DATABASE)).expect("it is there");
    let names = left.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    assert!(names.into_iter().all(|name| !name.starts_with("WiredTigerLog")));
}

#[test]
fn row_6_a_slash_more_or_less_nests_no_directory() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    let destination = cores.destination();
    for path in [format!("{DATABASE}/"), format!("./{DATABASE}"), DATABASE.to_owned()] {
        cores.write_plan(|plan| {
            plan.replace(&format!("path = \"{DATABASE}\""), &format!("path = \"{path}\""))
        });
        cores.step(&["bulk"]).success();
        assert!(destination.join(DATABASE).join("collection-1.wt").exists(), "{path}");
        assert!(!destination.join(DATABASE).join("data").exists(), "{path}");
    }
}

#[test]
fn row_7_who_can_not_give_files_away_is_told_before() {
    tests::require!("sshd", "root", "setpriv");
    const SOMEBODY: u32 = 12345;
    let cores = Cores::new();
    chown(cores.source().join(DATABASE).join("collection-1.wt"), Some(999), Some(999)).expect("as root");
    let sandbox = &cores.sandbox;
    // What that user needs: the way, a home and a key of their own.
    fs::set_permissions(sandbox.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    for path in [sandbox.home(), sandbox.home().join(".ssh"), sandbox.key(), sandbox.known_hosts()] {
        chown(path, Some(SOMEBODY), Some(SOMEBODY)).expect("as root");
    }
    cores.write_plan(|plan| {
        plan.replacen("[source.ssh]\n", "[source.ssh]\nuser = \"root\"\n", 1).replace(
            &format!("state_dir = {:?}", cores.state()),
            &format!("state_dir = {:?}", sandbox.home().join("state")),
        )
    });
    let client = sandbox.client_command(["check", "--json"]);
    let mut command = sandbox.command("setpriv");
    let id = SOMEBODY.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    command.arg(client.get_program()).args(client.get_args()).current_dir(sandbox.home());
    let check = process::run(command);
    check.expect_code(46);
    let verdict = cores.verdict(&check, "destination user");
    assert!(
        verdict.starts_with("fail: not root, and ") && verdict.contains("run sync-client as root here"),
        "{verdict}"
    );
    assert_eq!(cores.verdict(&check, "source user"), "pass: root: reads everything, sees every process");
}

#[test]
fn row_8_attributes_are_copied_unless_they_are_left_behind_by_choice() {
    tests::require!("sshd", "root", "getfattr");
    let cores = Cores::new();
    let data = cores.source().join(ATTACHMENTS);
    let preview = data.join("previews/u1/e1/256.jpg");
    fs::create_dir_all(data.join("previews/u1/e1")).expect("new");
    write_at(&preview, b"small", 1_600_000_000);
    setxattr(&preview, "user.pryv.eventModified", b"1", XattrFlags::empty())
        .expect("a file system with attributes");
    let check = |key: &str, code: u8| {
        cores.write_plan(|plan| {
            plan.replace("sentinels = [\"attachments\"]", &format!("sentinels = [\"attachments\"]\n{key}"))
        });
        let check = cores.step(&["check", "--json"]);
        check.expect_code(code.into());
        check
    };
    let kept = cores.verdict(&check("", 0), "attributes attachments");
    assert_eq!(kept, "pass: 1 with extended attributes, previews/u1/e1/256.jpg for one: copied with them");
    cores.step(&["bulk"]).success();
    let copy = cores.destination().join(ATTACHMENTS).join("previews/u1/e1/256.jpg");
    let value = |file: &Path| {
        let mut buffer = [0; 16];
        let length = getxattr(file, "user.pryv.eventModified", &mut buffer[..]).ok()?;
        Some(buffer[..length].to_vec())
    };
    assert_eq!(value(&copy), Some(b"1".to_vec()));
    let chosen = cores.verdict(&check("xattrs = false", 0), "attributes attachments");
    assert!(chosen.contains("left behind by choice"), "{chosen}");
    fs::remove_file(&copy).expect("ours");
    cores.step(&["bulk"]).success();
    assert_eq!(value(&copy), None, "copied without");
    let excluded = check("exclude = [\"/previews\"]", 0);
    assert!(!excluded.stdout_text().contains("attributes attachments"), "{excluded}");
    fs::remove_dir_all(data.join("previews")).expect("ours");
    assert!(!check("", 0).stdout_text().contains("attributes attachments"));
}

#[test]
fn row_16_an_nginx_that_did_not_read_the_edit_is_found_out() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let platform = Platform::new();
    let cores = &platform.cores;
    platform.until_cold();
    // It runs on the old file, and what should restart it does nothing, as `up -d` where only a mounted file changed.
    cores.script("source", "nginx-start");
    let start = cores.source().join("nginx-start");
    let text = fs::read_to_string(&start).expect("ours");
    fs::write(&start, "true\n").expect("ours");
    let enabled = cores.step(&["proxy", "enable", "--yes"]);
    enabled.expect_code(46).expect_stderr("did not answer with the destination within 5 s");
    let status = cores.status();
    assert_eq!(status["next"], "sync-client proxy enable", "{status}");
    fs::write(&start, text).expect("ours");
    cores.step(&["proxy", "enable", "--yes"]).success();
}

#[test]
fn row_17_where_nothing_starts_nginx_alone_it_says_so() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let platform = Platform::new();
    let cores = &platform.cores;
    let plan = cores.sandbox.home().join("plan.toml");
    let text = fs::read_to_string(&plan).expect("ours").replace("start = \"nginx-start\"\n", "");
    fs::write(&plan, text).expect("ours");
    let check = cores.step(&["check", "--json"]);
    let verdict = cores.verdict(check.success(), "proxy start");
    assert!(verdict.starts_with("warn: ") && verdict.contains("run-core would start mongod"), "{verdict}");
    platform.until_cold();
    let enabled = cores.step(&["proxy", "enable", "--yes"]);
    enabled.expect_code(46);
    assert!(enabled.stdout_text().contains("start NGINX on the source now, and it alone"), "{enabled}");
    cores.script("source", "nginx-start");
    cores.step(&["proxy", "enable", "--yes"]).success();
}

#[test]
fn row_18_generated_files_are_a_failed_check_with_the_place_to_edit() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let platform = Platform::new();
    let cores = &platform.cores;
    let check = cores.step(&["check", "--json"]);
    check.success();
    let verdict = cores.verdict(&check, "proxy file");
    assert!(
        verdict.starts_with("pass: ") && verdict.contains("core_server would go with 1 proxy_pass"),
        "{verdict}"
    );
    for root in [cores.source(), platform.registers[1].root.clone()] {
        fs::create_dir(root.join("config-follower")).expect("new");
    }
    let check = cores.step(&["check", "--json"]);
    check.expect_code(46);
    for what in ["proxy file", "register slave"] {
        let verdict = cores.verdict(&check, what);
        assert!(
            verdict.starts_with("fail: ") && verdict.contains("config-leader on the leader's machine"),
            "{verdict}"
        );
    }
    assert!(cores.verdict(&check, "register master").starts_with("pass: "), "{check}");
}

#[test]
fn a_proxy_that_could_not_be_enabled_is_a_failed_check() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let platform = Platform::new();
    let cores = &platform.cores;
    let file = cores.source().join(SITE);
    let site = platform.site();
    for (text, said) in [
        (site.replace("upstream core_server", "upstream other_server"), "core_server"),
        (site.replace("server {", "server {{"), "line 1"),
    ] {
        fs::write(&file, text).expect("ours");
        let check = cores.step(&["check", "--json"]);
        let verdict = cores.verdict(check.expect_code(46), "proxy file");
        assert!(verdict.starts_with("fail: ") && verdict.contains(said), "{verdict}");
    }
    fs::remove_file(&file).expect("ours");
    let check = cores.step(&["check", "--json"]);
    assert!(
        cores.verdict(check.expect_code(46), "proxy file").starts_with("fail: source: cannot"),
        "{check}"
    );
    assert!(cores.verdict(&check, "proxy certificate").starts_with("warn: "), "{check}");
}

#[test]
fn row_19_of_several_addresses_the_source_s_alone_gives_way_and_other_places_are_named() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let platform = Platform::new();
    let cores = &platform.cores;
    let [master, slave] = &platform.registers;
    let names = r#"{"dns": {"defaultTTL": 7200, "staticDataInDomain": {
  "mail": {"ip": "127.0.0.1"}, "co1": {"description": "two", "ip": ["192.0.2.7", "127.0.0.1"]}
}}}"#;
    for host in [master, slave] {
        for file in ["conf/dns.json", "served"] {
            fs::write(host.root.join(file), names).expect("ours");
        }
    }
    platform.until_cold();
    let set = cores.step(&["register", "set", "--yes"]);
    set.success().expect_stderr("127.0.0.1 also stands in ");
    let expected = names.replace("\"192.0.2.7\", \"127.0.0.1\"", "\"192.0.2.7\", \"127.0.0.2\"");
    assert_eq!((master.text(), slave.text()), (expected.clone(), expected.clone()));
    cores.step(&["register", "set", "--yes"]).success();
    assert_eq!(master.text(), expected, "again");
    cores.step(&["register", "undo", "--yes"]).success();
    assert_eq!(master.text(), names);
    fs::write(slave.root.join("conf/dns.json"), names.replace("\"127.0.0.1\"]", "\"192.0.2.8\"]"))
        .expect("ours");
    cores.step(&["register", "set", "--yes"]).expect_code(46).expect_stderr("none is the source's");
    assert_eq!(master.text(), names, "no host is touched");
}

#[test]
fn row_20_both_dns_servers_are_asked_before_and_after_and_the_check_says_how_long_others_remember() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let mut platform = Platform::with_register_hosts_behind_ssh();
    let cores = &platform.cores;
    let check = cores.step(&["check", "--json"]);
    check.success();
    for name in ["master", "slave"] {
        let verdict = cores.verdict(&check, &format!("register {name}"));
        assert!(
            verdict.starts_with("pass: co1 is 127.0.0.1; others remember answers for 2 h 00 min"),
            "{verdict}"
        );
        let verdict = cores.verdict(&check, &format!("DNS of {name}"));
        assert!(
            verdict.starts_with("pass: ") && verdict.ends_with("answers co1.example.com with 127.0.0.1"),
            "{verdict}"
        );
    }
    platform.until_cold();
    cores.step(&["register", "set", "--yes"]).success();
    for host in &platform.registers {
        assert_eq!(host.text(), NAMES.replace("127.0.0.1", "127.0.0.2"));
        assert_eq!(fs::read_to_string(host.root.join("history")).expect("restarted"), "restart\n");
        let log = host.sshd.as_ref().expect("behind one").log();
        assert!(log.contains("Accepted publickey"), "by the host's own sshd\n{log}");
    }
    cores.step(&["register", "undo", "--yes"]).success();
    for host in &platform.registers {
        assert_eq!(host.text(), NAMES);
        assert!(!host.root.join("conf/dns.json.sync-client-undo").exists());
    }
    // The slave is away: the master is not touched.
    platform.registers[1].sshd.as_mut().expect("behind one").stop();
    let cores = &platform.cores;
    cores.step(&["register", "set", "--yes"]).expect_code(10);
    assert_eq!(platform.registers[0].text(), NAMES);
    let check = cores.step(&["check", "--json"]);
    assert!(cores.verdict(&check, "register slave").starts_with("fail: "), "{check}");
    assert!(cores.verdict(&check, "register master").starts_with("pass: "), "{check}");
}

#[test]
fn row_21_data_copied_back_by_the_lines_that_were_printed_lets_the_source_start() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let platform = Platform::new();
    let cores = &platform.cores;
    let (source, destination) = (cores.source(), cores.destination());
    cores.step(&["migrate", "--yes"]).success();
    // A client's work.
    fs::create_dir(destination.join(ATTACHMENTS).join("attachments/u1/e2")).expect("new");
    write_at(&destination.join(ATTACHMENTS).join("attachments/u1/e2/f2"), b"of the new core", 1_600_000_500);
    let returned = ["rollback", "--data-returned", "--yes"];
    cores.step(&returned).expect_code(46).expect_stderr("clients are still sent to the destination by ");
    cores.step(&["register", "undo", "--yes"]).success();
    cores.step(&["proxy", "disable", "--yes"]).success();
    let refused = cores.step(&["rollback", "--yes"]);
    refused.expect_code(46).expect_stderr("sync-client rollback --data-returned");
    let early = cores.step(&returned);
    early
        .expect_code(46)
        .expect_stderr("attachments: 0 files differ, 2 entries are at the destination alone");
    assert!(!cores.is_up(&source) && !cores.is_up(&destination), "{early}");

    let text = refused.stderr_text();
    let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  sync-client ")).collect();
    assert_eq!(lines.len(), 2, "{refused}");
    for line in lines {
        let client = cores.sandbox.client_command(["x"]);
        let mut command = cores.sandbox.command("/bin/sh");
        command.arg("-c").arg(format!("exec '{}' {line}", client.get_program().to_string_lossy()));
        process::run(command).success();
    }
    let back = cores.step(&returned);
    assert!(back.success().stdout_text().contains("The source holds what the destination holds"), "{back}");
    assert!(cores.is_up(&source) && !cores.is_up(&destination));
    assert!(source.join(ATTACHMENTS).join("attachments/u1/e2/f2").exists());
    let status = cores.status();
    assert_eq!(
        (&status["has_served"], &status["back"]),
        (&false.into(), &"nothing to do: the source was started again".into())
    );
    cores.step(&["migrate", "--yes"]).success();
    assert!(cores.is_up(&destination) && !cores.is_up(&source), "another migration");
}

#[test]
fn a_source_that_was_started_by_hand_is_taken_on_the_operator_s_word() {
    tests::require!("sshd", "root", "nginx", "openssl", "curl");
    let platform = Platform::new();
    let cores = &platform.cores;
    cores.step(&["migrate", "--yes"]).success();
    cores.step(&["register", "undo", "--yes"]).success();
    cores.step(&["proxy", "disable", "--yes"]).success();
    cores.script("destination", "stop-containers");
    cores.script("source", "run-core");
    cores.step(&["rollback", "--data-returned"]).expect_code(46).expect_stderr("The source is up already");
    assert_eq!(cores.status()["has_served"], true);
    cores.step(&["rollback", "--data-returned", "--yes"]).success();
    assert!(cores.is_up(&cores.source()));
    assert_eq!(cores.status()["has_served"], false);
}

#[test]
fn row_23_the_report_and_the_page_say_which_key_is_left() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    cores.step(&["migrate", "--yes"]).success();
    let report = cores.step(&["report", "report.html", "--json"]).success().stdout_text();
    let page = fs::read_to_string(cores.sandbox.home().join("report.html")).expect("it was written");
    let key = format!("sync-client key remove --file {}", cores.sandbox.key().display());
    assert!(report.contains(&key) && page.contains(&key), "{report}");
    assert!(page.contains("Decommission the source") && page.contains("it took"), "{page}");
}

#[test]
fn row_24_scripts_without_an_interpreter_run_and_one_that_is_missing_fails_the_check() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    let run = cores.destination().join("run-core");
    assert!(RUN.starts_with(" #!"), "an interpreter's line behind a space is none");
    assert!(Command::new(&run).spawn().is_err(), "it can't be executed");
    fs::remove_file(cores.destination().join("ensure-permissions-core")).expect("ours");
    let check = cores.step(&["check", "--json"]);
    let verdict = cores.verdict(check.expect_code(46), "destination commands");
    assert!(
        verdict.starts_with("fail: ensure_permissions: there is no ensure-permissions-core"),
        "{verdict}"
    );
    assert_eq!(cores.verdict(&check, "source commands"), "pass: all there");
}

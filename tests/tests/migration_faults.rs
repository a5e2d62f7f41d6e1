//! What happens around a migration while it is under way: a service started by hand, a plan that was edited, a script that
//! leaves a process behind, a full disk, a signal at a bad moment. Each made, and the tool's answer seen.

use std::fs;
use std::time::Duration;
use tests::cores::{ATTACHMENTS, Cores, DATABASE, RUN, STOP};
use tests::mount::Tmpfs;
use tests::process::Signal;
use tests::sandbox::write_script;

#[test]
fn nothing_is_copied_over_what_clients_wrote_at_the_destination() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    cores.step(&["migrate", "--yes"]).success();
    cores.append_record("proxy", "clients reach destination", "done");
    cores.script("destination", "stop-containers");
    let written = cores.destination().join(DATABASE).join("collection-1.wt");
    fs::write(&written, "what a client wrote").expect("ours");
    for step in [&["bulk"][..], &["bulk", "--dry-run"]] {
        cores.step(step).expect_code(46).expect_stderr("clients reach the destination");
    }
    assert_eq!(fs::read(&written).expect("it is there"), b"what a client wrote");
}

#[test]
fn a_copy_is_complete_only_for_the_directories_it_was_made_of() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    cores.step(&["cold", "--yes"]).success();
    let (path, elsewhere) = (format!("path = \"{ATTACHMENTS}\""), "core/elsewhere");
    cores.edit_plan(|plan| plan.replace(&path, &format!("{path}\ndestination_path = \"{elsewhere}\"")));
    assert_eq!(cores.status()["copies"]["attachments"], "warm");
    cores.step(&["cold", "--yes"]).success();
    let copied = cores.destination().join(elsewhere).join("attachments/u1/e1/f1");
    assert_eq!(fs::read(copied).expect("it was copied"), b"an image");
    assert_eq!(cores.status()["copies"]["attachments"], "complete");
}

#[test]
fn a_source_that_was_started_by_hand_is_not_left_behind() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    let (source, destination) = (cores.source(), cores.destination());
    cores.step(&["cold", "--yes"]).success();
    cores.script("source", "run-core");
    fs::write(source.join(ATTACHMENTS).join("late"), "what a client wrote").expect("ours");
    let cold = cores.step(&["cold", "--yes"]);
    assert!(cold.success().stdout_text().contains("The source's service runs again"), "{cold}");
    assert!(!cores.is_up(&source) && cores.is_up(&destination), "{cold}");
    let late = fs::read(destination.join(ATTACHMENTS).join("late"));
    assert_eq!(late.expect("it was copied"), b"what a client wrote");
}

#[test]
fn a_script_that_leaves_a_process_behind_is_not_waited_for() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    for root in [cores.source(), cores.destination()] {
        // What it starts keeps the script's output open, as a program does that was sent to the background by hand.
        fs::write(root.join("run-core"), RUN.replace(">/dev/null 2>&1 </dev/null &", "</dev/null &"))
            .expect("ours");
    }
    cores.step(&["cold", "--yes"]).success();
    cores.step(&["rollback", "--yes"]).success();
    assert!(cores.is_up(&cores.source()));
}

#[test]
fn a_signal_between_two_commands_of_the_downtime_ends_it_without_a_question() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    let (source, mark) = (cores.source(), cores.source().join("asked"));
    // The proof that the source is stopped takes its time.
    let docker = "#!/bin/sh\n[ -e slow ] && touch asked && sleep 30\ncat containers 2>/dev/null\nexit 0\n";
    write_script(&cores.docker(), docker);
    fs::write(source.join("stop-containers"), format!("{STOP}touch slow\n")).expect("ours");
    let mut running = cores.start_until(&["cold", "--yes"], &mark);
    running.signal(Signal::TERM);
    let cold = running.wait();
    cold.expect_code(20);
    assert!(cold.stdout_text().contains("`sync-client rollback` starts it again"), "{cold}");
    assert!(!cold.stdout_text().contains("Start the source"), "{cold}");
    fs::remove_file(source.join("slow")).expect("ours");
    cores.step(&["rollback", "--yes"]).success();
}

#[test]
fn a_signal_ends_the_wait_for_a_destination_that_does_not_answer() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    let mark = cores.destination().join("asked");
    cores.edit_plan(|plan| {
        let health = "health = [\"sh\", \"-c\", \"touch asked; sleep 50\"]\nhealth_s = 50\n";
        let (source, destination) = plan.split_once("[destination.service]\n").expect("a section");
        let destination = destination.replace("health_s = 5\n", "");
        format!("{source}[destination.service]\n{health}{destination}")
    });
    let mut running = cores.start_until(&["cold", "--yes"], &mark);
    running.signal(Signal::TERM);
    running.wait_within(Duration::from_secs(30)).expect_code(20);
}

#[test]
fn a_journal_that_can_t_be_written_in_the_downtime_says_how_the_source_comes_back() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    fs::create_dir(cores.state()).expect("new");
    let small = Tmpfs::mount(&cores.state(), 64 << 10);
    let _ = cores.step(&["check"]);
    // The journal's last page is almost full, and there is no other.
    let len = fs::metadata(cores.state().join("journal.jsonl")).expect("a journal").len() as usize;
    cores.append_record(&"x".repeat((2 << 12) - 600 - len % (1 << 12)), "opened", "noted");
    let fill = format!("head -c 1M /dev/zero > {}/full\ntrue\n", small.path().display());
    fs::write(cores.source().join("stop-containers"), format!("{STOP}{fill}")).expect("ours");
    let cold = cores.step(&["cold", "--yes"]);
    cold.expect_code(11).expect_stderr("journal.jsonl");
    assert!(cold.stdout_text().contains("(bash run-core in "), "{cold}");
}

#[test]
fn a_source_that_can_t_be_started_again_is_not_taken_for_one_that_was_never_stopped() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    // Still held open, so that the destination is never touched.
    for (name, text) in [("stop-containers", "rm -f containers\n"), ("run-core", "exit 3\n")] {
        fs::write(cores.source().join(name), text).expect("ours");
    }
    cores.step(&["cold", "--yes"]).expect_code(46).expect_stderr("the source could not be started");
    let status = cores.status();
    assert!(status["back"].as_str().is_some_and(|back| back.starts_with("sync-client rollback")), "{status}");
    assert!(status["stopped_ms"].is_u64(), "the clients wait all the time: {status}");
}

#[test]
fn a_log_that_can_t_be_read_is_no_reason_to_go_back() {
    tests::require!("sshd", "root");
    let cores = Cores::new();
    // Answers once for a service that is up, and no more.
    let docker =
        "#!/bin/sh\n[ -e containers ] || exit 0\n[ -e asked ] && exit 1\ntouch asked\ncat containers\n";
    write_script(&cores.docker(), docker);
    let cold = cores.step(&["cold", "--yes"]);
    assert!(cold.success().stdout_text().contains("Downtime: "), "{cold}");
    assert!(cores.is_up(&cores.destination()) && !cores.is_up(&cores.source()));
}

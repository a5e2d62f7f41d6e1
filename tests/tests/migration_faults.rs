//! What happens around a migration while it is under way: a service started by hand, a plan that was edited, a script that
//! leaves a process behind, a full disk, a signal at a bad moment. Each made, and the tool's answer seen.

use std::fs;
use tests::cores::{ATTACHMENTS, Cores, DATABASE};

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

//! The whole migration on the whole platform: real Docker Engines, compose projects, NGINX with TLS, WiredTiger with a
//! writer, DNS answers from the register's file ([`tests::deployment`]). From nothing to done, and the undos; killed at every
//! step boundary and gone on with; back from wherever that is safe, and refused where it is not.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use tests::boundary::{key, kill_at};
use tests::deployment::{ATTACHMENTS, DATABASE, Deployment, NAMES, SERVICES, SITE, SOON};
use tests::engine::NEEDED;
use tests::process::{Output, until};
use tests::snapshot::{NOTHING, assert_same, snapshot};

/// Ends the test where the platform can't be.
macro_rules! require_platform {
    () => {
        for name in NEEDED {
            tests::require!(name);
        }
        tests::require!("sshd", "nginx", "openssl", "curl", "wiredtiger", "strip");
    };
}

/// The first bytes of what is edited.
struct Files {
    site: Vec<u8>,
}

impl Files {
    fn of(platform: &Deployment) -> Files {
        Files { site: fs::read(platform.source.root().join(SITE)).expect("it is there") }
    }

    fn assert_as_they_were(&self, platform: &Deployment) {
        assert!(fs::read(platform.source.root().join(SITE)).expect("it is there") == self.site);
        for register in &platform.registers {
            assert_eq!(register.text(), NAMES);
        }
    }
}

/// What is true of a migration that is done.
fn assert_done(platform: &Deployment) {
    let (source, destination) = (&platform.source, &platform.destination);
    assert_eq!(source.engine.services(), ["reverse_proxy"], "NGINX alone");
    assert_eq!(destination.engine.services(), SERVICES);
    let (old, new) = (source.root(), destination.root());
    // Nothing writes to the source's any more; the destination's was put aside before it was started.
    assert_eq!(
        platform.digest(&destination.machine.srv().join("as-copied")),
        platform.digest(&old.join(DATABASE))
    );
    let attachments = |root: &std::path::Path| snapshot(&root.join(ATTACHMENTS).join("attachments"));
    assert_same(&attachments(&old), &attachments(&new), &NOTHING);
    let owner = |path: &str| fs::metadata(new.join(path)).expect("copied").uid();
    assert_eq!((owner(&format!("{DATABASE}/WiredTiger")), owner(ATTACHMENTS)), (999, 9999));
    assert!(!new.join(DATABASE).join("WiredTigerLog.0000000099").exists());

    for at in ["destination", "source"] {
        platform.step(&["probe", "check", "--at", at]).success();
    }
    let status = platform.status();
    assert_eq!(status["next"], "nothing: every step is done");
    assert_eq!(status["serving"], json!(["proxy", "register"]));
}

#[test]
fn the_platform_moves_from_nothing_to_done_and_the_undos_give_the_first_bytes_back() {
    require_platform!();
    let platform = Deployment::start();
    let (source, destination) = (&platform.source, &platform.destination);
    let (old_address, new_address) = (source.machine.address(), destination.machine.address());
    let files = Files::of(&platform);
    platform.step(&["probe", "create"]).success();
    let seen = ["/previews/events/e1", "/streams"].map(|path| platform.ask(old_address, path));
    platform.step(&["migrate", "--yes"]).success();
    assert_done(&platform);

    assert_eq!(seen[0].lines().last(), Some("preview of /events/e1"));
    // At the source's address the destination answers, the same to every kind of request, and its logs show them.
    let sent_on = ["/previews/events/e1", "/streams"].map(|path| platform.ask(old_address, path));
    assert_eq!(sent_on[0].lines().last(), seen[0].lines().last());
    assert_eq!(sent_on[1].lines().next(), seen[1].lines().next());
    for address in [old_address, new_address] {
        assert_eq!(platform.websocket(address, "ping").as_deref(), Some("ping"), "{address}");
    }
    let log = destination.engine.docker(&["logs", "pryv_core_1"]);
    for request in ["GET /streams 401", "GET /socket.io/1/ 101"] {
        assert!(log.success().stdout_text().contains(request), "{log}");
    }

    platform.step(&["rollback", "--yes"]).expect_code(46).expect_stderr("would lose what they wrote");
    platform.step(&["cold", "--yes"]).expect_code(46);
    platform.step(&["proxy", "disable", "--yes"]).success();
    platform.step(&["register", "undo", "--yes"]).success();
    files.assert_as_they_were(&platform);
    assert_eq!(source.engine.services(), [""; 0]);
    platform.step(&["rollback", "--yes"]).expect_code(46).expect_stderr("or did, so going back would lose");
    assert_eq!(platform.status()["serving"], json!([]));
}

/// Runs `migrate --yes` until the journal has a new record that `is_boundary`, and kills it there.
fn migrate_until(platform: &Deployment, is_boundary: impl FnMut(&Value) -> bool) -> Result<Value, Output> {
    let known = platform.records().len();
    kill_at(platform.start_step(&["migrate", "--yes"]), known, || platform.records(), is_boundary)
}

/// Before an action, and after what the next one relies on. After any other action is before the next.
fn is_boundary(record: &Value) -> bool {
    record["state"] == "begun" || record["action"] == "destination healthy" || record["action"] == "complete"
}

#[test]
fn it_goes_back_from_every_step_until_clients_are_sent_on() {
    require_platform!();
    let platform = Deployment::start();
    let (source, destination) = (&platform.source, &platform.destination);
    let files = Files::of(&platform);
    platform.step(&["probe", "create"]).success();
    for boundary in [
        ["bulk", "pass", "begun"],
        ["cold", "stop source", "begun"],
        ["cold", "pass", "begun"],
        ["cold", "start destination", "begun"],
        ["cold", "destination healthy", "done"],
        ["proxy", "edit", "begun"],
    ] {
        let reached = migrate_until(&platform, |record| key(record) == boundary);
        reached.unwrap_or_else(|output| panic!("{boundary:?} was not reached\n{output}"));
        platform.step(&["rollback", "--yes"]).success();
        assert_eq!(source.engine.services(), SERVICES, "back from {boundary:?}");
        assert_eq!(destination.engine.services(), [""; 0], "back from {boundary:?}");
        files.assert_as_they_were(&platform);
        until(SOON, "the account, at the source", || {
            (platform.step(&["probe", "check", "--at", "source"]).code() == 0).then_some(())
        });
    }
    let beyond = ["proxy", "clients reach destination", "begun"];
    migrate_until(&platform, |record| key(record) == beyond).expect("the point of no return");
    platform.step(&["rollback", "--yes"]).expect_code(46).expect_stderr("would lose what they wrote");
    assert_eq!(destination.engine.services(), SERVICES, "nothing was stopped");
    platform.step(&["migrate", "--yes"]).success();
    assert_done(&platform);
}

#[test]
fn killed_at_every_boundary_it_goes_on_to_the_same_end() {
    require_platform!();
    let platform = Deployment::start();
    let files = Files::of(&platform);
    platform.step(&["probe", "create"]).success();
    let mut seen = BTreeSet::new();
    let last = loop {
        // What it began goes on while the next run begins.
        let killed = migrate_until(&platform, |record| is_boundary(record) && seen.insert(key(record)));
        let Err(output) = killed else { continue };
        break output;
    };
    last.success();
    assert!(seen.len() > 20, "{seen:?}");
    assert_done(&platform);
    platform.step(&["register", "undo", "--yes"]).success();
    platform.step(&["proxy", "disable", "--yes"]).success();
    files.assert_as_they_were(&platform);
}

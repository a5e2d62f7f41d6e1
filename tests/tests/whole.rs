//! The whole migration on the whole platform: real Docker Engines, compose projects, NGINX with TLS, WiredTiger with a
//! writer, DNS answers from the register's file ([`tests::platform`]). From nothing to done, and the undos; killed at every
//! step boundary and gone on with; back from wherever that is safe, and refused where it is not.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use tests::engine::NEEDED;
use tests::platform::{ATTACHMENTS, DATABASE, NAMES, Platform, SERVICES, SITE, SOON};
use tests::process::{Output, Signal, descendants_named, signal, until};
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
    fn of(platform: &Platform) -> Files {
        Files { site: fs::read(platform.source.root().join(SITE)).expect("it is there") }
    }

    fn assert_as_they_were(&self, platform: &Platform) {
        assert!(fs::read(platform.source.root().join(SITE)).expect("it is there") == self.site);
        for register in &platform.registers {
            assert_eq!(register.text(), NAMES);
        }
    }
}

/// What is true of a migration that is done.
fn assert_done(platform: &Platform) {
    let (source, destination) = (&platform.source, &platform.destination);
    assert_eq!(source.engine.services(), ["reverse_proxy"], "NGINX alone");
    assert_eq!(destination.engine.services(), SERVICES);
    let (old, new) = (source.root(), destination.root());
    // Nothing writes to the source's any more; the destination's was put aside before it was started.
    assert_eq!(platform.digest(&destination.machine.srv().join("as-copied")), platform.digest(&old.join(DATABASE)));
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
    let platform = Platform::start();
    let (source, destination) = (&platform.source, &platform.destination);
    let (old_address, new_address) = (source.machine.address(), destination.machine.address());
    let files = Files::of(&platform);
    platform.step(&["probe", "create"]).success();
    let seen = ["/previews/events/e1", "/streams"].map(|path| platform.ask(old_address, path));
    platform.step(&["migrate", "--yes"]).success();
    assert_done(&platform);

    assert_eq!(seen[0].lines().last(), Some("preview of /events/e1"));
    // At the source's address the destination answers, the same to every kind of request, and its logs show them.
    let sent_on = platform.ask(old_address, "/previews/events/e1");
    assert_eq!(sent_on.lines().last(), seen[0].lines().last());
    assert!(platform.ask(old_address, "/streams").starts_with("HTTP/1.1 401"), "{}", seen[1]);
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

/// Runs `migrate --yes` until the journal has a new record that `is_boundary`, and kills it there; gives that record, or how
/// it ended before.
fn migrate_until(platform: &Platform, mut is_boundary: impl FnMut(&Value) -> bool) -> Result<Value, Output> {
    let mut known = platform.records().len();
    let mut running = platform.start_step(&["migrate", "--yes"]);
    let boundary = until(SOON, "the next boundary", || {
        let has_ended = running.ended_within(Duration::ZERO);
        let records = platform.records();
        let new = records.get(known..).unwrap_or_default();
        known = records.len();
        match new.iter().filter(|record| is_boundary(record)).last() {
            Some(record) => Some(Some(record.clone())),
            None => has_ended.then_some(None),
        }
    });
    for client in descendants_named(running.id(), "sync-client") {
        signal(client, Signal::KILL);
    }
    let output = running.wait();
    boundary.filter(|_| output.code() == 128 + 9).ok_or(output)
}

fn key(record: &Value) -> [String; 3] {
    ["step", "action", "state"].map(|field| record[field].as_str().unwrap_or_default().to_owned())
}

#[test]
fn killed_at_every_boundary_it_goes_on_to_the_same_end() {
    require_platform!();
    let platform = Platform::start();
    let files = Files::of(&platform);
    platform.step(&["probe", "create"]).success();
    let mut seen = BTreeSet::new();
    let from = std::time::Instant::now();
    let last = loop {
        match migrate_until(&platform, |record| seen.insert(key(record))) {
            Ok(record) => println!("{:?} {:?}", from.elapsed(), key(&record)),
            Err(output) => break output,
        }
        assert_eq!(platform.status()["is_running"], false);
    };
    println!("{last}");
    last.success();
    assert_done(&platform);
    platform.step(&["register", "undo", "--yes"]).success();
    platform.step(&["proxy", "disable", "--yes"]).success();
    files.assert_as_they_were(&platform);
}

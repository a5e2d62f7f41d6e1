//! A live database, moved as an operator does it: bulk passes while it is written, then a last one when it stands.

use std::time::{Duration, SystemTime};
use tests::directions::{ALL, Direction, Stage, Transport};
use tests::process::until;
use tests::sandbox::Sandbox;
use tests::snapshot::{NOTHING, assert_same, snapshot};
use tests::wiredtiger::Database;
use walkdir::WalkDir;

const OPTIONS: [&str; 2] = ["-a", "--delete"];
const SOON: Duration = Duration::from_secs(60);

/// When any of its files was written last; files may come and go meanwhile.
fn last_write(database: &Database) -> Option<SystemTime> {
    let files = WalkDir::new(database.path()).into_iter().filter_map(Result::ok);
    files.filter_map(|file| file.metadata().ok()?.modified().ok()).max()
}

fn moved_while_written(direction: Direction) {
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    let database = Database::create(&sandbox.source().join("db"), 2, 20_000, 1);
    let (from, to) = (format!("{}/", database.path().display()), sandbox.destination().display().to_string());
    let sync = |options: &[&str]| stage.sync(&sandbox, direction, options, &from, &to);

    sync(&OPTIONS).success();
    assert_eq!(
        database.digest_of(&sandbox.destination(), &sandbox),
        database.digest(&sandbox),
        "after the first pass"
    );

    database.mutate(1.0, 2);
    sync(&OPTIONS).success();
    assert_eq!(
        database.digest_of(&sandbox.destination(), &sandbox),
        database.digest(&sandbox),
        "after 1 % changed"
    );

    let before = last_write(&database);
    let mut writer = database.start_writer(600, 3);
    until(SOON, "the writer has written", || (last_write(&database) > before).then_some(()));
    for _ in 0..3 {
        // Files that change or vanish while they are read: 23 or 24, and nothing else.
        sync(&OPTIONS).expect_code_in(&[0, 23, 24]);
    }
    assert!(
        !writer.ended_within(Duration::ZERO),
        "the writer ended before it was stopped\n{}",
        writer.printed()
    );
    // As a host that dies: the last pass copies what is on disk, recovery does the rest.
    writer.kill();
    assert_eq!(writer.wait().code(), 128 + 9);

    sync(&OPTIONS).success();
    assert_same(&snapshot(database.path()), &snapshot(&sandbox.destination()), &NOTHING);
    assert_eq!(
        database.digest_of(&sandbox.destination(), &sandbox),
        database.digest(&sandbox),
        "after the last pass"
    );
}

#[test]
fn a_pulled_database_is_the_same_when_its_writer_has_stopped() {
    tests::require!("wiredtiger", "sshd");
    moved_while_written(Direction::Pull(Transport::Sshd));
}

#[test]
fn a_pushed_database_is_the_same_when_its_writer_has_stopped() {
    tests::require!("wiredtiger", "sshd");
    moved_while_written(Direction::Push(Transport::Serve));
}

#[test]
fn a_local_database_is_the_same_when_its_writer_has_stopped() {
    tests::require!("wiredtiger", "sshd");
    moved_while_written(ALL[0]);
}

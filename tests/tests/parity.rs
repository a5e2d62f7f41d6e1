//! Side by side with the installed rsync: the same tree, the same options, the same result, line and exit status.

use std::fs;
use std::path::Path;
use tests::beside::{Case, assert_same_lines, text};
use tests::directions::{ALL, Direction, Stage};
use tests::process::Output;
use tests::sandbox::Sandbox;
use tests::seed::seeds;
use tests::snapshot::{NOTHING, assert_same, snapshot};
use tests::tree::{FIXTURES, fixture, random_changes, random_tree, write_at};

/// Runs both with these options and compares all that can be seen.
fn compare(case: &Case<'_>, options: &[&str]) {
    let (theirs, _) = case.compare(options);
    if theirs.code() == 0 && options.contains(&"--delete") {
        assert_same(&snapshot(&case.source()), &snapshot(&case.ours()), &NOTHING);
    }
}

/// A further run finds nothing to do.
fn expect_nothing_left(case: &Case<'_>, options: &[&str]) {
    // Itemized lines would stand among the objects; a second `-i` would list what is the same too.
    let quiet: Vec<&str> =
        options.iter().copied().filter(|&option| option != "-i").chain(["--json"]).collect();
    let again = case.sync(&quiet);
    again.success();
    for name in [
        "literal_bytes",
        "matched_bytes",
        "files_created",
        "files_updated",
        "metadata_updated",
        "entries_deleted",
        "problems",
    ] {
        assert_eq!(again.summary_number(name), 0, "{name} of a further run\n{again}");
    }
}

fn fixtures_in(direction: Direction) {
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    for name in FIXTURES {
        let case = Case::make(&sandbox, &stage, direction, name);
        fixture(name, &case.source());
        compare(&case, &["-a", "-i"]);
        expect_nothing_left(&case, &["-a"]);
        compare(&case, &["-a", "-i", "--delete"]);
    }
}

fn random_trees_in(direction: Direction, options: &[&str]) {
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    for seed in seeds(4) {
        let case = Case::make(&sandbox, &stage, direction, &format!("seed-{seed}"));
        random_tree(seed, &case.source());
        compare(&case, &["-a", "-i"]);
        for change in 0..3 {
            random_changes(seed * 10 + change, &case.source());
            compare(&case, options);
        }
        if options.contains(&"--delete") {
            expect_nothing_left(&case, options);
        }
        fs::remove_dir_all(&case.directory).expect("the case is ours");
    }
}

/// One test for each direction, so that they run at once and a failure names its direction.
macro_rules! in_every_direction {
    ($($name:ident: $direction:expr),+ $(,)?) => {
        $(mod $name {
            use super::*;

            #[test]
            fn fixtures_become_what_rsync_makes_of_them() {
                tests::require!("rsync", "sshd");
                fixtures_in($direction);
            }

            #[test]
            fn random_trees_become_what_rsync_makes_of_them() {
                tests::require!("rsync", "sshd");
                random_trees_in($direction, &["-a", "-i"]);
            }

            #[test]
            fn random_trees_are_mirrored_as_rsync_does() {
                tests::require!("rsync", "sshd");
                random_trees_in($direction, &["-a", "-i", "--delete"]);
            }
        })+
    };
}

in_every_direction! {
    local: ALL[0],
    pull_through_sshd: ALL[1],
    push_through_sshd: ALL[2],
    pull_through_serve: ALL[3],
    push_through_serve: ALL[4],
}

#[test]
fn a_source_without_its_slash_lands_below_the_destination() {
    tests::require!("rsync", "sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    for direction in ALL {
        let case = Case::make(&sandbox, &stage, direction, "slash");
        random_tree(5, &case.source());
        let options = ["-a", "-i"];
        let theirs = stage.rsync(&sandbox, direction, &options, &text(&case.source()), &text(&case.theirs()));
        let ours = stage.sync(&sandbox, direction, &options, &text(&case.source()), &text(&case.ours()));
        ours.expect_code(theirs.code());
        assert_same_lines(&theirs, &ours);
        // The destination itself is outside the transfer: its time is that of the copying.
        assert_same(
            &snapshot(&case.theirs().join("source")),
            &snapshot(&case.ours().join("source")),
            &NOTHING,
        );
        assert_eq!(fs::read_dir(case.ours()).expect("it is there").count(), 1);
    }
}

#[test]
fn an_absent_destination_is_made() {
    tests::require!("rsync", "sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    for direction in ALL {
        let case = Case::make(&sandbox, &stage, direction, "absent");
        random_tree(6, &case.source());
        fs::remove_dir(case.ours()).expect("it is empty");
        fs::remove_dir(case.theirs()).expect("it is empty");
        compare(&case, &["-a", "-i"]);
    }
}

#[test]
fn an_absent_source_is_reported_as_rsync_does() {
    tests::require!("rsync", "sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    for direction in ALL {
        let case = Case::make(&sandbox, &stage, direction, "no-source");
        fs::remove_dir(case.source()).expect("it is empty");
        let (theirs, ours) = (case.rsync(&["-a"]), case.sync(&["-a"]));
        ours.expect_code(theirs.code());
    }
}

#[test]
fn deletions_and_missing_sources_are_dealt_with_as_rsync_does() {
    tests::require!("rsync");
    let make = |root: &Path| {
        for (path, content) in [
            ("from/dir/file", "new"),
            ("from/file", "new"),
            ("from/data", "a file now"),
            ("to/sibling", "precious"),
            ("to/other/deep", "precious"),
            ("to/logs/log", "precious"),
            ("to/local/file", "precious"),
            ("to/data/deep/file", "old"),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("a new directory");
            write_at(&path, content.as_bytes(), 1_500_000_000);
        }
        // What is not copied exists at the source all the same.
        std::os::unix::fs::symlink("file", root.join("from/was_file")).expect("a new link");
        write_at(&root.join("to/was_file"), b"precious", 1_500_000_000);
    };
    for line in [
        &["--no-l", "--delete", "from/", "to/"][..],
        &["--delete", "from/dir", "to/"],
        &["--delete", "from/file", "to/"],
        &["--delete", "from/file", "to/new-name"],
        &["--delete", "from/file", "from/dir", "to/"],
        &["--delete", "from/dir", "from/file", "from/dir/", "to/"],
        &["--delete", "--exclude=/logs", "--exclude=/local", "from/", "to/"],
        &["--delete", "--exclude=/data/deep/file", "from/", "to/"],
        &["--no-r", "from/", "to/new"],
        &["--no-r", "from/dir", "from/file", "to/"],
        &["--no-r", "from/dir", "to/new"],
        &["from/dir", "no-such-file", "from/file", "to/"],
        &["no-such-file", "no-such-directory/", "to/"],
        &["from/file", "no/such/directory"],
        &["from/dir", "no/such/directory"],
        &["--delete", "from/", "no-such-directory/", "to/"],
        &["--include=*/", "--include=file", "--exclude=*", "from/", "to/"],
    ] {
        let sandbox = Sandbox::new();
        let (ours, theirs) = (sandbox.path().join("a"), sandbox.path().join("b"));
        make(&ours);
        make(&theirs);
        let mut command = sandbox.sync_command(["-a"]);
        command.args(line).current_dir(&ours);
        let ours_ended = tests::process::run(command);
        let mut command = sandbox.command("rsync");
        command.arg("-a").args(line).current_dir(&theirs);
        let theirs_ended = tests::process::run(command);
        assert_eq!(ours_ended.code(), theirs_ended.code(), "{line:?}: {ours_ended}");
        let skips =
            |output: &Output| (output.stdout_text() + &output.stderr_text()).contains("skipping directory");
        assert_eq!(skips(&ours_ended), skips(&theirs_ended), "{line:?}: {ours_ended}");
        let ignore = tests::snapshot::Ignore { mtime: true, ..tests::snapshot::NOTHING };
        assert_same(&snapshot(&theirs.join("to")), &snapshot(&ours.join("to")), &ignore);
        println!("{line:?}");
    }
}

//! `-n` changes nothing at all, and says what the real run then does.

use std::fs;
use tests::directions::{ALL, Stage};
use tests::sandbox::Sandbox;
use tests::seed::seeds;
use tests::snapshot::{NOTHING, assert_same, snapshot};
use tests::tree::{random_changes, random_tree};

#[test]
fn a_dry_run_changes_nothing_and_prints_what_the_real_run_prints() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    for direction in ALL {
        for seed in seeds(2) {
            let base = sandbox.path().join("case");
            let (source, destination) = (base.join("source"), base.join("destination"));
            fs::create_dir_all(&source).expect("a new directory");
            fs::create_dir(&destination).expect("a new directory");
            let (from, to) = (format!("{}/", source.display()), destination.display().to_string());
            random_tree(seed, &source);
            for change in 0..2 {
                let before = (snapshot(&source), snapshot(&destination));
                let dry = stage.sync(&sandbox, direction, &["-a", "-n", "-i", "--delete"], &from, &to);
                dry.success();
                assert_same(&before.0, &snapshot(&source), &NOTHING);
                assert_same(&before.1, &snapshot(&destination), &NOTHING);
                let real = stage.sync(&sandbox, direction, &["-a", "-i", "--delete"], &from, &to);
                real.success();
                assert_eq!(dry.itemized(), real.itemized(), "{direction:?}, seed {seed}, change {change}");
                assert_same(&before.0, &snapshot(&destination), &NOTHING);
                random_changes(seed + change, &source);
            }
            fs::remove_dir_all(&base).expect("it is ours");
        }
    }
}

#[test]
fn a_dry_run_makes_no_destination() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    random_tree(1, &sandbox.source());
    let from = format!("{}/", sandbox.source().display());
    for direction in ALL {
        let to = sandbox.path().join("absent");
        stage.sync(&sandbox, direction, &["-a", "-n"], &from, &to.display().to_string()).success();
        assert!(!to.exists(), "{direction:?}");
    }
}

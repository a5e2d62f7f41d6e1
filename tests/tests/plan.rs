//! A dry run's plan, and what carries it out: exactly that, or nothing.

use std::fs;
use std::path::{Path, PathBuf};
use tests::directions::{ALL, Direction, Stage};
use tests::process::Output;
use tests::sandbox::Sandbox;
use tests::seed::seeds;
use tests::snapshot::{NOTHING, assert_same, snapshot};
use tests::tree::{random_changes, random_tree, set_mtime, write_at};

const LONG_AGO: i64 = 1_500_000_000;

struct Case<'a> {
    sandbox: &'a Sandbox,
    stage: &'a Stage,
    direction: Direction,
    directory: PathBuf,
}

impl Case<'_> {
    fn sync(&self, options: &[&str]) -> Output {
        let source = format!("{}/", self.source().display());
        let destination = self.destination();
        let destination = destination.to_str().expect("ASCII");
        self.stage.sync(self.sandbox, self.direction, options, &source, destination)
    }

    fn source(&self) -> PathBuf {
        self.directory.join("source")
    }

    fn destination(&self) -> PathBuf {
        self.directory.join("destination")
    }

    /// Makes a plan, as `change` leaves it.
    fn plan(&self, options: &[&str], change: impl Fn(&str) -> bool) -> String {
        let line: Vec<&str> = options.iter().copied().chain(["--dry-run", "--json"]).collect();
        let text = self.sync(&line).success().stdout_text();
        let lines: Vec<&str> = text.lines().filter(|line| change(line)).collect();
        let file = self.directory.join("plan");
        fs::write(&file, lines.join("\n")).expect("a new file");
        format!("--apply-plan={}", file.display())
    }
}

fn in_each_direction(name: &str, check: impl Fn(&Case<'_>)) {
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    for direction in &ALL[..3] {
        let directory = sandbox.path().join(format!("{name}-{direction:?}").replace(['(', ')'], "-"));
        for side in ["source", "destination"] {
            fs::create_dir_all(directory.join(side).join("sub")).expect("a new directory");
        }
        check(&Case { sandbox: &sandbox, stage: &stage, direction: *direction, directory });
    }
}

fn age(directory: &Path) {
    for path in ["sub", ""] {
        set_mtime(&directory.join(path), LONG_AGO, 0);
    }
}

fn some_changes(case: &Case<'_>) {
    write_at(&case.source().join("new"), b"new", LONG_AGO);
    write_at(&case.source().join("sub/changed"), &[1; 100_000], LONG_AGO);
    write_at(&case.destination().join("sub/changed"), &[2; 100_000], LONG_AGO - 9);
    write_at(&case.destination().join("gone"), b"gone", LONG_AGO);
    write_at(&case.destination().join("gone too"), b"gone", LONG_AGO);
    age(&case.source());
    age(&case.destination());
}

#[test]
fn a_plan_that_still_holds_makes_what_the_run_would_have_made() {
    tests::require!("sshd");
    for seed in seeds(2) {
        in_each_direction(&format!("seed-{seed}"), |case| {
            random_tree(seed, &case.source());
            for options in
                [&["-a", "--delete"][..], &["-ac", "--delete", "--inplace"], &["-a", "--delete", "-z"]]
            {
                let plan = case.plan(options, |_| true);
                let line: Vec<&str> = options.iter().copied().chain([&*plan]).collect();
                case.sync(&line).success();
                assert_same(&snapshot(&case.source()), &snapshot(&case.destination()), &NOTHING);
                // Everything is done: the same plan is old.
                case.sync(&line).expect_code_in(&[0, 46]);
                random_changes(seed + 7, &case.source());
            }
        });
    }
}

#[test]
fn what_is_not_in_the_plan_is_left_alone() {
    tests::require!("sshd");
    in_each_direction("part", |case| {
        some_changes(case);
        let plan = case.plan(&["-a", "--delete"], |line| {
            ["\"new\"", "\"gone\"", "summary"].iter().any(|kept| line.contains(kept))
        });
        write_at(&case.source().join("later"), b"later", LONG_AGO);
        let output = case.sync(&["-a", "--delete", "-i", &plan]);
        output.success().expect_stderr("changes that are not in the plan are left alone");
        let there = |name: &str| case.destination().join(name).exists();
        assert!(there("new") && there("gone too") && !there("gone") && !there("later"), "{output}");
        assert_eq!(fs::read(case.destination().join("sub/changed")).expect("there")[0], 2);
        assert_eq!(output.itemized().len(), 2, "{output}");
    });
}

#[test]
fn a_plan_of_which_something_changed_touches_nothing() {
    tests::require!("sshd");
    type Change = fn(&Case<'_>);
    let changes: [(&str, Change); 6] = [
        ("new", |case| write_at(&case.source().join("new"), b"NEW", LONG_AGO + 1)),
        ("new", |case| fs::remove_file(case.source().join("new")).expect("it was there")),
        ("sub/changed", |case| write_at(&case.destination().join("sub/changed"), &[1; 100_000], LONG_AGO)),
        ("gone", |case| fs::remove_file(case.destination().join("gone")).expect("it was there")),
        ("gone", |case| write_at(&case.source().join("gone"), b"gone", LONG_AGO)),
        ("new", |case| write_at(&case.destination().join("new"), b"new", LONG_AGO)),
    ];
    for (at, (name, change)) in changes.into_iter().enumerate() {
        in_each_direction(&format!("changed-{at}"), |case| {
            some_changes(case);
            let plan = case.plan(&["-a", "--delete"], |_| true);
            change(case);
            age(&case.source());
            age(&case.destination());
            let before = snapshot(&case.destination());
            let output = case.sync(&["-a", "--delete", &plan]);
            output.expect_code(46).expect_stderr(name).expect_stderr("nothing was touched");
            assert_same(&before, &snapshot(&case.destination()), &NOTHING);
        });
    }
}

#[test]
fn what_is_no_plan_is_refused() {
    let sandbox = Sandbox::new();
    write_at(&sandbox.source().join("file"), b"content", LONG_AGO);
    let source = format!("{}/", sandbox.source().display());
    let destination = sandbox.destination().display().to_string();
    let file = sandbox.path().join("plan");
    let plan = format!("--apply-plan={}", file.display());
    let apply = || sandbox.sync(["-a", &plan, &source, &destination]);
    apply().expect_code(1).expect_stderr("No such file");
    for (text, why) in [
        ("", "not the summary"),
        ("no JSON", "line 1"),
        ("{\"event\":\"item\",\"name\":\"file\"}", "no mark"),
        ("{\"event\":\"summary\",\"dry_run\":false}", "not the summary"),
    ] {
        fs::write(&file, text).expect("ours");
        apply().expect_code(1).expect_stderr(why);
    }
    sandbox.sync(["-an", &plan, &source, &destination]).expect_code(1);
    assert_eq!(fs::read_dir(&destination).expect("there").count(), 0);
}

//! A dry run's plan, and what carries it out: exactly that, or nothing.

use rustix::process::Signal;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use tests::directions::{ALL, Direction, Stage};
use tests::process::{Output, Running, deadline, until};
use tests::sandbox::Sandbox;
use tests::seed::{Rng, seeds};
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

    fn start(&self, options: &[&str]) -> Running {
        let source = format!("{}/", self.source().display());
        let line = self.stage.line(self.direction, &source, &self.destination().display().to_string());
        self.sandbox.start_sync(line.with(options))
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
    let changes: [(&str, Change); 8] = [
        ("new", |case| write_at(&case.source().join("new"), b"NEW", LONG_AGO + 1)),
        ("new", |case| fs::remove_file(case.source().join("new")).expect("it was there")),
        ("sub/changed", |case| write_at(&case.destination().join("sub/changed"), &[1; 100_000], LONG_AGO)),
        // Of the same length and time: only its ctime tells.
        ("sub/changed", |case| {
            write_at(&case.destination().join("sub/changed"), &[3; 100_000], LONG_AGO - 9);
        }),
        ("gone", |case| write_at(&case.destination().join("gone"), b"KEEP", LONG_AGO)),
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

const MIB: usize = 1 << 20;

/// Carries a plan out so slowly that it can be stopped while its first large file comes, and then goes on after
/// `meanwhile`.
fn interfere(case: &Case<'_>, options: &[&str], meanwhile: impl FnOnce()) -> Output {
    let plan = case.plan(options, |_| true);
    let slowly = ["-W", "--bwlimit=4M", "--compress=none", &plan];
    let mut run = case.start(&[options, &slowly].concat());
    let staging = case.destination().join(".sync-agent-staging");
    until(deadline(), "a part of a large file", || {
        let parts = fs::read_dir(&staging).ok()?.flatten().filter_map(|part| part.metadata().ok());
        parts.map(|part| part.len()).find(|&bytes| bytes > 0)
    });
    run.signal(Signal::STOP);
    meanwhile();
    run.signal(Signal::CONT);
    run.wait()
}

/// Somebody's edit that leaves length and time as they were.
fn edit_unseen(path: &Path) {
    let before = fs::metadata(path).expect("it is there");
    let mut content = fs::read(path).expect("it is there");
    content[..4].copy_from_slice(b"mine");
    write_at(path, &content, before.mtime());
}

#[test]
fn what_changes_while_a_plan_is_carried_out_stays_as_it_is() {
    tests::require!("sshd");
    in_each_direction("meanwhile", |case| {
        let (from, to) = (case.source(), case.destination());
        for name in ["big", "bigger", "new", "sub/new"] {
            write_at(&from.join(name), &Rng::new(1).bytes(3 * MIB), LONG_AGO);
        }
        write_at(&to.join("big"), b"old content", LONG_AGO - 9);
        write_at(&to.join("bigger"), b"old content", LONG_AGO - 9);
        fs::create_dir(to.join("gone")).expect("a new directory");
        for name in ["x", "y", "z", "gone/x", "gone/z"] {
            write_at(&to.join(name), b"extraneous", LONG_AGO);
        }
        let untouched = ["big", "bigger", "new", "sub/new", "x", "y", "gone/x", "gone/later"];
        let as_left = || untouched.map(|name| fs::read(to.join(name)).expect("it stays"));
        let mut left = None;
        let output = interfere(case, &["-a", "--delete"], || {
            assert!(!to.join("new").exists() && fs::read(to.join("big")).expect("there") == b"old content");
            fs::write(to.join("big"), b"IMPORTANT").expect("ours");
            edit_unseen(&to.join("bigger"));
            fs::write(to.join("new"), b"somebody was first").expect("ours");
            fs::write(to.join("sub/new"), Rng::new(2).bytes(3 * MIB)).expect("ours");
            fs::write(to.join("x"), b"IMPORTANT").expect("ours");
            edit_unseen(&to.join("y"));
            edit_unseen(&to.join("gone/x"));
            fs::write(to.join("gone/later"), b"IMPORTANT").expect("ours");
            left = Some(as_left());
        });
        output.expect_code(46).expect_stderr("not done of the plan");
        assert!(Some(as_left()) == left, "{output}");
        for name in ["big", "bigger", "new", "sub/new", "x", "y", "gone/", "gone/x"] {
            assert!(output.stderr_text().lines().any(|line| line.trim() == name), "{name}\n{output}");
        }
        assert!(!to.join("z").exists() && !to.join("gone/z").exists(), "{output}");
        assert!(!to.join(".sync-agent-staging").exists());
    });
}

#[test]
fn what_takes_a_directory_s_place_does_not_take_what_came_there_instead() {
    tests::require!("sshd");
    in_each_direction("place", |case| {
        let (from, to) = (case.source(), case.destination());
        for name in ["a", "b", "c"] {
            write_at(&from.join(name), &Rng::new(1).bytes(2 * MIB), LONG_AGO);
            fs::create_dir(to.join(name)).expect("a new directory");
            write_at(&to.join(name).join("file"), b"extraneous", LONG_AGO);
        }
        let output = interfere(case, &["-a", "--delete"], || {
            fs::remove_dir_all(to.join("a")).expect("ours");
            fs::write(to.join("a"), b"a file now").expect("ours");
            fs::write(to.join("b/file"), b"IMPORTANT").expect("ours");
        });
        output.expect_code_in(&[23, 46]);
        assert_eq!(fs::read(to.join("a")).expect("it stays"), b"a file now", "{output}");
        assert_eq!(fs::read(to.join("b/file")).expect("it stays"), b"IMPORTANT", "{output}");
        assert!(to.join("c").is_file(), "{output}");
    });
}

#[test]
fn metadata_of_what_changed_during_a_comparison_stays_as_it_is() {
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    let case =
        Case { sandbox: &sandbox, stage: &stage, direction: ALL[0], directory: sandbox.path().to_path_buf() };
    for (side, mtime_s) in [(case.source(), LONG_AGO), (case.destination(), LONG_AGO - 9)] {
        write_at(&side.join("large"), b"", LONG_AGO);
        File::options().write(true).open(side.join("large")).expect("ours").set_len(1 << 30).expect("a hole");
        set_mtime(&side.join("large"), mtime_s, 0);
    }
    write_at(&case.source().join("a"), b"brings a staging area", LONG_AGO);
    let plan = case.plan(&["-ac", "--no-index"], |_| true);
    let mut run = case.start(&["-ac", "--no-index", &plan]);
    let open = PathBuf::from(format!("/proc/{}/fd", run.id()));
    let (from, to) = (case.source().join("large"), case.destination().join("large"));
    until(deadline(), "its comparison in the run itself", || {
        let begun = case.destination().join(".sync-agent-staging").exists();
        let mut files =
            fs::read_dir(&open).ok()?.flatten().filter_map(|file| fs::read_link(file.path()).ok());
        files.find(|file| begun && *file == from)
    });
    run.signal(Signal::STOP);
    set_mtime(&to, LONG_AGO - 5, 0);
    run.signal(Signal::CONT);
    let output = run.wait();
    output.expect_code(46).expect_stderr("not done of the plan").expect_stderr("large");
    assert_eq!(fs::metadata(&to).expect("there").mtime(), LONG_AGO - 5, "{output}");
}

#[test]
fn names_of_one_file_go_and_are_replaced_as_planned() {
    tests::require!("sshd");
    in_each_direction("names", |case| {
        let (from, to) = (case.source(), case.destination());
        write_at(&to.join("a"), b"one file", LONG_AGO);
        for name in ["b", "c", "sub/d", "sub/e"] {
            fs::hard_link(to.join("a"), to.join(name)).expect("another name");
        }
        for name in ["b", "sub/d"] {
            write_at(&from.join(name), b"a file of its own", LONG_AGO);
        }
        // One of its names only gets another time, the other one goes.
        write_at(&from.join("same"), b"the same", LONG_AGO);
        write_at(&to.join("same"), b"the same", LONG_AGO - 9);
        fs::hard_link(to.join("same"), to.join("sub/and extraneous")).expect("another name");
        age(&from);
        let plan = case.plan(&["-ac", "--delete"], |_| true);
        case.sync(&["-ac", "--delete", &plan]).success();
        assert_same(&snapshot(&from), &snapshot(&to), &NOTHING);
    });
}

#[test]
fn no_name_is_made_of_what_came_instead_of_the_first_one() {
    tests::require!("sshd");
    in_each_direction("first", |case| {
        let (from, to) = (case.source(), case.destination());
        write_at(&from.join("a"), &Rng::new(1).bytes(3 * MIB), LONG_AGO);
        fs::hard_link(from.join("a"), from.join("sub/b")).expect("another name");
        write_at(&to.join("a"), b"old", LONG_AGO);
        let output = interfere(case, &["-aH"], || fs::write(to.join("a"), b"IMPORTANT").expect("ours"));
        output.expect_code(46);
        assert_eq!(fs::read(to.join("a")).expect("it stays"), b"IMPORTANT");
        let same = |name: &str| fs::read(to.join(name)).ok() == fs::read(from.join(name)).ok();
        assert!(!to.join("sub/b").exists() || same("sub/b"), "{output}");
    });
}

#[test]
fn a_link_that_is_not_in_the_plan_is_not_made() {
    tests::require!("sshd");
    in_each_direction("link", |case| {
        let (from, to) = (case.source(), case.destination());
        write_at(&from.join("a"), b"one file", LONG_AGO);
        fs::hard_link(from.join("a"), from.join("b")).expect("another name");
        write_at(&to.join("b"), b"kept", LONG_AGO);
        let plan = case.plan(&["-aH"], |line| !line.contains("b => a"));
        case.sync(&["-aH", &plan]).success();
        assert_eq!(fs::read(to.join("a")).expect("it was planned"), b"one file");
        assert_eq!(fs::read(to.join("b")).expect("it stays"), b"kept");
    });
}

#[test]
fn what_a_base_gives_in_silence_takes_no_name_that_something_has() {
    tests::require!("sshd");
    in_each_direction("base", |case| {
        let (from, to) = (case.source(), case.destination());
        let base = case.directory.join("base");
        fs::create_dir(&base).expect("a new directory");
        for name in ["new", "there"] {
            write_at(&from.join(name), b"content", LONG_AGO);
            write_at(&base.join(name), b"content", LONG_AGO);
        }
        for kind in ["--link-dest=../base", "--compare-dest=../base"] {
            write_at(&to.join("there"), b"IMPORTANT", LONG_AGO - 9);
            let plan = case.plan(&["-a", kind], |_| true);
            let output = case.sync(&["-a", kind, &plan]);
            output.success();
            assert_eq!(fs::read(to.join("there")).expect("it stays"), b"IMPORTANT", "{kind}\n{output}");
            assert!(kind.starts_with("--compare") || to.join("new").exists(), "{output}");
        }
    });
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
    fs::write(&file, "{\"event\":\"summary\",\"dry_run\":true}").expect("ours");
    sandbox
        .sync(["-a", "--remove-source-files", &plan, &source, &destination])
        .expect_code(1)
        .expect_stderr("--remove-source-files cannot be used with --apply-plan");
    assert!(sandbox.source().join("file").exists());
    assert_eq!(fs::read_dir(&destination).expect("there").count(), 0);
}

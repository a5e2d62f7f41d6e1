//! Filter rules, lists of names and sizes, beside the installed rsync: the same tree, the same line, the same result.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::directions::{ALL, Direction, Stage};
use tests::process::{Output, run};
use tests::sandbox::Sandbox;
use tests::seed::{Rng, seeds};
use tests::snapshot::{Ignore, assert_same, snapshot};
use tests::tree::write_at;

/// What deletions leave is the directories' own affair.
const BUT_TIMES: Ignore =
    Ignore { owner: false, mode: false, mtime: true, directory_mtime: false, top_names: Vec::new() };

/// Two directories of the same content: one for us, one for rsync.
struct Pair {
    ours: PathBuf,
    theirs: PathBuf,
}

impl Pair {
    fn make(directory: &Path, make: impl Fn(&Path)) -> Pair {
        // Of one length, so that nothing depends on it.
        let pair = Pair { ours: directory.join("a/work"), theirs: directory.join("b/work") };
        for root in [&pair.ours, &pair.theirs] {
            let _ = fs::remove_dir_all(root);
            fs::create_dir_all(root).expect("a new directory");
            make(root);
        }
        pair
    }

    /// Runs both in their directories, first dry, and compares what they say, how they end and what is there then.
    fn compare(&self, sandbox: &Sandbox, line: &[&str]) -> Output {
        for dry in [true, false] {
            let run_in = |mut command: Command, root: &Path| {
                command.args(dry.then_some("-n")).args(["-i"]).args(line).current_dir(root);
                command.env("CVSIGNORE", "*.mine ! ours.*");
                run(command)
            };
            let theirs = run_in(sandbox.command("rsync"), &self.theirs);
            let ours = run_in(sandbox.sync_command(["--allow-empty-source"]), &self.ours);
            assert_eq!(ours.code(), theirs.code(), "exit status\n{theirs}\n{ours}");
            if theirs.code() != 0 && theirs.code() != 23 {
                return ours;
            }
            let (mut expected, mut actual) = (lines(&theirs), lines(&ours));
            if dry {
                // rsync's dry run claims to delete directories that something protected is in.
                let is_sure = |line: &String| !(line.starts_with("*deleting") && line.ends_with('/'));
                expected.retain(is_sure);
                actual.retain(is_sure);
            }
            let only = |these: &[String], those: &[String]| -> Vec<String> {
                these.iter().filter(|line| !those.contains(line)).cloned().collect()
            };
            assert!(
                expected == actual,
                "only of rsync: {:#?}\nonly of ours: {:#?}\n{theirs}\n{ours}",
                only(&expected, &actual),
                only(&actual, &expected)
            );
            assert_same(&snapshot(&self.theirs), &snapshot(&self.ours), &BUT_TIMES);
            if !dry {
                return ours;
            }
        }
        unreachable!("the second run is not dry")
    }
}

/// What was done, but for times of directories, which depend on when something was deleted in them, and of links.
fn lines(output: &Output) -> Vec<String> {
    let is_of_time = |line: &String| line.starts_with(".d..t......") || line.starts_with(".L..t......");
    output.itemized().into_iter().filter(|line| !is_of_time(line)).collect()
}

fn write(root: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("it has one")).expect("a new directory");
        match content.is_empty() && path.ends_with("dir") {
            true => fs::create_dir_all(&path).expect("a new directory"),
            false => write_at(&path, content.as_bytes(), 1_500_000_000),
        }
    }
}

/// A source with rules in it, and a destination with its own.
fn tree_with_rules(root: &Path) {
    write(
        root,
        &[
            ("from/.rules", "- *.o\n+ keep.tmp\n- *.tmp\n- /top"),
            ("from/.words", "-_w1 +_w2\n-_w*"),
            ("from/.list", "l1\nl*\n# no\n;no"),
            ("from/top", "1"),
            ("from/x.o", "1"),
            ("from/w1", "1"),
            ("from/w2", "1"),
            ("from/w3", "1"),
            ("from/l1", "1"),
            ("from/keep.tmp", "1"),
            ("from/other.tmp", "12345678"),
            ("from/sub/.rules", "!\n- sub.only\n- /top\n- deep/here"),
            ("from/sub/.rsync-filter", "- fl*\n: .more"),
            ("from/sub/.more", "- m*"),
            ("from/sub/top", "1"),
            ("from/sub/x.o", "1"),
            ("from/sub/sub.only", "1"),
            ("from/sub/flags", "1"),
            ("from/sub/mode", "1"),
            ("from/sub/deep/mode", "1"),
            ("from/sub/deep/here", "1"),
            ("from/sub/deep/top", "1"),
            ("from/sub/deep/sub.only", "1"),
            ("from/sub/deep/.cvsignore", "cv* flags"),
            ("from/sub/deep/cvx", "1"),
            ("from/sub/deep/core", "1"),
            ("from/sub/deep/a.mine", "1"),
            ("from/sub/deep/below/cvx", "1"),
            ("from/bare/dir", ""),
            ("from/bare/deep/dir", ""),
            (".rsync-filter", "- above*\n- /from/w3\nP mine"),
            ("from/above", "1"),
            ("to/.rules", "P mine\n- *.gone"),
            ("to/mine", "precious"),
            ("to/x.o", "old"),
            ("to/a.gone", "old"),
            ("to/b.gone", "old"),
            ("to/sub/mine", "precious"),
            ("to/gone/.rules", "+ a.gone\n-p *.gone"),
            ("to/gone/mine", "precious"),
            ("to/gone/a.gone", "old"),
            ("to/gone/b.gone", "old"),
            ("to/gone/core", "old"),
            ("to/old/core", "old"),
            ("to/old/x.o", "old"),
            ("merged", "- *.o\n. merged2\n"),
            ("merged2", "P x.o\n+ keep.tmp\n"),
            ("zeros", "l1\0w1\0# no\0"),
        ],
    );
}

#[test]
fn rules_of_every_form_do_what_they_do_for_rsync() {
    tests::require!("rsync");
    let sandbox = Sandbox::new();
    write(&sandbox.home(), &[(".cvsignore", "*.home\n")]);
    for line in [
        &["-a", "-f", ": .rules", "from/", "to/"][..],
        &["-a", "--delete", "-f", ": .rules", "from/", "to/"],
        &["-a", "--delete", "-f", ":n .rules", "from/", "to/"],
        &["-a", "--delete", "--filter=dir-merge,e .rules", "from/", "to/"],
        &["-a", "--delete", "--filter=dir-merge_.rules", "from", "to/"],
        &["-a", "--delete-excluded", "-f", ": .rules", "from/", "to/"],
        &["-a", "--delete-excluded", "-f", ":s .list", "-f", ":- .list", "from/", "to/"],
        &["-a", "--delete", "-f", ":- .list", "from/", "to/"],
        &["-a", "--delete", "-f", ":w .words", "from/", "to/"],
        &["-a", "-f", ":+ .list", "-f", "- *", "from/", "to/"],
        &["-aF", "from/", "to/"],
        &["-aF", "from", "to/"],
        &["-aFF", "--delete", "from/", "to/"],
        &["-aF", "--delete", "-f", "P x.o", "from", "to/"],
        &["-a", "-f", ": ../.rsync-filter", "--delete", "from/", "to/"],
        &["-aC", "from/", "to/"],
        &["-aC", "--delete", "from/", "to/"],
        &["-a", "-f", ":C", "--delete", "from/", "to/"],
        &["-a", "-f", "-C", "--delete", "from/", "to/"],
        &["-aC", "-f", "+ core", "-f", ":C", "--delete", "from/", "to/"],
        &["-a", "-f", ". merged", "--delete", "from/", "to/"],
        &["-a0", "-f", ".- zeros", "from/", "to/"],
        &["-a0", "--exclude-from=zeros", "from/", "to/"],
        &["-a", "--exclude-from=merged2", "-0", "from/", "to/"],
        &["-a", "-f", "-! */", "from/", "to/"],
        &["-a", "-f", "+ */", "-f", "-! *.o", "--delete", "from/", "to/"],
        &["-a", "-f", "-/ from/sub/deep", "from/", "to/"],
        &["-a", "-f", "-/ work/from/sub", "from/", "to/"],
        &["-a", "-f", "-/ **/from/x.o", "from/", "to/"],
        &["-a", "-f", "hide,! */", "--delete", "from/", "to/"],
        &["-a", "-f", "P_mine", "-f", "H x.o", "-f", "R *.gone", "--delete", "from/", "to/"],
        &["-a", "-f", "-sr core", "-f", "- x.o", "--delete-excluded", "from/", "to/"],
        &["-a", "-f", "-p *.gone", "--delete", "from/", "to/"],
        &["-a", "-f", "-x user.*", "from/", "to/"],
        &["-a", "--exclude=sub/***", "-f", "!", "--exclude=x.o", "from/", "to/"],
        &["-am", "--exclude=*.o", "--exclude=top", "from/", "to/"],
        &["-am", "--delete", "-f", "P below/", "--exclude=cv*", "--exclude=m*", "from/", "to/"],
        &["-am", "--include=*.o", "-f", "hide,! */", "--delete", "from/", "to/"],
        &["-am", "from/bare", "from/bare/deep", "to/"],
        &["-am", "from/bare/", "to/"],
        &["-a", "--max-size=2", "--delete", "from/", "to/"],
        &["-a", "--min-size=8b", "--max-size=1k-1", "from/", "to/"],
        &["-a", "--max-size=8-1", "--min-size=1+1", "from/", "to/"],
        &["-a", "--exclude=from", "from", "to/"],
        &["-a", "--exclude=x.o", "from/x.o", "from/top", "to/"],
        &["-a", "-f", "no rule", "from/", "to/"],
        &["-a", "-f", "-q x", "from/", "to/"],
        &["-a", "-f", ":", "from/", "to/"],
    ] {
        let pair = Pair::make(sandbox.path(), tree_with_rules);
        eprintln!("{line:?}");
        pair.compare(&sandbox, line);
    }
}

#[test]
fn what_a_list_names_is_copied_as_rsync_does() {
    tests::require!("rsync");
    let sandbox = Sandbox::new();
    for (list, line) in [
        ("x.o\nsub/deep/core\n/top\n", &["-a"][..]),
        ("sub/deep\n", &["-a"]),
        ("sub/deep/\n#sub\n;sub\n\n", &["-a"]),
        ("sub/deep/.", &["-a"]),
        ("sub\nbare", &["-ar"]),
        ("sub\nsub/deep/core\nbare/", &["-a"]),
        (".", &["-a"]),
        ("./", &["-ar", "--delete"]),
        ("sub/deep\nno-such\nno/such", &["-ar"]),
        ("../x.o\nsub/../top\n", &["-a"]),
        ("sub/./deep/core\nsub/deep/./cvx\nx.o", &["-a"]),
        ("sub/deep/core\nx.o\nsub", &["-a", "--exclude=x.o", "--exclude=/sub"]),
        ("sub/deep/core\nsub/deep", &["-r", "--exclude=deep/c*"]),
        ("sub/deep/core", &["-a", "--exclude=sub"]),
        ("sub/\nold\n", &["-ar", "--delete"]),
        ("sub/\n", &["-a", "--delete"]),
        ("sub", &["-arF", "--delete"]),
        ("sub\n", &["-ar", "-f", ": .rules"]),
        ("sub\nbare\n", &["-arm", "--exclude=*.o"]),
        ("x.o\r\ntop\r\n", &["-a"]),
        ("sub/deep/core\0x.o\0", &["-a0"]),
        ("bare/deep/dir\n", &["-r"]),
    ] {
        let pair = Pair::make(sandbox.path(), |root| {
            tree_with_rules(root);
            fs::write(root.join("list"), list).expect("a new file");
        });
        eprintln!("{list:?} {line:?}");
        pair.compare(&sandbox, &[line, &["--files-from=list", "from", "to"]].concat());
    }
}

#[test]
fn rules_and_lists_count_at_whichever_end_they_are() {
    tests::require!("rsync", "sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    for direction in ALL {
        for options in [
            &["-a", "--delete", "-f", ": .rules"][..],
            &["-aF", "--delete"],
            &["-aC", "--delete"],
            &["-am", "--delete", "--exclude=*.o", "--max-size=2"],
            &["-a", "--delete-excluded", "-f", "P mine", "-f", "- *.tmp", "-f", "-/ from/sub/x.o"],
            &["-ar", "--files-from=LIST"],
            &["-a", "--files-from=:LIST"],
            &["-a0", "--files-from=:ZEROS"],
        ] {
            let is_far = options.iter().any(|option| option.contains(":LIST") || option.contains(":ZEROS"));
            if is_far && direction == Direction::Local {
                continue;
            }
            let pair = Pair::make(sandbox.path(), tree_with_rules);
            let (list, zeros) = (sandbox.path().join("list"), sandbox.path().join("zeros"));
            fs::write(&list, "sub/deep\nsub/deep/core\nx.o\n").expect("a new file");
            fs::write(&zeros, "sub/deep/core\0x.o\0").expect("a new file");
            let text = |path: PathBuf| path.to_str().expect("ASCII").to_owned();
            let named = |option: &&str| {
                option.replace("LIST", &text(list.clone())).replace("ZEROS", &text(zeros.clone()))
            };
            let options: Vec<String> = options.iter().map(named).chain(["-i".to_owned()]).collect();
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            let sides = |root: &Path| (text(root.join("from")) + "/", text(root.join("to")) + "/");
            let (from, to) = sides(&pair.theirs);
            let theirs = stage.rsync(&sandbox, direction, &options, &from, &to);
            let (from, to) = sides(&pair.ours);
            let ours = stage.sync(&sandbox, direction, &options, &from, &to);
            assert_eq!(ours.code(), theirs.code(), "{direction:?}\n{theirs}\n{ours}");
            assert_eq!(lines(&ours), lines(&theirs), "{direction:?}\n{theirs}\n{ours}");
            assert_same(&snapshot(&pair.theirs), &snapshot(&pair.ours), &BUT_TIMES);
        }
    }
}

#[test]
fn rules_that_cannot_be_known_end_the_run() {
    let sandbox = Sandbox::new();
    let spoil = |file: &str, content: &str| {
        let pair = Pair::make(sandbox.path(), |root| {
            tree_with_rules(root);
            let path = root.join(file);
            let _ = fs::remove_file(&path);
            match content.strip_prefix("-> ") {
                Some(target) => std::os::unix::fs::symlink(target, &path).expect("a new link"),
                None => fs::write(&path, content).expect("a new file"),
            }
        });
        let mut command = sandbox.sync_command(["-a", "--delete", "-f", ": .rules", "from/", "to/"]);
        command.current_dir(&pair.ours);
        let output = run(command);
        assert!(pair.ours.join("to/mine").exists(), "{output}");
        output
    };
    spoil("from/sub/.rules", "- a\nno rule\n").expect_code(1).expect_stderr("sub/.rules: line 2");
    spoil("to/.rules", "-q x\n").expect_code(1).expect_stderr("modifier 'q'");
    spoil("from/.rules", "-> .list").expect_code(1).expect_stderr("symbolic link");
    spoil("from/.rules", ". /etc/passwd\n").expect_code(1).expect_stderr("files of the tree only");
    spoil("from/.rules", ". ./.rules\n").expect_code(1).expect_stderr("deep");
    spoil("from/.rules", &"- x\n".repeat(140_000)).expect_code(1).expect_stderr("bytes");
    spoil("to/gone/.rules", "no rule\n").expect_code(23).expect_stderr("gone is not deleted");
}

#[test]
fn lists_that_make_no_sense_are_refused() {
    let sandbox = Sandbox::new();
    let pair = Pair::make(sandbox.path(), tree_with_rules);
    for (line, said) in [
        (&["--files-from=merged", "from", "to", "to"][..], "one SOURCE"),
        (&["--files-from=:merged", "from", "to"], "other machine"),
        (&["--files-from=host:merged", "from", "to"], "host"),
        (&["--files-from=no-such", "from", "to"], "no-such"),
        (&["--max-size=x", "from", "to"], "no size"),
    ] {
        let mut command = sandbox.sync_command(["-a"]);
        command.args(line).current_dir(&pair.ours);
        run(command).expect_code(1).expect_stderr(said);
    }
}

// Random rules.

// Each kind has names of its own: what replaces what is another test's.
const DIRECTORIES: [&str; 5] = ["d", "e", "ab", "a b", "core"];
const FILES: [&str; 7] = ["a", "b", "x.o", "y.o", "f", "[ab]", "k.mine"];
const PATTERNS: [&str; 26] = [
    "a", "b", "*.o", "/a", "/d", "d/", "/d/a", "d/*", "d/**", "d/***", "**/f", "a*", "?", "[ab]", "*", "*/",
    "core", "/*.o", "e/a", "d/e/", "**b", "/e/**", "a/*/f", "f", "y.*", "/d/e/***",
];

fn random_trees(random: &mut Rng, root: &Path) {
    for side in ["from", "to"] {
        let mut directories = vec![root.join(side)];
        fs::create_dir_all(&directories[0]).expect("a new directory");
        for _ in 0..8 + random.below(20) {
            let parent = random.pick(&directories).clone();
            let depth = parent.components().count() - root.components().count();
            let kind = random.below(if depth < 5 { 10 } else { 5 });
            let names: &[&str] = match kind {
                0 => &["l"],
                1..5 => &FILES,
                _ => &DIRECTORIES,
            };
            let path = parent.join(random.pick(names));
            if path.symlink_metadata().is_ok() {
                continue;
            }
            match kind {
                0 => std::os::unix::fs::symlink("a", &path).expect("a new link"),
                1..5 => write_at(&path, &vec![b'x'; random.below(6) as usize], 1_400_000_000),
                _ => {
                    fs::create_dir(&path).expect("a new directory");
                    directories.push(path);
                }
            }
        }
        for directory in &directories {
            for file in [".rules", ".excl", ".cvsignore", ".rsync-filter"] {
                if random.chance(15) {
                    let separator = if file == ".cvsignore" { " " } else { "\n" };
                    let has_prefix = matches!(file, ".rules" | ".rsync-filter");
                    let rule = |random: &mut Rng| match has_prefix {
                        true => random_rule(random, 1),
                        false => (*random.pick(&PATTERNS)).to_owned(),
                    };
                    let rules: Vec<String> = (0..random.below(4)).map(|_| rule(random)).collect();
                    write_at(&directory.join(file), rules.join(separator).as_bytes(), 1_400_000_000);
                }
            }
        }
    }
}

/// `depth` 0: for the command line, where files may be named; 1: for a file in a tree.
fn random_rule(random: &mut Rng, depth: u8) -> String {
    let separator = *random.pick(&[" ", " ", "_"]);
    let pattern = *random.pick(&PATTERNS);
    if random.chance(if depth == 0 { 35 } else { 8 }) {
        let file = *random.pick(&[
            ": .rules",
            ":n .rules",
            ":e .rules",
            ":p .rules",
            "dir-merge .rules",
            ":- .excl",
            ":n- .excl",
            ":+ .excl",
            ":w- .excl",
            ":C",
            ":p- .excl",
            ":s- .excl",
            ":r- .excl",
            ": /.rsync-filter",
            ": ../.rules",
            ":/ .rules",
            "!",
        ]);
        return file.to_owned();
    }
    let letters = |random: &mut Rng, from: &[&str]| -> String {
        if random.chance(60) {
            String::new()
        } else {
            (0..=random.below(2)).map(|_| *random.pick(from)).collect()
        }
    };
    match random.below(10) {
        0..7 => {
            let kind = *random.pick(&["-", "-", "-", "+", "exclude", "include"]);
            let letters = letters(random, &["!", "/", "s", "r", "p", "x"]);
            let comma = if kind.len() > 1 && !letters.is_empty() || random.chance(10) { "," } else { "" };
            format!("{kind}{comma}{letters}{separator}{pattern}")
        }
        _ => {
            let kind = *random.pick(&["H", "S", "P", "R", "hide", "show", "protect", "risk"]);
            let letters = letters(random, &["!", "/", "p"]);
            let comma = if kind.len() > 1 && !letters.is_empty() { "," } else { "" };
            format!("{kind}{comma}{letters}{separator}{pattern}")
        }
    }
}

#[test]
fn random_rules_over_random_trees_do_what_they_do_for_rsync() {
    tests::require!("rsync");
    let sandbox = Sandbox::new();
    write(&sandbox.home(), &[(".cvsignore", "ab e\n")]);
    for seed in seeds(40) {
        let random = &mut Rng::new(seed);
        let tree = random.clone();
        let pair = Pair::make(sandbox.path(), |root| random_trees(&mut tree.clone(), root));
        let mut line = vec!["-a".to_owned()];
        for option in ["--delete", "--delete", "--delete-excluded", "-F", "-F", "-C", "-m", "--max-size=3"] {
            if random.chance(30) {
                line.push(option.to_owned());
            }
        }
        for _ in 0..random.below(5) {
            line.push(format!("--filter={}", random_rule(random, 0)));
        }
        line.push((*random.pick(&["from/", "from/", "from"])).to_owned());
        line.push("to/".to_owned());
        eprintln!("seed {seed}: {line:?}");
        pair.compare(&sandbox, &line.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

//! Options of every topic drawn together, over generated trees, beside the installed rsync: what each does alone has its own
//! tests, what they do to one another is looked for here.

use std::fs;
use std::path::{Path, PathBuf};
use tests::directions::{ALL, Direction, Stage};
use tests::process::Output;
use tests::sandbox::Sandbox;
use tests::seed::{Rng, seeds};
use tests::snapshot::{Ignore, NOTHING, assert_same, snapshot};
use tests::tree::{random_changes, random_tree};

/// Of each row at most one is on a line, with the chance in percent of any.
const TOPICS: &[(u64, &[&str])] = &[
    (50, &["--exclude=*1*", "--exclude=/*s*", "--include=*-?", "--exclude=*/", "--filter=-!_*a*"]),
    (25, &["--filter=P_*2*", "--filter=R_*2*", "--filter=H_*3*", "--filter=S_*3*", "--exclude=[a-f]*"]),
    (15, &["-C", "-F", "-FF"]),
    (20, &["-m"]),
    (20, &["--max-size=1k", "--min-size=100"]),
    (60, &["--delete", "--delete-after", "--delete-delay", "--del", "--delete-excluded"]),
    (20, &["-b", "-b --suffix=.old", "-b --backup-dir=../kept", "-b --backup-dir=../kept --suffix=.x"]),
    (
        40,
        &[
            "--link-dest=../one",
            "--copy-dest=../one",
            "--compare-dest=../one",
            "--copy-dest=../one --copy-dest=../two",
        ],
    ),
    (20, &["-y --no-W", "-W", "--inplace", "--no-W"]),
    (15, &["--delay-updates", "--partial-dir=.parts", "--temp-dir=/tmp"]),
    (30, &["-c", "-I", "--size-only", "-u", "--modify-window=2"]),
    (20, &["--existing", "--ignore-existing"]),
    (25, &["--no-p", "--no-t", "-O", "-J", "-E --no-p", "--chmod=g+w,Fo-r", "--no-o --no-g"]),
    (20, &["-A", "-X", "-AX"]),
    (20, &["--no-l", "--safe-links", "--munge-links", "--copy-unsafe-links"]),
    (15, &["--no-D", "--no-devices", "--no-specials"]),
    (15, &["--force", "--mkpath", "-x", "-z", "--numeric-ids"]),
];

struct Scene {
    root: PathBuf,
}

impl Scene {
    fn make(seed: u64, root: PathBuf) -> Scene {
        fs::create_dir_all(root.join("source")).expect("a new directory");
        random_tree(seed, &root.join("source"));
        for side in ["ours", "theirs"] {
            for (number, name) in (0..).zip(["one", "two", "to"]) {
                let directory = root.join(side).join(name);
                fs::create_dir_all(&directory).expect("a new directory");
                random_tree(seed, &directory);
                random_changes(seed * 100 + number, &directory);
            }
        }
        Scene { root }
    }

    fn run(&self, sandbox: &Sandbox, stage: &Stage, direction: Direction, line: &[&str]) -> (Output, Output) {
        let text = |path: &Path| path.to_str().expect("ASCII").to_owned();
        let source = text(&self.root.join("source")) + "/";
        let to = |side: &str| text(&self.root.join(side).join("to"));
        let theirs = stage.rsync(sandbox, direction, line, &source, &to("theirs"));
        let ours = stage.sync(sandbox, direction, line, &source, &to("ours"));
        (theirs, ours)
    }
}

/// What was done, but for the times of directories, which depend on when something was made or deleted in them.
fn lines(output: &Output) -> Vec<String> {
    let is_compared = |line: &String| !line.starts_with(".d..t......") && !line.starts_with(".d...");
    output.itemized().into_iter().filter(is_compared).collect()
}

/// Whether what is made keeps the time at which it was made.
fn leaves_times(line: &[&str]) -> bool {
    line.iter().any(|option| ["--no-t", "-J"].contains(option))
}

fn draw(rng: &mut Rng) -> Vec<&'static str> {
    // With an error at the source rsync deletes nothing at all, here other directories go on.
    let mut line = vec!["-ai", "--ignore-errors"];
    for (percent, choices) in TOPICS {
        if rng.chance(*percent) {
            line.extend(rng.pick(choices).split(' '));
        }
    }
    line
}

#[test]
fn options_of_all_topics_together_do_what_they_do_for_rsync() {
    tests::require!("rsync", "sshd", "root");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    for seed in seeds(60) {
        let mut rng = Rng::new(seed);
        let line = draw(&mut rng);
        let direction = *rng.pick(&ALL[..3]);
        eprintln!("seed {seed}: {direction:?} {line:?}");
        let scene = Scene::make(seed, sandbox.path().join(format!("seed-{seed}")));
        let (theirs, ours) = scene.run(&sandbox, &stage, direction, &line);
        assert_eq!(ours.code(), theirs.code(), "exit status\n{theirs}\n{ours}");
        let (expected, actual) = (lines(&theirs), lines(&ours));
        let only = |these: &[String], those: &[String]| -> Vec<String> {
            these.iter().filter(|line| !those.contains(line)).cloned().collect()
        };
        assert!(
            expected == actual,
            "only of rsync: {:#?}\nonly of ours: {:#?}\n$ {}\n$ {}\n{}",
            only(&expected, &actual),
            only(&actual, &expected),
            theirs.line,
            ours.line,
            ours.stderr_text()
        );
        let ignore = Ignore { directory_mtime: true, mtime: leaves_times(&line), ..NOTHING };
        assert_same(&snapshot(&scene.root.join("theirs")), &snapshot(&scene.root.join("ours")), &ignore);
        fs::remove_dir_all(&scene.root).expect("it is ours");
    }
}

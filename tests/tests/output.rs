//! What is printed and logged, side by side with the installed rsync: lines, statistics, lists, log files.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use tests::directions::{ALL, Direction, Stage};
use tests::process::Output;
use tests::sandbox::Sandbox;
use tests::seed::seeds;
use tests::tree::{random_tree, set_mtime, write_at};

const LONG_AGO: i64 = 1_500_000_000;

fn make_same(root: &Path) {
    fs::create_dir_all(root.join("sub/deep")).expect("a new directory");
    write_at(&root.join("same"), b"the same", LONG_AGO);
    write_at(&root.join("sub/deep/same too"), b"the same", LONG_AGO);
}

fn age_directories(root: &Path) {
    for directory in ["sub/deep", "sub", ""] {
        set_mtime(&root.join(directory), LONG_AGO, 0);
    }
}

/// A tree with something of every kind that anybody may copy.
fn make_source(source: &Path) {
    make_same(source);
    write_at(&source.join("changed"), &[7; 1_234_567], LONG_AGO);
    write_at(&source.join("new"), b"new", LONG_AGO + 1);
    write_at(&source.join("sub/mode"), b"mode", LONG_AGO);
    write_at(&source.join("newer there"), b"older", LONG_AGO);
    write_at(&source.join("caf\u{e9}\n"), b"a name", LONG_AGO);
    symlink("new", source.join("link")).expect("a new link");
    symlink("sub/mode", source.join("link too")).expect("a new link");
    set_mtime(&source.join("link"), LONG_AGO, 0);
    set_mtime(&source.join("link too"), LONG_AGO, 0);
    rustix::fs::mknodat(rustix::fs::CWD, source.join("fifo"), rustix::fs::FileType::Fifo, 0o640.into(), 0)
        .expect("a new FIFO");
    fs::set_permissions(source.join("sub/mode"), fs::Permissions::from_mode(0o4750)).expect("it is ours");
    age_directories(source);
}

/// A destination with something to update, to keep and to delete.
fn make_destination(destination: &Path) {
    make_same(destination);
    write_at(&destination.join("changed"), &[8; 1000], LONG_AGO - 5);
    write_at(&destination.join("sub/mode"), b"mode", LONG_AGO);
    write_at(&destination.join("newer there"), b"younger", LONG_AGO + 100);
    symlink("elsewhere", destination.join("link too")).expect("a new link");
    set_mtime(&destination.join("link too"), LONG_AGO, 0);
    write_at(&destination.join("gone"), b"gone", LONG_AGO);
    fs::create_dir_all(destination.join("old/dir")).expect("a new directory");
    age_directories(destination);
}

struct Case<'a> {
    sandbox: &'a Sandbox,
    stage: &'a Stage,
    direction: Direction,
    directory: PathBuf,
}

impl Case<'_> {
    fn source(&self) -> String {
        format!("{}/", self.directory.join("source").display())
    }

    fn rsync(&self, options: &[&str], destination: &str) -> Output {
        let destination = self.directory.join(destination);
        let destination = destination.to_str().expect("ASCII");
        self.stage.rsync(self.sandbox, self.direction, options, &self.source(), destination)
    }

    fn sync(&self, options: &[&str], destination: &str) -> Output {
        let destination = self.directory.join(destination);
        let destination = destination.to_str().expect("ASCII");
        self.stage.sync(self.sandbox, self.direction, options, &self.source(), destination)
    }
}

fn in_each_direction(name: &str, check: impl Fn(&Case<'_>)) {
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    for direction in &ALL[..3] {
        let directory = sandbox.path().join(format!("{name}-{direction:?}").replace(['(', ')'], "-"));
        make_source(&directory.join("source"));
        for destination in ["ours", "theirs"] {
            make_destination(&directory.join(destination));
        }
        check(&Case { sandbox: &sandbox, stage: &stage, direction: *direction, directory });
    }
}

/// What both must print, whatever the order: without figures of the wire, what depends on them, and what rsync says of
/// itself.
fn lines(output: &Output, drop: &[&str]) -> Vec<String> {
    let of_rsync = [
        "delta-transmission ",
        "total: matches=",
        "opening connection using",
        "sent ",
        "[",
        "(No malloc stats",
        "building file list",
    ];
    let is_kept = |line: &&str| !of_rsync.iter().chain(drop).any(|start| line.starts_with(start));
    let text = output.stdout_text();
    let without_speedup = |line: &str| line.split("  speedup is ").next().expect("it starts").to_owned();
    let mut lines: Vec<String> = text.lines().filter(is_kept).map(without_speedup).collect();
    lines.sort();
    lines
}

fn assert_same_lines(theirs: &Output, ours: &Output, drop: &[&str]) {
    assert_eq!(ours.code(), theirs.code(), "{theirs}\n{ours}");
    let (theirs_lines, ours_lines) = (lines(theirs, drop), lines(ours, drop));
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|line| !those.contains(line)).cloned().collect()
    };
    assert!(
        ours_lines == theirs_lines,
        "only ours: {:#?}\nonly theirs: {:#?}\n$ {}\n$ {}",
        only(&ours_lines, &theirs_lines),
        only(&theirs_lines, &ours_lines),
        ours.line,
        theirs.line
    );
}

/// Everything but lengths of directories, figures of the wire and rsync's own hash.
const FORMAT: &str = "--out-format=%i|%n|%L|%o|%B|%U|%G|%M|%m|%%|%h|%a|%u|%P|%z|%-12n|%40n|%5U|%05G|%15i|%f";

#[test]
fn every_line_is_that_of_rsync() {
    tests::require!("rsync", "sshd");
    in_each_direction("lines", |case| {
        for options in [
            &["-ain", "--delete"][..],
            &["-aiin", "--delete"],
            &["-an", "-v", "--delete"],
            &["-an", "-v"],
            &["-an", "-vi", "--delete"],
            &["-an", "-q", "-v"],
            &["-an", "--info=name"],
            &["-an", "--info=name2"],
            &["-an", "-vv", "-u"],
            &["-an", "-vv", "--existing"],
            &["-an", "-vv", "--ignore-existing", "--delete"],
            &["-an", "--info=skip", "--existing"],
            &["-an", "--info=skip", "-u"],
            &["-an", "--info=skip", "--ignore-existing"],
            &["-an", "--info=name,del0", "--delete"],
            &["-an", "--info=del", "--delete"],
            &["-an", "-v", "--info=name0", "--delete"],
            &["-an", "-v", "--info=stats0,flist0"],
            &["-an", "-i", "--info=name0", "--delete"],
            &["-an", "--delete", FORMAT],
            &["-an", "--delete", "--out-format=%n"],
            &["-an", "--delete", "--out-format=%o %n"],
            &["-an", "--out-format="],
            &["-an", "-v", "--out-format=%i %f"],
            &["-an8", "-i"],
            &["-an", "-i", "--no-i"],
            &["-rln", "-i"],
            &["-rn", "--info=nonreg0"],
            &["-rlptn", "-vi", "--no-v"],
        ] {
            // The mode of what is deleted rsync knows in a pull alone.
            let is_beyond = options.contains(&FORMAT) && matches!(case.direction, Direction::Pull(_));
            let drop: &[&str] = if is_beyond { &["*deleting "] } else { &[] };
            assert_same_lines(&case.rsync(options, "theirs"), &case.sync(options, "ours"), drop);
        }
    });
}

#[test]
fn lengths_are_those_of_rsync() {
    tests::require!("rsync", "sshd");
    in_each_direction("lengths", |case| {
        let options = ["-an", "--delete", "--out-format=%n %l %'l %''l %'''l %15'l %-9l|"];
        let (theirs, ours) = (case.rsync(&options, "theirs"), case.sync(&options, "ours"));
        // A directory's length is its file system's own affair, and not told.
        let of_files = |output: &Output| {
            let mut lines = lines(output, &[]);
            lines.retain(|line| !line.split(' ').next().is_some_and(|name| name.ends_with('/')));
            lines
        };
        assert_eq!(of_files(&ours), of_files(&theirs));
        assert!(of_files(&ours).iter().any(|line| line.contains("1234567 1,234,567 1.23M 1.18M")));
    });
}

#[test]
fn a_copy_that_is_made_says_how_much_of_it_was_sent_and_what_it_hashes_to() {
    tests::require!("sshd");
    in_each_direction("sent", |case| {
        let output = case.sync(&["-a", "--out-format=%n|%b|%C|%c"], "ours");
        let hash = blake3::hash(b"new").to_hex();
        let text = output.success().stdout_text();
        assert!(text.contains(&format!("new|3|{hash}|0\n")), "{output}");
        assert!(
            text.contains(&format!("link -> new|0|{}|0\n", " ".repeat(64)).replace(" -> new", "")),
            "{output}"
        );
    });
}

/// The labels of statistics, and the values of those that don't count the wire.
fn statistics(output: &Output) -> Vec<(String, Option<String>)> {
    let text = output.stdout_text();
    let lines = text.lines().filter(|line| line.contains(':') && !line.starts_with("Time of"));
    let lines = lines.filter(|line| !line.starts_with("Number of entries with only"));
    let of_wire = ["Total bytes", "File list", "Literal data", "Matched data"];
    let pair = |line: &str| {
        let (label, value) = line.split_once(':').expect("a colon");
        let counts_wire = of_wire.iter().any(|of_wire| label.starts_with(of_wire));
        (label.to_owned(), (!counts_wire).then(|| value.to_owned()))
    };
    lines.map(pair).collect()
}

#[test]
fn statistics_have_rsync_s_labels_in_rsync_s_order_and_its_values() {
    tests::require!("rsync", "sshd");
    in_each_direction("statistics", |case| {
        for options in
            [&["-an", "--stats", "--delete"][..], &["-anh", "--stats"], &["-an", "--no-h", "--stats"]]
        {
            let (theirs, ours) = (case.rsync(options, "theirs"), case.sync(options, "ours"));
            // How many bytes a dry run would transfer, rsync knows too.
            assert_eq!(statistics(&ours), statistics(&theirs), "{options:?}");
        }
        let (theirs, ours) =
            (case.rsync(&["-a", "--stats"], "theirs"), case.sync(&["-a", "--stats"], "ours"));
        assert_eq!(statistics(&ours), statistics(&theirs));
        let total = |output: &Output| {
            let text = output.stdout_text();
            text.lines()
                .find_map(|line| line.strip_prefix("total size is "))
                .and_then(|line| line.split_once("  speedup is ").map(|(total, _)| total.to_owned()))
        };
        assert!(total(&ours).is_some());
        assert_eq!(total(&ours), total(&theirs));
    });
}

/// Lists with directories' lengths left out.
fn list(output: &Output) -> Vec<String> {
    let text = output.success().stdout_text();
    let without_length = |line: &str| match line.strip_prefix('d') {
        Some(rest) if line.len() > 25 => format!("d{}…{}", &rest[..9], &line[25..]),
        _ => line.to_owned(),
    };
    text.lines()
        .filter(|line| !line.starts_with("sent ") && !line.contains("speedup"))
        .map(without_length)
        .collect()
}

#[test]
fn lists_are_those_of_rsync_in_its_order() {
    tests::require!("rsync", "sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    let tree = sandbox.path().join("tree");
    make_source(&tree);
    for name in ["a", "a.b", "a b", "a-"] {
        fs::create_dir(tree.join(name)).expect("a new directory");
        write_at(&tree.join(name).join("z"), b"z", LONG_AGO);
    }
    let shell = stage.sshd.remote_shell();
    let address = stage.line(ALL[1], tree.to_str().expect("ASCII"), "x").source;
    for source in [tree.to_str().expect("ASCII").to_owned(), address] {
        let contents = format!("{source}/");
        for options in [
            &[][..],
            &["-r"],
            &["-a"],
            &["-rl"],
            &["-h", "-a"],
            &["-hh", "-a"],
            &["-a", "--exclude=sub"],
            &["-r", "--exclude=deep", "-8"],
            &["--list-only"],
        ] {
            for source in [&source, &contents] {
                let line = options.iter().copied().chain(["-e", &shell, source]);
                let line: Vec<&str> = line.collect();
                assert_eq!(list(&sandbox.sync(&line)), list(&tests::rsync::run(&sandbox, &line)), "{line:?}");
            }
        }
        // Two sources need a destination, which is not looked at.
        let (one, two) = (format!("{source}/same"), format!("{source}/sub"));
        let line = ["--list-only", "-a", "-e", &shell, &one, &two, "/nowhere/at/all"];
        assert_eq!(list(&sandbox.sync(line)), list(&tests::rsync::run(&sandbox, line)));
    }
    let old = ["--no-h", "-r", tree.to_str().expect("ASCII")];
    let plain = |output: &Output| {
        let mut lines: Vec<String> = output.stdout_text().lines().map(str::to_owned).collect();
        lines.retain(|line| !line.starts_with('d'));
        lines
    };
    assert_eq!(plain(&sandbox.sync(old)), plain(&tests::rsync::run(&sandbox, old)));
    sandbox.sync(["/nowhere/at/all"]).expect_code(23);
}

/// A log file without times and process numbers, in any order.
fn logged(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).expect("a log file");
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| {
            let (stamp, rest) = line.split_once("] ").unwrap_or_else(|| panic!("no stamp: {line}"));
            let (time, number) = stamp.split_once(" [").expect("a process number");
            assert!(time.len() == 19 && number.parse::<u32>().is_ok(), "{line}");
            let figures = rest.split_once("  total size ").filter(|_| rest.starts_with("sent "));
            figures.map_or_else(|| rest.to_owned(), |(_, total)| format!("total size {total}"))
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn log_files_are_those_of_rsync() {
    tests::require!("rsync", "sshd");
    // Of what is deleted rsync knows the mode in a pull alone; here its name is all that is said.
    for format in [None, Some("%o %n"), Some("%n"), Some(""), Some("%i|%f")] {
        in_each_direction("log", |case| {
            let log = |name: &str| case.directory.join(format!("{name}.log"));
            let mut options = vec!["-a".to_owned(), "--delete".to_owned()];
            options.extend(format.map(|format| format!("--log-file-format={format}")));
            let with = |name: &str| {
                let mut all = options.clone();
                all.push(format!("--log-file={}", log(name).display()));
                all
            };
            let (theirs, ours) = (with("theirs"), with("ours"));
            case.rsync(&theirs.iter().map(String::as_str).collect::<Vec<_>>(), "theirs").success();
            case.sync(&ours.iter().map(String::as_str).collect::<Vec<_>>(), "ours").success();
            assert_eq!(logged(&log("ours")), logged(&log("theirs")), "{:?} {format:?}", case.direction);
        });
    }
}

#[test]
fn progress_has_a_line_for_each_file_or_for_all() {
    tests::require!("sshd");
    in_each_direction("progress", |case| {
        let each = case.sync(&["-a", "--progress"], "ours");
        let text = each.success().stdout_text();
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("(xfr#")).collect();
        assert_eq!(lines.len(), 4, "{each}");
        let is_full =
            |line: &&str| line.contains("1,234,567 100%") && line.contains("B/s") && line.contains("chk=");
        assert!(lines.iter().any(is_full), "{each}");
        assert!(text.lines().any(|line| line == "new"), "{each}");
        fs::remove_file(case.directory.join("ours/new")).expect("it was copied");
        let whole = case.sync(&["-a", "--info=progress2"], "ours");
        let text = whole.success().stdout_text();
        assert!(text.lines().count() == 1 && text.starts_with('\r') && text.contains("% "), "{whole}");
        assert!(text.contains("(xfr#1, "), "{whole}");
    });
}

#[test]
fn everything_can_go_to_standard_error() {
    let sandbox = Sandbox::new();
    write_at(&sandbox.source().join("file"), b"content", LONG_AGO);
    let source = format!("{}/", sandbox.source().display());
    let destination = sandbox.destination().display().to_string();
    for option in ["--stderr=all", "--stderr=a", "--msgs2stderr"] {
        let output = sandbox.sync(["-ain", option, &source, &destination]);
        assert!(output.success().stdout.is_empty(), "{output}");
        output.expect_stderr(">f+++++++++ file");
    }
    for options in
        [&["--stderr=e"][..], &["--stderr=client"], &["--msgs2stderr", "--no-msgs2stderr"], &["--outbuf=B"]]
    {
        let line: Vec<&str> =
            ["-ain"].iter().chain(options).copied().chain([&*source, &*destination]).collect();
        assert!(sandbox.sync(line).success().stdout_text().contains(">f+++++++++ file"), "{options:?}");
    }
    for option in [
        "--stderr=x",
        "--outbuf=x",
        "--info=foo",
        "--debug=foo",
        "--bwlimit=100B",
        "--stop-at=x",
        "--stop-after=0",
    ] {
        let output = sandbox.sync(["-a", option, &source, &destination]);
        let name = option.split('=').next().expect("a name");
        output.expect_code(1).expect_stderr(name);
    }
    for option in ["--info=help", "--debug=help", "--version", "-VV"] {
        assert!(!sandbox.sync([option]).success().stdout.is_empty(), "{option}");
    }
}

#[test]
fn any_combination_of_what_is_said_is_that_of_rsync() {
    tests::require!("rsync");
    const PIECES: [&str; 16] = [
        "-v",
        "-v",
        "-i",
        "-i",
        "-q",
        "-h",
        "--info=name2",
        "--info=skip",
        "--info=del",
        "--info=none",
        "-u",
        "--existing",
        "--ignore-existing",
        "--out-format=%i %n%L",
        "--out-format=%o %'B %10n",
        "-8",
    ];
    let sandbox = Sandbox::new();
    for seed in seeds(12) {
        let root = sandbox.path().join(format!("seed-{seed}"));
        let (source, destination) = (root.join("source"), root.join("destination"));
        fs::create_dir_all(&source).expect("a new directory");
        random_tree(seed, &source);
        fs::create_dir_all(&destination).expect("a new directory");
        random_tree(seed + 1000, &destination);
        for round in 0..4_u64 {
            let mut bits = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(11 * round as u32);
            let mut line = vec!["-an", "--delete"];
            for piece in PIECES {
                if bits & 3 == 0 {
                    line.push(piece);
                }
                bits >>= 2;
            }
            let paths = [format!("{}/", source.display()), destination.display().to_string()];
            line.extend(paths.iter().map(String::as_str));
            let (theirs, ours) = (tests::rsync::run(&sandbox, &line), sandbox.sync(&line));
            // Random trees have more in links and sizes than a total may hide: only names and letters are compared.
            assert_same_lines(&theirs, &ours, &["total size is"]);
        }
        fs::remove_dir_all(&root).expect("it is ours");
    }
}

//! Links, arguments, deletions and times beside the installed rsync: the same tree, the same line, the same result.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::directions::{ALL, Direction, Stage};
use tests::process::{self, Output};
use tests::sandbox::Sandbox;
use tests::seed::{Rng, seeds};
use tests::snapshot::{Ignore, NOTHING, assert_same, snapshot};
use tests::tree::{set_mtime, write_at};

const OLD_S: i64 = 1_400_000_000;

/// A tree with every kind of link, and beside it what they lead out to.
fn linked_tree(root: &Path) {
    for directory in ["from/d/e", "out/deep"] {
        fs::create_dir_all(root.join(directory)).expect("a new directory");
    }
    for (file, content) in [
        ("from/f", "f"),
        ("from/d/g", "gg"),
        ("from/d/e/h", "hhh"),
        ("out/o", "oooo"),
        ("out/deep/p", "ppppp"),
    ] {
        write_at(&root.join(file), content.as_bytes(), OLD_S);
    }
    for (link, target) in [
        ("from/to_file", "f"),
        ("from/to_dir", "d"),
        ("from/to_nothing", "nowhere"),
        ("from/out_file", "../out/o"),
        ("from/out_dir", "../out"),
        ("from/absolute", "/etc/hostname"),
        ("from/d/up", "../f"),
        ("from/d/out", "../../out/deep"),
        ("from/d/turn", "e/../g"),
        ("from/d/e/up_dir", "../../d/e"),
        ("from/munged", "/rsyncd-munged/../f"),
    ] {
        symlink(target, root.join(link)).expect("a new link");
    }
    // Followed, it would have no end.
    fs::remove_file(root.join("from/d/e/up_dir")).expect("it was made");
}

/// What one of the two programs made of a tree of its own.
struct Ended {
    output: Output,
    root: PathBuf,
}

/// What differs in nothing else must not differ in the moment in which it was made.
fn age(root: &Path) {
    for path in walk(root).into_iter().filter(|path| path.is_dir() || path.is_symlink()) {
        set_mtime(&path, OLD_S, 0);
    }
}

/// Runs a line in two directories that `make` filled alike; paths in it are relative to these.
fn side_by_side(sandbox: &Sandbox, name: &str, make: impl Fn(&Path), line: &[&str]) -> (Ended, Ended) {
    let run = |program: &str, command: fn(&Sandbox) -> Command| {
        let root = sandbox.path().join(format!("{name}-{program}"));
        fs::create_dir_all(root.join("to")).expect("a new directory");
        set_mtime(&root.join("to"), OLD_S, 0);
        make(&root);
        age(&root);
        let mut command = command(sandbox);
        command.args(line).current_dir(&root);
        Ended { output: process::run(command), root }
    };
    let theirs = run("rsync", |sandbox| sandbox.command("rsync"));
    let ours = run("ours", |sandbox| sandbox.sync_command([] as [&str; 0]));
    (theirs, ours)
}

fn assert_alike(line: &[&str], theirs: &Ended, ours: &Ended) {
    eprintln!("{line:?}");
    let (a, b) = (&theirs.output, &ours.output);
    assert_eq!(a.code(), b.code(), "exit status of {line:?}\n{a}\n{b}");
    // Deleting in a session of its own, ours sets the time of a directory again before it is looked at.
    let is_compared = |item: &String| !line.contains(&"--delete-before") || !item.starts_with(".d..t......");
    let lines = |output: &Output| output.itemized().into_iter().filter(is_compared).collect::<Vec<_>>();
    assert_eq!(lines(a), lines(b), "lines of {line:?}\n{a}\n{b}");
    // The time of what is outside the transfer is that of the copying.
    let ignore = Ignore { mtime: true, ..NOTHING };
    assert_same(&snapshot(&theirs.root), &snapshot(&ours.root), &ignore);
}

fn compare(lines: &[&[&str]], make: fn(&Path)) {
    let sandbox = Sandbox::new();
    for (number, line) in lines.iter().enumerate() {
        let (theirs, ours) = side_by_side(&sandbox, &number.to_string(), make, line);
        assert_alike(line, &theirs, &ours);
    }
}

#[test]
fn links_become_what_rsync_makes_of_them_in_every_direction() {
    tests::require!("rsync", "sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    let root = sandbox.path().join("tree");
    linked_tree(&root);
    age(&root);
    let source = format!("{}/", root.join("from").display());
    for options in [
        &["-ai", "-k"][..],
        &["-ai", "--copy-unsafe-links"],
        &["-ai", "-k", "--copy-unsafe-links"],
        &["-ai", "-kL", "--safe-links"],
        &["-ai", "--safe-links"],
        &["-ai", "--munge-links"],
        &["-ai", "--munge-links", "-k"],
        &["-ai", "--munge-links", "--safe-links"],
        &["-rti", "--copy-unsafe-links"],
        &["-rti", "-k"],
    ] {
        // A server that is held to a directory, were it the topmost, follows no absolute link.
        for &direction in &ALL[..3] {
            let (ours, theirs) = (root.join("ours"), root.join("theirs"));
            for path in [&ours, &theirs] {
                let _ = fs::remove_dir_all(path);
                fs::create_dir(path).expect("a new directory");
                set_mtime(path, OLD_S, 0);
            }
            for again in [false, true] {
                compare_into(&sandbox, &stage, direction, options, &source, (&ours, &theirs), again);
            }
        }
    }
}

fn compare_into(
    sandbox: &Sandbox,
    stage: &Stage,
    direction: Direction,
    options: &[&str],
    source: &str,
    (ours, theirs): (&Path, &Path),
    again: bool,
) {
    let to = |path: &Path| path.to_str().expect("the sandbox's paths are ASCII").to_owned();
    let rsync = stage.rsync(sandbox, direction, options, source, &to(theirs));
    let sync = stage.sync(sandbox, direction, options, source, &to(ours));
    sync.expect_code(rsync.code());
    assert_eq!(
        rsync.itemized(),
        sync.itemized(),
        "{options:?} {direction:?}, again: {again}\n{rsync}\n{sync}"
    );
    assert_same(&snapshot(theirs), &snapshot(ours), &NOTHING);
}

#[test]
fn relative_arguments_become_what_rsync_makes_of_them() {
    tests::require!("rsync");
    compare(
        &[
            &["-aiR", "from/d/g", "to/"],
            &["-aiR", "./from/d/g", "to/"],
            &["-aiR", "from/./d/g", "to/"],
            &["-aiR", "from/./", "to/"],
            &["-aiR", "from/d/", "from/f", "to/"],
            &["-aiR", "from/to_dir/g", "to/"],
            &["-aiR", "from/to_dir/", "to/"],
            &["-aiR", "from/to_dir", "to/"],
            &["-aiR", "from/d/../f", "to/"],
            &["-aiR", "from/./d", "from/./f", "from/./d/e/h", "to/"],
            &["-iR", "from/d/g", "from/f", "to/"],
            &["-iRd", "from/d", "from/f", "to/"],
            &["-iRd", "from/d/", "from/f", "to/"],
            &["-aiR", "--exclude=/from", "from/d/g", "to/"],
            &["-aiR", "--exclude=g", "from/d/g", "to/"],
            &["-aiR", "--exclude=/d", "from/./d/g", "to/"],
            &["-aiR", "--delete", "from/d", "to/"],
            &["-aiR", "--delete", "from/d/", "from/f", "to/"],
            &["-aiR", "--delete", "from/./d", "from/./", "to/"],
            &["-aiR", "--no-implied-dirs", "from/d/g", "to/"],
            &["-aiR", "--no-implied-dirs", "from/d/e", "from/f", "to/"],
            &["-aiR", "--no-implied-dirs", "from/linked/../d/g", "to/"],
            &["-aiR", "-L", "from/d/", "to/"],
            &["-aiR", "--copy-unsafe-links", "from/d", "to/"],
            &["-ainR", "from/d/g", "to/new/"],
            &["-aiR", "--no-R", "from/d/g", "to/"],
        ],
        |root| {
            linked_tree(root);
            for file in ["to/from/d/extra", "to/from/extra/x", "to/d/extra", "to/extra"] {
                fs::create_dir_all(root.join(file).parent().expect("it has one")).expect("a directory");
                write_at(&root.join(file), b"old", OLD_S);
            }
        },
    );
}

#[test]
fn no_implied_dirs_keeps_links_inside_and_makes_what_is_missing() {
    tests::require!("rsync");
    compare(
        &[
            &["-aiR", "--no-implied-dirs", "from/d/g", "to/"],
            &["-aiR", "--no-implied-dirs", "from/d", "to/"],
            &["-aiRK", "from/d", "to/"],
        ],
        |root| {
            linked_tree(root);
            fs::create_dir_all(root.join("to/real")).expect("a directory");
            fs::create_dir_all(root.join("to/from")).expect("a directory");
            symlink("../real", root.join("to/from/d")).expect("a new link");
        },
    );
    compare(&[&["-aiR", "--no-implied-dirs", "from/d/g", "to/"]], linked_tree);
}

#[test]
fn directories_without_their_content_are_made_as_rsync_makes_them() {
    tests::require!("rsync");
    compare(
        &[
            &["-di", "from/", "to/"],
            &["-di", "from", "to/"],
            &["-dlti", "from/", "to/"],
            &["-di", "--delete", "from/", "to/"],
            &["-di", "from/d", "from/f", "to/"],
            &["-ai", "--old-dirs", "from/", "to/"],
            &["-ai", "--no-r", "-d", "from/", "to/"],
            &["-di", "--no-d", "from/", "to/"],
            &["-dki", "from/", "to/"],
        ],
        |root| {
            linked_tree(root);
            fs::create_dir_all(root.join("to/d/kept")).expect("a directory");
            fs::create_dir_all(root.join("to/extra")).expect("a directory");
        },
    );
}

#[test]
fn missing_arguments_are_reported_passed_over_or_deleted_as_rsync_does() {
    tests::require!("rsync");
    compare(
        &[
            &["-ai", "from/nope", "from/f", "to/"],
            &["-ai", "--ignore-missing-args", "from/nope", "from/f", "to/"],
            &["-ai", "--ignore-missing-args", "from/nope", "to/"],
            &["-ai", "--ignore-missing-args", "from/nope/", "from/f", "to/"],
            &["-ai", "--delete-missing-args", "from/gone", "from/f", "to/"],
            &["-ai", "--delete-missing-args", "from/empty", "from/full", "from/f", "to/"],
            &["-ai", "--delete-missing-args", "--force", "from/empty", "from/full", "from/f", "to/"],
            &["-ai", "--delete-missing-args", "--delete", "from/full", "from/d", "to/"],
            &["-aiR", "--delete-missing-args", "from/gone", "from/f", "to/"],
            &["-aiR", "--delete-missing-args", "from/./gone", "from/f", "to/"],
            &["-ain", "--delete-missing-args", "from/gone", "from/f", "to/"],
            &["-ai", "--delete-missing-args", "from/never_was", "from/f", "to/"],
        ],
        |root| {
            linked_tree(root);
            for directory in ["to/empty", "to/full/x", "to/from"] {
                fs::create_dir_all(root.join(directory)).expect("a directory");
            }
            for file in ["to/gone", "to/from/gone"] {
                write_at(&root.join(file), b"old", OLD_S);
            }
        },
    );
}

#[test]
fn the_path_to_the_destination_is_made_as_rsync_makes_it() {
    tests::require!("rsync");
    compare(
        &[
            &["-ai", "--mkpath", "from/", "to/a/b/c/"],
            &["-ai", "--mkpath", "from/d", "to/a/b/c"],
            &["-ai", "--mkpath", "from/f", "to/a/b/c/"],
            &["-ai", "--mkpath", "from/f", "from/d", "to/a/b/c"],
            &["-ai", "--mkpath", "from/d/", "to"],
            &["-rti", "--mkpath", "from/d/", "to/a/b"],
            &["-ain", "--mkpath", "from/d/", "to/a/b"],
        ],
        |root| {
            linked_tree(root);
        },
    );
}

#[test]
fn a_directory_in_the_way_is_emptied_where_that_was_asked_for() {
    tests::require!("rsync");
    let make = |root: &Path| {
        linked_tree(root);
        for directory in ["to/f/x/y", "to/to_file/z", "to/out_file", "to/extra"] {
            fs::create_dir_all(root.join(directory)).expect("a directory");
        }
    };
    let sandbox = Sandbox::new();
    for (name, line) in [
        ("plain", &["-ai", "from/", "to/"][..]),
        ("force", &["-ai", "--force", "from/", "to/"]),
        ("dry", &["-ain", "--force", "from/", "to/"]),
        ("delete", &["-ai", "--delete", "from/", "to/"]),
        ("before", &["-ai", "--delete-before", "from/", "to/"]),
    ] {
        let (theirs, ours) = side_by_side(&sandbox, name, make, line);
        assert_alike(line, &theirs, &ours);
    }
}

#[test]
fn every_time_to_delete_gives_the_same_tree_and_lines() {
    tests::require!("rsync");
    compare(
        &[
            &["-ai", "--delete-before", "from/", "to/"],
            &["-ai", "--delete-during", "from/", "to/"],
            &["-ai", "--del", "from/", "to/"],
            &["-ai", "--delete-delay", "from/", "to/"],
            &["-ai", "--delete-after", "from/", "to/"],
            &["-ai", "--delete-before", "--delete", "from/", "to/"],
            &["-ain", "--delete-before", "from/", "to/"],
            &["-ai", "--delete-before", "from/d", "to/"],
            &["-aic", "--delete-before", "--exclude=kept", "from/", "to/"],
            &["-ai", "--delete-before", "--delete-after", "from/", "to/"],
            &["-i", "--delete-during", "from/", "to/"],
            &["-ai", "--delete", "--max-delete=100", "from/", "to/"],
        ],
        |root| {
            linked_tree(root);
            write_at(&root.join("to/f"), b"another", OLD_S);
            for file in ["to/extra", "to/d/extra/x/y", "to/kept", "to/d/kept"] {
                fs::create_dir_all(root.join(file).parent().expect("it has one")).expect("a directory");
                write_at(&root.join(file), b"old", OLD_S);
            }
        },
    );
}

#[test]
fn what_is_removed_from_the_source_is_what_rsync_removes() {
    tests::require!("rsync");
    compare(
        &[
            &["-ai", "--remove-source-files", "from/", "to/"],
            &["-ai", "--remove-source-files", "from", "to/"],
            &["-aiR", "--remove-source-files", "from/d/e/h", "from/./f", "to/"],
            &["-rti", "--remove-source-files", "from/", "to/"],
            &["-ain", "--remove-source-files", "from/", "to/"],
            &["-ai", "--ignore-existing", "--remove-source-files", "from/", "to/"],
            &["-ai", "--existing", "--remove-source-files", "from/", "to/"],
            &["-aiu", "--remove-source-files", "from/", "to/"],
            &["-aic", "--remove-source-files", "--inplace", "from/", "to/"],
            &["-ai", "--safe-links", "--remove-source-files", "from/", "to/"],
            &["-ai", "--remove-source-files", "--exclude=g", "from/", "to/"],
        ],
        |root| {
            linked_tree(root);
            fs::create_dir_all(root.join("to/d/e")).expect("a directory");
            // Up to date, newer, and another one.
            write_at(&root.join("to/d/g"), b"gg", OLD_S);
            write_at(&root.join("to/f"), b"newer", OLD_S + 1000);
            write_at(&root.join("to/d/e/h"), b"xxx", OLD_S - 1000);
        },
    );
}

#[test]
fn times_within_the_window_are_the_same() {
    tests::require!("rsync");
    compare(
        &[
            &["-ai", "-@0", "from/", "to/"],
            &["-ai", "-@1", "from/", "to/"],
            &["-ai", "--modify-window=2", "from/", "to/"],
            &["-ai", "--modify-window=-1", "from/", "to/"],
            &["-aiu", "-@1", "from/", "to/"],
            &["-ai", "-@x", "from/", "to/"],
        ],
        |root| {
            fs::create_dir_all(root.join("from/d")).expect("a directory");
            fs::create_dir_all(root.join("to/d")).expect("a directory");
            for (name, seconds, nanoseconds, content) in [
                ("same", 0, 0, "same"),
                ("fraction", 0, 500_000_000, "same"),
                ("second", 1, 0, "same"),
                ("two", 2, 900_000_000, "same"),
                ("three", -3, 0, "same"),
                ("size", 1, 0, "other size"),
                ("earlier", -1, 0, "other size"),
            ] {
                write_at(&root.join("from").join(name), b"same", OLD_S);
                let there = root.join("to").join(name);
                write_at(&there, content.as_bytes(), OLD_S);
                set_mtime(&there, OLD_S + seconds, nanoseconds);
            }
        },
    );
}

#[test]
fn a_kept_link_never_leads_out_of_the_destination_and_what_it_leads_to_stays() {
    let sandbox = Sandbox::new();
    let make = |name: &str, target: &str| {
        let root = sandbox.path().join(name);
        fs::create_dir_all(root.join("from/d")).expect("a directory");
        write_at(&root.join("from/d/g"), b"new", OLD_S);
        fs::create_dir_all(root.join("to/real")).expect("a directory");
        fs::create_dir_all(root.join("other")).expect("a directory");
        write_at(&root.join("to/real/old"), b"old", OLD_S);
        symlink(target, root.join("to/d")).expect("a new link");
        root
    };
    let sync = |root: &Path, options: &[&str]| {
        let paths = [format!("{}/from/", root.display()), format!("{}/to/", root.display())];
        sandbox.sync(options.iter().map(|&option| option.to_owned()).chain(paths))
    };
    for (name, target) in [("up", "../other"), ("absolute", "/etc"), ("around", "real/../../other")] {
        let root = make(name, target);
        sync(&root, &["-aK", "--delete"]).expect_code(23).expect_stderr("leads out of the destination");
        assert_eq!(fs::read_dir(root.join("other")).expect("it is there").count(), 0, "{target}");
        assert!(root.join("to/d").is_symlink(), "{target}");
    }
    let root = make("inside", "real");
    sync(&root, &["-aK", "--delete"]).success();
    assert!(root.join("to/d").is_symlink(), "the link is kept");
    assert_eq!(fs::read(root.join("to/real/g")).expect("it came through the link"), b"new");
    assert!(!root.join("to/real/old").exists(), "extraneous behind the link");
    let root = make("without", "real");
    sync(&root, &["-a"]).success();
    assert!(!root.join("to/d").is_symlink(), "without -K a directory takes its place");
}

#[test]
fn a_source_file_is_removed_only_where_that_is_allowed_and_only_as_it_was_copied() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    let root = sandbox.path();
    linked_tree(root);
    let (from, to) = (format!("{}/from/", root.display()), format!("{}/to/", root.display()));
    // The same directory: all of it would be "up to date".
    sandbox.sync(["-a", "--remove-source-files", &from, &from]).expect_code(3);
    sandbox
        .sync(["-a", "--remove-source-files", from.trim_end_matches('/'), &format!("{}/", root.display())])
        .expect_code(3);
    assert!(root.join("from/f").exists());
    // A read-only agent refuses.
    let serve = tests::serve::Serve::start(&sandbox, Path::new("/"), true);
    sandbox
        .sync(["-a", "--remove-source-files", &serve.url(&from), &to])
        .expect_code(5)
        .expect_stderr("read-only");
    assert!(root.join("from/f").exists());
    // Both names of one file go, although the first one's going changes the other's ctime.
    fs::hard_link(root.join("from/f"), root.join("from/f2")).expect("a second name");
    let serve = tests::serve::Serve::start(&sandbox, Path::new("/"), false);
    for source in [from.clone(), serve.url(&from)] {
        sandbox.sync(["-a", "--remove-source-files", &source, &to]).success();
        let left: Vec<_> = walk(&root.join("from"));
        assert!(left.iter().all(|path| path.is_dir()), "{left:?}");
        assert_eq!(fs::read(root.join("to/f2")).expect("it was copied"), b"f");
        fs::remove_dir_all(&to).expect("it was made");
        fs::remove_dir_all(root.join("from")).expect("it is there");
        fs::remove_dir_all(root.join("out")).expect("it is there");
        linked_tree(root);
        fs::hard_link(root.join("from/f"), root.join("from/f2")).expect("a second name");
    }
}

/// Everything below a directory.
fn walk(root: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(root).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.is_symlink() {
            all.extend(walk(&path));
        }
        all.push(path);
    }
    all
}

#[test]
fn many_source_files_go_in_several_rounds() {
    let sandbox = Sandbox::new();
    let from = sandbox.path().join("from");
    fs::create_dir(&from).expect("a new directory");
    tests::tree::many_files(&from, 20_000);
    let to = sandbox.path().join("to");
    let (source, destination) = (format!("{}/", from.display()), format!("{}/", to.display()));
    sandbox.sync(["-a", &source, &destination]).success();
    // All of them up to date: nothing is written, and the window still has to open.
    sandbox.sync(["-a", "--remove-source-files", &source, &destination]).success();
    assert!(walk(&from).iter().all(|path| path.is_dir()));
}

#[test]
fn what_could_not_be_looked_at_is_deleted_only_if_errors_are_ignored() {
    tests::require!("rsync");
    let make = |root: &Path| {
        linked_tree(root);
        for file in ["to/to_nothing", "to/extra"] {
            write_at(&root.join(file), b"old", OLD_S);
        }
    };
    let sandbox = Sandbox::new();
    let line = ["-aiL", "--delete", "--ignore-errors", "from/", "to/"];
    let (theirs, ours) = side_by_side(&sandbox, "ignored", make, &line);
    assert_alike(&line, &theirs, &ours);
    assert!(!ours.root.join("to/to_nothing").exists());
    let (_, ours) = side_by_side(&sandbox, "minded", make, &["-aiL", "--delete", "from/", "to/"]);
    ours.output.expect_code(23);
    assert!(ours.root.join("to/to_nothing").exists() && ours.root.join("to/extra").exists());
}

/// Options that are drawn at random, beside those that every line has.
const DRAWN: [&str; 14] = [
    "-k",
    "--copy-unsafe-links",
    "--safe-links",
    "--munge-links",
    "--force",
    "--delete",
    "--delete-before",
    "--delete-after",
    "-R",
    "--no-implied-dirs",
    "--mkpath",
    "--ignore-missing-args",
    "--delete-missing-args",
    "--remove-source-files",
];

#[test]
fn options_in_any_combination_give_what_rsync_gives() {
    tests::require!("rsync");
    let sandbox = Sandbox::new();
    for seed in seeds(40) {
        let mut random = Rng::new(seed);
        let mut line = vec!["-ai"];
        line.extend(DRAWN.iter().filter(|_| random.chance(25)));
        if line.contains(&"--delete-before") {
            line.retain(|option| *option != "--delete-after");
        }
        if line.contains(&"--remove-source-files") {
            // rsync removes a file as soon as it is copied, and then does not find it through the second link to it.
            line.retain(|option| *option != "--copy-unsafe-links");
        }
        if line.contains(&"--copy-unsafe-links") {
            // One of them leads to nothing, which keeps rsync from deleting anything.
            line.push("--ignore-errors");
        }
        line.push(*random.pick(&["from/", "from", "from/d", "from/d/", "from/./d/e"]));
        if random.chance(40) {
            line.push(*random.pick(&["from/f", "from/gone", "from/to_dir", "from/./d"]));
        }
        line.push("to/");
        let make = |root: &Path| destination_of(seed, root);
        let (theirs, ours) = side_by_side(&sandbox, &format!("seed-{seed}"), make, &line);
        assert_alike(&line, &theirs, &ours);
    }
}

/// The linked tree, and at random things at the destination that it has or has not.
fn destination_of(seed: u64, root: &Path) {
    linked_tree(root);
    let mut random = Rng::new(seed ^ 0x5eed);
    for prefix in ["to", "to/from"] {
        for (path, content) in [
            ("f", "f"),
            ("extra", "extra"),
            ("gone", "gone"),
            ("d/g", "another"),
            ("d/extra/x", "extra"),
            ("to_file/x", "in the way"),
            ("e/h", "hhh"),
        ] {
            if random.chance(50) {
                let path = root.join(prefix).join(path);
                fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
                write_at(&path, content.as_bytes(), OLD_S);
            }
        }
    }
}

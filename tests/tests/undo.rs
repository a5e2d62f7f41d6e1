//! `trash undo`: what a run took comes back, what it had put there is kept, and nothing is lost on the way.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use tests::extras::{acl_for, attributes, link_groups, set_attribute};
use tests::mount::Tmpfs;
use tests::process::{self, Output};
use tests::sandbox::{Sandbox, names_in, program};
use tests::seed::{Rng, seeds};
use tests::snapshot::{Ignore, NOTHING, Snapshot, assert_same, snapshot};
use tests::tree::{random_changes, random_tree, set_mtime, write_at};
use walkdir::WalkDir;

const LONG_AGO_S: i64 = 1_500_000_000;

/// A sandbox with `src/`, `dst/` and, once a run has made it, `trash/`.
struct Here {
    sandbox: Sandbox,
}

impl Here {
    fn make(files: &[(&str, &str)]) -> Here {
        let here = Here { sandbox: Sandbox::new() };
        for directory in ["src", "dst"] {
            fs::create_dir(here.path(directory)).expect("a new directory");
        }
        files.iter().for_each(|(path, content)| here.write(path, content));
        here
    }

    fn path(&self, path: &str) -> PathBuf {
        self.sandbox.path().join(path)
    }

    /// A file whose time is its own, for its content is.
    fn write(&self, path: &str, content: &str) {
        fs::create_dir_all(self.path(path).parent().expect("it has one")).expect("a new directory");
        let number = content.bytes().fold(0, |sum, byte| sum * 31 % 1_000_003 + i64::from(byte));
        write_at(&self.path(path), content.as_bytes(), LONG_AGO_S + number);
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Runs a line with the trash; returns the name of its run.
    fn sync(&self, options: &str) -> String {
        let before = self.runs();
        let mut command = self.sandbox.sync_command(options.split(' '));
        command.args(["--trash=../trash", "src/", "dst/"]).current_dir(self.sandbox.path());
        process::run(command).success();
        self.runs().difference(&before).next().cloned().unwrap_or_default()
    }

    fn runs(&self) -> BTreeSet<String> {
        let trash = self.path("trash");
        if trash.exists() { names_in(&trash).into_iter().collect() } else { BTreeSet::new() }
    }

    fn undo(&self, run: &str) -> Output {
        let trash = self.path("trash").display().to_string();
        self.sandbox.client(["trash", "undo", "-y", &trash, run])
    }

    /// All that files have in them, wherever they are.
    fn contents(&self) -> BTreeSet<Vec<u8>> {
        let below = |directory: &str| WalkDir::new(self.path(directory)).into_iter();
        let entries = below("src").chain(below("dst")).chain(below("trash"));
        let files = entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_file());
        // A copy that is not complete yet is nothing.
        let is_staged = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with(".sync-agent-staging");
        files
            .filter(|entry| entry.file_name() != "log" && !is_staged(entry.file_name()))
            .map(|entry| fs::read(entry.path()).expect("it is there"))
            .collect()
    }
}

#[test]
fn an_undo_keeps_the_only_copy_of_what_the_run_put_there() {
    let here = Here::make(&[("src/a", "from the source"), ("dst/a", "old"), ("dst/b", "deleted")]);
    let run = here.sync("-a --delete --remove-source-files");
    assert!(!here.path("src/a").exists());
    here.undo(&run).success();
    assert_eq!((here.read("dst/a"), here.read("dst/b")), ("old".to_owned(), "deleted".to_owned()));
    assert_eq!(here.read(&format!("trash/{run}/new/a")), "from the source");
    let trash = here.path("trash").display().to_string();
    let listed = here.sandbox.client(["trash", "list", &trash]);
    listed.success();
    assert!(listed.stdout_text().contains("undone; 1 entries"), "{listed}");
    // Again there is nothing to do.
    here.undo(&run).expect_code(46).expect_stderr("undone already");
    assert_eq!(here.read("dst/a"), "old");
}

/// Three versions of a tree: a file, one with several names, a file that is a directory next, and the reverse.
fn put_version(here: &Here, version: u32) {
    let _ = fs::remove_dir_all(here.path("src"));
    fs::create_dir(here.path("src")).expect("a new directory");
    here.write("src/file", &format!("file {version}"));
    here.write("src/names/one", &format!("names {version}"));
    fs::hard_link(here.path("src/names/one"), here.path("src/names/two")).expect("another name");
    if version < 2 {
        here.write("src/taken", &format!("taken {version}"));
        symlink(format!("target-{version}"), here.path("src/link")).expect("a new link");
    }
    match version {
        1 => fs::create_dir(here.path("src/turns")).expect("a new directory"),
        _ => here.write("src/turns", &format!("turns {version}")),
    }
    for name in ["names", ""] {
        // What a run only sets of a directory is no replacement, and has no undo.
        set_mtime(&here.path("src").join(name), LONG_AGO_S, 0);
    }
}

#[test]
fn runs_are_undone_one_after_the_other() {
    let here = Here::make(&[]);
    let mut undone = Vec::new();
    for version in 0..3 {
        put_version(&here, version);
        let before = snapshot(&here.path("dst"));
        let run = here.sync("-aH --delete");
        undone.push((run, before, link_groups(&here.path("dst"))));
    }
    let groups = link_groups(&here.path("dst"));
    for (run, before, _) in undone.iter().skip(1).rev() {
        here.undo(run).success();
        assert_same(before, &snapshot(&here.path("dst")), &NOTHING);
        assert_eq!(link_groups(&here.path("dst")), groups);
    }
    assert_eq!(here.read("dst/file"), "file 0");
}

#[test]
fn what_was_changed_between_two_runs_stays_when_the_first_is_undone() {
    for change in ["content", "mode"] {
        let here = Here::make(&[("src/f", "one"), ("dst/f", "none")]);
        let first = here.sync("-a");
        match change {
            "content" => here.write("dst/f", "mine"),
            _ => fs::set_permissions(here.path("dst/f"), fs::Permissions::from_mode(0o600)).expect("ours"),
        }
        let mine = snapshot(&here.path("dst"));
        here.write("src/f", "three");
        let second = here.sync("-a");
        here.undo(&second).success();
        assert_same(&mine, &snapshot(&here.path("dst")), &NOTHING);
        here.undo(&first).expect_code(23).expect_stderr("changed since");
        assert_same(&mine, &snapshot(&here.path("dst")), &NOTHING);
    }
}

#[test]
fn removed_directories_come_back_with_their_attributes() {
    tests::require!("root");
    let here = Here::make(&[
        ("src/keep", "kept"),
        ("src/turns", "a file now"),
        ("dst/gone/deep/f", "deep"),
        ("dst/turns/f", "in it"),
    ]);
    for empty in ["gone/empty", "gone/deep/empty"] {
        fs::create_dir(here.path("dst").join(empty)).expect("a new directory");
    }
    for (number, name) in (1_u32..).zip(["gone", "gone/deep", "gone/deep/empty", "gone/empty", "turns"]) {
        let path = here.path("dst").join(name);
        set_attribute(&path, "user.number", number.to_string().as_bytes());
        set_attribute(&path, "system.posix_acl_access", &acl_for(4000 + number));
        if number != 2 {
            set_attribute(&path, "system.posix_acl_default", &acl_for(5000 + number));
        }
        std::os::unix::fs::chown(&path, Some(number), Some(number + 1)).expect("root may");
        set_mtime(&path, LONG_AGO_S, i64::from(number));
    }
    let looks = || (snapshot(&here.path("dst/gone")), attributes(&here.path("dst")));
    let before = looks();
    let run = here.sync("-a --delete");
    assert!(!here.path("dst/gone").exists() && here.path("dst/turns").is_file());
    here.undo(&run).success();
    let after = looks();
    assert_same(&before.0, &after.0, &NOTHING);
    assert_eq!(before.1, after.1);
    assert_eq!(here.read(&format!("trash/{run}/new/turns")), "a file now");
}

#[test]
fn an_ordinary_user_gets_closed_directories_back() {
    tests::require!("root", "setpriv");
    let here = Here::make(&[("src/keep", "kept"), ("dst/gone/deep/f", "deep")]);
    for name in ["gone/deep", "gone"] {
        fs::set_permissions(here.path("dst").join(name), fs::Permissions::from_mode(0o500)).expect("ours");
        set_mtime(&here.path("dst").join(name), LONG_AGO_S, 0);
    }
    let mut own = here.sandbox.command("chown");
    own.args(["-R", "65534:65534"]).arg(here.sandbox.path());
    process::run(own).success();
    let before = snapshot(&here.path("dst/gone"));
    let as_nobody = |arguments: &[&str]| {
        let client = here.sandbox.client_command(arguments);
        let mut command = here.sandbox.command("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(client.get_program());
        command.args(client.get_args()).current_dir(here.sandbox.path());
        process::run(command)
    };
    as_nobody(&["sync", "-a", "--delete", "--trash=../trash", "src/", "dst/"]).success();
    assert!(!here.path("dst/gone").exists());
    let run = here.runs().first().cloned().expect("a run");
    as_nobody(&["trash", "undo", "-y", "trash", &run]).success();
    assert_same(&before, &snapshot(&here.path("dst/gone")), &NOTHING);
}

#[test]
fn a_directory_that_was_put_there_since_stays_as_it_is() {
    let here = Here::make(&[("src/keep", "kept"), ("dst/a", "deleted"), ("dst/b", "deleted too")]);
    let run = here.sync("-a --delete");
    fs::create_dir(here.path("dst/a")).expect("a new directory");
    fs::set_permissions(here.path("dst/a"), fs::Permissions::from_mode(0o1711)).expect("ours");
    fs::create_dir(here.path("dst/b")).expect("a new directory");
    here.write("dst/b/f", "in it");
    let inode = || fs::metadata(here.path("dst/a")).expect("it is there").ino();
    let made = inode();
    let undone = here.undo(&run);
    undone.expect_code(23).expect_stderr("dst/a".trim_start_matches("dst/")).expect_stderr("not empty");
    assert_eq!((inode(), here.read("dst/b/f")), (made, "in it".to_owned()));
    assert_eq!(here.read(&format!("trash/{run}/tree/a")), "deleted");
    fs::remove_dir(here.path("dst/a")).expect("ours");
    fs::remove_dir_all(here.path("dst/b")).expect("ours");
    here.undo(&run).success();
    assert_eq!((here.read("dst/a"), here.read("dst/b")), ("deleted".to_owned(), "deleted too".to_owned()));
    assert!(here.runs().is_empty(), "nothing is left");
}

#[test]
fn what_is_on_a_mount_below_the_destination_comes_back_too() {
    tests::require!("root");
    let here = Here::make(&[("src/mount/changed", "new"), ("src/mount/was-dir", "a file now")]);
    fs::create_dir(here.path("dst/mount")).expect("a new directory");
    let mounted = Tmpfs::mount(&here.path("dst/mount"), 8 << 20);
    fs::create_dir(here.path("src/mount/was-file")).expect("a new directory");
    here.write("dst/mount/changed", &"old".repeat(100_000));
    here.write("dst/mount/gone/deep/f", "gone");
    here.write("dst/mount/was-dir/f", "in it");
    here.write("dst/mount/was-file", "a file");
    symlink("nowhere", here.path("dst/mount/gone/link")).expect("a new link");
    let strict = fs::Permissions::from_mode(0o4751);
    fs::set_permissions(here.path("dst/mount/changed"), strict).expect("ours");
    set_attribute(&here.path("dst/mount/changed"), "trusted.note", b"kept");
    set_attribute(&here.path("dst/mount/gone"), "trusted.note", b"kept too");
    for name in ["mount/gone/deep", "mount/gone", "mount/was-dir", "mount", ""] {
        set_mtime(&here.path("dst").join(name), LONG_AGO_S, 7);
    }
    for name in ["mount", ""] {
        set_mtime(&here.path("src").join(name), LONG_AGO_S, 7);
        let mode = fs::metadata(here.path("dst").join(name)).expect("it is there").permissions();
        fs::set_permissions(here.path("src").join(name), mode).expect("ours");
    }
    let before = (snapshot(mounted.path()), attributes(mounted.path()));
    let run = here.sync("-a --delete");
    assert!(!here.path("dst/mount/gone").exists());
    here.undo(&run).success();
    assert_same(&before.0, &snapshot(mounted.path()), &NOTHING);
    assert_eq!(before.1, attributes(mounted.path()));
    assert_eq!(here.read(&format!("trash/{run}/new/mount/changed")), "new");
    assert_eq!(here.read(&format!("trash/{run}/new/mount/was-dir")), "a file now");
    assert!(here.path(&format!("trash/{run}/new/mount/was-file")).is_dir());
    assert!(!here.path(&format!("trash/{run}/tree")).exists());
}

#[test]
fn what_was_reached_through_a_kept_link_comes_back() {
    let here =
        Here::make(&[("src/dir/changed", "new"), ("dst/real/changed", "old"), ("dst/real/gone", "gone")]);
    symlink("real", here.path("dst/dir")).expect("a new link");
    let run = here.sync("-aK --delete --exclude=/real");
    assert_eq!(
        (here.read("dst/real/changed"), here.path("dst/real/gone").exists()),
        ("new".to_owned(), false)
    );
    here.undo(&run).success();
    assert_eq!(
        (here.read("dst/real/changed"), here.read("dst/real/gone")),
        ("old".to_owned(), "gone".to_owned())
    );
    assert!(here.path("dst/dir").is_symlink());
    // A link that leads elsewhere now, out of the destination, leads nowhere.
    here.write("src/dir/changed", "newer");
    let run = here.sync("-aK --delete --exclude=/real");
    fs::remove_file(here.path("dst/dir")).expect("ours");
    symlink("../src/dir", here.path("dst/dir")).expect("a new link");
    here.undo(&run).expect_code(23).expect_stderr("something else now");
    assert_eq!(here.read("src/dir/changed"), "newer");
}

/// A destination in which a run has had something of every kind to do.
struct Much {
    /// Unmounted before the sandbox goes.
    _mounted: Option<Tmpfs>,
    here: Here,
    run: String,
    /// What was there before the run, and is to be there after its undo.
    before: Snapshot,
    /// What files had in them after the run.
    contents: BTreeSet<Vec<u8>>,
}

impl Much {
    /// All of it is in `sub`, perhaps on a file system of its own.
    fn make(is_mounted: bool) -> Much {
        let here = Here::make(&[]);
        fs::create_dir(here.path("dst/sub")).expect("a new directory");
        let mounted = is_mounted.then(|| Tmpfs::mount(&here.path("dst/sub"), 8 << 20));
        for (path, content) in [
            ("src/sub/changed", "new"),
            ("src/sub/dir/changed", "new too"),
            ("src/sub/was-dir", "a file now"),
            ("src/sub/one", "names"),
            ("dst/sub/changed", "old"),
            ("dst/sub/dir/changed", "old too"),
            ("dst/sub/dir/gone", "gone"),
            ("dst/sub/was-dir/f", "in it"),
            ("dst/sub/was-file", "a file"),
            ("dst/sub/one", "old names"),
            ("dst/sub/gone/deep/f", "deep"),
        ] {
            here.write(path, content);
        }
        fs::create_dir(here.path("src/sub/was-file")).expect("a new directory");
        for side in ["src/sub", "dst/sub"] {
            fs::hard_link(here.path(side).join("one"), here.path(side).join("two")).expect("another name");
        }
        fs::set_permissions(here.path("dst/sub"), fs::Permissions::from_mode(0o755)).expect("ours");
        for name in ["sub/gone/deep", "sub/gone", "sub/was-dir", "sub/dir", "sub", ""] {
            set_mtime(&here.path("dst").join(name), LONG_AGO_S, 5);
        }
        for name in ["sub/dir", "sub", ""] {
            set_mtime(&here.path("src").join(name), LONG_AGO_S, 5);
        }
        let before = snapshot(&here.path("dst"));
        let run = here.sync("-aH --delete --remove-source-files");
        let contents = here.contents();
        Much { _mounted: mounted, here, run, before, contents }
    }

    /// Undoes the run under strace.
    fn undo(&self, call: &str, injected: &str) -> Output {
        let mut command = self.here.sandbox.command("strace");
        command.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"]);
        command.arg(format!("inject={call}:{injected}")).arg(program("sync-client"));
        command.args(["trash", "undo", "-y"]).arg(self.here.path("trash")).arg(&self.run);
        process::run(command)
    }

    /// All is as before, and nothing is lost.
    fn assert_undone(&self, is_mounted: bool, ignore: &Ignore, what: &str) {
        let (here, now) = (&self.here, snapshot(&self.here.path("dst")));
        assert_eq!(here.contents(), self.contents, "{what}");
        assert_eq!(here.read(&format!("trash/{}/new/sub/one", self.run)), "names", "{what}");
        eprintln!("{what}");
        assert_same(&self.before, &now, ignore);
        let is_removed = |name: &[u8]| name.starts_with(b"sub/gone") || name.starts_with(b"sub/was-dir");
        let removed = |all: &Snapshot| -> Snapshot {
            all.clone().into_iter().filter(|(name, _)| is_removed(name)).collect()
        };
        assert_same(&removed(&self.before), &removed(&now), &NOTHING);
        // Copies are files of their own.
        assert_eq!(link_groups(&here.path("dst")).len(), usize::from(!is_mounted), "{what}");
    }
}

#[test]
fn an_undo_that_is_killed_anywhere_loses_nothing_and_the_next_one_ends_it() {
    tests::require!("strace", "root");
    let mut cuts = 0;
    let calls = ["renameat2", "renameat", "unlinkat", "mkdirat", "pwrite64", "utimensat", "fsync", "syncfs"];
    for (is_mounted, call) in
        [false, true].into_iter().flat_map(|is_mounted| calls.map(|call| (is_mounted, call)))
    {
        for number in 1.. {
            let much = Much::make(is_mounted);
            let what = format!("mounted: {is_mounted}, killed before {call} {number}");
            if much.undo(call, &format!("signal=KILL:when={number}")).status.success() {
                break;
            }
            cuts += 1;
            assert_eq!(much.here.contents(), much.contents, "{what}");
            if much.here.path(&format!("trash/{}/tree", much.run)).exists() {
                let again = much.here.undo(&much.run);
                assert_eq!(again.code(), 0, "{what}: {again}");
            }
            // What was there all along may have lost its time with the first one.
            much.assert_undone(is_mounted, &Ignore { directory_mtime: true, ..NOTHING }, &what);
        }
    }
    assert!(cuts > 50, "{cuts}");
}

#[test]
fn an_undo_where_names_can_not_be_exchanged_does_the_same() {
    tests::require!("strace", "root");
    for error in ["EINVAL", "ENOSYS"] {
        for is_mounted in [false, true] {
            let much = Much::make(is_mounted);
            much.undo("renameat2", &format!("error={error}")).success();
            much.assert_undone(is_mounted, &NOTHING, error);
        }
    }
}

#[test]
fn no_content_is_lost_whatever_runs_and_undos_follow_each_other() {
    for seed in seeds(3) {
        let here = Here::make(&[]);
        random_tree(seed, &here.path("dst"));
        random_tree(seed, &here.path("src"));
        let (mut rng, mut runs) = (Rng::new(seed), Vec::new());
        for round in 0..4 {
            random_changes(seed * 100 + round, &here.path("src"));
            let before = here.contents();
            runs.push(here.sync("-aH --delete"));
            let kept = here.contents();
            assert!(kept.is_superset(&before), "seed {seed}, round {round}");
            if rng.below(2) == 0 {
                let chosen = runs.swap_remove(rng.below(runs.len() as u64) as usize);
                if !chosen.is_empty() {
                    here.undo(&chosen).expect_code_in(&[0, 23]);
                }
            }
            assert_eq!(here.contents(), kept, "seed {seed}, round {round}");
        }
    }
}

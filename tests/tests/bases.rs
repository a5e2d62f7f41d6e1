//! Alternate bases, backups, the trash, and where files are until they have their names: beside the installed rsync where
//! it has the option, by what must hold where it has not.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tests::directions::{ALL, Direction, Stage};
use tests::process::{self, Output};
use tests::sandbox::{Sandbox, names_in};
use tests::seed::{Rng, seeds};
use tests::snapshot::{Ignore, NOTHING, Snapshot, assert_same, snapshot};
use tests::tree::{random_changes, random_tree, set_mtime, write_at};

const AT_S: i64 = 1_500_000_000;

/// A source, and for each program a directory with a destination and what stands beside it.
struct Pair {
    root: PathBuf,
}

impl Pair {
    /// `fill` makes `source`, and in a directory for each program `dest` and what it is to stand beside.
    fn make(root: PathBuf, fill: impl Fn(&Path)) -> Pair {
        fs::create_dir_all(&root).expect("a new directory");
        for side in ["ours", "theirs"] {
            fs::create_dir_all(root.join(side).join("dest")).expect("a new directory");
        }
        fs::create_dir(root.join("source")).expect("a new directory");
        fill(&root);
        Pair { root }
    }

    fn ours(&self) -> PathBuf {
        self.root.join("ours")
    }

    fn theirs(&self) -> PathBuf {
        self.root.join("theirs")
    }

    fn run(
        &self,
        stage: &Stage,
        sandbox: &Sandbox,
        direction: Direction,
        options: &[&str],
    ) -> (Output, Output) {
        let source = format!("{}/source/", self.root.display());
        let destination = |side: &Path| format!("{}/dest/", side.display());
        let theirs = stage.rsync(sandbox, direction, options, &source, &destination(&self.theirs()));
        let ours = stage.sync(sandbox, direction, options, &source, &destination(&self.ours()));
        (theirs, ours)
    }

    /// Both programs do the same, say the same, and end the same.
    fn compare(
        &self,
        stage: &Stage,
        sandbox: &Sandbox,
        direction: Direction,
        options: &[&str],
        ignore: &Ignore,
    ) {
        let (theirs, ours) = self.run(stage, sandbox, direction, options);
        let what = format!("{direction:?} {options:?}\n{theirs}\n{ours}");
        assert_eq!(ours.code(), theirs.code(), "exit status of {what}");
        assert_eq!(ours.itemized(), theirs.itemized(), "lines of {what}");
        eprintln!("{options:?}");
        for side in [self.ours(), self.theirs()] {
            set_mtime(&side, AT_S, 0);
        }
        assert_same(&snapshot(&self.theirs()), &snapshot(&self.ours()), ignore);
        assert_eq!(linked(&self.ours()), linked(&self.theirs()), "links of {what}");
        assert_eq!(
            fs::read_dir(self.ours().join("dest")).expect("it is there").count(),
            fs::read_dir(self.theirs().join("dest")).expect("it is there").count(),
            "nothing of a run's own stays: {what}"
        );
    }
}

/// The names in `dest` of what has a name in a directory beside it too.
fn linked(side: &Path) -> Vec<(PathBuf, PathBuf)> {
    let inodes = |root: &Path| -> Vec<(u64, PathBuf)> {
        let entries = walkdir::WalkDir::new(root).into_iter().map(|entry| entry.expect("it can be read"));
        let files = entries.filter(|entry| !entry.file_type().is_dir());
        files
            .map(|entry| (entry.path().symlink_metadata().expect("it is there").ino(), entry.into_path()))
            .collect()
    };
    let relative = |path: &Path| path.strip_prefix(side).expect("it is below").to_owned();
    let mut beside = BTreeMap::new();
    for name in names_in(side).into_iter().filter(|name| name != "dest") {
        beside.extend(inodes(&side.join(name)));
    }
    let own = inodes(&side.join("dest")).into_iter();
    let mut linked: Vec<_> =
        own.filter_map(|(inode, path)| Some((relative(&path), relative(beside.get(&inode)?)))).collect();
    linked.sort();
    linked
}

fn put(path: &Path, content: &str, mode: u32, age_s: i64) {
    fs::create_dir_all(path.parent().expect("it has one")).expect("a new directory");
    write_at(path, content.as_bytes(), AT_S - age_s);
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

/// Gives all directories of a tree one time: that of the test would be the same second here and there, or not.
fn age_directories(root: &Path, age_s: i64) {
    for entry in walkdir::WalkDir::new(root).contents_first(true) {
        let entry = entry.expect("it can be read");
        if entry.file_type().is_dir() {
            set_mtime(entry.path(), AT_S - age_s, 0);
        }
    }
}

fn point(path: &Path, to: &str, age_s: i64) {
    symlink(to, path).expect("a new link");
    set_mtime(path, AT_S - age_s, 0);
}

/// What agrees with the source in all, in content, in nothing; in the first base or in the second; and what stands in the
/// destination already, where `exists`.
fn fill_bases(root: &Path, exists: bool) {
    let source = root.join("source");
    for name in
        ["exact", "attr", "diff", "none", "second", "dir/deep", "dir/attr", "exists", "there", "grown"]
    {
        put(&source.join(name), &format!("content of {name}"), 0o644, 0);
    }
    for name in ["link", "link-time", "link-other"] {
        point(&source.join(name), "target", 0);
    }
    set_mtime(&source.join("dir"), AT_S - 7, 0);
    for side in ["ours", "theirs"] {
        let side = root.join(side);
        let (one, two) = (side.join("one"), side.join("two"));
        for name in ["exact", "second", "dir/deep", "exists"] {
            put(&one.join(name), &format!("content of {name}"), 0o644, 0);
        }
        put(&one.join("attr"), "content of attr", 0o600, 0);
        put(&one.join("dir/attr"), "content of dir/attr", 0o600, 0);
        put(&one.join("second"), "content of second", 0o600, 0);
        put(&one.join("diff"), "content of some", 0o644, 60);
        put(&one.join("there"), "content of there", 0o640, 0);
        put(&two.join("second"), "content of second", 0o644, 0);
        put(&two.join("attr"), "content of attr", 0o640, 0);
        put(&two.join("diff"), "content of diff", 0o644, 90);
        put(&two.join("dir/deep"), "content of dir/deep", 0o644, 0);
        point(&one.join("link"), "target", 0);
        point(&one.join("link-time"), "target", 60);
        point(&one.join("link-other"), "elsewhere", 0);
        set_mtime(&one.join("dir"), AT_S - 7, 0);
        set_mtime(&two.join("dir"), AT_S - 70, 0);
        if exists {
            put(&side.join("dest/exists"), "other", 0o644, 30);
            put(&side.join("dest/there"), "content of there", 0o600, 0);
            put(&side.join("dest/extra"), "extraneous", 0o600, 0);
            point(&side.join("dest/link"), "elsewhere", 0);
        }
        for dir in [one, two, side.join("dest")] {
            set_mtime(&dir, AT_S, 0);
        }
    }
    set_mtime(&source, AT_S, 0);
}

const THREE: [Direction; 3] = [ALL[0], ALL[1], ALL[2]];

#[test]
fn alternate_bases_are_used_as_rsync_uses_them() {
    tests::require!("rsync", "sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    let mut number = 0;
    for kind in ["--link-dest", "--copy-dest", "--compare-dest"] {
        let (one, two) = (format!("{kind}=../one"), format!("{kind}=../two"));
        let missing = format!("{kind}=../missing");
        for (exists, options) in [
            (false, vec!["-ai", &one, &two]),
            (false, vec!["-ai", &two, &missing, &one]),
            (true, vec!["-ai", &one]),
            (true, vec!["-ai", "--delete", &one, &two]),
            (false, vec!["-aic", &one, &two]),
            (false, vec!["-rltDi", &one, &two]),
            (false, vec!["-ai", "--size-only", &one, &two]),
            (false, vec!["-ai", "--ignore-times", &one]),
            (false, vec!["-rlpi", &one]),
            (true, vec!["-ai", "--existing", &one]),
            (true, vec!["-ai", "--ignore-existing", &one]),
            (false, vec!["-ain", &one, &two]),
            (true, vec!["-ai", "--no-whole-file", &one]),
            (false, vec!["-ai", "--delay-updates", &one]),
        ] {
            number += 1;
            // The line is the same whichever way the data goes: all ways for the first ones.
            let directions = if number % 14 < 4 { &THREE[..] } else { &THREE[..1] };
            for &direction in directions {
                let root = sandbox.path().join(format!("{number}-{direction:?}").replace(['(', ')'], "-"));
                let pair = Pair::make(root, |root| fill_bases(root, exists));
                // What is not kept is that of the moment.
                let ignore = Ignore { mtime: !options[0].contains(['a', 't']), ..NOTHING };
                pair.compare(&stage, &sandbox, direction, &options, &ignore);
            }
        }
    }
}

#[test]
fn of_bases_with_the_same_size_and_time_a_checksum_finds_the_one_with_the_content() {
    tests::require!("rsync");
    let sandbox = Sandbox::new();
    let root = sandbox.path().join("pair");
    for (path, content) in [
        ("source/f", "right"),
        ("one/f", "wrong"),
        ("two/f", "right"),
        ("source/g", "right"),
        ("one/g", "wrong"),
        ("two/g", "wronk"),
    ] {
        put(&root.join(path), content, 0o644, 0);
    }
    let line = ["-aic", "--link-dest=../one", "--link-dest=../two", "source/", "dest/"];
    let mut command = sandbox.sync_command(line);
    let ended = process::run({
        command.current_dir(&root);
        command
    });
    let g: Vec<String> = ended.success().itemized().into_iter().filter(|line| !line.contains("./")).collect();
    assert_eq!(g, [">fc........ g"], "{ended}");
    let inode = |path: &str| fs::metadata(root.join(path)).expect("it is there").ino();
    assert_eq!(inode("dest/f"), inode("two/f"));
    assert_eq!(fs::read(root.join("dest/g")).expect("it is there"), b"right");
}

fn fill_backups(root: &Path) {
    let source = root.join("source");
    for (name, content) in
        [("file", "new"), ("same", "same"), ("mode", "mode"), ("was-dir", "a file"), ("new", "new")]
    {
        put(&source.join(name), content, 0o644, 0);
    }
    put(&source.join("dir/file"), "new too", 0o644, 0);
    put(&source.join("was-file/file"), "in it", 0o644, 0);
    put(&source.join("touched"), "touched", 0o644, 0);
    point(&source.join("link"), "new", 0);
    for side in ["ours", "theirs"] {
        let dest = root.join(side).join("dest");
        for (name, content, age_s) in [
            ("file", "older", 10),
            ("same", "same", 0),
            ("touched", "touched", 5),
            ("dir/file", "older", 20),
            ("was-file", "a file", 10),
            ("extra", "extraneous", 10),
            ("extra-dir/deep/file", "extraneous", 10),
            ("extra-dir/file", "extraneous", 10),
            ("file~", "an older backup", 100),
            ("old~", "a backup", 100),
        ] {
            put(&dest.join(name), content, 0o640, age_s);
        }
        put(&dest.join("mode"), "mode", 0o600, 0);
        fs::set_permissions(dest.join("extra-dir"), fs::Permissions::from_mode(0o750)).expect("it is ours");
        point(&dest.join("link"), "old", 30);
    }
}

#[test]
fn backups_are_kept_as_rsync_keeps_them() {
    tests::require!("rsync", "sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    // Directories of backups get their times from what is put into them.
    let ignore = Ignore { directory_mtime: true, ..NOTHING };
    for (number, options) in [
        &["-ai", "-b"][..],
        &["-ai", "-b", "--delete"],
        &["-ai", "--backup-dir=../kept", "--delete"],
        &["-ai", "-b", "--suffix=.old", "--delete"],
        &["-ai", "--backup-dir=../kept/deep/er", "--suffix=.1", "--delete"],
        &["-ai", "-b", "--no-whole-file"],
        &["-ain", "--backup-dir=../kept", "--delete"],
        &["-ai", "-b", "--no-backup", "--delete"],
        &["-ai", "-b", "--delay-updates", "--delete"],
        &["-aic", "-b"],
    ]
    .into_iter()
    .enumerate()
    {
        let directions = if number < 3 { &THREE[..] } else { &THREE[..1] };
        for &direction in directions {
            let root = sandbox.path().join(format!("{number}-{direction:?}").replace(['(', ')'], "-"));
            let pair = Pair::make(root, |root| {
                fill_backups(root);
                if !options.contains(&"--delete") || options.iter().all(|option| !option.contains("-dir=")) {
                    // What a directory with backups in it can't make room for has a test of its own.
                    fs::remove_file(root.join("source/was-dir")).expect("it is ours");
                } else {
                    for side in ["ours", "theirs"] {
                        put(&root.join(side).join("dest/was-dir/file"), "in it", 0o600, 50);
                    }
                }
                for (tree, age_s) in [("source", 1), ("ours/dest", 9), ("theirs/dest", 9)] {
                    age_directories(&root.join(tree), age_s);
                }
            });
            pair.compare(&stage, &sandbox, direction, options, &ignore);
        }
    }
}

#[test]
fn a_backup_in_the_way_of_a_file_or_a_directory_loses_nothing() {
    let sandbox = Sandbox::new();
    let (source, dest) = (sandbox.path().join("from"), sandbox.path().join("to"));
    put(&source.join("file"), "new", 0o644, 0);
    put(&source.join("dir"), "a file now", 0o644, 0);
    put(&dest.join("file"), "old", 0o644, 10);
    put(&dest.join("file~/precious"), "precious", 0o644, 10);
    put(&dest.join("dir/precious"), "precious", 0o644, 10);
    let ended = sandbox.sync(["-a", "-b", "--delete", "from/", "to/"].map(|word| match word {
        "from/" => format!("{}/", source.display()),
        "to/" => format!("{}/", dest.display()),
        option => option.to_owned(),
    }));
    // rsync would remove the directory to make its backup.
    ended.expect_code(23).expect_stderr("file");
    assert_eq!(fs::read(dest.join("file")).expect("it is left"), b"old");
    assert_eq!(fs::read(dest.join("file~/precious")).expect("it is left"), b"precious");
    assert_eq!(fs::read(dest.join("dir/precious~")).expect("it is kept"), b"precious");
}

#[test]
fn a_directory_of_backups_inside_the_destination_is_not_deleted() {
    let sandbox = Sandbox::new();
    let (source, dest) = (format!("{}/", sandbox.source().display()), sandbox.destination());
    put(&sandbox.source().join("file"), "1", 0o644, 0);
    let line = |extra: &str| {
        sandbox.sync(["-ai", "--delete", "--backup-dir=kept", extra, &source, dest.to_str().expect("ASCII")])
    };
    put(&dest.join("extra"), "extraneous", 0o644, 0);
    line("-v").success();
    assert_eq!(fs::read(dest.join("kept/extra")).expect("it is kept"), b"extraneous");
    for again in ["-n", "-v"] {
        let ended = line(again);
        assert!(ended.success().itemized().is_empty(), "{ended}");
    }
}

#[test]
fn backups_go_to_another_file_system_with_all_that_is_theirs() {
    tests::require!("root");
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path().join("other")).expect("a new directory");
    let other = tests::mount::Tmpfs::mount(&sandbox.path().join("other"), 8 << 20);
    let (source, dest) = (sandbox.source(), sandbox.destination());
    put(&source.join("dir/file"), "new", 0o644, 0);
    put(&dest.join("dir/file"), &"old".repeat(100_000), 0o4750, 10);
    put(&dest.join("dir/gone"), "gone", 0o600, 20);
    point(&dest.join("dir/link"), "nowhere", 30);
    let before = snapshot(&dest);
    let backup = format!("--backup-dir={}", other.path().display());
    let (from, to) = (format!("{}/", source.display()), dest.display().to_string());
    sandbox.sync(["-a", "--delete", &backup, &from, &to]).success();
    let kept = snapshot(other.path());
    for name in ["dir/file", "dir/gone", "dir/link"] {
        assert_eq!(kept.get(name.as_bytes()), before.get(name.as_bytes()), "{name}");
    }
    assert_eq!(kept.len(), 5, "{kept:?}");
    assert_same(&snapshot(&source), &snapshot(&dest), &NOTHING);
}

/// A run with a trash inside the destination, undone.
fn trash_and_undo(sandbox: &Sandbox, line: &[&str]) -> (Snapshot, Output) {
    let (source, dest) = (format!("{}/", sandbox.source().display()), sandbox.destination());
    let before = snapshot(&dest);
    let trash = sandbox.path().join("trash");
    let option = format!("--trash={}", trash.display());
    let destination = dest.display().to_string();
    let arguments: Vec<&str> =
        ["-a", "--delete"].iter().chain(line).copied().chain([&*option, &*source, &*destination]).collect();
    sandbox.sync(arguments).success();
    assert_same(&snapshot(&sandbox.source()), &snapshot(&dest), &NOTHING);
    let runs = names_in(&trash);
    let Some(run) = runs.last() else { panic!("nothing was trashed") };
    let listed = sandbox.client([Path::new("trash"), Path::new("list"), &trash]);
    assert!(listed.success().stdout_text().contains(run.as_str()), "{listed}");
    let undone = sandbox.client(["trash", "undo", "--yes", trash.to_str().expect("ASCII"), run]);
    (before, undone)
}

#[test]
fn a_run_with_a_trash_is_undone_exactly() {
    let sandbox = Sandbox::new();
    for seed in seeds(4) {
        let _ = fs::remove_dir_all(sandbox.source());
        let _ = fs::remove_dir_all(sandbox.destination());
        fs::create_dir(sandbox.source()).expect("a new directory");
        fs::create_dir(sandbox.destination()).expect("a new directory");
        random_tree(seed, &sandbox.destination());
        random_tree(seed, &sandbox.source());
        for change in 0..3 {
            random_changes(seed * 10 + change, &sandbox.source());
        }
        let (before, undone) = trash_and_undo(&sandbox, &[]);
        let after = snapshot(&sandbox.destination());
        let (mut back, mut left) = (0, Vec::new());
        for (name, node) in &before {
            let is_directory = node.kind == tests::snapshot::Kind::Directory;
            match after.get(name) {
                // Metadata that a run only sets is no replacement, and has no undo.
                Some(now) if now.kind == node.kind && is_directory => {}
                Some(now) if now.kind == node.kind => back += 1,
                _ => left.push(name.escape_ascii().to_string()),
            }
        }
        // What has the name of a directory that the run filled can't come back by itself.
        let refused = undone.stderr_text().matches("stays in the trash").count();
        assert!(left.len() <= refused, "seed {seed}: {left:?}\n{undone}");
        assert!(back > 0, "seed {seed}");
    }
}

#[test]
fn what_was_trashed_comes_back_with_owner_mode_time_and_other_names() {
    let sandbox = Sandbox::new();
    let (source, dest) = (sandbox.source(), sandbox.destination());
    put(&source.join("file"), "new", 0o644, 0);
    put(&source.join("was-dir"), "a file now", 0o644, 0);
    fs::create_dir(source.join("was-file")).expect("a new directory");
    put(&dest.join("was-file"), "a file", 0o640, 15);
    put(&dest.join("file"), "old", 0o4711, 10);
    put(&dest.join("was-dir/deep/file"), "deep", 0o600, 20);
    put(&dest.join("gone/deep/file"), "gone", 0o604, 30);
    fs::create_dir_all(dest.join("gone/empty")).expect("a new directory");
    point(&dest.join("gone/link"), "nowhere", 40);
    fs::hard_link(dest.join("gone/deep/file"), dest.join("gone/name")).expect("a second name");
    for dir in ["gone/deep", "gone/empty", "gone", "was-dir/deep", "was-dir"] {
        fs::set_permissions(dest.join(dir), fs::Permissions::from_mode(0o1750)).expect("it is ours");
        set_mtime(&dest.join(dir), AT_S - 77, 5);
    }
    set_mtime(&source, AT_S, 0);
    set_mtime(&dest, AT_S, 0);
    let (before, undone) = trash_and_undo(&sandbox, &[]);
    undone.success();
    assert_same(&before, &snapshot(&dest), &NOTHING);
    let inode = |name: &str| fs::metadata(dest.join(name)).expect("it is there").ino();
    assert_eq!(inode("gone/name"), inode("gone/deep/file"), "still two names of one file");
    let run = sandbox.path().join("trash").join(&names_in(&sandbox.path().join("trash"))[0]);
    assert_eq!(names_in(&run), ["log", "new"], "nothing is left of what was trashed");
    assert_eq!(names_in(&run.join("new")), ["file", "was-dir", "was-file"], "what the run had put there is");
}

#[test]
fn what_changed_since_is_not_undone() {
    let sandbox = Sandbox::new();
    let (source, dest) = (sandbox.source(), sandbox.destination());
    for name in ["touched", "written", "clean"] {
        put(&source.join(name), "new", 0o644, 0);
        put(&dest.join(name), "old", 0o644, 10);
    }
    put(&dest.join("gone"), "old", 0o644, 10);
    put(&dest.join("made-again"), "old", 0o644, 10);
    let trash = sandbox.path().join("trash").display().to_string();
    let (from, to) = (format!("{}/", source.display()), dest.display().to_string());
    sandbox.sync(["-a", "--delete", "--trash", &trash, &from, &to]).success();
    let run = names_in(Path::new(&trash)).remove(0);
    write_at(&dest.join("written"), b"mine", AT_S);
    fs::set_permissions(dest.join("touched"), fs::Permissions::from_mode(0o600)).expect("it is ours");
    write_at(&dest.join("made-again"), b"mine", AT_S);
    let dry = sandbox.client(["trash", "undo", "-n", &trash, &run]);
    assert_eq!(dry.expect_code(23).stdout_text().lines().count(), 2, "{dry}");
    let undone = sandbox.client(["trash", "undo", "-y", &trash, &run]);
    undone.expect_code(23);
    for name in ["touched", "written", "made-again"] {
        assert!(undone.stderr_text().contains(name), "{undone}");
    }
    let read = |name: &str| fs::read(dest.join(name)).expect("it is there");
    assert_eq!((read("clean"), read("gone")), (b"old".to_vec(), b"old".to_vec()));
    assert_eq!(
        (read("written"), read("made-again"), read("touched")),
        (b"mine".to_vec(), b"mine".to_vec(), b"new".to_vec())
    );
    // What was refused is still there, for whoever makes room for it.
    fs::remove_file(dest.join("written")).expect("it is ours");
    sandbox.client(["trash", "undo", "-y", &trash, &run]).expect_code(23);
    assert_eq!(read("written"), b"old");
    sandbox.client(["trash", "undo", "-y", &trash, "2020-01-01T00-00-00Z"]).expect_code(1);
    sandbox.client(["trash", "undo", &trash, &run]).expect_code(46);
}

/// Megabytes that no other file has.
fn megabytes(seed: u64, count: usize) -> Vec<u8> {
    Rng::new(seed).bytes(count << 20)
}

#[test]
fn a_missing_file_is_made_from_one_like_it() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    let mut content = megabytes(1, 3);
    fs::write(sandbox.destination().join("backup-2026-01.tar"), &content).expect("a new file");
    fs::create_dir(sandbox.path().join("old")).expect("a new directory");
    fs::write(sandbox.path().join("old/picture-1.raw"), megabytes(2, 2)).expect("a new file");
    content.extend_from_slice(b"and some more");
    fs::write(sandbox.source().join("backup-2026-02.tar"), &content).expect("a new file");
    fs::write(sandbox.source().join("picture-2.raw"), megabytes(2, 2)).expect("a new file");
    let (from, to) =
        (format!("{}/", sandbox.source().display()), sandbox.destination().display().to_string());
    for (options, literal_bytes) in [
        (&["-a", "--json", "-n"][..], 0),
        (&["-a", "--json", "-yy", "--compare-dest=../old", "--exclude=backup*"], 100_000),
        (&["-a", "--json", "-y", "--exclude=picture*"], 200_000),
    ] {
        let ended = stage.sync(&sandbox, ALL[1], options, &from, &to);
        let sent = ended.success().summary_number("literal_bytes");
        assert!(sent <= literal_bytes, "{sent} bytes sent, {ended}");
    }
    assert_eq!(fs::read(sandbox.destination().join("backup-2026-02.tar")).expect("it is there"), content);
    assert_eq!(fs::read(sandbox.destination().join("picture-2.raw")).expect("it is there"), megabytes(2, 2));
    assert_eq!(fs::read(sandbox.destination().join("backup-2026-01.tar")).expect("left"), megabytes(1, 3));
}

#[test]
fn only_files_that_have_grown_are_appended_to() {
    tests::require!("rsync", "sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    for (number, option) in ["--append", "--append-verify"].into_iter().enumerate() {
        for direction in THREE {
            let root = sandbox.path().join(format!("{number}-{direction:?}").replace(['(', ')'], "-"));
            let pair = Pair::make(root, |root| {
                for (name, new, old, mode) in [
                    ("grown", "12345678", "1234", 0o644),
                    ("shrunk", "12", "1234", 0o600),
                    ("same", "1234", "5678", 0o600),
                    ("new", "1", "", 0o644),
                ] {
                    put(&root.join("source").join(name), new, 0o644, 0);
                    for side in ["ours", "theirs"].into_iter().filter(|_| !old.is_empty()) {
                        put(&root.join(side).join("dest").join(name), old, mode, 60);
                    }
                }
                for (tree, age_s) in [("source", 1), ("ours/dest", 9), ("theirs/dest", 9)] {
                    age_directories(&root.join(tree), age_s);
                }
            });
            pair.compare(&stage, &sandbox, direction, &["-ai", option], &NOTHING);
        }
    }
    // What it had is verified: rsync's --append would leave a mixture of both.
    put(&sandbox.source().join("other"), "abcdefgh", 0o644, 0);
    put(&sandbox.destination().join("other"), "xxxx", 0o644, 60);
    let from = format!("{}/", sandbox.source().display());
    sandbox.sync(["-a", "--append", &from, &sandbox.destination().display().to_string()]).success();
    assert_eq!(fs::read(sandbox.destination().join("other")).expect("it is there"), b"abcdefgh");
}

#[test]
fn files_written_on_another_file_system_arrive_and_leave_nothing_there() {
    tests::require!("root");
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path().join("other")).expect("a new directory");
    let other = tests::mount::Tmpfs::mount(&sandbox.path().join("other"), 32 << 20);
    random_tree(3, &sandbox.source());
    fs::write(sandbox.source().join("large"), megabytes(3, 2)).expect("a new file");
    let (from, to) =
        (format!("{}/", sandbox.source().display()), sandbox.destination().display().to_string());
    for change in 0..2 {
        let option = format!("-T{}", other.path().display());
        sandbox.sync(["-a", "--delete", "--no-whole-file", &option, &from, &to]).success();
        assert_same(&snapshot(&sandbox.source()), &snapshot(&sandbox.destination()), &NOTHING);
        assert!(names_in(other.path()).is_empty());
        random_changes(change, &sandbox.source());
    }
    sandbox.sync(["-a", "-T", "no-such-directory", &from, &to]).expect_code(3);
}

#[test]
fn a_part_that_is_left_is_used_and_goes() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    let content = megabytes(5, 3);
    fs::create_dir(sandbox.source().join("dir")).expect("a new directory");
    fs::write(sandbox.source().join("dir/large"), &content).expect("a new file");
    let together = sandbox.path().join("parts");
    fs::create_dir(&together).expect("a new directory");
    let absolute = format!("--partial-dir={}", together.display());
    for (option, part) in [
        ("--partial-dir=.rsync-partial", sandbox.destination().join("dir/.rsync-partial/large")),
        (&absolute, together.join("large")),
    ] {
        let _ = fs::remove_file(sandbox.destination().join("dir/large"));
        fs::create_dir_all(part.parent().expect("it has one")).expect("a new directory");
        fs::write(&part, &content[..2 << 20]).expect("a new file");
        let (from, to) =
            (format!("{}/", sandbox.source().display()), sandbox.destination().display().to_string());
        let ended = stage.sync(&sandbox, ALL[1], &["-a", "--delete", "--json", option], &from, &to);
        assert!(ended.success().summary_number("literal_bytes") < 5 << 18, "{ended}");
        assert!(!part.exists() && !sandbox.destination().join("dir/.rsync-partial").exists());
        assert_eq!(fs::read(sandbox.destination().join("dir/large")).expect("it is there"), content);
    }
}

#[test]
fn lines_that_make_no_sense_are_refused_as_rsync_refuses_them() {
    let sandbox = Sandbox::new();
    let (from, to) =
        (format!("{}/", sandbox.source().display()), sandbox.destination().display().to_string());
    for options in [
        &["--link-dest=a", "--copy-dest=b"][..],
        &["--inplace", "--partial-dir=x"],
        &["--inplace", "--delay-updates"],
        &["--append", "--delay-updates"],
        &["--append", "--whole-file"],
        &["-b", "--suffix=a/b"],
        &["-b", "--suffix="],
        &["--trash=x", "-b"],
        &["--link-dest="],
    ] {
        let line: Vec<&str> = options.iter().copied().chain(["-a", &from, &to]).collect();
        sandbox.sync(line).expect_code(1);
    }
}

#[test]
fn an_agent_held_to_a_directory_keeps_to_it_whatever_the_options_name() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    let root = sandbox.path().join("held");
    put(&sandbox.source().join("file"), "new", 0o644, 0);
    put(&root.join("dest/file"), "old", 0o644, 10);
    put(&sandbox.path().join("outside/file"), "new", 0o644, 0);
    let serve = tests::serve::Serve::start(&sandbox, &root, false);
    let from = format!("{}/", sandbox.source().display());
    for option in [
        "--link-dest=../../outside",
        "--copy-dest=/../outside",
        "--backup-dir=../../outside",
        "--trash=../../outside",
        "--temp-dir=../../outside",
        "--partial-dir=/../outside",
    ] {
        let ended = sandbox.sync(["-a", option, &from, &serve.url("/dest")]);
        ended.expect_code(3);
        assert_eq!(fs::read(root.join("dest/file")).expect("it is there"), b"old", "{option}");
        assert_eq!(names_in(&sandbox.path().join("outside")), ["file"], "{option}");
    }
    // Within it the same paths work.
    sandbox.sync(["-a", "--backup-dir=../kept", &from, &serve.url("/dest")]).success();
    assert_eq!(fs::read(root.join("kept/file")).expect("it is there"), b"old");
}

#[test]
fn options_together_make_of_random_trees_what_rsync_makes_of_them() {
    tests::require!("rsync", "sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    for seed in seeds(6) {
        let mut rng = Rng::new(seed);
        let kind = *rng.pick(&["--link-dest", "--copy-dest", "--compare-dest"]);
        let mut options = vec!["-ai".to_owned()];
        let mut some = |percent, words: &[String]| {
            if rng.chance(percent) {
                options.extend_from_slice(words);
            }
        };
        some(70, &[format!("{kind}=../one")]);
        some(50, &[format!("{kind}=../two")]);
        some(40, &["--backup-dir=../kept".to_owned(), "--suffix=.old".to_owned()]);
        some(50, &["--delete".to_owned()]);
        some(30, &["--no-whole-file".to_owned(), "-y".to_owned()]);
        some(30, &["--delay-updates".to_owned()]);
        some(20, &["-c".to_owned()]);
        let pair = Pair::make(sandbox.path().join(format!("seed-{seed}")), |root| {
            random_tree(seed, &root.join("source"));
            for side in ["ours", "theirs"] {
                for (number, name) in (0..).zip(["one", "two"]) {
                    let base = root.join(side).join(name);
                    fs::create_dir(&base).expect("a new directory");
                    random_tree(seed, &base);
                    random_changes(seed * 100 + number, &base);
                }
            }
        });
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let ignore =
            Ignore { directory_mtime: options.iter().any(|option| option.contains("backup")), ..NOTHING };
        for run in 0..2 {
            eprintln!("seed {seed}, run {run}");
            pair.compare(&stage, &sandbox, ALL[0], &options, &ignore);
            random_changes(seed * 1000 + run, &pair.root.join("source"));
        }
        fs::remove_dir_all(&pair.root).expect("it is ours");
    }
}

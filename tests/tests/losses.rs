//! What could lose data without a word where options meet: a situation, and what must be there afterwards.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use tests::process::{self, Output};
use tests::sandbox::Sandbox;
use tests::tree::{set_mtime, write_at};

const LONG_AGO_S: i64 = 1_500_000_000;

/// A sandbox with `src/` and `dst/`, where lines are run.
struct Here {
    sandbox: Sandbox,
    root: PathBuf,
}

impl Here {
    fn make(files: &[(&str, &str)]) -> Here {
        let sandbox = Sandbox::new();
        let root = sandbox.path().join("here");
        for directory in ["src", "dst"] {
            fs::create_dir_all(root.join(directory)).expect("a new directory");
        }
        let here = Here { sandbox, root };
        files.iter().for_each(|(path, content)| here.write(path, content));
        here
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().expect("it has one")).expect("a new directory");
        write_at(&path, content.as_bytes(), LONG_AGO_S + content.len() as i64);
    }

    fn sync(&self, line: &str) -> Output {
        let mut command = self.sandbox.sync_command(line.split(' '));
        command.current_dir(&self.root);
        process::run(command)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn has(&self, path: &str) -> bool {
        self.root.join(path).symlink_metadata().is_ok()
    }
}

#[test]
fn a_source_that_is_the_destination_by_its_name_is_not_removed() {
    let here = Here::make(&[("src/f", "the only copy")]);
    symlink("src", here.root.join("link")).expect("a new link");
    for line in ["src/f src/f", "src/f src/./f", "link/f src/f", "src/f link/f", "src/f src/"] {
        here.sync(&format!("-a --remove-source-files {line}")).expect_code(3);
        assert_eq!(here.read("src/f"), "the only copy", "{line}");
    }
}

#[test]
fn a_directory_for_backups_that_is_the_destination_is_refused_or_like_none() {
    let here = Here::make(&[("src/f", "new"), ("dst/f", "old one"), ("dst/extra", "extra")]);
    symlink("dst", here.root.join("link")).expect("a new link");
    for directory in [".", "./", "../dst", "../link"] {
        let refused = here.sync(&format!("-ab --delete --backup-dir={directory} src/ dst/"));
        refused.expect_code(1).expect_stderr("--suffix");
        assert_eq!(here.read("dst/f"), "old one", "{directory}");
    }
    here.sync("-ab --delete --backup-dir=. --suffix=~ src/ dst/").success();
    assert_eq!(
        (here.read("dst/f"), here.read("dst/f~"), here.read("dst/extra~")),
        ("new".to_owned(), "old one".to_owned(), "extra".to_owned())
    );
    // With --delete-excluded nothing protects them any more, as with rsync.
    here.sync("-ab --delete src/ dst/").success();
    assert!(here.has("dst/f~"));
    here.sync("-ab --delete-excluded src/ dst/").success();
    assert!(!here.has("dst/f~"));
}

fn plan(here: &Here, options: &str) -> PathBuf {
    let told = here.sync(&format!("{options} --dry-run --json src/ dst/"));
    let file = here.root.join("plan");
    fs::write(&file, &told.success().stdout).expect("a new file");
    file
}

#[test]
fn a_plan_holds_only_for_what_the_destination_had_when_it_was_made() {
    for (path, options) in [("dst/extra", "-a --delete"), ("dst/f", "-a"), ("dst/old/file", "-a --delete")] {
        let here = Here::make(&[
            ("src/f", "new"),
            ("dst/f", "older"),
            ("dst/extra", "extra"),
            ("dst/old/file", "file of a directory"),
        ]);
        plan(&here, options);
        here.write(path, "written meanwhile");
        here.sync(&format!("{options} --apply-plan=plan src/ dst/")).expect_code(46);
        assert_eq!(here.read(path), "written meanwhile");
        // Nothing else was touched either.
        assert!(here.has("dst/extra") && here.has("dst/old/file"));
        assert_ne!(here.read("dst/f"), "new");
    }
}

#[test]
fn a_plan_with_backups_is_carried_out_as_it_was_told() {
    for options in ["-ab --delete", "-ab --delete --backup-dir=../kept"] {
        let here = Here::make(&[("src/f", "new"), ("dst/f", "older"), ("dst/old/file", "file")]);
        plan(&here, options);
        here.sync(&format!("{options} --apply-plan=plan src/ dst/")).success();
        assert_eq!(here.read("dst/f"), "new");
        assert!(here.has("dst/old/file~") != here.has("kept/old/file"), "{options}");
    }
}

#[test]
fn what_a_rule_protects_stays_although_its_argument_is_missing() {
    let here = Here::make(&[("dst/kept", "kept"), ("dst/gone", "gone"), ("src/f", "f")]);
    let mut command = here.sandbox.sync_command(["-a", "--delete-missing-args", "-f", "P kept"]);
    command.args(["src/kept", "src/gone", "src/f", "dst/"]).current_dir(&here.root);
    process::run(command).success();
    assert_eq!(here.read("dst/kept"), "kept");
    assert!(!here.has("dst/gone") && here.has("dst/f"));
}

#[test]
fn names_that_share_a_file_with_one_of_the_destination_keep_its_metadata() {
    tests::require!("sshd");
    let here = Here::make(&[]);
    let content = "0123456789abcdef".repeat(8192);
    here.write("src/f", &content);
    here.write("dst/f", &content);
    fs::create_dir(here.root.join("snapshot")).expect("a new directory");
    fs::hard_link(here.root.join("dst/f"), here.root.join("snapshot/f")).expect("another name");
    let kept = fs::metadata(here.root.join("snapshot/f")).expect("it is there");
    set_mtime(&here.root.join("src/f"), LONG_AGO_S + 1_000_000, 0);
    fs::set_permissions(here.root.join("src/f"), fs::Permissions::from_mode(0o600)).expect("ours");
    here.sync("-a --no-whole-file src/ dst/").success();
    let now = fs::metadata(here.root.join("snapshot/f")).expect("it is there");
    assert_eq!((now.mtime(), now.mode()), (kept.mtime(), kept.mode()), "a snapshot stays as it was");
    let copy = fs::metadata(here.root.join("dst/f")).expect("it is there");
    assert_eq!((copy.mtime(), copy.mode() & 0o777), (LONG_AGO_S + 1_000_000, 0o600));
}

#[test]
fn an_undo_brings_all_names_of_a_file_back() {
    let here = Here::make(&[("src/a", "new content"), ("dst/a", "old")]);
    for (side, other) in [("src/a", "src/b"), ("dst/a", "dst/b"), ("src/a", "src/c"), ("dst/a", "dst/c")] {
        fs::hard_link(here.root.join(side), here.root.join(other)).expect("another name");
    }
    here.sync("-aH --trash=trash src/ dst/").success();
    assert_eq!(here.read("dst/c"), "new content");
    let trash = here.root.join("dst/trash");
    let trash = if trash.exists() { trash } else { here.root.join("trash") };
    let run =
        fs::read_dir(&trash).expect("the trash").next().expect("one run").expect("an entry").file_name();
    let mut undo = here.sandbox.client_command(["trash", "undo", "-y"]);
    undo.arg(&trash).arg(run);
    process::run(undo).success();
    for name in ["dst/a", "dst/b", "dst/c"] {
        assert_eq!(here.read(name), "old", "{name}");
    }
}

/// Runs as an ordinary user, who owns what is in the sandbox.
fn as_nobody(here: &Here, line: &str) -> Output {
    let mut own = here.sandbox.command("chown");
    own.args(["-R", "65534:65534"]).arg(here.sandbox.path());
    process::run(own).success();
    let client = here.sandbox.sync_command(line.split(' '));
    let mut command = here.sandbox.command("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(client.get_program());
    command.args(client.get_args()).current_dir(&here.root);
    process::run(command)
}

fn close(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o000)).expect("ours");
}

#[test]
fn what_can_not_be_looked_into_is_not_deleted_and_not_counted_as_one() {
    tests::require!("root");
    for options in ["-a --delete --max-delete=3", "-a --delete"] {
        let here = Here::make(&[("src/f", "f"), ("dst/closed/one", "1"), ("dst/closed/two", "2")]);
        close(&here.root.join("dst/closed"));
        let code = if options.contains("max") { 25 } else { 23 };
        as_nobody(&here, &format!("{options} src/ dst/")).expect_code(code);
        assert!(here.has("dst/closed/one") && here.has("dst/closed/two"), "{options}");
    }
}

#[test]
fn a_file_that_its_owner_may_not_write_to_is_brought_up_to_date_all_the_same() {
    tests::require!("root");
    for options in ["-a --inplace", "-a --append-verify", "-a --append"] {
        let here = Here::make(&[("src/f", "the same and more"), ("dst/f", "the same")]);
        for side in ["src/f", "dst/f"] {
            fs::set_permissions(here.root.join(side), fs::Permissions::from_mode(0o444)).expect("ours");
        }
        as_nobody(&here, &format!("{options} --no-whole-file src/ dst/")).success();
        assert_eq!(here.read("dst/f"), "the same and more", "{options}");
    }
}

#[test]
fn a_file_that_the_line_names_and_that_is_not_there_is_a_file_error() {
    let here = Here::make(&[("src/f", "f"), ("dst/extra", "extra")]);
    for option in ["exclude-from", "include-from", "files-from"] {
        here.sync(&format!("-a --delete --{option}=no-such-file src/ dst/")).expect_code(11);
        assert!(here.has("dst/extra") && !here.has("dst/f"), "{option}");
    }
}

//! What could lose data without a word where options meet: a situation, and what must be there afterwards.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::extras::acl_for;
use tests::mount::Tmpfs;
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
}

#[test]
fn a_backup_of_this_run_is_not_deleted_by_it() {
    for options in ["-ab --delete", "-ab --delete-excluded", "-ab --delete -f R_*~", "-ab --delete-before"] {
        let here = Here::make(&[
            ("src/f", "new"),
            ("dst/f", "old one"),
            ("dst/f~", "oldest"),
            ("dst/g", "gone"),
            ("dst/g~", "g"),
        ]);
        here.sync(&format!("{options} src/ dst/")).success();
        assert_eq!(
            (here.read("dst/f"), here.read("dst/f~")),
            ("new".to_owned(), "old one".to_owned()),
            "{options}"
        );
        assert_eq!(here.read("dst/g~"), "gone", "{options}");
    }
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

fn acl_of(path: &Path) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    let length = rustix::fs::getxattr(path, "system.posix_acl_access", &mut value[..]).ok()?;
    Some(value[..length].to_vec())
}

#[test]
fn who_may_read_a_file_is_decided_by_its_own_directory_and_not_by_the_topmost() {
    tests::require!("root", "rsync");
    for options in ["-a", "-r", "-aA", "-a --inplace", "-a --delay-updates"] {
        let files = [
            ("src/private/f", "new"),
            ("src/open/f", "new"),
            ("src/group/f", "new"),
            ("src/group/new/f", "new"),
            ("src/open/new/f", "new"),
            ("src/top", "new"),
        ];
        let here = Here::make(&files);
        let set = |root: &str| {
            for (directory, mode) in [("private", 0o700), ("open", 0o755), ("group", 0o2775)] {
                let directory = here.root.join(root).join(directory);
                fs::create_dir_all(&directory).expect("a new directory");
                std::os::unix::fs::chown(&directory, None, Some(1234)).expect("as root");
                fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).expect("ours");
            }
            here.write(&format!("{root}/private/f"), "old one");
            let default = |path: &str, acl: &[u8]| {
                let path = here.root.join(root).join(path);
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::setxattr(path, "system.posix_acl_default", acl, flags)
                    .expect("a file system with ACLs");
            };
            default("", &acl_for(4321));
            default("open", &acl_for(5432));
        };
        set("dst");
        set("theirs");
        here.sync(&format!("{options} src/ dst/")).success();
        let mut rsync = here.sandbox.command("rsync");
        rsync.args(options.split(' ')).args(["src/", "theirs/"]).current_dir(&here.root);
        process::run(rsync).success();
        for file in
            ["private/f", "open/f", "group/f", "group/new", "group/new/f", "open/new", "open/new/f", "top"]
        {
            let (ours, theirs) = (here.root.join("dst").join(file), here.root.join("theirs").join(file));
            assert_eq!(acl_of(&ours), acl_of(&theirs), "{options}: ACL of {file}");
            let [ours, theirs] = [ours, theirs].map(|path| fs::metadata(path).expect("it was copied"));
            assert_eq!((ours.gid(), ours.mode()), (theirs.gid(), theirs.mode()), "{options}: {file}");
        }
        assert!(!here.has("dst/.sync-agent-staging"), "{options}");
    }
}

#[test]
fn a_directory_in_the_way_of_what_a_base_has_is_not_taken_away() {
    for options in ["-a", "-ab", "-ab --backup-dir=../kept", "-a --trash=../trash"] {
        let here = Here::make(&[("src/x", "file"), ("base/x", "file"), ("dst/x/only", "only")]);
        here.sync(&format!("{options} --compare-dest=../base src/ dst/")).expect_code(23);
        assert_eq!(here.read("dst/x/only"), "only", "{options}");
    }
}

#[test]
fn a_backup_on_another_file_system_is_all_of_what_it_is_a_copy_of() {
    tests::require!("root");
    let here = Here::make(&[("src/f", "new"), ("dst/f", "old one")]);
    let elsewhere = Sandbox::on_disk();
    let old = here.root.join("dst/f");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&old, "user.note", b"of the old", flags).expect("a file system with attributes");
    rustix::fs::setxattr(&old, "system.posix_acl_access", &acl_for(4321), flags).expect("and with ACLs");
    let kept = elsewhere.path().join("kept");
    let (mode, acl) = (fs::metadata(&old).expect("it is there").mode(), acl_of(&old));
    assert_ne!(
        fs::metadata(elsewhere.path()).expect("it is there").dev(),
        fs::metadata(&old).expect("it").dev()
    );
    here.sync(&format!("-ab --backup-dir={} src/ dst/", kept.display())).success();
    let copy = kept.join("f");
    let mut note = [0; 16];
    let length = rustix::fs::getxattr(&copy, "user.note", &mut note[..]).expect("it has one");
    assert_eq!(&note[..length], b"of the old");
    assert_eq!((fs::metadata(&copy).expect("it is there").mode(), acl_of(&copy)), (mode, acl));
}

#[test]
fn a_directory_that_loses_its_bit_in_this_run_gives_its_group_to_nothing() {
    tests::require!("root", "rsync");
    let here = Here::make(&[("src/sub/f", "of a patient")]);
    fs::set_permissions(here.root.join("src/sub"), fs::Permissions::from_mode(0o755)).expect("ours");
    for (root, program) in [("dst", "ours"), ("theirs", "rsync")] {
        let sub = here.root.join(root).join("sub");
        fs::create_dir_all(&sub).expect("a new directory");
        std::os::unix::fs::chown(&sub, None, Some(1234)).expect("as root");
        fs::set_permissions(&sub, fs::Permissions::from_mode(0o2775)).expect("ours");
        if program == "ours" {
            here.sync("-a --no-g src/ dst/").success();
        } else {
            let mut rsync = here.sandbox.command("rsync");
            rsync.args(["-a", "--no-g", "src/", "theirs/"]).current_dir(&here.root);
            process::run(rsync).success();
        }
    }
    let gid = |path: &str| fs::metadata(here.root.join(path)).expect("it was copied").gid();
    assert_eq!((gid("dst/sub/f"), gid("theirs/sub/f")), (0, 0));
}

#[test]
fn a_device_that_was_read_as_a_file_is_not_removed() {
    tests::require!("root");
    let here = Here::make(&[]);
    let device = rustix::fs::makedev(1, 3);
    let node = here.root.join("src/null");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &node, rustix::fs::FileType::CharacterDevice, mode, device)
        .expect("as root");
    here.sync("-a --copy-devices --remove-source-files src/ dst/").expect_code(23);
    assert!(here.has("src/null") && here.has("dst/null"));
}

#[test]
fn a_log_file_is_made_as_the_umask_says() {
    let here = Here::make(&[("src/f", "f")]);
    let client = here.sandbox.sync_command(["-a", "--log-file=log", "src/", "dst/"]);
    let mut command = here.sandbox.command("sh");
    command.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(client.get_program()).args(client.get_args());
    command.current_dir(&here.root);
    process::run(command).success();
    assert_eq!(fs::metadata(here.root.join("log")).expect("a log").mode() & 0o777, 0o600);
}

#[test]
fn what_an_option_spares_is_not_what_other_names_become() {
    for options in ["-u", "--ignore-existing", "--append", "--append-verify", "-u --inplace", "-u -n"] {
        let is_dry = options.ends_with("-n");
        let here = Here::make(&[("src/a", "new"), ("dst/a", "another one, and longer")]);
        for name in ["b", "c"] {
            fs::hard_link(here.root.join("src/a"), here.root.join("src").join(name)).expect("a new link");
        }
        set_mtime(&here.root.join("dst/a"), LONG_AGO_S + 100_000, 0);
        here.sync(&format!("-aH {options} src/ dst/")).success();
        assert_eq!(here.read("dst/a"), "another one, and longer", "{options}");
        if is_dry {
            continue;
        }
        assert_eq!(
            (here.read("dst/b"), here.read("dst/c")),
            ("new".to_owned(), "new".to_owned()),
            "{options}"
        );
        let inode = |path: &str| fs::metadata(here.root.join(path)).expect("it is there").ino();
        assert_eq!(inode("dst/b"), inode("dst/c"), "{options}: still names of one file");
        // An exact copy stays one.
        here.sync(&format!("-aH {options} src/ dst/")).success();
        assert_eq!(here.read("dst/b"), "new", "{options}");
    }
}

#[test]
fn a_source_s_name_goes_only_when_its_own_content_is_there() {
    let here = Here::make(&[("src/a", "new"), ("dst/a", "another one, and longer")]);
    fs::hard_link(here.root.join("src/a"), here.root.join("src/b")).expect("a new link");
    here.sync("-aH --ignore-existing --remove-source-files src/ dst/").success();
    assert!(here.has("src/a") && !here.has("src/b"));
    assert_eq!(here.read("dst/b"), "new");
    // What is there already goes as well, also the first of several names.
    fs::copy(here.root.join("src/a"), here.root.join("dst/a")).expect("room for a copy");
    set_mtime(&here.root.join("dst/a"), LONG_AGO_S + 3, 0);
    fs::hard_link(here.root.join("src/a"), here.root.join("src/b")).expect("a new link");
    here.sync("-aH --remove-source-files src/ dst/").success();
    assert!(!here.has("src/a") && !here.has("src/b"));
}

#[test]
fn a_source_that_is_the_destination_through_a_mount_is_not_removed() {
    let here = Here::make(&[("src/d/f", "the only copy"), ("src/g", "g")]);
    fs::hard_link(here.root.join("src/d/f"), here.root.join("src/d/h")).expect("a new link");
    fs::create_dir(here.root.join("dst/d")).expect("a new directory");
    {
        let _mounted = Tmpfs::bind(&here.root.join("src/d"), &here.root.join("dst/d"));
        let output = here.sync("-aH --remove-source-files src/ dst/");
        output.expect_code(23).expect_stderr("d/f (source): it is the destination's file itself");
    }
    assert_eq!(here.read("src/d/f"), "the only copy");
    assert!(here.has("src/d/h") && !here.has("src/g"));
    // The same through names.
    fs::remove_dir_all(here.root.join("dst")).expect("it is ours");
    fs::create_dir_all(here.root.join("dst/d")).expect("a new directory");
    fs::hard_link(here.root.join("src/d/f"), here.root.join("dst/d/f")).expect("a new link");
    here.sync("-a --remove-source-files src/ dst/").expect_code(23);
    assert!(here.has("src/d/f") && !here.has("src/d/h"));
}

#[test]
fn what_is_mounted_in_the_destination_is_not_deleted_by_who_stays_on_one_file_system() {
    let here = Here::make(&[("src/f", "f"), ("dst/old/below/x", "x")]);
    for directory in ["dst/m", "dst/old/m"] {
        fs::create_dir_all(here.root.join(directory)).expect("a new directory");
    }
    let mounts = ["dst/m", "dst/old/m"].map(|path| Tmpfs::mount(&here.root.join(path), 1 << 20));
    mounts.iter().for_each(|mount| fs::write(mount.path().join("data"), "data").expect("room for it"));
    for options in ["--delete", "--delete-excluded", "--delete --force"] {
        here.sync(&format!("-ax {options} src/ dst/"));
        assert!(here.has("dst/m/data") && here.has("dst/old/m/data"), "{options}");
    }
    assert!(!here.has("dst/old/below"));
}

#[test]
fn a_directory_of_one_argument_is_copied_although_another_has_a_file_of_its_name() {
    let here = Here::make(&[("src/one/x", "a file"), ("src/two/x/y", "y")]);
    for line in ["src/one/ src/two/", "src/two/ src/one/"] {
        here.sync(&format!("-a --delete {line} dst/")).success();
        assert_eq!(here.read("dst/x/y"), "y", "{line}");
    }
}

#[test]
fn what_is_started_has_the_operator_s_umask() {
    let here = Here::make(&[("src/f", "f"), ("src/d/g", "g")]);
    let program = here.root.join("as-there");
    fs::write(&program, "#!/bin/sh\nshift\nexec /bin/sh -c \"$*\"\n").expect("a new file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let line = format!(
        "umask 027; exec {} sync -rt -e {} --agent-path {} --state-dir {} src/ there:{}/dst/",
        tests::sandbox::program("sync-client").display(),
        program.display(),
        tests::sandbox::program("sync-agent").display(),
        here.sandbox.state().display(),
        here.root.display(),
    );
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(line).current_dir(&here.root);
    process::run(command).success();
    let mode =
        |path: &str| fs::metadata(here.root.join(path)).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode("dst/f"), mode("dst/d")), (0o640, 0o750));
}

#[test]
fn a_mount_is_not_emptied_for_what_can_not_take_its_place() {
    for options in ["-ax --delete", "-ax --force", "-a --delete", "-ax --delete --delay-updates"] {
        let here = Here::make(&[("src/m", "a file"), ("src/b", "a file")]);
        ["dst/m", "dst/b", "bound"].iter().for_each(|path| {
            fs::create_dir_all(here.root.join(path)).expect("a new directory");
        });
        let mounts = [
            Tmpfs::mount(&here.root.join("dst/m"), 1 << 20),
            Tmpfs::bind(&here.root.join("bound"), &here.root.join("dst/b")),
        ];
        mounts.iter().for_each(|mount| fs::write(mount.path().join("data"), "data").expect("room for it"));
        here.sync(&format!("{options} src/ dst/")).expect_code(23);
        assert!(here.has("dst/m/data") && here.has("bound/data"), "{options}");
    }
    // One of the same file system is beyond it all the same.
    let here = Here::make(&[("src/f", "f"), ("dst/b/x", "under it"), ("bound/data", "data")]);
    let _mounted = Tmpfs::bind(&here.root.join("bound"), &here.root.join("dst/b"));
    here.sync("-ax --delete src/ dst/");
    assert!(here.has("bound/data"));
}

#[test]
fn a_file_where_a_directory_on_the_way_would_be_stays() {
    let here = Here::make(&[("src/d/x", "new"), ("dst/d", "precious")]);
    for options in ["-aRn", "-aR"] {
        here.sync(&format!("{options} --no-implied-dirs src/./d/x dst/")).expect_code(23);
        assert_eq!(here.read("dst/d"), "precious", "{options}");
    }
}

#[test]
fn names_of_a_file_that_may_be_spared_after_a_comparison_come_all_the_same() {
    let here = Here::make(&[("src/a", "AAAA"), ("dst/a", "BBBB")]);
    fs::hard_link(here.root.join("src/a"), here.root.join("src/b")).expect("a new link");
    here.sync("-aH --append -c src/ dst/").success();
    assert_eq!((here.read("dst/a"), here.read("dst/b")), ("BBBB".to_owned(), "AAAA".to_owned()));
}

#[test]
fn a_plan_is_not_carried_out_where_a_run_decides_which_name_leads() {
    let here = Here::make(&[("src/a", "AAAA")]);
    for option in ["-u", "--existing", "--ignore-existing", "--append"] {
        plan(&here, &format!("-aH {option}"));
        let output = here.sync(&format!("-aH {option} --apply-plan=plan src/ dst/"));
        output.expect_code(1).expect_stderr("leave out -H");
    }
}

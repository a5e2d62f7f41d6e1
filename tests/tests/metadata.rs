//! Metadata beyond what `-a` keeps, beside the installed rsync: the same trees, the same lines, the same exit status, in every
//! direction.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use tests::directions::{ALL, Direction, Stage};
use tests::extras::{access_times, attributes, link_groups, set_attribute};
use tests::process::Output;
use tests::sandbox::Sandbox;
use tests::snapshot::{NOTHING, assert_same, snapshot};
use tests::tree::{set_mtime, write_at};

const LONG_AGO_S: i64 = 1_500_000_000;

/// One tree with two copies: ours, and rsync's.
struct Case<'a> {
    sandbox: &'a Sandbox,
    stage: &'a Stage,
    direction: Direction,
    directory: PathBuf,
}

impl<'a> Case<'a> {
    fn make(sandbox: &'a Sandbox, stage: &'a Stage, direction: Direction, name: &str) -> Case<'a> {
        let directory = sandbox.path().join(format!("{name}-{direction:?}").replace(['(', ')'], "-"));
        let case = Case { sandbox, stage, direction, directory };
        for path in [case.source(), case.ours(), case.theirs()] {
            fs::create_dir_all(&path).expect("a new directory");
            set_mtime(&path, LONG_AGO_S, 0);
        }
        case
    }

    fn source(&self) -> PathBuf {
        self.directory.join("source")
    }

    fn ours(&self) -> PathBuf {
        self.directory.join("ours")
    }

    fn theirs(&self) -> PathBuf {
        self.directory.join("theirs")
    }

    /// Does the same to both copies.
    fn at_both(&self, change: impl Fn(&Path)) {
        [self.ours(), self.theirs()].iter().for_each(|copy| change(copy));
    }

    fn run(&self, options: &[&str]) -> (Output, Output) {
        let source = format!("{}/", self.source().display());
        let text = |path: PathBuf| path.display().to_string();
        let theirs = self.stage.rsync(self.sandbox, self.direction, options, &source, &text(self.theirs()));
        let ours = self.stage.sync(self.sandbox, self.direction, options, &source, &text(self.ours()));
        (theirs, ours)
    }

    /// Runs both with these options and compares all that can be seen.
    fn compare(&self, options: &[&str]) {
        let (theirs, ours) = self.run(options);
        assert_eq!(ours.code(), theirs.code(), "exit status\n{theirs}\n{ours}");
        assert_eq!(theirs.itemized(), ours.itemized(), "itemized lines\n{theirs}\n{ours}");
        self.compare_trees();
    }

    fn compare_trees(&self) {
        assert_same(&snapshot(&self.theirs()), &snapshot(&self.ours()), &NOTHING);
        assert_eq!(attributes(&self.theirs()), attributes(&self.ours()));
    }
}

/// A file, directory, link, FIFO and locked file, all of the same age.
fn some_of_each(root: &Path) {
    write_at(&root.join("file"), b"some content", LONG_AGO_S);
    write_at(&root.join("locked"), b"read only", LONG_AGO_S);
    fs::set_permissions(root.join("locked"), fs::Permissions::from_mode(0o444)).expect("it is ours");
    fs::create_dir(root.join("directory")).expect("a new directory");
    write_at(&root.join("directory/inner"), &[7; 40_000], LONG_AGO_S);
    symlink("file", root.join("link")).expect("a new link");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), rustix::fs::FileType::Fifo, mode, 0)
        .expect("a new FIFO");
    for name in ["directory", "link", "fifo", ""] {
        set_mtime(&root.join(name), LONG_AGO_S, 0);
    }
}

fn in_every_direction(name: &str, test: impl Fn(&Case<'_>)) {
    let sandbox = Sandbox::on_disk();
    let stage = Stage::start(&sandbox);
    for direction in ALL {
        test(&Case::make(&sandbox, &stage, direction, name));
    }
}

#[test]
fn extended_attributes_come_change_and_go_as_with_rsync() {
    tests::require!("rsync", "sshd", "root");
    in_every_direction("xattrs", |case| {
        let source = case.source();
        some_of_each(&source);
        set_attribute(&source.join("file"), "user.a", b"1");
        set_attribute(&source.join("file"), "user.empty", b"");
        set_attribute(&source.join("file"), "trusted.t", &[0, 255, 10]);
        set_attribute(&source.join("locked"), "user.a", b"1");
        set_attribute(&source.join("directory"), "user.large", &[5; 3000]);
        set_attribute(&source.join("directory/inner"), "user.a", b"1");
        set_attribute(&source.join("link"), "trusted.l", b"of the link");
        set_attribute(&source.join("fifo"), "trusted.f", b"of the fifo");
        set_attribute(&source, "user.root", b"of the root");
        case.compare(&["-aXi"]);
        assert_eq!(attributes(&source), attributes(&case.ours()));
        case.compare(&["-aXi"]);

        set_attribute(&source.join("file"), "user.a", b"2");
        set_attribute(&source.join("locked"), "user.b", b"2");
        set_attribute(&source.join("link"), "trusted.l", b"changed");
        set_attribute(&source.join("fifo"), "trusted.f", b"changed");
        set_attribute(&source, "user.root", b"changed");
        rustix::fs::removexattr(source.join("directory"), "user.large").expect("it was there");
        write_at(&source.join("directory/inner"), &[8; 50_000], LONG_AGO_S + 9);
        case.at_both(|copy| set_attribute(&copy.join("directory/inner"), "user.extraneous", b"3"));
        // What is not asked for is not looked at.
        case.compare(&["-ain"]);
        case.compare(&["-aXin"]);
        case.compare(&["-aXi"]);
        assert_eq!(attributes(&source), attributes(&case.ours()));
        case.compare(&["-aXi"]);
    });
}

/// An ACL as Linux keeps it: tag, permissions and user or group of each entry.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let entry = |&(tag, permissions, id): &(u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [vec![2, 0, 0, 0], entries.iter().flat_map(entry).collect()].concat()
}

const NOBODY: u32 = u32::MAX;

#[test]
fn acls_come_change_and_go_as_with_rsync() {
    tests::require!("rsync", "sshd", "root");
    let of_user = |user, permissions| {
        acl(&[(1, 6, NOBODY), (2, permissions, user), (4, 4, NOBODY), (16, 7, NOBODY), (32, 0, NOBODY)])
    };
    in_every_direction("acls", |case| {
        let source = case.source();
        some_of_each(&source);
        // User 1 has a name, 54321 has none.
        set_attribute(&source.join("file"), "system.posix_acl_access", &of_user(1, 7));
        set_attribute(&source.join("directory"), "system.posix_acl_default", &of_user(54_321, 5));
        set_attribute(&source.join("directory/inner"), "system.posix_acl_access", &of_user(54_321, 4));
        case.compare(&["-aAi"]);
        assert_eq!(attributes(&source), attributes(&case.ours()));
        case.compare(&["-aAi"]);
        set_attribute(&source.join("file"), "system.posix_acl_access", &of_user(2, 6));
        rustix::fs::removexattr(source.join("directory/inner"), "system.posix_acl_access")
            .expect("it was there");
        rustix::fs::removexattr(source.join("directory"), "system.posix_acl_default").expect("it was there");
        case.compare(&["-aAin"]);
        case.compare(&["-aAi"]);
        assert_eq!(attributes(&source), attributes(&case.ours()));
        case.compare(&["-rltAXi"]);
    });
}

#[test]
fn access_times_are_those_of_the_source() {
    tests::require!("rsync", "sshd", "root");
    in_every_direction("atimes", |case| {
        let source = case.source();
        some_of_each(&source);
        let touch = |name: &str, seconds: i64| {
            let time = |seconds| rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times =
                rustix::fs::Timestamps { last_access: time(seconds), last_modification: time(LONG_AGO_S) };
            rustix::fs::utimensat(
                rustix::fs::CWD,
                source.join(name),
                &times,
                rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
            )
            .expect("times can be set");
        };
        // Later than the content, so that reading does not change it where atime is relative.
        let now_s = 4_000_000_000;
        ["file", "locked", "fifo", "directory", "directory/inner"].iter().for_each(|name| touch(name, now_s));
        case.compare(&["-aUi"]);
        assert_eq!(access_times(&source), access_times(&case.ours()));
        touch("file", now_s + 1);
        touch("directory", now_s + 1);
        case.compare(&["-aUi"]);
        assert_eq!(access_times(&source), access_times(&case.ours()));
        case.compare(&["-aUi"]);
    });
}

#[test]
fn times_and_modes_are_left_out_by_kind() {
    tests::require!("rsync", "sshd", "root");
    in_every_direction("omitted", |case| {
        let source = case.source();
        some_of_each(&source);
        write_at(&source.join("program"), b"#!", LONG_AGO_S);
        fs::set_permissions(source.join("program"), fs::Permissions::from_mode(0o755)).expect("it is ours");
        let aged = |copy: &Path| {
            ["directory", "link", ""].iter().for_each(|name| set_mtime(&copy.join(name), LONG_AGO_S, 0));
        };
        for options in
            [&["-aOi"][..], &["-aJi"], &["-aOJi"], &["-rltEi"], &["-rltpEi"], &["-rltEi", "--no-E"]]
        {
            eprintln!("{options:?}");
            case.run(&["-a"]);
            set_mtime(&source.join("directory"), LONG_AGO_S + 60, 0);
            set_mtime(&source.join("link"), LONG_AGO_S + 60, 0);
            case.at_both(|copy| {
                aged(copy);
                let set = |name: &str, mode| {
                    fs::set_permissions(copy.join(name), fs::Permissions::from_mode(mode))
                        .expect("it is ours");
                };
                set("program", 0o640);
                set("file", 0o711);
            });
            case.compare(options);
            case.compare(options);
        }
    });
}

/// Which names are linked is the same, and in what order of changes; which of them came first is our own choice.
fn compare_links(case: &Case<'_>, options: &[&str]) {
    let (theirs, ours) = case.run(options);
    assert_eq!(ours.code(), theirs.code(), "exit status\n{theirs}\n{ours}");
    case.compare_trees();
    assert_eq!(link_groups(&case.theirs()), link_groups(&case.ours()), "{theirs}\n{ours}");
}

#[test]
fn names_of_one_file_stay_names_of_one_file() {
    tests::require!("rsync", "sshd", "root");
    in_every_direction("links", |case| {
        let source = case.source();
        some_of_each(&source);
        let link =
            |old: &str, new: &str| fs::hard_link(source.join(old), source.join(new)).expect("a new link");
        link("file", "file-2");
        link("file", "directory/file-3");
        link("directory/inner", "a-inner");
        link("link", "link-2");
        link("fifo", "directory/fifo-2");
        write_at(&source.join("empty"), b"", LONG_AGO_S);
        link("empty", "empty-2");
        set_mtime(&source.join("directory"), LONG_AGO_S, 0);
        compare_links(case, &["-aHin"]);
        compare_links(case, &["-aHi"]);
        assert_eq!(link_groups(&source), link_groups(&case.ours()));
        case.compare(&["-aHi"]);

        // Metadata of one is metadata of all; a broken link is made again; one that is too much goes.
        fs::set_permissions(source.join("file"), fs::Permissions::from_mode(0o600)).expect("it is ours");
        case.at_both(|copy| {
            fs::remove_file(copy.join("directory/file-3")).expect("it is there");
            write_at(&copy.join("directory/file-3"), b"another content", LONG_AGO_S);
            fs::hard_link(copy.join("file-2"), copy.join("file-9")).expect("a new link");
        });
        compare_links(case, &["-aHi", "--delete"]);
        assert_eq!(link_groups(&source), link_groups(&case.ours()));

        // New content, for all of its names; and a name in the place of a directory.
        write_at(&source.join("directory/inner"), &[9; 70_000], LONG_AGO_S + 5);
        case.at_both(|copy| {
            fs::remove_file(copy.join("empty-2")).expect("it is there");
            fs::create_dir(copy.join("empty-2")).expect("a new directory");
        });
        compare_links(case, &["-aHi", "--delete"]);
        assert_eq!(link_groups(&source), link_groups(&case.ours()));
        case.compare(&["-aHi", "--delete"]);

        // Separate again at the source: what differs is separate again.
        fs::remove_file(source.join("file-2")).expect("it is there");
        write_at(&source.join("file-2"), b"of its own", LONG_AGO_S + 7);
        compare_links(case, &["-aHi", "--delete"]);
        assert_eq!(link_groups(&source), link_groups(&case.ours()));
    });
}

#[test]
fn the_first_name_is_said_of_every_other_one() {
    let sandbox = Sandbox::new();
    let source = sandbox.source();
    for name in ["b", "c"] {
        write_at(&source.join(name), b"x", LONG_AGO_S);
        fs::hard_link(source.join(name), source.join(format!("{name}{name}"))).expect("a new link");
    }
    let line = [format!("{}/", source.display()), sandbox.destination().display().to_string()];
    let output = sandbox.sync(["-aHi"].into_iter().map(String::from).chain(line.clone()));
    let links: Vec<String> =
        output.success().itemized().into_iter().filter(|line| line.starts_with('h')).collect();
    assert_eq!(links, ["hf+++++++++ bb => b", "hf+++++++++ cc => c"]);
    // Linked anew, with nothing else to change.
    fs::remove_file(sandbox.destination().join("bb")).expect("it is there");
    fs::copy(sandbox.destination().join("b"), sandbox.destination().join("bb")).expect("a copy");
    set_mtime(&sandbox.destination().join("bb"), LONG_AGO_S, 0);
    set_mtime(&sandbox.destination(), LONG_AGO_S, 0);
    set_mtime(&source, LONG_AGO_S, 0);
    let output = sandbox.sync(["-aHi"].into_iter().map(String::from).chain(line));
    assert_eq!(output.success().itemized(), ["hf          bb => b"]);
}

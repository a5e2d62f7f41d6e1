//! Metadata beyond what `-a` keeps, beside the installed rsync: the same trees, the same lines, the same exit status, in every
//! direction.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use tests::directions::{ALL, Direction, Stage};
use tests::extras::{attributes, set_attribute};
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

//! One tree with two copies, ours and rsync's: the same options, and whatever can be seen is compared.

use crate::directions::{ALL, Direction, Stage};
use crate::extras::attributes;
use crate::process::Output;
use crate::sandbox::Sandbox;
use crate::snapshot::{NOTHING, assert_same, snapshot};
use crate::tree::set_mtime;
use std::fs;
use std::path::{Path, PathBuf};

/// When the three roots of a case were last changed, in seconds.
pub const ROOTS_S: i64 = 1_000_000_000;

/// See the module.
#[derive(Debug)]
pub struct Case<'a> {
    /// Where it is.
    pub sandbox: &'a Sandbox,
    /// Its servers.
    pub stage: &'a Stage,
    /// Which way it goes.
    pub direction: Direction,
    /// All of it.
    pub directory: PathBuf,
}

impl<'a> Case<'a> {
    /// In a directory of its own; the source and both copies are there, empty and of the same age.
    ///
    /// # Panics
    /// Where they can't be made.
    #[must_use]
    pub fn make(sandbox: &'a Sandbox, stage: &'a Stage, direction: Direction, name: &str) -> Case<'a> {
        let directory = sandbox.path().join(format!("{name}-{direction:?}").replace(['(', ')'], "-"));
        let case = Case { sandbox, stage, direction, directory };
        for path in [case.source(), case.ours(), case.theirs()] {
            fs::create_dir_all(&path).expect("a new directory");
            set_mtime(&path, ROOTS_S, 0);
        }
        case
    }

    /// What is copied.
    #[must_use]
    pub fn source(&self) -> PathBuf {
        self.directory.join("source")
    }

    /// Our copy.
    #[must_use]
    pub fn ours(&self) -> PathBuf {
        self.directory.join("ours")
    }

    /// rsync's copy.
    #[must_use]
    pub fn theirs(&self) -> PathBuf {
        self.directory.join("theirs")
    }

    /// Does the same to both copies.
    pub fn at_both(&self, change: impl Fn(&Path)) {
        [self.ours(), self.theirs()].iter().for_each(|copy| change(copy));
    }

    /// Copies what is in the source, with our program.
    #[must_use]
    pub fn sync(&self, options: &[&str]) -> Output {
        let (source, ours) = (contents_of(&self.source()), text(&self.ours()));
        self.stage.sync(self.sandbox, self.direction, options, &source, &ours)
    }

    /// The same with rsync.
    #[must_use]
    pub fn rsync(&self, options: &[&str]) -> Output {
        let (source, theirs) = (contents_of(&self.source()), text(&self.theirs()));
        self.stage.rsync(self.sandbox, self.direction, options, &source, &theirs)
    }

    /// Runs rsync, then ours; both end with the same exit status.
    ///
    /// # Panics
    /// Where they don't.
    pub fn run(&self, options: &[&str]) -> (Output, Output) {
        let (theirs, ours) = (self.rsync(options), self.sync(options));
        assert_eq!(ours.code(), theirs.code(), "exit status\n{theirs}\n{ours}");
        (theirs, ours)
    }

    /// Runs both with these options and compares all that can be seen but attributes.
    ///
    /// # Panics
    /// Where something differs.
    pub fn compare(&self, options: &[&str]) -> (Output, Output) {
        let (theirs, ours) = self.run(options);
        assert_same_lines(&theirs, &ours);
        assert_same(&snapshot(&self.theirs()), &snapshot(&self.ours()), &NOTHING);
        (theirs, ours)
    }

    /// The same, and attributes.
    ///
    /// # Panics
    /// Where something differs.
    pub fn compare_all(&self, options: &[&str]) -> (Output, Output) {
        let ended = self.compare(options);
        self.compare_attributes();
        ended
    }

    /// Compares both copies' attributes.
    ///
    /// # Panics
    /// Where one differs.
    pub fn compare_attributes(&self) {
        assert_eq!(attributes(&self.theirs()), attributes(&self.ours()));
    }
}

/// One case for each direction, with servers that they share.
pub fn in_every_direction(name: &str, test: impl Fn(&Case<'_>)) {
    let sandbox = Sandbox::on_disk();
    let stage = Stage::start(&sandbox);
    for direction in ALL {
        test(&Case::make(&sandbox, &stage, direction, name));
    }
}

/// Compares itemized lines, in their order.
///
/// # Panics
/// Where they are not the same.
pub fn assert_same_lines(theirs: &Output, ours: &Output) {
    let (expected, actual) = (theirs.itemized(), ours.itemized());
    let only = |a: &[String], b: &[String]| {
        a.iter().filter(|line| !b.contains(line)).take(20).cloned().collect::<Vec<_>>().join("\n")
    };
    assert!(
        expected == actual,
        "itemized lines differ\n$ {}\n$ {}\nonly of rsync:\n{}\nonly of ours:\n{}",
        theirs.line,
        ours.line,
        only(&expected, &actual),
        only(&actual, &expected)
    );
}

/// A path for a command line.
///
/// # Panics
/// Where it is not one of the sandbox's.
#[must_use]
pub fn text(path: &Path) -> String {
    path.to_str().expect("the sandbox's paths are ASCII").to_owned()
}

/// The same with a slash behind it: what is in that directory.
#[must_use]
pub fn contents_of(path: &Path) -> String {
    text(path) + "/"
}

//! The trees that are copied. Each is made when it is first asked for; the same arguments give the same bytes.

use crate::cases::Data;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tests::process::{Output, Running};
use tests::requirement::{installed, tool};
use tests::seed::Rng;
use tests::tree::set_mtime;
use tests::wiredtiger;

/// How long one step may take, of a slow machine.
pub const STEP_LIMIT: Duration = Duration::from_secs(3600);

const COLLECTIONS: &str = "8";
const DOCUMENTS: &str = "300000";
const CREATE_SEED: &str = "7";
const CHANGED_PERCENT: &str = "1";
const CHANGE_SEED: &str = "9";
const SMALL_FILES: &str = "100000";
const MANY_DIRECTORIES: u64 = 1000;
const FILES_PER_DIRECTORY: u64 = 1000;
const FILE_MIB: usize = 512;
const LINE: &[u8] = b"one more line, at the front\n";
/// 2024-01-01: long ago, so that every program trusts it.
const OLD_MTIME_S: i64 = 1_704_067_200;
const NEW_MTIME_S: i64 = OLD_MTIME_S + 86_400;

/// Which state of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Version {
    Old,
    New,
}

/// Where the trees are; what was made stays until it is forgotten.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    made: HashSet<PathBuf>,
}

impl Store {
    /// Nothing yet, in `directory`, which is made.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn new(directory: PathBuf) -> Store {
        fs::create_dir(&directory).expect("a new directory");
        Store { directory, made: HashSet::new() }
    }

    /// The state before the change.
    pub fn old(&mut self, data: Data) -> PathBuf {
        self.version(data, Version::Old)
    }

    /// The state after the change.
    pub fn new_version(&mut self, data: Data) -> PathBuf {
        self.version(data, Version::New)
    }

    /// Removes both states.
    pub fn forget(&mut self, data: Data) {
        for version in [Version::Old, Version::New] {
            let path = self.path(data, version);
            if self.made.remove(&path) {
                remove(&path);
            }
        }
    }

    fn path(&self, data: Data, version: Version) -> PathBuf {
        let name = match data {
            Data::Database => "database",
            Data::SmallFiles => "small-files",
            Data::ManyFiles => "many-files",
            Data::LineInserted => "line-inserted",
            Data::Replaced => "replaced",
            Data::Server => "server",
        };
        let version = if version == Version::Old { "old" } else { "new" };
        self.directory.join(format!("{name}-{version}"))
    }

    fn version(&mut self, data: Data, version: Version) -> PathBuf {
        let path = self.path(data, version);
        if !self.made.contains(&path) {
            self.make(data, version, &path);
            self.made.insert(path.clone());
        }
        path
    }

    fn make(&mut self, data: Data, version: Version, path: &Path) {
        match (data, version) {
            (Data::Database, Version::Old) => load("create", path, &[DOCUMENTS, CREATE_SEED]),
            (Data::Database, Version::New) => {
                copy(&self.old(data), path);
                change(data, path);
            }
            (Data::SmallFiles, _) => make_small_files(path),
            (Data::ManyFiles, _) => make_many_files(path),
            (Data::LineInserted | Data::Replaced, _) => make_random_file(data, version, path),
            (Data::Server, _) => {
                fs::create_dir(path).expect("a new directory");
                link(&self.old(Data::SmallFiles), &path.join("attachments"));
                link(&self.old(Data::Database), &path.join(DATABASE_OF_SERVER));
            }
        }
    }
}

const DATABASE_OF_SERVER: &str = "database";

/// Brings a tree that holds the old state to the new one, by the storage engine itself: what it does not
/// write keeps its inode.
///
/// # Panics
/// Where the engine fails, or there is no database in this data.
pub fn change(data: Data, root: &Path) {
    let database = match data {
        Data::Database => root.to_owned(),
        Data::Server => root.join(DATABASE_OF_SERVER),
        _ => panic!("{data:?} has no database to change"),
    };
    load("mutate", &database, &[CHANGED_PERCENT, CHANGE_SEED]);
}

/// Brings a changed tree back to `old`; what did not change keeps its inode.
///
/// # Panics
/// Where rsync fails.
pub fn restore(old: &Path, root: &Path) {
    let options = ["-a", "--delete", "--inplace", "--no-whole-file"].map(OsStr::new);
    let (from, to) = (with_slash(old), with_slash(root));
    step(installed("rsync"), options.into_iter().chain([from.as_ref(), to.as_ref()]));
}

/// A copy of a tree at a path where nothing is.
///
/// # Panics
/// Where `cp` fails.
pub fn copy(from: &Path, to: &Path) {
    step("/bin/cp".into(), [OsStr::new("-a"), from.as_os_str(), to.as_os_str()]);
}

/// The same without a second copy of the contents: nothing in the store is ever written again.
fn link(from: &Path, to: &Path) {
    step("/bin/cp".into(), [OsStr::new("-al"), from.as_os_str(), to.as_os_str()]);
}

/// Removes a tree, if it is there.
///
/// # Panics
/// Where it stays.
pub fn remove(path: &Path) {
    if path.exists() {
        fs::remove_dir_all(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// Waits until everything below `roots` was left alone for `settled`, by its ctime.
///
/// # Panics
/// Where a tree cannot be read.
pub fn wait_until_settled(roots: &[&Path], settled: Duration) {
    let youngest = roots.iter().map(|root| youngest_ctime(root)).max().unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    thread::sleep((youngest + settled).saturating_sub(now));
}

/// `PATH/`: for rsync and our client, its contents.
#[must_use]
pub fn with_slash(path: &Path) -> String {
    format!("{}/", path.to_str().expect("temporary directories have plain names"))
}

fn youngest_ctime(path: &Path) -> Duration {
    let metadata = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let own = Duration::new(metadata.ctime().unsigned_abs(), metadata.ctime_nsec().unsigned_abs() as u32);
    if !metadata.is_dir() {
        return own;
    }
    let entries =
        fs::read_dir(path).expect("a directory of ours").map(|entry| entry.expect("it can be read"));
    entries.map(|entry| youngest_ctime(&entry.path())).fold(own, Duration::max)
}

fn load(action: &str, path: &Path, numbers: &[&str; 2]) {
    let words = [OsStr::new(action), path.as_os_str(), OsStr::new(COLLECTIONS)];
    step(wiredtiger::loader().to_owned(), words.into_iter().chain(numbers.iter().map(OsStr::new)));
}

fn make_small_files(path: &Path) {
    let words = [tool("mkattachments.py").into_os_string(), path.into(), SMALL_FILES.into()];
    step(installed("python3"), words.iter().map(AsRef::as_ref));
}

fn make_many_files(root: &Path) {
    fs::create_dir(root).expect("a new directory");
    let threads = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    thread::scope(|scope| {
        for first in 0..threads {
            let numbers = (first..MANY_DIRECTORIES).step_by(threads as usize);
            scope.spawn(|| numbers.for_each(|number| make_directory_of_files(root, number)));
        }
    });
    set_mtime(root, OLD_MTIME_S, 0);
}

fn make_directory_of_files(root: &Path, number: u64) {
    let directory = root.join(format!("directory-{number:04}"));
    fs::create_dir(&directory).expect("a new directory");
    for file in 0..FILES_PER_DIRECTORY {
        let path = directory.join(format!("file-{file:04}"));
        File::create(&path).expect("a new file");
        set_mtime(&path, OLD_MTIME_S + file as i64, number as i64);
    }
    set_mtime(&directory, OLD_MTIME_S, 0);
}

fn make_random_file(data: Data, version: Version, directory: &Path) {
    let is_new = version == Version::New;
    let seed = if is_new && data == Data::Replaced { 2 } else { 1 };
    fs::create_dir(directory).expect("a new directory");
    let path = directory.join("file");
    let mut file = File::create(&path).expect("a new file");
    if is_new && data == Data::LineInserted {
        file.write_all(LINE).expect("room for the data");
    }
    let mut rng = Rng::new(seed);
    for _ in 0..FILE_MIB {
        file.write_all(&rng.bytes(1 << 20)).expect("room for the data");
    }
    drop(file);
    let mtime_s = if is_new { NEW_MTIME_S } else { OLD_MTIME_S };
    set_mtime(&path, mtime_s, 0);
    set_mtime(directory, mtime_s, 0);
}

fn step<'a>(program: PathBuf, arguments: impl IntoIterator<Item = &'a OsStr>) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = Running::start(command).wait_within(STEP_LIMIT);
    output.success();
    output
}

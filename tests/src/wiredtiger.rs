//! A MongoDB-shaped directory, made and changed by the real storage engine: `tools/wtload.c`.

use crate::process::{Output, Running};
use crate::requirement::{installed, tool};
use crate::sandbox::Sandbox;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, process};

/// The compiled loader, beside the test programs; made at first use, once for each content of its source.
///
/// # Panics
/// Where it does not compile, with the compiler's messages.
#[must_use]
pub fn loader() -> &'static Path {
    static LOADER: OnceLock<PathBuf> = OnceLock::new();
    LOADER.get_or_init(|| {
        let source = tool("wtload.c");
        let hash = blake3::hash(&fs::read(&source).expect("tools/wtload.c")).to_hex();
        let test = env::current_exe().expect("a running program has a path");
        let directory =
            test.parent().and_then(Path::parent).expect("cargo puts tests in target/PROFILE/deps");
        let program = directory.join(format!("wtload-{}", &hash[..16]));
        if !program.exists() {
            let made = program.with_extension(process::id().to_string());
            let mut command = Command::new(installed("gcc"));
            command.args(["-O2", "-o"]).arg(&made).arg(&source).arg("-lwiredtiger");
            crate::process::run(command).success();
            // Another test program may do the same; the last rename wins and both are whole.
            fs::rename(&made, &program).expect("both are in one directory");
        }
        program
    })
}

/// A database directory of `collections` collections, each with an index.
#[derive(Debug, Clone)]
pub struct Database {
    path: PathBuf,
    collections: u32,
}

impl Database {
    /// Makes it at `path`, with `documents` documents (some 500 bytes each) a collection.
    ///
    /// # Panics
    /// Where the engine fails.
    #[must_use]
    pub fn create(path: &Path, collections: u32, documents: u64, seed: u64) -> Database {
        let database = Database { path: path.to_owned(), collections };
        database.run_to_end("create", &[documents.to_string(), seed.to_string()]);
        database
    }

    /// One that is there already.
    #[must_use]
    pub fn at(path: &Path, collections: u32) -> Database {
        Database { path: path.to_owned(), collections }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Updates `percent` of the documents, inserts a quarter and removes an eighth as many, and closes it.
    ///
    /// # Panics
    /// Where the engine fails.
    pub fn mutate(&self, percent: f64, seed: u64) {
        self.run_to_end("mutate", &[percent.to_string(), seed.to_string()]);
    }

    /// Starts a writer that changes it for so long, with a checkpoint in each round: a live server.
    #[must_use]
    pub fn start_writer(&self, seconds: u32, seed: u64) -> Running {
        Running::start(self.command("run", &self.path, &[seconds.to_string(), seed.to_string()]))
    }

    /// A digest of all its records, after a check of every page.
    ///
    /// # Panics
    /// Where the engine finds damage.
    #[must_use]
    pub fn digest(&self, sandbox: &Sandbox) -> String {
        self.digest_of(&self.path, sandbox)
    }

    /// The digest of a copy at `path`. Recovery may change what it opens, so it opens a copy of that.
    ///
    /// # Panics
    /// Where the engine finds damage.
    #[must_use]
    pub fn digest_of(&self, path: &Path, sandbox: &Sandbox) -> String {
        let scratch =
            tempfile::Builder::new().prefix("digest-").tempdir_in(sandbox.path()).expect("a new directory");
        let copy = scratch.path().join("copy");
        let mut command = Command::new("/bin/cp");
        command.arg("-a").arg(path).arg(&copy);
        crate::process::run(command).success();
        let output = crate::process::run(self.command("digest", &copy, &[]));
        output.success().stdout_text()
    }

    fn run_to_end(&self, action: &str, numbers: &[String]) -> Output {
        let output = crate::process::run(self.command(action, &self.path, numbers));
        output.success();
        output
    }

    fn command(&self, action: &str, path: &Path, numbers: &[String]) -> Command {
        let mut command = Command::new(loader());
        command.arg(action).arg(path).arg(self.collections.to_string()).args(numbers);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutation_changes_the_digest_and_reading_it_changes_nothing() {
        crate::require!("wiredtiger");
        let sandbox = Sandbox::new();
        let database = Database::create(&sandbox.path().join("db"), 2, 500, 1);
        let before = crate::snapshot::snapshot(database.path());
        let digest = database.digest(&sandbox);
        assert!(digest.ends_with(" 2000 records\n"), "{digest}");
        assert_eq!(database.digest(&sandbox), digest);
        assert!(before == crate::snapshot::snapshot(database.path()));
        database.mutate(10.0, 2);
        assert_ne!(database.digest(&sandbox), digest);
    }
}

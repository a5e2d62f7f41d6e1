//! What the accounts looked like at the source: `probe.json` in the plan's state directory.
//!
//! JSON, mode 0600: `version`, the `migration` (pair of cores) it belongs to, `time_ms`, and by account [`Contents`]. Hashes alone;
//! no content, no token. Replaced by rename, on disk before [`Snapshot::write`] returns; another version is refused.

use super::compare::Contents;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const FILE_NAME: &str = "probe.json";
const VERSION: u32 = 1;

/// The accounts at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    version: u32,
    migration: String,
    pub(crate) time_ms: u64,
    pub(crate) accounts: BTreeMap<String, Contents>,
}

/// A snapshot that can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error(
        "there is nothing to compare with yet: run `sync-client probe create` before the source is stopped"
    )]
    None,
    #[error("cannot {what} {} (state_dir in the plan names the place)", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not one of this release's and this migration's ({why}); run `sync-client probe create` again", path.display())]
    Unusable { path: PathBuf, why: String },
}

impl Snapshot {
    pub(crate) fn new(migration: String, time_ms: u64, accounts: BTreeMap<String, Contents>) -> Snapshot {
        Snapshot { version: VERSION, migration, time_ms, accounts }
    }

    /// Reads the snapshot of a migration.
    pub(crate) fn read(dir: &Path, migration: &str) -> Result<Snapshot, SnapshotError> {
        let path = dir.join(FILE_NAME);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SnapshotError::None),
            read => read.map_err(|source| SnapshotError::Io { what: "read", path: path.clone(), source })?,
        };
        let unusable = |why: String| SnapshotError::Unusable { path: path.clone(), why };
        let snapshot: Snapshot =
            serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))?;
        if snapshot.version != VERSION {
            return Err(unusable(format!("version {}", snapshot.version)));
        }
        if snapshot.migration != migration {
            return Err(unusable("it belongs to another pair of cores".to_owned()));
        }
        Ok(snapshot)
    }

    /// Writes it, and returns where it is.
    pub(crate) fn write(&self, dir: &Path) -> Result<PathBuf, SnapshotError> {
        let path = dir.join(FILE_NAME);
        self.replace(dir, &path).map_err(|source| SnapshotError::Io {
            what: "write",
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }

    /// A temporary file is private from its beginning.
    fn replace(&self, dir: &Path, path: &Path) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_was_written_is_read_again_by_its_own_migration_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Snapshot::read(dir.path(), "a to b"), Err(SnapshotError::None)));
        let contents = Contents { series: BTreeMap::from([("e".to_owned(), None)]), ..Contents::default() };
        let accounts = BTreeMap::from([("ann".to_owned(), contents)]);
        let snapshot = Snapshot::new("a to b".to_owned(), 7, accounts);
        let path = snapshot.write(dir.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Snapshot::read(dir.path(), "a to b").unwrap(), snapshot);
        assert!(matches!(Snapshot::read(dir.path(), "a to c"), Err(SnapshotError::Unusable { .. })));
        for (text, why) in
            [("{", "EOF"), (r#"{"version":2,"migration":"a to b","time_ms":0,"accounts":{}}"#, "version 2")]
        {
            fs::write(&path, text).unwrap();
            let error = Snapshot::read(dir.path(), "a to b").unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}

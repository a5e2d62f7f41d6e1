//! The built programs that are measured.

use serde_json::Value;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where `sync-client` and `sync-agent` lie.
#[derive(Debug, Clone)]
pub struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// Those in `SYNC_BIN_DIR`; without it, builds them, in the release profile.
    ///
    /// # Panics
    /// Where they do not build.
    #[must_use]
    pub fn take_or_build() -> Programs {
        let directory = env::var_os("SYNC_BIN_DIR").map_or_else(build, PathBuf::from);
        for name in ["sync-client", "sync-agent"] {
            let path = directory.join(name);
            assert!(path.is_file(), "{name} is not in {}", directory.display());
        }
        Programs { directory }
    }

    /// Their directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> PathBuf {
        self.directory.join("sync-client")
    }

    /// The agent.
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.directory.join("sync-agent")
    }
}

/// Builds, and returns the directory that cargo names: where it lies is the operator's configuration.
fn build() -> PathBuf {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--locked", "-p", "sync-client", "-p", "sync-agent"])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "the programs do not build");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut executables = text.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message["executable"].as_str()?))
    });
    let client = executables.find(|path| path.ends_with("sync-client")).expect("cargo names what it built");
    client.parent().expect("a program lies in a directory").to_owned()
}

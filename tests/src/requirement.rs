//! What a test needs of the machine it runs on, and what happens where that is absent.
//!
//! Nothing is skipped in silence: a `SKIPPED:` line goes to the real standard error (libtest captures only
//! the print macros), and `tests/run` counts one as a failure.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why `name` cannot be had here; `None` where it can.
///
/// `name` is `"root"`, `"wiredtiger"`, or a program looked for on the path and in the `sbin` directories.
#[must_use]
pub fn missing(name: &str) -> Option<String> {
    match name {
        "root" => (!is_root()).then(|| "must run as root".to_owned()),
        "wiredtiger" => {
            let header = Path::new("/usr/include/wiredtiger.h");
            if header.exists() {
                missing("gcc")
            } else {
                Some("libwiredtiger-dev is not installed".to_owned())
            }
        }
        program => find(program).is_none().then(|| format!("{program} is not installed")),
    }
}

/// Reports a test that cannot run here.
///
/// # Panics
/// Where `SYNC_TEST_STRICT` is set: there everything must run.
pub fn skip(why: &str) {
    assert!(env::var_os("SYNC_TEST_STRICT").is_none(), "a test that must run here cannot: {why}");
    // The newline before it: libtest may have left its line open.
    let _ = writeln!(io::stderr(), "\nSKIPPED: {why}");
}

/// Whether this process may do what only root may.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The full path of an installed program.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // The system's own first: a version manager's shim on the path needs the operator's home.
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"]
        .into_iter()
        .map(PathBuf::from)
        .chain(env::split_paths(&path))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// [`find`], for what the test already required.
///
/// # Panics
/// Where it is not installed.
#[must_use]
pub fn installed(program: &str) -> PathBuf {
    find(program).unwrap_or_else(|| panic!("{program} is not installed"))
}

/// A file of `tests/tools`.
#[must_use]
pub fn tool(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_program_is_named() {
        assert_eq!(missing("sh"), None);
        assert_eq!(missing("no-such-program"), Some("no-such-program is not installed".to_owned()));
    }
}

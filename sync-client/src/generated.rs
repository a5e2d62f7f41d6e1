//! Layouts where another service writes the configuration files: an edit there would be overwritten.
//!
//! Since the platform's version of 2020 a *config leader* on one machine holds all settings, and a *config follower* on
//! each machine fetches the files from it whenever it starts. Both have a directory in the configuration's root. The
//! leader's own files are the right ones to edit.

use crate::place::{FileError, Place};
use clap::{Arg, ArgMatches};
use std::path::{Path, PathBuf};

/// The option that edits such a file all the same.
pub(crate) const OVERRIDE: &str = "even-generated";

/// `--even-generated`.
#[must_use]
pub fn option() -> Arg {
    crate::options::flag(
        OVERRIDE,
        "Edit the file though a config follower writes it and will overwrite the edit",
    )
}

/// Refuses a file that a follower writes, unless the operator insists.
///
/// # Errors
/// [`FileError::Generated`], or it can't be told.
pub fn must_be_ours(matches: &ArgMatches, place: &dyn Place, file: &Path) -> Result<(), FileError> {
    if matches.get_flag(OVERRIDE) { Ok(()) } else { must_not_be(place, file) }
}

/// Refuses a file that a follower writes.
///
/// # Errors
/// [`FileError::Generated`], or it can't be told.
pub fn must_not_be(place: &dyn Place, file: &Path) -> Result<(), FileError> {
    match root_of_generated(place, file)? {
        Some(root) => Err(FileError::Generated { path: file.to_owned(), root }),
        None => Ok(()),
    }
}

/// The root of the layout whose follower writes this file, if there is one above it.
fn root_of_generated(place: &dyn Place, file: &Path) -> Result<Option<PathBuf>, FileError> {
    let above: Vec<&Path> = file.ancestors().skip(1).collect();
    if above.iter().any(|directory| directory.ends_with("config-leader")) {
        return Ok(None);
    }
    for directory in above {
        for name in ["config-follower", "config-leader"] {
            if place.exists(&directory.join(name))? {
                return Ok(Some(directory.to_owned()));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::ThisMachine;

    #[test]
    fn a_file_below_a_followers_root_is_generated_and_the_leaders_own_is_not() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let root = place.path().join("root");
        for directory in ["pryv/dns/conf", "config-leader/data/dns/conf"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        let found = |file: &str| root_of_generated(&ThisMachine, &root.join(file)).unwrap();
        assert_eq!(found("pryv/dns/conf/dns.json"), Some(root.clone()));
        assert_eq!(found("config-leader/data/dns/conf/dns.json"), None);
        std::fs::rename(root.join("config-leader"), root.join("config-follower")).unwrap();
        assert_eq!(found("pryv/dns/conf/dns.json"), Some(root.clone()));
        std::fs::remove_dir_all(root.join("config-follower")).unwrap();
        assert_eq!(found("pryv/dns/conf/dns.json"), None);
    }
}

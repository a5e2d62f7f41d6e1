//! Layouts where another service writes the configuration files: an edit there would be overwritten.
//!
//! Since the platform's version of 2020 a *config leader* on one machine holds all settings, and a *config follower* on
//! each machine fetches the files from it whenever it starts. Both have a directory in the configuration's root.

use std::path::{Path, PathBuf};

/// How far above a file its configuration's root may be: `ROOT/pryv/dns/conf/dns.json` has three directories between.
const LEVELS: usize = 5;

/// The root of the layout whose follower writes this file, if there is one above it.
#[must_use]
pub fn root_of_generated(file: &Path) -> Option<PathBuf> {
    let is_root = |directory: &&Path| {
        ["config-follower", "config-leader"].iter().any(|name| directory.join(name).is_dir())
    };
    file.ancestors().skip(1).take(LEVELS).find(is_root).map(Path::to_owned)
}

/// What to tell who wants to edit it.
#[must_use]
pub fn advice(file: &Path, root: &Path) -> String {
    format!(
        "{} is written by the config follower of {}, which would overwrite an edit: change the address in the config \
         leader's platform.yml (config-leader/conf/platform.yml on the leader's machine) and restart its followers; \
         --even-generated edits the file all the same",
        crate::replace::shown(file),
        crate::replace::shown(root)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_below_a_followers_root_is_generated() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let conf = place.path().join("root/pryv/dns/conf");
        std::fs::create_dir_all(&conf).unwrap();
        let file = conf.join("dns.json");
        assert_eq!(root_of_generated(&file), None);
        std::fs::create_dir_all(place.path().join("root/config-follower")).unwrap();
        assert_eq!(root_of_generated(&file), Some(place.path().join("root")));
    }
}

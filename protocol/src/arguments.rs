//! How arguments as typed become places in the transfer.

use crate::path::RelPath;
use bincode::{Decode, Encode};

/// How arguments are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct ArgumentRules {
    /// What of a source's path is in the transfer.
    pub relative: Relative,
    /// What a source that is not there means.
    pub missing: Missing,
    /// Every missing directory of the destination's path is made, not only the last.
    pub make_path: bool,
}

/// What of a source argument's path is in the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Relative {
    /// The last name of it, or nothing where it stands for its contents.
    #[default]
    No,
    /// All of it, or what is behind a `/./`; the directories on the way with their attributes.
    Yes,
    /// The same, but the directories on the way are only there to hold what is in them: what the destination has stays
    /// as it is, a link to a directory too.
    WithoutImplied,
}

/// What a source argument that is not there means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Missing {
    /// It is a problem.
    #[default]
    Reported,
    /// Nothing.
    Ignored,
    /// The destination's counterpart is removed.
    Deleted,
}

/// Where the source's arguments stand in the transfer, as far as the destination must know.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Places {
    /// With [`Relative`]: of each argument the path of what was asked for. The directories above it are implied.
    pub asked: Vec<RelPath>,
    /// With [`Missing::Deleted`]: the paths of those that are not there.
    pub missing: Vec<RelPath>,
}

impl Places {
    /// Whether the directory at `path` is in the transfer only to hold what was asked for.
    #[must_use]
    pub fn implies(&self, path: &RelPath) -> bool {
        let is_asked = |asked: &RelPath| path.is_within(asked);
        !self.asked.is_empty() && !self.asked.iter().any(is_asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_an_argument_is_implied_unless_another_one_asks_for_it() {
        let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
        let asked = ["a/b/c", "x", "x/y/z"].map(path).to_vec();
        let places = Places { asked, missing: Vec::new() };
        for (directory, implied) in [
            ("a", true),
            ("a/b", true),
            ("a/b/c", false),
            ("a/b/c/d", false),
            ("x", false),
            ("x/y", false),
            ("a/b/cd", true),
        ] {
            assert_eq!(places.implies(&path(directory)), implied, "{directory}");
        }
        assert!(!Places::default().implies(&path("a")), "without -R nothing is");
    }
}

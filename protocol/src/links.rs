//! What becomes of symbolic links: kept as links, followed, left out, or made harmless.
//!
//! Everything here is a question about bytes; who follows a link is the source's scan, who leaves one out or keeps
//! one in the place of a directory is the destination's merge.

use crate::path::RelPath;
use bincode::{Decode, Encode};

/// What becomes of symbolic links. Whether those that are left are copied at all is
/// [`crate::options::Preserve::links`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Links {
    /// In the place of which the source lists what they point to.
    pub followed: Followed,
    /// The destination leaves out those that [lead out](leads_out).
    pub only_inside: bool,
    /// A link of the destination to a directory beneath its root stands for that directory, where the source has one.
    pub keep_directories: bool,
    /// Whether links are usable at the destination.
    pub munging: Munging,
}

/// Links in the place of which stands what they point to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Followed {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Some; every other one is a link.
    Some {
        /// Those that [lead out](leads_out) of the tree.
        leading_out: bool,
        /// Those that point to a directory.
        to_directories: bool,
    },
}

impl Followed {
    /// Whether any is.
    #[must_use]
    pub fn any(self) -> bool {
        self != Followed::None
    }
}

/// What one end does to links so that they can't be followed where they are not at home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Munging {
    /// Nothing.
    #[default]
    Off,
    /// The source takes [`MUNGED`] away from the front of targets.
    TakenAway,
    /// The destination puts it there.
    Put,
}

/// rsync's prefix of munged targets: nothing is there, or should be.
pub const MUNGED: &[u8] = b"/rsyncd-munged/";

impl Munging {
    /// What the source lists of a link to `target`.
    #[must_use]
    pub fn at_source(self, target: Vec<u8>) -> Vec<u8> {
        match target.strip_prefix(MUNGED) {
            Some(rest) if self == Munging::TakenAway && !rest.is_empty() => rest.to_vec(),
            _ => target,
        }
    }

    /// Where the destination's link points when the source's points to `target`.
    #[must_use]
    pub fn at_destination(self, target: Vec<u8>) -> Vec<u8> {
        match self {
            Munging::Put => [MUNGED, &target].concat(),
            Munging::Off | Munging::TakenAway => target,
        }
    }
}

/// Whether a link at `link` of the transfer may lead out of it, as rsync says: it is absolute, goes further up than the
/// transfer reaches, or goes up again once it went down (what it passes on its way may be a link too).
#[must_use]
pub fn leads_out(link: &RelPath, target: &[u8]) -> bool {
    let above = link.depth().saturating_sub(1);
    let (ups, rest) = if target == b".." { (1, &b""[..]) } else { climb(target) };
    let turns = rest.split(|&byte| byte == b'/').any(|name| name == b"..");
    target.is_empty() || target.starts_with(b"/") || ups > above || turns
}

/// How often a target goes up before anything else, and what follows.
fn climb(target: &[u8]) -> (usize, &[u8]) {
    let (mut ups, mut rest) = (0, target);
    while let Some(after) = rest.strip_prefix(b"../") {
        ups += 1;
        rest = &after[after.iter().take_while(|&&byte| byte == b'/').count()..];
    }
    (ups, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_out_where_rsync_says_so() {
        for (link, target, expected) in [
            ("l", &b"f"[..], false),
            ("l", b"", true),
            ("l", b"/f", true),
            ("l", b"..", true),
            ("d/l", b"..", false),
            ("d/l", b"../f", false),
            ("d/l", b"..//f", false),
            ("d/l", b"../../f", true),
            ("d/e/l", b"../../f", false),
            ("d/e/l", b"../..", true),
            ("d/l", b"./../f", true),
            ("d/l", b"e/../f", true),
            ("d/l", b"e/..", true),
            ("d/l", b"..f", false),
            ("d/l", b"e/..f/g", false),
        ] {
            let path = RelPath::new(link.as_bytes()).unwrap();
            assert_eq!(leads_out(&path, target), expected, "{link} -> {}", String::from_utf8_lossy(target));
        }
    }

    #[test]
    fn what_one_end_munges_the_other_undoes() {
        let munged = Munging::Put.at_destination(b"../f".to_vec());
        assert_eq!(munged, b"/rsyncd-munged/../f");
        assert_eq!(Munging::TakenAway.at_source(munged.clone()), b"../f");
        assert_eq!(Munging::Off.at_source(munged.clone()), munged);
        assert_eq!(Munging::TakenAway.at_source(MUNGED.to_vec()), MUNGED, "it would point nowhere");
    }
}

//! A plan: exactly the changes that a dry run told, which a later run is held to (`--apply-plan`).
//!
//! Each change has a mark, a hash of all that was told of it: what is done, to which entry, what that entry is at the
//! source, and what the destination had there. What differs in any of it has another mark. The destination's end does what is in the plan and nothing else,
//! so that what changed between the two runs is left alone, however late it changed.

use crate::codec;
use crate::itemize::{Change, Item, Particulars};
use bincode::{Decode, Encode};

/// Bytes of a mark: two of a plan's meet by chance in one of 10^19 plans.
pub const MARK_BYTES: usize = 12;
/// Changes that a plan may have: together they go in the frame that starts a session.
pub const PLAN_MARKS: usize = 80_000;

/// What tells a change from any other.
pub type Mark = [u8; MARK_BYTES];

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Plan(Vec<Mark>);

impl Plan {
    /// The plan of these changes; none if there are too many.
    #[must_use]
    pub fn new(mut marks: Vec<Mark>) -> Option<Plan> {
        marks.sort_unstable();
        marks.dedup();
        (marks.len() <= PLAN_MARKS).then_some(Plan(marks))
    }

    /// Whether a change is in it. One that a peer sent out of order has fewer changes, never others.
    #[must_use]
    pub fn has(&self, item: &Item) -> bool {
        mark(item).is_some_and(|mark| self.0.binary_search(&mark).is_ok())
    }
}

/// The mark of a change; none of what changes nothing.
#[must_use]
pub fn mark(item: &Item) -> Option<Mark> {
    let told = match item {
        Item::Updated { change, .. } if *change == Change::default() => return None,
        Item::Updated { path, kind, change, particulars, first } => Item::Updated {
            path: path.clone(),
            kind: kind.clone(),
            change: *change,
            // What only a run that is no dry run knows.
            particulars: Particulars { literal_bytes: 0, content: None, ..*particulars },
            first: first.clone(),
        },
        Item::Deleted { .. } => item.clone(),
        Item::Spared { .. } => return None,
    };
    let mut bytes = Vec::new();
    codec::encode_into(&told, &mut bytes);
    let hash = blake3::hash(&bytes);
    let mut mark = Mark::default();
    mark.copy_from_slice(&hash.as_bytes()[..MARK_BYTES]);
    Some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Kind;
    use crate::itemize::{Content, Spared};
    use crate::path::RelPath;

    fn item(name: &[u8], size_bytes: u64, literal_bytes: u64) -> Item {
        let change = Change { content: Content::Transferred, size: true, ..Change::default() };
        let particulars = Particulars { literal_bytes, ..Particulars::default() };
        Item::Updated {
            path: RelPath::new(name).unwrap(),
            kind: Kind::File { size_bytes },
            change,
            particulars,
            first: None,
        }
    }

    #[test]
    fn a_plan_has_what_was_told_and_nothing_else() {
        let path = || RelPath::new(&b"gone"[..]).unwrap();
        let told = [item(b"a", 1, 0), Item::Deleted { path: path(), is_dir: false, was: 0 }];
        let plan = Plan::new(told.iter().filter_map(mark).collect()).unwrap();
        assert!(told.iter().all(|item| plan.has(item)));
        assert!(plan.has(&item(b"a", 1, 77)), "how much is sent is not known before");
        for other in [
            item(b"b", 1, 0),
            item(b"a", 2, 0),
            Item::Deleted { path: path(), is_dir: true, was: 0 },
            Item::Deleted { path: path(), is_dir: false, was: 1 },
            Item::Spared { path: path(), is_dir: false, why: Spared::Exists },
        ] {
            assert!(!plan.has(&other), "{other:?}");
        }
        assert!(!Plan::default().has(&told[0]));
    }

    #[test]
    fn a_plan_fits_the_frame_that_carries_it() {
        let mark = |at: usize| {
            let mut mark = Mark::default();
            mark[..8].copy_from_slice(&(at as u64).to_be_bytes());
            mark
        };
        assert!(Plan::new((0..=PLAN_MARKS).map(mark).collect()).is_none());
        let plan = Plan::new((0..PLAN_MARKS).map(mark).collect()).unwrap();
        let mut bytes = Vec::new();
        codec::encode_into(&plan, &mut bytes);
        assert!(bytes.len() < crate::limits::FRAME_BYTES - (64 << 10));
    }
}

//! Owners and groups that become others on the way (`--usermap`, `--groupmap`, `--chown`), and what an end does with
//! what only a super-user may set (`--super`, `--fake-super`).
//!
//! What a name is called at the source is known at the destination, and what the new one's number is only there: so the
//! rules travel as they were typed, and the destination asks them.

use crate::filter;
use bincode::{Decode, Encode};

/// What owners and groups become.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct OwnerMaps {
    /// Owners; the first that fits counts.
    pub users: Vec<Mapping>,
    /// Groups.
    pub groups: Vec<Mapping>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Mapping {
    /// Whom of the source's it is about.
    pub whom: Whom,
    /// The destination's, by name or number.
    pub to: Vec<u8>,
}

/// Users or groups of the source.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Whom {
    /// By number.
    Numbers {
        /// The first of them.
        from: u32,
        /// The last.
        to: u32,
    },
    /// By name; the empty one is that of whoever has none.
    Name(Vec<u8>),
    /// By a name with wildcards.
    Pattern(Vec<u8>),
}

impl Whom {
    /// Everybody.
    #[must_use]
    pub fn everybody() -> Whom {
        Whom::Pattern(b"*".to_vec())
    }

    /// Whether it is about the source's number `id`, of this name.
    #[must_use]
    pub fn includes(&self, id: u32, name: &[u8]) -> bool {
        match self {
            Whom::Numbers { from, to } => (*from..=*to).contains(&id),
            Whom::Name(own) => own == name,
            Whom::Pattern(pattern) => filter::fits_name(pattern, name),
        }
    }
}

/// What an end does about what only a super-user may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Privilege {
    /// What its user may do.
    #[default]
    OwnUsers,
    /// It tries as if it were root, and reports what fails (`--super`).
    Claimed,
    /// It does without, also as root (`--no-super`).
    Waived,
    /// Owners, modes, devices and attributes are kept in attributes of ordinary files (`--fake-super`).
    Stored,
}

/// The same of both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Privileges {
    /// The source's: only whether it reads what is stored.
    pub source: Privilege,
    /// The destination's.
    pub destination: Privilege,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_names_and_patterns_fit_whom_they_are_about() {
        let name = |name: &[u8]| Whom::Name(name.to_vec());
        let pattern = |pattern: &[u8]| Whom::Pattern(pattern.to_vec());
        for (whom, id, of, fits) in [
            (Whom::Numbers { from: 1, to: 9 }, 9, &b"x"[..], true),
            (Whom::Numbers { from: 1, to: 9 }, 10, b"x", false),
            (Whom::Numbers { from: 9, to: 1 }, 5, b"x", false),
            (name(b""), 7, b"", true),
            (name(b""), 7, b"x", false),
            (name(b"1"), 1, b"x", false),
            (pattern(b"*"), 7, b"", true),
            (pattern(b"?*"), 7, b"", false),
            (pattern(b"[ab]*"), 7, b"bin", true),
            (pattern(b"[ab"), 7, b"b", false),
            (pattern(b"d*n"), 7, b"daemon", true),
        ] {
            assert_eq!(whom.includes(id, of), fits, "{whom:?} {id} {of:?}");
        }
    }
}

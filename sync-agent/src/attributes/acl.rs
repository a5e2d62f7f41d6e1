//! ACLs as Linux keeps them in attributes: whom they name, and the same for another machine's users.
//!
//! What does not have the form is left as it is: the kernel that is asked to set it decides.
//!
//! # Source
//! acl(5); the kernel's `include/uapi/linux/posix_acl_xattr.h`: a version (4 bytes), then for each entry a tag (2), permissions
//! (2) and a user or group (4), little endian.

/// The bytes of the version, 2.
const VERSION: [u8; 4] = [2, 0, 0, 0];
const USER: u16 = 0x02;
const GROUP: u16 = 0x08;

/// Whom an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    User(u32),
    Group(u32),
}

/// The users and groups that an ACL names.
pub(crate) fn named(acl: &[u8]) -> impl Iterator<Item = Named> {
    entries(acl).unwrap_or_default().into_iter().filter_map(|(tag, _, id)| match tag {
        USER => Some(Named::User(id)),
        GROUP => Some(Named::Group(id)),
        _ => None,
    })
}

/// The same ACL for other numbers.
pub(crate) fn mapped(acl: &[u8], mut map: impl FnMut(Named) -> u32) -> Vec<u8> {
    let Some(mut all) = entries(acl) else { return acl.to_vec() };
    for (tag, _, id) in &mut all {
        match *tag {
            USER => *id = map(Named::User(*id)),
            GROUP => *id = map(Named::Group(*id)),
            _ => {}
        }
    }
    encoded(all)
}

/// The same ACL with its entries in order, so that equal ones have equal bytes.
pub(crate) fn sorted(acl: Vec<u8>) -> Vec<u8> {
    entries(&acl).map_or(acl, encoded)
}

fn entries(acl: &[u8]) -> Option<Vec<(u16, u16, u32)>> {
    let (all, rest) = acl.strip_prefix(&VERSION)?.as_chunks::<8>();
    let entry = |&[t0, t1, p0, p1, i0, i1, i2, i3]: &[u8; 8]| {
        (u16::from_le_bytes([t0, t1]), u16::from_le_bytes([p0, p1]), u32::from_le_bytes([i0, i1, i2, i3]))
    };
    rest.is_empty().then(|| all.iter().map(entry).collect())
}

fn encoded(mut all: Vec<(u16, u16, u32)>) -> Vec<u8> {
    all.sort_by_key(|&(tag, _, id)| (tag, id));
    let mut acl = VERSION.to_vec();
    for (tag, permissions, id) in all {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&permissions.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    acl
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_users_and_groups_that_are_named_are_mapped_and_the_order_is_one() {
        let of = |all: &[(u16, u16, u32)]| {
            let entry = |&(tag, permissions, id): &(u16, u16, u32)| {
                [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
            };
            [VERSION.to_vec(), all.iter().flat_map(entry).collect()].concat()
        };
        let none = u32::MAX;
        let acl = of(&[
            (1, 6, none),
            (2, 7, 10),
            (2, 5, 11),
            (4, 4, none),
            (8, 4, 10),
            (16, 7, none),
            (32, 4, none),
        ]);
        assert_eq!(named(&acl).collect::<Vec<_>>(), [Named::User(10), Named::User(11), Named::Group(10)]);
        let there = mapped(&acl, |named| match named {
            Named::User(10) => 20,
            Named::User(id) => id,
            Named::Group(_) => 30,
        });
        let expected = of(&[
            (1, 6, none),
            (2, 5, 11),
            (2, 7, 20),
            (4, 4, none),
            (8, 4, 30),
            (16, 7, none),
            (32, 4, none),
        ]);
        assert_eq!(there, expected);
        for other in [&b""[..], b"x", &[2, 0, 0, 0, 1], &[1, 0, 0, 0]] {
            assert_eq!(mapped(other, |_| 0), other);
            assert_eq!(named(other).count(), 0);
        }
    }
}

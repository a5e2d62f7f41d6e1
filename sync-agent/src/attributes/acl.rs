//! ACLs as Linux keeps them in attributes: whom they name, and the same for another machine's users.
//!
//! What does not have the form is left as it is: the kernel that is asked to set it decides.
//!
//! # Source
//! acl(5); the kernel's `include/uapi/linux/posix_acl_xattr.h`: a version (4 bytes), then for each entry a tag (2), permissions
//! (2) and a user or group (4), little endian.

/// The bytes of the version, 2.
const VERSION: [u8; 4] = [2, 0, 0, 0];
const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNERS_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;
/// Whom an entry without a name is about.
const NOBODY: u32 = u32::MAX;

/// In what rsync keeps: there is no such entry, or the mode says it.
const ABSENT: u32 = 0x80;
/// There: the name is a user's.
const IS_USER: u32 = 1 << 31;

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

/// The same ACL on something with these permission bits: what setting the bits makes of it.
pub(crate) fn with_mode(acl: &[u8], mode: u16) -> Vec<u8> {
    let Some(mut all) = entries(acl) else { return acl.to_vec() };
    let has_mask = all.iter().any(|&(tag, ..)| tag == MASK);
    for (tag, permissions, _) in &mut all {
        match *tag {
            OWNER => *permissions = mode >> 6 & 7,
            OWNERS_GROUP if !has_mask => *permissions = mode >> 3 & 7,
            MASK => *permissions = mode >> 3 & 7,
            OTHERS => *permissions = mode & 7,
            _ => {}
        }
    }
    encoded(all)
}

/// Whether it says no more than a mode, which Linux never keeps; rsync's `--fake-super` does.
pub(crate) fn is_mode_alone(acl: &[u8]) -> bool {
    let is_modes = |&(tag, ..): &(u16, u16, u32)| matches!(tag, OWNER | OWNERS_GROUP | OTHERS);
    entries(acl).is_some_and(|all| all.iter().all(is_modes))
}

/// An ACL as rsync's `--fake-super` keeps it; of an access ACL without what the mode `of` says as well.
///
/// # Source
/// Written by rsync 3.5.0, and read back: the permissions of owner, owner's group, mask and others (4 bytes each, `80` for one
/// that is not there), then for each user or group that is named its number and its permissions (4 bytes each, the highest
/// bit for a user), little endian.
pub(crate) fn stored(acl: &[u8], of: Option<u16>) -> Option<Vec<u8>> {
    let all = entries(acl)?;
    let of_tag = |tag: u16| {
        let entry = all.iter().find(|&&(known, ..)| known == tag);
        entry.map_or(ABSENT, |&(_, permissions, _)| u32::from(permissions))
    };
    let (mut owner, mut group, mask, mut others) =
        (of_tag(OWNER), of_tag(OWNERS_GROUP), of_tag(MASK), of_tag(OTHERS));
    if let Some(mode) = of {
        (owner, others) = (ABSENT, ABSENT);
        if mask == ABSENT || group == u32::from(mode >> 3 & 7) {
            group = ABSENT;
        }
    }
    let named = all.iter().filter_map(|&(tag, permissions, id)| match tag {
        USER => Some([id, u32::from(permissions) | IS_USER]),
        GROUP => Some([id, u32::from(permissions)]),
        _ => None,
    });
    let numbers = [owner, group, mask, others].into_iter().chain(named.flatten());
    Some(numbers.flat_map(u32::to_le_bytes).collect())
}

/// What was kept so; `of` is the mode that an access ACL goes with. None where it has another form.
pub(crate) fn unstored(bytes: &[u8], of: Option<u16>) -> Option<Vec<u8>> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    let numbers: Vec<u32> = numbers.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    let (&[owner, group, mask, others], named) = numbers.split_first_chunk()?;
    let (named, half) = named.as_chunks::<2>();
    if !rest.is_empty() || !half.is_empty() {
        return None;
    }
    let has_mask = mask != ABSENT || !named.is_empty();
    // Mode and mask are one, whatever was kept of it; without a mask mode and group are.
    let permissions = |kept: u32, shift: u16, is_modes: bool| match of {
        Some(mode) if is_modes || kept == ABSENT => mode >> shift & 7,
        _ => (kept & 7) as u16,
    };
    let mut all = vec![
        (OWNER, permissions(owner, 6, true), NOBODY),
        (OWNERS_GROUP, permissions(group, 3, !has_mask), NOBODY),
        (OTHERS, permissions(others, 0, true), NOBODY),
    ];
    if has_mask {
        all.push((MASK, permissions(mask, 3, true), NOBODY));
    }
    all.extend(named.iter().map(|&[id, permissions]| {
        let tag = if permissions & IS_USER == 0 { GROUP } else { USER };
        (tag, (permissions & 7) as u16, id)
    }));
    Some(encoded(all))
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
    fn what_rsync_keeps_of_an_acl_is_what_it_was() {
        // As rsync 3.5.0 wrote them, of files with these modes.
        let file = [0x80_u32, 5, 7, 0x80, 1, 0x8000_0007, 54_321, 0x8000_0005, 2, 4];
        let defaults = [7_u32, 5, 7, 5, 1, 0x8000_0007];
        let without_mask = [6_u32, 5, 0x80, 4];
        let bytes =
            |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
        for (numbers, of) in [(&file[..], Some(0o775)), (&defaults, None), (&without_mask, None)] {
            let acl = unstored(&bytes(numbers), of).unwrap();
            assert_eq!(stored(&acl, of), Some(bytes(numbers)));
        }
        let acl = unstored(&bytes(&file), Some(0o754)).unwrap();
        let all = entries(&acl).unwrap();
        let expected = [(1, 7), (2, 7), (2, 5), (4, 5), (8, 4), (16, 5), (32, 4)];
        assert_eq!(all.iter().map(|&(tag, permissions, _)| (tag, permissions)).collect::<Vec<_>>(), expected);
        for bad in [&b""[..], &[0; 15], &[0; 20], &[0; 17]] {
            assert_eq!(unstored(bad, None), None);
        }
    }

    #[test]
    fn setting_permission_bits_changes_what_an_acl_says_of_them() {
        let with_mask =
            encoded(vec![(1, 7, NOBODY), (2, 7, 1), (4, 5, NOBODY), (16, 7, NOBODY), (32, 5, NOBODY)]);
        let changed =
            encoded(vec![(1, 6, NOBODY), (2, 7, 1), (4, 5, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY)]);
        assert_eq!(with_mode(&with_mask, 0o640), changed);
    }

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

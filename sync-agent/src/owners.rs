//! Owner and group: numbers to names at the source, names to numbers at the destination.

use crate::attributes::acl::Named;
use crate::workers::lock;
use nix::unistd::{Gid, Group, Uid, User, getgroups};
use protocol::message::OwnerNames;
use protocol::options::SyncOptions;
use protocol::ownership::{Mapping, OwnerMaps, Privilege, Whom};
use std::collections::HashMap;
use std::sync::Mutex;

/// Looks names up once each.
#[derive(Debug, Default)]
pub(crate) struct Names {
    users: Mutex<HashMap<u32, Option<Vec<u8>>>>,
    groups: Mutex<HashMap<u32, Option<Vec<u8>>>>,
}

impl Names {
    /// The names of these users and groups; number 0 is the same everywhere and needs none.
    pub(crate) fn of(&self, ids: impl Iterator<Item = (u32, u32)>) -> OwnerNames {
        let mut names = OwnerNames::default();
        let (mut last_user, mut last_group) = (0, 0);
        for (uid, gid) in ids {
            if uid != last_user {
                last_user = uid;
                insert(&mut names.users, uid, || cached(&self.users, uid, user_name));
            }
            if gid != last_group {
                last_group = gid;
                insert(&mut names.groups, gid, || cached(&self.groups, gid, group_name));
            }
        }
        names
    }
}

fn insert(names: &mut Vec<(u32, Vec<u8>)>, id: u32, name: impl FnOnce() -> Option<Vec<u8>>) {
    if id != 0
        && names.iter().all(|&(known, _)| known != id)
        && let Some(name) = name()
    {
        names.push((id, name));
    }
}

fn cached<K: Copy + Eq + std::hash::Hash, V: Clone>(
    cache: &Mutex<HashMap<K, V>>,
    key: K,
    look_up: impl FnOnce(K) -> V,
) -> V {
    lock(cache).entry(key).or_insert_with(|| look_up(key)).clone()
}

fn user_name(uid: u32) -> Option<Vec<u8>> {
    let user = User::from_uid(Uid::from_raw(uid)).ok()??;
    Some(user.name.into_bytes())
}

fn group_name(gid: u32) -> Option<Vec<u8>> {
    let group = Group::from_gid(Gid::from_raw(gid)).ok()??;
    Some(group.name.into_bytes())
}

/// Translates the owners of one piece; most entries have those of the entry before.
pub(crate) struct Owners<'a> {
    ownership: &'a Ownership,
    names: &'a OwnerNames,
    /// The source's number that was asked for last, and the answer.
    user: Option<(u32, Option<u32>)>,
    group: Option<(u32, Option<u32>)>,
}

impl Owners<'_> {
    /// The owner to set for the source's `uid`, if one is to be set.
    pub(crate) fn user(&mut self, uid: u32) -> Option<u32> {
        match self.user {
            Some((last, here)) if last == uid => here,
            _ => self.user.insert((uid, self.ownership.user(uid, self.names))).1,
        }
    }

    /// What somebody that an ACL names is here; with `--numeric-ids` the same, as in rsync.
    pub(crate) fn named(&self, who: Named) -> u32 {
        let Ownership { users, groups, numeric, .. } = self.ownership;
        match who {
            Named::User(id) | Named::Group(id) if *numeric => id,
            Named::User(id) => users.here(id, &self.names.users, false),
            Named::Group(id) => groups.here(id, &self.names.groups, false),
        }
    }

    /// The group to set for the source's `gid`, if one is to be set and may be.
    pub(crate) fn group(&mut self, gid: u32) -> Option<u32> {
        match self.group {
            Some((last, here)) if last == gid => here,
            _ => self.group.insert((gid, self.ownership.group(gid, self.names))).1,
        }
    }
}

/// The source's numbers with their names, and what they are here.
type Known = Mutex<HashMap<(u32, Option<Vec<u8>>), u32>>;

/// Users, or groups: whom the operator maps to whom, and who is who.
#[derive(Debug)]
struct Ids {
    rules: Vec<(Whom, u32)>,
    /// What number 0 is called, where names count.
    zero: Vec<u8>,
    by_name: fn(&[u8]) -> Option<u32>,
    known: Known,
}

/// What this process may set, and what the source's numbers are here.
#[derive(Debug)]
pub(crate) struct Ownership {
    keep_owner: bool,
    keep_group: bool,
    numeric: bool,
    /// This process is root's.
    pub(crate) is_root: bool,
    /// Whether owners, groups and devices are made as by root: so, or in attributes.
    pub(crate) acts_as_root: bool,
    my_groups: Vec<u32>,
    users: Ids,
    groups: Ids,
}

impl Ownership {
    /// What `options` ask for, within what this process may do.
    ///
    /// # Errors
    /// An owner that something is mapped to and that this machine does not know.
    pub(crate) fn new(options: &SyncOptions) -> Result<Ownership, String> {
        let is_root = Uid::effective().is_root();
        let acts_as_root = match options.privileges.destination {
            Privilege::OwnUsers => is_root,
            Privilege::Claimed | Privilege::Stored => true,
            Privilege::Waived => false,
        };
        let mut my_groups: Vec<u32> = getgroups().unwrap_or_default().into_iter().map(Gid::as_raw).collect();
        my_groups.push(Gid::effective().as_raw());
        let numeric = options.preserve.numeric_ids;
        let zero =
            |name: fn(u32) -> Option<Vec<u8>>| if numeric { None } else { name(0) }.unwrap_or_default();
        let OwnerMaps { users, groups } = &options.owners;
        Ok(Ownership {
            keep_owner: acts_as_root && options.preserve.owner,
            keep_group: options.preserve.group,
            numeric,
            is_root,
            acts_as_root,
            my_groups,
            users: Ids {
                rules: rules(users, "user", user_id)?,
                zero: zero(user_name),
                by_name: user_id,
                known: Known::default(),
            },
            groups: Ids {
                rules: rules(groups, "group", group_id)?,
                zero: zero(group_name),
                by_name: group_id,
                known: Known::default(),
            },
        })
    }

    /// What the owners of a piece, which has these names, are here.
    pub(crate) fn owners<'a>(&'a self, names: &'a OwnerNames) -> Owners<'a> {
        Owners { ownership: self, names, user: None, group: None }
    }

    fn user(&self, uid: u32, names: &OwnerNames) -> Option<u32> {
        self.keep_owner.then(|| self.users.here(uid, &names.users, self.numeric))
    }

    fn group(&self, gid: u32, names: &OwnerNames) -> Option<u32> {
        if !self.keep_group {
            return None;
        }
        let gid = self.groups.here(gid, &names.groups, self.numeric);
        (self.acts_as_root || self.my_groups.contains(&gid)).then_some(gid)
    }
}

impl Ids {
    /// What the source's number is here: what the first rule that fits says, else whoever has its name, else the same.
    fn here(&self, theirs: u32, names: &[(u32, Vec<u8>)], numeric: bool) -> u32 {
        let name = names.iter().find(|(id, _)| *id == theirs).map(|(_, name)| name).filter(|_| !numeric);
        if self.rules.is_empty() && (theirs == 0 || name.is_none()) {
            return theirs;
        }
        let key = (theirs, name.cloned());
        *lock(&self.known).entry(key.clone()).or_insert_with(|| self.look_up(theirs, key.1.as_deref()))
    }

    fn look_up(&self, theirs: u32, name: Option<&[u8]>) -> u32 {
        let called = if theirs == 0 { &self.zero } else { name.unwrap_or_default() };
        match self.rules.iter().find(|(whom, _)| whom.includes(theirs, called)) {
            Some(&(_, here)) => here,
            None if theirs == 0 => theirs,
            None => name.and_then(self.by_name).unwrap_or(theirs),
        }
    }
}

/// The rules with the numbers of this machine.
fn rules(all: &[Mapping], what: &str, by_name: fn(&[u8]) -> Option<u32>) -> Result<Vec<(Whom, u32)>, String> {
    all.iter()
        .map(|Mapping { whom, to }| {
            let here = number(to).or_else(|| by_name(to));
            here.map(|here| (whom.clone(), here)).ok_or_else(|| {
                format!(
                    "the destination's machine has no {what} called {:?} (--{what}map, --chown); give a number, or leave \
                     that pair out; nothing was changed",
                    protocol::path::escaped(to)
                )
            })
        })
        .collect()
}

/// Of digits alone: as in rsync they are no name.
fn number(to: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(to).ok()?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

fn user_id(name: &[u8]) -> Option<u32> {
    let user = User::from_name(std::str::from_utf8(name).ok()?).ok()??;
    Some(user.uid.as_raw())
}

fn group_id(name: &[u8]) -> Option<u32> {
    let group = Group::from_name(std::str::from_utf8(name).ok()?).ok()??;
    Some(group.gid.as_raw())
}

//! Owner and group: numbers to names at the source, names to numbers at the destination.

use crate::attributes::acl::Named;
use crate::workers::lock;
use nix::unistd::{Gid, Group, Uid, User, getgroups};
use protocol::message::OwnerNames;
use protocol::options::SyncOptions;
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

    /// What somebody that an ACL names is here.
    pub(crate) fn named(&self, who: Named) -> u32 {
        let Owners { ownership, names, .. } = self;
        match who {
            Named::User(id) => ownership.mapped(&ownership.users, id, &names.users, user_id),
            Named::Group(id) => ownership.mapped(&ownership.groups, id, &names.groups, group_id),
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
type Mapped = Mutex<HashMap<(u32, Option<Vec<u8>>), u32>>;

/// What this process may set, and what the source's numbers are here.
#[derive(Debug)]
pub(crate) struct Ownership {
    keep_owner: bool,
    keep_group: bool,
    numeric: bool,
    chown: (Option<u32>, Option<u32>),
    pub(crate) is_root: bool,
    my_groups: Vec<u32>,
    users: Mapped,
    groups: Mapped,
}

impl Ownership {
    /// What `options` ask for, within what this process may do.
    ///
    /// # Errors
    /// A name in `--chown` that this machine does not know.
    pub(crate) fn new(options: &SyncOptions) -> Result<Ownership, String> {
        let is_root = Uid::effective().is_root();
        let mut my_groups: Vec<u32> = getgroups().unwrap_or_default().into_iter().map(Gid::as_raw).collect();
        my_groups.push(Gid::effective().as_raw());
        let chown = (
            id(options.chown.0.as_deref(), "user", user_id)?,
            id(options.chown.1.as_deref(), "group", group_id)?,
        );
        Ok(Ownership {
            keep_owner: is_root && (options.preserve.owner || chown.0.is_some()),
            keep_group: options.preserve.group || chown.1.is_some(),
            numeric: options.preserve.numeric_ids,
            chown,
            is_root,
            my_groups,
            users: Mutex::default(),
            groups: Mutex::default(),
        })
    }

    /// What the owners of a piece, which has these names, are here.
    pub(crate) fn owners<'a>(&'a self, names: &'a OwnerNames) -> Owners<'a> {
        Owners { ownership: self, names, user: None, group: None }
    }

    fn user(&self, uid: u32, names: &OwnerNames) -> Option<u32> {
        if !self.keep_owner {
            return None;
        }
        let mapped = || self.mapped(&self.users, uid, &names.users, user_id);
        Some(self.chown.0.unwrap_or_else(mapped))
    }

    fn group(&self, gid: u32, names: &OwnerNames) -> Option<u32> {
        if !self.keep_group {
            return None;
        }
        let mapped = || self.mapped(&self.groups, gid, &names.groups, group_id);
        let gid = self.chown.1.unwrap_or_else(mapped);
        (self.is_root || self.my_groups.contains(&gid)).then_some(gid)
    }

    fn mapped(
        &self,
        cache: &Mapped,
        theirs: u32,
        names: &[(u32, Vec<u8>)],
        look_up: fn(&[u8]) -> Option<u32>,
    ) -> u32 {
        let name = names.iter().find(|(id, _)| *id == theirs).map(|(_, name)| name);
        if self.numeric || theirs == 0 || name.is_none() {
            return theirs;
        }
        let key = (theirs, name.cloned());
        let by_name =
            |(theirs, name): (u32, Option<Vec<u8>>)| name.and_then(|name| look_up(&name)).unwrap_or(theirs);
        *lock(cache).entry(key.clone()).or_insert_with(|| by_name(key))
    }
}

fn id(name: Option<&[u8]>, what: &str, look_up: fn(&[u8]) -> Option<u32>) -> Result<Option<u32>, String> {
    let Some(name) = name else { return Ok(None) };
    let number = std::str::from_utf8(name).ok().and_then(|text| text.parse().ok());
    match look_up(name).or(number) {
        Some(id) => Ok(Some(id)),
        None => Err(format!(
            "--chown: this machine has no {what} called {:?}; give a number",
            protocol::path::escaped(name)
        )),
    }
}

fn user_id(name: &[u8]) -> Option<u32> {
    let user = User::from_name(std::str::from_utf8(name).ok()?).ok()??;
    Some(user.uid.as_raw())
}

fn group_id(name: &[u8]) -> Option<u32> {
    let group = Group::from_name(std::str::from_utf8(name).ok()?).ok()??;
    Some(group.gid.as_raw())
}

//! The destination's generator: merges a piece of the source's listing with what is here.
//!
//! Each entry is decided on its own; what needs no data from the source (directories, links, nodes,
//! metadata) is done at once or handed to the committer, files are asked for. What is here and was
//! not listed is noted as extraneous, and nothing is removed before the end.

use crate::bases::{self, Neighbours};
use crate::basis;
use crate::clock::Activity;
use crate::commit::{Placement, Ready};
use crate::delete;
use crate::error::SessionError;
use crate::hard_links;
use crate::inherited::Inherited;
use crate::metadata::Metadata;
use crate::monitor::{Progress, errno};
use crate::owners::Owners;
use crate::receiver::{Flight, Target, Task};
use crate::recognition;
use crate::run::{self, Run};
use crate::sink;
use crate::staging::Staged;
use crate::stored;
use crate::tree::{Dir, Handle as _, Info, Names, Walk};
use crate::workers::lock;
use protocol::attributes::HardLink;
use protocol::bases::Fuzzy;
use protocol::decide::{Action, decide};
use protocol::destination::{DirectoryId, ReadyPiece, Standing};
use protocol::entry::{Entry, Kind, Timestamp};
use protocol::itemize::{Change, Content, Item, Spared};
use protocol::limits;
use protocol::links;
use protocol::message::{Message, Piece, Request, Want};
use protocol::path::{Name, RelPath};
use protocol::stats::{Cause, Operation, Problem, Side};
use rustix::io::Errno;
use std::sync::Arc;
use std::time::Instant;

mod alternates;

/// A directory's own side of the merge, kept between the pieces of a large one.
pub(crate) struct OwnListing {
    dir: Option<Dir>,
    info: Option<Info>,
    names: Names,
    /// Everything before this position was merged.
    position: usize,
    extraneous: Vec<Name>,
    room: Vec<Name>,
    path: Arc<RelPath>,
    /// The same directory of the alternate bases.
    bases: Vec<(usize, Dir)>,
    /// What missing files may be like; looked for when the first is missing.
    neighbours: Option<Neighbours>,
    /// What is made in it has of it, if anything; looked for when that first counts.
    inherited: Option<Option<Inherited>>,
}

/// What the end of the run removes in one directory.
#[derive(Debug)]
pub(crate) struct Extraneous {
    /// None for one that is not in the transfer.
    pub(crate) directory: Option<DirectoryId>,
    pub(crate) path: Arc<RelPath>,
    pub(crate) names: Vec<Name>,
    /// Directories whose content makes room for something else of their name.
    pub(crate) room: Vec<Name>,
    /// Counterparts of source arguments that are not there.
    pub(crate) missing: Vec<Name>,
}

/// The merge of one piece.
struct Merge<'a, 'r> {
    run: &'a Run<'r>,
    directory: DirectoryId,
    list: u32,
    owners: Owners<'a>,
    own: &'a mut OwnListing,
    asked: &'a mut Asked,
    standings: Vec<(Name, Standing<Metadata>)>,
    /// Entries that need nothing, and the bytes in them.
    done: (u64, u64),
}

/// What the merges of a batch ask the source for, all at once.
#[derive(Default)]
struct Asked {
    /// Files wanted whole, not yet numbered.
    whole: Vec<Target>,
    /// Requests that are numbered.
    requests: Vec<Request>,
}

/// A piece that was merged.
pub(crate) struct Merged {
    pub(crate) directory: DirectoryId,
    pub(crate) piece: Piece,
    pub(crate) standings: Vec<(Name, Standing<Metadata>)>,
}

/// Merges pieces, most of which are small: what the session has to know of them it is told at once.
/// Problems with single entries are reported, not returned.
pub(crate) fn merge_all(
    run: &Run<'_>,
    walk: &mut Walk,
    batch: Vec<ReadyPiece<Metadata>>,
) -> Result<(), SessionError> {
    let since = Instant::now();
    let mut asked = Asked::default();
    let merged = batch.into_iter().map(|ready| merge(run, walk, ready, &mut asked));
    let merged = merged.collect::<Result<Vec<Merged>, SessionError>>()?;
    let requests = run.request_whole(asked.whole, asked.requests);
    run.progress.clock.add(Activity::Scan, since);
    for requests in requests.chunks(REQUESTS_PER_FRAME) {
        run.outgoing.say(&Message::Request(requests.to_vec()))?;
    }
    run.merged(merged)
}

/// Requests in one frame: far below its limit.
const REQUESTS_PER_FRAME: usize = 4096;

fn merge(
    run: &Run<'_>,
    walk: &mut Walk,
    ready: ReadyPiece<Metadata>,
    asked: &mut Asked,
) -> Result<Merged, SessionError> {
    let ReadyPiece { directory, standing, mut piece } = ready;
    let kept = lock(&run.own_listings).remove(&directory);
    let opened = kept.map_or_else(|| open(run, walk, &piece.directory, &standing), Ok);
    let mut own = match opened {
        Ok(own) => own,
        Err(error) => {
            run.problem(errno(Side::Destination, &piece.directory, Operation::List, error));
            let standings = skip_directories(&piece.entries);
            return Ok(Merged { directory, piece, standings });
        }
    };
    if let Some(dir) = &own.dir {
        enter_rules(run, dir, &piece.directory)?;
    }
    if piece.directory.is_root() {
        rename_single(run, &mut piece.entries);
    }
    run.listed(&piece.entries);
    let entries = std::mem::take(&mut piece.entries);
    let is_empty = entries.is_empty();
    let standings = {
        let mut merge = Merge {
            run,
            directory,
            list: piece.list,
            owners: run.translation.ownership.owners(&piece.names),
            own: &mut own,
            asked,
            standings: Vec::new(),
            done: (0, 0),
        };
        for (index, entry) in entries.into_iter().enumerate() {
            merge.entry(index, entry);
        }
        if piece.last {
            merge.rest_is_extraneous();
        }
        Progress::add(&run.progress.done_entries, merge.done.0);
        Progress::add(&run.progress.done_bytes, merge.done.1);
        merge.standings
    };
    if piece.last {
        note_extraneous(run, directory, piece.complete, is_empty, &mut own);
    } else {
        lock(&run.own_listings).insert(directory, own);
    }
    Ok(Merged { directory, piece, standings })
}

/// Before anything in a directory is changed its own rules are read, for what may be deleted there.
fn enter_rules(run: &Run<'_>, dir: &Dir, path: &RelPath) -> Result<(), SessionError> {
    let is_outside = path.is_root() && run.is_named;
    if run.options.delete.extraneous && !is_outside { run.rules.enter(dir, path) } else { Ok(()) }
}

/// Whether a directory is known to have nothing that what is made in it would have of it.
fn gives_nothing(standing: &Standing<Metadata>) -> bool {
    matches!(standing, Standing::Present { metadata: Some(metadata), .. } if metadata.gives_nothing())
}

fn open(
    run: &Run<'_>,
    walk: &mut Walk,
    path: &RelPath,
    standing: &Standing<Metadata>,
) -> Result<OwnListing, Errno> {
    let mut own = OwnListing {
        dir: None,
        info: None,
        names: Names::default(),
        position: 0,
        extraneous: Vec::new(),
        room: Vec::new(),
        path: Arc::new(path.clone()),
        bases: Vec::new(),
        neighbours: None,
        inherited: gives_nothing(standing).then_some(None),
    };
    if !run.bases.is_empty() {
        own.bases = run.bases.dirs(path);
    }
    if !matches!(standing, Standing::Absent) {
        let dir = walk.dir(run.tree, path)?;
        let info = dir.own_info()?;
        run.will_sync(&dir, info.device);
        own.info = Some(info);
        own.names = dir.names()?;
        if let Some(info) = own.info
            && own.names.has_staging()
            && !run.options.dry_run
        {
            run.take_over_area(&dir, path, info.device);
        }
        own.dir = Some(dir);
    }
    Ok(own)
}

fn skip_directories(entries: &[Entry]) -> Vec<(Name, Standing<Metadata>)> {
    let directories = entries.iter().filter(|entry| entry.is_dir());
    directories.map(|entry| (entry.name.clone(), Standing::Skipped)).collect()
}

/// `sync FILE NAME`: the one entry goes by the name that was asked for.
fn rename_single(run: &Run<'_>, entries: &mut [Entry]) {
    if let (Some(name), [entry]) = (&run.single_name, entries) {
        entry.name = name.clone();
    }
}

/// What the directory has beyond the listing is removed at the end, if that is asked for and the
/// listing is known to be whole.
fn note_extraneous(
    run: &Run<'_>,
    directory: DirectoryId,
    is_complete: bool,
    is_empty: bool,
    own: &mut OwnListing,
) {
    let mut room = std::mem::take(&mut own.room);
    let mut names = std::mem::take(&mut own.extraneous);
    if !is_complete {
        // The source has reported why, or did not list all of it on purpose.
        names.clear();
    }
    if !run.options.empties_directories() {
        room.clear();
    }
    let path = Arc::clone(&own.path);
    let missing = run.missing_in(&path);
    names.retain(|name| !missing.contains(name));
    if names.is_empty() && room.is_empty() && missing.is_empty() {
        return;
    }
    let is_top = path.is_root() || run.is_named && path.depth() == 1 || run.places.asked.contains(&path);
    if is_top && is_empty && !names.is_empty() && own.names.len() == names.len() {
        run.source_is_empty();
    }
    lock(&run.session).hold(directory);
    lock(&run.extraneous).push(Extraneous { directory: Some(directory), path, names, room, missing });
}

impl Merge<'_, '_> {
    fn entry(&mut self, index: usize, mut entry: Entry) {
        let existing = match self.existing(&entry) {
            Ok(existing) => existing,
            Err(error) => return self.fail(&entry, Operation::Stat, error),
        };
        if !self.is_copied(&entry.kind) {
            let path = self.own.path.join(&entry.name);
            return self.run.monitor.item(Item::Spared { path, is_dir: false, why: Spared::NotCopied });
        }
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        if let Kind::Symlink { target } = &mut entry.kind {
            *target = self.run.options.links.munging.at_destination(std::mem::take(target));
            if self.leaves_out(&entry.name, target) {
                return;
            }
        }
        if entry.is_file() && !self.run.options.sizes.includes(entry.size_bytes()) {
            self.done.0 += 1;
            self.done.1 += entry.size_bytes();
            return;
        }
        if let Some((info, _)) = &existing {
            self.run.compare_links(|| self.own.path.join(&entry.name), &entry, info);
        }
        let there = existing.as_ref().map(|(_, entry)| entry);
        let listed = (!self.own.bases.is_empty()).then(|| entry.clone());
        let mut wanted = self.run.translation.wanted(entry, there, &mut self.owners);
        if self.is_new_directory(&wanted.entry, there)
            && let Some(inherited) = self.inherited()
        {
            wanted.inherit(inherited);
        }
        let (action, change) = decide(&wanted.entry, there, self.run.options);
        let alternate = match listed {
            Some(listed) if action != Action::Skip => self.alternate(&listed, there, change),
            _ => None,
        };
        let link = wanted.entry.link();
        let is_settled = matches!(action, Action::Skip | Action::Keep) && !wanted.entry.is_dir();
        if is_settled && link.is_none() && alternate.is_none() {
            if action == Action::Keep {
                self.run.is_there(self.list, index, existing.as_ref().map(|(info, _)| info));
            }
            self.done.0 += 1;
            self.done.1 += wanted.entry.size_bytes();
            return self.left_as_it_is(action, &wanted.entry, there);
        }
        let target = Target {
            directory: self.directory,
            parent: Arc::clone(&self.own.path),
            list: self.list,
            index,
            wanted,
            change: alternate.as_ref().map_or(change, |alternate| alternate.change),
            existing: existing.map(|(info, _)| info),
            device: self.own.info.map(|info| info.device),
            changes: 0,
            mismatches: 0,
            is_misaligned: false,
            has_holes: false,
            is_suspect: false,
            first: None,
            alternate,
        };
        match link {
            Some(link) => self.one_of_several(action, target, link),
            None => self.bring(action, target),
        }
    }

    fn inherited(&mut self) -> Option<&Inherited> {
        if let (None, Some(dir)) = (&self.own.inherited, &self.own.dir) {
            self.own.inherited = Inherited::of(dir, None, self.run.options.preserve.acls).ok();
        }
        self.own.inherited.as_ref()?.as_ref()
    }

    /// Whether a directory that is made here has nothing of this one, which is seen.
    fn gives_nothing(&mut self) -> bool {
        self.inherited().is_none() && self.own.inherited.is_some()
    }

    /// Whether it is a directory that is made here with a mode of this end's own.
    fn is_new_directory(&self, entry: &Entry, there: Option<&Entry>) -> bool {
        entry.is_dir() && !self.run.options.preserve.perms && !there.is_some_and(Entry::is_dir)
    }

    fn bring(&mut self, action: Action, target: Target) {
        match target.alternate.as_ref().map(|alternate| alternate.agrees) {
            Some(agrees) if !target.wanted.entry.is_dir() => self.take_from_base(agrees, target),
            _ => self.act(action, target),
        }
    }

    /// An entry that shares its inode with others.
    fn one_of_several(&mut self, action: Action, mut target: Target, link: HardLink) {
        // What is spared may be anything: no other name becomes a link to it.
        if action == Action::Skip {
            return self.run.done(&target);
        }
        if action == Action::Compare && self.run.options.only_grown {
            // It may be spared yet.
            target.wanted.entry.set_leads(false);
            return self.bring(action, target);
        }
        if self.run.options.may_spare() {
            target.wanted.entry.set_leads(self.run.links.take_lead(link));
        }
        if !target.wanted.entry.link().is_some_and(|link| link.leads) {
            if target.existing.is_some_and(|info| info.is_dir()) {
                self.own.room.push(target.name().clone());
            }
            return hard_links::follow(self.run, target, link.group);
        }
        if target.alternate.is_some() {
            return self.bring(action, target);
        }
        if action == Action::Keep {
            hard_links::first_stays(self.run, &target);
            self.run.stays_there(&target);
            return self.run.done(&target);
        }
        self.act(action, target);
    }

    fn left_as_it_is(&self, action: Action, entry: &Entry, there: Option<&Entry>) {
        let path = || self.own.path.join(&entry.name);
        match (action, there) {
            (Action::Keep, _) => self.run.unchanged(path, entry),
            (_, None) => self.run.spared(path, false, Spared::IsNew),
            _ if self.run.options.ignore_existing => self.run.spared(path, false, Spared::Exists),
            _ => self.run.spared(path, false, Spared::IsNewer),
        }
    }

    /// Whether the options copy this kind of thing. Only root can make a device; as with owners, others do without, unless the
    /// operator has it otherwise.
    fn is_copied(&self, kind: &Kind) -> bool {
        let keep = &self.run.options.preserve;
        match kind {
            Kind::File { .. } | Kind::Directory => true,
            Kind::Symlink { .. } => keep.links,
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => {
                keep.devices && self.run.translation.ownership.acts_as_root
            }
            Kind::Fifo | Kind::Socket => keep.specials,
        }
    }

    /// Whether a link that may lead out of the copied tree is left out.
    fn leaves_out(&self, name: &Name, target: &[u8]) -> bool {
        let options = self.run.options;
        if !options.links.only_inside {
            return false;
        }
        let path = self.own.path.join(name);
        let leads_out = links::leads_out(&path, target);
        if leads_out && options.itemize {
            let target = protocol::path::escaped(target);
            let note = format!("ignoring unsafe symlink {:?} -> {target:?}", path.to_string());
            self.run.monitor.note(&note);
        }
        leads_out
    }

    /// Moves on in the own listing up to the name of `entry`; what lies before is extraneous.
    fn existing(&mut self, entry: &Entry) -> Result<Option<(Info, Entry)>, Errno> {
        let name = &entry.name;
        while let Some(own) = self.own.names.at(self.own.position) {
            if own > name.as_bytes() {
                break;
            }
            self.own.position += 1;
            if own == name.as_bytes() {
                return self.look(entry).and_then(|found| self.behind_kept_link(entry, found)).map(Some);
            }
            let own = own.to_vec();
            self.note(&own);
        }
        Ok(None)
    }

    fn look(&self, listed: &Entry) -> Result<(Info, Entry), Errno> {
        let name = &listed.name;
        let dir = self.own.dir.as_ref().ok_or(Errno::NOENT)?;
        let info = dir.info(name.as_bytes())?;
        let target = if info.is_link() { dir.read_link(name.as_bytes())? } else { Vec::new() };
        let mut entry = info.entry(name.clone(), target, LONG_AGO).ok_or(Errno::INVAL)?;
        self.look_closer(listed, dir, &info, &mut entry)?;
        Ok((info, entry))
    }

    /// Adds what is kept of the entry and what the source tells of it besides, as it is here in `dir`.
    fn look_closer(&self, listed: &Entry, dir: &Dir, info: &Info, entry: &mut Entry) -> Result<(), Errno> {
        self.run.translation.show(dir, listed.name.as_bytes(), info, entry)?;
        if listed.atime().is_some() {
            entry.extra.get_or_insert_default().atime = Some(info.atime);
        }
        if let Some(taken) = self.run.translation.taken.filter(|_| listed.attributes().is_some()) {
            // What can't be read differs; setting it says why.
            let held = dir.hold(listed.name.as_bytes());
            entry.set_attributes(held.ok().and_then(|held| taken.read(&held).ok()));
        }
        Ok(())
    }

    /// Where a directory of the source meets a link to a directory that is kept: that directory.
    fn behind_kept_link(&self, entry: &Entry, found: (Info, Entry)) -> Result<(Info, Entry), Errno> {
        if !entry.is_dir() || !found.0.is_link() {
            return Ok(found);
        }
        let path = self.own.path.join(&entry.name);
        if !self.run.keeps_link(&path) {
            return Ok(found);
        }
        match self.run.tree.info_followed(&path) {
            Ok(info) if info.is_dir() => {
                self.run.keep_behind_link(&info);
                let mut behind = info.entry(entry.name.clone(), Vec::new(), LONG_AGO).ok_or(Errno::INVAL)?;
                let dir = self.run.tree.dir(&path)?;
                self.run.translation.show(&dir, b".", &info, &mut behind)?;
                if let Some(taken) = self.run.translation.taken.filter(|_| entry.attributes().is_some()) {
                    let held = self.run.tree.hold_followed(&path);
                    behind.set_attributes(held.ok().and_then(|held| taken.read(&held).ok()));
                }
                Ok((info, behind))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(found),
            Err(error) => Err(error),
        }
    }

    fn rest_is_extraneous(&mut self) {
        while let Some(own) = self.own.names.at(self.own.position) {
            let own = own.to_vec();
            self.own.position += 1;
            self.note(&own);
        }
    }

    fn note(&mut self, name: &[u8]) {
        // Sources that are named themselves say nothing of what else the destination holds.
        let is_unlisted = self.own.path.is_root() && self.run.is_named;
        if !self.run.options.delete.extraneous || is_unlisted {
            return;
        }
        let Ok(name) = Name::new(name) else { return };
        let Some(dir) = &self.own.dir else { return };
        if !delete::is_kept(self.run, dir, &self.own.path, &name) {
            self.own.extraneous.push(name);
        }
    }

    fn act(&mut self, action: Action, target: Target) {
        if target.wanted.entry.is_dir() {
            return self.directory(action, target);
        }
        if action != Action::Compare && self.run.is_unplanned_for(&target) {
            return self.run.done(&target);
        }
        let replaces_directory = target.existing.is_some_and(|info| info.is_dir());
        if replaces_directory && matches!(action, Action::Make | Action::Transfer { .. }) {
            self.own.room.push(target.name().clone());
        }
        match action {
            // Counted where that was decided.
            Action::Skip | Action::Keep => {}
            Action::SetMetadata => self.run.set_metadata(&target),
            Action::Make => self.make(target),
            Action::Transfer { .. } if self.run.options.dry_run => self.run.would_transfer(&target),
            Action::Transfer { .. } => self.transfer(target),
            Action::Compare => self.compare(target),
        }
    }

    fn directory(&mut self, action: Action, target: Target) {
        if self.run.is_bare(&target.path()) {
            return self.bare_directory(action, &target);
        }
        let name = target.wanted.entry.name.clone();
        let metadata = (!self.run.options.dry_run).then(|| Box::new(target.wanted.metadata.clone()));
        let is_left =
            matches!(action, Action::Make | Action::SetMetadata) && self.run.is_unplanned_for(&target);
        let standing = match action {
            Action::Make if is_left => Standing::Skipped,
            Action::SetMetadata if is_left => {
                Standing::Present { metadata, differs: self.make_accessible(&target) }
            }
            Action::Make if self.run.options.dry_run => {
                self.run.created(&target);
                Standing::Absent
            }
            Action::Make => match self.make_directory(&target) {
                Ok(()) => {
                    self.run.created(&target);
                    let mut metadata = metadata;
                    if self.gives_nothing() {
                        metadata.iter_mut().for_each(|metadata| metadata.inherits_nothing());
                    }
                    Standing::Present { metadata, differs: true }
                }
                Err(problem) => {
                    self.run.problem(problem);
                    Standing::Skipped
                }
            },
            Action::Skip if !target.existing.is_some_and(|info| info.is_dir()) => {
                let why = if target.existing.is_none() { Spared::IsNew } else { Spared::Exists };
                self.run.spared(|| target.path(), true, why);
                Standing::Skipped
            }
            Action::SetMetadata => {
                self.run.changed_metadata(&target);
                self.make_accessible(&target);
                Standing::Present { metadata, differs: true }
            }
            _ => {
                self.run.unchanged(|| target.path(), &target.wanted.entry);
                Standing::Present { metadata, differs: self.make_accessible(&target) }
            }
        };
        self.run.done(&target);
        self.standings.push((name, standing));
    }

    /// One that only has to be there (`--no-implied-dirs`): what exists stays as it is, what does not is made like any
    /// new directory, and neither is a line.
    fn bare_directory(&mut self, action: Action, target: &Target) {
        let stays = Standing::Present { metadata: None, differs: false };
        let standing = match action {
            // Directories on the way are left as they are: so is what is not even one.
            Action::Make if target.existing.is_some() => {
                let path = target.path();
                self.run.problem(errno(Side::Destination, &path, Operation::Create, Errno::NOTDIR));
                Standing::Skipped
            }
            Action::Make if self.run.options.dry_run => Standing::Absent,
            Action::Make => match self.make_directory(target) {
                Ok(()) => {
                    self.give_default_mode(target);
                    stays
                }
                Err(problem) => {
                    self.run.problem(problem);
                    Standing::Skipped
                }
            },
            Action::Skip if !target.existing.is_some_and(|info| info.is_dir()) => Standing::Skipped,
            _ => stays,
        };
        self.run.done(target);
        self.standings.push((target.name().clone(), standing));
    }

    fn give_default_mode(&self, target: &Target) {
        let held = self.own.dir.as_ref().and_then(|dir| dir.hold(target.name().as_bytes()).ok());
        let mode = 0o777 & !self.run.translation.umask;
        if let Some(Err(error)) = held.map(|held| held.set_mode(mode)) {
            self.run.fail(target, Operation::SetMode, error);
        }
    }

    /// Who is not root needs the right to write in a directory while its content is copied; its own
    /// mode comes back at the end. Returns whether the mode is another one now.
    fn make_accessible(&mut self, target: &Target) -> bool {
        let locked = target.existing.filter(|info| info.raw_mode & 0o700 != 0o700);
        let Some(info) = locked else { return false };
        if self.run.options.dry_run || self.run.translation.ownership.is_root {
            return false;
        }
        let Some(dir) = &self.own.dir else { return false };
        let held = dir.hold(target.wanted.entry.name.as_bytes());
        held.is_ok_and(|held| held.set_mode(info.raw_mode & 0o7777 | 0o700).is_ok())
    }

    fn make_directory(&mut self, target: &Target) -> Result<(), Problem> {
        let name = target.wanted.entry.name.as_bytes();
        let fail = |operation, error| errno(Side::Destination, &target.path(), operation, error);
        let dir = self.own.dir.as_ref().ok_or_else(|| fail(Operation::Create, Errno::NOENT))?;
        if target.existing.is_some() {
            let removed = self.run.retirement.remove(self.run.tree, dir, &self.own.path, target.name());
            removed.map_err(|error| fail(Operation::Remove, error))?;
        }
        dir.make_dir(name).map_err(|error| fail(Operation::Create, error))?;
        if target.existing.is_some() {
            let told = self.run.retirement.replaced(dir, &self.own.path, target.name());
            told.map_err(|error| fail(Operation::PutAside, error))?;
        }
        lock(&self.run.session).touch(self.directory);
        Ok(())
    }

    /// Links and nodes are made in staging and committed like files.
    fn make(&mut self, target: Target) {
        if self.run.options.dry_run {
            self.run.created(&target);
            hard_links::first_is_staged(self.run, &target, None);
            return self.run.done(&target);
        }
        if let Some(staged) = bases::link(self.run, &target) {
            return self.commit_made(target, staged);
        }
        let made = self.run.area(&target).and_then(|area| {
            let staged = area.name();
            let name = staged.name.as_bytes();
            let _ = area.dir.remove_file(name);
            match &target.wanted.entry.kind {
                kind if self.run.translation.stores() => stored::make(&area.dir, name, kind)?,
                Kind::Symlink { target } => area.dir.make_link(name, target)?,
                kind => area.dir.make_node(name, kind)?,
            }
            Ok(staged)
        });
        let staged = match made {
            Ok(staged) => staged,
            Err(error) => return self.fail(&target.wanted.entry, Operation::Create, error),
        };
        let applied = match staged.area.dir.hold(staged.name.as_bytes()) {
            Ok(held) => target.wanted.metadata.apply(&held),
            Err(error) => Err((Operation::Open, error)),
        };
        if let Err((operation, error)) = applied {
            staged.discard();
            return self.fail(&target.wanted.entry, operation, error);
        }
        self.commit_made(target, staged);
    }

    fn commit_made(&mut self, target: Target, staged: Staged) {
        hard_links::first_is_staged(self.run, &target, Some(&staged));
        lock(&self.run.session).hold(self.directory);
        let (target, how) = (Arc::new(target), Placement::Rename);
        self.run.commit(vec![Ready { target, staged, how, bytes: 0, content: sink::Content::default() }]);
    }

    fn transfer(&mut self, mut target: Target) {
        let size = target.wanted.entry.size_bytes();
        let options = self.run.options;
        if options.fuzzy != Fuzzy::Off
            && !options.whole_file
            && target.basis().is_none()
            && size > limits::SMALL_FILE_BYTES
        {
            target.alternate = self.similar(&target).map(Box::new);
        }
        if let Some(candidate) = recognition::seek(self.run, &target) {
            let target = Arc::new(target);
            self.ask_for_hash(&target, Want::Hash, Flight::of_copy(Arc::clone(&target), candidate));
            return;
        }
        let basis_bytes = target.basis().map_or(0, |info| info.size_bytes);
        let kept = self.run.has_kept(&target);
        let worth_a_delta = size.min(basis_bytes) > limits::SMALL_FILE_BYTES && !self.run.options.whole_file
            || kept && size > limits::SMALL_FILE_BYTES
            || self.run.options.inplace && basis_bytes > 0 && size > limits::SMALL_FILE_BYTES;
        if worth_a_delta {
            let mut session = lock(&self.run.session);
            session.hold(self.directory);
            session.reserve(self.list);
            drop(session);
            self.run.task(Task::Delta(Arc::new(target)));
        } else {
            self.asked.whole.push(target);
        }
    }

    fn compare(&mut self, target: Target) {
        let want = basis::hash_to_compare(self.run, &target);
        let target = Arc::new(target);
        let asked = self.ask_for_hash(&target, want, Flight::new(want, Arc::clone(&target)));
        if let (Some(file), Some(kind)) = (asked, want.hash()) {
            self.run.task(Task::Hash(file, kind, target));
        }
    }

    /// Returns the number under which the answer will come.
    fn ask_for_hash(&mut self, target: &Target, want: Want, flight: Flight) -> Option<u32> {
        let mut session = lock(&self.run.session);
        session.hold(self.directory);
        let request = session.request(self.list, target.index, want);
        drop(session);
        let request = request?;
        self.run.expect(request, flight);
        self.asked.requests.push(request);
        Some(request.file)
    }

    fn fail(&mut self, entry: &Entry, operation: Operation, error: Errno) {
        let path = self.own.path.join(&entry.name);
        if entry.is_dir() {
            self.standings.push((entry.name.clone(), Standing::Skipped));
        }
        let problem = match error {
            // The only call that is held to the root by the system alone.
            Errno::XDEV if operation == Operation::Stat => {
                Problem { side: Side::Destination, path, operation, cause: Cause::LeadsOut }
            }
            error => errno(Side::Destination, &path, operation, error),
        };
        self.run.problem(problem);
    }
}

/// How the root stands: it is in no listing, its metadata came with the source's first word.
pub(crate) fn root_standing(
    run: &Run<'_>,
    begin: &protocol::message::Begin,
    made: bool,
) -> Result<Standing<Metadata>, SessionError> {
    let Some(root) = &begin.root else {
        return Ok(Standing::Present { metadata: None, differs: false });
    };
    let cannot = |error| SessionError::io("read the destination directory", error);
    let dir = run.tree.dir(&RelPath::root()).map_err(cannot)?;
    let info = dir.own_info().map_err(cannot)?;
    let mut there = info.entry(root.name.clone(), Vec::new(), LONG_AGO);
    if let Some(there) = &mut there {
        run.translation.show(&dir, b".", &info, there).map_err(cannot)?;
    }
    if let (Some(there), Some(taken)) = (&mut there, run.translation.taken) {
        let held = dir.hold_self();
        there.set_attributes(held.ok().and_then(|held| taken.read(&held).ok()));
    }
    // A directory just made has no mode of its own to keep.
    let mut owners = run.translation.ownership.owners(&begin.names);
    let wanted = run.translation.wanted(root.clone(), there.as_ref().filter(|_| !made), &mut owners);
    let (_, change) = decide(&wanted.entry, there.as_ref(), run.options);
    if made {
        let new = Change { content: Content::Made, new: true, ..Change::default() };
        run.root_item(&wanted.entry, new);
    } else if run.is_unplanned(|| run::updated(RelPath::root(), &wanted.entry, change)) {
        let metadata = Some(Box::new(wanted.metadata));
        return Ok(Standing::Present { metadata, differs: false });
    } else if !change.is_none() {
        run.root_item(&wanted.entry, change);
    } else {
        run.unchanged(RelPath::root, &wanted.entry);
    }
    let metadata = (!run.options.dry_run).then(|| Box::new(wanted.metadata));
    Ok(Standing::Present { metadata, differs: !change.is_none() })
}

/// For entries of this end: how young a time is only matters at the source.
const LONG_AGO: Timestamp = Timestamp { secs: i64::MIN, nanos: 0 };

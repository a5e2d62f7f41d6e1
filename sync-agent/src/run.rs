//! What all threads of a destination's end share, and the small steps that several of them take.

use crate::bases::BaseTrees;
use crate::commit::{Commit, Ready, Unconfirmed};
use crate::error::SessionError;
use crate::hard_links::{self, Links, Shared};
use crate::index::Index;
use crate::link::Outgoing;
use crate::merge::{Extraneous, Merged, OwnListing};
use crate::metadata::{Metadata, Translation};
use crate::monitor::{Monitor, Progress, errno};
use crate::partial::Partials;
use crate::planned::Several;
use crate::receiver::{Flight, Target, Task};
use crate::recognition::Recognition;
use crate::removal::Removals;
use crate::retire::Retirement;
use crate::rules::OwnRules;
use crate::sink;
use crate::staging::{Area, Staged, Staging};
use crate::tree::{Dir, Handle as _, Info, Tree};
use crate::workers::lock;
use crossbeam_channel::{Receiver, Sender, TrySendError, select};
use protocol::arguments::{Places, Relative};
use protocol::bases::{Agreement, BaseKind};
use protocol::destination::{DestinationSession, DirectoryId, ReadyPiece};
use protocol::entry::{Entry, Kind};
use protocol::itemize::{Change, Content, Item, Particulars, Spared};
use protocol::message::{Message, Request, Want};
use protocol::number::ByOwnNumber;
use protocol::options::SyncOptions;
use protocol::path::{Name, RelPath};
use protocol::stats::{Exit, Operation, Problem, Side, Stats, Times};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

pub(crate) struct Run<'r> {
    pub(crate) tree: &'r Tree,
    pub(crate) options: &'r SyncOptions,
    pub(crate) translation: &'r Translation<'r>,
    /// What is kept from deletion.
    pub(crate) rules: OwnRules<'r>,
    pub(crate) outgoing: &'r Outgoing,
    pub(crate) monitor: &'r dyn Monitor,
    pub(crate) progress: &'r Progress,
    pub(crate) index: &'r Index,
    pub(crate) staging: &'r Staging,
    pub(crate) links: Links,
    /// Names that share an inode here, of a comparison.
    pub(crate) shared: Shared,
    pub(crate) bases: &'r BaseTrees,
    pub(crate) recognition: Recognition,
    pub(crate) retirement: &'r Retirement<'r>,
    pub(crate) partials: Option<&'r Partials>,
    /// The name that the one entry of the transfer gets here, if it is another one.
    pub(crate) single_name: Option<Name>,
    pub(crate) session: Mutex<DestinationSession<Metadata>>,
    /// Signalled when a file was answered: there may be room for another signature.
    pub(crate) room: Condvar,
    pub(crate) own_listings: Mutex<ByOwnNumber<OwnListing>>,
    pub(crate) extraneous: Mutex<Vec<Extraneous>>,
    /// Entries that take a directory's place: they wait for its content to go.
    pub(crate) waiting: Mutex<Vec<Ready>>,
    pub(crate) flights: Mutex<ByOwnNumber<Flight>>,
    pub(crate) unconfirmed: Mutex<Vec<Unconfirmed>>,
    pub(crate) stats: Mutex<Stats>,
    /// Where the source's time went, as it told last.
    pub(crate) source_times: Mutex<Times>,
    pub(crate) worst: Mutex<Exit>,
    /// Directories that hold a staging area, kept from completing until it is gone.
    pub(crate) area_homes: Mutex<Vec<DirectoryId>>,
    /// The source arguments name directories themselves, not their contents.
    pub(crate) is_named: bool,
    /// Where the arguments stand.
    pub(crate) places: &'r Places,
    /// Those of them that are not there and whose counterparts are still to be removed.
    pub(crate) missing: Mutex<Vec<RelPath>>,
    /// Directories that links which were kept lead to, by device and inode.
    pub(crate) behind_links: Mutex<HashSet<((u32, u32), u64)>>,
    /// Inodes with several names, for a plan.
    pub(crate) several: Several,
    pub(crate) removals: Removals,
    /// A directory of each file system of the destination, to sync it at the end.
    pub(crate) file_systems: Mutex<HashMap<(u32, u32), Dir>>,
    pub(crate) empty_source: AtomicBool,
    pub(crate) stopped: AtomicBool,
    /// Closed when the session is over.
    pub(crate) stop: Receiver<()>,
    /// A file system of the destination has no more room.
    pub(crate) is_full: AtomicBool,
    pub(crate) merges: Sender<Vec<ReadyPiece<Metadata>>>,
    pub(crate) tasks: Sender<Task>,
    pub(crate) commits: Sender<Commit>,
    /// Wakes the coordinator when nothing is left to receive.
    pub(crate) wake: Sender<()>,
}

/// Pieces handed to a merging thread at once: most are small.
const MERGE_BATCH: usize = 32;

impl Run<'_> {
    /// Pieces were merged.
    pub(crate) fn merged(&self, all: Vec<Merged>) -> Result<(), SessionError> {
        let mut session = lock(&self.session);
        for Merged { directory, piece, standings } in all {
            session.merged(directory, &piece, standings);
        }
        drop(session);
        self.advance()
    }

    /// Numbers requests for whole files, which hold their directories; adds them to `requests`.
    pub(crate) fn request_whole(&self, targets: Vec<Target>, mut requests: Vec<Request>) -> Vec<Request> {
        let mut expected = Vec::with_capacity(targets.len());
        let mut session = lock(&self.session);
        for target in targets {
            session.hold(target.directory);
            if let Some(request) = session.request(target.list, target.index, Want::Whole) {
                expected.push((request.file, Flight::new(request.want, Arc::new(target))));
                requests.push(request);
            }
        }
        drop(session);
        lock(&self.flights).extend(expected);
        requests
    }

    /// Hands on what the session has made possible: pieces to merge, pieces to release, the end.
    pub(crate) fn advance(&self) -> Result<(), SessionError> {
        let mut session = lock(&self.session);
        let mut batch = Vec::new();
        while let Some(ready) = session.next_piece() {
            batch.push(ready);
            if batch.len() == MERGE_BATCH {
                let _ = self.merges.send(std::mem::take(&mut batch));
            }
        }
        if !batch.is_empty() {
            let _ = self.merges.send(batch);
        }
        let released = session.take_released();
        let is_idle = session.is_idle();
        drop(session);
        if !released.is_empty() {
            self.outgoing.say(&Message::Release(released))?;
        }
        if is_idle {
            let _ = self.wake.try_send(());
        }
        Ok(())
    }

    /// From now on answers to `request` are about `flight`.
    pub(crate) fn expect(&self, request: Request, flight: Flight) {
        lock(&self.flights).insert(request.file, flight);
    }

    /// A file needs nothing more from the source; its directory is let go by whoever ends its story.
    pub(crate) fn resolve(&self, file: u32) -> Result<(), SessionError> {
        self.resolve_all(&[file], &[])
    }

    /// As [`Run::resolve`]; the story of what is in `let_go` ends here.
    pub(crate) fn resolve_all(&self, files: &[u32], let_go: &[DirectoryId]) -> Result<(), SessionError> {
        let mut flights = lock(&self.flights);
        files.iter().for_each(|file| {
            flights.remove(file);
        });
        drop(flights);
        let mut session = lock(&self.session);
        let_go.iter().for_each(|&directory| session.let_go(directory));
        files.iter().for_each(|&file| session.resolve(file));
        drop(session);
        self.room.notify_all();
        self.advance()
    }

    /// The file's story here is over.
    pub(crate) fn let_go(&self, directory: DirectoryId) {
        lock(&self.session).let_go(directory);
    }

    pub(crate) fn task(&self, task: Task) {
        let _ = self.tasks.send(task);
    }

    pub(crate) fn commit(&self, ready: Vec<Ready>) {
        if ready.is_empty() {
            return;
        }
        self.will_be_there(ready.iter().map(|ready| &*ready.target));
        // Whoever waits for a committer that is behind must not wait for one that has given up.
        if let Err(TrySendError::Full(ready)) = self.commits.try_send(Commit::Ready(ready)) {
            select! {
                send(self.commits, ready) -> _ => {}
                recv(self.stop) -> _ => {}
            }
        }
    }

    /// The staging area for an entry's file system.
    pub(crate) fn area(&self, target: &Target) -> Result<Arc<Area>, Errno> {
        let info = match target.device {
            Some(device) => device,
            None => self.tree.dir(&target.parent)?.own_info()?.device,
        };
        let (area, opened) = self.staging.area(self.tree, &target.parent, info)?;
        if let Some(home) = opened {
            self.keep_open(&home);
        }
        Ok(area)
    }

    /// Where the content of a file is written: in the scratch directory, if the operator named one and a rename from the
    /// area would take no less copying.
    pub(crate) fn scratch(&self, target: &Target) -> Result<Arc<Area>, Errno> {
        match self.staging.scratch(target.device) {
            Some(scratch) => Ok(scratch),
            None => self.area(target),
        }
    }

    /// What an earlier run left of a file, with its length.
    pub(crate) fn kept(&self, target: &Target) -> Option<(File, u64)> {
        let kept = target.device.and_then(|device| self.staging.kept(device, &target.path()));
        kept.or_else(|| self.partials?.open_part(self, target))
    }

    /// Whether there is anything of that kind.
    pub(crate) fn has_kept(&self, target: &Target) -> bool {
        target.device.is_some_and(|device| self.staging.has_kept(device, &target.path()))
            || self.partials.is_some_and(|partials| partials.open_part(self, target).is_some())
    }

    /// Keeps what was written of a file, for another try or the next run.
    pub(crate) fn keep_part(&self, target: &Target, staged: Staged, length: u64) {
        match self.partials {
            Some(partials) => partials.keep(self, target, staged, length),
            None => staged.keep(length),
        }
    }

    /// Takes over what an earlier run left in a directory that is being merged.
    pub(crate) fn take_over_area(&self, dir: &Dir, path: &RelPath, device: (u32, u32)) {
        match self.staging.take_over(self.tree, path, device) {
            Ok(true) => self.keep_open(path),
            Ok(false) => {
                if dir.lock_alone() == Err(Errno::WOULDBLOCK) {
                    self.monitor.note(&format!("another run is working on {path} of the destination"));
                    self.problem(errno(Side::Destination, path, Operation::List, Errno::BUSY));
                }
            }
            Err(Errno::PERM) => {
                let message = format!(
                    "{path}/.sync-agent-staging at the destination was made by another user, so it is not used; \
                     remove it and run again"
                );
                self.monitor.note(&message);
                self.problem(errno(Side::Destination, path, Operation::List, Errno::PERM));
            }
            Err(error) => self.problem(errno(Side::Destination, path, Operation::List, error)),
        }
    }

    /// A directory that holds a staging area completes only when the area is gone.
    fn keep_open(&self, home: &RelPath) {
        let mut session = lock(&self.session);
        if let Some(directory) = session.directory(home) {
            session.hold(directory);
            session.touch(directory);
            lock(&self.area_homes).push(directory);
        }
    }

    /// The directory's file system is written to disk before the run ends well.
    pub(crate) fn will_sync(&self, dir: &Dir, device: (u32, u32)) {
        let mut file_systems = lock(&self.file_systems);
        if !file_systems.contains_key(&device)
            && let Ok(dir) = dir.try_clone()
        {
            file_systems.insert(device, dir);
        }
    }

    /// Writes everything to disk.
    pub(crate) fn sync(&self) -> Result<(), Errno> {
        lock(&self.file_systems).values().try_for_each(Dir::sync_file_system)
    }

    /// Whether the directory at `path` is there for what is in it alone (`--no-implied-dirs`).
    pub(crate) fn is_bare(&self, path: &RelPath) -> bool {
        self.options.arguments.relative == Relative::WithoutImplied && self.places.implies(path)
    }

    /// Whether a link at `path` may stand for the directory that it points to.
    pub(crate) fn keeps_link(&self, path: &RelPath) -> bool {
        self.options.links.keep_directories || self.is_bare(path)
    }

    /// What a link that was kept leads to is not extraneous.
    pub(crate) fn keep_behind_link(&self, info: &Info) {
        lock(&self.behind_links).insert((info.device, info.inode));
    }

    /// Whether a link that was kept leads to this directory.
    pub(crate) fn is_behind_link(&self, info: &Info) -> bool {
        lock(&self.behind_links).contains(&(info.device, info.inode))
    }

    /// Takes the names in `directory` of source arguments that are not there.
    pub(crate) fn missing_in(&self, directory: &RelPath) -> Vec<Name> {
        if self.places.missing.is_empty() {
            return Vec::new();
        }
        let mut names = Vec::new();
        lock(&self.missing).retain(|path| match path.split_last() {
            Some((parent, name)) if parent == *directory => {
                names.push(name);
                false
            }
            _ => true,
        });
        names
    }

    pub(crate) fn source_is_empty(&self) {
        self.empty_source.store(true, Ordering::Relaxed);
    }

    // What happened, for the operator and the summary.

    pub(crate) fn listed(&self, entries: &[Entry]) {
        let mut stats = lock(&self.stats);
        for entry in entries {
            stats.listed.count(&entry.kind);
            stats.listed_bytes += entry.size_bytes();
            if let Kind::Symlink { target } = &entry.kind {
                stats.listed_target_bytes += target.len() as u64;
            }
        }
    }

    pub(crate) fn problem(&self, problem: Problem) {
        let mut worst = lock(&self.worst);
        *worst = worst.worst(problem.exit());
        drop(worst);
        self.monitor.problem(problem);
    }

    pub(crate) fn fail(&self, target: &Target, operation: Operation, error: Errno) {
        self.problem(errno(Side::Destination, &target.path(), operation, error));
    }

    pub(crate) fn item(&self, item: Item) {
        if self.options.verify {
            let mut worst = lock(&self.worst);
            *worst = worst.worst(Exit::Differs);
        }
        if self.options.itemize {
            self.monitor.item(item);
        }
    }

    /// Tells a comparison of an entry that shares its inode with another file's: it would have to be made anew.
    pub(crate) fn compare_links(&self, path: impl FnOnce() -> RelPath, entry: &Entry, info: &Info) {
        let is_compared = self.options.verify && self.options.preserve.hard_links;
        if is_compared && self.shared.is_wrong(entry, info) {
            let content = if entry.is_file() { Content::Transferred } else { Content::Made };
            self.item(updated(path(), entry, Change { content, ..Change::default() }));
        }
    }

    fn updated(&self, target: &Target) {
        if target.change.is_none() {
            // All of it was here, under another name: as rsync, nothing is said of it.
            return;
        }
        self.item(self.told(target));
    }

    /// What is told of a change that is made, or that a plan is asked for.
    pub(crate) fn told(&self, target: &Target) -> Item {
        let Target { wanted, change, existing, first, .. } = target;
        let entry = &wanted.entry;
        let change = match first {
            Some(_) => Change { content: Content::Linked, value: false, ..*change },
            None => *change,
        };
        let particulars = Particulars { was: self.was(existing.as_ref()), ..Particulars::of(entry) };
        let (path, kind, first) = (target.path(), entry.kind.clone(), first.clone());
        Item::Updated { path, kind, change, particulars, first }
    }

    /// An entry is up to date.
    pub(crate) fn unchanged(&self, path: impl FnOnce() -> RelPath, entry: &Entry) {
        if self.options.telling.unchanged {
            self.monitor.item(updated(path(), entry, Change::default()));
        }
    }

    /// An option leaves an entry alone.
    pub(crate) fn spared(&self, path: impl FnOnce() -> RelPath, is_dir: bool, why: Spared) {
        if self.options.telling.spared {
            self.monitor.item(Item::Spared { path: path(), is_dir, why });
        }
    }

    pub(crate) fn root_item(&self, entry: &Entry, change: Change) {
        let mut stats = lock(&self.stats);
        if change.new {
            stats.created.count(&entry.kind);
        } else {
            stats.metadata_updated += 1;
        }
        drop(stats);
        self.item(updated(RelPath::root(), entry, change));
    }

    /// An entry is up to date, or was dealt with.
    pub(crate) fn done(&self, target: &Target) {
        Progress::add(&self.progress.done_entries, 1);
        Progress::add(&self.progress.done_bytes, target.wanted.entry.size_bytes());
    }

    /// A directory, link or node was made (or would be).
    pub(crate) fn created(&self, target: &Target) {
        let mut stats = lock(&self.stats);
        if target.change.new || target.alternate.is_some() {
            stats.created.count(&target.wanted.entry.kind);
        } else {
            stats.metadata_updated += 1;
        }
        drop(stats);
        self.updated(target);
    }

    /// An entry was made a further name of another one (or would be).
    pub(crate) fn linked(&self, target: &Target) {
        let mut stats = lock(&self.stats);
        if target.change.new {
            stats.created.count(&target.wanted.entry.kind);
        } else {
            stats.metadata_updated += 1;
        }
        drop(stats);
        self.item(self.told(target));
    }

    /// Metadata was set (or will be, or would be).
    pub(crate) fn changed_metadata(&self, target: &Target) {
        lock(&self.stats).metadata_updated += 1;
        self.updated(target);
    }

    /// A file's content was made new (or would be).
    pub(crate) fn transferred(&self, target: &Target, content: &sink::Content) {
        let mut stats = lock(&self.stats);
        if target.change.new {
            stats.created.count(&target.wanted.entry.kind);
        } else {
            stats.files_updated += 1;
        }
        stats.transferred_bytes += target.wanted.entry.size_bytes();
        stats.literal_bytes += content.literal;
        stats.matched_bytes += content.matched;
        drop(stats);
        let entry = &target.wanted.entry;
        let particulars = Particulars {
            literal_bytes: content.literal,
            content: content.hash,
            was: self.was(target.existing.as_ref()),
            ..Particulars::of(entry)
        };
        let (path, kind, change) = (target.path(), entry.kind.clone(), target.change);
        self.item(Item::Updated { path, kind, change, particulars, first: None });
    }

    /// Deals with a file that an alternate base has, as far as nothing has to be made; whether it has to.
    pub(crate) fn takes_from_base(&self, target: &Target) -> bool {
        let agrees = target.alternate.as_ref().map(|alternate| alternate.agrees);
        let is_left_out = self.bases.kind() == BaseKind::Compare && agrees == Some(Agreement::All);
        if !is_left_out && !self.options.dry_run {
            return true;
        }
        self.done(target);
        if !is_left_out {
            self.created(target);
            hard_links::first_is_staged(self, target, None);
            return false;
        }
        self.stays_there(target);
        // A plan has no line of it.
        let stays = self.options.dry_run || self.options.plan.is_some();
        if let Some(existing) = target.existing.filter(|_| !stays) {
            let removed = self.tree.dir(&target.parent).and_then(|dir| match existing.is_dir() {
                // What is in one, nobody has asked about.
                true => self.retirement.remove_dir(self.tree, &dir, &target.parent, target.name(), &existing),
                false => self.retirement.remove(self.tree, &dir, &target.parent, target.name()).map(|_| ()),
            });
            match removed {
                Ok(()) => lock(&self.session).touch(target.directory),
                Err(error) => self.fail(target, Operation::Remove, error),
            }
        }
        false
    }

    /// A dry run comes to a file that would be transferred.
    pub(crate) fn would_transfer(&self, target: &Target) {
        self.transferred(target, &sink::Content::default());
        hard_links::first_is_staged(self, target, None);
        self.done(target);
    }

    /// Sets the metadata of an existing entry that is not a directory.
    pub(crate) fn set_metadata(&self, target: &Target) {
        self.done(target);
        if self.options.dry_run {
            hard_links::first_stays(self, target);
            return self.changed_metadata(target);
        }
        let held = self
            .tree
            .dir(&target.parent)
            .and_then(|dir| dir.hold(target.wanted.entry.name.as_bytes()))
            .map_err(|error| (Operation::Open, error));
        if let Ok(held) = &held
            && self.is_overtaken(target, || held.info())
        {
            return;
        }
        let applied = held.and_then(|held| target.wanted.metadata.apply(&held).map(|()| held));
        match applied {
            Ok(held) => {
                target.existing.iter().for_each(|existing| self.has_set(existing, || held.info()));
                self.changed_metadata(target);
                hard_links::first_stays(self, target);
                self.stays_there(target);
            }
            Err((operation, error)) => self.fail(target, operation, error),
        }
    }
}

/// What is told of an entry of which nothing was transferred.
pub(crate) fn updated(path: RelPath, entry: &Entry, change: Change) -> Item {
    let (kind, particulars) = (entry.kind.clone(), Particulars::of(entry));
    Item::Updated { path, kind, change, particulars, first: None }
}

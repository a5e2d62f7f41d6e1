//! The source's scan: every directory listed once, several at a time, parents before children.
//!
//! Directories wait on a stack, so that the scan goes deep before it goes wide and what waits is
//! bounded by the siblings along one path. What was listed is remembered (name and attributes) until
//! the destination releases it; the window bounds that.

mod sheet;

use crate::attributes::{ReadError, Taken, acl};
use crate::clock::Activity;
use crate::error::SessionError;
use crate::hard_links::Numbers;
use crate::link::Outgoing;
use crate::listed::Wanted;
use crate::monitor::{Monitor, Progress, errno};
use crate::origin::{LookError, Origin};
use crate::owners;
use crate::rules::TreeRules;
use crate::sources::Sources;
use crate::stored::{self, StoredError};
use crate::tree::{self, Dir, Held, Info};
use crate::workers::lock;
use protocol::attributes::{Attributes, is_acl};
use protocol::entry::{Entry, Kind, Timestamp};
use protocol::filter::{Chain, Filter, Side as FilterSide};
use protocol::message::{Begin, Message, Piece, Scanned};
use protocol::number::ByOwnNumber;
use protocol::options::SyncOptions;
use protocol::ownership::Privilege;
use protocol::path::{Name, RelPath};
use protocol::source::SourceSession;
use protocol::stats::{Cause, Operation, Problem, Side};
use rustix::io::Errno;
use sheet::{End, Part, SHEET_BYTES, SHEET_ENTRIES, Sheet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What is remembered of a listed entry until its piece is released.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) name: Name,
    pub(crate) info: Info,
    pub(crate) origin: u16,
    /// It is what a link points to.
    pub(crate) followed: bool,
}

/// What is remembered of a piece.
#[derive(Debug)]
pub(crate) struct ListedPiece {
    pub(crate) directory: Arc<RelPath>,
    pub(crate) entries: Vec<Listed>,
}

/// What the scan shares with the rest of the source's end.
pub(crate) struct Listings {
    pub(crate) session: Mutex<SourceSession>,
    /// Signalled when the window opens or the run ends.
    pub(crate) window: Condvar,
    pub(crate) pieces: Mutex<ByOwnNumber<Arc<ListedPiece>>>,
}

/// The scan of all arguments.
pub(crate) struct Scan<'a> {
    pub(crate) sources: &'a Sources,
    pub(crate) options: &'a SyncOptions,
    pub(crate) listings: &'a Listings,
    pub(crate) outgoing: &'a Outgoing,
    pub(crate) monitor: &'a dyn Monitor,
    pub(crate) progress: &'a Progress,
    names: owners::Names,
    /// Which extended attributes are told of.
    taken: Option<Taken>,
    /// What failed before anything could be said.
    early: Mutex<Option<Problem>>,
    /// The inodes with several names.
    links: Numbers,
    stack: Mutex<Stack>,
    changed: Condvar,
    next_list: AtomicU32,
    listed_entries: AtomicU64,
}

#[derive(Default)]
struct Stack {
    jobs: Vec<Job>,
    /// Threads that may still find directories: they list one, or hold some that were not sent yet.
    working: usize,
    stopped: bool,
}

/// A name in a directory that is to be copied.
struct Found {
    entry: Entry,
    listed: Listed,
    /// The directory to list for it.
    below: Option<Job>,
}

/// How an argument has a directory.
enum Way {
    /// It is listed.
    Listed(Dir),
    /// It is on the way to what was asked for; the one name in it is this.
    Implied(Info),
}

/// A name that could not be looked at; that was reported.
struct Unseen;

/// A directory to list.
pub(crate) struct Job {
    pub(crate) path: RelPath,
    pub(crate) shares: Vec<Share>,
    /// Its device, where one file system is not left.
    pub(crate) device: Option<(u32, u32)>,
    /// A source that may have had this directory too could not be read.
    misses_origin: bool,
    /// Where links are followed: the directories above it.
    above: Option<Arc<Above>>,
}

/// What one source argument gives to a directory.
#[derive(Clone)]
pub(crate) struct Share {
    pub(crate) origin: u16,
    pub(crate) wanted: Wanted,
    /// The rules of the directories above it, if directories have rules.
    pub(crate) chain: Option<Arc<Chain>>,
}

/// A directory of one source argument while it is listed.
struct Opened<'j> {
    share: &'j Share,
    way: Way,
    names: tree::Names,
    /// The rules that count in it.
    chain: Option<Arc<Chain>>,
}

impl Opened<'_> {
    /// The directory's own attributes; of one that is only on the way those of what follows.
    fn own_info(&self) -> Result<Info, Errno> {
        match &self.way {
            Way::Listed(dir) => dir.own_info(),
            Way::Implied(info) => Ok(*info),
        }
    }
}

/// A name to list, and in which of the opened directories it is.
type Candidate<'n> = (&'n [u8], usize);

struct Above {
    device: (u32, u32),
    inode: u64,
    parent: Option<Arc<Above>>,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(
        sources: &'a Sources,
        options: &'a SyncOptions,
        listings: &'a Listings,
        outgoing: &'a Outgoing,
        monitor: &'a dyn Monitor,
        progress: &'a Progress,
    ) -> Scan<'a> {
        let all = (0..u16::MAX).zip(&sources.origins);
        let share =
            |(origin, source): (u16, &Origin)| Share { origin, wanted: source.wanted().clone(), chain: None };
        let (shares, misses_origin) = (all.map(share).collect(), sources.misses_contents);
        let top = Job { path: RelPath::root(), shares, device: None, misses_origin, above: None };
        Scan {
            sources,
            options,
            listings,
            outgoing,
            monitor,
            progress,
            names: owners::Names::default(),
            taken: Taken::new(&options.preserve, told(options.privileges.source)),
            early: Mutex::new(None),
            links: Numbers::default(),
            stack: Mutex::new(Stack { jobs: vec![top], ..Stack::default() }),
            changed: Condvar::new(),
            next_list: AtomicU32::new(0),
            listed_entries: AtomicU64::new(0),
        }
    }

    /// The first message: what the top of the transfer is.
    pub(crate) fn begin(&self) -> Result<Begin, SessionError> {
        let now = tree::now();
        let origins = &self.sources.origins[..];
        let places = self.sources.places.clone();
        let mut begin =
            Begin { root: None, names: protocol::message::OwnerNames::default(), single: false, places };
        if let Some(root) = origins.iter().find_map(Origin::root) {
            let looked = root.and_then(|dir| dir.own_info().map(|info| (dir, info)));
            let (dir, info) = looked.map_err(|error| SessionError::io("read the source directory", error))?;
            let name = Name::new(*b"root").map_err(|_| SessionError::Panic("scan"))?;
            begin.root = info.entry(name, Vec::new(), now);
            if let Some(root) = &mut begin.root
                && self.reads_stored()
                && let Err(error) = stored::show(&dir, b".", &info, root)
            {
                *lock(&self.early) = Some(badly_stored(RelPath::root(), error));
            }
            if let (Some(root), Some(taken)) = (&mut begin.root, self.taken) {
                match attributes(taken, dir.hold_self(), RelPath::root) {
                    Ok(attributes) => root.set_attributes(attributes),
                    Err(problem) => *lock(&self.early) = Some(problem),
                }
            }
            begin.names = self.names.of(begin.root.iter().flat_map(ids));
        }
        // Nothing at all makes no directory either.
        begin.single = origins.is_empty();
        if let [origin] = origins
            && origin.is_single()
        {
            begin.single = !origin.is_directory(self.options.links.followed);
        }
        Ok(begin)
    }

    /// Tells of the arguments that are not copied; the session must have begun.
    pub(crate) fn report_missing(&self) {
        self.sources.skipped.iter().for_each(|what| self.monitor.note(what));
        let problems = self.sources.missing.iter().cloned().chain(lock(&self.early).take());
        problems.for_each(|problem| self.problem(problem));
    }

    /// Works until every directory is listed. Any number of threads may.
    pub(crate) fn work(&self) -> Result<(), SessionError> {
        let mut sheet = Sheet::new(self.options, self.outgoing.state());
        lock(&self.stack).working += 1;
        while let Some(job) = self.next_job(&mut sheet)? {
            self.list(&job, &mut sheet)?;
        }
        Ok(())
    }

    /// Lets every thread return.
    pub(crate) fn stop(&self) {
        lock(&self.stack).stopped = true;
        self.changed.notify_all();
        // Taken, so that no thread is between its look at the window and its wait.
        drop(lock(&self.listings.session));
        self.listings.window.notify_all();
    }

    fn is_stopped(&self) -> bool {
        lock(&self.stack).stopped
    }

    fn next_job(&self, sheet: &mut Sheet) -> Result<Option<Job>, SessionError> {
        let mut stack = lock(&self.stack);
        loop {
            if stack.stopped {
                return Ok(None);
            }
            if let Some(job) = stack.jobs.pop() {
                return Ok(Some(job));
            }
            if !sheet.pieces.is_empty() {
                drop(stack);
                self.send(sheet)?;
                stack = lock(&self.stack);
                continue;
            }
            stack.working -= 1;
            if stack.working == 0 {
                self.changed.notify_all();
                return Ok(None);
            }
            let is_idle = |stack: &mut Stack| stack.jobs.is_empty() && stack.working > 0 && !stack.stopped;
            stack = self.changed.wait_while(stack, is_idle).unwrap_or_else(PoisonError::into_inner);
            if stack.working == 0 {
                return Ok(None);
            }
            stack.working += 1;
        }
    }

    /// Says that the scan is over; to be called when every worker has returned.
    pub(crate) fn finish(&self) -> Result<(), SessionError> {
        if self.is_stopped() {
            return Ok(());
        }
        self.progress.scanned.store(true, Ordering::Release);
        let entries = self.listed_entries.load(Ordering::Relaxed);
        let bytes = self.progress.listed_bytes.load(Ordering::Relaxed);
        self.outgoing.say(&Message::Spent(self.progress.clock.times()))?;
        self.outgoing.say(&Message::Scanned(Scanned { entries, bytes }))
    }

    fn list(&self, job: &Job, sheet: &mut Sheet) -> Result<(), SessionError> {
        let since = Instant::now();
        let directory = Arc::new(job.path.clone());
        let mut misses_origin = job.misses_origin;
        let mut opened = Vec::new();
        for share in job.shares.iter().filter(|share| self.is_entered(share, &job.path)) {
            match self.open(job, share, sheet) {
                Ok((way, names)) => {
                    let chain = match &way {
                        Way::Listed(dir) => self.chain(share, dir, &job.path)?,
                        Way::Implied(_) => share.chain.clone(),
                    };
                    opened.push(Opened { share, way, names, chain });
                }
                Err(error) => {
                    misses_origin = true;
                    self.problem(errno(Side::Source, &job.path, Operation::List, error));
                }
            }
        }
        let mut names: Vec<Candidate<'_>> = Vec::new();
        for (position, directory) in opened.iter().enumerate() {
            names.extend(directory.names.iter().map(|name| (name, position)));
        }
        if opened.len() > 1 {
            names.sort();
        }
        let above = self.above(job, &opened);
        let mut unseen = misses_origin;
        let mut part = Part::with_room(names.len());
        let mut jobs = Vec::new();
        let mut rest = &names[..];
        while let Some(&(name, _)) = rest.first() {
            let same = rest.iter().take_while(|(other, _)| *other == name).count();
            let (candidates, after) = rest.split_at(same);
            rest = after;
            match self.entry(job, name, candidates, &opened, above.as_ref()) {
                Ok(Some(Found { below: Some(below), .. }))
                    if self.options.prune_empty_dirs && self.is_prunable(&below)? => {}
                Ok(Some(Found { entry, listed, below })) => {
                    part.push(entry, listed);
                    if let Some(below) = below {
                        jobs.push(Job { misses_origin, ..below });
                    }
                }
                Ok(None) => {}
                // It is there: what the destination has of it is not extraneous.
                Err(Unseen) => unseen = true,
            }
            if part.is_full() && !rest.is_empty() {
                let full = std::mem::replace(&mut part, Part::with_room(rest.len()));
                self.add(sheet, &directory, full, &mut jobs, End::MoreFollows)?;
            }
        }
        self.progress.clock.add(Activity::Scan, since);
        // A mount point that is not entered is listed as empty, but nothing is known of its content.
        let known = job.shares.iter().any(|share| self.lists_all(share, &job.path));
        let complete = known && (!unseen || self.options.delete.ignore_errors);
        let end = if complete { End::Complete } else { End::Incomplete };
        self.add(sheet, &directory, part, &mut jobs, end)
    }

    /// Whether an argument gives anything to a directory.
    fn is_entered(&self, share: &Share, path: &RelPath) -> bool {
        share.wanted.is_anything() || self.origin(share).implied(path).is_some()
    }

    fn origin(&self, share: &Share) -> &'a Origin {
        &self.sources.origins[usize::from(share.origin)]
    }

    fn open(&self, job: &Job, share: &Share, sheet: &mut Sheet) -> Result<(Way, tree::Names), Errno> {
        let at = usize::from(share.origin);
        let origin = &self.sources.origins[at];
        if let Some((name, info)) = origin.implied(&job.path) {
            let names = tree::Names::of(std::iter::once(name.as_bytes()));
            return Ok((Way::Implied(*info), names));
        }
        sheet.walks.resize_with(self.sources.origins.len(), tree::Walk::default);
        let dir = origin.dir(&mut sheet.walks[at], &job.path)?;
        if self.options.reading.noatime {
            dir.leave_atime();
        }
        let names = share.wanted.names(&dir)?;
        Ok((Way::Listed(dir), names))
    }

    /// Whether all that an argument has of a directory is listed, so that what is not is extraneous.
    fn lists_all(&self, share: &Share, directory: &RelPath) -> bool {
        share.wanted.is_content() && self.origin(share).implied(directory).is_none()
    }

    fn rules(&self, share: &Share) -> TreeRules<'a> {
        let place = self.origin(share).place();
        TreeRules { rules: &self.options.filter, side: FilterSide::Sender, place }
    }

    /// The question about entries of a directory with this chain.
    pub(crate) fn filter<'c>(&self, share: &Share, chain: Option<&'c Arc<Chain>>) -> Filter<'c>
    where
        'a: 'c,
    {
        let rules: TreeRules<'c> = self.rules(share);
        rules.filter(chain)
    }

    /// The rules that count in a directory. Those of directories that are only on the way to a name don't.
    pub(crate) fn chain(
        &self,
        share: &Share,
        dir: &Dir,
        path: &RelPath,
    ) -> Result<Option<Arc<Chain>>, SessionError> {
        if !share.wanted.is_content() {
            return Ok(share.chain.clone());
        }
        self.rules(share).enter(share.chain.as_ref(), self.origin(share).tree(), dir, path)
    }

    /// Whether a directory is left out because nothing would be in it.
    fn is_prunable(&self, job: &Job) -> Result<bool, SessionError> {
        let is_kept = job.shares.first().is_some_and(|share| self.is_protected(share, &job.path));
        Ok(!is_kept && !self.holds_anything(job)?)
    }

    fn above(&self, job: &Job, opened: &[Opened<'_>]) -> Option<Arc<Above>> {
        if !self.options.links.followed.any() {
            return None;
        }
        let first = opened.first()?;
        // One of which only names are listed is passed on the way to them: they may well lead to it.
        if matches!(first.way, Way::Implied(_)) || !first.share.wanted.is_content() {
            return job.above.clone();
        }
        let info = first.own_info().ok()?;
        let parent = job.above.clone();
        Some(Arc::new(Above { device: info.device, inode: info.inode, parent }))
    }

    /// What one name is; none if it is not to be copied.
    fn entry(
        &self,
        job: &Job,
        name: &[u8],
        candidates: &[Candidate<'_>],
        opened: &[Opened<'_>],
        above: Option<&Arc<Above>>,
    ) -> Result<Option<Found>, Unseen> {
        let name = Name::new(name).map_err(|_| Unseen)?;
        let path = || job.path.join(&name);
        if !job.path.has_room_for(&name) {
            self.problem(errno(Side::Source, &job.path, Operation::List, Errno::NAMETOOLONG));
            return Err(Unseen);
        }
        // The first argument that has it and does not leave it out gives it.
        let ordered;
        let mut candidates = candidates;
        if candidates.len() > 1 {
            ordered = self.directories_first(&job.path, &name, candidates, opened);
            candidates = &ordered;
        }
        let (share, dir, info, followed) = loop {
            let Some((&(_, position), others)) = candidates.split_first() else { return Ok(None) };
            let candidate = &opened[position];
            let dir = match &candidate.way {
                Way::Listed(dir) => dir,
                Way::Implied(info) => {
                    let Some(entry) = info.entry(name.clone(), Vec::new(), now_for(info)) else {
                        return Ok(None);
                    };
                    let below = self.below(job, &path(), info, candidates, opened, above).ok_or(Unseen)?;
                    let origin = candidate.share.origin;
                    let listed = Listed { name, info: *info, origin, followed: false };
                    return Ok(Some(Found { entry, listed, below: Some(below) }));
                }
            };
            match self.info(dir, candidate.share.origin, &job.path, &name) {
                Ok((info, _))
                    if !self.options.filter.is_empty()
                        && self.is_excluded(candidate, &path(), name.as_bytes(), info.is_dir()) => {}
                Ok((info, followed)) => break (candidate.share, dir, info, followed),
                Err(problem) => {
                    let is_gone = problem.cause == Cause::Vanished;
                    self.problem(problem);
                    return if is_gone { Ok(None) } else { Err(Unseen) };
                }
            }
            candidates = others;
        };
        // What the options don't copy is listed all the same: it exists, so its name is not extraneous.
        if info.is_dir() && !(self.options.recursive || self.options.directories) {
            return Ok(None);
        }
        let target = if info.is_link() {
            match dir.read_link(name.as_bytes()) {
                Ok(target) => self.options.links.munging.at_source(target),
                Err(error) => {
                    self.problem(errno(Side::Source, &path(), Operation::ReadLink, error));
                    return Err(Unseen);
                }
            }
        } else {
            Vec::new()
        };
        let Some(mut entry) = info.entry(name.clone(), target, now_for(&info)) else { return Ok(None) };
        if self.reads_stored()
            && !followed
            && let Err(error) = stored::show(dir, name.as_bytes(), &info, &mut entry)
        {
            self.problem(badly_stored(path(), error));
            return Err(Unseen);
        }
        if let Kind::Symlink { target } = &mut entry.kind
            && !info.is_link()
        {
            *target = self.options.links.munging.at_source(std::mem::take(target));
        }
        if self.options.reading.devices && info.is_device() {
            let origin = self.origin(share);
            let device =
                if followed { origin.open_followed(&path()) } else { dir.open_file(name.as_bytes()) };
            // One that can't be opened is told of when it is read.
            entry.kind = Kind::File { size_bytes: device.map_or(0, |device| tree::device_bytes(&device)) };
        }
        if let Some(taken) = self.taken {
            let origin = self.origin(share);
            let held = if followed { origin.hold_followed(&path()) } else { dir.hold(name.as_bytes()) };
            match attributes(taken, held, path) {
                Ok(attributes) => entry.set_attributes(attributes),
                Err(problem) => self.problem(problem),
            }
        }
        self.tell_more(&mut entry, &info);
        let below = if entry.is_dir() {
            Some(self.below(job, &path(), &info, candidates, opened, above).ok_or(Unseen)?)
        } else {
            None
        };
        Ok(Some(Found { entry, listed: Listed { name, info, origin: share.origin, followed }, below }))
    }

    /// Where several arguments have a name, directories come before what is none: otherwise their content would be left out.
    fn directories_first<'c>(
        &self,
        directory: &RelPath,
        name: &Name,
        candidates: &[Candidate<'c>],
        opened: &[Opened<'_>],
    ) -> Vec<Candidate<'c>> {
        let is_dir = |&(_, position): &Candidate<'_>| match &opened[position].way {
            Way::Implied(_) => true,
            Way::Listed(dir) => {
                let info = self.info(dir, opened[position].share.origin, directory, name);
                info.is_ok_and(|(info, _)| info.is_dir())
            }
        };
        let mut ordered = candidates.to_vec();
        ordered.sort_by_cached_key(|candidate| !is_dir(candidate));
        ordered
    }

    /// Whether the tree was written by `--fake-super`.
    fn reads_stored(&self) -> bool {
        self.options.privileges.source == Privilege::Stored
    }

    /// What attributes alone can tell, where it is asked for.
    fn tell_more(&self, entry: &mut Entry, info: &Info) {
        let keep = &self.options.preserve;
        if keep.hard_links
            && let Some(link) = self.links.of(info)
        {
            entry.extra.get_or_insert_default().link = Some(link);
        }
        if keep.atimes && !info.is_dir() && !info.is_link() {
            entry.extra.get_or_insert_default().atime = Some(info.atime);
        }
    }

    pub(crate) fn info(
        &self,
        dir: &Dir,
        origin: u16,
        directory: &RelPath,
        name: &Name,
    ) -> Result<(Info, bool), Problem> {
        let path = || directory.join(name);
        let fail = |error| match error {
            Errno::NOENT => Problem {
                side: Side::Source,
                path: path(),
                operation: Operation::Stat,
                cause: Cause::Vanished,
            },
            error => errno(Side::Source, &path(), Operation::Stat, error),
        };
        let origin = &self.sources.origins[usize::from(origin)];
        origin.look(dir, directory, name, self.options.links.followed).map_err(|error| match error {
            LookError::Errno(error) => fail(error),
            LookError::Dangling => Problem {
                side: Side::Source,
                path: path(),
                operation: Operation::Stat,
                cause: Cause::DanglingLink,
            },
        })
    }

    /// What somebody named was asked about before.
    fn is_excluded(&self, opened: &Opened<'_>, path: &RelPath, name: &[u8], is_dir: bool) -> bool {
        !opened.share.wanted.is_named(name)
            && self.filter(opened.share, opened.chain.as_ref()).excludes(path.as_bytes(), is_dir)
    }

    /// The job for a directory just found; none where following links came back to where it was.
    fn below(
        &self,
        job: &Job,
        path: &RelPath,
        info: &Info,
        candidates: &[Candidate<'_>],
        opened: &[Opened<'_>],
        above: Option<&Arc<Above>>,
    ) -> Option<Job> {
        let mut next = above;
        while let Some(ancestor) = next {
            if (ancestor.device, ancestor.inode) == (info.device, info.inode) {
                let (side, operation) = (Side::Source, Operation::List);
                self.problem(Problem { side, path: path.clone(), operation, cause: Cause::LinkLoop });
                return None;
            }
            next = ancestor.parent.as_ref();
        }
        let is_dir = |&&(name, position): &&Candidate<'_>| {
            let other = &opened[position];
            match &other.way {
                Way::Implied(_) => true,
                Way::Listed(dir) => {
                    let is_dir = dir.info(name).is_ok_and(|info| info.is_dir());
                    is_dir && !self.is_excluded(other, path, name, true)
                }
            }
        };
        let share = |&(name, position): &Candidate<'_>| {
            let Opened { share, way, chain, .. } = &opened[position];
            let wanted = match way {
                Way::Listed(_) => share.wanted.below(name),
                Way::Implied(_) => share.wanted.clone(),
            };
            Share { origin: share.origin, wanted, chain: chain.clone() }
        };
        let shares = candidates[..1].iter().chain(candidates[1..].iter().filter(is_dir)).map(share);
        let mut shares: Vec<Share> = shares.collect();
        let device = self.device(job, path, info, &shares, opened);
        if device.is_some_and(|device| device != info.device) {
            shares.clear();
        }
        Some(Job { path: path.clone(), shares, device, misses_origin: false, above: above.cloned() })
    }

    /// The file system that is not left below `path`, if one is not: that of the argument.
    fn device(
        &self,
        job: &Job,
        path: &RelPath,
        info: &Info,
        shares: &[Share],
        opened: &[Opened<'_>],
    ) -> Option<(u32, u32)> {
        if !self.options.one_file_system || job.device.is_some() {
            return job.device;
        }
        let origin = self.origin(shares.first()?);
        if origin.implied(&job.path).is_some() {
            return None;
        }
        let is_argument = origin.asked() == *path;
        if is_argument { Some(info.device) } else { opened.first()?.own_info().ok().map(|info| info.device) }
    }

    fn add(
        &self,
        sheet: &mut Sheet,
        directory: &Arc<RelPath>,
        part: Part,
        jobs: &mut Vec<Job>,
        end: End,
    ) -> Result<(), SessionError> {
        let keep = &self.options.preserve;
        let names = if keep.numeric_ids || !(keep.owner || keep.group || keep.acls) {
            protocol::message::OwnerNames::default()
        } else {
            self.names.of(part.entries.iter().flat_map(ids))
        };
        Progress::add(&self.progress.listed_entries, part.entries.len() as u64);
        Progress::add(&self.progress.listed_bytes, part.entries.iter().map(Entry::size_bytes).sum());
        let list = self.next_list.fetch_add(1, Ordering::Relaxed);
        let part_bytes = part.bytes;
        let piece = Piece {
            list,
            directory: RelPath::clone(directory),
            last: end != End::MoreFollows,
            complete: end != End::Incomplete,
            names,
            entries: part.entries,
        };
        self.listed_entries.fetch_add(piece.entries.len() as u64, Ordering::Relaxed);
        let listed = ListedPiece { directory: Arc::clone(directory), entries: part.listed };
        lock(&self.listings.pieces).insert(list, Arc::new(listed));
        // One look at the window and its use: two threads must not both take the last place.
        self.wait_for_window(sheet, piece.weight())?.announce(&piece);
        sheet.entries += piece.entries.len() + 1;
        sheet.bytes += part_bytes + directory.as_bytes().len();
        sheet.pieces.push(piece);
        sheet.jobs.append(jobs);
        if sheet.entries >= SHEET_ENTRIES || sheet.bytes >= SHEET_BYTES {
            self.send(sheet)?;
        }
        Ok(())
    }

    /// The session, with room in the window for a piece of this weight.
    fn wait_for_window(
        &self,
        sheet: &mut Sheet,
        weight: usize,
    ) -> Result<MutexGuard<'a, SourceSession>, SessionError> {
        let listings = self.listings;
        let mut session = lock(&listings.session);
        while !session.window_has_room_for(weight) && !self.is_stopped() {
            if sheet.pieces.is_empty() {
                let wait = || listings.window.wait(session).unwrap_or_else(PoisonError::into_inner);
                session = self.progress.clock.time(Activity::Wait, wait);
            } else {
                drop(session);
                self.send(sheet)?;
                session = lock(&listings.session);
            }
        }
        Ok(session)
    }

    fn send(&self, sheet: &mut Sheet) -> Result<(), SessionError> {
        (sheet.entries, sheet.bytes) = (0, 0);
        let frame = Message::List(std::mem::take(&mut sheet.pieces)).encode();
        let frame = self.progress.clock.time(Activity::Compress, || sheet.packer.pack(frame));
        self.progress.clock.time(Activity::Send, || self.outgoing.send(frame))?;
        if !sheet.jobs.is_empty() {
            // The first in name order is listed first.
            lock(&self.stack).jobs.extend(sheet.jobs.drain(..).rev());
            self.changed.notify_all();
        }
        Ok(())
    }

    fn problem(&self, problem: Problem) {
        self.monitor.problem(problem);
    }
}

/// An entry's extended attributes; none where it is gone.
fn attributes(
    taken: Taken,
    held: Result<Held, Errno>,
    path: impl Fn() -> RelPath,
) -> Result<Option<Arc<Attributes>>, Problem> {
    let cause = match held.map_err(ReadError::Errno).and_then(|held| taken.read(&held)) {
        Ok(attributes) => return Ok(Some(attributes)),
        // It is missed when it is asked for.
        Err(ReadError::Errno(Errno::NOENT)) => return Ok(None),
        Err(ReadError::Errno(error)) => Cause::Errno(error.raw_os_error()),
        Err(ReadError::TooMany) => Cause::TooManyAttributes,
    };
    let (side, operation) = (Side::Source, Operation::ReadAttributes);
    Err(Problem { side, path: path(), operation, cause })
}

/// A source tells what it may read; what of it is set is the destination's to say.
fn told(privilege: Privilege) -> Privilege {
    if privilege == Privilege::Stored { privilege } else { Privilege::OwnUsers }
}

/// What `--fake-super` kept of an entry can't be had.
fn badly_stored(path: RelPath, error: StoredError) -> Problem {
    let cause = match error {
        StoredError::Errno(error) => Cause::Errno(error.raw_os_error()),
        StoredError::Form => Cause::StoredBadly,
    };
    Problem { side: Side::Source, path, operation: Operation::ReadAttributes, cause }
}

/// The users and groups that an entry mentions, in pairs; 0 is nobody that needs a name.
fn ids(entry: &Entry) -> impl Iterator<Item = (u32, u32)> {
    let attributes = entry.attributes().into_iter().flat_map(|attributes| attributes.iter());
    let named = attributes.filter(|(name, _)| is_acl(name)).flat_map(|(_, acl)| acl::named(acl));
    let named = named.map(|who| match who {
        acl::Named::User(id) => (id, 0),
        acl::Named::Group(id) => (0, id),
    });
    std::iter::once((entry.uid, entry.gid)).chain(named)
}

/// The clock is only asked for files: a young time matters for content alone.
fn now_for(info: &Info) -> Timestamp {
    if info.is_file() { tree::file_clock() } else { Timestamp { secs: i64::MIN, nanos: 0 } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link;

    struct Silent;

    impl Monitor for Silent {
        fn item(&self, _: protocol::itemize::Item) {}
        fn problem(&self, _: Problem) {}
        fn made_root(&self, _: &[u8]) {}
        fn note(&self, _: &str) {}
    }

    #[test]
    fn a_scanner_waits_for_directories_that_another_one_has_not_sent() {
        let root = tempfile::tempdir().unwrap();
        ["a", "b"].iter().for_each(|name| std::fs::create_dir(root.path().join(name)).unwrap());
        let options = SyncOptions { recursive: true, ..SyncOptions::default() };
        let argument = format!("{}/", root.path().display()).into_bytes();
        let sources = Sources::open(None, &[argument], &options).unwrap();
        let session = Mutex::new(SourceSession::default());
        let listings = Listings { session, window: Condvar::new(), pieces: Mutex::default() };
        let (link, _peer) = link::in_process();
        let progress = Progress::default();
        let scan = &Scan::new(&sources, &options, &listings, &link.outgoing, &Silent, &progress);
        let (mut first, mut second) =
            (Sheet::new(&options, link.outgoing.state()), Sheet::new(&options, link.outgoing.state()));
        lock(&scan.stack).working = 2;
        let top = scan.next_job(&mut first).unwrap().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| scan.next_job(&mut second).unwrap().is_some());
            while lock(&scan.stack).working == 2 {
                std::thread::yield_now();
            }
            scan.list(&top, &mut first).unwrap();
            assert!(lock(&scan.stack).jobs.is_empty(), "not sent yet");
            assert!(scan.next_job(&mut first).unwrap().is_some());
            assert!(waiting.join().unwrap(), "one directory for each");
        });
    }
}

//! The source's scan: every directory listed once, several at a time, parents before children.
//!
//! Directories wait on a stack, so that the scan goes deep before it goes wide and what waits is
//! bounded by the siblings along one path. What was listed is remembered (name and attributes) until
//! the destination releases it; the window bounds that.

use crate::attributes::{ReadError, Taken};
use crate::clock::Activity;
use crate::error::SessionError;
use crate::link::{LinkState, Outgoing};
use crate::listed::{Rest, Wanted};
use crate::monitor::{Monitor, Progress, errno};
use crate::owners;
use crate::packer::Packer;
use crate::rules::{Place, TreeRules};
use crate::tree::{self, Dir, Follow, Held, Info, Tree};
use crate::workers::lock;
use protocol::attributes::Attributes;
use protocol::entry::{Entry, Kind, Timestamp};
use protocol::filter::{Chain, Filter, Side as FilterSide};
use protocol::limits;
use protocol::message::{Begin, Message, Piece, Scanned};
use protocol::number::ByOwnNumber;
use protocol::options::SyncOptions;
use protocol::path::{Name, RelPath};
use protocol::source::SourceSession;
use protocol::stats::{Cause, Exit, Operation, Problem, Side};
use rustix::io::Errno;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// All source arguments of a run.
#[derive(Debug)]
pub struct Sources {
    /// Those that could be opened and are copied.
    pub(crate) origins: Vec<Origin>,
    /// Directories among them, where the run does not descend.
    skipped: Vec<String>,
    /// What to say of the others.
    missing: Vec<Problem>,
    /// One of the others stood for its contents: nothing is known to be extraneous anywhere.
    misses_contents: bool,
}

impl Sources {
    /// Opens the source arguments; beneath `root`, if given. One that can't be opened is reported when the
    /// run begins, as long as another one can.
    ///
    /// # Errors
    /// Says which one can't be opened, if none can.
    pub fn open(
        root: Option<&Dir>,
        arguments: &[Vec<u8>],
        options: &SyncOptions,
    ) -> Result<Sources, SessionError> {
        let mut sources = Sources::none();
        if u16::try_from(arguments.len()).is_err() {
            let message = "more than 65,535 sources; name the directories that they are in";
            return Err(SessionError::refused(Exit::Usage, message));
        }
        let mut first = None;
        let mut is_any_left_out = false;
        for argument in arguments {
            match Origin::open(root, argument, options) {
                Ok(origin) if !options.recursive && origin.is_directory(options) => {
                    let name = origin.only.as_ref().map_or(&b"."[..], Name::as_bytes);
                    sources.skipped.push(format!("skipping directory {}", protocol::path::escaped(name)));
                }
                Ok(origin) if origin.is_excluded(options) => is_any_left_out = true,
                Ok(origin) => sources.origins.push(origin),
                Err(OpenError::Refused(error)) => return Err(error),
                Err(OpenError::Errno(cause)) => {
                    let name = split_argument(argument).ok().and_then(|(_, name)| name);
                    sources.misses_contents |= name.is_none();
                    let path = beneath(argument).unwrap_or_default();
                    sources.missing.push(errno(Side::Source, &path, Operation::Open, cause));
                    first.get_or_insert((argument, cause));
                }
            }
        }
        match first {
            Some((argument, cause))
                if sources.origins.is_empty() && sources.skipped.is_empty() && !is_any_left_out =>
            {
                Err(cannot_open(argument, cause))
            }
            _ => Ok(sources),
        }
    }

    /// Nothing yet.
    pub(crate) fn none() -> Sources {
        Sources { origins: Vec::new(), skipped: Vec::new(), missing: Vec::new(), misses_contents: false }
    }

    /// Something that was named is not there; others are copied.
    pub(crate) fn miss(&mut self, problem: Problem) {
        self.missing.push(problem);
    }
}

/// Why a source argument is not opened.
enum OpenError {
    /// It is not there, or not to be read: others may be.
    Errno(Errno),
    /// It is not allowed.
    Refused(SessionError),
}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> OpenError {
        OpenError::Errno(errno)
    }
}

/// One source argument, opened.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The tree; paths below it are paths of the transfer.
    pub(crate) tree: Tree,
    /// The argument names this entry of the tree's root; none: what is in the root, or what a list names.
    pub(crate) only: Option<Name>,
    /// What is copied of the root.
    pub(crate) wanted: Wanted,
    /// Where it is.
    pub(crate) place: Place,
}

impl Origin {
    /// Opens a source argument: with a trailing slash its contents, without one the thing itself.
    /// Beneath `root`, if given, and then the argument is relative to it.
    fn open(root: Option<&Dir>, argument: &[u8], options: &SyncOptions) -> Result<Origin, OpenError> {
        let refused = |why: &str| {
            let shown = protocol::path::escaped(argument);
            OpenError::Refused(SessionError::refused(Exit::Selection, format!("{shown:?} {why}")))
        };
        let (directory, only) = split_argument(argument).map_err(|why| refused(&why.to_string()))?;
        if argument.split(|&byte| byte == b'/').any(|part| part == tree::STAGING_NAME) {
            return Err(refused("holds what is not complete yet: it can't be a source"));
        }
        let follow = if options.copy_links { Follow::Anywhere } else { Follow::Never };
        let tree = match root {
            None => Tree::open(tree::path_of(&directory), follow),
            Some(root) => {
                let path = beneath(&directory)
                    .ok_or_else(|| refused("leads out of the directory that this agent is held to"))?;
                Tree::open_beneath(root, &path, follow)
            }
        }?;
        if let Some(name) = &only {
            let path = RelPath::root().join(name);
            let there = tree.dir(&RelPath::root())?.info(name.as_bytes());
            if options.copy_links { tree.info_followed(&path).or(there) } else { there }?;
        }
        let rest = if options.recursive { Rest::Everything } else { Rest::Nothing };
        let wanted = match &only {
            Some(name) => Wanted::only(name.clone(), rest),
            None => Wanted::rest(rest),
        };
        let place = Place::new(&directory, root)?;
        Ok(Origin { tree, only, wanted, place })
    }

    /// Whether the filter leaves out what the argument names.
    fn is_excluded(&self, options: &SyncOptions) -> bool {
        let Some(name) = self.only.as_ref().filter(|_| !options.filter.is_empty()) else { return false };
        let rules = TreeRules { rules: &options.filter, side: FilterSide::Sender, place: &self.place };
        rules.filter(None).excludes(name.as_bytes(), self.is_directory(options))
    }

    fn is_directory(&self, options: &SyncOptions) -> bool {
        let Some(name) = &self.only else { return true };
        let followed = || self.tree.info_followed(&RelPath::root().join(name));
        let own = || self.tree.dir(&RelPath::root()).and_then(|dir| dir.info(name.as_bytes()));
        let info = if options.copy_links { followed() } else { own() };
        info.is_ok_and(|info| info.is_dir())
    }
}

/// A path relative to an agent's root, as a type; none where it would lead out.
pub(crate) fn beneath(path: &[u8]) -> Option<RelPath> {
    let parts = path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    RelPath::new(parts.collect::<Vec<_>>().join(&b'/')).ok()
}

fn cannot_open(argument: &[u8], cause: Errno) -> SessionError {
    let shown = protocol::path::escaped(argument);
    let is_pattern = cause == Errno::NOENT && argument.iter().any(|byte| b"*?[".contains(byte));
    let hint = if is_pattern {
        "; wildcards are not expanded here (rsync leaves that to the shell there): name the directory, and choose with \
         --include and --exclude"
    } else {
        ""
    };
    let cause = std::io::Error::from(cause);
    SessionError::refused(Exit::Partial, format!("cannot open the source {shown:?}: {cause}{hint}"))
}

/// The directory to open and the one name to take of it.
fn split_argument(argument: &[u8]) -> Result<(Vec<u8>, Option<Name>), protocol::path::PathError> {
    let or_here = |path: &[u8]| if path.is_empty() { b".".to_vec() } else { path.to_vec() };
    let whole = argument.is_empty()
        || argument.ends_with(b"/")
        || matches!(argument, b"." | b"..")
        || argument.ends_with(b"/.")
        || argument.ends_with(b"/..");
    if whole {
        return Ok((or_here(argument), None));
    }
    let cut = argument.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
    let name = Name::new(&argument[cut..])?;
    Ok((or_here(&argument[..cut]), Some(name)))
}

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
    dir: Dir,
    names: tree::Names,
    /// The rules that count in it.
    chain: Option<Arc<Chain>>,
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
            |(origin, source): (u16, &Origin)| Share { origin, wanted: source.wanted.clone(), chain: None };
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
            taken: Taken::new(&options.preserve),
            early: Mutex::new(None),
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
        let mut begin = Begin { root: None, names: protocol::message::OwnerNames::default(), single: false };
        if let Some(origin) = origins.iter().find(|origin| origin.wanted.is_content()) {
            let info = origin.tree.dir(&RelPath::root()).and_then(|dir| dir.own_info());
            let info = info.map_err(|error| SessionError::io("read the source directory", error))?;
            begin.names = self.names.of([(info.uid, info.gid)].into_iter());
            let name = Name::new(*b"root").map_err(|_| SessionError::Panic("scan"))?;
            begin.root = info.entry(name, Vec::new(), now);
            if let (Some(root), Some(taken)) = (&mut begin.root, self.taken) {
                let held = origin.tree.dir(&RelPath::root()).and_then(|dir| dir.hold_self());
                match attributes(taken, held, RelPath::root) {
                    Ok(attributes) => root.set_attributes(attributes),
                    Err(problem) => *lock(&self.early) = Some(problem),
                }
            }
        }
        // Nothing at all makes no directory either.
        begin.single = origins.is_empty();
        if let [Origin { tree, only: Some(name), .. }] = origins {
            let dir = tree.dir(&RelPath::root());
            let info = if self.options.copy_links {
                tree.info_followed(&RelPath::root().join(name))
            } else {
                dir.and_then(|dir| dir.info(name.as_bytes()))
            };
            begin.single = info.is_ok_and(|info| !info.is_dir());
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
        // A mount point that is not entered is listed as empty, but nothing is known of its content.
        let mut complete = job.shares.iter().any(|share| share.wanted.is_content()) && !job.misses_origin;
        let mut opened = Vec::new();
        for share in &job.shares {
            match self.open(job, share, sheet) {
                Ok((dir, names)) => {
                    let chain = self.chain(share, &dir, &job.path)?;
                    opened.push(Opened { share, dir, names, chain });
                }
                Err(error) => {
                    complete = false;
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
                        let misses_origin = job.misses_origin || opened.len() < job.shares.len();
                        jobs.push(Job { misses_origin, ..below });
                    }
                }
                Ok(None) => {}
                // It is there: what the destination has of it is not extraneous.
                Err(Unseen) => complete = false,
            }
            if part.is_full() && !rest.is_empty() {
                let full = std::mem::replace(&mut part, Part::with_room(rest.len()));
                self.add(sheet, &directory, full, &mut jobs, End::MoreFollows)?;
            }
        }
        self.progress.clock.add(Activity::Scan, since);
        let end = if complete { End::Complete } else { End::Incomplete };
        self.add(sheet, &directory, part, &mut jobs, end)
    }

    fn open(&self, job: &Job, share: &Share, sheet: &mut Sheet) -> Result<(Dir, tree::Names), Errno> {
        let at = usize::from(share.origin);
        let origin = &self.sources.origins[at];
        sheet.walks.resize_with(self.sources.origins.len(), tree::Walk::default);
        let dir = sheet.walks[at].dir(&origin.tree, &job.path)?;
        let names = share.wanted.names(&dir)?;
        Ok((dir, names))
    }

    fn rules(&self, share: &Share) -> TreeRules<'a> {
        let place = &self.sources.origins[usize::from(share.origin)].place;
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
        let tree = &self.sources.origins[usize::from(share.origin)].tree;
        self.rules(share).enter(share.chain.as_ref(), tree, dir, path)
    }

    /// Whether a directory is left out because nothing would be in it.
    fn is_prunable(&self, job: &Job) -> Result<bool, SessionError> {
        let is_kept = job.shares.first().is_some_and(|share| self.is_protected(share, &job.path));
        Ok(!is_kept && !self.holds_anything(job)?)
    }

    fn above(&self, job: &Job, opened: &[Opened<'_>]) -> Option<Arc<Above>> {
        if !self.options.copy_links {
            return None;
        }
        let info = opened.first()?.dir.own_info().ok()?;
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
        let mut candidates = candidates;
        let (Opened { share, dir, .. }, info, followed) = loop {
            let Some((&(_, position), others)) = candidates.split_first() else { return Ok(None) };
            let candidate = &opened[position];
            match self.info(&candidate.dir, candidate.share.origin, &job.path, &name) {
                Ok((info, _))
                    if !self.options.filter.is_empty()
                        && self.is_excluded(candidate, &path(), name.as_bytes(), info.is_dir()) => {}
                Ok((info, followed)) => break (candidate, info, followed),
                Err(problem) => {
                    let is_gone = problem.cause == Cause::Vanished;
                    self.problem(problem);
                    return if is_gone { Ok(None) } else { Err(Unseen) };
                }
            }
            candidates = others;
        };
        let target = if info.is_link() {
            match dir.read_link(name.as_bytes()) {
                Ok(target) => target,
                Err(error) => {
                    self.problem(errno(Side::Source, &path(), Operation::ReadLink, error));
                    return Err(Unseen);
                }
            }
        } else {
            Vec::new()
        };
        let Some(mut entry) = info.entry(name.clone(), target, now_for(&info)) else { return Ok(None) };
        if let Some(taken) = self.taken {
            let tree = &self.sources.origins[usize::from(share.origin)].tree;
            let held = if followed { tree.hold_followed(&path()) } else { dir.hold(name.as_bytes()) };
            match attributes(taken, held, path) {
                Ok(attributes) => entry.set_attributes(attributes),
                Err(problem) => self.problem(problem),
            }
        }
        let below = if entry.is_dir() {
            Some(self.below(job, &path(), &info, candidates, opened, above).ok_or(Unseen)?)
        } else {
            None
        };
        Ok(Some(Found { entry, listed: Listed { name, info, origin: share.origin, followed }, below }))
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
        let info = dir.info(name.as_bytes()).map_err(fail)?;
        if !self.options.copy_links || !info.is_link() {
            return Ok((info, false));
        }
        match self.sources.origins[usize::from(origin)].tree.info_followed(&path()) {
            Ok(info) => Ok((info, true)),
            Err(Errno::NOENT) => Err(Problem {
                side: Side::Source,
                path: path(),
                operation: Operation::Stat,
                cause: Cause::DanglingLink,
            }),
            Err(error) => Err(errno(Side::Source, &path(), Operation::Stat, error)),
        }
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
            let is_dir = other.dir.info(name).is_ok_and(|info| info.is_dir());
            is_dir && !self.is_excluded(other, path, name, true)
        };
        let share = |&(name, position): &Candidate<'_>| {
            let Opened { share, chain, .. } = &opened[position];
            Share { origin: share.origin, wanted: share.wanted.below(name), chain: chain.clone() }
        };
        let device = self.options.one_file_system.then(|| job.device.unwrap_or(opened_device(opened)));
        let entered = device.is_none_or(|device| device == info.device);
        let shares = if entered {
            candidates[..1].iter().chain(candidates[1..].iter().filter(is_dir)).map(share).collect()
        } else {
            Vec::new()
        };
        Some(Job { path: path.clone(), shares, device, misses_origin: false, above: above.cloned() })
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
        let ids = part.entries.iter().map(|entry| (entry.uid, entry.gid));
        let names = if keep.numeric_ids || !(keep.owner || keep.group) {
            protocol::message::OwnerNames::default()
        } else {
            self.names.of(ids)
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

fn opened_device(opened: &[Opened<'_>]) -> (u32, u32) {
    let info = opened.first().and_then(|first| first.dir.own_info().ok());
    info.map_or((0, 0), |info| info.device)
}

/// The clock is only asked for files: a young time matters for content alone.
fn now_for(info: &Info) -> Timestamp {
    if info.is_file() { tree::file_clock() } else { Timestamp { secs: i64::MIN, nanos: 0 } }
}

/// Pieces collected for one frame.
struct Sheet {
    pieces: Vec<Piece>,
    /// The directories in them: listed only when the pieces were sent, so that no child overtakes its
    /// parent.
    jobs: Vec<Job>,
    entries: usize,
    bytes: usize,
    packer: Packer,
    /// Where the thread is in each source.
    walks: Vec<tree::Walk>,
}

/// Entries (and one for each piece) that make a frame worth sending: some 30 KiB.
const SHEET_ENTRIES: usize = 512;
/// Bytes of names, targets and paths that do.
const SHEET_BYTES: usize = 64 << 10;
/// Bytes of names and targets in one piece: with the longest path still well within a frame.
const PIECE_BYTES: usize = 256 << 10;

impl Sheet {
    fn new(options: &SyncOptions, link: &Arc<LinkState>) -> Sheet {
        Sheet {
            pieces: Vec::new(),
            jobs: Vec::new(),
            entries: 0,
            bytes: 0,
            packer: Packer::new(options.compression, link),
            walks: Vec::new(),
        }
    }
}

/// How a piece ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Another piece of the directory follows.
    MoreFollows,
    /// It is the last one, and everything in the directory was seen.
    Complete,
    /// It is the last one, and something could not be read.
    Incomplete,
}

/// A piece being collected.
struct Part {
    entries: Vec<Entry>,
    listed: Vec<Listed>,
    bytes: usize,
}

impl Part {
    /// Has room for so many names, as far as they go into one piece.
    fn with_room(names: usize) -> Part {
        let room = names.min(limits::PIECE_ENTRIES);
        Part { entries: Vec::with_capacity(room), listed: Vec::with_capacity(room), bytes: 0 }
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= limits::PIECE_ENTRIES || self.bytes >= PIECE_BYTES
    }

    fn push(&mut self, entry: Entry, listed: Listed) {
        self.bytes += entry.name.as_bytes().len() + 64;
        if let Kind::Symlink { target } = &entry.kind {
            self.bytes += target.len();
        }
        self.bytes += entry.attributes().map_or(0, |attributes| attributes.cost_bytes());
        self.entries.push(entry);
        self.listed.push(listed);
    }
}

/// Whether `path` names a directory by itself (a trailing slash or a dot at its end).
#[must_use]
pub fn names_contents(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    matches!(split_argument(path.as_os_str().as_bytes()), Ok((_, None)))
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

//! The destination's end of a session: merge, tasks, receivers and the committer around the state machine.
//!
//! One thread receives and never waits for the source; it may wait for the disk, and that is what
//! slows a source that is faster than the disk.

use crate::attributes::Taken;
use crate::bases::{self, BaseTrees};
use crate::clock::Activity;
use crate::commit::{self, Commit};
use crate::delete;
use crate::error::SessionError;
use crate::hard_links::{self, Links, Shared};
use crate::index::Index;
use crate::link::{Incoming, LAST_WORD, Link, Outgoing};
use crate::merge;
use crate::metadata::Translation;
use crate::monitor::{Monitor, Progress};
use crate::owners::Ownership;
use crate::partial::Partials;
use crate::planned::Several;
use crate::receiver::{self, Receiver as Writer, Task};
use crate::recognition::Recognition;
use crate::removal::Removals;
use crate::retire::Retirement;
use crate::rules::{OwnRules, Place, TreeRules};
use crate::run::Run;
use crate::sides::Sides;
use crate::sources::beneath;
use crate::staging::{self, Staging};
use crate::tree::{self, Dir, Follow, Handle as _, Tree, Walk};
use crate::workers::{Failure, lock, spawn};
use crossbeam_channel::{Receiver, Sender, bounded, never, select, unbounded};
use protocol::arguments::{Missing, Relative};
use protocol::destination::{DestinationEvent, DestinationSession, Standing};
use protocol::filter;
use protocol::message::{Begin, Data, Finished, Message};
use protocol::options::SyncOptions;
use protocol::path::{Name, RelPath};
use protocol::stats::{Exit, Stats, Times};
use rustix::io::Errno;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Everything a destination's end needs besides the link.
pub struct DestinationEnd<'a> {
    /// The destination as the operator named it.
    pub argument: &'a [u8],
    /// The directory that it must be beneath, if this agent is held to one.
    pub root: Option<&'a Dir>,
    /// What was asked.
    pub options: &'a SyncOptions,
    /// Who hears of what is done.
    pub monitor: &'a dyn Monitor,
    /// How far it is.
    pub progress: &'a Progress,
    /// Hashes of an earlier run.
    pub index: &'a Index,
    /// Bits that new entries don't get where modes are not preserved. The process itself must have a
    /// umask of 0.
    pub umask: u16,
    /// Readable (or closed) when the operator stops the run.
    pub stop: Receiver<()>,
}

const MERGERS: usize = 2;
const TASKERS: usize = 2;
const WRITERS: usize = 2;
/// Frames that wait for a writing thread: then the source is told to wait, by not reading on.
const WRITER_FRAMES: usize = 8;

/// Frames' worth of verified entries that wait for the committer: while it syncs, whoever verifies more
/// waits too.
const COMMITS_WAITING: usize = 64;

/// The destination's root, opened.
struct Root {
    tree: Tree,
    place: Place,
    dir: Option<Dir>,
    /// The single entry's name here.
    single_name: Option<Name>,
    /// It did not exist.
    made: bool,
}

/// What stands beside the destination, opened.
struct Beside<'a> {
    staging: Staging,
    bases: BaseTrees,
    retirement: Retirement<'a>,
    partials: Option<Partials>,
}

impl DestinationEnd<'_> {
    /// Makes the destination what the source is.
    ///
    /// # Errors
    /// Whatever ends the session before that; the peer has been told.
    pub fn run(&self, link: Link) -> Result<Finished, SessionError> {
        let Link { outgoing, incoming, .. } = link;
        outgoing.state().keep_alive_within(self.options.timeout_s);
        let result = self.run_session(&outgoing, &incoming);
        match &result {
            Ok(finished) => {
                let message = Message::Finished(Box::new(finished.clone()));
                match self.options.timeout_s {
                    0 => drop(outgoing.say(&message)),
                    seconds => outgoing.say_within(&message, Duration::from_secs(u64::from(seconds))),
                }
            }
            Err(SessionError::Peer(_) | SessionError::Connection(_) | SessionError::NothingSaid) => {}
            Err(error) => {
                outgoing.say_within(&Message::Abort(error.to_abort()), LAST_WORD);
            }
        }
        result
    }

    fn run_session(&self, outgoing: &Outgoing, incoming: &Incoming) -> Result<Finished, SessionError> {
        let mut session = DestinationSession::new();
        let begin = self.await_begin(incoming, &mut session)?;
        let root = self.open_root(&begin)?;
        let _locks = match &root.dir {
            Some(dir) if !self.options.dry_run => self.prepare(dir)?,
            _ => Vec::new(),
        };
        let ownership =
            Ownership::new(self.options).map_err(|why| SessionError::refused(Exit::Usage, why))?;
        let taken = Taken::new(&self.options.preserve, self.options.privileges.destination);
        let translation = Translation { options: self.options, ownership, umask: self.umask, taken };
        let sides = self.sides(&root)?;
        let beside = self.open_beside(&sides, &root)?;
        let staging = &beside.staging;
        let result = self.run_threads(outgoing, incoming, session, &begin, &root, &translation, &beside);
        if result.is_err() {
            let is_full = matches!(&result, Err(error) if error.exit() == Exit::Full);
            staging.close(&root.tree, !is_full);
        }
        result
    }

    fn await_begin(
        &self,
        incoming: &Incoming,
        session: &mut DestinationSession<crate::metadata::Metadata>,
    ) -> Result<Begin, SessionError> {
        loop {
            let message = self.next_message(incoming, &never(), &never())?;
            let Some(message) = message else { continue };
            match session.receive(message)? {
                DestinationEvent::Begin(begin) => return Ok(*begin),
                DestinationEvent::Aborted(abort) => return Err(SessionError::Peer(abort)),
                _ => {}
            }
        }
    }

    /// The next message, or none when something else woke the thread.
    fn next_message(
        &self,
        incoming: &Incoming,
        raised: &Receiver<()>,
        woken: &Receiver<()>,
    ) -> Result<Option<Message>, SessionError> {
        let timeout_s = self.options.timeout_s;
        let expired = if timeout_s == 0 {
            never()
        } else {
            crossbeam_channel::after(Duration::from_secs(u64::from(timeout_s)))
        };
        select! {
            recv(incoming.queue()) -> frame => incoming.decode(frame).map(Some),
            recv(raised) -> _ => Ok(None),
            recv(woken) -> _ => Ok(None),
            recv(self.stop) -> _ => Err(SessionError::Interrupted),
            recv(expired) -> _ => Err(SessionError::Timeout { seconds: timeout_s }),
        }
    }

    // The root.

    fn open_root(&self, begin: &Begin) -> Result<Root, SessionError> {
        let shown = protocol::path::escaped(self.argument);
        let cannot = |error: Errno| SessionError::io(format!("open the destination {shown:?}"), error);
        let place = Place::new(self.argument, RelPath::root(), self.root).map_err(cannot)?;
        match self.open_tree(self.argument) {
            Ok((tree, dir)) => {
                return Ok(Root { tree, place, dir: Some(dir), single_name: None, made: false });
            }
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR) if begin.single && !self.argument.ends_with(b"/") => {}
            Err(Errno::XDEV) => {
                let message = format!("{shown:?} leads out of the directory that this agent is held to");
                return Err(SessionError::refused(Exit::Selection, message));
            }
            Err(Errno::NOTDIR) => {
                let message = format!("the destination {shown:?} is not a directory");
                return Err(SessionError::refused(Exit::Selection, message));
            }
            Err(error) => return Err(cannot(error)),
        }
        if self.options.arguments.make_path {
            return self.make_whole_root(begin, place);
        }
        let (parent, name) = self.split_destination().ok_or_else(|| cannot(Errno::NOENT))?;
        let (tree, dir) = self.open_tree(&parent).map_err(|error| match error {
            Errno::NOENT => SessionError::refused(
                if begin.single && !self.argument.ends_with(b"/") { Exit::Selection } else { Exit::FileIo },
                format!("the directory that {shown:?} would be made in does not exist; make it first"),
            ),
            error => cannot(error),
        })?;
        if begin.single && !self.argument.ends_with(b"/") {
            return Ok(Root { tree, place, dir: Some(dir), single_name: Some(name), made: false });
        }
        if self.options.dry_run {
            return Ok(Root { tree, place, dir: None, single_name: None, made: true });
        }
        dir.make_dir(name.as_bytes()).map_err(cannot)?;
        if begin.root.is_none() || !self.options.preserve.perms {
            let held = dir.hold(name.as_bytes());
            let _ = held.and_then(|held| held.set_mode(0o777 & !self.umask));
        }
        self.monitor.made_root(self.argument);
        let (tree, dir) = self.open_tree(self.argument).map_err(cannot)?;
        Ok(Root { tree, place, dir: Some(dir), single_name: None, made: true })
    }

    /// The root of a run that makes the whole path to it (`--mkpath`).
    fn make_whole_root(&self, begin: &Begin, place: Place) -> Result<Root, SessionError> {
        let is_single = begin.single && !self.argument.ends_with(b"/");
        let (parent, name) = match self.split_destination() {
            Some((parent, name)) if is_single => (parent, Some(name)),
            _ => (self.argument.to_vec(), None),
        };
        let (tree, dir, made) = self.make_path(&parent)?;
        if made > 0 {
            let what = if made == 1 { "directory" } else { "directories" };
            self.monitor.note(&format!("created {made} {what} for {}", protocol::path::escaped(&parent)));
        }
        let is_absent = made > 0 && self.options.dry_run;
        Ok(Root { tree, place, dir: (!is_absent).then_some(dir), single_name: name, made: is_absent })
    }

    /// Makes what is missing of `path`; of a dry run the deepest directory that is there. Says how many were missing.
    fn make_path(&self, path: &[u8]) -> Result<(Tree, Dir, usize), SessionError> {
        let cannot = |path: &[u8], error: Errno| {
            SessionError::io(format!("make the directory {:?}", protocol::path::escaped(path)), error)
        };
        let start: &[u8] = if path.starts_with(b"/") { b"/" } else { b"." };
        let mut reached = start.to_vec();
        let mut opened = self.open_tree(start).map_err(|error| cannot(start, error))?;
        let mut made = 0;
        for name in path.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b".")) {
            reached.push(b'/');
            reached.extend_from_slice(name);
            let there = if made > 0 { Err(Errno::NOENT) } else { self.open_tree(&reached) };
            opened = match there {
                Ok(there) => there,
                Err(Errno::NOENT) => {
                    made += 1;
                    if self.options.dry_run {
                        continue;
                    }
                    opened.1.make_dir(name).map_err(|error| cannot(&reached, error))?;
                    let held = opened.1.hold(name).and_then(|held| held.set_mode(0o777 & !self.umask));
                    held.map_err(|error| cannot(&reached, error))?;
                    self.open_tree(&reached).map_err(|error| cannot(&reached, error))?
                }
                Err(error) => return Err(cannot(&reached, error)),
            };
        }
        Ok((opened.0, opened.1, made))
    }

    fn open_tree(&self, argument: &[u8]) -> Result<(Tree, Dir), Errno> {
        let tree = match self.root {
            None => Tree::open(tree::path_of(argument), Follow::Never)?,
            Some(root) => {
                let path = beneath(argument).ok_or(Errno::XDEV)?;
                Tree::open_beneath(root, &path, Follow::Never)?
            }
        };
        let dir = tree.dir(&RelPath::root())?;
        let keeps_links = self.options.links.keep_directories
            || self.options.arguments.relative == Relative::WithoutImplied;
        Ok((if keeps_links { tree.following_beneath() } else { tree }, dir))
    }

    /// The source's arguments that are not there, if that is to matter here.
    fn missing(&self, begin: &Begin) -> Vec<RelPath> {
        match self.options.arguments.missing {
            Missing::Deleted => begin.places.missing.clone(),
            Missing::Reported | Missing::Ignored => Vec::new(),
        }
    }

    fn split_destination(&self) -> Option<(Vec<u8>, Name)> {
        let trimmed = match self.argument.iter().rposition(|&byte| byte != b'/') {
            Some(last) => &self.argument[..=last],
            None => return None,
        };
        let cut = trimmed.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
        let name = Name::new(&trimmed[cut..]).ok()?;
        let parent = if cut == 0 { b".".to_vec() } else { trimmed[..cut].to_vec() };
        Some((parent, name))
    }

    // What stands beside it.

    /// Where the paths of options start.
    fn sides(&self, root: &Root) -> Result<Sides<'_>, SessionError> {
        let cannot = |error: Errno| SessionError::io("look at the destination", error);
        let to_parent = root.single_name.is_some() || root.dir.is_none();
        match (self.root, &root.dir) {
            (Some(held), _) => {
                let parent = self.split_destination().filter(|_| to_parent).map(|(parent, _)| parent);
                let argument = parent.as_deref().unwrap_or(self.argument);
                let home = beneath(argument).ok_or_else(|| cannot(Errno::XDEV))?;
                Ok(Sides::held(held, home, self.umask))
            }
            (None, Some(dir)) => Ok(Sides::of(dir.try_clone().map_err(cannot)?, self.umask)),
            (None, None) => Ok(Sides::of_absent(root.tree.dir(&RelPath::root()).map_err(cannot)?)),
        }
    }

    fn open_beside<'a>(&self, sides: &'a Sides<'a>, root: &Root) -> Result<Beside<'a>, SessionError> {
        let options = self.options;
        let bases = BaseTrees::open(&options.bases, sides, self.monitor)?;
        let nothing =
            Beside { staging: Staging::default(), bases, retirement: Retirement::Gone, partials: None };
        let Some(home) = &root.dir else { return Ok(nothing) };
        let retirement = Retirement::open(options, sides, &root.tree, home)?;
        if options.dry_run {
            return Ok(Beside { retirement, ..nothing });
        }
        let partials = match &options.placing.partial_dir {
            None => None,
            Some(path) => {
                let opened = Partials::open(path, sides);
                Some(opened.map_err(|error| bases::refused("--partial-dir", path, error))?)
            }
        };
        Ok(Beside { staging: self.staging(sides, home)?, retirement, partials, ..nothing })
    }

    fn staging(&self, sides: &Sides<'_>, home: &Dir) -> Result<Staging, SessionError> {
        let Some(path) = &self.options.placing.temp_dir else { return Ok(Staging::default()) };
        let opened = sides.open(path).and_then(|dir| {
            let (scratch, own) = (dir.own_info()?, home.own_info()?);
            // On one file system with the destination it saves nothing.
            if scratch.device == own.device {
                Ok(Staging::default())
            } else {
                Staging::with_scratch(&dir, &own)
            }
        });
        opened.map_err(|error| bases::refused("--temp-dir", path, error))
    }

    /// What must hold before the first byte moves; returns what keeps other runs away.
    fn prepare(&self, dir: &Dir) -> Result<Vec<Dir>, SessionError> {
        let shown = protocol::path::escaped(self.argument);
        let refused = |why: &str| {
            Err(SessionError::refused(
                Exit::FileIo,
                format!("the destination {shown:?} {why}; nothing was changed"),
            ))
        };
        let looked = dir.is_read_only();
        if looked.map_err(|error| SessionError::io(format!("look at the destination {shown:?}"), error))? {
            return refused("is on a file system that is mounted read-only");
        }
        if let Some(why) = staging::obstacle(dir) {
            return refused(why);
        }
        dir.lock().map_err(|error| self.busy(error))
    }

    fn busy(&self, error: Errno) -> SessionError {
        let shown = protocol::path::escaped(self.argument);
        match error {
            Errno::WOULDBLOCK => {
                let message = format!(
                    "another run is working on the destination {shown:?}, or on a directory above it or inside it; wait \
                     for it to end"
                );
                SessionError::refused(Exit::Busy, message)
            }
            error => SessionError::io(format!("lock the destination {shown:?}"), error),
        }
    }

    // The threads.

    #[allow(
        clippy::too_many_arguments,
        reason = "one caller; everything the threads share comes together here"
    )]
    fn run_threads(
        &self,
        outgoing: &Outgoing,
        incoming: &Incoming,
        session: DestinationSession<crate::metadata::Metadata>,
        begin: &Begin,
        root: &Root,
        translation: &Translation<'_>,
        beside: &Beside<'_>,
    ) -> Result<Finished, SessionError> {
        let (stop, stopped) = bounded::<()>(0);
        let outgoing = outgoing.stoppable(stopped.clone());
        let failure = Failure::new();
        let (merges, to_merge) = unbounded();
        let (tasks, to_do) = unbounded::<Task>();
        let (commits, to_commit) = bounded::<Commit>(COMMITS_WAITING);
        let (wake, woken) = bounded(1);
        let rules =
            TreeRules { rules: &self.options.filter, side: filter::Side::Receiver, place: &root.place };
        let run = Run {
            tree: &root.tree,
            options: self.options,
            translation,
            rules: OwnRules::new(rules, &root.tree),
            outgoing: &outgoing,
            monitor: self.monitor,
            progress: self.progress,
            index: self.index,
            staging: &beside.staging,
            bases: &beside.bases,
            recognition: Recognition::new(root.dir.as_ref(), self.index, self.options),
            retirement: &beside.retirement,
            partials: beside.partials.as_ref(),
            links: Links::default(),
            shared: Shared::default(),
            single_name: root.single_name.clone(),
            session: Mutex::new(session),
            room: Condvar::new(),
            own_listings: Mutex::default(),
            extraneous: Mutex::new(Vec::new()),
            unconfirmed: Mutex::new(Vec::new()),
            waiting: Mutex::new(Vec::new()),
            flights: Mutex::default(),
            stats: Mutex::new(Stats::default()),
            source_times: Mutex::new(Times::default()),
            worst: Mutex::new(Exit::Done),
            area_homes: Mutex::new(Vec::new()),
            is_named: begin.root.is_none(),
            places: &begin.places,
            missing: Mutex::new(self.missing(begin)),
            behind_links: Mutex::default(),
            several: Several::default(),
            removals: Removals::default(),
            file_systems: Mutex::new(HashMap::new()),
            empty_source: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            stop: stopped.clone(),
            is_full: AtomicBool::new(false),
            merges,
            tasks,
            commits,
            wake,
        };
        let (run, failure) = (&run, &failure);
        let late_commits = to_commit.clone();
        let result = std::thread::scope(|scope| {
            for _ in 0..MERGERS {
                let (to_merge, stopped) = (to_merge.clone(), stopped.clone());
                spawn(scope, "merge", failure, move || {
                    let mut walk = Walk::default();
                    each(&to_merge, &stopped, |batch| merge::merge_all(run, &mut walk, batch))
                });
            }
            for _ in 0..TASKERS {
                let (to_do, stopped) = (to_do.clone(), stopped.clone());
                spawn(scope, "basis", failure, move || {
                    each(&to_do, &stopped, |task| receiver::carry_out(run, task))
                });
            }
            let mut writers = Vec::new();
            for _ in 0..WRITERS {
                let (writer, to_write) = bounded::<Data>(WRITER_FRAMES);
                writers.push(writer);
                let stopped = stopped.clone();
                spawn(scope, "receiver", failure, move || {
                    let mut writer = Writer::new(run);
                    let result = each(&to_write, &stopped, |data| writer.receive(&data));
                    writer.keep_parts();
                    result
                });
            }
            let stopped_committer = stopped.clone();
            spawn(scope, "commit", failure, move || commit::work(run, &to_commit, &stopped_committer));

            let received = self.begin(run, begin, root).and_then(|()| {
                let is_over = || lock(&run.session).is_idle();
                self.receive(run, incoming, failure, &woken, &writers, is_over)?;
                let refused = self.complete(run, failure)?;
                let is_over = || lock(&run.session).is_removed();
                self.receive(run, incoming, failure, &woken, &writers, is_over)?;
                Ok(self.finish(run, refused))
            });
            run.stopped.store(true, Ordering::Relaxed);
            drop(stop);
            drop(lock(&run.session));
            run.room.notify_all();
            match received {
                Err(SessionError::Connection(error)) => {
                    Err(failure.take().unwrap_or(SessionError::Connection(error)))
                }
                other => other,
            }
        });
        if result.is_err() {
            let _ = commit::finish_stopped(run, &late_commits, Vec::new());
        }
        result
    }

    fn begin(&self, run: &Run<'_>, begin: &Begin, root: &Root) -> Result<(), SessionError> {
        let standing = match &root.dir {
            None => {
                if let Some(entry) = &begin.root {
                    let change = protocol::itemize::Change {
                        content: protocol::itemize::Content::Made,
                        new: true,
                        ..Default::default()
                    };
                    let mut owners = run.translation.ownership.owners(&begin.names);
                    let wanted = run.translation.wanted(entry.clone(), None, &mut owners);
                    run.root_item(&wanted.entry, change);
                }
                Standing::Absent
            }
            Some(_) => merge::root_standing(run, begin, root.made)?,
        };
        run.listed(begin.root.as_slice());
        lock(&run.session).root_stands(standing);
        run.advance()
    }

    /// Takes in what the source says until what is waited for `is_over`.
    fn receive(
        &self,
        run: &Run<'_>,
        incoming: &Incoming,
        failure: &Failure,
        woken: &Receiver<()>,
        writers: &[Sender<Data>],
        is_over: impl Fn() -> bool,
    ) -> Result<(), SessionError> {
        loop {
            if let Some(error) = failure.take() {
                return Err(error);
            }
            if is_over() {
                return Ok(());
            }
            let since = Instant::now();
            let message = self.next_message(incoming, &failure.raised, woken)?;
            self.progress.clock.add(Activity::Wait, since);
            let Some(message) = message else { continue };
            let event = lock(&run.session).receive(message)?;
            match event {
                DestinationEvent::Listed => run.advance()?,
                DestinationEvent::Scanned(totals) => {
                    self.progress.listed_entries.store(totals.entries, Ordering::Relaxed);
                    self.progress.listed_bytes.store(totals.bytes, Ordering::Relaxed);
                    self.progress.scanned.store(true, Ordering::Release);
                }
                DestinationEvent::Data(data) => {
                    let writer = &writers[usize::from(data.lane) % writers.len()];
                    select! {
                        send(writer, data) -> _ => {}
                        recv(failure.raised) -> _ => {}
                    }
                }
                DestinationEvent::Reports { problems, notes } => {
                    problems.into_iter().for_each(|problem| run.problem(problem));
                    notes.iter().for_each(|note| self.monitor.note(note));
                }
                DestinationEvent::Spent(times) => *lock(&run.source_times) = times,
                DestinationEvent::Aborted(abort) => return Err(SessionError::Peer(abort)),
                DestinationEvent::Begin(_) | DestinationEvent::Removed | DestinationEvent::Nothing => {}
            }
        }
    }

    /// Everything has arrived: commit it, delete, set the last metadata, make it durable; then the source may remove it.
    /// Returns why deletions were refused, if they were.
    fn complete(&self, run: &Run<'_>, failure: &Failure) -> Result<Option<String>, SessionError> {
        let (done, committed) = bounded(1);
        select! {
            send(run.commits, Commit::Flush(done)) -> _ => select! {
                recv(committed) -> _ => {}
                recv(failure.raised) -> _ => {}
            },
            recv(failure.raised) -> _ => {}
        }
        if let Some(error) = failure.take() {
            return Err(error);
        }
        hard_links::give_up_waiting(run);
        let refused = delete::delete_extraneous(run).err();
        commit::place_waiting(run);
        if !self.options.dry_run {
            let is_done = *lock(&run.worst) == Exit::Done;
            run.staging.close(run.tree, !is_done);
            let homes = std::mem::take(&mut *lock(&run.area_homes));
            homes.into_iter().for_each(|home| run.let_go(home));
            commit::complete_directories(run);
            run.sync().map_err(|error| SessionError::io("write the destination to disk (syncfs)", error))?;
            commit::confirm_values(run, tree::Info::settle);
            run.confirm_removals()?;
        }
        Ok(refused)
    }

    fn finish(&self, run: &Run<'_>, refused: Option<String>) -> Finished {
        if let Some(message) = refused {
            self.monitor.note(&message);
        }
        let stats = *lock(&run.stats);
        let exit = *lock(&run.worst);
        let (times, source_times) = (self.progress.clock.times(), *lock(&run.source_times));
        Finished { stats, exit, times, source_times }
    }
}

/// Carries out what arrives until nothing more will, or the session is over.
fn each<T>(
    queue: &Receiver<T>,
    stopped: &Receiver<()>,
    mut work: impl FnMut(T) -> Result<(), SessionError>,
) -> Result<(), SessionError> {
    loop {
        select! {
            recv(queue) -> item => match item {
                Ok(item) => work(item)?,
                Err(_) => return Ok(()),
            },
            recv(stopped) -> _ => return Ok(()),
        }
    }
}

//! The sender: reads requested files, finds what the destination already has, sends the rest.
//!
//! A file is sent only as one state of it: its attributes are read before the first byte and after
//! the last, and if they differ the destination is told to forget what it got. Its BLAKE3 is computed
//! over what was read, while it is read.

use crate::clock::{Activity, Clock};
use crate::error::SessionError;
use crate::holes;
use crate::index::Index;
use crate::link::Outgoing;
use crate::monitor::Progress;
use crate::packer::Packer;
use crate::scan::{Listed, ListedPiece, Listings};
use crate::source::SourceEnd;
use crate::sources::Sources;
use crate::tree::{self, Dir, Info, Walk};
use crate::workers::lock;
use crossbeam_channel::{Receiver, select};
use protocol::matcher::{Matcher, Op, Signature};
use protocol::message::{DataBuilder, Failure, HashKind, Message, ReadFile, Request, Step, Want};
use protocol::narrow::{self, Lacking, Narrowing};
use protocol::options::Reading;
use protocol::pages::{self, PageHash, PageHasher, PageSearch};
use protocol::path::RelPath;
use protocol::signature::BlockSize;
use protocol::sparse::Blocks;
use protocol::stats::Operation;
use protocol::subtree::{self, Comparison};
use protocol::{ContentHash, limits};
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

mod sparse;

use sparse::Against;

/// How much of a file is read and matched at a time.
const WINDOW_BYTES: usize = 1 << 20;
/// What was found of so much of a file goes to the destination though its frame is not full: it has as much to do.
const FOUND_BYTES: usize = 4 << 20;
/// Files of which a part of the signature is awaited while others are served: each is open, and 1024 may be.
const MOST_PARKED: usize = 64;
/// Together they are no longer than that: each keeps its signature in memory, and a long one has a round trip to spare.
const PARKED_BYTES: u64 = 64 << 20;
/// How much of a file is looked at for zeros at once.
const LITERAL_BYTES: usize = 16 << 10;
/// How far beyond the window the basis's signature should be known before it is matched, so that what
/// moved back a little is found.
const LOOK_AHEAD_BYTES: u64 = 16 << 20;

/// A request, with what is known of the file.
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) piece: Arc<ListedPiece>,
    pub(crate) feed: Option<Arc<Feed>>,
}

/// A signature on its way from the link's reader to a sender.
#[derive(Default)]
pub(crate) struct Feed {
    state: Mutex<FeedState>,
    grown: Condvar,
}

#[derive(Default)]
struct FeedState {
    arrived: Vec<u8>,
    stopped: bool,
}

impl Feed {
    pub(crate) fn push(&self, blocks: &[u8]) {
        lock(&self.state).arrived.extend_from_slice(blocks);
        self.grown.notify_all();
    }

    pub(crate) fn stop(&self) {
        lock(&self.state).stopped = true;
        self.grown.notify_all();
    }

    /// Waits until something arrived, and takes it; none when the session is over.
    fn take(&self) -> Option<Vec<u8>> {
        let mut state = lock(&self.state);
        while state.arrived.is_empty() && !state.stopped {
            state = self.grown.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (!state.arrived.is_empty()).then(|| std::mem::take(&mut state.arrived))
    }
}

/// A file that was compared in place, until what lacks of its basis's signature has arrived.
struct Parked {
    number: u32,
    file: File,
    before: Info,
    lacking: Lacking,
    feed: Arc<Feed>,
    /// As it was listed.
    listed_bytes: u64,
}

/// One sending thread.
pub(crate) struct Sender<'a> {
    sources: &'a Sources,
    index: &'a Index,
    listings: &'a Listings,
    feeds: &'a Mutex<HashMap<u32, Arc<Feed>>>,
    outgoing: &'a Outgoing,
    progress: &'a Progress,
    keeps_holes: bool,
    remembers_pages: bool,
    reading: Reading,
    builder: DataBuilder,
    packer: Packer,
    /// The directory of the last request, still open: the next one is likely in it.
    directory: Option<(u16, Arc<RelPath>, Dir)>,
    /// Where the thread is in each source.
    walks: Vec<Walk>,
    buffer: Vec<u8>,
    /// Files whose last step is in the frame at hand.
    answered: Vec<u32>,
    /// How much of files was compared since the last frame.
    found_bytes: usize,
    /// The first one is answered first.
    parked: VecDeque<Parked>,
    /// What lacks for one of these is in the frame at hand.
    has_asked: bool,
}

impl<'a> Sender<'a> {
    pub(crate) fn new(
        lane: u8,
        end: &'a SourceEnd<'a>,
        listings: &'a Listings,
        feeds: &'a Mutex<HashMap<u32, Arc<Feed>>>,
        outgoing: &'a Outgoing,
    ) -> Sender<'a> {
        Sender {
            sources: end.sources,
            index: end.index,
            listings,
            feeds,
            outgoing,
            progress: end.progress,
            keeps_holes: end.options.room.sparse,
            remembers_pages: end.index.is_kept() && !end.options.whole_file,
            reading: end.options.reading,
            builder: DataBuilder::new(lane),
            packer: Packer::new(end.options.compression, outgoing.state()),
            directory: None,
            walks: Vec::new(),
            buffer: Vec::new(),
            answered: Vec::new(),
            found_bytes: 0,
            parked: VecDeque::new(),
            has_asked: false,
        }
    }

    /// Serves requests until there will be no more.
    pub(crate) fn work(
        &mut self,
        jobs: &Receiver<Vec<Job>>,
        stop: &Receiver<()>,
    ) -> Result<(), SessionError> {
        loop {
            let batch = match jobs.try_recv() {
                Ok(batch) => batch,
                Err(_) if !self.parked.is_empty() => {
                    self.resume()?;
                    continue;
                }
                Err(_) => {
                    if !self.builder.is_empty() {
                        // In front of the last data: who has these may have no more use for anything.
                        self.outgoing.say(&Message::Spent(self.progress.clock.times()))?;
                    }
                    self.flush()?;
                    self.directory = None;
                    select! {
                        recv(jobs) -> batch => match batch {
                            Ok(batch) => batch,
                            Err(_) => return Ok(()),
                        },
                        recv(stop) -> _ => return Ok(()),
                    }
                }
            };
            batch.iter().try_for_each(|job| self.serve(job))?;
        }
    }

    fn serve(&mut self, job: &Job) -> Result<(), SessionError> {
        let file = job.request.file;
        let listed = &job.piece.entries[job.request.index as usize];
        let sent = self.send(job, listed)?;
        if self.parked.back().is_some_and(|parked| parked.number == file) {
            let bytes: u64 = self.parked.iter().map(|parked| parked.before.size_bytes).sum();
            let is_too_much = self.parked.len() > MOST_PARKED || bytes > PARKED_BYTES;
            return if is_too_much { self.resume() } else { Ok(()) };
        }
        if job.feed.is_some() {
            lock(self.feeds).remove(&file);
        }
        self.answer(file, sent, listed.info.size_bytes)
    }

    /// Goes on with the file that has waited longest.
    fn resume(&mut self) -> Result<(), SessionError> {
        let Some(parked) = self.parked.pop_front() else { return Ok(()) };
        if self.has_asked {
            self.flush()?;
        }
        let (number, listed_bytes) = (parked.number, parked.listed_bytes);
        let sent = self.send_parked(parked)?;
        lock(self.feeds).remove(&number);
        self.answer(number, sent, listed_bytes)
    }

    /// Ends the answer to a request.
    fn answer(
        &mut self,
        number: u32,
        sent: Result<(), Failure>,
        listed_bytes: u64,
    ) -> Result<(), SessionError> {
        if let Err(failure) = sent {
            self.builder.step(number, Step::Failed(failure));
        }
        self.answered.push(number);
        Progress::add(&self.progress.done_entries, 1);
        Progress::add(&self.progress.done_bytes, listed_bytes);
        if self.builder.is_full() { self.flush() } else { Ok(()) }
    }

    /// Sends one file; the inner result is the file's own, the outer the session's.
    fn send(&mut self, job: &Job, listed: &Listed) -> Result<Result<(), Failure>, SessionError> {
        let (file, before) = match self.open(job, listed) {
            Ok(opened) => opened,
            Err(failure) => return Ok(Err(failure)),
        };
        let number = job.request.file;
        match job.request.want {
            Want::Hash => Ok(self.hash(number, &file, &before)),
            Want::Whole if before.size_bytes <= limits::SMALL_FILE_BYTES => {
                Ok(self.send_small(number, &file, &before))
            }
            Want::Whole if self.has_holes(&file, &before) => self.send_sparse(number, &file, &before, None),
            Want::Delta { .. } | Want::Aligned { .. } | Want::Narrowed { .. }
                if self.has_holes(&file, &before) =>
            {
                Ok(Err(Failure::HasHoles))
            }
            Want::Whole => self.send_whole(number, &file, &before),
            Want::Sparse { block_size, basis_bytes, blocks } => {
                let size = protocol::sparse::block_size(block_size)?;
                match &job.feed {
                    Some(feed) => {
                        let blocks = Blocks::new(size, basis_bytes, blocks);
                        self.send_sparse(number, &file, &before, Some(Against { blocks, feed }))
                    }
                    None => Err(SessionError::Panic("sender")),
                }
            }
            Want::SparseHash => Ok(self.sparse_hash(number, &file, &before)),
            Want::Delta { block_size, basis_bytes } => {
                let size = BlockSize::new(block_size, basis_bytes)?;
                let matcher = Matcher::new(Signature::new(size, basis_bytes));
                match &job.feed {
                    Some(feed) => self.send_delta(number, &file, &before, matcher, feed),
                    None => Err(SessionError::Panic("sender")),
                }
            }
            Want::Narrowed { block_size, basis_bytes } => {
                let size = narrow::block_size(block_size, basis_bytes)?;
                let large_bytes = narrow::large_block_size(basis_bytes).bytes();
                if subtree::block_size(large_bytes, before.size_bytes).is_err() {
                    // It has grown out of all proportion.
                    return Ok(Err(Failure::Misaligned));
                }
                let pages = self.keeps_pages(&before).then(|| PageSearch::new(Vec::new(), basis_bytes));
                let narrowing = Narrowing::new(size, basis_bytes, before.size_bytes, pages);
                match &job.feed {
                    Some(feed) => self.narrow(number, file, before, narrowing, feed, listed.info.size_bytes),
                    None => Err(SessionError::Panic("sender")),
                }
            }
            Want::Aligned { block_size, basis_bytes, basis_head } => {
                let size = subtree::block_size(block_size, basis_bytes)?;
                if subtree::block_size(block_size, before.size_bytes).is_err() {
                    // It has grown out of all proportion.
                    return Ok(Err(Failure::Misaligned));
                }
                let pages = self.keeps_pages(&before).then(|| {
                    let basis = basis_head.map_or_else(Vec::new, |head| self.index.pages(&before, head));
                    PageSearch::new(basis, basis_bytes)
                });
                let comparison = Comparison::new(size, basis_bytes, before.size_bytes, pages);
                match &job.feed {
                    Some(feed) => self.send_aligned(number, &file, &before, size, comparison, feed),
                    None => Err(SessionError::Panic("sender")),
                }
            }
        }
    }

    /// Whether a later run may look for the file's pages.
    fn keeps_pages(&self, before: &Info) -> bool {
        self.remembers_pages && before.is_file() && pages::are_remembered(before.size_bytes)
    }

    fn has_holes(&self, file: &File, before: &Info) -> bool {
        self.keeps_holes && holes::are_worth_it(file, before.size_bytes)
    }

    fn open(&mut self, job: &Job, listed: &Listed) -> Result<(File, Info), Failure> {
        let failed = |operation, error| match error {
            Errno::NOENT | Errno::NOTDIR => Failure::Vanished,
            Errno::LOOP | Errno::NXIO | Errno::ISDIR => Failure::ChangedKind,
            error => Failure::Errno { operation, errno: error.raw_os_error() },
        };
        let origin = &self.sources.origins[usize::from(listed.origin)];
        let file = if listed.followed {
            origin.open_followed(&job.piece.directory.join(&listed.name))
        } else {
            self.directory(&job.piece, listed.origin).and_then(|dir| dir.open_file(listed.name.as_bytes()))
        };
        let file = file.map_err(|error| failed(Operation::Open, error))?;
        if self.reading.noatime {
            tree::leave_atime(&file);
        }
        let info = tree::settled_info_of(&file).map_err(|error| failed(Operation::Stat, error))?;
        if info.is_file() || self.reading.devices && info.is_device() {
            let info = info.with_content_of(&file);
            Ok((file, info))
        } else {
            Err(Failure::ChangedKind)
        }
    }

    fn directory(&mut self, piece: &Arc<ListedPiece>, origin: u16) -> Result<&Dir, Errno> {
        let is_open = self
            .directory
            .as_ref()
            .is_some_and(|(at, path, _)| *at == origin && Arc::ptr_eq(path, &piece.directory));
        if !is_open {
            self.directory = None;
            let at = usize::from(origin);
            self.walks.resize_with(self.sources.origins.len(), Walk::default);
            let dir = self.sources.origins[at].dir(&mut self.walks[at], &piece.directory)?;
            self.directory = Some((origin, Arc::clone(&piece.directory), dir));
        }
        self.directory.as_ref().map(|(_, _, dir)| dir).ok_or(Errno::NOENT)
    }

    fn send_small(&mut self, number: u32, file: &File, before: &Info) -> Result<(), Failure> {
        let size = before.size_bytes as usize;
        let clock = &self.progress.clock;
        let read = |bytes: &mut Vec<u8>| {
            if size > 0 { clock.time(Activity::Read, || append(file, bytes, size, 0)) } else { Ok(()) }
        };
        let known = |content: &[u8]| {
            let hash = clock.time(Activity::Hash, || blake3::hash(content));
            unchanged(file, before, hash.into())
        };
        self.builder.small_with(number, read, known)
    }

    fn hash(&mut self, number: u32, file: &File, before: &Info) -> Result<(), Failure> {
        let size_bytes = before.size_bytes;
        // What is written to a device shows in none of its attributes.
        if let Some(hash) = self.index.hash(before).filter(|_| before.is_file()) {
            let read = ReadFile { hash, mtime: before.mtime };
            self.builder.step(number, Step::Hashed { size_bytes, read });
            return Ok(());
        }
        let read_from = tree::now();
        let mut hasher = blake3::Hasher::new();
        self.buffer.resize(WINDOW_BYTES, 0);
        let clock = &self.progress.clock;
        for_each_window(file, before.size_bytes, &mut self.buffer, clock, |data| {
            clock.time(Activity::Hash, || hasher.update(data));
        })?;
        let read = unchanged(file, before, hasher.finalize().into())?;
        if before.is_file() {
            self.index.remember(before, read_from, &read.hash);
        }
        self.builder.step(number, Step::Hashed { size_bytes, read });
        Ok(())
    }

    fn send_whole(
        &mut self,
        number: u32,
        file: &File,
        before: &Info,
    ) -> Result<Result<(), Failure>, SessionError> {
        let mut hasher = FileHasher::new(self.keeps_pages(before));
        self.builder.step(number, Step::Open { size_bytes: before.size_bytes, hash: HashKind::Plain });
        let mut at = 0;
        while at < before.size_bytes {
            if self.builder.room_bytes() == 0 {
                self.flush()?;
            }
            let left = usize::try_from(before.size_bytes - at).unwrap_or(usize::MAX);
            let length = left.min(self.builder.room_bytes());
            let clock = &self.progress.clock;
            let read = |bytes: &mut Vec<u8>| clock.time(Activity::Read, || append(file, bytes, length, at));
            let seen = |bytes: &[u8]| {
                clock.time(Activity::Hash, || hasher.update(bytes));
            };
            if let Err(failure) = self.builder.literal_with(number, read, seen) {
                return Ok(Err(failure));
            }
            at += length as u64;
        }
        Ok(self.end(number, file, before, hasher.finish()))
    }

    /// Sends what differs block by block; gives up where that is nearly everything.
    fn send_aligned(
        &mut self,
        number: u32,
        file: &File,
        before: &Info,
        block_size: BlockSize,
        mut comparison: Comparison,
        feed: &Feed,
    ) -> Result<Result<(), Failure>, SessionError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(WINDOW_BYTES.max(block_size.bytes() as usize), 0);
        self.builder.step(number, Step::Open { size_bytes: before.size_bytes, hash: HashKind::Plain });
        let mut at = 0;
        let mut ops = Vec::new();
        while at < before.size_bytes {
            let left = usize::try_from(before.size_bytes - at).unwrap_or(usize::MAX);
            let length = left.min(buffer.len());
            let data = &mut buffer[..length];
            let clock = &self.progress.clock;
            if let Err(failure) = clock.time(Activity::Read, || read_exact(file, data, at)) {
                return Ok(Err(failure));
            }
            at += data.len() as u64;
            if !clock.time(Activity::Wait, || await_values(&mut comparison, feed, at))? {
                return Ok(Err(Failure::Changed));
            }
            ops.clear();
            clock.time(Activity::Hash, || comparison.advance(data, &mut ops));
            if comparison.is_misaligned() {
                return Ok(Err(Failure::Misaligned));
            }
            self.steps(number, data, &ops)?;
        }
        self.buffer = buffer;
        Ok(self.end(number, file, before, comparison.finish()))
    }

    /// Appends what a part of a file is, of which `data` holds all that is literal.
    fn steps(&mut self, number: u32, data: &[u8], ops: &[Op]) -> Result<(), SessionError> {
        for op in ops {
            match op {
                Op::Match { block, count } => {
                    self.builder.step(number, Step::Match { block: *block, count: *count });
                }
                Op::Pages { page, count } => {
                    self.builder.step(number, Step::Pages { page: *page, count: *count });
                }
                Op::Literal(range) => self.literal(number, &data[range.clone()])?,
            }
        }
        self.found_bytes += data.len();
        if self.builder.is_full() || self.found_bytes >= FOUND_BYTES { self.flush() } else { Ok(()) }
    }

    fn send_delta(
        &mut self,
        number: u32,
        file: &File,
        before: &Info,
        matcher: Matcher,
        feed: &Feed,
    ) -> Result<Result<(), Failure>, SessionError> {
        let mut hasher = FileHasher::new(self.keeps_pages(before));
        let searched = self.search(number, file, before, matcher, feed, |bytes| hasher.update(bytes))?;
        Ok(searched.and_then(|()| self.end(number, file, before, hasher.finish())))
    }

    /// Compares the file with its basis in place, asks for the signature of what is not there, and parks it until that
    /// has come: over a long line others are served meanwhile.
    fn narrow(
        &mut self,
        number: u32,
        file: File,
        before: Info,
        mut narrowing: Narrowing,
        feed: &Arc<Feed>,
        listed_bytes: u64,
    ) -> Result<Result<(), Failure>, SessionError> {
        let large_bytes = narrowing.comparison_mut().block_size().bytes() as usize;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(WINDOW_BYTES.max(large_bytes), 0);
        let mut at = 0;
        while at < before.size_bytes && !narrowing.is_of_no_use() {
            let left = usize::try_from(before.size_bytes - at).unwrap_or(usize::MAX);
            let length = left.min(buffer.len());
            let data = &mut buffer[..length];
            let clock = &self.progress.clock;
            if let Err(failure) = clock.time(Activity::Read, || read_exact(&file, data, at)) {
                return Ok(Err(failure));
            }
            at += data.len() as u64;
            if !clock.time(Activity::Wait, || await_values(narrowing.comparison_mut(), feed, at))? {
                return Ok(Err(Failure::Changed));
            }
            clock.time(Activity::Hash, || narrowing.advance(data));
        }
        self.buffer = buffer;
        if narrowing.is_of_no_use() {
            return Ok(Err(Failure::Misaligned));
        }
        // Also what the file is too short for: the entries that follow must not be taken for values.
        let clock = &self.progress.clock;
        if !clock.time(Activity::Wait, || await_values(narrowing.comparison_mut(), feed, u64::MAX))? {
            return Ok(Err(Failure::Changed));
        }
        let bits = narrowing.bits().to_vec();
        let lacking = narrowing.lacking();
        if self.builder.room_bytes() < bits.len() {
            self.flush()?;
        }
        self.builder.lacks(number, &bits);
        lock(&self.listings.session).lacks(number, lacking.missing_bytes());
        self.has_asked = true;
        self.parked.push_back(Parked { number, file, before, lacking, feed: Arc::clone(feed), listed_bytes });
        Ok(Ok(()))
    }

    /// Sends what is nowhere in the basis, once all of its signature is there.
    fn send_parked(&mut self, parked: Parked) -> Result<Result<(), Failure>, SessionError> {
        let Parked { number, file, before, mut lacking, feed, .. } = parked;
        if !self.progress.clock.time(Activity::Wait, || await_lacking(&mut lacking, &feed))? {
            return Ok(Err(Failure::Changed));
        }
        let (matcher, found) = lacking.finish();
        let searched = self.search(number, &file, &before, matcher, &feed, |_| ())?;
        Ok(searched.and_then(|()| self.end(number, &file, &before, found)))
    }

    /// Sends what is nowhere in the basis; `seen` is shown all of the file.
    fn search(
        &mut self,
        number: u32,
        file: &File,
        before: &Info,
        mut matcher: Matcher,
        feed: &Feed,
        mut seen: impl FnMut(&[u8]),
    ) -> Result<Result<(), Failure>, SessionError> {
        let block_bytes = matcher.signature().block_bytes();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(WINDOW_BYTES.max(2 * block_bytes), 0);
        self.builder.step(number, Step::Open { size_bytes: before.size_bytes, hash: HashKind::Plain });
        let (mut at, mut carried) = (0, 0);
        let mut ops = Vec::new();
        loop {
            let left = usize::try_from(before.size_bytes - at).unwrap_or(usize::MAX);
            let length = left.min(buffer.len() - carried);
            let clock = &self.progress.clock;
            let fresh = &mut buffer[carried..carried + length];
            if let Err(failure) = clock.time(Activity::Read, || read_exact(file, fresh, at)) {
                return Ok(Err(failure));
            }
            clock.time(Activity::Hash, || seen(fresh));
            at += length as u64;
            let last = at == before.size_bytes;
            if !clock.time(Activity::Wait, || await_signature(&mut matcher, feed, at))? {
                return Ok(Err(Failure::Changed));
            }
            let data = &buffer[..carried + length];
            ops.clear();
            let used = clock.time(Activity::Match, || matcher.advance(data, last, &mut ops));
            self.steps(number, data, &ops)?;
            if last {
                break;
            }
            carried += length;
            buffer.copy_within(used..carried, 0);
            carried -= used;
        }
        self.buffer = buffer;
        Ok(Ok(()))
    }

    fn end(
        &mut self,
        number: u32,
        file: &File,
        before: &Info,
        (hash, pages): (ContentHash, Option<Vec<PageHash>>),
    ) -> Result<(), Failure> {
        let read = unchanged(file, before, hash)?;
        if let Some(pages) = pages {
            self.index.keep_pages(before, &hash, &pages);
        }
        self.builder.step(number, Step::End(read));
        Ok(())
    }

    fn literal(&mut self, number: u32, mut bytes: &[u8]) -> Result<(), SessionError> {
        while !bytes.is_empty() {
            let room = self.builder.room_bytes();
            if room == 0 {
                self.flush()?;
                continue;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(room).min(LITERAL_BYTES));
            self.builder.literal(number, now);
            bytes = rest;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SessionError> {
        self.found_bytes = 0;
        self.has_asked = false;
        if self.builder.is_empty() {
            return Ok(());
        }
        let mut session = lock(&self.listings.session);
        self.answered.drain(..).for_each(|file| session.answered(file));
        drop(session);
        let clock = &self.progress.clock;
        let frame = clock.time(Activity::Compress, || self.packer.pack(self.builder.take()));
        clock.time(Activity::Send, || self.outgoing.send(frame))
    }
}

/// Hashes a file that is sent, and its pages where a later run may look for them.
struct FileHasher {
    content: blake3::Hasher,
    pages: Option<PageHasher>,
}

impl FileHasher {
    fn new(keeps_pages: bool) -> FileHasher {
        FileHasher { content: blake3::Hasher::new(), pages: keeps_pages.then(PageHasher::default) }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.content.update(bytes);
        if let Some(pages) = &mut self.pages {
            pages.update(bytes);
        }
    }

    fn finish(self) -> (ContentHash, Option<Vec<PageHash>>) {
        (self.content.finalize().into(), self.pages.map(PageHasher::finish))
    }
}

/// Lets the signature grow until it covers what is about to be matched and some more; false when the
/// session is over.
fn await_signature(matcher: &mut Matcher, feed: &Feed, at: u64) -> Result<bool, SessionError> {
    while !matcher.signature().is_complete() && matcher.signature().known_bytes() < at + LOOK_AHEAD_BYTES {
        match feed.take() {
            Some(blocks) => matcher.signature_mut().extend(&blocks)?,
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// Lets the values of the basis arrive that the file is to be compared with up to `at`; false when the session is over.
fn await_values(comparison: &mut Comparison, feed: &Feed, at: u64) -> Result<bool, SessionError> {
    while !comparison.is_known_to(at) {
        match feed.take() {
            Some(entries) => comparison.extend(&entries)?,
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// Lets all that lacked of the signature arrive; false when the session is over.
fn await_lacking(lacking: &mut Lacking, feed: &Feed) -> Result<bool, SessionError> {
    while !lacking.is_complete() {
        match feed.take() {
            Some(entries) => lacking.extend(&entries)?,
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// What was read, if the file is what it was before.
fn unchanged(file: &File, before: &Info, hash: ContentHash) -> Result<ReadFile, Failure> {
    match tree::info_of(file) {
        Ok(after) if before.same_content(&after.with_content_of(file)) => {
            Ok(ReadFile { hash, mtime: before.mtime })
        }
        Ok(_) => Err(Failure::Changed),
        Err(error) => Err(Failure::Errno { operation: Operation::Stat, errno: error.raw_os_error() }),
    }
}

fn for_each_window(
    file: &File,
    size_bytes: u64,
    buffer: &mut [u8],
    clock: &Clock,
    mut each: impl FnMut(&[u8]),
) -> Result<(), Failure> {
    let mut at = 0;
    while at < size_bytes {
        let length = usize::try_from(size_bytes - at).unwrap_or(usize::MAX).min(buffer.len());
        clock.time(Activity::Read, || read_exact(file, &mut buffer[..length], at))?;
        each(&buffer[..length]);
        at += length as u64;
    }
    Ok(())
}

/// Reads straight into a frame.
fn append(file: &File, bytes: &mut Vec<u8>, length: usize, at: u64) -> Result<(), Failure> {
    match tree::append_from(file, bytes, length, at) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Changed),
        Err(error) => Err(Failure::Errno { operation: Operation::Read, errno: error.raw_os_error() }),
    }
}

fn read_exact(file: &File, buffer: &mut [u8], at: u64) -> Result<(), Failure> {
    file.read_exact_at(buffer, at).map_err(|error| read_failure(&error))
}

fn read_failure(error: &io::Error) -> Failure {
    match error.raw_os_error() {
        // The file ended early: it shrank.
        None => Failure::Changed,
        Some(errno) => Failure::Errno { operation: Operation::Read, errno },
    }
}

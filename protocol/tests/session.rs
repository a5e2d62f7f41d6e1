//! A seeded simulation of both ends of a session, in one thread and without a clock.
//!
//! A source with a tree in memory and a destination with another drive the two state machines the way
//! the agent's engine does. Between them are two byte streams of encoded frames, so the wire is covered
//! too. At each step chance picks which of the things that could happen next does; how likely each kind
//! is differs from seed to seed, so that some runs have a slow disk, some a slow wire, some a slow
//! source. A run that fails prints its seed.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's failure is its panic, its figures are read"
)]

use protocol::decide::{Action, decide};
use protocol::destination::{DestinationEvent, DestinationSession, DirectoryId, ReadyPiece, Standing};
use protocol::entry::{Entry, Kind, Timestamp};
use protocol::frame::{HEADER_BYTES, Header};
use protocol::matcher::{Matcher, Op, Signature};
use protocol::message::{
    Begin, Data, DataBuilder, Failure, Finished, Message, OwnerNames, Piece, ReadFile, Request, Scanned,
    Step, Want, signature_frame,
};
use protocol::options::{Preserve, SyncOptions};
use protocol::path::{Name, RelPath};
use protocol::signature::{BlockSize, calculate};
use protocol::source::{SourceEvent, SourceSession};
use protocol::stats::{Exit, Operation, Stats, Times};
use protocol::{ProtocolError, limits};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

#[test]
fn any_tree_in_any_order_of_events_arrives_whole() {
    let plain = Variant::default();
    let totals = run_seeds("plain", 0..400, &plain);
    assert!(totals.deltas > 100 && totals.multi_piece_directories > 100, "{totals:?}");
}

#[test]
fn files_that_vanish_change_or_cannot_be_read_fail_alone() {
    let variant = Variant { failing_percent: 30, ..Variant::default() };
    let totals = run_seeds("failing files", 1000..1250, &variant);
    assert!(totals.failures > 1000, "{totals:?}");
}

#[test]
fn directories_that_are_skipped_or_absent_are_passed_over_with_all_that_is_in_them() {
    let variant = Variant { refused_percent: 30, failing_percent: 5, ..Variant::default() };
    let totals = run_seeds("standings", 2000..2250, &variant);
    assert!(totals.refused_directories > 500, "{totals:?}");
}

#[test]
fn signatures_beyond_the_budget_wait_for_their_turn() {
    let variant = Variant { huge_bases: true, kept_percent: 0, failing_percent: 10, ..Variant::default() };
    let totals = run_seeds("signature budget", 3000..3150, &variant);
    assert!(totals.budget_waits > 50, "{totals:?}");
}

#[test]
fn a_tree_beyond_the_window_arrives_through_it() {
    let variant = Variant {
        entries: 90_000,
        piece_entries: limits::PIECE_ENTRIES,
        directories_percent: 0,
        first_directories: 3,
        kept_percent: 100,
        careful: false,
        ..Variant::default()
    };
    let totals = run_seeds("window", 4000..4003, &variant);
    assert!(totals.window_closed > 0, "{totals:?}");
}

#[test]
fn a_fault_in_any_frame_ends_in_a_typed_error_or_in_the_right_tree() {
    let variant = Variant { entries: 26, failing_percent: 10, ..Variant::default() };
    let mut outcomes = BTreeMap::<(&str, &str), u64>::new();
    for seed in 5000..5012 {
        let frames = Simulation::new(seed, &variant, None).run().frames;
        for at in 0..frames {
            for fault in Fault::all_at(seed, at) {
                let announced = Announced::new(format!("seed {seed}, {fault:?}"));
                let end = Simulation::new(seed, &variant, Some(fault)).run();
                *outcomes.entry((fault.name(), end.check(fault))).or_default() += 1;
                drop(announced);
            }
        }
    }
    let runs: u64 = outcomes.values().sum();
    println!("faults: {runs} runs: {outcomes:?}");
    assert!(runs > 1000);
}

// Seeds.

/// Prints what it is about if the test fails while it lives.
struct Announced(String);

impl Announced {
    fn new(what: String) -> Announced {
        Announced(what)
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed at: {}", self.0);
        }
    }
}

fn run_seeds(what: &str, seeds: std::ops::Range<u64>, variant: &Variant) -> Totals {
    let mut totals = Totals::default();
    for seed in seeds {
        let announced = Announced::new(format!("{what}, seed {seed}"));
        let end = Simulation::new(seed, variant, None).run();
        assert!(matches!(end.outcome, Outcome::Complete), "seed {seed}: {:?}", end.outcome);
        assert_eq!(first_difference(&end.tree, &end.expected), None, "seed {seed}");
        totals.add(&end.totals);
        drop(announced);
    }
    println!("{what}: {totals:?}");
    totals
}

#[derive(Debug, Default, Clone, Copy)]
struct Totals {
    runs: u64,
    steps: u64,
    frames: u64,
    files: u64,
    deltas: u64,
    failures: u64,
    refused_directories: u64,
    multi_piece_directories: u64,
    budget_waits: u64,
    window_closed: u64,
    completed_directories: u64,
}

impl Totals {
    fn add(&mut self, run: &Totals) {
        self.runs += 1;
        self.steps += run.steps;
        self.frames += run.frames;
        self.files += run.files;
        self.deltas += run.deltas;
        self.failures += run.failures;
        self.refused_directories += run.refused_directories;
        self.multi_piece_directories += run.multi_piece_directories;
        self.budget_waits += run.budget_waits;
        self.window_closed += run.window_closed;
        self.completed_directories += run.completed_directories;
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// What a simulation is of.
#[derive(Debug, Clone)]
struct Variant {
    entries: usize,
    /// Most entries in a piece; a run picks its own bound up to this.
    piece_entries: usize,
    directories_percent: usize,
    /// Directories that exist before the rest of the tree is grown.
    first_directories: usize,
    /// Files that the destination has already.
    kept_percent: usize,
    failing_percent: usize,
    refused_percent: usize,
    /// Some bases are said to be so long that two of them use up the signature budget.
    huge_bases: bool,
    /// Everything below a completing directory is looked at: quadratic.
    careful: bool,
}

impl Default for Variant {
    fn default() -> Variant {
        Variant {
            entries: 120,
            piece_entries: 8,
            directories_percent: 25,
            first_directories: 0,
            kept_percent: 20,
            failing_percent: 0,
            refused_percent: 0,
            huge_bases: false,
            careful: true,
        }
    }
}

// Trees.

/// What becomes of a source file between its listing and its reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Sound,
    Vanishes,
    Unreadable,
    /// It changes under the first so many readings.
    Changes(u8),
}

impl Fate {
    fn arrives(self) -> bool {
        matches!(self, Fate::Sound) || matches!(self, Fate::Changes(times) if times <= limits::CHANGE_RETRIES)
    }
}

#[derive(Debug, Clone)]
enum What {
    Directory,
    Link(Vec<u8>),
    File { content: Vec<u8>, fate: Fate, young: bool },
}

type SourceTree = BTreeMap<RelPath, BTreeMap<Name, What>>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory,
    Link(Vec<u8>),
    File(Vec<u8>),
}

type Tree = BTreeMap<RelPath, Node>;

/// The first path at which two trees differ.
fn first_difference(ours: &Tree, expected: &Tree) -> Option<String> {
    let mut paths = ours.keys().chain(expected.keys());
    let differing = paths.find(|path| ours.get(path) != expected.get(path))?;
    let shown = |tree: &Tree| match tree.get(differing) {
        Some(Node::File(content)) => format!("a file of {} bytes", content.len()),
        other => format!("{other:?}"),
    };
    Some(format!("{differing}: {} instead of {}", shown(ours), shown(expected)))
}

fn random_name(random: &mut Random, number: usize) -> Name {
    const ODD: [u8; 12] = *b"ab.-\n\xff\x1b \\*z~";
    let odd: Vec<u8> = (0..random.below(5)).map(|_| ODD[random.below(ODD.len())]).collect();
    Name::new([&odd[..], number.to_string().as_bytes()].concat()).unwrap()
}

fn random_fate(random: &mut Random, variant: &Variant) -> Fate {
    if !random.chance(variant.failing_percent) {
        return Fate::Sound;
    }
    match random.below(4) {
        0 => Fate::Vanishes,
        1 => Fate::Unreadable,
        2 => Fate::Changes(1 + random.below(2) as u8),
        _ => Fate::Changes(limits::CHANGE_RETRIES + 1),
    }
}

fn random_content(random: &mut Random, variant: &Variant) -> Vec<u8> {
    let length = match random.below(20) {
        _ if variant.entries > 10_000 => random.below(3),
        0..=2 => 17_000 + random.below(20_000),
        3..=11 if variant.huge_bases => 17_000 + random.below(20_000),
        3..=8 => random.below(4_000),
        9 => 0,
        _ => random.below(200),
    };
    random.bytes(length)
}

fn random_source(random: &mut Random, variant: &Variant) -> SourceTree {
    let mut tree = SourceTree::from([(RelPath::root(), BTreeMap::new())]);
    let mut directories = vec![RelPath::root()];
    for number in 0..variant.entries {
        let at = match random.below(3) {
            0 => directories.len() - 1,
            1 => 0,
            _ => random.below(directories.len()),
        };
        let parent = directories[at].clone();
        let name = random_name(random, number);
        let what = if number < variant.first_directories || random.chance(variant.directories_percent) {
            let path = parent.join(&name);
            tree.insert(path.clone(), BTreeMap::new());
            directories.push(path);
            What::Directory
        } else if random.chance(5) {
            What::Link(random.bytes(4).iter().map(|byte| byte | 1).collect())
        } else {
            let fate = random_fate(random, variant);
            What::File { content: random_content(random, variant), fate, young: random.chance(10) }
        };
        tree.get_mut(&parent).unwrap().insert(name, what);
    }
    tree
}

/// A destination that has some of the source's tree, some of it older.
fn random_destination(random: &mut Random, variant: &Variant, source: &SourceTree) -> Tree {
    let mut tree = Tree::from([(RelPath::root(), Node::Directory)]);
    for (directory, entries) in source {
        if !tree.contains_key(directory) {
            continue;
        }
        for (name, what) in entries {
            let kept = random.chance(variant.kept_percent);
            let node = match what {
                What::Directory if kept || random.chance(50) => Node::Directory,
                What::Link(target) if kept => Node::Link(target.clone()),
                What::File { content, .. } if kept => Node::File(content.clone()),
                What::File { content, .. } if random.chance(40) => Node::File(older(random, content)),
                _ => continue,
            };
            tree.insert(directory.join(name), node);
        }
    }
    tree
}

fn older(random: &mut Random, content: &[u8]) -> Vec<u8> {
    let mut old = content.to_vec();
    for _ in 0..1 + random.below(3) {
        let at = random.below(old.len() + 1);
        match random.below(3) {
            0 => {
                old.splice(at..at, *b"inserted");
            }
            1 => old.truncate(at.max(old.len() / 2)),
            _ if at < old.len() => old[at] ^= 0x55,
            _ => old.push(7),
        }
    }
    old
}

/// The modification time stands for the content, so that the quick check is right.
fn entry(name: &Name, node: &Node, young: bool) -> Entry {
    let (kind, content) = match node {
        Node::Directory => (Kind::Directory, &b""[..]),
        Node::Link(target) => (Kind::Symlink { target: target.clone() }, &b""[..]),
        Node::File(content) => (Kind::File { size_bytes: content.len() as u64 }, &content[..]),
    };
    let hash = blake3::hash(content);
    let secs = i64::from_le_bytes(*hash.as_bytes().first_chunk::<8>().unwrap());
    let mtime = Timestamp { secs, nanos: 0 };
    Entry { name: name.clone(), kind, mode: 0o644, uid: 0, gid: 0, mtime, young }
}

fn node_of(what: &What) -> Node {
    match what {
        What::Directory => Node::Directory,
        What::Link(target) => Node::Link(target.clone()),
        What::File { content, .. } => Node::File(content.clone()),
    }
}

fn is_below(path: &RelPath, directory: &RelPath) -> bool {
    let (path, directory) = (path.as_bytes(), directory.as_bytes());
    directory.is_empty() && !path.is_empty()
        || path.strip_prefix(directory).is_some_and(|rest| rest.first() == Some(&b'/'))
}

// The wire.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fault {
    /// Counted over both directions, in the order of sending.
    at: usize,
    damage: Damage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// This frame and all after it, either way, are lost.
    Cut,
    Duplicate,
    SwapWithNext,
    /// So much of it is there, in 256ths, but neither nothing nor all; the stream goes on.
    Truncate(u8),
    /// One bit, the position in 65,536ths of the frame.
    Flip(u16),
}

impl Fault {
    fn all_at(seed: u64, at: usize) -> Vec<Fault> {
        let mut random = Random(seed ^ (at as u64) << 32);
        let mut damages = vec![Damage::Cut, Damage::Duplicate, Damage::SwapWithNext];
        damages.extend((0..2).map(|_| Damage::Truncate(random.next() as u8)));
        damages.extend((0..8).map(|_| Damage::Flip(random.next() as u16)));
        damages.into_iter().map(|damage| Fault { at, damage }).collect()
    }

    fn name(self) -> &'static str {
        match self.damage {
            Damage::Cut => "cut",
            Damage::Duplicate => "duplicate",
            Damage::SwapWithNext => "swap",
            Damage::Truncate(_) => "truncate",
            Damage::Flip(_) => "flip",
        }
    }
}

/// One direction of the connection.
#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    /// A frame that waits to be overtaken.
    overtaken: Option<Vec<u8>>,
}

impl Pipe {
    fn send(&mut self, mut frame: Vec<u8>, damage: Option<Damage>) {
        match damage {
            Some(Damage::Cut) => return,
            Some(Damage::Duplicate) => self.bytes.extend(&frame),
            Some(Damage::SwapWithNext) => {
                self.overtaken = Some(frame);
                return;
            }
            Some(Damage::Truncate(part)) => {
                frame.truncate((frame.len() * usize::from(part) / 256).clamp(1, frame.len() - 1));
            }
            Some(Damage::Flip(place)) => {
                let bit = frame.len() * 8 * usize::from(place) / 65_536;
                frame[bit / 8] ^= 1 << (bit % 8);
            }
            None => {}
        }
        self.bytes.extend(frame);
        if let Some(overtaken) = self.overtaken.take() {
            self.bytes.extend(overtaken);
        }
    }

    /// Whether what is left begins with all that a reader waits for.
    fn has_frame(&self) -> bool {
        if self.bytes.len() < HEADER_BYTES {
            return false;
        }
        Header::new(self.header())
            .map_or(true, |header| self.bytes.len() >= HEADER_BYTES + header.body_bytes())
    }

    fn header(&self) -> [u8; HEADER_BYTES] {
        std::array::from_fn(|i| self.bytes[i])
    }

    fn receive(&mut self) -> Result<Message, ProtocolError> {
        let header = Header::new(self.header())?;
        self.bytes.drain(..HEADER_BYTES);
        let mut frame = header.frame();
        let body: Vec<u8> = self.bytes.drain(..header.body_bytes()).collect();
        frame.body_mut().copy_from_slice(&body);
        Message::decode(frame.open()?)
    }
}

// The source's end.

struct Cursor {
    path: RelPath,
    /// Entries that were listed already.
    position: usize,
}

/// A requested file on its way.
struct Answer {
    request: Request,
    content: Vec<u8>,
    /// This reading finds the file changed.
    changed: bool,
    position: usize,
    matcher: Option<Matcher>,
}

struct Lane {
    builder: DataBuilder,
    answer: Option<Answer>,
}

struct SourceEnd {
    session: SourceSession,
    tree: SourceTree,
    begun: bool,
    scanned: bool,
    scanning: Vec<Cursor>,
    next_list: u32,
    pieces: HashMap<u32, (RelPath, Vec<Name>)>,
    jobs: VecDeque<Request>,
    feeds: HashMap<u32, Vec<u8>>,
    lanes: Vec<Lane>,
    readings: HashMap<RelPath, u8>,
    finished: bool,
    /// Model: entries announced and not released, requests of a list not answered.
    in_window: usize,
    unanswered: HashMap<u32, u32>,
}

impl SourceEnd {
    fn new(tree: SourceTree) -> SourceEnd {
        let lane = |number| Lane { builder: DataBuilder::new(number), answer: None };
        SourceEnd {
            session: SourceSession::default(),
            tree,
            begun: false,
            scanned: false,
            scanning: Vec::new(),
            next_list: 0,
            pieces: HashMap::new(),
            jobs: VecDeque::new(),
            feeds: HashMap::new(),
            lanes: vec![lane(0), lane(1)],
            readings: HashMap::new(),
            finished: false,
            in_window: 0,
            unanswered: HashMap::new(),
        }
    }

    /// The next piece of a directory; its cursor moves on or goes.
    fn cut_piece(&mut self, at: usize, most: usize) -> (Piece, Vec<RelPath>) {
        let cursor = &mut self.scanning[at];
        let directory = cursor.path.clone();
        let all = &self.tree[&directory];
        let part = all.iter().skip(cursor.position).take(most);
        let mut entries = Vec::new();
        let mut below = Vec::new();
        for (name, what) in part {
            let young = matches!(what, What::File { young: true, .. });
            entries.push(entry(name, &node_of(what), young));
            below.extend(matches!(what, What::Directory).then(|| directory.join(name)));
        }
        cursor.position += entries.len();
        let last = cursor.position == all.len();
        if last {
            self.scanning.swap_remove(at);
        }
        let list = self.next_list;
        self.next_list += 1;
        self.pieces
            .insert(list, (directory.clone(), entries.iter().map(|entry| entry.name.clone()).collect()));
        (Piece { list, directory, last, complete: true, names: OwnerNames::default(), entries }, below)
    }

    /// Lists up to three pieces in one frame, as far as the window allows.
    fn list(&mut self, random: &mut Random, most: usize) -> Message {
        let mut pieces = Vec::new();
        let mut found = Vec::new();
        for _ in 0..1 + random.below(3) {
            if self.scanning.is_empty() || !self.session.window_is_open() {
                break;
            }
            let at = random.below(self.scanning.len());
            let (piece, below) = self.cut_piece(at, most);
            self.session.announce(&piece);
            self.in_window += piece.entries.len().max(1);
            assert!(self.in_window <= limits::WINDOW_ENTRIES, "the window was exceeded");
            pieces.push(piece);
            found.extend(below);
        }
        self.scanning.extend(found.into_iter().map(|path| Cursor { path, position: 0 }));
        Message::List(pieces)
    }

    fn lane_can_advance(&self, lane: usize) -> bool {
        match &self.lanes[lane].answer {
            None => !self.jobs.is_empty(),
            Some(Answer { matcher: None, .. }) => true,
            Some(Answer { request, content, matcher: Some(matcher), .. }) => {
                let arrived = self.feeds.get(&request.file).map_or(0, Vec::len) as u64;
                let signature = matcher.signature();
                let blocks = arrived / protocol::signature::ENTRY_BYTES as u64;
                let known = signature.known_bytes() + blocks * signature.block_bytes() as u64;
                let Want::Delta { basis_bytes, .. } = request.want else { return true };
                known >= basis_bytes.min(content.len() as u64)
            }
        }
    }

    /// One step of what a sending thread does.
    fn advance_lane(&mut self, random: &mut Random, number: usize) -> Result<(), ProtocolError> {
        let Some(mut answer) = self.lanes[number].answer.take() else {
            let request = self.jobs.pop_front().unwrap();
            return self.start_answer(random, number, request);
        };
        let file = answer.request.file;
        let builder = &mut self.lanes[number].builder;
        if let Some(matcher) = &mut answer.matcher {
            let arrived = self.feeds.remove(&file).unwrap_or_default();
            matcher.signature_mut().extend(&arrived)?;
            let mut ops = Vec::new();
            let used = matcher.advance(&answer.content, true, &mut ops);
            assert_eq!(used, answer.content.len());
            for op in ops {
                match op {
                    Op::Match { block, count } => builder.step(file, Step::Match { block, count }),
                    Op::Literal(range) => builder.literal(file, &answer.content[range]),
                }
            }
            answer.position = answer.content.len();
        }
        let left = &answer.content[answer.position..];
        if !left.is_empty() {
            let now = 1 + random.below(left.len().min(9000));
            let now = now.min(builder.room_bytes().max(1));
            builder.literal(file, &left[..now]);
            answer.position += now;
            let breaks_off = answer.changed && random.chance(30);
            if !breaks_off {
                self.lanes[number].answer = Some(answer);
                return Ok(());
            }
        }
        let last =
            if answer.changed { Step::Failed(Failure::Changed) } else { Step::End(read(&answer.content)) };
        builder.step(file, last);
        self.answered(answer.request);
        Ok(())
    }

    fn start_answer(
        &mut self,
        random: &mut Random,
        number: usize,
        request: Request,
    ) -> Result<(), ProtocolError> {
        let (directory, names) = &self.pieces[&request.list];
        let name = &names[request.index as usize];
        let path = directory.join(name);
        let What::File { content, fate, .. } = &self.tree[directory][name] else {
            panic!("the session let a request for something else than a file through");
        };
        let reading = self.readings.entry(path).or_default();
        *reading += 1;
        let changed = matches!(fate, Fate::Changes(times) if *reading <= *times);
        let builder = &mut self.lanes[number].builder;
        let at_once = match (fate, request.want) {
            (Fate::Vanishes, _) => Some(Step::Failed(Failure::Vanished)),
            (Fate::Unreadable, _) => {
                Some(Step::Failed(Failure::Errno { operation: Operation::Read, errno: 5 }))
            }
            _ if changed && random.chance(50) => Some(Step::Failed(Failure::Changed)),
            (_, Want::Hash) => Some(Step::Hashed { size_bytes: content.len() as u64, read: read(content) }),
            _ => None,
        };
        if let Some(step) = at_once {
            builder.step(request.file, step);
            self.answered(request);
            return Ok(());
        }
        let is_small = content.len() as u64 <= limits::SMALL_FILE_BYTES;
        if request.want == Want::Whole && is_small && !changed {
            builder.small(request.file, content, read(content));
            self.answered(request);
            return Ok(());
        }
        builder.step(request.file, Step::Open { size_bytes: content.len() as u64 });
        let matcher = match request.want {
            Want::Delta { block_size, basis_bytes } => {
                let size = BlockSize::new(block_size, basis_bytes)?;
                Some(Matcher::new(Signature::new(size, basis_bytes)))
            }
            _ => None,
        };
        let content = content.clone();
        self.lanes[number].answer = Some(Answer { request, content, changed, position: 0, matcher });
        Ok(())
    }

    fn answered(&mut self, request: Request) {
        self.session.answered(request.file);
        self.feeds.remove(&request.file);
        if let Some(unanswered) = self.unanswered.get_mut(&request.list) {
            *unanswered -= 1;
        }
    }

    fn receive(&mut self, message: Message) -> Result<(), ProtocolError> {
        match self.session.receive(message)? {
            SourceEvent::Requests(requests) => {
                for request in requests {
                    *self.unanswered.entry(request.list).or_default() += 1;
                    if matches!(request.want, Want::Delta { .. }) {
                        self.feeds.insert(request.file, Vec::new());
                    }
                    self.jobs.push_back(request);
                }
            }
            SourceEvent::Signature { file, blocks } => {
                if let Some(feed) = self.feeds.get_mut(&file) {
                    feed.extend_from_slice(blocks.as_slice());
                }
            }
            SourceEvent::Released(lists) => {
                for list in lists {
                    assert_eq!(self.unanswered.remove(&list).unwrap_or(0), 0, "released while under way");
                    let (_, names) = self.pieces.remove(&list).unwrap();
                    self.in_window -= names.len().max(1);
                }
            }
            SourceEvent::Finished(_) => {
                assert!(self.session.is_finished());
                self.finished = true;
            }
            SourceEvent::Reports(_) | SourceEvent::Aborted(_) | SourceEvent::Nothing => {}
        }
        Ok(())
    }
}

fn read(content: &[u8]) -> ReadFile {
    ReadFile { hash: blake3::hash(content).into(), mtime: Timestamp::default() }
}

// The destination's end.

#[derive(Debug, Clone)]
struct Target {
    directory: DirectoryId,
    parent: RelPath,
    path: RelPath,
    list: u32,
    index: u32,
    changes: u8,
    mismatches: u8,
}

struct Flight {
    target: Target,
    want: Want,
    basis: Vec<u8>,
    written: Vec<u8>,
    ours: Option<blake3::Hash>,
    theirs: Option<ReadFile>,
}

enum Task {
    /// Ask for a delta, when the budget has room.
    Ask(Target),
    /// Send the rest of a signature.
    Sign { file: u32, list: u32, blocks: Vec<u8> },
    /// Hash the own file for a comparison.
    Hash(u32),
}

struct Commit {
    target: Target,
    node: Node,
}

struct DestinationEnd {
    session: DestinationSession<RelPath>,
    tree: Tree,
    options: SyncOptions,
    begun: bool,
    ready: Vec<ReadyPiece<RelPath>>,
    tasks: Vec<Task>,
    flights: HashMap<u32, Flight>,
    commits: Vec<Commit>,
    /// Directories held to the end, as for deletions.
    held: Vec<(DirectoryId, RelPath)>,
    released: Vec<u32>,
    finished: bool,
    scanned: bool,
    /// Model: what each directory still waits for, those that must complete, those that did.
    busy: BTreeMap<RelPath, u32>,
    due: HashSet<RelPath>,
    present: HashSet<RelPath>,
    completed: HashSet<RelPath>,
    refused: HashSet<RelPath>,
}

impl DestinationEnd {
    fn new(tree: Tree) -> DestinationEnd {
        let preserve = Preserve { links: true, perms: true, times: true, ..Preserve::default() };
        DestinationEnd {
            session: DestinationSession::new(),
            tree,
            options: SyncOptions { recursive: true, preserve, ..SyncOptions::default() },
            begun: false,
            ready: Vec::new(),
            tasks: Vec::new(),
            flights: HashMap::new(),
            commits: Vec::new(),
            held: Vec::new(),
            released: Vec::new(),
            finished: false,
            scanned: false,
            busy: BTreeMap::new(),
            due: HashSet::new(),
            present: HashSet::new(),
            completed: HashSet::new(),
            refused: HashSet::new(),
        }
    }

    fn hold(&mut self, id: DirectoryId, path: &RelPath) {
        self.session.hold(id);
        *self.busy.entry(path.clone()).or_default() += 1;
    }

    fn let_go(&mut self, id: DirectoryId, path: &RelPath) {
        *self.busy.get_mut(path).unwrap() -= 1;
        self.session.let_go(id);
    }

    fn touch(&mut self, id: DirectoryId, path: &RelPath) {
        self.session.touch(id);
        self.due.insert(path.clone());
    }

    fn stands(&mut self, path: &RelPath, standing: &Standing<RelPath>) {
        if *standing != Standing::Skipped {
            *self.busy.entry(path.clone()).or_default() += 1;
        }
        match standing {
            Standing::Present { differs, .. } => {
                self.present.insert(path.clone());
                if *differs {
                    self.due.insert(path.clone());
                }
            }
            _ => {
                self.refused.insert(path.clone());
            }
        }
    }

    /// Hands on what the session has made possible.
    fn advance(&mut self) {
        while let Some(ready) = self.session.next_piece() {
            self.ready.push(ready);
        }
        self.released.extend(self.session.take_released());
    }

    fn receive(&mut self, random: &mut Random, message: Message) -> Result<Vec<Message>, ProtocolError> {
        let mut replies = Vec::new();
        match self.session.receive(message)? {
            DestinationEvent::Begin(_) => {
                self.begun = true;
                let root = RelPath::root();
                let standing = Standing::Present { metadata: Some(Box::new(root.clone())), differs: true };
                self.stands(&root, &standing);
                self.session.root_stands(standing);
            }
            DestinationEvent::Scanned(_) => self.scanned = true,
            DestinationEvent::Data(data) => self.data(random, &data, &mut replies),
            _ => {}
        }
        self.advance();
        Ok(replies)
    }

    /// Merges a piece and returns the requests that come of it.
    fn merge(
        &mut self,
        random: &mut Random,
        variant: &Variant,
        at: usize,
        totals: &mut Totals,
    ) -> Vec<Request> {
        let ReadyPiece { directory, standing, piece } = self.ready.swap_remove(at);
        let mut requests = Vec::new();
        let mut standings = Vec::new();
        for (index, entry) in piece.entries.iter().enumerate() {
            let path = piece.directory.join(&entry.name);
            if entry.is_dir() {
                let child = self.directory(random, variant, directory, &piece.directory, &path, &standing);
                totals.refused_directories += u64::from(!matches!(child, Standing::Present { .. }));
                self.stands(&path, &child);
                standings.push((entry.name.clone(), child));
                continue;
            }
            if matches!(standing, Standing::Absent) {
                continue;
            }
            let target = Target {
                directory,
                parent: piece.directory.clone(),
                path,
                list: piece.list,
                index: u32::try_from(index).unwrap(),
                changes: 0,
                mismatches: 0,
            };
            requests.extend(self.entry(entry, target));
        }
        if piece.last && random.chance(10) {
            self.hold(directory, &piece.directory);
            self.held.push((directory, piece.directory.clone()));
        }
        if piece.last
            && let Some(busy) = self.busy.get_mut(&piece.directory)
        {
            *busy -= 1;
        }
        self.session.merged(directory, &piece, standings);
        self.advance();
        requests
    }

    fn directory(
        &mut self,
        random: &mut Random,
        variant: &Variant,
        parent_id: DirectoryId,
        parent: &RelPath,
        path: &RelPath,
        parent_standing: &Standing<RelPath>,
    ) -> Standing<RelPath> {
        if matches!(parent_standing, Standing::Absent) {
            return Standing::Absent;
        }
        if random.chance(variant.refused_percent) {
            return if random.chance(50) { Standing::Absent } else { Standing::Skipped };
        }
        let is_new = self.tree.insert(path.clone(), Node::Directory) != Some(Node::Directory);
        if is_new {
            self.touch(parent_id, parent);
        }
        let differs = is_new || random.chance(30);
        Standing::Present { metadata: Some(Box::new(path.clone())), differs }
    }

    fn entry(&mut self, entry: &Entry, target: Target) -> Option<Request> {
        let existing = self.tree.get(&target.path).map(|node| self::entry(&entry.name, node, false));
        let (action, _) = decide(entry, existing.as_ref(), &self.options);
        let (id, parent) = (target.directory, target.parent.clone());
        match action {
            Action::Skip | Action::Keep | Action::SetMetadata => None,
            Action::Make => {
                let Kind::Symlink { target: to } = &entry.kind else { return None };
                self.hold(id, &parent);
                self.commits.push(Commit { target, node: Node::Link(to.clone()) });
                None
            }
            Action::Transfer { .. } => {
                self.hold(id, &parent);
                let basis_bytes = existing.map_or(0, |existing| existing.size_bytes());
                if entry.size_bytes().min(basis_bytes) > limits::SMALL_FILE_BYTES {
                    self.session.reserve(target.list);
                    self.tasks.push(Task::Ask(target));
                    return None;
                }
                Some(self.request(target, Want::Whole, Vec::new()))
            }
            Action::Compare => {
                self.hold(id, &parent);
                let request = self.request(target, Want::Hash, Vec::new());
                self.tasks.push(Task::Hash(request.file));
                Some(request)
            }
        }
    }

    fn request(&mut self, target: Target, want: Want, basis: Vec<u8>) -> Request {
        let request = self.session.request(target.list, target.index, want);
        self.flying(request.expect("only deltas need room"), target, want, basis)
    }

    fn flying(&mut self, request: Request, target: Target, want: Want, basis: Vec<u8>) -> Request {
        let flight = Flight { target, want, basis, written: Vec::new(), ours: None, theirs: None };
        assert!(self.flights.insert(request.file, flight).is_none(), "a number was given twice");
        request
    }

    /// Carries out a bit of a task.
    fn work(
        &mut self,
        random: &mut Random,
        variant: &Variant,
        at: usize,
        totals: &mut Totals,
    ) -> Vec<Message> {
        match self.tasks.swap_remove(at) {
            Task::Ask(target) => self.ask(random, variant, target, totals),
            Task::Sign { file, list, mut blocks } => {
                let length = protocol::signature::ENTRY_BYTES * (1 + random.below(40));
                let now = length.min(blocks.len());
                let rest = blocks.split_off(now);
                if rest.is_empty() {
                    self.session.unreserve(list);
                    self.advance();
                } else {
                    self.tasks.push(Task::Sign { file, list, blocks: rest });
                }
                vec![Message::decode(signature_frame(file, &blocks)).unwrap()]
            }
            Task::Hash(file) => {
                if let Some(flight) = self.flights.get_mut(&file)
                    && let Some(Node::File(content)) = self.tree.get(&flight.target.path)
                {
                    flight.ours = Some(blake3::hash(content));
                }
                let reply = self.compare(file);
                self.advance();
                reply.into_iter().collect()
            }
        }
    }

    fn ask(
        &mut self,
        random: &mut Random,
        variant: &Variant,
        target: Target,
        totals: &mut Totals,
    ) -> Vec<Message> {
        let basis = match self.tree.get(&target.path) {
            Some(Node::File(content)) => content.clone(),
            _ => Vec::new(),
        };
        let huge = variant.huge_bases && random.chance(60);
        let basis_bytes = if huge { 510 << 20 } else { basis.len() as u64 };
        let block_size = 512 << if huge { 0 } else { random.below(4) };
        let want = Want::Delta { block_size, basis_bytes };
        let Some(request) = self.session.request(target.list, target.index, want) else {
            totals.budget_waits += 1;
            self.tasks.push(Task::Ask(target));
            return Vec::new();
        };
        totals.deltas += 1;
        let list = target.list;
        let size = BlockSize::new(block_size, basis_bytes).unwrap();
        let whole_blocks = if huge { basis.len() - basis.len() % 512 } else { basis.len() };
        let mut blocks = calculate(&basis[..whole_blocks], size);
        if huge {
            // The source reads no further than its own file is long; what no block has matches nothing.
            blocks.resize(protocol::signature::ENTRY_BYTES * 200, 0);
        }
        self.flying(request, target, want, basis);
        self.tasks.push(Task::Sign { file: request.file, list, blocks });
        vec![Message::Request(vec![request])]
    }

    /// Takes in answers that the session has checked.
    fn data(&mut self, random: &mut Random, data: &Data, replies: &mut Vec<Message>) {
        let mut bulk = data.bulk.as_slice();
        for record in &data.records {
            let mut take = |bytes: u32| {
                let (now, rest) = bulk.split_at(bytes as usize);
                bulk = rest;
                now
            };
            let file = record.file;
            let Some(flight) = self.flights.get_mut(&file) else { continue };
            match record.step {
                Step::Open { .. } => {}
                Step::Literal { bytes } => flight.written.extend_from_slice(take(bytes)),
                Step::Match { block, count } => {
                    let Want::Delta { block_size, .. } = flight.want else {
                        panic!("a match without a basis")
                    };
                    let size = block_size as usize;
                    let from = (block as usize).saturating_mul(size).min(flight.basis.len());
                    let to = (block as usize + count as usize).saturating_mul(size).min(flight.basis.len());
                    flight.written.extend_from_slice(&flight.basis[from..to]);
                }
                Step::End(read) => replies.extend(self.end(file, read)),
                Step::Small { bytes, read } => {
                    flight.written = take(bytes).to_vec();
                    replies.extend(self.end(file, read));
                }
                Step::Hashed { read, .. } => {
                    flight.theirs = Some(read);
                    replies.extend(self.compare(file));
                }
                Step::Failed(failure) => replies.extend(self.failed(random, file, failure)),
            }
        }
    }

    fn end(&mut self, file: u32, read: ReadFile) -> Option<Message> {
        let flight = &mut self.flights.get_mut(&file).unwrap();
        if *blake3::hash(&flight.written).as_bytes() == read.hash {
            let (target, content) = (flight.target.clone(), std::mem::take(&mut flight.written));
            self.commits.push(Commit { target, node: Node::File(content) });
            self.resolve(file);
            return None;
        }
        let target = flight.target.clone();
        if target.mismatches > 0 {
            self.give_up(file);
            return None;
        }
        Some(self.again(file, Target { mismatches: 1, ..target }, Want::Whole))
    }

    /// Asks once more, before the first request is resolved.
    fn again(&mut self, file: u32, target: Target, want: Want) -> Message {
        let request = self.request(target, want, Vec::new());
        if want == Want::Hash {
            self.tasks.push(Task::Hash(request.file));
        }
        self.resolve(file);
        Message::Request(vec![request])
    }

    fn failed(&mut self, random: &mut Random, file: u32, failure: Failure) -> Option<Message> {
        let flight = &self.flights[&file];
        let (target, want) = (flight.target.clone(), flight.want);
        if failure != Failure::Changed || target.changes >= limits::CHANGE_RETRIES {
            self.give_up(file);
            return None;
        }
        let target = Target { changes: target.changes + 1, ..target };
        match want {
            Want::Delta { .. } if random.chance(70) => {
                self.session.reserve(target.list);
                self.tasks.push(Task::Ask(target));
                self.resolve(file);
                None
            }
            Want::Hash => Some(self.again(file, target, Want::Hash)),
            _ => Some(self.again(file, target, Want::Whole)),
        }
    }

    fn compare(&mut self, file: u32) -> Option<Message> {
        let flight = self.flights.get(&file)?;
        let (ours, theirs) = (flight.ours?, flight.theirs?);
        if *ours.as_bytes() == theirs.hash {
            self.give_up(file);
            return None;
        }
        let target = flight.target.clone();
        Some(self.again(file, target, Want::Whole))
    }

    fn resolve(&mut self, file: u32) {
        self.flights.remove(&file);
        self.session.resolve(file);
        self.advance();
    }

    fn give_up(&mut self, file: u32) {
        let target = self.flights[&file].target.clone();
        self.let_go(target.directory, &target.parent);
        self.resolve(file);
    }

    fn commit(&mut self, at: usize) {
        let Commit { target, node } = self.commits.swap_remove(at);
        self.tree.insert(target.path.clone(), node);
        self.touch(target.directory, &target.parent);
        self.let_go(target.directory, &target.parent);
    }

    fn complete(&mut self, careful: bool) {
        for directory in self.session.take_complete() {
            let path = directory.path;
            assert_eq!(*directory.metadata, path, "another directory's metadata");
            assert!(self.due.contains(&path), "{path} completed without a reason");
            if careful {
                let waiting =
                    self.busy.iter().find(|(at, count)| **count > 0 && (**at == path || is_below(at, &path)));
                assert_eq!(waiting, None, "{path} completed too early");
                let below = self.due.iter().filter(|at| is_below(at, &path) && self.present.contains(at));
                let open: Vec<_> = below.filter(|at| !self.completed.contains(at)).collect();
                assert!(open.is_empty(), "{path} completed before {open:?}");
            }
            assert!(self.completed.insert(path), "a directory completed twice");
        }
    }
}

// The simulation.

#[derive(Debug)]
enum Outcome {
    /// The source heard the destination's last word.
    Complete,
    /// One end refused what it received.
    Refused(&'static str, ProtocolError),
    /// Nothing is left that could happen: in the engine, the connection's end or the timeout says so.
    Stalled,
}

struct End {
    outcome: Outcome,
    frames: usize,
    tree: Tree,
    expected: Tree,
    /// Contents that are no file's, neither before nor after.
    torn: bool,
    totals: Totals,
}

impl End {
    /// What came of a fault; panics where it is something that must not be.
    fn check(&self, fault: Fault) -> &'static str {
        assert!(!self.torn, "a file has content that no file ever had");
        let is_right = first_difference(&self.tree, &self.expected).is_none();
        match &self.outcome {
            Outcome::Refused(end, error) => {
                assert!(!error.to_string().is_empty());
                if *end == "source" { "refused by the source" } else { "refused by the destination" }
            }
            Outcome::Stalled => "waits for the rest",
            Outcome::Complete if is_right => "right tree",
            // What a hash protects is content. A bit of a name, a number or a mode is the transport's
            // business; ssh authenticates every packet.
            Outcome::Complete if matches!(fault.damage, Damage::Flip(_)) => "flipped metadata",
            Outcome::Complete => {
                panic!("complete with a wrong tree: {:?}", first_difference(&self.tree, &self.expected))
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Begin,
    List,
    EndScan,
    Advance(usize),
    Flush(usize),
    ToDestination,
    ToSource,
    Merge,
    Work,
    Commit,
    Complete,
    Release,
    LetGo,
    Finish,
}

const EVENT_KINDS: usize = 14;

impl Event {
    fn kind(self) -> usize {
        match self {
            Event::Begin => 0,
            Event::List => 1,
            Event::EndScan => 2,
            Event::Advance(_) => 3,
            Event::Flush(_) => 4,
            Event::ToDestination => 5,
            Event::ToSource => 6,
            Event::Merge => 7,
            Event::Work => 8,
            Event::Commit => 9,
            Event::Complete => 10,
            Event::Release => 11,
            Event::LetGo => 12,
            Event::Finish => 13,
        }
    }
}

struct Simulation {
    random: Random,
    variant: Variant,
    weights: [usize; EVENT_KINDS],
    most_entries: usize,
    source: SourceEnd,
    destination: DestinationEnd,
    before: Tree,
    to_destination: Pipe,
    to_source: Pipe,
    fault: Option<Fault>,
    is_cut: bool,
    totals: Totals,
    frames: usize,
}

impl Simulation {
    fn new(seed: u64, variant: &Variant, fault: Option<Fault>) -> Simulation {
        let mut random = Random(seed);
        let tree = random_source(&mut random, variant);
        let before = random_destination(&mut random, variant, &tree);
        let weights = std::array::from_fn(|_| [1, 2, 8, 30][random.below(4)]);
        let most_entries = if variant.piece_entries > 8 {
            variant.piece_entries
        } else {
            1 + random.below(variant.piece_entries)
        };
        let totals = Totals {
            files: tree.values().map(|entries| entries.len() as u64).sum(),
            multi_piece_directories: tree.values().filter(|entries| entries.len() > most_entries).count()
                as u64,
            ..Totals::default()
        };
        Simulation {
            random,
            variant: variant.clone(),
            weights,
            most_entries,
            source: SourceEnd::new(tree),
            destination: DestinationEnd::new(before.clone()),
            before,
            to_destination: Pipe::default(),
            to_source: Pipe::default(),
            fault,
            is_cut: false,
            totals,
            frames: 0,
        }
    }

    fn run(mut self) -> End {
        let bound = 20_000 + 400 * self.variant.entries as u64;
        let outcome = loop {
            self.totals.steps += 1;
            assert!(self.totals.steps < bound, "no end in sight after {bound} steps");
            let Some(event) = self.next_event() else {
                if let Some(frame) = self.to_destination.overtaken.take() {
                    self.to_destination.bytes.extend(frame);
                } else if let Some(frame) = self.to_source.overtaken.take() {
                    self.to_source.bytes.extend(frame);
                } else {
                    break Outcome::Stalled;
                }
                continue;
            };
            if let Err((end, error)) = self.carry_out(event) {
                break Outcome::Refused(end, error);
            }
            if self.fault.is_none() {
                self.check_idle();
            }
            if self.source.finished {
                break Outcome::Complete;
            }
        };
        self.end(outcome)
    }

    fn next_event(&mut self) -> Option<Event> {
        let (source, destination) = (&self.source, &self.destination);
        let mut possible = Vec::new();
        let mut add = |is_possible: bool, event: Event| possible.extend(is_possible.then_some(event));
        add(!source.begun, Event::Begin);
        let has_more = source.begun && !source.scanning.is_empty();
        add(has_more && source.session.window_is_open(), Event::List);
        add(source.begun && source.scanning.is_empty() && !source.scanned, Event::EndScan);
        for lane in 0..source.lanes.len() {
            let is_full = source.lanes[lane].builder.is_full();
            add(!is_full && source.lane_can_advance(lane), Event::Advance(lane));
            add(!source.lanes[lane].builder.is_empty(), Event::Flush(lane));
        }
        let reads = !destination.finished && !destination.session.is_idle();
        add(reads && self.to_destination.has_frame(), Event::ToDestination);
        add(self.to_source.has_frame(), Event::ToSource);
        add(!destination.ready.is_empty(), Event::Merge);
        add(destination.tasks.iter().any(|task| self.can_work(task)), Event::Work);
        add(!destination.commits.is_empty(), Event::Commit);
        add(destination.begun && !destination.finished && self.random.0.is_multiple_of(16), Event::Complete);
        add(!destination.released.is_empty(), Event::Release);
        add(destination.session.is_idle() && !destination.held.is_empty(), Event::LetGo);
        add(destination.session.is_idle() && !destination.finished, Event::Finish);
        self.totals.window_closed += u64::from(has_more && !source.session.window_is_open());
        if possible.iter().all(|event| *event == Event::Complete) {
            return None;
        }
        let total = possible.iter().map(|event| self.weights[event.kind()]).sum();
        let mut at = self.random.below(total);
        possible.into_iter().find(|event| {
            let weight = self.weights[event.kind()];
            let is_it = at < weight;
            at = at.saturating_sub(weight);
            is_it
        })
    }

    /// A request without room in the budget waits for an answer.
    fn can_work(&self, task: &Task) -> bool {
        !matches!(task, Task::Ask(_))
            || self.destination.flights.values().filter(|f| matches!(f.want, Want::Delta { .. })).count() < 2
            || !self.variant.huge_bases
            || self.random.0.is_multiple_of(4)
    }

    fn carry_out(&mut self, event: Event) -> Result<(), (&'static str, ProtocolError)> {
        match event {
            Event::Begin => {
                self.source.begun = true;
                self.source.scanning.push(Cursor { path: RelPath::root(), position: 0 });
                let begin = Begin { root: None, names: OwnerNames::default(), single: false };
                self.say_to_destination(&Message::Begin(Box::new(begin)));
            }
            Event::List => {
                let message = self.source.list(&mut self.random, self.most_entries);
                self.say_to_destination(&message);
            }
            Event::EndScan => {
                self.source.scanned = true;
                let entries = self.source.tree.values().map(|entries| entries.len() as u64).sum();
                self.say_to_destination(&Message::Scanned(Scanned { entries, bytes: 0 }));
            }
            Event::Advance(lane) => {
                self.source.advance_lane(&mut self.random, lane).map_err(|error| ("source", error))?;
            }
            Event::Flush(lane) => {
                let frame = self.source.lanes[lane].builder.take();
                let bytes = frame.as_bytes().to_vec();
                self.send(bytes, true);
            }
            Event::ToDestination => {
                let refused = |error| ("destination", error);
                let message = self.to_destination.receive().map_err(refused)?;
                let replies = self.destination.receive(&mut self.random, message).map_err(refused)?;
                replies.iter().for_each(|reply| self.say_to_source(reply));
            }
            Event::ToSource => {
                let refused = |error| ("source", error);
                let message = self.to_source.receive().map_err(refused)?;
                self.source.receive(message).map_err(refused)?;
            }
            Event::Merge => {
                let at = self.random.below(self.destination.ready.len());
                let requests = self.destination.merge(&mut self.random, &self.variant, at, &mut self.totals);
                if !requests.is_empty() {
                    self.say_to_source(&Message::Request(requests));
                }
            }
            Event::Work => {
                let at = self.random.below(self.destination.tasks.len());
                let messages = self.destination.work(&mut self.random, &self.variant, at, &mut self.totals);
                messages.iter().for_each(|message| self.say_to_source(message));
            }
            Event::Commit => {
                let at = self.random.below(self.destination.commits.len());
                self.destination.commit(at);
            }
            Event::Complete => self.destination.complete(self.variant.careful && self.fault.is_none()),
            Event::Release => {
                let released = std::mem::take(&mut self.destination.released);
                self.say_to_source(&Message::Release(released));
            }
            Event::LetGo => {
                let (id, path) = self.destination.held.pop().unwrap();
                self.destination.let_go(id, &path);
            }
            Event::Finish => self.finish(),
        }
        Ok(())
    }

    fn finish(&mut self) {
        while !self.destination.commits.is_empty() {
            self.destination.commit(0);
        }
        while let Some((id, path)) = self.destination.held.pop() {
            self.destination.let_go(id, &path);
        }
        self.destination.complete(self.variant.careful && self.fault.is_none());
        if self.fault.is_none() {
            let destination = &self.destination;
            assert!(destination.session.is_complete(), "idle, nothing held, and not complete");
            let due = destination.due.iter().filter(|path| destination.present.contains(path));
            assert_eq!(due.count(), destination.completed.len(), "a directory never completed");
        }
        let released = std::mem::take(&mut self.destination.released);
        if !released.is_empty() {
            self.say_to_source(&Message::Release(released));
        }
        self.destination.finished = true;
        let finished = Finished {
            stats: Stats::default(),
            exit: Exit::Done,
            times: Times::default(),
            source_times: Times::default(),
        };
        self.say_to_source(&Message::Finished(Box::new(finished)));
    }

    fn check_idle(&self) {
        let destination = &self.destination;
        if destination.session.is_idle() {
            assert!(self.source.scanned && destination.scanned, "idle before the scan's end");
            assert!(self.source.scanning.is_empty() && self.source.jobs.is_empty());
            assert!(destination.ready.is_empty(), "idle with pieces to merge");
            assert!(
                destination.tasks.is_empty() && destination.flights.is_empty(),
                "idle with files under way"
            );
        }
        if destination.session.is_complete() {
            assert!(destination.session.is_idle());
            assert!(destination.commits.is_empty() && destination.held.is_empty(), "complete and held");
        }
    }

    fn say_to_destination(&mut self, message: &Message) {
        let frame = message.encode();
        assert_eq!(Message::decode(frame.clone()).as_ref(), Ok(message));
        self.send(frame.as_bytes().to_vec(), true);
    }

    fn say_to_source(&mut self, message: &Message) {
        self.send(message.encode().as_bytes().to_vec(), false);
    }

    fn send(&mut self, frame: Vec<u8>, to_destination: bool) {
        let damage = self.fault.filter(|fault| fault.at == self.frames).map(|fault| fault.damage);
        self.frames += 1;
        self.is_cut |= damage == Some(Damage::Cut);
        if self.is_cut {
            return;
        }
        let pipe = if to_destination { &mut self.to_destination } else { &mut self.to_source };
        pipe.send(frame, damage);
    }

    fn end(mut self, outcome: Outcome) -> End {
        let expected = self.expected();
        let mut contents: HashSet<&[u8]> = HashSet::new();
        let files = self.source.tree.values().flat_map(BTreeMap::values);
        contents.extend(files.filter_map(|what| match what {
            What::File { content, .. } => Some(&content[..]),
            _ => None,
        }));
        contents.extend(self.before.values().filter_map(|node| match node {
            Node::File(content) => Some(&content[..]),
            _ => None,
        }));
        let torn = self.destination.tree.values().any(|node| match node {
            Node::File(content) => !contents.contains(&content[..]),
            _ => false,
        });
        self.totals.frames = self.frames as u64;
        self.totals.completed_directories = self.destination.completed.len() as u64;
        let failing = self.source.tree.values().flat_map(BTreeMap::values);
        let fails = |what: &&What| matches!(what, What::File { fate, .. } if !fate.arrives());
        self.totals.failures = failing.filter(fails).count() as u64;
        let tree = std::mem::take(&mut self.destination.tree);
        End { outcome, frames: self.frames, tree, expected, torn, totals: self.totals }
    }

    /// What the destination must be at the end of this run.
    fn expected(&self) -> Tree {
        let refused = &self.destination.refused;
        let mut expected = self.before.clone();
        for (directory, entries) in &self.source.tree {
            let is_refused = refused.contains(directory) || refused.iter().any(|at| is_below(directory, at));
            if is_refused {
                continue;
            }
            for (name, what) in entries {
                let path = directory.join(name);
                let arrives = match what {
                    What::Directory => !refused.contains(&path),
                    What::Link(_) => true,
                    What::File { fate, .. } => fate.arrives(),
                };
                if arrives {
                    expected.insert(path, node_of(what));
                }
            }
        }
        expected
    }
}

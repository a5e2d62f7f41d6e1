//! Peers that lie: every message in every state, every lie we could think of, and bytes that are no
//! message at all. Each must give a typed error, or be harmless; none may panic or make the decoder
//! allocate beyond its bound.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's failure is its panic, its figures are read"
)]

use bincode::{Decode, Encode, config};
use protocol::arguments::Places;
use protocol::destination::{DestinationSession, Standing};
use protocol::entry::{Entry, Kind, Timestamp};
use protocol::frame::{Compressor, Frame, HEADER_BYTES, Header};
use protocol::message::{
    Abort, Begin, Channels, DataBuilder, Failure, Finished, HashKind, Message, OwnerNames, Piece, ReadFile,
    Record, Removal, Report, Request, Role, Scanned, Start, Step, Want, filler_frame, hello, signature_frame,
};
use protocol::options::SyncOptions;
use protocol::path::{Name, RelPath};
use protocol::probe::Probe;
use protocol::source::SourceSession;
use protocol::stats::{Cause, Exit, Operation, Problem, Side, Stats, Times};
use protocol::{ProtocolError, limits};

/// How much the current thread has allocated, and at most at once.
#[allow(
    unsafe_code,
    reason = "a global allocator can't be written without; every call is handed on unchanged"
)]
mod counting {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    thread_local! {
        static LIVE: Cell<isize> = const { Cell::new(0) };
        static PEAK: Cell<isize> = const { Cell::new(0) };
    }

    struct Counting;

    // Sound: memory comes from and goes to `System` with the caller's own arguments. The counters need no
    // destructor and are constant at the start, so that reaching them allocates nothing.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            count(layout.size() as isize);
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
            count(-(layout.size() as isize));
            unsafe { System.dealloc(at, layout) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    fn count(bytes: isize) {
        let live = LIVE.get() + bytes;
        LIVE.set(live);
        PEAK.set(PEAK.get().max(live));
    }

    /// What `work` returns, and how many bytes it had allocated at once beyond what was there before.
    pub(crate) fn peak_bytes<T>(work: impl FnOnce() -> T) -> (T, usize) {
        let before = LIVE.get();
        PEAK.set(before);
        let result = work();
        (result, usize::try_from(PEAK.get() - before).unwrap_or(0))
    }
}

const DECODE_BYTES: usize = 16 << 20;
const EXECUTIONS: u64 = 400_000;

// What may be said when.

const NOT_BEGUN: &str = "the source has not begun";
const NOT_A_SOURCE: &str = "a source does not send it";
const NOT_A_DESTINATION: &str = "a destination does not send it";
const ENDED: &str = "the destination had finished";
const OK: &str = "";

#[test]
fn a_destination_takes_each_message_only_in_the_states_that_allow_it() {
    let unannounced = "its directory was not announced, or is complete";
    let not_asked = "the file was not asked for";
    let unlisted = "said twice, or directories are not listed";
    let over = "the scan had ended";
    let twice = "said twice, or the root is no directory";
    let not_told = "more than was to be removed";
    // Before the beginning, begun, listing, scanned with a file under way, complete.
    let table = [
        ("hello", [NOT_BEGUN, NOT_A_SOURCE, NOT_A_SOURCE, NOT_A_SOURCE, NOT_A_SOURCE]),
        ("start", [NOT_BEGUN, NOT_A_SOURCE, NOT_A_SOURCE, NOT_A_SOURCE, NOT_A_SOURCE]),
        ("begin", [OK, twice, twice, twice, twice]),
        ("listing", [NOT_BEGUN, unannounced, OK, over, over]),
        ("scan end", [NOT_BEGUN, unlisted, unlisted, unlisted, unlisted]),
        ("request", [NOT_BEGUN, NOT_A_SOURCE, NOT_A_SOURCE, NOT_A_SOURCE, NOT_A_SOURCE]),
        ("signature", [NOT_BEGUN, NOT_A_SOURCE, NOT_A_SOURCE, NOT_A_SOURCE, NOT_A_SOURCE]),
        ("data", [NOT_BEGUN, not_asked, OK, OK, not_asked]),
        ("release", [NOT_BEGUN, NOT_A_SOURCE, NOT_A_SOURCE, NOT_A_SOURCE, NOT_A_SOURCE]),
        ("report", [NOT_BEGUN, OK, OK, OK, OK]),
        ("summary", [NOT_BEGUN, NOT_A_SOURCE, NOT_A_SOURCE, NOT_A_SOURCE, NOT_A_SOURCE]),
        ("abort", [OK; 5]),
        ("keepalive", [OK; 5]),
        ("invitation", [NOT_BEGUN, NOT_A_SOURCE, NOT_A_SOURCE, NOT_A_SOURCE, NOT_A_SOURCE]),
        ("spread", [NOT_BEGUN, NOT_A_SOURCE, NOT_A_SOURCE, NOT_A_SOURCE, NOT_A_SOURCE]),
        ("removal", [NOT_BEGUN, NOT_A_SOURCE, NOT_A_SOURCE, NOT_A_SOURCE, NOT_A_SOURCE]),
        ("removed", [not_told; 5]),
    ];
    for (message, (name, expected)) in samples().into_iter().zip(table) {
        assert_eq!(message.name(), name);
        for (state, expected) in expected.into_iter().enumerate() {
            let result = destination_in(state).receive(message.clone());
            assert_eq!(why(&result), expected, "{name} in state {state}");
        }
    }
}

#[test]
fn a_source_takes_each_message_only_in_the_states_that_allow_it() {
    let not_sent = "its list was not sent, or was released";
    let in_use = "its number is in use, or too many are under way";
    let longer = "it is longer than announced";
    let no_delta = "no delta was asked for under its number";
    let unknown_list = "the list was not sent, or was released";
    let busy = "files of the list are under way";
    // Nothing listed, listed, a file under way, that file answered, finished.
    let table = [
        ("hello", [NOT_A_DESTINATION; 4]),
        ("start", [NOT_A_DESTINATION; 4]),
        ("begin", [NOT_A_DESTINATION; 4]),
        ("listing", [NOT_A_DESTINATION; 4]),
        ("scan end", [NOT_A_DESTINATION; 4]),
        ("request", [not_sent, OK, in_use, OK]),
        ("signature", [no_delta, no_delta, longer, no_delta]),
        ("data", [NOT_A_DESTINATION; 4]),
        ("release", [unknown_list, OK, busy, OK]),
        ("report", [OK; 4]),
        ("summary", [OK; 4]),
        ("abort", [OK; 4]),
        ("keepalive", [OK; 4]),
        ("invitation", [NOT_A_DESTINATION; 4]),
        ("spread", [NOT_A_DESTINATION; 4]),
        ("removal", ["nothing is to be removed from this source"; 4]),
        ("removed", [NOT_A_DESTINATION; 4]),
    ];
    for (message, (name, expected)) in samples().into_iter().zip(table) {
        assert_eq!(message.name(), name);
        for (state, expected) in expected.into_iter().chain([ENDED]).enumerate() {
            let result = source_in(state).receive(message.clone());
            assert_eq!(why(&result), expected, "{name} in state {state}");
        }
    }
}

#[test]
fn a_source_says_only_of_what_it_was_told_to_remove_that_this_is_done() {
    let mut session = listing_destination();
    (0..2).for_each(|_| session.will_remove(7));
    (0..3).for_each(|file| session.resolve(file));
    assert!(session.take_released().is_empty(), "the source must know what it is to remove");
    session.remove(2);
    (0..2).for_each(|_| session.stays(7));
    assert!(!session.is_removed());
    assert_eq!(session.take_released(), [7]);
    session.receive(Message::Removed(1)).unwrap();
    assert_eq!(why(&session.receive(Message::Removed(2))), "more than was to be removed");
    session.receive(Message::Removed(1)).unwrap();
    assert!(session.is_removed());
}

fn why<T>(result: &Result<T, ProtocolError>) -> &'static str {
    match result {
        Ok(_) => OK,
        Err(ProtocolError::Unexpected { why, .. }) => why,
        Err(_) => "another error",
    }
}

/// One message of each kind, about the piece and files of [`destination_in`] and [`source_in`].
fn samples() -> Vec<Message> {
    let (side, operation) = (Side::Source, Operation::Read);
    let problem = Problem { side, path: RelPath::root(), operation, cause: Cause::Vanished };
    let start =
        Start { role: Role::Source { arguments: Vec::new(), list: None }, options: SyncOptions::default() };
    let finished = Finished {
        stats: Stats::default(),
        exit: Exit::Done,
        times: Times::default(),
        source_times: Times::default(),
    };
    vec![
        Message::Hello(hello("liar")),
        Message::Start(Box::new(start)),
        begin(None),
        list(50, b"d", true, vec![file(b"x", 1)]),
        Message::Scanned(Scanned::default()),
        request(7, 0, 0, Want::Whole),
        Message::decode(signature_frame(0, &[0; 12])).unwrap(),
        data(0, &[(0, Step::Small { bytes: 1, read: read_file() })], 1),
        Message::Release(vec![7]),
        Message::Report(vec![Report::Problem(problem)]),
        Message::Finished(Box::new(finished)),
        Message::Abort(Abort { exit: Exit::Interrupted, message: String::new() }),
        Message::KeepAlive,
        Message::Invite([7; 32]),
        Message::Spread(Channels::with([1])),
        Message::Remove(vec![Removal { list: 7, index: 0, identity: None }]),
        Message::Removed(1),
    ]
}

/// Everything of the root is here and merged: files `a` (number 0, whole), `b` (1, a delta), `c` (2,
/// its hash), a directory `d` that is not listed yet.
fn listing_destination() -> DestinationSession<()> {
    asking_destination([Want::Whole, Want::Delta { block_size: 512, basis_bytes: 1000 }, Want::Hash])
}

/// It has asked for three files, by the numbers 0 to 2.
fn asking_destination(wants: [Want; 3]) -> DestinationSession<()> {
    let mut session = begun_destination();
    let entries = vec![file(b"a", 9), file(b"b", 9), file(b"c", 9), directory(b"d")];
    session.receive(list(7, b"", true, entries)).unwrap();
    let ready = session.next_piece().unwrap();
    for (index, want) in wants.into_iter().enumerate() {
        assert_eq!(session.request(7, index as u32, want).unwrap().file, index as u32);
    }
    session.merged(0, &ready.piece, vec![(Name::new(*b"d").unwrap(), present())]);
    session
}

fn begun_destination() -> DestinationSession<()> {
    let mut session = DestinationSession::new();
    session.receive(begin(None)).unwrap();
    session.root_stands(present());
    session
}

fn destination_in(state: usize) -> DestinationSession<()> {
    match state {
        0 => return DestinationSession::new(),
        1 => return begun_destination(),
        _ => {}
    }
    let mut session = listing_destination();
    if state == 2 {
        return session;
    }
    session.receive(list(8, b"d", true, Vec::new())).unwrap();
    session.receive(Message::Scanned(Scanned { entries: 4, bytes: 27 })).unwrap();
    let ready = session.next_piece().unwrap();
    session.merged(1, &ready.piece, Vec::new());
    if state == 4 {
        (0..3).for_each(|file| session.resolve(file));
        assert!(session.is_complete());
    }
    session
}

fn source_in(state: usize) -> SourceSession {
    let mut session = SourceSession::default();
    if state >= 1 {
        session.announce(&piece(7, b"", true, vec![file(b"a", 9), directory(b"d")]));
    }
    if state >= 2 {
        session.receive(request(7, 0, 0, Want::Whole)).unwrap();
    }
    if state >= 3 {
        session.answered(0);
    }
    if state >= 4 {
        let finished = Finished {
            stats: Stats::default(),
            exit: Exit::Done,
            times: Times::default(),
            source_times: Times::default(),
        };
        session.receive(Message::Finished(Box::new(finished))).unwrap();
    }
    session
}

fn present() -> Standing<()> {
    Standing::Present { metadata: Some(Box::new(())), differs: true }
}

fn begin(root: Option<Entry>) -> Message {
    Message::Begin(Box::new(Begin {
        root,
        names: OwnerNames::default(),
        single: false,
        places: Places::default(),
    }))
}

fn entry(name: &[u8], kind: Kind) -> Entry {
    let name = Name::new(name).unwrap();
    Entry { name, kind, mode: 0o644, uid: 0, gid: 0, mtime: Timestamp::default(), young: false, extra: None }
}

fn file(name: &[u8], size_bytes: u64) -> Entry {
    entry(name, Kind::File { size_bytes })
}

fn directory(name: &[u8]) -> Entry {
    entry(name, Kind::Directory)
}

fn piece(list: u32, path: &[u8], last: bool, entries: Vec<Entry>) -> Piece {
    let directory = RelPath::new(path).unwrap();
    Piece { list, directory, last, complete: true, names: OwnerNames::default(), entries }
}

fn list(number: u32, path: &[u8], last: bool, entries: Vec<Entry>) -> Message {
    Message::List(vec![piece(number, path, last, entries)])
}

fn request(list: u32, index: u32, file: u32, want: Want) -> Message {
    Message::Request(vec![Request { list, index, file, want }])
}

fn read_file() -> ReadFile {
    ReadFile { hash: [0; 32], mtime: Timestamp::default() }
}

fn data(lane: u8, steps: &[(u32, Step)], bulk_bytes: usize) -> Message {
    let records: Vec<Record> = steps.iter().map(|&(file, step)| Record { file, step }).collect();
    let head = encoded((lane, records));
    let mut body = vec![b'x'; bulk_bytes];
    body.extend_from_slice(&head);
    body.extend_from_slice(&u32::try_from(head.len()).unwrap().to_le_bytes());
    Message::decode(frame(8, 0, &body)).unwrap()
}

fn encoded(value: impl Encode) -> Vec<u8> {
    bincode::encode_to_vec(value, config::standard()).unwrap()
}

fn frame(kind: u8, flags: u8, body: &[u8]) -> Frame {
    let [a, b, c, d] = u32::try_from(body.len()).unwrap().to_le_bytes();
    let mut frame = Header::new([a, b, c, d, kind, flags]).unwrap().frame();
    frame.body_mut().copy_from_slice(body);
    frame
}

// A source that lies.

#[test]
fn a_lie_in_a_listing_is_a_protocol_error() {
    let insane = "unsorted, repeated, oversized or impossible entries";
    let unannounced = "its directory was not announced, or is complete";
    let at_its_end = "its directory was listed to its end";
    let behind = "it does not follow on the piece before";
    let x = || vec![file(b"x", 1)];
    let many = |count: u32| (0..count).map(|i| file(format!("{i:08}").as_bytes(), 0)).collect::<Vec<_>>();
    let with = |change: fn(&mut Entry)| {
        let mut entry = file(b"x", 1);
        change(&mut entry);
        vec![entry]
    };
    let link = |target: Vec<u8>| vec![entry(b"l", Kind::Symlink { target })];
    for (lie, messages, expected) in [
        ("an entry twice in a piece", vec![list(8, b"d", true, vec![file(b"x", 1), file(b"x", 1)])], insane),
        (
            "a file and a directory of one name",
            vec![list(8, b"d", true, vec![directory(b"x"), file(b"x", 1)])],
            insane,
        ),
        ("unsorted", vec![list(8, b"d", true, vec![file(b"y", 1), file(b"x", 1)])], insane),
        (
            "an entry again in the next piece",
            vec![list(8, b"d", false, x()), list(9, b"d", true, x())],
            behind,
        ),
        (
            "a piece before the last",
            vec![list(8, b"d", false, x()), list(9, b"d", true, vec![file(b"a", 1)])],
            behind,
        ),
        (
            "unsorted across an empty piece",
            vec![list(8, b"d", false, x()), list(9, b"d", false, Vec::new()), list(10, b"d", true, x())],
            behind,
        ),
        ("a child before its parent", vec![list(8, b"d/e", true, x())], unannounced),
        ("a listing of a file", vec![list(8, b"a", true, x())], unannounced),
        ("a listing of what is not there", vec![list(8, b"nowhere", true, x())], unannounced),
        ("a listing below a file", vec![list(8, b"a/d", true, x())], unannounced),
        ("a piece after the last of a merged directory", vec![list(8, b"", true, x())], at_its_end),
        (
            "a piece after the last",
            vec![list(8, b"d", true, x()), list(9, b"d", true, Vec::new())],
            at_its_end,
        ),
        (
            "a list's number reused",
            vec![list(8, b"d", false, x()), list(8, b"d", true, Vec::new())],
            "its number is in use",
        ),
        ("a list's number under way reused", vec![list(7, b"d", true, x())], "its number is in use"),
        ("a piece too long", vec![list(8, b"d", true, many(1025))], insane),
        ("an impossible size", vec![list(8, b"d", true, vec![file(b"x", 1 << 63)])], insane),
        ("an impossible mode", vec![list(8, b"d", true, with(|entry| entry.mode = 0o10000))], insane),
        (
            "an impossible time",
            vec![list(8, b"d", true, with(|entry| entry.mtime.nanos = 1_000_000_000))],
            insane,
        ),
        ("a link to nothing", vec![list(8, b"d", true, link(Vec::new()))], insane),
        ("a link with a NUL", vec![list(8, b"d", true, link(b"a\0b".to_vec()))], insane),
        ("a link too long", vec![list(8, b"d", true, link(vec![b'x'; 4097]))], insane),
        (
            "the scan's end without a listing",
            vec![Message::Scanned(Scanned { entries: 4, bytes: 27 })],
            "said twice, or directories are not listed",
        ),
        (
            "the scan's end amid a directory",
            vec![list(8, b"d", false, x()), Message::Scanned(Scanned { entries: 5, bytes: 28 })],
            "said twice, or directories are not listed",
        ),
        (
            "another kind of report",
            vec![Message::Report(vec![Report::MadeRoot(Vec::new())])],
            "a source reports problems and notes only",
        ),
    ] {
        assert_last_refused(&mut listing_destination(), lie, messages, expected);
    }
    let mut waiting = DestinationSession::<()>::new();
    waiting.receive(begin(None)).unwrap();
    let twice = vec![list(1, b"", true, x()), list(2, b"", true, Vec::new())];
    assert_last_refused(&mut waiting, "a piece after the last, before the root stands", twice, at_its_end);
}

fn assert_last_refused(
    session: &mut DestinationSession<()>,
    lie: &str,
    mut messages: Vec<Message>,
    expected: &str,
) {
    let last = messages.pop().unwrap();
    for message in messages {
        assert!(session.receive(message).is_ok(), "{lie}");
    }
    assert_eq!(why(&session.receive(last)), expected, "{lie}");
}

#[test]
fn a_root_that_is_no_directory_is_a_protocol_error() {
    let impossible = Entry { mode: u16::MAX, ..directory(b"root") };
    for root in [file(b"root", 1), entry(b"root", Kind::Fifo), impossible] {
        assert!(DestinationSession::<()>::new().receive(begin(Some(root))).is_err());
    }
    assert!(DestinationSession::<()>::new().receive(begin(Some(directory(b"root")))).is_ok());
}

#[test]
fn a_source_that_passes_the_window_is_refused_at_the_first_entry_too_many() {
    let most = limits::PIECE_ENTRIES as u32;
    let full = |number: u32| {
        let names = (0..most).map(|i| format!("{:08}", number * most + i));
        list(number, b"", false, names.map(|name| file(name.as_bytes(), 0)).collect())
    };
    let mut session = begun_destination();
    let pieces = (limits::WINDOW_ENTRIES / limits::PIECE_ENTRIES) as u32;
    for number in 0..pieces {
        session.receive(full(number)).unwrap();
    }
    let one_more = list(pieces, b"", false, vec![file(b"z", 0)]);
    assert_eq!(why(&session.receive(one_more)), "more entries than the window holds");
    let mut session = begun_destination();
    let empty = |number| list(number, b"", false, Vec::new());
    for number in 0..limits::WINDOW_ENTRIES as u32 {
        session.receive(empty(number)).unwrap();
    }
    let result = session.receive(empty(u32::MAX));
    assert_eq!(why(&result), "more entries than the window holds", "empty pieces count as well");
}

#[test]
fn a_name_that_leads_elsewhere_does_not_decode() {
    type RawNames = (Vec<(u32, Vec<u8>)>, Vec<(u32, Vec<u8>)>);
    type RawPiece = (u32, Vec<u8>, bool, bool, RawNames, u64, Vec<u8>);
    // An empty file without owner and time; more than fits a length is only had by what it shares with one before.
    let packed = |shared: usize, name: &[u8]| [&[0x70, shared as u8, name.len() as u8], name, &[0]].concat();
    let listing = |path: &[u8], name: &[u8]| {
        let (start, more) = name.split_at(name.len().min(255));
        let entries = match more {
            [] => vec![packed(0, start)],
            more => vec![packed(0, start), packed(start.len(), more)],
        };
        let count = entries.len() as u64;
        let names = RawNames::default();
        let piece: RawPiece = (1, path.to_vec(), true, true, names, count, entries.concat());
        Message::decode(frame(4, 0, &encoded(vec![piece])))
    };
    assert!(listing(b"", b"x").is_ok() && listing(b"a/b", &[0xff; 255]).is_ok());
    for name in [&b""[..], b".", b"..", b"/", b"/etc", b"a/b", b"a\0", b"\0", b"../x", &[b'x'; 256]] {
        let result = listing(b"", name);
        assert!(matches!(result, Err(ProtocolError::Decode { .. })), "the name {}", name.escape_ascii());
    }
    let long = vec![b'x'; limits::PATH_BYTES + 1];
    for path in
        [&b"/"[..], b"/etc", b"..", b"a/../b", b"a/..", b"./a", b"a//b", b"a/", b"a\0b", &[b'x'; 256], &long]
    {
        let result = listing(path, b"x");
        let shown = path.escape_ascii().to_string();
        assert!(
            matches!(result, Err(ProtocolError::Decode { .. })),
            "the path {}",
            &shown[..shown.len().min(40)]
        );
    }
}

#[test]
fn a_lie_in_the_data_is_a_protocol_error() {
    let not_asked = "the file was not asked for";
    let out_of_order = "a step out of its order";
    let too_long = "not opened, or longer than declared";
    let done = "the file was complete, or came in another lane";
    let outside = "a match outside the basis";
    let (read, size_bytes) = (read_file(), 9);
    let open = Step::Open { size_bytes, hash: HashKind::Plain };
    let literal = |bytes| Step::Literal { bytes };
    let small = |bytes| Step::Small { bytes, read };
    let hashed = Step::Hashed { size_bytes, read };
    let end = Step::End(read);
    let matched = |block, count| Step::Match { block, count };
    let failed = Step::Failed(Failure::Vanished);
    let has_holes = Step::Failed(Failure::HasHoles);
    let said_to_have_holes = "what was asked for with its holes is said to have them";
    let too_large = limits::SMALL_FILE_BYTES as u32 + 1;
    // File 0 was asked for whole, 1 as a delta against 1000 bytes in blocks of 512, 2 for its hash.
    for (lie, steps, bulk_bytes, expected) in [
        ("a file not asked for", vec![(3, open)], 0, not_asked),
        ("a failure of a file not asked for", vec![(u32::MAX, failed)], 0, not_asked),
        (
            "fewer bytes than its records say",
            vec![(0, open), (0, literal(9))],
            8,
            "fewer bytes than its records say",
        ),
        (
            "more bytes than its records say",
            vec![(0, open), (0, literal(9))],
            10,
            "more bytes than its records say",
        ),
        ("bytes without a record", vec![], 1, "more bytes than its records say"),
        ("more bytes than declared", vec![(0, open), (0, literal(10))], 10, too_long),
        ("more bytes than declared, in two", vec![(0, open), (0, literal(5)), (0, literal(5))], 10, too_long),
        ("the largest literal", vec![(0, open), (0, literal(u32::MAX))], 0, too_long),
        ("a literal before the opening", vec![(0, literal(1))], 1, too_long),
        ("an end before the opening", vec![(0, end)], 0, out_of_order),
        ("an end before all bytes", vec![(0, open), (0, literal(8)), (0, end)], 8, out_of_order),
        ("an opening twice", vec![(0, open), (0, open)], 0, out_of_order),
        (
            "an impossible size",
            vec![(0, Step::Open { size_bytes: 1 << 63, hash: HashKind::Plain })],
            0,
            "an impossible size",
        ),
        ("a small file that is not small", vec![(0, small(too_large))], too_large as usize, out_of_order),
        ("a small file after its opening", vec![(0, open), (0, small(9))], 9, out_of_order),
        ("a match without a basis", vec![(0, open), (0, matched(0, 1))], 0, "a match without a basis"),
        ("a match before the opening", vec![(1, matched(0, 1))], 0, too_long),
        ("a match of nothing", vec![(1, open), (1, matched(0, 0))], 0, outside),
        ("a match beyond the basis", vec![(1, open), (1, matched(2, 1))], 0, outside),
        ("a match that ends beyond the basis", vec![(1, open), (1, matched(1, 2))], 0, outside),
        ("the longest match", vec![(1, open), (1, matched(0, u32::MAX))], 0, outside),
        ("the farthest match", vec![(1, open), (1, matched(u64::MAX, 1))], 0, outside),
        ("the farthest and longest match", vec![(1, open), (1, matched(u64::MAX, u32::MAX))], 0, outside),
        ("a match whose end overflows", vec![(1, open), (1, matched(u64::MAX / 512, u32::MAX))], 0, outside),
        ("a match longer than declared", vec![(1, open), (1, matched(0, 1))], 0, too_long),
        ("a hash for a whole file", vec![(0, hashed)], 0, out_of_order),
        ("a hash for a delta", vec![(1, hashed)], 0, out_of_order),
        ("an opening for a hash", vec![(2, open)], 0, out_of_order),
        ("a small file for a hash", vec![(2, small(9))], 9, out_of_order),
        ("a literal for a hash", vec![(2, literal(1))], 1, too_long),
        ("a step after the end", vec![(0, open), (0, literal(9)), (0, end), (0, literal(0))], 9, done),
        ("two ends", vec![(0, open), (0, literal(9)), (0, end), (0, end)], 9, done),
        ("a step after a small file", vec![(0, small(9)), (0, open)], 9, done),
        ("a step after a hash", vec![(2, hashed), (2, hashed)], 0, done),
        ("holes of a whole file", vec![(0, has_holes)], 0, said_to_have_holes),
        ("holes of a hash", vec![(2, has_holes)], 0, said_to_have_holes),
        ("a step after holes", vec![(1, has_holes), (1, open)], 0, done),
        ("a step after a failure", vec![(0, failed), (0, open)], 0, done),
    ] {
        let result = listing_destination().receive(data(0, &steps, bulk_bytes));
        assert_eq!(why(&result), expected, "{lie}");
    }
    let mut session = listing_destination();
    session.receive(data(0, &[(0, open)], 0)).unwrap();
    assert_eq!(why(&session.receive(data(1, &[(0, literal(9))], 9))), done, "another lane");
    let mut session = listing_destination();
    session.receive(data(0, &[(0, small(9))], 9)).unwrap();
    session.resolve(0);
    assert_eq!(why(&session.receive(data(0, &[(0, small(9))], 9))), not_asked, "a file resolved");
}

#[test]
fn matches_up_to_the_last_short_block_are_taken() {
    let basis = |block, count, size_bytes| {
        let steps = [
            (1, Step::Open { size_bytes, hash: HashKind::Plain }),
            (1, Step::Match { block, count }),
            (1, Step::End(read_file())),
        ];
        listing_destination().receive(data(0, &steps, 0)).is_ok()
    };
    assert!(basis(0, 1, 512) && basis(0, 2, 1000) && basis(1, 1, 488));
    assert!(!basis(1, 1, 512) && !basis(0, 2, 1024));
}

#[test]
fn pages_are_those_of_the_basis_of_a_file_compared_in_place() {
    let aligned = Want::Aligned { block_size: 4096, basis_bytes: 10_000, basis_head: None };
    let delta = Want::Delta { block_size: 4096, basis_bytes: 10_000 };
    for (want, page, count, expected) in [
        (aligned, 0, 2, None),
        (aligned, 1, 1, None),
        (aligned, 1, 2, Some("pages outside the basis")),
        (aligned, 2, 1, Some("pages outside the basis")),
        (aligned, 0, 0, Some("pages outside the basis")),
        (aligned, u64::MAX, 1, Some("pages outside the basis")),
        (aligned, u64::MAX / 4096, u32::MAX, Some("pages outside the basis")),
        (delta, 0, 1, Some("pages of what is not compared in place")),
        (Want::Whole, 0, 1, Some("pages of what is not compared in place")),
    ] {
        let mut session = asking_destination([want; 3]);
        let steps =
            [(0, Step::Open { size_bytes: 8192, hash: HashKind::Plain }), (0, Step::Pages { page, count })];
        let result = session.receive(data(0, &steps, 0));
        match expected {
            None => assert!(result.is_ok(), "{want:?}, {page}, {count}"),
            Some(expected) => assert_eq!(why(&result), expected, "{want:?}, {page}, {count}"),
        }
    }
}

// A destination that lies.

#[test]
fn a_lie_in_a_request_is_a_protocol_error() {
    let delta = |block_size, basis_bytes| Want::Delta { block_size, basis_bytes };
    let sparse = |block_size, blocks| Want::Sparse { block_size, basis_bytes: u64::MAX, blocks };
    let no_list = "its list was not sent, or was released";
    let no_entry = "the list has no such entry";
    let size = "its block size is out of bounds";
    for (lie, message, expected) in [
        ("a list not sent", request(8, 0, 1, Want::Whole), no_list),
        ("an entry beyond the list", request(7, 2, 1, Want::Whole), no_entry),
        ("the last entry there is", request(7, u32::MAX, 1, Want::Whole), no_entry),
        ("a directory's data", request(7, 1, 1, Want::Whole), "the entry is not a regular file"),
        ("a directory's hash", request(7, 1, 1, Want::Hash), "the entry is not a regular file"),
        ("blocks of nothing", request(7, 0, 1, delta(0, 1)), size),
        ("blocks too small", request(7, 0, 1, delta(511, 1)), size),
        ("blocks too large", request(7, 0, 1, delta((16 << 20) + 1, 1)), size),
        ("the largest blocks", request(7, 0, 1, delta(u32::MAX, 1)), size),
        ("too many blocks", request(7, 0, 1, delta(512, 1 << 30)), size),
        ("the longest basis", request(7, 0, 1, delta(4096, u64::MAX)), size),
        ("sparse blocks of another size", request(7, 0, 1, sparse(96 << 10, 1)), size),
        ("sparse blocks too small", request(7, 0, 1, sparse(32 << 10, 1)), size),
        ("too many sparse blocks", request(7, 0, 1, sparse(1 << 16, (1 << 18) + 1)), "too many blocks"),
        (
            "a list released that was not sent",
            Message::Release(vec![8]),
            "the list was not sent, or was released",
        ),
        ("a list released twice", Message::Release(vec![7, 7]), "the list was not sent, or was released"),
    ] {
        assert_eq!(why(&source_in(1).receive(message)), expected, "{lie}");
    }
    let mut session = source_in(1);
    session.receive(Message::Release(vec![7])).unwrap();
    assert_eq!(why(&session.receive(request(7, 0, 0, Want::Whole))), no_list, "a list released");
}

#[test]
fn a_signature_longer_than_announced_is_a_protocol_error() {
    let part = |bytes: usize| Message::decode(signature_frame(0, &vec![0; bytes])).unwrap();
    let mut session = source_in(1);
    session.receive(request(7, 0, 0, Want::Delta { block_size: 512, basis_bytes: 1000 })).unwrap();
    session.receive(part(12)).unwrap();
    assert!(session.receive(part(12)).is_ok());
    assert_eq!(why(&session.receive(part(1))), "it is longer than announced");
}

#[test]
fn what_a_destination_can_make_a_source_remember_is_bounded() {
    let mut session = source_in(1);
    for number in 0..limits::WINDOW_ENTRIES as u32 {
        session.receive(request(7, 0, number, Want::Whole)).unwrap();
    }
    let one_more = request(7, 0, u32::MAX, Want::Whole);
    assert_eq!(why(&session.receive(one_more)), "its number is in use, or too many are under way");
    let mut session = source_in(1);
    let largest = Want::Delta { block_size: 512, basis_bytes: 1 << 29 };
    let results: Vec<bool> =
        (0..4).map(|number| session.receive(request(7, 0, number, largest)).is_ok()).collect();
    assert_eq!(results, [true, true, false, false]);
}

// Bytes.

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
}

/// What a reader of the stream does with these bytes: the message, what is wrong with them, or none
/// where it would wait for more.
fn read(bytes: &[u8]) -> Option<Result<Message, ProtocolError>> {
    let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let decoded = Header::new(*header).and_then(|header| {
        let Some(body) = body.get(..header.body_bytes()) else { return Ok(None) };
        let mut frame = header.frame();
        frame.body_mut().copy_from_slice(body);
        Message::decode(frame.open()?).map(Some)
    });
    decoded.transpose()
}

fn bounded_read(bytes: &[u8], what: &dyn Fn() -> String) -> Option<Result<Message, ProtocolError>> {
    let (result, peak) = counting::peak_bytes(|| read(bytes));
    assert!(peak <= DECODE_BYTES, "{}: {peak} bytes allocated at once", what());
    result
}

#[test]
fn no_bytes_make_a_decoder_panic_or_allocate_without_bound() {
    let valid = corpus();
    let (mut messages, mut errors, mut incomplete) = (0u64, 0u64, 0u64);
    for seed in 0..EXECUTIONS {
        let mut random = Random(seed);
        let bytes = if seed % 4 == 0 { noise(&mut random) } else { mutated(&mut random, &valid) };
        let announced = Announced(seed);
        match bounded_read(&bytes, &|| format!("seed {seed}")) {
            Some(Ok(_)) => messages += 1,
            Some(Err(error)) => {
                assert!(!error.to_string().is_empty());
                errors += 1;
            }
            None => incomplete += 1,
        }
        drop(announced);
    }
    println!(
        "decoders: {EXECUTIONS} executions: {messages} messages, {errors} errors, {incomplete} incomplete"
    );
    assert!(messages > 1000 && errors > 100_000);
}

/// Prints its seed if the test fails while it lives.
struct Announced(u64);

impl Drop for Announced {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed at seed {}", self.0);
        }
    }
}

/// Random bytes as the body of a frame of any kind, compressed as it may say.
fn noise(random: &mut Random) -> Vec<u8> {
    let length = random.below(200);
    let mut body: Vec<u8> = (0..length).map(|_| (random.next() >> random.below(8)) as u8).collect();
    if random.below(4) == 0 {
        // Lengths and counts beyond all bounds, as the encoding writes them.
        let at = random.below(body.len() + 1);
        body.splice(at..at, [[0xfd; 9], [0xfc; 9]][random.below(2)]);
    }
    let flags = u8::from(random.below(8) == 0);
    let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
    bytes.extend([random.below(16) as u8, flags]);
    bytes.extend(body);
    bytes
}

fn mutated(random: &mut Random, valid: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = valid[random.below(valid.len())].clone();
    for _ in 0..1 + random.below(3) {
        let at = random.below(bytes.len());
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0xfb, 0xfc, 0xfd, 0xfe, 0xff][random.below(8)],
            2 => bytes.truncate(at.max(1)),
            3 => {
                let large = [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, random.next() as u8, 0];
                bytes.splice(at..at, large);
            }
            4 => {
                let end = (at + random.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let other = &valid[random.below(valid.len())];
                let from = random.below(other.len());
                bytes.splice(at..at, other[from..].iter().take(64).copied());
            }
            _ => bytes[at] = random.next() as u8,
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    // Most of the time the length fits again, so that the body is looked at.
    if random.below(8) != 0 && bytes.len() >= HEADER_BYTES {
        let length = (bytes.len() - HEADER_BYTES) as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
    }
    bytes
}

fn corpus() -> Vec<Vec<u8>> {
    let mut messages = samples();
    let kinds = [
        Kind::Directory,
        Kind::File { size_bytes: 1 << 40 },
        Kind::Symlink { target: b"../x".to_vec() },
        Kind::CharDevice { device: (1, 3) },
    ];
    let entries = kinds.into_iter().zip(0..).map(|(kind, i)| entry(format!("name {i}").as_bytes(), kind));
    messages.push(list(1 << 20, b"a/b", false, entries.collect()));
    let mut options = SyncOptions { block_size: Some(4096), ..SyncOptions::default() };
    for pattern in [&b"*.tmp"[..], b"/a/**/[a-z]?", b"+ keep/", b"x[!b]*"] {
        options.filter.push_exclude(pattern).unwrap();
    }
    let role = Role::Destination { argument: b"/srv".to_vec(), list: None };
    messages.push(Message::Start(Box::new(Start { role, options })));
    let mut builder = DataBuilder::new(1);
    builder.step(1, Step::Open { size_bytes: 1 << 33, hash: HashKind::Plain });
    builder.step(1, Step::Match { block: 1 << 20, count: 1 << 17 });
    builder.literal(1, b"some literal bytes");
    builder.step(1, Step::End(read_file()));
    let mut frames: Vec<Frame> = messages.iter().map(Message::encode).collect();
    frames.push(builder.take());
    let many = (0..200).map(|i| file(format!("{i:04}").as_bytes(), i)).collect();
    frames.push(Compressor::new(3).unwrap().compress(list(2, b"c", true, many).encode()));
    frames.into_iter().map(|frame| frame.as_bytes().to_vec()).collect()
}

#[test]
fn counts_that_claim_more_than_was_received_allocate_little() {
    #[derive(Encode, Decode)]
    struct Claim(u8, u64);
    for kind in 0..=17u8 {
        for claimed in [1 << 16, 1 << 20, 1 << 24, 1 << 32, u64::MAX] {
            for ahead in 0..8 {
                let body = [&[0; 8][..ahead], &encoded(Claim(0, claimed))].concat();
                let bytes = frame(kind, 0, &body).as_bytes().to_vec();
                let (_, peak) = counting::peak_bytes(|| read(&bytes));
                assert!(peak <= 5 << 20, "kind {kind}, count {claimed}: {peak} bytes");
            }
        }
    }
}

#[test]
fn a_compressed_frame_cannot_open_beyond_the_limit() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
    for declared in [0u32, 1, 1 << 20, (1 << 20) + 1, 64 << 20, u32::MAX] {
        let body = [&declared.to_le_bytes()[..], &bomb].concat();
        for kind in 0..=17 {
            let (result, peak) = counting::peak_bytes(|| read(frame(kind, 1, &body).as_bytes()));
            assert!(result.is_some_and(|result| result.is_err()), "declared {declared}");
            assert!(peak <= 2 << 20, "declared {declared}: {peak} bytes");
        }
    }
}

#[test]
fn a_probe_that_asks_for_more_than_the_limits_allow_is_refused() {
    let (bytes, files, limit_ms) = (limits::PROBE_BYTES, limits::PROBE_FILES, limits::PROBE_MS);
    for (allowed, refused) in [
        (Probe::Send { bytes }, Probe::Send { bytes: bytes + 1 }),
        (Probe::Receive { bytes }, Probe::Receive { bytes: u64::MAX }),
        (Probe::Scan { limit_ms }, Probe::Scan { limit_ms: limit_ms + 1 }),
        (Probe::ReadTree { limit_ms }, Probe::ReadTree { limit_ms: u32::MAX }),
        (Probe::Disk { bytes, limit_ms }, Probe::Disk { bytes: bytes + 1, limit_ms }),
        (Probe::Disk { bytes, limit_ms }, Probe::Disk { bytes, limit_ms: limit_ms + 1 }),
        (Probe::Create { files, limit_ms }, Probe::Create { files: files + 1, limit_ms }),
        (Probe::Hash { limit_ms }, Probe::Hash { limit_ms: limit_ms + 1 }),
        (Probe::Compress { level: 19, limit_ms }, Probe::Compress { level: 20, limit_ms }),
        (Probe::Compress { level: 1, limit_ms }, Probe::Compress { level: 0, limit_ms }),
    ] {
        assert_eq!(Message::decode(Message::Probe(allowed).encode()), Ok(Message::Probe(allowed)));
        assert!(Message::decode(Message::Probe(refused).encode()).is_err(), "{refused:?}");
    }
}

#[test]
fn filler_longer_than_its_limit_is_refused() {
    let longest = filler_frame(&vec![1; limits::FILLER_BYTES]);
    assert!(Message::decode(longest).is_ok());
    assert!(Message::decode(filler_frame(&vec![1; limits::FILLER_BYTES + 1])).is_err());
}

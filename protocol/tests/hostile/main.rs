//! Peers that lie: every message in every state, every lie we could think of, and bytes that are no
//! message at all. Each must give a typed error, or be harmless; none may panic or make the decoder
//! allocate beyond its bound.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's failure is its panic, its figures are read"
)]

mod bytes;
mod lies;

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

//! What a source, or a destination, says that is not so.

use super::*;

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

#[test]
fn what_lacks_of_a_basis_is_said_once_before_the_file_is_opened_and_only_if_asked() {
    let narrowed = Want::Narrowed { block_size: 512, basis_bytes: 9 << 14 };
    let delta = Want::Delta { block_size: 512, basis_bytes: 9 << 14 };
    let open = Step::Open { size_bytes: 9, hash: HashKind::Plain };
    let literal = Step::Literal { bytes: 9 };
    let failed = |failure| Step::Failed(failure);
    let lacks = |bytes| Step::Lacks { bytes };
    let not_a_bit_for_each = "not a bit for each block that may lack";
    let again = "what lacks of a basis, said twice or too late";
    for (want, steps, bulk_bytes, expected) in [
        (narrowed, vec![lacks(2), open, literal], 11, None),
        (
            narrowed,
            vec![lacks(2), open, Step::Match { block: 287, count: 1 }],
            2,
            Some("not opened, or longer than declared"),
        ),
        (
            narrowed,
            vec![lacks(2), open, Step::Match { block: 288, count: 1 }],
            2,
            Some("a match outside the basis"),
        ),
        (narrowed, vec![failed(Failure::Misaligned)], 0, None),
        (narrowed, vec![lacks(2), failed(Failure::Misaligned)], 2, None),
        (narrowed, vec![failed(Failure::HasHoles)], 0, None),
        (narrowed, vec![open], 0, Some("opened before it was said what lacks of the basis")),
        (narrowed, vec![lacks(1)], 1, Some(not_a_bit_for_each)),
        (narrowed, vec![lacks(3)], 3, Some(not_a_bit_for_each)),
        (narrowed, vec![lacks(u32::MAX)], 3, Some(not_a_bit_for_each)),
        (narrowed, vec![lacks(2)], 1, Some("fewer bytes than its records say")),
        (narrowed, vec![lacks(2), lacks(2)], 4, Some(again)),
        (narrowed, vec![lacks(2), open, lacks(2)], 4, Some(again)),
        (
            narrowed,
            vec![Step::Pages { page: 0, count: 1 }],
            0,
            Some("pages of what is not compared in place"),
        ),
        (delta, vec![lacks(2)], 2, Some("what lacks of a basis, unasked")),
        (Want::Whole, vec![lacks(2)], 2, Some("what lacks of a basis, unasked")),
        (Want::Hash, vec![lacks(0)], 0, Some("what lacks of a basis, unasked")),
    ] {
        let records: Vec<(u32, Step)> = steps.iter().map(|&step| (0, step)).collect();
        let result = asking_destination([want; 3]).receive(data(0, &records, bulk_bytes));
        match expected {
            None => assert!(result.is_ok(), "{want:?}, {steps:?}: {result:?}"),
            Some(expected) => assert_eq!(why(&result), expected, "{want:?}, {steps:?}"),
        }
    }
}

#[test]
fn a_signature_in_two_steps_is_no_longer_than_what_lacked() {
    let part = |bytes: usize| Message::decode(signature_frame(0, &vec![0; bytes])).unwrap();
    let mut session = source_in(1);
    session.receive(request(7, 0, 0, Want::Narrowed { block_size: 512, basis_bytes: 9 << 14 })).unwrap();
    session.receive(part(9 * 16)).unwrap();
    session.lacks(0, 12);
    session.receive(part(12)).unwrap();
    assert_eq!(why(&session.receive(part(1))), "it is longer than announced");
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
        (
            "small blocks that large ones are not made of",
            request(7, 0, 1, Want::Narrowed { block_size: 768, basis_bytes: 1 << 20 }),
            size,
        ),
        (
            "too many small blocks",
            request(7, 0, 1, Want::Narrowed { block_size: 512, basis_bytes: 1 << 30 }),
            size,
        ),
        (
            "too many large blocks",
            request(7, 0, 1, Want::Narrowed { block_size: 16 << 20, basis_bytes: u64::MAX }),
            size,
        ),
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

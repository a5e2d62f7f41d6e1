//! The wire of protocol version 1, byte by byte.
//!
//! From the first release on these bytes are never edited. A later version of the protocol gets a table of its own beside this
//! one, and this one stays as long as version 1 is spoken.

#![allow(clippy::unwrap_used, reason = "a test's failure is its panic")]

use protocol::arguments::{ArgumentRules, Missing, Places, Relative};
use protocol::attributes::{Attributes, Extra, HardLink};
use protocol::bases::{BaseKind, Bases, Fuzzy};
use protocol::entry::{Entry, Kind, Timestamp};
use protocol::filter::{FilterRules, RuleFiles};
use protocol::frame::{Frame, HEADER_BYTES, Header, JOIN_PREAMBLE, PREAMBLE};
use protocol::itemize::{Change, Content, Item, Particulars, Spared};
use protocol::links::{Followed, Links, Munging};
use protocol::message::{
    Abort, Begin, Channels, DataBuilder, Failure, Finished, HashKind, Hello, Identity, Message, OwnerNames,
    Piece, ReadFile, Removal, Report, Request, Role, Scanned, Start, Step, VERSION, Want, filler_frame,
    signature_frame,
};
use protocol::names::{List, ListFile, NamesPart};
use protocol::options::{
    Compression, Delete, ModeChange, ModeCopy, OmitTimes, Preserve, QuickCheck, Reading, Room, SizeRange,
    SyncOptions, Telling,
};
use protocol::ownership::{Mapping, OwnerMaps, Privilege, Privileges, Whom};
use protocol::path::{Name, RelPath};
use protocol::plan::Plan;
use protocol::probe::{Machine, Probe, ProbeResult, TreeSize, Work};
use protocol::replaced::{Placing, Replaced};
use protocol::stats::{Cause, Exit, Kinds, Operation, Problem, Side, Stats, Times};
use protocol::window::TimeWindow;
use std::fmt::Write as _;
use std::sync::Arc;

/// What each message of [`messages`] is on the wire. Never edited, only added to per version.
const VERSION_1: [(&str, &str); 44] = [
    ("hello", "10000000010001fb2c010b6d696773796e6320302e31"),
    (
        "start as the source",
        "5500000002000002072f7372762f612f0162000100000000000000000000000000000000000000000000000000000000 \
         00000000000000000000000000000000000000000002000000000000000000000000000000000000000000",
    ),
    (
        "start as the destination",
        "34010000020001062f7372762fff01092f6574632f6c6973740101010101000101000101010001000100010201000100 \
         0101fc000002000101fbe803000100000006010000052a2e746d70000000092f6b6565702f2a2a2a01010b03782f2a01 \
         00000d2e7273796e632d66696c7465720203000e2f2e7273796e632d66696c7465720202b80a2e63767369676e6f7265 \
         01010012fb00044901063f010301000101fd00f2052a01000000fb580202010001000202020101fb2c0100010102062e \
         2e2f6f6c64022f62020101092e2e2f6261636b7570042e6f6c6401082f7661722f746d7001082e7061727469616c0101 \
         01010101fd00000000000100000100010208080808080808080808080809090909090909090909090901000001020001 \
         fbe803037777770202642a053730303030010100036f70730302",
    ),
    (
        "begin",
        "2a00000003000104726f6f7401fbed09fbe803fc70110100fc0dad2500fcffc99a3b010001fbe803036f707300000000",
    ),
    ("begin with a single file", "1700000003000001fbe803036f707300010103612f620203612f630164"),
    (
        "listing",
        "fa010000040002fb2c0100000101fbe803036f707301fc701101000264620bfbd101080002610aed13e807f0a2048dda \
         9601ffc99a3b808080802039000162ffc99a3b3a000163ffc99a3b042e2e2ffe3b000164ffc99a3b3c000165ffc99a3b \
         3d000166ffc99a3b05013e010167ffc99a3b8302f0a204bb000167ffc99a3b0bac020202000000000106757365722e61 \
         0176bb000168ffc99a3b0bac02020200000000bb000169ffc99a3b0fac020202000000010106757365722e61ac020707 \
         070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707 \
         070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707 \
         070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707 \
         070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707 \
         070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707 \
         070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707 \
         07070707070707070707bb00016affc99a3b00fb2d0103622f63010000000000",
    ),
    ("scan end", "0e0000000500fc70110100fd0000000000010000"),
    (
        "request",
        "77000000060007fb2c0100fa00fb2c0101fbfb0001fb0010fd0000000004000000fb2c0102fbfc0002fb2c0103fbfd00 \
         03fc00000100fd0000000004000000010102030405060708fb2c0104fbfe0004fc00000100fd0000000000010000fb2c \
         01fb2c0105fbff0005fb2c0106fb000106fb0080fd0000000004000000",
    ),
    ("signature", "1f0000000700a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5fb2c0103000000"),
    (
        "data",
        "c9000000080081036c6974736d616c6c0109fbfb000902fbfb0000fc7011010001fbfb0002fc00001000fb2c01fbfb00 \
         08fc00000400fb2c01fbfb000103fbfb0007fb2c01fbfb0003000102030405060708090a0b0c0d0e0f10111213141516 \
         1718191a1b1c1d1e1ffc00e2a7ca07fa0405000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d \
         1e1ffc00e2a7ca07fbfc0005fd0000000004000000000102030405060708090a0b0c0d0e0f101112131415161718191a \
         1b1c1d1e1ffc00e2a7ca07bb000000",
    ),
    ("data of failed files", "1a00000008000006000600010601020602030605030a04060305060416000000"),
    ("release", "0b00000009000400fafbfb00fc00000100"),
    (
        "report",
        "db0000000a0007000003622f7800fb2c010100010100010001010001fba001fbe803fc70110100fc0dad2500fcffc99a \
         3bfbfb00010707070707070707070707070707070707070707070707070707070707070707fd00000000000100000000 \
         0103622f780107000003622f78030300000000000000000000fba001fbe803fc70110100fc0dad2500fcffc99a3bfbfb \
         00010707070707070707070707070707070707070707070707070707070707070707fd00000000000100000103622f78 \
         000203622f780002010103622f780b001a02082f7372762f6e65770304736c6f77",
    ),
    (
        "summary",
        "410000000b00fc7011010002030405fd00000000000100000102030405fbfb0002030405060708090a0b0c0d0a010000 \
         0000000000fb2c0101fc70110100000000000000fb2c01",
    ),
    ("abort", "150000000c00131361206c6f636b2069732068656c643a202fc3a9"),
    ("keepalive", "000000000d00"),
    ("times", "090000001100000005000000000000"),
    (
        "start as one end of a bench",
        "4e000000020002042f737276000000000000000000000000000000000000000000000000000000000000000000000000 \
         000000000000000000000000000002000000000000000000000000000000000000000000",
    ),
    ("probe of the machine", "010000000e0000"),
    ("probe of the round trip", "010000000e0001"),
    ("probe that asks for filler", "0a0000000e0002fd0000000010000000"),
    ("probe that sends filler", "020000000e0003fa"),
    ("probe of the scan", "060000000e0004fcc0270900"),
    ("probe of the tree's files", "040000000e0005fbd007"),
    ("probe of the disk", "090000000e0006fc00000010fbd007"),
    ("probe of small files", "070000000e0007fbe803fbd007"),
    ("probe of the hash", "040000000e0008fbf401"),
    ("probe of compression", "050000000e000913fbf401"),
    ("probe that is the last", "010000000e000a"),
    ("measurement by the client's clock", "010000000f0000"),
    ("measurement refused", "080000000f0001066e6f3a20c3a9"),
    ("measurement of a machine", "0d0000000f0002fb2c01fd0000000000010000"),
    (
        "measurement of a tree",
        "250000000f0003fc70110100fb2c01fd0000000000010000fbfb00fd00000000800000000201fc002f6859",
    ),
    ("measurement of work", "100000000f000401fd0000000002000000fc00943577"),
    ("measurement of a disk", "1f0000000f000502fd0000000002000000fc0094357703fd0000000002000000fc00943577"),
    ("measurement of compression", "140000000f000604fd0000000002000000fc00943577fb2c0101"),
    ("filler", "1400000010005a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"),
    ("invitation", "2000000012005a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"),
    ("spread", "01000000130086"),
    ("removal", "1e000000140002fb2c010100fafbfb000108fb2c01fd0000000004000000fc00e2a7ca07"),
    ("removed", "030000001500fb2c01"),
    (
        "start with a list that follows",
        "5100000002000001042f7372760100010000000000000000000000000000000000000000000000000000000000000000 \
         000000000000000000000000000000000002000000000000000000000000000000000000000000",
    ),
    (
        "start with a list that is there",
        "5c00000002000001042f7372760101092f6574632f6c6973740101000000000000000000000000000000000000000000 \
         000000000000000000000000000000000000000000000000000000000200000000000000000000000000000000000000 \
         0000",
    ),
    ("names", "08000000160006612f6200630001"),
];

/// The preamble of version 1: `\0migsync`.
const PREAMBLE_1: &str = "006d696773796e63";
/// That of a further channel: `\0migjoin`.
const JOIN_PREAMBLE_1: &str = "006d69676a6f696e";

#[test]
fn the_version_is_the_one_that_these_bytes_are_of() {
    assert_eq!(VERSION, 1);
}

#[test]
fn the_preamble_is_what_it_always_was() {
    assert_eq!(hex(&PREAMBLE), PREAMBLE_1);
    assert_eq!(hex(&JOIN_PREAMBLE), JOIN_PREAMBLE_1);
}

#[test]
fn every_message_encodes_to_its_golden_bytes() {
    let messages = messages();
    let encoded: Vec<_> =
        messages.iter().map(|(name, message)| (*name, hex(message.encode().as_bytes()))).collect();
    let listing = encoded.iter().fold(String::new(), |mut text, (name, bytes)| {
        let _ = writeln!(text, "    (\"{name}\", \"{bytes}\"),");
        text
    });
    let golden: Vec<_> =
        VERSION_1.iter().map(|(name, bytes)| (*name, bytes.replace([' ', '\n'], ""))).collect();
    assert!(encoded == golden, "the wire has changed; it is now\n{listing}");
}

#[test]
fn the_golden_bytes_decode_to_every_message() {
    for ((name, bytes), (_, message)) in VERSION_1.iter().zip(messages()) {
        assert_eq!(Message::decode(frame(&unhex(bytes))).as_ref(), Ok(&message), "{name}");
    }
}

#[test]
fn the_golden_bytes_have_every_kind_of_message() {
    let kinds: std::collections::BTreeSet<u8> = VERSION_1.iter().map(|(_, bytes)| unhex(bytes)[4]).collect();
    assert_eq!(kinds, (1..=22).collect());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn frame(bytes: &[u8]) -> Frame {
    let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>().unwrap();
    let mut frame = Header::new(*header).unwrap().frame();
    frame.body_mut().copy_from_slice(body);
    frame
}

// One of each, with values that need more than one byte where a field has several.

fn messages() -> Vec<(&'static str, Message)> {
    vec![
        ("hello", Message::Hello(Hello { oldest: 1, newest: 300, program: "migsync 0.1".into() })),
        (
            "start as the source",
            start(Role::Source { arguments: vec![b"/srv/a/".to_vec(), b"b".to_vec()], list: None }, plain()),
        ),
        (
            "start as the destination",
            start(
                Role::Destination { argument: b"/srv/\xff".to_vec(), list: Some(list_file()) },
                everything(),
            ),
        ),
        ("begin", begin(Some(entry(b"root", Kind::Directory)), false)),
        ("begin with a single file", begin(None, true)),
        ("listing", Message::List(pieces())),
        ("scan end", Message::Scanned(Scanned { entries: 70_000, bytes: 1 << 40 })),
        ("request", Message::Request(requests())),
        ("signature", Message::decode(signature_frame(300, &[0xa5; 24])).unwrap()),
        ("data", data()),
        ("data of failed files", failures()),
        ("release", Message::Release(vec![0, 250, 251, 65_536])),
        ("report", Message::Report(reports())),
        ("summary", Message::Finished(Box::new(finished()))),
        ("abort", Message::Abort(Abort { exit: Exit::Refused, message: "a lock is held: /é".into() })),
        ("keepalive", Message::KeepAlive),
        ("times", Message::Spent(Times { hash_ns: 5, ..Times::default() })),
        (
            "start as one end of a bench",
            start(Role::Bench { argument: b"/srv".to_vec() }, SyncOptions::default()),
        ),
        ("probe of the machine", Message::Probe(Probe::Machine)),
        ("probe of the round trip", Message::Probe(Probe::Echo)),
        ("probe that asks for filler", Message::Probe(Probe::Send { bytes: 64 << 30 })),
        ("probe that sends filler", Message::Probe(Probe::Receive { bytes: 250 })),
        ("probe of the scan", Message::Probe(Probe::Scan { limit_ms: 600_000 })),
        ("probe of the tree's files", Message::Probe(Probe::ReadTree { limit_ms: 2000 })),
        ("probe of the disk", Message::Probe(Probe::Disk { bytes: 256 << 20, limit_ms: 2000 })),
        ("probe of small files", Message::Probe(Probe::Create { files: 1000, limit_ms: 2000 })),
        ("probe of the hash", Message::Probe(Probe::Hash { limit_ms: 500 })),
        ("probe of compression", Message::Probe(Probe::Compress { level: 19, limit_ms: 500 })),
        ("probe that is the last", Message::Probe(Probe::Finish)),
        ("measurement by the client's clock", Message::ProbeResult(ProbeResult::Done)),
        ("measurement refused", Message::ProbeResult(ProbeResult::Refused("no: é".into()))),
        (
            "measurement of a machine",
            Message::ProbeResult(ProbeResult::Machine(Machine { cores: 300, free_bytes: 1 << 40 })),
        ),
        ("measurement of a tree", Message::ProbeResult(ProbeResult::Tree(tree_size()))),
        ("measurement of work", Message::ProbeResult(ProbeResult::Work(work(1)))),
        ("measurement of a disk", Message::ProbeResult(ProbeResult::Disk { write: work(2), read: work(3) })),
        (
            "measurement of compression",
            Message::ProbeResult(ProbeResult::Compressed { work: work(4), packed_bytes: 300, of_tree: true }),
        ),
        ("filler", Message::decode(filler_frame(&[0x5a; 20])).unwrap()),
        ("invitation", Message::Invite([0x5a; 32])),
        ("spread", Message::Spread(Channels::with([7, 1, 2]))),
        ("removal", Message::Remove(removals())),
        ("removed", Message::Removed(300)),
        (
            "start with a list that follows",
            start(Role::Source { arguments: vec![b"/srv".to_vec()], list: Some(List::Follows) }, plain()),
        ),
        (
            "start with a list that is there",
            start(
                Role::Source { arguments: vec![b"/srv".to_vec()], list: Some(List::File(list_file())) },
                plain(),
            ),
        ),
        ("names", Message::Names(NamesPart { bytes: b"a/b\0c\0".to_vec(), last: true })),
    ]
}

fn work(files: u64) -> Work {
    Work { files, bytes: 1 << 33, elapsed_ns: 2_000_000_000 }
}

fn tree_size() -> TreeSize {
    TreeSize {
        entries: 70_000,
        files: 300,
        bytes: 1 << 40,
        large_files: 251,
        large_bytes: 1 << 39,
        unreadable: 2,
        is_whole: true,
        elapsed_ns: 1_500_000_000,
    }
}

/// No rule here names a file that is read.
struct NoFiles;

impl RuleFiles for NoFiles {
    fn merged(&mut self, _: &[u8], _: Option<&[u8]>) -> Result<Vec<u8>, String> {
        Err("not here".to_owned())
    }

    fn in_directory(&mut self, _: &[u8], _: &[u8]) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }

    fn cvs_words(&mut self) -> Vec<u8> {
        Vec::new()
    }
}

fn list_file() -> ListFile {
    ListFile { path: b"/etc/list".to_vec(), zero_ended: true }
}

fn start(role: Role, options: SyncOptions) -> Message {
    Message::Start(Box::new(Start { role, options }))
}

fn plain() -> SyncOptions {
    SyncOptions { recursive: true, ..SyncOptions::default() }
}

fn everything() -> SyncOptions {
    let mut filter = FilterRules::default();
    filter.push_exclude(b"*.tmp").unwrap();
    filter.push_include(b"/keep/***").unwrap();
    filter.push_filter(b"-!/sp x/*", &mut NoFiles).unwrap();
    filter.push_filter(b":e /.rsync-filter", &mut NoFiles).unwrap();
    filter.push_filter(b":rC", &mut NoFiles).unwrap();
    let preserve = Preserve {
        links: true,
        perms: true,
        owner: false,
        group: true,
        times: true,
        devices: false,
        specials: true,
        numeric_ids: true,
        xattrs: true,
        acls: false,
        hard_links: true,
        atimes: false,
        omit_times: OmitTimes { directories: true, links: false },
        executability: true,
    };
    SyncOptions {
        recursive: true,
        one_file_system: true,
        preserve,
        quick_check: QuickCheck::Checksum,
        update: true,
        existing: false,
        ignore_existing: true,
        whole_file: false,
        inplace: true,
        block_size: Some(131_072),
        delete: Delete {
            extraneous: true,
            max_entries: Some(1000),
            allow_empty_source: false,
            replaced_directories: true,
            ignore_errors: false,
        },
        filter,
        chmod: vec![ModeChange {
            directories: true,
            files: false,
            clear: 0o22,
            set: 0o2000,
            set_if_executable: 0o111,
            copy: Some(ModeCopy { shift: 6, to: 0o077 }),
        }],
        compression: Compression::Zstd { level: 3 },
        without_index: true,
        dry_run: false,
        verify: true,
        itemize: true,
        bandwidth_bytes_per_s: 5_000_000_000,
        timeout_s: 600,
        links: Links {
            followed: Followed::Some { leading_out: true, to_directories: false },
            only_inside: true,
            keep_directories: false,
            munging: Munging::Put,
        },
        arguments: ArgumentRules {
            relative: Relative::WithoutImplied,
            missing: Missing::Deleted,
            make_path: true,
        },
        time_window: TimeWindow::Seconds(300),
        directories: false,
        remove_source_files: true,
        bases: Bases { kind: BaseKind::Copy, directories: vec![b"../old".to_vec(), b"/b".to_vec()] },
        fuzzy: Fuzzy::BesideAndInBases,
        replaced: Replaced::Backup { directory: Some(b"../backup".to_vec()), suffix: b".old".to_vec() },
        placing: Placing {
            temp_dir: Some(b"/var/tmp".to_vec()),
            partial_dir: Some(b".partial".to_vec()),
            delayed: true,
        },
        only_grown: true,
        prune_empty_dirs: true,
        sizes: SizeRange { least_bytes: Some(1), most_bytes: Some(1 << 40) },
        telling: Telling { unchanged: true, spared: false },
        plan: Plan::new(vec![[9; 12], [8; 12]]),
        room: Room { sparse: true, reserved: false },
        reading: Reading { devices: false, noatime: true },
        owners: OwnerMaps {
            users: vec![
                Mapping { whom: Whom::Numbers { from: 1, to: 1000 }, to: b"www".to_vec() },
                Mapping { whom: Whom::Pattern(b"d*".to_vec()), to: b"70000".to_vec() },
            ],
            groups: vec![Mapping { whom: Whom::Name(Vec::new()), to: b"ops".to_vec() }],
        },
        privileges: Privileges { source: Privilege::Stored, destination: Privilege::Waived },
    }
}

fn entry(name: &[u8], kind: Kind) -> Entry {
    let mtime = Timestamp { secs: -1_234_567, nanos: 999_999_999 };
    Entry {
        name: Name::new(name).unwrap(),
        kind,
        mode: 0o4755,
        uid: 1000,
        gid: 70_000,
        mtime,
        young: true,
        extra: None,
    }
}

fn begin(root: Option<Entry>, single: bool) -> Message {
    let names = OwnerNames { users: vec![(1000, b"ops".to_vec())], groups: Vec::new() };
    let path = |bytes: &[u8]| RelPath::new(bytes).unwrap();
    let places = if single {
        Places { asked: vec![path(b"a/b")], missing: vec![path(b"a/c"), path(b"d")] }
    } else {
        Places::default()
    };
    Message::Begin(Box::new(Begin { root, names, single, places }))
}

fn pieces() -> Vec<Piece> {
    let entries = vec![
        entry(b"a\n", Kind::File { size_bytes: 1 << 33 }),
        entry(b"b", Kind::Directory),
        entry(b"c", Kind::Symlink { target: b"../\xfe".to_vec() }),
        entry(b"d", Kind::Fifo),
        entry(b"e", Kind::Socket),
        entry(b"f", Kind::CharDevice { device: (5, 1) }),
        entry(b"fg", Kind::BlockDevice { device: (259, 70_000) }),
    ];
    let names = OwnerNames { users: vec![(1000, b"ops".to_vec())], groups: vec![(70_000, b"db".to_vec())] };
    let extra = |value: &[u8]| {
        let attributes = Attributes::new([(b"user.a".to_vec(), value.to_vec())]).unwrap();
        let link = Some(HardLink { group: 300, leads: value.len() == 300 });
        let atime = Some(Timestamp { secs: 1, nanos: 2 });
        Some(Box::new(Extra { attributes: Some(Arc::new(attributes)), link, atime }))
    };
    let told =
        [(b"g", extra(b"v")), (b"h", extra(b"v")), (b"i", extra(&[7; 300])), (b"j", Some(Box::default()))];
    let mut entries: Vec<Entry> = entries;
    for (name, extra) in told {
        entries.push(Entry { extra, ..entry(name, Kind::Fifo) });
    }
    let first = Piece { list: 300, directory: RelPath::root(), last: false, complete: true, names, entries };
    let second = Piece {
        list: 301,
        directory: RelPath::new(*b"b/c").unwrap(),
        last: true,
        complete: false,
        names: OwnerNames::default(),
        entries: Vec::new(),
    };
    vec![first, second]
}

fn requests() -> Vec<Request> {
    let delta = Want::Delta { block_size: 4096, basis_bytes: 1 << 34 };
    let aligned = Want::Aligned {
        block_size: 1 << 16,
        basis_bytes: 1 << 34,
        basis_head: Some([1, 2, 3, 4, 5, 6, 7, 8]),
    };
    let sparse = Want::Sparse { block_size: 1 << 16, basis_bytes: 1 << 40, blocks: 300 };
    let narrowed = Want::Narrowed { block_size: 1 << 15, basis_bytes: 1 << 34 };
    [Want::Whole, delta, Want::Hash, aligned, sparse, Want::SparseHash, narrowed]
        .into_iter()
        .zip(0..)
        .map(|(want, i)| Request { list: 300, index: i, file: 250 + i, want })
        .collect()
}

fn removals() -> Vec<Removal> {
    let ctime = Timestamp { secs: 1_700_000_000, nanos: 7 };
    let identity = Some(Identity { device: (8, 300), inode: 1 << 34, ctime });
    vec![Removal { list: 300, index: 1, identity: None }, Removal { list: 250, index: 251, identity }]
}

fn read_file() -> ReadFile {
    ReadFile { hash: std::array::from_fn(|i| i as u8), mtime: Timestamp { secs: 1_700_000_000, nanos: 7 } }
}

fn data() -> Message {
    let mut builder = DataBuilder::new(1);
    builder.lacks(251, &[0b1000_0001, 3]);
    builder.step(251, Step::Open { size_bytes: 70_000, hash: HashKind::Sparse });
    builder.step(251, Step::Match { block: 1 << 20, count: 300 });
    builder.step(251, Step::Pages { page: 1 << 18, count: 300 });
    builder.literal(251, b"lit");
    builder.literal(251, &[0; 300]);
    builder.step(251, Step::End(read_file()));
    let append = |bytes: &mut Vec<u8>| {
        bytes.extend_from_slice(b"small");
        Ok::<(), ()>(())
    };
    builder.small_with(250, append, |_| Ok(read_file())).unwrap();
    builder.step(252, Step::Hashed { size_bytes: 1 << 34, read: read_file() });
    Message::decode(builder.take()).unwrap()
}

fn failures() -> Message {
    let mut builder = DataBuilder::new(0);
    let errno = Failure::Errno { operation: Operation::Read, errno: 5 };
    for (failure, file) in [
        Failure::Vanished,
        Failure::Changed,
        Failure::ChangedKind,
        errno,
        Failure::Misaligned,
        Failure::HasHoles,
    ]
    .into_iter()
    .zip(0..)
    {
        builder.step(file, Step::Failed(failure));
    }
    Message::decode(builder.take()).unwrap()
}

fn reports() -> Vec<Report> {
    let path = RelPath::new(*b"b/x").unwrap();
    let change = Change {
        content: Content::Transferred,
        new: false,
        value: true,
        size: true,
        time: false,
        perms: true,
        owner: false,
        group: true,
        xattrs: true,
        acls: false,
        atime: true,
    };
    let kind = Kind::File { size_bytes: 300 };
    let particulars = Particulars {
        mode: 0o640,
        uid: 1000,
        gid: 70_000,
        mtime: Timestamp { secs: -1_234_567, nanos: 999_999_999 },
        literal_bytes: 251,
        content: Some([7; 32]),
        was: 1 << 40,
    };
    vec![
        Report::Item(Item::Updated { path: path.clone(), kind, change, particulars, first: None }),
        Report::Item(Item::Deleted { path: path.clone(), is_dir: true, was: 7 }),
        Report::Item(Item::Updated {
            path: path.clone(),
            kind: Kind::Fifo,
            change: Change { content: Content::Linked, ..Change::default() },
            particulars,
            first: Some(path.clone()),
        }),
        Report::Item(Item::Spared { path: path.clone(), is_dir: false, why: Spared::IsNewer }),
        Report::Problem(Problem {
            side: Side::Destination,
            path,
            operation: Operation::SetTimes,
            cause: Cause::Errno(13),
        }),
        Report::MadeRoot(b"/srv/new".to_vec()),
        Report::Note("slow".into()),
    ]
}

fn finished() -> Finished {
    let kinds = |files| Kinds { files, directories: 2, symlinks: 3, devices: 4, specials: 5 };
    let stats = Stats {
        listed: kinds(70_000),
        listed_bytes: 1 << 40,
        created: kinds(1),
        deleted: kinds(251),
        files_updated: 6,
        metadata_updated: 7,
        transferred_bytes: 8,
        literal_bytes: 9,
        matched_bytes: 10,
        compared_files: 11,
        compared_bytes: 12,
        listed_target_bytes: 13,
    };
    let times = Times { scan_ns: 1, commit_ns: 300, ..Times::default() };
    Finished { stats, exit: Exit::Vanished, times, source_times: Times { read_ns: 70_000, ..times } }
}

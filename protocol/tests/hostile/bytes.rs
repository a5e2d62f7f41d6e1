//! Bytes that are no message, or a far larger one than they are.

use super::*;

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

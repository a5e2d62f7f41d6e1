//! How fast messages become bytes and come back: a piece of a listing, and frames of data.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use protocol::entry::{Entry, Kind, Timestamp};
use protocol::frame::Frame;
use protocol::limits;
use protocol::message::{DataBuilder, Message, OwnerNames, Piece, ReadFile};
use protocol::path::{Name, RelPath};
use std::convert::Infallible;
use std::hint::black_box;
use tests::seed::Rng;

const SMALL_FILE_BYTES: usize = 4096;

fn listing(criterion: &mut Criterion) {
    let message = Message::List(vec![piece()]);
    let frame = message.encode();
    let mut group = criterion.benchmark_group("list piece");
    group.sample_size(10).throughput(Throughput::Elements(limits::PIECE_ENTRIES as u64));
    group.bench_function("encode", |bencher| bencher.iter(|| black_box(&message).encode()));
    group.bench_function("decode", |bencher| decode(bencher, &frame));
    group.finish();
}

fn data(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("data frame");
    group.sample_size(10).throughput(Throughput::Bytes(limits::DATA_BYTES as u64));
    let content = Rng::new(1).bytes(limits::DATA_BYTES);
    for (name, fill) in [("literal", literal as fn(&[u8]) -> Frame), ("small files", small_files)] {
        group.bench_function(format!("{name}, encode"), |bencher| bencher.iter(|| fill(black_box(&content))));
        let frame = fill(&content);
        group.bench_function(format!("{name}, decode"), |bencher| decode(bencher, &frame));
    }
    group.finish();
}

/// Decoding takes the frame, so each turn gets a copy that was made before.
fn decode(bencher: &mut criterion::Bencher<'_>, frame: &Frame) {
    let decode = |frame| Message::decode(frame).expect("it was encoded here");
    bencher.iter_batched(|| frame.clone(), decode, BatchSize::LargeInput);
}

fn piece() -> Piece {
    let mut rng = Rng::new(1);
    let entries = (0..limits::PIECE_ENTRIES).map(|number| entry(&mut rng, number)).collect();
    let names = OwnerNames { users: vec![(1000, b"user".to_vec())], groups: vec![(1000, b"group".to_vec())] };
    let directory = RelPath::new(*b"attachments/c000000000000000000000001").expect("a path");
    Piece { list: 1, directory, last: true, complete: true, names, entries }
}

fn entry(rng: &mut Rng, number: usize) -> Entry {
    Entry {
        name: Name::new(format!("c{number:024x}").into_bytes()).expect("a name"),
        kind: Kind::File { size_bytes: rng.below(1 << 20) },
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        mtime: Timestamp { secs: 1_704_067_200, nanos: rng.below(1_000_000_000) as u32 },
        young: false,
        extra: None,
    }
}

fn literal(content: &[u8]) -> Frame {
    let mut builder = DataBuilder::new(0);
    builder.literal(1, content);
    builder.take()
}

fn small_files(content: &[u8]) -> Frame {
    let mut builder = DataBuilder::new(0);
    let read = ReadFile { hash: [7; 32], mtime: Timestamp::default() };
    for (file, content) in content.chunks(SMALL_FILE_BYTES).enumerate() {
        let append = |bytes: &mut Vec<u8>| {
            bytes.extend_from_slice(content);
            Ok::<_, Infallible>(())
        };
        builder.small_with(file as u32, append, |_| Ok(read)).expect("memory cannot fail");
    }
    builder.take()
}

criterion_group!(benches, listing, data);
criterion_main!(benches);

//! How fast a file is matched against its basis, by how it changed.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use protocol::matcher::{Matcher, Op, Signature};
use protocol::signature::{BlockSize, calculate};
use protocol::subtree::{self, Comparison};
use std::hint::black_box;
use tests::seed::Rng;

const DATA_BYTES: usize = 32 << 20;
const PAGE_BYTES: usize = 4096;
/// What a sender reads at once, more or less.
const WINDOW_BYTES: usize = 1 << 20;

fn matcher(criterion: &mut Criterion) {
    let basis = Rng::new(1).bytes(DATA_BYTES);
    let size = BlockSize::for_basis(DATA_BYTES as u64);
    let entries = calculate(&basis, size);
    let mut group = criterion.benchmark_group("match");
    group.sample_size(10).throughput(Throughput::Bytes(DATA_BYTES as u64));
    let in_place = subtree::fast_block_size(DATA_BYTES as u64);
    let values = subtree::entries(&subtree::values(&basis, 0, in_place));
    for (name, target) in targets(&basis) {
        group.bench_function(format!("{name}, in place"), |bencher| {
            bencher.iter(|| compare_all(&values, in_place, black_box(&target)));
        });
        group.bench_function(name, |bencher| {
            bencher.iter(|| advance_all(&entries, size, black_box(&target)));
        });
    }
    group.finish();
}

/// Blocks against those at the same place, and the hash of the whole.
fn compare_all(values: &[u8], size: BlockSize, target: &[u8]) -> usize {
    let mut comparison = Comparison::new(size, DATA_BYTES as u64, target.len() as u64, None);
    comparison.extend(values).expect("values of the basis");
    let mut ops = Vec::new();
    target.chunks(WINDOW_BYTES).for_each(|window| comparison.advance(window, &mut ops));
    black_box(comparison.finish());
    ops.len()
}

fn targets(basis: &[u8]) -> [(&'static str, Vec<u8>); 4] {
    let line = b"one more line\n".to_vec();
    [
        ("all matched", basis.to_vec()),
        ("1 % of the pages changed", with_changed_pages(basis)),
        ("nothing matches", Rng::new(2).bytes(DATA_BYTES)),
        ("shifted by one line", [&line, basis].concat()),
    ]
}

fn with_changed_pages(basis: &[u8]) -> Vec<u8> {
    let mut target = basis.to_vec();
    let mut rng = Rng::new(3);
    let pages = target.len() / PAGE_BYTES;
    for _ in 0..pages / 100 {
        let from = rng.index(pages) * PAGE_BYTES;
        target[from..from + PAGE_BYTES].copy_from_slice(&rng.bytes(PAGE_BYTES));
    }
    target
}

/// Feeds windows as a sender does: what is left undecided comes again with the next one.
fn advance_all(entries: &[u8], size: BlockSize, target: &[u8]) -> usize {
    let mut signature = Signature::new(size, DATA_BYTES as u64);
    signature.extend(entries).expect("it is the basis's own");
    let mut matcher = Matcher::new(signature);
    let (mut from, mut operations) = (0, 0);
    let mut ops: Vec<Op> = Vec::new();
    while from < target.len() {
        let end = target.len().min(from + WINDOW_BYTES);
        from += matcher.advance(&target[from..end], end == target.len(), &mut ops);
        operations += ops.len();
        ops.clear();
    }
    operations
}

criterion_group!(benches, matcher);
criterion_main!(benches);

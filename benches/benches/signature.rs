//! How fast a basis is signed, by block size.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use protocol::signature::{BlockSize, calculate};
use std::hint::black_box;
use tests::seed::Rng;

const DATA_BYTES: usize = 16 << 20;

fn signature(criterion: &mut Criterion) {
    let data = Rng::new(1).bytes(DATA_BYTES);
    let mut group = criterion.benchmark_group("signature");
    group.sample_size(10).throughput(Throughput::Bytes(DATA_BYTES as u64));
    for block_bytes in [512, 4096, 65_536] {
        let size = BlockSize::new(block_bytes, DATA_BYTES as u64).expect("within bounds");
        group.bench_with_input(BenchmarkId::from_parameter(block_bytes), &size, |bencher, &size| {
            bencher.iter(|| calculate(black_box(&data), size));
        });
    }
    group.finish();
}

criterion_group!(benches, signature);
criterion_main!(benches);

//! How fast trees are listed and merged where nothing changed: a dry run between two equal trees.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tests::sandbox::Sandbox;
use tests::tree::many_files;

mod local;

const FILES: u64 = 20_000;

fn scan(criterion: &mut Criterion) {
    let sandbox = Sandbox::new();
    many_files(&sandbox.source(), FILES);
    local::run(&["-a"], &sandbox.source(), &sandbox.destination());
    let mut group = criterion.benchmark_group("scan");
    group.sample_size(10).throughput(Throughput::Elements(FILES));
    group.bench_function("nothing changed", |bencher| {
        bencher.iter(|| local::run(&["-an"], &sandbox.source(), &sandbox.destination()));
    });
    group.finish();
}

criterion_group!(benches, scan);
criterion_main!(benches);

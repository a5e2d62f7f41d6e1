//! How fast small files are written, verified and committed: a local copy to where nothing is.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::fs;
use tests::sandbox::Sandbox;
use tests::tree::many_files;

mod local;

const FILES: u64 = 5_000;

fn commit(criterion: &mut Criterion) {
    let sandbox = Sandbox::new();
    many_files(&sandbox.source(), FILES);
    let (source, destination) = (sandbox.source(), sandbox.destination());
    let mut group = criterion.benchmark_group("commit");
    group.sample_size(10).throughput(Throughput::Elements(FILES));
    group.bench_function("5,000 small files", |bencher| {
        let clear = || fs::remove_dir_all(&destination).expect("it is the sandbox's");
        bencher.iter_batched(clear, |()| local::run(&["-a"], &source, &destination), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);

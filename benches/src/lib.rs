//! Side-by-side runs against rsync, as the program `versus`.
//!
//! [`cases`] is the table of what is compared and how fast it must be, [`data`] makes the trees, [`contest`]
//! runs and checks, [`report`] judges and prints, [`machine`] says where it ran. Servers, the slow link and the
//! comparison of trees are the tests' own, so that both measure and test the same thing.
//!
//! A step that fails ends the program by a panic, as in the tests: a figure of a run that went wrong, or
//! whose destination differs from its source, is none.
//!
//! Reports that are kept are in `benches/runs/`. The benchmarks of single parts are in `benches/benches/`.

pub mod cases;
pub mod contest;
pub mod data;
pub mod interrupt;
pub mod machine;
pub mod programs;
pub mod report;

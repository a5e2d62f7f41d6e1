//! A seeded simulation of both ends of a session, in one thread and without a clock.
//!
//! A source with a tree in memory and a destination with another drive the two state machines the way
//! the agent's engine does. Between them are two byte streams of encoded frames, so the wire is covered
//! too. At each step chance picks which of the things that could happen next does; how likely each kind
//! is differs from seed to seed, so that some runs have a slow disk, some a slow wire, some a slow
//! source. A run that fails prints its seed.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's failure is its panic, its figures are read"
)]

mod destination_end;
mod seeds;
mod simulation;
mod source_end;
mod trees;
mod wire;

use destination_end::*;
use protocol::arguments::Places;
use protocol::decide::{Action, decide};
use protocol::destination::{DestinationEvent, DestinationSession, DirectoryId, ReadyPiece, Standing};
use protocol::entry::{Entry, Kind, Timestamp};
use protocol::frame::{HEADER_BYTES, Header};
use protocol::matcher::{Matcher, Op, Signature};
use protocol::message::{
    Begin, Data, DataBuilder, Failure, Finished, HashKind, Message, OwnerNames, Piece, ReadFile, Request,
    Scanned, Step, Want, signature_frame,
};
use protocol::narrow::{self, Lacking, Narrowing};
use protocol::options::{Preserve, SyncOptions};
use protocol::pages::{self, BasisHead, PageHash, PageHasher, PageSearch};
use protocol::path::{Name, RelPath};
use protocol::signature::calculate;
use protocol::source::{SourceEvent, SourceSession};
use protocol::sparse::{self, Blocks, is_zero};
use protocol::stats::{Exit, Operation, Stats, Times};
use protocol::subtree::Comparison;
use protocol::{ProtocolError, limits, subtree};
use seeds::*;
use simulation::*;
use source_end::*;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use trees::*;
use wire::*;

#[test]
fn any_tree_in_any_order_of_events_arrives_whole() {
    let plain = Variant::default();
    let totals = run_seeds("plain", 0..400, &plain);
    assert!(totals.deltas > 100 && totals.lacking > 10 && totals.multi_piece_directories > 100, "{totals:?}");
}

#[test]
fn files_that_vanish_change_or_cannot_be_read_fail_alone() {
    let variant = Variant { failing_percent: 30, ..Variant::default() };
    let totals = run_seeds("failing files", 1000..1250, &variant);
    assert!(totals.failures > 1000, "{totals:?}");
}

#[test]
fn directories_that_are_skipped_or_absent_are_passed_over_with_all_that_is_in_them() {
    let variant = Variant { refused_percent: 30, failing_percent: 5, ..Variant::default() };
    let totals = run_seeds("standings", 2000..2250, &variant);
    assert!(totals.refused_directories > 500, "{totals:?}");
}

#[test]
fn signatures_beyond_the_budget_wait_for_their_turn() {
    let variant = Variant { huge_bases: true, kept_percent: 0, failing_percent: 10, ..Variant::default() };
    let totals = run_seeds("signature budget", 3000..3150, &variant);
    assert!(totals.budget_waits > 50, "{totals:?}");
}

#[test]
fn a_tree_beyond_the_window_arrives_through_it() {
    let variant = Variant {
        entries: 90_000,
        piece_entries: limits::PIECE_ENTRIES,
        directories_percent: 0,
        first_directories: 3,
        kept_percent: 100,
        careful: false,
        ..Variant::default()
    };
    let totals = run_seeds("window", 4000..4003, &variant);
    assert!(totals.window_closed > 0, "{totals:?}");
}

#[test]
fn a_fault_in_any_frame_ends_in_a_typed_error_or_in_the_right_tree() {
    let variant = Variant { entries: 26, failing_percent: 10, ..Variant::default() };
    let mut outcomes = BTreeMap::<(&str, &str), u64>::new();
    for seed in 5000..5012 {
        let frames = Simulation::new(seed, &variant, None).run().frames;
        for at in 0..frames {
            for fault in Fault::all_at(seed, at) {
                let announced = Announced::new(format!("seed {seed}, {fault:?}"));
                let end = Simulation::new(seed, &variant, Some(fault)).run();
                *outcomes.entry((fault.name(), end.check(fault))).or_default() += 1;
                drop(announced);
            }
        }
    }
    let runs: u64 = outcomes.values().sum();
    println!("faults: {runs} runs: {outcomes:?}");
    assert!(runs > 1000);
}

//! Seeds: what is tried, and what came of it.

use super::*;

/// Prints what it is about if the test fails while it lives.
pub(crate) struct Announced(pub(crate) String);

impl Announced {
    pub(crate) fn new(what: String) -> Announced {
        Announced(what)
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed at: {}", self.0);
        }
    }
}

pub(crate) fn run_seeds(what: &str, seeds: std::ops::Range<u64>, variant: &Variant) -> Totals {
    let mut totals = Totals::default();
    for seed in seeds {
        let announced = Announced::new(format!("{what}, seed {seed}"));
        let end = Simulation::new(seed, variant, None).run();
        assert!(matches!(end.outcome, Outcome::Complete), "seed {seed}: {:?}", end.outcome);
        assert_eq!(first_difference(&end.tree, &end.expected), None, "seed {seed}");
        totals.add(&end.totals);
        drop(announced);
    }
    println!("{what}: {totals:?}");
    totals
}

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) runs: u64,
    pub(crate) steps: u64,
    pub(crate) frames: u64,
    pub(crate) files: u64,
    pub(crate) deltas: u64,
    pub(crate) lacking: u64,
    pub(crate) failures: u64,
    pub(crate) refused_directories: u64,
    pub(crate) multi_piece_directories: u64,
    pub(crate) budget_waits: u64,
    pub(crate) window_closed: u64,
    pub(crate) completed_directories: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, run: &Totals) {
        self.runs += 1;
        self.steps += run.steps;
        self.frames += run.frames;
        self.files += run.files;
        self.deltas += run.deltas;
        self.lacking += run.lacking;
        self.failures += run.failures;
        self.refused_directories += run.refused_directories;
        self.multi_piece_directories += run.multi_piece_directories;
        self.budget_waits += run.budget_waits;
        self.window_closed += run.window_closed;
        self.completed_directories += run.completed_directories;
    }
}

/// splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// What a simulation is of.
#[derive(Debug, Clone)]
pub(crate) struct Variant {
    pub(crate) entries: usize,
    /// Most entries in a piece; a run picks its own bound up to this.
    pub(crate) piece_entries: usize,
    pub(crate) directories_percent: usize,
    /// Directories that exist before the rest of the tree is grown.
    pub(crate) first_directories: usize,
    /// Files that the destination has already.
    pub(crate) kept_percent: usize,
    pub(crate) failing_percent: usize,
    pub(crate) refused_percent: usize,
    /// Some bases are said to be so long that two of them use up the signature budget.
    pub(crate) huge_bases: bool,
    /// Everything below a completing directory is looked at: quadratic.
    pub(crate) careful: bool,
}

impl Default for Variant {
    fn default() -> Variant {
        Variant {
            entries: 120,
            piece_entries: 8,
            directories_percent: 25,
            first_directories: 0,
            kept_percent: 20,
            failing_percent: 0,
            refused_percent: 0,
            huge_bases: false,
            careful: true,
        }
    }
}

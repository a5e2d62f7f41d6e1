//! `demo`: a whole migration of a small sample.

use crate::endpoint::Environment;

/// Runs it.
pub fn run(_environment: &Environment) -> u8 {
    0
}

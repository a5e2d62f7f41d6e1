//! Tables by numbers that this end gave itself.
//!
//! The standard library's hash keeps a peer from choosing keys that collide, at a price that a session pays several
//! times for each directory. Numbers counted up here can't be chosen by anybody, so one multiplication spreads them. A peer
//! may ask with any number, but never becomes the reason for one to be in the table.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A table whose keys are counted up by this end, and never a peer's.
pub type ByOwnNumber<V> = HashMap<u32, V, BuildHasherDefault<NumberHasher>>;

/// See the module's documentation.
#[derive(Debug, Default, Clone, Copy)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write_u32(&mut self, number: u32) {
        // 2^64 by the golden ratio, odd: neighbours end up far from each other, in the high bits and the low ones.
        self.0 = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

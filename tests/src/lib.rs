//! Whole behaviours of the built programs: what a test needs to stand them beside rsync, OpenSSH and WiredTiger.
//!
//! Every test makes its own [`sandbox::Sandbox`]: own home, own keys, own ports; nothing outlives it. A test
//! that needs what may be absent (root, an installed program) says so with [`require!`], which is never silent.
//! The tests themselves are in `tests/tests/`, one file a theme; those in this library test the harness.

pub mod address;
pub mod beside;
pub mod boundary;
pub mod core;
pub mod cores;
pub mod deployment;
pub mod directions;
pub mod documents;
pub mod engine;
pub mod extras;
pub mod machine;
pub mod mount;
pub mod nginx;
pub mod peak;
pub mod platform;
pub mod process;
pub mod requirement;
pub mod rsync;
pub mod sandbox;
pub mod seed;
pub mod serve;
pub mod snapshot;
pub mod sshd;
pub mod tree;
pub mod wan;
pub mod wiredtiger;

/// Ends the test where something it needs is absent; with `SYNC_TEST_STRICT` set, fails it.
///
/// Names are `"root"`, `"wiredtiger"` (library and compiler), or a program on the path.
#[macro_export]
macro_rules! require {
    ($($name:expr),+ $(,)?) => {
        $(
            if let Some(why) = $crate::requirement::missing($name) {
                $crate::requirement::skip(&why);
                return;
            }
        )+
    };
}

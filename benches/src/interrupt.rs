//! Ctrl-C: ends what this program started and removes what it made.
//!
//! The programs under measurement are in this process's group and get the same signal, so the main thread
//! sees them fail and panics. [`Guard`] keeps it from ending the process before all is removed.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tests::process::{descendants, signal};

const EXIT_INTERRUPTED: i32 = 130;
const ATTEMPTS: u32 = 200;

/// Made before whatever is to be removed, so that it is dropped after it.
#[derive(Debug, Default)]
pub struct Guard {
    is_interrupted: Arc<AtomicBool>,
}

impl Guard {
    /// From now on INT, TERM and HUP end this process, with `directory` removed.
    ///
    /// # Panics
    /// Where signals cannot be caught.
    pub fn remove_on_signal(&self, directory: PathBuf) {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).expect("these may be caught");
        let is_interrupted = Arc::clone(&self.is_interrupted);
        thread::spawn(move || {
            if signals.forever().next().is_some() {
                is_interrupted.store(true, Ordering::SeqCst);
                clean(&directory);
                std::process::exit(EXIT_INTERRUPTED);
            }
        });
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        while self.is_interrupted.load(Ordering::SeqCst) {
            thread::park();
        }
    }
}

/// Again and again: another thread of this process may be writing there.
fn clean(directory: &Path) {
    for _ in 0..ATTEMPTS {
        for id in descendants(std::process::id()) {
            signal(id, rustix::process::Signal::KILL);
        }
        let _ = fs::remove_dir_all(directory);
        if !directory.exists() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

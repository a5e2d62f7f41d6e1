//! Signals that ask for an end: the first ends the run in order, the second at once.

use crossbeam_channel::{Receiver, bounded};
use protocol::stats::Exit;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::thread;

/// A channel that closes when the first `INT`, `TERM` or `HUP` arrives; the second ends the process.
///
/// # Errors
/// The handlers can't be set.
pub fn stop_on_signals() -> io::Result<Receiver<()>> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let (stop, stopped) = bounded::<()>(0);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut arriving = signals.forever();
        if arriving.next().is_some() {
            drop(stop);
        }
        if arriving.next().is_some() {
            std::process::exit(i32::from(Exit::Interrupted.code()));
        }
    })?;
    Ok(stopped)
}

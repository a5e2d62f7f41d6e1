//! Further channels of one connection, for what goes to the server: how many, and how they join the session.
//!
//! The server says how much a channel may have under way. OpenSSH says 2 MiB and never more, which over 100 ms is
//! 20 MB/s. Channels have a window each, so several of them carry several times as much; what arrives here needs
//! only one, for its window is ours to choose. All this goes on beside a session that has begun: nothing waits for it,
//! and a channel that does not come is done without.

use super::{EXEC_TIMEOUT, Process, SshConnection};
use protocol::frame::JOIN_PREAMBLE;
use protocol::limits;
use protocol::message::Token;
use std::io::{self, Read, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread;
use sync_agent::link::Joined;

/// What the first channel and the joined ones should carry together: 3 Gbit/s.
const AIM_BYTES_PER_S: f64 = 400e6;
/// OpenSSH's window, which it gives when a command is started; others give theirs with the channel.
const OPENSSH_WINDOW_BYTES: u32 = 2 << 20;
/// Few: each channel has the same share, so a long queue at one would only take memory.
const QUEUED_CHUNKS: usize = 2;

impl SshConnection {
    /// How many channels, the first one among them, keep a fast line to this server busy; to be asked when the first is
    /// open. The answer took one round trip or two: what is one channel too many only idles.
    pub(crate) fn channels(&self) -> usize {
        if self.is_near() {
            return 1;
        }
        needed(self.answer.as_secs_f64(), self.line.granted_bytes.load(Ordering::Relaxed))
    }

    /// Starts `command` in a further channel. What it says on its standard error is the first one's to say.
    fn exec_further(&self, command: &[u8]) -> Option<Process> {
        let runtime = self.line.runtime.as_ref()?;
        let starting = self.start(command, QUEUED_CHUNKS, Arc::new(OnceLock::new()), Arc::new(|_| {}));
        runtime.block_on(async { tokio::time::timeout(EXEC_TIMEOUT, starting).await.ok()?.ok() })
    }
}

fn needed(answer_s: f64, granted_bytes: u32) -> usize {
    let window_bytes = if granted_bytes == 0 { OPENSSH_WINDOW_BYTES } else { granted_bytes };
    let channels = (answer_s * AIM_BYTES_PER_S / f64::from(window_bytes)).ceil();
    (channels as usize).clamp(1, limits::CHANNELS)
}

/// Opens channels until there are `count` with the first one, all at once, and lets them join the session that was told
/// `token`. Gives those that did, with their numbers ascending.
pub(crate) fn join(connection: &SshConnection, command: &[u8], count: usize, token: &Token) -> Joined {
    let numbers = (1_u8..).take(count.min(limits::CHANNELS).saturating_sub(1));
    thread::scope(|scope| {
        let joining: Vec<_> = numbers
            .map(|number| scope.spawn(move || Some((number, join_one(connection, command, number, token)?))))
            .collect();
        joining.into_iter().filter_map(|joining| joining.join().ok().flatten()).collect()
    })
}

fn join_one(
    connection: &SshConnection,
    command: &[u8],
    number: u8,
    token: &Token,
) -> Option<Box<dyn Write + Send>> {
    let mut process = connection.exec_further(command)?;
    ask(&mut process, number, token).ok()?.then_some(process.writer)
}

/// Whether the agent at the other side of this channel has handed it over.
fn ask(process: &mut Process, number: u8, token: &Token) -> io::Result<bool> {
    process.writer.write_all(&[&JOIN_PREAMBLE[..], token, &[number]].concat())?;
    process.writer.flush()?;
    let mut answer = [0; JOIN_PREAMBLE.len()];
    process.reader.read_exact(&mut answer)?;
    Ok(answer == JOIN_PREAMBLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_follow_from_the_round_trip_and_the_window() {
        for (answer_ms, granted_bytes, expected) in [
            (0.0, 0, 1),
            (5.0, 0, 1),
            (10.0, 0, 2),
            (25.0, 0, 5),
            (100.0, 0, 8),
            (10_000.0, 0, 8),
            (100.0, 64 << 20, 1),
            (300.0, 64 << 20, 2),
            (30.0, 24 << 10, 8),
        ] {
            let channels = needed(answer_ms / 1000.0, granted_bytes);
            assert_eq!(channels, expected, "{answer_ms} ms, a window of {granted_bytes} bytes");
        }
    }
}

//! One byte stream dealt over several, as cards are: [`CHUNK_BYTES`] to each in turn, the first one first.
//!
//! A channel of SSH takes no more than its window in a round trip, and OpenSSH's has 2 MiB whatever the line could
//! do. Several channels have as many windows. Where a byte goes follows from its position alone, so nothing is sent
//! beside the bytes: no number that could be wrong, nothing to put in order, nothing kept here. What came too early
//! waits where it is, in the window of its channel.
//!
//! What always holds: the reader gives exactly what the writer took, in order, however either is cut into calls. A
//! channel that ends, ends the stream when its turn comes. [`link`](crate::link) uses both halves.

use std::io::{self, Read, Write};

/// Bytes to one channel before the next has its turn: what a [`PipeWriter`](crate::pipe::PipeWriter) hands on at once.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Whose turn it is, and for how many bytes more.
struct Turn {
    at: usize,
    left_bytes: usize,
}

impl Turn {
    fn first() -> Turn {
        Turn { at: 0, left_bytes: CHUNK_BYTES }
    }

    /// Counts bytes of the turn; whether it is the next one's now.
    fn advance(&mut self, bytes: usize, channels: usize) -> bool {
        self.left_bytes -= bytes;
        if self.left_bytes > 0 {
            return false;
        }
        *self = Turn { at: (self.at + 1) % channels, left_bytes: CHUNK_BYTES };
        true
    }
}

/// Deals what is written.
pub struct StripedWriter<W> {
    channels: Vec<W>,
    turn: Turn,
}

impl<W: Write> StripedWriter<W> {
    /// Over these channels, in this order, of which there is at least one.
    pub fn new(channels: Vec<W>) -> StripedWriter<W> {
        debug_assert!(!channels.is_empty(), "there is a first channel");
        StripedWriter { channels, turn: Turn::first() }
    }
}

impl<W: Write> Write for StripedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (at, count) = (self.turn.at, self.channels.len());
        let channel = &mut self.channels[at];
        let written = channel.write(&bytes[..bytes.len().min(self.turn.left_bytes)])?;
        if self.turn.advance(written, count) {
            // The reader waits for the end of this chunk before it looks at the next.
            channel.flush()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.channels[self.turn.at].flush()
    }
}

/// Collects what was dealt.
pub struct StripedReader<R> {
    channels: Vec<R>,
    turn: Turn,
}

impl<R: Read> StripedReader<R> {
    /// Over these channels, in the order in which the writer has them, of which there is at least one.
    pub fn new(channels: Vec<R>) -> StripedReader<R> {
        debug_assert!(!channels.is_empty(), "there is a first channel");
        StripedReader { channels, turn: Turn::first() }
    }
}

impl<R: Read> Read for StripedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(self.turn.left_bytes);
        let read = self.channels[self.turn.at].read(&mut buffer[..wanted])?;
        self.turn.advance(read, self.channels.len());
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::{Arc, Mutex};

    /// A channel that takes and gives at most so many bytes a call, and shows only what was flushed.
    #[derive(Clone, Default)]
    struct Channel {
        flushed: Arc<Mutex<Vec<u8>>>,
        held: Vec<u8>,
        most_bytes: usize,
    }

    impl Write for Channel {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let len = bytes.len().min(self.most_bytes);
            self.held.extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.flushed.lock().unwrap().append(&mut self.held);
            Ok(())
        }
    }

    impl Read for Channel {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let mut flushed = self.flushed.lock().unwrap();
            let len = buffer.len().min(self.most_bytes).min(flushed.len());
            buffer[..len].copy_from_slice(&flushed[..len]);
            flushed.drain(..len);
            Ok(len)
        }
    }

    fn channels(count: usize, most_bytes: usize) -> Vec<Channel> {
        (0..count).map(|_| Channel { most_bytes, ..Channel::default() }).collect()
    }

    /// Bytes of which no two chunks are alike.
    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at % 251) as u8 ^ (at / CHUNK_BYTES) as u8).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_read_is_what_was_written_however_it_is_cut(
            count in 1_usize..=8,
            writes in prop::collection::vec((1_usize..=3 * CHUNK_BYTES, any::<bool>()), 1..12),
            most_bytes in prop::sample::select(vec![1000, 65_536, 8 * CHUNK_BYTES]),
            read_bytes in 1000_usize..=2 * CHUNK_BYTES,
        ) {
            let made = channels(count, most_bytes);
            let mut writer = StripedWriter::new(made.clone());
            let mut reader = StripedReader::new(made);
            let all = sample(writes.iter().map(|(len, _)| len).sum());
            let (mut got, mut buffer, mut written) = (Vec::new(), vec![0; read_bytes], 0);
            for (len, is_flushed) in writes {
                writer.write_all(&all[written..written + len]).unwrap();
                written += len;
                if !is_flushed {
                    continue;
                }
                writer.flush().unwrap();
                // After a flush nothing may be held back: whoever wrote may now wait for an answer.
                while got.len() < written {
                    let read = reader.read(&mut buffer).unwrap();
                    prop_assert!(read > 0, "{} of {written} bytes arrived", got.len());
                    got.extend_from_slice(&buffer[..read]);
                }
                prop_assert_eq!(&got[..], &all[..written]);
            }
            writer.flush().unwrap();
            reader.read_to_end(&mut got).unwrap();
            prop_assert_eq!(got, all);
        }

        #[test]
        fn a_channel_that_was_cut_ends_the_stream_before_the_first_byte_it_lacks(
            count in 2_usize..=8,
            at in 0_usize..8,
            kept_bytes in 0_usize..2 * CHUNK_BYTES,
        ) {
            let at = at % count;
            let made = channels(count, usize::MAX);
            let all = sample(2 * count * CHUNK_BYTES);
            StripedWriter::new(made.clone()).write_all(&all).unwrap();
            made[at].flushed.lock().unwrap().truncate(kept_bytes);
            let mut got = Vec::new();
            StripedReader::new(made).read_to_end(&mut got).unwrap();
            let round = kept_bytes / CHUNK_BYTES;
            let expected = (round * count + at) * CHUNK_BYTES + kept_bytes % CHUNK_BYTES;
            prop_assert_eq!(got, &all[..expected]);
        }
    }

    #[test]
    fn every_channel_has_its_share() {
        let made = channels(3, usize::MAX);
        StripedWriter::new(made.clone()).write_all(&sample(7 * CHUNK_BYTES)).unwrap();
        let chunks: Vec<_> =
            made.iter().map(|channel| channel.flushed.lock().unwrap().len() / CHUNK_BYTES).collect();
        assert_eq!(chunks, [3, 2, 2]);
    }

    #[test]
    fn a_channel_that_fails_fails_the_stream() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let made: Vec<Box<dyn Write>> = vec![Box::new(io::sink()), Box::new(Gone)];
        let mut writer = StripedWriter::new(made);
        writer.write_all(&sample(CHUNK_BYTES)).unwrap();
        assert_eq!(writer.write_all(&[0]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}

//! The wire: frames under way, and faults in them.

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Counted over both directions, in the order of sending.
    pub(crate) at: usize,
    pub(crate) damage: Damage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// This frame and all after it, either way, are lost.
    Cut,
    Duplicate,
    SwapWithNext,
    /// So much of it is there, in 256ths, but neither nothing nor all; the stream goes on.
    Truncate(u8),
    /// One bit, the position in 65,536ths of the frame.
    Flip(u16),
}

impl Fault {
    pub(crate) fn all_at(seed: u64, at: usize) -> Vec<Fault> {
        let mut random = Random(seed ^ (at as u64) << 32);
        let mut damages = vec![Damage::Cut, Damage::Duplicate, Damage::SwapWithNext];
        damages.extend((0..2).map(|_| Damage::Truncate(random.next() as u8)));
        damages.extend((0..8).map(|_| Damage::Flip(random.next() as u16)));
        damages.into_iter().map(|damage| Fault { at, damage }).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self.damage {
            Damage::Cut => "cut",
            Damage::Duplicate => "duplicate",
            Damage::SwapWithNext => "swap",
            Damage::Truncate(_) => "truncate",
            Damage::Flip(_) => "flip",
        }
    }
}

/// One direction of the connection.
#[derive(Default)]
pub(crate) struct Pipe {
    pub(crate) bytes: VecDeque<u8>,
    /// A frame that waits to be overtaken.
    pub(crate) overtaken: Option<Vec<u8>>,
}

impl Pipe {
    pub(crate) fn send(&mut self, mut frame: Vec<u8>, damage: Option<Damage>) {
        match damage {
            Some(Damage::Cut) => return,
            Some(Damage::Duplicate) => self.bytes.extend(&frame),
            Some(Damage::SwapWithNext) => {
                self.overtaken = Some(frame);
                return;
            }
            Some(Damage::Truncate(part)) => {
                frame.truncate((frame.len() * usize::from(part) / 256).clamp(1, frame.len() - 1));
            }
            Some(Damage::Flip(place)) => {
                let bit = frame.len() * 8 * usize::from(place) / 65_536;
                frame[bit / 8] ^= 1 << (bit % 8);
            }
            None => {}
        }
        self.bytes.extend(frame);
        if let Some(overtaken) = self.overtaken.take() {
            self.bytes.extend(overtaken);
        }
    }

    /// Whether what is left begins with all that a reader waits for.
    pub(crate) fn has_frame(&self) -> bool {
        if self.bytes.len() < HEADER_BYTES {
            return false;
        }
        Header::new(self.header())
            .map_or(true, |header| self.bytes.len() >= HEADER_BYTES + header.body_bytes())
    }

    pub(crate) fn header(&self) -> [u8; HEADER_BYTES] {
        std::array::from_fn(|i| self.bytes[i])
    }

    pub(crate) fn receive(&mut self) -> Result<Message, ProtocolError> {
        let header = Header::new(self.header())?;
        self.bytes.drain(..HEADER_BYTES);
        let mut frame = header.frame();
        let body: Vec<u8> = self.bytes.drain(..header.body_bytes()).collect();
        frame.body_mut().copy_from_slice(&body);
        Message::decode(frame.open()?)
    }
}

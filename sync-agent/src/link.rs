//! The way frames travel: between two ends in one process, or over any pair of byte streams.
//!
//! Both kinds look the same to the engine: a queue of frames to send and a queue of frames received,
//! each bounded. Over streams two threads pump between queues and bytes; the reading one never waits for the
//! writing one. The writing one also keeps the line alive and keeps to a bandwidth limit. What the client sends may
//! go over further channels once they have joined ([`join`](crate::join), [`stripe`](crate::stripe)): the two pumps
//! agree on that between themselves, at the end of a frame.

use crate::error::SessionError;
use crate::join::Rendezvous;
use crate::stripe::{StripedReader, StripedWriter};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, never, select};
use protocol::ProtocolError;
use protocol::frame::{Frame, HEADER_BYTES, Header, PREAMBLE};
use protocol::message::{Channels, Message};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Frames that may wait in a queue; data frames have about 256 KiB.
const QUEUE_FRAMES: usize = 8;
/// How long the reason for an early end may wait for a place in the queue.
pub const LAST_WORD: Duration = Duration::from_secs(2);
/// How often a silent line is kept alive, unless the peer's timeout asks for more.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What a line to a distant place is taken for at first.
const FAR_BYTES_PER_S: u64 = 125_000_000;
/// Bytes of foreign output shown when the peer turns out not to be an agent.
const NOISE_BYTES: usize = 2048;

/// What the two pumps and the engine share.
#[derive(Debug, Default)]
pub struct LinkState {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    frames: AtomicU64,
    limit_bytes_per_s: AtomicU64,
    /// When the next frame may leave under the limit.
    free_at: Mutex<Option<Instant>>,
    keep_alive_ms: AtomicU32,
    /// What the line took while frames waited for it; 0: not known.
    rate_bytes_per_s: AtomicU64,
    is_near: AtomicBool,
}

impl LinkState {
    /// Bytes sent so far, headers included.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Bytes received so far, headers included.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Says that the other end is on this machine or next to it: what looks like a slow line is a busy machine.
    pub fn set_near(&self) {
        self.is_near.store(true, Ordering::Relaxed);
    }

    /// Says that the other end is far away: a line there is taken for one of 1 Gbit/s until it has been measured.
    pub fn presume_far(&self) {
        let _ =
            self.rate_bytes_per_s.compare_exchange(0, FAR_BYTES_PER_S, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// What the line may take, or took lately, if it was ever what frames waited for.
    #[must_use]
    pub fn rate_bytes_per_s(&self) -> Option<u64> {
        let limit = self.limit_bytes_per_s.load(Ordering::Relaxed);
        if limit > 0 {
            return Some(limit);
        }
        let rate = self.rate_bytes_per_s.load(Ordering::Relaxed);
        (rate > 0 && !self.is_near.load(Ordering::Relaxed)).then_some(rate)
    }

    /// Frames sent and received so far.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Limits what this end sends; 0 is no limit.
    pub fn limit_bandwidth(&self, bytes_per_s: u64) {
        self.limit_bytes_per_s.store(bytes_per_s, Ordering::Relaxed);
    }

    /// Lets a peer that gives up after `timeout_s` (0: never) hear of this end often enough.
    pub fn keep_alive_within(&self, timeout_s: u32) {
        self.keep_alive_ms.store(timeout_s.saturating_mul(250), Ordering::Relaxed);
    }

    /// Waits as the limit asks: what is sent never runs ahead of it by more than a frame.
    fn pace(&self, bytes: usize) {
        let limit = self.limit_bytes_per_s.load(Ordering::Relaxed);
        if limit == 0 {
            return;
        }
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let start = free_at.unwrap_or(now).max(now);
        *free_at = Some(start + Duration::from_secs_f64(bytes as f64 / limit as f64));
        drop(free_at);
        thread::sleep(start - now);
    }

    fn keep_alive(&self) -> Duration {
        match self.keep_alive_ms.load(Ordering::Relaxed) {
            0 => KEEP_ALIVE,
            ms => KEEP_ALIVE.min(Duration::from_millis(u64::from(ms))),
        }
    }
}

/// One end of a connection to a peer.
pub struct Link {
    /// To the peer.
    pub outgoing: Outgoing,
    /// From the peer.
    pub incoming: Incoming,
    /// Waits for what was sent last.
    pub end: LinkEnd,
}

/// Tells when the last frame has left: a program that ends earlier takes it along.
#[derive(Clone)]
pub struct LinkEnd(Receiver<()>);

impl LinkEnd {
    /// Waits until everything was written; to be called when every [`Outgoing`] is dropped.
    pub fn wait(&self, deadline: Duration) {
        let _ = self.0.recv_timeout(deadline);
    }
}

/// Where frames are sent; every thread of the engine has a clone.
#[derive(Clone)]
pub struct Outgoing {
    frames: Sender<Result<Frame, SessionError>>,
    stop: Receiver<()>,
    /// There is no pump between the ends that keeps to the bandwidth limit.
    is_paced: bool,
    state: Arc<LinkState>,
}

/// Where frames arrive.
pub struct Incoming {
    frames: Receiver<Result<Frame, SessionError>>,
    state: Arc<LinkState>,
}

impl Outgoing {
    /// Sends a frame, waiting while the queue is full.
    ///
    /// # Errors
    /// The link is gone, or the session is being stopped.
    pub fn send(&self, frame: Frame) -> Result<(), SessionError> {
        self.state.sent_bytes.fetch_add(frame.as_bytes().len() as u64, Ordering::Relaxed);
        self.state.frames.fetch_add(1, Ordering::Relaxed);
        if self.is_paced {
            self.state.pace(frame.as_bytes().len());
        }
        let frame = match self.frames.try_send(Ok(frame)) {
            Ok(()) => return Ok(()),
            Err(error) => error.into_inner(),
        };
        select! {
            send(self.frames, frame) -> sent => sent.map_err(|_| closed()),
            recv(self.stop) -> _ => Err(closed()),
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// As [`Outgoing::send`].
    pub fn say(&self, message: &Message) -> Result<(), SessionError> {
        self.send(message.encode())
    }

    /// Sends a last message, without waiting longer than `deadline` for a line that stands still.
    pub fn say_within(&self, message: &Message, deadline: Duration) {
        let frame = message.encode();
        self.state.sent_bytes.fetch_add(frame.as_bytes().len() as u64, Ordering::Relaxed);
        let _ = self.frames.send_timeout(Ok(frame), deadline);
    }

    /// The same link, whose waiting senders give up when `stop`'s other end is dropped.
    #[must_use]
    pub fn stoppable(&self, stop: Receiver<()>) -> Outgoing {
        Outgoing { stop, ..self.clone() }
    }

    /// Counters and settings of the link.
    #[must_use]
    pub fn state(&self) -> &Arc<LinkState> {
        &self.state
    }
}

fn closed() -> SessionError {
    SessionError::Connection(io::Error::new(io::ErrorKind::BrokenPipe, "the other side is gone"))
}

impl Incoming {
    /// The queue itself, for waiting on several things at once.
    #[must_use]
    pub fn queue(&self) -> &Receiver<Result<Frame, SessionError>> {
        &self.frames
    }

    /// The message in what the queue gave.
    ///
    /// # Errors
    /// The link broke, or the peer broke the protocol.
    pub fn decode<E>(
        &self,
        received: Result<Result<Frame, SessionError>, E>,
    ) -> Result<Message, SessionError> {
        let frame = received.map_err(|_| closed())??;
        self.state.received_bytes.fetch_add(frame.as_bytes().len() as u64, Ordering::Relaxed);
        self.state.frames.fetch_add(1, Ordering::Relaxed);
        Ok(Message::decode(frame.open()?)?)
    }

    /// The next message, waited for at most `deadline`.
    ///
    /// # Errors
    /// The link broke, the time is over, or the peer broke the protocol.
    pub fn message_within(&self, deadline: Duration) -> Result<Message, SessionError> {
        match self.frames.recv_timeout(deadline) {
            Err(RecvTimeoutError::Timeout) => {
                let seconds = u32::try_from(deadline.as_secs()).unwrap_or(u32::MAX);
                Err(SessionError::Timeout { seconds })
            }
            received => self.decode(received),
        }
    }
}

/// Two ends in one process.
#[must_use]
pub fn in_process() -> (Link, Link) {
    let ((a_out, b_in), (b_out, a_in)) = (bounded(QUEUE_FRAMES), bounded(QUEUE_FRAMES));
    (in_process_end(a_out, a_in), in_process_end(b_out, b_in))
}

fn in_process_end(
    frames: Sender<Result<Frame, SessionError>>,
    incoming: Receiver<Result<Frame, SessionError>>,
) -> Link {
    let state = Arc::new(LinkState::default());
    Link {
        outgoing: Outgoing { frames, stop: never(), is_paced: true, state: Arc::clone(&state) },
        incoming: Incoming { frames: incoming, state },
        end: LinkEnd(bounded(0).1),
    }
}

/// Channels that have joined, to write to, with their numbers ascending.
pub type Joined = Vec<(u8, Box<dyn Write + Send>)>;

/// What beside the two streams may carry frames from the client to the agent.
pub enum Further {
    /// The client's end. They come once, or never.
    Writing(Receiver<Joined>),
    /// The agent's end, in a process that sshd started beside others that may join it.
    Reading,
    /// The agent's end where none can come: an invitation is passed over.
    Never,
}

/// One end over a pair of byte streams, and over further channels if they come. Sends the preamble at once.
pub fn over_streams(reader: Box<dyn Read + Send>, writer: Box<dyn Write + Send>, further: Further) -> Link {
    let state = Arc::new(LinkState::default());
    let (outgoing, to_write) = bounded(QUEUE_FRAMES);
    let (was_read, incoming) = bounded(QUEUE_FRAMES);
    let writer_state = Arc::clone(&state);
    let (running, ended) = bounded::<()>(0);
    let (joined, host) = match further {
        Further::Writing(joined) => (joined, None),
        Further::Reading => (never(), Some(Host { heeds_invitation: true, rendezvous: None })),
        Further::Never => (never(), Some(Host { heeds_invitation: false, rendezvous: None })),
    };
    thread::spawn(move || {
        let _running = running;
        // An error shows at the reading side too, with the peer's reason if it gave one.
        let _ = write_frames(writer, &joined, &to_write, &writer_state);
    });
    thread::spawn(move || {
        if let Err(error) = read_frames(reader, host, &was_read) {
            let _ = was_read.send(Err(error));
        }
    });
    Link {
        outgoing: Outgoing { frames: outgoing, stop: never(), is_paced: false, state: Arc::clone(&state) },
        incoming: Incoming { frames: incoming, state },
        end: LinkEnd(ended),
    }
}

fn write_frames(
    writer: Box<dyn Write + Send>,
    joined: &Receiver<Joined>,
    frames: &Receiver<Result<Frame, SessionError>>,
    state: &LinkState,
) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(BUFFER_BYTES, writer);
    writer.write_all(&PREAMBLE)?;
    writer.flush()?;
    let mut gauge = Gauge::default();
    loop {
        let frame = match frames.recv_timeout(state.keep_alive()) {
            Ok(Ok(frame)) => frame,
            Ok(Err(_)) => return writer.flush(),
            Err(RecvTimeoutError::Timeout) => Message::KeepAlive.encode(),
            Err(RecvTimeoutError::Disconnected) => return writer.flush(),
        };
        if let Ok(channels) = joined.try_recv() {
            writer = spread(writer, channels)?;
        }
        state.pace(frame.as_bytes().len());
        writer.write_all(frame.as_bytes())?;
        if frames.is_empty() {
            writer.flush()?;
            gauge = Gauge::default();
        } else if let Some(rate) = gauge.add(frame.as_bytes().len()) {
            state.rate_bytes_per_s.store(rate, Ordering::Relaxed);
        }
    }
}

/// What is written in small pieces leaves in pieces of this size.
const BUFFER_BYTES: usize = 256 << 10;

type Buffered = BufWriter<Box<dyn Write + Send>>;

/// Says that what follows is dealt over the first channel and these.
fn spread(mut first: Buffered, joined: Joined) -> io::Result<Buffered> {
    let (numbers, joined): (Vec<u8>, Vec<_>) = joined.into_iter().unzip();
    first.write_all(Message::Spread(Channels::with(numbers)).encode().as_bytes())?;
    let mut channels = vec![first.into_inner().map_err(|error| error.into_error())?];
    channels[0].flush()?;
    channels.extend(joined);
    Ok(BufWriter::with_capacity(BUFFER_BYTES, Box::new(StripedWriter::new(channels))))
}

/// Measures what the line takes while frames wait without a break.
struct Gauge {
    since: Instant,
    bytes: u64,
}

/// Long enough that what the buffers on the way swallow at once does not look like a fast line for long, nor the
/// bursts in which a distant peer opens its window.
const GAUGE_BYTES: u64 = 2 << 20;
const GAUGE_TIME: Duration = Duration::from_millis(250);

impl Default for Gauge {
    fn default() -> Gauge {
        Gauge { since: Instant::now(), bytes: 0 }
    }
}

impl Gauge {
    /// Counts what was written; the rate, once enough was.
    fn add(&mut self, bytes: usize) -> Option<u64> {
        self.bytes += bytes as u64;
        let elapsed = self.since.elapsed();
        if self.bytes < GAUGE_BYTES || elapsed < GAUGE_TIME {
            return None;
        }
        let rate = self.bytes as f64 / elapsed.as_secs_f64();
        *self = Gauge::default();
        Some((rate as u64).max(1))
    }
}

fn read_frames(
    mut reader: Box<dyn Read + Send>,
    mut host: Option<Host>,
    frames: &Sender<Result<Frame, SessionError>>,
) -> Result<(), SessionError> {
    expect_preamble(&mut reader)?;
    loop {
        let mut header = [0; HEADER_BYTES];
        reader.read_exact(&mut header).map_err(SessionError::Connection)?;
        let mut frame = Header::new(header)?.frame();
        reader.read_exact(frame.body_mut()).map_err(SessionError::Connection)?;
        if let Some(host) = host.as_mut().filter(|_| Message::is_about_channels(&frame)) {
            reader = host.hear(Message::decode(frame.open()?)?, reader)?;
            continue;
        }
        if frames.send(Ok(frame)).is_err() {
            return Ok(());
        }
    }
}

/// The agent's side of further channels.
struct Host {
    heeds_invitation: bool,
    rendezvous: Option<Rendezvous>,
}

impl Host {
    /// What is read from now on, after a message about channels.
    fn hear(
        &mut self,
        message: Message,
        first: Box<dyn Read + Send>,
    ) -> Result<Box<dyn Read + Send>, SessionError> {
        match message {
            Message::Invite(token) => {
                // Where it can't be done none joins, and the session goes on over the first channel.
                if std::mem::take(&mut self.heeds_invitation) {
                    self.rendezvous = Rendezvous::open(&token).ok();
                }
                Ok(first)
            }
            Message::Spread(channels) => {
                let joined = self.rendezvous.take().and_then(|rendezvous| rendezvous.take(channels));
                let why = "said twice, or a channel of it has not joined";
                let joined = joined.ok_or(ProtocolError::Unexpected { what: "spread", why })?;
                let joined = joined.into_iter().map(|(channel, until)| {
                    Box::new(HandedOver { channel, _until: until }) as Box<dyn Read + Send>
                });
                Ok(Box::new(StripedReader::new([first].into_iter().chain(joined).collect())))
            }
            _ => Ok(first),
        }
    }
}

/// A channel that another process has handed over; that one stays while this is there.
struct HandedOver {
    channel: File,
    _until: UnixStream,
}

impl Read for HandedOver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.channel.read(buffer)
    }
}

/// Reads the peer's preamble; what comes instead (a login shell's greeting, an error of the shell) is
/// shown to the operator.
fn expect_preamble(reader: &mut dyn Read) -> Result<(), SessionError> {
    let mut seen = [0; PREAMBLE.len()];
    let mut length = 0;
    while length < seen.len() {
        match reader.read(&mut seen[length..]) {
            Ok(0) if length == 0 => return Err(SessionError::NothingSaid),
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(SessionError::Connection(error)),
        }
    }
    if seen == PREAMBLE {
        return Ok(());
    }
    let mut noise = seen[..length].to_vec();
    let mut rest = [0; NOISE_BYTES];
    if let Ok(count) = reader.read(&mut rest) {
        noise.extend_from_slice(&rest[..count]);
    }
    let seen = protocol::path::escaped(&noise);
    Err(SessionError::Protocol(protocol::ProtocolError::NotThisProtocol { seen }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const SOON: Duration = Duration::from_secs(10);

    /// What an end of this kind hears when the peer says these messages.
    fn heard(further: Further, messages: &[Message]) -> Vec<Result<Message, SessionError>> {
        let mut bytes = PREAMBLE.to_vec();
        messages.iter().for_each(|message| bytes.extend_from_slice(message.encode().as_bytes()));
        let link = over_streams(Box::new(Cursor::new(bytes)), Box::new(io::sink()), further);
        let mut heard = Vec::new();
        while heard.last().is_none_or(Result::is_ok) {
            heard.push(link.incoming.message_within(SOON));
        }
        heard
    }

    #[test]
    fn channels_that_did_not_join_are_a_broken_protocol() {
        let spread = || Message::Spread(Channels::with([1, 7]));
        let token = |number| Message::Invite([number; 32]);
        for (further, messages) in [
            (Further::Reading, vec![spread()]),
            (Further::Reading, vec![token(1), spread()]),
            (Further::Reading, vec![token(2), token(3), spread()]),
            (Further::Never, vec![spread()]),
            (Further::Never, vec![token(4), spread()]),
        ] {
            let heard = heard(further, &messages);
            assert!(matches!(heard[..], [Err(SessionError::Protocol(_))]), "{messages:?}: {heard:?}");
        }
    }

    #[test]
    fn an_invitation_is_not_the_session_s_to_hear_but_at_the_client_s_end() {
        let messages = [Message::Invite([5; 32]), Message::KeepAlive];
        for further in [Further::Reading, Further::Never] {
            let heard = heard(further, &messages);
            assert!(
                matches!(heard[..], [Ok(Message::KeepAlive), Err(SessionError::Connection(_))]),
                "{heard:?}"
            );
        }
        // Which ends the session there: an agent invites nobody.
        let heard = heard(Further::Writing(never()), &messages);
        assert!(matches!(heard[0], Ok(Message::Invite(_))), "{heard:?}");
    }

    #[test]
    fn frames_go_over_the_channels_that_joined_and_come_out_in_order() {
        let (first, first_there) = io::pipe().unwrap();
        let (second, second_there) = io::pipe().unwrap();
        let (joined, joining) = bounded::<Joined>(1);
        joined.send(vec![(3, Box::new(second_there))]).unwrap();
        let link = over_streams(Box::new(io::empty()), Box::new(first_there), Further::Writing(joining));
        let filler = vec![7; protocol::limits::FILLER_BYTES];
        let sending = thread::spawn(move || {
            for _ in 0..20 {
                link.outgoing.send(protocol::message::filler_frame(&filler)).unwrap();
            }
        });
        let mut first = first;
        let mut head = [0; PREAMBLE.len() + HEADER_BYTES + 1];
        first.read_exact(&mut head).unwrap();
        let spread = Message::Spread(Channels::with([3])).encode();
        assert_eq!(head, *[&PREAMBLE[..], spread.as_bytes()].concat());
        let mut all = Vec::new();
        StripedReader::new(vec![first, second]).read_to_end(&mut all).unwrap();
        sending.join().unwrap();
        let one = protocol::message::filler_frame(&vec![7; protocol::limits::FILLER_BYTES]);
        assert_eq!(all, one.as_bytes().repeat(20));
    }
}

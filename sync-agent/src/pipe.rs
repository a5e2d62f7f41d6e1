//! A russh channel as a blocking reader and a blocking writer for plain threads.
//!
//! The engine runs on plain threads, russh on tokio. Two tasks stand between them: one drains what
//! arrives into a queue that the reader empties, one feeds the channel from the writer's bounded queue.
//!
//! # Flow control, as russh 0.65 really does it
//! russh grants the SSH window again as soon as *its own loop* has seen the data
//! (`Encrypted::adjust_window_size`, before the channel gets it), not when somebody has read it. So the
//! window bounds what is under way but not what piles up here. The only brake it leaves is its bounded
//! channel (`channel_buffer_size` messages): when that is full the whole session loop parks inside
//! `send().await`, and a parked loop sends nothing either: no data, no keepalives, no window grants.
//! Hence these rules:
//!
//! - Below [`SOFT_BYTES`] queued the drain task always takes what arrives, whatever the writer does.
//! - At `SOFT_BYTES` it stops taking, russh parks, TCP slows the peer: a slow disk slows the sender.
//! - A parked loop would hold our own outgoing data, and if our reader waits for exactly that to leave,
//!   both ends would stand still for ever. So while the writer has something unsent, a few messages are
//!   taken every [`RELIEF`]; each lets the session loop turn and send. Twice a second a few are taken in any
//!   case, so keepalives go out.
//! - Nothing is taken at [`HARD_BYTES`], which bounds memory against a peer that floods.
//!
//! The second trap: russh writes to the socket from the same loop and reads nothing until the write is
//! through. Two such ends that both send stand still once both TCP directions are full. [`Socket`] breaks
//! that: while a write waits, it reads ahead.
//!
//! What always holds: at most `HARD_BYTES` plus one batch is queued; a dead connection wakes the reader
//! and fails the writer; dropping the writer sends EOF after all that was written; dropping both closes
//! the channel. Several busy channels on one connection share its parking: bulk data may leave over several, but should
//! arrive over one.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

/// A TCP stream that goes on reading while a write waits, into memory, up to two SSH windows.
///
/// The peer can't have more under way on one channel than the window we granted, so the bound is not met by
/// a peer that keeps to the protocol; one that does not only stops itself.
pub struct Socket {
    stream: TcpStream,
    ahead: VecDeque<u8>,
    /// What reading ahead met after the bytes in `ahead`.
    ended: Option<io::Result<()>>,
    /// Bytes that russh is about to write and that have left already.
    said_bytes: usize,
    /// How many more times the kernel is told to acknowledge at once.
    quick_reads: u8,
}

/// Reads of a login. Until a session runs, sshd sends no small packet before the last one is acknowledged, and a
/// receiver that has nothing to say waits 40 ms with that.
const QUICK_READS: u8 = 64;

const AHEAD_BYTES: usize = 2 * WINDOW_BYTES as usize;
const READ_BYTES: usize = 64 << 10;

impl Socket {
    /// Wraps a connected stream for russh.
    pub fn new(stream: TcpStream) -> Socket {
        Socket { stream, ahead: VecDeque::new(), ended: None, said_bytes: 0, quick_reads: QUICK_READS }
    }

    /// Wraps a stream on which the first `said_bytes` of what russh will write have been written already.
    pub fn that_said(stream: TcpStream, said_bytes: usize) -> Socket {
        Socket { said_bytes, ..Socket::new(stream) }
    }

    /// Takes in what has arrived; the task is woken for more, too.
    fn read_ahead(&mut self, context: &mut Context<'_>) {
        let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
        while self.ended.is_none() && self.ahead.len() < AHEAD_BYTES {
            let mut buffer = ReadBuf::uninit(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => self.ended = Some(Ok(())),
                Poll::Ready(Ok(())) => self.ahead.extend(buffer.filled()),
                Poll::Ready(Err(error)) => self.ended = Some(Err(error)),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let (front, _) = self.ahead.as_slices();
            let len = front.len().min(buffer.remaining());
            buffer.put_slice(&front[..len]);
            self.ahead.drain(..len);
            return Poll::Ready(Ok(()));
        }
        match self.ended.take() {
            Some(Ok(())) => {
                self.ended = Some(Ok(()));
                Poll::Ready(Ok(()))
            }
            Some(Err(error)) => Poll::Ready(Err(error)),
            None => {
                let read = Pin::new(&mut self.stream).poll_read(context, buffer);
                if self.quick_reads > 0 && read.is_ready() {
                    self.quick_reads -= 1;
                    // It holds for some packets only; a socket that can't is still good.
                    let _ = rustix::net::sockopt::set_tcp_quickack(&self.stream, true);
                }
                read
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.said_bytes > 0 {
            let said_bytes = self.said_bytes.min(bytes.len());
            self.said_bytes -= said_bytes;
            return Poll::Ready(Ok(said_bytes));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_pending() {
            self.read_ahead(context);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// How long russh may be without progress before it gives a connection up. It also counts a write the peer
/// does not take, which may only mean that the peer's disk is slow; hence far more than the keepalives.
pub const INACTIVITY_KEEPALIVES: u32 = 20;

/// The SSH window for each direction: 64 MiB keep a 1 Gbit/s link with 100 ms of round trip full five times over.
pub const WINDOW_BYTES: u32 = 64 << 20;

/// The largest data packet we let a peer send. russh takes up to 256 KiB; it calls over 65535 an error.
pub const PACKET_BYTES: u32 = 65535;

/// Messages russh may hold for one channel before its loop parks.
pub const CHANNEL_MESSAGES: usize = 64;

/// Where the drain task stops taking from the channel.
pub const SOFT_BYTES: usize = 6 << 20;

/// Where it stops even for the sake of our own outgoing data.
pub const HARD_BYTES: usize = 256 << 20;

/// How often a few messages are taken above [`SOFT_BYTES`] while the writer has something unsent.
pub const RELIEF: Duration = Duration::from_millis(2);

const IDLE_RELIEF: Duration = Duration::from_millis(500);
const RELIEF_MESSAGES: usize = 4;
const RELIEF_ROUNDS: usize = 16;
const BATCH_MESSAGES: usize = 32;
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks of 256 KiB that usually wait for the channel, so that the writer rarely does.
pub const CHUNKS_QUEUED: usize = 16;
/// What a message costs beside its bytes, so that a flood of one-byte packets is bounded too.
const MESSAGE_BYTES: usize = 128;

/// Turns `channel` into a blocking pair; must be called where a tokio runtime is entered.
///
/// At most `queued_chunks` wait for the channel before the writer does.
/// `observe` gets every message that is not data for the reader (stderr, exit status, replies), on a
/// tokio thread: it must not block. `reason` says why the connection ended, once somebody knows.
pub fn pipe<S>(
    channel: Channel<S>,
    queued_chunks: usize,
    observe: impl FnMut(ChannelMsg) + Send + 'static,
    reason: Arc<OnceLock<String>>,
) -> (PipeReader, PipeWriter, PipeEnd)
where
    S: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    let (read_half, write_half) = channel.split();
    let (chunk_sender, chunk_receiver) = mpsc::channel(queued_chunks);
    let (closed_sender, closed_receiver) = watch::channel(false);
    let (exit_sender, exit_receiver) = oneshot::channel();
    let shared = Arc::new(Shared::new(reason));

    tokio::spawn(drain(read_half, Arc::clone(&shared), closed_sender, observe));
    tokio::spawn(feed(write_half, chunk_receiver, Arc::clone(&shared), closed_receiver, exit_receiver));

    let reader = PipeReader { shared: Arc::clone(&shared), taken: VecDeque::new() };
    let writer = PipeWriter { chunks: Some(chunk_sender), buffer: Vec::new(), shared };
    (reader, writer, PipeEnd { exit: exit_sender })
}

/// The reading side: blocks until data, EOF (`Ok(0)`) or the loss of the connection (an error).
pub struct PipeReader {
    shared: Arc<Shared>,
    taken: VecDeque<Bytes>,
}

impl PipeReader {
    /// Waits for chunks; false at EOF.
    fn wait(&mut self) -> io::Result<bool> {
        let mut inbox = self.shared.inbox();
        loop {
            if !inbox.chunks.is_empty() {
                std::mem::swap(&mut self.taken, &mut inbox.chunks);
                return Ok(true);
            }
            match inbox.end {
                Some(End::Finished) => return Ok(false),
                Some(End::Lost) => return Err(self.shared.lost(io::ErrorKind::ConnectionReset)),
                None => inbox = self.shared.arrived.wait(inbox).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || (self.taken.is_empty() && !self.wait()?) {
            return Ok(0);
        }
        let mut filled = 0;
        let mut released_bytes = 0;
        while filled < buffer.len() {
            let Some(front) = self.taken.front_mut() else { break };
            let len = front.len().min(buffer.len() - filled);
            buffer[filled..filled + len].copy_from_slice(&front[..len]);
            filled += len;
            released_bytes += len;
            if len == front.len() {
                self.taken.pop_front();
                released_bytes += MESSAGE_BYTES;
            } else {
                let _ = front.split_to(len);
            }
        }
        self.shared.release(released_bytes);
        Ok(filled)
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        self.shared.reader_gone.store(true, Ordering::Release);
        self.shared.inbox().chunks.clear();
        self.shared.space.notify_one();
        self.shared.abandoned.notify_one();
    }
}

/// The writing side: buffers up to 256 KiB, blocks while as many chunks wait for the channel as may.
///
/// [`Write::flush`] hands the buffer on to the channel and does not wait for the peer. Must be used and
/// dropped on plain threads, never inside the runtime.
pub struct PipeWriter {
    chunks: Option<mpsc::Sender<Bytes>>,
    buffer: Vec<u8>,
    shared: Arc<Shared>,
}

impl PipeWriter {
    fn push(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = if self.buffer.len() < CHUNK_BYTES / 4 {
            let small = Bytes::copy_from_slice(&self.buffer);
            self.buffer.clear();
            small
        } else {
            Bytes::from(std::mem::take(&mut self.buffer))
        };
        self.send(chunk)
    }

    fn send(&mut self, chunk: Bytes) -> io::Result<()> {
        self.shared.unsent_chunks.fetch_add(1, Ordering::AcqRel);
        self.shared.pressure.notify_one();
        let sent = self.chunks.as_ref().is_some_and(|chunks| chunks.blocking_send(chunk).is_ok());
        if sent { Ok(()) } else { Err(self.shared.lost(io::ErrorKind::BrokenPipe)) }
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.is_empty() && bytes.len() >= CHUNK_BYTES {
            self.send(Bytes::copy_from_slice(&bytes[..CHUNK_BYTES]))?;
            return Ok(CHUNK_BYTES);
        }
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(CHUNK_BYTES);
        }
        let len = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..len]);
        if self.buffer.len() == CHUNK_BYTES {
            self.push()?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = self.push();
        }
        self.chunks = None;
    }
}

/// Ends a served channel with an exit status; dropped unused, the channel closes when both sides are gone.
pub struct PipeEnd {
    exit: oneshot::Sender<u32>,
}

impl PipeEnd {
    /// After the writer's last byte sends EOF, `status` and close. The writer must be dropped, too.
    pub fn exit(self, status: u32) {
        let _ = self.exit.send(status);
    }
}

struct Inbox {
    chunks: VecDeque<Bytes>,
    end: Option<End>,
}

#[derive(Clone, Copy)]
enum End {
    Finished,
    Lost,
}

struct Shared {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    /// What is queued or taken by the reader and not yet read, with [`MESSAGE_BYTES`] for each chunk.
    queued_bytes: AtomicUsize,
    reader_gone: AtomicBool,
    /// The queue fell below [`SOFT_BYTES`], or the reader is gone.
    space: Notify,
    /// The reader is gone; for the feeding task.
    abandoned: Notify,
    /// The writer has something to send.
    pressure: Notify,
    unsent_chunks: AtomicUsize,
    handed_chunks: AtomicUsize,
    reason: Arc<OnceLock<String>>,
}

impl Shared {
    fn new(reason: Arc<OnceLock<String>>) -> Shared {
        Shared {
            inbox: Mutex::new(Inbox { chunks: VecDeque::new(), end: None }),
            arrived: Condvar::new(),
            queued_bytes: AtomicUsize::new(0),
            reader_gone: AtomicBool::new(false),
            space: Notify::new(),
            abandoned: Notify::new(),
            pressure: Notify::new(),
            unsent_chunks: AtomicUsize::new(0),
            handed_chunks: AtomicUsize::new(0),
            reason,
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self, kind: io::ErrorKind) -> io::Error {
        let reason = self.reason.get().map_or("the SSH channel is closed", String::as_str);
        io::Error::new(kind, reason.to_owned())
    }

    fn release(&self, bytes: usize) {
        let before = self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
        if before >= SOFT_BYTES && before - bytes < SOFT_BYTES {
            self.space.notify_one();
        }
    }

    fn store(&self, batch: &mut VecDeque<Bytes>) {
        if batch.is_empty() {
            return;
        }
        if self.reader_gone.load(Ordering::Acquire) {
            batch.clear();
            return;
        }
        let bytes: usize = batch.iter().map(|chunk| chunk.len() + MESSAGE_BYTES).sum();
        self.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        self.inbox().chunks.append(batch);
        self.arrived.notify_one();
    }

    fn finish(&self, end: End) {
        let mut inbox = self.inbox();
        if inbox.end.is_none() {
            inbox.end = Some(end);
        }
        drop(inbox);
        self.arrived.notify_all();
    }

    /// Waits until the drain task may take; returns how many messages.
    async fn room(&self, relief: &mut Relief) -> usize {
        let entered = Instant::now();
        loop {
            let queued_bytes = self.queued_bytes.load(Ordering::Acquire);
            if queued_bytes < SOFT_BYTES || self.reader_gone.load(Ordering::Acquire) {
                return BATCH_MESSAGES;
            }
            if queued_bytes >= HARD_BYTES {
                tokio::time::sleep(RELIEF).await;
                continue;
            }
            let pause = relief.pause(self);
            tokio::select! {
                () = self.space.notified() => {}
                () = self.pressure.notified() => {}
                () = tokio::time::sleep_until(entered + pause) => {
                    relief.rounds = relief.rounds.saturating_sub(1);
                    return RELIEF_MESSAGES;
                }
            }
        }
    }
}

/// Remembers whether outgoing data may still be stuck inside a parked session loop: a chunk counts as
/// stuck for some rounds after it was handed over, for russh queues it before it sends it.
#[derive(Default)]
struct Relief {
    handed_chunks: usize,
    rounds: usize,
}

impl Relief {
    fn pause(&mut self, shared: &Shared) -> Duration {
        let handed_chunks = shared.handed_chunks.load(Ordering::Acquire);
        if handed_chunks != self.handed_chunks || shared.unsent_chunks.load(Ordering::Acquire) > 0 {
            self.handed_chunks = handed_chunks;
            self.rounds = RELIEF_ROUNDS;
        }
        if self.rounds > 0 { RELIEF } else { IDLE_RELIEF }
    }
}

/// Marks the pipe as lost when its drain task ends in any way, even by the runtime's shutdown.
struct DrainGuard {
    shared: Arc<Shared>,
    closed: watch::Sender<bool>,
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        self.shared.finish(End::Lost);
        let _ = self.closed.send(true);
    }
}

async fn drain(
    mut channel: ChannelReadHalf,
    shared: Arc<Shared>,
    closed: watch::Sender<bool>,
    mut observe: impl FnMut(ChannelMsg),
) {
    let guard = DrainGuard { shared, closed };
    let shared = &guard.shared;
    let mut relief = Relief::default();
    let mut batch = VecDeque::new();
    loop {
        let room = shared.room(&mut relief).await;
        let mut next = channel.wait().await;
        for taken in 1..=room {
            match next {
                Some(ChannelMsg::Data { data }) if !data.is_empty() => batch.push_back(data),
                Some(ChannelMsg::Eof) => {
                    shared.store(&mut batch);
                    shared.finish(End::Finished);
                    observe(ChannelMsg::Eof);
                }
                Some(ChannelMsg::Close) => {
                    shared.store(&mut batch);
                    shared.finish(End::Finished);
                    observe(ChannelMsg::Close);
                    return;
                }
                Some(ChannelMsg::Failure) => {
                    let _ = shared.reason.set("the server refused to run the command".to_owned());
                    observe(ChannelMsg::Failure);
                    return;
                }
                Some(other) => observe(other),
                None => {
                    shared.store(&mut batch);
                    return;
                }
            }
            if taken == room {
                break;
            }
            next = tokio::select! {
                biased;
                message = channel.wait() => message,
                () = std::future::ready(()) => break,
            };
        }
        shared.store(&mut batch);
    }
}

async fn feed<S>(
    channel: ChannelWriteHalf<S>,
    mut chunks: mpsc::Receiver<Bytes>,
    shared: Arc<Shared>,
    mut closed: watch::Receiver<bool>,
    exit: oneshot::Receiver<u32>,
) where
    S: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    let feeding = async {
        while let Some(chunk) = chunks.recv().await {
            let sent = channel.data_bytes(chunk).await;
            shared.handed_chunks.fetch_add(1, Ordering::AcqRel);
            shared.unsent_chunks.fetch_sub(1, Ordering::AcqRel);
            if sent.is_err() {
                return;
            }
        }
        shared.unsent_chunks.fetch_add(1, Ordering::AcqRel);
        shared.pressure.notify_one();
        let _ = channel.eof().await;
        match exit.await {
            Ok(status) => {
                let _ = channel.exit_status(status).await;
            }
            Err(_) => shared.abandoned.notified().await,
        }
        let _ = channel.close().await;
        shared.handed_chunks.fetch_add(1, Ordering::AcqRel);
        shared.unsent_chunks.fetch_sub(1, Ordering::AcqRel);
        shared.pressure.notify_one();
    };
    tokio::select! {
        () = feeding => {}
        _ = closed.wait_for(|closed| *closed) => {}
    }
}

//! How a further channel of a client joins the session of another agent process on the same machine.
//!
//! sshd starts one process for each channel, with the same command, so that a forced command needs no change. The
//! one whose client begins with [`JOIN_PREAMBLE`] is a [`Forwarder`]: it hands its standard input to the process that
//! has the session, over a Unix socket, and waits for that one's end. It never sees a byte of the data.
//!
//! What always holds: both processes are the same user's, and both know the client's token; the socket's name tells
//! only its hash. It is in the abstract namespace, so nothing stays behind whoever is killed. Nothing here ends a
//! session: a channel that can't join is one less. The [`Rendezvous`] is over after 20 s.

use protocol::frame::JOIN_PREAMBLE;
use protocol::limits;
use protocol::message::{Channels, Token};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::fs::File;
use std::io::{self, Cursor, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a session waits for its channels: round trips, a slow login shell.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a channel looks for its session, of which the client spoke before: less, for its client may be gone.
const MEETING: Duration = Duration::from_secs(5);
/// How long one that has connected may take to say what it brings.
const HAND_OVER: Duration = Duration::from_secs(2);
/// How soon a process that is not there yet is looked for again.
const RETRY: Duration = Duration::from_millis(10);
/// A token and the number of a channel.
const REQUEST_BYTES: usize = size_of::<Token>() + 1;

/// What a client says first on a channel.
pub enum Opening {
    /// A session, or something foreign: all of it, from the first byte on.
    Session(Box<dyn Read + Send>),
    /// The wish to join one.
    Join(Forwarder),
}

impl Opening {
    /// Reads just enough to tell.
    ///
    /// # Errors
    /// The input can't be read.
    pub fn read(mut input: File) -> io::Result<Opening> {
        let mut seen = Vec::new();
        let mut byte = [0];
        while seen.len() < JOIN_PREAMBLE.len() && JOIN_PREAMBLE.starts_with(&seen) {
            match input.read(&mut byte) {
                Ok(0) => break,
                Ok(_) => seen.push(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if seen != JOIN_PREAMBLE {
            return Ok(Opening::Session(Box::new(Cursor::new(seen).chain(input))));
        }
        let mut request = [0; REQUEST_BYTES];
        input.read_exact(&mut request)?;
        Ok(Opening::Join(Forwarder { input, request }))
    }
}

/// A process that has a channel for another one's session.
pub struct Forwarder {
    input: File,
    request: [u8; REQUEST_BYTES],
}

impl Forwarder {
    /// Hands the channel over, tells the client by [`JOIN_PREAMBLE`], and returns when the session is over.
    ///
    /// # Errors
    /// There is no such session, or it did not take the channel; the client has heard nothing then.
    pub fn serve(self, mut output: impl Write) -> io::Result<()> {
        let mut session = self.meet()?;
        session.set_read_timeout(Some(MEETING))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let handles = [self.input.as_fd()];
        if !control.push(SendAncillaryMessage::ScmRights(&handles)) {
            return Err(io::Error::other("a handle can't be passed on"));
        }
        let sent = sendmsg(&session, &[IoSlice::new(&self.request)], &mut control, SendFlags::NOSIGNAL)?;
        let mut taken = [0];
        session.read_exact(&mut taken)?;
        if sent != REQUEST_BYTES {
            return Err(io::ErrorKind::WriteZero.into());
        }
        output.write_all(&JOIN_PREAMBLE)?;
        output.flush()?;
        session.set_read_timeout(None)?;
        // It says nothing more: what is waited for is its end.
        let _ = session.read(&mut taken);
        Ok(())
    }

    /// The session may hear of the token later than this process has come up.
    fn meet(&self) -> io::Result<UnixStream> {
        let mut token = Token::default();
        token.copy_from_slice(&self.request[..size_of::<Token>()]);
        let address = address(&token)?;
        let deadline = Instant::now() + MEETING;
        loop {
            match UnixStream::connect_addr(&address) {
                Ok(session) if is_own(&session) => return Ok(session),
                Ok(_) => return Err(io::ErrorKind::PermissionDenied.into()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => thread::sleep(RETRY),
            }
        }
    }
}

/// Where the further channels of one session arrive.
pub struct Rendezvous {
    arrived: Arc<Mutex<Arrived>>,
}

/// By number, with the connection whose end tells the other process that the session is over.
type Arrived = [Option<(File, UnixStream)>; limits::CHANNELS];

impl Rendezvous {
    /// Waits on a thread of its own for those who know the token.
    ///
    /// # Errors
    /// The place can't be made, or another has it.
    pub fn open(token: &Token) -> io::Result<Rendezvous> {
        let listener = UnixListener::bind_addr(&address(token)?)?;
        let arrived = Arc::new(Mutex::new(Arrived::default()));
        let (taken, token) = (Arc::clone(&arrived), *token);
        thread::Builder::new().name("join".to_owned()).spawn(move || {
            let deadline = Instant::now() + PATIENCE;
            let mut places = limits::CHANNELS - 1;
            while places > 0 {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || set_socket_timeout(&listener, Timeout::Recv, Some(left)).is_err() {
                    return;
                }
                let Ok((connection, _)) = listener.accept() else { return };
                // One that is refused hears it by the end of its connection, and takes nobody's place.
                if take(&taken, connection, &token).is_ok() {
                    places -= 1;
                }
            }
        })?;
        Ok(Rendezvous { arrived })
    }

    /// The channels of these numbers, ascending, with what tells the others of the session's end; none if one of them
    /// has not arrived.
    pub fn take(&self, channels: Channels) -> Option<Vec<(File, UnixStream)>> {
        let mut arrived = lock(&self.arrived);
        channels.joined().map(|number| arrived[usize::from(number)].take()).collect()
    }
}

fn lock(arrived: &Mutex<Arrived>) -> MutexGuard<'_, Arrived> {
    arrived.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the channel that one process brings.
fn take(arrived: &Mutex<Arrived>, mut connection: UnixStream, token: &Token) -> io::Result<()> {
    if !is_own(&connection) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    connection.set_read_timeout(Some(HAND_OVER))?;
    let (request, channel) = receive(&connection)?;
    let (shown, number) = (&request[..size_of::<Token>()], request[size_of::<Token>()]);
    if shown != token || !Channels::is_further(number) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut arrived = lock(arrived);
    let place = &mut arrived[usize::from(number)];
    if place.is_some() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    connection.write_all(&[1])?;
    *place = Some((File::from(channel), connection));
    Ok(())
}

fn receive(connection: &UnixStream) -> io::Result<([u8; REQUEST_BYTES], OwnedFd)> {
    let mut request = [0; REQUEST_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut request)];
    let received = recvmsg(connection, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut channel = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut handles) = message {
            channel = handles.next();
        }
    }
    match channel {
        Some(channel) if received.bytes == REQUEST_BYTES => Ok((request, channel)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Who lists the machine's sockets learns the hash, not the token.
fn address(token: &Token) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("sync-agent-{}", blake3::hash(token).to_hex()))
}

/// The kernel says whose process the other one is.
fn is_own(connection: &UnixStream) -> bool {
    socket_peercred(connection).is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::PipeReader;

    const SOON: Duration = Duration::from_secs(10);

    fn token(name: &str) -> Token {
        *blake3::hash(format!("{name} {}", std::process::id()).as_bytes()).as_bytes()
    }

    /// A channel on which this was said, and where more can be.
    fn said(bytes: &[u8]) -> (File, io::PipeWriter) {
        let (input, mut there) = io::pipe().unwrap();
        there.write_all(bytes).unwrap();
        (File::from(OwnedFd::from(input)), there)
    }

    fn joining(token: &Token, number: u8) -> Vec<u8> {
        [&JOIN_PREAMBLE[..], token, &[number]].concat()
    }

    /// Serves it on a thread; what it tells its client, and the channel's other end.
    fn forward(
        token: &Token,
        number: u8,
    ) -> (PipeReader, io::PipeWriter, thread::JoinHandle<io::Result<()>>) {
        let (input, there) = said(&joining(token, number));
        let Ok(Opening::Join(forwarder)) = Opening::read(input) else { panic!("it is a wish to join") };
        let (told, output) = io::pipe().unwrap();
        (told, there, thread::spawn(move || forwarder.serve(output)))
    }

    fn arrives(rendezvous: &Rendezvous, number: u8) -> (File, UnixStream) {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(mut taken) = rendezvous.take(Channels::with([number])) {
                return taken.remove(0);
            }
            assert!(Instant::now() < deadline, "it does not arrive");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_channel_arrives_and_its_process_ends_with_the_session() {
        let token = token("arrives");
        // It may come before the place is there.
        let (mut told, mut there, served) = forward(&token, 3);
        let rendezvous = Rendezvous::open(&token).unwrap();
        let mut answer = [0; JOIN_PREAMBLE.len()];
        told.read_exact(&mut answer).unwrap();
        assert_eq!(answer, JOIN_PREAMBLE);
        let (mut channel, session) = arrives(&rendezvous, 3);
        there.write_all(b"bytes").unwrap();
        let mut bytes = [0; 5];
        channel.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"bytes");
        assert!(!served.is_finished());
        drop(session);
        served.join().unwrap().unwrap();
    }

    #[test]
    fn what_does_not_belong_to_the_session_is_refused() {
        let right = token("refused");
        let rendezvous = Rendezvous::open(&right).unwrap();
        for number in [0, 8, 255] {
            let (mut told, _there, served) = forward(&right, number);
            served.join().unwrap().unwrap_err();
            assert_eq!(told.read(&mut [0]).unwrap(), 0, "channel {number} is told that it has joined");
        }
        // One that knows where, but not the token.
        let address = address(&right).unwrap();
        let (input, _there) = io::pipe().unwrap();
        let mut stranger = UnixStream::connect_addr(&address).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let handles = [input.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&handles)));
        let request = [&[0; 32][..], &[1]].concat();
        sendmsg(&stranger, &[IoSlice::new(&request)], &mut control, SendFlags::NOSIGNAL).unwrap();
        assert_eq!(stranger.read(&mut [0]).unwrap_or(0), 0);
        // One that brings no channel, and one that says too little.
        for said in [&[&right[..], &[1]].concat()[..], b"x"] {
            let mut stranger = UnixStream::connect_addr(&address).unwrap();
            stranger.write_all(said).unwrap();
            assert_eq!(stranger.read(&mut [0]).unwrap_or(0), 0);
        }
        assert!(rendezvous.take(Channels::with([1])).is_none());
    }

    #[test]
    fn one_number_is_one_channel() {
        let token = token("twice");
        let rendezvous = Rendezvous::open(&token).unwrap();
        let (mut told, _there, _served) = forward(&token, 1);
        told.read_exact(&mut [0; JOIN_PREAMBLE.len()]).unwrap();
        let (_, _there, served) = forward(&token, 1);
        served.join().unwrap().unwrap_err();
        assert!(rendezvous.take(Channels::with([1, 2])).is_none());
    }

    #[test]
    fn whatever_does_not_ask_to_join_is_a_session_from_its_first_byte() {
        for bytes in [&protocol::frame::PREAMBLE[..], b"", b"\0mig", b"hello", b"\0migjoix and more"] {
            let (input, there) = said(bytes);
            drop(there);
            let Ok(Opening::Session(mut input)) = Opening::read(input) else { panic!("{bytes:?} joins") };
            let mut all = Vec::new();
            input.read_to_end(&mut all).unwrap();
            assert_eq!(all, bytes);
        }
    }

    #[test]
    fn a_wish_to_join_that_breaks_off_is_an_error() {
        let (input, there) = said(&joining(&[1; 32], 1)[..30]);
        drop(there);
        assert!(Opening::read(input).is_err());
    }
}

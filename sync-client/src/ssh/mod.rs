//! The built-in SSH client, on russh, and the system's `ssh` behind the same [`Process`].
//!
//! A connection runs on a small tokio runtime of its own; its processes are pairs of blocking reader and
//! writer for plain threads. Nothing here reads the environment, a terminal, a home directory or
//! `~/.ssh/config`: all comes in [`SshOptions`].
//!
//! What always holds: no byte of ours but the handshake leaves before the host key is accepted; the deadline covers name
//! lookup, TCP, key exchange and authentication, without the time a person takes at the passphrase prompt.
//! [`SshConnection::connect`] and the rest block: call them from plain threads only.

mod auth;
mod further;
mod known_hosts;
pub mod system;

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use russh::client::{self, DisconnectReason};
use russh::keys::{Algorithm, PublicKey, PublicKeyOrCertificate};
use russh::{ChannelId, ChannelMsg, Disconnect};
use sync_agent::{pipe, serve};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::Instant;

pub(crate) use further::join;
pub use known_hosts::KnownKey;
use known_hosts::{HostKeys, Verdict};

/// Asks for a key file's passphrase; none when nobody can be asked.
pub type AskPassphrase = Arc<dyn Fn(&Path) -> Option<String> + Send + Sync>;

/// Takes a process's stderr as it comes.
pub type StderrSink = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// Which addresses of a host are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// Whichever there are.
    #[default]
    Any,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    fn has(self, address: &SocketAddr) -> bool {
        match self {
            Family::Any => true,
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        }
    }
}

/// Where to connect, as whom, and whom to trust. The program fills it in.
#[derive(Clone)]
pub struct SshOptions {
    /// The account; none is an error of the caller's, for this library does not know the user's name.
    pub user: Option<String>,
    /// Name or address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Which of its addresses are tried.
    pub family: Family,
    /// This machine's address that the connection comes from, if it matters.
    pub own_address: Option<IpAddr>,
    /// Keys the operator named; when empty, the agent and then `default_identities`.
    pub identities: Vec<PathBuf>,
    /// The usual key files; those that are missing are passed over.
    pub default_identities: Vec<PathBuf>,
    /// Only `identities`, when there are any: don't go on with the agent's keys.
    pub identities_only: bool,
    /// ssh-agent's socket.
    pub agent_socket: Option<PathBuf>,
    /// Files with host keys; a learned one goes to the first.
    pub known_hosts: Vec<PathBuf>,
    /// `SHA256:…`: the only host key to accept, whatever the files say, unless they revoke it.
    pub pinned: Option<String>,
    /// Learn the key of a host that has no entry at all.
    pub accept_new: bool,
    /// For the whole way to an authenticated connection.
    pub connect_timeout: Duration,
    /// A server that was silent for this long is asked for a sign of life; four in vain end the connection.
    pub keepalive: Duration,
    /// Bytes in either direction before new keys are exchanged.
    pub rekey_bytes: u64,
    /// Asks for a key file's passphrase; none when nobody can be asked.
    pub ask: AskPassphrase,
    /// Gets a process's stderr as it comes, on a thread of the runtime.
    pub stderr: StderrSink,
}

impl SshOptions {
    /// `user` at `host`, port 22, no keys, nobody trusted, 15 s to connect, 15 s keepalive.
    pub fn new(user: &str, host: &str) -> SshOptions {
        SshOptions {
            user: Some(user.to_owned()),
            host: host.to_owned(),
            port: 22,
            family: Family::Any,
            own_address: None,
            identities: Vec::new(),
            default_identities: Vec::new(),
            identities_only: false,
            agent_socket: None,
            known_hosts: Vec::new(),
            pinned: None,
            accept_new: false,
            connect_timeout: Duration::from_secs(15),
            keepalive: Duration::from_secs(15),
            rekey_bytes: serve::REKEY_BYTES,
            ask: Arc::new(|_| None),
            stderr: Arc::new(|_| {}),
        }
    }
}

/// Why there is no connection, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// The host's name has no address.
    #[error("can't find the address of {host}: check the name")]
    Resolve {
        /// The name.
        host: String,
        /// The cause.
        source: io::Error,
    },
    /// No address took the connection.
    #[error("can't connect to {address}: check that a server listens there and no firewall is in between")]
    Connect {
        /// The last address tried.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The deadline passed.
    #[error("{host} did not answer within {}s (stage: {stage})", timeout.as_secs_f32())]
    Timeout {
        /// The host.
        host: String,
        /// What was going on.
        stage: &'static str,
        /// The deadline.
        timeout: Duration,
    },
    /// The key exchange failed.
    #[error("SSH handshake with {host} failed")]
    Handshake {
        /// The host.
        host: String,
        /// The cause.
        source: russh::Error,
    },
    /// The connection ended, or the server would not start the command.
    #[error("SSH connection to {host}: {reason}")]
    Connection {
        /// The host.
        host: String,
        /// What happened.
        reason: String,
    },
    /// The runtime can't start.
    #[error("can't start the SSH client")]
    Runtime {
        /// The cause.
        source: io::Error,
    },
    /// Nothing is known about this host.
    #[error(
        "the host key of {host} is not known\n  {kind} {fingerprint}\nCompare the fingerprint with the server's own (ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub there).\nIf it is right, add this line to {}, or run again with --accept-new:\n{line}",
        file.as_deref().map_or("known_hosts".to_owned(), |file| file.display().to_string())
    )]
    HostUnknown {
        /// As in known_hosts.
        host: String,
        /// Key type.
        kind: String,
        /// SHA256 fingerprint.
        fingerprint: String,
        /// The line to add.
        line: String,
        /// Where to add it.
        file: Option<PathBuf>,
    },
    /// Another key is known.
    #[error(
        "THE HOST KEY OF {host} HAS CHANGED: somebody may be in between, or the server was set up anew\n  offered: {kind} {fingerprint}\n  known:   {} {} ({}:{})\nIf the new key is right (ask the server's administrator), remove line {} of {} and connect again.",
        known.key.algorithm(), known_hosts::fingerprint(&known.key), known.file.display(), known.line,
        known.line, known.file.display()
    )]
    HostChanged {
        /// As in known_hosts.
        host: String,
        /// Offered type.
        kind: String,
        /// Offered SHA256 fingerprint.
        fingerprint: String,
        /// What is known instead, and where.
        known: Box<KnownKey>,
    },
    /// The key is marked as revoked.
    #[error("the host key of {host} is revoked ({}:{line}): {kind} {fingerprint}\nDo not connect; ask the server's administrator.", file.display())]
    HostRevoked {
        /// As in known_hosts.
        host: String,
        /// Key type.
        kind: String,
        /// SHA256 fingerprint.
        fingerprint: String,
        /// The file that revokes it.
        file: PathBuf,
        /// And the line.
        line: usize,
    },
    /// The key is not the pinned one.
    #[error("the host key of {host} is {kind} {fingerprint}, not the expected {pinned}")]
    HostNotPinned {
        /// As in known_hosts.
        host: String,
        /// Offered type.
        kind: String,
        /// Offered SHA256 fingerprint.
        fingerprint: String,
        /// The expected fingerprint.
        pinned: String,
    },
    /// A known_hosts file can't be read or added to.
    #[error("known hosts file {}", path.display())]
    KnownHosts {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A key file can't be used.
    #[error("identity {}: {reason}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The server took none of our keys.
    #[error("{host} did not let {user} in: {tried}")]
    Authentication {
        /// The account.
        user: String,
        /// The host.
        host: String,
        /// What was tried.
        tried: String,
    },
}

impl SshError {
    /// The program's exit status: 10 connection, 41 host key refused, 42 authentication failed.
    pub fn exit_status(&self) -> u8 {
        match self {
            SshError::Resolve { .. }
            | SshError::Connect { .. }
            | SshError::Timeout { .. }
            | SshError::Handshake { .. }
            | SshError::Connection { .. }
            | SshError::Runtime { .. } => 10,
            SshError::HostUnknown { .. }
            | SshError::HostChanged { .. }
            | SshError::HostRevoked { .. }
            | SshError::HostNotPinned { .. }
            | SshError::KnownHosts { .. } => 41,
            SshError::Identity { .. } | SshError::Authentication { .. } => 42,
        }
    }
}

/// An authenticated connection. Its processes keep it alive; it ends with the last of them.
#[derive(Clone)]
pub struct SshConnection {
    line: Arc<Line>,
    answer: Duration,
}

impl SshConnection {
    /// Connects, checks the host key and authenticates.
    ///
    /// # Errors
    /// [`SshError`]; see [`SshError::exit_status`].
    pub fn connect(options: &SshOptions) -> Result<SshConnection, SshError> {
        let user = options.user.clone().ok_or_else(|| SshError::Authentication {
            user: "nobody".to_owned(),
            host: options.host.clone(),
            tried: "no user was given".to_owned(),
        })?;
        let identities = auth::Identities::load(options)?;
        let host_keys = HostKeys::read(&options.known_hosts, &options.host, options.port)
            .map_err(|(path, source)| SshError::KnownHosts { path, source })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("ssh")
            .enable_all()
            .build()
            .map_err(|source| SshError::Runtime { source })?;
        let mut deadline = Deadline::new(options);
        let reason = Arc::new(OnceLock::new());
        let granted_bytes = Arc::new(AtomicU32::new(0));
        let connected = runtime.block_on(async {
            let handle =
                handshake(options, Arc::new(host_keys), &reason, &granted_bytes, &mut deadline).await;
            let (mut handle, answer) = handle?;
            auth::authenticate(&mut handle, &user, &identities, options, &mut deadline).await?;
            Ok((handle, answer))
        });
        match connected {
            Ok((handle, answer)) => {
                let (host, stderr) = (options.host.clone(), Arc::clone(&options.stderr));
                let line = Line { runtime: Some(runtime), handle, host, reason, stderr, granted_bytes };
                Ok(SshConnection { line: Arc::new(line), answer })
            }
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// Whether the server's first answer came as fast as within one room or one machine: there the line is not
    /// what a run waits for.
    #[must_use]
    pub fn is_near(&self) -> bool {
        self.answer < NEAR
    }

    /// Starts `command` on the other side, in a channel of its own.
    ///
    /// # Errors
    /// [`SshError::Connection`] when the connection is gone or the server refuses.
    pub fn exec(&self, command: &[u8]) -> Result<Process, SshError> {
        let Some(runtime) = &self.line.runtime else { return Err(self.line.lost("is closed")) };
        runtime.block_on(async {
            let (reason, stderr) = (Arc::clone(&self.line.reason), Arc::clone(&self.line.stderr));
            let starting =
                tokio::time::timeout(EXEC_TIMEOUT, self.start(command, pipe::CHUNKS_QUEUED, reason, stderr));
            starting
                .await
                .unwrap_or_else(|_| Err(self.line.lost("the server did not start the command in time")))
        })
    }

    async fn start(
        &self,
        command: &[u8],
        queued_chunks: usize,
        reason: Arc<OnceLock<String>>,
        stderr: StderrSink,
    ) -> Result<Process, SshError> {
        let opening = self.line.handle.channel_open_session();
        let channel = opening.await.map_err(|error| self.line.lost(&format!("no channel: {error}")))?;
        // The server's word on it is not waited for, which would be a round trip: a refusal ends the pipe.
        let execing = channel.exec(true, command);
        execing.await.map_err(|error| self.line.lost(&format!("no command: {error}")))?;

        let outcome = ProcessOutcome::new();
        let guard = EndGuard(outcome.clone());
        let observe = move |message| guard.0.take(message, &*stderr);
        let (reader, writer, _) = pipe::pipe(channel, queued_chunks, observe, reason);
        Ok(Process {
            reader: Box::new(Tied { inner: reader, _line: Arc::clone(&self.line) }),
            writer: Box::new(Tied { inner: writer, _line: Arc::clone(&self.line) }),
            outcome,
        })
    }
}

const EXEC_TIMEOUT: Duration = Duration::from_secs(60);

/// A started command.
pub struct Process {
    /// Its stdout.
    pub reader: Box<dyn Read + Send>,
    /// Its stdin; dropping it sends EOF.
    pub writer: Box<dyn Write + Send>,
    /// How it ends.
    pub outcome: ProcessOutcome,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Status(u32),
    /// By this signal (without `SIG`).
    Signal(String),
    /// The connection ended first, or the server said nothing.
    Unknown,
}

/// Learns how a process ends; may be cloned and outlive it.
#[derive(Clone)]
pub struct ProcessOutcome {
    shared: Arc<(Mutex<Ending>, Condvar)>,
    child: Option<system::Child>,
}

#[derive(Default)]
struct Ending {
    exit: Option<Exit>,
    /// Nothing more will come.
    over: bool,
    stderr_tail: VecDeque<u8>,
}

/// How much of stderr is kept.
pub const STDERR_TAIL_BYTES: usize = 8 << 10;

impl ProcessOutcome {
    fn new() -> ProcessOutcome {
        ProcessOutcome { shared: Arc::default(), child: None }
    }

    /// Waits up to `timeout` for the end; none while it still runs.
    pub fn wait(&self, timeout: Duration) -> Option<Exit> {
        let (_, changed) = &*self.shared;
        let running = |ending: &mut Ending| !ending.over && ending.exit.is_none();
        let waited = changed.wait_timeout_while(self.ending(), timeout, running);
        let (ending, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if ending.over { Some(ending.exit.clone().unwrap_or(Exit::Unknown)) } else { ending.exit.clone() }
    }

    /// The last of its stderr, up to [`STDERR_TAIL_BYTES`].
    pub fn stderr_tail(&self) -> Vec<u8> {
        self.ending().stderr_tail.iter().copied().collect()
    }

    /// Kills a program started by [`system::spawn`]; a command on the built-in client ends with its pipes.
    pub fn kill(&self) {
        if let Some(child) = &self.child {
            child.kill();
        }
    }

    fn ending(&self) -> MutexGuard<'_, Ending> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exited(&self, exit: Exit) {
        self.ending().exit.get_or_insert(exit);
        self.shared.1.notify_all();
    }

    fn over(&self) {
        self.ending().over = true;
        self.shared.1.notify_all();
    }

    fn stderr(&self, bytes: &[u8], sink: &(dyn Fn(&[u8]) + Send + Sync)) {
        let kept = &bytes[bytes.len().saturating_sub(STDERR_TAIL_BYTES)..];
        let mut ending = self.ending();
        ending.stderr_tail.extend(kept);
        let surplus = ending.stderr_tail.len().saturating_sub(STDERR_TAIL_BYTES);
        ending.stderr_tail.drain(..surplus);
        drop(ending);
        sink(bytes);
    }

    fn take(&self, message: ChannelMsg, sink: &(dyn Fn(&[u8]) + Send + Sync)) {
        match message {
            ChannelMsg::ExtendedData { data, ext: 1 } => self.stderr(&data, sink),
            ChannelMsg::ExitStatus { exit_status } => self.exited(Exit::Status(exit_status)),
            ChannelMsg::ExitSignal { signal_name, .. } => {
                self.exited(Exit::Signal(format!("{signal_name:?}")))
            }
            _ => {}
        }
    }
}

/// Ends the outcome when the pipe's drain task is gone, in whatever way.
struct EndGuard(ProcessOutcome);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.over();
    }
}

/// A reader or writer that keeps its connection alive. Its own end comes first: fields drop in order.
struct Tied<T> {
    inner: T,
    _line: Arc<Line>,
}

impl<T: Read> Read for Tied<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer)
    }
}

impl<T: Write> Write for Tied<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The connection itself.
struct Line {
    runtime: Option<Runtime>,
    handle: client::Handle<Handler>,
    host: String,
    reason: Arc<OnceLock<String>>,
    stderr: StderrSink,
    /// The largest window that the server gave a channel when it opened it.
    granted_bytes: Arc<AtomicU32>,
}

impl Line {
    fn lost(&self, what: &str) -> SshError {
        let reason = self.reason.get().map_or_else(|| what.to_owned(), |reason| format!("{what} ({reason})"));
        SshError::Connection { host: self.host.clone(), reason }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        runtime.block_on(async {
            let goodbye = self.handle.disconnect(Disconnect::ByApplication, "done", "");
            if tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await.is_ok_and(|sent| sent.is_ok()) {
                let _ = tokio::time::timeout(GOODBYE_TIMEOUT, &mut self.handle).await;
            }
        });
        runtime.shutdown_background();
    }
}

const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);

/// The time left for connecting. A person at a prompt does not use it up.
pub(crate) struct Deadline {
    at: Instant,
    timeout: Duration,
    host: String,
}

impl Deadline {
    fn new(options: &SshOptions) -> Deadline {
        let timeout = options.connect_timeout;
        Deadline { at: Instant::now() + timeout, timeout, host: options.host.clone() }
    }

    pub(crate) async fn limit<T>(
        &self,
        stage: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T, SshError> {
        tokio::time::timeout_at(self.at, work).await.map_err(|_| SshError::Timeout {
            host: self.host.clone(),
            stage,
            timeout: self.timeout,
        })
    }

    /// Runs `work`, which may wait for a person, with the clock stopped.
    pub(crate) fn stopped<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        self.at += started.elapsed();
        result
    }
}

/// A round trip and the time a server takes to start a process for the connection.
const NEAR: Duration = Duration::from_millis(25);

/// TCP and key exchange; also tells how long the server took for its first answer. With a pinned key, other key types are asked for until one matches.
async fn handshake(
    options: &SshOptions,
    host_keys: Arc<HostKeys>,
    reason: &Arc<OnceLock<String>>,
    granted_bytes: &Arc<AtomicU32>,
    deadline: &mut Deadline,
) -> Result<(client::Handle<Handler>, Duration), SshError> {
    let mut algorithms = host_keys.prefer(&serve::algorithms().key);
    let mut refused = None;
    loop {
        let started = Instant::now();
        let mut socket = deadline.limit("TCP connection", dial(options)).await??;
        // Said before the server's first word is there: who waits for it loses a round trip.
        let hello = [CLIENT_ID.as_bytes(), b"\r\n"].concat();
        let sent = deadline.limit("first word", socket.write_all(&hello)).await?;
        sent.map_err(|error| SshError::Handshake { host: options.host.clone(), source: error.into() })?;
        // The server speaks first; the handshake reads what is looked at here.
        let _ = deadline.limit("first answer", socket.peek(&mut [0])).await?;
        let answer = started.elapsed();
        let window_bytes = window_bytes(answer);
        let verdict = Arc::new(Mutex::new(None));
        let handler = Handler {
            check: HostCheck { options: options.clone(), host_keys: Arc::clone(&host_keys) },
            verdict: Arc::clone(&verdict),
            reason: Arc::clone(reason),
            granted_bytes: Arc::clone(granted_bytes),
        };
        let config = Arc::new(config(options, algorithms.clone(), window_bytes));
        let connecting =
            client::connect_stream(config, pipe::Socket::that_said(socket, hello.len()), handler);
        let source = match deadline.limit("key exchange", connecting).await? {
            Ok(handle) => return Ok((handle, answer)),
            Err(source) => source,
        };
        let refusal = verdict.lock().unwrap_or_else(PoisonError::into_inner).take();
        match refusal {
            Some(Refusal { error: error @ SshError::HostNotPinned { .. }, algorithm })
                if algorithms.iter().any(|other| !same_kind(other, &algorithm)) =>
            {
                algorithms.retain(|other| !same_kind(other, &algorithm));
                refused = Some(error);
            }
            Some(refusal) => return Err(refusal.error),
            None => {
                let failed = SshError::Handshake { host: options.host.clone(), source };
                return Err(refused.unwrap_or(failed));
            }
        }
    }
}

fn same_kind(one: &Algorithm, other: &Algorithm) -> bool {
    one == other || matches!((one, other), (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }))
}

async fn dial(options: &SshOptions) -> Result<TcpStream, SshError> {
    let resolve_error = |source| SshError::Resolve { host: options.host.clone(), source };
    let place = (options.host.as_str(), options.port);
    let addresses = tokio::net::lookup_host(place).await.map_err(resolve_error)?;
    let mut failure = None;
    for address in addresses.filter(|address| options.family.has(address)) {
        match connect(address, options.own_address).await {
            Ok(socket) => {
                // Without it small requests wait for acknowledgements; a socket that can't is still good.
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            Err(source) => failure = Some(SshError::Connect { address, source }),
        }
    }
    Err(failure.unwrap_or_else(|| resolve_error(io::Error::other("the name has no such address"))))
}

async fn connect(address: SocketAddr, own: Option<IpAddr>) -> io::Result<TcpStream> {
    let Some(own) = own else { return TcpStream::connect(address).await };
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(own, 0))?;
    socket.connect(address).await
}

/// The window for a server that took so long to answer a new connection: enough for some 600 MB/s, as that
/// time is a round trip and a little more. Not simply the most: sshd reads ahead as far as the window goes,
/// and moving such a buffer is a third of all work on a fast link.
fn window_bytes(answer: Duration) -> u32 {
    let bytes = answer.as_secs_f64() * 640e6;
    (bytes as u32).clamp(MIN_WINDOW_BYTES, pipe::WINDOW_BYTES)
}

const MIN_WINDOW_BYTES: u32 = 2 << 20;

fn config(options: &SshOptions, host_key_algorithms: Vec<Algorithm>, window_size: u32) -> client::Config {
    client::Config {
        limits: serve::rekey_limits(options.rekey_bytes),
        client_id: russh::SshId::Standard(CLIENT_ID.into()),
        window_size,
        maximum_packet_size: pipe::PACKET_BYTES,
        channel_buffer_size: pipe::CHANNEL_MESSAGES,
        preferred: russh::Preferred { key: host_key_algorithms.into(), ..serve::algorithms() },
        keepalive_interval: Some(options.keepalive),
        keepalive_max: 3,
        // Also bounds a write to a server that does not read; keepalives keep a healthy one from it.
        inactivity_timeout: Some(options.keepalive * pipe::INACTIVITY_KEEPALIVES),
        nodelay: true,
        ..client::Config::default()
    }
}

/// How this program introduces itself to an SSH server.
const CLIENT_ID: &str = concat!("SSH-2.0-sync-client_", env!("CARGO_PKG_VERSION"));

struct Refusal {
    error: SshError,
    algorithm: Algorithm,
}

/// russh's view of us: checks the host key, remembers why the connection ended.
pub(crate) struct Handler {
    check: HostCheck,
    verdict: Arc<Mutex<Option<Refusal>>>,
    reason: Arc<OnceLock<String>>,
    granted_bytes: Arc<AtomicU32>,
}

impl client::Handler for Handler {
    type Error = russh::Error;

    async fn check_server_key(&mut self, offered: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let key = offered.public_key();
        let Err(error) = self.check.accept(&key) else { return Ok(true) };
        let refusal = Refusal { error, algorithm: key.algorithm() };
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
        Ok(false)
    }

    async fn channel_open_confirmation(
        &mut self,
        _id: ChannelId,
        _max_packet_size: u32,
        window_size: u32,
        _session: &mut client::Session,
    ) -> Result<(), russh::Error> {
        self.granted_bytes.fetch_max(window_size, Ordering::Relaxed);
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<russh::Error>) -> Result<(), russh::Error> {
        let text = match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                format!("the server disconnected: {}", info.message.escape_debug())
            }
            DisconnectReason::Error(error) => format!("the SSH connection ended: {error}"),
        };
        let _ = self.reason.set(text);
        Ok(())
    }
}

struct HostCheck {
    options: SshOptions,
    host_keys: Arc<HostKeys>,
}

impl HostCheck {
    fn accept(&self, key: &PublicKey) -> Result<(), SshError> {
        let options = &self.options;
        let host = known_hosts::host_name(&options.host, options.port);
        let kind = key.algorithm().to_string();
        let fingerprint = known_hosts::fingerprint(key);
        let verdict = self.host_keys.check(key);
        if let Verdict::Revoked(known) = verdict {
            return Err(SshError::HostRevoked {
                host,
                kind,
                fingerprint,
                file: known.file,
                line: known.line,
            });
        }
        if let Some(pinned) = &options.pinned {
            if pinned.trim().trim_end_matches('=') == fingerprint {
                return Ok(());
            }
            return Err(SshError::HostNotPinned { host, kind, fingerprint, pinned: pinned.clone() });
        }
        match verdict {
            Verdict::Known => Ok(()),
            Verdict::Changed(known) => {
                Err(SshError::HostChanged { host, kind, fingerprint, known: Box::new(known) })
            }
            Verdict::Unknown | Verdict::Revoked(_) => self.learn(key, host, kind, fingerprint),
        }
    }

    fn learn(
        &self,
        key: &PublicKey,
        host: String,
        kind: String,
        fingerprint: String,
    ) -> Result<(), SshError> {
        let line = known_hosts::line(&self.options.host, self.options.port, key);
        match self.options.known_hosts.first() {
            Some(file) if self.options.accept_new => known_hosts::append(file, &line)
                .map_err(|source| SshError::KnownHosts { path: file.clone(), source }),
            file => Err(SshError::HostUnknown { host, kind, fingerprint, line, file: file.cloned() }),
        }
    }
}

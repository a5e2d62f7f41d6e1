//! The agent's own SSH server (`sync-agent serve`), on russh.
//!
//! It does one thing: a client whose key is in `authorized_keys` may start agent sessions with `exec`.
//! Shells, terminals, subsystems and every kind of forwarding are refused (russh's defaults drop the
//! request; what needs an answer gets a failure here). The command string decides nothing.
//!
//! What always holds: before authentication a connection has a deadline, a place among few, and few
//! attempts; every connection can be cut from outside by shutting its socket down, so a client that
//! stops reading can't hold anything; each session runs on a thread of its own, and when its client is
//! gone its reader ends and its writer fails. `authorized_keys` is read anew for each connection.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey, PublicKey};
use russh::server::{self, Auth, ChannelOpenHandle, Handle, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, MethodKind, MethodSet, Preferred};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::pipe;

/// What a session does: reads and writes until it is done, and returns its exit status.
pub type SessionFn = Arc<dyn Fn(Box<dyn Read + Send>, Box<dyn Write + Send>) -> u32 + Send + Sync>;

/// How to serve.
#[derive(Clone)]
pub struct ServeOptions {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The host key; an Ed25519 key is made here (mode 0600) when the file is missing.
    pub host_key: PathBuf,
    /// Who may connect, in OpenSSH's format.
    pub authorized_keys: PathBuf,
    /// Sessions, and authenticated connections, at the same time.
    pub max_sessions: usize,
    /// Connections that are not authenticated yet, at the same time; more are closed at once.
    pub max_unauthenticated: usize,
    /// How long a connection may take to authenticate.
    pub login_timeout: Duration,
    /// A client that was silent for this long is asked for a sign of life; four in vain end it.
    pub keepalive: Duration,
    /// Gets one line for each connection, refusal and end. Must not block.
    pub log: Arc<dyn Fn(&str) + Send + Sync>,
}

impl ServeOptions {
    /// The usual limits for `listen`: 16 sessions, 32 waiting, 10 s to authenticate, 15 s keepalive, no log.
    pub fn new(listen: SocketAddr, host_key: PathBuf, authorized_keys: PathBuf) -> ServeOptions {
        ServeOptions {
            listen,
            host_key,
            authorized_keys,
            max_sessions: 16,
            max_unauthenticated: 32,
            login_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(15),
            log: Arc::new(|_| {}),
        }
    }
}

/// Why serving could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address could not be taken.
    #[error("can't listen on {listen}")]
    Listen {
        /// The address asked for.
        listen: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The host key could not be read or made.
    #[error("host key {}: {reason}", path.display())]
    HostKey {
        /// The key file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The list of authorized keys can't be used.
    #[error("authorized keys {}: {reason}", path.display())]
    AuthorizedKeys {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The runtime or a thread could not be started.
    #[error("can't start the SSH server")]
    Runtime {
        /// The cause.
        source: io::Error,
    },
}

/// Our preferences on the wire, for both ends: AES-GCM first, no compression, no SHA-1.
pub fn algorithms() -> Preferred {
    use russh::{cipher, compression, kex, mac};
    Preferred {
        kex: vec![
            kex::MLKEM768X25519_SHA256,
            kex::CURVE25519,
            kex::CURVE25519_PRE_RFC_8731,
            kex::ECDH_SHA2_NISTP256,
            kex::ECDH_SHA2_NISTP384,
            kex::DH_G16_SHA512,
            kex::EXTENSION_SUPPORT_AS_CLIENT,
            kex::EXTENSION_SUPPORT_AS_SERVER,
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
        ]
        .into(),
        key: vec![
            Algorithm::Ed25519,
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
            Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
            Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
        ]
        .into(),
        host_key_certificates: vec![].into(),
        cipher: vec![
            // A first copy over a fast link is bound by what both ends encrypt: 4 % shorter than with 256 bits.
            cipher::AES_128_GCM,
            cipher::AES_256_GCM,
            cipher::CHACHA20_POLY1305,
            cipher::AES_256_CTR,
            cipher::AES_128_CTR,
        ]
        .into(),
        mac: vec![mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM, mac::HMAC_SHA256, mac::HMAC_SHA512].into(),
        compression: vec![compression::NONE].into(),
    }
}

/// When to exchange keys anew: after `bytes` in either direction or an hour.
///
/// AES-GCM allows 2^32 blocks (64 GiB) under one key (RFC 4344 section 3.2); each exchange costs a pause
/// of a round trip.
pub fn rekey_limits(bytes: u64) -> russh::Limits {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    russh::Limits {
        rekey_write_limit: bytes,
        rekey_read_limit: bytes,
        rekey_time_limit: Duration::from_secs(3600),
    }
}

/// Bytes under one key unless said otherwise.
pub const REKEY_BYTES: u64 = 8 << 30;

/// Whether `pattern`, with `*` and `?`, matches all of `name`.
pub fn wildcard_matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star_p, star_n)) = star else { return false };
                star = Some((star_p, star_n + 1));
                p = star_p + 1;
                n = star_n + 1;
            }
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// A listening server.
pub struct Server {
    options: ServeOptions,
    listener: TcpListener,
    local_addr: SocketAddr,
    host_key: PrivateKey,
    control: Arc<Control>,
}

impl Server {
    /// Takes the address, reads or makes the host key and checks the authorized keys.
    ///
    /// # Errors
    /// When one of the three fails; nothing is served then.
    pub fn bind(options: &ServeOptions) -> Result<Server, ServeError> {
        let host_key = host_key(&options.host_key)?;
        let keys = read_authorized_keys(&options.authorized_keys)?;
        for refused in &keys.refused {
            (options.log)(refused);
        }
        let listen_error = |source| ServeError::Listen { listen: options.listen, source };
        let listener = TcpListener::bind(options.listen).map_err(listen_error)?;
        listener.set_nonblocking(true).map_err(listen_error)?;
        let local_addr = listener.local_addr().map_err(listen_error)?;
        let control = Arc::new(Control::default());
        Ok(Server { options: options.clone(), listener, local_addr, host_key, control })
    }

    /// The address taken, with the port the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The host key's SHA256 fingerprint, as ssh-keygen prints it.
    pub fn fingerprint(&self) -> String {
        self.host_key.public_key().fingerprint(HashAlg::Sha256).to_string()
    }

    /// The host key as `type base64`, for a line in known_hosts after the host's name.
    pub fn public_key_line(&self) -> String {
        key_line(self.host_key.public_key())
    }

    /// Stops this server from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper { control: Arc::clone(&self.control) }
    }

    /// Serves until stopped; `session` runs on a thread of its own for each `exec`.
    ///
    /// # Errors
    /// When the runtime can't start. What a client does is never an error here.
    pub fn run(self, session: SessionFn) -> Result<(), ServeError> {
        let runtime_error = |source| ServeError::Runtime { source };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("ssh")
            .worker_threads(2)
            .build()
            .map_err(runtime_error)?;
        let control = Arc::clone(&self.control);
        let served = runtime.block_on(self.accept_all(session));
        control.cut_all();
        runtime.shutdown_timeout(Duration::from_secs(1));
        served.map_err(runtime_error)
    }

    async fn accept_all(self, session: SessionFn) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let site = Arc::new(Site {
            config: Arc::new(config(&self.options, self.host_key)),
            waiting: Arc::new(Semaphore::new(self.options.max_unauthenticated)),
            connections: Arc::new(Semaphore::new(self.options.max_sessions)),
            sessions: Arc::new(Semaphore::new(self.options.max_sessions)),
            control: Arc::clone(&self.control),
            options: self.options,
            session,
        });
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.control.stop.notified() => return Ok(()),
            };
            match accepted {
                Ok((stream, peer)) => site.admit(stream, peer),
                // Out of descriptors, or the client is gone already: neither is a reason to end.
                Err(error) => {
                    (site.options.log)(&format!("accept: {error}"));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Ends [`Server::run`] and every connection.
#[derive(Clone)]
pub struct Stopper {
    control: Arc<Control>,
}

impl Stopper {
    /// Stops accepting and cuts what is connected; sessions see EOF or an error.
    pub fn stop(&self) {
        self.control.stop.notify_one();
    }
}

#[derive(Default)]
struct Control {
    stop: Notify,
    connections: Mutex<HashMap<u64, TcpStream>>,
    next_id: std::sync::atomic::AtomicU64,
}

impl Control {
    fn connections(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, socket: TcpStream) -> u64 {
        let id = self.next_id.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.connections().insert(id, socket);
        id
    }

    fn cut(&self, id: u64) {
        if let Some(socket) = self.connections().remove(&id) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn cut_all(&self) {
        for (_, socket) in self.connections().drain() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Cuts a connection when its task ends, in whatever way.
struct Cutter {
    control: Arc<Control>,
    id: u64,
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.control.cut(self.id);
    }
}

/// What all connections share.
struct Site {
    options: ServeOptions,
    config: Arc<server::Config>,
    waiting: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
    control: Arc<Control>,
    session: SessionFn,
}

impl Site {
    fn admit(self: &Arc<Site>, stream: tokio::net::TcpStream, peer: SocketAddr) {
        let Ok(place) = Arc::clone(&self.waiting).try_acquire_owned() else {
            (self.options.log)(&format!("{peer}: refused, too many connections wait for authentication"));
            return;
        };
        let site = Arc::clone(self);
        tokio::spawn(async move {
            match site.converse(stream, peer, place).await {
                Ok(()) => (site.options.log)(&format!("{peer}: closed")),
                Err(error) => (site.options.log)(&format!("{peer}: closed: {error}")),
            }
        });
    }

    async fn converse(
        self: &Arc<Site>,
        stream: tokio::net::TcpStream,
        peer: SocketAddr,
        place: OwnedSemaphorePermit,
    ) -> Result<(), russh::Error> {
        let stream = stream.into_std()?;
        let id = self.control.register(stream.try_clone()?);
        let _cutter = Cutter { control: Arc::clone(&self.control), id };
        let stream = tokio::net::TcpStream::from_std(stream)?;
        stream.set_nodelay(true)?;

        let authenticated = Arc::new(Notify::new());
        let client = Client {
            site: Arc::clone(self),
            peer,
            authenticated: Arc::clone(&authenticated),
            place: Some(place),
            connection: None,
            opened: HashMap::new(),
        };
        let deadline = tokio::time::sleep(self.options.login_timeout);
        tokio::pin!(deadline);
        let starting = server::run_stream(Arc::clone(&self.config), pipe::Socket::new(stream), client);
        let running = tokio::select! {
            running = starting => running?,
            () = &mut deadline => return Err(russh::Error::ConnectionTimeout),
        };
        tokio::pin!(running);
        tokio::select! {
            ended = &mut running => return ended,
            () = authenticated.notified() => {}
            () = &mut deadline => return Err(russh::Error::ConnectionTimeout),
        }
        running.await
    }
}

fn config(options: &ServeOptions, host_key: PrivateKey) -> server::Config {
    server::Config {
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: Duration::from_millis(200),
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: 6,
        keys: vec![host_key],
        limits: rekey_limits(REKEY_BYTES),
        window_size: pipe::WINDOW_BYTES,
        maximum_packet_size: pipe::PACKET_BYTES,
        channel_buffer_size: pipe::CHANNEL_MESSAGES,
        event_buffer_size: pipe::CHANNEL_MESSAGES,
        preferred: algorithms(),
        keepalive_interval: Some(options.keepalive),
        keepalive_max: 3,
        // Also bounds a write to a client that does not read; keepalives keep a healthy one from it.
        inactivity_timeout: Some(options.keepalive * pipe::INACTIVITY_KEEPALIVES),
        nodelay: true,
        ..server::Config::default()
    }
}

/// One connection's handler.
struct Client {
    site: Arc<Site>,
    peer: SocketAddr,
    authenticated: Arc<Notify>,
    /// Its place among those that wait; given back once authenticated.
    place: Option<OwnedSemaphorePermit>,
    connection: Option<OwnedSemaphorePermit>,
    opened: HashMap<ChannelId, Channel<Msg>>,
}

/// Channels one connection may have open before it starts a session on them.
const MAX_IDLE_CHANNELS: usize = 4;

impl Client {
    fn accepts(&self, key: &PublicKey, algorithm: &Algorithm) -> bool {
        if matches!(algorithm, Algorithm::Rsa { hash: None } | Algorithm::Dsa) {
            return false;
        }
        match read_authorized_keys(&self.site.options.authorized_keys) {
            Ok(keys) => keys.allow(key, self.peer.ip()),
            Err(error) => {
                (self.site.options.log)(&error.to_string());
                false
            }
        }
    }

    fn start(&mut self, id: ChannelId, handle: Handle) -> Result<(), &'static str> {
        let channel = self.opened.remove(&id).ok_or("a second exec on one channel")?;
        let place =
            Arc::clone(&self.site.sessions).try_acquire_owned().map_err(|_| "too many sessions at once")?;
        let reason = Arc::new(OnceLock::new());
        let _ = reason.set("the client's connection ended".to_owned());
        let (reader, writer, end) = pipe::pipe(channel, pipe::CHUNKS_QUEUED, |_| {}, reason);
        let session = Arc::clone(&self.site.session);
        std::thread::Builder::new()
            .name("session".to_owned())
            .spawn(move || {
                let run = AssertUnwindSafe(|| session(Box::new(reader), Box::new(writer)));
                let status = catch_unwind(run).unwrap_or(1);
                end.exit(status);
                drop((place, handle));
            })
            .map_err(|_| "no thread for the session")?;
        Ok(())
    }
}

impl server::Handler for Client {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        _user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(if self.accepts(offer.public_key, offer.algorithm) { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        let fingerprint = key.public_key.fingerprint(HashAlg::Sha256);
        if !self.accepts(key.public_key, key.algorithm) {
            (self.site.options.log)(&format!("{}: key {fingerprint} refused", self.peer));
            return Ok(Auth::reject());
        }
        (self.site.options.log)(&format!("{}: {} with key {fingerprint}", self.peer, user.escape_debug()));
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), russh::Error> {
        let connections = Arc::clone(&self.site.connections);
        self.connection = Some(connections.try_acquire_owned().map_err(|_| {
            (self.site.options.log)(&format!("{}: refused, too many connections", self.peer));
            russh::Error::Disconnect
        })?);
        self.place = None;
        self.authenticated.notify_one();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        if self.opened.len() >= MAX_IDLE_CHANNELS {
            reply.reject(russh::ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        self.opened.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.opened.remove(&channel);
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match self.start(channel, session.handle()) {
            Ok(()) => session.channel_success(channel),
            Err(why) => {
                (self.site.options.log)(&format!("{}: session refused, {why}", self.peer));
                session.channel_failure(channel)?;
                session.close(channel)
            }
        }
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _col_width: u32,
        _row_height: u32,
        _pix_width: u32,
        _pix_height: u32,
        _modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single_connection: bool,
        _x11_auth_protocol: &str,
        _x11_auth_cookie: &str,
        _x11_screen_number: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }
}

fn key_line(key: &PublicKey) -> String {
    let mut key = key.clone();
    key.set_comment("");
    key.to_openssh().unwrap_or_default().trim_end().to_owned()
}

fn host_key(path: &Path) -> Result<PrivateKey, ServeError> {
    let error = |reason: String| ServeError::HostKey { path: path.to_owned(), reason };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return make_host_key(path),
        Err(other) => return Err(error(other.to_string())),
    };
    if metadata.mode() & 0o077 != 0 {
        return Err(error(format!("others can read it; run: chmod 600 {}", path.display())));
    }
    russh::keys::load_secret_key(path, None).map_err(|cause| error(cause.to_string()))
}

fn make_host_key(path: &Path) -> Result<PrivateKey, ServeError> {
    let error = |reason: String| ServeError::HostKey { path: path.to_owned(), reason };
    let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)
        .map_err(|cause| error(cause.to_string()))?;
    let text = key.to_openssh(LineEnding::LF).map_err(|cause| error(cause.to_string()))?;
    let write = || -> io::Result<()> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent)?;
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|cause| error(format!("can't be made: {cause}")))?;
    Ok(key)
}

/// What an `authorized_keys` file allows.
#[derive(Debug, Default)]
struct AuthorizedKeys {
    keys: Vec<AuthorizedKey>,
    /// One message for each line that is not used.
    refused: Vec<String>,
}

#[derive(Debug)]
struct AuthorizedKey {
    key: PublicKey,
    /// `from=` patterns; none means from anywhere.
    from: Option<String>,
}

impl AuthorizedKeys {
    fn allow(&self, key: &PublicKey, from: IpAddr) -> bool {
        self.keys.iter().any(|entry| {
            entry.key.key_data() == key.key_data()
                && entry.from.as_ref().is_none_or(|patterns| address_allowed(patterns, from))
        })
    }

    fn parse(text: &str) -> AuthorizedKeys {
        let mut keys = AuthorizedKeys::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match authorized_key(line) {
                Ok(key) => keys.keys.push(key),
                Err(why) => keys.refused.push(format!("authorized_keys line {}: not used, {why}", index + 1)),
            }
        }
        keys
    }
}

/// The file must be a plain file that only its owner can write; a bigger one than 1 MiB is a mistake.
fn read_authorized_keys(path: &Path) -> Result<AuthorizedKeys, ServeError> {
    let error = |reason: String| ServeError::AuthorizedKeys { path: path.to_owned(), reason };
    let read = || -> io::Result<(fs::Metadata, String)> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let mut text = String::new();
        file.take(1 << 20).read_to_string(&mut text)?;
        Ok((metadata, text))
    };
    let (metadata, text) = read().map_err(|cause| error(cause.to_string()))?;
    if !metadata.is_file() {
        return Err(error("is not a plain file".to_owned()));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(error(format!("others can write it; run: chmod go-w {}", path.display())));
    }
    Ok(AuthorizedKeys::parse(&text))
}

fn authorized_key(line: &str) -> Result<AuthorizedKey, String> {
    if let Some(key) = plain_key(line) {
        return Ok(AuthorizedKey { key, from: None });
    }
    let (options, rest) = split_options(line).ok_or("its quotes don't match")?;
    let key = plain_key(rest.trim_start()).ok_or("it holds no key we can read")?;
    let mut from = None;
    for option in options {
        let (name, value) =
            option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        match (name.to_ascii_lowercase().as_str(), value) {
            (
                "restrict"
                | "no-pty"
                | "no-port-forwarding"
                | "no-agent-forwarding"
                | "no-x11-forwarding"
                | "no-user-rc",
                None,
            ) => {}
            ("from", Some(value)) if from.is_none() => {
                let patterns = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                from = Some(patterns.ok_or("from= needs quotes")?.to_owned());
            }
            _ => return Err(format!("this server does not know the option {}", name.escape_debug())),
        }
    }
    Ok(AuthorizedKey { key, from })
}

fn plain_key(text: &str) -> Option<PublicKey> {
    let mut words = text.split_whitespace();
    let (kind, data) = (words.next()?, words.next()?);
    PublicKey::from_openssh(&format!("{kind} {data}")).ok()
}

/// Splits `a,b="x,y" rest` into its options and the rest; none when a quote is left open.
fn split_options(line: &str) -> Option<(Vec<&str>, &str)> {
    let (mut quoted, mut start, mut options) = (false, 0, Vec::new());
    for (index, byte) in line.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                options.push(&line[start..index]);
                start = index + 1;
            }
            b' ' | b'\t' if !quoted => {
                options.push(&line[start..index]);
                return Some((options, &line[index..]));
            }
            _ => {}
        }
    }
    None
}

/// OpenSSH's `from=`: comma-separated addresses, CIDR blocks and wildcards, `!` negates; no host names.
fn address_allowed(patterns: &str, address: IpAddr) -> bool {
    let address = address.to_canonical();
    let text = address.to_string();
    let mut allowed = false;
    for pattern in patterns.split(',').map(str::trim) {
        let (negated, pattern) = pattern.strip_prefix('!').map_or((false, pattern), |rest| (true, rest));
        let matches = match pattern.split_once('/') {
            Some((network, bits)) => in_network(address, network, bits),
            None => wildcard_matches(pattern.to_ascii_lowercase().as_bytes(), text.as_bytes()),
        };
        if matches && negated {
            return false;
        }
        allowed |= matches;
    }
    allowed
}

fn in_network(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) if bits <= 32 => {
            let shift = 32 - bits;
            (u64::from(address.to_bits()) >> shift) == (u64::from(network.to_bits()) >> shift)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) if bits <= 128 => {
            bits == 0 || (address.to_bits() ^ network.to_bits()) >> (128 - bits) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    #[test]
    fn authorized_keys_lines_are_taken_or_refused_by_their_options() {
        let cases = [
            (KEY.to_owned(), true),
            (format!("{KEY} somebody@host with spaces"), true),
            (format!("restrict {KEY} c"), true),
            (format!("restrict,no-pty,from=\"10.0.0.0/8,192.0.2.*\" {KEY}"), true),
            (format!("command=\"/bin/true\" {KEY}"), false),
            (format!("command=\"a b, \\\"c\\\"\",restrict {KEY}"), false),
            (format!("restrict,pty {KEY}"), false),
            (format!("expiry-time=\"20300101\" {KEY}"), false),
            (format!("cert-authority {KEY}"), false),
            (format!("from=10.0.0.1 {KEY}"), false),
            ("ssh-ed25519 AAAA".to_owned(), false),
            ("nonsense".to_owned(), false),
        ];
        for (line, taken) in cases {
            let keys = AuthorizedKeys::parse(&line);
            assert_eq!((keys.keys.len(), keys.refused.len()), if taken { (1, 0) } else { (0, 1) }, "{line}");
        }
        assert!(AuthorizedKeys::parse("# comment\n\n  \n").refused.is_empty());
    }

    #[test]
    fn from_patterns_match_addresses_as_openssh_does() {
        let cases = [
            ("10.0.0.0/8", "10.9.8.7", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "11.0.0.1", true),
            ("192.0.2.*", "192.0.2.77", true),
            ("192.0.2.?", "192.0.2.77", false),
            ("10.0.0.0/8,!10.1.0.0/16", "10.1.2.3", false),
            ("!10.1.0.0/16", "10.2.2.3", false),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
            ("::/0", "fe80::1", true),
            ("10.0.0.0/33", "10.0.0.1", false),
            ("host.example.com", "10.0.0.1", false),
        ];
        for (patterns, address, allowed) in cases {
            let address = address.parse().expect("a literal address");
            assert_eq!(address_allowed(patterns, address), allowed, "{patterns} {address}");
        }
    }

    #[test]
    fn wildcards_match_the_whole_name() {
        let cases = [
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("?", "", false),
            ("*.example.*", "a.example.org", true),
            ("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ];
        for (pattern, name, matches) in cases {
            assert_eq!(wildcard_matches(pattern.as_bytes(), name.as_bytes()), matches, "{pattern} {name}");
        }
    }
}

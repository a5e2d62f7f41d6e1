//! `demo`: a whole migration of a small sample on this machine, as an operator would see it.
//!
//! It needs nothing installed and no root: it makes a MongoDB-shaped data directory with attachments, keys
//! for both sides, and an agent of its own behind the agent's own SSH server; then it pulls over real SSH
//! with the same [`endpoint::sync`] that `sync` and `verify` call, and changes the source in between.
//! Called by `main`; the README's first command.
//!
//! What always holds: everything lies in one temporary directory that only this user can enter, and that
//! is gone when [`run`] returns, however the run went (only a second signal leaves it behind); nothing but
//! 127.0.0.1 is spoken to; no key, agent or `known_hosts` of the user is looked at. The sample is the same
//! on every machine. Success is not taken from the engine's word alone: `Tree::equals` reads both trees
//! again with `std::fs`.

use crate::console::{Console, Format, LocalTime, Surroundings, bytes, print_error};
use crate::endpoint::{self, Environment, Watch};
use crate::job::{Connection, Job, OutputOptions, Side, Way};
use crate::location::Host;
use crate::ssh::system::SshArgs;
use crossbeam_channel::{Receiver, TryRecvError, never};
use protocol::options::{Compression, Delete, Preserve, QuickCheck, SyncOptions};
use protocol::stats::{Exit, Stats};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, ssh_key};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions as Mode};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use sync_agent::agent::{self, Permissions};
use sync_agent::link::Further;
use sync_agent::serve::{ServeError, ServeOptions, Server, SessionFn, Stopper};
use sync_agent::signals;
use sync_agent::tree::Dir;
use tempfile::TempDir;

/// Runs the demonstration and returns the exit status: 0 only if every pass succeeded, both comparisons
/// found the trees identical, the pass after them had nothing to do, and nothing is left behind.
pub fn run(environment: &Environment) -> u8 {
    match demonstrate(environment) {
        Ok(()) => {
            farewell(&mut io::stdout());
            Exit::Done.code()
        }
        Err(error) => {
            print_error(&error);
            error.exit_code()
        }
    }
}

/// Why the demonstration did not succeed.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("cannot {what} {} (the environment variable TMPDIR chooses another place)", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot make an Ed25519 key")]
    Key(#[from] ssh_key::Error),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("cannot start {what}")]
    Start { what: &'static str, source: io::Error },
    #[error("stopped by a signal; what the demo made is removed")]
    Interrupted,
    #[error("the demo ends here: {pass} failed (exit status {code}); the reason stands above")]
    Pass { pass: &'static str, code: u8 },
    #[error("a pass over unchanged trees found something to do: that is a defect, please report it")]
    Unsettled,
    #[error("source and destination differ in {path}: {what}; that is a defect, please report it")]
    Differs { path: String, what: &'static str },
}

impl DemoError {
    fn exit_code(&self) -> u8 {
        match self {
            DemoError::File { source, .. } if source.raw_os_error().is_some_and(protocol::stats::is_full) => {
                Exit::Full.code()
            }
            DemoError::File { .. } => Exit::FileIo.code(),
            DemoError::Key(_) | DemoError::Serve(_) | DemoError::Start { .. } => Exit::StartUp.code(),
            DemoError::Interrupted => Exit::Interrupted.code(),
            DemoError::Pass { code, .. } => *code,
            DemoError::Unsettled | DemoError::Differs { .. } => Exit::Differs.code(),
        }
    }
}

/// Adds to an I/O error what was tried, and on what.
fn tried<T>(what: &'static str, path: &Path, result: io::Result<T>) -> Result<T, DemoError> {
    result.map_err(|source| DemoError::File { what, path: path.to_owned(), source })
}

fn demonstrate(environment: &Environment) -> Result<(), DemoError> {
    let stop = signals::stop_on_signals()
        .map_err(|source| DemoError::Start { what: "listening to signals", source })?;
    let place = temporary_directory()?;
    let result = migrate(place.path(), 1, environment, &stop, &mut io::stdout());
    let removed = remove(place);
    match (result, removed) {
        (Err(error), Err(left)) => {
            print_error(&left);
            Err(error)
        }
        (result, removed) => result.and(removed),
    }
}

/// A directory that only this user can enter; said explicitly, for this process has a umask of 0.
fn temporary_directory() -> Result<TempDir, DemoError> {
    let mut builder = tempfile::Builder::new();
    let made = builder.prefix("sync-client-demo-").permissions(Mode::from_mode(0o700)).tempdir();
    tried("make a directory in", &std::env::temp_dir(), made)
}

/// Removes all that was made. The many small files go on several threads: a file system that waits for the
/// disk at each of them (ext4 with `discard`) takes 13 s one by one while two compilers run beside.
fn remove(place: TempDir) -> Result<(), DemoError> {
    let path = place.path().to_owned();
    std::thread::scope(|scope| {
        for (machine, user) in [OLD, NEW].into_iter().flat_map(|machine| USERS.map(|user| (machine, user))) {
            let attachments = path.join(machine).join("attachments").join(user);
            // What is left by this, for whatever reason, is removed or reported below.
            let remover = move || drop(fs::remove_dir_all(attachments));
            let _ = std::thread::Builder::new().spawn_scoped(scope, remover);
        }
    });
    tried("remove", &path, place.close())
}

/// Where the two trees are, below the temporary directory.
const OLD: &str = "old";
const NEW: &str = "new";

/// The whole story, in `place`; the sample has a `divisor`th of its usual number of pages and files.
fn migrate(
    place: &Path,
    divisor: u64,
    environment: &Environment,
    stop: &Receiver<()>,
    out: &mut dyn Write,
) -> Result<(), DemoError> {
    let (source, destination) = (place.join(OLD), place.join(NEW));
    say(out, "A small server's data moves from an old machine to a new one; both are this machine.");
    let mut sample = Sample::create(&source, divisor)?;
    let old = OldMachine::start(place, &source)?;
    describe(out, place, &sample, &old);
    let mut new = NewMachine { old: &old, place, destination: &destination, environment, stop, out };
    new.pass("bulk", bulk())?;
    let changes = sample.change()?;
    say(new.out, &format!("  then at old/: {changes}"));
    new.pass("cold, --delete", cold())?;
    let third = new.pass("again, --delete", SyncOptions { itemize: true, ..cold() })?;
    if !is_settled(&third) {
        return Err(DemoError::Unsettled);
    }
    new.verify()?;
    let started = Instant::now();
    let (theirs, ours) = (Tree::read(&source)?, Tree::read(&destination)?);
    ours.equals(&theirs)?;
    let found = format!("identical: {} entries byte by byte, with modes and times", ours.entries.len());
    say(out, &finding("plain std::fs", &found, started));
    Ok(())
}

/// What an operator types for the same with real hosts, each after a word on when.
const COMMANDS: [(&str, &str); 3] = [
    (
        "while the service is up, as often as you like",
        "sync-client sync -a --numeric-ids root@OLD:/srv/core/ /srv/core/",
    ),
    (
        "the service is stopped: the cold pass",
        "sync-client sync -a --numeric-ids --delete root@OLD:/srv/core/ /srv/core/",
    ),
    (
        "proof before it starts on the new machine",
        "sync-client verify --numeric-ids root@OLD:/srv/core/ /srv/core/",
    ),
];

/// `sync -a --numeric-ids`.
fn bulk() -> SyncOptions {
    SyncOptions {
        recursive: true,
        preserve: Preserve::all(true),
        compression: Compression::Auto,
        ..SyncOptions::default()
    }
}

/// `sync -a --numeric-ids --delete`.
fn cold() -> SyncOptions {
    SyncOptions { delete: Delete { extraneous: true, ..Delete::default() }, ..bulk() }
}

/// `verify --numeric-ids`.
fn comparison() -> SyncOptions {
    SyncOptions {
        recursive: true,
        preserve: Preserve::all(true),
        quick_check: QuickCheck::Checksum,
        delete: Delete { extraneous: true, ..Delete::default() },
        dry_run: true,
        verify: true,
        itemize: true,
        ..SyncOptions::default()
    }
}

/// Whether a pass had nothing at all to do.
fn is_settled(stats: &Stats) -> bool {
    let Stats { created, deleted, files_updated, metadata_updated, .. } = stats;
    let entries = created.total() + deleted.total() + files_updated + metadata_updated;
    entries + stats.literal_bytes + stats.transferred_bytes == 0
}

// What is printed.

fn say(out: &mut dyn Write, line: &str) {
    // Whoever reads this went away: the run and its exit status stay what they are.
    let _ = writeln!(out, "{line}");
}

fn describe(out: &mut dyn Write, place: &Path, sample: &Sample, old: &OldMachine) {
    let database_bytes = sample.database.iter().map(|file| file.bytes).sum();
    let (files, attachments) = (sample.database.len(), sample.attachments.len());
    let data = format!("old/: {files} database files, {}", bytes(database_bytes));
    let attached = format!("{attachments} attachments, {}", bytes(sample.attachment_bytes));
    for (name, text) in [
        ("directory", format!("{} (removed at the end)", place.display())),
        ("old machine", format!("{data}; {attached}")),
        ("", format!("sync-agent behind SSH on {}, held to old/, read-only", old.address)),
        ("its host key", old.fingerprint.clone()),
        ("new machine", "new/: pulls; every byte goes over SSH".to_owned()),
    ] {
        say(out, &format!("  {name:<14}{text}"));
    }
    say(out, "");
    let columns = ["created", "updated", "deleted", "literal", "matched", "on the wire", "time"];
    say(out, &row("pass", columns.map(str::to_owned)));
}

fn row(name: &str, columns: [String; 7]) -> String {
    let [created, updated, deleted, literal, matched, wire, time] = columns;
    format!("{name:<16}{created:>8}{updated:>8}{deleted:>8}{literal:>11}{matched:>11}{wire:>12}{time:>8}")
}

/// A line below the table: its text spans all columns but the last.
fn finding(name: &str, text: &str, started: Instant) -> String {
    format!("{name:<16}{text:<58}{:>8}", seconds(started))
}

fn seconds(started: Instant) -> String {
    format!("{:.2} s", started.elapsed().as_secs_f64())
}

fn farewell(out: &mut dyn Write) {
    say(out, "");
    say(out, "The same with real hosts, on the new machine (sync-agent is on the old one's PATH):");
    for (when, command) in COMMANDS {
        say(out, &format!("  # {when}"));
        say(out, &format!("  {command}"));
    }
}

// The two machines.

/// The operator's side: pulls from the old machine.
struct NewMachine<'a> {
    old: &'a OldMachine,
    place: &'a Path,
    destination: &'a Path,
    environment: &'a Environment,
    stop: &'a Receiver<()>,
    out: &'a mut dyn Write,
}

impl NewMachine<'_> {
    /// One `sync`, with its line in the table.
    fn pass(&mut self, name: &'static str, options: SyncOptions) -> Result<Stats, DemoError> {
        let started = Instant::now();
        let outcome = self.sync(name, options)?;
        let stats = outcome.finished.stats;
        let columns = [
            stats.created.files.to_string(),
            stats.files_updated.to_string(),
            stats.deleted.files.to_string(),
            bytes(stats.literal_bytes),
            bytes(stats.matched_bytes),
            bytes(outcome.sent_bytes + outcome.received_bytes),
            seconds(started),
        ];
        say(self.out, &row(name, columns));
        Ok(stats)
    }

    /// `verify`, with its line.
    fn verify(&mut self) -> Result<(), DemoError> {
        let started = Instant::now();
        let stats = self.sync("verify", comparison())?.finished.stats;
        let (count, bytes) = (stats.compared_files, bytes(stats.compared_bytes));
        let found = format!("identical: {count} files, {bytes}, by BLAKE3 at both ends");
        say(self.out, &finding("verify", &found, started));
        Ok(())
    }

    /// Says what differs only where the options itemize, and problems always, as `sync` and `verify` do.
    fn sync(&self, name: &'static str, options: SyncOptions) -> Result<endpoint::Outcome, DemoError> {
        if self.stop.try_recv() != Err(TryRecvError::Empty) {
            return Err(DemoError::Interrupted);
        }
        let format = options.itemize.then(Format::itemized);
        let output = OutputOptions { format, times: true, ..OutputOptions::default() };
        let around =
            Surroundings { is_utf8: false, is_terminal: false, zone: LocalTime::utc(), umask: 0o022 };
        let console = Console::new(output, Way::Pull, &[], around)
            .map_err(|source| DemoError::Start { what: "the console", source })?;
        let watch = Watch { monitor: &console, progress: console.progress(), stop: self.stop.clone() };
        match endpoint::sync(&self.job(options), &self.own_environment(), &watch) {
            Ok(outcome) => match console.finish(&outcome) {
                0 => Ok(outcome),
                code => Err(DemoError::Pass { pass: name, code }),
            },
            Err(error) if error.exit_code() == Exit::Interrupted.code() => Err(DemoError::Interrupted),
            Err(error) => {
                let code = error.exit_code();
                console.fail(&error, code);
                Err(DemoError::Pass { pass: name, code })
            }
        }
    }

    fn job(&self, options: SyncOptions) -> Job {
        let address = self.old.address;
        let host = Host { user: None, name: address.ip().to_string(), port: Some(address.port()) };
        let connection = Connection {
            ssh: SshArgs { identities_only: true, batch: true, ..SshArgs::default() },
            identities: vec![self.place.join(CLIENT_KEY)],
            known_hosts: vec![self.place.join(KNOWN_HOSTS)],
            agent: b"sync-agent".to_vec(),
            ..Connection::default()
        };
        Job {
            source: Side { host: Some(host), paths: vec![b"./".to_vec()] },
            destination: Side { host: None, paths: vec![self.destination.as_os_str().as_bytes().to_vec()] },
            options,
            connection,
            output: OutputOptions::default(),
            state_dir: None,
            deletes_first: false,
            list: None,
            stop_at: None,
            planned: None,
        }
    }

    /// Without the user's home directory and ssh-agent: the demo has keys of its own.
    fn own_environment(&self) -> Environment {
        let ask: crate::ssh::AskPassphrase = Arc::new(|_| None);
        Environment { home: None, state_dir: None, agent_socket: None, ask, ..self.environment.clone() }
    }
}

const HOST_KEY: &str = "host_ed25519";
const CLIENT_KEY: &str = "client_ed25519";
const AUTHORIZED_KEYS: &str = "authorized_keys";
const KNOWN_HOSTS: &str = "known_hosts";

/// An agent behind an SSH server on loopback, in this process; ended when dropped.
struct OldMachine {
    address: SocketAddr,
    fingerprint: String,
    stopper: Stopper,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

impl OldMachine {
    /// Makes all keys in `place` and serves `source`, and nothing else, to who has the client's.
    fn start(place: &Path, source: &Path) -> Result<OldMachine, DemoError> {
        let client_key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)?;
        write_private(&place.join(CLIENT_KEY), &client_key.to_openssh(LineEnding::LF)?)?;
        let public_key = client_key.public_key().to_openssh()?;
        let authorized_keys = place.join(AUTHORIZED_KEYS);
        write_private(&authorized_keys, &format!("restrict,from=\"127.0.0.1\" {public_key}\n"))?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = Server::bind(&ServeOptions::new(listen, place.join(HOST_KEY), authorized_keys))?;
        let (address, fingerprint, stopper) = (server.local_addr(), server.fingerprint(), server.stopper());
        let known = format!("[{}]:{} {}\n", address.ip(), address.port(), server.public_key_line());
        write_private(&place.join(KNOWN_HOSTS), &known)?;
        let session = agent_session(source)?;
        let serving = std::thread::Builder::new().name("serve".to_owned()).spawn(|| server.run(session));
        let thread = serving.map_err(|source| DemoError::Start { what: "the SSH server", source })?;
        Ok(OldMachine { address, fingerprint, stopper, thread: Some(thread) })
    }
}

impl Drop for OldMachine {
    fn drop(&mut self) {
        self.stopper.stop();
        // A panic has told of itself already.
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            print_error(&error);
        }
    }
}

/// What `sync-agent serve --root SOURCE --read-only` does for each client.
fn agent_session(source: &Path) -> Result<SessionFn, DemoError> {
    let root = tried("open", source, Dir::open(source).map_err(io::Error::from))?;
    let permissions =
        Permissions { root: Some(Arc::new(root)), read_only: true, umask: 0o077, state_dir: None };
    Ok(Arc::new(move |reader, writer| {
        // The client is the one that is stopped; its end ends the session.
        let exit = agent::answer(reader, writer, Further::Never, &permissions, never());
        u32::from(exit.unwrap_or_else(|error| error.exit()).code())
    }))
}

fn write_private(path: &Path, text: &str) -> Result<(), DemoError> {
    let opened = File::options().write(true).create_new(true).mode(0o600).open(path);
    tried("write", path, opened.and_then(|mut file| file.write_all(text.as_bytes())))
}

// The sample.

/// Bytes of a database page.
const PAGE_BYTES: usize = 4096;
/// Files of the data directory by name, with their pages: some 64 MB, most of it in few files.
const DATABASE: [(&str, u64); 11] = [
    ("WiredTiger", 1),
    ("WiredTiger.turtle", 1),
    ("WiredTiger.wt", 40),
    ("_mdb_catalog.wt", 9),
    ("sizeStorer.wt", 9),
    ("collection-0--5577006791947779410.wt", 6000),
    ("collection-2--5577006791947779410.wt", 4000),
    ("collection-4--5577006791947779410.wt", 600),
    ("index-1--5577006791947779410.wt", 1500),
    ("index-3--5577006791947779410.wt", 900),
    ("journal/WiredTigerLog.0000000042", 2560),
];
/// Users with attachments; each has [`EVENTS`] events with [`ATTACHMENTS`] files.
const USERS: [&str; 5] = ["amelie", "björn", "chloe", "dmitri", "esra"];
const EVENTS: u64 = 150;
const ATTACHMENTS: u64 = 2;
/// Attachments are small: from this to [`LARGEST_BYTES`], most of them near the lower end.
const SMALLEST_BYTES: u64 = 200;
const LARGEST_BYTES: u64 = 40_000;
/// Every file's time before it is changed: long ago, so that no pass has to distrust it as just written.
const WRITTEN: Duration = Duration::from_secs(1_700_000_000);
const SEED: u64 = 0x5eed_0000_0000_de30;

/// The old machine's data, and what made it.
struct Sample {
    root: PathBuf,
    divisor: u64,
    random: SplitMix,
    database: Vec<DatabaseFile>,
    attachments: Vec<PathBuf>,
    attachment_bytes: u64,
}

struct DatabaseFile {
    path: PathBuf,
    is_collection: bool,
    bytes: u64,
}

/// What happened at the source between two passes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    rewritten_pages: u64,
    grown_bytes: u64,
    added: u64,
    removed: u64,
}

impl std::fmt::Display for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Changes { rewritten_pages, grown_bytes, added, removed } = self;
        write!(f, "{rewritten_pages} pages rewritten, {} appended, ", bytes(*grown_bytes))?;
        write!(f, "{added} attachments added, {removed} removed")
    }
}

impl Sample {
    fn create(root: &Path, divisor: u64) -> Result<Sample, DemoError> {
        let mut sample = Sample {
            root: root.to_owned(),
            divisor,
            random: SplitMix(SEED),
            database: Vec::new(),
            attachments: Vec::new(),
            attachment_bytes: 0,
        };
        make_dirs(&root.join("data/journal"), 0o700)?;
        for (name, pages) in DATABASE {
            sample.write_database_file(name, pages.div_ceil(divisor))?;
        }
        for user in USERS {
            for _ in 0..EVENTS.div_ceil(divisor) {
                sample.attach(user, ATTACHMENTS)?;
            }
        }
        for attachment in &sample.attachments {
            date(attachment)?;
        }
        Ok(sample)
    }

    fn write_database_file(&mut self, name: &str, pages: u64) -> Result<(), DemoError> {
        let path = self.root.join("data").join(name);
        let content = self.random.content(pages * PAGE_BYTES as u64);
        write_file(&path, &content, 0o600)?;
        date(&path)?;
        let is_collection = name.starts_with("collection-");
        self.database.push(DatabaseFile { path, is_collection, bytes: content.len() as u64 });
        Ok(())
    }

    /// Makes an event of `user`'s with `count` attachments.
    fn attach(&mut self, user: &str, count: u64) -> Result<(), DemoError> {
        let event = self.root.join("attachments").join(user).join(self.random.id());
        make_dirs(&event, 0o755)?;
        for _ in 0..count {
            let range = LARGEST_BYTES - SMALLEST_BYTES + 1;
            let bytes = SMALLEST_BYTES + self.random.below(range) * self.random.below(range) / range;
            let path = event.join(self.random.id());
            let content = self.random.content(bytes);
            write_file(&path, &content, 0o644)?;
            self.attachments.push(path);
            self.attachment_bytes += bytes;
        }
        Ok(())
    }

    /// Does to the source what a live service does between two passes.
    fn change(&mut self) -> Result<Changes, DemoError> {
        let mut changes = Changes::default();
        let collections: Vec<usize> =
            (0..self.database.len()).filter(|&index| self.database[index].is_collection).collect();
        for &index in &collections {
            changes.rewritten_pages += self.rewrite_pages(index)?;
        }
        changes.grown_bytes = self.grow(collections[0])?;
        for user in USERS {
            changes.added += 4;
            self.attach(user, 4)?;
        }
        let gone = self.attachments.swap_remove(self.attachments.len() / 2);
        tried("remove", &gone, fs::remove_file(&gone))?;
        changes.removed += 1;
        Ok(changes)
    }

    /// Writes about 1 % of a file's pages anew, each in its place.
    fn rewrite_pages(&mut self, index: usize) -> Result<u64, DemoError> {
        let DatabaseFile { path, bytes, .. } = &self.database[index];
        let pages = bytes / PAGE_BYTES as u64;
        let rewritten = pages.div_ceil(100);
        let file = tried("open", path, File::options().write(true).open(path))?;
        for _ in 0..rewritten {
            let at = self.random.below(pages) * PAGE_BYTES as u64;
            let page = self.random.content(PAGE_BYTES as u64);
            tried("write", path, file.write_all_at(&page, at))?;
        }
        Ok(rewritten)
    }

    fn grow(&mut self, index: usize) -> Result<u64, DemoError> {
        let DatabaseFile { path, bytes, .. } = &mut self.database[index];
        let more = self.random.content(256_u64.div_ceil(self.divisor) * PAGE_BYTES as u64);
        let appended = File::options().append(true).open(&path).and_then(|mut file| file.write_all(&more));
        tried("write", path, appended)?;
        *bytes += more.len() as u64;
        Ok(more.len() as u64)
    }
}

fn make_dirs(path: &Path, mode: u32) -> Result<(), DemoError> {
    tried("make", path, DirBuilder::new().recursive(true).mode(mode).create(path))
}

fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<(), DemoError> {
    let opened = File::options().write(true).create_new(true).mode(mode).open(path);
    tried("write", path, opened.and_then(|mut file| file.write_all(content)))
}

fn date(path: &Path) -> Result<(), DemoError> {
    let opened = File::options().write(true).open(path);
    tried("date", path, opened.and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH + WRITTEN)))
}

/// Steele, Lea and Flood's SplitMix64: the same numbers on every machine.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// As long as the ids of the platform's events.
    fn id(&mut self) -> String {
        let letters = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let letter = |_| char::from(letters[self.below(letters.len() as u64) as usize]);
        std::iter::once('c').chain((0..24).map(letter)).collect()
    }

    /// Half of it random, half of it the same everywhere, as with documents: zstd makes about half of it.
    fn content(&mut self, bytes: u64) -> Vec<u8> {
        const FIELDS: &[u8] =
            b"\x02streamId\0\x06\0\0\0diary\0\x02type\0\x09\0\0\0note/txt\0\x09created\0\x09modified\0";
        let mut content = Vec::with_capacity(bytes as usize + 128);
        while (content.len() as u64) < bytes {
            content.extend_from_slice(FIELDS);
            (0..8).for_each(|_| content.extend_from_slice(&self.next().to_le_bytes()));
        }
        content.truncate(bytes as usize);
        content
    }
}

// The check that owes nothing to the engine.

/// What stands in a tree, read with `std::fs` alone.
struct Tree {
    root: PathBuf,
    entries: BTreeMap<PathBuf, fs::Metadata>,
}

impl Tree {
    fn read(root: &Path) -> Result<Tree, DemoError> {
        let mut tree = Tree { root: root.to_owned(), entries: BTreeMap::new() };
        let mut left = vec![PathBuf::new()];
        while let Some(path) = left.pop() {
            let full = root.join(&path);
            let metadata = tried("read", &full, fs::symlink_metadata(&full))?;
            if metadata.is_dir() {
                for entry in tried("list", &full, fs::read_dir(&full))? {
                    left.push(path.join(tried("list", &full, entry)?.file_name()));
                }
            }
            tree.entries.insert(path, metadata);
        }
        Ok(tree)
    }

    /// The same names, types, bytes, modes, owners and modification times, the root's too.
    fn equals(&self, other: &Tree) -> Result<(), DemoError> {
        let differs = |path: &Path, what| {
            let path = protocol::path::escaped(path.as_os_str().as_bytes());
            DemoError::Differs { path: if path.is_empty() { ".".to_owned() } else { path }, what }
        };
        let only_one =
            |path: &&PathBuf| !self.entries.contains_key(*path) || !other.entries.contains_key(*path);
        if let Some(path) = self.entries.keys().chain(other.entries.keys()).find(only_one) {
            return Err(differs(path, "it is in one of them only"));
        }
        for (path, ours) in &self.entries {
            let theirs = &other.entries[path];
            if metadata(ours) != metadata(theirs) {
                return Err(differs(path, "type, mode, owner or time"));
            }
            if ours.is_file() && self.content(path)? != other.content(path)? {
                return Err(differs(path, "content"));
            }
        }
        Ok(())
    }

    fn content(&self, path: &Path) -> Result<Vec<u8>, DemoError> {
        let path = self.root.join(path);
        tried("read", &path, fs::read(&path))
    }
}

/// Type and mode, owner, group, modification time.
fn metadata(of: &fs::Metadata) -> (u32, u32, u32, i64, i64) {
    (of.mode(), of.uid(), of.gid(), of.mtime(), of.mtime_nsec())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test's failure is its panic")]
mod tests {
    use super::*;

    /// Small enough for a build without optimization.
    const DIVISOR: u64 = 50;

    fn environment() -> Environment {
        Environment {
            home: None,
            user: "tester".to_owned(),
            agent_socket: None,
            ask: Arc::new(|_| None),
            umask: 0o022,
            state_dir: None,
        }
    }

    fn sample(place: &TempDir, name: &str) -> (Sample, PathBuf) {
        let root = place.path().join(name);
        (Sample::create(&root, DIVISOR).unwrap(), root)
    }

    #[test]
    fn the_small_demo_succeeds_and_says_so() {
        let place = temporary_directory().unwrap();
        let mut out = Vec::new();
        migrate(place.path(), DIVISOR, &environment(), &never(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().filter(|line| line.contains("identical: ")).count(), 2, "{text}");
        assert!(text.contains("on 127.0.0.1:") && text.contains("SHA256:"), "{text}");
    }

    #[test]
    fn a_stopped_demo_ends_before_its_first_pass() {
        let place = temporary_directory().unwrap();
        let (_, stop) = crossbeam_channel::bounded(0);
        let result = migrate(place.path(), DIVISOR, &environment(), &stop, &mut Vec::new());
        assert_eq!(result.unwrap_err().exit_code(), Exit::Interrupted.code());
        assert!(!place.path().join("new").exists());
    }

    #[test]
    fn the_printed_command_lines_ask_for_what_the_demo_did() {
        let parsed = COMMANDS.map(|(_, line)| {
            let matches = crate::args::command().try_get_matches_from(line.split_whitespace()).unwrap();
            match matches.subcommand().unwrap() {
                ("sync", matches) => {
                    crate::job::sync(matches, &crate::job::Given::umask(0o022)).unwrap().options
                }
                (_, matches) => {
                    crate::job::verify(matches, &crate::job::Given::umask(0o022)).unwrap().options
                }
            }
        });
        assert_eq!(parsed, [bulk(), cold(), comparison()]);
    }

    #[test]
    fn the_sample_and_its_changes_are_the_same_each_time() {
        let place = temporary_directory().unwrap();
        let ((mut a, a_root), (mut b, b_root)) = (sample(&place, "a"), sample(&place, "b"));
        for round in 0..2 {
            let contents = [&a_root, &b_root].map(|root| {
                let tree = Tree::read(root).unwrap();
                let files = tree.entries.iter().filter(|(_, metadata)| metadata.is_file());
                files.map(|(path, _)| (path.clone(), tree.content(path).unwrap())).collect::<Vec<_>>()
            });
            assert!(contents[0] == contents[1], "round {round}");
            assert_eq!(a.change().unwrap(), b.change().unwrap());
        }
    }

    #[test]
    fn one_byte_one_mode_or_one_name_is_a_difference() {
        let place = temporary_directory().unwrap();
        let (sample, root) = sample(&place, "a");
        let whole = Tree::read(&root).unwrap();
        whole.equals(&whole).unwrap();
        let (file, gone) = (&sample.attachments[0], &sample.attachments[1]);

        fs::set_permissions(file, Mode::from_mode(0o640)).unwrap();
        assert!(Tree::read(&root).unwrap().equals(&whole).is_err());
        fs::set_permissions(file, Mode::from_mode(0o644)).unwrap();
        Tree::read(&root).unwrap().equals(&whole).unwrap();
        fs::remove_file(gone).unwrap();
        assert!(Tree::read(&root).unwrap().equals(&whole).is_err());
        assert!(whole.equals(&Tree::read(&root).unwrap()).is_err());

        let copy = place.path().join("b");
        fs::create_dir(&copy).unwrap();
        let trees = [[1_u8, 2], [1, 3]].map(|content| {
            write_file(&copy.join("f"), &content, 0o600).unwrap();
            date(&copy.join("f")).unwrap();
            let kept = place.path().join(content[1].to_string());
            fs::rename(&copy, &kept).unwrap();
            fs::create_dir(&copy).unwrap();
            let mut tree = Tree::read(&kept).unwrap();
            tree.entries.remove(Path::new(""));
            tree
        });
        let error = trees[0].equals(&trees[1]).unwrap_err();
        assert!(matches!(&error, DemoError::Differs { path, what: "content" } if path == "f"), "{error}");
    }
}

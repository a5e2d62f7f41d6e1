//! Joins two endpoints, wherever they are: in this process or behind SSH.

use crate::clearing::{self, Once};
use crate::job::{self, Connection, FileList, Job, Side};
use crate::planned::PlanError;
use crate::ssh::system;
use crate::ssh::{self, Family, Process, ProcessOutcome, SshConnection, SshError, SshOptions};
use crossbeam_channel::{Receiver, Sender};
use protocol::ProtocolError;
use protocol::message::{Finished, Message, Report, Role, Start, Token, hello};
use protocol::names::List;
use protocol::options::Compression;
use protocol::stats::Exit;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use sync_agent::agent;
use sync_agent::destination::DestinationEnd;
use sync_agent::error::SessionError;
use sync_agent::index::Index;
use sync_agent::link::{self, Further, Link, LinkState};
use sync_agent::listed;
use sync_agent::monitor::{Monitor, Progress};
use sync_agent::source::SourceEnd;
use sync_agent::sources::Sources;

/// What this program knows of the user, the machine and the terminal; read once, by `main`.
#[derive(Clone)]
pub struct Environment {
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// The user's name.
    pub user: String,
    /// `SSH_AUTH_SOCK`.
    pub agent_socket: Option<PathBuf>,
    /// Asks for a passphrase.
    pub ask: ssh::AskPassphrase,
    /// Where the index of earlier runs is, unless the command line says otherwise.
    pub state_dir: Option<PathBuf>,
    /// The umask this process was started with; it runs with 0.
    pub umask: u16,
}

/// Who watches a run, and how it is stopped.
pub struct Watch<'a> {
    /// Hears of what happens.
    pub monitor: &'a dyn Monitor,
    /// Counts.
    pub progress: &'a Progress,
    /// Becomes readable when the operator stops the run.
    pub stop: Receiver<()>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// What the destination's end says of it.
    pub finished: Finished,
    /// Bytes that this end sent.
    pub sent_bytes: u64,
    /// Bytes that this end received.
    pub received_bytes: u64,
    /// Frames in both directions.
    pub frames: u64,
}

/// A run that could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The connection could not be made.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// The session ended early.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Nothing at the other side answers as an agent.
    #[error(
        "there is no sync-agent at {host}: `{command}` {what}\nCopy the sync-agent program of this release to {host}, into a directory on the PATH that non-interactive logins have (for example: scp sync-agent {host}:/usr/local/bin/), or give its place with --agent-path"
    )]
    NoAgent {
        /// Where.
        host: String,
        /// What was run.
        command: String,
        /// What happened.
        what: String,
    },
    /// Something else speaks first.
    #[error(
        "{host} sent something else before the agent's first word:\n  {seen}\nA login shell that prints is the usual cause: let its start-up file print only where standard output is a terminal"
    )]
    Noise {
        /// Where.
        host: String,
        /// What it sent.
        seen: String,
    },
    /// The connection ended, with last words on the other side's standard error.
    #[error("{error}; the other side said: {said}")]
    Ended {
        /// What this end saw.
        error: SessionError,
        /// What the other end said.
        said: String,
    },
    /// rsync itself answers, not the agent.
    #[error(
        "{host} has rsync, not sync-agent, behind `{command}`: the two do not understand each other\nCopy the sync-agent program of this release to {host} and leave out --rsync-path, or give its place with --agent-path; for a copy with rsync itself, run /usr/bin/rsync here"
    )]
    StockRsync {
        /// Where.
        host: String,
        /// What was run.
        command: String,
    },
    /// What a plan says is no longer what is to be done.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// There is no place for a list that needs none to be written.
    #[error("cannot make a directory in the place for temporary files (TMPDIR)")]
    NoTemporary(#[source] std::io::Error),
    /// A remote shell program that failed.
    #[error("{message}")]
    Shell {
        /// For the shell.
        exit: u8,
        /// For the operator.
        message: String,
    },
}

impl RunError {
    /// `--stop-after`, `--stop-at`.
    #[must_use]
    pub fn time_is_up() -> RunError {
        let message =
            "stopped at the time that --stop-after or --stop-at set; run it again to go on where it stopped";
        SessionError::refused(Exit::Timeout, message).into()
    }

    /// The exit status.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Ssh(error) => error.exit_status(),
            RunError::Session(error) | RunError::Ended { error, .. } => error.exit().code(),
            RunError::NoAgent { .. } => Exit::NoAgent.code(),
            RunError::Noise { .. } => Exit::Incompatible.code(),
            RunError::StockRsync { .. } => Exit::StartUp.code(),
            RunError::Plan(_) => Exit::Refused.code(),
            RunError::NoTemporary(_) => Exit::FileIo.code(),
            RunError::Shell { exit, .. } => *exit,
        }
    }
}

/// Carries out a job: makes the destination what the source is.
///
/// # Errors
/// Why the run could not be finished.
pub fn sync(job: &Job, environment: &Environment, watch: &Watch<'_>) -> Result<Outcome, RunError> {
    if job.output.list_only {
        return list(job, environment, watch);
    }
    let Some((clearing, copying)) = clearing::sessions(job) else { return session(job, environment, watch) };
    let once = Once::new(watch.monitor);
    let progress = Progress::default();
    let first = Watch { monitor: &once, progress: &progress, stop: watch.stop.clone() };
    let cleared = session(&clearing, environment, &first)?;
    let copied = session(&copying, environment, &Watch { progress: watch.progress, ..first })?;
    Ok(clearing::joined(&cleared, copied))
}

/// A dry run into a place where nothing is: whatever the source has is told as new.
fn list(job: &Job, environment: &Environment, watch: &Watch<'_>) -> Result<Outcome, RunError> {
    use std::os::unix::ffi::OsStrExt as _;
    let empty = tempfile::tempdir().map_err(RunError::NoTemporary)?;
    let nowhere = [empty.path().as_os_str().as_bytes(), b"/none/"].concat();
    let job = Job { destination: Side { host: None, paths: vec![nowhere] }, ..job.clone() };
    session(&job, environment, watch)
}

fn session(job: &Job, environment: &Environment, watch: &Watch<'_>) -> Result<Outcome, RunError> {
    match (&job.source.host, &job.destination.host) {
        (None, None) => local(job, environment, watch),
        (Some(_), _) => pull(job, environment, watch),
        (None, Some(_)) => push(job, environment, watch),
    }
}

fn local(job: &Job, environment: &Environment, watch: &Watch<'_>) -> Result<Outcome, RunError> {
    if !job.output.list_only {
        refuse_overlap(job)?;
    }
    let sources = open_sources(job, || Err(SessionError::Panic("list")))?;
    let (source_link, destination_link) = link::in_process();
    let counters = Arc::clone(source_link.outgoing.state());
    counters.limit_bandwidth(job.options.bandwidth_bytes_per_s);
    let index = &index(job, environment);
    let finished = std::thread::scope(|scope| {
        // Problems and progress are told by the destination's end, which hears of both.
        let silent = Forward(source_link.outgoing.clone());
        let source = scope.spawn(move || {
            let progress = Progress::default();
            let (options, stop) = (&job.options, crossbeam_channel::never());
            SourceEnd { sources: &sources, options, monitor: &silent, progress: &progress, index, stop }
                .run(source_link)
        });
        let result = destination_end(job, environment, watch, index).run(destination_link);
        match (result, source.join()) {
            (_, Err(_)) => Err(SessionError::Panic("source")),
            // Of two errors the one that came first is the cause: a peer's is told by the other end.
            (Err(SessionError::Peer(_) | SessionError::Connection(_)), Ok(Err(cause))) => Err(cause),
            (result, Ok(_)) => result,
        }
    })?;
    Ok(outcome(finished, &counters))
}

/// Opens what is copied from this machine; `receive` is for a list that is at the other end.
fn open_sources(
    job: &Job,
    receive: impl FnOnce() -> Result<Vec<u8>, SessionError>,
) -> Result<Sources, SessionError> {
    let received;
    let names = match &job.list {
        None => return Sources::open(None, &job.source.paths, &job.options),
        Some(FileList::Here(names)) => names,
        Some(FileList::There(_)) => {
            received = receive()?;
            &received
        }
    };
    let argument = job.source.paths.first().map_or(&[][..], Vec::as_slice);
    Sources::open_listed(None, argument, names, &job.options)
}

/// Neither a copy into itself, which has no end, nor a deletion of the source is what anybody asks for.
fn refuse_overlap(job: &Job) -> Result<(), SessionError> {
    use std::os::unix::ffi::OsStrExt as _;
    let canonical = |path: &[u8]| std::fs::canonicalize(OsStr::from_bytes(path)).ok();
    let refused = |why: String| Err(SessionError::refused(Exit::Selection, why));
    let argument = job.destination.paths.first().map_or(&[][..], Vec::as_slice);
    // One that is still to be made is where its parent is.
    let to_be_made = || {
        let argument = Path::new(OsStr::from_bytes(argument));
        let parent = argument.parent()?;
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        Some(canonical(parent.as_os_str().as_bytes())?.join(argument.file_name()?))
    };
    let Some(destination) = canonical(argument).or_else(to_be_made) else { return Ok(()) };
    for path in &job.source.paths {
        let base = match job.list {
            // It may name a directory further down to begin at.
            Some(_) => canonical(path)
                .map(|base| if destination.starts_with(&base) { destination.clone() } else { base }),
            None => sync_agent::sources::base(path, &job.options),
        };
        let is_destination =
            base.as_ref() == Some(&destination) || canonical(path).as_ref() == Some(&destination);
        if job.options.removes_source() && is_destination {
            return refused(
                "--remove-source-files would remove what it did not copy: the source and the destination are the same"
                    .to_owned(),
            );
        }
        let Some(source) = canonical(path).filter(|source| source.is_dir()) else { continue };
        let names_contents = sync_agent::sources::names_contents(OsStr::from_bytes(path).as_ref());
        if let Ok(inside) = destination.strip_prefix(&source)
            && !inside.as_os_str().is_empty()
        {
            let top = if names_contents { None } else { source.file_name() };
            let inside = Path::new(top.unwrap_or_default()).join(inside);
            let is_excluded = |path: &Path| {
                job.options.filter.excludes(path.as_os_str().as_bytes(), true, protocol::filter::Side::Sender)
            };
            if !inside.ancestors().any(|path| !path.as_os_str().is_empty() && is_excluded(path)) {
                let (inside, source) = (inside.display(), source.display());
                return refused(format!(
                    "the destination is inside the source {source}: copy to another place, or leave it out with \
                     --exclude=/{inside}"
                ));
            }
        }
        if job.options.delete.extraneous
            && names_contents
            && source.starts_with(&destination)
            && source != destination
        {
            let source = source.display();
            return refused(format!(
                "--delete would remove the source {source}, which is inside the destination"
            ));
        }
    }
    Ok(())
}

/// Tells the other end of what is met here.
struct Forward(link::Outgoing);

impl Monitor for Forward {
    fn item(&self, _: protocol::itemize::Item) {}
    fn problem(&self, problem: protocol::stats::Problem) {
        let _ = self.0.say(&Message::Report(vec![Report::Problem(problem)]));
    }
    fn made_root(&self, _: &[u8]) {}
    fn note(&self, message: &str) {
        let _ = self.0.say(&Message::Report(vec![Report::Note(message.to_owned())]));
    }
}

fn pull(job: &Job, environment: &Environment, watch: &Watch<'_>) -> Result<Outcome, RunError> {
    let list = job.list.as_ref().map(|list| match list {
        FileList::Here(_) => List::Follows,
        FileList::There(file) => List::File(file.clone()),
    });
    let role = Role::Source { arguments: job.source.paths.clone(), list };
    let remote = Remote::start(&job.source, job, role, environment, &watch.stop)?;
    if let Some(FileList::Here(names)) = &job.list {
        listed::send(&remote.link.outgoing, names)?;
    }
    let counters = Arc::clone(remote.link.outgoing.state());
    let index = index(job, environment);
    if job.connection.channels.is_some_and(|count| count > 1) {
        watch.monitor.note(
            "--connections is for a push; this pull went over one channel, whose window suits the line",
        );
    }
    let result = remote.run(|link| destination_end(job, environment, watch, &index).run(link))?;
    Ok(outcome(result, &counters))
}

fn push(job: &Job, environment: &Environment, watch: &Watch<'_>) -> Result<Outcome, RunError> {
    let argument = job.destination.paths.first().cloned().unwrap_or_default();
    let (list, opened) = match &job.list {
        Some(FileList::There(file)) => (Some(file.clone()), None),
        // Before there is a connection, so that what is not there is told at once.
        _ => (None, Some(open_sources(job, || Err(SessionError::Panic("list")))?)),
    };
    let role = Role::Destination { argument, list };
    let remote = Remote::start(&job.destination, job, role, environment, &watch.stop)?;
    let sources = match opened {
        Some(sources) => sources,
        None => open_sources(job, || listed::receive(&remote.link)).map_err(|error| remote.explain(error))?,
    };
    let counters = Arc::clone(remote.link.outgoing.state());
    let end = SourceEnd {
        sources: &sources,
        options: &job.options,
        monitor: watch.monitor,
        progress: watch.progress,
        index: &index(job, environment),
        stop: watch.stop.clone(),
    };
    let result = remote.run(|link| end.run(link))?;
    Ok(outcome(result, &counters))
}

fn outcome(finished: Finished, counters: &LinkState) -> Outcome {
    let (sent_bytes, received_bytes) = (counters.sent_bytes(), counters.received_bytes());
    Outcome { finished, sent_bytes, received_bytes, frames: counters.frames() }
}

/// This end's index; of a local run both ends share it.
fn index(job: &Job, environment: &Environment) -> Index {
    agent::index_for(
        job.state_dir.as_ref().or(environment.state_dir.as_ref()).map(PathBuf::as_path),
        &job.options,
    )
}

fn destination_end<'a>(
    job: &'a Job,
    environment: &Environment,
    watch: &'a Watch<'a>,
    index: &'a Index,
) -> DestinationEnd<'a> {
    DestinationEnd {
        argument: job.destination.paths.first().map_or(&[][..], Vec::as_slice),
        root: None,
        options: &job.options,
        monitor: watch.monitor,
        progress: watch.progress,
        index,
        umask: environment.umask,
        stop: watch.stop.clone(),
    }
}

/// An agent behind SSH that has said hello and was told what to do.
pub(crate) struct Remote {
    pub(crate) link: Link,
    host: String,
    command: String,
    outcome: ProcessOutcome,
    is_builtin: bool,
}

/// How long the other side may take to tell how its program ended.
const ENDING: Duration = Duration::from_secs(3);
/// How this program introduces itself.
const PROGRAM: &str = concat!("sync-client ", env!("CARGO_PKG_VERSION"));

impl Remote {
    /// Connects, unless the operator stops the run first.
    pub(crate) fn start(
        side: &Side,
        job: &Job,
        role: Role,
        environment: &Environment,
        stop: &Receiver<()>,
    ) -> Result<Remote, RunError> {
        let start = Start { role, options: job.options.clone() };
        if !start.fits_a_frame() {
            let message =
                "the arguments and filter rules are too long for one run; split it, or shorten them";
            return Err(SessionError::refused(Exit::Usage, message).into());
        }
        let (side, connection, environment) = (side.clone(), job.connection.clone(), environment.clone());
        let limit = job.options.bandwidth_bytes_per_s;
        let (connected, connecting) = crossbeam_channel::bounded(1);
        std::thread::spawn(move || {
            let _ = connected.send(Remote::connect(&side, &connection, &environment, start, limit));
        });
        crossbeam_channel::select! {
            recv(connecting) -> remote => remote.unwrap_or(Err(SessionError::Panic("connect").into())),
            recv(stop) -> _ => Err(SessionError::Interrupted.into()),
        }
    }

    fn connect(
        side: &Side,
        connection: &Connection,
        environment: &Environment,
        mut start: Start,
        limit_bytes_per_s: u64,
    ) -> Result<Remote, RunError> {
        let host = side.host.as_ref().map(|host| host.name.clone()).unwrap_or_default();
        let mut command = connection.agent.clone();
        command.extend_from_slice(b" --stdio");
        // Not known through another program.
        let mut is_near = None;
        let mut further = None;
        let process = match &connection.program {
            Some(program) => spawn_shell(program, side, connection)?,
            None => {
                let connected = SshConnection::connect(&ssh_options(side, connection, environment))?;
                is_near = Some(connected.is_near());
                let process = connected.exec(&command)?;
                further = MoreChannels::wanted(connected, connection.channels, &start.role);
                process
            }
        };
        if limit_bytes_per_s == 0 && start.options.compression == Compression::Auto {
            start.options.compression = match is_near {
                Some(true) => Compression::None,
                Some(false) => Compression::AutoFar,
                None => Compression::Auto,
            };
        }
        let Process { reader, writer, outcome } = process;
        let (joined, joining) = crossbeam_channel::bounded(1);
        let remote = Remote {
            link: link::over_streams(reader, writer, Further::Writing(joining)),
            host,
            command: String::from_utf8_lossy(&command).into_owned(),
            outcome,
            is_builtin: connection.program.is_none(),
        };
        let greeting = match connection.timeout_s {
            0 => agent::START_DEADLINE,
            seconds => agent::START_DEADLINE.min(Duration::from_secs(u64::from(seconds))),
        };
        let outgoing = &remote.link.outgoing;
        let begun = outgoing
            .say(&Message::Hello(hello(PROGRAM)))
            .and_then(|()| outgoing.say(&Message::Start(Box::new(start))))
            .and_then(|()| further.map_or(Ok(()), |further| further.invite(command, outgoing, joined)))
            .and_then(|()| agent::greet(&remote.link, PROGRAM, greeting));
        remote.link.outgoing.state().limit_bandwidth(limit_bytes_per_s);
        match is_near {
            Some(true) => remote.link.outgoing.state().set_near(),
            Some(false) => remote.link.outgoing.state().presume_far(),
            None => {}
        }
        match begun {
            Ok(()) => Ok(remote),
            Err(error) => Err(remote.explain(error)),
        }
    }

    fn run<T>(self, end: impl FnOnce(Link) -> Result<T, SessionError>) -> Result<T, RunError> {
        let Remote { link, host, command, outcome, is_builtin } = self;
        let result = end(link);
        match result {
            Ok(value) => {
                // The agent ends by itself once it has the last word.
                let _ = outcome.wait(ENDING);
                Ok(value)
            }
            Err(error) => Err(explain(error, &host, &command, &outcome, is_builtin)),
        }
    }

    /// Ends the connection and waits for the agent's end.
    pub(crate) fn close(self) {
        drop(self.link);
        let _ = self.outcome.wait(ENDING);
    }

    pub(crate) fn explain(&self, error: SessionError) -> RunError {
        explain(error, &self.host, &self.command, &self.outcome, self.is_builtin)
    }
}

/// Further channels that a session is to go over.
struct MoreChannels {
    connected: SshConnection,
    count: usize,
}

impl MoreChannels {
    /// As many as the operator says, or as the round trip needs; none where one channel does.
    fn wanted(connected: SshConnection, given: Option<u8>, role: &Role) -> Option<MoreChannels> {
        let count = given.map_or_else(|| connected.channels(), usize::from);
        // A source is asked for little, and what it sends needs no more than one.
        (count > 1 && !matches!(role, Role::Source { .. })).then_some(MoreChannels { connected, count })
    }

    /// Lets them join the session, which goes on over the first one until they are there.
    fn invite(
        self,
        command: Vec<u8>,
        outgoing: &link::Outgoing,
        joined: Sender<link::Joined>,
    ) -> Result<(), SessionError> {
        let mut token = Token::default();
        if rustix::rand::getrandom(&mut token, rustix::rand::GetRandomFlags::empty()) != Ok(token.len()) {
            // Without a secret nobody is invited.
            return Ok(());
        }
        outgoing.say(&Message::Invite(token))?;
        std::thread::spawn(move || {
            let further = ssh::join(&self.connected, &command, self.count, &token);
            if !further.is_empty() {
                // A session that has ended meanwhile does not need them.
                let _ = joined.send(further);
            }
        });
        Ok(())
    }
}

/// What an error of the session means, seen with how the other side's program ended.
fn explain(
    error: SessionError,
    host: &str,
    command: &str,
    outcome: &ProcessOutcome,
    is_builtin: bool,
) -> RunError {
    let (host, command) = (host.to_owned(), command.to_owned());
    match error {
        SessionError::Protocol(ProtocolError::NotThisProtocol { seen }) => {
            if seen.contains("not found") || seen.contains("No such file") {
                return RunError::NoAgent { host, command, what: format!("answered: {seen}") };
            }
            RunError::Noise { host, seen }
        }
        SessionError::Connection(_) | SessionError::NothingSaid => {
            let ended = outcome.wait(ENDING);
            let tail = outcome.stderr_tail();
            let said = protocol::path::escaped(tail.trim_ascii());
            let is_silent = matches!(error, SessionError::NothingSaid);
            match ended {
                Some(exit) if !is_builtin && system::exit_status(&exit, &tail).is_some() => {
                    let code = system::exit_status(&exit, &tail).unwrap_or(Exit::Connection.code());
                    RunError::Shell { exit: code, message: format!("the remote shell failed: {said}") }
                }
                Some(ssh::Exit::Status(1)) if is_silent && said.contains("--stdio: unknown option") => {
                    RunError::StockRsync { host, command }
                }
                Some(ssh::Exit::Status(126 | 127)) => {
                    RunError::NoAgent { host, command, what: format!("failed: {said}") }
                }
                Some(ssh::Exit::Status(status)) if is_silent => {
                    RunError::NoAgent { host, command, what: format!("ended with status {status}: {said}") }
                }
                _ if said.is_empty() => error.into(),
                _ => RunError::Ended { error, said },
            }
        }
        other => other.into(),
    }
}

/// The operator's remote shell with what it is to run on the other side: words in rsync's order, for programs that
/// are no ssh and take each as it is (`docker exec -i`).
pub(crate) fn shell_words(
    program: &[OsString],
    side: &Side,
    family: Family,
    command: &[&[u8]],
) -> Vec<OsString> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut words = program.to_vec();
    let is_ssh = program.first().is_some_and(job::is_ssh);
    if let Some(host) = &side.host {
        if let Some(port) = host.port {
            words.extend([OsString::from("-p"), port.to_string().into()]);
        }
        if let Some(user) = &host.user {
            words.extend([OsString::from("-l"), user.into()]);
        }
        match family {
            Family::V4 if is_ssh => words.push("-4".into()),
            Family::V6 if is_ssh => words.push("-6".into()),
            _ => {}
        }
        words.push(host.name.clone().into());
    }
    words.extend(command.iter().map(|word| OsString::from_vec(word.to_vec())));
    words
}

fn spawn_shell(program: &[OsString], side: &Side, connection: &Connection) -> Result<Process, RunError> {
    let words = shell_words(program, side, connection.family, &[&connection.agent, b"--stdio"]);
    let to_stderr: ssh::StderrSink = Arc::new(|bytes| {
        use std::io::Write as _;
        let _ = std::io::stderr().write_all(bytes);
    });
    system::spawn(&words, to_stderr).map_err(|error| RunError::Shell {
        exit: Exit::StartUp.code(),
        message: format!("cannot start the remote shell {}: {error}", program[0].display()),
    })
}

pub(crate) fn ssh_options(side: &Side, connection: &Connection, environment: &Environment) -> SshOptions {
    let host = side.host.as_ref();
    let user = host.and_then(|host| host.user.clone()).or_else(|| connection.ssh.user.clone());
    let user = user.unwrap_or_else(|| environment.user.clone());
    let name = host.map_or("localhost", |host| host.name.as_str());
    let at_home = |path: &std::path::Path| match (path.strip_prefix("~"), &environment.home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    };
    let mut options = SshOptions::new(&user, name);
    options.port = host.and_then(|host| host.port).or(connection.port).or(connection.ssh.port).unwrap_or(22);
    let identities = connection.identities.iter().chain(&connection.ssh.identities);
    options.identities = identities.map(|path| at_home(path)).collect();
    options.identities_only = connection.ssh.identities_only;
    options.agent_socket = environment.agent_socket.clone();
    options.known_hosts =
        connection.known_hosts.iter().chain(&connection.ssh.known_hosts).map(|path| at_home(path)).collect();
    if let Some(home) = &environment.home {
        let names = ["id_ed25519", "id_ecdsa", "id_rsa"];
        options.default_identities = names.iter().map(|name| home.join(".ssh").join(name)).collect();
        if options.known_hosts.is_empty() {
            options.known_hosts = vec![home.join(".ssh/known_hosts"), "/etc/ssh/ssh_known_hosts".into()];
        }
    }
    options.pinned = connection.pinned.clone();
    options.accept_new = connection.accept_new || connection.ssh.accept_new == Some(true);
    options.family = connection.family;
    options.own_address = connection.address;
    let given_s = connection.connect_timeout_s.map(u64::from).or(connection.ssh.connect_timeout_s);
    let connect_s = given_s.unwrap_or(match connection.timeout_s {
        0 => 30,
        seconds => u64::from(seconds.max(10)),
    });
    options.connect_timeout = Duration::from_secs(connect_s);
    if !connection.ssh.batch {
        options.ask = Arc::clone(&environment.ask);
    }
    options.stderr = Arc::new(|bytes| {
        use std::io::Write as _;
        let _ = std::io::stderr().write_all(bytes);
    });
    options
}

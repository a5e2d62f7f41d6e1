//! The agent's side of a session: says hello, does what the client asks within what it is allowed.

use crate::bench::BenchEnd;
use crate::destination::DestinationEnd;
use crate::error::SessionError;
use crate::index::Index;
use crate::link::{self, Further, Link, Outgoing};
use crate::listed;
use crate::monitor::{Monitor, Progress};
use crate::source::SourceEnd;
use crate::sources::Sources;
use crate::tree::Dir;
use crossbeam_channel::Receiver;
use protocol::itemize::Item;
use protocol::message::{self, Message, Report, Role, Start};
use protocol::names::List;
use protocol::options::SyncOptions;
use protocol::stats::{Exit, Problem};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What this agent may do.
#[derive(Debug, Clone, Default)]
pub struct Permissions {
    /// The only directory it touches, if it is held to one.
    pub root: Option<Arc<Dir>>,
    /// It is never a destination.
    pub read_only: bool,
    /// Bits that new entries don't get where modes are not preserved.
    pub umask: u16,
    /// Where the index of earlier runs is, if it may keep one.
    pub state_dir: Option<PathBuf>,
}

/// The index for a run; none where it is not wanted, where nothing may change, and for `verify`, which reads
/// everything.
#[must_use]
pub fn index_for(state_dir: Option<&Path>, options: &SyncOptions) -> Index {
    match state_dir {
        Some(dir) if !options.without_index && !options.dry_run && !options.verify => Index::at(dir),
        _ => Index::disabled(),
    }
}

/// How long either end may take to say hello, and a client to say what it wants.
pub const START_DEADLINE: Duration = Duration::from_secs(30);
/// How this program introduces itself.
pub const PROGRAM: &str = concat!("sync-agent ", env!("CARGO_PKG_VERSION"));

/// Serves one client over a pair of byte streams, and further channels if they may come; returns the exit status.
pub fn answer(
    reader: Box<dyn Read + Send>,
    writer: Box<dyn Write + Send>,
    further: Further,
    permissions: &Permissions,
    stop: Receiver<()>,
) -> Result<Exit, SessionError> {
    let link = link::over_streams(reader, writer, further);
    let (outgoing, end) = (link.outgoing.clone(), link.end.clone());
    let result = hello(&link).and_then(|start| serve(link, &start, permissions, stop));
    // What ends a session itself has told the client; before there is one, it is told here.
    if let Err(
        error @ (SessionError::Refused { .. } | SessionError::Protocol(_) | SessionError::FileIo { .. }),
    ) = &result
    {
        outgoing.say_within(&Message::Abort(error.to_abort()), link::LAST_WORD);
    }
    drop(outgoing);
    end.wait(END_DEADLINE);
    result
}

/// How long the client may take to read the last word.
const END_DEADLINE: Duration = Duration::from_secs(10);

fn hello(link: &Link) -> Result<Start, SessionError> {
    link.outgoing.say(&Message::Hello(message::hello(PROGRAM)))?;
    greet(link, PROGRAM, START_DEADLINE)?;
    match link.incoming.message_within(START_DEADLINE)? {
        Message::Start(start) => Ok(*start),
        other => Err(unexpected(&other, "the client must say what to do first")),
    }
}

/// Reads the peer's hello, within `deadline`, and checks that both speak the same version.
///
/// # Errors
/// Something else came, or versions that have nothing in common.
pub fn greet(link: &Link, program: &str, deadline: Duration) -> Result<(), SessionError> {
    let theirs = match link.incoming.message_within(deadline)? {
        Message::Hello(hello) => hello,
        Message::Abort(abort) => return Err(SessionError::Peer(abort)),
        other => return Err(unexpected(&other, "a hello must come first")),
    };
    if (theirs.oldest..=theirs.newest).contains(&message::VERSION) {
        return Ok(());
    }
    let theirs_program = protocol::path::escaped(theirs.program.as_bytes());
    let exit = Exit::Incompatible;
    let message = format!(
        "{program} speaks version {} of the protocol, the other side ({theirs_program}) versions {} to {}; \
         install the same release at both ends",
        message::VERSION,
        theirs.oldest,
        theirs.newest
    );
    Err(SessionError::refused(exit, message))
}

fn unexpected(message: &Message, why: &'static str) -> SessionError {
    SessionError::Protocol(protocol::ProtocolError::Unexpected { what: message.name(), why })
}

fn serve(
    link: Link,
    start: &Start,
    permissions: &Permissions,
    stop: Receiver<()>,
) -> Result<Exit, SessionError> {
    let monitor = ReportingMonitor(link.outgoing.clone());
    let progress = Progress::default();
    let options = &start.options;
    let index = index_for(permissions.state_dir.as_deref(), options);
    link.outgoing.state().limit_bandwidth(options.bandwidth_bytes_per_s);
    match &start.role {
        Role::Source { .. } if permissions.read_only && options.removes_source() => {
            let message = "this agent is read-only (--read-only): --remove-source-files is not for it";
            Err(SessionError::refused(Exit::StartUp, message))
        }
        Role::Source { arguments, list } => {
            let root = permissions.root.as_deref();
            let sources = match list {
                None => Sources::open(root, arguments, options)?,
                Some(list) => {
                    let names = match list {
                        List::Follows => listed::receive(&link)?,
                        List::File(file) => listed::read(root, file)?,
                    };
                    let argument = arguments.first().map_or(&[][..], Vec::as_slice);
                    Sources::open_listed(root, argument, &names, options)?
                }
            };
            let end = SourceEnd {
                sources: &sources,
                options,
                monitor: &monitor,
                progress: &progress,
                index: &index,
                stop,
            };
            end.run(link).map(|finished| finished.exit)
        }
        Role::Destination { .. } if permissions.read_only => {
            let message = "this agent is read-only (--read-only): it can be a source, not a destination";
            Err(SessionError::refused(Exit::StartUp, message))
        }
        Role::Destination { argument, list } => {
            if let Some(file) = list {
                listed::send(&link.outgoing, &listed::read(permissions.root.as_deref(), file)?)?;
            }
            let end = DestinationEnd {
                argument,
                root: permissions.root.as_deref(),
                options,
                monitor: &monitor,
                progress: &progress,
                index: &index,
                umask: permissions.umask,
                stop,
            };
            end.run(link).map(|finished| finished.exit)
        }
        Role::Bench { argument } => {
            let read_only = permissions.read_only.then_some("this agent is read-only (--read-only)");
            let end = BenchEnd::open(permissions.root.as_deref(), argument, read_only)?;
            end.serve(&link, options.timeout_s, &stop)
        }
    }
}

/// Tells the client at the other end. A link that is gone ends the session by itself.
struct ReportingMonitor(Outgoing);

impl ReportingMonitor {
    fn report(&self, report: Report) {
        let _ = self.0.say(&Message::Report(vec![report]));
    }
}

impl Monitor for ReportingMonitor {
    fn item(&self, item: Item) {
        self.report(Report::Item(item));
    }

    fn problem(&self, problem: Problem) {
        self.report(Report::Problem(problem));
    }

    fn made_root(&self, path: &[u8]) {
        self.report(Report::MadeRoot(path.to_vec()));
    }

    fn note(&self, message: &str) {
        self.report(Report::Note(message.to_owned()));
    }
}

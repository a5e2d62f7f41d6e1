//! Why a session ends before it is done.

use protocol::ProtocolError;
use protocol::message::Abort;
use protocol::stats::Exit;
use std::io;

/// A fatal error: the session is over. What concerns one entry only is a
/// [`Problem`](protocol::stats::Problem) instead, and the run goes on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The peer broke the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The peer said why it ends.
    #[error("{}", .0.message)]
    Peer(Abort),
    /// The connection broke.
    #[error("the connection was lost: {0}")]
    Connection(io::Error),
    /// The connection ended before the peer said anything.
    #[error("the other side ended before it said anything")]
    NothingSaid,
    /// Nothing was heard for too long.
    #[error("nothing heard from the other side for {seconds} s; giving up (--timeout)")]
    Timeout {
        /// The limit.
        seconds: u32,
    },
    /// A disk refused something that concerns the whole run.
    #[error("cannot {what}: {cause}")]
    FileIo {
        /// What was tried, and on what.
        what: String,
        /// The system's answer.
        cause: io::Error,
    },
    /// The operator stopped it.
    #[error("stopped by a signal; run it again to go on where it stopped")]
    Interrupted,
    /// Anything else that ends a run, with its exit status.
    #[error("{message}")]
    Refused {
        /// For the shell.
        exit: Exit,
        /// For the operator.
        message: String,
    },
    /// A defect in this program.
    #[error("internal error: {0} panicked; this is a defect, nothing it was doing was committed")]
    Panic(&'static str),
}

impl SessionError {
    /// An I/O error of the run as a whole.
    pub fn io(what: impl Into<String>, cause: impl Into<io::Error>) -> SessionError {
        SessionError::FileIo { what: what.into(), cause: cause.into() }
    }

    /// A refusal.
    pub fn refused(exit: Exit, message: impl Into<String>) -> SessionError {
        SessionError::Refused { exit, message: message.into() }
    }

    /// The exit status.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            SessionError::Protocol(_) | SessionError::Panic(_) => Exit::Protocol,
            SessionError::Peer(abort) => abort.exit,
            SessionError::Connection(_) | SessionError::NothingSaid => Exit::Connection,
            SessionError::Timeout { .. } => Exit::Timeout,
            SessionError::FileIo { cause, .. } => match cause.raw_os_error() {
                Some(errno) if protocol::stats::is_full(errno) => Exit::Full,
                _ => Exit::FileIo,
            },
            SessionError::Interrupted => Exit::Interrupted,
            SessionError::Refused { exit, .. } => *exit,
        }
    }

    /// What to tell the peer.
    #[must_use]
    pub fn to_abort(&self) -> Abort {
        Abort { exit: self.exit(), message: self.to_string() }
    }
}

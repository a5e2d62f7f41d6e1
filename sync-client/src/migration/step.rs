//! The steps of a migration and their order: the one place where a step is added.
//!
//! A step knows its command's name, whether the journal shows it as done, what it would do, and how to do it. `migrate`
//! walks through [`all`]; each is also a command of its own.

use super::files::host_error;
use super::host::HostError;
use super::journal::JournalError;
use super::plan::PlanError;
use super::position::Position;
use super::run::Run;
use super::{bulk, check, cold, proxy, register};
use crate::endpoint::RunError;
use crate::job::UsageError;
use crate::place::FileError;
use crate::probe::ProbeError;
use protocol::stats::Exit;
use std::path::PathBuf;

/// A command of the migration that `migrate` runs in its turn.
pub(crate) trait Step {
    /// The command.
    fn name(&self) -> &'static str;

    /// What the operator types for it.
    fn command(&self) -> &'static str {
        self.name()
    }

    /// Whether `migrate` may pass it over.
    fn is_done(&self, position: &Position) -> bool {
        position.done.iter().any(|step| step == self.name())
    }

    /// What [`Step::run`] would do, a line each. It may look at both machines, and changes nothing.
    fn rehearse(&self, run: &mut Run<'_>) -> Result<Vec<String>, StepError>;

    /// Does it, or says why not. Can be repeated.
    fn carry_out(&self, run: &mut Run<'_>) -> Result<(), StepError>;

    /// Rehearses or carries out, as the operator asked; the journal knows when it began and how it ended.
    fn run(&self, run: &mut Run<'_>) -> Result<(), StepError> {
        if run.settings.dry_run {
            let lines = self.rehearse(run)?;
            lines.iter().for_each(|line| run.say.note(&format!("would {line}")));
            return Ok(());
        }
        run.recorded(self.name(), |run| self.carry_out(run))
    }
}

/// Every step, in the order of the procedure.
pub(crate) fn all() -> Vec<Box<dyn Step>> {
    vec![
        Box::new(check::Check),
        Box::new(bulk::Bulk),
        Box::new(cold::Cold),
        Box::new(proxy::Enable),
        Box::new(register::Set),
    ]
}

/// Why a step did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// It would do harm, or can't be done; the message says what to do.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("{0}")]
    Usage(#[from] UsageError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A pass could not be finished.
    #[error("data set {set}: the pass could not be finished")]
    Run { set: String, source: RunError },
    /// A pass ended with problems.
    #[error("data set {set}: {message}")]
    Pass { set: String, exit: Exit, message: String },
    #[error("{host}")]
    File { host: String, source: FileError },
    #[error("cannot write the report {}", path.display())]
    Report { path: PathBuf, source: std::io::Error },
    /// The reason was printed already.
    #[error("not finished; {what}")]
    Told { what: &'static str, exit_code: u8 },
    #[error("stopped by a signal; `sync-client status` says where the migration stands")]
    Interrupted,
}

impl StepError {
    pub(crate) fn refused(message: impl Into<String>) -> StepError {
        StepError::Refused(message.into())
    }

    /// The exit status.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            StepError::Refused(_) => Exit::Refused.code(),
            StepError::Plan(_) | StepError::Usage(_) => Exit::Usage.code(),
            StepError::Journal(JournalError::Busy { .. }) => Exit::Busy.code(),
            StepError::Journal(JournalError::Io { .. }) => Exit::FileIo.code(),
            StepError::Journal(_) => Exit::Refused.code(),
            StepError::Host(error) => error.exit_code(),
            StepError::Probe(error) => error.exit_code(),
            StepError::Run { source, .. } => source.exit_code(),
            StepError::Pass { exit, .. } => exit.code(),
            StepError::File { source, .. } => {
                host_error(source).map_or_else(|| source.exit().code(), HostError::exit_code)
            }
            StepError::Report { .. } => Exit::FileIo.code(),
            StepError::Told { exit_code, .. } => *exit_code,
            StepError::Interrupted => Exit::Interrupted.code(),
        }
    }
}

//! How the commands that change something ask the operator first. Only `main` knows the terminal and hands this in.

use clap::ArgMatches;
use crossbeam_channel::Receiver;
use protocol::stats::Exit;
use std::io;
use sync_agent::signals;

/// The operator's terminal.
#[derive(Clone, Copy)]
pub struct Prompts {
    /// Asks a question to be answered by yes or no; none where there is no terminal.
    pub confirm: fn(&str) -> Option<bool>,
    /// Asks for what must not be seen; none where there is no terminal.
    pub secret: fn(&str) -> Option<String>,
    /// Whether a person reads standard output, who must not be sent control characters.
    pub is_shown: bool,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum PromptError {
    #[error("not agreed to; nothing was changed")]
    Declined,
    #[error(
        "there is no terminal to ask on: give --yes to go ahead, --dry-run to see what would be done; nothing was changed"
    )]
    NobodyToAsk,
    #[error("cannot listen to signals")]
    Signals(#[source] io::Error),
}

impl PromptError {
    /// The status that this ends a command with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            PromptError::Signals(_) => Exit::StartUp,
            _ => Exit::Refused,
        }
    }
}

impl Prompts {
    /// Goes on only if the operator agrees, now or by `--yes` beforehand; from then on signals are held.
    ///
    /// # Errors
    /// Nobody agreed.
    pub fn agree(&self, matches: &ArgMatches, question: &str) -> Result<Receiver<()>, PromptError> {
        if !matches.get_flag("yes") {
            match (self.confirm)(question) {
                Some(true) => {}
                Some(false) => return Err(PromptError::Declined),
                None => return Err(PromptError::NobodyToAsk),
            }
        }
        hold_signals()
    }
}

/// From here on a signal no longer ends the program between two writes: it closes the channel instead. A second one
/// does end it.
///
/// # Errors
/// The signals can't be caught.
pub fn hold_signals() -> Result<Receiver<()>, PromptError> {
    signals::stop_on_signals().map_err(PromptError::Signals)
}

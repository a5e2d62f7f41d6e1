//! What a step prints: lines for a person on standard output, or one JSON object a line.

use super::step::StepError;
use crate::console::{Lines, with_causes};
use serde_json::{Value, json};
use std::io::{self, Write as _};

/// Prints for one command.
pub(crate) struct Say {
    json: bool,
}

impl Say {
    pub(crate) fn new(json: bool) -> Say {
        Say { json }
    }

    /// Text as it is, whatever the format.
    pub(crate) fn raw(&self, text: String) {
        let _ = io::stdout().lock().write_all(text.as_bytes());
    }

    /// A line for a person; with `--json` an event `note`.
    pub(crate) fn note(&self, text: &str) {
        if self.json {
            return self.event(&json!({"event": "note", "message": text}));
        }
        self.print(text);
    }

    /// `text` for a person, `event` for a program.
    pub(crate) fn tell(&self, text: &str, event: &Value) {
        if self.json { self.event(event) } else { self.print(text) }
    }

    /// A line that only a person needs.
    pub(crate) fn line(&self, text: &str) {
        if !self.json {
            self.print(text);
        }
    }

    /// For what the commands on files at hand print as well.
    pub(crate) fn lines(&self) -> Lines {
        Lines { json: self.json, is_shown: true }
    }

    /// The last line of `--json`.
    pub(crate) fn summary(&self, command: &str, code: u8, error: Option<&StepError>) {
        if self.json {
            let message = error.map(|error| with_causes(error));
            self.event(&json!({"event": "summary", "command": command, "error": message, "exit_code": code}));
        }
    }

    fn event(&self, event: &Value) {
        self.print(&event.to_string());
    }

    fn print(&self, line: &str) {
        // Whoever reads this went away: the step itself goes on.
        let _ = writeln!(io::stdout().lock(), "{line}");
    }
}

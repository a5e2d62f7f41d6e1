//! What the operator reads: what moves, what stays and why, and the change as a unified diff.

use crate::nginx::{Edited, Overview, Remark, Restored, Target};
use protocol::path::escape;
use serde_json::{Value, json};
use similar::TextDiff;
use std::io::{self, Write as _};
use std::path::Path;

/// Prints, for people or for programs.
pub(super) struct Reporter {
    pub(super) json: bool,
    /// Control characters of the file are for no terminal.
    pub(super) is_terminal: bool,
}

/// How a command ended well.
pub(super) enum Done<'a> {
    /// The file is as it is to be.
    Already,
    /// It would be changed.
    DryRun,
    /// It is changed, on disk.
    Written { backup: Option<&'a Path>, is_tested: bool },
}

impl Reporter {
    /// What an edit does.
    pub(super) fn edited(&self, path: &Path, edited: &Edited, target: &Target) {
        let to = target.address.as_str();
        if self.json {
            for moved in &edited.moved {
                object(
                    json!({"event": "upstream", "line": moved.line, "name": moved.name, "servers": moved.servers, "to": to}),
                );
            }
            for pass in &edited.passes {
                object(json!({"event": "proxy_pass", "line": pass.line, "from": pass.from, "to": pass.to}));
            }
            let remarks = |event: &str, remarks: &[Remark]| {
                for remark in remarks {
                    object(
                        json!({"event": event, "line": remark.line, "what": remark.what, "why": remark.why}),
                    );
                }
            };
            remarks("left", &edited.left);
            remarks("note", &edited.notes);
            return;
        }
        note(&format!("{}: to {to} (lines are those of the file without the edit)", path.display()));
        for moved in &edited.moved {
            note(&format!(
                "  line {}: upstream {}, now {}",
                moved.line,
                moved.name,
                moved.servers.join(" | ")
            ));
        }
        for pass in &edited.passes {
            note(&format!("  line {}: {} becomes {}", pass.line, pass.from, pass.to));
        }
        for (title, remarks) in [("Left as it is:", &edited.left), ("To know:", &edited.notes)] {
            if !remarks.is_empty() {
                note(title);
            }
            for remark in remarks {
                note(&format!("  line {}: {}: {}", remark.line, remark.what, remark.why));
            }
        }
    }

    /// What undoing does.
    pub(super) fn restored(&self, path: &Path, restored: &Restored) {
        if self.json {
            object(json!({"event": "undone", "to": restored.to, "parts": restored.parts}));
        } else {
            let (to, parts) = (&restored.to, restored.parts);
            note(&format!("{}: no longer to {to}, {parts} places as they were", path.display()));
        }
    }

    /// What a file says.
    pub(super) fn overview(&self, path: &Path, overview: &Overview) {
        if self.json {
            for upstream in &overview.upstreams {
                let passes: Vec<Value> =
                    upstream.passes.iter().map(|(line, url)| json!({"line": line, "to": url})).collect();
                object(json!({"event": "upstream", "line": upstream.line, "name": upstream.name,
                    "servers": upstream.servers, "proxy_passes": passes}));
            }
            return object(
                json!({"event": "summary", "file": shown(path), "is_enabled": overview.to.is_some(),
                "to": overview.to, "exit_code": 0}),
            );
        }
        line(&match &overview.to {
            Some(to) => format!("{}: enabled, to {to}", shown(path)),
            None => format!("{}: not enabled", shown(path)),
        });
        for upstream in &overview.upstreams {
            line(&format!(
                "  line {}: upstream {}: {}",
                upstream.line,
                upstream.name,
                upstream.servers.join(" | ")
            ));
            for (number, url) in &upstream.passes {
                line(&format!("    line {number}: proxy_pass {url}"));
            }
        }
    }

    /// The change, as `patch` takes it.
    pub(super) fn diff(&self, path: &Path, old: &[u8], new: &[u8]) -> io::Result<()> {
        let name = shown(path);
        let diff = TextDiff::from_lines(old, new);
        let mut unified = diff.unified_diff();
        let unified = unified.context_radius(3).header(&name, &name);
        let mut bytes = Vec::new();
        unified.to_writer(&mut bytes)?;
        if self.json {
            object(json!({"event": "diff", "text": String::from_utf8_lossy(&bytes)}));
            return Ok(());
        }
        if self.is_terminal {
            let lines = bytes.split_inclusive(|&byte| byte == b'\n').map(|text| {
                let mut shown = String::new();
                escape(text.strip_suffix(b"\n").unwrap_or(text), &mut shown);
                shown + "\n"
            });
            bytes = lines.collect::<String>().into_bytes();
        }
        io::stdout().lock().write_all(&bytes)
    }

    /// How it ended.
    pub(super) fn done(&self, path: &Path, done: Done<'_>) {
        let (changed, dry_run) = (matches!(done, Done::Written { .. }), matches!(done, Done::DryRun));
        let backup = match done {
            Done::Written { backup, .. } => backup.map(shown),
            _ => None,
        };
        if self.json {
            return object(
                json!({"event": "summary", "file": shown(path), "changed": changed, "dry_run": dry_run,
                "backup": backup, "exit_code": 0}),
            );
        }
        let Done::Written { is_tested, .. } = done else {
            return note(if dry_run {
                "Nothing was changed (dry run)."
            } else {
                "Nothing to do: it is so already."
            });
        };
        if let Some(backup) = backup {
            note(&format!("The file as it was: {backup}"));
        }
        note(if is_tested {
            "Written and tested. nginx reads it when it is reloaded (nginx -s reload)."
        } else {
            "Written, not tested. Test it (nginx -t), then let nginx read it (nginx -s reload)."
        });
    }

    /// How it ended otherwise; the message for people is `main`'s.
    pub(super) fn failed(&self, error: &dyn std::error::Error, code: u8) {
        if self.json {
            let message = match error.source() {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            };
            object(json!({"event": "error", "message": message, "exit_code": code}));
        }
    }
}

fn shown(path: &Path) -> String {
    protocol::path::escaped(path.as_os_str().as_encoded_bytes())
}

fn object(value: Value) {
    line(&value.to_string());
}

fn line(text: &str) {
    // Whoever reads this went away: there is nobody to tell.
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Beside the diff, which has standard output for itself.
fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

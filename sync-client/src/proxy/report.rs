//! What the operator reads: what moves, what stays and why, and how it ended.

use crate::console::Lines;
use crate::nginx::{Edited, Overview, Remark, Restored, Target};
use crate::place::shown;
use serde_json::{Value, json};
use std::path::Path;

/// How a command ended well.
pub(crate) enum Done<'a> {
    /// The file was as it is to be.
    Already { is_tested: bool },
    /// It would be changed.
    DryRun,
    /// It is changed, on disk.
    Written { backup: Option<&'a Path>, is_tested: bool },
}

/// What an edit does.
pub(crate) fn edited(out: &Lines, path: &Path, edited: &Edited, target: &Target) {
    let to = target.address.as_str();
    out.note(&format!("{}: to {to} (lines are those of the file without the edit)", shown(path)));
    for moved in &edited.moved {
        let servers = moved.servers.join(" | ");
        out.remark(
            &format!("  line {}: upstream {}, now {servers}", moved.line, moved.name),
            &json!({"event": "upstream", "line": moved.line, "name": moved.name, "servers": moved.servers, "to": to}),
        );
    }
    for pass in &edited.passes {
        out.remark(
            &format!("  line {}: {} becomes {}", pass.line, pass.from, pass.to),
            &json!({"event": "proxy_pass", "line": pass.line, "from": pass.from, "to": pass.to}),
        );
    }
    remarks(out, "left", "Left as it is:", &edited.left);
    remarks(out, "note", "To know:", &edited.notes);
}

fn remarks(out: &Lines, event: &str, title: &str, remarks: &[Remark]) {
    if !remarks.is_empty() {
        out.note(title);
    }
    for Remark { line, what, why } in remarks {
        out.remark(
            &format!("  line {line}: {what}: {why}"),
            &json!({"event": event, "line": line, "what": what, "why": why}),
        );
    }
}

/// What undoing does.
pub(crate) fn restored(out: &Lines, path: &Path, Restored { to, parts, .. }: &Restored) {
    out.remark(
        &format!("{}: no longer to {to}, {parts} places as they were", shown(path)),
        &json!({"event": "undone", "to": to, "parts": parts}),
    );
}

/// What a file says.
pub(crate) fn overview(out: &Lines, path: &Path, overview: &Overview) {
    listed(out, path, overview);
    out.object(&json!({"event": "summary", "file": shown(path), "is_enabled": overview.to.is_some(),
        "to": overview.to, "exit_code": 0}));
}

/// The same, where more follows.
pub(crate) fn listed(out: &Lines, path: &Path, overview: &Overview) {
    let file = shown(path);
    out.text(&match &overview.to {
        Some(to) => format!("{file}: enabled, to {to}"),
        None => format!("{file}: not enabled"),
    });
    for upstream in &overview.upstreams {
        let passes: Vec<Value> =
            upstream.passes.iter().map(|(line, url)| json!({"line": line, "to": url})).collect();
        let servers = upstream.servers.join(" | ");
        out.tell(
            &format!("  line {}: upstream {}: {servers}", upstream.line, upstream.name),
            &json!({"event": "upstream", "line": upstream.line, "name": upstream.name,
                "servers": upstream.servers, "proxy_passes": passes}),
        );
        for (number, url) in &upstream.passes {
            out.text(&format!("    line {number}: proxy_pass {url}"));
        }
    }
}

/// How it ended.
pub(crate) fn done(out: &Lines, path: &Path, done: &Done<'_>) {
    let (changed, dry_run) = (matches!(done, Done::Written { .. }), matches!(done, Done::DryRun));
    let backup = match done {
        Done::Written { backup, .. } => backup.map(shown),
        _ => None,
    };
    if let Some(backup) = &backup {
        out.note(&format!("The file as it was: {backup}"));
    }
    out.remark(
        match done {
            Done::Already { is_tested: false } => "Nothing to do: it is so already.",
            Done::Already { is_tested: true } => "Nothing to do: it is so already, and tested.",
            Done::DryRun => "Nothing was changed (dry run).",
            Done::Written { is_tested: true, .. } => {
                "Written and tested. nginx reads it when it is reloaded (nginx -s reload)."
            }
            Done::Written { .. } => {
                "Written, not tested. Test it (nginx -t), then let nginx read it (nginx -s reload)."
            }
        },
        &json!({"event": "summary", "file": shown(path), "changed": changed, "dry_run": dry_run, "backup": backup,
            "exit_code": 0}),
    );
}

//! Reads and edits nginx configuration: sends the requests of some upstreams to another machine, and back.
//!
//! Nothing here touches a file or a network: bytes in, bytes out, so a local file and one on another machine are
//! the same to it. `proxy` calls it.
//!
//! What always holds: [`enable`] gives a file from which [`disable`] makes the first one again, byte by byte (it is
//! tried before the result is handed out); bytes outside of the changed lines stay; what can't be understood is
//! refused, with its line.
//!
//! What the edit is: the destination's own nginx has the same rules as this one, so it must get every request as
//! the client sent it: the same path, `Host` and name in TLS. Hence the URI part of a `proxy_pass` goes (the
//! destination's nginx cuts paths itself), requests go by TLS, and the settings for that stand in each location
//! alone: further out they would reach a `proxy_pass` that stays.
//!
//! `lex`, `lua` and `tree` read the file as nginx does; `survey` finds the upstreams and what uses them; `plan` decides
//! which bytes change; `marks` is how the edit stands in the file; `target` is where requests are to go.

mod lex;
mod lua;
mod marks;
mod plan;
mod survey;
mod target;
#[cfg(test)]
mod tests;
mod tree;

pub use target::{Address, MOVING, Target, TrustedFile};

use protocol::path::escaped;
use tree::Tree;

/// Why a configuration is not edited.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NginxError {
    /// nginx would not read it.
    #[error("line {line}:{column}: {what}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1, in bytes.
        column: usize,
        /// What is wrong there.
        what: String,
    },
    /// The edit in the file is not as it was made.
    #[error(
        "line {line}: the edit made by `proxy enable` was changed here: {what}. Put it right, or restore the backup"
    )]
    Damaged {
        /// From 1.
        line: usize,
        /// What is wrong there.
        what: String,
    },
    /// There is no edit to undo.
    #[error("this file holds no edit made by `proxy enable`; there is nothing to undo")]
    NotEnabled,
    /// No upstream of this file moves.
    #[error(
        "no upstream to move is here: {known}. Give the file that defines them, or name them with --upstream"
    )]
    NothingToMove {
        /// What is here instead.
        known: String,
    },
    /// An upstream was named that the file does not define.
    #[error("this file defines no upstream {name}: {known}")]
    UnknownUpstream {
        /// As given.
        name: String,
        /// What is here instead.
        known: String,
    },
    /// Something about the file can't be edited with a good result.
    #[error("line {line}: {what}")]
    Unsuitable {
        /// From 1.
        line: usize,
        /// What, and what to do about it.
        what: String,
    },
    /// Too long to become a comment.
    #[error(
        "line {line} would have to be commented out, and nginx takes no comment of this length; break the line"
    )]
    LongLine {
        /// From 1.
        line: usize,
    },
    /// Not an address.
    #[error("{text:?} is no ADDRESS[:PORT] (an IPv4 or IPv6 address, or a host name)")]
    Address {
        /// As given.
        text: String,
    },
    /// Not a path that nginx takes as it stands.
    #[error(
        "{text:?} can't be the file of trusted certificates: an absolute path without spaces or quotes is"
    )]
    TrustedFile {
        /// As given.
        text: String,
    },
    /// The result is not what it must be.
    #[error(
        "the edit could not be undone as it should; nothing was changed. That is a defect, please report it"
    )]
    Unsound,
}

/// An upstream whose requests go to the destination now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Its name.
    pub name: String,
    /// Where it is defined.
    pub line: usize,
    /// The servers it had.
    pub servers: Vec<String>,
}

/// A `proxy_pass` that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// Where it stands.
    pub line: usize,
    /// What it said.
    pub from: String,
    /// What it says.
    pub to: String,
}

/// Something the operator should know about a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Where it stands, in the file without the edit.
    pub line: usize,
    /// What is there.
    pub what: String,
    /// Why it is as it is.
    pub why: String,
}

/// A configuration that sends requests to the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The whole file.
    pub bytes: Vec<u8>,
    /// Upstreams that go to the destination.
    pub moved: Vec<Moved>,
    /// What uses them.
    pub passes: Vec<Pass>,
    /// What stays as it was.
    pub left: Vec<Remark>,
    /// What else there is to know.
    pub notes: Vec<Remark>,
}

/// A configuration with the edit taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The whole file.
    pub bytes: Vec<u8>,
    /// Where requests went.
    pub to: String,
    /// How many places were edited.
    pub parts: usize,
}

/// What a configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// Where the edit in it sends requests, if there is one.
    pub to: Option<String>,
    /// The upstreams, as they are.
    pub upstreams: Vec<Upstream>,
}

/// An upstream as a file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// Where it is defined.
    pub line: usize,
    /// Its servers, with their parameters.
    pub servers: Vec<String>,
    /// The lines and values of `proxy_pass` that go to it.
    pub passes: Vec<(usize, String)>,
}

/// Sends requests to the destination. An edit that is already there is replaced by this one.
///
/// # Errors
/// The file is not understood, or would not work as it should afterwards.
pub fn enable(bytes: &[u8], target: &Target) -> Result<Edited, NginxError> {
    let undone = marks::undo(bytes)?;
    let original = undone.as_ref().map_or(bytes, |undone| &undone.bytes);
    let tree = Tree::parse(original)?;
    let plan = plan::plan(&tree, target)?;
    let edited = marks::apply(original, plan.changes, &tree.solid(), target.address.as_str())?;
    let is_undone = marks::undo(&edited)?.is_some_and(|undone| undone.bytes == original);
    if !is_undone || Tree::parse(&edited).is_err() {
        return Err(NginxError::Unsound);
    }
    Ok(Edited { bytes: edited, moved: plan.moved, passes: plan.passes, left: plan.left, notes: plan.notes })
}

/// Takes the edit out; what else was changed in the file since then stays.
///
/// # Errors
/// There is no edit, or it is not as it was made.
pub fn disable(bytes: &[u8]) -> Result<Restored, NginxError> {
    let undone = marks::undo(bytes)?.ok_or(NginxError::NotEnabled)?;
    Ok(Restored { bytes: undone.bytes, to: undone.to, parts: undone.parts })
}

/// Says what upstreams there are, what uses them, and whether there is an edit.
///
/// # Errors
/// The file is not understood, or the edit in it is not as it was made.
pub fn show(bytes: &[u8]) -> Result<Overview, NginxError> {
    let to = marks::undo(bytes)?.map(|undone| undone.to);
    let tree = Tree::parse(bytes)?;
    let survey = survey::Survey::new(&tree);
    let upstreams = survey.upstreams.iter().map(|upstream| Upstream {
        name: text(upstream.name),
        line: tree.line(upstream.directive.span.start),
        servers: upstream.servers.iter().map(|server| arguments(server)).collect(),
        passes: survey
            .passes_to(upstream.name)
            .map(|pass| (tree.line(pass.directive.span.start), arguments(pass.directive)))
            .collect(),
    });
    Ok(Overview { to, upstreams: upstreams.collect() })
}

/// Bytes of the file for people.
fn text(bytes: &[u8]) -> String {
    escaped(bytes)
}

/// What stands behind a directive's name.
fn arguments(directive: &tree::Directive) -> String {
    let words: Vec<String> = directive.words.iter().skip(1).map(|word| text(&word.value)).collect();
    words.join(" ")
}

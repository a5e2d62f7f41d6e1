//! How an edit stands in the file, so that undoing it needs nothing but the file.
//!
//! Every place that was changed becomes a *part*: the lines that were there, each commented out by `#- `, then the
//! lines that are there now, between two marks.
//! ```text
//!   # sync-client proxy 1/9 to 203.0.113.9:443: 2 lines were, 1 is, check 7f3c0a9be2d14c55
//! #-   server core:3000;
//! #-   server core:3001;
//!   server 203.0.113.9:443;
//!   # sync-client proxy 1/9 end
//! ```
//! Undoing takes the first lines without their `#- ` and drops the rest: every byte is as it was, line ends too. The
//! check is BLAKE3 (the first 8 bytes) over the first mark and all up to the second, so a part that somebody
//! changed is noticed; a part that is missing is noticed by the count. What stands between the parts is nobody's
//! business here: it is kept, changed or not. ` without line feed` in a mark says that the last line had none.
//!
//! nginx refuses a comment of 4096 bytes, so a longer line can't be commented out.

use super::NginxError;
use super::lex::position;
use std::ops::Range;

/// What a mark begins with, behind its indentation.
const MARK: &str = "# sync-client proxy ";
/// What a line that was there begins with.
const WAS: &[u8] = b"#- ";
/// The longest line that is commented out: below what nginx takes as one comment.
const LONGEST_LINE: usize = 4000;
const NO_LINE_FEED: &str = " without line feed";

/// Bytes of the file that become others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// What is replaced; empty where something is only put in.
    pub(super) span: Range<usize>,
    /// By what.
    pub(super) text: Vec<u8>,
}

/// A file without the edit that was in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Undone {
    /// The file as it was.
    pub(super) bytes: Vec<u8>,
    /// Where the edit had sent the requests.
    pub(super) to: String,
    /// How many parts it had.
    pub(super) parts: usize,
}

/// Makes the changes; no line may begin inside one of the `solid` spans. `to` says where requests go.
pub(super) fn apply(
    bytes: &[u8],
    mut changes: Vec<Change>,
    solid: &[Range<usize>],
    to: &str,
) -> Result<Vec<u8>, NginxError> {
    // Stable: what is put in at one place stays in its order.
    changes.sort_by_key(|change| (change.span.start, change.span.end));
    let mut parts: Vec<(Range<usize>, Vec<Change>)> = Vec::new();
    for change in changes {
        let lines = whole_lines(bytes, &change.span, solid);
        match parts.last_mut() {
            Some((last, inside)) if lines.start <= last.end => {
                last.end = last.end.max(lines.end);
                inside.push(change);
            }
            _ => parts.push((lines, vec![change])),
        }
    }
    let total = parts.len();
    let mut result = Vec::with_capacity(bytes.len() + 4096);
    let mut done = 0;
    for (number, (lines, changes)) in parts.into_iter().enumerate() {
        result.extend_from_slice(&bytes[done..lines.start]);
        let mark = format!("{MARK}{}/{total}", number + 1);
        write_part(&mut result, bytes, &lines, &changes, &mark, to)?;
        done = lines.end;
    }
    result.extend_from_slice(&bytes[done..]);
    Ok(result)
}

/// The lines around a span, so that a comment may begin at the first and behind the last one.
fn whole_lines(bytes: &[u8], span: &Range<usize>, solid: &[Range<usize>]) -> Range<usize> {
    let is_inside = |at: usize| solid.iter().any(|part| part.start < at && at < part.end);
    let mut start = line_start(bytes, span.start);
    while is_inside(start) {
        start = line_start(bytes, start - 1);
    }
    let mut end = line_end(bytes, span.end.max(span.start + 1) - 1);
    while is_inside(end) {
        end = line_end(bytes, end);
    }
    start..end
}

fn line_start(bytes: &[u8], at: usize) -> usize {
    bytes[..at.min(bytes.len())].iter().rposition(|&byte| byte == b'\n').map_or(0, |feed| feed + 1)
}

/// Behind the line feed that follows.
fn line_end(bytes: &[u8], at: usize) -> usize {
    let at = at.min(bytes.len());
    bytes[at..].iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |feed| at + feed + 1)
}

fn write_part(
    result: &mut Vec<u8>,
    bytes: &[u8],
    lines: &Range<usize>,
    changes: &[Change],
    mark: &str,
    to: &str,
) -> Result<(), NginxError> {
    let old = &bytes[lines.clone()];
    let end_of_line = end_of_line(old);
    let mut was = Vec::new();
    for (number, line) in old.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if line.len() > LONGEST_LINE {
            return Err(NginxError::LongLine { line: position(bytes, lines.start).0 + number });
        }
        was.extend_from_slice(WAS);
        was.extend_from_slice(line);
    }
    let mut is = Vec::new();
    let mut done = lines.start;
    for change in changes {
        is.extend_from_slice(bytes.get(done..change.span.start).ok_or(NginxError::Unsound)?);
        is.extend_from_slice(&change.text);
        done = change.span.end;
    }
    is.extend_from_slice(&bytes[done..lines.end]);
    let flag = if old.ends_with(b"\n") { "" } else { NO_LINE_FEED };
    for text in [&mut was, &mut is] {
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.extend_from_slice(end_of_line);
        }
    }
    let indent: Vec<u8> = old.iter().copied().take_while(|byte| matches!(byte, b' ' | b'\t')).collect();
    let (were, are) = (count_lines(&was), count_lines(&is));
    let first = format!("{mark} to {to}: {were} {}{flag}, {are} {}", lines_were(were), are_or_is(are));
    let check = check(&first, &[&was[..], &is].concat());
    for part in [&indent[..], first.as_bytes(), b", check ", check.as_bytes(), end_of_line, &was, &is] {
        result.extend_from_slice(part);
    }
    for part in [&indent[..], mark.as_bytes(), b" end", end_of_line] {
        result.extend_from_slice(part);
    }
    Ok(())
}

/// What ends the lines here.
pub(super) fn end_of_line(bytes: &[u8]) -> &'static [u8] {
    let feed = bytes.iter().position(|&byte| byte == b'\n');
    match feed {
        Some(at) if at > 0 && bytes[at - 1] == b'\r' => b"\r\n",
        _ => b"\n",
    }
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

fn lines_were(count: usize) -> &'static str {
    if count == 1 { "line was" } else { "lines were" }
}

fn are_or_is(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

fn check(first: &str, body: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(first.as_bytes()).update(b"\n").update(body);
    hasher.finalize().to_hex()[..16].to_owned()
}

/// Takes the edit out; `None` where there is none.
///
/// # Errors
/// The edit is not as it was made; the error names the line.
pub(super) fn undo(bytes: &[u8]) -> Result<Option<Undone>, NginxError> {
    let lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
    let mut result = Vec::with_capacity(bytes.len());
    let mut seen: Option<(usize, usize, String)> = None;
    let mut at = 0;
    while at < lines.len() {
        if !is_mark(lines[at]) {
            result.extend_from_slice(lines[at]);
            at += 1;
            continue;
        }
        let mark = Mark::parse(lines[at]).ok_or_else(|| damaged(at, "this mark is not whole"))?;
        let (number, total, to) = seen.take().unwrap_or((0, mark.total, mark.to.clone()));
        if (mark.number, mark.total, &mark.to) != (number + 1, total, &to) {
            return Err(damaged(at, &format!("part {}/{total} should stand here", number + 1)));
        }
        at = undo_part(&lines, at, &mark, &mut result)?;
        seen = Some((mark.number, total, to));
    }
    match seen {
        None => Ok(None),
        Some((number, total, _)) if number < total => {
            let missing = format!("part {}/{total} is missing behind it", number + 1);
            Err(damaged(lines.len() - 1, &missing))
        }
        Some((_, parts, to)) => Ok(Some(Undone { bytes: result, to, parts })),
    }
}

/// Takes one part out; returns the line behind it.
fn undo_part(lines: &[&[u8]], at: usize, mark: &Mark, result: &mut Vec<u8>) -> Result<usize, NginxError> {
    let first_new = at.saturating_add(1).saturating_add(mark.were);
    let end = first_new.saturating_add(mark.are);
    let expected = format!("{MARK}{}/{} end", mark.number, mark.total);
    if lines.get(end).is_none_or(|line| line.trim_ascii() != expected.as_bytes()) {
        let (from, total) = (mark.number, mark.total);
        return Err(damaged(at, &format!("lines were added to part {from}/{total} or taken from it")));
    }
    let mut was = Vec::new();
    for (number, line) in lines[at + 1..first_new].iter().enumerate() {
        let line =
            line.strip_prefix(WAS).ok_or_else(|| damaged(at + 1 + number, "it must begin with \"#- \""))?;
        was.extend_from_slice(line);
    }
    if check(&mark.first, &lines[at + 1..end].concat()) != mark.check {
        return Err(damaged(at, &format!("something up to line {} was changed", end + 1)));
    }
    // A last line without line feed got one; what was added behind it since needs it.
    if mark.without_line_feed && end + 1 == lines.len() {
        let added = if was.ends_with(b"\r\n") && lines[at].ends_with(b"\r\n") { 2 } else { 1 };
        was.truncate(was.len().saturating_sub(added));
    }
    result.extend_from_slice(&was);
    Ok(end + 1)
}

fn is_mark(line: &[u8]) -> bool {
    line.trim_ascii_start().starts_with(MARK.as_bytes())
}

fn damaged(line: usize, what: &str) -> NginxError {
    NginxError::Damaged { line: line + 1, what: what.to_owned() }
}

/// The first mark of a part, read back.
struct Mark {
    number: usize,
    total: usize,
    to: String,
    were: usize,
    are: usize,
    without_line_feed: bool,
    /// All of it before the check.
    first: String,
    check: String,
}

impl Mark {
    fn parse(line: &[u8]) -> Option<Mark> {
        let text = std::str::from_utf8(line).ok()?.trim();
        let (first, check) = text.rsplit_once(", check ")?;
        let (numbers, rest) = first.strip_prefix(MARK)?.split_once(" to ")?;
        let (number, total) = numbers.split_once('/')?;
        let (to, counts) = rest.split_once(": ")?;
        let (were, are) = counts.split_once(", ")?;
        let count = |text: &str| text.split(' ').next()?.parse().ok();
        Some(Mark {
            number: number.parse().ok()?,
            total: total.parse().ok()?,
            to: to.to_owned(),
            were: count(were)?,
            are: count(are)?,
            without_line_feed: were.ends_with(NO_LINE_FEED),
            first: first.to_owned(),
            check: check.to_owned(),
        })
    }
}

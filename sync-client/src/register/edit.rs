//! The edit of one core's address in a `dns.json`, and its undo: bytes in, bytes out.
//!
//! An edit is one splice: the bytes of the address are replaced, or a member is inserted where there was none;
//! every other byte stays. The result is parsed again and compared, as the server sees it, with what was there: only
//! that one value may differ. JSON has no comments, so what an undo needs is kept beside the file, as [`Records`]: for
//! each core the bytes before and after. Undo looks the value up again in the file as it is *now*, so it works after
//! edits elsewhere, and refuses where somebody changed the value itself.

use super::document::{Addresses, Document, DocumentError, Member, Members, Position};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::ops::Range;
use std::str::FromStr;
use thiserror::Error;

/// Version of what is written beside the file.
const VERSION: u32 = 1;

/// Why an edit is refused.
#[derive(Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum EditError {
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(
        "{position}: {core} is an alias, and a name has an alias or an address: set the name it leads to"
    )]
    Alias { position: Position, core: String },
    #[error(
        "{core} would be a new entry, and the server looks names up in lower case: this one would never be found"
    )]
    NotLowerCase { core: String },
    #[error("{position}: {core} has {found}, not {old}")]
    NotThere { position: Position, core: String, found: String, old: String },
    #[error("{position}: {core} has {ip} already, beside {old}; without --old it alone would stay")]
    Twice { position: Position, core: String, ip: IpAddr, old: String },
    #[error(
        "the edit would change more than the address of {core}: that is a defect, nothing was written, please report it"
    )]
    ChangedMore { core: String },
    #[error("what an undo needs can't be used: {0}; move that file away to do without that undo")]
    Records(String),
    #[error("{core} was not set by this program, or was put back already")]
    NotSet { core: String },
    #[error(
        "{core} was changed by somebody else since it was set: it is {found}, and was set to {after} (before: {before}); put it back by hand"
    )]
    ChangedSince { core: String, found: String, after: String, before: String },
}

/// The name of a core in its platform's domain: one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreName(String);

impl FromStr for CoreName {
    type Err = String;

    fn from_str(text: &str) -> Result<CoreName, String> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > 63 || !text.bytes().all(is_name) {
            return Err("give the core's name alone, as in `co1` of co1.example.com".to_owned());
        }
        Ok(CoreName(text.to_owned()))
    }
}

impl CoreName {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An edited file.
#[derive(Debug, PartialEq, Eq)]
pub struct Edited {
    /// The whole file.
    pub bytes: Vec<u8>,
    /// Where the change begins.
    pub position: Position,
    /// What was the address, or several; none where there was no entry.
    pub old: Vec<String>,
    /// Addresses that stay beside the new one.
    pub kept: Vec<String>,
}

/// Replaces `span` of the file by `text`.
#[derive(Debug)]
struct Splice {
    span: Range<usize>,
    text: String,
}

impl Splice {
    fn apply(&self, bytes: &[u8]) -> Vec<u8> {
        [&bytes[..self.span.start], self.text.as_bytes(), &bytes[self.span.end..]].concat()
    }
}

/// Gives `core` the address `ip`; of several addresses `old` alone gives way, or all where it is not said.
///
/// # Errors
/// The file is not what it should be, or the edit would not do what was asked.
pub fn set(bytes: &[u8], core: &CoreName, ip: IpAddr, old: Option<&str>) -> Result<Edited, EditError> {
    let document = Document::parse(bytes)?;
    let plan = plan(&document, core, ip, old)?;
    let edited = plan.splice.apply(bytes);
    let is_exact = Document::parse(&edited).is_ok_and(|after| after.seen == plan.expected);
    if !is_exact {
        return Err(EditError::ChangedMore { core: core.0.clone() });
    }
    Ok(Edited {
        bytes: edited,
        position: document.position(plan.splice.span.start),
        old: plan.old,
        kept: plan.kept,
    })
}

/// What is to be done, and what the server is to see afterwards.
struct Plan {
    splice: Splice,
    expected: Value,
    old: Vec<String>,
    kept: Vec<String>,
}

fn plan(document: &Document<'_>, core: &CoreName, ip: IpAddr, old: Option<&str>) -> Result<Plan, EditError> {
    let mut expected = document.seen.clone();
    let seen = expected.pointer_mut("/dns/staticDataInDomain").and_then(Value::as_object_mut);
    let added = |splice, expected| Plan { splice, expected, old: Vec::new(), kept: Vec::new() };
    let Some(entry) = document.entry(core.as_str())? else {
        if core.0.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(EditError::NotLowerCase { core: core.0.clone() });
        }
        let names = document.names()?;
        must_be_there(document.position(names.span().start), core, &[], old)?;
        if let Some(seen) = seen {
            seen.insert(core.0.clone(), json!({ "ip": ip.to_string() }));
        }
        return Ok(added(new_entry(document, names, core, ip), expected));
    };
    let seen = seen.and_then(|names| names.get_mut(core.as_str())).and_then(Value::as_object_mut);
    let position = document.position(entry.span.start);
    match &entry.addresses {
        None if entry.alias.is_some() => Err(EditError::Alias { position, core: core.0.clone() }),
        None => {
            must_be_there(position, core, &[], old)?;
            if let Some(seen) = seen {
                seen.insert("ip".to_owned(), json!(ip.to_string()));
            }
            let splice = inserted(document, entry.members, |_| format!("\"ip\"{}\"{ip}\"", colon(document)));
            Ok(added(splice, expected))
        }
        Some(addresses) => {
            let position = document.position(addresses.span.start);
            let Replaced { splice, value, old, kept } = replaced(addresses, position, core, ip, old)?;
            if let (Some(seen), Some(member)) = (seen, entry.ip())
                && let Some(seen) = seen.get_mut(member.name())
            {
                *seen = value;
            }
            Ok(Plan { splice, expected, old, kept })
        }
    }
}

struct Replaced {
    splice: Splice,
    /// What the server is to see at `ip`.
    value: Value,
    old: Vec<String>,
    kept: Vec<String>,
}

/// The new address in place of `old`, or of all that are there.
fn replaced(
    addresses: &Addresses,
    position: Position,
    core: &CoreName,
    ip: IpAddr,
    old: Option<&str>,
) -> Result<Replaced, EditError> {
    let all: Vec<String> = addresses.all.iter().map(|address| address.text.clone()).collect();
    must_be_there(position, core, &all, old)?;
    let gives_way = |text: &str| old.is_none_or(|old| is_same(text, old));
    let (gone, kept): (Vec<String>, Vec<String>) = all.iter().cloned().partition(|text| gives_way(text));
    if let Some(old) = old
        && kept.iter().any(|text| is_same(text, &ip.to_string()))
    {
        return Err(EditError::Twice { position, core: core.0.clone(), ip, old: old.to_owned() });
    }
    let mut going = addresses.all.iter().filter(|address| gives_way(&address.text));
    let span = match (going.next(), going.next_back()) {
        (Some(first), last) => first.span.start..last.unwrap_or(first).span.end,
        // An empty array.
        (None, _) => addresses.span.start + 1..addresses.span.end - 1,
    };
    let value = match (addresses.is_array, old) {
        (false, _) => json!(ip.to_string()),
        (true, None) => json!([ip.to_string()]),
        (true, Some(_)) => {
            all.iter().map(|text| if gives_way(text) { ip.to_string() } else { text.clone() }).collect()
        }
    };
    Ok(Replaced { splice: Splice { span, text: format!("\"{ip}\"") }, value, old: gone, kept })
}

/// Where one address is to give way, it is there, once.
fn must_be_there(
    position: Position,
    core: &CoreName,
    all: &[String],
    old: Option<&str>,
) -> Result<(), EditError> {
    match old {
        Some(old) if all.iter().filter(|text| is_same(text, old)).count() != 1 => Err(EditError::NotThere {
            position,
            core: core.0.clone(),
            found: if all.is_empty() { "no address".to_owned() } else { all.join(", ") },
            old: old.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Whether two texts are one address; placeholders are compared as they are written.
pub(crate) fn is_same(left: &str, right: &str) -> bool {
    left == right
        || matches!((left.parse::<IpAddr>(), right.parse::<IpAddr>()), (Ok(left), Ok(right)) if left == right)
}

/// A new entry, laid out as its neighbours are.
fn new_entry(document: &Document<'_>, names: Members<'_>, core: &CoreName, ip: IpAddr) -> Splice {
    let colon = colon(document);
    inserted(document, names, |lead| {
        let inner = names.all().rev().find_map(|member| Some((member, member.object()?.last()?)));
        let (open, close) = match inner {
            Some((neighbour, part)) => {
                let end = neighbour.value_span().end - 1;
                (lead_of(document, part), space_before(document, end))
            }
            None if lead.contains('\n') => (format!("{lead}{}", unit(document)), lead.to_owned()),
            None => (" ".to_owned(), " ".to_owned()),
        };
        format!("\"{}\"{colon}{{{open}\"ip\"{colon}\"{ip}\"{close}}}", core.0)
    })
}

/// A member after the last one of `object`, or as the only one.
fn inserted(document: &Document<'_>, object: Members<'_>, member: impl FnOnce(&str) -> String) -> Splice {
    if let Some(last) = object.last() {
        let lead = lead_of(document, last);
        let at = last.span().end;
        return Splice { text: format!(",{lead}{}", member(&lead)), span: at..at };
    }
    let span = object.span();
    let (lead, tail) = if document.text().contains('\n') {
        let line_end = if document.text().contains("\r\n") { "\r\n" } else { "\n" };
        let outer = indentation(document, span.start);
        (format!("{line_end}{outer}{}", unit(document)), format!("{line_end}{outer}"))
    } else {
        (String::new(), String::new())
    };
    Splice { text: format!("{lead}{}{tail}", member(&lead)), span: span.start + 1..span.end - 1 }
}

/// The white space before a member, from the end of the line before it where it has a line of its own.
fn lead_of(document: &Document<'_>, member: Member<'_>) -> String {
    space_before(document, member.span().start)
}

fn space_before(document: &Document<'_>, at: usize) -> String {
    let head = &document.text()[..at];
    let space = &head[head.trim_end_matches([' ', '\t', '\r', '\n']).len()..];
    match space.rfind('\n') {
        Some(at) => space[if space[..at].ends_with('\r') { at - 1 } else { at }..].to_owned(),
        None => space.to_owned(),
    }
}

/// The white space that the line of `at` begins with.
fn indentation<'d>(document: &Document<'d>, at: usize) -> &'d str {
    let head = &document.text()[..at];
    let line = &head[head.rfind('\n').map_or(0, |at| at + 1)..];
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}

/// What one level is indented by: as the first indented line is.
fn unit<'d>(document: &Document<'d>) -> &'d str {
    let indents = document.text().lines().map(|line| &line[..line.len() - line.trim_start().len()]);
    indents.skip(1).find(|indent| !indent.is_empty()).unwrap_or("  ")
}

/// What stands between a name and its value.
fn colon<'d>(document: &Document<'d>) -> &'d str {
    let first = document.names().ok().and_then(|names| names.all().next());
    first.map_or(": ", |member| &document.text()[member.name_span().end..member.value_span().start])
}

/// What is kept beside the file, so that an undo needs nothing but the file's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Records {
    version: u32,
    /// BLAKE3 of the file once everything is undone, if nothing else changes it.
    file_before: String,
    /// BLAKE3 of the file as it was written last.
    file_after: String,
    edits: Vec<Record>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    core: String,
    part: Part,
    /// How far before that part the changed bytes begin.
    lead_bytes: usize,
    before: String,
    /// What it was set to; of two the last one, or the first if the program was killed before it was written.
    after: Vec<String>,
}

/// What the changed bytes are found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Part {
    /// The value of `ip`.
    Value,
    /// The member `ip` of the entry.
    Member,
    /// The entry.
    Entry,
}

impl Record {
    /// Where the changed bytes begin now; none where that part is gone.
    fn start(&self, document: &Document<'_>) -> Result<Option<usize>, DocumentError> {
        let Some(entry) = document.entry(&self.core)? else { return Ok(None) };
        let part = match self.part {
            Part::Value => entry.ip().map(|part| part.value_span().start),
            Part::Member => entry.ip().map(|part| part.span().start),
            Part::Entry => Some(entry.span.start),
        };
        Ok(part.and_then(|start| start.checked_sub(self.lead_bytes)))
    }

    /// The changed bytes in the file as it is now, if they are as they were set.
    fn found(&self, document: &Document<'_>) -> Result<Option<Range<usize>>, DocumentError> {
        let Some(start) = self.start(document)? else { return Ok(None) };
        let Some(rest) = document.text().get(start..) else { return Ok(None) };
        let after = self.after.iter().rev().find(|after| rest.starts_with(after.as_str()));
        Ok(after.map(|after| start..start + after.len()))
    }

    /// Whether the file is as it was before: the program was killed before it wrote it, or it was put back.
    fn is_undone(&self, document: &Document<'_>) -> Result<bool, DocumentError> {
        if self.part == Part::Value {
            let start = self.start(document)?;
            let rest = start.and_then(|start| document.text().get(start..));
            return Ok(rest.is_some_and(|rest| rest.starts_with(&self.before)));
        }
        let entry = document.entry(&self.core)?;
        Ok(entry.is_none_or(|entry| self.part == Part::Member && entry.addresses.is_none()))
    }
}

/// What an undo did.
#[derive(Debug, PartialEq, Eq)]
pub struct Undone {
    /// The whole file.
    pub bytes: Vec<u8>,
    /// The cores that were put back.
    pub cores: Vec<String>,
    /// Whether the file is again, byte for byte, what it was before the first edit.
    pub is_first: bool,
    /// What is left to undo.
    pub left: Option<Records>,
}

impl Records {
    /// Reads what [`Records::to_bytes`] wrote.
    ///
    /// # Errors
    /// It is damaged or of another version.
    pub fn parse(bytes: &[u8]) -> Result<Records, EditError> {
        let records: Records =
            serde_json::from_slice(bytes).map_err(|error| EditError::Records(error.to_string()))?;
        if records.version != VERSION {
            return Err(EditError::Records(format!("it is of version {}", records.version)));
        }
        Ok(records)
    }

    /// One JSON object.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// The records after an edit of `core` turned `before` into `after`; none where nothing is left to undo.
    ///
    /// # Errors
    /// The undo would not give back what was there: nothing may be written then.
    pub fn with_edit(
        earlier: Option<&Records>,
        core: &CoreName,
        before: &[u8],
        after: &[u8],
    ) -> Result<Option<Records>, EditError> {
        let (old, new) = (Document::parse(before)?, Document::parse(after)?);
        let mut edits = earlier.map_or_else(Vec::new, |records| records.edits.clone());
        let known = edits.iter().position(|record| record.core == core.0).map(|at| edits.remove(at));
        let standing = match &known {
            Some(record) => record.found(&old)?,
            None => None,
        };
        let record = match (known, standing) {
            // Set again: the undo leads to what was there before the first time.
            (Some(record), Some(range)) => {
                let grown = after.len() as isize - before.len() as isize;
                let end = range.end.checked_add_signed(grown).unwrap_or(range.end);
                let text = new.text().get(range.start..end).unwrap_or_default().to_owned();
                Record { after: vec![old.text()[range].to_owned(), text], ..record }
            }
            _ => Record::of(core, &old, &new)?,
        };
        let is_back = record.after.last() == Some(&record.before);
        if !is_back {
            edits.push(record);
        }
        if edits.is_empty() {
            return Ok(None);
        }
        let mut records =
            Records { version: VERSION, file_before: String::new(), file_after: hash(after), edits };
        let undone = records.undo(after, None)?;
        records.file_before = hash(&undone.bytes);
        if earlier.is_none() && undone.bytes != before {
            return Err(EditError::ChangedMore { core: core.0.clone() });
        }
        Ok(Some(records))
    }

    /// Puts back what was set: of one core, or of all.
    ///
    /// # Errors
    /// There is nothing to put back, or somebody else changed that very value.
    pub fn undo(&self, bytes: &[u8], core: Option<&CoreName>) -> Result<Undone, EditError> {
        let is_wanted = |record: &&Record| core.is_none_or(|core| record.core == core.0);
        if let Some(core) = core
            && !self.edits.iter().any(|record| is_wanted(&record))
        {
            return Err(EditError::NotSet { core: core.0.clone() });
        }
        let mut now = bytes.to_vec();
        let mut cores = Vec::new();
        // The newest first: an entry added later stands right after one added before.
        for record in self.edits.iter().rev().filter(is_wanted) {
            if let Some(undone) = undone(record, &now)? {
                now = undone;
                cores.push(record.core.clone());
            }
        }
        let edits: Vec<Record> = self.edits.iter().filter(|record| !is_wanted(record)).cloned().collect();
        let is_first = edits.is_empty() && hash(&now) == self.file_before;
        let left = (!edits.is_empty()).then(|| Records { edits, file_after: hash(&now), ..self.clone() });
        Ok(Undone { bytes: now, cores, is_first, left })
    }

    /// Whether the file is as this program wrote it last.
    #[must_use]
    pub fn is_unchanged(&self, bytes: &[u8]) -> bool {
        self.file_after == hash(bytes)
    }
}

impl Record {
    /// The first edit of a core: what lies between the bytes that are the same at both ends.
    fn of(core: &CoreName, old: &Document<'_>, new: &Document<'_>) -> Result<Record, EditError> {
        let defect = || EditError::ChangedMore { core: core.0.clone() };
        let entry = old.entry(core.as_str())?;
        let part = match &entry {
            Some(entry) if entry.addresses.is_some() => Part::Value,
            Some(_) => Part::Member,
            None => Part::Entry,
        };
        let blank =
            Record { core: core.0.clone(), part, lead_bytes: 0, before: String::new(), after: vec![] };
        let start = blank.start(new)?.ok_or_else(defect)?;
        if let Some(addresses) = entry.and_then(|entry| entry.addresses) {
            let before = old.text()[addresses.span].to_owned();
            let set = new.entry(core.as_str())?.and_then(|entry| entry.addresses).ok_or_else(defect)?;
            return Ok(Record { before, after: vec![new.text()[set.span].to_owned()], ..blank });
        }
        let (from, to) = (old.text().as_bytes(), new.text().as_bytes());
        // Where a member is inserted, what follows it is the same; so is what is before it.
        let tail = from.iter().rev().zip(to.iter().rev()).take_while(|(a, b)| a == b).count();
        let head = from.iter().zip(to).take_while(|(a, b)| a == b).count().min(start);
        let tail = tail.min(from.len().saturating_sub(head)).min(to.len().saturating_sub(head));
        let before = old.text().get(head..from.len() - tail).ok_or_else(defect)?.to_owned();
        let after = new.text().get(head..to.len() - tail).ok_or_else(defect)?.to_owned();
        Ok(Record { lead_bytes: start - head, before, after: vec![after], ..blank })
    }
}

/// The file without that edit; none where it is not there.
fn undone(record: &Record, bytes: &[u8]) -> Result<Option<Vec<u8>>, EditError> {
    let document = Document::parse(bytes)?;
    if let Some(span) = record.found(&document)? {
        let restored = Splice { span, text: record.before.clone() }.apply(bytes);
        // What was inserted may since have got neighbours that need its commas.
        if Document::parse(&restored).is_ok() {
            return Ok(Some(restored));
        }
    } else if record.is_undone(&document)? {
        return Ok(None);
    }
    let entry = document.entry(&record.core)?;
    let found = entry.map_or("gone".to_owned(), |entry| document.text()[entry.span].to_owned());
    let shown = |text: &str| if text.is_empty() { "nothing".to_owned() } else { text.trim().to_owned() };
    Err(EditError::ChangedSince {
        core: record.core.clone(),
        found,
        after: record.after.last().map(|after| shown(after)).unwrap_or_default(),
        before: shown(&record.before),
    })
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[cfg(test)]
mod tests;

//! What a register's `dns.json` (or `register.json`) says of the names it answers for; read, never changed.
//!
//! The server reads the file by `JSON.parse`: of two members of one name the last counts, so does it here.
//! serde_json, the stricter of the two parsers, judges whether it is JSON; jsonc-parser says where each value stands.
//! A byte order mark is passed over, as the server does. Offsets are bytes of the whole file. No I/O.

use jsonc_parser::ast::{Object, ObjectProp, Value};
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;
use thiserror::Error;

const BYTE_ORDER_MARK: &str = "\u{feff}";
/// What the platform's server takes where the file says nothing.
pub(crate) const DEFAULT_TTL_S: u64 = 3600;

/// Why a file can't be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum DocumentError {
    #[error("{position}: not JSON: {reason}; the server could not read it either (is it a template?)")]
    NotJson { position: Position, reason: String },
    #[error("{position}: {path} {reason}; this is not the file of a register's DNS server as it is known")]
    Shape { position: Position, path: String, reason: &'static str },
}

/// A place in a file: line and column, from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl Position {
    /// Of a byte offset of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8], offset: usize) -> Position {
        let before = &bytes[..offset.min(bytes.len())];
        let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let in_line = String::from_utf8_lossy(&before[line_start..]);
        let is_mark = |text: &str| line_start == 0 && text.starts_with(BYTE_ORDER_MARK);
        let column = in_line.chars().count() - usize::from(is_mark(&in_line)) + 1;
        Position { line: before.iter().filter(|&&byte| byte == b'\n').count() + 1, column }
    }
}

/// A file, understood.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    text: &'a str,
    /// Length of the byte order mark.
    base: usize,
    root: Object<'a>,
    /// The same as the server sees it.
    pub(crate) seen: serde_json::Value,
}

/// One address of an entry, or what stands in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) text: String,
    pub(crate) span: Range<usize>,
}

/// What is at the `ip` of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) all: Vec<Address>,
    /// The whole value.
    pub(crate) span: Range<usize>,
    pub(crate) is_array: bool,
}

/// One entry of `dns.staticDataInDomain`.
#[derive(Debug)]
pub(crate) struct Entry<'d> {
    pub(crate) name: String,
    pub(crate) span: Range<usize>,
    pub(crate) members: Members<'d>,
    pub(crate) addresses: Option<Addresses>,
    /// Its alias, as it is written.
    pub(crate) alias: Option<String>,
}

impl<'d> Entry<'d> {
    /// Its addresses, without what is none (a placeholder).
    pub(crate) fn ips(&self) -> BTreeSet<IpAddr> {
        let all = self.addresses.iter().flat_map(|found| &found.all);
        all.filter_map(|address| address.text.parse().ok()).collect()
    }

    /// Its member `ip`; the server compares these names without regard to case.
    pub(crate) fn ip(&self) -> Option<Member<'d>> {
        self.members.named_as("ip")
    }
}

/// An object with the places of its members.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Members<'d> {
    object: &'d Object<'d>,
    base: usize,
}

impl<'d> Members<'d> {
    pub(crate) fn span(self) -> Range<usize> {
        shifted(self.object, self.base)
    }

    pub(crate) fn last(self) -> Option<Member<'d>> {
        self.all().last()
    }

    /// The last member of that name, in whatever case.
    fn named_as(self, name: &str) -> Option<Member<'d>> {
        self.all().rfind(|member| member.name().eq_ignore_ascii_case(name))
    }

    pub(crate) fn all(self) -> impl DoubleEndedIterator<Item = Member<'d>> {
        self.object.properties.iter().map(move |property| Member { property, base: self.base })
    }
}

/// A member of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member<'d> {
    property: &'d ObjectProp<'d>,
    base: usize,
}

impl<'d> Member<'d> {
    pub(crate) fn name(self) -> &'d str {
        self.property.name.as_str()
    }

    pub(crate) fn span(self) -> Range<usize> {
        shifted(self.property, self.base)
    }

    pub(crate) fn name_span(self) -> Range<usize> {
        shifted(&self.property.name, self.base)
    }

    pub(crate) fn value_span(self) -> Range<usize> {
        shifted(&self.property.value, self.base)
    }

    pub(crate) fn object(self) -> Option<Members<'d>> {
        Some(Members { object: self.property.value.as_object()?, base: self.base })
    }
}

fn shifted(node: &impl jsonc_parser::common::Ranged, base: usize) -> Range<usize> {
    let range = node.range();
    range.start + base..range.end + base
}

impl<'a> Document<'a> {
    /// Parses a whole file.
    ///
    /// # Errors
    /// It is not JSON, or not an object.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Document<'a>, DocumentError> {
        let not_json = |offset, reason| {
            let position = Position::of(bytes, offset);
            DocumentError::NotJson { position, reason }
        };
        let text = std::str::from_utf8(bytes)
            .map_err(|error| not_json(error.valid_up_to(), "the text is not UTF-8".to_owned()))?;
        let json = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let base = text.len() - json.len();
        let seen: serde_json::Value = serde_json::from_str(json).map_err(|error| {
            let offset = base + offset_of(json, error.line(), error.column());
            let reason = error.to_string();
            not_json(offset, reason.split(" at line ").next().unwrap_or_default().to_owned())
        })?;
        let parsed = parse_to_ast(json, &CollectOptions::default(), &strict())
            .map_err(|error| not_json(base + error.range().start, error.kind().to_string()))?;
        match parsed.value {
            Some(Value::Object(root)) => Ok(Document { text, base, root, seen }),
            _ => Err(not_json(base, "the file is no object".to_owned())),
        }
    }

    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    pub(crate) fn position(&self, offset: usize) -> Position {
        Position::of(self.text.as_bytes(), offset)
    }

    fn shape(&self, offset: usize, path: &str, reason: &'static str) -> DocumentError {
        DocumentError::Shape { position: self.position(offset), path: path.to_owned(), reason }
    }

    fn root(&self) -> Members<'_> {
        Members { object: &self.root, base: self.base }
    }

    fn object<'d>(&self, parent: Members<'d>, name: &str, path: &str) -> Result<Members<'d>, DocumentError> {
        let Some(member) = parent.all().rfind(|member| member.name() == name) else {
            return Err(self.shape(parent.span().start, path, "is missing"));
        };
        member.object().ok_or_else(|| self.shape(member.value_span().start, path, "is not an object"))
    }

    /// `dns.staticDataInDomain`.
    pub(crate) fn names(&self) -> Result<Members<'_>, DocumentError> {
        let dns = self.object(self.root(), "dns", "dns")?;
        self.object(dns, "staticDataInDomain", "dns.staticDataInDomain")
    }

    /// The entry of that name, as the server sees it.
    pub(crate) fn entry(&self, name: &str) -> Result<Option<Entry<'_>>, DocumentError> {
        let found = self.names()?.all().rfind(|member| member.name() == name);
        found.map(|member| self.understood(member)).transpose()
    }

    /// All entries, in the file's order; of several of one name the one that counts.
    pub(crate) fn entries(&self) -> Result<Vec<Entry<'_>>, DocumentError> {
        let names = self.names()?;
        let counts = |member: &Member<'_>| {
            let last = names.all().rfind(|other| other.name() == member.name());
            last.is_some_and(|last| last.span() == member.span())
        };
        names.all().filter(counts).map(|member| self.understood(member)).collect()
    }

    fn understood<'d>(&self, member: Member<'d>) -> Result<Entry<'d>, DocumentError> {
        let path = format!("dns.staticDataInDomain.{}", member.name());
        let Some(members) = member.object() else {
            return Err(self.shape(member.value_span().start, &path, "is not an object"));
        };
        let addresses =
            members.named_as("ip").map(|part| self.addresses(part, &format!("{path}.ip"))).transpose()?;
        let alias = members.named_as("alias").map(|part| self.text[part.value_span()].to_owned());
        Ok(Entry { name: member.name().to_owned(), span: member.span(), members, addresses, alias })
    }

    fn addresses(&self, member: Member<'_>, path: &str) -> Result<Addresses, DocumentError> {
        let address = |value: &Value<'_>| match value {
            Value::StringLit(literal) => {
                Ok(Address { text: literal.value.to_string(), span: shifted(literal, self.base) })
            }
            other => {
                Err(self.shape(shifted(other, self.base).start, path, "holds something that is no string"))
            }
        };
        let span = member.value_span();
        match &member.property.value {
            Value::Array(array) => {
                let all = array.elements.iter().map(address).collect::<Result<_, _>>()?;
                Ok(Addresses { all, span, is_array: true })
            }
            other => Ok(Addresses { all: vec![address(other)?], span, is_array: false }),
        }
    }

    /// How long others may keep an answer, where the file says so.
    pub(crate) fn ttl_s(&self) -> Option<u64> {
        self.seen.pointer("/dns/defaultTTL").and_then(serde_json::Value::as_u64)
    }

    /// The domain that the entries are names in.
    pub(crate) fn domain(&self) -> Option<&str> {
        self.seen.pointer("/dns/domain").and_then(serde_json::Value::as_str)
    }

    /// Every string value that holds `word`, with the path to it and its place.
    pub(crate) fn strings_with(&self, word: &str) -> Vec<(String, Range<usize>)> {
        let mut found = Vec::new();
        for member in self.root().all() {
            self.look(&member.property.value, member.name().to_owned(), word, &mut found);
        }
        found
    }

    fn look(&self, value: &Value<'_>, path: String, word: &str, found: &mut Vec<(String, Range<usize>)>) {
        match value {
            Value::StringLit(literal) if words(literal.value.as_bytes(), word).next().is_some() => {
                found.push((path, shifted(literal, self.base)));
            }
            Value::Object(object) => {
                for property in &object.properties {
                    self.look(&property.value, format!("{path}.{}", property.name.as_str()), word, found);
                }
            }
            Value::Array(array) => {
                for (index, element) in array.elements.iter().enumerate() {
                    self.look(element, format!("{path}[{index}]"), word, found);
                }
            }
            _ => {}
        }
    }
}

/// Where `word` stands in `text`, not as part of a longer name or address.
pub(crate) fn words<'t>(text: &'t [u8], word: &'t str) -> impl Iterator<Item = usize> + 't {
    let word = word.as_bytes();
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    // `1.2.3.4` is not in `11.2.3.4`, nor in `1.2.3.4.5`; it is in `1.2.3.4.` at the end of a sentence.
    let continues = move |rest: &[u8]| match rest {
        [b'.' | b':', next, ..] => next.is_ascii_digit() && word.last().is_some_and(u8::is_ascii_digit),
        [next, ..] => is_part(next),
        [] => false,
    };
    let goes_before = move |head: &[u8]| match head {
        [.., before, b'.'] => before.is_ascii_digit() && word.first().is_some_and(u8::is_ascii_digit),
        [.., before] => is_part(before),
        [] => false,
    };
    let last = text.len().saturating_sub(word.len());
    (0..=last).filter(move |&at| {
        !word.is_empty()
            && text[at..].starts_with(word)
            && !continues(&text[at + word.len()..])
            && !goes_before(&text[..at])
    })
}

fn strict() -> ParseOptions {
    ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

/// serde_json counts lines from 1 and the bytes read of the last one.
fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    (before + column.saturating_sub(1)).min(text.len())
}

//! Names and relative paths as types: what came from a peer is checked once, here.
//!
//! A path is bytes, not text. A [`RelPath`] can't be absolute, can't climb, and has no empty, `.` or
//! `..` component; joined to a directory handle it can only lead below it (symbolic links are the
//! handle's business, see the agent's `tree` module).

use crate::limits;
use bincode::de::Decoder;
use bincode::de::read::Reader as _;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Why some bytes are not a name or a relative path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No bytes where a name must stand (also `a//b` and a trailing slash).
    #[error("an empty name")]
    Empty,
    /// `.` or `..`
    #[error("the name '.' or '..'")]
    Dots,
    /// A slash inside a name.
    #[error("a slash in a name")]
    Slash,
    /// A NUL byte.
    #[error("a NUL byte")]
    Nul,
    /// Longer than [`limits::NAME_BYTES`] or [`limits::PATH_BYTES`].
    #[error("too long")]
    TooLong,
}

/// The name of one directory entry: 1 to 255 bytes, no slash, no NUL, not `.` or `..`.
#[derive(Clone)]
pub struct Name(NameBytes);

/// Most names are short, and a run makes, copies and drops several for each entry, often on different threads:
/// those stay out of the allocator.
#[derive(Clone)]
enum NameBytes {
    Short { length: u8, bytes: [u8; SHORT_BYTES] },
    Long(Box<[u8]>),
}

/// As many as make a name 32 bytes large; the identifiers of most databases have 24 to 26.
const SHORT_BYTES: usize = 30;

impl Name {
    /// Checks `bytes`.
    ///
    /// # Errors
    /// Says which rule of a name they break.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Name, PathError> {
        let bytes = bytes.as_ref();
        check_name(bytes)?;
        Ok(Name::of(bytes))
    }

    /// `bytes` that were checked.
    fn of(bytes: &[u8]) -> Name {
        let mut short = [0; SHORT_BYTES];
        match (short.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(start), Ok(length)) => {
                start.copy_from_slice(bytes);
                Name(NameBytes::Short { length, bytes: short })
            }
            _ => Name(NameBytes::Long(bytes.into())),
        }
    }

    /// The bytes as they stand on disk.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            NameBytes::Short { length, bytes } => &bytes[..usize::from(*length)],
            NameBytes::Long(bytes) => bytes,
        }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Name) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Name) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

fn check_name(bytes: &[u8]) -> Result<(), PathError> {
    match bytes {
        b"" => Err(PathError::Empty),
        b"." | b".." => Err(PathError::Dots),
        _ if bytes.len() > limits::NAME_BYTES => Err(PathError::TooLong),
        _ if bytes.contains(&b'/') => Err(PathError::Slash),
        _ if bytes.contains(&0) => Err(PathError::Nul),
        _ => Ok(()),
    }
}

impl std::borrow::Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// A path below a root: names joined by single slashes; the root itself is the empty path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// The root itself.
    #[must_use]
    pub fn root() -> RelPath {
        RelPath::default()
    }

    /// Checks every component of `bytes`.
    ///
    /// # Errors
    /// Says which rule they break.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<RelPath, PathError> {
        let bytes = bytes.into();
        if bytes.len() > limits::PATH_BYTES {
            return Err(PathError::TooLong);
        }
        if !bytes.is_empty() {
            bytes.split(|&byte| byte == b'/').try_for_each(check_name)?;
        }
        Ok(RelPath(bytes))
    }

    /// The path of these names.
    pub(crate) fn of<'a>(names: impl Iterator<Item = &'a Name>) -> RelPath {
        let names: Vec<&[u8]> = names.map(Name::as_bytes).collect();
        RelPath(names.join(&b'/').into())
    }

    /// Whether one more name still makes a path.
    #[must_use]
    pub fn has_room_for(&self, name: &Name) -> bool {
        self.0.len() + 1 + name.as_bytes().len() <= limits::PATH_BYTES
    }

    /// This path with one more name.
    #[must_use]
    pub fn join(&self, name: &Name) -> RelPath {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.as_bytes().len());
        bytes.extend_from_slice(&self.0);
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name.as_bytes());
        RelPath(bytes.into())
    }

    /// The directory this path stands in and its last name; none for the root.
    #[must_use]
    pub fn split_last(&self) -> Option<(RelPath, Name)> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|&byte| byte == b'/');
        let parent = cut.map_or(&[][..], |at| &self.0[..at]);
        let name = cut.map_or(&self.0[..], |at| &self.0[at + 1..]);
        Some((RelPath(parent.into()), Name::of(name)))
    }

    /// This path as seen from `above`; none where it is not within it.
    #[must_use]
    pub fn seen_from(&self, above: &RelPath) -> Option<RelPath> {
        if above.is_root() {
            return Some(self.clone());
        }
        match self.0.strip_prefix(above.as_bytes())? {
            [] => Some(RelPath::root()),
            [b'/', rest @ ..] => Some(RelPath(rest.into())),
            _ => None,
        }
    }

    /// Whether this is `other`, or below it.
    #[must_use]
    pub fn is_within(&self, other: &RelPath) -> bool {
        let rest = self.0.strip_prefix(other.as_bytes());
        other.is_root() || rest.is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
    }

    /// Its names, from the root down.
    pub fn names(&self) -> impl Iterator<Item = Name> {
        self.0.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).map(Name::of)
    }

    /// Whether this is the root itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// How many names deep.
    #[must_use]
    pub fn depth(&self) -> usize {
        if self.is_root() { 0 } else { 1 + self.0.iter().filter(|&&byte| byte == b'/').count() }
    }

    /// The bytes, without a leading or trailing slash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Writes bytes from a file's name so that no terminal obeys them, as rsync does: `\#ooo` for control
/// characters (tab and delete do no harm) and bytes that are not UTF-8, everything else as it is. A backslash
/// that could be taken for the start of such a code is written as one.
pub fn escape(bytes: &[u8], text: &mut String) {
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid();
        for (at, letter) in valid.char_indices() {
            let is_code = letter == '\\' && looks_like_code(&valid.as_bytes()[at..]);
            if is_code || letter.is_control() && !matches!(letter, '\t' | '\x7f') {
                valid.as_bytes()[at..at + letter.len_utf8()].iter().for_each(|&byte| octal(byte, text));
            } else {
                text.push(letter);
            }
        }
        chunk.invalid().iter().for_each(|&byte| octal(byte, text));
    }
}

/// [`escape`] for a terminal that takes ASCII only.
pub fn escape_to_ascii(bytes: &[u8], text: &mut String) {
    for part in bytes.chunk_by(|a, b| a.is_ascii() == b.is_ascii()) {
        if part.is_ascii() {
            escape(part, text);
        } else {
            part.iter().for_each(|&byte| octal(byte, text));
        }
    }
}

fn looks_like_code(bytes: &[u8]) -> bool {
    matches!(bytes, [b'\\', b'#', rest @ ..] if rest.len() >= 3 && rest[..3].iter().all(u8::is_ascii_digit))
}

fn octal(byte: u8, text: &mut String) {
    use fmt::Write as _;
    let _ = write!(text, "\\#{byte:03o}");
}

/// [`escape`] as a string of its own.
#[must_use]
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    escape(bytes, &mut text);
    text
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", escaped(self.as_bytes()))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", escaped(&self.0))
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "." } else { "" })?;
        f.write_str(&escaped(&self.0))
    }
}

impl Encode for Name {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.as_bytes().encode(encoder)
    }
}

impl<Context> Decode<Context> for Name {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let refused = |error: PathError| DecodeError::OtherString(error.to_string());
        let mut bytes = [0; limits::NAME_BYTES];
        let length = usize::try_from(u64::decode(decoder)?).unwrap_or(usize::MAX);
        let bytes = bytes.get_mut(..length).ok_or_else(|| refused(PathError::TooLong))?;
        decoder.claim_bytes_read(length)?;
        decoder.reader().read(bytes)?;
        Name::new(bytes).map_err(refused)
    }
}

impl Encode for RelPath {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.encode(encoder)
    }
}

impl<Context> Decode<Context> for RelPath {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let bytes = Vec::<u8>::decode(decoder)?;
        RelPath::new(bytes).map_err(|error| DecodeError::OtherString(error.to_string()))
    }
}

bincode::impl_borrow_decode!(Name);
bincode::impl_borrow_decode!(RelPath);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn a_relative_path_can_only_lead_down() {
        for (bytes, expected) in [
            (&b"a/b c/\xff\n"[..], Ok(())),
            (b"", Ok(())),
            (b"...", Ok(())),
            (b"/a", Err(PathError::Empty)),
            (b"a//b", Err(PathError::Empty)),
            (b"a/", Err(PathError::Empty)),
            (b"a/../b", Err(PathError::Dots)),
            (b"./a", Err(PathError::Dots)),
            (b"a\0", Err(PathError::Nul)),
            (&[b'x'; 256], Err(PathError::TooLong)),
        ] {
            assert_eq!(RelPath::new(bytes).map(|_| ()), expected, "{}", escaped(bytes));
            let mut wire = Vec::new();
            codec::encode_into(&bytes.to_vec(), &mut wire);
            let decoded = codec::decode_all::<RelPath>(&wire, "path");
            assert_eq!(decoded.is_ok(), expected.is_ok());
        }
    }

    #[test]
    fn a_name_is_its_bytes_short_or_long() {
        let lengths = [1, SHORT_BYTES - 1, SHORT_BYTES, SHORT_BYTES + 1, limits::NAME_BYTES];
        let names: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![b'n'; length]).collect();
        for (a, b) in names.iter().flat_map(|a| names.iter().map(move |b| (a, b))) {
            let (name, other) = (Name::new(a).unwrap(), Name::new(b).unwrap());
            assert_eq!((name.as_bytes(), name.cmp(&other)), (&a[..], a.cmp(b)));
            assert_eq!(name == other, a == b);
            let by_bytes = std::collections::HashMap::from([(name, ())]);
            assert_eq!(by_bytes.contains_key(&b[..]), a == b);
        }
        for length in [0, 1, SHORT_BYTES, SHORT_BYTES + 1, limits::NAME_BYTES, limits::NAME_BYTES + 1] {
            let mut wire = Vec::new();
            codec::encode_into(&vec![b'n'; length], &mut wire);
            let decoded = codec::decode_all::<Name>(&wire, "name");
            assert_eq!(decoded.ok(), Name::new(vec![b'n'; length]).ok(), "{length}");
            assert!(codec::decode_all::<Name>(&wire[..length], "name").is_err(), "cut off");
        }
    }

    #[test]
    fn join_and_split_last_are_inverse() {
        let path = RelPath::new(*b"a/b").unwrap();
        let name = Name::new(*b"c").unwrap();
        assert_eq!(path.join(&name).split_last(), Some((path, name.clone())));
        assert_eq!(RelPath::root().join(&name).split_last(), Some((RelPath::root(), name)));
        assert_eq!(RelPath::root().split_last(), None);
    }

    #[test]
    fn a_path_is_seen_from_those_above_it_only() {
        let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
        for (below, above, seen) in [
            ("a/b/c", "a", Some("b/c")),
            ("a/b", "a/b", Some("")),
            ("a/b", "", Some("a/b")),
            ("ab", "a", None),
            ("a", "a/b", None),
            ("", "", Some("")),
        ] {
            assert_eq!(path(below).seen_from(&path(above)), seen.map(path), "{below} from {above}");
            assert_eq!(path(below).is_within(&path(above)), seen.is_some(), "{below} in {above}");
        }
        let names: Vec<Name> = path("a/b").names().collect();
        assert_eq!((RelPath::of(names.iter()), path("").names().count()), (path("a/b"), 0));
    }

    #[test]
    fn escapes_what_a_terminal_would_obey_and_nothing_else() {
        assert_eq!(escaped("é a\\b".as_bytes()), "é a\\b");
        assert_eq!(escaped(b"a\x1b[2J\n\xff\t\x7f"), "a\\#033[2J\\#012\\#377\t\x7f");
        assert_eq!(escaped(b"back\\#012 \\#x"), "back\\#134#012 \\#x");
        assert_eq!(escaped("\u{9b}".as_bytes()), "\\#302\\#233");
    }
}

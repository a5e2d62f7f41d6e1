//! `--out-format` and `--log-file-format`: rsync's `%` escapes, taken apart once and filled in for each item.
//!
//! A format never fails: what is no escape stands for itself, as in rsync. So do the escapes that only rsync's
//! daemon knows (`%a %h %u %P`).
//!
//! # Source
//! rsyncd.conf(5) 3.5.0, `log format`; the details (padding, what a deleted entry shows) by comparison.

use super::number::Human;

/// A line's pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Escape { field: Field, padding: Padding, human: Human },
}

/// What an escape stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// `%i`: the eleven letters.
    Itemized,
    /// `%n`: the name, with a slash behind a directory's.
    Name,
    /// `%f`: the name with where it comes from, without that slash.
    LongName,
    /// `%L`: where a link leads.
    Target,
    /// `%l`: the length.
    Size,
    /// `%b`: bytes of content that were transferred.
    Literal,
    /// `%c`: bytes of block checksums.
    Checksums,
    /// `%C`: the hash of the content.
    ContentHash,
    /// `%B`: permissions in letters.
    Mode,
    /// `%U`.
    Uid,
    /// `%G`.
    Gid,
    /// `%M`: modification time.
    Mtime,
    /// `%o`: what is done.
    Operation,
    /// `%p`: the number of this process.
    Process,
    /// `%t`: now.
    Now,
    /// `%m`: a daemon's module: none.
    Module,
    /// `%%`.
    Percent,
}

/// A field's width; text stands at its right end unless `left`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Padding {
    width: usize,
    left: bool,
    zeros: bool,
}

/// Widths beyond this are not anybody's.
const WIDEST: usize = 4096;

/// What a field comes to.
pub(crate) enum Value {
    Bytes(Vec<u8>),
    /// A number that apostrophes make readable.
    Amount(u64),
    /// A number as it is.
    Number(u64),
}

impl Format {
    /// What `-i` prints.
    #[must_use]
    pub fn itemized() -> Format {
        Format::parse(b"%i %n%L")
    }

    /// What `-v` prints.
    #[must_use]
    pub fn names() -> Format {
        Format::parse(b"%n%L")
    }

    /// What is logged of a deletion by a format that does not say what is done.
    #[must_use]
    pub fn deletions() -> Format {
        Format::parse(b"deleting %n")
    }

    /// Takes a format apart.
    #[must_use]
    pub fn parse(format: &[u8]) -> Format {
        let mut parts = Vec::new();
        let mut text = Vec::new();
        let mut rest = format;
        while let Some((&first, behind)) = rest.split_first() {
            rest = behind;
            if first != b'%' {
                text.push(first);
                continue;
            }
            match escape(behind) {
                Some((part, used)) => {
                    if !text.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut text)));
                    }
                    parts.push(part);
                    rest = &behind[used..];
                }
                None => text.push(b'%'),
            }
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Format(parts)
    }

    /// Whether it has `%i`: then everything that changes is mentioned.
    #[must_use]
    pub fn is_itemized(&self) -> bool {
        self.has(&[Field::Itemized])
    }

    /// Whether it tells a deletion from anything else.
    #[must_use]
    pub fn says_what_is_done(&self) -> bool {
        self.has(&[Field::Itemized, Field::Operation])
    }

    fn has(&self, fields: &[Field]) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Escape { field, .. } if fields.contains(field)))
    }

    /// Whether it is empty: in a log file, nothing is said of entries then.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The line with each field filled in.
    pub(crate) fn fill(&self, value: impl Fn(Field) -> Value) -> Vec<u8> {
        let mut line = Vec::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => line.extend_from_slice(text),
                Part::Escape { field, padding, human } => match value(*field) {
                    Value::Bytes(bytes) => Padding { zeros: false, ..*padding }.put(&mut line, &bytes),
                    Value::Amount(number) => {
                        let padding = Padding { zeros: false, ..*padding };
                        padding.put(&mut line, human.number(number).as_bytes());
                    }
                    Value::Number(number) => padding.put(&mut line, number.to_string().as_bytes()),
                },
            }
        }
        line
    }
}

/// The escape behind a `%`, and how many bytes it takes; none if it is none.
fn escape(behind: &[u8]) -> Option<(Part, usize)> {
    let mut at = usize::from(behind.first() == Some(&b'-'));
    let left = at > 0;
    let digits = behind[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let zeros = behind[at..].starts_with(b"0") && !left;
    let mut width = 0_usize;
    for &digit in &behind[at..at + digits] {
        width = (width * 10 + usize::from(digit - b'0')).min(WIDEST);
    }
    at += digits;
    let quotes = behind[at..].iter().take_while(|&&byte| byte == b'\'').count();
    at += quotes;
    let field = match behind.get(at)? {
        b'%' => Field::Percent,
        b'i' => Field::Itemized,
        b'n' => Field::Name,
        b'f' => Field::LongName,
        b'L' => Field::Target,
        b'l' => Field::Size,
        b'b' => Field::Literal,
        b'c' => Field::Checksums,
        b'C' => Field::ContentHash,
        b'B' => Field::Mode,
        b'U' => Field::Uid,
        b'G' => Field::Gid,
        b'M' => Field::Mtime,
        b'o' => Field::Operation,
        b'p' => Field::Process,
        b't' => Field::Now,
        b'm' => Field::Module,
        _ => return None,
    };
    let human = Human::level(u8::try_from(quotes).unwrap_or(u8::MAX));
    let padding = Padding { width, left, zeros };
    Some((Part::Escape { field, padding, human }, at + 1))
}

impl Padding {
    fn put(self, line: &mut Vec<u8>, text: &[u8]) {
        let missing = self.width.saturating_sub(text.len());
        let filler = if self.zeros { b'0' } else { b' ' };
        if !self.left {
            line.extend(std::iter::repeat_n(filler, missing));
        }
        line.extend_from_slice(text);
        if self.left {
            line.extend(std::iter::repeat_n(b' ', missing));
        }
    }
}

/// `rwxr-xr-t`.
#[must_use]
pub(crate) fn mode_letters(mode: u16) -> String {
    let set = |bit: u16, letter: char| if mode & bit != 0 { letter } else { '-' };
    let execute = |bit: u16, special: u16, small: char, capital: char| match (mode & bit, mode & special) {
        (0, 0) => '-',
        (_, 0) => 'x',
        (0, _) => capital,
        _ => small,
    };
    [
        set(0o400, 'r'),
        set(0o200, 'w'),
        execute(0o100, 0o4000, 's', 'S'),
        set(0o040, 'r'),
        set(0o020, 'w'),
        execute(0o010, 0o2000, 's', 'S'),
        set(0o004, 'r'),
        set(0o002, 'w'),
        execute(0o001, 0o1000, 't', 'T'),
    ]
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(format: &str) -> String {
        let value = |field| match field {
            Field::Name => Value::Bytes(b"name".to_vec()),
            Field::Size => Value::Amount(1_234_567),
            Field::Uid => Value::Number(42),
            Field::Percent => Value::Bytes(b"%".to_vec()),
            _ => Value::Bytes(Vec::new()),
        };
        String::from_utf8(Format::parse(format.as_bytes()).fill(value)).unwrap()
    }

    #[test]
    fn escapes_are_filled_in_as_rsync_does() {
        for (format, line) in [
            ("", ""),
            ("plain", "plain"),
            ("<%n>", "<name>"),
            ("%6n|%-6n|%2n", "  name|name  |name"),
            ("%06n", "  name"),
            ("%l %'l %''l %'''l", "1234567 1,234,567 1.23M 1.18M"),
            ("%12'l|%-12''l|", "   1,234,567|1.23M       |"),
            ("%5U|%05U|%-5U|%-05U|", "   42|00042|42   |42   |"),
            ("100%%", "100%"),
            ("%z %h %", "%z %h %"),
            ("%5", "%5"),
            ("%-'", "%-'"),
            ("%5%|%-3%|", "    %|%  |"),
        ] {
            assert_eq!(filled(format), line, "{format}");
        }
        assert_eq!(filled("%99999999999999999999999n").len(), WIDEST);
    }

    #[test]
    fn what_a_format_asks_for_is_known() {
        assert!(Format::itemized().is_itemized() && Format::itemized().says_what_is_done());
        assert!(Format::parse(b"%o").says_what_is_done());
        assert!(!Format::names().is_itemized() && !Format::names().says_what_is_done());
        assert!(Format::parse(b"").is_empty());
    }

    #[test]
    fn modes_have_the_letters_of_ls() {
        for (mode, letters) in [
            (0o755, "rwxr-xr-x"),
            (0o4755, "rwsr-xr-x"),
            (0o4644, "rwSr--r--"),
            (0o2750, "rwxr-s---"),
            (0o2640, "rw-r-S---"),
            (0o1777, "rwxrwxrwt"),
            (0o1776, "rwxrwxrwT"),
            (0, "---------"),
        ] {
            assert_eq!(mode_letters(mode), letters);
        }
    }
}

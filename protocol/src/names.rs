//! Lists of names: which entries of the source are copied (`--files-from`), as somebody wrote them down.
//!
//! A list is read where it is, by the client or by the agent of either end, and goes to the source as one
//! block of bytes, a zero byte behind each name ([`zero_ended`]), in as many [`NamesPart`]s as it needs. The source makes
//! paths of them ([`ListedPath`]): none can lead out of its root.

use crate::limits;
use crate::path::{Name, PathError, RelPath};
use bincode::{Decode, Encode};

/// A list that is a file at the agent's end.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ListFile {
    /// Its path there, as typed.
    pub path: Vec<u8>,
    /// Its names end with a zero byte, not with the line.
    pub zero_ended: bool,
}

/// Where the source gets its list from, if it copies what a list names.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum List {
    /// From the client: [`NamesPart`]s follow the start.
    Follows,
    /// From a file next to it.
    File(ListFile),
}

/// A part of a list on its way to the source.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NamesPart {
    /// The next bytes of it; a name may go on in the next part.
    pub bytes: Vec<u8>,
    /// No further part follows.
    pub last: bool,
}

/// The parts of a list of names that [`zero_ended`] made.
pub fn parts(names: &[u8]) -> impl Iterator<Item = NamesPart> {
    let count = names.len().div_ceil(limits::DATA_BYTES).max(1);
    (1..=count).map(move |number| {
        let from = (number - 1) * limits::DATA_BYTES;
        let to = names.len().min(number * limits::DATA_BYTES);
        NamesPart { bytes: names[from..to].to_vec(), last: number == count }
    })
}

/// The names in the content of a file, a zero byte behind each; without blank lines and comments (`#` and `;`).
#[must_use]
pub fn zero_ended(content: &[u8], is_zero_ended: bool) -> Vec<u8> {
    let ends = |byte: &u8| if is_zero_ended { *byte == 0 } else { matches!(byte, b'\n' | b'\r' | 0) };
    let mut names = Vec::with_capacity(content.len() + 1);
    for name in content.split(ends).filter(|name| !matches!(name, [] | [b'#' | b';', ..])) {
        names.extend_from_slice(name);
        names.push(0);
    }
    names
}

/// Each name of a list that [`zero_ended`] made.
pub fn each(names: &[u8]) -> impl Iterator<Item = &[u8]> {
    names.split(|&byte| byte == 0).filter(|name| !name.is_empty())
}

/// What a name of a list means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPath {
    /// The directory below the source that the copy begins at: what stands before `/./`.
    pub base: RelPath,
    /// The names that lead from there to what is copied; the directories on the way are made too.
    pub names: Vec<Name>,
    /// It is written as a directory (`dir/`, `.`): what is in it is copied as well.
    pub with_content: bool,
}

impl ListedPath {
    /// Makes a path of a name: a leading slash is dropped, and `..` takes away what stands before it, if anything.
    ///
    /// # Errors
    /// A part of it can't be the name of an entry.
    pub fn parse(name: &[u8]) -> Result<ListedPath, PathError> {
        let cut = name.windows(3).position(|bytes| bytes == b"/./");
        let (base, path) = cut.map_or((&b""[..], name), |at| (&name[..at], &name[at + 3..]));
        let with_content = matches!(path, b"" | b"." | b"..")
            || path.ends_with(b"/")
            || path.ends_with(b"/.")
            || path.ends_with(b"/..");
        if name.len() > limits::PATH_BYTES {
            return Err(PathError::TooLong);
        }
        let base = RelPath::of(collapsed(base)?.iter());
        Ok(ListedPath { base, names: collapsed(path)?, with_content })
    }

    /// The path from the base on.
    #[must_use]
    pub fn path(&self) -> RelPath {
        RelPath::of(self.names.iter())
    }
}

fn collapsed(path: &[u8]) -> Result<Vec<Name>, PathError> {
    let mut names = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            part => names.push(Name::new(part)?),
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's failure is its panic")]

    use super::*;

    #[test]
    fn a_name_of_a_list_leads_down_only() {
        for (name, base, path, with_content) in [
            ("a", "", "a", false),
            ("/a/b", "", "a/b", false),
            ("a/b/", "", "a/b", true),
            ("a//b/.", "", "a/b", true),
            (".", "", "", true),
            ("./", "", "", true),
            ("../../a", "", "a", false),
            ("a/../b", "", "b", false),
            ("a/..", "", "", true),
            ("a/b/./c/d", "a/b", "c/d", false),
            ("../x/./../c", "x", "c", false),
            ("/./a", "", "a", false),
        ] {
            let listed = ListedPath::parse(name.as_bytes()).unwrap();
            assert_eq!(listed.base.as_bytes(), base.as_bytes(), "{name}");
            assert_eq!(listed.path().as_bytes(), path.as_bytes(), "{name}");
            assert_eq!(listed.with_content, with_content, "{name}");
        }
        assert!(ListedPath::parse(&[b'a'; 256]).is_err());
    }

    #[test]
    fn a_file_gives_a_name_a_line_without_comments_and_blank_lines() {
        assert_eq!(zero_ended(b"a\r\n\n#c\n;d\nb c", false), b"a\0b c\0");
        assert_eq!(zero_ended(b"a\nb\0\0#c\0d", true), b"a\nb\0d\0");
        assert_eq!(each(b"a\0b c\0").collect::<Vec<_>>(), [&b"a"[..], b"b c"]);
    }

    #[test]
    fn the_parts_of_a_list_are_the_list() {
        for length in [0, 1, limits::DATA_BYTES, limits::DATA_BYTES + 1, 3 * limits::DATA_BYTES] {
            let names = vec![b'a'; length];
            let parts: Vec<_> = parts(&names).collect();
            assert_eq!(parts.iter().flat_map(|part| part.bytes.clone()).collect::<Vec<_>>(), names);
            assert_eq!(parts.iter().filter(|part| part.last).count(), 1);
            assert!(parts.last().unwrap().last);
        }
    }
}

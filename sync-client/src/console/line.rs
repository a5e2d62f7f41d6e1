//! One item as one line: names made printable, fields of a [`Format`] filled in.

use super::format::{Field, Format, Value, mode_letters};
use super::list::size_bytes;
use super::local_time::LocalTime;
use crate::job::Way;
use protocol::entry::Kind;
use protocol::itemize::{Arrow, Change, Content, Item, Particulars, Spared, letters};
use protocol::path::{RelPath, escape_to_ascii, escaped};
use std::borrow::Cow;

/// Which bytes of a name are printed as they are; the others in octal, as in rsync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Printable {
    /// ASCII.
    Ascii,
    /// UTF-8.
    Utf8,
    /// Whatever is no control character (`-8`).
    EightBit,
}

impl Printable {
    /// `bytes` with the others escaped.
    pub(crate) fn show(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Printable::Utf8 => escaped(bytes).into_bytes(),
            Printable::Ascii => {
                let mut text = String::new();
                escape_to_ascii(bytes, &mut text);
                text.into_bytes()
            }
            Printable::EightBit => {
                let ascii_or_high = |chunk: &[u8]| {
                    if chunk[0].is_ascii() { escaped(chunk).into_bytes() } else { chunk.to_vec() }
                };
                bytes.chunk_by(|a, b| a.is_ascii() == b.is_ascii()).flat_map(ascii_or_high).collect()
            }
        }
    }
}

/// Makes lines of items.
pub(crate) struct Renderer {
    pub(crate) printable: Printable,
    pub(crate) way: Way,
    /// `--times`: the letter for a changed time.
    pub(crate) times: bool,
    pub(crate) zone: LocalTime,
    /// Where what is sent comes from, for `%f`.
    pub(crate) origins: Origins,
}

impl Renderer {
    /// A path as it is printed.
    pub(crate) fn path(&self, path: &RelPath) -> Vec<u8> {
        self.printable.show(name_of(path))
    }

    /// An item's name and, of a link, where it leads, as `-v` prints it.
    pub(crate) fn name(&self, item: &Item) -> Vec<u8> {
        self.fill(&Format::names(), item)
    }

    pub(crate) fn letters(&self, item: &Item) -> String {
        match item {
            Item::Updated { kind, change, .. } => letters(kind, change, self.way.arrow(), self.times),
            Item::Deleted { .. } => "*deleting  ".to_owned(),
            Item::Spared { .. } => letters(&Kind::Directory, &Change::default(), Arrow::Sent, self.times),
        }
    }

    /// What is said of an entry that is left alone.
    pub(crate) fn spared(&self, path: &RelPath, is_dir: bool, why: Spared) -> Vec<u8> {
        let name = self.path(path);
        let quoted = |what: &str| [what.as_bytes(), b" \"", &name, b"\""].concat();
        match why {
            Spared::IsNew if is_dir => quoted("not creating new directory"),
            Spared::IsNew => quoted("not creating new file"),
            Spared::NotCopied => quoted("skipping non-regular file"),
            Spared::Exists => [&name, &b" exists"[..]].concat(),
            Spared::IsNewer => [&name, &b" is newer"[..]].concat(),
        }
    }

    /// The line of an item, as it is printed.
    pub(crate) fn fill(&self, format: &Format, item: &Item) -> Vec<u8> {
        self.fill_as(self.printable, format, item)
    }

    /// The line of an item. What is not printable is escaped last, as with rsync: widths count bytes as they are.
    pub(crate) fn fill_as(&self, printable: Printable, format: &Format, item: &Item) -> Vec<u8> {
        printable.show(&self.raw(format, item))
    }

    fn raw(&self, format: &Format, item: &Item) -> Vec<u8> {
        let nothing = Particulars::default();
        let (path, is_dir, kind, known, first) = match item {
            Item::Updated { path, kind, particulars, first, .. } => {
                (path, *kind == Kind::Directory, Some(kind), particulars, first.as_ref())
            }
            Item::Deleted { path, is_dir, .. } | Item::Spared { path, is_dir, .. } => {
                (path, *is_dir, None, &nothing, None)
            }
        };
        format.fill(|field| match field {
            Field::Itemized => Value::Bytes(self.letters(item).into_bytes()),
            Field::Name => Value::Bytes([name_of(path), if is_dir { &b"/"[..] } else { b"" }].concat()),
            Field::LongName => Value::Bytes(match kind {
                Some(_) => self.origins.long_name(path),
                None => name_of(path).to_vec(),
            }),
            Field::Target => Value::Bytes(match (kind, first) {
                (_, Some(first)) => [b" => ", name_of(first)].concat(),
                (Some(Kind::Symlink { target }), None) => [b" -> ", &**target].concat(),
                _ => Vec::new(),
            }),
            Field::Size => Value::Amount(kind.map_or(0, size_bytes)),
            Field::Literal => Value::Amount(known.literal_bytes),
            // Signatures are asked for in pieces that belong to no one line.
            Field::Checksums => Value::Amount(0),
            Field::ContentHash => Value::Bytes(hex(known)),
            Field::Mode => Value::Bytes(mode_letters(known.mode).into_bytes()),
            Field::Uid => Value::Number(u64::from(known.uid)),
            Field::Gid => Value::Number(u64::from(known.gid)),
            Field::Mtime => Value::Bytes(self.zone.stamp(known.mtime.secs).replace(' ', "-").into_bytes()),
            Field::Operation => Value::Bytes(self.operation(item).into()),
            Field::Process => Value::Number(u64::from(std::process::id())),
            Field::Now => Value::Bytes(self.zone.now().into_bytes()),
            Field::Module => Value::Bytes(Vec::new()),
            Field::Percent => Value::Bytes(b"%".to_vec()),
        })
    }

    fn operation(&self, item: &Item) -> &'static str {
        match (item, self.way) {
            (Item::Deleted { .. }, _) => "del.",
            (_, Way::Pull) => "recv",
            (_, Way::Push | Way::Local) => "send",
        }
    }
}

fn name_of(path: &RelPath) -> &[u8] {
    if path.is_root() { b"." } else { path.as_bytes() }
}

/// What is named without `%i`: what is transferred, made or deleted, not what only gets other attributes.
pub(crate) fn is_named(item: &Item) -> bool {
    match item {
        Item::Updated { kind, change, .. } => {
            change.content != Content::Kept || *kind == Kind::Directory && !change.is_none()
        }
        Item::Deleted { .. } => true,
        Item::Spared { .. } => false,
    }
}

/// What is to be filled in for an item where `format` is asked for; none if such items are not mentioned.
pub(crate) fn format_for<'f>(format: &'f Format, item: &Item) -> Option<Cow<'f, Format>> {
    match item {
        Item::Deleted { .. } if !format.says_what_is_done() => Some(Cow::Owned(Format::deletions())),
        _ => (is_named(item) || format.is_itemized() && matches!(item, Item::Updated { .. }))
            .then_some(Cow::Borrowed(format)),
    }
}

/// The content's hash, or as much room.
fn hex(known: &Particulars) -> Vec<u8> {
    match &known.content {
        Some(hash) => blake3::Hash::from_bytes(*hash).to_hex().as_bytes().to_vec(),
        None => vec![b' '; 2 * blake3::OUT_LEN],
    }
}

/// What stands before the names of a transfer in the source arguments.
#[derive(Debug, Default)]
pub(crate) struct Origins(Vec<Origin>);

#[derive(Debug)]
struct Origin {
    /// The first name of all that comes from there; of any, if the argument stands for its contents.
    top: Option<Vec<u8>>,
    prefix: Vec<u8>,
}

impl Origins {
    /// Those of source arguments of this machine.
    pub(crate) fn of(arguments: &[Vec<u8>]) -> Origins {
        Origins(arguments.iter().map(|argument| origin(argument)).collect())
    }

    fn long_name(&self, path: &RelPath) -> Vec<u8> {
        let top = path.as_bytes().split(|&byte| byte == b'/').next();
        let comes_from = |origin: &&Origin| origin.top.is_none() || origin.top.as_deref() == top;
        let prefix = self.0.iter().find(comes_from).map_or(&[][..], |origin| &origin.prefix);
        let name = name_of(path);
        if prefix.is_empty() { name.to_vec() } else { [prefix, name].join(&b'/') }
    }
}

fn origin(argument: &[u8]) -> Origin {
    let mut names: Vec<&[u8]> =
        argument.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
    let stands_for_contents = argument.ends_with(b"/") || argument.ends_with(b"/.") || argument == b".";
    let top = if stands_for_contents { None } else { names.pop().map(<[u8]>::to_vec) };
    Origin { top, prefix: names.join(&b'/') }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_starts_with_where_it_comes_from() {
        for (arguments, path, name) in [
            (&["s/"][..], "", "s/."),
            (&["s/"], "a/b", "s/a/b"),
            (&["s/sub"], "sub/f", "s/sub/f"),
            (&["/tmp/s/a"], "a", "tmp/s/a"),
            (&["./s/./sub/"], "f", "s/sub/f"),
            (&["."], "f", "f"),
            (&["x/a", "y/b"], "b/c", "y/b/c"),
            (&[], "b/c", "b/c"),
        ] {
            let arguments: Vec<Vec<u8>> =
                arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect();
            let path = if path.is_empty() { RelPath::root() } else { RelPath::new(path.as_bytes()).unwrap() };
            assert_eq!(Origins::of(&arguments).long_name(&path), name.as_bytes(), "{arguments:?}");
        }
    }

    #[test]
    fn high_bytes_are_left_alone_only_where_that_was_asked_for() {
        for (printable, shown) in [
            (Printable::Ascii, &b"a\\#377\\#303\\#251\\#012"[..]),
            (Printable::Utf8, b"a\\#377\xc3\xa9\\#012"),
            (Printable::EightBit, b"a\xff\xc3\xa9\\#012"),
        ] {
            assert_eq!(printable.show(b"a\xff\xc3\xa9\n"), shown, "{printable:?}");
        }
    }
}

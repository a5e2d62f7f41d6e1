//! Filter rules with rsync's meaning: which entries of a tree take part in a transfer, and which are kept from deletion.
//!
//! [`FilterRules`] is the ordered list that the operator gave: the first rule that matches an entry decides, and an entry
//! no rule matches is included. Some of its places stand for *per-directory files* (`dir-merge`): their rules are
//! read where the trees are, by each end from its own tree, and a [`Chain`] holds those that count in one directory: its own,
//! then what it inherits. A chain is never changed; a directory's is made from its parent's, so that threads that are in
//! different parts of a tree share what they have in common. [`Filter`] is the two together, and the one question
//! that an end asks.
//!
//! What always holds: a `FilterRules` keeps within [`MAX_RULES`], [`MAX_RULES_BYTES`] and [`MAX_PATTERN_BYTES`] however it
//! was made, so every list that can be built can also be decoded. Asking about an entry allocates nothing, unless a rule is
//! anchored outside the transfer (`/` modifier, per-directory files). Names are bytes; nothing here assumes UTF-8. Nothing
//! here reads a file: [`RuleFiles`] does, for the client by path, for an end through its tree.
//!
//! The client fills the list from the command line ([`parse`](self) has the syntax); the scan asks as [`Side::Sender`], the
//! deletion as [`Side::Receiver`]. Neither descends into an excluded directory.
//!
//! # Source
//!
//! rsync(1) of 3.5.0, FILTER RULES; where the page is silent, the behaviour of the program, against which
//! `tests/filter_parity.rs` and the workspace's `tests/filters.rs` compare. Deliberate differences, all where rsync goes on
//! with other rules than it was given: a pattern over [`MAX_PATTERN_BYTES`] (rsync drops it with a message) and a zero byte
//! in a rules file (rsync silently ignores the rest of that line) are errors here; in a pattern of a per-directory
//! file the directory's own name is never taken for wildcards; `-C` within such a file means the list of names that is built
//! in, without anybody's `~/.cvsignore`.

use std::cell::OnceCell;

mod chain;
mod cvs;
mod parse;
mod pattern;
mod wire;

pub use chain::{Chain, path_from};
use parse::{Defaults, Reader};
use pattern::{Entry, Pattern};

/// The most rules one list may hold.
pub const MAX_RULES: usize = 16_384;

/// The most bytes the patterns of one list may have together. The longest list with the most rules then
/// takes 832 KiB on the wire and fits in a frame of one mebibyte.
pub const MAX_RULES_BYTES: usize = 512 << 10;

/// The longest pattern in bytes, with its slashes and without its prefix.
///
/// # Source
/// rsync 3.5.0 answers "discarding over-long filter" from 4096 bytes on.
pub const MAX_PATTERN_BYTES: usize = 4095;

/// Why a rule could not be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// A prefix with nothing behind it.
    #[error("a filter rule consists of a prefix alone; write the pattern after it, as in \"- PATTERN\"")]
    MissingPattern,
    /// It begins with nothing that is a rule.
    #[error(
        "{rule:?} is no filter rule; it begins with one of + - . : ! H S P R or its long name, then a space or _"
    )]
    Unknown {
        /// As it stands there.
        rule: String,
    },
    /// A modifier that the rule can't have.
    #[error(
        "the filter rule {rule:?} can't have the modifier {modifier:?}; a space or _ comes before the pattern"
    )]
    Modifier {
        /// As it stands there.
        rule: String,
        /// Which.
        modifier: char,
    },
    /// The rule that clears the list takes no pattern.
    #[error(
        "the filter rule {rule:?} clears the list and takes no pattern; give the pattern in a rule of its own"
    )]
    Trailing {
        /// As it stands there.
        rule: String,
    },
    /// A file whose rules are for one side holds a rule that names a side.
    #[error(
        "the filter rule {rule:?} names a side, and so does the rule that reads this file; leave one of them out"
    )]
    SideTwice {
        /// As it stands there.
        rule: String,
    },
    /// Not the name of a file.
    #[error("{name:?} can't be the name of a file of filter rules")]
    FileName {
        /// As it stands there.
        name: String,
    },
    /// A file of rules can't be read.
    #[error("cannot read the filter rules in {name:?}: {why}")]
    File {
        /// As it was named.
        name: String,
        /// What happened.
        why: String,
    },
    /// Files that name each other.
    #[error("files of filter rules are merged more than {MAX_MERGES} deep; does one of them name itself?")]
    TooDeep,
    /// A pattern longer than [`MAX_PATTERN_BYTES`].
    #[error("a filter pattern has {pattern_bytes} bytes; no more than {MAX_PATTERN_BYTES} are allowed")]
    PatternTooLong {
        /// The pattern's length.
        pattern_bytes: usize,
    },
    /// A zero byte, which no name can contain.
    #[error(
        "a filter pattern contains a zero byte; write one pattern per line, ended by a newline, or give --from0"
    )]
    NulInPattern,
    /// More rules than [`MAX_RULES`].
    #[error("more than {MAX_RULES} filter rules; combine some with wildcards")]
    TooManyRules,
    /// More pattern bytes than [`MAX_RULES_BYTES`].
    #[error("filter patterns of more than {MAX_RULES_BYTES} bytes together; combine some with wildcards")]
    TooManyBytes,
    /// A per-directory file has a rule that is none.
    #[error("{file}: {source}")]
    Within {
        /// Its path.
        file: String,
        /// What is wrong in it.
        source: Box<FilterError>,
    },
    /// A rule of a rules file could not be added.
    #[error("line {line} of the filter rules: {source}")]
    InFile {
        /// Counted from one.
        line: usize,
        /// What is wrong with that line.
        source: Box<FilterError>,
    },
}

/// How deep files of rules may name each other.
const MAX_MERGES: usize = 16;

/// Where the content of files of rules comes from.
pub trait RuleFiles {
    /// The file that a `merge` rule names; `directory` is the absolute path of the per-directory file that holds the rule,
    /// without the slash before it, or none on the command line.
    ///
    /// # Errors
    /// Why it can't be read.
    fn merged(&mut self, name: &[u8], directory: Option<&[u8]>) -> Result<Vec<u8>, String>;

    /// The file `name` of a directory, by its absolute path without the slash before it; none where there is none.
    ///
    /// # Errors
    /// Why it can't be read.
    fn in_directory(&mut self, directory: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, String>;

    /// What the operator has in `~/.cvsignore` and `CVSIGNORE`.
    fn cvs_words(&mut self) -> Vec<u8>;
}

/// The end of a transfer that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Chooses what is sent: excluded means hidden from the transfer.
    Sender,
    /// Chooses what is deleted: excluded means protected from deletion.
    Receiver,
}

/// An ordered list of filter rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterRules {
    items: Vec<Item>,
    /// The per-directory files that the items name, by position.
    files: Vec<PerDirectory>,
    /// What a rule counts for that names no side.
    unsided: Sides,
    /// Files of rules have a zero byte for each line's end.
    zero_ended: bool,
    // A sum over `items`, kept because adding n rules would otherwise cost n² steps.
    pattern_bytes: usize,
}

impl FilterRules {
    /// Whether there is no rule, so that every entry is included.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether directories have rules of their own.
    pub fn are_per_directory(&self) -> bool {
        !self.files.is_empty()
    }

    /// From now on rules that name no side count for the sender alone (`--delete-excluded`).
    pub fn hide_only(&mut self) {
        self.unsided = Sides::SenderOnly;
    }

    /// Whether files of rules end their lines by a zero byte (`--from0`).
    pub fn end_lines_by_zero(&mut self, zero_ended: bool) {
        self.zero_ended = zero_ended;
    }

    /// Adds the argument of one `--filter`.
    ///
    /// # Errors
    /// The rule is malformed, a file can't be read, or the list is full; the list is then unchanged.
    pub fn push_filter(&mut self, rule: &[u8], files: &mut dyn RuleFiles) -> Result<(), FilterError> {
        self.extend(files, |reader| reader.rule(rule, &Defaults::rules()))
    }

    /// Adds the argument of one `--exclude`.
    ///
    /// As in rsync, `+ PATTERN` and `- PATTERN` say explicitly which kind of rule it is, `!` alone clears
    /// the list, and an empty argument does nothing.
    ///
    /// # Errors
    /// The rule is malformed or the list is full; the list is then unchanged.
    pub fn push_exclude(&mut self, pattern: &[u8]) -> Result<(), FilterError> {
        self.push(Action::Exclude, pattern)
    }

    /// Adds the argument of one `--include`; otherwise like [`push_exclude`](Self::push_exclude).
    ///
    /// # Errors
    /// The rule is malformed or the list is full; the list is then unchanged.
    pub fn push_include(&mut self, pattern: &[u8]) -> Result<(), FilterError> {
        self.push(Action::Include, pattern)
    }

    /// Adds the content of an `--exclude-from` file: one argument of `--exclude` per line.
    ///
    /// A line ends at a newline or a carriage return, or at a zero byte alone if it was so said; empty lines and lines that
    /// start with `;` or `#` are skipped. White space is part of the pattern.
    ///
    /// # Errors
    /// [`FilterError::InFile`] for the first line that can't be added; the list is then unchanged.
    pub fn push_exclude_file(&mut self, content: &[u8]) -> Result<(), FilterError> {
        self.extend(&mut NoFiles, |reader| reader.content(content, &Defaults::old(Action::Exclude)))
    }

    /// Adds the content of an `--include-from` file; otherwise like
    /// [`push_exclude_file`](Self::push_exclude_file).
    ///
    /// # Errors
    /// [`FilterError::InFile`] for the first line that can't be added; the list is then unchanged.
    pub fn push_include_file(&mut self, content: &[u8]) -> Result<(), FilterError> {
        self.extend(&mut NoFiles, |reader| reader.content(content, &Defaults::old(Action::Include)))
    }

    /// Whether the rules exclude an entry on that side of the transfer, where no directory has rules of its own.
    ///
    /// `path` and `is_dir` as in [`Filter::excludes`].
    pub fn excludes(&self, path: &[u8], is_dir: bool, side: Side) -> bool {
        Filter { rules: self, chain: None, root: b"", side }.excludes(path, is_dir)
    }

    fn push(&mut self, action: Action, argument: &[u8]) -> Result<(), FilterError> {
        self.extend(&mut NoFiles, |reader| match argument {
            [] => Ok(()),
            argument => reader.rule(argument, &Defaults::old(action)),
        })
    }

    /// Lets `read` add to the list; all of what it adds or nothing.
    fn extend(
        &mut self,
        files: &mut dyn RuleFiles,
        read: impl FnOnce(&mut Reader<'_>) -> Result<(), FilterError>,
    ) -> Result<(), FilterError> {
        let kept = (self.items.len(), self.files.len());
        let mut reader = Reader::of_list(self, files);
        let result = read(&mut reader);
        let (items, mut new_files, cleared) = reader.finish();
        result?;
        let (old_items, old_files) = if cleared { (0, 0) } else { kept };
        let old_bytes = if cleared { 0 } else { self.pattern_bytes };
        let pattern_bytes = old_bytes + items.iter().map(Item::pattern_bytes).sum::<usize>();
        if old_items + items.len() > MAX_RULES {
            return Err(FilterError::TooManyRules);
        }
        if pattern_bytes > MAX_RULES_BYTES {
            return Err(FilterError::TooManyBytes);
        }
        self.items.truncate(old_items);
        self.files.truncate(old_files);
        self.items.extend(items);
        self.files.append(&mut new_files);
        self.pattern_bytes = pattern_bytes;
        Ok(())
    }
}

/// On the command line only `--filter` reads files.
struct NoFiles;

impl RuleFiles for NoFiles {
    fn merged(&mut self, _: &[u8], _: Option<&[u8]>) -> Result<Vec<u8>, String> {
        Err("no file can be named here".to_owned())
    }

    fn in_directory(&mut self, _: &[u8], _: &[u8]) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }

    fn cvs_words(&mut self) -> Vec<u8> {
        Vec::new()
    }
}

/// The rules as one end asks them of the entries of one directory.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'a> {
    /// What the operator gave.
    pub rules: &'a FilterRules,
    /// What directories have of their own; none where no merge file was read.
    pub chain: Option<&'a Chain>,
    /// The absolute path of the transfer's root at this end, without the slash before it.
    pub root: &'a [u8],
    /// Which end this is.
    pub side: Side,
}

impl Filter<'_> {
    /// Whether an entry is left out of the transfer, or kept from deletion.
    ///
    /// `path` is relative to the root of the transfer, without a leading slash: with the source `dir/` an
    /// entry of it is `name`, with the source `dir` it is `dir/name`. `is_dir` is false for a symlink to a
    /// directory. The root itself is never asked about; the empty path is not excluded. That a parent is
    /// excluded is not considered here: the caller does not descend into excluded directories.
    #[must_use]
    pub fn excludes(&self, path: &[u8], is_dir: bool) -> bool {
        self.decide(path, is_dir, |_| true)
    }

    /// As [`Filter::excludes`], in a directory that is being deleted: rules that are perishable don't count.
    #[must_use]
    pub fn excludes_in_deleted(&self, path: &[u8], is_dir: bool) -> bool {
        self.decide(path, is_dir, |rule| !rule.is_perishable)
    }

    fn decide(&self, path: &[u8], is_dir: bool, counts: impl Fn(&Rule) -> bool + Copy) -> bool {
        if path.is_empty() || self.rules.is_empty() {
            return false;
        }
        let question =
            Question { entry: Entry::new(path, is_dir), root: self.root, absolute: OnceCell::new() };
        let counts =
            |rule: &Rule| rule.about == About::Entries && rule.sides.include(self.side) && counts(rule);
        self.first(&self.rules.items, &question, counts) == Some(Action::Exclude)
    }

    /// Whether the rules for extended attributes (`x` modifier) leave one out; none if there are no such rules.
    #[must_use]
    pub fn excludes_attribute(&self, name: &[u8]) -> Option<bool> {
        let is_about = |item: &Item| matches!(item, Item::Rule(rule) if rule.about == About::Attributes);
        self.rules.items.iter().any(is_about).then(|| {
            let question = Question { entry: Entry::new(name, false), root: b"", absolute: OnceCell::new() };
            let counts = |rule: &Rule| rule.about == About::Attributes && rule.sides.include(self.side);
            self.first(&self.rules.items, &question, counts) == Some(Action::Exclude)
        })
    }

    /// What the first rule that counts and matches says.
    fn first(
        &self,
        items: &[Item],
        question: &Question<'_>,
        counts: impl Fn(&Rule) -> bool + Copy,
    ) -> Option<Action> {
        items.iter().find_map(|item| match item {
            Item::Rule(rule) => (counts(rule) && rule.matches(question)).then_some(rule.action),
            Item::PerDirectory(number) => {
                let read = self.chain.and_then(|chain| chain.read(*number))?;
                read.iter().find_map(|items| self.first(items, question, counts))
            }
        })
    }
}

/// An entry that is asked about, with its absolute path once a rule needs that.
struct Question<'a> {
    entry: Entry<'a>,
    root: &'a [u8],
    absolute: OnceCell<Vec<u8>>,
}

impl Question<'_> {
    fn absolute(&self) -> &[u8] {
        self.absolute.get_or_init(|| match self.root {
            b"" => self.entry.path.to_vec(),
            root => [root, b"/", self.entry.path].concat(),
        })
    }
}

/// One place of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Rule(Rule),
    /// The rules of the per-directory file of this number.
    PerDirectory(usize),
}

impl Item {
    fn pattern_bytes(&self) -> usize {
        match self {
            Item::Rule(rule) => rule.pattern.source.len(),
            // Its name has its own bound, and there are few.
            Item::PerDirectory(_) => MAX_FILE_NAME_BYTES,
        }
    }
}

/// The longest name of a per-directory file, with the directories before it.
const MAX_FILE_NAME_BYTES: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    action: Action,
    sides: Sides,
    about: About,
    reach: Reach,
    /// It takes what the pattern does not match.
    is_negated: bool,
    /// It does not count in directories that are being deleted.
    is_perishable: bool,
    pattern: Pattern,
}

impl Rule {
    fn matches(&self, question: &Question<'_>) -> bool {
        let entry = &question.entry;
        let matches = match &self.reach {
            Reach::Transfer => self.pattern.matches(entry),
            Reach::Machine if !self.pattern.has_path => self.pattern.matches(entry),
            Reach::Machine => self.pattern.matches(&Entry::new(question.absolute(), entry.is_dir)),
            Reach::Directory(directory) => {
                let below = question.absolute().strip_prefix(&**directory);
                let below =
                    if directory.is_empty() { below } else { below.and_then(|path| path.strip_prefix(b"/")) };
                below.is_some_and(|path| self.pattern.matches(&Entry::new(path, entry.is_dir)))
            }
        };
        matches != self.is_negated
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
enum Action {
    Include,
    Exclude,
}

/// What a rule is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum About {
    #[default]
    Entries,
    Attributes,
}

/// Which path a rule's pattern is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reach {
    /// That from the root of the transfer on.
    Transfer,
    /// That from the root of the file system on.
    Machine,
    /// That from this directory on: an anchored pattern of a per-directory file there.
    Directory(Box<[u8]>),
}

/// The ends a rule counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
enum Sides {
    #[default]
    Both,
    SenderOnly,
    ReceiverOnly,
}

impl Sides {
    fn include(self, side: Side) -> bool {
        match self {
            Sides::Both => true,
            Sides::SenderOnly => side == Side::Sender,
            Sides::ReceiverOnly => side == Side::Receiver,
        }
    }
}

/// A file of rules that any directory may have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PerDirectory {
    /// As typed: its name, after the directory from which on it counts, if that is above the transfer.
    source: Box<[u8]>,
    /// The rules count in the directory alone, not below it.
    is_local: bool,
    /// How its lines are read.
    defaults: Defaults,
}

impl PerDirectory {
    fn name(&self) -> &[u8] {
        let cut = self.source.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        &self.source[cut..]
    }

    /// The directory from which on the file is looked for, if that was said.
    fn start(&self) -> Option<&[u8]> {
        let slash = self.source.iter().rposition(|&byte| byte == b'/')?;
        Some(&self.source[..slash.max(1)])
    }
}

/// Whether a pattern with wildcards, in which slashes are nothing special to write, fits a whole name; a malformed one fits
/// none.
#[must_use]
pub(crate) fn fits_name(pattern: &[u8], name: &[u8]) -> bool {
    pattern.len() <= MAX_PATTERN_BYTES
        && pattern::Glob::compile(pattern).is_some_and(|glob| glob.matches(b"", name, b"", false))
}

#[cfg(test)]
mod tests;

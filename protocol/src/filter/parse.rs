//! The syntax of rules, on the command line and in files.
//!
//! ```text
//! RULE [PATTERN]             exclude include hide show protect risk clear merge dir-merge,
//! RULE,MODIFIERS [PATTERN]   or - + H S P R ! . : where the comma may be left out
//! ```
//! One space or underscore stands before the pattern; more belong to it. How a file is read (what its lines are when they
//! name no rule, what counts for all of them) are [`Defaults`], which the rule that names the file gives.

use super::{
    About, Action, FilterError, FilterRules, Item, MAX_FILE_NAME_BYTES, MAX_MERGES, MAX_RULES_BYTES, Pattern,
    PerDirectory, Reach, Rule, RuleFiles, Sides, cvs,
};
use crate::path::{Name, escaped};

/// What a line without a prefix is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    /// Every line has a prefix.
    Rules,
    /// A pattern for `--include` or `--exclude`, which knows `+ `, `- ` and `!`.
    Old(Action),
    /// A pattern, whatever it looks like; in a file for CVS `!` alone clears.
    Patterns { action: Action, may_clear: bool },
}

/// What counts for every rule of a file, unless the rule says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Defaults {
    pub(super) syntax: Syntax,
    /// Rules are words, not lines.
    pub(super) are_words: bool,
    pub(super) modifiers: Modifiers,
}

/// What a rule may say besides its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Modifiers {
    pub(super) sides: Option<Sides>,
    pub(super) is_absolute: bool,
    pub(super) is_negated: bool,
    pub(super) is_perishable: bool,
    pub(super) about: About,
}

impl Defaults {
    fn new(syntax: Syntax) -> Defaults {
        Defaults { syntax, are_words: false, modifiers: Modifiers::default() }
    }

    pub(super) fn rules() -> Defaults {
        Defaults::new(Syntax::Rules)
    }

    pub(super) fn old(action: Action) -> Defaults {
        Defaults::new(Syntax::Old(action))
    }
}

/// One rule as it is written.
enum Written<'a> {
    Clear,
    Match(Action, Modifiers, &'a [u8]),
    /// All that CVS ignores everywhere.
    Cvs(Action, Modifiers),
    Merge(Merge, &'a [u8]),
}

/// A rule that names a file.
struct Merge {
    is_per_directory: bool,
    is_local: bool,
    excludes_itself: bool,
    is_cvs: bool,
    defaults: Defaults,
}

const LONG_NAMES: [(&[u8], u8); 9] = [
    (b"exclude", b'-'),
    (b"include", b'+'),
    (b"merge", b'.'),
    (b"dir-merge", b':'),
    (b"hide", b'H'),
    (b"show", b'S'),
    (b"protect", b'P'),
    (b"risk", b'R'),
    (b"clear", b'!'),
];

/// White space between words of rules.
fn is_rule_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn parse<'a>(text: &'a [u8], defaults: &Defaults) -> Result<Written<'a>, FilterError> {
    let of = |action, pattern| Written::Match(action, defaults.modifiers, pattern);
    match defaults.syntax {
        Syntax::Patterns { may_clear: true, .. } if text == b"!" => Ok(Written::Clear),
        Syntax::Patterns { action, .. } => Ok(of(action, text)),
        Syntax::Old(action) => Ok(match text {
            b"!" => Written::Clear,
            [b'+', b' ', pattern @ ..] => of(Action::Include, pattern),
            [b'-', b' ', pattern @ ..] => of(Action::Exclude, pattern),
            pattern => of(action, pattern),
        }),
        Syntax::Rules => parse_rule(text, defaults),
    }
}

fn parse_rule<'a>(text: &'a [u8], defaults: &Defaults) -> Result<Written<'a>, FilterError> {
    let (kind, after) = split_kind(text).ok_or_else(|| FilterError::Unknown { rule: escaped(text) })?;
    let end = after.iter().position(|byte| matches!(byte, b' ' | b'_')).unwrap_or(after.len());
    let (letters, pattern) = (&after[..end], after.get(end + 1..).unwrap_or_default());
    let head = Head { text, letters, defaults };
    match kind {
        b'!' if matches!(after, b"" | b"," | b" " | b"_") => Ok(Written::Clear),
        b'!' => Err(FilterError::Trailing { rule: escaped(text) }),
        b'.' | b':' => head.merge(kind == b':').map(|merge| Written::Merge(merge, pattern)),
        _ => head.pattern(kind, pattern),
    }
}

/// The letter of a rule's kind, and what follows it and the comma.
fn split_kind(text: &[u8]) -> Option<(u8, &[u8])> {
    let long = LONG_NAMES.iter().find_map(|(name, letter)| {
        let after = text.strip_prefix(*name)?;
        match after {
            [] | [b' ' | b'_', ..] => Some((*letter, after)),
            [b',', after @ ..] => Some((*letter, after)),
            _ => None,
        }
    });
    long.or_else(|| match text {
        [letter @ (b'+' | b'-' | b'.' | b':' | b'!' | b'H' | b'S' | b'P' | b'R'), after @ ..] => {
            Some((*letter, after.strip_prefix(b",").unwrap_or(after)))
        }
        _ => None,
    })
}

/// A rule in front of its pattern.
struct Head<'a> {
    text: &'a [u8],
    letters: &'a [u8],
    defaults: &'a Defaults,
}

impl Head<'_> {
    fn refuse<T>(&self, modifier: u8) -> Result<T, FilterError> {
        Err(FilterError::Modifier { rule: escaped(self.text), modifier: char::from(modifier) })
    }

    fn pattern<'a>(&self, kind: u8, pattern: &'a [u8]) -> Result<Written<'a>, FilterError> {
        let action = if matches!(kind, b'-' | b'H' | b'P') { Action::Exclude } else { Action::Include };
        let own_side = match kind {
            b'H' | b'S' => Some(Sides::SenderOnly),
            b'P' | b'R' => Some(Sides::ReceiverOnly),
            _ => None,
        };
        let (mut modifiers, mut sides) = (self.defaults.modifiers, own_side);
        let mut is_cvs = false;
        for &letter in self.letters {
            match letter {
                b'!' => modifiers.is_negated = true,
                b'C' if own_side.is_none() => is_cvs = true,
                b's' | b'r' if own_side.is_some() => return self.refuse(letter),
                _ => self.modify(&mut modifiers, &mut sides, letter)?,
            }
        }
        modifiers.sides = self.sides(sides)?;
        match pattern {
            _ if is_cvs => Ok(Written::Cvs(action, modifiers)),
            [] => Err(FilterError::MissingPattern),
            pattern => Ok(Written::Match(action, modifiers, pattern)),
        }
    }

    fn merge(&self, is_per_directory: bool) -> Result<Merge, FilterError> {
        let defaults = Defaults { modifiers: self.defaults.modifiers, ..Defaults::rules() };
        let mut merge =
            Merge { is_per_directory, is_local: false, excludes_itself: false, is_cvs: false, defaults };
        let mut sides = None;
        for &letter in self.letters {
            let is_plain = merge.defaults.syntax == Syntax::Rules;
            let patterns = |action, may_clear| Syntax::Patterns { action, may_clear };
            match letter {
                b'-' | b'+' | b'C' if !is_plain => return self.refuse(letter),
                b'-' => merge.defaults.syntax = patterns(Action::Exclude, false),
                b'+' => merge.defaults.syntax = patterns(Action::Include, false),
                b'C' => {
                    (merge.is_cvs, merge.is_local, merge.defaults.are_words) = (true, true, true);
                    merge.defaults.syntax = patterns(Action::Exclude, true);
                }
                b'e' => merge.excludes_itself = true,
                b'n' => merge.is_local = true,
                b'w' => merge.defaults.are_words = true,
                _ => self.modify(&mut merge.defaults.modifiers, &mut sides, letter)?,
            }
        }
        merge.defaults.modifiers.sides = self.sides(sides)?;
        Ok(merge)
    }

    fn modify(
        &self,
        modifiers: &mut Modifiers,
        sides: &mut Option<Sides>,
        letter: u8,
    ) -> Result<(), FilterError> {
        let with = |other: Sides, one: Sides| Some(if *sides == Some(other) { Sides::Both } else { one });
        match letter {
            b'/' => modifiers.is_absolute = true,
            b'p' => modifiers.is_perishable = true,
            b'x' => modifiers.about = About::Attributes,
            b's' if *sides != Some(Sides::Both) => *sides = with(Sides::ReceiverOnly, Sides::SenderOnly),
            b'r' if *sides != Some(Sides::Both) => *sides = with(Sides::SenderOnly, Sides::ReceiverOnly),
            b's' | b'r' => {}
            letter => return self.refuse(letter),
        }
        Ok(())
    }

    /// The sides of the rule or else of the file it stands in; not both.
    fn sides(&self, own: Option<Sides>) -> Result<Option<Sides>, FilterError> {
        match (own, self.defaults.modifiers.sides) {
            (Some(_), Some(_)) => Err(FilterError::SideTwice { rule: escaped(self.text) }),
            (own, given) => Ok(own.or(given)),
        }
    }
}

/// Takes in rules, and the files they name, in order.
pub(super) struct Reader<'a> {
    files: &'a mut dyn RuleFiles,
    /// Per-directory files that are known already, by number.
    known: &'a [PerDirectory],
    unsided: Sides,
    zero_ended: bool,
    /// The directory of the per-directory file that is read.
    directory: Option<&'a [u8]>,
    items: Vec<Item>,
    new_files: Vec<PerDirectory>,
    is_cleared: bool,
    depth: usize,
    pattern_bytes: usize,
}

impl<'a> Reader<'a> {
    /// For the list of the command line.
    pub(super) fn of_list(rules: &'a FilterRules, files: &'a mut dyn RuleFiles) -> Reader<'a> {
        Reader::new(rules, &rules.files, files, None)
    }

    /// For the per-directory file of a directory, where `known` files count.
    pub(super) fn of_directory(
        rules: &FilterRules,
        known: &'a [PerDirectory],
        files: &'a mut dyn RuleFiles,
        directory: &'a [u8],
    ) -> Reader<'a> {
        Reader::new(rules, known, files, Some(directory))
    }

    fn new(
        rules: &FilterRules,
        known: &'a [PerDirectory],
        files: &'a mut dyn RuleFiles,
        directory: Option<&'a [u8]>,
    ) -> Reader<'a> {
        let (unsided, zero_ended) = (rules.unsided, rules.zero_ended);
        let (items, new_files) = (Vec::new(), Vec::new());
        Reader {
            files,
            known,
            unsided,
            zero_ended,
            directory,
            items,
            new_files,
            is_cleared: false,
            depth: 0,
            pattern_bytes: 0,
        }
    }

    /// What was read, the per-directory files that are new with it, and whether what was there before is void.
    pub(super) fn finish(self) -> (Vec<Item>, Vec<PerDirectory>, bool) {
        (self.items, self.new_files, self.is_cleared)
    }

    /// All rules of a file.
    pub(super) fn content(&mut self, content: &[u8], defaults: &Defaults) -> Result<(), FilterError> {
        let zero_ended = self.zero_ended;
        let ends = |byte: &u8| match zero_ended {
            true => *byte == 0,
            false => matches!(byte, b'\n' | b'\r'),
        };
        let (mut line, mut rest) = (1, content);
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| ends(byte) || defaults.are_words && is_rule_space(*byte));
            let rule = &rest[..end.unwrap_or(rest.len())];
            if !rule.is_empty() && (defaults.are_words || !matches!(rule, [b';' | b'#', ..])) {
                let in_file = |source| FilterError::InFile { line, source: Box::new(source) };
                self.rule(rule, defaults).map_err(in_file)?;
            }
            let Some(end) = end else { break };
            line += usize::from(rest[end] == if zero_ended { 0 } else { b'\n' });
            rest = &rest[end + 1..];
        }
        Ok(())
    }

    /// One rule.
    pub(super) fn rule(&mut self, text: &[u8], defaults: &Defaults) -> Result<(), FilterError> {
        match parse(text, defaults)? {
            Written::Clear => {
                self.items.clear();
                // On the command line nothing is left that could name them.
                if self.directory.is_none() {
                    (self.known, self.new_files) = (&[], Vec::new());
                }
                (self.is_cleared, self.pattern_bytes) = (true, 0);
                Ok(())
            }
            Written::Match(action, modifiers, pattern) => self.add(action, modifiers, pattern),
            Written::Cvs(action, modifiers) => self.add_cvs(action, modifiers),
            Written::Merge(merge, name) => self.add_merge(&merge, name),
        }
    }

    fn add(&mut self, action: Action, modifiers: Modifiers, source: &[u8]) -> Result<(), FilterError> {
        let reach = match (modifiers.is_absolute, self.directory) {
            (true, _) => Reach::Machine,
            (false, Some(directory)) if source.starts_with(b"/") => Reach::Directory(directory.into()),
            (false, _) => Reach::Transfer,
        };
        let rule = Rule {
            action,
            sides: modifiers.sides.unwrap_or(self.unsided),
            about: modifiers.about,
            pattern: Pattern::parse(source, reach == Reach::Machine)?,
            reach,
            is_negated: modifiers.is_negated,
            is_perishable: modifiers.is_perishable,
        };
        self.pattern_bytes += source.len();
        if self.pattern_bytes > MAX_RULES_BYTES {
            return Err(FilterError::TooManyBytes);
        }
        self.items.push(Item::Rule(rule));
        Ok(())
    }

    fn add_cvs(&mut self, action: Action, modifiers: Modifiers) -> Result<(), FilterError> {
        let syntax = Syntax::Patterns { action, may_clear: true };
        let perishable = Modifiers { is_perishable: true, ..modifiers };
        let operators = self.files.cvs_words();
        let built_in = Defaults { syntax, are_words: true, modifiers: perishable };
        // Apart, so that a `!` among the operator's words clears these words alone.
        let mut ignored = Reader {
            files: &mut *self.files,
            known: self.known,
            unsided: self.unsided,
            zero_ended: false,
            directory: self.directory,
            items: Vec::new(),
            new_files: Vec::new(),
            is_cleared: false,
            depth: self.depth,
            pattern_bytes: self.pattern_bytes,
        };
        ignored.content(cvs::NAMES, &built_in)?;
        ignored.content(&operators, &Defaults { modifiers, ..built_in })?;
        self.pattern_bytes = ignored.pattern_bytes;
        let (items, ..) = ignored.finish();
        self.items.extend(items);
        Ok(())
    }

    fn add_merge(&mut self, merge: &Merge, name: &[u8]) -> Result<(), FilterError> {
        let name = match name {
            [] if merge.is_cvs => cvs::FILE,
            [] => return Err(FilterError::MissingPattern),
            name => name,
        };
        let file = PerDirectory { source: name.into(), is_local: merge.is_local, defaults: merge.defaults };
        if merge.excludes_itself {
            self.add(Action::Exclude, Modifiers::default(), file.name())?;
        }
        if merge.is_per_directory {
            return self.add_per_directory(file);
        }
        if self.depth == MAX_MERGES {
            return Err(FilterError::TooDeep);
        }
        let content = self
            .files
            .merged(name, self.directory)
            .map_err(|why| FilterError::File { name: escaped(name), why })?;
        self.depth += 1;
        self.content(&content, &merge.defaults)?;
        self.depth -= 1;
        Ok(())
    }

    /// The file's rules count from here on in each directory; those of a file that counts already stay where they are.
    fn add_per_directory(&mut self, file: PerDirectory) -> Result<(), FilterError> {
        if Name::new(file.name()).is_err() || file.source.len() > MAX_FILE_NAME_BYTES {
            return Err(FilterError::FileName { name: escaped(&file.source) });
        }
        if !self.known.iter().chain(&self.new_files).any(|known| known.name() == file.name()) {
            self.items.push(Item::PerDirectory(self.known.len() + self.new_files.len()));
            self.new_files.push(file);
        }
        Ok(())
    }
}

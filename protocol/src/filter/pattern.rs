//! One pattern: compiled once, asked of many paths.
//!
//! Literals are compared at the tail of the path, `prefix*suffix` at both ends of the name, and everything else by an
//! automaton that never backtracks. Asking allocates nothing.

use super::{FilterError, MAX_PATTERN_BYTES};

/// What is asked about.
pub(super) struct Entry<'a> {
    pub(super) path: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) is_dir: bool,
}

impl<'a> Entry<'a> {
    pub(super) fn new(path: &'a [u8], is_dir: bool) -> Entry<'a> {
        Entry { path, name: last_components(path, 1).unwrap_or(path), is_dir }
    }
}

/// A pattern as it was typed, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    pub(super) source: Box<[u8]>,
    /// It looks at more than the last component.
    pub(super) has_path: bool,
    directories_only: bool,
    matcher: Matcher,
}

impl Pattern {
    /// `whole`: it is compared with the path from the root of the file system on.
    pub(super) fn parse(source: &[u8], whole: bool) -> Result<Self, FilterError> {
        if source.is_empty() {
            return Err(FilterError::MissingPattern);
        }
        if source.len() > MAX_PATTERN_BYTES {
            return Err(FilterError::PatternTooLong { pattern_bytes: source.len() });
        }
        if source.contains(&0) {
            return Err(FilterError::NulInPattern);
        }
        let (body, directories_only) = match source {
            [body @ .., b'/'] if !body.is_empty() => (body, true),
            body => (body, false),
        };
        let has_path = body.contains(&b'/') || body.windows(2).any(|pair| pair == b"**");
        let matcher = Matcher::compile(body, whole);
        Ok(Self { source: source.into(), has_path, directories_only, matcher })
    }

    pub(super) fn matches(&self, entry: &Entry<'_>) -> bool {
        (entry.is_dir || !self.directories_only) && self.matcher.matches(entry)
    }
}

/// A pattern without its trailing slash, in the cheapest form that has its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Matcher {
    /// Malformed, which rsync takes for a pattern that no name fits.
    Nothing,
    /// The name is this.
    Name(Box<[u8]>),
    /// The path from the root on is this.
    Path(Box<[u8]>),
    /// The last components of the path are these.
    Tail(Box<[u8]>),
    /// The name starts with one, ends with the other, and is long enough for both.
    NameAffixes(Affixes),
    /// Everything else. `names_directory` is the effect of a final `***`: a directory's path counts as if
    /// a slash followed it.
    Glob { scope: Scope, glob: Glob, names_directory: bool },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Affixes {
    prefix: Box<[u8]>,
    suffix: Box<[u8]>,
}

/// The part of the path that a glob has to match, always up to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Name,
    LastComponents(usize),
    /// The whole path.
    Root,
    /// The whole path with a slash before it, so that `**/x` matches `x` at the root.
    SlashAndRoot,
    /// The whole path, or what follows any of its slashes.
    AnyComponent,
}

impl Matcher {
    fn compile(body: &[u8], whole: bool) -> Self {
        let (anchored, text) = match body.strip_prefix(b"/") {
            Some(text) => (true, text),
            None => (false, body),
        };
        let slashes = body.iter().filter(|&&byte| byte == b'/').count();
        if !body.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[')) {
            return match (anchored, slashes) {
                (true, _) => Matcher::Path(text.into()),
                (false, 0) => Matcher::Name(text.into()),
                (false, _) => Matcher::Tail(text.into()),
            };
        }
        let Some(glob) = Glob::compile(text) else {
            return Matcher::Nothing;
        };
        // As in rsync this looks at the bytes as typed, so that an escaped `\**` counts as well.
        let crosses_slashes = body.windows(2).any(|pair| pair == b"**");
        let scope = match (anchored, crosses_slashes) {
            (true, _) => Scope::Root,
            (false, true) if body.starts_with(b"**") && whole => Scope::Root,
            (false, true) if body.starts_with(b"**") => Scope::SlashAndRoot,
            (false, true) => Scope::AnyComponent,
            (false, false) if slashes == 0 => Scope::Name,
            (false, false) => Scope::LastComponents(slashes + 1),
        };
        match glob.affixes() {
            Some(affixes) if scope == Scope::Name => Matcher::NameAffixes(affixes),
            _ => Matcher::Glob { scope, glob, names_directory: body.ends_with(b"***") },
        }
    }

    fn matches(&self, entry: &Entry<'_>) -> bool {
        match self {
            Matcher::Nothing => false,
            Matcher::Name(name) => *entry.name == **name,
            Matcher::Path(path) => *entry.path == **path,
            Matcher::Tail(tail) => {
                entry.path.strip_suffix(&**tail).is_some_and(|before| matches!(before, [] | [.., b'/']))
            }
            Matcher::NameAffixes(Affixes { prefix, suffix }) => {
                entry.name.len() >= prefix.len() + suffix.len()
                    && entry.name.ends_with(suffix)
                    && entry.name.starts_with(prefix)
            }
            Matcher::Glob { scope, glob, names_directory } => {
                let slash = if *names_directory && entry.is_dir { &b"/"[..] } else { b"" };
                match scope {
                    Scope::Name => glob.matches(b"", entry.name, slash, false),
                    Scope::LastComponents(count) => last_components(entry.path, *count)
                        .is_some_and(|tail| glob.matches(b"", tail, slash, false)),
                    Scope::Root => glob.matches(b"", entry.path, slash, false),
                    Scope::SlashAndRoot => glob.matches(b"/", entry.path, slash, false),
                    Scope::AnyComponent => glob.matches(b"", entry.path, slash, true),
                }
            }
        }
    }
}

/// The last `count` components of a path, if it has that many.
fn last_components(path: &[u8], count: usize) -> Option<&[u8]> {
    let mut start = path.len() + 1;
    for _ in 0..count {
        let before = path.get(..start.checked_sub(1)?)?;
        start = before.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    }
    path.get(start..)
}

/// A wildcard pattern as a nondeterministic automaton.
///
/// State `i` means that the first `i` steps have been taken. On each byte of the text a state stays if the
/// repeat of its step takes the byte, and the next state is entered if the token of its step does. All
/// states advance together as bits of a set, so the cost is at most text length times pattern length,
/// whatever the pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob {
    /// One step per state, the last with [`Token::End`].
    steps: Box<[Step]>,
    /// How many tokens follow the last repeat and the last slash. They take the last bytes of the text,
    /// one each: a cheap first question.
    tail_tokens: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    repeat: Repeat,
    token: Token,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    Nothing,
    AnyButSlash,
    Any,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    AnyButSlash,
    Class(Box<ByteSet>),
    End,
}

impl Step {
    fn repeats(&self, byte: u8) -> bool {
        match self.repeat {
            Repeat::Nothing => false,
            Repeat::AnyButSlash => byte != b'/',
            Repeat::Any => true,
        }
    }

    fn takes(&self, byte: u8) -> bool {
        match &self.token {
            Token::Byte(wanted) => *wanted == byte,
            Token::AnyButSlash => byte != b'/',
            Token::Class(class) => class.contains(byte),
            Token::End => false,
        }
    }
}

/// Bits in one word of the state set.
const WORD_STATES: usize = u64::BITS as usize;
/// Words for the longest pattern's states: one per byte and the final one.
const MAX_WORDS: usize = (MAX_PATTERN_BYTES + 1).div_ceil(WORD_STATES);

impl Glob {
    /// Compiles a pattern that has wildcards, or says that it is malformed.
    pub(super) fn compile(pattern: &[u8]) -> Option<Self> {
        let mut steps = Vec::new();
        let mut repeat = Repeat::Nothing;
        let mut rest = pattern;
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            let token = match first {
                b'*' => {
                    let further = rest.iter().take_while(|&&byte| byte == b'*').count();
                    rest = &rest[further..];
                    repeat = if further == 0 { Repeat::AnyButSlash } else { Repeat::Any };
                    continue;
                }
                b'?' => Token::AnyButSlash,
                b'[' => {
                    let (class, after) = ByteSet::parse_class(rest)?;
                    rest = after;
                    Token::Class(Box::new(class))
                }
                b'\\' => {
                    let (&escaped, after) = rest.split_first()?;
                    rest = after;
                    Token::Byte(escaped)
                }
                literal => Token::Byte(literal),
            };
            steps.push(Step { repeat, token });
            repeat = Repeat::Nothing;
        }
        steps.push(Step { repeat, token: Token::End });
        let tail_tokens = tail_tokens(&steps);
        Some(Self { steps: steps.into(), tail_tokens })
    }

    /// The literals around the only wildcard, if that is a `*`.
    fn affixes(&self) -> Option<Affixes> {
        let mut star = None;
        let mut literals = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            match step.repeat {
                Repeat::Nothing => {}
                Repeat::AnyButSlash if star.is_none() => star = Some(literals.len()),
                Repeat::AnyButSlash | Repeat::Any => return None,
            }
            match step.token {
                Token::Byte(byte) => literals.push(byte),
                Token::End => {}
                Token::AnyButSlash | Token::Class(_) => return None,
            }
        }
        let (prefix, suffix) = literals.split_at(star?);
        Some(Affixes { prefix: prefix.into(), suffix: suffix.into() })
    }

    /// Whether the three pieces one after the other match; with `after_any_slash` also what follows any
    /// slash in them.
    pub(super) fn matches(&self, before: &[u8], text: &[u8], after: &[u8], after_any_slash: bool) -> bool {
        if !self.tail_takes(text) {
            return false;
        }
        let bytes = before.iter().chain(text).chain(after).copied();
        if self.steps.len() <= WORD_STATES {
            self.run::<1>(bytes, after_any_slash)
        } else {
            self.run::<MAX_WORDS>(bytes, after_any_slash)
        }
    }

    fn tail_takes(&self, text: &[u8]) -> bool {
        let tokens = self.steps.iter().rev().skip(1).take(self.tail_tokens);
        text.len() >= self.tail_tokens && tokens.zip(text.iter().rev()).all(|(step, &byte)| step.takes(byte))
    }

    fn run<const WORDS: usize>(&self, bytes: impl Iterator<Item = u8>, after_any_slash: bool) -> bool {
        let end = self.steps.len() - 1;
        let (end_word, end_bit) = (end / WORD_STATES, 1u64 << (end % WORD_STATES));
        let takes_any_rest = self.steps[end].repeat == Repeat::Any;
        let mut states = [0u64; WORDS];
        states[0] = 1;
        for byte in bytes {
            if takes_any_rest && states[end_word] & end_bit != 0 {
                return true;
            }
            let alive = self.advance(&mut states[..=end_word], byte);
            if after_any_slash {
                states[0] |= u64::from(byte == b'/');
            } else if !alive {
                return false;
            }
        }
        states[end_word] & end_bit != 0
    }

    /// Takes one byte and says whether any state is left.
    fn advance(&self, states: &mut [u64], byte: u8) -> bool {
        let mut alive = 0;
        // From the last word down, because a word passes its last state on to the word above.
        for word in (0..states.len()).rev() {
            let (mut pending, mut next) = (states[word], 0);
            while pending != 0 {
                let bit = pending.trailing_zeros() as usize;
                pending &= pending - 1;
                let step = &self.steps[word * WORD_STATES + bit];
                if step.repeats(byte) {
                    next |= 1 << bit;
                }
                if step.takes(byte) {
                    if bit + 1 < WORD_STATES {
                        next |= 1 << (bit + 1);
                    } else {
                        states[word + 1] |= 1;
                        alive = 1;
                    }
                }
            }
            states[word] = next;
            alive |= next;
        }
        alive != 0
    }
}

fn tail_tokens(steps: &[Step]) -> usize {
    let mut count = 0;
    for step in steps.iter().rev() {
        match step.token {
            Token::End => {}
            Token::Byte(b'/') => break,
            _ => count += 1,
        }
        if step.repeat != Repeat::Nothing {
            break;
        }
    }
    count
}

/// The bytes a character class takes; never the slash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ByteSet([u64; 4]);

impl ByteSet {
    /// Parses what follows `[`, and returns the rest of the pattern behind the closing `]`.
    ///
    /// A `]` right at the start, a `-` at either end and a `-` behind a range or a named class stand for
    /// themselves. `None` if the class is not closed or names a class that doesn't exist.
    fn parse_class(text: &[u8]) -> Option<(Self, &[u8])> {
        let (negated, mut rest) = match text {
            [b'!' | b'^', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let mut set = Self::default();
        let mut range_start = None;
        let mut at_start = true;
        loop {
            match rest {
                [b']', after @ ..] if !at_start => {
                    if negated {
                        set = set.complement();
                    }
                    set.remove(b'/');
                    return Some((set, after));
                }
                [b'-', end @ ..] if range_start.is_some() && !matches!(end, [] | [b']', ..]) => {
                    let (last, after) = class_byte(end)?;
                    set.insert_where(|byte| range_start.is_some_and(|first| first <= byte) && byte <= last);
                    range_start = None;
                    rest = after;
                }
                _ => match class_name(rest) {
                    Some((name, after)) => {
                        let is_member = named_class(name)?;
                        set.insert_where(|byte| is_member(&byte));
                        range_start = None;
                        rest = after;
                    }
                    None => {
                        let (byte, after) = class_byte(rest)?;
                        set.insert(byte);
                        range_start = Some(byte);
                        rest = after;
                    }
                },
            }
            at_start = false;
        }
    }

    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0
    }

    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    fn insert_where(&mut self, is_member: impl Fn(u8) -> bool) {
        (0..=u8::MAX).filter(|&byte| is_member(byte)).for_each(|byte| self.insert(byte));
    }

    fn remove(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] &= !(1 << (byte & 63));
    }

    fn complement(self) -> Self {
        Self(self.0.map(|word| !word))
    }
}

/// One byte of a class, possibly escaped, and what follows it.
fn class_byte(text: &[u8]) -> Option<(u8, &[u8])> {
    match text {
        [b'\\', byte, after @ ..] => Some((*byte, after)),
        [b'\\'] | [] => None,
        [byte, after @ ..] => Some((*byte, after)),
    }
}

/// The name in a leading `[:name:]` and what follows it.
///
/// If the next `]` has no colon before it, the `[` is an ordinary member of the class.
fn class_name(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = text.strip_prefix(b"[:")?;
    let end = inner.iter().position(|&byte| byte == b']')?;
    Some((inner[..end].strip_suffix(b":")?, &inner[end + 1..]))
}

fn named_class(name: &[u8]) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| matches!(byte, b' ' | b'\t'..=b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

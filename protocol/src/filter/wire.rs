//! The list on the wire.
//!
//! ```text
//! unsided: what a rule counts for that names no side; Both = 0, SenderOnly = 1, ReceiverOnly = 2
//! zero_ended: bool
//! count: usize, then per item
//!   kind: Include = 0, Exclude = 1, PerDirectory = 2
//!   sides: Both = 0, SenderOnly = 1, ReceiverOnly = 2, those that are not said = 3 (PerDirectory alone)
//!   flags: u8, bits below
//!   text: length: usize, bytes
//! ```
//! A pattern travels as it was typed, without its prefix. The peer compiles it by the same code,
//! so a compiled form can't disagree with its source, and may change without a new wire version.

use super::parse::{Defaults, Modifiers, Syntax};
use super::{
    About, Action, FilterError, FilterRules, Item, MAX_FILE_NAME_BYTES, MAX_PATTERN_BYTES, MAX_RULES,
    MAX_RULES_BYTES, Pattern, PerDirectory, Reach, Rule, Sides,
};
use crate::path::{Name, escaped};
use bincode::de::read::Reader;
use bincode::de::{Decode, Decoder};
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};

const ABSOLUTE: u8 = 1;
const PERISHABLE: u8 = 2;
const ATTRIBUTES: u8 = 4;
/// Of a pattern.
const NEGATED: u8 = 8;
// Of a per-directory file.
const LOCAL: u8 = 8;
const WORDS: u8 = 16;
const ONLY_EXCLUDES: u8 = 32;
const ONLY_INCLUDES: u8 = 64;
const MAY_CLEAR: u8 = 128;

const INCLUDE: u8 = 0;
const EXCLUDE: u8 = 1;
const PER_DIRECTORY: u8 = 2;
const UNSAID: u8 = 3;

impl Encode for FilterRules {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.unsided.encode(encoder)?;
        self.zero_ended.encode(encoder)?;
        self.items.len().encode(encoder)?;
        for item in &self.items {
            let (kind, sides, flags, text) = match item {
                Item::Rule(rule) => (
                    if rule.action == Action::Include { INCLUDE } else { EXCLUDE },
                    sides_byte(Some(rule.sides)),
                    rule_flags(rule),
                    &rule.pattern.source,
                ),
                Item::PerDirectory(number) => {
                    let file = self.files.get(*number).ok_or(EncodeError::Other("a file without a name"))?;
                    (PER_DIRECTORY, sides_byte(file.defaults.modifiers.sides), file_flags(file), &file.source)
                }
            };
            (kind, sides, flags).encode(encoder)?;
            text[..].encode(encoder)?;
        }
        Ok(())
    }
}

impl<Context> Decode<Context> for FilterRules {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let refuse = |error: FilterError| DecodeError::OtherString(error.to_string());
        let mut rules = FilterRules {
            unsided: Sides::decode(decoder)?,
            zero_ended: bool::decode(decoder)?,
            ..FilterRules::default()
        };
        let count = usize::decode(decoder)?;
        if count > MAX_RULES {
            return Err(refuse(FilterError::TooManyRules));
        }
        for _ in 0..count {
            let (kind, sides, flags) = <(u8, u8, u8)>::decode(decoder)?;
            let text = decode_text(decoder)?;
            let item = match kind {
                INCLUDE | EXCLUDE => {
                    let action = if kind == INCLUDE { Action::Include } else { Action::Exclude };
                    Item::Rule(rule(action, sides, flags, &text)?)
                }
                PER_DIRECTORY => {
                    rules.files.push(per_directory(sides, flags, text)?);
                    Item::PerDirectory(rules.files.len() - 1)
                }
                _ => return Err(DecodeError::Other("an unknown kind of filter rule")),
            };
            rules.pattern_bytes += item.pattern_bytes();
            if rules.pattern_bytes > MAX_RULES_BYTES {
                return Err(refuse(FilterError::TooManyBytes));
            }
            rules.items.push(item);
        }
        Ok(rules)
    }
}

bincode::impl_borrow_decode!(FilterRules);

fn decode_text<D: Decoder>(decoder: &mut D) -> Result<Vec<u8>, DecodeError> {
    let pattern_bytes = usize::decode(decoder)?;
    if pattern_bytes > MAX_PATTERN_BYTES {
        return Err(DecodeError::OtherString(FilterError::PatternTooLong { pattern_bytes }.to_string()));
    }
    decoder.claim_bytes_read(pattern_bytes)?;
    let mut text = vec![0; pattern_bytes];
    decoder.reader().read(&mut text)?;
    Ok(text)
}

fn rule(action: Action, sides: u8, flags: u8, text: &[u8]) -> Result<Rule, DecodeError> {
    let reach = if flags & ABSOLUTE != 0 { Reach::Machine } else { Reach::Transfer };
    if flags & !(ABSOLUTE | PERISHABLE | ATTRIBUTES | NEGATED) != 0 {
        return Err(DecodeError::Other("an unknown modifier of a filter rule"));
    }
    Ok(Rule {
        action,
        sides: sides_of(sides)?.ok_or(DecodeError::Other("a filter rule without its sides"))?,
        about: about(flags),
        pattern: Pattern::parse(text, reach == Reach::Machine)
            .map_err(|error| DecodeError::OtherString(error.to_string()))?,
        reach,
        is_negated: flags & NEGATED != 0,
        is_perishable: flags & PERISHABLE != 0,
    })
}

fn per_directory(sides: u8, flags: u8, source: Vec<u8>) -> Result<PerDirectory, DecodeError> {
    let may_clear = flags & MAY_CLEAR != 0;
    let syntax = match flags & (ONLY_EXCLUDES | ONLY_INCLUDES) {
        0 if !may_clear => Syntax::Rules,
        ONLY_EXCLUDES => Syntax::Patterns { action: Action::Exclude, may_clear },
        ONLY_INCLUDES => Syntax::Patterns { action: Action::Include, may_clear },
        _ => return Err(DecodeError::Other("a file of filter rules of no kind")),
    };
    let modifiers = Modifiers {
        sides: sides_of(sides)?,
        is_absolute: flags & ABSOLUTE != 0,
        is_negated: false,
        is_perishable: flags & PERISHABLE != 0,
        about: about(flags),
    };
    let defaults = Defaults { syntax, are_words: flags & WORDS != 0, modifiers };
    let file = PerDirectory { source: source.into(), is_local: flags & LOCAL != 0, defaults };
    if Name::new(file.name()).is_err() || file.source.len() > MAX_FILE_NAME_BYTES {
        let refused = FilterError::FileName { name: escaped(&file.source) };
        return Err(DecodeError::OtherString(refused.to_string()));
    }
    Ok(file)
}

fn rule_flags(rule: &Rule) -> u8 {
    let is_absolute = rule.reach == Reach::Machine;
    shared_flags(is_absolute, rule.is_perishable, rule.about) | if rule.is_negated { NEGATED } else { 0 }
}

fn file_flags(file: &PerDirectory) -> u8 {
    let Defaults { syntax, are_words, modifiers } = file.defaults;
    let syntax = match syntax {
        Syntax::Rules | Syntax::Old(_) => 0,
        Syntax::Patterns { action, may_clear } => {
            let only = if action == Action::Include { ONLY_INCLUDES } else { ONLY_EXCLUDES };
            only | if may_clear { MAY_CLEAR } else { 0 }
        }
    };
    shared_flags(modifiers.is_absolute, modifiers.is_perishable, modifiers.about)
        | if file.is_local { LOCAL } else { 0 }
        | if are_words { WORDS } else { 0 }
        | syntax
}

fn shared_flags(is_absolute: bool, is_perishable: bool, about: About) -> u8 {
    (if is_absolute { ABSOLUTE } else { 0 })
        | if is_perishable { PERISHABLE } else { 0 }
        | if about == About::Attributes { ATTRIBUTES } else { 0 }
}

fn about(flags: u8) -> About {
    if flags & ATTRIBUTES != 0 { About::Attributes } else { About::Entries }
}

fn sides_byte(sides: Option<Sides>) -> u8 {
    match sides {
        Some(Sides::Both) => 0,
        Some(Sides::SenderOnly) => 1,
        Some(Sides::ReceiverOnly) => 2,
        None => UNSAID,
    }
}

fn sides_of(byte: u8) -> Result<Option<Sides>, DecodeError> {
    match byte {
        0 => Ok(Some(Sides::Both)),
        1 => Ok(Some(Sides::SenderOnly)),
        2 => Ok(Some(Sides::ReceiverOnly)),
        UNSAID => Ok(None),
        _ => Err(DecodeError::Other("an unknown side of a filter rule")),
    }
}

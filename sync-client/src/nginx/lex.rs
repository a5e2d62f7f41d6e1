//! Bytes to statements, by the rules of nginx's own reader, so that both see the same words.
//!
//! They are few and peculiar: a word ends at white space, `;` or `{`, never at `}` or `#`; a quote opens a quoted
//! word only where a word may begin, and such a word must be followed by white space, `;`, `{` or `)`; a
//! backslash takes the next byte along, a line feed too; `${` opens no block; `#` begins a comment only where a
//! word may begin, between two arguments too.
//!
//! # Source
//! The behaviour of nginx 1.22; `tests/tests/proxy.rs` compares what both accept.

use super::NginxError;
use std::ops::Range;

/// One word of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// Where it stands, with its quotes.
    pub(super) span: Range<usize>,
    /// What nginx takes it for: without quotes, escapes resolved.
    pub(super) value: Vec<u8>,
}

/// What ends a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// `;`
    Semicolon,
    /// `{`
    Open,
    /// `}`, which has no words before it.
    Close,
    /// Nothing follows.
    File,
}

/// Reads statements one after the other.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    pub(super) bytes: &'a [u8],
    /// Where the next byte is read; after a statement just behind what ended it.
    pub(super) at: usize,
}

impl Lexer<'_> {
    /// The words up to the next `;`, `{`, `}` or the end of the file.
    pub(super) fn statement(&mut self) -> Result<(Vec<Word>, End), NginxError> {
        let mut words = Vec::new();
        loop {
            self.skip_blank();
            let Some(&byte) = self.bytes.get(self.at) else {
                return if words.is_empty() {
                    Ok((words, End::File))
                } else {
                    Err(self.refused(self.at, "the file ends before the \";\" of a directive"))
                };
            };
            let end = match byte {
                b';' => End::Semicolon,
                b'{' => End::Open,
                b'}' => End::Close,
                _ => {
                    words.push(self.word(byte)?);
                    continue;
                }
            };
            if words.is_empty() != (end == End::Close) {
                return Err(self.refused(self.at, &format!("unexpected \"{}\"", char::from(byte))));
            }
            self.at += 1;
            return Ok((words, end));
        }
    }

    /// White space and comments.
    fn skip_blank(&mut self) {
        while let Some(&byte) = self.bytes.get(self.at) {
            if byte == b'#' {
                let rest = &self.bytes[self.at..];
                self.at += rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
            } else if is_blank(byte) {
                self.at += 1;
            } else {
                return;
            }
        }
    }

    fn word(&mut self, first: u8) -> Result<Word, NginxError> {
        let start = self.at;
        if matches!(first, b'"' | b'\'') {
            return self.quoted(start, first);
        }
        let mut after_dollar = false;
        while let Some(&byte) = self.bytes.get(self.at) {
            if byte == b'{' && after_dollar {
                self.at += 1;
                continue;
            }
            after_dollar = byte == b'$';
            match byte {
                b'\\' => self.at += 2,
                b';' | b'{' => break,
                _ if is_blank(byte) => break,
                _ => self.at += 1,
            }
        }
        if self.at >= self.bytes.len() {
            return Err(self.refused(start, "a word that the end of the file cuts off"));
        }
        Ok(Word { span: start..self.at, value: unescaped(&self.bytes[start..self.at]) })
    }

    fn quoted(&mut self, start: usize, quote: u8) -> Result<Word, NginxError> {
        self.at += 1;
        loop {
            match self.bytes.get(self.at) {
                None => return Err(self.refused(start, "a quote that nothing closes")),
                Some(b'\\') => self.at += 2,
                Some(&byte) => {
                    self.at += 1;
                    if byte == quote {
                        break;
                    }
                }
            }
        }
        let word = Word { span: start..self.at, value: unescaped(&self.bytes[start + 1..self.at - 1]) };
        match self.bytes.get(self.at) {
            None | Some(b';' | b'{' | b')') => Ok(word),
            Some(&byte) if is_blank(byte) => Ok(word),
            Some(_) => Err(self.refused(self.at, "a quoted word must be followed by white space or \";\"")),
        }
    }

    /// The error for what stands at a byte.
    pub(super) fn refused(&self, at: usize, what: &str) -> NginxError {
        let (line, column) = position(self.bytes, at);
        NginxError::Syntax { line, column, what: what.to_owned() }
    }
}

/// Line and column of a byte, both from 1; a column counts bytes.
pub(super) fn position(bytes: &[u8], at: usize) -> (usize, usize) {
    let before = &bytes[..at.min(bytes.len())];
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|&&byte| byte != b'\n').count() + 1;
    (line, column)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn unescaped(raw: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [byte, tail @ ..] = rest {
        let (taken, letter) = match (byte, tail.first()) {
            (b'\\', Some(&next @ (b'"' | b'\'' | b'\\'))) => (2, next),
            (b'\\', Some(b't')) => (2, b'\t'),
            (b'\\', Some(b'r')) => (2, b'\r'),
            (b'\\', Some(b'n')) => (2, b'\n'),
            _ => (1, *byte),
        };
        value.push(letter);
        rest = &rest[taken..];
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Vec<String>, NginxError> {
        let mut lexer = Lexer { bytes: text.as_bytes(), at: 0 };
        let (words, _) = lexer.statement()?;
        Ok(words.into_iter().map(|word| String::from_utf8_lossy(&word.value).into_owned()).collect())
    }

    #[test]
    fn words_are_those_that_nginx_sees() {
        for (text, expected) in [
            ("a b;", &["a", "b"][..]),
            ("a 'b;{}#c' d;", &["a", "b;{}#c", "d"]),
            (r#"a "b\"c\n";"#, &["a", "b\"c\n"]),
            ("a ${b}c;", &["a", "${b}c"]),
            ("a x${{b}c;", &["a", "x${{b}c"]),
            ("a b#c;", &["a", "b#c"]),
            ("a # c;\n b;", &["a", "b"]),
            ("a b}c;", &["a", "b}c"]),
            (r"a \;b;", &["a", r"\;b"]),
            ("a \\\nb;", &["a", "\\\nb"]),
            ("if (\"a\" = 'b') {", &["if", "(\"a\"", "=", "b", ")"]),
            ("a\r\n\tb\r\n;", &["a", "b"]),
            ("a it's;", &["a", "it's"]),
        ] {
            assert_eq!(words(text).expect(text), expected, "{text}");
        }
    }

    #[test]
    fn what_nginx_refuses_is_refused_with_its_place() {
        for (text, line, column) in [
            ("a b", 1, 3),
            ("a \"b", 1, 3),
            ("\n  ;", 2, 3),
            ("a\n }", 2, 2),
            ("a 'b'c;", 1, 6),
            ("{", 1, 1),
            ("a 'b'};", 1, 6),
            ("a 'b'#;", 1, 6),
            ("lone", 1, 1),
            ("a b\\", 1, 3),
        ] {
            match words(text) {
                Err(NginxError::Syntax { line: l, column: c, .. }) => {
                    assert_eq!((l, c), (line, column), "{text}")
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}

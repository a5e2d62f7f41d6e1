//! Statements to a tree of directives that knows where each of them stands in the file.

use super::NginxError;
use super::lex::{End, Lexer, Word, position};
use super::lua;
use std::ops::Range;

/// Deeper than any configuration that a person wrote; nginx itself has no limit but its stack.
const MAX_DEPTH: usize = 64;

/// One directive with what is inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    /// Its name and arguments; never empty.
    pub(super) words: Vec<Word>,
    /// From its name to the `;` or `}` that ends it.
    pub(super) span: Range<usize>,
    /// What stands between its braces, where it has some.
    pub(super) block: Option<Block>,
}

/// What stands between braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Block {
    /// Directives.
    Directives(Vec<Directive>),
    /// Lua, from brace to brace.
    Lua(Range<usize>),
}

impl Directive {
    /// What it is called.
    pub(super) fn name(&self) -> &[u8] {
        &self.words[0].value
    }

    /// Whether it is called so.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name() == name.as_bytes()
    }

    /// An argument, counted from 1.
    pub(super) fn argument(&self, number: usize) -> Option<&[u8]> {
        self.words.get(number).map(|word| &word.value[..])
    }

    /// The directives inside it.
    pub(super) fn children(&self) -> &[Directive] {
        match &self.block {
            Some(Block::Directives(children)) => children,
            _ => &[],
        }
    }

    /// Itself and all below it, from top to bottom.
    pub(super) fn all(&self) -> Vec<&Directive> {
        let mut found = vec![self];
        self.children().iter().for_each(|child| found.extend(child.all()));
        found
    }
}

/// A file that was understood.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    /// The whole file.
    pub(super) bytes: &'a [u8],
    /// Its directives.
    pub(super) directives: Vec<Directive>,
}

impl<'a> Tree<'a> {
    /// Reads a whole file.
    ///
    /// # Errors
    /// nginx would not read it either.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Tree<'a>, NginxError> {
        let mut lexer = Lexer { bytes, at: 0 };
        if bytes.starts_with(b"\xef\xbb\xbf") {
            return Err(lexer.refused(0, "a byte order mark, which nginx takes for a directive; remove it"));
        }
        let directives = block(&mut lexer, 0, None)?;
        Ok(Tree { bytes, directives })
    }

    /// The line, from 1, of a byte.
    pub(super) fn line(&self, at: usize) -> usize {
        position(self.bytes, at).0
    }

    /// The bytes of a part, as they stand.
    pub(super) fn raw(&self, span: &Range<usize>) -> &'a [u8] {
        &self.bytes[span.clone()]
    }

    /// All directives, from top to bottom.
    pub(super) fn all(&self) -> Vec<&Directive> {
        self.directives.iter().flat_map(Directive::all).collect()
    }

    /// Parts in which a line can't be commented out alone: words, and blocks of Lua.
    pub(super) fn solid(&self) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        for directive in self.all() {
            parts.extend(directive.words.iter().map(|word| word.span.clone()));
            if let Some(Block::Lua(span)) = &directive.block {
                parts.push(span.clone());
            }
        }
        parts
    }
}

/// Directives up to the `}` of the block that was opened at `open`, or to the end of the file.
fn block(lexer: &mut Lexer<'_>, depth: usize, open: Option<usize>) -> Result<Vec<Directive>, NginxError> {
    let mut directives = Vec::new();
    loop {
        let (words, end) = lexer.statement()?;
        match (end, open) {
            (End::File, None) | (End::Close, Some(_)) => return Ok(directives),
            (End::File, Some(open)) => return Err(lexer.refused(open, "a \"{\" that nothing closes")),
            (End::Close, None) => return Err(lexer.refused(lexer.at - 1, "unexpected \"}\"")),
            (End::Semicolon | End::Open, _) => {}
        }
        let start = words[0].span.start;
        let block = match end {
            End::Open => Some(inside(lexer, &words, depth)?),
            _ => None,
        };
        directives.push(Directive { words, span: start..lexer.at, block });
    }
}

fn inside(lexer: &mut Lexer<'_>, words: &[Word], depth: usize) -> Result<Block, NginxError> {
    let open = lexer.at - 1;
    if words[0].value.ends_with(b"_by_lua_block") {
        let close = lua::block_end(lexer.bytes, lexer.at)
            .ok_or_else(|| lexer.refused(open, "a block of Lua that nothing closes"))?;
        lexer.at = close + 1;
        return Ok(Block::Lua(open..lexer.at));
    }
    if depth == MAX_DEPTH {
        return Err(lexer.refused(open, "blocks are nested too deeply"));
    }
    Ok(Block::Directives(block(lexer, depth + 1, Some(open))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_knows_where_it_stands() {
        let text = b"a b;\r\nserver { # x }\n location / { set $c '}'; } content_by_lua_block { s = '}' } }";
        let tree = Tree::parse(text).expect("it is right");
        let shown: Vec<String> =
            tree.all().iter().map(|d| String::from_utf8_lossy(tree.raw(&d.span)).into_owned()).collect();
        assert_eq!(shown[0], "a b;");
        assert!(shown[1].starts_with("server {") && shown[1].ends_with("} }"), "{shown:?}");
        assert_eq!(
            &shown[2..],
            ["location / { set $c '}'; }", "set $c '}';", "content_by_lua_block { s = '}' }"]
        );
    }

    #[test]
    fn what_is_not_whole_is_refused_with_its_place() {
        let deep = "a {".repeat(100_000);
        for (text, place) in [
            ("server {\n listen 80;\n", "1:8"),
            ("a;\n}", "2:1"),
            ("\u{feff}a;", "1:1"),
            ("x {\n access_by_lua_block { ' }", "2:22"),
            (&deep, "1:195"),
        ] {
            let error = Tree::parse(text.as_bytes()).expect_err(text).to_string();
            assert!(error.starts_with(&format!("line {place}")), "{error}");
        }
    }
}

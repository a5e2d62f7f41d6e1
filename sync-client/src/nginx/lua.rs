//! Where a block of Lua ends (`content_by_lua_block { … }`): kept as it is, so only its braces matter.
//!
//! Braces inside Lua's strings, comments and long brackets don't count.

/// The place of the `}` that closes a block whose first byte is at `start`; `None` where nothing closes it.
pub(super) fn block_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    let mut depth = 0usize;
    while let Some(&byte) = bytes.get(at) {
        at = match byte {
            b'"' | b'\'' => string_end(bytes, at)?,
            b'-' if bytes[at..].starts_with(b"--") => comment_end(bytes, at + 2)?,
            b'[' if long_level(bytes, at).is_some() => long_end(bytes, at)?,
            b'{' => {
                depth += 1;
                at + 1
            }
            b'}' if depth == 0 => return Some(at),
            b'}' => {
                depth -= 1;
                at + 1
            }
            _ => at + 1,
        };
    }
    None
}

/// Behind a string; a line feed that nothing escapes ends no Lua string.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let quote = bytes[start];
    let mut at = start + 1;
    loop {
        match *bytes.get(at)? {
            b'\\' => at += 2,
            b'\n' => return None,
            byte if byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

fn comment_end(bytes: &[u8], at: usize) -> Option<usize> {
    if long_level(bytes, at).is_some() {
        return long_end(bytes, at);
    }
    let rest = bytes.get(at..)?;
    Some(at + rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()))
}

/// How many `=` stand in a long bracket that opens here.
fn long_level(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?.strip_prefix(b"[")?;
    let level = rest.iter().take_while(|&&byte| byte == b'=').count();
    (rest.get(level) == Some(&b'[')).then_some(level)
}

fn long_end(bytes: &[u8], at: usize) -> Option<usize> {
    let level = long_level(bytes, at)?;
    let close = [&b"]"[..], &vec![b'='; level], b"]"].concat();
    let start = at + level + 2;
    let found = bytes.get(start..)?.windows(close.len()).position(|part| part == close)?;
    Some(start + found + close.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_count_only_as_lua_code() {
        for (text, end) in [
            ("}", Some(0)),
            (" t = {} }", Some(8)),
            (" s = '}' }", Some(9)),
            (r#" s = "\"}" }"#, Some(11)),
            (" -- }\n}", Some(6)),
            (" --[[ } ]] }", Some(11)),
            (" s = [==[ } ]] ]==] }", Some(20)),
            (" a[b[1]] = 1 }", Some(13)),
            (" { ", None),
            (" 'a\n' }", None),
            (" [[ } ", None),
        ] {
            assert_eq!(block_end(text.as_bytes(), 0), end, "{text}");
        }
    }
}

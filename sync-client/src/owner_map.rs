//! `--usermap` and `--groupmap` as they are typed: `FROM:TO,…`.

use protocol::ownership::{Mapping, Whom};

/// Reads the rules of one option, `--{what}map`.
///
/// # Errors
/// Says what is wrong with them.
///
/// # Source
/// rsync(1) 3.5.0, `--usermap`; what it says of bad ones was asked of the installed rsync.
pub(crate) fn parse(text: &[u8], what: &str) -> Result<Vec<Mapping>, String> {
    text.split(|&byte| byte == b',').map(|pair| mapping(pair, what)).collect()
}

fn mapping(pair: &[u8], what: &str) -> Result<Mapping, String> {
    let shown = || protocol::path::escaped(pair);
    let Some(colon) = pair.iter().position(|&byte| byte == b':') else {
        return Err(format!("--{what}map: {:?} has no colon; write FROM:TO", shown()));
    };
    let (from, to) = (&pair[..colon], &pair[colon + 1..]);
    if to.is_empty() {
        return Err(format!("--{what}map: {:?} has nothing behind its colon; write FROM:TO", shown()));
    }
    if to.iter().all(u8::is_ascii_digit) && number(to).is_none() {
        return Err(format!("--{what}map: {:?} has a number that no {what} has", shown()));
    }
    let whom = whom(from).ok_or_else(|| {
        format!("--{what}map: {:?} begins with a number, but is neither one nor two as LOW-HIGH", shown())
    })?;
    Ok(Mapping { whom, to: to.to_vec() })
}

/// What begins with a digit is a number or a range; a name is one otherwise.
fn whom(from: &[u8]) -> Option<Whom> {
    if from.first().is_some_and(u8::is_ascii_digit) {
        let mut ends = from.splitn(2, |&byte| byte == b'-');
        let low = number(ends.next()?)?;
        let high = ends.next().map_or(Some(low), number)?;
        return Some(Whom::Numbers { from: low, to: high });
    }
    let is_pattern = from.iter().any(|byte| b"*?[".contains(byte));
    Some(if is_pattern { Whom::Pattern(from.to_vec()) } else { Whom::Name(from.to_vec()) })
}

fn number(digits: &[u8]) -> Option<u32> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ranges_names_and_patterns_are_told_apart() {
        let numbers = |from, to| Whom::Numbers { from, to };
        let name = |name: &[u8]| Whom::Name(name.to_vec());
        let pattern = |pattern: &[u8]| Whom::Pattern(pattern.to_vec());
        let parsed = parse(b"0-99:nobody,wayne:admin,7:8,:x,-1:2,d*:y,*:normal", "user").unwrap();
        let expected = [
            (numbers(0, 99), &b"nobody"[..]),
            (name(b"wayne"), b"admin"),
            (numbers(7, 7), b"8"),
            (name(b""), b"x"),
            (name(b"-1"), b"2"),
            (pattern(b"d*"), b"y"),
            (pattern(b"*"), b"normal"),
        ];
        let expected = expected.map(|(whom, to)| Mapping { whom, to: to.to_vec() });
        assert_eq!(parsed, expected);
        assert_eq!(parse(b"a:b:c", "user").unwrap()[0].to, b"b:c");
    }

    #[test]
    fn what_rsync_refuses_is_refused() {
        for bad in
            ["", "foo", "a:", "1-:2", "1-2-3:4", "1x:2", "1:2,", ",1:2", "1:99999999999", "4294967296:1"]
        {
            assert!(parse(bad.as_bytes(), "group").is_err(), "{bad}");
        }
    }
}

//! Lines of `authorized_keys`: one restricted line made, one key's lines taken out. Text in, text out.
//!
//! Two readers take the quotes apart, one after the other. sshd reads an option's value between double quotes; there
//! `\"` is a quote and every other byte, a backslash too, stands for itself, so a value can't end in a backslash.
//! What is left of `command=` goes to the login shell with `-c`, so a path is quoted for that first.
//!
//! # Source
//! sshd(8), AUTHORIZED_KEYS FILE FORMAT; tested with a real sshd in `tests/tests/key.rs`.

use thiserror::Error;

/// Why no line can be made.
#[derive(Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages say it")]
pub(super) enum LineError {
    #[error("--root {0:?} is not absolute: a relative one depends on where the login begins")]
    RelativeRoot(String),
    #[error(
        "{0:?} holds a character that a line of authorized_keys can't (a line break, a control character)"
    )]
    Control(String),
    #[error("a command can't end in a backslash: sshd takes it with the quote after it")]
    Backslash,
    #[error("--from {0:?} is no address, network (CIDR) or host name pattern")]
    From(String),
}

/// The forced command that holds a key to reading one directory.
///
/// # Errors
/// The root is relative or can't be written in one line.
pub(super) fn agent_command(agent: &str, root: &str) -> Result<String, LineError> {
    if !root.starts_with('/') {
        return Err(LineError::RelativeRoot(root.to_owned()));
    }
    if let Some(text) = [agent, root].into_iter().find(|text| text.chars().any(char::is_control)) {
        return Err(LineError::Control(text.to_owned()));
    }
    Ok(format!("{} --stdio --read-only --root {}", shell_word(agent), shell_word(root)))
}

/// One word for a POSIX shell.
fn shell_word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%=".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The line for `authorized_keys`: this key runs that command alone, from there alone.
///
/// # Errors
/// A pattern or the command can't be written there.
pub(super) fn line(from: &[String], command: &str, public_key: &str) -> Result<String, LineError> {
    let is_pattern = |byte: u8| byte.is_ascii_alphanumeric() || b".:/*?!-_%".contains(&byte);
    if let Some(unfit) = from.iter().find(|text| text.is_empty() || !text.bytes().all(is_pattern)) {
        return Err(LineError::From(unfit.clone()));
    }
    if command.chars().any(char::is_control) {
        return Err(LineError::Control(command.to_owned()));
    }
    if command.ends_with('\\') {
        return Err(LineError::Backslash);
    }
    let from = if from.is_empty() { String::new() } else { format!("from=\"{}\",", from.join(",")) };
    Ok(format!("restrict,{from}command=\"{}\" {public_key}", command.replace('"', "\\\"")))
}

/// The file without every line that lets `key` in (`TYPE BASE64`), and the numbers of those lines, from 1.
#[must_use]
pub(super) fn without(file: &[u8], key: &str) -> (Vec<u8>, Vec<usize>) {
    let mut kept = Vec::with_capacity(file.len());
    let mut gone = Vec::new();
    for (index, line) in file.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if is_of(line, key) {
            gone.push(index + 1);
        } else {
            kept.extend_from_slice(line);
        }
    }
    (kept, gone)
}

/// Whether a line's key is this one; a comment that names it, or an option, is not enough.
fn is_of(line: &[u8], key: &str) -> bool {
    let line = line.trim_ascii();
    if line.starts_with(b"#") {
        return false;
    }
    let is_key = |rest: &[u8]| {
        let mut words = rest.split(|&byte| byte == b' ' || byte == b'\t').filter(|word| !word.is_empty());
        let mut due = key.split(' ');
        words.next() == due.next().map(str::as_bytes) && words.next() == due.next().map(str::as_bytes)
    };
    is_key(line) || is_key(&line[options_len(line)..])
}

/// How long the options at the start of a line are: to the first white space outside quotes.
fn options_len(line: &[u8]) -> usize {
    let mut is_quoted = false;
    let mut at = 0;
    while let Some(&byte) = line.get(at) {
        match byte {
            b'\\' if line.get(at + 1) == Some(&b'"') => at += 1,
            b'"' => is_quoted = !is_quoted,
            b' ' | b'\t' if !is_quoted => return at,
            _ => {}
        }
        at += 1;
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "ssh-ed25519 AAAAkey";

    #[test]
    fn roots_are_quoted_for_the_shell_and_then_for_sshd() {
        let cases = [
            ("/srv/data", "/srv/data"),
            ("/srv/my data", "'/srv/my data'"),
            ("/srv/$(id)", "'/srv/$(id)'"),
            ("/srv/it's", r"'/srv/it'\''s'"),
            ("/srv/a\"b", "'/srv/a\\\"b'"),
            ("/srv/a\\b", r"'/srv/a\b'"),
            ("/srv/Zürich", "'/srv/Zürich'"),
        ];
        for (root, quoted) in cases {
            let command = agent_command("sync-agent", root).unwrap();
            let line = line(&[], &command, KEY).unwrap();
            assert_eq!(
                line,
                format!("restrict,command=\"sync-agent --stdio --read-only --root {quoted}\" {KEY}")
            );
        }
    }

    #[test]
    fn what_no_line_can_hold_is_refused() {
        assert_eq!(agent_command("sync-agent", "srv"), Err(LineError::RelativeRoot("srv".into())));
        assert_eq!(agent_command("sync-agent", "/a\nb"), Err(LineError::Control("/a\nb".into())));
        assert_eq!(line(&[], "a\rb", KEY), Err(LineError::Control("a\rb".into())));
        assert_eq!(line(&[], "echo \\", KEY), Err(LineError::Backslash));
        for from in ["", "a b", "a\"", "a,b", "a\nb"] {
            assert_eq!(line(&[from.into()], "x", KEY), Err(LineError::From(from.into())), "{from:?}");
        }
        let from = ["192.0.2.0/24".to_owned(), "*.example.com".to_owned()];
        let expected = format!("restrict,from=\"192.0.2.0/24,*.example.com\",command=\"x\" {KEY}");
        assert_eq!(line(&from, "x", KEY), Ok(expected));
    }

    #[test]
    fn only_lines_with_that_key_go_and_every_other_byte_stays() {
        let file = format!(
            "# {KEY}\r\n{KEY}\n\tfrom=\"a b\\\" c\",restrict  {KEY}\tcomment\r\ncommand=\"echo {KEY}\" ssh-ed25519 AAAAother\n\n\
             ssh-ed25519 AAAAkeyAndMore\n  {KEY}  x\nssh-ed25519 AAAAlast no newline"
        );
        let expected = format!(
            "# {KEY}\r\ncommand=\"echo {KEY}\" ssh-ed25519 AAAAother\n\nssh-ed25519 AAAAkeyAndMore\nssh-ed25519 AAAAlast no newline"
        );
        let (kept, gone) = without(file.as_bytes(), KEY);
        assert_eq!(String::from_utf8(kept), Ok(expected));
        assert_eq!(gone, [2, 3, 7]);
    }

    /// What sshd makes of an option's value: a backslash before a quote goes, nothing else does.
    fn dequoted(line: &str) -> String {
        let start = line.find("command=\"").map_or(0, |at| at + "command=\"".len());
        let value = &line[start..options_len(line.as_bytes()) - 1];
        value.replace("\\\"", "\"")
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, rng_seed: proptest::test_runner::RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn sshd_reads_back_the_command_that_was_meant(command in "[ -~é]{1,40}") {
            match line(&["192.0.2.1".to_owned()], &command, KEY) {
                Ok(line) => {
                    prop_assert_eq!(dequoted(&line), command);
                    prop_assert!(is_of(line.as_bytes(), KEY));
                }
                Err(error) => prop_assert!(error == LineError::Backslash && command.ends_with('\\')),
            }
        }

        #[test]
        fn a_line_added_and_taken_out_leaves_every_byte(before in "([ -~]{0,20}\r?\n){0,5}", after in "[ -~\n]{0,40}") {
            let line = line(&[], "sync-agent", KEY).unwrap_or_default();
            let (kept, _) = without(format!("{before}{line}\n{after}").as_bytes(), KEY);
            prop_assert_eq!(String::from_utf8(kept), Ok(format!("{before}{after}")));
        }
    }
}

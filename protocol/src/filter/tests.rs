//! The rules one by one, and what they make of paths.

use super::*;
use bincode::enc::Encode;
use bincode::error::DecodeError;
use proptest::prelude::*;

fn excluding(patterns: &[&str]) -> FilterRules {
    let mut rules = FilterRules::default();
    for pattern in patterns {
        rules.push_exclude(pattern.as_bytes()).expect("the table holds well-formed patterns");
    }
    rules
}

fn append(rules: &mut FilterRules, action: Action, sides: Sides, source: &[u8]) {
    let rule = Rule {
        action,
        sides,
        about: About::Entries,
        reach: Reach::Transfer,
        is_negated: false,
        is_perishable: false,
        pattern: Pattern::parse(source, false).expect("well-formed"),
    };
    rules.pattern_bytes += source.len();
    rules.items.push(Item::Rule(rule));
}

/// Whether a pattern matches a path, where a trailing slash marks a directory.
fn matches(pattern: &str, path: &str) -> bool {
    let (path, is_dir) = path.strip_suffix('/').map_or((path, false), |path| (path, true));
    excluding(&[pattern]).excludes(path.as_bytes(), is_dir, Side::Sender)
}

#[track_caller]
fn assert_table(table: &[(&str, &[&str], &[&str])]) {
    for (pattern, matching, other) in table {
        for path in *matching {
            assert!(matches(pattern, path), "{pattern} should match {path}");
        }
        for path in *other {
            assert!(!matches(pattern, path), "{pattern} should not match {path}");
        }
    }
}

#[test]
fn a_pattern_without_slashes_is_compared_with_the_name_alone() {
    assert_table(&[
        ("foo", &["foo", "a/foo", "foo/", "a/b/foo/"], &["foo/a", "xfoo", "foox", "a/xfoo"]),
        ("*.o", &["x.o", "a/x.o", ".o", "x.o/"], &["x.oo", "xo", "x.o/a"]),
        ("foo*", &["foo", "foobar", "a/foo.c"], &["afoo", "foo/a"]),
        ("a*a", &["aa", "aba", "x/aXa"], &["a", "ab", "a/a/b"]),
        ("*", &["a", "a/b", "a/b/"], &[]),
        ("?", &["a", "x/a"], &["ab", "x/ab"]),
    ]);
}

#[test]
fn a_leading_slash_anchors_at_the_root_of_the_transfer() {
    assert_table(&[
        ("/foo", &["foo", "foo/"], &["a/foo", "foo/a"]),
        ("/foo/bar", &["foo/bar"], &["a/foo/bar", "foo", "bar"]),
        ("/*.o", &["x.o"], &["a/x.o"]),
        ("/a/*/c", &["a/b/c"], &["a/c", "a/b/b/c", "x/a/b/c"]),
        ("/", &[], &["a", "a/"]),
        ("//a", &[], &["a", "x/a"]),
    ]);
}

#[test]
fn an_inner_slash_compares_with_the_tail_of_the_path() {
    assert_table(&[
        ("foo/bar", &["foo/bar", "a/foo/bar"], &["xfoo/bar", "foo/bar/a", "foo/x/bar", "bar"]),
        ("foo/*/bar", &["foo/x/bar", "a/foo/x/bar"], &["foo/bar", "foo/x/y/bar", "xfoo/x/bar"]),
        ("foo/*", &["foo/x", "a/foo/x"], &["foo", "foo/x/y"]),
        ("a//b", &[], &["a/b"]),
    ]);
}

#[test]
fn a_trailing_slash_matches_directories_only() {
    assert_table(&[
        ("foo/", &["foo/", "a/foo/"], &["foo", "a/foo", "foo/a"]),
        ("/foo/", &["foo/"], &["foo", "a/foo/"]),
        ("*/", &["foo/", "a/b/"], &["foo"]),
        ("a/b/", &["x/a/b/"], &["x/a/b"]),
        ("foo//", &[], &["foo/", "foo"]),
        ("//", &[], &["foo/"]),
    ]);
}

#[test]
fn two_stars_cross_slashes() {
    assert_table(&[
        ("/foo/**/bar", &["foo/x/bar", "foo/x/y/bar"], &["foo/bar", "a/foo/x/bar"]),
        ("foo/**", &["foo/x", "a/foo/x/y"], &["foo", "foo/"]),
        ("**/foo", &["foo", "a/foo", "a/b/foo"], &["afoo", "a/bfoo"]),
        ("**foo", &["foo", "a/bfoo"], &["foob"]),
        ("/**/foo", &["a/foo"], &["foo"]),
        ("a**z", &["az", "a/b/z", "x/a/b/z"], &["xaz", "x/ya/z"]),
        ("**", &["a", "a/b"], &[]),
        ("a/**/b/*/c", &["a/x/b/y/c", "a/b/b/b/c"], &["a/b/y/c", "a/x/b/c"]),
    ]);
}

#[test]
fn three_final_stars_match_a_directory_and_all_in_it() {
    assert_table(&[
        ("dir/***", &["dir/", "dir/a", "x/dir/", "x/dir/a/b"], &["dir", "x/dir", "xdir/"]),
        ("/dir/***", &["dir/", "dir/a/b"], &["dir", "x/dir/", "x/dir/a"]),
        ("dir/***/", &["dir/", "dir/a/"], &["dir", "dir/a"]),
        ("a***z", &["az", "a/b/z"], &[]),
    ]);
}

#[test]
fn a_class_matches_one_byte_but_never_a_slash() {
    assert_table(&[
        ("[ab]", &["a", "b"], &["c", "ab"]),
        ("[a-c]x", &["ax", "cx"], &["dx", "-x"]),
        ("[!a-c]", &["d", "-"], &["a", "b"]),
        ("[^a]", &["b", "^"], &["a"]),
        ("[]a]", &["]", "a"], &["b"]),
        ("[!]a]", &["b"], &["]", "a"]),
        ("[a-]", &["a", "-"], &["b"]),
        ("[--0]", &["-", ".", "0"], &["a"]),
        ("[z-a]", &["z"], &["a", "m"]),
        ("[a-c-e]", &["b", "-", "e"], &["d"]),
        ("[\\]x]", &["]", "x"], &["\\"]),
        ("[a-\\c]", &["b"], &["\\"]),
        ("a[/]b", &[], &["a/b", "x/a/b"]),
        ("a**[!x]b", &["ayb"], &["a/b"]),
        ("[[:digit:]a]", &["0", "a"], &["b", ":", "["]),
        ("[![:alpha:]]", &["0"], &["a", "Z"]),
        ("[[:alpha:]-z]", &["b", "-", "z"], &["1"]),
        ("[[:space:]]", &[" ", "\t", "\u{b}"], &["a"]),
        ("[[:]", &["[", ":"], &["a"]),
        ("[[:x]", &["[", ":", "x"], &["a"]),
    ]);
}

#[test]
fn a_malformed_pattern_matches_nothing() {
    let empty: &[&str] = &[];
    assert_table(
        &["[a", "[", "[]", "[!]", "[[:bad:]]", "[[:alpha:]", "[a-", "[a\\", "*\\", "*[a"]
            .map(|pattern| (pattern, empty, &["a", "[", "[a", "]", "\\", "a\\", "[]", "[!]"][..])),
    );
}

#[test]
fn a_backslash_escapes_only_in_a_pattern_with_wildcards() {
    assert_table(&[
        ("a\\b", &["a\\b"], &["ab"]),
        ("a\\\\b", &["a\\\\b"], &["a\\b"]),
        ("\\*", &["*"], &["a", "\\*"]),
        ("a\\b*", &["ab", "abc"], &["a\\b"]),
        ("a\\\\b*", &["a\\b"], &["ab"]),
        ("\\[a]", &["[a]"], &["a"]),
        ("\\?", &["?"], &["a"]),
    ]);
}

#[test]
fn names_are_bytes() {
    let mut rules = FilterRules::default();
    rules.push_exclude(b"\xff[\x80-\x8f]?").expect("any byte but zero may stand in a pattern");
    assert!(rules.excludes(b"dir/\xff\x85\xc3", false, Side::Sender));
    assert!(!rules.excludes(b"dir/\xff\x95\xc3", false, Side::Sender));
}

#[test]
fn the_first_matching_rule_decides_and_no_match_includes() {
    let mut rules = FilterRules::default();
    assert!(rules.is_empty());
    rules.push_include(b"*/").expect("well-formed");
    rules.push_include(b"*.c").expect("well-formed");
    rules.push_exclude(b"*.c").expect("well-formed");
    rules.push_exclude(b"*.h").expect("well-formed");
    for side in [Side::Sender, Side::Receiver] {
        assert!(!rules.excludes(b"a.h", true, side));
        assert!(!rules.excludes(b"a.c", false, side));
        assert!(rules.excludes(b"a.h", false, side));
        assert!(!rules.excludes(b"a.o", false, side));
        assert!(!rules.excludes(b"", true, side));
    }
}

#[test]
fn a_rule_for_one_side_is_passed_over_on_the_other() {
    let mut rules = FilterRules::default();
    append(&mut rules, Action::Include, Sides::SenderOnly, b"keep");
    append(&mut rules, Action::Exclude, Sides::Both, b"keep");
    append(&mut rules, Action::Exclude, Sides::ReceiverOnly, b"mine");
    assert!(!rules.excludes(b"keep", false, Side::Sender));
    assert!(rules.excludes(b"keep", false, Side::Receiver));
    assert!(!rules.excludes(b"mine", false, Side::Sender));
    assert!(rules.excludes(b"mine", false, Side::Receiver));
}

#[test]
fn an_argument_may_say_its_kind_or_clear_the_list() {
    let mut rules = excluding(&["+ a", "- b", "-c", "- - d", "a", ""]);
    let mut direct = FilterRules::default();
    append(&mut direct, Action::Include, Sides::Both, b"a");
    for pattern in [&b"b"[..], b"-c", b"- d", b"a"] {
        append(&mut direct, Action::Exclude, Sides::Both, pattern);
    }
    assert_eq!(rules, direct);
    rules.push_exclude(b"!").expect("clearing can't fail");
    assert_eq!(rules, FilterRules::default());

    let mut literal = excluding(&["a", "- !", "! ", "!x"]);
    assert!(literal.excludes(b"!", false, Side::Sender));
    assert!(literal.excludes(b"! ", false, Side::Sender));
    assert!(literal.excludes(b"!x", false, Side::Sender));
    assert!(literal.excludes(b"a", false, Side::Sender));
    literal.push_include(b"!").expect("clearing can't fail");
    assert!(literal.is_empty());
}

#[test]
fn a_file_gives_one_argument_per_line_without_comments_and_blank_lines() {
    let mut rules = FilterRules::default();
    let content = b"gone\n!\n# c\n;d\n\n+ a.o\r\n*.o\n #e\n  \n- #f\nlast";
    rules.push_exclude_file(content).expect("well-formed");
    assert_eq!(rules, excluding(&["+ a.o", "*.o", " #e", "  ", "#f", "last"]));

    let mut included = FilterRules::default();
    included.push_include_file(b"a\n- b\n").expect("well-formed");
    assert_eq!(included, excluding(&["+ a", "b"]));
}

#[test]
fn a_bad_line_is_named_and_leaves_the_list_unchanged() {
    let mut rules = excluding(&["a"]);
    let missing = FilterError::InFile { line: 3, source: Box::new(FilterError::MissingPattern) };
    assert_eq!(rules.push_exclude_file(b"!\nb\n- \nc"), Err(missing));
    let nul = FilterError::InFile { line: 1, source: Box::new(FilterError::NulInPattern) };
    assert_eq!(rules.push_include_file(b"b\0c\0"), Err(nul));
    assert_eq!(rules, excluding(&["a"]));
}

#[test]
fn the_largest_list_fits_in_a_frame() {
    let mut rules = FilterRules::default();
    let pattern = b"a".repeat(MAX_RULES_BYTES / MAX_RULES);
    let content = [&pattern[..], b"\n"].concat().repeat(MAX_RULES);
    rules.push_exclude_file(&content).expect("within the limits");
    assert!(encode(&rules).len() < 1 << 20);
    assert_eq!(decode(&encode(&rules)).expect("just encoded"), rules);
}

#[test]
fn a_list_that_outgrows_its_limits_is_refused() {
    let long = vec![b'a'; MAX_PATTERN_BYTES];
    let mut rules = FilterRules::default();
    let too_long = FilterError::PatternTooLong { pattern_bytes: MAX_PATTERN_BYTES + 1 };
    assert_eq!(rules.push_exclude(&[&long[..], b"a"].concat()), Err(too_long));
    for _ in 0..MAX_RULES_BYTES / MAX_PATTERN_BYTES {
        rules.push_exclude(&long).expect("within the limit");
    }
    assert_eq!(rules.push_exclude(&long), Err(FilterError::TooManyBytes));

    let mut many = FilterRules::default();
    many.push_exclude_file(&b"a\n".repeat(MAX_RULES)).expect("within the limit");
    assert_eq!(many.push_exclude(b"a"), Err(FilterError::TooManyRules));
    many.push_exclude(b"!").expect("clearing can't fail");
    many.push_exclude(b"a").expect("the list is empty again");
}

#[test]
fn a_hostile_pattern_costs_no_more_than_pattern_length_times_path_length() {
    let path = b"a/".repeat(2047);
    for piece in [&b"*a"[..], b"**a", b"*/", b"a**", b"?*", b"[a/]**"] {
        let mut pattern = piece.repeat(MAX_PATTERN_BYTES / piece.len() - 1);
        pattern.extend_from_slice(b"b*");
        let mut rules = FilterRules::default();
        rules.push_exclude(&pattern).expect("within the limit");
        rules.push_exclude(&[&pattern[..], b"?"].concat()).expect("within the limit");
        assert!(!rules.excludes(&path, false, Side::Sender));
    }
}

#[test]
fn patterns_of_every_length_match_paths_of_that_length() {
    for length in [1, 62, 63, 64, 65, 127, 128, 129, 4032, MAX_PATTERN_BYTES] {
        let mut rules = FilterRules::default();
        rules.push_exclude(&b"?".repeat(length)).expect("within the limit");
        let path = b"a".repeat(length);
        assert!(rules.excludes(&path, false, Side::Sender), "{length}");
        assert!(!rules.excludes(&path[1..], false, Side::Sender), "{length}");
        assert!(!rules.excludes(&[&path[..], b"a"].concat(), false, Side::Sender), "{length}");
    }
}

#[test]
fn the_wire_form_has_golden_bytes() {
    let mut rules = excluding(&["*.o", "+ a/"]);
    append(&mut rules, Action::Exclude, Sides::ReceiverOnly, b"/x");
    let bytes = encode(&rules);
    assert_eq!(bytes, b"\x00\x00\x03\x01\x00\x00\x03*.o\x00\x00\x00\x02a/\x01\x02\x00\x02/x");
}

#[test]
fn a_peers_list_beyond_the_limits_is_refused_before_it_costs_memory() {
    let huge = u64::MAX.to_le_bytes();
    let cases = [
        [&[0xfd][..], &huge].concat(),
        [&[1, 1, 0, 0, 0xfd][..], &huge].concat(),
        vec![1, 1, 0, 0, 0],
        vec![1, 1, 0, 0, 1, 0],
        vec![1, 3, 0, 0, 1, b'a'],
        vec![1, 1, 3, 0, 1, b'a'],
        vec![1, 1, 4, 0, 1, b'a'],
        vec![1, 1, 0, 16, 1, b'a'],
        vec![1, 2, 0, 96, 1, b'a'],
        vec![1, 2, 0, 128, 1, b'a'],
        vec![1, 2, 0, 0, 0],
        vec![1, 2, 0, 0, 2, b'.', b'.'],
        vec![1, 2, 0, 0, 2, b'a', b'/'],
        vec![1, 1, 0, 0, 5, b'a'],
        vec![2, 1, 0, 0, 1, b'a'],
    ]
    .map(|list| [&[0, 0][..], &list].concat());
    for bytes in cases {
        assert!(decode(&bytes).is_err(), "{bytes:?}");
    }
    let rule = encode(&excluding(&[&"a".repeat(MAX_PATTERN_BYTES)]));
    let count = encode_value(300usize);
    assert!(decode(&[&[0, 0][..], &count, &rule[3..].repeat(300)].concat()).is_err());
}

fn encode_value<T: Encode>(value: T) -> Vec<u8> {
    bincode::encode_to_vec(value, bincode::config::standard()).expect("a vector takes any amount")
}

fn encode(rules: &FilterRules) -> Vec<u8> {
    encode_value(rules)
}

fn decode(bytes: &[u8]) -> Result<FilterRules, DecodeError> {
    bincode::decode_from_slice(bytes, bincode::config::standard()).map(|(rules, _)| rules)
}

/// rsync(1) read literally and tried recursively: every place a match may start, every length of
/// every star.
mod reference {
    pub(super) fn matches(pattern: &[u8], path: &[u8], is_dir: bool) -> bool {
        let (body, dir_only) = match pattern {
            [body @ .., b'/'] if !body.is_empty() => (body, true),
            body => (body, false),
        };
        if dir_only && !is_dir {
            return false;
        }
        let is_wild = body.iter().any(|byte| b"*?[".contains(byte));
        let crosses = String::from_utf8_lossy(body).contains("**");
        let mut text = path.to_vec();
        if is_wild && is_dir && body.ends_with(b"***") {
            text.push(b'/');
        }
        let fits = |body: &[u8], text: &[u8]| {
            if is_wild { wild(body, text) } else { body == text }
        };
        if let [b'/', anchored @ ..] = body {
            return fits(anchored, &text);
        }
        if body.starts_with(b"**") {
            return fits(body, &[b"/", &text[..]].concat());
        }
        let slashes = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'/').count();
        (0..text.len())
            .filter(|&start| start == 0 || text[start - 1] == b'/')
            .map(|start| &text[start..])
            .filter(|tail| crosses || slashes(tail) == slashes(body))
            .any(|tail| fits(body, tail))
    }

    fn wild(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', b'*', rest @ ..] => {
                (0..=text.len()).any(|taken| wild(rest, &text[taken..]))
                    || rest.starts_with(b"*") && wild(&pattern[1..], text)
            }
            [b'*', rest @ ..] => (0..=text.len())
                .take_while(|&taken| !text[..taken].contains(&b'/'))
                .any(|taken| wild(rest, &text[taken..])),
            [b'?', rest @ ..] => {
                matches!(text, [byte, after @ ..] if *byte != b'/' && wild(rest, after))
            }
            [b'[', rest @ ..] => {
                let Some(length) = class_length(rest) else {
                    return false;
                };
                let [byte, after @ ..] = text else {
                    return false;
                };
                *byte != b'/' && in_class(&rest[..length - 1], *byte) && wild(&rest[length..], after)
            }
            [b'\\'] => false,
            [b'\\', byte, rest @ ..] | [byte, rest @ ..] => {
                matches!(text, [first, after @ ..] if first == byte && wild(rest, after))
            }
        }
    }

    /// Classes here have neither names nor escapes, so they end at the first `]` that may end them.
    fn class_length(text: &[u8]) -> Option<usize> {
        let first = usize::from(matches!(text, [b'!' | b'^', ..])) + 1;
        let end = text.get(first..)?.iter().position(|&byte| byte == b']')?;
        Some(first + end + 1)
    }

    fn in_class(members: &[u8], byte: u8) -> bool {
        match members {
            [b'!' | b'^', members @ ..] => !in_set(members, byte),
            members => in_set(members, byte),
        }
    }

    fn in_set(members: &[u8], byte: u8) -> bool {
        match members {
            [] => false,
            [first, b'-', last, rest @ ..] => {
                byte == *first || (*first..=*last).contains(&byte) || in_set_after_range(rest, byte)
            }
            [first, rest @ ..] => byte == *first || in_set(rest, byte),
        }
    }

    fn in_set_after_range(members: &[u8], byte: u8) -> bool {
        match members {
            [b'-', rest @ ..] if !rest.starts_with(b"-") => byte == b'-' || in_set(rest, byte),
            members => in_set(members, byte),
        }
    }
}

fn escapes_in_a_class(pattern: &[u8]) -> bool {
    let opened = pattern.iter().position(|&byte| byte == b'[');
    opened.is_some_and(|at| pattern[at..].contains(&b'\\'))
}

fn pattern() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => "[abc]{1,2}",
        4 => Just("/".to_owned()),
        4 => Just("*".to_owned()),
        2 => Just("**".to_owned()),
        2 => Just("?".to_owned()),
        2 => "\\[[!^]?[]abc]([abc]|a-b|b-c){0,2}-?\\]",
        1 => Just("[a".to_owned()),
        1 => "\\\\[*?\\[abc\\\\]?",
        1 => "/\\*{2,3}",
    ];
    proptest::collection::vec(piece, 1..7).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, rng_seed: proptest::test_runner::RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_pattern_matches_what_the_manual_says(
        pattern in pattern(),
        paths in proptest::collection::vec(r"[abc\]*\\-]{1,3}(/[abc\]*]{1,3}){0,3}", 8),
        is_dir: bool,
    ) {
        // The reference knows no escapes in a class; the tables and the parity with rsync do.
        prop_assume!(!escapes_in_a_class(&pattern));
        let mut rules = FilterRules::default();
        append(&mut rules, Action::Exclude, Sides::Both, &pattern);
        for path in paths {
            prop_assert_eq!(
                rules.excludes(path.as_bytes(), is_dir, Side::Sender),
                reference::matches(&pattern, path.as_bytes(), is_dir),
                "{} on {}", pattern.escape_ascii(), path
            );
        }
    }

    #[test]
    fn rules_survive_the_wire(patterns in proptest::collection::vec(pattern(), 0..6)) {
        let mut rules = FilterRules::default();
        for pattern in &patterns {
            rules.push_exclude(pattern).expect("well-formed");
        }
        prop_assert_eq!(decode(&encode(&rules)).expect("just encoded"), rules);
    }

    #[test]
    fn no_bytes_from_a_user_or_a_peer_panic(bytes: Vec<u8>, path: Vec<u8>) {
        let mut rules = FilterRules::default();
        let _ = rules.push_exclude_file(&bytes);
        let _ = rules.push_exclude(&bytes);
        rules.excludes(&path, true, Side::Receiver);
        if let Ok(decoded) = decode(&bytes) {
            decoded.excludes(&path, false, Side::Sender);
        }
    }
}

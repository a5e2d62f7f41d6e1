//! Tables of edits and their undo, and the property that a generated file comes back byte for byte.

use super::*;
use proptest::prelude::*;
use std::path::PathBuf;

fn core(name: &str) -> CoreName {
    name.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A file whose names are these members.
fn file(names: &str) -> String {
    format!(
        "{{\n  \"dns\": {{\n    \"domain\": \"example.com\",\n    \"staticDataInDomain\": {names}\n  }}\n}}\n"
    )
}

fn set_text(before: &str, name: &str, address: &str, old: Option<&str>) -> Result<String, EditError> {
    let edited = set(before.as_bytes(), &core(name), ip(address), old)?;
    Ok(String::from_utf8(edited.bytes).unwrap())
}

/// Sets, and checks that the undo of it gives every byte back.
fn set_and_undone(before: &str, name: &str, address: &str) -> String {
    let after = set_text(before, name, address, None).unwrap();
    let records =
        Records::with_edit(None, &core(name), before.as_bytes(), after.as_bytes()).unwrap().unwrap();
    let records = Records::parse(&records.to_bytes()).unwrap();
    let undone = records.undo(after.as_bytes(), None).unwrap();
    assert_eq!(String::from_utf8(undone.bytes).unwrap(), before);
    assert!(undone.is_first && undone.left.is_none());
    after
}

#[test]
fn only_the_bytes_of_the_address_change() {
    let cases = [
        (r#"{"co1":{"ip":"192.0.2.1"}}"#, r#"{"co1":{"ip":"203.0.113.7"}}"#),
        (r#"{"co1": {"ip" :"CORE_1_IP_ADDRESS" }}"#, r#"{"co1": {"ip" :"203.0.113.7" }}"#),
        (
            r#"{"co1": { "description": ["a", "é"], "ip": "1.2.3.4", "alias": [{"name": "x"}], "ttl": 1e2 }}"#,
            r#"{"co1": { "description": ["a", "é"], "ip": "203.0.113.7", "alias": [{"name": "x"}], "ttl": 1e2 }}"#,
        ),
        (r#"{"co1": {"ip": [ "1.2.3.4" ]}}"#, r#"{"co1": {"ip": [ "203.0.113.7" ]}}"#),
        (r#"{"co1": {"ip": [ "1.2.3.4", "::1" ]}}"#, r#"{"co1": {"ip": [ "203.0.113.7" ]}}"#),
        (r#"{"co1": {"ip": [ ]}}"#, r#"{"co1": {"ip": ["203.0.113.7"]}}"#),
        (r#"{"co1": {"IP": "1.2.3.4"}}"#, r#"{"co1": {"IP": "203.0.113.7"}}"#),
        (r#"{"c\u006f1": {"\u0069p": "1.2.3.4"}}"#, r#"{"c\u006f1": {"\u0069p": "203.0.113.7"}}"#),
        // Of two members of one name the last counts.
        (
            r#"{"co1": {"ip": "1.2.3.4"}, "co1": {"ip": "1.2.3.4", "ip": "1.2.3.4"}}"#,
            r#"{"co1": {"ip": "1.2.3.4"}, "co1": {"ip": "1.2.3.4", "ip": "203.0.113.7"}}"#,
        ),
    ];
    for (before, after) in cases {
        assert_eq!(set_and_undone(&file(before), "co1", "203.0.113.7"), file(after));
    }
}

#[test]
fn what_is_missing_is_added_as_its_neighbours_are_written() {
    let cases = [
        (
            "{\n      \"sw\": {\n        \"ip\": \"1.2.3.4\"\n      }\n    }",
            "{\n      \"sw\": {\n        \"ip\": \"1.2.3.4\"\n      },\n      \"co2\": {\n        \"ip\": \"2001:db8::1\"\n      }\n    }",
        ),
        (
            "{\n\t\"sw\": { \"ip\": \"1.2.3.4\" }, \r\n\t\"reg\": { \"ip\": \"1.2.3.4\" }\r\n}",
            "{\n\t\"sw\": { \"ip\": \"1.2.3.4\" }, \r\n\t\"reg\": { \"ip\": \"1.2.3.4\" },\r\n\t\"co2\": { \"ip\": \"2001:db8::1\" }\r\n}",
        ),
        (r#"{"sw":{"ip":"1.2.3.4"}}"#, r#"{"sw":{"ip":"1.2.3.4"},"co2":{"ip":"2001:db8::1"}}"#),
        ("{ }", "{\n      \"co2\": {\n        \"ip\": \"2001:db8::1\"\n      }\n    }"),
        (r#"{"co2": {"description": "x"}}"#, r#"{"co2": {"description": "x","ip": "2001:db8::1"}}"#),
        (
            r#"{"co2": {}, "sw": {"ip": "1.2.3.4"}}"#,
            "{\"co2\": {\n      \"ip\": \"2001:db8::1\"\n    }, \"sw\": {\"ip\": \"1.2.3.4\"}}",
        ),
    ];
    for (before, after) in cases {
        assert_eq!(set_and_undone(&file(before), "co2", "2001:db8::1"), file(after));
    }
    let line = r#"{"dns":{"staticDataInDomain":{}}}"#;
    let expected = r#"{"dns":{"staticDataInDomain":{"co2": { "ip": "2001:db8::1" }}}}"#;
    assert_eq!(set_and_undone(line, "co2", "2001:db8::1"), expected);
}

#[test]
fn of_several_addresses_one_can_be_named() {
    let two = file(r#"{"co1": {"ip": ["1.2.3.4", "2001:DB8::1"]}}"#);
    let after = set_text(&two, "co1", "203.0.113.7", Some("2001:db8:0::1")).unwrap();
    assert_eq!(after, file(r#"{"co1": {"ip": ["1.2.3.4", "203.0.113.7"]}}"#));
    let again = set_text(&after, "co1", "203.0.113.7", Some("1.2.3.4"));
    assert!(matches!(again, Err(EditError::Twice { .. })), "{again:?}");
    let absent = set_text(&two, "co1", "203.0.113.7", Some("9.9.9.9"));
    assert!(matches!(absent, Err(EditError::NotThere { .. })), "{absent:?}");
    let edited = set(two.as_bytes(), &core("co1"), ip("203.0.113.7"), Some("1.2.3.4")).unwrap();
    assert_eq!((edited.old, edited.kept), (vec!["1.2.3.4".to_owned()], vec!["2001:DB8::1".to_owned()]));
}

#[test]
fn what_is_not_the_file_of_a_dns_server_is_refused_with_its_place() {
    let deep = "[".repeat(100_000);
    let cases: [(&[u8], &str); 15] = [
        (b"", "1:1: not JSON: EOF while parsing a value"),
        (b"{\n  \"dns\": ${DNS}\n}", "2:10: not JSON: expected value"),
        (b"{\"dns\": {},}", "1:12: not JSON: trailing comma"),
        (b"{\"dns\": {} // why\n}", "1:12: not JSON: expected `,` or `}`"),
        (b"{'dns': {}}", "1:2: not JSON: key must be a string"),
        (b"\xef\xbb\xbf{\"dns\": \xff}", "1:9: not JSON: the text is not UTF-8"),
        (b"{\"a\": \"\t\"}", "1:8: not JSON: control character"),
        (b"{\"a\": NaN}", "1:7: not JSON: expected value"),
        (b"{\"dns\": {}} {}", "1:13: not JSON: trailing characters"),
        (deep.as_bytes(), "1:128: not JSON: recursion limit exceeded"),
        (b"[]", "1:1: not JSON: the file is no object"),
        (b"{\"dns\": []}", "1:9: dns is not an object"),
        (b"{\"dns\": {}}", "1:9: dns.staticDataInDomain is missing"),
        (
            b"{\"dns\": {\"staticDataInDomain\": {\"co1\": \"1.2.3.4\"}}}",
            "1:40: dns.staticDataInDomain.co1 is not an object",
        ),
        (
            b"{\"dns\": {\"staticDataInDomain\":\n {\"co1\": {\"ip\": [\"1.2.3.4\", null]}}}}",
            "2:29: dns.staticDataInDomain.co1.ip holds something that is no string",
        ),
    ];
    for (bytes, expected) in cases {
        let error = set(bytes, &core("co1"), ip("203.0.113.7"), None).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(expected), "{text}");
    }
}

#[test]
fn an_alias_and_a_name_that_is_never_found_are_refused() {
    let alias = file(r#"{"co1": {"alias": [{"name": "sw.example.com"}]}}"#);
    assert!(matches!(set_text(&alias, "co1", "1.2.3.4", None), Err(EditError::Alias { .. })));
    assert!(matches!(set_text(&alias, "Co1", "1.2.3.4", None), Err(EditError::NotLowerCase { .. })));
    for name in ["", "co1.example.com", "co 1", "co\"1", &"x".repeat(64)] {
        assert!(name.parse::<CoreName>().is_err(), "{name}");
    }
}

/// Edits one after the other as the command does: the file, and what is kept beside it.
struct Kept {
    text: String,
    records: Option<Records>,
}

impl Kept {
    fn new(names: &str) -> Kept {
        Kept { text: file(names), records: None }
    }

    fn set(&mut self, name: &str, address: &str) {
        let after = set_text(&self.text, name, address, None).unwrap();
        let edit =
            Records::with_edit(self.records.as_ref(), &core(name), self.text.as_bytes(), after.as_bytes());
        self.records = edit.unwrap();
        self.text = after;
    }

    fn undo(&self, name: Option<&str>) -> Result<Undone, EditError> {
        self.records.as_ref().unwrap().undo(self.text.as_bytes(), name.map(core).as_ref())
    }
}

#[test]
fn several_edits_are_undone_to_the_first_bytes_or_one_core_at_a_time() {
    let names = r#"{"co1": {"ip": "1.2.3.4"}, "sw": {"ip": ["5.6.7.8"]}}"#;
    let mut kept = Kept::new(names);
    for (name, address) in [
        ("co1", "10.0.0.1"),
        ("sw", "10.0.0.2"),
        ("co3", "10.0.0.3"),
        ("co1", "10.0.0.4"),
        ("co4", "10.0.0.5"),
        ("co3", "::6"),
    ] {
        kept.set(name, address);
    }
    let undone = kept.undo(None).unwrap();
    assert_eq!((String::from_utf8(undone.bytes).unwrap(), undone.is_first), (file(names), true));
    let one = kept.undo(Some("co1")).unwrap();
    assert_eq!(one.cores, ["co1"]);
    let text = String::from_utf8(one.bytes).unwrap();
    assert!(text.contains(r#""co1": {"ip": "1.2.3.4"}"#) && text.contains(r#""::6""#), "{text}");
    let rest = Kept { text, records: one.left }.undo(None).unwrap();
    assert_eq!((String::from_utf8(rest.bytes).unwrap(), rest.is_first), (file(names), true));
    assert!(matches!(kept.undo(Some("co9")), Err(EditError::NotSet { .. })));
}

#[test]
fn setting_the_first_address_again_leaves_nothing_to_undo() {
    let mut kept = Kept::new(r#"{"co1": {"ip": "1.2.3.4"}}"#);
    kept.set("co1", "10.0.0.1");
    kept.set("co1", "1.2.3.4");
    assert_eq!(kept.records, None);
}

#[test]
fn an_edit_elsewhere_stays_when_the_own_one_is_undone() {
    let mut kept = Kept::new(r#"{"co1": {"ip": "1.2.3.4"}}"#);
    kept.set("co1", "10.0.0.1");
    kept.text = kept.text.replace("example.com", "example.org\", \"new\": \"x");
    let undone = kept.undo(None).unwrap();
    let expected =
        file(r#"{"co1": {"ip": "1.2.3.4"}}"#).replace("example.com", "example.org\", \"new\": \"x");
    assert_eq!((String::from_utf8(undone.bytes).unwrap(), undone.is_first), (expected, false));
}

#[test]
fn a_value_that_somebody_else_changed_is_not_undone() {
    let mut kept = Kept::new(r#"{"co1": {"ip": "1.2.3.4"}}"#);
    kept.set("co1", "10.0.0.1");
    for (from, to) in [("10.0.0.1", "10.0.0.9"), ("\"10.0.0.1\"", "[\"10.0.0.1\"]"), ("co1", "co2")] {
        let changed = Kept { text: kept.text.replace(from, to), records: kept.records.clone() };
        assert!(matches!(changed.undo(None), Err(EditError::ChangedSince { .. })), "{to}");
    }
    let mut added = Kept::new("{}");
    added.set("co1", "10.0.0.1");
    added.text = added.text.replace("\n    }\n", ",\n      \"sw\": {}\n    }\n");
    assert!(matches!(added.undo(None), Err(EditError::ChangedSince { .. })), "{}", added.text);
}

#[test]
fn an_edit_that_was_never_written_is_undone_by_doing_nothing() {
    let names = r#"{"co1": {"ip": "1.2.3.4"}}"#;
    for (name, address) in [("co1", "10.0.0.1"), ("co2", "10.0.0.1")] {
        let mut kept = Kept::new(names);
        kept.set(name, address);
        let killed = Kept { text: file(names), records: kept.records.clone() };
        let undone = killed.undo(None).unwrap();
        assert_eq!((undone.bytes, undone.cores.len()), (file(names).into_bytes(), 0));
        let after_first = kept.text.clone();
        kept.set(name, "10.0.0.2");
        let killed = Kept { text: after_first, records: kept.records };
        assert_eq!(killed.undo(None).unwrap().bytes, file(names).into_bytes());
    }
}

#[test]
fn damaged_records_are_refused() {
    let mut kept = Kept::new(r#"{"co1": {"ip": "1.2.3.4"}}"#);
    kept.set("co1", "10.0.0.1");
    let bytes = kept.records.unwrap().to_bytes();
    for damaged in [
        &bytes[..bytes.len() / 2],
        b"",
        String::from_utf8_lossy(&bytes).replace("\"version\": 1", "\"version\": 2").as_bytes(),
    ] {
        assert!(matches!(Records::parse(damaged), Err(EditError::Records(_))));
    }
}

#[test]
fn the_platforms_own_files_come_back_byte_for_byte() {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/samples");
    let samples = std::env::var_os("SYNC_SAMPLES").map_or(default, PathBuf::from).join("register");
    let Ok(entries) = std::fs::read_dir(&samples) else {
        eprintln!("the platform's own files are not at {}: nothing to compare", samples.display());
        return;
    };
    let mut count = 0;
    for entry in entries.flatten() {
        let before = std::fs::read_to_string(entry.path()).unwrap();
        for name in ["co1", "core1", "coreN", "new-core"] {
            let is_new_with_upper_case = name == "coreN" && !before.contains("coreN");
            if !is_new_with_upper_case {
                let after = set_and_undone(&before, name, "203.0.113.7");
                assert_ne!(after, before);
                count += 1;
            }
        }
    }
    assert!(count >= 15, "{count}");
}

/// How a generated file is written.
#[derive(Debug, Clone)]
struct Layout {
    line_end: &'static str,
    indent: &'static str,
    colon: &'static str,
    has_mark: bool,
    is_ended: bool,
}

impl Layout {
    fn object(&self, depth: usize, members: &[(String, String)]) -> String {
        if members.is_empty() {
            return "{}".to_owned();
        }
        let lead = |depth| format!("{}{}", self.line_end, self.indent.repeat(depth));
        let inner: Vec<String> = members
            .iter()
            .map(|(name, value)| format!("{}\"{name}\"{}{value}", lead(depth + 1), self.colon))
            .collect();
        format!("{{{}{}}}", inner.join(","), lead(depth))
    }

    fn file(&self, names: &[(String, Vec<(String, String)>)], others: &[(String, String)]) -> String {
        let names: Vec<(String, String)> =
            names.iter().map(|(name, members)| (name.clone(), self.object(3, members))).collect();
        let mut dns = others.to_vec();
        dns.push(("staticD\\u0061taInDomain".to_owned(), self.object(2, &names)));
        let mut root = others.to_vec();
        root.insert(0, ("dns".to_owned(), self.object(1, &dns)));
        let mark = if self.has_mark { "\u{feff}" } else { "" };
        format!("{mark}{}{}", self.object(0, &root), if self.is_ended { self.line_end } else { "" })
    }
}

fn layout() -> impl Strategy<Value = Layout> {
    let line_end = prop_oneof![Just("\n"), Just("\r\n"), Just(""), Just(" \n\n")];
    let indent = prop_oneof![Just("  "), Just("\t"), Just("    "), Just("")];
    let colon = prop_oneof![Just(": "), Just(":"), Just(" : ")];
    (line_end, indent, colon, any::<bool>(), any::<bool>()).prop_map(
        |(line_end, indent, colon, has_mark, is_ended)| Layout {
            line_end,
            indent,
            colon,
            has_mark,
            is_ended,
        },
    )
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(r#""192.0.2.1""#.to_owned()),
        Just(r#"[ "192.0.2.1" , "CORE_1_IP_ADDRESS" ]"#.to_owned()),
        Just("[]".to_owned()),
        "[a-zA-Z0-9é{}\\[\\],: ]{0,12}".prop_map(|text| format!("\"{text}\\n\\\"\"")),
    ]
}

fn other() -> impl Strategy<Value = (String, String)> {
    let name = prop_oneof![Just("domain"), Just("x\\\"y"), Just("description"), Just("defaultTTL")];
    let value =
        prop_oneof![Just("null"), Just("-1.5e3"), Just("{}"), Just(r#"{"dns":[{}]}"#), Just(r#""é\u00e9""#)];
    (name, value).prop_map(|(name, value)| (name.to_owned(), value.to_owned()))
}

fn members() -> impl Strategy<Value = Vec<(String, String)>> {
    let ip = (prop_oneof![Just("ip"), Just("\\u0069p"), Just("IP")], value());
    let ip = ip.prop_map(|(name, value)| (name.to_owned(), value));
    (prop::collection::vec(other(), 0..3), prop::option::of(ip), 0..3_usize).prop_map(|(mut all, ip, at)| {
        if let Some(ip) = ip {
            all.insert(at.min(all.len()), ip);
        }
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, rng_seed: proptest::test_runner::RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_file_comes_back_byte_for_byte_and_the_server_sees_one_change(
        layout in layout(),
        names in prop::collection::vec((prop_oneof![Just("co1".to_owned()), Just("sw".to_owned()), Just("c\\u006f1".to_owned())], members()), 0..4),
        others in prop::collection::vec(other(), 0..3),
        is_v6 in any::<bool>(),
    ) {
        let before = layout.file(&names, &others);
        let address = if is_v6 { "2001:db8::7" } else { "203.0.113.7" };
        let after = set_and_undone(&before, "co1", address);
        // The change is one piece: what is before and after it is as it was.
        let head = before.bytes().zip(after.bytes()).take_while(|(a, b)| a == b).count();
        let changed = after.len() - head;
        let tail = before.bytes().rev().zip(after.bytes().rev()).take_while(|(a, b)| a == b).count().min(changed);
        let entry_bytes = address.len() + 40 + 8 * (layout.line_end.len() + 4 * layout.indent.len());
        prop_assert!(changed - tail <= entry_bytes, "{} bytes changed", changed - tail);
        let seen: Value = serde_json::from_str(after.trim_start_matches('\u{feff}')).unwrap();
        let entry = &seen["dns"]["staticDataInDomain"]["co1"];
        let found = ["ip", "IP"].iter().any(|name| {
            entry[*name] == json!(address) || entry[*name] == json!([address])
        });
        prop_assert!(found, "{entry}");
    }
}

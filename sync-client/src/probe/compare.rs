//! What an account looked like, as hashes, and what is different now. Pure.
//!
//! An event or stream is its fields, each the hash of its value; so a difference is named by its field and no content is kept.
//! These are plain hashes: whoever reads the file can test a guess. `meta` and the tokens by which files are read belong to an
//! answer, not to the data, and are left out.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// The hash of each field's value, by the field's name.
pub(crate) type Fields = BTreeMap<String, String>;

/// The bytes of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) bytes: u64,
    pub(crate) blake3: String,
}

/// All that was read of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    pub(crate) streams: BTreeMap<String, Fields>,
    pub(crate) events: BTreeMap<String, Fields>,
    /// By `EVENT/FILE`; none where the service has the name and no bytes.
    pub(crate) attachments: BTreeMap<String, Option<Content>>,
    /// Hashes of the points, by event; none where the service has none.
    pub(crate) series: BTreeMap<String, Option<String>>,
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count =
            |count: usize, one: &str, more: &str| format!("{count} {}", if count == 1 { one } else { more });
        let counts = [
            count(self.streams.len(), "stream", "streams"),
            count(self.events.len(), "event", "events"),
            count(self.attachments.len(), "attachment", "attachments"),
            count(self.series.len(), "series", "series"),
        ];
        f.write_str(&counts.join(", "))
    }
}

/// The hashes of an object's fields.
pub(crate) fn fields(object: &Map<String, Value>) -> Fields {
    object.iter().map(|(name, value)| (name.clone(), hash(value))).collect()
}

/// The hash of a value: of the same bytes whatever the order of an object's keys.
pub(crate) fn hash(value: &Value) -> String {
    let mut text = String::new();
    write_sorted(value, &mut text);
    blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
}

fn write_sorted(value: &Value, text: &mut String) {
    match value {
        Value::Array(values) => {
            text.push('[');
            for value in values {
                write_sorted(value, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Object(object) => {
            let sorted: BTreeMap<_, _> = object.iter().collect();
            text.push('{');
            for (name, value) in sorted {
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write_sorted(value, text);
                text.push(',');
            }
            text.push('}');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

/// What a difference is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Stream,
    Event,
    Attachment,
    Series,
}

/// How it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum How {
    Missing,
    Added,
    Changed,
}

/// One thing that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    pub(crate) kind: Kind,
    pub(crate) id: String,
    pub(crate) how: How,
    /// Of an event or stream that changed.
    pub(crate) fields: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Stream => "stream",
            Kind::Event => "event",
            Kind::Attachment => "attachment",
            Kind::Series => "series",
        };
        let how = match self.how {
            How::Missing => "is missing",
            How::Added => "was not there before",
            How::Changed => "differs",
        };
        write!(f, "{kind} {} {how}", protocol::path::escaped(self.id.as_bytes()))?;
        if self.fields.is_empty() {
            return Ok(());
        }
        write!(f, " in {}", protocol::path::escaped(self.fields.join(", ").as_bytes()))
    }
}

/// Everything that differs, streams first.
pub(crate) fn differences(before: &Contents, after: &Contents) -> Vec<Difference> {
    let mut all = Vec::new();
    each(Kind::Stream, &before.streams, &after.streams, changed_fields, &mut all);
    each(Kind::Event, &before.events, &after.events, changed_fields, &mut all);
    each(Kind::Attachment, &before.attachments, &after.attachments, |_, _| Vec::new(), &mut all);
    each(Kind::Series, &before.series, &after.series, |_, _| Vec::new(), &mut all);
    all
}

fn each<T: PartialEq + Absent>(
    kind: Kind,
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
    fields: impl Fn(&T, &T) -> Vec<String>,
    all: &mut Vec<Difference>,
) {
    let mut push = |id: &str, how, fields| all.push(Difference { kind, id: id.to_owned(), how, fields });
    for (id, old) in before {
        match after.get(id) {
            Some(new) if new == old => {}
            Some(new) if !new.is_absent() && !old.is_absent() => push(id, How::Changed, fields(old, new)),
            Some(new) if !new.is_absent() => push(id, How::Added, Vec::new()),
            _ => push(id, How::Missing, Vec::new()),
        }
    }
    for id in after.keys().filter(|id| !before.contains_key(*id)) {
        push(id, How::Added, Vec::new());
    }
}

fn changed_fields(before: &Fields, after: &Fields) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

/// Whether there is a name and nothing behind it.
trait Absent {
    fn is_absent(&self) -> bool {
        false
    }
}

impl Absent for Fields {}

impl<T> Absent for Option<T> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn of(values: &[(&str, Value)]) -> BTreeMap<String, Fields> {
        values.iter().map(|(id, value)| ((*id).to_owned(), fields(value.as_object().unwrap()))).collect()
    }

    #[test]
    fn every_difference_is_named() {
        let content = |text: &str| Some(Content { bytes: 1, blake3: text.to_owned() });
        let files = |list: &[(&str, Option<Content>)]| {
            list.iter().map(|(id, content)| ((*id).to_owned(), content.clone())).collect()
        };
        let before = Contents {
            streams: of(&[("s", json!({"name": "S"}))]),
            events: of(&[("e1", json!({"content": 1, "tags": []})), ("e2", json!({"content": 2}))]),
            attachments: files(&[("e1/a", content("x")), ("e1/b", content("y")), ("e1/c", None)]),
            series: BTreeMap::from([("e2".to_owned(), Some("h".to_owned()))]),
        };
        let after = Contents {
            streams: of(&[("s", json!({"name": "S"}))]),
            events: of(&[("e1", json!({"content": 2, "trashed": true, "tags": []})), ("e3", json!({}))]),
            attachments: files(&[("e1/a", content("z")), ("e1/b", None), ("e1/c", content("z"))]),
            series: BTreeMap::new(),
        };
        let named: Vec<String> = differences(&before, &after).iter().map(ToString::to_string).collect();
        assert_eq!(
            named,
            [
                "event e1 differs in content, trashed",
                "event e2 is missing",
                "event e3 was not there before",
                "attachment e1/a differs",
                "attachment e1/b is missing",
                "attachment e1/c was not there before",
                "series e2 is missing",
            ]
        );
        assert_eq!(differences(&before, &before), []);
    }

    #[test]
    fn names_from_a_service_steer_no_terminal() {
        let after = Contents { events: of(&[("e\x1b[2J", json!({}))]), ..Contents::default() };
        let line = differences(&Contents::default(), &after)[0].to_string();
        assert_eq!(line, "event e\\#033[2J was not there before");
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a\",:{}\\[\\]]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a\",:{}]{0,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn hashes_are_equal_exactly_where_values_are(one in values(), other in values()) {
            prop_assert_eq!(hash(&one) == hash(&other), one == other);
        }

        #[test]
        fn the_order_of_keys_is_no_difference(map in prop::collection::btree_map("[a-c]{1,2}", values(), 0..5)) {
            let there: Value = Value::Object(map.clone().into_iter().collect());
            let back: Value = Value::Object(map.into_iter().rev().collect());
            prop_assert_eq!(hash(&there), hash(&back));
        }
    }
}

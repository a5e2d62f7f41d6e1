//! What is done with one account: making the test data, and reading all there is.
//!
//! What is made is found again by its stream and its description, both from the plan's marker; so making it twice makes it once,
//! also after a run that was cut off.

use super::api::{Api, ApiError};
use super::compare::{Content, Contents, fields, hash};
use super::picture;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The file's name in the account.
const FILE_NAME: &str = "sync-client.png";

/// How an event says in which stream it is.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// `streamId`.
    One,
    /// `streamIds`, of later versions; some of them take nothing else.
    Many,
}

/// An event that is made.
struct Made {
    /// The description's last word.
    word: &'static str,
    /// How it is sent first.
    form: Form,
    kind: &'static str,
    content: Value,
}

fn events() -> [Made; 3] {
    let text = json!("Made to be looked for after a migration.");
    [
        Made { word: "note", form: Form::One, kind: "note/txt", content: text },
        Made { word: "mass", form: Form::Many, kind: "mass/kg", content: json!(70.25) },
        Made { word: PICTURE, form: Form::One, kind: "picture/attached", content: Value::Null },
    ]
}

/// The event that has the file.
const PICTURE: &str = "picture";

/// The description's last word and the type of the series.
const SERIES: (&str, &str) = ("series", "series:mass/kg");

/// What [`make`] does, a line each.
pub(crate) fn rehearsal(marker: &str, with_series: bool) -> Vec<String> {
    let words = events().map(|made| made.word).into_iter().chain(with_series.then_some(SERIES.0));
    let events = words.map(|word| format!("make the event \"{}\"", description(marker, word)));
    std::iter::once(format!("make the stream {marker}")).chain(events).collect()
}

fn description(marker: &str, word: &str) -> String {
    format!("{marker}: {word}")
}

/// Makes what is not there yet; returns how many things that were.
pub(crate) fn make(api: &Api<'_>, marker: &str, with_series: bool) -> Result<u32, ApiError> {
    let mut made = u32::from(posted(api.post("/streams", &json!({"id": marker, "name": marker})))?.is_some());
    let there = there(api, marker)?;
    for Made { word, form, kind, content } in events() {
        if !there.contains_key(&description(marker, word)) {
            let event = event(marker, word, kind, content);
            post(api, form, marker, event, word == PICTURE)?;
            made += 1;
        }
    }
    if with_series {
        made += make_series(api, marker, there.get(&description(marker, SERIES.0)))?;
    }
    Ok(made)
}

/// An event and its points are two requests: the second may be what is left to do.
fn make_series(api: &Api<'_>, marker: &str, there: Option<&String>) -> Result<u32, ApiError> {
    let id = match there {
        Some(id) => id.clone(),
        None => {
            let event = event(marker, SERIES.0, SERIES.1, Value::Null);
            let answer = post(api, Form::One, marker, event, false)?;
            let Some(answer) = answer else { return Ok(0) };
            api.id("POST /events", &answer["event"])?
        }
    };
    let path = format!("/events/{id}/series");
    let points: Vec<Value> = (0..60).map(|second| json!([second, 70.25 + f64::from(second) / 8.0])).collect();
    if there.is_some() && has_points(api, &path, points.len())? {
        return Ok(0);
    }
    api.post(&path, &json!({"format": "flatJSON", "fields": ["deltaTime", "value"], "points": points}))?;
    Ok(1)
}

fn has_points(api: &Api<'_>, path: &str, wanted: usize) -> Result<bool, ApiError> {
    match api.get(path) {
        Err(error) if error.status() == Some(404) => Ok(false),
        answer => Ok(answer?["points"].as_array().is_some_and(|points| points.len() >= wanted)),
    }
}

fn event(marker: &str, word: &str, kind: &str, content: Value) -> Value {
    let mut event = json!({"type": kind, "description": description(marker, word)});
    if !content.is_null() {
        event["content"] = content;
    }
    event
}

/// The ids of the marker's events, by description.
fn there(api: &Api<'_>, marker: &str) -> Result<BTreeMap<String, String>, ApiError> {
    let mut there = BTreeMap::new();
    api.events(|id, event| {
        let is_ours = event["streamId"] == marker
            || event["streamIds"].as_array().is_some_and(|ids| ids.iter().any(|id| id == marker));
        if let Some(description) = event["description"].as_str().filter(|_| is_ours) {
            there.insert(description.to_owned(), id.to_owned());
        }
        Ok(())
    })?;
    Ok(there)
}

/// Sends an event in one form, then, where that is not understood, in the other.
fn post(
    api: &Api<'_>,
    form: Form,
    marker: &str,
    event: Value,
    with_file: bool,
) -> Result<Option<Value>, ApiError> {
    let send = |form: Form| {
        let mut event = event.clone();
        match form {
            Form::One => event["streamId"] = json!(marker),
            Form::Many => event["streamIds"] = json!([marker]),
        }
        if with_file {
            api.post_file(&event, FILE_NAME, "image/png", &picture::png())
        } else {
            api.post("/events", &event)
        }
    };
    let other = match form {
        Form::One => Form::Many,
        Form::Many => Form::One,
    };
    match send(form) {
        Err(error) if error.status() == Some(400) => posted(send(other)),
        answer => posted(answer),
    }
}

/// None where it was there.
fn posted(answer: Result<Value, ApiError>) -> Result<Option<Value>, ApiError> {
    match answer {
        Err(error) if error.status() == Some(409) => Ok(None),
        answer => answer.map(Some),
    }
}

/// Reads everything.
pub(crate) fn read(api: &Api<'_>) -> Result<Contents, ApiError> {
    let mut contents = Contents::default();
    let mut streams = api.get("/streams?state=all")?;
    let Value::Array(streams) = streams["streams"].take() else {
        return Err(api.malformed("GET /streams", "no list of streams"));
    };
    for stream in streams {
        read_stream(api, stream, &mut contents)?;
    }
    api.events(|id, event| read_event(api, id, event, &mut contents))?;
    Ok(contents)
}

/// A stream's children know their parent: each is compared for itself.
fn read_stream(api: &Api<'_>, mut stream: Value, contents: &mut Contents) -> Result<(), ApiError> {
    let id = stream["id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned);
    let (Some(id), Some(object)) = (id, stream.as_object_mut()) else {
        return Err(api.malformed("GET /streams", "a stream without an id"));
    };
    let children = object.remove("children");
    if contents.streams.insert(id, fields(object)).is_some() {
        return Err(api.malformed("GET /streams", "the same stream twice"));
    }
    let Some(Value::Array(children)) = children else { return Ok(()) };
    children.into_iter().try_for_each(|child| read_stream(api, child, contents))
}

fn read_event(api: &Api<'_>, id: &str, mut event: Value, contents: &mut Contents) -> Result<(), ApiError> {
    let attachments = event.get_mut("attachments").and_then(Value::as_array_mut);
    for attachment in attachments.into_iter().flatten() {
        let file = api.id("GET /events", attachment)?;
        if let Some(attachment) = attachment.as_object_mut() {
            attachment.remove("readToken");
        }
        let content = api.attachment(id, &file)?;
        let content = content.map(|(bytes, hash)| Content { bytes, blake3: hash.to_hex().to_string() });
        contents.attachments.insert(format!("{id}/{file}"), content);
    }
    if event["type"].as_str().is_some_and(|kind| kind.starts_with("series:")) {
        contents.series.insert(id.to_owned(), read_series(api, id)?);
    }
    let Some(object) = event.as_object() else {
        return Err(api.malformed("GET /events", "an event that is none"));
    };
    contents.events.insert(id.to_owned(), fields(object));
    Ok(())
}

fn read_series(api: &Api<'_>, id: &str) -> Result<Option<String>, ApiError> {
    match api.get(&format!("/events/{id}/series")) {
        Err(error) if error.status() == Some(404) => Ok(None),
        answer => {
            let mut answer = answer?;
            if let Some(answer) = answer.as_object_mut() {
                answer.remove("meta");
            }
            Ok(Some(hash(&answer)))
        }
    }
}

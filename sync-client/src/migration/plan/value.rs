//! Values of a plan: each is sound once it parsed, and says what to write instead where it does not.

use crate::ssh::system;
use serde::Deserialize;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// Why a value is refused; the parser adds where it stands.
type Refusal = String;

fn plain(path: &str) -> Result<&Path, Refusal> {
    let path = Path::new(path);
    if path.as_os_str().is_empty() {
        return Err("an empty path".to_owned());
    }
    let is_plain = path.components().all(|part| !matches!(part, Component::ParentDir));
    if !is_plain || path.as_os_str().as_bytes().contains(&0) {
        return Err(format!("{:?} leads elsewhere: write the path without `..`", path.display().to_string()));
    }
    Ok(path)
}

/// An absolute path without `..`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct AbsolutePath(PathBuf);

impl AbsolutePath {
    pub(crate) fn as_path(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<String> for AbsolutePath {
    type Error = Refusal;

    fn try_from(text: String) -> Result<AbsolutePath, Refusal> {
        let path = plain(&text)?;
        if !path.is_absolute() {
            return Err(format!("{text:?} is not absolute: write it from the root, with a leading slash"));
        }
        Ok(AbsolutePath(path.components().collect()))
    }
}

/// A path below ROOT, or an absolute one; without `..`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct RootedPath(PathBuf);

impl RootedPath {
    /// Where it is on a core with this ROOT.
    pub(crate) fn below(&self, root: &AbsolutePath) -> PathBuf {
        root.0.join(&self.0)
    }

    /// As it stands in the plan.
    pub(crate) fn as_path(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<String> for RootedPath {
    type Error = Refusal;

    fn try_from(text: String) -> Result<RootedPath, Refusal> {
        // Components leave out `.` and doubled or trailing slashes: comparisons see one form.
        let path: PathBuf = plain(&text)?.components().filter(|part| *part != Component::CurDir).collect();
        if path.as_os_str().is_empty() {
            return Err(format!("{text:?} is ROOT itself: name something below it"));
        }
        Ok(RootedPath(path))
    }
}

/// A plain name: lower-case letters, digits and dashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = Refusal;

    fn try_from(text: String) -> Result<Name, Refusal> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text.is_empty() || text.len() > 32 || text.starts_with('-') || !text.bytes().all(is_plain) {
            return Err(format!(
                "{text:?} is no name: write at most 32 lower-case letters, digits and dashes"
            ));
        }
        Ok(Name(text))
    }
}

/// A host's, a domain's or a user's name, which no program can take for an option.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct HostName(String);

impl HostName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HostName {
    type Error = Refusal;

    fn try_from(text: String) -> Result<HostName, Refusal> {
        let is_odd =
            |letter: char| letter.is_whitespace() || letter.is_control() || "/'\"\\$`;&|<>".contains(letter);
        if text.is_empty() || text.starts_with('-') || text.contains(is_odd) {
            return Err(format!("{text:?} is no name of a host or user"));
        }
        Ok(HostName(text))
    }
}

/// A value that must be equal on both cores: `FILE`, or `FILE#KEY.KEY` of a JSON file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Secret {
    pub(crate) file: RootedPath,
    /// The way to the value; empty for the whole file.
    pub(crate) keys: Vec<String>,
    text: String,
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Secret {
    type Error = Refusal;

    fn try_from(text: String) -> Result<Secret, Refusal> {
        let (file, keys) = text.split_once('#').unwrap_or((&text, ""));
        let file = RootedPath::try_from(file.to_owned())?;
        let keys = keys.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect();
        Ok(Secret { file, keys, text })
    }
}

/// What is run in ROOT.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawAction")]
pub(crate) enum Action {
    /// A script and its arguments, run by bash: the platform's have no first line that the system takes.
    Script(Vec<String>),
    /// A program and its arguments.
    Program(Vec<String>),
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "either a script of ROOT (\"run-core\") or a program with its arguments ([\"docker\", \"stop\", …])"
)]
enum RawAction {
    Script(String),
    Program(Vec<String>),
}

impl Action {
    /// The script or program; a plan's is never empty.
    pub(crate) fn first(&self) -> &str {
        let (Action::Script(words) | Action::Program(words)) = self;
        words.first().map_or("", String::as_str)
    }

    /// What is executed.
    pub(crate) fn words(&self) -> Vec<&OsStr> {
        let (bash, words) = match self {
            Action::Script(words) => (Some(OsStr::new("bash")), words),
            Action::Program(words) => (None, words),
        };
        bash.into_iter().chain(words.iter().map(OsStr::new)).collect()
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.words().into_iter().map(OsStr::to_string_lossy).collect();
        f.write_str(&words.join(" "))
    }
}

impl TryFrom<RawAction> for Action {
    type Error = Refusal;

    fn try_from(raw: RawAction) -> Result<Action, Refusal> {
        let (action, first) = match raw {
            RawAction::Script(text) => {
                let words = system::split_words(&text)
                    .ok_or_else(|| format!("{text:?}: quotes that do not close"))?;
                let first = words.first().cloned();
                (Action::Script(words), first)
            }
            RawAction::Program(words) => {
                let first = words.first().cloned();
                (Action::Program(words), first)
            }
        };
        let words = match &action {
            Action::Script(words) | Action::Program(words) => words,
        };
        if words.iter().any(|word| word.contains('\0')) {
            return Err("a NUL byte, which no argument can hold".to_owned());
        }
        match first {
            None => Err("nothing to run: name a script of ROOT".to_owned()),
            Some(first) if first.is_empty() || first.starts_with('-') => {
                Err(format!("{first:?} can't be run: name a script of ROOT"))
            }
            Some(_) => Ok(action),
        }
    }
}

//! `key`: a key pair for the migration made, its restricted line shown, and both taken away again.
//!
//! The private file is 0600 from its first byte, gets its name when it is complete and on disk, and never takes the
//! place of another file. `remove` deletes only what is an SSH key, and first takes the key's lines out of a local
//! `authorized_keys` if one is named, so that a failure leaves what is needed to try again.

mod authorized;

use crate::console::Lines;
use crate::options::{changing, flag, json, option, path as path_option};
use crate::place::{Access, FileError, Original, Place as _, ThisMachine, shown, with_suffix};
use crate::prompts::{self, PromptError, Prompts};
use clap::{Arg, ArgAction, ArgMatches, Command};
use protocol::path::escaped;
use protocol::stats::Exit;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use serde_json::json;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Below the home directory, where no `--file` is given.
const DEFAULT_FILE: &str = ".ssh/sync-client";

/// `key new`, `key show`, `key remove`.
#[must_use]
pub fn command() -> Command {
    Command::new("key")
        .about("Make a key pair, print its restricted authorized_keys line, remove both")
        .after_help(
            "Examples:\n  \
             sync-client key new\n  \
             sync-client key show --from 203.0.113.7 --root /srv/data      the line for the source's authorized_keys\n  \
             sync-client key remove --file ~/.ssh/sync-client\n\n\
             Exit status: 0 done, 1 usage, 3 no such key, 11 file, 44 disk full, 46 refused (the file is there already, not agreed to …).",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(new_command())
        .subcommand(show_command())
        .subcommand(remove_command())
}

fn new_command() -> Command {
    Command::new("new")
        .about("Make a key pair in OpenSSH's format; never overwrites a file")
        .arg(file(
            "Where the private key goes, the public one with .pub after it [default: ~/.ssh/sync-client]",
        ))
        .arg(
            option("type", "TYPE", "ed25519 or rsa-4096 (which takes seconds to make)")
                .value_parser(["ed25519", "rsa-4096"])
                .default_value("ed25519"),
        )
        .arg(option("comment", "TEXT", "What the public key says of itself").default_value("migration"))
        .arg(flag("passphrase", "Ask for a passphrase on the terminal and encrypt the private key by it"))
        .arg(json())
}

fn show_command() -> Command {
    Command::new("show")
        .about("Print the line for authorized_keys at the other machine: this key may read one directory, and nothing else")
        .arg(file("The private or the public key [default: ~/.ssh/sync-client]"))
        .arg(
            option("from", "ADDRESS", "Where the key may come from: address, network or name pattern (repeatable)")
                .action(ArgAction::Append),
        )
        .arg(option("root", "DIR", "The directory there that it may read").required_unless_present("command"))
        .arg(option("agent-path", "PATH", "The agent there").default_value("sync-agent"))
        .arg(
            option("command", "COMMAND", "Run this instead of the agent, as it stands (a shell there reads it)")
                .conflicts_with_all(["root", "agent-path"]),
        )
        .arg(json())
}

fn remove_command() -> Command {
    let command = Command::new("remove")
        .about("Remove a key pair here, and its lines from an authorized_keys file; say what is left at the other machine")
        .arg(file("The private key; the public one beside it goes too").required(true))
        .arg(path_option("authorized-keys", "FILE", "Take this key's lines out of this file first"));
    changing(command)
}

fn file(help: &'static str) -> Arg {
    path_option("file", "PATH", help)
}

/// Why a command ended.
#[derive(Debug, Error)]
enum KeyError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Prompt(#[from] PromptError),
    #[error(transparent)]
    Line(#[from] authorized::LineError),
    #[error("there is no home directory to keep a key in; give --file")]
    NoHome,
    #[error("{}: {reason}", shown(path))]
    NotAKey { path: PathBuf, reason: String },
    #[error("--comment holds a control character; give one line of text")]
    Comment,
    #[error("the key could not be made: {0}")]
    Make(String),
    #[error(
        "there is no terminal to ask for a passphrase on; leave --passphrase out, or run this on a terminal"
    )]
    NoTerminal,
    #[error("the two passphrases are empty or not the same; nothing was made")]
    Passphrase,
    #[error("cannot make {}: {source}", shown(path))]
    Directory { path: PathBuf, source: std::io::Error },
}

impl KeyError {
    fn exit(&self) -> Exit {
        match self {
            KeyError::File(error) => error.exit(),
            KeyError::Prompt(error) => error.exit(),
            KeyError::Line(_) | KeyError::NoHome | KeyError::Comment => Exit::Usage,
            KeyError::NotAKey { .. } => Exit::Selection,
            KeyError::Make(_) | KeyError::Directory { .. } => Exit::FileIo,
            KeyError::NoTerminal | KeyError::Passphrase => Exit::Refused,
        }
    }
}

/// Carries out the command and returns the exit status.
pub fn run(matches: &ArgMatches, home: Option<&Path>, prompts: &Prompts) -> u8 {
    let Some((name, matches)) = matches.subcommand() else { return Exit::Usage.code() };
    let out = Lines { json: matches.get_flag("json"), is_shown: prompts.is_shown };
    let result = path(matches, home).and_then(|path| match name {
        "new" => new_pair(matches, &path, prompts, &out),
        "show" => show(matches, &path, &out),
        _ => remove(matches, &path, prompts, &out),
    });
    match result {
        Ok(()) => Exit::Done.code(),
        Err(error) => out.fail(&error, error.exit()),
    }
}

fn path(matches: &ArgMatches, home: Option<&Path>) -> Result<PathBuf, KeyError> {
    let given = matches.get_one::<PathBuf>("file").cloned();
    given.or_else(|| home.map(|home| home.join(DEFAULT_FILE))).ok_or(KeyError::NoHome)
}

fn text<'m>(matches: &'m ArgMatches, name: &str) -> &'m str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}

/// The name of the public key that goes with a private one.
fn public_path(path: &Path) -> PathBuf {
    with_suffix(path, ".pub")
}

fn new_pair(matches: &ArgMatches, path: &Path, prompts: &Prompts, out: &Lines) -> Result<(), KeyError> {
    let comment = text(matches, "comment");
    if comment.chars().any(char::is_control) {
        return Err(KeyError::Comment);
    }
    let public_path = public_path(path);
    // Told before the seconds that an RSA key takes; what counts is that neither file is ever overwritten.
    for path in [path, &public_path] {
        if ThisMachine.exists(path)? {
            return Err(FileError::Exists { path: path.to_owned() }.into());
        }
    }
    let passphrase = if matches.get_flag("passphrase") { Some(new_passphrase(path, prompts)?) } else { None };
    let key = generated(text(matches, "type"), comment, passphrase.as_deref())?;
    make_directory(path)?;
    let _stop = prompts::hold_signals()?;
    let private = key.to_openssh(LineEnding::LF).map_err(|error| KeyError::Make(error.to_string()))?;
    let public = openssh(key.public_key())?;
    let (at, line) = (ThisMachine.find(path)?, format!("{public}\n"));
    ThisMachine.create(&at, private.as_bytes(), Access::Mode(0o600))?;
    if let Err(error) = ThisMachine.create(&self::public_path(&at), line.as_bytes(), Access::Mode(0o644)) {
        // A half pair helps nobody, and would be in the way of the next try.
        ThisMachine.remove(&at, private.as_bytes())?;
        return Err(error.into());
    }
    let fingerprint = key.public_key().fingerprint(HashAlg::Sha256).to_string();
    out.text(&format!("private key: {}", shown(path)));
    out.text(&format!("public key:  {}", shown(&public_path)));
    out.text(&format!("fingerprint: {fingerprint}"));
    out.text("next: sync-client key show --from ADDRESS --root DIR prints the line for authorized_keys at the other machine");
    out.object(&json!({"event": "summary", "file": shown(path), "public_file": shown(&public_path),
        "fingerprint": fingerprint, "public_key": public, "encrypted": passphrase.is_some(), "exit_code": 0}));
    Ok(())
}

fn new_passphrase(path: &Path, prompts: &Prompts) -> Result<String, KeyError> {
    let ask = |question: String| (prompts.secret)(&question).ok_or(KeyError::NoTerminal);
    let first = ask(format!("New passphrase for {}: ", shown(path)))?;
    let second = ask("The same again: ".to_owned())?;
    if first.is_empty() || first != second { Err(KeyError::Passphrase) } else { Ok(first) }
}

fn generated(kind: &str, comment: &str, passphrase: Option<&str>) -> Result<PrivateKey, KeyError> {
    let failed = |error: russh::keys::ssh_key::Error| KeyError::Make(error.to_string());
    let mut random = russh::keys::key::safe_rng();
    // RSA keys are of 4096 bits there.
    let algorithm = if kind == "rsa-4096" { Algorithm::Rsa { hash: None } } else { Algorithm::Ed25519 };
    let mut key = PrivateKey::random(&mut random, algorithm).map_err(failed)?;
    key.set_comment(comment);
    match passphrase {
        Some(passphrase) => key.encrypt(&mut random, passphrase).map_err(failed),
        None => Ok(key),
    }
}

fn make_directory(path: &Path) -> Result<(), KeyError> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
    made.map_err(|source| KeyError::Directory { path: parent.to_owned(), source })
}

fn openssh(key: &PublicKey) -> Result<String, KeyError> {
    let text = key.to_openssh().map_err(|error| KeyError::Make(error.to_string()))?;
    Ok(text.trim_end().to_owned())
}

/// Type and Base64 alone: what a line of `authorized_keys` is recognised by.
fn bare(key: &PublicKey) -> Result<String, KeyError> {
    let mut key = key.clone();
    key.set_comment("");
    openssh(&key)
}

/// The public key at `path`, whichever half of the pair is there; no passphrase is needed for it.
fn public_key(path: &Path) -> Result<PublicKey, KeyError> {
    let read = |path: &Path| Original::read(&ThisMachine, path);
    match read(path) {
        Ok(original) => parsed(path, original.bytes()),
        Err(error) if error.exit() == Exit::Selection => match read(&public_path(path)) {
            Ok(public) => parsed(path, public.bytes()),
            Err(_) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

fn parsed(path: &Path, bytes: &[u8]) -> Result<PublicKey, KeyError> {
    let not_a_key = || {
        let reason = "is not an SSH key in OpenSSH's format (ssh-keygen -p -f FILE writes an old one anew)";
        KeyError::NotAKey { path: path.to_owned(), reason: reason.to_owned() }
    };
    let text = std::str::from_utf8(bytes).map_err(|_| not_a_key())?;
    if let Ok(key) = PrivateKey::from_openssh(text) {
        let mut public = key.public_key().clone();
        // An encrypted private key keeps its comment to itself.
        if let Ok(beside) = Original::read(&ThisMachine, &public_path(path))
            && let Some(beside) = public_half(beside.bytes())
            && beside.key_data() == public.key_data()
        {
            public = beside;
        }
        return Ok(public);
    }
    public_half(bytes).ok_or_else(not_a_key)
}

fn public_half(bytes: &[u8]) -> Option<PublicKey> {
    PublicKey::from_openssh(std::str::from_utf8(bytes).ok()?.trim_end()).ok()
}

fn show(matches: &ArgMatches, path: &Path, out: &Lines) -> Result<(), KeyError> {
    let public = openssh(&public_key(path)?)?;
    let command = match matches.get_one::<String>("command") {
        Some(command) => command.clone(),
        None => authorized::agent_command(text(matches, "agent-path"), text(matches, "root"))?,
    };
    let from: Vec<String> = matches.get_many::<String>("from").into_iter().flatten().cloned().collect();
    let line = authorized::line(&from, &command, &public)?;
    out.tell(
        &line,
        &json!({"event": "line", "line": line, "from": from, "command": command, "public_key": public}),
    );
    out.object(&json!({"event": "summary", "file": shown(path), "exit_code": 0}));
    Ok(())
}

/// A key and the files that are to go, as they were read: the private one, and the public one of the same pair.
struct Pair {
    key: PublicKey,
    files: Vec<(PathBuf, Vec<u8>)>,
}

fn pair(path: &Path) -> Result<Pair, KeyError> {
    let refused = |reason: &str| KeyError::NotAKey { path: path.to_owned(), reason: reason.to_owned() };
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink()) {
        return Err(refused("is a symbolic link; name the file that it leads to"));
    }
    let key = public_key(path)?;
    let mut files = Vec::new();
    let private_path = ThisMachine.find(path)?;
    if ThisMachine.exists(&private_path)? {
        let bytes = ThisMachine.read(&private_path)?;
        let is_private = std::str::from_utf8(&bytes).is_ok_and(|text| PrivateKey::from_openssh(text).is_ok());
        if !is_private {
            return Err(refused(
                "is a public key; name the private one, the public one beside it goes with it",
            ));
        }
        files.push((private_path.clone(), bytes));
    }
    let beside = public_path(&private_path);
    if let Ok(bytes) = ThisMachine.read(&beside)
        && public_half(&bytes).is_some_and(|other| other.key_data() == key.key_data())
    {
        files.push((beside, bytes));
    }
    Ok(Pair { key, files })
}

fn remove(matches: &ArgMatches, path: &Path, prompts: &Prompts, out: &Lines) -> Result<(), KeyError> {
    let Pair { key, files } = pair(path)?;
    let key = bare(&key)?;
    let names: Vec<String> = files.iter().map(|(path, _)| shown(path)).collect();
    let edit = match matches.get_one::<PathBuf>("authorized-keys") {
        Some(file) => {
            let original = Original::read(&ThisMachine, file)?;
            let (kept, gone) = authorized::without(original.bytes(), &key);
            Some((original, kept, gone))
        }
        None => None,
    };
    if let Some((original, kept, gone)) = &edit {
        let file = shown(original.path());
        out.object(&json!({"event": "authorized_keys", "file": file, "lines": gone}));
        out.diff(&file, original.bytes(), kept);
        if gone.is_empty() {
            out.note(&format!("{file} has no line with this key"));
        }
    }
    let is_done = !matches.get_flag("dry-run");
    let verb = if is_done { "removed" } else { "would be removed" };
    if is_done {
        let _stop = prompts.agree(matches, &format!("Remove {}?", names.join(" and ")))?;
        if let Some((original, kept, gone)) = &edit
            && !gone.is_empty()
        {
            original.replace(kept)?;
        }
        for (file, bytes) in &files {
            ThisMachine.remove(file, bytes)?;
        }
    }
    out.note(&format!("{verb}: {}", names.join(", ")));
    out.text(&format!(
        "at every other machine that let this key in, delete the line of authorized_keys that holds\n{}",
        escaped(key.as_bytes())
    ));
    out.object(
        &json!({"event": "summary", "files": names, "public_key": key, "removed": is_done, "exit_code": 0}),
    );
    Ok(())
}

//! `proxy enable`, `proxy disable`, `proxy show`: the edit of [`crate::nginx`] on a file at hand.
//!
//! What is done is shown first, then asked for, then written; `--test-command` runs while the new file is in place,
//! and a failure puts the old one back. Called by `main`.

mod command;
pub(crate) mod report;
mod test_command;

pub use command::command;

use crate::console::Lines;
use crate::generated;
use crate::nginx::{self, Address, NginxError, Target, TrustedFile};
use crate::place::{Backup, FileError, Original, ThisMachine, shown};
use crate::prompts::{self, PromptError, Prompts};
use clap::ArgMatches;
use crossbeam_channel::Receiver;
use protocol::stats::Exit;
use report::Done;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use test_command::Failure;

/// The file as it was before the first edit has its name with this after it.
pub const BACKUP_SUFFIX: &str = ".before-proxy";

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
enum ProxyError {
    #[error("{}", .0)]
    Usage(NginxError),
    #[error("{}", shown(path))]
    Nginx { path: PathBuf, source: NginxError },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Prompt(#[from] PromptError),
    #[error("the test failed ({why}); the old file is in its place again")]
    Test { why: Failure },
    #[error(
        "the test failed ({why}); the file was so before and stays so (proxy disable takes the edit out, if there is one)"
    )]
    StillFails { why: Failure },
    #[error("the test failed ({why}), and the old file can't be put back: copy it from {}", shown(backup))]
    NotPutBack { why: Failure, backup: PathBuf, source: FileError },
    #[error("stopped by a signal; nothing was changed")]
    Interrupted,
}

impl ProxyError {
    fn exit(&self) -> Exit {
        match self {
            ProxyError::Usage(_) => Exit::Usage,
            ProxyError::File(error) => error.exit(),
            ProxyError::Prompt(error) => error.exit(),
            ProxyError::Interrupted => Exit::Interrupted,
            _ => Exit::Refused,
        }
    }
}

/// Runs the command and returns the exit status.
pub fn run(matches: &ArgMatches, prompts: &Prompts) -> u8 {
    let Some((name, matches)) = matches.subcommand() else { return Exit::Usage.code() };
    let path = matches.get_one::<PathBuf>("file").map_or(Path::new(""), PathBuf::as_path);
    let out = Lines { json: matches.get_flag("json"), is_shown: prompts.is_shown };
    let result = match name {
        "enable" => enable(path, matches, prompts, &out),
        "disable" => disable(path, matches, prompts, &out),
        _ => show(path, &out),
    };
    match result {
        Ok(()) => Exit::Done.code(),
        Err(error) => out.fail(&error, error.exit()),
    }
}

fn enable(path: &Path, matches: &ArgMatches, prompts: &Prompts, out: &Lines) -> Result<(), ProxyError> {
    let target = target(matches).map_err(ProxyError::Usage)?;
    let original = Original::read(&ThisMachine, path)?;
    generated::must_be_ours(matches, original.place(), original.path())?;
    let refused = |source| ProxyError::Nginx { path: path.to_owned(), source };
    let edited = nginx::enable(original.bytes(), &target).map_err(refused)?;
    report::edited(out, path, &edited, &target);
    let keeps_backup = matches!(nginx::disable(original.bytes()), Err(NginxError::NotEnabled));
    Step { path, original: &original, new: &edited.bytes, keeps_backup }.carry_out(matches, prompts, out)
}

fn disable(path: &Path, matches: &ArgMatches, prompts: &Prompts, out: &Lines) -> Result<(), ProxyError> {
    let original = Original::read(&ThisMachine, path)?;
    let refused = |source| ProxyError::Nginx { path: path.to_owned(), source };
    let restored = nginx::disable(original.bytes()).map_err(refused)?;
    report::restored(out, path, &restored);
    let new = &restored.bytes;
    Step { path, original: &original, new, keeps_backup: false }.carry_out(matches, prompts, out)
}

fn show(path: &Path, out: &Lines) -> Result<(), ProxyError> {
    let original = Original::read(&ThisMachine, path)?;
    let refused = |source| ProxyError::Nginx { path: path.to_owned(), source };
    report::overview(out, path, &nginx::show(original.bytes()).map_err(refused)?);
    Ok(())
}

/// A change that is decided.
struct Step<'a> {
    /// As the operator wrote it.
    path: &'a Path,
    original: &'a Original<'a>,
    new: &'a [u8],
    /// Whether the file as it is stays beside the new one; while that is tested, it always does.
    keeps_backup: bool,
}

impl Step<'_> {
    fn carry_out(&self, matches: &ArgMatches, prompts: &Prompts, out: &Lines) -> Result<(), ProxyError> {
        let test = matches.get_one::<OsString>("test-command").map(OsString::as_os_str);
        if self.original.bytes() == self.new {
            return self.test_again(test.filter(|_| !matches.get_flag("dry-run")), out);
        }
        out.diff(&shown(self.path), self.original.bytes(), self.new);
        if matches.get_flag("dry-run") {
            report::done(out, self.path, &Done::DryRun);
            return Ok(());
        }
        let stop = prompts.agree(matches, &format!("Change {}?", shown(self.path)))?;
        let needs_backup = self.keeps_backup || test.is_some();
        let backup = if needs_backup { Some(self.original.back_up(BACKUP_SUFFIX)?) } else { None };
        let result = self.write(test, &stop, backup.as_ref());
        let is_kept = if result.is_ok() { self.keeps_backup } else { !self.original.is_as_read() };
        let removed = match &backup {
            Some(backup) if !is_kept => backup.remove(),
            _ => Ok(()),
        };
        result.and(removed.map_err(ProxyError::File))?;
        let backup = backup.as_ref().filter(|_| is_kept).map(Backup::path);
        report::done(out, self.path, &Done::Written { backup, is_tested: test.is_some() });
        Ok(())
    }

    /// A file that is as it is to be may be so since a run that was killed before its test ended.
    fn test_again(&self, test: Option<&OsStr>, out: &Lines) -> Result<(), ProxyError> {
        if let Some(command) = test {
            match test_command::run(command, &prompts::hold_signals()?) {
                Ok(()) => {}
                Err(Failure::Stopped) => return Err(ProxyError::Interrupted),
                Err(why) => return Err(ProxyError::StillFails { why }),
            }
        }
        report::done(out, self.path, &Done::Already { is_tested: test.is_some() });
        Ok(())
    }

    fn write(
        &self,
        test: Option<&OsStr>,
        stop: &Receiver<()>,
        backup: Option<&Backup<'_>>,
    ) -> Result<(), ProxyError> {
        self.original.replace(self.new)?;
        let Some(command) = test else { return Ok(()) };
        let Err(why) = test_command::run(command, stop) else { return Ok(()) };
        match (self.original.put_back(self.new), why) {
            (Err(source), why) => {
                let backup = backup.map_or(self.path, Backup::path).to_owned();
                Err(ProxyError::NotPutBack { why, backup, source })
            }
            (Ok(()), Failure::Stopped) => Err(ProxyError::Interrupted),
            (Ok(()), why) => Err(ProxyError::Test { why }),
        }
    }
}

fn target(matches: &ArgMatches) -> Result<Target, NginxError> {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let trusted = text("trusted-certificate").unwrap_or(TrustedFile::DEFAULT);
    let trusted = if matches.get_flag("no-verify") { None } else { Some(TrustedFile::new(trusted)?) };
    let upstreams = matches.get_many::<String>("upstream").into_iter().flatten().cloned().collect();
    Ok(Target { address: Address::parse(text("to").unwrap_or_default())?, upstreams, trusted })
}

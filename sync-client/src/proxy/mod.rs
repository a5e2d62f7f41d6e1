//! `proxy enable`, `proxy disable`, `proxy show`: the edit of [`crate::nginx`] on a file at hand.
//!
//! What is done is shown first, then asked for, then written; `--test-command` runs while the new file is in place,
//! and a failure puts the old one back. The terminal is `main`'s: it hands in how to ask. Called by `main`.

mod command;
pub mod file;
mod report;
mod test_command;

pub use command::command;

use crate::console::print_error;
use crate::nginx::{self, Address, NginxError, Target, TrustedFile};
use clap::ArgMatches;
use file::{FileError, LocalFile, Place};
use protocol::stats::{Exit, is_full};
use report::Reporter;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use sync_agent::signals;

/// What a command needs of the terminal.
pub struct Surroundings<'a> {
    /// Asks a question; `None` where there is no terminal to ask on.
    pub confirm: &'a dyn Fn(&str) -> Option<bool>,
    /// Whether a person reads standard output, who must not be sent control characters.
    pub is_terminal: bool,
}

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
enum ProxyError {
    #[error("{}", .0)]
    Usage(NginxError),
    #[error("{}", path.display())]
    Nginx { path: PathBuf, source: NginxError },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "{} is generated: the configuration follower in {} overwrites it. Edit the leader's copy (below config-leader/data \
         on its machine); --generated edits this one all the same", path.display(), follower.display()
    )]
    Generated { path: PathBuf, follower: PathBuf },
    #[error("nobody can be asked here; look at it with --dry-run, then give --yes. Nothing was changed")]
    NoTerminal,
    #[error("nothing was changed")]
    Declined,
    #[error("the test failed ({why}); the old file is in its place again")]
    Test { why: String },
    #[error("the test failed ({why}), and the old file can't be put back: copy it from {}", backup.display())]
    NotPutBack { why: String, backup: PathBuf, source: FileError },
    #[error("stopped by a signal; nothing was changed")]
    Interrupted,
    #[error("cannot listen to signals")]
    Signals(#[source] io::Error),
    #[error("cannot print the change")]
    Print(#[source] io::Error),
}

impl ProxyError {
    fn exit(&self) -> Exit {
        match self {
            ProxyError::Usage(_) => Exit::Usage,
            ProxyError::File(FileError::Io { source, .. }) => match source.raw_os_error() {
                Some(errno) if is_full(errno) => Exit::Full,
                _ if source.kind() == io::ErrorKind::NotFound => Exit::Selection,
                _ => Exit::FileIo,
            },
            ProxyError::File(FileError::Unsuitable { .. }) => Exit::Selection,
            ProxyError::Print(_) => Exit::FileIo,
            ProxyError::Signals(_) => Exit::StartUp,
            ProxyError::Interrupted => Exit::Interrupted,
            _ => Exit::Refused,
        }
    }
}

/// Runs the command and returns the exit status.
pub fn run(matches: &ArgMatches, surroundings: &Surroundings<'_>) -> u8 {
    let Some((name, matches)) = matches.subcommand() else { return Exit::Usage.code() };
    let path = matches.get_one::<OsString>("file").map(PathBuf::from).unwrap_or_default();
    let reporter = Reporter { json: matches.get_flag("json"), is_terminal: surroundings.is_terminal };
    let result = match name {
        "enable" => enable(&path, matches, &reporter, surroundings),
        "disable" => disable(&path, matches, &reporter, surroundings),
        _ => show(&path, &reporter),
    };
    match result {
        Ok(()) => Exit::Done.code(),
        Err(error) => {
            let code = error.exit().code();
            reporter.failed(&error, code);
            print_error(&error);
            code
        }
    }
}

fn enable(
    path: &Path,
    matches: &ArgMatches,
    reporter: &Reporter,
    surroundings: &Surroundings<'_>,
) -> Result<(), ProxyError> {
    let target = target(matches).map_err(ProxyError::Usage)?;
    let file = LocalFile::find(path)?;
    if let Some(follower) = follower(file.path())
        && !matches.get_flag("generated")
    {
        return Err(ProxyError::Generated { path: file.path().to_owned(), follower });
    }
    let old = file.read()?;
    let refused = |source| ProxyError::Nginx { path: path.to_owned(), source };
    let edited = nginx::enable(&old, &target).map_err(refused)?;
    reporter.edited(path, &edited, &target);
    let is_first = matches!(nginx::disable(&old), Err(NginxError::NotEnabled));
    Step { path, file: &file, old: &old, new: &edited.bytes, keeps_backup: is_first }.carry_out(
        matches,
        reporter,
        surroundings,
    )
}

fn disable(
    path: &Path,
    matches: &ArgMatches,
    reporter: &Reporter,
    surroundings: &Surroundings<'_>,
) -> Result<(), ProxyError> {
    let file = LocalFile::find(path)?;
    let old = file.read()?;
    let refused = |source| ProxyError::Nginx { path: path.to_owned(), source };
    let restored = nginx::disable(&old).map_err(refused)?;
    reporter.restored(path, &restored);
    Step { path, file: &file, old: &old, new: &restored.bytes, keeps_backup: false }.carry_out(
        matches,
        reporter,
        surroundings,
    )
}

fn show(path: &Path, reporter: &Reporter) -> Result<(), ProxyError> {
    let bytes = LocalFile::find(path)?.read()?;
    let overview =
        nginx::show(&bytes).map_err(|source| ProxyError::Nginx { path: path.to_owned(), source })?;
    reporter.overview(path, &overview);
    Ok(())
}

/// A change that is decided.
struct Step<'a> {
    /// As the operator wrote it.
    path: &'a Path,
    file: &'a dyn Place,
    old: &'a [u8],
    new: &'a [u8],
    keeps_backup: bool,
}

impl Step<'_> {
    fn carry_out(
        &self,
        matches: &ArgMatches,
        reporter: &Reporter,
        surroundings: &Surroundings<'_>,
    ) -> Result<(), ProxyError> {
        if self.old == self.new {
            reporter.done(self.path, report::Done::Already);
            return Ok(());
        }
        if matches.get_flag("dry-run") {
            reporter.diff(self.path, self.old, self.new).map_err(ProxyError::Print)?;
            reporter.done(self.path, report::Done::DryRun);
            return Ok(());
        }
        if !matches.get_flag("yes") {
            match (surroundings.confirm)(&format!("Change {}?", self.path.display())) {
                None => return Err(ProxyError::NoTerminal),
                Some(false) => return Err(ProxyError::Declined),
                Some(true) => {}
            }
        }
        // From here on a signal must not leave the new file untested.
        let stop = signals::stop_on_signals().map_err(ProxyError::Signals)?;
        let backup = if self.keeps_backup { Some(self.file.back_up(self.old)?) } else { None };
        self.file.replace(self.old, self.new)?;
        let is_tested = match matches.get_one::<OsString>("test-command") {
            Some(command) => {
                self.test(command, backup.as_deref(), &stop)?;
                true
            }
            None => false,
        };
        reporter.done(self.path, report::Done::Written { backup: backup.as_deref(), is_tested });
        Ok(())
    }

    fn test(
        &self,
        command: &OsString,
        backup: Option<&Path>,
        stop: &crossbeam_channel::Receiver<()>,
    ) -> Result<(), ProxyError> {
        let failure = match test_command::run(command, stop) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let why = failure.to_string();
        if let Err(source) = self.file.replace(self.new, self.old) {
            let backup = backup.unwrap_or(self.path).to_owned();
            return Err(ProxyError::NotPutBack { why, backup, source });
        }
        Err(match failure {
            test_command::Failure::Stopped => ProxyError::Interrupted,
            _ => ProxyError::Test { why },
        })
    }
}

fn target(matches: &ArgMatches) -> Result<Target, NginxError> {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let trusted = text("trusted-certificate").unwrap_or(TrustedFile::DEFAULT);
    let trusted = if matches.get_flag("no-verify") { None } else { Some(TrustedFile::new(trusted)?) };
    let upstreams = matches.get_many::<String>("upstream").into_iter().flatten().cloned().collect();
    Ok(Target { address: Address::parse(text("to").unwrap_or_default())?, upstreams, trusted })
}

/// The directory of a configuration follower that writes this file: it stands beside one of those above the file.
/// A leader's own files lie below a `config-leader`, and are the right ones to edit.
fn follower(path: &Path) -> Option<PathBuf> {
    let above: Vec<&Path> = path.ancestors().skip(1).collect();
    if above.iter().any(|directory| directory.file_name().is_some_and(|name| name == "config-leader")) {
        return None;
    }
    above.into_iter().map(|directory| directory.join("config-follower")).find(|follower| follower.is_dir())
}

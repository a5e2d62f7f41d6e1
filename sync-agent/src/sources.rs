//! The source's arguments, opened: which of them can be copied, and what to say of the others.
//!
//! Called before the session begins; [`crate::scan`] lists what is in them.

use crate::error::SessionError;
use crate::monitor::errno;
use crate::origin::{self, Argument, OpenError, Origin};
use crate::tree::{self, Dir};
use protocol::arguments::{ArgumentRules, Missing, Places, Relative};
use protocol::limits;
use protocol::options::SyncOptions;
use protocol::path::RelPath;
use protocol::stats::{Exit, Operation, Problem, Side};
use rustix::io::Errno;
use std::path::Path;

/// All source arguments of a run.
#[derive(Debug, Default)]
pub struct Sources {
    /// Those that could be opened and are copied.
    pub(crate) origins: Vec<Origin>,
    /// Directories among them, where the run does not descend.
    pub(crate) skipped: Vec<String>,
    /// What to say of the others.
    pub(crate) missing: Vec<Problem>,
    /// One of the others stood for its contents: nothing is known to be extraneous anywhere.
    pub(crate) misses_contents: bool,
    /// Where they stand, as far as the destination must know.
    pub(crate) places: Places,
}

impl Sources {
    /// Opens the source arguments; beneath `root`, if given. One that can't be opened is reported when the
    /// run begins, as long as another one can.
    ///
    /// # Errors
    /// Says which one can't be opened, if none can.
    pub fn open(
        root: Option<&Dir>,
        arguments: &[Vec<u8>],
        options: &SyncOptions,
    ) -> Result<Sources, SessionError> {
        let mut sources = Sources::default();
        let ArgumentRules { relative, missing, .. } = options.arguments;
        if u16::try_from(arguments.len()).is_err() {
            let message = "more than 65,535 sources; name the directories that they are in";
            return Err(SessionError::refused(Exit::Usage, message));
        }
        let mut first = None;
        let enters = options.recursive || options.directories;
        let mut is_any_left_out = false;
        for argument in arguments {
            let parsed = Argument::parse(argument, relative)?;
            let (asked, is_contents) = (parsed.asked().clone(), parsed.is_contents());
            match parsed.open(root, options) {
                Ok(origin) if !enters && origin.is_directory(options.links.followed) => {
                    sources.skipped.push(format!("skipping directory {asked}"));
                }
                // Nothing of it is copied: with its path the directories above it would be empty.
                Ok(origin) if origin.is_excluded(options) => is_any_left_out = true,
                Ok(origin) => sources.origins.push(origin),
                Err(OpenError::Refused(error)) => return Err(error),
                Err(OpenError::Errno(Errno::NOENT)) if missing != Missing::Reported && !is_contents => {
                    sources.places.missing.push(asked);
                }
                Err(OpenError::Errno(cause)) => {
                    sources.misses_contents |= is_contents;
                    let path = beneath(argument).unwrap_or_default();
                    sources.missing.push(errno(Side::Source, &path, Operation::Open, cause));
                    first.get_or_insert((argument, cause));
                }
            }
        }
        sources.place(options)?;
        match first {
            Some((argument, cause))
                if sources.origins.is_empty() && sources.skipped.is_empty() && !is_any_left_out =>
            {
                Err(cannot_open(argument, cause))
            }
            _ => Ok(sources),
        }
    }

    /// Something that was named is not there; others are copied.
    pub(crate) fn miss(&mut self, problem: Problem) {
        self.missing.push(problem);
    }

    /// The same, where that means something for the destination.
    pub(crate) fn miss_at_destination(&mut self, path: RelPath) {
        self.places.missing.push(path);
    }

    /// A list names this: the directories above are implied.
    pub(crate) fn ask(&mut self, path: RelPath) {
        self.places.asked.push(path);
    }

    /// Says where the arguments stand, as far as the options make that the destination's business.
    pub(crate) fn place(&mut self, options: &SyncOptions) -> Result<(), SessionError> {
        let places = &mut self.places;
        match options.arguments.missing {
            // Another argument of that name is there.
            Missing::Deleted => {
                places.missing.retain(|path| self.origins.iter().all(|it| it.asked() != *path))
            }
            _ => places.missing.clear(),
        }
        if options.arguments.relative != Relative::No && places.asked.is_empty() {
            places.asked = self.origins.iter().map(Origin::asked).collect();
        }
        let paths = places.asked.iter().chain(&places.missing);
        let bytes: usize = paths.map(|path| path.as_bytes().len() + PLACE_BYTES).sum();
        if bytes > limits::FRAME_BYTES / 2 {
            let message = "the source arguments are too long for one run; split it";
            return Err(SessionError::refused(Exit::Usage, message));
        }
        Ok(())
    }
}

/// What a path takes on the wire beside its bytes, at most.
const PLACE_BYTES: usize = 9;

/// A path relative to an agent's root, as a type; none where it would lead out.
pub(crate) fn beneath(path: &[u8]) -> Option<RelPath> {
    let parts = path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    RelPath::new(parts.collect::<Vec<_>>().join(&b'/')).ok()
}

fn cannot_open(argument: &[u8], cause: Errno) -> SessionError {
    let shown = protocol::path::escaped(argument);
    let is_pattern = cause == Errno::NOENT && argument.iter().any(|byte| b"*?[".contains(byte));
    let hint = if is_pattern {
        "; wildcards are not expanded here (rsync leaves that to the shell there): name the directory, and choose with \
         --include and --exclude"
    } else {
        ""
    };
    let cause = std::io::Error::from(cause);
    SessionError::refused(Exit::Partial, format!("cannot open the source {shown:?}: {cause}{hint}"))
}

/// The directory that paths of the transfer are below for a source argument of this machine, if it is there.
#[must_use]
pub fn base(argument: &[u8], options: &SyncOptions) -> Option<std::path::PathBuf> {
    let argument = Argument::parse(argument, options.arguments.relative).ok()?;
    std::fs::canonicalize(tree::path_of(argument.base())).ok()
}

/// Whether `path` names a directory by itself (a trailing slash or a dot at its end).
#[must_use]
pub fn names_contents(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    origin::stands_for_contents(path.as_os_str().as_bytes())
}

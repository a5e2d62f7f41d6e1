//! What an interrupted run leaves of a file, where the operator wants it (`--partial-dir`): in a directory of that name
//! beside the file, or in one directory for all. What can't go there stays in the staging area, as without the option.

use crate::receiver::Target;
use crate::run::Run;
use crate::sides::Sides;
use crate::staging::Staged;
use crate::tree::Dir;
use protocol::path::Name;
use rustix::io::Errno;
use std::fs::File;

/// Where they are.
#[derive(Debug)]
pub(crate) enum Partials {
    /// Beside the file.
    Beside(Name),
    /// In this directory.
    Together(Dir),
}

impl Partials {
    /// As asked for; none where that is a path that leads elsewhere from every directory.
    pub(crate) fn open(path: &[u8], sides: &Sides<'_>) -> Result<Partials, Errno> {
        let trimmed = path.strip_suffix(b"/").unwrap_or(path);
        match Name::new(trimmed) {
            Ok(name) => Ok(Partials::Beside(name)),
            Err(_) if path.starts_with(b"/") => sides.open_or_make(path).map(Partials::Together),
            Err(_) => Err(Errno::INVAL),
        }
    }

    fn dir(&self, run: &Run<'_>, target: &Target) -> Result<Dir, Errno> {
        match self {
            Partials::Beside(name) => run.tree.dir(&target.parent)?.dir(name),
            Partials::Together(dir) => dir.try_clone(),
        }
    }

    /// What is left of a file, with its length. As with a staged one, its content is of use, nothing is taken on trust.
    pub(crate) fn open_part(&self, run: &Run<'_>, target: &Target) -> Option<(File, u64)> {
        let file = self.dir(run, target).ok()?.open_file(target.name().as_bytes()).ok()?;
        let info = crate::tree::info_of(&file).ok()?;
        (info.is_file() && info.size_bytes > 0).then_some((file, info.size_bytes))
    }

    /// Keeps what was written so far of a file.
    pub(crate) fn keep(&self, run: &Run<'_>, target: &Target, staged: Staged, length: u64) {
        let made = match self {
            Partials::Beside(name) => {
                let parent = run.tree.dir(&target.parent);
                parent.and_then(|parent| match parent.make_dir(name.as_bytes()) {
                    Ok(()) | Err(Errno::EXIST) => parent.dir(name),
                    Err(error) => Err(error),
                })
            }
            Partials::Together(dir) => dir.try_clone(),
        };
        let name = target.name().as_bytes();
        let moved = match made {
            Ok(dir) if length > 0 => staged.area.dir.rename(staged.name.as_bytes(), &dir, name),
            _ => Err(Errno::NOENT),
        };
        if moved.is_err() {
            staged.keep(length);
        }
    }

    /// The file is in place: what was left of it goes.
    pub(crate) fn forget(&self, run: &Run<'_>, target: &Target) {
        if let Ok(dir) = self.dir(run, target)
            && dir.remove_file(target.name().as_bytes()).is_ok()
            && let (Partials::Beside(name), Ok(parent)) = (self, run.tree.dir(&target.parent))
        {
            let _ = parent.remove_dir(name.as_bytes());
        }
    }
}

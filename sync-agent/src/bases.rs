//! Alternate bases at work: files that are here under another directory or another name, and what is made from them.
//!
//! What agrees in all that is kept is linked, copied or left out, as asked; what agrees in content is copied; anything
//! else serves as a basis like an old file. Which of several it is, [`protocol::bases`] says. Nothing here is taken for
//! granted: what can't be had any more when its turn comes is asked for from the source.

use crate::basis;
use crate::commit::{Placement, Ready};
use crate::error::SessionError;
use crate::hard_links;
use crate::monitor::Monitor;
use crate::receiver::Target;
use crate::run::Run;
use crate::sides::Sides;
use crate::sink::{self, Content, CopyError};
use crate::staging::Staged;
use crate::tree::{self, Dir, Info, Names, Tree};
use crate::workers::lock;
use protocol::bases::{Agreement, BaseKind, Bases, Fuzzy, Similar, most_similar};
use protocol::entry::Entry;
use protocol::itemize::Change;
use protocol::path::{Name, RelPath, escaped};
use protocol::stats::Exit;
use rustix::io::Errno;
use std::fs::File;
use std::sync::Arc;

/// The alternate bases of a run, opened.
#[derive(Debug, Default)]
pub(crate) struct BaseTrees {
    kind: BaseKind,
    trees: Vec<Tree>,
}

/// A file elsewhere at the destination that has what another one is to have, or something like it.
#[derive(Debug, Clone)]
pub(crate) struct Alternate {
    /// The base that it is in; none: the directory of the file itself.
    pub(crate) base: Option<usize>,
    /// Its name there, where that is another one.
    pub(crate) name: Option<Name>,
    pub(crate) info: Info,
    pub(crate) agrees: Agreement,
    /// What differs from it.
    pub(crate) change: Change,
    /// What there is to tell if it is not used.
    pub(crate) otherwise: Change,
    /// Another one, if this turns out to have another content.
    pub(crate) next: Option<Box<Alternate>>,
}

impl Alternate {
    pub(crate) fn open(&self, run: &Run<'_>, target: &Target) -> Result<File, Errno> {
        let dir = match self.base {
            Some(base) => run.bases.dir(base, &target.parent)?,
            None => run.tree.dir(&target.parent)?,
        };
        dir.open_file(self.name.as_ref().unwrap_or_else(|| target.name()).as_bytes())
    }
}

impl BaseTrees {
    /// Opens what there is of the directories that were asked for.
    pub(crate) fn open(
        asked: &Bases,
        sides: &Sides<'_>,
        monitor: &dyn Monitor,
    ) -> Result<BaseTrees, SessionError> {
        let option = match asked.kind {
            BaseKind::Compare => "--compare-dest",
            BaseKind::Copy => "--copy-dest",
            BaseKind::Link => "--link-dest",
        };
        let mut trees = Vec::new();
        for path in &asked.directories {
            let shown = escaped(path);
            match sides.open(path) {
                Ok(dir) => trees.push(Tree::below(dir)),
                Err(Errno::NOENT) => monitor.note(&format!("{option} arg does not exist: {shown}")),
                Err(Errno::NOTDIR) => monitor.note(&format!("{option} arg is not a dir: {shown}")),
                Err(error) => return Err(refused(option, path, error)),
            }
        }
        Ok(BaseTrees { kind: asked.kind, trees })
    }

    pub(crate) fn kind(&self) -> BaseKind {
        self.kind
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.trees.is_empty()
    }

    /// A directory of one of them.
    pub(crate) fn dir(&self, base: usize, path: &RelPath) -> Result<Dir, Errno> {
        self.trees.get(base).ok_or(Errno::NOENT)?.dir(path)
    }

    /// Those that have a directory at `path`, with their numbers.
    pub(crate) fn dirs(&self, path: &RelPath) -> Vec<(usize, Dir)> {
        let numbered = self.trees.iter().enumerate();
        numbered.filter_map(|(base, tree)| Some((base, tree.dir(path).ok()?))).collect()
    }
}

/// A directory that an option names can't be used.
pub(crate) fn refused(option: &str, path: &[u8], error: Errno) -> SessionError {
    let shown = escaped(path);
    let why = match error {
        Errno::XDEV => "leads out of the directory that this agent is held to".to_owned(),
        error => std::io::Error::from(error).to_string(),
    };
    SessionError::refused(Exit::Selection, format!("{option} {shown:?}: {why}; nothing was changed"))
}

/// Files of a directory, and of those of the bases, that a missing one may be like.
#[derive(Debug)]
pub(crate) struct Neighbours(Vec<(Option<usize>, Name, Info)>);

/// As many files of one directory are looked at: each missing file's name is compared with all of them.
const MOST_NEIGHBOURS: usize = 1000;

impl Neighbours {
    pub(crate) fn of(fuzzy: Fuzzy, names: &Names, dir: Option<&Dir>, bases: &[(usize, Dir)]) -> Neighbours {
        let mut files = Vec::new();
        let mut add = |base, dir: &Dir, names: &Names| {
            for name in names.iter().take(MOST_NEIGHBOURS).filter_map(|name| Name::new(name).ok()) {
                if let Ok(info) = dir.info(name.as_bytes())
                    && info.is_file()
                {
                    files.push((base, name, info));
                }
            }
        };
        if let Some(dir) = dir {
            add(None, dir, names);
        }
        if fuzzy == Fuzzy::BesideAndInBases {
            for (base, dir) in bases {
                if let Ok(names) = dir.reopened().and_then(|dir| dir.names()) {
                    add(Some(*base), dir, &names);
                }
            }
        }
        Neighbours(files)
    }

    /// The one that is most like `missing`; nothing is said of it to the operator, it is a basis.
    pub(crate) fn most_similar(&self, missing: &Entry, otherwise: Change) -> Option<Alternate> {
        let found = most_similar(missing, self.0.iter().map(similar))?;
        let (base, name, info) = self.0.iter().find(|(_, name, _)| name.as_bytes() == found)?;
        Some(Alternate {
            base: *base,
            name: Some(name.clone()),
            info: *info,
            agrees: Agreement::Kind,
            change: otherwise,
            otherwise,
            next: None,
        })
    }
}

fn similar((_, name, info): &(Option<usize>, Name, Info)) -> Similar<'_> {
    Similar { name: name.as_bytes(), size_bytes: info.size_bytes, mtime: info.mtime }
}

/// Makes a file from one that has the same content; asks the source for it where that is no longer so.
pub(crate) fn make_file(run: &Run<'_>, target: &Arc<Target>) -> Result<(), SessionError> {
    let Ok((staged, bytes)) = stage(run, target) else {
        return basis::request_delta(run, &Arc::new(target.without_alternate()));
    };
    run.done(target);
    hard_links::first_is_staged(run, target, Some(&staged));
    let (target, how) = (Arc::clone(target), Placement::Rename);
    let list = target.list;
    run.commit(vec![Ready { target, staged, how, bytes, content: Content::default() }]);
    lock(&run.session).unreserve(list);
    run.advance()
}

/// A link to the file, or a copy of it; and the bytes that were written.
fn stage(run: &Run<'_>, target: &Target) -> Result<(Staged, u64), CopyError> {
    let alternate = target.alternate.as_ref().ok_or(CopyError::Basis)?;
    if let Some(staged) = link(run, target) {
        return Ok((staged, 0));
    }
    let from = alternate.open(run, target).map_err(|_| CopyError::Basis)?;
    let before = tree::info_of(&from).map_err(|_| CopyError::Basis)?;
    if !is_same(&before, &alternate.info) {
        return Err(CopyError::Basis);
    }
    let area = run.area(target).map_err(std::io::Error::from)?;
    let (staged, out) = area.create_small().map_err(std::io::Error::from)?;
    let copied = sink::copy_part(run, &from, &out, 0, before.size_bytes).and_then(|()| {
        let after = tree::info_of(&from).map_err(|_| CopyError::Basis)?;
        if !is_same(&before, &after) {
            return Err(CopyError::Basis);
        }
        let applied = target.wanted.metadata.apply(&out);
        applied.map_err(|(_, error)| CopyError::Write(error.into()))
    });
    match copied {
        Ok(()) => Ok((staged, before.size_bytes)),
        Err(error) => {
            staged.discard();
            Err(error)
        }
    }
}

/// Another name, in staging, for what agrees in all, if links are asked for and the file system has them.
pub(crate) fn link(run: &Run<'_>, target: &Target) -> Option<Staged> {
    let alternate = target.alternate.as_ref()?;
    if run.bases.kind != BaseKind::Link || alternate.agrees != Agreement::All {
        return None;
    }
    let dir = run.bases.dir(alternate.base?, &target.parent).ok()?;
    let staged = run.area(target).ok()?.name();
    let name = staged.name.as_bytes();
    let _ = staged.area.dir.remove_file(name);
    dir.link(target.name().as_bytes(), &staged.area.dir, name).ok()?;
    let same = staged.area.dir.info(name).is_ok_and(|info| {
        let metadata = |info: &Info| (info.raw_mode, info.uid, info.gid);
        is_same(&info, &alternate.info) && metadata(&info) == metadata(&alternate.info)
    });
    let metadata = &target.wanted.metadata;
    if same && staged.area.dir.hold(name).is_ok_and(|held| metadata.apply_atime(&held).is_ok()) {
        return Some(staged);
    }
    staged.discard();
    None
}

/// Whether both are the same file and nobody has written to it between. Its ctime moves with each name that it gets.
fn is_same(before: &Info, after: &Info) -> bool {
    (before.device, before.inode, before.size_bytes, before.mtime)
        == (after.device, after.inode, after.size_bytes, after.mtime)
}

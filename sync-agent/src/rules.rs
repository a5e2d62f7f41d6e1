//! Filter rules that lie in a tree: per-directory files, read through its handles, and the question that an end asks.
//!
//! The source reads those of its tree as it descends, the destination its own, for what is to be deleted. A file that is there
//! and can't be read, or holds what is no rule, ends the run: what it would leave out, or keep, is not known. Links are
//! followed as in the tree itself. Of files above the tree, which a rule like `-F` asks for, an agent that is held to a
//! directory reads those beneath that directory only; a file that is merged by one in the tree is in the tree too.

use crate::error::SessionError;
use crate::sources::beneath;
use crate::tree::{self, Dir, Follow, Tree};
use crate::workers::lock;
use protocol::filter::{
    Chain, Filter, FilterError, FilterRules, MAX_RULES_BYTES, RuleFiles, Side, path_from,
};
use protocol::path::{Name, RelPath};
use protocol::stats::Exit;
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::sync::{Arc, Mutex};

/// Where a tree is.
#[derive(Debug)]
pub(crate) struct Place {
    /// The absolute path of the top of the transfer, without the slash before it; from the directory on that the agent is
    /// held to.
    path: Vec<u8>,
    /// Where the tree's root stands in the transfer.
    at: RelPath,
    /// That directory.
    held: Option<Dir>,
}

impl Place {
    /// Of a tree that the operator named: `at`, below `argument`; beneath `held`, if given.
    pub(crate) fn new(argument: &[u8], at: RelPath, held: Option<&Dir>) -> Result<Place, Errno> {
        let path = match held {
            Some(_) => argument.to_vec(),
            None => {
                use std::os::unix::ffi::OsStringExt as _;
                let argument = if argument.is_empty() { b"." } else { argument };
                let path = std::path::absolute(tree::path_of(argument)).map_err(|_| Errno::NOENT)?;
                path.into_os_string().into_vec()
            }
        };
        Ok(Place { path: path_from(b"", &path), at, held: held.map(Dir::try_clone).transpose()? })
    }

    /// An absolute path, without the slash before it, of something of the transfer.
    fn absolute(&self, path: &RelPath) -> Vec<u8> {
        let parts = [&self.path[..], path.as_bytes()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(&b'/')
    }

    /// What of the transfer an absolute path leads to.
    fn below(&self, path: &[u8]) -> Option<RelPath> {
        let below = path.strip_prefix(&self.path[..])?;
        let is_whole = self.path.is_empty() || below.is_empty() || below.starts_with(b"/");
        is_whole.then(|| RelPath::new(below.strip_prefix(b"/").unwrap_or(below)).ok()).flatten()
    }

    /// What of the tree an absolute path leads to.
    fn inside(&self, path: &[u8]) -> Option<RelPath> {
        self.below(path)?.seen_from(&self.at)
    }
}

/// The rules of one end for one tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TreeRules<'a> {
    pub(crate) rules: &'a FilterRules,
    pub(crate) side: Side,
    pub(crate) place: &'a Place,
}

impl<'a> TreeRules<'a> {
    /// The question, in a directory with this chain.
    pub(crate) fn filter<'c>(&self, chain: Option<&'c Arc<Chain>>) -> Filter<'c>
    where
        'a: 'c,
    {
        Filter { rules: self.rules, chain: chain.map(AsRef::as_ref), root: &self.place.path, side: self.side }
    }

    /// The chain of a directory from that of its parent.
    pub(crate) fn enter(
        &self,
        parent: Option<&Arc<Chain>>,
        tree: &Tree,
        dir: &Dir,
        path: &RelPath,
    ) -> Result<Option<Arc<Chain>>, SessionError> {
        if !self.rules.are_per_directory() {
            return Ok(None);
        }
        let directory = self.place.absolute(path);
        let mut files = TreeFiles { place: self.place, tree, dir, directory: &directory };
        match Chain::enter(self.rules, parent.map(AsRef::as_ref), &directory, &mut files) {
            Ok(own) => Ok(own.map(Arc::new).or_else(|| parent.cloned())),
            Err(error) => Err(refused(&error, self.side)),
        }
    }
}

/// The rules of a destination. Those of its directories are remembered as they were before anything was changed, for what is
/// extraneous is found while other directories are still written to; a directory without any has those of the
/// one above it, so that only those with a file of their own take memory.
#[derive(Debug)]
pub(crate) struct OwnRules<'a> {
    pub(crate) rules: TreeRules<'a>,
    pub(crate) tree: &'a Tree,
    chains: Mutex<HashMap<RelPath, Arc<Chain>>>,
}

impl<'a> OwnRules<'a> {
    pub(crate) fn new(rules: TreeRules<'a>, tree: &'a Tree) -> OwnRules<'a> {
        OwnRules { rules, tree, chains: Mutex::default() }
    }

    /// Reads the rules of a directory; those above it were entered before.
    pub(crate) fn enter(&self, dir: &Dir, path: &RelPath) -> Result<(), SessionError> {
        if !self.rules.rules.are_per_directory() || lock(&self.chains).contains_key(path) {
            return Ok(());
        }
        let parent = path.split_last().and_then(|(parent, _)| self.chain(parent));
        let own = self.rules.enter(parent.as_ref(), self.tree, dir, path)?;
        if let Some(own) = own.filter(|own| parent.is_none_or(|parent| !Arc::ptr_eq(own, &parent))) {
            lock(&self.chains).insert(path.clone(), own);
        }
        Ok(())
    }

    /// Whether the rules keep an entry of a directory from being deleted.
    pub(crate) fn protect(&self, dir: &Dir, directory: &RelPath, name: &Name) -> bool {
        self.ask(dir, directory, name, |filter, path, is_dir| filter.excludes(path, is_dir))
    }

    /// Whether they do so in a directory that is being deleted itself.
    pub(crate) fn protect_in_deleted(&self, dir: &Dir, directory: &RelPath, name: &Name) -> bool {
        self.ask(dir, directory, name, |filter, path, is_dir| filter.excludes_in_deleted(path, is_dir))
    }

    fn ask(
        &self,
        dir: &Dir,
        directory: &RelPath,
        name: &Name,
        excludes: impl FnOnce(&Filter<'_>, &[u8], bool) -> bool,
    ) -> bool {
        !self.rules.rules.is_empty() && {
            let is_dir = dir.info(name.as_bytes()).is_ok_and(|info| info.is_dir());
            let chain = self.chain(directory.clone());
            excludes(&self.rules.filter(chain.as_ref()), directory.join(name).as_bytes(), is_dir)
        }
    }

    fn chain(&self, mut directory: RelPath) -> Option<Arc<Chain>> {
        if !self.rules.rules.are_per_directory() {
            return None;
        }
        let chains = lock(&self.chains);
        loop {
            if let Some(chain) = chains.get(&directory) {
                return Some(Arc::clone(chain));
            }
            directory = directory.split_last()?.0;
        }
    }
}

fn refused(error: &FilterError, side: Side) -> SessionError {
    let end = if side == Side::Sender { "source" } else { "destination" };
    SessionError::refused(
        Exit::Usage,
        format!("filter rules at the {end}: {error}; nothing is done without them"),
    )
}

/// The files of a directory of a tree, and of those above it.
struct TreeFiles<'a> {
    place: &'a Place,
    tree: &'a Tree,
    dir: &'a Dir,
    /// Its absolute path, without the slash before it.
    directory: &'a [u8],
}

impl RuleFiles for TreeFiles<'_> {
    fn merged(&mut self, name: &[u8], directory: Option<&[u8]>) -> Result<Vec<u8>, String> {
        let directory = directory.unwrap_or(self.directory);
        // As with rsync a bare name is one of the top of the tree, where the program stands.
        let is_of_top = !name.contains(&b'/') && self.place.below(directory).is_some();
        let top = if is_of_top { &self.place.path } else { directory };
        let path = path_from(top, name);
        let allowed =
            if is_of_top || self.place.below(directory).is_some() { &self.place.path } else { directory };
        let is_allowed =
            path.strip_prefix(allowed).is_some_and(|rest| allowed.is_empty() || rest.starts_with(b"/"));
        if !is_allowed {
            return Err("a file of the tree can name files of the tree only".to_owned());
        }
        let cut = path.iter().rposition(|&byte| byte == b'/');
        let (directory, name) = cut.map_or((&b""[..], &path[..]), |at| (&path[..at], &path[at + 1..]));
        self.in_directory(directory, name)?.ok_or_else(|| "no such file".to_owned())
    }

    fn in_directory(&mut self, directory: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let name = Name::new(name).map_err(|error| error.to_string())?;
        let opened = if directory == self.directory {
            self.open(self.dir, directory, &name)
        } else if let Some(path) = self.place.inside(directory) {
            self.tree.dir(&path).and_then(|dir| self.open(&dir, directory, &name))
        } else {
            self.open_above(directory, &name)
        };
        match opened {
            Ok(file) => content(file).map_err(|error| error.to_string()),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP) => Err("it is a symbolic link, which is not followed here".to_owned()),
            Err(error) => Err(std::io::Error::from(error).to_string()),
        }
    }

    fn cvs_words(&mut self) -> Vec<u8> {
        Vec::new()
    }
}

impl TreeFiles<'_> {
    fn open(&self, dir: &Dir, directory: &[u8], name: &Name) -> Result<File, Errno> {
        match self.place.inside(directory).filter(|_| self.tree.follows()) {
            Some(path) => self.tree.open_followed(&path.join(name)),
            None => dir.open_file(name.as_bytes()),
        }
    }

    fn open_above(&self, directory: &[u8], name: &Name) -> Result<File, Errno> {
        let dir = match &self.place.held {
            None => Dir::open(tree::path_of(&[b"/", directory].concat()))?,
            Some(held) => {
                let path = beneath(directory).ok_or(Errno::XDEV)?;
                Tree::open_beneath(held, &path, Follow::Never)?.dir(&RelPath::root())?
            }
        };
        dir.open_file(name.as_bytes())
    }
}

/// What a file of rules says; nothing if it is a directory or the like.
fn content(file: File) -> Result<Option<Vec<u8>>, std::io::Error> {
    if !tree::info_of(&file)?.is_file() {
        return Ok(None);
    }
    let mut content = Vec::new();
    file.take(MAX_RULES_BYTES as u64 + 1).read_to_end(&mut content)?;
    if content.len() > MAX_RULES_BYTES {
        return Err(std::io::Error::other(format!("it has more than {MAX_RULES_BYTES} bytes")));
    }
    Ok(Some(content))
}

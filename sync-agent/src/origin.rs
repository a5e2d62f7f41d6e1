//! A source argument: what it says, and opened, where its tree is and where that stands in the transfer.
//!
//! With `--relative` the directories of the argument's own path are in the transfer too. These *implied* directories
//! hold nothing but the way down; their attributes are taken once, when the argument is opened, and links among them
//! are followed, for the operator named them. Below the argument the rules of its [`Tree`] hold.

use crate::error::SessionError;
use crate::listed::{Rest, Wanted};
use crate::rules::{Place, TreeRules};
use crate::sources::beneath;
use crate::tree::{self, Dir, Follow, Held, Info, Tree, Walk};
use protocol::arguments::Relative;
use protocol::filter::Side;
use protocol::links::{self, Followed};
use protocol::options::SyncOptions;
use protocol::path::{Name, PathError, RelPath};
use protocol::stats::Exit;
use rustix::io::Errno;
use std::borrow::Cow;
use std::fs::File;

/// What a source argument says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Argument {
    /// The directory that paths of the transfer are below.
    base: Vec<u8>,
    /// What was asked for, below it.
    asked: RelPath,
    /// The contents of a directory were asked for, not the thing itself.
    contents: bool,
    /// The base is in the transfer although only something in it was asked for (`./` in front of a relative path).
    base_is_implied: bool,
}

/// Why a source argument is not opened.
pub(crate) enum OpenError {
    /// It is not there, or not to be read: others may be.
    Errno(Errno),
    /// It is not allowed.
    Refused(SessionError),
}

/// Why a name could not be looked at.
pub(crate) enum LookError {
    /// The system's.
    Errno(Errno),
    /// It is a link that is to be followed, to nothing.
    Dangling,
}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> OpenError {
        OpenError::Errno(errno)
    }
}

impl Argument {
    /// Takes an argument as typed: with a trailing slash its contents, without one the thing itself.
    ///
    /// # Errors
    /// Why it can't be a source.
    pub(crate) fn parse(argument: &[u8], relative: Relative) -> Result<Argument, SessionError> {
        let refused = |exit, why: &str| {
            let shown = protocol::path::escaped(argument);
            SessionError::refused(exit, format!("{shown:?} {why}"))
        };
        refuse_staging(argument)?;
        if relative == Relative::No {
            return Argument::plain(argument).map_err(|why| refused(Exit::Selection, &why.to_string()));
        }
        let (base, rest) = relative_parts(argument);
        if rest.split(|&byte| byte == b'/').any(|part| part == b"..") {
            let why =
                "has a \"..\" that --relative would have to copy; put /./ behind it (a/../b/./c copies c)";
            return Err(refused(Exit::Usage, why));
        }
        let asked = beneath(rest).ok_or_else(|| refused(Exit::Selection, "is too long"))?;
        let contents = asked.is_root() || stands_for_contents(rest);
        let base_is_implied = relative == Relative::Yes && rest.starts_with(b"./");
        Ok(Argument { base: base.to_vec(), asked, contents, base_is_implied })
    }

    fn plain(argument: &[u8]) -> Result<Argument, PathError> {
        let or_here = |path: &[u8]| if path.is_empty() { b".".to_vec() } else { path.to_vec() };
        if stands_for_contents(argument) {
            let (base, asked) = (or_here(argument), RelPath::root());
            return Ok(Argument { base, asked, contents: true, base_is_implied: false });
        }
        let cut = argument.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
        let asked = RelPath::root().join(&Name::new(&argument[cut..])?);
        Ok(Argument { base: or_here(&argument[..cut]), asked, contents: false, base_is_implied: false })
    }

    /// A directory whose own contents a list names: `at`, below `base`.
    pub(crate) fn of_list(base: Vec<u8>, at: RelPath) -> Argument {
        Argument { base, asked: at, contents: true, base_is_implied: false }
    }

    /// The directory that paths of the transfer are below.
    pub(crate) fn base(&self) -> &[u8] {
        &self.base
    }

    /// Its path in the transfer.
    pub(crate) fn asked(&self) -> &RelPath {
        &self.asked
    }

    /// Whether a directory's contents were asked for.
    pub(crate) fn is_contents(&self) -> bool {
        self.contents
    }

    /// Opens it, beneath `root`, if given, and then it is relative to that.
    pub(crate) fn open(self, root: Option<&Dir>, options: &SyncOptions) -> Result<Origin, OpenError> {
        let (at, only) = match self.asked.split_last() {
            Some((parent, name)) if !self.contents => (parent, Some(name)),
            _ => (self.asked.clone(), None),
        };
        let follow = if options.links.followed.any() { Follow::Anywhere } else { Follow::Never };
        let tree = self.tree(root, &at, follow)?;
        let implied = if at.is_root() { Vec::new() } else { self.implied(root, &at)? };
        let base = match self.base_is_implied {
            true => Some(self.tree(root, &RelPath::root(), Follow::Never)?.dir(&RelPath::root())?),
            false => None,
        };
        if let Some(name) = &only {
            let path = RelPath::root().join(name);
            let there = tree.dir(&RelPath::root())?.info(name.as_bytes());
            if options.links.followed.any() { tree.info_followed(&path).or(there) } else { there }?;
        }
        let wanted = wanted(only.as_ref(), options);
        let place = Place::new(&self.base, at.clone(), root)?;
        Ok(Origin { tree, at, implied, only, wanted, place, base })
    }

    fn tree(&self, root: Option<&Dir>, at: &RelPath, follow: Follow) -> Result<Tree, OpenError> {
        let mut path = self.base.clone();
        if !at.is_root() {
            path.push(b'/');
            path.extend_from_slice(at.as_bytes());
        }
        let Some(root) = root else { return Ok(Tree::open(tree::path_of(&path), follow)?) };
        let Some(path) = beneath(&path) else {
            let shown = protocol::path::escaped(&path);
            let why = format!("{shown:?} leads out of the directory that this agent is held to");
            return Err(OpenError::Refused(SessionError::refused(Exit::Selection, why)));
        };
        Ok(Tree::open_beneath(root, &path, follow)?)
    }

    /// The directories on the way to `at`.
    fn implied(&self, root: Option<&Dir>, at: &RelPath) -> Result<Vec<(Name, Info)>, OpenError> {
        let base = self.tree(root, &RelPath::root(), Follow::Anywhere)?;
        let mut path = RelPath::root();
        let look = |name: Name| {
            path = path.join(&name);
            base.info_followed(&path).map(|info| (name, info))
        };
        Ok(at.names().map(look).collect::<Result<_, Errno>>()?)
    }
}

/// What an argument asks for of its tree's root.
fn wanted(only: Option<&Name>, options: &SyncOptions) -> Wanted {
    let entered = |rest| if options.recursive { Rest::Everything } else { rest };
    match only {
        Some(name) => Wanted::only(name.clone(), entered(Rest::Nothing)),
        None => Wanted::rest(entered(Rest::Names)),
    }
}

/// Where a relative argument is cut: at its first `/./`, or in front of all of it.
fn relative_parts(argument: &[u8]) -> (&[u8], &[u8]) {
    if let Some(cut) = argument.windows(3).position(|part| part == b"/./") {
        let base = if cut == 0 { &b"/"[..] } else { &argument[..cut] };
        return (base, &argument[cut + 3..]);
    }
    if argument.starts_with(b"/") { (b"/", &argument[1..]) } else { (b".", argument) }
}

/// What is not complete yet is nobody's source.
pub(crate) fn refuse_staging(path: &[u8]) -> Result<(), SessionError> {
    if !path.split(|&byte| byte == b'/').any(|part| part == tree::STAGING_NAME) {
        return Ok(());
    }
    let shown = protocol::path::escaped(path);
    let why = format!("{shown:?} holds what is not complete yet: it can't be a source");
    Err(SessionError::refused(Exit::Selection, why))
}

/// Whether an argument names a directory by itself (a trailing slash or dots at its end).
pub(crate) fn stands_for_contents(argument: &[u8]) -> bool {
    argument.is_empty()
        || argument.ends_with(b"/")
        || matches!(argument, b"." | b"..")
        || argument.ends_with(b"/.")
        || argument.ends_with(b"/..")
}

/// One source argument, opened.
#[derive(Debug)]
pub(crate) struct Origin {
    tree: Tree,
    /// Where the tree's root stands in the transfer.
    at: RelPath,
    /// The directories above that, from the top.
    implied: Vec<(Name, Info)>,
    /// The argument names this entry of the tree's root; none: what is in the root, or what a list names.
    only: Option<Name>,
    /// What is copied of the tree's root.
    wanted: Wanted,
    /// Where it is.
    place: Place,
    /// The root of the transfer, where it is in it although only something below was asked for.
    base: Option<Dir>,
}

impl Origin {
    /// Its path in the transfer.
    pub(crate) fn asked(&self) -> RelPath {
        self.only.as_ref().map_or_else(|| self.at.clone(), |name| self.at.join(name))
    }

    /// The transfer's root, where this argument has it in the transfer.
    pub(crate) fn root(&self) -> Option<Result<Dir, Errno>> {
        let is_root = self.is_top(&RelPath::root());
        if is_root { Some(self.tree.dir(&RelPath::root())) } else { self.base.as_ref().map(Dir::try_clone) }
    }

    /// Whether it is one thing and stands at the top of the transfer.
    pub(crate) fn is_single(&self) -> bool {
        self.at.is_root() && self.only.is_some() && self.base.is_none()
    }

    /// The directory that comes next on the way from `directory` of the transfer to what was asked for.
    pub(crate) fn implied(&self, directory: &RelPath) -> Option<&(Name, Info)> {
        self.implied.get(directory.depth()).filter(|_| self.at.is_within(directory))
    }

    /// Whether `directory` is the one whose contents were asked for.
    pub(crate) fn is_top(&self, directory: &RelPath) -> bool {
        self.wanted.is_content() && *directory == self.at
    }

    /// What is copied of the directory that its tree is the contents of.
    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Its tree, from where it stands in the transfer on.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Where its tree is.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether the filter leaves out what was asked for.
    pub(crate) fn is_excluded(&self, options: &SyncOptions) -> bool {
        let is_named = !options.filter.is_empty() && !self.asked().is_root();
        is_named && self.excludes(&self.asked(), self.is_directory(options.links.followed), options)
    }

    /// Whether the filter leaves out what somebody named. As with rsync, rules of directories are not asked about that.
    fn excludes(&self, path: &RelPath, is_dir: bool, options: &SyncOptions) -> bool {
        let rules = TreeRules { rules: &options.filter, side: Side::Sender, place: &self.place };
        rules.filter(None).excludes(path.as_bytes(), is_dir)
    }

    /// Nothing of it is copied but what a list names.
    pub(crate) fn want_nothing(&mut self) {
        self.wanted = Wanted::rest(Rest::Nothing);
    }

    /// Takes in a name of a list, as seen from the top of the transfer, unless the filter leaves it out.
    pub(crate) fn want(
        &mut self,
        walk: &mut Walk,
        path: &RelPath,
        with_content: bool,
        options: &SyncOptions,
    ) -> Result<(), Errno> {
        let is_dir = self.look_at(walk, path, options.links.followed)?.is_dir();
        if self.excludes(path, is_dir, options) {
            return Ok(());
        }
        let rest = match is_dir {
            true if options.recursive => Rest::Everything,
            true if with_content => Rest::Names,
            _ => Rest::Nothing,
        };
        let names: Vec<Name> = self.inside(path)?.names().collect();
        self.wanted.add(&names, rest);
        Ok(())
    }

    fn look_at(&self, walk: &mut Walk, path: &RelPath, followed: Followed) -> Result<Info, Errno> {
        let Some((parent, name)) = path.split_last().filter(|_| *path != self.at) else {
            return self.dir(walk, path)?.own_info();
        };
        let dir = self.dir(walk, &parent)?;
        match self.look(&dir, &parent, &name, followed) {
            Ok((info, _)) => Ok(info),
            // It is listed, and told of then.
            Err(LookError::Dangling) => dir.info(name.as_bytes()),
            Err(LookError::Errno(error)) => Err(error),
        }
    }

    /// Whether what was asked for is a directory, or a link that is followed to one.
    pub(crate) fn is_directory(&self, followed: Followed) -> bool {
        let Some(name) = &self.only else { return true };
        let looked = self.tree.dir(&RelPath::root()).map(|dir| self.look(&dir, &self.at, name, followed));
        looked.is_ok_and(|found| found.is_ok_and(|(info, _)| info.is_dir()))
    }

    /// What `name` in `directory` of the transfer is, and whether that is what a link points to; `dir` is that directory.
    pub(crate) fn look(
        &self,
        dir: &Dir,
        directory: &RelPath,
        name: &Name,
        followed: Followed,
    ) -> Result<(Info, bool), LookError> {
        let info = dir.info(name.as_bytes()).map_err(LookError::Errno)?;
        if !followed.any() || !info.is_link() {
            return Ok((info, false));
        }
        let path = directory.join(name);
        let must_follow = match followed {
            Followed::All => true,
            Followed::Some { leading_out: true, .. } => {
                let target = dir.read_link(name.as_bytes()).map_err(LookError::Errno)?;
                links::leads_out(&path, &target)
            }
            _ => false,
        };
        let may_follow = matches!(followed, Followed::Some { to_directories: true, .. });
        if !must_follow && !may_follow {
            return Ok((info, false));
        }
        match self.info_followed(&path) {
            Ok(followed) if must_follow || followed.is_dir() => Ok((followed, true)),
            Ok(_) => Ok((info, false)),
            Err(_) if !must_follow => Ok((info, false)),
            Err(Errno::NOENT) => Err(LookError::Dangling),
            Err(error) => Err(LookError::Errno(error)),
        }
    }

    /// A directory of the transfer that is this argument's.
    pub(crate) fn dir(&self, walk: &mut Walk, path: &RelPath) -> Result<Dir, Errno> {
        walk.dir(&self.tree, self.inside(path)?.as_ref())
    }

    /// As [`Tree::dir_without_links`], by a path of the transfer.
    pub(crate) fn dir_without_links(&self, path: &RelPath) -> Result<Dir, Errno> {
        self.tree.dir_without_links(self.inside(path)?.as_ref())
    }

    /// As [`Tree::info_followed`], by a path of the transfer.
    pub(crate) fn info_followed(&self, path: &RelPath) -> Result<Info, Errno> {
        self.tree.info_followed(self.inside(path)?.as_ref())
    }

    /// As [`Tree::open_followed`], by a path of the transfer.
    pub(crate) fn open_followed(&self, path: &RelPath) -> Result<File, Errno> {
        self.tree.open_followed(self.inside(path)?.as_ref())
    }

    /// As [`Tree::hold_followed`], by a path of the transfer.
    pub(crate) fn hold_followed(&self, path: &RelPath) -> Result<Held, Errno> {
        self.tree.hold_followed(self.inside(path)?.as_ref())
    }

    fn inside<'p>(&self, path: &'p RelPath) -> Result<Cow<'p, RelPath>, Errno> {
        if self.at.is_root() {
            return Ok(Cow::Borrowed(path));
        }
        path.seen_from(&self.at).map(Cow::Owned).ok_or(Errno::NOENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_says_what_of_its_path_is_in_the_transfer() {
        for (argument, relative, base, asked, contents) in [
            ("a/b", Relative::No, "a/", "b", false),
            ("a/b/", Relative::No, "a/b/", "", true),
            ("b", Relative::No, ".", "b", false),
            ("..", Relative::No, "..", "", true),
            ("a/b", Relative::Yes, ".", "a/b", false),
            ("/a/b/", Relative::Yes, "/", "a/b", true),
            ("/x/./a//b", Relative::Yes, "/x", "a/b", false),
            ("/./a", Relative::Yes, "/", "a", false),
            ("x/./", Relative::Yes, "x", "", true),
            ("../x/./a/.", Relative::Yes, "../x", "a", true),
            (".", Relative::Yes, ".", "", true),
        ] {
            let parsed = Argument::parse(argument.as_bytes(), relative).unwrap();
            let shown = (String::from_utf8(parsed.base).unwrap(), parsed.asked.to_string(), parsed.contents);
            let asked = if asked.is_empty() { "." } else { asked };
            assert_eq!(shown, (base.to_owned(), asked.to_owned(), contents), "{argument}");
        }
        assert!(Argument::parse(b"./a", Relative::Yes).unwrap().base_is_implied);
        assert!(!Argument::parse(b"./a", Relative::WithoutImplied).unwrap().base_is_implied);
        assert!(!Argument::parse(b"x/./a", Relative::Yes).unwrap().base_is_implied);
        assert_eq!(Argument::parse(b"a/../b", Relative::Yes).unwrap_err().exit(), Exit::Usage);
        assert!(Argument::parse(b"a/../b", Relative::No).is_ok());
        assert!(Argument::parse(b"x/.sync-agent-staging/y", Relative::No).is_err());
    }
}

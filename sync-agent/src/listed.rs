//! What of a source is copied: all of it, or what a list names.
//!
//! `Wanted` says what of one directory is listed, and leads to what is listed of those in it; the scan carries it from
//! parent to child. Names that somebody gave were looked at and asked of the filter when the source was opened; those on the
//! way to them are listed whatever the filter says, and nothing is deleted beside them, for their directory is not listed
//! whole.

use crate::agent::START_DEADLINE;
use crate::error::SessionError;
use crate::link::{Link, Outgoing};
use crate::monitor::errno;
use crate::origin::{Argument, OpenError, refuse_staging};
use crate::sources::{Sources, beneath};
use crate::tree::{self, Dir, Follow, Names, Tree, Walk};
use protocol::arguments::{Missing, Relative};
use protocol::limits;
use protocol::message::Message;
use protocol::names::{self, ListFile, ListedPath};
use protocol::options::SyncOptions;
use protocol::path::{Name, RelPath};
use protocol::stats::{Exit, Operation, Side};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::sync::Arc;

/// What is listed of a directory.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Names that somebody gave, and those on the way to them.
    named: Option<Arc<BTreeMap<Name, Wanted>>>,
    rest: Rest,
}

/// What is listed of a directory besides the names that were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rest {
    /// Nothing.
    Nothing,
    /// Everything in it, but nothing of what is in that.
    Names,
    /// Everything in it and below.
    Everything,
}

impl Wanted {
    pub(crate) fn rest(rest: Rest) -> Wanted {
        Wanted { named: None, rest }
    }

    /// One name, and what is wanted of it.
    pub(crate) fn only(name: Name, rest: Rest) -> Wanted {
        let named = BTreeMap::from([(name, Wanted::rest(rest))]);
        Wanted { named: Some(Arc::new(named)), rest: Rest::Nothing }
    }

    /// Whether anything in the directory is listed.
    pub(crate) fn is_anything(&self) -> bool {
        self.named.is_some() || self.rest != Rest::Nothing
    }

    /// Whether everything in the directory is listed, as far as the filter lets it.
    pub(crate) fn is_content(&self) -> bool {
        self.rest != Rest::Nothing
    }

    /// The names to list.
    pub(crate) fn names(&self, dir: &Dir) -> Result<Names, Errno> {
        match (&self.named, self.rest) {
            (Some(named), Rest::Nothing) => Ok(Names::of(named.keys().map(Name::as_bytes))),
            (None, Rest::Nothing) => Ok(Names::default()),
            _ => dir.names(),
        }
    }

    /// Whether somebody gave this name, or one below it.
    pub(crate) fn is_named(&self, name: &[u8]) -> bool {
        self.named.as_ref().is_some_and(|named| named.contains_key(name))
    }

    /// What is wanted of a directory of this name.
    pub(crate) fn below(&self, name: &[u8]) -> Wanted {
        let named = self.named.as_ref().and_then(|named| named.get(name));
        named.cloned().unwrap_or_else(|| {
            Wanted::rest(if self.rest == Rest::Everything { Rest::Everything } else { Rest::Nothing })
        })
    }

    pub(crate) fn add(&mut self, path: &[Name], rest: Rest) {
        let mut wanted = self;
        for name in path {
            if wanted.rest == Rest::Everything {
                return;
            }
            let named = Arc::make_mut(wanted.named.get_or_insert_default());
            wanted = named.entry(name.clone()).or_insert(Wanted::rest(Rest::Nothing));
        }
        wanted.rest = wanted.rest.max(rest);
        if wanted.rest == Rest::Everything {
            wanted.named = None;
        }
    }
}

/// Tells the source what the list names.
///
/// # Errors
/// The connection is gone.
pub fn send(outgoing: &Outgoing, list: &[u8]) -> Result<(), SessionError> {
    names::parts(list).try_for_each(|part| outgoing.say(&Message::Names(part)))
}

/// Takes in what [`send`] tells.
///
/// # Errors
/// Something else came, nothing came in time, or it is too long.
pub fn receive(link: &Link) -> Result<Vec<u8>, SessionError> {
    let mut list = Vec::new();
    loop {
        match link.incoming.message_within(START_DEADLINE)? {
            Message::Names(part) if list.len() + part.bytes.len() <= limits::LIST_BYTES => {
                list.extend_from_slice(&part.bytes);
                if part.last {
                    return Ok(list);
                }
            }
            Message::Names(_) => {
                return Err(SessionError::refused(
                    Exit::Selection,
                    "the list of files is too long for one run",
                ));
            }
            Message::KeepAlive => {}
            Message::Abort(abort) => return Err(SessionError::Peer(abort)),
            other => {
                let why = "the list of files must come first";
                return Err(SessionError::Protocol(protocol::ProtocolError::Unexpected {
                    what: other.name(),
                    why,
                }));
            }
        }
    }
}

/// Reads a list that is at this end; beneath `root`, if given.
///
/// # Errors
/// It can't be read.
pub fn read(root: Option<&Dir>, file: &ListFile) -> Result<Vec<u8>, SessionError> {
    let shown = protocol::path::escaped(&file.path);
    let failed = |error: std::io::Error| SessionError::io(format!("read the list of files {shown:?}"), error);
    let opened = match root {
        None => std::fs::File::open(tree::path_of(&file.path)).map_err(failed)?,
        Some(root) => {
            let path = beneath(&file.path).and_then(|path| path.split_last());
            let (parent, name) = path.ok_or_else(|| failed(Errno::XDEV.into()))?;
            let dir =
                Tree::open_beneath(root, &parent, Follow::Never).and_then(|tree| tree.dir(&RelPath::root()));
            dir.and_then(|dir| dir.open_file(name.as_bytes())).map_err(|error| failed(error.into()))?
        }
    };
    let mut content = Vec::new();
    opened.take(limits::LIST_BYTES as u64).read_to_end(&mut content).map_err(failed)?;
    Ok(names::zero_ended(&content, file.zero_ended))
}

impl Sources {
    /// Opens what a list names of one source argument; beneath `root`, if given. `list` has a zero byte behind each name.
    /// A name that is not there is reported when the run begins.
    ///
    /// # Errors
    /// The argument can't be opened, or a name of the list is none.
    pub fn open_listed(
        root: Option<&Dir>,
        argument: &[u8],
        list: &[u8],
        options: &SyncOptions,
    ) -> Result<Sources, SessionError> {
        let mut sources = Sources::default();
        let mut groups = Groups { root, argument, options, at: HashMap::new(), walks: Vec::new() };
        let top = RelPath::root();
        refuse_staging(argument)?;
        match groups.open(&mut sources, &top, &top) {
            Ok(_) => {}
            Err(OpenError::Refused(error)) => return Err(error),
            Err(OpenError::Errno(error)) => {
                let shown = protocol::path::escaped(argument);
                return Err(SessionError::io(format!("open the source {shown:?}"), error));
            }
        }
        for name in names::each(list) {
            refuse_staging(name)?;
            let listed = ListedPath::parse(name).map_err(|error| {
                let shown = protocol::path::escaped(name);
                SessionError::refused(
                    Exit::Usage,
                    format!("the list names {shown:?}, which is no path: {error}"),
                )
            })?;
            match groups.want(&mut sources, &listed) {
                // Only then does the destination take those above for others.
                Ok(()) if options.arguments.relative == Relative::WithoutImplied => {
                    sources.ask(listed.path())
                }
                Ok(()) => {}
                Err(OpenError::Refused(error)) => return Err(error),
                Err(OpenError::Errno(Errno::NOENT)) if options.arguments.missing != Missing::Reported => {
                    sources.miss_at_destination(listed.path());
                }
                Err(OpenError::Errno(error)) => {
                    sources.miss(errno(Side::Source, &listed.path(), Operation::Open, error));
                }
            }
        }
        sources.origins.retain(|origin| origin.wanted().is_anything());
        sources.place(options)?;
        Ok(sources)
    }
}

/// The origins of a list: one for the argument, one for each directory that stands before a `/./`, and one for each directory
/// that a link on the way leads to.
struct Groups<'a> {
    root: Option<&'a Dir>,
    argument: &'a [u8],
    options: &'a SyncOptions,
    /// By what stands before the `/./`, and the directory below.
    at: HashMap<(RelPath, RelPath), usize>,
    walks: Vec<Walk>,
}

impl Groups<'_> {
    /// Has a name of the list copied.
    fn want(&mut self, sources: &mut Sources, listed: &ListedPath) -> Result<(), OpenError> {
        let group = self.open(sources, &listed.base, &RelPath::root())?;
        match (self.want_of(sources, group, listed), listed.path().split_last()) {
            (Err(Errno::LOOP | Errno::NOTDIR), Some((parent, _))) => {
                let group = self.open(sources, &listed.base, &parent)?;
                Ok(self.want_of(sources, group, listed)?)
            }
            (result, _) => Ok(result?),
        }
    }

    fn want_of(&mut self, sources: &mut Sources, group: usize, listed: &ListedPath) -> Result<(), Errno> {
        let (origin, walk) = (&mut sources.origins[group], &mut self.walks[group]);
        origin.want(walk, &listed.path(), listed.with_content, self.options)
    }

    fn open(&mut self, sources: &mut Sources, base: &RelPath, at: &RelPath) -> Result<usize, OpenError> {
        let key = (base.clone(), at.clone());
        if let Some(&group) = self.at.get(&key) {
            return Ok(group);
        }
        let mut path = if self.argument.is_empty() { b".".to_vec() } else { self.argument.to_vec() };
        if !base.is_root() {
            path.push(b'/');
            path.extend_from_slice(base.as_bytes());
        }
        let mut origin = Argument::of_list(path, at.clone()).open(self.root, self.options)?;
        origin.want_nothing();
        let group = sources.origins.len();
        if u16::try_from(group).is_err() {
            return Err(OpenError::Errno(Errno::MFILE));
        }
        sources.origins.push(origin);
        self.walks.push(Walk::default());
        self.at.insert(key, group);
        Ok(group)
    }
}

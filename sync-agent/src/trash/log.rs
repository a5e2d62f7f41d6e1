//! What a run did, written down beside what it kept, so that it can be undone.
//!
//! # Format
//! Records, each ended by a NUL, which no path contains:
//! ```text
//! sync-agent trash 1 DEVICE INODE PATH                 the destination; devices as MAJOR:MINOR
//! follows                                              links to directories stood for those (--keep-dirlinks)
//! taken DEVICE INODE SIZE MTIME CTIME PATH             what was kept, as it was before anything was done to it
//! replaced DEVICE INODE SIZE MTIME CTIME PATH          what the run put there; the last record of a path counts
//! dir MODE UID GID MTIME PATH                          a directory that was removed; octal, seconds.nanoseconds
//! back DEVICE INODE SIZE MTIME CTIME PATH              the copy that an undo puts back on another file system
//! ```
//! `taken` is written before the entry is touched, the others after what they tell: of a run that was killed the last ones
//! may be missing, and what has none is put back only where nothing stands. An undo writes `replaced` too: for a directory
//! that it makes again, in its own run's log; for what it puts back, in the log of the older run that had put that there,
//! for the moves to the trash and back have changed its ctime.

use super::{LOG, TrashError};
use crate::metadata::Metadata;
use crate::tree::{Dir, Info, Tree};
use protocol::entry::Timestamp;
use protocol::path::{Name, RelPath};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;

const MAGIC: &str = "sync-agent trash 1";
const FOLLOWS: &[u8] = b"follows";
/// In place of what says nothing.
const ANY: &str = "-";

/// One thing that was done.
#[derive(Debug)]
pub(super) enum Record<'a> {
    Taken(&'a Info),
    Replaced(&'a Info),
    RemovedDirectory(&'a Info),
    Back(&'a Info),
}

impl Record<'_> {
    /// The bytes of the record about the entry at `path`.
    pub(super) fn of(&self, path: &RelPath) -> Vec<u8> {
        let what = match self {
            Record::Taken(info) => format!("taken {} ", identity(info)),
            Record::Replaced(info) => format!("replaced {} ", identity(info)),
            Record::Back(info) => format!("back {} ", identity(info)),
            Record::RemovedDirectory(info) => {
                let Info { raw_mode, uid, gid, mtime, .. } = info;
                format!("dir {:o} {uid} {gid} {} ", raw_mode & 0o7777, time(*mtime))
            }
        };
        [what.as_bytes(), path.as_bytes(), b"\0"].concat()
    }
}

/// The first records of a run that changes the destination at `path`, which is `info`.
pub(super) fn header(info: &Info, path: &[u8], tree: &Tree) -> Vec<u8> {
    let (major, minor) = info.device;
    let destination = format!("{MAGIC} {major}:{minor} {} ", info.inode);
    let follows = if tree.follows() { [FOLLOWS, b"\0"].concat() } else { Vec::new() };
    [destination.as_bytes(), path, b"\0", &follows].concat()
}

/// What [`identity`] said of entries, by path.
type Identities = HashMap<Vec<u8>, String>;

/// A log, read.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) home: ((u32, u32), u64),
    pub(super) destination: Vec<u8>,
    /// Links to directories stood for those.
    pub(super) follows: bool,
    /// By path, so parents come before children.
    pub(super) removed_dirs: BTreeMap<Vec<u8>, (RelPath, Metadata)>,
    taken: Identities,
    replaced: Identities,
    back: Identities,
}

impl Records {
    /// Whether what is there now is what the run put there, untouched.
    pub(super) fn is_of_run(&self, path: &RelPath, now: &Info) -> bool {
        self.replaced.get(path.as_bytes()).is_some_and(|put| self.is_put(put, &identity(now)))
    }

    /// Whether this is what the run put at `path`, whatever was done to it.
    pub(super) fn was_put(&self, path: &RelPath, now: &Info) -> bool {
        self.replaced.get(path.as_bytes()).is_some_and(|put| file(put) == file(&identity(now)))
    }

    /// Whether what was kept of `path` still has the content that it had.
    pub(super) fn is_as_taken(&self, path: &RelPath, kept: &Info) -> bool {
        // A copy is another file.
        let kept = identity(kept);
        self.taken.get(path.as_bytes()).is_some_and(|taken| content(taken) == content(&kept))
    }

    /// Whether this is what an undo put back, which was killed before it removed what it had copied.
    pub(super) fn is_back(&self, path: &RelPath, now: &Info) -> bool {
        let now = identity(now);
        let is_same = |back: &String| file(back) == file(&now) && content(back) == content(&now);
        self.back.get(path.as_bytes()).is_some_and(is_same)
    }

    /// The paths at which a later run took what this one had put there.
    pub(super) fn taken_by(&self, later: &Records) -> Vec<Vec<u8>> {
        let is_taken = |(path, put): &(&Vec<u8>, &String)| {
            later.taken.get(*path).is_some_and(|taken| self.is_put(put, taken))
        };
        self.replaced.iter().filter(is_taken).map(|(path, _)| path.clone()).collect()
    }

    /// Of a file that the run gave several names, the going of one changes the ctime that the others show.
    fn is_put(&self, put: &str, now: &str) -> bool {
        let has_names = || self.replaced.values().filter(|other| file(other) == file(put)).count() > 1;
        let mut fields = put.split(' ').zip(now.split(' '));
        let is_one = fields.by_ref().take(4).all(|(put, now)| put == now);
        is_one && fields.all(|(put, now)| put == now || put == ANY || now == ANY || has_names())
    }

    fn parse(log: &[u8]) -> Option<Records> {
        let mut records = Records::default();
        for (number, record) in log.split(|&byte| byte == 0).enumerate() {
            if number == 0 {
                let fields = record.strip_prefix(MAGIC.as_bytes())?.strip_prefix(b" ")?;
                let ([device, inode], path) = split(fields)?;
                let (major, minor) = device.split_once(':')?;
                records.home = ((major.parse().ok()?, minor.parse().ok()?), inode.parse().ok()?);
                records.destination = path.to_vec();
            } else if record == FOLLOWS {
                records.follows = true;
            } else if let Some(rest) = record.strip_prefix(b"dir ") {
                let (path, metadata) = parse_directory(rest)?;
                records.removed_dirs.insert(path.as_bytes().to_vec(), (path, metadata));
            } else if let Some((identities, rest)) = records.identities(record) {
                let (fields, path): ([&str; 5], _) = split(rest)?;
                identities.insert(path.to_vec(), fields.join(" "));
            }
        }
        Some(records)
    }

    /// Where a record of this kind is kept, and what follows its first word.
    fn identities<'r>(&mut self, record: &'r [u8]) -> Option<(&mut Identities, &'r [u8])> {
        let space = record.iter().position(|&byte| byte == b' ')?;
        let identities = match &record[..space] {
            b"taken" => &mut self.taken,
            b"replaced" => &mut self.replaced,
            b"back" => &mut self.back,
            _ => return None,
        };
        Some((identities, &record[space + 1..]))
    }
}

fn parse_directory(record: &[u8]) -> Option<(RelPath, Metadata)> {
    let ([mode, uid, gid, mtime], path) = split(record)?;
    let (secs, nanos) = mtime.split_once('.')?;
    let mtime = Timestamp { secs: secs.parse().ok()?, nanos: nanos.parse().ok()? };
    let mode = u16::from_str_radix(mode, 8).ok()?;
    Some((RelPath::new(path).ok()?, Metadata::exactly(uid.parse().ok()?, gid.parse().ok()?, mode, mtime)))
}

/// The first words of a record, and the path that is the rest.
fn split<const N: usize>(mut record: &[u8]) -> Option<([&str; N], &[u8])> {
    let mut fields = [""; N];
    for field in &mut fields {
        let space = record.iter().position(|&byte| byte == b' ')?;
        *field = std::str::from_utf8(&record[..space]).ok()?;
        record = &record[space + 1..];
    }
    Some((fields, record))
}

/// A log that records are added to, one at a time: there may be a thousand runs, and each has one.
#[derive(Debug)]
pub(super) struct Log {
    run: Name,
    /// Where the last whole record ends.
    end: u64,
}

impl Log {
    /// Adds a record, in place of one that was cut.
    pub(super) fn add(&mut self, trash: &Dir, record: &Record<'_>, path: &RelPath) -> Result<(), Errno> {
        let record = record.of(path);
        let file = trash.dir(&self.run)?.open_to_patch(LOG)?;
        file.write_all_at(&record, self.end).map_err(|error| super::errno(&error))?;
        self.end += record.len() as u64;
        Ok(())
    }
}

/// Reads the log of a run.
pub(super) fn read(trash: &Dir, name: &str) -> Result<(Records, Log), TrashError> {
    let missing = || TrashError::NoRun(name.to_owned());
    let damaged = || TrashError::Log(name.to_owned());
    let run = Name::new(name.as_bytes()).map_err(|_| missing())?;
    let mut file = trash.dir(&run).map_err(|_| missing())?.open_file(LOG).map_err(|_| damaged())?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| TrashError::Io("read the log".to_owned(), error))?;
    // What follows the last NUL is a record that was cut.
    let last = bytes.iter().rposition(|&byte| byte == 0).ok_or_else(damaged)?;
    let records = Records::parse(&bytes[..last]).ok_or_else(damaged)?;
    Ok((records, Log { run, end: last as u64 + 1 }))
}

/// What tells whether an entry is still the same one, untouched.
fn identity(info: &Info) -> String {
    let (major, minor) = info.device;
    // A directory changes with what is put into it; that it is the same one is enough.
    if info.is_dir() {
        return format!("{major}:{minor} {} {ANY} {ANY} {ANY}", info.inode);
    }
    // Of several names, the coming and going of each is seen at all of them.
    let ctime = if info.links > 1 { ANY.to_owned() } else { time(info.ctime) };
    format!("{major}:{minor} {} {} {} {ctime}", info.inode, info.size_bytes, time(info.mtime))
}

/// Which file it is.
fn file(identity: &str) -> Vec<&str> {
    identity.split(' ').take(2).collect()
}

/// What tells that nobody wrote to it.
fn content(identity: &str) -> Vec<&str> {
    identity.split(' ').skip(2).take(2).collect()
}

fn time(time: Timestamp) -> String {
    format!("{}.{}", time.secs, time.nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_cut_anywhere_is_read_up_to_there_or_refused() {
        let log = b"sync-agent trash 1 8:1 77 /srv/a b\0dir 1755 1 2 -5.7 d\xff\0taken 8:1 4 3 1.0 2.0 d/x\0\
                    replaced 8:1 9 3 1.0 2.0 r \0";
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let trash = Dir::open(dir.path()).unwrap();
        let read_back = |log: &[u8]| {
            std::fs::write(dir.path().join("run/log"), log).unwrap();
            read(&trash, "run")
        };
        let (whole, _) = read_back(log).unwrap();
        assert_eq!((whole.home, &whole.destination[..]), (((8, 1), 77), &b"/srv/a b"[..]));
        assert_eq!(whole.removed_dirs.len(), 1);
        assert_eq!(whole.replaced[&b"r "[..]], "8:1 9 3 1.0 2.0");
        assert_eq!(whole.taken[&b"d/x"[..]], "8:1 4 3 1.0 2.0");
        let info = trash.own_info().unwrap();
        let added = RelPath::new(*b"added").unwrap();
        for length in 0..log.len() {
            let Ok((cut, mut end)) = read_back(&log[..length]) else { continue };
            assert_eq!(cut.home, whole.home, "{length}");
            assert!(cut.replaced.is_empty(), "{length}");
            end.add(&trash, &Record::Replaced(&info), &added).unwrap();
            let (longer, _) = read(&trash, "run").unwrap();
            assert!(longer.is_of_run(&added, &info) && longer.replaced.len() == 1, "{length}");
            assert_eq!(longer.removed_dirs.len(), cut.removed_dirs.len(), "{length}");
        }
        for damaged in [&b"sync-agent trash 2 8:1 77 /\0"[..], b"", b"\0", b"sync-agent trash 1 8 77 /\0"] {
            assert!(read_back(damaged).is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn what_the_run_put_there_is_known_by_all_but_what_says_nothing() {
        let records = |names: &[&str]| {
            let put =
                names.iter().map(|name| format!("replaced 8:1 9 3 1.0 2.0 {name}\0")).collect::<String>();
            Records::parse(format!("sync-agent trash 1 8:1 77 /\0{put}").trim_end_matches('\0').as_bytes())
                .unwrap()
        };
        let (one, two) = (records(&["a"]), records(&["a", "b"]));
        for (now, is_put, is_put_of_two) in [
            ("8:1 9 3 1.0 2.0", true, true),
            ("8:1 9 3 1.0 -", true, true),
            ("8:1 9 3 1.0 2.1", false, true),
            ("8:1 9 3 1.1 2.0", false, false),
            ("8:1 9 4 1.0 -", false, false),
            ("8:1 8 3 1.0 2.0", false, false),
        ] {
            assert_eq!(one.is_put("8:1 9 3 1.0 2.0", now), is_put, "{now}");
            assert_eq!(two.is_put("8:1 9 3 1.0 2.0", now), is_put_of_two, "{now}");
        }
    }
}

//! Patching a file in place (`--inplace`) so that a crash at any moment can be rolled forward.
//!
//! What changes is first written to a journal in staging, verified as a whole (the file's BLAKE3, as
//! always), and synced; then it is renamed from `.patch` to `.begun` and the name is synced; only then is the
//! first byte of the file itself touched. After the file is synced too, the journal goes. A run that finds
//! a `.begun` carries it out before anything else; a `.patch` belongs to a file that was not touched yet, and is
//! dropped. The rolled-forward file keeps the time of that moment, so that the run looks at it again.
//!
//! # Format
//! ```text
//! magic     "sync-agent patch 2\n"
//! header    path length u32, path, device major u32, minor u32, inode u64      (little endian)
//! records   offset u64, length u32, bytes                                      any number
//!           offset u64, u32::MAX, length u64: zeros, as a hole where that can be
//! end       offset u64::MAX, length 8, the file's new length u64
//! hash      XXH3 (64 bits) of everything before it, u64
//! ```
//! The hash is against a file system that lost some of it in a crash, not against anybody: what it holds was verified before.
//!
//! Device and inode tell whether the file is still the one the journal was made for: a file that was
//! replaced since is left alone.

use crate::holes;
use crate::tree::{self, Dir, Info, Tree};
use protocol::path::RelPath;
use rustix::io::Errno;
use std::fs::File;
use std::hash::Hasher as _;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Seek as _, Write};
use std::os::unix::fs::FileExt as _;
use twox_hash::XxHash3_64;

const MAGIC: &[u8] = b"sync-agent patch 2\n";
const END_OFFSET: u64 = u64::MAX;
/// In place of a length: zeros, of which the number follows.
const ZEROS: u32 = u32::MAX;
/// Longest record: what a writer appends at once.
const RECORD_BYTES: usize = 1 << 20;

/// A journal being written.
pub(crate) struct Journal {
    out: BufWriter<File>,
    hasher: XxHash3_64,
}

impl Journal {
    /// Begins the journal of the file at `path`, which is `existing` now.
    pub(crate) fn begin(file: File, path: &RelPath, existing: &Info) -> io::Result<Journal> {
        let mut journal =
            Journal { out: BufWriter::with_capacity(256 << 10, file), hasher: XxHash3_64::default() };
        let path = path.as_bytes();
        journal.put(MAGIC)?;
        journal.put(&u32::try_from(path.len()).unwrap_or(u32::MAX).to_le_bytes())?;
        journal.put(path)?;
        journal.put(&existing.device.0.to_le_bytes())?;
        journal.put(&existing.device.1.to_le_bytes())?;
        journal.put(&existing.inode.to_le_bytes())?;
        Ok(journal)
    }

    /// These bytes are to stand at `offset`.
    pub(crate) fn record(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        for (number, part) in bytes.chunks(RECORD_BYTES).enumerate() {
            self.put(&(offset + (number * RECORD_BYTES) as u64).to_le_bytes())?;
            self.put(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes())?;
            self.put(part)?;
        }
        Ok(())
    }

    /// So many zeros are to stand at `offset`.
    pub(crate) fn zeros(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        self.put(&offset.to_le_bytes())?;
        self.put(&ZEROS.to_le_bytes())?;
        self.put(&bytes.to_le_bytes())
    }

    /// The same bytes as [`Journal::record`], with pages of zeros as such.
    pub(crate) fn record_sparse(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        holes::for_each_run(bytes, offset, |at, run, is_hole| {
            if is_hole { self.zeros(at, run.len() as u64) } else { self.record(at, run) }
        })
    }

    /// The journal is complete: the file is to have this length.
    pub(crate) fn finish(mut self, size_bytes: u64) -> io::Result<()> {
        self.put(&END_OFFSET.to_le_bytes())?;
        self.put(&8u32.to_le_bytes())?;
        self.put(&size_bytes.to_le_bytes())?;
        let hash = self.hasher.finish();
        self.out.write_all(&hash.to_le_bytes())?;
        self.out.flush()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.write(bytes);
        self.out.write_all(bytes)
    }
}

/// Opens the file that the synced journal `name` of this run is for, after which it has `size_bytes`. What the journal
/// leaves as it is must be what was verified: nobody may have written to the file since it was `existing`. Room for growth, or
/// for what is written if that `is_sparse`, is reserved before the first byte changes: what can fail fails here.
pub(crate) fn open_target(
    staging: &Dir,
    name: &[u8],
    tree: &Tree,
    existing: &Info,
    size_bytes: u64,
    is_sparse: bool,
) -> Result<File, Errno> {
    let journal = staging.open_file(name)?;
    let mut reader = Reader::open(&journal)?;
    let target = reader.target(tree)?.ok_or(Errno::STALE)?;
    if !existing.same_content(&tree::info_of(&target)?) {
        return Err(Errno::STALE);
    }
    if is_sparse {
        reader.reserve(&target)?;
    } else {
        holes::reserve(&target, existing.size_bytes, size_bytes)?;
    }
    Ok(target)
}

/// Carries out the journal `name` on the file that [`open_target`] opened.
pub(crate) fn apply(staging: &Dir, name: &[u8], target: &File) -> Result<(), Errno> {
    let journal = staging.open_file(name)?;
    Reader::open(&journal)?.patch(target).map_err(errno)
}

/// Carries out a journal that an earlier run left, if it is complete and its file is still there; whether the
/// journal is of no more use. The caller syncs, then removes it. A file that can't be written to (not by this user,
/// not while it is executed) keeps its journal: it is not as any source had it, so the run will see to it or say why
/// not; the other files are not its concern.
pub(crate) fn redo(staging: &Dir, name: &[u8], tree: &Tree) -> bool {
    try_redo(staging, name, tree).unwrap_or(false)
}

fn try_redo(staging: &Dir, name: &[u8], tree: &Tree) -> Result<bool, Errno> {
    let journal = staging.open_file(name)?;
    if !is_complete(&journal).map_err(errno)? {
        return Ok(true);
    }
    let mut reader = Reader::open(&journal)?;
    if let Some(target) = reader.target(tree)? {
        reader.patch(&target).map_err(errno)?;
    }
    Ok(true)
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn is_complete(journal: &File) -> io::Result<bool> {
    let length = journal.metadata()?.len();
    let Some(mut left) = length.checked_sub(size_of::<u64>() as u64) else { return Ok(false) };
    let mut hasher = XxHash3_64::default();
    let mut reader = BufReader::with_capacity(256 << 10, journal);
    while left > 0 {
        let read = reader.fill_buf()?;
        let length = read.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if length == 0 {
            return Ok(false);
        }
        hasher.write(&read[..length]);
        reader.consume(length);
        left -= length as u64;
    }
    Ok(hasher.finish() == u64::from_le_bytes(number(&mut reader)?))
}

struct Reader<'a> {
    input: BufReader<&'a File>,
    path: RelPath,
    device: (u32, u32),
    inode: u64,
}

impl<'a> Reader<'a> {
    fn open(journal: &'a File) -> Result<Reader<'a>, Errno> {
        let mut input = BufReader::with_capacity(256 << 10, journal);
        let header = read_header(&mut input).map_err(errno)?;
        let Header { path, device, inode } = header;
        Ok(Reader { input, path, device, inode })
    }

    /// The file it was made for; none where another one stands there now.
    fn target(&self, tree: &Tree) -> Result<Option<File>, Errno> {
        let Some((parent, name)) = self.path.split_last() else { return Ok(None) };
        let file = match tree.dir(&parent).and_then(|dir| dir.open_to_patch(name.as_bytes())) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::NODEV) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let info = tree::info_of(&file)?;
        Ok((info.is_file() && info.device == self.device && info.inode == self.inode).then_some(file))
    }

    fn patch(&mut self, target: &File) -> io::Result<()> {
        let mut buffer = vec![0; RECORD_BYTES];
        loop {
            match self.next()? {
                Record::Bytes(offset, length) => {
                    self.input.read_exact(&mut buffer[..length])?;
                    target.write_all_at(&buffer[..length], offset)?;
                }
                Record::Zeros(offset, bytes) => holes::punch(target, offset, bytes)?,
                Record::End(size_bytes) => return target.set_len(size_bytes),
            }
        }
    }

    /// Reserves room for every byte that is to be written.
    fn reserve(&mut self, target: &File) -> Result<(), Errno> {
        loop {
            match self.next().map_err(errno)? {
                Record::Bytes(offset, length) => {
                    holes::reserve(target, offset, offset + length as u64)?;
                    self.input.seek_relative(length as i64).map_err(errno)?;
                }
                Record::Zeros(..) => {}
                Record::End(_) => return Ok(()),
            }
        }
    }

    /// The next record, up to its bytes.
    fn next(&mut self) -> io::Result<Record> {
        let offset = u64::from_le_bytes(number(&mut self.input)?);
        match u32::from_le_bytes(number(&mut self.input)?) {
            ZEROS => Ok(Record::Zeros(offset, u64::from_le_bytes(number(&mut self.input)?))),
            length if length as usize > RECORD_BYTES => Err(io::ErrorKind::InvalidData.into()),
            _ if offset == END_OFFSET => Ok(Record::End(u64::from_le_bytes(number(&mut self.input)?))),
            length => Ok(Record::Bytes(offset, length as usize)),
        }
    }
}

/// One of a journal's records.
enum Record {
    /// Where how many bytes are to stand; they follow.
    Bytes(u64, usize),
    /// Where how many zeros are to stand.
    Zeros(u64, u64),
    /// There are no more; the file's length.
    End(u64),
}

struct Header {
    path: RelPath,
    device: (u32, u32),
    inode: u64,
}

fn read_header(input: &mut BufReader<&File>) -> io::Result<Header> {
    input.rewind()?;
    let mut magic = [0; MAGIC.len()];
    input.read_exact(&mut magic)?;
    let length = u32::from_le_bytes(number(input)?) as usize;
    if magic != *MAGIC || length > protocol::limits::PATH_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut path = vec![0; length];
    input.read_exact(&mut path)?;
    let path = RelPath::new(path).map_err(|_| io::ErrorKind::InvalidData)?;
    let device = (u32::from_le_bytes(number(input)?), u32::from_le_bytes(number(input)?));
    Ok(Header { path, device, inode: u64::from_le_bytes(number(input)?) })
}

fn number<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Follow;
    use protocol::path::Name;
    use std::fs;

    fn made(dir: &std::path::Path, finished: bool) -> (Tree, Dir, Vec<u8>) {
        fs::write(dir.join("file"), b"the old content of the file").unwrap();
        let tree = Tree::open(dir, Follow::Never).unwrap();
        let staging = Dir::open(dir).unwrap();
        let path = RelPath::root().join(&Name::new(*b"file").unwrap());
        let existing = staging.info(b"file").unwrap();
        let mut journal = Journal::begin(staging.create_file(b"j.patch").unwrap(), &path, &existing).unwrap();
        journal.record(4, b"new").unwrap();
        if finished {
            journal.finish(15).unwrap();
        } else {
            drop(journal);
        }
        (tree, staging, b"the new content".to_vec())
    }

    #[test]
    fn a_complete_journal_is_rolled_forward_any_number_of_times() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, staging, expected) = made(dir.path(), true);
        for _ in 0..3 {
            assert!(redo(&staging, b"j.patch", &tree));
            assert_eq!(fs::read(dir.path().join("file")).unwrap(), expected);
        }
    }

    #[test]
    fn a_journal_cut_anywhere_leaves_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, staging, _) = made(dir.path(), true);
        let whole = fs::read(dir.path().join("j.patch")).unwrap();
        for length in 0..whole.len() {
            fs::write(dir.path().join("j.patch"), &whole[..length]).unwrap();
            let _ = redo(&staging, b"j.patch", &tree);
            assert_eq!(
                fs::read(dir.path().join("file")).unwrap(),
                b"the old content of the file",
                "{length}"
            );
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(dir.path().join("j.patch"), &damaged).unwrap();
            let _ = redo(&staging, b"j.patch", &tree);
            assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"the old content of the file", "{at}");
        }
    }

    #[test]
    fn zeros_are_rolled_forward_like_bytes_and_only_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let old = vec![1; 40_000];
        fs::write(dir.path().join("file"), &old).unwrap();
        let tree = Tree::open(dir.path(), Follow::Never).unwrap();
        let staging = Dir::open(dir.path()).unwrap();
        let path = RelPath::root().join(&Name::new(*b"file").unwrap());
        let existing = staging.info(b"file").unwrap();
        let mut journal = Journal::begin(staging.create_file(b"j.patch").unwrap(), &path, &existing).unwrap();
        let mut mixed = vec![0; 20_000];
        mixed[9000] = 7;
        journal.record_sparse(5000, &mixed).unwrap();
        journal.zeros(30_000, 1 << 40).unwrap();
        journal.record(50_000, b"end").unwrap();
        journal.finish(50_003).unwrap();
        let whole = fs::read(dir.path().join("j.patch")).unwrap();
        for length in (0..whole.len()).rev() {
            fs::write(dir.path().join("j.patch"), &whole[..length]).unwrap();
            let _ = redo(&staging, b"j.patch", &tree);
            assert!(fs::read(dir.path().join("file")).unwrap() == old, "{length}");
        }
        fs::write(dir.path().join("j.patch"), &whole).unwrap();
        let mut expected = old.clone();
        expected[5000..25_000].copy_from_slice(&mixed);
        expected[30_000..].fill(0);
        expected.resize(50_000, 0);
        expected.extend_from_slice(b"end");
        assert!(open_target(&staging, b"j.patch", &tree, &existing, 50_003, true).is_ok());
        for _ in 0..3 {
            assert!(redo(&staging, b"j.patch", &tree));
            assert!(fs::read(dir.path().join("file")).unwrap() == expected);
        }
    }

    #[test]
    fn a_file_that_was_replaced_since_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, staging, _) = made(dir.path(), true);
        fs::write(dir.path().join("other"), b"somebody else's").unwrap();
        fs::rename(dir.path().join("other"), dir.path().join("file")).unwrap();
        assert!(redo(&staging, b"j.patch", &tree));
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"somebody else's");
        fs::remove_file(dir.path().join("file")).unwrap();
        fs::create_dir(dir.path().join("file")).unwrap();
        assert!(redo(&staging, b"j.patch", &tree), "a directory now: of no more use");
    }
}

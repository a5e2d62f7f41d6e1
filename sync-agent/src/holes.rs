//! Holes in files: where they are, copies that keep them, zeros that become them (`--sparse`).
//!
//! A file system that knows no holes says that all is data, and zeros are written there. Where holes are is only ever a
//! hint of what need not be read or written: what a file *is* follows from its bytes, and a hole that is filled while
//! somebody reads shows in the file's times, as any other change does.

use crate::sink::{self, CopyError};
use protocol::ContentHash;
use protocol::options::Room;
use protocol::sparse::{SparseHasher, is_zero};
use rustix::fs::{self, FallocateFlags, SeekFrom};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// What file systems allocate at least; less than so many zeros in a row make no hole.
const PAGE_BYTES: usize = 4 << 10;
/// From here on leaving holes out is worth another hash and another comparison.
const WORTH_BYTES: u64 = 1 << 20;
/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;

/// Where the first byte at or behind `at` is that is in no hole, `end` if there is none before that.
pub(crate) fn next_data(file: &File, at: u64, end: u64) -> u64 {
    match fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => data.clamp(at, end),
        Err(Errno::NXIO) => end,
        Err(_) => at,
    }
}

/// Where the first hole at or behind `at` begins, `end` if there is none before that.
pub(crate) fn next_hole(file: &File, at: u64, end: u64) -> u64 {
    fs::seek(file, SeekFrom::Hole(at)).map_or(end, |hole| hole.clamp(at, end))
}

/// Whether a file has so many holes that it is better read without them. Looks no further than it has to: at one that has
/// none, once.
pub(crate) fn are_worth_it(file: &File, size_bytes: u64) -> bool {
    if size_bytes < WORTH_BYTES {
        return false;
    }
    let (mut at, mut holes_bytes) = (0, 0);
    while at < size_bytes && holes_bytes < WORTH_BYTES {
        let hole = next_hole(file, at, size_bytes);
        at = next_data(file, hole, size_bytes);
        if at == hole && at < size_bytes {
            // Filled between the two looks.
            at += 1;
        } else {
            holes_bytes += at - hole;
        }
    }
    holes_bytes >= WORTH_BYTES
}

/// Calls `each` with the start and end of everything in `at..to` that is in no hole.
pub(crate) fn for_each_data<E>(
    file: &File,
    mut at: u64,
    to: u64,
    mut each: impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<(), E> {
    while at < to {
        let data = next_data(file, at, to);
        if data == to {
            break;
        }
        // A byte at least, if it is a hole again by now.
        at = next_hole(file, data, to).max(data + 1);
        each(data, at)?;
    }
    Ok(())
}

/// The sparse hash of a file of `size_bytes`.
pub(crate) fn hash(file: &File, size_bytes: u64) -> io::Result<ContentHash> {
    let mut hasher = SparseHasher::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut hashed = 0;
    for_each_data(file, 0, size_bytes, |mut at, end| {
        hasher.zeros(at - hashed);
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            file.read_exact_at(&mut buffer[..length], at)?;
            hasher.update(&buffer[..length]);
            at += length as u64;
        }
        hashed = end;
        Ok::<(), io::Error>(())
    })?;
    hasher.zeros(size_bytes - hashed);
    Ok(hasher.finish())
}

/// Copies the bytes `at..to` to the same place of a file that is new from there on, with their holes.
pub(crate) fn copy_range(from: &File, into: &File, at: u64, to: u64, room: Room) -> Result<(), CopyError> {
    let mut copied = at;
    for_each_data(from, at, to, |data, end| {
        leave_out(into, copied, data - copied, room)?;
        copied = end;
        sink::copy_range(from, into, data, end)
    })?;
    leave_out(into, copied, to - copied, room)?;
    grow(into, to)?;
    Ok(())
}

/// Writes at `at` of a file that is new from there on, but for the pages of zeros.
pub(crate) fn write(file: &File, bytes: &[u8], at: u64, room: Room) -> io::Result<()> {
    for_each_run(bytes, at, |from, run, is_hole| {
        if is_hole { leave_out(file, from, run.len() as u64, room) } else { file.write_all_at(run, from) }
    })
}

/// Zeros at `at` of a file that is new from there on: nothing to do, unless their room was reserved.
pub(crate) fn leave_out(file: &File, at: u64, bytes: u64, room: Room) -> io::Result<()> {
    if !room.reserved || bytes == 0 {
        return Ok(());
    }
    // Beyond a file's end nothing is freed.
    grow(file, at + bytes)?;
    punch(file, at, bytes)
}

/// Makes a file as long as that, if it is shorter.
fn grow(file: &File, size_bytes: u64) -> io::Result<()> {
    if file.metadata()?.len() < size_bytes { file.set_len(size_bytes) } else { Ok(()) }
}

/// Calls `each` with runs of pages, where they stand, and whether they are all zeros.
pub(crate) fn for_each_run<E>(
    mut bytes: &[u8],
    mut at: u64,
    mut each: impl FnMut(u64, &[u8], bool) -> Result<(), E>,
) -> Result<(), E> {
    while !bytes.is_empty() {
        let to_page = PAGE_BYTES - (at % PAGE_BYTES as u64) as usize;
        let page =
            |from: usize| &bytes[from..bytes.len().min(if from == 0 { to_page } else { from + PAGE_BYTES })];
        let is_hole = is_zero(page(0));
        let mut end = page(0).len();
        while end < bytes.len() && is_zero(page(end)) == is_hole {
            end += page(end).len();
        }
        let (run, rest) = bytes.split_at(end);
        each(at, run, is_hole)?;
        at += end as u64;
        bytes = rest;
    }
    Ok(())
}

/// Makes zeros of what stands there, and a hole where the file system can; the file's length stays.
pub(crate) fn punch(file: &File, at: u64, bytes: u64) -> io::Result<()> {
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fs::fallocate(file, how, at, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => write_zeros(file, at, bytes),
        result => Ok(result?),
    }
}

/// Writes zeros, no further than the file goes.
fn write_zeros(file: &File, mut at: u64, bytes: u64) -> io::Result<()> {
    static ZEROS: [u8; READ_BYTES] = [0; READ_BYTES];
    let to = at.saturating_add(bytes).min(file.metadata()?.len());
    while at < to {
        let length = usize::try_from(to - at).unwrap_or(usize::MAX).min(ZEROS.len());
        file.write_all_at(&ZEROS[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

/// Reserves the room `at..to`, where the file system can; the file's length stays.
pub(crate) fn reserve(file: &File, at: u64, to: u64) -> Result<(), Errno> {
    if at >= to {
        return Ok(());
    }
    match fs::fallocate(file, FallocateFlags::KEEP_SIZE, at, to - at) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A layout: pages of data, written zeros, and holes.
    fn layout() -> impl Strategy<Value = Vec<(u8, u64)>> {
        let length = prop_oneof![Just(4096u64), 1u64..20_000, Just(300_000), Just(2 << 20)];
        proptest::collection::vec((0u8..4, length), 0..10)
    }

    /// Kind 0 is a hole, kind 1 written zeros, the others data.
    fn made(layout: &[(u8, u64)]) -> (File, Vec<u8>) {
        let file = tempfile::tempfile().unwrap();
        let mut content = Vec::new();
        for &(kind, length) in layout {
            let bytes = vec![kind.saturating_sub(1); length as usize];
            if kind > 0 {
                file.write_all_at(&bytes, content.len() as u64).unwrap();
            }
            content.extend(bytes);
        }
        file.set_len(content.len() as u64).unwrap();
        (file, content)
    }

    fn content_of(file: &File) -> Vec<u8> {
        let mut content = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut content, 0).unwrap();
        content
    }

    fn hashed(content: &[u8]) -> ContentHash {
        let mut hasher = SparseHasher::default();
        hasher.update(content);
        hasher.finish()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn a_file_with_holes_is_what_its_bytes_are(layout in layout(), cut in 0u64..1_000_000) {
            let (file, content) = made(&layout);
            prop_assert_eq!(hash(&file, content.len() as u64).unwrap(), hashed(&content));
            let copy = tempfile::tempfile().unwrap();
            let cut = cut.min(content.len() as u64);
            for (at, to) in [(0, cut), (cut, content.len() as u64)] {
                copy_range(&file, &copy, at, to, Room::default()).unwrap_or_else(|_| panic!("it is copied"));
            }
            prop_assert_eq!(&content_of(&copy), &content);
            for reserved in [false, true] {
                let room = Room { sparse: true, reserved };
                let written = tempfile::tempfile().unwrap();
                if reserved {
                    reserve(&written, 0, content.len() as u64).unwrap();
                }
                for (number, piece) in content.chunks(100_000).enumerate() {
                    write(&written, piece, number as u64 * 100_000, room).unwrap();
                }
                written.set_len(content.len() as u64).unwrap();
                prop_assert_eq!(&content_of(&written), &content);
            }
        }

        #[test]
        fn punched_pages_are_zeros_and_the_rest_stays(layout in layout(), at in 0u64..100_000, bytes in 1u64..100_000) {
            let (file, mut content) = made(&layout);
            punch(&file, at, bytes).unwrap();
            let to = ((at + bytes) as usize).min(content.len());
            content[(at as usize).min(to)..to].fill(0);
            prop_assert_eq!(content_of(&file), content);
        }
    }

    #[test]
    fn a_few_pages_of_holes_are_not_worth_it() {
        let (dense, content) = made(&[(2, 2 << 20)]);
        assert!(!are_worth_it(&dense, content.len() as u64));
        let (few, content) = made(&[(2, 1 << 20), (0, 8192), (2, 1 << 20)]);
        assert!(!are_worth_it(&few, content.len() as u64));
        let (end, _) = made(&[(2, 4096), (0, 2 << 20)]);
        assert!(are_worth_it(&end, (2 << 20) + 4096));
        let (parts, content) = made(&[(0, 600_000), (2, 4096), (0, 600_000), (2, 1)]);
        assert!(are_worth_it(&parts, content.len() as u64));
    }
}

//! The values of the blocks of large files ([`protocol::subtree`]) as the last run left them at the destination, so
//! that the next one neither reads the old file to compare it nor reads again what stays of it.
//!
//! # Why a match may be trusted
//! As with the hashes beside it: device, inode, size, mtime and ctime are what they were when the run that wrote the
//! file looked at it, after the clock tick in which it was written was over ([`Index::confirm_values`] comes later
//! than [`Index::keep_values`], and only for a file that is still the same). That run wrote all pages back before,
//! so that a write through a mapping made later shows as well; not on tmpfs, which writes nothing back. The values must
//! give the file's hash, or they are none. A file that a comparison finds to differ loses them.
//!
//! # The table
//! `block-values-1`, in parts ([`parts`]): of 32 bytes for each value; the head has generation u32; attributes 32;
//! BLAKE3 32; block size u32; check 8.

use super::parts::{self, GENERATION_BYTES, HEAD};
use super::{Index, Key, attributes, key_of, number};
use crate::tree::Info;
use protocol::ContentHash;
use protocol::signature::BlockSize;
use protocol::subtree::{self, Value};
use redb::Durability;

pub(super) const TABLE: parts::Definition = parts::Definition::new("block-values-1");

const HASH_AT: usize = 36;
const BLOCK_SIZE_AT: usize = 68;
const CHECK_AT: usize = 72;
const HEAD_BYTES: usize = 80;

/// What is known of a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileValues {
    /// BLAKE3 of the whole.
    pub(crate) hash: ContentHash,
    /// Length of the blocks.
    pub(crate) block_size: BlockSize,
    /// One value for each block; at least two.
    pub(crate) values: Vec<Value>,
}

impl Index {
    /// The values of the file with these attributes, if they were kept and confirmed, and it did not change since.
    pub(crate) fn values(&self, info: &Info) -> Option<FileValues> {
        let store = self.store()?;
        let (head, bytes) = store.attempt(|database| parts::find(database, TABLE, &key_of(info)))??;
        let values = bytes.as_chunks().0.to_vec();
        let (hash, block_size) = decode(&key_of(info), &head, info)?;
        let is_whole =
            values.len() as u64 == block_size.blocks(info.size_bytes) && subtree::root(&values) == Some(hash);
        is_whole.then_some(FileValues { hash, block_size, values })
    }

    /// Keeps the values of the file with these attributes; they are not found before they are confirmed. False where
    /// nothing is kept.
    pub(crate) fn keep_values(&self, info: &Info, known: &FileValues) -> bool {
        let Some(store) = self.store() else { return false };
        let most = store.limits.stored_parts;
        let bytes = known.values.as_flattened();
        let kept = parts::Kept { key: key_of(info), generation: store.generation, head: None, bytes };
        store.attempt(|database| parts::write(database, TABLE, &kept, most)).is_some()
    }

    /// Some time later the file still has these attributes: its values may be found from now on.
    pub(crate) fn confirm_values(&self, info: &Info, hash: &ContentHash, block_size: BlockSize) {
        let Some(store) = self.store() else { return };
        let key = key_of(info);
        let head = encode(&key, info, hash, block_size, store.generation);
        store.attempt(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::None)?;
            transaction.open_table(TABLE)?.insert(parts::key(&key, HEAD), head.as_slice())?;
            Ok(transaction.commit()?)
        });
    }
}

impl Index {
    /// This file is gone, or its content was found to be another one than is kept of it.
    pub(crate) fn forget_values(&self, info: &Info) {
        let Some(store) = self.store() else { return };
        store.attempt(|database| parts::forget(database, TABLE, &key_of(info)));
    }
}

fn encode(key: &Key, info: &Info, hash: &ContentHash, block_size: BlockSize, generation: u32) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(&generation.to_le_bytes());
    head.extend_from_slice(&attributes(info));
    head.extend_from_slice(hash);
    head.extend_from_slice(&block_size.bytes().to_le_bytes());
    let check = check_of(key, &head);
    head.extend_from_slice(&check);
    head
}

/// Hash and block size, where the head is whole and of a file with these attributes.
fn decode(key: &Key, head: &[u8], info: &Info) -> Option<(ContentHash, BlockSize)> {
    let is_ours = head.len() == HEAD_BYTES
        && head[CHECK_AT..] == check_of(key, &head[..CHECK_AT])
        && head[GENERATION_BYTES..HASH_AT] == attributes(info);
    if !is_ours {
        return None;
    }
    let hash = *head[HASH_AT..].first_chunk()?;
    let block_bytes = number(&head[BLOCK_SIZE_AT..CHECK_AT]);
    Some((hash, subtree::block_size(block_bytes, info.size_bytes).ok()?))
}

fn check_of(key: &Key, head: &[u8]) -> [u8; HEAD_BYTES - CHECK_AT] {
    let whole = blake3::Hasher::new().update(key).update(head).finalize();
    whole.as_bytes().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::{LIMITS, Limits};
    use super::*;
    use protocol::entry::Timestamp;
    use protocol::subtree::TreeHasher;
    use std::path::Path;

    const FILE_BYTES: u64 = 40 << 20;

    fn info(inode: u64) -> Info {
        let time = Timestamp { secs: 1_800_000_000, nanos: 7 };
        Info {
            raw_mode: 0o100_644,
            uid: 0,
            gid: 0,
            size_bytes: FILE_BYTES,
            mtime: time,
            atime: Timestamp::default(),
            ctime: time,
            device: (8, 1),
            inode,
            node: (0, 0),
            links: 1,
        }
    }

    fn known(seed: u8) -> FileValues {
        let block_size = subtree::block_size_for(FILE_BYTES);
        let mut hasher = TreeHasher::new(block_size);
        hasher.update(&vec![seed; FILE_BYTES as usize]);
        let (hash, values) = hasher.finish();
        FileValues { hash, block_size, values }
    }

    fn keep(index: &Index, inode: u64, known: &FileValues) {
        index.keep_values(&info(inode), known);
        index.confirm_values(&info(inode), &known.hash, known.block_size);
    }

    fn open(dir: &Path, stored_parts: u64) -> Index {
        Index { limits: Limits { stored_parts, ..LIMITS }, ..Index::at(dir) }
    }

    #[test]
    fn values_are_found_once_confirmed_by_this_run_and_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (known(1), known(2));
        let index = Index::at(dir.path());
        index.keep_values(&info(1), &first);
        assert_eq!(index.values(&info(1)), None);
        index.confirm_values(&info(1), &first.hash, first.block_size);
        assert_eq!(index.values(&info(1)), Some(first.clone()));
        drop(index);
        let index = Index::at(dir.path());
        assert_eq!(index.values(&info(1)), Some(first));
        keep(&index, 1, &second);
        assert_eq!(index.values(&info(1)), Some(second));
        assert_eq!(index.values(&info(2)), None);
    }

    #[test]
    fn a_file_that_changed_has_no_values() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::at(dir.path());
        keep(&index, 1, &known(1));
        let same = info(1);
        let later = Timestamp { secs: 1_800_000_000, nanos: 8 };
        for changed in [
            Info { ctime: later, ..same },
            Info { mtime: later, ..same },
            Info { size_bytes: FILE_BYTES - 1, ..same },
            Info { device: (8, 2), ..same },
        ] {
            assert_eq!(index.values(&changed), None, "{changed:?}");
        }
        assert!(index.values(&same).is_some());
    }

    #[test]
    fn values_that_do_not_give_the_hash_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::at(dir.path());
        let sound = known(1);
        let mut damaged = sound.clone();
        damaged.values[1000][0] ^= 1;
        keep(&index, 1, &damaged);
        assert_eq!(index.values(&info(1)), None);
        keep(&index, 1, &FileValues { values: sound.values[1..].to_vec(), ..sound.clone() });
        assert_eq!(index.values(&info(1)), None);
        keep(&index, 1, &sound);
        assert_eq!(index.values(&info(1)), Some(sound));
    }

    #[test]
    fn the_oldest_runs_values_go_when_there_are_too_many() {
        let dir = tempfile::tempdir().unwrap();
        // Of each file a head and eleven parts: two files have room, and three leave no more than 18 parts.
        let known = known(1);
        for run in 0..4 {
            let index = open(dir.path(), 24);
            keep(&index, run, &known);
        }
        let index = open(dir.path(), 24);
        let found: Vec<bool> = (0..4).map(|inode| index.values(&info(inode)).is_some()).collect();
        assert_eq!(found, [false, false, true, true]);
    }
}

//! What the pages of large files hashed to when this end, as the source, read and sent them, so that it finds again what
//! a database has moved ([`protocol::pages`]).
//!
//! A record speaks of a content, not of what the file is now: it is of use where the destination still has that content,
//! and says so. One that is wrong makes a file that does not have its hash, which is then sent whole, and replaces it.
//!
//! # The table
//! `page-hashes-1`, in parts ([`parts`]): 8 bytes for each page, little endian; the head has generation u32; the first 8
//! bytes of the content's BLAKE3.

use super::parts::{self, GENERATION_BYTES};
use super::{Index, key_of};
use crate::tree::Info;
use protocol::ContentHash;
use protocol::pages::{self, BasisHead, PageHash};

pub(super) const TABLE: parts::Definition = parts::Definition::new("page-hashes-1");

/// Pages take a quarter of the room that values have: without them more is sent, but nothing is read that need not be.
const SHARE: u64 = 4;

impl Index {
    /// What the pages of this file hashed to when it had the content that `head` is of; none where that is not remembered.
    pub(crate) fn pages(&self, info: &Info, head: BasisHead) -> Vec<PageHash> {
        let find = || {
            let store = self.store()?;
            let (stored, bytes) = store.attempt(|database| parts::find(database, TABLE, &key_of(info)))??;
            let is_it = stored.get(GENERATION_BYTES..) == Some(&head);
            is_it.then(|| bytes.as_chunks().0.iter().map(|&bytes| PageHash::from_le_bytes(bytes)).collect())
        };
        find().unwrap_or_default()
    }

    /// Remembers what the pages of this file hash to, of which the whole has this hash.
    pub(crate) fn keep_pages(&self, info: &Info, hash: &ContentHash, pages: &[PageHash]) {
        let Some(store) = self.store() else { return };
        let mut head = store.generation.to_le_bytes().to_vec();
        head.extend_from_slice(&pages::head(hash));
        let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
        let (key, generation) = (key_of(info), store.generation);
        let kept = parts::Kept { key, generation, head: Some(&head), bytes: &bytes };
        store.attempt(|database| parts::write(database, TABLE, &kept, store.limits.stored_parts / SHARE));
    }
}

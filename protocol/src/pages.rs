//! Pages of a large file that stand elsewhere in its basis: a database gives a changed page another place.
//!
//! Only a source that has read the basis itself, as its own file in a run before, can look for them: it remembers what
//! each page hashed to, and the destination says of which content its basis is ([`BasisHead`]). So nothing travels for
//! it, and no page needs a rolling search: they stand at multiples of [`PAGE_BYTES`] in both files.
//!
//! The hashes are not cryptographic (XXH3, 64 bits): they only find. The hash of the whole file decides.

use crate::ContentHash;
use crate::matcher::Ops;
use std::fmt;
use twox_hash::XxHash3_64;

/// Length of a page, in bytes: what databases write in.
pub const PAGE_BYTES: u32 = 4 << 10;
/// Fewest and most pages of a file that are remembered: those of 8 MiB, for the many smaller files are rarely rewritten, and
/// of 2 GiB, for the sake of memory.
const FEWEST_PAGES: u64 = 1 << 11;
const MOST_PAGES: u64 = 1 << 19;

/// What a page hashes to, wherever it stands.
pub type PageHash = u64;
/// The first bytes of a basis's BLAKE3, for a source to know it by.
pub type BasisHead = [u8; 8];

const PAGE: usize = PAGE_BYTES as usize;

/// What a content with this hash is known by.
#[must_use]
pub fn head(hash: &ContentHash) -> BasisHead {
    hash.first_chunk().copied().unwrap_or_default()
}

/// Whether the pages of a file of so many bytes are worth remembering, and few enough.
#[must_use]
pub fn are_remembered(file_bytes: u64) -> bool {
    (FEWEST_PAGES..=MOST_PAGES).contains(&(file_bytes / u64::from(PAGE_BYTES)))
}

fn hash(page: &[u8]) -> PageHash {
    XxHash3_64::oneshot(page)
}

/// Hashes the pages of a file that comes in parts of any length; a short one at its end is none.
#[derive(Debug, Default)]
pub struct PageHasher {
    hashes: Vec<PageHash>,
    /// The beginning of a page that is not complete.
    begun: Vec<u8>,
}

impl PageHasher {
    /// The next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        if !self.begun.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(PAGE - self.begun.len()));
            self.begun.extend_from_slice(now);
            bytes = rest;
            if self.begun.len() < PAGE {
                return;
            }
            self.hashes.push(hash(&self.begun));
            self.begun.clear();
        }
        let (pages, rest) = bytes.as_chunks::<PAGE>();
        self.hashes.extend(pages.iter().map(|page| hash(page)));
        self.begun.extend_from_slice(rest);
    }

    /// What they hash to, in order.
    #[must_use]
    pub fn finish(self) -> Vec<PageHash> {
        self.hashes
    }
}

/// The source's side: finds pages of the basis, and hashes those of the file for the next run.
pub struct PageSearch {
    basis: Vec<PageHash>,
    /// The basis's pages, ascending by hash.
    order: Vec<u32>,
    own: Vec<PageHash>,
}

impl fmt::Debug for PageSearch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageSearch").field("basis", &self.basis.len()).field("own", &self.own.len()).finish()
    }
}

impl PageSearch {
    /// In a basis of so many bytes whose pages hash to these; none where nothing is remembered of it.
    #[must_use]
    pub fn new(mut basis: Vec<PageHash>, basis_bytes: u64) -> PageSearch {
        // What is remembered may be wrong; what it names must exist all the same.
        let pages = (basis_bytes / u64::from(PAGE_BYTES)).min(MOST_PAGES);
        basis.truncate(usize::try_from(pages).unwrap_or(usize::MAX));
        let mut order: Vec<u32> = (0..).take(basis.len()).collect();
        order.sort_unstable_by_key(|&page| basis[page as usize]);
        PageSearch { basis, order, own: Vec::new() }
    }

    /// The next block is that of the basis at the same place.
    pub(crate) fn stays(&mut self, block: &[u8]) {
        for page in block.as_chunks::<PAGE>().0 {
            let known = self.basis.get(self.own.len()).copied();
            self.own.push(known.unwrap_or_else(|| hash(page)));
        }
    }

    /// The next block is not that of the basis at the same place: appends where its pages are. How many of its bytes were found.
    pub(crate) fn search(&mut self, block: &[u8], out: &mut Ops<'_>) -> usize {
        let (pages, rest) = block.as_chunks::<PAGE>();
        let mut found_bytes = 0;
        for page in pages {
            let hash = hash(page);
            let end = out.done + PAGE;
            match self.find(hash, out.next_page()) {
                Some(at) => {
                    out.moved(at, end);
                    found_bytes += PAGE;
                }
                None => out.literal_to(end),
            }
            self.own.push(hash);
        }
        out.literal_to(out.done + rest.len());
        found_bytes
    }

    /// A page of the basis with this hash: the one that follows what was found last, the one at the same place, or any.
    fn find(&self, hash: PageHash, next: Option<u64>) -> Option<u64> {
        let has = |page: &usize| self.basis.get(*page) == Some(&hash);
        let likely = [next.and_then(|page| usize::try_from(page).ok()), Some(self.own.len())];
        let any = || {
            let first = self.order.partition_point(|&page| self.basis[page as usize] < hash);
            self.order.get(first).map(|&page| page as usize).filter(has)
        };
        likely.into_iter().flatten().find(has).or_else(any).map(|page| page as u64)
    }

    /// What the file's own pages hash to, in order.
    #[must_use]
    pub fn finish(self) -> Vec<PageHash> {
        self.own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::Op;
    use proptest::prelude::*;

    /// Pages of these contents, and some bytes more.
    fn file(pages: &[u8], more: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = pages.iter().flat_map(|&page| [page; PAGE]).collect();
        bytes.resize(bytes.len() + more, 77);
        bytes
    }

    fn hashes(bytes: &[u8]) -> Vec<PageHash> {
        let mut hasher = PageHasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    fn search(basis: &[u8], target: &[u8]) -> (Vec<Op>, Vec<PageHash>) {
        let mut pages = PageSearch::new(hashes(basis), basis.len() as u64);
        let mut ops = Vec::new();
        pages.search(target, &mut Ops::new(&mut ops));
        (ops, pages.finish())
    }

    #[test]
    fn pages_are_found_where_they_stand_in_the_basis_and_in_a_row_where_they_can() {
        let basis = file(&[1, 2, 3, 4, 2, 9], 100);
        let (ops, own) = search(&basis, &file(&[4, 2, 9, 5, 2, 1, 2, 3], 100));
        let pages = |page, count| Op::Pages { page, count };
        let new = 3 * PAGE..4 * PAGE;
        let tail = 8 * PAGE..8 * PAGE + 100;
        // The second 2 follows nothing, and stands where the basis has one.
        let expected = vec![pages(3, 3), Op::Literal(new), pages(4, 1), pages(0, 3), Op::Literal(tail)];
        assert_eq!(ops, expected);
        assert_eq!(own, hashes(&file(&[4, 2, 9, 5, 2, 1, 2, 3], 0)));
    }

    #[test]
    fn no_page_is_named_that_the_basis_has_not() {
        let remembered = hashes(&file(&[1, 2, 3], 0));
        let mut pages = PageSearch::new(remembered, 3 * PAGE as u64 - 1);
        let mut ops = Vec::new();
        let found = pages.search(&file(&[3, 2], 0), &mut Ops::new(&mut ops));
        assert_eq!((found, ops), (PAGE, vec![Op::Literal(0..PAGE), Op::Pages { page: 1, count: 1 }]));
    }

    #[test]
    fn a_basis_of_which_nothing_is_remembered_has_no_pages() {
        let target = file(&[1, 2], 5);
        let (ops, own) = search(&[], &target);
        assert_eq!(ops, [Op::Literal(0..target.len())]);
        assert_eq!(own, hashes(&target));
    }

    proptest! {
        #[test]
        fn pages_hash_to_the_same_however_the_file_comes(
            bytes in proptest::collection::vec(0u8..3, 0..5 * PAGE),
            parts in proptest::collection::vec(1usize..2 * PAGE, 0..8),
        ) {
            let mut hasher = PageHasher::default();
            let mut rest = bytes.as_slice();
            for part in parts {
                let (now, later) = rest.split_at(part.min(rest.len()));
                hasher.update(now);
                rest = later;
            }
            hasher.update(rest);
            prop_assert_eq!(hasher.finish(), hashes(&bytes));
        }

        #[test]
        fn what_was_found_gives_the_file(
            basis in proptest::collection::vec(0u8..6, 0..12),
            target in proptest::collection::vec(0u8..8, 0..12),
            more in 0..PAGE,
        ) {
            let (basis, target) = (file(&basis, 3), file(&target, more));
            let mut made = Vec::new();
            for op in search(&basis, &target).0 {
                match op {
                    Op::Literal(range) => made.extend_from_slice(&target[range]),
                    Op::Pages { page, count } => {
                        let from = page as usize * PAGE;
                        made.extend_from_slice(&basis[from..from + count as usize * PAGE]);
                    }
                    Op::Match { .. } => panic!("no block was compared"),
                }
            }
            prop_assert_eq!(made, target);
        }
    }
}

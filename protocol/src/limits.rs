//! Every bound that protects one end from the other, in one place.
//!
//! Both ends know these numbers, so a peer that passes one is in error: nothing is negotiated, and
//! nothing is allocated before the number it depends on was compared with one of these.

/// Longest body of a frame, in bytes, before and after decompression.
pub const FRAME_BYTES: usize = 1 << 20;
/// Longest path below a root, in bytes: 1000 levels of 255-byte names and some.
pub const PATH_BYTES: usize = 300_000;
/// Longest name of one entry, in bytes (every Linux file system's `NAME_MAX`).
pub const NAME_BYTES: usize = 255;
/// Longest target of a symbolic link, in bytes (`PATH_MAX`).
pub const TARGET_BYTES: usize = 4096;
/// Most that one entry's extended attributes may take, in bytes, names and 64 for each included. Linux's own bound for
/// one value is 64 KiB; few file systems hold more for a whole entry.
pub const ATTRIBUTES_BYTES: usize = 256 << 10;
/// Most that all the sets of attributes in one piece may take, each counted once.
pub const PIECE_ATTRIBUTES_BYTES: usize = 1 << 20;
/// Attributes of so many bytes count as one more entry that was listed and not released.
pub const ATTRIBUTES_BYTES_PER_ENTRY: usize = 1 << 10;
/// Most entries in one piece of a listing.
pub const PIECE_ENTRIES: usize = 1024;
/// Most entries that were listed and not yet released: what either end remembers of the tree.
pub const WINDOW_ENTRIES: usize = 16_384;
/// Most bytes of signatures that one file may have; the block size follows from it.
pub const SIGNATURE_BYTES: u64 = 12 << 20;
/// Most blocks of one file whose values are kept and sent ([`crate::subtree`]): 8 MiB of values.
pub const VALUES: u64 = 1 << 18;
/// From here on a file is compared block by block at the same place first, and the values of its blocks are kept.
pub const VALUES_FROM_BYTES: u64 = 1 << 20;
/// Most bytes of signatures under way at once, over all files.
pub const SIGNATURES_BYTES: u64 = 24 << 20;
/// Literal data in one data frame, in bytes, where a file has that much.
pub const DATA_BYTES: usize = 256 << 10;
/// Files up to this many bytes travel whole, many to a frame, and never as a delta.
pub const SMALL_FILE_BYTES: u64 = 16 << 10;
/// How often one file is asked for again because it changed while it was read.
pub const CHANGE_RETRIES: u8 = 2;
/// Longest time that one probe of `bench` may take, in milliseconds.
pub const PROBE_MS: u32 = 600_000;
/// Most bytes that one probe may send or write.
pub const PROBE_BYTES: u64 = 64 << 30;
/// Most files that one probe may create.
pub const PROBE_FILES: u32 = 10_000;
/// Longest list of names of what is copied, in bytes.
pub const LIST_BYTES: usize = 1 << 30;
/// Most channels that the frames to an agent go over, the first one among them. sshd allows 10 to a connection.
pub const CHANNELS: usize = 8;
/// Most bytes in one frame of filler: what a data frame has.
pub const FILLER_BYTES: usize = DATA_BYTES;

//! What the two ends of a synchronization agree on bit for bit.
//!
//! Nothing here touches a disk, a socket, a clock or a thread: bytes and events go in, bytes and
//! decisions come out, so the whole conversation can be driven by a test. `FORMAT.md` beside this
//! crate specifies the wire; the modules follow it from the outside in:
//!
//! - [`frame`] cuts the byte stream into frames, [`codec`] turns their bodies into [`message`]s;
//! - [`path`], [`entry`], [`options`] and [`filter`] are the nouns the messages are made of; `listing` packs entries;
//! - [`decide`] compares two entries, [`itemize`] says in rsync's letters what differed, [`plan`] holds a run to that;
//! - [`subtree`] compares a file with its basis in place, [`signature`] and [`matcher`] wherever its content is;
//! - [`source`] and [`destination`] are the session's two state machines;
//! - [`links`], [`arguments`] and [`window`] are what some options mean;
//! - [`number`] has their tables;
//! - [`probe`] is what `bench` asks and is answered, outside of any session.

pub mod arguments;
pub mod attributes;
pub mod bases;
pub mod codec;
pub mod decide;
pub mod destination;
pub mod entry;
pub mod filter;
pub mod frame;
pub mod itemize;
pub mod limits;
pub mod links;
mod listing;
pub mod matcher;
pub mod message;
pub mod names;
pub mod narrow;
pub mod number;
pub mod options;
pub mod ownership;
pub mod pages;
pub mod path;
pub mod plan;
pub mod probe;
pub mod replaced;
pub mod signature;
pub mod source;
pub mod sparse;
pub mod stats;
pub mod subtree;
pub mod window;

/// A BLAKE3 hash of a whole file's content: what decides that a copy is exact.
pub type ContentHash = [u8; 32];

/// A peer broke the protocol: the session ends, nothing it said since is acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The stream does not begin with the preamble.
    #[error("the other side does not speak this protocol; it sent {seen:?} first")]
    NotThisProtocol {
        /// The first bytes, as printable text.
        seen: String,
    },
    /// A frame longer than the limit, or of a kind that does not exist.
    #[error("malformed frame: {0}")]
    Frame(&'static str),
    /// A body that does not decode.
    #[error("malformed {what} message: {why}")]
    Decode {
        /// The message.
        what: &'static str,
        /// What the decoder found.
        why: String,
    },
    /// A message that may not come at this point, or refers to what does not exist.
    #[error("unexpected {what}: {why}")]
    Unexpected {
        /// The message.
        what: &'static str,
        /// Which rule it breaks.
        why: &'static str,
    },
}

//! The messages: what can be said, and by whom. `FORMAT.md` has the order in which it may be said.

use crate::arguments::Places;
use crate::entry::{Entry, Timestamp};
use crate::frame::{self, Frame, HEADER_BYTES};
use crate::itemize::Item;
use crate::names::{List, ListFile, NamesPart};
use crate::narrow;
use crate::options::SyncOptions;
use crate::pages::BasisHead;
use crate::path::{Name, RelPath};
use crate::probe::{Probe, ProbeResult};
use crate::signature::BlockSize;
use crate::sparse;
use crate::stats::{Exit, Operation, Problem, Stats, Times};
use crate::{ContentHash, ProtocolError, codec, limits, subtree};
use bincode::{Decode, Encode};

mod builder;

pub use builder::DataBuilder;

/// The only version of the protocol so far.
pub const VERSION: u16 = 1;

/// The first frame of each end.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Oldest version of the protocol this end speaks.
    pub oldest: u16,
    /// Newest version.
    pub newest: u16,
    /// Program and version, for messages to the operator.
    pub program: String,
}

/// What the client asks the agent to be.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Role {
    /// Stand next to the source.
    Source {
        /// The source arguments as typed, with rsync's trailing-slash rule.
        arguments: Vec<Vec<u8>>,
        /// The list of what is copied of the one argument, if there is a list.
        list: Option<List>,
    },
    /// Stand next to the destination.
    Destination {
        /// The destination argument as typed.
        argument: Vec<u8>,
        /// The list of what is copied, if it is here: it goes to the source before anything else.
        list: Option<ListFile>,
    },
    /// Stand at either end of a future run and measure what it would have to work with.
    Bench {
        /// The directory as typed.
        argument: Vec<u8>,
    },
}

/// The client's order to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Start {
    /// Which end the agent is.
    pub role: Role,
    /// What the run is to do.
    pub options: SyncOptions,
}

impl Start {
    /// Whether it can be sent: arguments and rules may be longer than a frame.
    #[must_use]
    pub fn fits_a_frame(&self) -> bool {
        let mut bytes = Vec::new();
        codec::encode_into(self, &mut bytes);
        bytes.len() <= limits::FRAME_BYTES
    }
}

/// The source's first word: what the top of the tree is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Begin {
    /// Attributes of the transfer's root itself, where an argument ends in a slash.
    pub root: Option<Entry>,
    /// Owner and group names for `root`.
    pub names: OwnerNames,
    /// The one thing copied is not a directory: the destination argument may be its new name.
    pub single: bool,
    /// Where the arguments stand.
    pub places: Places,
}

/// Names for the owner and group numbers that a message mentions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct OwnerNames {
    /// User number and name.
    pub users: Vec<(u32, Vec<u8>)>,
    /// Group number and name.
    pub groups: Vec<(u32, Vec<u8>)>,
}

/// A part of one directory's listing, in order of name bytes; small directories are one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// A number of its own, which requests refer to.
    pub list: u32,
    /// The directory, announced by an entry of an earlier piece (or the root).
    pub directory: RelPath,
    /// No further piece of this directory follows.
    pub last: bool,
    /// The directory could be read to its end; otherwise nothing is deleted in it.
    pub complete: bool,
    /// Names of the owners and groups below.
    pub names: OwnerNames,
    /// The entries, strictly ascending by name, none of them at or before the previous piece's last.
    pub entries: Vec<Entry>,
}

/// The end of the scan: totals for progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Scanned {
    /// Entries listed.
    pub entries: u64,
    /// Sum of the sizes of the regular files listed.
    pub bytes: u64,
}

/// What the destination wants of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Want {
    /// All of it.
    Whole,
    /// A delta against a basis whose signature follows in [`Message::Signature`] frames.
    Delta {
        /// Block size in bytes.
        block_size: u32,
        /// Length of the basis in bytes.
        basis_bytes: u64,
    },
    /// Its hash only.
    Hash,
    /// What differs block by block from a basis of which the blocks' values follow in [`Message::Signature`]
    /// frames ([`crate::subtree`]).
    Aligned {
        /// Block size in bytes.
        block_size: u32,
        /// Length of the basis in bytes.
        basis_bytes: u64,
        /// Which content it is, where that is known: then the source may look for pages that moved ([`crate::pages`]).
        basis_head: Option<BasisHead>,
    },
    /// What differs block by block from a basis with holes, of which the blocks that are not zeros follow in
    /// [`Message::Signature`] frames ([`crate::sparse`]).
    Sparse {
        /// Block size in bytes.
        block_size: u32,
        /// Length of the basis in bytes.
        basis_bytes: u64,
        /// How many blocks follow.
        blocks: u32,
    },
    /// Its sparse hash only.
    SparseHash,
    /// A delta in two steps ([`crate::narrow`]): the values of large blocks follow in [`Message::Signature`] frames, and
    /// then what [`Step::Lacks`] asks for.
    Narrowed {
        /// Block size of the delta in bytes.
        block_size: u32,
        /// Length of the basis in bytes.
        basis_bytes: u64,
    },
}

impl Want {
    /// The kind of hash, where that is all that is wanted.
    #[must_use]
    pub fn hash(self) -> Option<HashKind> {
        match self {
            Want::Hash => Some(HashKind::Plain),
            Want::SparseHash => Some(HashKind::Sparse),
            _ => None,
        }
    }

    /// Length of the basis and its block size, where there is one.
    ///
    /// # Errors
    /// A block size out of its bounds.
    pub fn basis(self) -> Result<Option<(BlockSize, u64)>, ProtocolError> {
        match self {
            Want::Whole | Want::Hash | Want::SparseHash => Ok(None),
            Want::Delta { block_size, basis_bytes } => {
                Ok(Some((BlockSize::new(block_size, basis_bytes)?, basis_bytes)))
            }
            Want::Aligned { block_size, basis_bytes, .. } => {
                Ok(Some((subtree::block_size(block_size, basis_bytes)?, basis_bytes)))
            }
            Want::Narrowed { block_size, basis_bytes } => {
                Ok(Some((narrow::block_size(block_size, basis_bytes)?, basis_bytes)))
            }
            Want::Sparse { block_size, basis_bytes, blocks } => {
                if !sparse::is_within_limits(blocks) {
                    return Err(ProtocolError::Unexpected { what: "request", why: "too many blocks" });
                }
                Ok(Some((sparse::block_size(block_size)?, basis_bytes)))
            }
        }
    }

    /// What the request counts against [`limits::SIGNATURES_BYTES`]: its signature; of values that both ends keep until
    /// the file is there, the old ones and the new ones; of a delta in two steps what both may take.
    ///
    /// # Errors
    /// As [`Want::basis`].
    pub fn budget_bytes(self) -> Result<u64, ProtocolError> {
        let bytes = self.signature_bytes()?;
        let kept = 2 * size_of::<subtree::Value>() / subtree::ENTRY_BYTES;
        Ok(match self {
            Want::Aligned { .. } => bytes.saturating_mul(kept as u64),
            Want::Narrowed { basis_bytes, .. } => {
                bytes.saturating_add(self.basis()?.map_or(0, |(size, _)| size.signature_bytes(basis_bytes)))
            }
            _ => bytes,
        })
    }

    /// Bytes that follow the request in [`Message::Signature`] frames, before anything else is asked for.
    ///
    /// # Errors
    /// As [`Want::basis`].
    pub fn signature_bytes(self) -> Result<u64, ProtocolError> {
        let Some((size, basis_bytes)) = self.basis()? else { return Ok(0) };
        let values_bytes =
            |size: BlockSize| size.blocks(basis_bytes).saturating_mul(subtree::ENTRY_BYTES as u64);
        Ok(match self {
            Want::Sparse { blocks, .. } => u64::from(blocks) * sparse::ENTRY_BYTES as u64,
            Want::Aligned { .. } => values_bytes(size),
            Want::Narrowed { .. } => values_bytes(narrow::large_block_size(basis_bytes)),
            _ => size.signature_bytes(basis_bytes),
        })
    }
}

/// The destination asks for one file of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Request {
    /// The piece.
    pub list: u32,
    /// The entry's position in it.
    pub index: u32,
    /// The number under which the answer comes.
    pub file: u32,
    /// What is wanted.
    pub want: Want,
}

/// An entry of a piece that is on disk at the destination: the source is to remove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Removal {
    /// The piece.
    pub list: u32,
    /// The entry's position in it.
    pub index: u32,
    /// What is at the destination, where this run did not make it: it may be the source's own file under another path.
    pub identity: Option<Identity>,
}

/// What tells a file of one machine from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Identity {
    /// Device that holds it, major and minor.
    pub device: (u32, u32),
    /// Its inode.
    pub inode: u64,
    /// When anything of it changed last: files of two machines may agree in the rest.
    pub ctime: Timestamp,
}

/// What one file was when it had been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct ReadFile {
    /// BLAKE3 of all of its bytes, or the hash that was announced or asked for.
    pub hash: ContentHash,
    /// Its modification time, the same before and after.
    pub mtime: Timestamp,
}

/// Why a file can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Failure {
    /// It was listed and is gone.
    Vanished,
    /// It changed while it was read: what was sent is not any state of it.
    Changed,
    /// It is no longer a regular file.
    ChangedKind,
    /// Compared block by block it has little in common with its basis: it must be searched.
    Misaligned,
    /// It has holes: it is to be compared as such.
    HasHoles,
    /// A system call failed.
    Errno {
        /// Which.
        operation: Operation,
        /// Linux's error number.
        errno: i32,
    },
}

/// What the hash of a file is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum HashKind {
    /// All of its bytes: BLAKE3.
    #[default]
    Plain,
    /// What is not zeros, and where that is ([`crate::sparse`]).
    Sparse,
}

/// One step in answering a request. A file's steps come in order, in the same lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Step {
    /// The file was opened; this many bytes follow, by literals and matches together.
    Open {
        /// Length in bytes.
        size_bytes: u64,
        /// What [`Step::End`] will say of it.
        hash: HashKind,
    },
    /// The next bytes are these, from the frame's bulk part.
    Literal {
        /// How many.
        bytes: u32,
    },
    /// The next bytes are those of blocks of the basis.
    Match {
        /// The first block.
        block: u64,
        /// How many blocks in a row.
        count: u32,
    },
    /// The file is complete.
    End(ReadFile),
    /// The file is complete and this is all of it: [`Step::Open`], one literal and [`Step::End`] in one.
    Small {
        /// How many bytes of the bulk part are its content.
        bytes: u32,
        /// What it was.
        read: ReadFile,
    },
    /// Its hash, as asked.
    Hashed {
        /// Length in bytes.
        size_bytes: u64,
        /// What it was.
        read: ReadFile,
    },
    /// It can't be had; what was sent of it is void.
    Failed(Failure),
    /// The next bytes are zeros: logs and databases reserve their room with them.
    Zeros {
        /// How many.
        bytes: u32,
    },
    /// The next bytes are those of pages of the basis, of a file that is compared with it block by block.
    Pages {
        /// The first page.
        page: u64,
        /// How many pages in a row, all of them whole.
        count: u32,
    },
    /// Before the file is opened, of one that was asked for in two steps: which large blocks of the basis do not stand
    /// in it, a bit for each in the frame's bulk part ([`crate::narrow`]). The signature of their small blocks is to follow.
    Lacks {
        /// Bytes of bits.
        bytes: u32,
    },
}

/// A [`Step`] and the file it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Record {
    /// The request's number.
    pub file: u32,
    /// What comes next of it.
    pub step: Step,
}

/// Bytes at the start of a frame's body, kept where they arrived.
#[derive(Clone, PartialEq, Eq)]
pub struct Bulk {
    bytes: Vec<u8>,
    end: usize,
}

impl Bulk {
    /// The first `length` bytes of a frame's body.
    fn new(frame: Frame, length: usize) -> Bulk {
        Bulk { bytes: frame.into_bytes(), end: HEADER_BYTES + length }
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..self.end]
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        frame::recycle(std::mem::take(&mut self.bytes));
    }
}

impl std::fmt::Debug for Bulk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bulk({} bytes)", self.as_slice().len())
    }
}

/// Answers to requests, several files to a frame, and the literal bytes they take in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// Which of the sender's threads wrote it; all of a file comes in one lane.
    pub lane: u8,
    /// What follows of which file.
    pub records: Vec<Record>,
    /// The literals' bytes, one after another.
    pub bulk: Bulk,
}

/// Why one end ends the session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Abort {
    /// The client's exit status.
    pub exit: Exit,
    /// For the operator.
    pub message: String,
}

/// The destination's last word.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Finished {
    /// What was done.
    pub stats: Stats,
    /// How it ended, as far as the destination knows.
    pub exit: Exit,
    /// Where the destination's time went.
    pub times: Times,
    /// Where the source's time went, as far as it has told.
    pub source_times: Times,
}

/// What makes a channel one of this session's and no other's: chosen by the client, told on the first channel and on
/// each that is to join it.
pub type Token = [u8; 32];

/// The channels over which the client's bytes go from here on: the first one always, and some of those that have joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels(u8);

impl Channels {
    /// The first channel and these, numbered from 1 to [`limits::CHANNELS`]` - 1`; others are passed over.
    #[must_use]
    pub fn with(joined: impl IntoIterator<Item = u8>) -> Channels {
        let bits = joined.into_iter().filter(|number| Channels::is_further(*number));
        Channels(bits.fold(0, |bits, number| bits | 1 << number))
    }

    /// Whether a channel that joins may have this number.
    #[must_use]
    pub fn is_further(number: u8) -> bool {
        (1..limits::CHANNELS).contains(&usize::from(number))
    }

    /// The numbers of those beside the first one, ascending.
    pub fn joined(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX)
            .filter(|&number| Channels::is_further(number))
            .filter(move |number| self.0 & 1 << number != 0)
    }
}

/// News for the client, where the client is not the destination.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Report {
    /// Something was done to an entry.
    Item(Item),
    /// Something failed.
    Problem(Problem),
    /// The destination directory did not exist and was made.
    MadeRoot(Vec<u8>),
    /// Something the operator must know that is not about one entry.
    Note(String),
}

/// Anything one end says to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is documented by the type it carries")]
pub enum Message {
    Hello(Hello),
    Start(Box<Start>),
    Begin(Box<Begin>),
    List(Vec<Piece>),
    Scanned(Scanned),
    Request(Vec<Request>),
    /// The next part of a basis's signature, for a request that wants a delta.
    Signature {
        /// The request's number.
        file: u32,
        /// One entry for each block: fast_rsync's for a delta, the head of its value for a comparison in place.
        blocks: Bulk,
    },
    Data(Data),
    /// Pieces that the destination will ask nothing more of.
    Release(Vec<u32>),
    Report(Vec<Report>),
    Finished(Box<Finished>),
    Abort(Abort),
    /// Nothing to say, still there.
    KeepAlive,
    /// Where the source's time went so far.
    Spent(Times),
    /// The client of a bench asks for a measurement.
    Probe(Probe),
    /// The agent's answer to it.
    ProbeResult(ProbeResult),
    /// Bytes that mean nothing: how fast they arrive is the measurement.
    Filler(Bulk),
    /// Further channels will come with this token.
    Invite(Token),
    /// The bytes behind this frame are dealt over these channels.
    Spread(Channels),
    /// What the destination has for good.
    Remove(Vec<Removal>),
    /// So many of the removals asked for were dealt with.
    Removed(u32),
    /// A part of the list of what is copied.
    Names(NamesPart),
}

const HELLO: u8 = 1;
const START: u8 = 2;
const BEGIN: u8 = 3;
const LIST: u8 = 4;
const SCANNED: u8 = 5;
const REQUEST: u8 = 6;
const SIGNATURE: u8 = 7;
const DATA: u8 = 8;
const RELEASE: u8 = 9;
const REPORT: u8 = 10;
const FINISHED: u8 = 11;
const ABORT: u8 = 12;
const KEEP_ALIVE: u8 = 13;
const PROBE: u8 = 14;
const PROBE_RESULT: u8 = 15;
const FILLER: u8 = 16;
const SPENT: u8 = 17;
const INVITE: u8 = 18;
const SPREAD: u8 = 19;
const REMOVE: u8 = 20;
const REMOVED: u8 = 21;
const NAMES: u8 = 22;

impl Message {
    /// The message as a frame.
    #[must_use]
    pub fn encode(&self) -> Frame {
        match self {
            Message::Hello(body) => simple(HELLO, body),
            Message::Start(body) => simple(START, body),
            Message::Begin(body) => simple(BEGIN, body),
            Message::List(body) => simple(LIST, body),
            Message::Scanned(body) => simple(SCANNED, body),
            Message::Request(body) => simple(REQUEST, body),
            Message::Signature { file, blocks } => with_bulk(SIGNATURE, file, blocks.as_slice()),
            Message::Data(data) => with_bulk(DATA, &(data.lane, &data.records), data.bulk.as_slice()),
            Message::Release(body) => simple(RELEASE, body),
            Message::Report(body) => simple(REPORT, body),
            Message::Finished(body) => simple(FINISHED, body),
            Message::Abort(body) => simple(ABORT, body),
            Message::KeepAlive => Frame::finish(Frame::begin(0), KEEP_ALIVE),
            Message::Spent(body) => simple(SPENT, body),
            Message::Probe(body) => simple(PROBE, body),
            Message::ProbeResult(body) => simple(PROBE_RESULT, body),
            Message::Filler(bulk) => filler_frame(bulk.as_slice()),
            Message::Invite(token) => simple(INVITE, token),
            Message::Spread(channels) => simple(SPREAD, &channels.0),
            Message::Remove(body) => simple(REMOVE, body),
            Message::Removed(count) => simple(REMOVED, count),
            Message::Names(body) => simple(NAMES, body),
        }
    }

    /// The message in an opened frame.
    ///
    /// # Errors
    /// An unknown kind, a body that does not decode, or a value no honest peer sends.
    pub fn decode(frame: Frame) -> Result<Message, ProtocolError> {
        let body = frame.body();
        let message = match frame.kind() {
            HELLO => Message::Hello(codec::decode_all(body, "hello")?),
            START => Message::Start(codec::decode_all(body, "start")?),
            BEGIN => Message::Begin(codec::decode_all(body, "begin")?),
            LIST => Message::List(codec::decode_all(body, "listing")?),
            SCANNED => Message::Scanned(codec::decode_all(body, "scan end")?),
            REQUEST => Message::Request(codec::decode_all(body, "request")?),
            SIGNATURE => {
                let (bulk_bytes, head) = split_bulk(body)?;
                let file = codec::decode_all(head, "signature")?;
                Message::Signature { file, blocks: Bulk::new(frame, bulk_bytes) }
            }
            DATA => {
                let (bulk_bytes, head) = split_bulk(body)?;
                let (lane, records) = codec::decode_all(head, "data")?;
                Message::Data(Data { lane, records, bulk: Bulk::new(frame, bulk_bytes) })
            }
            RELEASE => Message::Release(codec::decode_all(body, "release")?),
            REPORT => Message::Report(codec::decode_all(body, "report")?),
            FINISHED => Message::Finished(codec::decode_all(body, "summary")?),
            ABORT => Message::Abort(codec::decode_all(body, "abort")?),
            KEEP_ALIVE if body.is_empty() => Message::KeepAlive,
            SPENT => Message::Spent(codec::decode_all(body, "times")?),
            PROBE => Message::Probe(sane_probe(body)?),
            PROBE_RESULT => Message::ProbeResult(codec::decode_all(body, "measurement")?),
            FILLER if body.len() > limits::FILLER_BYTES => {
                return Err(ProtocolError::Unexpected { what: "filler", why: "longer than its limit" });
            }
            FILLER => {
                let length = body.len();
                Message::Filler(Bulk::new(frame, length))
            }
            INVITE => Message::Invite(codec::decode_all(body, "invitation")?),
            SPREAD => Message::Spread(sane_channels(body)?),
            REMOVE => Message::Remove(codec::decode_all(body, "removal")?),
            REMOVED => Message::Removed(codec::decode_all(body, "removed")?),
            NAMES => Message::Names(codec::decode_all(body, "names")?),
            _ => return Err(ProtocolError::Frame("unknown kind")),
        };
        Ok(message)
    }

    /// What to call it in an error.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Message::Hello(_) => "hello",
            Message::Start(_) => "start",
            Message::Begin(_) => "begin",
            Message::List(_) => "listing",
            Message::Scanned(_) => "scan end",
            Message::Request(_) => "request",
            Message::Signature { .. } => "signature",
            Message::Data(_) => "data",
            Message::Release(_) => "release",
            Message::Report(_) => "report",
            Message::Finished(_) => "summary",
            Message::Abort(_) => "abort",
            Message::KeepAlive => "keepalive",
            Message::Spent(_) => "times",
            Message::Probe(_) => "probe",
            Message::ProbeResult(_) => "measurement",
            Message::Filler(_) => "filler",
            Message::Invite(_) => "invitation",
            Message::Spread(_) => "spread",
            Message::Remove(_) => "removal",
            Message::Removed(_) => "removed",
            Message::Names(_) => "names",
        }
    }

    /// Whether a frame is about the channels themselves: those who carry frames look at it, not the session.
    #[must_use]
    pub fn is_about_channels(frame: &Frame) -> bool {
        matches!(frame.kind(), INVITE | SPREAD)
    }
}

fn sane_channels(body: &[u8]) -> Result<Channels, ProtocolError> {
    let channels = Channels(codec::decode_all(body, "spread")?);
    if channels != Channels::with(channels.joined()) || channels.0 == 0 {
        return Err(ProtocolError::Unexpected {
            what: "spread",
            why: "no channel, or one that there can't be",
        });
    }
    Ok(channels)
}

/// The frame of a part of a signature.
#[must_use]
pub fn signature_frame(file: u32, blocks: &[u8]) -> Frame {
    with_bulk(SIGNATURE, &file, blocks)
}

/// A frame of filler, of at most [`limits::FILLER_BYTES`].
#[must_use]
pub fn filler_frame(bytes: &[u8]) -> Frame {
    let mut body = Frame::begin(bytes.len());
    body.extend_from_slice(bytes);
    Frame::finish(body, FILLER)
}

fn sane_probe(body: &[u8]) -> Result<Probe, ProtocolError> {
    let probe: Probe = codec::decode_all(body, "probe")?;
    if probe.is_sane() {
        Ok(probe)
    } else {
        Err(ProtocolError::Unexpected { what: "probe", why: "it asks for more than the limits allow" })
    }
}

fn simple<T: Encode>(kind: u8, body: &T) -> Frame {
    let mut bytes = Frame::begin(256);
    codec::encode_into(body, &mut bytes);
    Frame::finish(bytes, kind)
}

/// Bytes behind an encoded part that follows bulk: its length (little endian).
const HEAD_LENGTH_BYTES: usize = 4;

fn with_bulk<T: Encode>(kind: u8, head: &T, bulk: &[u8]) -> Frame {
    let mut bytes = Frame::begin(bulk.len() + 64);
    bytes.extend_from_slice(bulk);
    finish_bulk(bytes, kind, head)
}

/// Completes a frame that holds its bulk.
fn finish_bulk<T: Encode>(mut bytes: Vec<u8>, kind: u8, head: &T) -> Frame {
    let bulk_end = bytes.len();
    codec::encode_into(head, &mut bytes);
    let head_bytes = u32::try_from(bytes.len() - bulk_end).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&head_bytes.to_le_bytes());
    Frame::finish(bytes, kind)
}

/// The length of a body's bulk, and its encoded part.
fn split_bulk(body: &[u8]) -> Result<(usize, &[u8]), ProtocolError> {
    let wrong = ProtocolError::Frame("the encoded part is longer than the frame");
    let (rest, head_bytes) = body.split_last_chunk::<HEAD_LENGTH_BYTES>().ok_or(wrong)?;
    match rest.len().checked_sub(u32::from_le_bytes(*head_bytes) as usize) {
        Some(bulk_bytes) => Ok((bulk_bytes, &rest[bulk_bytes..])),
        None => Err(ProtocolError::Frame("the encoded part is longer than the frame")),
    }
}

/// The name under which a program introduces itself.
#[must_use]
pub fn hello(program: &str) -> Hello {
    Hello { oldest: VERSION, newest: VERSION, program: program.to_owned() }
}

impl Piece {
    /// Whether the piece is one that an honest source sends, in itself.
    pub(crate) fn is_sane(&self) -> bool {
        self.entries.len() <= limits::PIECE_ENTRIES
            && self.entries.iter().all(Entry::is_sane)
            && self.entries.windows(2).all(|pair| pair[0].name < pair[1].name)
    }

    /// What it counts against [`limits::WINDOW_ENTRIES`]: its entries, and what they take beyond that.
    #[must_use]
    pub fn weight(&self) -> usize {
        let attributes = self.entries.iter().filter_map(Entry::attributes);
        let bytes: usize = attributes.map(|attributes| attributes.cost_bytes()).sum();
        self.entries.len().max(1) + bytes / limits::ATTRIBUTES_BYTES_PER_ENTRY
    }

    /// Name of the last entry.
    pub(crate) fn last_name(&self) -> Option<&Name> {
        self.entries.last().map(|entry| &entry.name)
    }
}

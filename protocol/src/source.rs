//! The source's state machine: what was listed, what may be asked of it, what is owed.
//!
//! It does no I/O. The engine tells it what it sends ([`SourceSession::announce`],
//! [`SourceSession::answered`]) and gives it what arrives ([`SourceSession::receive`]); it answers with
//! events, or with the rule that the peer broke. What the destination can make this end remember is
//! bounded by the window (entries) and by the limit on signatures under way, whatever it sends.

use crate::entry::{Entry, Kind};
use crate::message::{Abort, Bulk, Finished, Message, Piece, Removal, Report, Request};
use crate::number::ByOwnNumber;
use crate::{ProtocolError, limits};
use std::collections::HashMap;

/// What the engine has to act on.
#[derive(Debug)]
pub enum SourceEvent {
    /// Serve these files; none of them is under way already.
    Requests(Vec<Request>),
    /// The next part of the signature for a request that wants a delta.
    Signature {
        /// The request's number.
        file: u32,
        /// Its entries.
        blocks: Bulk,
    },
    /// Nothing more will be asked of these pieces: forget them.
    Released(Vec<u32>),
    /// The destination has these for good: remove each, if it is what it was, and say when that is done.
    Remove(Vec<Removal>),
    /// News from the destination, for the operator.
    Reports(Vec<Report>),
    /// The destination is done.
    Finished(Box<Finished>),
    /// The destination ended the session.
    Aborted(Abort),
    /// Nothing.
    Nothing,
}

#[derive(Debug)]
struct PieceState {
    entries: usize,
    /// What may be asked of each, by position.
    states: Vec<EntryState>,
    under_way: usize,
}

/// What may be asked of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryState {
    /// Its content, and its removal.
    File,
    /// Its removal.
    Other,
    /// Nothing: a directory, or an entry that was to be removed already.
    Closed,
}

#[derive(Debug)]
struct FileState {
    list: u32,
    /// Bytes of signature still to come.
    signature_left: u64,
    /// What counts against the limit until the file is answered.
    signature_bytes: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct SourceSession {
    /// By this end's numbers; files have the destination's.
    pieces: ByOwnNumber<PieceState>,
    files: HashMap<u32, FileState>,
    /// Files answered before all of their signature had come, with what is still to come of it.
    owed: HashMap<u32, u64>,
    entries_in_window: usize,
    signature_bytes: u64,
    finished: bool,
    may_remove: bool,
    /// Pieces that were released, if entries of them may still be removed.
    remembered: Option<HashMap<u32, Vec<EntryState>>>,
}

fn unexpected<T>(what: &'static str, why: &'static str) -> Result<T, ProtocolError> {
    Err(ProtocolError::Unexpected { what, why })
}

impl SourceSession {
    /// A session in which the destination may say that entries are to be removed, if `may_remove`.
    #[must_use]
    pub fn new(may_remove: bool) -> SourceSession {
        SourceSession { may_remove, ..SourceSession::default() }
    }

    /// The same, if also entries of released pieces may be removed.
    #[must_use]
    pub fn remembering(self) -> SourceSession {
        SourceSession { remembered: Some(HashMap::new()), ..self }
    }

    /// Whether a piece of this [weight](Piece::weight) may be sent now.
    #[must_use]
    pub fn window_has_room_for(&self, weight: usize) -> bool {
        self.entries_in_window + weight.max(limits::PIECE_ENTRIES) <= limits::WINDOW_ENTRIES
    }

    /// `piece` is about to be sent.
    pub fn announce(&mut self, piece: &Piece) {
        let state = PieceState {
            entries: piece.weight(),
            states: piece.entries.iter().map(EntryState::of).collect(),
            under_way: 0,
        };
        self.entries_in_window += state.entries;
        self.pieces.insert(piece.list, state);
    }

    /// It is about to be said of `file` that so many bytes more of its signature are to follow.
    pub fn lacks(&mut self, file: u32, bytes: u64) {
        if let Some(state) = self.files.get_mut(&file) {
            state.signature_left += bytes;
        }
    }

    /// The last step of `file` is about to be sent.
    pub fn answered(&mut self, file: u32) {
        if let Some(state) = self.files.remove(&file) {
            self.signature_bytes -= state.signature_bytes;
            if state.signature_left > 0 {
                self.owed.insert(file, state.signature_left);
            }
            if let Some(piece) = self.pieces.get_mut(&state.list) {
                piece.under_way -= 1;
            }
        }
    }

    /// Whether the destination has said its last word.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Takes in a message from the destination.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn receive(&mut self, message: Message) -> Result<SourceEvent, ProtocolError> {
        if self.finished {
            return unexpected(message.name(), "the destination had finished");
        }
        match message {
            Message::Request(requests) => {
                requests.iter().try_for_each(|request| self.request(request))?;
                Ok(SourceEvent::Requests(requests))
            }
            Message::Signature { file, blocks } => {
                self.signature(file, blocks.as_slice().len() as u64)?;
                Ok(SourceEvent::Signature { file, blocks })
            }
            Message::Release(lists) => {
                lists.iter().try_for_each(|&list| self.release(list))?;
                Ok(SourceEvent::Released(lists))
            }
            Message::Remove(removals) => {
                removals.iter().try_for_each(|&removal| self.remove(removal))?;
                Ok(SourceEvent::Remove(removals))
            }
            Message::Report(reports) => Ok(SourceEvent::Reports(reports)),
            Message::Finished(finished) => {
                self.finished = true;
                Ok(SourceEvent::Finished(finished))
            }
            Message::Abort(abort) => {
                self.finished = true;
                Ok(SourceEvent::Aborted(abort))
            }
            Message::KeepAlive => Ok(SourceEvent::Nothing),
            other => unexpected(other.name(), "a destination does not send it"),
        }
    }

    fn request(&mut self, request: &Request) -> Result<(), ProtocolError> {
        let Some(piece) = self.pieces.get_mut(&request.list) else {
            return unexpected("request", "its list was not sent, or was released");
        };
        match piece.states.get(request.index as usize) {
            Some(EntryState::File) => {}
            Some(_) => return unexpected("request", "the entry is not a regular file"),
            None => return unexpected("request", "the list has no such entry"),
        }
        let in_use = self.files.contains_key(&request.file) || self.owed.contains_key(&request.file);
        if in_use || self.files.len() + self.owed.len() >= limits::WINDOW_ENTRIES {
            return unexpected("request", "its number is in use, or too many are under way");
        }
        let signature_bytes = request.want.signature_bytes()?;
        let budget_bytes = request.want.budget_bytes()?;
        self.signature_bytes += budget_bytes;
        if self.signature_bytes > limits::SIGNATURES_BYTES {
            return unexpected("request", "too many signatures under way");
        }
        piece.under_way += 1;
        let state =
            FileState { list: request.list, signature_left: signature_bytes, signature_bytes: budget_bytes };
        self.files.insert(request.file, state);
        Ok(())
    }

    fn signature(&mut self, file: u32, bytes: u64) -> Result<(), ProtocolError> {
        // A file that failed or vanished is answered before its signature has arrived in full.
        let left = match self.files.get_mut(&file) {
            Some(state) => Some(&mut state.signature_left),
            None => self.owed.get_mut(&file),
        };
        let Some(left) = left else {
            return unexpected("signature", "no delta was asked for under its number");
        };
        match left.checked_sub(bytes) {
            Some(0) => {
                *left = 0;
                self.owed.remove(&file);
                Ok(())
            }
            Some(rest) => {
                *left = rest;
                Ok(())
            }
            None => unexpected("signature", "it is longer than announced"),
        }
    }

    fn remove(&mut self, Removal { list, index, .. }: Removal) -> Result<(), ProtocolError> {
        if !self.may_remove {
            return unexpected("removal", "nothing is to be removed from this source");
        }
        let states = match self.pieces.get_mut(&list) {
            Some(piece) => Some(&mut piece.states),
            None => self.remembered.as_mut().and_then(|remembered| remembered.get_mut(&list)),
        };
        match states.and_then(|states| states.get_mut(index as usize)) {
            Some(state @ (EntryState::File | EntryState::Other)) => {
                *state = EntryState::Closed;
                Ok(())
            }
            Some(EntryState::Closed) => unexpected("removal", "it is a directory, or was to go already"),
            None => unexpected("removal", "no such entry was sent, or its list was released"),
        }
    }

    fn release(&mut self, list: u32) -> Result<(), ProtocolError> {
        match self.pieces.remove(&list) {
            Some(piece) if piece.under_way == 0 => {
                self.entries_in_window -= piece.entries;
                if let Some(remembered) = &mut self.remembered {
                    remembered.insert(list, piece.states);
                }
                Ok(())
            }
            Some(_) => unexpected("release", "files of the list are under way"),
            None => unexpected("release", "the list was not sent, or was released"),
        }
    }
}

impl EntryState {
    fn of(entry: &Entry) -> EntryState {
        match entry.kind {
            Kind::File { .. } => EntryState::File,
            Kind::Directory => EntryState::Closed,
            _ => EntryState::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Timestamp;
    use crate::message::{OwnerNames, Scanned, Want};
    use crate::path::{Name, RelPath};

    fn piece(list: u32, kinds: &[Kind]) -> Piece {
        let entry = |(i, kind): (usize, &Kind)| Entry {
            name: Name::new(format!("{i:04}").into_bytes()).unwrap(),
            kind: kind.clone(),
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            young: false,
            extra: None,
        };
        Piece {
            list,
            directory: RelPath::root(),
            last: true,
            complete: true,
            names: OwnerNames::default(),
            entries: kinds.iter().enumerate().map(entry).collect(),
        }
    }

    fn session() -> SourceSession {
        let mut session = SourceSession::default();
        session.announce(&piece(7, &[Kind::File { size_bytes: 9 }, Kind::Directory]));
        session
    }

    fn request(list: u32, index: u32, file: u32, want: Want) -> Message {
        Message::Request(vec![Request { list, index, file, want }])
    }

    #[test]
    fn only_listed_regular_files_can_be_had_each_once_at_a_time() {
        let huge = Want::Delta { block_size: 4096, basis_bytes: u64::MAX };
        let zero = Want::Delta { block_size: 0, basis_bytes: 1 };
        for (message, allowed) in [
            (request(7, 0, 1, Want::Whole), true),
            (request(7, 1, 1, Want::Whole), false),
            (request(7, 2, 1, Want::Whole), false),
            (request(8, 0, 1, Want::Whole), false),
            (request(7, 0, 1, huge), false),
            (request(7, 0, 1, zero), false),
            (Message::Release(vec![7, 7]), false),
            (Message::Release(vec![9]), false),
            (Message::Scanned(Scanned::default()), false),
            (Message::List(Vec::new()), false),
        ] {
            assert_eq!(session().receive(message.clone()).is_ok(), allowed, "{message:?}");
        }
        let mut session = session();
        session.receive(request(7, 0, 1, Want::Whole)).unwrap();
        assert!(session.receive(request(7, 0, 1, Want::Whole)).is_err());
    }

    #[test]
    fn a_piece_is_released_only_when_nothing_of_it_is_under_way() {
        let mut busy = session();
        busy.receive(request(7, 0, 1, Want::Whole)).unwrap();
        assert!(busy.receive(Message::Release(vec![7])).is_err());
        let mut idle = session();
        idle.receive(request(7, 0, 1, Want::Whole)).unwrap();
        idle.answered(1);
        assert!(idle.receive(Message::Release(vec![7])).is_ok());
        assert_eq!(idle.entries_in_window, 0);
    }

    #[test]
    fn only_what_was_listed_and_is_no_directory_can_be_removed_once_and_where_that_was_asked_for() {
        let remove = |list, index| Message::Remove(vec![Removal { list, index, identity: None }]);
        for (message, allowed) in [
            (remove(7, 0), true),
            (remove(7, 1), false),
            (remove(7, 2), true),
            (remove(7, 3), false),
            (remove(8, 0), false),
            (Message::Remove(vec![Removal { list: 7, index: 0, identity: None }; 2]), false),
        ] {
            for may_remove in [true, false] {
                let mut session = SourceSession::new(may_remove);
                session.announce(&piece(7, &[Kind::File { size_bytes: 9 }, Kind::Directory, Kind::Fifo]));
                let is_taken = session.receive(message.clone()).is_ok();
                assert_eq!(is_taken, allowed && may_remove, "{message:?} {may_remove}");
            }
        }
        let mut session = SourceSession::new(true);
        session.announce(&piece(7, &[Kind::File { size_bytes: 9 }]));
        session.receive(remove(7, 0)).unwrap();
        assert!(session.receive(request(7, 0, 1, Want::Whole)).is_err(), "it is gone");
    }

    #[test]
    fn signatures_are_bounded_alone_and_together() {
        let mut session = session();
        let delta = Want::Delta { block_size: 4096, basis_bytes: 4 << 30 };
        session.receive(request(7, 0, 1, delta)).unwrap();
        session.receive(request(7, 0, 2, delta)).unwrap();
        assert!(session.receive(request(7, 0, 3, delta)).is_err());
    }
}

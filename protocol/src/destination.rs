//! The destination's state machine: which directories are known, which pieces can be merged, which
//! files were asked for, and when a directory is complete.
//!
//! It does no I/O. The engine gives it what arrives ([`DestinationSession::receive`]) and tells it what
//! was carried out; it hands out pieces to merge in an order in which parents precede children, checks
//! every answer against what was asked, and says when a piece can be released, when a directory has all
//! of its content (so that its times can be set) and when everything is done.
//!
//! It is generic over `M`, what the engine wants to remember of a directory's metadata.
//!
//! What always holds: a piece handed out belongs to a directory that exists at the destination (or is
//! known to be absent, and then nothing below it is touched); of one directory one piece at a time is
//! handed out; a directory completes after everything below it.

use crate::message::{Begin, Data, Failure, Message, Piece, Record, Report, Request, Scanned, Step, Want};
use crate::number::ByOwnNumber;
use crate::pages::PAGE_BYTES;
use crate::path::{Name, RelPath};
use crate::stats::{Problem, Times};
use crate::{ProtocolError, limits, narrow, subtree};
use std::collections::{HashMap, VecDeque};

/// Number of a directory, given when it is announced.
pub type DirectoryId = u32;

/// What the engine has to act on.
#[derive(Debug)]
pub enum DestinationEvent {
    /// The source has begun.
    Begin(Box<Begin>),
    /// Pieces may have become ready: see [`DestinationSession::next_piece`].
    Listed,
    /// The scan is over.
    Scanned(Scanned),
    /// Answers, checked: every step is of a file that was asked for, in its order.
    Data(Data),
    /// What the source has to tell.
    Reports {
        /// Problems that it met.
        problems: Vec<Problem>,
        /// What else the operator must know.
        notes: Vec<String>,
    },
    /// Where the source's time went so far.
    Spent(Times),
    /// The source dealt with some of what it was to remove.
    Removed,
    /// The source ended the session.
    Aborted(crate::message::Abort),
    /// Nothing.
    Nothing,
}

/// How a directory of the source stands at the destination once its parent was merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing<M> {
    /// It exists.
    Present {
        /// What its metadata is to be at the end, if it is any of this run's business.
        metadata: Option<Box<M>>,
        /// Its metadata is something else now.
        differs: bool,
    },
    /// It does not exist and is not made (a dry run): everything in it is new.
    Absent,
    /// It could not be made, or is left alone by choice: what is in it is passed over in silence.
    Skipped,
}

/// A directory under way.
#[derive(Debug)]
struct Directory<M> {
    /// Where it is; the root has no parent. Whole paths are made when they are needed: along a deep path
    /// they would add up to the square of its length.
    parent: Option<(DirectoryId, Name)>,
    /// The directories in it that are not complete.
    children: HashMap<Name, DirectoryId>,
    /// None until the parent's piece that announced it was merged.
    standing: Option<Standing<M>>,
    /// Pieces that arrived and wait for their turn.
    waiting: VecDeque<Piece>,
    merging: bool,
    last_name: Option<Name>,
    /// The last piece has arrived.
    listed: bool,
    /// What must still happen before it is complete: its listing, its files, its directories.
    pending: u32,
    /// Something was done in it, so that its times are no longer what they were.
    touched: bool,
}

/// A piece for the engine to merge with what the destination has.
#[derive(Debug)]
pub struct ReadyPiece<M> {
    /// The directory.
    pub directory: DirectoryId,
    /// How it stands.
    pub standing: Standing<M>,
    /// The piece.
    pub piece: Piece,
}

/// A directory whose content is complete and whose metadata may have to be set.
#[derive(Debug)]
pub struct CompleteDirectory<M> {
    /// The directory.
    pub path: RelPath,
    /// The metadata it is to have.
    pub metadata: Box<M>,
}

#[derive(Debug)]
struct PieceState {
    /// Files not yet resolved, and one for the merge itself.
    pending: u32,
    /// Entries that the source will be told to remove.
    to_remove: u32,
    entries: u32,
}

#[derive(Debug)]
struct FileState {
    list: u32,
    want: Want,
    lane: Option<u8>,
    /// Bytes still to come, once opened.
    left_bytes: Option<u64>,
    /// The source has said what lacks of the basis.
    has_lacked: bool,
    done: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct DestinationSession<M> {
    begun: bool,
    scanned: bool,
    /// Entries listed so far: a listing that was lost shows at the end of the scan.
    listed_entries: u64,
    directories: ByOwnNumber<Directory<M>>,
    /// The directory above the one that was listed last: most are followed by a sibling.
    last_parent: Option<(Box<[u8]>, DirectoryId)>,
    next_directory: DirectoryId,
    pieces: HashMap<u32, PieceState>,
    entries_in_window: usize,
    files: ByOwnNumber<FileState>,
    next_file: u32,
    ready: VecDeque<DirectoryId>,
    complete: VecDeque<CompleteDirectory<M>>,
    released: Vec<u32>,
    released_entries: usize,
    signature_bytes: u64,
    /// Pieces of which something is pending.
    unresolved_pieces: usize,
    /// Removals that the source was told and has not dealt with.
    removals_under_way: u32,
}

/// Entries of released pieces that are worth a message of their own.
const WORTH_RELEASING: usize = 4096;

fn unexpected<T>(what: &'static str, why: &'static str) -> Result<T, ProtocolError> {
    Err(ProtocolError::Unexpected { what, why })
}

impl<M: Clone> Default for DestinationSession<M> {
    fn default() -> Self {
        DestinationSession::new()
    }
}

impl<M: Clone> DestinationSession<M> {
    /// A session that has heard nothing yet.
    #[must_use]
    pub fn new() -> DestinationSession<M> {
        DestinationSession {
            begun: false,
            scanned: false,
            listed_entries: 0,
            directories: ByOwnNumber::default(),
            last_parent: None,
            next_directory: 0,
            pieces: HashMap::new(),
            entries_in_window: 0,
            files: ByOwnNumber::default(),
            next_file: 0,
            ready: VecDeque::new(),
            complete: VecDeque::new(),
            released: Vec::new(),
            released_entries: 0,
            signature_bytes: 0,
            unresolved_pieces: 0,
            removals_under_way: 0,
        }
    }

    /// Takes in a message from the source.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn receive(&mut self, message: Message) -> Result<DestinationEvent, ProtocolError> {
        match message {
            Message::Begin(begin) => {
                if self.begun || begin.root.as_ref().is_some_and(|root| !root.is_dir() || !root.is_sane()) {
                    return unexpected("begin", "said twice, or the root is no directory");
                }
                self.begun = true;
                self.announce(None);
                Ok(DestinationEvent::Begin(begin))
            }
            Message::Abort(abort) => Ok(DestinationEvent::Aborted(abort)),
            Message::KeepAlive => Ok(DestinationEvent::Nothing),
            Message::Spent(times) => Ok(DestinationEvent::Spent(times)),
            Message::Removed(count) => match self.removals_under_way.checked_sub(count) {
                Some(left) => {
                    self.removals_under_way = left;
                    Ok(DestinationEvent::Removed)
                }
                None => unexpected("removed", "more than was to be removed"),
            },
            other if !self.begun => unexpected(other.name(), "the source has not begun"),
            Message::List(pieces) => {
                pieces.into_iter().try_for_each(|piece| self.list(piece))?;
                Ok(DestinationEvent::Listed)
            }
            Message::Scanned(totals) => {
                let unlisted = self.directories.values().any(|directory| !directory.listed);
                if self.scanned || unlisted {
                    return unexpected("scan end", "said twice, or directories are not listed");
                }
                if totals.entries != self.listed_entries {
                    return unexpected("scan end", "its total is not what was listed");
                }
                self.scanned = true;
                Ok(DestinationEvent::Scanned(totals))
            }
            Message::Data(data) => {
                self.data(&data)?;
                Ok(DestinationEvent::Data(data))
            }
            Message::Report(reports) => {
                let (mut problems, mut notes) = (Vec::new(), Vec::new());
                for report in reports {
                    match report {
                        Report::Problem(problem) => problems.push(problem),
                        Report::Note(note) => notes.push(note),
                        Report::Item(_) | Report::MadeRoot(_) => {
                            return unexpected("report", "a source reports problems and notes only");
                        }
                    }
                }
                Ok(DestinationEvent::Reports { problems, notes })
            }
            other => unexpected(other.name(), "a source does not send it"),
        }
    }

    // Directories and pieces.

    fn announce(&mut self, parent: Option<(DirectoryId, Name)>) {
        let id = self.next_directory;
        self.next_directory += 1;
        if let Some((parent, name)) = &parent
            && let Some(parent) = self.directories.get_mut(parent)
        {
            parent.children.insert(name.clone(), id);
        }
        let directory = Directory {
            parent,
            children: HashMap::new(),
            standing: None,
            waiting: VecDeque::new(),
            merging: false,
            last_name: None,
            listed: false,
            pending: 1,
            touched: false,
        };
        self.directories.insert(id, directory);
    }

    fn list(&mut self, piece: Piece) -> Result<(), ProtocolError> {
        if self.scanned {
            return unexpected("listing", "the scan had ended");
        }
        if !piece.is_sane() {
            return unexpected("listing", "unsorted, repeated, oversized or impossible entries");
        }
        if self.pieces.contains_key(&piece.list) {
            return unexpected("listing", "its number is in use");
        }
        let weight = piece.weight();
        self.entries_in_window += weight;
        if self.entries_in_window > limits::WINDOW_ENTRIES {
            return unexpected("listing", "more entries than the window holds");
        }
        let Some(id) = self.listed_directory(&piece.directory) else {
            return unexpected("listing", "its directory was not announced, or is complete");
        };
        let Some(directory) = self.directories.get_mut(&id).filter(|directory| !directory.listed) else {
            return unexpected("listing", "its directory was listed to its end");
        };
        if let (Some(last), Some(first)) = (&directory.last_name, piece.entries.first())
            && first.name <= *last
        {
            return unexpected("listing", "it does not follow on the piece before");
        }
        directory.listed = piece.last;
        directory.last_name = piece.last_name().cloned().or(directory.last_name.take());
        self.listed_entries += piece.entries.len() as u64;
        let mut children = 0;
        for entry in piece.entries.iter().filter(|entry| entry.is_dir()) {
            self.announce(Some((id, entry.name.clone())));
            children += 1;
        }
        let entries = u32::try_from(weight).unwrap_or(u32::MAX);
        self.pieces.insert(piece.list, PieceState { pending: 1, to_remove: 0, entries });
        self.unresolved_pieces += 1;
        if let Some(directory) = self.directories.get_mut(&id) {
            directory.pending += children;
            directory.waiting.push_back(piece);
        }
        self.make_ready(id);
        Ok(())
    }

    fn make_ready(&mut self, id: DirectoryId) {
        if let Some(directory) = self.directories.get_mut(&id)
            && directory.standing.is_some()
            && !directory.merging
            && !directory.waiting.is_empty()
        {
            directory.merging = true;
            self.ready.push_back(id);
        }
    }

    /// Says how the root stands, so that its pieces can be merged.
    pub fn root_stands(&mut self, standing: Standing<M>) {
        self.stands(0, standing);
    }

    fn stands(&mut self, id: DirectoryId, standing: Standing<M>) {
        if let Some(directory) = self.directories.get_mut(&id) {
            directory.standing = Some(standing);
        }
        self.make_ready(id);
    }

    /// A piece to merge now, if there is one. Pieces of skipped directories are dealt with here.
    pub fn next_piece(&mut self) -> Option<ReadyPiece<M>> {
        while let Some(id) = self.ready.pop_front() {
            let Some(directory) = self.directories.get_mut(&id) else { continue };
            let standing = directory.standing.clone().unwrap_or(Standing::Skipped);
            let Some(piece) = directory.waiting.pop_front() else { continue };
            if matches!(standing, Standing::Skipped) {
                let children = piece.entries.iter().filter(|entry| entry.is_dir());
                let skipped = children.map(|entry| (entry.name.clone(), Standing::Skipped)).collect();
                self.merged(id, &piece, skipped);
                continue;
            }
            return Some(ReadyPiece { directory: id, standing, piece });
        }
        None
    }

    /// A piece was merged; `standings` has one for each directory it announced.
    pub fn merged(&mut self, id: DirectoryId, piece: &Piece, standings: Vec<(Name, Standing<M>)>) {
        for (name, standing) in standings {
            let parent = self.directories.get(&id);
            if let Some(&child) = parent.and_then(|parent| parent.children.get(&name)) {
                self.stands(child, standing);
            }
        }
        if let Some(directory) = self.directories.get_mut(&id) {
            directory.merging = false;
        }
        self.make_ready(id);
        self.resolve_piece(piece.list);
        if piece.last {
            self.resolve_directory(id);
        }
    }

    fn resolve_piece(&mut self, list: u32) {
        let Some(piece) = self.pieces.get_mut(&list) else { return };
        piece.pending -= 1;
        if piece.pending == 0 {
            self.unresolved_pieces -= 1;
            self.release_piece(list);
        }
    }

    /// Lets the source forget a piece once nothing in it is pending or to be removed.
    fn release_piece(&mut self, list: u32) {
        let Some(piece) = self.pieces.get_mut(&list) else { return };
        if piece.pending == 0 && piece.to_remove == 0 {
            self.entries_in_window -= piece.entries as usize;
            self.released_entries += piece.entries as usize;
            self.pieces.remove(&list);
            self.released.push(list);
        }
    }

    /// Something that a directory waited for has happened.
    fn resolve_directory(&mut self, id: DirectoryId) {
        let mut at = Some(id);
        while let Some(id) = at {
            let Some(directory) = self.directories.get_mut(&id) else { return };
            directory.pending -= 1;
            if directory.pending > 0 {
                return;
            }
            at = directory.parent.as_ref().map(|(parent, _)| *parent);
            self.complete(id);
        }
    }

    /// What a directory's metadata is to be at the end, if it is any of this run's business.
    #[must_use]
    pub fn metadata(&self, id: DirectoryId) -> Option<&M> {
        match self.directories.get(&id)?.standing.as_ref()? {
            Standing::Present { metadata, .. } => metadata.as_deref(),
            Standing::Absent | Standing::Skipped => None,
        }
    }

    /// Forgets a directory; its metadata is set now if there is a reason to.
    fn complete(&mut self, id: DirectoryId) {
        let Some(directory) = self.directories.get_mut(&id) else { return };
        if let Some(Standing::Present { metadata: Some(metadata), differs }) = directory.standing.take()
            && (differs || directory.touched)
        {
            let path = self.path(id);
            self.complete.push_back(CompleteDirectory { path, metadata });
        }
        if let Some(Directory { parent: Some((parent, name)), .. }) = self.directories.remove(&id)
            && let Some(parent) = self.directories.get_mut(&parent)
        {
            parent.children.remove(&name);
        }
    }

    fn path(&self, id: DirectoryId) -> RelPath {
        let mut names = Vec::new();
        let mut at = self.directories.get(&id);
        while let Some((parent, name)) = at.and_then(|directory| directory.parent.as_ref()) {
            names.push(name);
            at = self.directories.get(parent);
        }
        RelPath::of(names.into_iter().rev())
    }

    /// [`DestinationSession::directory`], which remembers the way to it.
    fn listed_directory(&mut self, path: &RelPath) -> Option<DirectoryId> {
        let bytes = path.as_bytes();
        let Some(slash) = bytes.iter().rposition(|&byte| byte == b'/') else { return self.directory(path) };
        let (above, name) = (&bytes[..slash], &bytes[slash + 1..]);
        let known = self.last_parent.as_ref().filter(|(path, _)| **path == *above).map(|&(_, id)| id);
        let parent = match known {
            Some(id) => id,
            None => self.directory_at(above)?,
        };
        // Numbers are not given twice: one that is complete is not found.
        let id = self.directories.get(&parent)?.children.get(name).copied();
        if known.is_none() {
            self.last_parent = Some((above.into(), parent));
        }
        id
    }

    /// The number of a directory that is not complete, by its path.
    #[must_use]
    pub fn directory(&self, path: &RelPath) -> Option<DirectoryId> {
        self.directory_at(path.as_bytes())
    }

    fn directory_at(&self, path: &[u8]) -> Option<DirectoryId> {
        let mut names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty());
        let root = self.directories.contains_key(&0).then_some(0);
        names.try_fold(root?, |id, name| self.directories.get(&id)?.children.get(name).copied())
    }

    /// Keeps a directory from completing until [`DestinationSession::let_go`]: something may be done
    /// in it.
    pub fn hold(&mut self, id: DirectoryId) {
        if let Some(directory) = self.directories.get_mut(&id) {
            directory.pending += 1;
        }
    }

    /// Something was done in the directory.
    pub fn touch(&mut self, id: DirectoryId) {
        if let Some(directory) = self.directories.get_mut(&id) {
            directory.touched = true;
        }
    }

    /// Undoes one [`DestinationSession::hold`].
    pub fn let_go(&mut self, id: DirectoryId) {
        self.resolve_directory(id);
    }

    /// Pieces that the source may forget, once they are worth a message: they would not all fit into the
    /// window with what is under way otherwise, or nothing else is.
    pub fn take_released(&mut self) -> Vec<u32> {
        if self.released_entries < WORTH_RELEASING && !self.pieces.is_empty() {
            return Vec::new();
        }
        self.released_entries = 0;
        std::mem::take(&mut self.released)
    }

    /// Directories that became complete, children before parents.
    pub fn take_complete(&mut self) -> Vec<CompleteDirectory<M>> {
        self.complete.drain(..).collect()
    }

    /// Whether the scan is over and every piece is resolved: what is left is held by the engine alone.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.scanned && self.unresolved_pieces == 0 && self.files.is_empty()
    }

    // Removals at the source.

    /// An entry of a piece that is not released yet may have to be removed at the source: the piece is kept until
    /// [`DestinationSession::stays`].
    pub fn will_remove(&mut self, list: u32) {
        if let Some(piece) = self.pieces.get_mut(&list) {
            piece.to_remove += 1;
        }
    }

    /// The source is about to be told to remove so many.
    pub fn remove(&mut self, removals: usize) {
        self.removals_under_way += u32::try_from(removals).unwrap_or(u32::MAX);
    }

    /// Undoes one [`DestinationSession::will_remove`]: the source was told, or keeps the entry.
    pub fn stays(&mut self, list: u32) {
        if let Some(piece) = self.pieces.get_mut(&list) {
            piece.to_remove -= 1;
        }
        self.release_piece(list);
    }

    /// Whether the source has dealt with all that it was to remove.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removals_under_way == 0
    }

    /// Whether every directory is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_idle() && self.directories.is_empty()
    }

    // Files.

    /// Asks for a file of a piece. Until it is [resolved](DestinationSession::resolve), the piece and
    /// its directory are held.
    ///
    /// Returns none where signatures under way leave no room: ask again when a file was resolved.
    pub fn request(&mut self, list: u32, index: u32, want: Want) -> Option<Request> {
        let signature_bytes = signature_bytes(want);
        if self.signature_bytes + signature_bytes > limits::SIGNATURES_BYTES {
            return None;
        }
        self.signature_bytes += signature_bytes;
        let file = self.next_file;
        self.next_file = self.next_file.wrapping_add(1);
        if let Some(piece) = self.pieces.get_mut(&list) {
            piece.pending += 1;
        }
        let state = FileState { list, want, lane: None, left_bytes: None, has_lacked: false, done: false };
        self.files.insert(file, state);
        Some(Request { list, index, file, want })
    }

    /// Keeps a piece from being released until [`DestinationSession::unreserve`]: a request for one of its
    /// files will follow.
    pub fn reserve(&mut self, list: u32) {
        if let Some(piece) = self.pieces.get_mut(&list) {
            piece.pending += 1;
        }
    }

    /// Undoes one [`DestinationSession::reserve`].
    pub fn unreserve(&mut self, list: u32) {
        self.resolve_piece(list);
    }

    /// A file was verified, or given up: nothing more comes of it.
    pub fn resolve(&mut self, file: u32) {
        if let Some(state) = self.files.remove(&file) {
            if !state.done {
                self.signature_bytes -= signature_bytes(state.want);
            }
            self.resolve_piece(state.list);
        }
    }

    fn data(&mut self, data: &Data) -> Result<(), ProtocolError> {
        let mut bulk_left = data.bulk.as_slice().len() as u64;
        for record in &data.records {
            let used = self.step(data.lane, record)?;
            bulk_left = match bulk_left.checked_sub(used) {
                Some(left) => left,
                None => return unexpected("data", "fewer bytes than its records say"),
            };
        }
        if bulk_left == 0 { Ok(()) } else { unexpected("data", "more bytes than its records say") }
    }

    /// Checks one step and returns how many of the frame's bytes it takes.
    fn step(&mut self, lane: u8, record: &Record) -> Result<u64, ProtocolError> {
        let Some(file) = self.files.get_mut(&record.file) else {
            return unexpected("data", "the file was not asked for");
        };
        if file.done || file.lane.is_some_and(|known| known != lane) {
            return unexpected("data", "the file was complete, or came in another lane");
        }
        file.lane = Some(lane);
        let wants_hash = file.want.hash().is_some();
        let take = |left: &mut Option<u64>, bytes: u64| match left.and_then(|left| left.checked_sub(bytes)) {
            Some(rest) => {
                *left = Some(rest);
                Ok(())
            }
            None => unexpected("data", "not opened, or longer than declared"),
        };
        match record.step {
            Step::Lacks { bytes } => {
                let Want::Narrowed { basis_bytes, .. } = file.want else {
                    return unexpected("data", "what lacks of a basis, unasked");
                };
                if file.has_lacked || file.left_bytes.is_some() {
                    return unexpected("data", "what lacks of a basis, said twice or too late");
                }
                if u64::from(bytes) != narrow::bits_bytes(basis_bytes) {
                    return unexpected("data", "not a bit for each block that may lack");
                }
                file.has_lacked = true;
                Ok(u64::from(bytes))
            }
            Step::Open { size_bytes, .. } if file.left_bytes.is_none() && !wants_hash => {
                if matches!(file.want, Want::Narrowed { .. }) && !file.has_lacked {
                    return unexpected("data", "opened before it was said what lacks of the basis");
                }
                if i64::try_from(size_bytes).is_err() {
                    return unexpected("data", "an impossible size");
                }
                if let Want::Aligned { block_size, .. } = file.want
                    && subtree::block_size(block_size, size_bytes).is_err()
                {
                    return unexpected("data", "a file of too many blocks");
                }
                file.left_bytes = Some(size_bytes);
                Ok(0)
            }
            Step::Literal { bytes } => {
                take(&mut file.left_bytes, u64::from(bytes))?;
                Ok(u64::from(bytes))
            }
            Step::Zeros { bytes } => {
                take(&mut file.left_bytes, u64::from(bytes))?;
                Ok(0)
            }
            Step::Match { block, count } => {
                let bytes = matched_bytes(file.want, block, count)?;
                take(&mut file.left_bytes, bytes)?;
                Ok(0)
            }
            Step::Pages { page, count } => {
                let bytes = moved_bytes(file.want, page, count)?;
                take(&mut file.left_bytes, bytes)?;
                Ok(0)
            }
            Step::End(_) if file.left_bytes == Some(0) => {
                file.done = true;
                self.signature_bytes -= signature_bytes(file.want);
                Ok(0)
            }
            Step::Small { bytes, .. }
                if file.left_bytes.is_none()
                    && !wants_hash
                    && u64::from(bytes) <= limits::SMALL_FILE_BYTES =>
            {
                file.done = true;
                self.signature_bytes -= signature_bytes(file.want);
                Ok(u64::from(bytes))
            }
            Step::Hashed { .. } if wants_hash => {
                file.done = true;
                Ok(0)
            }
            Step::Failed(Failure::Misaligned)
                if !matches!(file.want, Want::Aligned { .. } | Want::Narrowed { .. }) =>
            {
                unexpected("data", "what was not compared in place is said to be out of place")
            }
            Step::Failed(Failure::HasHoles)
                if !matches!(
                    file.want,
                    Want::Aligned { .. } | Want::Delta { .. } | Want::Narrowed { .. }
                ) =>
            {
                unexpected("data", "what was asked for with its holes is said to have them")
            }
            Step::Failed(_) => {
                file.done = true;
                self.signature_bytes -= signature_bytes(file.want);
                Ok(0)
            }
            _ => unexpected("data", "a step out of its order"),
        }
    }
}

fn signature_bytes(want: Want) -> u64 {
    want.budget_bytes().unwrap_or(0)
}

/// Length of the pages that moved.
fn moved_bytes(want: Want, page: u64, count: u32) -> Result<u64, ProtocolError> {
    let Want::Aligned { basis_bytes, .. } = want else {
        return unexpected("data", "pages of what is not compared in place");
    };
    let bytes = u64::from(count) * u64::from(PAGE_BYTES);
    let end = page.checked_mul(u64::from(PAGE_BYTES)).and_then(|from| from.checked_add(bytes));
    match end {
        Some(end) if count > 0 && end <= basis_bytes => Ok(bytes),
        _ => unexpected("data", "pages outside the basis"),
    }
}

/// Length of the blocks that a match names.
fn matched_bytes(want: Want, block: u64, count: u32) -> Result<u64, ProtocolError> {
    let Some((block_size, basis_bytes)) = want.basis()? else {
        return unexpected("data", "a match without a basis");
    };
    let size = u64::from(block_size.bytes());
    let from = block.checked_mul(size).filter(|&from| from < basis_bytes);
    let to = block.checked_add(u64::from(count)).and_then(|end| end.checked_mul(size));
    match (from, to) {
        (Some(from), Some(to)) if count > 0 && to - from < basis_bytes - from + size => {
            Ok(to.min(basis_bytes) - from)
        }
        _ => unexpected("data", "a match outside the basis"),
    }
}

//! The destination's end of a session, without a disk.

use super::*;

#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) directory: DirectoryId,
    pub(crate) parent: RelPath,
    pub(crate) path: RelPath,
    pub(crate) list: u32,
    pub(crate) index: u32,
    pub(crate) changes: u8,
    pub(crate) mismatches: u8,
    pub(crate) is_misaligned: bool,
    pub(crate) has_holes: bool,
}

pub(crate) struct Flight {
    pub(crate) target: Target,
    pub(crate) want: Want,
    pub(crate) basis: Vec<u8>,
    pub(crate) written: Vec<u8>,
    pub(crate) ours: Option<blake3::Hash>,
    pub(crate) theirs: Option<ReadFile>,
}

pub(crate) enum Task {
    /// Ask for a delta, when the budget has room.
    Ask(Target),
    /// Send the rest of a signature.
    Sign { file: u32, list: u32, blocks: Vec<u8> },
    /// Hash the own file for a comparison.
    Hash(u32),
}

pub(crate) struct Commit {
    pub(crate) target: Target,
    pub(crate) node: Node,
}

pub(crate) struct DestinationEnd {
    pub(crate) session: DestinationSession<RelPath>,
    pub(crate) tree: Tree,
    pub(crate) options: SyncOptions,
    pub(crate) begun: bool,
    pub(crate) ready: Vec<ReadyPiece<RelPath>>,
    pub(crate) tasks: Vec<Task>,
    /// How often a source lacked a part of a signature.
    pub(crate) lacking: u64,
    pub(crate) flights: HashMap<u32, Flight>,
    pub(crate) commits: Vec<Commit>,
    /// Directories held to the end, as for deletions.
    pub(crate) held: Vec<(DirectoryId, RelPath)>,
    pub(crate) released: Vec<u32>,
    pub(crate) finished: bool,
    pub(crate) scanned: bool,
    /// Model: what each directory still waits for, those that must complete, those that did.
    pub(crate) busy: BTreeMap<RelPath, u32>,
    pub(crate) due: HashSet<RelPath>,
    pub(crate) present: HashSet<RelPath>,
    pub(crate) completed: HashSet<RelPath>,
    pub(crate) refused: HashSet<RelPath>,
}

impl DestinationEnd {
    pub(crate) fn new(tree: Tree) -> DestinationEnd {
        let preserve = Preserve { links: true, perms: true, times: true, ..Preserve::default() };
        DestinationEnd {
            session: DestinationSession::new(),
            tree,
            options: SyncOptions { recursive: true, preserve, ..SyncOptions::default() },
            begun: false,
            ready: Vec::new(),
            tasks: Vec::new(),
            lacking: 0,
            flights: HashMap::new(),
            commits: Vec::new(),
            held: Vec::new(),
            released: Vec::new(),
            finished: false,
            scanned: false,
            busy: BTreeMap::new(),
            due: HashSet::new(),
            present: HashSet::new(),
            completed: HashSet::new(),
            refused: HashSet::new(),
        }
    }

    pub(crate) fn hold(&mut self, id: DirectoryId, path: &RelPath) {
        self.session.hold(id);
        *self.busy.entry(path.clone()).or_default() += 1;
    }

    pub(crate) fn let_go(&mut self, id: DirectoryId, path: &RelPath) {
        *self.busy.get_mut(path).unwrap() -= 1;
        self.session.let_go(id);
    }

    pub(crate) fn touch(&mut self, id: DirectoryId, path: &RelPath) {
        self.session.touch(id);
        self.due.insert(path.clone());
    }

    pub(crate) fn stands(&mut self, path: &RelPath, standing: &Standing<RelPath>) {
        if *standing != Standing::Skipped {
            *self.busy.entry(path.clone()).or_default() += 1;
        }
        match standing {
            Standing::Present { differs, .. } => {
                self.present.insert(path.clone());
                if *differs {
                    self.due.insert(path.clone());
                }
            }
            _ => {
                self.refused.insert(path.clone());
            }
        }
    }

    /// Hands on what the session has made possible.
    pub(crate) fn advance(&mut self) {
        while let Some(ready) = self.session.next_piece() {
            self.ready.push(ready);
        }
        self.released.extend(self.session.take_released());
    }

    pub(crate) fn receive(
        &mut self,
        random: &mut Random,
        message: Message,
    ) -> Result<Vec<Message>, ProtocolError> {
        let mut replies = Vec::new();
        match self.session.receive(message)? {
            DestinationEvent::Begin(_) => {
                self.begun = true;
                let root = RelPath::root();
                let standing = Standing::Present { metadata: Some(Box::new(root.clone())), differs: true };
                self.stands(&root, &standing);
                self.session.root_stands(standing);
            }
            DestinationEvent::Scanned(_) => self.scanned = true,
            DestinationEvent::Data(data) => self.data(random, &data, &mut replies),
            _ => {}
        }
        self.advance();
        Ok(replies)
    }

    /// Merges a piece and returns the requests that come of it.
    pub(crate) fn merge(
        &mut self,
        random: &mut Random,
        variant: &Variant,
        at: usize,
        totals: &mut Totals,
    ) -> Vec<Request> {
        let ReadyPiece { directory, standing, piece } = self.ready.swap_remove(at);
        let mut requests = Vec::new();
        let mut standings = Vec::new();
        for (index, entry) in piece.entries.iter().enumerate() {
            let path = piece.directory.join(&entry.name);
            if entry.is_dir() {
                let child = self.directory(random, variant, directory, &piece.directory, &path, &standing);
                totals.refused_directories += u64::from(!matches!(child, Standing::Present { .. }));
                self.stands(&path, &child);
                standings.push((entry.name.clone(), child));
                continue;
            }
            if matches!(standing, Standing::Absent) {
                continue;
            }
            let target = Target {
                directory,
                parent: piece.directory.clone(),
                path,
                list: piece.list,
                index: u32::try_from(index).unwrap(),
                changes: 0,
                mismatches: 0,
                is_misaligned: false,
                has_holes: false,
            };
            requests.extend(self.entry(entry, target));
        }
        if piece.last && random.chance(10) {
            self.hold(directory, &piece.directory);
            self.held.push((directory, piece.directory.clone()));
        }
        if piece.last
            && let Some(busy) = self.busy.get_mut(&piece.directory)
        {
            *busy -= 1;
        }
        self.session.merged(directory, &piece, standings);
        self.advance();
        requests
    }

    pub(crate) fn directory(
        &mut self,
        random: &mut Random,
        variant: &Variant,
        parent_id: DirectoryId,
        parent: &RelPath,
        path: &RelPath,
        parent_standing: &Standing<RelPath>,
    ) -> Standing<RelPath> {
        if matches!(parent_standing, Standing::Absent) {
            return Standing::Absent;
        }
        if random.chance(variant.refused_percent) {
            return if random.chance(50) { Standing::Absent } else { Standing::Skipped };
        }
        let is_new = self.tree.insert(path.clone(), Node::Directory) != Some(Node::Directory);
        if is_new {
            self.touch(parent_id, parent);
        }
        let differs = is_new || random.chance(30);
        Standing::Present { metadata: Some(Box::new(path.clone())), differs }
    }

    pub(crate) fn entry(&mut self, entry: &Entry, target: Target) -> Option<Request> {
        let existing = self.tree.get(&target.path).map(|node| self::entry(&entry.name, node, false));
        let (action, _) = decide(entry, existing.as_ref(), &self.options);
        let (id, parent) = (target.directory, target.parent.clone());
        match action {
            Action::Skip | Action::Keep | Action::SetMetadata => None,
            Action::Make => {
                let Kind::Symlink { target: to } = &entry.kind else { return None };
                self.hold(id, &parent);
                self.commits.push(Commit { target, node: Node::Link(to.clone()) });
                None
            }
            Action::Transfer { .. } => {
                self.hold(id, &parent);
                let basis_bytes = existing.map_or(0, |existing| existing.size_bytes());
                if entry.size_bytes().min(basis_bytes) > limits::SMALL_FILE_BYTES {
                    self.session.reserve(target.list);
                    self.tasks.push(Task::Ask(target));
                    return None;
                }
                Some(self.request(target, Want::Whole, Vec::new()))
            }
            Action::Compare => {
                self.hold(id, &parent);
                let request = self.request(target, Want::Hash, Vec::new());
                self.tasks.push(Task::Hash(request.file));
                Some(request)
            }
        }
    }

    pub(crate) fn request(&mut self, target: Target, want: Want, basis: Vec<u8>) -> Request {
        let request = self.session.request(target.list, target.index, want);
        self.flying(request.expect("only deltas need room"), target, want, basis)
    }

    pub(crate) fn flying(&mut self, request: Request, target: Target, want: Want, basis: Vec<u8>) -> Request {
        let flight = Flight { target, want, basis, written: Vec::new(), ours: None, theirs: None };
        assert!(self.flights.insert(request.file, flight).is_none(), "a number was given twice");
        request
    }

    /// Carries out a bit of a task.
    pub(crate) fn work(
        &mut self,
        random: &mut Random,
        variant: &Variant,
        at: usize,
        totals: &mut Totals,
    ) -> Vec<Message> {
        match self.tasks.swap_remove(at) {
            Task::Ask(target) => self.ask(random, variant, target, totals),
            Task::Sign { file, list, mut blocks } => {
                let length = protocol::signature::ENTRY_BYTES * (1 + random.below(40));
                let now = length.min(blocks.len());
                let rest = blocks.split_off(now);
                if rest.is_empty() {
                    self.session.unreserve(list);
                    self.advance();
                } else {
                    self.tasks.push(Task::Sign { file, list, blocks: rest });
                }
                vec![Message::decode(signature_frame(file, &blocks)).unwrap()]
            }
            Task::Hash(file) => {
                if let Some(flight) = self.flights.get_mut(&file)
                    && let Some(Node::File(content)) = self.tree.get(&flight.target.path)
                {
                    flight.ours = Some(blake3::hash(content));
                }
                let reply = self.compare(file);
                self.advance();
                reply.into_iter().collect()
            }
        }
    }

    pub(crate) fn ask(
        &mut self,
        random: &mut Random,
        variant: &Variant,
        target: Target,
        totals: &mut Totals,
    ) -> Vec<Message> {
        let basis = match self.tree.get(&target.path) {
            Some(Node::File(content)) => content.clone(),
            _ => Vec::new(),
        };
        let huge = variant.huge_bases && random.chance(60);
        let basis_bytes = if huge { 510 << 20 } else { basis.len() as u64 };
        let block_size = 512 << if huge { 0 } else { random.below(4) };
        let in_place = !huge && !target.is_misaligned && random.chance(40);
        let of_basis: Vec<u8> = (0..)
            .zip(basis.chunks(sparse::GROUP_BYTES as usize))
            .filter(|(_, block)| target.has_holes && !is_zero(block))
            .flat_map(|(number, block)| sparse::entry(number, &sparse::head(block)))
            .collect();
        let want = if target.has_holes {
            let blocks = (of_basis.len() / sparse::ENTRY_BYTES) as u32;
            Want::Sparse { block_size: sparse::GROUP_BYTES, basis_bytes: basis.len() as u64, blocks }
        } else if in_place {
            let basis_head = random.chance(50).then(|| pages::head(blake3::hash(&basis).as_bytes()));
            Want::Aligned {
                block_size: subtree::block_size_for(basis_bytes).bytes(),
                basis_bytes,
                basis_head,
            }
        } else if !huge && !target.is_misaligned && random.chance(40) {
            Want::Narrowed { block_size, basis_bytes }
        } else {
            Want::Delta { block_size, basis_bytes }
        };
        let Some(request) = self.session.request(target.list, target.index, want) else {
            totals.budget_waits += 1;
            self.tasks.push(Task::Ask(target));
            return Vec::new();
        };
        totals.deltas += 1;
        let list = target.list;
        let (size, _) = want.basis().unwrap().unwrap();
        let whole_blocks = if huge { basis.len() - basis.len() % 512 } else { basis.len() };
        let mut blocks = match want {
            Want::Aligned { .. } => subtree::entries(&subtree::values(&basis, 0, size)),
            Want::Narrowed { .. } => {
                subtree::entries(&subtree::values(&basis, 0, narrow::large_block_size(basis_bytes)))
            }
            Want::Sparse { .. } => of_basis,
            _ => calculate(&basis[..whole_blocks], size),
        };
        if huge && !target.has_holes {
            // The source reads no further than its own file is long; what no block has matches nothing.
            blocks.resize(protocol::signature::ENTRY_BYTES * 200, 0);
        }
        self.flying(request, target, want, basis);
        if blocks.is_empty() {
            self.session.unreserve(list);
            self.advance();
        } else {
            self.tasks.push(Task::Sign { file: request.file, list, blocks });
        }
        vec![Message::Request(vec![request])]
    }

    /// Takes in answers that the session has checked.
    pub(crate) fn data(&mut self, random: &mut Random, data: &Data, replies: &mut Vec<Message>) {
        let mut bulk = data.bulk.as_slice();
        for record in &data.records {
            let mut take = |bytes: u32| {
                let (now, rest) = bulk.split_at(bytes as usize);
                bulk = rest;
                now
            };
            let file = record.file;
            let Some(flight) = self.flights.get_mut(&file) else { continue };
            match record.step {
                Step::Open { .. } => {}
                Step::Lacks { bytes } => {
                    let (size, basis_bytes) = flight.want.basis().unwrap().expect("it lacks a basis");
                    let entries: Vec<u8> = narrow::lacking(take(bytes), basis_bytes)
                        .flat_map(|at| calculate(&flight.basis[at.start as usize..at.end as usize], size))
                        .collect();
                    if !entries.is_empty() {
                        self.lacking += 1;
                        replies.push(Message::decode(signature_frame(file, &entries)).unwrap());
                    }
                }
                Step::Literal { bytes } => flight.written.extend_from_slice(take(bytes)),
                Step::Match { block, count } => {
                    let (size, _) = flight.want.basis().unwrap().expect("a match has a basis");
                    let size = size.bytes() as usize;
                    let from = (block as usize).saturating_mul(size).min(flight.basis.len());
                    let to = (block as usize + count as usize).saturating_mul(size).min(flight.basis.len());
                    flight.written.extend_from_slice(&flight.basis[from..to]);
                }
                Step::Pages { page, count } => {
                    let size = pages::PAGE_BYTES as usize;
                    let from = page as usize * size;
                    flight.written.extend_from_slice(&flight.basis[from..from + count as usize * size]);
                }
                Step::Zeros { bytes } => flight.written.resize(flight.written.len() + bytes as usize, 0),
                Step::End(read) => replies.extend(self.end(file, read)),
                Step::Small { bytes, read } => {
                    flight.written = take(bytes).to_vec();
                    replies.extend(self.end(file, read));
                }
                Step::Hashed { read, .. } => {
                    flight.theirs = Some(read);
                    replies.extend(self.compare(file));
                }
                Step::Failed(failure) => replies.extend(self.failed(random, file, failure)),
            }
        }
    }

    pub(crate) fn end(&mut self, file: u32, read: ReadFile) -> Option<Message> {
        let flight = &mut self.flights.get_mut(&file).unwrap();
        if *blake3::hash(&flight.written).as_bytes() == read.hash {
            let (target, content) = (flight.target.clone(), std::mem::take(&mut flight.written));
            self.commits.push(Commit { target, node: Node::File(content) });
            self.resolve(file);
            return None;
        }
        let target = flight.target.clone();
        if target.mismatches > 0 {
            self.give_up(file);
            return None;
        }
        Some(self.again(file, Target { mismatches: 1, ..target }, Want::Whole))
    }

    /// Asks once more, before the first request is resolved.
    pub(crate) fn again(&mut self, file: u32, target: Target, want: Want) -> Message {
        let request = self.request(target, want, Vec::new());
        if want == Want::Hash {
            self.tasks.push(Task::Hash(request.file));
        }
        self.resolve(file);
        Message::Request(vec![request])
    }

    pub(crate) fn failed(&mut self, random: &mut Random, file: u32, failure: Failure) -> Option<Message> {
        let flight = &self.flights[&file];
        let (target, want) = (flight.target.clone(), flight.want);
        if failure == Failure::Misaligned {
            self.session.reserve(target.list);
            self.tasks.push(Task::Ask(Target { is_misaligned: true, ..target }));
            self.resolve(file);
            return None;
        }
        if failure == Failure::HasHoles {
            self.session.reserve(target.list);
            self.tasks.push(Task::Ask(Target { has_holes: true, ..target }));
            self.resolve(file);
            return None;
        }
        if failure != Failure::Changed || target.changes >= limits::CHANGE_RETRIES {
            self.give_up(file);
            return None;
        }
        let target = Target { changes: target.changes + 1, ..target };
        match want {
            Want::Delta { .. } | Want::Aligned { .. } | Want::Narrowed { .. } if random.chance(70) => {
                self.session.reserve(target.list);
                self.tasks.push(Task::Ask(target));
                self.resolve(file);
                None
            }
            Want::Hash => Some(self.again(file, target, Want::Hash)),
            _ => Some(self.again(file, target, Want::Whole)),
        }
    }

    pub(crate) fn compare(&mut self, file: u32) -> Option<Message> {
        let flight = self.flights.get(&file)?;
        let (ours, theirs) = (flight.ours?, flight.theirs?);
        if *ours.as_bytes() == theirs.hash {
            self.give_up(file);
            return None;
        }
        let target = flight.target.clone();
        Some(self.again(file, target, Want::Whole))
    }

    pub(crate) fn resolve(&mut self, file: u32) {
        self.flights.remove(&file);
        self.session.resolve(file);
        self.advance();
    }

    pub(crate) fn give_up(&mut self, file: u32) {
        let target = self.flights[&file].target.clone();
        self.let_go(target.directory, &target.parent);
        self.resolve(file);
    }

    pub(crate) fn commit(&mut self, at: usize) {
        let Commit { target, node } = self.commits.swap_remove(at);
        self.tree.insert(target.path.clone(), node);
        self.touch(target.directory, &target.parent);
        self.let_go(target.directory, &target.parent);
    }

    pub(crate) fn complete(&mut self, careful: bool) {
        for directory in self.session.take_complete() {
            let path = directory.path;
            assert_eq!(*directory.metadata, path, "another directory's metadata");
            assert!(self.due.contains(&path), "{path} completed without a reason");
            if careful {
                let waiting =
                    self.busy.iter().find(|(at, count)| **count > 0 && (**at == path || is_below(at, &path)));
                assert_eq!(waiting, None, "{path} completed too early");
                let below = self.due.iter().filter(|at| is_below(at, &path) && self.present.contains(at));
                let open: Vec<_> = below.filter(|at| !self.completed.contains(at)).collect();
                assert!(open.is_empty(), "{path} completed before {open:?}");
            }
            assert!(self.completed.insert(path), "a directory completed twice");
        }
    }
}

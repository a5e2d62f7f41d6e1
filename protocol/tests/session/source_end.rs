//! The source's end of a session, without a disk.

use super::*;

pub(crate) struct Cursor {
    pub(crate) path: RelPath,
    /// Entries that were listed already.
    pub(crate) position: usize,
}

/// A requested file on its way.
pub(crate) struct Answer {
    pub(crate) request: Request,
    pub(crate) content: Vec<u8>,
    /// This reading finds the file changed.
    pub(crate) changed: bool,
    pub(crate) position: usize,
    pub(crate) comparison: Option<Against>,
}

/// What a file is compared with.
pub(crate) enum Against {
    Blocks(Box<Matcher>),
    Values(Box<Comparison>),
    Sparse(Box<Blocks>),
    /// The first step of a delta in two, then the second.
    Large(Box<Narrowing>),
    Lacking(Option<Box<Lacking>>),
}

impl Against {
    pub(crate) fn new(want: Want, content: &[u8]) -> Result<Option<Against>, ProtocolError> {
        Ok(want.basis()?.map(|(size, basis_bytes)| match want {
            Want::Aligned { basis_head, .. } => {
                let pages = basis_head.map(|head| PageSearch::new(remembered(head, content), basis_bytes));
                let file_bytes = content.len() as u64;
                Against::Values(Box::new(Comparison::new(size, basis_bytes, file_bytes, pages)))
            }
            Want::Sparse { blocks, .. } => Against::Sparse(Box::new(Blocks::new(size, basis_bytes, blocks))),
            Want::Narrowed { .. } => {
                let file_bytes = content.len() as u64;
                Against::Large(Box::new(Narrowing::new(size, basis_bytes, file_bytes, None)))
            }
            _ => Against::Blocks(Box::new(Matcher::new(Signature::new(size, basis_bytes)))),
        }))
    }

    /// Takes in what has arrived of the basis's entries, and says what the whole file is.
    pub(crate) fn advance(&mut self, entries: &[u8], content: &[u8]) -> Result<Vec<Op>, ProtocolError> {
        let mut ops = Vec::new();
        match self {
            Against::Blocks(matcher) => {
                matcher.signature_mut().extend(entries)?;
                assert_eq!(matcher.advance(content, true, &mut ops), content.len());
            }
            Against::Large(_) => panic!("its second step comes first"),
            Against::Lacking(lacking) => {
                let mut lacking = lacking.take().expect("its search takes its place");
                lacking.extend(entries)?;
                assert!(lacking.is_complete(), "all of it has arrived");
                *self = Against::Blocks(Box::new(lacking.finish().0));
                return self.advance(&[], content);
            }
            Against::Values(comparison) => {
                comparison.extend(entries)?;
                comparison.advance(content, &mut ops);
            }
            Against::Sparse(blocks) => {
                blocks.extend(entries)?;
                let size = blocks.block_size().bytes() as usize;
                for (number, block) in (0u64..).zip(content.chunks(size)) {
                    let from = number as usize * size;
                    assert!(blocks.is_known(number), "all of it has arrived");
                    ops.push(match !is_zero(block) && blocks.stands(number, block) {
                        true => Op::Match { block: number, count: 1 },
                        false => Op::Literal(from..from + block.len()),
                    });
                }
            }
        }
        Ok(ops)
    }
}

/// What the source remembers of a basis: half the time nothing, else its own content, which is mostly another one.
fn remembered(head: BasisHead, content: &[u8]) -> Vec<PageHash> {
    let mut hasher = PageHasher::default();
    hasher.update(if head[0].is_multiple_of(2) { content } else { &[] });
    hasher.finish()
}

pub(crate) struct Lane {
    pub(crate) builder: DataBuilder,
    pub(crate) answer: Option<Answer>,
}

pub(crate) struct SourceEnd {
    pub(crate) session: SourceSession,
    pub(crate) tree: SourceTree,
    pub(crate) begun: bool,
    pub(crate) scanned: bool,
    pub(crate) scanning: Vec<Cursor>,
    pub(crate) next_list: u32,
    pub(crate) pieces: HashMap<u32, (RelPath, Vec<Name>)>,
    pub(crate) jobs: VecDeque<Request>,
    pub(crate) feeds: HashMap<u32, Vec<u8>>,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) readings: HashMap<RelPath, u8>,
    pub(crate) finished: bool,
    /// Model: entries announced and not released, requests of a list not answered.
    pub(crate) in_window: usize,
    pub(crate) unanswered: HashMap<u32, u32>,
}

impl SourceEnd {
    pub(crate) fn new(tree: SourceTree) -> SourceEnd {
        let lane = |number| Lane { builder: DataBuilder::new(number), answer: None };
        SourceEnd {
            session: SourceSession::default(),
            tree,
            begun: false,
            scanned: false,
            scanning: Vec::new(),
            next_list: 0,
            pieces: HashMap::new(),
            jobs: VecDeque::new(),
            feeds: HashMap::new(),
            lanes: vec![lane(0), lane(1)],
            readings: HashMap::new(),
            finished: false,
            in_window: 0,
            unanswered: HashMap::new(),
        }
    }

    /// The next piece of a directory; its cursor moves on or goes.
    pub(crate) fn cut_piece(&mut self, at: usize, most: usize) -> (Piece, Vec<RelPath>) {
        let cursor = &mut self.scanning[at];
        let directory = cursor.path.clone();
        let all = &self.tree[&directory];
        let part = all.iter().skip(cursor.position).take(most);
        let mut entries = Vec::new();
        let mut below = Vec::new();
        for (name, what) in part {
            let young = matches!(what, What::File { young: true, .. });
            entries.push(entry(name, &node_of(what), young));
            below.extend(matches!(what, What::Directory).then(|| directory.join(name)));
        }
        cursor.position += entries.len();
        let last = cursor.position == all.len();
        if last {
            self.scanning.swap_remove(at);
        }
        let list = self.next_list;
        self.next_list += 1;
        self.pieces
            .insert(list, (directory.clone(), entries.iter().map(|entry| entry.name.clone()).collect()));
        (Piece { list, directory, last, complete: true, names: OwnerNames::default(), entries }, below)
    }

    /// Lists up to three pieces in one frame, as far as the window allows.
    pub(crate) fn list(&mut self, random: &mut Random, most: usize) -> Message {
        let mut pieces = Vec::new();
        let mut found = Vec::new();
        for _ in 0..1 + random.below(3) {
            if self.scanning.is_empty() || !self.session.window_has_room_for(0) {
                break;
            }
            let at = random.below(self.scanning.len());
            let (piece, below) = self.cut_piece(at, most);
            self.session.announce(&piece);
            self.in_window += piece.entries.len().max(1);
            assert!(self.in_window <= limits::WINDOW_ENTRIES, "the window was exceeded");
            pieces.push(piece);
            found.extend(below);
        }
        self.scanning.extend(found.into_iter().map(|path| Cursor { path, position: 0 }));
        Message::List(pieces)
    }

    pub(crate) fn lane_can_advance(&self, lane: usize) -> bool {
        match &self.lanes[lane].answer {
            None => !self.jobs.is_empty(),
            Some(Answer { comparison: None, .. }) => true,
            Some(Answer { request, content, comparison, .. }) => {
                let arrived = self.feeds.get(&request.file).map_or(0, Vec::len) as u64;
                let Ok(Some((size, basis_bytes))) = request.want.basis() else { return true };
                match comparison {
                    Some(Against::Large(_)) => return arrived == request.want.signature_bytes().unwrap(),
                    Some(Against::Lacking(Some(lacking))) => return arrived == lacking.missing_bytes(),
                    _ => {}
                }
                if let Want::Sparse { blocks, .. } = request.want {
                    return arrived / sparse::ENTRY_BYTES as u64 >= u64::from(blocks);
                }
                let entry_bytes = match request.want {
                    Want::Aligned { .. } => subtree::ENTRY_BYTES,
                    _ => protocol::signature::ENTRY_BYTES,
                } as u64;
                arrived / entry_bytes >= size.blocks(basis_bytes.min(content.len() as u64))
            }
        }
    }

    /// One step of what a sending thread does.
    pub(crate) fn advance_lane(&mut self, random: &mut Random, number: usize) -> Result<(), ProtocolError> {
        let Some(mut answer) = self.lanes[number].answer.take() else {
            let request = self.jobs.pop_front().unwrap();
            return self.start_answer(random, number, request);
        };
        let file = answer.request.file;
        let builder = &mut self.lanes[number].builder;
        if let Some(Against::Large(narrowing)) = &mut answer.comparison {
            let arrived = self.feeds.insert(file, Vec::new()).unwrap_or_default();
            narrowing.comparison_mut().extend(&arrived)?;
            narrowing.advance(&answer.content);
            // Whether it is of use is for the source to judge; so small files it would never be.
            if !answer.changed && random.chance(20) {
                builder.step(file, Step::Failed(Failure::Misaligned));
                self.answered(answer.request);
                return Ok(());
            }
            builder.lacks(file, narrowing.bits());
            let Some(Against::Large(narrowing)) = answer.comparison.take() else { return Ok(()) };
            let lacking = narrowing.lacking();
            self.session.lacks(file, lacking.missing_bytes());
            let size_bytes = answer.content.len() as u64;
            builder.step(file, Step::Open { size_bytes, hash: HashKind::Plain });
            answer.comparison = Some(Against::Lacking(Some(Box::new(lacking))));
            self.lanes[number].answer = Some(answer);
            return Ok(());
        }
        if let Some(comparison) = &mut answer.comparison {
            let arrived = self.feeds.remove(&file).unwrap_or_default();
            let ops = comparison.advance(&arrived, &answer.content)?;
            for op in ops {
                match op {
                    Op::Match { block, count } => builder.step(file, Step::Match { block, count }),
                    Op::Pages { page, count } => builder.step(file, Step::Pages { page, count }),
                    Op::Literal(range) => builder.literal(file, &answer.content[range]),
                }
            }
            answer.position = answer.content.len();
        }
        let left = &answer.content[answer.position..];
        if !left.is_empty() {
            let now = 1 + random.below(left.len().min(9000));
            let now = now.min(builder.room_bytes().max(1));
            builder.literal(file, &left[..now]);
            answer.position += now;
            let breaks_off = answer.changed && random.chance(30);
            if !breaks_off {
                self.lanes[number].answer = Some(answer);
                return Ok(());
            }
        }
        let last =
            if answer.changed { Step::Failed(Failure::Changed) } else { Step::End(read(&answer.content)) };
        builder.step(file, last);
        self.answered(answer.request);
        Ok(())
    }

    pub(crate) fn start_answer(
        &mut self,
        random: &mut Random,
        number: usize,
        request: Request,
    ) -> Result<(), ProtocolError> {
        let (directory, names) = &self.pieces[&request.list];
        let name = &names[request.index as usize];
        let path = directory.join(name);
        let What::File { content, fate, .. } = &self.tree[directory][name] else {
            panic!("the session let a request for something else than a file through");
        };
        if matches!(request.want, Want::Aligned { .. } | Want::Narrowed { .. }) && random.chance(30) {
            self.lanes[number].builder.step(request.file, Step::Failed(Failure::Misaligned));
            self.answered(request);
            return Ok(());
        }
        if matches!(request.want, Want::Aligned { .. } | Want::Delta { .. } | Want::Narrowed { .. })
            && random.chance(10)
        {
            self.lanes[number].builder.step(request.file, Step::Failed(Failure::HasHoles));
            self.answered(request);
            return Ok(());
        }
        let reading = self.readings.entry(path).or_default();
        *reading += 1;
        let changed = matches!(fate, Fate::Changes(times) if *reading <= *times);
        let builder = &mut self.lanes[number].builder;
        let at_once = match (fate, request.want) {
            (Fate::Vanishes, _) => Some(Step::Failed(Failure::Vanished)),
            (Fate::Unreadable, _) => {
                Some(Step::Failed(Failure::Errno { operation: Operation::Read, errno: 5 }))
            }
            _ if changed && random.chance(50) => Some(Step::Failed(Failure::Changed)),
            (_, Want::Hash) => Some(Step::Hashed { size_bytes: content.len() as u64, read: read(content) }),
            _ => None,
        };
        if let Some(step) = at_once {
            builder.step(request.file, step);
            self.answered(request);
            return Ok(());
        }
        let is_small = content.len() as u64 <= limits::SMALL_FILE_BYTES;
        if request.want == Want::Whole && is_small && !changed {
            small(builder, request.file, content);
            self.answered(request);
            return Ok(());
        }
        if !matches!(request.want, Want::Narrowed { .. }) {
            let size_bytes = content.len() as u64;
            builder.step(request.file, Step::Open { size_bytes, hash: HashKind::Plain });
        }
        let comparison = Against::new(request.want, content)?;
        let content = content.clone();
        self.lanes[number].answer = Some(Answer { request, content, changed, position: 0, comparison });
        Ok(())
    }

    pub(crate) fn answered(&mut self, request: Request) {
        self.session.answered(request.file);
        self.feeds.remove(&request.file);
        if let Some(unanswered) = self.unanswered.get_mut(&request.list) {
            *unanswered -= 1;
        }
    }

    pub(crate) fn receive(&mut self, message: Message) -> Result<(), ProtocolError> {
        match self.session.receive(message)? {
            SourceEvent::Requests(requests) => {
                for request in requests {
                    *self.unanswered.entry(request.list).or_default() += 1;
                    if request.want.basis()?.is_some() {
                        self.feeds.insert(request.file, Vec::new());
                    }
                    self.jobs.push_back(request);
                }
            }
            SourceEvent::Signature { file, blocks } => {
                if let Some(feed) = self.feeds.get_mut(&file) {
                    feed.extend_from_slice(blocks.as_slice());
                }
            }
            SourceEvent::Released(lists) => {
                for list in lists {
                    assert_eq!(self.unanswered.remove(&list).unwrap_or(0), 0, "released while under way");
                    let (_, names) = self.pieces.remove(&list).unwrap();
                    self.in_window -= names.len().max(1);
                }
            }
            SourceEvent::Finished(_) => {
                assert!(self.session.is_finished());
                self.finished = true;
            }
            SourceEvent::Reports(_)
            | SourceEvent::Remove(_)
            | SourceEvent::Aborted(_)
            | SourceEvent::Nothing => {}
        }
        Ok(())
    }
}

pub(crate) fn small(builder: &mut DataBuilder, file: u32, content: &[u8]) {
    let append = |bytes: &mut Vec<u8>| {
        bytes.extend_from_slice(content);
        Ok::<(), ()>(())
    };
    builder.small_with(file, append, |content| Ok(read(content))).unwrap();
}

pub(crate) fn read(content: &[u8]) -> ReadFile {
    ReadFile { hash: blake3::hash(content).into(), mtime: Timestamp::default() }
}

//! The simulation: both ends, and the order in which things happen to them.

use super::*;

#[derive(Debug)]
pub(crate) enum Outcome {
    /// The source heard the destination's last word.
    Complete,
    /// One end refused what it received.
    Refused(&'static str, ProtocolError),
    /// Nothing is left that could happen: in the engine, the connection's end or the timeout says so.
    Stalled,
}

pub(crate) struct End {
    pub(crate) outcome: Outcome,
    pub(crate) frames: usize,
    pub(crate) tree: Tree,
    pub(crate) expected: Tree,
    /// Contents that are no file's, neither before nor after.
    pub(crate) torn: bool,
    pub(crate) totals: Totals,
}

impl End {
    /// What came of a fault; panics where it is something that must not be.
    pub(crate) fn check(&self, fault: Fault) -> &'static str {
        assert!(!self.torn, "a file has content that no file ever had");
        let is_right = first_difference(&self.tree, &self.expected).is_none();
        match &self.outcome {
            Outcome::Refused(end, error) => {
                assert!(!error.to_string().is_empty());
                if *end == "source" { "refused by the source" } else { "refused by the destination" }
            }
            Outcome::Stalled => "waits for the rest",
            Outcome::Complete if is_right => "right tree",
            // What a hash protects is content. A bit of a name, a number or a mode is the transport's
            // business; ssh authenticates every packet.
            Outcome::Complete if matches!(fault.damage, Damage::Flip(_)) => "flipped metadata",
            Outcome::Complete => {
                panic!("complete with a wrong tree: {:?}", first_difference(&self.tree, &self.expected))
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Begin,
    List,
    EndScan,
    Advance(usize),
    Flush(usize),
    ToDestination,
    ToSource,
    Merge,
    Work,
    Commit,
    Complete,
    Release,
    LetGo,
    Finish,
}

pub(crate) const EVENT_KINDS: usize = 14;

impl Event {
    pub(crate) fn kind(self) -> usize {
        match self {
            Event::Begin => 0,
            Event::List => 1,
            Event::EndScan => 2,
            Event::Advance(_) => 3,
            Event::Flush(_) => 4,
            Event::ToDestination => 5,
            Event::ToSource => 6,
            Event::Merge => 7,
            Event::Work => 8,
            Event::Commit => 9,
            Event::Complete => 10,
            Event::Release => 11,
            Event::LetGo => 12,
            Event::Finish => 13,
        }
    }
}

pub(crate) struct Simulation {
    pub(crate) random: Random,
    pub(crate) variant: Variant,
    pub(crate) weights: [usize; EVENT_KINDS],
    pub(crate) most_entries: usize,
    pub(crate) source: SourceEnd,
    pub(crate) destination: DestinationEnd,
    pub(crate) before: Tree,
    pub(crate) to_destination: Pipe,
    pub(crate) to_source: Pipe,
    pub(crate) fault: Option<Fault>,
    pub(crate) is_cut: bool,
    pub(crate) totals: Totals,
    pub(crate) frames: usize,
}

impl Simulation {
    pub(crate) fn new(seed: u64, variant: &Variant, fault: Option<Fault>) -> Simulation {
        let mut random = Random(seed);
        let tree = random_source(&mut random, variant);
        let before = random_destination(&mut random, variant, &tree);
        let weights = std::array::from_fn(|_| [1, 2, 8, 30][random.below(4)]);
        let most_entries = if variant.piece_entries > 8 {
            variant.piece_entries
        } else {
            1 + random.below(variant.piece_entries)
        };
        let totals = Totals {
            files: tree.values().map(|entries| entries.len() as u64).sum(),
            multi_piece_directories: tree.values().filter(|entries| entries.len() > most_entries).count()
                as u64,
            ..Totals::default()
        };
        Simulation {
            random,
            variant: variant.clone(),
            weights,
            most_entries,
            source: SourceEnd::new(tree),
            destination: DestinationEnd::new(before.clone()),
            before,
            to_destination: Pipe::default(),
            to_source: Pipe::default(),
            fault,
            is_cut: false,
            totals,
            frames: 0,
        }
    }

    pub(crate) fn run(mut self) -> End {
        let bound = 20_000 + 400 * self.variant.entries as u64;
        let outcome = loop {
            self.totals.steps += 1;
            assert!(self.totals.steps < bound, "no end in sight after {bound} steps");
            let Some(event) = self.next_event() else {
                if let Some(frame) = self.to_destination.overtaken.take() {
                    self.to_destination.bytes.extend(frame);
                } else if let Some(frame) = self.to_source.overtaken.take() {
                    self.to_source.bytes.extend(frame);
                } else {
                    break Outcome::Stalled;
                }
                continue;
            };
            if let Err((end, error)) = self.carry_out(event) {
                break Outcome::Refused(end, error);
            }
            if self.fault.is_none() {
                self.check_idle();
            }
            if self.source.finished {
                break Outcome::Complete;
            }
        };
        self.end(outcome)
    }

    pub(crate) fn next_event(&mut self) -> Option<Event> {
        let (source, destination) = (&self.source, &self.destination);
        let mut possible = Vec::new();
        let mut add = |is_possible: bool, event: Event| possible.extend(is_possible.then_some(event));
        add(!source.begun, Event::Begin);
        let has_more = source.begun && !source.scanning.is_empty();
        add(has_more && source.session.window_has_room_for(0), Event::List);
        add(source.begun && source.scanning.is_empty() && !source.scanned, Event::EndScan);
        for lane in 0..source.lanes.len() {
            let is_full = source.lanes[lane].builder.is_full();
            add(!is_full && source.lane_can_advance(lane), Event::Advance(lane));
            add(!source.lanes[lane].builder.is_empty(), Event::Flush(lane));
        }
        let reads = !destination.finished && !destination.session.is_idle();
        add(reads && self.to_destination.has_frame(), Event::ToDestination);
        add(self.to_source.has_frame(), Event::ToSource);
        add(!destination.ready.is_empty(), Event::Merge);
        add(destination.tasks.iter().any(|task| self.can_work(task)), Event::Work);
        add(!destination.commits.is_empty(), Event::Commit);
        add(destination.begun && !destination.finished && self.random.0.is_multiple_of(16), Event::Complete);
        add(!destination.released.is_empty(), Event::Release);
        add(destination.session.is_idle() && !destination.held.is_empty(), Event::LetGo);
        add(destination.session.is_idle() && !destination.finished, Event::Finish);
        self.totals.window_closed += u64::from(has_more && !source.session.window_has_room_for(0));
        if possible.iter().all(|event| *event == Event::Complete) {
            return None;
        }
        let total = possible.iter().map(|event| self.weights[event.kind()]).sum();
        let mut at = self.random.below(total);
        possible.into_iter().find(|event| {
            let weight = self.weights[event.kind()];
            let is_it = at < weight;
            at = at.saturating_sub(weight);
            is_it
        })
    }

    /// A request without room in the budget waits for an answer.
    pub(crate) fn can_work(&self, task: &Task) -> bool {
        !matches!(task, Task::Ask(_))
            || self.destination.flights.values().filter(|f| matches!(f.want, Want::Delta { .. })).count() < 2
            || !self.variant.huge_bases
            || self.random.0.is_multiple_of(4)
    }

    pub(crate) fn carry_out(&mut self, event: Event) -> Result<(), (&'static str, ProtocolError)> {
        match event {
            Event::Begin => {
                self.source.begun = true;
                self.source.scanning.push(Cursor { path: RelPath::root(), position: 0 });
                let begin = Begin {
                    root: None,
                    names: OwnerNames::default(),
                    single: false,
                    places: Places::default(),
                };
                self.say_to_destination(&Message::Begin(Box::new(begin)));
            }
            Event::List => {
                let message = self.source.list(&mut self.random, self.most_entries);
                self.say_to_destination(&message);
            }
            Event::EndScan => {
                self.source.scanned = true;
                let entries = self.source.tree.values().map(|entries| entries.len() as u64).sum();
                self.say_to_destination(&Message::Scanned(Scanned { entries, bytes: 0 }));
            }
            Event::Advance(lane) => {
                self.source.advance_lane(&mut self.random, lane).map_err(|error| ("source", error))?;
            }
            Event::Flush(lane) => {
                let frame = self.source.lanes[lane].builder.take();
                let bytes = frame.as_bytes().to_vec();
                self.send(bytes, true);
            }
            Event::ToDestination => {
                let refused = |error| ("destination", error);
                let message = self.to_destination.receive().map_err(refused)?;
                let replies = self.destination.receive(&mut self.random, message).map_err(refused)?;
                replies.iter().for_each(|reply| self.say_to_source(reply));
            }
            Event::ToSource => {
                let refused = |error| ("source", error);
                let message = self.to_source.receive().map_err(refused)?;
                self.source.receive(message).map_err(refused)?;
            }
            Event::Merge => {
                let at = self.random.below(self.destination.ready.len());
                let requests = self.destination.merge(&mut self.random, &self.variant, at, &mut self.totals);
                if !requests.is_empty() {
                    self.say_to_source(&Message::Request(requests));
                }
            }
            Event::Work => {
                let at = self.random.below(self.destination.tasks.len());
                let messages = self.destination.work(&mut self.random, &self.variant, at, &mut self.totals);
                messages.iter().for_each(|message| self.say_to_source(message));
            }
            Event::Commit => {
                let at = self.random.below(self.destination.commits.len());
                self.destination.commit(at);
            }
            Event::Complete => self.destination.complete(self.variant.careful && self.fault.is_none()),
            Event::Release => {
                let released = std::mem::take(&mut self.destination.released);
                self.say_to_source(&Message::Release(released));
            }
            Event::LetGo => {
                let (id, path) = self.destination.held.pop().unwrap();
                self.destination.let_go(id, &path);
            }
            Event::Finish => self.finish(),
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self) {
        while !self.destination.commits.is_empty() {
            self.destination.commit(0);
        }
        while let Some((id, path)) = self.destination.held.pop() {
            self.destination.let_go(id, &path);
        }
        self.destination.complete(self.variant.careful && self.fault.is_none());
        if self.fault.is_none() {
            let destination = &self.destination;
            assert!(destination.session.is_complete(), "idle, nothing held, and not complete");
            let due = destination.due.iter().filter(|path| destination.present.contains(path));
            assert_eq!(due.count(), destination.completed.len(), "a directory never completed");
        }
        let released = std::mem::take(&mut self.destination.released);
        if !released.is_empty() {
            self.say_to_source(&Message::Release(released));
        }
        self.destination.finished = true;
        let finished = Finished {
            stats: Stats::default(),
            exit: Exit::Done,
            times: Times::default(),
            source_times: Times::default(),
        };
        self.say_to_source(&Message::Finished(Box::new(finished)));
    }

    pub(crate) fn check_idle(&self) {
        let destination = &self.destination;
        if destination.session.is_idle() {
            assert!(self.source.scanned && destination.scanned, "idle before the scan's end");
            assert!(self.source.scanning.is_empty() && self.source.jobs.is_empty());
            assert!(destination.ready.is_empty(), "idle with pieces to merge");
            assert!(
                destination.tasks.is_empty() && destination.flights.is_empty(),
                "idle with files under way"
            );
        }
        if destination.session.is_complete() {
            assert!(destination.session.is_idle());
            assert!(destination.commits.is_empty() && destination.held.is_empty(), "complete and held");
        }
    }

    pub(crate) fn say_to_destination(&mut self, message: &Message) {
        let frame = message.encode();
        assert_eq!(Message::decode(frame.clone()).as_ref(), Ok(message));
        self.send(frame.as_bytes().to_vec(), true);
    }

    pub(crate) fn say_to_source(&mut self, message: &Message) {
        self.send(message.encode().as_bytes().to_vec(), false);
    }

    pub(crate) fn send(&mut self, frame: Vec<u8>, to_destination: bool) {
        let damage = self.fault.filter(|fault| fault.at == self.frames).map(|fault| fault.damage);
        self.frames += 1;
        self.is_cut |= damage == Some(Damage::Cut);
        if self.is_cut {
            return;
        }
        let pipe = if to_destination { &mut self.to_destination } else { &mut self.to_source };
        pipe.send(frame, damage);
    }

    pub(crate) fn end(mut self, outcome: Outcome) -> End {
        let expected = self.expected();
        let mut contents: HashSet<&[u8]> = HashSet::new();
        let files = self.source.tree.values().flat_map(BTreeMap::values);
        contents.extend(files.filter_map(|what| match what {
            What::File { content, .. } => Some(&content[..]),
            _ => None,
        }));
        contents.extend(self.before.values().filter_map(|node| match node {
            Node::File(content) => Some(&content[..]),
            _ => None,
        }));
        let torn = self.destination.tree.values().any(|node| match node {
            Node::File(content) => !contents.contains(&content[..]),
            _ => false,
        });
        self.totals.frames = self.frames as u64;
        self.totals.lacking = self.destination.lacking;
        self.totals.completed_directories = self.destination.completed.len() as u64;
        let failing = self.source.tree.values().flat_map(BTreeMap::values);
        let fails = |what: &&What| matches!(what, What::File { fate, .. } if !fate.arrives());
        self.totals.failures = failing.filter(fails).count() as u64;
        let tree = std::mem::take(&mut self.destination.tree);
        End { outcome, frames: self.frames, tree, expected, torn, totals: self.totals }
    }

    /// What the destination must be at the end of this run.
    pub(crate) fn expected(&self) -> Tree {
        let refused = &self.destination.refused;
        let mut expected = self.before.clone();
        for (directory, entries) in &self.source.tree {
            let is_refused = refused.contains(directory) || refused.iter().any(|at| is_below(directory, at));
            if is_refused {
                continue;
            }
            for (name, what) in entries {
                let path = directory.join(name);
                let arrives = match what {
                    What::Directory => !refused.contains(&path),
                    What::Link(_) => true,
                    What::File { fate, .. } => fate.arrives(),
                };
                if arrives {
                    expected.insert(path, node_of(what));
                }
            }
        }
        expected
    }
}

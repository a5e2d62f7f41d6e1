//! The source's end of a session: scan and senders around the state machine.

use crate::error::SessionError;
use crate::index::Index;
use crate::link::{Incoming, LAST_WORD, Link, Outgoing};
use crate::monitor::{Monitor, Progress};
use crate::removal::Remover;
use crate::scan::{Listings, Scan};
use crate::sender::{Feed, Job, Sender};
use crate::sources::Sources;
use crate::workers::{Failure, lock, spawn};
use crossbeam_channel::{Receiver, bounded, never, select, unbounded};
use protocol::limits;
use protocol::message::{Finished, Message, Report, Request};
use protocol::options::SyncOptions;
use protocol::source::{SourceEvent, SourceSession};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Everything a source's end needs besides the link.
pub struct SourceEnd<'a> {
    /// The opened arguments.
    pub sources: &'a Sources,
    /// What was asked.
    pub options: &'a SyncOptions,
    /// Who hears of problems met here, and of what the destination reports.
    pub monitor: &'a dyn Monitor,
    /// How far it is.
    pub progress: &'a Progress,
    /// Hashes of an earlier run.
    pub index: &'a Index,
    /// Readable (or closed) when the operator stops the run.
    pub stop: Receiver<()>,
}

/// Threads that scan, and threads that send.
const SCANNERS: usize = 2;
const SENDERS: u8 = 2;

impl SourceEnd<'_> {
    /// Serves the destination until it has finished.
    ///
    /// # Errors
    /// Whatever ends the session before that; the peer has been told.
    pub fn run(&self, link: Link) -> Result<Finished, SessionError> {
        let Link { outgoing, incoming, .. } = link;
        outgoing.state().keep_alive_within(self.options.timeout_s);
        let result = self.run_threads(&outgoing, &incoming);
        if let Err(error) = &result
            && !matches!(
                error,
                SessionError::Peer(_) | SessionError::Connection(_) | SessionError::NothingSaid
            )
        {
            outgoing.say_within(&Message::Abort(error.to_abort()), LAST_WORD);
        }
        result
    }

    fn run_threads(&self, outgoing: &Outgoing, incoming: &Incoming) -> Result<Finished, SessionError> {
        let (stop, stopped) = bounded::<()>(0);
        let (to_senders, jobs) = unbounded::<Vec<Job>>();
        let outgoing = &outgoing.stoppable(stopped.clone());
        let failure = &Failure::new();
        let feeds = &Mutex::new(HashMap::<u32, Arc<Feed>>::new());
        let listings = &Listings {
            session: Mutex::new(self.session()),
            window: Condvar::new(),
            pieces: Mutex::default(),
        };
        let scan = &Scan::new(self.sources, self.options, listings, outgoing, self.monitor, self.progress);
        let scanners_left = &AtomicUsize::new(SCANNERS);
        std::thread::scope(|scope| {
            let begun = scan.begin().and_then(|begin| outgoing.say(&Message::Begin(Box::new(begin))));
            scan.report_missing();
            for _ in 0..SCANNERS {
                spawn(scope, "scan", failure, move || {
                    let result = scan.work();
                    let was_last = scanners_left.fetch_sub(1, Ordering::AcqRel) == 1;
                    result?;
                    if was_last { scan.finish() } else { Ok(()) }
                });
            }
            for lane in 0..SENDERS {
                let (jobs, stopped) = (jobs.clone(), stopped.clone());
                spawn(scope, "sender", failure, move || {
                    Sender::new(lane, self, listings, feeds, outgoing).work(&jobs, &stopped)
                });
            }
            let served = begun.and_then(|()| {
                self.receive(incoming, outgoing, listings, feeds, failure, |jobs| {
                    let _ = to_senders.send(jobs);
                })
            });
            drop(stop);
            drop(to_senders);
            scan.stop();
            lock(feeds).values().for_each(|feed| feed.stop());
            match served {
                // A connection that broke under a worker is the cause, not what the reader then saw.
                Err(SessionError::Connection(error)) => {
                    Err(failure.take().unwrap_or(SessionError::Connection(error)))
                }
                other => other,
            }
        })
    }

    /// Takes in what the destination says, until its last word. Never waits for a worker.
    fn session(&self) -> SourceSession {
        let session = SourceSession::new(self.options.removes_source());
        if self.options.remembers_listing() { session.remembering() } else { session }
    }

    fn receive(
        &self,
        incoming: &Incoming,
        outgoing: &Outgoing,
        listings: &Listings,
        feeds: &Mutex<HashMap<u32, Arc<Feed>>>,
        failure: &Failure,
        serve: impl Fn(Vec<Job>),
    ) -> Result<Finished, SessionError> {
        let timeout_s = self.options.timeout_s;
        let remover = Remover::new(self.sources, self.options);
        loop {
            let expired = if timeout_s == 0 {
                never()
            } else {
                crossbeam_channel::after(Duration::from_secs(u64::from(timeout_s)))
            };
            let message = select! {
                recv(incoming.queue()) -> frame => incoming.decode(frame)?,
                recv(failure.raised) -> _ => {
                    return Err(failure.take().unwrap_or(SessionError::Panic("source")));
                }
                recv(self.stop) -> _ => return Err(SessionError::Interrupted),
                recv(expired) -> _ => return Err(SessionError::Timeout { seconds: timeout_s }),
            };
            let event = lock(&listings.session).receive(message)?;
            match event {
                SourceEvent::Requests(requests) => {
                    batches(requests, listings, feeds)?.into_iter().for_each(&serve)
                }
                SourceEvent::Signature { file, blocks } => {
                    if let Some(feed) = lock(feeds).get(&file) {
                        feed.push(blocks.as_slice());
                    }
                }
                SourceEvent::Remove(removals) => {
                    for removal in &removals {
                        let piece = lock(&listings.pieces).get(&removal.list).cloned();
                        let removed = piece.map_or(Ok(()), |piece| remover.remove(&piece, *removal));
                        if let Err(problem) = removed {
                            self.monitor.problem(problem);
                        }
                    }
                    outgoing.say(&Message::Removed(u32::try_from(removals.len()).unwrap_or(u32::MAX)))?;
                }
                SourceEvent::Released(lists) => {
                    if !self.options.remembers_listing() {
                        let mut pieces = lock(&listings.pieces);
                        lists.iter().for_each(|list| {
                            pieces.remove(list);
                        });
                    }
                    listings.window.notify_all();
                }
                SourceEvent::Reports(reports) => reports.into_iter().for_each(|report| match report {
                    Report::Item(item) => self.monitor.item(item),
                    Report::Problem(problem) => self.monitor.problem(problem),
                    Report::MadeRoot(path) => self.monitor.made_root(&path),
                    Report::Note(message) => self.monitor.note(&message),
                }),
                SourceEvent::Finished(finished) => return Ok(*finished),
                SourceEvent::Aborted(abort) => return Err(SessionError::Peer(abort)),
                SourceEvent::Nothing => {}
            }
        }
    }
}

/// Requests as jobs: small files many at once, for one thread; a large one alone, so that all threads have one.
fn batches(
    requests: Vec<Request>,
    listings: &Listings,
    feeds: &Mutex<HashMap<u32, Arc<Feed>>>,
) -> Result<Vec<Vec<Job>>, SessionError> {
    let pieces = lock(&listings.pieces);
    let (mut batches, mut batch, mut batch_bytes) = (Vec::new(), Vec::new(), 0);
    for request in requests {
        let piece = pieces.get(&request.list).cloned().ok_or(SessionError::Panic("source"))?;
        let has_basis = request.want.basis()?.is_some();
        let feed = has_basis.then(|| {
            let feed = Arc::new(Feed::default());
            lock(feeds).insert(request.file, Arc::clone(&feed));
            feed
        });
        batch_bytes += piece.entries[request.index as usize].info.size_bytes;
        batch.push(Job { request, piece, feed });
        if batch_bytes >= limits::DATA_BYTES as u64 || batch.len() >= BATCH_JOBS {
            batches.push(std::mem::take(&mut batch));
            batch_bytes = 0;
        }
    }
    batches.push(batch);
    Ok(batches)
}

/// Files that one thread is given at once.
const BATCH_JOBS: usize = 128;

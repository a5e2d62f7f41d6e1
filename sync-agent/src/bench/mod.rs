//! One end of a bench: measures what a machine and the place of a tree can do, and answers a client's probes.
//!
//! The same [`BenchEnd`] runs in the agent and inside the client. What always holds: it reads the tree and
//! changes nothing in it; what it writes lies in `scratch`, is bounded by the probe and by a tenth of the
//! free space, and is gone when the probe is answered, also after an error, a signal or a lost connection.

mod processor;
mod scratch;
mod walk;

use crate::error::SessionError;
use crate::link::{Incoming, LAST_WORD, Link, Outgoing};
use crate::sources::beneath;
use crate::tree::{self, Dir, Follow, Tree};
use crossbeam_channel::{Receiver, TryRecvError, bounded, never, select};
use protocol::limits::FILLER_BYTES;
use protocol::message::{Message, filler_frame};
use protocol::path::RelPath;
use protocol::probe::{Machine, Probe, ProbeResult};
use protocol::stats::Exit;
use protocol::{ProtocolError, path};
use std::io;
use std::time::{Duration, Instant};

/// What is measured at one end.
pub struct BenchEnd {
    place: Option<Place>,
    /// Files for [`Probe::ReadTree`], as the scan picked them.
    picked: walk::Picked,
    /// Content of the tree, for hashing and compressing.
    sample: Vec<u8>,
}

/// The directory whose tree and disk are measured.
struct Place {
    tree: Tree,
    shown: String,
    /// Why nothing is written, if nothing is.
    read_only: Option<&'static str>,
}

/// Why a measurement has no result.
enum Ended {
    /// The operator stopped it, or the client is gone.
    Stopped,
    /// This one can't be had.
    Failed(String),
}

fn failed(what: &str, cause: impl Into<io::Error>) -> Ended {
    Ended::Failed(format!("cannot {what}: {}", cause.into()))
}

/// How long a measurement may go on.
struct Budget<'a> {
    end: Instant,
    stop: &'a Receiver<()>,
}

impl Budget<'_> {
    fn new(limit_ms: u32, stop: &Receiver<()>) -> Budget<'_> {
        Budget { end: Instant::now() + Duration::from_millis(u64::from(limit_ms)), stop }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.end || self.is_stopped()
    }

    fn is_stopped(&self) -> bool {
        self.stop.try_recv() != Err(TryRecvError::Empty)
    }
}

fn elapsed_ns(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl BenchEnd {
    /// An end at the directory `argument`, beneath `root` if given; `read_only` is why nothing is to be written.
    ///
    /// # Errors
    /// It is not a directory, can't be opened, or leads out of `root`.
    pub fn open(
        root: Option<&Dir>,
        argument: &[u8],
        read_only: Option<&'static str>,
    ) -> Result<BenchEnd, SessionError> {
        let shown = path::escaped(argument);
        let refused = |why: String| SessionError::refused(Exit::Selection, why);
        let tree = match root {
            None => Tree::open(tree::path_of(argument), Follow::Never),
            Some(root) => {
                let outside =
                    || refused(format!("{shown:?} leads out of the directory that this agent is held to"));
                Tree::open_beneath(root, &beneath(argument).ok_or_else(outside)?, Follow::Never)
            }
        };
        let tree = tree.map_err(|error| {
            let cause = io::Error::from(error);
            refused(format!("cannot measure {shown:?}: {cause}; give a directory that exists"))
        })?;
        Ok(BenchEnd { place: Some(Place { tree, shown, read_only }), ..BenchEnd::without_place() })
    }

    /// An end of which only the processor is measured.
    #[must_use]
    pub fn without_place() -> BenchEnd {
        BenchEnd { place: None, picked: walk::Picked::default(), sample: Vec::new() }
    }

    /// Measures; gives up early when `stop`'s other end is dropped.
    ///
    /// # Errors
    /// It was stopped. What can't be measured is a [`ProbeResult::Refused`].
    pub fn measure(&mut self, probe: Probe, stop: &Receiver<()>) -> Result<ProbeResult, SessionError> {
        let result = match probe {
            Probe::Echo | Probe::Send { .. } | Probe::Receive { .. } | Probe::Finish => Ok(ProbeResult::Done),
            Probe::Machine => self.machine(),
            Probe::Scan { limit_ms } => self.scan(&Budget::new(limit_ms, stop)),
            Probe::ReadTree { limit_ms } => self.read_tree(&Budget::new(limit_ms, stop)),
            Probe::Disk { bytes, limit_ms } => {
                self.place().and_then(|place| scratch::disk(place, bytes, limit_ms, stop))
            }
            Probe::Create { files, limit_ms } => {
                self.place().and_then(|place| scratch::create(place, files, &Budget::new(limit_ms, stop)))
            }
            Probe::Hash { limit_ms } => Ok(processor::hash(&self.sample, &Budget::new(limit_ms, stop))),
            Probe::Compress { level, limit_ms } => {
                processor::compress(&self.sample, level, &Budget::new(limit_ms, stop))
            }
        };
        if stop.try_recv() != Err(TryRecvError::Empty) {
            return Err(SessionError::Interrupted);
        }
        match result {
            Ok(result) => Ok(result),
            Err(Ended::Stopped) => Err(SessionError::Interrupted),
            Err(Ended::Failed(why)) => Ok(ProbeResult::Refused(why)),
        }
    }

    fn place(&self) -> Result<&Place, Ended> {
        self.place.as_ref().ok_or_else(|| Ended::Failed("no directory was given at this end".to_owned()))
    }

    fn machine(&self) -> Result<ProbeResult, Ended> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let free_bytes = match &self.place {
            Some(place) => place.dir()?.free_bytes().map_err(|error| failed("ask for free space", error))?,
            None => 0,
        };
        Ok(ProbeResult::Machine(Machine { cores: u32::try_from(cores).unwrap_or(u32::MAX), free_bytes }))
    }

    fn scan(&mut self, budget: &Budget<'_>) -> Result<ProbeResult, Ended> {
        let found = walk::scan(&self.place()?.tree, budget);
        self.picked = found.picked;
        Ok(ProbeResult::Tree(found.size))
    }

    fn read_tree(&mut self, budget: &Budget<'_>) -> Result<ProbeResult, Ended> {
        let tree = &self.place()?.tree;
        let work = walk::read(tree, &self.picked, budget)?;
        self.sample = walk::sample(tree, &self.picked);
        Ok(ProbeResult::Work(work))
    }

    /// Answers a client until it has no more probes.
    ///
    /// # Errors
    /// Whatever ends the session before that.
    pub fn serve(mut self, link: &Link, timeout_s: u32, stop: &Receiver<()>) -> Result<Exit, SessionError> {
        link.outgoing.state().keep_alive_within(timeout_s);
        let result = self.answer_all(link, timeout_s, stop);
        if let Err(error @ SessionError::Interrupted) = &result {
            link.outgoing.say_within(&Message::Abort(error.to_abort()), LAST_WORD);
        }
        result
    }

    fn answer_all(&mut self, link: &Link, timeout_s: u32, stop: &Receiver<()>) -> Result<Exit, SessionError> {
        loop {
            let probe = match hear(&link.incoming, timeout_s, stop)? {
                Message::Probe(probe) => probe,
                other => return Err(unexpected(&other, "a probe was due")),
            };
            let result = match probe {
                Probe::Send { bytes } => {
                    send_filler(&link.outgoing, bytes)?;
                    continue;
                }
                Probe::Receive { bytes } => {
                    take_filler(&link.incoming, bytes, timeout_s, stop)?;
                    ProbeResult::Done
                }
                probe => self.measure_beside(probe, &link.incoming, stop)?,
            };
            link.outgoing.say(&Message::ProbeResult(result))?;
            if probe == Probe::Finish {
                return Ok(Exit::Done);
            }
        }
    }

    /// Measures on a thread of its own, so that a client that is gone ends it.
    fn measure_beside(
        &mut self,
        probe: Probe,
        incoming: &Incoming,
        stop: &Receiver<()>,
    ) -> Result<ProbeResult, SessionError> {
        let (end, ended) = bounded::<()>(0);
        let (done, result) = bounded(1);
        std::thread::scope(|scope| {
            let worker = scope.spawn(move || {
                let _ = done.send(self.measure(probe, &ended));
            });
            let outcome = loop {
                select! {
                    recv(result) -> result => break result.unwrap_or(Err(SessionError::Panic("measurement"))),
                    recv(incoming.queue()) -> frame => match incoming.decode(frame) {
                        Ok(Message::KeepAlive) => {}
                        Ok(other) => break Err(unexpected(&other, "the probe before is not answered yet")),
                        Err(error) => break Err(error),
                    },
                    recv(stop) -> _ => break Err(SessionError::Interrupted),
                }
            };
            drop(end);
            worker.join().map_err(|_| SessionError::Panic("measurement"))?;
            outcome
        })
    }
}

impl Place {
    /// A handle of its own to the directory.
    fn dir(&self) -> Result<Dir, Ended> {
        self.tree.dir(&RelPath::root()).map_err(|error| failed(&format!("open {}", self.shown), error))
    }
}

fn unexpected(message: &Message, why: &'static str) -> SessionError {
    SessionError::Protocol(ProtocolError::Unexpected { what: message.name(), why })
}

/// The next message that says something.
///
/// # Errors
/// The peer gave up or is gone, nothing was heard for `timeout_s` (0: never), or `stop`'s other end was dropped.
pub fn hear(incoming: &Incoming, timeout_s: u32, stop: &Receiver<()>) -> Result<Message, SessionError> {
    loop {
        let expired = match timeout_s {
            0 => never(),
            seconds => crossbeam_channel::after(Duration::from_secs(u64::from(seconds))),
        };
        let message = select! {
            recv(incoming.queue()) -> frame => incoming.decode(frame)?,
            recv(stop) -> _ => return Err(SessionError::Interrupted),
            recv(expired) -> _ => return Err(SessionError::Timeout { seconds: timeout_s }),
        };
        match message {
            Message::KeepAlive => {}
            Message::Abort(abort) => return Err(SessionError::Peer(abort)),
            message => return Ok(message),
        }
    }
}

/// Sends so much filler, of which nothing can be compressed.
///
/// # Errors
/// The link is gone, or the session is being stopped.
pub fn send_filler(outgoing: &Outgoing, bytes: u64) -> Result<(), SessionError> {
    let noise = noise(FILLER_BYTES);
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(FILLER_BYTES);
        outgoing.send(filler_frame(&noise[..length]))?;
        left -= length as u64;
    }
    Ok(())
}

/// Takes exactly so much filler.
///
/// # Errors
/// As [`hear`]; or the peer sends something else, or more.
pub fn take_filler(
    incoming: &Incoming,
    bytes: u64,
    timeout_s: u32,
    stop: &Receiver<()>,
) -> Result<(), SessionError> {
    let mut left = bytes;
    while left > 0 {
        left = match hear(incoming, timeout_s, stop)? {
            Message::Filler(bulk) if !bulk.as_slice().is_empty() => {
                left.checked_sub(bulk.as_slice().len() as u64).ok_or(SessionError::Protocol(
                    ProtocolError::Unexpected { what: "filler", why: "it is more than was asked for" },
                ))?
            }
            other => return Err(unexpected(&other, "filler was due")),
        };
    }
    Ok(())
}

/// Bytes that neither a compressor nor a file system makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64*: Marsaglia 2003, Vigna 2016.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn end(path: &std::path::Path, read_only: Option<&'static str>) -> BenchEnd {
        BenchEnd::open(None, path.as_os_str().as_encoded_bytes(), read_only).unwrap()
    }

    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("below")).unwrap();
        fs::write(tree.path().join("below/large"), vec![7; 100_000]).unwrap();
        fs::write(tree.path().join("small"), b"text").unwrap();
        tree
    }

    #[test]
    fn what_is_written_is_gone_and_the_directory_has_its_old_time() {
        let tree = tree();
        let before = fs::metadata(tree.path()).unwrap().modified().unwrap();
        let mut end = end(tree.path(), None);
        for probe in
            [Probe::Disk { bytes: 3 << 20, limit_ms: 1000 }, Probe::Create { files: 5, limit_ms: 1000 }]
        {
            let result = end.measure(probe, &never()).unwrap();
            assert!(!matches!(result, ProbeResult::Refused(_)), "{result:?}");
        }
        assert_eq!(fs::read_dir(tree.path()).unwrap().count(), 2);
        assert_eq!(fs::metadata(tree.path()).unwrap().modified().unwrap(), before);
    }

    #[test]
    fn an_end_that_is_stopped_leaves_nothing_behind() {
        let tree = tree();
        let (end_of_run, stop) = bounded::<()>(0);
        drop(end_of_run);
        let mut end = end(tree.path(), None);
        for probe in [Probe::Disk { bytes: 1 << 30, limit_ms: 60_000 }, Probe::Scan { limit_ms: 60_000 }] {
            assert!(matches!(end.measure(probe, &stop), Err(SessionError::Interrupted)));
        }
        assert_eq!(fs::read_dir(tree.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_read_only_end_refuses_to_write_and_measures_the_rest() {
        let tree = tree();
        let mut end = end(tree.path(), Some("it is read-only"));
        let write = end.measure(Probe::Disk { bytes: 1 << 20, limit_ms: 100 }, &never()).unwrap();
        assert_eq!(write, ProbeResult::Refused("it is read-only".to_owned()));
        let ProbeResult::Tree(size) = end.measure(Probe::Scan { limit_ms: 1000 }, &never()).unwrap() else {
            panic!("no tree");
        };
        assert_eq!((size.entries, size.files, size.bytes), (3, 2, 100_004));
        assert_eq!((size.large_files, size.large_bytes, size.is_whole), (1, 100_000, true));
        let ProbeResult::Work(read) = end.measure(Probe::ReadTree { limit_ms: 1000 }, &never()).unwrap()
        else {
            panic!("nothing read");
        };
        assert_eq!((read.files, read.bytes), (2, 100_004));
    }

    #[test]
    fn what_an_interrupted_run_left_in_staging_stays() {
        let tree = tree();
        let staging = tree.path().join(".sync-agent-staging");
        let left = staging.join("left.part");
        fs::create_dir(&staging).unwrap();
        fs::set_permissions(&staging, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        fs::write(&left, b"part").unwrap();
        let mut end = end(tree.path(), None);
        let result = end.measure(Probe::Create { files: 3, limit_ms: 1000 }, &never()).unwrap();
        assert!(matches!(result, ProbeResult::Work(work) if work.files == 3), "{result:?}");
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 1);
        assert_eq!(fs::read(&left).unwrap(), b"part");
    }

    #[test]
    fn processors_are_measured_without_a_place() {
        let mut end = BenchEnd::without_place();
        let hash = end.measure(Probe::Hash { limit_ms: 20 }, &never()).unwrap();
        assert!(matches!(hash, ProbeResult::Work(work) if work.bytes > 0 && work.elapsed_ns > 0));
        let packed = end.measure(Probe::Compress { level: 1, limit_ms: 20 }, &never()).unwrap();
        let ProbeResult::Compressed { work, packed_bytes, of_tree } = packed else { panic!("{packed:?}") };
        assert!(packed_bytes > 0 && packed_bytes < work.bytes && !of_tree);
    }
}

//! The two ends of a bench, in this process or behind SSH, and the way between them.

use crate::endpoint::{Environment, Remote, RunError};
use crate::job::{Job, Side};
use crossbeam_channel::Receiver;
use protocol::ProtocolError;
use protocol::limits;
use protocol::message::{Message, Role};
use protocol::probe::{Probe, ProbeResult};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::Instant;
use sync_agent::bench::{BenchEnd, hear, send_filler, take_filler};
use sync_agent::error::SessionError;
use sync_agent::link::Outgoing;

/// One end.
pub(super) enum End {
    /// In this process; given up when the receiver's other end is dropped.
    Here(BenchEnd, Receiver<()>),
    /// Behind SSH.
    There(Agent),
}

impl End {
    pub(super) fn ask(&mut self, probe: Probe) -> Result<ProbeResult, RunError> {
        match self {
            End::Here(end, stop) => Ok(end.measure(probe, stop)?),
            End::There(agent) => agent.ask(probe),
        }
    }

    pub(super) fn finish(self) -> Result<(), RunError> {
        match self {
            End::Here(..) => Ok(()),
            End::There(agent) => agent.finish(),
        }
    }
}

/// An agent behind a connection of its own.
pub(super) struct Agent {
    remote: Remote,
    outgoing: Outgoing,
    timeout_s: u32,
    stop: Receiver<()>,
    /// How long it took to get there.
    pub(super) connect_s: f64,
}

/// Which way filler goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    FromAgent,
    ToAgent,
}

impl Agent {
    pub(super) fn connect(
        side: &Side,
        job: &Job,
        environment: &Environment,
        stop: &Receiver<()>,
    ) -> Result<Agent, RunError> {
        let argument = side.paths.first().cloned().unwrap_or_default();
        let started = Instant::now();
        let remote = Remote::start(side, job, Role::Bench { argument }, environment, stop)?;
        let outgoing = remote.link.outgoing.stoppable(stop.clone());
        outgoing.state().keep_alive_within(job.options.timeout_s);
        let (timeout_s, connect_s) = (job.options.timeout_s, started.elapsed().as_secs_f64());
        Ok(Agent { remote, outgoing, timeout_s, stop: stop.clone(), connect_s })
    }

    fn explained<T>(&self, result: Result<T, SessionError>) -> Result<T, RunError> {
        result.map_err(|error| self.remote.explain(error))
    }

    pub(super) fn ask(&self, probe: Probe) -> Result<ProbeResult, RunError> {
        self.explained(self.outgoing.say(&Message::Probe(probe)).and_then(|()| self.result()))
    }

    fn result(&self) -> Result<ProbeResult, SessionError> {
        match hear(&self.remote.link.incoming, self.timeout_s, &self.stop)? {
            Message::ProbeResult(result) => Ok(result),
            other => {
                let (what, why) = (other.name(), "a measurement was due");
                Err(ProtocolError::Unexpected { what, why }.into())
            }
        }
    }

    /// The shortest of several: the others met something else on their way.
    pub(super) fn round_trip_s(&self, times: u32) -> Result<f64, RunError> {
        let mut shortest_s = f64::INFINITY;
        for _ in 0..times {
            let started = Instant::now();
            self.ask(Probe::Echo)?;
            shortest_s = shortest_s.min(started.elapsed().as_secs_f64());
        }
        Ok(shortest_s)
    }

    /// Returns when all has arrived at the receiving end.
    fn transfer(&self, way: Way, bytes: u64) -> Result<(), RunError> {
        let incoming = &self.remote.link.incoming;
        self.explained(match way {
            Way::FromAgent => self
                .outgoing
                .say(&Message::Probe(Probe::Send { bytes }))
                .and_then(|()| take_filler(incoming, bytes, self.timeout_s, &self.stop)),
            Way::ToAgent => self
                .outgoing
                .say(&Message::Probe(Probe::Receive { bytes }))
                .and_then(|()| send_filler(&self.outgoing, bytes))
                .and_then(|()| self.result().map(drop)),
        })
    }

    /// Ends the agent when it has removed what it made.
    pub(super) fn finish(self) -> Result<(), RunError> {
        let result = self.ask(Probe::Finish).map(drop);
        self.close();
        result
    }

    /// Ends the connection; the agent then removes what it made.
    pub(super) fn close(self) {
        let Agent { remote, outgoing, .. } = self;
        drop(outgoing);
        remote.close();
    }
}

/// Bytes of the first try.
const FIRST_BYTES: u64 = 256 << 10;
/// Tries until one takes long enough.
const TRIES: u32 = 12;
/// How much more the next try sends at most: what was measured so far may be a slow start.
const GROWTH: f64 = 16.0;

/// Bytes a second over all these connections at once. Tries grow until one takes half of `seconds` or more; it counts
/// until all has arrived, by this end's clock, without the round trip that asking takes.
pub(super) fn throughput(
    agents: &[&Agent],
    way: Way,
    seconds: f64,
    expected_bytes_per_s: Option<f64>,
    round_trip_s: f64,
) -> Result<f64, RunError> {
    let mut bytes = expected_bytes_per_s.map_or(FIRST_BYTES as f64, |rate| rate * seconds);
    let mut rate = 0.0;
    for _ in 0..TRIES {
        let each = ((bytes / agents.len() as f64) as u64).clamp(1, limits::PROBE_BYTES);
        let elapsed_s = (transfer_all(agents, way, each)? - round_trip_s).max(1e-6);
        rate = (each as f64) * agents.len() as f64 / elapsed_s;
        if elapsed_s >= seconds / 2.0 || each == limits::PROBE_BYTES {
            break;
        }
        bytes = (rate * seconds).clamp(bytes, bytes * GROWTH);
    }
    Ok(rate)
}

/// Seconds from the first byte to the last, over all connections.
fn transfer_all(agents: &[&Agent], way: Way, bytes_each: u64) -> Result<f64, RunError> {
    let ready = &Barrier::new(agents.len() + 1);
    std::thread::scope(|scope| {
        let mut transfers = Vec::new();
        for &agent in agents {
            transfers.push(scope.spawn(move || {
                ready.wait();
                agent.transfer(way, bytes_each)
            }));
        }
        ready.wait();
        let started = Instant::now();
        let results: Vec<_> = transfers.into_iter().map(|transfer| transfer.join()).collect();
        let elapsed_s = started.elapsed().as_secs_f64();
        for result in results {
            result.map_err(|_| SessionError::Panic("transfer"))??;
        }
        Ok(elapsed_s)
    })
}

/// The same environment, asking for each passphrase once however many connections there are.
pub(crate) fn asking_once(environment: &Environment) -> Environment {
    let ask = Arc::clone(&environment.ask);
    let known: Mutex<HashMap<PathBuf, Option<String>>> = Mutex::default();
    let ask_once = move |key: &std::path::Path| {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(key.to_owned()).or_insert_with(|| ask(key)).clone()
    };
    Environment { ask: Arc::new(ask_once), ..environment.clone() }
}

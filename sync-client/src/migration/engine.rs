//! One pass over one data set, by the engine that `sync` uses: pulled from the source into this machine.
//!
//! Every pass compares content through the index, so the cold one finds an index that knows all that did not change since.
//! Each data set has an index of its own at both ends: an index serves one process at a time, and the cold pass runs all
//! data sets at once.

use super::host;
use super::plan::{DataSet, Plan};
use super::position::Pass;
use super::step::StepError;
use super::text;
use crate::console::describe;
use crate::endpoint::{self, Environment, Watch};
use crate::job::{Connection, Job, OutputOptions, Side};
use crossbeam_channel::Receiver;
use protocol::filter::FilterRules;
use protocol::itemize::{Content, Item, Spared};
use protocol::links::{Followed, Links};
use protocol::options::{Compression, Delete, Preserve, QuickCheck, SyncOptions};
use protocol::path::escaped;
use protocol::stats::{Exit, Problem};
use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use sync_agent::monitor::{Monitor, Progress};

/// Names of changed files that are kept of a pass.
const NAMES: usize = 10_000;
/// Problems that are kept of a pass.
const PROBLEMS: usize = 20;
/// How often it is looked whether the source is listed.
const TICK: Duration = Duration::from_millis(5);

/// What kind of pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Warmth {
    /// The source's service is up.
    Bulk,
    /// It was stopped.
    Cold,
    /// Nothing is changed.
    Rehearsal,
}

/// What a pass did.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) pass: Pass,
    /// Files whose content was made new or kept changing, by name below the data set.
    pub(crate) changed: BTreeSet<String>,
    pub(crate) problems: Vec<String>,
    pub(crate) problem_count: u64,
    pub(crate) notes: Vec<String>,
    pub(crate) exit: Exit,
}

impl Report {
    /// The report, if the pass ended with one of these.
    pub(crate) fn accept(self, accepted: &[Exit]) -> Result<Report, StepError> {
        if accepted.contains(&self.exit) {
            return Ok(self);
        }
        let mut message = match self.exit {
            Exit::MaxDelete => "the deletions were refused: more entries would go than limits.max_delete allows, or the source is empty. \
                 Look at both directories (sync-client bulk --dry-run counts); then raise limits.max_delete, or mend the paths"
                .to_owned(),
            _ => format!("{} entries with problems", self.problem_count),
        };
        for problem in self.problems.iter().chain(&self.notes).take(5) {
            message.push_str("\n  ");
            message.push_str(problem);
        }
        Err(StepError::Pass { set: self.pass.set, exit: self.exit, message })
    }
}

/// Copies what differs of one data set.
pub(crate) fn pass(
    plan: &Plan,
    set: &DataSet,
    warmth: Warmth,
    environment: &Environment,
    stop: &Receiver<()>,
) -> Result<Report, StepError> {
    let job = job(plan, set, warmth)?;
    if warmth != Warmth::Rehearsal {
        make_parent(&plan.destination_path(set))?;
    }
    let (witness, progress) = (Witness::default(), Progress::default());
    let watch = Watch { monitor: &witness, progress: &progress, stop: stop.clone() };
    let (begun_ms, started) = (text::now_ms(), Instant::now());
    let (ended, ending) = crossbeam_channel::bounded::<()>(0);
    let (result, scan_s) = std::thread::scope(|scope| {
        let scan = scope.spawn(|| listed_after(&progress, started, &ending));
        let result = endpoint::sync(&job, environment, &watch);
        drop(ended);
        (result, scan.join().unwrap_or_default())
    });
    let name = set.name.as_str();
    let outcome = result.map_err(|source| StepError::Run { set: name.to_owned(), source })?;
    let stats = &outcome.finished.stats;
    let seen = witness.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    let pass = Pass {
        set: name.to_owned(),
        is_cold: warmth == Warmth::Cold,
        begun_ms,
        elapsed_s: started.elapsed().as_secs_f64(),
        scan_s,
        entries: stats.listed.total(),
        total_bytes: stats.listed_bytes,
        changed_bytes: stats.transferred_bytes,
        changed_files: stats.created.files + stats.files_updated,
        literal_bytes: stats.literal_bytes,
        deleted_entries: stats.deleted.total(),
        moved_bytes: outcome.sent_bytes + outcome.received_bytes,
    };
    let Seen { changed, problems, problem_count, notes, worst } = seen;
    Ok(Report { pass, changed, problems, problem_count, notes, exit: outcome.finished.exit.worst(worst) })
}

/// The engine makes the last directory of a path; a fresh destination may lack those above it.
fn make_parent(path: &Path) -> Result<(), StepError> {
    let parent = path.parent().unwrap_or(path);
    DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(|error| {
        StepError::refused(format!("cannot make the directory {}: {error}", parent.display()))
    })
}

/// Seconds from the start until the source was listed whole.
fn listed_after(progress: &Progress, started: Instant, ending: &Receiver<()>) -> f64 {
    while !progress.scanned.load(Ordering::Acquire) {
        if ending.recv_timeout(TICK) == Err(crossbeam_channel::RecvTimeoutError::Disconnected) {
            break;
        }
    }
    started.elapsed().as_secs_f64()
}

/// The line of `sync` that this pass is.
fn job(plan: &Plan, set: &DataSet, warmth: Warmth) -> Result<Job, StepError> {
    let (mut source, connection) = match &plan.source.ssh {
        None => (Side { host: None, paths: Vec::new() }, Connection::default()),
        Some(ssh) => host::reach(ssh)?,
    };
    source.paths = vec![contents_of(&plan.source_path(set))];
    let destination = Side { host: None, paths: vec![contents_of(&plan.destination_path(set))] };
    let mut filter = exclusions(set)?;
    if set.kind == super::plan::Kind::Mongodb && warmth != Warmth::Cold {
        // A running mongod's lock in a copy would be taken for one of a mongod that runs there.
        exclude(&mut filter, "/mongod.lock")?;
    }
    let is_limited = warmth == Warmth::Bulk;
    let options = SyncOptions {
        recursive: true,
        preserve: preserve(set),
        quick_check: QuickCheck::Checksum,
        delete: Delete {
            extraneous: set.delete,
            // A rehearsal counts what would be refused.
            max_entries: (warmth != Warmth::Rehearsal).then_some(plan.limits.max_delete),
            ..Delete::default()
        },
        filter,
        compression: Compression::Auto,
        dry_run: warmth == Warmth::Rehearsal,
        itemize: true,
        bandwidth_bytes_per_s: if is_limited { plan.limits.bulk_bytes_per_s } else { 0 },
        timeout_s: plan.source.ssh.as_ref().map_or(0, |ssh| ssh.timeout_s),
        links: Links {
            followed: if set.copy_links { Followed::All } else { Followed::None },
            ..Links::default()
        },
        ..SyncOptions::default()
    };
    let connection = with_own_index(connection, set);
    let state_dir = Some(plan.state_dir.as_path().join("index").join(set.name.as_str()));
    Ok(Job {
        source,
        destination,
        options,
        connection,
        output: OutputOptions::default(),
        state_dir,
        deletes_first: false,
        list: None,
        stop_at: None,
        planned: None,
    })
}

/// A forced command in `authorized_keys` passes over the arguments; then the agent's own index serves one data set.
fn with_own_index(mut connection: Connection, set: &DataSet) -> Connection {
    let directory = format!(" --state-dir ~/.local/state/sync-agent/{}", set.name);
    connection.agent.extend(directory.into_bytes());
    connection
}

/// What of the metadata a data set keeps.
fn preserve(set: &DataSet) -> Preserve {
    Preserve { xattrs: set.xattrs, ..Preserve::all(set.numeric_ids) }
}

/// What of a data set is left out.
fn exclusions(set: &DataSet) -> Result<FilterRules, StepError> {
    let mut filter = FilterRules::default();
    set.exclude.iter().try_for_each(|pattern| exclude(&mut filter, pattern))?;
    Ok(filter)
}

fn exclude(filter: &mut FilterRules, pattern: &str) -> Result<(), StepError> {
    filter.push_exclude(pattern.as_bytes()).map_err(|error| {
        StepError::refused(format!("exclude {pattern:?}: {}", crate::console::with_causes(&error)))
    })
}

/// A slash at the end: the directory's contents, never the directory inside itself.
fn contents_of(path: &Path) -> Vec<u8> {
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    bytes.push(b'/');
    bytes
}

/// Hears of a pass.
#[derive(Default)]
struct Witness(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    changed: BTreeSet<String>,
    problems: Vec<String>,
    problem_count: u64,
    notes: Vec<String>,
    worst: Exit,
}

impl Witness {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Monitor for Witness {
    fn item(&self, item: Item) {
        if let Item::Updated { path, change, .. } = &item
            && change.content == Content::Transferred
        {
            let mut seen = self.seen();
            if seen.changed.len() < NAMES {
                seen.changed.insert(escaped(path.as_bytes()));
            }
        } else if let Item::Spared { path, why: Spared::NotCopied, .. } = item {
            self.note(&format!("skipping non-regular file {:?}", path.to_string()));
        }
    }

    fn problem(&self, problem: Problem) {
        let mut seen = self.seen();
        seen.problem_count += 1;
        seen.worst = seen.worst.worst(problem.exit());
        if problem.exit() == Exit::Vanished && seen.changed.len() < NAMES {
            seen.changed.insert(escaped(problem.path.as_bytes()));
        }
        if seen.problems.len() < PROBLEMS {
            seen.problems.push(describe(&problem, escaped));
        }
    }

    fn made_root(&self, _: &[u8]) {}

    fn note(&self, message: &str) {
        let mut seen = self.seen();
        if seen.notes.len() < PROBLEMS {
            seen.notes.push(text::foreign(message.as_bytes()));
        }
    }
}

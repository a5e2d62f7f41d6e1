//! `bench`: what the link, the disks and the processors can do, and how long a copy of this tree would take.
//!
//! The story: open both ends, ask each the same probes, measure the link over the SSH channel that `sync`
//! uses, forecast, report. `ends` makes an end in this process and one behind SSH alike. What an end can't measure
//! is a note and a gap in the figures, never a guess; what the forecast assumes is printed with it.

mod ends;
mod figures;
mod forecast;
mod html;
mod report;

use crate::console::print_error;
use crate::endpoint::{Environment, RunError};
use crate::job::{Job, Side};
use crossbeam_channel::Receiver;
pub(crate) use ends::asking_once;
use ends::{Agent, End, Way};
use figures::{EndFigures, Flow, Link, Measured, Summary, Tree, Zstd};
pub(crate) use html::{STYLE, escaped as escaped_html};
use indicatif::{ProgressBar, ProgressStyle};
use protocol::limits;
use protocol::probe::{Probe, ProbeResult, Work};
use protocol::stats::Exit;
use serde_json::json;
use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;
use sync_agent::bench::BenchEnd;
use sync_agent::error::SessionError;

/// Everything `bench` is to do.
#[derive(Debug)]
pub struct BenchJob {
    /// Both sides and how to reach them. A side without paths was not given; neither was then its host.
    pub job: Job,
    /// How long one measurement may take.
    pub seconds: f64,
    /// Size of the file that is written at each end.
    pub size_bytes: u64,
    /// How much of the tree changes while a first pass runs.
    pub change_percent: f64,
    /// Why nothing is to be written, if nothing is.
    pub read_only: Option<&'static str>,
    /// Where a page with the figures is to go.
    pub html: Option<PathBuf>,
}

/// How many connections are measured beside each other.
const CONNECTIONS: [usize; 3] = [1, 2, 4];
/// Small files that are created.
const CREATED_FILES: u32 = 1000;
/// A scan may take so many times as long as another measurement: the forecast needs the whole tree.
const SCAN_TIMES: f64 = 30.0;
/// A processor is measured for this part of the time: it needs no more.
const PROCESSOR_PART: f64 = 0.25;
const ECHOES: u32 = 10;
/// zstd's levels that are measured.
const LEVELS: [u8; 2] = [1, 3];

/// Measures, reports, and returns the exit status.
pub fn run(job: &BenchJob, environment: &Environment, utf8: bool, stop: &Receiver<()>) -> u8 {
    let started = Instant::now();
    let result = html_file(job, environment).and_then(|page| {
        let measured = Bench::new(job, environment, stop).measure()?;
        Ok((page, measured))
    });
    let result = result.and_then(|(page, measured)| {
        let forecast = forecast::forecast(&measured, job.change_percent);
        let summary = Summary::new(measured, forecast, started.elapsed().as_secs_f64());
        if let Some((page, path)) = page {
            write_page(page, path, &html::page(&summary))?;
        }
        Ok(summary)
    });
    match result {
        Ok(summary) => {
            print(&summary, job, utf8);
            Exit::Done.code()
        }
        Err(error) => {
            let code = error.exit_code();
            if job.job.output.json {
                line(&json!({"event": "error", "message": error.to_string(), "exit_code": code}).to_string());
            }
            print_error(&error);
            code
        }
    }
}

fn print(summary: &Summary, job: &BenchJob, utf8: bool) {
    if job.job.output.json {
        return line(&serde_json::to_string(summary).unwrap_or_default());
    }
    report::lines(summary, utf8).iter().for_each(|text| line(text));
    if let Some(path) = &job.html {
        line("");
        line(&format!("The same as a page: {}", path.display()));
    }
}

fn line(text: &str) {
    // Whoever reads this went away: there is nobody to tell.
    let _ = writeln!(io::stdout().lock(), "{text}");
}

type Page<'a> = (tempfile::NamedTempFile, &'a Path);

/// The page's file under another name, made first: a name that can't be written is told at once.
fn html_file<'a>(job: &'a BenchJob, environment: &Environment) -> Result<Option<Page<'a>>, RunError> {
    let Some(path) = &job.html else { return Ok(None) };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = Permissions::from_mode(0o666 & !u32::from(environment.umask));
    let file = tempfile::Builder::new().prefix(".bench-").permissions(mode).tempfile_in(parent);
    let file = file.map_err(|error| cannot_write(path, error))?;
    Ok(Some((file, path)))
}

fn write_page(mut file: tempfile::NamedTempFile, path: &Path, page: &str) -> Result<(), RunError> {
    file.write_all(page.as_bytes()).map_err(|error| cannot_write(path, error))?;
    file.persist(path).map_err(|error| cannot_write(path, error.error))?;
    Ok(())
}

fn cannot_write(path: &Path, error: io::Error) -> RunError {
    SessionError::io(format!("write --html {}", path.display()), error).into()
}

/// A bench under way.
struct Bench<'a> {
    job: &'a BenchJob,
    environment: Environment,
    stop: &'a Receiver<()>,
    bar: ProgressBar,
    notes: Vec<String>,
}

impl<'a> Bench<'a> {
    fn new(job: &'a BenchJob, environment: &Environment, stop: &'a Receiver<()>) -> Bench<'a> {
        let output = &job.job.output;
        let bar =
            if output.json || output.quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        let style = ProgressStyle::with_template("{spinner} {elapsed} measuring {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(std::time::Duration::from_millis(120));
        Bench { job, environment: ends::asking_once(environment), stop, bar, notes: Vec::new() }
    }

    fn measure(mut self) -> Result<Measured, RunError> {
        let (source, destination) = (&self.job.job.source, &self.job.job.destination);
        let is_alone = destination.paths.is_empty() && source.host.is_none();
        self.bar.set_message("how to get there");
        let mut source = self.open(source)?;
        let mut destination = if is_alone { None } else { Some(self.open(destination)?) };
        let result = self.measure_all(&mut source, &mut destination);
        self.bar.set_message("nothing more");
        let closed = [Some(source), destination].into_iter().flatten().try_for_each(End::finish);
        self.bar.finish_and_clear();
        let measured = result.map_err(|error| self.stopped_or(error))?;
        closed.map_err(|error| self.stopped_or(error))?;
        Ok(Measured { notes: self.notes, ..measured })
    }

    /// A link that ended because the operator stopped the bench is no fault of the link's.
    fn stopped_or(&self, error: RunError) -> RunError {
        if self.stop.try_recv() == Err(crossbeam_channel::TryRecvError::Empty) {
            return error;
        }
        SessionError::refused(Exit::Interrupted, "stopped by a signal; what the bench made is removed").into()
    }

    fn open(&self, side: &Side) -> Result<End, RunError> {
        let argument = side.paths.first();
        match (&side.host, argument) {
            (None, None) => Ok(End::Here(BenchEnd::without_place(), self.stop.clone())),
            (None, Some(argument)) => {
                let end = BenchEnd::open(None, argument, self.job.read_only)?;
                Ok(End::Here(end, self.stop.clone()))
            }
            (Some(_), _) => Ok(End::There(self.connect(side)?)),
        }
    }

    fn connect(&self, side: &Side) -> Result<Agent, RunError> {
        Agent::connect(side, &self.job.job, &self.environment, self.stop)
    }

    fn measure_all(&mut self, source: &mut End, destination: &mut Option<End>) -> Result<Measured, RunError> {
        let (source_figures, tree) = self.end("source", source, true)?;
        let destination_figures = match destination {
            Some(end) => Some(self.end("destination", end, false)?.0),
            None => None,
        };
        let link = match (source, destination) {
            (End::There(agent), _) => Some(self.link(agent, &self.job.job.source, true)?),
            (_, Some(End::There(agent))) => Some(self.link(agent, &self.job.job.destination, false)?),
            _ => None,
        };
        let tree = tree.unwrap_or_default();
        Ok(Measured {
            source: source_figures,
            destination: destination_figures,
            link,
            tree,
            notes: Vec::new(),
        })
    }

    /// Everything about one end; the tree is the source's.
    fn end(
        &mut self,
        at: &'static str,
        end: &mut End,
        is_source: bool,
    ) -> Result<(EndFigures, Option<Tree>), RunError> {
        let side = if is_source { &self.job.job.source } else { &self.job.job.destination };
        let mut figures = EndFigures { place: shown(side), ..EndFigures::default() };
        if let ProbeResult::Machine(machine) = self.ask(at, "the machine", end, Probe::Machine)? {
            figures.cores = machine.cores.max(1);
            figures.free_bytes = (machine.free_bytes > 0).then_some(machine.free_bytes);
        }
        let tree = if side.paths.is_empty() { None } else { self.place(at, end, is_source, &mut figures)? };
        let limit_ms = milliseconds(self.job.seconds * PROCESSOR_PART);
        if let ProbeResult::Work(work) = self.ask(at, "hash", end, Probe::Hash { limit_ms })? {
            figures.hash_bytes_per_s = figures::bytes_per_s(&work);
            self.tell(at, "hash", "bytes_per_s", figures.hash_bytes_per_s);
        }
        for level in LEVELS {
            let what = if level == 1 { "zstd:1" } else { "zstd:3" };
            let asked = self.ask(at, what, end, Probe::Compress { level, limit_ms })?;
            if let ProbeResult::Compressed { work, packed_bytes, of_tree } = asked {
                let zstd = Zstd::new(level, &work, packed_bytes, of_tree);
                self.tell(at, what, "bytes_per_s", Some(zstd.bytes_per_s));
                figures.zstd.push(zstd);
            }
        }
        Ok((figures, tree))
    }

    /// What has to do with the directory that was given.
    fn place(
        &mut self,
        at: &'static str,
        end: &mut End,
        is_source: bool,
        figures: &mut EndFigures,
    ) -> Result<Option<Tree>, RunError> {
        let limit_ms = milliseconds(self.job.seconds);
        let scan_ms = milliseconds(self.job.seconds * SCAN_TIMES);
        let mut tree = None;
        if let ProbeResult::Tree(size) = self.ask(at, "scan", end, Probe::Scan { limit_ms: scan_ms })? {
            figures.scanned_entries = size.entries;
            figures.scan_entries_per_s = figures::per_s(size.entries, size.elapsed_ns);
            self.tell(at, "scan", "entries_per_s", figures.scan_entries_per_s);
            tree = Some(Tree::from(size));
        }
        let mut of_tree = None;
        if is_source && tree.is_some_and(|tree| tree.files > 0) {
            let asked = self.ask(at, "read of the tree", end, Probe::ReadTree { limit_ms })?;
            if let ProbeResult::Work(work) = asked {
                figures.tree_files_per_s = figures::per_s(work.files, work.elapsed_ns);
                self.tell(at, "tree", "files_per_s", figures.tree_files_per_s);
                of_tree = Some(work);
            }
        }
        let bytes = self.job.size_bytes.min(limits::PROBE_BYTES);
        if self.job.read_only.is_none() {
            self.disk(at, end, Probe::Disk { bytes, limit_ms }, figures)?;
            self.create(at, end, Probe::Create { files: CREATED_FILES, limit_ms }, figures)?;
        }
        if let Some(work) = of_tree {
            self.judge_tree(at, &work, figures);
        }
        Ok(tree)
    }

    fn disk(
        &mut self,
        at: &'static str,
        end: &mut End,
        probe: Probe,
        figures: &mut EndFigures,
    ) -> Result<(), RunError> {
        if let ProbeResult::Disk { write, read } = self.ask(at, "disk", end, probe)? {
            figures.write_bytes_per_s = figures::bytes_per_s(&write);
            figures.read_bytes_per_s = figures::bytes_per_s(&read);
            self.tell(at, "write", "bytes_per_s", figures.write_bytes_per_s);
            self.tell(at, "read", "bytes_per_s", figures.read_bytes_per_s);
        }
        Ok(())
    }

    fn create(
        &mut self,
        at: &'static str,
        end: &mut End,
        probe: Probe,
        figures: &mut EndFigures,
    ) -> Result<(), RunError> {
        // Where the disk refused, so would this, in the same words.
        if figures.write_bytes_per_s.is_none() {
            return Ok(());
        }
        if let ProbeResult::Work(work) = self.ask(at, "small files", end, probe)? {
            figures.create_files_per_s = figures::per_s(work.files, work.elapsed_ns);
            self.tell(at, "create", "files_per_s", figures.create_files_per_s);
        }
        Ok(())
    }

    /// What a file costs beyond its bytes; where the disk itself could not be measured, its rate.
    fn judge_tree(&mut self, at: &'static str, work: &Work, figures: &mut EndFigures) {
        match figures.read_bytes_per_s {
            Some(rate) => figures.file_overhead_s = Some(figures::overhead_s(work, rate)),
            None => {
                figures.read_bytes_per_s = figures::bytes_per_s(work);
                self.tell(at, "read", "bytes_per_s", figures.read_bytes_per_s);
            }
        }
    }

    fn ask(&mut self, at: &str, what: &str, end: &mut End, probe: Probe) -> Result<ProbeResult, RunError> {
        self.bar.set_message(format!("{what}, {at}"));
        let result = end.ask(probe)?;
        if let ProbeResult::Refused(why) = &result {
            let why = protocol::path::escaped(why.as_bytes());
            self.note(format!("{what} at the {at} was not measured: {why}"));
        }
        Ok(result)
    }

    fn note(&mut self, message: String) {
        if self.job.job.output.json {
            line(&json!({"event": "note", "message": message}).to_string());
        }
        self.notes.push(message);
    }

    fn tell(&self, at: &str, what: &str, unit: &str, figure: Option<f64>) {
        if let (true, Some(figure)) = (self.job.job.output.json, figure) {
            line(&json!({"event": "measurement", "at": at, "what": what, unit: figure}).to_string());
        }
    }

    fn link(&mut self, first: &Agent, side: &Side, is_source: bool) -> Result<Link, RunError> {
        self.bar.set_message("round trip");
        let round_trip_s = first.round_trip_s(ECHOES)?;
        self.tell("link", "round trip", "s", Some(round_trip_s));
        let connect_s = first.connect_s;
        let mut link = Link { connect_s, round_trip_s, to_destination: Vec::new(), to_source: Vec::new() };
        let mut others: Vec<Agent> = Vec::new();
        // A limit is kept by each connection: several would pass it.
        let is_limited = self.job.job.options.bandwidth_bytes_per_s > 0;
        for connections in CONNECTIONS.into_iter().filter(|&connections| connections == 1 || !is_limited) {
            if !self.connect_more(connections - 1, side, &mut others)? {
                break;
            }
            let agents: Vec<&Agent> = std::iter::once(first).chain(&others).collect();
            // The operator may have been asked for a passphrase at the first one.
            link.connect_s = agents.iter().fold(link.connect_s, |least, agent| least.min(agent.connect_s));
            let result = self.both_ways(&agents, &mut link, is_source);
            if let Err(error) = result {
                others.into_iter().for_each(Agent::close);
                return Err(error);
            }
        }
        others.into_iter().try_for_each(Agent::finish)?;
        Ok(link)
    }

    /// Whether there are so many beside the first now: a server may let in fewer.
    fn connect_more(&mut self, count: usize, side: &Side, agents: &mut Vec<Agent>) -> Result<bool, RunError> {
        self.bar.set_message(format!("the link with {} connections", count + 1));
        while agents.len() < count {
            match self.connect(side) {
                Ok(agent) => agents.push(agent),
                Err(error) if error.exit_code() == Exit::Interrupted.code() => return Err(error),
                Err(error) => {
                    self.note(format!("{} connections were not measured: {error}", count + 1));
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn both_ways(&mut self, agents: &[&Agent], link: &mut Link, is_source: bool) -> Result<(), RunError> {
        for way in [Way::FromAgent, Way::ToAgent] {
            let is_to_destination = (way == Way::FromAgent) == is_source;
            let flows = if is_to_destination { &mut link.to_destination } else { &mut link.to_source };
            let expected = flows.last().map(|flow: &Flow| flow.bytes_per_s);
            let bytes_per_s = ends::throughput(agents, way, self.job.seconds, expected, link.round_trip_s)?;
            flows.push(Flow { connections: agents.len(), bytes_per_s });
            let what = if is_to_destination { "to destination" } else { "to source" };
            if self.job.job.output.json {
                let connections = agents.len();
                line(
                    &json!({"event": "measurement", "at": "link", "what": what, "connections": connections,
                    "bytes_per_s": bytes_per_s})
                    .to_string(),
                );
            }
        }
        Ok(())
    }
}

fn milliseconds(seconds: f64) -> u32 {
    // The cast saturates; the limit is what the agent takes.
    ((seconds * 1000.0) as u32).clamp(1, limits::PROBE_MS)
}

/// A side as an operator would name it.
fn shown(side: &Side) -> String {
    let path = side.paths.first().map(|path| protocol::path::escaped(path));
    match (&side.host, path) {
        (Some(host), Some(path)) => format!("{}:{path}", host.name),
        (None, Some(path)) => path,
        (_, None) => "this machine".to_owned(),
    }
}

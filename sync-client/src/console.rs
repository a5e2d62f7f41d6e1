//! What the operator sees: names and letters as rsync prints them, problems, statistics, JSON, progress.

use crate::endpoint::Outcome;
use crate::job::OutputOptions;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use protocol::entry::Kind;
use protocol::itemize::{Arrow, Content, Item, letters};
use protocol::path::escaped;
use protocol::stats::{Cause, Exit, Kinds, Problem, Side, Stats, Times};
use serde::Serialize;
use serde_json::json;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use sync_agent::monitor::{Monitor, Progress};

/// Problems that are kept to be listed at the end; the rest are counted.
const LISTED_PROBLEMS: usize = 1000;

/// Prints for one run.
pub struct Console {
    options: OutputOptions,
    arrow: Arrow,
    /// Whether the terminal takes UTF-8; otherwise such bytes are printed in octal, as rsync does.
    utf8: bool,
    started: Instant,
    state: Mutex<State>,
    bar: Option<ProgressBar>,
}

#[derive(Default)]
struct State {
    problems: Vec<Problem>,
    problem_count: u64,
    worst: Exit,
    differences: u64,
    notes: Vec<String>,
    log: Option<File>,
}

impl Console {
    /// A console for a run that begins now.
    ///
    /// # Errors
    /// The log file can't be opened.
    pub fn new(options: OutputOptions, arrow: Arrow, utf8: bool, terminal: bool) -> io::Result<Console> {
        let log = match &options.log_file {
            Some(path) => Some(File::options().create(true).append(true).open(path)?),
            None => None,
        };
        let wants_bar = (terminal || options.progress) && !options.quiet && !options.json;
        let bar = wants_bar.then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(5);
            let bar = ProgressBar::with_draw_target(None, target);
            bar.set_style(bar_style(false));
            bar
        });
        let state = Mutex::new(State { log, ..State::default() });
        Ok(Console { options, arrow, utf8, started: Instant::now(), state, bar })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints a line of results.
    fn line(&self, line: &str) {
        let print = || {
            let mut out = io::stdout().lock();
            // Whoever reads this went away: the run itself goes on.
            let _ = writeln!(out, "{line}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn escaped(&self, bytes: &[u8]) -> String {
        if self.utf8 {
            return escaped(bytes);
        }
        let mut text = String::new();
        protocol::path::escape_to_ascii(bytes, &mut text);
        text
    }

    /// What rsync prints before the first name.
    pub fn begin(&self, is_pull: bool) {
        if self.options.verbose > 0 && !self.options.json && !self.options.quiet && !self.options.verify {
            let way = if is_pull { "receiving" } else { "sending" };
            self.line(&format!("{way} incremental file list"));
        }
    }

    fn name(&self, item: &Item) -> String {
        let (path, is_dir, target) = match item {
            Item::Updated { path, kind, .. } => {
                let target = match kind {
                    Kind::Symlink { target } => Some(target),
                    _ => None,
                };
                (path, *kind == Kind::Directory, target)
            }
            Item::Deleted { path, is_dir } => (path, *is_dir, None),
        };
        let mut name = if path.is_root() { ".".to_owned() } else { self.escaped(path.as_bytes()) };
        if is_dir {
            name.push('/');
        }
        if let Some(target) = target {
            name.push_str(" -> ");
            name.push_str(&self.escaped(target));
        }
        name
    }

    fn letters(&self, item: &Item) -> String {
        match item {
            Item::Updated { kind, change, .. } => letters(kind, change, self.arrow, self.options.times),
            Item::Deleted { .. } => "*deleting  ".to_owned(),
        }
    }

    /// Shows how far the run is until `done` says so.
    pub fn watch(&self, progress: &Progress, done: &crossbeam_channel::Receiver<()>) {
        let Some(bar) = &self.bar else { return };
        let mut is_scanned = false;
        loop {
            let entries = progress.listed_entries.load(Ordering::Relaxed);
            let bytes = progress.listed_bytes.load(Ordering::Relaxed);
            if progress.scanned.load(Ordering::Acquire) && !is_scanned {
                is_scanned = true;
                bar.set_style(bar_style(true));
            }
            bar.set_length(bytes);
            bar.set_position(progress.done_bytes.load(Ordering::Relaxed).min(bytes));
            bar.set_message(format!(
                "{}/{entries} entries",
                progress.done_entries.load(Ordering::Relaxed).min(entries)
            ));
            if done.recv_timeout(Duration::from_millis(100))
                != Err(crossbeam_channel::RecvTimeoutError::Timeout)
            {
                bar.finish_and_clear();
                return;
            }
        }
    }

    /// Prints how the run ended and returns the exit status.
    pub fn finish(&self, outcome: &Outcome) -> u8 {
        let (count, worst) = {
            let state = self.state();
            (state.problem_count, state.worst)
        };
        let exit = outcome.finished.exit.worst(worst);
        self.print_problems();
        self.print_problem_count();
        let elapsed_s = self.started.elapsed().as_secs_f64();
        if self.options.json {
            let summary = Summary::new(outcome, count, elapsed_s, exit);
            self.line(&serde_json::to_string(&summary).unwrap_or_default());
        } else if self.options.verify {
            self.verdict(&outcome.finished.stats, exit);
        } else if !self.options.quiet {
            if self.options.stats {
                self.print_stats(outcome);
            }
            if self.options.verbose > 0 || self.options.stats {
                self.print_totals(outcome, elapsed_s);
            }
        }
        exit.code()
    }

    /// Prints why the run could not be finished.
    pub fn fail(&self, error: &(dyn std::error::Error + 'static), exit: u8) {
        self.print_problems();
        if self.options.json {
            let message = with_causes(error);
            self.line(&json!({"event": "error", "message": message, "exit_code": exit}).to_string());
        }
        print_error(error);
        self.log(&format!("failed: {error}"));
    }

    fn print_problems(&self) {
        let state = self.state();
        let mut err = io::stderr().lock();
        for problem in &state.problems {
            let _ = writeln!(err, "sync-client: {}", self.describe(problem));
        }
        let hidden = state.problem_count - state.problems.len() as u64;
        if hidden > 0 {
            let _ = writeln!(err, "sync-client: and {hidden} problems more (all of them with --log-file)");
        }
        for note in &state.notes {
            let _ = writeln!(err, "sync-client: {note}");
        }
    }

    fn print_problem_count(&self) {
        let state = self.state();
        if state.problem_count > 0 {
            let mut err = io::stderr().lock();
            let plural = if state.problem_count == 1 { "entry" } else { "entries" };
            let _ = writeln!(
                err,
                "sync-client: {} {plural} with problems; everything else was done",
                state.problem_count
            );
        }
    }

    fn describe(&self, problem: &Problem) -> String {
        describe(problem, |path| self.escaped(path))
    }

    fn verdict(&self, stats: &Stats, exit: Exit) {
        let differences = self.state().differences;
        if self.options.quiet {
            return;
        }
        let compared =
            format!("{} files, {} compared by content", stats.compared_files, bytes(stats.compared_bytes));
        self.line(&match exit {
            Exit::Done => format!("identical: {compared}"),
            Exit::Differs => format!("{differences} entries differ ({compared})"),
            _ => format!("{differences} entries differ, and some could not be compared ({compared})"),
        });
    }

    fn print_stats(&self, outcome: &Outcome) {
        let stats = &outcome.finished.stats;
        let number = |number: u64| if self.options.human { grouped(number) } else { number.to_string() };
        for line in [
            String::new(),
            format!("Number of files: {}", kinds(&stats.listed, number)),
            format!("Number of created files: {}", kinds(&stats.created, number)),
            format!("Number of deleted files: {}", kinds(&stats.deleted, number)),
            format!(
                "Number of regular files transferred: {}",
                number(stats.created.files + stats.files_updated)
            ),
            format!("Number of entries with only metadata set: {}", number(stats.metadata_updated)),
            format!("Total file size: {} bytes", number(stats.listed_bytes)),
            format!("Total transferred file size: {} bytes", number(stats.transferred_bytes)),
            format!("Literal data: {} bytes", number(stats.literal_bytes)),
            format!("Matched data: {} bytes", number(stats.matched_bytes)),
            format!("Total bytes sent: {}", number(outcome.sent_bytes)),
            format!("Total bytes received: {}", number(outcome.received_bytes)),
            format!("Time of the source's threads: {}", seconds(&outcome.finished.source_times)),
            format!("Time of the destination's threads: {}", seconds(&outcome.finished.times)),
        ] {
            self.line(&line);
        }
    }

    fn print_totals(&self, outcome: &Outcome, elapsed_s: f64) {
        let stats = &outcome.finished.stats;
        let moved = outcome.sent_bytes + outcome.received_bytes;
        let dry = if self.options.dry_run { " (DRY RUN)" } else { "" };
        self.line("");
        self.line(&format!(
            "sent {} bytes  received {} bytes  {:.2} bytes/sec",
            grouped(outcome.sent_bytes),
            grouped(outcome.received_bytes),
            moved as f64 / elapsed_s.max(0.001)
        ));
        self.line(&format!(
            "total size is {}  speedup is {:.2}{dry}",
            grouped(stats.listed_bytes),
            stats.listed_bytes as f64 / (moved as f64).max(1.0)
        ));
    }

    fn log(&self, line: &str) {
        if let Some(log) = &mut self.state().log {
            let _ = writeln!(log, "{line}");
        }
    }
}

/// What there was of each activity, the longest first.
fn seconds(times: &Times) -> String {
    let mut spent: Vec<(&str, u64)> = times.named().into_iter().filter(|&(_, ns)| ns >= 1_000_000).collect();
    spent.sort_by_key(|&(_, ns)| std::cmp::Reverse(ns));
    if spent.is_empty() {
        return "none".to_owned();
    }
    let shown = spent.iter().map(|(name, ns)| format!("{name} {:.2} s", *ns as f64 / 1e9));
    shown.collect::<Vec<_>>().join(", ")
}

/// The same for `--json`: seconds by activity.
fn time_object(times: &Times) -> serde_json::Value {
    times.named().into_iter().map(|(name, ns)| (format!("{name}_s"), json!(ns as f64 / 1e9))).collect()
}

impl Monitor for Console {
    fn item(&self, item: Item) {
        self.state().differences += 1;
        let is_silent = self.options.quiet || (self.options.verbose == 0 && !self.options.itemize);
        if self.options.log_file.is_some() {
            self.log(&format!("{} {}", self.letters(&item), self.name(&item)));
        }
        if is_silent && !self.options.verify {
            return;
        }
        if self.options.json {
            let object =
                json!({"event": "item", "itemize": self.letters(&item).trim_end(), "name": self.name(&item)});
            return self.line(&object.to_string());
        }
        if self.options.quiet {
            return;
        }
        let name = self.name(&item);
        match &item {
            _ if self.options.itemize => self.line(&format!("{} {name}", self.letters(&item))),
            Item::Deleted { .. } => self.line(&format!("deleting {name}")),
            // Without -i, rsync names what it transfers or makes, not what only gets other attributes.
            Item::Updated { change, kind, .. }
                if change.content != Content::Kept || *kind == Kind::Directory =>
            {
                self.line(&name);
            }
            Item::Updated { .. } => {}
        }
    }

    fn problem(&self, problem: Problem) {
        let described = self.describe(&problem);
        self.log(&described);
        if self.options.json {
            let object = json!({"event": "problem", "path": self.escaped(problem.path.as_bytes()),
                "operation": problem.operation.as_str(), "cause": cause(&problem.cause), "exit_code": problem.exit().code()});
            self.line(&object.to_string());
        }
        let mut state = self.state();
        state.problem_count += 1;
        state.worst = state.worst.worst(problem.exit());
        if state.problems.len() < LISTED_PROBLEMS {
            state.problems.push(problem);
        }
    }

    fn made_root(&self, path: &[u8]) {
        if self.options.verbose > 0 && !self.options.quiet && !self.options.json {
            let path = self.escaped(path);
            self.line(&format!("created directory {}", path.trim_end_matches('/')));
        }
    }

    fn note(&self, message: &str) {
        let message = printable(message);
        self.log(&message);
        let notes = &mut self.state().notes;
        if notes.len() < LISTED_PROBLEMS {
            notes.push(message);
        }
    }
}

/// What the commands around a copy print: lines for people, or one JSON object a line.
///
/// What was asked for goes to standard output, an edit's diff too; what is said about an edit goes to standard error,
/// so that `patch` can read the diff.
#[derive(Debug, Clone, Copy)]
pub struct Lines {
    /// Objects instead of lines.
    pub json: bool,
    /// Whether a person reads standard output.
    pub is_shown: bool,
}

impl Lines {
    /// Prints one thing, in the form that was asked for.
    pub fn tell(&self, text: &str, object: &serde_json::Value) {
        self.text(text);
        self.object(object);
    }

    /// Says one thing about an edit, in the form that was asked for.
    pub fn remark(&self, text: &str, object: &serde_json::Value) {
        self.note(text);
        self.object(object);
    }

    /// Prints what has no object of its own.
    pub fn text(&self, text: &str) {
        if !self.json {
            // Whoever reads this went away: there is nobody to tell.
            let _ = writeln!(io::stdout().lock(), "{text}");
        }
    }

    /// Says about an edit what has no object of its own.
    pub fn note(&self, text: &str) {
        if !self.json {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// Prints what people need no line for.
    pub fn object(&self, object: &serde_json::Value) {
        if self.json {
            let _ = writeln!(io::stdout().lock(), "{object}");
        }
    }

    /// Prints a change of the file `name` as a unified diff that `patch` takes; nothing where there is none.
    pub fn diff(&self, name: &str, old: &[u8], new: &[u8]) {
        if old == new {
            return;
        }
        let diff = similar::TextDiff::from_lines(old, new);
        let mut unified = diff.unified_diff();
        let mut bytes = Vec::new();
        // Writing to memory can't fail.
        let _ = unified.context_radius(3).header(name, name).to_writer(&mut bytes);
        self.object(&json!({"event": "diff", "file": name, "text": String::from_utf8_lossy(&bytes)}));
        if self.json {
            return;
        }
        if self.is_shown {
            let lines = bytes.split_inclusive(|&byte| byte == b'\n');
            let lines = lines.map(|line| escaped(line.strip_suffix(b"\n").unwrap_or(line)) + "\n");
            bytes = lines.collect::<String>().into_bytes();
        }
        let _ = io::stdout().lock().write_all(&bytes);
    }

    /// Prints why a command ended, and returns its exit status.
    #[must_use]
    pub fn fail(&self, error: &(dyn std::error::Error + 'static), exit: Exit) -> u8 {
        self.object(&json!({"event": "error", "message": with_causes(error), "exit_code": exit.code()}));
        print_error(error);
        exit.code()
    }
}

/// Prints an error with its causes.
pub fn print_error(error: &(dyn std::error::Error + 'static)) {
    let mut err = io::stderr().lock();
    let _ = writeln!(err, "sync-client: {}", printable(&with_causes(error)));
}

/// What may come from the other side, without what would steer the terminal.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() && letter != '\n' {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// An error's message with those of its causes.
pub(crate) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// What went wrong with an entry; `escaped` makes its name printable.
pub(crate) fn describe(problem: &Problem, escaped: impl Fn(&[u8]) -> String) -> String {
    let side = match problem.side {
        Side::Source => "source",
        Side::Destination => "destination",
    };
    let path = if problem.path.is_root() { ".".to_owned() } else { escaped(problem.path.as_bytes()) };
    format!("cannot {} {path} ({side}): {}", problem.operation.as_str(), cause(&problem.cause))
}

fn cause(cause: &Cause) -> String {
    match cause {
        Cause::Errno(errno) => io::Error::from_raw_os_error(*errno).to_string(),
        Cause::Vanished => "it vanished after it was listed".to_owned(),
        Cause::KeptChanging => {
            "it kept changing while it was read; the destination keeps what it had, run again".to_owned()
        }
        Cause::ContentDiffers => {
            "what arrived is not what the source read, twice; check the memory and disks of both machines"
                .to_owned()
        }
        Cause::NotEmpty => {
            "a directory that is not empty stands in its place; --force or --delete removes it".to_owned()
        }
        Cause::DanglingLink => "the symbolic link that is to be followed points to nothing".to_owned(),
        Cause::LinkLoop => "the symbolic link that is to be followed leads back into a directory above it".to_owned(),
        Cause::TooManyAttributes => {
            "it has more extended attributes than the 256 KiB that are carried; the destination's stay as they are".to_owned()
        }
        Cause::ChangedKind => "it is no longer the kind of thing that was listed".to_owned(),
        Cause::LeadsOut => {
            "the symbolic link that is to be kept leads out of the destination, or is absolute; make it relative, or \
             mount the directory in its place"
                .to_owned()
        }
        Cause::ChangedSince => "it changed after it was copied; run again".to_owned(),
    }
}

/// The last line of `--json`.
#[derive(Serialize)]
struct Summary {
    event: &'static str,
    /// What the source listed.
    entries: u64,
    files_created: u64,
    files_updated: u64,
    entries_created: u64,
    metadata_updated: u64,
    entries_deleted: u64,
    total_bytes: u64,
    literal_bytes: u64,
    matched_bytes: u64,
    compared_files: u64,
    compared_bytes: u64,
    sent_bytes: u64,
    received_bytes: u64,
    frames: u64,
    problems: u64,
    elapsed_s: f64,
    /// Where the time of each end's threads went.
    source_times: serde_json::Value,
    destination_times: serde_json::Value,
    exit_code: u8,
}

impl Summary {
    fn new(outcome: &Outcome, problems: u64, elapsed_s: f64, exit: Exit) -> Summary {
        let stats = &outcome.finished.stats;
        Summary {
            event: "summary",
            entries: stats.listed.total(),
            files_created: stats.created.files,
            files_updated: stats.files_updated,
            entries_created: stats.created.total(),
            metadata_updated: stats.metadata_updated,
            entries_deleted: stats.deleted.total(),
            total_bytes: stats.listed_bytes,
            literal_bytes: stats.literal_bytes,
            matched_bytes: stats.matched_bytes,
            compared_files: stats.compared_files,
            compared_bytes: stats.compared_bytes,
            sent_bytes: outcome.sent_bytes,
            received_bytes: outcome.received_bytes,
            frames: outcome.frames,
            problems,
            elapsed_s: (elapsed_s * 1000.0).round() / 1000.0,
            source_times: time_object(&outcome.finished.source_times),
            destination_times: time_object(&outcome.finished.times),
            exit_code: exit.code(),
        }
    }
}

fn kinds(kinds: &Kinds, number: impl Fn(u64) -> String) -> String {
    let parts: Vec<String> = [
        ("reg", kinds.files),
        ("dir", kinds.directories),
        ("link", kinds.symlinks),
        ("dev", kinds.devices),
        ("special", kinds.specials),
    ]
    .into_iter()
    .filter(|&(_, count)| count > 0)
    .map(|(name, count)| format!("{name}: {}", number(count)))
    .collect();
    let total = number(kinds.total());
    if parts.is_empty() { total } else { format!("{total} ({})", parts.join(", ")) }
}

/// A number with its thousands apart, as rsync prints totals.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes for people.
#[must_use]
pub fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

fn bar_style(is_scanned: bool) -> ProgressStyle {
    let template = if is_scanned {
        "{elapsed_precise} {bar:24} {bytes}/{total_bytes} {binary_bytes_per_sec} ETA {eta} {msg}"
    } else {
        "{elapsed_precise} scanning {bytes}/{total_bytes}+ {binary_bytes_per_sec} {msg}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}

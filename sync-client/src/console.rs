//! What the operator sees: names and letters as rsync prints them, problems, statistics, JSON, progress.

mod format;
mod line;
mod list;
mod local_time;
mod number;
mod totals;

use crate::endpoint::Outcome;
use crate::job::{Buffering, OutputOptions, Stream, Topic, Way};
use crate::planned::show_mark;
pub use format::Format;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
pub use line::Printable;
use line::{Origins, Renderer, format_for, is_named};
use list::Listed;
pub use local_time::LocalTime;
pub use number::Human;
pub(crate) use number::grouped;
use protocol::entry::Kind;
use protocol::itemize::{Content, Item, Particulars, Spared};
use protocol::path::escaped;
use protocol::plan::mark;
use protocol::stats::{Cause, Exit, Problem, Side, Stats};
use serde_json::json;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use sync_agent::monitor::{Monitor, Progress};
use totals::Summary;

/// Problems that are kept to be listed at the end; the rest are counted.
const LISTED_PROBLEMS: usize = 1000;

/// What a console has to know of where it is.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The terminal takes UTF-8; otherwise such bytes are printed in octal, as rsync does.
    pub is_utf8: bool,
    /// Standard error is a terminal.
    pub is_terminal: bool,
    /// The operator's time zone.
    pub zone: LocalTime,
    /// The operator's umask, for a log file that is made.
    pub umask: u16,
}

/// Prints for one run.
pub struct Console {
    options: OutputOptions,
    renderer: Renderer,
    started: Instant,
    state: Mutex<State>,
    bar: Option<ProgressBar>,
    progress: Progress,
}

struct State {
    out: Box<dyn Write + Send>,
    problems: Vec<Problem>,
    problem_count: u64,
    worst: Exit,
    differences: u64,
    /// Files whose content was made new so far.
    transferred: u64,
    notes: Vec<String>,
    log: Option<File>,
    listed: Vec<Listed>,
}

impl Console {
    /// A console for a run that begins now; `sources` are those on this machine.
    ///
    /// # Errors
    /// The log file can't be opened.
    pub fn new(
        options: OutputOptions,
        way: Way,
        sources: &[Vec<u8>],
        around: Surroundings,
    ) -> io::Result<Console> {
        let log = match &options.log {
            Some(log) => {
                let mode = 0o666 & !u32::from(around.umask);
                Some(File::options().create(true).append(true).mode(mode).open(&log.path)?)
            }
            None => None,
        };
        let wants_bar =
            around.is_terminal && !options.quiet && !options.json && options.said.level(Topic::Progress) < 2;
        let bar = wants_bar.then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(5);
            let bar = ProgressBar::with_draw_target(None, target);
            bar.set_style(bar_style(false));
            bar
        });
        let printable = match (options.eight_bit, around.is_utf8) {
            (true, _) => Printable::EightBit,
            (false, true) => Printable::Utf8,
            (false, false) => Printable::Ascii,
        };
        let origins = Origins::of(if way == Way::Pull { &[] } else { sources });
        let renderer = Renderer { printable, way, times: options.times, zone: around.zone, origins };
        let state = Mutex::new(State {
            out: output(&options),
            problems: Vec::new(),
            problem_count: 0,
            worst: Exit::Done,
            differences: 0,
            transferred: 0,
            notes: Vec::new(),
            log,
            listed: Vec::new(),
        });
        let progress = Progress::default();
        Ok(Console { options, renderer, started: Instant::now(), state, bar, progress })
    }

    /// What the run counts.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints a line of results.
    fn line(&self, line: impl AsRef<[u8]>) {
        self.print(line.as_ref(), b"\n");
    }

    fn print(&self, text: &[u8], end: &[u8]) {
        let print = || {
            let mut state = self.state();
            // Whoever reads this went away: the run itself goes on.
            let _ = state.out.write_all(text).and_then(|()| state.out.write_all(end));
        };
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn escaped(&self, bytes: &[u8]) -> String {
        String::from_utf8_lossy(&self.renderer.printable.show(bytes)).into_owned()
    }

    /// Whether lines for people about `topic` are printed.
    fn says(&self, topic: Topic) -> bool {
        self.options.said.says(topic) && !self.options.json && !self.options.quiet
    }

    /// What rsync prints before the first name.
    pub fn begin(&self) {
        let (sending, building) = match self.renderer.way {
            Way::Pull => ("receiving", "receiving"),
            Way::Push | Way::Local => ("sending", "building"),
        };
        self.log(format!("{building} file list"));
        if !self.says(Topic::Flist) || self.options.verify {
            return;
        }
        if self.options.recursive {
            self.line(format!("{sending} incremental file list"));
        } else {
            self.line(format!("{building} file list ... done"));
        }
    }

    /// Shows how far the run is until `done` says so.
    pub fn watch(&self, done: &crossbeam_channel::Receiver<()>) {
        let is_whole = self.says(Topic::Progress) && self.options.said.level(Topic::Progress) > 1;
        if self.bar.is_none() && !is_whole {
            return;
        }
        let period = Duration::from_millis(if is_whole { 500 } else { 100 });
        loop {
            self.show_bar();
            let is_over = done.recv_timeout(period) != Err(crossbeam_channel::RecvTimeoutError::Timeout);
            if is_whole {
                let done_bytes = self.progress.done_bytes.load(Ordering::Relaxed);
                let listed_bytes = self.progress.listed_bytes.load(Ordering::Relaxed);
                let line = self.progress_line(done_bytes.min(listed_bytes), listed_bytes);
                self.print(format!("\r{line}").as_bytes(), if is_over { b"\n" } else { b"" });
                let _ = self.state().out.flush();
            }
            if is_over {
                if let Some(bar) = &self.bar {
                    bar.finish_and_clear();
                }
                return;
            }
        }
    }

    fn show_bar(&self) {
        let Some(bar) = &self.bar else { return };
        let progress = &self.progress;
        let entries = progress.listed_entries.load(Ordering::Relaxed);
        let bytes = progress.listed_bytes.load(Ordering::Relaxed);
        if progress.scanned.load(Ordering::Acquire) {
            bar.set_style(bar_style(true));
        }
        bar.set_length(bytes);
        bar.set_position(progress.done_bytes.load(Ordering::Relaxed).min(bytes));
        bar.set_message(format!(
            "{}/{entries} entries",
            progress.done_entries.load(Ordering::Relaxed).min(entries)
        ));
    }

    /// rsync's line of progress: `done_bytes` of `bytes`, with the figures of the whole run so far.
    fn progress_line(&self, done_bytes: u64, bytes: u64) -> String {
        let percent = if bytes == 0 { 100 } else { u128::from(done_bytes) * 100 / u128::from(bytes) };
        let elapsed = self.started.elapsed().as_secs_f64();
        let arrived = self.progress.done_bytes.load(Ordering::Relaxed) as f64;
        let (rate, unit) = totals::rate(arrived / elapsed.max(0.001));
        let seconds = elapsed as u64;
        let listed = self.progress.listed_entries.load(Ordering::Relaxed);
        let left = listed.saturating_sub(self.progress.done_entries.load(Ordering::Relaxed));
        let check = if self.progress.scanned.load(Ordering::Acquire) { "to" } else { "ir" };
        format!(
            "{:>15} {percent:>3}% {rate:>7.2}{unit} {:>4}:{:02}:{:02} (xfr#{}, {check}-chk={left}/{listed})",
            self.options.human.number(done_bytes),
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            self.state().transferred,
        )
    }

    /// Prints how the run ended and returns the exit status.
    pub fn finish(&self, outcome: &Outcome) -> u8 {
        let (count, worst) = {
            let state = self.state();
            (state.problem_count, state.worst)
        };
        let exit = outcome.finished.exit.worst(worst);
        self.print_list();
        let _ = self.state().out.flush();
        self.print_problems();
        self.print_problem_count();
        let elapsed_s = self.started.elapsed().as_secs_f64();
        if self.options.json {
            let summary = Summary::new(outcome, count, elapsed_s, exit, self.options.dry_run);
            self.line(serde_json::to_string(&summary).unwrap_or_default());
        } else if self.options.verify {
            self.verdict(&outcome.finished.stats, exit);
        } else if !self.options.quiet {
            let level = self.options.said.level(Topic::Stats);
            if level > 1 {
                totals::statistics(outcome, self.options.human).iter().for_each(|line| self.line(line));
            }
            if level > 0 {
                let dry_run = self.options.dry_run && !self.options.list_only;
                let lines = totals::totals(outcome, elapsed_s, self.options.human, dry_run);
                lines.iter().for_each(|line| self.line(line));
            }
        }
        self.log(totals::logged(outcome));
        let _ = self.state().out.flush();
        exit.code()
    }

    /// Prints what `--list-only` found.
    fn print_list(&self) {
        let mut listed = std::mem::take(&mut self.state().listed);
        listed.sort_unstable_by(Listed::order);
        for entry in listed {
            let mut line = entry.columns(self.options.human, &self.renderer.zone).into_bytes();
            line.push(b' ');
            line.extend(self.renderer.path(&entry.path));
            if let Kind::Symlink { target } = &entry.kind
                && self.options.shows_targets
            {
                line.extend_from_slice(b" -> ");
                line.extend(self.renderer.printable.show(target));
            }
            self.line(line);
        }
    }

    /// Prints why the run could not be finished.
    pub fn fail(&self, error: &(dyn std::error::Error + 'static), exit: u8) {
        let _ = self.state().out.flush();
        self.print_problems();
        if self.options.json {
            let message = with_causes(error);
            self.line(json!({"event": "error", "message": message, "exit_code": exit}).to_string());
            let _ = self.state().out.flush();
        }
        print_error(error);
        self.log(format!("failed: {error}"));
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
        self.line(match exit {
            Exit::Done => format!("identical: {compared}"),
            Exit::Differs => format!("{differences} entries differ ({compared})"),
            _ => format!("{differences} entries differ, and some could not be compared ({compared})"),
        });
    }

    /// Adds a line to the log file, as rsync does with the time and the number of this process.
    fn log(&self, line: impl AsRef<[u8]>) {
        if let Some(log) = &mut self.state().log {
            let now = format!("{} [{}] ", self.renderer.zone.now(), std::process::id());
            let _ = log.write_all(&[now.as_bytes(), line.as_ref(), b"\n"].concat());
        }
    }

    fn log_item(&self, item: &Item) {
        let Some(log) = &self.options.log else { return };
        let format = &log.format;
        // As with rsync, what only gets other attributes is logged where it is printed.
        let is_itemized = self.options.format.as_ref().is_some_and(Format::is_itemized);
        let is_left_out = format.is_empty() && !matches!(item, Item::Deleted { .. });
        if is_left_out || !is_itemized && !is_named(item) {
            return;
        }
        if let Some(format) = format_for(format, item) {
            self.log(self.renderer.fill_as(Printable::EightBit, &format, item));
        }
    }

    /// What people read of an item.
    fn item_line(&self, item: &Item) -> Option<Vec<u8>> {
        let said = &self.options.said;
        let format = self.options.format.as_ref();
        let is_itemized = format.is_some_and(Format::is_itemized);
        match item {
            Item::Spared { path, is_dir, why } => {
                let topic = if *why == Spared::NotCopied { Topic::Nonreg } else { Topic::Skip };
                said.says(topic).then(|| self.renderer.spared(path, *is_dir, *why))
            }
            Item::Deleted { .. } => {
                let is_said = format.is_some() || said.says(Topic::Name) || said.says(Topic::Del);
                is_said.then(|| self.filled(format, item)).flatten()
            }
            Item::Updated { path, kind, change, .. } if change.is_none() && !is_itemized => {
                let is_said = said.level(Topic::Name) > 1 && *kind != Kind::Directory;
                is_said.then(|| [&self.renderer.path(path), &b" is uptodate"[..]].concat())
            }
            Item::Updated { path, .. }
                if format.is_none() && said.level(Topic::Name) > 1 && !is_named(item) =>
            {
                Some(self.renderer.path(path))
            }
            Item::Updated { .. } if format.is_some() || said.says(Topic::Name) => self.filled(format, item),
            Item::Updated { .. } => None,
        }
    }

    fn filled(&self, format: Option<&Format>, item: &Item) -> Option<Vec<u8>> {
        let names = Format::names();
        let format = format_for(format.unwrap_or(&names), item)?;
        Some(self.renderer.fill(&format, item))
    }

    /// What programs read of an item.
    fn item_object(&self, item: &Item) -> serde_json::Value {
        let name = String::from_utf8_lossy(&self.renderer.name(item)).into_owned();
        match item {
            Item::Spared { path, is_dir, why } => {
                let message = self.renderer.spared(path, *is_dir, *why);
                json!({"event": "spared", "name": name, "message": String::from_utf8_lossy(&message)})
            }
            Item::Deleted { .. } => {
                json!({"event": "item", "itemize": self.renderer.letters(item).trim_end(),
                "name": name, "mark": shown_mark(item)})
            }
            Item::Updated { kind, particulars, .. } => {
                let Particulars { mode, uid, gid, mtime, .. } = particulars;
                json!({"event": "item", "itemize": self.renderer.letters(item).trim_end(), "name": name,
                    "size_bytes": list::size_bytes(kind), "mode": format!("{mode:04o}"), "uid": uid, "gid": gid,
                    "mtime_s": mtime.secs, "mtime_ns": mtime.nanos, "mark": shown_mark(item)})
            }
        }
    }

    /// Counts what was transferred; with `--progress`, says so.
    fn count(&self, item: &Item) {
        let Item::Updated { kind: Kind::File { size_bytes }, change, .. } = item else { return };
        if change.content != Content::Transferred {
            return;
        }
        self.state().transferred += 1;
        let is_each = self.options.said.level(Topic::Progress) == 1 && self.says(Topic::Progress);
        if is_each && !self.options.dry_run {
            self.line(self.progress_line(*size_bytes, *size_bytes));
        }
    }
}

fn shown_mark(item: &Item) -> Option<String> {
    mark(item).as_ref().map(show_mark)
}

/// Where lines go, and when.
fn output(options: &OutputOptions) -> Box<dyn Write + Send> {
    match (options.stream, options.buffering) {
        (Stream::Output, Buffering::Lines) => Box::new(io::stdout()),
        (Stream::Output, Buffering::Blocks) => Box::new(BufWriter::with_capacity(64 << 10, io::stdout())),
        (Stream::Error, Buffering::Lines) => Box::new(io::LineWriter::new(io::stderr())),
        (Stream::Error, Buffering::Blocks) => Box::new(BufWriter::with_capacity(64 << 10, io::stderr())),
    }
}

impl Monitor for Console {
    fn item(&self, item: Item) {
        let is_difference = match &item {
            Item::Updated { change, .. } => !change.is_none(),
            Item::Deleted { .. } => true,
            Item::Spared { .. } => false,
        };
        if self.options.list_only {
            if let Item::Updated { path, kind, particulars, .. } = item {
                self.state().listed.push(Listed { path, kind, particulars });
            }
            return;
        }
        self.state().differences += u64::from(is_difference);
        if is_difference {
            self.log_item(&item);
        }
        if self.options.json {
            if self.options.tells_programs() {
                self.line(self.item_object(&item).to_string());
            }
            return;
        }
        if self.options.quiet {
            return;
        }
        if let Some(line) = self.item_line(&item) {
            self.line(line);
        }
        self.count(&item);
    }

    fn problem(&self, problem: Problem) {
        let described = self.describe(&problem);
        self.log(&described);
        if self.options.json {
            let object = json!({"event": "problem", "path": self.escaped(problem.path.as_bytes()),
                "operation": problem.operation.as_str(), "cause": cause(&problem.cause), "exit_code": problem.exit().code()});
            self.line(object.to_string());
        }
        let mut state = self.state();
        state.problem_count += 1;
        state.worst = state.worst.worst(problem.exit());
        if state.problems.len() < LISTED_PROBLEMS {
            state.problems.push(problem);
        }
    }

    fn made_root(&self, path: &[u8]) {
        if self.says(Topic::Name) {
            let path = self.escaped(path);
            self.line(format!("created directory {}", path.trim_end_matches('/')));
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
        Cause::FirstNameMissing => {
            "the name that it shares its content with was not copied (see there); run again".to_owned()
        }
        Cause::TooManyAttributes => {
            "it has more extended attributes than the 256 KiB that are carried; the destination's stay as they are".to_owned()
        }
        Cause::ChangedKind => "it is no longer the kind of thing that was listed".to_owned(),
        Cause::LeadsOut => {
            "the symbolic link that is to be kept leads out of the destination, or is absolute; make it relative, or \
             mount the directory in its place"
                .to_owned()
        }
        Cause::SameFile => "it is the destination's file itself, under another path: it stays".to_owned(),
        Cause::ChangedSince => "it changed after it was copied; run again".to_owned(),
        Cause::StoredBadly => "its user.rsync.%stat is not what --fake-super writes".to_owned(),
    }
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

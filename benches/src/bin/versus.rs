//! `versus`: this program against rsync, side by side, with every copy checked.

use benches::cases;
use benches::contest::Arena;
use benches::interrupt::Guard;
use benches::machine::Machine;
use benches::programs::Programs;
use benches::report::{self, CaseReport, Report};
use clap::Parser;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tests::requirement::missing;
use tests::sandbox::Sandbox;

/// What must be installed.
const NEEDED: [&str; 6] = ["rsync", "ssh", "sshd", "python3", "cp", "wiredtiger"];
const EXIT_MISSED: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// Runs rsync and sync-client side by side and compares wall time, memory and bytes on the wire.
///
/// Everything is made in one temporary directory, which is removed at the end; all cases together need some
/// 10 GB there. The programs are built, or taken from SYNC_BIN_DIR. Ends with 0 if every bar is met, with 1
/// if one is missed.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Cases to run [default: all]
    #[arg(value_name = "CASE")]
    cases: Vec<String>,
    /// Show the cases and their bars
    #[arg(long)]
    list: bool,
    /// Runs of each program in each case
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where the temporary directory is made
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    dir: PathBuf,
    /// How long files are left alone before a pass that is to fill the index, which takes no younger ones
    #[arg(long, value_name = "SECONDS", default_value_t = 61)]
    settle: u64,
    /// Write the raw figures there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report there, for benches/runs
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let selected = match cases::select(&cli.cases) {
        Ok(selected) => selected,
        Err(message) => return fail(&message),
    };
    if cli.list {
        print(&report::list(&selected));
        return ExitCode::SUCCESS;
    }
    if let Some(why) = NEEDED.iter().find_map(|name| missing(name)) {
        return fail(&why);
    }
    let report = run(&cli, &selected);
    print(&format!("\n{}", report.table()));
    if let Err(message) = write_files(&cli, &report) {
        return fail(&message);
    }
    ExitCode::from(if report.is_met() { 0 } else { EXIT_MISSED })
}

fn run(cli: &Cli, selected: &[&'static cases::Case]) -> Report {
    let programs = Programs::take_or_build();
    let guard = Guard::default();
    let sandbox = Sandbox::below(&cli.dir);
    guard.remove_on_signal(sandbox.path().to_owned());
    let machine = Machine::look(&programs, sandbox.path());
    let mut arena = Arena::new(sandbox, programs, Duration::from_secs(cli.settle));
    let mut report = Report { machine, rounds: cli.rounds, settle_s: cli.settle, cases: Vec::new() };
    for (number, case) in selected.iter().enumerate() {
        report.cases.push(CaseReport::new(&arena.run(case, cli.rounds)));
        arena.forget(case, &selected[number + 1..]);
    }
    report
}

fn write_files(cli: &Cli, report: &Report) -> Result<(), String> {
    if let Some(path) = &cli.json {
        let text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
        write(path, &(text + "\n"))?;
    }
    cli.markdown.as_ref().map_or(Ok(()), |path| write(path, &report.markdown()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let made = directory.map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::write(path, text)).map_err(|error| format!("{}: {error}", path.display()))
}

fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

fn fail(message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "versus: {message}");
    ExitCode::from(EXIT_USAGE)
}

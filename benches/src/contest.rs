//! Runs the cases: prepares, times one program after the other, and checks every destination.
//!
//! Always rsync first, then ours, on the same source, through the same SSH server with the same key. Of
//! rsync every variant runs in the first round (with and without `-z`, and `--inplace` where an old version is
//! there), and the fastest one in the others.
//! Preparations and checks are outside the timing.

use crate::cases::{Before, Case, Data, Flow, WAN_MBIT, WAN_RTT_MS};
use crate::data::{self, STEP_LIMIT, Store, with_slash};
use crate::programs::Programs;
use ::tests::address::Address;
use ::tests::process::{Output, Running};
use ::tests::requirement::installed;
use ::tests::sandbox::Sandbox;
use ::tests::snapshot::{NOTHING, assert_same, snapshot};
use ::tests::sshd::{Agent, Options, Sshd};
use ::tests::wan::Proxy;
use serde::Serialize;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// How often the memory of our processes is looked at; a peak of the last moments may be missed.
const MEMORY_EVERY: Duration = Duration::from_millis(10);
/// What is younger is compared by content by us, and has its time left as it is by rsync (which compares
/// whole seconds), so that a source made just now would give neither its usual work.
const YOUNG: Duration = Duration::from_secs(3);
const AGENT_END_LIMIT: Duration = Duration::from_secs(30);

/// Whose run it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// rsync.
    Rsync,
    /// rsync with `-z`.
    RsyncCompressed,
    /// rsync with `--inplace`.
    RsyncInPlace,
    /// rsync with both.
    RsyncInPlaceCompressed,
    /// Our client.
    Ours,
    /// Our client with `-z`, for its bytes on the wire.
    OursCompressed,
    /// `cp -a`, of local mirrors.
    Copy,
}

impl Contender {
    /// What to call it in a table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Contender::Rsync => "rsync",
            Contender::RsyncCompressed => "rsync -z",
            Contender::RsyncInPlace => "rsync --inplace",
            Contender::RsyncInPlaceCompressed => "rsync -z --inplace",
            Contender::Ours => "ours",
            Contender::OursCompressed => "ours -z",
            Contender::Copy => "cp -a",
        }
    }

    /// Whether it is rsync, with whatever options.
    #[must_use]
    pub fn is_rsync(self) -> bool {
        !self.is_ours() && self != Contender::Copy
    }

    /// Whether it is our client, with whatever options.
    #[must_use]
    pub fn is_ours(self) -> bool {
        matches!(self, Contender::Ours | Contender::OursCompressed)
    }

    fn directory(self) -> &'static str {
        match self {
            Contender::Ours => "destination-ours",
            Contender::OursCompressed => "destination-ours-z",
            Contender::Copy => "destination-cp",
            _ => "destination-rsync",
        }
    }

    /// What it is told beyond the case's own options.
    fn own_options(self, case: &Case) -> &'static [&'static str] {
        match self {
            Contender::Rsync => &["--stats"],
            Contender::RsyncCompressed => &["-z", "--stats"],
            Contender::RsyncInPlace => &["--inplace", "--stats"],
            Contender::RsyncInPlaceCompressed => &["-z", "--inplace", "--stats"],
            Contender::Ours if case.patches() => &["--inplace", "--json"],
            Contender::OursCompressed if case.patches() => &["-z", "--inplace", "--json"],
            Contender::Ours => &["--json"],
            Contender::OursCompressed => &["-z", "--json"],
            Contender::Copy => &[],
        }
    }
}

/// One timed run.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// From 1.
    pub round: u32,
    /// Whose it is.
    pub contender: Contender,
    /// Wall time.
    pub seconds: f64,
    /// Bytes both ways, as the program counts them; not of `cp`.
    pub wire_bytes: Option<u64>,
    /// Peak resident memory of our client; none if it ended before it was looked at.
    pub client_peak_bytes: Option<u64>,
    /// Peak resident memory of our agent; none locally, or if it ended before it was looked at.
    pub agent_peak_bytes: Option<u64>,
    /// The line that was run, with paths relative to the run's directory.
    pub command: String,
}

/// All runs of one case.
#[derive(Debug, Clone)]
pub struct Samples {
    /// The case.
    pub case: &'static Case,
    /// In the order in which they ran.
    pub samples: Vec<Sample>,
}

/// The place where all cases run.
#[derive(Debug)]
pub struct Arena {
    // Dropped in this order: what runs in the sandbox before the sandbox.
    proxy: Option<Proxy>,
    sshd: Sshd,
    store: Store,
    programs: Programs,
    settle: Duration,
    sandbox: Sandbox,
}

/// Where one case's trees are.
struct Scene {
    source: PathBuf,
    /// Of [`Before::Same`]: the one destination, of all contenders.
    shared: Option<PathBuf>,
    directory: PathBuf,
}

impl Scene {
    fn destination(&self, contender: Contender) -> PathBuf {
        self.shared.clone().unwrap_or_else(|| self.directory.join(contender.directory()))
    }
}

impl Arena {
    /// A server with our agent in `sandbox`. Files must be left alone for `settle` before our index
    /// keeps them.
    ///
    /// # Panics
    /// Where the server does not come up.
    #[must_use]
    pub fn new(sandbox: Sandbox, programs: Programs, settle: Duration) -> Arena {
        let agent = format!("#!/bin/sh\nexec '{}' \"$@\"\n", programs.agent().display());
        let options = Options { agent: Agent::Script(agent), ..Options::default() };
        let sshd = Sshd::start_with(&sandbox, &options);
        let store = Store::new(sandbox.path().join("data"));
        Arena { proxy: None, sshd, store, programs, settle, sandbox }
    }

    /// The directory in which all happens.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.sandbox.path()
    }

    /// Runs one case.
    ///
    /// # Panics
    /// Where a program fails, or a destination is not what its source is.
    pub fn run(&mut self, case: &'static Case, rounds: u32) -> Samples {
        note(&format!("{}: {}: preparing", case.name, case.title));
        let scene = self.set(case);
        let mut contenders = contenders(case);
        let mut samples = Vec::new();
        for round in 1..=rounds {
            self.prepare_round(case, &scene);
            for &contender in &contenders {
                self.prepare_run(case, &scene, contender);
                samples.push(self.time(case, &scene, contender, round));
                self.check(case, &scene, contender);
            }
            keep_for_other_rounds(&mut contenders, &samples);
        }
        data::remove(&scene.directory);
        Samples { case, samples }
    }

    /// Removes what was made for this case and is of no use for the cases in `left`.
    pub fn forget(&mut self, case: &Case, left: &[&Case]) {
        let is_needed = |data: Data| left.iter().any(|case| case.data == data);
        let is_part = is_part_of_server(case.data) && is_needed(Data::Server);
        if !is_needed(case.data) && !is_part {
            self.store.forget(case.data);
        }
    }

    /// Makes what all rounds of a case have in common.
    fn set(&mut self, case: &Case) -> Scene {
        self.forget_index();
        let directory = self.sandbox.path().join("case");
        fs::create_dir(&directory).expect("the case before removed its own");
        let old = self.store.old(case.data);
        let mut scene = Scene { source: old.clone(), shared: None, directory };
        match case.before {
            Before::Nothing => {}
            Before::Same => {
                let destination = scene.directory.join("destination");
                data::copy(&old, &destination);
                scene.shared = Some(destination);
            }
            Before::Old => scene.source = self.store.new_version(case.data),
            Before::Series => {
                scene.source = scene.directory.join("source");
                data::copy(&old, &scene.source);
            }
        }
        data::wait_until_settled(&[&scene.source], YOUNG);
        if case.is_checksum {
            self.settle(&scene);
            self.pass(case, &scene);
        }
        scene
    }

    fn prepare_round(&mut self, case: &Case, scene: &Scene) {
        if case.before != Before::Series {
            return;
        }
        data::restore(&self.store.old(case.data), &scene.source);
        self.pass(case, scene);
        data::change(case.data, &scene.source);
        data::wait_until_settled(&[&scene.source], YOUNG);
    }

    fn prepare_run(&mut self, case: &Case, scene: &Scene, contender: Contender) {
        let destination = scene.destination(contender);
        let is_ours = contender.is_ours();
        match case.before {
            Before::Nothing => data::remove(&destination),
            Before::Same => {}
            Before::Series if contender == Contender::Ours => {}
            Before::Old | Before::Series => {
                data::remove(&destination);
                data::copy(&self.store.old(case.data), &destination);
            }
        }
        if is_ours && !case.keeps_index() {
            self.forget_index();
        }
        if case.is_wan && self.proxy.is_none() {
            self.start_proxy();
        }
        self.sshd.wait_for_agents_to_end(AGENT_END_LIMIT);
    }

    /// A pass of ours outside the timing, over the fast link.
    fn pass(&self, case: &Case, scene: &Scene) {
        let direct = Case { is_wan: false, ..*case };
        let output = Running::start(self.command(&direct, scene, Contender::Ours)).wait_within(STEP_LIMIT);
        output.success();
        self.sshd.wait_for_agents_to_end(AGENT_END_LIMIT);
    }

    fn settle(&self, scene: &Scene) {
        let destination = scene.destination(Contender::Ours);
        data::wait_until_settled(&[&scene.source, &destination], self.settle);
    }

    fn forget_index(&self) {
        data::remove(&self.sandbox.state());
    }

    fn start_proxy(&mut self) {
        let proxy = Proxy::start(self.sshd.port(), WAN_RTT_MS, WAN_MBIT, 0, 0);
        self.sandbox.trust(proxy.port(), &self.sshd.host_keys());
        self.proxy = Some(proxy);
    }

    fn time(&self, case: &Case, scene: &Scene, contender: Contender, round: u32) -> Sample {
        let (output, peaks) = self.measure(self.command(case, scene, contender));
        output.success();
        let is_ours = contender.is_ours();
        let sample = Sample {
            round,
            contender,
            seconds: output.elapsed.as_secs_f64(),
            wire_bytes: wire_bytes(&output, contender),
            client_peak_bytes: Some(peaks.client_bytes).filter(|&bytes| is_ours && bytes > 0),
            agent_peak_bytes: Some(peaks.agent_bytes).filter(|&bytes| is_ours && bytes > 0),
            command: self.shortened(&output.line),
        };
        note(&format!("{}: round {round}: {} {:.3} s", case.name, contender.name(), sample.seconds));
        sample
    }

    /// Runs to the end, and looks at the memory of the process and of an agent meanwhile.
    fn measure(&self, command: Command) -> (Output, Peaks) {
        let mut running = Running::start(command);
        let (mut peaks, mut agent) = (Peaks::default(), None);
        while !running.ended_within(MEMORY_EVERY) {
            agent = agent.or_else(|| self.sshd.agents().first().copied());
            peaks.client_bytes = peaks.client_bytes.max(peak_bytes(running.id()));
            peaks.agent_bytes = peaks.agent_bytes.max(agent.map_or(0, peak_bytes));
        }
        (running.wait_within(STEP_LIMIT), peaks)
    }

    fn command(&self, case: &Case, scene: &Scene, contender: Contender) -> Command {
        let (program, first): (PathBuf, &[&str]) = match contender {
            Contender::Copy => (installed("cp"), &["-a"]),
            _ if contender.is_ours() => (self.programs.client(), &["sync"]),
            _ => (installed("rsync"), &[]),
        };
        let mut command = self.sandbox.command(program);
        command.args(first);
        let destination = scene.destination(contender);
        if contender == Contender::Copy {
            command.arg(&scene.source).arg(destination);
            return command;
        }
        command.args(case.options()).args(contender.own_options(case));
        if contender.is_ours() {
            command.arg("--state-dir").arg(self.sandbox.state().join("sync-client"));
        }
        self.add_sides(&mut command, case, &scene.source, &destination);
        command
    }

    fn add_sides(&self, command: &mut Command, case: &Case, source: &Path, destination: &Path) {
        let address = self.address(case);
        let (mut from, mut to) = (with_slash(source), with_slash(destination));
        match case.flow {
            Flow::Pull => from = address.host_path(&from),
            Flow::Push => to = address.host_path(&to),
            Flow::Local => {}
        }
        if case.flow != Flow::Local {
            command.arg("-e").arg(address.remote_shell());
        }
        command.args([from, to]);
    }

    fn address(&self, case: &Case) -> Address {
        match &self.proxy {
            Some(proxy) if case.is_wan => self.sshd.address().at_port(proxy.port()),
            _ => self.sshd.address().clone(),
        }
    }

    fn check(&self, case: &Case, scene: &Scene, contender: Contender) {
        let destination = scene.destination(contender);
        let (expected, actual) = thread::scope(|scope| {
            let expected = scope.spawn(|| snapshot(&scene.source));
            let actual = snapshot(&destination);
            (expected.join().expect("the source can be read"), actual)
        });
        assert_same(&expected, &actual, &NOTHING);
        if matches!(case.before, Before::Nothing | Before::Old) {
            data::remove(&destination);
        }
    }

    /// A line without the paths of this machine.
    fn shortened(&self, line: &str) -> String {
        let programs = with_slash(self.programs.directory());
        let sandbox = with_slash(self.sandbox.path());
        let short = line.replace(&sandbox, "").replace(&programs, "");
        ["rsync", "cp"].iter().fold(short, |line, name| {
            let installed = format!("{} ", installed(name).display());
            line.replace(&installed, &format!("{name} "))
        })
    }
}

fn is_part_of_server(data: Data) -> bool {
    matches!(data, Data::SmallFiles | Data::Database)
}

fn contenders(case: &Case) -> Vec<Contender> {
    if case.flow == Flow::Local {
        return vec![Contender::Rsync, Contender::Ours, Contender::Copy];
    }
    let mut all = vec![Contender::Rsync, Contender::RsyncCompressed];
    if case.patches() {
        all.extend([Contender::RsyncInPlace, Contender::RsyncInPlaceCompressed]);
    }
    all.push(Contender::Ours);
    if case.wire_bar.is_some() {
        all.push(Contender::OursCompressed);
    }
    all
}

/// Of the variants of rsync those that were slower in the first round leave; ours with `-z` has shown its bytes.
fn keep_for_other_rounds(contenders: &mut Vec<Contender>, samples: &[Sample]) {
    let faster = faster_rsync(samples);
    contenders
        .retain(|&contender| contender == faster || matches!(contender, Contender::Ours | Contender::Copy));
}

/// The variant of rsync that was faster in the first round.
///
/// # Panics
/// Where rsync did not run.
#[must_use]
pub fn faster_rsync(samples: &[Sample]) -> Contender {
    let first = samples.iter().filter(|sample| sample.round == 1 && sample.contender.is_rsync());
    let fastest = first.min_by(|a, b| a.seconds.total_cmp(&b.seconds));
    fastest.expect("each case runs rsync").contender
}

#[derive(Debug, Clone, Copy, Default)]
struct Peaks {
    client_bytes: u64,
    agent_bytes: u64,
}

/// The peak resident memory of a process so far; 0 of one that has ended.
fn peak_bytes(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn wire_bytes(output: &Output, contender: Contender) -> Option<u64> {
    match contender {
        Contender::Copy => None,
        Contender::Ours | Contender::OursCompressed => {
            Some(output.summary_number("sent_bytes") + output.summary_number("received_bytes"))
        }
        _ => rsync_wire_bytes(&output.stdout_text()),
    }
}

/// The sum of `Total bytes sent: 1,234` and the line of received bytes.
fn rsync_wire_bytes(text: &str) -> Option<u64> {
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.chars().filter(char::is_ascii_digit).collect::<String>().parse::<u64>().ok()
    };
    Some(number("Total bytes sent: ")? + number("Total bytes received: ")?)
}

fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_rsync_are_summed_whatever_groups_their_digits() {
        let text = "\nTotal bytes sent: 1,234\nTotal bytes received: 5.678\n\nsent 1,234 bytes\n";
        assert_eq!(rsync_wire_bytes(text), Some(6912));
        assert_eq!(rsync_wire_bytes("nothing"), None);
    }

    #[test]
    fn this_process_has_a_peak_and_an_ended_one_none() {
        assert!(peak_bytes(std::process::id()) > 1 << 20);
        assert_eq!(peak_bytes(u32::MAX), 0);
    }
}

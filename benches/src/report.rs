//! Medians, ratios and verdicts, as a table on the terminal, as JSON, and as the Markdown that is committed.

use crate::cases::{Before, COPY_BAR, Case, Flow, WAN_MBIT, WAN_RTT_MS};
use crate::contest::{Contender, Sample, Samples, faster_rsync};
use crate::machine::Machine;
use serde::Serialize;
use std::fmt::Write as _;

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where and with what.
    pub machine: Machine,
    /// Rounds of each case.
    pub rounds: u32,
    /// How long files were left alone before a pass that fills the index.
    pub settle_s: u64,
    /// What was found, case by case.
    pub cases: Vec<CaseReport>,
}

/// What was found in one case.
#[derive(Debug, Clone, Serialize)]
pub struct CaseReport {
    /// The case's name.
    pub name: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// The variant of rsync that was faster, and is compared with.
    pub rsync: Contender,
    /// Its median wall time.
    pub rsync_s: f64,
    /// Our median wall time.
    pub ours_s: f64,
    /// Highest peak of our client in any round; none if no round was long enough to see one.
    pub client_peak_bytes: Option<u64>,
    /// Highest peak of our agent in any round; none locally, and as above.
    pub agent_peak_bytes: Option<u64>,
    /// rsync's median bytes both ways, of the variant that is compared with.
    pub rsync_wire_bytes: Option<u64>,
    /// The same of `rsync -z`, where it ran.
    pub rsync_compressed_wire_bytes: Option<u64>,
    /// Our median bytes both ways.
    pub ours_wire_bytes: Option<u64>,
    /// The same with `-z`, where it ran.
    pub ours_compressed_wire_bytes: Option<u64>,
    /// What is demanded of it; the first is the wall time.
    pub claims: Vec<Claim>,
    /// Every run.
    pub samples: Vec<Sample>,
}

/// A demand and whether it is met.
#[derive(Debug, Clone, Serialize)]
pub struct Claim {
    /// What is compared.
    pub what: String,
    /// What was found.
    pub found: f64,
    /// Most that it may be.
    pub bar: f64,
    /// Whether it is at most that.
    pub is_met: bool,
}

impl Claim {
    fn new(what: impl Into<String>, found: f64, bar: f64) -> Claim {
        Claim { what: what.into(), found, bar, is_met: found <= bar }
    }

    fn verdict(&self) -> &'static str {
        if self.is_met { "pass" } else { "MISS" }
    }

    fn line(&self, case: &str) -> String {
        format!("{}: {case} {}: {:.2}, bar {:.2}", self.verdict(), self.what, self.found, self.bar)
    }
}

impl CaseReport {
    /// Judges the runs of a case.
    ///
    /// # Panics
    /// Where one of the two did not run.
    #[must_use]
    pub fn new(found: &Samples) -> CaseReport {
        let (case, samples) = (found.case, &found.samples);
        let rsync = faster_rsync(samples);
        let mut report = CaseReport {
            name: case.name,
            title: case.title,
            rsync,
            rsync_s: median_s(samples, rsync).expect("rsync ran"),
            ours_s: median_s(samples, Contender::Ours).expect("ours ran"),
            client_peak_bytes: samples.iter().filter_map(|sample| sample.client_peak_bytes).max(),
            agent_peak_bytes: samples.iter().filter_map(|sample| sample.agent_peak_bytes).max(),
            rsync_wire_bytes: median_wire_bytes(samples, rsync),
            rsync_compressed_wire_bytes: median_wire_bytes(samples, Contender::RsyncCompressed),
            ours_wire_bytes: median_wire_bytes(samples, Contender::Ours),
            ours_compressed_wire_bytes: median_wire_bytes(samples, Contender::OursCompressed),
            claims: Vec::new(),
            samples: samples.clone(),
        };
        report.claims = report.judge(case);
        report
    }

    fn judge(&self, case: &Case) -> Vec<Claim> {
        let mut claims = vec![Claim::new("wall time / rsync's", self.ours_s / self.rsync_s, case.bar)];
        if let Some(copy_s) = median_s(&self.samples, Contender::Copy) {
            claims.push(Claim::new("wall time / that of cp -a", self.ours_s / copy_s, COPY_BAR));
        }
        let wire = case.wire_bar.zip(self.ours_compressed_wire_bytes).zip(self.rsync_compressed_wire_bytes);
        if let Some(((bar, ours), theirs)) = wire {
            claims.push(Claim::new(
                "bytes on the wire with -z / those of rsync -z",
                ours as f64 / theirs as f64,
                bar,
            ));
        }
        let bar = mib(case.memory_bar_bytes());
        for (whose, peak) in [("client", self.client_peak_bytes), ("agent", self.agent_peak_bytes)] {
            let claim = peak.map(|bytes| Claim::new(format!("{whose}'s peak memory, MiB"), mib(bytes), bar));
            claims.extend(claim);
        }
        claims
    }

    fn cells(&self) -> [String; 11] {
        let time = &self.claims[0];
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        [
            self.name.to_owned(),
            self.rsync.name().to_owned(),
            format!("{:.3}", self.rsync_s),
            format!("{:.3}", self.ours_s),
            format!("{:.2}", time.found),
            format!("{:.2}", time.bar),
            time.verdict().to_owned(),
            or_dash(self.client_peak_bytes.map(|bytes| format!("{:.0}", mib(bytes)))),
            or_dash(self.agent_peak_bytes.map(|bytes| format!("{:.0}", mib(bytes)))),
            or_dash(self.rsync_wire_bytes.map(megabytes)),
            or_dash(self.ours_wire_bytes.map(megabytes)),
        ]
    }
}

const HEADS: [&str; 11] = [
    "case",
    "against",
    "rsync s",
    "ours s",
    "ratio",
    "bar",
    "",
    "client MiB",
    "agent MiB",
    "rsync wire MB",
    "ours wire MB",
];

impl Report {
    /// Whether every demand is met.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.cases.iter().flat_map(|case| &case.claims).all(|claim| claim.is_met)
    }

    /// The summary for a terminal: the table, then every other demand as a line.
    #[must_use]
    pub fn table(&self) -> String {
        let rows: Vec<[String; 11]> = std::iter::once(HEADS.map(String::from))
            .chain(self.cases.iter().map(CaseReport::cells))
            .collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..HEADS.len()).map(width).collect();
        let line = |row: &[String; 11]| {
            let cells = row.iter().zip(&widths).enumerate();
            let padded = cells.map(|(column, (cell, &width))| match column {
                0 | 1 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        let mut text: String = rows.iter().map(line).collect();
        text.push('\n');
        for line in self.other_claims() {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// The report as it is committed.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = self.heading();
        text += &self.method();
        let _ = writeln!(text, "## Summary\n\n{}", self.summary());
        for line in self.other_claims() {
            let _ = writeln!(text, "- {line}");
        }
        text += "\n## Raw figures\n";
        for case in &self.cases {
            text += &raw_figures(case);
        }
        text
    }

    fn heading(&self) -> String {
        let machine = &self.machine;
        format!(
            "# Side by side with rsync, {}\n\n\
             | | |\n|---|---|\n\
             | kernel | {} |\n| processor | {}, {} cores |\n| memory | {} MiB |\n| trees on | {} |\n\
             | rsync | {} |\n| ssh | {} |\n| ours | {} |\n\n",
            machine.date,
            machine.kernel,
            machine.processor,
            machine.cores,
            machine.memory_mib,
            machine.file_system,
            machine.rsync,
            machine.ssh,
            machine.ours
        )
    }

    fn method(&self) -> String {
        format!(
            "`cargo run --release -p benches --bin versus -- --rounds {} --settle {}`. Both programs are on this \
             machine, with one sshd between them; the slow link is a relay with {WAN_RTT_MS} ms round trip and \
             {WAN_MBIT} Mbit/s. Medians of {} rounds, rsync before ours in each. In the first round rsync ran with and \
             without `-z`, where an old version was there also with `--inplace` (as ours did), and is compared by \
             the fastest. After every run the destination equalled \
             the source: types, modes, owners, times to the nanosecond, contents, link targets. Memory is the \
             highest VmHWM of any round, looked at every 10 ms. Wire bytes are both ways, as each program counts \
             them itself (ours before the encryption, as rsync's). Before a pass that is to fill the index, \
             files were left alone for {} s.\n\n",
            self.rounds, self.settle_s, self.rounds, self.settle_s
        )
    }

    fn summary(&self) -> String {
        let mut text = format!("| {} |\n|{}\n", HEADS.join(" | "), "---|".repeat(HEADS.len()));
        for case in &self.cases {
            let _ = writeln!(text, "| {} |", case.cells().join(" | "));
        }
        text
    }

    /// All demands but those of wall time against rsync, which are in the table.
    fn other_claims(&self) -> impl Iterator<Item = String> {
        self.cases.iter().flat_map(|case| case.claims[1..].iter().map(|claim| claim.line(case.name)))
    }
}

fn raw_figures(case: &CaseReport) -> String {
    let mut text = format!("\n### {}: {}\n\n```\n", case.name, case.title);
    // Each program's line once: all run in the first round.
    for sample in case.samples.iter().filter(|sample| sample.round == 1) {
        let _ = writeln!(text, "{}", sample.command);
    }
    text +=
        "```\n\n| round | program | s | wire bytes | client KiB | agent KiB |\n|---|---|---|---|---|---|\n";
    for sample in &case.samples {
        let cell = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
        let _ = writeln!(
            text,
            "| {} | {} | {:.3} | {} | {} | {} |",
            sample.round,
            sample.contender.name(),
            sample.seconds,
            cell(sample.wire_bytes),
            cell(sample.client_peak_bytes.map(|bytes| bytes >> 10)),
            cell(sample.agent_peak_bytes.map(|bytes| bytes >> 10)),
        );
    }
    text
}

/// The cases with their bars, one a line.
#[must_use]
pub fn list(cases: &[&Case]) -> String {
    let line = |case: &&Case| {
        let way = match case.flow {
            Flow::Pull => "pull",
            Flow::Push => "push",
            Flow::Local => "local",
        };
        let before = match case.before {
            Before::Nothing => "nothing",
            Before::Same => "the same",
            Before::Old => "the old version",
            Before::Series => "a pass of ours",
        };
        format!("{}  {:.2}  {way:<5}  {} (before: {before})\n", case.name, case.bar, case.title)
    };
    cases.iter().map(line).collect()
}

fn median_s(samples: &[Sample], contender: Contender) -> Option<f64> {
    let own = samples.iter().filter(|sample| sample.contender == contender);
    median(own.map(|sample| sample.seconds).collect())
}

fn median_wire_bytes(samples: &[Sample], contender: Contender) -> Option<u64> {
    let own = samples.iter().filter(|sample| sample.contender == contender);
    median(own.filter_map(|sample| sample.wire_bytes).map(|bytes| bytes as f64).collect())
        .map(|bytes| bytes as u64)
}

/// The middle, or the mean of the two in the middle.
fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    let upper = *numbers.get(middle)?;
    Some(if numbers.len() % 2 == 1 { upper } else { f64::midpoint(numbers[middle - 1], upper) })
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    fn sample(round: u32, contender: Contender, seconds: f64, wire_bytes: u64) -> Sample {
        let peak = (contender == Contender::Ours).then_some(70 << 20);
        Sample {
            round,
            contender,
            seconds,
            wire_bytes: Some(wire_bytes),
            client_peak_bytes: peak,
            agent_peak_bytes: peak.map(|bytes| bytes / 2),
            command: String::new(),
        }
    }

    #[test]
    fn medians_are_of_odd_and_even_numbers() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn the_faster_rsync_counts_for_time_and_the_compressed_one_for_bytes() {
        let case = cases::select(&["D5".to_owned()]).expect("it exists")[0];
        let samples = vec![
            sample(1, Contender::Rsync, 2.0, 1000),
            sample(1, Contender::RsyncCompressed, 4.0, 800),
            sample(1, Contender::Ours, 1.0, 1200),
            sample(1, Contender::OursCompressed, 1.5, 700),
            sample(2, Contender::Rsync, 2.2, 1000),
            sample(2, Contender::Ours, 0.68, 1200),
        ];
        let report = CaseReport::new(&Samples { case, samples });
        let found: Vec<(String, bool)> =
            report.claims.iter().map(|claim| (format!("{:.3}", claim.found), claim.is_met)).collect();
        let expected = [("0.400", true), ("0.875", false), ("70.000", false), ("35.000", true)];
        assert_eq!(found, expected.map(|(found, is_met)| (found.to_owned(), is_met)));
    }
}

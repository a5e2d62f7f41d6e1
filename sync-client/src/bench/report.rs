//! The figures on a terminal: bars, the forecast, what it assumes.

use super::figures::{EndFigures, Flow, Link, Measured, Summary};
use super::forecast::Pass;
use crate::console::{bytes, grouped};

const BAR_CELLS: usize = 24;
const LABEL_CELLS: usize = 17;

/// One bar of a chart.
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: f64,
    pub(super) text: String,
}

impl Bar {
    fn rate(label: impl Into<String>, bytes_per_s: f64) -> Bar {
        Bar { label: label.into(), value: bytes_per_s, text: rate(bytes_per_s) }
    }
}

/// The report, line by line.
pub(super) fn lines(summary: &Summary, utf8: bool) -> Vec<String> {
    let measured = &summary.measured;
    let mut lines = Vec::new();
    if let Some(link) = &measured.link {
        lines.push(format!("Link: {}", link_facts(link)));
        for (title, flows) in
            [("to the destination", &link.to_destination), ("to the source", &link.to_source)]
        {
            lines.push(format!("  {title}"));
            lines.extend(chart(&flow_bars(flows), utf8));
        }
        lines.push(String::new());
    }
    for (name, end) in [("Source", Some(&measured.source)), ("Destination", measured.destination.as_ref())] {
        let Some(end) = end else { continue };
        lines.push(format!("{name}: {}", end_title(end)));
        lines.extend(chart(&end_bars(end), utf8));
        lines
            .extend(end_facts(end).into_iter().map(|(label, text)| format!("  {label:LABEL_CELLS$} {text}")));
        lines.push(String::new());
    }
    lines.push(format!("Tree: {}", tree(measured)));
    lines.push(String::new());
    lines.extend(forecast(summary, utf8));
    lines
}

fn forecast(summary: &Summary, utf8: bool) -> Vec<String> {
    let forecast = &summary.forecast;
    let mut lines = vec![format!("First pass: {}", first_pass(summary))];
    lines.extend(chart(&stage_bars(summary), utf8));
    lines.extend(advice(summary).into_iter().map(|text| format!("  {text}")));
    lines.push(format!("Next pass:  {}", pass(&forecast.next_pass)));
    lines.push(format!("Cold pass:  {}", pass(&forecast.cold_pass)));
    lines.push(String::new());
    lines.push("This assumes:".to_owned());
    for text in forecast.assumptions.iter().chain(&summary.measured.notes) {
        lines.extend(wrapped(text));
    }
    lines
}

/// Lines of at most 79 cells, the first with a dash.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::from("-")];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if lines[last].chars().count() + word.chars().count() < 79 {
            lines[last].push(' ');
            lines[last].push_str(word);
        } else {
            lines.push(format!("  {word}"));
        }
    }
    lines
}

pub(super) fn link_facts(link: &Link) -> String {
    format!("round trip {}, connected in {}", duration(link.round_trip_s), duration(link.connect_s))
}

pub(super) fn end_title(end: &EndFigures) -> String {
    let cores = if end.cores == 1 { "1 core".to_owned() } else { format!("{} cores", end.cores) };
    let free = end.free_bytes.map(|free| format!(", {} free", bytes(free))).unwrap_or_default();
    format!("{} ({cores}{free})", end.place)
}

pub(super) fn tree(measured: &Measured) -> String {
    let tree = &measured.tree;
    let cut = if tree.is_whole { "" } else { " at least: the scan was cut short" };
    format!(
        "{} entries, {} files, {} ({} of them in {} files above 16 KiB){cut}",
        grouped(tree.entries),
        grouped(tree.files),
        bytes(tree.bytes),
        bytes(tree.large_bytes),
        grouped(tree.large_files)
    )
}

pub(super) fn first_pass(summary: &Summary) -> String {
    let first = &summary.forecast.first_pass;
    let at = if first.bottleneck == "link" { String::new() } else { place(first.bottleneck_at) };
    format!("{}; the bottleneck is {}{at}", duration(first.elapsed_s), noun(first.bottleneck))
}

fn place(at: &str) -> String {
    match at {
        "link" => " across the link".to_owned(),
        end => format!(" at the {end}"),
    }
}

fn noun(stage: &str) -> &str {
    match stage {
        "link" => "the link",
        "scan" => "the scan",
        "read" => "reading",
        "hash" => "hashing",
        "compress" => "compressing",
        _ => "writing",
    }
}

/// What the operator can do about it.
pub(super) fn advice(summary: &Summary) -> Vec<String> {
    let forecast = &summary.forecast;
    let Some(link) = &summary.measured.link else {
        return vec!["both ends are on this machine: nothing goes over a network".to_owned()];
    };
    let mut advice = vec![match forecast.compression.as_str() {
        "none" => "compression would not make it shorter: leave out -z".to_owned(),
        how => format!("this is with --compress={how}; without it {}", duration(forecast.uncompressed_s)),
    }];
    let one = link.run_bytes_per_s().unwrap_or(0.0);
    let most = link.to_destination.iter().fold(0.0, |most: f64, flow| most.max(flow.bytes_per_s));
    if forecast.first_pass.bottleneck == "link" && most > one * 1.3 {
        advice.push("several connections carry more than the one that a run has".to_owned());
    }
    advice
}

pub(super) fn pass(pass: &Pass) -> String {
    let (least, most) = (duration(pass.least_s), duration(pass.most_s));
    if least == most {
        return format!("{least} ({})", pass.bottleneck);
    }
    format!("{least} ({}) to {most} ({})", pass.bottleneck, pass.most_bottleneck)
}

pub(super) fn flow_bars(flows: &[Flow]) -> Vec<Bar> {
    let label = |count| if count == 1 { "1 connection".to_owned() } else { format!("{count} connections") };
    flows.iter().map(|flow| Bar::rate(label(flow.connections), flow.bytes_per_s)).collect()
}

pub(super) fn end_bars(end: &EndFigures) -> Vec<Bar> {
    let rates = [
        ("read", end.read_bytes_per_s),
        ("write, synced", end.write_bytes_per_s),
        ("BLAKE3, one core", end.hash_bytes_per_s),
    ];
    let mut bars: Vec<Bar> =
        rates.into_iter().filter_map(|(label, figure)| Some(Bar::rate(label, figure?))).collect();
    bars.extend(end.zstd.iter().map(|zstd| {
        let of = if zstd.of_tree { "" } else { " made data" };
        let text = format!("{}, packs{of} to {:.0} %", rate(zstd.bytes_per_s), zstd.ratio * 100.0);
        Bar { label: format!("zstd:{}, one core", zstd.level), value: zstd.bytes_per_s, text }
    }));
    bars
}

/// Figures of another unit than bytes.
pub(super) fn end_facts(end: &EndFigures) -> Vec<(&'static str, String)> {
    let per_s = |figure: f64, what: &str| format!("{} {what}/s", grouped(figure.round() as u64));
    [
        ("scan", end.scan_entries_per_s, "entries"),
        ("read the tree", end.tree_files_per_s, "files"),
        ("create small ones", end.create_files_per_s, "files"),
    ]
    .into_iter()
    .filter_map(|(label, figure, what)| Some((label, per_s(figure?, what))))
    .collect()
}

pub(super) fn stage_bars(summary: &Summary) -> Vec<Bar> {
    let stages = summary.forecast.first_pass.stages.iter();
    stages
        .map(|stage| Bar {
            label: stage.what.to_owned(),
            value: stage.elapsed_s,
            text: duration(stage.elapsed_s),
        })
        .collect()
}

/// Bars over the longest of them.
fn chart(bars: &[Bar], utf8: bool) -> Vec<String> {
    let longest = bars.iter().fold(0.0, |longest: f64, bar| longest.max(bar.value));
    bars.iter()
        .map(|bar| {
            format!(
                "  {:LABEL_CELLS$} {:BAR_CELLS$} {}",
                bar.label,
                cells(bar.value, longest, utf8),
                bar.text
            )
        })
        .collect()
}

/// A bar of up to [`BAR_CELLS`]; what is not nothing shows.
fn cells(value: f64, longest: f64, utf8: bool) -> String {
    if value <= 0.0 || longest <= 0.0 || !value.is_finite() {
        return String::new();
    }
    let share = (value / longest).min(1.0) * BAR_CELLS as f64;
    if !utf8 {
        return "#".repeat((share.round() as usize).max(1));
    }
    let eighths = ((share * 8.0).round() as usize).max(1);
    let part = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    "█".repeat(eighths / 8) + part
}

/// A rate for people.
pub(super) fn rate(bytes_per_s: f64) -> String {
    // The cast saturates, which is what a figure beyond all bounds deserves.
    format!("{}/s", bytes(bytes_per_s as u64))
}

/// A duration for people.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.2} ms", s * 1000.0),
        s if s < 0.1 => format!("{:.1} ms", s * 1000.0),
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_in_the_ratio_of_their_values_and_the_least_one_shows() {
        let bars: Vec<Bar> = [1000.0, 500.0, 0.001, 0.0]
            .map(|value| Bar { label: "x".into(), value, text: "y".into() })
            .into();
        let lengths = |utf8| -> Vec<usize> {
            let bar = |line: &String| line.chars().filter(|&cell| cell == '█' || cell == '#').count();
            chart(&bars, utf8).iter().map(bar).collect()
        };
        assert_eq!(lengths(false), [24, 12, 1, 0]);
        assert_eq!(lengths(true), [24, 12, 0, 0]);
        assert!(chart(&bars, true)[2].contains('▏'));
        assert!(chart(&bars, false).iter().all(|line| line.is_ascii()));
    }

    #[test]
    fn a_chart_s_texts_stand_below_each_other() {
        let bars = [Bar::rate("read", 2e9), Bar::rate("write, synced", 1e6)];
        let column = |line: &String| line.chars().position(|letter| letter.is_ascii_digit());
        let columns: Vec<_> = chart(&bars, true).iter().map(column).collect();
        assert_eq!(columns[0], columns[1]);
    }

    #[test]
    fn durations_have_a_unit_that_fits() {
        for (seconds, text) in [
            (0.0001, "0.10 ms"),
            (0.0123, "12.3 ms"),
            (4.26, "4.3 s"),
            (61.0, "61 s"),
            (600.0, "10 min"),
            (9000.0, "2.5 h"),
            (1e6, "11.6 days"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn long_texts_are_wrapped() {
        let lines = wrapped(&"word ".repeat(40));
        assert!(lines.len() > 2 && lines.iter().all(|line| line.chars().count() < 80));
        assert!(lines[0].starts_with("- word") && lines[1].starts_with("  word"));
    }
}

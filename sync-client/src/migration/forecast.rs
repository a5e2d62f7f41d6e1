//! How long the cold pass would take if it came now: arithmetic on the passes so far.
//!
//! A cold pass lists both trees and then copies what changed since the last pass began. Both are measured: the listing by
//! that last pass; the changes by how much it found, over the time in which that came to be; the copying by the pass that had
//! the most to copy. The cold pass runs all data sets at once: their listings go on beside each other, and what is to be copied
//! goes one after another through the link and the disks that they share, each from when its own listing is done.

use super::position::Pass;
use serde::Serialize;

/// Of all data sets together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Forecast {
    pub(crate) cold_s: f64,
    /// Of the data set that takes longest to list.
    pub(crate) scan_s: f64,
    /// What will have changed.
    pub(crate) changed_bytes: f64,
}

/// A forecast that falls by less than this part is not worth another round.
const WORTH_PART: f64 = 0.1;

/// The forecast at `now_ms`, after passes over each of `sets`. None before every set had two: what changes in a while is
/// not known after one.
pub(crate) fn forecast(sets: &[&str], passes: &[Pass], now_ms: u64) -> Option<Forecast> {
    let mut parts = Vec::new();
    for set in sets {
        let of_set: Vec<&Pass> = passes.iter().filter(|pass| pass.set == *set).collect();
        parts.push(of_one(&of_set, now_ms)?);
    }
    Some(at_once(parts))
}

/// One data set alone.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    scan_s: f64,
    copy_s: f64,
    changed_bytes: f64,
}

fn of_one(passes: &[&Pass], now_ms: u64) -> Option<Part> {
    let [.., before, last] = passes else { return None };
    let seconds = |from_ms: u64, to_ms: u64| to_ms.saturating_sub(from_ms) as f64 / 1000.0;
    let change_bytes_per_s = last.changed_bytes as f64 / seconds(before.begun_ms, last.begun_ms).max(0.001);
    let changed_bytes = (change_bytes_per_s * seconds(last.begun_ms, now_ms)).min(last.total_bytes as f64);
    let fullest = passes.iter().max_by_key(|pass| pass.changed_bytes)?;
    let copied_s = (fullest.elapsed_s - fullest.scan_s).max(0.001);
    let copy_s =
        if fullest.changed_bytes > 0 { changed_bytes * copied_s / fullest.changed_bytes as f64 } else { 0.0 };
    Some(Part { scan_s: last.scan_s, copy_s, changed_bytes })
}

/// All of them at once: what is shared is never idle while something is listed and not yet copied.
fn at_once(mut parts: Vec<Part>) -> Forecast {
    parts.sort_by(|one, other| one.scan_s.total_cmp(&other.scan_s));
    let cold_s = parts.iter().fold(0.0_f64, |at_s, part| at_s.max(part.scan_s) + part.copy_s);
    let scan_s = parts.last().map_or(0.0, |part| part.scan_s);
    Forecast { cold_s, scan_s, changed_bytes: parts.iter().map(|part| part.changed_bytes).sum() }
}

/// Why `bulk` makes no further round, if it should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enough {
    /// The cold pass is forecast within the limit.
    Within,
    /// Another round would not make it shorter.
    Level,
    /// As many rounds as the plan allows.
    Rounds,
}

/// What the forecasts of the rounds so far say; `rounds` counts those without one too.
pub(crate) fn enough(forecasts: &[f64], rounds: u32, max_downtime_s: u32, max_rounds: u32) -> Option<Enough> {
    if forecasts.last().is_some_and(|last| *last <= f64::from(max_downtime_s)) {
        return Some(Enough::Within);
    }
    if let [.., before, last] = forecasts
        && *last > before * (1.0 - WORTH_PART)
    {
        return Some(Enough::Level);
    }
    (rounds >= max_rounds.max(1)).then_some(Enough::Rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(set: &str, begun_s: u64, elapsed_s: f64, scan_s: f64, changed_bytes: u64) -> Pass {
        Pass {
            set: set.to_owned(),
            is_cold: false,
            begun_ms: begun_s * 1000,
            elapsed_s,
            scan_s,
            entries: 10,
            total_bytes: 1_000_000,
            changed_bytes,
            changed_files: 1,
            literal_bytes: changed_bytes,
            deleted_entries: 0,
            moved_bytes: changed_bytes,
        }
    }

    #[test]
    fn what_changed_in_a_while_changes_again_in_as_long() {
        // 1 MB in 100 s; then 10 kB changed in 100 s, found in 2 s: 200 B to copy at 10 kB/s, and a scan of 1 s.
        let passes = [pass("a", 0, 101.0, 1.0, 1_000_000), pass("a", 100, 2.0, 1.0, 10_000)];
        let forecast = forecast(&["a"], &passes, 102_000).unwrap();
        assert!((forecast.changed_bytes - 200.0).abs() < 0.1, "{forecast:?}");
        assert!((forecast.cold_s - 1.02).abs() < 0.001, "{forecast:?}");
    }

    #[test]
    fn data_sets_are_listed_at_once_and_each_needs_two_passes() {
        let mut passes =
            vec![pass("a", 0, 11.0, 1.0, 1000), pass("b", 11, 11.0, 2.0, 1000), pass("a", 22, 1.0, 1.0, 0)];
        assert_eq!(forecast(&["a", "b"], &passes, 23_000), None);
        passes.push(pass("b", 23, 2.0, 2.0, 0));
        let forecast = forecast(&["a", "b"], &passes, 25_000).unwrap();
        assert!((forecast.cold_s - 2.0).abs() < 1e-9, "{forecast:?}");
    }

    #[test]
    fn what_is_copied_shares_the_link_from_when_it_is_listed() {
        let part = |scan_s: f64, copy_s: f64| Part { scan_s, copy_s, changed_bytes: 1.0 };
        for (parts, cold_s) in [
            // Copied before the other is listed.
            (vec![part(10.0, 0.0), part(1.0, 8.0)], 10.0),
            // One waits for the other.
            (vec![part(1.0, 5.0), part(2.0, 5.0)], 11.0),
            (vec![part(2.0, 5.0), part(2.0, 5.0), part(1.0, 0.0)], 12.0),
            (vec![part(3.0, 4.0)], 7.0),
        ] {
            let forecast = at_once(parts.clone());
            assert!((forecast.cold_s - cold_s).abs() < 1e-9, "{parts:?}: {forecast:?}");
        }
    }

    #[test]
    fn no_more_changes_than_there_is_data_and_nothing_absurd_breaks_it() {
        let passes = [pass("a", 0, 0.0, 5.0, 10), pass("a", 0, 1.0, 0.0, u64::MAX)];
        let forecast = forecast(&["a"], &passes, u64::MAX).unwrap();
        assert!(forecast.changed_bytes <= 1_000_000.0 && forecast.cold_s.is_finite());
    }

    #[test]
    fn rounds_end_within_the_limit_or_where_they_no_longer_help() {
        for (forecasts, rounds, expected) in [
            (&[][..], 1, None),
            (&[400.0][..], 2, None),
            (&[299.0][..], 2, Some(Enough::Within)),
            (&[400.0, 350.0][..], 3, None),
            (&[400.0, 390.0][..], 3, Some(Enough::Level)),
            (&[400.0, 500.0][..], 3, Some(Enough::Level)),
            (&[900.0, 400.0][..], 8, Some(Enough::Rounds)),
            (&[][..], 8, Some(Enough::Rounds)),
        ] {
            assert_eq!(enough(forecasts, rounds, 300, 8), expected, "{forecasts:?}");
        }
    }
}

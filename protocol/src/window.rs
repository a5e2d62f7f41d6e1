//! How near two modification times must be to count as the same.

use crate::entry::Timestamp;
use bincode::{Decode, Encode};

/// How near two modification times must be to count as the same. File systems keep less of a time than others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum TimeWindow {
    /// To the nanosecond.
    #[default]
    Exact,
    /// So many whole seconds apart at most, whatever the fractions are.
    Seconds(u32),
}

impl TimeWindow {
    /// Whether both are the same time.
    #[must_use]
    pub fn same(self, a: Timestamp, b: Timestamp) -> bool {
        match self {
            TimeWindow::Exact => a == b,
            TimeWindow::Seconds(window) => a.secs.abs_diff(b.secs) <= u64::from(window),
        }
    }

    /// Whether what is at the destination is to stay as the newer one (`--update`); within a window, as for rsync, also
    /// where the source's time is not that much later.
    #[must_use]
    pub fn keeps_newer(self, existing: Timestamp, source: Timestamp) -> bool {
        match self {
            TimeWindow::Exact => existing > source,
            TimeWindow::Seconds(window) => source.secs.saturating_sub(existing.secs) < i64::from(window),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn update_keeps_what_is_newer_or_within_the_window() {
        let at = |secs, nanos| Timestamp { secs, nanos };
        for (window, existing, source, kept) in [
            (TimeWindow::Exact, at(5, 2), at(5, 1), true),
            (TimeWindow::Exact, at(5, 1), at(5, 1), false),
            (TimeWindow::Seconds(0), at(5, 2), at(5, 1), false),
            (TimeWindow::Seconds(0), at(6, 0), at(5, 1), true),
            (TimeWindow::Seconds(1), at(5, 0), at(5, 0), true),
            (TimeWindow::Seconds(1), at(5, 0), at(6, 0), false),
        ] {
            assert_eq!(window.keeps_newer(existing, source), kept, "{window:?} {existing:?} {source:?}");
        }
    }

    #[test]
    fn a_window_counts_whole_seconds_and_none_every_nanosecond() {
        let at = |secs, nanos| Timestamp { secs, nanos };
        for (window, a, b, same) in [
            (TimeWindow::Exact, at(5, 1), at(5, 1), true),
            (TimeWindow::Exact, at(5, 1), at(5, 2), false),
            (TimeWindow::Seconds(0), at(5, 1), at(5, 999_999_999), true),
            (TimeWindow::Seconds(0), at(5, 999_999_999), at(6, 0), false),
            (TimeWindow::Seconds(1), at(5, 0), at(6, 999_999_999), true),
            (TimeWindow::Seconds(1), at(-1, 0), at(1, 0), false),
            (TimeWindow::Seconds(u32::MAX), at(i64::MIN, 0), at(i64::MAX, 0), false),
        ] {
            assert_eq!((window.same(a, b), window.same(b, a)), (same, same), "{window:?} {a:?} {b:?}");
        }
    }
}

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

    /// Whether `a` is later than `b`, and not the same.
    #[must_use]
    pub fn is_later(self, a: Timestamp, b: Timestamp) -> bool {
        a > b && !self.same(a, b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(window.is_later(b, a), !same && b > a, "{window:?} {a:?} {b:?}");
        }
    }
}

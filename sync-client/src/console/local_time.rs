//! Points in time as rsync prints them: in the operator's time zone, to the second.

use jiff::tz::TimeZone;
use std::sync::{Arc, LazyLock};

/// The operator's time zone.
#[derive(Debug, Clone)]
pub struct LocalTime(Arc<LazyLock<TimeZone>>);

impl LocalTime {
    /// The system's, looked up when it is first asked for: that can mean reading all zones there are.
    #[must_use]
    pub fn system() -> LocalTime {
        LocalTime(Arc::new(LazyLock::new(TimeZone::system)))
    }

    /// No zone.
    #[must_use]
    pub fn utc() -> LocalTime {
        LocalTime(Arc::new(LazyLock::new(|| TimeZone::UTC)))
    }

    /// The zone itself.
    #[must_use]
    pub fn zone(&self) -> &TimeZone {
        &self.0
    }

    /// `2026/11/23 11:18:29`; the bare number where a calendar has no such year.
    #[must_use]
    pub fn stamp(&self, secs: i64) -> String {
        match jiff::Timestamp::from_second(secs) {
            Ok(time) => self.zone().to_datetime(time).strftime("%Y/%m/%d %H:%M:%S").to_string(),
            Err(_) => secs.to_string(),
        }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> String {
        self.stamp(jiff::Timestamp::now().as_second())
    }
}

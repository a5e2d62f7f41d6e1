//! Points in time as rsync prints them: in the operator's time zone, to the second.

use jiff::tz::TimeZone;

/// The operator's time zone.
#[derive(Debug, Clone)]
pub struct LocalTime(TimeZone);

impl LocalTime {
    /// That zone.
    #[must_use]
    pub fn new(zone: TimeZone) -> LocalTime {
        LocalTime(zone)
    }

    /// No zone.
    #[must_use]
    pub fn utc() -> LocalTime {
        LocalTime(TimeZone::UTC)
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
            Ok(time) => self.0.to_datetime(time).strftime("%Y/%m/%d %H:%M:%S").to_string(),
            Err(_) => secs.to_string(),
        }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> String {
        self.stamp(jiff::Timestamp::now().as_second())
    }
}

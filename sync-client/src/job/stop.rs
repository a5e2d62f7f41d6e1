//! When a run stops by itself: `--stop-after`, `--stop-at`.
//!
//! # Source
//! rsync(1) 3.5.0, `--stop-at`; which abbreviations it takes, by comparison.

use super::typed::{text, value};
use super::{UsageError, usage};
use crate::console::LocalTime;
use clap::{ArgMatches, Command};
use jiff::civil::{Date, DateTime};
use jiff::{Timestamp, ToSpan as _};

pub(crate) fn arguments(command: Command) -> Command {
    command
        .arg(value("stop-after", "MINUTES", "End after so many minutes (exit 30)").alias("time-limit"))
        .arg(value("stop-at", "Y-M-DTH:M", "End at that point in time (exit 30); parts may be left out"))
}

/// When the run is to end, if ever.
pub(crate) fn resolve(
    matches: &ArgMatches,
    now: Timestamp,
    zone: &LocalTime,
) -> Result<Option<Timestamp>, UsageError> {
    if let Some(minutes) = text(matches, "stop-after")? {
        let minutes: Option<i64> = minutes.parse().ok().filter(|minutes| (1..=5_256_000).contains(minutes));
        return match minutes.and_then(|minutes| now.checked_add(minutes.minutes()).ok()) {
            Some(end) => Ok(Some(end)),
            None => usage("--stop-after: a number of minutes is needed, 1 to 5256000"),
        };
    }
    let Some(typed) = text(matches, "stop-at")? else { return Ok(None) };
    let zone = zone.zone();
    let local = zone.to_datetime(now);
    let end = Pattern::parse(&typed)
        .and_then(|pattern| pattern.next_after(local))
        .and_then(|end| zone.to_ambiguous_timestamp(end).compatible().ok());
    match end {
        Some(end) if end > now => Ok(Some(end)),
        Some(_) => usage(format!("--stop-at: {typed:?} is past")),
        None => usage(format!(
            "--stop-at: {typed:?} is no point in time; write 2000-12-31T23:59, 12-31, 31, 23:59 or :59"
        )),
    }
}

/// What was given of a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Pattern {
    year: Option<i16>,
    month: Option<i8>,
    day: Option<i8>,
    hour: Option<i8>,
    minute: Option<i8>,
}

/// Days that are tried until one fits: a 29th of February may be eight years away.
const DAYS: i32 = 366 * 8 + 2;

impl Pattern {
    fn parse(text: &str) -> Option<Pattern> {
        let (date, time) = match text.split_once('T') {
            Some((date, time)) => (date, Some(time)),
            None if text.contains(':') => ("", Some(text)),
            None => (text, None),
        };
        let mut pattern = Pattern::default();
        if !date.is_empty() {
            pattern.set_date(date)?;
        }
        match time {
            Some(time) => pattern.set_time(time)?,
            None if date.is_empty() => return None,
            None => {}
        }
        Some(pattern)
    }

    fn set_date(&mut self, date: &str) -> Option<()> {
        let parts: Vec<&str> = date.split(['-', '/']).collect();
        let (year, month, day) = match parts[..] {
            [year, month, day] => (Some(year), Some(month), day),
            [month, day] => (None, Some(month), day),
            [day] => (None, None, day),
            _ => return None,
        };
        self.year = match year.map(|year| (year.len(), digits::<i16>(year))) {
            None => None,
            Some((2, Some(year))) => Some(2000 + year),
            Some((4, Some(year))) => Some(year),
            Some(_) => return None,
        };
        self.month = match month {
            None => None,
            Some(month) => Some(digits(month).filter(|month| (1..=12).contains(month))?),
        };
        self.day = Some(digits(day).filter(|day| (1..=31).contains(day))?);
        Some(())
    }

    fn set_time(&mut self, time: &str) -> Option<()> {
        if time.is_empty() && self.day.is_some() {
            return Some(());
        }
        let (hour, minute) = time.split_once(':')?;
        if !hour.is_empty() {
            self.hour = Some(digits(hour).filter(|hour| (0..=23).contains(hour))?);
        }
        self.minute = Some(digits(minute).filter(|minute| (0..=59).contains(minute))?);
        Some(())
    }

    /// The first point in time after `now` that it fits; with a year, the only one.
    fn next_after(self, now: DateTime) -> Option<DateTime> {
        if self.year.is_none() && self.day.is_none() {
            return self.next_time(now);
        }
        let time = |date: Date| date.at(self.hour.unwrap_or(0), self.minute.unwrap_or(0), 0, 0);
        if let (Some(year), Some(month), Some(day)) = (self.year, self.month, self.day) {
            return Date::new(year, month, day).ok().map(time);
        }
        let fits = |date: &Date| {
            self.month.is_none_or(|month| month == date.month()) && self.day == Some(date.day())
        };
        (0..DAYS)
            .filter_map(|days| now.date().checked_add(i64::from(days).days()).ok())
            .filter(fits)
            .map(time)
            .find(|end| *end > now)
    }

    fn next_time(self, now: DateTime) -> Option<DateTime> {
        let hour_of = |point: &DateTime| self.hour.is_none_or(|hour| hour == point.hour());
        let start =
            now.with().minute(self.minute.unwrap_or(0)).second(0).subsec_nanosecond(0).build().ok()?;
        (0..=25_i64)
            .filter_map(|hours| start.checked_add(hours.hours()).ok())
            .find(|point| hour_of(point) && *point > now)
    }
}

/// A number written in one to four digits.
fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    let is_number = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_point_in_time_that_fits_is_meant() {
        let now: DateTime = "2026-11-23T11:30:15".parse().unwrap();
        for (text, end) in [
            ("2027-01-02T03:04", "2027-01-02T03:04:00"),
            ("27/1/2", "2027-01-02T00:00:00"),
            ("1-30", "2027-01-30T00:00:00"),
            ("11-23T12:00", "2026-11-23T12:00:00"),
            ("11-23T11:30", "2027-11-23T11:30:00"),
            ("2-29", "2028-02-29T00:00:00"),
            ("1", "2026-12-01T00:00:00"),
            ("31", "2026-12-31T00:00:00"),
            ("23T14:00", "2026-11-23T14:00:00"),
            ("2027-1-2T", "2027-01-02T00:00:00"),
            ("14:00", "2026-11-23T14:00:00"),
            ("T14:0", "2026-11-23T14:00:00"),
            ("11:30", "2026-11-24T11:30:00"),
            ("9:05", "2026-11-24T09:05:00"),
            (":59", "2026-11-23T11:59:00"),
            (":30", "2026-11-23T12:30:00"),
        ] {
            let end: DateTime = end.parse().unwrap();
            assert_eq!(Pattern::parse(text).and_then(|pattern| pattern.next_after(now)), Some(end), "{text}");
        }
    }

    #[test]
    fn what_is_no_point_in_time_is_refused() {
        for text in [
            "",
            "T",
            ":",
            "x",
            "2026-13-01",
            "0",
            "32",
            "24:00",
            "1:60",
            "1-2-3",
            "T14",
            "23T14",
            "14:",
            "+1",
            "1-",
        ] {
            let now = DateTime::default();
            assert_eq!(Pattern::parse(text).and_then(|pattern| pattern.next_after(now)), None, "{text}");
        }
    }
}

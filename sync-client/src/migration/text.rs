//! Numbers and foreign words as an operator reads them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// `2026-11-23 07:34:11 UTC`.
///
/// # Source
/// The proleptic Gregorian calendar, counted in eras of 400 years that begin in March.
pub(crate) fn utc(time_ms: u64) -> String {
    let seconds = time_ms / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Day 0 of the first era is 0000-03-01, 719,468 days before 1970.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// `0.4 s`, `12 s`, `3 min 05 s`, `2 h 07 min`.
pub(crate) fn duration(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

/// What a machine said, as one line that steers no terminal.
pub(crate) fn foreign(bytes: &[u8]) -> String {
    protocol::path::escaped(bytes.trim_ascii())
}

/// The last lines of what a command said, each escaped, no longer than `max_bytes` together.
pub(crate) fn tail(bytes: &[u8], max_bytes: usize) -> String {
    let bytes = bytes.trim_ascii();
    let kept = &bytes[bytes.len().saturating_sub(max_bytes)..];
    let lines: Vec<String> = kept.split(|&byte| byte == b'\n').map(foreign).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_795_419_251, "2026-11-23 07:34:11 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds * 1000), text);
        }
    }

    #[test]
    fn durations_have_the_units_a_person_would_use() {
        for (seconds, text) in [
            (0.04, "0.0 s"),
            (9.9, "9.9 s"),
            (59.4, "59 s"),
            (59.6, "1 min 00 s"),
            (185.0, "3 min 05 s"),
            (7620.0, "2 h 07 min"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn what_a_machine_said_steers_no_terminal_and_has_a_bound() {
        assert_eq!(tail(b"one\x1b[2J\ntwo\n", 100), "one\\#033[2J\ntwo");
        assert_eq!(tail(b"0123456789", 4), "6789");
    }
}

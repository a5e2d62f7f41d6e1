//! Numbers as rsync prints them.

/// How numbers are made readable: 0 not at all, 1 by separators, 2 by units of 1000, 3 by units of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Human(u8);

impl Default for Human {
    fn default() -> Human {
        Human(1)
    }
}

impl Human {
    /// Digits alone.
    pub const PLAIN: Human = Human(0);

    /// After `-h`, so many times.
    #[must_use]
    pub fn of(times: u8) -> Human {
        Human::level(times.saturating_add(1))
    }

    /// The level of that number, or the highest.
    #[must_use]
    pub fn level(level: u8) -> Human {
        Human(level.min(3))
    }

    /// Whether the operator asked for digits alone.
    #[must_use]
    pub fn is_plain(self) -> bool {
        self == Human::PLAIN
    }

    /// A whole number.
    #[must_use]
    pub fn number(self, number: u64) -> String {
        match self.0 {
            0 => number.to_string(),
            1 => grouped(number),
            level => in_units(number, if level == 2 { 1000.0 } else { 1024.0 })
                .unwrap_or_else(|| number.to_string()),
        }
    }

    /// A number with two decimals.
    #[must_use]
    pub fn decimal(self, number: f64) -> String {
        let plain = format!("{number:.2}");
        match plain.split_once('.') {
            Some((_, fraction)) if self.0 == 1 && number >= 1000.0 => {
                format!("{}.{fraction}", grouped(number as u64))
            }
            _ if self.0 > 1 && number >= 1000.0 => self.number(number as u64),
            _ => plain,
        }
    }
}

/// In the largest unit that it has at least one of, if it has any.
fn in_units(number: u64, unit: f64) -> Option<String> {
    let mut scaled = number as f64;
    if scaled < unit {
        return None;
    }
    let mut letter = ' ';
    for next in ['K', 'M', 'G', 'T', 'P'] {
        if scaled < unit {
            break;
        }
        scaled /= unit;
        letter = next;
    }
    Some(format!("{scaled:.2}{letter}"))
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_rsync() {
        for (level, number, text) in [
            (0, 3_000_000, "3000000"),
            (1, 0, "0"),
            (1, 999, "999"),
            (1, 1000, "1,000"),
            (1, 1_234_567, "1,234,567"),
            (2, 999, "999"),
            (2, 1000, "1.00K"),
            (2, 4096, "4.10K"),
            (2, 1_234_567, "1.23M"),
            (3, 1023, "1023"),
            (3, 4096, "4.00K"),
            (3, 3_000_000, "2.86M"),
            (9, 1 << 40, "1.00T"),
        ] {
            assert_eq!(Human::level(level).number(number), text, "level {level}");
        }
    }

    #[test]
    fn decimals_are_those_of_rsync() {
        for (level, number, text) in [
            (0, 6479.5, "6479.50"),
            (1, 0.0, "0.00"),
            (1, 926.0, "926.00"),
            (1, 6479.5, "6,479.50"),
            (2, 926.0, "926.00"),
            (2, 6479.5, "6.48K"),
        ] {
            assert_eq!(Human::level(level).decimal(number), text, "level {level}");
        }
    }
}

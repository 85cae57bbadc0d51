//! Figures with their units.

use crate::load::digits;

/// What a figure is a number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// As a multiple of something else.
    Times,
    /// 10⁶ bytes per second.
    MegabytesPerSecond,
    /// Operations per second.
    PerSecond,
    Seconds,
    Milliseconds,
    /// 10⁶ bytes.
    Megabytes,
    /// Processor time for 10⁹ bytes.
    SecondsPerGigabyte,
    /// Of anything.
    Count,
}

impl Unit {
    /// The unit itself.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Times => "×",
            Self::MegabytesPerSecond => "MB/s",
            Self::PerSecond => "/s",
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Megabytes => "MB",
            Self::SecondsPerGigabyte => "s/GB",
            Self::Count => "",
        }
    }

    /// A whole number with commas, and the unit.
    pub(super) fn show_grouped(self, value: f64) -> String {
        format!("{} {}", grouped(&format!("{value:.0}")), self.word()).trim_end().to_owned()
    }

    /// The figure with it.
    pub(super) fn show(self, value: f64) -> String {
        let number = match self {
            Self::Count => format!("{value:.0}"),
            _ => grouped(&digits(value)),
        };
        format!("{number} {}", self.word()).trim_end().to_owned()
    }
}

/// With a comma after each three digits before the point.
fn grouped(number: &str) -> String {
    let (whole, rest) = match number.find('.') {
        Some(point) => number.split_at(point),
        None => (number, ""),
    };
    let mut text = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && digit.is_ascii_digit() {
            text.push(',');
        }
        text.push(digit);
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_can_be_read() {
        assert_eq!(Unit::PerSecond.show(78_000.4), "78,000 /s");
        assert_eq!(Unit::PerSecond.show(1_234_567.0), "1,234,567 /s");
        assert_eq!(Unit::Times.show(0.949), "0.95 ×");
        assert_eq!(Unit::Milliseconds.show(12.34), "12.3 ms");
        assert_eq!(Unit::Count.show(3.0), "3");
        assert_eq!(Unit::Count.show_grouped(10_000.0), "10,000");
        assert_eq!(grouped("123.45"), "123.45");
    }
}

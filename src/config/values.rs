//! Values written as text: durations, sizes, rates and deletion limits.
//!
//! The file and the command line share these, so `--bwlimit 10MiB` and `bandwidth = "10MiB"` mean
//! the same.

pub use crate::plan::guard::DeleteLimit;

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// Why a text is not the value it should be. The message says what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Not a duration.
    #[error("expected a duration such as `500ms`, `15s`, `1h30m` or `7d`")]
    Duration,
    /// Not a size.
    #[error("expected a size such as `64MiB`, `10GB` or a number of bytes")]
    Bytes,
    /// Not a rate.
    #[error("expected bytes per second such as `10MiB`, or `0` for no limit")]
    Rate,
    /// Not a deletion limit.
    #[error("expected a count such as `100` or a share from `0%` to `100%`")]
    DeleteLimit,
    /// The unit is known, but the number does not fit.
    #[error("the number is too large")]
    TooLarge,
}

/// Parses a duration: whole numbers with the units `ms`, `s`, `m`, `h`, `d` or `w`, the parts
/// added up (`1h30m`). A number without a unit is refused, except `0`.
///
/// # Errors
/// `Duration` if it is none, `TooLarge` if it does not fit 64 bits of milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(ValueError::Duration);
    }
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = leading_number(rest).ok_or(ValueError::Duration)?;
        let unit_len = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_len);
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(ValueError::Duration),
        };
        let part_ms = number?.checked_mul(unit_ms).ok_or(ValueError::TooLarge)?;
        total_ms = total_ms.checked_add(part_ms).ok_or(ValueError::TooLarge)?;
        rest = next;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Parses a size in bytes: a whole number with an optional unit, in any case. `K`, `M`, `G`, `T`
/// and their `KiB` forms are powers of 1024 (as in rsync), the `KB` forms powers of 1000.
///
/// # Errors
/// `Bytes` if it is none, `TooLarge` if it does not fit 64 bits.
pub fn parse_bytes(text: &str) -> Result<u64, ValueError> {
    let (number, unit) = leading_number(text.trim()).ok_or(ValueError::Bytes)?;
    let scale: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "t" | "ti" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(ValueError::Bytes),
    };
    number?.checked_mul(scale).ok_or(ValueError::TooLarge)
}

/// Parses a rate: a size as in [`parse_bytes`], optionally followed by `/s`, in bytes per second.
/// `None` means no limit, which is written `0`.
///
/// # Errors
/// `Rate` if it is none, `TooLarge` if it does not fit 64 bits.
pub fn parse_rate(text: &str) -> Result<Option<u64>, ValueError> {
    let text = text.trim();
    let size = text.strip_suffix("/s").unwrap_or(text);
    match parse_bytes(size) {
        Ok(0) => Ok(None),
        Ok(bytes_per_second) => Ok(Some(bytes_per_second)),
        Err(ValueError::TooLarge) => Err(ValueError::TooLarge),
        Err(_) => Err(ValueError::Rate),
    }
}

impl FromStr for DeleteLimit {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        match text.strip_suffix('%') {
            Some(share) => match whole(share) {
                Some(Ok(percent)) => match u8::try_from(percent) {
                    Ok(percent @ 0..=100) => Ok(DeleteLimit::Percent(percent)),
                    _ => Err(ValueError::DeleteLimit),
                },
                _ => Err(ValueError::DeleteLimit),
            },
            None => whole(text).ok_or(ValueError::DeleteLimit)?.map(DeleteLimit::Count),
        }
    }
}

/// The digits at the start of `text` as a number, and what follows them; `None` without a digit.
fn leading_number(text: &str) -> Option<(Result<u64, ValueError>, &str)> {
    let digits_len = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(digits_len);
    (!digits.is_empty()).then(|| (digits.parse().map_err(|_| ValueError::TooLarge), rest))
}

/// `text` as a number if it holds nothing but digits.
fn whole(text: &str) -> Option<Result<u64, ValueError>> {
    leading_number(text).filter(|(_, rest)| rest.is_empty()).map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("0", Ok(0))]
    #[case("500ms", Ok(500))]
    #[case("15s", Ok(15_000))]
    #[case("1h", Ok(3_600_000))]
    #[case("7d", Ok(604_800_000))]
    #[case("1w", Ok(604_800_000))]
    #[case("1h30m", Ok(5_400_000))]
    #[case(" 2s ", Ok(2_000))]
    #[case("", Err(ValueError::Duration))]
    #[case("15", Err(ValueError::Duration))]
    #[case("s", Err(ValueError::Duration))]
    #[case("-1s", Err(ValueError::Duration))]
    #[case("1.5s", Err(ValueError::Duration))]
    #[case("1 s", Err(ValueError::Duration))]
    #[case("15 minutes", Err(ValueError::Duration))]
    #[case("99999999999999999999s", Err(ValueError::TooLarge))]
    #[case("18446744073709551615w", Err(ValueError::TooLarge))]
    #[case("18446744073709551615ms1ms", Err(ValueError::TooLarge))]
    fn durations(#[case] text: &str, #[case] expected_ms: Result<u64, ValueError>) {
        assert_eq!(parse_duration(text), expected_ms.map(Duration::from_millis));
    }

    #[rstest]
    #[case("0", Ok(0))]
    #[case("4096", Ok(4096))]
    #[case("1b", Ok(1))]
    #[case("64MiB", Ok(64 << 20))]
    #[case("64 MiB", Ok(64 << 20))]
    #[case("64m", Ok(64 << 20))]
    #[case("1k", Ok(1024))]
    #[case("10GB", Ok(10_000_000_000))]
    #[case("10GiB", Ok(10 << 30))]
    #[case("2tb", Ok(2_000_000_000_000))]
    #[case("", Err(ValueError::Bytes))]
    #[case("MiB", Err(ValueError::Bytes))]
    #[case("1.5GiB", Err(ValueError::Bytes))]
    #[case("-1", Err(ValueError::Bytes))]
    #[case("1xb", Err(ValueError::Bytes))]
    #[case("99999999999999999999", Err(ValueError::TooLarge))]
    #[case("99999999TiB", Err(ValueError::TooLarge))]
    fn sizes(#[case] text: &str, #[case] expected: Result<u64, ValueError>) {
        assert_eq!(parse_bytes(text), expected);
    }

    #[rstest]
    #[case("0", Ok(None))]
    #[case("0/s", Ok(None))]
    #[case("10MiB", Ok(Some(10 << 20)))]
    #[case("10MiB/s", Ok(Some(10 << 20)))]
    #[case("fast", Err(ValueError::Rate))]
    #[case("99999999TiB", Err(ValueError::TooLarge))]
    fn rates(#[case] text: &str, #[case] expected: Result<Option<u64>, ValueError>) {
        assert_eq!(parse_rate(text), expected);
    }

    #[rstest]
    #[case("0", Ok(DeleteLimit::Count(0)))]
    #[case("100", Ok(DeleteLimit::Count(100)))]
    #[case("25%", Ok(DeleteLimit::Percent(25)))]
    #[case("100%", Ok(DeleteLimit::Percent(100)))]
    #[case("101%", Err(ValueError::DeleteLimit))]
    #[case("256%", Err(ValueError::DeleteLimit))]
    #[case("99999999999999999999%", Err(ValueError::DeleteLimit))]
    #[case("%", Err(ValueError::DeleteLimit))]
    #[case("1.5%", Err(ValueError::DeleteLimit))]
    #[case("", Err(ValueError::DeleteLimit))]
    #[case("-1", Err(ValueError::DeleteLimit))]
    #[case("99999999999999999999", Err(ValueError::TooLarge))]
    fn delete_limits(#[case] text: &str, #[case] expected: Result<DeleteLimit, ValueError>) {
        assert_eq!(text.parse(), expected);
    }

    #[test]
    fn a_delete_limit_reads_back_what_it_shows() {
        for limit in [DeleteLimit::Count(7), DeleteLimit::Percent(25)] {
            assert_eq!(limit.to_string().parse(), Ok(limit));
        }
    }
}

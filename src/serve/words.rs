//! Spans, sizes and numbers for people, the same on the page and in `rfleet status`.

/// A time in two units at most: `250 ms`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`.
pub fn span(seconds: f64) -> String {
    if !(0.0..f64::MAX).contains(&seconds) {
        return "0 s".to_owned();
    }
    if seconds > 0.0 && seconds < 0.9995 {
        return format!("{:.0} ms", (seconds * 1000.0).max(1.0));
    }
    if seconds < 9.95 && seconds.fract() != 0.0 {
        return format!("{seconds:.1} s");
    }
    let rounded = std::time::Duration::from_secs_f64(seconds.min(1e15).round()).as_secs();
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {small_unit}"),
    };
    match rounded {
        ..60 => format!("{rounded} s"),
        60..3_600 => two(rounded / 60, "min", rounded % 60, "s"),
        3_600..86_400 => two(rounded / 3_600, "h", rounded % 3_600 / 60, "min"),
        _ => two(rounded / 86_400, "d", rounded % 86_400 / 3_600, "h"),
    }
}

/// How long ago `then_ms` was at `now_ms`: `12 s ago`; without a fraction, as nobody reads it that fast.
pub fn ago(now_ms: u64, then_ms: u64) -> String {
    match now_ms.saturating_sub(then_ms) / 1000 {
        0 => "now".to_owned(),
        seconds => format!("{} ago", span(std::time::Duration::from_secs(seconds).as_secs_f64())),
    }
}

/// A size in units of 1024: `0 B`, `17 KiB`, `1.5 GiB`.
pub fn bytes(number: u64) -> String {
    let (mut whole, mut rest) = (number, 0);
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if whole < 1024 {
            return match whole {
                10.. => format!("{whole} {unit}"),
                _ if unit == "B" => format!("{whole} {unit}"),
                _ => format!("{whole}.{} {unit}", rest * 10 / 1024),
            };
        }
        (whole, rest) = (whole / 1024, whole % 1024);
    }
    format!("{whole} PiB")
}

/// A number with its thousands apart: `1,234,567`.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 file`, `2 files`.
pub fn count(amount: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(amount), if amount == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        let spans = [0.0, 0.0001, 0.25, 0.9999, 1.0, 1.25, 9.99, 12.4, 59.7, 60.0, 185.0, 7_800.0, 356_400.0];
        assert_eq!(
            spans.map(span),
            [
                "0 s",
                "1 ms",
                "250 ms",
                "1.0 s",
                "1 s",
                "1.2 s",
                "10 s",
                "12 s",
                "1 min",
                "1 min",
                "3 min 5 s",
                "2 h 10 min",
                "4 d 3 h"
            ]
        );
        assert_eq!([f64::NAN, f64::INFINITY, -1.0].map(span), ["0 s"; 3]);
        assert_eq!([ago(5_000, 5_000), ago(5_000, 9_000), ago(17_999, 5_000)], ["now", "now", "12 s ago"]);
    }

    #[test]
    fn sizes_and_numbers_are_short() {
        let sizes = [0, 1023, 1024, 1536, 17 << 10, 3 << 29, 1 << 40, u64::MAX];
        assert_eq!(
            sizes.map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "17 KiB", "1.5 GiB", "1.0 TiB", "16383 PiB"]
        );
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([count(1, "file", "files"), count(1_000, "file", "files")], ["1 file", "1,000 files"]);
    }
}

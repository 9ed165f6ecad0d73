//! Figures, and the tables they stand in.

/// The middle of some figures; of an even number of them, the mean of the middle two. NaN for none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

/// The smallest of some figures that at least this share of them, 0 to 1, does not exceed. NaN for none.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    // INVARIANT: a share of a length is no longer than it, and a float becomes the nearest usize or its limit.
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// By how much `values` grow with `times`, after the method of least squares. NaN for fewer than two times.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (time, value) = (mean(|point| point.0), mean(|point| point.1));
    let above: f64 = points.iter().map(|point| (point.0 - time) * (point.1 - value)).sum();
    let below: f64 = points.iter().map(|point| (point.0 - time).powi(2)).sum();
    above / below
}

/// A figure with so many digits behind the point; a dash if there is none.
pub fn number(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}") } else { "-".into() }
}

/// Rows as a table for a terminal and as one in Markdown; the first row has the titles, the first columns are words.
pub fn table(rows: &[Vec<String>], words: usize) -> (String, String) {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> =
        (0..columns).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let padded = cells.map(|(column, (cell, width))| match column {
            column if column < words => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        padded.collect::<Vec<_>>().join("  ")
    };
    let plain: String = rows.iter().map(|row| line(row).trim_end().to_owned() + "\n").collect();
    let rule: Vec<&str> = (0..columns).map(|column| if column < words { "---" } else { "---:" }).collect();
    let mut lines: Vec<String> = rows.iter().map(|row| format!("| {} |\n", row.join(" | "))).collect();
    lines.insert(1.min(lines.len()), format!("| {} |\n", rule.join(" | ")));
    (plain, lines.concat())
}

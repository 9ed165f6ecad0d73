//! The nearest known word to a mistyped one.

/// Below this Jaro-Winkler similarity a suggestion misleads more than it helps; `exlude` and
/// `exclude` have 0.96, `parallel` and `interval` 0.71.
const LEAST_SIMILARITY: f64 = 0.8;

/// The word of `known` that `typed` was most likely meant to be, if any is near enough.
pub(super) fn nearest<'k>(typed: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let typed = typed.to_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|word| (strsim::jaro_winkler(&typed, &word.replace('-', "_")), word))
        .filter(|(similarity, _)| *similarity >= LEAST_SIMILARITY)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("exlude", Some("exclude"))]
    #[case("Exclude", Some("exclude"))]
    #[case("max-delete", Some("max_delete"))]
    #[case("excludes", Some("exclude"))]
    #[case("zzz", None)]
    #[case("", None)]
    fn suggestions(#[case] typed: &str, #[case] expected: Option<&str>) {
        assert_eq!(nearest(typed, ["name", "path", "exclude", "delete", "max_delete"]), expected);
    }
}

//! What was not as the plan took it to be.

use crate::model::RelPath;

/// Paths that are named one by one; the others are counted.
pub(super) const MAX_NAMED: usize = 20;

/// Entries that were kept aside.
#[derive(Default)]
pub(super) struct Drift {
    named: Vec<RelPath>,
    kept: u64,
}

impl Drift {
    pub(super) fn note(&mut self, path: &RelPath) {
        self.kept += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push(path.clone());
        }
    }

    /// One line for people, if there is something to say; `place` is where they are.
    pub(super) fn told(&self, place: &str) -> Option<String> {
        let count = match self.kept {
            0 => return None,
            1 => "1 entry was not what it was taken to be and is".to_owned(),
            kept => format!("{kept} entries were not what they were taken to be and are"),
        };
        Some(format!("{count} kept in {place}: {}", named(&self.named, self.kept)))
    }
}

/// The first of `count` paths, and how many more there are.
pub(super) fn named(first: &[RelPath], count: u64) -> String {
    let names: Vec<String> = first.iter().map(ToString::to_string).collect();
    let more = match count - names.len() as u64 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    names.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_paths_are_named_and_the_others_counted() {
        let mut drift = Drift::default();
        assert_eq!(drift.told("x"), None);
        let path = |name: String| RelPath::new(name.as_bytes()).unwrap();
        drift.note(&path("a\nb".into()));
        assert_eq!(drift.told("x").unwrap(), "1 entry was not what it was taken to be and is kept in x: a\\nb");
        for at in 1..25 {
            drift.note(&path(format!("f{at}")));
        }
        let told = drift.told("x").unwrap();
        assert!(told.starts_with("25 entries were") && told.ends_with("f18, f19 and 5 more"), "{told}");
    }
}

//! What was not as the plan took it to be.

use crate::model::{RelPath, Timestamp};

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

/// The name of a session's directory in the attic: its time in UTC, to be sorted by, and its process.
pub(super) fn session_name(now: Timestamp, process: u32) -> String {
    const DAY_SECONDS: i64 = 86_400;
    let (days, seconds) = (now.secs.div_euclid(DAY_SECONDS), now.secs.rem_euclid(DAY_SECONDS));
    // Years that begin in March have their leap day at the end; a cycle of 400 of them has 146,097 days,
    // and 719,468 lie between 0000-03-01 and 1970 (H. Hinnant, chrono-compatible date algorithms).
    let (cycle, day) = ((days + 719_468).div_euclid(146_097), (days + 719_468).rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day + 2) / 153;
    let day = day - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + 400 * cycle + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z-{process}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_session_is_its_time() {
        // Each as `date -u -d @SECS +%Y%m%dT%H%M%SZ` has it.
        for (secs, name) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (1_795_268_700, "20261121T134500Z"),
            (4_107_542_399, "21000228T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
            (-1, "19691231T235959Z"),
        ] {
            assert_eq!(session_name(Timestamp { secs, nanos: 5 }, 4711), format!("{name}-4711"));
        }
    }

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

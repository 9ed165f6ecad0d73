//! What could not be sent: it is looked at again soon, since most of it is only being written, and then later and
//! later. Pure: the time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::model::RelPath;

/// The first rest; each further one doubles it.
const FIRST: Duration = Duration::from_millis(200);

/// The longest of these.
const LONGEST: Duration = Duration::from_secs(60);

/// Paths of which it is kept how often they could not be sent; others rest as long as can be.
const MOST_PATHS: usize = 10_000;

/// How often which path could not be sent lately.
#[derive(Debug, Default)]
pub(super) struct Unsent(HashMap<RelPath, Tries>);

#[derive(Debug)]
struct Tries {
    rest: Duration,
    last: Instant,
}

impl Tries {
    /// It comes again so late after its rest that it was sent in between.
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) > self.rest * 2 + Duration::from_secs(5)
    }
}

impl Unsent {
    /// How long `path`, which could not be sent just now, is to be left alone.
    pub(super) fn rest(&mut self, path: &RelPath, now: Instant) -> Duration {
        if let Some(tries) = self.0.get_mut(path) {
            let rest = if tries.is_over(now) { FIRST } else { (tries.rest * 2).min(LONGEST) };
            *tries = Tries { rest, last: now };
            return rest;
        }
        if self.0.len() >= MOST_PATHS {
            self.0.retain(|_, tries| !tries.is_over(now));
        }
        if self.0.len() >= MOST_PATHS {
            return LONGEST;
        }
        self.0.insert(path.clone(), Tries { rest: FIRST, last: now });
        FIRST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_can_never_be_sent_rests_longer_each_time() {
        let (mut unsent, mut now) = (Unsent::default(), Instant::now());
        let mut rests = Vec::new();
        for _ in 0..12 {
            let rest = unsent.rest(&path("f"), now);
            rests.push(rest.as_millis());
            now += rest;
        }
        assert_eq!(rests[..4], [200, 400, 800, 1600]);
        assert_eq!(rests[11], 60_000);
        assert_eq!(unsent.rest(&path("g"), now), FIRST, "others have nothing to do with it");
        assert_eq!(unsent.rest(&path("f"), now + 300 * Duration::from_secs(1)), FIRST, "it was sent in between");
    }

    #[test]
    fn many_paths_take_no_room_without_end() {
        let (mut unsent, now) = (Unsent::default(), Instant::now());
        for number in 0..=MOST_PATHS {
            let rest = unsent.rest(&path(&number.to_string()), now);
            assert_eq!(rest == LONGEST, number == MOST_PATHS);
        }
        assert_eq!(unsent.rest(&path("later"), now + 300 * Duration::from_secs(1)), FIRST);
        assert_eq!(unsent.0.len(), 1);
    }
}

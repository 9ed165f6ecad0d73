//! When a host that could not be reached is tried again. Pure: the time and the chance are arguments.

use std::time::Duration;

/// Longest time between two tries.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// What follows the second failure; each further one doubles it.
const FIRST: Duration = Duration::from_secs(60);

/// Failures of a host without a success in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failures {
    /// How many, at least 1.
    pub in_a_row: u32,
    /// When the last one was, in seconds after 1970.
    pub last_s: u64,
}

impl Failures {
    /// How long the host is not to be tried yet at `now_s` (seconds after 1970); `None`: try it. The first
    /// failure costs nothing: most are over by the next run. `chance` is any number, the same for the
    /// same failure: it takes up to a quarter off, so that hosts which failed together do not come
    /// back together.
    pub fn wait(&self, now_s: u64, chance: u64) -> Option<Duration> {
        // A clock that was set back must not hold a host for long: then it is tried.
        let passed = Duration::from_secs(now_s.checked_sub(self.last_s)?);
        delay(self.in_a_row, chance).checked_sub(passed).filter(|wait| !wait.is_zero())
    }
}

/// The time from the last of so many failures to the next try.
fn delay(in_a_row: u32, chance: u64) -> Duration {
    let Some(doublings) = in_a_row.checked_sub(2) else { return Duration::ZERO };
    let whole = 2_u32.checked_pow(doublings).and_then(|times| FIRST.checked_mul(times)).unwrap_or(LONGEST).min(LONGEST);
    // Below 1000, so it fits.
    let thousandths = u32::try_from(chance % 1000).unwrap_or(0);
    whole - whole / 4 * thousandths / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_from_a_minute_to_a_quarter_of_an_hour() {
        let minutes = |in_a_row| delay(in_a_row, 0).as_secs_f64() / 60.0;
        let expected = [(0, 0.0), (1, 0.0), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 15.0), (7, 15.0)];
        for (in_a_row, expected) in expected {
            assert_eq!(minutes(in_a_row), expected, "{in_a_row}");
        }
        assert_eq!((minutes(40), minutes(u32::MAX)), (15.0, 15.0));
    }

    #[test]
    fn chance_takes_up_to_a_quarter_off() {
        for in_a_row in 2..9 {
            let whole = delay(in_a_row, 0);
            let delays: Vec<_> = (0..5000).map(|chance| delay(in_a_row, chance)).collect();
            assert!(delays.iter().all(|delay| *delay <= whole && *delay > whole * 3 / 4), "{in_a_row}");
            assert!(delays.iter().any(|delay| *delay < whole * 77 / 100), "{in_a_row}");
        }
        assert_eq!(delay(3, u64::MAX), delay(3, u64::MAX % 1000));
    }

    #[test]
    fn it_is_over_when_the_time_has_passed_or_the_clock_went_back() {
        let failures = Failures { in_a_row: 3, last_s: 1_000 };
        let wait = |now_s| failures.wait(now_s, 0).map(|wait| wait.as_secs());
        assert_eq!(
            [1_000, 1_001, 1_119, 1_120, 9_000, 999, 0].map(wait),
            [Some(120), Some(119), Some(1), None, None, None, None]
        );
        assert_eq!(Failures { in_a_row: 1, last_s: 1_000 }.wait(1_000, 7), None);
    }
}

//! Names of sessions: the time in UTC, to be sorted by, and the process.

use super::Timestamp;

/// Bytes of the time at the start of a name.
pub const SESSION_TIME_BYTES: usize = "20261121T134500Z".len();

/// The name of a session of `process` that began at `now`.
pub fn session_name(now: Timestamp, process: u32) -> String {
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

/// The time at the start of the name of a session; `None` if `name` is none.
pub fn session_time(name: &str) -> Option<&str> {
    let (time, process) = name.split_at_checked(SESSION_TIME_BYTES)?;
    let fits = time.bytes().zip(*b"00000000T000000Z").all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        form => byte == form,
    });
    let process = process.strip_prefix('-')?;
    (fits && !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit())).then_some(time)
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
            let session = session_name(Timestamp { secs, nanos: 5 }, 4711);
            assert_eq!(session, format!("{name}-4711"));
            assert_eq!(session_time(&session), Some(name));
        }
    }

    #[test]
    fn other_names_are_no_sessions() {
        for name in [
            "",
            "sizes",
            "20261121T134500Z",
            "20261121T134500Z-",
            "20261121T134500Z-4a",
            "20261121T134500Z-1.deleted",
            "2026112xT134500Z-1",
            "20261121 134500Z-1",
            "ä0261121T134500Z-1",
        ] {
            assert_eq!(session_time(name), None, "{name}");
        }
    }
}

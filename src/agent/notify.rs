//! What systemd is told. Nothing, where it did not start this.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Talks to the service manager.
pub(super) struct Manager {
    /// How often it wants a sign of life.
    watchdog: Option<Duration>,
    said: Option<Instant>,
}

impl Manager {
    pub(super) fn new() -> Self {
        // Twice in the time that it allows.
        Manager { watchdog: sd_notify::watchdog_enabled().map(|time| time / 2), said: None }
    }

    /// It serves.
    pub(super) fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// It reads its configuration again.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(time) => tell(&[NotifyState::Reloading, time]),
            Err(error) => tracing::debug!("the service manager cannot be told of the reload: {error}"),
        }
    }

    /// It ends, within `time`.
    pub(super) fn stopping(&self, time: Duration) {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
    }

    /// Work moves; and how it is, in a line.
    pub(super) fn alive(&mut self, now: Instant, line: &str) {
        let Some(every) = self.watchdog else { return };
        if self.said.is_none_or(|said| now.duration_since(said) >= every) {
            self.said = Some(now);
            tell(&[NotifyState::Watchdog, NotifyState::Status(line)]);
        }
    }
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::debug!("the service manager cannot be told: {error}");
    }
}

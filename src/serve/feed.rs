//! The latest status, and how long ago it came.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::status::FleetStatus;

/// Handed to every request. Who writes the status never waits for one who reads it: only a pointer is copied.
#[derive(Clone)]
pub(super) struct Feed {
    status: watch::Receiver<Arc<FleetStatus>>,
    arrival: Arc<Arrival>,
}

struct Arrival {
    started: Instant,
    /// When the last one came, in milliseconds after `started`.
    last_ms: AtomicU64,
    ended: AtomicBool,
}

/// The latest status.
pub(super) struct Latest {
    pub(super) status: Arc<FleetStatus>,
    /// Since it came. By a clock that nobody can set, so that a step of the other one makes nothing look old.
    pub(super) age: Duration,
    /// Nobody will hand over another one.
    pub(super) ended: bool,
}

impl Feed {
    pub(super) fn new(status: watch::Receiver<Arc<FleetStatus>>) -> Self {
        let arrival = Arrival { started: Instant::now(), last_ms: AtomicU64::new(0), ended: AtomicBool::new(false) };
        Feed { status, arrival: Arc::new(arrival) }
    }

    /// Notes when each status comes. Never ends.
    pub(super) async fn follow(&self) {
        let mut status = self.status.clone();
        while status.changed().await.is_ok() {
            let passed = self.arrival.started.elapsed().as_millis();
            self.arrival.last_ms.store(u64::try_from(passed).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        self.arrival.ended.store(true, Ordering::Relaxed);
        std::future::pending().await
    }

    pub(super) fn latest(&self) -> Latest {
        let came = Duration::from_millis(self.arrival.last_ms.load(Ordering::Relaxed));
        Latest {
            status: Arc::clone(&self.status.borrow()),
            age: self.arrival.started.elapsed().saturating_sub(came),
            ended: self.arrival.ended.load(Ordering::Relaxed),
        }
    }
}

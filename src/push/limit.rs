//! A bound on bytes per second, shared by all hosts.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Lets bytes through at a rate, in the order in which they ask.
pub struct Limiter {
    bytes_per_second: u64,
    /// When what was let through so far will have had its time.
    free_at: Mutex<Instant>,
}

impl Limiter {
    /// How much to ask for at a time: a twentieth of a second's worth, so that hosts take turns.
    pub fn piece_bytes(&self) -> usize {
        usize::try_from(self.bytes_per_second / 20).unwrap_or(usize::MAX).clamp(512, 64 << 10)
    }

    /// A limit of `bytes_per_second`, which is at least 1.
    pub fn new(bytes_per_second: u64) -> Self {
        Limiter { bytes_per_second: bytes_per_second.max(1), free_at: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` may be sent.
    pub async fn acquire(&self, bytes: usize) {
        let mut free_at = self.free_at.lock().await;
        let start = (*free_at).max(Instant::now());
        // Bytes are at most a block's; the quotient is far from overflow.
        let cost = Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / self.bytes_per_second);
        *free_at = start + cost;
        drop(free_at);
        sleep_until(start).await;
    }
}

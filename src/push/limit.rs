//! Bounds on bytes per second: of one host, and of all together.

use std::sync::Arc;
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
    fn piece_bytes(&self) -> usize {
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

/// The bounds that hold for one link; none, often.
#[derive(Clone, Default)]
pub(super) struct Limits {
    limiters: Vec<Arc<Limiter>>,
}

impl Limits {
    /// The host's own bound, and that of all hosts. The own one is waited for first: who waits for it
    /// has not taken a turn from the others yet.
    pub(super) fn new(own: Option<&Arc<Limiter>>, all: Option<&Arc<Limiter>>) -> Self {
        Limits { limiters: own.into_iter().chain(all).cloned().collect() }
    }

    /// How much to ask for at a time; `None` if there is no bound.
    pub(super) fn piece_bytes(&self) -> Option<usize> {
        self.limiters.iter().map(|limiter| limiter.piece_bytes()).min()
    }

    /// Waits until `bytes` may be sent.
    pub(super) async fn acquire(&self, bytes: usize) {
        for limiter in &self.limiters {
            limiter.acquire(bytes).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long `links` take side by side for `bytes` each, in a time that stands still but for sleepers.
    async fn side_by_side(links: &[Limits], bytes: usize) -> Vec<u64> {
        let started = Instant::now();
        let run = |limits: Limits| async move {
            let mut rest = bytes;
            while rest > 0 {
                let piece = rest.min(limits.piece_bytes().unwrap_or(rest));
                limits.acquire(piece).await;
                rest -= piece;
            }
            started.elapsed().as_secs_f64().round() as u64
        };
        let tasks: Vec<_> = links.iter().cloned().map(|limits| tokio::spawn(run(limits))).collect();
        let mut seconds = Vec::new();
        for task in tasks {
            seconds.push(task.await.unwrap());
        }
        seconds
    }

    fn limiter(bytes_per_second: u64) -> Arc<Limiter> {
        Arc::new(Limiter::new(bytes_per_second))
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_host_takes_no_turns_from_the_others() {
        let (slow, all) = (limiter(1_000), limiter(100_000));
        let links = [Limits::new(Some(&slow), Some(&all)), Limits::new(None, Some(&all)), Limits::new(None, None)];
        // Of 100,000 bytes a second, the slow one takes 1,000.
        assert_eq!(side_by_side(&links, 1_000_000).await, [1_000, 10, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_bound_of_all_holds_for_hosts_with_wider_ones() {
        let all = limiter(10_000);
        let wide = [limiter(100_000), limiter(100_000)];
        let links: Vec<_> = wide.iter().map(|own| Limits::new(Some(own), Some(&all))).collect();
        let seconds = side_by_side(&links, 500_000).await;
        assert!(seconds.iter().all(|seconds| (98..=100).contains(seconds)), "{seconds:?}");
    }
}

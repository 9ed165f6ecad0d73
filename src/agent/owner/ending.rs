//! The end of the agent: what is pending is sent, and everybody is left in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::super::host::Host;
use super::super::root::RootAgent;
use super::{Ended, Event, Owner};

/// How long what is under way may take once the agent is to end.
const LAST_CYCLE: Duration = Duration::from_secs(30);

/// How long hosts get to end in order after that.
const FAREWELL: Duration = Duration::from_secs(3);

impl Owner {
    pub(super) fn stop(&mut self, now: Instant) {
        if self.stopping.is_some() {
            // The second time is for the impatient.
            self.stopping = Some(now);
            return;
        }
        self.stopping = Some(now + LAST_CYCLE);
        self.manager.stopping(LAST_CYCLE + FAREWELL * 2);
        for root in &mut self.roots {
            root.read_events(now);
            root.schedule.flush(now);
        }
    }

    pub(super) fn is_over(&self, now: Instant) -> Option<Ended> {
        if self.ended.is_some() {
            return self.ended;
        }
        let deadline = self.stopping?;
        let is_done = |root: &RootAgent| {
            let head = root.head();
            let sent = |host: &Host| !host.is_ready(now) || head.is_none_or(|head| !host.wants(head, now));
            root.running.is_empty() && !root.schedule.is_pending() && root.hosts.iter().all(sent)
        };
        (now >= deadline || self.roots.iter().all(is_done)).then_some(Ended::Stopped)
    }

    pub(super) async fn say_farewell(&mut self, mut inbox: mpsc::UnboundedReceiver<Event>) {
        self.publish(Instant::now());
        for root in &self.roots {
            root.stop.send_replace(true);
        }
        let running = self.roots.iter().map(|root| root.running.len()).sum::<usize>();
        let ends = async {
            let mut left = running;
            while left > 0 {
                match inbox.recv().await {
                    Some(Event::CycleEnded(..)) => left -= 1,
                    Some(_) => {}
                    None => return,
                }
            }
        };
        // Receivers that are cut off clean up by themselves.
        let _ = tokio::time::timeout(FAREWELL, ends).await;
        let lines = self.roots.iter().flat_map(|root| &root.hosts).map(|host| {
            let (line, endpoint) = (Arc::clone(&host.line), Arc::clone(&host.settings.endpoint));
            tokio::spawn(async move {
                line.close().await;
                endpoint.close().await;
            })
        });
        let lines: Vec<_> = lines.collect();
        let all = async {
            for line in lines {
                // It has nothing to say.
                let _ = line.await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL, all).await;
    }
}

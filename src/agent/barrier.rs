//! Who waits for what: pure.

use tokio::sync::oneshot;

use crate::control::{Refusal, WaitDone, WaitHosts};
use crate::model::Sequence;

/// Those who wait for a root.
#[derive(Default)]
pub(super) struct Barriers(Vec<Barrier>);

/// Where one stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// What it waits for is found by the next look that begins.
    NextLook,
    /// ... by the look of this cycle.
    Looking(u64),
    /// What it waits for has this number, and all before it.
    Sequence(Sequence),
}

struct Barrier {
    stage: Stage,
    hosts: WaitHosts,
    reply: oneshot::Sender<Result<WaitDone, Refusal>>,
}

impl Barriers {
    /// Somebody waits until `hosts` have everything that has changed so far. `looking` is the cycle whose look is under
    /// way, `is_dirty` whether there is more to be looked at, `head` where the source is.
    pub(super) fn add(
        &mut self,
        (looking, is_dirty, head): (Option<u64>, bool, Option<Sequence>),
        hosts: WaitHosts,
        reply: oneshot::Sender<Result<WaitDone, Refusal>>,
    ) {
        let stage = match (is_dirty, looking, head) {
            (true, ..) | (false, None, None) => Stage::NextLook,
            (false, Some(cycle), _) => Stage::Looking(cycle),
            (false, None, Some(head)) => Stage::Sequence(head),
        };
        self.0.push(Barrier { stage, hosts, reply });
    }

    pub(super) fn look_begins(&mut self, cycle: u64) {
        for barrier in self.0.iter_mut().filter(|barrier| barrier.stage == Stage::NextLook) {
            barrier.stage = Stage::Looking(cycle);
        }
    }

    pub(super) fn look_ended(&mut self, cycle: u64, head: Sequence) {
        for barrier in self.0.iter_mut().filter(|barrier| barrier.stage == Stage::Looking(cycle)) {
            barrier.stage = Stage::Sequence(head);
        }
    }

    /// The look of `cycle` came to nothing: the next one has to find it.
    pub(super) fn look_failed(&mut self, cycle: u64) {
        for barrier in self.0.iter_mut().filter(|barrier| barrier.stage == Stage::Looking(cycle)) {
            barrier.stage = Stage::NextLook;
        }
    }

    /// Answers those whose hosts have it. `hosts` are all hosts, each with what it has in full.
    pub(super) fn answer(&mut self, hosts: &[(&str, Option<Sequence>)]) {
        let done = |barrier: &Barrier| {
            let Stage::Sequence(wanted) = barrier.stage else { return None };
            let have = hosts.iter().filter(|(_, at)| at.is_some_and(|at| at >= wanted));
            let have: Vec<String> = have.map(|(name, _)| (*name).to_owned()).collect();
            let enough = match barrier.hosts {
                WaitHosts::All => have.len() == hosts.len(),
                WaitHosts::AtLeast(number) => have.len() >= number as usize,
            };
            enough.then_some(WaitDone { hosts: have })
        };
        // Who has gone away meanwhile waits for nothing.
        self.0.retain(|barrier| !barrier.reply.is_closed());
        let mut at = 0;
        while at < self.0.len() {
            match done(&self.0[at]) {
                Some(answer) => {
                    // As above.
                    let _ = self.0.swap_remove(at).reply.send(Ok(answer));
                }
                None => at += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Reply = oneshot::Receiver<Result<WaitDone, Refusal>>;

    fn waiting(barriers: &mut Barriers, state: (Option<u64>, bool, Option<u64>), hosts: WaitHosts) -> Reply {
        let (reply, answer) = oneshot::channel();
        barriers.add((state.0, state.1, state.2.map(Sequence)), hosts, reply);
        answer
    }

    #[test]
    fn what_is_dirty_is_waited_for_by_the_next_look_not_the_one_under_way() {
        let mut barriers = Barriers::default();
        let mut answer = waiting(&mut barriers, (Some(1), true, Some(5)), WaitHosts::All);
        barriers.look_ended(1, Sequence(6));
        barriers.answer(&[("a", Some(Sequence(6)))]);
        assert!(answer.try_recv().is_err());
        barriers.look_begins(2);
        barriers.look_failed(2);
        barriers.look_begins(3);
        barriers.look_ended(3, Sequence(7));
        barriers.answer(&[("a", Some(Sequence(6))), ("b", Some(Sequence(7)))]);
        assert!(answer.try_recv().is_err());
        barriers.answer(&[("a", Some(Sequence(8))), ("b", Some(Sequence(7)))]);
        assert_eq!(answer.try_recv().unwrap().unwrap().hosts, ["a", "b"]);
        assert!(barriers.0.is_empty());
    }

    #[test]
    fn some_hosts_are_enough_where_that_is_asked() {
        let mut barriers = Barriers::default();
        let mut answer = waiting(&mut barriers, (None, false, Some(5)), WaitHosts::AtLeast(1));
        barriers.answer(&[("a", None), ("b", Some(Sequence(4)))]);
        assert!(answer.try_recv().is_err());
        barriers.answer(&[("a", None), ("b", Some(Sequence(5)))]);
        assert_eq!(answer.try_recv().unwrap().unwrap().hosts, ["b"]);
    }

    #[test]
    fn who_has_gone_away_is_forgotten() {
        let mut barriers = Barriers::default();
        drop(waiting(&mut barriers, (None, false, Some(5)), WaitHosts::All));
        barriers.answer(&[]);
        assert!(barriers.0.is_empty());
    }
}

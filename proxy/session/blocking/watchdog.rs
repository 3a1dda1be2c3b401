//! How long a node is trusted to keep a client waiting.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    cluster::topology::{Node, Topology},
    protocol::slot::Slot,
    session::attempts::Attempts,
};

/// Raises an alarm when waiting has become pointless: the node is overdue, or its slot has moved and it has not said so.
pub(super) struct Watchdog {
    news: tokio::sync::watch::Receiver<Arc<Topology>>,
    slot: Option<Slot>,
    /// The node has been the slot's owner.
    was_owner: bool,
    patience: Duration,
    /// When the node should have answered at the latest.
    overdue: Option<Instant>,
    /// When it should have said that the slot has moved.
    unsaid: Option<Instant>,
}

impl Watchdog {
    /// For attempts that may take until `deadline`, and `patience` more.
    pub fn new(attempts: &Attempts, deadline: Option<Instant>, patience: Duration) -> Watchdog {
        let overdue = deadline.and_then(|deadline| deadline.checked_add(patience));
        let mut news = attempts.router.news();
        news.mark_changed();
        Watchdog { news, slot: attempts.slot(), was_owner: !attempts.asks(), patience, overdue, unsaid: None }
    }

    /// The node has been asked to end the wait, and has until then to do so.
    pub fn hurries(&mut self, until: Instant) {
        self.overdue = Some(self.overdue.map_or(until, |overdue| overdue.min(until)));
    }

    /// Ready once waiting has become pointless, with the reason.
    pub async fn alarm(&mut self, node: &Node) -> String {
        loop {
            tokio::select! {
                changed = self.news.changed() => {
                    if changed.is_err() {
                        // Discovery has ended; so will the proxy.
                        return pending().await;
                    }
                    let topology = self.news.borrow_and_update().clone();
                    let Some(slot) = self.slot else { continue };
                    let owns = topology.owner(slot).is_some_and(|owner| owner.id == node.id);
                    self.was_owner |= owns;
                    // A node without the slot tells those who wait within a second.
                    self.unsaid = match self.unsaid {
                        _ if owns || !self.was_owner => None,
                        None => Instant::now().checked_add(self.patience),
                        unsaid => unsaid,
                    };
                }
                () = until(self.overdue) => return "it did not answer in time".to_owned(),
                () = until(self.unsaid) => return "its slot has moved away and it said nothing".to_owned(),
            }
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        cluster::refusal::Refusal,
        session::caller::Caller,
        upstream::router::scripted::{Scripted, within_a_minute},
    };

    const OVERDUE: &str = "it did not answer in time";
    const MOVED_AWAY: &str = "its slot has moved away and it said nothing";
    // The watchdog reads the system's clock, which is not paused: `start + SECOND` is one second of the paused one.
    const SECOND: Duration = Duration::from_secs(1);

    /// The attempts of a request for the slot of `foo`, and that slot's owner: the second node.
    fn attempts(nodes: &Scripted) -> (Attempts, Arc<Node>) {
        let owner = nodes.router.topology().nodes[1].clone();
        (Caller::of(nodes).attempts(Some(Slot::of(b"foo"))), owner)
    }

    /// The watchdog's alarm, where it comes within this time.
    async fn alarm_within(time: Duration, watchdog: &mut Watchdog, node: &Node) -> Option<String> {
        tokio::time::timeout(time, watchdog.alarm(node)).await.ok()
    }

    /// All slots are this node's from now on.
    fn give_all_to(nodes: &Scripted, index: u16) {
        let topology = nodes.topology.borrow().clone();
        let topology = topology.with_layout(topology.nodes.clone(), Box::new([index; 16384]));
        nodes.topology.send_replace(Arc::new(topology));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_may_take_a_little_longer_than_the_command_says() {
        within_a_minute(async {
            let nodes = Scripted::new(2);
            let (attempts, owner) = attempts(&nodes);
            let mut watchdog = Watchdog::new(&attempts, Some(Instant::now() + SECOND), 2 * SECOND);
            assert_eq!(alarm_within(SECOND * 5 / 2, &mut watchdog, &owner).await, None);
            assert_eq!(alarm_within(SECOND, &mut watchdog, &owner).await.as_deref(), Some(OVERDUE));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_wait_for_ever_does_until_the_node_is_asked_to_end_it() {
        within_a_minute(async {
            let nodes = Scripted::new(2);
            let ((attempts, owner), start) = (attempts(&nodes), Instant::now());
            let mut watchdog = Watchdog::new(&attempts, None, SECOND);
            assert_eq!(alarm_within(20 * SECOND, &mut watchdog, &owner).await, None);
            watchdog.hurries(start + 30 * SECOND);
            watchdog.hurries(start + 50 * SECOND);
            assert_eq!(alarm_within(5 * SECOND, &mut watchdog, &owner).await, None);
            assert_eq!(alarm_within(10 * SECOND, &mut watchdog, &owner).await.as_deref(), Some(OVERDUE));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_without_the_slot_has_a_while_to_say_so() {
        within_a_minute(async {
            let nodes = Scripted::new(2);
            let (attempts, owner) = attempts(&nodes);
            let mut watchdog = Watchdog::new(&attempts, None, 10 * SECOND);
            give_all_to(&nodes, 0);
            assert_eq!(alarm_within(5 * SECOND, &mut watchdog, &owner).await, None);
            // The slot has come back: nothing is wrong.
            give_all_to(&nodes, 1);
            assert_eq!(alarm_within(20 * SECOND, &mut watchdog, &owner).await, None);
            give_all_to(&nodes, 0);
            assert_eq!(alarm_within(10 * SECOND, &mut watchdog, &owner).await.as_deref(), Some(MOVED_AWAY));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn news_of_other_things_do_not_prolong_the_while() {
        within_a_minute(async {
            let nodes = Scripted::new(2);
            let (attempts, owner) = attempts(&nodes);
            let mut watchdog = Watchdog::new(&attempts, None, 10 * SECOND);
            for _ in 0..3 {
                give_all_to(&nodes, 0);
                assert_eq!(alarm_within(3 * SECOND, &mut watchdog, &owner).await, None);
            }
            assert_eq!(alarm_within(2 * SECOND, &mut watchdog, &owner).await.as_deref(), Some(MOVED_AWAY));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn where_ask_led_the_slot_is_not_missed_before_it_has_come() {
        within_a_minute(async {
            let nodes = Scripted::new(2);
            let (mut attempts, owner) = attempts(&nodes);
            let importing = nodes.router.topology().nodes[0].clone();
            let error = Bytes::from_static(b"-ASK 12182 127.0.0.1:7000\r\n");
            let why = attempts.refused(Refusal::of(&error).expect("a redirect"), error, &owner);
            attempts.again(why).await.expect("it goes where the node says");
            let mut watchdog = Watchdog::new(&attempts, None, 10 * SECOND);
            assert_eq!(alarm_within(20 * SECOND, &mut watchdog, &importing).await, None);
            give_all_to(&nodes, 0);
            assert_eq!(alarm_within(SECOND, &mut watchdog, &importing).await, None);
            give_all_to(&nodes, 1);
            assert_eq!(alarm_within(SECOND, &mut watchdog, &importing).await.as_deref(), Some(MOVED_AWAY));
        })
        .await;
    }
}

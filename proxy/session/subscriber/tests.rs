//! A client's subscriptions at scripted nodes, without its session. All publishing goes through the first node.

use std::{future::poll_fn, time::Duration};

use super::*;
use crate::{
    config::PubSubLimits,
    upstream::{
        router::scripted::{Scripted, frame, within_a_minute},
        transport::memory::Peer,
    },
};

/// What one session would hold.
struct Listener {
    caller: Caller,
    subscriber: Subscriber,
}

impl Listener {
    fn of(nodes: &Scripted) -> Listener {
        let caller = Caller::of(nodes);
        let subscriber = Subscriber::new(caller.lane.login(), &caller.databases, &caller.router);
        Listener { caller, subscriber }
    }

    fn begin(&mut self, kind: TopicKind, name: &'static str) {
        self.subscriber.start();
        self.subscriber.begin(kind, &[Bytes::from(name)], &self.caller.router);
    }

    /// What has become of that.
    async fn begun(&mut self, kind: TopicKind, name: &'static str) -> Result<(), Bytes> {
        let Listener { caller, subscriber } = self;
        poll_fn(|cx| {
            subscriber.poll(cx, &SubscriberContext::of(caller));
            subscriber.poll_begun(kind, &[Bytes::from(name)], &caller.router)
        })
        .await
    }

    fn confirm(&mut self, kind: TopicKind, name: &'static str) {
        let context = SubscriberContext::of(&self.caller);
        self.subscriber.confirm(kind, &[Bytes::from(name)], &context);
        self.subscriber.release(&context);
    }

    /// Subscribes at a node that is connected already.
    async fn subscribes(&mut self, node: &mut Peer, kind: TopicKind, name: &'static str) {
        self.begin(kind, name);
        let (begun, ()) = tokio::join!(self.begun(kind, name), takes(node, kind, name));
        assert_eq!(begun, Ok(()));
        self.confirm(kind, name);
    }

    /// Hears the nodes until this is so.
    async fn until(&mut self, mut is_so: impl FnMut(&mut Subscriber, &Caller) -> bool) {
        let Listener { caller, subscriber } = self;
        poll_fn(|cx| {
            subscriber.poll(cx, &SubscriberContext::of(caller));
            if is_so(subscriber, caller) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

fn confirmation(verb: &str, name: &str, count: usize) -> String {
    format!("*3\r\n${}\r\n{verb}\r\n${}\r\n{name}\r\n:{count}\r\n", verb.len(), name.len())
}

/// A node subscribes.
async fn takes(node: &mut Peer, kind: TopicKind, name: &str) {
    let verb = kind.verb(true);
    node.hears(&frame(&format!("{verb} {name}"))).await;
    node.says(confirmation(verb, name, 1).as_bytes()).await;
}

/// A node subscribes that is not connected yet.
async fn connects_and_takes(nodes: &mut Scripted, index: u16, kind: TopicKind, name: &str) -> Peer {
    let mut node = nodes.node(index).await;
    takes(&mut node, kind, name).await;
    node
}

/// All slots are the first node's from now on.
fn give_all_to_the_first(nodes: &Scripted) {
    let topology = nodes.topology.borrow().clone();
    nodes.topology.send_replace(Arc::new(topology.with_layout(topology.nodes.clone(), Box::new([0; 16384]))));
}

#[tokio::test(start_paused = true)]
async fn subscriptions_are_counted_as_redis_does_and_take_memory_while_they_are_there() {
    within_a_minute(async {
        let mut nodes = Scripted::new(1);
        let mut listener = Listener::of(&nodes);
        listener.begin(TopicKind::Channel, "a");
        listener.begin(TopicKind::Channel, "a");
        assert_eq!(listener.subscriber.counts(), [0, 0, 0], "the client does not know yet");
        assert_eq!(listener.subscriber.size(), 1 + NAME, "once, however often it is said");
        let (begun, mut node) = tokio::join!(
            listener.begun(TopicKind::Channel, "a"),
            connects_and_takes(&mut nodes, 0, TopicKind::Channel, "a")
        );
        assert_eq!(begun, Ok(()));
        listener.confirm(TopicKind::Channel, "a");
        listener.subscribes(&mut node, TopicKind::Pattern, "p").await;
        listener.subscribes(&mut node, TopicKind::Shard, "s").await;
        assert_eq!(listener.subscriber.counts(), [1, 1, 1]);
        // Channels and patterns are counted together.
        let told = [confirmation("subscribe", "a", 1), confirmation("psubscribe", "p", 2)].concat();
        assert_eq!(listener.caller.was_told(), told + &confirmation("ssubscribe", "s", 1));

        let (names, router) = ([Bytes::from("a")], listener.caller.router.clone());
        listener.subscriber.start();
        listener.subscriber.end(TopicKind::Channel, &names);
        let leaves = async {
            node.hears(&frame("unsubscribe a")).await;
            node.says(confirmation("unsubscribe", "a", 0).as_bytes()).await;
        };
        let ended = listener.until(|subscriber, _| subscriber.has_ended(TopicKind::Channel, &names, &router));
        tokio::join!(ended, leaves);
        listener.subscriber.confirm_end(TopicKind::Channel, &names, &SubscriberContext::of(&listener.caller));
        assert_eq!(listener.caller.was_told(), confirmation("unsubscribe", "a", 1));
        assert_eq!((listener.subscriber.counts(), listener.subscriber.size()), ([0, 1, 1], 2 * (1 + NAME)));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn that_there_was_nothing_to_end_is_said_in_the_client_s_version() {
    within_a_minute(async {
        let nodes = Scripted::new(1);
        let mut listener = Listener::of(&nodes);
        for (version, told) in [
            (Version::Resp2, "*3\r\n$12\r\nsunsubscribe\r\n$-1\r\n:0\r\n"),
            (Version::Resp3, ">3\r\n$12\r\nsunsubscribe\r\n_\r\n:0\r\n"),
        ] {
            listener.caller.lane = nodes.router.lane(&Login { version, ..Login::default() });
            listener.subscriber.confirm_none(TopicKind::Shard, &SubscriberContext::of(&listener.caller));
            assert_eq!(listener.caller.was_told(), told);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_may_be_notified_is_subscribed_on_every_primary() {
    within_a_minute(async {
        let mut nodes = Scripted::new(2);
        let mut listener = Listener::of(&nodes);
        listener.begin(TopicKind::Pattern, "*");
        let at_first = |subscriber: &mut Subscriber, caller: &Caller| {
            subscriber.is_begun_at_pubsub_node(TopicKind::Pattern, &[Bytes::from("*")], &caller.router)
        };
        let (mut first, ()) =
            tokio::join!(connects_and_takes(&mut nodes, 0, TopicKind::Pattern, "*"), listener.until(at_first));
        let names = [Bytes::from("*")];
        let begun = listener.subscriber.poll_begun(TopicKind::Pattern, &names, &listener.caller.router);
        assert!(begun.is_pending(), "notifications of the second would be missed");
        let (mut second, begun) = tokio::join!(
            connects_and_takes(&mut nodes, 1, TopicKind::Pattern, "*"),
            listener.begun(TopicKind::Pattern, "*")
        );
        assert_eq!(begun, Ok(()));
        listener.confirm(TopicKind::Pattern, "*");
        listener.caller.was_told();

        // What is published comes from the first alone: the second passes it on to its own subscribers, too.
        let (published, notified) = (frame("pmessage * news x"), frame("pmessage * __keyspace@0__:a set"));
        second.says(&[published.clone(), notified.clone()].concat()).await;
        listener.until(|_, caller| caller.line.owed() >= notified.len()).await;
        assert_eq!(listener.caller.was_told().into_bytes(), notified);
        first.says(&published).await;
        listener.until(|_, caller| caller.line.owed() >= published.len()).await;
        assert_eq!(listener.caller.was_told().into_bytes(), published);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_is_lost_would_notify_of_nothing() {
    within_a_minute(async {
        let mut nodes = Scripted::new(2);
        nodes.stop(1);
        let mut listener = Listener::of(&nodes);
        listener.begin(TopicKind::Pattern, "*");
        let (begun, _first) = tokio::join!(
            listener.begun(TopicKind::Pattern, "*"),
            connects_and_takes(&mut nodes, 0, TopicKind::Pattern, "*")
        );
        assert_eq!(begun, Ok(()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_answers_who_asks_and_ends_who_is_subscribed() {
    within_a_minute(async {
        let mut nodes = Scripted::new(1);
        let mut listener = Listener::of(&nodes);
        listener.begin(TopicKind::Channel, "a");
        let (begun, mut node) = tokio::join!(
            listener.begun(TopicKind::Channel, "a"),
            connects_and_takes(&mut nodes, 0, TopicKind::Channel, "a")
        );
        assert_eq!(begun, Ok(()));
        listener.confirm(TopicKind::Channel, "a");

        listener.begin(TopicKind::Channel, "b");
        let refuses = async {
            node.hears(&frame("subscribe b")).await;
            node.says(b"-NOPERM no b\r\n").await;
        };
        let (begun, ()) = tokio::join!(listener.begun(TopicKind::Channel, "b"), refuses);
        assert_eq!(begun, Err(Bytes::from("NOPERM no b")));
        listener.subscriber.cancel(TopicKind::Channel, &[Bytes::from("b")]);
        assert_eq!(listener.subscriber.names(TopicKind::Channel), ["a"]);
        assert_eq!(listener.subscriber.size(), 1 + NAME);
        assert!(!listener.subscriber.is_forbidden());

        // By the time that it connects again, its user may not subscribe to `a` any more.
        drop(node);
        let refuses = async {
            let mut node = nodes.node(0).await;
            node.hears(&frame("subscribe a")).await;
            node.says(b"-NOPERM no a\r\n").await;
            node
        };
        tokio::join!(listener.until(|subscriber, _| subscriber.is_forbidden()), refuses);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_shard_channel_goes_where_its_slot_goes() {
    within_a_minute(async {
        let mut nodes = Scripted::new(2);
        let mut listener = Listener::of(&nodes);
        // `foo` is in slot 12182, which is the second node's.
        listener.begin(TopicKind::Shard, "foo");
        let (begun, mut second) = tokio::join!(
            listener.begun(TopicKind::Shard, "foo"),
            connects_and_takes(&mut nodes, 1, TopicKind::Shard, "foo")
        );
        assert_eq!(begun, Ok(()));
        listener.confirm(TopicKind::Shard, "foo");

        // The node drops the subscription by itself, and says where the slot has gone once it is asked.
        let moves = async {
            second.says(confirmation("sunsubscribe", "foo", 0).as_bytes()).await;
            second.hears(&frame("ssubscribe foo")).await;
            second.says(b"-MOVED 12182 127.0.0.1:7000\r\n").await;
            connects_and_takes(&mut nodes, 0, TopicKind::Shard, "foo").await
        };
        let is_at_first = |subscriber: &mut Subscriber, _: &Caller| {
            let has = |source: &Source| source.actual[TopicKind::Shard as usize].contains("foo".as_bytes());
            subscriber.sources.iter().any(|source| source.feed().node().id.ends_with("7000") && has(source))
        };
        let (mut first, ()) = tokio::join!(moves, listener.until(is_at_first));
        let message = frame("smessage foo x");
        first.says(&message).await;
        listener.caller.was_told();
        listener.until(|_, caller| caller.line.owed() >= message.len()).await;
        assert_eq!(listener.caller.was_told().into_bytes(), message);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_old_node_is_left_once_the_new_one_has_confirmed() {
    within_a_minute(async {
        let mut nodes = Scripted::new(2);
        let mut listener = Listener::of(&nodes);
        listener.begin(TopicKind::Shard, "foo");
        let (begun, mut second) = tokio::join!(
            listener.begun(TopicKind::Shard, "foo"),
            connects_and_takes(&mut nodes, 1, TopicKind::Shard, "foo")
        );
        assert_eq!(begun, Ok(()));
        listener.confirm(TopicKind::Shard, "foo");
        listener.caller.was_told();

        give_all_to_the_first(&nodes);
        let message = frame("smessage foo x");
        let moves = async {
            let mut first = nodes.node(0).await;
            first.hears(&frame("ssubscribe foo")).await;
            // It has not confirmed yet: the second is still heard.
            second.says(&message).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            first.says(confirmation("ssubscribe", "foo", 1).as_bytes()).await;
            let confirmed = tokio::time::Instant::now();
            assert_eq!(second.hears_the_end().await, b"");
            (first, confirmed.elapsed())
        };
        let moved = listener.until(|subscriber, _| subscriber.sources.len() == 1 && subscriber.handover.is_none());
        let ((_first, overlap), ()) = tokio::join!(moves, moved);
        assert!(overlap >= Duration::from_millis(100), "{overlap:?}: both are heard for a while");
        assert_eq!(listener.caller.was_told().into_bytes(), message);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nodes_that_do_not_agree_are_asked_again_after_a_pause() {
    within_a_minute(async {
        let mut nodes = Scripted::new(2);
        let mut listener = Listener::of(&nodes);
        listener.begin(TopicKind::Shard, "foo");
        let disagree = async {
            let mut second = nodes.node(1).await;
            second.hears(&frame("ssubscribe foo")).await;
            second.says(b"-MOVED 12182 127.0.0.1:7000\r\n").await;
            let mut first = nodes.node(0).await;
            first.hears(&frame("ssubscribe foo")).await;
            let since = tokio::time::Instant::now();
            first.says(b"-MOVED 12182 127.0.0.1:7001\r\n").await;
            first.hears(&frame("ssubscribe foo")).await;
            let pause = since.elapsed();
            first.says(b"-MOVED 12182 127.0.0.1:7001\r\n").await;
            takes(&mut second, TopicKind::Shard, "foo").await;
            (pause, first, second)
        };
        let (begun, (pause, ..)) = tokio::join!(listener.begun(TopicKind::Shard, "foo"), disagree);
        assert_eq!(begun, Ok(()));
        assert!(pause >= Duration::from_millis(50), "{pause:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn no_more_than_a_subscriber_may_owe_is_held_for_one_that_begins() {
    within_a_minute(async {
        let mut nodes = Scripted::new(1);
        let mut listener = Listener::of(&nodes);
        let settings = listener.caller.router.settings().clone();
        settings.pubsub.set(PubSubLimits { hard_limit: 1000, ..settings.pubsub.get() });
        listener.begin(TopicKind::Channel, "a");
        let message = frame(&format!("message a {}", "x".repeat(400)));
        let floods = async {
            let mut node = nodes.node(0).await;
            node.hears(&frame("subscribe a")).await;
            for _ in 0..3 {
                node.says(&message).await;
            }
            node
        };
        // The session sees what its client owes, and closes it.
        tokio::join!(listener.until(|_, caller| caller.line.owed() >= 3 * message.len()), floods);
    })
    .await;
}

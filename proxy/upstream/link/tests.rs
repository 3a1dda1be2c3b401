//! A link between tickets and a scripted node, with the clock paused: deadlines cost no time.

mod deadlines;

use std::{cell::RefCell, rc::Rc, time::Duration};

use super::{Audience, LARGEST_SHARED, MOST_QUEUED, PushEvent};
use crate::{
    cluster::{
        recovery::Why,
        topology::{Hint, Node, RedirectKind, Route},
    },
    protocol::slot::Slot,
    upstream::{
        dial::{Login, TrackingRequest},
        router::scripted::{Scripted, frame, within_a_minute},
        ticket::{Bounced, Envelope, Line, RequestTraits},
        transport::memory::Peer,
    },
};

/// What one session would hold.
struct Asker {
    line: Rc<Line>,
    nodes: Scripted,
}

impl Asker {
    fn new(nodes: u16) -> Asker {
        let nodes = Scripted::new(nodes);
        let router = &nodes.router;
        Asker { line: Line::new(router.tally().clone(), router.clock().clone(), 1024), nodes }
    }

    /// Sends a request to the owner of `foo`'s slot.
    fn send(&self, words: &str, repeatable: bool) {
        let frame = frame(words);
        let route = Route::Slot(Slot::of(b"foo"));
        let ticket = self.line.open(None, frame.len(), route);
        let envelope = Envelope::new(ticket, route, RequestTraits { repeatable, ..RequestTraits::default() });
        let router = &self.nodes.router;
        router.first_lane().send(router, 0, &frame, envelope);
    }

    fn write(&self, words: &str) {
        self.send(words, false);
    }

    fn read(&self, words: &str) {
        self.send(words, true);
    }

    /// The next bytes for the client.
    async fn told(&self) -> String {
        std::future::poll_fn(|cx| {
            if !self.line.nothing_to_write() {
                return std::task::Poll::Ready(());
            }
            self.line.wake_with(cx.waker());
            std::task::Poll::Pending
        })
        .await;
        self.line.write_out(|bytes| (bytes.len(), String::from_utf8_lossy(bytes).into_owned()))
    }

    /// What has come back, as soon as something has.
    async fn bounced(&self) -> Vec<Bounced> {
        std::future::poll_fn(|cx| {
            if self.line.has_bounced() {
                return std::task::Poll::Ready(());
            }
            self.line.wake_with(cx.waker());
            std::task::Poll::Pending
        })
        .await;
        self.line.take_bounced()
    }
}

async fn with(nodes: u16, test: impl AsyncFnOnce(Asker)) {
    within_a_minute(async move { test(Asker::new(nodes)).await }).await;
}

#[tokio::test(start_paused = true)]
async fn requests_go_in_one_write_and_replies_to_their_tickets() {
    with(1, async |mut asker| {
        asker.write("SET foo 1");
        asker.read("GET foo");
        let mut node = asker.nodes.node(0).await;
        node.hears(&[frame("SET foo 1"), frame("GET foo")].concat()).await;
        // In pieces: a reply ends where it ends, not where a read does.
        node.says(b"+OK\r\n$").await;
        assert_eq!(asker.told().await, "+OK\r\n");
        node.says(b"1\r\n1\r\n").await;
        assert_eq!(asker.told().await, "$1\r\n1\r\n");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_written_may_have_run_and_what_was_not_goes_again() {
    with(1, async |mut asker| {
        asker.write("SET foo 1");
        asker.read("GET foo");
        let mut node = asker.nodes.node(0).await;
        node.hears(&[frame("SET foo 1"), frame("GET foo")].concat()).await;
        asker.write("SET foo 2");
        drop(node);
        let error = asker.told().await;
        assert!(error.starts_with("-ERR proxy: connection to 127.0.0.1:7000 lost"), "{error}");
        assert!(error.ends_with("the command may have run (SLOTWAY-NODE-LOST)\r\n"), "{error}");
        let back = asker.bounced().await;
        let requests: Vec<_> = back.iter().map(|bounced| bounced.request.to_vec()).collect();
        assert_eq!(requests, [frame("GET foo"), frame("SET foo 2")]);
        assert!(back.iter().all(|bounced| matches!(bounced.why, Why::Unsent(_))));
        // A read goes again once only: what breaks the connection each time must not be sent for ever.
        assert!(!back[0].envelope.traits.repeatable);
        assert!(matches!(asker.nodes.hints.recv().await, Some(Hint::Timeout { .. })));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_redirect_comes_back_with_its_request_and_is_told_to_discovery() {
    with(2, async |mut asker| {
        asker.write("SET foo 1");
        let mut node = asker.nodes.node(1).await;
        node.hears(&frame("SET foo 1")).await;
        node.says(b"-MOVED 12182 127.0.0.1:7000\r\n").await;
        let back = asker.bounced().await;
        assert_eq!(back.len(), 1);
        assert_eq!(back[0].request, frame("SET foo 1"));
        let Why::Redirected(redirect, _) = &back[0].why else { panic!("{:?}", back[0].why) };
        assert_eq!((redirect.kind, redirect.port), (RedirectKind::Moved, 7000));
        assert!(matches!(asker.nodes.hints.recv().await, Some(Hint::Moved { .. })));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_late_reply_reaches_nobody() {
    with(1, async |mut asker| {
        asker.write("SET foo 1");
        let mut node = asker.nodes.node(0).await;
        node.hears(&frame("SET foo 1")).await;
        let error = asker.told().await;
        assert!(error.contains("127.0.0.1:7000") && error.contains("3s"), "{error}");
        asker.write("SET foo 2");
        node.hears(&frame("SET foo 2")).await;
        node.says(b"+LATE\r\n+NEW\r\n").await;
        assert_eq!(asker.told().await, "+NEW\r\n");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_left_and_everything_it_owes_is_answered() {
    with(1, async |mut asker| {
        asker.write("SET foo 1");
        let mut node = asker.nodes.node(0).await;
        node.hears(&frame("SET foo 1")).await;
        let error = asker.told().await;
        assert!(error.starts_with("-ERR proxy: "), "{error}");
        assert_eq!(String::from_utf8_lossy(&node.hears_the_end().await), "");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_refuses_connections_is_left_alone_for_a_while() {
    with(1, async |mut asker| {
        asker.nodes.stop(0);
        asker.write("SET foo 1");
        let first = asker.bounced().await;
        let Why::Unsent(error) = &first[0].why else { panic!("{:?}", first[0].why) };
        assert!(error.contains("cannot connect to 127.0.0.1:7000: connection refused"), "{error}");
        // Nobody is answered by a connection before the pause is over, though the node is back.
        asker.nodes.start(0);
        asker.write("SET foo 2");
        let second = asker.bounced().await;
        assert!(matches!(second[0].why, Why::Unsent(_)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        asker.write("SET foo 3");
        let mut node = asker.nodes.node(0).await;
        node.hears(&frame("SET foo 3")).await;
        // Replies are in the order of their requests.
        for bounced in first.into_iter().chain(second) {
            bounced.envelope.fill(b"+GAVE UP\r\n");
        }
        assert_eq!(asker.told().await, "+GAVE UP\r\n+GAVE UP\r\n");
        node.says(b"+OK\r\n").await;
        assert_eq!(asker.told().await, "+OK\r\n");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_nobody_asked_for_ends_the_connection() {
    with(1, async |mut asker| {
        asker.write("SET foo 1");
        let mut node = asker.nodes.node(0).await;
        node.hears(&frame("SET foo 1")).await;
        node.says(b"+OK\r\n+OK\r\n").await;
        assert_eq!(asker.told().await, "+OK\r\n");
        assert_eq!(node.hears_the_end().await, b"");
        // It is left alone for a moment.
        tokio::time::sleep(Duration::from_secs(1)).await;
        asker.write("SET foo 2");
        let mut node = asker.nodes.node(0).await;
        node.hears(&frame("SET foo 2")).await;
        node.says(b"+OK\r\n").await;
        assert_eq!(asker.told().await, "+OK\r\n");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_would_keep_all_others_waiting_goes_beside() {
    with(1, async |mut asker| {
        asker.read("GET foo");
        let mut shared = asker.nodes.node(0).await;
        shared.hears(&frame("GET foo")).await;
        let large = format!("SET foo {}", "x".repeat(LARGEST_SHARED));
        asker.write(&large);
        let mut beside = asker.nodes.node(0).await;
        beside.hears(&frame(&large)).await;
        asker.read("GET foo");
        shared.hears(&frame("GET foo")).await;
        shared.says(b"$1\r\n1\r\n$1\r\n2\r\n").await;
        assert_eq!(asker.told().await, "$1\r\n1\r\n");
        beside.says(b"+OK\r\n").await;
        let mut told = asker.told().await;
        while !told.ends_with("2\r\n") {
            told += &asker.told().await;
        }
        assert_eq!(told, "+OK\r\n$1\r\n2\r\n", "in the order of the requests");
        // The next one finds it open.
        asker.write(&large);
        beside.hears(&frame(&large)).await;
        beside.says(b"+OK\r\n").await;
        assert_eq!(asker.told().await, "+OK\r\n");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_nothing_more_has_only_so_much_queued() {
    with(1, async |asker| {
        let part = format!("SET foo {}", "x".repeat(LARGEST_SHARED - 100));
        for _ in 0..MOST_QUEUED / (LARGEST_SHARED - 100) + 1 {
            asker.write(&part);
        }
        let back = asker.bounced().await;
        let Why::Unsent(error) = &back[0].why else { panic!("{:?}", back[0].why) };
        assert!(error.contains("127.0.0.1:7000"), "{error}");
    })
    .await;
}

/// What an audience has heard.
#[derive(Default)]
struct Heard(RefCell<Vec<String>>);

impl Audience for Heard {
    fn hear(&self, _: &Node, event: PushEvent<'_>) {
        self.0.borrow_mut().push(match event {
            PushEvent::Opened => "opened".to_owned(),
            PushEvent::Said(frame) => String::from_utf8_lossy(frame).into_owned(),
            PushEvent::Lost(_) => "lost".to_owned(),
            PushEvent::Unreachable(_) => "unreachable".to_owned(),
        });
    }
}

impl Heard {
    /// The next thing that is heard.
    async fn next(&self) -> String {
        while self.0.borrow().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.0.borrow_mut().remove(0)
    }
}

/// The second connection, by which a node tells what changes where the first speaks RESP2.
async fn companion(nodes: &mut Scripted) -> Peer {
    let mut companion = nodes.dialled(0).await;
    companion.hears(&frame("HELLO 3")).await;
    companion.says(b"%1\r\n$2\r\nid\r\n:9\r\n").await;
    companion
}

#[tokio::test(start_paused = true)]
async fn a_client_s_own_link_connects_unasked_and_hears_what_its_node_says() {
    with(1, async |mut asker| {
        let (router, heard) = (asker.nodes.router.clone(), Rc::new(Heard::default()));
        let apart = TrackingRequest { apart: true, ..TrackingRequest::default() };
        let lane = router.private_lane(&Login::default(), apart, heard.clone());
        lane.cover(&router);
        // What changes is told on a second connection: RESP2 has no place for it.
        let mut beside = companion(&mut asker.nodes).await;
        let mut node = asker.nodes.dialled(0).await;
        node.hears(&[frame("HELLO 2"), frame("CLIENT TRACKING ON REDIRECT 9")].concat()).await;
        node.says(b"*2\r\n$2\r\nid\r\n:7\r\n+OK\r\n").await;
        assert_eq!(heard.next().await, "opened");
        beside.says(b">1\r\n+changed\r\n").await;
        assert_eq!(heard.next().await, ">1\r\n+changed\r\n");
        // Without the second connection, changes would be missed: it is as if the first were lost.
        drop(beside);
        assert_eq!(heard.next().await, "lost");
        assert_eq!(node.hears_the_end().await, b"");
        companion(&mut asker.nodes).await;
    })
    .await;
}

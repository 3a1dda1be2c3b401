//! How long a link waits: for a node that is silent, and for a client that reads slowly.

use std::sync::Arc;

use super::*;
use crate::{cluster::topology::Accepts, upstream::ticket::OWED_LIMIT};

const SECOND: Duration = Duration::from_secs(1);

/// What a pipe holds between the link and its node.
const PIPE: usize = 64 * 1024;

async fn after(seconds: f64) {
    tokio::time::sleep(SECOND.mul_f64(seconds)).await;
}

/// How long ago that was, to the second.
fn seconds(since: tokio::time::Instant) -> u64 {
    since.elapsed().as_secs_f64().round() as u64
}

impl Asker {
    /// What there is for the client, without waiting for more.
    fn told_so_far(&self) -> String {
        self.line.write_out(|bytes| (bytes.len(), String::from_utf8_lossy(bytes).into_owned()))
    }

    /// The nodes close connections that are idle for so long.
    fn nodes_close_idle_after(&self, idle: Duration) {
        let accepts = Accepts { idle: Some(idle), ..Accepts::default() };
        self.nodes.topology.send_modify(|topology| Arc::make_mut(topology).accepts = accepts);
        self.nodes.router.refresh();
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_not_late_while_replies_ahead_of_it_come() {
    with(1, async |mut asker| {
        asker.write("SET foo 1");
        asker.write("SET foo 2");
        let mut node = asker.nodes.node(0).await;
        node.hears(&[frame("SET foo 1"), frame("SET foo 2")].concat()).await;
        after(2.5).await;
        node.says(b"+FIRST\r\n").await;
        assert_eq!(asker.told().await, "+FIRST\r\n");
        after(2.5).await;
        assert_eq!(asker.told_so_far(), "", "five seconds old, but the node has spoken since");
        node.says(b"+SECOND\r\n").await;
        assert_eq!(asker.told().await, "+SECOND\r\n");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_speaks_elsewhere_is_busy_for_as_long_as_a_connection_is_believed() {
    with(1, async |mut asker| {
        asker.write("SET foo 1");
        let mut node = asker.nodes.node(0).await;
        node.hears(&frame("SET foo 1")).await;
        let router = asker.nodes.router.clone();
        let tally = router.node_tally(&router.topology().nodes[0]);
        // It goes on speaking, but on another connection.
        for _ in 0..9 {
            tally.received(1, router.clock().tick());
            after(0.5).await;
        }
        assert_eq!(asker.told_so_far(), "", "request_timeout is over, node_timeout is not");
        tally.received(1, router.clock().tick());
        after(0.6).await;
        let error = asker.told_so_far();
        assert!(error.contains("no answer from 127.0.0.1:7000"), "{error}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_a_request_in_small_pieces_is_not_left_and_one_that_takes_none_is() {
    with(1, async |mut asker| {
        let long = frame(&format!("SET foo {}", "x".repeat(6 * PIPE)));
        let route = Route::Slot(Slot::of(b"foo"));
        let ticket = asker.line.open(None, long.len(), route);
        let router = asker.nodes.router.clone();
        router.first_lane().send(&router, 0, &long, Envelope::new(ticket, route, RequestTraits::default()));
        let mut node = asker.nodes.node(0).await;
        // For twice as long as a node may be silent.
        for piece in long.chunks(PIPE).take(4) {
            after(2.5).await;
            node.hears(piece).await;
        }
        let error = asker.told().await;
        assert!(error.contains("no answer from 127.0.0.1:7000"), "its own time is over: {error}");
        // It takes nothing more: what comes yet is what the pipe holds.
        after(5.5).await;
        assert_eq!(node.hears_the_end().await.len(), PIPE);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_says_something_before_its_node_would_close_it() {
    with(1, async |mut asker| {
        asker.nodes_close_idle_after(10 * SECOND);
        asker.write("SET foo 1");
        let mut node = asker.nodes.node(0).await;
        node.hears(&frame("SET foo 1")).await;
        node.says(b"+OK\r\n").await;
        let since = tokio::time::Instant::now();
        assert_eq!(asker.told().await, "+OK\r\n");
        for times in 1..=3 {
            node.hears(&frame("PING")).await;
            assert_eq!(seconds(since), 5 * times, "at half of the time");
            node.says(b"+PONG\r\n").await;
        }
        // Its answer is nobody's.
        asker.write("SET foo 2");
        node.hears(&frame("SET foo 2")).await;
        node.says(b"+NEXT\r\n").await;
        assert_eq!(asker.told().await, "+NEXT\r\n");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_somebody_listens_to_is_asked_and_left_where_it_is_silent() {
    with(1, async |mut asker| {
        let (router, heard) = (asker.nodes.router.clone(), Rc::new(Heard::default()));
        let lane = router.private_lane(
            &Login::default(),
            TrackingRequest { apart: true, ..TrackingRequest::default() },
            heard.clone(),
        );
        lane.cover(&router);
        let _beside = companion(&mut asker.nodes).await;
        let mut node = asker.nodes.dialled(0).await;
        node.hears(&[frame("HELLO 2"), frame("CLIENT TRACKING ON REDIRECT 9")].concat()).await;
        node.says(b"*2\r\n$2\r\nid\r\n:7\r\n+OK\r\n").await;
        assert_eq!(heard.next().await, "opened");
        let since = tokio::time::Instant::now();
        node.hears(&frame("PING")).await;
        assert_eq!(seconds(since), 5);
        node.says(b"+PONG\r\n").await;
        node.hears(&frame("PING")).await;
        assert_eq!(seconds(since), 10);
        // A node that is gone would be missed by nobody else.
        assert_eq!(heard.next().await, "lost");
        assert_eq!(seconds(since), 15);
        assert_eq!(node.hears_the_end().await, b"");
    })
    .await;
}

/// A node sends a long reply to a client that reads so many bytes in each step of 20 ms. How much the client is owed at most,
/// and how long it takes.
async fn at_a_pace(asker: &Asker, node: &mut Peer, length: usize, read: impl Fn(usize) -> usize) -> (usize, Duration) {
    let (since, line) = (tokio::time::Instant::now(), asker.line.clone());
    let says = async {
        node.says(format!("${length}\r\n").as_bytes()).await;
        for piece in vec![b'x'; length].chunks(PIPE / 2) {
            node.says(piece).await;
        }
        node.says(b"\r\n").await;
    };
    let reads = async {
        let (mut all, mut most, mut steps) = (0, 0, 0);
        while all < length {
            most = most.max(line.owed());
            all += line.write_out(|bytes| (bytes.len().min(read(steps)), bytes.len().min(read(steps))));
            steps += 1;
            assert!(!line.is_broken(), "after {all} bytes");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        most
    };
    let ((), most) = tokio::join!(says, reads);
    (most, since.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_on_may_take_its_time() {
    with(1, async |mut asker| {
        asker.read("GET foo");
        let mut node = asker.nodes.node(0).await;
        node.hears(&frame("GET foo")).await;
        // So slowly at first that nothing is read of the node for longer than it may be silent: it is not listened to.
        let read = |step| if step < 500 { 100 } else { OWED_LIMIT / 20 };
        let (most, took) = at_a_pace(&asker, &mut node, 20 * OWED_LIMIT, read).await;
        assert!(took > 15 * SECOND, "{took:?}");
        assert!(most <= 4 * OWED_LIMIT + 2 * PIPE, "{most} bytes were held for it");
        asker.read("GET foo");
        node.hears(&frame("GET foo")).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_others_wait_behind_is_not_waited_for() {
    with(1, async |mut asker| {
        asker.read("GET foo");
        let other = Line::new(asker.nodes.router.tally().clone(), asker.nodes.router.clock().clone(), 10);
        let mut node = asker.nodes.node(0).await;
        node.hears(&frame("GET foo")).await;
        let words = frame("GET bar");
        let ticket = other.open(None, words.len(), Route::Any);
        let router = asker.nodes.router.clone();
        router.first_lane().send(&router, 0, &words, Envelope::new(ticket, Route::Any, RequestTraits::default()));
        node.hears(&words).await;
        let (most, took) = at_a_pace(&asker, &mut node, 20 * OWED_LIMIT, |_| OWED_LIMIT / 20).await;
        assert!(took > 6 * SECOND && most > 10 * OWED_LIMIT, "{most} bytes in {took:?}");
    })
    .await;
}

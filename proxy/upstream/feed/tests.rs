//! A feed from a scripted node, with the clock paused.

use std::{future::poll_fn, time::Duration};

use super::{Feed, FeedEvent};
use crate::upstream::{
    dial::Login,
    router::scripted::{Scripted, frame},
    transport::memory::Peer,
};

fn open(nodes: &Scripted) -> Feed {
    let router = &nodes.router;
    let node = router.topology().nodes[0].clone();
    let tally = router.node_tally(&node);
    Feed::open(node, Login::default(), router.connector(), tally)
}

/// Lets the feed connect; the node's end.
async fn greet(nodes: &mut Scripted, feed: &mut Feed) -> Peer {
    let buffer = nodes.router.buffer().clone();
    let (news, peer) = tokio::join!(poll_fn(|cx| feed.poll(cx, &buffer)), nodes.node(0));
    assert!(matches!(news, FeedEvent::Opened), "{news:?}");
    peer
}

async fn next(feed: &mut Feed, nodes: &Scripted) -> FeedEvent {
    let buffer = nodes.router.buffer();
    poll_fn(|cx| feed.poll(cx, buffer)).await
}

#[tokio::test(start_paused = true)]
async fn what_a_node_says_comes_frame_by_frame_and_it_connects_again() {
    let mut nodes = Scripted::new(1);
    let mut feed = open(&nodes);
    let mut peer = greet(&mut nodes, &mut feed).await;
    assert!(feed.is_open());
    feed.send(&frame("SUBSCRIBE a"));
    peer.says(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n").await;
    let FeedEvent::Frame(confirmed) = next(&mut feed, &nodes).await else { panic!("a frame") };
    assert_eq!(confirmed, "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    peer.hears(&frame("SUBSCRIBE a")).await;
    drop(peer);
    assert!(matches!(next(&mut feed, &nodes).await, FeedEvent::Lost(_)));
    assert!(!feed.is_open());
    greet(&mut nodes, &mut feed).await;
    assert!(feed.is_open(), "by itself");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_be_had_is_tried_again_after_longer_and_longer_pauses() {
    let mut nodes = Scripted::new(1);
    nodes.stop(0);
    let mut feed = open(&nodes);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let since = tokio::time::Instant::now();
        assert!(matches!(next(&mut feed, &nodes).await, FeedEvent::Unreachable(_)));
        pauses.push(since.elapsed());
    }
    assert_eq!(pauses[0], Duration::ZERO);
    assert!(pauses[1..].is_sorted() && *pauses.last().unwrap() >= Duration::from_secs(1), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_resp_ends_the_connection() {
    let mut nodes = Scripted::new(1);
    let mut feed = open(&nodes);
    let mut peer = greet(&mut nodes, &mut feed).await;
    peer.says(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let FeedEvent::Lost(why) = next(&mut feed, &nodes).await else { panic!("lost") };
    assert_eq!(why, "it does not speak the Redis protocol");
}

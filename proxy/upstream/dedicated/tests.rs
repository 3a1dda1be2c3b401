//! Connections that one session holds alone, to a scripted node, with the clock paused.

use std::{io, sync::Arc, time::Duration};

use super::Dedicated;
use crate::{
    cluster::topology::Node,
    upstream::{
        router::scripted::{Scripted, frame, within_a_minute},
        ticket::Line,
        transport::memory::Peer,
    },
};

const PATIENCE: Duration = Duration::from_secs(3);

async fn with(test: impl AsyncFnOnce(Scripted)) {
    within_a_minute(async move { test(Scripted::new(1)).await }).await;
}

fn node(nodes: &Scripted) -> Arc<Node> {
    nodes.router.topology().nodes[0].clone()
}

/// A connection, and the node's end of it.
async fn take(nodes: &mut Scripted) -> (Dedicated, Peer) {
    let (lane, node) = (nodes.router.first_lane(), node(nodes));
    let (taken, peer) = tokio::join!(lane.pool().take(&node), nodes.node(0));
    (taken.expect("a connection"), peer)
}

#[tokio::test(start_paused = true)]
async fn replies_come_in_order_and_messages_are_none() {
    with(async |mut nodes| {
        let (mut connection, mut node) = take(&mut nodes).await;
        let asked = [frame("GET a"), frame("GET b")].concat();
        let answers = async {
            node.hears(&asked).await;
            node.says(b">2\r\n+a\r\n+b\r\n$1\r\n1\r\n$-1\r\n").await;
        };
        let (replies, ()) = tokio::join!(connection.exchange(&asked, 2, PATIENCE), answers);
        assert_eq!(replies.unwrap(), [&b"$1\r\n1\r\n"[..], b"$-1\r\n"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_of_any_size_comes_in_pieces() {
    with(async |mut nodes| {
        let (mut connection, mut node) = take(&mut nodes).await;
        connection.send(&frame("GET a")).await.unwrap().answered();
        node.says(b"$10\r\n0123").await;
        assert_eq!(connection.piece().await.unwrap(), (b"$10\r\n0123".as_slice().into(), false));
        node.says(b"456789\r\n+NEXT\r\n").await;
        assert_eq!(connection.piece().await.unwrap(), (b"456789\r\n".as_slice().into(), true));
        assert_eq!(connection.reply().await.unwrap(), "+NEXT\r\n");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_silent_is_left_in_time() {
    with(async |mut nodes| {
        let (mut connection, _node) = take(&mut nodes).await;
        let start = tokio::time::Instant::now();
        let error = connection.exchange(&frame("GET a"), 1, PATIENCE).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (io::ErrorKind::TimedOut, PATIENCE));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_drops_a_connection_ends_what_goes_on_there() {
    with(async |mut nodes| {
        let (mut connection, mut node) = take(&mut nodes).await;
        drop(connection.send(&frame("BLPOP a 0")).await.unwrap());
        node.hears(&frame("BLPOP a 0")).await;
        drop(connection);
        assert_eq!(node.hears_the_end().await, b"");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_given_back_serves_the_next_unless_it_has_spoken() {
    with(async |mut nodes| {
        let (connection, mut peer) = take(&mut nodes).await;
        connection.give_back();
        let (lane, node) = (nodes.router.first_lane(), node(&nodes));
        let mut again = lane.pool().take(&node).await.unwrap();
        again.send(&frame("GET a")).await.unwrap().answered();
        peer.hears(&frame("GET a")).await;
        peer.says(b"+OK\r\n").await;
        assert_eq!(again.reply().await.unwrap(), "+OK\r\n");
        again.give_back();
        // Nobody has asked for this: who got the connection now would take it for a reply.
        peer.says(b"+STRAY\r\n").await;
        tokio::task::yield_now().await;
        drop(lane.pool().take(&node).await);
        assert_eq!(peer.hears_the_end().await, b"");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_on_a_connection_is_in_doubt_for_its_client() {
    with(async |mut nodes| {
        let line = Line::new(nodes.router.tally().clone(), nodes.router.clock().clone(), 10);
        let (connection, mut node) = take(&mut nodes).await;
        let mut connection = connection.on_behalf_of(&line.doubts);
        let asked = frame("INCR a");
        let answers = async {
            node.hears(&asked).await;
            node.says(b":1\r\n").await;
        };
        let (replies, ()) = tokio::join!(connection.exchange(&asked, 1, PATIENCE), answers);
        assert_eq!(replies.unwrap(), [":1\r\n"]);
        assert!(line.doubts.is_empty());
        drop(connection.send(&asked).await.unwrap());
        drop(connection);
        assert!(!line.doubts.is_empty(), "it may still run");
    })
    .await;
}

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

/// Idle connections, and when they are closed.
mod pool {
    use super::*;
    use crate::cluster::topology::Accepts;

    /// The next who need a connection find two that were made ahead.
    async fn spares(nodes: &mut Scripted) -> [Peer; 2] {
        [spare(nodes).await, spare(nodes).await]
    }

    async fn spare(nodes: &mut Scripted) -> Peer {
        let peer = nodes.node(0).await;
        // Once everybody has had a turn it is idle.
        tokio::time::sleep(Duration::from_millis(1)).await;
        peer
    }

    /// Takes one that is there already.
    async fn take_idle(nodes: &Scripted) -> Dedicated {
        nodes.router.first_lane().pool().take(&node(nodes)).await.expect("an idle connection")
    }

    async fn seconds(count: u64) {
        tokio::time::sleep(Duration::from_secs(count)).await;
    }

    /// Whether the other end has closed the connection.
    async fn is_closed(mut peer: Peer) -> bool {
        let mut byte = [0];
        let read = tokio::io::AsyncReadExt::read(&mut peer.0, &mut byte);
        tokio::time::timeout(Duration::ZERO, read).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn two_are_made_ahead_for_the_next() {
        with(async |mut nodes| {
            let (_first, _peer) = take(&mut nodes).await;
            let _spares = spares(&mut nodes).await;
            nodes.stop(0);
            let (_second, _third) = (take_idle(&nodes).await, take_idle(&nodes).await);
            assert!(nodes.router.first_lane().pool().take(&node(&nodes)).await.is_err(), "there were two");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_needs_is_closed_but_for_the_spare_ones() {
        with(async |mut nodes| {
            let (first, first_peer) = take(&mut nodes).await;
            let [one, other] = spares(&mut nodes).await;
            let second = take_idle(&nodes).await;
            let another = spare(&mut nodes).await;
            first.give_back();
            second.give_back();
            seconds(14).await;
            // Of four none has been idle for long.
            let third = take_idle(&nodes).await;
            third.give_back();
            seconds(6).await;
            let closed =
                [is_closed(first_peer).await, is_closed(one).await, is_closed(other).await, is_closed(another).await];
            // The last to be used was the spare one that the second was.
            assert_eq!(closed, [false, true, false, true]);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_its_node_may_be_about_to_close_is_not_taken() {
        with(async |mut nodes| {
            let accepts = Accepts { idle: Some(Duration::from_secs(10)), ..Accepts::default() };
            nodes.topology.send_modify(|topology| Arc::make_mut(topology).accepts = accepts);
            nodes.router.refresh();
            let (_first, _peer) = take(&mut nodes).await;
            let [one, other] = spares(&mut nodes).await;
            seconds(4).await;
            drop(take_idle(&nodes).await);
            assert!(is_closed(other).await, "who took it has dropped it");
            let third = spare(&mut nodes).await;
            seconds(6).await;
            let (_second, _peer) = take(&mut nodes).await;
            assert!(is_closed(one).await && is_closed(third).await);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_leads_to_no_node_any_more_is_closed() {
        with(async |mut nodes| {
            let (_first, _peer) = take(&mut nodes).await;
            let spares = spares(&mut nodes).await;
            let pool = nodes.router.first_lane().pool().clone();
            let mut topology = (**nodes.router.topology()).clone();
            pool.follow(&topology);
            drop((take_idle(&nodes).await, nodes.node(0).await));
            topology.nodes.clear();
            pool.follow(&topology);
            for peer in spares {
                assert!(is_closed(peer).await);
            }
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn idle_ones_are_closed_where_others_need_their_files() {
        with(async |mut nodes| {
            let (first, first_peer) = take(&mut nodes).await;
            let spares = spares(&mut nodes).await;
            let descriptors = nodes.router.connector().descriptors.clone();
            let mut all = Vec::new();
            let mut take_all = || {
                while descriptors.are_plenty() {
                    all.extend(descriptors.try_take());
                }
            };
            take_all();
            tokio::task::yield_now().await;
            for peer in spares {
                assert!(is_closed(peer).await);
            }
            // Nor is another kept, or made ahead.
            take_all();
            first.give_back();
            assert!(is_closed(first_peer).await);
            let (_second, _peer) = take(&mut nodes).await;
            let dialled = tokio::time::timeout(Duration::from_secs(5), nodes.dialled(0)).await;
            assert!(dialled.is_err(), "one is made ahead");
        })
        .await;
    }
}

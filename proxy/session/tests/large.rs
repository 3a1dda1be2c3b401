//! Large replies: on connections of the client's own, in pieces, as fast as the client reads.

use std::time::Instant;

use super::*;
use crate::{
    protocol::slot::Slot,
    upstream::{sizes::LARGE_REPLY, ticket::OWED_LIMIT},
};

/// Replies to these have been large of late.
fn are_large(nodes: &Scripted, requests: &[&str]) {
    for words in requests {
        let key = words.split(' ').next_back().unwrap();
        let large = nodes.router.large();
        large.note_length(Some(Slot::of(key.as_bytes())), &frame(words), LARGE_REPLY, Instant::now());
    }
}

fn bulk(byte: u8, length: usize) -> Vec<u8> {
    [format!("${length}\r\n").as_bytes(), &vec![byte; length], b"\r\n"].concat()
}

#[tokio::test(start_paused = true)]
async fn a_large_reply_comes_apart_and_in_pieces_while_others_go_on() {
    with(1, async |mut nodes, mut client| {
        let mut other = Client::connect(&nodes);
        other.asks("GET bar").await;
        let mut shared = nodes.node(0).await;
        shared.hears(&frame("GET bar")).await;
        shared.says(b"$-1\r\n").await;
        other.is_told("$-1\r\n").await;

        are_large(&nodes, &["GET foo"]);
        client.asks("GET foo").await;
        let mut own = nodes.node(0).await;
        own.hears(&frame("GET foo")).await;
        let reply = bulk(b'x', 2 * LARGE_REPLY);
        let (front, rest) = reply.split_at(1000);
        own.says(front).await;
        client.stream.hears(front).await;
        // Its end has not come, and nobody waits behind it.
        other.asks("GET bar").await;
        shared.hears(&frame("GET bar")).await;
        shared.says(b"$-1\r\n").await;
        other.is_told("$-1\r\n").await;
        tokio::join!(own.says(rest), client.stream.hears(rest));
        client.asks("PING").await;
        client.is_told("+PONG\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_takes_its_large_reply_with_it() {
    with(1, async |mut nodes, mut client| {
        are_large(&nodes, &["GET foo"]);
        client.asks("GET foo").await;
        let mut own = nodes.node(0).await;
        own.hears(&frame("GET foo")).await;
        let front = &bulk(b'x', 2 * LARGE_REPLY)[..1000];
        own.says(front).await;
        client.stream.hears(front).await;
        drop(client.stream);
        own.hears_the_end().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_large_reply_that_breaks_off_takes_the_client_with_it() {
    with(1, async |mut nodes, mut client| {
        are_large(&nodes, &["GET foo"]);
        client.asks("GET foo").await;
        let mut own = nodes.node(0).await;
        own.hears(&frame("GET foo")).await;
        let front = &bulk(b'x', 2 * LARGE_REPLY)[..1000];
        own.says(front).await;
        client.stream.hears(front).await;
        drop(own);
        // An error behind it would be taken for its end.
        assert_eq!(client.stream.hears_the_end().await, b"");
        assert_eq!(client.session.await.unwrap(), Disconnect::NodeLost);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_large_reply_that_has_not_begun_is_asked_for_again_elsewhere() {
    with(2, async |mut nodes, mut client| {
        are_large(&nodes, &["GET foo"]);
        client.asks("GET foo").await;
        let mut second = nodes.node(1).await;
        second.hears(&frame("GET foo")).await;
        second.says(b"-ASK 12182 127.0.0.1:7000\r\n").await;
        let mut first = nodes.node(0).await;
        first.hears(&[frame("ASKING"), frame("GET foo")].concat()).await;
        first.says(b"+OK\r\n$1\r\n1\r\n").await;
        client.is_told("$1\r\n1\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn elements_of_large_parts_pass_through_in_the_order_of_the_keys() {
    with(2, async |mut nodes, mut client| {
        are_large(&nodes, &["MGET foo", "MGET bar"]);
        client.asks("MGET foo bar {foo}2").await;
        let (mut first, mut second) = (nodes.node(0).await, nodes.node(1).await);
        first.hears(&frame("MGET bar")).await;
        second.hears(&frame("MGET foo {foo}2")).await;
        let long = bulk(b'1', 40_000);
        second.says(b"*2\r\n").await;
        first.says(b"*1\r\n$-1\r\n").await;
        second.says(&long).await;
        client.stream.hears(&[b"*3\r\n", &*long, b"$-1\r\n"].concat()).await;
        second.says(b"$1\r\n3\r\n").await;
        client.is_told("$1\r\n3\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_error_of_one_part_is_the_reply_as_long_as_nothing_was_passed_on() {
    with(2, async |mut nodes, mut client| {
        are_large(&nodes, &["MGET foo", "MGET bar"]);
        client.asks("MGET foo bar").await;
        let (mut first, mut second) = (nodes.node(0).await, nodes.node(1).await);
        first.hears(&frame("MGET bar")).await;
        first.says(b"-NOPERM No permissions to access a key\r\n").await;
        second.hears(&frame("MGET foo")).await;
        second.says(b"*1\r\n$-1\r\n").await;
        client.is_told("-NOPERM No permissions to access a key\r\n").await;
        client.asks("PING").await;
        client.is_told("+PONG\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_cut_short_takes_the_client_with_it() {
    with(2, async |mut nodes, mut client| {
        are_large(&nodes, &["MGET foo", "MGET bar"]);
        client.asks("MGET foo bar").await;
        let (mut first, mut second) = (nodes.node(0).await, nodes.node(1).await);
        second.hears(&frame("MGET foo")).await;
        second.says(b"*1\r\n$1\r\n1\r\n").await;
        first.hears(&frame("MGET bar")).await;
        first.says(b"*1\r\n$10\r\n012").await;
        client.is_told("*2\r\n$1\r\n1\r\n$10\r\n012").await;
        drop(first);
        assert_eq!(client.stream.hears_the_end().await, b"");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn replies_that_have_become_small_take_the_shared_connection_again() {
    with(1, async |mut nodes, mut client| {
        are_large(&nodes, &["GET foo"]);
        client.asks("GET foo").await;
        let mut own = nodes.node(0).await;
        own.hears(&frame("GET foo")).await;
        own.says(b"$1\r\n1\r\n").await;
        client.is_told("$1\r\n1\r\n").await;
        client.asks("GET foo").await;
        // The other is made ahead for the next who needs one of its own.
        let [mut one, mut other] = [nodes.node(0).await, nodes.node(0).await];
        let heard = tokio::select! {
            heard = own.request() => panic!("by its own connection: {}", heard.escape_ascii()),
            heard = one.request() => heard,
            heard = other.request() => heard,
        };
        assert_eq!(heard, frame("GET foo"));
        assert!(!nodes.router.large().knows(Slot::of(b"foo"), b"GET", b"foo"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_whose_replies_are_large_goes_apart_and_passes_through() {
    with(1, async |mut nodes, mut client| {
        client.asks("GET bar").await;
        let mut shared = nodes.node(0).await;
        shared.hears(&frame("GET bar")).await;
        shared.says(b"$-1\r\n").await;
        client.is_told("$-1\r\n").await;
        nodes.router.large().note_transaction(Slot::of(b"foo"), Instant::now());
        let batch = [frame("MULTI"), frame("GET foo"), frame("EXEC")].concat();
        client.stream.says(&batch).await;
        let mut own = nodes.node(0).await;
        own.hears(&batch).await;
        let reply = [&b"*1\r\n"[..], &bulk(b'x', LARGE_REPLY)].concat();
        let (front, rest) = reply.split_at(40_000);
        own.says(&[b"+OK\r\n+QUEUED\r\n", front].concat()).await;
        client.is_told("+OK\r\n+QUEUED\r\n").await;
        client.stream.hears(front).await;
        tokio::join!(own.says(rest), client.stream.hears(rest));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn of_many_whose_replies_may_be_large_few_are_at_a_node_and_all_are_served() {
    with(1, async |mut nodes, first| {
        // Nothing is known of their replies.
        let mut clients = vec![first];
        clients.extend((0..9).map(|_| Client::connect(&nodes)));
        for client in &mut clients {
            client.asks("GET foo").await;
        }
        let mut node = nodes.node(0).await;
        node.hears(&frame("GET foo").repeat(4)).await;
        let more = tokio::time::timeout(Duration::from_millis(500), node.request()).await;
        assert!(more.is_err(), "four are enough");
        // Each takes long, all of them together much longer than one request may.
        for number in 0..10 {
            tokio::time::sleep(Duration::from_millis(900)).await;
            node.says(format!(":{number}\r\n").as_bytes()).await;
        }
        let mut all = Vec::new();
        for client in &mut clients {
            all.push(client.line().await);
        }
        all.sort();
        assert_eq!(all, (0..10).map(|number| format!(":{number}\r\n")).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn parts_that_turn_out_to_be_too_large_to_be_put_together_are_asked_again_one_by_one() {
    with(2, async |mut nodes, mut client| {
        client.asks("MGET foo bar").await;
        let (mut first, mut second) = (nodes.node(0).await, nodes.node(1).await);
        first.hears(&frame("MGET bar")).await;
        second.hears(&frame("MGET foo")).await;
        first.says(b"*1\r\n$3\r\nbar\r\n").await;
        let large = [&b"*1\r\n"[..], &bulk(b'f', OWED_LIMIT)].concat();
        let goes_on = async {
            second.says(&large).await;
            second
        };
        let again = async {
            let (mut own_second, mut own_first) = (nodes.node(1).await, nodes.node(0).await);
            own_second.hears(&frame("MGET foo")).await;
            own_first.hears(&frame("MGET bar")).await;
            own_first.says(b"*1\r\n$3\r\nbar\r\n").await;
            own_second.says(&large).await;
            (own_first, own_second)
        };
        let expected = [&b"*2\r\n"[..], &bulk(b'f', OWED_LIMIT), b"$3\r\nbar\r\n"].concat();
        tokio::join!(goes_on, again, client.stream.hears(&expected));
    })
    .await;
}

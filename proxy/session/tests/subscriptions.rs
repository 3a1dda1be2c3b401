//! Subscriptions while the node changes that publishing goes through, and while it is lost.

use std::sync::Arc;

use super::*;
use crate::cluster::topology::Topology;

fn confirmed() -> String {
    "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n".to_owned()
}

fn message(text: &str) -> String {
    format!("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n${}\r\n{text}\r\n", text.len())
}

/// A node subscribes to `news`.
async fn subscribes(node: &mut Peer) {
    node.hears(&frame("subscribe news")).await;
    node.says(confirmed().as_bytes()).await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_moves_with_publishing_and_each_message_comes_once() {
    with(2, async |mut nodes, mut client| {
        client.asks("SUBSCRIBE news").await;
        let mut first = nodes.node(0).await;
        subscribes(&mut first).await;
        client.is_told(&confirmed()).await;
        // All slots go to the second node: from now on all publishing goes through it.
        let second = nodes.router.topology().nodes[1].clone();
        let mut topology = Topology::unknown("").with_layout(vec![second], Box::new([0; 16384]));
        topology.epoch = 2;
        nodes.topology.send_replace(Arc::new(topology));
        let mut second = nodes.node(1).await;
        second.hears(&frame("subscribe news")).await;
        // As long as the second has not confirmed, the first is heard.
        first.says(message("a").as_bytes()).await;
        client.is_told(&message("a")).await;
        second.says(confirmed().as_bytes()).await;
        // Both bring what is published now, each in its own time.
        second.says([message("a"), message("b")].concat().as_bytes()).await;
        client.is_told(&message("b")).await;
        first.says([message("b"), message("c")].concat().as_bytes()).await;
        client.is_told(&message("c")).await;
        second.says([message("c"), message("d")].concat().as_bytes()).await;
        client.is_told(&message("d")).await;
        first.says(message("d").as_bytes()).await;
        assert_eq!(first.hears_the_end().await, b"");
        // The same text, published again, is another message.
        tokio::time::sleep(Duration::from_secs(1)).await;
        second.says(message("d").as_bytes()).await;
        client.is_told(&message("d")).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_with_a_connection_is_subscribed_again_and_not_confirmed_twice() {
    with(1, async |mut nodes, mut client| {
        client.asks("SUBSCRIBE news").await;
        let mut node = nodes.node(0).await;
        subscribes(&mut node).await;
        client.is_told(&confirmed()).await;
        drop(node);
        let mut node = nodes.node(0).await;
        subscribes(&mut node).await;
        node.says(message("a").as_bytes()).await;
        client.is_told(&message("a")).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_shard_channel_is_subscribed_where_its_slot_is_said_to_be() {
    with(2, async |mut nodes, mut client| {
        // `foo` is in slot 12182, of the second node as far as is known.
        client.asks("SSUBSCRIBE foo").await;
        let mut second = nodes.node(1).await;
        second.hears(&frame("ssubscribe foo")).await;
        second.says(b"-MOVED 12182 127.0.0.1:7000\r\n").await;
        let mut first = nodes.node(0).await;
        first.hears(&frame("ssubscribe foo")).await;
        let confirmed = "*3\r\n$10\r\nssubscribe\r\n$3\r\nfoo\r\n:1\r\n";
        first.says(confirmed.as_bytes()).await;
        client.is_told(confirmed).await;
    })
    .await;
}

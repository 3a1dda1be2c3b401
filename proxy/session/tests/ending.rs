//! How a session ends, and what is answered until then.

use super::*;
use crate::{clients::Order, protocol::says};

#[tokio::test(start_paused = true)]
async fn what_the_proxy_answers_itself_needs_no_node() {
    with(1, async |mut nodes, mut client| {
        nodes.stop(0);
        client.stream.says(&["PING", "ECHO hello", "CLUSTER KEYSLOT foo", "QUIT", "PING"].map(frame).concat()).await;
        assert_eq!(client.stream.hears_the_end().await, b"+PONG\r\n$5\r\nhello\r\n:12182\r\n+OK\r\n");
        assert_eq!(client.session.await.unwrap(), Disconnect::Quit);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_ahead_while_a_command_waits_is_answered_behind_it() {
    with(1, async |mut nodes, mut client| {
        client.asks("BLPOP foo 0").await;
        let mut node = nodes.node(0).await;
        node.hears(&frame("BLPOP foo 0")).await;
        client.asks("PING").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        node.says(b"*2\r\n$3\r\nfoo\r\n$1\r\n1\r\n").await;
        client.is_told("*2\r\n$3\r\nfoo\r\n$1\r\n1\r\n+PONG\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_is_to_go_is_answered_first() {
    with(1, async |mut nodes, mut client| {
        client.asks("GET foo").await;
        let mut node = nodes.node(0).await;
        node.hears(&frame("GET foo")).await;
        nodes.router.clients().all()[0].tell(Order::Drain);
        tokio::time::sleep(Duration::from_millis(100)).await;
        node.says(b"$-1\r\n").await;
        assert_eq!(client.stream.hears_the_end().await, b"$-1\r\n");
        assert_eq!(client.session.await.unwrap(), Disconnect::Drain);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_costs_too_much_reads_why_it_has_to_go() {
    with(1, async |nodes, mut client| {
        client.asks("PING").await;
        client.is_told("+PONG\r\n").await;
        nodes.router.clients().all()[0].tell(Order::Evict);
        client.is_told(&format!("-{}\r\n", says::EVICTED)).await;
        client.stream.hears_the_end().await;
        assert_eq!(client.session.await.unwrap(), Disconnect::OutputLimit);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_killed_is_answered_no_more() {
    with(1, async |mut nodes, mut client| {
        client.asks("GET foo").await;
        let mut node = nodes.node(0).await;
        node.hears(&frame("GET foo")).await;
        nodes.router.clients().all()[0].tell(Order::Leave);
        assert_eq!(client.stream.hears_the_end().await, b"");
        assert_eq!(client.session.await.unwrap(), Disconnect::Killed);
    })
    .await;
}

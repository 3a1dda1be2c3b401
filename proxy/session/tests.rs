//! A session between a client and scripted nodes, with the clock paused: deadlines and back-off cost no time.

mod ending;
mod large;
mod scripts;
mod subscriptions;
mod transactions;

use std::{sync::Arc, time::Duration};

use tokio::task::{JoinHandle, spawn_local};

use super::Session;
use crate::{
    metrics::Disconnect,
    protocol::endpoint::Endpoint,
    upstream::{
        router::scripted::{Scripted, frame, within_a_minute},
        transport::memory::Peer,
    },
};

/// A client, and the end of its session.
struct Client {
    stream: Peer,
    session: JoinHandle<Disconnect>,
}

impl Client {
    fn connect(nodes: &Scripted) -> Client {
        let (here, stream) = Peer::pair();
        let end = Endpoint::Tcp("127.0.0.1:1".parse().unwrap());
        let client = nodes.router.clients().join(end.clone(), end, Arc::default());
        Client { stream, session: spawn_local(Session::new(nodes.router.clone(), here, client).run()) }
    }

    async fn asks(&mut self, words: &str) {
        self.stream.says(&frame(words)).await;
    }

    async fn is_told(&mut self, reply: &str) {
        self.stream.hears(reply.as_bytes()).await;
    }

    /// The next line.
    async fn line(&mut self) -> String {
        let mut line = String::new();
        while !line.ends_with("\r\n") {
            let mut byte = [0];
            tokio::io::AsyncReadExt::read_exact(&mut self.stream.0, &mut byte).await.unwrap();
            line.push(byte[0] as char);
        }
        line
    }
}

async fn with(nodes: u16, test: impl AsyncFnOnce(Scripted, Client)) {
    within_a_minute(async move {
        let nodes = Scripted::new(nodes);
        let client = Client::connect(&nodes);
        test(nodes, client).await;
    })
    .await;
}

// `foo` is in slot 12182, of the second of two nodes; `bar` in 5061, of the first.

#[tokio::test(start_paused = true)]
async fn a_pipeline_goes_to_its_nodes_and_comes_back_in_order() {
    with(2, async |mut nodes, mut client| {
        client.stream.says(&[frame("GET foo"), frame("PING"), frame("GET bar")].concat()).await;
        let (mut first, mut second) = (nodes.node(0).await, nodes.node(1).await);
        first.hears(&frame("GET bar")).await;
        first.says(b"$1\r\nb\r\n").await;
        second.hears(&frame("GET foo")).await;
        second.says(b"$1\r\nf\r\n").await;
        client.is_told("$1\r\nf\r\n+PONG\r\n$1\r\nb\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn moved_and_ask_are_absorbed() {
    with(2, async |mut nodes, mut client| {
        client.asks("INCR foo").await;
        let mut second = nodes.node(1).await;
        second.hears(&frame("INCR foo")).await;
        second.says(b"-MOVED 12182 127.0.0.1:7000\r\n").await;
        let mut first = nodes.node(0).await;
        first.hears(&frame("INCR foo")).await;
        first.says(b"-ASK 12182 127.0.0.1:7001\r\n").await;
        second.hears(&[frame("ASKING"), frame("INCR foo")].concat()).await;
        second.says(b"+OK\r\n:1\r\n").await;
        client.is_told(":1\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_overtakes_what_goes_again() {
    with(2, async |mut nodes, mut client| {
        client.asks("SET foo 1").await;
        let mut node = nodes.node(1).await;
        node.hears(&frame("SET foo 1")).await;
        node.says(b"-LOADING Redis is loading the dataset in memory\r\n").await;
        // It comes while the first waits for its next try.
        tokio::task::yield_now().await;
        client.asks("SET foo 2").await;
        node.hears(&frame("SET foo 1")).await;
        node.says(b"+FIRST\r\n").await;
        node.hears(&frame("SET foo 2")).await;
        node.says(b"+SECOND\r\n").await;
        client.is_told("+FIRST\r\n+SECOND\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_split_command_is_put_together_in_the_order_of_its_keys() {
    with(2, async |mut nodes, mut client| {
        client.asks("MGET foo bar foo").await;
        let (mut first, mut second) = (nodes.node(0).await, nodes.node(1).await);
        first.hears(&frame("MGET bar")).await;
        second.hears(&frame("MGET foo foo")).await;
        second.says(b"*2\r\n$1\r\n1\r\n$1\r\n3\r\n").await;
        first.says(b"*1\r\n$-1\r\n").await;
        client.is_told("*3\r\n$1\r\n1\r\n$-1\r\n$1\r\n3\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_client_s_request_goes_in_the_midst_of_a_long_one() {
    with(2, async |mut nodes, mut client| {
        let mut other = Client::connect(&nodes);
        let names: String = (0..40_000).map(|number| format!(" name:{number}")).collect();
        client.asks(&format!("MGET{names}")).await;
        other.asks("GET foo").await;
        let mut node = nodes.node(1).await;
        while node.request().await != frame("GET foo") {}
        // The rest of the long one comes behind it.
        let request = node.request().await;
        assert!(request.windows(4).any(|bytes| bytes == b"MGET"), "{request:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_one_write() {
    with(1, async |mut nodes, mut client| {
        client.stream.says(&[frame("MULTI"), frame("INCR foo"), frame("EXEC")].concat()).await;
        client.is_told("+OK\r\n+QUEUED\r\n").await;
        let mut node = nodes.node(0).await;
        node.hears(&[frame("MULTI"), frame("INCR foo"), frame("EXEC")].concat()).await;
        node.says(b"+OK\r\n+QUEUED\r\n*1\r\n:1\r\n").await;
        client.is_told("*1\r\n:1\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_no_node_answers_ends_in_an_error_that_names_the_node() {
    with(1, async |mut nodes, mut client| {
        client.asks("SET foo 1").await;
        let mut node = nodes.node(0).await;
        node.hears(&frame("SET foo 1")).await;
        let error = client.line().await;
        assert!(error.starts_with("-ERR proxy: ") && error.contains("127.0.0.1:7000"), "{error}");
        // A write is never sent twice: all that follows is the next one.
        client.asks("PING").await;
        client.is_told("+PONG\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_in_time_is_waited_for() {
    with(1, async |mut nodes, mut client| {
        nodes.stop(0);
        client.asks("SET foo 1").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        nodes.start(0);
        let mut node = nodes.node(0).await;
        node.hears(&frame("SET foo 1")).await;
        node.says(b"+OK\r\n").await;
        client.is_told("+OK\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stays_away_is_named_once_its_time_is_over() {
    with(1, async |mut nodes, mut client| {
        nodes.stop(0);
        client.asks("SET foo 1").await;
        let error = client.line().await;
        assert_eq!(
            error,
            "-ERR proxy: cannot connect to 127.0.0.1:7000: connection refused (SLOTWAY-NODE-UNREACHABLE)\r\n"
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_it_is_blocked_takes_its_connection_with_it() {
    with(1, async |mut nodes, mut client| {
        client.asks("BLPOP foo 0").await;
        let mut node = nodes.node(0).await;
        node.hears(&frame("BLPOP foo 0")).await;
        drop(client.stream);
        assert_eq!(node.hears_the_end().await, b"");
        assert_eq!(client.session.await.unwrap(), Disconnect::Eof);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_request_end_the_session() {
    with(1, async |_, mut client| {
        client.stream.says(b"*1\r\n$x\r\n").await;
        client.is_told("-ERR Protocol error: invalid bulk length\r\n").await;
        assert_eq!(client.stream.hears_the_end().await, b"");
        assert_eq!(client.session.await.unwrap(), Disconnect::Protocol);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_closed_its_side_is_still_answered() {
    with(1, async |mut nodes, mut client| {
        client.asks("GET foo").await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.stream.0).await.unwrap();
        let mut node = nodes.node(0).await;
        node.hears(&frame("GET foo")).await;
        node.says(b"$-1\r\n").await;
        assert_eq!(client.stream.hears_the_end().await, b"$-1\r\n");
        assert_eq!(client.session.await.unwrap(), Disconnect::Eof);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_part_that_goes_again_does_not_wait_for_one_whose_node_is_lost() {
    with(2, async |mut nodes, mut client| {
        nodes.stop(0);
        client.asks("SCRIPT LOAD x").await;
        let mut second = nodes.node(1).await;
        second.hears(&frame("SCRIPT LOAD x")).await;
        // By now it is known that the first cannot be reached; the other can do without it, as soon as it answers.
        tokio::time::sleep(Duration::from_millis(100)).await;
        second.says(b"-LOADING Redis is loading the dataset in memory\r\n").await;
        second.hears(&frame("SCRIPT LOAD x")).await;
        second.says(b"$1\r\nx\r\n").await;
        client.is_told("$1\r\nx\r\n").await;
    })
    .await;
}

//! Transactions with a connection of their own: where keys are watched, and where the proxy answers some of it.

use super::*;

/// What a client sends in one go, as its node gets it.
fn transaction() -> Vec<u8> {
    [frame("MULTI"), frame("INCR foo"), frame("EXEC")].concat()
}

/// The client watches `foo`; the node's end of the connection for that.
async fn watches(nodes: &mut Scripted, client: &mut Client) -> Peer {
    client.asks("WATCH foo").await;
    let mut watching = nodes.node(0).await;
    watching.hears(&frame("WATCH foo")).await;
    watching.says(b"+OK\r\n").await;
    client.is_told("+OK\r\n").await;
    watching
}

#[tokio::test(start_paused = true)]
async fn watched_keys_and_their_transaction_go_by_one_connection() {
    with(1, async |mut nodes, mut client| {
        client.asks("GET foo").await;
        let mut shared = nodes.node(0).await;
        shared.hears(&frame("GET foo")).await;
        shared.says(b"$1\r\n1\r\n").await;
        client.is_told("$1\r\n1\r\n").await;
        let mut watching = watches(&mut nodes, &mut client).await;
        // What is between takes the shared connection.
        client.asks("GET foo").await;
        shared.hears(&frame("GET foo")).await;
        shared.says(b"$1\r\n1\r\n").await;
        client.is_told("$1\r\n1\r\n").await;
        client.stream.says(&transaction()).await;
        watching.hears(&transaction()).await;
        watching.says(b"+OK\r\n+QUEUED\r\n*1\r\n:2\r\n").await;
        client.is_told("+OK\r\n+QUEUED\r\n*1\r\n:2\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_watched_transaction_whose_connection_is_lost_has_its_keys_touched() {
    with(1, async |mut nodes, mut client| {
        drop(watches(&mut nodes, &mut client).await);
        client.stream.says(&transaction()).await;
        client.is_told("+OK\r\n+QUEUED\r\n*-1\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_watched_transaction_whose_slot_has_moved_has_its_keys_touched() {
    with(1, async |mut nodes, mut client| {
        let mut watching = watches(&mut nodes, &mut client).await;
        client.stream.says(&transaction()).await;
        watching.hears(&transaction()).await;
        let moved = b"-MOVED 12182 127.0.0.1:7009\r\n";
        let aborted = b"-EXECABORT Transaction discarded because of previous errors.\r\n";
        watching.says(&[b"+OK\r\n", &moved[..], aborted].concat()).await;
        client.is_told("+OK\r\n+QUEUED\r\n*-1\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_proxys_own_answers_stand_in_their_places() {
    with(1, async |mut nodes, mut client| {
        let words = ["MULTI", "CLIENT GETNAME", "INCR foo", "CLIENT SETNAME me", "EXEC"];
        client.stream.says(&words.map(frame).concat()).await;
        let mut node = nodes.node(0).await;
        // They are queued at the node as well, by something else.
        node.hears(&["MULTI", "PING", "INCR foo", "PING", "EXEC"].map(frame).concat()).await;
        node.says(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n+PONG\r\n:1\r\n+PONG\r\n").await;
        client.is_told("+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n$-1\r\n:1\r\n+OK\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_goes_again_as_a_whole_where_nothing_of_it_ran() {
    with(2, async |mut nodes, mut client| {
        client.stream.says(&transaction()).await;
        let mut second = nodes.node(1).await;
        second.hears(&transaction()).await;
        let aborted = b"-EXECABORT Transaction discarded because of previous errors.\r\n";
        second.says(&[b"+OK\r\n", &b"-ASK 12182 127.0.0.1:7000\r\n"[..], aborted].concat()).await;
        let mut first = nodes.node(0).await;
        first.hears(&[frame("ASKING"), transaction()].concat()).await;
        first.says(b"+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n:1\r\n").await;
        client.is_told("+OK\r\n+QUEUED\r\n*1\r\n:1\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_may_have_run_is_never_sent_again() {
    with(1, async |mut nodes, mut client| {
        client.stream.says(&transaction()).await;
        let mut node = nodes.node(0).await;
        node.hears(&transaction()).await;
        client.is_told("+OK\r\n+QUEUED\r\n").await;
        drop(node);
        let error = client.line().await;
        assert!(error.starts_with("-ERR proxy: connection to 127.0.0.1:7000 lost"), "{error}");
        assert!(error.ends_with("may have run (SLOTWAY-NODE-LOST)\r\n"), "{error}");
    })
    .await;
}

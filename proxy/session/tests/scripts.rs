//! Scripts that a node lacks: it is given them, once it says so or ahead of a batch.

use super::*;
use crate::commands::scripts::Sha;

const TEXT: &str = "return(1)";

fn evalsha() -> Vec<u8> {
    frame(&format!("EVALSHA {} 0", digits()))
}

fn digits() -> String {
    String::from_utf8_lossy(Sha::of(TEXT.as_bytes()).digits()).into_owned()
}

/// The client has run the script by its text: the proxy knows it. The node's end of the shared connection.
async fn knows_the_script(nodes: &mut Scripted, client: &mut Client) -> Peer {
    let eval = frame(&format!("EVAL {TEXT} 0"));
    client.stream.says(&eval).await;
    let mut node = nodes.node(0).await;
    node.hears(&eval).await;
    node.says(b":1\r\n").await;
    client.is_told(":1\r\n").await;
    node
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lacks_a_script_is_given_it_and_asked_again() {
    with(1, async |mut nodes, mut client| {
        let mut node = knows_the_script(&mut nodes, &mut client).await;
        client.stream.says(&evalsha()).await;
        node.hears(&evalsha()).await;
        node.says(b"-NOSCRIPT No matching script. Please use EVAL.\r\n").await;
        // It may be what another script said, that ran: is it there?
        node.hears(&frame(&format!("SCRIPT EXISTS {}", digits()))).await;
        node.says(b"*1\r\n:0\r\n").await;
        node.hears(&frame(&format!("SCRIPT LOAD {TEXT}"))).await;
        node.says(format!("$40\r\n{}\r\n", digits()).as_bytes()).await;
        node.hears(&evalsha()).await;
        node.says(b":1\r\n").await;
        client.is_told(":1\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_overtakes_a_script_that_may_have_to_be_loaded() {
    with(1, async |mut nodes, mut client| {
        let mut node = knows_the_script(&mut nodes, &mut client).await;
        client.stream.says(&evalsha()).await;
        node.hears(&evalsha()).await;
        client.asks("GET foo").await;
        node.says(b":1\r\n").await;
        node.hears(&frame("GET foo")).await;
        node.says(b"$-1\r\n").await;
        client.is_told(":1\r\n$-1\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn in_a_pipeline_the_script_goes_ahead_once() {
    with(1, async |mut nodes, mut client| {
        let mut node = knows_the_script(&mut nodes, &mut client).await;
        client.stream.says(&[evalsha(), evalsha(), frame("GET foo")].concat()).await;
        let load = frame(&format!("SCRIPT LOAD {TEXT}"));
        node.hears(&[load, evalsha(), evalsha(), frame("GET foo")].concat()).await;
        node.says(format!("$40\r\n{}\r\n:1\r\n:1\r\n$-1\r\n", digits()).as_bytes()).await;
        client.is_told(":1\r\n:1\r\n$-1\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn noscript_of_a_script_that_nobody_knows_is_the_clients() {
    with(1, async |mut nodes, mut client| {
        client.stream.says(&evalsha()).await;
        let mut node = nodes.node(0).await;
        node.hears(&evalsha()).await;
        node.says(b"-NOSCRIPT No matching script. Please use EVAL.\r\n").await;
        client.is_told("-NOSCRIPT No matching script. Please use EVAL.\r\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn scripts_go_ahead_of_a_transaction_that_runs_them() {
    with(1, async |mut nodes, mut client| {
        let mut node = knows_the_script(&mut nodes, &mut client).await;
        let batch = [frame("MULTI"), evalsha(), frame("EXEC")].concat();
        client.stream.says(&batch).await;
        node.hears(&[frame(&format!("SCRIPT LOAD {TEXT}")), batch].concat()).await;
        node.says(format!("$40\r\n{}\r\n+OK\r\n+QUEUED\r\n*1\r\n:1\r\n", digits()).as_bytes()).await;
        client.is_told("+OK\r\n+QUEUED\r\n*1\r\n:1\r\n").await;
    })
    .await;
}

//! The attempts of one request, at scripted nodes, with the clock paused.

use std::time::Duration;

use super::*;
use crate::{
    session::caller::Caller,
    upstream::router::scripted::{Scripted, within_a_minute},
};

/// A request for the slot of `foo`, which is the second node's.
fn attempts(nodes: &Scripted) -> Attempts {
    Caller::of(nodes).attempts(Some(Slot::of(b"foo")))
}

/// The next connection: to the node at this index.
async fn connect(attempts: &mut Attempts, nodes: &mut Scripted, index: u16) -> Dedicated {
    let (connection, _) = tokio::join!(attempts.connect(), nodes.node(index));
    let connection = connection.expect("a connection");
    assert_eq!(*connection.node().label, *format!("127.0.0.1:{}", 7000 + index));
    connection
}

fn refused(attempts: &Attempts, error: &'static str, from: &Dedicated) -> Why {
    let error = Bytes::from_static(error.as_bytes());
    attempts.refused(Refusal::of(&error).expect("a refusal"), error, from.node())
}

#[tokio::test(start_paused = true)]
async fn redirects_are_followed_and_asking_is_said_where_ask_led() {
    within_a_minute(async {
        let mut nodes = Scripted::new(2);
        let mut attempts = attempts(&nodes);
        let owner = connect(&mut attempts, &mut nodes, 1).await;
        assert_eq!((attempts.asks(), attempts.prefix()), (false, &b""[..]));
        let why = refused(&attempts, "-ASK 12182 127.0.0.1:7000\r\n", &owner);
        attempts.again(why).await.unwrap();
        let other = connect(&mut attempts, &mut nodes, 0).await;
        assert_eq!((attempts.asks(), attempts.prefix()), (true, ASKING));
        // It has the slot by now: what comes next is not asked for by way of exception.
        let why = refused(&attempts, "-MOVED 12182 127.0.0.1:7000\r\n", &other);
        attempts.again(why).await.unwrap();
        drop(connect(&mut attempts, &mut nodes, 0).await);
        assert!(!attempts.asks());
        assert!(matches!(nodes.hints.try_recv(), Ok(Hint::Moved { .. })), "discovery is told");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_never_ends_is_given_up_with_the_last_word() {
    within_a_minute(async {
        let mut nodes = Scripted::new(2);
        let mut attempts = attempts(&nodes);
        let connection = connect(&mut attempts, &mut nodes, 1).await;
        let since = tokio::time::Instant::now();
        let error = loop {
            let why = refused(&attempts, "-LOADING Redis is loading the dataset in memory\r\n", &connection);
            if let Err(error) = attempts.again(why).await {
                break error;
            }
        };
        assert_eq!(error, "LOADING Redis is loading the dataset in memory");
        let limit = nodes.router.timeouts().recovery().timeout;
        assert!((limit..limit + Duration::from_secs(2)).contains(&since.elapsed()), "{:?}", since.elapsed());
        // A node that was content meanwhile has its time anew.
        attempts.fares_well();
        let why = refused(&attempts, "-LOADING Redis is loading the dataset in memory\r\n", &connection);
        assert_eq!(attempts.again(why).await, Ok(()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_be_reached_is_tried_until_it_can() {
    within_a_minute(async {
        let mut nodes = Scripted::new(2);
        nodes.stop(1);
        let mut attempts = attempts(&nodes);
        let back = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            nodes.start(1);
            nodes.node(1).await
        };
        let (connection, _) = tokio::join!(attempts.connect(), back);
        assert_eq!(*connection.expect("a connection").node().label, *"127.0.0.1:7001");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_any_node_may_answer_goes_to_another() {
    within_a_minute(async {
        let mut nodes = Scripted::new(2);
        let mut attempts = Caller::of(&nodes).attempts(None);
        let first = attempts.node().expect("a node").label.clone();
        let index = if *first == *"127.0.0.1:7000" { 0 } else { 1 };
        let connection = connect(&mut attempts, &mut nodes, index).await;
        let why = attempts.lost(connection.node(), "it fell silent");
        attempts.again(why).await.unwrap();
        drop(connect(&mut attempts, &mut nodes, 1 - index).await);
    })
    .await;
}

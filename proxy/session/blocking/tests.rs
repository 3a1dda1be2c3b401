//! Blocking commands before scripted nodes.

use tokio::task::{JoinHandle, spawn_local};

use super::*;
use crate::{
    commands::plan::Plan,
    upstream::router::scripted::{Scripted, frame, request, within_a_minute},
};

/// A client that blocks: its reply, or `None` where it has to go.
fn blocks(caller: &Caller, words: &'static str) -> JoinHandle<Option<Bytes>> {
    let caller = caller.clone();
    spawn_local(async move {
        let (words, topology) = (request(words), caller.router.topology().clone());
        let words = words.as_request();
        let spec = topology.commands.find(&words);
        let plan = plan::plan(&words, spec, &caller.router.settings().policy);
        let Plan::Blocking(blocking) = plan else { panic!("{plan:?} does not wait") };
        run(caller, &words, spec, blocking).await.map(|reply| reply.front().clone())
    })
}

#[tokio::test(start_paused = true)]
async fn a_wait_moves_with_its_slot_and_the_time_that_is_left() {
    within_a_minute(async {
        let mut nodes = Scripted::new(2);
        let caller = Caller::of(&nodes);
        let waiting = blocks(&caller, "BLPOP foo 30");
        let mut second = nodes.node(1).await;
        second.hears(&frame("BLPOP foo 30")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(caller.client.waits());
        second.says(b"-MOVED 12182 127.0.0.1:7000\r\n").await;
        let mut first = nodes.node(0).await;
        let again = String::from_utf8(first.request().await).unwrap();
        // How long it has waited the system's clock says, which is not paused.
        assert!(again.starts_with("*3\r\n$5\r\nBLPOP\r\n$3\r\nfoo\r\n$6\r\n"), "{again}");
        first.says(b"*2\r\n$3\r\nfoo\r\n$1\r\n1\r\n").await;
        assert_eq!(waiting.await.unwrap().unwrap(), "*2\r\n$3\r\nfoo\r\n$1\r\n1\r\n");
        assert!(!caller.client.waits());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_popped_is_said_and_not_asked_for_again() {
    within_a_minute(async {
        let mut nodes = Scripted::new(1);
        let caller = Caller::of(&nodes);
        let waiting = blocks(&caller, "BLPOP foo 0");
        let mut node = nodes.node(0).await;
        node.hears(&frame("BLPOP foo 0")).await;
        drop(node);
        let error = String::from_utf8(waiting.await.unwrap().unwrap().to_vec()).unwrap();
        assert!(
            error.contains("127.0.0.1:7000") && error.ends_with("the command may have run (SLOTWAY-NODE-LOST)\r\n"),
            "{error}"
        );
    })
    .await;
}

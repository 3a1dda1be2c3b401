//! A node that comes back.

use super::*;
use crate::upstream::router::scripted::{Scripted, frame, request, within_a_minute};

#[tokio::test(start_paused = true)]
async fn a_node_does_what_it_has_missed_once_it_is_back() {
    within_a_minute(async {
        let mut nodes = Scripted::new(2);
        let (caller, words) = (Caller::of(&nodes), request("SCRIPT FLUSH"));
        let node = nodes.router.topology().nodes[0].clone();
        let make_up = make_up(&caller, &words.as_request());
        nodes.stop(0);
        make_up(&node);
        make_up(&node);
        assert_eq!(nodes.router.owed().borrow().len(), 1, "the same once");
        tokio::time::sleep(Duration::from_secs(5)).await;
        nodes.start(0);
        let mut peer = nodes.node(0).await;
        peer.hears(&frame("SCRIPT FLUSH")).await;
        peer.says(b"+OK\r\n").await;
        while !nodes.router.owed().borrow().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

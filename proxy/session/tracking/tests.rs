//! A tracking client, without a session.

use std::task::Poll;

use super::{
    command::{LaneChange, tracking_changes},
    options::Options,
    *,
};
use crate::upstream::{
    dial::{Login, Version},
    router::scripted::{Scripted, frame, request, within_a_minute},
    transport::memory::Peer,
};

const OK: &[u8] = b"+OK\r\n";

/// A client that speaks RESP3.
fn caller(nodes: &Scripted) -> Caller {
    let mut caller = Caller::of(nodes);
    caller.lane = nodes.router.lane(&Login { version: Version::Resp3, ..Login::default() });
    caller
}

fn options(caller: &Caller, words: &str) -> Options {
    Options::parse(&request(words).as_request(), |id| caller.find_client(id).is_some())
        .unwrap_or_else(|_| panic!("{words}"))
}

/// The node's end of a link that tracks.
async fn tracks(nodes: &mut Scripted, words: &str) -> Peer {
    let mut node = nodes.node(0).await;
    node.hears(&frame(words)).await;
    node.says(OK).await;
    node
}

#[tokio::test(start_paused = true)]
async fn a_tracking_client_has_links_of_its_own_and_hears_what_changes() {
    within_a_minute(async {
        let mut nodes = Scripted::new(1);
        let (mut caller, mut tracking) = (caller(&nodes), None);
        let change = tracking_changes(&mut tracking, &caller, options(&caller, "CLIENT TRACKING ON"));
        assert!(matches!(change.lane, LaneChange::New) && !change.forgets, "there is nothing to forget yet");
        let mut tracking = tracking.unwrap();
        tracking.lay_lane(&mut caller, None);
        assert!(caller.lane.is_private() && caller.client.has(Mark::Tracking));
        let opening = tracking.opening(&caller).expect("there is a node");
        let (opened, mut node) = tokio::join!(opening, tracks(&mut nodes, "CLIENT TRACKING ON"));
        assert_eq!(opened, Ok(()));
        let changed = [INVALIDATE, b"*1\r\n$1\r\na\r\n"].concat();
        node.says(&changed).await;
        poll_fn(|cx| {
            caller.line.wake_with(cx.waker());
            if caller.line.owed() >= changed.len() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_eq!(caller.was_told().as_bytes(), changed);
        tracking.end(&mut caller);
        assert!(!caller.lane.is_private() && !caller.client.has(Mark::Tracking));
        assert_eq!(node.hears_the_end().await, b"");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn caching_counts_for_one_command_and_by_the_mode() {
    within_a_minute(async {
        let nodes = Scripted::new(1);
        let (mut caller, mut tracking) = (caller(&nodes), None);
        tracking_changes(&mut tracking, &caller, options(&caller, "CLIENT TRACKING ON OPTIN"));
        let mut tracking = tracking.unwrap();
        tracking.lay_lane(&mut caller, None);
        let say = |tracking: &mut Tracking, words: &str| tracking.set_caching(&request(words).as_request());
        assert_eq!(say(&mut tracking, "CLIENT CACHING NO"), Err(says::CACHING_NO));
        assert_eq!(say(&mut tracking, "CLIENT CACHING maybe"), Err(says::SYNTAX));
        assert_eq!((tracking.caching(), say(&mut tracking, "CLIENT CACHING YES")), (Caching::AsEver, Ok(())));
        let topology = nodes.router.topology().clone();
        let spec = |words: &str| topology.commands.find(&request(words).as_request());
        tracking.caching_is_over(spec("CLIENT ID"));
        assert_eq!(tracking.caching(), Caching::Yes, "it is for what comes behind");
        tracking.reads_untracked();
        assert!(tracking.owes_flush.is_some(), "what no node remembers is to be forgotten");
        tracking.pay_flush(&caller.line);
        assert_eq!(caller.was_told().as_bytes(), [INVALIDATE, b"_\r\n"].concat());
        tracking.caching_is_over(spec("GET foo"));
        assert_eq!(tracking.caching(), Caching::AsEver);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_speaks_resp2_and_names_nobody_is_told_nothing() {
    within_a_minute(async {
        let nodes = Scripted::new(1);
        let (mut caller, mut tracking) = (Caller::of(&nodes), None);
        tracking_changes(&mut tracking, &caller, options(&caller, "CLIENT TRACKING ON BCAST PREFIX a"));
        let mut tracking = tracking.unwrap();
        tracking.lay_lane(&mut caller, None);
        assert!(caller.lane.is_private(), "nodes remember what it reads: it may come to speak RESP3");
        tracking.owe_flush("a test");
        tracking.pay_flush(&caller.line);
        assert_eq!(caller.was_told(), "");
        let mut told = Vec::new();
        info(Some(&tracking), &caller, &mut told);
        assert!(String::from_utf8_lossy(&told).contains("bcast"));
    })
    .await;
}

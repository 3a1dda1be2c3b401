//! WAIT and WAITAOF before scripted nodes.

use tokio::task::{spawn_local, yield_now};

use super::{
    offsets::{HURRY, INFO_REPLICATION, acknowledged},
    *,
};
use crate::upstream::router::scripted::{Scripted, request, within_a_minute};

async fn some_turns() {
    for _ in 0..10 {
        yield_now().await;
    }
}

/// What a primary says of its replicas.
fn info(replicas: &str) -> Vec<u8> {
    let mut reply = Vec::new();
    let text = format!("role:master\r\nmaster_replid:a\r\nmaster_repl_offset:10\r\n{replicas}");
    write::bulk(&mut reply, text.as_bytes());
    reply
}

#[tokio::test(start_paused = true)]
async fn replicas_are_hurried_and_counted_once_they_have_it() {
    within_a_minute(async {
        let mut nodes = Scripted::new(1);
        let (caller, words) = (Caller::of(&nodes), request("WAIT 1 0"));
        let wait = Wait::for_replicas(&words.as_request()).unwrap();
        let waiting = spawn_local(wait.run(caller.clone()));
        let mut shared = nodes.node(0).await;
        shared.hears(INFO_REPLICATION).await;
        assert!(caller.client.waits(), "others see it blocked");
        shared.says(&info("")).await;
        let mut own = nodes.node(0).await;
        own.hears(HURRY).await;
        shared.hears(INFO_REPLICATION).await;
        shared.says(&info("slave0:ip=a,port=1,state=online,offset=10,lag=0\r\n")).await;
        assert_eq!(waiting.await.unwrap().unwrap(), ":1\r\n");
        assert!(!caller.client.waits());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_is_unblocked_is_told_how_many_there_are() {
    within_a_minute(async {
        let mut nodes = Scripted::new(1);
        let (caller, words) = (Caller::of(&nodes), request("WAIT 3 0"));
        let mut wait = Box::pin(Wait::for_replicas(&words.as_request()).unwrap().run(caller.clone()));
        let asked = async {
            let mut node = nodes.node(0).await;
            node.hears(INFO_REPLICATION).await;
            node
        };
        let mut node = tokio::select! {
            ended = &mut wait => panic!("it waits for three: {ended:?}"),
            node = asked => node,
        };
        node.says(&info("slave0:ip=a,port=1,state=online,offset=10,lag=0\r\n")).await;
        tokio::select! {
            ended = &mut wait => panic!("it waits for three: {ended:?}"),
            () = some_turns() => {}
        }
        assert!(caller.client.unblock(Unblock::Timeout));
        assert_eq!(wait.await.unwrap(), ":1\r\n");
    })
    .await;
}

#[test]
fn what_servers_refuse_is_no_wait() {
    for (words, is_wait) in [("WAITAOF 1 0 0", true), ("WAITAOF 2 0 0", false), ("WAITAOF 0 -1 0", false)] {
        assert_eq!(Wait::for_disks(&request(words).as_request()).is_some(), is_wait, "{words}");
    }
    assert!(Wait::for_replicas(&request("WAIT 1 x").as_request()).is_none());
}

#[test]
fn only_replicas_that_are_up_count() {
    let line = "slave0:ip=127.0.0.1,port=7003,state=online,offset=42,lag=0\r";
    assert_eq!(acknowledged(line), Some(42));
    assert_eq!(acknowledged("slave12:ip=::1,port=7003,state=online,offset=7,lag=1,type=replica"), Some(7));
    assert_eq!(acknowledged("slave0:ip=127.0.0.1,port=7003,state=wait_bgsave,offset=0,lag=0"), None);
    assert_eq!(acknowledged("slave_read_only:1"), None);
    assert_eq!(acknowledged("slaves:1"), None);
}

#[test]
fn what_is_wanted_is_read_as_the_server_reads_it() {
    let forever = WaitTerms { replicas: -1, timeout: None };
    assert_eq!(WaitTerms::parse(b"-1", b"0"), Some(forever));
    assert_eq!(WaitTerms::parse(b"1", b"-1"), None);
}

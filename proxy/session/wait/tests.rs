//! WAIT and WAITAOF before scripted nodes.

use tokio::task::{spawn_local, yield_now};

use super::{
    offsets::{HURRY, INFO_REPLICATION, INFO_SERVER, acknowledged},
    *,
};
use crate::upstream::{
    router::scripted::{Scripted, frame, request, within_a_minute},
    transport::memory::Peer,
};

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

/// A replica that has acknowledged so much.
fn replica(offset: u64) -> String {
    format!("slave0:ip=a,port=1,state=online,offset={offset},lag=0\r\n")
}

/// What a node says of a replication stream, and how far it and a replica are.
fn stream(role: &str, name: &str, offset: u64, acknowledged: u64) -> Vec<u8> {
    let mut reply = Vec::new();
    let replica = replica(acknowledged);
    let text = format!("role:{role}\r\nmaster_replid:{name}\r\nmaster_repl_offset:{offset}\r\n{replica}");
    write::bulk(&mut reply, text.as_bytes());
    reply
}

fn uptime(seconds: u64) -> Vec<u8> {
    let mut reply = Vec::new();
    write::bulk(&mut reply, format!("uptime_in_seconds:{seconds}\r\n").as_bytes());
    reply
}

/// A client that has written to all nodes, ten seconds ago.
async fn has_written(nodes: &Scripted) -> Caller {
    let caller = Caller::of(nodes);
    nodes.router.clock().tick();
    nodes.router.topology().nodes.iter().for_each(|node| caller.line.wrote(node));
    tokio::time::sleep(Duration::from_secs(10)).await;
    caller
}

/// What a node is asked, and what it answers.
type Turn = (&'static [u8], Vec<u8>);

/// The reply to WAIT where the node answers `says` to what it is asked on the shared connection.
async fn waits(nodes: &mut Scripted, caller: &Caller, words: &str, says: &[Turn]) -> String {
    let words = request(words);
    let waiting = spawn_local(Wait::for_replicas(&words.as_request()).unwrap().run(caller.clone()));
    let mut shared = nodes.node(0).await;
    for (asked, reply) in says {
        shared.hears(asked).await;
        shared.says(reply).await;
    }
    // It is hurried meanwhile, or not.
    let reply = waiting.await.unwrap().unwrap();
    String::from_utf8(reply.to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_may_be_lost_is_told_and_no_number() {
    let first = || [(INFO_SERVER, uptime(12)), (INFO_REPLICATION, stream("master", "a", 10, 9))];
    let [server, begun] = first();
    let cases: [(Vec<Turn>, &str); 6] = [
        (vec![(INFO_SERVER, uptime(10))], "it has restarted since"),
        (vec![server.clone(), (INFO_REPLICATION, stream("slave", "a", 10, 10))], "it is no longer a primary"),
        (
            vec![server.clone(), begun.clone(), (INFO_REPLICATION, stream("slave", "a", 10, 10))],
            "it is no longer a primary",
        ),
        (
            vec![server.clone(), begun.clone(), (INFO_REPLICATION, stream("master", "b", 10, 10))],
            "its replication stream is another",
        ),
        (
            vec![server.clone(), begun.clone(), (INFO_REPLICATION, stream("master", "a", 9, 9))],
            "its replication stream is another",
        ),
        (vec![(INFO_SERVER, b"-ERR oops\r\n".to_vec())], "ERR oops"),
    ];
    for (says, why) in cases {
        within_a_minute(async {
            let mut nodes = Scripted::new(1);
            let caller = has_written(&nodes).await;
            let reply = waits(&mut nodes, &caller, "WAIT 1 0", &says).await;
            assert!(reply.starts_with("-ERR proxy: ") && reply.contains(why), "{reply}");
            // Said once; one that does not tell is asked again.
            assert_eq!(caller.line.writes.all().is_empty(), reply.contains("may be lost"), "{reply}");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_counts_once_it_has_what_was_written_when_the_wait_began() {
    within_a_minute(async {
        let mut nodes = Scripted::new(1);
        let caller = has_written(&nodes).await;
        let says: [Turn; 4] = [
            (INFO_SERVER, uptime(12)),
            (INFO_REPLICATION, stream("master", "a", 10, 9)),
            // What others write meanwhile need not have arrived.
            (INFO_REPLICATION, stream("master", "a", 99, 9)),
            (INFO_REPLICATION, stream("master", "a", 99, 10)),
        ];
        assert_eq!(waits(&mut nodes, &caller, "WAIT 1 0", &says).await, ":1\r\n");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn when_the_time_is_over_the_node_with_the_fewest_decides() {
    within_a_minute(async {
        let mut nodes = Scripted::new(2);
        let caller = has_written(&nodes).await;
        let (words, since) = (request("WAIT 1 500"), tokio::time::Instant::now());
        let waiting = spawn_local(Wait::for_replicas(&words.as_request()).unwrap().run(caller.clone()));
        for (index, acknowledged) in [(0, 10), (1, 9)] {
            let mut node = nodes.node(index).await;
            spawn_local(async move {
                node.hears(INFO_SERVER).await;
                node.says(&uptime(12)).await;
                loop {
                    node.hears(INFO_REPLICATION).await;
                    node.says(&stream("master", "a", 10, acknowledged)).await;
                }
            });
        }
        assert_eq!(waiting.await.unwrap().unwrap(), ":0\r\n");
        assert_eq!(since.elapsed().as_millis() / 10, 50);
    })
    .await;
}

/// The connection of the proxy's own on which WAITAOF is counted: something has been written there that changes nothing.
async fn has_restored(nodes: &mut Scripted) -> Peer {
    let mut own = nodes.node(0).await;
    let restore = own.request().await;
    assert!(restore.starts_with(b"*4\r\n$8\r\nFUNCTION\r\n$7\r\nRESTORE\r\n"), "{}", restore.escape_ascii());
    own.says(b"+OK\r\n").await;
    own
}

#[tokio::test(start_paused = true)]
async fn fsyncs_are_counted_by_the_node_itself_behind_all_that_was_written() {
    within_a_minute(async {
        let mut nodes = Scripted::new(1);
        let (caller, words) = (has_written(&nodes).await, request("WAITAOF 1 1 0"));
        let waiting = spawn_local(Wait::for_disks(&words.as_request()).unwrap().run(caller.clone()));
        let mut shared = nodes.node(0).await;
        shared.hears(INFO_SERVER).await;
        shared.says(&uptime(12)).await;
        shared.hears(INFO_REPLICATION).await;
        shared.says(&info("")).await;
        let mut own = has_restored(&mut nodes).await;
        for counts in ["*2\r\n:1\r\n:0\r\n", "*2\r\n:0\r\n:1\r\n", "*2\r\n:1\r\n:2\r\n"] {
            own.hears(&frame("WAITAOF 1 1 100")).await;
            own.says(counts.as_bytes()).await;
        }
        assert_eq!(waiting.await.unwrap().unwrap(), "*2\r\n:1\r\n:2\r\n");
        // What the node thinks of it is the reply.
        let waiting = spawn_local(Wait::for_disks(&words.as_request()).unwrap().run(caller));
        shared.hears(INFO_SERVER).await;
        shared.says(&uptime(12)).await;
        shared.hears(INFO_REPLICATION).await;
        shared.says(&info("")).await;
        own.request().await;
        own.says(b"+OK\r\n").await;
        own.hears(&frame("WAITAOF 1 1 100")).await;
        own.says(b"-ERR WAITAOF cannot be used\r\n").await;
        assert_eq!(waiting.await.unwrap().unwrap(), "-ERR WAITAOF cannot be used\r\n");
    })
    .await;
}

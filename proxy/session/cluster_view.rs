//! A cluster of one, for clients that insist on a cluster (`present = "cluster"`): the proxy is its only node, a primary with all
//! slots, and is reached where the client has come from.

use super::{caller::Caller, local::Answer};
use crate::{
    commands::table::treatment::ClusterView,
    protocol::{
        resp::{Request, write},
        says,
        slot::SLOTS,
    },
};

/// The proxy's node id: of all proxies the same, since behind one address there may be several.
const ID: &str = "fd726e99d59c924e4ba51b13b33233fd695e6360";

/// The answer to what asks for the cluster.
pub(super) fn answer(caller: &Caller, view: ClusterView, request: &Request<'_>) -> Answer {
    if !caller.presents_cluster() {
        return Answer::refused(says::NO_CLUSTER);
    }
    let place = Place::of(caller);
    let resp3 = caller.speaks_resp3();
    match view {
        ClusterView::Slots => Answer::with(|out| slots(out, &place, resp3)),
        ClusterView::Shards => Answer::with(|out| shards(out, &place, resp3)),
        ClusterView::Nodes => {
            let Place { host, port } = &place;
            let bus = u32::from(*port) + 10_000;
            let line = format!("{ID} {host}:{port}@{bus} myself,master - 0 0 1 connected 0-{}\n", SLOTS - 1);
            Answer::with(|out| write::text(out, &line, resp3))
        }
        ClusterView::Info => {
            let text = info(caller);
            Answer::with(|out| write::text(out, &text, resp3))
        }
        ClusterView::Id => Answer::with(|out| write::bulk(out, ID.as_bytes())),
        ClusterView::Links => Answer::with(|out| write::array(out, 0)),
        ClusterView::Replicas | ClusterView::FailureReports if request.arg(2) != ID.as_bytes() => {
            Answer::refused(format!("ERR Unknown node {}", String::from_utf8_lossy(request.arg(2))))
        }
        ClusterView::Replicas => Answer::with(|out| write::array(out, 0)),
        ClusterView::FailureReports => Answer::with(|out| write::integer(out, 0)),
        ClusterView::Other => Answer::refused(says::unknown_subcommand(request)),
    }
}

/// Where the client is to find the proxy.
struct Place {
    /// Empty: where it has found it already.
    host: String,
    port: u16,
}

impl Place {
    fn of(caller: &Caller) -> Place {
        match &caller.listener().announce {
            Some(announced) => Place { host: announced.host.clone(), port: announced.port },
            // Behind a load balancer or in a container, the proxy's own address is none that a client could reach.
            None => Place { host: String::new(), port: caller.client.local().port() },
        }
    }
}

fn map(out: &mut Vec<u8>, pairs: usize, resp3: bool) {
    if resp3 {
        write::head(out, b'%', pairs as i64);
    } else {
        write::array(out, 2 * pairs);
    }
}

fn slots(out: &mut Vec<u8>, place: &Place, resp3: bool) {
    write::array(out, 1);
    write::array(out, 3);
    write::integer(out, 0);
    write::integer(out, SLOTS as i64 - 1);
    write::array(out, 4);
    write::bulk(out, place.host.as_bytes());
    write::integer(out, i64::from(place.port));
    write::bulk(out, ID.as_bytes());
    map(out, 0, resp3);
}

fn shards(out: &mut Vec<u8>, place: &Place, resp3: bool) {
    write::array(out, 1);
    map(out, 2, resp3);
    write::bulk(out, b"slots");
    write::array(out, 2);
    write::integer(out, 0);
    write::integer(out, SLOTS as i64 - 1);
    write::bulk(out, b"nodes");
    write::array(out, 1);
    map(out, 7, resp3);
    write::bulk(out, b"id");
    write::bulk(out, ID.as_bytes());
    write::bulk(out, b"port");
    write::integer(out, i64::from(place.port));
    for (field, text) in [("ip", &*place.host), ("endpoint", &place.host), ("role", "master")] {
        write::bulk(out, field.as_bytes());
        write::bulk(out, text.as_bytes());
    }
    write::bulk(out, b"replication-offset");
    write::integer(out, 0);
    write::bulk(out, b"health");
    write::bulk(out, b"online");
}

/// As the cluster behind is: where that is down, so is this one.
fn info(caller: &Caller) -> String {
    let topology = caller.router.topology();
    let (served, state) = (topology.covered(), if topology.failed { "fail" } else { "ok" });
    let lines = [
        ("state", state.to_owned()),
        ("slots_assigned", SLOTS.to_string()),
        ("slots_ok", served.to_string()),
        ("slots_pfail", "0".to_owned()),
        ("slots_fail", (SLOTS - served).to_string()),
        ("known_nodes", "1".to_owned()),
        ("size", "1".to_owned()),
        ("current_epoch", "1".to_owned()),
        ("my_epoch", "1".to_owned()),
    ];
    lines.map(|(name, value)| format!("cluster_{name}:{value}\r\n")).concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clients::ListenerSettings,
        cluster::topology::NOBODY,
        protocol::address::Address,
        upstream::{
            dial::{Login, Version},
            router::scripted::{Scripted, request, within_a_minute},
        },
    };

    /// Nodes, and a client to whom the proxy is a cluster, at this address where one is announced.
    fn presented(announce: Option<Address>) -> (Scripted, Caller) {
        let nodes = Scripted::new(2);
        let listener = ListenerSettings { presents_cluster: true, announce, ..ListenerSettings::default() };
        let caller = Caller::by(&nodes, listener);
        (nodes, caller)
    }

    fn reply(caller: &Caller, view: ClusterView, words: &str) -> String {
        match answer(caller, view, &request(words).as_request()) {
            Answer::Reply(reply) => String::from_utf8(reply.to_vec()).expect("text"),
            Answer::Refused(error) => format!("-{}", String::from_utf8_lossy(&error)),
            Answer::Replies(_) | Answer::Work(_) => panic!("it is answered at once"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_proxy_is_the_only_node_and_has_all_slots() {
        within_a_minute(async {
            let (_nodes, caller) = presented(None);
            let nodes = format!("{ID} :1@10001 myself,master - 0 0 1 connected 0-16383\n");
            for (view, words, expected) in [
                (
                    ClusterView::Slots,
                    "CLUSTER SLOTS",
                    format!("*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n$0\r\n\r\n:1\r\n$40\r\n{ID}\r\n*0\r\n"),
                ),
                (ClusterView::Nodes, "CLUSTER NODES", format!("${}\r\n{nodes}\r\n", nodes.len())),
                (ClusterView::Id, "CLUSTER MYID", format!("$40\r\n{ID}\r\n")),
                (ClusterView::Links, "CLUSTER LINKS", "*0\r\n".into()),
                (ClusterView::Replicas, &format!("CLUSTER REPLICAS {ID}"), "*0\r\n".into()),
                (ClusterView::Replicas, "CLUSTER REPLICAS a", "-ERR Unknown node a".into()),
                (ClusterView::FailureReports, &format!("CLUSTER COUNT-FAILURE-REPORTS {ID}"), ":0\r\n".into()),
                (ClusterView::FailureReports, "CLUSTER COUNT-FAILURE-REPORTS a", "-ERR Unknown node a".into()),
                (
                    ClusterView::Other,
                    "CLUSTER FAILOVER",
                    "-ERR unknown subcommand 'FAILOVER'. Try CLUSTER HELP.".into(),
                ),
            ] {
                assert_eq!(reply(&caller, view, words), expected, "{words}");
            }
            let shards = reply(&caller, ClusterView::Shards, "CLUSTER SHARDS");
            assert!(
                shards.starts_with("*1\r\n*4\r\n$5\r\nslots\r\n*2\r\n:0\r\n:16383\r\n$5\r\nnodes\r\n*1\r\n*14\r\n")
            );
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn in_resp3_maps_are_maps_and_texts_are_verbatim() {
        within_a_minute(async {
            let announced = Address::new("proxy.example", 7777);
            let (nodes, mut caller) = presented(Some(announced));
            caller.lane = nodes.router.lane(&Login { version: Version::Resp3, ..Login::default() });
            let slots = reply(&caller, ClusterView::Slots, "CLUSTER SLOTS");
            assert!(
                slots.ends_with(&format!("*4\r\n$13\r\nproxy.example\r\n:7777\r\n$40\r\n{ID}\r\n%0\r\n")),
                "{slots}"
            );
            let shards = reply(&caller, ClusterView::Shards, "CLUSTER SHARDS");
            assert!(shards.starts_with("*1\r\n%2\r\n") && shards.contains("*1\r\n%7\r\n"), "{shards}");
            let nodes = reply(&caller, ClusterView::Nodes, "CLUSTER NODES");
            assert!(nodes.starts_with('=') && nodes.contains("txt:") && nodes.contains(" proxy.example:7777@17777 "));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_as_well_as_the_cluster_behind_it() {
        within_a_minute(async {
            let (nodes, caller) = presented(None);
            let info = || reply(&caller, ClusterView::Info, "CLUSTER INFO");
            assert!(info().contains("cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\n"));
            let topology = nodes.topology.borrow().clone();
            let mut slots = Box::new([0; SLOTS]);
            slots[..384].fill(NOBODY);
            let mut topology = topology.with_layout(topology.nodes.clone(), slots);
            topology.failed = true;
            nodes.topology.send_replace(topology.into());
            nodes.router.refresh();
            let info = info();
            for line in ["cluster_state:fail", "cluster_slots_ok:16000", "cluster_slots_fail:384"] {
                assert!(info.contains(line), "{line}: {info}");
            }
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn to_others_it_is_no_cluster() {
        within_a_minute(async {
            let nodes = Scripted::new(1);
            let caller = Caller::of(&nodes);
            for view in [ClusterView::Slots, ClusterView::Info, ClusterView::Id, ClusterView::Other] {
                assert_eq!(reply(&caller, view, "CLUSTER SLOTS"), format!("-{}", says::NO_CLUSTER));
            }
        })
        .await;
    }
}

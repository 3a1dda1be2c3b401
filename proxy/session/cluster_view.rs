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

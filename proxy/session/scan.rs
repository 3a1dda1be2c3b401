//! SCAN over all nodes: a page from one node, or some where they have little, with the cursor that [`crate::cluster::scan`] makes
//! of the node's.

use bytes::Bytes;

use super::caller::Caller;
use crate::{
    cluster::scan::{self, NodeSelf, ScanStep},
    protocol::{
        resp::{Request, Value, write},
        says,
        slot::Slot,
    },
    upstream::router::Router,
};

/// The reply to SCAN. `slot` is where all keys that match the pattern must be, if it tells that.
pub(super) async fn scan(caller: &Caller, request: &Request<'_>, slot: Option<Slot>) -> Bytes {
    page(caller, request, slot).await.map_or_else(write::error_frame, Bytes::from)
}

/// One page of one node; where a node comes to its end before there are as many keys as a page should have, the
/// first page of the next as well, so that few keys come at once as from one server.
async fn page(caller: &Caller, request: &Request<'_>, slot: Option<Slot>) -> Result<Vec<u8>, String> {
    let mut cursor = std::str::from_utf8(request.arg(1)).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let wanted = wanted(request);
    let mut keys = Vec::new();
    let mut count = 0;
    for asked in 1.. {
        let (next, page) = match page_of_one(caller, request, cursor, slot).await {
            Ok(Page::Keys(next, page)) => (next, page),
            // An error of the command's own, such as a bad option.
            Ok(Page::Error(error)) if asked == 1 => return Ok(error),
            Err(error) if asked == 1 => return Err(error),
            // What has been found is told; the cursor is where this node will be asked again.
            Ok(Page::Error(_)) | Err(_) => break,
        };
        count += scan::keys_of(&page, &mut keys);
        cursor = next;
        if cursor == 0 || !scan::begins_a_stage(cursor) || count >= wanted || asked >= MOST_NODES {
            break;
        }
    }
    Ok(scan::page(cursor, count, &keys))
}

async fn page_of_one(caller: &Caller, request: &Request<'_>, cursor: u64, slot: Option<Slot>) -> Result<Page, String> {
    let (step, node) = {
        let topology = caller.router.topology();
        let step = caller.router.scans().step(cursor, slot, &topology);
        let node = step.as_ref().and_then(|step| topology.node(&step.node)).cloned();
        step.zip(node).ok_or_else(|| topology.down())?
    };
    let link = caller.lane.link_to(&caller.router, &node);
    let page = match &caller.database {
        Some(inside) => caller.ask(&link, &inside.database.page(request, step.cursor)).await?,
        None => Bytes::new(),
    };
    let page = if page.is_empty() || page.starts_with(b"-NOPERM") {
        // A user who may run no scripts is given what a node has by itself.
        let mut frame = Vec::new();
        step.encode(request, &mut frame);
        caller.ask(&link, &frame).await?
    } else {
        page
    };
    let cursor = match scan::cursor_of(&page) {
        None => return Ok(Page::Error(page.to_vec())),
        Some(0) => {
            // The client's user may not be allowed to ask that.
            let link = caller.router.first_lane().link_to(&caller.router, &node);
            next_stage(&caller.router, &step, caller.ask(&link, CLUSTER_NODES).await?.as_ref())?
        }
        Some(cursor) => step.after(cursor).ok_or(says::CURSOR_TOO_LARGE)?,
    };
    Ok(Page::Keys(cursor, page))
}

/// A node has come to the end of its keys: where the scan goes on.
fn next_stage(router: &Router, step: &ScanStep, nodes: &[u8]) -> Result<u64, String> {
    let nodes = Value::parse(nodes).ok().flatten().and_then(|(nodes, _)| NodeSelf::parse(nodes.str()?));
    let own = nodes.ok_or(says::SLOTS_NOT_TOLD)?;
    Ok(router.scans().next(step, &own, &router.topology()))
}

/// What a node has answered.
enum Page {
    /// Its reply, and the cursor to go on with.
    Keys(u64, Bytes),
    Error(Vec<u8>),
}

/// How many nodes at most are asked for one page.
const MOST_NODES: usize = 16;

/// How many keys a page should have: the last COUNT says so, as it does to a server.
fn wanted(request: &Request<'_>) -> usize {
    let mut options = (2..request.len().saturating_sub(1)).step_by(2);
    let count = options.rfind(|&at| request.is(at, "COUNT")).map(|at| request.arg(at + 1));
    count.and_then(|count| std::str::from_utf8(count).ok()?.parse().ok()).unwrap_or(10)
}

const CLUSTER_NODES: &[u8] = b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nNODES\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::router::scripted::{Scripted, frame, request, within_a_minute};

    const KEYS: &[u8] = b"*2\r\n$2\r\n17\r\n*1\r\n$3\r\nfoo\r\n";

    #[tokio::test(start_paused = true)]
    async fn a_page_goes_on_where_its_cursor_says() {
        within_a_minute(async {
            let mut nodes = Scripted::new(2);
            let caller = Caller::of(&nodes);
            let first = request("SCAN 0 COUNT 1");
            let page = async { scan(&caller, &first.as_request(), None).await };
            let node = async {
                let mut node = nodes.node(0).await;
                node.hears(&frame("SCAN 0 COUNT 1")).await;
                node.says(KEYS).await;
                node
            };
            let (page, mut node) = tokio::join!(page, node);
            let cursor = Value::parse(&page).unwrap().unwrap().0.items()[0].str().unwrap().to_owned();
            assert_ne!(cursor, "17", "the proxy's own cursor says which node it is of");
            let next = request(&format!("SCAN {cursor} COUNT 1"));
            let page = async { scan(&caller, &next.as_request(), None).await };
            let again = async {
                node.hears(&frame("SCAN 17 COUNT 1")).await;
                node.says(b"-ERR no\r\n").await;
            };
            assert_eq!(tokio::join!(page, again).0, "-ERR no\r\n");
        })
        .await;
    }

    #[test]
    fn the_last_count_says_how_many_keys_a_page_should_have() {
        for (words, count) in [("SCAN 0", 10), ("SCAN 0 COUNT 5 MATCH x COUNT 7", 7), ("SCAN 0 COUNT x", 10)] {
            assert_eq!(wanted(&request(words).as_request()), count, "{words}");
        }
    }
}

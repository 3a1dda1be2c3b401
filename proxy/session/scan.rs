//! SCAN over all nodes: a page from one node, or some where they have little, with the cursor that [`crate::cluster::scan`] makes
//! of the node's.

use bytes::Bytes;

use super::Session;
use crate::{
    cluster::scan::{self, Own, Step},
    protocol::{
        resp::{Request, Value, write},
        slot::Slot,
    },
};

impl Session {
    /// The reply to SCAN. `slot` is where all keys that match the pattern must be, if it tells that.
    pub(super) async fn scan(&self, request: &Request<'_>, slot: Option<Slot>) -> Vec<u8> {
        self.page(request, slot).await.unwrap_or_else(|error| {
            let mut frame = Vec::new();
            write::error(&mut frame, error.as_bytes());
            frame
        })
    }

    /// One page of one node; where a node comes to its end before there are as many keys as a page should have, the
    /// first page of the next as well, so that few keys come at once as from one server.
    async fn page(&self, request: &Request<'_>, slot: Option<Slot>) -> Result<Vec<u8>, String> {
        let mut cursor = std::str::from_utf8(request.arg(1)).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        let wanted = wanted(request);
        let mut keys = Vec::new();
        let mut count = 0;
        for asked in 1.. {
            let (next, page) = match self.page_of_one(request, cursor, slot).await {
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

    async fn page_of_one(&self, request: &Request<'_>, cursor: u64, slot: Option<Slot>) -> Result<Page, String> {
        let (step, node) = {
            let topology = self.router.topology();
            let step = self.router.scans().step(cursor, slot, &topology);
            let node = step.as_ref().and_then(|step| topology.node(&step.node)).cloned();
            step.zip(node).ok_or_else(|| topology.down())?
        };
        let link = self.lane.link_to(&self.router, &node);
        let mut frame = Vec::new();
        step.encode(request, &mut frame);
        let page = self.ask(&link, &frame).await?;
        let cursor = match scan::cursor_of(&page) {
            None => return Ok(Page::Error(page.to_vec())),
            Some(0) => {
                // The client's user may not be allowed to ask that.
                let link = self.router.first_lane().link_to(&self.router, &node);
                self.next_stage(&step, self.ask(&link, CLUSTER_NODES).await?.as_ref())?
            }
            Some(cursor) => step.after(cursor).ok_or("ERR proxy: the node's cursor is too large for the proxy's")?,
        };
        Ok(Page::Keys(cursor, page))
    }

    /// A node has come to the end of its keys: where the scan goes on.
    fn next_stage(&self, step: &Step, nodes: &[u8]) -> Result<u64, String> {
        let nodes = Value::parse(nodes).ok().flatten().and_then(|(nodes, _)| Own::parse(nodes.str()?));
        let own = nodes.ok_or("ERR proxy: a node does not say which slots it owns (CLUSTER NODES), ask again")?;
        Ok(self.router.scans().next(step, &own, &self.router.topology()))
    }
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

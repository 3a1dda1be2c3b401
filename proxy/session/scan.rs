//! SCAN over all nodes: one page from one node, with the cursor that [`crate::scan`] makes of the node's.

use super::Session;
use crate::{
    resp::{Request, Value, write},
    scan::{self, Own, Step},
    slot::Slot,
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

    async fn page(&self, request: &Request<'_>, slot: Option<Slot>) -> Result<Vec<u8>, String> {
        let cursor = std::str::from_utf8(request.arg(1)).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
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
            // An error of the command's own, such as a bad option.
            None => return Ok(page.to_vec()),
            Some(0) => self.next_stage(&step, self.ask(&link, CLUSTER_NODES).await?.as_ref())?,
            Some(cursor) => step.after(cursor).ok_or("ERR proxy: the node's cursor is too large for the proxy's")?,
        };
        let mut reply = Vec::with_capacity(page.len() + 20);
        scan::with_cursor(&page, cursor, &mut reply);
        Ok(reply)
    }

    /// A node has come to the end of its keys: where the scan goes on.
    fn next_stage(&self, step: &Step, nodes: &[u8]) -> Result<u64, String> {
        let nodes = Value::parse(nodes).ok().flatten().and_then(|(nodes, _)| Own::parse(nodes.str()?));
        let own = nodes.ok_or("ERR proxy: a node does not say which slots it owns (CLUSTER NODES), ask again")?;
        Ok(self.router.scans().next(step, &own, &self.router.topology()))
    }
}

const CLUSTER_NODES: &[u8] = b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nNODES\r\n";

//! What a lost node has missed of a command for all nodes, done there as soon as it is back.

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{ask::ask, caller::Caller};
use crate::{
    cluster::{recovery::Backoff, topology::Node},
    protocol::resp::Request,
    upstream::{
        router::{Lane, Router},
        ticket::MakeUp,
    },
};

/// How often it is tried.
const BETWEEN_TRIES: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
/// How much may be owed to nodes at a time; more is forgotten, and that is logged.
const MOST_OWED: usize = 64;

/// Has a request done later by nodes that have missed it.
pub(super) fn make_up(caller: &Caller, request: &Request<'_>) -> MakeUp {
    let (router, lane) = (caller.router.clone(), caller.lane.clone());
    let frame = Bytes::copy_from_slice(request.frame());
    Box::new(move |node| owe(&router, &lane, node, &frame))
}

fn owe(router: &Rc<Router>, lane: &Rc<Lane>, node: &Arc<Node>, frame: &Bytes) {
    let debt = (node.id.clone(), frame.clone());
    {
        let mut owed = router.owed().borrow_mut();
        if owed.contains(&debt) {
            return;
        }
        if owed.len() >= MOST_OWED {
            tracing::warn!(node = %node.label, "too much is to be done there when it is back: one command is left out");
            return;
        }
        owed.insert(debt.clone());
    }
    let (router, lane, node) = (router.clone(), lane.clone(), node.clone());
    tokio::task::spawn_local(async move {
        pay(&router, &lane, &node, &debt.1).await;
        router.owed().borrow_mut().remove(&debt);
    });
}

/// Tries until the node has answered or has left the cluster.
async fn pay(router: &Rc<Router>, lane: &Rc<Lane>, node: &Arc<Node>, frame: &[u8]) {
    let mut backoff = BETWEEN_TRIES;
    loop {
        tokio::time::sleep(backoff.pause()).await;
        router.refresh();
        let known = router.topology().node(&node.id).cloned();
        let Some(node) = known else { return };
        if let Ok(reply) = ask(router, &lane.link_to(router, &node), frame).await {
            let done = reply.first() != Some(&b'-');
            tracing::info!(node = %node.label, done, "a command for all nodes, made up for where it was missed");
            return;
        }
    }
}

#[cfg(test)]
mod tests;

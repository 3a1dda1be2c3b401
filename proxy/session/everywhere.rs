//! Commands that change all nodes (FUNCTION LOAD, FLUSHALL) begin only when all nodes listen: carried out by some alone, they
//! would leave the nodes different until somebody notices.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{task::JoinSet, time::timeout};

use super::ask::ask_out_of_band;
use crate::{
    cluster::{
        recovery::BETWEEN_TRIES,
        topology::{Hint, Node},
    },
    commands::{
        plan::{Plan, Scripting},
        table::{Spec, busy::WhenBusy},
    },
    protocol::{resp::write, says},
    upstream::{router::Router, ticket::MakeUp},
};

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// How long a node is waited for whose answer is not needed.
const GRACE: Duration = Duration::from_millis(500);

/// Whether a plan is carried out only where all nodes listen.
#[inline]
pub(super) fn asks_first(plan: &Plan, spec: Option<&Spec>) -> bool {
    matches!(plan, Plan::Primaries(_) | Plan::Scripting(Scripting::Flush, _))
        && spec.is_some_and(|spec| spec.when_busy.asks_first())
}

/// Whether a node listens.
enum Attention {
    Listens,
    Busy(Bytes),
    /// The node cannot be reached, or keeps silent.
    Lost(Bytes),
}

/// The error of a primary that takes no commands now, for a command that has to reach all of them.
pub(super) async fn deaf(router: Rc<Router>, spec: Option<&Spec>) -> Option<Bytes> {
    let spec = spec.filter(|spec| spec.when_busy.asks_first())?;
    ask_until_all_listen(router, spec.when_busy, spec.when_lost.is_spared()).await
}

/// Has discovery give a node the functions of the others, where it has missed a change.
pub(super) fn make_alike(router: &Rc<Router>) -> MakeUp {
    let router = router.clone();
    Box::new(move |node| router.tell(Hint::FunctionsMissed { node: node.id.clone() }))
}

/// Asks all primaries until they listen; returns the error of one that is busy, or the last error once `retry_timeout` is over.
/// With `spares_lost`, primaries that cannot be reached are passed over.
async fn ask_until_all_listen(router: Rc<Router>, when_busy: WhenBusy, spares_lost: bool) -> Option<Bytes> {
    let (begun, mut backoff) = (Instant::now(), BETWEEN_TRIES);
    loop {
        router.refresh();
        // While discovery copies functions to a node, nothing else may change them.
        let differ = router.topology().behind.first().cloned().filter(|_| when_busy == WhenBusy::Alike);
        let lost = match (ask_all(&router, spares_lost).await, differ) {
            (Some(Attention::Busy(error)), _) => return Some(error),
            (Some(Attention::Lost(error)), _) if !spares_lost => error,
            (_, Some(node)) => {
                let label = router.topology().node(&node).map_or_else(|| node.into(), |node| node.label.clone());
                write::error_frame(says::functions_differ(&label))
            }
            _ => return None,
        };
        if begun.elapsed() >= router.timeouts().recovery().timeout {
            return Some(lost);
        }
        // A replica may take its place.
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// Asks all primaries on connections that nobody shares: a node that runs a script answers nothing on the script's own. Returns
/// the first that is busy, or else one that is lost.
async fn ask_all(router: &Rc<Router>, spares_lost: bool) -> Option<Attention> {
    let nodes: Vec<Arc<Node>> = router.topology().owners().cloned().collect();
    let mut asking = JoinSet::new();
    for node in nodes {
        let router = router.clone();
        asking.spawn_local(async move { ask_one(&router, &node).await });
    }
    let (mut lost, mut listen) = (None, false);
    loop {
        let next = match listen && spares_lost {
            true => timeout(GRACE, asking.join_next()).await.ok().flatten(),
            false => asking.join_next().await,
        };
        match next {
            Some(Ok(busy @ Attention::Busy(_))) => return Some(busy),
            Some(Ok(Attention::Listens)) => listen = true,
            Some(Ok(other)) => lost = Some(other),
            Some(Err(_)) => {}
            None => return lost,
        }
    }
}

/// By the proxy's own login: the client's user may not be allowed to ask.
async fn ask_one(router: &Rc<Router>, node: &Arc<Node>) -> Attention {
    let (lane, patience) = (router.first_lane(), router.timeouts().request_timeout());
    match ask_out_of_band(&lane, node, PING, &Rc::default(), patience).await {
        Ok(reply) if reply.starts_with(b"-BUSY ") => Attention::Busy(reply),
        // What is refused for a moment only is tried again.
        Ok(_) => Attention::Listens,
        Err(why) => {
            router.hint(Hint::Unwell { node: node.id.clone() });
            Attention::Lost(why)
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::spawn_local;

    use super::*;
    use crate::upstream::router::scripted::{Scripted, frame, request, within_a_minute};

    #[tokio::test(start_paused = true)]
    async fn one_busy_node_is_enough() {
        within_a_minute(async {
            let mut nodes = Scripted::new(2);
            let (router, flush) = (nodes.router.clone(), request("FUNCTION FLUSH"));
            let topology = router.topology().clone();
            let asking = spawn_local(async move { deaf(router, topology.commands.find(&flush.as_request())).await });
            let (mut first, mut second) = (nodes.node(0).await, nodes.node(1).await);
            first.hears(&frame("PING")).await;
            first.says(b"+PONG\r\n").await;
            second.hears(&frame("PING")).await;
            second.says(b"-BUSY Redis is busy\r\n").await;
            assert_eq!(asking.await.unwrap().unwrap(), "-BUSY Redis is busy\r\n");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_have_to_reach_all_asks_nobody() {
        within_a_minute(async {
            let nodes = Scripted::new(1);
            let (get, topology) = (request("GET foo"), nodes.router.topology().clone());
            assert_eq!(deaf(nodes.router.clone(), topology.commands.find(&get.as_request())).await, None);
        })
        .await;
    }
}

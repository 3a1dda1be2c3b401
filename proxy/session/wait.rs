//! WAIT and WAITAOF: how many replicas have what this client wrote.
//!
//! A node counts for the connection on which it is asked, and the client's writes went by connections that others share.
//! So the proxy counts itself. Once the line has settled, every node that the client has written to says how far its
//! replication stream has come: that is at or behind the client's last write, and a replica that acknowledges as much has
//! all its writes. The reply is the least count of these nodes.
//!
//! A number is only given where it is sure to be about the same process with the same data as when the client wrote:
//! a node that has restarted or has lost its role since, may have lost the writes, and the client is told so, once.

mod offsets;

use std::{cell::Cell, rc::Rc, time::Duration};

use bytes::Bytes;

use self::offsets::{count, count_synced};
use super::{
    blocking::{Blocked, Interrupt, told},
    caller::Caller,
};
use crate::{
    clients::Unblock,
    cluster::topology::Route,
    protocol::{
        resp::{Request, request::decimal, write},
        says,
    },
};

/// What a WAIT asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaitTerms {
    replicas: i64,
    /// `None` is for ever.
    timeout: Option<Duration>,
}

impl WaitTerms {
    /// Reads a count and a timeout; `None` where the server would refuse them.
    fn parse(replicas: &[u8], timeout: &[u8]) -> Option<WaitTerms> {
        let timeout = u64::try_from(decimal(timeout)?).ok()?;
        let timeout = (timeout > 0).then(|| Duration::from_millis(timeout));
        Some(WaitTerms { replicas: decimal(replicas)?, timeout })
    }
}

/// How many replicas of a node, and whether the node itself (WAITAOF), have what was written.
type Counts = (i64, i64);

/// A WAIT or WAITAOF.
pub(super) struct Wait {
    wanted: WaitTerms,
    /// How many nodes themselves have to have it on their disks, for WAITAOF.
    local: Option<i64>,
}

impl Wait {
    /// WAIT; `None` where servers refuse it.
    pub(super) fn for_replicas(request: &Request<'_>) -> Option<Wait> {
        Some(Wait { wanted: WaitTerms::parse(request.arg(1), request.arg(2))?, local: None })
    }

    /// WAITAOF; `None` where servers refuse it.
    pub(super) fn for_disks(request: &Request<'_>) -> Option<Wait> {
        let wanted = WaitTerms::parse(request.arg(2), request.arg(3)).filter(|wanted| wanted.replicas >= 0)?;
        let local = decimal(request.arg(1)).filter(|local| (0..=1).contains(local))?;
        Some(Wait { wanted, local: Some(local) })
    }

    /// The reply, once there is what is wanted, or the time is over; `None` where the proxy ends.
    pub(super) async fn run(self, caller: Caller) -> Option<Bytes> {
        let known = Rc::new(Cell::new((0, 0)));
        let _blocked = Blocked::new(caller.client.clone(), caller.router.tally().clone());
        tokio::select! {
            biased;
            counted = self.count(&caller, known.clone()) => {
                Some(counted.map_or_else(|error| write::error_frame(&error), |counts| self.reply(counts)))
            }
            told = told(&caller.client) => match told {
                Interrupt::Unblock(Unblock::Timeout) => Some(self.reply(known.get())),
                told => told.reply(false),
            },
        }
    }

    /// Counts until there is what is wanted; `known` gets the counts so far.
    async fn count(&self, caller: &Caller, known: Rc<Cell<Counts>>) -> Result<Counts, String> {
        let (router, line) = (caller.router.clone(), caller.line.clone());
        let WaitTerms { replicas, timeout } = self.wanted;
        match self.local {
            Some(local) => count_synced(router, line, (local, replicas), timeout, known).await,
            None => {
                let deadline = timeout.and_then(|timeout| router.clock().tick().checked_add(timeout));
                count(router, line, replicas, deadline, known).await
            }
        }
    }

    fn reply(&self, (local, replicas): Counts) -> Bytes {
        let mut out = Vec::new();
        if self.local.is_some() {
            write::array(&mut out, 2);
            write::integer(&mut out, local);
        }
        write::integer(&mut out, replicas);
        out.into()
    }
}

/// The reply to WAIT as it is within a transaction, where it does not wait.
pub(super) async fn wait_in_transaction(caller: &Caller, request: &Request<'_>) -> Bytes {
    let Some(wait) = Wait::for_replicas(request) else { return server_says(caller, request).await };
    let known = Rc::new(Cell::new((0, 0)));
    let now = Some(caller.router.clock().tick());
    let counted = count(caller.router.clone(), caller.line.clone(), wait.wanted.replicas, now, known).await;
    counted.map_or_else(|error| write::error_frame(&error), |counts| wait.reply(counts))
}

/// What a node says of a request that it will refuse, on a connection that nobody shares.
pub(super) async fn server_says(caller: &Caller, request: &Request<'_>) -> Bytes {
    let Some(node) = caller.router.node_for(Route::Any, caller.affinity) else {
        return write::error_frame(caller.router.topology().down());
    };
    let timeouts = caller.router.timeouts();
    let said = async {
        let mut connection = caller.lane.pool().take(&node).await?;
        let mut replies = connection.exchange(request.frame(), 1, timeouts.request_timeout()).await?;
        connection.give_back();
        Ok::<_, Box<dyn std::error::Error>>(replies.pop())
    };
    match said.await {
        Ok(Some(reply)) => reply,
        Ok(None) => write::error_frame(says::ODD_REPLIES),
        Err(why) => write::error_frame(says::could_not_ask(&node.label, why)),
    }
}

#[cfg(test)]
mod tests;

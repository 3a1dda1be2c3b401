//! CLIENT TRACKING: nodes tell which keys change, so that the client may keep what it has read.
//!
//! A node remembers what *a connection* has read, and its messages have their place among that connection's replies. So a
//! tracking client gets a lane of its own, with a link to each primary that has asked for tracking before anything else;
//! all that the client sends goes that way, and messages go back behind the replies that came before them
//! ([`crate::upstream::ticket::Line::push_behind`]).
//!
//! What has a connection of its own all the same, a transaction with WATCH or a blocking read, no node remembers: what the
//! client has read there it is told to forget at once. Nor does NOLOOP know of what is written there.
//!
//! No change is ever missed in silence. Where a link is lost, or a slot goes to another node, the client is told to
//! forget all that it holds, as by FLUSHALL; that is counted and logged.

mod command;
mod invalidations;
mod options;
mod overlap;

use std::{
    collections::BTreeSet,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::Context,
    time::Duration,
};

use bytes::Bytes;

use self::invalidations::Invalidations;
pub(super) use self::{
    command::{info, redirect},
    invalidations::INVALIDATE,
};
use super::caller::Caller;
use crate::{
    clients::Mark,
    cluster::topology::{Node, Topology},
    commands::{database::Database, table::Spec},
    protocol::{
        resp::Request,
        says,
        slot::{SLOTS, Slot},
    },
    upstream::{
        dial::{self, TrackingMode, Version},
        ticket::{Caching, Line},
    },
};

/// How long CLIENT TRACKING waits for nodes where it can do without: what is read there later is tracked all the same.
const SHORT_WAIT: Duration = Duration::from_millis(250);

/// A client's tracking.
pub(super) struct Tracking {
    mode: TrackingMode,
    /// Of the mode BCAST; the empty one is all keys.
    prefixes: BTreeSet<Bytes>,
    noloop: bool,
    /// The database of its own that the client works in: nodes know its prefixes as they are kept there.
    database: Option<Arc<Database>>,
    /// The client that the messages go to; 0: this one.
    redirect: u64,
    /// Nodes tell on connections beside the client's own: whatever it speaks itself, the client that it has named is told.
    apart: bool,
    /// `None` until it has begun.
    invalidations: Option<Rc<Invalidations>>,
    /// CLIENT CACHING was said: it counts for the next command.
    caching: bool,
    /// The client is to forget all that it holds, once all that is on its way has come.
    owes_flush: Option<&'static str>,
    /// The topology that the links follow.
    topology: Arc<Topology>,
    /// The client has been told that there is a newer one.
    warned: bool,
    news: Pin<Box<dyn Future<Output = ()>>>,
}

impl Tracking {
    /// Bytes that the prefixes take, here and in the logins of the links.
    pub(super) fn size(&self) -> usize {
        const EACH: usize = 256;
        self.prefixes.iter().map(|prefix| prefix.len() + EACH).sum()
    }

    /// CLIENT CACHING.
    pub(super) fn set_caching(&mut self, request: &Request<'_>) -> Result<(), &'static str> {
        let (yes, no) = (request.is(2, "YES"), request.is(2, "NO"));
        match self.mode {
            TrackingMode::OptIn if yes => self.caching = true,
            TrackingMode::OptOut if no => self.caching = true,
            TrackingMode::Read | TrackingMode::Broadcast | TrackingMode::OptIn | TrackingMode::OptOut => {
                return Err(match (yes, no) {
                    (true, _) => says::CACHING_YES,
                    (false, true) => says::CACHING_NO,
                    (false, false) => says::SYNTAX,
                });
            }
        }
        Ok(())
    }

    /// What CLIENT CACHING says of the next command.
    pub(super) fn caching(&self) -> Caching {
        if !self.caching || self.invalidations.is_none() {
            return Caching::AsEver;
        }
        match self.mode {
            TrackingMode::OptIn => Caching::Yes,
            TrackingMode::OptOut => Caching::No,
            TrackingMode::Read | TrackingMode::Broadcast => Caching::AsEver,
        }
    }

    /// A command has been carried out: CLIENT CACHING was for it.
    pub(super) fn caching_is_over(&mut self, spec: Option<&Spec>) {
        self.caching &= spec.is_some_and(|spec| spec.traits.about_clients);
    }

    /// Something is read in a way that no node remembers: what the client keeps of it must go again.
    pub(super) fn reads_untracked(&mut self) {
        let kept = match self.mode {
            TrackingMode::Read => true,
            TrackingMode::OptIn => self.caching() == Caching::Yes,
            TrackingMode::OptOut => self.caching() != Caching::No,
            TrackingMode::Broadcast => false,
        };
        if kept {
            self.owe_flush("read where no node remembers it");
        }
    }

    /// The client is to forget all that it holds, once all that is on its way has come.
    pub(super) fn owe_flush(&mut self, why: &'static str) {
        self.owes_flush = Some(why);
    }

    /// Has the client forget what it was to forget, once all that it has asked for has been answered.
    pub(super) fn pay_flush(&mut self, line: &Line) {
        if line.is_settled()
            && let Some(why) = self.owes_flush.take()
            && let Some(invalidations) = &self.invalidations
        {
            invalidations.flush(why);
        }
    }

    /// Follows the topology.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, caller: &Caller) {
        while self.news.as_mut().poll(cx).is_ready() {
            self.news = caller.router.next_news();
            caller.router.refresh();
        }
        if caller.line.is_settled() {
            return self.follow(caller);
        }
        let Some(invalidations) = &self.invalidations else { return };
        if self.topology.epoch != caller.router.epoch() && !self.warned {
            // Once more when what is on its way has come: it may be from before.
            self.warned = true;
            if moved(&self.topology, &caller.router.topology()) {
                invalidations.flush("slots have moved");
            }
        }
    }

    /// Adapts to a new topology. To be called before anything is sent under it, and when nothing is in flight.
    pub(super) fn follow(&mut self, caller: &Caller) {
        if self.topology.epoch == caller.router.epoch() {
            return;
        }
        let newest = caller.router.topology().clone();
        let old = std::mem::replace(&mut self.topology, newest);
        self.warned = false;
        let Some(invalidations) = &self.invalidations else { return };
        let let_go = caller.lane.cover(&caller.router);
        if let_go || moved(&old, &self.topology) {
            invalidations.flush("slots have moved");
        }
    }

    /// Gives the client a new lane of its own, for the login that it has now. What nodes remember of the old links is lost,
    /// so that the client must forget it too; `why`, where there can be any.
    pub(super) fn lay_lane(&mut self, caller: &mut Caller, why: Option<&'static str>) {
        let (login, resp3) = (caller.lane.login().clone(), caller.speaks_resp3());
        self.apart = self.redirect != 0;
        if let Some(old) = self.invalidations.take() {
            old.close();
        }
        self.topology = caller.router.topology().clone();
        self.database = caller.database.as_ref().map(|inside| inside.database.clone());
        self.owes_flush = self.owes_flush.or(why);
        let invalidations = Invalidations::new(&caller.router, &caller.line, &caller.client, self, resp3);
        caller.lane = caller.router.private_lane(&login, self.wanted(), invalidations.clone());
        caller.lane.cover(&caller.router);
        self.invalidations = Some(invalidations);
    }

    /// The client speaks another version of RESP from now on, by the links that it has, of which nodes forget nothing. False
    /// where that cannot be: then it needs a new lane.
    pub(super) async fn speak(&mut self, caller: &mut Caller, version: Version) -> bool {
        let Some(invalidations) = &self.invalidations else { return false };
        // In RESP2 nodes say nothing on the client's own connections.
        if version == Version::Resp2 && self.redirect != 0 && !self.apart {
            return false;
        }
        let lane = caller.lane.speaking(&caller.router, version);
        if !command::ask_all(caller, lane.hello()).await {
            return false;
        }
        caller.lane = lane;
        invalidations.resp3.set(version == Version::Resp3);
        true
    }

    /// Ready once the nodes listen, or with the error of one that does not allow it; `None` where there is none to listen.
    fn opening(&self, caller: &Caller) -> Option<impl Future<Output = Result<(), String>> + use<>> {
        let invalidations = self.invalidations.clone()?;
        let owners: Vec<_> = caller.router.topology().owners().cloned().collect();
        let patience = match self.mode {
            TrackingMode::Broadcast => caller.router.timeouts().recovery().timeout,
            TrackingMode::Read | TrackingMode::OptIn | TrackingMode::OptOut => SHORT_WAIT,
        };
        Some(async move {
            let opened = poll_fn(|cx| invalidations.poll_opened(cx, &owners));
            let opened = tokio::time::timeout(patience, opened).await;
            invalidations.begin();
            opened.unwrap_or(Ok(()))
        })
    }

    /// Ends it, and releases all that it holds.
    pub(super) fn end(self, caller: &mut Caller) {
        for mark in [Mark::Tracking, Mark::Broadcast, Mark::BrokenRedirect] {
            caller.client.mark(mark, false);
        }
        if self.invalidations.is_some() {
            caller.lane = caller.router.lane(caller.lane.login());
        }
    }

    /// What nodes are asked for.
    fn wanted(&self) -> dial::TrackingRequest {
        // The empty prefix is all keys, and so is none.
        let all = self.prefixes.contains(&Bytes::new());
        let prefixes = self.as_kept(self.prefixes.iter().filter(|_| !all));
        dial::TrackingRequest { mode: self.mode, prefixes, noloop: self.noloop, apart: self.apart, redirect: None }
    }

    /// Prefixes as nodes know them; none are all keys that the client may see.
    fn as_kept<'a>(&self, prefixes: impl IntoIterator<Item = &'a Bytes>) -> Vec<Bytes> {
        let Some(database) = self.database.as_ref().filter(|_| self.mode == TrackingMode::Broadcast) else {
            return prefixes.into_iter().cloned().collect();
        };
        let kept = |prefix: &[u8]| Bytes::from([database.prefix(), prefix].concat());
        let all: Vec<Bytes> = prefixes.into_iter().map(|prefix| kept(prefix)).collect();
        if all.is_empty() { vec![kept(b"")] } else { all }
    }
}

impl Drop for Tracking {
    fn drop(&mut self) {
        if let Some(invalidations) = &self.invalidations {
            invalidations.close();
        }
    }
}

/// Whether some slot has another owner, or the same at another address.
fn moved(old: &Topology, new: &Topology) -> bool {
    let alike = |node: &Arc<Node>| new.nodes.iter().position(|other| other.id == node.id && other.reach == node.reach);
    let alike: Vec<Option<usize>> = old.nodes.iter().map(alike).collect();
    (0..SLOTS as u64).filter_map(Slot::new).any(|slot| match (old.owner_index(slot), new.owner_index(slot)) {
        (Some(before), Some(now)) => alike.get(before).copied().flatten() != Some(now),
        (None, None) => false,
        _ => true,
    })
}

#[cfg(test)]
mod tests;

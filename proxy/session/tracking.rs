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

mod invalidations;
mod options;
mod overlap;

use std::{
    collections::BTreeSet,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Context,
    time::Duration,
};

use bytes::Bytes;
use tokio::task::JoinSet;

use self::{invalidations::Invalidations, options::Options};
use super::{Flow, Session, alone::Work, ask::ask, attend::Eof};
use crate::{
    clients::{Mail, Mark},
    cluster::topology::{Node, Topology},
    commands::table::{Spec, treatment::Client},
    metrics::Disconnect,
    protocol::{
        resp::{Request, write},
        says,
        slot::{SLOTS, Slot},
    },
    upstream::{
        dial::{self, TrackingMode},
        ticket::Caching,
    },
};

/// How long CLIENT TRACKING waits for nodes where it can do without: what is read there later is tracked all the same.
const SHORT_WAIT: Duration = Duration::from_millis(250);
const OK: &[u8] = b"+OK\r\n";

/// A client's tracking.
pub(super) struct Tracking {
    mode: TrackingMode,
    /// Of the mode BCAST; the empty one is all keys.
    prefixes: BTreeSet<Bytes>,
    noloop: bool,
    /// The client that the messages go to; 0: this one.
    redirect: u64,
    /// `None` where nobody could be told: the client speaks RESP2, and has named no other.
    invalidations: Option<Rc<Invalidations>>,
    /// CLIENT CACHING was said: it counts for the next command.
    caching: bool,
    /// The client is to forget all that it holds, once all that is on its way has come.
    owes_flush: Option<&'static str>,
    /// The topology that the links follow.
    topology: Arc<Topology>,
    /// It has been told that there is a newer one.
    warned: bool,
    news: Pin<Box<dyn Future<Output = ()>>>,
}

impl Tracking {
    /// Bytes that the prefixes take, here and in the logins of the links.
    pub(super) fn size(&self) -> usize {
        const EACH: usize = 256;
        self.prefixes.iter().map(|prefix| prefix.len() + EACH).sum()
    }
}

impl Session {
    /// CLIENT TRACKING and its kin.
    pub(super) fn tracking_command(&mut self, sub: Client, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        match sub {
            Client::Caching => match self.set_caching(request) {
                Ok(()) => self.answer(spec, OK),
                Err(error) => self.refuse(spec, error.as_bytes()),
            },
            Client::Getredir => {
                let redirect = self.tracking.as_ref().map_or(-1, |tracking| tracking.redirect as i64);
                self.answer_with(spec, |out| write::integer(out, redirect))
            }
            Client::Trackinginfo => self.answer_with(spec, |out| self.tracking_info(out)),
            // The lane changes: nothing may be in flight.
            _ => Flow::alone(Work::Tracking),
        }
    }

    fn set_caching(&mut self, request: &Request<'_>) -> Result<(), &'static str> {
        let Some(tracking) = &mut self.tracking else { return Err(says::CACHING_WITHOUT_TRACKING) };
        let (yes, no) = (request.is(2, "YES"), request.is(2, "NO"));
        match tracking.mode {
            TrackingMode::OptIn if yes => tracking.caching = true,
            TrackingMode::OptOut if no => tracking.caching = true,
            _ if yes => return Err(says::CACHING_YES),
            _ if no => return Err(says::CACHING_NO),
            _ => return Err(says::SYNTAX),
        }
        Ok(())
    }

    fn tracking_info(&self, out: &mut Vec<u8>) {
        let resp3 = self.caller.speaks_resp3();
        let mut flags = Vec::new();
        let (mut redirect, mut prefixes) = (-1, Vec::new());
        match &self.tracking {
            None => flags.push("off"),
            Some(tracking) => {
                flags.push("on");
                match tracking.mode {
                    TrackingMode::Read => {}
                    TrackingMode::Broadcast => flags.push("bcast"),
                    TrackingMode::OptIn => {
                        flags.extend(["optin"].into_iter().chain(tracking.caching.then_some("caching-yes")))
                    }
                    TrackingMode::OptOut => {
                        flags.extend(["optout"].into_iter().chain(tracking.caching.then_some("caching-no")))
                    }
                }
                flags.extend(tracking.noloop.then_some("noloop"));
                flags.extend(self.caller.client.has(Mark::BrokenRedirect).then_some("broken_redirect"));
                redirect = tracking.redirect as i64;
                prefixes = tracking.prefixes.iter().collect();
            }
        }
        write::head(out, if resp3 { b'%' } else { b'*' }, if resp3 { 3 } else { 6 });
        write::bulk(out, b"flags");
        write::head(out, if resp3 { b'~' } else { b'*' }, flags.len() as i64);
        flags.iter().for_each(|flag| write::bulk(out, flag.as_bytes()));
        write::bulk(out, b"redirect");
        write::integer(out, redirect);
        write::bulk(out, b"prefixes");
        write::array(out, prefixes.len());
        prefixes.iter().for_each(|prefix| write::bulk(out, prefix));
    }

    /// `CLIENT TRACKING ON|OFF ...`; `None` where the client has gone.
    pub(super) async fn set_tracking(&mut self, request: &Request<'_>) -> Option<Vec<u8>> {
        let asked = Options::parse(request, self.caller.router.clients());
        let checked = asked.and_then(|asked| {
            if request.is(2, "ON") {
                asked.check(self.tracking.as_deref())?;
            } else if !request.is(2, "OFF") {
                return Err(says::SYNTAX.into());
            }
            Ok(asked)
        });
        let asked = match checked {
            Ok(asked) => asked,
            Err(error) => return Some(frame(&error)),
        };
        if request.is(2, "OFF") {
            self.end_tracking();
            return Some(OK.to_vec());
        }
        match self.begin_tracking(asked).await {
            Ok(Ok(())) => Some(OK.to_vec()),
            Ok(Err(error)) => {
                self.end_tracking();
                Some(frame(error.as_bytes()))
            }
            Err(reason) => {
                self.ending = Some(reason);
                None
            }
        }
    }

    /// Begins; an error of a node's, or else of the client's own.
    async fn begin_tracking(&mut self, asked: Options) -> Result<Result<(), String>, Disconnect> {
        self.caller.router.refresh();
        // Here, and in what each node is being told.
        let copies = 1 + self.caller.router.topology().owners().count();
        self.waits_with(copies * asked.prefixes.iter().map(Bytes::len).sum::<usize>());
        let before = self.tracking.take();
        let mut prefixes = before.as_ref().map(|tracking| tracking.prefixes.clone()).unwrap_or_default();
        if asked.mode == TrackingMode::Broadcast && asked.prefixes.is_empty() {
            prefixes.insert(Bytes::new());
        }
        prefixes.extend(asked.prefixes.iter().cloned());
        self.caller.client.mark(Mark::Tracking, true);
        self.caller.client.mark(Mark::Broadcast, asked.mode == TrackingMode::Broadcast);
        self.caller.client.mark(Mark::BrokenRedirect, false);
        self.caller.client.redirect.store(asked.redirect as i64, Relaxed);
        let current = self.caller.router.topology().clone();
        let mut tracking = Box::new(Tracking {
            mode: asked.mode,
            prefixes,
            noloop: asked.noloop,
            redirect: asked.redirect,
            invalidations: None,
            caching: before.as_ref().is_some_and(|before| before.caching),
            owes_flush: before.as_ref().and_then(|before| before.owes_flush),
            topology: before.as_ref().map_or(current, |before| before.topology.clone()),
            warned: before.as_ref().is_some_and(|before| before.warned),
            news: self.caller.router.next_news(),
        });
        let before = before.map(|mut before| (before.invalidations.take(), before.wanted()));
        // In broadcasts nothing of the past is told: who was not told by then has no need to forget.
        let remembers = |invalidations: &Option<Rc<Invalidations>>| {
            invalidations.is_some() || asked.mode != TrackingMode::Broadcast
        };
        let forgets = before.as_ref().is_some_and(|(invalidations, _)| remembers(invalidations));
        match before {
            Some((Some(invalidations), wanted)) if self.caller.speaks_resp3() || asked.redirect != 0 => {
                invalidations.redirect.set(asked.redirect);
                let (all, new) = (tracking.wanted(), dial::Tracking { prefixes: asked.prefixes, ..tracking.wanted() });
                tracking.invalidations = Some(invalidations);
                self.tracking = Some(tracking);
                if all == wanted || self.track_more(&all, &new).await? {
                    self.follow_tracking();
                    return self.wait_for_nodes().await;
                }
            }
            other => {
                other.and_then(|(invalidations, _)| invalidations).inspect(|invalidations| invalidations.close());
                self.tracking = Some(tracking);
            }
        }
        self.lay_lane(forgets.then_some("its tracking has changed"));
        self.wait_for_nodes().await
    }

    /// Asks the nodes for what is new in the client's tracking, on the connections that they know it by: what they remember
    /// stays. Whether all of them consent.
    async fn track_more(&mut self, all: &dial::Tracking, new: &dial::Tracking) -> Result<bool, Disconnect> {
        let mut asking = JoinSet::new();
        for (link, frame) in self.caller.lane.track(all, new) {
            let router = self.caller.router.clone();
            asking.spawn_local(async move { ask(&router, &link, &frame).await.is_ok_and(|reply| *reply == *OK) });
        }
        let consent = async move {
            let mut all = true;
            while let Some(one) = asking.join_next().await {
                all &= one.unwrap_or(false);
            }
            all
        };
        self.attend(consent, Eof::Lingers).await
    }

    /// Waits until the nodes listen; an error where one does not allow it.
    async fn wait_for_nodes(&mut self) -> Result<Result<(), String>, Disconnect> {
        let Some(tracking) = &self.tracking else { return Ok(Ok(())) };
        let Some(invalidations) = tracking.invalidations.clone() else { return Ok(Ok(())) };
        let owners: Vec<_> = self.caller.router.topology().owners().cloned().collect();
        let patience = match tracking.mode {
            TrackingMode::Broadcast => self.caller.router.context().recovery.timeout,
            _ => SHORT_WAIT,
        };
        let opened = {
            let invalidations = invalidations.clone();
            poll_fn(move |cx| invalidations.poll_opened(cx, &owners))
        };
        let opened = self.attend(tokio::time::timeout(patience, opened), Eof::Lingers).await?;
        invalidations.begin();
        Ok(opened.unwrap_or(Ok(())))
    }

    /// Ends it, and releases all that it holds.
    pub(super) fn end_tracking(&mut self) {
        let Some(tracking) = self.tracking.take() else { return };
        for mark in [Mark::Tracking, Mark::Broadcast, Mark::BrokenRedirect] {
            self.caller.client.mark(mark, false);
        }
        if tracking.invalidations.is_some() {
            self.caller.lane = self.caller.router.lane(self.caller.lane.login());
        }
    }

    /// Gives a tracking session a new lane of its own, for the login that it has now. What nodes remember of the old
    /// links is lost, so that the client must forget it too; `why`, where there can be any.
    pub(super) fn lay_lane(&mut self, why: Option<&'static str>) {
        let (login, resp3) = (self.caller.lane.login().clone(), self.caller.speaks_resp3());
        let Some(tracking) = &mut self.tracking else { return };
        if let Some(old) = tracking.invalidations.take() {
            old.close();
        }
        tracking.topology = self.caller.router.topology().clone();
        tracking.owes_flush = tracking.owes_flush.or(why);
        if !resp3 && tracking.redirect == 0 {
            self.caller.lane = self.caller.router.lane(&login);
            return;
        }
        let invalidations =
            Invalidations::new(&self.caller.router, &self.caller.line, &self.caller.client, tracking, resp3);
        self.caller.lane = self.caller.router.private_lane(&login, tracking.wanted(), invalidations.clone());
        self.caller.lane.cover(&self.caller.router);
        tracking.invalidations = Some(invalidations);
    }

    /// What CLIENT CACHING says of the next command.
    pub(super) fn caching(&self) -> Caching {
        match self.tracking.as_deref() {
            Some(Tracking { mode: TrackingMode::OptIn, caching: true, invalidations: Some(_), .. }) => Caching::Yes,
            Some(Tracking { mode: TrackingMode::OptOut, caching: true, invalidations: Some(_), .. }) => Caching::No,
            _ => Caching::AsEver,
        }
    }

    /// A command has been carried out: CLIENT CACHING was for it, or for its whole transaction.
    pub(super) fn caching_is_over(&mut self, spec: Option<&Spec>) {
        let about_client = spec.is_some_and(|spec| spec.name.starts_with("client|"));
        if let Some(tracking) = &mut self.tracking
            && self.transaction.is_none()
            && !about_client
        {
            tracking.caching = false;
        }
    }

    /// Something is read in a way that no node remembers: what the client keeps of it must go again.
    pub(super) fn reads_untracked(&mut self) {
        let caching = self.caching();
        let Some(tracking) = &self.tracking else { return };
        let kept = match tracking.mode {
            TrackingMode::Read => true,
            TrackingMode::OptIn => caching == Caching::Yes,
            TrackingMode::OptOut => caching != Caching::No,
            TrackingMode::Broadcast => false,
        };
        if kept {
            self.owe_flush("read where no node remembers it");
        }
    }

    /// The client is to forget all that it holds, once all that is on its way has come.
    pub(super) fn owe_flush(&mut self, why: &'static str) {
        if let Some(tracking) = &mut self.tracking {
            tracking.owes_flush = Some(why);
        }
    }

    /// Passes on what others have left for this client, and follows the topology.
    pub(super) fn poll_tracking(&mut self, cx: &mut Context<'_>) {
        if self.caller.client.has_mail() {
            self.pass_on_mail();
        }
        let Some(tracking) = &mut self.tracking else { return };
        while tracking.news.as_mut().poll(cx).is_ready() {
            tracking.news = self.caller.router.next_news();
            self.caller.router.refresh();
        }
        let settled = self.caller.line.is_settled();
        if settled {
            self.follow_tracking();
        }
        let Some(tracking) = &mut self.tracking else { return };
        let Some(invalidations) = &tracking.invalidations else { return };
        if !settled && tracking.topology.epoch != self.caller.router.epoch() && !tracking.warned {
            // Once more when what is on its way has come: it may be from before.
            tracking.warned = true;
            if moved(&tracking.topology, &self.caller.router.topology()) {
                invalidations.flush("slots have moved");
            }
        }
    }

    /// Has the client forget what it was to forget, once all that it has asked for has been answered.
    pub(super) fn pay_flush(&mut self) {
        if let Some(tracking) = &mut self.tracking
            && self.caller.line.is_settled()
            && let Some(why) = tracking.owes_flush.take()
            && let Some(invalidations) = &tracking.invalidations
        {
            invalidations.flush(why);
        }
    }

    /// Adapts to a new topology. To be called before anything is sent under it, and when nothing is in flight.
    pub(super) fn follow_tracking(&mut self) {
        let Some(tracking) = &mut self.tracking else { return };
        if tracking.topology.epoch == self.caller.router.epoch() {
            return;
        }
        let newest = self.caller.router.topology().clone();
        let old = std::mem::replace(&mut tracking.topology, newest);
        tracking.warned = false;
        let Some(invalidations) = &tracking.invalidations else { return };
        let let_go = self.caller.lane.cover(&self.caller.router);
        if let_go || moved(&old, &tracking.topology) {
            invalidations.flush("slots have moved");
        }
    }

    /// What other sessions have left for this client, in the form that it understands.
    pub(super) fn pass_on_mail(&mut self) {
        self.is_told = true;
        let subscribes = self.caller.client.subscriptions.iter().any(|count| count.load(Relaxed) > 0);
        let head: Option<&[u8]> = match self.caller.speaks_resp3() {
            true => Some(invalidations::INVALIDATE),
            false if subscribes => Some(b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n"),
            // There is no way to say it.
            false => None,
        };
        for mail in self.caller.client.take_mail() {
            match mail {
                Mail::Changed(keys) => {
                    if let Some(head) = head {
                        self.caller.line.push_behind(&[head, &keys].concat());
                    }
                }
                Mail::Shown(line) if self.monitor.is_some() => self.caller.line.push(&line),
                // From before it stopped to monitor.
                Mail::Shown(_) => {}
            }
        }
    }
}

impl Tracking {
    /// What nodes are asked for.
    fn wanted(&self) -> dial::Tracking {
        // The empty prefix is all keys, and so is none.
        let all = self.prefixes.contains(&Bytes::new());
        let prefixes = if all { Vec::new() } else { self.prefixes.iter().cloned().collect() };
        dial::Tracking { mode: self.mode, prefixes, noloop: self.noloop, redirect: None }
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

fn frame(error: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write::error(&mut frame, error);
    frame
}

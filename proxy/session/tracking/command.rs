//! CLIENT TRACKING, as it is said: what changes in a client's tracking, and what is told of it.

use std::{future::Future, pin::pin, rc::Rc, sync::atomic::Ordering::Relaxed};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{Tracking, invalidations::Invalidations, options::Options};
use crate::{
    clients::Mark,
    protocol::{
        resp::{Request, write},
        says,
    },
    session::{ask::ask, attend::Eof, caller::Caller, dispatch::Dispatcher, work::Job},
    upstream::{
        dial::{self, TrackingMode},
        link::Link,
    },
};

const OK: &[u8] = b"+OK\r\n";

impl Job<'_> {
    /// `CLIENT TRACKING ON|OFF ...`; `None` where the client has gone.
    pub(in crate::session) async fn set_tracking(&mut self, request: &Request<'_>) -> Option<Bytes> {
        let Dispatcher { caller, listening, .. } = &mut self.session.dispatcher;
        let begun = match asked(caller, listening.tracking.as_deref(), request) {
            Ok(None) => {
                listening.end_tracking(caller);
                Ok(())
            }
            Ok(Some(asked)) => match self.begin_tracking(asked).await? {
                Ok(()) => Ok(()),
                Err(error) => {
                    let Dispatcher { caller, listening, .. } = &mut self.session.dispatcher;
                    listening.end_tracking(caller);
                    Err(error.into_bytes())
                }
            },
            Err(error) => Err(error),
        };
        Some(match begun {
            Ok(()) => Bytes::from_static(OK),
            Err(error) => write::error_frame(error),
        })
    }

    /// Begins; an error of a node's. `None` where the client has gone.
    async fn begin_tracking(&mut self, asked: Options) -> Option<Result<(), String>> {
        let Dispatcher { caller, listening, account, .. } = &mut self.session.dispatcher;
        caller.router.refresh();
        // Here, and in what each node is being told.
        let copies = 1 + caller.router.topology().owners().count();
        account.add_to_work(copies * asked.prefixes.iter().map(Bytes::len).sum::<usize>());
        let change = tracking_changes(&mut listening.tracking, caller, asked);
        self.session.keep_account();
        let keeps = match change.lane {
            LaneChange::Kept => true,
            LaneChange::Asked(all, new) => {
                let consent = ask_all(self.caller(), self.caller().lane.track(&all, &new));
                self.session.attend_to(pin!(consent), Eof::Lingers).await?
            }
            LaneChange::New => false,
        };
        let Dispatcher { caller, listening, .. } = &mut self.session.dispatcher;
        if keeps {
            listening.follow(caller);
        } else {
            listening.lay_lane(caller, change.forgets.then_some("its tracking has changed"));
        }
        self.await_tracking().await
    }

    /// Waits until nodes tell what the client tracks; a node's error. `None` where the client has gone.
    pub(in crate::session) async fn await_tracking(&mut self) -> Option<Result<(), String>> {
        let Dispatcher { caller, listening, .. } = &self.session.dispatcher;
        match listening.tracking.as_ref().and_then(|tracking| tracking.opening(caller)) {
            Some(opening) => self.session.attend_to(pin!(opening), Eof::Lingers).await,
            None => Some(Ok(())),
        }
    }
}

/// What a client asks to track from now on; `None` for OFF. The error of what cannot be.
fn asked(caller: &Caller, before: Option<&Tracking>, request: &Request<'_>) -> Result<Option<Options>, Vec<u8>> {
    let asked = Options::parse(request, |id| caller.find_client(id).is_some())?;
    if request.is(2, "ON") {
        asked.check(before)?;
        Ok(Some(asked))
    } else if request.is(2, "OFF") {
        Ok(None)
    } else {
        Err(says::SYNTAX.into())
    }
}

/// What becomes of a client's lane when it says anew what it tracks.
pub(super) enum LaneChange {
    /// The lane stays.
    Kept,
    /// The lane stays if all nodes consent to be asked for more: for all that is wanted then, and what is new in it.
    Asked(dial::TrackingRequest, dial::TrackingRequest),
    /// There is to be another.
    New,
}

/// What becomes of what nodes know of the client.
pub(super) struct Change {
    pub(super) lane: LaneChange,
    /// Nodes remember something for the client, which it would not be told of by another lane.
    pub(super) forgets: bool,
}

/// The client tracks what it has asked for.
pub(super) fn tracking_changes(tracking: &mut Option<Box<Tracking>>, caller: &Caller, asked: Options) -> Change {
    let before = tracking.take();
    let mut prefixes = before.as_ref().map(|before| before.prefixes.clone()).unwrap_or_default();
    if asked.mode == TrackingMode::Broadcast && asked.prefixes.is_empty() {
        prefixes.insert(Bytes::new());
    }
    prefixes.extend(asked.prefixes.iter().cloned());
    let client = &caller.client;
    client.mark(Mark::Tracking, true);
    client.mark(Mark::Broadcast, asked.mode == TrackingMode::Broadcast);
    client.mark(Mark::BrokenRedirect, false);
    client.redirect.store(asked.redirect as i64, Relaxed);
    let current = caller.router.topology().clone();
    let now = tracking.insert(Box::new(Tracking {
        mode: asked.mode,
        prefixes,
        noloop: asked.noloop,
        database: caller.database.as_ref().map(|inside| inside.database.clone()),
        redirect: asked.redirect,
        apart: asked.redirect != 0 && before.as_ref().is_some_and(|before| before.apart),
        invalidations: None,
        caching: before.as_ref().is_some_and(|before| before.caching),
        owes_flush: before.as_ref().and_then(|before| before.owes_flush),
        topology: before.as_ref().map_or(current, |before| before.topology.clone()),
        warned: before.as_ref().is_some_and(|before| before.warned),
        news: caller.router.next_news(),
    }));
    let before = before.map(|mut before| (before.invalidations.take(), before.wanted()));
    // In broadcasts nothing of the past is told: who was not told by then has no need to forget.
    let remembers =
        |invalidations: &Option<Rc<Invalidations>>| invalidations.is_some() || asked.mode != TrackingMode::Broadcast;
    let forgets = before.as_ref().is_some_and(|(invalidations, _)| remembers(invalidations));
    let lane = match before {
        Some((Some(invalidations), wanted)) if asked.redirect == 0 || now.apart || caller.speaks_resp3() => {
            invalidations.redirect.set(asked.redirect);
            let (all, new) =
                (now.wanted(), dial::TrackingRequest { prefixes: now.as_kept(&asked.prefixes), ..now.wanted() });
            now.invalidations = Some(invalidations);
            if all == wanted { LaneChange::Kept } else { LaneChange::Asked(all, new) }
        }
        other => {
            other.and_then(|(invalidations, _)| invalidations).inspect(|invalidations| invalidations.close());
            LaneChange::New
        }
    };
    Change { lane, forgets }
}

/// Asks nodes something, each on the connection that it knows the client by: what it remembers stays. Whether all of them
/// consent.
pub(super) fn ask_all(caller: &Caller, requests: Vec<(Rc<Link>, Vec<u8>)>) -> impl Future<Output = bool> + use<> {
    let mut asking = JoinSet::new();
    for (link, frame) in requests {
        let router = caller.router.clone();
        let consents = |reply: Bytes| reply.first() != Some(&b'-');
        asking.spawn_local(async move { ask(&router, &link, &frame).await.is_ok_and(consents) });
    }
    async move {
        let mut all = true;
        while let Some(one) = asking.join_next().await {
            all &= one.unwrap_or(false);
        }
        all
    }
}

/// What CLIENT TRACKINGINFO tells.
pub(in crate::session) fn info(tracking: Option<&Tracking>, caller: &Caller, out: &mut Vec<u8>) {
    let resp3 = caller.speaks_resp3();
    let mut flags = Vec::new();
    let (mut redirect, mut prefixes) = (-1, Vec::new());
    match tracking {
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
            flags.extend(caller.client.has(Mark::BrokenRedirect).then_some("broken_redirect"));
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

/// CLIENT GETREDIR: the client that messages go to; -1 where nothing is tracked.
pub(in crate::session) fn redirect(tracking: Option<&Tracking>) -> i64 {
    tracking.map_or(-1, |tracking| tracking.redirect as i64)
}

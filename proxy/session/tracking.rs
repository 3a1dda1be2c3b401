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
    pin::pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Context,
    time::Duration,
};

use bytes::Bytes;
use tokio::task::JoinSet;

pub(super) use self::invalidations::INVALIDATE;
use self::{invalidations::Invalidations, options::Options};
use super::{Session, ask::ask, attend::Eof, caller::Caller};
use crate::{
    clients::Mark,
    cluster::topology::{Node, Topology},
    commands::table::Spec,
    protocol::{
        resp::{Request, write},
        says,
        slot::{SLOTS, Slot},
    },
    upstream::{
        dial::{self, TrackingMode},
        ticket::{Caching, Line},
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

impl Session {
    /// `CLIENT TRACKING ON|OFF ...`; `None` where the client has gone.
    pub(super) async fn set_tracking(&mut self, request: &Request<'_>) -> Option<Vec<u8>> {
        let asked = Options::parse(request, self.caller.router.clients());
        let checked = asked.and_then(|asked| {
            if request.is(2, "ON") {
                asked.check(self.listening.tracking.as_deref())?;
            } else if !request.is(2, "OFF") {
                return Err(says::SYNTAX.into());
            }
            Ok(asked)
        });
        let begun = match checked {
            Ok(_) if request.is(2, "OFF") => {
                self.listening.end_tracking(&mut self.caller);
                Ok(())
            }
            Ok(asked) => match self.begin_tracking(asked).await? {
                Ok(()) => Ok(()),
                Err(error) => {
                    self.listening.end_tracking(&mut self.caller);
                    Err(error.into_bytes())
                }
            },
            Err(error) => Err(error),
        };
        Some(match begun {
            Ok(()) => OK.to_vec(),
            Err(error) => write::error_frame(error).to_vec(),
        })
    }

    /// Begins; an error of a node's. `None` where the client has gone.
    async fn begin_tracking(&mut self, asked: Options) -> Option<Result<(), String>> {
        self.caller.router.refresh();
        // Here, and in what each node is being told.
        let copies = 1 + self.caller.router.topology().owners().count();
        self.waits_with(copies * asked.prefixes.iter().map(Bytes::len).sum::<usize>());
        let change = tracking_changes(&mut self.listening.tracking, &self.caller, asked);
        let keeps = match change.lane {
            LaneChange::Kept => true,
            LaneChange::Asked(all, new) => {
                let consent = ask_for_more(&self.caller, &all, &new);
                self.attend_to(pin!(consent), Eof::Lingers).await?
            }
            LaneChange::New => false,
        };
        if keeps {
            self.listening.follow(&self.caller);
        } else {
            self.listening.lay_lane(&mut self.caller, change.forgets.then_some("its tracking has changed"));
        }
        match self.listening.tracking.as_ref().and_then(|tracking| tracking.opening(&self.caller)) {
            Some(opening) => self.attend_to(pin!(opening), Eof::Lingers).await,
            None => Some(Ok(())),
        }
    }
}

/// What becomes of a client's lane when it says anew what it tracks.
enum LaneChange {
    /// It stays.
    Kept,
    /// It stays if all nodes consent to be asked for more: for all that is wanted then, and what is new in it.
    Asked(dial::Tracking, dial::Tracking),
    /// There is to be another.
    New,
}

struct Change {
    lane: LaneChange,
    /// Nodes remember something for the client, which it would not be told of by another lane.
    forgets: bool,
}

/// The client tracks what it has asked for.
fn tracking_changes(tracking: &mut Option<Box<Tracking>>, caller: &Caller, asked: Options) -> Change {
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
        redirect: asked.redirect,
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
        Some((Some(invalidations), wanted)) if caller.speaks_resp3() || asked.redirect != 0 => {
            invalidations.redirect.set(asked.redirect);
            let (all, new) = (now.wanted(), dial::Tracking { prefixes: asked.prefixes, ..now.wanted() });
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

/// Asks the nodes for what is new in the client's tracking, on the connections that they know it by: what they remember
/// stays. Whether all of them consent.
fn ask_for_more(caller: &Caller, all: &dial::Tracking, new: &dial::Tracking) -> impl Future<Output = bool> + use<> {
    let mut asking = JoinSet::new();
    for (link, frame) in caller.lane.track(all, new) {
        let router = caller.router.clone();
        asking.spawn_local(async move { ask(&router, &link, &frame).await.is_ok_and(|reply| *reply == *OK) });
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
pub(super) fn info(tracking: Option<&Tracking>, caller: &Caller, out: &mut Vec<u8>) {
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
pub(super) fn redirect(tracking: Option<&Tracking>) -> i64 {
    tracking.map_or(-1, |tracking| tracking.redirect as i64)
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
            _ if yes => return Err(says::CACHING_YES),
            _ if no => return Err(says::CACHING_NO),
            _ => return Err(says::SYNTAX),
        }
        Ok(())
    }

    /// What CLIENT CACHING says of the next command.
    pub(super) fn caching(&self) -> Caching {
        match self.mode {
            TrackingMode::OptIn if self.caching && self.invalidations.is_some() => Caching::Yes,
            TrackingMode::OptOut if self.caching && self.invalidations.is_some() => Caching::No,
            _ => Caching::AsEver,
        }
    }

    /// A command has been carried out: CLIENT CACHING was for it.
    pub(super) fn caching_is_over(&mut self, spec: Option<&Spec>) {
        let about_client = spec.is_some_and(|spec| spec.name.starts_with("client|"));
        self.caching &= about_client;
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
        if let Some(old) = self.invalidations.take() {
            old.close();
        }
        self.topology = caller.router.topology().clone();
        self.owes_flush = self.owes_flush.or(why);
        if !resp3 && self.redirect == 0 {
            caller.lane = caller.router.lane(&login);
            return;
        }
        let invalidations = Invalidations::new(&caller.router, &caller.line, &caller.client, self, resp3);
        caller.lane = caller.router.private_lane(&login, self.wanted(), invalidations.clone());
        caller.lane.cover(&caller.router);
        self.invalidations = Some(invalidations);
    }

    /// Ready once the nodes listen, or with the error of one that does not allow it; `None` where there is none to listen.
    fn opening(&self, caller: &Caller) -> Option<impl Future<Output = Result<(), String>> + use<>> {
        let invalidations = self.invalidations.clone()?;
        let owners: Vec<_> = caller.router.topology().owners().cloned().collect();
        let patience = match self.mode {
            TrackingMode::Broadcast => caller.router.context().recovery.timeout,
            _ => SHORT_WAIT,
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

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;
    use crate::upstream::{
        dial::{Login, Version},
        router::scripted::{Scripted, frame, request, within_a_minute},
        transport::memory::Peer,
    };

    /// A client that speaks RESP3.
    fn caller(nodes: &Scripted) -> Caller {
        let mut caller = Caller::of(nodes);
        caller.lane = nodes.router.lane(&Login { version: Version::Resp3, ..Login::default() });
        caller
    }

    fn options(caller: &Caller, words: &str) -> Options {
        Options::parse(&request(words).as_request(), caller.router.clients()).unwrap_or_else(|_| panic!("{words}"))
    }

    /// The node's end of a link that tracks.
    async fn tracks(nodes: &mut Scripted, words: &str) -> Peer {
        let mut node = nodes.node(0).await;
        node.hears(&frame(words)).await;
        node.says(OK).await;
        node
    }

    #[tokio::test(start_paused = true)]
    async fn a_tracking_client_has_links_of_its_own_and_hears_what_changes() {
        within_a_minute(async {
            let mut nodes = Scripted::new(1);
            let (mut caller, mut tracking) = (caller(&nodes), None);
            let change = tracking_changes(&mut tracking, &caller, options(&caller, "CLIENT TRACKING ON"));
            assert!(matches!(change.lane, LaneChange::New) && !change.forgets, "there is nothing to forget yet");
            let mut tracking = tracking.unwrap();
            tracking.lay_lane(&mut caller, None);
            assert!(caller.lane.is_private() && caller.client.has(Mark::Tracking));
            let opening = tracking.opening(&caller).expect("there is a node");
            let (opened, mut node) = tokio::join!(opening, tracks(&mut nodes, "CLIENT TRACKING ON"));
            assert_eq!(opened, Ok(()));
            let changed = [INVALIDATE, b"*1\r\n$1\r\na\r\n"].concat();
            node.says(&changed).await;
            poll_fn(|cx| {
                caller.line.wake_with(cx.waker());
                if caller.line.owed() >= changed.len() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            assert_eq!(caller.was_told().as_bytes(), changed);
            tracking.end(&mut caller);
            assert!(!caller.lane.is_private() && !caller.client.has(Mark::Tracking));
            assert_eq!(node.hears_the_end().await, b"");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn caching_counts_for_one_command_and_by_the_mode() {
        within_a_minute(async {
            let nodes = Scripted::new(1);
            let (mut caller, mut tracking) = (caller(&nodes), None);
            tracking_changes(&mut tracking, &caller, options(&caller, "CLIENT TRACKING ON OPTIN"));
            let mut tracking = tracking.unwrap();
            tracking.lay_lane(&mut caller, None);
            let say = |tracking: &mut Tracking, words: &str| tracking.set_caching(&request(words).as_request());
            assert_eq!(say(&mut tracking, "CLIENT CACHING NO"), Err(says::CACHING_NO));
            assert_eq!(say(&mut tracking, "CLIENT CACHING maybe"), Err(says::SYNTAX));
            assert_eq!((tracking.caching(), say(&mut tracking, "CLIENT CACHING YES")), (Caching::AsEver, Ok(())));
            let topology = nodes.router.topology().clone();
            let spec = |words: &str| topology.commands.find(&request(words).as_request());
            tracking.caching_is_over(spec("CLIENT ID"));
            assert_eq!(tracking.caching(), Caching::Yes, "it is for what comes behind");
            tracking.reads_untracked();
            assert!(tracking.owes_flush.is_some(), "what no node remembers is to be forgotten");
            tracking.pay_flush(&caller.line);
            assert_eq!(caller.was_told().as_bytes(), [INVALIDATE, b"_\r\n"].concat());
            tracking.caching_is_over(spec("GET foo"));
            assert_eq!(tracking.caching(), Caching::AsEver);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_speaks_resp2_and_names_nobody_is_told_nothing() {
        within_a_minute(async {
            let nodes = Scripted::new(1);
            let (mut caller, mut tracking) = (Caller::of(&nodes), None);
            tracking_changes(&mut tracking, &caller, options(&caller, "CLIENT TRACKING ON BCAST PREFIX a"));
            let mut tracking = tracking.unwrap();
            tracking.lay_lane(&mut caller, None);
            assert!(!caller.lane.is_private() && tracking.opening(&caller).is_none());
            let mut told = Vec::new();
            info(Some(&tracking), &caller, &mut told);
            assert!(String::from_utf8_lossy(&told).contains("bcast"));
        })
        .await;
    }
}

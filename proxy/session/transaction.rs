//! MULTI: commands are queued here and go to their node at EXEC as one contiguous batch, MULTI … EXEC, on the shared
//! link. Nothing interleaves, so it is as atomic as on a connection of its own, and no connection is taken.
//!
//! What the server would refuse while queueing is refused here with the server's words, also what the client's user has no
//! right to; what only the server can know (no memory) comes back as EXECABORT. Commands about the connection never reach a node: the proxy
//! answers them when the others have run, and puts each answer in its place; likewise what all nodes are asked for.

mod enqueue;
mod multi;
mod own;
mod run;

use std::{pin::pin, rc::Rc};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

pub(super) use self::multi::Multi;
use self::own::{OwnRequest, waits_within};
use self::run::{exec_apart, exec_watched, stand_ins};
use super::{
    apart::{self, place_at},
    attend::Eof,
    called,
    caller::Caller,
    dispatch::{Dispatcher, Flow},
    monitor,
    scripts::{self, learn_all, scripts_of},
    streamed::{ErrorReply, Streamed},
    watch::Watch,
    work::{Job, Work},
};
use crate::{
    cluster::topology::Route,
    commands::{scripts::Script, table::Spec},
    metrics::Transaction as Ended,
    protocol::{
        resp::{Request, request::Parser, write},
        says,
        slot::Slot,
    },
    upstream::{
        link::LARGEST_SHARED,
        router::Router,
        ticket::{Envelope, Label, Needs, RequestTraits},
    },
};

/// A MULTI that has not come to its EXEC.
#[derive(Default)]
pub(super) struct Transaction {
    /// MULTI and what is queued, as the client sent it: MONITOR shows every word as it was written.
    frames: Vec<u8>,
    queued: usize,
    slot: Option<Slot>,
    /// What the proxy answers itself or by another node, with its place among the queued.
    own: Vec<OwnRequest>,
    /// Bytes that these take.
    own_size: usize,
    /// A command whose reply names keys, or a script, is among them.
    tells: bool,
    /// A command that may write is among them.
    pub(super) writes: bool,
    /// A command that reads keys is among them.
    reads: bool,
    /// So is one about scripts, or one that calls functions.
    scripts: bool,
    functions: bool,
    /// Scripts that go ahead of it on a connection of its own.
    loads: Vec<Script>,
    /// CONFIG SET is among them.
    sets: bool,
    /// A command was refused: EXEC will be too.
    spoiled: bool,
}

impl Transaction {
    /// The slot of its keys.
    pub(super) fn slot(&self) -> Option<Slot> {
        self.slot
    }

    /// Whether some replies in it name keys, or scripts.
    pub(super) fn tells(&self) -> bool {
        self.tells
    }

    /// Bytes that it holds.
    pub(super) fn size(&self) -> usize {
        self.frames.capacity() + self.own_size + self.own.capacity() * size_of::<OwnRequest>()
    }

    /// Shows each request that is queued, in any order; MULTI and stand-ins too.
    pub(super) fn each(&self, mut visit: impl FnMut(&Request<'_>)) {
        let (mut parser, mut rest) = (Parser::default(), self.frames.as_slice());
        while let Ok(Some(found)) = parser.find(rest) {
            visit(&parser.request(rest, found));
            rest = &rest[found.used..];
        }
        self.own.iter().for_each(|own| visit(&own.request.as_request()));
    }

    /// Shows each request that is queued, in its order.
    pub(super) fn in_order(&self, mut visit: impl FnMut(&Request<'_>)) {
        let (mut parser, mut rest, mut own) = (Parser::default(), self.frames.as_slice(), self.own.iter().peekable());
        // The first is MULTI.
        for place in 0..=self.queued {
            let Ok(Some(found)) = parser.find(rest) else { return };
            match own.next_if(|own| own.place + 1 == place) {
                Some(own) => visit(&own.request.as_request()),
                None if place > 0 => visit(&parser.request(rest, found)),
                None => {}
            }
            rest = &rest[found.used..];
        }
    }

    /// Whether EXEC takes a node, with keys that are watched or not.
    pub(super) fn needs_node(&self, watches: bool) -> bool {
        !self.spoiled && (watches || self.queued > self.own.len())
    }

    /// All of it as it goes to a node, behind `prefix`, once it has been closed.
    fn batch(&self, prefix: &[u8]) -> Vec<u8> {
        let mut batch = Vec::new();
        self.loads.iter().for_each(|script| script.encode_load(&mut batch));
        [prefix, &self.frames].iter().for_each(|part| batch.extend_from_slice(part));
        batch
    }

    /// Ends it with the client's EXEC.
    fn close(&mut self, exec: &Request<'_>) {
        self.frames.extend_from_slice(exec.frame());
    }

    /// How many replies it gets, that to EXEC included.
    fn replies(&self) -> usize {
        self.loads.len() + self.queued + 2
    }
}

pub(super) const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
pub(super) const DISCARD: &[u8] = b"*1\r\n$7\r\nDISCARD\r\n";
/// Takes the place of what the proxy answers itself.
const STAND_IN: &[u8] = b"*1\r\n$4\r\nPING\r\n";
/// Takes that place where the client's user may not PING: HELLO takes no right.
const RIGHTLESS_STAND_IN: &[u8] = b"*1\r\n$5\r\nHELLO\r\n";

impl Dispatcher {
    pub(super) fn begin_multi(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        if self.multi.is_open() {
            // Redis does not count this one against the transaction.
            return self.answer_error(spec, says::NESTED_MULTI);
        }
        if !self.caller.lane.may_multi() && !self.caller.is_known_to_may("multi") {
            return Flow::work(Work::Multi);
        }
        self.multi.begin(&self.caller, request);
        self.answer(spec, b"+OK\r\n")
    }

    pub(super) fn exec(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        let Some(transaction) = self.multi.queued() else {
            return self.answer_error(spec, says::EXEC_WITHOUT_MULTI);
        };
        let is_given = transaction.scripts && !self.caller.is_trusted();
        let is_alone = self.multi.watch.is_some()
            || !transaction.own.is_empty()
            || is_given
            || apart::exec_goes_apart(&self.caller, self.listening.caching(), transaction);
        if !transaction.spoiled && is_alone {
            return Flow::work(Work::Exec);
        }
        let is_large = transaction.frames.len() > LARGEST_SHARED;
        if is_large && !self.caller.line.is_settled() {
            return Flow::Settle;
        }
        if transaction.spoiled {
            self.multi.give_up(&self.caller, Ended::Aborted);
            return self.answer_error(spec, says::EXECABORT);
        }
        let Some(mut transaction) = self.multi.take(&self.caller) else { return Flow::Taken };
        self.caller.router.tally().transaction(Ended::Executed);
        if transaction.queued == 0 {
            return self.answer(spec, b"*0\r\n");
        }
        monitor::show_queued(&self.caller, &transaction);
        transaction.close(request);
        let batch = transaction.frames.as_slice();
        let route = transaction.slot.map_or(Route::Any, Route::Slot);
        let ticket = self.open_place(Label::of(spec), batch.len(), route);
        let needs = Needs { functions: transaction.functions, ..Needs::default() };
        let caching = self.listening.caching();
        let traits = RequestTraits { writes: transaction.writes, caching, needs, ..RequestTraits::default() };
        let mut envelope = Envelope::new(ticket, route, traits);
        envelope.replies_before = (transaction.replies() - 1) as u32;
        envelope.hold(self.front.take_place());
        let mut named = Vec::new();
        if transaction.scripts {
            envelope.set_on_success(scripts::learn_transaction(&self.caller, &transaction.frames));
            named = scripts_of(&self.caller.router, &transaction.frames);
        }
        self.barrier.guard(&self.caller.router, spec, route);
        scripts::send_ready(&self.caller, &named, batch, envelope);
        if is_large {
            self.barrier.hold_behind(Route::Any);
        }
        Flow::Taken
    }
}

impl Job<'_> {
    /// EXEC that needs a connection of its own, since keys are watched there, or has answers of the proxy's own.
    pub(super) async fn exec(&mut self) -> Option<Bytes> {
        let Dispatcher { caller, multi, listening, front, account, .. } = &mut self.session.dispatcher;
        let caller = caller.clone();
        let mut transaction = multi.take(&caller)?;
        transaction.close(self.request);
        account.add_to_work(transaction.size());
        if transaction.reads {
            listening.reads_untracked();
        }
        let (place, watch) = (front.take_place(), multi.watch.take());
        let may_be_large = apart::exec_goes_apart(&caller, listening.caching(), &transaction);
        self.session.keep_account();
        let giver = (transaction.scripts && !caller.is_trusted()).then(|| caller.router.clone());
        if transaction.scripts && giver.is_none() {
            transaction.loads = scripts_of(&caller.router, &transaction.frames);
        }
        // As on one Redis, it is about what was written before the transaction.
        let waits = waits_within(&caller, &transaction).await;
        let transaction = Rc::new(transaction);
        let running = carry_out(caller.clone(), transaction.clone(), watch, place, may_be_large, giver);
        let reply = self.session.attend_to(pin!(running), Eof::Waits).await?;
        count(&caller, &transaction, reply.front());
        monitor::show(&caller, self.request, self.spec);
        if transaction.own.is_empty() {
            self.session.deliver(Label::of(self.spec), reply, Eof::IsNoted).await;
            return None;
        }
        let collecting = reply.collect(&caller.router);
        let (Ok(reply) | Err(ErrorReply(reply))) = self.session.attend_to(pin!(collecting), Eof::Waits).await?;
        let reply = self.put_in_own(reply, &transaction.own, waits).await?;
        if transaction.reads {
            // CLIENT TRACKING or CACHING may have been among them, in front of what was read.
            self.listening().reads_untracked();
        }
        Some(reply)
    }
}

/// Runs a transaction on a connection of its own: the one that watches, or else one of any. Where nothing of it is a
/// node's to do, there is none.
async fn carry_out(
    caller: Caller,
    transaction: Rc<Transaction>,
    watch: Option<Watch>,
    place: Option<OwnedSemaphorePermit>,
    may_be_large: bool,
    giver: Option<Rc<Router>>,
) -> Streamed {
    let (line, touched) = (caller.line.clone(), caller.null_array());
    let patience = caller.router.timeouts().request_timeout();
    match watch {
        Some(watch) if !watch.fits(&caller.lane) => Streamed::whole(touched),
        Some(watch) => {
            let retry_timeout = caller.router.timeouts().recovery().timeout;
            exec_watched(watch, transaction, line, touched, patience, retry_timeout, giver).await
        }
        None if !transaction.needs_node(false) => Streamed::whole(stand_ins(transaction.queued)),
        None => {
            // Until the reply has begun.
            let _place = match place {
                None if may_be_large => place_at(&caller.router, transaction.slot, caller.affinity).await,
                place => place,
            };
            exec_apart(caller.attempts(transaction.slot), transaction, line, patience, giver).await
        }
    }
}

/// Counts what became of a transaction, by how its reply begins, and tells who listens.
fn count(caller: &Caller, transaction: &Transaction, front: &Bytes) {
    let (ran, touched) = (front.first() == Some(&b'*'), *front == caller.null_array());
    if transaction.scripts && ran {
        learn_all(&caller.router, &transaction.frames);
    }
    caller.router.tally().transaction(match front.first() {
        Some(b'-') => Ended::Aborted,
        Some(_) | None if touched => Ended::Dirty,
        Some(_) | None => Ended::Executed,
    });
    if ran && !touched {
        monitor::show_queued(caller, transaction);
    } else {
        called::count_not_called(&caller.router, transaction);
    }
}

/// Whether the client's user may use MULTI, where its lane has credentials: else its commands would run one by one at the
/// node, while the client believes them queued. A node's error where it may not.
pub(super) async fn try_multi(caller: Caller) -> Result<(), Bytes> {
    let patience = caller.router.timeouts().request_timeout();
    let mut connection = caller.attempts(None).connect().await.map_err(|text| write::error_frame(&text))?;
    let replies = connection.exchange(&[MULTI, DISCARD].concat(), 2, patience).await;
    let replies = replies.map_err(|why| write::error_frame(says::could_not_ask(&connection.node().label, why)))?;
    // Who may not DISCARD is still within MULTI.
    if replies.last().is_some_and(|reply| reply.first() == Some(&b'+')) {
        connection.give_back();
    }
    match replies.into_iter().next() {
        Some(reply) if reply.first() == Some(&b'-') => Err(reply),
        _ => Ok(()),
    }
}

/// The error of an EXEC that is malformed, or not allowed: it ends the transaction all the same.
pub(super) fn aborted_for(error: &[u8]) -> Vec<u8> {
    let why = error.strip_prefix(b"ERR ").unwrap_or(error);
    [says::EXECABORT_BECAUSE.as_bytes(), why].concat()
}

/// Whether a command may write, directly or through a script.
pub(super) fn may_write(spec: &Spec) -> bool {
    spec.is_write() || spec.traits.propagates || !spec.is_readonly() && spec.has_keys()
}

#[cfg(test)]
mod tests;

//! Replies of any size, from a connection that this session holds alone to its client, in pieces.
//!
//! A node is read only while the client has little left to read. What is not read stays at the node, as it does with
//! one server, and ends with the client: when it leaves, its node connection is closed. Nobody else waits meanwhile,
//! neither for that client nor for the node.
//!
//! Before the front of a reply has been passed on, an error is the whole reply. Behind it, nothing but closing the
//! client's connection keeps the client in step.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::{error::Elapsed, timeout, timeout_at};

use super::{
    Session,
    attempts::{Attempts, lost},
    attend::Eof,
    busy::Busy,
    scripts::{awaits_functions, heal},
};
use crate::{
    clients::Held,
    cluster::{
        recovery::Why,
        refusal::{self, Refusal},
        topology::{Hint, Node, Route},
    },
    metrics::{Disconnect, NodeError},
    protocol::{resp::write, says},
    upstream::{
        dedicated::Dedicated,
        router::Router,
        ticket::{Envelope, Label, OWED_LIMIT, RequestTraits, Ticket},
    },
};

/// A reply of which the front has come: its whole first line at least.
pub(super) struct Streamed {
    front: Bytes,
    /// Where the rest comes from; `None` where the front is all.
    rest: Option<Dedicated>,
}

/// The frame of an error, as the whole reply.
pub(super) struct ErrorReply(pub(super) Bytes);

impl From<String> for ErrorReply {
    fn from(text: String) -> ErrorReply {
        ErrorReply(write::error_frame(text))
    }
}

impl Session {
    /// Gives the client a reply: at once where it is whole, else as fast as the client reads it.
    pub(super) async fn deliver(&mut self, label: Label, reply: Streamed, eof: Eof) {
        if reply.rest.is_none() {
            return self.dispatcher.answer_as(label, &reply.front);
        }
        let ticket = self.dispatcher.open_place(label, 0, Route::Any);
        let envelope = Envelope::new(ticket, Route::Any, RequestTraits::default());
        let router = self.dispatcher.caller.router.clone();
        self.stream(envelope, async |envelope| reply.pass_on(&router, &envelope.ticket).await.map(drop), eof).await;
    }

    /// Has `work` give the client a reply in pieces.
    pub(super) async fn stream(
        &mut self,
        mut envelope: Envelope,
        work: impl AsyncFnOnce(&mut Envelope) -> Result<(), ErrorReply>,
        eof: Eof,
    ) {
        let done = self.attend(pin!(work(&mut envelope)), eof).await;
        self.end_streamed(envelope.ticket, done);
    }

    /// Ends a reply that has been passed on in pieces, or could not be.
    fn end_streamed(&mut self, ticket: Ticket, done: Result<Result<(), ErrorReply>, Disconnect>) {
        match done {
            Ok(Ok(())) => ticket.fill(b""),
            Ok(Err(ErrorReply(error))) if ticket.has_begun() => ticket.fail(&String::from_utf8_lossy(&error)),
            Ok(Err(ErrorReply(error))) => ticket.fill(&error),
            Err(reason) => {
                self.busy = Busy::Ending(reason);
                self.dispatcher.caller.line.close();
                ticket.fill(b"");
            }
        }
    }
}

impl Streamed {
    /// A reply that is whole.
    pub(super) fn whole(reply: Bytes) -> Streamed {
        Streamed { front: reply, rest: None }
    }

    /// A reply by its front, the `last` piece of it or not. Its connection is given back once nothing is left to come.
    pub(super) fn new(front: Bytes, last: bool, connection: Dedicated) -> Streamed {
        if last {
            connection.give_back();
            Streamed::whole(front)
        } else {
            Streamed { front, rest: Some(connection) }
        }
    }

    /// What has come of the reply.
    pub(super) fn front(&self) -> &Bytes {
        &self.front
    }

    /// The node that is still to send the rest of it; `None` where all has come.
    pub(super) fn sender(&self) -> Option<&Arc<Node>> {
        self.rest.as_ref().map(Dedicated::node)
    }

    /// Takes `count` bytes off the front, for a reply whose head is said otherwise.
    pub(super) fn skip(&mut self, count: usize) {
        self.front.advance(count.min(self.front.len()));
    }

    /// The next piece, and whether it is the last. The first is the front.
    pub(super) async fn piece(&mut self, router: &Router) -> Result<(Bytes, bool), ErrorReply> {
        if !self.front.is_empty() {
            return Ok((std::mem::take(&mut self.front), self.rest.is_none()));
        }
        let Some(connection) = &mut self.rest else { return Ok((Bytes::new(), true)) };
        let node = connection.node().clone();
        let patience = router.timeouts().node_timeout();
        // Only now is the node listened to, so that it can be silent.
        let why = match timeout(patience, connection.piece()).await {
            Ok(Ok((piece, last))) => {
                if last && let Some(connection) = self.rest.take() {
                    connection.give_back();
                }
                return Ok((piece, last));
            }
            Ok(Err(why)) => why.to_string(),
            Err(_) => format!("silent for {patience:?}"),
        };
        tracing::info!(node = %node.label, why, "a reply broke off, its client's connection is closed");
        Err(lost(router, &node, &why).last_error().into())
    }

    /// Gives the client the reply, as fast as the client reads it and the node sends it; says how many bytes it had.
    pub(super) async fn pass_on(mut self, router: &Router, ticket: &Ticket) -> Result<usize, ErrorReply> {
        let mut length = 0;
        loop {
            has_room(ticket).await;
            let (piece, last) = self.piece(router).await?;
            ticket.stream(&piece);
            length += piece.len();
            if last {
                return Ok(length);
            }
        }
    }

    /// The whole reply, for who cannot pass it on in pieces. The error says that there is no room for it.
    pub(super) async fn collect(mut self, router: &Router) -> Result<Bytes, ErrorReply> {
        let Some(connection) = &self.rest else { return Ok(self.front) };
        let node = connection.node().clone();
        let (mut held, mut all) = (Held::nothing(router.clients()), BytesMut::new());
        loop {
            let (piece, last) = self.piece(router).await?;
            all.extend_from_slice(&piece);
            if last {
                return Ok(all.freeze());
            }
            if !held.is_now(all.len()) {
                return Err(says::reply_too_large_but_ran(&node.label).into());
            }
        }
    }
}

/// Ready while the client has so little to read that it may be given more. Whoever attends to the client looks again
/// when it has read on.
pub(super) async fn has_room(ticket: &Ticket) {
    poll_fn(|_| if ticket.unwritten() < OWED_LIMIT { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Asks the node that serves a request which only reads, and the next where that one did not execute it.
pub(super) async fn ask(attempts: Attempts, frame: &[u8]) -> Result<Streamed, ErrorReply> {
    ask_for(attempts, frame, None).await
}

/// Asks the node that serves a request, and the next where that one did not execute it. Its envelope says whether it only
/// reads, and what it needs; it learns that the request has run, or may have.
pub(super) async fn ask_for(
    mut attempts: Attempts,
    frame: &[u8],
    mut envelope: Option<&mut Envelope>,
) -> Result<Streamed, ErrorReply> {
    let read = RequestTraits { repeatable: true, ..RequestTraits::default() };
    let RequestTraits { repeatable, needs, .. } = envelope.as_ref().map_or(read, |envelope| envelope.traits);
    let (mut lost_before, mut healed) = (!repeatable, false);
    loop {
        let connection = attempts.connect().await?;
        let node = connection.node().clone();
        if needs.functions
            && let Some(why) = awaits_functions(&attempts.router, &node)
        {
            connection.give_back();
            attempts.again(why).await?;
            continue;
        }
        let done = attempt(&attempts, connection, frame).await;
        if let (Some(envelope), Outcome::Failed(_) | Outcome::Lost(_)) = (&envelope, &done) {
            envelope.wrote(&node);
        }
        match done {
            Outcome::Begun(reply) => {
                // Once only, too: the node may be made to forget it again.
                let lacks = needs.scripts && !healed && refusal::lacks_script(reply.front());
                if lacks && heal(&attempts.router, &node, frame).await {
                    healed = true;
                    continue;
                }
                if let Some(envelope) = &mut envelope {
                    envelope.is_executed_by(&node, reply.front());
                }
                return Ok(reply);
            }
            Outcome::Failed(failure) => return Err(failure),
            Outcome::Refused(why) => attempts.again(why).await?,
            // Once only: what breaks the connection each time must not be sent for ever.
            Outcome::Lost(why) if lost_before => {
                return Err(says::may_have_run(&why.last_error()).into());
            }
            Outcome::Lost(why) => {
                lost_before = true;
                attempts.again(why).await?;
            }
        }
    }
}

/// Does `work` as long as the node is not silent for `limit`. One that speaks on other connections is busy; that this
/// connection is sound is believed for `node_timeout`.
async fn unless_silent<T>(
    router: &Router,
    node: &Node,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Result<T, Elapsed> {
    let (mut work, tally) = (pin!(work), router.node_tally(node));
    let now = router.clock().tick();
    let (until, mut deadline) = (now + router.timeouts().node_timeout(), now + limit);
    loop {
        let silent = match timeout_at(deadline.into(), work.as_mut()).await {
            Ok(done) => return Ok(done),
            Err(silent) => silent,
        };
        match tally.heard() {
            Some(heard) if heard + limit > deadline && deadline < until => deadline = (heard + limit).min(until),
            _ => return Err(silent),
        }
    }
}

/// How one attempt ended.
enum Outcome {
    /// The front of the reply is there.
    Begun(Streamed),
    /// With an error of the proxy's own.
    Failed(ErrorReply),
    /// The node did not execute it.
    Refused(Why),
    /// The connection was lost when it may have been executed.
    Lost(Why),
}

async fn attempt(attempts: &Attempts, mut connection: Dedicated, frame: &[u8]) -> Outcome {
    let router = &attempts.router;
    let (node, limit) = (connection.node().clone(), router.timeouts().request_timeout());
    let front = async {
        let prefix = attempts.prefix();
        let asked = if prefix.is_empty() {
            connection.send(frame).await
        } else {
            connection.send(&[prefix, frame].concat()).await
        };
        let asked = asked.map_err(|why| Outcome::Refused(attempts.lost(&node, &why.to_string())))?;
        let mut preliminaries = usize::from(!prefix.is_empty());
        loop {
            match connection.piece().await {
                // A push answers nothing.
                Ok((push, true)) if push.first() == Some(&b'>') => {}
                Ok((_, true)) if preliminaries > 0 => preliminaries -= 1,
                Ok(front) => {
                    asked.answered();
                    break Ok(front);
                }
                Err(why) => break Err(Outcome::Lost(attempts.lost(&node, &why.to_string()))),
            }
        }
    };
    match unless_silent(router, &node, limit, front).await {
        Ok(Ok((front, last))) => {
            let reply = Streamed::new(front, last, connection);
            match Refusal::of(reply.front()).filter(|refusal| refusal.fits(attempts.slot())) {
                Some(refusal) => Outcome::Refused(attempts.refused(refusal, reply.front, &node)),
                None => Outcome::Begun(reply),
            }
        }
        Ok(Err(attempt)) => attempt,
        Err(_) => {
            router.node_tally(&node).error(NodeError::Timeout);
            router.hint(Hint::Timeout { node: node.id.clone() });
            Outcome::Failed(says::no_answer(&node.label, limit).into())
        }
    }
}

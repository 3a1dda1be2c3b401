//! The link's task: connects while there is work, and answers for all of it when that fails.

use std::{
    future::poll_fn,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use super::{
    Link, Purpose, PushEvent,
    companion::Companion,
    exchange::{Exchange, Lost},
    queue::Taken,
    side::Sides,
};
use crate::{
    cluster::{
        recovery::{BETWEEN_DIALS, Backoff, Why},
        topology::Hint,
    },
    metrics::NodeError,
    protocol::says,
    upstream::{
        connector::Connector,
        descriptors::Descriptor,
        dial::{DialError, Login},
        doubt::Connection,
        ticket::Envelope,
        transport::Stream,
    },
};

/// A connection that is logged in.
pub(super) struct Connected {
    pub stream: Stream,
    /// What the node has said already.
    pub rest: Vec<u8>,
    pub companion: Option<Companion>,
    /// How it was to log in.
    pub asked: Login,
    /// To which other connection it was asked to tell of changed keys.
    pub told: Option<i64>,
}

/// How connecting has gone of late.
struct Troubles {
    since: Option<Instant>,
    backoff: Backoff,
    until: Option<Instant>,
    error: String,
}

impl Troubles {
    fn none() -> Troubles {
        Troubles { since: None, backoff: BETWEEN_DIALS, until: None, error: String::new() }
    }

    fn note(&mut self, now: Instant, error: String) {
        self.since.get_or_insert(now);
        self.until = Some(now + self.backoff.pause());
        self.error = error;
    }

    fn why(&self, now: Instant, patience: Duration) -> Why {
        let text = self.error.clone();
        match self.since {
            Some(since) if now - since >= patience => Why::Hopeless(text),
            _ => Why::Unsent(text),
        }
    }
}

/// The link's task: connects while there is work, and answers for all of it when that fails.
pub(super) async fn run(link: Rc<Link>) {
    let mut troubles = Troubles::none();
    while link.wanted(troubles.until).await {
        let now = link.context.clock.tick();
        if troubles.until.is_some_and(|until| now < until) {
            link.refuse(&troubles.why(now, link.context.timeouts.recovery().timeout));
            continue;
        }
        match link.dial().await {
            // The login has changed meanwhile: other keys are tracked, or another version of RESP is spoken.
            Ok((connected, _)) if connected.asked != *link.login.borrow() => {}
            Ok((connected, _descriptor)) => {
                link.told.set(Some(connected.told));
                link.tally.connected();
                link.tell(PushEvent::Opened);
                let mut exchange = Exchange::new(link.clone(), connected);
                let lost = poll_fn(|cx| exchange.poll(cx)).await;
                link.told.set(None);
                link.tally.disconnected();
                troubles = match (lost, exchange.heard_from) {
                    (Lost::Retired, _) => {
                        // What is left is answered to nobody.
                        link.take_all();
                        break;
                    }
                    // Nothing that is queued has been written: the next connection begins with it.
                    (Lost::Doubtful, _) => {
                        link.tell(PushEvent::Lost("what it answers may be forged"));
                        Troubles::none()
                    }
                    (Lost::Broken(why), heard_from) => {
                        link.tally.error(NodeError::Connection);
                        link.give_up(&why);
                        link.tell(PushEvent::Lost(&why));
                        // Discovery is behind: it looks again in any case.
                        link.context.hints.tell(Hint::Timeout { node: link.node.id.clone() });
                        let mut troubles = if heard_from { Troubles::none() } else { troubles };
                        troubles.note(link.context.clock.tick(), says::connection_lost(&link.node.label, &why));
                        troubles
                    }
                };
            }
            Err(error) => {
                let now = link.context.clock.tick();
                link.tally.connect_failed(error.permanent);
                link.context.hints.tell(error.hint(&link.node));
                link.tell(PushEvent::Unreachable(&error));
                // Other links may have found it unreachable before.
                troubles.since = troubles.since.or(link.tally.unreachable_since());
                troubles.note(now, error.reply());
                let why = troubles.why(now, link.context.timeouts.recovery().timeout);
                link.refuse(&if error.permanent { Why::Hopeless(error.reply()) } else { why });
            }
        }
    }
    // At once: whoever is woken by the last reply may have more to send.
    link.ended.set(true);
    link.sides().into_iter().for_each(Sides::retire);
}

impl Link {
    /// Waits for a reason to connect: a request, or an audience once `rest` is over. False where the link has been retired.
    async fn wanted(&self, rest: Option<Instant>) -> bool {
        let asked = poll_fn(|cx| {
            if !self.queue.borrow().entries.is_empty() {
                return Poll::Ready(true);
            }
            if self.retired.get() {
                return Poll::Ready(false);
            }
            self.waking.listen(cx.waker());
            Poll::Pending
        });
        match (self.audience(), rest) {
            (None, _) => asked.await,
            (Some(_), None) => !self.retired.get(),
            (Some(_), Some(rest)) => tokio::time::timeout_at(rest.into(), asked).await.unwrap_or(true),
        }
    }

    /// A connection, and the open file that it takes where none is kept back for it.
    async fn dial(&self) -> Result<(Connected, Option<Descriptor>), DialError> {
        let Connector { dialer, descriptors, .. } = &self.context.connector;
        let asked = self.login.borrow().clone();
        let mut login = asked.at(&self.node);
        // One client's own may be closed for what that client does.
        login.stays = self.sides().is_some() && self.context.sizes.accepts.get().evicts_clients;
        let descriptor = match self.purpose {
            Purpose::Shared { is_kept_back: true, .. } => None,
            Purpose::Shared { is_kept_back: false, .. } | Purpose::Private(_) | Purpose::Side => {
                Some(descriptors.take(&self.node.reach).await?)
            }
        };
        let companion = Companion::of(&self.node.reach, &mut login, &self.context.connector).await?;
        let opened = dialer.open(&self.node.reach, &login).await?;
        self.connection.borrow().opened(opened.id, Instant::now());
        let told = login.tracking.and_then(|tracking| tracking.redirect);
        let connected = Connected { stream: opened.stream, rest: opened.rest, companion, asked, told };
        Ok((connected, descriptor))
    }

    pub(super) fn tell(&self, news: PushEvent<'_>) {
        if let Some(audience) = self.audience() {
            audience.hear(&self.node, news);
        }
    }

    /// Gives every queued request back: none has been written.
    fn refuse(&self, why: &Why) {
        for (envelope, request) in self.take_all() {
            if let Some(envelope) = envelope {
                envelope.bounce(request.bytes, why.clone());
            }
        }
    }

    fn take_all(&self) -> Vec<(Option<Envelope>, Taken)> {
        let queue = &mut *self.queue.borrow_mut();
        self.tally.dropped(queue.entries.len(), queue.bytes.len() - queue.written);
        queue.take_all()
    }

    /// Answers or gives back everything that is queued, by the three facts of this module's doc, after the connection broke.
    pub(super) fn give_up(&self, lost: &str) {
        let connection =
            self.connection.replace(Connection::new(self.node.clone(), self.context.connector.ender.clone()));
        let now = self.context.clock.now();
        for (envelope, request) in self.take_all() {
            let Some(mut envelope) = envelope else { continue };
            let error = || says::connection_lost(&self.node.label, lost);
            if !request.written && !envelope.ticket.has_begun() {
                envelope.bounce(request.bytes, Why::Unsent(error()));
            } else if envelope.traits.repeatable && !envelope.ticket.has_begun() {
                if self.context.sizes.accepts.get().unsent.is_some() {
                    // The node may have closed the connection for the size of this reply.
                    self.context.note_large(&envelope, &request.bytes);
                }
                // Once only: what breaks the connection each time must not be sent for ever.
                envelope.traits.repeatable = false;
                envelope.bounce(request.bytes, Why::Unsent(error()));
            } else {
                envelope.wrote(&self.node);
                envelope.in_doubt(&connection);
                let error = says::may_have_run(&error());
                self.tally.failed(|node| envelope.span(node, now, &error));
                envelope.fail(&error);
            }
        }
        connection.is_lost();
    }
}

//! The link's task: connects while there is work, and answers for all of it when that fails.

use std::{
    future::poll_fn,
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    Link, PushEvent,
    companion::Companion,
    exchange::{Exchange, Lost},
    side::Sides,
};
use crate::{
    cluster::{
        recovery::{BETWEEN_DIALS, Backoff, Why},
        topology::Hint,
    },
    metrics::NodeError,
    protocol::says,
    upstream::{dial::Login, transport::Stream},
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
            // It is to tell of other keys by now, or to speak another version of RESP.
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
                // Others may have tried before.
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

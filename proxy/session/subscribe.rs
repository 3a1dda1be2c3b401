//! SUBSCRIBE and its family, and what it means for a session to have subscriptions.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::time::Sleep;

use super::{
    Session,
    subscriber::{Around, Kind, Subscriber},
};
use crate::{
    command::{Spec, Treatment, treatment::Local},
    metrics::Disconnect,
    resp::{Request, write},
    says,
};

/// When a subscriber that owes much has to go.
#[derive(Default)]
pub struct Overdue(Option<Pin<Box<Sleep>>>);

impl Session {
    /// Subscribes, and confirms that, each name by itself. What is returned is an error, or nothing.
    pub(super) async fn subscribe(&mut self, kind: Kind, request: &Request<'_>) -> Vec<u8> {
        let names: Vec<Bytes> = request.args().skip(1).map(Bytes::copy_from_slice).collect();
        self.waits_with(2 * names.iter().map(Bytes::len).sum::<usize>());
        let mut subscriber = match self.subscriber.take() {
            Some(subscriber) => subscriber,
            None => Box::new(Subscriber::new(self.lane.login(), &self.router)),
        };
        self.router.refresh();
        subscriber.begin(kind, &names, &self.router);
        let around = Around { router: &self.router, line: &self.line, resp3: self.speaks_resp3() };
        let mut patience = Box::pin(tokio::time::sleep(self.router.settings().retry_timeout));
        let outcome = poll_fn(|cx| {
            subscriber.poll(cx, &around);
            match subscriber.poll_begun(kind, &names) {
                Poll::Pending if patience.as_mut().poll(cx).is_ready() => {
                    // Notifications from a node that is down do not come anyway.
                    let enough = subscriber.is_begun_at_home(kind, &names);
                    let why = || subscriber.why_not(kind, &names).unwrap_or_else(|| self.no_place());
                    Poll::Ready(if enough { Ok(()) } else { Err(why()) })
                }
                other => other,
            }
        });
        let mut reply = Vec::new();
        match outcome.await {
            Ok(()) => subscriber.confirm(kind, &names, &around),
            Err(error) => {
                subscriber.cancel(kind, &names);
                write::error(&mut reply, &error);
            }
        }
        self.keep(subscriber);
        reply
    }

    /// Unsubscribes, from everything of this kind where no name is given, and confirms that.
    pub(super) async fn unsubscribe(&mut self, kind: Kind, request: &Request<'_>) -> Vec<u8> {
        let mut subscriber = match self.subscriber.take() {
            Some(subscriber) => subscriber,
            None => Box::new(Subscriber::new(self.lane.login(), &self.router)),
        };
        let names: Vec<Bytes> = match request.len() {
            1 => subscriber.names(kind),
            _ => request.args().skip(1).map(Bytes::copy_from_slice).collect(),
        };
        subscriber.end(kind, &names);
        let around = Around { router: &self.router, line: &self.line, resp3: self.speaks_resp3() };
        let mut patience = Box::pin(tokio::time::sleep(self.router.settings().retry_timeout));
        poll_fn(|cx| {
            subscriber.poll(cx, &around);
            // A node that does not answer will have nothing passed on either.
            if subscriber.has_ended(kind, &names) { Poll::Ready(()) } else { patience.as_mut().poll(cx) }
        })
        .await;
        subscriber.confirm_end(kind, &names, &around);
        self.keep(subscriber);
        Vec::new()
    }

    /// Keeps the subscriptions if there are any: else their connections close.
    fn keep(&mut self, subscriber: Box<Subscriber>) {
        let counts = subscriber.counts();
        self.subscriber = (!subscriber.is_empty()).then_some(subscriber);
        self.count_subscriptions(counts);
    }

    /// Ends all subscriptions, and tells nobody.
    pub(super) fn drop_subscriptions(&mut self) {
        self.subscriber = None;
        self.count_subscriptions([0; 3]);
    }

    fn count_subscriptions(&self, counts: [usize; 3]) {
        for (shown, count) in self.client.subscriptions.iter().zip(counts) {
            let before = shown.swap(count, Relaxed);
            self.router.tally().subscribed(count as i64 - before as i64);
        }
    }

    /// Passes on what was published. Says why the client has to go, where it has.
    pub(super) fn poll_subscriptions(&mut self, cx: &mut Context<'_>) -> Option<Disconnect> {
        if self.ending.is_some() {
            self.monitor = None;
            if self.subscriber.is_some() {
                self.drop_subscriptions();
            }
        }
        self.poll_tracking(cx);
        if let Some(monitor) = &mut self.monitor
            && monitor.poll(cx, &self.router, &self.line).is_ready()
        {
            tracing::warn!(client = %self.client.peer, "closed: a node does not allow it to MONITOR any more");
            return Some(Disconnect::NodeLost);
        }
        let resp3 = self.speaks_resp3();
        let subscriber = self.subscriber.as_mut()?;
        subscriber.poll(cx, &Around { router: &self.router, line: &self.line, resp3 });
        if subscriber.is_forbidden() {
            tracing::warn!(client = %self.client.peer, "closed: a node does not allow its subscriptions any more");
            return Some(Disconnect::NodeLost);
        }
        None
    }

    /// The limits of Redis on what a subscriber owes (`client-output-buffer-limit pubsub`).
    pub(super) fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Option<Disconnect> {
        let is_told = self.subscriber.is_some() || self.monitor.is_some() || self.tracking.is_some() || self.is_told;
        if !is_told {
            return None;
        }
        let limits = self.router.settings().pubsub;
        let owed = self.line.owed();
        let above = |limit: usize| limit > 0 && owed > limit;
        let Overdue(end) = &mut self.overdue;
        let over = if above(limits.hard_limit) {
            true
        } else if above(limits.soft_limit) {
            end.get_or_insert_with(|| Box::pin(tokio::time::sleep(limits.soft_time))).as_mut().poll(cx).is_ready()
        } else {
            *end = None;
            false
        };
        if over {
            tracing::warn!(client = %self.client.peer, id = self.client.id, owed, "closed: a subscriber that reads too slowly");
        }
        over.then_some(Disconnect::OutputLimit)
    }

    /// Whether the client speaks RESP2 and has subscriptions: then it cannot tell messages from replies.
    pub(super) fn only_subscribes(&self) -> bool {
        self.subscriber.is_some() && !self.speaks_resp3()
    }

    /// The error for what such a client may not send.
    pub(super) fn not_while_subscribed(&self, request: &Request<'_>, spec: Option<&Spec>) -> Option<String> {
        // What is not even well formed has an error of its own.
        let spec = spec.filter(|spec| self.only_subscribes() && spec.takes(request.len()) && !spec.container)?;
        let allowed = matches!(
            spec.treatment,
            Treatment::Local(
                Local::Subscribe
                    | Local::Psubscribe
                    | Local::Ssubscribe
                    | Local::Unsubscribe
                    | Local::Punsubscribe
                    | Local::Sunsubscribe
                    | Local::Ping
                    | Local::Quit
                    | Local::Reset
            )
        );
        (!allowed).then(|| says::not_while_subscribed(&spec.name))
    }

    /// The error where no node can subscribe.
    fn no_place(&self) -> Bytes {
        let topology = self.router.topology();
        let why = topology.trouble.as_deref().unwrap_or("the node that serves this subscription does not answer");
        format!("CLUSTERDOWN proxy: {why}").into()
    }
}

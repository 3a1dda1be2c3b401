//! SUBSCRIBE and its family, and what it means for a session to have subscriptions.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Sleep;

use super::{
    Session,
    attend::Eof,
    subscriber::{Kind, Subscriber, SubscriberContext},
};
use crate::{
    commands::table::Spec,
    metrics::Disconnect,
    protocol::{
        resp::{Request, write},
        says,
    },
    upstream::router::Router,
};

/// When a subscriber that owes much has to go.
#[derive(Default)]
pub struct SlowSubscriber(Option<Pin<Box<Sleep>>>);

/// How many names are dealt with before the worker's other clients get their turn.
const STEP: usize = 1024;

impl Session {
    /// Subscribes, and confirms that, each name by itself. What is returned is an error, or nothing; `None` where the
    /// client has gone.
    pub(super) async fn subscribe(&mut self, kind: Kind, request: &Request<'_>) -> Option<Bytes> {
        let names = names_of(request);
        self.waits_with(2 * names.iter().map(Bytes::len).sum::<usize>());
        let (subscriber, router, line) = (self.lend_subscriber(), self.caller.router.clone(), self.caller.line.clone());
        router.refresh();
        let (resp3, is_inside) = (self.caller.speaks_resp3(), self.caller.inside.is_some());
        let work = async move {
            let context = SubscriberContext { router: &router, line: &line, resp3, is_inside };
            begin(subscriber, kind, &names, &context).await
        };
        let (subscriber, reply) = self.attend_to_subscriber(work).await?;
        self.keep(subscriber);
        Some(reply)
    }

    /// Unsubscribes, from everything of this kind where no name is given, and confirms that. `None` where the client has
    /// gone.
    pub(super) async fn unsubscribe(&mut self, kind: Kind, request: &Request<'_>) -> Option<Bytes> {
        let (subscriber, router, line) = (self.lend_subscriber(), self.caller.router.clone(), self.caller.line.clone());
        let names = if request.len() == 1 { subscriber.names(kind) } else { names_of(request) };
        let (resp3, is_inside) = (self.caller.speaks_resp3(), self.caller.inside.is_some());
        let work = async move {
            let context = SubscriberContext { router: &router, line: &line, resp3, is_inside };
            end(subscriber, kind, &names, &context).await
        };
        let subscriber = self.attend_to_subscriber(work).await?;
        self.keep(subscriber);
        Some(Bytes::new())
    }

    fn lend_subscriber(&mut self) -> Box<Subscriber> {
        self.subscriber
            .take()
            .unwrap_or_else(|| Box::new(Subscriber::new(self.caller.lane.login(), &self.caller.router)))
    }

    /// Does something with the client's subscriptions, which go where the client does.
    async fn attend_to_subscriber<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        // Whoever subscribes may owe no more than a subscriber, though the session has no subscriptions to look at.
        let is_told = std::mem::replace(&mut self.is_told, true);
        let done = self.attend(work, Eof::Lingers).await;
        self.is_told = is_told;
        done.inspect_err(|reason| {
            self.drop_subscriptions();
            self.ending = Some(*reason);
        })
        .ok()
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
        for (shown, count) in self.caller.client.subscriptions.iter().zip(counts) {
            let before = shown.swap(count, Relaxed);
            self.caller.router.tally().subscribed(count as i64 - before as i64);
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
            && monitor.poll(cx, &self.caller.router).is_ready()
        {
            tracing::warn!(client = %self.caller.client.peer, "closed: a node does not allow it to MONITOR any more");
            return Some(Disconnect::NodeLost);
        }
        self.pass_on_shown();
        let (resp3, is_inside) = (self.caller.speaks_resp3(), self.caller.inside.is_some());
        let subscriber = self.subscriber.as_mut()?;
        subscriber
            .poll(cx, &SubscriberContext { router: &self.caller.router, line: &self.caller.line, resp3, is_inside });
        if subscriber.is_forbidden() {
            tracing::warn!(client = %self.caller.client.peer, "closed: a node does not allow its subscriptions any more");
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
        let limits = self.caller.router.settings().pubsub;
        let owed = self.caller.line.owed();
        let above = |limit: usize| limit > 0 && owed > limit;
        let SlowSubscriber(end) = &mut self.overdue;
        let over = if above(limits.hard_limit) {
            true
        } else if above(limits.soft_limit) {
            end.get_or_insert_with(|| Box::pin(tokio::time::sleep(limits.soft_time))).as_mut().poll(cx).is_ready()
        } else {
            *end = None;
            false
        };
        if over {
            tracing::warn!(client = %self.caller.client.peer, id = self.caller.client.id, owed, "closed: a subscriber that reads too slowly");
        }
        over.then_some(Disconnect::OutputLimit)
    }

    /// Whether the client speaks RESP2 and has subscriptions: then it cannot tell messages from replies.
    pub(super) fn only_subscribes(&self) -> bool {
        self.subscriber.is_some() && !self.caller.speaks_resp3()
    }

    /// The error for what such a client may not send.
    pub(super) fn not_while_subscribed(&self, request: &Request<'_>, spec: Option<&Spec>) -> Option<String> {
        // What is not even well formed has an error of its own.
        let spec = spec.filter(|spec| self.only_subscribes() && spec.takes(request.len()) && !spec.container)?;
        (!spec.traits.while_subscribed).then(|| says::not_while_subscribed(&spec.name))
    }
}

fn names_of(request: &Request<'_>) -> Vec<Bytes> {
    request.args().skip(1).map(Bytes::copy_from_slice).collect()
}

/// Subscribes; gives the subscriptions back, and an error or nothing.
async fn begin(
    mut subscriber: Box<Subscriber>,
    kind: Kind,
    names: &[Bytes],
    context: &SubscriberContext<'_>,
) -> (Box<Subscriber>, Bytes) {
    let router = context.router;
    subscriber.start();
    for step in in_steps(names) {
        subscriber.begin(kind, step.await, router);
    }
    let mut patience = Patience::begin(&subscriber, router);
    let outcome = poll_fn(|cx| {
        subscriber.poll(cx, context);
        match subscriber.poll_begun(kind, names, router) {
            Poll::Pending if patience.poll(cx, &subscriber).is_ready() => {
                // Notifications from a node that is down do not come anyway.
                let enough = subscriber.is_begun_at_home(kind, names, router);
                let why = || subscriber.why_not(kind, names).unwrap_or_else(|| no_place(router));
                Poll::Ready(if enough { Ok(()) } else { Err(why()) })
            }
            other => other,
        }
    });
    let mut reply = Vec::new();
    match outcome.await {
        Ok(()) => {
            for step in in_steps(names) {
                subscriber.confirm(kind, step.await, context);
            }
            subscriber.release(context);
        }
        Err(error) => {
            subscriber.cancel(kind, names);
            write::error(&mut reply, &error);
        }
    }
    (subscriber, reply.into())
}

/// Unsubscribes; gives the subscriptions back.
async fn end(
    mut subscriber: Box<Subscriber>,
    kind: Kind,
    names: &[Bytes],
    context: &SubscriberContext<'_>,
) -> Box<Subscriber> {
    subscriber.start();
    for step in in_steps(names) {
        subscriber.end(kind, step.await);
    }
    let mut patience = Patience::begin(&subscriber, context.router);
    poll_fn(|cx| {
        subscriber.poll(cx, context);
        // A node that does not answer will have nothing passed on either.
        if subscriber.has_ended(kind, names, context.router) { Poll::Ready(()) } else { patience.poll(cx, &subscriber) }
    })
    .await;
    for step in in_steps(names) {
        subscriber.confirm_end(kind, step.await, context);
    }
    if names.is_empty() {
        subscriber.confirm_none(kind, context);
    }
    subscriber.close_idle();
    subscriber
}

/// How long nodes may confirm nothing at all: a long request takes as long as it does.
struct Patience {
    limit: Duration,
    end: Pin<Box<Sleep>>,
    confirmed: u64,
}

impl Patience {
    fn begin(subscriber: &Subscriber, router: &Router) -> Patience {
        let limit = router.context().recovery.timeout;
        Patience { limit, end: Box::pin(tokio::time::sleep(limit)), confirmed: subscriber.confirmed() }
    }

    fn poll(&mut self, cx: &mut Context<'_>, subscriber: &Subscriber) -> Poll<()> {
        if std::mem::replace(&mut self.confirmed, subscriber.confirmed()) != self.confirmed {
            self.end.as_mut().reset(tokio::time::Instant::now() + self.limit);
        }
        self.end.as_mut().poll(cx)
    }
}

/// The names in steps. Before each but the first the worker's other clients get their turn.
fn in_steps(names: &[Bytes]) -> impl Iterator<Item = impl Future<Output = &[Bytes]>> {
    names.chunks(STEP).enumerate().map(|(index, step)| async move {
        if index > 0 {
            tokio::task::yield_now().await;
        }
        step
    })
}

/// The error where no node can subscribe.
fn no_place(router: &Router) -> Bytes {
    let topology = router.topology();
    let why = topology.trouble.as_deref().unwrap_or("the node that serves this subscription does not answer");
    format!("CLUSTERDOWN proxy: {why}").into()
}

//! SUBSCRIBE and its family.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Sleep;

use super::{
    attend::Eof,
    dispatch::Dispatcher,
    subscriber::{Subscriber, SubscriberContext, TopicKind},
    work::Job,
};
use crate::{
    protocol::{resp::write, says},
    upstream::router::Router,
};

/// How many names are dealt with before the worker's other clients get their turn.
const STEP: usize = 1024;

impl Job<'_> {
    /// SUBSCRIBE and UNSUBSCRIBE and the like: each name is confirmed by itself. What is returned is an error, or nothing;
    /// `None` where the client has gone.
    pub(super) async fn change_subscriptions(&mut self, kind: TopicKind, begins: bool) -> Option<Bytes> {
        let Dispatcher { caller, listening, account, .. } = &mut self.session.dispatcher;
        let names = match &listening.subscriber {
            Some(subscriber) if !begins && self.request.len() == 1 => subscriber.names(kind),
            Some(_) | None => self.request.args().skip(1).map(Bytes::copy_from_slice).collect(),
        };
        if begins {
            account.add_to_work(2 * names.iter().map(Bytes::len).sum::<usize>());
        }
        let (subscriber, caller) = (listening.lend_subscriber(caller), caller.clone());
        // Whoever subscribes may owe no more than a subscriber, though the session has no subscriptions to look at.
        let is_told = std::mem::replace(&mut listening.is_told, true);
        self.session.keep_account();
        let work = async {
            let context = SubscriberContext::of(&caller);
            if begins {
                caller.router.refresh();
                begin(subscriber, kind, &names, &context).await
            } else {
                (end(subscriber, kind, &names, &context).await, Bytes::new())
            }
        };
        let done = self.session.attend_to(pin!(work), Eof::Lingers).await;
        let listening = self.listening();
        listening.is_told = is_told;
        match done {
            Some((subscriber, reply)) => {
                listening.keep(subscriber, &caller);
                Some(reply)
            }
            // They go where the client does.
            None => {
                listening.drop_subscriptions(&caller);
                None
            }
        }
    }
}

/// Subscribes; gives the subscriptions back, and an error or nothing.
async fn begin(
    mut subscriber: Box<Subscriber>,
    kind: TopicKind,
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
                let enough = subscriber.is_begun_at_pubsub_node(kind, names, router);
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
    kind: TopicKind,
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
        let limit = router.timeouts().recovery().timeout;
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
    says::not_served(why).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        session::caller::Caller,
        upstream::router::scripted::{Scripted, frame, within_a_minute},
    };

    const CONFIRMED: &str = "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n";
    const MESSAGE: &str = "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n";

    #[tokio::test(start_paused = true)]
    async fn a_client_is_told_that_it_subscribes_before_what_is_published() {
        within_a_minute(async {
            let mut nodes = Scripted::new(1);
            let caller = Caller::of(&nodes);
            let context = SubscriberContext::of(&caller);
            let (names, subscriber) =
                ([Bytes::from("a")], Box::new(Subscriber::new(caller.lane.login(), &caller.databases, &caller.router)));
            let node = async {
                let mut node = nodes.node(0).await;
                node.hears(&frame("subscribe a")).await;
                node.says([MESSAGE, CONFIRMED, MESSAGE].concat().as_bytes()).await;
                node
            };
            let begun = begin(subscriber, TopicKind::Channel, &names, &context);
            let ((mut subscriber, error), mut node) = tokio::join!(begun, node);
            assert_eq!(error, "");
            assert_eq!((subscriber.counts(), subscriber.is_empty()), ([1, 0, 0], false));
            poll_fn(|cx| {
                subscriber.poll(cx, &context);
                if caller.line.owed() >= CONFIRMED.len() + 2 * MESSAGE.len() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            assert_eq!(caller.was_told(), [CONFIRMED, MESSAGE, MESSAGE].concat());
            let gone = async {
                node.hears(&frame("unsubscribe a")).await;
                node.says(b"*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n").await;
            };
            let (subscriber, ()) = tokio::join!(end(subscriber, TopicKind::Channel, &names, &context), gone);
            assert!(subscriber.is_empty());
            assert_eq!(caller.was_told(), "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_does_not_allow_it_says_why() {
        within_a_minute(async {
            let mut nodes = Scripted::new(1);
            let caller = Caller::of(&nodes);
            let context = SubscriberContext::of(&caller);
            let subscriber = Box::new(Subscriber::new(caller.lane.login(), &caller.databases, &caller.router));
            let node = async {
                let mut node = nodes.node(0).await;
                node.hears(&frame("subscribe a")).await;
                node.says(b"-NOPERM no channels\r\n").await;
            };
            let names = [Bytes::from("a")];
            let ((subscriber, error), ()) = tokio::join!(begin(subscriber, TopicKind::Channel, &names, &context), node);
            assert_eq!(error, "-NOPERM no channels\r\n");
            assert!(subscriber.is_empty() && caller.was_told().is_empty());
        })
        .await;
    }
}

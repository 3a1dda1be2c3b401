//! What a client is told unasked: what is published to it, what others do, and which keys change.

use std::{future::Future, pin::Pin, sync::atomic::Ordering::Relaxed, task::Context};

use tokio::time::Sleep;

use super::{
    caller::Caller,
    monitor::Monitor,
    subscriber::{Subscriber, SubscriberContext},
    tracking::{INVALIDATE, Tracking},
};
use crate::{
    clients::Mail,
    commands::table::Spec,
    metrics::Disconnect,
    protocol::{resp::Request, says},
    upstream::{dial::Version, ticket::Caching},
};

/// How an invalidation begins for a client that speaks RESP2 and subscribes; the keys follow.
const INVALIDATE_RESP2: &[u8] = b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n";

/// What a client listens to.
#[derive(Default)]
pub(super) struct Listening {
    pub(super) subscriber: Option<Box<Subscriber>>,
    pub(super) monitor: Option<Box<Monitor>>,
    pub(super) tracking: Option<Box<Tracking>>,
    /// The client may owe no more than a subscriber: others redirect invalidation messages to it, or it is subscribing.
    pub(super) is_told: bool,
    /// Since when the client owes much of what was published to it.
    slow: Option<Pin<Box<Sleep>>>,
}

impl Listening {
    /// Whether the client may be silent for ever, as it waits for what others do.
    pub(super) fn may_be_silent(&self) -> bool {
        self.subscriber.is_some() || self.monitor.is_some()
    }

    /// Passes on what there is. Returns why the session must end, where it must.
    #[inline(always)]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, caller: &Caller) -> Option<Disconnect> {
        if self.hears_nothing() && !caller.client.has_mail() { None } else { self.pass_on(cx, caller) }
    }

    /// Whether the client has asked to be told nothing, and nobody tells it anything.
    #[inline]
    fn hears_nothing(&self) -> bool {
        !(self.subscriber.is_some() || self.monitor.is_some() || self.tracking.is_some() || self.is_told)
    }

    fn pass_on(&mut self, cx: &mut Context<'_>, caller: &Caller) -> Option<Disconnect> {
        if caller.client.has_mail() {
            self.pass_on_mail(caller);
        }
        if let Some(tracking) = &mut self.tracking {
            tracking.poll(cx, caller);
        }
        if let Some(monitor) = &mut self.monitor {
            if monitor.poll(cx, &caller.router).is_ready() {
                tracing::warn!(client = %caller.client.peer(), "closed: a node does not allow it to MONITOR any more");
                return Some(Disconnect::NodeLost);
            }
            self.pass_on_shown(caller);
        }
        let subscriber = self.subscriber.as_mut()?;
        subscriber.poll(cx, &SubscriberContext::of(caller));
        if subscriber.is_forbidden() {
            tracing::warn!(client = %caller.client.peer(), "closed: a node does not allow its subscriptions any more");
            return Some(Disconnect::NodeLost);
        }
        None
    }

    /// The session ends: nothing more is published to its client, or shown to it.
    pub(super) fn end(&mut self, caller: &Caller) {
        self.monitor = None;
        if self.subscriber.is_some() {
            self.drop_subscriptions(caller);
        }
    }

    /// The limits of Redis on what a subscriber owes (`client-output-buffer-limit pubsub`).
    #[inline(always)]
    pub(super) fn poll_owed(&mut self, cx: &mut Context<'_>, caller: &Caller) -> Option<Disconnect> {
        if self.hears_nothing() { None } else { self.judge_owed(cx, caller) }
    }

    fn judge_owed(&mut self, cx: &mut Context<'_>, caller: &Caller) -> Option<Disconnect> {
        let limits = caller.router.settings().pubsub.get();
        let owed = caller.line.owed();
        let above = |limit: usize| limit > 0 && owed > limit;
        let over = if above(limits.hard_limit) {
            true
        } else if above(limits.soft_limit) {
            let end = self.slow.get_or_insert_with(|| Box::pin(tokio::time::sleep(limits.soft_time)));
            end.as_mut().poll(cx).is_ready()
        } else {
            self.slow = None;
            false
        };
        if over {
            let client = &caller.client;
            tracing::warn!(client = %client.peer(), id = client.id, owed, "closed: a subscriber that reads too slowly");
        }
        over.then_some(Disconnect::OutputLimit)
    }

    /// Passes on what nodes have shown, behind what the proxy has: it has shown a script before the node can tell what the
    /// script calls.
    fn pass_on_shown(&mut self, caller: &Caller) {
        let lines = self.monitor.as_mut().map(|monitor| monitor.take_lines()).unwrap_or_default();
        if !lines.is_empty() && caller.client.has_mail() {
            self.pass_on_mail(caller);
        }
        lines.iter().for_each(|line| caller.line.push(line));
    }

    /// What other sessions have left for this client, in the form that it understands.
    fn pass_on_mail(&mut self, caller: &Caller) {
        self.is_told = true;
        let subscribes = caller.client.subscriptions.iter().any(|count| count.load(Relaxed) > 0);
        let head = match caller.speaks_resp3() {
            true => Some(INVALIDATE),
            false if subscribes => Some(INVALIDATE_RESP2),
            // There is no way to say it.
            false => None,
        };
        for mail in caller.client.take_mail() {
            match mail {
                Mail::Changed(keys) => {
                    if let Some(head) = head {
                        caller.line.push_behind(&[head, &keys].concat());
                    }
                }
                Mail::Shown(line) if self.monitor.is_some() => caller.line.push(&line),
                // From before it stopped to monitor.
                Mail::Shown(_) => {}
            }
        }
    }

    /// The client's subscriptions, for a while; [`Listening::keep`] has them back.
    pub(super) fn lend_subscriber(&mut self, caller: &Caller) -> Box<Subscriber> {
        self.subscriber
            .take()
            .unwrap_or_else(|| Box::new(Subscriber::new(caller.lane.login(), &caller.databases, &caller.router)))
    }

    /// Keeps the subscriptions if there are any: else their connections close.
    pub(super) fn keep(&mut self, subscriber: Box<Subscriber>, caller: &Caller) {
        let counts = subscriber.counts();
        self.subscriber = (!subscriber.is_empty()).then_some(subscriber);
        count(caller, counts);
    }

    /// Ends all subscriptions, and tells nobody.
    pub(super) fn drop_subscriptions(&mut self, caller: &Caller) {
        self.subscriber = None;
        count(caller, [0; 3]);
    }

    /// Whether the client speaks RESP2 and has subscriptions: then it cannot tell messages from replies.
    pub(super) fn only_subscribes(&self, caller: &Caller) -> bool {
        self.subscriber.is_some() && !caller.speaks_resp3()
    }

    /// The error for what such a client may not send.
    pub(super) fn forbids(&self, caller: &Caller, request: &Request<'_>, spec: Option<&Spec>) -> Option<String> {
        // What is not even well formed has an error of its own.
        let spec = spec.filter(|spec| self.only_subscribes(caller) && spec.takes(request.len()) && !spec.container)?;
        (!spec.traits.while_subscribed).then(|| says::not_while_subscribed(&spec.name))
    }

    /// Bytes that the names of subscriptions take.
    pub(super) fn size(&self) -> usize {
        self.subscriber.as_ref().map_or(0, |subscriber| subscriber.size())
    }

    /// Bytes that the prefixes of tracked keys take.
    pub(super) fn tracked(&self) -> usize {
        self.tracking.as_ref().map_or(0, |tracking| tracking.size())
    }

    /// Adapts the client's tracking to a new topology. To be called before anything is sent under it, and when nothing is in
    /// flight.
    pub(super) fn follow(&mut self, caller: &Caller) {
        if let Some(tracking) = &mut self.tracking {
            tracking.follow(caller);
        }
    }

    /// What CLIENT CACHING says of the next command.
    pub(super) fn caching(&self) -> Caching {
        self.tracking.as_ref().map_or(Caching::AsEver, |tracking| tracking.caching())
    }

    /// Something is read in a way that no node remembers.
    pub(super) fn reads_untracked(&mut self) {
        if let Some(tracking) = &mut self.tracking {
            tracking.reads_untracked();
        }
    }

    /// Whether a tracking client goes on in another version of RESP by the lane that it has.
    pub(super) async fn goes_on_in(&mut self, caller: &mut Caller, version: Version) -> bool {
        match &mut self.tracking {
            Some(tracking) => tracking.speak(caller, version).await,
            None => false,
        }
    }

    /// The caller's login is another, or so is what it tracks: a tracking client gets a new lane for it. The client must
    /// forget what nodes remember of the old; `why`, where there can be any.
    pub(super) fn lay_lane(&mut self, caller: &mut Caller, why: Option<&'static str>) {
        if let Some(tracking) = &mut self.tracking {
            tracking.lay_lane(caller, why);
        }
    }

    /// Ends the client's tracking, and releases all that it holds.
    pub(super) fn end_tracking(&mut self, caller: &mut Caller) {
        if let Some(tracking) = self.tracking.take() {
            tracking.end(caller);
        }
    }
}

fn count(caller: &Caller, counts: [usize; 3]) {
    for (shown, count) in caller.client.subscriptions.iter().zip(counts) {
        let before = shown.swap(count, Relaxed);
        caller.router.tally().subscribed(count as i64 - before as i64);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::upstream::router::scripted::{Scripted, within_a_minute};

    fn poll(listening: &mut Listening, caller: &Caller) -> Option<Disconnect> {
        listening.poll(&mut Context::from_waker(std::task::Waker::noop()), caller)
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_leave_is_told_as_the_client_understands_it() {
        within_a_minute(async {
            let (caller, mut listening) = (Caller::of(&Scripted::new(1)), Listening::default());
            let changed = || Mail::Changed(Bytes::from_static(b"*1\r\n$1\r\na\r\n"));
            caller.client.deliver(changed(), 0);
            caller.client.deliver(Mail::Shown(Bytes::from_static(b"+shown\r\n")), 0);
            assert_eq!(poll(&mut listening, &caller), None);
            assert_eq!(caller.was_told(), "", "RESP2 has no way to say it, and nobody monitors");
            assert!(listening.is_told && !caller.client.has_mail());
            count(&caller, [1, 0, 0]);
            caller.client.deliver(changed(), 0);
            poll(&mut listening, &caller);
            assert_eq!(
                caller.was_told(),
                format!("{}*1\r\n$1\r\na\r\n", INVALIDATE_RESP2.escape_ascii()).replace("\\r\\n", "\r\n")
            );
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_told_much_and_reads_little_has_to_go() {
        within_a_minute(async {
            let (caller, mut listening) = (Caller::of(&Scripted::new(1)), Listening::default());
            let owed = |listening: &mut Listening| {
                listening.poll_owed(&mut Context::from_waker(std::task::Waker::noop()), &caller)
            };
            let limits = caller.router.settings().pubsub.get();
            caller.line.push(&vec![b'm'; limits.soft_limit + 1]);
            assert_eq!(owed(&mut listening), None, "nobody tells it anything");
            listening.is_told = true;
            assert_eq!(owed(&mut listening), None, "not for long");
            tokio::time::sleep(limits.soft_time - std::time::Duration::from_secs(1)).await;
            assert_eq!(owed(&mut listening), None);
            caller.line.push(&vec![b'm'; limits.hard_limit]);
            assert_eq!(owed(&mut listening), Some(Disconnect::OutputLimit));
        })
        .await;
    }
}

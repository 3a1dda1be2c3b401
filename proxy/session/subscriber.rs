//! A client's subscriptions: what it wants, and on which nodes that is subscribed for it.
//!
//! Classic channels and patterns are subscribed on the pub/sub node, where every PUBLISH goes, on a connection of this
//! client's own: so PUBLISH and PUBSUB count clients, and messages come in the order of one Redis. Shard channels are
//! subscribed where their slot is. What can match keyspace notifications is subscribed on every primary besides, since
//! nodes notify of their own keys only; from there nothing but notifications is taken.
//!
//! What is wanted is kept here, what is subscribed in each [`Source`]; whatever happens to nodes and slots, the second
//! follows the first. Where a subscription moves, the new node has confirmed before the old one is left ([`Handover`]).
//! Messages that were published while nothing was subscribed are lost, as they are when a client of one Redis
//! reconnects; such gaps are counted and logged.

mod handover;
mod heard;
mod notification;
mod own_names;
mod places;
mod source;
mod topics;

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;

use self::{
    handover::Handover,
    heard::push,
    notification::may_be_notified,
    own_names::{OwnNames, Place},
    source::{Heard, Source},
    topics::{SubscriptionState, Topics},
};
pub use source::TopicKind;

use super::caller::Caller;
use crate::{
    cluster::topology::Node,
    commands::database::Databases,
    protocol::resp::write,
    upstream::{
        dial::{Login, Version},
        router::Router,
        ticket::Line,
    },
};

/// What a name takes beside its bytes: its places in the sets of what is wanted, and of what is subscribed at the nodes.
const NAME: usize = 256;

/// All subscriptions of one client.
pub struct Subscriber {
    login: Login,
    /// How nodes know the client's names.
    own_names: OwnNames,
    topics: [Topics; 3],
    /// Bytes that the names take, here and at the sources.
    size: usize,
    sources: Vec<Source>,
    last_number: u64,
    /// Shard channels of which a node has said that they are elsewhere than the topology has them.
    moved: HashMap<Bytes, Arc<Node>>,
    epoch: u64,
    news: Pin<Box<dyn Future<Output = ()>>>,
    handover: Option<Handover>,
    /// Messages on what the client has not been told yet that it is subscribed to.
    held: Vec<Bytes>,
    /// Bytes of these.
    held_size: usize,
    /// What a node has said against a subscription.
    refused: Option<Bytes>,
    /// A node does not allow any more what the client is subscribed to.
    forbidden: bool,
    /// How many names of the request under way are done, from the first on. Each is looked at once, however often nodes speak.
    done: usize,
    /// How much nodes have confirmed.
    confirmed: u64,
}

/// What a subscriber needs of its session: the router, the client's line, and its RESP version.
pub struct SubscriberContext<'a> {
    pub router: &'a Rc<Router>,
    pub line: &'a Rc<Line>,
    pub resp3: bool,
}

impl SubscriberContext<'_> {
    /// The context of a caller's subscriptions.
    pub(super) fn of(caller: &Caller) -> SubscriberContext<'_> {
        SubscriberContext { router: &caller.router, line: &caller.line, resp3: caller.speaks_resp3() }
    }
}

impl Subscriber {
    /// Nothing is subscribed; nodes are logged in to as `login` says. The client may work in these databases.
    pub fn new(login: &Login, databases: &Arc<Databases>, router: &Router) -> Subscriber {
        Subscriber {
            // Confirmations and messages are alike in both versions but for their first byte, and RESP2 needs no HELLO.
            login: Login { version: Version::Resp2, database: 0, ..login.clone() },
            own_names: OwnNames::of(databases, router.clients()),
            topics: Default::default(),
            size: 0,
            sources: Vec::new(),
            last_number: 0,
            moved: HashMap::new(),
            epoch: router.epoch(),
            news: router.next_news(),
            handover: None,
            held: Vec::new(),
            held_size: 0,
            refused: None,
            forbidden: false,
            done: 0,
            confirmed: 0,
        }
    }

    /// Bytes that the names take.
    pub fn size(&self) -> usize {
        self.size
    }

    fn forget(&mut self, kind: TopicKind, name: &Bytes) {
        if self.topics[kind as usize].remove(name) {
            self.size -= name.len() + NAME;
        }
    }

    /// Whether nothing is subscribed.
    pub fn is_empty(&self) -> bool {
        self.topics.iter().all(Topics::is_empty)
    }

    /// How many channels, patterns and shard channels the client knows to be subscribed to.
    pub fn counts(&self) -> [usize; 3] {
        self.topics.each_ref().map(Topics::known)
    }

    /// The names of one kind.
    pub fn names(&self, kind: TopicKind) -> Vec<Bytes> {
        self.topics[kind as usize].names().cloned().collect()
    }

    /// A node does not allow any more what the client is subscribed to: it has to go, as Redis has it.
    pub fn is_forbidden(&self) -> bool {
        self.forbidden
    }

    /// A request begins, of which [`Subscriber::begin`] or [`Subscriber::end`] is told the names.
    pub fn start(&mut self) {
        self.refused = None;
        self.done = 0;
    }

    /// How much nodes have confirmed so far: as long as that grows, there is something to wait for.
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Begins to subscribe. When [`Subscriber::poll_begun`] is ready, it is to be confirmed or cancelled.
    pub fn begin(&mut self, kind: TopicKind, names: &[Bytes], router: &Router) {
        let topics = &mut self.topics[kind as usize];
        let new: Vec<Bytes> = names.iter().filter(|name| topics.add(name)).cloned().collect();
        self.size += new.iter().map(|name| name.len() + NAME).sum::<usize>();
        new.iter().for_each(|name| self.own_names.add(kind, name));
        self.place(kind, new, router);
    }

    /// Whether these, all the names of the request, are subscribed where they should be; an error where a node refuses
    /// that.
    pub fn poll_begun(&mut self, kind: TopicKind, names: &[Bytes], router: &Router) -> Poll<Result<(), Bytes>> {
        if let Some(error) = self.refused.take() {
            return Poll::Ready(Err(error));
        }
        let is_begun = |name: &Bytes| {
            self.topics[kind as usize].state(name) != Some(SubscriptionState::New)
                || self.subscribed_at(kind, name, router).is_some_and(|(all, _)| all)
        };
        self.done += names.iter().skip(self.done).take_while(|name| is_begun(name)).count();
        if self.done == names.len() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Whether these are subscribed at least where it matters most.
    pub fn is_begun_at_pubsub_node(&self, kind: TopicKind, names: &[Bytes], router: &Router) -> bool {
        names
            .iter()
            .all(|name| self.subscribed_at(kind, name, router).is_some_and(|(_, at_pubsub_node)| at_pubsub_node))
    }

    /// Whether a name is subscribed at every node where it should be, and whether at the pub/sub node; `None` where no node
    /// should. A lost node is not waited for as long as another has the subscription, nor is a failing one that would only send
    /// notifications.
    fn subscribed_at(&self, kind: TopicKind, name: &Bytes, router: &Router) -> Option<(bool, bool)> {
        let Some(all) = self.own_names.asks(kind, name) else { return self.asked_at(kind, name, router) };
        all.iter().try_fold((true, true), |(all, home), asked| {
            let (is, is_at_home) = self.asked_at(asked.kind, &asked.name, router)?;
            Some((all && is, home && (is_at_home || asked.place != Place::PubSub)))
        })
    }

    /// As [`Subscriber::subscribed_at`], for one name as nodes know it.
    fn asked_at(&self, kind: TopicKind, name: &Bytes, router: &Router) -> Option<(bool, bool)> {
        let mut found = None;
        let is_there = |source: &Source| source.actual[kind as usize].contains(name);
        let spares_lost = may_be_notified(kind, name) && self.sources.iter().any(is_there);
        for source in self.sources.iter().filter(|source| source.desired[kind as usize].contains(name)) {
            let is = is_there(source);
            let (all, at_pubsub_node) = found.unwrap_or((true, false));
            let only_notifies = kind != TopicKind::Shard && !source.at_pubsub_node;
            let enough = is || source.lost.is_some() && spares_lost || only_notifies && source.fails(router);
            found = Some((all && enough, at_pubsub_node || is && (source.at_pubsub_node || kind == TopicKind::Shard)));
        }
        found
    }

    /// Why these cannot be subscribed, where a node is lost that should do it.
    pub fn why_not(&self, kind: TopicKind, names: &[Bytes]) -> Option<Bytes> {
        let is_for = |source: &&Source| names.iter().any(|name| self.is_wanted_at(kind, name, source));
        self.sources.iter().filter(is_for).find_map(|source| source.lost.clone()).map(Bytes::from)
    }

    /// Subscribing has come to nothing: forgets what is new.
    pub fn cancel(&mut self, kind: TopicKind, names: &[Bytes]) {
        let topics = &self.topics[kind as usize];
        let is_new = |name: &&Bytes| topics.state(name) == Some(SubscriptionState::New);
        let new: Vec<Bytes> = names.iter().filter(is_new).cloned().collect();
        for name in &new {
            self.forget(kind, name);
        }
        self.drop_names(kind, &new);
        self.held.clear();
        self.held_size = 0;
        self.close_idle();
    }

    /// Tells the client that it is subscribed to these. When it has been told of all, [`Subscriber::release`] is due.
    pub fn confirm(&mut self, kind: TopicKind, names: &[Bytes], context: &SubscriberContext<'_>) {
        for name in names {
            self.topics[kind as usize].set(name, SubscriptionState::Confirmed);
            self.say(kind, true, Some(name), context);
        }
    }

    /// Tells the client what has come on what it had not been told to be subscribed to.
    pub fn release(&mut self, context: &SubscriberContext<'_>) {
        self.held_size = 0;
        for frame in std::mem::take(&mut self.held) {
            push(&frame, context);
        }
    }

    /// Ends subscriptions.
    pub fn end(&mut self, kind: TopicKind, names: &[Bytes]) {
        for name in names {
            self.topics[kind as usize].set(name, SubscriptionState::Leaving);
        }
        self.drop_names(kind, names);
    }

    /// Nodes are not asked for these any more, but for what others of the client's names take.
    fn drop_names(&mut self, kind: TopicKind, names: &[Bytes]) {
        self.sources.iter_mut().for_each(|source| source.drop_names(kind, names));
        for (kind, name) in names.iter().flat_map(|name| self.own_names.remove(kind, name)).collect::<Vec<_>>() {
            self.sources.iter_mut().for_each(|source| source.drop_names(kind, std::slice::from_ref(&name)));
        }
    }

    fn is_wanted_at(&self, kind: TopicKind, name: &Bytes, source: &Source) -> bool {
        let is_wanted = |kind: TopicKind, name: &Bytes| source.desired[kind as usize].contains(name);
        match self.own_names.asks(kind, name) {
            None => is_wanted(kind, name),
            Some(all) => all.iter().any(|asked| is_wanted(asked.kind, &asked.name)),
        }
    }

    /// Whether no node has any of these, all the names of the request, any more.
    pub fn has_ended(&mut self, kind: TopicKind, names: &[Bytes], router: &Router) -> bool {
        let has = |source: &Source, name: &Bytes| source.actual[kind as usize].contains(name) && !source.fails(router);
        let is_gone = |name: &Bytes| match self.own_names.asks(kind, name) {
            None => !self.sources.iter().any(|source| has(source, name)),
            Some(all) => all.iter().all(|asked| {
                let has = |source: &Source| source.actual[asked.kind as usize].contains(&asked.name);
                self.own_names.is_asked(asked.kind, &asked.name)
                    || !self.sources.iter().any(|source| has(source) && !source.fails(router))
            }),
        };
        self.done += names.iter().skip(self.done).take_while(|name| is_gone(name)).count();
        self.done == names.len()
    }

    /// Tells the client that these are ended. When it has been told of all, [`Subscriber::close_idle`] is due.
    pub fn confirm_end(&mut self, kind: TopicKind, names: &[Bytes], context: &SubscriberContext<'_>) {
        for name in names {
            self.forget(kind, name);
            self.say(kind, false, Some(name), context);
        }
    }

    /// Tells the client that there was none to end.
    pub fn confirm_none(&self, kind: TopicKind, context: &SubscriberContext<'_>) {
        self.say(kind, false, None, context);
    }

    /// Closes the connections that nothing is wanted from.
    pub fn close_idle(&mut self) {
        if self.handover.is_none() {
            self.sources.retain(|source| !source.has_nothing_to_do());
        }
    }

    /// A confirmation, with the count that Redis has in it: channels and patterns together, shard channels by themselves.
    fn say(&self, kind: TopicKind, subscribe: bool, name: Option<&Bytes>, context: &SubscriberContext<'_>) {
        let [channels, patterns, shards] = self.counts();
        let count = if kind == TopicKind::Shard { shards } else { channels + patterns };
        let mut frame = Vec::new();
        write::head(&mut frame, if context.resp3 { b'>' } else { b'*' }, 3);
        write::bulk(&mut frame, kind.verb(subscribe).as_bytes());
        match name {
            Some(name) => write::bulk(&mut frame, self.own_names.shown(kind, name)),
            None => frame.extend_from_slice(if context.resp3 { b"_\r\n" } else { b"$-1\r\n" }),
        }
        write::integer(&mut frame, count as i64);
        context.line.push(&frame);
    }

    /// Hears all sources, and follows the topology.
    pub fn poll(&mut self, cx: &mut Context<'_>, context: &SubscriberContext<'_>) {
        let router = context.router;
        while self.news.as_mut().poll(cx).is_ready() {
            self.news = router.next_news();
            router.refresh();
        }
        if self.epoch != router.epoch() {
            self.follow(router);
        }
        let mut index = 0;
        // A source may be added meanwhile, at the end.
        while let Some(source) = self.sources.get_mut(index) {
            match source.poll(cx, router.buffer()) {
                Poll::Ready(heard) => {
                    // What moves from here may go to a source that has been polled already.
                    let may_move = matches!(heard, Heard::Refused { .. });
                    self.heard(index, heard, context);
                    if may_move {
                        index = 0;
                    }
                }
                Poll::Pending => index += 1,
            }
        }
        self.poll_handover(cx, router);
    }
}

#[cfg(test)]
mod tests;

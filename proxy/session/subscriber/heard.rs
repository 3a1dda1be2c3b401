//! What nodes say on a client's subscriptions: messages are passed on, refusals are followed or told, losses are counted.

use bytes::Bytes;

use super::{
    Subscriber, SubscriberContext, TopicKind,
    handover::Handover,
    notification::is_notification,
    source::Heard,
    topics::{SubscriptionState, Topics},
};
use crate::{
    cluster::{
        recovery,
        refusal::{self, Refusal},
        topology::{Hint, Node},
    },
    upstream::router::Router,
};

impl Subscriber {
    /// Takes what the source at `index` has heard.
    pub(super) fn heard(&mut self, index: usize, heard: Heard, context: &SubscriberContext<'_>) {
        let router = context.router;
        let Some(source) = self.sources.get_mut(index) else { return };
        if !matches!(heard, Heard::Opened | Heard::Confirmed | Heard::Message { .. }) {
            // What was subscribed may be so no more.
            self.done = 0;
        }
        match heard {
            Heard::Opened => {}
            Heard::Confirmed => self.confirmed += 1,
            Heard::Message { kind, name, channel, frame } if self.own_names.is_any() && is_notification(&channel) => {
                for (kind, topic, frame) in self.own_names.told(kind, &name, &frame) {
                    self.pass_on(kind, &topic, frame, context);
                }
            }
            Heard::Message { kind, name, channel, frame } => {
                // Only classic messages go from node to node and may come twice; others that are equal are different messages.
                let is_classic = kind != TopicKind::Shard && !is_notification(&channel);
                let (at_pubsub_node, number) = (source.at_pubsub_node, source.number);
                let stays = self.handover.is_some() && source.is_at_pubsub_node(router);
                let is_echo = |handover: &mut Handover| !handover.is_new(number, stays, &frame);
                if is_classic && (!at_pubsub_node || self.handover.as_mut().is_some_and(is_echo)) {
                    return;
                }
                let frame = self.own_names.shown_message(kind, &name, frame);
                self.pass_on(kind, &name, frame, context);
            }
            Heard::Refused { kind, names, error } => self.refused_by(index, kind, names, error, router),
            Heard::Dropped(name) => {
                if source.desired[TopicKind::Shard as usize].contains(&name) {
                    gap(router, source.feed().node(), "it has given the slot away", 1);
                    // It will say where the slot has gone.
                    source.ask_again(TopicKind::Shard, vec![name]);
                }
            }
            Heard::Lost { why, subscriptions } => {
                let node = source.feed().node();
                router.hint(Hint::Timeout { node: node.id.clone() });
                if subscriptions > 0 && !source.has_nothing_to_do() {
                    gap(router, node, &why, subscriptions);
                }
            }
            Heard::Unreachable(error) => {
                router.hint(error.hint(source.feed().node()));
                if error.permanent {
                    self.refuse(error.reply().as_bytes());
                }
            }
        }
    }

    /// A message on what the client has subscribed to by this name.
    fn pass_on(&mut self, kind: TopicKind, name: &Bytes, frame: Bytes, context: &SubscriberContext<'_>) {
        match self.topics[kind as usize].state(name) {
            Some(SubscriptionState::Confirmed | SubscriptionState::Leaving) => push(&frame, context),
            Some(SubscriptionState::New) => {
                self.held_size += frame.len();
                self.held.push(frame);
                let limit = context.router.settings().pubsub.get().hard_limit;
                if limit > 0 && self.held_size > limit {
                    // As a subscriber that owes so much, the client is closed.
                    self.release(context);
                }
            }
            None => {}
        }
    }

    /// A node has not subscribed to these.
    fn refused_by(&mut self, index: usize, kind: TopicKind, names: Vec<Bytes>, error: Bytes, router: &Router) {
        let Some(source) = self.sources.get_mut(index) else { return };
        let node = source.feed().node().clone();
        let wanted = |name: &Bytes| source.desired[kind as usize].contains(name);
        let names: Vec<Bytes> = names.into_iter().filter(wanted).collect();
        let refusal = Refusal::of(&error);
        if let Some(refusal) = refusal.clone() {
            let (tally, hints) = (router.node_tally(&node), router.hints());
            recovery::refused(refusal, error.clone(), &node, &tally, hints);
        }
        match refusal {
            Some(Refusal::Redirect(redirect)) => {
                let target = router.topology().target(&redirect, &node).filter(|target| target.id != node.id);
                let known = |name: &Bytes| self.moved.contains_key(name);
                match target {
                    Some(target) if !names.iter().any(known) => {
                        source.drop_names(kind, &names);
                        for name in &names {
                            self.moved.insert(name.clone(), target.clone());
                        }
                        self.source_at(&target, router).want(kind, names);
                    }
                    // The nodes do not agree yet.
                    Some(_) | None => {
                        names.iter().for_each(|name| {
                            self.moved.remove(name);
                        });
                        source.ask_later(kind, names);
                    }
                }
            }
            Some(Refusal::Later(_)) => source.ask_later(kind, names),
            // The client has been told already, and has given these names up.
            None if names.is_empty() => {}
            None => {
                self.refuse(refusal::text(&error));
            }
        }
    }

    /// A node refuses a subscription. Where the client has just asked for it, that is its answer; else the client is no longer
    /// allowed what it has, and must go.
    fn refuse(&mut self, error: &[u8]) {
        if self.topics.iter().any(Topics::has_new) {
            self.refused = Some(Bytes::copy_from_slice(error));
        } else {
            self.forbidden = true;
        }
    }
}

/// Passes a message on, in the client's version.
pub(super) fn push(frame: &Bytes, context: &SubscriberContext<'_>) {
    if context.resp3 {
        let mut message = frame.to_vec();
        if let Some(first) = message.first_mut() {
            *first = b'>';
        }
        context.line.push(&message);
    } else {
        context.line.push(frame);
    }
}

/// Messages may have been missed.
pub(super) fn gap(router: &Router, node: &Node, why: &str, subscriptions: usize) {
    router.tally().subscription_gap();
    tracing::warn!(node = %node.label, why, subscriptions, "subscriptions interrupted: messages may have been missed");
}

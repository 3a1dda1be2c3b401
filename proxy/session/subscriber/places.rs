//! Where subscriptions belong, and how they get there when nodes and slots move.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    task::Context,
};

use bytes::Bytes;

use super::{
    Subscriber, TopicKind,
    handover::{Handover, HandoverStep},
    heard::gap,
    notification::may_be_notified,
    own_names::Place,
    source::{KINDS, Names, Source},
};
use crate::{
    cluster::topology::{Node, Topology},
    protocol::{address::Address, slot::Slot},
    upstream::{feed::Feed, router::Router},
};

impl Subscriber {
    /// Subscribes to these where they belong.
    pub(super) fn place(&mut self, kind: TopicKind, names: Vec<Bytes>, router: &Router) {
        let topology = router.topology().clone();
        let mut by_node: HashMap<(String, TopicKind), (Arc<Node>, Vec<Bytes>)> = HashMap::new();
        let mut add = |nodes: Vec<Arc<Node>>, kind: TopicKind, name: &Bytes| {
            for node in nodes {
                by_node.entry((node.id.clone(), kind)).or_insert_with(|| (node, Vec::new())).1.push(name.clone());
            }
        };
        for name in names {
            match self.own_names.asks(kind, &name) {
                None => add(self.places(kind, &name, &topology), kind, &name),
                Some(all) => {
                    all.iter().for_each(|asked| add(nodes_of(asked.place, &topology), asked.kind, &asked.name));
                }
            }
        }
        for ((_, kind), (node, names)) in by_node {
            let (soon, now) = names.into_iter().partition(|name| self.is_delivered(kind, name, router));
            let source = self.source_at(&node, router);
            source.at_pubsub_node |= source.is_at_pubsub_node(router);
            source.want(kind, now);
            source.want_soon(kind, soon);
        }
    }

    /// Whether some node delivers this already, wherever it belongs. Shard channels and notifications do not go from
    /// node to node.
    fn is_delivered(&self, kind: TopicKind, name: &Bytes, router: &Router) -> bool {
        let has = |source: &Source| {
            source.at_pubsub_node && !source.fails(router) && source.actual[kind as usize].contains(name)
        };
        kind != TopicKind::Shard && !may_be_notified(kind, name) && self.sources.iter().any(has)
    }

    /// The nodes where this is to be subscribed.
    fn places(&self, kind: TopicKind, name: &Bytes, topology: &Topology) -> Vec<Arc<Node>> {
        if kind == TopicKind::Shard {
            let node = self.moved.get(name).or_else(|| topology.owner(Slot::of(name)));
            return node.cloned().into_iter().collect();
        }
        nodes_of(if may_be_notified(kind, name) { Place::Primaries } else { Place::PubSub }, topology)
    }

    /// The source at this node, a new one where there is none.
    pub(super) fn source_at(&mut self, node: &Arc<Node>, router: &Router) -> &mut Source {
        let known = |source: &Source| source.leads_to(&node.id, &node.reach);
        let index = self.sources.iter().position(known).unwrap_or_else(|| {
            self.last_number += 1;
            let tally = router.node_tally(node);
            let feed = Feed::open(node.clone(), self.login.clone(), router.connector(), tally);
            self.sources.push(Source::new(feed, self.last_number));
            self.sources.len() - 1
        });
        &mut self.sources[index]
    }

    /// Subscribes to everything where it belongs in a new topology. What is subscribed elsewhere stays until that is done.
    pub(super) fn follow(&mut self, router: &Router) {
        self.epoch = router.epoch();
        self.done = 0;
        self.moved.clear();
        let before: Vec<Names> = self.sources.iter_mut().map(|source| std::mem::take(&mut source.desired)).collect();
        for kind in KINDS {
            let names = self.topics[kind as usize].wanted().cloned().collect();
            self.place(kind, names, router);
        }
        let moves = self.sources.iter().zip(before).any(|(source, before)| source.desired != before);
        // A dead node has nothing to wait for.
        self.sources.retain(|source| !source.has_nothing_to_do() || source.feed().is_open());
        if moves {
            self.handover.get_or_insert_with(Handover::begin).restart();
        }
    }

    pub(super) fn poll_handover(&mut self, cx: &mut Context<'_>, router: &Router) {
        let settled = self.sources.iter().all(|source| source.has_nothing_to_do() || source.is_settled());
        let Some(handover) = &mut self.handover else { return };
        let leaves =
            |source: &&Source| source.at_pubsub_node && !source.is_at_pubsub_node(router) && source.feed().is_open();
        let leaving: Vec<u64> = self.sources.iter().filter(leaves).map(|source| source.number).collect();
        match handover.poll(cx, settled, &leaving) {
            HandoverStep::Wait => {}
            HandoverStep::DropOld => {
                self.sources.retain_mut(|source| {
                    let heard = source.actual.iter().map(HashSet::len).sum();
                    if source.has_nothing_to_do() && source.feed().is_open() && source.fails(router) && heard > 0 {
                        gap(router, source.feed().node(), "it fails", heard);
                    }
                    source.drop_surplus();
                    source.at_pubsub_node = source.is_at_pubsub_node(router);
                    !source.has_nothing_to_do()
                });
            }
            HandoverStep::Done => self.handover = None,
        }
    }
}

fn nodes_of(place: Place, topology: &Topology) -> Vec<Arc<Node>> {
    match place {
        Place::Slot(slot) => topology.owner(slot).cloned().into_iter().collect(),
        Place::Primaries => topology.owners().cloned().collect(),
        Place::PubSub => topology.pubsub_node().cloned().into_iter().collect(),
    }
}

impl Source {
    pub(super) fn leads_to(&self, id: &str, reach: &Address) -> bool {
        self.feed().node().id == id && self.feed().node().reach == *reach
    }

    /// Whether its node is failing.
    pub(super) fn fails(&self, router: &Router) -> bool {
        router.topology().is_failing(&self.feed().node().id)
    }

    /// Whether all publishing goes through its node.
    pub(super) fn is_at_pubsub_node(&self, router: &Router) -> bool {
        router.topology().pubsub_node().is_some_and(|node| node.id == self.feed().node().id)
    }
}

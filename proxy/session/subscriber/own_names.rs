//! Subscriptions of a client with databases of its own. Shard channels bear the prefix of its database, as keys do; so do other
//! channels where they are isolated. Names here have the prefix. Subscriptions to keyspace notifications are made with the names
//! that nodes use, at the owner of the database's slot; messages are passed on with the client's names.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    TopicKind,
    notification::{is_notification, may_be_notified},
};
use crate::{
    clients::Clients,
    commands::database::Databases,
    protocol::{
        glob,
        resp::{Value, write},
        slot::Slot,
    },
};

/// How a client's names are known to nodes.
pub(super) struct OwnNames {
    /// `None` where the client has none of its own: its names are the nodes'.
    databases: Option<Arc<Databases>>,
    clients: Arc<Clients>,
    /// The patterns that are counted among those of its database, where channels are isolated.
    patterns: HashSet<Bytes>,
    /// What nodes are asked for because of notifications, and the client's names that it is for.
    asked: HashMap<(TopicKind, Bytes), Vec<(TopicKind, Bytes)>>,
}

/// What nodes are asked for.
pub(super) struct Asked {
    pub(super) kind: TopicKind,
    pub(super) name: Bytes,
    pub(super) place: Place,
}

/// Where that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Where the slot is.
    Slot(Slot),
    /// At every primary.
    Primaries,
    /// Where all publishing goes.
    PubSub,
}

impl OwnNames {
    pub(super) fn of(databases: &Arc<Databases>, clients: &Arc<Clients>) -> OwnNames {
        let databases = databases.is_any_own().then(|| databases.clone());
        OwnNames { databases, clients: clients.clone(), patterns: HashSet::new(), asked: HashMap::new() }
    }

    /// What nodes are asked for where the client names this; `None`: the same.
    pub(super) fn asks(&self, kind: TopicKind, name: &Bytes) -> Option<Vec<Asked>> {
        let databases = self.databases.as_ref()?;
        let said = if kind == TopicKind::Shard { name } else { self.shown(kind, name) };
        if !may_be_notified(kind, said) {
            return None;
        }
        let notified = databases.notified(said, kind == TopicKind::Pattern).into_iter().map(|notified| Asked {
            kind: if notified.is_pattern { TopicKind::Pattern } else { TopicKind::Channel },
            name: notified.name.into(),
            place: notified.slot.map_or(Place::Primaries, Place::Slot),
        });
        // What is published may match as well.
        let published = Asked { kind, name: name.clone(), place: Place::PubSub };
        Some(notified.chain((!is_notification(said)).then_some(published)).collect())
    }

    /// The client subscribes to this.
    pub(super) fn add(&mut self, kind: TopicKind, name: &Bytes) {
        if let Some(databases) = self.isolated(kind)
            && self.patterns.insert(name.clone())
        {
            self.clients.patterns.add(databases.scope(), name);
        }
        for asked in self.asks(kind, name).into_iter().flatten() {
            // Several databases may take the same.
            let topics = self.asked.entry((asked.kind, asked.name)).or_default();
            if !topics.iter().any(|(other, topic)| (*other, topic) == (kind, name)) {
                topics.push((kind, name.clone()));
            }
        }
    }

    /// The client ends that; what nodes need not be asked for any more.
    pub(super) fn remove(&mut self, kind: TopicKind, name: &Bytes) -> Vec<(TopicKind, Bytes)> {
        if let Some(databases) = self.isolated(kind)
            && self.patterns.remove(name)
        {
            self.clients.patterns.remove(databases.scope(), name);
        }
        let mut over = Vec::new();
        for asked in self.asks(kind, name).into_iter().flatten() {
            let key = (asked.kind, asked.name);
            let Some(topics) = self.asked.get_mut(&key) else { continue };
            topics.retain(|(other, topic)| (*other, topic) != (kind, name));
            if topics.is_empty() {
                self.asked.remove(&key);
                over.push(key);
            }
        }
        over
    }

    /// The databases whose patterns are counted, where this is one.
    fn isolated(&self, kind: TopicKind) -> Option<Arc<Databases>> {
        let databases = self.databases.as_ref().filter(|databases| databases.channels().is_some())?;
        (kind == TopicKind::Pattern).then(|| databases.clone())
    }

    /// Whether nodes are asked for this because of notifications.
    pub(super) fn is_asked(&self, kind: TopicKind, name: &Bytes) -> bool {
        self.asked.contains_key(&(kind, name.clone()))
    }

    /// Whether notifications are told otherwise than nodes tell them.
    pub(super) fn is_any(&self) -> bool {
        self.databases.is_some()
    }

    /// The messages that a notification is for the client, each with the name that it has subscribed to.
    pub(super) fn told(&self, kind: TopicKind, name: &Bytes, frame: &Bytes) -> Vec<(TopicKind, Bytes, Bytes)> {
        let told = || {
            let (message, _) = Value::parse(frame).ok()??;
            let [.., channel, payload] = message.items() else { return None };
            self.databases.as_ref()?.told(channel.text()?, payload.text()?)
        };
        // Of what is published alone, a node tells its own notifications as well.
        let topics = self.asked.get(&(kind, name.clone())).filter(|_| is_notification(name));
        let Some((topics, (channel, payload))) = topics.and_then(|topics| Some((topics, told()?))) else {
            return Vec::new();
        };
        let fits = |kind: TopicKind, topic: &[u8]| match kind {
            TopicKind::Pattern => glob::matches(self.shown(kind, topic), &channel),
            TopicKind::Channel | TopicKind::Shard => *topic == *channel,
        };
        let told = topics.iter().filter(|(kind, topic)| fits(*kind, topic)).map(|(kind, topic)| {
            let frame = match kind {
                TopicKind::Pattern => message(&[b"pmessage", self.shown(*kind, topic), &channel, &payload]),
                TopicKind::Channel | TopicKind::Shard => message(&[b"message", &channel, &payload]),
            };
            (*kind, topic.clone(), frame)
        });
        told.collect()
    }

    /// A name as the client says it.
    pub(super) fn shown<'a>(&self, kind: TopicKind, name: &'a [u8]) -> &'a [u8] {
        let Some(databases) = &self.databases else { return name };
        let own = match kind {
            TopicKind::Shard => databases.own(name).map(|(_, own)| own),
            TopicKind::Channel | TopicKind::Pattern => {
                databases.channels().and_then(|channels| channels.own(name, kind == TopicKind::Pattern))
            }
        };
        own.unwrap_or(name)
    }

    /// What is published on a channel of its own, as the client is told it.
    pub(super) fn shown_message(&self, kind: TopicKind, name: &Bytes, frame: Bytes) -> Bytes {
        let own = self.shown(kind, name);
        if own.len() == name.len() {
            return frame;
        }
        let Ok(Some((said, _))) = Value::parse(&frame) else { return frame };
        match said.items() {
            [Value::Text(verb), _, Value::Text(payload)] => message(&[verb, own, payload]),
            [Value::Text(verb), _, Value::Text(channel), Value::Text(payload)] => {
                message(&[verb, own, self.shown(TopicKind::Channel, channel), payload])
            }
            _ => frame,
        }
    }
}

impl Drop for OwnNames {
    fn drop(&mut self) {
        for name in self.patterns.drain().collect::<Vec<_>>() {
            if let Some(databases) = &self.databases {
                self.clients.patterns.remove(databases.scope(), &name);
            }
        }
    }
}

fn message(words: &[&[u8]]) -> Bytes {
    let mut frame = Vec::new();
    write::request(&mut frame, words);
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(databases: Databases) -> OwnNames {
        OwnNames::of(&Arc::new(databases), &Arc::new(Clients::new(1 << 20)))
    }

    fn names(name: &str) -> OwnNames {
        of(Databases::new(Some(name), "{%}", 1).unwrap())
    }

    #[test]
    fn who_has_no_database_of_its_own_asks_for_what_it_names() {
        let channel = Bytes::from("__keyspace@0__:a");
        let none = of(Databases::default());
        assert!(!none.is_any() && none.asks(TopicKind::Channel, &channel).is_none());
    }

    #[test]
    fn notifications_are_asked_for_as_nodes_name_them_and_told_as_the_client_does() {
        let (mut names, channel) = (names("shop"), Bytes::from("__keyspace@0__:a"));
        assert!(names.asks(TopicKind::Channel, &Bytes::from("news")).is_none(), "what is published is nobody's");
        let asked = names.asks(TopicKind::Channel, &channel).expect("it is known otherwise");
        let kept = Bytes::from("__keyspace@0__:{shop}a");
        assert_eq!(asked.len(), 1, "nothing of it can be published");
        assert_eq!((asked[0].kind, &asked[0].name), (TopicKind::Channel, &kept));
        assert_eq!(asked[0].place, Place::Slot(Slot::of(b"{shop}")));

        names.add(TopicKind::Channel, &channel);
        assert!(names.is_asked(TopicKind::Channel, &kept));
        let frame = message(&[b"message", &kept, b"set"]);
        let told = names.told(TopicKind::Channel, &kept, &frame);
        assert_eq!(told, [(TopicKind::Channel, channel.clone(), message(&[b"message", &channel, b"set"]))]);
        assert_eq!(names.remove(TopicKind::Channel, &channel), [(TopicKind::Channel, kept.clone())]);
        assert!(!names.is_asked(TopicKind::Channel, &kept));
    }

    #[test]
    fn shard_channels_are_told_without_the_prefix() {
        let (names, kept) = (names("shop"), Bytes::from("{shop}orders"));
        assert_eq!(names.shown(TopicKind::Shard, &kept), b"orders");
        assert_eq!(names.shown(TopicKind::Channel, &kept), &kept[..]);
        let published = message(&[b"smessage", &kept, b"new"]);
        assert_eq!(names.shown_message(TopicKind::Shard, &kept, published), message(&[b"smessage", b"orders", b"new"]));
    }
}

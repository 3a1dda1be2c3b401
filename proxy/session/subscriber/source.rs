//! One node's part of a client's subscriptions: what should be subscribed there, what is, and what has been asked for.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Sleep;

use crate::{
    cluster::refusal::Refusal,
    protocol::{resp::write, slot::Slot},
    upstream::{
        dial::DialError,
        feed::{Feed, FeedEvent},
    },
};

/// When a node is asked again that could not subscribe just now.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// When a node is asked for a subscription that another still delivers: later than a message takes from node to node, so that
/// the new node does not deliver again what the old one delivered before the move.
const TAKE_OVER: Duration = Duration::from_millis(150);
/// How many names one request has at most, so that neither the requests behind it nor other clients wait for more.
const PORTION: usize = 1024;
/// How many names a node is asked for ahead of its confirmations: enough to keep it at work. However many names there are, its
/// confirmations keep coming, which shows that it is alive.
const ASKED_AHEAD: usize = 8 * PORTION;

/// What can be subscribed to; as an index too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TopicKind {
    /// SUBSCRIBE.
    Channel,
    /// PSUBSCRIBE.
    Pattern,
    /// SSUBSCRIBE.
    Shard,
}

pub const KINDS: [TopicKind; 3] = [TopicKind::Channel, TopicKind::Pattern, TopicKind::Shard];

impl TopicKind {
    /// The commands that begin and end it, in the case of their confirmations.
    pub fn verb(self, subscribe: bool) -> &'static str {
        match (self, subscribe) {
            (TopicKind::Channel, true) => "subscribe",
            (TopicKind::Channel, false) => "unsubscribe",
            (TopicKind::Pattern, true) => "psubscribe",
            (TopicKind::Pattern, false) => "punsubscribe",
            (TopicKind::Shard, true) => "ssubscribe",
            (TopicKind::Shard, false) => "sunsubscribe",
        }
    }
}

/// Names of each kind.
pub type Names = [HashSet<Bytes>; 3];

/// A connection to a node and the subscriptions on it.
pub struct Source {
    feed: Feed,
    /// Tells it from others in a handover.
    pub number: u64,
    /// The node is, or lately was, the one that all publishing goes through; else only notifications are wanted from it.
    pub at_pubsub_node: bool,
    /// What should be subscribed here.
    pub desired: Names,
    /// What is.
    pub actual: Names,
    /// Why the node cannot be reached now.
    pub lost: Option<String>,
    /// What is to be asked for next, in this order, unless it is not desired any more by then.
    due: VecDeque<(TopicKind, Bytes)>,
    asks: VecDeque<Ask>,
    /// In how many of these each name is asked to be subscribed.
    asked: [HashMap<Bytes, u32>; 3],
    /// What the node could not do just now, and when it is asked again.
    later: Names,
    again: Option<Pin<Box<Sleep>>>,
}

/// A request that has not been answered in full: by one confirmation for each name, or by one error.
struct Ask {
    kind: TopicKind,
    subscribe: bool,
    names: HashSet<Bytes>,
}

/// What a node has said.
pub enum Heard {
    /// The node is connected.
    Opened,
    /// A message: of which subscription, and on which channel.
    Message { kind: TopicKind, name: Bytes, channel: Bytes, frame: Bytes },
    /// The node has confirmed something.
    Confirmed,
    /// The node refuses to subscribe to these: its error.
    Refused { kind: TopicKind, names: Vec<Bytes>, error: Bytes },
    /// The node has ended the subscription to a shard channel by itself: the slot has gone.
    Dropped(Bytes),
    /// The connection is lost, and with it so many subscriptions.
    Lost { why: String, subscriptions: usize },
    /// The node cannot be reached.
    Unreachable(DialError),
}

impl Source {
    pub fn new(feed: Feed, number: u64) -> Source {
        Source {
            feed,
            number,
            at_pubsub_node: false,
            desired: Names::default(),
            actual: Names::default(),
            lost: None,
            due: VecDeque::new(),
            asks: VecDeque::new(),
            asked: Default::default(),
            later: Names::default(),
            again: None,
        }
    }

    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Whether all that should be subscribed here is.
    pub fn is_settled(&self) -> bool {
        self.feed.is_open() && self.due.is_empty() && self.asks.is_empty() && self.later.iter().all(HashSet::is_empty)
    }

    pub fn has_nothing_to_do(&self) -> bool {
        self.desired.iter().all(HashSet::is_empty)
    }

    /// Subscribes to these from now on.
    pub fn want(&mut self, kind: TopicKind, names: impl IntoIterator<Item = Bytes>) {
        let desired = &mut self.desired[kind as usize];
        let actual = &self.actual[kind as usize];
        // Where it is not open, all that is desired is asked for when it is.
        let is_open = self.feed.is_open();
        for name in names {
            if desired.insert(name.clone()) && is_open && !actual.contains(&name) {
                self.due.push_back((kind, name));
            }
        }
    }

    /// Subscribes to these soon: another node delivers them until then.
    pub fn want_soon(&mut self, kind: TopicKind, names: Vec<Bytes>) {
        let missing = |name: &Bytes| !self.actual[kind as usize].contains(name);
        let late: Vec<Bytes> = names.iter().filter(|name| missing(name)).cloned().collect();
        self.desired[kind as usize].extend(names);
        if !late.is_empty() {
            self.later[kind as usize].extend(late);
            self.again = Some(Box::pin(tokio::time::sleep(TAKE_OVER)));
        }
    }

    /// Subscribes to these no more.
    pub fn drop_names(&mut self, kind: TopicKind, names: &[Bytes]) {
        let [desired, later] = [&mut self.desired, &mut self.later].map(|names| &mut names[kind as usize]);
        for name in names {
            desired.remove(name);
            later.remove(name);
        }
        let (actual, asked) = (&self.actual[kind as usize], &self.asked[kind as usize]);
        let there = |name: &&Bytes| actual.contains(*name) || asked.contains_key(*name);
        let names = names.iter().filter(there).cloned().collect();
        self.ask(kind, false, names);
    }

    /// Ends what is subscribed but should not be.
    pub fn drop_surplus(&mut self) {
        for kind in KINDS {
            let (desired, actual) = (&self.desired[kind as usize], &self.actual[kind as usize]);
            let surplus: Vec<Bytes> = actual.difference(desired).cloned().collect();
            self.ask(kind, false, surplus);
        }
    }

    /// Asks again for what the node could not do, after a pause.
    pub fn ask_later(&mut self, kind: TopicKind, names: Vec<Bytes>) {
        self.later[kind as usize].extend(names);
        self.again.get_or_insert_with(|| Box::pin(tokio::time::sleep(ASK_AGAIN)));
    }

    /// Asks for these once more, though they have been asked for before.
    pub fn ask_again(&mut self, kind: TopicKind, names: Vec<Bytes>) {
        self.ask(kind, true, names);
    }

    fn ask(&mut self, kind: TopicKind, subscribe: bool, names: Vec<Bytes>) {
        if names.is_empty() || !self.feed.is_open() {
            return;
        }
        // A cluster takes the shard channels of one slot at a time.
        let mut groups: BTreeMap<usize, HashSet<Bytes>> = BTreeMap::new();
        for name in names {
            if subscribe {
                *self.asked[kind as usize].entry(name.clone()).or_default() += 1;
            }
            let group = if kind == TopicKind::Shard { Slot::of(&name).index() } else { 0 };
            groups.entry(group).or_default().insert(name);
        }
        for names in groups.into_values() {
            let verb = Bytes::from_static(kind.verb(subscribe).as_bytes());
            let mut frame = Vec::new();
            write::request(&mut frame, &std::iter::once(&verb).chain(&names).collect::<Vec<_>>());
            self.feed.send(&frame);
            self.asks.push_back(Ask { kind, subscribe, names });
        }
    }

    /// Asks for what is due, as far as that may go ahead of what the node confirms.
    fn ask_due(&mut self) {
        while !self.due.is_empty() && self.asked.iter().map(HashMap::len).sum::<usize>() < ASKED_AHEAD {
            let mut names: [Vec<Bytes>; 3] = Default::default();
            for (kind, name) in self.due.drain(..PORTION.min(self.due.len())) {
                if self.desired[kind as usize].contains(&name) {
                    names[kind as usize].push(name);
                }
            }
            for (kind, names) in KINDS.into_iter().zip(names) {
                self.ask(kind, true, names);
            }
        }
        if self.due.is_empty() {
            self.due = VecDeque::new();
        }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>, buffer: &RefCell<Box<[u8]>>) -> Poll<Heard> {
        if let Some(again) = &mut self.again
            && again.as_mut().poll(cx).is_ready()
        {
            self.again = None;
            for kind in KINDS {
                let late = std::mem::take(&mut self.later[kind as usize]);
                self.due.extend(late.into_iter().map(|name| (kind, name)));
            }
            if !self.feed.is_open() {
                self.due.clear();
            }
        }
        self.ask_due();
        loop {
            match std::task::ready!(self.feed.poll(cx, buffer)) {
                FeedEvent::Opened => {
                    self.lost = None;
                    for kind in KINDS {
                        let (desired, later) = (&self.desired[kind as usize], &self.later[kind as usize]);
                        self.due.extend(desired.difference(later).map(|name| (kind, name.clone())));
                    }
                    return Poll::Ready(Heard::Opened);
                }
                FeedEvent::Frame(frame) => {
                    if let Some(heard) = self.hear(frame) {
                        return Poll::Ready(heard);
                    }
                }
                FeedEvent::Lost(why) => {
                    let subscriptions = self.actual.iter().map(HashSet::len).sum();
                    self.actual = Names::default();
                    self.due.clear();
                    self.asks.clear();
                    self.asked = Default::default();
                    self.later = Names::default();
                    self.again = None;
                    return Poll::Ready(Heard::Lost { why, subscriptions });
                }
                FeedEvent::Unreachable(error) => {
                    self.lost = Some(error.reply());
                    return Poll::Ready(Heard::Unreachable(error));
                }
            }
        }
    }

    /// Which request an error answers: the oldest. A redirect is matched by its slot, since a node that has dropped a
    /// slot's subscriptions by itself says so, and then still refuses the request to end them.
    fn refused_ask(&self, error: &Bytes) -> Option<usize> {
        let Some(Refusal::Redirect(redirect)) = Refusal::of(error) else { return Some(0) };
        let about = |ask: &Ask| {
            ask.kind == TopicKind::Shard && ask.names.iter().next().is_some_and(|name| Slot::of(name) == redirect.slot)
        };
        self.asks.iter().position(about)
    }

    /// What a frame says; `None` for what nobody has to know.
    fn hear(&mut self, frame: Bytes) -> Option<Heard> {
        if frame.first() == Some(&b'-') {
            let ask = self.asks.remove(self.refused_ask(&frame)?)?;
            if !ask.subscribe {
                // The slot has gone, and the subscription with it.
                for name in &ask.names {
                    self.actual[ask.kind as usize].remove(name);
                }
                return Some(Heard::Confirmed);
            }
            ask.names.iter().for_each(|name| self.is_answered(ask.kind, name));
            return Some(Heard::Refused { kind: ask.kind, names: ask.names.into_iter().collect(), error: frame });
        }
        let [verb, name, channel] = words(&frame)?;
        let message = |kind, channel| Some(Heard::Message { kind, name: name.clone(), channel, frame: frame.clone() });
        match &*verb {
            b"message" => return message(TopicKind::Channel, name.clone()),
            b"pmessage" => return message(TopicKind::Pattern, channel),
            b"smessage" => return message(TopicKind::Shard, name.clone()),
            _ => {}
        }
        let front = self.asks.front_mut().filter(|ask| ask.kind.verb(ask.subscribe).as_bytes() == &*verb);
        let Some((ask, name)) = front.and_then(|ask| ask.names.take(&name).map(|name| (ask, name))) else {
            let dropped = *verb == *b"sunsubscribe" && self.actual[TopicKind::Shard as usize].remove(&name);
            return dropped.then_some(Heard::Dropped(name));
        };
        let (kind, subscribe, over) = (ask.kind, ask.subscribe, ask.names.is_empty());
        if over {
            self.asks.pop_front();
        }
        if subscribe {
            self.is_answered(kind, &name);
            self.actual[kind as usize].insert(name);
        } else {
            self.actual[kind as usize].remove(&name);
        }
        Some(Heard::Confirmed)
    }

    /// One request to subscribe to this has been answered.
    fn is_answered(&mut self, kind: TopicKind, name: &Bytes) {
        let asked = &mut self.asked[kind as usize];
        if let Some(count) = asked.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                asked.remove(name);
            }
        }
    }
}

/// The first three elements of an array of bulk strings; what is missing or no bulk string is empty.
fn words(frame: &Bytes) -> Option<[Bytes; 3]> {
    if frame.first() != Some(&b'*') {
        return None;
    }
    let mut words = [Bytes::new(), Bytes::new(), Bytes::new()];
    let mut at = line_end(frame, 0)?;
    for word in &mut words {
        let Some(end) = line_end(frame, at) else { break };
        if frame.get(at) == Some(&b'$') {
            let length = std::str::from_utf8(frame.get(at + 1..end - 2)?).ok()?.parse::<i64>().ok()?;
            if let Ok(length) = usize::try_from(length) {
                *word = frame.slice(end..end.checked_add(length).filter(|end| *end <= frame.len())?);
                at = end + length + 2;
                continue;
            }
        }
        at = end;
    }
    Some(words)
}

/// Where the line that begins at `at` ends, its CR LF included.
fn line_end(frame: &[u8], at: usize) -> Option<usize> {
    Some(at + frame.get(at..)?.iter().position(|&byte| byte == b'\n')? + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_understood() {
        for (frame, expected) in [
            ("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\n\r\n\r\n", ["message", "a", "\r\n"]),
            ("*4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$2\r\nab\r\n$1\r\nx\r\n", ["pmessage", "a*", "ab"]),
            ("*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n", ["unsubscribe", "", ""]),
            ("*3\r\n$9\r\nsubscribe\r\n$0\r\n\r\n:1\r\n", ["subscribe", "", ""]),
        ] {
            assert_eq!(words(&Bytes::from(frame)).unwrap(), expected.map(Bytes::from), "{frame}");
        }
        for other in [&b"*1"[..], b"%2\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n", b"+message\r\n"] {
            assert_eq!(words(&Bytes::from_static(other)), None);
        }
    }
}

//! What has happened, for operators: each change of state is one line in the log, and the latest are remembered for the status
//! page and PROXY EVENTS. A request is no event.

use std::{
    collections::VecDeque,
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use super::{labels::labels, lock, readable::unix_time};

/// How many events are remembered.
const MOST_KEPT: usize = 500;
/// Lines in the log for events of one kind within a minute: a node that comes and goes each second fills no disk.
const MOST_LINES: u32 = 30;
const MINUTE: Duration = Duration::from_secs(60);

labels! {
    /// What an event is about.
    EventKind {
        /// The proxy starts, is ready, or stops.
        Process = "process",
        /// A node cannot be reached, or its connection was lost.
        NodeLost = "node_lost",
        /// A node is there again.
        NodeBack = "node_back",
        /// A node takes long, or does so no more.
        NodeSlow = "node_slow",
        /// A node has joined, left, or goes by another address or role.
        Member = "member",
        /// A replica has taken over slots.
        FailOver = "fail_over",
        /// Slots have moved.
        SlotsMoved = "slots_moved",
        /// More slots are served, or fewer.
        Served = "served",
        /// All publishing goes through another node.
        Publishing = "publishing",
        /// Clients were turned away, or sent what is no request.
        Clients = "clients",
    }
}

labels! {
    /// How bad an event is.
    Severity {
        /// Good to know.
        Info = "info",
        /// Somebody is hurt, or may be soon.
        Warning = "warning",
        /// Nothing works until somebody does something.
        Error = "error",
    }
}

/// One thing that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Grows from event to event, from 1.
    pub id: u64,
    /// When it happened.
    pub at: SystemTime,
    /// How bad the event is.
    pub severity: Severity,
    /// What the event is about.
    pub kind: EventKind,
    /// The event in words.
    pub text: String,
}

impl Event {
    /// When it happened, in Unix time.
    pub fn unix_seconds(&self) -> u64 {
        unix_time(self.at).as_secs()
    }
}

/// The latest events of the process.
#[derive(Debug, Default)]
pub struct Events(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    last: u64,
    kept: VecDeque<Event>,
    lines: [Lines; EventKind::ALL.len()],
}

/// What the log has been told of one kind within the present minute.
#[derive(Clone, Copy, Debug, Default)]
struct Lines {
    since: Option<Instant>,
    told: u32,
    untold: u64,
}

impl Lines {
    /// Whether there may be one more, and how many there were not in the minute before.
    fn one_more(&mut self, now: Instant) -> (bool, u64) {
        let mut untold = 0;
        if self.since.is_none_or(|since| now - since >= MINUTE) {
            untold = self.untold;
            *self = Lines { since: Some(now), ..Lines::default() };
        }
        self.told += 1;
        let may = self.told <= MOST_LINES;
        self.untold += u64::from(!may);
        (may, untold)
    }
}

impl Events {
    /// Something that is good to know.
    pub fn info(&self, kind: EventKind, text: impl Into<String>) {
        self.tell(Severity::Info, kind, text.into());
    }

    /// Something that hurts somebody.
    pub fn warn(&self, kind: EventKind, text: impl Into<String>) {
        self.tell(Severity::Warning, kind, text.into());
    }

    /// Something that lets nothing work.
    pub fn error(&self, kind: EventKind, text: impl Into<String>) {
        self.tell(Severity::Error, kind, text.into());
    }

    fn tell(&self, severity: Severity, kind: EventKind, text: String) {
        let mut recent = lock(&self.0);
        let (may, untold) = recent.lines[kind as usize].one_more(Instant::now());
        if untold > 0 {
            tracing::info!("{untold} more lines of the kind {} would have been too many for a minute", kind.label());
        }
        match severity {
            _ if !may => {}
            Severity::Info => tracing::info!("{text}"),
            Severity::Warning => tracing::warn!("{text}"),
            Severity::Error => tracing::error!("{text}"),
        }
        recent.last += 1;
        let event = Event { id: recent.last, at: SystemTime::now(), severity, kind, text };
        recent.kept.push_back(event);
        if recent.kept.len() > MOST_KEPT {
            recent.kept.pop_front();
        }
    }

    /// The events after the one with this id, the oldest first, at most the latest `most` of them.
    pub fn after(&self, id: u64, most: usize) -> Vec<Event> {
        let recent = lock(&self.0);
        let new: Vec<&Event> = recent.kept.iter().rev().take_while(|event| event.id > id).take(most).collect();
        new.into_iter().rev().cloned().collect()
    }

    /// Forgets all.
    pub fn clear(&self) {
        lock(&self.0).kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_in_their_order() {
        let events = Events::default();
        (0..MOST_KEPT + 10).for_each(|number| events.info(EventKind::Process, format!("number {number}")));
        let all = events.after(0, usize::MAX);
        assert_eq!(all.len(), MOST_KEPT);
        assert_eq!(all.last().map(|event| event.text.as_str()), Some("number 509"));
        assert_eq!(all.first().map(|event| event.id), Some(11));
        let two = events.after(505, 2);
        assert_eq!(two.iter().map(|event| event.id).collect::<Vec<_>>(), [509, 510]);
        events.clear();
        assert!(events.after(0, 9).is_empty());
    }

    #[test]
    fn so_many_lines_of_a_kind_are_enough_for_a_minute() {
        let (mut lines, now) = (Lines::default(), Instant::now());
        let told = (0..MOST_LINES + 5).filter(|_| lines.one_more(now).0).count();
        assert_eq!(told, MOST_LINES as usize);
        assert_eq!(lines.one_more(now + MINUTE), (true, 5));
        assert_eq!(lines.one_more(now + MINUTE), (true, 0));
    }
}

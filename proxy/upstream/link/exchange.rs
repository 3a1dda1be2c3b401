//! The traffic of one established connection: requests out, replies to their tickets, messages to the audience.

mod deadlines;
mod slowness;
mod verdict;

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use self::{
    deadlines::Stall,
    slowness::Writes,
    verdict::{NotExecuted, not_executed},
};
use super::{
    Link, PushEvent,
    companion::Companion,
    queue::{Entry, Queue},
    task::Connected,
};
use crate::{
    cluster::{
        recovery::{self, Why},
        refusal,
    },
    metrics::{NodeError, RequestClass},
    protocol::resp::reply::Scanner,
    upstream::{sizes::LARGE_REPLY, ticket::Envelope, transport::Stream},
};

/// An unfinished reply of this size is passed on in pieces instead of being collected.
const STREAMED: usize = 32 * 1024;

/// Why an exchange ended.
pub(super) enum Lost {
    Retired,
    /// The reply to an exclusive request may have been forged, and more bytes may follow. Nothing behind it has been written.
    Doubtful,
    Broken(String),
}

/// The traffic of one established connection.
pub(super) struct Exchange {
    link: Rc<Link>,
    stream: Stream,
    companion: Option<Companion>,
    /// What the node had said when the login was over.
    rest: Vec<u8>,
    /// The beginning of a reply whose end has not come.
    partial: BytesMut,
    scanner: Scanner,
    /// The front of a long reply has been passed on.
    streaming: bool,
    /// The reply to an exclusive request may have been forged by its client.
    doubtful: bool,
    /// The run queue has gone round since there was something to write.
    gathered: bool,
    deadline: Pin<Box<Sleep>>,
    deadline_set: bool,
    /// The deadline was set while nobody waited for an answer.
    deadline_idle: bool,
    last_heard: Instant,
    /// When the node took bytes last.
    last_taken: Instant,
    writes: Writes,
    pub heard_from: bool,
    stall: Option<Stall>,
    /// Bytes of the long reply that have been passed on.
    passed: usize,
    /// The departures of clients that have been looked after.
    departures: u64,
}

impl Exchange {
    pub fn new(link: Rc<Link>, Connected { stream, rest, companion, .. }: Connected) -> Exchange {
        let now = link.context.clock.tick();
        Exchange {
            link,
            stream,
            companion,
            rest,
            partial: BytesMut::new(),
            scanner: Scanner::default(),
            streaming: false,
            doubtful: false,
            gathered: true,
            deadline: Box::pin(tokio::time::sleep(Duration::ZERO)),
            deadline_set: false,
            deadline_idle: false,
            last_heard: now,
            last_taken: now,
            writes: Writes::default(),
            heard_from: false,
            stall: None,
            passed: 0,
            departures: 0,
        }
    }

    /// Reads, writes and watches the deadlines, all three each time: a blocked write must never stop reading, since
    /// the node may be waiting for just that.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        self.link.waking.listen(cx.waker());
        if self.lets_others_go_first() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.link.context.clock.tick();
        if let Poll::Ready(lost) = self.poll_read(cx) {
            return Poll::Ready(Lost::Broken(lost));
        }
        if self.doubtful {
            return Poll::Ready(Lost::Doubtful);
        }
        if let Poll::Ready(lost) = self.poll_companion(cx) {
            return Poll::Ready(Lost::Broken(lost));
        }
        if let Poll::Ready(lost) = self.poll_write(cx) {
            return Poll::Ready(Lost::Broken(lost));
        }
        if let Poll::Ready(lost) = self.poll_deadlines(cx) {
            return Poll::Ready(Lost::Broken(lost));
        }
        if self.link.retired.get() && self.link.queue.borrow().owes_nothing() {
            return Poll::Ready(Lost::Retired);
        }
        Poll::Pending
    }

    /// Whether there is something to write for the first time since the last write. Sessions that are ready now get their
    /// turn first: one write then carries the requests of all.
    fn lets_others_go_first(&mut self) -> bool {
        if self.gathered {
            return false;
        }
        let queue = self.link.queue.borrow();
        self.gathered = queue.written < queue.bytes.len() && queue.written < queue.writable(self.link.room());
        self.gathered
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        let queue = &mut *self.link.queue.borrow_mut();
        let departures = self.link.context.departures.get();
        if std::mem::replace(&mut self.departures, departures) != departures {
            let (requests, bytes) = queue.drop_abandoned();
            self.link.tally.dropped(requests, bytes);
        }
        let writable = queue.writable(self.link.room());
        if queue.written == writable {
            return Poll::Pending;
        }
        self.writes.begin(self.link.context.clock.now());
        while queue.written < writable {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &queue.bytes[queue.written..writable])) {
                Ok(count) => {
                    self.last_taken = self.link.context.clock.now();
                    if queue.written == 0 {
                        self.last_heard = self.last_taken;
                    }
                    queue.written += count;
                    self.link.tally.sent(count);
                }
                Err(error) => return Poll::Ready(error.to_string()),
            }
        }
        if queue.written == queue.bytes.len() {
            queue.loads.clear();
        }
        self.gathered = false;
        self.link.tally.left_queue(self.writes.end(queue.in_flight(), self.link.context.clock.now()));
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            if let Err(wrong) = self.take_bytes(&rest) {
                return Poll::Ready(wrong.to_owned());
            }
        }
        let buffer = self.link.context.buffer.clone();
        while !self.doubtful {
            ready!(self.poll_stall(cx));
            let buffer = &mut *buffer.borrow_mut();
            let mut read = ReadBuf::new(buffer);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read)) {
                Ok(()) if read.filled().is_empty() => return Poll::Ready("closed by the node".to_owned()),
                Ok(()) => {
                    self.last_heard = self.link.context.clock.now();
                    self.heard_from = true;
                    self.link.tally.received(read.filled().len(), self.last_heard);
                    if let Err(wrong) = self.take_bytes(read.filled()) {
                        return Poll::Ready(wrong.to_owned());
                    }
                }
                Err(error) => return Poll::Ready(error.to_string()),
            }
        }
        Poll::Pending
    }

    fn poll_companion(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        let Some(companion) = &mut self.companion else { return Poll::Pending };
        loop {
            match ready!(companion.poll(cx, &self.link.context.buffer)) {
                Ok(frame) => self.link.tell(PushEvent::Said(&frame)),
                Err(error) => return Poll::Ready(format!("its messages: {error}")),
            }
        }
    }

    /// Takes what has come. Behind the beginning of a reply only what completes it is copied: what follows, often many
    /// replies, is handed on from where it is.
    fn take_bytes(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        let mut rest = bytes;
        while !self.partial.is_empty() && !rest.is_empty() && !self.doubtful {
            let missing = self.scanner.missing(self.partial.len()).unwrap_or(rest.len());
            let (more, behind) = rest.split_at(missing.min(rest.len()));
            let mut held = std::mem::take(&mut self.partial);
            held.extend_from_slice(more);
            let used = self.take_replies(&held)?;
            held.advance(used);
            if !held.is_empty() {
                self.partial = held;
            }
            rest = behind;
        }
        if self.partial.is_empty() {
            let used = self.take_replies(rest)?;
            self.partial.extend_from_slice(&rest[used..]);
        }
        Ok(())
    }

    /// Hands on every whole reply, and what has come of a long one; says how many bytes that took.
    fn take_replies(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let mut used = 0;
        // What the node says after a doubtful reply is for nobody.
        while used < bytes.len() && !self.doubtful {
            let rest = &bytes[used..];
            match self.scanner.find(rest).map_err(|_| "its reply is not RESP")? {
                Some(end) => {
                    self.note_size(end);
                    self.take_reply(&rest[..end])?;
                    used += end;
                    self.streaming = false;
                    self.stall = None;
                    self.passed = 0;
                }
                None => {
                    let ready = self.scanner.scanned(rest.len());
                    let is_push = !self.streaming && rest.first() == Some(&b'>');
                    if rest.len() >= STREAMED && ready > 0 && !is_push {
                        self.note_size(rest.len());
                        if self.stream(&rest[..ready], rest.len()) {
                            self.scanner.passed_on(ready);
                            self.streaming = true;
                            self.passed += ready;
                            used += ready;
                        }
                    }
                    break;
                }
            }
        }
        Ok(used)
    }

    /// The reply at the front of the queue has `more` bytes beyond those that have been passed on. Where it thereby turns
    /// out to be large, that is remembered for the next one like it.
    fn note_size(&self, more: usize) {
        if self.passed + more >= LARGE_REPLY && self.passed < LARGE_REPLY {
            self.note_large();
        }
    }

    #[cold]
    fn note_large(&self) {
        let queue = self.link.queue.borrow();
        let front = queue.entries.front().filter(|front| front.prelude + front.swallow == 0);
        let Some(envelope) = front.and_then(|front| front.envelope.as_ref()) else { return };
        self.link.context.note_large(envelope, queue.front_frame());
        self.link.tally.large_reply(queue.front_frame(), LARGE_REPLY);
    }

    /// Passes on the front of a long reply where its ticket streams; else tells the ticket how much is held. True where the bytes
    /// are done with.
    fn stream(&self, chunk: &[u8], held: usize) -> bool {
        let queue = self.link.queue.borrow();
        match queue.entries.front() {
            Some(Entry { envelope: Some(envelope), prelude: 0, swallow: 0, fault: None, .. })
                if envelope.ticket.streams() =>
            {
                envelope.stream(chunk)
            }
            // Nobody waits for it any more.
            Some(Entry { envelope: None, .. }) => {}
            Some(Entry { envelope: Some(envelope), .. }) => {
                envelope.ticket.holds(held);
                return false;
            }
            None => return false,
        }
        true
    }

    fn take_reply(&mut self, reply: &[u8]) -> Result<(), &'static str> {
        if reply.first() == Some(&b'>') && !self.streaming {
            // A push is nobody's reply, and nothing asks for any on a shared connection.
            self.link.tell(PushEvent::Said(reply));
            return Ok(());
        }
        let mut queue = self.link.queue.borrow_mut();
        let written = queue.written;
        let front = queue.entries.front_mut().ok_or("it sent a reply that nobody asked for")?;
        // What stands before the request, such as a transaction's first commands, is answered while more is on its way.
        let is_answer = front.prelude + front.swallow == 0;
        if written < if is_answer { front.length } else { 1 } {
            // The node refuses an argument for its length as soon as it knows that.
            let refused = front.envelope.take_if(|_| reply.starts_with(b"-ERR Protocol error: "));
            drop(queue);
            refused.into_iter().for_each(|envelope| envelope.fill(reply));
            return Err("it answered before the request was whole");
        }
        if !is_answer {
            take_ahead(&self.link, front, reply, self.streaming);
            return Ok(());
        }
        let took = self.link.context.clock.now() - front.since;
        let (class, refused) = match &front.envelope {
            // The end of a long value may read like an error.
            Some(envelope) if self.streaming => (envelope.traits.class(), None),
            Some(envelope) => (envelope.traits.class(), not_executed(reply, front.fault.as_deref(), envelope)),
            None => (RequestClass::Other, None),
        };
        self.link.tally.replied(class, took);
        if took >= self.link.context.timeouts.slow_request() {
            self.note_slow(&queue, took);
        }
        let refused = refused.map(|(how, error)| (how, error, queue.front_request()));
        let Some(entry) = queue.pop() else { return Ok(()) };
        drop(queue);
        // Success is in the server's own words.
        self.doubtful = match entry.unknown {
            true => !reply.starts_with(b"-ERR unknown command "),
            false => entry.exclusive && (self.streaming || !matches!(reply.first(), Some(b'+' | b'$'))),
        };
        match (entry.envelope, refused) {
            (Some(envelope), Some((how, error, request))) => self.bounce(how, error, request, envelope),
            (Some(envelope), None) => {
                let with_reason = entry.fault.and_then(|fault| refusal::abort_because(reply, &fault));
                envelope.fill_by(&self.link.node, with_reason.as_deref().unwrap_or(reply));
            }
            (None, _) if entry.heartbeat => {}
            (None, _) => {
                self.link.tally.late();
                self.link.connection.borrow().hears_late();
            }
        }
        Ok(())
    }

    /// The node did not execute the request.
    fn bounce(&self, how: NotExecuted, error: Bytes, request: Bytes, mut envelope: Envelope) {
        let Link { node, context, tally, .. } = &*self.link;
        envelope.tries = envelope.tries.saturating_add(1);
        let why = match how {
            NotExecuted::NoScript => {
                tally.error(NodeError::NoScript);
                Why::NoScript(node.clone(), error)
            }
            NotExecuted::Missing => Why::ByReplica(refusal::lossy_text(&error)),
            NotExecuted::Refused(refusal) => recovery::refused(refusal, error, node, tally, &context.hints),
        };
        envelope.bounce(request, why);
    }
}

/// Takes a reply to what stands before the front request.
fn take_ahead(link: &Link, front: &mut Entry, reply: &[u8], is_end_of_long: bool) {
    if front.prelude > 0 {
        front.prelude -= 1;
        if reply.starts_with(b"-NOPERM") && !is_end_of_long {
            // Each further try would be an entry in the node's ACL LOG.
            link.never_loads.set(true);
        }
        return;
    }
    front.swallow -= 1;
    if reply.first() == Some(&b'-') && front.fault.is_none() && !is_end_of_long {
        front.fault = Some(Box::new(Bytes::copy_from_slice(reply)));
    }
}

//! The worker's shared, pipelined connection to one node, in one lane.
//!
//! Sessions append requests and tickets to the link's queue; its task writes what has gathered once per turn of the
//! event loop and hands replies to the tickets in order. A request's bytes stay in the queue until it is answered, as
//! TCP keeps its send queue, so that one which comes back unexecuted needs no copy of its own.
//!
//! Three facts decide what becomes of a request when the connection is lost: it was never wholly written, so it did not
//! run and goes back to its session; it was written and only reads, so it goes back too, once; or it was written and
//! may have run, and then its client is told so.

mod companion;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

use self::companion::Companion;
use crate::{
    config::Config,
    dial::{self, DialError, Login},
    metrics::{NodeError, NodeTally},
    refusal::{self, Later, Refusal},
    resp::reply::Scanner,
    scripts::{Script, Sha},
    ticket::{Clock, OWED_LIMIT, Ticket, Why},
    topology::{Hint, Kind, Node},
};

/// An unfinished reply of this size is passed on in pieces instead of being collected.
const STREAMED: usize = 32 * 1024;
/// What a client may be owed before the link stops reading the long reply that it is being sent.
const STREAM_LIMIT: usize = 4 * OWED_LIMIT;
/// How often a waiting link looks whether that client has read on, and how long it waits for one that does not: then
/// it reads on for the sake of the clients behind, and the client's memory is a matter for the worker's limit.
const STREAM_PAUSE: Duration = Duration::from_millis(2);
const STREAM_PATIENCE: Duration = Duration::from_millis(100);
/// How long a node that could not be connected to is left alone: doubled each time from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// The queue's capacity that is kept while nothing is queued.
const KEPT_QUEUE: usize = 64 * 1024;

impl Limits {
    /// The deadlines that the configuration sets.
    pub fn of(config: &Config) -> Limits {
        Limits {
            request_timeout: config.request_timeout,
            node_timeout: config.node_timeout,
            retry_timeout: config.retry_timeout,
            dial: dial::Limits::default().within(config.connect_timeout),
        }
    }
}

/// What a link shares with everything else of its worker.
#[derive(Clone)]
pub struct Surroundings {
    /// Deadlines.
    pub limits: Rc<Limits>,
    /// The worker's time.
    pub clock: Rc<Clock>,
    /// The worker's read buffer: what is read is handed on before anybody else reads.
    pub buffer: Rc<RefCell<Box<[u8]>>>,
    /// Where news for discovery go.
    pub hints: tokio::sync::mpsc::Sender<Hint>,
}

/// Deadlines of the links.
#[derive(Debug)]
pub struct Limits {
    /// From a request's coming to its answer.
    pub request_timeout: Duration,
    /// How long a node that owes replies may be silent.
    pub node_timeout: Duration,
    /// How long requests wait for a node that cannot be reached.
    pub retry_timeout: Duration,
    /// For connecting and logging in.
    pub dial: dial::Limits,
}

/// Who hears what a node says unasked, where its login asks for that ([`dial::Tracking`]).
pub trait Audience {
    /// Something has happened on the link to `node`.
    fn hear(&self, node: &Node, news: News<'_>);
}

/// What an [`Audience`] hears.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// The node is connected, and will speak.
    Opened,
    /// A message: its whole frame. It is behind every reply that the node has sent before it.
    Said(&'a [u8]),
    /// The connection is lost, and what the node said last with it.
    Lost(&'a str),
    /// The node cannot be reached, or lets nobody in; it is tried again.
    Unreachable(&'a DialError),
}

/// The connection, as its users see it.
pub struct Link {
    node: Arc<Node>,
    login: Login,
    tally: Rc<NodeTally>,
    around: Surroundings,
    /// Where there is one, the link connects unasked and sees to it that the node is still there.
    audience: Option<Rc<dyn Audience>>,
    queue: RefCell<Queue>,
    waker: Cell<Option<Waker>>,
    retired: Cell<bool>,
    /// Its user may not load scripts.
    never_loads: Cell<bool>,
}

/// Requests that go right in front of another, as one unit with it: nothing ever comes between.
#[derive(Clone, Debug, Default)]
pub struct Prelude {
    frames: Vec<u8>,
    replies: usize,
}

impl Prelude {
    /// One request.
    pub fn of(frame: &[u8]) -> Prelude {
        Prelude { frames: frame.to_vec(), replies: 1 }
    }

    /// Adds a request; nothing where it is empty.
    pub fn add(&mut self, frame: &[u8]) {
        self.frames.extend_from_slice(frame);
        self.replies += usize::from(!frame.is_empty());
    }
}

#[derive(Default)]
struct Queue {
    /// The unanswered requests' bytes.
    bytes: BytesMut,
    /// How many of them the socket has taken.
    written: usize,
    entries: VecDeque<Entry>,
    /// Scripts that are loaded by what has not been written wholly: in front of whatever comes now.
    loads: Vec<Sha>,
}

struct Entry {
    /// `None` once its deadline has passed: the place in the queue remains, to swallow the late reply.
    ticket: Option<Ticket>,
    /// Bytes in the queue, and how many of them stand before the request itself.
    length: usize,
    prefix: usize,
    /// Replies to what stands before, and then those that come before the one which answers.
    prelude: usize,
    swallow: usize,
    /// The first error among the latter: then it says what became of the request.
    fault: Option<Bytes>,
    since: Instant,
    /// The link's own PING.
    heartbeat: bool,
}

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

impl Link {
    /// A link to `node`; it connects when the first request comes.
    pub fn open(
        node: Arc<Node>,
        login: Login,
        tally: Rc<NodeTally>,
        around: Surroundings,
        audience: Option<Rc<dyn Audience>>,
    ) -> Rc<Link> {
        let link = Rc::new(Link {
            node,
            login,
            tally,
            around,
            audience,
            queue: RefCell::default(),
            waker: Cell::default(),
            retired: Cell::default(),
            never_loads: Cell::default(),
        });
        tokio::task::spawn_local(run(link.clone()));
        link
    }

    /// The node that it leads to.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Queues a request.
    pub fn send(&self, request: &[u8], ticket: Ticket) {
        let mut prelude = Prelude::default();
        prelude.add(ticket.caching.prefix());
        self.send_after(&prelude, request, ticket);
    }

    /// Queues a request with a prelude.
    pub fn send_after(&self, prelude: &Prelude, request: &[u8], ticket: Ticket) {
        let queue = &mut *self.queue.borrow_mut();
        let prefix = prelude.frames.len();
        queue.bytes.extend_from_slice(&prelude.frames);
        queue.bytes.extend_from_slice(request);
        queue.entries.push_back(Entry {
            prelude: prelude.replies,
            swallow: ticket.replies_before,
            ticket: Some(ticket),
            length: prefix + request.len(),
            prefix,
            fault: None,
            since: self.around.clock.now(),
            heartbeat: false,
        });
        self.tally.queued(prefix + request.len());
        self.wake();
    }

    /// Has a prelude load the script, unless what is about to be written does so already. The prelude must be sent now.
    /// Whether it loads it now; nothing is to be hoped for where [`Link::never_loads`].
    pub fn load(&self, script: &Script, prelude: &mut Prelude) -> bool {
        let loads = &mut self.queue.borrow_mut().loads;
        if self.never_loads.get() || loads.contains(&script.sha) {
            return false;
        }
        loads.push(script.sha);
        script.encode_load(&mut prelude.frames);
        prelude.replies += 1;
        true
    }

    /// Whether its user may not load scripts.
    pub fn never_loads(&self) -> bool {
        self.never_loads.get()
    }

    /// Asks the node for a sign of life.
    fn ping(&self) {
        let queue = &mut *self.queue.borrow_mut();
        queue.bytes.extend_from_slice(PING);
        queue.entries.push_back(Entry {
            ticket: None,
            length: PING.len(),
            prefix: 0,
            prelude: 0,
            swallow: 0,
            fault: None,
            since: self.around.clock.now(),
            heartbeat: true,
        });
        self.tally.queued(PING.len());
    }

    /// Lets the link end once all that it owes has been answered.
    pub fn retire(&self) {
        self.retired.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits until there is a reason to connect, at least until `rest` where nobody asks for anything; false where there
    /// will be none any more.
    async fn wanted(&self, rest: Option<Instant>) -> bool {
        let asked = poll_fn(|cx| {
            if !self.queue.borrow().entries.is_empty() {
                return Poll::Ready(true);
            }
            if self.retired.get() {
                return Poll::Ready(false);
            }
            self.waker.set(Some(cx.waker().clone()));
            Poll::Pending
        });
        match (&self.audience, rest) {
            (None, _) => asked.await,
            (Some(_), None) => !self.retired.get(),
            (Some(_), Some(rest)) => tokio::time::timeout_at(rest.into(), asked).await.unwrap_or(true),
        }
    }

    async fn dial(&self) -> Result<Connected, DialError> {
        let limits = &self.around.limits.dial;
        let mut login = self.login.clone();
        let companion = Companion::of(&self.node.reach, &mut login, limits).await?;
        let opened = dial::open(&self.node.reach, &login, limits).await?;
        Ok(Connected { stream: opened.stream, rest: opened.rest, companion })
    }

    fn tell(&self, news: News<'_>) {
        if let Some(audience) = &self.audience {
            audience.hear(&self.node, news);
        }
    }

    /// Gives every queued request back: none has been written.
    fn refuse(&self, why: &Why) {
        for (ticket, request) in self.take_all() {
            if let Some(ticket) = ticket {
                ticket.bounce(request.bytes, why.clone());
            }
        }
    }

    fn take_all(&self) -> Vec<(Option<Ticket>, Taken)> {
        let queue = &mut *self.queue.borrow_mut();
        self.tally.dropped(queue.entries.len(), queue.bytes.len() - queue.written);
        queue.take_all()
    }

    /// Answers everything queued after the connection broke.
    fn give_up(&self, lost: &str) {
        for (ticket, request) in self.take_all() {
            let Some(mut ticket) = ticket else { continue };
            let error = || format!("ERR proxy: connection to {} lost ({lost})", self.node.label);
            if !request.written {
                ticket.bounce(request.bytes, Why::Unsent(error()));
            } else if ticket.repeatable && !ticket.has_begun() {
                // Once only: what breaks the connection each time must not be sent for ever.
                ticket.repeatable = false;
                ticket.bounce(request.bytes, Why::Unsent(error()));
            } else {
                ticket.wrote(&self.node);
                ticket.fail(&format!("{}, the command may have run", error()));
            }
        }
    }
}

/// A connection that is logged in.
struct Connected {
    stream: TcpStream,
    /// What the node has said already.
    rest: Vec<u8>,
    companion: Option<Companion>,
}

/// A request that is taken out of the queue.
struct Taken {
    bytes: Bytes,
    written: bool,
}

impl Queue {
    fn take_all(&mut self) -> Vec<(Option<Ticket>, Taken)> {
        let mut bytes = std::mem::take(&mut self.bytes).freeze();
        let mut written = std::mem::take(&mut self.written);
        self.loads.clear();
        let mut all = Vec::with_capacity(self.entries.len());
        for entry in self.entries.drain(..) {
            let mut request = bytes.split_to(entry.length);
            let whole = written >= entry.length;
            written = written.saturating_sub(entry.length);
            request.advance(entry.prefix);
            all.push((entry.ticket, Taken { bytes: request, written: whole }));
        }
        all
    }

    /// Takes the answered front entry out.
    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        if self.entries.is_empty() && self.bytes.capacity() > KEPT_QUEUE {
            self.bytes = BytesMut::new();
        } else {
            self.bytes.advance(entry.length);
        }
        self.written -= entry.length;
        Some(entry)
    }

    fn front_request(&self) -> Bytes {
        self.entries
            .front()
            .map_or_else(Bytes::new, |entry| Bytes::copy_from_slice(&self.bytes[entry.prefix..entry.length]))
    }
}

/// How connecting has gone of late.
#[derive(Default)]
struct Troubles {
    since: Option<Instant>,
    pause: Duration,
    until: Option<Instant>,
    error: String,
}

impl Troubles {
    fn note(&mut self, now: Instant, error: String) {
        self.since.get_or_insert(now);
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
        self.until = Some(now + self.pause);
        self.error = error;
    }

    fn why(&self, now: Instant, patience: Duration) -> Why {
        let text = format!("ERR proxy: {}", self.error);
        match self.since {
            Some(since) if now - since >= patience => Why::Hopeless(text),
            _ => Why::Unsent(text),
        }
    }
}

/// The link's task: connects while there is work, and answers for all of it when that fails.
async fn run(link: Rc<Link>) {
    let mut troubles = Troubles::default();
    while link.wanted(troubles.until).await {
        let now = link.around.clock.tick();
        if troubles.until.is_some_and(|until| now < until) {
            link.refuse(&troubles.why(now, link.around.limits.retry_timeout));
            continue;
        }
        match link.dial().await {
            Ok(connected) => {
                link.tally.connected();
                link.tell(News::Opened);
                let mut exchange = Exchange::new(link.clone(), connected);
                let lost = poll_fn(|cx| exchange.poll(cx)).await;
                link.tally.disconnected();
                troubles = match (lost, exchange.heard_from) {
                    (Lost::Retired, _) => return,
                    (Lost::Broken(why), heard_from) => {
                        link.tally.error(NodeError::Connection);
                        link.give_up(&why);
                        link.tell(News::Lost(&why));
                        // Discovery is behind: it looks again in any case.
                        let _ = link.around.hints.try_send(Hint::Timeout { node: link.node.id.clone() });
                        let mut troubles = if heard_from { Troubles::default() } else { troubles };
                        troubles
                            .note(link.around.clock.tick(), format!("connection to {} lost ({why})", link.node.label));
                        troubles
                    }
                };
            }
            Err(error) => {
                let now = link.around.clock.tick();
                link.tally.connect_failed();
                let _ = link.around.hints.try_send(Hint::ConnectFailed { node: link.node.id.clone() });
                link.tell(News::Unreachable(&error));
                troubles.note(now, error.to_string());
                let why = troubles.why(now, link.around.limits.retry_timeout);
                link.refuse(&if error.permanent { Why::Hopeless(format!("ERR proxy: {error}")) } else { why });
            }
        }
    }
}

/// Why an exchange ended.
enum Lost {
    Retired,
    Broken(String),
}

/// The traffic of one established connection.
struct Exchange {
    link: Rc<Link>,
    stream: TcpStream,
    companion: Option<Companion>,
    /// What the node had said when the login was over.
    rest: Vec<u8>,
    /// The beginning of a reply whose end has not come.
    partial: BytesMut,
    scanner: Scanner,
    /// The front of a long reply has been passed on.
    streaming: bool,
    /// The run queue has gone round since there was something to write.
    gathered: bool,
    deadline: Pin<Box<Sleep>>,
    deadline_set: bool,
    /// It is that of a link that owes nothing.
    deadline_idle: bool,
    last_heard: Instant,
    heard_from: bool,
    stall: Option<Stall>,
}

/// How a node has not executed a request.
enum Verdict {
    Refused(Refusal),
    NoScript,
}

/// A client reads its long reply too slowly.
struct Stall {
    owed: usize,
    since: Instant,
    look_again: Pin<Box<Sleep>>,
}

impl Exchange {
    fn new(link: Rc<Link>, Connected { stream, rest, companion }: Connected) -> Exchange {
        let now = link.around.clock.tick();
        Exchange {
            link,
            stream,
            companion,
            rest,
            partial: BytesMut::new(),
            scanner: Scanner::default(),
            streaming: false,
            gathered: true,
            deadline: Box::pin(tokio::time::sleep(Duration::ZERO)),
            deadline_set: false,
            deadline_idle: false,
            last_heard: now,
            heard_from: false,
            stall: None,
        }
    }

    /// Reads, writes and watches the deadlines, all three each time: a blocked write must never stop reading, since
    /// the node may be waiting for just that.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        self.link.around.clock.tick();
        self.link.waker.set(Some(cx.waker().clone()));
        if let Poll::Ready(lost) = self.poll_read(cx) {
            return Poll::Ready(Lost::Broken(lost));
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
        if self.link.retired.get() && self.link.queue.borrow().entries.is_empty() {
            return Poll::Ready(Lost::Retired);
        }
        Poll::Pending
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        let queue = &mut *self.link.queue.borrow_mut();
        if queue.written == queue.bytes.len() {
            return Poll::Pending;
        }
        if !std::mem::replace(&mut self.gathered, true) {
            // Sessions that are ready now get their turn first: one write then carries the requests of all.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while queue.written < queue.bytes.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &queue.bytes[queue.written..])) {
                Ok(count) => {
                    if queue.written == 0 {
                        self.last_heard = self.link.around.clock.now();
                    }
                    queue.written += count;
                    self.link.tally.sent(count);
                }
                Err(error) => return Poll::Ready(error.to_string()),
            }
        }
        queue.loads.clear();
        self.gathered = false;
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            if let Err(wrong) = self.take_bytes(&rest) {
                return Poll::Ready(wrong.to_owned());
            }
        }
        let buffer = self.link.around.buffer.clone();
        loop {
            ready!(self.poll_stall(cx));
            let buffer = &mut *buffer.borrow_mut();
            let mut read = ReadBuf::new(buffer);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read)) {
                Ok(()) if read.filled().is_empty() => return Poll::Ready("closed by the node".to_owned()),
                Ok(()) => {
                    self.last_heard = self.link.around.clock.now();
                    self.heard_from = true;
                    self.link.tally.received(read.filled().len());
                    if let Err(wrong) = self.take_bytes(read.filled()) {
                        return Poll::Ready(wrong.to_owned());
                    }
                }
                Err(error) => return Poll::Ready(error.to_string()),
            }
        }
    }

    fn poll_companion(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        let Some(companion) = &mut self.companion else { return Poll::Pending };
        loop {
            match ready!(companion.poll(cx, &self.link.around.buffer)) {
                Ok(frame) => self.link.tell(News::Said(&frame)),
                Err(error) => return Poll::Ready(format!("its messages: {error}")),
            }
        }
    }

    /// Pending while the client of the reply that is being read should catch up.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let owed = match self.link.queue.borrow().entries.front() {
            Some(Entry { ticket: Some(ticket), .. }) if !self.partial.is_empty() || ticket.has_begun() => ticket.owed(),
            _ => 0,
        };
        if owed < STREAM_LIMIT {
            self.stall = None;
            return Poll::Ready(());
        }
        let now = self.link.around.clock.now();
        let stall = self.stall.get_or_insert_with(|| Stall {
            owed,
            since: now,
            look_again: Box::pin(tokio::time::sleep(STREAM_PAUSE)),
        });
        if owed < stall.owed {
            (stall.owed, stall.since) = (owed, now);
        }
        if now - stall.since > STREAM_PATIENCE {
            return Poll::Ready(());
        }
        // A node that is not listened to is not silent.
        self.last_heard = now;
        while stall.look_again.as_mut().poll(cx).is_ready() {
            stall.look_again.set(tokio::time::sleep(STREAM_PAUSE));
        }
        Poll::Pending
    }

    fn take_bytes(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        if self.partial.is_empty() {
            let used = self.take_replies(bytes)?;
            self.partial.extend_from_slice(&bytes[used..]);
        } else {
            let mut held = std::mem::take(&mut self.partial);
            held.extend_from_slice(bytes);
            let used = self.take_replies(&held)?;
            held.advance(used);
            if !held.is_empty() {
                self.partial = held;
            }
        }
        Ok(())
    }

    /// Hands on every whole reply, and what has come of a long one; says how many bytes that took.
    fn take_replies(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            match self.scanner.find(rest).map_err(|_| "its reply is not RESP")? {
                Some(end) => {
                    self.take_reply(&rest[..end])?;
                    used += end;
                    self.streaming = false;
                }
                None => {
                    let ready = self.scanner.scanned(rest.len());
                    let is_push = !self.streaming && rest.first() == Some(&b'>');
                    if rest.len() >= STREAMED && !is_push && self.stream(&rest[..ready]) {
                        self.scanner.passed_on(ready);
                        self.streaming = true;
                        used += ready;
                    }
                    break;
                }
            }
        }
        Ok(used)
    }

    /// Passes on the front of a long reply, where its ticket takes it so.
    fn stream(&self, chunk: &[u8]) -> bool {
        let queue = self.link.queue.borrow();
        match queue.entries.front() {
            Some(Entry { ticket: Some(ticket), prelude: 0, swallow: 0, fault: None, .. }) if ticket.streams() => {
                ticket.stream(chunk)
            }
            // Nobody waits for it any more.
            Some(Entry { ticket: None, .. }) => {}
            _ => return false,
        }
        true
    }

    fn take_reply(&mut self, reply: &[u8]) -> Result<(), &'static str> {
        if reply.first() == Some(&b'>') && !self.streaming {
            // A push is nobody's reply, and nothing asks for any on a shared connection.
            self.link.tell(News::Said(reply));
            return Ok(());
        }
        let mut queue = self.link.queue.borrow_mut();
        let written = queue.written;
        let front = queue.entries.front_mut().ok_or("it sent a reply that nobody asked for")?;
        if written < front.length {
            return Err("it answered before the request was whole");
        }
        if front.prelude > 0 {
            front.prelude -= 1;
            if reply.starts_with(b"-NOPERM") {
                // To ask again and again would fill the node's ACL LOG.
                self.link.never_loads.set(true);
            }
            return Ok(());
        }
        if front.swallow > 0 {
            front.swallow -= 1;
            if reply.first() == Some(&b'-') && front.fault.is_none() {
                front.fault = Some(Bytes::copy_from_slice(reply));
            }
            return Ok(());
        }
        self.link.tally.replied(self.link.around.clock.now() - front.since);
        let heals = front.ticket.as_ref().is_some_and(|ticket| ticket.needs.heals);
        let verdict = match &front.fault {
            // EXECABORT only says that a command of the transaction was refused; the fault says why.
            Some(fault) if reply.starts_with(b"-EXECABORT") => {
                Refusal::of(fault).map(|refusal| (Verdict::Refused(refusal), fault.clone()))
            }
            _ if reply.first() != Some(&b'-') => None,
            _ if heals && refusal::lacks_script(reply) => Some((Verdict::NoScript, Bytes::copy_from_slice(reply))),
            _ => Refusal::of(reply).map(|refusal| (Verdict::Refused(refusal), Bytes::copy_from_slice(reply))),
        };
        let request = verdict.as_ref().map(|_| queue.front_request());
        let Some(entry) = queue.pop() else { return Ok(()) };
        drop(queue);
        match (verdict, request, entry.ticket) {
            (Some((verdict, error)), Some(request), Some(ticket)) => self.bounce(verdict, error, request, ticket),
            (_, _, Some(ticket)) => match &entry.fault {
                Some(fault) if let Some(reply) = refusal::abort_because(reply, fault) => {
                    ticket.fill_by(&self.link.node, &reply)
                }
                _ => ticket.fill_by(&self.link.node, reply),
            },
            (_, _, None) if entry.heartbeat => {}
            (_, _, None) => self.link.tally.late(),
        }
        Ok(())
    }

    /// The node did not execute the request.
    fn bounce(&self, verdict: Verdict, error: Bytes, request: Bytes, mut ticket: Ticket) {
        let Link { node, around, tally, .. } = &*self.link;
        ticket.tries = ticket.tries.saturating_add(1);
        match verdict {
            Verdict::NoScript => {
                tally.error(NodeError::NoScript);
                ticket.bounce(request, Why::NoScript(node.clone(), error));
            }
            Verdict::Refused(Refusal::Redirect(redirect)) => {
                tally.error(redirect.kind.into());
                if redirect.kind == Kind::Moved {
                    // A hint that does not fit is no loss: discovery has plenty to do and the next one says the same.
                    let _ = around.hints.try_send(Hint::Moved { redirect: redirect.clone(), from: node.clone() });
                }
                ticket.bounce(request, Why::Redirected(redirect, node.clone()));
            }
            Verdict::Refused(Refusal::Later(later)) => {
                tally.error(later.into());
                if !matches!(later, Later::TryAgain) {
                    let _ = around.hints.try_send(Hint::Unwell { node: node.id.clone() });
                }
                ticket.bounce(request, Why::Later(later, error));
            }
        }
    }

    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        let limits = &self.link.around.limits;
        loop {
            let queue = self.link.queue.borrow();
            if !self.deadline_set || self.deadline_idle && !queue.entries.is_empty() {
                let oldest = queue.entries.iter().find(|entry| entry.ticket.is_some()).or(queue.entries.front());
                let at = match oldest {
                    Some(oldest) => {
                        let answer = oldest.since + limits.request_timeout;
                        let sound = self.last_heard.max(oldest.since) + limits.node_timeout;
                        if oldest.ticket.is_some() { answer.min(sound) } else { sound }
                    }
                    // A node that is gone would be missed by nobody, and what it should tell with it.
                    None if self.link.audience.is_some() => self.last_heard + limits.node_timeout,
                    None => return Poll::Pending,
                };
                self.deadline.as_mut().reset(at.into());
                self.deadline_set = true;
                self.deadline_idle = oldest.is_none();
            }
            drop(queue);
            ready!(self.deadline.as_mut().poll(cx));
            self.deadline_set = false;
            let now = self.link.around.clock.tick();
            self.expire(now);
            if self.deadline_idle && now - self.last_heard >= limits.node_timeout {
                self.link.ping();
                cx.waker().wake_by_ref();
            }
            let queue = self.link.queue.borrow();
            let waits = queue
                .entries
                .front()
                .is_some_and(|entry| queue.written >= entry.length && now - entry.since >= limits.node_timeout);
            if waits && now - self.last_heard >= limits.node_timeout {
                return Poll::Ready(format!("silent for {:?}", limits.node_timeout));
            }
        }
    }

    /// Answers the requests whose time is over. Their entries stay, to swallow the late replies by position.
    fn expire(&self, now: Instant) {
        let limit = self.link.around.limits.request_timeout;
        let mut expired = Vec::new();
        for entry in &mut self.link.queue.borrow_mut().entries {
            if now - entry.since < limit {
                break;
            }
            expired.extend(entry.ticket.take());
        }
        if expired.is_empty() {
            return;
        }
        for ticket in expired {
            self.link.tally.error(NodeError::Timeout);
            ticket.wrote(&self.link.node);
            ticket.fail(&format!(
                "ERR proxy: no answer from {} within {limit:?}, the command may have run",
                self.link.node.label
            ));
        }
        let _ = self.link.around.hints.try_send(Hint::Timeout { node: self.link.node.id.clone() });
    }
}

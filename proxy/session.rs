//! One client connection.
//!
//! The session reads requests, decides with [`crate::commands::plan`] what becomes of each, sends them to their nodes' links and
//! writes the replies that its line has ready. Everything that can be pipelined happens in one poll function, so that a
//! turn of the event loop costs one read and one write however many requests it carries. What needs the connection for
//! itself (logging in, waiting in BLPOP) leaves the poll function as a `Turn::Work` once the line has settled, and is carried out by a `Job`.
//!
//! Its parts are types that know nothing of it: `dispatch` decides on requests and carries them out, `reader` holds the input,
//! `retry` sends requests again, `busy` says what the session is doing. Commands are functions of the parts that they need; most
//! need the caller alone.
//!
//! The order rule: a session never has requests in flight under two topologies, and sends nothing new while one of its
//! requests waits to be sent again. Otherwise `SET k 1`, on its way to the old owner, could be overtaken by `SET k 2`.

mod account;
mod acl;
mod apart;
mod ask;
mod attempts;
mod attend;
mod barrier;
mod blocking;
mod busy;
mod called;
mod caller;
mod client;
mod cluster_view;
mod database;
mod dispatch;
mod ending;
mod everywhere;
mod fan_out;
mod front;
mod gate;
mod intake;
mod keys;
mod listening;
mod local;
mod login;
mod long;
mod make_up;
mod monitor;
mod names;
mod parts;
mod pause;
mod permission;
mod proxy;
mod reader;
mod reads;
mod replies;
mod retry;
mod scan;
mod scripts;
mod server;
mod streamed;
mod subscribe;
mod subscriber;
mod tracking;
mod transaction;
mod wait;
mod watch;
mod work;

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use self::permission::look_after_users;
use self::{
    attend::{Eof, poll_sent_ahead},
    busy::Busy,
    caller::Caller,
    dispatch::{Dispatcher, Flow},
    permission::ask_about,
    reader::Reader,
    retry::{Again, Resend, Retry},
    work::Work,
};
use crate::{
    clients::Client,
    commands::table::OwnedSpec,
    metrics::Disconnect,
    protocol::resp::request::OwnedRequest,
    upstream::{router::Router, ticket::Bounced, transport::Stream},
};

/// The first bytes of a client that speaks TLS: a handshake record of any version. As with Redis, such a client gets no answer.
const TLS_GREETING: &[u8] = b"\x16\x03";

/// One client connection and all its state.
pub struct Session {
    dispatcher: Dispatcher,
    stream: Stream,
    /// What has come and has not been dispatched.
    reader: Reader,
    /// What comes back, and has to go again.
    retry: Option<Retry>,
    busy: Busy,
}

/// What the poll function cannot do itself.
enum Turn {
    /// A request that needs the session for itself, its row, and what is to be done. Nothing is in flight.
    Work(OwnedRequest, Option<OwnedSpec>, Box<Work>),
    /// A request of which a node has to tell whether the client's user may run it. It stays in the input.
    Ask(OwnedRequest),
    /// A request that has come back and needs the session for itself. Nothing else is in flight.
    Again(Box<Bounced>),
    /// The end.
    Ended(Disconnect),
}

/// Why reading has stopped.
enum Stop {
    /// The socket has no more; it will wake the session.
    Drained,
    /// The line must move on first; it will wake the session.
    Held,
    /// A request needs more than the poll function.
    Turn(Turn),
    /// The socket failed.
    Broken(io::Error),
}

impl Session {
    /// A session for a client that has just connected: boxed, since futures hold what moves into them several times.
    pub fn new(router: Rc<Router>, stream: Stream, client: Arc<Client>) -> Box<Session> {
        Box::new(Session {
            dispatcher: Dispatcher::new(Caller::new(router, client)),
            stream,
            reader: Reader::default(),
            retry: None,
            busy: Busy::default(),
        })
    }

    /// Serves the client until its session ends, and returns why. Futures that await more than the next turn are boxed, and exist
    /// only meanwhile: thousands of clients are idle.
    pub async fn run(mut self: Box<Self>) -> Disconnect {
        poll_fn(|cx| {
            self.dispatcher.caller.client.wake_with(cx.waker());
            Poll::Ready(())
        })
        .await;
        loop {
            match poll_fn(|cx| self.poll(cx)).await {
                Turn::Work(request, spec, work) => {
                    self.busy = Busy::Work;
                    self.dispatcher.account.begin_work(&request);
                    self.keep_account();
                    Box::pin(work::carry_out(&mut self, *work, &request, spec)).await;
                    if !self.busy.is_ending() {
                        self.busy = Busy::Serving;
                    }
                    self.dispatcher.end_work();
                }
                Turn::Ask(request) => {
                    let asking = ask_about(self.dispatcher.caller.clone(), request);
                    match Box::pin(self.attend_to(asking, Eof::Waits)).await {
                        Some(None) => self.busy = Busy::Ending(Disconnect::Killed),
                        said => self.dispatcher.front.judgment = said.flatten(),
                    }
                }
                Turn::Again(bounced) => Box::pin(parts::stream_again(&mut self, *bounced)).await,
                Turn::Ended(reason) => {
                    if reason == Disconnect::OutputLimit {
                        Box::pin(self.linger()).await;
                    }
                    return reason;
                }
            }
        }
    }

    /// One turn: sends again what came back, reads and dispatches what has come, writes what is ready.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        self.dispatcher.caller.line.awake();
        loop {
            let (mut stop, mut too_large) = (Stop::Held, None);
            let Dispatcher { caller, barrier, listening, .. } = &mut self.dispatcher;
            match (Resend { caller, barrier, listening }).poll(&mut self.retry, cx) {
                Again::Done => {
                    if let Some(tracking) = &mut listening.tracking {
                        tracking.pay_flush(&caller.line);
                    }
                    stop = self.read_requests(cx);
                }
                Again::UnderWay => {}
                Again::TooLarge(bounced) => too_large = Some(bounced),
            }
            let unfit = self.poll_listening(cx);
            if self.dispatcher.account.held.input + self.dispatcher.account.held.requests > self.reader.len() {
                // Before the reply is written: a client that has its reply must not be seen to still hold the request's memory.
                self.keep_account();
            }
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Turn::Ended(Disconnect::of(&error)));
            }
            self.keep_account();
            if let Some(bounced) = too_large {
                return Poll::Ready(Turn::Again(bounced));
            }
            if let Some(reason) = unfit.or_else(|| self.dispatcher.listening.poll_owed(cx, &self.dispatcher.caller)) {
                return Poll::Ready(Turn::Ended(reason));
            }
            let _ = self.reader.poll_turn(cx);
            if let Some(reason) = self.poll_place(cx) {
                return Poll::Ready(Turn::Ended(reason));
            }
            let drained = match stop {
                Stop::Turn(turn) => return Poll::Ready(turn),
                Stop::Broken(error) => return Poll::Ready(Turn::Ended(Disconnect::of(&error))),
                // What held it may be gone: something was answered on the spot, or written out.
                Stop::Held => {
                    self.busy.poll_pause(cx);
                    if self.may_go_on() {
                        continue;
                    }
                    false
                }
                Stop::Drained => true,
            };
            if self.retry.is_none() && self.dispatcher.caller.line.only_bounces_left() {
                // They came back at once, while nobody could be woken by them.
                continue;
            }
            if let Busy::Paused(wait) = &mut self.busy
                && let Poll::Ready(reason) =
                    poll_sent_ahead(&self.dispatcher.caller, &mut self.stream, &mut self.reader, cx, &mut wait.look)
            {
                return Poll::Ready(Turn::Ended(reason));
            }
            if let Some(reason) = self.ended(drained) {
                return Poll::Ready(Turn::Ended(reason));
            }
            self.dispatcher.caller.line.wake_with(cx.waker());
            return Poll::Pending;
        }
    }

    /// Passes on what the client is told unasked. Returns why the session must end, where it must.
    #[inline(always)]
    fn poll_listening(&mut self, cx: &mut Context<'_>) -> Option<Disconnect> {
        let Dispatcher { caller, listening, .. } = &mut self.dispatcher;
        if self.busy.is_ending() {
            listening.end(caller);
        }
        listening.poll(cx, caller)
    }

    /// The request at the front has the place that it has waited for; or the client has gone meanwhile.
    fn poll_place(&mut self, cx: &mut Context<'_>) -> Option<Disconnect> {
        let Poll::Ready(Some(place)) = self.busy.poll_place(cx) else { return None };
        self.dispatcher.front.give_place(place);
        // The kernel may know by now that the client has gone.
        self.stream.error().map(|error| Disconnect::of(&error))
    }

    fn may_go_on(&self) -> bool {
        let line = &self.dispatcher.caller.line;
        self.busy.may_go_on(line)
            && !line.is_broken()
            && !self.reader.awaits_turn()
            && self.retry.is_none()
            && !line.has_bounced()
    }

    /// Dispatches what has come and reads more, until something stops it.
    fn read_requests(&mut self, cx: &mut Context<'_>) -> Stop {
        let buffer = self.dispatcher.caller.router.buffer().clone();
        loop {
            let line = &self.dispatcher.caller.line;
            if self.busy.holds(line) || line.is_broken() || self.reader.awaits_turn() {
                return Stop::Held;
            }
            if self.reader.is_ready() {
                self.dispatcher.caller.router.clock().tick();
                let input = self.reader.take();
                let (used, turn) = self.take_bytes(&input);
                self.reader.put_back(input, used);
                if let Some(turn) = turn {
                    return Stop::Turn(turn);
                }
                if self.reader.is_ready() || self.busy.is_ending() {
                    return Stop::Held;
                }
            }
            if self.dispatcher.caller.line.is_full()
                || !self.reader.may_read_on(self.dispatcher.caller.router.clients())
            {
                return Stop::Held;
            }
            let buffer = &mut *buffer.borrow_mut();
            let mut read = ReadBuf::new(buffer);
            match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
                Poll::Pending => return Stop::Drained,
                Poll::Ready(Err(error)) => return Stop::Broken(error),
                Poll::Ready(Ok(())) => {}
            }
            let bytes = read.filled();
            if bytes.is_empty() {
                // It may have closed its sending side only, and still wait for the replies.
                self.busy = Busy::Ending(Disconnect::Eof);
                return Stop::Held;
            }
            self.dispatcher.caller.client.heard(self.dispatcher.caller.router.clock().tick());
            self.dispatcher.caller.router.tally().received(bytes.len());
            self.dispatcher.caller.client.count_traffic(0, bytes.len());
            if self.reader.is_empty() {
                let (used, turn) = self.take_bytes(bytes);
                self.reader.keep(&bytes[used..]);
                if let Some(turn) = turn {
                    return Stop::Turn(turn);
                }
                if self.reader.is_ready() || self.busy.is_ending() {
                    return Stop::Held;
                }
            } else {
                self.reader.add(bytes);
            }
        }
    }

    /// Dispatches the requests at the front of `bytes`; says how many bytes that took, and which request needs more than
    /// that. The reader stays ready where a request had to be held back.
    fn take_bytes(&mut self, bytes: &[u8]) -> (usize, Option<Turn>) {
        self.dispatcher.caller.router.refresh();
        self.dispatcher.follow_operator();
        let Caller { router, gate, .. } = &self.dispatcher.caller;
        let authenticated = gate.is_passed();
        let mut parser = self.reader.take_parser(router.epoch(), authenticated, || {
            let topology = router.topology();
            topology.server.framing.rules(!authenticated, topology.accepts.longest_bulk)
        });
        let mut used = 0;
        let mut turn = None;
        let (router, inside) = (self.dispatcher.caller.router.clone(), self.dispatcher.caller.database.clone());
        let is_guarded = self.dispatcher.caller.gate.logged_in().is_some();
        let mut writer = inside.is_some().then(|| router.writer());
        self.reader.set_ready(true);
        while !self.busy.is_ending() {
            let rest = &bytes[used..];
            let found = match parser.find(rest) {
                Ok(Some(found)) => found,
                Ok(None) => {
                    self.reader.set_ready(false);
                    if rest.starts_with(TLS_GREETING) {
                        self.dispatcher.caller.router.clients().complaints.of_tls(&self.dispatcher.caller.client);
                    }
                    break;
                }
                Err(wrong) => {
                    self.refuse_protocol(&wrong, rest);
                    used = bytes.len();
                    break;
                }
            };
            if found.blank {
                // As in Redis, it is the next request for CLIENT REPLY SKIP.
                self.dispatcher.replies.is_next_unwanted();
            } else {
                let request = parser.request(rest, found);
                let dispatcher = &mut self.dispatcher;
                dispatcher.front.set_behind(rest.len() - found.used);
                let topology = router.topology();
                let is_stopped = is_guarded && dispatcher.is_stopped(&topology.commands, &request);
                let (request, spec) = match (&inside, writer.as_deref_mut()) {
                    (Some(inside), Some(writer)) => {
                        dispatcher.enter(inside, is_stopped, &topology.commands, request, writer)
                    }
                    (Some(_) | None, _) => (request, topology.commands.find(&request)),
                };
                match dispatcher.dispatch(&request, &topology, spec) {
                    Flow::Taken => {}
                    Flow::Ends(reason) => self.busy = Busy::Ending(reason),
                    Flow::Full => break,
                    Flow::Waits(busy) => {
                        self.busy = *busy;
                        break;
                    }
                    Flow::Work(work) if dispatcher.caller.line.is_settled() => {
                        let spec = spec.and_then(|spec| topology.commands.keep(spec));
                        turn = Some(Turn::Work(request.to_owned(), spec, work));
                        used += found.used;
                        break;
                    }
                    Flow::Ask => {
                        turn = Some(Turn::Ask(request.to_owned()));
                        break;
                    }
                    Flow::Settle | Flow::Work(_) => {
                        self.busy = Busy::Settling;
                        break;
                    }
                }
            }
            used += found.used;
        }
        self.reader.put_parser(parser);
        (used, turn)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.dispatcher.caller.line.nothing_to_write() {
            let stream = Pin::new(&mut self.stream);
            let written = self.dispatcher.caller.line.write_out(|bytes| match stream.poll_write(cx, bytes) {
                Poll::Ready(Ok(count)) => (count, Poll::Ready(Ok(count))),
                other => (0, other),
            });
            let count = std::task::ready!(written)?;
            self.dispatcher.caller.router.tally().sent(count);
            self.dispatcher.caller.client.count_traffic(1, count);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;

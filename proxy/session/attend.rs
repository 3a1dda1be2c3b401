//! Looking after the client while the session waits for something else: replies it is owed are written, what it sends
//! is kept for later, and its leaving is noticed at once.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::Sleep,
};

use super::{Session, busy::Busy, caller::Caller, reader::Reader};
use crate::{clients::Order, metrics::Disconnect, upstream::transport::Stream};

/// What a client may send ahead while it waits; more stays in its socket.
const SENT_AHEAD: usize = 1024 * 1024;
/// How often a client that has sent so much is looked at: what it has not been asked for hides that it has gone.
const LOOK: Duration = Duration::from_millis(100);
/// How long a client that may have gone is given, since it may as well have closed its sending side only.
const LINGER: Duration = Duration::from_millis(250);

/// What it means that a client closes its sending side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eof {
    /// The client has gone, as Redis has it for a client that is blocked.
    Leaves,
    /// The client may still read the reply, where that comes soon.
    Lingers,
    /// The client may still read the reply.
    Waits,
    /// The client may still read the reply, and what ends the connection for good is noticed at once.
    IsNoted,
}

/// What has been seen of a client that sends ahead.
#[derive(Default)]
pub(super) struct Ahead {
    /// When to look again at one that has sent all that it may.
    look: Option<Pin<Box<Sleep>>>,
    /// The client has closed its sending side.
    is_closed: bool,
    /// When it counts as gone for that, where it lingers.
    gone: Option<Pin<Box<Sleep>>>,
}

impl Session {
    /// Does `work`, unless the client leaves or is told to: then `work` goes no further. It is to be pinned where it is made:
    /// each call that it is moved through would keep room for it in every session.
    pub(super) async fn attend<T>(&mut self, work: impl Future<Output = T>, eof: Eof) -> Result<T, Disconnect> {
        let mut work = pin!(work);
        let mut ahead = Ahead::default();
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(done) = work.as_mut().poll(cx) {
                    return Poll::Ready(Ok(done));
                }
                let unwritten = self.dispatcher.caller.line.unwritten();
                if let Poll::Ready(reason) = self.poll_client(cx, eof, &mut ahead) {
                    return Poll::Ready(Err(reason));
                }
                // Work may wait for just this: that the client has read on.
                if self.dispatcher.caller.line.unwritten() >= unwritten {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// As [`Session::attend`]; `None` where the client leaves or has to, which ends the session.
    pub(super) async fn attend_to<T>(&mut self, work: impl Future<Output = T>, eof: Eof) -> Option<T> {
        match self.attend(work, eof).await {
            Ok(done) => Some(done),
            Err(reason) => {
                self.busy = Busy::Ending(reason);
                None
            }
        }
    }

    /// As [`Session::attend_to`], of what may wait for long: a client that leaves ends it, and so does the proxy's own
    /// end, for which `work` has no outcome.
    pub(super) async fn attend_wait<T>(&mut self, work: impl Future<Output = Option<T>>) -> Option<T> {
        let done = self.attend_to(work, Eof::Leaves).await?;
        if done.is_none() {
            self.busy = Busy::Ending(Disconnect::Drain);
        }
        done
    }

    /// Ready when the client has gone or has to go.
    fn poll_client(&mut self, cx: &mut Context<'_>, eof: Eof, ahead: &mut Ahead) -> Poll<Disconnect> {
        match self.dispatcher.caller.client.order() {
            Order::Leave => return Poll::Ready(Disconnect::Killed),
            Order::Evict => {
                self.say_why_evicted();
                return Poll::Ready(Disconnect::OutputLimit);
            }
            Order::Drain | Order::Serve => {}
        }
        let unfit = self.poll_listening(cx);
        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
            return Poll::Ready(Disconnect::of(&error));
        }
        if let Some(reason) = unfit.or_else(|| self.dispatcher.listening.poll_owed(cx, &self.dispatcher.caller)) {
            return Poll::Ready(reason);
        }
        if eof != Eof::Waits
            && !ahead.is_closed
            && let Poll::Ready(reason) =
                poll_sent_ahead(&self.dispatcher.caller, &mut self.stream, &mut self.reader, cx, &mut ahead.look)
        {
            ahead.is_closed = reason == Disconnect::Eof;
            if eof == Eof::Leaves || !ahead.is_closed {
                return Poll::Ready(reason);
            }
        }
        if eof == Eof::Lingers && ahead.is_closed {
            let gone = ahead.gone.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
            if gone.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Disconnect::Eof);
            }
        }
        self.keep_account();
        self.dispatcher.caller.line.wake_with(cx.waker());
        Poll::Pending
    }
}

/// Reads what the client sends ahead, up to a limit. Ready when it has left.
pub(super) fn poll_sent_ahead(
    caller: &Caller,
    stream: &mut Stream,
    reader: &mut Reader,
    cx: &mut Context<'_>,
    look: &mut Option<Pin<Box<Sleep>>>,
) -> Poll<Disconnect> {
    let buffer = caller.router.buffer().clone();
    while reader.len() < SENT_AHEAD {
        let buffer = &mut *buffer.borrow_mut();
        let mut read = ReadBuf::new(buffer);
        if let Err(error) = ready!(Pin::new(&mut *stream).poll_read(cx, &mut read)) {
            return Poll::Ready(Disconnect::of(&error));
        }
        if read.filled().is_empty() {
            return Poll::Ready(Disconnect::Eof);
        }
        caller.router.tally().received(read.filled().len());
        reader.keep(read.filled());
        reader.set_ready(true);
    }
    loop {
        if stream.is_closed_by_peer(cx) {
            return Poll::Ready(Disconnect::Eof);
        }
        ready!(look.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK))).as_mut().poll(cx));
        *look = None;
    }
}

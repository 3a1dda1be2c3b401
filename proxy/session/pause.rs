//! CLIENT PAUSE, as a session meets it: it dispatches nothing more until the pause is over, and reads on only to see
//! whether its client leaves.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Sleep;

use super::{Flow, Session, blocking::Blocked};
use crate::{
    clients::Paused,
    command::Spec,
    metrics::Disconnect,
    resp::{Request, request::decimal},
    says,
};

/// A session's part in a pause.
pub(super) struct Standstill {
    over: Pin<Box<dyn Future<Output = ()>>>,
    look: Option<Pin<Box<Sleep>>>,
    _blocked: Blocked,
}

impl Session {
    /// Whether a request has to wait for the end of a pause. Not where it is not even well formed: that is said at once.
    pub(super) fn is_paused(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> bool {
        let pause = self.router.clients().pause();
        let Some((who, _)) = pause.now() else { return false };
        let Some(spec) = spec.filter(|spec| spec.takes(request.len()) && !spec.container) else { return false };
        let writes = match &self.transaction {
            Some(transaction) if &*spec.name == "exec" => transaction.writes,
            _ => may_replicate(spec, request),
        };
        if &*spec.name == "quit" || who == Paused::Writes && !writes {
            return false;
        }
        let blocked = Blocked::by_pause(self.client.clone(), self.router.tally().clone());
        self.standstill = Some(Box::new(Standstill { over: Box::pin(pause.over()), look: None, _blocked: blocked }));
        true
    }

    /// Ready where no pause keeps the session from dispatching.
    pub(super) fn poll_standstill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(standstill) = &mut self.standstill {
            ready!(standstill.over.as_mut().poll(cx));
            // Where it has only changed, the next request finds that out.
            self.standstill = None;
        }
        Poll::Ready(())
    }

    /// Ready when a paused client has left.
    pub(super) fn poll_paused_client(&mut self, cx: &mut Context<'_>) -> Poll<Disconnect> {
        let Some(mut standstill) = self.standstill.take() else { return Poll::Pending };
        let left = self.poll_sent_ahead(cx, &mut standstill.look);
        self.standstill = Some(standstill);
        left
    }

    /// `CLIENT PAUSE milliseconds [WRITE|ALL]`
    pub(super) fn pause(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        let who = match request.len() {
            4 if request.is(3, "WRITE") => Paused::Writes,
            4 if !request.is(3, "ALL") => return self.refuse(spec, says::PAUSE_MODE.as_bytes()),
            5.. if self.dialect().is_strict() => return self.refuse(spec, &says::odd_subcommand(request)),
            // Where there is more, Valkey looks at none of it.
            _ => Paused::All,
        };
        let Some(time) = decimal(request.arg(2)) else {
            return self.refuse(spec, says::TIMEOUT_NOT_INTEGER.as_bytes());
        };
        let Ok(time) = u64::try_from(time) else { return self.refuse(spec, says::TIMEOUT_NEGATIVE.as_bytes()) };
        if past_all_time(time) {
            // Redis 7.0 adds it to the time of day, and finds that the end was long ago.
            let error = says::TIMEOUT_OUT_OF_RANGE.as_bytes();
            return if self.dialect().since((7, 2)) { self.refuse(spec, error) } else { self.answer(spec, b"+OK\r\n") };
        }
        self.router.clients().pause().begin(who, Duration::from_millis(time));
        self.answer(spec, b"+OK\r\n")
    }

    /// `CLIENT UNPAUSE`
    pub(super) fn unpause(&mut self, spec: Option<&Spec>) -> Flow {
        self.router.clients().pause().end();
        self.answer(spec, b"+OK\r\n")
    }
}

/// Whether a command may change something that replicas or subscribers hear of.
pub(super) fn may_replicate(spec: &Spec, request: &Request<'_>) -> bool {
    match &*spec.name {
        "pfcount" | "publish" | "spublish" | "evalsha" | "fcall" => true,
        "eval" => !promises_no_writes(request.arg(1)),
        _ => spec.is_write(),
    }
}

/// Whether so many milliseconds from now no server can count.
fn past_all_time(milliseconds: u64) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    milliseconds > i64::MAX as u64 - now
}

/// Whether a script begins with `#!lua flags=no-writes`.
fn promises_no_writes(script: &[u8]) -> bool {
    let line = script.split(|&byte| byte == b'\n').next().unwrap_or_default();
    line.starts_with(b"#!") && line.windows(9).any(|part| part == b"no-writes")
}

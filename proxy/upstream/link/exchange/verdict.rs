//! Whether a node has executed a request, by its reply.

use bytes::Bytes;

use crate::{
    cluster::{
        refusal::{self, Refusal},
        replication,
    },
    upstream::ticket::Envelope,
};

/// How a node has not executed a request.
pub(super) enum NotExecuted {
    /// It serves the request elsewhere, or later.
    Refused(Refusal),
    /// It lacks the script that the request names.
    NoScript,
    /// It is a replica and has no such key: only its primary can tell.
    Missing,
}

/// How a node has not executed a request, and its error; `None` where the reply answers the request. `fault` is the first
/// error among the replies that came before it.
#[inline]
pub(super) fn not_executed(reply: &[u8], fault: Option<&Bytes>, envelope: &Envelope) -> Option<(NotExecuted, Bytes)> {
    // EXECABORT only says that a command of the transaction was refused; the fault says why.
    if let Some(fault) = fault
        && reply.starts_with(b"-EXECABORT")
    {
        return Refusal::of(fault).map(|refusal| (NotExecuted::Refused(refusal), fault.clone()));
    }
    let how = if envelope.is_for_replica() && replication::may_be_missing(reply, envelope.traits.keys) {
        Refusal::of(reply).map_or(NotExecuted::Missing, NotExecuted::Refused)
    } else if reply.first() != Some(&b'-') {
        return None;
    } else if envelope.traits.needs.reloads && refusal::lacks_script(reply) {
        NotExecuted::NoScript
    } else {
        NotExecuted::Refused(Refusal::of(reply).filter(|refusal| refusal.fits(envelope.slot()))?)
    };
    Some((how, Bytes::copy_from_slice(reply)))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::{
        cluster::topology::Route,
        metrics::Metrics,
        protocol::slot::Slot,
        upstream::ticket::{Clock, Line, Needs, RequestTraits},
    };

    /// What a node's reply says of a request, in a word.
    fn said(reply: &str, fault: Option<&str>, route: Route, traits: RequestTraits) -> &'static str {
        let line = Line::new(Rc::new(Metrics::new().client_tally()), Rc::new(Clock::start()), 1);
        let envelope = Envelope::new(line.open(None, 1, route), route, traits);
        let fault = fault.map(|fault| Bytes::copy_from_slice(fault.as_bytes()));
        let (how, error) = match not_executed(reply.as_bytes(), fault.as_ref(), &envelope) {
            None => return "answered",
            Some(found) => found,
        };
        assert_eq!(error, fault.filter(|_| reply.starts_with("-EXECABORT")).unwrap_or(reply.to_owned().into()));
        match how {
            NotExecuted::Refused(Refusal::Redirect(_)) => "elsewhere",
            NotExecuted::Refused(Refusal::Later(_)) => "later",
            NotExecuted::NoScript => "no script",
            NotExecuted::Missing => "ask the primary",
        }
    }

    #[test]
    fn a_reply_tells_whether_the_request_was_executed() {
        const MOVED: &str = "-MOVED 12182 127.0.0.1:7000\r\n";
        const LOADING: &str = "-LOADING Redis is loading the dataset in memory\r\n";
        const NOSCRIPT: &str = "-NOSCRIPT No matching script. Please use EVAL.\r\n";
        const ABORT: &str = "-EXECABORT Transaction discarded because of previous errors.\r\n";
        let (foo, other) = (Slot::of(b"foo"), Slot::of(b"bar"));
        let plain = RequestTraits::default();
        let reloads = RequestTraits { needs: Needs { reloads: true, ..Needs::default() }, ..plain };
        let two_keys = RequestTraits { keys: 2, ..plain };
        for (reply, fault, route, traits, expected) in [
            ("+OK\r\n", None, Route::Slot(foo), plain, "answered"),
            ("-ERR syntax error\r\n", None, Route::Slot(foo), plain, "answered"),
            ("$-1\r\n", None, Route::Slot(foo), plain, "answered"),
            (MOVED, None, Route::Slot(foo), plain, "elsewhere"),
            (MOVED, None, Route::Any, plain, "elsewhere"),
            // A script may end in any error: this one is about another slot.
            (MOVED, None, Route::Slot(other), plain, "answered"),
            (LOADING, None, Route::Any, plain, "later"),
            (NOSCRIPT, None, Route::Slot(foo), plain, "answered"),
            (NOSCRIPT, None, Route::Slot(foo), reloads, "no script"),
            (ABORT, None, Route::Slot(foo), plain, "answered"),
            (ABORT, Some(MOVED), Route::Slot(foo), plain, "elsewhere"),
            (ABORT, Some("-ERR syntax error\r\n"), Route::Slot(foo), plain, "answered"),
            ("*1\r\n+OK\r\n", Some(MOVED), Route::Slot(foo), plain, "answered"),
            ("$1\r\na\r\n", None, Route::Replica(foo, 1), plain, "answered"),
            ("$-1\r\n", None, Route::Replica(foo, 1), plain, "ask the primary"),
            ("-ERR syntax error\r\n", None, Route::Replica(foo, 1), plain, "ask the primary"),
            (LOADING, None, Route::Replica(foo, 1), plain, "later"),
            ("*2\r\n$1\r\na\r\n$-1\r\n", None, Route::Replica(foo, 1), two_keys, "ask the primary"),
            (":2\r\n", None, Route::Replica(foo, 1), two_keys, "answered"),
        ] {
            assert_eq!(said(reply, fault, route, traits), expected, "{reply} after {fault:?} by {route:?}");
        }
    }
}

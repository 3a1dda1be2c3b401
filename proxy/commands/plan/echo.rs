//! Requests that a server may answer by bytes which the client chose, line breaks and all: what looks like the replies
//! to requests behind them. Redis and Valkey put text of the client's into these errors as it is:
//! - the first line of a script, `#!engine option=value`, in which `"\\r\\n"` stands for a line break (EVAL, SCRIPT LOAD);
//! - what Lua says of a library that fails while it is loaded (FUNCTION LOAD and RESTORE);
//! - an unknown option of FUNCTION LIST (Valkey).

use crate::{
    commands::{
        scripts,
        table::{Flags, Spec, traits::Echoes},
    },
    protocol::resp::Request,
};

/// Whether `request` is one of them.
#[inline]
pub fn is_echoed(request: &Request, spec: &Spec) -> bool {
    spec.flags.has(Flags::NOSCRIPT) && may_break_off(request, spec)
}

fn may_break_off(request: &Request, spec: &Spec) -> bool {
    let breaks = |arg: &[u8]| arg.contains(&b'\r') || arg.contains(&b'\n');
    match spec.traits.echoes {
        Echoes::Nothing => false,
        Echoes::Anything => true,
        Echoes::Options(first) => request.args().skip(first).any(breaks),
        Echoes::Script(at) => request.get(at).is_some_and(scripts::has_escapes),
    }
}

//! Whether the client's user may do what the proxy does itself: answered from what is known ([`crate::clients::rights`]), or by
//! asking a node by the proxy's own login ([`mod@judge`]).
//!
//! A request that has to be asked about stays where it is, at the front of the input: [`ask_about`] gets the
//! verdict for it, and it is dispatched anew. What goes to a node as it came, the node itself judges.

mod judge;
mod users;

use std::time::Duration;

use bytes::Bytes;

use self::judge::{Judged, judge, rules};
pub use self::users::look_after_users;
pub(super) use self::users::{look_after_change, users_change};
use super::{caller::Caller, names};
use crate::{
    clients::rights::{UserRules, Verdict},
    commands::{
        plan::Plan,
        table::{
            Flags, Spec, Treatment,
            treatment::{Local, ProxyCommand},
        },
    },
    protocol::resp::{
        Request, Value,
        request::{OwnedRequest, Parser},
        write,
    },
};

/// How long one node may take to tell; then the next is asked.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a node was asked about, and may have said.
pub(super) struct Judgment {
    frame: Bytes,
    verdict: Verdict,
    /// The node was asked what command it is, not whether the user may run it.
    is_of_name: bool,
}

/// Why a request does not go on.
pub(super) enum Denial {
    /// The client's user may not run it, or no node can tell: the error.
    Refused(Bytes),
    /// A node has to be asked.
    Unknown,
}

/// What keeps a request from going on whose name no table has. `said` is what a node has said of the request at the front
/// of the input.
#[cold]
pub(super) fn denial_of_name(said: &mut Option<Judgment>, request: &Request<'_>) -> Option<Denial> {
    match said.take_if(|judgment| judgment.is_of_name).filter(|judgment| judgment.frame == request.frame()) {
        None => Some(Denial::Unknown),
        Some(judgment) => judgment.verdict.err().map(Denial::Refused),
    }
}

/// What keeps a request from going on that the proxy itself carries out, as far as the client's user is concerned. `said`
/// is what a node has said of the request at the front of the input.
pub(super) fn denial(
    said: &mut Option<Judgment>,
    caller: &Caller,
    request: &Request<'_>,
    spec: &Spec,
    in_transaction: bool,
) -> Option<Denial> {
    let never_queued = in_transaction && spec.flags.has(Flags::NO_MULTI);
    if spec.flags.has(Flags::NO_AUTH) || spec.container || never_queued || !spec.takes(request.len()) {
        return None;
    }
    let now = caller.router.clock().now();
    if caller.user.is_free(now) {
        if caller.user.is_due(now) {
            let caller = caller.clone();
            tokio::task::spawn_local(async move {
                drop(rules(&caller).await);
                caller.user.asked();
            });
        }
        return None;
    }
    let verdict = match said.take().filter(|judgment| !judgment.is_of_name && judgment.frame == request.frame()) {
        Some(judgment) => judgment.verdict,
        None => match known_verdict(caller, request, spec)? {
            Some(verdict) => verdict,
            None => return Some(Denial::Unknown),
        },
    };
    verdict.err().map(Denial::Refused)
}

/// Has a node judge the request at the front of the input, or tell what command it is. `None` where the client's user is
/// gone.
pub(super) async fn ask_about(caller: Caller, request: OwnedRequest) -> Option<Judgment> {
    let frame = request.frame().clone();
    let topology = caller.router.topology().clone();
    let Some(spec) = topology.commands.find(&request.as_request()) else {
        let verdict = names::learn(&caller, request.as_request().name()).await.map_err(Bytes::from);
        return Some(Judgment { frame, verdict, is_of_name: true });
    };
    let asked = match needed(spec) {
        Needed::Itself => Some(request),
        Needed::Other(words) => made(words),
        Needed::Nothing => None,
    };
    let verdict = match asked {
        None => Ok(()),
        Some(asked) => match judge(&caller, asked).await {
            Judged::Verdict(verdict) => verdict,
            Judged::NoUser => return None,
        },
    };
    Some(Judgment { frame, verdict, is_of_name: false })
}

/// What was judged of late; nothing to judge where there is no right that it takes.
fn known_verdict(caller: &Caller, request: &Request<'_>, spec: &Spec) -> Option<Option<Verdict>> {
    let made = match needed(spec) {
        Needed::Itself => None,
        Needed::Nothing => return None,
        Needed::Other(words) => Some(made(words)?),
    };
    let topology = caller.router.topology();
    let (request, spec) = match &made {
        Some(made) => (made.as_request(), topology.commands.find(&made.as_request())?),
        None => (*request, spec),
    };
    let now = caller.router.clock().now();
    let rules = caller.user.rules(now);
    Some(UserRules::key(rules.as_deref(), &request, spec).and_then(|key| caller.user.verdict(&key, now)))
}

/// Whether a node is sent the command as it came, and judges it.
#[inline]
pub(super) fn is_judged_by_node(plan: &Plan) -> bool {
    match plan {
        Plan::One(_) | Plan::Any | Plan::PubSub | Plan::Blocking(_) | Plan::AskServer | Plan::Scan(_) | Plan::Keys => {
            true
        }
        // Where all nodes are busy, none could be asked.
        Plan::OutOfBand(_) => true,
        Plan::Scripting(which, _) => which.runs(),
        Plan::Split(_) | Plan::LongSplit(_) | Plan::Primaries(_) | Plan::AnyRewritten(_) | Plan::Local(_) => false,
        Plan::Unchanged(_) | Plan::InTurn(_) | Plan::CountsKeys | Plan::Refuse(_) => false,
    }
}

/// Which right a command takes.
enum Needed {
    /// To run it.
    Itself,
    /// To run another, which tells the same.
    Other(&'static [&'static str]),
    /// None; or that of what it has a node run, which the node judges.
    Nothing,
}

fn needed(spec: &Spec) -> Needed {
    let Treatment::Local(Local::Proxy(command)) = spec.treatment else { return Needed::Itself };
    match command {
        ProxyCommand::Info | ProxyCommand::Databases | ProxyCommand::Events => Needed::Other(&["INFO"]),
        ProxyCommand::Clients => Needed::Other(&["CLIENT", "LIST"]),
        ProxyCommand::Config => Needed::Other(&["CONFIG", "GET", "*"]),
        ProxyCommand::Hotkeys | ProxyCommand::Slowlog => Needed::Other(&["SLOWLOG", "GET"]),
        ProxyCommand::Slots | ProxyCommand::Nodes => Needed::Other(&["CLUSTER", "NODES"]),
        ProxyCommand::Reload => Needed::Other(&["CONFIG", "REWRITE"]),
        ProxyCommand::Explain => Needed::Other(&["COMMAND", "GETKEYS", "GET", "key"]),
        ProxyCommand::Node | ProxyCommand::Help | ProxyCommand::Unknown => Needed::Nothing,
        ProxyCommand::Reads => Needed::Itself,
    }
}

fn made(words: &[&str]) -> Option<OwnedRequest> {
    let (mut frame, mut parser) = (Vec::new(), Parser::default());
    write::request(&mut frame, words);
    let found = parser.find(&frame).ok()??;
    Some(parser.request(&frame, found).to_owned())
}

/// Whether a node says by this error that it does not answer such questions: to this user, or to nobody.
fn is_closed_to_us(error: &[u8]) -> bool {
    let lower = error.to_ascii_lowercase();
    error.starts_with(b"NOPERM") || error.starts_with(b"NOAUTH") || lower.starts_with(b"err unknown")
}

fn value(reply: &[u8]) -> Value {
    Value::parse(reply).ok().flatten().map_or(Value::Null, |(value, _)| value)
}

#[cfg(test)]
mod tests;

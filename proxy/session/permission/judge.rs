//! Asks nodes what a user may do: for its rules, for a verdict on one request, or by having the request queued.

use std::{rc::Rc, sync::Arc, time::Instant};

use bytes::Bytes;
use tokio::time::timeout;

use super::{PATIENCE, is_closed_to_us, users::end_clients, value};
use crate::{
    clients::rights::{self, UserRules, Verdict},
    commands::table::{Flags, Spec, Treatment, treatment::Local},
    protocol::{
        resp::{Value, request::OwnedRequest, write},
        says,
    },
    session::{
        ask::ask,
        attempts::Attempts,
        caller::Caller,
        transaction::{DISCARD, MULTI},
    },
    upstream::dial,
};

/// What became of a question.
enum Answered<T> {
    /// A node has answered it.
    Answer(T),
    /// The nodes do not have the user.
    NoUser,
    /// They do not answer such questions, or not to the proxy's user.
    MayNot,
    /// None has answered.
    Silence(String),
}

/// What has become of the question whether a user may run a request.
pub(super) enum Judged {
    Verdict(Verdict),
    /// The user is gone.
    NoUser,
}

/// What a user may do, as far as its rules tell.
pub(super) enum KnownRules {
    Rules(Arc<UserRules>),
    Judged(Judged),
    /// Nodes do not tell the rules.
    Nothing,
}

/// Learns the user's rules, where that is due.
pub(super) async fn rules(caller: &Caller) -> KnownRules {
    let now = Instant::now();
    if let Some(rules) = caller.user.rules(now) {
        return KnownRules::Rules(rules);
    }
    let asked = caller.user.generation();
    let question: [&[u8]; 3] = [b"ACL", b"GETUSER", &caller.user.name];
    let told = ask_in_turn(caller, &question, |reply| match reply {
        Value::Null => None,
        reply => Some(UserRules::parse(&reply)),
    });
    match told.await {
        Answered::Answer(Some(rules)) => KnownRules::Rules(caller.user.learn(rules, asked, Instant::now())),
        Answered::Answer(None) | Answered::MayNot => KnownRules::Nothing,
        Answered::NoUser if caller.is_proxys_user() => KnownRules::Nothing,
        Answered::NoUser => {
            end_clients(&caller.router, &caller.user.name);
            KnownRules::Judged(Judged::NoUser)
        }
        Answered::Silence(why) => {
            // Before anything is known of the cluster, there is nothing to protect.
            let free = caller.user.nobody_answered(caller.is_proxys_user(), Instant::now());
            KnownRules::Judged(Judged::Verdict(if free { Ok(()) } else { Err(says::no_verdict(&why).into()) }))
        }
    }
}

/// Whether the user may run the request.
pub(super) async fn judge(caller: &Caller, request: OwnedRequest) -> Judged {
    let asked = caller.user.generation();
    let rules = match rules(caller).await {
        KnownRules::Judged(judged) => return judged,
        KnownRules::Rules(rules) if rules.all => return Judged::Verdict(Ok(())),
        KnownRules::Rules(rules) => Some(rules),
        KnownRules::Nothing => None,
    };
    let topology = caller.router.topology().clone();
    let request = request.as_request();
    let Some(spec) = topology.commands.find(&request) else { return Judged::Verdict(Ok(())) };
    let key = UserRules::key(rules.as_deref(), &request, spec);
    let words = rights::words(&request, spec);
    let question = [&[&b"ACL"[..], b"DRYRUN", &caller.user.name], &*words].concat();
    let told = ask_in_turn(caller, &question, |reply| match reply {
        Value::Error(text) if text.starts_with(b"ERR User ") && text.ends_with(b"not found") => None,
        // The node does not know the command, or not so.
        Value::Error(_) => Some(Some(Ok(()))),
        Value::Text(ok) if *ok == *b"OK" => Some(Some(Ok(()))),
        reply => Some(reply.str().and_then(rights::refusal).map(|error| Err(error.into()))),
    });
    let verdict = match told.await {
        Answered::Answer(Some(verdict)) => verdict,
        Answered::NoUser => return Judged::NoUser,
        // As where no rules are known.
        Answered::Silence(_) if caller.is_proxys_user() && rules.is_none() => return Judged::Verdict(Ok(())),
        Answered::Silence(why) => return Judged::Verdict(Err(says::no_verdict(&why).into())),
        Answered::Answer(None) | Answered::MayNot => match try_out(caller, &words, spec).await {
            Some(verdict) => verdict,
            None if acts_on_clients(spec) => return Judged::Verdict(Err(says::MAY_NOT_ASK.into())),
            None => Ok(()),
        },
    };
    if let Some(key) = key {
        caller.user.judged(key, verdict.clone(), asked, Instant::now());
    }
    Judged::Verdict(verdict)
}

/// Asks the primaries in turn, by the proxy's own login, until one answers. `read` reads a reply; `None` where that node
/// does not have the user.
async fn ask_in_turn<T>(caller: &Caller, words: &[&[u8]], read: impl Fn(Value) -> Option<T>) -> Answered<T> {
    if !caller.router.rights().may_ask(Instant::now()) {
        return Answered::MayNot;
    }
    caller.router.refresh();
    let mut nodes: Vec<_> = caller.router.topology().owners().cloned().collect();
    if nodes.is_empty() {
        return Answered::Silence(caller.router.topology().down());
    }
    let first = caller.affinity % nodes.len();
    nodes.rotate_left(first);
    let mut frame = Vec::new();
    write::request(&mut frame, words);
    let (count, mut silent, mut why) = (nodes.len(), 0, String::new());
    for node in nodes {
        let link = caller.router.first_lane().link_to(&caller.router, &node);
        match timeout(PATIENCE, ask(&caller.router, &link, &frame)).await {
            Ok(Ok(reply)) => match value(&reply) {
                Value::Error(text) if is_closed_to_us(&text) => {
                    caller.router.rights().may_not_ask(Instant::now());
                    return Answered::MayNot;
                }
                // It is busy, loading or lost: another may tell.
                Value::Error(text) if !text.starts_with(b"ERR ") => {
                    (silent, why) = (silent + 1, dial::reason(&text));
                }
                reply => {
                    if let Some(told) = read(reply) {
                        return Answered::Answer(told);
                    }
                }
            },
            Ok(Err(error)) => (silent, why) = (silent + 1, error),
            Err(_) => (silent, why) = (silent + 1, says::no_answer(&node.label, PATIENCE)),
        }
    }
    if silent * 2 < count { Answered::NoUser } else { Answered::Silence(why) }
}

/// Where the proxy may not ask about the user: has a node queue the command in a transaction of the client's own login,
/// and throws that away. A node judges what it queues. `None` where that does not tell.
async fn try_out(caller: &Caller, words: &[&[u8]], spec: &Spec) -> Option<Verdict> {
    if spec.flags.has(Flags::NO_MULTI) {
        return None;
    }
    let patience = caller.router.timeouts().request_timeout();
    let mut attempts = Attempts::new(caller.router.clone(), caller.lane.clone(), None, caller.affinity, Rc::default());
    let mut connection = attempts.connect().await.ok()?;
    let begun = connection.exchange(MULTI, 1, patience).await.ok()?.pop()?;
    if begun.first() != Some(&b'+') {
        // Nothing is queued, so that nothing else may be sent.
        let is_asked = spec.treatment == Treatment::Local(Local::Multi);
        return refusal_of(&begun).filter(|_| is_asked).map(Err);
    }
    let mut frame = Vec::new();
    write::request(&mut frame, words);
    let said = connection.exchange(&frame, 1, patience).await.ok()?.pop()?;
    let ended = connection.exchange(DISCARD, 1, patience).await.ok()?.pop()?;
    if ended.first() == Some(&b'+') {
        connection.give_back();
    }
    Some(refusal_of(&said).map_or(Ok(()), Err))
}

/// The text of a node's refusal.
fn refusal_of(reply: &[u8]) -> Option<Bytes> {
    let text = reply.strip_prefix(b"-")?;
    let text = text.strip_suffix(b"\r\n").unwrap_or(text);
    // EXEC says it in its own way.
    let text = text.strip_prefix(says::EXECABORT_BECAUSE.as_bytes()).unwrap_or(text);
    text.starts_with(b"NOPERM").then(|| Bytes::copy_from_slice(text))
}

/// Whether a command is about other clients.
fn acts_on_clients(spec: &Spec) -> bool {
    matches!(spec.treatment, Treatment::Local(Local::Client(_))) && spec.flags.has(Flags::ADMIN)
}

#[cfg(test)]
mod tests;

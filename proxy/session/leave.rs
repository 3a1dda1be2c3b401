//! Whether the client's user may do what the proxy does itself: answered from what is known ([`crate::clients::rights`]), or by
//! asking a node by the proxy's own login.
//!
//! A request that has to be asked about stays where it is, at the front of the input: [`ask_about`] gets the
//! verdict for it, and it is dispatched anew. What goes to a node as it came, the node itself judges.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::time::timeout;

use super::{
    ask::ask,
    attempts::Attempts,
    caller::Caller,
    names,
    transaction::{DISCARD, MULTI},
};
use crate::{
    clients::{
        Order,
        rights::{self, Rules, Verdict},
    },
    commands::{
        plan::{Plan, Scripting},
        table::{
            Flags, Spec, Treatment,
            treatment::{Local, Proxy},
        },
    },
    protocol::{
        resp::{
            Request, Value,
            request::{OwnedRequest, Parser},
            write,
        },
        says,
    },
    upstream::{dial, router::Router, ticket::OnSuccess},
};

/// How long one node may take to tell; then the next is asked.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often, and how many times, it is looked whether users that were deleted have gone from all nodes.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: usize = 20;

/// What a node was asked about, and may have said.
pub(super) struct Leave {
    frame: Bytes,
    verdict: Verdict,
    /// It was asked what command it is, not whether the user may run it.
    is_of_name: bool,
}

/// Why a request does not go on.
pub(super) enum Lack {
    /// The client's user may not run it, or no node can tell: the error.
    Refused(Bytes),
    /// A node has to be asked.
    Unknown,
}

/// What keeps a request from going on whose name no table has. `said` is what a node has said of the request at the front
/// of the input.
#[cold]
pub(super) fn lack_of_name(said: &mut Option<Leave>, request: &Request<'_>) -> Option<Lack> {
    match said.take_if(|leave| leave.is_of_name).filter(|leave| leave.frame == request.frame()) {
        None => Some(Lack::Unknown),
        Some(leave) => leave.verdict.err().map(Lack::Refused),
    }
}

/// What keeps a request from going on that the proxy itself carries out, as far as the client's user is concerned. `said`
/// is what a node has said of the request at the front of the input.
pub(super) fn lack(
    said: &mut Option<Leave>,
    caller: &Caller,
    request: &Request<'_>,
    spec: &Spec,
    in_transaction: bool,
) -> Option<Lack> {
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
    let verdict = match said.take().filter(|leave| !leave.is_of_name && leave.frame == request.frame()) {
        Some(leave) => leave.verdict,
        None => match known_verdict(caller, request, spec)? {
            Some(verdict) => verdict,
            None => return Some(Lack::Unknown),
        },
    };
    verdict.err().map(Lack::Refused)
}

/// Has a node judge the request at the front of the input, or tell what command it is. `None` where the client's user is
/// gone.
pub(super) async fn ask_about(caller: Caller, request: OwnedRequest) -> Option<Leave> {
    let frame = request.frame().clone();
    let topology = caller.router.topology().clone();
    let Some(spec) = topology.commands.find(&request.as_request()) else {
        let verdict = names::learn(&caller, request.as_request().name()).await.map_err(Bytes::from);
        return Some(Leave { frame, verdict, is_of_name: true });
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
    Some(Leave { frame, verdict, is_of_name: false })
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
    Some(Rules::key(rules.as_deref(), &request, spec).and_then(|key| caller.user.verdict(&key, now)))
}

/// Has all that is known of users forgotten once a node has done `spec`, which changes them, and ends the clients of
/// those that are gone.
pub(super) fn users_change(caller: &Caller, spec: Option<&Spec>) -> Option<OnSuccess> {
    spec.filter(|spec| spec.traits.changes_users)?;
    let (router, issuer) = (caller.router.clone(), caller.client.id);
    Some(OnSuccess::new(move || look_after_change(&router, issuer)))
}

/// Users have changed: what is known is forgotten, again once all nodes have heard; clients of deleted users end.
pub(super) fn look_after_change(router: &Rc<Router>, issuer: u64) {
    router.rights().forget();
    let router = router.clone();
    tokio::task::spawn_local(async move {
        for _ in 0..LOOKS {
            tokio::time::sleep(LOOK).await;
            router.rights().forget();
            sweep(&router, Some(issuer)).await;
        }
    });
}

/// From time to time: ends the clients of users that nodes have no more.
pub fn look_after_users(router: &Rc<Router>) {
    let now = router.clock().tick();
    if !has_foreign_users(router) || !router.rights().is_time_to_sweep(now) {
        return;
    }
    let router = router.clone();
    tokio::task::spawn_local(async move { sweep(&router, None).await });
}

fn has_foreign_users(router: &Router) -> bool {
    router.rights().in_use().iter().any(|name| *name != router.own_user().name)
}

/// Ends the clients of users that no primary has any more. `issuer` has its reply first.
async fn sweep(router: &Rc<Router>, issuer: Option<u64>) {
    let mut missing = router.rights().in_use();
    missing.retain(|name| *name != router.own_user().name);
    let (mut asked, mut silent) = (0, 0);
    let nodes: Vec<_> = router.topology().owners().cloned().collect();
    for node in nodes {
        if missing.is_empty() {
            return;
        }
        let link = router.first_lane().link_to(router, &node);
        asked += 1;
        match timeout(PATIENCE, ask(router, &link, b"*2\r\n$3\r\nACL\r\n$5\r\nUSERS\r\n")).await {
            Ok(Ok(reply)) => match value(&reply) {
                Value::Array(users) => {
                    missing.retain(|name| !users.iter().any(|user| user.text() == Some(&name[..])));
                }
                Value::Error(text) if is_closed_to_us(&text) => return router.rights().may_not_sweep(),
                _ => silent += 1,
            },
            _ => silent += 1,
        }
    }
    // One that does not answer may have them; where most do not, nothing is known.
    if silent * 2 < asked {
        missing.iter().for_each(|name| end_clients(router, name, issuer));
    }
}

/// Ends all clients that work as a user that is gone, as Redis does.
fn end_clients(router: &Router, user: &[u8], issuer: Option<u64>) {
    for client in router.clients().all() {
        if client.works_as(user) {
            client.tell(if issuer == Some(client.id) { Order::Drain } else { Order::Leave });
        }
    }
}

/// Whether a node is sent the command as it came, and judges it.
#[inline]
pub(super) fn is_judged_by_node(plan: &Plan) -> bool {
    match plan {
        Plan::One(_) | Plan::Any | Plan::Home | Plan::Blocking(_) | Plan::AskServer | Plan::Scan(_) | Plan::Keys => {
            true
        }
        // Where all nodes are busy, none could be asked.
        Plan::OutOfBand(_) => true,
        Plan::Scripting(which, _) => matches!(which, Scripting::Eval | Scripting::Evalsha | Scripting::Fcall),
        _ => false,
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
    match spec.treatment {
        Treatment::Local(Local::Proxy(Proxy::Info)) => Needed::Other(&["INFO"]),
        Treatment::Local(Local::Proxy(Proxy::Nodes)) => Needed::Other(&["CLUSTER", "NODES"]),
        Treatment::Local(Local::Proxy(Proxy::Explain)) => Needed::Other(&["COMMAND", "GETKEYS", "GET", "key"]),
        Treatment::Local(Local::Proxy(Proxy::Node | Proxy::Help | Proxy::Unknown)) => Needed::Nothing,
        _ => Needed::Itself,
    }
}

fn made(words: &[&str]) -> Option<OwnedRequest> {
    let (mut frame, mut parser) = (Vec::new(), Parser::default());
    write::request(&mut frame, words);
    let found = parser.find(&frame).ok()??;
    Some(parser.request(&frame, found).to_owned())
}

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

enum Judged {
    Verdict(Verdict),
    /// The user is gone.
    NoUser,
}

/// What a user may do, as far as its rules tell.
enum Known {
    Rules(Arc<Rules>),
    Judged(Judged),
    /// Nodes do not tell the rules.
    Nothing,
}

/// Learns the user's rules, where that is due.
async fn rules(caller: &Caller) -> Known {
    let now = Instant::now();
    if let Some(rules) = caller.user.rules(now) {
        return Known::Rules(rules);
    }
    let asked = caller.user.generation();
    let question: [&[u8]; 3] = [b"ACL", b"GETUSER", &caller.user.name];
    let told = ask_in_turn(caller, &question, |reply| match reply {
        Value::Null => None,
        reply => Some(Rules::parse(&reply)),
    });
    match told.await {
        Answered::Answer(Some(rules)) => Known::Rules(caller.user.learn(rules, asked, Instant::now())),
        Answered::Answer(None) | Answered::MayNot => Known::Nothing,
        Answered::NoUser if caller.is_proxys_user() => Known::Nothing,
        Answered::NoUser => {
            end_clients(&caller.router, &caller.user.name, None);
            Known::Judged(Judged::NoUser)
        }
        Answered::Silence(why) => {
            // Before anything is known of the cluster, there is nothing to protect.
            let free = caller.user.nobody_answered(caller.is_proxys_user(), Instant::now());
            Known::Judged(Judged::Verdict(if free { Ok(()) } else { Err(says::no_verdict(&why).into()) }))
        }
    }
}

/// Whether the user may run the request.
async fn judge(caller: &Caller, request: OwnedRequest) -> Judged {
    let asked = caller.user.generation();
    let rules = match rules(caller).await {
        Known::Judged(judged) => return judged,
        Known::Rules(rules) if rules.all => return Judged::Verdict(Ok(())),
        Known::Rules(rules) => Some(rules),
        Known::Nothing => None,
    };
    let topology = caller.router.topology().clone();
    let request = request.as_request();
    let Some(spec) = topology.commands.find(&request) else { return Judged::Verdict(Ok(())) };
    let key = Rules::key(rules.as_deref(), &request, spec);
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
        // As where nothing has been told of it at all.
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
    let patience = caller.router.context().limits.request_timeout;
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

/// Whether a node says by this error that it does not answer such questions: to this user, or to nobody.
fn is_closed_to_us(error: &[u8]) -> bool {
    let lower = error.to_ascii_lowercase();
    error.starts_with(b"NOPERM") || error.starts_with(b"NOAUTH") || lower.starts_with(b"err unknown")
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

fn value(reply: &[u8]) -> Value {
    Value::parse(reply).ok().flatten().map_or(Value::Null, |(value, _)| value)
}

#[cfg(test)]
mod tests {
    use tokio::task::spawn_local;

    use super::*;
    use crate::upstream::{
        dial::{Credentials, Login},
        router::scripted::{Scripted, frame, request, within_a_minute},
    };

    /// What a node is asked about bob, and says.
    const BOB: &str = "commands -@all keys ~* channels &*";

    #[tokio::test(start_paused = true)]
    async fn a_node_is_asked_about_a_user_of_whom_nothing_is_known() {
        within_a_minute(async {
            let mut nodes = Scripted::new(1);
            let mut caller = Caller::of(&nodes);
            let bob = Credentials { username: Some("bob".into()), secret: "secret".into() };
            caller.user = nodes.router.user_of(&Login { credentials: Some(bob), ..Login::default() });
            let (asked, topology) = (request("CLIENT KILL ID 7"), nodes.router.topology().clone());
            let spec = topology.commands.find(&asked.as_request()).unwrap();
            let lacks = |said: &mut Option<Leave>| lack(said, &caller, &asked.as_request(), spec, false);
            assert!(matches!(lacks(&mut None), Some(Lack::Unknown)));

            let asking = spawn_local(ask_about(caller.clone(), asked.clone()));
            let mut node = nodes.node(0).await;
            node.hears(&frame("ACL GETUSER bob")).await;
            node.says(&[b"*6\r\n", &frame(BOB)[4..]].concat()).await;
            node.hears(&frame("ACL DRYRUN bob CLIENT KILL ID 7")).await;
            let said = "This user has no permissions to run the 'client|kill' command";
            node.says(format!("${}\r\n{said}\r\n", said.len()).as_bytes()).await;
            let mut said = asking.await.unwrap();
            let Some(Lack::Refused(error)) = lacks(&mut said) else { panic!("it is refused") };
            assert!(error.starts_with(b"NOPERM this user has no permissions"), "{error:?}");
            assert!(said.is_none(), "it is of use once");
            assert!(matches!(lacks(&mut None), Some(Lack::Refused(_))), "it is remembered");
            // What everybody may do is not asked about.
            let hello = request("HELLO");
            let spec = topology.commands.find(&hello.as_request()).unwrap();
            assert!(lack(&mut None, &caller, &hello.as_request(), spec, false).is_none());
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_that_the_nodes_do_not_have_is_gone() {
        within_a_minute(async {
            let mut nodes = Scripted::new(1);
            let mut caller = Caller::of(&nodes);
            let bob = Credentials { username: Some("bob".into()), secret: "secret".into() };
            let login = Login { credentials: Some(bob), ..Login::default() };
            (caller.user, caller.lane) = (nodes.router.user_of(&login), nodes.router.lane(&login));
            let asking = spawn_local(ask_about(caller, request("CLIENT LIST")));
            let mut node = nodes.node(0).await;
            node.hears(&frame("ACL GETUSER bob")).await;
            node.says(b"*-1\r\n").await;
            assert!(asking.await.unwrap().is_none());
        })
        .await;
    }
}

//! EVAL, EVALSHA and SCRIPT: what one Redis would have, every node has.
//!
//! A node may lack a script that its client has loaded: it was promoted, has restarted or has just joined. It is given
//! it before or after it says NOSCRIPT:
//! - A client that waits for its replies costs nothing. EVALSHA goes as it came, and nothing that could overtake it is
//!   sent until it is answered; on NOSCRIPT the script is loaded and the request goes again, once.
//! - In a pipeline, waiting would cost a round trip for each request. There SCRIPT LOAD goes ahead in the same batch, once
//!   for all that the batch runs by that digest; so it does ahead of MULTI. NOSCRIPT is then the node's last word, as it
//!   would be where somebody flushes the scripts of one Redis at that moment.

use std::{collections::HashSet, pin::pin, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{task::JoinSet, time::timeout};

use super::{
    ask::ask,
    attend::Eof,
    caller::Caller,
    dispatch::{Dispatcher, Flow},
    long::Portion,
    retry,
    work::{Job, Work},
};
use crate::{
    cluster::{
        recovery::Why,
        topology::{Hint, Node, Route},
    },
    commands::{
        database::Scope,
        plan::Scripting,
        scripts::{Met, Script, Sha, contains, is_kept},
        table::{Spec, Treatment, lost::WhenLost, treatment::MergeRule},
    },
    protocol::{
        resp::{Request, Value, request::Parser, write},
        says,
        slot::Slot,
    },
    upstream::{
        link::{Link, Prelude},
        router::{Lane, Router},
        ticket::{Bounced, Envelope, OnSuccess},
    },
};

/// A longer text does not go ahead of each batch: the pipeline waits instead.
const LONGEST_AHEAD: usize = 16 * 1024;

/// SCRIPT EXISTS of more arguments looks them up in portions.
const MANY: usize = 1024;

/// How long SCRIPT EXISTS waits for nodes that are given what it asks for.
const PATIENCE: Duration = Duration::from_millis(500);

impl Dispatcher {
    /// Carries out what has to do with scripts.
    pub(super) fn script(
        &mut self,
        which: Scripting,
        slot: Option<Slot>,
        request: &Request<'_>,
        spec: Option<&Spec>,
    ) -> Flow {
        let route = slot.map_or(Route::Any, Route::Slot);
        let whole = spec.is_some_and(|spec| spec.takes(request.len()));
        if !whole {
            return self.forward(request, spec, route);
        }
        self.barrier.guard(&self.caller.router, spec, route);
        let scripts = self.caller.router.scripts();
        match which {
            Scripting::Eval => {
                let mut envelope = self.open(request, spec, route);
                envelope.set_on_success(learn(&self.caller, request.arg(1), Met::Evaluated));
                self.caller.send(request.frame(), envelope);
            }
            Scripting::Fcall => {
                let mut envelope = self.open(request, spec, route);
                envelope.traits.needs.functions = true;
                send_ready(&self.caller, &[], request.frame(), envelope);
            }
            Scripting::Evalsha => return self.evalsha(request, spec, route),
            Scripting::Show | Scripting::Exists if !self.caller.is_trusted() || request.len() > MANY => {
                return Flow::work(Work::AskOfScripts { all_nodes: which == Scripting::Exists });
            }
            Scripting::Show => {
                let named = scripts.find(request.arg(2)).into_iter().collect::<Vec<_>>();
                let envelope = self.open(request, spec, route);
                send_ready(&self.caller, &named, request.frame(), envelope);
            }
            Scripting::Load => {
                let mut envelope = self.open(request, spec, route);
                envelope.set_on_success(learn(&self.caller, request.arg(2), Met::Loaded));
                self.send_to_all(request, spec, MergeRule::AllSucceeded, &[], envelope);
            }
            Scripting::Flush => {
                if request.get(2).is_none() || request.is(2, "SYNC") || request.is(2, "ASYNC") {
                    scripts.all().forget(Scope::CLUSTER);
                }
                let envelope = self.open(request, spec, route);
                self.send_to_all(request, spec, MergeRule::AllSucceeded, &[], envelope);
            }
            Scripting::Exists => {
                // What is remembered here exists: the nodes are given it first.
                let named = scripts_of(&self.caller.router, request.frame());
                let envelope = self.open(request, spec, route);
                self.send_to_all(request, spec, MergeRule::And, &named, envelope);
            }
        }
        Flow::Taken
    }

    /// EVALSHA. Where the script is not known here, it is as if the node had been asked directly.
    fn evalsha(&mut self, request: &Request<'_>, spec: Option<&Spec>, route: Route) -> Flow {
        let Some(script) = self.caller.router.scripts().find(request.arg(1)) else {
            return self.forward(request, spec, route);
        };
        // By the client's own connection only what its user may do.
        let ahead = self.caller.is_trusted() && (self.front.behind() > 0 || !self.caller.line.is_settled());
        let mut envelope = self.open(request, spec, route);
        envelope.traits.needs.scripts = true;
        let Some(link) = self.caller.link(route) else {
            self.caller.send(request.frame(), envelope);
            return Flow::Taken;
        };
        let mut prelude = Prelude::default();
        if ahead && script.text.len() <= LONGEST_AHEAD && !link.never_loads() {
            load_ahead(&self.caller, &link, &script, &mut prelude);
        } else {
            envelope.traits.needs.reloads = true;
            self.barrier.hold_behind(route);
        }
        prelude.add(envelope.traits.caching.prefix());
        link.send_after(&prelude, request.frame(), envelope);
        Flow::Taken
    }
}

impl Job<'_> {
    /// SCRIPT SHOW and EXISTS of a client whose user may not load what the proxy remembers, to whom the nodes are given it by
    /// the proxy's own login; and EXISTS of very many.
    pub(super) async fn ask_of_scripts(&mut self, all_nodes: bool) -> Option<Bytes> {
        let caller = self.caller().clone();
        let named: Rc<[Script]> = named_by(&caller.router, self.request).await.into();
        let is_trusted = caller.is_trusted();
        if !is_trusted && !named.is_empty() {
            let giving = give_all(&caller, all_nodes, named.clone());
            self.session.attend_to(pin!(giving), Eof::Waits).await?;
        }
        let ahead = if is_trusted { &*named } else { &[] };
        let envelope = self.open(Route::Any);
        if all_nodes {
            self.session.dispatcher.send_to_all(self.request, self.spec, MergeRule::And, ahead, envelope);
        } else {
            send_ready(&caller, ahead, self.request.frame(), envelope);
        }
        None
    }
}

/// What the envelope of a request that runs code has to say, where it goes by a connection of its own.
pub(super) fn prepare(caller: &Caller, which: Scripting, request: &Request<'_>, envelope: &mut Envelope) {
    match which {
        Scripting::Eval => envelope.set_on_success(learn(caller, request.arg(1), Met::Evaluated)),
        Scripting::Fcall => envelope.traits.needs.functions = true,
        Scripting::Evalsha => envelope.traits.needs.scripts = caller.router.scripts().find(request.arg(1)).is_some(),
        // They run nothing.
        Scripting::Load | Scripting::Exists | Scripting::Show | Scripting::Flush => {}
    }
}

/// Loads scripts, by the proxy's own login, where a request about them goes.
fn give_all(caller: &Caller, all_nodes: bool, named: Rc<[Script]>) -> impl Future<Output = ()> + use<> {
    let nodes: Vec<_> = match all_nodes {
        true => caller.router.topology().owners().cloned().collect(),
        false => caller.router.node_for(Route::Any, caller.affinity).into_iter().collect(),
    };
    let router = caller.router.clone();
    async move {
        let mut giving = JoinSet::new();
        for node in nodes {
            let (router, named) = (router.clone(), named.clone());
            giving.spawn_local(async move { load_at(&router, &node, &named).await });
        }
        // A node that is lost is given it when it needs it.
        let _ = timeout(PATIENCE, giving.join_all()).await;
    }
}

/// Remembers a text: at once for the proxy's own user, else once a node has taken it. A text that its client may not load must
/// not reach nodes by the proxy's login.
fn learn(caller: &Caller, text: &[u8], met: Met) -> Option<OnSuccess> {
    let scripts = caller.router.scripts();
    if caller.is_proxys_user() {
        scripts.learn(text, met);
        return None;
    }
    let (router, text) = (caller.router.clone(), (!scripts.knows(text, met)).then(|| Bytes::copy_from_slice(text))?);
    Some(OnSuccess::new(move || router.scripts().learn(&text, met)))
}

/// As [`learn`], for the texts in the frames of a transaction.
pub(super) fn learn_transaction(caller: &Caller, frames: &[u8]) -> Option<OnSuccess> {
    if caller.is_proxys_user() {
        learn_all(&caller.router, frames);
        return None;
    }
    let (router, frames) = (caller.router.clone(), Bytes::copy_from_slice(frames));
    Some(OnSuccess::new(move || learn_all(&router, &frames)))
}

/// Sends a request, or the frames of a transaction, to where it finds what it runs: the scripts that it names are
/// loaded ahead.
pub(super) fn send_ready(caller: &Caller, named: &[Script], request: &[u8], mut envelope: Envelope) {
    envelope.traits.needs.scripts |= !named.is_empty();
    if envelope.traits.needs.functions {
        let target = caller.router.node_for(envelope.route, caller.affinity);
        if let Some(why) = target.and_then(|node| awaits_functions(&caller.router, &node)) {
            return envelope.bounce(Bytes::copy_from_slice(request), why);
        }
    }
    let Some(link) = caller.link(envelope.route) else {
        return caller.send(request, envelope);
    };
    let mut prelude = Prelude::default();
    named.iter().for_each(|script| load_ahead(caller, &link, script, &mut prelude));
    prelude.add(envelope.traits.caching.prefix());
    link.send_after(&prelude, request, envelope);
}

fn load_ahead(caller: &Caller, link: &Link, script: &Script, prelude: &mut Prelude) {
    if link.load(script, prelude) {
        caller.router.scripts().all().give(script.sha, &link.node().label);
    }
}

/// What becomes of a command while a primary is lost: a script that is not kept cannot be given to anybody later.
pub(super) fn when_lost(spec: &Spec, request: &Request<'_>) -> WhenLost {
    match spec.when_lost {
        WhenLost::Kept if !is_kept(request.arg(2)) => WhenLost::Fails,
        other => other,
    }
}

/// Why a request that calls functions cannot go to `node` now: it may lack them for a moment.
pub(super) fn awaits_functions(router: &Router, node: &Node) -> Option<Why> {
    let topology = router.topology();
    if !topology.awaits_functions(node) {
        return None;
    }
    if topology.node(&node.id).is_none() {
        router.hint(Hint::Unwell { node: node.id.clone() });
    }
    Some(Why::Unsent(says::awaits_functions(&node.label)))
}

/// The known scripts that requests name by digest, each once.
pub(super) fn scripts_of(router: &Router, frames: &[u8]) -> Vec<Script> {
    let scripts = router.scripts();
    let (mut named, mut seen) = (Vec::new(), HashSet::new());
    visit(router, frames, |which, request| {
        let mut name = |sha: &[u8]| {
            let known = scripts.find(sha).filter(|script| seen.insert(script.sha));
            named.extend(known);
        };
        match which {
            Scripting::Evalsha => name(request.arg(1)),
            Scripting::Show | Scripting::Exists => request.args().skip(2).for_each(name),
            Scripting::Eval | Scripting::Load | Scripting::Fcall | Scripting::Flush => {}
        }
    });
    named
}

/// The known scripts that SCRIPT SHOW or EXISTS names, each once.
async fn named_by(router: &Router, request: &Request<'_>) -> Vec<Script> {
    let (mut named, mut looked) = (Vec::new(), Portion::default());
    let mut known = router.scripts().all().known();
    for digits in request.args().skip(2) {
        if known.is_empty() {
            break;
        }
        if Sha::parse(digits).is_some_and(|sha| known.remove(&sha)) {
            named.extend(router.scripts().find(digits));
        }
        looked.add(1).await;
    }
    named
}

/// Remembers the texts that requests say.
pub(super) fn learn_all(router: &Router, frames: &[u8]) {
    visit(router, frames, |which, request| match which {
        Scripting::Eval => router.scripts().learn(request.arg(1), Met::Evaluated),
        Scripting::Load => router.scripts().learn(request.arg(2), Met::Loaded),
        Scripting::Evalsha | Scripting::Fcall | Scripting::Exists | Scripting::Show | Scripting::Flush => {}
    });
}

/// Shows each of the requests that has to do with scripts.
fn visit(router: &Router, frames: &[u8], mut look: impl FnMut(Scripting, &Request<'_>)) {
    let topology = router.topology();
    let (mut parser, mut rest) = (Parser::default(), frames);
    while let Ok(Some(found)) = parser.find(rest) {
        let request = parser.request(rest, found);
        let treatment = topology.commands.find(&request).map(|spec| spec.treatment);
        if let Some(Treatment::Scripting(which)) = treatment {
            look(which, &request);
        }
        rest = rest.get(found.used..).unwrap_or_default();
    }
}

/// Waits and then sees to it that requests which are to go again find at their nodes what they run. Those that must not
/// go again are answered.
pub(super) async fn make_ready(
    router: Rc<Router>,
    lane: Rc<Lane>,
    affinity: usize,
    pause: Option<Duration>,
    bounced: Vec<Bounced>,
) -> Vec<Bounced> {
    if let Some(pause) = pause {
        tokio::time::sleep(pause).await;
    }
    let alone = bounced.len() == 1;
    let mut ready = Vec::with_capacity(bounced.len());
    for mut bounced in bounced {
        if bounced.envelope.traits.needs.scripts {
            let healed = matches!(bounced.why, Why::NoScript(..));
            if let Why::NoScript(node, error) = &bounced.why
                && !did_not_run(&router, node, &bounced.request).await
            {
                let error = error.clone();
                bounced.envelope.fill(&error);
                continue;
            }
            if let Some(link) = retry::link_for(&router, &lane, affinity, &bounced) {
                give(&router, link.node(), &bounced.request).await;
            }
            // Nothing overtakes what is on its way alone.
            bounced.envelope.traits.needs.reloads = alone && !healed;
        }
        ready.push(bounced);
    }
    ready
}

/// Loads the scripts that a request names at a node, by the proxy's own login: the client's may not be allowed to.
pub(super) async fn give(router: &Rc<Router>, node: &Arc<Node>, request: &[u8]) {
    load_at(router, node, &scripts_of(router, request)).await;
}

async fn load_at(router: &Rc<Router>, node: &Arc<Node>, scripts: &[Script]) {
    for script in scripts {
        router.scripts().all().give(script.sha, &node.label);
        let link = router.first_lane().link_to(router, node);
        let mut frame = Vec::new();
        script.encode_load(&mut frame);
        if let Err(why) = ask(router, &link, &frame).await {
            tracing::debug!("a script cannot be loaded at {}: {why}", node.label);
        }
    }
}

/// Gives a node that says NOSCRIPT what a request runs; false where that may be the word of a script that ran.
pub(super) async fn heal(router: &Rc<Router>, node: &Arc<Node>, request: &[u8]) -> bool {
    let reloads = did_not_run(router, node, request).await;
    if reloads {
        give(router, node, request).await;
    }
    reloads
}

/// Whether NOSCRIPT surely is the node's word and not that of a script which ran and ended in an error of that name.
async fn did_not_run(router: &Rc<Router>, node: &Arc<Node>, request: &[u8]) -> bool {
    let scripts = scripts_of(router, request);
    let [script] = scripts.as_slice() else { return false };
    let link = router.first_lane().link_to(router, node);
    let mut frame = Vec::new();
    write::request::<&[u8]>(&mut frame, &[b"SCRIPT", b"EXISTS", script.sha.digits()]);
    let reply = ask(router, &link, &frame).await.unwrap_or_default();
    let exists = Value::parse(&reply).ok().flatten().and_then(|(value, _)| value.items().first()?.integer());
    match exists {
        // It would be there.
        Some(0) => true,
        // Somebody has loaded it meanwhile; unless it was there.
        Some(1) => {
            let lately = script.makes_no_errors() || router.scripts().all().has_given(&script.sha, &node.label);
            lately && !contains(&script.text, b"NOSCRIPT") && !contains(request, b"NOSCRIPT")
        }
        _ => false,
    }
}

//! Requests on their way out: each plan carried out.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Flow, Session, apart,
    ask::ask,
    barrier::{Barrier, target_of},
    busy::Busy,
    called,
    caller::Caller,
    everywhere::{self, asks_first},
    gate::Gate,
    make_up, monitor, pause,
    permission::{self, Denial, is_judged_by_node},
    reads::ReadWay,
    scripts, server,
    transaction::aborted_for,
    work::Work,
};
use crate::{
    cluster::topology::{Node, Route, Topology},
    commands::{
        merge::Merge,
        plan::{self, Local, Plan, Split},
        scripts::Script,
        table::{Flags, Keys, Spec, Treatment, busy::WhenBusy, lost::WhenLost, treatment::Fold},
    },
    metrics::{Disconnect, Transaction as Ended, hot::Sample},
    protocol::{
        resp::{Request, write},
        slot::Slot,
    },
    upstream::{
        link::LARGEST_SHARED,
        router::Lane,
        ticket::{Envelope, Label, Needs, ReplySize, RequestTraits},
    },
};

impl Session {
    /// Answers a request or sends it on its way, unless it has to wait. `spec` is its row in the topology's table.
    pub(super) fn dispatch(&mut self, request: &Request<'_>, topology: &Topology, spec: Option<&Spec>) -> Flow {
        if self.caller.line.has_bounced() {
            return Flow::Settle;
        }
        if self.caller.line.is_full() {
            return Flow::Full;
        }
        if !self.barrier.is_at(self.caller.router.epoch()) {
            if !self.caller.line.is_settled() {
                return Flow::Settle;
            }
            self.barrier.follow(self.caller.router.epoch());
            self.listening.follow(&self.caller);
        }
        let router = self.caller.router.clone();
        if spec.is_none() && (request.is(0, "POST") || request.is(0, "HOST:")) {
            // As Redis does: some web page makes a browser talk to us.
            tracing::warn!(peer = %self.caller.client.peer(), "possible SECURITY ATTACK: HTTP from a client; its connection is closed");
            self.caller.router.tally().protocol_error("http");
            self.caller.line.close();
            self.busy = Busy::Ending(Disconnect::Protocol);
            return Flow::Taken;
        }
        if !matches!(self.caller.gate, Gate::Open)
            && let Some(flow) = self.stop_at_gate(spec)
        {
            return flow;
        }
        if spec.is_none()
            && topology.commands.is_open(request.name())
            && let Some(denial) = permission::denial_of_name(&mut self.front.judgment, request)
        {
            return self.denied(denial, None);
        }
        if let Some(error) = self.listening.forbids(&self.caller, request, spec) {
            let refused = self.may_not(request, spec);
            return refused.unwrap_or_else(|| self.reject(spec, error.as_bytes()));
        }
        let is_apart = router.clients().is_any_apart();
        if is_apart
            && router.clients().pause().is_on()
            && let Some(wait) = pause::wait_of(&self.caller, self.multi.queued(), request, spec)
        {
            self.busy = Busy::Paused(wait);
            return Flow::Held;
        }
        if let Some(spec) = spec {
            self.caller.client.says(self.caller.said().map_or(spec.metric, |said| said.command));
        }
        let policy = &router.settings().policy;
        let mut plan = match &self.caller.database {
            None => plan::plan(request, spec, policy),
            Some(inside) => inside.plan(request, spec, policy),
        };
        if let (Plan::Refuse(error), true) = (&plan, is_exec(spec)) {
            return self.reject(spec, error);
        }
        if (self.multi.is_open() || !is_judged_by_node(&plan))
            && let Some(flow) = self.may_not(request, spec)
        {
            return flow;
        }
        if self.multi.is_open() && !acts_at_once(&plan, spec) {
            return match self.multi.enqueue(&self.caller, request, spec, plan) {
                Ok(()) => self.answer(spec, b"+QUEUED\r\n"),
                Err(error) => self.refuse(spec, &error),
            };
        }
        if self.barrier.is_up() && self.barrier.holds(&plan, self.caller.line.is_settled()) {
            return Flow::Settle;
        }
        if self.barrier.is_strict()
            && self
                .barrier
                .holds_strictly(target_of(&self.caller, self.multi.queued(), &plan), self.caller.line.is_settled())
        {
            return Flow::Settle;
        }
        let way = self.way_to_read(&plan, spec);
        if matches!(way, ReadWay::Waits) {
            return Flow::Settle;
        }
        if apart::is_careful(&self.caller) {
            plan = match apart::goes_apart(&self.caller, self.listening.caching(), plan, request, spec) {
                Ok(work) => return Flow::work(work),
                Err(plan) => plan,
            };
            if self.caller.line.reply_size() != ReplySize::Small && !self.front.has_place() {
                match apart::place_for(&self.caller, &plan, self.multi.slot()) {
                    None => {}
                    Some(Ok(place)) => self.front.give_place(Some(place)),
                    Some(Err(admission)) => {
                        self.busy = Busy::Queueing(admission);
                        return Flow::Held;
                    }
                }
            }
        }
        // It has a connection to itself, and what is sent on others must not overtake it, nor be overtaken.
        let beside = spec.is_none() || request.frame().len() > LARGEST_SHARED;
        if beside && !self.caller.line.is_settled() {
            return Flow::Settle;
        }
        let flow = match way {
            ReadWay::AsEver | ReadWay::Waits => self.carry_out(plan, request, spec),
            ReadWay::Replica(lane, route) => self.read_at_replica(&lane, route, request, spec),
            ReadWay::Parts(lane, routes) => self.read_parts_at_replicas(&lane, &routes, plan, request, spec),
        };
        if is_apart && matches!(flow, Flow::Taken) {
            monitor::show(&self.caller, request, spec);
        }
        if beside && matches!(flow, Flow::Taken) {
            self.barrier.hold_behind(Route::Any);
        }
        if matches!(flow, Flow::Taken)
            && !self.multi.is_open()
            && let Some(tracking) = &mut self.listening.tracking
        {
            tracking.caching_is_over(spec);
        }
        flow
    }

    /// The end of a request that the client's user may not run, or that has to wait until a node has been asked; nothing
    /// where it goes on.
    fn may_not(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Option<Flow> {
        let denial = permission::denial(&mut self.front.judgment, &self.caller, request, spec?, self.multi.is_open())?;
        Some(self.denied(denial, spec))
    }

    fn denied(&mut self, denial: Denial, spec: Option<&Spec>) -> Flow {
        match denial {
            Denial::Refused(error) => self.reject(spec, &error),
            Denial::Unknown => Flow::Ask,
        }
    }

    /// Does what the plan says.
    pub(super) fn carry_out(&mut self, plan: Plan, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        match plan {
            plan if asks_first(&plan, spec) => Flow::work(Work::Everywhere(plan)),
            plan => self.carry_out_at_once(plan, request, spec),
        }
    }

    /// Does what the plan says, where all that has to be made sure of has been.
    pub(super) fn carry_out_at_once(&mut self, plan: Plan, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        match plan {
            Plan::One(slot) => self.forward(request, spec, Route::Slot(slot)),
            Plan::Any => {
                called::count_malformed(&self.caller.router, request, spec);
                self.forward(request, spec, Route::Any)
            }
            Plan::PubSub => self.forward(request, spec, Route::PubSub),
            Plan::Split(split) => {
                if self.caller.router.tally().sampler.is_due() {
                    sample(&self.caller, request, spec);
                }
                let envelope = self.open(request, spec, Route::Any);
                split
                    .parts
                    .iter()
                    .for_each(|part| self.barrier.guard(&self.caller.router, spec, Route::Slot(part.slot)));
                send_split(&self.caller, request, spec, &split, envelope);
                Flow::Taken
            }
            Plan::Primaries(fold) => {
                let mut envelope = self.open(request, spec, Route::Any);
                envelope.set_on_success(
                    permission::users_change(&self.caller, spec)
                        .or_else(|| called::counts_anew(&self.caller.router, spec)),
                );
                called::count_malformed(&self.caller.router, request, spec);
                send_to_primaries(&self.caller, &mut self.barrier, (request, spec), fold, &[], envelope);
                Flow::Taken
            }
            Plan::AnyRewritten(fold) => {
                called::count_malformed(&self.caller.router, request, spec);
                let envelope = self.open(request, spec, Route::Any);
                send_to_be_amended(&self.caller, request, fold, envelope);
                Flow::Taken
            }
            Plan::Refuse(error) => self.refuse(spec, &error),
            Plan::Local(local) => self.answer_locally(local, request, spec),
            Plan::Scripting(which, slot) => {
                let flow = self.script(which, slot, request, spec);
                if matches!(flow, Flow::Taken) {
                    called::count_malformed(&self.caller.router, request, spec);
                }
                flow
            }
            Plan::LongSplit(cut) => Flow::work(Work::SendLong(cut)),
            Plan::Scan(slot) => Flow::work(Work::Scan(slot)),
            Plan::Keys => Flow::work(Work::Keys),
            Plan::Blocking(blocking) => Flow::work(Work::Block(blocking)),
            Plan::AskServer => Flow::work(Work::ByServer),
            Plan::OutOfBand(fold) => Flow::work(Work::OutOfBand(fold)),
            Plan::Unchanged(error) => Flow::work(Work::ConfigAsItIs(error)),
            Plan::InTurn(requests) => Flow::work(Work::InTurn(requests)),
            Plan::CountsKeys => Flow::work(Work::CountKeys),
        }
    }

    /// Sends a request on as it came.
    pub(super) fn forward(&mut self, request: &Request<'_>, spec: Option<&Spec>, route: Route) -> Flow {
        if self.caller.router.tally().sampler.is_due() {
            sample(&self.caller, request, spec);
        }
        let envelope = self.open(request, spec, route);
        self.barrier.guard(&self.caller.router, spec, route);
        self.caller.send(request.frame(), envelope);
        Flow::Taken
    }

    /// Sends what only reads to a replica.
    fn read_at_replica(&mut self, lane: &Lane, route: Route, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        let envelope = self.open(request, spec, route);
        self.caller.router.tally().read_at_replica();
        lane.send(&self.caller.router, self.caller.affinity, request.frame(), envelope);
        Flow::Taken
    }

    /// Sends what only reads key by key in parts, those with a route to a replica.
    fn read_parts_at_replicas(
        &mut self,
        lane: &Lane,
        routes: &[Option<Route>],
        plan: Plan,
        request: &Request<'_>,
        spec: Option<&Spec>,
    ) -> Flow {
        let split = match plan {
            Plan::Split(split) => split,
            // Keys of one slot are one part: what it lacks, the primary is asked for as a whole.
            plan => match spec.and_then(|spec| plan::one_part(request, spec)) {
                Some(split) => Box::new(split),
                None => return self.carry_out(plan, request, spec),
            },
        };
        let envelope = self.open(request, spec, Route::Any);
        let mut frame = Vec::new();
        let parts = parts_of(&self.caller, request, spec, &split, envelope).into_iter().enumerate();
        for ((index, mut envelope), route) in parts.zip(routes) {
            envelope.traits.keys = split.keys_of(index).len() as u32;
            match route {
                Some(route) => {
                    frame.clear();
                    split.encode(index, request, &mut frame);
                    envelope.route = *route;
                    self.caller.router.tally().read_at_replica();
                    lane.send(&self.caller.router, self.caller.affinity, &frame, envelope);
                }
                None => {
                    self.barrier.guard(&self.caller.router, spec, Route::Slot(split.parts[index].slot));
                    send_part(&self.caller, &split, index, request, envelope, &mut frame);
                }
            }
        }
        Flow::Taken
    }

    /// What becomes of a request, as far as replicas are concerned.
    #[inline]
    fn way_to_read(&mut self, plan: &Plan, spec: Option<&Spec>) -> ReadWay {
        let Some(reads) = &mut self.reads else { return ReadWay::AsEver };
        let alone = self.multi.is_open() || self.multi.watch.is_some() || self.listening.tracking.is_some();
        reads.way(&self.caller, plan, spec, alone)
    }

    /// Opens the place of a request's reply, and says what the request is.
    pub(super) fn open(&mut self, request: &Request<'_>, spec: Option<&Spec>, route: Route) -> Envelope {
        let label = self.caller.said().unwrap_or_else(|| Label::of(spec));
        let ticket = self.caller.line.open(Some(label), request.frame().len(), route);
        let traits = RequestTraits {
            repeatable: spec.is_some_and(Spec::is_readonly),
            writes: spec.is_none_or(|spec| spec.is_write() || !spec.is_readonly() && spec.has_keys()),
            exclusive: spec.is_some_and(|spec| plan::is_echoed(request, spec)),
            unknown: spec.is_none(),
            caching: self.listening.caching(),
            needs: Needs::default(),
            keys: 0,
        };
        let mut envelope = Envelope::new(ticket, route, traits);
        if self.front.has_place() {
            envelope.hold(self.front.take_place());
        }
        envelope
    }

    /// Refuses what is not to be carried out at all. EXEC ends its transaction all the same, as in Redis.
    pub(super) fn reject(&mut self, spec: Option<&Spec>, error: &[u8]) -> Flow {
        if is_exec(spec) {
            self.multi.give_up(&self.caller, Ended::Aborted);
            return self.refuse(spec, &aborted_for(error));
        }
        self.refuse(spec, error)
    }

    /// Answers with an error of the proxy's own.
    pub(super) fn refuse(&mut self, spec: Option<&Spec>, error: &[u8]) -> Flow {
        self.multi.spoil();
        called::count_rejected(&self.caller.router, spec, error);
        self.answer(spec, &write::error_frame(error))
    }

    /// Answers a request on the spot.
    pub(super) fn answer(&self, spec: Option<&Spec>, reply: &[u8]) -> Flow {
        self.caller.line.answer(Label::of(spec), reply);
        Flow::Taken
    }
}

/// Sends each part of a split request to the owner of its slot.
pub(super) fn send_split(
    caller: &Caller,
    request: &Request<'_>,
    spec: Option<&Spec>,
    split: &Split,
    envelope: Envelope,
) {
    let mut frame = Vec::with_capacity(request.frame().len());
    for (index, envelope) in parts_of(caller, request, spec, split, envelope).into_iter().enumerate() {
        send_part(caller, split, index, request, envelope, &mut frame);
    }
}

/// The parts of a split request.
pub(super) fn parts_of(
    caller: &Caller,
    request: &Request<'_>,
    spec: Option<&Spec>,
    split: &Split,
    envelope: Envelope,
) -> Vec<Envelope> {
    called::count_parts(&caller.router, spec, split.parts.len().saturating_sub(1));
    let merge = Merge::of_split(split, written(spec), caller.speaks_resp3());
    let parts = envelope.split(merge, split.parts.len());
    if split.fold == Fold::KeyOrder
        && spec.is_some_and(Spec::is_readonly)
        && !caller.lane.is_private()
        && let Some(part) = parts.first()
    {
        part.ticket.may_go_again(Bytes::copy_from_slice(request.frame()));
    }
    parts
}

/// Sends one part of a request, written into `frame`.
pub(super) fn send_part(
    caller: &Caller,
    split: &Split,
    index: usize,
    request: &Request<'_>,
    mut envelope: Envelope,
    frame: &mut Vec<u8>,
) {
    frame.clear();
    split.encode(index, request, frame);
    envelope.route = Route::Slot(split.parts[index].slot);
    caller.send(frame, envelope);
}

/// Sends a request, and ahead of it the scripts that it names, to every primary that owns slots; and to the other nodes
/// where it concerns them.
pub(super) fn send_to_primaries(
    caller: &Caller,
    barrier: &mut Barrier,
    (request, spec): (&Request<'_>, Option<&Spec>),
    fold: Fold,
    named: &[Script],
    mut envelope: Envelope,
) {
    // It is about all that its nodes have, and part of it may have to go again: FLUSHALL, for one, must not find what
    // comes behind it.
    barrier.hold_behind(Route::Any);
    let topology = caller.router.topology().clone();
    let slots = topology.first_slots();
    if slots.is_empty() {
        envelope.route = Route::All;
        return caller.send(request.frame(), envelope);
    }
    let mut merge = Merge::new(fold, slots.len(), written(spec), caller.speaks_resp3());
    merge.know(server::facts(caller, fold));
    merge.keep_account(server::account_for(caller, fold, request));
    let asked = plan::all_entries(request, spec, fold);
    let when_lost = spec.map_or(WhenLost::Fails, |spec| scripts::when_lost(spec, request));
    if when_lost.is_spared() {
        merge.spare_lost();
    }
    let make_up = match spec.map(|spec| spec.when_busy) {
        Some(WhenBusy::Alike) => Some(everywhere::make_alike(&caller.router)),
        _ => (when_lost == WhenLost::MadeUp).then(|| make_up::make_up(caller, request)),
    };
    if make_up.is_some() {
        merge.follow();
    }
    let parts = envelope.split_among(merge, topology.owners().cloned().collect(), make_up);
    for (slot, mut envelope) in slots.iter().zip(parts) {
        // By slot, so that where the node fails, the one that takes its place answers.
        envelope.route = Route::Slot(*slot);
        scripts::send_ready(caller, named, asked.as_deref().unwrap_or(request.frame()), envelope);
    }
    tell_others(caller, request, spec);
}

/// Sends a request to the nodes without slots as well, where it concerns them. The client waits for the others alone:
/// one Redis has no replicas that could refuse.
pub(super) fn tell_others(caller: &Caller, request: &Request<'_>, spec: Option<&Spec>) {
    let Some(spec) = spec.filter(|spec| spec.replicas_too) else { return };
    let others: Vec<Arc<Node>> = {
        let topology = caller.router.topology();
        let owns = |node: &Arc<Node>| topology.owners().any(|owner| Arc::ptr_eq(owner, node));
        topology.nodes.iter().filter(|node| !owns(node)).cloned().collect()
    };
    for node in others {
        let (router, link) = (caller.router.clone(), caller.lane.link_to(&caller.router, &node));
        let (name, frame) = (spec.name.clone(), request.frame().to_vec());
        tokio::task::spawn_local(async move {
            let why = match ask(&router, &link, &frame).await {
                Ok(reply) if reply.first() != Some(&b'-') => return,
                // Its text may have a secret in it.
                Ok(_) => "it answered an error".to_owned(),
                Err(why) => why,
            };
            tracing::warn!(node = %node.label, "a replica is not like its primary: {name} failed ({why})");
        });
    }
}

/// Sends a request to any primary, whose reply is amended on its way back.
fn send_to_be_amended(caller: &Caller, request: &Request<'_>, fold: Fold, envelope: Envelope) {
    let mut merge = Merge::new(fold, 1, None, caller.speaks_resp3());
    merge.know(server::facts(caller, fold));
    for envelope in envelope.split(merge, 1) {
        caller.send(request.frame(), envelope);
    }
}

/// The name of a command that changes something: an error in one part of it has to say what the others did.
fn written(spec: Option<&Spec>) -> Option<&str> {
    spec.filter(|spec| spec.is_write() || spec.when_busy.asks_first()).map(|spec| &*spec.name)
}

fn is_exec(spec: Option<&Spec>) -> bool {
    spec.is_some_and(|spec| spec.treatment == Treatment::Local(Local::Exec))
}

/// Whether a command is carried out within MULTI, not queued.
fn acts_at_once(plan: &Plan, spec: Option<&Spec>) -> bool {
    use Local::{Discard, Exec, Multi, Quit, Reset, Watch};
    match plan {
        // Newer servers count these two against the transaction, as they do all that is not allowed within one.
        Plan::Local(Multi | Watch) => !spec.is_some_and(|spec| spec.flags.has(Flags::NO_MULTI)),
        Plan::Local(Exec | Discard | Quit | Reset) => true,
        _ => false,
    }
}

/// Counts one of a request's keys as asked for, for all requests since the last one that was.
#[cold]
fn sample(caller: &Caller, request: &Request<'_>, spec: Option<&Spec>) {
    let sampler = &caller.router.tally().sampler;
    let mut keys = Vec::new();
    let known = spec.is_some_and(|spec| spec.keys_of(request, &mut keys) == Keys::Known);
    let chosen = if known && !keys.is_empty() { keys.get(sampler.random() % keys.len()) } else { None };
    let sample = chosen.and_then(|at| request.get(*at)).zip(spec).map(|(key, spec)| Sample {
        key,
        keys: keys.len(),
        slot: Slot::of(key),
        writes: spec.is_write(),
        command: spec.metric,
    });
    sampler.take(sample);
}

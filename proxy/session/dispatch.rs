//! What becomes of a request, from its row to its way out: whether it may go, must wait, is queued or is carried out.

mod open;

use self::open::sample;
use super::{
    account::Account,
    apart,
    barrier::{Barrier, target_of},
    busy::Busy,
    called,
    caller::Caller,
    everywhere::asks_first,
    fan_out::{send_split, send_to_be_amended, send_to_primaries},
    front::Front,
    gate::Gate,
    listening::Listening,
    monitor, pause,
    permission::{self, Denial, is_judged_by_node},
    reads::{ReadWay, Reads},
    replies::Replies,
    transaction::{Multi, aborted_for},
    work::Work,
};
use crate::{
    cluster::{
        replication::ReadFrom,
        topology::{Route, Topology},
    },
    commands::{
        plan::{self, Local, MergeRule, Plan},
        scripts::Script,
        table::{Flags, Spec, Treatment, treatment::WithinMulti},
    },
    metrics::{Disconnect, Transaction as Ended},
    protocol::resp::{Request, write},
    upstream::{
        link::LARGEST_SHARED,
        ticket::{Envelope, ReplySize},
    },
};

/// Decides on a client's requests and carries them out: all that a session is but its connection.
pub(super) struct Dispatcher {
    pub(super) caller: Caller,
    /// What keeps requests in their order.
    pub(super) barrier: Barrier,
    pub(super) front: Front,
    pub(super) multi: Multi,
    /// The client's reads from replicas, where it wants them.
    pub(super) reads: Option<Box<Reads>>,
    /// Where it has said that it reads from.
    pub(super) reads_from: Option<ReadFrom>,
    /// Which of the operator's decisions about reads and order it goes by.
    settings_version: u32,
    /// What the client is told unasked.
    pub(super) listening: Listening,
    pub(super) account: Account,
    pub(super) replies: Replies,
}

/// What became of a request.
pub(super) enum Flow {
    /// The request has been answered or sent.
    Taken,
    /// The request has been answered, and the session ends for this reason.
    Ends(Disconnect),
    /// The request must wait until every earlier request has been answered.
    Settle,
    /// The request must wait until there is room.
    Full,
    /// The request must wait for what the session is busy with from now on.
    Waits(Box<Busy>),
    /// The request needs the session for itself, for this.
    Work(Box<Work>),
    /// The request must wait until a node has told whether the client's user may run it.
    Ask,
}

impl Flow {
    /// The request needs the session for itself.
    pub(super) fn work(work: Work) -> Flow {
        Flow::Work(Box::new(work))
    }

    /// Whether the request has been answered or sent.
    fn is_taken(&self) -> bool {
        matches!(self, Flow::Taken | Flow::Ends(_))
    }
}

impl Dispatcher {
    /// For a client that has just connected.
    pub(super) fn new(caller: Caller) -> Dispatcher {
        Dispatcher {
            barrier: Barrier::new(caller.router.epoch(), caller.router.settings().strict_order.get()),
            front: Front::default(),
            multi: Multi::default(),
            reads: Reads::as_chosen(&caller, None),
            reads_from: None,
            settings_version: caller.router.settings().version(),
            listening: Listening::default(),
            account: Account::default(),
            replies: Replies::default(),
            caller,
        }
    }

    /// Goes by what the operator has decided anew, once nothing is under way by the old.
    #[inline]
    pub(super) fn follow_operator(&mut self) {
        if self.settings_version != self.caller.router.settings().version() && self.caller.line.is_settled() {
            self.choose_anew();
        }
    }

    #[cold]
    fn choose_anew(&mut self) {
        let settings = self.caller.router.settings();
        self.settings_version = settings.version();
        self.barrier.be_strict(settings.strict_order.get());
        self.caller.line.allow(settings.client_window.get());
        self.reads = Reads::as_chosen(&self.caller, self.reads_from);
    }

    /// Answers a request or sends it on its way, unless it has to wait. `spec` is its row in the topology's table.
    pub(super) fn dispatch(&mut self, request: &Request<'_>, topology: &Topology, spec: Option<&Spec>) -> Flow {
        // Looked at once: nearly always it is not so.
        let is_any_apart = self.caller.router.clients().is_any_apart();
        if let Some(flow) = self.before_the_plan(request, topology, spec, is_any_apart) {
            return flow;
        }
        let policy = &self.caller.router.settings().policy;
        let plan = match &self.caller.database {
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
        if self.would_overtake(&plan) {
            return Flow::Settle;
        }
        let way = self.way_to_read(&plan, spec);
        if matches!(way, ReadWay::Waits) {
            return Flow::Settle;
        }
        if apart::is_careful(&self.caller)
            && let Some(flow) = self.keep_apart(&plan, request, spec)
        {
            return flow;
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
        if flow.is_taken() {
            if is_any_apart {
                monitor::show(&self.caller, request, spec);
            }
            self.note_taken(beside, spec);
        }
        flow
    }

    /// What becomes of a request whatever its plan is: it has to wait, or is refused for who asks and when. Nothing where it
    /// goes on.
    #[inline(always)]
    fn before_the_plan(
        &mut self,
        request: &Request<'_>,
        topology: &Topology,
        spec: Option<&Spec>,
        is_any_apart: bool,
    ) -> Option<Flow> {
        if self.caller.line.has_bounced() {
            return Some(Flow::Settle);
        }
        if self.caller.line.is_full() {
            return Some(Flow::Full);
        }
        if !self.barrier.is_at(self.caller.router.epoch()) {
            if !self.caller.line.is_settled() {
                return Some(Flow::Settle);
            }
            self.barrier.follow(self.caller.router.epoch());
            self.listening.follow(&self.caller);
        }
        if spec.is_none() && request.is_http() {
            return Some(self.close_on_http());
        }
        if !matches!(self.caller.gate, Gate::Open)
            && let Some(flow) = self.stop_at_gate(spec)
        {
            return Some(flow);
        }
        if spec.is_none()
            && topology.commands.is_open(request.name())
            && let Some(denial) = permission::denial_of_name(&mut self.front.judgment, request)
        {
            return Some(self.denied(denial, None));
        }
        if let Some(error) = self.listening.forbids(&self.caller, request, spec) {
            let refused = self.may_not(request, spec);
            return Some(refused.unwrap_or_else(|| self.reject(spec, error.as_bytes())));
        }
        if is_any_apart
            && self.caller.router.clients().pause().is_on()
            && let Some(wait) = pause::wait_of(&self.caller, self.multi.queued(), request, spec)
        {
            return Some(Flow::Waits(Box::new(Busy::Paused(wait))));
        }
        if let Some(spec) = spec {
            self.caller.client.says(self.caller.said().map_or(spec.metric, |said| said.command));
        }
        None
    }

    /// As Redis does: a browser may have been made to send this.
    #[cold]
    fn close_on_http(&mut self) -> Flow {
        tracing::warn!(peer = %self.caller.client.peer(), "possible SECURITY ATTACK: HTTP from a client; its connection is closed");
        self.caller.router.tally().protocol_error("http");
        self.caller.line.close();
        Flow::Ends(Disconnect::Protocol)
    }

    /// Whether a request must wait for those ahead of it, since it could overtake one.
    #[inline(always)]
    fn would_overtake(&mut self, plan: &Plan) -> bool {
        let Dispatcher { caller, barrier, multi, .. } = self;
        barrier.is_up() && barrier.holds(plan, caller.line.is_settled())
            || barrier.is_strict()
                && barrier.holds_strictly(target_of(caller, multi.queued(), plan), caller.line.is_settled())
    }

    /// What becomes of a request whose reply is likely to be large, or may be; nothing where it goes on.
    #[inline(always)]
    fn keep_apart(&mut self, plan: &Plan, request: &Request<'_>, spec: Option<&Spec>) -> Option<Flow> {
        if let Some(work) = apart::goes_apart(&self.caller, self.listening.caching(), plan, request, spec) {
            return Some(Flow::work(work));
        }
        if self.caller.line.reply_size() == ReplySize::Small || self.front.has_place() {
            return None;
        }
        match apart::place_for(&self.caller, plan, self.multi.slot())? {
            Ok(place) => {
                self.front.give_place(Some(place));
                None
            }
            Err(admission) => Some(Flow::Waits(Box::new(Busy::Queueing(admission)))),
        }
    }

    /// A request has been answered or sent: what follows from that for those behind it.
    #[inline(always)]
    fn note_taken(&mut self, beside: bool, spec: Option<&Spec>) {
        if beside {
            self.barrier.hold_behind(Route::Any);
        }
        if !self.multi.is_open()
            && let Some(tracking) = &mut self.listening.tracking
        {
            tracking.caching_is_over(spec);
        }
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
                let envelope = self.open_split(request, spec);
                split
                    .parts
                    .iter()
                    .for_each(|part| self.barrier.guard(&self.caller.router, spec, Route::Slot(part.slot)));
                send_split(&self.caller, request, spec, &split, envelope);
                Flow::Taken
            }
            Plan::Primaries(rule) => {
                let mut envelope = self.open(request, spec, Route::Any);
                envelope.set_on_success(
                    permission::users_change(&self.caller, spec)
                        .or_else(|| called::counts_anew(&self.caller.router, spec)),
                );
                called::count_malformed(&self.caller.router, request, spec);
                self.send_to_all(request, spec, rule, &[], envelope);
                Flow::Taken
            }
            Plan::AnyRewritten(rule) => {
                called::count_malformed(&self.caller.router, request, spec);
                let envelope = self.open(request, spec, Route::Any);
                send_to_be_amended(&self.caller, request, rule, envelope);
                Flow::Taken
            }
            Plan::Refuse(error) => self.refuse(spec, &error),
            Plan::Local(local) => self.answer_locally(local, request, spec),
            Plan::Scripting(which, slot) => {
                let flow = self.script(which, slot, request, spec);
                if flow.is_taken() {
                    called::count_malformed(&self.caller.router, request, spec);
                }
                flow
            }
            Plan::LongSplit(cut) => Flow::work(Work::SendLong(cut)),
            Plan::Scan(slot) => Flow::work(Work::Scan(slot)),
            Plan::Keys => Flow::work(Work::Keys),
            Plan::Blocking(blocking) => Flow::work(Work::Block(blocking)),
            Plan::AskServer => Flow::work(Work::ByServer),
            Plan::OutOfBand(rule) => Flow::work(Work::OutOfBand(rule)),
            Plan::Unchanged(error) => Flow::work(Work::ConfigAsItIs(error)),
            Plan::InTurn(requests) => Flow::work(Work::InTurn(requests)),
            Plan::CountsKeys => Flow::work(Work::CountKeys),
        }
    }

    /// Sends a request to every primary: see [`send_to_primaries`].
    pub(super) fn send_to_all(
        &mut self,
        request: &Request<'_>,
        spec: Option<&Spec>,
        rule: MergeRule,
        named: &[Script],
        envelope: Envelope,
    ) {
        send_to_primaries(&self.caller, &mut self.barrier, (request, spec), rule, named, envelope);
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
}

fn is_exec(spec: Option<&Spec>) -> bool {
    spec.is_some_and(|spec| spec.treatment == Treatment::Local(Local::Exec))
}

/// Whether a command is carried out within MULTI, not queued.
fn acts_at_once(plan: &Plan, spec: Option<&Spec>) -> bool {
    let Plan::Local(local) = plan else { return false };
    match local.within_multi() {
        WithinMulti::ActsAtOnce => true,
        // Newer servers count it against the transaction, as they do all that is not allowed within one.
        WithinMulti::IsRefused => !spec.is_some_and(|spec| spec.flags.has(Flags::NO_MULTI)),
        WithinMulti::IsQueued => false,
    }
}

#[cfg(test)]
mod tests;

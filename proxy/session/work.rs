//! Work that needs the session for itself: nothing is in flight, and nothing else is dispatched meanwhile.

use std::{pin::pin, rc::Rc};

use bytes::Bytes;

use super::{
    Session, apart,
    ask::{BUSY_PATIENCE, out_of_band, plan_by_server},
    attend::Eof,
    blocking, called,
    caller::Caller,
    database,
    dispatch::Dispatcher,
    everywhere, keys,
    listening::Listening,
    login, monitor,
    proxy::{self, OneNode},
    scan, scripts, server,
    subscriber::TopicKind,
    transaction::try_multi,
    wait::{self, Wait},
    watch,
};
use crate::{
    cluster::topology::Route,
    commands::{
        plan::{Blocking, LongSplit, MergeRule, Plan, Scripting, Split},
        table::{OwnedSpec, Spec},
    },
    protocol::{
        resp::{Request, request::OwnedRequest, write},
        slot::Slot,
    },
    upstream::ticket::{Envelope, Label},
};

const OK: Bytes = Bytes::from_static(b"+OK\r\n");

/// What is to be done for one request alone; what [`Dispatcher::dispatch`] has found out about it comes along.
pub(super) enum Work {
    /// HELLO: the lane may change.
    Hello,
    /// AUTH: the lane may change.
    Auth,
    /// SELECT: the lane may change.
    Select,
    /// RESET: the lane may change.
    Reset,
    /// The first MULTI of a lane whose user may not be allowed to use it.
    Multi,
    /// EXEC on a connection of the session's own.
    Exec,
    /// WATCH.
    Watch,
    /// WAIT: what was written counts once it has been answered.
    Wait,
    /// WAITAOF, for the same reason.
    WaitAof,
    /// SUBSCRIBE and the like: no message may come before the confirmation, nor that before earlier replies.
    Subscribe(TopicKind),
    /// UNSUBSCRIBE and the like, for the same reason.
    Unsubscribe(TopicKind),
    /// MONITOR, for the same reason.
    Monitor,
    /// CLIENT TRACKING: the lane may change.
    Tracking,
    /// A command that may wait.
    Block(Blocking),
    /// A request whose reply is likely to be large; what it has to do with scripts.
    Stream(Option<Slot>, Option<Scripting>),
    /// A split request whose reply is likely to be large.
    StreamParts(Rc<Split>),
    /// A request of very many keys.
    SendLong(Box<LongSplit>),
    /// A command that changes all nodes: they are asked first whether they listen.
    Everywhere(Plan),
    /// A request for every primary, on connections that a running script does not block.
    OutOfBand(MergeRule),
    /// SCAN.
    Scan(Option<Slot>),
    /// KEYS.
    Keys,
    /// PROXY NODE.
    OneNode,
    /// PROXY RELOAD: the main thread reads the configuration.
    Reload,
    /// CONFIG SET of parameters that must not change: OK where they have these values already, else this error.
    ConfigAsItIs(Vec<u8>),
    /// Other requests instead, one after the other.
    InTurn(Vec<(Slot, Vec<u8>)>),
    /// INFO, once keys have been counted.
    CountKeys,
    /// SCRIPT SHOW and EXISTS of a client that may not load what the proxy remembers.
    AskOfScripts { all_nodes: bool },
    /// A request whose keys only the server can find.
    ByServer,
}

/// When MONITOR shows a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MonitorTiming {
    /// Before it is carried out: what scripts call is shown behind the scripts.
    Before,
    /// When it is done, with the connection as it is then. A command that the client may not use is not shown.
    After,
    /// Its handler shows it.
    ByItself,
}

impl Work {
    fn shown(&self) -> MonitorTiming {
        match self {
            Work::Exec => MonitorTiming::ByItself,
            Work::Hello
            | Work::Auth
            | Work::Select
            | Work::Reset
            | Work::Multi
            | Work::Watch
            | Work::Wait
            | Work::WaitAof
            | Work::Subscribe(_)
            | Work::Unsubscribe(_)
            | Work::Monitor
            | Work::Tracking
            | Work::OneNode
            | Work::Reload => MonitorTiming::After,
            Work::Block(_)
            | Work::Stream(..)
            | Work::StreamParts(_)
            | Work::SendLong(_)
            | Work::Everywhere(_)
            | Work::OutOfBand(_)
            | Work::Scan(_)
            | Work::Keys
            | Work::ConfigAsItIs(_)
            | Work::InTurn(_)
            | Work::CountKeys
            | Work::AskOfScripts { .. }
            | Work::ByServer => MonitorTiming::Before,
        }
    }
}

/// One request that has the session for itself.
pub(super) struct Job<'a> {
    pub(super) session: &'a mut Session,
    pub(super) request: &'a Request<'a>,
    pub(super) spec: Option<&'a Spec>,
}

/// Does the work that a request needs, and gives the client the reply. `spec` is the row by which that was decided.
pub(super) async fn carry_out(session: &mut Session, work: Work, request: &OwnedRequest, spec: Option<OwnedSpec>) {
    let (request, spec) = (&request.as_request(), spec.as_ref().map(OwnedSpec::as_spec));
    let shown = work.shown();
    if shown == MonitorTiming::Before {
        monitor::show(&session.dispatcher.caller, request, spec);
    }
    let reply = Job { session, request, spec }.run(work).await;
    let dispatcher = &mut session.dispatcher;
    if shown == MonitorTiming::After && !reply.as_ref().is_some_and(|reply| reply.starts_with(b"-NOPERM ")) {
        monitor::show(&dispatcher.caller, request, spec);
    }
    if let Some(reply) = reply {
        dispatcher.answer(spec, &reply);
    }
    let Dispatcher { multi, listening, .. } = dispatcher;
    if !multi.is_open()
        && let Some(tracking) = &mut listening.tracking
    {
        tracking.caching_is_over(spec);
    }
}

impl<'a> Job<'a> {
    pub(super) fn caller(&self) -> &Caller {
        &self.session.dispatcher.caller
    }

    pub(super) fn listening(&mut self) -> &mut Listening {
        &mut self.session.dispatcher.listening
    }

    /// Opens the place of the request's reply.
    pub(super) fn open(&mut self, route: Route) -> Envelope {
        self.session.dispatcher.open(self.request, self.spec, route)
    }

    /// Leads from each kind of work to its handler. `None`: the client has gone, or has its reply already.
    pub(super) async fn run(&mut self, work: Work) -> Option<Bytes> {
        match work {
            Work::Hello => {
                let Dispatcher { caller, listening, .. } = &mut self.session.dispatcher;
                Some(login::hello(caller, listening, self.request).await)
            }
            Work::Auth => {
                let Dispatcher { caller, listening, .. } = &mut self.session.dispatcher;
                Some(login::auth(caller, listening, self.request).await)
            }
            Work::Select => {
                let Dispatcher { caller, listening, .. } = &mut self.session.dispatcher;
                let reply = login::select(caller, listening, self.request);
                let _ = self.await_tracking().await?;
                Some(reply)
            }
            Work::Reset => Some(self.session.dispatcher.reset()),
            Work::Multi => self.begin_multi_if_allowed().await,
            Work::Exec => self.exec().await,
            Work::Watch => self.watch().await,
            Work::Wait => self.wait(Wait::for_replicas(self.request)).await,
            Work::WaitAof => self.wait(Wait::for_disks(self.request)).await,
            Work::Subscribe(kind) => self.change_subscriptions(kind, true).await,
            Work::Unsubscribe(kind) => self.change_subscriptions(kind, false).await,
            Work::Monitor => self.begin_monitor().await,
            Work::Tracking => self.set_tracking(self.request).await,
            Work::Block(blocking) => self.block(blocking).await,
            Work::Stream(slot, scripting) => self.stream_one(slot, scripting).await,
            Work::StreamParts(split) => self.stream_parts(&split).await,
            Work::SendLong(cut) => self.send_long(*cut).await,
            Work::Everywhere(plan) => self.change_all(plan).await,
            Work::OutOfBand(rule) => self.ask_out_of_band(rule).await,
            Work::Scan(slot) => Some(scan::scan(self.caller(), self.request, slot).await),
            Work::Keys => self.stream_keys().await,
            Work::OneNode => self.ask_one_node().await,
            Work::Reload => {
                let reloading = proxy::reload(self.caller().clone());
                self.session.attend_to(pin!(reloading), Eof::Waits).await
            }
            Work::ConfigAsItIs(error) => Some(server::config_as_it_is(self.caller(), self.request, &error).await),
            Work::InTurn(requests) => {
                let asking = database::in_turn(self.caller().clone(), requests);
                self.session.attend_to(pin!(asking), Eof::Waits).await
            }
            Work::CountKeys => self.tell_of_keys().await,
            Work::AskOfScripts { all_nodes } => self.ask_of_scripts(all_nodes).await,
            Work::ByServer => self.carry_out_by_server().await,
        }
    }

    /// The first MULTI of a lane: a node is asked whether its user may use it.
    async fn begin_multi_if_allowed(&mut self) -> Option<Bytes> {
        let trying = try_multi(self.caller().clone());
        if let Err(refused) = self.session.attend_to(pin!(trying), Eof::Waits).await? {
            return Some(refused);
        }
        let Dispatcher { caller, multi, .. } = &mut self.session.dispatcher;
        caller.lane.set_may_multi();
        multi.begin(caller, self.request);
        Some(OK)
    }

    async fn watch(&mut self) -> Option<Bytes> {
        let Dispatcher { caller, multi, .. } = &mut self.session.dispatcher;
        let watching = watch::watch(caller.clone(), multi.watch.take(), self.request, self.spec);
        let (reply, watch) = self.session.attend_to(pin!(watching), Eof::Waits).await?;
        self.session.dispatcher.multi.watch = watch;
        Some(reply)
    }

    /// WAIT and WAITAOF; where it is malformed, a node says how.
    async fn wait(&mut self, wait: Option<Wait>) -> Option<Bytes> {
        match wait {
            Some(wait) => {
                let waiting = wait.run(self.caller().clone());
                self.session.attend_wait(pin!(waiting)).await
            }
            None => Some(wait::server_says(self.caller(), self.request).await),
        }
    }

    async fn begin_monitor(&mut self) -> Option<Bytes> {
        if self.listening().monitor.is_some() {
            // Redis does not answer a second MONITOR.
            return Some(Bytes::new());
        }
        let beginning = monitor::begin(self.caller().clone());
        match self.session.attend_to(pin!(beginning), Eof::Lingers).await? {
            Ok(monitor) => {
                self.listening().monitor = Some(monitor);
                Some(OK)
            }
            Err(error) => Some(error),
        }
    }

    /// A command that may wait, until it is served or its client leaves.
    async fn block(&mut self, blocking: Blocking) -> Option<Bytes> {
        if self.spec.is_some_and(Spec::is_readonly) {
            self.listening().reads_untracked();
        }
        let waiting = blocking::run(self.caller().clone(), self.request, self.spec, blocking);
        let reply = self.session.attend_wait(pin!(waiting)).await?;
        self.session.deliver(Label::of(self.spec), reply, Eof::IsNoted).await;
        None
    }

    /// A request whose reply is likely to be large, by a connection of its own.
    async fn stream_one(&mut self, slot: Option<Slot>, scripting: Option<Scripting>) -> Option<Bytes> {
        let place = self.session.dispatcher.front.take_place();
        let mut envelope = self.open(slot.map_or(Route::Any, Route::Slot));
        let (caller, request) = (self.caller().clone(), self.request);
        if let Some(which) = scripting {
            scripts::prepare(&caller, which, request, &mut envelope);
        }
        let work = async |envelope: &mut Envelope| apart::pass_on(caller, slot, place, request, envelope).await;
        self.session.stream(envelope, work, Eof::IsNoted).await;
        None
    }

    /// What changes all nodes, once all of them listen; else the error of one that does not.
    async fn change_all(&mut self, plan: Plan) -> Option<Bytes> {
        let deaf = everywhere::deaf(self.caller().router.clone(), self.spec);
        if let Some(error) = self.session.attend_to(pin!(deaf), Eof::Waits).await? {
            return Some(error);
        }
        let _ = self.session.dispatcher.carry_out_at_once(plan, self.request, self.spec);
        None
    }

    async fn ask_out_of_band(&mut self, rule: MergeRule) -> Option<Bytes> {
        let caller = self.caller().clone();
        called::count_malformed(&caller.router, self.request, self.spec);
        let asking = out_of_band(&caller, self.request, rule, BUSY_PATIENCE);
        self.session.attend_to(pin!(asking), Eof::Waits).await
    }

    async fn stream_keys(&mut self) -> Option<Bytes> {
        let envelope = self.open(Route::Any);
        let (caller, request) = (self.caller().clone(), self.request);
        let work = async |envelope: &mut Envelope| keys::pass_on(caller, request, &envelope.ticket).await;
        self.session.stream(envelope, work, Eof::Waits).await;
        None
    }

    /// INFO, with what there is in each of the client's databases.
    async fn tell_of_keys(&mut self) -> Option<Bytes> {
        let counting = database::count_keys(self.caller().clone());
        if let Err(error) = self.session.attend_to(pin!(counting), Eof::Waits).await? {
            return Some(error);
        }
        let _ = self.session.dispatcher.carry_out_at_once(Plan::Primaries(MergeRule::Info), self.request, self.spec);
        None
    }

    /// PROXY NODE: the node's own reply.
    async fn ask_one_node(&mut self) -> Option<Bytes> {
        let caller = self.caller().clone();
        let found = self.session.attend_to(pin!(OneNode::find(&caller, self.request)), Eof::Waits).await?;
        let reply = match found {
            Ok(command) => {
                let eof = if command.waits { Eof::Leaves } else { Eof::Waits };
                self.session.attend_to(pin!(command.run(caller)), eof).await?
            }
            Err(error) => Err(error),
        };
        reply.unwrap_or_else(|error| Some(write::error_frame(&error)))
    }

    /// A request whose keys a server has to find; by then its command may be known.
    async fn carry_out_by_server(&mut self) -> Option<Bytes> {
        let plan = plan_by_server(self.caller(), self.request).await;
        let topology = self.caller().router.topology().clone();
        let _ = self.session.dispatcher.carry_out(plan, self.request, topology.commands.find(self.request));
        None
    }
}

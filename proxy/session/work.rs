//! Work that needs the session for itself: nothing is in flight, and nothing else is dispatched meanwhile.

use std::pin::pin;

use bytes::Bytes;

use super::{
    Session, apart,
    ask::{BUSY_PATIENCE, out_of_band, plan_by_server},
    attend::Eof,
    blocking, called, database, everywhere, keys, login, monitor,
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
        plan::{Blocking, Fold, LongSplit, Plan, Scripting, Split},
        table::Spec,
    },
    protocol::{
        resp::{Request, request::OwnedRequest, write},
        slot::Slot,
    },
    upstream::ticket::{Envelope, Label},
};

const OK: Bytes = Bytes::from_static(b"+OK\r\n");

/// What is to be done for one request alone; what [`Session::dispatch`] has found out about it comes along.
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
    StreamParts(Box<Split>),
    /// A request of very many keys.
    SendLong(Box<LongSplit>),
    /// What changes all nodes: they are asked first whether they listen.
    Everywhere(Plan),
    /// To every primary, past what runs there.
    OutOfBand(Fold),
    /// SCAN.
    Scan(Option<Slot>),
    /// KEYS.
    Keys,
    /// PROXY NODE.
    OneNode,
    /// PROXY RELOAD: the main thread reads the configuration.
    Reload,
    /// CONFIG SET of what is not to change: done where it is so already, else this error.
    ConfigAsItIs(Vec<u8>),
    /// Other requests instead, one after the other.
    InTurn(Vec<(Slot, Vec<u8>)>),
    /// INFO, once keys have been counted.
    CountKeys,
    /// SCRIPT SHOW and EXISTS of a client that may not load what the proxy remembers.
    AskOfScripts(Scripting),
    /// A request whose keys only the server can find.
    ByServer,
}

/// When MONITOR shows a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MonitorTiming {
    /// Before it is carried out: what scripts call is shown behind the scripts.
    Before,
    /// When it is done: with the connection as it then is, and not where the client may not say it.
    After,
    /// Whoever carries it out sees to that.
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
            | Work::AskOfScripts(_)
            | Work::ByServer => MonitorTiming::Before,
        }
    }
}

impl Session {
    /// Does the work that a request needs, and gives the client the reply.
    pub(super) async fn work(&mut self, request: OwnedRequest, work: Work) {
        let request = request.as_request();
        let topology = self.caller.router.topology().clone();
        let spec = topology.commands.find(&request);
        let shown = work.shown();
        if shown == MonitorTiming::Before {
            monitor::show(&self.caller, &request, spec);
        }
        let reply = self.do_work(work, &request, spec).await;
        if shown == MonitorTiming::After && !reply.as_ref().is_some_and(|reply| reply.starts_with(b"-NOPERM ")) {
            monitor::show(&self.caller, &request, spec);
        }
        if let Some(reply) = reply {
            self.caller.line.answer(Label::of(spec), &reply);
        }
        if !self.multi.is_open()
            && let Some(tracking) = &mut self.listening.tracking
        {
            tracking.caching_is_over(spec);
        }
    }

    /// The one way from work to its handler. Where there is no reply, the client has gone or has been given it.
    async fn do_work(&mut self, work: Work, request: &Request<'_>, spec: Option<&Spec>) -> Option<Bytes> {
        match work {
            Work::Hello => Some(login::hello(&mut self.caller, &mut self.listening, request).await),
            Work::Auth => Some(login::auth(&mut self.caller, &mut self.listening, request).await),
            Work::Select => {
                let reply = login::select(&mut self.caller, &mut self.listening, request);
                let _ = self.await_tracking().await?;
                Some(reply)
            }
            Work::Reset => Some(self.reset()),
            Work::Multi => self.begin_multi_if_allowed(request).await,
            Work::Exec => self.exec_by_dedicated(request, spec).await,
            Work::Watch => self.watch(request, spec).await,
            Work::Wait => self.wait(Wait::for_replicas(request), request).await,
            Work::WaitAof => self.wait(Wait::for_disks(request), request).await,
            Work::Subscribe(kind) => self.change_subscriptions(kind, true, request).await,
            Work::Unsubscribe(kind) => self.change_subscriptions(kind, false, request).await,
            Work::Monitor => self.begin_monitor().await,
            Work::Tracking => self.set_tracking(request).await,
            Work::Block(blocking) => self.block(blocking, request, spec).await,
            Work::Stream(slot, scripting) => self.stream_one(slot, scripting, request, spec).await,
            Work::StreamParts(split) => self.stream_parts(&split, request, spec).await,
            Work::SendLong(split) => self.send_long(*split, request, spec).await,
            Work::Everywhere(plan) => self.change_all(plan, request, spec).await,
            Work::OutOfBand(fold) => self.ask_out_of_band(fold, request, spec).await,
            Work::Scan(slot) => Some(scan::scan(&self.caller, request, slot).await),
            Work::Keys => self.stream_keys(request, spec).await,
            Work::OneNode => self.ask_one_node(request).await,
            Work::Reload => self.attend_to(pin!(proxy::reload(self.caller.clone())), Eof::Waits).await,
            Work::ConfigAsItIs(error) => Some(server::config_as_it_is(&self.caller, request, &error).await),
            Work::InTurn(requests) => {
                let asking = database::in_turn(self.caller.clone(), requests);
                self.attend_to(pin!(asking), Eof::Waits).await
            }
            Work::CountKeys => self.tell_of_keys(request, spec).await,
            Work::AskOfScripts(which) => self.ask_of_scripts(which, request, spec).await,
            Work::ByServer => self.carry_out_by_server(request).await,
        }
    }

    /// The first MULTI of a lane: a node is asked whether its user may use it.
    async fn begin_multi_if_allowed(&mut self, request: &Request<'_>) -> Option<Bytes> {
        if let Err(refused) = self.attend_to(pin!(try_multi(self.caller.clone())), Eof::Waits).await? {
            return Some(refused);
        }
        self.caller.lane.set_may_multi();
        self.multi.begin(&self.caller, request);
        Some(OK)
    }

    async fn watch(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Option<Bytes> {
        let watching = watch::watch(self.caller.clone(), self.multi.watch.take(), request, spec);
        let (reply, watch) = self.attend_to(pin!(watching), Eof::Waits).await?;
        self.multi.watch = watch;
        Some(reply)
    }

    /// WAIT and WAITAOF; where it is malformed, a node says how.
    async fn wait(&mut self, wait: Option<Wait>, request: &Request<'_>) -> Option<Bytes> {
        match wait {
            Some(wait) => self.attend_wait(pin!(wait.run(self.caller.clone()))).await,
            None => Some(wait::server_says(&self.caller, request).await),
        }
    }

    async fn begin_monitor(&mut self) -> Option<Bytes> {
        if self.listening.monitor.is_some() {
            // Redis does not answer this one.
            return Some(Bytes::new());
        }
        match self.attend_to(pin!(monitor::begin(self.caller.clone())), Eof::Lingers).await? {
            Ok(monitor) => {
                self.listening.monitor = Some(monitor);
                Some(OK)
            }
            Err(error) => Some(error),
        }
    }

    /// A command that may wait, until it is served or its client leaves.
    async fn block(&mut self, blocking: Blocking, request: &Request<'_>, spec: Option<&Spec>) -> Option<Bytes> {
        if spec.is_some_and(Spec::is_readonly) {
            self.listening.reads_untracked();
        }
        let waiting = blocking::run(self.caller.clone(), request, spec, blocking);
        let reply = self.attend_wait(pin!(waiting)).await?;
        self.deliver(Label::of(spec), reply, Eof::IsNoted).await;
        None
    }

    /// A request whose reply is likely to be large, by a connection of its own.
    async fn stream_one(
        &mut self,
        slot: Option<Slot>,
        scripting: Option<Scripting>,
        request: &Request<'_>,
        spec: Option<&Spec>,
    ) -> Option<Bytes> {
        let place = self.front.take_place();
        let mut envelope = self.open(request, spec, slot.map_or(Route::Any, Route::Slot));
        if let Some(which) = scripting {
            scripts::prepare(&self.caller, which, request, &mut envelope);
        }
        let caller = self.caller.clone();
        let work = async |envelope: &mut Envelope| apart::pass_on(caller, slot, place, request, envelope).await;
        self.stream(envelope, work, Eof::IsNoted).await;
        None
    }

    /// What changes all nodes, once all of them listen; else the error of one that does not.
    async fn change_all(&mut self, plan: Plan, request: &Request<'_>, spec: Option<&Spec>) -> Option<Bytes> {
        let deaf = everywhere::deaf(self.caller.router.clone(), spec);
        if let Some(error) = self.attend_to(pin!(deaf), Eof::Waits).await? {
            return Some(error);
        }
        let _ = self.carry_out_at_once(plan, request, spec);
        None
    }

    async fn ask_out_of_band(&mut self, fold: Fold, request: &Request<'_>, spec: Option<&Spec>) -> Option<Bytes> {
        called::count_malformed(&self.caller.router, request, spec);
        let caller = self.caller.clone();
        let asking = out_of_band(&caller, request, fold, BUSY_PATIENCE);
        self.attend_to(pin!(asking), Eof::Waits).await
    }

    async fn stream_keys(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Option<Bytes> {
        let (envelope, caller) = (self.open(request, spec, Route::Any), self.caller.clone());
        let work = async |envelope: &mut Envelope| keys::pass_on(caller, request, &envelope.ticket).await;
        self.stream(envelope, work, Eof::Waits).await;
        None
    }

    /// INFO, with what there is in each of the client's databases.
    async fn tell_of_keys(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Option<Bytes> {
        let counting = database::count_keys(self.caller.clone());
        if let Err(error) = self.attend_to(pin!(counting), Eof::Waits).await? {
            return Some(error);
        }
        let _ = self.carry_out_at_once(Plan::Primaries(Fold::Info), request, spec);
        None
    }

    /// PROXY NODE: the node's own reply.
    async fn ask_one_node(&mut self, request: &Request<'_>) -> Option<Bytes> {
        let caller = self.caller.clone();
        let found = self.attend_to(pin!(OneNode::find(&caller, request)), Eof::Waits).await?;
        let reply = match found {
            Ok(command) => {
                let eof = if command.waits { Eof::Leaves } else { Eof::Waits };
                self.attend_to(pin!(command.run(caller)), eof).await?
            }
            Err(error) => Err(error),
        };
        reply.unwrap_or_else(|error| Some(write::error_frame(&error)))
    }

    /// A request whose keys a server has to find; by then its command may be known.
    async fn carry_out_by_server(&mut self, request: &Request<'_>) -> Option<Bytes> {
        let plan = plan_by_server(&self.caller, request).await;
        let topology = self.caller.router.topology().clone();
        let _ = self.carry_out(plan, request, topology.commands.find(request));
        None
    }
}

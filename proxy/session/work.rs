//! Work that needs the session for itself: nothing is in flight, and nothing else is dispatched meanwhile.

use std::pin::pin;

use bytes::Bytes;

use super::{
    Session, apart,
    ask::{BUSY_PATIENCE, out_of_band, plan_by_server},
    attend::Eof,
    blocking, called, everywhere, keys, login, monitor,
    proxy::OneNode,
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
    /// AUTH: likewise.
    Auth,
    /// SELECT: likewise.
    Select,
    /// RESET: likewise.
    Reset,
    /// The first MULTI of a lane whose user may not be allowed to use it.
    Multi,
    /// EXEC on a connection of the session's own.
    Exec,
    /// WATCH.
    Watch,
    /// WAIT: what was written counts once it has been answered.
    Wait,
    /// WAITAOF: likewise.
    WaitAof,
    /// SUBSCRIBE and the like: no message may come before the confirmation, nor that before earlier replies.
    Subscribe(TopicKind),
    /// UNSUBSCRIBE and the like: likewise.
    Unsubscribe(TopicKind),
    /// MONITOR: likewise.
    Monitor,
    /// CLIENT TRACKING: the lane may change.
    Tracking,
    /// A command that may wait.
    Block(Blocking),
    /// A request whose reply is likely to be large; what it has to do with scripts.
    Stream(Option<Slot>, Option<Scripting>),
    /// Likewise, of several slots.
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
    /// CONFIG SET of what is not to change: done where it is so already, else this error.
    ConfigAsItIs(Vec<u8>),
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
            | Work::OneNode => MonitorTiming::After,
            Work::Block(_)
            | Work::Stream(..)
            | Work::StreamParts(_)
            | Work::SendLong(_)
            | Work::Everywhere(_)
            | Work::OutOfBand(_)
            | Work::Scan(_)
            | Work::Keys
            | Work::ConfigAsItIs(_)
            | Work::AskOfScripts(_)
            | Work::ByServer => MonitorTiming::Before,
        }
    }
}

impl Session {
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

    /// WAIT and WAITAOF; a node says what is wrong with what is none.
    async fn wait(&mut self, wait: Option<Wait>, request: &Request<'_>) -> Option<Bytes> {
        match wait {
            Some(wait) => self.attend_wait(pin!(wait.run(self.caller.clone()))).await,
            None => Some(wait::server_says(&self.caller, request).await),
        }
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

    /// Where there is no reply, the client has gone or has been given it.
    async fn do_work(&mut self, work: Work, request: &Request<'_>, spec: Option<&Spec>) -> Option<Bytes> {
        match work {
            Work::Hello => return Some(login::hello(&mut self.caller, &mut self.listening, request).await.into()),
            Work::Auth => return Some(login::auth(&mut self.caller, &mut self.listening, request).await.into()),
            Work::Select => return Some(login::select(&mut self.caller, &mut self.listening, request).into()),
            Work::Reset => {
                self.reset();
                return Some(Bytes::from_static(b"+RESET\r\n"));
            }
            Work::Multi => {
                if let Err(refused) = self.attend_to(pin!(try_multi(self.caller.clone())), Eof::Waits).await? {
                    return Some(refused);
                }
                self.caller.lane.set_may_multi();
                self.multi.begin(&self.caller, request);
                return Some(OK);
            }
            Work::Exec => self.exec_alone(request, spec).await,
            Work::Watch => {
                let watching = watch::watch(self.caller.clone(), self.multi.watch.take(), request, spec);
                let (reply, watch) = self.attend_to(pin!(watching), Eof::Waits).await?;
                self.multi.watch = watch;
                return Some(reply);
            }
            Work::Wait => return self.wait(Wait::for_replicas(request), request).await,
            Work::WaitAof => return self.wait(Wait::for_disks(request), request).await,
            Work::Subscribe(kind) => return self.change_subscriptions(kind, true, request).await,
            Work::Unsubscribe(kind) => return self.change_subscriptions(kind, false, request).await,
            // Redis does not answer this one.
            Work::Monitor if self.listening.monitor.is_some() => return Some(Bytes::new()),
            Work::Monitor => match self.attend_to(pin!(monitor::begin(self.caller.clone())), Eof::Lingers).await? {
                Ok(monitor) => {
                    self.listening.monitor = Some(monitor);
                    return Some(OK);
                }
                Err(error) => return Some(error),
            },
            Work::Tracking => return self.set_tracking(request).await.map(Bytes::from),
            Work::Block(blocking) => {
                if spec.is_some_and(Spec::is_readonly) {
                    self.listening.reads_untracked();
                }
                let waiting = blocking::run(self.caller.clone(), request, spec, blocking);
                let reply = self.attend_wait(pin!(waiting)).await?;
                self.deliver(Label::of(spec), reply, Eof::IsNoted).await;
            }
            Work::Stream(slot, which) => {
                let place = self.front.take_place();
                let mut envelope = self.open(request, spec, slot.map_or(Route::Any, Route::Slot));
                if let Some(which) = which {
                    scripts::prepare(&self.caller, which, request, &mut envelope);
                }
                let caller = self.caller.clone();
                let work = async |envelope: &mut Envelope| apart::pass_on(caller, slot, place, request, envelope).await;
                self.stream(envelope, work, Eof::IsNoted).await;
            }
            Work::StreamParts(split) => self.stream_parts(&split, request, spec).await,
            Work::SendLong(cut) => self.send_long(*cut, request, spec).await,
            Work::Everywhere(plan) => {
                let deaf = everywhere::deaf(self.caller.router.clone(), spec);
                if let Some(error) = self.attend_to(pin!(deaf), Eof::Waits).await? {
                    return Some(error);
                }
                let _ = self.carry_out_at_once(plan, request, spec);
            }
            Work::OutOfBand(fold) => {
                called::count_malformed(&self.caller.router, request, spec);
                let caller = self.caller.clone();
                let asking = out_of_band(&caller, request, fold, BUSY_PATIENCE);
                return self.attend_to(pin!(asking), Eof::Waits).await;
            }
            Work::Scan(slot) => return Some(scan::scan(&self.caller, request, slot).await.into()),
            Work::Keys => {
                let (envelope, caller) = (self.open(request, spec, Route::Any), self.caller.clone());
                let work = async |envelope: &mut Envelope| keys::pass_on(caller, request, &envelope.ticket).await;
                self.stream(envelope, work, Eof::Waits).await;
            }
            Work::OneNode => return self.ask_one_node(request).await,
            Work::ConfigAsItIs(error) => {
                return Some(server::config_as_it_is(&self.caller, request, &error).await.into());
            }
            Work::AskOfScripts(which) => self.ask_of_scripts(which, request, spec).await,
            Work::ByServer => {
                let plan = plan_by_server(&self.caller, request).await;
                // By now the command may be known.
                let topology = self.caller.router.topology().clone();
                let _ = self.carry_out(plan, request, topology.commands.find(request));
            }
        }
        None
    }
}

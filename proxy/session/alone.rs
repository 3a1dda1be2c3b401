//! Work that needs the session for itself: nothing is in flight, and nothing else is dispatched meanwhile.

use bytes::Bytes;

use super::{Session, ask::BUSY_PATIENCE, called, monitor, scan, server, subscriber::Kind};
use crate::{
    commands::{
        plan::{Blocking, Cut, Fold, Plan, Scripting, Split},
        table::Spec,
    },
    protocol::{
        resp::{Request, request::OwnedRequest},
        slot::Slot,
    },
    upstream::ticket::Label,
};

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
    /// SUBSCRIBE and its kin: no message may come before the confirmation, nor that before earlier replies.
    Subscribe(Kind),
    /// UNSUBSCRIBE and its kin: likewise.
    Unsubscribe(Kind),
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
    SendLong(Box<Cut>),
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
enum Shown {
    /// Before it is carried out: what scripts call is shown behind the scripts.
    Before,
    /// When it is done: with the connection as it then is, and not where the client may not say it.
    After,
    /// Whoever carries it out sees to that.
    ByItself,
}

impl Work {
    fn shown(&self) -> Shown {
        match self {
            Work::Exec => Shown::ByItself,
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
            | Work::OneNode => Shown::After,
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
            | Work::ByServer => Shown::Before,
        }
    }
}

impl Session {
    pub(super) async fn alone(&mut self, request: OwnedRequest, work: Work) {
        let request = request.as_request();
        let topology = self.caller.router.topology().clone();
        let spec = topology.commands.find(&request);
        let shown = work.shown();
        if shown == Shown::Before {
            monitor::show(&self.caller, &request, spec);
        }
        let reply = self.do_alone(work, &request, spec).await;
        if shown == Shown::After && !reply.as_ref().is_some_and(|reply| reply.starts_with(b"-NOPERM ")) {
            monitor::show(&self.caller, &request, spec);
        }
        if let Some(reply) = reply {
            self.caller.line.answer(Label::of(spec), &reply);
        }
        self.caching_is_over(spec);
    }

    /// Where there is no reply, the client has gone or has been given it.
    async fn do_alone(&mut self, work: Work, request: &Request<'_>, spec: Option<&Spec>) -> Option<Bytes> {
        match work {
            Work::Hello => return Some(self.hello(request).await.into()),
            Work::Auth => return Some(self.auth(request).await.into()),
            Work::Select => return Some(self.select(request).into()),
            Work::Reset => {
                self.reset();
                return Some(Bytes::from_static(b"+RESET\r\n"));
            }
            Work::Multi => return self.first_multi(request).await,
            Work::Exec => self.exec_alone(request, spec).await,
            Work::Watch => return self.watch(request, spec).await,
            Work::Wait => return self.wait(request).await,
            Work::WaitAof => return self.wait_aof(request).await,
            Work::Subscribe(kind) => return self.subscribe(kind, request).await,
            Work::Unsubscribe(kind) => return self.unsubscribe(kind, request).await,
            Work::Monitor => return self.start_monitor().await,
            Work::Tracking => return self.set_tracking(request).await.map(Bytes::from),
            Work::Block(blocking) => self.block(request, spec, blocking).await,
            Work::Stream(slot, which) => self.stream_apart(slot, which, request, spec).await,
            Work::StreamParts(split) => self.stream_parts(&split, request, spec).await,
            Work::SendLong(cut) => self.send_long(*cut, request, spec).await,
            Work::Everywhere(plan) => self.everywhere(plan, request, spec).await,
            Work::OutOfBand(fold) => {
                called::count_malformed(&self.caller.router, request, spec);
                return self.out_of_band(request, fold, BUSY_PATIENCE).await;
            }
            Work::Scan(slot) => return Some(scan::scan(&self.caller, request, slot).await.into()),
            Work::Keys => self.keys(request, spec).await,
            Work::OneNode => return self.one_node(request).await,
            Work::ConfigAsItIs(error) => {
                return Some(server::config_as_it_is(&self.caller, request, &error).await.into());
            }
            Work::AskOfScripts(which) => self.ask_of_scripts(which, request, spec).await,
            Work::ByServer => self.forward_by_server(request).await,
        }
        None
    }
}

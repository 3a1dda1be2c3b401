//! Requests that need the session for themselves: nothing is in flight, and nothing else is dispatched meanwhile.

use bytes::Bytes;

use super::{Session, ask::BUSY_PATIENCE, everywhere::asks_first, subscriber::Kind};
use crate::{
    command::treatment::{Local, Proxy},
    plan::{self, Plan},
    resp::{request::OwnedRequest, write},
    ticket::Label,
};

impl Session {
    pub(super) async fn alone(&mut self, request: OwnedRequest) {
        let request = request.as_request();
        let topology = self.router.topology().clone();
        let spec = topology.commands.find(&request);
        let plan = plan::plan(&request, spec, &self.router.settings().policy);
        // A connection is shown as it then is; what scripts call is shown behind the scripts.
        let is_local = matches!(plan, Plan::Local(_));
        if !is_local {
            self.show(&request, spec);
        }
        if matches!(plan, Plan::Aside(_)) {
            self.count_malformed(&request, spec);
        }
        // Where there is no reply, the client has gone or has been given it.
        let reply: Option<Bytes> = match plan {
            Plan::Local(Local::Hello) => Some(self.hello(&request).await.into()),
            Plan::Local(Local::Auth) => Some(self.auth(&request).await.into()),
            Plan::Local(Local::Select) => Some(self.select(&request).into()),
            Plan::Local(Local::Reset) => {
                self.reset();
                Some(Bytes::from_static(b"+RESET\r\n"))
            }
            Plan::Local(Local::Multi) => self.first_multi(&request).await,
            Plan::Local(Local::Exec) => {
                self.exec_alone(&request, spec).await;
                return self.caching_is_over(spec);
            }
            Plan::Local(Local::Watch) if let Some(spec) = spec => self.watch(&request, spec).await,
            Plan::Local(Local::Wait) => self.wait(&request).await,
            Plan::Local(Local::Waitaof) => self.wait_aof(&request).await,
            Plan::Aside(fold) => self.aside(&request, fold, BUSY_PATIENCE).await,
            Plan::Blocking(blocking) => {
                self.block(&request, spec, blocking).await;
                None
            }
            Plan::Local(Local::Subscribe) => self.subscribe(Kind::Channel, &request).await,
            Plan::Local(Local::Psubscribe) => self.subscribe(Kind::Pattern, &request).await,
            Plan::Local(Local::Ssubscribe) => self.subscribe(Kind::Shard, &request).await,
            Plan::Local(Local::Unsubscribe) => self.unsubscribe(Kind::Channel, &request).await,
            Plan::Local(Local::Punsubscribe) => self.unsubscribe(Kind::Pattern, &request).await,
            Plan::Local(Local::Sunsubscribe) => self.unsubscribe(Kind::Shard, &request).await,
            Plan::One(slot) => {
                self.stream_apart(slot, &request, spec).await;
                None
            }
            Plan::Split(split) => {
                self.stream_parts(&split, &request, spec).await;
                None
            }
            plan if asks_first(&plan, spec) => return self.everywhere(plan, &request, spec).await,
            Plan::Scan(slot) => Some(self.scan(&request, slot).await.into()),
            Plan::Keys => {
                self.keys(&request, spec).await;
                None
            }
            Plan::Local(Local::Proxy(Proxy::Node)) => self.one_node(&request).await,
            Plan::Local(Local::Monitor) => self.start_monitor().await,
            Plan::Local(Local::Client(_)) => self.set_tracking(&request).await.map(Bytes::from),
            Plan::Unchanged(error) => Some(self.config_as_it_is(&request, &error).await.into()),
            Plan::Scripting(which, _) => return self.ask_of_scripts(which, &request, spec).await,
            Plan::AskServer => return self.forward_by_server(&request).await,
            _ => {
                let mut reply = Vec::new();
                write::error(&mut reply, b"ERR proxy: not served yet");
                Some(reply.into())
            }
        };
        if is_local && !reply.as_ref().is_some_and(|reply| reply.starts_with(b"-NOPERM ")) {
            self.show(&request, spec);
        }
        if let Some(reply) = reply {
            self.line.answer(Label::of(spec), &reply);
        }
        self.caching_is_over(spec);
    }
}

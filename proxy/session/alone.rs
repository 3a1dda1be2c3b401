//! Requests that need the session for themselves: nothing is in flight, and nothing else is dispatched meanwhile.

use super::{Session, subscriber::Kind};
use crate::{
    command::treatment::Local,
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
        let reply = match plan {
            Plan::Local(Local::Hello) => self.hello(&request).await,
            Plan::Local(Local::Auth) => self.auth(&request).await,
            Plan::Local(Local::Select) => self.select(&request),
            Plan::Local(Local::Reset) => {
                self.reset();
                b"+RESET\r\n".to_vec()
            }
            Plan::Local(Local::Subscribe) => self.subscribe(Kind::Channel, &request).await,
            Plan::Local(Local::Psubscribe) => self.subscribe(Kind::Pattern, &request).await,
            Plan::Local(Local::Ssubscribe) => self.subscribe(Kind::Shard, &request).await,
            Plan::Local(Local::Unsubscribe) => self.unsubscribe(Kind::Channel, &request).await,
            Plan::Local(Local::Punsubscribe) => self.unsubscribe(Kind::Pattern, &request).await,
            Plan::Local(Local::Sunsubscribe) => self.unsubscribe(Kind::Shard, &request).await,
            Plan::Local(Local::Monitor) => self.start_monitor().await,
            Plan::Scan(slot) => self.scan(&request, slot).await,
            Plan::AskServer => return self.forward_by_server(&request).await,
            Plan::Blocking(blocking) => match self.block(&request, spec, blocking).await {
                Some(reply) => return self.line.answer(Label::of(spec), &reply),
                None => return,
            },
            _ => {
                let mut reply = Vec::new();
                write::error(&mut reply, b"ERR proxy: not served yet");
                reply
            }
        };
        self.line.answer(Label::of(spec), &reply);
    }
}

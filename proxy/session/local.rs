//! Commands that the proxy answers itself, since they are about the connection and not about data.

use std::sync::atomic::Ordering::Relaxed;

use super::{Flow, Session, alone::Work, called, subscriber::Kind};
use crate::{
    clients::{About, Mark},
    commands::table::{Spec, treatment::Local},
    metrics::Disconnect,
    protocol::{
        resp::{Request, write},
        says,
        slot::Slot,
    },
};

impl Session {
    pub(super) fn answer_locally(&mut self, local: Local, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        match local {
            Local::Ping => self.ping(request, spec),
            Local::Echo => self.answer_with(spec, |out| write::bulk(out, request.arg(1))),
            Local::Quit => {
                self.ending = Some(Disconnect::Quit);
                self.answer(spec, b"+OK\r\n")
            }
            // Whoever sends these knows of the cluster; behind the proxy they change nothing.
            Local::Readonly | Local::Readwrite | Local::Asking => self.answer(spec, b"+OK\r\n"),
            Local::ClusterKeyslot => {
                self.answer_with(spec, |out| write::integer(out, Slot::of(request.arg(2)).index() as i64))
            }
            Local::Multi => self.multi(request, spec),
            Local::Exec => self.exec(request, spec),
            Local::Discard => self.discard(spec),
            Local::Watch if self.transaction.is_some() => self.answer_error(spec, says::WATCH_IN_MULTI),
            Local::Watch => Flow::alone(Work::Watch),
            Local::Unwatch => {
                self.unwatch();
                self.answer(spec, b"+OK\r\n")
            }
            Local::Client(sub) => self.client_command(sub, request, spec),
            // What changes the lane waits until nothing is in flight on the old one.
            Local::Hello => Flow::alone(Work::Hello),
            Local::Auth => Flow::alone(Work::Auth),
            Local::Select => Flow::alone(Work::Select),
            Local::Reset => Flow::alone(Work::Reset),
            Local::Subscribe => Flow::alone(Work::Subscribe(Kind::Channel)),
            Local::Psubscribe => Flow::alone(Work::Subscribe(Kind::Pattern)),
            Local::Ssubscribe => Flow::alone(Work::Subscribe(Kind::Shard)),
            Local::Unsubscribe => Flow::alone(Work::Unsubscribe(Kind::Channel)),
            Local::Punsubscribe => Flow::alone(Work::Unsubscribe(Kind::Pattern)),
            Local::Sunsubscribe => Flow::alone(Work::Unsubscribe(Kind::Shard)),
            Local::Monitor => Flow::alone(Work::Monitor),
            Local::Wait => Flow::alone(Work::Wait),
            Local::Waitaof => Flow::alone(Work::WaitAof),
            Local::AclWhoami => {
                let user = self.caller.client.about().user.clone();
                self.answer_with(spec, |out| write::bulk(out, user.as_bytes()))
            }
            Local::Proxy(sub) => self.proxy_command(sub, request, spec),
        }
    }

    fn ping(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        match request.get(1) {
            Some(_) if request.len() > 2 => self.answer_error(spec, &says::wrong_arity("ping")),
            message if self.only_subscribes() => self.answer_with(spec, |out| {
                write::array(out, 2);
                write::bulk(out, b"pong");
                write::bulk(out, message.unwrap_or_default());
            }),
            Some(message) => self.answer_with(spec, |out| write::bulk(out, message)),
            None => self.answer(spec, b"+PONG\r\n"),
        }
    }

    /// Answers with what `write` writes.
    pub(super) fn answer_with(&self, spec: Option<&Spec>, write: impl FnOnce(&mut Vec<u8>)) -> Flow {
        let mut reply = Vec::new();
        write(&mut reply);
        self.answer(spec, &reply)
    }

    /// RESET: as if the client had just connected.
    pub(super) fn reset(&mut self) {
        if let Some(transaction) = self.take_transaction() {
            called::count_not_called(&self.caller.router, &transaction);
        }
        self.watch = None;
        self.drop_subscriptions();
        self.monitor = None;
        self.end_tracking();
        for mark in [Mark::NoEvict, Mark::NoTouch] {
            self.caller.client.mark(mark, false);
        }
        self.caller.line.mute.reset();
        self.caller.authenticated = self.caller.router.settings().client_credentials.is_none();
        self.caller.lane = self.caller.router.first_lane();
        self.caller.user = self.caller.router.own_user().clone();
        self.caller.client.resp.store(2, Relaxed);
        self.caller.client.database.store(0, Relaxed);
        *self.caller.client.about() = About { user: "default".to_owned(), ..About::default() };
    }
}

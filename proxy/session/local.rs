//! Commands that the proxy answers itself, since they are about the connection and not about data.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::{
    caller::Caller,
    client, cluster_view,
    dispatch::{Dispatcher, Flow},
    gate::Gate,
    listening::Listening,
    proxy,
    reads::Reads,
    replies::ReplyMode,
    subscriber::TopicKind,
    work::Work,
};
use crate::{
    clients::{About, Mark},
    cluster::replication::ReadFrom,
    commands::table::{
        Spec,
        treatment::{Local, ProxyCommand},
    },
    metrics::{Disconnect, Transaction as Ended},
    protocol::{
        resp::{Request, write},
        says,
        slot::Slot,
    },
};

/// What the proxy itself says to a request.
pub(super) enum Answer {
    Reply(Bytes),
    /// An error, by which the request counts as refused.
    Refused(Bytes),
    /// Which replies the client wants from now on.
    Replies(ReplyMode),
    /// The reply comes once this has been done.
    Work(Work),
}

impl Answer {
    /// `+OK`
    pub(super) const OK: Answer = Answer::Reply(Bytes::from_static(b"+OK\r\n"));

    /// What `write` writes.
    pub(super) fn with(write: impl FnOnce(&mut Vec<u8>)) -> Answer {
        let mut reply = Vec::new();
        write(&mut reply);
        Answer::Reply(reply.into())
    }

    /// An error of this text.
    pub(super) fn refused(error: impl AsRef<[u8]>) -> Answer {
        Answer::Refused(Bytes::copy_from_slice(error.as_ref()))
    }
}

impl Dispatcher {
    pub(super) fn answer_locally(&mut self, local: Local, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        match local {
            Local::Ping => self.say(ping(&self.caller, &self.listening, request), spec),
            Local::Echo => self.say(Answer::with(|out| write::bulk(out, request.arg(1))), spec),
            Local::Quit => {
                self.answer(spec, b"+OK\r\n");
                Flow::Ends(Disconnect::Quit)
            }
            // A client that sends these knows of the cluster.
            Local::Readonly => self.read_from(ReadFrom::Replica, spec),
            Local::Readwrite => self.read_from(ReadFrom::Primary, spec),
            Local::Asking => self.answer(spec, b"+OK\r\n"),
            Local::ClusterKeyslot if self.caller.is_in_no_cluster() => self.refuse(spec, says::NO_CLUSTER.as_bytes()),
            Local::ClusterKeyslot => {
                let slot = Slot::of(request.arg(2)).index();
                self.say(Answer::with(|out| write::integer(out, slot as i64)), spec)
            }
            Local::ClusterView(view) => self.say(cluster_view::answer(&self.caller, view, request), spec),
            Local::Multi => self.begin_multi(request, spec),
            Local::Exec => self.exec(request, spec),
            Local::Discard if !self.multi.is_open() => self.answer_error(spec, says::DISCARD_WITHOUT_MULTI),
            Local::Discard => {
                self.multi.give_up(&self.caller, Ended::Discarded);
                self.answer(spec, b"+OK\r\n")
            }
            Local::Watch if self.multi.is_open() => self.answer_error(spec, says::WATCH_IN_MULTI),
            Local::Watch => Flow::work(Work::Watch),
            Local::Unwatch => {
                self.multi.unwatch(&self.caller);
                self.answer(spec, b"+OK\r\n")
            }
            Local::Client(sub) => {
                let (usage, tracking) = (self.usage_with(request), &mut self.listening.tracking);
                let answer = client::answer(&self.caller, tracking, &usage, sub, request);
                self.account.count_names(&self.caller, &self.listening);
                let flow = self.say(answer, spec);
                if self.caller.client.has(Mark::Closing) { Flow::Ends(Disconnect::Killed) } else { flow }
            }
            // What changes the lane waits until nothing is in flight on the old one.
            Local::Hello => Flow::work(Work::Hello),
            Local::Auth => Flow::work(Work::Auth),
            Local::Select => Flow::work(Work::Select),
            Local::Reset => Flow::work(Work::Reset),
            Local::Subscribe => Flow::work(Work::Subscribe(TopicKind::Channel)),
            Local::Psubscribe => Flow::work(Work::Subscribe(TopicKind::Pattern)),
            Local::Ssubscribe => Flow::work(Work::Subscribe(TopicKind::Shard)),
            Local::Unsubscribe => Flow::work(Work::Unsubscribe(TopicKind::Channel)),
            Local::Punsubscribe => Flow::work(Work::Unsubscribe(TopicKind::Pattern)),
            Local::Sunsubscribe => Flow::work(Work::Unsubscribe(TopicKind::Shard)),
            Local::Monitor => Flow::work(Work::Monitor),
            Local::Wait => Flow::work(Work::Wait),
            Local::Waitaof => Flow::work(Work::WaitAof),
            Local::AclWhoami => {
                let user = self.caller.client.about().user.clone();
                self.say(Answer::with(|out| write::bulk(out, user.as_bytes())), spec)
            }
            Local::CountPatterns => {
                let count = self.caller.router.clients().patterns.count(self.caller.databases.scope());
                self.say(Answer::with(|out| write::integer(out, count as i64)), spec)
            }
            Local::ForgetScripts => {
                self.caller.router.scripts().all().forget(self.caller.databases.scope());
                self.answer(spec, b"+OK\r\n")
            }
            Local::Proxy(ProxyCommand::Reads) => match ReadFrom::named(request.arg(2)) {
                Some(from) => self.read_from(from, spec),
                None => self.answer_error(spec, says::READ_FROM),
            },
            Local::Proxy(sub) => self.say(proxy::answer(&self.caller, sub, request), spec),
        }
    }

    fn say(&mut self, answer: Answer, spec: Option<&Spec>) -> Flow {
        match answer {
            Answer::Reply(reply) => self.answer(spec, &reply),
            Answer::Refused(error) => self.refuse(spec, &error),
            Answer::Replies(mode) => {
                self.replies.set(mode);
                match mode {
                    ReplyMode::On => self.answer(spec, b"+OK\r\n"),
                    ReplyMode::Off | ReplyMode::Skip => Flow::Taken,
                }
            }
            Answer::Work(work) => Flow::work(work),
        }
    }

    /// From now on the client reads from `from`.
    fn read_from(&mut self, from: ReadFrom, spec: Option<&Spec>) -> Flow {
        self.reads_from = Some(from);
        self.reads = Reads::from(&self.caller, from);
        self.answer(spec, b"+OK\r\n")
    }

    /// RESET: as if the client had just connected.
    pub(super) fn reset(&mut self) -> Bytes {
        self.multi.drop_queued(&self.caller);
        self.multi.watch = None;
        self.listening.drop_subscriptions(&self.caller);
        self.listening.monitor = None;
        self.listening.end_tracking(&mut self.caller);
        for mark in [Mark::NoEvict, Mark::NoTouch] {
            self.caller.client.mark(mark, false);
        }
        self.replies.reset();
        self.reads_from = None;
        self.reads = Reads::as_chosen(&self.caller, None);
        self.caller.gate = Gate::at_first(self.caller.router.asks_who(self.caller.listener()));
        self.caller.databases = self.caller.listeners_databases();
        self.caller.lane = self.caller.router.first_lane();
        self.caller.user = self.caller.router.own_user().clone();
        self.caller.client.resp.store(2, Relaxed);
        self.caller.client.database.store(0, Relaxed);
        self.caller.enter_database(0);
        *self.caller.client.about() = About { user: "default".to_owned(), ..About::default() };
        Bytes::from_static(b"+RESET\r\n")
    }
}

/// The answer to PING.
fn ping(caller: &Caller, listening: &Listening, request: &Request<'_>) -> Answer {
    match request.get(1) {
        Some(_) if request.len() > 2 => Answer::Reply(write::error_frame(says::wrong_arity("ping"))),
        message if listening.only_subscribes(caller) => Answer::with(|out| {
            write::array(out, 2);
            write::bulk(out, b"pong");
            write::bulk(out, message.unwrap_or_default());
        }),
        Some(message) => Answer::with(|out| write::bulk(out, message)),
        None => Answer::Reply(Bytes::from_static(b"+PONG\r\n")),
    }
}

//! A request on its way: where it goes, what it is, and the ticket that answers it.
//!
//! The request's bytes travel beside the envelope and are never copied for it: they stand in the session's input first, then
//! in the link's queue. Only a request that has come back ([`Bounced`]) owns them.

use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::{Duty, Gather, MakeUp, Ticket};
use crate::{
    cluster::{
        recovery::Why,
        topology::{Node, Route},
    },
    commands::{
        merge::{Merge, MergeRule},
        scripts::Script,
        table::OwnedSpec,
    },
    metrics::{RequestClass, spans::Span},
    protocol::slot::Slot,
    upstream::doubt,
};

/// A request on its way, or one part of it, without its bytes.
#[derive(Debug)]
pub struct Envelope {
    /// The duty to answer it.
    pub ticket: Ticket,
    /// Where it goes.
    pub route: Route,
    /// How often it has been sent again.
    pub tries: u8,
    /// What it is.
    pub traits: RequestTraits,
    /// How many replies come before the one that answers: the rest are those of a transaction's commands.
    pub replies_before: u32,
    extras: Option<Box<Extras>>,
}

/// What distinguishes a request on its way. All parts of a split one have the same, but for the number of their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestTraits {
    /// The request only reads, so that it may be sent once more though it may have run.
    pub repeatable: bool,
    /// The request may write, so that WAIT is about it.
    pub writes: bool,
    /// The server may answer it by bytes that the client chose: nothing follows it before it is answered.
    pub exclusive: bool,
    /// Nothing is known of its command, which may change the connection that it goes by, or end it.
    pub unknown: bool,
    /// Whether the node is to remember the keys that it reads.
    pub caching: Caching,
    /// What it runs.
    pub needs: Needs,
    /// How many keys it has, where a replica's reply tells of each whether it is there; 0: it has one at most.
    pub keys: u32,
}

/// What a request runs that its node may lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Scripts that it names by their digests, and whose texts are known.
    pub scripts: bool,
    /// Functions.
    pub functions: bool,
    /// Nothing of its session that could overtake it is under way, so that it may go again where its script is missing.
    pub reloads: bool,
}

/// Whether the node is to remember which keys are read (CLIENT CACHING).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caching {
    /// By the mode of the connection's tracking.
    #[default]
    AsEver,
    /// Remembered (CLIENT CACHING YES, mode OPTIN).
    Yes,
    /// Not remembered (CLIENT CACHING NO, mode OPTOUT).
    No,
}

/// What few requests have: boxed, so that envelopes are small.
#[derive(Default)]
struct Extras {
    on_success: Option<OnSuccess>,
    /// The place that it takes among the requests whose replies may be large, until the reply has begun.
    admission: Cell<Option<OwnedSemaphorePermit>>,
    for_all: Option<ForAll>,
}

/// The plan of a request that goes to every primary, and waits until there are any.
#[derive(Debug)]
pub struct ForAll {
    /// The row of its command.
    pub spec: Option<OwnedSpec>,
    /// How their replies become one.
    pub rule: MergeRule,
    /// The scripts that go ahead of it.
    pub scripts: Vec<Script>,
}

/// What is to be done once a node has answered a request with anything but an error.
pub struct OnSuccess(Box<dyn FnOnce()>);

/// A request that came back, with the duty to answer it.
#[derive(Debug)]
pub struct Bounced {
    /// What it is, and the duty.
    pub envelope: Envelope,
    /// The request's bytes: its frame, or the frames of a transaction.
    pub request: Bytes,
    /// Why it came back.
    pub why: Why,
}

impl Caching {
    /// What has to stand right in front of the request.
    pub fn prefix(self) -> &'static [u8] {
        match self {
            Caching::AsEver => b"",
            Caching::Yes => b"*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$3\r\nYES\r\n",
            Caching::No => b"*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$2\r\nNO\r\n",
        }
    }
}

impl OnSuccess {
    /// `act`, to be done once the request has succeeded.
    pub fn new(act: impl FnOnce() + 'static) -> OnSuccess {
        OnSuccess(Box::new(act))
    }

    /// Does it.
    pub fn act(self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Extras {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "on success: {}", self.on_success.is_some())
    }
}

impl RequestTraits {
    /// Under which class its duration at the node is counted.
    pub fn class(&self) -> RequestClass {
        match (self.writes, self.repeatable) {
            (true, _) => RequestClass::Write,
            (false, true) => RequestClass::Read,
            (false, false) => RequestClass::Other,
        }
    }
}

impl Bounced {
    /// Gives the request back to its session once more, for the same reason.
    pub fn bounce(self) {
        self.envelope.bounce(self.request, self.why);
    }
}

impl Envelope {
    /// A request for `route`, which `ticket` answers.
    pub fn new(ticket: Ticket, route: Route, traits: RequestTraits) -> Envelope {
        Envelope { ticket, route, tries: 0, traits, replies_before: 0, extras: None }
    }

    /// Sets what is to be done once the request has succeeded.
    pub fn set_on_success(&mut self, act: Option<OnSuccess>) {
        if act.is_some() || self.extras.is_some() {
            self.extras.get_or_insert_default().on_success = act;
        }
    }

    /// No node serves the request yet: this is what it goes by once there are some.
    pub fn wait_for_all(&mut self, plan: ForAll) {
        self.extras.get_or_insert_default().for_all = Some(plan);
    }

    /// What the request goes by, where it waits for every primary.
    pub fn take_for_all(&mut self) -> Option<ForAll> {
        self.extras.as_mut()?.for_all.take()
    }

    /// The request holds this place among the few requests at a node whose replies may be large, until it is answered or
    /// [`Envelope::release`]s it.
    pub fn hold(&mut self, place: Option<OwnedSemaphorePermit>) {
        if place.is_some() || self.extras.is_some() {
            self.extras.get_or_insert_default().admission.set(place);
        }
    }

    /// Lets go of the place among the requests whose replies may be large.
    pub fn release(&self) {
        if let Some(extras) = &self.extras {
            extras.admission.take();
        }
    }

    /// Answers with a whole reply, or with the end of one that [`Envelope::stream`] began.
    pub fn fill(self, reply: &[u8]) {
        self.ticket.fill(reply);
    }

    /// Answers with a whole reply of a node's, which has executed the request.
    pub fn fill_by(mut self, node: &Arc<Node>, reply: &[u8]) {
        self.is_executed_by(node, reply);
        self.ticket.fill(reply);
    }

    /// Answers with an error: see [`Ticket::fail`].
    pub fn fail(self, error: &str) {
        self.ticket.fail(error);
    }

    /// A node has executed the request, and its reply begins so.
    pub fn is_executed_by(&mut self, node: &Arc<Node>, front: &[u8]) {
        self.wrote(node);
        if let Some(extras) = &mut self.extras
            && let Some(taught) = extras.on_success.take()
            && !matches!(front.first(), Some(b'-' | b'!'))
        {
            taught.act();
        }
    }

    /// The node has executed the request, or may have.
    pub fn wrote(&self, node: &Arc<Node>) {
        if self.traits.writes
            && let Some(line) = self.ticket.line()
        {
            line.wrote(node);
        }
    }

    /// The request is given up on this connection, where it may still run.
    pub fn in_doubt(&self, connection: &Rc<doubt::Connection>) {
        if !self.traits.repeatable
            && let Some(line) = self.ticket.line()
        {
            line.doubts.add(connection);
        }
    }

    /// What its client had to give up before, where there is anything.
    #[inline]
    pub fn doubts(&self) -> Option<&doubt::Doubts> {
        self.ticket.line().map(|line| &*line.doubts).filter(|doubts| !doubts.is_empty())
    }

    /// The span of a request that ends in this error on a node's account.
    pub fn span(&self, node: Arc<str>, now: Instant, error: &str) -> Span {
        let line = self.ticket.line();
        let opened = line.and_then(|line| line.opened(self.ticket.place()));
        Span {
            end: SystemTime::now(),
            took: opened.map_or(Duration::ZERO, |opened| now.saturating_duration_since(opened)),
            node,
            slot: self.slot(),
            class: self.traits.class(),
            command: None,
            client: line.map_or(0, |line| line.client.get()),
            parts: None,
            error: Some(error.to_owned()),
        }
    }

    /// Passes on the front of a reply whose end has not come yet. Only where [`Ticket::streams`].
    pub fn stream(&self, chunk: &[u8]) {
        self.release();
        self.ticket.stream(chunk);
    }

    /// Gives the request back to its session, unexecuted. What a replica has not answered goes to the primary.
    pub fn bounce(mut self, request: Bytes, mut why: Why) {
        if self.ticket.is_abandoned() {
            return;
        }
        if let Route::Replica(slot, _) = self.route {
            self.route = Route::Slot(slot);
            why = Why::ByReplica(why.last_error());
        }
        // A node that answers is not lost: what it cannot do now, it does soon.
        if let Some(gather) = self.ticket.gather().filter(|gather| gather.puts_off()).cloned() {
            if matches!(why, Why::Unsent(_) | Why::Hopeless(_)) && !gather.line.has_bounced() {
                return gather.put_off(Bounced { envelope: self, request, why });
            }
            gather.put_off_no_more();
        }
        if let Some(line) = self.ticket.line().cloned() {
            line.give_back(Bounced { envelope: self, request, why });
        }
    }

    /// Turns the request into `merge`'s parts, in their order: each is answered by itself, and the merged reply answers the
    /// whole.
    pub fn split(self, merge: Merge, parts: usize) -> Vec<Envelope> {
        self.split_for(merge, parts, Vec::new(), None)
    }

    /// As [`Envelope::split`], one part for each of these nodes; those that the merge has done without are made up for.
    pub fn split_among(self, merge: Merge, nodes: Vec<Arc<Node>>, make_up: Option<MakeUp>) -> Vec<Envelope> {
        self.split_for(merge, nodes.len(), nodes, make_up)
    }

    fn split_for(self, merge: Merge, parts: usize, nodes: Vec<Arc<Node>>, make_up: Option<MakeUp>) -> Vec<Envelope> {
        let Envelope { route, tries, traits, .. } = self;
        let (Some(line), number) = (self.ticket.line().cloned(), self.ticket.place()) else { return Vec::new() };
        let gather = Gather::new(merge, parts, self, (line.clone(), number), nodes, make_up);
        line.open_tickets.set(line.open_tickets.get() + parts - 1);
        let part = |index| {
            let ticket = Ticket { duty: Duty::Part { gather: gather.clone(), index, counted: Cell::new(0) } };
            Envelope { tries, ..Envelope::new(ticket, route, traits) }
        };
        (0..parts as u32).map(part).collect()
    }

    /// Takes what is to be done once the request has succeeded.
    pub(super) fn take_on_success(&mut self) -> Option<OnSuccess> {
        self.extras.as_mut()?.on_success.take()
    }

    /// Whether a replica is to answer it.
    pub fn is_for_replica(&self) -> bool {
        matches!(self.route, Route::Replica(..))
    }

    /// The slot that the request is for, where it has one.
    pub fn slot(&self) -> Option<Slot> {
        match self.route {
            Route::Slot(slot) | Route::Replica(slot, _) => Some(slot),
            Route::Any | Route::PubSub => None,
        }
    }
}

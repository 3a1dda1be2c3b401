//! MULTI: commands are queued here and go to their node at EXEC as one contiguous batch, MULTI … EXEC, on the shared
//! link. Nothing interleaves, so it is as atomic as on a connection of its own, and no connection is taken.
//!
//! What the server would refuse while queueing is refused here with the server's words; what only the server can know
//! (no memory, no permission) comes back as EXECABORT. Commands about the connection never reach a node: the proxy
//! answers them when the others have run, and puts each answer in its place.

use std::{collections::VecDeque, rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::Bytes;

use super::{
    Flow, Session,
    attend::Eof,
    errand::Errand,
    login::Hello,
    pause,
    scripts::{awaits_functions, learn_all, scripts_of},
    watch::Watch,
};
use crate::{
    command::{
        Flags, Spec,
        treatment::{Client, Local},
    },
    dedicated::Dedicated,
    metrics::Transaction as Ended,
    plan::{self, Plan, Scripting},
    refusal::{self, Refusal},
    resp::{
        Request,
        reply::Scanner,
        request::{OwnedRequest, decimal},
        write,
    },
    says,
    scripts::Script,
    slot::Slot,
    ticket::{Label, Line, Route, Why},
    topology::ServerKind,
};

/// A MULTI that has not come to its EXEC.
#[derive(Default)]
pub(super) struct Transaction {
    /// MULTI and what is queued, as the client sent it: MONITOR shows every word as it was written.
    frames: Vec<u8>,
    queued: usize,
    slot: Option<Slot>,
    /// What the proxy answers itself or by another node, with its place among the queued.
    own: Vec<(usize, OwnedRequest)>,
    /// A command that may write is among them.
    pub(super) writes: bool,
    /// A command that reads keys is among them.
    reads: bool,
    /// So is one about scripts, or one that calls functions.
    scripts: bool,
    functions: bool,
    /// Scripts that go ahead of it on a connection of its own.
    loads: Vec<Script>,
    /// A command was refused: EXEC will be too.
    spoiled: bool,
}

impl Transaction {
    pub(super) fn spoil(&mut self) {
        self.spoiled = true;
    }

    /// Bytes that it holds.
    pub(super) fn size(&self) -> usize {
        self.frames.len() + self.own.iter().map(|(_, request)| request.frame().len()).sum::<usize>()
    }

    /// MULTI and what goes to a node behind it.
    pub(super) fn frames(&self) -> &[u8] {
        &self.frames
    }

    /// Whether EXEC takes a node, with keys that are watched or not.
    pub(super) fn needs_node(&self, watches: bool) -> bool {
        !self.spoiled && (watches || self.queued > self.own.len())
    }

    /// All of it as it goes to a node, behind `prefix`, once it has been closed.
    fn batch(&self, prefix: &[u8]) -> Vec<u8> {
        let mut batch = Vec::new();
        self.loads.iter().for_each(|script| script.encode_load(&mut batch));
        [prefix, &self.frames].iter().for_each(|part| batch.extend_from_slice(part));
        batch
    }

    /// Ends it with the client's EXEC.
    fn close(&mut self, exec: &Request<'_>) {
        self.frames.extend_from_slice(exec.frame());
    }

    /// How many replies it gets, that to EXEC included.
    fn replies(&self) -> usize {
        self.loads.len() + self.queued + 2
    }
}

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const DISCARD: &[u8] = b"*1\r\n$7\r\nDISCARD\r\n";
/// Takes the place of what the proxy answers itself.
const STAND_IN: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// Where a command about the connection goes within a transaction.
enum Joins {
    /// To the node like the others: it does no harm on a shared connection.
    Wire,
    /// Nowhere: the proxy answers.
    Own,
    /// Not at all.
    No,
}

impl Session {
    /// A command between MULTI and EXEC.
    pub(super) fn enqueue(&mut self, request: &Request<'_>, spec: Option<&Spec>, plan: Plan) -> Flow {
        let Some(spec) = spec else {
            return self.refuse(None, &says::unknown_command(request));
        };
        if !spec.takes(request.len()) {
            return self.refuse(Some(spec), says::wrong_arity(&spec.name).as_bytes());
        }
        if spec.container {
            return self.refuse(Some(spec), &says::unknown_subcommand(request));
        }
        if spec.flags.has(Flags::NO_MULTI) {
            let is_valkey = self.router.topology().server.kind == ServerKind::Valkey;
            return self.refuse(Some(spec), says::not_in_multi(is_valkey.then_some(&*spec.name)).as_bytes());
        }
        let (mut own, mut scripts, mut functions) = (false, false, false);
        let slot = match plan {
            Plan::One(slot) => Some(slot),
            Plan::Blocking(blocking) => blocking.slot,
            Plan::Any => None,
            // What is amended must be so here too. And by the node that all publishing goes through: what the transaction's node passed on to it would come
            // later than what others publish after EXEC.
            Plan::Home | Plan::Amended(_) => {
                own = true;
                None
            }
            Plan::Scripting(which, slot) if which != Scripting::Flush => {
                functions = which == Scripting::Fcall;
                scripts = !functions;
                slot
            }
            Plan::Refuse(error) | Plan::Unchanged(error) => return self.refuse(Some(spec), &error),
            Plan::Split(_) => return self.refuse(Some(spec), &plan::cross_slot_error(request, spec)),
            Plan::Local(local) => match self.joins(local, request) {
                Joins::Wire => None,
                Joins::Own => {
                    own = true;
                    None
                }
                Joins::No => return self.refuse(Some(spec), says::not_in_transaction(&spec.name).as_bytes()),
            },
            Plan::Primaries(_)
            | Plan::Keys
            | Plan::Scripting(..)
            | Plan::Aside(_)
            | Plan::Scan(_)
            | Plan::AskServer => {
                return self.refuse(Some(spec), says::not_in_transaction(&spec.name).as_bytes());
            }
        };
        let Some(transaction) = &mut self.transaction else { return Flow::Taken };
        if let (Some(first), Some(slot)) = (transaction.slot, slot)
            && first != slot
        {
            let error = says::cross_slot_in_transaction(first, slot);
            return self.refuse(Some(spec), error.as_bytes());
        }
        transaction.slot = transaction.slot.or(slot);
        transaction.reads |= spec.is_readonly() && spec.has_keys();
        transaction.writes |= may_write(spec) || pause::may_replicate(spec, request);
        transaction.scripts |= scripts;
        transaction.functions |= functions;
        if own {
            transaction.own.push((transaction.queued, request.to_owned()));
            transaction.frames.extend_from_slice(STAND_IN);
        } else {
            transaction.frames.extend_from_slice(request.frame());
        }
        transaction.queued += 1;
        self.client.queued.store(transaction.queued, Relaxed);
        self.answer(Some(spec), b"+QUEUED\r\n")
    }

    fn joins(&self, local: Local, request: &Request<'_>) -> Joins {
        let own_credentials = self.router.settings().client_credentials.is_some();
        match local {
            Local::Ping | Local::Echo | Local::ClusterKeyslot | Local::Unwatch => Joins::Wire,
            Local::Readonly | Local::Readwrite | Local::Asking | Local::AclWhoami => Joins::Own,
            // Replies that stay away, or others that come in between, would tear EXEC's reply apart.
            Local::Client(Client::Reply | Client::Tracking | Client::Caching) => Joins::No,
            Local::Client(_) => Joins::Own,
            // What changes the connection that the other commands of the transaction run on cannot be done in its midst.
            Local::Select if self.changes_database(request) => Joins::No,
            Local::Select => Joins::Own,
            Local::Hello => match Hello::parse(request) {
                Ok(hello) if hello.version.is_some_and(|version| version != self.lane.login().version) => Joins::No,
                Ok(Hello { credentials: Some(_), .. }) if !own_credentials => Joins::No,
                _ => Joins::Own,
            },
            // Malformed, it changes nothing.
            Local::Auth if own_credentials || request.len() > 3 => Joins::Own,
            Local::Wait => Joins::Own,
            _ => Joins::No,
        }
    }

    fn changes_database(&self, request: &Request<'_>) -> bool {
        let number = decimal(request.arg(1)).and_then(|number| u32::try_from(number).ok());
        let databases = self.router.topology().server.databases.max(1);
        number.is_some_and(|number| number < databases && number != self.lane.login().database)
    }

    pub(super) fn multi(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        if self.transaction.is_some() {
            // Redis does not count this one against the transaction.
            return self.answer_error(spec, says::NESTED_MULTI);
        }
        if !self.lane.may_multi() {
            return Flow::Alone;
        }
        self.begin(request);
        self.answer(spec, b"+OK\r\n")
    }

    fn begin(&mut self, multi: &Request<'_>) {
        let slot = self.watch.as_ref().map(Watch::slot);
        self.transaction = Some(Transaction { slot, frames: multi.frame().to_vec(), ..Transaction::default() });
        self.client.queued.store(0, Relaxed);
    }

    /// The first MULTI of a lane with credentials: its user may not be allowed to use it. Its commands would then run
    /// one by one at the node, while the client believes them queued.
    pub(super) async fn first_multi(&mut self, request: &Request<'_>) -> Option<Bytes> {
        let mut errand = Errand::new(self.router.clone(), self.lane.clone(), None, self.favourite);
        let patience = self.router.around().limits.request_timeout;
        let asked = self.attend(
            async move {
                let mut connection = errand.connect().await.map_err(|text| error(&text))?;
                let replies = connection.exchange(&[MULTI, DISCARD].concat(), 2, patience).await;
                let replies =
                    replies.map_err(|why| error(&format!("ERR proxy: {}: {why}", connection.node().label)))?;
                connection.give_back();
                match replies.into_iter().next() {
                    Some(reply) if reply.first() == Some(&b'-') => Err(reply),
                    _ => Ok(()),
                }
            },
            Eof::Waits,
        );
        match asked.await {
            Ok(Ok(())) => {
                self.lane.set_may_multi();
                self.begin(request);
                Some(Bytes::from_static(b"+OK\r\n"))
            }
            Ok(Err(refused)) => Some(refused),
            Err(reason) => {
                self.ending = Some(reason);
                None
            }
        }
    }

    /// Ends the transaction, if there is one.
    pub(super) fn take_transaction(&mut self) -> Option<Transaction> {
        self.client.queued.store(usize::MAX, Relaxed);
        self.transaction.take()
    }

    pub(super) fn discard(&mut self, spec: Option<&Spec>) -> Flow {
        let Some(transaction) = self.take_transaction() else {
            return self.answer_error(spec, says::DISCARD_WITHOUT_MULTI);
        };
        self.show_unsent(&transaction);
        self.unwatch();
        self.router.tally().transaction(Ended::Discarded);
        self.answer(spec, b"+OK\r\n")
    }

    /// An EXEC that is malformed, or not allowed: it ends the transaction all the same.
    pub(super) fn refuse_exec(&mut self, spec: &Spec, error: &[u8]) -> Flow {
        if let Some(transaction) = self.take_transaction() {
            self.show_unsent(&transaction);
            self.router.tally().transaction(Ended::Aborted);
        }
        self.unwatch();
        let why = error.strip_prefix(b"ERR ").unwrap_or(error);
        self.refuse(Some(spec), &[says::EXECABORT_BECAUSE.as_bytes(), why].concat())
    }

    pub(super) fn exec(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Flow {
        let Some(transaction) = &self.transaction else {
            return self.answer_error(spec, says::EXEC_WITHOUT_MULTI);
        };
        if !transaction.spoiled && (self.watch.is_some() || !transaction.own.is_empty()) {
            return Flow::Alone;
        }
        let Some(mut transaction) = self.take_transaction() else { return Flow::Taken };
        if !transaction.needs_node(false) {
            self.show_unsent(&transaction);
        }
        if transaction.spoiled {
            self.unwatch();
            self.router.tally().transaction(Ended::Aborted);
            return self.answer_error(spec, says::EXECABORT);
        }
        self.router.tally().transaction(Ended::Executed);
        if transaction.queued == 0 {
            return self.answer(spec, b"*0\r\n");
        }
        transaction.close(request);
        let batch = transaction.frames.as_slice();
        let route = transaction.slot.map_or(Route::Any, Route::Slot);
        let mut ticket = self.line.open(Some(Label::of(spec)), batch.len(), route, false);
        ticket.replies_before = transaction.replies() - 1;
        ticket.caching = self.caching();
        ticket.writes = transaction.writes;
        ticket.needs.functions = transaction.functions;
        let mut named = Vec::new();
        if transaction.scripts {
            ticket.lesson = self.learn_all(&transaction.frames);
            named = scripts_of(&self.router, &transaction.frames);
        }
        self.guard_order(spec, route);
        self.send_ready(&named, batch, ticket);
        Flow::Taken
    }

    /// EXEC that needs a connection of its own, since keys are watched there, or has answers of the proxy's own.
    /// `None` where the client has gone.
    pub(super) async fn exec_alone(&mut self, request: &Request<'_>) -> Option<Bytes> {
        let mut transaction = self.take_transaction()?;
        transaction.close(request);
        if transaction.reads {
            self.reads_untracked();
        }
        if transaction.scripts {
            transaction.loads = scripts_of(&self.router, &transaction.frames);
        }
        // As on one Redis, it is about what was written before the transaction.
        let waits = self.waits_within(&transaction).await;
        let (transaction, line) = (Rc::new(transaction), self.line.clone());
        let patience = self.router.around().limits.request_timeout;
        let touched = self.null_array();
        let done = match self.watch.take() {
            Some(watch) if !watch.fits(&self.lane) => Ok(touched),
            Some(watch) => {
                self.attend(exec_watched(watch, transaction.clone(), line, touched, patience), Eof::Waits).await
            }
            None if !transaction.needs_node(false) => {
                self.show_unsent(&transaction);
                Ok(stand_ins(transaction.queued))
            }
            None => {
                let errand = Errand::new(self.router.clone(), self.lane.clone(), transaction.slot, self.favourite);
                self.attend(exec_apart(errand, transaction.clone(), line, patience), Eof::Waits).await
            }
        };
        let reply = match done {
            Ok(reply) => reply,
            Err(reason) => {
                self.ending = Some(reason);
                return None;
            }
        };
        if transaction.scripts && reply.first() == Some(&b'*') {
            learn_all(&self.router, &transaction.frames);
        }
        self.router.tally().transaction(match reply.first() {
            Some(b'-') => Ended::Aborted,
            _ if reply == self.null_array() => Ended::Dirty,
            _ => Ended::Executed,
        });
        if transaction.own.is_empty() { Some(reply) } else { self.put_in_own(reply, &transaction.own, waits).await }
    }

    /// The replies to each WAIT within a transaction.
    async fn waits_within(&mut self, transaction: &Transaction) -> VecDeque<Vec<u8>> {
        let mut replies = VecDeque::new();
        for (_, request) in &transaction.own {
            if request.as_request().is(0, "WAIT") {
                replies.push_back(self.wait_in_transaction(&request.as_request()).await);
            }
        }
        replies
    }

    /// Puts the proxy's own answers in the places that stand-ins hold.
    async fn put_in_own(
        &mut self,
        reply: Bytes,
        own: &[(usize, OwnedRequest)],
        mut waits: VecDeque<Vec<u8>>,
    ) -> Option<Bytes> {
        let Some(head) = reply.iter().position(|&byte| byte == b'\n').map(|end| end + 1) else { return Some(reply) };
        if reply.first() != Some(&b'*') || head == reply.len() && reply.as_ref() != b"*0\r\n" {
            // Nothing ran.
            return Some(reply);
        }
        let (mut out, mut rest) = (reply[..head].to_vec(), &reply[head..]);
        let (mut own, mut index, mut scanner) = (own.iter().peekable(), 0, Scanner::default());
        while let Ok(Some(end)) = scanner.find(rest) {
            match own.next_if(|(place, _)| *place == index) {
                Some((_, request)) if request.as_request().is(0, "WAIT") => {
                    out.extend(waits.pop_front().unwrap_or_default());
                }
                Some((_, request)) => out.extend(self.answer_own(&request.as_request()).await),
                None => out.extend_from_slice(&rest[..end]),
            }
            rest = &rest[end..];
            index += 1;
            if rest.is_empty() {
                break;
            }
        }
        Some(out.into())
    }

    async fn answer_own(&mut self, request: &Request<'_>) -> Vec<u8> {
        let topology = self.router.topology().clone();
        let spec = topology.commands.find(request);
        let plan = plan::plan(request, spec, &self.router.settings().policy);
        match plan {
            Plan::Local(local) => {
                let reply = match local {
                    Local::Hello => self.hello(request).await,
                    Local::Auth => self.auth(request).await,
                    Local::Select => self.select(request),
                    local => {
                        let line = self.line.clone();
                        line.aside(|| {
                            let _ = self.answer_locally(local, request, spec);
                        })
                    }
                };
                if self.is_to_show(local) {
                    self.show(request, spec);
                }
                reply
            }
            Plan::Home => self.ask_home(request).await.unwrap_or_else(|text| error(&text)).to_vec(),
            Plan::Amended(fold) => self.ask_amended(request, fold).await.unwrap_or_else(|text| error(&text).to_vec()),
            _ => error(&says::not_in_multi(None)).to_vec(),
        }
    }

    /// What EXEC answers where a watched key was touched.
    pub(super) fn null_array(&self) -> Bytes {
        Bytes::from_static(if self.speaks_resp3() { b"_\r\n" } else { b"*-1\r\n" })
    }

    /// An error that does not spoil a transaction.
    pub(super) fn answer_error(&self, spec: Option<&Spec>, error: &str) -> Flow {
        let mut frame = Vec::with_capacity(error.len() + 3);
        write::error(&mut frame, error.as_bytes());
        self.answer(spec, &frame)
    }
}

/// Whether a command may write, directly or through a script.
pub(super) fn may_write(spec: &Spec) -> bool {
    spec.is_write() || !spec.is_readonly() && (spec.has_keys() || &*spec.name == "publish")
}

/// Runs a transaction where its keys are watched. Where the node did not execute it, its keys may have changed since:
/// the client is told so, as if they had been touched.
async fn exec_watched(
    watch: Watch,
    transaction: Rc<Transaction>,
    line: Rc<Line>,
    touched: Bytes,
    patience: Duration,
) -> Bytes {
    let prefix = watch.prefix();
    let Some(mut connection) = watch.into_connection() else { return touched };
    match run(&mut connection, &transaction, prefix, &line, patience).await {
        Ok(Run::Done(reply)) => {
            // EXEC has ended the watching, whether it ran the transaction or gave it up.
            if reply.first() != Some(&b'-') || reply.starts_with(b"-EXECABORT") {
                connection.give_back();
            }
            reply
        }
        // The node may still be watching, or not.
        Ok(Run::Refused(..)) => touched,
        Err(text) => error(&text),
    }
}

/// Runs a transaction on some connection of its own: once, or not at all.
async fn exec_apart(mut errand: Errand, transaction: Rc<Transaction>, line: Rc<Line>, patience: Duration) -> Bytes {
    loop {
        let mut connection = match errand.connect().await {
            Ok(connection) => connection,
            Err(text) => return error(&text),
        };
        let waits = awaits_functions(&errand.router, connection.node()).filter(|_| transaction.functions);
        if let Some(why) = waits {
            connection.give_back();
            match errand.again(why).await {
                Ok(()) => continue,
                Err(text) => return error(&text),
            }
        }
        let why: Why = match run(&mut connection, &transaction, errand.prefix(), &line, patience).await {
            Ok(Run::Done(reply)) => {
                connection.give_back();
                return reply;
            }
            Ok(Run::Refused(refusal, said)) => {
                let why = errand.refused(refusal, said, connection.node());
                connection.give_back();
                why
            }
            Err(text) => return error(&text),
        };
        if let Err(text) = errand.again(why).await {
            return error(&text);
        }
    }
}

enum Run {
    /// EXEC's own reply.
    Done(Bytes),
    /// Nothing ran.
    Refused(Refusal, Bytes),
}

async fn run(
    connection: &mut Dedicated,
    transaction: &Transaction,
    prefix: &[u8],
    line: &Line,
    patience: Duration,
) -> Result<Run, String> {
    let count = transaction.replies() + usize::from(!prefix.is_empty());
    let replies = connection.exchange(&transaction.batch(prefix), count, patience).await;
    if transaction.writes {
        line.wrote(connection.node());
    }
    let replies = replies.map_err(|why| {
        format!("ERR proxy: connection to {} lost ({why}), the transaction may have run", connection.node().label)
    })?;
    let fault = replies.iter().skip(transaction.loads.len()).find(|reply| reply.first() == Some(&b'-')).cloned();
    let Some(last) = replies.into_iter().last() else { return Err(says::ODD_REPLIES.to_owned()) };
    // EXECABORT only says that a command was refused; the first error says why.
    let fault = fault.filter(|_| last.starts_with(b"-EXECABORT"));
    let said = fault.as_ref().unwrap_or(&last);
    Ok(match Refusal::of(said) {
        Some(refusal) => Run::Refused(refusal, said.clone()),
        None => Run::Done(fault.and_then(|fault| refusal::abort_because(&last, &fault)).map_or(last, Bytes::from)),
    })
}

fn stand_ins(count: usize) -> Bytes {
    let mut out = Vec::new();
    write::array(&mut out, count);
    out.extend(std::iter::repeat_n(b"+PONG\r\n", count).flatten());
    out.into()
}

fn error(text: &str) -> Bytes {
    let mut frame = Vec::new();
    write::error(&mut frame, text.as_bytes());
    frame.into()
}

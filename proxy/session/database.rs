//! A client's database of its own: its requests enter it before they are dispatched, and their replies are stripped on their
//! way back. All else in the session sees plain commands with plain keys.

use std::{
    cell::Cell,
    fmt::Write,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;

use super::{caller::Caller, dispatch::Dispatcher, listening::Listening, transaction::Transaction};
use crate::{
    cluster::topology::Route,
    commands::{
        database::{Database, Entered, KnownScripts, Strip},
        plan::{self, Plan, Policy},
        table::{
            CommandTable, Spec,
            in_database::{Code, InDatabase, ReplyKeys},
            treatment::Local,
        },
    },
    metrics::DatabaseTally,
    protocol::{
        resp::{Request, Value, request::RequestWriter, write},
        slot::Slot,
    },
    upstream::{router::Router, ticket::Label},
};

/// The database, and what entering it takes.
pub(super) struct OwnDatabase {
    pub(super) database: Arc<Database>,
    /// Where its requests are counted.
    tally: Rc<DatabaseTally>,
    /// Where the request ends that was counted last, in bytes from the first that the client has sent.
    counted: Cell<u64>,
    /// What the reply to the request that is about to be dispatched goes through on its way to the client.
    strip: Cell<Option<Box<Strip>>>,
    /// What becomes of the request that is about to be dispatched, where that is not for its row to say.
    plan: Cell<Option<Box<Plan>>>,
    /// The request that is about to be dispatched has one key, written anew, and so is about the database's slot.
    is_plain: Cell<bool>,
    /// What the request that is about to be dispatched counts as, where nodes are sent another command than the client said.
    said: Cell<Option<Label>>,
    /// The lines of INFO that tell how many keys there are, for the INFO that is about to be carried out.
    keyspace: Cell<Option<String>>,
}

impl OwnDatabase {
    /// The client is in the database as long as this exists.
    pub(super) fn of(router: &Router, database: Arc<Database>) -> Rc<OwnDatabase> {
        let tally = router.database_tally(database.name());
        tally.client_came();
        Rc::new(OwnDatabase {
            database,
            tally,
            counted: Cell::default(),
            strip: Cell::default(),
            plan: Cell::default(),
            is_plain: Cell::default(),
            said: Cell::default(),
            keyspace: Cell::default(),
        })
    }

    /// Counts the request that is about to enter, once however often it does. The client has sent `received` bytes, so many of
    /// them behind it.
    pub(super) fn count(&self, received: u64, behind: usize) {
        let end = received.saturating_sub(behind as u64);
        if self.counted.replace(end) != end {
            self.tally.asked();
        }
    }

    /// What becomes of the request that is being dispatched: what its database has decided, else what its row says.
    #[inline]
    pub(super) fn plan(&self, request: &Request, spec: Option<&Spec>, policy: &Policy) -> Plan {
        if let Some(plan) = self.plan.take() {
            return *plan;
        }
        match spec {
            Some(spec) if self.is_plain.get() && plan::goes_by_keys_alone(spec, policy) => {
                Plan::One(self.database.slot())
            }
            _ => match plan::plan(request, spec, policy) {
                // It keeps its own node busy, and no other database's.
                Plan::Scripting(which, None) if which.runs() => Plan::Scripting(which, Some(self.database.slot())),
                plan => plan,
            },
        }
    }

    /// What the request that is being dispatched counts as, where that is not for its row to say.
    #[inline]
    pub(super) fn said(&self) -> Option<Label> {
        if self.is_plain.get() { None } else { self.said.get() }
    }

    /// What the reply to the request that is being dispatched goes through, once.
    #[inline]
    pub(super) fn take_strip(&self) -> Option<Box<Strip>> {
        self.strip.take()
    }

    /// The lines of INFO that tell how many keys there are, once.
    pub(super) fn take_keyspace(&self) -> Option<String> {
        self.keyspace.take()
    }
}

impl Drop for OwnDatabase {
    fn drop(&mut self) {
        self.tally.client_left();
    }
}

impl Dispatcher {
    /// The request as it goes on, and its row in the table: as the client's database keeps it, or as the client has said it
    /// where it `is_stopped` at the gate.
    #[inline]
    pub(super) fn enter<'a, 'c>(
        &self,
        inside: &OwnDatabase,
        is_stopped: bool,
        commands: &'c Arc<CommandTable>,
        request: Request<'a>,
        writer: &'a mut RequestWriter,
    ) -> (Request<'a>, Option<&'c Spec>) {
        if is_stopped {
            stay_out(inside);
            return (request, commands.find(&request));
        }
        inside.count(self.caller.client.received(), self.front.behind());
        enter(inside, &self.caller, &self.listening, self.multi.queued(), commands, request, writer)
    }
}

/// The request as it goes on within the caller's database, and its row in the table; `queued` is what an EXEC carries out.
#[inline]
fn enter<'a, 'c>(
    inside: &OwnDatabase,
    caller: &Caller,
    listening: &Listening,
    queued: Option<&Transaction>,
    commands: &'c Arc<CommandTable>,
    request: Request<'a>,
    writer: &'a mut RequestWriter,
) -> (Request<'a>, Option<&'c Spec>) {
    let spec = commands.find(&request);
    inside.strip.set(None);
    inside.plan.set(None);
    if let Some(spec) = spec
        && !listening.only_subscribes(caller)
        && inside.database.enter_plain(&request, spec, writer)
    {
        inside.is_plain.set(true);
        return (writer.request(), Some(spec));
    }
    inside.is_plain.set(false);
    inside.said.set(None);
    enter_otherwise(inside, caller, listening, queued, commands, (request, spec), writer)
}

/// What [`enter`] does for other requests than nearly all.
fn enter_otherwise<'a, 'c>(
    inside: &OwnDatabase,
    caller: &Caller,
    listening: &Listening,
    queued: Option<&Transaction>,
    commands: &'c Arc<CommandTable>,
    (request, spec): (Request<'a>, Option<&'c Spec>),
    writer: &'a mut RequestWriter,
) -> (Request<'a>, Option<&'c Spec>) {
    if listening.forbids(caller, &request, spec).is_some() {
        // It is refused by the name that the client said.
        return (request, spec);
    }
    let known = known(caller, commands, spec, queued.is_some());
    let entered = inside.database.enter(&request, spec, known, writer);
    let tells = entered != Entered::RewrittenUntold;
    let mut strip = tells.then(|| strip_for(caller, queued, &inside.database, spec)).flatten();
    if let Some(strip) = &mut strip {
        strip.is_of(&request);
        if spec.is_some_and(|spec| matches!(spec.in_database, InDatabase::Log(_)) && known.policy.lifts(spec)) {
            strip.tells_keyless();
        }
    }
    let not_run_yet = known.wrapped.take_not_run_yet().filter(|_| queued.is_none());
    if let (Some(strip), Some(script)) = (&mut strip, not_run_yet) {
        strip.proves(script);
    }
    inside.strip.set(strip);
    let plan = match entered {
        Entered::AsItCame => return (request, spec),
        Entered::Rewritten if spec.is_some_and(|spec| keeps_its_name(spec.in_database)) => {
            return (writer.request(), spec);
        }
        Entered::RewrittenUntold => return (writer.request(), spec),
        Entered::Rewritten => {
            inside.said.set(spec.map(|spec| Label::of(Some(spec))));
            return (writer.request(), commands.find(&writer.request()));
        }
        Entered::Refused(error) => Plan::Refuse(error),
        Entered::Unchanged(error) => Plan::Unchanged(error),
        Entered::CountsKeys => Plan::CountsKeys,
        Entered::CountsPatterns => Plan::Local(Local::CountPatterns),
        Entered::ForgetsScripts => Plan::Local(Local::ForgetScripts),
        // Number 0 is all of the cluster, with the others in it.
        Entered::InEach if caller.databases.get(0).is_none() => return (request, spec),
        Entered::InEach => {
            let each = |(_, database): (u32, &Arc<Database>)| (database.slot(), database.flush_frame());
            Plan::InTurn(caller.databases.all().map(each).collect())
        }
    };
    inside.plan.set(Some(Box::new(plan)));
    (request, spec)
}

/// Whether what is written anew of such requests is of the same row.
fn keeps_its_name(in_database: InDatabase) -> bool {
    matches!(in_database, InDatabase::Keys | InDatabase::Script(Code::Evalsha))
}

/// The request goes no further: nothing is left of what was decided about one before.
fn stay_out(inside: &OwnDatabase) {
    inside.strip.set(None);
    inside.plan.set(None);
    inside.is_plain.set(false);
    inside.said.set(None);
}

/// What is known for a request of this row, which joins a transaction or not.
pub(super) fn known<'a>(
    caller: &'a Caller,
    commands: &'a Arc<CommandTable>,
    spec: Option<&Spec>,
    is_queued: bool,
) -> KnownScripts<'a> {
    // EVAL is sent as EVALSHA, where nodes have that.
    let by_digest = spec.is_some_and(|spec| {
        matches!(spec.in_database, InDatabase::Script(_))
            && caller.is_trusted()
            && commands.serves(if spec.is_readonly() { "evalsha_ro" } else { "evalsha" })
    });
    let router = &caller.router;
    KnownScripts {
        wrapped: router.wrapped(),
        scripts: router.scripts(),
        scope: caller.databases.scope(),
        commands,
        by_digest,
        is_queued,
        policy: &router.settings().policy,
    }
}

/// What the reply has to go through.
fn strip_for(
    caller: &Caller,
    queued: Option<&Transaction>,
    database: &Arc<Database>,
    spec: Option<&Spec>,
) -> Option<Box<Strip>> {
    let scripts = caller.router.wrapped();
    match spec?.reply_keys {
        ReplyKeys::Nothing => None,
        ReplyKeys::Slowlog | ReplyKeys::SlowlogLength => {
            scripts.know(&caller.router.topology().commands);
            Strip::new(database, scripts, spec?.reply_keys)
        }
        ReplyKeys::Replies if !queued?.tells() => None,
        ReplyKeys::Replies => {
            let topology = caller.router.topology();
            let mut reply_keys = Vec::new();
            queued?.in_order(|request| {
                reply_keys.push(topology.commands.find(request).map_or(ReplyKeys::Nothing, |spec| spec.reply_keys));
            });
            Strip::of_all(database, scripts, reply_keys)
        }
        reply_keys => Strip::new(database, scripts, reply_keys),
    }
}

/// Sends each request to its slot, one after the other, until one fails.
pub(super) async fn in_turn(caller: Caller, requests: Vec<(Slot, Vec<u8>)>) -> Bytes {
    for (slot, frame) in requests {
        match caller.ask_route(Route::Slot(slot), &frame).await {
            Ok(reply) if reply.first() == Some(&b'-') => return reply,
            Ok(_) => {}
            Err(error) => return write::error_frame(error),
        }
    }
    Bytes::from_static(b"+OK\r\n")
}

/// Counts the keys in each of the caller's databases, for INFO; an error where a node cannot tell.
pub(super) async fn count_keys(caller: Caller) -> Result<(), Bytes> {
    let mut lines = String::new();
    for (number, database) in caller.databases.all() {
        let number = if caller.databases.are_selected() { number } else { caller.client.database.load(Relaxed) };
        let reply = caller.ask_route(Route::Slot(database.slot()), &database.keyspace_frame()).await;
        let reply = reply.map_err(write::error_frame)?;
        let counts = Value::parse(&reply).ok().flatten().map_or(Value::Null, |(counts, _)| counts);
        let counts: Vec<i64> = counts.items().iter().filter_map(Value::integer).collect();
        match counts.as_slice() {
            [0, ..] => {}
            [keys, expires, left] => {
                let _ = write!(lines, "db{number}:keys={keys},expires={expires},avg_ttl={left}\r\n");
            }
            // A user who may run no scripts is told of no keys.
            _ if reply.starts_with(b"-NOPERM") => {}
            _ => return Err(reply),
        }
    }
    if let Some(inside) = &caller.database {
        inside.keyspace.set(Some(lines));
    }
    Ok(())
}

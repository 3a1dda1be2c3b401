//! A client's database of its own: its requests enter it before they are dispatched, and their replies are stripped on their
//! way back. All else in the session sees plain commands with plain keys.

use std::{
    cell::{Cell, RefCell, RefMut},
    rc::Rc,
    sync::Arc,
};

use super::{caller::Caller, listening::Listening, transaction::Transaction};
use crate::{
    commands::{
        database::{Database, Entered, KnownScripts, Strip},
        table::{self, CommandTable, Spec, in_database::ReplyKeys},
    },
    metrics::DatabaseTally,
    protocol::resp::{Request, request::Anew},
    upstream::router::Router,
};

/// The database, and what entering it takes.
pub(super) struct OwnDatabase {
    pub(super) database: Arc<Database>,
    /// Where its requests are counted.
    tally: Rc<DatabaseTally>,
    /// Where the request ends that was counted last, in bytes from the first that the client has sent.
    counted: Cell<u64>,
    /// Where a request is written anew.
    anew: RefCell<Anew>,
    /// The error of the request that is about to be dispatched, where it is not to be carried out.
    refusal: Cell<Option<Vec<u8>>>,
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
            anew: RefCell::default(),
            refusal: Cell::default(),
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

    pub(super) fn anew(&self) -> RefMut<'_, Anew> {
        let mut anew = self.anew.borrow_mut();
        anew.shrink();
        anew
    }
}

impl Drop for OwnDatabase {
    fn drop(&mut self) {
        self.tally.client_left();
    }
}

/// The request as it goes on within the caller's database; `queued` is what an EXEC carries out.
pub(super) fn enter<'a>(
    caller: &Caller,
    listening: &Listening,
    queued: Option<&Transaction>,
    request: Request<'a>,
    anew: &'a mut Anew,
) -> Request<'a> {
    let Some(inside) = &caller.database else { return request };
    let topology = caller.router.topology();
    let spec = topology.commands.find(&request);
    caller.line.strip_next(None);
    inside.refusal.set(None);
    if listening.forbids(caller, &request, spec).is_some() {
        // It is refused by the name that the client said.
        return request;
    }
    let known = known(caller, &topology.commands, spec, queued.is_some());
    let entered = inside.database.enter(&request, spec, known, anew);
    let mut strip = strip_for(caller, queued, &inside.database, spec);
    let not_run_yet = known.wrapped.take_not_run_yet().filter(|_| queued.is_none());
    if let (Some(strip), Some(script)) = (&mut strip, not_run_yet) {
        strip.proves(script);
    }
    caller.line.strip_next(strip);
    match entered {
        Entered::AsItCame => request,
        Entered::Anew => anew.request(),
        Entered::Refused(error) => {
            inside.refusal.set(Some(error));
            request
        }
    }
}

/// What is known for a request of this row, which joins a transaction or not.
pub(super) fn known<'a>(
    caller: &'a Caller,
    commands: &'a Arc<CommandTable>,
    spec: Option<&Spec>,
    is_queued: bool,
) -> KnownScripts<'a> {
    let runs = spec.is_some_and(|spec| matches!(spec.in_database, table::in_database::InDatabase::Script(_)));
    let router = &caller.router;
    KnownScripts {
        wrapped: router.wrapped(),
        scripts: router.scripts(),
        commands,
        by_digest: runs && caller.is_trusted(),
        is_queued,
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

/// The error of the request that is being dispatched, where its database does not let it in.
#[inline]
pub(super) fn refusal(caller: &Caller) -> Option<Vec<u8>> {
    caller.database.as_ref()?.refusal.take()
}

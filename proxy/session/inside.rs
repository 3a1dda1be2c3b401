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
        database::{Database, Entered, Known, Strip},
        table::{self, CommandTable, Spec, inside::Tells},
    },
    protocol::resp::{Request, request::Anew},
};

/// The database, and what entering it takes.
pub(super) struct Inside {
    pub(super) database: Arc<Database>,
    /// Where a request is written anew.
    anew: RefCell<Anew>,
    /// The error of the request that is about to be dispatched, where it is not to be carried out.
    refusal: Cell<Option<Vec<u8>>>,
}

impl Inside {
    pub(super) fn of(database: Arc<Database>) -> Rc<Inside> {
        Rc::new(Inside { database, anew: RefCell::default(), refusal: Cell::default() })
    }

    pub(super) fn anew(&self) -> RefMut<'_, Anew> {
        let mut anew = self.anew.borrow_mut();
        anew.shrink();
        anew
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
    let Some(inside) = &caller.inside else { return request };
    let topology = caller.router.topology();
    let spec = topology.commands.find(&request);
    caller.line.strip_next(None);
    inside.refusal.set(None);
    if listening.forbids(caller, &request, spec).is_some() {
        // It is refused by the name that the client said.
        return request;
    }
    let known = known_scripts(caller, &topology.commands, spec);
    let entered = inside.database.enter(&request, spec, known, anew);
    let mut strip = strip_for(caller, queued, &inside.database, spec);
    let unproven = known.wrapped.take_unproven().filter(|_| queued.is_none());
    if let (Some(strip), Some(script)) = (&mut strip, unproven) {
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

/// What is known of scripts, for a request of this row.
pub(super) fn known_scripts<'a>(caller: &'a Caller, commands: &'a Arc<CommandTable>, spec: Option<&Spec>) -> Known<'a> {
    let runs = spec.is_some_and(|spec| matches!(spec.inside, table::inside::Inside::Script(_)));
    let router = &caller.router;
    Known { wrapped: router.wrapped(), scripts: router.scripts(), commands, by_digest: runs && caller.is_trusted() }
}

/// What the reply has to go through.
fn strip_for(
    caller: &Caller,
    queued: Option<&Transaction>,
    database: &Arc<Database>,
    spec: Option<&Spec>,
) -> Option<Box<Strip>> {
    let scripts = caller.router.wrapped();
    match spec?.tells {
        Tells::Nothing => None,
        Tells::Replies => {
            let topology = caller.router.topology();
            let mut tells = Vec::new();
            queued?.in_order(|request| {
                tells.push(topology.commands.find(request).map_or(Tells::Nothing, |spec| spec.tells));
            });
            Strip::of_all(database, scripts, tells)
        }
        tells => Strip::new(database, scripts, tells),
    }
}

/// The error of the request that is being dispatched, where its database does not let it in.
#[inline]
pub(super) fn refusal(caller: &Caller) -> Option<Vec<u8>> {
    caller.inside.as_ref()?.refusal.take()
}

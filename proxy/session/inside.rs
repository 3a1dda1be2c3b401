//! A client's database of its own: its requests enter it before they are dispatched, and their replies are stripped on their
//! way back. All else in the session sees plain commands with plain keys.

use std::{
    cell::{Cell, RefCell, RefMut},
    rc::Rc,
    sync::Arc,
};

use super::Session;
use crate::{
    commands::{
        database::{Database, Entered, Strip},
        table::{Spec, inside::Tells},
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

impl Session {
    /// The request as it goes on within the database.
    pub(super) fn enter<'a>(&self, request: Request<'a>, anew: &'a mut Anew) -> Request<'a> {
        let Some(inside) = &self.caller.inside else { return request };
        let topology = self.caller.router.topology();
        let spec = topology.commands.find(&request);
        self.caller.line.strip_next(None);
        inside.refusal.set(None);
        if self.subscriber.is_some() && self.not_while_subscribed(&request, spec).is_some() {
            // It is refused by the name that the client said.
            return request;
        }
        self.caller.line.strip_next(self.strip_for(&inside.database, spec));
        match inside.database.enter(&request, spec, anew) {
            Entered::AsItCame => request,
            Entered::Anew => anew.request(),
            Entered::Refused(error) => {
                inside.refusal.set(Some(error));
                request
            }
        }
    }

    /// What the reply has to go through.
    fn strip_for(&self, database: &Arc<Database>, spec: Option<&Spec>) -> Option<Box<Strip>> {
        match spec?.tells {
            Tells::Nothing => None,
            Tells::Replies => {
                let topology = self.caller.router.topology();
                let mut tells = Vec::new();
                self.transaction.as_ref()?.in_order(|request| {
                    tells.push(topology.commands.find(request).map_or(Tells::Nothing, |spec| spec.tells));
                });
                Strip::of_all(database, tells)
            }
            tells => database.strip(tells),
        }
    }

    /// The error of the request that is being dispatched, where its database does not let it in.
    #[inline]
    pub(super) fn refused_inside(&self) -> Option<Vec<u8>> {
        self.caller.inside.as_ref()?.refusal.take()
    }
}

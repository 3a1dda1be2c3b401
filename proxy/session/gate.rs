//! What a client has to pass that may not simply do all: it has to log in first, or works as a user of the proxy's own, who
//! has limits. For all others the gate is open, and asks nothing.

use std::rc::Rc;

use super::{Flow, Session};
use crate::{
    clients::users::Seat,
    commands::table::{Flags, Spec},
    protocol::{resp::Request, says},
};

/// Where a client stands.
#[derive(Clone)]
pub(super) enum Gate {
    /// The client may use what it asks for, as far as the proxy is concerned.
    Open,
    /// The client has to log in first.
    Closed,
    /// The client works as a user of the proxy's own.
    Guarded(Rc<Seat>),
}

impl Gate {
    /// Where a client stands that has not logged in.
    pub(super) fn at_first(asks_who: bool) -> Gate {
        if asks_who { Gate::Closed } else { Gate::Open }
    }

    /// Whether the client may do something: it has logged in, or need not.
    pub(super) fn is_passed(&self) -> bool {
        !matches!(self, Gate::Closed)
    }

    /// Its place among the clients of a user of the proxy's own.
    pub(super) fn seat(&self) -> Option<&Seat> {
        match self {
            Gate::Guarded(seat) => Some(seat),
            Gate::Open | Gate::Closed => None,
        }
    }
}

impl Session {
    /// The end of a request that does not pass; nothing where it goes on.
    #[cold]
    pub(super) fn stop_at_gate(&mut self, request: &Request<'_>, spec: Option<&Spec>) -> Option<Flow> {
        let is_for_all = spec.is_some_and(|spec| spec.flags.has(Flags::NO_AUTH));
        let seat = match &self.caller.gate {
            Gate::Open => return None,
            Gate::Closed => return (!is_for_all).then(|| self.reject(spec, says::NOAUTH.as_bytes())),
            Gate::Guarded(seat) => seat.clone(),
        };
        if let Some(error) = spec.and_then(|spec| refusal(spec, request, &seat)) {
            return Some(self.reject(spec, error.as_bytes()));
        }
        let is_new = self.front.is_counted_first(self.caller.client.received(), self.reader.behind());
        if is_new
            && !is_for_all
            && let Err(limit) = seat.user.counts(self.caller.router.clock().now())
        {
            return Some(self.reject(spec, says::too_many_requests(&seat.user.name, limit).as_bytes()));
        }
        None
    }
}

/// Why a user of the proxy's own may not say this.
fn refusal(spec: &Spec, request: &Request<'_>, seat: &Seat) -> Option<String> {
    if !spec.takes(request.len()) {
        // A server looks at that first.
        return None;
    }
    let user = &seat.user;
    if spec.traits.about_users {
        return Some(says::about_other_users(&spec.name, &user.name));
    }
    (spec.traits.acts_on_all && user.databases().is_some()).then(|| says::acts_on_others(&spec.name, &user.name))
}

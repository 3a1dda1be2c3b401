//! The gate that a client's requests pass: it is closed until the client has logged in, guarded for a user of the proxy's own
//! (who has rules and limits), and open for everybody else.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;

use super::{
    acl,
    caller::Caller,
    client::line_of,
    dispatch::{Dispatcher, Flow},
};
use crate::{
    clients::{Usage, refused::Refused, users::LoggedIn},
    commands::{
        rules::RefusalContext,
        table::{CommandTable, Flags, Spec, traits::AboutUsers},
    },
    protocol::{resp::Request, says},
};

/// What a client's requests have to pass.
#[derive(Clone)]
pub(super) enum Gate {
    /// The client may use what it asks for, as far as the proxy is concerned.
    Open,
    /// The client has to log in first.
    Closed,
    /// The client works as a user of the proxy's own.
    Guarded(Rc<LoggedIn>),
}

/// Why a request of a user of the proxy's own goes no further.
pub(super) enum Stop {
    /// The user may not say this: the error, and what is noted of it.
    Refused(Vec<u8>, Option<Refused>),
    /// It is about the user itself: the reply.
    Answered(Bytes),
}

impl Gate {
    /// The gate of a client that has not logged in.
    pub(super) fn at_first(asks_who: bool) -> Gate {
        if asks_who { Gate::Closed } else { Gate::Open }
    }

    /// Whether the client may do something: it has logged in, or need not.
    pub(super) fn is_passed(&self) -> bool {
        !matches!(self, Gate::Closed)
    }

    /// The user of the proxy's own that the client has logged in as.
    pub(super) fn logged_in(&self) -> Option<&LoggedIn> {
        match self {
            Gate::Guarded(logged_in) => Some(logged_in),
            Gate::Open | Gate::Closed => None,
        }
    }
}

impl Dispatcher {
    /// Judges a request as its client has sent it, before its keys are rewritten for a database. True where it goes no further:
    /// then it stays as it is, and [`Dispatcher::stop_at_gate`] ends it.
    #[cold]
    pub(super) fn is_stopped(&mut self, commands: &Arc<CommandTable>, request: &Request<'_>) -> bool {
        let Gate::Guarded(logged_in) = &self.caller.gate else { return false };
        let stop = stop(&self.caller, logged_in, self.multi.is_open(), commands, request);
        self.front.stop = stop;
        self.front.stop.is_some()
    }

    /// The end of a request that does not pass; nothing where it goes on.
    #[cold]
    pub(super) fn stop_at_gate(&mut self, spec: Option<&Spec>) -> Option<Flow> {
        let is_for_all = spec.is_some_and(|spec| spec.flags.has(Flags::NO_AUTH));
        let logged_in = match &self.caller.gate {
            Gate::Open => return None,
            Gate::Closed => return (!is_for_all).then(|| self.reject(spec, says::NOAUTH.as_bytes())),
            Gate::Guarded(logged_in) => logged_in.clone(),
        };
        let stop = self.front.stop.take();
        let is_new = self.front.is_counted_first(self.caller.client.received());
        if is_new
            && !is_for_all
            && let Err(limit) = logged_in.user.counts(self.caller.router.clock().now())
        {
            return Some(self.reject(spec, says::too_many_requests(&logged_in.user.name, limit).as_bytes()));
        }
        match stop? {
            Stop::Refused(error, what) => {
                if let Some(what) = what {
                    let line = line_of(&self.caller.client, &Usage::default(), self.caller.dialect());
                    logged_in.user.refused.note(what, line.trim_end().into());
                }
                Some(self.reject(spec, &error))
            }
            Stop::Answered(reply) => Some(self.answer(spec, &reply)),
        }
    }
}

/// What keeps a request of the logged-in user from going on.
fn stop(
    caller: &Caller,
    logged_in: &LoggedIn,
    in_transaction: bool,
    commands: &Arc<CommandTable>,
    request: &Request<'_>,
) -> Option<Stop> {
    let (user, rights) = (&logged_in.user, logged_in.rights(commands));
    let Some(spec) = commands.find(request) else {
        // Some node may know it all the same, and nobody knows what it does.
        let is_to_be_asked = rights.is_none() || commands.is_open(request.name());
        return (!is_to_be_asked).then(|| Stop::Refused(says::unknown_command(request), None));
    };
    if !spec.takes(request.len()) {
        // A server looks at that first.
        return None;
    }
    if spec.container && rights.is_some() {
        return Some(Stop::Refused(says::unknown_subcommand(request), None));
    }
    if let Some(refusal) = rights.and_then(|rights| rights.refusal(spec, request)) {
        let error = refusal.error(RefusalContext {
            user: &user.name,
            command: &spec.name,
            is_old: !caller.dialect().since((7, 2)),
        });
        let (reason, object) = refusal.logged(&spec.name);
        let context = if in_transaction { "multi" } else { "toplevel" };
        return Some(Stop::Refused(error.into_bytes(), Some(Refused { reason, context, object })));
    }
    let refused = |error: String| Some(Stop::Refused(error.into_bytes(), None));
    match spec.traits.about_users {
        AboutUsers::Nothing if spec.traits.acts_on_all && user.databases().is_some() => {
            refused(says::acts_on_others(&spec.name, &user.name))
        }
        AboutUsers::Nothing => None,
        AboutUsers::Changes => refused(says::changes_users(&spec.name, &user.name)),
        AboutUsers::List | AboutUsers::Names | AboutUsers::Rules | AboutUsers::Dryrun | AboutUsers::Log
            if in_transaction =>
        {
            refused(says::not_in_transaction(&spec.name))
        }
        about => acl::answer(caller, logged_in, about, commands, request).map(Stop::Answered),
    }
}

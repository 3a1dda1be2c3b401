//! What joins a transaction, and what may not.

use std::sync::atomic::Ordering::Relaxed;

use super::{
    Multi, RIGHTLESS_STAND_IN, STAND_IN, may_write,
    own::{OwnRequest, ReplySource},
};
use crate::{
    cluster::topology::ServerKind,
    commands::{
        plan::{self, MergeRule, Plan, Scripting},
        table::{
            Flags, Spec, Treatment,
            in_database::ReplyKeys,
            treatment::{ClientCommand, Local},
        },
    },
    protocol::{
        resp::{Request, request::decimal},
        says,
        slot::Slot,
    },
    session::{caller::Caller, login::Hello},
};

/// Where a command about the connection goes within a transaction.
enum Joins {
    /// To the node like the others: it does no harm on a shared connection.
    Wire,
    /// Nowhere: the proxy answers.
    Own,
    /// Nowhere: the proxy looks before the transaction runs, and answers.
    Ahead,
    /// Not at all.
    No,
}

/// Where a command goes at EXEC.
struct Destination {
    /// The proxy answers it, by other nodes or itself.
    own: Option<ReplySource>,
    slot: Option<Slot>,
    scripting: Option<Scripting>,
}

impl Multi {
    /// Queues a command between MULTI and EXEC; an error where it is refused.
    pub(in crate::session) fn enqueue(
        &mut self,
        caller: &Caller,
        request: &Request<'_>,
        spec: Option<&Spec>,
        plan: Plan,
    ) -> Result<(), Vec<u8>> {
        let Some(spec) = spec else {
            return Err(says::unknown_command(request));
        };
        if !spec.takes(request.len()) {
            return Err(says::wrong_arity(&spec.name).into());
        }
        if spec.container {
            return Err(says::unknown_subcommand(request));
        }
        if spec.flags.has(Flags::NO_MULTI) {
            let is_valkey = caller.router.topology().server.kind == ServerKind::Valkey;
            return Err(says::not_in_multi(is_valkey.then_some(&*spec.name)).into());
        }
        let place = place(caller, request, spec, plan)?;
        if plan::is_echoed(request, spec) {
            return Err(says::ECHOED_IN_MULTI.into());
        }
        let Some(transaction) = &mut self.transaction else { return Ok(()) };
        if let (Some(first), Some(slot)) = (transaction.slot, place.slot)
            && first != slot
        {
            let error = says::cross_slot_in_transaction(first, slot);
            return Err(error.into());
        }
        if transaction.sets && (place.slot.is_some() || place.scripting.is_some()) {
            return Err(says::BEHIND_CONFIG_SET.into());
        }
        transaction.slot = transaction.slot.or(place.slot);
        transaction.reads |= spec.is_readonly() && spec.has_keys();
        transaction.writes |= may_write(spec);
        transaction.tells |= spec.reply_keys != ReplyKeys::Nothing;
        transaction.scripts |= place.scripting.is_some_and(|which| which != Scripting::Fcall);
        transaction.functions |= place.scripting == Some(Scripting::Fcall);
        transaction.sets |= spec.treatment == Treatment::ConfigSet;
        if let Some(answer) = place.own {
            let request = request.to_owned();
            transaction.own_size += request.held();
            transaction.own.push(OwnRequest { place: transaction.queued, request, answer });
            let may_ping =
                caller.user.is_free(caller.router.clock().now()) && caller.router.topology().commands.serves("ping");
            transaction.frames.extend_from_slice(if may_ping { STAND_IN } else { RIGHTLESS_STAND_IN });
        } else {
            transaction.frames.extend_from_slice(request.frame());
        }
        transaction.queued += 1;
        caller.client.queued.store(transaction.queued, Relaxed);
        Ok(())
    }
}

/// Where a command goes at EXEC; or the error for one that cannot be part of a transaction.
fn place(caller: &Caller, request: &Request<'_>, spec: &Spec, plan: Plan) -> Result<Destination, Vec<u8>> {
    let wire = |slot| Ok(Destination { own: None, slot, scripting: None });
    let own = |answer| Ok(Destination { own: Some(answer), slot: None, scripting: None });
    match plan {
        Plan::One(slot) => wire(Some(slot)),
        Plan::Blocking(blocking) => wire(blocking.slot),
        Plan::Any => wire(None),
        // What is amended must be so here too. And by the node that all publishing goes through: what the
        // transaction's node passed on to it would come later than what others publish after EXEC.
        Plan::PubSub => own(ReplySource::PubSub),
        Plan::AnyRewritten(rule) => own(ReplySource::AnyRewritten(rule)),
        // Of keys it says nothing there.
        Plan::CountsKeys => own(ReplySource::Primaries(MergeRule::Info)),
        Plan::Unchanged(error) => own(ReplySource::Unchanged(error)),
        Plan::Primaries(rule) if spec.traits.about_servers => own(ReplySource::Primaries(rule)),
        // All that a database has is at the node that runs its transactions.
        Plan::Primaries(_) if spec.treatment == Treatment::Debug && caller.database.is_some() => wire(None),
        Plan::Scripting(which, slot) if which != Scripting::Flush => {
            Ok(Destination { own: None, slot, scripting: Some(which) })
        }
        Plan::Refuse(error) => Err(error),
        Plan::Split(_) | Plan::LongSplit(_) => Err(plan::cross_slot_error(request, spec)),
        Plan::Local(Local::ClusterView(_)) if !caller.presents_cluster() => Err(says::NO_CLUSTER.into()),
        Plan::Local(Local::ClusterKeyslot) if caller.is_in_no_cluster() => Err(says::NO_CLUSTER.into()),
        Plan::Local(local) => match joins(caller, local, request) {
            Joins::Wire => wire(None),
            Joins::Own => own(ReplySource::Local(local)),
            Joins::Ahead => own(ReplySource::Wait),
            Joins::No => Err(says::not_in_transaction(&spec.name).into_bytes()),
        },
        Plan::Primaries(_)
        | Plan::Keys
        | Plan::Scripting(..)
        | Plan::OutOfBand(_)
        | Plan::InTurn(_)
        | Plan::Scan(_)
        | Plan::AskServer => Err(says::not_in_transaction(&spec.name).into_bytes()),
    }
}

fn joins(caller: &Caller, local: Local, request: &Request<'_>) -> Joins {
    let own_credentials =
        caller.router.settings().client_credentials.borrow().is_some() && caller.router.users().is_empty();
    match local {
        Local::Ping | Local::Echo | Local::ClusterKeyslot | Local::Unwatch => Joins::Wire,
        Local::Readonly | Local::Readwrite | Local::Asking | Local::AclWhoami | Local::ClusterView(_) => Joins::Own,
        Local::ForgetScripts | Local::CountPatterns => Joins::Own,
        // A reply that stays away would tear EXEC's reply apart.
        Local::Client(ClientCommand::Reply) => Joins::No,
        Local::Client(_) => Joins::Own,
        // What changes the connection that the other commands of the transaction run on cannot be done in its midst.
        Local::Select if changes_database(caller, request) => Joins::No,
        Local::Select => Joins::Own,
        Local::Hello => match Hello::parse(request) {
            Ok(hello) if hello.version.is_some_and(|version| version != caller.lane.login().version) => Joins::No,
            Ok(Hello { credentials: Some(_), .. }) if !own_credentials => Joins::No,
            Ok(_) | Err(_) => Joins::Own,
        },
        // Malformed, it changes nothing.
        Local::Auth if own_credentials || request.len() > 3 => Joins::Own,
        Local::Auth => Joins::No,
        Local::Wait => Joins::Ahead,
        Local::Waitaof | Local::Monitor | Local::Proxy(_) => Joins::No,
        Local::Subscribe | Local::Psubscribe | Local::Ssubscribe => Joins::No,
        Local::Unsubscribe | Local::Punsubscribe | Local::Sunsubscribe => Joins::No,
        // They are carried out at once, or refused by a server that does not allow them.
        Local::Multi | Local::Exec | Local::Discard | Local::Watch | Local::Quit | Local::Reset => Joins::No,
    }
}

fn changes_database(caller: &Caller, request: &Request<'_>) -> bool {
    let number = decimal(request.arg(1)).and_then(|number| u32::try_from(number).ok());
    number.is_some_and(|number| number < caller.count_databases() && number != caller.client.database.load(Relaxed))
}

//! MULTI: commands are queued here and go to their node at EXEC as one contiguous batch, MULTI … EXEC, on the shared
//! link. Nothing interleaves, so it is as atomic as on a connection of its own, and no connection is taken.
//!
//! What the server would refuse while queueing is refused here with the server's words; what only the server can know
//! (no memory, no permission) comes back as EXECABORT.

use super::{Flow, Session};
use crate::{
    command::{Flags, Spec, treatment::Local},
    plan::{self, Plan},
    resp::{Request, write},
    says,
    slot::Slot,
    ticket::{Label, Route},
};

/// A MULTI that has not come to its EXEC.
#[derive(Default)]
pub(super) struct Transaction {
    /// The queued commands' frames.
    frames: Vec<u8>,
    queued: usize,
    slot: Option<Slot>,
    /// A command was refused: EXEC will be too.
    spoiled: bool,
}

impl Transaction {
    pub(super) fn spoil(&mut self) {
        self.spoiled = true;
    }

    /// Bytes that it holds.
    pub(super) fn size(&self) -> usize {
        self.frames.len()
    }
}

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

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
            return self.refuse(Some(spec), says::NOT_IN_MULTI.as_bytes());
        }
        let slot = match plan {
            Plan::One(slot) => Some(slot),
            Plan::Blocking(blocking) => blocking.slot,
            Plan::Any | Plan::Home | Plan::Local(Local::Ping | Local::Echo | Local::ClusterKeyslot) => None,
            Plan::Refuse(error) => return self.refuse(Some(spec), &error),
            Plan::Split(_) => return self.refuse(Some(spec), &plan::cross_slot_error(request, spec)),
            Plan::Primaries(_) | Plan::Scan(_) | Plan::AskServer | Plan::Local(_) => {
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
        transaction.frames.extend_from_slice(request.frame());
        transaction.queued += 1;
        self.answer(Some(spec), b"+QUEUED\r\n")
    }

    pub(super) fn multi(&mut self, spec: Option<&Spec>) -> Flow {
        if self.transaction.is_some() {
            // Redis does not count this one against the transaction.
            return self.answer_error(spec, says::NESTED_MULTI);
        }
        self.transaction = Some(Transaction::default());
        self.answer(spec, b"+OK\r\n")
    }

    pub(super) fn discard(&mut self, spec: Option<&Spec>) -> Flow {
        match self.transaction.take() {
            Some(_) => self.answer(spec, b"+OK\r\n"),
            None => self.answer_error(spec, says::DISCARD_WITHOUT_MULTI),
        }
    }

    pub(super) fn exec(&mut self, spec: Option<&Spec>) -> Flow {
        let Some(transaction) = self.transaction.take() else {
            return self.answer_error(spec, says::EXEC_WITHOUT_MULTI);
        };
        if transaction.spoiled {
            return self.answer_error(spec, says::EXECABORT);
        }
        if transaction.queued == 0 {
            return self.answer(spec, b"*0\r\n");
        }
        let mut batch = Vec::with_capacity(MULTI.len() + transaction.frames.len() + EXEC.len());
        batch.extend_from_slice(MULTI);
        batch.extend_from_slice(&transaction.frames);
        batch.extend_from_slice(EXEC);
        let route = transaction.slot.map_or(Route::Any, Route::Slot);
        let mut ticket = self.line.open(Some(Label::of(spec)), batch.len(), route, false);
        ticket.replies_before = transaction.queued + 1;
        self.lane.send(&self.router, self.favourite, &batch, ticket);
        Flow::Taken
    }

    /// An error that does not spoil a transaction.
    pub(super) fn answer_error(&self, spec: Option<&Spec>, error: &str) -> Flow {
        let mut frame = Vec::with_capacity(error.len() + 3);
        write::error(&mut frame, error.as_bytes());
        self.answer(spec, &frame)
    }
}

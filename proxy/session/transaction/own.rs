//! What the proxy answers itself within a transaction: once the others have run, each answer in its place.

use std::{collections::VecDeque, pin::pin};

use bytes::Bytes;

use super::Transaction;
use crate::{
    commands::table::treatment::{ClientCommand, Fold, Local},
    protocol::resp::{reply::Scanner, request::OwnedRequest, write},
    session::{
        Session, ask::out_of_band, attend::Eof, called, caller::Caller, dispatch, everywhere, login, server, wait,
    },
};

/// A queued request that goes to no connection of the transaction's.
pub(super) struct OwnRequest {
    /// How many are queued before it.
    pub(super) place: usize,
    pub(super) request: OwnedRequest,
    pub(super) answer: ReplySource,
}

/// Where the reply to such a request comes from.
pub(super) enum ReplySource {
    /// The proxy itself.
    Local(Local),
    /// The node that all publishing goes through.
    PubSub,
    /// Any primary, whose reply is amended.
    AnyRewritten(Fold),
    /// All primaries.
    Primaries(Fold),
    /// CONFIG SET of what is not to change.
    Unchanged(Vec<u8>),
}

impl Session {
    /// Puts the proxy's own answers in the places that stand-ins hold.
    pub(super) async fn put_in_own(
        &mut self,
        reply: Bytes,
        own: &[OwnRequest],
        mut waits: VecDeque<Bytes>,
    ) -> Option<Bytes> {
        let Some(head) = reply.iter().position(|&byte| byte == b'\n').map(|end| end + 1) else { return Some(reply) };
        if reply.first() != Some(&b'*') || head == reply.len() && reply.as_ref() != b"*0\r\n" {
            // Nothing ran.
            return Some(reply);
        }
        let (mut out, mut rest) = (reply[..head].to_vec(), &reply[head..]);
        let (mut own, mut index, mut scanner) = (own.iter().peekable(), 0, Scanner::default());
        while let Ok(Some(end)) = scanner.find(rest) {
            match own.next_if(|own| own.place == index) {
                Some(own) => out.extend(self.answer_own(own, &mut waits).await?),
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

    /// `None` where the client has gone.
    async fn answer_own(&mut self, own: &OwnRequest, waits: &mut VecDeque<Bytes>) -> Option<Bytes> {
        let request = &own.request.as_request();
        let topology = self.caller.router.topology().clone();
        let spec = topology.commands.find(request);
        Some(match own.answer {
            ReplySource::Local(local) => match local {
                Local::Hello => login::hello(&mut self.caller, &mut self.listening, request).await,
                Local::Auth => login::auth(&mut self.caller, &mut self.listening, request).await,
                Local::Select => login::select(&mut self.caller, &mut self.listening, request),
                Local::Wait => waits.pop_front().unwrap_or_default(),
                Local::Client(ClientCommand::Tracking) => self.set_tracking(request).await?,
                local => {
                    let line = self.caller.line.clone();
                    let answered = line.capture(|| {
                        let _ = self.answer_locally(local, request, spec);
                    });
                    answered.into()
                }
            },
            ReplySource::PubSub => {
                self.caller.ask_pubsub_node(request).await.unwrap_or_else(|text| write::error_frame(&text))
            }
            ReplySource::AnyRewritten(fold) => server::ask_amended(&self.caller, &self.caller.lane, request, fold)
                .await
                .unwrap_or_else(|text| write::error_frame(&text)),
            ReplySource::Primaries(fold) => {
                let counts_anew = called::counts_anew(&self.caller.router, spec);
                if let Some(error) =
                    self.attend_to(pin!(everywhere::deaf(self.caller.router.clone(), spec)), Eof::Waits).await?
                {
                    return Some(error);
                }
                let patience = self.caller.router.timeouts().request_timeout();
                let caller = self.caller.clone();
                let reply = self.attend_to(pin!(out_of_band(&caller, request, fold, patience)), Eof::Waits).await?;
                dispatch::tell_others(&self.caller, request, spec);
                if let Some(on_success) = counts_anew.filter(|_| reply.first() == Some(&b'+')) {
                    on_success.act();
                }
                reply
            }
            ReplySource::Unchanged(ref error) => server::config_as_it_is(&self.caller, request, error).await,
        })
    }
}

/// The replies to each WAIT within a transaction.
pub(super) async fn waits_within(caller: &Caller, transaction: &Transaction) -> VecDeque<Bytes> {
    let mut replies = VecDeque::new();
    for own in &transaction.own {
        if matches!(own.answer, ReplySource::Local(Local::Wait)) {
            replies.push_back(wait::wait_in_transaction(caller, &own.request.as_request()).await);
        }
    }
    replies
}

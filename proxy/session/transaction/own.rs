//! What the proxy answers itself within a transaction: once the others have run, each answer in its place.

use std::{collections::VecDeque, pin::pin};

use bytes::Bytes;

use super::Transaction;
use crate::{
    commands::table::treatment::{Local, MergeRule},
    protocol::resp::{reply::Scanner, request::OwnedRequest, write},
    session::{
        ask::out_of_band,
        attend::Eof,
        busy::Busy,
        called,
        caller::Caller,
        dispatch::{Dispatcher, Flow},
        everywhere, fan_out, server, wait,
        work::Job,
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
    /// The proxy, which has looked before the transaction ran.
    Wait,
    /// The node that all publishing goes through.
    PubSub,
    /// Any primary, whose reply is amended.
    AnyRewritten(MergeRule),
    /// All primaries.
    Primaries(MergeRule),
    /// CONFIG SET of what is not to change.
    Unchanged(Vec<u8>),
}

impl Job<'_> {
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
        let caller = self.caller().clone();
        let topology = caller.router.topology().clone();
        let spec = topology.commands.find(request);
        Some(match own.answer {
            ReplySource::Local(local) => {
                let answer = |dispatcher: &mut Dispatcher| dispatcher.answer_locally(local, request, spec);
                let (flow, said) = self.session.dispatcher.answer_aside(answer);
                match flow {
                    Flow::Work(work) => {
                        let mut job = Job { session: &mut *self.session, request, spec };
                        Box::pin(job.run(*work)).await?
                    }
                    Flow::Ends(reason) => {
                        self.session.busy = Busy::Ending(reason);
                        said
                    }
                    // Nothing of it goes to a node, and nothing is in flight.
                    Flow::Taken | Flow::Settle | Flow::Full | Flow::Waits(_) | Flow::Ask => said,
                }
            }
            ReplySource::Wait => waits.pop_front().unwrap_or_default(),
            ReplySource::PubSub => {
                caller.ask_pubsub_node(request).await.unwrap_or_else(|text| write::error_frame(&text))
            }
            ReplySource::AnyRewritten(rule) => server::ask_amended(&caller, &caller.lane, request, rule)
                .await
                .unwrap_or_else(|text| write::error_frame(&text)),
            ReplySource::Primaries(rule) => {
                let counts_anew = called::counts_anew(&caller.router, spec);
                let deaf = everywhere::deaf(caller.router.clone(), spec);
                if let Some(error) = self.session.attend_to(pin!(deaf), Eof::Waits).await? {
                    return Some(error);
                }
                let patience = caller.router.timeouts().request_timeout();
                let asking = out_of_band(&caller, request, rule, patience);
                let reply = self.session.attend_to(pin!(asking), Eof::Waits).await?;
                fan_out::tell_others(&caller, request, spec);
                if let Some(on_success) = counts_anew.filter(|_| reply.first() == Some(&b'+')) {
                    on_success.act();
                }
                reply
            }
            ReplySource::Unchanged(ref error) => server::config_as_it_is(&caller, request, error).await,
        })
    }
}

/// The replies to each WAIT within a transaction.
pub(super) async fn waits_within(caller: &Caller, transaction: &Transaction) -> VecDeque<Bytes> {
    let mut replies = VecDeque::new();
    for own in &transaction.own {
        if matches!(own.answer, ReplySource::Wait) {
            replies.push_back(wait::wait_in_transaction(caller, &own.request.as_request()).await);
        }
    }
    replies
}

//! What the proxy answers itself within a transaction: once the others have run, each answer in its place.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Transaction, error};
use crate::{
    command::treatment::{Client, Local},
    plan::{self, Plan},
    resp::{Request, reply::Scanner, request::OwnedRequest},
    says,
    session::Session,
};

impl Session {
    /// The replies to each WAIT within a transaction.
    pub(super) async fn waits_within(&mut self, transaction: &Transaction) -> VecDeque<Vec<u8>> {
        let mut replies = VecDeque::new();
        for (_, request) in &transaction.own {
            if request.as_request().is(0, "WAIT") {
                replies.push_back(self.wait_in_transaction(&request.as_request()).await);
            }
        }
        replies
    }

    /// Puts the proxy's own answers in the places that stand-ins hold.
    pub(super) async fn put_in_own(
        &mut self,
        reply: Bytes,
        own: &[(usize, OwnedRequest)],
        mut waits: VecDeque<Vec<u8>>,
    ) -> Option<Bytes> {
        let Some(head) = reply.iter().position(|&byte| byte == b'\n').map(|end| end + 1) else { return Some(reply) };
        if reply.first() != Some(&b'*') || head == reply.len() && reply.as_ref() != b"*0\r\n" {
            // Nothing ran.
            return Some(reply);
        }
        let (mut out, mut rest) = (reply[..head].to_vec(), &reply[head..]);
        let (mut own, mut index, mut scanner) = (own.iter().peekable(), 0, Scanner::default());
        while let Ok(Some(end)) = scanner.find(rest) {
            match own.next_if(|(place, _)| *place == index) {
                Some((_, request)) => out.extend(self.answer_own(&request.as_request(), &mut waits).await?),
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
    async fn answer_own(&mut self, request: &Request<'_>, waits: &mut VecDeque<Vec<u8>>) -> Option<Vec<u8>> {
        let topology = self.router.topology().clone();
        let spec = topology.commands.find(request);
        let plan = plan::plan(request, spec, &self.router.settings().policy);
        Some(match plan {
            Plan::Local(local) => match local {
                Local::Hello => self.hello(request).await,
                Local::Auth => self.auth(request).await,
                Local::Select => self.select(request),
                Local::Wait => waits.pop_front().unwrap_or_default(),
                Local::Client(Client::Tracking) => self.set_tracking(request).await?,
                local => {
                    let line = self.line.clone();
                    line.aside(|| {
                        let _ = self.answer_locally(local, request, spec);
                    })
                }
            },
            Plan::Home => self.ask_home(request).await.unwrap_or_else(|text| error(&text)).to_vec(),
            Plan::Amended(fold) => {
                self.ask_amended(&self.lane, request, fold).await.unwrap_or_else(|text| error(&text).to_vec())
            }
            Plan::Primaries(fold) => {
                let counts_anew = self.counts_anew(spec);
                if let Some(error) = self.deaf(spec).await? {
                    return Some(error.to_vec());
                }
                let patience = self.router.around().limits.request_timeout;
                let reply = self.aside(request, fold, patience).await?;
                self.tell_others(request, spec);
                if let Some(lesson) = counts_anew.filter(|_| reply.first() == Some(&b'+')) {
                    lesson.act();
                }
                reply.to_vec()
            }
            Plan::Unchanged(error) => self.config_as_it_is(request, &error).await,
            _ => error(&says::not_in_multi(None)).to_vec(),
        })
    }
}

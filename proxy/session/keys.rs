//! KEYS: the replies of all primaries as one, of any size, in bounded memory.
//!
//! Once the fronts of all replies are there, the client gets one head with the sum of their counts, then the bodies, node
//! after node ([`super::streamed`]).

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{
    Session,
    attempts::Attempts,
    attend::Eof,
    caller::Caller,
    streamed::{self, Failure, Streamed},
};
use crate::{
    cluster::topology::Route,
    commands::{
        merge::elements::{self, Head},
        table::Spec,
    },
    protocol::{
        resp::{Request, write},
        says,
    },
};

impl Session {
    /// Answers KEYS.
    pub(super) async fn keys(&mut self, request: &Request<'_>, spec: Option<&Spec>) {
        let ticket = self.open(request, spec, Route::Any).ticket;
        let router = self.caller.router.clone();
        let frame = Bytes::copy_from_slice(request.frame());
        let asked = ask_all(self.caller.clone(), frame);
        let work = async {
            let parts = asked.await?;
            ticket.stream(&head(&parts)?);
            for part in parts {
                part.body.pass_on(&router, &ticket).await?;
            }
            Ok(())
        };
        let done = self.attend(work, Eof::Waits).await;
        self.end_streamed(ticket, done);
    }
}

/// What one node says: how many there are, and the body of its list.
struct Part {
    head: Head,
    body: Streamed,
}

/// Asks every primary that owns slots; where one fails, the one that takes its place answers.
async fn ask_all(caller: Caller, frame: Bytes) -> Result<Vec<Part>, Failure> {
    let router = &caller.router;
    router.refresh();
    if router.topology().first_slots().is_empty() {
        // It waits for owners, as any request does.
        caller.attempts(None).connect().await?.give_back();
    }
    let slots = router.topology().first_slots().to_vec();
    let mut asking = JoinSet::new();
    for (index, slot) in slots.iter().enumerate() {
        let (attempts, frame) = (caller.attempts(Some(*slot)), frame.clone());
        asking.spawn_local(async move { (index, ask(attempts, &frame).await) });
    }
    let mut parts = Vec::with_capacity(slots.len());
    while let Some(Ok(part)) = asking.join_next().await {
        parts.push(part);
    }
    if parts.is_empty() {
        return Err(router.topology().down().into());
    }
    if parts.len() < slots.len() {
        return Err(says::ODD_REPLIES.to_owned().into());
    }
    parts.sort_by_key(|(index, _)| *index);
    parts.into_iter().map(|(_, part)| part).collect()
}

/// One head for all parts.
fn head(parts: &[Part]) -> Result<Vec<u8>, Failure> {
    let kind = parts.first().map(|part| part.head.kind).filter(|kind| parts.iter().all(|part| part.head.kind == *kind));
    let kind = kind.ok_or_else(|| says::ODD_REPLIES.to_owned())?;
    let mut out = Vec::new();
    write::head(&mut out, kind, parts.iter().map(|part| part.head.count as i64).sum());
    Ok(out)
}

/// The list of one node.
async fn ask(attempts: Attempts, frame: &[u8]) -> Result<Part, Failure> {
    let mut body = streamed::ask(attempts, frame).await?;
    match Head::of(body.front()) {
        Some(head) => {
            body.skip(head.body);
            Ok(Part { head, body })
        }
        None if elements::error_text(body.front()).is_some() => Err(Failure(body.front().clone())),
        None => Err(says::ODD_REPLIES.to_owned().into()),
    }
}

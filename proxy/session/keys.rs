//! KEYS: the replies of all primaries as one, of any size, in bounded memory.
//!
//! Once the fronts of all replies are there, the client gets one head with the sum of their counts, then the bodies, node
//! after node ([`super::streamed`]).

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{
    attempts::Attempts,
    caller::Caller,
    streamed::{self, ErrorReply, Streamed},
};
use crate::{
    commands::merge::elements::{self, Head},
    protocol::{
        resp::{Request, write},
        says,
    },
    upstream::ticket::Ticket,
};

/// Gives the client the reply to KEYS.
pub(super) async fn pass_on(caller: Caller, request: &Request<'_>, ticket: &Ticket) -> Result<(), ErrorReply> {
    let parts = ask_all(&caller, Bytes::copy_from_slice(request.frame())).await?;
    ticket.stream(&head(&parts)?);
    for part in parts {
        part.body.pass_on(&caller.router, ticket).await?;
    }
    Ok(())
}

/// What one node says: how many there are, and the body of its list.
struct NodeKeys {
    head: Head,
    body: Streamed,
}

/// Asks every primary that owns slots; where one fails, the one that takes its place answers.
async fn ask_all(caller: &Caller, frame: Bytes) -> Result<Vec<NodeKeys>, ErrorReply> {
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
fn head(parts: &[NodeKeys]) -> Result<Vec<u8>, ErrorReply> {
    let kind = parts.first().map(|part| part.head.kind).filter(|kind| parts.iter().all(|part| part.head.kind == *kind));
    let kind = kind.ok_or_else(|| says::ODD_REPLIES.to_owned())?;
    let mut out = Vec::new();
    write::head(&mut out, kind, parts.iter().map(|part| part.head.count as i64).sum());
    Ok(out)
}

/// The list of one node.
async fn ask(attempts: Attempts, frame: &[u8]) -> Result<NodeKeys, ErrorReply> {
    let mut body = streamed::ask(attempts, frame).await?;
    match Head::of(body.front()) {
        Some(head) => {
            body.skip(head.body);
            Ok(NodeKeys { head, body })
        }
        None if elements::error_text(body.front()).is_some() => Err(ErrorReply(body.front().clone())),
        None => Err(says::ODD_REPLIES.to_owned().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::topology::Route,
        upstream::router::scripted::{Scripted, frame, request, within_a_minute},
    };

    #[tokio::test(start_paused = true)]
    async fn all_lists_are_one() {
        within_a_minute(async {
            let mut nodes = Scripted::new(2);
            let (caller, words) = (Caller::of(&nodes), request("KEYS *"));
            let words = words.as_request();
            let ticket = caller.line.open(None, 1, Route::Any);
            let script = async {
                let (mut first, mut second) = (nodes.node(0).await, nodes.node(1).await);
                second.hears(&frame("KEYS *")).await;
                second.says(b"*2\r\n$1\r\nb\r\n$1\r\nc\r\n").await;
                first.hears(&frame("KEYS *")).await;
                first.says(b"*1\r\n$1\r\na\r\n").await;
            };
            let (passed, ()) = tokio::join!(pass_on(caller.clone(), &words, &ticket), script);
            assert!(passed.is_ok());
            ticket.fill(b"");
            assert_eq!(caller.was_told(), "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_one_is_the_reply() {
        within_a_minute(async {
            let mut nodes = Scripted::new(1);
            let (caller, words) = (Caller::of(&nodes), request("KEYS *"));
            let words = words.as_request();
            let ticket = caller.line.open(None, 1, Route::Any);
            let script = async {
                let mut node = nodes.node(0).await;
                node.hears(&frame("KEYS *")).await;
                node.says(b"-NOPERM no\r\n").await;
            };
            let (passed, ()) = tokio::join!(pass_on(caller.clone(), &words, &ticket), script);
            let Err(ErrorReply(error)) = passed else { panic!("an error") };
            assert_eq!(error, "-NOPERM no\r\n");
            ticket.fill(&error);
        })
        .await;
    }
}

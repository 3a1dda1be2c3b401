//! KEYS: the replies of all primaries as one, of any size, in bounded memory.
//!
//! Each node is asked on a connection that this session holds alone. Once the fronts of all replies are there, the
//! client gets one head with the sum of their counts, then the bodies, node after node, each in pieces: a node is read
//! only while the client has little left to read, and what is not read stays at the node, as it does with one server.
//! Nobody else waits meanwhile, neither for that client nor for the nodes.
//!
//! Before the head is out, an error is the whole reply. Behind it, nothing but closing its connection keeps the client
//! in step.

use std::{future::poll_fn, rc::Rc, task::Poll};

use bytes::Bytes;
use tokio::{task::JoinSet, time::timeout};

use super::{
    Session,
    attend::Eof,
    errand::{Errand, lost},
};
use crate::{
    command::Spec,
    dedicated::Dedicated,
    merge::elements::{self, Head},
    metrics::NodeError,
    refusal::Refusal,
    resp::{Request, write},
    router::{Lane, Router},
    says,
    ticket::{OWED_LIMIT, Route, Ticket, Why},
    topology::Hint,
};

impl Session {
    /// Answers KEYS.
    pub(super) async fn keys(&mut self, request: &Request<'_>, spec: Option<&Spec>) {
        let ticket = self.open(request, spec, Route::Any);
        let router = self.router.clone();
        let frame = Bytes::copy_from_slice(request.frame());
        let asked = ask_all(router.clone(), self.lane.clone(), self.favourite, frame);
        let work = async {
            let parts = asked.await?;
            ticket.stream(&head(&parts)?);
            for part in parts {
                part.pass_on(&router, &ticket).await?;
            }
            Ok(())
        };
        match self.attend(work, Eof::Waits).await {
            Ok(Ok(())) => ticket.fill(b""),
            Ok(Err(Failure(error))) if ticket.has_begun() => ticket.fail(&String::from_utf8_lossy(&error)),
            Ok(Err(Failure(error))) => ticket.fill(&error),
            Err(reason) => {
                self.ending = Some(reason);
                self.line.close();
                ticket.fill(b"");
            }
        }
    }
}

/// Why there is no list: the frame of the error.
struct Failure(Bytes);

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        let mut frame = Vec::new();
        write::error(&mut frame, text.as_bytes());
        Failure(frame.into())
    }
}

/// What one node says.
struct Part {
    head: Head,
    /// What has come of its body.
    front: Bytes,
    /// Where the rest will come from, unless that was all.
    rest: Option<Dedicated>,
}

/// Asks every primary that owns slots; where one fails, the one that takes its place answers.
async fn ask_all(router: Rc<Router>, lane: Rc<Lane>, favourite: usize, frame: Bytes) -> Result<Vec<Part>, Failure> {
    router.refresh();
    let errand = |slot| Errand::new(router.clone(), lane.clone(), slot, favourite);
    if router.topology().first_slots().is_empty() {
        // It waits for owners, as any request does.
        errand(None).connect().await?.give_back();
    }
    let slots = router.topology().first_slots().to_vec();
    let mut asking = JoinSet::new();
    for (index, slot) in slots.iter().enumerate() {
        let (errand, frame) = (errand(Some(*slot)), frame.clone());
        asking.spawn_local(async move { (index, ask(errand, &frame).await) });
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

/// Asks one node, and the next where that one did not execute the request.
async fn ask(mut errand: Errand, frame: &[u8]) -> Result<Part, Failure> {
    let mut lost_before = false;
    loop {
        let connection = errand.connect().await?;
        match attempt(&errand, connection, frame).await {
            Attempt::Begun(part) => return Ok(part),
            Attempt::Failed(failure) => return Err(failure),
            Attempt::Refused(why) => errand.again(why).await?,
            // Once only: what breaks the connection each time must not be sent for ever.
            Attempt::Lost(why) if lost_before => {
                return Err(format!("{}, the command may have run", why.last_error()).into());
            }
            Attempt::Lost(why) => {
                lost_before = true;
                errand.again(why).await?;
            }
        }
    }
}

/// How one attempt ended.
enum Attempt {
    /// The front of the node's list is there.
    Begun(Part),
    /// With an error.
    Failed(Failure),
    /// The node did not execute it.
    Refused(Why),
    /// The connection was lost when it may have been executed.
    Lost(Why),
}

async fn attempt(errand: &Errand, mut connection: Dedicated, frame: &[u8]) -> Attempt {
    let router = &errand.router;
    let (node, limit) = (connection.node().clone(), router.around().limits.request_timeout);
    let front = async {
        let asked = connection.send(frame).await;
        let asked = asked.map_err(|why| Attempt::Refused(errand.lost(&node, &why.to_string())))?;
        loop {
            match connection.piece().await {
                // A push answers nothing.
                Ok((push, true)) if push.first() == Some(&b'>') => {}
                Ok(front) => {
                    asked.answered();
                    break Ok(front);
                }
                Err(why) => break Err(Attempt::Lost(errand.lost(&node, &why.to_string()))),
            }
        }
    };
    let (front, last) = match timeout(limit, front).await {
        Ok(Ok(front)) => front,
        Ok(Err(attempt)) => return attempt,
        Err(_) => {
            router.node_tally(&node).error(NodeError::Timeout);
            router.hint(Hint::Timeout { node: node.id.clone() });
            return Attempt::Failed(says::no_answer(&node.label, limit).into());
        }
    };
    let rest = if last {
        connection.give_back();
        None
    } else {
        Some(connection)
    };
    if let Some(head) = Head::of(&front) {
        return Attempt::Begun(Part { head, front: front.slice(head.body..), rest });
    }
    match Refusal::of(&front).filter(|refusal| refusal.fits(errand.slot())) {
        Some(refusal) => Attempt::Refused(errand.refused(refusal, front, &node)),
        None if elements::error_text(&front).is_some() => Attempt::Failed(Failure(front)),
        None => Attempt::Failed(says::ODD_REPLIES.to_owned().into()),
    }
}

impl Part {
    /// Gives the client the body, as fast as the client reads it and the node sends it.
    async fn pass_on(self, router: &Router, ticket: &Ticket) -> Result<(), Failure> {
        has_room(ticket).await;
        ticket.stream(&self.front);
        let Some(mut connection) = self.rest else { return Ok(()) };
        let node = connection.node().clone();
        let patience = router.around().limits.node_timeout;
        loop {
            has_room(ticket).await;
            // Only now is the node listened to, so that it can be silent.
            let piece = timeout(patience, connection.piece()).await;
            let why = match piece {
                Ok(Ok((piece, last))) => {
                    ticket.stream(&piece);
                    if last {
                        connection.give_back();
                        return Ok(());
                    }
                    continue;
                }
                Ok(Err(why)) => why.to_string(),
                Err(_) => format!("silent for {patience:?}"),
            };
            let text = lost(router, &node, &why).last_error();
            tracing::info!(node = %node.label, why, "KEYS broken off, its client's connection is closed");
            return Err(text.into());
        }
    }
}

/// Ready while the client has so little to read that it may be given more. Whoever attends to the client looks again
/// when it has read on.
async fn has_room(ticket: &Ticket) {
    poll_fn(|_| if ticket.unwritten() < OWED_LIMIT { Poll::Ready(()) } else { Poll::Pending }).await;
}

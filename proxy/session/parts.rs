//! A split request whose parts' replies are large: their elements pass through in the order of the keys, as the client
//! reads them.
//!
//! Each part is asked on a connection of its own, a few parts ahead of the element that is due, and read beyond its front
//! only when one of its elements is due: no more than fronts that overtake others are held here. The first parts are asked
//! before the client is given anything, so that a node that cannot be reached is an error; what fails later breaks the
//! reply off.

use bytes::{Buf, Bytes, BytesMut};
use tokio::task::JoinSet;

use super::{
    Session,
    apart::place_at,
    attempts::Attempts,
    attend::Eof,
    called,
    caller::Caller,
    long::Portion,
    streamed::{self, ErrorReply, Streamed, has_room},
    work::Job,
};
use crate::{
    cluster::recovery::Why,
    commands::{
        merge::elements::{self, Head},
        plan::Split,
    },
    protocol::{
        resp::{Request, reply::Scanner, request::Parser, write},
        says,
        slot::Slot,
    },
    upstream::{
        router::Router,
        sizes::LARGE_REPLY,
        ticket::{Bounced, Envelope, Ticket},
    },
};

/// Parts that are asked before they are due.
const ASKED_AHEAD: usize = 16;

/// The parts of a request, asked in the order in which they are due.
struct Parts<F> {
    all: Vec<PartReply>,
    /// Those that have not been asked, the next to be due last.
    unasked: Vec<usize>,
    /// Those that have been asked and whose fronts have not come.
    asking: JoinSet<(usize, Result<ElementStream, ErrorReply>)>,
    /// How many have been asked and are not due yet.
    ahead: usize,
    attempts: F,
}

/// One part of the request.
enum PartReply {
    Unasked(Slot, Bytes),
    Asked,
    /// Its front has come, and nothing of it is due yet.
    Ahead(Box<ElementStream>),
    Due(Box<ElementStream>),
}

/// The elements of a part's reply that have not been passed on.
struct ElementStream {
    reply: Streamed,
    held: BytesMut,
    scanner: Scanner,
}

impl Job<'_> {
    /// Answers a split request that only reads.
    pub(super) async fn stream_parts(&mut self, split: &Split) -> Option<Bytes> {
        let envelope = self.session.dispatcher.open_split(self.request, self.spec);
        let (caller, request) = (self.caller().clone(), self.request);
        called::count_parts(&caller.router, self.spec, split.parts.len().saturating_sub(1));
        let work = async |envelope: &mut Envelope| pass_on(caller, split, request, envelope).await;
        self.session.stream(envelope, work, Eof::IsNoted).await;
        None
    }
}

/// Answers a split request anew, whose parts have turned out to be too large to be put together here.
pub(super) async fn stream_again(session: &mut Session, bounced: Bounced) {
    let Bounced { envelope, request: frame, why } = bounced;
    let mut parser = Parser::default();
    let (Why::TooLarge(split), Ok(Some(found))) = (why, parser.find(&frame)) else {
        return envelope.fail(says::ODD_REPLIES);
    };
    let caller = session.dispatcher.caller.clone();
    if split.parts.iter().any(|part| caller.line.ran_behind(&envelope.ticket, part.slot)) {
        return envelope.fail(says::PARTS_TOO_LARGE);
    }
    let request = parser.request(&frame, found);
    called::count_parts(&caller.router, caller.router.topology().commands.find(&request), split.parts.len());
    let work = async |envelope: &mut Envelope| pass_on(caller, &split, &request, envelope).await;
    session.stream(envelope, work, Eof::IsNoted).await;
}

/// Gives the client the elements of a split request's reply.
async fn pass_on(caller: Caller, split: &Split, request: &Request<'_>, envelope: &Envelope) -> Result<(), ErrorReply> {
    // Each part takes a place of its own: who held one meanwhile could wait for himself.
    envelope.release();
    let ticket = &envelope.ticket;
    let mut all: Vec<PartReply> = Vec::with_capacity(split.parts.len());
    let mut encoded = Portion::default();
    for (index, part) in split.parts.iter().enumerate() {
        let mut frame = Vec::new();
        split.encode(index, request, &mut frame);
        all.push(PartReply::Unasked(part.slot, frame.into()));
        encoded.add(split.keys_of(index).len()).await;
    }
    let (router, order) = (&caller.router, split.part_of_each_key());
    let mut passed = Portion::default();
    let mut parts = Parts::new(all, &order, |slot| caller.attempts(Some(slot)));
    parts.ask_first().await?;
    let mut head = Vec::new();
    write::array(&mut head, order.len());
    ticket.stream(&head);
    let mut length = head.len();
    for part in &order {
        length += parts.due(*part as usize).await?.pass_on_next(router, ticket).await?;
        passed.add(1).await;
    }
    if length < LARGE_REPLY {
        router.large().note_small(request.frame(), router.clock().now());
    }
    Ok(())
}

impl<F: Fn(Slot) -> Attempts> Parts<F> {
    /// Nothing has been asked; `order` says of which part each element is.
    fn new(all: Vec<PartReply>, order: &[u32], attempts: F) -> Parts<F> {
        let mut seen = vec![false; all.len()];
        let mut is_first = |part: &usize| seen.get_mut(*part).is_some_and(|seen| !std::mem::replace(seen, true));
        let mut unasked: Vec<usize> = order.iter().map(|part| *part as usize).filter(|part| is_first(part)).collect();
        unasked.reverse();
        Parts { all, unasked, asking: JoinSet::new(), ahead: 0, attempts }
    }

    /// Asks the first, and waits for them.
    async fn ask_first(&mut self) -> Result<(), ErrorReply> {
        self.ask_ahead();
        while !self.asking.is_empty() {
            self.hear().await?;
        }
        Ok(())
    }

    /// Asks as many as may be ahead.
    fn ask_ahead(&mut self) {
        while self.ahead < ASKED_AHEAD
            && let Some(index) = self.unasked.pop()
            && let Some(part) = self.all.get_mut(index)
        {
            if let PartReply::Unasked(slot, frame) = std::mem::replace(part, PartReply::Asked) {
                let attempts = (self.attempts)(slot);
                self.asking.spawn_local(async move { (index, ask(attempts, slot, frame).await) });
                self.ahead += 1;
            }
        }
    }

    /// Waits for the front of any that has been asked.
    async fn hear(&mut self) -> Result<(), ErrorReply> {
        if let Some(Ok((index, begun))) = self.asking.join_next().await
            && let Some(part) = self.all.get_mut(index)
        {
            *part = PartReply::Ahead(Box::new(begun?));
            return Ok(());
        }
        Err(says::ODD_REPLIES.to_owned().into())
    }

    /// The elements of a part of which one is due. When that is its first, another part is asked in its place.
    async fn due(&mut self, index: usize) -> Result<&mut ElementStream, ErrorReply> {
        while matches!(self.all.get(index), Some(PartReply::Asked)) {
            self.hear().await?;
        }
        if let Some(part @ PartReply::Ahead(_)) = self.all.get_mut(index)
            && let PartReply::Ahead(elements) = std::mem::replace(part, PartReply::Asked)
        {
            *part = PartReply::Due(elements);
            self.ahead -= 1;
            self.ask_ahead();
        }
        match self.all.get_mut(index) {
            Some(PartReply::Due(elements)) => Ok(elements),
            _ => Err(says::ODD_REPLIES.to_owned().into()),
        }
    }
}

/// Asks for one part; the front of its reply says that it is a list.
async fn ask(attempts: Attempts, slot: Slot, frame: Bytes) -> Result<ElementStream, ErrorReply> {
    let place = place_at(&attempts.router, Some(slot), 0).await;
    let mut reply = streamed::ask(attempts, &frame).await?;
    drop(place);
    match Head::of(reply.front()) {
        Some(head) => {
            reply.skip(head.body);
            Ok(ElementStream { reply, held: BytesMut::new(), scanner: Scanner::default() })
        }
        None if elements::error_text(reply.front()).is_some() => Err(ErrorReply(reply.front().clone())),
        None => Err(says::ODD_REPLIES.to_owned().into()),
    }
}

impl ElementStream {
    /// Gives the client the next element; says how many bytes it has.
    async fn pass_on_next(&mut self, router: &Router, ticket: &Ticket) -> Result<usize, ErrorReply> {
        let mut length = 0;
        loop {
            has_room(ticket).await;
            if !self.held.is_empty() {
                let end = self.scanner.find(&self.held).map_err(|_| says::ODD_REPLIES.to_owned())?;
                let passed = end.unwrap_or_else(|| self.scanner.scanned(self.held.len()));
                ticket.stream(&self.held[..passed]);
                self.held.advance(passed);
                length += passed;
                if end.is_some() {
                    return Ok(length);
                }
                self.scanner.passed_on(passed);
            }
            let (piece, last) = self.reply.piece(router).await?;
            if last && piece.is_empty() {
                return Err(says::ODD_REPLIES.to_owned().into());
            }
            self.held.extend_from_slice(&piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::spawn_local;

    use super::*;
    use crate::upstream::router::scripted::{Scripted, frame, within_a_minute};

    #[tokio::test(start_paused = true)]
    async fn only_so_many_parts_are_asked_ahead_of_the_one_that_is_due() {
        within_a_minute(async {
            let mut nodes = Scripted::new(1);
            let (caller, slot) = (Caller::of(&nodes), Slot::of(b"k"));
            let all = (0..20).map(|_| PartReply::Unasked(slot, frame("MGET k").into())).collect();
            // The first part's elements stand at both ends.
            let order: Vec<u32> = (0..20).chain([0]).collect();
            let mut parts = Parts::new(all, &order, |slot| caller.attempts(Some(slot)));
            let serves = async {
                loop {
                    let mut node = nodes.node(0).await;
                    spawn_local(async move {
                        loop {
                            node.hears(&frame("MGET k")).await;
                            node.says(b"*1\r\n$1\r\nv\r\n").await;
                        }
                    });
                }
            };
            let asks = async {
                assert!(parts.ask_first().await.is_ok());
                assert_eq!((parts.ahead, parts.unasked.len()), (ASKED_AHEAD, 4));
                assert!(parts.due(0).await.is_ok());
                assert_eq!((parts.ahead, parts.unasked.len()), (ASKED_AHEAD, 3), "another in its place");
                assert!(parts.due(0).await.is_ok());
                assert_eq!((parts.ahead, parts.unasked.len()), (ASKED_AHEAD, 3), "it was due before");
                for part in 1..20 {
                    assert!(parts.due(part).await.is_ok());
                }
                assert_eq!((parts.ahead, parts.unasked.len()), (0, 0));
            };
            tokio::select! {
                () = serves => {}
                () = asks => {}
            }
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_is_no_list_is_the_error_that_it_says() {
        within_a_minute(async {
            for (said, expected) in [("-NOPERM no\r\n", "-NOPERM no\r\n"), ("$1\r\nv\r\n", says::ODD_REPLIES)] {
                let mut nodes = Scripted::new(1);
                let (caller, slot) = (Caller::of(&nodes), Slot::of(b"k"));
                let answers = async {
                    let mut node = nodes.node(0).await;
                    node.hears(&frame("MGET k")).await;
                    node.says(said.as_bytes()).await;
                };
                let asked = ask(caller.attempts(Some(slot)), slot, frame("MGET k").into());
                let (begun, ()) = tokio::join!(asked, answers);
                let ErrorReply(error) = begun.err().expect("an error");
                assert!(String::from_utf8_lossy(&error).contains(expected), "{error:?}");
            }
        })
        .await;
    }
}

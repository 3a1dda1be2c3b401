//! Requests with very many keys: while they are cut and sent, the others of the worker go on.

use bytes::Bytes;
use tokio::task::yield_now;

use super::{
    Session,
    apart::{self, place_at},
    dispatch,
    work::Work,
};
use crate::{
    cluster::topology::Route,
    commands::{
        plan::{LongSplit, Plan, Split},
        table::{Spec, treatment::Fold},
    },
    protocol::resp::Request,
    upstream::ticket::ReplySize,
};

/// How many keys go between two looks at the others: about half a millisecond of work.
const PORTION: usize = 2048;

impl Session {
    /// Cuts a long request, and sends its parts. Nothing of its session is under way.
    pub(super) async fn send_long(
        &mut self,
        cut: LongSplit,
        request: &Request<'_>,
        spec: Option<&Spec>,
    ) -> Option<Bytes> {
        let mut plan = Plan::Split(Box::new(cut_up(cut, request).await));
        if apart::is_careful(&self.caller) {
            match apart::goes_apart(&self.caller, self.listening.caching(), plan, request, spec) {
                Ok(Work::StreamParts(split)) => return self.stream_parts(&split, request, spec).await,
                Ok(_) => return None,
                Err(same) => plan = same,
            }
        }
        let Plan::Split(split) = plan else { return None };
        let unknown = split.fold == Fold::KeyOrder && self.caller.line.reply_size() != ReplySize::Small;
        let place = match split.parts.first().filter(|_| unknown) {
            Some(part) => place_at(&self.caller.router, Some(part.slot), self.caller.affinity).await,
            None => None,
        };
        self.caller.router.refresh();
        self.barrier.follow(self.caller.router.epoch());
        self.listening.follow(&self.caller);
        let mut envelope = self.open(request, spec, Route::Any);
        envelope.hold(place);
        // Some of it may have to go again, and nothing must overtake that.
        self.barrier.hold_behind(Route::Any);
        let (mut frame, mut sent) = (Vec::new(), Portion::default());
        for (index, part) in dispatch::parts_of(&self.caller, request, spec, &split, envelope).into_iter().enumerate() {
            dispatch::send_part(&self.caller, &split, index, request, part, &mut frame);
            sent.add(split.keys_of(index).len()).await;
        }
        None
    }
}

/// Cuts a long request.
pub(super) async fn cut_up(mut cut: LongSplit, request: &Request<'_>) -> Split {
    while !cut.go_on(request, 4 * PORTION) {
        yield_now().await;
    }
    cut.finish(request)
}

/// Work on many keys, in portions.
#[derive(Default)]
pub(super) struct Portion(usize);

impl Portion {
    /// So many more have been done: the others go on where it has become a portion.
    pub async fn add(&mut self, keys: usize) {
        self.0 += keys;
        if self.0 >= PORTION {
            self.0 = 0;
            yield_now().await;
        }
    }
}

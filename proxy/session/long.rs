//! Requests with very many keys: while they are cut and sent, the others of the worker go on.

use std::rc::Rc;

use bytes::Bytes;
use tokio::task::yield_now;

use super::{
    apart::{self, place_at},
    dispatch::Dispatcher,
    fan_out,
    work::Job,
};
use crate::{
    cluster::topology::Route,
    commands::{
        plan::{LongSplit, Split},
        table::treatment::MergeRule,
    },
    protocol::resp::Request,
    upstream::ticket::ReplySize,
};

/// How many keys go between two looks at the others: about half a millisecond of work.
const PORTION: usize = 2048;

impl Job<'_> {
    /// Cuts a long request, and sends its parts. Nothing of its session is under way.
    pub(super) async fn send_long(&mut self, cut: LongSplit) -> Option<Bytes> {
        let split = Rc::new(cut_up(cut, self.request).await);
        let Job { request, spec, .. } = *self;
        let caching = self.listening().caching();
        if apart::is_careful(self.caller()) && apart::split_goes_apart(self.caller(), caching, &split, request, spec) {
            return self.stream_parts(&split).await;
        }
        let caller = self.caller().clone();
        let unknown = split.rule == MergeRule::KeyOrder && caller.line.reply_size() != ReplySize::Small;
        let place = match split.parts.first().filter(|_| unknown) {
            Some(part) => place_at(&caller.router, Some(part.slot), caller.affinity).await,
            None => None,
        };
        caller.router.refresh();
        let Dispatcher { barrier, listening, .. } = &mut self.session.dispatcher;
        barrier.follow(caller.router.epoch());
        listening.follow(&caller);
        // Some of it may have to go again, and nothing must overtake that.
        barrier.hold_behind(Route::Any);
        let mut envelope = self.session.dispatcher.open_split(request, spec);
        envelope.hold(place);
        let (mut frame, mut sent) = (Vec::new(), Portion::default());
        for (index, part) in fan_out::parts_of(&caller, request, spec, &split, envelope).into_iter().enumerate() {
            fan_out::send_part(&caller, &split, index, request, part, &mut frame);
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

//! What a line holds: its places, what they have of their replies, and what is ready for the client.

use std::{collections::VecDeque, time::Instant};

use bytes::BytesMut;

use super::OWED_LIMIT;
use crate::{
    clients::PEAK_RESET,
    cluster::topology::Route,
    commands::database::Strip,
    protocol::slot::Slot,
    upstream::{
        sizes::LARGE_REPLY,
        ticket::{Bounced, Label},
        waking::Waking,
    },
};

/// Requests in flight that a new client starts with. One more is allowed for each small reply, as TCP opens its window:
/// a burst of requests with huge replies is then over before it has cost much.
pub(super) const FIRST_WINDOW: usize = 8;
/// Room for so many places is kept while there are none: usual pipelines would else make room anew each time.
pub(super) const KEPT_PLACES: usize = 32;
/// Buffers for replies out of turn that a line keeps for the next ones, and the largest that is kept.
const SPARE_BUFFERS: usize = 32;
const SPARE_CAPACITY: usize = 512;
/// How often the session is told that more is gathered for it: each time that it is so much more.
pub(super) const GATHERED_STEP: usize = 1024 * 1024;
/// The output buffer's capacity that a line keeps while nothing is owed.
pub(super) const KEPT_OUTPUT: usize = 4096;

/// What is known of a client by its replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplySize {
    /// None has come yet.
    #[default]
    New,
    /// The last one was small.
    Small,
    /// The last one was large.
    Large,
}

/// What changes as requests and replies come.
#[derive(Default)]
pub(super) struct LineState {
    /// Replies in their order, for the client to read.
    pub out: BytesMut,
    /// The most that there was of them of late, and until when that counts.
    pub peak: (usize, Option<Instant>),
    /// The room that there was for them after the last write.
    pub room: usize,
    /// How often the peak and the room have changed.
    pub shape: u32,
    /// Messages that came while a reply was half written.
    pub pushes: BytesMut,
    pub places: VecDeque<Place>,
    /// The number of the front place.
    pub front: u64,
    /// Bytes of replies that wait for their turn, and how many these are.
    pub parked: usize,
    pub waiting: usize,
    /// Bytes of replies that have to be put together with others first.
    pub gathered: usize,
    /// Bytes of requests that wait for their replies.
    pub asked: usize,
    pub bounced: Vec<Bounced>,
    pub window: usize,
    pub reply_size: ReplySize,
    /// The session.
    pub waking: Waking,
    pub spare: Vec<Vec<u8>>,
    pub closed: bool,
    /// A reply could not be finished: all that can be done is to close the connection.
    pub broken: bool,
    /// What the client has been sent last says that it is to forget all that it holds.
    pub flushed: bool,
}

/// What a reply goes through on its way to the client.
#[derive(Default)]
pub struct ReplyFilter {
    /// The client does not want the reply (CLIENT REPLY).
    pub is_unwanted: bool,
    /// It is of a database of the client's own.
    pub strip: Option<Box<Strip>>,
}

/// The place of one reply, or of a message that stands between two.
pub(super) struct Place {
    pub reply: Vec<u8>,
    /// Bytes of the reply so far, also of those that are already on their way.
    pub length: usize,
    pub whole: bool,
    /// Something of its reply has come, perhaps only one of the parts that make it.
    pub touched: bool,
    pub failed: bool,
    /// It is not for the client at all.
    pub is_unwanted: bool,
    /// What the reply goes through on its way to the client.
    pub strip: Option<Box<Strip>>,
    pub request_bytes: u32,
    /// Where the request goes; what goes to several nodes says `Any`.
    pub route: Route,
    pub opened: Instant,
    /// `None` for what the proxy answered itself: that has been counted.
    pub label: Option<Label>,
}

impl Place {
    pub fn answered(reply: Vec<u8>, opened: Instant) -> Place {
        Place {
            length: reply.len(),
            reply,
            whole: true,
            touched: true,
            failed: false,
            is_unwanted: false,
            strip: None,
            request_bytes: 0,
            route: Route::Any,
            opened,
            label: None,
        }
    }
}

impl LineState {
    pub fn push_behind(&mut self, message: &[u8], now: Instant) {
        if self.closed {
            return;
        }
        match self.places.iter().rposition(|place| place.touched) {
            None => self.out.extend_from_slice(message),
            Some(last) => {
                self.parked += message.len();
                match self.places.get_mut(last + 1) {
                    // Nothing of its own reply has come, so that the message stands in front of that.
                    Some(next) => {
                        self.waiting += usize::from(next.reply.is_empty());
                        next.reply.extend_from_slice(message);
                    }
                    None => {
                        self.waiting += 1;
                        self.places.push_back(Place::answered(message.to_vec(), now));
                    }
                }
            }
        }
        self.wake();
    }

    /// Whether a request, or a part of one, has run that stands behind the place `number` and may be about the same keys
    /// as what that one does in `slot`: one of the two writes.
    pub fn ran_behind(&self, number: u64, slot: Slot, writes: bool) -> bool {
        let is_about = |place: &Place| match place.route {
            Route::Slot(other) | Route::Replica(other, _) => other == slot,
            Route::Any => true,
            Route::PubSub => false,
        };
        let may_write = |place: &Place| place.label.is_some_and(|label| writes || label.may_write);
        let behind = self.places.iter().zip(self.front..).skip_while(|(_, other)| *other <= number);
        behind.into_iter().any(|(place, _)| place.touched && may_write(place) && is_about(place))
    }

    /// Replies are about to be written: counts how many bytes there are.
    pub fn note_peak(&mut self, now: Instant) {
        let (most, until) = self.peak;
        if until.is_none_or(|until| now >= until) {
            self.peak = (self.out.len(), Some(now + PEAK_RESET));
        } else if self.out.len() > most {
            self.peak.0 = self.out.len();
        } else {
            return;
        }
        self.shape = self.shape.wrapping_add(1);
    }

    /// Replies have been written: counts the room that is kept for the next ones.
    pub fn note_room(&mut self) {
        if self.out.capacity() != self.room {
            self.room = self.out.capacity();
            self.shape = self.shape.wrapping_add(1);
        }
    }

    pub fn owed(&self) -> usize {
        self.out.len() + self.parked + self.pushes.len()
    }

    pub fn front_is_half_written(&self) -> bool {
        self.places.front().is_some_and(|place| place.length > 0 && !place.is_unwanted)
    }

    pub fn take_parked(&mut self, reply: &mut Vec<u8>) {
        if reply.is_empty() {
            return;
        }
        self.parked -= reply.len();
        self.waiting -= 1;
        if !self.closed {
            self.out.extend_from_slice(reply);
        }
        reply.clear();
    }

    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS && (1..=SPARE_CAPACITY).contains(&buffer.capacity()) {
            self.spare.push(buffer);
        }
    }

    /// Opens the window a little, or closes it so far that replies of this size keep within the limit.
    pub fn learn_size(&mut self, length: usize, most: usize) {
        self.reply_size = if length < LARGE_REPLY { ReplySize::Small } else { ReplySize::Large };
        self.window =
            if length * self.window > OWED_LIMIT { (OWED_LIMIT / length).max(1) } else { (self.window + 1).min(most) };
    }

    pub fn wake(&mut self) {
        self.waking.wake();
    }
}

//! Slots that are on their way from node to node, as far as nodes have said so of late.

use std::{
    cell::RefCell,
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::protocol::slot::Slot;

/// For how long a slot counts as moving after a node has said so.
const LATELY: Duration = Duration::from_secs(10);

/// The slots that are on their way.
#[derive(Debug, Default)]
pub struct Moving(RefCell<HashMap<Slot, Instant>>);

impl Moving {
    /// A node has said that not all keys of the slot are with it: ASK or TRYAGAIN.
    pub fn note(&self, slot: Slot, now: Instant) {
        self.0.borrow_mut().insert(slot, now);
    }

    /// Whether the slot was on its way lately.
    pub fn has(&self, slot: Slot, now: Instant) -> bool {
        let mut slots = self.0.borrow_mut();
        if slots.is_empty() {
            return false;
        }
        slots.retain(|_, since| now.saturating_duration_since(*since) < LATELY);
        slots.contains_key(&slot)
    }
}

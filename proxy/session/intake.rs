//! Back-pressure on what clients send, where memory is short.
//!
//! A request that is not whole cannot be served, and its memory cannot be freed. Where memory runs short because many are
//! under way, one client at a time reads on until its request is whole; the others' bytes stay in their sockets. A client that
//! has the turn and sends nothing loses it.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::sync::OwnedSemaphorePermit;

use crate::clients::Clients;

/// Bytes of a request that need no turn.
const SMALL: usize = 64 * 1024;
/// How often a session that waits for the turn looks whether there is room again.
const LOOK: Duration = Duration::from_millis(50);
/// How long a client that has the turn may send nothing.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whether a session may read more of a long request.
#[derive(Default)]
pub(super) enum Intake {
    /// There is room enough, as far as is known.
    #[default]
    NotNeeded,
    /// The turn is awaited, for a while.
    Awaited(Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>>>>),
    /// The session reads on as long as its client sends.
    Has(Turn),
}

/// The right to read on, and whether it was used since the last look.
#[derive(Clone)]
pub(super) struct Turn {
    permit: Rc<Cell<Option<OwnedSemaphorePermit>>>,
    is_used: Rc<Cell<bool>>,
}

impl Turn {
    fn new(permit: OwnedSemaphorePermit) -> Turn {
        let held = Turn { permit: Rc::new(Cell::new(Some(permit))), is_used: Rc::new(Cell::new(true)) };
        let watched = held.clone();
        tokio::task::spawn_local(async move {
            while watched.is_used.replace(false) {
                tokio::time::sleep(PATIENCE).await;
            }
            watched.permit.take();
        });
        held
    }

    /// Uses the turn; false where it has been lost.
    fn goes_on(&self) -> bool {
        let permit = self.permit.take();
        let has = permit.is_some();
        self.permit.set(permit);
        self.is_used.set(has);
        has
    }
}

impl Intake {
    /// Whether more may be read of a request of which `length` bytes have come. Where not, the turn is awaited.
    pub(super) fn may_read_on(&mut self, length: usize, clients: &Clients) -> bool {
        if length < SMALL {
            return true;
        }
        match self {
            Intake::Has(held) if held.goes_on() => return true,
            Intake::Awaited(_) => return false,
            Intake::NotNeeded | Intake::Has(_) => {}
        }
        if !clients.is_short() {
            *self = Intake::NotNeeded;
            return true;
        }
        let turn = clients.turn().clone();
        match turn.clone().try_acquire_owned() {
            Ok(permit) => {
                *self = Intake::Has(Turn::new(permit));
                true
            }
            Err(_) => {
                let wait = async move { tokio::time::timeout(LOOK, turn.acquire_owned()).await.ok()?.ok() };
                *self = Intake::Awaited(Box::pin(wait));
                false
            }
        }
    }

    /// Whether the turn is awaited.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self, Intake::Awaited(_))
    }

    /// Ready where no turn is awaited, or it is time to look again.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Intake::Awaited(wait) = self {
            *self = match ready!(wait.as_mut().poll(cx)) {
                Some(permit) => Intake::Has(Turn::new(permit)),
                None => Intake::NotNeeded,
            };
        }
        Poll::Ready(())
    }

    /// What was read has been dispatched: the next may read on.
    pub(super) fn end_turn(&mut self) {
        if let Intake::Has(held) = std::mem::take(self) {
            held.permit.take();
        }
    }
}

#[cfg(test)]
mod tests;

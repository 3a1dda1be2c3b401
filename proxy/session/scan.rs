//! SCAN over all nodes.

use super::{Flow, Session};
use crate::{command::Spec, resp::Request, slot::Slot, ticket::Route};

impl Session {
    pub(super) fn scan(&mut self, request: &Request<'_>, spec: Option<&Spec>, slot: Option<Slot>) -> Flow {
        self.forward(request, spec, slot.map_or(Route::Any, Route::Slot))
    }
}

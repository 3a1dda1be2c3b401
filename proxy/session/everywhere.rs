//! What changes the functions of all nodes is begun only when all of them listen: done at some alone, it would leave the
//! nodes with different functions until somebody notices.

use bytes::Bytes;

use super::Session;
use crate::{
    command::{Spec, treatment::Fold},
    plan::Plan,
    resp::{Request, request::Parser},
    ticket::Label,
};

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// Whether a command changes the functions of every node.
pub(super) fn changes_functions(spec: Option<&Spec>) -> bool {
    spec.is_some_and(|spec| {
        matches!(&*spec.name, "function|load" | "function|delete" | "function|flush" | "function|restore")
    })
}

impl Session {
    /// Sends a request to every primary, unless one of them is busy or cannot be reached: then nothing is done.
    pub(super) async fn everywhere(&mut self, request: &Request<'_>, fold: Fold) {
        let router = self.router.clone();
        let topology = router.topology().clone();
        let spec = topology.commands.find(request);
        if !topology.first_slots().is_empty() {
            match self.deaf().await {
                Some(None) => {}
                Some(Some(error)) => return self.line.answer(Label::of(spec), &error),
                None => return,
            }
        }
        let _ = self.carry_out_at_once(Plan::Primaries(fold), request, spec);
    }

    /// The error of a primary that takes nothing now; `None` where the client has gone.
    async fn deaf(&mut self) -> Option<Option<Bytes>> {
        let mut parser = Parser::default();
        let Ok(Some(found)) = parser.find(PING) else { return Some(None) };
        let patience = self.router.around().limits.request_timeout;
        let reply = self.aside(&parser.request(PING, found), Fold::AllSucceeded, patience).await?;
        // What is refused for a moment only is tried again.
        let is_deaf = reply.starts_with(b"-BUSY ") || reply.starts_with(b"-ERR proxy: ");
        Some(is_deaf.then_some(reply))
    }
}

//! The account of what a session holds for its client, whatever that is: memory is bounded by it, and CLIENT LIST shows it.

use super::{Session, busy::Busy, caller::Caller, listening::Listening};
use crate::{clients::Usage, protocol::resp::Request};

/// What a session has in the process's account.
#[derive(Default)]
pub(super) struct Account {
    pub(super) held: Usage,
    /// Bytes of what the client has named.
    named: usize,
    /// The shape of the line where nothing was held but that and the names.
    at_rest: Option<u32>,
}

impl Account {
    /// So much is held from now on.
    fn set(&mut self, usage: Usage, caller: &Caller) {
        if usage != self.held {
            caller.client.uses(usage);
            caller.router.clients().account(self.held.total(), usage.total());
            if let Some(seat) = caller.gate.seat()
                && seat.account(usage.total())
            {
                caller.router.clients().evict_one_of(&seat.user.name);
            }
            self.held = usage;
        }
        self.at_rest = (self.held.total() == self.named && self.held.arguments == 0).then(|| caller.line.shape());
    }

    /// Counts anew what the client has named. To be called whenever it may have named something.
    pub(super) fn count_names(&mut self, caller: &Caller, listening: &Listening) {
        self.named = caller.client.about().size() + caller.lane.login().size() + listening.tracked();
        self.at_rest = None;
    }

    /// The client is no longer known by any name.
    pub(super) fn forget_names(&mut self) {
        self.named = 0;
        self.at_rest = None;
    }
}

impl Session {
    /// Keeps the account of what is held for clients; where that is too much, the one that costs most has to go.
    #[inline(always)]
    pub(super) fn keep_account(&mut self) {
        if self.is_at_rest() {
            debug_assert_eq!(self.usage(), self.account.held);
        } else {
            self.count_anew();
        }
    }

    fn count_anew(&mut self) {
        let usage = self.usage();
        self.account.set(usage, &self.caller);
    }

    /// Whether nothing is held but what was held at rest: so it is in nearly every turn.
    #[inline(always)]
    fn is_at_rest(&self) -> bool {
        let holds_something = self.retry.is_some()
            || matches!(self.busy, Busy::Work { .. })
            || self.multi.is_open()
            || self.listening.subscriber.is_some()
            || self.reader.holds_something();
        !holds_something && self.account.at_rest.is_some_and(|shape| self.caller.line.rests_in(shape))
    }

    /// What is held now.
    fn usage(&self) -> Usage {
        let mut usage = self.caller.line.usage();
        // What has come back is kept by the session until it can go again.
        if self.retry.is_some() || self.caller.line.has_bounced() {
            usage.requests = self.caller.line.asked();
        }
        self.reader.account(&mut usage);
        if let Busy::Work { arguments, held } = self.busy {
            usage.arguments = arguments;
            usage.requests += held;
        }
        usage.queued = self.multi.size();
        usage.named = self.account.named + self.listening.size();
        usage
    }

    /// The same while a request is being answered, of which a server's query buffer still has the bytes. (Newer servers
    /// read into a buffer that clients share, as the proxy does.)
    pub(super) fn usage_with(&self, request: &Request<'_>) -> Usage {
        let input =
            if self.caller.dialect().shares_its_buffer() { 0 } else { request.frame().len() + self.reader.behind() };
        Usage { input, arguments: request.args().map(<[u8]>::len).sum(), ..self.usage() }
    }

    /// So many bytes more are held while a request keeps the session waiting.
    pub(super) fn waits_with(&mut self, more: usize) {
        if let Busy::Work { held, .. } = &mut self.busy {
            *held += more;
        }
        self.keep_account();
    }
}

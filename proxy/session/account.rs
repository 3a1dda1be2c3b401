//! The account of what a session holds for its client, whatever that is: memory is bounded by it, and CLIENT LIST shows it.

use super::{Session, busy::Busy, caller::Caller, dispatch::Dispatcher, listening::Listening};
use crate::{
    clients::Usage,
    protocol::resp::{Request, request::OwnedRequest},
};

/// What a session has in the process's account.
#[derive(Default)]
pub(super) struct Account {
    pub(super) held: Usage,
    /// Bytes of what the client has named.
    named: usize,
    /// The shape of the line where nothing was held but that and the names.
    at_rest: Option<u32>,
    /// While one request has the session for itself: bytes of its arguments, and of all that it takes.
    arguments: usize,
    work: usize,
}

impl Account {
    /// So much is held from now on.
    fn set(&mut self, usage: Usage, caller: &Caller) {
        if usage != self.held {
            caller.client.uses(usage);
            caller.router.clients().account(self.held.total(), usage.total());
            if let Some(logged_in) = caller.gate.logged_in()
                && logged_in.account(usage.total())
            {
                caller.router.clients().evict_one_of(&logged_in.user.name);
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

    /// This request has the session for itself from now on.
    pub(super) fn begin_work(&mut self, request: &OwnedRequest) {
        self.arguments = request.as_request().args().map(<[u8]>::len).sum();
        self.work = request.held();
    }

    /// So many bytes more are held while it has.
    pub(super) fn add_to_work(&mut self, more: usize) {
        self.work += more;
    }

    /// The client is no longer known by any name.
    pub(super) fn forget_names(&mut self) {
        self.named = 0;
        self.at_rest = None;
    }
}

impl Dispatcher {
    /// What is held for the client, but for what is in its session's hands.
    fn usage(&self) -> Usage {
        let mut usage = self.caller.line.usage();
        usage.queued = self.multi.size();
        usage.named = self.account.named + self.listening.size();
        usage
    }

    /// What is held while a request is being answered, of which a server's query buffer still has the bytes. (Newer servers
    /// read into a buffer that clients share, as the proxy does.)
    pub(super) fn usage_with(&self, request: &Request<'_>) -> Usage {
        let shares = self.caller.dialect().shares_its_buffer();
        let mut usage = self.usage();
        usage.requests += self.account.work;
        usage.input = if shares { 0 } else { request.frame().len() + self.front.behind() };
        usage.arguments = request.args().map(<[u8]>::len).sum();
        usage
    }

    /// The request that had the session for itself is done; it may have named something.
    pub(super) fn end_work(&mut self) {
        (self.account.arguments, self.account.work) = (0, 0);
        self.account.count_names(&self.caller, &self.listening);
    }
}

impl Session {
    /// Keeps the account of what is held for clients; where that is too much, the one that costs most has to go.
    #[inline(always)]
    pub(super) fn keep_account(&mut self) {
        if self.is_at_rest() {
            debug_assert_eq!(self.usage(), self.dispatcher.account.held);
        } else {
            self.count_anew();
        }
    }

    fn count_anew(&mut self) {
        let usage = self.usage();
        let Dispatcher { caller, account, .. } = &mut self.dispatcher;
        account.set(usage, caller);
    }

    /// Whether nothing is held but what was held at rest: so it is in nearly every turn.
    #[inline(always)]
    fn is_at_rest(&self) -> bool {
        let Dispatcher { caller, multi, listening, account, .. } = &self.dispatcher;
        let holds_something = self.retry.is_some()
            || matches!(self.busy, Busy::Work)
            || multi.is_open()
            || listening.subscriber.is_some()
            || self.reader.holds_something();
        !holds_something && account.at_rest.is_some_and(|shape| caller.line.rests_in(shape))
    }

    /// What is held now.
    fn usage(&self) -> Usage {
        let Dispatcher { caller, account, .. } = &self.dispatcher;
        let mut usage = self.dispatcher.usage();
        // What has come back is kept by the session until it can go again.
        if self.retry.is_some() || caller.line.has_bounced() {
            usage.requests = caller.line.asked();
        }
        self.reader.account(&mut usage);
        if matches!(self.busy, Busy::Work) {
            usage.arguments = account.arguments;
            usage.requests += account.work;
        }
        usage
    }
}

//! The account of what a session holds for its client, whatever that is: memory is bounded by it, and CLIENT LIST shows it.

use super::{Session, transaction::Transaction};
use crate::{clients::Usage, protocol::resp::Request};

impl Session {
    /// Keeps the account of what is held for clients; where that is too much, the one that costs most has to go.
    pub(super) fn account(&mut self) {
        if self.holds_replies_only() && self.caller.line.holds(&self.accounted) {
            return;
        }
        let usage = self.usage();
        if usage != self.accounted {
            self.caller.client.uses(usage);
            self.caller.router.clients().account(self.accounted.total(), usage.total());
            self.accounted = usage;
        }
    }

    /// Whether nothing is held but what the line holds, now as at the last account: so it is in nearly every turn.
    #[inline]
    fn holds_replies_only(&self) -> bool {
        let session_holds_more = self.retry.is_some()
            || self.waiting.is_some()
            || self.transaction.is_some()
            || self.subscriber.is_some()
            || self.reader.holds_something();
        !session_holds_more && self.accounted.is_of_replies(self.named)
    }

    /// What is held now.
    fn usage(&self) -> Usage {
        let mut usage = self.caller.line.usage();
        // What has come back is kept by the session until it can go again.
        if self.retry.is_some() || self.caller.line.has_bounced() {
            usage.requests = self.caller.line.asked();
        }
        self.reader.account(&mut usage);
        if let Some((arguments, held)) = self.waiting {
            usage.arguments = arguments;
            usage.requests += held;
        }
        usage.queued = self.transaction.as_ref().map_or(0, Transaction::size);
        usage.named = self.named + self.subscriber.as_ref().map_or(0, |subscriber| subscriber.size());
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
        if let Some((_, held)) = &mut self.waiting {
            *held += more;
        }
        self.account();
    }

    /// Lets go of what the client has named.
    pub(super) fn name_nothing(&mut self) {
        self.drop_subscriptions();
        self.end_tracking();
        let about = &mut *self.caller.client.about();
        (about.name, about.library, about.library_version) = Default::default();
        self.named = 0;
    }

    /// Counts anew what the client has named. To be called whenever it may have named something.
    pub(super) fn count_names(&mut self) {
        let tracked = self.tracking.as_ref().map_or(0, |tracking| tracking.size());
        self.named = self.caller.client.about().size() + self.caller.lane.login().size() + tracked;
    }
}

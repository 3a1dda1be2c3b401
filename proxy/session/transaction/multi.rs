//! MULTI and WATCH, as one client has them.

use std::sync::atomic::Ordering::Relaxed;

use super::Transaction;
use crate::{
    metrics::Transaction as Ended,
    protocol::{resp::Request, slot::Slot},
    session::{
        called,
        caller::Caller,
        watch::{self, Watch},
    },
};

/// What a client has queued, and what it watches.
#[derive(Default)]
pub(in crate::session) struct Multi {
    pub(super) transaction: Option<Transaction>,
    /// Keys that the client watches.
    pub(in crate::session) watch: Option<Watch>,
}

impl Multi {
    /// Whether commands are queued.
    pub(in crate::session) fn is_open(&self) -> bool {
        self.transaction.is_some()
    }

    /// What is queued.
    pub(in crate::session) fn queued(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// The slot of what is queued.
    pub(in crate::session) fn slot(&self) -> Option<Slot> {
        self.transaction.as_ref().and_then(Transaction::slot)
    }

    /// Bytes that are queued.
    pub(in crate::session) fn size(&self) -> usize {
        self.transaction.as_ref().map_or(0, Transaction::size)
    }

    /// A command was refused: EXEC will be too.
    pub(in crate::session) fn spoil(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.spoiled = true;
        }
    }

    /// Queues what comes from now on, behind this MULTI.
    pub(in crate::session) fn begin(&mut self, caller: &Caller, multi: &Request<'_>) {
        let slot = self.watch.as_ref().map(Watch::slot);
        self.transaction = Some(Transaction { slot, frames: multi.frame().to_vec(), ..Transaction::default() });
        caller.client.queued.store(0, Relaxed);
    }

    /// Ends the transaction, if there is one.
    pub(in crate::session) fn take(&mut self, caller: &Caller) -> Option<Transaction> {
        caller.client.queued.store(usize::MAX, Relaxed);
        self.transaction.take()
    }

    /// Ends it likewise, and it is not carried out.
    pub(in crate::session) fn drop_queued(&mut self, caller: &Caller) -> bool {
        let transaction = self.take(caller);
        if let Some(transaction) = &transaction {
            called::count_not_called(&caller.router, transaction);
        }
        transaction.is_some()
    }

    /// Ends it likewise, in this way, and watches nothing any more.
    pub(in crate::session) fn give_up(&mut self, caller: &Caller, how: Ended) {
        if self.drop_queued(caller) {
            caller.router.tally().transaction(how);
        }
        self.unwatch(caller);
    }

    /// Watches nothing any more.
    pub(in crate::session) fn unwatch(&mut self, caller: &Caller) {
        if let Some(watch) = self.watch.take() {
            watch::end(watch, caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        commands::plan,
        upstream::router::scripted::{Scripted, request, within_a_minute},
    };

    /// What becomes of a command between MULTI and EXEC.
    fn queue(multi: &mut Multi, caller: &Caller, words: &str) -> Result<(), String> {
        let (words, topology) = (request(words), caller.router.topology().clone());
        let words = words.as_request();
        let spec = topology.commands.find(&words);
        let plan = plan::plan(&words, spec, &caller.router.settings().policy);
        let queued = multi.enqueue(caller, &words, spec, plan);
        queued.map_err(|error| String::from_utf8_lossy(&error).into_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn commands_of_one_slot_are_queued_in_their_order() {
        within_a_minute(async {
            let (caller, mut multi) = (Caller::of(&Scripted::new(2)), Multi::default());
            multi.begin(&caller, &request("multi").as_request());
            assert!(multi.is_open() && caller.client.queued.load(Relaxed) == 0);
            for (words, error) in [
                ("INCR foo", ""),
                ("CLIENT ID", ""),
                ("GET bar", "CROSSSLOT"),
                ("SUBSCRIBE a", "cannot be part"),
                ("NOSUCH", "unknown command"),
                ("GET", "wrong number"),
                ("GET foo", ""),
            ] {
                match queue(&mut multi, &caller, words) {
                    Ok(()) => assert_eq!(error, "", "{words} is queued"),
                    Err(said) => assert!(!error.is_empty() && said.contains(error), "{words}: {said}"),
                }
            }
            let mut queued = Vec::new();
            multi.queued().unwrap().in_order(|request| {
                queued.push(request.args().map(String::from_utf8_lossy).collect::<Vec<_>>().join(" "));
            });
            assert_eq!(queued, ["INCR foo", "CLIENT ID", "GET foo"]);
            assert_eq!(multi.slot(), Some(Slot::of(b"foo")));
            assert_eq!(caller.client.queued.load(Relaxed), 3);
            let transaction = multi.take(&caller).unwrap();
            let batch = transaction.batch(b"");
            let stand_in = batch.windows(4).filter(|word| *word == b"PING").count();
            assert!(stand_in == 1 && !batch.windows(6).any(|word| word == b"CLIENT"), "the proxy answers that itself");
            assert!(!multi.is_open() && multi.size() == 0);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_up_is_gone_with_its_watch() {
        within_a_minute(async {
            let (caller, mut multi) = (Caller::of(&Scripted::new(1)), Multi::default());
            multi.begin(&caller, &request("MULTI").as_request());
            multi.spoil();
            assert!(!multi.queued().unwrap().needs_node(true), "EXEC will be refused");
            multi.give_up(&caller, Ended::Discarded);
            assert!(!multi.is_open() && multi.watch.is_none());
            assert_eq!(caller.client.queued.load(Relaxed), usize::MAX);
        })
        .await;
    }
}

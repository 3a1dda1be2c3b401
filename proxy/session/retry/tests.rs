//! Requests that came back, before scripted nodes.

use super::*;
use crate::{
    cluster::topology::Topology,
    commands::merge::MergeRule,
    protocol::slot::Slot,
    upstream::{
        router::scripted::{Scripted, frame, request, within_a_minute},
        ticket::RequestTraits,
    },
};

/// One request on its way by a caller, to the slot of `foo`: that is of the second of two nodes.
struct Sent {
    caller: Caller,
    barrier: Barrier,
    listening: Listening,
    retry: Option<Retry>,
}

impl Sent {
    fn by(caller: Caller) -> Sent {
        let route = Route::Slot(Slot::of(b"foo"));
        let ticket = caller.line.open(None, 1, route);
        caller.send(&frame("INCR foo"), Envelope::new(ticket, route, RequestTraits::default()));
        let barrier = Barrier::new(caller.router.epoch(), false);
        Sent { caller, barrier, listening: Listening::default(), retry: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Again {
        let Sent { caller, barrier, listening, retry } = self;
        Resend { caller, barrier, listening }.poll(retry, cx)
    }

    /// Goes on until it has been answered.
    async fn ends(&mut self) -> String {
        std::future::poll_fn(|cx| {
            self.caller.line.wake_with(cx.waker());
            match self.poll(cx) {
                Again::Done if self.caller.line.is_settled() => Poll::Ready(()),
                Again::TooLarge(_) => panic!("it is small"),
                _ => Poll::Pending,
            }
        })
        .await;
        self.caller.was_told()
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_moved_goes_where_it_is_now() {
    within_a_minute(async {
        let mut nodes = Scripted::new(2);
        let mut sent = Sent::by(Caller::of(&nodes));
        let script = async {
            let mut second = nodes.node(1).await;
            second.hears(&frame("INCR foo")).await;
            second.says(b"-MOVED 12182 127.0.0.1:7000\r\n").await;
            let mut first = nodes.node(0).await;
            first.hears(&frame("INCR foo")).await;
            first.says(b":1\r\n").await;
        };
        assert_eq!(tokio::join!(sent.ends(), script).0, ":1\r\n");
        assert!(sent.retry.is_none());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_never_ends_is_given_up_with_the_nodes_last_word() {
    within_a_minute(async {
        let mut nodes = Scripted::new(2);
        let mut sent = Sent::by(Caller::of(&nodes));
        let script = async {
            let mut node = nodes.node(1).await;
            loop {
                node.hears(&frame("INCR foo")).await;
                node.says(b"-LOADING Redis is loading the dataset in memory\r\n").await;
            }
        };
        let told = tokio::select! {
            told = sent.ends() => told,
            () = script => unreachable!("it answers for ever"),
        };
        assert!(told.starts_with("-LOADING "), "{told}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_goes_to_every_primary_waits_for_the_first_one_and_keeps_its_plan() {
    within_a_minute(async {
        let mut nodes = Scripted::new(2);
        let mut known = Topology::clone(&nodes.topology.borrow());
        known.epoch = 2;
        nodes.topology.send_replace(Arc::new(Topology::unknown("no seed has answered yet")));
        nodes.router.refresh();
        let caller = Caller::of(&nodes);
        let (mut barrier, all) = (Barrier::new(caller.router.epoch(), false), request("DBSIZE"));
        let ticket = caller.line.open(None, 1, Route::Any);
        let envelope = Envelope::new(ticket, Route::Any, RequestTraits::default());
        fan_out::send_to_primaries(&caller, &mut barrier, (&all.as_request(), None), MergeRule::Sum, &[], envelope);
        let mut sent = Sent { caller, barrier, listening: Listening::default(), retry: None };
        nodes.topology.send_replace(Arc::new(known));
        let script = async {
            for (index, count) in [(0, &b":1\r\n"[..]), (1, b":2\r\n")] {
                let mut node = nodes.node(index).await;
                node.hears(&frame("DBSIZE")).await;
                node.says(count).await;
            }
        };
        assert_eq!(tokio::join!(sent.ends(), script).0, ":3\r\n");
    })
    .await;
}

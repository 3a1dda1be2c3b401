//! Lanes over topologies that change, with scripted nodes.

use std::sync::Arc;

use tokio::task::LocalSet;

use super::scripted::{Scripted, frame};
use crate::{
    cluster::topology::{NOBODY, Node, Route, Topology},
    protocol::slot::Slot,
    upstream::{
        dial::{Login, TrackingRequest},
        link::{Audience, PushEvent},
        ticket::{Envelope, Line, RequestTraits},
    },
};

fn foo() -> Route {
    Route::Slot(Slot::of(b"foo"))
}

/// The nodes of a topology, with all slots at one of them.
fn all_at(nodes: Vec<Arc<Node>>, owner: u16, epoch: u64) -> Arc<Topology> {
    let mut topology = Topology::unknown("").with_layout(nodes, Box::new([owner; 16384]));
    topology.epoch = epoch;
    Arc::new(topology)
}

#[tokio::test(start_paused = true)]
async fn lanes_are_shared_by_who_logs_in_alike() {
    let nodes = Scripted::new(1);
    let (router, first) = (&nodes.router, nodes.router.first_lane());
    assert!(std::rc::Rc::ptr_eq(&first, &router.lane(&Login::default())));
    let other = router.lane(&Login { database: 1, ..Login::default() });
    assert!(!std::rc::Rc::ptr_eq(&first, &other));
}

#[tokio::test(start_paused = true)]
async fn a_link_goes_on_as_long_as_its_node_does() {
    let tasks = LocalSet::new();
    let test = async {
        let nodes = Scripted::new(2);
        let (router, lane) = (&nodes.router, nodes.router.first_lane());
        let (first, second) = {
            let topology = router.topology();
            (topology.nodes[0].clone(), topology.nodes[1].clone())
        };
        let link = lane.link(router, 0, foo()).expect("an owner");
        assert_eq!(link.node().id, second.id);
        // Its place among the nodes is another now, and it owns all.
        nodes.topology.send_replace(all_at(vec![second.clone()], 0, 2));
        router.refresh();
        assert!(std::rc::Rc::ptr_eq(&link, &lane.link(router, 0, foo()).expect("an owner")));
        // The slot is another node's.
        nodes.topology.send_replace(all_at(vec![first.clone(), second], 0, 3));
        router.refresh();
        assert_eq!(lane.link(router, 0, foo()).expect("an owner").node().id, first.id);
    };
    tasks.run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_serves_comes_back() {
    let tasks = LocalSet::new();
    let test = async {
        let mut nodes = Scripted::new(1);
        let router = nodes.router.clone();
        let owners = router.topology().nodes.clone();
        nodes.topology.send_replace(all_at(owners, NOBODY, 2));
        router.refresh();
        let line = Line::new(router.tally().clone(), router.clock().clone(), 10);
        let frame = frame("GET foo");
        let traits = RequestTraits { repeatable: true, ..RequestTraits::default() };
        let envelope = Envelope::new(line.open(None, frame.len(), foo()), foo(), traits);
        router.first_lane().send(&router, 0, &frame, envelope);
        assert_eq!(line.take_bounced().len(), 1);
        assert!(matches!(nodes.hints.recv().await, Some(crate::cluster::topology::Hint::Uncovered)));
    };
    tasks.run_until(test).await;
}

/// Hears nothing.
struct Nobody;

impl Audience for Nobody {
    fn hear(&self, _: &Node, _: PushEvent<'_>) {}
}

#[tokio::test(start_paused = true)]
async fn a_client_s_own_lane_covers_all_owners_and_says_when_it_lets_one_go() {
    let tasks = LocalSet::new();
    let test = async {
        let nodes = Scripted::new(2);
        let (router, all) = (&nodes.router, nodes.router.topology().nodes.clone());
        let lane = router.private_lane(&Login::default(), TrackingRequest::default(), std::rc::Rc::new(Nobody));
        assert!(lane.is_private());
        assert!(!lane.cover(router), "nothing has been let go");
        let open = || (0..2).filter(|&index| lane.open_link(index).is_some()).count();
        assert_eq!(open(), 2);
        // The second owns nothing any more: what it was to tell, nobody hears.
        nodes.topology.send_replace(all_at(all.clone(), 0, 2));
        router.refresh();
        assert!(lane.cover(router));
        assert!(!lane.cover(router), "that is said once");
        assert_eq!(open(), 1);
        // A node that has left takes its link with it.
        nodes.topology.send_replace(all_at(vec![all[1].clone()], 0, 3));
        router.refresh();
        assert!(lane.cover(router));
        assert_eq!(open(), 1);
    };
    tasks.run_until(test).await;
}

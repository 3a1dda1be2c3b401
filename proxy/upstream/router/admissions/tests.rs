//! Places at one node.

use super::*;
use crate::upstream::router::scripted::{Scripted, within_a_minute};

#[tokio::test(start_paused = true)]
async fn few_are_at_a_node_at_once_and_the_next_waits_for_its_place() {
    within_a_minute(async {
        let nodes = Scripted::new(2);
        let (admissions, topology) = (nodes.router.admissions(), nodes.router.topology().clone());
        let at = |node: usize| admissions.at(&topology.nodes[node]);
        let mut places: Vec<_> = (0..MOST_AT_ONCE).map(|_| at(0).unwrap_or_else(|_| panic!("a place"))).collect();
        assert!(at(1).is_ok(), "another node has places of its own");
        let waiting = at(0).expect_err("a wait");
        places.pop();
        let place = waiting.await;
        assert!(place.is_some());
        // Who waits too long goes without.
        let (waiting, since) = (at(0).expect_err("a wait"), tokio::time::Instant::now());
        assert!(waiting.await.is_none());
        assert_eq!(since.elapsed(), PATIENCE);
        // A node that has left is forgotten once nobody is there.
        admissions.keep(|_| false);
        assert!(at(0).is_err());
        drop((places, place));
        admissions.keep(|_| false);
        assert!(at(0).is_ok());
    })
    .await;
}

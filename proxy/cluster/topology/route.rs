//! From a route to the node that serves it: the one place that decides this.

use std::sync::Arc;

use super::{Node, Topology};
use crate::protocol::slot::Slot;

/// Where a request is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To the owner of the slot.
    Slot(Slot),
    /// What only reads: to this replica of the owner of the slot, by its index in [`Topology::nodes`].
    Replica(Slot, u16),
    /// To any primary; a session keeps to the same one.
    Any,
    /// To the primary that all publishing goes through.
    PubSub,
}

impl Topology {
    /// The node that serves a route now, as an index of [`Topology::nodes`]. Of what any primary may serve, `affinity`
    /// picks one: always the same, or the next one of which nothing bad is known. `None` where nobody serves it.
    #[inline]
    pub fn resolve(&self, route: Route, affinity: usize, is_well: impl Fn(usize) -> bool) -> Option<usize> {
        match route {
            Route::Slot(slot) => self.owner_index(slot),
            Route::Replica(_, index) => Some(usize::from(index)).filter(|index| *index < self.nodes.len()),
            Route::Any => self.any_index(affinity, is_well),
            Route::PubSub => self.pubsub_index(),
        }
    }

    /// The node that serves a route now, whether it is well or not; [`Topology::from_slots`] has an example.
    pub fn node_for(&self, route: Route, affinity: usize) -> Option<&Arc<Node>> {
        self.nodes.get(self.resolve(route, affinity, |_| true)?)
    }

    fn any_index(&self, affinity: usize, is_well: impl Fn(usize) -> bool) -> Option<usize> {
        let slots = self.first_slots();
        let at = |step: usize| {
            let picked = affinity.wrapping_add(step).checked_rem(slots.len())?;
            self.owner_index(*slots.get(picked)?)
        };
        (0..slots.len()).filter_map(at).find(|&index| is_well(index)).or_else(|| at(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::topology::AddressMap,
        protocol::{address::Address, resp::Value},
    };

    fn topology(slots: &[u8]) -> Topology {
        let (slots, _) = Value::parse(slots).unwrap().unwrap();
        Topology::from_slots(&slots, &Address::new("a", 1), Arc::new(AddressMap::default())).unwrap()
    }

    #[test]
    fn routes_lead_to_their_nodes() {
        let topology =
            topology(b"*2\r\n*3\r\n:0\r\n:99\r\n*2\r\n$1\r\na\r\n:1\r\n*3\r\n:100\r\n:199\r\n*2\r\n$1\r\nb\r\n:2\r\n");
        let label = |route, affinity| topology.node_for(route, affinity).map(|node| node.label.to_string());
        let slot = |number| Route::Slot(Slot::new(number).unwrap());
        assert_eq!(label(slot(7), 0).as_deref(), Some("a:1"));
        assert_eq!(label(slot(100), 0).as_deref(), Some("b:2"));
        assert_eq!(label(slot(200), 0), None, "nobody owns it");
        assert_eq!(label(Route::PubSub, 5).as_deref(), Some("a:1"), "the lowest id, for everybody");
        let any: Vec<_> = (0..4).filter_map(|affinity| label(Route::Any, affinity)).collect();
        assert_eq!(any, ["a:1", "b:2", "a:1", "b:2"]);
    }

    #[test]
    fn a_node_that_is_not_well_is_passed_over_where_another_will_do() {
        let topology =
            topology(b"*2\r\n*3\r\n:0\r\n:99\r\n*2\r\n$1\r\na\r\n:1\r\n*3\r\n:100\r\n:199\r\n*2\r\n$1\r\nb\r\n:2\r\n");
        let well = topology.resolve(Route::Any, 0, |index| &*topology.nodes[index].label != "a:1").unwrap();
        assert_eq!(&*topology.nodes[well].label, "b:2");
        let none = topology.resolve(Route::Any, 0, |_| false).unwrap();
        assert_eq!(&*topology.nodes[none].label, "a:1", "one has to be asked");
        let owner = topology.resolve(Route::Slot(Slot::new(0).unwrap()), 0, |_| false).unwrap();
        assert_eq!(&*topology.nodes[owner].label, "a:1", "nobody else can");
    }
}

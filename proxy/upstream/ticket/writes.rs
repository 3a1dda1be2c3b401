//! The nodes that a client has written to: what WAIT asks about.

use std::{cell::RefCell, sync::Arc, time::Instant};

use crate::cluster::topology::Node;

/// Where a client has written, each node with the time of the first write.
#[derive(Default)]
pub struct Writes(RefCell<Vec<(Arc<Node>, Instant)>>);

impl Writes {
    /// A node has executed a request that may write.
    pub fn note(&self, node: &Arc<Node>, now: impl FnOnce() -> Instant) {
        let mut written = self.0.borrow_mut();
        // Nearly always it is a known one, by the same link.
        if written.iter().any(|(known, _)| Arc::ptr_eq(known, node))
            || written.iter().any(|(known, _)| known.id == node.id)
        {
            return;
        }
        written.push((node.clone(), now()));
    }

    /// All of them.
    pub fn all(&self) -> Vec<(Arc<Node>, Instant)> {
        self.0.borrow().clone()
    }

    /// What was written to the node counts no more: the client has been told what became of it.
    pub fn forget(&self, node: &str) {
        self.0.borrow_mut().retain(|(known, _)| known.id != node);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_node_counts_from_its_first_write_until_it_is_forgotten() {
        let (start, writes) = (Instant::now(), Writes::default());
        let later = || start + Duration::from_secs(1);
        let (a, b) = (Node::primary("a", "a:1"), Node::primary("b", "b:1"));
        writes.note(&a, || start);
        writes.note(&b, later);
        writes.note(&Node::primary("a", "elsewhere:1"), later);
        let times: Vec<_> = writes.all().iter().map(|(node, at)| (node.id.clone(), *at)).collect();
        assert_eq!(times, [("a".to_owned(), start), ("b".to_owned(), later())]);
        writes.forget("a");
        assert_eq!(writes.all().len(), 1);
    }
}

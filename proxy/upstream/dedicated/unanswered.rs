//! What is left on a connection that is dropped before all is answered.

use std::rc::Rc;

use crate::upstream::doubt::{Connection, Doubts};

/// Whether a connection owes its holder something; where it does when it is dropped, that is in doubt for the client
/// on whose behalf it was asked.
pub(super) struct Unanswered {
    connection: Rc<Connection>,
    doubts: Option<Rc<Doubts>>,
    owes: bool,
}

impl Unanswered {
    /// Nothing yet, and on nobody's behalf.
    pub fn none(connection: &Rc<Connection>) -> Unanswered {
        Unanswered { connection: connection.clone(), doubts: None, owes: false }
    }

    /// From now on it is this client's.
    pub fn is_of(&mut self, doubts: &Rc<Doubts>) {
        self.doubts = Some(doubts.clone());
    }

    /// Something is sent, or all has been answered.
    pub fn owes(&mut self, owes: bool) {
        self.owes = owes;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let (true, Some(doubts)) = (self.owes, &self.doubts) {
            doubts.add(&self.connection);
            self.connection.is_lost();
        }
    }
}

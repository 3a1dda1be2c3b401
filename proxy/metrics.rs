//! Stub.
#![allow(missing_docs)]
use std::{cell::RefCell, collections::HashMap, io, rc::Rc, time::Duration};
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disconnect {
    Eof,
    Reset,
    Quit,
    Killed,
    OutputLimit,
    Protocol,
    Drain,
    NodeLost,
    Panic,
}
impl Disconnect {
    pub fn of(_: &io::Error) -> Disconnect {
        Disconnect::Reset
    }
}
#[derive(Clone, Copy, Debug)]
pub struct CommandId(pub u16);
#[derive(Clone, Copy, Debug)]
pub enum CommandClass {
    Read,
    Write,
    Other,
}
#[derive(Clone, Copy, Debug)]
pub enum NodeError {
    Moved,
    Ask,
    TryAgain,
    ClusterDown,
    Loading,
    ReadOnly,
    Timeout,
    Connection,
}
#[derive(Default)]
pub struct ClientTally;
impl ClientTally {
    pub fn command(&self, _: CommandId, _: CommandClass, _: bool, _: Duration) {}
    pub fn received(&self, _: usize) {}
    pub fn sent(&self, _: usize) {}
    pub fn protocol_error(&self, _: &'static str) {}
    pub fn gave_up(&self) {}
    pub fn retried(&self, _: &'static str) {}
    pub fn client_came(&self) {}
    pub fn client_left(&self, _: Disconnect) {}
}
#[derive(Default)]
pub struct NodeTally;
impl NodeTally {
    pub fn queued(&self, _: usize) {}
    pub fn connected(&self) {}
    pub fn disconnected(&self) {}
    pub fn connect_failed(&self) {}
    pub fn error(&self, _: NodeError) {}
    pub fn sent(&self, _: usize) {}
    pub fn received(&self, _: usize) {}
    pub fn replied(&self, _: Duration) {}
    pub fn late(&self) {}
}
#[derive(Default)]
pub struct NodeTallies(RefCell<HashMap<String, Rc<NodeTally>>>);
impl NodeTallies {
    pub fn of(&self, label: &str) -> Rc<NodeTally> {
        self.0.borrow_mut().entry(label.to_owned()).or_default().clone()
    }
    pub fn forget(&self, label: &str) {
        self.0.borrow_mut().remove(label);
    }
}
#[derive(Clone)]
pub struct Metrics;
impl Metrics {
    pub fn install() -> io::Result<Metrics> {
        Ok(Metrics)
    }
    pub fn client_tally(&self) -> ClientTally {
        ClientTally
    }
    pub fn node_tallies(&self) -> NodeTallies {
        NodeTallies::default()
    }
    pub fn rejected(&self, _: &'static str) {}
}

//! How nodes are connected to, by whoever needs a connection.

use std::{rc::Rc, sync::Arc};

use crate::upstream::{descriptors::Descriptors, dial::Dialer, doubt::Ender};

/// What every connection to a node is made with.
#[derive(Clone)]
pub struct Connector {
    /// Dials and logs in.
    pub dialer: Dialer,
    /// Has nodes end what was lost.
    pub ender: Rc<Ender>,
    /// The open files for what not everybody shares.
    pub descriptors: Arc<Descriptors>,
}

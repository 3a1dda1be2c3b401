//! One node of the cluster.

use std::sync::Arc;

use crate::protocol::address::Address;

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Owns slots, or may.
    Primary,
    /// Follows a primary.
    Replica,
}

impl Role {
    /// The role as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
        }
    }
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The cluster node id. A node known only from a redirect has its announced address here until the next refresh.
    pub id: String,
    /// The address that the cluster gives for it.
    pub announced: Address,
    /// The address to dial.
    pub reach: Address,
    /// `host:port` by which people know it, to name the node in metrics and errors: by the host name that it announces,
    /// or a seed's name that leads to it, where there is one, else as announced.
    pub label: Arc<str>,
    /// What it does.
    pub role: Role,
    /// Whose replica it is: the node id of its primary.
    pub replicates: Option<String>,
    /// Its availability zone, where it names one (Valkey).
    pub zone: Option<String>,
    /// Other hosts it goes by (its address where it announces a name, or the name): a redirect may use any of them.
    pub aliases: Vec<String>,
}

impl Node {
    /// A primary for unit tests, called so.
    #[cfg(test)]
    pub fn primary(id: &str, label: &str) -> Arc<Node> {
        let address = Address::new(id, 1);
        Arc::new(Node {
            id: id.to_owned(),
            announced: address.clone(),
            reach: address,
            label: label.into(),
            role: Role::Primary,
            replicates: None,
            zone: None,
            aliases: Vec::new(),
        })
    }

    /// Whether the cluster may call this node by that address.
    pub fn goes_by(&self, address: &Address) -> bool {
        self.announced.port == address.port
            && (self.announced.host == address.host || self.aliases.contains(&address.host))
    }
}

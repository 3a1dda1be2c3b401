//! What is refused by default: what could break the cluster, or a connection that others share.

use super::treatment;

/// What nodes say of their cluster, beside what is about one slot's keys.
pub(super) const CLUSTER_VIEWS: &[&str] = &[
    "count-failure-reports",
    "getslotmigrations",
    "help",
    "info",
    "links",
    "myid",
    "myshardid",
    "nodes",
    "replicas",
    "shards",
    "slaves",
    "slot-stats",
    "slots",
];

/// What is about the keys of one slot, and leads nobody to a node.
const SLOT_READS: &[&str] = &["countkeysinslot", "getkeysinslot", "keyslot"];

/// What is refused by default, and why.
const REFUSED: &[(&str, &str)] = &[
    ("shutdown", "it would stop a node of the cluster"),
    ("replicaof", "it would change the roles of nodes"),
    ("slaveof", "it would change the roles of nodes"),
    ("failover", "it would change the roles of nodes"),
    ("sync", "replication goes from node to node"),
    ("psync", "replication goes from node to node"),
    ("replconf", "replication goes from node to node"),
    ("save", "it would stall a node"),
    ("migrate", "its target is named as the node sees it, and keys would leave the cluster's map"),
    ("swapdb", "it would swap databases on some nodes only"),
    ("script|debug", "it would hold a node's connection that others share"),
    ("module|load", "modules must be the same on all nodes"),
    ("module|loadex", "modules must be the same on all nodes"),
    ("module|unload", "modules must be the same on all nodes"),
    ("config|rewrite", "it would change the nodes' own files"),
    ("acl|setuser", "users must be the same on all nodes, replicas included"),
    ("acl|deluser", "users must be the same on all nodes, replicas included"),
    ("acl|load", "users must be the same on all nodes, replicas included"),
    ("acl|save", "it would change the nodes' own files"),
];

const CLUSTER: &str = "it would change the cluster itself";

/// Why a command is refused unless the configuration allows it.
pub fn why(name: &str) -> Option<&'static str> {
    // A subcommand of CLIENT that is new to the proxy must not change a connection that others share.
    if let Some(sub) = name.strip_prefix("client|")
        && sub != "help"
        && treatment::client(sub).is_none()
    {
        return Some("it is about a connection, and nodes' connections are shared");
    }
    // One of CLUSTER that is new to the proxy is taken for one that writes.
    if let Some(sub) = name.strip_prefix("cluster|")
        && !CLUSTER_VIEWS.contains(&sub)
        && !SLOT_READS.contains(&sub)
    {
        return Some(CLUSTER);
    }
    REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, reason)| *reason)
}

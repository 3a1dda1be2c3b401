//! Where a command differs from what one Redis does, in a sentence for users: for the page of all commands, and for
//! `explain`. What is not listed here answers byte for byte as one server would.

/// The sentence for a command, if there is something to say.
pub fn of(name: &str) -> Option<&'static str> {
    DIFFERENCES.iter().find(|(command, _)| *command == name).map(|(_, note)| *note)
}

/// All commands that have one, to be checked against what servers know.
pub fn names() -> impl Iterator<Item = &'static str> {
    DIFFERENCES.iter().map(|(name, _)| *name)
}

const NOT_ATOMIC: &str = "over several slots it is not atomic; an error says which part was done";
const READ_IN_PARTS: &str = "over several slots it is not one moment's view";
const IN_ONE_SLOT: &str = "its keys must share a slot (a hash tag), else CROSSSLOT";
const SLOTS_OF_CLUSTER: &str = "one server outside of a cluster would refuse it";
const CLUSTER_VIEW: &str = "what is `allow`ed of these is a node's own words, addresses of nodes included";
const ANY_NODE: &str = "tells of one of the nodes";

const OF_NODES: &str = "entry ids are each node's own, its client is the proxy; what is split is there in parts, and what \
    the proxy answers itself is never slow";

const REPLICAS_TOO: &str = "replicas get it too; the reply does not wait for them";

const DIFFERENCES: &[(&str, &str)] = &[
    ("acl|deluser", REPLICAS_TOO),
    ("acl|load", REPLICAS_TOO),
    ("acl|log", "entry ids are each node's own; what the proxy answers itself leaves none where it is refused"),
    ("acl|save", REPLICAS_TOO),
    ("acl|setuser", REPLICAS_TOO),
    ("acl|whoami", "names whom the client has logged in as at the proxy"),
    ("asking", "OK, and means nothing"),
    ("bitop", IN_ONE_SLOT),
    ("blmove", IN_ONE_SLOT),
    ("blmpop", IN_ONE_SLOT),
    ("blpop", IN_ONE_SLOT),
    ("brpop", IN_ONE_SLOT),
    ("brpoplpush", IN_ONE_SLOT),
    ("bzmpop", IN_ONE_SLOT),
    ("bzpopmax", IN_ONE_SLOT),
    ("bzpopmin", IN_ONE_SLOT),
    ("client|list", "lists the clients of the proxy"),
    ("cluster|count-failure-reports", CLUSTER_VIEW),
    ("cluster|countkeysinslot", SLOTS_OF_CLUSTER),
    ("cluster|getkeysinslot", SLOTS_OF_CLUSTER),
    ("cluster|getslotmigrations", CLUSTER_VIEW),
    ("cluster|info", CLUSTER_VIEW),
    ("cluster|keyslot", SLOTS_OF_CLUSTER),
    ("cluster|links", CLUSTER_VIEW),
    ("cluster|myid", CLUSTER_VIEW),
    ("cluster|myshardid", CLUSTER_VIEW),
    ("cluster|nodes", CLUSTER_VIEW),
    ("cluster|replicas", CLUSTER_VIEW),
    ("cluster|shards", CLUSTER_VIEW),
    ("cluster|slaves", CLUSTER_VIEW),
    ("cluster|slot-stats", CLUSTER_VIEW),
    ("cluster|slots", CLUSTER_VIEW),
    ("clusterscan", SLOTS_OF_CLUSTER),
    ("command", ANY_NODE),
    (
        "config|get",
        "port and databases are the proxy's, cluster-enabled is no, passwords are left out; else one node's",
    ),
    ("commandlog|get", OF_NODES),
    ("config|resetstat", "does not reset what INFO tells of the proxy itself"),
    ("config|rewrite", REPLICAS_TOO),
    ("config|set", REPLICAS_TOO),
    ("copy", IN_ONE_SLOT),
    ("debug", "only what looks at a key or sets a harmless switch"),
    ("del", NOT_ATOMIC),
    ("eval", IN_ONE_SLOT),
    ("evalsha", IN_ONE_SLOT),
    ("exists", READ_IN_PARTS),
    ("fcall", IN_ONE_SLOT),
    ("flushall", "node by node, not in one moment"),
    ("flushdb", "node by node, not in one moment"),
    ("geosearchstore", IN_ONE_SLOT),
    (
        "info",
        "sums over the primaries that answer; clients, port, uptime and process are the proxy's, and so are the calls of \
         what it answers itself or sends to all nodes",
    ),
    ("keys", "node by node, not in one moment"),
    ("lastsave", "the earliest of all nodes"),
    ("latency|doctor", ANY_NODE),
    ("latency|graph", ANY_NODE),
    (
        "latency|histogram",
        "of what the proxy answers itself or sends to all nodes, its own count of calls, with the times that nodes have \
         measured, or the least",
    ),
    ("lcs", IN_ONE_SLOT),
    ("lmove", IN_ONE_SLOT),
    ("lmpop", IN_ONE_SLOT),
    ("memory|doctor", ANY_NODE),
    ("memory|malloc-stats", ANY_NODE),
    ("mget", READ_IN_PARTS),
    ("move", "a cluster has one database, unless its servers have more (Valkey 9: cluster-databases)"),
    (
        "monitor",
        "shows clients' commands as they are taken, also one that a node then refuses; other proxies' clients as their \
         nodes see them",
    ),
    ("mset", NOT_ATOMIC),
    ("msetex", NOT_ATOMIC),
    ("msetnx", IN_ONE_SLOT),
    ("multi", "all keys of a transaction must share a slot"),
    ("pfcount", IN_ONE_SLOT),
    ("pfmerge", IN_ONE_SLOT),
    ("readonly", "this client reads from replicas, as PROXY READS replica says"),
    ("readwrite", "this client reads from primaries"),
    ("rename", IN_ONE_SLOT),
    ("renamenx", IN_ONE_SLOT),
    ("role", "a master without replicas"),
    ("rpoplpush", IN_ONE_SLOT),
    ("scan", "a cursor names the node too; COUNT is per node"),
    ("sdiff", IN_ONE_SLOT),
    ("sdiffstore", IN_ONE_SLOT),
    ("select", "a cluster has one database, unless its servers have more (Valkey 9: cluster-databases)"),
    ("sinter", IN_ONE_SLOT),
    ("sintercard", IN_ONE_SLOT),
    ("sinterstore", IN_ONE_SLOT),
    ("slowlog|get", OF_NODES),
    ("slowlog|len", "each node keeps as many as it is told to; what the proxy answers itself is never slow"),
    ("smove", IN_ONE_SLOT),
    ("sort", "BY and GET patterns must have the key's tag; Redis before 7.4 takes none in a cluster"),
    ("sort_ro", "BY and GET patterns must have the key's tag; Redis before 7.4 takes none in a cluster"),
    ("sunion", IN_ONE_SLOT),
    ("sunionstore", IN_ONE_SLOT),
    ("time", ANY_NODE),
    ("touch", READ_IN_PARTS),
    ("unlink", NOT_ATOMIC),
    ("wait", "the least over all nodes that this client wrote to; an error where one of them has been lost since"),
    ("waitaof", "the least over all nodes that this client wrote to; an error where one of them has been lost since"),
    ("watch", "all keys of a transaction must share a slot"),
    ("xread", IN_ONE_SLOT),
    ("xreadgroup", IN_ONE_SLOT),
    ("zdiff", IN_ONE_SLOT),
    ("zdiffstore", IN_ONE_SLOT),
    ("zinter", IN_ONE_SLOT),
    ("zintercard", IN_ONE_SLOT),
    ("zinterstore", IN_ONE_SLOT),
    ("zmpop", IN_ONE_SLOT),
    ("zrangestore", IN_ONE_SLOT),
    ("zunion", IN_ONE_SLOT),
    ("zunionstore", IN_ONE_SLOT),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_command_stands_here_once() {
        let mut met = HashSet::new();
        // Of two lines only the first would be told.
        assert_eq!(names().find(|name| !met.insert(*name)), None);
    }
}

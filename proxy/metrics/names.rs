//! Every metric's name, kind, labels and help: the one place that knows them.
//!
//! A node is always the label `node="host:port"`: the name by which people know it, else the address that the cluster
//! announces. No label ever holds a key, a client's address, or a command name that is not a server's.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeriesKind {
    /// A number that only grows.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// All series of one name.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// The name.
    pub name: &'static str,
    /// Whether it counts, measures or sorts by size.
    pub kind: SeriesKind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The help text.
    pub help: &'static str,
}

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(#[doc = $help] pub static $constant: Family = Family {
            name: $name,
            kind: SeriesKind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)+

        /// Every family.
        pub static ALL: &[&Family] = &[$(&$constant),+];
    };
}

families! {
    BUILD_INFO = Gauge "slotway_build_info" ["version", "revision"]
        "Always 1; the labels say what runs.";
    READY = Gauge "slotway_ready" []
        "1 where the proxy can serve: the routing table covers a node that can be reached, and no shutdown is under way.";

    CERTIFICATE_EXPIRY = Gauge "slotway_tls_certificate_expiry_timestamp_seconds" ["side"]
        "When the certificate in force ends, or the first of the chain behind it; 0 where there is none.";
    CERTIFICATE_REFUSED = Gauge "slotway_tls_certificate_refused" ["side"]
        "1 where the files have changed and are not taken, so that those of before serve on.";

    CLIENT_CONNECTIONS = Gauge "slotway_client_connections" []
        "Clients connected now.";
    CLIENTS_BY_LIBRARY = Gauge "slotway_clients" ["library"]
        "Clients connected now, by the library that they name (CLIENT SETINFO): one that is widely used, other, or none.";
    CLIENT_CONNECTIONS_TOTAL = Counter "slotway_client_connections_total" []
        "Clients accepted.";
    CLIENT_REJECTED = Counter "slotway_client_connections_rejected_total" ["reason"]
        "Clients turned away.";
    CLIENT_DISCONNECTS = Counter "slotway_client_disconnects_total" ["reason"]
        "Clients that left or were closed.";
    CLIENT_TLS_HANDSHAKES = Counter "slotway_client_tls_handshakes_total" ["outcome"]
        "TLS handshakes with clients, by how they ended.";
    CLIENT_RECEIVED = Counter "slotway_client_received_bytes_total" []
        "Bytes read from clients.";
    CLIENT_SENT = Counter "slotway_client_sent_bytes_total" []
        "Bytes written to clients.";
    CLIENT_BUFFERED = Gauge "slotway_client_buffered_bytes" []
        "Bytes held for clients: replies not sent yet, and requests that are not whole.";
    CLIENT_PROTOCOL_ERRORS = Counter "slotway_client_protocol_errors_total" ["reason"]
        "Clients that sent what is no request.";
    COMMANDS = Counter "slotway_commands_total" ["command", "result"]
        "Commands answered, by whether the reply was an error.";
    COMMAND_DURATION = Histogram "slotway_command_duration_seconds" ["class"]
        "Time from a command's arrival to the end of its reply.";
    REDIRECTS = Counter "slotway_redirects_total" ["type", "outcome"]
        "Redirects by nodes: absorbed ones were followed, exhausted ones ended in an error for the client.";
    RETRIES = Counter "slotway_retries_total" ["reason"]
        "Requests sent again after a node did not execute them.";
    GIVEN_UP = Counter "slotway_retries_exhausted_total" ["reason"]
        "Requests that were sent again in vain: the client got the last error.";
    BLOCKED_CLIENTS = Gauge "slotway_blocked_clients" []
        "Clients that wait in a blocking command.";
    SUBSCRIPTIONS = Gauge "slotway_subscriptions" []
        "Channel, pattern and shard channel subscriptions of all clients.";
    SUBSCRIPTION_GAPS = Counter "slotway_subscription_gaps_total" []
        "Times that subscriptions moved to another connection: messages may have been missed in between.";
    TRACKING_FLUSHES = Counter "slotway_tracking_flushes_total" []
        "Times that a client with CLIENT TRACKING was told to drop all it has cached: changes may have been missed.";
    REPLICA_READS = Counter "slotway_replica_reads_total" []
        "Reads that went to a replica. What it did not answer, or did not have, went on to the primary (slotway_retries_total, reason replica).";
    TRANSACTIONS = Counter "slotway_transactions_total" ["result"]
        "Transactions ended.";

    DATABASE_REQUESTS = Counter "slotway_database_requests_total" ["database"]
        "Requests of clients in the database of its own, or in one that SELECT chooses by its name.";
    DATABASE_CLIENTS = Gauge "slotway_database_clients" ["database"]
        "Clients that work in the database now.";
    DATABASE_KEYS = Gauge "slotway_database_keys" ["database"]
        "Keys in the database's slot.";

    NODE_REQUESTS = Counter "slotway_node_requests_total" ["node", "role"]
        "Requests sent to the node, repetitions included. A transaction is one.";
    NODE_ERRORS = Counter "slotway_node_request_errors_total" ["node", "error"]
        "Requests that the node, or a connection to it, did not serve.";
    NODE_FAILED = Counter "slotway_node_failed_requests_total" ["node"]
        "Requests that ended in an error for the client since the node was lost, silent, or did not execute them to the end of retry_timeout.";
    NODE_DURATION = Histogram "slotway_node_request_duration_seconds" ["node", "class"]
        "Time from a request's queueing for the node to its reply. Commands that wait as long as they are told to (BLPOP) do not count.";
    NODE_QUEUE = Histogram "slotway_node_queue_seconds" ["node"]
        "Time that a batch of requests for the node waited here until it was written: a node that takes no more, or a full socket.";
    NODE_LATE = Counter "slotway_node_late_replies_total" ["node"]
        "Replies that came after their request had timed out, and were dropped.";
    NODE_CONNECTIONS = Gauge "slotway_node_connections" ["node"]
        "Open connections to the node.";
    NODE_CONNECTS = Counter "slotway_node_connects_total" ["node"]
        "Connections made to the node.";
    NODE_CONNECT_FAILURES = Counter "slotway_node_connect_failures_total" ["node"]
        "Connections to the node that failed, handshake included.";
    NODE_INFLIGHT = Gauge "slotway_node_inflight_requests" ["node"]
        "Requests that the node has not answered yet, but for those that wait as long as they are told to (BLPOP).";
    NODE_QUEUED = Gauge "slotway_node_queued_bytes" ["node"]
        "Bytes of requests that have not been written to the node yet.";
    NODE_SENT = Counter "slotway_node_sent_bytes_total" ["node"]
        "Bytes written to the node.";
    NODE_RECEIVED = Counter "slotway_node_received_bytes_total" ["node"]
        "Bytes read from the node.";
    NODE_UP = Gauge "slotway_node_up" ["node", "role"]
        "1 where the node can be reached.";
    NODE_INFO = Gauge "slotway_node_info" ["node", "role", "address"]
        "Always 1; the labels say what the node is now and where it announces itself.";
    NODE_SLOTS = Gauge "slotway_node_slots" ["node", "role"]
        "Slots that the node owns.";

    REFRESHES = Counter "slotway_topology_refreshes_total" ["trigger", "outcome"]
        "Times that the cluster was asked for its layout.";
    REFRESH_DURATION = Histogram "slotway_topology_refresh_duration_seconds" []
        "How long a refresh of the topology took.";
    LAST_SUCCESS = Gauge "slotway_topology_last_success_timestamp_seconds" []
        "When the topology was last refreshed, in Unix time; 0 before the first time.";
    FUNCTIONS_GIVEN = Counter "slotway_function_libraries_given_total" []
        "Function libraries that joining primaries lacked and were given.";
    EPOCH = Gauge "slotway_topology_epoch" []
        "Grows with every change of the topology.";
    SLOTS_ASSIGNED = Gauge "slotway_slots_assigned" []
        "Slots that have an owner; 16384 when the cluster is whole.";
    SLOTS_REACHABLE = Gauge "slotway_slots_reachable" []
        "Slots whose owner can be reached and serves; 16384 when all is well. Requests for the others end in errors.";

    PROCESS_CPU = Counter "process_cpu_seconds_total" []
        "Total user and system CPU time spent in seconds.";
    PROCESS_MEMORY = Gauge "process_resident_memory_bytes" []
        "Resident memory size in bytes.";
    PROCESS_OPEN_FDS = Gauge "process_open_fds" []
        "Number of open file descriptors.";
    PROCESS_MAX_FDS = Gauge "process_max_fds" []
        "Maximum number of open file descriptors; 0 where there is no limit.";
    PROCESS_START = Gauge "process_start_time_seconds" []
        "Start time of the process since unix epoch in seconds.";
    PROCESS_THREADS = Gauge "process_threads" []
        "Number of OS threads in the process.";
}

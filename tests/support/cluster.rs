//! A real cluster: formed in seconds, resharded and failed over at a test's word.

use std::{
    collections::BTreeSet,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use slotway::protocol::{
    resp::Value,
    slot::{SLOTS, Slot},
};

use super::{
    Client, Flavour, Node, NodeTls, Reply, Setup,
    node::info_field,
    wait::{eventually, until, until_or},
};

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Which server its nodes run.
    pub flavour: Flavour,
    /// How many primaries share the slots evenly.
    pub primaries: usize,
    /// How many replicas each primary has.
    pub replicas: usize,
    /// `cluster-node-timeout`. A short one makes failover quick, and a busy machine look like a failure.
    pub node_timeout: Duration,
    /// `cluster-require-full-coverage`.
    pub full_coverage: bool,
    /// Lines of configuration beyond the usual ones.
    pub config: Vec<String>,
    /// How its nodes speak TLS, if they do.
    pub tls: Option<NodeTls>,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            flavour: Flavour::Redis,
            primaries: 3,
            replicas: 0,
            node_timeout: Duration::from_secs(15),
            full_coverage: false,
            config: Vec::new(),
            tls: None,
        }
    }
}

/// Running nodes: the primaries first, in slot order, then the replicas of the first primary, of the second, ...
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Node>,
    shape: Shape,
}

/// Three primaries that all tests of the process share. A test keeps to keys of its own prefix, and changes neither
/// slots nor nodes.
pub fn shared() -> &'static Cluster {
    static SHARED: LazyLock<Cluster> = LazyLock::new(|| Cluster::start(Shape::default()));
    &SHARED
}

impl Cluster {
    /// Starts the nodes, makes them a cluster and waits until all of them say that it is well.
    #[track_caller]
    pub fn start(shape: Shape) -> Cluster {
        let cluster = Cluster::unformed(shape);
        cluster.form();
        cluster
    }

    /// Three primaries.
    #[track_caller]
    pub fn three() -> Cluster {
        Cluster::start(Shape::default())
    }

    /// Starts the nodes only: no slot has an owner and no node knows another.
    #[track_caller]
    pub fn unformed(shape: Shape) -> Cluster {
        let setup = shape.setup();
        let count = shape.primaries * (1 + shape.replicas);
        let mut nodes: Vec<Node> = (0..count).map(|_| Node::prepared(&setup)).collect();
        nodes.iter_mut().for_each(Node::launch);
        let cluster = Cluster { nodes, shape };
        for node in &cluster.nodes {
            let ready = || Client::try_connect(&node.address()).and_then(|mut client| client.try_call(&["PING"]));
            until(&format!("node {}: {}", node.port, node.log()), Duration::from_secs(10), || ready().ok());
        }
        cluster
    }

    /// Makes the nodes a cluster.
    #[track_caller]
    pub fn form(&self) {
        let primaries = self.shape.primaries;
        for (index, node) in self.nodes.iter().enumerate() {
            let mut client = node.client();
            ok(client.line(&format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1)));
            if index < primaries {
                let (first, last) = self.slots_of(index);
                ok(client.line(&format!("CLUSTER ADDSLOTSRANGE {first} {last}")));
            }
        }
        self.meet_all();
        for (index, node) in self.nodes.iter().enumerate().skip(primaries) {
            let master = &self.nodes[(index - primaries) / self.shape.replicas];
            self.attach(node, master);
        }
        self.wait_until_well();
    }

    /// The first and last slot of the primary at `index`, as the cluster was formed.
    pub fn slots_of(&self, index: usize) -> (usize, usize) {
        let primaries = self.shape.primaries;
        let bound = |index: usize| (index * SLOTS).div_ceil(primaries);
        (bound(index), bound(index + 1) - 1)
    }

    /// The node at `index`.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// `host:port` of every node, with commas between.
    pub fn seeds(&self) -> String {
        self.nodes.iter().map(Node::address).collect::<Vec<_>>().join(",")
    }

    /// `host:port` of every node's port of TLS, with commas between.
    pub fn tls_seeds(&self, host: &str) -> String {
        self.nodes.iter().map(|node| format!("{host}:{}", node.tls_port)).collect::<Vec<_>>().join(",")
    }

    /// The index of the node that owns `slot` now, as the node at `witness` has it.
    #[track_caller]
    pub fn owner_seen_by(&self, witness: usize, slot: usize) -> usize {
        let port = owner_port(&self.nodes[witness].line("CLUSTER SLOTS").value(), slot);
        let port = port.unwrap_or_else(|| panic!("slot {slot} has no owner"));
        self.nodes.iter().position(|node| i64::from(node.port) == port).expect("one of our nodes")
    }

    /// The index of the node that owns the slot of `key` as the cluster was formed.
    pub fn home_of(&self, key: impl AsRef<[u8]>) -> usize {
        let slot = Slot::of(key.as_ref()).index();
        (0..self.shape.primaries).find(|&index| self.slots_of(index).1 >= slot).expect("every slot has an owner")
    }

    /// A key that begins with `prefix` and belongs to the primary at `index`, as the cluster was formed.
    pub fn key_on(&self, index: usize, prefix: &str) -> String {
        let key = (0..).map(|number| format!("{prefix}{number}")).find(|key| self.home_of(key) == index);
        key.expect("every node has keys")
    }

    /// Opens `slot` for moving: `to` imports it, `from` migrates it.
    #[track_caller]
    pub fn open_slot(&self, slot: usize, from: usize, to: usize) {
        let (source, target) = (self.id(from), self.id(to));
        ok(self.nodes[to].line(&format!("CLUSTER SETSLOT {slot} IMPORTING {source}")));
        ok(self.nodes[from].line(&format!("CLUSTER SETSLOT {slot} MIGRATING {target}")));
    }

    /// Moves these keys of an open slot.
    #[track_caller]
    pub fn move_keys<T: AsRef<[u8]>>(&self, keys: &[T], from: usize, to: usize) {
        let port = self.nodes[to].port.to_string();
        let mut args: Vec<&[u8]> = vec![b"MIGRATE", b"127.0.0.1", port.as_bytes(), b"", b"0", b"5000", b"KEYS"];
        args.extend(keys.iter().map(AsRef::as_ref));
        let reply = self.nodes[from].client().call(&args);
        assert!(reply == "+OK\r\n" || reply == "+NOKEY\r\n", "MIGRATE: {reply:?}");
    }

    /// Gives an open slot whose keys have moved to `to`, for all nodes to know.
    #[track_caller]
    pub fn close_slot(&self, slot: usize, from: usize, to: usize) {
        let target = self.id(to);
        for index in
            [to, from].into_iter().chain((0..self.shape.primaries).filter(|&index| index != from && index != to))
        {
            ok(self.nodes[index].line(&format!("CLUSTER SETSLOT {slot} NODE {target}")));
        }
        self.wait_until_agreed();
    }

    /// Waits until all nodes have the same owner and epoch for every slot: a claim still on its way could otherwise undo
    /// the next move.
    #[track_caller]
    pub fn wait_until_agreed(&self) {
        until("the nodes to agree", Duration::from_secs(20), || {
            let views: BTreeSet<Vec<String>> = self.nodes.iter().map(view).collect();
            (views.len() == 1).then_some(())
        });
    }

    /// Moves a whole slot with its keys, as `redis-cli --cluster reshard` does.
    #[track_caller]
    pub fn move_slot(&self, slot: usize, from: usize, to: usize) {
        self.open_slot(slot, from, to);
        let mut source = self.nodes[from].client();
        loop {
            let keys = source.line(&format!("CLUSTER GETKEYSINSLOT {slot} 100")).value();
            let keys: Vec<&[u8]> = keys.items().iter().filter_map(Value::text).collect();
            if keys.is_empty() {
                break;
            }
            self.move_keys(&keys, from, to);
        }
        self.close_slot(slot, from, to);
    }

    /// Moves a whole slot at once, as Valkey 9 can.
    #[track_caller]
    pub fn move_slot_whole(&self, slot: usize, from: usize, to: usize) {
        let target = self.id(to);
        ok(self.nodes[from].line(&format!("CLUSTER MIGRATESLOTS SLOTSRANGE {slot} {slot} NODE {target}")));
        until("the slot to move", Duration::from_secs(20), || {
            // The latest stands first.
            let moves = self.nodes[from].line("CLUSTER GETSLOTMIGRATIONS").value();
            let state = moves.items().first()?.field("state")?.text()?;
            assert!(state != b"failed" && state != b"cancelled", "{moves:?}");
            (state == b"success").then_some(())
        });
        self.wait_until_agreed();
    }

    /// Starts one more node, without slots, that all others know; its index.
    #[track_caller]
    pub fn add_node(&mut self) -> usize {
        self.nodes.push(Node::start(&self.shape.setup()));
        self.meet_all();
        self.wait_until_well();
        self.wait_until_agreed();
        self.nodes.len() - 1
    }

    /// Starts one more replica of the primary at `index`; its index.
    #[track_caller]
    pub fn add_replica(&mut self, index: usize) -> usize {
        let added = self.add_node();
        self.attach(&self.nodes[added], &self.nodes[index]);
        added
    }

    /// Makes the replica at `index` the primary (`CLUSTER FAILOVER`, with FORCE or TAKEOVER where given) and waits for it.
    #[track_caller]
    pub fn fail_over_to(&self, index: usize, option: &str) {
        self.wait_until_known_as_replica(index);
        let asked = format!("CLUSTER FAILOVER {option}");
        let failed = || format!("{asked} of node {}; it says:\n{}", self.nodes[index].port, self.nodes[index].log());
        until_or(failed, Duration::from_secs(30), || {
            let reply = self.nodes[index].line(asked.trim());
            assert!(reply == "+OK\r\n" || self.is_primary(index), "{asked}: {reply:?}");
            let end = Instant::now() + Duration::from_secs(6);
            while Instant::now() < end && !self.is_primary(index) {
                thread::sleep(Duration::from_millis(10));
            }
            self.is_primary(index).then_some(())
        });
    }

    /// Waits until all nodes at work know whose replica the node at `index` is. One that takes it for a primary, as it may have
    /// been until just now, refuses its vote, and a replica that was refused asks again only after four times the node timeout.
    fn wait_until_known_as_replica(&self, index: usize) {
        let id = self.id(index);
        let whose = |nodes: &str| {
            let fields: Vec<&str> = nodes.lines().find(|line| line.starts_with(&id))?.split(' ').collect();
            (fields[2].contains("slave")).then(|| fields[3].to_owned())
        };
        let what = format!("all to know that {} is a replica", self.nodes[index].port);
        until(&what, Duration::from_secs(30), || {
            let own = whose(&self.nodes[index].line("CLUSTER NODES").string())
                .or_else(|| self.is_primary(index).then(String::new))?;
            let others = self.nodes.iter().filter(|node| node.is_at_work());
            let mut views = others.filter_map(|other| other.try_line("CLUSTER NODES"));
            (own.is_empty() || views.all(|nodes| whose(&nodes.string()).as_ref() == Some(&own))).then_some(())
        });
    }

    /// Waits until the node at `index` is a primary with slots.
    #[track_caller]
    pub fn wait_until_primary(&self, index: usize) {
        until("the replica to become the primary", Duration::from_secs(30), || self.is_primary(index).then_some(()));
    }

    /// Whether the node at `index` is a primary with slots, as it sees itself.
    #[track_caller]
    pub fn is_primary(&self, index: usize) -> bool {
        let nodes = self.nodes[index].line("CLUSTER NODES").string();
        let own = nodes.lines().find(|line| line.contains("myself"));
        own.is_some_and(|own| own.contains("myself,master") && own.split(' ').count() > 8)
    }

    /// The node id of the node at `index`.
    #[track_caller]
    pub fn id(&self, index: usize) -> String {
        self.nodes[index].line("CLUSTER MYID").string()
    }

    /// Waits until every node says `cluster_state:ok`, knows all others and which of them are replicas: primaries have no
    /// vote for one that they take for a primary.
    #[track_caller]
    pub fn wait_until_well(&self) {
        let replicas = self.nodes.iter().filter(|node| node.info("role") == "slave").count();
        for node in &self.nodes {
            until(&format!("the cluster to form, seen from {}", node.port), Duration::from_secs(30), || {
                let info = node.line("CLUSTER INFO").string();
                let field = |name| info_field(&info, name);
                let known = field("cluster_known_nodes") == Some(&self.nodes.len().to_string());
                let covered = field("cluster_slots_ok") == Some("16384");
                let nodes = node.line("CLUSTER NODES").string();
                let all_follow = nodes.lines().filter(|line| line.contains("slave")).count() == replicas;
                (known && covered && all_follow && field("cluster_state") == Some("ok")).then_some(())
            });
            if replicas > 0 {
                eventually("replication", || {
                    let info = node.line("INFO replication").string();
                    info_field(&info, "role") == Some("master") || info_field(&info, "master_link_status") == Some("up")
                });
            }
        }
    }

    fn meet_all(&self) {
        for one in &self.nodes {
            let mut client = one.client();
            for other in self.nodes.iter().filter(|other| other.port != one.port) {
                ok(client.line(&format!("CLUSTER MEET 127.0.0.1 {} {}", other.port, other.bus)));
            }
        }
        for node in &self.nodes {
            until("the nodes to meet", Duration::from_secs(20), || {
                let nodes = node.line("CLUSTER NODES").string();
                (nodes.lines().count() == self.nodes.len() && !nodes.contains("handshake")).then_some(())
            });
        }
    }

    fn attach(&self, replica: &Node, master: &Node) {
        let id = master.line("CLUSTER MYID").string();
        until("the replica to know its primary", Duration::from_secs(10), || {
            (replica.line(&format!("CLUSTER REPLICATE {id}")) == "+OK\r\n").then_some(())
        });
    }
}

impl Shape {
    fn setup(&self) -> Setup {
        let mut config = vec![
            format!("cluster-node-timeout {}", self.node_timeout.as_millis()),
            format!("cluster-require-full-coverage {}", if self.full_coverage { "yes" } else { "no" }),
            // A primary that gives away its last slot is to stay one.
            "cluster-allow-replica-migration no".to_owned(),
            "cluster-replica-validity-factor 0".to_owned(),
        ];
        config.extend(self.config.iter().cloned());
        Setup { flavour: self.flavour, cluster: true, config, tls: self.tls.clone() }
    }
}

/// What a node knows of the owners of slots: id, epoch and slots of each.
fn view(node: &Node) -> Vec<String> {
    let nodes = node.line("CLUSTER NODES").string();
    let owners = nodes.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let slots: Vec<&str> = fields.iter().skip(8).copied().filter(|slots| !slots.starts_with('[')).collect();
        (!slots.is_empty()).then(|| format!("{} {} {}", fields[0], fields[6], slots.join(" ")))
    });
    let mut owners: Vec<String> = owners.collect();
    owners.sort_unstable();
    owners
}

#[track_caller]
fn ok(reply: Reply) {
    assert!(reply == "+OK\r\n", "expected OK: {reply:?}");
}

/// The port of the primary that owns `slot` in a reply of CLUSTER SLOTS.
fn owner_port(slots: &Value, slot: usize) -> Option<i64> {
    slots.items().iter().find_map(|range| {
        let items = range.items();
        let (first, last) = (items.first()?.integer()?, items.get(1)?.integer()?);
        let port = items.get(2)?.items().get(1)?.integer()?;
        (first..=last).contains(&(slot as i64)).then_some(port)
    })
}

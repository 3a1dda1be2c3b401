//! Learning a real cluster, and reaching its nodes where they really are.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use slotway::{
    cluster::topology::{AddressMap, Hint, Node, Redirect, Role, ServerKind, Topology},
    config::Config,
    metrics::Metrics,
    process::discovery::Discovery,
    protocol::{
        address::Address,
        slot::{SLOTS, Slot},
    },
    upstream::dial::{Credentials, DialError, DialStep, Dialer, Login, Version},
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::support::{
    Client, Cluster, Flavour, Node as Server, Proxy, Settings, Setup, Shape,
    node::info_field,
    ports::free_port,
    relay::{BlackHole, relay},
    wait::{eventually, until},
};

/// How soon what has happened must be known.
const SOON: Duration = Duration::from_secs(10);

/// A discovery on a thread of its own.
struct Learner {
    topology: watch::Receiver<Arc<Topology>>,
    hints: mpsc::Sender<Hint>,
    metrics: Metrics,
    cancel: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Learner {
    fn start(seeds: &str, set: impl FnOnce(&mut Config)) -> Learner {
        let mut config = Config::defaults();
        config.seeds = seeds.split(',').map(|seed| seed.parse().expect("a seed")).collect();
        set(&mut config);
        let (publisher, topology) = watch::channel(Arc::new(Topology::unknown("")));
        let (hints, hints_in) = mpsc::channel(64);
        let (cancel, metrics) = (CancellationToken::new(), Metrics::new());
        let discovery = Discovery::new(&config, Dialer::of(&config, None), publisher, hints_in, metrics.clone());
        let run = {
            let cancel = cancel.clone();
            async move { discovery.run(cancel).await }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let thread = thread::spawn(move || runtime.block_on(run));
        Learner { topology, hints, metrics, cancel, thread: Some(thread) }
    }

    fn topology(&self) -> Arc<Topology> {
        self.topology.borrow().clone()
    }

    #[track_caller]
    fn when(&self, what: &str, holds: impl Fn(&Topology) -> bool) -> Arc<Topology> {
        until(what, SOON, || Some(self.topology()).filter(|topology| holds(topology)))
    }

    #[track_caller]
    fn whole(&self) -> Arc<Topology> {
        self.when("all slots to be known", |topology| topology.covered() == SLOTS)
    }

    fn hint(&self, hint: Hint) {
        self.hints.blocking_send(hint).expect("discovery runs");
    }
}

impl Drop for Learner {
    fn drop(&mut self) {
        self.cancel.cancel();
        let ended = self.thread.take().expect("a thread").join();
        assert!(ended.is_ok() || thread::panicking(), "discovery panicked");
    }
}

fn slot(number: usize) -> Slot {
    Slot::new(number as u64).expect("a slot")
}

fn owner(topology: &Topology, number: usize) -> &Node {
    topology.owner(slot(number)).expect("an owner")
}

/// Every node is dialled where that very node answers.
#[track_caller]
fn assert_reached(topology: &Topology) {
    for node in &topology.nodes {
        let id = Client::connect(&node.reach.to_string()).line("CLUSTER MYID").string();
        assert_eq!(id, node.id, "{} dialled at {}", node.label, node.reach);
    }
}

fn learns_a_cluster(flavour: Flavour, kind: ServerKind, databases: u32, config: &[&str]) {
    let config = config.iter().map(|line| (*line).to_owned()).collect();
    let cluster = Cluster::start(Shape { flavour, replicas: 1, config, ..Shape::default() });
    let learner = Learner::start(&cluster.node(0).address(), |_| {});
    learner.whole();
    let replicas = |topology: &Topology| topology.nodes.iter().filter(|node| node.role == Role::Replica).count();
    // The nodes themselves take a while to hear of it, and the next look may be a whole interval away.
    let known = || Some(learner.topology()).filter(|topology| replicas(topology) == 3);
    let topology = until("the replicas to be known as such", Duration::from_secs(30), known);
    assert_eq!(topology.nodes.len(), 6);
    for index in 0..3 {
        let (first, last) = cluster.slots_of(index);
        let id = cluster.id(index);
        assert_eq!([first, last].map(|slot| owner(&topology, slot).id.clone()), [id.clone(), id], "primary {index}");
    }
    let replicas: Vec<_> = topology.nodes.iter().filter(|node| node.role == Role::Replica).collect();
    assert_eq!(replicas.len(), 3);
    assert!(
        replicas.iter().all(|replica| topology.primaries().any(|node| Some(&node.id) == replica.replicates.as_ref()))
    );
    assert_reached(&topology);
    let info = cluster.node(0).line("INFO server").string();
    let version = info_field(&info, "valkey_version").or(info_field(&info, "redis_version"));
    assert_eq!((topology.server.kind, Some(topology.server.version.as_str())), (kind, version));
    assert_eq!(topology.server.databases, databases);
    let count = cluster.node(0).line("COMMAND COUNT").value().integer();
    assert_eq!(Some(i64::from(topology.server.command_count)), count);
    assert!(topology.commands.named(b"get", b"").is_some());
    assert!(topology.trouble.is_none());
}

#[test]
fn a_redis_cluster_is_learnt() {
    learns_a_cluster(Flavour::Redis, ServerKind::Redis, 1, &[]);
}

#[test]
fn a_valkey_cluster_is_learnt() {
    if Flavour::Valkey.is_here("a_valkey_cluster_is_learnt") {
        learns_a_cluster(Flavour::Valkey, ServerKind::Valkey, 16, &["cluster-databases 16"]);
    }
}

#[test]
fn a_cluster_is_served_soon_after_it_forms() {
    let cluster = Cluster::unformed(Shape::default());
    let learner = Learner::start(&cluster.seeds(), |_| {});
    learner.when("to be told that nobody owns a slot", |topology| {
        topology.trouble.as_deref().is_some_and(|why| why.contains("not formed yet"))
    });
    cluster.form();
    let formed = Instant::now();
    learner.whole();
    assert!(formed.elapsed() < Duration::from_secs(1), "took {:?}", formed.elapsed());
}

#[test]
fn nodes_that_do_not_run_yet_are_named() {
    let port = free_port();
    let learner = Learner::start(&format!("127.0.0.1:{port},no-such-host.invalid:7000"), |_| {});
    let topology = learner.when("the reason", |topology| {
        topology.trouble.as_deref().is_some_and(|why| why.contains("no-such-host.invalid:7000: "))
    });
    let why = topology.trouble.as_deref().unwrap_or_default();
    assert!(why.contains(&format!("127.0.0.1:{port}: connection refused")), "{why}");
    assert_eq!(topology.epoch, 0);
}

#[test]
fn a_server_without_cluster_is_named() {
    let server = Server::standalone();
    let learner = Learner::start(&server.address(), |_| {});
    learner.when("the reason", |topology| {
        topology.trouble.as_deref().is_some_and(|why| why.contains("cluster support disabled"))
    });
}

/// A cluster whose nodes announce addresses of their own, as containers do. Among themselves they are reached there: a
/// relay stands in for the network that they share. Clients are not.
pub fn containers() -> (Cluster, Vec<SocketAddr>) {
    let cluster = Cluster::three();
    let mut announced = Vec::new();
    for node in &cluster.nodes {
        let [high, low] = node.port.to_be_bytes();
        let ip = format!("127.{high}.{low}.1");
        let at = |port: u16| -> SocketAddr { format!("{ip}:{port}").parse().expect("an address") };
        relay(at(node.bus), format!("127.0.0.1:{}", node.bus).parse().expect("an address")).expect("a relay");
        assert_eq!(node.line(&format!("CONFIG SET cluster-announce-ip {ip}")), "+OK\r\n");
        announced.push(at(node.port));
    }
    for node in &cluster.nodes {
        until("the nodes to tell their addresses", Duration::from_secs(30), || {
            let told = node.line("CLUSTER NODES").string();
            announced.iter().all(|address| told.contains(&format!(" {address}@"))).then_some(())
        });
    }
    (cluster, announced)
}

/// The nodes are reached, in time, and keep the names that they announce.
#[track_caller]
fn assert_served_through_seeds(cluster: &Cluster, announced: &[SocketAddr]) {
    let started = Instant::now();
    let learner = Learner::start(&cluster.seeds(), |_| {});
    let topology = learner.whole();
    let took = started.elapsed();
    // Silently dropped packets cost half a second; the rest is for a busy machine.
    assert!(took < Duration::from_secs(3), "took {took:?}");
    for (index, address) in announced.iter().enumerate() {
        let node = owner(&topology, cluster.slots_of(index).0);
        assert_eq!(
            (node.label.to_string(), node.reach.to_string()),
            (address.to_string(), cluster.node(index).address())
        );
    }
    assert_reached(&topology);
}

#[test]
fn nodes_whose_addresses_refuse_are_reached_through_the_seeds() {
    let (cluster, announced) = containers();
    assert_served_through_seeds(&cluster, &announced);
}

#[test]
fn nodes_whose_addresses_swallow_packets_are_reached_through_the_seeds() {
    let (cluster, announced) = containers();
    let _holes: Vec<_> = announced.iter().map(|address| BlackHole::at(*address).expect("a black hole")).collect();
    assert_served_through_seeds(&cluster, &announced);
}

#[test]
fn nodes_whose_addresses_lead_to_others_are_reached_through_the_seeds() {
    let (cluster, announced) = containers();
    // Each address leads to the next node, as where containers came back in another order.
    for (index, address) in announced.iter().enumerate() {
        let other = cluster.node((index + 1) % announced.len()).address();
        relay(*address, other.parse().expect("an address")).expect("a relay");
    }
    assert_served_through_seeds(&cluster, &announced);
}

#[test]
fn one_seed_reaches_them_all_by_its_host_and_their_ports() {
    let (cluster, announced) = containers();
    let learner = Learner::start(&cluster.node(0).address(), |_| {});
    let topology = learner.whole();
    assert_eq!(topology.nodes.len(), announced.len());
    assert_reached(&topology);
}

#[test]
fn moved_to_an_announced_address_leads_to_where_the_node_is_reached() {
    let (cluster, announced) = containers();
    let learner = Learner::start(&cluster.seeds(), |config| config.refresh_interval = Duration::from_secs(600));
    let before = learner.whole();
    let redirect = Redirect::parse(format!("MOVED 0 {}", announced[1]).as_bytes()).expect("a redirect");
    learner.hint(Hint::Moved { redirect, from: Arc::new(owner(&before, 0).clone()) });
    let after = learner.when("the slot to move", |topology| owner(topology, 0).id == cluster.id(1));
    assert_eq!(owner(&after, 0).reach.to_string(), cluster.node(1).address());
    assert_eq!(after.nodes.len(), 3, "no node was made up");
}

#[test]
fn a_client_reaches_nodes_that_nobody_can_reach_by_name() {
    let (cluster, announced) = containers();
    let _holes: Vec<_> = announced.iter().map(|address| BlackHole::at(*address).expect("a black hole")).collect();
    let proxy = Proxy::start(Settings::new(cluster.seeds()));
    let mut client = proxy.client();
    for index in 0..announced.len() {
        let key = cluster.key_on(index, "reach");
        assert_eq!(client.line(&format!("SET {key} {index}")), "+OK\r\n");
        assert_eq!(client.line(&format!("GET {key}")), format!("$1\r\n{index}\r\n").as_str());
    }
    // MOVED names the announced address, which the proxy must not dial.
    let key = cluster.key_on(0, "reach");
    cluster.move_slot(Slot::of(key.as_bytes()).index(), 0, 1);
    assert_eq!(client.line(&format!("GET {key}")), "$1\r\n0\r\n");
    let rule = format!("address_map = [\"{}={}\"]", announced[0], cluster.node(0).address());
    assert!(proxy.log().contains(&rule), "the log says how to pin it: {}", proxy.log());
}

#[test]
fn an_address_map_is_believed() {
    let cluster = Cluster::three();
    let learner = Learner::start(&cluster.node(0).address(), |config| {
        config.address_map = Arc::new(AddressMap::parse(&["127.0.0.0/8=localhost"]).expect("a rule"));
    });
    let topology = learner.whole();
    assert!(topology.nodes.iter().all(|node| node.reach.host == "localhost" && node.announced.host == "127.0.0.1"));
}

#[test]
fn moved_counts_at_once_and_the_cluster_confirms_it() {
    let cluster = Cluster::three();
    let learner = Learner::start(&cluster.seeds(), |config| config.refresh_interval = Duration::from_secs(600));
    let before = learner.whole();
    let moving = 100;
    cluster.move_slot(moving, 0, 1);
    let from = Arc::new(owner(&before, moving).clone());
    let said = format!("MOVED {moving} {}", cluster.node(1).address());
    learner.hint(Hint::Moved { redirect: Redirect::parse(said.as_bytes()).expect("a redirect"), from });
    let after = learner.when("the slot to move", |topology| owner(topology, moving).id == cluster.id(1));
    let differing =
        |other: &Topology| (0..SLOTS).filter(|&slot| owner(&before, slot).id != owner(other, slot).id).count();
    assert_eq!(differing(&after), 1, "one slot and no other");
    assert!(after.epoch > before.epoch);
    eventually("the refresh that it asks for", || {
        learner.metrics.render().contains("trigger=\"moved\",outcome=\"ok\"} 1")
    });
    assert_eq!(differing(&learner.topology()), 1);
}

#[test]
fn a_slot_that_moved_unnoticed_is_found_by_and_by() {
    let cluster = Cluster::three();
    let learner =
        Learner::start(&cluster.node(2).address(), |config| config.refresh_interval = Duration::from_millis(200));
    learner.whole();
    cluster.move_slot(100, 0, 1);
    learner.when("the slot to move", |topology| owner(topology, 100).id == cluster.id(1));
}

#[test]
fn a_promoted_replica_is_found_when_the_old_primary_says_so() {
    let cluster = Cluster::start(Shape { replicas: 1, ..Shape::default() });
    let learner = Learner::start(&cluster.seeds(), |config| config.refresh_interval = Duration::from_secs(600));
    let before = learner.whole();
    cluster.fail_over_to(3, "TAKEOVER");
    let promoted = cluster.id(3);
    let old = owner(&before, 0).id.clone();
    let after = until("the promoted replica, and the old primary as one", SOON, || {
        learner.hint(Hint::Unwell { node: old.clone() });
        let topology = learner.topology();
        let is_replica = topology.node(&old).is_some_and(|node| node.role == Role::Replica);
        (owner(&topology, 0).id == promoted && is_replica).then_some(topology)
    });
    assert_eq!(after.covered(), SLOTS);
}

#[test]
fn a_node_that_comes_back_on_another_port_is_reached_there() {
    let mut cluster = Cluster::three();
    let learner =
        Learner::start(&cluster.node(0).address(), |config| config.refresh_interval = Duration::from_millis(300));
    let before = learner.whole();
    let (id, old) = (cluster.id(1), cluster.node(1).address());
    let node = &mut cluster.nodes[1];
    node.kill();
    let port = free_port();
    node.move_to(port);
    node.restart();
    let after = learner.when("the node at its new port", |topology| {
        topology.node(&id).is_some_and(|node| node.reach == Address::new("127.0.0.1", port))
    });
    assert_reached(&after);
    assert!(before.departed(&after).any(|gone| *gone.label == *old), "the old name goes");
    assert_eq!(after.covered(), SLOTS);
}

/// How often a node was asked for its view.
fn times_asked(node: &Server) -> u64 {
    let stats = node.line("INFO commandstats").string();
    let calls =
        info_field(&stats, "cmdstat_cluster|slots").and_then(|stat| stat.strip_prefix("calls=")?.split(',').next());
    calls.map_or(0, |calls| calls.parse().expect("a number"))
}

#[test]
fn a_seed_in_another_cluster_takes_nothing_over() {
    let two = || Cluster::start(Shape { primaries: 2, ..Shape::default() });
    let (ours, mut other) = (two(), two());
    for index in [0, 1, 0, 1] {
        // Its config epochs are the higher ones.
        assert!(!other.node(index).line("CLUSTER BUMPEPOCH").is_error());
    }
    other.wait_until_agreed();
    other.nodes[0].pause();
    let learner = Learner::start(&format!("{},{}", ours.node(0).address(), other.node(0).address()), |_| {});
    let ids = [ours.id(0), ours.id(1)];
    let is_ours = |topology: &Topology| topology.nodes.iter().all(|node| ids.contains(&node.id));
    assert!(is_ours(&learner.whole()));
    other.nodes[0].resume();
    for _ in 0..3 {
        let before = times_asked(other.node(0));
        eventually("the other cluster to be asked", || {
            learner.hint(Hint::Uncovered);
            times_asked(other.node(0)) > before
        });
        assert!(is_ours(&learner.whole()));
    }
}

#[test]
fn a_cluster_made_anew_at_the_same_addresses_is_served() {
    let cluster = Cluster::three();
    let learner = Learner::start(&cluster.node(0).address(), |_| {});
    let former = learner.whole();
    for node in &cluster.nodes {
        assert_eq!(node.line("CLUSTER RESET HARD"), "+OK\r\n");
    }
    cluster.form();
    learner.when("the new cluster", |topology| {
        topology.covered() == SLOTS && topology.nodes.iter().all(|node| former.node(&node.id).is_none())
    });
}

#[test]
fn a_dead_node_is_shown_as_down_and_the_others_stay() {
    let mut cluster = Cluster::three();
    let learner = Learner::start(&cluster.seeds(), |_| {});
    let topology = learner.whole();
    let (id, label) = (cluster.id(1), owner(&topology, cluster.slots_of(1).0).label.clone());
    cluster.nodes[1].kill();
    let up = |label: &str| learner.metrics.nodes().iter().any(|node| *node.state.label == *label && node.state.up);
    until("the dead node to be shown", SOON, || {
        learner.hint(Hint::ConnectFailed { node: id.clone(), said: None });
        (!up(&label)).then_some(())
    });
    assert_eq!(learner.topology().covered(), SLOTS, "its slots are still its own");
    assert!(up(&cluster.node(0).address()) && up(&cluster.node(2).address()));
    cluster.nodes[1].restart();
    until("the node to be back", SOON, || {
        learner.hint(Hint::ConnectFailed { node: id.clone(), said: None });
        up(&label).then_some(())
    });
}

// ---- Logging in ----

fn dialled(address: &str, login: &Login) -> Result<(), DialError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let target: Address = address.parse().expect("an address");
    runtime.block_on(Dialer::default().within(SOON).dial(&target, login)).map(drop)
}

#[test]
fn logins_of_every_kind() {
    let server = Server::standalone();
    server.line("ACL SETUSER alice on >wonder ~* +@all");
    let user = |name: Option<&str>, secret: &str| {
        let username = name.map(|name| name.to_owned().into());
        Some(Credentials { username, secret: secret.to_owned().into() })
    };
    for version in [Version::Resp2, Version::Resp3] {
        let login = Login { version, ..Login::default() };
        let alice = Login { credentials: user(Some("alice"), "wonder"), ..login.clone() };
        for well in [login.clone(), Login { database: 9, ..login.clone() }, alice.clone()] {
            assert_eq!(dialled(&server.address(), &well), Ok(()), "{well:?}");
        }
        let mallory = Login { credentials: user(Some("alice"), "wrong"), ..login.clone() };
        let error = dialled(&server.address(), &mallory).unwrap_err();
        assert!(error.permanent && error.step == DialStep::Login, "{error}");
        assert!(error.to_string().contains(&format!("cannot log in to {}: WRONGPASS", server.address())), "{error}");
        let error = dialled(&server.address(), &Login { database: 99, ..login }).unwrap_err();
        assert!(error.permanent && error.step == DialStep::Select, "{error}");
    }
    let locked = Server::standalone();
    assert_eq!(locked.line("CONFIG SET requirepass sesame"), "+OK\r\n");
    for version in [Version::Resp2, Version::Resp3] {
        let login = Login { version, credentials: user(None, "sesame"), ..Login::default() };
        assert_eq!(dialled(&locked.address(), &login), Ok(()));
    }
    let error = dialled(&locked.address(), &Login { version: Version::Resp3, ..Login::default() }).unwrap_err();
    assert!(error.permanent && error.why.starts_with("NOAUTH"), "{error}");
}

#[test]
fn a_cluster_with_a_password_is_learnt_with_it_and_named_without() {
    let server = Server::start(&Setup { cluster: true, ..Setup::default() });
    assert_eq!(server.line("CONFIG SET requirepass sesame"), "+OK\r\n");
    let locked = Learner::start(&server.address(), |_| {});
    locked.when("the reason", |topology| topology.trouble.as_deref().is_some_and(|why| why.contains("NOAUTH")));
    let known =
        Learner::start(&server.address(), |config| config.password = Some(slotway::config::Secret::new("sesame")));
    known.when("an answer", |topology| topology.trouble.as_deref().is_some_and(|why| why.contains("not formed yet")));
}

#[test]
fn a_name_with_several_addresses_is_tried_through() {
    // localhost is ::1 and 127.0.0.1 on most machines; the listener is on one of them only.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    assert_eq!(dialled(&format!("localhost:{port}"), &Login::default()), Ok(()));
}

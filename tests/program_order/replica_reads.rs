//! Reads from replicas: a client finds what it has written, keeps its order, and never meets a replica's troubles.

use std::time::{Duration, Instant};

use crate::support::{Client, Cluster, Flavour, Proxy, Settings, Shape, client::frame, eventually, until};

const READS: &str = "slotway_replica_reads_total";

fn shape(flavour: Flavour) -> Shape {
    Shape { flavour, replicas: 1, ..Shape::default() }
}

fn proxy(cluster: &Cluster, reads: &str) -> Proxy {
    Proxy::start(Settings::new(cluster.seeds()).with("READS", reads).with("WORKERS", 1).expecting_warnings())
}

/// Reads a key until a replica has answered.
fn wait_for_replicas(proxy: &Proxy, client: &mut Client, key: &str) {
    eventually("a read at a replica", || {
        client.call(&["GET", key]);
        proxy.metric(READS, &[]) > 0.0
    });
}

fn own_writes_are_found_and_order_is_kept(flavour: Flavour) {
    let cluster = Cluster::start(shape(flavour));
    let proxy = proxy(&cluster, "replica");
    let mut clients: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let key = cluster.key_on(number, "own:");
        assert_eq!(client.call(&["SET", &key, "0"]).0, b"+OK\r\n");
        wait_for_replicas(&proxy, client, &key);
    }
    let before = proxy.metric(READS, &[]);
    let end = Instant::now() + Duration::from_secs(6);
    let mut value = 0;
    while Instant::now() < end {
        for (number, client) in clients.iter_mut().enumerate() {
            let key = cluster.key_on(number, "own:");
            let (old, new) = (value.to_string(), (value + 1).to_string());
            // What is sent behind a read does not show in it, and what is sent behind a write shows it.
            let sent = [&["GET", &key][..], &["GET", &key], &["SET", &key, &new], &["GET", &key]];
            let replies = client.exchange(&sent.map(frame).concat(), 4);
            let texts: Vec<_> = [0, 1, 3].map(|reply: usize| replies[reply].string()).into();
            assert_eq!(texts, [&*old, &old, &new], "client {number}");
            assert_eq!(client.call(&["STRLEN", &key]).integer(), new.len() as i64);
        }
        value += 1;
        // Time for the replicas to come by it, so that some reads go there.
        if value % 20 == 0 {
            let so_far = proxy.metric(READS, &[]);
            eventually("the replicas to be read again", || {
                clients.iter_mut().enumerate().for_each(|(number, client)| {
                    let text = client.call(&["GET", &cluster.key_on(number, "own:")]).string();
                    assert_eq!(text, value.to_string());
                });
                proxy.metric(READS, &[]) > so_far
            });
        }
    }
    assert!(proxy.metric(READS, &[]) > before);
    let asked: usize = (3..6).map(|replica| calls_of_get(&cluster, replica)).sum();
    assert!(asked > 0, "replicas were asked");
}

/// How often a node has run GET.
fn calls_of_get(cluster: &Cluster, node: usize) -> usize {
    calls_of(cluster, node, "get")
}

/// How often a node has run a command.
fn calls_of(cluster: &Cluster, node: usize, command: &str) -> usize {
    let said = cluster.node(node).line("INFO commandstats").string();
    let head = format!("cmdstat_{command}:calls=");
    let line = said.lines().find_map(|line| line.strip_prefix(&*head));
    line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn own_writes_are_found_and_order_is_kept_before_redis() {
    own_writes_are_found_and_order_is_kept(Flavour::Redis);
}

#[test]
fn own_writes_are_found_and_order_is_kept_before_valkey() {
    if Flavour::Valkey.is_here("own_writes_are_found_and_order_is_kept") {
        own_writes_are_found_and_order_is_kept(Flavour::Valkey);
    }
}

#[test]
fn a_replica_that_has_a_write_tells_nothing_of_the_other() {
    let cluster = Cluster::start(Shape { primaries: 1, replicas: 2, ..Shape::default() });
    let proxy = proxy(&cluster, "replica");
    // Each keeps to one of the two.
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    for round in 0..2 {
        let value = format!("{round}");
        for client in &mut clients {
            assert_eq!(client.call(&["SET", "each:key", &value]).0, b"+OK\r\n");
            wait_for_replicas(&proxy, client, "each:key");
        }
        // It follows its primary, and does not come by what that writes.
        assert_eq!(cluster.node(1 + round).line("CLIENT PAUSE 60000 WRITE"), "+OK\r\n");
        let value = format!("{round} and more");
        for client in &mut clients {
            assert_eq!(client.call(&["SET", "each:key", &value]).0, b"+OK\r\n");
            let so_far = proxy.metric(READS, &[]);
            eventually("the other replica to be read", || {
                (0..20).for_each(|_| assert_eq!(client.call(&["GET", "each:key"]).string(), value));
                proxy.metric(READS, &[]) >= so_far + 20.0
            });
        }
        assert_eq!(cluster.node(1 + round).line("CLIENT UNPAUSE"), "+OK\r\n");
    }
}

#[test]
fn a_replica_that_begins_again_with_an_old_file_is_not_read() {
    let mut cluster = Cluster::start(Shape { primaries: 1, replicas: 1, ..Shape::default() });
    let proxy = proxy(&cluster, "replica");
    let mut client = proxy.client();
    assert_eq!(client.call(&["SET", "file:key", "old"]).0, b"+OK\r\n");
    wait_for_replicas(&proxy, &mut client, "file:key");
    assert_eq!(cluster.node(1).line("SAVE"), "+OK\r\n");
    assert_eq!(client.call(&["SET", "file:key", "new"]).0, b"+OK\r\n");
    let so_far = proxy.metric(READS, &[]);
    eventually("the replica to be read", || {
        assert_eq!(client.call(&["GET", "file:key"]).string(), "new");
        proxy.metric(READS, &[]) > so_far
    });
    cluster.nodes[1].kill();
    cluster.nodes[1].restart();
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        assert_eq!(client.call(&["GET", "file:key"]).string(), "new");
    }
}

#[test]
fn what_a_transaction_wrote_on_a_connection_of_its_own_is_found() {
    let cluster = Cluster::start(Shape { primaries: 1, replicas: 1, ..Shape::default() });
    let proxy = proxy(&cluster, "replica");
    let mut client = proxy.client();
    client.line("SET watched:key 0");
    wait_for_replicas(&proxy, &mut client, "watched:key");
    assert_eq!(cluster.node(1).line("CLIENT PAUSE 60000 WRITE"), "+OK\r\n");
    for value in 1..20 {
        // Time passes in which nothing else happens.
        std::thread::sleep(Duration::from_millis(250));
        for line in ["WATCH watched:key", "MULTI", &format!("SET watched:key {value}"), "EXEC"] {
            assert!(!client.line(line).is_error());
        }
        assert_eq!(client.call(&["GET", "watched:key"]).string(), value.to_string());
    }
}

fn keys_on_their_way_are_found(flavour: Flavour) {
    let cluster = Cluster::start(shape(flavour));
    let proxy = proxy(&cluster, "replica");
    let mut client = proxy.client();
    let tag = cluster.key_on(0, "moving:");
    let slot = slotway::protocol::slot::Slot::of(tag.as_bytes()).index();
    let keys: Vec<String> = (0..40).map(|number| format!("{{{tag}}}{number}")).collect();
    keys.iter().for_each(|key| assert_eq!(client.call(&["SET", key, key]).0, b"+OK\r\n"));
    let hash = format!("{{{tag}}}hash");
    assert_eq!(client.call(&["HSET", &hash, "f", "v"]).integer(), 1);
    wait_for_replicas(&proxy, &mut client, &keys[0]);
    let mut all_are_found = |when: &str| {
        for key in &keys {
            assert_eq!(client.call(&["GET", key]).string(), *key, "{when}");
            assert_eq!(client.call(&["TTL", key]).integer(), -1, "{when}");
        }
        let all = [&["MGET".to_owned()][..], &keys].concat();
        assert_eq!(client.call(&all).texts(), keys, "{when}");
        let all = [&["EXISTS".to_owned()][..], &keys].concat();
        assert_eq!(client.call(&all).integer(), keys.len() as i64, "{when}");
        let page = client.call(&["HSCAN", &hash, "0"]);
        assert!(page == "*2\r\n$1\r\n0\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n", "{when}: {page:?}");
    };
    cluster.open_slot(slot, 0, 1);
    cluster.move_keys(&[&hash], 0, 1);
    for half in keys.chunks(10) {
        cluster.move_keys(half, 0, 1);
        all_are_found("half moved");
    }
    cluster.close_slot(slot, 0, 1);
    all_are_found("moved");
    eventually("the new owner's replica to be asked", || {
        all_are_found("later");
        calls_of_get(&cluster, 4) > 0
    });
}

#[test]
fn keys_on_their_way_are_found_before_redis() {
    keys_on_their_way_are_found(Flavour::Redis);
}

#[test]
fn keys_on_their_way_are_found_before_valkey() {
    if Flavour::Valkey.is_here("keys_on_their_way_are_found") {
        keys_on_their_way_are_found(Flavour::Valkey);
    }
}

#[test]
fn what_is_read_key_by_key_is_read_from_replicas_too() {
    let cluster = Cluster::start(shape(Flavour::Redis));
    let proxy = proxy(&cluster, "replica");
    let mut client = proxy.client();
    let spread: Vec<String> = (0..3).map(|node| cluster.key_on(node, "many:")).collect();
    let together: Vec<String> = (0..3).map(|number| format!("{{{}}}{number}", spread[0])).collect();
    let line = |name: &str, keys: &[String]| [&[name.to_owned()][..], keys].concat();
    for keys in [&spread, &together] {
        for round in 0..20 {
            for key in keys {
                assert_eq!(client.call(&["SET", key, &format!("{key}={round}")]), "+OK\r\n");
            }
            let expected: Vec<String> = keys.iter().map(|key| format!("{key}={round}")).collect();
            assert_eq!(client.call(&line("MGET", keys)).texts(), expected, "its own writes");
            assert_eq!(client.call(&line("EXISTS", keys)).integer(), 3);
        }
        for name in ["MGET", "EXISTS"] {
            let so_far = proxy.metric(READS, &[]);
            eventually("the replicas to be read", || {
                let reply = client.call(&line(name, keys));
                assert!(!reply.is_error(), "{name}: {reply:?}");
                proxy.metric(READS, &[]) > so_far
            });
        }
        // What a replica does not have is asked for once more, and what is large comes whole.
        let missing = [&keys[..], &["many:nothing".to_owned()]].concat();
        let reply = client.call(&line("MGET", &missing)).value();
        assert_eq!(reply.items()[3], slotway::protocol::resp::Value::Null);
        assert_eq!(client.call(&line("EXISTS", &missing)).integer(), 3);
        let large = "x".repeat(300_000);
        client.call(&["SET", &keys[1], &large]);
        for _ in 0..5 {
            let reply = client.call(&line("MGET", keys)).texts();
            assert!(reply[1] == large && reply[0].ends_with("=19") && reply[2].ends_with("=19"));
        }
    }
    let asked: usize = (3..6).map(|replica| calls_of(&cluster, replica, "mget")).sum();
    assert!(asked > 0, "replicas were asked");
    // To touch a key is about the primary's memory of its use.
    assert_eq!(client.call(&line("TOUCH", &spread)).integer(), 3);
    assert_eq!((3..6).map(|replica| calls_of(&cluster, replica, "touch")).sum::<usize>(), 0);
}

#[test]
fn a_replica_in_trouble_costs_nobody_an_error() {
    let mut cluster = Cluster::start(shape(Flavour::Redis));
    let proxy = proxy(&cluster, "replica");
    let mut client = proxy.client();
    let key = cluster.key_on(0, "trouble:");
    client.call(&["SET", &key, "v"]);
    wait_for_replicas(&proxy, &mut client, &key);

    // It stands still: a read that is under way goes on to the primary, and the next ones go there at once.
    cluster.nodes[3].pause();
    let mut slowest = Duration::ZERO;
    for _ in 0..200 {
        let begin = Instant::now();
        assert_eq!(client.call(&["GET", &key]).string(), "v");
        slowest = slowest.max(begin.elapsed());
    }
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    cluster.nodes[3].resume();

    // It cannot follow its primary any more.
    let so_far = proxy.metric(READS, &[]);
    eventually("it to be read again", || {
        assert_eq!(client.call(&["GET", &key]).string(), "v");
        proxy.metric(READS, &[]) > so_far
    });
    cluster.nodes[3].kill();
    for _ in 0..200 {
        assert_eq!(client.call(&["GET", &key]).string(), "v");
    }

    // It is back.
    cluster.nodes[3].restart();
    let so_far = proxy.metric(READS, &[]);
    until("it to be read again after its end", Duration::from_secs(40), || {
        assert_eq!(client.call(&["GET", &key]).string(), "v");
        (proxy.metric(READS, &[]) > so_far).then_some(())
    });
}

#[test]
fn a_failover_is_invisible_to_those_who_read_from_replicas() {
    let cluster = Cluster::start(shape(Flavour::Redis));
    let proxy = proxy(&cluster, "replica");
    let key = cluster.key_on(0, "failover:");
    let mut client = proxy.client();
    client.call(&["SET", &key, "0"]);
    wait_for_replicas(&proxy, &mut client, &key);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            cluster.fail_over_to(3, "");
            eventually("the former primary to know", || !cluster.is_primary(0));
            cluster.wait_until_agreed();
            is_over.store(true, order);
        });
        let mut value = 0;
        while !is_over.load(order) || value < 2 {
            value += 1;
            assert_eq!(client.call(&["SET", &key, &value.to_string()]).0, b"+OK\r\n");
            for _ in 0..5 {
                assert_eq!(client.call(&["GET", &key]).string(), value.to_string());
            }
        }
    });
}

#[test]
fn a_client_chooses_for_itself() {
    let cluster = Cluster::start(shape(Flavour::Redis));
    let proxy = proxy(&cluster, "primary");
    let key = cluster.key_on(0, "chooses:");
    let mut client = proxy.client();
    let reads = || proxy.metric(READS, &[]);
    client.call(&["SET", &key, "v"]);
    (0..20).for_each(|_| assert_eq!(client.call(&["GET", &key]).string(), "v"));
    assert_eq!(reads(), 0.0);
    assert_eq!(client.line("READONLY").0, b"+OK\r\n");
    wait_for_replicas(&proxy, &mut client, &key);
    // What only one node can do together goes to the primary: the counts of reads stay as they are.
    for (begin, end) in [("MULTI", "EXEC"), ("WATCH other", "UNWATCH"), ("CLIENT TRACKING on", "CLIENT TRACKING off")] {
        eventually("what was sent to be counted", || {
            let once = reads();
            client.line("PING");
            once == reads()
        });
        assert!(!client.line(begin).is_error(), "{begin}");
        let so_far = reads();
        (0..5).for_each(|_| assert!(!client.call(&["GET", &key]).is_error()));
        assert!(!client.line(end).is_error(), "{end}");
        assert_eq!(reads(), so_far, "{begin}");
    }
    for back in ["READWRITE", "PROXY READS primary", "RESET"] {
        assert_eq!(client.line("PROXY READS Nearest").0, b"+OK\r\n");
        assert!(!client.line(back).is_error());
        assert_eq!(client.call(&["GET", &key]).string(), "v");
    }
    let refused = client.line("PROXY READS somewhere");
    assert_eq!(refused.0, b"-ERR proxy: READS takes primary, replica or nearest (SLOTWAY-USAGE)\r\n");
}

#[test]
fn the_nearest_is_the_one_of_the_zone() {
    if !Flavour::Valkey.is_here("the_nearest_is_the_one_of_the_zone") {
        return;
    }
    let cluster = Cluster::start(shape(Flavour::Valkey));
    assert_eq!(cluster.node(3).line("CONFIG SET availability-zone b"), "+OK\r\n");
    eventually("all to know the zone", || {
        let knows = |node: usize| cluster.node(node).line("CLUSTER SHARDS").0;
        let zone = b"availability-zone\r\n$1\r\nb\r\n";
        (0..6).all(|node| knows(node).windows(zone.len()).any(|bytes| bytes == zone))
    });
    reads_go_to_the_replica_of_zone_b(&cluster, "");
}

#[test]
fn the_nearest_is_the_one_of_the_zone_that_is_said_here() {
    let cluster = Cluster::start(shape(Flavour::Redis));
    let zones = format!("127.0.0.0/8=a,{}=b", cluster.node(3).address());
    reads_go_to_the_replica_of_zone_b(&cluster, &zones);
}

fn reads_go_to_the_replica_of_zone_b(cluster: &Cluster, zones: &str) {
    let settings = Settings::new(cluster.seeds()).with("READS", "nearest").with("ZONE", "b").with("WORKERS", 1);
    let proxy = Proxy::start(settings.with("NODE_ZONES", zones));
    let mut client = proxy.client();
    let key = cluster.key_on(0, "zone:");
    client.call(&["SET", &key, "v"]);
    wait_for_replicas(&proxy, &mut client, &key);
    let (at_replica, at_primary) = (calls_of_get(cluster, 3), calls_of_get(cluster, 0));
    for _ in 0..50 {
        assert_eq!(client.call(&["GET", &key]).string(), "v");
    }
    // A replica that is slow for a moment gives place to the primary.
    let asked = calls_of_get(cluster, 3) - at_replica;
    assert!(asked >= 25, "{asked} at the replica, {} at the primary", calls_of_get(cluster, 0) - at_primary);
}

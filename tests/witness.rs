//! Who asks what has been done sees what clients did, as on one server: MONITOR, SLOWLOG, INFO commandstats and
//! latencystats, LATENCY HISTOGRAM, each beside a plain server that has been told the same.

use std::time::Duration;

use crate::support::{Client, Cluster, Flavour, Node, Proxy, Settings, Setup, Shape, eventually, until};

/// A cluster behind a proxy, and one server of the same kind.
struct Pair {
    proxy: Proxy,
    plain: Node,
    /// Behind the proxy, and gone after it.
    _cluster: Cluster,
}

impl Pair {
    /// Of each kind of server that is here.
    fn all(test: &str) -> impl Iterator<Item = (Flavour, Pair)> {
        [Flavour::Redis, Flavour::Valkey].into_iter().filter(move |flavour| flavour.is_here(test)).map(|flavour| {
            let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
            let proxy = Proxy::start(Settings::new(cluster.seeds()));
            let plain = Node::start(&Setup { flavour, ..Setup::default() });
            (flavour, Pair { proxy, plain, _cluster: cluster })
        })
    }

    /// What `look` sees by the proxy, and by the plain server.
    fn both<T>(&self, look: impl Fn(&str) -> T) -> [T; 2] {
        [self.proxy.address(), self.plain.address()].map(|address| look(&address))
    }
}

/// What clients do, one behind the other on one connection.
const DONE: &[&str] = &[
    "SET w:a 1",
    "GET w:a",
    "GET",
    "GET a b",
    "LPUSH w:a x",
    "MSET w:a 1 w:b 2 w:c 3 w:d 4",
    "MGET w:a w:b w:c w:d",
    "MGET w:a",
    "DEL w:a w:b w:c",
    "EXISTS w:a w:b w:d",
    "UNLINK w:d",
    "PING",
    "PING w",
    "ECHO w",
    "SELECT 0",
    "SELECT x",
    "CLIENT GETNAME",
    "CLIENT SETNAME me",
    "CLIENT NOSUCH",
    "HELLO 2",
    "AUTH nobody wrong",
    "CLUSTER SLOTS",
    "CLUSTER MYID",
    "CLUSTER KEYSLOT",
    "ACL WHOAMI",
    "ACL DRYRUN default get a",
    "COMMAND COUNT",
    "COMMAND GETKEYS GET a",
    "CONFIG GET hz",
    "CONFIG SET hz 10",
    "CONFIG",
    "INFO server",
    "DBSIZE",
    "KEYS w:*",
    "RANDOMKEY",
    "TIME",
    "SCRIPT LOAD return(1)",
    "SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db",
    "EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0",
    "EVAL redis.call('set',KEYS[1],1)return(redis.call('del',KEYS[1])) 1 w:s",
    "EVAL return(redis.call('ping')) 0",
    "EVALSHA 0000000000000000000000000000000000000000 0",
    "FUNCTION LIST",
    "MULTI",
    "SET w:{t}a 1",
    "MGET w:{t}a w:{t}b",
    "EXEC",
    "MULTI",
    "SET w:{t}a",
    "EXEC",
    "MULTI",
    "GET w:{t}a",
    "DISCARD",
    "WATCH w:{t}a",
    "MULTI",
    "GET w:{t}a",
    "EXEC",
    "WATCH w:{t}a",
    "UNWATCH",
    "WATCH w:{t}a",
    "SET w:{t}a 2",
    "MULTI",
    "GET w:{t}a",
    "EXEC",
    "MULTI",
    "EXEC",
    "MULTI",
    "PING",
    "CLIENT GETNAME",
    "GET w:{t}a",
    "EXEC",
    "EXEC",
    "DISCARD",
    "PUBLISH w:channel x",
    "SPUBLISH w:channel x",
    "SUBSCRIBE w:channel",
    "UNSUBSCRIBE w:channel",
    "BLPOP w:none 0.01",
    "OBJECT HELP",
    "OBJECT",
    "MEMORY USAGE w:{t}a",
    "LATENCY RESET",
    "NOSUCH a",
    "WAIT 0 10",
    "READONLY",
    "FLUSHALL",
];

fn do_all(client: &mut Client) {
    for line in DONE {
        client.line(line);
    }
}

/// What is shown by those who monitor at `address` up to the end: of clients, in its order, and of scripts.
fn monitored(address: &str, also: impl Fn(&mut Client)) -> [Vec<String>; 2] {
    let mut monitor = Client::connect(address);
    assert_eq!(monitor.line("MONITOR"), "+OK\r\n");
    // Some node may look after itself meanwhile, and discovery after all.
    let mut client = Client::connect(address);
    also(&mut client);
    client.line("ECHO the-end");
    let mut shown = [Vec::new(), Vec::new()];
    let (mut over, mut scripted) = (false, 0);
    loop {
        if over && scripted == 0 {
            return shown;
        }
        let text = monitor.reply().string();
        let (from, command) = text.split_once("] ").expect("a line");
        let is_script = from.ends_with(" lua");
        match command {
            "\"ECHO\" \"the-end\"" => over = true,
            _ if is_script => {
                scripted -= 1;
                shown[1].push(command.to_owned());
            }
            _ => {
                // Three calls of two scripts are owed.
                scripted += 2 * i32::from(command.contains("KEYS[1]")) + i32::from(command.contains("'ping'"));
                shown[0].push(command.to_owned());
            }
        }
    }
}

#[test]
fn monitor_shows_what_clients_did_once_and_in_their_words() {
    for (flavour, pair) in Pair::all("witness::monitor") {
        for _ in 0..2 {
            let [ours, theirs] = pair.both(|address| monitored(address, do_all));
            assert_eq!(ours[0], theirs[0], "{flavour:?}");
            assert_eq!(ours[1], theirs[1], "{flavour:?}: of scripts");
            assert!(ours[0].len() > 60 && ours[1].len() == 3, "{flavour:?} {ours:?}");
        }
    }
}

#[test]
fn monitor_shows_the_address_of_the_client_and_what_others_do_at_nodes() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let (mut monitor, mut client) = (proxy.client(), proxy.client());
    let other = Proxy::before(&cluster);
    assert_eq!(monitor.line("MONITOR"), "+OK\r\n");
    let [own, theirs, direct] = [0, 1, 2].map(|index| cluster.key_on(index, "w:"));
    client.call(&["GET", &own]);
    other.client().call(&["GET", &theirs]);
    let mut at_node = cluster.node(2).client();
    at_node.call(&["GET", &direct]);
    let address = client.stream().local_addr().expect("an address").to_string();
    let at_node = at_node.stream().local_addr().expect("an address").to_string();
    let mut shown = Vec::new();
    until("all three to be shown", Duration::from_secs(10), || {
        shown.push(monitor.reply().string());
        [&own, &theirs, &direct].iter().all(|key| shown.iter().any(|line| line.contains(*key))).then_some(())
    });
    let of = |key: &str| shown.iter().filter(|line| line.contains(key)).collect::<Vec<_>>();
    let line_of = |key: &str| match of(key)[..] {
        [line] => line.clone(),
        _ => panic!("{key} is not shown once: {shown:?}"),
    };
    assert!(line_of(&own).contains(&format!(" [0 {address}] \"GET\"")), "{shown:?}");
    assert!(line_of(&direct).contains(&format!(" [0 {at_node}] \"GET\"")), "{shown:?}");
    line_of(&theirs);
    // The other proxy has just connected and looks around.
    eventually("the other proxy to look around", || other.metric("slotway_topology_refreshes_total", &[]) > 1.0);
    client.line("ECHO the-end");
    while !shown.last().expect("a line").contains("the-end") {
        shown.push(monitor.reply().string());
    }
    assert!(!shown.iter().any(|line| line.contains("\"CLUSTER\"") || line.contains("\"PING\"")), "{shown:?}");
}

//! PROXY: one node on purpose, how a command would be served, and the proxy at a glance.

use std::time::Duration;

use slotway::protocol::{resp::Value, slot::Slot};

use crate::support::{Client, Cluster, Proxy, Reply, Settings, Shape, cluster::shared, eventually, until};

/// The error of a refusal that names its remedy.
#[track_caller]
fn assert_error(reply: &Reply, part: &str) {
    let text = String::from_utf8_lossy(&reply.0);
    assert!(text.starts_with('-') && text.contains(part), "expected an error with {part:?}: {reply:?}");
}

#[test]
fn a_node_is_reached_by_every_name() {
    let proxy = Proxy::before(shared());
    for version in [2, 3] {
        let mut client = proxy.client_of(version);
        for (index, node) in shared().nodes.iter().enumerate() {
            let (id, address) = (shared().id(index), node.address());
            let (first, last) = shared().slots_of(index);
            let key = shared().key_on(index, "by:name:");
            let port = format!(":{}", node.port);
            let (first, last, key) = (format!("slot:{first}"), format!("slot:{last}"), format!("key:{key}"));
            // By its name too, which only the network knows to be that address.
            let name = format!("localhost:{}", node.port);
            for name in [&address, &port, &name, &id, &id[..12], &first, &last, &key] {
                let reply = client.call(&["PROXY", "NODE", name, "CLUSTER", "MYID"]);
                assert_eq!(reply.string(), id, "{name}");
            }
        }
        let known = shared().node(1).address();
        for name in ["127.0.0.1:1", "localhost:7", "0000000000000000000000000000000000000000", "foo", "user:1000", ":1"]
        {
            let reply = client.call(&["PROXY", "NODE", name, "PING"]);
            assert_error(&reply, &format!("no node is {name}: say host:port"));
            assert_error(&reply, &known);
        }
        for name in ["127.0.0.1", "localhost"] {
            assert_error(&client.call(&["PROXY", "NODE", name, "PING"]), &format!("{name} may be any of "));
        }
        assert_error(&client.line("PROXY NODE slot:16384 PING"), "16384 is no slot");
        // A bare number is not guessed to be anything.
        let port = shared().node(0).port.to_string();
        for number in [&*port, "0", "7000", "16383"] {
            let reply = client.call(&["PROXY", "NODE", number, "PING"]);
            assert_error(&reply, &format!("say :{number}, slot:{number}, key:{number} or"));
            assert_error(&reply, &known);
        }
    }
}

#[test]
fn what_is_refused_otherwise_goes_to_a_node_that_is_named_as_such() {
    let proxy = Proxy::start(Settings::new(shared().seeds()).with("DENY", "flushall"));
    let mut client = proxy.client();
    client.line("SET past:list 1");
    let owner = shared().node(shared().home_of("past:list"));
    for command in ["SHUTDOWN NOSAVE", "FLUSHALL", "CLUSTER RESET", "DEBUG SEGFAULT", "CONFIG SET port 1", "ACL LOAD"] {
        for name in ["slot:7000", "key:past:list"] {
            let reply = client.line(&format!("PROXY NODE {name} {command}"));
            assert_error(
                &reply,
                "is not sent to whoever owns a slot: name the node itself, as in PROXY NODE 127.0.0.1:",
            );
        }
    }
    assert_eq!(client.line("GET past:list"), "$1\r\n1\r\n");
    // What the proxy serves anyway, and what only reads, may be asked of an owner.
    for command in ["CLUSTER MYID", "CONFIG GET port", "DBSIZE", "CONFIG SET hz 10"] {
        let reply = client.line(&format!("PROXY NODE key:past:list {command}"));
        assert_eq!(reply, owner.line(command), "{command}");
    }
    // The refusal shows the form that is safe.
    let refusal = client.line("SHUTDOWN NOSAVE");
    assert_error(&refusal, "PROXY NODE <host:port> SHUTDOWN ... (PROXY NODES lists them)");
    assert_eq!(client.line(&format!("PROXY NODE :{} ACL SAVE", owner.port)), owner.line("ACL SAVE"));
}

#[test]
fn replies_are_the_nodes_own_bytes() {
    let proxy = Proxy::before(shared());
    for version in [2, 3] {
        let (mut ours, mut theirs) = (proxy.client_of(version), shared().node(1).client());
        theirs.line(&format!("HELLO {version}"));
        let node = shared().node(1).address();
        for command in [
            "CONFIG GET port",
            "CLUSTER SLOTS",
            "CLUSTER MYID",
            "DEBUG SLEEP 0",
            "DEBUG NOSUCH",
            "SAVE",
            "NOSUCH a b",
            "GET",
            "CLUSTER ADDSLOTS x",
            "SWAPDB 0 x",
            "COMMAND DOCS get",
            "WAIT 0 0",
            "CLIENT GETNAME",
        ] {
            let reply = ours.line(&format!("PROXY NODE {node} {command}"));
            assert_eq!(reply, theirs.line(command), "{command}");
        }
        // A key of another node: what that node says of it.
        let key = shared().key_on(0, "own:bytes:");
        let said = ours.line(&format!("PROXY NODE {node} GET {key}"));
        assert_eq!(said, format!("-MOVED {} {}\r\n", Slot::of(key.as_bytes()), shared().node(0).address()).as_str());
    }
}

#[test]
fn what_is_about_a_connection_does_not_get_one() {
    let proxy = Proxy::before(shared());
    let mut client = proxy.client();
    let node = shared().node(0).address();
    for command in [
        "MULTI",
        "EXEC",
        "DISCARD",
        "WATCH a",
        "SUBSCRIBE a",
        "PSUBSCRIBE a",
        "SSUBSCRIBE a",
        "MONITOR",
        "HELLO 3",
        "RESET",
        "QUIT",
        "AUTH a",
        "SELECT 0",
        "SYNC",
        "PSYNC ? -1",
        "CLIENT REPLY OFF",
        "CLIENT REPLY SKIP",
        "CLIENT TRACKING ON",
        "client caching yes",
        "SCRIPT DEBUG YES",
        "PROXY NODES",
    ] {
        let reply = client.line(&format!("PROXY NODE {node} {command}"));
        assert_error(&reply, "lives for one command and one reply");
        assert_eq!(client.line("PING"), "+PONG\r\n", "after {command}");
    }
    assert_eq!(client.line("SET {a}whole 1"), "+OK\r\n");
    assert_eq!(client.line("GET {a}whole"), "$1\r\n1\r\n");
}

#[test]
fn a_command_that_waits_does_so_alone() {
    let proxy = Proxy::before(shared());
    let (mut waiting, mut other) = (proxy.client(), proxy.client());
    waiting.line("DEL alone:list");
    waiting.send(&["PROXY", "NODE", "key:alone:list", "BLPOP", "alone:list", "0"]);
    eventually("the node to have a blocked client", || {
        shared().nodes.iter().any(|node| node.info("blocked_clients") == "1")
    });
    assert_eq!(other.line("SET alone:list:2 x"), "+OK\r\n");
    assert_eq!(other.line("RPUSH alone:list a"), ":1\r\n");
    assert_eq!(waiting.reply(), "*2\r\n$10\r\nalone:list\r\n$1\r\na\r\n");

    // Its wait ends with its client.
    waiting.send(&["PROXY", "NODE", "key:alone:list", "BLPOP", "alone:list", "0"]);
    eventually("the node to have a blocked client", || {
        shared().nodes.iter().any(|node| node.info("blocked_clients") == "1")
    });
    drop(waiting);
    eventually("nobody to be blocked", || shared().nodes.iter().all(|node| node.info("blocked_clients") == "0"));
    assert_eq!(other.line("RPUSH alone:list b"), ":1\r\n");
    assert_eq!(other.line("LRANGE alone:list 0 -1"), "*1\r\n$1\r\nb\r\n");
}

#[test]
fn a_replica_is_read_on_purpose_and_a_node_may_be_stopped() {
    let cluster = Cluster::start(Shape { replicas: 1, ..Shape::default() });
    let settings = Settings::new(cluster.seeds()).with("REFRESH_INTERVAL", "300ms").expecting_warnings();
    let proxy = Proxy::start(settings);
    let mut client = proxy.client();
    assert_eq!(client.line("SET foo bar"), "+OK\r\n");
    let (primary, replica) = (cluster.node(2), cluster.node(5));
    // A cluster that has just formed takes a while to agree on who is whose replica.
    until("the replica to be known and to have the key", Duration::from_secs(40), || {
        (client.line(&format!("PROXY NODE {} GET foo", replica.address())) == "$3\r\nbar\r\n").then_some(())
    });
    let role = client.line(&format!("PROXY NODE {} ROLE", replica.address())).value();
    assert_eq!(role.items()[0].str(), Some("slave"));
    assert_eq!(client.line("ROLE").value().items()[2], Value::Array(Vec::new()));
    let info = client.line("INFO replication").string();
    assert!(info.contains("role:master\r\nconnected_slaves:0\r\n") && !info.contains("slave0"), "{info}");

    let nodes = client.line("PROXY NODES").texts();
    let line = nodes.iter().find(|line| line.starts_with(&replica.address())).expect("the replica");
    assert_eq!(*line, format!("{} replica {} of {}", replica.address(), cluster.id(5), cluster.id(2)));
    assert!(nodes.contains(&format!("{} primary {} slots 10923-16383", primary.address(), cluster.id(2))), "{nodes:?}");

    let reply = client.line(&format!("PROXY NODE {} SHUTDOWN NOSAVE", replica.address()));
    assert_error(&reply, &format!("no reply from {}", replica.address()));
    eventually("the replica to have gone", || Client::try_connect(&replica.address()).is_err());
    assert_error(&client.line(&format!("PROXY NODE {} PING", replica.address())), "cannot connect to");
    assert_eq!(client.line("GET foo"), "$3\r\nbar\r\n");
}

#[test]
fn an_operator_can_refuse_it() {
    for (deny, refused, served) in [
        ("proxy|node", "PROXY NODE key:foo GET foo", "PROXY NODES"),
        ("PROXY NODE,get", "PROXY NODE key:foo PING", "PROXY EXPLAIN GET foo"),
        ("proxy", "PROXY NODES", "PING"),
    ] {
        let proxy = Proxy::start(Settings::new(shared().seeds()).with("DENY", deny));
        let mut client = proxy.client();
        assert_error(&client.line(refused), "the proxy's configuration refuses it");
        assert!(!client.line(served).is_error(), "{served} with deny = {deny}");
    }
}

#[test]
fn malformed_and_in_a_transaction_it_is_an_error() {
    let proxy = Proxy::before(shared());
    let mut client = proxy.client();
    for (line, error) in [
        ("PROXY", "-ERR unknown subcommand ''. Try PROXY HELP.\r\n"),
        ("PROXY NODE a", "-ERR wrong number of arguments for 'proxy|node' command\r\n"),
        ("PROXY EXPLAIN", "-ERR wrong number of arguments for 'proxy|explain' command\r\n"),
        ("PROXY NODES x", "-ERR wrong number of arguments for 'proxy|nodes' command\r\n"),
        ("PROXY frob", "-ERR unknown subcommand 'frob'. Try PROXY HELP.\r\n"),
    ] {
        assert_eq!(client.line(line), error, "{line}");
    }
    for line in ["PROXY NODE key:foo GET foo", "PROXY EXPLAIN GET foo", "PROXY NODES", "PROXY INFO", "PROXY HELP"] {
        assert_eq!(client.line("MULTI"), "+OK\r\n");
        assert_error(&client.line(line), "Command not allowed inside a transaction");
        assert_error(&client.line("EXEC"), "EXECABORT");
    }
}

#[test]
fn a_command_is_explained_and_not_run() {
    let proxy = Proxy::start(Settings::new(shared().seeds()).with("DENY", "flushall").with("ALLOW", "save"));
    let (mut resp2, mut resp3) = (proxy.client(), proxy.client_of(3));
    let node = |index: usize| shared().node(index).address();
    resp2.line("DEL foo bar");
    for (line, parts) in [
        (
            "SET foo 1",
            vec![
                format!("key      foo  (slot 12182 at {})", node(2)),
                format!("served   by the owner of slot 12182 at {}", node(2)),
            ],
        ),
        (
            "MGET foo bar {foo}x",
            vec![
                "command  mget  (readonly,fast); request policy multi_shard".to_owned(),
                "policy   cross_slot = split".to_owned(),
                "served   in 2 parts, their replies put into the order of the keys".to_owned(),
                format!("part     slot 5061 at {}: bar", node(0)),
                format!("part     slot 12182 at {}: foo {{foo}}x", node(2)),
            ],
        ),
        (
            "DBSIZE",
            vec![format!("served   by every primary ({}, {}, {}), their replies added up", node(0), node(1), node(2))],
        ),
        ("FLUSHALL", vec!["policy   refused by `deny` of the configuration".to_owned()]),
        ("SAVE", vec!["policy   refused by default, let through by `allow` of the configuration".to_owned()]),
        ("SHUTDOWN", vec!["policy   refused by default; `allow` would let it through".to_owned()]),
        ("PUBLISH a b", vec!["served   by the one primary that all publishing goes through, 127.0.0.1:".to_owned()]),
        (
            "BLPOP foo 0",
            vec![format!(
                "served   on a connection of its own, by the owner of slot 12182 at {}: it may wait",
                node(2)
            )],
        ),
        ("NOSUCH a", vec!["command  not known: nodes may know it".to_owned()]),
        ("PROXY NODES", vec!["served   by the proxy itself".to_owned()]),
    ] {
        let reply = resp2.line(&format!("PROXY EXPLAIN {line}"));
        let lines = reply.texts();
        for part in &parts {
            assert!(lines.iter().any(|line| line.starts_with(part)), "{line}: {part:?} is not in {lines:#?}");
        }
        assert_eq!(resp3.line(&format!("PROXY EXPLAIN {line}")), reply, "{line} in RESP3");
    }
    assert_eq!(resp2.line("EXISTS foo bar"), ":0\r\n");
    // The command line says the same, without nodes.
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_slotway")).args(["explain", "mget", "foo", "bar"]).output();
    let said = String::from_utf8(output.expect("slotway explain").stdout).expect("UTF-8");
    let live = resp2.line("PROXY EXPLAIN mget foo bar").texts();
    for (line, live) in said.lines().zip(&live) {
        let anonymous = (0..3).fold(live.clone(), |line, index| line.replace(&format!(" at {}", node(index)), ""));
        assert_eq!(line, anonymous);
    }
    assert_eq!(said.lines().count(), live.len());
}

#[test]
fn the_proxy_at_a_glance() {
    let proxy = Proxy::before(shared());
    let mut client = proxy.client();
    let info = client.line("PROXY INFO").texts();
    for line in ["connected_clients:1", "nodes:3", "primaries:3", "slots_assigned:16384", "server:Redis 7."] {
        assert!(info.iter().any(|known| known.starts_with(line)), "{line}: {info:?}");
    }
    assert_eq!(client.line("PROXY NODES").texts().len(), 3);
    let help = client.line("PROXY HELP").texts();
    assert_eq!(help[0], "PROXY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    for sub in ["NODE ", "NODES", "EXPLAIN ", "INFO", "HELP"] {
        assert!(help.iter().any(|line| line.starts_with(sub)), "{sub}");
    }
}

#[test]
fn what_is_refused_and_what_is_the_proxys_own_is_counted() {
    let proxy = Proxy::before(shared());
    let mut client = proxy.client();
    (0..3).for_each(|_| drop(client.line("SHUTDOWN NOSAVE")));
    (0..2).for_each(|_| drop(client.line("PROXY NODE key:foo GET foo")));
    client.line("PROXY NODE 127.0.0.1:1 PING");
    client.line("PROXY NODES");
    client.line("CLUSTER NODES");
    for (command, result, count) in [
        ("shutdown", "error", 3.0),
        ("proxy|node", "ok", 2.0),
        ("proxy|node", "error", 1.0),
        ("proxy|nodes", "ok", 1.0),
        ("cluster|nodes", "error", 1.0),
    ] {
        let labels = [format!("command=\"{command}\""), format!("result=\"{result}\"")];
        eventually(&format!("{command} to be counted"), || {
            proxy.metric("slotway_commands_total", &[&labels[0], &labels[1]]) == count
        });
    }
}

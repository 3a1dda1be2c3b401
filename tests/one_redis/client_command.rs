//! CLIENT in the words of the servers behind: filters, switches, and all that can be wrong with them.

use crate::support::{Client, Cluster, Flavour, Node, Proxy, Reply, Setup, Shape, cluster::shared, eventually};

/// Lines whose replies are alike whoever is asked.
const LINES: &str = include_str!("client_command/lines.txt");

/// Every line, each on a connection of its own, at both.
fn compare(proxy: &Proxy, server: &Node) {
    let mut wrong = Vec::new();
    for line in LINES.lines().filter(|line| !line.is_empty()) {
        for version in [2, 3] {
            let ask = |address: &str| -> Reply {
                let mut client = Client::connect(address);
                client.line(&format!("HELLO {version}"));
                let reply = client.line(line);
                // Whatever it has set must not hold up the next.
                Client::connect(address).line("CLIENT UNPAUSE");
                reply
            };
            let (ours, theirs) = (ask(&proxy.address()), ask(&server.address()));
            if ours != theirs {
                wrong.push(format!("{line} in RESP{version}\n    ours:   {ours:?}\n    theirs: {theirs:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn arguments_are_judged_as_redis_judges_them() {
    compare(&Proxy::before(shared()), &Node::standalone());
}

#[test]
fn arguments_are_judged_as_valkey_judges_them() {
    if !Flavour::Valkey.is_here("arguments_are_judged_as_valkey_judges_them") {
        return;
    }
    let cluster = Cluster::start(Shape {
        flavour: Flavour::Valkey,
        config: vec!["cluster-databases 16".into()],
        ..Shape::default()
    });
    let server = Node::start(&Setup { flavour: Flavour::Valkey, ..Setup::default() });
    let proxy = Proxy::before(&cluster);
    compare(&proxy, &server);
    for address in [proxy.address(), server.address()] {
        let mut named = Client::connect(&address);
        named.line("CLIENT SETNAME alice");
        named.line("CLIENT SETINFO lib-name lib");
        named.line("SELECT 3");
        let mut listening = Client::connect(&address);
        listening.line("SUBSCRIBE x");
        let mut client = Client::connect(&address);
        let mut count = |line: &str| client.line(line).string().lines().count();
        for (filter, expected) in [
            ("NAME alice", 1),
            ("LIB-NAME lib", 1),
            ("LIB-NAME lib NAME bob", 0),
            ("DB 3", 1),
            ("NOT-DB 3", 2),
            ("FLAGS P", 1),
            ("NOT-FLAGS P", 2),
            ("TYPE pubsub", 1),
            ("NOT-TYPE pubsub", 2),
            ("NOT-NAME alice", 2),
            ("SKIPME yes", 2),
            ("IP 127.0.0.1", 3),
            ("NOT-IP 127.0.0.1", 0),
            ("IDLE 1000", 0),
            ("MAXAGE 1000", 0),
            ("USER default", 3),
            ("NOT-USER default", 0),
        ] {
            assert_eq!(count(&format!("CLIENT LIST {filter}")), expected, "{filter} at {address}");
        }
        let mut fields = || -> Vec<String> {
            let info = client.line("INFO clients").string();
            let field =
                |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
            ["pubsub_clients:", "tracking_clients:", "paused_reason:", "paused_actions:"].map(field).to_vec()
        };
        assert_eq!(fields(), ["1", "0", "none", "none"], "{address}");
        named.line("CLIENT TRACKING ON");
        named.line("CLIENT PAUSE 60000 WRITE");
        assert_eq!(fields(), ["1", "1", "client_pause", "write"], "{address}");
        named.line("CLIENT UNPAUSE");
        assert_eq!(fields(), ["1", "1", "none", "none"], "{address}");
        assert_eq!(client.line("CLIENT KILL NOT-NAME alice NOT-TYPE normal"), ":1\r\n", "{address}");
        assert!(listening.read_to_end().is_ok());
        assert_eq!(client.line("CLIENT KILL NAME alice DB 3 LIB-NAME lib"), ":1\r\n", "{address}");
        assert_eq!(named.read_to_end().expect("the end"), b"");
    }
}

#[test]
fn what_a_client_is_shows_in_its_line() {
    let (proxy, redis) = (Proxy::before(shared()), Node::standalone());
    for address in [proxy.address(), redis.address()] {
        let mut client = Client::connect(&address);
        let mut flags = |line: &str| {
            client.line(line);
            let info = client.line("CLIENT INFO").string();
            let word = |name: &str| {
                info.split([' ', '\n']).find_map(|word| word.strip_prefix(name)).unwrap_or_default().to_owned()
            };
            (word("flags="), word("cmd="), word("redir="), word("resp="))
        };
        let is = |flags: &str, redirect: &str, resp: &str| {
            (flags.to_owned(), "client|info".to_owned(), redirect.to_owned(), resp.to_owned())
        };
        assert_eq!(flags("PING"), is("N", "-1", "2"), "{address}");
        assert_eq!(flags("CLIENT NO-EVICT ON"), is("e", "-1", "2"), "{address}");
        assert_eq!(flags("CLIENT TRACKING ON"), is("te", "0", "2"), "{address}");
        assert_eq!(flags("CLIENT TRACKING OFF"), is("e", "-1", "2"), "{address}");
        assert_eq!(flags("HELLO 3"), is("e", "-1", "3"), "{address}");
        assert_eq!(flags("CLIENT TRACKING ON BCAST PREFIX cc.none"), is("tBe", "0", "3"), "{address}");
        assert_eq!(flags("RESET").1, "client|info", "{address}");
        assert_eq!(flags("CLIENT NO-EVICT OFF"), is("N", "-1", "2"), "{address}");
        let mut other = Client::connect(&address);
        let id = other.line("CLIENT ID").integer();
        other.send(&["CLIENT", "REPLY", "OFF"]);
        other.send(&["CLIENT", "REPLY", "SKIP"]);
        other.send(&["ECHO", "unheard"]);
        assert_eq!(other.line("CLIENT REPLY ON"), "+OK\r\n", "{address}");
        let line = client.line("CLIENT LIST ID 0 x").is_error();
        assert!(line, "{address}");
        let twice = client.line(&format!("CLIENT LIST ID {id} {id}")).string();
        assert_eq!(twice.lines().filter(|line| line.contains(" cmd=client|reply ")).count(), 2, "{twice}");
    }
}

#[test]
fn what_is_held_for_a_client_shows_in_its_line() {
    let (proxy, redis) = (Proxy::before(shared()), Node::standalone());
    for address in [proxy.address(), redis.address()] {
        let (mut client, mut other) = (Client::connect(&address), Client::connect(&address));
        let id = client.line("CLIENT ID").integer();
        let mut field = |name: &str| -> usize {
            let line = other.line(&format!("CLIENT LIST ID {id}")).string();
            let word = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {name} in {line}"))
        };
        assert_eq!((field("qbuf"), field("multi-mem")), (0, 0), "{address}");
        client.line("MULTI");
        client.line("SET {held}k value");
        assert!(field("multi-mem") > 0, "{address}");
        assert_eq!(field("multi"), 1, "{address}");
        client.line("DISCARD");
        client.send_raw(b"*2\r\n$4\r\nECHO\r\n$100\r\nhalf");
        eventually("what is not whole yet", || field("qbuf") + field("argv-mem") > 0);
        assert_eq!(field("multi-mem"), 0, "{address}");
        client.send_raw(&[&[b'x'; 96][..], b"\r\n"].concat());
        assert_eq!(client.reply().text().len(), 100, "{address}");
        eventually("all to be read", || field("qbuf") + field("argv-mem") == 0);
    }
}

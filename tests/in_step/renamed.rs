//! A command that nodes know by another name (`rename-command`) is that command: planned, split and denied. Nodes are
//! asked for a name once, and never where no command is renamed.

use crate::{
    in_step::frames::with_both,
    support::{Cluster, Flavour, Node, Proxy, Settings, Setup, Shape, words},
};

const RENAMED: &[&str] = &[
    "rename-command FLUSHALL secret",
    "rename-command GET fetch",
    "rename-command MGET gather",
    "rename-command DEL erase",
    "rename-command CLIENT customer",
    "rename-command SHUTDOWN halt",
    "rename-command SAVE \"\"",
];

fn config() -> Vec<String> {
    RENAMED.iter().map(|line| (*line).to_owned()).collect()
}

fn cluster(flavour: Flavour, config: Vec<String>) -> Cluster {
    Cluster::start(Shape { flavour, config, ..Shape::default() })
}

/// How often nodes have been asked whose name one is.
fn asked(cluster: &Cluster) -> u64 {
    let calls = |node: &Node| {
        let info = node.line("INFO commandstats").string();
        let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_command|info:calls=").map(str::to_owned));
        line.map_or(0, |line| line.split(',').next().expect("a number").parse::<u64>().expect("a number"))
    };
    cluster.nodes.iter().map(calls).sum()
}

#[test]
fn a_renamed_command_is_that_command() {
    with_both("renamed::a_renamed_command_is_that_command", |flavour| {
        let cluster = cluster(flavour, config());
        let oracle = Node::start(&Setup { flavour, config: config(), ..Setup::default() });
        let proxy = Proxy::start(Settings::new(cluster.seeds()));
        let (mut ours, mut theirs) = (proxy.client(), oracle.client());
        let lines = [
            "SET k1 1",
            "MSET k2 2 k3 3 k4 4",
            "fetch k1",
            "FETCH k1",
            "fetch",
            "fetch k1 k2",
            "gather k1 k2 k3 none k4",
            "gather",
            "GET k1",
            "SAVE",
            "nothing of the kind",
            "customer nosub",
            "customer SETNAME me",
            "customer GETNAME",
            "MULTI",
            "fetch k2",
            "nothing",
            "EXEC",
            "MULTI",
            "fetch k2",
            "EXEC",
            "erase k1 k2 k3 none",
            "DBSIZE",
            "secret",
            "DBSIZE",
        ];
        for line in lines {
            assert_eq!(ours.line(line), theirs.line(line), "{flavour:?}: {line}");
        }
        // Not one by one, either.
        let requests: Vec<_> = lines.iter().map(|line| words(line)).collect();
        let (ours, theirs) = (proxy.client().pipeline(&requests), oracle.client().pipeline(&requests));
        for ((ours, theirs), line) in ours.iter().zip(&theirs).zip(lines) {
            assert_eq!(ours, theirs, "{flavour:?}, pipelined: {line}");
        }
    });
}

#[test]
fn a_renamed_command_is_denied_as_itself() {
    with_both("renamed::a_renamed_command_is_denied_as_itself", |flavour| {
        let cluster = cluster(flavour, config());
        let proxy = Proxy::start(Settings::new(cluster.seeds()).with("DENY", "flushall"));
        proxy.client().line("SET kept 1");
        for (line, name) in [
            ("PROXY NODE slot:0 secret", "FLUSHALL"),
            ("PROXY NODE key:kept halt NOSAVE", "SHUTDOWN"),
            ("secret", "FLUSHALL"),
            ("SeCrEt ASYNC", "FLUSHALL"),
            ("halt NOSAVE", "SHUTDOWN"),
        ] {
            let reply = proxy.client().line(line);
            assert!(reply.is_error() && format!("{reply:?}").contains(name), "{flavour:?}: {line}: {reply:?}");
        }
        let mut client = proxy.client();
        client.line("MULTI");
        assert!(client.line("secret").is_error(), "{flavour:?}");
        assert!(client.line("EXEC").is_error(), "{flavour:?}");
        assert_eq!(proxy.client().line("fetch kept"), "$1\r\n1\r\n", "{flavour:?}");
    });
}

#[test]
fn nodes_are_asked_for_a_name_once() {
    with_both("renamed::nodes_are_asked_for_a_name_once", |flavour| {
        let renamed = cluster(flavour, config());
        let proxy = Proxy::start(Settings::new(renamed.seeds()));
        proxy.client().line("PING");
        let before = asked(&renamed);
        for _ in 0..20 {
            let mut client = proxy.client();
            client.line("nothing of the kind");
            client.line("NOTHING of the kind");
            client.line("fetch k");
        }
        assert_eq!(asked(&renamed) - before, 2, "{flavour:?}: of one for each name");

        let plain = cluster(flavour, Vec::new());
        let proxy = Proxy::start(Settings::new(plain.seeds()));
        let before = asked(&plain);
        for number in 0..20 {
            assert!(proxy.client().line(&format!("made-up-{number} x")).is_error());
        }
        assert_eq!(asked(&plain), before, "{flavour:?}: no command is renamed");
    });
}

/// What the proxy says to nodes by itself, or has a meaning for those who share a connection.
const GONE: &[&str] = &[
    "rename-command SCRIPT \"\"",
    "rename-command EVALSHA \"\"",
    "rename-command CLIENT \"\"",
    "rename-command ASKING \"\"",
    "rename-command HELLO \"\"",
    "rename-command XINFO \"\"",
];

#[test]
fn what_nodes_do_not_have_is_their_own_error_and_harms_nobody() {
    with_both("renamed::what_nodes_do_not_have_is_their_own_error_and_harms_nobody", |flavour| {
        let config: Vec<String> = GONE.iter().map(|line| (*line).to_owned()).collect();
        let cluster = cluster(flavour, config.clone());
        let oracle = Node::start(&Setup { flavour, config, ..Setup::default() });
        let proxy = Proxy::start(Settings::new(cluster.seeds()).with("WORKERS", 1));
        let (mut ours, mut theirs) = (proxy.client(), oracle.client());
        let sha = "7b6149474e93dc3661a8a719fd6876221f0e5f0c";
        let lines = [
            "EVAL return(1) 0".to_owned(),
            format!("EVALSHA {sha} 1 k"),
            "SCRIPT LOAD return(1)".to_owned(),
            format!("SCRIPT EXISTS {sha}"),
            "SCRIPT FLUSH".to_owned(),
            "CLIENT ID".to_owned(),
            "CLIENT TRACKING ON".to_owned(),
            "ASKING".to_owned(),
            "HELLO 3".to_owned(),
            "BLPOP none 0.1".to_owned(),
            "XREAD BLOCK 50 STREAMS none $".to_owned(),
            "SET k 1".to_owned(),
            "GET k".to_owned(),
        ];
        for line in &lines {
            assert_eq!(ours.line(line), theirs.line(line), "{flavour:?}: {line}");
        }
        let requests: Vec<_> = lines.iter().map(|line| words(line)).collect();
        let (ours, theirs) = (proxy.client().pipeline(&requests), oracle.client().pipeline(&requests));
        assert_eq!(ours, theirs, "{flavour:?}, pipelined");

        // A slot is half moved, and nodes do not take ASKING: the client is told so, and no connection is lost for it.
        let slot = 12182;
        let from = cluster.home_of("foo");
        let to = (from + 1) % 3;
        cluster.open_slot(slot, from, to);
        let reply = proxy.client().patient(std::time::Duration::from_secs(30)).line("SET {foo}new 1");
        assert!(format!("{reply:?}").contains("too many redirects for slot 12182"), "{flavour:?}: {reply:?}");
        assert_eq!(proxy.client().line("GET k"), "$1\r\n1\r\n", "{flavour:?}");
    });
}

#[test]
fn a_transaction_is_begun_and_ended_by_names_that_nodes_know() {
    with_both("renamed::a_transaction_is_begun_and_ended_by_names_that_nodes_know", |flavour| {
        for (multi, exec) in [("MULTI", "xexec"), ("xmulti", "EXEC"), ("xmulti", "xexec")] {
            let renamed = [("MULTI", multi), ("EXEC", exec)].into_iter().filter(|(own, name)| own != name);
            let config = renamed.map(|(own, name)| format!("rename-command {own} {name}")).collect();
            let cluster = cluster(flavour, config);
            let proxy = Proxy::start(Settings::new(cluster.seeds()).with("WORKERS", 1));
            let (mut client, mut neighbour) = (proxy.client(), proxy.client());
            if multi != "MULTI" {
                assert!(client.line("MULTI").is_error(), "{flavour:?}");
            }
            for name in ["MULTI", "EXEC"].into_iter().filter(|own| ![multi, exec].contains(own)) {
                client.line(multi);
                client.line("SET k 1");
                let reply = client.line(name);
                assert!(reply.is_error(), "{flavour:?}: {name}: {reply:?}");
                client.line("DISCARD");
                // By the connection that both share.
                assert_eq!(neighbour.line("GET k"), "$-1\r\n", "{flavour:?}: nothing ran, {name}");
            }
            for (line, expected) in [(multi, "+OK\r\n"), ("SET k 2", "+QUEUED\r\n"), (exec, "*1\r\n+OK\r\n")] {
                assert_eq!(client.line(line), expected, "{flavour:?}: {line}");
            }
            assert_eq!(neighbour.line("GET k"), "$1\r\n2\r\n", "{flavour:?}");
        }
    });
}

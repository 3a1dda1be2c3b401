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

//! A script that runs for long on one node: what changes all nodes is done at all of them or at none, in the words of one
//! Redis, and what the nodes miss all the same they are given afterwards.

use slotway::commands::table::CommandTable;

use crate::support::{Client, Cluster, Flavour, Node, Proxy, Reply, Settings, Setup, Shape, eventually};

const LIBRARY: &str = "#!lua name=mylib\nredis.register_function('one',function() return 1 end)";
const CHANGED: &str = "#!lua name=mylib\nredis.register_function('one',function() return 2 end)";
const OTHER: &str = "#!lua name=other\nredis.register_function('other',function() return 1 end)";

/// Runs a script that does not end on `node` until somebody kills it, and waits until the node says so.
fn keep_busy(node: &Node) {
    assert_eq!(node.line("CONFIG SET busy-reply-threshold 50"), "+OK\r\n");
    let mut busy = node.client();
    busy.send(&["EVAL", "while true do end", "0"]);
    eventually("the node to be busy", || node.line("PING").0.starts_with(b"-BUSY "));
}

fn end_script(address: &str, node: &Node) {
    assert_eq!(Client::connect(address).line("SCRIPT KILL"), "+OK\r\n");
    eventually("the script to end", || !node.line("PING").is_error());
}

/// A request of each command that changes all nodes.
fn examples() -> Vec<(&'static str, Vec<&'static str>)> {
    let lines = [
        ("acl|deluser", "ACL DELUSER nobody"),
        ("acl|load", "ACL LOAD"),
        ("acl|log", "ACL LOG RESET"),
        ("acl|save", "ACL SAVE"),
        ("acl|setuser", "ACL SETUSER nobody on"),
        ("bgrewriteaof", "BGREWRITEAOF"),
        ("bgsave", "BGSAVE"),
        ("commandlog|reset", "COMMANDLOG RESET slow"),
        ("config|resetstat", "CONFIG RESETSTAT"),
        ("config|rewrite", "CONFIG REWRITE"),
        ("config|set", "CONFIG SET slowlog-max-len 200"),
        ("debug", "DEBUG SET-ACTIVE-EXPIRE 1"),
        ("flushall", "FLUSHALL"),
        ("flushdb", "FLUSHDB ASYNC"),
        ("function|delete", "FUNCTION DELETE mylib"),
        ("function|flush", "FUNCTION FLUSH"),
        ("function|restore", "FUNCTION RESTORE nonsense"),
        ("latency|reset", "LATENCY RESET"),
        ("memory|purge", "MEMORY PURGE"),
        ("script|flush", "SCRIPT FLUSH"),
        ("slowlog|reset", "SLOWLOG RESET"),
    ];
    let split = |line: &'static str| line.split(' ').collect();
    let mut examples: Vec<_> = lines.into_iter().map(|(name, line)| (name, split(line))).collect();
    examples.push(("function|load", vec!["FUNCTION", "LOAD", LIBRARY]));
    examples
}

/// How often a node has carried out a command.
fn calls(node: &Node, name: &str) -> String {
    let stats = node.line("INFO commandstats").string();
    let line = stats.lines().find(|line| line.starts_with(&format!("cmdstat_{name}:")));
    line.map_or("none", |line| line.split(',').next().unwrap_or_default()).to_owned()
}

#[test]
fn what_changes_all_nodes_is_done_nowhere_while_one_is_busy() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        if !flavour.is_here("busy::what_changes_all_nodes_is_done_nowhere_while_one_is_busy") {
            continue;
        }
        let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
        let oracle = Node::start(&Setup { flavour, ..Setup::default() });
        let allowed = "acl, config rewrite";
        let proxy = Proxy::start(Settings::new(cluster.seeds()).with("ALLOW", allowed).expecting_warnings());
        let table = CommandTable::learn(&oracle.line("COMMAND").value()).expect("a table");
        let concerned = table.rows().iter().filter(|spec| spec.when_busy.asks_first());
        let refused = |name: &str| ["module|", "cluster|"].iter().any(|refused| name.starts_with(refused));
        let concerned: Vec<_> = concerned.filter(|spec| !refused(&spec.name) && &*spec.name != "save").collect();
        let examples = examples();
        keep_busy(&cluster.nodes[1]);
        keep_busy(&oracle);
        for spec in &concerned {
            let example = examples.iter().find(|(name, _)| *name == &*spec.name);
            let (name, request) = example.unwrap_or_else(|| panic!("{} has no example", spec.name));
            let before = [0, 2].map(|index| calls(&cluster.nodes[index], name));
            let (ours, theirs) = (proxy.client().call(request), oracle.client().call(request));
            assert_eq!(ours, theirs, "{flavour:?}: {request:?}");
            assert!(ours.0.starts_with(b"-BUSY "), "{flavour:?}: {request:?}: {ours:?}");
            assert_eq!([0, 2].map(|index| calls(&cluster.nodes[index], name)), before, "{flavour:?}: {request:?}");
            // Within a transaction likewise, where it may be in one.
            let mut client = proxy.client();
            client.line("MULTI");
            if client.call(request) == "+QUEUED\r\n" {
                assert!(client.line("EXEC").0.windows(6).any(|part| part == b"-BUSY "), "{flavour:?}: {request:?}");
                let after = [0, 2].map(|index| calls(&cluster.nodes[index], name));
                assert_eq!(after, before, "{flavour:?}: {request:?}");
            }
        }
        // The others are not touched by that: what has to do with one node only is served.
        assert_eq!(proxy.client().call(&["SET", &cluster.key_on(0, "well:"), "v"]), "+OK\r\n");
        end_script(&proxy.address(), &cluster.nodes[1]);
        for (name, request) in examples.iter().filter(|(name, _)| concerned.iter().any(|spec| *spec.name == **name)) {
            let reply = proxy.client().call(request);
            assert!(!reply.0.starts_with(b"-BUSY "), "{name}: {reply:?}");
        }
    }
}

#[test]
fn functions_are_changed_everywhere_or_nowhere_while_a_script_runs() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        if !flavour.is_here("busy::functions_are_changed_everywhere_or_nowhere_while_a_script_runs") {
            continue;
        }
        let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
        let proxy = Proxy::start(Settings::new(cluster.seeds()).expecting_warnings());
        let mut client = proxy.client();
        let libraries = || {
            let listed = |node: &Node| node.line("FUNCTION LIST").value().items().len();
            cluster.nodes.iter().map(listed).collect::<Vec<_>>()
        };
        for (request, before, after) in [
            (&["FUNCTION", "LOAD", LIBRARY][..], 0, 1),
            (&["FUNCTION", "DELETE", "mylib"], 1, 0),
            (&["FUNCTION", "FLUSH"], 0, 0),
        ] {
            keep_busy(&cluster.nodes[1]);
            let refused = client.call(request);
            assert!(refused.0.starts_with(b"-BUSY "), "{request:?}: {refused:?}");
            assert_eq!(client.line("SCRIPT KILL"), "+OK\r\n");
            eventually("the script to end", || !cluster.nodes[1].line("PING").is_error());
            assert_eq!(libraries(), [before; 3], "{request:?}");
            let done = client.call(request);
            assert!(!done.is_error(), "{request:?}: {done:?}");
            assert_eq!(libraries(), [after; 3], "{request:?}");
        }
    }
}

/// A node of whose script the proxy does not hear when it asks: its own user may not ask.
struct Unheard {
    cluster: Cluster,
    proxy: Proxy,
}

impl Unheard {
    fn new(flavour: Flavour) -> Unheard {
        let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
        for node in &cluster.nodes {
            assert_eq!(node.line("ACL SETUSER proxy on >secret ~* &* +@all -ping"), "+OK\r\n");
        }
        let settings = Settings::new(cluster.seeds()).with("USERNAME", "proxy").with("PASSWORD", "secret");
        let proxy = Proxy::start(settings.expecting_warnings());
        Unheard { cluster, proxy }
    }

    /// Carries out a request while a script runs on these nodes, and ends the scripts.
    fn while_busy(&self, busy: &[usize], request: &[&str]) -> Reply {
        let mut client = self.proxy.client();
        for index in 0..3 {
            assert!(!client.call(&["GET", &self.cluster.key_on(index, "links:")]).is_error());
        }
        busy.iter().for_each(|index| keep_busy(&self.cluster.nodes[*index]));
        let reply = client.call(request);
        busy.iter().for_each(|index| end_script(&self.cluster.nodes[*index].address(), &self.cluster.nodes[*index]));
        reply
    }

    fn libraries(&self) -> Vec<Vec<String>> {
        let listed = |node: &Node| {
            let libraries = node.line("FUNCTION LIST WITHCODE").value();
            let code = |library: &slotway::protocol::resp::Value| {
                String::from_utf8_lossy(library.field("library_code").unwrap().text().unwrap()).into_owned()
            };
            let mut codes: Vec<String> = libraries.items().iter().map(code).collect();
            codes.sort();
            codes
        };
        self.cluster.nodes.iter().map(listed).collect()
    }

    #[track_caller]
    fn assert_alike(&self, expected: &[&str]) {
        eventually("all nodes to have the same functions", || {
            self.libraries().iter().all(|libraries| libraries == expected)
        });
    }
}

#[test]
fn a_node_that_gets_busy_just_then_is_made_like_the_others() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        if !flavour.is_here("busy::a_node_that_gets_busy_just_then_is_made_like_the_others") {
            continue;
        }
        let scene = Unheard::new(flavour);
        for (busy, request, then) in [
            (&[1][..], &["FUNCTION", "LOAD", LIBRARY][..], &[LIBRARY][..]),
            (&[2], &["FUNCTION", "LOAD", "REPLACE", CHANGED], &[CHANGED]),
            (&[0, 1], &["FUNCTION", "LOAD", OTHER], &[CHANGED, OTHER]),
            (&[0], &["FUNCTION", "DELETE", "other"], &[CHANGED]),
            (&[1, 2], &["FUNCTION", "FLUSH"], &[]),
        ] {
            let said = scene.while_busy(busy, request);
            let said = String::from_utf8_lossy(&said.0).into_owned();
            let parts = format!("was done in {} of 3 parts", 3 - busy.len());
            assert!(said.starts_with("-BUSY "), "{said}");
            assert!(said.contains(&parts) && said.contains("follows as soon as it can"), "{said}");
            scene.assert_alike(then);
            // What is changed next is not undone.
            let mut client = scene.proxy.client();
            assert!(!client.call(&["FUNCTION", "LOAD", "REPLACE", OTHER]).is_error());
            scene.assert_alike(
                &[then, &[OTHER][..]]
                    .concat()
                    .into_iter()
                    .collect::<std::collections::BTreeSet<_>>()
                    .into_iter()
                    .collect::<Vec<_>>(),
            );
            assert_eq!(client.call(&["FUNCTION", "DELETE", "other"]), "+OK\r\n");
            if then.contains(&OTHER) {
                assert!(!client.call(&["FUNCTION", "LOAD", OTHER]).is_error());
            }
            scene.assert_alike(then);
        }
        let log = scene.proxy.log();
        assert!(log.contains("was given function libraries"), "{log}");
    }
}

#[test]
fn scripts_that_are_flushed_while_a_node_is_busy_go_there_too() {
    let scene = Unheard::new(Flavour::Redis);
    let sha = scene.proxy.client().call(&["SCRIPT", "LOAD", "return 7"]).string();
    let said = scene.while_busy(&[1], &["SCRIPT", "FLUSH"]);
    let said = String::from_utf8_lossy(&said.0).into_owned();
    assert!(said.starts_with("-BUSY ") && said.contains("SCRIPT FLUSH was done in 2 of 3 parts"), "{said}");
    eventually("the script to be gone everywhere", || {
        scene.cluster.nodes.iter().all(|node| node.line(&format!("SCRIPT EXISTS {sha}")) == "*1\r\n:0\r\n")
    });
    // What is not made up for says what was done.
    let said = scene.while_busy(&[1], &["CONFIG", "SET", "slowlog-max-len", "321"]);
    let said = String::from_utf8_lossy(&said.0).into_owned();
    assert!(said.starts_with("-BUSY ") && said.contains("CONFIG SET was done in 2 of 3 parts"), "{said}");
    assert!(!said.contains("follows"), "{said}");
}

#[test]
fn a_transaction_behind_a_long_script_is_aborted_as_by_one_redis() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        if !flavour.is_here("busy::a_transaction_behind_a_long_script_is_aborted_as_by_one_redis") {
            continue;
        }
        let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
        let oracle = Node::start(&crate::support::Setup { flavour, ..Default::default() });
        let proxy = Proxy::start(Settings::new(cluster.seeds()).expecting_warnings());
        let key = cluster.key_on(1, "busy:");
        for own in [false, true] {
            let run = |address: String, node: &Node| {
                let mut client = Client::connect(&address);
                assert!(!client.line("MULTI").is_error());
                assert_eq!(client.call(&["SET", &key, "1"]), "+QUEUED\r\n");
                if own {
                    assert_eq!(client.line("CLIENT GETNAME"), "+QUEUED\r\n");
                }
                keep_busy(node);
                let reply = client.line("EXEC");
                assert_eq!(Client::connect(&address).line("SCRIPT KILL"), "+OK\r\n");
                eventually("the script to end", || !node.line("PING").is_error());
                reply
            };
            let (ours, theirs) = (run(proxy.address(), &cluster.nodes[1]), run(oracle.address(), &oracle));
            assert_eq!(ours, theirs, "with an answer of the proxy's own: {own}");
            assert!(ours.0.starts_with(b"-EXECABORT Transaction discarded because of: BUSY "), "{ours:?}");
        }
    }
}

//! What an ACL user may not do at a node, it may not do at the proxy: in the words of one server, whoever answers.

use std::time::Duration;

use crate::support::{Client, Cluster, Flavour, Node, Proxy, Reply, Settings, Setup, Shape, eventually, until, words};

/// A cluster and one plain server of each kind that is here.
fn with_each_server(test: &str, run: impl Fn(Cluster, Node)) {
    for flavour in [Flavour::Redis, Flavour::Valkey].into_iter().filter(|flavour| flavour.is_here(test)) {
        let plain = Node::start(&Setup { flavour, ..Setup::default() });
        run(Cluster::start(Shape { flavour, ..Shape::default() }), plain);
    }
}

/// Says a line to all nodes and the plain server.
#[track_caller]
fn everywhere(cluster: &Cluster, plain: &Node, line: &str) {
    for node in cluster.nodes.iter().chain([plain]) {
        let reply = node.line(line);
        assert!(!reply.is_error(), "{line}: {reply:?}");
    }
}

/// A client of each, logged in alike.
fn both(proxy: &Proxy, plain: &Node, user: &str) -> (Client, Client) {
    let (mut ours, mut theirs) = (proxy.client(), plain.client());
    for client in [&mut ours, &mut theirs] {
        assert_eq!(client.line(&format!("AUTH {user} secret")), "+OK\r\n");
    }
    (ours, theirs)
}

const NOBODY: &str = "ACL SETUSER nobody on >secret -@all";
/// May all but a few things, with some keys and channels.
const SOMEBODY: &str = "ACL SETUSER somebody on >secret +@all -ping -client|kill -client|list -mset ~k* &c*";

/// What the proxy answers itself or by several nodes, what it refuses, and some that nodes are sent as they come.
const LINES: &[&str] = &[
    "PING",
    "PING a",
    "ECHO a",
    "CLIENT LIST",
    "CLIENT INFO",
    "CLIENT ID",
    "CLIENT GETNAME",
    "CLIENT SETNAME x",
    "CLIENT KILL ID 1",
    "CLIENT KILL 1.2.3.4:5",
    "CLIENT PAUSE 0",
    "CLIENT UNPAUSE",
    "CLIENT UNBLOCK 1",
    "CLIENT REPLY ON",
    "CLIENT REPLY OFF",
    "CLIENT TRACKING ON",
    "CLIENT TRACKINGINFO",
    "CLIENT GETREDIR",
    "CLIENT CACHING YES",
    "CLIENT NO-EVICT ON",
    "CLIENT NOSUCH",
    "CLIENT",
    "CLIENT KILL",
    "SELECT 0",
    "SELECT x",
    "WAIT 0 0",
    "ACL WHOAMI",
    "ACL",
    "ACL SETUSER x",
    "MULTI",
    "EXEC",
    "EXEC x",
    "DISCARD",
    "WATCH a",
    "UNWATCH",
    "SUBSCRIBE a",
    "PSUBSCRIBE a",
    "SSUBSCRIBE a",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "SUNSUBSCRIBE",
    "MONITOR",
    "COMMAND",
    "COMMAND COUNT",
    "INFO",
    "SCAN 0",
    "KEYS *",
    "DBSIZE",
    "RANDOMKEY",
    "CLUSTER NODES",
    "CLUSTER MYID",
    "NOSUCH a",
    "GET",
    "GET a",
    "SET a",
    "MGET a b c",
    "MSET a 1 b 2 c 3",
    "DEL a b c",
    "RENAME a b",
    "FLUSHALL",
    "PUBLISH a b",
    "READONLY",
    "READWRITE",
    "ASKING",
    "SCRIPT LOAD x",
    "SCRIPT EXISTS x",
    "SCRIPT FLUSH",
    "SCRIPT KILL",
    "FUNCTION LIST",
    "EVAL x 0",
    "CONFIG GET port",
    "CONFIG SET port 1",
    "DEBUG SLEEP 0",
    "SLOWLOG GET",
    "LATENCY RESET",
    "ROLE",
    "SHUTDOWN NOSAVE",
    "REPLICAOF NO ONE",
    "SAVE",
];

#[test]
fn what_the_proxy_answers_itself_asks_first_whether_the_user_may() {
    with_each_server("what_the_proxy_answers_itself_asks_first_whether_the_user_may", |cluster, plain| {
        let proxy = Proxy::before(&cluster);
        everywhere(&cluster, &plain, NOBODY);
        let (mut ours, mut theirs) = both(&proxy, &plain, "nobody");
        let mut refused = 0;
        for line in LINES {
            let (our, their) = (ours.line(line), theirs.line(line));
            assert_eq!(our, their, "{line}");
            refused += usize::from(their.0.starts_with(b"-NOPERM "));
        }
        assert!(refused > 60, "{refused}");
        // What it has a right to: the exceptions of the server.
        assert!(!ours.line("HELLO").is_error() && !ours.line("HELLO 3").is_error());
        assert_eq!(ours.line("HELLO 2 FOO"), theirs.line("HELLO 2 FOO"));
        assert_eq!(ours.line("PING"), theirs.line("PING"));
        assert_eq!(ours.line("AUTH nobody wrong"), theirs.line("AUTH nobody wrong"));
        for client in [&mut ours, &mut theirs] {
            assert_eq!(client.line("RESET"), "+RESET\r\n");
            assert_eq!(client.line("PING"), "+PONG\r\n", "the default user again");
        }
        let (mut ours, _) = both(&proxy, &plain, "nobody");
        assert_eq!(ours.line("QUIT"), "+OK\r\n");
    });
}

#[test]
fn a_right_is_asked_for_with_its_subcommand_key_and_channel() {
    with_each_server("a_right_is_asked_for_with_its_subcommand_key_and_channel", |cluster, plain| {
        let proxy = Proxy::before(&cluster);
        everywhere(&cluster, &plain, SOMEBODY);
        let mut other = proxy.client();
        let id = other.line("CLIENT ID").integer();
        for version in [2, 3] {
            let (mut ours, mut theirs) = both(&proxy, &plain, "somebody");
            for client in [&mut ours, &mut theirs] {
                client.line(&format!("HELLO {version}"));
                client.line("DEL k1 k2 k3");
            }
            let kill = format!("CLIENT KILL ID {id}");
            let lines = [
                "CLIENT LIST",
                &kill,
                "CLIENT GETNAME",
                "PING",
                "ECHO a",
                "SELECT 0",
                "MGET k1 a k2",
                "MGET k1 k2 k3",
                "DEL k1 a",
                "DEL k1 k2",
                "EXISTS k1 a",
                "MSET k1 1 k2 2",
                "WATCH a",
                "WATCH k1",
                "UNWATCH",
                "PUBLISH a b",
                "PUBLISH c b",
                "SUBSCRIBE a",
                "SUBSCRIBE c a",
                "PSUBSCRIBE *",
                "SSUBSCRIBE a",
                "PSUBSCRIBE c*",
                // Now a subscriber.
                "PING",
                "GET a",
                "CLIENT LIST",
                "SUBSCRIBE a",
                "SUBSCRIBE c",
                "PUNSUBSCRIBE c*",
                "UNSUBSCRIBE c",
                "GET k1",
            ];
            for line in lines {
                assert_eq!(ours.line(line), theirs.line(line), "{line} in RESP{version}");
            }
        }
        assert_eq!(other.line("PING"), "+PONG\r\n", "nobody has killed it");
        // The proxy's own commands want the rights of what they do.
        let user = "ACL SETUSER operator on >secret -@all +cluster|nodes +get +hello ~*";
        everywhere(&cluster, &plain, user);
        let (mut ours, _) = both(&proxy, &plain, "operator");
        let (key, port) = (cluster.key_on(1, "operator:"), cluster.node(1).port);
        let refuses = |client: &mut Client, line: &str, right: &str| {
            let reply = client.line(line);
            let text = String::from_utf8_lossy(&reply.0).into_owned();
            assert!(text.starts_with("-NOPERM ") && text.contains(&format!("'{right}' command")), "{line}: {text}");
        };
        assert_eq!(ours.line("PROXY NODES").value().items().len(), 3);
        assert!(!ours.line("PROXY HELP").is_error());
        refuses(&mut ours, "PROXY INFO", "info");
        refuses(&mut ours, "PROXY EXPLAIN GET a", "command|getkeys");
        refuses(&mut ours, &format!("PROXY NODE :{port} PING"), "ping");
        refuses(&mut ours, &format!("PROXY NODE :{port} SHUTDOWN NOSAVE"), "shutdown");
        assert_eq!(ours.line(&format!("PROXY NODE :{port} GET {key}")), "$-1\r\n");
    });
}

#[test]
fn a_transaction_refuses_what_its_user_may_not_when_it_is_queued() {
    with_each_server("a_transaction_refuses_what_its_user_may_not_when_it_is_queued", |cluster, plain| {
        let proxy = Proxy::before(&cluster);
        everywhere(&cluster, &plain, SOMEBODY);
        everywhere(&cluster, &plain, "ACL SETUSER multi on >secret -@all +multi +get ~*");
        everywhere(&cluster, &plain, "ACL SETUSER exec on >secret -@all +multi +exec +get +client|getname ~*");
        for (user, lines) in [
            (
                "somebody",
                &[
                    "MULTI",
                    "GET a",
                    "GET k",
                    "CLIENT KILL ID 7",
                    "PUBLISH a 1",
                    "SET k",
                    "EVAL x 1 a",
                    "PING",
                    "EXEC",
                    "GET k",
                    // Each spoils it.
                    "MULTI",
                    "PING",
                    "EXEC",
                    "MULTI",
                    "CLIENT LIST",
                    "SET k 1",
                    "EXEC",
                    "MULTI",
                    "GET a",
                    "DISCARD",
                    "GET k",
                    // What it may is done, though the proxy may not PING in its name.
                    "MULTI",
                    "SET k 1",
                    "CLIENT GETNAME",
                    "ECHO a",
                    "GET k",
                    "EXEC",
                    "MULTI",
                    "CLIENT GETNAME",
                    "EXEC",
                    "WATCH k",
                    "MULTI",
                    "SET k 2",
                    "CLIENT GETNAME",
                    "EXEC",
                    "WATCH k",
                    "SET k 3",
                    "MULTI",
                    "GET k",
                    "EXEC",
                ][..],
            ),
            (
                "multi",
                &["MULTI", "GET a", "PING", "EXEC", "DISCARD", "GET a", "MULTI", "GET a", "EXEC", "WATCH a", "GET a"],
            ),
            ("exec", &["MULTI", "GET a", "CLIENT GETNAME", "EXEC", "MULTI", "DISCARD", "GET a", "EXEC"]),
            ("somebody", &["MULTI", "EXEC", "DISCARD", "EXEC"]),
        ] {
            let (mut ours, mut theirs) = both(&proxy, &plain, user);
            for line in lines {
                assert_eq!(ours.line(line), theirs.line(line), "{line} by {user}");
            }
            let (mut ours, mut theirs) = both(&proxy, &plain, user);
            let requests: Vec<Vec<&str>> = lines.iter().map(|line| words(line)).collect();
            assert_eq!(ours.pipeline(&requests), theirs.pipeline(&requests), "{user} in a pipeline");
        }
        // A value of some size is not what a right is about.
        let (mut ours, _) = both(&proxy, &plain, "somebody");
        let large = "x".repeat(3_000_000);
        assert_eq!(ours.line("MULTI"), "+OK\r\n");
        assert_eq!(ours.call(&["SET", "k", &large]), "+QUEUED\r\n");
        assert_eq!(ours.line("STRLEN k"), "+QUEUED\r\n");
        assert_eq!(ours.line("EXEC"), "*2\r\n+OK\r\n:3000000\r\n");
    });
}

/// Whether a connection has been closed.
fn is_closed(client: &mut Client) -> bool {
    client.try_call(&["ECHO", "a"]).is_err_and(|why| why.kind() != std::io::ErrorKind::TimedOut)
}

#[test]
fn changed_rights_are_noticed_and_who_is_deleted_has_to_go() {
    with_each_server("changed_rights_are_noticed_and_who_is_deleted_has_to_go", |cluster, plain| {
        let allow = "acl|setuser, acl|deluser";
        // Its nodes' connections of a user who is gone end, and cannot be made anew.
        let proxy = Proxy::start(Settings::new(cluster.seeds()).with("ALLOW", allow).expecting_warnings());
        let mut admin = proxy.client();
        let define = "ACL SETUSER passer on >secret +@all ~* &*";
        assert_eq!(admin.line(define), "+OK\r\n");
        let mut passer = proxy.client();
        assert_eq!(passer.line("AUTH passer secret"), "+OK\r\n");
        assert_eq!(passer.line("ECHO a"), "$1\r\na\r\n");
        assert_eq!(passer.line("SET passer:key 1"), "+OK\r\n");
        // Through the proxy.
        assert_eq!(admin.line("ACL SETUSER passer -echo"), "+OK\r\n");
        eventually("the right to have gone", || passer.line("ECHO a").0.starts_with(b"-NOPERM"));
        assert_eq!(admin.line("ACL SETUSER passer +echo"), "+OK\r\n");
        eventually("the right to be back", || !passer.line("ECHO a").is_error());
        // Elsewhere.
        cluster.nodes.iter().for_each(|node| drop(node.line("ACL SETUSER passer -echo")));
        until("the right to have gone", Duration::from_secs(15), || {
            passer.line("ECHO a").0.starts_with(b"-NOPERM").then_some(())
        });
        cluster.nodes.iter().for_each(|node| drop(node.line("ACL SETUSER passer +echo")));
        until("the right to be back", Duration::from_secs(15), || (!passer.line("ECHO a").is_error()).then_some(()));
        // As on one server, who is switched off goes on, by the connections that there are.
        assert_eq!(admin.line("ACL SETUSER passer off"), "+OK\r\n");
        assert_eq!(passer.line("ECHO a"), "$1\r\na\r\n");
        assert_eq!(passer.line("SET passer:key 1"), "+OK\r\n");
        assert!(proxy.client().line("AUTH passer secret").is_error());
        assert_eq!(admin.line("ACL SETUSER passer on"), "+OK\r\n");

        let mut subscriber = proxy.client();
        subscriber.line("AUTH passer secret");
        assert!(!subscriber.line("SUBSCRIBE a").is_error());
        let mut blocked = proxy.client();
        blocked.line("AUTH passer secret");
        blocked.send(&["BLPOP", "passer:list", "0"]);
        assert_eq!(admin.line("ACL DELUSER passer"), ":1\r\n");
        for client in [&mut passer, &mut subscriber, &mut blocked] {
            // One that is blocked may be told why first.
            until("the connection to be closed", Duration::from_secs(15), || is_closed(client).then_some(()));
        }
        assert_eq!(admin.line("ECHO a"), "$1\r\na\r\n");

        // At the nodes, and by itself: its own reply still comes, whatever is just being looked for after an earlier change.
        for by_itself in [false, true, true, true, true, true] {
            assert_eq!(admin.line(define), "+OK\r\n");
            let (mut passer, mut other) = (proxy.client(), proxy.client());
            for client in [&mut passer, &mut other] {
                assert_eq!(client.line("AUTH passer secret"), "+OK\r\n");
                assert_eq!(client.line("ECHO a"), "$1\r\na\r\n");
            }
            if by_itself {
                assert_eq!(passer.line("ACL DELUSER passer"), ":1\r\n");
            } else {
                cluster.nodes.iter().for_each(|node| drop(node.line("ACL DELUSER passer")));
            }
            for client in [&mut passer, &mut other] {
                until("the connection to be closed", Duration::from_secs(15), || is_closed(client).then_some(()));
            }
        }
        drop(plain);
    });
}

/// All that is in the nodes' ACL LOG.
fn acl_log(cluster: &Cluster, login: &str) -> Vec<Reply> {
    let log = |node: &Node| {
        let mut client = node.client();
        if !login.is_empty() {
            client.line(login);
        }
        client.line("ACL LOG")
    };
    cluster.nodes.iter().map(log).filter(|log| *log != "*0\r\n").collect()
}

/// What a user does who may do little else.
fn work_as_narrow(proxy: &Proxy, cluster: &Cluster) {
    for version in [2, 3] {
        let mut client = proxy.client();
        assert_eq!(client.line("AUTH narrow secret"), "+OK\r\n");
        client.line(&format!("HELLO {version}"));
        let mut found = 0;
        for index in 0..3 {
            assert_eq!(client.call(&["SET", &cluster.key_on(index, "narrow:"), "1"]), "+OK\r\n");
        }
        let mut cursor = "0".to_owned();
        loop {
            let page = client.line(&format!("SCAN {cursor}")).value();
            found += page.items()[1].items().len();
            cursor = page.items()[0].str().expect("a cursor").to_owned();
            if cursor == "0" {
                break;
            }
        }
        assert!(found >= 3, "{found}");
        // A script that another has loaded, alone, in a pipeline and in a transaction.
        let mut other = proxy.client();
        let sha = other.call(&["SCRIPT", "LOAD", "return 7"]).string();
        cluster.nodes.iter().for_each(|node| drop(node.client_as_operator().line("SCRIPT FLUSH")));
        let run = ["EVALSHA", &sha, "1", "narrow:script"];
        assert_eq!(client.call(&run), ":7\r\n");
        cluster.nodes.iter().for_each(|node| drop(node.client_as_operator().line("SCRIPT FLUSH")));
        let requests: Vec<Vec<&str>> = (0..5).map(|_| run.to_vec()).collect();
        assert!(client.pipeline(&requests).iter().all(|reply| *reply == ":7\r\n"));
        for watch in [false, true] {
            cluster.nodes.iter().for_each(|node| drop(node.client_as_operator().line("SCRIPT FLUSH")));
            if watch {
                assert_eq!(client.line("WATCH narrow:script"), "+OK\r\n");
            }
            assert_eq!(client.line("MULTI"), "+OK\r\n");
            assert_eq!(client.call(&run), "+QUEUED\r\n");
            assert_eq!(client.line("EXEC"), "*1\r\n:7\r\n");
        }
        cluster.nodes.iter().for_each(|node| drop(node.client_as_operator().line("SCRIPT FLUSH")));
        assert_eq!(client.call(&["SCRIPT", "EXISTS", &sha]), "*1\r\n:1\r\n");
        // What waits.
        client.line("DEL narrow:stream");
        client.line("XADD narrow:stream * a 1");
        client.send(&["XREAD", "BLOCK", "0", "STREAMS", "narrow:stream", "$"]);
        eventually("the client to wait", || proxy.metric("slotway_blocked_clients", &[]) == 1.0);
        until("it to be served", Duration::from_secs(10), || {
            other.line("XADD narrow:stream * b 2");
            (proxy.metric("slotway_blocked_clients", &[]) == 0.0).then_some(())
        });
        assert!(client.reply().value().items().len() <= 2);
        client.send(&["BLPOP", "narrow:list", "0"]);
        eventually("the client to wait", || proxy.metric("slotway_blocked_clients", &[]) == 1.0);
        let list = other.line("CLIENT LIST").string();
        let id = list.lines().find(|line| line.contains("cmd=blpop")).expect("it is blocked");
        let id = id.split(' ').next().and_then(|id| id.strip_prefix("id=")).expect("its id").to_owned();
        assert_eq!(other.line(&format!("CLIENT UNBLOCK {id} ERROR")), ":1\r\n");
        assert_eq!(client.reply(), "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n");
        assert_eq!(client.line("SUBSCRIBE narrow").value().items().len(), 3);
    }
}

/// What it may: neither CLUSTER nor COMMAND, SCRIPT LOAD, XINFO, CLIENT ID, PING nor UNWATCH.
const NARROW: &str = "ACL SETUSER narrow on >secret -@all +get +set +scan +del +evalsha +script|exists +multi +exec \
                      +watch +xadd +xread +blpop +subscribe ~* &*";

trait AsOperator {
    fn client_as_operator(&self) -> Client;
}

impl AsOperator for Node {
    /// A client that may do all, whether the default user may or not.
    fn client_as_operator(&self) -> Client {
        let mut client = self.client();
        client.line("AUTH operator secret");
        client
    }
}

#[test]
fn questions_of_the_proxys_own_leave_nothing_in_the_acl_log() {
    with_each_server("questions_of_the_proxys_own_leave_nothing_in_the_acl_log", |cluster, plain| {
        let operator = "ACL SETUSER operator on >secret +@all ~* &*";
        for line in [operator, NARROW] {
            everywhere(&cluster, &plain, line);
        }
        // By the default user, whom every connection begins as.
        let proxy = Proxy::before(&cluster);
        work_as_narrow(&proxy, &cluster);
        assert_eq!(acl_log(&cluster, ""), Vec::<Reply>::new());
        drop(proxy);
        // By a user of its own, where the default user may nothing.
        let settings = Settings::new(cluster.seeds()).with("USERNAME", "operator").with("PASSWORD", "secret");
        let proxy = Proxy::start(settings.expecting("whoever connects works as the nodes' user `operator`"));
        cluster.nodes.iter().for_each(|node| drop(node.line("ACL SETUSER default -@all off")));
        work_as_narrow(&proxy, &cluster);
        assert_eq!(acl_log(&cluster, "AUTH operator secret"), Vec::<Reply>::new());
    });
}

#[test]
fn where_the_proxy_may_not_ask_the_nodes_are_tried() {
    with_each_server("where_the_proxy_may_not_ask_the_nodes_are_tried", |cluster, plain| {
        everywhere(&cluster, &plain, "ACL SETUSER proxy on >secret +@all -acl -client|kill -echo ~* &*");
        everywhere(&cluster, &plain, SOMEBODY);
        everywhere(&cluster, &plain, NOBODY);
        let settings = Settings::new(cluster.seeds()).with("USERNAME", "proxy").with("PASSWORD", "secret");
        let proxy = Proxy::start(settings.expecting("whoever connects works as the nodes' user `proxy`"));
        let mut theirs = plain.client();
        theirs.line("AUTH proxy secret");
        let mut ours = proxy.client();
        for line in
            ["PING", "ECHO a", "CLIENT KILL ID 1", "CLIENT GETNAME", "SELECT 0", "SET a 1", "MULTI", "ECHO a", "EXEC"]
        {
            assert_eq!(ours.line(line), theirs.line(line), "{line}");
        }
        let (mut ours, mut theirs) = both(&proxy, &plain, "somebody");
        for line in ["PING", "CLIENT LIST", "CLIENT GETNAME", "MGET k1 a k2", "SUBSCRIBE a", "MULTI", "GET a", "EXEC"] {
            assert_eq!(ours.line(line), theirs.line(line), "{line}");
        }
        // Who may not MULTI either cannot be told from who may: what touches others is refused.
        let (mut ours, mut theirs) = both(&proxy, &plain, "nobody");
        for line in ["CLIENT LIST", "CLIENT KILL ID 1", "CLIENT PAUSE 100"] {
            let reply = ours.line(line);
            assert!(reply.0.starts_with(b"-NOPERM "), "{line}: {reply:?}");
        }
        assert_eq!(ours.line("MULTI"), theirs.line("MULTI"));
        assert_eq!(ours.line("GET a"), theirs.line("GET a"));
    });
}

#[test]
fn who_may_do_all_is_asked_about_once() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let calls = |command: &str| -> usize {
        let field = format!("cmdstat_acl|{command}:calls=");
        let count = |node: &Node| {
            let stats = node.line("INFO commandstats").string();
            let line = stats.lines().find_map(|line| line.strip_prefix(&field)).unwrap_or("0");
            line.split(',').next().and_then(|count| count.parse::<usize>().ok()).expect("a number")
        };
        cluster.nodes.iter().map(count).sum()
    };
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    for _ in 0..20 {
        for client in &mut clients {
            assert_eq!(client.line("PING"), "+PONG\r\n");
            let requests = ["MULTI", "SET {a}free 1", "CLIENT ID", "EXEC"].map(|line| words(line));
            assert!(client.pipeline(&requests).iter().all(|reply| !reply.is_error()));
        }
    }
    assert_eq!(calls("dryrun"), 0);
    assert!((1..20).contains(&calls("getuser")), "{}", calls("getuser"));
}

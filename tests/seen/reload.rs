//! The configuration is changed while clients are served: by SIGHUP and PROXY RELOAD.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use crate::support::{
    Client, Cluster, Node, Proxy, Settings, Shape, cluster::shared, eventually, ports::free_port, reaper, until,
};

/// A proxy whose settings stand in a file.
struct Filed {
    file: PathBuf,
    proxy: Proxy,
}

impl Filed {
    fn before(cluster: &Cluster, text: &str, settings: impl Fn(Settings) -> Settings) -> Filed {
        let file = reaper::folder("reload").join(format!("{}.toml", free_port()));
        fs::write(&file, text).expect("a file");
        let with_file = Settings::new(cluster.seeds()).with("CONFIG", file.display());
        Filed { proxy: Proxy::start(settings(with_file)), file }
    }

    /// What PROXY RELOAD says once the file is this.
    fn reload(&self, client: &mut Client, text: &str) -> Vec<String> {
        fs::write(&self.file, text).expect("a file");
        let reply = client.line("PROXY RELOAD");
        assert!(!reply.is_error(), "{reply:?}");
        reply.texts()
    }

    fn hang_up(&self) {
        let done = Command::new("kill").args(["-HUP", &self.proxy.pid().to_string()]).status().expect("kill");
        assert!(done.success());
    }
}

#[test]
fn what_may_change_changes_for_those_who_are_served() {
    let filed = Filed::before(shared(), "", |settings| settings);
    let (mut client, mut other) = (filed.proxy.client(), filed.proxy.client());
    assert_eq!(filed.reload(&mut client, ""), ["nothing has changed"]);
    let report = filed.reload(&mut client, "deny = [\"keys\"]\nworkers = 7\nclient_window = 1\nlog = \"error\"");
    assert_eq!(
        report,
        [
            "client_window = 1 (it was 1024)",
            "deny = [\"keys\"] (it was [])",
            "log = \"error\" (it was \"info\")",
            // By the environment there are two; that is stronger.
        ]
    );
    for client in [&mut client, &mut other] {
        assert!(client.line("KEYS reload:*").is_error());
        assert_eq!(client.line("PROXY CONFIG GET client_window").texts(), ["client_window", "1"]);
    }
    assert!(!filed.proxy.log().contains("deny = "), "the log tells of errors alone");
    let report = filed.reload(&mut client, "cross_slot = \"reject\"\nadmin_tls = false\nreuse_port = true");
    assert_eq!(
        report,
        [
            "client_window = 1024 (it was 1)",
            "cross_slot = \"reject\" (it was \"split\")",
            "deny = [] (it was [\"keys\"])",
            "log = \"info\" (it was \"error\")",
            "reuse_port = true needs a restart: it is still false",
        ]
    );
    for client in [&mut client, &mut other] {
        assert_eq!(client.line("KEYS reload:*"), "*0\r\n");
        assert!(client.line("MGET a b c").0.starts_with(b"-CROSSSLOT"));
    }
    fs::write(&filed.file, "").expect("a file");
    filed.hang_up();
    eventually("the log to say so", || {
        filed.proxy.log().contains("reloaded: cross_slot = \"split\" (it was \"reject\")")
    });
    eventually("MGET to be split", || !client.line("MGET a b c").is_error());
}

#[test]
fn reads_and_order_follow_for_those_who_are_served() {
    let cluster = Cluster::start(Shape { replicas: 1, ..Shape::default() });
    let filed = Filed::before(&cluster, "", |settings| settings.with("WORKERS", 1).expecting_warnings());
    let (mut client, mut chosen) = (filed.proxy.client(), filed.proxy.client());
    let reads = || filed.proxy.metric("slotway_replica_reads_total", &[]);
    let key = cluster.key_on(0, "reload:");
    client.call(&["SET", &key, "v"]);
    assert_eq!(chosen.line("READWRITE"), "+OK\r\n");
    (0..20).for_each(|_| assert_eq!(client.call(&["GET", &key]).string(), "v"));
    assert_eq!(reads(), 0.0);
    let report = filed.reload(&mut client, "reads = \"replica\"\nmax_replica_lag = \"5s\"");
    assert_eq!(report, ["max_replica_lag = \"5s\" (it was \"10s\")", "reads = \"replica\" (it was \"primary\")"]);
    eventually("a read at a replica", || {
        assert_eq!(client.call(&["GET", &key]).string(), "v");
        reads() > 0.0
    });
    // Where order is strict, primaries alone answer; and so they do for who has chosen them.
    for text in ["strict_order = true\nreads = \"replica\"", "reads = \"replica\"", ""] {
        let report = filed.reload(&mut client, text);
        assert!(report.iter().any(|line| line.starts_with("strict_order") || line.starts_with("reads")), "{report:?}");
        let asks = if text == "reads = \"replica\"" { &mut chosen } else { &mut client };
        // What was counted before is published by now.
        eventually("what was sent to be counted", || {
            let once = reads();
            asks.line("PING");
            once == reads()
        });
        let so_far = reads();
        (0..20).for_each(|_| assert_eq!(asks.call(&["GET", &key]).string(), "v"));
        assert_eq!(reads(), so_far, "{text}");
    }
}

#[test]
fn listeners_open_change_and_close() {
    let filed = Filed::before(shared(), "", |settings| settings.expecting("is not taken"));
    let mut other = filed.proxy.client();
    let [first, second] = [(); 2].map(|()| free_port());
    let at = |port: u16| Client::connect(&format!("127.0.0.1:{port}"));
    let listener = |port: u16, database: &str| {
        format!("[[listeners]]\naddress = \"127.0.0.1:{port}\"\ndatabase = \"{database}\"\n")
    };
    let report = filed.reload(&mut other, &listener(first, "reloaded-a"));
    assert!(report.len() == 1 && report[0].starts_with("listeners = [{ address = "), "{report:?}");
    let mut former = at(first);
    assert_eq!(former.line("SET key of-a"), "+OK\r\n");

    // Who is connected stays as he came; others come by what is new.
    let both = listener(first, "reloaded-b") + &listener(second, "reloaded-a");
    filed.reload(&mut other, &both);
    assert_eq!(at(first).line("GET key"), "$-1\r\n");
    assert_eq!(at(second).line("GET key").string(), "of-a");
    assert_eq!(former.line("GET key").string(), "of-a");
    assert_eq!(former.line("RESET"), "+RESET\r\n");
    assert_eq!(former.line("GET key").string(), "of-a");

    // Nothing of what cannot be is done.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|address| (taken, address.port())).expect("its port");
    let secured = format!("[[listeners]]\naddress = \"rediss://127.0.0.1:{}\"\n", free_port());
    for (more, why) in [
        (listener(taken.1, "x"), "the port is taken"),
        (format!("[[listeners]]\naddress = \"0.0.0.0:{second}\"\n"), "which is the same place"),
        (secured, "takes a certificate and its key"),
        ("[[listeners]]\naddress = \"nowhere\"\n".to_owned(), "nowhere"),
        (listener(first, "y"), "each needs a port of its own"),
    ] {
        let text = "deny = [\"keys\"]\n".to_owned() + &listener(first, "reloaded-c") + &more;
        fs::write(&filed.file, text).expect("a file");
        let said = other.line("PROXY RELOAD");
        let said = String::from_utf8_lossy(&said.0).into_owned();
        assert!(said.starts_with("-ERR proxy: the new configuration is not taken") && said.contains(why), "{said}");
        assert!(!other.line("KEYS reload:*").is_error());
        assert_eq!(at(second).line("GET key").string(), "of-a");
        at(first).line("SET key of-b");
        assert_eq!(filed.proxy.client().line("GET {reloaded-b}key").string(), "of-b");
    }

    // Who waits at one that is closed is answered, and goes.
    let mut waiting = at(second);
    waiting.send(&["BLPOP", "list", "30"]);
    eventually("it to wait", || other.line("INFO clients").string().contains("blocked_clients:1"));
    let report = filed.reload(&mut other, &listener(first, "reloaded-b"));
    assert!(report.contains(&format!("127.0.0.1:{second} is closed, and 1 clients who came by it")), "{report:?}");
    assert!(waiting.patient(Duration::from_secs(5)).read_to_end().is_ok(), "it is closed");
    assert!(Client::try_connect(&format!("127.0.0.1:{second}")).is_err(), "nobody listens");
    assert_eq!(former.line("GET key").string(), "of-a");
    assert_eq!(at(first).line("GET key").string(), "of-b");
    let shown = other.line("PROXY CONFIG GET listeners").texts();
    assert!(shown[1].contains(&format!("127.0.0.1:{first}")) && !shown[1].contains(&second.to_string()), "{shown:?}");
    assert_eq!(other.line("DEL {reloaded-a}key {reloaded-b}key").integer(), 2);
}

#[test]
fn a_bad_file_is_refused_whole_and_the_old_one_serves_on() {
    let filed = Filed::before(shared(), "deny = [\"keys\"]", |settings| settings.expecting("is not taken"));
    let mut client = filed.proxy.client();
    for (text, why) in [
        ("deny = []\nrequest_timeout = \"soon\"", "request_timeout"),
        ("deny = []\nseed = \"a:1\"", "there is no key `seed`; did you mean `seeds`?"),
        ("deny = [", "line 1"),
        ("deny = []\nclient_password_file = \"/nowhere\"", "cannot take the password from /nowhere"),
    ] {
        fs::write(&filed.file, text).expect("a file");
        let reply = client.line("PROXY RELOAD");
        let said = String::from_utf8_lossy(&reply.0).into_owned();
        assert!(said.starts_with("-ERR proxy: the new configuration is not taken") && said.contains(why), "{said}");
        assert!(client.line("KEYS reload:*").is_error(), "the old one serves on");
        assert!(filed.proxy.log().contains("the new configuration is not taken, the old one serves on"));
    }
}

#[test]
fn deadlines_and_limits_reach_links_and_clients() {
    let mut cluster = Cluster::three();
    let filed = Filed::before(&cluster, "", |settings| settings.expecting_warnings());
    let mut client = filed.proxy.client();
    client.line("SET a b");
    filed.reload(&mut client, "request_timeout = \"200ms\"\nmax_clients = 1");
    // No other is let in.
    let mut refused = Client::connect(&filed.proxy.address());
    let said = refused.line("PING");
    assert!(said.0.starts_with(b"-ERR max number of clients"), "{said:?}");
    let home = cluster.home_of("a");
    cluster.nodes[home].pause();
    // A deadline that is set already may be one of before; the next one is not. What may have run is not tried again.
    assert!(client.line("INCR b{a}").is_error());
    let begun = std::time::Instant::now();
    assert!(client.line("INCR b{a}").is_error());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    cluster.nodes[home].resume();
    filed.reload(&mut client, "client_idle_timeout = \"1s\"");
    // Silent for longer than it may.
    until("the client to be closed", Duration::from_secs(5), || {
        (filed.proxy.metric("slotway_client_connections", &[]) == 0.0).then_some(())
    });
}

#[test]
fn users_come_change_and_go() {
    let folder = reaper::folder("reload-users");
    let user = |name: &str, password: &str, more: &str| {
        let file = folder.join(name);
        fs::write(&file, password).expect("a file");
        format!("[users.{name}]\npassword_file = \"{}\"\n{more}\n", file.display())
    };
    let filed = Filed::before(shared(), &user("ann", "one", ""), |settings| settings);
    let mut ann = filed.proxy.client();
    assert_eq!(ann.line("AUTH ann one"), "+OK\r\n");
    let both = user("ann", "two", "max_requests_per_second = 1000000") + &user("bob", "three", "");
    let report = filed.reload(&mut ann, &both);
    assert!(report.iter().any(|line| line.starts_with("users.bob.password_file = ")), "{report:?}");
    assert!(report.contains(&"users.ann.max_requests_per_second = 1000000 (it was nothing)".to_owned()), "{report:?}");
    let mut bob = filed.proxy.client();
    assert!(bob.line("AUTH ann one").is_error() && ann.line("PING") == "+PONG\r\n");
    assert_eq!(bob.line("AUTH bob three"), "+OK\r\n");
    // Whoever is gone is closed.
    filed.reload(&mut bob, &user("bob", "three", ""));
    until("ann to be closed", Duration::from_secs(5), || ann.try_call(&["PING"]).is_err().then_some(()));
    assert_eq!(bob.line("PING"), "+PONG\r\n");
}

#[test]
fn the_nodes_password_rotates() {
    let cluster = Cluster::three();
    cluster.nodes.iter().for_each(|node| drop(node.line("CONFIG SET requirepass one")));
    let filed = Filed::before(&cluster, "password = \"one\"\nallow_insecure_bind = true", |settings| {
        settings.expecting("is not taken").expecting("whoever connects works as")
    });
    let mut client = filed.proxy.client();
    client.line("SET a b");
    fs::write(&filed.file, "password = \"two\"").expect("a file");
    let refused = client.line("PROXY RELOAD");
    assert!(String::from_utf8_lossy(&refused.0).contains("does not take it: WRONGPASS"), "{refused:?}");
    let log_in = |node: &Node, password: &str| {
        let mut client = node.client();
        assert_eq!(client.line(&format!("AUTH {password}")), "+OK\r\n");
        client
    };
    for node in &cluster.nodes {
        log_in(node, "one").line("ACL SETUSER default >two");
    }
    assert_eq!(
        filed.reload(&mut client, "password = \"two\""),
        ["allow_insecure_bind = false (it was true)", "password has changed"]
    );
    // Who is connected stays; who connects anew, does so by the new one; the old one lets nobody in.
    for node in &cluster.nodes {
        let mut node = log_in(node, "two");
        node.line("ACL SETUSER default <one");
        node.line("CLIENT KILL TYPE normal SKIPME yes");
    }
    eventually("links to be made anew", || (0..100).all(|n| !client.call(&["SET", &format!("k{n}"), "v"]).is_error()));
    let mut old = filed.proxy.client();
    assert!(old.line("AUTH one").0.starts_with(b"-WRONGPASS"));
    assert_eq!(old.line("AUTH two"), "+OK\r\n");
    assert_eq!(old.line("GET a"), "$1\r\nb\r\n");
}

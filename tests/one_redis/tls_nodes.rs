//! Nodes that speak TLS: served as others are, and none but them (promise 1).

use std::{sync::LazyLock, time::Duration};

use crate::support::{
    Authority, Client, Cluster, Flavour, Node, NodeTls, Proxy, Settings, Shape, ports::free_port, until,
};

/// Three primaries that speak TLS to whoever shows a certificate of their CA, and that CA.
static SHARED: LazyLock<(Authority, Cluster)> = LazyLock::new(|| {
    let authority = Authority::new("nodes");
    let cluster = Cluster::start(shape(&authority, "node", &["127.0.0.1"], "yes"));
    (authority, cluster)
});

fn shape(authority: &Authority, file: &str, names: &[&str], auth_clients: &'static str) -> Shape {
    let (own, ca) = (authority.issue(file, names), authority.certificate.clone());
    Shape { tls: Some(NodeTls { own, ca, auth_clients }), ..Shape::default() }
}

/// A proxy that has all that the nodes ask for.
fn trusted(authority: &Authority, cluster: &Cluster) -> Settings {
    let own = authority.issue("proxy", &["127.0.0.1", "localhost"]);
    Settings::new(cluster.tls_seeds("rediss://127.0.0.1"))
        .with("NODE_TLS_CA_CERT_FILE", authority.certificate.display())
        .with("NODE_TLS_CERT_FILE", own.certificate.display())
        .with("NODE_TLS_KEY_FILE", own.key.display())
}

/// The same lines to both, and the same bytes from both.
fn assert_alike(ours: &mut Client, theirs: &mut Client) {
    for line in [
        "MSET tlsn:a 1 tlsn:b 2 tlsn:c 3",
        "MGET tlsn:a tlsn:b tlsn:c tlsn:d",
        "INCR tlsn:a",
        "MULTI",
        "INCR tlsn:a",
        "LPUSH tlsn:a x",
        "EXEC",
        "WATCH tlsn:b",
        "MULTI",
        "SET tlsn:b 5",
        "EXEC",
        "RPUSH tlsn:l one two three",
        "BLPOP tlsn:l 0",
        "BLPOP tlsn:none 0.01",
        "EVAL return(redis.call('get',KEYS[1])) 1 tlsn:b",
        "SUBSCRIBE tlsn:c",
        "UNSUBSCRIBE tlsn:c",
        "DEL tlsn:a tlsn:b tlsn:c tlsn:l",
        "WAIT 0 10",
    ] {
        assert_eq!(ours.line(line), theirs.line(line), "{line}");
    }
    let value = "x".repeat(3_000_000);
    assert_eq!(ours.call(&["SET", "tlsn:long", &value]), theirs.call(&["SET", "tlsn:long", &value]));
    assert!(ours.line("GET tlsn:long") == theirs.line("GET tlsn:long"));
    assert_eq!(ours.line("DEL tlsn:long"), theirs.line("DEL tlsn:long"));
    let deep: Vec<Vec<String>> = (0..10_000)
        .map(|number| match number % 2 {
            0 => vec!["SET".into(), format!("tlsn:{number}"), "v".repeat(number % 600)],
            _ => vec!["GET".into(), format!("tlsn:{}", number - 1)],
        })
        .collect();
    assert!(ours.pipeline(&deep) == theirs.pipeline(&deep), "a deep pipeline");
    let keys: Vec<String> = (0..10_000).step_by(2).map(|number| format!("tlsn:{number}")).collect();
    let delete: Vec<&str> = std::iter::once("DEL").chain(keys.iter().map(String::as_str)).collect();
    assert_eq!(ours.call(&delete), theirs.call(&delete));
}

#[test]
fn a_cluster_by_tls_is_to_clients_what_one_server_is() {
    let (authority, cluster) = &*SHARED;
    let oracle = Node::standalone();
    // TLS on both sides, and on one.
    let port = free_port();
    let own = authority.issue("front", &["localhost"]);
    let mut settings = trusted(authority, cluster)
        .with("TLS_CERT_FILE", own.certificate.display())
        .with("TLS_KEY_FILE", own.key.display());
    settings.flags = vec!["--listen".to_owned(), format!("rediss://127.0.0.1:{port}")];
    let proxy = Proxy::start(settings);
    let secured = || Client::try_connect_tls(&format!("127.0.0.1:{port}"), "localhost", authority.trusting(None));
    assert_alike(&mut secured().expect("a client"), &mut oracle.client());
    assert_alike(&mut proxy.client(), &mut oracle.client());
    // Blocked here, served from there; published here, heard there; watched by all.
    let (mut one, mut other, mut monitor) = (secured().expect("a client"), proxy.client(), proxy.client());
    assert_eq!(monitor.line("MONITOR"), "+OK\r\n");
    one.send(&["BLPOP", "tlsn:queue", "0"]);
    until("it to wait", Duration::from_secs(10), || {
        (proxy.metric("slotway_blocked_clients", &[]) == 1.0).then_some(())
    });
    assert_eq!(other.line("RPUSH tlsn:queue x"), ":1\r\n");
    assert_eq!(one.reply(), "*2\r\n$10\r\ntlsn:queue\r\n$1\r\nx\r\n");
    assert!(!one.line("SUBSCRIBE tlsn:news").is_error());
    assert_eq!(other.line("PUBLISH tlsn:news hello"), ":1\r\n");
    assert_eq!(one.reply(), "*3\r\n$7\r\nmessage\r\n$9\r\ntlsn:news\r\n$5\r\nhello\r\n");
    let shown = until("all to be shown", Duration::from_secs(10), || {
        let line = monitor.reply().string();
        line.contains("\"PUBLISH\"").then_some(line)
    });
    assert!(shown.contains("\"tlsn:news\" \"hello\""), "{shown}");
    // Nothing goes by the nodes' plain ports.
    for node in &cluster.nodes {
        let clients = node.line("CLIENT LIST").string();
        let plain = clients.lines().filter(|line| line.contains(&format!("laddr=127.0.0.1:{} ", node.port)));
        assert_eq!(plain.count(), 1, "{clients}");
        assert!(clients.contains(&format!("laddr=127.0.0.1:{} ", node.tls_port)), "{clients}");
    }
}

#[test]
fn a_replica_takes_over_by_tls() {
    let authority = Authority::new("failover");
    let shape = shape(&authority, "node", &["127.0.0.1"], "optional");
    let cluster = Cluster::start(Shape { replicas: 1, node_timeout: Duration::from_secs(2), ..shape });
    let settings = Settings::new(cluster.tls_seeds("127.0.0.1"))
        .with("NODE_TLS", true)
        .with("NODE_TLS_CA_CERT_FILE", authority.certificate.display());
    let proxy = Proxy::start(settings.expecting_warnings());
    let (key, mut client) = (cluster.key_on(0, "failover:"), proxy.client());
    assert_eq!(client.line(&format!("SET {key} 1")), "+OK\r\n");
    cluster.fail_over_to(3, "");
    assert_eq!(client.line(&format!("INCR {key}")), ":2\r\n");
    assert_eq!(client.line(&format!("DEL {key}")), ":1\r\n");
}

/// What clients are told where the nodes are not to be had.
#[track_caller]
fn assert_refused(settings: Settings, why: &str) {
    let proxy = Proxy::launch(settings.expecting_warnings());
    until(why, Duration::from_secs(10), || {
        let told = proxy.client().line("GET tlsn:a");
        let told = String::from_utf8_lossy(&told.0).into_owned();
        assert!(told.starts_with('-'), "{told}");
        told.contains(why).then_some(())
    });
    assert_eq!(proxy.page("/readyz").0, 503);
}

#[test]
fn nodes_that_cannot_show_who_they_are_are_not_served() {
    let (authority, cluster) = &*SHARED;
    let seeds = cluster.tls_seeds("rediss://127.0.0.1");
    let other = Authority::new("other");
    assert_refused(
        Settings::new(&*seeds).with("NODE_TLS_CA_CERT_FILE", other.certificate.display()),
        "its certificate is of no CA that is trusted here",
    );
    assert_refused(
        Settings::new(&*seeds).with("NODE_TLS_CA_CERT_FILE", authority.certificate.display()),
        "it does not take our certificate, or wants one",
    );
    assert_refused(
        trusted(authority, cluster).with("NODE_TLS_SERVER_NAME", "redis.example"),
        "its certificate is not for redis.example but for",
    );
    // Plain text to TLS, and TLS to plain text.
    assert_refused(Settings::new(cluster.tls_seeds("127.0.0.1")), "connection reset");
    assert_refused(
        Settings::new(cluster.seeds())
            .with("NODE_TLS", true)
            .with("NODE_TLS_CA_CERT_FILE", authority.certificate.display()),
        "timed out: is it a port of TLS?",
    );
}

#[test]
fn a_certificate_may_be_for_the_node_s_own_name_or_for_one_that_is_fixed() {
    let authority = Authority::new("names");
    let mut shape = shape(&authority, "node", &["redis.example", "localhost"], "no");
    shape.config.push("cluster-announce-hostname localhost".to_owned());
    let cluster = Cluster::start(shape);
    let of = |host: &str| {
        let settings = Settings::new(cluster.tls_seeds(&format!("rediss://{host}")));
        settings.with("NODE_TLS_CA_CERT_FILE", authority.certificate.display())
    };
    assert_refused(of("127.0.0.1"), "its certificate is not for 127.0.0.1 but for");
    // The cluster tells a name beside each address that it announces.
    for settings in [of("localhost"), of("127.0.0.1").with("NODE_TLS_SERVER_NAME", "redis.example")] {
        let proxy = Proxy::start(settings);
        let mut client = proxy.client();
        assert_eq!(client.line("MSET names:a 1 names:b 2 names:c 3"), "+OK\r\n");
        assert_eq!(client.line("DEL names:a names:b names:c"), ":3\r\n");
    }
}

#[test]
fn the_check_can_be_skipped_which_is_logged_at_each_start() {
    let (authority, cluster) = &*SHARED;
    let own = authority.issue("skips", &["somebody"]);
    let settings = Settings::new(cluster.tls_seeds("rediss://127.0.0.1"))
        .with("NODE_TLS_INSECURE_SKIP_VERIFY", true)
        .with("NODE_TLS_CERT_FILE", own.certificate.display())
        .with("NODE_TLS_KEY_FILE", own.key.display())
        .expecting("nodes' certificates are not checked (node_tls_insecure_skip_verify)");
    let proxy = Proxy::start(settings);
    assert_eq!(proxy.client().line("EXISTS tlsn:none"), ":0\r\n");
    assert!(proxy.shut_down().contains("nodes' certificates are not checked"));
}

#[test]
fn valkey_s_nodes_speak_tls_too() {
    if !Flavour::Valkey.is_here_with_tls("valkey_s_nodes_speak_tls_too") {
        return;
    }
    let authority = Authority::new("valkey");
    let shape = shape(&authority, "node", &["127.0.0.1"], "yes");
    let cluster = Cluster::unformed(Shape { flavour: Flavour::Valkey, ..shape });
    cluster.form();
    let proxy = Proxy::start(trusted(&authority, &cluster));
    assert_eq!(proxy.client().line("MSET vk:a 1 vk:b 2 vk:c 3"), "+OK\r\n");
}

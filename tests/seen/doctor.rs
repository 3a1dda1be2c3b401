//! `slotway doctor`: everything it finds, provoked for real, and found within seconds.

use std::{
    net::{SocketAddr, TcpListener},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    redirection::discovery::containers,
    support::{
        Act, Authority, Client, Cluster, FakeNode, Flavour, Node, NodeTls, Proxy, Settings, Setup, Shape,
        ports::free_port, proxy::only_set_here, relay::BlackHole, until,
    },
};

/// What the doctor said about one cluster.
struct Report {
    code: Option<i32>,
    text: String,
    found: Vec<Value>,
    took: Duration,
}

/// Asks the doctor, with flags beyond the usual ones.
#[track_caller]
fn doctor_of(seeds: &str, more: &[&str]) -> Report {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
    only_set_here(&mut command);
    let started = Instant::now();
    let (listen, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    command.args(["doctor", "--json", "--seeds", seeds]);
    for (flag, value) in [("--listen", &listen), ("--admin", &admin)] {
        if !more.contains(&flag) {
            command.args([flag, value]);
        }
    }
    let output = command.args(more).output().expect("the doctor");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let json: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let found = json["findings"].as_array().expect("findings").clone();
    let report = Report { code: output.status.code(), text, found, took: started.elapsed() };
    let problems = report.found.iter().filter(|finding| finding["verdict"] == "problem").count();
    assert_eq!(report.code, Some(i32::from(problems > 0)), "{}", report.text);
    assert!(report.took < Duration::from_secs(10), "took {:?}", report.took);
    report
}

impl Report {
    /// A finding of this verdict and topic that says all these words, in its sentence or its remedy.
    #[track_caller]
    fn finds(&self, verdict: &str, about: &str, words: &[&str]) {
        assert!(self.has(verdict, about, words), "no {verdict} about {about} with {words:?} in {}", self.pretty());
    }

    fn has(&self, verdict: &str, about: &str, words: &[&str]) -> bool {
        self.found.iter().any(|finding| {
            let text =
                format!("{} -> {}", finding["says"].as_str().unwrap_or(""), finding["remedy"].as_str().unwrap_or(""));
            finding["verdict"] == verdict && finding["about"] == about && words.iter().all(|word| text.contains(word))
        })
    }

    /// Nothing is worse than a warning about these topics.
    #[track_caller]
    fn warns_only_of(&self, topics: &[&str]) {
        for finding in &self.found {
            let fine = finding["verdict"] == "ok"
                || finding["verdict"] == "warning" && topics.iter().any(|topic| finding["about"] == *topic);
            assert!(fine, "{finding} in {}", self.pretty());
        }
    }

    fn pretty(&self) -> String {
        self.found.iter().map(|finding| format!("\n{finding}")).collect()
    }
}

/// Asks again until the finding is there: nodes take a while to notice.
#[track_caller]
fn doctor_comes_to_find(seeds: &str, verdict: &str, about: &str, words: &[&str]) -> Report {
    let mut last = None;
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        let report = doctor_of(seeds, &[]);
        if report.has(verdict, about, words) {
            return report;
        }
        assert!(Instant::now() < end, "no {verdict} about {about} with {words:?}: {}", last.unwrap_or(report).pretty());
        last = Some(report);
    }
}

#[test]
fn a_cluster_that_is_well_has_no_problem() {
    let cluster = Cluster::start(Shape { replicas: 1, ..Shape::default() });
    // One seed leads to all.
    let report = until("the replicas to have settled", Duration::from_secs(20), || {
        Some(doctor_of(&cluster.node(0).address(), &[])).filter(|report| !report.text.contains("\"warning\""))
    });
    report.warns_only_of(&[]);
    for about in ["seeds", "login", "addresses", "nodes", "slots", "versions", "clocks", "replicas", "limits", "proxy"]
    {
        report.finds("ok", about, &[]);
    }
}

#[test]
fn lines_for_people_name_the_remedy() {
    let server = Node::standalone();
    let output = only_set_here(&mut Command::new(env!("CARGO_BIN_EXE_slotway")))
        .args(["doctor", "--seeds", &server.address(), "--admin", "off", "--listen", "127.0.0.1:0"])
        .output()
        .expect("the doctor");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in [
        "ok       proxy: ",
        "problem  cluster: ",
        "cluster support disabled",
        "\n         -> ",
        "cluster-enabled yes",
        "1 problem, no warnings",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn seeds_that_lead_nowhere() {
    let cluster = crate::support::cluster::shared();
    let closed = format!("127.0.0.1:{}", free_port());
    let hole: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().expect("an address");
    let _hole = BlackHole::at(hole).expect("a black hole");
    let bad = format!("no-such-host.invalid:7000,{closed},{hole}");
    let report = doctor_of(&bad, &[]);
    report.finds("problem", "seeds", &["cannot resolve no-such-host.invalid:7000", "--net NETWORK"]);
    report.finds("problem", "seeds", &[&closed, "refused", "docker ps"]);
    report.finds("problem", "seeds", &[&hole.to_string(), "timed out", "-p 127.0.0.1:"]);
    // Beside seeds that are well they are no problem yet.
    let report = doctor_of(&format!("{bad},{}", cluster.seeds()), &[]);
    assert_eq!(report.code, Some(0), "{}", report.text);
    report.finds("warning", "seeds", &[&closed]);
    report.finds("ok", "seeds", &["3 of 6"]);
}

#[test]
fn a_cluster_that_is_not_formed_and_a_node_that_has_not_joined() {
    let cluster = Cluster::unformed(Shape::default());
    let report = doctor_of(&cluster.seeds(), &[]);
    let create = format!("redis-cli --cluster create {}", cluster.seeds().replace(',', " "));
    report.finds("problem", "cluster", &["no slot has an owner", &create]);

    cluster.form();
    let stranger = Node::start(&Setup { cluster: true, ..Setup::default() });
    let report = doctor_of(&format!("{},{}", stranger.address(), cluster.seeds()), &[]);
    let meet = format!("redis-cli -h 127.0.0.1 -p {} cluster meet 127.0.0.1 {}", stranger.port, cluster.node(0).port);
    report.finds("problem", "cluster", &["has not joined", &meet]);

    assert_eq!(stranger.line("CLUSTER ADDSLOTSRANGE 0 100"), "+OK\r\n");
    let report = doctor_of(&format!("{},{}", stranger.address(), cluster.seeds()), &[]);
    report.finds("problem", "cluster", &[&stranger.address(), "in another cluster", "101 of 16384"]);
}

#[test]
fn passwords_and_permissions() {
    let locked = Node::start(&Setup { cluster: true, config: vec!["requirepass sesame".into()], ..Setup::default() });
    assert_eq!(locked.client().line("AUTH sesame"), "+OK\r\n");
    doctor_of(&locked.address(), &[]).finds("problem", "login", &["NOAUTH", "--password-file"]);
    let file = locked.folder.join("secret");
    let with = |secret: &str, seeds: &str, more: &[&str]| {
        std::fs::write(&file, secret).expect("a file");
        doctor_of(seeds, &[&["--password-file", file.to_str().expect("text")], more].concat())
    };
    with("wrong", &locked.address(), &[]).finds("problem", "login", &["WRONGPASS", "--askpass"]);
    with("sesame", &locked.address(), &[]).finds("problem", "cluster", &["no slot has an owner"]);

    let cluster = Cluster::three();
    with("sesame", &cluster.seeds(), &[]).finds("problem", "login", &["without any password", "requirepass"]);
    for node in &cluster.nodes {
        assert_eq!(node.line("ACL SETUSER narrow on >sesame +cluster +info +get ~app:* +client|id"), "+OK\r\n");
        assert_eq!(node.line("ACL SETUSER shut on >sesame +ping"), "+OK\r\n");
    }
    let report = with("sesame", &cluster.seeds(), &["--username", "narrow"]);
    report.finds("problem", "login", &["ASKING", "+asking", "+multi +exec +discard", "+client|unblock"]);
    report.finds("ok", "login", &["not looked at", "CONFIG GET"]);
    let report = with("sesame", &cluster.seeds(), &["--username", "shut"]);
    report.finds("problem", "login", &["NOPERM", "+cluster|slots"]);
}

#[test]
fn protected_mode_is_named() {
    // A real node refuses what comes from another machine: see the docker tests. These are its words.
    let node = FakeNode::start();
    let denied = "-DENIED Redis is running in protected mode because protected mode is enabled\r\n";
    node.always(|_| None).when("TIME", Act::SayAndHangUp(denied.into()));
    doctor_of(&node.address(), &[]).finds("problem", "login", &["DENIED", "protected-mode no"]);
}

/// The nodes announce addresses that lead nowhere, as containers do to those outside.
#[test]
fn announced_addresses_that_are_not_reached_are_mapped_with_the_line_to_pin_it() {
    let (cluster, announced) = containers();
    let rule = |(node, address): (&Node, &SocketAddr)| format!("\"{address}={}\"", node.address());
    let rules: Vec<String> = cluster.nodes.iter().zip(&announced).map(rule).collect();
    let report = doctor_comes_to_find(&cluster.seeds(), "warning", "addresses", &[&rules[0], &rules[1], &rules[2]]);
    report.finds("warning", "addresses", &["is reached at", "address_map = ["]);
    assert_eq!(report.code, Some(0), "{}", report.text);
    // Pinned, it is as it should be; pinned wrongly, it is told who is there.
    let pins = rules.join(",").replace('"', "");
    doctor_of(&cluster.seeds(), &["--address-map", &pins]).finds("ok", "addresses", &["3 nodes"]);
    let wrong =
        format!("{}={}", rules[0].trim_matches('"').split('=').next().expect("from"), cluster.node(1).address());
    let report = doctor_of(&cluster.seeds(), &["--address-map", &wrong]);
    report.finds(
        "problem",
        "addresses",
        &["address_map sends", &cluster.id(0), "there is another node", &cluster.id(1)],
    );
}

#[test]
fn addresses_that_lead_to_nobody_or_to_everybody() {
    let cluster = Cluster::three();
    assert_eq!(cluster.node(1).line("CONFIG SET cluster-announce-ip 0.0.0.0"), "+OK\r\n");
    doctor_comes_to_find(
        &cluster.seeds(),
        "problem",
        "addresses",
        &["announces 0.0.0.0", &format!("-p {} config set cluster-announce-ip 127.0.0.1", cluster.node(1).port)],
    );
    assert_eq!(cluster.node(2).line("CONFIG SET cluster-preferred-endpoint-type hostname"), "+OK\r\n");
    let report = doctor_of(&cluster.seeds(), &[]);
    let nameless = format!(":{} prefers names", cluster.node(2).port);
    let hint = ["cluster-announce-hostname NAME", "cluster-preferred-endpoint-type ip"];
    report.finds("problem", "addresses", &[&nameless, &cluster.node(1).port.to_string(), hint[0], hint[1]]);
}

#[test]
fn slots_without_owner_and_slots_on_their_way() {
    let cluster = Cluster::three();
    assert!(doctor_of(&cluster.seeds(), &[]).has("ok", "slots", &["16384"]));
    cluster.open_slot(93, 0, 1);
    let (from, to) = (cluster.node(0).address(), cluster.node(1).address());
    let report = doctor_of(&cluster.seeds(), &[]);
    report.finds("warning", "slots", &["open", &format!("from {from} to {to}: slot 93"), "--cluster fix"]);
    for node in &cluster.nodes {
        assert_eq!(node.line("CLUSTER DELSLOTS 16382 16383"), "+OK\r\n");
    }
    doctor_comes_to_find(&cluster.seeds(), "problem", "slots", &["slots 16382-16383", "no owner", "--cluster fix"]);
}

#[test]
fn slots_that_two_nodes_claim() {
    let (one, two) = FakeNode::pair();
    two.owns(&[(0, 8000, &one), (8001, 16383, &two)]);
    let seeds = format!("{},{}", one.address(), two.address());
    let report = doctor_of(&seeds, &[]);
    report.finds("problem", "slots", &["slots 8001-8191", "all own", &one.address(), &two.address(), "--cluster fix"]);
}

#[test]
fn dead_nodes_frozen_nodes_and_nodes_that_others_do_not_know() {
    let shape = Shape { node_timeout: Duration::from_secs(2), full_coverage: true, ..Shape::default() };
    let mut cluster = Cluster::start(shape);
    let (frozen, id) = (cluster.node(2).address(), cluster.id(2));
    cluster.nodes[2].pause();
    let report =
        doctor_comes_to_find(&cluster.seeds(), "problem", "nodes", &[&frozen, &id, "is down", "cluster forget"]);
    assert!(report.took < Duration::from_secs(6), "a frozen node holds it up: {:?}", report.took);
    report.finds("warning", "coverage", &["cluster-require-full-coverage no"]);
    report.finds("warning", "seeds", &[&frozen]);
    doctor_comes_to_find(&cluster.seeds(), "problem", "nodes", &["cluster_state:fail"]);
    cluster.nodes[2].resume();
    cluster.nodes[2].kill();
    doctor_comes_to_find(&cluster.seeds(), "problem", "nodes", &[&frozen, "is down"]);
}

#[test]
fn a_node_whose_bus_is_cut_and_one_that_is_not_known_to_all() {
    let cluster = Cluster::start(Shape { node_timeout: Duration::from_secs(2), ..Shape::default() });
    // Forgotten for a minute by one node, while the others know it.
    assert_eq!(cluster.node(1).line(&format!("CLUSTER FORGET {}", cluster.id(2))), "+OK\r\n");
    let report = doctor_of(&cluster.seeds(), &[]);
    report.finds(
        "warning",
        "nodes",
        &[&format!("{} does not know {}", cluster.node(1).address(), cluster.node(2).address())],
    );
    // A greeting that nobody answers.
    let nowhere = free_port();
    assert_eq!(cluster.node(0).line(&format!("CLUSTER MEET 127.0.0.1 {nowhere} {nowhere}")), "+OK\r\n");
    let report = doctor_of(&cluster.seeds(), &[]);
    report.finds("warning", "nodes", &["handshake", &format!("127.0.0.1:{nowhere}"), "bus port"]);
    // It sends its peers to a bus port where nobody is, and drops what they have.
    let config = format!("CONFIG SET cluster-announce-bus-port {nowhere}");
    assert_eq!(cluster.node(0).line(&config), "+OK\r\n");
    let words = [&cluster.id(0), "answers us, but others", &format!("bus port {nowhere}")];
    doctor_comes_to_find(&cluster.seeds(), "warning", "nodes", &words);
}

#[test]
fn replicas_that_do_not_follow_and_clusters_without_any() {
    let cluster = Cluster::start(Shape { replicas: 1, ..Shape::default() });
    assert_eq!(cluster.node(3).line("CONFIG SET masterauth wrong"), "+OK\r\n");
    for node in &cluster.nodes {
        assert_eq!(node.line("ACL SETUSER doctor on >sesame ~* &* +@all"), "+OK\r\n");
    }
    assert_eq!(cluster.node(0).line("CONFIG SET requirepass sesame"), "+OK\r\n");
    let mut primary = cluster.node(0).client();
    assert_eq!(primary.line("AUTH sesame"), "+OK\r\n");
    primary.line("CLIENT KILL TYPE replica");
    let file = cluster.node(0).folder.join("secret");
    std::fs::write(&file, "sesame").expect("a file");
    let replica = cluster.node(3).address();
    until("the replica to be missed", Duration::from_secs(30), || {
        let as_doctor = ["--username", "doctor", "--password-file", file.to_str().expect("text")];
        let report = doctor_of(&cluster.seeds(), &as_doctor);
        report.has("problem", "replicas", &[&replica, "does not follow", "masterauth"]).then_some(())
    });

    let report = doctor_of(&crate::support::cluster::shared().seeds(), &[]);
    report.finds("warning", "replicas", &["no node has a replica", "--cluster-slave"]);
}

#[test]
fn limits_of_the_nodes_and_of_this_machine() {
    let cluster = Cluster::three();
    assert_eq!(cluster.node(1).line("CONFIG SET maxclients 100"), "+OK\r\n");
    let report = doctor_of(&cluster.seeds(), &["--max-clients", "100000000"]);
    report.finds("warning", "limits", &[&cluster.node(1).address(), "100 clients", "config set maxclients 10000"]);
    report.finds("warning", "proxy", &["open files", "ulimit -n"]);
}

#[test]
fn versions_and_clocks_that_differ() {
    let node = FakeNode::start();
    // Two hours behind, and of another age.
    let then = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() - 7200;
    let time = format!("*2\r\n${}\r\n{then}\r\n$1\r\n0\r\n", then.to_string().len());
    let info = "# Server\r\nredis_version:5.0.14\r\n";
    node.when("TIME", Act::Say(time.into())).when("INFO", Act::bulk(info));
    let report = doctor_of(&node.address(), &[]);
    report.finds("warning", "clocks", &[&node.address(), "s behind", "NTP"]);
    report.finds("warning", "versions", &["Redis 5.0.14", "6.0"]);

    let (one, two) = FakeNode::pair();
    two.when("INFO", Act::bulk("# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0\r\n"));
    let report = doctor_of(&format!("{},{}", one.address(), two.address()), &[]);
    report.finds("warning", "versions", &["Redis 7.0.15", "Valkey 8.1.0"]);
}

#[test]
fn a_valkey_cluster_is_examined_as_well() {
    if !Flavour::Valkey.is_here("a_valkey_cluster_is_examined_as_well") {
        return;
    }
    let cluster = Cluster::start(Shape { flavour: Flavour::Valkey, ..Shape::default() });
    let report = doctor_of(&cluster.seeds(), &[]);
    report.warns_only_of(&["replicas"]);
    report.finds("ok", "versions", &["Valkey"]);
}

#[test]
fn own_ports_and_a_proxy_that_runs_already() {
    let cluster = crate::support::cluster::shared();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let report = doctor_of(&cluster.seeds(), &["--listen", &address]);
    report.finds("problem", "proxy", &[&format!("cannot listen on {address}"), "ss -ltnp"]);

    let proxy = Proxy::before(cluster);
    let admin = format!("127.0.0.1:{}", proxy.admin);
    let report = doctor_of(&cluster.seeds(), &["--listen", &proxy.address(), "--admin", &admin]);
    report.finds("ok", "proxy", &["one runs here", "can serve"]);
    report.warns_only_of(&["replicas"]);

    let nobody = format!("127.0.0.1:{}", free_port());
    let lost = Proxy::launch(Settings::new(nobody).expecting_warnings());
    let admin = format!("127.0.0.1:{}", lost.admin);
    let report = until("it to say why", Duration::from_secs(10), || {
        let report = doctor_of(&cluster.seeds(), &["--listen", &lost.address(), "--admin", &admin]);
        report.text.contains("refused").then_some(report)
    });
    report.finds("problem", "proxy", &["cannot serve", "no node answered"]);
}

#[test]
fn the_doctor_leaves_no_trace() {
    let cluster = Cluster::three();
    let keys = |client: &mut Client| client.line("DBSIZE");
    let mut client = cluster.node(0).client();
    let before = keys(&mut client);
    let calls = |client: &mut Client| client.line("INFO commandstats").string();
    assert_eq!(client.line("CONFIG RESETSTAT"), "+OK\r\n");
    doctor_of(&cluster.seeds(), &[]);
    assert_eq!(keys(&mut client), before);
    for stat in calls(&mut client).lines().filter_map(|line| line.strip_prefix("cmdstat_")) {
        let name = stat.split(':').next().unwrap_or_default();
        let harmless = [
            "time",
            "cluster|",
            "info",
            "command|count",
            "config|get",
            "acl|users",
            "acl|getuser",
            "acl|dryrun",
            "client|id",
            "client|unblock",
            "asking",
            "exists",
            "hello",
            "watch",
            "multi",
            "discard",
            "dbsize",
            "config|resetstat",
            "ping",
            "psync",
            "replconf",
        ];
        assert!(
            harmless.iter().any(|known| name == *known || known.ends_with('|') && name.starts_with(known)),
            "{stat}"
        );
    }
}

#[test]
fn certificates_and_ports_of_tls_are_judged() {
    let authority = Authority::new("doctor");
    let (own, ca) = (authority.issue("node", &["127.0.0.1"]), authority.certificate.clone());
    let cluster = Cluster::start(Shape {
        tls: Some(NodeTls { own: own.clone(), ca: ca.clone(), auth_clients: "no" }),
        ..Shape::default()
    });
    let (seeds, ca) = (cluster.tls_seeds("rediss://127.0.0.1"), ca.display().to_string());
    let ended = authority.issue_until("ended", &["localhost"], 2003);
    let (certificate, key) = (ended.certificate.display().to_string(), ended.key.display().to_string());
    let listen = format!("rediss://127.0.0.1:{}", free_port());
    let trusting = ["--node-tls-ca-cert-file", &ca];

    let well = doctor_of(&seeds, &trusting);
    well.finds("ok", "tls", &["the nodes' certificates are valid, the first of them until 2999-12-31"]);
    well.warns_only_of(&["replicas", "limits"]);

    let shown =
        [&trusting[..], &["--listen", &listen, "--tls-cert-file", &certificate, "--tls-key-file", &key]].concat();
    let report = doctor_of(&seeds, &shown);
    report.finds(
        "problem",
        "tls",
        &["that clients are shown is valid no more: it ended on 2003-12-31", "tls_cert_file"],
    );
    report.finds("ok", "seeds", &["3 of 3"]);

    let missing = ["--node-tls-ca-cert-file", "/nowhere/ca.pem"];
    doctor_of(&seeds, &missing).finds("problem", "tls", &["`node_tls_ca_cert_file`: /nowhere/ca.pem: cannot read it"]);

    let other = Authority::new("doctor-other").certificate.display().to_string();
    let report = doctor_of(&seeds, &["--node-tls-ca-cert-file", &other]);
    report.finds("problem", "tls", &["is of no CA that is trusted here", "openssl s_client -connect 127.0.0.1:"]);

    let fixed = [&trusting[..], &["--node-tls-server-name", "redis.example"]].concat();
    doctor_of(&seeds, &fixed).finds("problem", "tls", &["its certificate is not for redis.example but for"]);

    let unchecked = doctor_of(&seeds, &["--node-tls-insecure-skip-verify"]);
    unchecked.finds("warning", "tls", &["nodes' certificates are not checked"]);

    // TLS to plain ports, and the other way round.
    let crossed = doctor_of(&cluster.seeds(), &["--node-tls", "--node-tls-ca-cert-file", &ca]);
    crossed.finds("problem", "tls", &["timed out", "`tls-port`, or its plain `port`"]);
    let crossed = doctor_of(&cluster.tls_seeds("127.0.0.1"), &[]);
    crossed.finds("problem", "tls", &["it hangs up at the first word", "rediss://127.0.0.1:"]);
}

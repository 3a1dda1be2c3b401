//! What PROXY and the status tell beside counts: hot keys, slow and large requests, clients, events, settings.

use crate::support::{Cluster, Proxy, Settings, cluster::shared, eventually};

fn status(proxy: &Proxy) -> serde_json::Value {
    serde_json::from_str(&proxy.page("/api/status").1).expect("JSON")
}

/// Asks for one key as often as for a thousand others.
fn ask_for_one_key(proxy: &Proxy) {
    let mut client = proxy.client();
    for round in 0..40 {
        let keys =
            (0..500).map(|number| if number % 2 == 0 { "told:hot".into() } else { format!("told:{round}:{number}") });
        let requests: Vec<Vec<String>> = keys.map(|key| vec!["GET".to_owned(), key]).collect();
        client.pipeline(&requests);
    }
}

#[test]
fn the_hottest_key_is_told() {
    let proxy = Proxy::before(shared());
    ask_for_one_key(&proxy);
    let mut client = proxy.client();
    let hottest = |client: &mut crate::support::Client| -> Option<Vec<serde_json::Value>> {
        let told = client.line("PROXY HOTKEYS 1").value();
        let first = told.items().first()?.items().to_vec();
        Some(first.iter().map(|item| item.str().map_or_else(|| item.integer().into(), |text| text.into())).collect())
    };
    eventually("a hot key", || hottest(&mut client).is_some_and(|told| told[0] == "told:hot"));
    let told = hottest(&mut client).expect("it is there still");
    let slot = shared().node(0).line("CLUSTER KEYSLOT told:hot").integer();
    assert_eq!((&told[1], &told[4], &told[5]), (&slot.into(), &0.into(), &"get".into()), "{told:?}");
    let owner = shared().node(shared().home_of("told:hot")).address();
    assert_eq!(told[2], owner.as_str());
    let first = &status(&proxy)["hot_keys"][0];
    assert_eq!((&first["key"], &first["node"]), (&"told:hot".into(), &owner.as_str().into()), "{first}");
    assert_eq!(status(&proxy)["hot_slots"][0]["slot"], slot);
    assert!(!proxy.page("/metrics").1.contains("told:"), "a key became a label");
}

#[test]
fn keys_are_digests_where_they_are_nobodys_business() {
    let proxy = Proxy::start(Settings::new(shared().seeds()).with("SHOW_KEYS", false).with("SLOW_REQUEST", "1us"));
    ask_for_one_key(&proxy);
    eventually("a hot key", || {
        status(&proxy)["hot_keys"][0]["key"].as_str().is_some_and(|key| key.starts_with("sha1:"))
    });
    eventually("a slow request", || status(&proxy)["slow"][0]["request"] == "GET");
    assert!(!proxy.page("/api/status").1.contains("told:"), "a key is shown");
}

#[test]
fn a_slow_request_is_told_with_its_node_and_where_the_time_went() {
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut client = proxy.client();
    client.line("CLIENT SETNAME worker-7");
    let key = cluster.key_on(1, "slow:");
    let reply = client.call(&["EVAL", "for i = 1, 20000000 do end return 1", "1", &key]);
    assert_eq!(reply.integer(), 1);
    assert!(client.line("PROXY SLOWLOG LEN").integer() >= 1);
    let told = client.line("PROXY SLOWLOG GET -1").value();
    // On a busy machine others may have taken long, too.
    let entry =
        told.items().iter().map(|entry| entry.items().to_vec()).find(|entry| entry[3].items()[0].str() == Some("EVAL"));
    let entry = entry.expect("the script");
    let [id, _, micros, args, address, name, node, slot, here, there] = entry.as_slice() else { panic!("{entry:?}") };
    assert!(id.integer() >= Some(0) && args.items()[3].str() == Some(&*key), "{entry:?}");
    assert!(address.str().is_some_and(|address| address.starts_with("127.0.0.1:")) && name.str() == Some("worker-7"));
    assert_eq!(node.str(), Some(&*cluster.node(1).address()));
    assert_eq!(slot.integer(), Some(cluster.node(1).line(&format!("CLUSTER KEYSLOT {key}")).integer()));
    let [micros, here, there] = [micros, here, there].map(|number| number.integer().expect("a number"));
    assert!(
        micros >= 10_000 && there >= micros / 2 && (here + there - micros).abs() <= 1,
        "{micros} = {here} + {there}"
    );
    let slow = status(&proxy)["slow"].as_array().expect("a list").clone();
    assert!(slow.iter().any(|slow| slow["node"] == cluster.node(1).address().as_str()), "{slow:?}");
    assert_eq!(client.line("PROXY SLOWLOG RESET"), "+OK\r\n");
    assert!(
        client
            .line("PROXY SLOWLOG GET -1")
            .value()
            .items()
            .iter()
            .all(|entry| entry.items()[3].items()[0].str() != Some("EVAL"))
    );
    assert!(format!("{:?}", client.line("PROXY SLOWLOG TAIL")).contains("PROXY SLOWLOG GET"));
}

#[test]
fn large_requests_and_replies_are_told() {
    let proxy = Proxy::before(shared());
    let mut client = proxy.client();
    client.call(&["SET", "told:large", &"x".repeat(600 * 1024)]);
    client.call(&["GET", "told:large"]);
    let has = |what: &str, command: &str| {
        let status = status(&proxy);
        let all = status["large"].as_array().expect("a list").clone();
        all.iter().any(|large| {
            large["what"] == what
                && large["command"] == command
                && large["key"] == "told:large"
                && large["bytes"].as_u64() >= Some(128 * 1024)
        })
    };
    eventually("the request", || has("request", "set"));
    eventually("the reply", || has("reply", "get"));
    // What is known to be large comes by a connection of its client's own, and is told by its whole length.
    client.call(&["GET", "told:large"]);
    let whole = || {
        let all = status(&proxy)["large"].clone();
        all.as_array().is_some_and(|all| {
            all.iter().any(|large| large["what"] == "reply" && large["bytes"].as_u64() > Some(600 * 1024))
        })
    };
    eventually("its length", whole);
}

#[test]
fn proxy_tells_of_clients_settings_slots_and_events() {
    let proxy = Proxy::start(Settings::new(shared().seeds()).with("MAX_CLIENTS", 77));
    let mut client = proxy.client();
    client.line("CLIENT SETNAME dashboard");
    let lines = client.line("PROXY CLIENTS").texts();
    assert!(lines.iter().any(|line| line.contains(" name=dashboard ") && line.contains(" tot-cmds=")), "{lines:?}");
    assert_eq!(client.line("PROXY CONFIG GET max_client*").texts(), ["max_clients", "77"]);
    assert!(client.line("PROXY CONFIG").texts().len() > 60);
    let slots = client.line("PROXY SLOTS").texts();
    assert!(slots.len() >= 3 && slots[0].starts_with("0-"), "{slots:?}");
    let events = client.line("PROXY EVENTS -1").value();
    let texts: Vec<String> =
        events.items().iter().filter_map(|event| Some(event.items()[4].str()?.to_owned())).collect();
    assert!(texts.iter().any(|text| text.starts_with("ready: all 16384 slots")), "{texts:?}");
    assert!(texts.last().is_some_and(|text| text.starts_with("listening on ")), "{texts:?}");
    assert!(format!("{:?}", client.line("PROXY")).contains("PROXY HELP"));
    let help = client.line("PROXY HELP").texts().join("\n");
    for word in ["CLIENTS", "CONFIG", "EVENTS", "EXPLAIN", "HOTKEYS", "INFO", "NODE ", "NODES", "SLOTS", "SLOWLOG"] {
        assert!(help.contains(word), "{help}");
    }
}

#[test]
fn a_scrape_counts_all_that_was_answered_before_it() {
    let proxy = Proxy::before(shared());
    let mut client = proxy.client();
    for count in 1..=5 {
        let requests: Vec<Vec<&str>> = (0..100).map(|_| vec!["SET", "told:scraped", "v"]).collect();
        client.pipeline(&requests);
        assert_eq!(proxy.metric("slotway_commands_total", &["command=\"set\""]), f64::from(100 * count));
    }
}

#[test]
fn the_status_says_all_of_it_in_a_sentence_and_streams() {
    use std::io::{BufRead, BufReader, Write};
    let cluster = Cluster::three();
    let proxy = Proxy::before(&cluster);
    let mut client = proxy.client();
    client.line("SET told:a b");
    let now = status(&proxy);
    assert!(
        now["sentence"].as_str().is_some_and(|text| text.starts_with("All 16,384 slots are served by 3 primaries; ")),
        "{now}"
    );
    assert_eq!((&now["state"], &now["slot_map"].as_array().expect("a list").len()), (&"ok".into(), &3));
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", proxy.admin)).expect("the admin port");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a timeout");
    write!(stream, "GET /api/stream HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let events: Vec<String> = lines.filter_map(|line| Some(line.strip_prefix("data: ")?.to_owned())).take(2).collect();
    let last: serde_json::Value = serde_json::from_str(&events[1]).expect("JSON");
    assert_eq!(last["slots_reachable"], 16384);
    // While somebody looks, nodes are asked about themselves.
    eventually("what a node tells", || {
        status(&proxy)["nodes"][0]["version"].as_str() == Some("Redis 7.0.15")
            || status(&proxy)["nodes"][0]["memory_bytes"].as_u64() > Some(0)
    });
    eventually("a point of the history", || {
        let past: serde_json::Value = serde_json::from_str(&proxy.page("/api/history").1).expect("JSON");
        past["all"]["requests"].as_array().is_some_and(|points| !points.is_empty())
    });
}

use std::{io::Write, process::Stdio, thread, time::Duration};

use super::*;

fn label(text: &str) -> Arc<str> {
    text.into()
}

const ALL: Slots = Slots { assigned: 16384, reachable: 16384 };

fn state(label: &Arc<str>, role: &'static str, slots: usize) -> NodeState {
    NodeState { label: label.clone(), address: label.clone(), role, up: true, slots }
}

/// The value of the one series that starts like this.
fn value(text: &str, series: &str) -> Option<f64> {
    let mut found = text.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    let value = found.next();
    assert_eq!(found.next(), None, "{series} is there twice");
    value
}

#[test]
fn everything_is_there_at_zero_from_the_start() {
    let metrics = Metrics::new();
    metrics.know_databases(vec![("shop".to_owned(), vec![("shop".to_owned(), Slot::of(b"shop"))])]);
    metrics.topology(1, ALL, vec![state(&label("a:1"), "primary", 16384)]);
    let text = metrics.render();
    for family in names::ALL {
        let (name, help) = (family.name, family.help);
        assert!(text.contains(&format!("# HELP {name} {help}\n# TYPE {name} ")), "{name} is not described:\n{text}");
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} has no series");
        for label in family.labels {
            assert!(
                text.lines().any(|line| line.starts_with(name) && line.contains(&format!("{label}=\""))),
                "{name}: {label}"
            );
        }
    }
    assert_eq!(value(&text, "slotway_node_requests_total{node=\"a:1\",role=\"primary\"}"), Some(0.0));
    assert_eq!(value(&text, "slotway_redirects_total{type=\"moved\",outcome=\"absorbed\"}"), Some(0.0));
    assert_eq!(value(&text, "slotway_node_slots{node=\"a:1\",role=\"primary\"}"), Some(16384.0));
    assert_eq!(value(&text, "slotway_slots_assigned"), Some(16384.0));
    assert_eq!(value(&text, "slotway_slots_reachable"), Some(16384.0));
    assert_eq!(value(&text, "slotway_commands_total{command=\"other\",result=\"error\"}"), Some(0.0));
    assert!(value(&text, "process_resident_memory_bytes").unwrap() > 1e6);
    assert!(value(&text, "process_open_fds").unwrap() > 2.0);
}

#[test]
fn a_database_counts_for_its_name() {
    let metrics = Metrics::new();
    let slot = Slot::of(b"shop");
    metrics.know_databases(vec![("shop".to_owned(), vec![("shop".to_owned(), slot), ("shop/1".to_owned(), slot)])]);
    let (one, other) = (metrics.database_tallies(), metrics.database_tallies());
    for (worker, name) in [(&one, "shop"), (&other, "shop"), (&other, "shop/1"), (&other, "made/up")] {
        worker.of(name).client_came();
        worker.of(name).asked();
        worker.publish();
    }
    metrics.learn_databases(&[(Some(7), 3), (None, 0)]);
    let shown = |what: &str| value(&metrics.render(), &format!("slotway_database_{what}{{database=\"shop\"}}"));
    assert_eq!([shown("requests_total"), shown("clients"), shown("keys")], [Some(3.0), Some(3.0), Some(7.0)]);
    assert!(!metrics.render().contains("shop/1") && !metrics.render().contains("made"));
    let glances = metrics.databases();
    assert_eq!((glances[0].requests, glances[0].clients, glances[0].keys, glances[0].rate), (2, 2, Some(7), 3));
    assert_eq!((glances[1].requests, glances[1].clients, glances[1].keys), (1, 1, None));
    drop(other);
    assert_eq!(metrics.databases()[1].clients, 0, "who was of a worker that has ended is gone");
    assert_eq!(metrics.databases()[0].clients, 1);
}

#[test]
fn all_workers_count_into_the_same_series() {
    let metrics = Metrics::new();
    let worker = |metrics: Metrics| {
        let nodes = metrics.node_tallies();
        let node = nodes.of(&label("a:1"));
        let clients = metrics.client_tally();
        clients.client_came();
        for _ in 0..1000 {
            node.queued(30);
            node.sent(30);
            node.replied(RequestClass::Read, Duration::from_micros(70));
            clients.command(CommandId::of("get"), CommandClass::Read, false, Duration::from_millis(2));
        }
        node.queued(30);
        node.error(NodeError::Moved);
        node.connected();
        clients.retried(NodeError::Moved);
        nodes.publish(|_| true);
        clients.publish();
        clients.publish();
        let text = metrics.render();
        assert!(value(&text, "slotway_node_inflight_requests{node=\"a:1\"}").unwrap() >= 1.0);
        assert!(value(&text, "slotway_client_connections").unwrap() >= 1.0);
        clients.client_left(Disconnect::Eof);
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| worker(metrics.clone()));
        }
    });
    let text = metrics.render();
    for (series, expected) in [
        ("slotway_node_requests_total{node=\"a:1\",role=\"primary\"}", 4004.0),
        ("slotway_node_request_errors_total{node=\"a:1\",error=\"moved\"}", 4.0),
        ("slotway_node_sent_bytes_total{node=\"a:1\"}", 120_000.0),
        ("slotway_node_request_duration_seconds_bucket{node=\"a:1\",class=\"read\",le=\"0.00005\"}", 0.0),
        ("slotway_node_request_duration_seconds_bucket{node=\"a:1\",class=\"read\",le=\"0.0001\"}", 4000.0),
        ("slotway_node_request_duration_seconds_bucket{node=\"a:1\",class=\"read\",le=\"+Inf\"}", 4000.0),
        ("slotway_node_request_duration_seconds_count{node=\"a:1\",class=\"read\"}", 4000.0),
        ("slotway_node_request_duration_seconds_sum{node=\"a:1\",class=\"read\"}", 0.28),
        ("slotway_command_duration_seconds_sum{class=\"read\"}", 8.0),
        ("slotway_commands_total{command=\"get\",result=\"ok\"}", 4000.0),
        ("slotway_redirects_total{type=\"moved\",outcome=\"absorbed\"}", 4.0),
        ("slotway_retries_total{reason=\"moved\"}", 4.0),
        ("slotway_client_disconnects_total{reason=\"eof\"}", 4.0),
        // What ended workers had open is open no more.
        ("slotway_node_inflight_requests{node=\"a:1\"}", 0.0),
        ("slotway_node_queued_bytes{node=\"a:1\"}", 0.0),
        ("slotway_node_connections{node=\"a:1\"}", 0.0),
        ("slotway_client_connections", 0.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series}");
    }
    assert_eq!(metrics.totals().commands, 4000);
}

#[test]
fn what_clients_ask_for_is_known_at_once() {
    let metrics = Metrics::new();
    let (get, mget) = (CommandId::of("get"), CommandId::of("mget"));
    let workers = [metrics.client_tally(), metrics.client_tally()];
    for worker in &workers {
        worker.command(get, CommandClass::Read, false, Duration::ZERO);
        worker.command(get, CommandClass::Read, true, Duration::ZERO);
        worker.rejected(get);
        worker.surplus(mget, 2);
    }
    assert_eq!(metrics.asked(get), CommandCalls { answered: 4, failed: 2, rejected: 2, surplus: 0 });
    assert_eq!(metrics.asked(mget), CommandCalls { surplus: 4, ..CommandCalls::default() });
    let snapshot = metrics.snapshot_of_asked();
    workers[0].command(get, CommandClass::Read, false, Duration::ZERO);
    metrics.reset_asked(snapshot);
    assert_eq!(metrics.asked(get), CommandCalls { answered: 1, ..CommandCalls::default() });
    assert_eq!((metrics.ever_asked(get).answered, metrics.asked(mget)), (5, CommandCalls::default()));
    // A worker that ends takes nothing with it.
    drop(workers);
    assert_eq!(metrics.ever_asked(get).answered, 5);
}

#[test]
fn durations_fall_into_their_buckets() {
    let shared = histogram::SharedHistogram::default();
    for micros in [0, 50, 51, 5_000_000, 5_000_001, 90_000_000] {
        shared.observe(Duration::from_micros(micros));
    }
    let counts = shared.counts();
    assert_eq!((counts[0], counts[1], counts[15], counts[16]), (2, 1, 1, 2), "{counts:?}");
    assert_eq!((counts.iter().sum::<u64>(), shared.seconds()), (6, 100.000102));
}

#[test]
fn a_role_change_moves_a_node_at_once() {
    let metrics = Metrics::new();
    let node = label("a:1");
    metrics.topology(1, Slots::default(), vec![state(&node, "primary", 5)]);
    let tallies = metrics.node_tallies();
    tallies.of(&node).queued(1);
    tallies.publish(|_| true);
    metrics.topology(2, Slots::default(), vec![state(&node, "replica", 0)]);
    tallies.of(&node).queued(1);
    tallies.publish(|_| true);
    let text = metrics.render();
    assert_eq!(value(&text, "slotway_node_up{node=\"a:1\",role=\"primary\"}"), None);
    assert_eq!(value(&text, "slotway_node_up{node=\"a:1\",role=\"replica\"}"), Some(1.0));
    assert_eq!(value(&text, "slotway_node_requests_total{node=\"a:1\",role=\"replica\"}"), Some(1.0));
    assert_eq!(metrics.nodes().first().unwrap().requests, 2);
}

#[test]
fn names_that_clients_make_up_are_no_labels() {
    assert_eq!(CommandId::of("get"), CommandId::of("get"));
    assert_ne!(CommandId::of("get"), CommandId::of("set"));
    let tally = Metrics::new().client_tally();
    tally.command(CommandId::OTHER, CommandClass::Admin, true, Duration::ZERO);
    tally.protocol_error("inline");
    tally.protocol_error("inline");
    tally.publish();
    let text = tally_text(&tally);
    assert_eq!(value(&text, "slotway_commands_total{command=\"other\",result=\"error\"}"), Some(1.0));
    assert_eq!(value(&text, "slotway_client_protocol_errors_total{reason=\"inline\"}"), Some(2.0));
}

fn tally_text(tally: &ClientTally) -> String {
    tally.metrics().render()
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    let metrics = Metrics::new();
    metrics.topology(1, ALL, vec![state(&label("a:1"), "primary", 1), state(&label("[::1]:2"), "replica", 0)]);
    let child = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("SKIPPED: promtool is not installed");
        return;
    };
    child.stdin.take().unwrap().write_all(metrics.render().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

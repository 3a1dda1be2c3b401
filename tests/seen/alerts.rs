//! The alerts of `deploy/prometheus`: each has a section in the runbook and a unit test, and fires in a real Prometheus when
//! what it is about really happens.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::support::{
    Authority, Client, Cluster, Prometheus, Proxy, Settings, TlsProxy, eventually,
    prometheus::{RANGE, deployed, is_here},
};

/// What follows `mark` in each line that begins with it.
fn after<'a>(text: &'a str, mark: &str) -> BTreeSet<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(mark)).map(str::trim).collect()
}

#[test]
fn every_alert_has_its_section_in_the_runbook_and_leads_there() {
    let (alerts, runbook) = (deployed("prometheus/alerts.yml"), deployed("prometheus/runbook.md"));
    let names = after(&alerts, "- alert: ");
    let sections: BTreeSet<&str> =
        after(&runbook, "## ").into_iter().filter(|title| title.starts_with("Slotway")).collect();
    assert_eq!(names, sections);
    let links = after(&alerts, "runbook_url: ");
    let expected: BTreeSet<String> =
        names.iter().map(|name| format!("\"runbook.md#{}\"", name.to_lowercase())).collect();
    assert_eq!(links, expected.iter().map(String::as_str).collect());
    for section in runbook.split("\n## ").filter(|section| section.starts_with("Slotway")) {
        for part in ["Means", "Hurts", "Absorbed", "Look", "Do"] {
            assert!(section.contains(&format!("- **{part}**: ")), "{part} is missing in:\n{section}");
        }
    }
}

#[test]
fn every_alert_is_unit_tested_both_ways() {
    if !is_here("the unit tests of the alerts") {
        return;
    }
    let (alerts, tests) = (deployed("prometheus/alerts.yml"), deployed("prometheus/alerts.test.yml"));
    for name in after(&alerts, "- alert: ") {
        assert!(include_str!("alerts.rs").contains(&format!("\"{name}")), "{name}: that it fires for a real fault");
        assert!(tests.contains(&format!("alertname: {name}, exp_alerts: []")), "{name}: when it does not fire");
        assert!(
            tests.contains(&format!("alertname: {name}\n        exp_alerts:\n          - ")),
            "{name}: when it fires"
        );
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus");
    let tool = Command::new("promtool").args(["test", "rules", "alerts.test.yml"]).current_dir(folder).output();
    let tool = tool.expect("promtool");
    assert!(tool.status.success(), "{}", String::from_utf8_lossy(&[tool.stdout, tool.stderr].concat()));
}

/// The rules as they are, but for their times: nobody waits for minutes here. Of some the limits are lower, too.
fn quick_rules() -> String {
    let mut rules = String::new();
    for line in deployed("prometheus/alerts.yml").lines() {
        match line.split_once("for: ") {
            Some((indent, _)) if indent.trim().is_empty() => rules += &format!("{indent}for: 1s\n"),
            _ => rules += &format!("{line}\n"),
        }
    }
    for range in ["[1m]", "[5m]", "[10m]"] {
        rules = rules.replace(range, &format!("[{RANGE}]"));
    }
    for (before, now) in [
        ("timestamp_seconds > 60", "timestamp_seconds > 6"),
        ("_buffered_bytes > 200e6", "_buffered_bytes > 2e6"),
        // Clients are bounded before that many files are open.
        ("> 0.8", "> 0.5"),
        ("< 14 * 86400", "< 800 * 86400"),
    ] {
        assert!(rules.contains(before), "{before}");
        rules = rules.replace(before, now);
    }
    rules
}

/// Asks for keys of all nodes, until told to stop.
fn load(address: &str, keys: &[String], stop: &AtomicBool) {
    let mut client = Client::connect(address);
    while !stop.load(Relaxed) {
        for key in keys {
            if client.try_call(&["GET", key]).is_err() {
                match Client::try_connect(address) {
                    Ok(again) => client = again,
                    Err(_) => return,
                }
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whatever goes wrong, what waits for this ends with it.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// In front of this cluster, impatient.
fn settings(cluster: &Cluster) -> Settings {
    Settings::new(cluster.seeds())
        .with("REFRESH_INTERVAL", "1s")
        .with("RETRY_TIMEOUT", "100ms")
        .with("REQUEST_TIMEOUT", "500ms")
        .expecting_warnings()
}

#[test]
fn faults_of_nodes_fire_their_alerts() {
    if !is_here("the alerts of nodes") {
        return;
    }
    let mut cluster = Cluster::three();
    let proxy = Proxy::start(settings(&cluster));
    let prometheus = Prometheus::start(&[("it", proxy.admin)], Some(&quick_rules()));
    let keys: Vec<String> = (0..3).map(|index| cluster.key_on(index, "alert:")).collect();
    let labels: Vec<String> = (0..3).map(|index| cluster.node(index).address()).collect();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for key in &keys {
            let (address, stop) = (proxy.address(), &stop);
            scope.spawn(move || load(&address, std::slice::from_ref(key), stop));
        }
        let _stop = Stop(&stop);
        eventually("scrapes", || !prometheus.query("rate(slotway_commands_total[6s]) > 0").is_empty());
        prometheus.waits_for_peace();

        // Killed.
        cluster.nodes[2].kill();
        for alert in ["SlotwayNodeDown", "SlotwayRequestsFail"] {
            prometheus.waits_for(&format!("{alert} it {}", labels[2]));
        }
        ["SlotwaySlotsUnreachable it", "SlotwayErrors it"].iter().for_each(|alert| prometheus.waits_for(alert));
        let others = prometheus.firing();
        assert!(!others.iter().any(|alert| alert.contains(&labels[0]) || alert.contains(&labels[1])), "{others:?}");
        cluster.nodes[2].restart();
        prometheus.waits_for_peace();

        // Slow.
        let well = AtomicBool::new(false);
        thread::scope(|scope| {
            let (node, well) = (&cluster.nodes[1], &well);
            scope.spawn(move || {
                let mut client = node.client();
                while !well.load(Relaxed) {
                    client.line("DEBUG SLEEP 0.07");
                    thread::sleep(Duration::from_millis(20));
                }
            });
            let _well = Stop(well);
            prometheus.waits_for(&format!("SlotwaySlow it {}", labels[1]));
        });
        prometheus.waits_for_peace();
    });

    // A move that stands still: what is not there is asked for in two places.
    stop.store(false, Relaxed);
    let slot = cluster.node(0).line(&format!("CLUSTER KEYSLOT {}", keys[0])).integer() as usize;
    cluster.open_slot(slot, 0, 1);
    thread::scope(|scope| {
        let (address, asked) = (proxy.address(), &stop);
        let key = keys[0].clone();
        scope.spawn(move || load(&address, &[key], asked));
        let _stop = Stop(&stop);
        prometheus.waits_for("SlotwayRedirectsSustained it");
    });
    cluster.node(0).line(&format!("CLUSTER SETSLOT {slot} STABLE"));
    cluster.node(1).line(&format!("CLUSTER SETSLOT {slot} STABLE"));
    prometheus.waits_for_peace();

    // A slot without an owner.
    for node in &cluster.nodes {
        node.line(&format!("CLUSTER DELSLOTS {slot}"));
    }
    prometheus.waits_for("SlotwaySlotsUncovered it");

    // Nobody answers any more.
    cluster.nodes.iter_mut().for_each(|node| node.pause());
    ["SlotwayTopologyStale it", "SlotwayNotReady it"].iter().for_each(|alert| prometheus.waits_for(alert));
    cluster.nodes.iter_mut().for_each(|node| node.resume());

    proxy.shut_down();
    prometheus.waits_for("SlotwayDown it");
}

#[test]
fn troubles_with_clients_and_certificates_fire_their_alerts() {
    if !is_here("the alerts of clients") {
        return;
    }
    let cluster = Cluster::three();
    let narrow = Proxy::start(settings(&cluster).with("MAX_CLIENTS", 5));
    let few = Proxy::start(settings(&cluster).with_open_files(120));
    let held = Proxy::start(settings(&cluster));
    let authority = Authority::new("alerts");
    // At most two years from any day of this one.
    let year = 1970 + std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_secs() / 31_556_952;
    let own = authority.issue_until("proxy", &["localhost"], year as i32 + 1);
    let tls = TlsProxy::start(authority, own, &[], &[" WARN ", "are not taken"]);
    let targets = [("narrow", narrow.admin), ("few", few.admin), ("held", held.admin), ("tls", tls.proxy.admin)];
    let prometheus = Prometheus::start(&targets, Some(&quick_rules()));
    prometheus.waits_for("SlotwayCertificateEnds tls");

    fs::write(&tls.own.certificate, "no certificate").expect("written");
    prometheus.waits_for("SlotwayCertificateRefused tls");

    // The series must have been seen before it grows.
    let seen = "slotway_client_connections_rejected_total{instance=\"narrow\"}";
    eventually("a scrape", || prometheus.query(seen).len() > 1);
    let crowd: Vec<Client> = (0..12).map(|_| narrow.client()).collect();
    prometheus.waits_for("SlotwayClientsRejected narrow");
    drop(crowd);

    let crowd: Vec<Client> = (0..60).map(|_| few.client()).collect();
    prometheus.waits_for("SlotwayFilesNearLimit few");
    drop(crowd);

    let mut client = held.client();
    assert_eq!(client.call(&["SET", "alert:large", &"x".repeat(8 << 20)]), "+OK\r\n");
    let readers: Vec<Client> = (0..2).map(|_| held.client()).collect();
    let mut readers = readers;
    readers.iter_mut().for_each(|reader| (0..3).for_each(|_| reader.send(&["GET", "alert:large"])));
    prometheus.waits_for("SlotwayBufferedHigh held");
}

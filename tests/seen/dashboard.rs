//! The dashboard of `deploy/grafana`: every expression of every panel has data, asked of a real Prometheus while there is
//! something to show.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use serde_json::Value;

use super::alerts::Stop;
use crate::support::{
    Client, Cluster, Prometheus, Proxy, Settings, Shape, eventually,
    prometheus::{RANGE, deployed, is_here},
};

/// The title of each panel with each of its expressions, the variables filled in as Grafana does.
fn expressions() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&deployed("grafana/dashboards/slotway.json")).expect("JSON");
    let variables = dashboard["templating"]["list"].as_array().expect("variables").iter();
    let mut filled: Vec<(String, &str)> =
        variables.map(|variable| (format!("${}", variable["name"].as_str().expect("a name")), ".*")).collect();
    filled.extend([("$__rate_interval".to_owned(), RANGE), ("$__interval".to_owned(), RANGE)]);
    // Longer names first: one may begin with another.
    filled.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| {
        let title = panel["title"].as_str().unwrap_or_default().to_owned();
        panel["targets"].as_array().into_iter().flatten().map(move |target| (title.clone(), target["expr"].clone()))
    });
    let expression = |(title, expression): (String, Value)| {
        let text = expression.as_str().expect("an expression").to_owned();
        (title, filled.iter().fold(text, |text, (name, value)| text.replace(name, value)))
    };
    targets.map(expression).collect()
}

/// A bit of everything, until told to stop.
fn all_kinds_of_things(address: &str, stop: &AtomicBool) {
    let mut client = Client::connect(address);
    client.line("CLIENT SETINFO LIB-NAME redis-py");
    let mut waiting = Client::connect(address);
    waiting.send(&["BLPOP", "board:none", "0"]);
    let mut listening = Client::connect(address);
    listening.line("SUBSCRIBE board");
    let mut number = 0;
    while !stop.load(Relaxed) {
        number += 1;
        for key in 0..30 {
            client.call(&["SET", &format!("board:{key}"), "v"]);
            client.call(&["GET", &format!("board:{key}")]);
        }
        client.line("INCR board:0");
        client.line("NOSUCH");
        client.line("MULTI");
        client.line("SET board:1 v");
        client.line("EXEC");
        client.line("PUBLISH board news");
        if number % 20 == 0 {
            let _ = Client::connect(address).try_send_raw(b"*1\r\n$x\r\n");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn every_expression_has_data_where_there_is_something_to_show() {
    if !is_here("the dashboard's expressions") {
        return;
    }
    let expressions = expressions();
    assert!(expressions.len() > 40, "{}", expressions.len());
    let cluster = Cluster::start(Shape { replicas: 1, ..Shape::default() });
    let settings = Settings::new(cluster.seeds())
        .with("REFRESH_INTERVAL", "1s")
        .with("READS", "replica")
        .with("DATABASE", "board")
        .expecting_warnings();
    let spread = Proxy::start(Settings { env: settings.env[..2].to_vec(), ..settings.clone() });
    let own = Proxy::start(settings);
    let prometheus = Prometheus::start(&[("spread", spread.admin), ("own", own.admin)], None);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for proxy in [&spread, &own] {
            let (address, stop) = (proxy.address(), &stop);
            scope.spawn(move || all_kinds_of_things(&address, stop));
        }
        // A slot that is half moved: redirects.
        let slot = cluster.node(0).line("CLUSTER KEYSLOT board:2").integer() as usize;
        let from = cluster.home_of("board:2");
        cluster.open_slot(slot, from, (from + 1) % 3);
        let unanswered = || -> Vec<&(String, String)> {
            let has_data = |expression: &str| {
                let found = prometheus.query(expression);
                !found.is_empty() && found.iter().any(|(_, value)| value.is_finite())
            };
            expressions.iter().filter(|(_, expression)| !has_data(expression)).collect()
        };
        let _stop = Stop(&stop);
        let mut last = Vec::new();
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while std::time::Instant::now() < end {
            last = unanswered();
            if last.is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(500));
        }
        assert!(last.is_empty(), "without data:\n{last:#?}");
        // What is drawn is what is there.
        let sum = |what: &str| prometheus.query(what).first().map(|(_, value)| *value);
        eventually("all slots in the picture", || {
            sum("min(slotway_slots_reachable)") == Some(16384.0) && sum("count(slotway_node_up == 1)") == Some(12.0)
        });
    });
}

//! A client that leaves while something is set up for it is noticed at once; one that has only closed its sending side
//! gets its reply.

use crate::support::{Cluster, Proxy, Settings, Shape, cluster::shared, eventually};

#[test]
fn who_leaves_while_something_is_set_up_is_noticed() {
    let mut cluster = Cluster::start(Shape::default());
    // Without being noticed, they would stay for minutes.
    let settings = Settings::new(cluster.seeds()).with("RETRY_TIMEOUT", "300s").with("CONNECT_TIMEOUT", "300s");
    let proxy = Proxy::start(settings.expecting_warnings());
    let mut bystander = proxy.client();
    let mut subscribed = proxy.client();
    subscribed.line("SUBSCRIBE before");
    subscribed.line("PING");
    let waits = [
        (2, "SUBSCRIBE a", "subscribe"),
        (3, "PSUBSCRIBE a*", "psubscribe"),
        (2, "SSUBSCRIBE a", "ssubscribe"),
        (2, "MONITOR", "monitor"),
        (3, "CLIENT TRACKING ON BCAST", "client|tracking"),
    ];
    let clients = waits.map(|(version, ..)| proxy.client_of(version));
    for node in &mut cluster.nodes {
        node.pause();
    }
    let mut listed = |command: &str| {
        let list = bystander.line("CLIENT LIST").string();
        list.lines().filter(|line| line.contains(&format!("cmd={command} "))).count()
    };
    for ((_, line, command), mut client) in waits.into_iter().zip(clients) {
        client.send(&line.split(' ').collect::<Vec<_>>());
        eventually(&format!("{line} to be under way"), || listed(command) == 1);
        drop(client);
        eventually(&format!("it to be noticed, {line}"), || listed(command) == 0);
    }
    // One that is subscribed already, too.
    subscribed.send(&["UNSUBSCRIBE", "before"]);
    eventually("UNSUBSCRIBE to be under way", || listed("unsubscribe") == 1);
    drop(subscribed);
    eventually("it to be noticed", || listed("unsubscribe") == 0);
    eventually("its subscription to end", || proxy.metric("slotway_subscriptions", &[]) == 0.0);
    for node in &mut cluster.nodes {
        node.resume();
    }
}

#[test]
fn who_only_stops_sending_gets_its_reply() {
    let proxy = Proxy::before(shared());
    for line in ["SUBSCRIBE half.a", "PSUBSCRIBE half.*", "SSUBSCRIBE half.a", "MONITOR", "UNSUBSCRIBE half.b"] {
        let mut client = proxy.client();
        client.send(&line.split(' ').collect::<Vec<_>>());
        client.finish_sending();
        let reply = client.reply();
        assert!(!reply.is_error(), "{line}: {reply:?}");
        assert_eq!(client.read_to_end().unwrap(), b"", "{line}");
    }
}

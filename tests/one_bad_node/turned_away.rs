//! A node that turns connections away: nothing is said to have run there that was never sent, and operators see it.

use std::time::Duration;

use crate::support::{Cluster, Flavour, Proxy, Settings, Shape, eventually, until};

#[test]
fn a_node_without_room_for_connections_is_named_in_its_own_words_and_seen_as_down() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        if !flavour.is_here("a_node_without_room_for_connections_is_named_in_its_own_words_and_seen_as_down") {
            continue;
        }
        let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
        let settings = Settings::new(cluster.seeds()).with("RETRY_TIMEOUT", "500ms").expecting_warnings();
        let proxy = Proxy::start(settings);
        let (mut admin, mut client) = (cluster.node(1).client(), proxy.client());
        let label = format!("node=\"{}\"", cluster.node(1).address());
        let key = cluster.key_on(1, "full:");
        assert_eq!(admin.line("CONFIG SET maxclients 1"), "+OK\r\n");
        // Shared connections, those of one's own, and those by which a node speaks unasked.
        for request in [
            vec!["INCR", &key],
            vec!["GET", &key],
            vec!["BLPOP", &key, "0.1"],
            vec!["SSUBSCRIBE", &key],
            vec!["KEYS", "*"],
            vec!["WATCH", &key],
        ] {
            let mut client = proxy.client();
            let said = client.call(&request).0.escape_ascii().to_string();
            assert!(said.contains("max number of clients"), "{request:?}: {said}");
            assert!(said.contains(&cluster.node(1).address()), "{request:?}: {said}");
            assert!(!said.contains("may have run"), "{request:?}: {said}");
        }
        eventually("the node to be seen as down", || proxy.metric("slotway_node_up", &[&label]) == 0.0);
        let complaints = || proxy.log().lines().filter(|line| line.contains("turns connections away")).count();
        assert!((1..=3).contains(&complaints()), "{}", proxy.log());
        assert_eq!(client.call(&["SET", &cluster.key_on(0, "full:"), "v"]), "+OK\r\n");
        assert_eq!(admin.line("CONFIG SET maxclients 10000"), "+OK\r\n");
        // Not one of the refused ones has run.
        let counted = until("the node to be used again", Duration::from_secs(10), || {
            let reply = client.call(&["INCR", &key]);
            (!reply.is_error()).then_some(reply)
        });
        assert_eq!(counted.integer(), 1);
        eventually("the node to be seen as up", || proxy.metric("slotway_node_up", &[&label]) == 1.0);
    }
}

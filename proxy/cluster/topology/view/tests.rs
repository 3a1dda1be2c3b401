use super::*;

/// A reply as a real server gave it; `replies/` holds them as they came over the wire.
fn reply(name: &str) -> Value {
    let path = format!("{}/proxy/cluster/topology/view/replies/{name}", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|why| panic!("{path}: {why}"));
    let (value, used) = Value::parse(&bytes).unwrap().unwrap();
    assert_eq!(used, bytes.len(), "{name}");
    value
}

fn asked() -> Address {
    Address::new("seed", 1)
}

fn view(slots: &str, nodes: Option<&str>) -> View {
    let nodes = nodes.map(reply);
    View::parse(&reply(slots), nodes.as_ref().and_then(Value::str), None, &asked()).unwrap()
}

fn at(view: &View, slot: usize) -> Option<&Seen> {
    view.seen.get(usize::from(view.slots[slot]))
}

#[test]
fn real_clusters_are_read_whole() {
    for (server, nodes, ports) in [("redis", 4, [21700, 21701, 21702]), ("valkey", 3, [21710, 21711, 21712])] {
        for version in ["", "resp3."] {
            let view = view(&format!("{server}.{version}slots"), Some(&format!("{server}.nodes")));
            let primaries = view.seen.iter().filter(|seen| seen.role == Role::Primary).count();
            assert_eq!((view.covered(), view.epoch(), primaries), (SLOTS, 3, 3), "{server}");
            assert_eq!(view.seen.len(), nodes, "{server}");
            let edges = [0, 5460, 5461, 10922, 10923, 16383];
            let owners = edges.map(|slot| at(&view, slot).unwrap().announced.port);
            assert_eq!(owners, [ports[0], ports[0], ports[1], ports[1], ports[2], ports[2]], "{server}");
            assert!(view.seen.iter().all(|seen| seen.announced.host == "127.0.0.1" && !seen.implied));
            assert!(view.seen.is_sorted_by_key(|seen| &seen.id));
        }
    }
}

#[test]
fn every_form_of_endpoint() {
    for server in ["redis", "valkey"] {
        let first = |slots: &str, nodes: Option<&str>| {
            let nodes = nodes.map(|name| format!("{server}.{name}"));
            at(&view(&format!("{server}.{slots}"), nodes.as_deref()), 0).cloned().unwrap()
        };
        let null = first("unknown.slots", Some("nodes"));
        assert_eq!((null.announced.host.as_str(), null.implied), ("seed", true), "NULL is the host just asked");
        assert_eq!(null.aliases, ["127.0.0.1"], "and the metadata says its address");

        let question = first("question.slots", None);
        assert_eq!((question.announced.host.as_str(), question.implied), ("127.0.0.1", false), "? by the metadata");

        let named = first("hostname.slots", Some("hostname.nodes"));
        assert_eq!(
            (named.announced.host.as_str(), named.aliases.as_slice()),
            ("host-a", &["127.0.0.1".to_owned()][..])
        );

        let ip = first("ip.slots", None);
        assert_eq!((ip.announced.host.as_str(), ip.aliases.as_slice()), ("127.0.0.1", &["host-a".to_owned()][..]));
    }
    let lonely = view("lonely.slots", Some("lonely.nodes"));
    assert_eq!(lonely.covered(), 3);
    assert_eq!((lonely.seen[0].announced.to_string().as_str(), lonely.seen[0].implied), ("seed:21720", true));
}

#[test]
fn a_new_replica_is_seen_though_no_slots_are_said_to_be_its_own() {
    let nodes = reply("redis.nodes");
    let slots = reply("redis.slots");
    let primaries = slots.items().iter().map(|range| Value::Array(range.items()[..3].to_vec()));
    let slots = Value::Array(primaries.collect());
    let view = View::parse(&slots, nodes.str(), Some(&reply("redis.shards")), &asked()).unwrap();
    let replica = view.seen.iter().find(|seen| seen.announced.port == 21703).unwrap();
    assert_eq!((replica.role, replica.replicates.as_deref()), (Role::Replica, Some(&*at(&view, 0).unwrap().id)));
    assert_eq!((replica.epoch, replica.announced.host.as_str()), (1, "127.0.0.1"));

    // Where clients are to use names, an address is not what it announces: it would change once it owns slots.
    let named = String::from_utf8_lossy(nodes.text().unwrap()).replace("21703@31703", "21703@31703,host-d");
    let card =
        b"*1\r\n%2\r\n+slots\r\n*0\r\n+nodes\r\n*1\r\n%3\r\n+id\r\n+90fe50236a0d5135dfeb671d4b6d1416949afe62\r\n\
        +port\r\n:21703\r\n+endpoint\r\n+host-d\r\n";
    let (shards, _) = Value::parse(card).unwrap().unwrap();
    let view = View::parse(&slots, Some(&named), Some(&shards), &asked()).unwrap();
    let replica = view.seen.iter().find(|seen| seen.announced.port == 21703).unwrap();
    assert_eq!((replica.announced.host.as_str(), &*replica.aliases), ("host-d", &["127.0.0.1".to_owned()][..]));
}

#[test]
fn zones_come_from_shards() {
    let nodes = reply("valkey.nodes");
    let view = View::parse(&reply("valkey.slots"), nodes.str(), Some(&reply("valkey.zone.shards")), &asked()).unwrap();
    let zones: Vec<_> = view.seen.iter().filter_map(|seen| seen.zone.as_deref()).collect();
    assert_eq!(zones, ["az1"]);
}

/// A node with one owner per range, as CLUSTER SLOTS and NODES would say it.
fn told(ranges: &[(u16, u16, &str)], epochs: &[(&str, u64)]) -> View {
    let mut sketch = Sketch::default();
    for (id, epoch) in epochs {
        let announced = Address::new(*id, 7000);
        sketch.add(Seen { epoch: *epoch, ..Seen::bare(id, announced) });
    }
    for (first, last, id) in ranges {
        let place = sketch.places[*id];
        sketch.slots[usize::from(*first)..=usize::from(*last)].fill(place);
    }
    sketch.into_view()
}

#[test]
fn of_two_claims_the_one_with_the_higher_epoch_is_believed() {
    // `old` is cut off: it has not heard that c took over from a with epoch 7.
    let old = told(&[(0, 99, "a"), (100, 199, "b")], &[("a", 1), ("b", 2)]);
    let new = told(&[(0, 99, "c"), (100, 199, "b")], &[("a", 1), ("b", 2), ("c", 7)]);
    for views in [vec![old.clone(), new.clone()], vec![new.clone(), old.clone(), old.clone()]] {
        assert_eq!(View::merge(views).unwrap(), new);
    }
    // Two nodes each know one thing more than the other: both count.
    let failed_over = told(&[(0, 99, "c"), (100, 199, "b")], &[("b", 2), ("c", 7)]);
    let resharded = told(&[(0, 99, "a"), (100, 149, "d"), (150, 199, "b")], &[("a", 1), ("b", 2), ("d", 8)]);
    let both = View::merge(vec![failed_over, resharded]).unwrap();
    let owners = [0, 99, 100, 149, 150, 199].map(|slot| at(&both, slot).unwrap().id.as_str());
    assert_eq!(owners, ["c", "c", "d", "d", "b", "b"]);
    // What an old view says of a node that is known better does not count.
    let new = told(&[(0, 99, "b")], &[("a", 9), ("b", 2)]);
    let old = told(&[(0, 99, "a")], &[("a", 4), ("b", 2)]);
    assert_eq!(View::merge(vec![new.clone(), old]).unwrap(), new);
    // The owner of the highest epoch was given a slot, which raises none.
    let old = told(&[(0, 99, "a"), (100, 199, "b")], &[("a", 1), ("b", 2)]);
    let new = told(&[(0, 89, "a"), (90, 199, "b")], &[("a", 1), ("b", 2)]);
    assert_eq!(View::merge(vec![old.clone(), old, new.clone()]).unwrap(), new, "the last counts");
    assert_eq!(View::merge(Vec::new()), None);
}

#[test]
fn a_node_that_knows_little_takes_nothing_away() {
    let lonely = told(&[], &[("z", 0)]);
    let whole = told(&[(0, 16383, "a")], &[("a", 0)]);
    for views in [vec![lonely.clone(), whole.clone()], vec![whole.clone(), lonely]] {
        assert_eq!(View::merge(views).unwrap().covered(), SLOTS);
    }
}

#[test]
fn a_guessed_address_gives_way_to_a_given_one() {
    let guess = view("lonely.slots", Some("lonely.nodes"));
    let mut given = guess.clone();
    given.seen[0].announced.host = "10.0.0.1".to_owned();
    given.seen[0].implied = false;
    let merged = View::merge(vec![guess, given]).unwrap();
    assert_eq!(merged.seen[0].announced.host, "10.0.0.1");
    assert!(!merged.seen[0].implied);
}

#[test]
fn lines_of_every_version() {
    for (text, host, port, hostname) in [
        ("a 10.0.0.1:7000 master - 0 0 1 connected", "10.0.0.1", 7000, ""),
        ("a 10.0.0.1:7000@17000 master - 0 0 1 connected 0-5 [6->-b]", "10.0.0.1", 7000, ""),
        ("a ::1:7000@17000,red-a master - 0 0 1 connected", "::1", 7000, "red-a"),
        ("a :7000@17000,,shard-id=x myself,master - 0 0 1 connected", "", 7000, ""),
        ("a 10.0.0.1:7000@17000,shard-id=x master - 0 0 1 connected", "10.0.0.1", 7000, ""),
    ] {
        let line = Member::parse(text).unwrap();
        assert_eq!(
            (line.id, line.host, line.port, line.hostname, line.epoch),
            ("a", host, port, hostname, 1),
            "{text}"
        );
        assert!(line.is_well());
    }
    let replica = Member::parse("a 10.0.0.1:7000@17000 slave,fail p 0 0 9 disconnected").unwrap();
    assert_eq!((replica.replicates, replica.epoch, replica.is_well()), (Some("p"), 9, false));
    for text in ["", "a", "a b c d e f g", "a 1:x@1 master - 0 0 1 connected", "a 1:1@1 master - 0 0 x connected"] {
        assert!(Member::parse(text).is_none(), "{text}");
    }
}

#[test]
fn nonsense_is_no_view() {
    for text in [
        &b"+OK\r\n"[..],
        b"-ERR This instance has cluster support disabled\r\n",
        b"*1\r\n*1\r\n:0\r\n",
        b"*1\r\n*2\r\n:0\r\n:16384\r\n",
        b"*1\r\n*2\r\n:-1\r\n:1\r\n",
    ] {
        let (value, _) = Value::parse(text).unwrap().unwrap();
        assert!(View::parse(&value, None, None, &asked()).is_err(), "{}", text.escape_ascii());
    }
    // Backwards, without an owner, without a port: no harm.
    for text in [
        &b"*1\r\n*3\r\n:9\r\n:1\r\n*2\r\n$1\r\na\r\n:7000\r\n"[..],
        b"*1\r\n*2\r\n:0\r\n:1\r\n",
        b"*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\na\r\n:0\r\n",
        b"*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\n?\r\n:7000\r\n",
    ] {
        let (value, _) = Value::parse(text).unwrap().unwrap();
        assert_eq!(View::parse(&value, None, None, &asked()).unwrap().covered(), 0, "{}", text.escape_ascii());
    }
}

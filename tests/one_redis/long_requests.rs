//! Long requests: what they are answered with, beside one Redis. What they cost is measured by `benches/linear.rs`.

use crate::support::{
    Client, Cluster, Flavour, Node, Proxy, Settings, Setup, Shape, cluster::shared, wait::eventually,
};

const MANY: usize = 3000;

fn names(prefix: &str) -> Vec<String> {
    (0..MANY).map(|index| format!("{prefix}{index}")).collect()
}

fn request(words: &[&str], more: &[String]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).chain(more.iter().cloned()).collect()
}

/// A proxy that leaves a busy machine the time for them.
fn patient(cluster: &Cluster) -> Proxy {
    let settings = Settings::new(cluster.seeds()).with("RETRY_TIMEOUT", "60s").with("REQUEST_TIMEOUT", "60s");
    Proxy::start(settings.with("NODE_TIMEOUT", "60s").expecting_warnings())
}

/// Sends the same to both and compares so many replies.
#[track_caller]
fn same(pair: &mut [Client; 2], request: &[String], replies: usize) {
    pair.iter_mut().for_each(|client| client.send(request));
    for index in 0..replies {
        let [found, expected] = pair.each_mut().map(Client::reply);
        assert_eq!(found, expected, "{} {}, reply {index}", request[0], request[1]);
    }
}

#[test]
fn many_names_in_one_subscribe_are_confirmed_one_by_one() {
    let (proxy, redis) = (patient(shared()), Node::standalone());
    for (version, begin, end) in
        [(2, "SUBSCRIBE", "UNSUBSCRIBE"), (3, "PSUBSCRIBE", "PUNSUBSCRIBE"), (3, "SSUBSCRIBE", "SUNSUBSCRIBE")]
    {
        let mut pair = [proxy.client(), redis.client()];
        pair.iter_mut().for_each(|client| drop(client.line(&format!("HELLO {version}"))));
        let all = names("lr.");
        same(&mut pair, &request(&[begin, "lr.0", "lr.0"], &all), MANY + 2);
        same(&mut pair, &request(&[begin, "lr.more"], &[]), 1);
        let (half, rest) = all.split_at(MANY / 2);
        same(&mut pair, &request(&[end, "lr.none"], half), 1 + half.len());
        // All that are left, in no order that is told.
        let counts = pair.each_mut().map(|client| {
            client.send(&[end]);
            let mut replies: Vec<_> = (0..=rest.len()).map(|_| client.reply().value()).collect();
            let counts: Vec<_> = replies.iter().map(|reply| reply.items()[2].clone()).collect();
            replies.sort_by_key(|reply| reply.items()[1].text().map(<[u8]>::to_vec));
            let names: Vec<_> = replies.iter().map(|reply| reply.items()[1].clone()).collect();
            (counts, names)
        });
        assert_eq!(counts[0], counts[1], "{end}");
        same(&mut pair, &request(&["PING", "x"], &[]), 1);
    }
}

#[test]
fn a_node_is_asked_for_many_names_in_portions_also_when_it_is_connected_anew() {
    const PORTION: usize = 1024;
    let cluster = Cluster::three();
    let proxy = patient(&cluster);
    let (mut client, mut publisher) = (proxy.client(), proxy.client());
    let all = names("lp.");
    client.send(&request(&["SUBSCRIBE"], &all));
    (0..MANY).for_each(|_| drop(client.reply()));
    let asked = || -> usize {
        let calls = |node: &Node| {
            let stats = node.line("INFO commandstats").string();
            let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_subscribe:calls="));
            line.map_or(0, |line| line.split(',').next().unwrap_or_default().parse().expect("a count"))
        };
        cluster.nodes.iter().map(calls).sum()
    };
    // A node that confirms as it goes is seen to be there, and serves others in between.
    let least = MANY.div_ceil(PORTION);
    assert_eq!(asked(), least);
    for node in &cluster.nodes {
        node.line("CLIENT KILL TYPE pubsub");
    }
    eventually("all are subscribed anew", || asked() >= 2 * least);
    eventually("a message on the last", || publisher.call(&["PUBLISH", &all[MANY - 1], "x"]).integer() == 1);
    for name in &all {
        assert_eq!(publisher.call(&["PUBLISH", name, "y"]).integer(), 1, "{name}");
    }
}

#[test]
fn many_digests_are_looked_up_as_by_one_redis() {
    const KNOWN: &str = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    let (cluster, redis) = (Cluster::three(), Node::standalone());
    for node in cluster.nodes.iter().chain([&redis]) {
        node.line("ACL SETUSER some on >pw ~* +@all -script|load");
    }
    let proxy = patient(&cluster);
    let mut digests: Vec<String> = (0..MANY).map(|index| format!("{index:040x}")).collect();
    digests[0] = "short".to_owned();
    digests[MANY / 2] = KNOWN.to_uppercase();
    digests[MANY - 1] = KNOWN.to_owned();
    let exists = request(&["SCRIPT", "EXISTS"], &digests);
    let mut pair = [proxy.client(), redis.client()];
    same(&mut pair, &exists, 1);
    same(&mut pair, &["SCRIPT", "LOAD", "return 1"].map(str::to_owned), 1);
    same(&mut pair, &exists, 1);
    for user in ["default", "some"] {
        // What its node has lost, the proxy remembers.
        cluster.nodes[1].line("SCRIPT FLUSH");
        let mut pair = [proxy.client(), redis.client()];
        if user == "some" {
            same(&mut pair, &["AUTH", "some", "pw"].map(str::to_owned), 1);
        }
        same(&mut pair, &exists, 1);
        same(&mut pair, &request(&["EVALSHA", KNOWN, "0"], &[]), 1);
    }
    same(&mut pair, &request(&["SCRIPT", "FLUSH"], &[]), 1);
    same(&mut pair, &exists, 1);
}

#[test]
fn subscribers_of_many_names_are_counted_as_by_one_redis() {
    let (proxy, redis) = (patient(shared()), Node::standalone());
    let (mut pair, mut others) = ([proxy.client(), redis.client()], [proxy.client(), redis.client()]);
    let all = names("ln.");
    same(&mut others, &request(&["SUBSCRIBE"], &all[MANY / 2..]), MANY - MANY / 2);
    same(&mut others, &request(&["SSUBSCRIBE"], &all[..7]), 7);
    same(&mut pair, &request(&["PUBSUB", "NUMSUB"], &all), 1);
    same(&mut pair, &request(&["PUBSUB", "SHARDNUMSUB"], &all), 1);
}

#[test]
fn one_forbidden_name_among_many_leaves_nothing_subscribed() {
    let cluster = Cluster::three();
    let redis = Node::standalone();
    for node in cluster.nodes.iter().chain([&redis]) {
        node.line("ACL SETUSER some on >pw resetchannels &ok* ~* +@all");
    }
    let proxy = patient(&cluster);
    let mut pair = [proxy.client(), redis.client()];
    same(&mut pair, &request(&["AUTH", "some", "pw"], &[]), 1);
    let mut all = names("ok");
    all.insert(MANY - 10, "forbidden".to_owned());
    same(&mut pair, &request(&["SUBSCRIBE"], &all), 1);
    same(&mut pair, &request(&["PUBLISH", "ok1", "x"], &[]), 1);
    same(&mut pair, &request(&["SUBSCRIBE", "ok1"], &[]), 1);
}

#[test]
fn many_prefixes_are_checked_as_one_redis_checks_them() {
    let (proxy, redis) = (patient(shared()), Node::standalone());
    let mut pair = [proxy.client_of(3), redis.client()];
    pair[1].line("HELLO 3");
    let prefixes = |names: &[String]| -> Vec<String> {
        names.iter().flat_map(|name| ["PREFIX".to_owned(), format!("{name}:")]).collect()
    };
    let on = ["CLIENT", "TRACKING", "ON", "BCAST"];
    // Servers look at each beside each.
    let few = |prefix: &str| names(prefix)[..300].to_vec();
    let mut all = prefixes(&few("lp"));
    same(&mut pair, &request(&on, &all), 1);
    same(&mut pair, &request(&["CLIENT", "TRACKINGINFO"], &[]), 1);
    all.iter_mut().for_each(|word| *word = word.replace("lp", "lq"));
    all.extend(["PREFIX".to_owned(), "lq77:x".to_owned()]);
    same(&mut pair, &request(&on, &all), 1);
    // Redis 7.0 says OK behind that error.
    assert_eq!(pair[1].reply(), "+OK\r\n");
    same(&mut pair, &request(&on, &prefixes(&["lr".to_owned(), "lp9:9".to_owned()])), 1);
}

#[test]
fn clients_are_named_by_many_ids() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        if !flavour.is_here("clients_are_named_by_many_ids") {
            continue;
        }
        let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
        let proxy = patient(&cluster);
        let mut client = proxy.client();
        let id = client.line("CLIENT ID").integer().to_string();
        let mut ids: Vec<String> = (0..MANY).map(|index| (1_000_000 + index).to_string()).collect();
        ids.push(id.clone());
        let list = client.call(&request(&["CLIENT", "LIST", "ID"], &ids)).string();
        assert_eq!(list.lines().count(), 1, "{list}");
        if flavour == Flavour::Valkey {
            // The option given again, each time with one id: all of them count.
            let again: Vec<String> = ids.iter().flat_map(|id| ["ID".to_owned(), id.clone()]).collect();
            let list = client.call(&request(&["CLIENT", "LIST"], &again)).string();
            assert_eq!(list.lines().count(), 1, "{list}");
            let not: Vec<String> = ids.iter().flat_map(|id| ["NOT-ID".to_owned(), id.clone()]).collect();
            assert_eq!(client.call(&request(&["CLIENT", "KILL"], &not)), ":0\r\n");
        }
    }
}

#[test]
fn what_no_server_takes_behind_many_keys_is_not_sent_with_each_part() {
    if !Flavour::Valkey.is_here("what_no_server_takes_behind_many_keys_is_not_sent_with_each_part") {
        return;
    }
    let cluster = Cluster::start(Shape { flavour: Flavour::Valkey, ..Shape::default() });
    let valkey = Node::start(&Setup { flavour: Flavour::Valkey, ..Setup::default() });
    let proxy = patient(&cluster);
    let mut pair = [proxy.client(), valkey.client()];
    let pairs: Vec<String> = names("mx").into_iter().flat_map(|name| [name, "v".to_owned()]).collect();
    let msetex = |options: &[&str]| {
        let count = MANY.to_string();
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        [request(&["MSETEX", &count], &pairs), options].concat()
    };
    same(&mut pair, &msetex(&["EXAT", "4102444800"]), 1);
    same(&mut pair, &msetex(&["x"; 5000]), 1);
    same(&mut pair, &msetex(&[&"x".repeat(100_000)]), 1);
    same(&mut pair, &request(&["EXPIRETIME", "mx5"], &[]), 1);
}

#[test]
fn keys_without_number_are_served_as_by_one_redis() {
    const KEYS: usize = 12_000;
    let (cluster, redis) = (Cluster::three(), Node::standalone());
    let limits = [("STRICT_ORDER", "false"), ("STRICT_ORDER", "true")];
    for (name, value) in limits {
        let settings = Settings::new(cluster.seeds()).with(name, value).with("REQUEST_TIMEOUT", "60s");
        let proxy = Proxy::start(settings.with("NODE_TIMEOUT", "60s").expecting_warnings());
        let mut pair = [proxy.client(), redis.client()];
        let keys: Vec<String> = (0..KEYS).map(|index| format!("many:{}", index % (KEYS - 5))).collect();
        let pairs: Vec<String> = keys.iter().enumerate().flat_map(|(at, key)| [key.clone(), at.to_string()]).collect();
        same(&mut pair, &request(&["MSET"], &pairs), 1);
        same(&mut pair, &request(&["MGET", "none"], &keys), 1);
        same(&mut pair, &request(&["EXISTS", "none"], &keys), 1);
        same(&mut pair, &request(&["TOUCH"], &keys), 1);
        // In a pipeline each is seen by what comes behind it.
        let (first, last) = (keys[0].clone(), keys[KEYS - 6].clone());
        let pipeline = [
            request(&["SET", &last, "before"], &[]),
            request(&["MGET"], &keys),
            request(&["SET", &first, "behind"], &[]),
            request(&["MSET"], &pairs),
            request(&["GET", &first], &[]),
            request(&["UNLINK"], &keys),
            request(&["EXISTS", &first, &last], &[]),
        ];
        let [ours, theirs] = pair.each_mut().map(|client| client.pipeline(&pipeline));
        assert_eq!(ours, theirs);
        // What is wrong with it is said in the same words.
        same(&mut pair, &request(&["MSET", "odd"], &pairs), 1);
        assert!(pair[0].line("MULTI") == pair[1].line("MULTI"));
        assert!(pair[0].call(&request(&["DEL"], &keys)).0.starts_with(b"-CROSSSLOT "));
    }
}

#[test]
fn many_parts_with_large_replies_come_in_the_order_of_the_keys() {
    const KEYS: usize = 200;
    let (proxy, redis) = (patient(shared()), Node::standalone());
    let mut pair = [proxy.client(), redis.client()];
    // Some larger than what is read of a part before it is due, some in one slot with others.
    let keys: Vec<String> = (0..KEYS).map(|index| format!("lv:{index}{{{}}}", index % 150)).collect();
    let value = |index: usize| format!("{index}").repeat(if index.is_multiple_of(7) { 30_000 } else { 3_000 });
    let pairs: Vec<String> = keys.iter().enumerate().flat_map(|(at, key)| [key.clone(), value(at)]).collect();
    same(&mut pair, &request(&["MSET"], &pairs), 1);
    let backwards: Vec<String> = keys.iter().rev().chain(&keys[..KEYS / 2]).cloned().collect();
    // The first time it is not known that they are large.
    for _ in 0..3 {
        same(&mut pair, &request(&["MGET", "lv:none"], &keys), 1);
        same(&mut pair, &request(&["MGET", "lv:none", "lv:none"], &backwards), 1);
    }
    // An error in any of them is no list with a hole.
    let (set, other) = (keys[KEYS - 1].clone(), keys[0].clone());
    same(&mut pair, &request(&["DEL", &set], &[]), 1);
    same(&mut pair, &request(&["SADD", &set, "x"], &[]), 1);
    same(&mut pair, &request(&["MGET", &set, &other], &keys), 1);
    same(&mut pair, &request(&["DEL"], &keys), 1);
}

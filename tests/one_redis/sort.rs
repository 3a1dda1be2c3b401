//! SORT with BY and GET: what a server outside of a cluster answers, where the nodes allow it; else what they say.

use crate::support::{Client, Cluster, Flavour, Node, Proxy, Setup, Shape, client::words};

/// The list, what its elements weigh and are called, and hashes about them.
fn fill(client: &mut Client) {
    for (element, weight) in [("1", "30"), ("2", "10"), ("3", "20"), ("4", "5")] {
        client.line(&format!("RPUSH {{sort}}list {element}"));
        client.line(&format!("SET {{sort}}weight_{element} {weight}"));
        client.line(&format!("HSET {{sort}}about_{element} weight {weight} name n{element}"));
    }
    // One has none.
    client.line("DEL {sort}weight_4");
    client.line("SADD {sort}set b a c");
    client.line("ZADD {sort}zset 3 x 1 y 2 z");
}

const STAYS: &[&str] = &[
    "SORT {sort}list BY {sort}weight_*",
    "SORT {sort}list BY {sort}weight_* DESC",
    "SORT {sort}list BY {sort}weight_* LIMIT 1 2",
    "SORT {sort}list BY {sort}weight_* GET #",
    "SORT {sort}list BY {sort}weight_* GET # GET {sort}weight_*",
    "SORT {sort}list BY {sort}about_*->weight GET {sort}about_*->name",
    "SORT {sort}list BY nosort GET {sort}about_*->name",
    "SORT {sort}list GET {sort}about_*->name GET {sort}weight_* DESC",
    "SORT {sort}list GET {sort}about_*->nosuch",
    "SORT {sort}set ALPHA GET {sort}nosuch_*",
    "SORT {sort}zset BY nosort GET #",
    "SORT {sort}nosuch BY {sort}weight_* GET #",
    "SORT {sort}list BY {sort}weight_* STORE {sort}out",
    "LRANGE {sort}out 0 -1",
    "SORT {sort}list GET {sort}about_*->name ALPHA STORE {sort}out",
    "LRANGE {sort}out 0 -1",
    "SORT_RO {sort}list BY {sort}weight_* GET # GET {sort}about_*->name",
    "SORT_RO {sort}list BY {sort}weight_* STORE {sort}out",
    "SORT {sort}list BY",
    "SORT {sort}list GET",
    "SORT {sort}list BY {sort}weight_* GET",
    "EVAL return(redis.call('sort',KEYS[1],'by','{sort}weight_*')) 1 {sort}list",
];
const LEAVES: &[&str] = &[
    "SORT {sort}list BY weight_*",
    "SORT {sort}list BY {other}weight_*",
    "SORT {sort}list GET about_*->name",
    "SORT {sort}list GET # GET {other}weight_*",
    "SORT {sort}list BY {sort}weight_* GET weight_*",
    "SORT {sort}list BY weight_{*}",
    "SORT {sort}list BY {so*rt}weight",
    "SORT_RO {sort}list BY weight_*",
    "SORT plainlist BY weight_*",
];

/// The replies to lines by themselves, in a pipeline, and in a transaction with and without WATCH.
fn replies(client: &mut Client, lines: &[&str]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut say = |line: &str, reply: &[u8]| all.push((line.to_owned(), reply.escape_ascii().to_string()));
    for line in lines {
        say(line, &client.line(line).0);
    }
    let requests: Vec<Vec<&str>> = lines.iter().map(|line| words(line)).collect();
    for (line, reply) in lines.iter().zip(client.pipeline(&requests)) {
        say(line, &reply.0);
    }
    for line in lines {
        for before in [&["MULTI"][..], &["WATCH {sort}list", "MULTI"]] {
            before.iter().for_each(|line| assert_eq!(client.line(line), "+OK\r\n"));
            say(line, &client.line(line).0);
            say("EXEC", &client.line("EXEC").0);
        }
    }
    all
}

fn compare(flavour: Flavour, allows: bool) {
    let cluster = Cluster::start(Shape { flavour, ..Shape::default() });
    let proxy = Proxy::before(&cluster);
    let plain = Node::start(&Setup { flavour, ..Setup::default() });
    let owner = cluster.node(cluster.home_of("{sort}list"));
    fill(&mut proxy.client());
    fill(&mut plain.client());
    for version in ["2", "3"] {
        let [mut ours, mut alone, mut node] = [proxy.client(), plain.client(), owner.client()];
        for client in [&mut ours, &mut alone, &mut node] {
            assert!(!client.call(&["HELLO", version]).is_error());
        }
        let oracle = if allows { &mut alone } else { &mut node };
        for (ours, theirs) in replies(&mut ours, STAYS).iter().zip(replies(oracle, STAYS)) {
            assert_eq!(*ours, theirs, "RESP{version}");
        }
        let leaves: Vec<&str> = LEAVES.iter().copied().filter(|line| line.contains("{sort}list")).collect();
        for (ours, theirs) in replies(&mut ours, &leaves).iter().zip(replies(&mut node, &leaves)) {
            assert_eq!(*ours, theirs, "RESP{version}");
        }
        // The key of these lives at whichever node.
        for line in LEAVES {
            let said = ours.line(line);
            assert!(said.is_error() && said.0.windows(7).any(|part| part == b"denied "), "{line}: {said:?}");
        }
    }
}

#[test]
fn redis_says_that_a_cluster_sorts_by_the_key_itself() {
    compare(Flavour::Redis, false);
}

#[test]
fn valkey_sorts_by_other_keys_of_the_slot() {
    if Flavour::Valkey.is_here("valkey_sorts_by_other_keys_of_the_slot") {
        compare(Flavour::Valkey, true);
    }
}

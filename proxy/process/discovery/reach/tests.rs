use super::*;
use crate::process::discovery::scripted::Network;

const ID: &str = "a";

fn at(text: &str) -> Address {
    text.parse().unwrap()
}

fn sought(announced: &str, aliases: &[&str], mapped: Option<&str>) -> SoughtNode {
    let seen = Seen { aliases: aliases.iter().map(|&host| host.to_owned()).collect(), ..Seen::bare(ID, at(announced)) };
    SoughtNode::of(&seen, mapped.map(at))
}

/// Who is where: an id, `-` for one that does not tell, or why nobody is there.
fn known(places: &[(&str, &str)]) -> HashMap<Address, Who> {
    let who = |who: &str| match who {
        "-" => Who::Silent,
        id if id.len() == 1 => Who::Node(id.to_owned()),
        why => Who::Nobody(why.to_owned()),
    };
    places.iter().map(|(address, said)| (at(address), who(said))).collect()
}

#[test]
fn a_node_is_placed_where_it_says_who_it_is() {
    let (there, refused) = ("172.18.0.2:7000", "connection refused");
    let seeds = [at("127.0.0.1:7001"), at("127.0.0.2:7002")];
    for (first, second, reach, how) in [
        // The seed that is this node, rather than the port beside a seed.
        (refused, vec![("127.0.0.2:7002", ID), ("127.0.0.1:7000", ID)], "127.0.0.2:7002", SEED),
        (refused, vec![("127.0.0.1:7001", "b"), ("127.0.0.2:7000", ID)], "127.0.0.2:7000", BESIDE_SEED),
        // A name of its own comes first, and is believed even where it does not tell.
        (refused, vec![("red-a:7000", ID), ("127.0.0.2:7002", ID)], "red-a:7000", ALIAS),
        (refused, vec![("red-a:7000", "-")], "red-a:7000", ALIAS),
        ("b", vec![("127.0.0.2:7002", ID)], "127.0.0.2:7002", SEED),
    ] {
        let node = sought(there, &["red-a"], None);
        let found = node.place(&seeds, &known(&[(there, first)]), &known(&second));
        assert_eq!((found.reach, found.how, found.sure), (at(reach), how, true), "{second:?}");
        assert_eq!(found.announced, at(there));
    }
    // Anybody, or nobody: it is lost, and stays where it announces.
    for (first, second, why) in [
        (refused, vec![("127.0.0.1:7001", "-"), ("127.0.0.2:7000", "-")], refused),
        (refused, vec![("127.0.0.1:7001", "b"), ("red-a:7000", "timed out")], refused),
        ("b", vec![], "at the announced address there is another node, b"),
    ] {
        let node = sought(there, &["red-a"], None);
        let found = node.place(&seeds, &known(&[(there, first)]), &known(&second));
        assert_eq!((found.reach, found.sure, &*found.why_not), (at(there), false, why), "{second:?}");
    }
}

#[test]
fn where_the_operator_says_where_a_node_is_it_is_sought_nowhere_else() {
    let node = sought("172.18.0.2:7000", &["red-a"], Some("127.0.0.1:7100"));
    assert!(node.elsewhere(&[at("127.0.0.1:7001")]).is_empty());
    let found = node.place(&[], &known(&[("127.0.0.1:7100", "b")]), &HashMap::new());
    assert_eq!((found.sure, found.reach), (false, at("127.0.0.1:7100")));
    assert_eq!(found.why_not, "at 127.0.0.1:7100 there is another node, b");
    assert_eq!(node.here().how, RULE);
}

#[test]
fn a_node_without_an_id_goes_by_its_address() {
    let seen = Seen::bare("10.0.0.1:7000", at("10.0.0.1:7000"));
    let node = SoughtNode::of(&seen, None);
    for (who, is_there) in [("x", true), ("-", true), ("connection refused", false)] {
        assert_eq!(node.is_at(&at("10.0.0.1:7000"), &known(&[("10.0.0.1:7000", who)])), is_there, "{who}");
    }
    let named = sought("10.0.0.1:7000", &[], None);
    assert!(!named.is_at(&at("10.0.0.1:7000"), &known(&[("10.0.0.1:7000", "x")])));
    assert!(!named.is_at(&at("10.0.0.1:7000"), &HashMap::new()), "nobody has asked");
}

#[test]
fn what_is_new_about_a_node_is_told_once() {
    let seen = Seen::bare(ID, at("172.18.0.2:7000"));
    let here = ReachedNode::announced(&seen);
    let by_seed = ReachedNode {
        how: SEED,
        why_not: "connection refused".to_owned(),
        ..ReachedNode::mapped(&seen, at("127.0.0.1:7001"))
    };
    let lost = |before: Option<&ReachedNode>| {
        ReachedNode { sure: false, why_not: "timed out".to_owned(), ..here.clone() }.after(before)
    };
    assert_eq!(here.news(None), None, "it is where it announces");
    let told = |news: Option<News>| match news {
        Some(News::Dialled(text)) => text,
        other => panic!("not a line: {other:?}"),
    };
    assert_eq!(
        told(by_seed.news(None)),
        "node 172.18.0.2:7000 (a) is dialled at 127.0.0.1:7001, found by the seed that is this node (connection \
         refused); to pin it: address_map = [\"172.18.0.2:7000=127.0.0.1:7001\"]"
    );
    let mapped = ReachedNode::mapped(&seen, at("127.0.0.1:7001"));
    assert_eq!(told(mapped.news(None)), "node 172.18.0.2:7000 (a) is dialled at 127.0.0.1:7001 by address_map");
    assert_eq!(by_seed.news(Some(&by_seed)), None);

    // A node that is lost stays where it was reached last, and since when it is lost stays, too.
    let first = lost(Some(&by_seed));
    assert_eq!((&first.reach, first.how), (&at("127.0.0.1:7001"), SEED));
    assert!(matches!(first.news(Some(&by_seed)), Some(News::Lost { why, .. }) if why == "timed out"));
    let second = lost(Some(&first));
    assert_eq!((second.lost_since, second.news(Some(&first))), (first.lost_since, None));
    let since = first.lost_since.expect("it is lost");
    let back = News::Back { id: ID.to_owned(), announced: at("172.18.0.2:7000"), since };
    assert_eq!(by_seed.news(Some(&second)), Some(back));
    // One that announces another address is not sought where the old one led.
    let moved = ReachedNode { announced: at("172.18.0.9:7000"), reach: at("172.18.0.9:7000"), ..lost(None) };
    assert_eq!(moved.after(Some(&by_seed)).reach, at("172.18.0.9:7000"));
}

#[tokio::test(start_paused = true)]
async fn every_node_comes_back_within_the_patience_of_two_rounds() {
    let network = Network::default();
    // `a` answers where it announces; at `b`'s place is another; `c` swallows packets, and is behind a seed; nobody is at `d`'s.
    for (address, id) in
        [("10.0.0.1:7000", "a"), ("10.0.0.2:7000", "x"), ("10.0.0.3:7000", "c"), ("127.0.0.1:7003", "c")]
    {
        network.start(address, id);
    }
    network.is_silent("10.0.0.3:7000");
    let wanted = [("a", 1), ("b", 2), ("c", 3), ("d", 4)];
    let wanted =
        wanted.map(|(id, host)| SoughtNode::of(&Seen::bare(id, Address::new(format!("10.0.0.{host}"), 7000)), None));
    let began = tokio::time::Instant::now();
    let seeds = vec![at("127.0.0.1:7003"), at("127.0.0.1:7009")];
    let mut found = search(wanted.into(), seeds, Login::default(), network.dialer()).await;
    found.sort_by(|one, other| one.id.cmp(&other.id));
    let told: Vec<_> =
        found.iter().map(|node| (&*node.id, node.sure, node.reach.to_string(), &*node.why_not)).collect();
    assert_eq!(
        told,
        [
            ("a", true, "10.0.0.1:7000".to_owned(), ""),
            ("b", false, "10.0.0.2:7000".to_owned(), "at the announced address there is another node, x"),
            ("c", true, "127.0.0.1:7003".to_owned(), "no answer from 10.0.0.3:7000: timed out"),
            ("d", false, "10.0.0.4:7000".to_owned(), "connection refused"),
        ]
    );
    assert!(began.elapsed() < 2 * PATIENCE + Duration::from_millis(10), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_is_there_and_does_not_tell_is_told_from_nobody() {
    let network = Network::default();
    let disabled = "ERR This instance has cluster support disabled";
    for (reply, expected) in [
        ("+a", Who::Node("a".to_owned())),
        ("-LOADING Redis is loading the dataset in memory", Who::Silent),
        ("-NOPERM this user has no permissions", Who::Silent),
        // It is no node of a cluster.
        (&format!("-{disabled}"), Who::Nobody(disabled.to_owned())),
    ] {
        network.start("10.0.0.1:7000", "a");
        network.says("10.0.0.1:7000", "CLUSTER MYID", &format!("{reply}\r\n"));
        let found = super::who(&at("10.0.0.1:7000"), &Login::default(), &network.dialer()).await;
        assert_eq!(found, expected, "{reply}");
    }
    let nobody = super::who(&at("10.0.0.9:7000"), &Login::default(), &network.dialer()).await;
    assert_eq!(nobody, Who::Nobody("connection refused".to_owned()));
}

use super::*;
use crate::{
    cluster::topology::Topology,
    process::discovery::scripted::{Network, slots},
    protocol::slot::SLOTS,
};

/// Nodes 10.0.0.1 and on, of one cluster, each in a state: `w`ell, `s`ilent, `r`efusing, or of another cluster (`o`).
fn network(states: &str) -> (Network, Vec<Address>) {
    let network = Network::default();
    let mut addresses = Vec::new();
    for (index, state) in states.chars().enumerate() {
        let (at, id) = (format!("10.0.0.{}:7000", index + 1), format!("{state}{index}"));
        addresses.push(at.parse().unwrap());
        if state == 'r' {
            continue;
        }
        network.start(&at, &id);
        let owner = if state == 'o' { "other" } else { "ours" };
        network.says(&at, "CLUSTER SLOTS", &slots(&[(0, SLOTS - 1, "10.0.0.99:7000", owner), (0, 0, &at, &id)]));
        if state == 's' {
            network.is_silent(&at);
        }
    }
    (network, addresses)
}

/// What a survey of these nodes brings, the first ones first, and how long it takes.
async fn surveyed(network: &Network, addresses: &[Address]) -> (Survey, Duration) {
    let reply = slots(&[(0, SLOTS - 1, "10.0.0.99:7000", "ours")]);
    let (reply, _) = Value::parse(reply.as_bytes()).unwrap().unwrap();
    let ours = Topology::from_slots(&reply, &Address::new("10.0.0.99", 7000), Arc::default()).unwrap();
    let began = Instant::now();
    // The server is known: nothing is learnt, which takes its own time.
    let known = vec![ServerInfo::default()];
    let identity = ClusterIdentity::of(&ours);
    let survey = survey(addresses.to_vec(), identity, Login::default(), network.dialer(), known, false).await;
    (survey, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_survey_asks_few_and_goes_on_where_they_fail_or_hesitate() {
    let none = Duration::ZERO;
    // Each answers well, or fails, or is a stranger; how many there are of each, and how long that takes.
    for (states, answers, strangers, failures, took) in [
        ("", 0, 0, 0, none),
        ("w", 1, 0, 0, none),
        ("wwwww", 3, 0, 0, none),
        ("rw", 1, 0, 1, none),
        // Others are asked in the place of those who fail, and no more once one has answered.
        ("rrrw", 1, 0, 3, none),
        ("rrr", 0, 0, 3, none),
        ("ooow", 1, 3, 0, none),
        ("oo", 0, 2, 0, none),
        // Who has answered is enough after a moment.
        ("wss", 1, 0, 0, GRACE),
        ("wws", 2, 0, 0, GRACE),
        // While nobody answers, others are asked beside.
        ("sssw", 1, 0, 0, HEDGE + GRACE),
        ("ssssssw", 1, 0, 0, HEDGE + HEDGE + GRACE),
        // Nobody waits for ever.
        ("ss", 0, 0, 2, PATIENCE),
    ] {
        let (network, addresses) = network(states);
        let (survey, elapsed) = surveyed(&network, &addresses).await;
        let found = (survey.answers.len(), survey.strangers.len(), survey.failures.len());
        assert_eq!(found, (answers, strangers, failures), "{states}");
        assert!((took..took + Duration::from_millis(5)).contains(&elapsed), "{states}: {elapsed:?}, not {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_are_asked_than_are_enough() {
    let (network, addresses) = network("wwwww");
    surveyed(&network, &addresses).await;
    let asked: Vec<usize> = addresses.iter().map(|at| network.connections(&at.to_string())).collect();
    assert_eq!(asked, [1, 1, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_asked_for_all_in_one_go_and_tells_what_it_knows() {
    let (network, addresses) = network("w");
    let at = "10.0.0.1:7000";
    network.says(at, "CLUSTER INFO", "$18\r\ncluster_state:fail\r\n");
    let nodes = "w0 10.0.0.1:7000@17000 myself,master - 0 0 1 connected 0\n\
        b 10.0.0.2:7000@17000 master,fail? - 0 0 2 connected\n";
    network.says(at, "CLUSTER NODES", &format!("${}\r\n{nodes}\r\n", nodes.len()));
    let (survey, _) = surveyed(&network, &addresses).await;
    let answer = &survey.answers[0];
    assert_eq!((answer.name(), answer.failed), ("w0".to_owned(), true));
    assert_eq!(answer.accused, HashSet::from(["b".to_owned()]));
    assert_eq!((network.connections(at), network.heard(at, "CLUSTER SLOTS")), (1, 1));
    // One that does not tell its id goes by its address.
    network.says(at, "CLUSTER MYID", "-NOPERM no\r\n");
    assert_eq!(surveyed(&network, &addresses).await.0.answers[0].name(), at);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_view_is_a_failure() {
    for (reply, why) in [
        ("-ERR This instance has cluster support disabled\r\n", "cluster support disabled"),
        ("+OK\r\n", "no list"),
        ("*1\r\n:1\r\n", ""),
    ] {
        let (network, addresses) = network("w");
        network.says("10.0.0.1:7000", "CLUSTER SLOTS", reply);
        let (survey, _) = surveyed(&network, &addresses).await;
        assert!(survey.answers.is_empty() && survey.failures.len() == 1, "{reply}");
        let text = survey.failures_text();
        assert!(text.starts_with("10.0.0.1:7000: ") && text.contains(why), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn commands_are_learnt_of_a_server_that_is_not_known() {
    let (network, addresses) = network("www");
    let at = "10.0.0.2:7000";
    network.says(at, "INFO server", "$19\r\nredis_version:9.9.9\r\n");
    network.says(at, "CONFIG GET cluster-databases", "*2\r\n+cluster-databases\r\n+16\r\n");
    let (survey, _) = surveyed(&network, &addresses).await;
    let (server, _) = survey.learnt.expect("it is another server");
    assert_eq!((&*server.version.to_string(), server.databases), ("9.9.9", 16));
    let asked: Vec<usize> = addresses.iter().map(|at| network.heard(&at.to_string(), "COMMAND")).collect();
    assert_eq!(asked, [0, 1, 0], "the newest of them is asked");
}

#[test]
fn failures_are_told_in_one_order_and_not_all() {
    let failure = |host: &str, step, why: &str| DialError {
        node: Address::new(host, 1),
        step,
        why: why.to_owned(),
        permanent: false,
    };
    let refused = |host| failure(host, DialStep::Connect, "connection refused");
    let survey =
        |failures| Survey { answers: Vec::new(), strangers: Vec::new(), failures, resolved: Vec::new(), learnt: None };
    assert_eq!(survey(Vec::new()).failures_text(), "there is nobody to ask");
    let found = survey(vec![refused("b"), failure("a", DialStep::Login, "WRONGPASS")]);
    assert_eq!(found.failures_text(), "a:1: WRONGPASS; b:1: connection refused");
    assert_eq!(found.remedy(), found.failures[1].remedy(), "who was reached knows more");
    let many = survey(["e", "d", "c", "b", "a"].map(refused).into());
    assert!(many.failures_text().ends_with("c:1: connection refused; and 2 more"), "{}", many.failures_text());
}

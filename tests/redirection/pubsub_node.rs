//! The node that all publishing goes through: where it is lost, frozen or replaced, the next takes its place, for all
//! proxies alike, and subscribers follow.

use std::time::Duration;

use crate::support::{Client, Cluster, Flavour, Proxy, Settings, Shape, eventually, until};

/// Two proxies in front of a cluster, each with a publisher and a subscriber to the channel `a`.
struct Scene {
    cluster: Cluster,
    proxies: [Proxy; 2],
    publishers: [Client; 2],
    subscribers: [Client; 2],
    /// The number published last.
    last: u32,
}

impl Scene {
    fn new(shape: Shape) -> Scene {
        let cluster = Cluster::start(shape);
        let proxies = [(); 2].map(|()| Proxy::start(Settings::new(cluster.seeds()).expecting_warnings()));
        let publishers = proxies.each_ref().map(Proxy::client);
        let mut subscribers = proxies.each_ref().map(Proxy::client);
        for subscriber in &mut subscribers {
            subscriber.line("SUBSCRIBE a");
        }
        Scene { cluster, proxies, publishers, subscribers, last: 0 }
    }

    /// The index of the node with the lowest id among these.
    fn lowest(&self, nodes: std::ops::Range<usize>) -> usize {
        nodes.min_by_key(|index| self.cluster.id(*index)).expect("some node")
    }

    /// Whether both proxies publish by the node at `index`.
    fn go_through(&self, index: usize) -> bool {
        let address = self.cluster.nodes[index].address();
        let explained = |proxy: &Proxy| proxy.client().line("PROXY EXPLAIN PUBLISH a x").texts().join(" ");
        self.proxies.iter().all(|proxy| explained(proxy).contains(&address))
    }

    /// Publishes by each proxy until the subscribers of both have heard of each.
    #[track_caller]
    fn publish_until_heard(&mut self) {
        for from in 0..2 {
            let mut heard = [false; 2];
            until(&format!("what proxy {from} publishes to be heard"), Duration::from_secs(40), || {
                self.last += 1;
                let _ = self.publishers[from].line(&format!("PUBLISH a {from}:{}", self.last));
                for (subscriber, heard) in self.subscribers.iter_mut().zip(&mut heard) {
                    subscriber.patience = Duration::from_millis(50);
                    while let Ok(message) = subscriber.read() {
                        *heard |= message.texts()[2].starts_with(&format!("{from}:"));
                    }
                }
                heard.iter().all(|heard| *heard).then_some(())
            });
        }
    }

    /// PUBLISH counts both subscribers and all hear all in one order, as in front of one Redis.
    #[track_caller]
    fn assert_like_one_redis(&mut self) {
        until("both to be counted by both", Duration::from_secs(40), || {
            let mut both = self.publishers.iter_mut();
            both.all(|publisher| publisher.line("PUBLISH a settled") == ":2\r\n").then_some(())
        });
        self.subscribers.iter_mut().for_each(|subscriber| subscriber.patience = Duration::from_secs(15));
        let first = self.last + 1;
        for number in first..first + 100 {
            assert_eq!(self.publishers[(number % 2) as usize].line(&format!("PUBLISH a :{number}")), ":2\r\n");
        }
        self.last += 100;
        for subscriber in &mut self.subscribers {
            for number in first..first + 100 {
                let text = loop {
                    let text = subscriber.reply().texts()[2].clone();
                    if text != "settled" && text.starts_with(':') {
                        break text;
                    }
                };
                assert_eq!(text, format!(":{number}"));
            }
        }
    }

    fn gaps(&self) -> [f64; 2] {
        self.proxies.each_ref().map(|proxy| proxy.metric("slotway_subscription_gaps_total", &[]))
    }
}

fn quick(flavour: Flavour, full_coverage: bool) -> Shape {
    Shape { flavour, full_coverage, node_timeout: Duration::from_secs(2), ..Shape::default() }
}

#[test]
fn where_the_pubsub_node_is_lost_for_good_another_takes_its_place() {
    for (flavour, full_coverage) in [(Flavour::Redis, false), (Flavour::Redis, true), (Flavour::Valkey, false)] {
        if !flavour.is_here("where_the_pubsub_node_is_lost_for_good_another_takes_its_place") {
            continue;
        }
        let mut scene = Scene::new(quick(flavour, full_coverage));
        let home = scene.lowest(0..3);
        assert!(scene.go_through(home));
        scene.assert_like_one_redis();
        scene.cluster.nodes[home].kill();
        scene.publish_until_heard();
        scene.assert_like_one_redis();
        eventually("the gaps to be counted", || scene.gaps().iter().all(|gaps| *gaps >= 1.0));
        // Whatever has to do with publishing is served.
        let mut late = scene.proxies[0].client();
        assert_eq!(late.line("SUBSCRIBE b"), "*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:1\r\n");
        let publisher = &mut scene.publishers[1];
        assert_eq!(publisher.line("PUBSUB NUMSUB a b").value().items()[3].integer(), Some(1));
        assert_eq!(publisher.line("PUBLISH b x"), ":1\r\n");
        for line in ["MULTI", "PUBLISH b y"] {
            publisher.line(line);
        }
        assert_eq!(publisher.line("EXEC"), "*1\r\n:1\r\n");
        assert_eq!(late.reply().texts()[2], "x");
        assert_eq!(late.reply().texts()[2], "y");
        // So are notifications, by the nodes that there are.
        assert!(!late.line("PSUBSCRIBE __keyevent@0__:*").is_error());
        drop(late);

        // It comes back: so does the publishing.
        let gaps = scene.gaps();
        scene.cluster.nodes[home].restart();
        let first = scene.last + 1;
        until("the old node to be that again", Duration::from_secs(60), || {
            for publisher in &mut scene.publishers {
                scene.last += 1;
                assert!(!publisher.line(&format!("PUBLISH a r{}", scene.last)).is_error());
            }
            scene.go_through(home).then_some(())
        });
        let last = scene.last;
        for publisher in &mut scene.publishers {
            publisher.line("PUBLISH a end");
        }
        for subscriber in &mut scene.subscribers {
            let (mut ends, mut heard) = (0, Vec::new());
            while ends < 2 {
                let text = subscriber.reply().texts()[2].clone();
                match text.strip_prefix('r') {
                    Some(number) => heard.push(number.parse::<u32>().unwrap()),
                    None => ends += u32::from(text == "end"),
                }
            }
            heard.sort_unstable();
            let odd = |number: &u32| heard.iter().filter(|other| *other == number).count() != 1;
            let odd: Vec<u32> = (first..=last).filter(odd).collect();
            // What the proxies publish while they differ about the node (see config/limits.md).
            assert!(odd.len() <= 4, "lost or doubled: {odd:?} of {first}..={last}");
        }
        assert_eq!(scene.gaps(), gaps, "the return leaves no gap");
        scene.assert_like_one_redis();
    }
}

#[test]
fn where_the_pubsub_node_is_frozen_another_takes_its_place() {
    let mut scene = Scene::new(quick(Flavour::Redis, false));
    let home = scene.lowest(0..3);
    scene.cluster.nodes[home].pause();
    scene.publish_until_heard();
    scene.assert_like_one_redis();
    eventually("the gaps to be counted", || scene.gaps().iter().all(|gaps| *gaps >= 1.0));
    scene.cluster.nodes[home].resume();
    until("the old node to be that again", Duration::from_secs(60), || scene.go_through(home).then_some(()));
    scene.assert_like_one_redis();
}

#[test]
fn publishing_does_not_wait_for_a_failover() {
    // The nodes take far longer to replace it than the proxies.
    let mut scene = Scene::new(Shape { replicas: 1, node_timeout: Duration::from_secs(8), ..Shape::default() });
    let home = scene.lowest(0..3);
    scene.cluster.nodes[home].kill();
    scene.publish_until_heard();
    assert!(!scene.cluster.is_primary(home + 3), "it took as long as the failover");
    scene.assert_like_one_redis();
    scene.cluster.wait_until_primary(home + 3);
    let owners: Vec<usize> = (0..6).filter(|index| *index != home && scene.cluster.is_primary(*index)).collect();
    let next = owners.into_iter().min_by_key(|index| scene.cluster.id(*index)).unwrap();
    until("the lowest of the primaries to be that", Duration::from_secs(40), || scene.go_through(next).then_some(()));
    scene.assert_like_one_redis();
}

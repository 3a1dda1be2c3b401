//! What happens to the cluster and the proxy meanwhile.

use std::{
    fs,
    process::Command,
    sync::atomic::Ordering::Relaxed,
    thread,
    time::{Duration, Instant},
};

use slotway::protocol::slot::Slot;

use crate::{
    clients::Entrance,
    support::{Authority, Cluster, Issued, Proxy, Random, Settings, eventually, ports::free_port, reaper, until},
    tally::Tally,
};

/// How long a node stands still: less than after which others hold it for failing.
const STAND_STILL: Duration = Duration::from_millis(1500);
/// Four times the node timeout.
const FORGOTTEN: Duration = Duration::from_secs(16);
/// Between two troubles.
const REST: Duration = Duration::from_millis(300);

/// What troubles are made in: a cluster and the process in front of it.
pub struct Scene {
    cluster: Cluster,
    pub proxy: Proxy,
    settings: Settings,
    authority: Authority,
    certificate: Issued,
    entrance: Entrance,
    random: Random,
    /// When each pair of a primary and its replica last failed over.
    failed_over: [Option<Instant>; 3],
    /// How often a process took the place of another.
    pub takeovers: usize,
}

/// The kinds of trouble, and all of them in turn.
macro_rules! troubles {
    ($($kind:ident),+) => {
        #[derive(Clone, Copy, Debug)]
        enum Trouble {
            $($kind),+
        }

        use Trouble::*;

        const ALL: &[Trouble] = &[$($kind),+];
    };
}

troubles!(
    FailOver,
    MoveSlot,
    PrimaryStandsStill,
    ReplicaStandsStill,
    ReplicaIsKilled,
    LinksAreClosed,
    Reload,
    NewCertificate,
    Takeover
);

impl Scene {
    pub fn of(cluster: Cluster) -> Scene {
        let authority = Authority::new("soak");
        let certificate = authority.issue("proxy", &["localhost"]);
        let secured = format!("127.0.0.1:{}", free_port());
        let mut settings = Settings::new(cluster.seeds())
            .with("READS", "replica")
            .with("TAKEOVER", reaper::folder("soak").join("takeover.sock").display())
            .with("TLS_CERT_FILE", certificate.certificate.display())
            .with("TLS_KEY_FILE", certificate.key.display())
            .expecting_warnings();
        settings.flags = vec!["--listen".to_owned(), format!("rediss://{secured}")];
        let proxy = Proxy::start(settings.clone());
        let entrance = Entrance { plain: proxy.address(), secured, trust: authority.trusting(None), is_tls: false };
        Scene {
            cluster,
            proxy,
            settings,
            authority,
            certificate,
            entrance,
            random: Random::seeded("soak"),
            failed_over: [None; 3],
            takeovers: 0,
        }
    }

    pub fn entrance(&self) -> Entrance {
        self.entrance.clone()
    }

    /// One trouble after the other until `end`.
    pub fn make_trouble(&mut self, tally: &Tally, with_takeovers: bool, end: Instant) {
        for &trouble in ALL.iter().cycle() {
            if Instant::now() >= end {
                return;
            }
            if with_takeovers || !matches!(trouble, Takeover) {
                self.make(trouble, tally);
            }
        }
    }

    /// Each kind once, but for takeovers: what a process holds afterwards is what these need.
    pub fn make_each_trouble(&mut self, tally: &Tally) {
        ALL.iter().filter(|trouble| !matches!(trouble, Takeover)).for_each(|&trouble| self.make(trouble, tally));
    }

    fn make(&mut self, trouble: Trouble, tally: &Tally) {
        // The nodes are three primaries, then the replica of each.
        let primary = self.random.below(3);
        let replica = primary + 3;
        match trouble {
            FailOver => {
                // There and back, the pair whose turn it is. Redis 7.0 counts the votes of a replica's election again until four
                // times the node timeout have passed: it would take over in an epoch that others do not believe in.
                let (primary, last) =
                    self.failed_over.iter().copied().enumerate().min_by_key(|(_, last)| *last).expect("pairs");
                until("votes to be forgotten", FORGOTTEN * 2, || {
                    last.is_none_or(|last| last.elapsed() > FORGOTTEN).then_some(())
                });
                self.fail_over(primary, primary + 3);
                self.fail_over(primary + 3, primary);
                self.failed_over[primary] = Some(Instant::now());
            }
            MoveSlot => {
                let slot = Slot::of(format!("soak{}", self.random.below(4)).as_bytes()).index();
                let (from, to) = (self.cluster.owner_seen_by(0, slot), self.random.below(3));
                if from != to {
                    self.cluster.move_slot(slot, from, to);
                }
            }
            PrimaryStandsStill => self.stand_still(primary),
            ReplicaStandsStill => self.stand_still(replica),
            ReplicaIsKilled => {
                self.cluster.nodes[replica].kill();
                self.cluster.nodes[replica].restart();
                self.cluster.wait_until_well();
            }
            LinksAreClosed => drop(self.cluster.node(primary).line("CLIENT KILL TYPE normal SKIPME yes")),
            Reload => {
                let hung_up = Command::new("kill").args(["-HUP", &self.proxy.pid().to_string()]).status();
                assert!(hung_up.expect("kill").success());
            }
            NewCertificate => self.renew_certificate(),
            Takeover => self.take_over(),
        }
        tally.troubles.fetch_add(1, Relaxed);
        thread::sleep(REST);
    }

    fn fail_over(&self, from: usize, to: usize) {
        self.cluster.fail_over_to(to, "");
        // Where the disk is busy, a node stands still until it has written down what it knows.
        until("the former primary to know", Duration::from_secs(60), || (!self.cluster.is_primary(from)).then_some(()));
        self.cluster.wait_until_agreed();
    }

    fn stand_still(&mut self, node: usize) {
        self.cluster.nodes[node].pause();
        thread::sleep(STAND_STILL);
        self.cluster.nodes[node].resume();
    }

    /// A certificate for longer, or less long, in the same files.
    fn renew_certificate(&mut self) {
        let before = self.certificate_ends();
        let year = 2900 + self.random.below(90) as i32;
        let issued = self.authority.issue_until("next", &["localhost"], year);
        // The key of one with the certificate of the other is refused, and told as a warning; then they fit.
        fs::copy(&issued.certificate, &self.certificate.certificate).expect("copied");
        fs::copy(&issued.key, &self.certificate.key).expect("copied");
        let is_same = (before / 86400.0 / 365.2425 + 1970.0 - 1.0).round() as i32 == year;
        eventually("the new certificate", || is_same || self.certificate_ends() != before);
    }

    fn certificate_ends(&self) -> f64 {
        self.proxy.metric("slotway_tls_certificate_expiry_timestamp_seconds", &["side=\"clients\""])
    }

    /// A new process serves; the old one ends once the clients have left it.
    fn take_over(&mut self) {
        let new = Proxy::start(self.settings.clone().at_ports_of(&self.proxy));
        eventually("the place to be taken", || new.log().contains("the place of the running process is taken"));
        let mut old = std::mem::replace(&mut self.proxy, new);
        let status = old.wait_for_end(Duration::from_secs(60));
        assert_eq!(status.code(), Some(0), "{}", old.log());
        self.takeovers += 1;
    }
}

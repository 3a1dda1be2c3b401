use std::io::{Read, Write};

use tokio::time::Instant;

use super::*;
use crate::{
    clients::ListenerSettings,
    config::Sources,
    process::{certificates::Certificates, server::Shared},
    protocol::endpoint::{Endpoint, ListenAddress},
    upstream::{
        router::{Reloads, ReplicationNews},
        transport::Listener,
    },
};

/// A worker at work, and what its process has one of.
struct Serving {
    worker: Worker,
    shared: Shared,
    stop: CancellationToken,
    listener: Listener,
    /// What is so for those who come by it.
    settings: Arc<ListenerSettings>,
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn config(keys: &[(&str, &str)]) -> Config {
    let keys = [("seeds", "127.0.0.1:1")].iter().chain(keys);
    let flags = keys.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Config::load(&Sources { flags, ..Sources::default() }).unwrap()
}

impl Serving {
    fn new(keys: &[(&str, &str)]) -> Serving {
        let config = config(keys);
        let certificates = Certificates::load(&config).unwrap();
        let (shared, _) = Shared::of(config, &certificates);
        let stop = CancellationToken::new();
        let (replication, _, _) = ReplicationNews::channel(false);
        let blueprint = Blueprint {
            config: shared.config.clone(),
            topology: shared.topology.clone(),
            hints: Hints::channel(64).0,
            common: Registries {
                clients: shared.clients.clone(),
                scans: Arc::default(),
                scripts: Arc::default(),
                rights: Arc::default(),
                admissions: Arc::default(),
                users: shared.users.clone(),
                replication,
                reloads: Reloads::default(),
            },
            descriptors: shared.descriptors.clone(),
            dialer: shared.dialer.clone(),
            metrics: shared.metrics.clone(),
            stop: stop.clone(),
        };
        let listener = Listener::bind(&ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()), false, None).unwrap();
        let settings = Arc::new(ListenerSettings::of(&shared.config).remove(0));
        Serving { worker: Worker::start(0, blueprint).unwrap(), shared, stop, listener, settings }
    }

    /// A client of this address, handed to the worker.
    async fn client(&self, peer: &str) -> std::net::TcpStream {
        let Endpoint::Tcp(address) = self.listener.address().unwrap() else { panic!("a port") };
        let stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let arrival = self.listener.accept().await.unwrap();
        let (local, descriptor) = (arrival.local.clone(), self.shared.descriptors.try_take().unwrap());
        let peer = Endpoint::Tcp(peer.parse().unwrap());
        let client = self.shared.clients.join(peer, local, self.settings.clone());
        self.worker.welcome(arrival.detach().unwrap(), client, descriptor);
        stream
    }

    /// What a client of this address is told that says PING, and QUIT, to the end.
    async fn told(&self, peer: &str) -> String {
        let mut stream = self.client(peer).await;
        let exchange = move || {
            // A client that is refused may be so before it has said anything.
            let _ = stream.write_all(b"PING\r\nQUIT\r\n");
            let mut said = String::new();
            let _ = stream.read_to_string(&mut said);
            said
        };
        tokio::task::spawn_blocking(exchange).await.unwrap()
    }

    /// Waits until nobody is served any more.
    async fn is_empty(&self) {
        let served = || self.worker.sessions.load(Relaxed) + self.shared.clients.count();
        eventually("nobody is served", || served() == 0).await;
    }
}

#[tokio::test]
async fn a_client_is_counted_while_it_is_served_however_it_leaves() {
    let serving = Serving::new(&[]);
    assert_eq!(serving.told("127.0.0.1:1").await, "+PONG\r\n+OK\r\n");
    serving.is_empty().await;
    let stream = serving.client("127.0.0.1:1").await;
    assert_eq!((serving.worker.load(), serving.shared.clients.count()), (1, 1));
    drop(stream);
    serving.is_empty().await;
    serving.worker.publisher().ask().await.unwrap();
    let left = serving.shared.metrics.render();
    assert!(left.contains("slotway_client_disconnects_total{reason=\"quit\"} 1"), "{left}");
    assert!(left.contains("slotway_client_disconnects_total{reason=\"eof\"} 1"), "{left}");
    assert!(left.contains("slotway_client_connections 0"), "{left}");
    serving.stop.cancel();
    serving.worker.join();
}

#[tokio::test]
async fn protected_mode_is_for_others_than_this_machine_and_may_change() {
    let open = [("listen", "0.0.0.0:6380"), ("protected_mode", "true"), ("allow_insecure_bind", "true")];
    let serving = Serving::new(&open[..2]);
    for (peer, is_served) in
        [("127.0.0.1:1", true), ("10.1.2.3:1", false), ("[::1]:1", true), ("[2001:db8::1]:1", false)]
    {
        let told = serving.told(peer).await;
        assert_eq!(told == "+PONG\r\n+OK\r\n", is_served, "{peer}: {told}");
        assert_eq!(told.starts_with("-DENIED "), !is_served, "{peer}: {told}");
    }
    let mut now = open;
    now[1].1 = "false";
    serving.worker.adopt(Arc::new(config(&now))).await.unwrap();
    assert_eq!(serving.told("10.1.2.3:1").await, "+PONG\r\n+OK\r\n");
    serving.is_empty().await;
}

#[tokio::test]
async fn a_worker_that_has_ended_takes_nobody_and_says_so() {
    let serving = Serving::new(&[]);
    assert_eq!(serving.told("127.0.0.1:1").await, "+PONG\r\n+OK\r\n");
    let served = serving.client("127.0.0.1:1").await;
    serving.stop.cancel();
    eventually("it has ended", || serving.worker.load() == usize::MAX).await;
    let late = serving.client("127.0.0.1:1").await;
    for mut stream in [served, late] {
        let closed = tokio::task::spawn_blocking(move || stream.read(&mut [0; 1])).await.unwrap();
        let is_open = closed.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!is_open && !matches!(closed, Ok(1)), "{closed:?}");
    }
    serving.is_empty().await;
    assert!(serving.worker.adopt(serving.shared.config.clone()).await.is_err());
    assert!(serving.worker.publisher().ask().await.is_err());
    serving.worker.join();
}

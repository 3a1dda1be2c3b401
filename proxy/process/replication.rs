//! Asks nodes how far they have come, again and again, where clients read from replicas.
//!
//! Each node has a task of its own, so that one that does not answer makes no other look late. Nobody is asked before a
//! client wants to read from replicas.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{
        replication::{CaughtUp, Looks, Progress, Replication, Said},
        topology::{Node, Topology},
    },
    protocol::resp::Value,
    upstream::dial::{Control, Dialer, Login},
};

/// Time between two questions to a node.
const EVERY: Duration = Duration::from_millis(200);
/// How long a node may take to answer. One that takes longer is not read from.
const PATIENCE: Duration = Duration::from_millis(500);

/// The task that keeps [`Replication`] up to date.
pub struct Following {
    /// How nodes are connected to.
    pub dialer: Dialer,
    /// As whom the proxy logs in.
    pub login: Login,
    /// The nodes.
    pub topology: watch::Receiver<Arc<Topology>>,
    /// Whether any client reads from replicas.
    pub wanted: watch::Receiver<bool>,
    /// Where the findings are published.
    pub publisher: watch::Sender<Arc<Replication>>,
}

impl Following {
    /// Asks until cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let ended = stop.clone();
        tokio::select! {
            () = ended.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        if self.wanted.wait_for(|wanted| *wanted).await.is_err() {
            return;
        }
        loop {
            let topology = self.topology.borrow_and_update().clone();
            // What was known is of another layout: a node may follow another primary by now.
            self.publisher.send_replace(Arc::default());
            let mut asking = JoinSet::new();
            for primary in topology.primaries().filter(|primary| topology.replicas(primary).next().is_some()) {
                let looks = Arc::new(Mutex::new(Looks::default()));
                for node in [primary].into_iter().chain(topology.replicas(primary)) {
                    asking.spawn(self.question(node.clone()).ask_for_ever(looks.clone()));
                }
            }
            if self.topology.changed().await.is_err() {
                return;
            }
        }
    }

    fn question(&self, node: Arc<Node>) -> Question {
        let dialer = self.dialer.within(PATIENCE);
        let (login, publisher) = (self.login.at(&node), self.publisher.clone());
        Question { id: node.id.as_str().into(), node, dialer, login, publisher, control: None }
    }
}

/// What one node is asked.
struct Question {
    id: Arc<str>,
    node: Arc<Node>,
    dialer: Dialer,
    login: Login,
    publisher: watch::Sender<Arc<Replication>>,
    control: Option<Control>,
}

impl Question {
    async fn ask_for_ever(mut self, looks: Arc<Mutex<Looks>>) {
        loop {
            let at = Instant::now();
            let caught_up = self.ask(at, &looks).await;
            let round_trip = at.elapsed();
            self.publish(Progress { caught_up, round_trip });
            let next = sleep(EVERY);
            if let Some(control) = &mut self.control
                && timeout(EVERY, control.is_gone()).await.is_ok()
            {
                // It may be back in a moment, with what its file has: it is not read from until it has been asked again.
                self.control = None;
                self.publish(Progress { caught_up: CaughtUp::No, round_trip });
            }
            next.await;
        }
    }

    fn publish(&self, progress: Progress) {
        self.publisher.send_modify(|known| Arc::make_mut(known).note(&self.id, progress));
    }

    async fn ask(&mut self, at: Instant, looks: &Mutex<Looks>) -> CaughtUp {
        let looks = || looks.lock().unwrap_or_else(PoisonError::into_inner);
        match self.info().await {
            Some(Value::Error(error)) if error.starts_with(b"NOPERM") => match self.node.replicates {
                Some(_) => CaughtUp::Unproven,
                None => CaughtUp::No,
            },
            Some(said) => match said.str().and_then(Said::parse) {
                Some(said) if said.follows.is_some() => looks().caught_up(&said),
                Some(said) => {
                    looks().add(at, &said);
                    CaughtUp::With(at)
                }
                None => CaughtUp::No,
            },
            None => CaughtUp::No,
        }
    }

    /// INFO replication; `None` where the node does not answer.
    async fn info(&mut self) -> Option<Value> {
        let mut control = match self.control.take() {
            Some(control) => control,
            None => Control::open(&self.node.reach, &self.login, &self.dialer).await.ok()?,
        };
        let said = control.ask(&["INFO", "replication"]).await.ok()?;
        self.control = Some(control);
        Some(said)
    }
}

//! Stub until the real one lands.
#![allow(missing_docs)]
use crate::{
    config::Config,
    dial::{Control, Limits, Login},
    metrics::Metrics,
    topology::{AddressMap, Hint, Topology},
};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
pub struct Discovery {
    seeds: Vec<crate::address::Address>,
    publisher: watch::Sender<Arc<Topology>>,
    hints: mpsc::Receiver<Hint>,
}
impl Discovery {
    pub fn new(
        config: &Config,
        publisher: watch::Sender<Arc<Topology>>,
        hints: mpsc::Receiver<Hint>,
        _: Metrics,
    ) -> Discovery {
        Discovery { seeds: config.seeds.clone(), publisher, hints }
    }
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            for seed in &self.seeds {
                if let Ok(mut control) = Control::open(seed, &Login::default(), &Limits::default()).await
                    && let Ok(slots) = control.ask(&["CLUSTER", "SLOTS"]).await
                    && let Ok(mut topology) = Topology::from_slots(&slots, seed, Arc::new(AddressMap::default()))
                {
                    let old = self.publisher.borrow().clone();
                    if old.slots != topology.slots {
                        topology.epoch = old.epoch + 1;
                        let _ = self.publisher.send(Arc::new(topology));
                    }
                    break;
                }
            }
            tokio::select! { _ = stop.cancelled() => return, _ = self.hints.recv() => {}, _ = tokio::time::sleep(std::time::Duration::from_millis(500)) => {} }
        }
    }
}

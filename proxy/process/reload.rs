//! Changing the configuration while clients are served: all of it that may change, or nothing.
//!
//! What a new value reaches: sessions and links by their worker ([`Worker::adopt`]), connections to nodes by the dialer, and
//! what the process has one of (users, limits, the log) from here. Nothing on the way of a request asks for changes.

use std::{rc::Rc, sync::Arc};

use tokio::sync::{mpsc, watch};
use tracing_subscriber::filter::Targets;

use super::{
    certificates::Certificates,
    passwords::Passwords,
    server::{Acceptor, Listeners, Open, Prepared, Shared},
    watched,
    worker::Worker,
};
use crate::{
    clients::{Order, users::Adopted},
    config::{Config, Sources},
    metrics::events::EventKind,
    upstream::{
        dial::{Control, Credentials, DialStep, Login},
        router::{ReloadRequest, Reloads},
    },
};

/// Where the configuration is read from again, and how what lies outside the library follows it.
pub struct Rereading {
    /// Where values come from.
    pub sources: Sources,
    /// Sets the log's filter.
    pub set_log: Box<dyn Fn(&Targets) + Send>,
    /// Who asks for it: signals, and clients by PROXY RELOAD.
    pub reloads: Reloads,
    /// What they ask.
    pub requests: mpsc::Receiver<ReloadRequest>,
}

impl Rereading {
    /// From these sources.
    pub fn new(sources: Sources, set_log: Box<dyn Fn(&Targets) + Send>) -> Rereading {
        let (reloads, requests) = Reloads::channel();
        Rereading { sources, set_log, reloads, requests }
    }
}

/// What has a new configuration reach all that goes by it.
pub(super) struct Reloader<'a> {
    pub(super) rereading: Rereading,
    /// The configuration in force.
    pub(super) config: &'a watch::Sender<Arc<Config>>,
    pub(super) certificates: Certificates,
    pub(super) passwords: Passwords,
    pub(super) workers: &'a [Worker],
    pub(super) listeners: &'a Listeners,
    pub(super) acceptor: &'a Acceptor<'a>,
    pub(super) shared: &'a Shared,
}

impl Reloader<'_> {
    /// Reloads whenever somebody asks, and takes certificates and passwords whose files have changed. Never ends.
    pub(super) async fn run(mut self) {
        self.certificates.announce(&self.shared.metrics);
        loop {
            tokio::select! {
                Some(request) = self.rereading.requests.recv() => {
                    let report = self.reload().await;
                    match &report {
                        Ok(lines) => self.shared.metrics.events().info(EventKind::Process, format!("reloaded: {}", lines.join("; "))),
                        Err(why) => tracing::warn!("the new configuration is not taken, the old one serves on: {why}"),
                    }
                    // Who asked may have gone.
                    let _ = request.send(report);
                }
                () = tokio::time::sleep(watched::LOOK) => {
                    self.certificates.look(&self.shared.metrics);
                    self.passwords.look();
                }
            }
        }
    }

    async fn reload(&mut self) -> Result<Vec<String>, String> {
        let before = self.config.borrow().clone();
        let new = before.reload(&self.rereading.sources).map_err(|error| error.to_string())?;
        if before.password != new.config.password {
            self.try_password(&new.config).await?;
        }
        let listeners = self.listeners.prepare(&new.config).map_err(|error| error.to_string())?;
        // Last of what may fail: files that have been read count as known, and are looked at only when they change again.
        let certificates = self.certificates.read_again(&self.shared.metrics)?;
        // From here on nothing fails.
        let config = Arc::new(new.config);
        // Closed before anything changes, and opened after everything has: nobody is served by rules that are not for the place
        // where the connection was made.
        let closed = self.close_others(&listeners).await;
        self.shared.dialer.adopt(&config);
        self.shared.descriptors.want(config.max_clients);
        self.shared.clients.set_most_buffered(config.max_buffered);
        let Adopted { gone, with_fewer_channels } = self.shared.users.adopt(&config);
        for client in self.shared.clients.all() {
            let is_of = |names: &[Box<str>]| names.iter().any(|name| *client.about().user == **name);
            if is_of(&gone) || client.is_subscribed() && is_of(&with_fewer_channels) {
                client.tell(Order::Drain);
            }
        }
        self.passwords = Passwords::of(&config, &self.shared.users);
        if new.taken.iter().any(|key| key == "log") {
            (self.rereading.set_log)(&config.log);
        }
        let adopting: Vec<_> = self.workers.iter().map(|worker| worker.adopt(config.clone())).collect();
        for adopted in adopting {
            // A worker that has ended serves nobody.
            let _ = adopted.await;
        }
        self.listeners.adopt(listeners);
        self.config.send_replace(config);
        let mut report = new.report;
        report.extend(closed);
        report.extend(self.certificates.take(certificates, &self.shared.metrics));
        if report.is_empty() {
            report.push("nothing has changed".to_owned());
        }
        Ok(report)
    }

    /// Closes the listeners that are not among these. Who has come by one of them has what is under way answered, and has to go.
    /// A line for each that is closed.
    async fn close_others(&self, listeners: &Prepared) -> Vec<String> {
        let closed = self.listeners.close_others(listeners);
        self.acceptor.accept_rest(&closed).await;
        let all = self.shared.clients.all();
        let close = |open: Rc<Open>| {
            let theirs: Vec<_> = all.iter().filter(|client| client.listener.number == open.number()).collect();
            theirs.iter().for_each(|client| client.tell(Order::Drain));
            format!("{} is closed, and {} clients who came by it", open.address(), theirs.len())
        };
        closed.into_iter().map(close).collect()
    }

    /// Asks a node whether it lets the proxy in by a new password: else every connection that is made from now on would fail.
    async fn try_password(&self, config: &Config) -> Result<(), String> {
        // Said as it is, whatever has been in force before.
        let login = Login { credentials: Credentials::of(config), is_said: true, ..Login::default() };
        for seed in config.seeds.iter() {
            match Control::open(seed, &login, &self.shared.dialer).await {
                Ok(_) => return Ok(()),
                Err(error) if error.step == DialStep::Login && error.permanent => {
                    return Err(format!("`password`: {seed} does not take it: {}", error.why));
                }
                // Another may answer.
                Err(_) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

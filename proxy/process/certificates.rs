//! The certificates in force: read here, handed to whoever secures connections, and read again when their files change.
//!
//! Connections keep what they were made with; those that are made afterwards get the new. What is wrong with new files is
//! said, and the old ones serve on.

use std::{sync::Arc, time::SystemTime};

use tokio::sync::watch;

use super::watched::Watched;
use crate::{
    cluster::topology::Topology,
    config::{Config, TlsFile},
    metrics::{Metrics, Side},
    process::server::ServeError,
    upstream::transport::tls::{
        files::FileError,
        for_clients::{ForClients, Served},
        to_nodes::{ToNodes, Trusted},
    },
};

/// When it is time to get another certificate, as the alert in `deploy/` has it.
const FEW_DAYS: u64 = 14;
/// All certificates in force; the process has one.
pub struct Certificates {
    clients: Option<Reloadable<Served>>,
    nodes: Option<Reloadable<Trusted>>,
}

impl Certificates {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// A file is not named, is missing, or of no use.
    pub fn load(config: &Config) -> Result<Certificates, ServeError> {
        let (clients, nodes) = (Certificates::for_clients_only(config)?, Certificates::for_nodes_only(config)?);
        Ok(Certificates { clients: clients.clients, nodes: nodes.nodes })
    }

    /// Reads what clients are shown.
    ///
    /// # Errors
    /// As [`Certificates::load`].
    pub fn for_clients_only(config: &Config) -> Result<Certificates, ServeError> {
        let clients = config.client_tls()?.map(|settings| {
            let files = settings.files();
            Reloadable::new(files, Side::Clients, move || {
                Served::load(&settings).map(|new| (Some(new.valid_until), new))
            })
        });
        Ok(Certificates { clients: clients.transpose()?, nodes: None })
    }

    /// Reads what nodes are shown, and judged by.
    ///
    /// # Errors
    /// As [`Certificates::load`].
    pub fn for_nodes_only(config: &Config) -> Result<Certificates, ServeError> {
        let nodes = config.node_tls()?.map(|settings| {
            let files = settings.files();
            Reloadable::new(files, Side::Nodes, move || Trusted::load(&settings).map(|new| (new.valid_until, new)))
        });
        Ok(Certificates { clients: None, nodes: nodes.transpose()? })
    }

    /// How connections of clients are secured, where any are.
    pub fn for_clients(&self) -> Option<ForClients> {
        self.clients.as_ref().map(|kept| ForClients::new(kept.in_force.subscribe()))
    }

    /// How connections to nodes are secured, where they are; `topology` tells their names.
    pub fn to_nodes(&self, topology: Option<&watch::Receiver<Arc<Topology>>>) -> Option<ToNodes> {
        self.nodes.as_ref().map(|kept| ToNodes::new(kept.in_force.subscribe(), topology.cloned()))
    }

    /// Who is shown a certificate, and until when it is valid.
    pub fn ends(&self) -> Vec<(Side, SystemTime)> {
        let clients = self.clients.as_ref().and_then(|kept| Some((kept.side, kept.valid_until?)));
        let nodes = self.nodes.as_ref().and_then(|kept| Some((kept.side, kept.valid_until?)));
        clients.into_iter().chain(nodes).collect()
    }

    /// Shows the certificates in force in the metrics, and logs one that has ended.
    pub fn announce(&self, metrics: &Metrics) {
        if let Some(kept) = &self.clients {
            kept.announce(metrics);
        }
        if let Some(kept) = &self.nodes {
            kept.announce(metrics);
        }
    }

    /// Reads files that have changed, and puts them into force where they are of use.
    pub fn look(&mut self, metrics: &Metrics) {
        if let Some(kept) = &mut self.clients {
            kept.look(metrics);
        }
        if let Some(kept) = &mut self.nodes {
            kept.look(metrics);
        }
    }

    /// Reads all of it again; nothing is taken before [`Certificates::take`].
    ///
    /// # Errors
    /// Some of it is of no use, which has been counted.
    pub fn read_again(&mut self, metrics: &Metrics) -> Result<ReadAgain, String> {
        Ok(ReadAgain {
            clients: self.clients.as_mut().map(|kept| kept.read_again(metrics)).transpose()?,
            nodes: self.nodes.as_mut().map(|kept| kept.read_again(metrics)).transpose()?,
        })
    }

    /// Puts what has been read into force; a line for each that says so.
    pub fn take(&mut self, new: ReadAgain, metrics: &Metrics) -> Vec<String> {
        let clients = self.clients.as_mut().zip(new.clients).map(|(kept, new)| kept.take(new, metrics));
        let nodes = self.nodes.as_mut().zip(new.nodes).map(|(kept, new)| kept.take(new, metrics));
        clients.into_iter().chain(nodes).collect()
    }
}

/// All certificates, read again and not yet taken.
pub struct ReadAgain {
    clients: Option<Loaded<Served>>,
    nodes: Option<Loaded<Trusted>>,
}

/// What is read, and until when it is valid.
type Loaded<T> = (Option<SystemTime>, T);

/// Something that is made of files, and made anew when they change.
struct Reloadable<T> {
    load: Box<dyn Fn() -> Result<Loaded<T>, FileError> + Send>,
    files: Watched,
    side: Side,
    in_force: watch::Sender<Arc<T>>,
    valid_until: Option<SystemTime>,
}

impl<T> Reloadable<T> {
    fn new(
        files: Vec<TlsFile>,
        side: Side,
        load: impl Fn() -> Result<Loaded<T>, FileError> + Send + 'static,
    ) -> Result<Reloadable<T>, FileError> {
        let files = Watched::new(files.into_iter().map(|file| file.path).collect());
        let (valid_until, made) = load()?;
        let in_force = watch::Sender::new(Arc::new(made));
        Ok(Reloadable { load: Box::new(load), files, side, in_force, valid_until })
    }

    fn announce(&self, metrics: &Metrics) {
        metrics.certificate(self.side, self.valid_until);
        if let Some(until) = self.valid_until
            && until < SystemTime::now()
        {
            tracing::error!("the certificate for {} is valid no more: it ended on {}", self.side.label(), day(until));
        }
    }

    fn look(&mut self, metrics: &Metrics) {
        if !self.files.are_due(false) {
            return;
        }
        match self.read(metrics) {
            Ok(new) => tracing::info!("{}", self.take(new, metrics)),
            Err(why) => tracing::warn!("{why}"),
        }
    }

    fn read_again(&mut self, metrics: &Metrics) -> Result<Loaded<T>, String> {
        self.files.are_due(true);
        self.read(metrics)
    }

    fn read(&self, metrics: &Metrics) -> Result<Loaded<T>, String> {
        let why = match (self.load)() {
            Ok((Some(until), _)) if until < SystemTime::now() => format!("the certificate ended on {}", day(until)),
            Ok(new) => return Ok(new),
            Err(why) => why.to_string(),
        };
        metrics.certificate_refused(self.side);
        Err(format!("the new TLS files for {} are not taken, the old ones serve on: {why}", self.side.label()))
    }

    /// Puts what has been read into force; the line that says so.
    fn take(&mut self, (until, made): Loaded<T>, metrics: &Metrics) -> String {
        self.in_force.send_replace(Arc::new(made));
        self.valid_until = until;
        metrics.certificate(self.side, until);
        let until = until.map_or_else(String::new, |until| format!(", valid until {}", day(until)));
        format!("the TLS files for {} have been read again{until}", self.side.label())
    }
}

/// How long a certificate is still valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Valid for so many days.
    Days(u64),
    /// Valid for so many days only: time to get another.
    FewDays(u64),
    /// The certificate has ended.
    Over,
}

impl Validity {
    /// The validity at `now` of a certificate that ends at `until`.
    pub fn of(until: SystemTime, now: SystemTime) -> Validity {
        match until.duration_since(now).map(|left| left.as_secs() / (24 * 3600)) {
            Err(_) => Validity::Over,
            Ok(days @ ..FEW_DAYS) => Validity::FewDays(days),
            Ok(days) => Validity::Days(days),
        }
    }
}

/// A time as a day, in UTC.
pub fn day(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string().chars().take("2026-11-29".len()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_certificate_is_replaced_in_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let day = Duration::from_secs(24 * 3600);
        for (until, validity) in [
            (now - day, Validity::Over),
            (now + day / 2, Validity::FewDays(0)),
            (now + day * 14 - Duration::from_secs(1), Validity::FewDays(13)),
            (now + day * 14, Validity::Days(14)),
        ] {
            assert_eq!(Validity::of(until, now), validity);
        }
    }
}

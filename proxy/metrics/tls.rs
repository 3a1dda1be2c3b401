//! Certificates in force.

use std::time::SystemTime;

use super::{Registry, labels::labels, names, readable::unix_time, series::Level};

labels! {
    /// To whom a certificate is shown.
    Side {
        /// To clients, and to visitors of the admin port.
        Clients = "clients",
        /// To nodes that ask for one.
        Nodes = "nodes",
    }
}

/// When certificates end, and whether newer ones are refused.
pub(super) struct TlsSeries {
    expiry: [Level; Side::ALL.len()],
    refused: [Level; Side::ALL.len()],
}

impl TlsSeries {
    pub(super) fn new(registry: &Registry) -> TlsSeries {
        let of = |family| Side::ALL.map(|side| Level::new(registry.gauge(family, &[("side", side.label())])));
        TlsSeries { expiry: of(&names::CERTIFICATE_EXPIRY), refused: of(&names::CERTIFICATE_REFUSED) }
    }

    pub(super) fn in_force(&self, side: Side, until: Option<SystemTime>) {
        let until = until.map(unix_time).unwrap_or_default();
        self.expiry[side as usize].set(i64::try_from(until.as_secs()).unwrap_or(i64::MAX));
        self.refused[side as usize].set(0);
    }

    pub(super) fn refused(&self, side: Side) {
        self.refused[side as usize].set(1);
    }

    /// Has the series show the present values.
    pub(super) fn show(&self) {
        self.expiry.iter().chain(&self.refused).for_each(Level::show);
    }
}

//! A node that has become another under the connections that lead to it.
//!
//! Who dials is told who answers (CLUSTER MYID). But CLUSTER RESET closes no connection, nor does joining another cluster: what
//! is open would go on, and run one cluster's requests at the other. So whoever is met in the place of another is asked to
//! close what this process has open there (CLIENT KILL), whatever it is for; who dials again then finds out.

use super::{Discovery, Done};
use crate::{
    metrics::events::EventKind,
    protocol::{address::Address, names::Name, resp::Value},
    upstream::dial::{Control, DialError, Dialer, Login},
};

/// Has the server at `address` close all connections of this process but the one that asks; says how many they were.
///
/// # Errors
/// The server cannot be asked.
pub async fn close_ours(address: Address, login: Login, dialer: Dialer) -> Result<usize, DialError> {
    let mut control = Control::open(&address, &login, &dialer).await?;
    let replies = control.ask_all(&["CLIENT ID", "CLIENT LIST"]).await?;
    let own = replies.first().and_then(Value::integer);
    let list = replies.get(1).and_then(Value::str).unwrap_or_default();
    let is_other = |(id, at): &(i64, &str)| Some(*id) != own && dialer.is_own(at);
    let kills: Vec<String> =
        list.lines().filter_map(client).filter(is_other).map(|(id, _)| format!("CLIENT KILL ID {id}")).collect();
    control.ask_all(&kills.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    Ok(kills.len())
}

/// The id and the address of a client, by its line of CLIENT LIST.
fn client(line: &str) -> Option<(i64, &str)> {
    let field = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name));
    Some((field("id=")?.parse().ok()?, field("addr=")?))
}

impl Discovery {
    /// The node with this id has been met there: where another is known to be in that place, what is open may not go on.
    pub(super) fn met_at(&mut self, address: &Address, id: &str) {
        let Some(meant) = self.known_cluster.supplanted_at(address, id) else {
            self.supplanted.remove(address);
            return;
        };
        let meant = self.current().node(&meant).map_or(meant, |node| node.label.to_string());
        if self.supplanted.insert(address.clone(), id.to_owned()).as_deref() == Some(id) {
            return;
        }
        let text = Name::NodeUnreachable.on(format!(
            "at {address}, where node {meant} was reached, there is another node now ({id}): what is open to it is closed"
        ));
        self.metrics.events().warn(EventKind::NodeLost, text);
        self.known_cluster.doubt_at(address);
        let (at, closing) = (address.clone(), close_ours(address.clone(), self.login.clone(), self.dialer.clone()));
        self.jobs.spawn(async move { Done::Closed(at, closing.await) });
    }

    /// What was open to a node that is another now has been closed, or could not be: then that is tried again.
    pub(super) fn closed_at(&mut self, address: &Address, closed: Result<usize, DialError>) {
        match closed {
            Ok(count) => tracing::debug!("{count} connections to {address} are closed"),
            Err(why) => {
                tracing::debug!("connections to {address} cannot be closed: {why}");
                self.supplanted.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_read_from_client_list() {
        let line = "id=7 addr=127.0.0.1:5000 laddr=127.0.0.1:7000 fd=8 name= age=1";
        assert_eq!(client(line), Some((7, "127.0.0.1:5000")));
        assert_eq!(client(""), None);
    }
}

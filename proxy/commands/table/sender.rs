//! Who makes nodes run a command: a column of its row. What nodes tell of what they have run (MONITOR, SLOWLOG, INFO
//! commandstats, LATENCY HISTOGRAM) mixes what clients did with the proxy's own housekeeping; the column says which is
//! which.

use super::{
    Flags,
    spec::Spec,
    treatment::{Local, Scripting, Treatment},
};

/// Who makes nodes run a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sender {
    /// Clients alone, and each call of theirs is one call at one node; their scripts call it too.
    #[default]
    Clients,
    /// Clients alone, but one call of a client's may be several at nodes, one for each slot of its keys.
    ClientsInParts,
    /// Clients and the proxy: a node gets it from all clients' connections and in the proxy's own interest, or all nodes
    /// get it for one call. Only the proxy knows how often clients have asked for it.
    Both,
    /// The proxy alone: it answers clients itself.
    Proxy,
}

/// The column of a row.
pub fn of(spec: &Spec) -> Sender {
    match spec.treatment {
        Treatment::Split(_) => Sender::ClientsInParts,
        Treatment::Keyed if spec.has_keys() || may_be_scripted(spec) => Sender::Clients,
        Treatment::Blocking(_) | Treatment::BlockingStreams | Treatment::SlotNumber | Treatment::PubSub => {
            Sender::Clients
        }
        Treatment::Scripting(Scripting::Fcall) => Sender::Clients,
        // These go to a node in the client's name, sooner or later.
        Treatment::Local(Local::Multi | Local::Exec | Local::Discard | Local::Watch) => Sender::Both,
        Treatment::Local(Local::Subscribe | Local::Psubscribe | Local::Ssubscribe) => Sender::Both,
        Treatment::Local(_) | Treatment::ClusterView(_) => Sender::Proxy,
        Treatment::Keyed | Treatment::Primaries(_) | Treatment::KeysPattern | Treatment::Scan => Sender::Both,
        Treatment::ConfigSet | Treatment::Debug | Treatment::Scripting(_) | Treatment::OutOfBand(_) => Sender::Both,
        Treatment::AnyRewritten(_) | Treatment::AclLog => Sender::Both,
    }
}

/// Whether it needs no keys and may well be a script's doing: TIME, but not what servers are asked about themselves.
fn may_be_scripted(spec: &Spec) -> bool {
    let is_about_commands = spec.name.split('|').next() == Some("command");
    !spec.flags.has(Flags::NOSCRIPT) && !is_about_commands
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::table::CommandTable;

    #[test]
    fn what_the_proxy_sends_itself_is_not_taken_for_clients_doing() {
        let table = CommandTable::builtin();
        for (sender, names) in [
            (Sender::Clients, "get set blpop xread publish fcall time lolwut object|encoding memory|usage spublish"),
            (Sender::ClientsInParts, "mget mset del unlink exists touch"),
            (
                Sender::Both,
                "multi exec watch subscribe eval evalsha script|load script|exists function|load config|get",
            ),
            (Sender::Both, "config|set info slowlog|get dbsize keys scan flushall command command|getkeys acl|dryrun"),
            (Sender::Both, "randomkey function|restore function|dump function|list latency|reset module|list"),
            (Sender::Proxy, "ping echo hello auth select client|id client|no-evict client|list cluster|myid readonly"),
            (Sender::Proxy, "cluster|slots cluster|nodes cluster|info asking unwatch acl|whoami wait"),
        ] {
            for name in names.split(' ') {
                let (command, sub) = name.split_once('|').unwrap_or((name, ""));
                let spec = table.named(command.as_bytes(), sub.as_bytes()).expect(name);
                assert_eq!(spec.sender, sender, "{name}");
            }
        }
    }
}

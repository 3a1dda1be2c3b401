//! What clients did, where nodes tell what they ran: nodes' counts mix that with the proxy's own housekeeping, with parts of
//! one call and with one call for all of them. Each command's row says who makes nodes run it ([`Sender`]).
//!
//! A command of which only the proxy knows how often clients asked for it is told with the proxy's own count; what a call of
//! it takes is what it took at nodes on the average, or the least there is where no node has run it.

use std::{collections::BTreeSet, rc::Rc, sync::Arc};

use crate::{
    commands::table::{CommandTable, Spec, sender::Sender},
    metrics::Metrics,
};

/// Tells whether an address, as nodes know it, is that of a connection of the proxy's.
pub type IsOwn = Rc<dyn Fn(&str) -> bool>;

/// Who knows what clients did.
#[derive(Clone)]
pub struct Ledger {
    /// The rows of all commands.
    pub commands: Arc<CommandTable>,
    /// What clients have asked this proxy for.
    pub metrics: Metrics,
    /// The commands that it is about, as the client names them; none: all.
    pub only: Vec<String>,
    /// Which connections are the proxy's; none where nobody can tell.
    pub own: Option<IsOwn>,
}

/// Calls of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Carried out, well or with an error.
    pub calls: u64,
    /// Not carried out.
    pub rejected: u64,
    /// Carried out with an error.
    pub failed: u64,
}

impl Ledger {
    /// What clients did of a command of which nodes tell `told`; `None` where that is nothing.
    pub fn calls(&self, name: &str, told: Calls) -> Option<Calls> {
        let Some(spec) = self.row(name) else { return Some(told) };
        let asked = self.metrics.asked(spec.metric);
        let calls = match spec.sender {
            Sender::Clients => told.calls,
            Sender::ClientsInParts => {
                // What a node has forgotten, since it was restarted, is not taken off.
                let known = asked.answered.saturating_sub(asked.rejected);
                told.calls.saturating_sub(asked.surplus).max(known.min(told.calls))
            }
            Sender::Both | Sender::Proxy => return own(spec, &self.metrics),
        };
        Some(Calls { calls, rejected: told.rejected + asked.rejected, failed: told.failed.min(calls) })
    }

    /// What clients did of commands that nodes do not tell of.
    pub fn others(&self, told: &BTreeSet<&str>) -> Vec<(&str, Calls)> {
        let rows = self.commands.rows().iter().filter(|spec| self.is_about(&spec.name) && !told.contains(&*spec.name));
        rows.filter_map(|spec| Some((&*spec.name, own(spec, &self.metrics)?))).collect()
    }

    /// Whether nodes run as much of a command as clients ask for, or in parts.
    pub fn is_told_by_nodes(&self, name: &str) -> bool {
        self.row(name).is_none_or(|spec| matches!(spec.sender, Sender::Clients | Sender::ClientsInParts))
    }

    /// Whether nodes know a connection of the proxy's by this address.
    pub fn is_own(&self, address: &[u8]) -> bool {
        let address = std::str::from_utf8(address).unwrap_or_default();
        self.own.as_ref().is_some_and(|is_own| is_own(address))
    }

    /// The row of a command or subcommand by its words.
    pub fn row_of(&self, words: &[&[u8]]) -> Option<&Spec> {
        let name = words.first()?;
        let spec = self.commands.named(name, b"")?;
        let sub = words.get(1).filter(|_| spec.container);
        sub.and_then(|sub| self.commands.named(name, sub)).or(Some(spec))
    }

    fn row(&self, name: &str) -> Option<&Spec> {
        let (name, sub) = name.split_once('|').unwrap_or((name, ""));
        self.commands.named(name.as_bytes(), sub.as_bytes())
    }

    fn is_about(&self, name: &str) -> bool {
        let is = |only: &String| {
            only.eq_ignore_ascii_case(name)
                || name.split_once('|').is_some_and(|(container, _)| only.eq_ignore_ascii_case(container))
        };
        self.only.is_empty() || self.only.iter().any(is)
    }
}

/// What clients have asked the proxy for, of what only it knows.
fn own(spec: &Spec, metrics: &Metrics) -> Option<Calls> {
    let asked = metrics.asked(spec.metric);
    let rejected = asked.rejected;
    // Whether a container's subcommand is known is asked before anything is counted; of a server's own the proxy's are none.
    if spec.is_own() {
        return None;
    }
    let counted = match spec.sender {
        Sender::Both | Sender::Proxy if !spec.container => {
            let calls = asked.answered.saturating_sub(rejected + asked.surplus);
            Calls { calls, rejected, failed: asked.failed.saturating_sub(rejected) }
        }
        Sender::Both | Sender::Proxy | Sender::Clients | Sender::ClientsInParts => {
            Calls { calls: 0, rejected, failed: 0 }
        }
    };
    (counted != Calls::default()).then_some(counted)
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("only", &self.only).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{ClientTally, CommandClass, CommandId};

    fn account(count: impl FnOnce(&ClientTally)) -> Ledger {
        let metrics = Metrics::new();
        count(&metrics.client_tally());
        Ledger { commands: CommandTable::builtin(), metrics, only: Vec::new(), own: None }
    }

    fn answered(tally: &ClientTally, name: &str, failed: bool) {
        tally.command(CommandId::of(name), CommandClass::Admin, failed, Duration::ZERO);
    }

    #[test]
    fn nodes_count_what_clients_alone_send() {
        let account = account(|tally| {
            answered(tally, "get", true);
            tally.rejected(CommandId::of("get"));
            (0..2).for_each(|_| answered(tally, "mget", false));
            tally.surplus(CommandId::of("mget"), 4);
            (0..3).for_each(|_| answered(tally, "ping", false));
            answered(tally, "client", true);
            answered(tally, "config|set", true);
            tally.rejected(CommandId::of("config|set"));
        });
        let calls = |calls, rejected, failed| Calls { calls, rejected, failed };
        for (name, told, then) in [
            // Scripts call it, too.
            ("get", calls(9, 1, 2), Some(calls(9, 2, 2))),
            ("mget", calls(8, 0, 0), Some(calls(4, 0, 0))),
            // Nodes have been restarted.
            ("mget", calls(3, 0, 0), Some(calls(2, 0, 0))),
            ("mget", calls(1, 0, 0), Some(calls(1, 0, 0))),
            ("ping", calls(99, 0, 0), Some(calls(3, 0, 0))),
            ("cluster|myid", calls(99, 0, 0), None),
            ("info", calls(99, 0, 0), None),
            ("config|set", calls(3, 3, 0), Some(calls(0, 1, 0))),
            ("client", calls(0, 1, 0), Some(calls(0, 1, 0))),
            ("of.a.module", calls(1, 2, 1), Some(calls(1, 2, 1))),
        ] {
            assert_eq!(account.calls(name, told), then, "{name}");
        }
        let others = account.others(&BTreeSet::from(["ping"]));
        assert_eq!(others, [("config|set", calls(0, 1, 0)), ("get", calls(0, 1, 0))]);
        let only = Ledger { only: vec!["CONFIG".to_owned()], ..account };
        assert_eq!(only.others(&BTreeSet::new()), [("config|set", calls(0, 1, 0))]);
    }
}

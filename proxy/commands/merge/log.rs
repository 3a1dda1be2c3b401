//! SLOWLOG and COMMANDLOG of all nodes as one log of what clients did.
//!
//! Nodes are asked for all that they have: some of it is the proxy's own, and what goes to every primary is in the log of
//! each.

use std::collections::HashMap;

use super::{
    account::Ledger,
    elements::{self, Elements},
};
use crate::{
    commands::table::{
        Treatment,
        sender::Sender,
        treatment::{MergeRule, Scripting},
    },
    protocol::{
        resp::{Value, write},
        says,
    },
};

/// How many seconds one command may take to come to all nodes.
const AT_ONCE: i64 = 1;

/// Appends the newest entries, so many at most.
pub fn newest(replies: &[Vec<u8>], count: usize, account: Option<&Ledger>, out: &mut Vec<u8>) -> Option<()> {
    let mut entries = entries(replies, account)?;
    entries.truncate(count);
    write::array(out, entries.len());
    entries.iter().for_each(|entry| out.extend_from_slice(entry.whole));
    Some(())
}

/// Appends how many there are.
pub fn length(replies: &[Vec<u8>], account: Option<&Ledger>, out: &mut Vec<u8>) -> Option<()> {
    write::integer(out, entries(replies, account)?.len() as i64);
    Some(())
}

struct LogEntry<'a> {
    whole: &'a [u8],
    node: usize,
    time: i64,
    /// How many younger ones of the same second its node has, seen from the oldest.
    place: usize,
    took: i64,
    words: &'a [u8],
    /// Every primary has one of its own.
    is_everywhere: bool,
}

/// All entries that are clients' doing, the newest first. Times are whole seconds: of one second, each node's entries keep
/// their order, and the oldest of all nodes are taken to be of one moment. So they are where they log what has gone to all
/// of them, such as SLOWLOG RESET.
fn entries<'a>(replies: &'a [Vec<u8>], account: Option<&Ledger>) -> Option<Vec<LogEntry<'a>>> {
    let mut all = Vec::new();
    for (node, reply) in replies.iter().enumerate() {
        let of_node = Elements::of(reply)?.map(|entry| read(entry, node, account)).collect::<Option<Vec<_>>>()?;
        let (mut second, mut place) = (None, 0);
        for mut entry in of_node.into_iter().rev().flatten() {
            place = if second == Some(entry.time) { place + 1 } else { 0 };
            second = Some(entry.time);
            entry.place = place;
            all.push(entry);
        }
    }
    all.sort_by_key(|entry| std::cmp::Reverse((entry.time, entry.place)));
    Some(once(all))
}

/// An entry; none where it is not a client's doing.
fn read<'a>(entry: &'a [u8], node: usize, account: Option<&Ledger>) -> Option<Option<LogEntry<'a>>> {
    let fields: Vec<&[u8]> = Elements::of(entry)?.collect();
    let number = |at: usize| elements::integer(fields.get(at)?);
    let whole = LogEntry {
        whole: entry,
        node,
        time: number(1)?,
        place: 0,
        took: number(2).unwrap_or(0),
        words: fields.get(3).copied().unwrap_or_default(),
        is_everywhere: false,
    };
    let Some(account) = account else { return Some(Some(whole)) };
    let text = |at: usize| fields.get(at).and_then(|field| Some(Value::parse(field).ok()??.0.text()?.to_vec()));
    let (address, name) = (text(4).unwrap_or_default(), text(5).unwrap_or_default());
    let words = Value::parse(whole.words).ok()??.0;
    let words: Vec<&[u8]> = words.items().iter().take(2).filter_map(Value::text).collect();
    let spec = account.row_of(&words);
    let is_scripts = address.starts_with(b"?");
    let is_clients = match spec {
        _ if name == says::NAME_AT_NODES.as_bytes() => false,
        Some(spec) if !is_scripts => match spec.sender {
            Sender::Clients | Sender::ClientsInParts => true,
            // It is how nodes are asked for their logs, and in no other interest.
            Sender::Both if matches!(spec.treatment, Treatment::Primaries(MergeRule::Newest(_))) => true,
            // Scripts are run for clients, also where these have said another command.
            Sender::Both if matches!(spec.treatment, Treatment::Scripting(Scripting::Eval | Scripting::Evalsha)) => {
                true
            }
            // On a connection of the proxy's, what no client has ever asked for is its own doing.
            Sender::Both => account.metrics.ever_asked(spec.metric).answered > 0 || !account.is_own(&address),
            Sender::Proxy => false,
        },
        _ => true,
    };
    let is_everywhere = !is_scripts && spec.is_some_and(|spec| spec.treatment.is_for_all());
    Some(is_clients.then_some(LogEntry { is_everywhere, ..whole }))
}

/// What has come to several nodes at once by one command is one entry: that of the node which took longest.
fn once(all: Vec<LogEntry<'_>>) -> Vec<LogEntry<'_>> {
    /// The nodes that have an entry of it, and which it is of those kept.
    struct Twin {
        kept: usize,
        time: i64,
        nodes: Vec<usize>,
    }
    let mut kept: Vec<LogEntry<'_>> = Vec::with_capacity(all.len());
    let mut twins: HashMap<&[u8], Vec<Twin>> = HashMap::new();
    for entry in all {
        if entry.is_everywhere {
            let twins = twins.entry(entry.words).or_default();
            let mut near = twins.iter_mut().rev().take_while(|twin| twin.time - entry.time <= AT_ONCE);
            // Of several that would do, the first is the one that this node has none of yet.
            if let Some(twin) = near.by_ref().filter(|twin| !twin.nodes.contains(&entry.node)).last() {
                twin.nodes.push(entry.node);
                if let Some(known) = kept.get_mut(twin.kept).filter(|known| known.took < entry.took) {
                    (known.whole, known.took) = (entry.whole, entry.took);
                }
                continue;
            }
            twins.push(Twin { kept: kept.len(), time: entry.time, nodes: vec![entry.node] });
        }
        kept.push(entry);
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::{rc::Rc, time::Duration};

    use super::*;
    use crate::{
        commands::table::CommandTable,
        metrics::{CommandClass, CommandId, Metrics},
    };

    fn entry(time: i64, took: i64, words: &str, address: &str, name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        write::array(&mut out, 6);
        [7, time, took].into_iter().for_each(|number| write::integer(&mut out, number));
        let words: Vec<&str> = words.split(' ').collect();
        write::array(&mut out, words.len());
        words.iter().for_each(|word| write::bulk(&mut out, word.as_bytes()));
        [address, name].into_iter().for_each(|text| write::bulk(&mut out, text.as_bytes()));
        out
    }

    fn log(entries: &[(i64, i64, &str, &str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        write::array(&mut out, entries.len());
        entries.iter().for_each(|(time, took, words, address, name)| {
            out.extend(entry(*time, *took, words, address, name));
        });
        out
    }

    #[test]
    fn the_log_is_of_what_clients_did() {
        let metrics = Metrics::new();
        let tally = metrics.client_tally();
        for name in ["slowlog|reset", "config|set", "config|get"] {
            tally.command(CommandId::of(name), CommandClass::Admin, false, Duration::ZERO);
        }
        let account = Ledger {
            commands: CommandTable::builtin(),
            metrics,
            only: Vec::new(),
            own: Some(Rc::new(|address: &str| address == "own:1")),
        };
        let logs = [
            log(&[
                (9, 1, "GET a", "own:1", ""),
                (9, 1, "ACL DRYRUN default get", "own:1", ""),
                (9, 1, "ACL DRYRUN direct get", "other:1", ""),
                (8, 1, "CONFIG GET cluster-databases", "own:2", "slotway"),
                (8, 3, "CONFIG SET a b", "own:1", ""),
                (5, 1, "CONFIG SET a b", "own:1", ""),
                (5, 1, "SLOWLOG RESET", "own:1", ""),
            ]),
            log(&[
                (9, 1, "CLUSTER MYID", "own:1", ""),
                (9, 1, "ping", "?:0", ""),
                (8, 9, "CONFIG SET a b", "own:1", ""),
                (5, 1, "CONFIG SET a b", "own:1", ""),
                (4, 1, "SLOWLOG RESET", "own:1", ""),
            ]),
        ];
        let mut out = Vec::new();
        newest(&logs, 100, Some(&account), &mut out).unwrap();
        let expected = log(&[
            (9, 1, "GET a", "own:1", ""),
            (9, 1, "ACL DRYRUN direct get", "other:1", ""),
            (9, 1, "ping", "?:0", ""),
            (8, 9, "CONFIG SET a b", "own:1", ""),
            (5, 1, "CONFIG SET a b", "own:1", ""),
            (5, 1, "SLOWLOG RESET", "own:1", ""),
        ]);
        assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&expected));
        let mut out = Vec::new();
        length(&logs, Some(&account), &mut out).unwrap();
        assert_eq!(out, b":6\r\n");
        let mut out = Vec::new();
        newest(&logs, 1, Some(&account), &mut out).unwrap();
        assert_eq!(out, log(&[(9, 1, "GET a", "own:1", "")]));
    }
}

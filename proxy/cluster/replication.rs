//! Which replica may answer a read: how far each has come, and what a client has to find there.
//!
//! A primary's offset, read at some moment, covers every write that it had answered by then. A replica whose own offset has
//! passed that has all of them: it has *caught up* with that moment. So one time says both how far a replica lags and
//! whether a client finds there what it has written itself.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    topology::{Node, Topology},
    zones::ZoneMap,
};
use crate::protocol::slot::Slot;

/// How many looks at a primary are remembered. A replica that is further behind has caught up with none of them.
const LOOKS: usize = 256;
/// A node counts as near where its answers take no longer than this times the nearest one's, and so much more.
const AS_NEAR: u32 = 2;
const NOISE: Duration = Duration::from_micros(200);

/// Who answers what only reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// Primaries alone.
    #[default]
    Primary,
    /// Replicas, where they are up to date; each client keeps to the same one.
    Replica,
    /// The nearest: of the same zone where there is one, then by the time that an answer takes.
    Nearest,
}

impl ReadFrom {
    /// The one of this name: `primary`, `replica` or `nearest`, in any case.
    pub fn named(name: &[u8]) -> Option<ReadFrom> {
        let all = [(ReadFrom::Primary, "primary"), (ReadFrom::Replica, "replica"), (ReadFrom::Nearest, "nearest")];
        all.into_iter().find(|(_, own)| own.as_bytes().eq_ignore_ascii_case(name)).map(|(from, _)| from)
    }
}

/// What an operator has decided about reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadPolicy {
    /// Where clients read from, unless they say otherwise.
    pub from: ReadFrom,
    /// How far a replica may lag.
    pub max_lag: Duration,
    /// How long a client reads from the primary what it may have written, where nobody can tell how far replicas are.
    pub unproven: Duration,
    /// The zone of the proxy.
    pub zone: Option<String>,
    /// The zones of nodes.
    pub zones: ZoneMap,
}

/// How far a node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaughtUp {
    /// The replica has all that its primary had answered by then.
    With(Instant),
    /// The replica follows its primary, and does not let the proxy's user ask how far.
    Unproven,
    /// The replica does not follow its primary now, or does not answer.
    No,
}

/// What is known of a node.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// How far it has come; a primary always has all.
    pub caught_up: CaughtUp,
    /// How long its last answer took.
    pub round_trip: Duration,
}

/// What is known of all nodes, by their ids.
#[derive(Clone, Debug, Default)]
pub struct Replication {
    nodes: HashMap<Arc<str>, Progress>,
}

/// A read, and what it must find.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// Its slot.
    pub slot: Slot,
    /// Where its client reads from.
    pub from: ReadFrom,
    /// When the last write that it may be about had been answered, where there was one.
    pub written: Option<Instant>,
    /// The present.
    pub now: Instant,
}

impl Replication {
    /// Takes note of a node.
    pub fn note(&mut self, id: &Arc<str>, progress: Progress) {
        self.nodes.insert(id.clone(), progress);
    }

    /// The node that answers a read, as an index of [`Topology::nodes`]; `None` where that is the primary. `affinity` picks
    /// one of several, always the same as long as they are well.
    pub fn pick(
        &self,
        topology: &Topology,
        read: &Read,
        policy: &ReadPolicy,
        affinity: usize,
        is_well: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let owner = topology.owner_index(read.slot)?;
        let primary = topology.nodes.get(owner)?;
        let may_answer = |index: usize, node: &Node| {
            node.replicates.as_deref() == Some(&*primary.id)
                && !topology.is_failing(&node.id)
                && self.is_fit(&node.id, read, policy)
                && is_well(index)
        };
        let fit = || topology.nodes.iter().enumerate().filter(|(index, node)| may_answer(*index, node));
        let picked = match read.from {
            ReadFrom::Primary => owner,
            ReadFrom::Replica => fit().nth(affinity.checked_rem(fit().count())?)?.0,
            ReadFrom::Nearest => {
                let mut near: Vec<(usize, &Arc<Node>)> = [(owner, primary)].into_iter().chain(fit()).collect();
                self.keep_nearest(&mut near, policy);
                near.get(affinity.checked_rem(near.len())?)?.0
            }
        };
        (picked != owner).then_some(picked)
    }

    fn is_fit(&self, id: &str, read: &Read, policy: &ReadPolicy) -> bool {
        let Some(progress) = self.nodes.get(id) else { return false };
        let with = match progress.caught_up {
            CaughtUp::With(with) => with,
            CaughtUp::Unproven => match read.now.checked_sub(policy.unproven) {
                Some(with) => with,
                None => return false,
            },
            CaughtUp::No => return false,
        };
        read.now.saturating_duration_since(with) <= policy.max_lag && read.written.is_none_or(|written| with >= written)
    }

    fn keep_nearest(&self, fit: &mut Vec<(usize, &Arc<Node>)>, policy: &ReadPolicy) {
        let is_here = |node: &Node| policy.zones.of(node) == policy.zone.as_deref();
        if policy.zone.is_some() && fit.iter().any(|(_, node)| is_here(node)) {
            fit.retain(|(_, node)| is_here(node));
        }
        let takes = |node: &Node| self.nodes.get(&*node.id).map_or(Duration::MAX, |progress| progress.round_trip);
        let least = fit.iter().map(|(_, node)| takes(node)).min().unwrap_or_default();
        fit.retain(|(_, node)| takes(node) <= least.saturating_mul(AS_NEAR).saturating_add(NOISE));
    }
}

/// What a node says of itself in INFO replication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The history of writes that its offset counts in.
    pub history: String,
    /// How much of it the node has.
    pub offset: u64,
    /// Whether it follows a primary, and is in touch with it; `None` of a primary.
    pub follows: Option<bool>,
}

impl Said {
    /// Reads INFO replication; `None` where something that matters is missing.
    pub fn parse(info: &str) -> Option<Said> {
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end);
        let history = field("master_replid")?.to_owned();
        match field("role")? {
            "master" => Some(Said { history, offset: field("master_repl_offset")?.parse().ok()?, follows: None }),
            _ => {
                let is_in_touch =
                    field("master_link_status") == Some("up") && field("master_sync_in_progress") != Some("1");
                let offset = field("slave_repl_offset")?.parse().ok()?;
                Some(Said { history, offset, follows: Some(is_in_touch) })
            }
        }
    }
}

/// The latest looks at a primary: what it had written, and when.
#[derive(Debug, Default)]
pub struct Looks {
    history: String,
    taken: VecDeque<(Instant, u64)>,
}

impl Looks {
    /// The replica was asked at this moment, or later, and said this.
    pub fn add(&mut self, at: Instant, said: &Said) {
        if self.history != said.history {
            // Offsets of another history are other numbers.
            *self = Looks { history: said.history.clone(), taken: VecDeque::new() };
        }
        if self.taken.len() == LOOKS {
            self.taken.pop_front();
        }
        self.taken.push_back((at, said.offset));
    }

    /// With which moment a replica has caught up that says this.
    pub fn caught_up(&self, said: &Said) -> CaughtUp {
        if said.follows != Some(true) || said.history != self.history {
            return CaughtUp::No;
        }
        let reached = self.taken.iter().rev().find(|(_, offset)| *offset <= said.offset);
        reached.map_or(CaughtUp::No, |(at, _)| CaughtUp::With(*at))
    }
}

/// What HSCAN, SSCAN and ZSCAN say of a key that is not there.
const LAST_EMPTY_PAGE: &[u8] = b"*2\r\n$1\r\n0\r\n*0\r\n";

/// Whether a replica's reply may mean that there is no such key. A key of a slot that is on its way to another node may
/// already be there: the replicas of the old one have lost it, and only their primary can tell (ASK). So a replica's values are
/// taken as they are, and its primary is asked about missing keys. Of several `keys`, all have to be there: the reply tells of
/// each, or how many there are.
pub fn may_be_missing(reply: &[u8], keys: u32) -> bool {
    if keys > 1 {
        return !has_all(reply, keys);
    }
    let is_nothing = |line: &[u8]| {
        matches!(
            line,
            b"$-1" | b"_" | b"*-1" | b"*0" | b"%0" | b"~0" | b":0" | b":-1" | b":-2" | b"$0" | b"+none" | b"#f" | b""
        )
    };
    let mut lines = reply.split(|&byte| byte == b'\n').map(trim);
    let head = lines.next().unwrap_or_default();
    match head.first() {
        Some(b'-' | b'!') | None => true,
        Some(b'*' | b'~' | b'%') => is_nothing(head) || reply == LAST_EMPTY_PAGE || lines.all(is_nothing),
        _ => is_nothing(head),
    }
}

/// Whether a reply counts all of so many keys, or has a text for each.
fn has_all(reply: &[u8], keys: u32) -> bool {
    let Some(end) = reply.iter().position(|&byte| byte == b'\n') else { return false };
    let (head, mut rest) = (trim(&reply[..end]), &reply[end + 1..]);
    let number = |line: &[u8]| std::str::from_utf8(line).ok()?.parse::<usize>().ok();
    match head.split_first() {
        Some((b':', count)) => number(count) == Some(keys as usize),
        Some((b'*', count)) if number(count) == Some(keys as usize) => {
            while let Some((b'$', text)) = rest.split_first()
                && let Some(end) = text.iter().position(|&byte| byte == b'\n')
                && let Some(length) = number(trim(&text[..end]))
                && let Some(behind) = text.get(end + 1 + length + 2..)
            {
                rest = behind;
            }
            rest.is_empty()
        }
        _ => false,
    }
}

fn trim(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::topology::Role;

    fn said(history: &str, offset: u64, follows: Option<bool>) -> Said {
        Said { history: history.to_owned(), offset, follows }
    }

    #[test]
    fn info_tells_how_far_a_node_is() {
        let primary =
            "# Replication\r\nrole:master\r\nconnected_slaves:1\r\nmaster_replid:abc\r\nmaster_repl_offset:70\r\n";
        assert_eq!(Said::parse(primary), Some(said("abc", 70, None)));
        let replica = "role:slave\r\nmaster_link_status:up\r\nmaster_sync_in_progress:0\r\nslave_repl_offset:56\r\n\
                       master_replid:abc\r\nmaster_repl_offset:56\r\n";
        assert_eq!(Said::parse(replica), Some(said("abc", 56, Some(true))));
        assert_eq!(Said::parse(&replica.replace("up", "down")), Some(said("abc", 56, Some(false))));
        assert_eq!(Said::parse("role:master\r\n"), None);
    }

    #[test]
    fn a_replica_has_caught_up_with_the_last_look_that_it_has_passed() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut looks = Looks::default();
        for (step, offset) in [(0, 10), (1, 20), (2, 20), (3, 50)] {
            looks.add(start + second * step, &said("a", offset, None));
        }
        for (offset, with) in [(9, None), (10, Some(0)), (19, Some(0)), (20, Some(2)), (49, Some(2)), (60, Some(3))] {
            let expected = with.map_or(CaughtUp::No, |step| CaughtUp::With(start + second * step));
            assert_eq!(looks.caught_up(&said("a", offset, Some(true))), expected, "{offset}");
        }
        assert_eq!(looks.caught_up(&said("a", 60, Some(false))), CaughtUp::No, "it has lost its primary");
        assert_eq!(looks.caught_up(&said("b", 60, Some(true))), CaughtUp::No, "its offset is of another history");
        looks.add(start, &said("b", 5, None));
        assert_eq!(looks.caught_up(&said("a", 60, Some(true))), CaughtUp::No);
    }

    /// A primary `p` of all slots with replicas `r0` and `r1`, of which `r1` is in zone b.
    fn shard() -> Topology {
        let replica = |id: &str, zone: Option<&str>| {
            let node = (*Node::primary(id, id)).clone();
            let (replicates, zone) = (Some("p".to_owned()), zone.map(str::to_owned));
            Arc::new(Node { role: Role::Replica, replicates, zone, ..node })
        };
        let nodes = vec![Node::primary("p", "p"), replica("r0", None), replica("r1", Some("b"))];
        Topology::unknown("").with_layout(nodes, Box::new([0; 16384]))
    }

    #[test]
    fn a_read_finds_what_its_client_has_written() {
        let (topology, start) = (shard(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let policy = ReadPolicy {
            max_lag: Duration::from_secs(10),
            unproven: Duration::from_secs(1),
            zone: Some("b".to_owned()),
            ..ReadPolicy::default()
        };
        let of = |first, second| {
            let mut known = Replication::default();
            let near = Duration::from_micros(100);
            for (id, caught_up, round_trip) in
                [("p", CaughtUp::No, near), ("r0", first, near), ("r1", second, 9 * near)]
            {
                known.note(&id.into(), Progress { caught_up, round_trip });
            }
            known
        };
        let with = |seconds| CaughtUp::With(at(seconds));
        for (known, from, written, affinity, picked) in [
            (of(with(99), with(99)), ReadFrom::Replica, None, 0, Some(1)),
            (of(with(99), with(99)), ReadFrom::Replica, None, 1, Some(2)),
            (of(with(99), with(99)), ReadFrom::Replica, Some(99), 0, Some(1)),
            (of(with(98), with(99)), ReadFrom::Replica, Some(99), 0, Some(2)),
            (of(with(98), with(98)), ReadFrom::Replica, Some(99), 0, None),
            // Beyond the lag that is allowed, and one that follows nobody.
            (of(with(80), CaughtUp::No), ReadFrom::Replica, None, 0, None),
            (of(CaughtUp::Unproven, CaughtUp::No), ReadFrom::Replica, Some(99), 0, Some(1)),
            (of(CaughtUp::Unproven, CaughtUp::No), ReadFrom::Replica, Some(100), 0, None),
            // The one of the zone, however long it takes; else the nearest, the primary among them.
            (of(with(99), with(99)), ReadFrom::Nearest, None, 0, Some(2)),
            (of(with(99), CaughtUp::No), ReadFrom::Nearest, None, 0, None),
            (of(with(99), CaughtUp::No), ReadFrom::Nearest, None, 1, Some(1)),
            (of(with(99), with(99)), ReadFrom::Primary, None, 0, None),
        ] {
            let slot = Slot::new(7).unwrap();
            let read = Read { slot, from, written: written.map(at), now: at(100) };
            let found = known.pick(&topology, &read, &policy, affinity, |_| true);
            assert_eq!(found, picked, "{known:?} {read:?} {affinity}");
        }
        let read = Read { slot: Slot::new(7).unwrap(), from: ReadFrom::Replica, written: None, now: at(100) };
        let known = of(with(99), with(99));
        assert_eq!(known.pick(&topology, &read, &policy, 0, |index| index != 1), Some(2), "the other is not well");
        let mut failing = topology;
        failing.failing = vec!["r0".to_owned(), "r1".to_owned()];
        assert_eq!(known.pick(&failing, &read, &policy, 0, |_| true), None);
    }

    #[test]
    fn a_replica_is_not_believed_that_something_is_missing() {
        for reply in [
            "$-1\r\n",
            "_\r\n",
            "*-1\r\n",
            "*0\r\n",
            "%0\r\n",
            ":0\r\n",
            ":-2\r\n",
            "$0\r\n\r\n",
            "+none\r\n",
            "-ERR no such key\r\n",
            "*2\r\n$-1\r\n$-1\r\n",
            "*2\r\n:0\r\n:0\r\n",
            "*2\r\n$1\r\n0\r\n*0\r\n",
        ] {
            assert!(may_be_missing(reply.as_bytes(), 0), "{reply}");
        }
        for reply in [
            "$1\r\n0\r\n",
            ":1\r\n",
            "+string\r\n",
            "*2\r\n$-1\r\n$1\r\na\r\n",
            "%1\r\n$1\r\na\r\n$1\r\nb\r\n",
            "#t\r\n",
        ] {
            assert!(!may_be_missing(reply.as_bytes(), 1), "{reply}");
        }
    }

    #[test]
    fn of_several_keys_all_have_to_be_there() {
        for reply in [":3\r\n", "*3\r\n$1\r\na\r\n$0\r\n\r\n$7\r\n\r\n$-1\r\n\r\n"] {
            assert!(!may_be_missing(reply.as_bytes(), 3), "{reply}");
        }
        for reply in [
            ":2\r\n",
            ":0\r\n",
            "*3\r\n$1\r\na\r\n$-1\r\n$1\r\nb\r\n",
            "*3\r\n$1\r\na\r\n$1\r\nb\r\n_\r\n",
            "*2\r\n$1\r\na\r\n$1\r\nb\r\n",
            "*3\r\n$1\r\na\r\n*0\r\n$1\r\nb\r\n",
            "-ERR no such key\r\n",
        ] {
            assert!(may_be_missing(reply.as_bytes(), 3), "{reply}");
        }
    }
}

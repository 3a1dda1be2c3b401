//! Several nodes' replies as the one that a single server would have given, byte for byte.
//!
//! Replies stay bytes: only heads are read, bodies are copied. An error in any part makes the whole an error, never a
//! hole in a list; for a write that was done in part, it says so.

pub mod account;
mod commands;
pub(crate) mod elements;
pub mod info;
mod log;
mod reports;

pub use crate::commands::table::merge_rule::MergeRule;

use account::Ledger;
use elements::{Elements, Head};

use crate::{
    commands::{plan::Split, table::merge_rule::Enough},
    protocol::{resp::write, says},
};

/// Collects the replies to the parts of one request and makes one of them.
///
/// ```
/// use slotway::commands::merge::{MergeRule, Merge};
///
/// // DBSIZE of two nodes.
/// let mut merge = Merge::new(MergeRule::Sum, 2, None, false);
/// assert!(!merge.take(1, b":40\r\n"));
/// assert!(merge.take(0, b":2\r\n"), "all have come");
/// let mut reply = Vec::new();
/// merge.finish(&mut reply);
/// assert_eq!(reply, b":42\r\n");
///
/// // An error in one part is an error of the whole.
/// let mut merge = Merge::new(MergeRule::Concat, 2, None, false);
/// merge.take(0, b"*1\r\n$1\r\na\r\n");
/// merge.take(1, b"-LOADING Redis is loading the dataset in memory\r\n");
/// let mut reply = Vec::new();
/// merge.finish(&mut reply);
/// assert!(reply.starts_with(b"-LOADING"));
/// ```
#[derive(Debug)]
pub struct Merge {
    rule: MergeRule,
    /// The replies by part; empty where one has not come.
    replies: Vec<Vec<u8>>,
    missing: usize,
    /// Parts whose nodes are lost: their replies are the proxy's own errors.
    lost: Vec<usize>,
    /// Lost parts are left out where the others suffice.
    spares: bool,
    /// What was missed where a node was lost or busy follows there.
    follows: bool,
    /// The part of each key, for [`MergeRule::KeyOrder`].
    order: Vec<u32>,
    /// The command in upper case where it writes, so that an error can say what was done.
    write: Option<Box<str>>,
    /// The chance of each part, for [`MergeRule::RandomKey`].
    weights: Vec<u64>,
    /// What is known better than by the nodes, for [`MergeRule::Info`] and [`MergeRule::Config`].
    facts: info::Facts,
    /// Who knows what clients did, where nodes tell what they ran.
    account: Option<Ledger>,
    resp3: bool,
}

impl Merge {
    /// For a request that goes as it is to `parts` nodes. `write` is the name of a command that writes.
    pub fn new(rule: MergeRule, parts: usize, write: Option<&str>, resp3: bool) -> Merge {
        Merge {
            rule,
            replies: vec![Vec::new(); parts],
            missing: parts,
            lost: Vec::new(),
            spares: false,
            follows: false,
            order: Vec::new(),
            write: write.map(|name| name.to_ascii_uppercase().replace('|', " ").into()),
            weights: Vec::new(),
            facts: info::Facts::new(),
            account: None,
            resp3,
        }
    }

    /// For a request that has been split.
    pub fn of_split(split: &Split, write: Option<&str>, resp3: bool) -> Merge {
        let order = if split.rule == MergeRule::KeyOrder { split.part_of_each_key() } else { Vec::new() };
        Merge { order, ..Merge::new(split.rule, split.parts.len(), write, resp3) }
    }

    /// How likely each part is to be chosen for RANDOMKEY: its number of keys, or of slots.
    pub fn weigh(&mut self, weights: Vec<u64>) {
        self.weights = weights;
    }

    /// Lines of INFO or parameters that the proxy itself knows, such as `connected_clients`.
    pub fn know(&mut self, facts: info::Facts) {
        self.facts = facts;
    }

    /// Who knows what clients did, where nodes tell what they ran.
    pub fn keep_account(&mut self, account: Option<Ledger>) {
        self.account = account;
    }

    /// Takes the whole reply to a part; true once all have come. A second reply to a part is dropped.
    pub fn take(&mut self, part: usize, reply: &[u8]) -> bool {
        if let Some(place) = self.replies.get_mut(part).filter(|place| place.is_empty()) {
            place.extend_from_slice(reply);
            self.missing -= 1;
        }
        self.missing == 0
    }

    /// How many parts have not come.
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// Forgets the replies that have come; says how many bytes they had.
    pub fn clear(&mut self) -> usize {
        let held = self.held();
        self.replies.clear();
        held
    }

    /// Lets the others answer for parts whose nodes are lost, where they can.
    pub fn spare_lost(&mut self) {
        self.spares = true;
    }

    /// What nodes miss that are lost or busy will be done there: see [`Merge::missed`].
    pub fn follow(&mut self) {
        self.follows = true;
    }

    /// Whether it may do without parts that are lost.
    pub fn spares(&self) -> bool {
        self.spares
    }

    /// The node of a part is lost, as this error says; true once all have come.
    pub fn take_lost(&mut self, part: usize, error: &[u8]) -> bool {
        self.lost.push(part);
        self.take(part, error)
    }

    /// Whether what has come is enough, and nobody needs to wait for the rest.
    pub fn suffices(&self) -> bool {
        let is_enough = |reply: &[u8]| match self.rule.traits().enough {
            Enough::NotNull => !elements::is_null(reply),
            Enough::NoError => elements::error_text(reply).is_none(),
            Enough::Any => true,
        };
        self.spares && (0..self.replies.len()).any(|part| self.answer_of(part).is_some_and(is_enough))
    }

    /// Whether any node has done it, whatever the others say.
    pub fn any_succeeded(&self) -> bool {
        (0..self.replies.len())
            .filter_map(|part| self.answer_of(part))
            .any(|reply| elements::error_text(reply).is_none())
    }

    /// The parts that no node has answered.
    fn unanswered(&self) -> Vec<usize> {
        (0..self.replies.len()).filter(|part| self.answer_of(*part).is_none()).collect()
    }

    /// The parts whose nodes were lost or busy, where others have done theirs.
    pub fn missed(&self) -> Vec<usize> {
        let missed = |part: &usize| self.answer_of(*part).is_none_or(|reply| reply.starts_with(b"-BUSY "));
        if self.any_succeeded() { (0..self.replies.len()).filter(missed).collect() } else { Vec::new() }
    }

    /// What a node has answered.
    fn answer_of(&self, part: usize) -> Option<&[u8]> {
        let reply = self.replies.get(part).filter(|reply| !reply.is_empty() && !self.lost.contains(&part))?;
        Some(reply)
    }

    /// How many bytes of replies are held.
    pub fn held(&self) -> usize {
        self.replies.iter().map(Vec::len).sum()
    }

    /// Appends the one reply. Parts that have not come count as errors.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        if self.suffices() {
            let lost = self.unanswered();
            let mut part = 0..;
            self.replies.retain(|_| part.next().is_none_or(|part| !lost.contains(&part)));
            self.lost.clear();
        }
        if self.replies.is_empty() {
            write::error(out, says::CLUSTERDOWN.as_bytes());
        } else if self.rule == MergeRule::OneSucceeded {
            self.one_succeeded(out);
        } else if !self.error(out) && self.apply(out).is_none() {
            out.truncate(start);
            write::error(out, says::ODD_REPLIES.as_bytes());
        }
    }

    /// Appends the error that any part has; false where none has one.
    fn error(&self, out: &mut Vec<u8>) -> bool {
        let failed = |reply: &&Vec<u8>| reply.first().is_none_or(|kind| matches!(kind, b'-' | b'!'));
        let Some(first) = self.replies.iter().find(failed) else { return false };
        if self.rule == MergeRule::Info && !self.replies.iter().all(|reply| failed(&reply)) {
            // Clients ask for INFO before anything else: what one node does not say keeps nobody from the others.
            return false;
        }
        let lacking = self.replies.iter().filter(failed).count();
        let done = self.replies.len() - lacking;
        match (&self.write, elements::error_text(first)) {
            (Some(command), Some(text)) if done > 0 => {
                let follows = self.follows && self.missed().len() == lacking;
                write::error(out, &says::done_in_part(text, command, done, self.replies.len(), follows));
            }
            (_, Some(_)) => out.extend_from_slice(first),
            (_, None) => write::error(out, says::ODD_REPLIES.as_bytes()),
        }
        true
    }

    /// INFO of the nodes that answer.
    fn info(&self, out: &mut Vec<u8>) -> Option<()> {
        let answered = self.replies.iter().filter(|reply| !reply.is_empty() && elements::error_text(reply).is_none());
        let answered: Vec<&[u8]> = answered.map(Vec::as_slice).collect();
        info::fold(&answered, &self.facts, self.account.as_ref(), out)
    }

    fn apply(&self, out: &mut Vec<u8>) -> Option<()> {
        match self.rule {
            MergeRule::Sum => self.numbers(out, i64::saturating_add),
            MergeRule::And | MergeRule::Or | MergeRule::Min | MergeRule::Max if self.is_unanimous() => {
                out.extend_from_slice(self.replies.first()?);
                Some(())
            }
            MergeRule::And => self.numbers(out, |a, b| i64::from(a != 0 && b != 0)),
            MergeRule::Or => self.numbers(out, |a, b| i64::from(a != 0 || b != 0)),
            MergeRule::Min => self.numbers(out, i64::min),
            MergeRule::Max => self.numbers(out, i64::max),
            MergeRule::AllSucceeded | MergeRule::OneSucceeded => {
                out.extend_from_slice(self.replies.first()?);
                Some(())
            }
            MergeRule::KeyOrder => self.key_order(out),
            MergeRule::Concat => self.concat(out),
            MergeRule::RandomKey => self.random_key(out),
            MergeRule::Info => self.info(out),
            MergeRule::Newest(count) => log::newest(&self.replies, count as usize, self.account.as_ref(), out),
            MergeRule::Entries => log::length(&self.replies, self.account.as_ref(), out),
            MergeRule::Fullest => {
                out.extend_from_slice(self.replies.iter().max_by_key(|reply| reply.len())?);
                Some(())
            }
            MergeRule::SumByName => elements::sum_by_name(&self.replies, out),
            MergeRule::Digest => elements::digest(&self.replies, out),
            MergeRule::Role => reports::role(self.replies.first()?, out),
            MergeRule::Config => reports::config(self.replies.first()?, &self.facts, out),
            MergeRule::Latest => reports::latest(&self.replies, out),
            MergeRule::ByTime => reports::by_time(&self.replies, out),
            MergeRule::Histogram => reports::histogram(&self.replies, self.account.as_ref(), out),
            MergeRule::Memory => reports::memory(&self.replies.iter().map(Vec::as_slice).collect::<Vec<_>>(), out),
            MergeRule::Youngest(count) => reports::youngest(&self.replies, count as usize, out),
        }
    }

    /// Whether all nodes say the same list, which can be long: nobody has to look into it.
    fn is_unanimous(&self) -> bool {
        let Some((first, others)) = self.replies.split_first() else { return false };
        Head::of(first).is_some() && others.iter().all(|other| other == first)
    }

    /// Integers, or arrays of them element by element.
    fn numbers(&self, out: &mut Vec<u8>, both: impl Fn(i64, i64) -> i64) -> Option<()> {
        let first = self.replies.first()?;
        if first.first() == Some(&b':') {
            let mut numbers = self.replies.iter().map(|reply| elements::integer(reply));
            let mut result = numbers.next()??;
            for number in numbers {
                result = both(result, number?);
            }
            write::integer(out, result);
            return Some(());
        }
        let mut parts = self.replies.iter().map(|reply| Elements::of(reply)).collect::<Option<Vec<_>>>()?;
        let count = parts.first()?.head.count;
        if parts.iter().any(|part| part.head.count != count) {
            return None;
        }
        write::array(out, count);
        for _ in 0..count {
            let mut result = None;
            for part in &mut parts {
                let number = part.next_integer()?;
                result = Some(result.map_or(number, |result| both(result, number)));
            }
            write::integer(out, result?);
        }
        Some(())
    }

    fn key_order(&self, out: &mut Vec<u8>) -> Option<()> {
        let mut parts = Vec::with_capacity(self.replies.len());
        for reply in &self.replies {
            parts.push(Elements::of(reply)?);
        }
        if parts.iter().map(|part| part.head.count).sum::<usize>() != self.order.len() {
            return None;
        }
        const HEAD: usize = 16;
        out.reserve(HEAD + self.held());
        write::array(out, self.order.len());
        for &part in &self.order {
            out.extend_from_slice(parts.get_mut(part as usize)?.next()?);
        }
        Some(())
    }

    fn concat(&self, out: &mut Vec<u8>) -> Option<()> {
        let heads = self.replies.iter().map(|reply| Head::of(reply)).collect::<Option<Vec<_>>>()?;
        let kind = heads.first()?.kind;
        if heads.iter().any(|head| head.kind != kind) {
            return None;
        }
        out.reserve(self.held());
        write::head(out, kind, heads.iter().map(|head| head.count as i64).sum());
        for (reply, head) in self.replies.iter().zip(&heads) {
            out.extend_from_slice(reply.get(head.body..)?);
        }
        Some(())
    }

    fn random_key(&self, out: &mut Vec<u8>) -> Option<()> {
        let weight = |part: usize| self.weights.get(part).copied().unwrap_or(1).max(1);
        let found = self.replies.iter().enumerate().filter(|(_, reply)| !elements::is_null(reply));
        let total: u64 = found.clone().map(|(part, _)| weight(part)).sum();
        if total == 0 {
            out.extend_from_slice(if self.resp3 { b"_\r\n" } else { b"$-1\r\n" });
            return Some(());
        }
        let mut left = elements::chance() % total;
        for (part, reply) in found {
            match left.checked_sub(weight(part)) {
                Some(rest) => left = rest,
                None => {
                    out.extend_from_slice(reply);
                    break;
                }
            }
        }
        Some(())
    }

    /// SCRIPT KILL: a node on which nothing runs has nothing to kill, which is no news while another had, or is lost.
    fn one_succeeded(&self, out: &mut Vec<u8>) {
        let failed = |reply: &[u8]| reply.first().is_none_or(|kind| matches!(kind, b'-' | b'!'));
        let reply = self
            .replies
            .iter()
            .find(|reply| !failed(reply))
            .or_else(|| self.replies.get(*self.lost.first()?))
            .or_else(|| self.replies.iter().find(|reply| !reply.is_empty() && !reply.starts_with(b"-NOTBUSY")))
            .or_else(|| self.replies.iter().find(|reply| !reply.is_empty()));
        match reply {
            Some(reply) => out.extend_from_slice(reply),
            None => write::error(out, says::ODD_REPLIES.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests;

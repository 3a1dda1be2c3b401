//! What becomes of a request: a pure function of its bytes, its command's row and the policy.
//!
//! The server judges arity and options: a request that is malformed goes to some node, whose error text then passes.

mod echo;
pub mod long_split;
mod policy;
mod special;
pub mod split;

pub use self::{echo::is_echoed, long_split::LongSplit, policy::Policy, special::all_entries, split::Split};
pub use crate::commands::table::treatment::{ClientCommand, Local, MergeRule, ProxyCommand, Scripting};

use std::rc::Rc;

use crate::{
    commands::table::{
        Keys, Spec, Treatment,
        keys::{self, Streams},
        treatment::Timeout,
    },
    protocol::{resp::Request, says, slot::Slot},
};

/// What becomes of a request.
#[derive(Debug, PartialEq)]
pub enum Plan {
    /// As it came, to the owner of this slot.
    One(Slot),
    /// As it came, to some primary; a session keeps to the same one.
    Any,
    /// As it came, to the one primary that all publishing goes through.
    PubSub,
    /// In parts, to several slots.
    Split(Rc<Split>),
    /// In parts, and of so many keys that others go on while it is cut and sent.
    LongSplit(Box<LongSplit>),
    /// As it came, to every primary.
    Primaries(MergeRule),
    /// As it came, to any primary, whose reply is amended to what one server would say.
    AnyRewritten(MergeRule),
    /// SCAN: to one primary after the other (see [`crate::cluster::scan`]); only the keys of a slot where the pattern has a tag.
    Scan(Option<Slot>),
    /// KEYS: as it came, to every primary, on connections of the session's own, since the replies may be of any size.
    Keys,
    /// The session answers or acts.
    Local(Local),
    /// On a connection of the session's own, since it may wait.
    Blocking(Blocking),
    /// As it came, to the owner of this slot or to any primary, which may first have to be given what it runs; SCRIPT
    /// LOAD, EXISTS and FLUSH to every primary.
    Scripting(Scripting, Option<Slot>),
    /// As it came, to every primary, on connections that are not busy.
    OutOfBand(MergeRule),
    /// CONFIG SET of parameters that are not to change: done where they have these values already; else the text of the
    /// error.
    Unchanged(Vec<u8>),
    /// These instead, one after the other, each to the owner of its slot: done when all are.
    InTurn(Vec<(Slot, Vec<u8>)>),
    /// INFO, to every primary, once the keys have been counted in each of the client's databases of its own.
    CountsKeys,
    /// Not at all; the text of the error.
    Refuse(Vec<u8>),
    /// `COMMAND GETKEYS` first, then [`of_keys`].
    AskServer,
}

impl Plan {
    /// The slot that the request goes to as it came.
    #[inline]
    pub fn one_slot(&self) -> Option<Slot> {
        if let Plan::One(slot) = self { Some(*slot) } else { None }
    }

    /// Whether a node may be made to write something.
    pub fn may_write(&self) -> bool {
        match self {
            Plan::Refuse(_) => false,
            Plan::Local(local) => *local == Local::Exec,
            Plan::One(_) | Plan::Any | Plan::PubSub | Plan::Split(_) | Plan::LongSplit(_) | Plan::Primaries(_) => true,
            Plan::AnyRewritten(_) | Plan::Scan(_) | Plan::Keys | Plan::Blocking(_) | Plan::Scripting(..) => true,
            Plan::OutOfBand(_) | Plan::Unchanged(_) | Plan::InTurn(_) | Plan::CountsKeys | Plan::AskServer => true,
        }
    }
}

/// A request that may wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blocking {
    /// Where it goes; any primary where it has no keys.
    pub slot: Option<Slot>,
    /// Where its timeout is and in which unit, if that is known.
    pub timeout: Option<(usize, Unit)>,
}

/// The unit of a timeout. 0 is for ever in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds, with fractions.
    Seconds,
    /// Whole milliseconds.
    Milliseconds,
}

/// What becomes of `request`, whose row is `spec` ([`crate::commands::table::CommandTable::find`]).
///
/// ```
/// use slotway::{
///     commands::{plan::{Plan, Policy, plan}, table::CommandTable},
///     protocol::{resp::{request::Parser, write}, slot::Slot},
/// };
///
/// let planned = |words: &[&str]| {
///     let (mut bytes, mut parser) = (Vec::new(), Parser::default());
///     write::request(&mut bytes, words);
///     let found = parser.find(&bytes).unwrap().unwrap();
///     let request = parser.request(&bytes, found);
///     plan(&request, CommandTable::builtin().find(&request), &Policy::default())
/// };
/// assert_eq!(planned(&["GET", "foo"]), Plan::One(Slot::of(b"foo")));
/// assert_eq!(planned(&["MGET", "{t}a", "{t}b"]), Plan::One(Slot::of(b"t")));
/// let Plan::Split(split) = planned(&["MGET", "foo", "bar"]) else { panic!("two slots") };
/// assert_eq!(split.parts.len(), 2);
/// assert!(matches!(planned(&["SHUTDOWN"]), Plan::Refuse(_)));
/// // A command that nobody knows goes to a node, which says what it thinks of it.
/// assert_eq!(planned(&["FROBNICATE"]), Plan::Any);
/// ```
pub fn plan(request: &Request, spec: Option<&Spec>, policy: &Policy) -> Plan {
    let Some(spec) = spec else { return Plan::Any };
    if (spec.refused.is_some() || policy.denies())
        && let Some(reason) = policy.refuses(spec)
    {
        let error =
            if spec.takes(request.len()) { says::refused(&spec.name, reason) } else { says::wrong_arity(&spec.name) };
        return Plan::Refuse(error.into_bytes());
    }
    match spec.treatment {
        Treatment::Keyed => keyed(request, spec),
        Treatment::Split(rule) => split_or_one(request, spec, rule, policy),
        Treatment::Primaries(MergeRule::Newest(_)) => Plan::Primaries(special::newest(request, spec)),
        Treatment::Primaries(rule) => Plan::Primaries(rule),
        Treatment::KeysPattern if !spec.takes(request.len()) => Plan::Any,
        Treatment::KeysPattern => tag_of_pattern(request.arg(1)).map_or(Plan::Keys, |key| Plan::One(Slot::of(key))),
        Treatment::Scan => special::scan(request),
        Treatment::SlotNumber => special::slot_number(request),
        Treatment::PubSub => Plan::PubSub,
        // These must not reach a connection that others share, not even to be told what is wrong with them.
        Treatment::Local(_) if !spec.takes(request.len()) => Plan::Refuse(says::wrong_arity(&spec.name).into_bytes()),
        // Nodes are sent the client's own words. Where they do not know MULTI, they would carry out what the client believes
        // queued; where they do not know EXEC, the connection that all share would stay in a transaction.
        Treatment::Local(Local::Multi | Local::Exec) if !spec.goes_by(request.name()) => {
            Plan::Refuse(says::unknown_command(request))
        }
        Treatment::Local(local) => Plan::Local(local),
        Treatment::Blocking(timeout) => blocking(request, spec, timeout),
        Treatment::BlockingStreams => streams(request, spec),
        Treatment::ConfigSet => special::config_set(request, policy),
        Treatment::Debug => special::debug(request, policy),
        Treatment::Scripting(which) => match keyed(request, spec) {
            Plan::One(slot) => Plan::Scripting(which, Some(slot)),
            Plan::Any => Plan::Scripting(which, None),
            other => other,
        },
        Treatment::OutOfBand(rule) => Plan::OutOfBand(rule),
        Treatment::AnyRewritten(rule) => Plan::AnyRewritten(rule),
        Treatment::AclLog => special::acl_log(request),
        Treatment::ClusterView(_) if policy.allows(&spec.name) || policy.allows("cluster") => Plan::Any,
        Treatment::ClusterView(_) if !spec.takes(request.len()) => {
            Plan::Refuse(says::wrong_arity(&spec.name).into_bytes())
        }
        Treatment::ClusterView(view) => Plan::Local(Local::ClusterView(view)),
    }
}

/// Whether requests of this row go to the slot of their keys whatever else is in them, where all keys are in one.
#[inline]
pub fn goes_by_keys_alone(spec: &Spec, policy: &Policy) -> bool {
    matches!(spec.treatment, Treatment::Keyed) && spec.refused.is_none() && !policy.denies()
}

/// What is known of the slots of a request's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    /// The request has no keys.
    None,
    /// All keys are in this slot.
    One(Slot),
    /// They are in several.
    Several,
    /// The request is malformed; the slot of the keys found so far, if there are any and it is one.
    Malformed,
    /// Only the server can tell.
    AskServer,
}

/// The slots of a request's keys, for a transaction that collects them. Nothing is allocated.
#[inline]
pub fn slots(request: &Request, spec: &Spec) -> Slots {
    if let Some(key) = spec.only_key() {
        return request.get(key).map_or(Slots::Malformed, |key| Slots::One(Slot::of(key)));
    }
    let mut slots = Slots::None;
    let keys = spec.visit_keys(request, |index| {
        if slots == Slots::Several {
            return;
        }
        let slot = Slot::of(request.arg(index));
        slots = match slots {
            Slots::None => Slots::One(slot),
            Slots::One(first) if first == slot => slots,
            Slots::One(_) | Slots::Several | Slots::Malformed | Slots::AskServer => Slots::Several,
        };
    });
    match keys {
        Keys::Known => slots,
        Keys::Malformed => Slots::Malformed,
        Keys::AskServer => Slots::AskServer,
    }
}

/// What becomes of a request once the server has told its keys; none where it answered an error.
pub fn of_keys(keys: &[&[u8]]) -> Plan {
    let mut slots = keys.iter().map(|key| Slot::of(key));
    match slots.next() {
        None => Plan::Any,
        Some(first) if slots.all(|slot| slot == first) => Plan::One(first),
        Some(_) => Plan::Refuse(cross_slot(keys.iter().copied())),
    }
}

/// The key by key split of a request that came to one slot, for a slot that is half migrated: the server refuses
/// several keys then (TRYAGAIN), but answers for each of them. `None` for what cannot be split.
pub fn by_key(request: &Request, spec: &Spec) -> Option<Split> {
    let Treatment::Split(rule) = spec.treatment else { return None };
    (!special::keeps_together(request, spec)).then(|| Split::by_key(request, spec, rule)).flatten()
}

/// A request whose keys are in one slot, as one part; `None` where its command is not split.
pub fn one_part(request: &Request, spec: &Spec) -> Option<Split> {
    let Treatment::Split(rule) = spec.treatment else { return None };
    Split::by_slot(request, spec, rule)
}

fn keyed(request: &Request, spec: &Spec) -> Plan {
    match slots(request, spec) {
        Slots::One(slot) => Plan::One(slot),
        Slots::None | Slots::Malformed => Plan::Any,
        // Some key lacks what belongs to it (MSETNX with an odd count), or all of it: one server says that first.
        Slots::Several if !spec.takes(request.len()) || lacks_arguments(request, spec) => {
            Plan::Refuse(says::wrong_arity(&spec.name).into_bytes())
        }
        Slots::Several => refuse_cross_slot(request, spec),
        Slots::AskServer => Plan::AskServer,
    }
}

/// Whether the last key has less behind it than belongs to each key.
fn lacks_arguments(request: &Request, spec: &Spec) -> bool {
    let mut end = 0;
    spec.visit_keys(request, |index| end = index + spec.step());
    end > request.len()
}

fn split_or_one(request: &Request, spec: &Spec, rule: MergeRule, policy: &Policy) -> Plan {
    match slots(request, spec) {
        Slots::Several if policy.rejects_cross_slot() || special::keeps_together(request, spec) => {
            refuse_cross_slot(request, spec)
        }
        Slots::Several => match parts(request, spec, rule) {
            Some(plan) => plan,
            // Some key lacks what belongs to it: the server's words for that, where their number was told (MSETEX) and
            // where not (MSET with an odd count).
            None if spec.count_at().is_some() => Plan::Refuse(says::SYNTAX.as_bytes().to_vec()),
            None => Plan::Refuse(says::wrong_arity(&spec.name).into_bytes()),
        },
        Slots::One(slot) => Plan::One(slot),
        Slots::None | Slots::Malformed => Plan::Any,
        Slots::AskServer => Plan::AskServer,
    }
}

fn parts(request: &Request, spec: &Spec, rule: MergeRule) -> Option<Plan> {
    if request.len() > long_split::LONG {
        return LongSplit::begin(request, spec, rule).map(|cut| Plan::LongSplit(Box::new(cut)));
    }
    Split::by_slot(request, spec, rule).map(|split| Plan::Split(Rc::new(split)))
}

fn blocking(request: &Request, spec: &Spec, timeout: Timeout) -> Plan {
    let slot = match keyed(request, spec) {
        Plan::One(slot) => Some(slot),
        Plan::Any if spec.takes(request.len()) && timeout == Timeout::Unknown => None,
        other => return other,
    };
    let at = match timeout {
        Timeout::LastSeconds => request.len() - 1,
        Timeout::FirstSeconds => 1,
        Timeout::Unknown => return Plan::Blocking(Blocking { slot, timeout: None }),
    };
    // What is no timeout gets its error at once, on the shared connection.
    match (slot, seconds(request.arg(at))) {
        (Some(slot), None) => Plan::One(slot),
        (slot, _) => Plan::Blocking(Blocking { slot, timeout: Some((at, Unit::Seconds)) }),
    }
}

fn streams(request: &Request, spec: &Spec) -> Plan {
    match (keyed(request, spec), keys::streams(request)) {
        (Plan::One(slot), Some(Streams { block_at: Some(at), .. })) => {
            match std::str::from_utf8(request.arg(at)).ok().and_then(|text| text.parse::<i64>().ok()) {
                Some(0..) => Plan::Blocking(Blocking { slot: Some(slot), timeout: Some((at, Unit::Milliseconds)) }),
                _ => Plan::One(slot),
            }
        }
        (plan, _) => plan,
    }
}

/// A timeout in seconds, as BLPOP takes it; `None` for what the server will refuse.
pub fn seconds(text: &[u8]) -> Option<f64> {
    let seconds: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (seconds.is_finite() && seconds >= 0.0).then_some(seconds)
}

fn refuse_cross_slot(request: &Request, spec: &Spec) -> Plan {
    Plan::Refuse(cross_slot_error(request, spec))
}

/// The error for a request whose keys are in several slots.
pub fn cross_slot_error(request: &Request, spec: &Spec) -> Vec<u8> {
    let mut indexes = Vec::new();
    spec.keys_of(request, &mut indexes);
    cross_slot(indexes.iter().map(|&index| request.arg(index)))
}

/// The error that names keys of different slots: the first key, then those in other slots than all named before.
fn cross_slot<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut named: Vec<(&[u8], Slot)> = Vec::new();
    let mut more = 0;
    for key in keys {
        let slot = Slot::of(key);
        if named.iter().any(|(_, other)| *other == slot) {
            continue;
        }
        if named.len() < says::MOST_KEYS_NAMED { named.push((key, slot)) } else { more += 1 }
    }
    says::cross_slot(&named, more).into_bytes()
}

/// The literal start of a pattern, where it has a whole hash tag: all keys that match are in that tag's slot then.
fn tag_of_pattern(pattern: &[u8]) -> Option<&[u8]> {
    let literal = pattern.iter().position(|byte| b"*?[\\".contains(byte)).map_or(pattern, |end| &pattern[..end]);
    let open = literal.iter().position(|&byte| byte == b'{')?;
    let close = literal[open..].iter().position(|&byte| byte == b'}')?;
    (close > 1).then_some(literal)
}

#[cfg(test)]
mod tests;

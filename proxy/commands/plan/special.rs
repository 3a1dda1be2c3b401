//! Plans of the commands that are like no other.

use super::{Plan, Policy, tag_of_pattern};
use crate::{
    commands::table::{
        Spec,
        merge_rule::{Entries, MergeRule},
    },
    protocol::{
        resp::{Request, write},
        says,
        slot::Slot,
    },
};

/// Whether a request must stay one: MSETEX with NX or XX sets all keys or none.
pub fn keeps_together(request: &Request, spec: &Spec) -> bool {
    let options = spec.traits.whole_with;
    !options.is_empty() && has_keyless_option(request, spec, options)
}

/// Whether one of `options` stands behind the keys of `request` and what belongs to them.
fn has_keyless_option(request: &Request, spec: &Spec, options: &[&str]) -> bool {
    let mut end = 0;
    spec.visit_keys(request, |index| end = end.max(index + spec.step()));
    (end..request.len()).any(|index| options.iter().any(|option| request.is(index, option)))
}

/// SLOWLOG GET and COMMANDLOG GET: how many entries are wanted.
pub fn newest(request: &Request, _spec: &Spec) -> MergeRule {
    let count = request.get(2).and_then(|count| std::str::from_utf8(count).ok());
    MergeRule::Newest(match count.map(str::parse::<i64>) {
        None => 10,
        Some(Ok(count)) => u32::try_from(count).unwrap_or(u32::MAX),
        Some(Err(_)) => u32::MAX,
    })
}

/// What nodes are asked for where a client wants to see entries of SLOWLOG or COMMANDLOG, or to know how many there are: all
/// of them, since some may not be clients' doing. `None` where they are asked what the client asks.
pub fn all_entries(request: &Request, spec: Option<&Spec>, rule: MergeRule) -> Option<Vec<u8>> {
    // SLOWLOG GET may have more arguments than it should, COMMANDLOG GET has one more.
    let most = spec.filter(|spec| spec.takes(request.len()))?.arity.max(3) as usize;
    let count = |at| std::str::from_utf8(request.arg(at)).ok()?.parse::<i64>().ok();
    let log = match rule.traits().entries {
        Entries::Newest if request.len() == 2 => None,
        Entries::Newest if request.len() <= most && count(2).is_some_and(|count| count >= -1) => request.get(3),
        Entries::Count => request.get(2),
        Entries::Newest | Entries::None => return None,
    };
    let mut frame = Vec::new();
    let words = [request.name(), b"GET", b"-1"].into_iter().chain(log);
    write::request(&mut frame, &words.collect::<Vec<_>>());
    Some(frame)
}

/// ACL LOG: how many entries are wanted, or that they are to go.
pub fn acl_log(request: &Request) -> Plan {
    if request.is(2, "RESET") {
        return Plan::Primaries(MergeRule::AllSucceeded);
    }
    let count = request.get(2).and_then(|count| std::str::from_utf8(count).ok()?.parse().ok());
    Plan::Primaries(MergeRule::Youngest(count.unwrap_or(10)))
}

/// SCAN: what is no cursor is for a node to refuse.
pub fn scan(request: &Request) -> Plan {
    let cursor = std::str::from_utf8(request.arg(1)).ok().and_then(|text| text.parse::<u64>().ok());
    if cursor.is_none() {
        return Plan::Any;
    }
    let mut options = (2..request.len().saturating_sub(1)).step_by(2);
    // The last MATCH counts.
    let pattern = options.rfind(|&at| request.is(at, "MATCH")).map(|at| request.arg(at + 1));
    Plan::Scan(pattern.and_then(tag_of_pattern).map(Slot::of))
}

/// `CLUSTER COUNTKEYSINSLOT slot` and the like.
pub fn slot_number(request: &Request) -> Plan {
    let number = std::str::from_utf8(request.arg(2)).ok().and_then(|text| text.parse().ok());
    number.and_then(Slot::new).map_or(Plan::Any, Plan::One)
}

/// Parameters that hold the cluster together, or let the proxy in.
const HELD_PARAMETERS: &[&str] = &[
    "aclfile",
    "bind",
    "bind-source-addr",
    "masterauth",
    "masteruser",
    "port",
    "primaryauth",
    "primaryuser",
    "requirepass",
    "unixsocket",
];

/// CONFIG SET, to every primary, unless a parameter is one that the cluster or the proxy depends on. Where all of them
/// are, they may have these values already: who restores what was before is not to be refused.
pub fn config_set(request: &Request, policy: &Policy) -> Plan {
    let is_held = |name: &&[u8]| {
        let name = name.to_ascii_lowercase();
        name.starts_with(b"cluster-")
            || name.starts_with(b"tls-")
            || HELD_PARAMETERS.iter().any(|held| held.as_bytes() == name)
    };
    if request.len() < 4 {
        return Plan::Any;
    }
    let mut names = (2..request.len()).step_by(2).map(|at| request.arg(at));
    match names.clone().find(is_held) {
        Some(name) if !policy.allows("config|set") => {
            let name = name.to_ascii_lowercase();
            let why = format!("the cluster or the proxy depends on {}", name.escape_ascii());
            let error = says::refused("config|set", &why).into_bytes();
            let all = request.len().is_multiple_of(2) && names.all(|name| is_held(&name));
            if all { Plan::Unchanged(error) } else { Plan::Refuse(error) }
        }
        _ => Plan::Primaries(MergeRule::AllSucceeded),
    }
}

/// DEBUG: what looks at one key goes by that key, what is about all keys or sets a switch goes to all, what could stop a
/// node or make it differ from the others is refused. A node takes none of it unless its operator allows DEBUG there.
pub fn debug(request: &Request, policy: &Policy) -> Plan {
    let is = |names: &[&str]| names.iter().any(|name| request.is(1, name));
    if is(&["OBJECT", "LISTPACK", "QUICKLIST", "ZIPLIST", "HTSTATS-KEY", "DIGEST-VALUE", "SDSLEN"]) {
        return request.get(2).map_or(Plan::Any, |key| Plan::One(Slot::of(key)));
    }
    if is(&[
        "SET-ACTIVE-EXPIRE",
        "QUICKLIST-PACKED-THRESHOLD",
        "SET-DISABLE-DENY-SCRIPTS",
        "REPLYBUFFER",
        "DICT-RESIZING",
        "LOADAOF",
        "LOG",
    ]) {
        return Plan::Primaries(MergeRule::AllSucceeded);
    }
    // With options it may leave out what it has not saved.
    if is(&["RELOAD"]) && request.len() == 2 {
        return Plan::Primaries(MergeRule::AllSucceeded);
    }
    if is(&["DIGEST"]) && request.len() == 2 {
        return Plan::Primaries(MergeRule::Digest);
    }
    if request.len() < 2 || is(&["HELP", "PROTOCOL", "STRINGMATCH-LEN", "ERROR"]) {
        return Plan::Any;
    }
    if policy.allows("debug") {
        // What one server does to itself, all of them do.
        return Plan::Primaries(MergeRule::AllSucceeded);
    }
    Plan::Refuse(says::refused("debug", "it could hurt a node").into_bytes())
}

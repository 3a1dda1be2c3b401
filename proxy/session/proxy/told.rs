//! What PROXY tells of itself, in the shape of Redis' own commands: CLIENT LIST, CONFIG GET, SLOWLOG, CLUSTER SLOTS.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use crate::{
    clients::Client,
    cluster::topology::Topology,
    commands::shown::{shown_args, shown_key},
    metrics::{
        readable::{time_of_day, unix_time},
        slow::Slow,
    },
    protocol::{
        resp::{Request, request::decimal, write},
        says,
        slot::Slot,
    },
    session::{caller::Caller, local::Answer},
    upstream::router::Router,
};

/// How many hot keys and events are told where nobody says how many.
const USUAL: usize = 10;
/// How many entries SLOWLOG GET tells then.
const USUAL_SLOW: usize = 10;

/// PROXY CLIENTS: a line each, whoever holds most memory first.
pub(super) fn clients(caller: &Caller) -> Vec<String> {
    let mut all = caller.router.clients().all();
    all.retain(|client| caller.may_know(client));
    all.sort_by_key(|client| std::cmp::Reverse(client.cost()));
    let line = |client: &Arc<Client>| {
        let about = client.about().clone();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let [received, sent] = [0, 1].map(|way| client.traffic[way].load(Relaxed));
        format!(
            "id={} addr={} name={} user={} lib-name={} lib-ver={} db={} age={} idle={} tot-mem={} tot-net-in={received} \
             tot-net-out={sent} tot-cmds={} cmd={}",
            client.id,
            client.peer(),
            text(&about.name),
            about.user,
            text(&about.library),
            text(&about.library_version),
            client.database.load(Relaxed),
            client.since.elapsed().as_secs(),
            client.idle().as_secs(),
            client.cost(),
            client.commands.load(Relaxed),
            client.last_command(),
        )
    };
    all.iter().map(line).collect()
}

/// PROXY SLOTS: a line for each range of slots.
pub(super) fn slots(router: &Router) -> Vec<String> {
    let topology = router.topology();
    let heat = router.tally().metrics().hot().slots();
    let mut ranges: Vec<((usize, usize), usize)> = (0..topology.nodes.len())
        .flat_map(|index| topology.ranges(index).into_iter().map(move |range| (range, index)))
        .collect();
    ranges.sort_unstable();
    let line = |&((first, last), index): &((usize, usize), usize)| {
        let node = &topology.nodes[index];
        let mut line = format!("{first}-{last} {}", node.label);
        let replicas: Vec<&str> = topology.replicas(node).map(|replica| &*replica.label).collect();
        if !replicas.is_empty() {
            line += &format!(" replicas {}", replicas.join(","));
        }
        if let Some(lost) = topology.lost(&node.id) {
            line += &format!(" lost since {} ({})", time_of_day(lost.since), lost.why);
        }
        let rate: f32 = heat.get(first..=last).into_iter().flatten().sum();
        line + &format!(" requests/s {rate:.0}")
    };
    ranges.iter().map(line).collect()
}

/// PROXY CONFIG: every key and its value, or those that CONFIG GET's pattern names.
pub(super) fn config(caller: &Caller, request: &Request<'_>) -> Answer {
    let pattern = match request.len() {
        2 => b"*",
        4 if request.is(2, "GET") => request.arg(3),
        _ => return Answer::refused(says::PROXY_CONFIG.as_bytes()),
    };
    let pattern = String::from_utf8_lossy(pattern).to_lowercase();
    let shown = caller.router.settings().shown.borrow();
    let pairs: Vec<_> = shown.iter().filter(|shown| fits(&pattern, &shown.key)).collect();
    Answer::with(|out| {
        write::array(out, 2 * pairs.len());
        for shown in pairs {
            write::bulk(out, shown.key.as_bytes());
            write::bulk(out, shown.value.trim_matches('"').as_bytes());
        }
    })
}

/// Whether a pattern with `*` and `?` names this key.
fn fits(pattern: &str, key: &str) -> bool {
    match (pattern.chars().next(), key.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => fits(&pattern[1..], key) || !key.is_empty() && fits(pattern, &key[1..]),
        (Some('?'), Some(_)) => fits(&pattern[1..], &key[1..]),
        (Some(one), Some(other)) if one == other => fits(&pattern[one.len_utf8()..], &key[one.len_utf8()..]),
        _ => false,
    }
}

/// PROXY HOTKEYS [count]: for each key its slot, the node, requests a second, the part of writes in a hundred, and the command
/// that it was asked for by last.
pub(super) fn hotkeys(caller: &Caller, request: &Request<'_>) -> Answer {
    let Some(most) = count(request, 2, USUAL) else { return Answer::refused(says::NOT_INTEGER.as_bytes()) };
    let topology = caller.router.topology().clone();
    let keys = caller.router.tally().metrics().hot().keys(most);
    let shows = caller.router.settings().show_keys;
    Answer::with(|out| {
        write::array(out, keys.len());
        for hot in keys {
            let slot = Slot::of(&hot.key);
            let node = topology.owner(slot).map_or_else(|| "nobody".to_owned(), |node| node.label.to_string());
            write::array(out, 6);
            write::bulk(out, &shown_key(&hot.key, shows));
            write::integer(out, i64::from(slot.number()));
            write::bulk(out, node.as_bytes());
            write::integer(out, hot.rate.round() as i64);
            write::integer(out, (hot.writes * 100.0).round() as i64);
            write::bulk(out, hot.command.name().as_bytes());
        }
    })
}

/// PROXY SLOWLOG GET [count], LEN, RESET.
pub(super) fn slowlog(caller: &Caller, request: &Request<'_>) -> Answer {
    let log = caller.router.tally().metrics().slow();
    if request.len() == 3 && request.is(2, "LEN") {
        return Answer::with(|out| write::integer(out, log.count() as i64));
    }
    if request.len() == 3 && request.is(2, "RESET") {
        log.clear();
        return Answer::OK;
    }
    if request.len() > 4 || !request.is(2, "GET") {
        return Answer::refused(says::PROXY_SLOWLOG.as_bytes());
    }
    let Some(most) = count(request, 3, USUAL_SLOW) else { return Answer::refused(says::NOT_INTEGER.as_bytes()) };
    let (entries, topology) = (log.latest(most), caller.router.topology().clone());
    let shows = caller.router.settings().show_keys;
    Answer::with(|out| {
        write::array(out, entries.len());
        entries.iter().for_each(|slow| write_slow(caller, &topology, slow, shows, out));
    })
}

/// As SLOWLOG GET writes an entry: id, time, microseconds, arguments, the client's address and name; and then the node, the
/// slot, and how many of the microseconds passed here and at the node.
fn write_slow(caller: &Caller, topology: &Topology, slow: &Slow, shows: bool, out: &mut Vec<u8>) {
    let client = caller.router.clients().find(slow.client).filter(|client| caller.may_know(client));
    let micros = |time: std::time::Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    let args = shown_args(&slow.frame, &topology.commands, shows);
    write::array(out, 10);
    write::integer(out, slow.id as i64);
    write::integer(out, unix_time(slow.at).as_secs() as i64);
    write::integer(out, micros(slow.here + slow.there));
    write::array(out, args.len());
    args.iter().for_each(|arg| write::bulk(out, arg));
    let (address, name) =
        client.map_or_else(Default::default, |client| (client.peer().to_string(), client.about().name.clone()));
    write::bulk(out, address.as_bytes());
    write::bulk(out, &name);
    write::bulk(out, slow.node.as_bytes());
    write::integer(out, slow.slot.map_or(-1, |slot| i64::from(slot.number())));
    write::integer(out, micros(slow.here));
    write::integer(out, micros(slow.there));
}

/// PROXY EVENTS [count]: for each its id, time, severity, kind and text, the newest first.
pub(super) fn events(caller: &Caller, request: &Request<'_>) -> Answer {
    let Some(most) = count(request, 2, USUAL) else { return Answer::refused(says::NOT_INTEGER.as_bytes()) };
    let events = caller.router.tally().metrics().events().after(0, most);
    Answer::with(|out| {
        write::array(out, events.len());
        for event in events.iter().rev() {
            write::array(out, 5);
            write::integer(out, event.id as i64);
            write::integer(out, event.unix_seconds() as i64);
            write::bulk(out, event.severity.label().as_bytes());
            write::bulk(out, event.kind.label().as_bytes());
            write::bulk(out, event.text.as_bytes());
        }
    })
}

/// The number at `at`, or the usual one where there is none; -1 is all.
fn count(request: &Request<'_>, at: usize, usual: usize) -> Option<usize> {
    if request.len() <= at {
        return Some(usual);
    }
    match decimal(request.arg(at))? {
        -1 => Some(usize::MAX),
        number => usize::try_from(number).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_keys_as_config_get_does() {
        for (pattern, key, named) in [
            ("*", "listen", true),
            ("max*", "max_clients", true),
            ("*timeout", "node_timeout", true),
            ("?isten", "listen", true),
            ("listen", "listeners", false),
            ("", "listen", false),
        ] {
            assert_eq!(fits(pattern, key), named, "{pattern} {key}");
        }
    }
}

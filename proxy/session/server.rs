//! What the proxy says of itself where a server would speak of itself: in INFO and CONFIG GET.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;

use super::caller::Caller;
use crate::{
    clients::Paused,
    cluster::topology::Route,
    commands::{
        merge::{
            Merge,
            account::{IsOwn, Ledger},
            info::{self, Facts},
        },
        plan::MergeRule,
        table::merge_rule::{CallsOf, OwnFacts},
    },
    protocol::resp::{Request, Value, request::Parser, write},
    upstream::router::Lane,
};

/// What is known better than by the nodes, for replies merged by `rule`.
pub(super) fn facts(caller: &Caller, rule: MergeRule) -> Facts {
    match rule.traits().facts {
        OwnFacts::Info => info_facts(caller),
        OwnFacts::Config => config_facts(caller),
        OwnFacts::Nothing => Facts::new(),
    }
}

/// Who knows what clients did, for replies merged by `rule` that tell what nodes ran.
pub(super) fn account_for(caller: &Caller, rule: MergeRule, request: &Request<'_>) -> Option<Ledger> {
    let only = match rule.traits().calls {
        CallsOf::AllCommands => Vec::new(),
        CallsOf::NamedCommands => {
            request.args().skip(2).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
        }
        CallsOf::Nobody => return None,
    };
    let (commands, metrics) = (caller.router.topology().commands.clone(), caller.router.tally().metrics().clone());
    let dialer = caller.router.connector().dialer.clone();
    let own: IsOwn = Rc::new(move |address: &str| dialer.is_own(address));
    Some(Ledger { commands, metrics, only, own: Some(own) })
}

/// One request to any primary, by a connection of `lane`, its reply amended.
pub(super) async fn ask_amended(
    caller: &Caller,
    lane: &Lane,
    request: &Request<'_>,
    rule: MergeRule,
) -> Result<Bytes, String> {
    let link = lane.link(&caller.router, caller.affinity, Route::Any);
    let link = link.ok_or_else(|| caller.router.topology().down())?;
    let reply = caller.ask(&link, request.frame()).await?;
    let mut merge = Merge::new(rule, 1, None, caller.speaks_resp3());
    merge.know(facts(caller, rule));
    merge.take(0, &reply);
    let mut amended = Vec::new();
    merge.finish(&mut amended);
    Ok(amended.into())
}

/// CONFIG SET of parameters that are not to change: OK where CONFIG GET says that they are so, else `error`.
pub(super) async fn config_as_it_is(caller: &Caller, request: &Request<'_>, error: &[u8]) -> Bytes {
    for at in (2..request.len()).step_by(2) {
        let (mut frame, mut parser) = (Vec::new(), Parser::default());
        write::request(&mut frame, &[&b"CONFIG"[..], b"GET", request.arg(at)]);
        let Ok(Some(found)) = parser.find(&frame) else { return Bytes::new() };
        let now =
            match ask_amended(caller, &caller.router.first_lane(), &parser.request(&frame, found), MergeRule::Config)
                .await
            {
                Ok(now) => Value::parse(&now).ok().flatten().map_or(Value::Null, |(now, _)| now),
                Err(text) => return write::error_frame(text),
            };
        let is_name = |known: &Value| known.text().is_some_and(|known| known.eq_ignore_ascii_case(request.arg(at)));
        let mut pairs = now.items().chunks_exact(2);
        let is_as_wanted = |now: &Value| {
            let (now, wanted) = (now.text().unwrap_or_default(), request.get(at + 1));
            wanted.is_some_and(|wanted| now == wanted || tells_all(request.arg(at), now, wanted))
        };
        let is_so = pairs.any(|pair| matches!(pair, [known, value] if is_name(known) && is_as_wanted(value)));
        if !is_so {
            return write::error_frame(error);
        }
    }
    Bytes::from_static(b"+OK\r\n")
}

/// Whether a parameter is which keyspace notifications there are, and those that are wanted are among them: servers write
/// their letters in an order of their own, and many as `A`.
fn tells_all(name: &[u8], now: &[u8], wanted: &[u8]) -> bool {
    const ALL: &[u8] = b"g$lshzxetd";
    let has =
        |letters: &[u8], letter: u8| letters.contains(&letter) || ALL.contains(&letter) && letters.contains(&b'A');
    let is_on = |&letter: &u8| if letter == b'A' { ALL.iter().all(|&each| has(now, each)) } else { has(now, letter) };
    name.eq_ignore_ascii_case(b"notify-keyspace-events") && !wanted.is_empty() && wanted.iter().all(is_on)
}

fn info_facts(caller: &Caller) -> Facts {
    let clients = caller.router.clients();
    let totals = caller.router.tally().metrics().totals();
    let uptime = clients.since.elapsed().as_secs();
    let (reason, actions, left) = match clients.pause().now(caller.databases.scope()) {
        None => ("none", "none", Duration::ZERO),
        Some((Paused::Writes, left)) => ("client_pause", "write", left),
        Some((Paused::All, left)) => ("client_pause", "all", left),
    };
    // Nodes count the keys of others, too.
    let keyspace = caller.database.as_ref().map(|inside| (info::KEYSPACE, inside.take_keyspace().unwrap_or_default()));
    let modes = ["redis_mode", "server_mode", "valkey_mode"].map(|name| (name, "cluster".to_owned()));
    let of_cluster = modes.into_iter().chain([("cluster_enabled", "1".to_owned())]);
    let of_cluster = of_cluster.filter(|_| caller.presents_cluster());
    let facts = [
        ("tcp_port", caller.client.local().port().to_string()),
        ("process_id", std::process::id().to_string()),
        ("uptime_in_seconds", uptime.to_string()),
        ("uptime_in_days", (uptime / (24 * 3600)).to_string()),
        ("connected_clients", clients.count().to_string()),
        ("blocked_clients", clients.blocked().to_string()),
        ("pubsub_clients", clients.subscribed().to_string()),
        ("tracking_clients", clients.tracking().to_string()),
        ("paused_reason", reason.to_owned()),
        ("paused_actions", actions.to_owned()),
        ("paused_timeout_milliseconds", left.as_millis().to_string()),
        ("maxclients", caller.router.connector().descriptors.max_clients().to_string()),
        ("total_connections_received", clients.ever().to_string()),
        ("rejected_connections", totals.rejected.to_string()),
    ];
    facts.into_iter().chain(keyspace).chain(of_cluster).collect()
}

/// Parameters that tell of one process among many. The nodes' passwords are not for the proxy's clients.
fn config_facts(caller: &Caller) -> Facts {
    let databases = caller.count_databases();
    let mut facts = vec![
        ("port", caller.client.local().port().to_string()),
        ("databases", databases.to_string()),
        ("cluster-enabled", if caller.presents_cluster() { "yes" } else { "no" }.to_owned()),
        ("maxclients", caller.router.connector().descriptors.max_clients().to_string()),
    ];
    let secrets = [
        "masterauth",
        "masteruser",
        "primaryauth",
        "primaryuser",
        "requirepass",
        "tls-client-key-file-pass",
        "tls-key-file-pass",
    ];
    facts.extend(secrets.map(|secret| (secret, String::new())));
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_that_are_on_are_so_in_any_order() {
        for (now, wanted, is_so) in [
            ("AKE", "KEA", true),
            ("AKE", "Ex", true),
            ("g$lshzxetdKE", "KEA", true),
            ("xE", "KEA", false),
            ("xE", "Ex", true),
            ("AKE", "KEAm", false),
            ("AKE", "", false),
            ("", "x", false),
        ] {
            let name = b"Notify-Keyspace-Events";
            assert_eq!(tells_all(name, now.as_bytes(), wanted.as_bytes()), is_so, "{now} {wanted}");
        }
        assert!(!tells_all(b"save", b"AKE", b"KEA"));
    }
}

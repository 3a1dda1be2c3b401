//! Are the nodes where they say they are, as seen from here?

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    Report,
    exam::{Exam, Patient},
    some_of,
};
use crate::{
    cluster::topology::{Topology, View},
    protocol::{names::Name, resp::Value},
};

const ADDRESSES: &str = "addresses";

pub fn judge(exam: &Exam, report: &mut Report) {
    found_elsewhere(exam, report);
    for member in &exam.members {
        lost(exam, member, report);
        wrongly_mapped(exam, member, report);
        announced_badly(exam, member, report);
    }
    without_endpoint(exam, report);
    if let Some(clash) = exam.view.as_ref().and_then(|view| clash(exam, view)) {
        report.problem(
            ADDRESSES,
            Name::Addresses,
            clash,
            "address_map = [\"HOST:PORT=REACHABLE:PORT\", ...], a rule for each of the nodes",
        );
    }
    let reached = exam.members.iter().filter(|member| member.found.sure).count();
    if !report.complains_of(ADDRESSES) && reached > 0 {
        report.ok(ADDRESSES, format!("{reached} nodes are reached where they announce"));
    }
}

/// Nodes that are reached, though not where they announce.
fn found_elsewhere(exam: &Exam, report: &mut Report) {
    let moved = exam.members.iter().filter(|member| {
        let found = &member.found;
        found.sure && found.reach != found.announced && exam.config.address_map.find(&found.announced).is_none()
    });
    let moved: Vec<&Patient> = moved.collect();
    if moved.is_empty() {
        return;
    }
    let told: Vec<String> = moved
        .iter()
        .map(|member| {
            let found = &member.found;
            format!("{} ({}) is reached at {}, found {}", found.announced, found.why_not, found.reach, found.how)
        })
        .collect();
    let rules = moved.iter().map(|member| format!("\"{}={}\"", member.found.announced, member.found.reach));
    report.warning(
        ADDRESSES,
        Name::Addresses,
        format!("announced where this machine does not reach it, and mapped by the proxy: {}", some_of(&told)),
        format!("nothing has to be done; to pin it:  address_map = [{}]", rules.collect::<Vec<_>>().join(", ")),
    );
}

/// A node that is nowhere, though the others are in touch with it.
fn lost(exam: &Exam, member: &Patient, report: &mut Report) {
    let found = &member.found;
    let others_see_it = exam.charts().any(|(_, chart)| {
        chart
            .members()
            .get(found.id.as_str())
            .is_some_and(|other| other.is_well() && other.connected && !other.has("myself"))
    });
    if !found.sure && others_see_it {
        report.problem(
            ADDRESSES,
            Name::Addresses,
            format!(
                "{} ({}) is not reached from here ({}), nor by any seed; the other nodes do reach it",
                found.announced, found.id, found.why_not
            ),
            format!(
                "publish its port and add it to the seeds: --seeds ...,127.0.0.1:{}; or say where it is reached:  \
                 address_map = [\"{}=HOST:PORT\"]",
                found.announced.port, found.announced
            ),
        );
    }
}

/// A rule of the operator's that leads to somebody else, or to nobody.
fn wrongly_mapped(exam: &Exam, member: &Patient, report: &mut Report) {
    let found = &member.found;
    if exam.config.address_map.find(&found.announced).is_none() {
        return;
    }
    let there = match exam.chart(member) {
        Some(chart) => match chart.id() {
            Some(id) if id != found.id => format!("there is another node, {} ({id})", exam.name(id)),
            _ => return,
        },
        None => match &member.chart {
            Some(Err(error)) => error.to_string(),
            _ => "nobody answers there".to_owned(),
        },
    };
    report.problem(
        ADDRESSES,
        Name::Addresses,
        format!("address_map sends {} ({}) to {}: {there}", found.announced, found.id, found.reach),
        format!(
            "correct the rule, or take it away: where a node is reached is found out without one ({}=HOST:PORT)",
            found.announced
        ),
    );
}

/// A node that announces what leads nowhere, or to everybody's own machine.
fn announced_badly(exam: &Exam, member: &Patient, report: &mut Report) {
    let found = &member.found;
    let host = found.announced.host.as_str();
    let ip = host.parse::<IpAddr>().ok();
    let unspecified = ip.is_some_and(|ip| ip.is_unspecified());
    let loopback = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let chart = exam.chart(member);
    let elsewhere = chart.and_then(|chart| chart.peer).is_some_and(|peer| !peer.ip().is_loopback());
    let beside = exam.members.iter().any(|other| !loopback(&other.found.announced.host));
    if !unspecified && !(loopback(host) && (elsewhere || beside)) {
        return;
    }
    let peer = chart.and_then(|chart| chart.peer).map_or("ADDRESS".to_owned(), |peer| peer.ip().to_string());
    let cli = chart.map_or("redis-cli -p PORT".to_owned(), |chart| chart.cli());
    report.problem(
        ADDRESSES,
        Name::Addresses,
        format!("{} ({}) announces {host}, which leads everybody else to themselves", found.announced, found.id),
        format!("{cli} config set cluster-announce-ip {peer}   (and in its configuration file)"),
    );
}

/// Nodes that go by names where some have none: clients are told `?`.
fn without_endpoint(exam: &Exam, report: &mut Report) {
    for (member, chart) in exam.charts() {
        let nodes = chart.reply("CLUSTER SLOTS").items().iter().flat_map(Value::items);
        let nameless = nodes.filter_map(|node| match node.items() {
            [host, _, id, ..] if host.str() == Some("?") => id.str(),
            _ => None,
        });
        let nameless: BTreeSet<String> = nameless.map(|id| exam.name(id)).collect();
        if !nameless.is_empty() {
            let nameless: Vec<String> = nameless.into_iter().collect();
            report.problem(
                ADDRESSES,
                Name::Addresses,
                format!(
                    "{} prefers names and knows none for {}: its clients are told \"?\"",
                    member.found.announced,
                    some_of(&nameless)
                ),
                format!(
                    "on each of those:  config set cluster-announce-hostname NAME   or:  {} config set \
                     cluster-preferred-endpoint-type ip",
                    chart.cli()
                ),
            );
        }
    }
}

/// Two nodes that would be dialled at one address.
fn clash(exam: &Exam, view: &View) -> Option<String> {
    let place = |id: &str| exam.members.iter().find(|member| member.found.id == id);
    let nodes = view.nodes(
        &[],
        |seen| place(&seen.id).map_or(seen.announced.clone(), |member| member.found.reach.clone()),
        |seen| seen.announced.clone(),
    );
    Topology::unknown("").with_layout(nodes, view.slots.clone()).clash()
}

//! Versions, clocks, replicas and limits: what works today and surprises tomorrow.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Report,
    chart::Chart,
    exam::{Exam, Patient},
    some_of,
};
use crate::{
    cluster::topology::{Role, ServerInfo, ServerKind},
    protocol::names::Name,
};

const VERSIONS: &str = "versions";
const CLOCKS: &str = "clocks";
const REPLICAS: &str = "replicas";
const LIMITS: &str = "limits";

/// The oldest Redis that the proxy is meant for: it has ACL users and RESP3.
const OLDEST: (u32, u32, u32) = (6, 0, 0);
/// How many seconds a clock may be off.
const SKEW: f64 = 1.0;
/// How many bytes a replica may be behind.
const LAG: u64 = 16 << 20;
/// How many seconds a replica may be silent.
const SILENCE: u64 = 10;
/// How many clients a node should let in at least: each blocked client and each WATCH takes a connection of its own.
const CLIENTS: u64 = 1000;

pub fn judge(exam: &Exam, report: &mut Report) {
    versions(exam, report);
    clocks(exam, report);
    replicas(exam, report);
    full_coverage(exam, report);
    limits(exam, report);
}

fn name(member: &Patient) -> String {
    member.found.announced.to_string()
}

fn versions(exam: &Exam, report: &mut Report) {
    let mut by_version: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (member, chart) in exam.charts() {
        let server: ServerInfo = chart.server();
        if server.version.is_empty() {
            continue;
        }
        if server.kind == ServerKind::Redis && server.numbers() < OLDEST {
            report.warning(
                VERSIONS,
                Name::Versions,
                format!("{} is Redis {}: the proxy is made for 6.0 and newer", name(member), server.version),
                "upgrade it, one node after the other",
            );
        }
        by_version.entry(format!("{:?} {}", server.kind, server.version)).or_default().push(name(member));
    }
    let told: Vec<String> = by_version.iter().map(|(version, who)| format!("{version} on {}", some_of(who))).collect();
    match by_version.len() {
        0 => {}
        1 => report.ok(VERSIONS, by_version.into_keys().collect::<String>() + " on every node"),
        _ => report.warning(
            VERSIONS,
            Name::Versions,
            format!("the nodes differ: {}", told.join("; ")),
            "commands that only some of them know fail on the others: upgrade the rest",
        ),
    }
}

fn clocks(exam: &Exam, report: &mut Report) {
    let clocks = exam.charts().filter_map(|(member, chart)| Some((member, chart.clock?)));
    let mut most: Option<f64> = None;
    for (member, clock) in clocks {
        if clock.ahead.abs() > SKEW + clock.within {
            let way = if clock.ahead > 0.0 { "ahead of" } else { "behind" };
            report.warning(
                CLOCKS,
                Name::Clocks,
                format!("the clock of {} is {:.1} s {way} this machine's", name(member), clock.ahead.abs()),
                "EXPIREAT, PXAT and replicas' expiry go by it: run NTP (chrony) on its machine; for Docker Desktop after \
                 sleep: start it again",
            );
        }
        most = Some(most.unwrap_or(0.0).max(clock.ahead.abs()));
    }
    if let Some(most) = most.filter(|_| !report.complains_of(CLOCKS)) {
        report.ok(CLOCKS, format!("within {:.0} ms of this machine's", most * 1000.0));
    }
}

fn replicas(exam: &Exam, report: &mut Report) {
    let of = |role: Role| exam.members.iter().filter(move |member| member.seen.role == role);
    let followed: BTreeSet<&str> = of(Role::Replica).filter_map(|member| member.seen.replicates.as_deref()).collect();
    let owners = of(Role::Primary).filter(|member| owns_slots(exam, &member.seen.id));
    let alone: Vec<String> = owners.filter(|member| !followed.contains(&*member.seen.id)).map(name).collect();
    let count = of(Role::Replica).count();
    if count == 0 {
        report.warning(
            REPLICAS,
            Name::Replicas,
            "no node has a replica: the slots of a lost node are not served until it is back",
            "for a cluster that must survive a node, add replicas:  redis-cli --cluster add-node NEW:PORT ANY:PORT \
             --cluster-slave",
        );
    } else if !alone.is_empty() {
        report.warning(
            REPLICAS,
            Name::Replicas,
            format!("no replica follows {}", some_of(&alone)),
            "redis-cli --cluster add-node NEW:PORT ANY:PORT --cluster-slave --cluster-master-id ID",
        );
    }
    for (member, chart) in exam.charts() {
        match chart.info("role") {
            Some("slave") => link(member, chart, report),
            Some("master") => lag(exam, chart, report),
            _ => {}
        }
    }
    if count > 0 && !report.complains_of(REPLICAS) {
        report.ok(REPLICAS, format!("{count}, all of them follow"));
    }
}

fn owns_slots(exam: &Exam, id: &str) -> bool {
    let Some(view) = &exam.view else { return false };
    let place = view.seen.iter().position(|seen| seen.id == id);
    place.is_some_and(|place| view.slots.iter().any(|&owner| usize::from(owner) == place))
}

/// A replica that has lost its primary.
fn link(member: &Patient, chart: &Chart, report: &mut Report) {
    if chart.info("master_link_status") == Some("up") {
        return;
    }
    let since = chart.info("master_link_down_since_seconds").unwrap_or("?");
    let syncing = chart.info("master_sync_in_progress") == Some("1");
    let says = format!(
        "{} does not follow its primary {}:{} (for {since} s{})",
        name(member),
        chart.info("master_host").unwrap_or("?"),
        chart.info("master_port").unwrap_or("?"),
        if syncing { ", copying it now" } else { "" }
    );
    report.problem(
        REPLICAS,
        Name::Replicas,
        says,
        "its log says why (docker logs NODE): `masterauth` where the nodes have a password, the primary's address, or \
         its output buffer (client-output-buffer-limit replica)",
    );
}

/// Replicas that their primary waits for: `slave0:ip=...,port=...,state=online,offset=...,lag=...`.
fn lag(exam: &Exam, chart: &Chart, report: &mut Report) {
    let written = chart.number("master_repl_offset").unwrap_or(0);
    for index in 0..chart.number("connected_slaves").unwrap_or(0).min(16) {
        let Some(line) = chart.info(&format!("slave{index}")) else { continue };
        let field = |key: &str| line.split(',').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let number = |key: &str| field(key).and_then(|value| value.parse::<u64>().ok());
        let behind = written.saturating_sub(number("offset").unwrap_or(written));
        let silent = number("lag").unwrap_or(0);
        if field("state") == Some("online") && behind <= LAG && silent <= SILENCE {
            continue;
        }
        let own = chart.id().map_or_else(|| chart.at.to_string(), |id| exam.name(id));
        report.warning(
            REPLICAS,
            Name::Replicas,
            format!(
                "the replica {}:{} of {own} lags: {behind} bytes behind, silent for {silent} s, {}",
                field("ip").unwrap_or("?"),
                field("port").unwrap_or("?"),
                field("state").unwrap_or("?")
            ),
            "what its primary has acknowledged meanwhile is lost where it takes over: look at its load, disk and network",
        );
    }
}

/// `cluster-require-full-coverage` makes one lost node everybody's outage.
fn full_coverage(exam: &Exam, report: &mut Report) {
    let strict = exam.charts().filter(|(_, chart)| chart.config("cluster-require-full-coverage") == Some("yes"));
    let strict: Vec<String> = strict.map(|(member, _)| name(member)).collect();
    if !strict.is_empty() && report.complains_of(REPLICAS) {
        report.warning(
            "coverage",
            Name::FullCoverage,
            format!("cluster-require-full-coverage is `yes` on {}: one lost node stops all of them", some_of(&strict)),
            "on every node:  redis-cli config set cluster-require-full-coverage no   (and in its configuration file)",
        );
    }
}

fn limits(exam: &Exam, report: &mut Report) {
    for (member, chart) in exam.charts() {
        let (Some(most), Some(now)) = (chart.number("maxclients"), chart.number("connected_clients")) else { continue };
        if most < CLIENTS || now * 10 > most * 8 {
            report.warning(
                LIMITS,
                Name::Limits,
                format!("{} lets in {most} clients, {now} are there", name(member)),
                format!(
                    "each blocked client and each WATCH takes one:  {} config set maxclients 10000   (takes as many open \
                     files: ulimit -n, or ulimits.nofile in compose)",
                    chart.cli()
                ),
            );
        }
    }
    // On one machine it disturbs nobody.
    let open = exam.charts().filter(|(member, chart)| {
        let near = member.found.announced.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        chart.config("protected-mode") == Some("yes") && exam.config.password.is_none() && !near
    });
    let open: Vec<String> = open.map(|(member, _)| name(member)).collect();
    if !open.is_empty() {
        report.warning(
            LIMITS,
            Name::ProtectedMode,
            format!(
                "protected mode is on and no password is set on {}: they serve their own machine only",
                some_of(&open)
            ),
            "a proxy elsewhere is refused: set `requirepass`, or `protected-mode no` where the network is closed",
        );
    }
    if !report.complains_of(LIMITS) && exam.charts().next().is_some() {
        report.ok(LIMITS, "every node has room for more clients");
    }
}

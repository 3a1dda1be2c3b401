//! Do the nodes know and reach each other?

use std::collections::{BTreeMap, BTreeSet};

use super::{Report, exam::Exam, some_of};
use crate::{
    cluster::topology::Member,
    protocol::{address::Address, names::Name},
};

const NODES: &str = "nodes";

/// What others say of one node, and who they are.
#[derive(Default)]
struct Talk {
    failed: Vec<String>,
    suspected: Vec<String>,
    without_address: Vec<String>,
    cut_off: Vec<String>,
    /// How the node looks to those who tell.
    address: String,
    bus: u16,
}

pub fn judge(exam: &Exam, report: &mut Report) {
    let mut talk: BTreeMap<String, Talk> = BTreeMap::new();
    let mut greeted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (member, chart) in exam.charts() {
        let teller = member.found.announced.to_string();
        for other in chart.members().into_values().filter(|other| !other.has("myself")) {
            if other.has("handshake") {
                greeted.entry(place(&other)).or_default().push(teller.clone());
            } else {
                talk.entry(other.id.to_owned()).or_default().hear(&other, &teller);
            }
        }
    }
    for (address, by) in &greeted {
        report.warning(
            NODES,
            Name::Members,
            format!("{} greets {address} and has no answer yet (handshake)", some_of(by)),
            "where it stays so, the nodes do not reach each other's bus port (port + 10000, or cluster-port): open it \
             between them, and with another bus port greet with it:  cluster meet ADDRESS PORT BUSPORT",
        );
    }
    for (id, talk) in &talk {
        talk.judge(id, exam, report);
    }
    strangers(exam, report);
    state(exam, report);
    if !report.complains_of(NODES) {
        report.ok(NODES, format!("{} nodes know each other and are in touch", exam.members.len()));
    }
}

impl Talk {
    fn hear(&mut self, other: &Member, teller: &str) {
        (self.address, self.bus) = (place(other), other.bus);
        let list = if other.has("fail") {
            &mut self.failed
        } else if other.has("fail?") {
            &mut self.suspected
        } else if other.has("noaddr") {
            &mut self.without_address
        } else if !other.connected {
            &mut self.cut_off
        } else {
            return;
        };
        list.push(teller.to_owned());
    }

    fn judge(&self, id: &str, exam: &Exam, report: &mut Report) {
        let answers = exam.members.iter().any(|member| member.seen.id == id && exam.chart(member).is_some());
        let Talk { failed, suspected, without_address, cut_off, address, bus } = self;
        let lost: Vec<String> = [&failed[..], suspected, without_address, cut_off].concat();
        if lost.is_empty() {
            return;
        }
        let failed = !failed.is_empty() || !suspected.is_empty();
        let say = if failed { "call it failed" } else { "have no connection to it" };
        let who = format!("{address} ({id})");
        if !answers {
            report.problem(
                NODES,
                Name::Members,
                format!("{who} is down: we do not reach it, and others {say}: {}", some_of(&lost)),
                format!(
                    "start it again (docker start NODE); one that is gone for ever is taken out, on every other node:  \
                     cluster forget {id}"
                ),
            );
            return;
        }
        let says = format!("{who} answers us, but others {say}: {}", some_of(&lost));
        let remedy = format!(
            "they do not reach its bus port {bus}: open it between the nodes (in docker: one network, or published and \
             announced: cluster-announce-bus-port)"
        );
        if failed {
            report.problem(NODES, Name::Members, says, remedy);
        } else {
            report.warning(
                NODES,
                Name::Members,
                says,
                format!("it passes where an address has just changed; if it stays, {remedy}"),
            );
        }
    }
}

fn place(member: &Member) -> String {
    let host = if member.host.is_empty() { member.hostname } else { member.host };
    if host.is_empty() { "a node without address".to_owned() } else { Address::new(host, member.port).to_string() }
}

/// Nodes of which some others have never heard.
fn strangers(exam: &Exam, report: &mut Report) {
    let ids = |text: BTreeSet<&str>| text.into_iter().map(str::to_owned).collect::<BTreeSet<String>>();
    let known = exam.charts().map(|(member, chart)| {
        let members = chart.members();
        let real = members.values().filter(|other| !other.has("handshake")).map(|other| other.id);
        (member.found.announced.to_string(), ids(real.collect()), chart.cli())
    });
    let known: Vec<(String, BTreeSet<String>, String)> = known.filter(|(_, ids, _)| !ids.is_empty()).collect();
    let all: BTreeSet<String> = known.iter().flat_map(|(_, ids, _)| ids.clone()).collect();
    for (name, ids, cli) in &known {
        let missing: Vec<String> = all.difference(ids).map(|id| exam.name(id)).collect();
        if !missing.is_empty() {
            report.warning(
                NODES,
                Name::Members,
                format!("{name} does not know {}", some_of(&missing)),
                format!("{cli} cluster meet ADDRESS PORT, with the address and port of one that it does not know"),
            );
        }
    }
}

/// Nodes that refuse to serve.
fn state(exam: &Exam, report: &mut Report) {
    let down = exam
        .charts()
        .filter(|(_, chart)| chart.reply("CLUSTER INFO").str().is_some_and(|info| info.contains("cluster_state:fail")));
    let down: Vec<String> = down.map(|(member, _)| member.found.announced.to_string()).collect();
    if !down.is_empty() {
        report.problem(
            NODES,
            Name::ClusterDown,
            format!("cluster_state:fail on {}: they serve nobody", some_of(&down)),
            "a lost node or an uncovered slot is the reason (see there); for the other slots to be served meanwhile, on \
             every node:  config set cluster-require-full-coverage no",
        );
    }
}

//! Do the seeds answer, do they let us in, and do they lead to one cluster?

use super::{
    Report,
    chart::{Chart, Need, cli},
    exam::Exam,
    some_of,
};
use crate::{
    protocol::{address::Address, names::Name, resp::Value, slot::SLOTS},
    upstream::dial::{DialError, DialStep},
};

const SEEDS: &str = "seeds";
const LOGIN: &str = "login";
const TLS: &str = "tls";
const CLUSTER: &str = "cluster";

/// What may be said of a node that cannot be asked: what it is about, what is wrong and what to do.
struct Complaint(&'static str, String, String);

pub fn judge(exam: &Exam, report: &mut Report) {
    let whole = exam.seeds.len();
    let well = exam.clusters.first().map_or(0, Vec::len);
    for (address, visit) in &exam.seeds {
        let complaint = match visit {
            Err(error) => Some(unreachable(address, error)),
            Ok(chart) => refused(chart),
        };
        let Some(Complaint(about, says, remedy)) = complaint else { continue };
        // Where other seeds lead to the cluster, a bad one costs nothing yet.
        let name = match about {
            LOGIN => Name::Login,
            TLS => Name::Tls,
            CLUSTER => Name::NoCluster,
            _ => Name::Seed,
        };
        if well > 0 && (about == SEEDS || about == TLS) {
            report.warning(about, name, says, remedy);
        } else {
            report.problem(about, name, says, remedy);
        }
    }
    if well > 0 {
        report.ok(SEEDS, format!("{well} of {whole} lead to the cluster"));
    }
    permissions(exam, report);
    joined(exam, report);
}

/// A node that cannot be asked at all.
fn unreachable(address: &Address, error: &DialError) -> Complaint {
    let why = &error.why;
    let says = error.to_string();
    match error.step {
        DialStep::Resolve => Complaint(
            SEEDS,
            says,
            "a container's name is known inside its docker network only: run the proxy there \
             (docker run --net NETWORK ...), or name published ports: --seeds 127.0.0.1:7000"
                .to_owned(),
        ),
        DialStep::Connect | DialStep::Login | DialStep::Introduce | DialStep::Identify | DialStep::Ask
            if why.contains("connection reset") || why.contains("closed the connection") =>
        {
            Complaint(
                TLS,
                says,
                format!("it hangs up at the first word: is {} its `tls-port`? then name it as rediss://{address}", address.port),
            )
        }
        DialStep::Connect if why.contains("timed out") => Complaint(
            SEEDS,
            says,
            format!(
                "packets to {} go nowhere: a firewall, or a network that this machine is not on; name an address that \
                 is reached from here, such as a published port: docker run -p 127.0.0.1:{1}:{1} ...",
                address.host, address.port
            ),
        ),
        DialStep::Connect => Complaint(
            SEEDS,
            says,
            format!(
                "nothing listens there for us: does the node run, is its port published (docker ps), is `bind` in its \
                 configuration more than 127.0.0.1?  {} ping",
                cli(address)
            ),
        ),
        DialStep::Secure => Complaint(TLS, says, of_tls(address, why)),
        DialStep::Admission if why.starts_with("DENIED") => Complaint(
            LOGIN,
            says,
            "protected mode: the node serves its own machine only, until it has a password (`requirepass`), or \
             `protected-mode no` where its network is closed:  redis-cli -p PORT config set protected-mode no"
                .to_owned(),
        ),
        DialStep::Admission => Complaint(
            SEEDS,
            says,
            "the node has as many connections as it may have: raise `maxclients`, or find who holds them:  \
             redis-cli -p PORT client list"
                .to_owned(),
        ),
        DialStep::Login if why.contains("without any password") => Complaint(
            LOGIN,
            says,
            "the nodes ask for no password: leave `password` and `password_file` away (SLOTWAY_PASSWORD_FILE=), or set \
             `requirepass` on every node"
                .to_owned(),
        ),
        DialStep::Introduce | DialStep::Login | DialStep::Identify => Complaint(
            LOGIN,
            says,
            "try it by hand: redis-cli --user USER --askpass; then --username USER --password-file FILE".to_owned(),
        ),
        DialStep::Select | DialStep::Readonly | DialStep::Stay | DialStep::Tracking | DialStep::Ask => Complaint(
            SEEDS,
            says,
            format!("something is there and says nothing of use: a frozen node, or no Redis (TLS?)?  {} ping", cli(address)),
        ),
    }
}

/// What to do where TLS is not agreed on; most of it is in the error.
fn of_tls(address: &Address, why: &str) -> String {
    let Address { host, port } = address;
    if why.starts_with("timed out") {
        return format!("nothing was said to our greeting: is {port} the node's `tls-port`, or its plain `port`?");
    }
    format!("see what it shows:  openssl s_client -connect {address} -servername {host} -showcerts </dev/null")
}

/// A node that answers, but not with its view of the cluster.
fn refused(chart: &Chart) -> Option<Complaint> {
    let Value::Error(text) = chart.reply("CLUSTER SLOTS") else {
        let why = chart.view.as_ref().err()?;
        let remedy = format!("is it a Redis or Valkey server?  {} cluster slots", chart.cli());
        return Some(Complaint(SEEDS, format!("{}: {why}", chart.at), remedy));
    };
    let text = String::from_utf8_lossy(text);
    let says = format!("{}: {text}", chart.at);
    let complaint = |about, remedy: &str| Some(Complaint(about, says.clone(), remedy.to_owned()));
    if text.starts_with("NOAUTH") {
        return complaint(LOGIN, "it asks for a password: --password-file FILE, or SLOTWAY_PASSWORD_FILE=FILE");
    }
    if text.starts_with("NOPERM") {
        // Told with all other commands that are forbidden.
        return Some(Complaint(LOGIN, says, acl_line(&chart.forbidden())));
    }
    if text.ends_with("cluster support disabled") {
        return complaint(
            CLUSTER,
            "it is no cluster node: put `cluster-enabled yes` into its configuration and start it again",
        );
    }
    complaint(SEEDS, "look into the node's log (docker logs NODE)")
}

/// Commands that the proxy sends and the nodes' ACL does not let it.
fn permissions(exam: &Exam, report: &mut Report) {
    let joined = exam.seeds.iter().filter_map(|(_, visit)| visit.as_ref().ok()).filter(|chart| chart.view.is_ok());
    let all = joined.chain(exam.charts().map(|(_, chart)| chart));
    let mut forbidden: Vec<(&'static str, Need)> = all.flat_map(Chart::forbidden).collect();
    forbidden.sort_by_key(|(question, _)| *question);
    forbidden.dedup_by_key(|(question, _)| *question);
    if forbidden.is_empty() {
        if exam.view.is_some() {
            report.ok(LOGIN, "the nodes let us in, and allow what the proxy needs");
        }
        return;
    }
    let named = |needed: &dyn Fn(Need) -> bool| -> Vec<String> {
        forbidden.iter().filter(|(_, need)| needed(*need)).map(|(question, _)| (*question).to_owned()).collect()
    };
    let (needed, asked_here) = (named(&|need| need != Need::Doctor), named(&|need| need == Need::Doctor));
    let vital = forbidden.iter().any(|(_, need)| *need == Need::Vital);
    if !needed.is_empty() {
        let says = format!("the nodes' ACL forbids this user what the proxy sends: {}", some_of(&needed));
        let remedy = acl_line(&forbidden);
        if vital {
            report.problem(LOGIN, Name::Login, says, remedy)
        } else {
            report.warning(LOGIN, Name::Login, says, remedy)
        }
    }
    if !asked_here.is_empty() {
        report.ok(LOGIN, format!("not looked at, since this user may not: {}", asked_here.join(", ")));
    }
}

/// The rules that allow these questions.
fn acl_line(forbidden: &[(&'static str, Need)]) -> String {
    let mut rules: Vec<String> = Vec::new();
    for (question, _) in forbidden.iter().filter(|(_, need)| *need != Need::Doctor) {
        let mut words = question.split(' ');
        let (command, sub) = (words.next().unwrap_or_default(), words.next());
        let rule = match (command, sub) {
            ("EXISTS" | "WATCH", _) => format!("+{} ~*", command.to_lowercase()),
            ("ACL" | "CLUSTER" | "CLIENT", Some(sub)) => format!("+{}|{}", command.to_lowercase(), sub.to_lowercase()),
            ("MULTI" | "DISCARD", _) => "+multi +exec +discard".to_owned(),
            _ => format!("+{}", command.to_lowercase()),
        };
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    format!("on every node:  redis-cli acl setuser USER {}", rules.join(" "))
}

/// Seeds that are alone or lead elsewhere.
fn joined(exam: &Exam, report: &mut Report) {
    let charts = |places: &Vec<usize>| -> Vec<&Chart> {
        places.iter().filter_map(|&place| exam.seeds.get(place)?.1.as_ref().ok()).collect()
    };
    let Some((first, others)) = exam.clusters.split_first() else { return };
    let covered = exam.view.as_ref().map_or(0, |view| view.covered());
    if covered == 0 {
        let all: Vec<&Chart> = exam.clusters.iter().flat_map(charts).collect();
        return report.problem(
            CLUSTER,
            Name::NoCluster,
            "the nodes answer, but no slot has an owner: no cluster is formed yet",
            {
                // CLUSTER MEET takes addresses only.
                let addresses =
                    all.iter().map(|chart| chart.peer.map_or(chart.at.to_string(), |peer| peer.to_string()));
                let addresses: Vec<String> = addresses.collect();
                let more = if all.len() < 3 { " HOST:PORT ... (three masters at least)" } else { "" };
                format!("redis-cli --cluster create {}{more} --cluster-yes", addresses.join(" "))
            },
        );
    }
    let known = charts(first);
    let member = known.first().and_then(|chart| chart.peer);
    for chart in others.iter().flat_map(charts) {
        let covered = chart.view.as_ref().map_or(0, |view| view.covered());
        if covered == 0 && chart.members().len() <= 1 {
            let target = member.map_or("ADDRESS PORT".to_owned(), |peer| format!("{} {}", peer.ip(), peer.port()));
            report.problem(
                CLUSTER,
                Name::NoCluster,
                format!("{} has not joined: it knows no other node and owns no slot", chart.at),
                format!("{} cluster meet {target}", chart.cli()),
            );
        } else {
            report.problem(
                CLUSTER,
                Name::OtherCluster,
                format!(
                    "{} is in another cluster than {} ({covered} of {SLOTS} slots, {} nodes there)",
                    chart.at,
                    known.first().map_or(String::new(), |chart| chart.at.to_string()),
                    chart.members().len(),
                ),
                "name seeds of one cluster only",
            );
        }
    }
}

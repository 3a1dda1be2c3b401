//! One refresh's questions: asking a few nodes how they see the cluster.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tracing::{info, warn};

use super::{failing, framing, identity::ClusterIdentity, names::Resolved};
use crate::{
    cluster::topology::{Accepts, ServerInfo, View},
    commands::table::CommandTable,
    protocol::{address::Address, resp::Value},
    upstream::dial::{Control, DialError, DialStep, Dialer, Login},
};

/// How many answers are enough: one may be behind the times, and each costs its node some work.
const ENOUGH: usize = 3;
/// A node that has not answered by then may be stuck: others are asked as well.
const HEDGE: Duration = Duration::from_millis(300);
/// How long the others are waited for once one has answered.
const GRACE: Duration = Duration::from_millis(150);
/// The most time that one node may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Learning the commands is a large reply, of which a busy node may take its time.
const LEARNING: Duration = Duration::from_secs(3);
/// How many failures a text names.
const MOST_FAILURES: usize = 3;

/// What a refresh brought.
pub struct Survey {
    /// What nodes said.
    pub answers: Vec<NodeAnswer>,
    /// What nodes of other clusters said.
    pub strangers: Vec<NodeAnswer>,
    /// Who could not be asked, and why.
    pub failures: Vec<DialError>,
    /// Where the seeds' names lead.
    pub resolved: Resolved,
    /// A server not met before, and its commands.
    pub learnt: Option<(ServerInfo, Arc<CommandTable>)>,
}

/// What one node said.
pub struct NodeAnswer {
    /// Where it was asked.
    pub asked: Address,
    /// The node's id; `None` where it does not tell.
    pub id: Option<String>,
    /// How it sees the cluster.
    pub view: View,
    /// Which server it runs.
    pub server: ServerInfo,
    /// What it takes from one connection; `None` where it was not asked, or does not tell.
    pub accepts: Option<Accepts>,
    /// The node says that the cluster is down.
    pub failed: bool,
    /// The ids of the nodes that it holds for failing.
    pub accused: HashSet<String>,
}

impl NodeAnswer {
    /// The node's id, or else its address.
    pub fn name(&self) -> String {
        self.id.clone().unwrap_or_else(|| self.asked.to_string())
    }
}

impl Survey {
    /// What the operator can do about the failures.
    pub fn remedy(&self) -> &'static str {
        let least = self
            .failures
            .iter()
            .max_by_key(|failure| failure.step != DialStep::Resolve && failure.step != DialStep::Connect);
        least.map_or("name some nodes of the cluster: --seeds HOST:PORT,HOST:PORT", DialError::remedy)
    }

    /// Which nodes could not be asked, and why, for a person.
    pub fn failures_text(&self) -> String {
        // In an order of their own, so that the same trouble makes the same text.
        let mut all: Vec<&DialError> = self.failures.iter().collect();
        all.sort_by_key(|failure| failure.node.to_string());
        let shown = all.iter().take(MOST_FAILURES).map(|failure| format!("{}: {}", failure.node, failure.why));
        let more = self.failures.len().saturating_sub(MOST_FAILURES);
        let more = (more > 0).then(|| format!("and {more} more"));
        let text = shown.chain(more).collect::<Vec<_>>().join("; ");
        if text.is_empty() { "there is nobody to ask".to_owned() } else { text }
    }
}

/// Asks the candidates, the first ones first: as many as are enough, and others only where those fail or hesitate.
/// Who is of another cluster than `identity` counts as one that fails. A server that is not among `known` is asked for its
/// commands too.
pub async fn survey(
    candidates: Vec<Address>,
    identity: ClusterIdentity,
    login: Login,
    dialer: Dialer,
    known: Vec<ServerInfo>,
    asks_limits: bool,
) -> Survey {
    let dialer = dialer.within(dialer.patience().min(PATIENCE));
    let mut waiting = VecDeque::from(candidates);
    let mut asking = JoinSet::new();
    let mut survey =
        Survey { answers: Vec::new(), strangers: Vec::new(), failures: Vec::new(), resolved: Vec::new(), learnt: None };
    let mut wanted = ENOUGH;
    let mut until = Instant::now() + HEDGE;
    loop {
        while asking.len() < wanted
            && let Some(address) = waiting.pop_front()
        {
            let (login, dialer) = (login.clone(), dialer.clone());
            asking.spawn(async move { ask(address, &login, &dialer, asks_limits).await });
        }
        match timeout_at(until, asking.join_next()).await {
            Ok(None) => break,
            Ok(Some(Ok(Ok(answer)))) if !identity.has(&answer.view) => survey.strangers.push(answer),
            Ok(Some(Ok(Ok(answer)))) => {
                if survey.answers.is_empty() {
                    until = Instant::now() + GRACE;
                    waiting.clear();
                }
                survey.answers.push(answer);
            }
            Ok(Some(Ok(Err(failure)))) => survey.failures.push(failure),
            Ok(Some(Err(_))) => {}
            Err(_) if !survey.answers.is_empty() => break,
            Err(_) => {
                wanted = asking.len() + ENOUGH;
                until = Instant::now() + HEDGE;
            }
        }
    }
    let answers = if survey.answers.is_empty() { &survey.strangers } else { &survey.answers };
    survey.learnt = learn(answers, &login, &dialer, &known).await;
    survey
}

/// Asks one node for everything, in one write.
async fn ask(address: Address, login: &Login, dialer: &Dialer, asks_limits: bool) -> Result<NodeAnswer, DialError> {
    const QUESTIONS: [&str; 7] = [
        "CLUSTER MYID",
        "CLUSTER SLOTS",
        "CLUSTER NODES",
        "CLUSTER SHARDS",
        "CLUSTER INFO",
        "INFO server",
        "COMMAND COUNT",
    ];
    let mut control = Control::open(&address, login, dialer).await?;
    let more: &[&str] = if asks_limits { &Accepts::QUESTIONS } else { &[] };
    let replies = control.ask_all(&[&QUESTIONS, more].concat()).await?;
    let useless = |why: String| DialError { node: address.clone(), step: DialStep::Ask, why, permanent: false };
    let [id, slots, nodes, shards, state, info, count, limits @ ..] = replies.as_slice() else {
        return Err(useless("replies are missing".to_owned()));
    };
    let view = View::parse(slots, nodes.str(), Some(shards), &address).map_err(|bad| useless(bad.to_string()))?;
    let command_count = count.integer().and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
    let server = ServerInfo { command_count, ..ServerInfo::from_info(info.str().unwrap_or_default()) };
    let failed = state.str().is_some_and(|state| state.lines().any(|line| line == "cluster_state:fail"));
    let accused = failing::accused(nodes.str().unwrap_or_default());
    let accepts = Accepts::of(limits);
    Ok(NodeAnswer { id: id.str().map(str::to_owned), view, server, accepts, failed, asked: address, accused })
}

/// Learns the commands of the newest server among the answers, unless that is `known`.
async fn learn(
    answers: &[NodeAnswer],
    login: &Login,
    dialer: &Dialer,
    known: &[ServerInfo],
) -> Option<(ServerInfo, Arc<CommandTable>)> {
    let newest = answers.iter().max_by_key(|answer| answer.server.newness())?;
    if known.iter().any(|known| known.newness() == newest.server.newness()) {
        return None;
    }
    let patient = dialer.within(LEARNING);
    let replies = async {
        let mut control = Control::open(&newest.asked, login, &patient).await?;
        let mut replies = control.ask_all(&["COMMAND", "CONFIG GET cluster-databases", "MODULE LIST"]).await?;
        let table = CommandTable::learn(&replies.remove(0));
        let table = match table {
            Ok(table) => {
                let names = control.ask_all(&[&table.question()]).await?;
                Ok(table.with_names(names.first().unwrap_or(&Value::Null)))
            }
            none => none,
        };
        Ok::<_, DialError>((table, replies))
    };
    let (replies, framing) = tokio::join!(replies, framing::learn(&newest.asked, login, dialer));
    let (table, replies) = replies.inspect_err(|why| warn!("cannot learn the commands: {why}")).ok()?;
    let [databases, modules] = replies.as_slice() else { return None };
    let databases = databases.field("cluster-databases").and_then(Value::integer);
    let databases = databases.and_then(|count| u32::try_from(count).ok()).unwrap_or(1).max(1);
    let commands = match table {
        Ok(commands) => Arc::new(commands),
        Err(why) => {
            info!("{} does not tell its commands, the built-in table serves: {why}", newest.asked);
            CommandTable::builtin()
        }
    };
    let modules = modules.items().to_vec();
    Some((ServerInfo { databases, modules, framing, ..newest.server.clone() }, commands))
}

#[cfg(test)]
mod tests;

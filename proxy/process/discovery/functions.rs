//! Functions for a primary that joins.
//!
//! A node that joins has no functions until somebody loads them there, while the cluster's clients call them. So a
//! primary that newly appears is given the libraries that all others have, before FCALL is sent to it. What is careful
//! about it: nothing is overwritten; only what *every* other owner of slots has is given, so that a deletion under way is
//! not undone; and after longer than any request takes it is looked once more whether the others still have what was
//! given: if not, it is taken back.
//!
//! A node that has missed a change, since a script kept it busy just when the others made it, is made like them as soon
//! as it listens: all that it has then counts as given.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::{
    Discovery, Done,
    schedule::{CALM, GAP},
};
use crate::{
    cluster::topology::{Node, Role, Topology},
    protocol::{address::Address, resp::Value},
    upstream::dial::{Control, Dialer, Login},
};

/// The most time that giving may take: FCALL waits for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried where nodes take longer; FCALL waits for the first try alone.
const TRIES: u32 = 4;

/// A library, as FUNCTION LIST WITHCODE tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    name: String,
    code: Vec<u8>,
}

/// Which primaries are known to have the functions.
#[derive(Default)]
pub struct Functions {
    /// By node id: whether it owned slots and was a primary when last seen. Empty before the first layout.
    seen: HashMap<String, NodeStanding>,
    /// What was given to nodes and may have to be taken back, by node id.
    gifts: HashMap<String, Vec<Library>>,
    /// Nodes that have missed a change.
    behind: HashSet<String>,
    /// The servers have no functions, or the proxy's user may not see them.
    off: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NodeStanding {
    Replica,
    Slotless,
    Owner,
}

/// Work to be done for a primary.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its node id.
    pub id: String,
    label: String,
    reach: Address,
    /// The other owners of slots.
    others: Vec<Address>,
    gifts: Vec<Library>,
    /// The node has missed a change: all that it has counts as a gift.
    is_behind: bool,
    /// How often it took too long.
    late: u32,
}

/// The outcome of a task.
pub struct Outcome {
    /// The task.
    pub task: Task,
    /// What is now at the node by the proxy's hand.
    pub gifts: Vec<Library>,
    /// How many libraries were given.
    pub given: u64,
    /// All other primaries have been heard.
    pub complete: bool,
    /// How often the task has taken too long, where it may be tried again.
    pub late: Option<u32>,
    /// All that was to be done has been.
    done: bool,
    off: bool,
}

impl Functions {
    /// Looks at a new layout: the primaries that need looking after, and whether FCALL has to wait for that.
    pub fn meet(&mut self, next: &Topology) -> Vec<(Task, bool)> {
        let counts = next.slot_counts();
        let standing = |(node, slots): (&std::sync::Arc<Node>, usize)| {
            let standing = match node.role {
                Role::Replica => NodeStanding::Replica,
                Role::Primary if slots == 0 => NodeStanding::Slotless,
                Role::Primary => NodeStanding::Owner,
            };
            (node.id.clone(), standing)
        };
        let now: HashMap<String, NodeStanding> = next.nodes.iter().zip(counts).map(standing).collect();
        if !now.values().any(|standing| *standing == NodeStanding::Owner) {
            return Vec::new();
        }
        let before = std::mem::replace(&mut self.seen, now);
        if before.is_empty() || self.off {
            return Vec::new();
        }
        self.gifts.retain(|id, _| self.seen.contains_key(id));
        self.behind.retain(|id| self.seen.get(id) == Some(&NodeStanding::Owner));
        let rises = |node: &&std::sync::Arc<Node>| {
            let now = self.seen.get(&node.id).copied().unwrap_or(NodeStanding::Replica);
            now > before.get(&node.id).copied().unwrap_or(NodeStanding::Replica)
        };
        let task = |node: &std::sync::Arc<Node>| (self.task(node, next), !before.contains_key(&node.id));
        next.nodes.iter().filter(rises).map(task).collect()
    }

    /// These nodes have missed a change that others have made.
    pub fn missed(&mut self, ids: &[String]) {
        self.behind.extend(ids.iter().filter(|_| !self.off).cloned());
    }

    /// The nodes that have missed a change.
    pub fn behind(&self) -> Vec<String> {
        let mut behind: Vec<String> = self.behind.iter().cloned().collect();
        behind.sort_unstable();
        behind
    }

    /// Whether a node has missed a change.
    pub fn is_behind(&self, id: &str) -> bool {
        self.behind.contains(id)
    }

    /// The task of looking after a node once more; `None` where it is no primary, or functions are given to nobody.
    pub fn again(&self, id: &str, topology: &Topology) -> Option<Task> {
        topology.node(id).filter(|node| node.role == Role::Primary && !self.off).map(|node| self.task(node, topology))
    }

    /// Notes the outcome of a task.
    pub fn done(&mut self, outcome: Outcome) {
        let Outcome { task, gifts, done, off, .. } = outcome;
        self.off |= off;
        if done || self.off {
            self.behind.remove(&task.id);
        }
        if gifts.is_empty() || self.gifts.len() > 1024 {
            self.gifts.remove(&task.id);
        } else {
            self.gifts.insert(task.id, gifts);
        }
    }

    fn task(&self, node: &Node, topology: &Topology) -> Task {
        let others = topology.owners().filter(|other| other.id != node.id && !self.is_behind(&other.id));
        Task {
            id: node.id.clone(),
            label: node.label.to_string(),
            reach: node.reach.clone(),
            others: others.map(|other| other.reach.clone()).collect(),
            is_behind: self.is_behind(&node.id),
            gifts: self.gifts.get(&node.id).cloned().unwrap_or_default(),
            late: 0,
        }
    }
}

impl Task {
    /// The task, which has taken too long so many times.
    pub fn late(self, late: u32) -> Task {
        Task { late, ..self }
    }
}

/// Why nothing was done.
enum NotDone {
    /// There is no use in trying again.
    Never(String),
    Now(String),
}

/// Does the work for a primary, after a while.
pub async fn look_after(task: Task, after: Duration, login: Login, dialer: Dialer) -> Outcome {
    tokio::time::sleep(after).await;
    let gifts = task.gifts.clone();
    let mut outcome = Outcome { gifts, task, given: 0, complete: false, late: None, done: false, off: false };
    let work = reconcile(&mut outcome, &login, &dialer);
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(())) => outcome.done = outcome.complete,
        Ok(Err(NotDone::Never(why))) => {
            info!("functions are not given to primaries that join: {why}");
            outcome.off = true;
        }
        Ok(Err(NotDone::Now(why))) => debug!("functions for {}: {why}", outcome.task.label),
        Err(_) if outcome.task.late + 1 < TRIES => outcome.late = Some(outcome.task.late + 1),
        Err(_) => warn!("node {} may lack functions: it took too long to compare them", outcome.task.label),
    }
    outcome
}

async fn reconcile(outcome: &mut Outcome, login: &Login, dialer: &Dialer) -> Result<(), NotDone> {
    let Outcome { task, gifts, given, complete, .. } = outcome;
    let mut node = Control::open(&task.reach, login, dialer).await.map_err(|why| NotDone::Now(why.to_string()))?;
    // Before the others: what is deleted everywhere in between is then not taken for missing here.
    let there = list(&mut node).await?;
    if task.is_behind {
        gifts.clone_from(&there);
    }
    let others = Others::ask(&task.others, login, dialer).await?;
    *complete = others.complete;
    take_back(&mut node, task, gifts, &others).await?;
    let lacks = |library: &&Library| !there.iter().any(|other| other.name == library.name);
    let mut names = Vec::new();
    for library in others.libraries.values().flatten().filter(lacks) {
        let request: [&[u8]; 3] = [b"FUNCTION", b"LOAD", &library.code];
        match node.ask(&request).await.map_err(|why| NotDone::Now(why.to_string()))? {
            Value::Error(why) => warn!(
                "node {} lacks the function library {}, and does not take it: {}",
                task.label,
                library.name,
                why.escape_ascii()
            ),
            _ => {
                names.push(library.name.clone());
                gifts.push(library.clone());
            }
        }
    }
    if names.is_empty() {
        return Ok(());
    }
    *given = names.len() as u64;
    info!("node {} was given function libraries that all other primaries have: {}", task.label, names.join(", "));
    // They may have been deleted while they were on their way.
    let others = Others::ask(&task.others, login, dialer).await?;
    *complete = others.complete;
    take_back(&mut node, task, gifts, &others).await
}

/// Deletes what was given where no other primary has it any more, and brings up to date what all others have anew. What
/// somebody else has changed since is nobody's gift any more.
async fn take_back(node: &mut Control, task: &Task, gifts: &mut Vec<Library>, others: &Others) -> Result<(), NotDone> {
    if gifts.is_empty() || !others.complete {
        return Ok(());
    }
    let there = list(node).await?;
    gifts.retain(|gift| there.contains(gift));
    let mut at = 0;
    while let Some(gift) = gifts.get_mut(at) {
        let theirs = others.libraries.get(&gift.name);
        let request: Vec<&[u8]> = match theirs {
            None => vec![b"FUNCTION", b"DELETE", gift.name.as_bytes()],
            Some(Some(newer)) if newer != gift => vec![b"FUNCTION", b"LOAD", b"REPLACE", &newer.code],
            Some(_) => {
                at += 1;
                continue;
            }
        };
        info!("node {}: function library {} has been changed or deleted elsewhere, here too", task.label, gift.name);
        node.ask(&request).await.map_err(|why| NotDone::Now(why.to_string()))?;
        match theirs.cloned().flatten() {
            Some(newer) => *gift = newer,
            None => drop(gifts.remove(at)),
        }
    }
    Ok(())
}

/// What the other owners of slots have.
struct Others {
    /// By name; `None` for those that are not on all of them, or not alike.
    libraries: HashMap<String, Option<Library>>,
    /// All of them have answered.
    complete: bool,
}

impl Others {
    /// Asks them all. Who does not answer is left out.
    async fn ask(others: &[Address], login: &Login, dialer: &Dialer) -> Result<Others, NotDone> {
        let mut asking = JoinSet::new();
        for address in others {
            let (address, login, dialer) = (address.clone(), login.clone(), dialer.clone());
            asking.spawn(async move {
                let control = Control::open(&address, &login, &dialer).await;
                list(&mut control.map_err(|why| NotDone::Now(why.to_string()))?).await
            });
        }
        let (mut lists, mut failure) = (Vec::new(), NotDone::Now("there is no other primary".to_owned()));
        while let Some(listed) = asking.join_next().await {
            match listed {
                Ok(Ok(libraries)) => lists.push(libraries),
                Ok(Err(why @ NotDone::Never(_))) => return Err(why),
                Ok(Err(why)) => failure = why,
                Err(_) => {}
            }
        }
        if lists.is_empty() {
            return Err(failure);
        }
        let everywhere = |library: &&Library| lists.iter().all(|list| list.contains(library));
        let all = lists.iter().flatten();
        let libraries = all.map(|library| (library.name.clone(), Some(library).filter(everywhere).cloned())).collect();
        Ok(Others { libraries, complete: lists.len() == others.len() })
    }
}

async fn list(node: &mut Control) -> Result<Vec<Library>, NotDone> {
    let listed = node.ask(&["FUNCTION", "LIST", "WITHCODE"]).await.map_err(|why| NotDone::Now(why.to_string()))?;
    if let Value::Error(why) = &listed {
        let why = String::from_utf8_lossy(why).into_owned();
        let for_ever = why.starts_with("NOPERM") || why.contains("unknown command");
        return Err(if for_ever { NotDone::Never(why) } else { NotDone::Now(why) });
    }
    let library = |value: &Value| {
        let (name, code) = (value.field("library_name")?.str()?, value.field("library_code")?.text()?);
        Some(Library { name: name.to_owned(), code: code.to_vec() })
    };
    Ok(listed.items().iter().filter_map(library).collect())
}

impl Discovery {
    /// Looks after the primaries that are new in a snapshot; FCALL to them waits until that is done.
    pub(super) fn meet_primaries(&mut self, next: &mut Topology) {
        for (task, waits) in self.functions.meet(next) {
            if waits {
                next.unready.push(task.id.clone());
            }
            self.look_after(task, Duration::ZERO, true);
        }
        next.unready.retain(|id| next.nodes.iter().any(|node| node.id == *id));
        next.behind = self.functions.behind();
    }

    /// Makes the functions of a node that has missed a change like those of the others.
    pub(super) fn make_alike(&mut self, id: &str, after: Duration) {
        let current = self.current();
        self.publish((*current).clone());
        if let Some(task) = self.functions.again(id, &current) {
            self.look_after(task, after, true);
        }
    }

    fn look_after(&mut self, task: Task, after: Duration, first: bool) {
        let work = look_after(task, after, self.login.clone(), self.dialer.clone());
        self.jobs.spawn(async move { Done::LookedAfter(work.await, first) });
    }

    pub(super) fn looked_after(&mut self, outcome: Outcome, first: bool) {
        let id = outcome.task.id.clone();
        self.metrics.functions_given(outcome.given);
        let look_again = !outcome.gifts.is_empty() && (first || !outcome.complete);
        let late = outcome.late;
        self.functions.done(outcome);
        if self.functions.is_behind(&id) {
            return self.make_alike(&id, GAP);
        }
        let mut next = (*self.current()).clone();
        if next.unready.contains(&id) || next.behind.contains(&id) {
            next.unready.retain(|unready| *unready != id);
            self.publish(next);
        }
        if (look_again || late.is_some())
            && let Some(again) = self.functions.again(&id, &self.current())
        {
            match late {
                Some(late) => self.look_after(again.late(late), GAP, first),
                None => self.look_after(again, self.request_timeout + CALM, false),
            }
        }
    }
}

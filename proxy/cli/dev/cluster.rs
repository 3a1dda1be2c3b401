//! Making separate nodes a cluster.

use std::{collections::HashMap, time::Duration};

use slotway::{
    protocol::resp::Value,
    upstream::dial::{Control, Dialer, Login},
};
use tokio::time::{Instant, sleep};

use super::{
    Failure,
    nodes::{DevNode, Layout, Role},
};

/// How long nodes may take to start, to meet, and to agree.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often something awaited is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Gives the primaries their slots, makes all nodes meet, attaches the replicas, and waits until all is well.
pub async fn form(plan: &Layout) -> Result<(), Failure> {
    let end = Instant::now() + PATIENCE;
    let mut members = Vec::new();
    for node in plan.nodes() {
        members.push(DevMember { node, control: connect(node, end).await? });
    }
    for (index, member) in members.iter_mut().enumerate() {
        member.tell(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]).await?;
        if let Role::Primary(first, last) = member.node.part {
            // One by one, since ADDSLOTSRANGE is younger than some servers that people have.
            let slots: Vec<String> = (first..=last).map(|slot| slot.to_string()).collect();
            let words: Vec<&str> =
                ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str)).collect();
            member.tell(&words).await?;
        }
    }
    let ports: Vec<String> = plan.ports().map(|port| port.to_string()).collect();
    if let Some(first) = members.first_mut() {
        for port in ports.iter().skip(1) {
            first.tell(&["CLUSTER", "MEET", "127.0.0.1", port]).await?;
        }
    }
    let everybody = format!("cluster_known_nodes:{}", members.len());
    for member in &mut members {
        member.wait_for(&["CLUSTER", "INFO"], &everybody, end).await?;
    }
    attach_replicas(&mut members, end).await?;
    for member in &mut members {
        member.wait_for(&["CLUSTER", "INFO"], "cluster_state:ok", end).await?;
        if matches!(member.node.part, Role::Replica(_)) {
            member.wait_for(&["INFO", "replication"], "master_link_status:up", end).await?;
        }
    }
    Ok(())
}

async fn attach_replicas(members: &mut [DevMember], end: Instant) -> Result<(), Failure> {
    let mut ids = HashMap::new();
    for member in members.iter_mut() {
        let id = member.ask(&["CLUSTER", "MYID"]).await?;
        ids.insert(member.node.port, id.str().unwrap_or_default().to_owned());
    }
    for member in members {
        let Role::Replica(primary) = member.node.part else { continue };
        let Some(id) = ids.get(&primary) else { continue };
        // Nodes that have just met may not know each other's part yet.
        while let Err(why) = member.tell(&["CLUSTER", "REPLICATE", id]).await {
            if Instant::now() > end {
                return Err(why);
            }
            sleep(LOOK).await;
        }
    }
    Ok(())
}

async fn connect(node: DevNode, end: Instant) -> Result<Control, Failure> {
    loop {
        let why = match Control::open(&node.address(), &Login::default(), &Dialer::default()).await {
            Ok(mut control) => match control.ask(&["PING"]).await {
                Ok(Value::Text(_)) => return Ok(control),
                other => format!("{other:?}"),
            },
            Err(error) => error.to_string(),
        };
        if Instant::now() > end {
            return Err(Failure::of(&format!("node {} does not start", node.port), why));
        }
        sleep(LOOK).await;
    }
}

/// A node, and our connection to it.
struct DevMember {
    node: DevNode,
    control: Control,
}

impl DevMember {
    async fn ask(&mut self, words: &[&str]) -> Result<Value, Failure> {
        self.control.ask(words).await.map_err(|error| Failure::of("cannot form the cluster", error))
    }

    /// Asks, and takes an error that the node says for a failure.
    async fn tell(&mut self, words: &[&str]) -> Result<(), Failure> {
        match self.ask(words).await? {
            Value::Error(error) => {
                let command = words.get(..2).unwrap_or(words).join(" ");
                let error = String::from_utf8_lossy(&error).into_owned();
                Err(Failure::of("cannot form the cluster", format!("node {}: {command}: {error}", self.node.port)))
            }
            _ => Ok(()),
        }
    }

    /// Waits until the answer has this line.
    async fn wait_for(&mut self, words: &[&str], line: &str, end: Instant) -> Result<(), Failure> {
        loop {
            let answer = self.ask(words).await?;
            let answer = answer.str().unwrap_or_default();
            if answer.lines().any(|said| said == line) {
                return Ok(());
            }
            if Instant::now() > end {
                let why = format!("node {} does not come to say {line}:\n{answer}", self.node.port);
                return Err(Failure::of("cannot form the cluster", why));
            }
            sleep(LOOK).await;
        }
    }
}

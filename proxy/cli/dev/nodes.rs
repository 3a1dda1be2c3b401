//! The nodes of `slotway dev`: which there are, and their processes.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use slotway::{
    protocol::{address::Address, resp::Value, slot::SLOTS},
    upstream::dial::{Control, Dialer, Login},
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{BUS, Failure};
use crate::cli::{flags::DevFlags, say};

/// How long a node may take to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(3);
/// How much of a dead node's log is shown.
const LAST_LINES: usize = 5;
/// How often is looked whether a node has ended.
const LOOK: Duration = Duration::from_millis(50);

/// Which nodes there are to be.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The first port.
    pub base: u16,
    /// Nodes that own slots; they come first.
    pub primaries: u16,
    replicas: u16,
}

/// One node that is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevNode {
    /// Its port.
    pub port: u16,
    /// What it is.
    pub part: Role,
}

/// A node's part in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A primary that owns the slots from the first to the last.
    Primary(usize, usize),
    /// A replica of the node at this port.
    Replica(u16),
}

impl Layout {
    /// The plan that the flags describe.
    pub fn of(flags: &DevFlags) -> Result<Layout, Failure> {
        let plan = Layout { base: flags.base_port, primaries: flags.primaries, replicas: flags.replicas };
        let highest = u32::from(plan.base) + u32::from(BUS) + u32::from(plan.primaries * (1 + plan.replicas)) - 1;
        if plan.base == 0 || highest > u32::from(u16::MAX) {
            return Err(Failure::Config(format!(
                "--base-port {}: the nodes need ports up to {highest} (each also one {BUS} higher); choose one like 7000",
                plan.base
            )));
        }
        Ok(plan)
    }

    /// The nodes, primaries first, in the order of their slots.
    pub fn nodes(&self) -> impl Iterator<Item = DevNode> + '_ {
        let count = usize::from(self.primaries);
        // Rounded as redis-cli does it: 0-5460, 5461-10922, 10923-16383 for three.
        let bound = move |index: usize| (index * SLOTS + count / 2) / count;
        self.ports().enumerate().map(move |(index, port)| {
            let part = match index < count {
                true => Role::Primary(bound(index), bound(index + 1) - 1),
                false => Role::Replica(self.base + (index % count) as u16),
            };
            DevNode { port, part }
        })
    }

    /// Their ports.
    pub fn ports(&self) -> impl Iterator<Item = u16> + use<> {
        self.base..self.base + self.primaries * (1 + self.replicas)
    }

    /// Their addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Address> + '_ {
        self.nodes().map(DevNode::address)
    }
}

impl DevNode {
    /// Where it listens.
    pub fn address(self) -> Address {
        Address::new("127.0.0.1", self.port)
    }

    /// What it is, for people.
    pub fn what(self) -> String {
        match self.part {
            Role::Primary(first, last) => format!("node, slots {first}-{last}"),
            Role::Replica(primary) => format!("node, replica of {primary}"),
        }
    }
}

/// Running nodes. They are killed when this is dropped, and their folder goes.
pub struct Nodes {
    program: PathBuf,
    folder: TempDir,
    ports: Vec<u16>,
    running: Vec<(u16, Child)>,
    /// Held for what it does at its end.
    undertaker: Option<Child>,
}

/// Waits until its input closes, which even SIGKILL to this process brings about; then ends the nodes, and clears away.
const UNDERTAKER: &str = "cat >/dev/null; folder=$1; shift; kill -9 \"$@\" 2>/dev/null; rm -rf \"$folder\"";

impl Nodes {
    /// Starts all nodes of the plan.
    pub fn start(plan: &Layout, program: PathBuf) -> Result<Nodes, Failure> {
        let folder = tempfile::Builder::new().prefix("slotway-dev-").tempdir();
        let folder = folder.map_err(|error| Failure::of("cannot make a temporary folder", error))?;
        let mut nodes = Nodes { program, folder, ports: plan.ports().collect(), running: Vec::new(), undertaker: None };
        for port in plan.ports() {
            let child = nodes.launch(port).map_err(|error| Failure::of(&format!("cannot start node {port}"), error))?;
            nodes.running.push((port, child));
        }
        let undertaker = nodes.hire().map_err(|error| Failure::of("cannot run sh", error))?;
        nodes.undertaker = Some(undertaker);
        Ok(nodes)
    }

    fn hire(&self) -> std::io::Result<Child> {
        let pids = self.running.iter().map(|(_, child)| child.id().to_string());
        let mut command = Command::new("sh");
        command.args(["-c", UNDERTAKER, "undertaker"]).arg(self.folder.path()).args(pids);
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    }

    fn launch(&self, port: u16) -> std::io::Result<Child> {
        let folder = self.folder.path().join(port.to_string());
        fs::create_dir(&folder)?;
        let file = folder.join("redis.conf");
        fs::write(&file, configuration(port, &folder))?;
        let log = fs::File::create(folder.join("log"))?;
        // A group of its own: Ctrl-C in the terminal is for us, and the nodes must outlive the drain.
        let mut command = Command::new(&self.program);
        command.arg(&file).current_dir(&folder).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()
    }

    /// Returns when a node has ended, with what it said last.
    pub async fn death(&mut self) -> Failure {
        let (port, status) = self.next_death().await;
        let log = fs::read_to_string(self.folder.path().join(port.to_string()).join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join("\n  ");
        Failure::Other(format!("node {port} ended at once ({status}); it said last:\n  {last}"))
    }

    /// Tells of every node that ends, and goes on: whoever kills a node wants to see what the proxy makes of it. Ends at
    /// shutdown, or brings it about when no node is left.
    pub async fn watch(&mut self, shutdown: &CancellationToken) -> Result<(), Failure> {
        while !self.running.is_empty() {
            let (port, status) = tokio::select! {
                dead = self.next_death() => dead,
                () = shutdown.cancelled() => return Ok(()),
            };
            let file = self.folder.path().join(port.to_string()).join("redis.conf");
            say(format_args!(
                "node {port} has ended ({status}); to start it again:  {} {}",
                self.program.display(),
                file.display()
            ));
        }
        shutdown.cancel();
        Err(Failure::Other("all nodes have ended".to_owned()))
    }

    /// The next node that ends; it is forgotten.
    async fn next_death(&mut self) -> (u16, String) {
        loop {
            for index in 0..self.running.len() {
                let Some((port, child)) = self.running.get_mut(index) else { continue };
                if let Ok(Some(status)) = child.try_wait() {
                    let dead = (*port, status.to_string());
                    self.running.remove(index);
                    return dead;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends a node that somebody has started again: it is one of ours where it works in our folder.
    async fn stop_stray(&self, port: u16) {
        let folder = self.folder.path().join(port.to_string());
        let address = Address::new("127.0.0.1", port);
        let Ok(mut stray) = Control::open(&address, &Login::default(), &Dialer::default()).await else { return };
        let Ok(dir) = stray.ask(&["CONFIG", "GET", "dir"]).await else { return };
        let dir = dir.field("dir").and_then(Value::str).map(Path::new);
        if dir.is_some_and(|dir| same_folder(dir, &folder)) {
            let _ = stray.ask(&["SHUTDOWN", "NOSAVE"]).await;
        }
    }

    /// Ends all nodes, and waits for it.
    pub async fn stop(mut self) {
        for (_, child) in &mut self.running {
            // Nothing is to be saved, so that nothing is lost by not asking.
            let _ = child.kill();
        }
        for port in self.ports.clone() {
            if !self.running.iter().any(|(running, _)| *running == port) {
                self.stop_stray(port).await;
            }
        }
        let all_ended = async {
            while !self.running.is_empty() {
                self.next_death().await;
            }
        };
        if tokio::time::timeout(PATIENCE, all_ended).await.is_err() {
            let left: Vec<String> = self.running.iter().map(|(port, _)| port.to_string()).collect();
            tracing::warn!("these nodes do not end: {}", left.join(", "));
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        // The undertaker last: its own work has then been done, and a process id may belong to another.
        for child in self.running.iter_mut().map(|(_, child)| child).chain(&mut self.undertaker) {
            let _ = child.kill();
        }
    }
}

fn same_folder(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

fn configuration(port: u16, folder: &Path) -> String {
    format!(
        "port {port}\nbind 127.0.0.1\ndir \"{}\"\ncluster-enabled yes\ncluster-config-file nodes.conf\n\
         cluster-node-timeout 5000\ncluster-require-full-coverage no\nsave \"\"\nappendonly no\n\
         repl-diskless-sync-delay 0\n",
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_primaries_share_the_slots_as_redis_cli_does_it() {
        let plan = Layout { base: 7000, primaries: 3, replicas: 1 };
        let parts: Vec<Role> = plan.nodes().map(|node| node.part).collect();
        let primaries = [Role::Primary(0, 5460), Role::Primary(5461, 10922), Role::Primary(10923, 16383)];
        assert_eq!(parts[..3], primaries);
        assert_eq!(parts[3..], [Role::Replica(7000), Role::Replica(7001), Role::Replica(7002)]);
        assert_eq!(plan.ports().last(), Some(7005));
    }
}

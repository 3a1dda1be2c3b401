//! A compose project of our own: the real files under deploy/, with names and ports that disturb nobody.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    process::Command,
    time::{Duration, Instant},
};

use super::{
    engine::{compose_tool, docker, images, repository, said, try_docker, until},
    readme::Block,
    support::{Client, http, ports::free_port},
};

/// The masters of compose.yaml.
pub const NODES: [&str; 3] = ["redis-7000", "redis-7001", "redis-7002"];

/// A project. Dropped, it is gone: containers, network and volumes.
pub struct Stack {
    project: String,
    files: Vec<String>,
    environment: BTreeMap<String, String>,
    pub port: u16,
    pub admin: u16,
    others: RefCell<Vec<String>>,
}

impl Stack {
    /// The project `name` of these files of deploy/. Nothing runs yet; what an earlier run left behind is removed.
    pub fn new(name: &str, files: &[&str]) -> Stack {
        let project = format!("slotwaytest-{name}");
        let (port, admin) = (free_port(), free_port());
        let mut stack = Stack {
            files: files.iter().map(|file| format!("deploy/{file}")).collect(),
            environment: BTreeMap::new(),
            port,
            admin,
            others: RefCell::new(Vec::new()),
            project,
        };
        stack.set("REDIS_NETWORK", &stack.network());
        stack.set("PROXY_IMAGE", &images().proxy);
        stack.set("SHOP_IMAGE", &images().application);
        stack.set("PROXY_PORT", &format!("127.0.0.1:{port}"));
        stack.set("PROXY_ADMIN_PORT", &format!("127.0.0.1:{admin}"));
        for node in 7000..=7005 {
            stack.publish(&format!("REDIS_{node}_PORT"));
        }
        for name in ["PROMETHEUS_PORT", "GRAFANA_PORT", "SHOP_PORT", "KIOSK_PORT", "STALL_PORT", "MARKET_PORT"] {
            stack.publish(name);
        }
        // The engine may still be removing what was killed a moment ago.
        until("an earlier run's project to be gone", Duration::from_secs(60), || stack.down().ok());
        stack
    }

    /// One more file of deploy/.
    pub fn add(&mut self, file: &str) {
        self.files.push(format!("deploy/{file}"));
    }

    /// An environment variable for the compose files.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.into(), value.into());
    }

    /// The value of an environment variable for the compose files.
    pub fn setting(&self, name: &str) -> &str {
        &self.environment[name]
    }

    /// The nodes' ports as published on the host, with commas between.
    pub fn published_nodes(&self) -> String {
        NODES.map(|node| self.setting(&format!("{}_PORT", node.to_uppercase().replace('-', "_")))).join(",")
    }

    /// A block of commands with `docker compose -f deploy/compose.yaml` in it, run for this project.
    #[track_caller]
    pub fn run(&self, block: Block) -> String {
        let tool = format!("{} -p {}", compose_tool().join(" "), self.project);
        block.with("docker compose", &tool).run(&self.environment)
    }

    /// The network that stands for `redis-cluster` here.
    pub fn network(&self) -> String {
        format!("{}-redis-cluster", self.project)
    }

    /// What the Compose tool says to ARGS; a panic where it fails.
    #[track_caller]
    pub fn compose(&self, args: &[&str]) -> String {
        self.try_compose(args).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn try_compose(&self, args: &[&str]) -> Result<String, String> {
        let tool = compose_tool();
        let mut command = Command::new(tool[0]);
        command.args(&tool[1..]).args(["-p", &self.project]);
        for file in &self.files {
            command.args(["-f", file]);
        }
        said(command.args(args).envs(&self.environment).current_dir(repository()))
    }

    /// `up -d` for these services, all of them where none is named.
    #[track_caller]
    pub fn up(&self, services: &[&str]) {
        self.compose(&[&["up", "-d", "--no-build"], services].concat());
    }

    /// The nodes and the cluster's forming, waited for.
    #[track_caller]
    pub fn form(&self) {
        self.up(&[&NODES[..], &["cluster"]].concat());
        self.formed();
    }

    /// Waits for the one-shot service, which must end well.
    #[track_caller]
    pub fn formed(&self) {
        let cluster = self.container("cluster");
        let code = docker(&["wait", &cluster]);
        assert_eq!(code, "0", "the forming service:\n{}", docker(&["logs", &cluster]));
    }

    /// The only container of a service, running or not.
    #[track_caller]
    pub fn container(&self, service: &str) -> String {
        let all = self.containers(service);
        assert_eq!(all.len(), 1, "containers of {service}");
        all[0].clone()
    }

    /// All containers of a service.
    pub fn containers(&self, service: &str) -> Vec<String> {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let service = format!("label=com.docker.compose.service={service}");
        let listed = docker(&["ps", "-aq", "--no-trunc", "--filter", &project, "--filter", &service]);
        listed.split_whitespace().map(str::to_owned).collect()
    }

    /// Waits until docker calls the service healthy.
    #[track_caller]
    pub fn healthy(&self, service: &str) {
        let container = self.container(service);
        healthy(&container);
    }

    /// What a command inside a service's container prints.
    #[track_caller]
    pub fn inside(&self, service: &str, command: &[&str]) -> String {
        docker(&[&["exec", &self.container(service)], command].concat())
    }

    /// One Redis command to a node, from inside its own container.
    pub fn ask_node(&self, node: &str, command: &[&str]) -> Result<String, String> {
        let (_, port) = node.split_once('-').expect("redis-PORT");
        let container = self.container(node);
        try_docker(&[&["exec", &container, "redis-cli", "-p", port], command].concat()).map(|out| out.replace('\r', ""))
    }

    /// Where a service's container is on the cluster's network; "" while it is on none.
    pub fn address(&self, service: &str) -> String {
        address(&self.container(service))
    }

    /// Whether the cluster itself is well: every node sees every other joined, and at the address it has now.
    pub fn is_whole(&self, nodes: &[&str]) -> bool {
        let addresses: Vec<String> =
            nodes.iter().map(|node| format!(" {}:{}@", self.address(node), &node["redis-".len()..])).collect();
        nodes.iter().all(|node| {
            let view = self.ask_node(node, &["cluster", "nodes"]).unwrap_or_default();
            let info = self.ask_node(node, &["cluster", "info"]).unwrap_or_default();
            let well = |line: &&str| line.contains(" connected") && !line.contains("fail") && !line.contains("noaddr");
            let seen: Vec<&str> = view.lines().filter(well).collect();
            info.contains("cluster_state:ok")
                && info.contains("cluster_slots_ok:16384")
                && addresses.iter().all(|address| seen.iter().any(|line| line.contains(address)))
        })
    }

    /// What the proxy calls the nodes in its metrics.
    #[track_caller]
    pub fn labels(&self) -> Vec<String> {
        let (_, page) = self.page("/metrics").expect("/metrics");
        let series = page.lines().filter_map(|line| line.strip_prefix("slotway_node_up{node=\""));
        let mut labels: Vec<String> = series.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect();
        labels.sort();
        labels
    }

    /// Waits for the cluster's own recovery.
    #[track_caller]
    pub fn whole(&self, nodes: &[&str]) {
        let end = Instant::now() + Duration::from_secs(60);
        while !self.is_whole(nodes) {
            if Instant::now() > end {
                let views = nodes.iter().map(|node| {
                    format!("{node} at {}:\n{:?}\n", self.address(node), self.ask_node(node, &["cluster", "nodes"]))
                });
                panic!("the cluster does not recover:\n{}", views.collect::<String>());
            }
        }
    }

    /// The proxy as the host sees it.
    pub fn proxy(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A plain client at the proxy, on the host. Docker itself accepts on the published port before the proxy listens.
    #[track_caller]
    pub fn client(&self) -> Client {
        until("the proxy's port", Duration::from_secs(10), || {
            let mut client = Client::try_connect(&self.proxy()).ok()?;
            client.try_call(&["PING"]).ok().map(|_| client)
        })
    }

    /// A page of the proxy's admin port, on the host.
    pub fn page(&self, path: &str) -> std::io::Result<(u16, String)> {
        http::fetch(&format!("127.0.0.1:{}", self.admin), path)
    }

    /// What `redis-cli -p PORT ARGS` prints on the host, or in a node's container where the host has no redis-cli.
    #[track_caller]
    pub fn redis_cli(&self, args: &[&str]) -> String {
        let port = self.port.to_string();
        said(Command::new("redis-cli").args(["-p", &port]).args(args)).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Holds these addresses, free by now, so that a container which starts next gets another. The engine gives the
    /// lowest free address or the one after the last: what is in the way is held as well.
    pub fn occupy(&self, addresses: &[String]) {
        let free = |taken: &[String]| addresses.iter().any(|address| !taken.contains(address));
        let mut taken = Vec::new();
        while free(&taken) && taken.len() < addresses.len() + 8 {
            let name = format!("{}-squatter{}", self.project, self.others.borrow().len());
            docker(&["run", "-d", "--rm", "--name", &name, "--net", &self.network(), "redis:7", "sleep", "600"]);
            taken.push(address(&name));
            self.others.borrow_mut().push(name);
        }
    }

    /// Gives the occupied addresses back.
    pub fn vacate(&self) {
        for name in self.others.borrow_mut().drain(..) {
            let _ = try_docker(&["rm", "-f", "-v", &name]);
        }
    }

    /// Takes the project down, volumes included: whatever bears its label, also what another set of files has brought. A
    /// run that was killed leaves its replicas and their data behind, and the next cluster would remember them.
    pub fn down(&self) -> Result<(), String> {
        self.vacate();
        let label = format!("label=com.docker.compose.project={}", self.project);
        let on_network = format!("network={}", self.network());
        // In this order: a container holds its volumes and its network.
        let listings: [(&[&str], &[&str]); 4] = [
            (&["container", "ls", "-aq", "--filter", &on_network], &["container", "rm", "-f", "-v"]),
            (&["container", "ls", "-aq", "--filter", &label], &["container", "rm", "-f", "-v"]),
            (&["volume", "ls", "-q", "--filter", &label], &["volume", "rm"]),
            (&["network", "ls", "-q", "--filter", &label], &["network", "rm"]),
        ];
        for (list, remove) in listings {
            let names = try_docker(list)?;
            if !names.is_empty() {
                let names: Vec<&str> = names.split_whitespace().collect();
                try_docker(&[remove, &names].concat())?;
            }
        }
        Ok(())
    }

    fn publish(&mut self, name: &str) {
        self.set(name, &format!("127.0.0.1:{}", free_port()));
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for service in ["proxy", "cluster", "shop", "kiosk"] {
                for container in self.containers(service) {
                    let log = said(Command::new("sh").args(["-c", &format!("docker logs --tail 40 {container} 2>&1")]));
                    eprintln!("log of {service}:\n{}", log.unwrap_or_default());
                }
            }
        }
        if let Err(why) = self.down() {
            eprintln!("project {} is not gone: {why}", self.project);
        }
    }
}

/// Waits until docker calls a container healthy.
#[track_caller]
pub fn healthy(container: &str) {
    until("docker to call the container healthy", Duration::from_secs(60), || {
        (health(container) == "healthy").then_some(())
    });
}

/// What docker thinks of a container's health.
pub fn health(container: &str) -> String {
    docker(&["inspect", "--format", "{{.State.Health.Status}}", container])
}

/// A container's address on its network.
pub fn address(container: &str) -> String {
    docker(&["inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container])
}

/// Keys spread over all slots, with a value each.
pub struct Sample {
    keys: Vec<String>,
}

impl Sample {
    /// Writes `count` keys through `client`.
    #[track_caller]
    pub fn write(client: &mut Client, count: usize) -> Sample {
        let keys: Vec<String> = (0..count).map(|number| format!("sample:{number}")).collect();
        for key in &keys {
            assert_eq!(client.call(&["SET", key, &format!("value of {key}")]), "+OK\r\n");
        }
        Sample { keys }
    }

    /// Whether every key has its value, read through one connection.
    pub fn is_whole(&self, client: &mut Client) -> Result<(), String> {
        for key in &self.keys {
            let expected = format!("value of {key}");
            match client.try_call(&["GET", key]) {
                Ok(reply) if reply.0 == format!("${}\r\n{expected}\r\n", expected.len()).into_bytes() => {}
                other => return Err(format!("GET {key}: {other:?}")),
            }
        }
        Ok(())
    }

    /// How long from now until every key is served, on a new connection and on the given old one.
    #[track_caller]
    pub fn served_after(&self, address: &str, old: &mut Client, patience: Duration) -> Duration {
        let start = Instant::now();
        loop {
            let new = Client::try_connect(address).map_err(|error| error.to_string());
            let served = new.and_then(|mut new| self.is_whole(&mut new)).and_then(|()| self.is_whole(old));
            match served {
                Ok(()) => return start.elapsed(),
                Err(why) => {
                    assert!(start.elapsed() < patience, "not served {patience:?} after the cluster's recovery: {why}")
                }
            }
        }
    }
}

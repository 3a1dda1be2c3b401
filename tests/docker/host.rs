//! The proxy on the docker host, with the nodes' published ports as seeds: the addresses that the nodes announce cannot
//! be reached from there, and it works all the same.
//!
//! On Linux they can be reached, over the bridge. So the proxy runs as a user whose packets to the bridge are dropped,
//! which is what a laptop with Docker Desktop does to everybody's.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{
    engine::{docker, said, turn, until},
    stack::{NODES, Sample, Stack},
    support::{Client, http, ports::free_port, proxy::only_set_here, reaper},
};

/// Nobody's user id: only the proxy of this test has it.
pub const USER: &str = "64999";

#[test]
fn on_the_host_behind_published_ports() {
    let Some(_turn) = turn() else { return };
    let stack = Stack::new("host", &["compose.yaml"]);
    stack.form();

    serves(&stack, None);
    match Unreachable::new(&subnet_of(&stack)) {
        Ok(unreachable) => serves(&stack, Some(unreachable)),
        Err(why) => eprintln!("NOT SHOWN with unreachable addresses (this takes root and iptables): {why}"),
    }
}

fn serves(stack: &Stack, unreachable: Option<Unreachable>) {
    let seeds = stack.published_nodes();
    let proxy = HostProxy::start(&seeds, unreachable.is_some());
    until("the proxy to be ready", Duration::from_secs(10), || {
        http::fetch(&proxy.admin, "/readyz").ok().filter(|(status, _)| *status == 200)
    });
    let mut client = Client::connect(&proxy.address);
    Sample::write(&mut client, 200).is_whole(&mut client).expect("every key");
    let log = proxy.log();
    if unreachable.is_some() {
        for (node, seed) in NODES.iter().zip(seeds.split(',')) {
            let announced = format!("{}:{}", stack.address(node), &node["redis-".len()..]);
            let told = log.lines().any(|line| line.contains(&announced) && line.contains(seed));
            assert!(told, "the log does not say that {announced} is reached at {seed}:\n{log}");
        }
        assert!(log.contains("address_map"), "no line to paste in:\n{log}");
    }
}

/// The addresses of a project's network.
pub fn subnet_of(stack: &Stack) -> String {
    let format = "{{(index .IPAM.Config 0).Subnet}}";
    docker(&["network", "inspect", "--format", format, &stack.network()])
}

/// A copy of the binary that every user may run: another one may not enter the folder of the build.
pub fn binary_for_all() -> PathBuf {
    let folder = reaper::folder("host");
    let binary = folder.join("slotway");
    fs::copy(env!("CARGO_BIN_EXE_slotway"), &binary).expect("the binary");
    for path in [folder.parent().expect("a parent"), &folder, &binary] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions");
    }
    binary
}

struct HostProxy {
    address: String,
    admin: String,
    log: PathBuf,
    child: Child,
}

impl HostProxy {
    fn start(seeds: &str, as_another_user: bool) -> HostProxy {
        let binary = binary_for_all();
        let log = binary.with_file_name("log");
        let out = File::create(&log).expect("a log");
        let (address, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let mut command = Command::new(if as_another_user { "setpriv" } else { "env" });
        if as_another_user {
            command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--"]);
        }
        command.arg(&binary).args(["serve", "--listen", &address, "--admin", &admin, "--seeds", seeds]);
        let out2 = out.try_clone().expect("the log twice");
        let child = only_set_here(&mut command)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(out2)
            .spawn()
            .expect("slotway");
        reaper::watch(child.id());
        HostProxy { address, admin, log, child }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for HostProxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of the proxy on the host:\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        reaper::forget(self.child.id());
    }
}

/// While it lives, packets of [`USER`] to the subnet vanish.
pub struct Unreachable {
    rule: Vec<String>,
}

impl Unreachable {
    /// Takes root and iptables.
    pub fn new(subnet: &str) -> Result<Unreachable, String> {
        let rule =
            ["OUTPUT", "-m", "owner", "--uid-owner", USER, "-d", subnet, "-j", "DROP"].map(String::from).to_vec();
        // A run that was killed may have left it.
        while said(Command::new("iptables").arg("-D").args(&rule)).is_ok() {}
        said(Command::new("iptables").arg("-I").args(&rule))?;
        Ok(Unreachable { rule })
    }
}

impl Drop for Unreachable {
    fn drop(&mut self) {
        let _ = said(Command::new("iptables").arg("-D").args(&self.rule));
    }
}

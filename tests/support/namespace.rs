//! A network of a test's own: a Linux network namespace with nothing but a loopback interface, where packets can be dropped.

use std::{
    fs::File,
    io,
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    panic::resume_unwind,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace; removed when dropped.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Runs `body` on a thread whose network it is: so are those of the processes and connections that it starts. Says loudly
    /// where it is skipped, since not everybody may make namespaces.
    pub fn run(test: &str, body: impl FnOnce(&Namespace) + Send) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = Namespace { name: format!("slotway-{}-{number}", std::process::id()) };
        if let Err(why) = namespace.make() {
            eprintln!("SKIPPED {test}: no network namespace with iptables can be made here (as root, on Linux): {why}");
            return;
        }
        let ended = thread::scope(|scope| {
            let thread = thread::Builder::new().name(test.to_owned());
            let run = || {
                let network = File::open(format!("/run/netns/{}", namespace.name)).expect("the namespace");
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).expect("to move there");
                body(&namespace);
            };
            thread.spawn_scoped(scope, run).expect("a thread").join()
        });
        if let Err(panic) = ended {
            resume_unwind(panic);
        }
    }

    fn make(&self) -> Result<(), String> {
        run(&["ip", "netns", "add", &self.name])?;
        self.inside(&["ip", "link", "set", "lo", "up"])?;
        self.inside(&["iptables", "--wait", "--list"])
    }

    fn inside(&self, command: &[&str]) -> Result<(), String> {
        run(&[&["ip", "netns", "exec", &self.name], command].concat())
    }

    /// Drops every packet from and to a TCP port, so that neither side hears of it.
    pub fn cut_off(&self, port: u16) {
        let port = port.to_string();
        self.rule("--append", &["--sport", &port]);
        self.rule("--append", &["--dport", &port]);
    }

    /// Lets them pass again.
    pub fn join_again(&self, port: u16) {
        let port = port.to_string();
        self.rule("--delete", &["--sport", &port]);
        self.rule("--delete", &["--dport", &port]);
    }

    /// Drops every packet of one connection.
    pub fn cut(&self, connection: &TcpStream) {
        let port = |address: io::Result<SocketAddr>| address.expect("an address").port().to_string();
        let (here, there) = (port(connection.local_addr()), port(connection.peer_addr()));
        self.rule("--append", &["--sport", &here, "--dport", &there]);
        self.rule("--append", &["--sport", &there, "--dport", &here]);
    }

    fn rule(&self, what: &str, ports: &[&str]) {
        let rule = ["iptables", "--wait", what, "INPUT", "--protocol", "tcp"];
        self.inside(&[&rule, ports, &["--jump", "DROP"]].concat()).expect("a rule of iptables");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(&["ip", "netns", "delete", &self.name]);
    }
}

fn run(command: &[&str]) -> Result<(), String> {
    let ended = Command::new(command[0]).args(&command[1..]).output().map_err(|error| error.to_string())?;
    match ended.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&ended.stderr).trim().to_owned()),
    }
}

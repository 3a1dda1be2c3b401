//! One real `redis-server` or `valkey-server` in a folder of its own.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    Client, Issued,
    ports::free_port,
    reaper,
    wait::{eventually, until},
};

/// Which server a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// `redis-server`, or what `SLOTWAY_TEST_REDIS` names.
    Redis,
    /// What `SLOTWAY_TEST_VALKEY` names.
    Valkey,
}

impl Flavour {
    /// The program to run; `None` where this machine has none.
    pub fn program(self) -> Option<String> {
        match self {
            Flavour::Redis => Some(std::env::var("SLOTWAY_TEST_REDIS").unwrap_or_else(|_| "redis-server".into())),
            Flavour::Valkey => std::env::var("SLOTWAY_TEST_VALKEY").ok().filter(|path| !path.is_empty()),
        }
    }

    /// Whether it can be run here; says loudly where a test is skipped for it.
    pub fn is_here(self, test: &str) -> bool {
        let here = self.program().is_some();
        if !here {
            eprintln!("SKIPPED {test}: no {self:?} server (tests/run installs one and sets SLOTWAY_TEST_VALKEY)");
        }
        here
    }

    /// Whether it can be run here with TLS; says loudly where a test is skipped for it. Some builds have none.
    pub fn is_here_with_tls(self, test: &str) -> bool {
        let Some(program) = self.program().filter(|_| self.is_here(test)) else { return false };
        // Without a certificate no server starts; one with TLS misses that, others miss TLS.
        let start = Command::new(program).args(["--port", "0", "--tls-port", "1", "--save", ""]).output();
        let said = start.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
        let here = said.contains("No tls-cert-file");
        if !here {
            eprintln!("SKIPPED {test}: this {self:?} server is built without TLS");
        }
        here
    }
}

/// How a node is to run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Which server.
    pub flavour: Flavour,
    /// Lines of its configuration beyond the usual ones.
    pub config: Vec<String>,
    /// A member of a cluster, with a bus port.
    pub cluster: bool,
    /// TLS, on a port beside the plain one, and on the cluster's bus.
    pub tls: Option<NodeTls>,
}

/// How a node speaks TLS.
#[derive(Clone, Debug)]
pub struct NodeTls {
    /// Its certificate.
    pub own: Issued,
    /// The CA of its clients and peers.
    pub ca: PathBuf,
    /// `tls-auth-clients`.
    pub auth_clients: &'static str,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { flavour: Flavour::Redis, config: Vec::new(), cluster: false, tls: None }
    }
}

/// A running server; killed when dropped.
pub struct Node {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Its port of TLS, where it has one.
    pub tls_port: u16,
    /// Its bus port, where it is a member of a cluster.
    pub bus: u16,
    /// Its folder.
    pub folder: PathBuf,
    program: String,
    child: Option<Child>,
    paused: bool,
}

impl Node {
    /// Starts a server and waits until it answers.
    #[track_caller]
    pub fn start(setup: &Setup) -> Node {
        for _ in 0..5 {
            let mut node = Node::prepared(setup);
            node.launch();
            if node.answers() {
                return node;
            }
            eprintln!("a node did not start, trying other ports: {}", node.log());
        }
        panic!("no node could be started");
    }

    /// A standalone server: the oracle of what a client of one Redis sees.
    pub fn standalone() -> Node {
        Node::start(&Setup::default())
    }

    /// A server that has not been started: its ports are known.
    pub fn prepared(setup: &Setup) -> Node {
        let (port, bus, tls_port) = (free_port(), free_port(), free_port());
        let folder = reaper::folder(&format!("node-{port}"));
        let mut config = vec![
            format!("port {port}"),
            "bind 127.0.0.1".into(),
            format!("dir {}", folder.display()),
            "save \"\"".into(),
            "appendonly no".into(),
            "enable-debug-command yes".into(),
            "repl-diskless-sync-delay 0".into(),
            "repl-ping-replica-period 1".into(),
        ];
        if setup.cluster {
            config.extend(["cluster-enabled yes".into(), format!("cluster-port {bus}")]);
        }
        if let Some(tls) = &setup.tls {
            config.extend([
                format!("tls-port {tls_port}"),
                format!("tls-cert-file {}", tls.own.certificate.display()),
                format!("tls-key-file {}", tls.own.key.display()),
                format!("tls-ca-cert-file {}", tls.ca.display()),
                format!("tls-auth-clients {}", tls.auth_clients),
            ]);
            if setup.cluster {
                config.extend(["tls-cluster yes".into(), "tls-replication yes".into()]);
            }
        }
        config.extend(setup.config.iter().cloned());
        fs::write(folder.join("node.conf"), config.join("\n")).expect("a configuration file");
        let program = setup.flavour.program().expect("this server is installed");
        Node { port, tls_port, bus, folder, program, child: None, paused: false }
    }

    /// Starts a prepared or killed server, on the same port; does not wait.
    #[track_caller]
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.folder.join("node.log")).expect("a log file");
        let child = Command::new(&self.program)
            .arg(self.folder.join("node.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file twice"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; install it or run tests/run", self.program));
        reaper::watch(child.id());
        self.child = Some(child);
    }

    /// Starts a killed server again, on the same port, and waits until it answers.
    #[track_caller]
    pub fn restart(&mut self) {
        self.launch();
        assert!(self.answers(), "restarted: {}", self.log());
    }

    /// Has a killed server come back on another port.
    pub fn move_to(&mut self, port: u16) {
        let file = self.folder.join("node.conf");
        let config = fs::read_to_string(&file).expect("its configuration");
        let moved = config.replace(&format!("port {}\n", self.port), &format!("port {port}\n"));
        fs::write(&file, moved).expect("written");
        self.port = port;
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A new connection to it.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(&self.address())
    }

    /// Its answer to the words of a line, on a new connection.
    #[track_caller]
    pub fn line(&self, line: &str) -> super::Reply {
        self.client().line(line)
    }

    /// Likewise, where it can be reached: another test may just have killed it.
    pub fn try_line(&self, line: &str) -> Option<super::Reply> {
        let mut client = Client::try_connect(&self.address()).ok()?;
        client.try_call(&line.split(' ').collect::<Vec<_>>()).ok()
    }

    /// Ends it as a crash would (SIGKILL), and waits for its end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            reaper::forget(child.id());
            self.paused = false;
        }
    }

    /// Freezes it (SIGSTOP): its connections stay open and nothing answers.
    pub fn pause(&mut self) {
        self.signal("STOP");
        let stat = format!("/proc/{}/stat", self.child.as_ref().expect("it runs").id());
        eventually("the node to stand still", || {
            let stat = fs::read_to_string(&stat).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        });
        self.paused = true;
    }

    /// Lets a frozen server go on (SIGCONT).
    pub fn resume(&mut self) {
        self.signal("CONT");
        self.paused = false;
    }

    /// Whether it is neither killed nor frozen.
    pub fn is_at_work(&self) -> bool {
        self.child.is_some() && !self.paused
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("node.log")).unwrap_or_default()
    }

    /// One field of its `INFO`.
    #[track_caller]
    pub fn info(&self, field: &str) -> String {
        info_field(&self.line("INFO everything").string(), field)
            .unwrap_or_else(|| panic!("INFO has no field {field}"))
            .to_owned()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let done = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill");
        assert!(done.success(), "kill -{name} {pid}");
    }

    /// Whether it answers PING before it ends or ten seconds pass.
    fn answers(&mut self) -> bool {
        let end = Instant::now() + Duration::from_secs(10);
        until("the node to answer or to end", Duration::from_secs(11), || {
            let running = self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
            let alive = Client::try_connect(&self.address())
                .and_then(|client| client.patient(Duration::from_secs(1)).try_call(&["PING"]))
                .is_ok_and(|reply| reply == "+PONG\r\n" || reply.0.starts_with(b"-NOAUTH "));
            if running && alive { Some(true) } else { (!running || Instant::now() > end).then_some(false) }
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The value of a field in the text of `INFO`, `CLUSTER INFO` and the like.
pub fn info_field<'a>(info: &'a str, field: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).map(str::trim)
}

//! The real `slotway` binary, with all it logs.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use super::{Client, Cluster, http, ports::free_port, reaper, wait::until};

/// How the proxy is to run.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `--seeds`.
    pub seeds: String,
    /// Flags beyond the usual ones.
    pub flags: Vec<String>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// How many open files it may have (`ulimit -n`).
    pub open_files: Option<usize>,
    /// Parts of WARN and ERROR lines that this test brings about.
    pub expected: Vec<String>,
    /// A program that runs it, with its arguments: a profiler, say.
    pub under: Vec<String>,
    /// Its ports for clients and for operators, where they are not to be free ones.
    pub ports: Option<(u16, u16)>,
    /// Another build of it than the tests' own.
    pub binary: Option<PathBuf>,
}

impl Settings {
    /// In front of these seeds.
    pub fn new(seeds: impl Into<String>) -> Settings {
        Settings { seeds: seeds.into(), ..Settings::default() }
    }

    /// With an environment variable, `SLOTWAY_` before its name.
    pub fn with(mut self, name: &str, value: impl ToString) -> Settings {
        self.env.push((format!("SLOTWAY_{name}"), value.to_string()));
        self
    }

    /// With deadlines that a busy machine does not meet by accident: for tests that are about something else. That discovery
    /// has waited for a node is no failure then: its patience is fixed, and shorter.
    pub fn unhurried(self) -> Settings {
        let patient = self.with("REQUEST_TIMEOUT", "30s").with("CONNECT_TIMEOUT", "15s").with("NODE_TIMEOUT", "45s");
        patient.expecting("SLOTWAY-NODE-UNREACHABLE").expecting("slots are served by")
    }

    /// With so many open files allowed.
    pub fn with_open_files(mut self, count: usize) -> Settings {
        self.open_files = Some(count);
        self
    }

    /// Run by another program, such as a profiler.
    pub fn under<T: Into<String>>(mut self, program: impl IntoIterator<Item = T>) -> Settings {
        self.under = program.into_iter().map(Into::into).collect();
        self
    }

    /// At the ports of another.
    pub fn at_ports_of(mut self, other: &Proxy) -> Settings {
        self.ports = Some((other.port, other.admin));
        self
    }

    /// Another build: what [`build_release`] gives.
    pub fn of(mut self, binary: PathBuf) -> Settings {
        self.binary = Some(binary);
        self
    }

    /// With a WARN or ERROR line that contains `part`.
    pub fn expecting(mut self, part: &str) -> Settings {
        self.expected.push(part.to_owned());
        self
    }

    /// Whose nodes fail: any warning may be logged, and that nothing is served, but no other error.
    pub fn expecting_warnings(self) -> Settings {
        self.expecting(" WARN ").expecting("nothing is served")
    }
}

/// Keeps the tests' own variables, and the developer's, from the program: it gets only what the test sets.
pub fn only_set_here(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SLOTWAY_")) {
        command.env_remove(name);
    }
    command
}

/// The program that is tested: what cargo has built for that, or what `SLOTWAY_TEST_BINARY` names.
fn binary() -> PathBuf {
    std::env::var_os("SLOTWAY_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_slotway").into(), PathBuf::from)
}

/// Builds the program as users get it, and says where it is. What cargo builds for tests and benches has the tests' features,
/// such as a clock that can be paused, and that costs something. Nothing is built where `SLOTWAY_TEST_BINARY` names another.
pub fn build_release() -> PathBuf {
    if std::env::var_os("SLOTWAY_TEST_BINARY").is_some() {
        return binary();
    }
    let built = Command::new(env!("CARGO")).args(["build", "--release", "--quiet", "--bin", "slotway"]).status();
    assert!(built.expect("cargo").success(), "the release does not build");
    let target = Path::new(env!("CARGO_BIN_EXE_slotway")).ancestors().nth(2).expect("cargo's folder");
    target.join("release").join("slotway")
}

/// A running proxy. Dropped, it is asked to end (SIGTERM), and must exit with 0 and a clean log.
pub struct Proxy {
    /// Its port for clients.
    pub port: u16,
    /// Its admin port.
    pub admin: u16,
    settings: Settings,
    log: PathBuf,
    child: Option<Child>,
}

impl Proxy {
    /// Starts a proxy in front of `cluster` and waits until it is ready.
    #[track_caller]
    pub fn before(cluster: &Cluster) -> Proxy {
        Proxy::start(Settings::new(cluster.seeds()))
    }

    /// Starts a proxy and waits until it is ready.
    #[track_caller]
    pub fn start(settings: Settings) -> Proxy {
        let mut proxy = Proxy::launch(settings);
        proxy.wait_until_ready(Duration::from_secs(15));
        proxy
    }

    /// Starts a proxy and waits until it listens, ready or not.
    #[track_caller]
    pub fn launch(settings: Settings) -> Proxy {
        let (port, admin) = settings.ports.unwrap_or_else(|| (free_port(), free_port()));
        let folder = reaper::folder(&format!("proxy-{port}"));
        let log = folder.join("proxy.log");
        let out = File::create(&log).expect("a log file");
        let mut line = settings.under.clone();
        if let Some(count) = settings.open_files {
            line.extend(["sh", "-c"].map(str::to_owned));
            line.push(format!("ulimit -n {count}; exec \"$0\" \"$@\""));
        }
        let binary = settings.binary.clone().unwrap_or_else(binary);
        line.push(binary.to_string_lossy().into_owned());
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        let child = only_set_here(&mut command)
            .arg("serve")
            .args(["--listen", &format!("127.0.0.1:{port}"), "--admin", &format!("127.0.0.1:{admin}")])
            .args(["--seeds", &settings.seeds])
            .args(&settings.flags)
            // Two, so that what crosses workers is tested too, unless the test says otherwise.
            .env("SLOTWAY_WORKERS", "2")
            .envs(settings.env.iter().map(|(name, value)| (name, value)))
            .env("NO_COLOR", "1")
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("the log file twice"))
            .stderr(out)
            .spawn()
            .expect("the proxy's binary");
        reaper::watch(child.id());
        let mut proxy = Proxy { port, admin, settings, log, child: Some(child) };
        until("the proxy to listen", Duration::from_secs(10), || {
            proxy.assert_running();
            Client::try_connect(&proxy.address()).ok()
        });
        proxy
    }

    /// Waits for `/readyz` to say 200.
    #[track_caller]
    pub fn wait_until_ready(&mut self, patience: Duration) {
        let end = std::time::Instant::now() + patience;
        loop {
            self.assert_running();
            let answer = http::fetch(&format!("127.0.0.1:{}", self.admin), "/readyz");
            match answer {
                Ok((200, _)) => return,
                other if std::time::Instant::now() > end => {
                    panic!("the proxy is not ready after {patience:?}: {other:?}; its log:\n{}", self.log())
                }
                _ => thread::sleep(Duration::from_millis(10)),
            }
        }
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

    /// A new connection that has said HELLO `version`.
    #[track_caller]
    pub fn client_of(&self, version: u8) -> Client {
        let mut client = self.client();
        let reply = client.line(&format!("HELLO {version}"));
        assert!(!reply.is_error(), "HELLO {version}: {reply:?}");
        client
    }

    /// The status and body of a page of the admin port.
    #[track_caller]
    pub fn page(&self, path: &str) -> (u16, String) {
        http::fetch(&format!("127.0.0.1:{}", self.admin), path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The sum of a metric over all its series whose labels contain all of `labels`.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, page) = self.page("/metrics");
        let series = page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        series
            .filter(|(series, _)| {
                series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
            })
            .map(|(_, value)| value.parse::<f64>().expect("a number"))
            .sum()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Its resident memory, in bytes.
    #[track_caller]
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// How many files and sockets it has open.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.pid())).map_or(0, Iterator::count)
    }

    /// [`Proxy::open_files`] once every worker has its links to all nodes.
    pub fn open_files_with_links(&self) -> usize {
        let mut clients: Vec<Client> = (0..8).map(|_| self.client()).collect();
        for client in &mut clients {
            (0..100).for_each(|number| drop(client.call(&["GET", &format!("links:{number}")])));
        }
        let open = self.open_files();
        open - clients.len()
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Panics where its process has ended.
    #[track_caller]
    pub fn assert_running(&mut self) {
        let ended = self.child.as_mut().expect("it runs").try_wait().expect("its state");
        assert!(ended.is_none(), "the proxy has ended, {ended:?}; its log:\n{}", self.log());
    }

    /// Asks it to end, and does not wait.
    pub fn ask_to_end(&self) {
        let done = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().expect("kill");
        assert!(done.success());
    }

    /// Asks it to end and waits until it has: its exit status and its log. The log is checked.
    #[track_caller]
    pub fn shut_down(mut self) -> String {
        self.ask_to_end();
        let status = self.wait_for_end(Duration::from_secs(20));
        let log = self.log();
        assert_eq!(status.code(), Some(0), "exit status of the proxy; its log:\n{log}");
        let unexpected = self.unexpected_lines();
        assert!(unexpected.is_empty(), "unexpected in the proxy's log:\n{}", unexpected.join("\n"));
        log
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait_for_end(&mut self, patience: Duration) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let end = std::time::Instant::now() + patience;
        loop {
            if let Some(status) = child.try_wait().expect("its state") {
                reaper::forget(child.id());
                return status;
            }
            if std::time::Instant::now() > end {
                let _ = child.kill();
                let _ = child.wait();
                reaper::forget(child.id());
                panic!("the proxy did not end within {patience:?}; its log:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn unexpected_lines(&self) -> Vec<String> {
        let bad = |line: &&str| [" WARN ", " ERROR ", "panicked at"].iter().any(|mark| line.contains(mark));
        // That a node is slow is the machine's doing, and a fail-over the test's own.
        let usual =
            [" is slow: half of its requests take ", " is slow: a tenth of its requests take ", " WARN fail-over: "];
        let expected = |line: &str| {
            usual.iter().any(|part| line.contains(part))
                || self.settings.expected.iter().any(|part| line.contains(part))
        };
        self.log().lines().filter(bad).filter(|line| !expected(line)).map(str::to_owned).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if self.child.is_none() {
            return;
        }
        if thread::panicking() {
            let mut child = self.child.take().expect("it runs");
            let _ = child.kill();
            let _ = child.wait();
            reaper::forget(child.id());
            eprintln!("the log of the proxy on {}:\n{}", self.port, tail(&self.log(), 60));
            return;
        }
        let moved = Proxy {
            port: self.port,
            admin: self.admin,
            settings: std::mem::take(&mut self.settings),
            log: self.log.clone(),
            child: self.child.take(),
        };
        moved.shut_down();
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

//! Real applications with their default settings, none told of a cluster, each in a database of its own and at work while
//! nodes fail over and one is killed. Their programs (`applications/`) check what they did: nothing is lost, nothing is done
//! twice.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError, mpsc,
    },
    thread,
    time::Duration,
};

use super::clients::python;
use crate::support::{Cluster, Proxy, Settings, Shape, until};

const PRIMARIES: usize = 3;

/// Three primaries with a replica each, for all applications.
static CLUSTER: LazyLock<RwLock<Cluster>> = LazyLock::new(|| {
    let shape = Shape { primaries: PRIMARIES, replicas: 1, node_timeout: Duration::from_secs(2), ..Shape::default() };
    RwLock::new(Cluster::start(shape))
});

/// One application at a time has a primary and its replica for itself.
static PAIRS: [Mutex<()>; PRIMARIES] = [const { Mutex::new(()) }; PRIMARIES];

/// Primaries vote once in an epoch: of two elections at the same time one may fail.
static ELECTION: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cluster() -> RwLockReadGuard<'static, Cluster> {
    CLUSTER.read().unwrap_or_else(PoisonError::into_inner)
}

fn cluster_to_change() -> RwLockWriteGuard<'static, Cluster> {
    CLUSTER.write().unwrap_or_else(PoisonError::into_inner)
}

/// An application's program, which says what it has come to, a word or two a line.
struct Program {
    child: Child,
    said: mpsc::Receiver<String>,
    errors: Arc<Mutex<String>>,
}

impl Program {
    fn start(python: &str, name: &str, proxy: &Proxy) -> Program {
        let path = format!("{}/tests/one_redis/applications/{name}_app.py", env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new("timeout")
            .args(["150", python, &path, &proxy.port.to_string()])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{python}: {error}"));
        let (lines, said) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().expect("its output"));
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let (errors, heard) =
            (Arc::<Mutex<String>>::default(), BufReader::new(child.stderr.take().expect("its errors")));
        thread::spawn({
            let errors = errors.clone();
            move || heard.lines().map_while(Result::ok).for_each(|line| *lock(&errors) += &(line + "\n"))
        });
        Program { child, said, errors }
    }

    /// Waits until it says this, and fails with its errors where it does not.
    #[track_caller]
    fn comes_to(&mut self, what: &str) {
        loop {
            match self.said.recv_timeout(Duration::from_secs(90)) {
                Ok(said) if said == what => return,
                Ok(_) => {}
                Err(_) => panic!("it never came to {what:?}: {}", lock(&self.errors)),
            }
        }
    }

    fn is_told(&mut self, what: &str) {
        let _ = self.child.stdin.as_mut().expect("its input").write_all(what.as_bytes());
    }
}

impl Drop for Program {
    /// Ends it with all that it started, by way of `timeout`.
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

/// Lets an application work while its database's primary hands over to its replica, which is killed then, so that all goes
/// back.
fn has_a_day(name: &str, modules: &str) {
    let Some(python) = python(name, modules) else { return };
    let (home, _pair) = free_pair();
    let (database, seeds) = (cluster().key_on(home, name), cluster().seeds());
    // An election takes longer than a request usually may, and a primary that is about to hand over may let writers wait for 5 s.
    let timeouts = [("REQUEST_TIMEOUT", "10s"), ("NODE_TIMEOUT", "12s"), ("RETRY_TIMEOUT", "15s")];
    let settings = Settings::new(seeds).with("DATABASE", database).expecting_warnings();
    let settings = timeouts.iter().fold(settings, |settings, (name, value)| settings.with(name, value));
    let proxy = Proxy::start(settings);
    let mut program = Program::start(&python, name, &proxy);
    program.comes_to("at work");
    let (primary, replica) = (home, home + PRIMARIES);
    let election = lock(&ELECTION);
    cluster().fail_over_to(replica, "");
    wait_until_replica(primary);
    drop(election);
    program.is_told("rough\n");
    program.comes_to("rough");
    let election = lock(&ELECTION);
    // Killed, it has forgotten its election: Redis would take the votes of it for votes of its next, if that came within
    // seconds.
    cluster_to_change().nodes[replica].kill();
    cluster().wait_until_primary(primary);
    drop(election);
    cluster_to_change().nodes[replica].launch();
    wait_until_replica(replica);
    program.child.stdin = None;
    program.comes_to("all well");
}

/// A primary and its replica that no other application has.
fn free_pair() -> (usize, MutexGuard<'static, ()>) {
    until("a free pair", Duration::from_secs(300), || {
        PAIRS.iter().enumerate().find_map(|(home, pair)| match pair.try_lock() {
            Ok(pair) => Some((home, pair)),
            Err(TryLockError::Poisoned(pair)) => Some((home, pair.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        })
    })
}

/// Waits until a node follows its primary, and all others know that.
fn wait_until_replica(index: usize) {
    until(&format!("node {index} to be a replica"), Duration::from_secs(30), || {
        let cluster = cluster();
        let says = |node: usize, line: &str| cluster.node(node).try_line(line).map(|reply| reply.string());
        let replication = says(index, "INFO replication")?;
        let id = says(index, "CLUSTER MYID")?;
        let is_known = |nodes: String| {
            nodes.lines().any(|line| line.starts_with(&id) && line.contains("slave") && !line.contains("fail"))
        };
        let all_know = (0..cluster.nodes.len()).all(|node| says(node, "CLUSTER NODES").is_none_or(is_known));
        (replication.contains("master_link_status:up") && all_know).then_some(())
    });
}

#[test]
fn rq() {
    has_a_day("rq", "rq");
}

#[test]
fn celery() {
    has_a_day("celery", "celery, redis");
}

#[test]
fn bullmq() {
    has_a_day("bullmq", "bullmq");
}

#[test]
fn dramatiq() {
    has_a_day("dramatiq", "dramatiq, redis");
}

#[test]
fn huey() {
    has_a_day("huey", "huey, redis");
}

#[test]
fn arq() {
    has_a_day("arq", "arq");
}

#[test]
fn saq() {
    has_a_day("saq", "saq, redis");
}

#[test]
fn django_redis() {
    has_a_day("django", "django_redis");
}

#[test]
fn limits() {
    has_a_day("limits", "limits, redis");
}

#[test]
fn python_redis_lock() {
    has_a_day("locks", "redis_lock");
}

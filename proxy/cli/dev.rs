//! `slotway dev`: real nodes in a temporary folder, made a cluster, and the proxy in front. All of it ends with this
//! process.

mod cluster;
mod nodes;

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use slotway::{
    config::{Config, ListenerConfig, Sources},
    process::reload::Rereading,
    protocol::{address::Address, endpoint::ListenAddress, resp::Value},
    upstream::dial::{Control, Credentials, Dialer, Login},
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::{
    Failure,
    flags::DevFlags,
    healthcheck::near,
    log, say,
    serve::{Announced, block_on, serve, watch_signals},
    signals::Hangup,
};
use nodes::{Layout, Nodes};

/// How far a node's bus port is above its own (Redis Cluster specification).
const BUS: u16 = 10_000;
/// How long the proxy may take to serve once the cluster is formed, before we say where it is all the same.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts everything and serves until a signal ends it.
pub fn run(flags: &DevFlags) -> Result<(), Failure> {
    let plan = Layout::of(flags)?;
    let sources = sources(flags, &plan);
    let mut config = Config::load(&sources)?;
    config.ready_to_serve()?;
    if config.shown.iter().any(|shown| shown.key == "log" && shown.from == "default") {
        // What people see here is what we print.
        config.log = Targets::new().with_default(LevelFilter::WARN);
    }
    let set_log = log::start(&config);
    let announced = Announced::of(&config);
    check_ports(&config, &plan)?;
    let program = program(flags.server.as_deref())?;
    let rereading = Rereading::new(sources, set_log);
    block_on(live(config, plan, program, rereading, announced))
}

/// The usual sources, with our own nodes as the cluster.
fn sources(flags: &DevFlags, plan: &Layout) -> Sources {
    let mut sources = flags.serve.sources();
    let seeds: Vec<String> = plan.addresses().map(|address| address.to_string()).collect();
    let ours = [("seeds", seeds.join(",")), ("username", String::new()), ("address_map", String::new())];
    let no_password = ["password", "password_file"].map(|key| (key, String::new()));
    sources.flags.extend(ours.into_iter().chain(no_password).map(|(key, value)| (key.to_owned(), value)));
    sources
}

/// Names the first port that is taken: otherwise some node would end with an error that is hard to find.
fn check_ports(config: &Config, plan: &Layout) -> Result<(), Failure> {
    let taken = |address: &SocketAddr| TcpListener::bind(address).is_err();
    for port in plan.ports() {
        if let Some(port) = [port, port + BUS].into_iter().find(|port| taken(&([127, 0, 0, 1], *port).into())) {
            return Err(Failure::Bind(format!(
                "port {port} is taken, perhaps by a Redis of yours, which is left alone; choose other ports for the nodes: \
                 slotway dev --base-port {}",
                free_base(plan, taken).map_or_else(|| "PORT".to_owned(), |base| base.to_string())
            )));
        }
    }
    let own = config.addresses().filter_map(ListenAddress::tcp).map(|address| (address, "--listen"));
    let own = own.chain(config.admin.map(|admin| (admin, "--admin")));
    for (address, flag) in own {
        if taken(&address) {
            return Err(Failure::Bind(format!(
                "{address} is taken: stop what uses port {}, or choose another address with {flag}",
                address.port()
            )));
        }
    }
    Ok(())
}

/// The first port from which on all that the nodes need are free.
fn free_base(plan: &Layout, taken: impl Fn(&SocketAddr) -> bool) -> Option<u16> {
    let is_free = |port: u16| !taken(&([127, 0, 0, 1], port).into());
    let count = plan.ports().count() as u16;
    (1..50).map(|step| plan.base.saturating_add(100 * step)).find(|base| {
        u32::from(*base) + u32::from(BUS) + u32::from(count) <= u32::from(u16::MAX)
            && (*base..*base + count).all(|port| is_free(port) && is_free(port + BUS))
    })
}

/// The server to run: as named, or the first that is installed.
fn program(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let runs = |program: &Path| {
        let version = std::process::Command::new(program).arg("--version").output();
        version.map_err(|error| error.to_string()).and_then(|output| match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        })
    };
    if let Some(program) = named {
        return match runs(program) {
            Ok(()) => Ok(program.to_owned()),
            Err(why) => Err(Failure::Config(format!("--server: cannot run {}: {why}", program.display()))),
        };
    }
    let usual = ["redis-server", "valkey-server"].map(PathBuf::from);
    usual.into_iter().find(|program| runs(program).is_ok()).ok_or_else(|| {
        Failure::Config(
            "neither redis-server nor valkey-server is installed: `apt-get install redis-server`, `brew install redis`, \
             or name one with --server"
                .to_owned(),
        )
    })
}

async fn live(
    config: Config,
    plan: Layout,
    program: PathBuf,
    rereading: Rereading,
    announced: Announced,
) -> Result<(), Failure> {
    let (shutdown, now) = (CancellationToken::new(), CancellationToken::new());
    watch_signals(Hangup::Ends, &shutdown, &now)?;
    let mut nodes = Nodes::start(&plan, program)?;
    let outcome = tokio::select! {
        formed = cluster::form(&plan) => formed,
        why = nodes.death() => Err(why),
        () = shutdown.cancelled() => Ok(()),
    };
    let outcome = match outcome {
        Ok(()) if !shutdown.is_cancelled() => {
            let serving = serve(config.clone(), shutdown.clone(), now, rereading, announced);
            let greeting = greet(&config, &plan, &shutdown);
            let watching = nodes.watch(&shutdown);
            let (served, (), survived) = tokio::join!(ending(serving, &shutdown), greeting, watching);
            served.map_err(Failure::from).and(survived)
        }
        outcome => outcome,
    };
    nodes.stop().await;
    outcome
}

/// What ends early ends the rest too.
async fn ending<T>(work: impl Future<Output = T>, shutdown: &CancellationToken) -> T {
    let outcome = work.await;
    shutdown.cancel();
    outcome
}

/// Says what runs where, once it does.
async fn greet(config: &Config, plan: &Layout, shutdown: &CancellationToken) {
    tokio::select! {
        () = serving(config) => say(greeting(config, plan)),
        () = shutdown.cancelled() => {}
    }
}

/// Returns when the proxy reaches the nodes.
async fn serving(config: &Config) {
    let plain = |listener: ListenerConfig| match listener.address {
        ListenAddress::Tcp(address) if listener.users.is_empty() => Some(address),
        _ => None,
    };
    let Some(address) = config.all_listeners().into_iter().find_map(plain).map(near) else { return };
    let credentials = config.client_password.as_ref().map(|password| Credentials {
        username: config.client_username.clone().map(Into::into),
        secret: password.reveal().to_owned().into(),
    });
    let (address, login) =
        (Address::new(address.ip().to_string(), address.port()), Login { credentials, ..Login::default() });
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Ok(mut proxy) = Control::open(&address, &login, &Dialer::default()).await
            && let Ok(Value::Integer(_)) = proxy.ask(&["EXISTS", "foo"]).await
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn greeting(config: &Config, plan: &Layout) -> String {
    let to_us = match config.addresses().next() {
        Some(ListenAddress::Unix { path, .. }) => format!("-s {path}"),
        Some(ListenAddress::Tcp(address)) => format!("-p {}", address.port()),
        Some(ListenAddress::Tls(address)) => format!("--tls -p {}", address.port()),
        None => "-p 6380".to_owned(),
    };
    let listen: Vec<String> = config.addresses().map(ToString::to_string).collect();
    let count = plan.ports().count();
    let nodes = if count == 1 { "node" } else { "nodes" };
    let mut text = format!("Slotway runs in front of a cluster of {count} real {nodes}.\n\n");
    text += &format!("  {:22} the proxy: connect here as to one Redis\n", listen.join(", "));
    if let Some(admin) = config.admin {
        let page = near(admin);
        text += &format!("  {:22} status page http://{page}/, also /metrics and /readyz\n", admin.to_string());
    }
    for node in plan.nodes() {
        text += &format!("  {:22} {}\n", node.address().to_string(), node.what());
    }
    let auth = if config.client_password.is_some() { " -a <client_password>" } else { "" };
    text += &format!("\nTry this in another terminal:\n\n  redis-cli {to_us}{auth} set foo bar\n");
    text + "\nCtrl-C ends all of it; nothing is kept."
}

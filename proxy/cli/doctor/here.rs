//! This machine's part: the proxy's ports, a proxy that runs here already, open files.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use slotway::{
    config::Config,
    process::doctor::Report,
    protocol::{endpoint::ListenAddress, names::Name},
    upstream::descriptors::files_for,
};

use crate::cli::{
    healthcheck::{body, near, readyz},
    serve::lent,
};

const PROXY: &str = "proxy";

pub fn look(config: &Config, report: &mut Report) {
    let running = running_proxy(config, report);
    let own = config.addresses().filter_map(ListenAddress::tcp).map(|address| (address, "--listen"));
    for (address, flag) in own.chain(config.admin.map(|admin| (admin, "--admin"))) {
        match TcpListener::bind(address) {
            Ok(_) => report.ok(PROXY, format!("{address} is free to listen on")),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && running => {
                report.ok(PROXY, format!("{address} is in use, as a proxy runs here"));
            }
            Err(error) => report.problem(
                PROXY,
                Name::Port,
                format!("cannot listen on {address}: {error}"),
                remedy(&error, address, flag),
            ),
        }
    }
    open_ports(config, report);
    files(config, report);
}

/// Whom the proxy lets in without a password.
fn open_ports(config: &Config, report: &mut Report) {
    let remedy = "--client-password-file FILE; or --allow-insecure-bind where the network is closed";
    let open = config.insecure_binds();
    match (config.lent_user(), &*open) {
        (None, open) => open.iter().for_each(|address| {
            let so = match config.protected_mode {
                true => "asks nobody for a password, and serves this machine alone (protected_mode)",
                false => "is open to everyone who can reach it",
            };
            report.warning(PROXY, Name::OpenPort, format!("{address} {so}"), remedy);
        }),
        (Some(user), []) => {
            report.warning(PROXY, Name::LentUser, lent(user), "--client-password-file FILE, unless this is a sidecar")
        }
        (Some(user), open) => open.iter().for_each(|address| {
            let text = format!("everyone who can reach {address} would work as the nodes' user `{user}`: not served");
            report.problem(PROXY, Name::LentUser, text, remedy);
        }),
    }
}

fn remedy(error: &io::Error, address: SocketAddr, flag: &str) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "see who has it:  ss -ltnp 'sport = :{port}'   and stop that, or choose another with {flag} HOST:PORT"
            )
        }
        io::ErrorKind::PermissionDenied => format!("ports below 1024 are root's: choose another with {flag} HOST:PORT"),
        _ => format!("no address of this machine's? {flag} 0.0.0.0:{port} listens on all"),
    }
}

/// Whether a proxy with this admin port runs here, and what it says of itself.
fn running_proxy(config: &Config, report: &mut Report) -> bool {
    let Some(Ok(answer)) = config.admin.map(|admin| readyz(admin, config.admin_tls)) else { return false };
    let Ok(said) = serde_json::from_str::<serde_json::Value>(body(&answer)) else { return false };
    let at = config.admin.map_or(String::new(), |admin| near(admin).to_string());
    match (said["ready"].as_bool(), said["reason"].as_str()) {
        (Some(true), _) => report.ok(PROXY, format!("one runs here, and http://{at}/readyz says that it can serve")),
        (Some(false), reason) => report.problem(
            PROXY,
            Name::NotReady,
            format!(
                "one runs here, and http://{at}/readyz says that it cannot serve: {}",
                reason.unwrap_or("no reason given")
            ),
            "it looks again by itself all the time: mend what is said of the cluster, and see its log",
        ),
        (None, _) => return false,
    }
    true
}

fn files(config: &Config, report: &mut Report) {
    let workers = match config.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    };
    let needed = files_for(config.max_clients, workers, config.seeds.len()) as u64;
    let Ok((_, most)) = rlimit::Resource::NOFILE.get() else { return };
    if most < needed {
        report.warning(
            PROXY,
            Name::OpenFiles,
            format!(
                "{most} open files are allowed here: too few for max_clients = {}, which takes {needed}",
                config.max_clients
            ),
            "ulimit -n 65536 (in compose: ulimits.nofile: 65536), or a smaller --max-clients",
        );
    }
}

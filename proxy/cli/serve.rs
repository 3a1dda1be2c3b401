//! `slotway serve`.

use slotway::{
    config::Config,
    process::{
        reload::Rereading,
        server::{self, ServeError},
    },
    protocol::names::Name,
};
use tokio_util::sync::CancellationToken;

use super::{
    Failure,
    flags::ServeFlags,
    log,
    signals::{Hangup, Signals},
};

/// Serves until a signal ends it.
pub fn run(flags: &ServeFlags) -> Result<(), Failure> {
    let sources = flags.sources();
    let config = Config::load(&sources)?;
    config.ready_to_serve()?;
    let set_log = log::start(&config);
    let announced = Announced::of(&config);
    block_on(async {
        let (shutdown, now) = (CancellationToken::new(), CancellationToken::new());
        let rereading = Rereading::new(sources, set_log);
        watch_signals(Hangup::Reloads(rereading.reloads.clone()), &shutdown, &now)?;
        Ok(serve(config, shutdown, now, rereading, announced).await?)
    })
}

/// The proxy itself.
pub async fn serve(
    config: Config,
    shutdown: CancellationToken,
    now: CancellationToken,
    rereading: Rereading,
    announced: Announced,
) -> Result<(), ServeError> {
    server::run(config, shutdown, now, rereading, || announced.log()).await
}

/// What is logged at the start, once it is sure that there is one: which program, all that is in force, for whoever reads the
/// log later, and what people should know beforehand.
pub struct Announced {
    settings: String,
    warnings: Vec<String>,
}

impl Announced {
    /// What is to be logged of this configuration.
    pub fn of(config: &Config) -> Announced {
        let values: Vec<String> = config.shown.iter().map(|shown| format!("{}={}", shown.key, shown.value)).collect();
        let open = |address| Name::OpenPort.on(open_to_all(address, config.protected_mode));
        let mut warnings: Vec<String> = config.insecure_binds().iter().map(open).collect();
        warnings.extend(config.lent_user().map(|user| Name::LentUser.on(lent(user))));
        warnings.extend(config.speaks_unchecked_tls().then(|| Name::TlsUnchecked.on(UNCHECKED)));
        warnings.extend(config.strange_commands().into_iter().map(|name| Name::StrangeCommand.on(strange(name))));
        Announced { settings: values.join(" "), warnings }
    }

    fn log(self) {
        tracing::info!("slotway {} starts", slotway::LONG_VERSION);
        tracing::debug!("settings: {}", self.settings);
        self.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    }
}

/// A port without a password, which is protected or not.
pub fn open_to_all(address: &std::net::SocketAddr, is_protected: bool) -> String {
    let so = if is_protected {
        "asks nobody for a password, and serves this machine alone (protected_mode)"
    } else {
        "is open to everyone who can reach it"
    };
    format!(
        "{address} {so}: set client_password or client_password_file, or say allow_insecure_bind where the network is closed"
    )
}

/// What has `insecure` in its name.
pub const UNCHECKED: &str = "nodes' certificates are not checked (node_tls_insecure_skip_verify): whoever sits between the \
                             proxy and the nodes can read and change everything, and gets the password";

/// What a sidecar is for, and what nobody else should find.
pub fn lent(user: &str) -> String {
    format!("whoever connects works as the nodes' user `{user}`: `password` is set and `client_password` is not")
}

/// A name in `deny` or `allow` that may have no effect.
pub fn strange(name: &str) -> String {
    format!(
        "deny or allow names `{name}`, which is no command of Redis 7.0 or Valkey 9.1: it is mistyped, or a module's"
    )
}

/// Runs the main thread's part: accepting clients and following the cluster. Requests have threads of their own.
pub fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::of("cannot start", error))?.block_on(work)
}

/// From here on signals cancel these.
pub fn watch_signals(hangup: Hangup, shutdown: &CancellationToken, now: &CancellationToken) -> Result<(), Failure> {
    let signals = Signals::catch().map_err(|error| Failure::of("cannot catch signals", error))?;
    tokio::spawn(signals.watch(hangup, shutdown.clone(), now.clone()));
    Ok(())
}

//! Where the process is reached: by clients, by its successor, and on the admin port.

use socket2::Socket;
use tokio_util::sync::CancellationToken;

use super::{ServeError, acceptor::Acceptor, listeners::Listeners};
use crate::{
    config::Config,
    process::{
        admin::{Admin, AdminView},
        certificates::Certificates,
        inherited::Inherited,
        takeover::{self, Post, Predecessor, Successor},
    },
    protocol::endpoint::ListenAddress,
    upstream::transport::tls::for_clients::ForClients,
};

/// The sockets for clients, and that of the admin port where somebody has passed one.
pub(super) struct Sockets {
    listeners: Listeners,
    admin: Option<Socket>,
}

impl Sockets {
    /// Takes those that have been passed, and binds the others; and the running process, where it has passed them.
    ///
    /// # Errors
    /// An address cannot be listened on, or what has been passed is of no use.
    pub(super) fn open(
        config: &Config,
        certificates: &Certificates,
    ) -> Result<(Sockets, Option<Predecessor>), ServeError> {
        let (mut inherited, predecessor) = inherit(config)?;
        let listeners = Listeners::open(config, certificates.for_clients(), &mut inherited)?;
        let admin = config.admin.and_then(|address| inherited.take(&ListenAddress::Tcp(address)));
        for address in inherited.left() {
            tracing::warn!("a socket at {address} has been passed that no listener names: it is closed");
        }
        Ok((Sockets { listeners, admin }, predecessor))
    }
}

/// The listening sockets that are there already, from the service manager or from the process whose place this one takes.
fn inherit(config: &Config) -> Result<(Inherited, Option<Predecessor>), ServeError> {
    let found = config.takeover.as_deref().map(takeover::ask).transpose();
    let found = found.map_err(|error| ServeError::System("`takeover`: the running process gives no sockets", error))?;
    match found.flatten() {
        Some((inherited, predecessor)) => Ok((inherited, Some(predecessor))),
        None => Inherited::from_service_manager()
            .map(|inherited| (inherited, None))
            .map_err(|error| ServeError::System("the service manager passes what is no listening socket", error)),
    }
}

/// All ports, listened on.
pub(super) struct Ports {
    listeners: Listeners,
    names: String,
    takeover: Option<Post>,
    admin: Option<Admin>,
}

impl Ports {
    /// Opens `takeover` and the admin port beside the clients' sockets. `tls` is what clients are shown, `stop` ends the admin
    /// port.
    ///
    /// # Errors
    /// One of them cannot be listened on.
    pub(super) fn open(
        sockets: Sockets,
        config: &Config,
        tls: Option<ForClients>,
        view: AdminView,
        stop: &CancellationToken,
    ) -> Result<Ports, ServeError> {
        let Sockets { listeners, admin } = sockets;
        let takeover = config.takeover.as_deref().map(Post::at).transpose();
        let takeover = takeover.map_err(|error| ServeError::System("`takeover`: cannot listen there", error))?;
        let tls = tls.filter(|_| config.admin_tls).map(ForClients::for_visitors);
        let start = |address| {
            let started = Admin::start(address, admin, config.reuse_port, tls, view, stop.clone());
            started.map_err(|error| ServeError::Bind(ListenAddress::Tcp(address), error))
        };
        let admin = config.admin.map(start).transpose()?;
        let names = config.addresses().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Ok(Ports { listeners, names, takeover, admin })
    }

    /// Where clients come in.
    pub(super) fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// Where the process has begun to listen, in words.
    pub(super) fn told(&self) -> String {
        let admin = self.admin.as_ref().map(|admin| format!("; status page and metrics at {}", admin.address()));
        format!("listening on {}{}", self.names, admin.unwrap_or_default())
    }

    /// Waits until a successor has the sockets and is ready; for ever where none can come.
    pub(super) async fn successor(&self) -> Successor {
        let Some(post) = &self.takeover else { return std::future::pending().await };
        let sockets = || {
            let mut all = self.listeners.duplicates()?;
            all.extend(self.admin.as_ref().map(|admin| admin.socket().try_clone_to_owned()).transpose()?);
            Ok(all)
        };
        post.hand_over(&sockets).await
    }

    /// Lets go of all that the successor has, and then of the successor, which waits for that.
    pub(super) async fn leave_to(self, successor: Successor) {
        // Who is in the backlog is the successor's client.
        self.listeners.are_handed_over();
        drop(self.takeover);
        if let Some(admin) = self.admin {
            let _ = tokio::task::spawn_blocking(|| admin.step_down()).await;
        }
        drop(successor);
    }

    /// Closes all but the admin port, which is returned. Who is in the backlog already has been promised a connection, and
    /// is accepted first.
    pub(super) async fn close(self, acceptor: &Acceptor<'_>) -> Option<Admin> {
        acceptor.accept_rest(&self.listeners.all()).await;
        self.admin
    }
}

//! The admin port, where machines and people ask about the proxy. It has a thread and a runtime of its own, so that a slow
//! scrape costs no client anything and a busy worker delays no probe.
//!
//! - `/metrics`: Prometheus.
//! - `/livez`: 200 as long as this thread runs. It never depends on the nodes: their outage must not restart the proxy.
//! - `/readyz`: 200 where the proxy can serve, else 503 and why.
//! - `/api/status`: the proxy and its nodes as JSON. `/api/stream`: the same each second, as server-sent events.
//! - `/api/history`: rates and latencies of the last quarter of an hour.
//! - `/`: the status page, which draws all of these.

mod bounded;
mod status;
mod vitals;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, Uri, header},
    response::{
        Html, IntoResponse, Sse,
        sse::{Event, KeepAlive},
    },
    routing::get,
};
use futures_util::stream;
use serde_json::json;
use socket2::Socket;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{bounded::Bounded, vitals::Vitals};
use crate::{
    clients::Clients,
    cluster::topology::Topology,
    metrics::Metrics,
    process::worker::Publisher,
    protocol::endpoint::Endpoint,
    upstream::{
        descriptors::Descriptors,
        dial::{Dialer, Login},
        transport::{Listener, tls::for_clients::ForClients},
    },
};

/// The status page: one file that loads nothing from elsewhere. It draws what `/api/stream` and `/api/history` tell.
const PAGE: &str = concat!(
    include_str!("admin/page/head.html"),
    "<style>\n",
    include_str!("admin/page/style.css"),
    "</style>\n",
    include_str!("admin/page/body.html"),
    "<script>\n",
    include_str!("admin/page/script.js"),
    "</script>\n</body>\n</html>\n",
);

/// What the admin server shows.
pub struct AdminView {
    /// The topology in use.
    pub topology: watch::Receiver<Arc<Topology>>,
    /// The process's open files.
    pub descriptors: Arc<Descriptors>,
    /// The process's metrics.
    pub metrics: Metrics,
    /// Cancelled where the proxy is about to stop.
    pub shutdown: CancellationToken,
    /// All clients.
    pub clients: Arc<Clients>,
    /// The user and password for asking nodes about themselves.
    pub login: Login,
    /// How nodes are connected to.
    pub dialer: Dialer,
    /// The workers, which have the newest counts.
    pub publishers: Vec<Publisher>,
    /// Whether keys are shown as they are, or as digests.
    pub show_keys: bool,
}

/// How long a scrape waits for workers to publish what they have counted.
const PUBLISHED_WITHIN: Duration = Duration::from_millis(100);
/// How often `/api/stream` sends the status.
const STREAM_EVERY: Duration = Duration::from_secs(1);

/// The running admin server.
pub struct Admin {
    address: SocketAddr,
    /// The listening socket, for a process that takes over.
    socket: OwnedFd,
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Admin {
    /// Listens and serves until `stop` is cancelled. `inherited` is a socket that listens already; without one a new socket
    /// listens on `address`, which other processes may share if `reuse_port` is set. With `tls`, visitors speak TLS.
    pub fn start(
        address: SocketAddr,
        inherited: Option<Socket>,
        reuse_port: bool,
        tls: Option<ForClients>,
        view: AdminView,
        stop: CancellationToken,
    ) -> io::Result<Admin> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let bound = {
            let _runtime = runtime.enter();
            match inherited {
                Some(socket) => Listener::tcp(socket, tls),
                None => Listener::bind_tcp(address, reuse_port, tls),
            }
        };
        let bound = bound.and_then(|listener| Ok((listener.as_fd().try_clone_to_owned()?, listener)));
        let (socket, listener) = match bound {
            Ok(bound) => bound,
            Err(error) => {
                // The caller has a runtime of its own, within which another must not end by itself.
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let address = match listener.address()? {
            Endpoint::Tcp(chosen) => chosen,
            Endpoint::Unix(_) => address,
        };
        let stop = stop.child_token();
        let stopped = stop.clone();
        let thread = thread::Builder::new().name("admin".to_owned()).spawn(move || {
            runtime.block_on(async {
                let bounded = Bounded::new(listener, view.descriptors.clone());
                let shown = Arc::new(Pages { view, vitals: Vitals::default(), since: Instant::now() });
                let served = axum::serve(bounded, pages(shown.clone()));
                tokio::select! {
                    served = async { served.await } => if let Err(error) = served {
                        tracing::error!(%error, "the admin server ended");
                    },
                    () = shown.vitals.keep(&shown.view) => {}
                    () = stopped.cancelled() => {}
                }
            });
        })?;
        Ok(Admin { address, socket, stop, thread })
    }

    /// The listening socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Stops, since another process answers on the same socket from now on.
    pub fn step_down(self) {
        self.stop.cancel();
        self.join();
    }

    /// Where it listens. If port 0 was asked for, this has the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for its thread to end.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the admin server panicked");
        }
    }
}

/// What the pages are made from.
struct Pages {
    view: AdminView,
    vitals: Vitals,
    since: Instant,
}

fn pages(shown: Arc<Pages>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/api/status", get(api_status))
        .route("/api/stream", get(api_stream))
        .route("/api/history", get(api_history))
        .fallback(not_found)
        .with_state(shown)
}

async fn page() -> impl IntoResponse {
    // The page shows names of nodes, and whoever controls a node chooses those: so nothing may come from elsewhere.
    const POLICY: &str =
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(PAGE))
}

async fn metrics(State(shown): State<Arc<Pages>>) -> impl IntoResponse {
    let view = &shown.view;
    publish(view).await;
    view.metrics.ready(readiness(view).is_ok());
    view.metrics.client_buffered(view.clients.buffered());
    view.metrics.client_libraries(status::client_libraries(&view.clients));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], view.metrics.render())
}

async fn readyz(State(shown): State<Arc<Pages>>) -> impl IntoResponse {
    match readiness(&shown.view) {
        Ok(None) => (StatusCode::OK, Json(json!({ "ready": true }))),
        Ok(Some(reason)) => (StatusCode::OK, Json(json!({ "ready": true, "reason": reason }))),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ready": false, "reason": reason }))),
    }
}

async fn api_history(State(shown): State<Arc<Pages>>) -> impl IntoResponse {
    Json(status::past(&shown.view))
}

/// The status each second, as long as somebody listens.
async fn api_stream(State(shown): State<Arc<Pages>>) -> impl IntoResponse {
    let mut ticks = tokio::time::interval(STREAM_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let events = stream::unfold((shown, ticks), async |(shown, mut ticks)| {
        ticks.tick().await;
        shown.vitals.watch();
        let status = status::of(&shown, readiness(&shown.view));
        let event = Event::default().json_data(status).unwrap_or_default();
        Some((Ok::<_, Infallible>(event), (shown, ticks)))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// Has workers publish what they have counted, so that a scrape counts all that was answered before it. A worker that is busy
/// for longer than [`PUBLISHED_WITHIN`] is not waited for.
async fn publish(view: &AdminView) {
    let published = view.publishers.iter().map(Publisher::ask);
    let _ = tokio::time::timeout(PUBLISHED_WITHIN, futures_util::future::join_all(published)).await;
}

async fn api_status(State(shown): State<Arc<Pages>>) -> impl IntoResponse {
    shown.vitals.watch();
    publish(&shown.view).await;
    Json(status::of(&shown, readiness(&shown.view)))
}

/// Whether the proxy can serve, and if not, why. It can if at least one node that owns slots can be reached and serves. If only
/// part of the slots is served, it is ready, and the reason is told as well.
fn readiness(view: &AdminView) -> Result<Option<String>, String> {
    if view.shutdown.is_cancelled() {
        return Err("shutting down".to_owned());
    }
    let topology = view.topology.borrow().clone();
    match topology.complaint() {
        complaint if topology.reachable() > 0 => Ok(complaint),
        complaint => Err(complaint.unwrap_or_else(|| "no node owns slots".to_owned())),
    }
}

/// An unknown path: the answer lists the paths that there are.
async fn not_found(uri: Uri) -> impl IntoResponse {
    const PAGES: &str = "/ (status page), /api/status, /metrics, /livez, /readyz";
    (StatusCode::NOT_FOUND, format!("there is no {}; there are {PAGES}\n", uri.path()))
}

#[cfg(test)]
mod tests;

//! Stub.
use slotway::config::{Config, Sources};
use tokio_util::sync::CancellationToken;
fn main() {
    let mut args = std::env::args().skip(1).filter(|a| a != "serve");
    let mut flags: Vec<(String, String)> = vec![];
    while let Some(flag) = args.next() {
        flags.push((flag.trim_start_matches("--").to_owned(), args.next().unwrap()));
    }
    let config = Config::load(&Sources::of_process(None, flags)).unwrap();
    tracing_subscriber::fmt().init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (shutdown, now) = (CancellationToken::new(), CancellationToken::new());
        let token = shutdown.clone();
        tokio::spawn(async move {
            let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
            term.recv().await;
            token.cancel()
        });
        slotway::server::run(config, shutdown, now).await.unwrap();
    });
}

//! SIGTERM and Ctrl-C: the first asks for an orderly end, the second for one at once.

use std::io;

use slotway::upstream::router::Reloads;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What SIGHUP means.
#[derive(Clone, Debug)]
pub enum Hangup {
    /// The configuration is to be read again.
    Reloads(Reloads),
    /// The terminal is gone, and with it whoever could end what runs in it.
    Ends,
}

/// The signals, caught from the moment this exists.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Catches the signals.
    pub fn catch() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Cancels `shutdown` at the first signal and `now` at the second.
    pub async fn watch(mut self, hangup: Hangup, shutdown: CancellationToken, now: CancellationToken) {
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.hangup.recv() => match &hangup {
                    Hangup::Ends => "SIGHUP",
                    Hangup::Reloads(reload) => {
                        tracing::info!("SIGHUP: the configuration is read again");
                        let reload = reload.clone();
                        // What comes of it is logged where it is done.
                        tokio::spawn(async move { reload.ask().await });
                        continue;
                    }
                }
            };
            if shutdown.is_cancelled() {
                tracing::info!("{name} again: ending now");
                return now.cancel();
            }
            tracing::info!("{name}: stopping; a second one stops at once");
            shutdown.cancel();
        }
    }
}

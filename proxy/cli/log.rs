//! The log: to stderr, since what a command prints is on stdout.

use std::io::IsTerminal;

use slotway::config::{Config, LogFormat};
use tracing_subscriber::EnvFilter;

/// From here on everything is logged as the configuration says.
pub fn start(config: &Config) {
    let filter = EnvFilter::try_new(&config.log).unwrap_or_default();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => {
            let colours =
                std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            log.with_ansi(colours).with_target(false).init();
        }
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

//! The log: to stderr, since what a command prints is on stdout.

use std::io::IsTerminal;

use slotway::config::{Config, LogFormat};
use tracing_subscriber::{EnvFilter, reload};

/// Sets another filter.
pub type SetLog = Box<dyn Fn(&str) + Send>;

/// From here on everything is logged as the configuration says. Returns what changes the filter.
pub fn start(config: &Config) -> SetLog {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr);
    let filter = EnvFilter::try_new(&config.log).unwrap_or_default();
    match config.log_format {
        LogFormat::Text => {
            let colours =
                std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            let log = log.with_ansi(colours).with_target(false).with_env_filter(filter).with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            changing(handle)
        }
        LogFormat::Json => {
            let log = log.json().flatten_event(true).with_env_filter(filter).with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            changing(handle)
        }
    }
}

fn changing<S: 'static>(handle: reload::Handle<EnvFilter, S>) -> SetLog {
    Box::new(move |filter| {
        let changed = EnvFilter::try_new(filter).map(|filter| handle.reload(filter));
        if !matches!(changed, Ok(Ok(()))) {
            tracing::warn!("the log's filter stays as it was: `{filter}` is none");
        }
    })
}

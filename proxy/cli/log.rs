//! The log: to stderr, since what a command prints is on stdout.

use std::io::IsTerminal;

use slotway::config::{Config, LogFormat};
use tracing_subscriber::{
    Layer, Registry, filter::Targets, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

/// Sets another filter.
pub type SetLog = Box<dyn Fn(&Targets) + Send>;

/// From here on everything is logged as the configuration says. Returns what changes the filter.
pub fn start(config: &Config) -> SetLog {
    let (filter, handle) = reload::Layer::new(config.log.clone());
    let log = fmt::layer().with_writer(std::io::stderr);
    let log: Box<dyn Layer<_> + Send + Sync> = match config.log_format {
        LogFormat::Text => {
            let colours =
                std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            log.with_ansi(colours).with_target(false).boxed()
        }
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    };
    Registry::default().with(filter).with(log).init();
    Box::new(move |filter| {
        // Fails only once nothing logs any more.
        let _ = handle.reload(filter.clone());
    })
}

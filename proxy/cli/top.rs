//! `slotway top`: the status page in a terminal, by the admin port of a running proxy.

mod app;
mod screen;
mod source;
mod status;
mod table;

use std::{
    io::{self, IsTerminal},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use clap::Args;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};
use slotway::{config::Config, protocol::names::Name};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    app::App,
    source::{News, Source},
    status::Status,
    table::{Sort, View},
};
use super::{Failure, flags::AdminFlags, say};

/// How soon what is told is seen.
const LOOK: Duration = Duration::from_millis(200);

/// What `top` shows, and how.
#[derive(Args, Clone)]
pub struct TopFlags {
    /// The proxy's admin port, as http://host:port, if it is not this machine's
    #[arg(value_name = "URL")]
    pub url: Option<String>,
    /// Print it once as a table, for scripts: no terminal is needed
    #[arg(long, conflicts_with = "json")]
    pub once: bool,
    /// Print it once as JSON, as /api/status tells it
    #[arg(long)]
    pub json: bool,
    /// What to show first
    #[arg(long, value_enum, value_name = "VIEW", default_value = "nodes")]
    pub view: View,
    #[command(flatten)]
    pub admin: AdminFlags,
}

/// Shows it until a key or a signal ends it; with `--once` and `--json` prints it.
pub fn run(flags: &TopFlags) -> Result<(), Failure> {
    let config = Config::load(&flags.admin.sources())?;
    let source = Source::of(flags.url.as_deref(), &config)?;
    if flags.once || flags.json {
        let silent = |error: io::Error| {
            let text =
                format!("no answer from {}: {error}; is a proxy running, and is its admin port there?", source.at);
            Failure::Other(Name::NoProxy.on(text))
        };
        let told = source.ask().map_err(silent)?;
        if flags.json {
            say(told.trim_end());
        } else {
            let status = Status::parse(&told).map_err(io::Error::from).map_err(silent)?;
            say(table::plain(&status, flags.view, Sort::default()));
        }
        return Ok(());
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let text = "this is no terminal: `slotway top --once` prints a table, `--json` all that there is";
        return Err(Failure::Config(Name::Usage.on(text)));
    }
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let app = App::new(source.at.clone(), flags.view, colours);
    let (sender, news) = mpsc::channel();
    end_by_signal(sender.clone())?;
    source.follow(sender);
    // Also restores the terminal where something panics.
    let mut terminal = ratatui::try_init().map_err(|error| Failure::of("the terminal cannot be used", error))?;
    let shown = show(&mut terminal, app, &news);
    ratatui::restore();
    shown.map_err(|error| Failure::of("the terminal", error))
}

fn show(terminal: &mut DefaultTerminal, mut app: App, news: &Receiver<News>) -> io::Result<()> {
    loop {
        terminal.draw(|frame| screen::draw(frame, &app))?;
        if event::poll(LOOK)?
            && let Event::Key(key) = event::read()?
            && !app.press(key)
        {
            return Ok(());
        }
        for told in news.try_iter() {
            if !app.hear(told) {
                return Ok(());
            }
        }
    }
}

/// SIGTERM and SIGHUP end it as `q` does, so that the terminal is left in order.
fn end_by_signal(news: Sender<News>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.map_err(|error| Failure::of("cannot start", error))?;
    let caught = {
        let _runtime = runtime.enter();
        signal(SignalKind::terminate()).and_then(|end| Ok((end, signal(SignalKind::hangup())?)))
    };
    let (mut end, mut hangup) = caught.map_err(|error| Failure::of("cannot catch signals", error))?;
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = end.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        drop(news.send(News::End));
    });
    Ok(())
}

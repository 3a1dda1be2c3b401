//! The command line: what can be said, and how the program ends.

pub mod ask;
pub mod check;
pub mod copy;
pub mod dev;
pub mod doctor;
pub mod flags;
pub mod healthcheck;
mod log;
pub mod serve;
mod signals;
pub mod top;

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use slotway::{config::ConfigError, process::server::ServeError, protocol::names::Name};

use copy::CopyFlags;
use flags::{AdminFlags, DevFlags, DoctorFlags, ServeFlags};
use top::TopFlags;

/// One port in front of a whole Redis or Valkey Cluster.
#[derive(Parser)]
#[command(version = slotway::LONG_VERSION, args_conflicts_with_subcommands = true, max_term_width = 110)]
#[command(
    after_help = "Every setting can also stand in a TOML file (--config) or in the environment (SLOTWAY_SEEDS=...)."
)]
pub struct Cli {
    #[command(flatten)]
    pub serve: ServeFlags,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Serve clients; the same as naming no command.
    Serve(ServeFlags),
    /// Start a cluster of real nodes on this machine and serve it: something to try, gone at the end.
    Dev(DevFlags),
    /// Print the configuration in force and where each value comes from.
    Check(ServeFlags),
    /// Find out what is wrong with the cluster, or on the way to it, and say what to do. Takes the flags of `serve`.
    ///
    /// Asks the seeds and every node, within some seconds and without changing anything: names, addresses, passwords,
    /// permissions, slots, failed nodes, versions, clocks, replicas, limits, and the proxy's own ports. Exits with 0 where
    /// there is no problem (warnings or not), else with 1.
    Doctor(DoctorFlags),
    /// Show what a running proxy does, in a terminal: nodes, slots, clients, hot keys, slow requests, events.
    Top(TopFlags),
    /// Copy the keys of one server to another while both serve: into a database of this proxy, say.
    ///
    /// Keys keep their values and times to expire; function libraries go along. It says beforehand what is in the way, and copies
    /// nothing then unless --replace is said. A copy that was interrupted is started again: what is there already, alike, is passed
    /// over. What is written to the first server meanwhile may be missed: let clients write to the second before the last run.
    Copy(CopyFlags),
    /// Print the hash slot of each key.
    Slot {
        /// The database of its own that they are in
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
        /// What the keys of such a database begin with, % for its name
        #[arg(long, value_name = "FORM", default_value = "{%}", requires = "database")]
        database_prefix: String,
        /// The keys.
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Say how a command would be served, without running it; or what the name of an error means (SLOTWAY-NODE-LOST).
    Explain {
        /// The command and its arguments, or a name.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        request: Vec<String>,
    },
    /// Exit with 0 if the proxy on this machine can serve, else with 1 (for container health checks).
    Healthcheck(AdminFlags),
}

/// Why the program ends otherwise than well.
pub enum Failure {
    /// Bad configuration or use: exit code 1.
    Config(String),
    /// A port cannot be had: exit code 2.
    Bind(String),
    /// Anything else; it has been said already where the text is empty. Exit code 1.
    Other(String),
}

impl Failure {
    /// Says why, and with which code to exit.
    pub fn report(self) -> ExitCode {
        let (Failure::Config(text) | Failure::Bind(text) | Failure::Other(text)) = &self;
        if !text.is_empty() {
            eprintln!("slotway: {text}");
        }
        ExitCode::from(match self {
            Failure::Bind(_) => 2,
            Failure::Config(_) | Failure::Other(_) => 1,
        })
    }
}

/// Prints a line. Nobody has to read it: in `slotway check | head` the rest is for nobody, which is no fault.
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Help and version are no failure; a wrong flag is a bad configuration.
pub fn misused(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::Config(error.name().on(error.to_string()))
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Failure {
        let text = error.name().on(error.to_string());
        match error {
            ServeError::Bind(..) | ServeError::OwnPlace { .. } => Failure::Bind(text),
            ServeError::Config(_) | ServeError::Certificate(_) | ServeError::System(..) => Failure::Other(text),
        }
    }
}

impl Failure {
    /// With this name behind its text, where it has none and is not said yet.
    pub fn or_named(mut self, name: Name) -> Failure {
        let (Failure::Config(text) | Failure::Bind(text) | Failure::Other(text)) = &mut self;
        if !text.is_empty() && Name::of(text.as_bytes()).is_none() {
            *text = name.on(std::mem::take(text));
        }
        self
    }

    /// A failure to do `what`.
    pub fn of(what: &str, why: impl fmt::Display) -> Failure {
        Failure::Other(format!("{what}: {why}"))
    }
}

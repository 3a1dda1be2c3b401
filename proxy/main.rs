//! The program `slotway`.
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};
use slotway::protocol::names::Name;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::misused(&error),
    };
    // What a failure is called that has no name of its own.
    let (done, name) = match cli.command {
        None => (cli::serve::run(&cli.serve), Name::Start),
        Some(Command::Serve(flags)) => (cli::serve::run(&flags), Name::Start),
        Some(Command::Dev(flags)) => (cli::dev::run(&flags), Name::Dev),
        Some(Command::Check(flags)) => (cli::check::run(&flags), Name::Start),
        Some(Command::Doctor(flags)) => (cli::doctor::run(&flags), Name::Start),
        Some(Command::Top(flags)) => (cli::top::run(&flags), Name::NoProxy),
        Some(Command::Copy(flags)) => (cli::copy::run(flags), Name::Copy),
        Some(Command::Slot { database, database_prefix, keys }) => {
            (cli::ask::slot(database.as_deref(), &database_prefix, &keys), Name::Database)
        }
        Some(Command::Explain { request }) => (cli::ask::explain(&request), Name::Usage),
        Some(Command::Healthcheck(flags)) => (cli::healthcheck::run(&flags), Name::NotReady),
    };
    done.map_or_else(|failure| failure.or_named(name).report(), |()| ExitCode::SUCCESS)
}

//! The program `slotway`.
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command, Failure};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::misused(&error),
    };
    let done = match cli.command {
        None => cli::serve::run(&cli.serve),
        Some(Command::Serve(flags)) => cli::serve::run(&flags),
        Some(Command::Dev(flags)) => cli::dev::run(&flags),
        Some(Command::Check(flags)) => cli::check::run(&flags),
        Some(Command::Doctor(flags)) => cli::doctor::run(&flags),
        Some(Command::Copy(flags)) => cli::copy::run(flags),
        Some(Command::Slot { database, database_prefix, keys }) => {
            cli::ask::slot(database.as_deref(), &database_prefix, &keys)
        }
        Some(Command::Explain { request }) => cli::ask::explain(&request),
        Some(Command::Healthcheck(flags)) => cli::healthcheck::run(&flags),
    };
    done.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}

//! Writes the man pages and the shells' completions, as the command line describes itself, for packages:
//! `cargo run --example pages -- FOLDER`. Apart from the program, which need not carry what does that.
#![forbid(unsafe_code)]

#[allow(dead_code, reason = "the program runs what this only describes")]
mod cli;

use std::{env, fs, io, path::PathBuf};

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};

fn main() -> io::Result<()> {
    let folder = PathBuf::from(env::args_os().nth(1).ok_or_else(|| io::Error::other("which folder?"))?);
    fs::create_dir_all(&folder)?;
    // Of which commit is for the program to tell.
    let command = || cli::Cli::command().version(slotway::VERSION);
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut command(), "slotway", &folder)?;
    }
    clap_mangen::generate_to(command(), &folder)
}

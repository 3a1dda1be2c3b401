//! deploy/README.md promises lines that can be pasted: the stories run those very lines, with names and ports of their own.

use std::{fs, process::Command};

use super::engine::{repository, said};

/// A block of commands from the page.
pub struct Block {
    script: String,
}

/// The indented lines that follow the first line that ends with `introduction`.
pub fn block_after(introduction: &str) -> Block {
    let page = fs::read_to_string(repository().join("deploy/README.md")).expect("deploy/README.md");
    let mut lines = page.lines().skip_while(|line| !line.ends_with(introduction)).skip(1);
    let indented = |line: &&str| line.is_empty() || line.starts_with("    ");
    let block: Vec<&str> = lines.by_ref().take_while(indented).map(|line| line.trim_start_matches("    ")).collect();
    let script = block.join("\n").trim().to_owned();
    assert!(!script.is_empty(), "no commands after {introduction:?}");
    Block { script }
}

impl Block {
    /// With this instead of that, which must occur.
    #[track_caller]
    pub fn with(mut self, that: &str, this: &str) -> Block {
        assert!(self.script.contains(that), "no {that:?} in:\n{}", self.script);
        self.script = self.script.replace(that, this);
        self
    }

    /// Runs it as a shell would that ends at the first failure; what it prints.
    #[track_caller]
    pub fn run<'a>(&self, environment: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", &self.script]).envs(environment).current_dir(repository());
        said(&mut shell).unwrap_or_else(|error| panic!("{error}"))
    }
}

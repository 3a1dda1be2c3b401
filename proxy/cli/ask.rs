//! `slotway slot` and `slotway explain`: what can be told without any node.

use slotway::{
    cluster::explain::{self, Grounds},
    commands::{plan::Policy, table::CommandTable},
    protocol::slot::Slot,
};

use super::{Failure, say};

/// Prints each key's slot.
pub fn slot(keys: &[String]) -> Result<(), Failure> {
    for key in keys {
        say(format_args!("{:5}  {key}", Slot::of(key.as_bytes())));
    }
    Ok(())
}

/// Prints how the built-in table says a request is served. `PROXY EXPLAIN` says it of a running proxy.
pub fn explain(words: &[String]) -> Result<(), Failure> {
    let commands = CommandTable::builtin();
    let grounds = Grounds { commands: &commands, policy: &Policy::default(), topology: None };
    let Some(lines) = explain::explain(words, grounds) else {
        return Err(Failure::Config("this is no request: it has too many or too long arguments".to_owned()));
    };
    for (about, text) in lines {
        say(format_args!("{about:8} {text}"));
    }
    Ok(())
}

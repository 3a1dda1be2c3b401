//! `slotway slot` and `slotway explain`: what can be told without any node.

use slotway::{
    cluster::explain::{self, Grounds},
    commands::{database::Database, plan::Policy, table::CommandTable},
    protocol::{names::Name, slot::Slot},
};

use super::{Failure, say};

/// Prints each key's slot; in a database of its own, as it is kept there.
pub fn slot(database: Option<&str>, form: &str, keys: &[String]) -> Result<(), Failure> {
    let database = database.map(|name| Database::new(name, form)).transpose().map_err(Failure::Config)?;
    let prefix = database.as_ref().map_or_else(Default::default, |database| String::from_utf8_lossy(database.prefix()));
    for key in keys {
        let kept = format!("{prefix}{key}");
        say(format_args!("{:5}  {kept}", Slot::of(kept.as_bytes())));
    }
    Ok(())
}

/// Prints how the built-in table says a request is served. `PROXY EXPLAIN` says it of a running proxy.
///
/// A name of an error, as `SLOTWAY-NODE-LOST`, is explained by its paragraph.
pub fn explain(words: &[String]) -> Result<(), Failure> {
    if let [word] = words
        && let Some(name) = Name::find(word)
        && word.len() == name.text().len()
    {
        // What stands in bold on the page.
        say(format_args!("{name}\n{}", name.paragraph().replace("**", "")));
        return Ok(());
    }
    if let [word] = words
        && Name::is_meant_by(word)
    {
        return Err(Failure::Config(format!("there is no {word}; deploy/troubleshooting.md has all names")));
    }
    let commands = CommandTable::builtin();
    let grounds = Grounds { commands: &commands, policy: &Policy::default(), topology: None };
    let Some(lines) = explain::explain(words, grounds) else {
        return Err(Failure::Config(
            "this is no request: it has too many or too long arguments, or a quote stays open".to_owned(),
        ));
    };
    for (about, text) in lines {
        say(format_args!("{about:8} {text}"));
    }
    Ok(())
}

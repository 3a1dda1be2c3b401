//! `slotway slot` and `slotway explain`: what can be told without any node.

use slotway::{
    command::CommandTable,
    plan::{self, Plan, Policy, Scripting, split::Part},
    resp::{Request, request::Parser, write},
    slot::Slot,
};

use super::Failure;

/// Prints each key's slot.
pub fn slot(keys: &[String]) -> Result<(), Failure> {
    for key in keys {
        println!("{:5}  {key}", Slot::of(key.as_bytes()));
    }
    Ok(())
}

/// Prints how the built-in table says a request is served.
pub fn explain(words: &[String]) -> Result<(), Failure> {
    let mut frame = Vec::new();
    write::request(&mut frame, words);
    let mut parser = Parser::default();
    let Ok(Some(found)) = parser.find(&frame) else {
        return Err(Failure::Config("this is no request: it has too many or too long arguments".to_owned()));
    };
    let request = parser.request(&frame, found);
    let table = CommandTable::builtin();
    let spec = table.find(&request);
    println!("command  {}", spec.map_or("not in the built-in table: nodes may know it", |spec| &spec.name));
    if let Some(spec) = spec {
        let mut keys = Vec::new();
        spec.keys_of(&request, &mut keys);
        for index in keys {
            let key = request.arg(index);
            println!("key      {}  (slot {})", String::from_utf8_lossy(key), Slot::of(key));
        }
    }
    println!("served   {}", words_for(&plan::plan(&request, spec, &Policy::default()), &request));
    Ok(())
}

/// The plan, for people.
fn words_for(plan: &Plan, request: &Request) -> String {
    match plan {
        Plan::One(slot) => format!("by the owner of slot {slot}"),
        Plan::Any => "by any primary".to_owned(),
        Plan::Home => "by the one primary that all publishing goes through".to_owned(),
        Plan::Split(split) => {
            let line = |(index, part): (usize, &Part)| {
                let keys = split.keys_of(index).iter().map(|&key| String::from_utf8_lossy(request.arg(key as usize)));
                format!("\n         slot {}: {}", part.slot, keys.collect::<Vec<_>>().join(" "))
            };
            let parts: String = split.parts.iter().enumerate().map(line).collect();
            format!("in {} parts, their replies merged ({:?}):{parts}", split.parts.len(), split.fold)
        }
        Plan::Primaries(fold) => format!("by every primary, their replies merged ({fold:?})"),
        Plan::Scripting(Scripting::Load | Scripting::Exists | Scripting::Flush, _) => "by every primary".to_owned(),
        Plan::Scripting(_, Some(slot)) => format!("by the owner of slot {slot}, which is given what it runs"),
        Plan::Scripting(_, None) => "by any primary, which is given what it runs".to_owned(),
        Plan::Aside(fold) => format!("by every primary, past what runs there ({fold:?})"),
        Plan::Scan(Some(slot)) => format!("by the owner of slot {slot}: the pattern's tag allows no other"),
        Plan::Scan(None) => "by one primary after the other".to_owned(),
        Plan::Local(local) => format!("by the proxy itself ({local:?})"),
        Plan::Blocking(blocking) => match blocking.slot {
            Some(slot) => format!("on a connection of its own, by the owner of slot {slot}: it may wait"),
            None => "on a connection of its own, by any primary: it may wait".to_owned(),
        },
        Plan::Refuse(text) => format!("not at all: {}", String::from_utf8_lossy(text)),
        Plan::AskServer => "where the keys are that the server names (COMMAND GETKEYS)".to_owned(),
    }
}

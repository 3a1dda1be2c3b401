//! How a request would be served, for people: what `slotway explain` prints and `PROXY EXPLAIN` answers. Nothing is run.

use std::rc::Rc;

use crate::{
    cluster::topology::Topology,
    commands::{
        plan::{self, MergeRule, Plan, Policy, Scripting, Split},
        table::{CommandTable, Keys, Spec, Treatment, differences, treatment::Timeout},
    },
    protocol::{
        resp::{
            Request,
            request::{Parser, split_line},
            write,
        },
        slot::Slot,
    },
};

/// What an explanation goes by.
#[derive(Clone, Copy)]
pub struct Grounds<'a> {
    /// The commands that are known.
    pub commands: &'a CommandTable,
    /// What the operator has decided.
    pub policy: &'a Policy,
    /// Who owns which slot, where that is known: nodes are named then.
    pub topology: Option<&'a Topology>,
}

/// Explains the request with these arguments, line by line: what the line is about, and what there is to say. `None`
/// where it is too long to be a request. A whole request in one argument is taken apart, as a server takes an inline one.
///
/// ```
/// use slotway::{cluster::explain::{Grounds, explain}, commands::{plan::Policy, table::CommandTable}};
///
/// let (commands, policy) = (CommandTable::builtin(), Policy::default());
/// let grounds = Grounds { commands: &commands, policy: &policy, topology: None };
/// let lines = explain(&["EXISTS", "foo", "bar"], grounds).expect("a request");
/// assert!(lines.contains(&("key", "foo  (slot 12182)".into())));
/// assert!(lines.contains(&("served", "in 2 parts, their replies added up".into())));
/// ```
pub fn explain<T: AsRef<[u8]>>(args: &[T], grounds: Grounds) -> Option<Vec<(&'static str, String)>> {
    let frame = frame_of(args)?;
    let mut parser = Parser::default();
    let found = parser.find(&frame).ok()??;
    Some(grounds.lines(&parser.request(&frame, found)))
}

/// The request with these arguments, as it is sent. `None` where a quote stays open.
pub fn frame_of<T: AsRef<[u8]>>(args: &[T]) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    match args {
        // In quotes, as one argument: no command's name has a space in it.
        [line] if line.as_ref().trim_ascii().contains(&b' ') => {
            write::request(&mut frame, &split_line(line.as_ref(), false)?);
        }
        args => write::request(&mut frame, args),
    }
    Some(frame)
}

impl Grounds<'_> {
    /// Explains a request, as [`explain`] does.
    pub fn lines(self, request: &Request) -> Vec<(&'static str, String)> {
        let spec = self.commands.find(request);
        let plan = match plan::plan(request, spec, self.policy) {
            Plan::LongSplit(cut) => Plan::Split(Rc::new(cut.finish(request))),
            plan => plan,
        };
        let mut lines = vec![("command", spec.map_or_else(|| "not known: nodes may know it".to_owned(), command))];
        if let Some(spec) = spec {
            let mut keys = Vec::new();
            if spec.keys_of(request, &mut keys) == Keys::AskServer {
                lines.push(("key", "which they are only a node can tell (COMMAND GETKEYS)".to_owned()));
            }
            let key = |&index: &usize| {
                ("key", format!("{}  ({})", shown(request.arg(index)), self.place(request.arg(index))))
            };
            lines.extend(keys.iter().map(key));
            lines.extend(self.rule(spec).map(|rule| ("policy", rule)));
        }
        lines.push(("served", self.served(&plan)));
        if let Plan::Split(split) = &plan {
            lines.extend((0..split.parts.len()).map(|index| ("part", self.part(split, index, request))));
        }
        lines.extend(spec.and_then(|spec| differences::of(&spec.name)).map(|note| ("note", note.to_owned())));
        lines
    }

    /// What the configuration, or the built-in list, decides of a command.
    fn rule(self, spec: &Spec) -> Option<String> {
        let text = match (self.policy.refuses(spec), spec.refused) {
            (Some(reason), Some(by_default)) if reason == by_default => {
                "refused by default; `allow` would let it through"
            }
            (Some(_), _) => "refused by `deny` of the configuration",
            (None, Some(_)) => "refused by default, let through by `allow` of the configuration",
            (None, None) if matches!(spec.treatment, Treatment::Split(_)) && self.policy.rejects_cross_slot() => {
                "cross_slot = reject: not split over slots"
            }
            (None, None) if matches!(spec.treatment, Treatment::Split(_)) => "cross_slot = split",
            (None, None) => return None,
        };
        Some(text.to_owned())
    }

    fn served(self, plan: &Plan) -> String {
        match plan {
            Plan::One(slot) => format!("by the owner of {}", self.slot(*slot)),
            Plan::Any => "by any primary".to_owned(),
            Plan::PubSub => {
                let pubsub_node = self.topology.and_then(Topology::pubsub_node);
                let named = pubsub_node.map_or(String::new(), |node| format!(", {}", node.label));
                format!("by the one primary that all publishing goes through{named}")
            }
            Plan::Split(split) => {
                format!("in {} parts, their replies {}", split.parts.len(), split.rule.words())
            }
            Plan::Primaries(rule) => format!("by every primary{}, their replies {}", self.primaries(), rule.words()),
            Plan::AnyRewritten(rule) => format!("by any primary, its reply {}", rule.words()),
            Plan::Scripting(Scripting::Load | Scripting::Exists | Scripting::Flush, _) => {
                format!("by every primary{}", self.primaries())
            }
            Plan::Scripting(_, Some(slot)) => {
                format!("by the owner of {}, which is given what it is to run", self.slot(*slot))
            }
            Plan::Scripting(_, None) => "by any primary, which is given what it is to run".to_owned(),
            Plan::OutOfBand(rule) => {
                format!("by every primary{}, past what it runs, their replies {}", self.primaries(), rule.words())
            }
            Plan::LongSplit(_) => "in parts".to_owned(),
            Plan::InTurn(_) => "slot after slot".to_owned(),
            Plan::CountsKeys => format!("by every primary{}", self.primaries()),
            Plan::Scan(Some(slot)) => {
                format!("by the owner of {}: the pattern's tag allows no other", self.slot(*slot))
            }
            Plan::Scan(None) => format!("by one primary after the other{}", self.primaries()),
            Plan::Keys => {
                format!(
                    "by every primary{}, their replies {} as they come",
                    self.primaries(),
                    MergeRule::Concat.words()
                )
            }
            Plan::Local(_) => "by the proxy itself".to_owned(),
            Plan::Blocking(blocking) => match blocking.slot {
                Some(slot) => format!("on a connection of its own, by the owner of {}: it may wait", self.slot(slot)),
                None => "on a connection of its own, by any primary: it may wait".to_owned(),
            },
            Plan::Unchanged(text) => {
                format!("not at all, unless nothing would change: {}", String::from_utf8_lossy(text))
            }
            Plan::Refuse(text) => format!("not at all: {}", String::from_utf8_lossy(text)),
            Plan::AskServer => "by the owner of the slot of the keys that a node names".to_owned(),
        }
    }

    fn part(self, split: &Split, index: usize, request: &Request) -> String {
        let keys = split.keys_of(index).iter().map(|&key| shown(request.arg(key as usize)));
        let slot = split.parts.get(index).map_or_else(String::new, |part| self.slot(part.slot));
        format!("{slot}: {}", keys.collect::<Vec<_>>().join(" "))
    }

    fn place(self, key: &[u8]) -> String {
        self.slot(Slot::of(key))
    }

    /// A slot, and its owner where that is known.
    pub fn slot(self, slot: Slot) -> String {
        match self.topology.map(|topology| topology.owner(slot)) {
            None => format!("slot {slot}"),
            Some(None) => format!("slot {slot}, which nobody owns"),
            Some(Some(node)) => format!("slot {slot} at {}", node.label),
        }
    }

    fn primaries(self) -> String {
        let Some(topology) = self.topology else { return String::new() };
        let labels: Vec<&str> = topology.owners().map(|node| &*node.label).collect();
        format!(" ({})", labels.join(", "))
    }
}

/// A command's name, its flags and tips.
fn command(spec: &Spec) -> String {
    let flags: Vec<&str> = spec.flags.names().collect();
    let tips = [("request", spec.request_policy.name()), ("response", spec.response_policy.name())];
    let tips =
        tips.iter().filter(|(_, policy)| !policy.is_empty()).map(|(of, policy)| format!("; {of} policy {policy}"));
    let flags = if flags.is_empty() { String::new() } else { format!("  ({})", flags.join(",")) };
    format!("{}{flags}{}", spec.name, tips.collect::<String>())
}

/// A key for people to read.
fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key)
        .chars()
        .flat_map(|letter| if letter.is_control() { letter.escape_default().collect::<Vec<_>>() } else { vec![letter] })
        .collect()
}

/// How a command is treated whatever its arguments, in a few words: for the page of all commands.
pub fn treatment(spec: &Spec) -> String {
    if let Some(reason) = spec.refused {
        return format!("refused: {reason}");
    }
    match spec.treatment {
        Treatment::Keyed if spec.has_keys() => "the owner of its keys' slot".to_owned(),
        Treatment::Keyed => "any primary".to_owned(),
        Treatment::Split(rule) => format!("the owners of its keys' slots, in parts; replies: {}", rule.words()),
        Treatment::Primaries(rule) | Treatment::OutOfBand(rule) => format!("every primary; replies: {}", rule.words()),
        Treatment::Scripting(Scripting::Eval | Scripting::Evalsha | Scripting::Fcall) => {
            "the owner of its keys' slot".to_owned()
        }
        Treatment::Scripting(Scripting::Show) => "any primary".to_owned(),
        Treatment::Scripting(Scripting::Exists) => format!("every primary; replies: {}", MergeRule::And.words()),
        Treatment::Scripting(Scripting::Load | Scripting::Flush) => {
            format!("every primary; replies: {}", MergeRule::AllSucceeded.words())
        }
        Treatment::KeysPattern => "every primary; one where the pattern has a hash tag".to_owned(),
        Treatment::Scan => "one primary after the other; one only where the pattern has a hash tag".to_owned(),
        Treatment::SlotNumber => "the owner of that slot".to_owned(),
        Treatment::PubSub => "the one primary that all publishing goes through".to_owned(),
        Treatment::Local(_) => "the proxy itself".to_owned(),
        Treatment::Blocking(Timeout::Unknown) => "a connection of its own, since it may wait".to_owned(),
        Treatment::Blocking(_) => {
            "a connection of its own to the owner of its keys' slot, since it may wait".to_owned()
        }
        Treatment::BlockingStreams => {
            "the owner of its keys' slot, on a connection of its own where it may wait".to_owned()
        }
        Treatment::ConfigSet => "every primary; what holds the cluster together can only stay as it is".to_owned(),
        Treatment::Debug => "by key or every primary where it is harmless; else refused".to_owned(),
        Treatment::AnyRewritten(rule) => format!("any primary; its reply: {}", rule.words()),
        Treatment::AclLog => "every primary; the newest entries of all nodes".to_owned(),
        Treatment::ClusterView(_) => {
            "the proxy itself, as a server that is in no cluster, or that is all of one where its listener says so"
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        cluster::topology::AddressMap,
        protocol::{address::Address, resp::Value},
    };

    fn topology() -> Topology {
        let reply = b"*2\r\n*3\r\n:0\r\n:8191\r\n*3\r\n$1\r\na\r\n:7000\r\n$1\r\nx\r\n*3\r\n:8192\r\n:16382\r\n*3\r\n$1\r\nb\r\n:7001\r\n$1\r\ny\r\n";
        let (value, _) = Value::parse(reply).unwrap().unwrap();
        Topology::from_slots(&value, &Address::new("a", 7000), Arc::new(AddressMap::default())).unwrap()
    }

    fn said(line: &str, policy: &Policy, topology: Option<&Topology>) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let commands = CommandTable::builtin();
        let lines = explain(&words, Grounds { commands: &commands, policy, topology }).unwrap();
        lines.iter().map(|(about, text)| format!("{about} {text}\n")).collect()
    }

    #[test]
    fn requests_are_explained() {
        let topology = topology();
        let (open, closed) = (Policy::default(), Policy::new(true, &["GET"], &["SHUTDOWN"]));
        for (line, policy, topology, expected) in [
            ("GET foo", &open, None, "served by the owner of slot 12182\n"),
            ("GET foo", &open, Some(&topology), "key foo  (slot 12182 at b:7001)\n"),
            ("GET foo", &closed, None, "policy refused by `deny` of the configuration\nserved not at all: ERR GET is"),
            ("SHUTDOWN", &open, None, "policy refused by default; `allow` would let it through\n"),
            ("SHUTDOWN", &closed, None, "let through by `allow` of the configuration\nserved by any primary"),
            (
                "DEL foo bar",
                &open,
                Some(&topology),
                "served in 2 parts, their replies added up\npart slot 5061 at a:7000: bar\n",
            ),
            (
                "DEL foo bar",
                &closed,
                None,
                "policy cross_slot = reject: not split over slots\nserved not at all: CROSSSLOT",
            ),
            ("DBSIZE", &open, Some(&topology), "served by every primary (a:7000, b:7001), their replies added up\n"),
            (
                "BLPOP foo 0",
                &open,
                None,
                "served on a connection of its own, by the owner of slot 12182: it may wait\n",
            ),
            ("NOSUCH", &open, None, "command not known: nodes may know it\nserved by any primary\n"),
            ("PUBLISH a b", &open, Some(&topology), "all publishing goes through, a:7000\n"),
            ("PROXY NODES", &open, None, "served by the proxy itself\n"),
        ] {
            let said = said(line, policy, topology);
            assert!(said.contains(expected), "{line}: {said}");
        }
    }
}

//! Under which name and class an answered request is counted.

use crate::{
    commands::table::Spec,
    metrics::{CommandClass, CommandId},
};

/// What a place is counted as when it is answered.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// The command.
    pub command: CommandId,
    /// The class under which its duration is recorded.
    pub class: CommandClass,
    /// Whether it may write.
    pub may_write: bool,
}

impl Label {
    /// The label of a command; `None` is a command that is not known.
    pub fn of(spec: Option<&Spec>) -> Label {
        let Some(spec) = spec else {
            return Label { command: CommandId::OTHER, class: CommandClass::Admin, may_write: true };
        };
        Label { command: spec.metric, class: spec.class, may_write: spec.class != CommandClass::Read }
    }

    /// The same for a request that goes in parts.
    pub fn in_parts(self) -> Label {
        Label { class: CommandClass::MultiKey, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::table::CommandTable;

    #[test]
    fn a_request_is_counted_by_what_its_command_does() {
        let table = CommandTable::builtin();
        for (name, class, may_write) in [
            ("get", CommandClass::Read, false),
            ("set", CommandClass::Write, true),
            ("blpop", CommandClass::Blocking, true),
            ("ping", CommandClass::Admin, true),
        ] {
            let label = Label::of(table.named(name.as_bytes(), b""));
            assert_eq!((label.class, label.may_write), (class, may_write), "{name}");
        }
        let split = Label::of(table.named(b"mget", b"")).in_parts();
        assert_eq!((split.class, split.may_write), (CommandClass::MultiKey, false));
        assert_eq!(Label::of(None).command, CommandId::OTHER);
    }
}

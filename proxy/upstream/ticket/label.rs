//! Under which name and class an answered request is counted.

use crate::{
    commands::table::{Flags, Spec},
    metrics::{CommandClass, CommandId},
};

/// What a place is counted as when it is answered.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// The command.
    pub command: CommandId,
    /// The class under which its duration is recorded.
    pub class: CommandClass,
}

impl Label {
    /// The label of a command; `None` is a command that is not known.
    pub fn of(spec: Option<&Spec>) -> Label {
        let Some(spec) = spec else { return Label { command: CommandId::OTHER, class: CommandClass::Admin } };
        let class = match spec {
            spec if spec.flags.has(Flags::BLOCKING) => CommandClass::Blocking,
            spec if spec.is_readonly() => CommandClass::Read,
            spec if spec.is_write() => CommandClass::Write,
            _ => CommandClass::Admin,
        };
        Label { command: spec.metric, class }
    }
}

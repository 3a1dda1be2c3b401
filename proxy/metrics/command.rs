//! Commands, as metrics tell them apart.

use std::sync::Mutex;

use super::{labels::labels, lock};

labels! {
    /// Under what a command's duration is recorded. Not by name: a histogram for each command would be a thousand series.
    CommandClass {
        /// The command reads keys of one slot.
        Read = "read",
        /// The command writes keys of one slot.
        Write = "write",
        /// The command was split over several slots or nodes.
        MultiKey = "multi_key",
        /// The command may wait for something to happen.
        Blocking = "blocking",
        /// The command is about the server or the connection.
        Admin = "admin",
    }
}

/// How many commands have series of their own. A server with all its modules has some 500.
pub(super) const MOST_COMMANDS: usize = 1024;

/// The names that have an id.
static COMMANDS: Mutex<Vec<Box<str>>> = Mutex::new(Vec::new());

/// A command's name, as a number: what tables keep in its row, so that counting a command needs no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandId(pub(super) u16);

impl CommandId {
    /// What no server knows, whatever its name: names are labels, and clients must not make up labels.
    pub const OTHER: CommandId = CommandId(0);

    /// The id of a command that a server knows, by its name in lower case (a subcommand's as `config|get`). The same name
    /// has the same id always and everywhere in the process. Takes a lock: for building tables, not for requests.
    pub fn of(name: &str) -> CommandId {
        let mut known = lock(&COMMANDS);
        if known.is_empty() {
            known.push("other".into());
        }
        let index = match known.iter().position(|known| **known == *name) {
            Some(index) => index,
            None if known.len() < MOST_COMMANDS => {
                known.push(name.into());
                known.len() - 1
            }
            None => return CommandId::OTHER,
        };
        CommandId(index as u16)
    }

    /// The number itself.
    pub fn index(self) -> u16 {
        self.0
    }

    /// The name of the command with this number, if there is one.
    pub fn name_at(index: u16) -> Option<String> {
        lock(&COMMANDS).get(usize::from(index)).map(|name| name.to_string())
    }

    /// The command's name, in lower case.
    pub fn name(self) -> String {
        CommandId::name_at(self.0).unwrap_or_else(|| "other".to_owned())
    }
}

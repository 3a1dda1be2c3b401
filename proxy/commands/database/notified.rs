//! Keyspace notifications: their channels have the number of a database, and keys in their names or messages. Nodes know
//! these otherwise than clients do.

use super::{Database, Databases};
use crate::protocol::slot::Slot;

const KEYSPACE: &[u8] = b"__keyspace@";
const KEYEVENT: &[u8] = b"__keyevent@";

/// What nodes have to be asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Notified {
    /// The channel or the pattern.
    pub name: Vec<u8>,
    /// Whether it is a pattern.
    pub is_pattern: bool,
    /// Where the keys are that it is about; `None`: anywhere.
    pub slot: Option<Slot>,
}

/// A channel of notifications, or a pattern that says as much.
struct Channel<'a> {
    start: &'static [u8],
    number: u32,
    /// The key or the event.
    rest: &'a [u8],
}

impl<'a> Channel<'a> {
    fn of(name: &'a [u8]) -> Option<Channel<'a>> {
        let start = [KEYSPACE, KEYEVENT].into_iter().find(|start| name.starts_with(start))?;
        let rest = &name[start.len()..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number: u32 = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
        let is_usual = number.to_string().len() == digits;
        Some(Channel { start, number, rest: rest[digits..].strip_prefix(b"__:")? }).filter(|_| is_usual)
    }

    fn is_of_keys(&self) -> bool {
        self.start == KEYSPACE
    }
}

fn channel(start: &[u8], number: &str, before: &[u8], rest: &[u8]) -> Vec<u8> {
    [start, number.as_bytes(), b"__:", before, rest].concat()
}

impl Databases {
    /// What nodes have to be asked for, so that a client of these databases has the notifications that a channel or a pattern
    /// is for. They tell of others besides: [`Databases::told`] knows which.
    pub fn notified(&self, name: &[u8], is_pattern: bool) -> Vec<Notified> {
        let before = |database: Option<&Database>, is_pattern: bool| match (database, is_pattern) {
            (None, _) => Vec::new(),
            (Some(database), true) => database.pattern.to_vec(),
            (Some(database), false) => database.prefix.to_vec(),
        };
        let slot = |database: Option<&Database>| database.map(|database| database.slot);
        if let Some(asked) = Channel::of(name) {
            let Some((real, database)) = self.numbered(asked.number) else { return Vec::new() };
            let key = if asked.is_of_keys() { before(database, is_pattern) } else { Vec::new() };
            let name = channel(asked.start, &real.to_string(), &key, asked.rest);
            return vec![Notified { name, is_pattern, slot: slot(database) }];
        }
        if !is_pattern {
            return Vec::new();
        }
        // It may match the channels of any: all are heard, and looked at one by one.
        let real = if self.are_selected { "0" } else { "*" };
        let both = |database: Option<&Database>| {
            [(KEYSPACE, before(database, true)), (KEYEVENT, Vec::new())].map(|(start, before)| Notified {
                name: channel(start, real, &before, b"*"),
                is_pattern: true,
                slot: slot(database),
            })
        };
        match self.get(0) {
            None => both(None).into(),
            Some(_) => self.own.iter().flat_map(|database| both(database.as_deref())).collect(),
        }
    }

    /// A notification as a client of these databases has it, its channel and its message; `None` where it is about a key of
    /// somebody else's.
    pub fn told(&self, name: &[u8], message: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let said = Channel::of(name)?;
        let (number, key) = self.known(said.number, if said.is_of_keys() { said.rest } else { message })?;
        let number = number.to_string();
        Some(match said.is_of_keys() {
            true => (channel(said.start, &number, b"", key), message.to_vec()),
            false => (channel(said.start, &number, b"", said.rest), key.to_vec()),
        })
    }

    /// The number that nodes have for what clients call database `number`, and the database of its own there, if it is one.
    fn numbered(&self, number: u32) -> Option<(u32, Option<&Database>)> {
        if !self.are_selected {
            return Some((number, self.get(0).map(|database| &**database)));
        }
        let database = self.own.get(number as usize)?;
        Some((0, database.as_deref()))
    }

    /// Whose a key is that a node has in its database `real`: the number and the key, as clients have them.
    fn known<'a>(&self, real: u32, key: &'a [u8]) -> Option<(u32, &'a [u8])> {
        match (self.own(key), self.are_selected) {
            (Some((_, key)), false) => Some((real, key)),
            (Some(own), true) if real == 0 => Some(own),
            (None, true) if real == 0 && self.get(0).is_none() => Some((0, key)),
            _ => None,
        }
    }
}

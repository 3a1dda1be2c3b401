//! Databases of their own: all keys of one lie in one slot, since each is kept with a prefix that has a hash tag. There,
//! every command, transaction and script of one server works, atomically.
//!
//! This is the only place that knows of prefixes. Requests are written anew before anything else is decided about them
//! ([`Database::enter`]), so that all below sees plain commands with plain keys; replies that name keys are written anew
//! before the client is given them ([`Strip`]). What a reply contains beside keys passes as it is: a value that begins
//! like the prefix is the client's own.

mod channels;
mod enter;
mod lua;
mod notified;
mod prologue;
mod said;
mod script;
mod several;
mod strip;
mod whole;

pub use self::{
    channels::{ChannelUse, OwnChannels},
    enter::Entered,
    notified::Notified,
    said::Said,
    script::{KnownScripts, WrappedScripts},
    several::Databases,
    strip::Strip,
};
use crate::protocol::{resp::request::Prefix, slot::Slot};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// A database of its own.
#[derive(Debug, PartialEq, Eq)]
pub struct Database {
    name: Box<str>,
    /// What stands before each of its keys.
    prefix: Box<[u8]>,
    /// The same, as requests are written anew with it.
    headed: Prefix,
    /// The prefix as the beginning of a pattern.
    pattern: Box<[u8]>,
    /// Keys that scripts declare beside their own, and that nobody has: while the slot is half moved, no node runs what names
    /// several keys of which some are not there. A script might touch keys at either node.
    guards: [Box<[u8]>; 2],
    slot: Slot,
    /// Its clients can SELECT others.
    is_one_of_several: bool,
    /// How its channels are kept, where they are its clients' own.
    channels: Option<Arc<OwnChannels>>,
}

/// Whose clients, of all that a process has, work on what is one server to them: those of the databases of one name. What is
/// a server's own besides its keys is theirs together, and nobody else's: scripts that it knows, a pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(u64);

impl Scope {
    /// All of the cluster, and what is known to its nodes.
    pub const CLUSTER: Scope = Scope(0);

    /// That of the database whose keys have this prefix, and of those that are numbered after it.
    pub(super) fn of(prefix: &[u8]) -> Scope {
        let mut hasher = DefaultHasher::new();
        prefix.hash(&mut hasher);
        Scope(hasher.finish().max(1))
    }
}

/// What stands for the name in the form of a prefix.
const NAME: char = '%';

impl Database {
    /// The database of this name, whose keys bear a prefix of this `form`; the error says what is wrong with which.
    ///
    /// ```
    /// use slotway::{commands::database::Database, protocol::slot::Slot};
    ///
    /// let shop = Database::new("shop", "{%}").unwrap();
    /// assert_eq!((shop.prefix(), shop.slot()), (&b"{shop}"[..], Slot::of(b"shop")));
    /// assert!(Database::new("my shop", "{%}").is_err());
    /// assert!(Database::new("shop", "%:").is_err(), "keys of one slot need a hash tag");
    /// ```
    pub fn new(name: &str, form: &str) -> Result<Database, String> {
        Database::check_name(name)?;
        Database::check_form(form)?;
        let prefix = form.replace(NAME, name).into_bytes();
        let escaped = prefix.iter().flat_map(|&byte| {
            let escape = b"*?[\\".contains(&byte).then_some(b'\\');
            escape.into_iter().chain([byte])
        });
        let (pattern, slot) = (escaped.collect(), Slot::of(&prefix));
        let guards = GUARDS.map(|guard| [&*prefix, guard].concat().into());
        let headed = Prefix::new(&prefix);
        Ok(Database {
            name: name.into(),
            prefix: prefix.into(),
            headed,
            pattern,
            guards,
            slot,
            is_one_of_several: false,
            channels: None,
        })
    }

    /// Whether a database may have this name.
    pub fn check_name(name: &str) -> Result<(), String> {
        let is_fine = |letter: char| letter.is_ascii_alphanumeric() || "-_.:/".contains(letter);
        match name.chars().find(|&letter| !is_fine(letter)) {
            _ if name.is_empty() => Err("a database's name is empty".to_owned()),
            Some(letter) => Err(format!(
                "`{name}` is no name of a database: `{letter}` is in it; letters, digits and - _ . : / are what it may have"
            )),
            None if name.len() > LONGEST_NAME => Err(format!(
                "`{name}` is too long for the name of a database, which has at most {LONGEST_NAME} letters"
            )),
            None => Ok(()),
        }
    }

    /// Whether prefixes may have this form: with the name, once, within what the cluster takes for a hash tag.
    pub fn check_form(form: &str) -> Result<(), String> {
        let tag =
            form.find('{').map(|open| &form[open + 1..]).and_then(|rest| rest.find('}').map(|close| &rest[..close]));
        let is_fine = form.matches(NAME).count() == 1
            && form.len() <= LONGEST_NAME
            && !form.chars().any(char::is_control)
            && tag.is_some_and(|tag| tag.contains(NAME));
        is_fine.then_some(()).ok_or_else(|| {
            format!("`{form}` is no form of a prefix: it has the name, written %, once and between the first {{ and }}, such as {{%}} or app:{{%}}:")
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What stands before each of its keys.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Where all its keys are.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// A key as its clients know it; `None` for one that is not its own.
    pub fn own<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        key.strip_prefix(&*self.prefix)
    }
}

/// Whether a key, as clients know it, is one that scripts declare besides their own.
pub fn is_guard(key: &[u8]) -> bool {
    GUARDS.contains(&key)
}

/// What guards are called, behind the prefix.
const GUARDS: [&[u8]; 2] = [b"\0slotway1", b"\0slotway2"];

/// The longest name, and the longest form of a prefix.
const LONGEST_NAME: usize = 256;

#[cfg(test)]
mod tests;

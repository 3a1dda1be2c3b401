//! The names that an operator gave to commands (`rename-command`).
//!
//! `COMMAND` lists every command by its own name, also where clients must use another. `COMMAND INFO name` tells whose
//! name that is, so that a name is asked for when a client first uses it. How many commands have lost their own name is
//! known from the start: where it is none, as nearly everywhere, nothing is ever asked.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

/// No longer name is asked for.
pub const LONGEST: usize = 256;

/// So many names that are no command's are remembered.
const MOST_STRANGERS: usize = 1024;

/// What is known of names that no row has.
#[derive(Clone, Debug, Default)]
pub struct Aliases {
    /// How many commands the server does not know by their own names.
    nameless: usize,
    known: Arc<RwLock<KnownNames>>,
}

/// Names in lower case.
#[derive(Debug, Default)]
struct KnownNames {
    /// The rows of those that are commands' names.
    rows: HashMap<Box<[u8]>, u16>,
    /// Those that are not.
    strangers: HashSet<Box<[u8]>>,
}

impl Aliases {
    /// What is to be found out where so many commands have lost their own names.
    pub fn of(nameless: usize) -> Aliases {
        Aliases { nameless, known: Arc::default() }
    }

    /// The row of the command that goes by this name.
    pub fn row(&self, name: &[u8]) -> Option<u16> {
        if self.nameless == 0 || name.len() > LONGEST {
            return None;
        }
        self.known.read().unwrap_or_else(PoisonError::into_inner).rows.get(&*name.to_ascii_lowercase()).copied()
    }

    /// Whether the server has to be asked about a name that no row has.
    pub fn is_open(&self, name: &[u8]) -> bool {
        if self.nameless == 0 || name.len() > LONGEST || name.is_empty() {
            return false;
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let name = &*name.to_ascii_lowercase();
        known.rows.len() < self.nameless && !known.rows.contains_key(name) && !known.strangers.contains(name)
    }

    /// The server has told whose name it is: that of the command in this row, or none's.
    pub fn learn(&self, name: &[u8], row: Option<u16>) {
        let name = name.to_ascii_lowercase().into_boxed_slice();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = row {
            known.rows.insert(name, row);
            return;
        }
        if known.strangers.len() >= MOST_STRANGERS {
            // Whoever makes up names has them asked for again.
            known.strangers.clear();
        }
        known.strangers.insert(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_asked_for_once_and_none_where_all_are_known() {
        let none = Aliases::default();
        assert!(!none.is_open(b"secret"));
        let aliases = Aliases::of(1);
        assert!(aliases.is_open(b"Secret") && aliases.is_open(b"nothing"));
        aliases.learn(b"NOTHING", None);
        assert!(!aliases.is_open(b"nothing") && aliases.is_open(b"secret"));
        aliases.learn(b"secret", Some(7));
        assert_eq!((aliases.row(b"SECRET"), aliases.row(b"nothing")), (Some(7), None));
        assert!(!aliases.is_open(b"secret") && !aliases.is_open(b"other"), "all are known");
    }

    #[test]
    fn a_flood_of_names_takes_little_memory() {
        let aliases = Aliases::of(1);
        for number in 0..10_000 {
            aliases.learn(format!("made up {number}").as_bytes(), None);
        }
        assert!(aliases.known.read().unwrap().strangers.len() <= MOST_STRANGERS);
        assert!(!aliases.is_open(&[b'x'; LONGEST + 1]));
    }
}

//! What the operator lets clients do: which commands are refused, and whether requests are split over slots.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
};

use crate::{
    commands::{
        database::Databases,
        table::{Spec, canonical, in_database::InDatabase},
    },
    protocol::says,
};

/// What an operator may choose, and change while it is read ([`Policy::adopt`]).
#[derive(Clone, Debug, Default)]
pub struct Policy {
    reject_cross_slot: Cell<bool>,
    /// Whether `names.deny` has any: that is asked for every request.
    denies: Cell<bool>,
    names: RefCell<Names>,
}

#[derive(Clone, Debug, Default)]
struct Names {
    /// Commands refused beyond the built-in list: `flushall`, `config|get`, or `config` with all its subcommands.
    deny: HashSet<String>,
    /// Commands of the built-in list that are served all the same.
    allow: HashSet<String>,
    /// Databases of their own are within the one that is all of the cluster: what empties it would empty them.
    holds_others: bool,
}

impl Policy {
    /// A policy from names as people write them ([`canonical`]).
    pub fn new<T: AsRef<str>>(reject_cross_slot: bool, deny: &[T], allow: &[T]) -> Policy {
        let set = |names: &[T]| names.iter().map(|name| canonical(name.as_ref())).collect();
        Policy {
            reject_cross_slot: Cell::new(reject_cross_slot),
            denies: Cell::new(!deny.is_empty()),
            names: RefCell::new(Names { deny: set(deny), allow: set(allow), holds_others: false }),
        }
    }

    /// From now on it says what `new` says.
    pub fn adopt(&self, new: Policy) {
        self.reject_cross_slot.swap(&new.reject_cross_slot);
        self.denies.swap(&new.denies);
        self.names.swap(&new.names);
    }

    /// Where SELECT leads from all of the cluster into these, FLUSHDB must not reach them.
    pub fn keep_others(&mut self, databases: &Databases) {
        let names = self.names.get_mut();
        names.holds_others = databases.get(0).is_none() && databases.is_any_own();
        if names.holds_others {
            names.deny.insert("flushdb".to_owned());
            self.denies.set(true);
        }
    }

    /// Whether any command is refused beyond the built-in list.
    #[inline]
    pub fn denies(&self) -> bool {
        self.denies.get()
    }

    /// Whether MGET, MSET, DEL and the like are refused where their keys are in several slots.
    pub fn rejects_cross_slot(&self) -> bool {
        self.reject_cross_slot.get()
    }

    /// Why `spec` is refused.
    pub fn refuses(&self, spec: &Spec) -> Option<&'static str> {
        let Names { deny, allow, holds_others } = &*self.names.borrow();
        if names(deny, spec) {
            let holds_others = *holds_others && spec.in_database == InDatabase::Flush;
            return Some(if holds_others { says::HOLDS_OTHERS } else { says::REFUSED_BY_CONFIGURATION });
        }
        spec.refused.filter(|_| !names(allow, spec))
    }

    /// Whether the configuration lets `spec` through, by its own name or by that of its container.
    pub fn lifts(&self, spec: &Spec) -> bool {
        names(&self.names.borrow().allow, spec)
    }

    /// Whether the configuration lets `name` through.
    pub fn allows(&self, name: &str) -> bool {
        self.names.borrow().allow.contains(name)
    }
}

/// Whether a command is among these, by its own name or by that of its container.
fn names(list: &HashSet<String>, spec: &Spec) -> bool {
    let is_container_named = || spec.name.split_once('|').is_some_and(|(container, _)| list.contains(container));
    !list.is_empty() && (list.contains(&*spec.name) || is_container_named())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::table::CommandTable;

    #[test]
    fn the_operator_s_lists_name_commands_subcommands_and_containers() {
        let (table, none) = (CommandTable::builtin(), [""; 0]);
        let spec = |name: &[u8], sub: &[u8]| table.named(name, sub).expect("a row");
        let (get, config_get, config_set, shutdown) =
            (spec(b"get", b""), spec(b"config", b"get"), spec(b"config", b"set"), spec(b"shutdown", b""));
        let policy = Policy::new(false, &["GET", "Config Set"], &none);
        assert!(policy.denies());
        assert_eq!([get, config_get, config_set].map(|spec| policy.refuses(spec).is_some()), [true, false, true]);
        assert!(policy.refuses(shutdown).is_some(), "the built-in list refuses it");
        policy.adopt(Policy::new(true, &["CONFIG"], &["shutdown"]));
        assert_eq!([get, config_get, config_set].map(|spec| policy.refuses(spec).is_some()), [false, true, true]);
        assert!(policy.refuses(shutdown).is_none() && policy.lifts(shutdown) && policy.allows("shutdown"));
        assert!(policy.rejects_cross_slot());
        policy.adopt(Policy::new(false, &none, &none));
        assert!(!policy.denies() && !policy.rejects_cross_slot());
    }

    #[test]
    fn a_database_that_holds_others_is_not_emptied() {
        let table = CommandTable::builtin();
        let [flushdb, flushall] = ["flushdb", "flushall"].map(|name| table.named(name.as_bytes(), b"").expect("a row"));
        let refusals = |databases: &Databases| {
            let mut policy = Policy::default();
            policy.keep_others(databases);
            [policy.refuses(flushdb), policy.refuses(flushall)]
        };
        assert_eq!(refusals(&Databases::default()), [None, None], "there are no others");
        // Number 0 is all of the cluster, with the others in it.
        let nameless = Databases::new(None, "{%}", 16).unwrap();
        assert_eq!(refusals(&nameless), [Some(says::HOLDS_OTHERS), None]);
        let named = Databases::new(Some("shop"), "{%}", 16).unwrap();
        assert_eq!(refusals(&named), [None, None]);
    }
}

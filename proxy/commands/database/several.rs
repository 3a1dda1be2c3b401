//! The databases that one client may SELECT.

use std::sync::Arc;

use super::{Database, OwnChannels, Scope};

/// Databases by their numbers. Where number 0 has no name it is no database of its own, but all of the cluster.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Databases {
    pub(super) own: Vec<Option<Arc<Database>>>,
    /// Whether SELECT chooses among these, instead of those that the servers have.
    pub(super) are_selected: bool,
    channels: Option<Arc<OwnChannels>>,
    scope: Scope,
}

impl Databases {
    /// So many databases for SELECT to choose from; 0: the one of this name, and SELECT chooses what servers have. Number 3 of
    /// `shop` is `shop/3` and number 0 is `shop`; without a name number 3 is `db/3`, and 0 all of the cluster.
    ///
    /// ```
    /// use slotway::commands::database::Databases;
    ///
    /// let shop = Databases::new(Some("shop"), "{%}", 16).unwrap();
    /// assert_eq!(shop.own(b"{shop/3}foo"), Some((3, &b"foo"[..])));
    /// let nameless = Databases::new(None, "{%}", 16).unwrap();
    /// assert_eq!(nameless.get(0), None);
    /// assert_eq!(nameless.get(3).unwrap().prefix(), b"{db/3}");
    /// ```
    pub fn new(name: Option<&str>, form: &str, count: usize) -> Result<Databases, String> {
        let stem = name.unwrap_or(NAMELESS);
        let numbered = (1..count).map(|number| Some(format!("{stem}/{number}")));
        let names = std::iter::once(name.map(str::to_owned)).chain(numbered);
        let own = names.map(|name| {
            let Some(name) = name else { return Ok(None) };
            let is_one_of_several = count > 1;
            Ok(Some(Arc::new(Database { is_one_of_several, ..Database::new(&name, form)? })))
        });
        let own: Vec<Option<Arc<Database>>> = own.collect::<Result<_, String>>()?;
        let scope = own.first().and_then(Option::as_ref).map_or(Scope::CLUSTER, |first| Scope::of(&first.prefix));
        Ok(Databases { own, are_selected: count > 0, channels: None, scope })
    }

    /// The same with channels of their clients' own, where they have a name.
    #[must_use]
    pub fn isolating_channels(mut self) -> Databases {
        self.channels = self.get(0).map(|database| Arc::new(OwnChannels::of(database)));
        for database in self.own.iter_mut().flatten() {
            if let Some(database) = Arc::get_mut(database) {
                database.channels.clone_from(&self.channels);
            }
        }
        self
    }

    /// How channels are kept, where they are their clients' own.
    pub fn channels(&self) -> Option<&OwnChannels> {
        self.channels.as_deref()
    }

    /// Whether SELECT chooses among these.
    pub fn are_selected(&self) -> bool {
        self.are_selected
    }

    /// How many there are, database 0 included.
    pub fn count(&self) -> u32 {
        u32::try_from(self.own.len()).unwrap_or(u32::MAX)
    }

    /// The database of its own with this number; `None` where that is all of the cluster, or there is none.
    pub fn get(&self, number: u32) -> Option<&Arc<Database>> {
        self.own.get(number as usize)?.as_ref()
    }

    /// Whose they are.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Whether any is a database of its own.
    pub fn is_any_own(&self) -> bool {
        self.own.iter().any(Option::is_some)
    }

    /// All that are databases of their own, with their numbers.
    pub fn all(&self) -> impl Iterator<Item = (u32, &Arc<Database>)> {
        (0..).zip(&self.own).filter_map(|(number, database)| Some((number, database.as_ref()?)))
    }

    /// Whose a key is, and how its clients know it; `None` where it is in none of these.
    pub fn own<'a>(&self, key: &'a [u8]) -> Option<(u32, &'a [u8])> {
        self.all().find_map(|(number, database)| Some((number, database.own(key)?)))
    }
}

/// What databases are numbered by where none has a name.
const NAMELESS: &str = "db";

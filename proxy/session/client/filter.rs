//! The filters of CLIENT LIST and CLIENT KILL: those of Redis 7.0, or those of Valkey 9, as the servers behind have them.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{
    Dialect,
    line::{flags, subscribes},
};
use crate::{
    clients::{Client, Mark},
    protocol::{
        resp::{Request, request::decimal},
        says,
    },
};

type Test = Box<dyn Fn(&Client) -> bool>;

/// Which clients are meant.
#[derive(Default)]
pub(super) struct Filter {
    /// Each with the option that it comes from: given again, an option counts as given last.
    tests: Vec<(String, Test)>,
    /// Whether the client that asks is meant too; `None`: nothing was said.
    pub skip_me: Option<bool>,
}

/// What a server knows that a filter is checked against.
pub(super) struct ServerFacts {
    pub dialect: Dialect,
    pub databases: u32,
    /// The users that are connected.
    pub users: HashSet<String>,
}

/// The letters that CLIENT LIST may have as flags.
const FLAGS: &str = "ABEIMNOPRSTUbcdeirtux";

impl Filter {
    /// Whether a client is meant.
    pub fn takes(&self, client: &Arc<Client>) -> bool {
        self.tests.iter().all(|(_, test)| test(client))
    }

    /// Only these clients.
    pub fn ids(ids: &[u64]) -> Filter {
        let (mut filter, ids) = (Filter::default(), HashSet::<u64>::from_iter(ids.iter().copied()));
        filter.set("ID", false, move |client| ids.contains(&client.id));
        filter
    }

    /// Reads options and their values from the argument at `at` on. The error is the client's.
    pub fn parse(request: &Request<'_>, mut at: usize, known: &ServerFacts) -> Result<Filter, Vec<u8>> {
        let mut filter = Filter::default();
        let (mut ids, mut given) = ([HashSet::new(), HashSet::new()], [false; 2]);
        while at < request.len() {
            let name = String::from_utf8_lossy(request.arg(at)).to_ascii_uppercase();
            let positive = name.strip_prefix("NOT-");
            let (option, not) = (positive.unwrap_or(&name), positive.is_some());
            if not && !known.dialect.valkey {
                return Err(says::SYNTAX.into());
            }
            if option == "ID" && known.dialect.valkey {
                at = take_ids(request, at + 1, &mut ids[usize::from(not)])?;
                given[usize::from(not)] = true;
                continue;
            }
            let Some(value) = request.get(at + 1) else { return Err(says::SYNTAX.into()) };
            filter.take(option, not, value, known)?;
            at += 2;
        }
        for ((ids, given), not) in ids.into_iter().zip(given).zip([false, true]) {
            if given {
                filter.set("ID", not, move |client| ids.contains(&client.id));
            }
        }
        Ok(filter)
    }

    fn take(&mut self, option: &str, not: bool, value: &[u8], known: &ServerFacts) -> Result<(), Vec<u8>> {
        let text = String::from_utf8_lossy(value).into_owned();
        let bytes = value.to_vec();
        let valkey = known.dialect.valkey;
        match option {
            "ID" => {
                let id = positive(value).ok_or(says::CLIENT_ID)?;
                self.set("ID", not, move |client| client.id == id);
            }
            "ADDR" => self.set("ADDR", not, move |client| client.peer().to_string() == text),
            "LADDR" => self.set("LADDR", not, move |client| client.local().to_string() == text),
            "TYPE" => {
                let test = kind(&text, valkey).ok_or_else(|| format!("ERR Unknown client type '{text}'"))?;
                self.set("TYPE", not, test);
            }
            "USER" if !known.users.contains(&text) => return Err(format!("ERR No such user '{text}'").into()),
            "USER" => self.set("USER", not, move |client| client.about().user == text),
            "SKIPME" if !not && (text.eq_ignore_ascii_case("yes") || text.eq_ignore_ascii_case("no")) => {
                self.skip_me = Some(text.eq_ignore_ascii_case("yes"));
            }
            "MAXAGE" if !not && known.dialect.since((7, 4)) => {
                let age = seconds(value, "maxage")?;
                self.set("MAXAGE", false, move |client| client.since.elapsed().as_secs() >= age);
            }
            "IDLE" if !not && valkey => {
                let time = seconds(value, "idle")?;
                self.set("IDLE", false, move |client| client.idle().as_secs() >= time);
            }
            // Who has no name is not called by the empty one either.
            "NAME" | "LIB-NAME" | "LIB-VER" if valkey && bytes.is_empty() => self.set(option, not, |_| false),
            "NAME" if valkey => self.set("NAME", not, move |client| client.about().name == bytes),
            "LIB-NAME" if valkey => self.set("LIB-NAME", not, move |client| client.about().library == bytes),
            "LIB-VER" if valkey => self.set("LIB-VER", not, move |client| client.about().library_version == bytes),
            "IP" if valkey => self.set("IP", not, move |client| client.peer().host() == text),
            "FLAGS" if valkey => {
                if !text.chars().all(|flag| FLAGS.contains(flag)) {
                    return Err(unknown("flags", not, &text));
                }
                // However often each is named.
                let text: String = FLAGS.chars().filter(|flag| text.contains(*flag)).collect();
                // NOT-FLAGS leaves out who has any of them.
                match not {
                    true => {
                        self.set("FLAGS", true, move |client| flags(client).chars().any(|flag| text.contains(flag)))
                    }
                    false => self.set("FLAGS", false, move |client| {
                        let has = flags(client);
                        text.chars().all(|flag| has.contains(flag))
                    }),
                }
            }
            "CAPA" if valkey => {
                if text.chars().any(|capa| capa != 'r') {
                    return Err(unknown("capa", not, &text));
                }
                self.set("CAPA", not, move |client| text.is_empty() || client.has(Mark::CapaRedirect));
            }
            "DB" if valkey => {
                let name = if not { "NOT-DB" } else { "DB" };
                let database: i64 =
                    text.parse().map_err(|_| format!("ERR {name} is not an integer or out of range"))?;
                let database = u32::try_from(database).ok().filter(|database| *database < known.databases);
                let last = known.databases - 1;
                let database = database.ok_or_else(|| format!("ERR {name} number should be between 0 and {last}"))?;
                self.set("DB", not, move |client| client.database.load(Relaxed) == database);
            }
            _ => return Err(says::SYNTAX.into()),
        }
        Ok(())
    }

    fn set(&mut self, option: &str, not: bool, test: impl Fn(&Client) -> bool + 'static) {
        let option = format!("{option}{not}");
        self.tests.retain(|(known, _)| *known != option);
        self.tests.push((option, Box::new(move |client| test(client) != not)));
    }
}

/// The ids from `at` on, up to what is none; where that is.
fn take_ids(request: &Request<'_>, mut at: usize, ids: &mut HashSet<u64>) -> Result<usize, Vec<u8>> {
    while let Some(id) = request.get(at).and_then(decimal) {
        ids.insert(u64::try_from(id).ok().filter(|id| *id > 0).ok_or(says::CLIENT_ID)?);
        at += 1;
    }
    Ok(at)
}

/// Who is of a type; `None` where there is no such type.
pub(super) fn kind(name: &str, valkey: bool) -> Option<Test> {
    Some(match name.to_ascii_lowercase().as_str() {
        "normal" => Box::new(|client| !subscribes(client)),
        "pubsub" => Box::new(subscribes),
        "master" | "replica" | "slave" => Box::new(|_| false),
        "primary" if valkey => Box::new(|_| false),
        _ => return None,
    })
}

fn unknown(what: &str, not: bool, value: &str) -> Vec<u8> {
    let filter = if not { format!("NOT-{} filter", what.to_ascii_uppercase()) } else { "provided filter".to_owned() };
    format!("ERR Unknown {what} found in the {filter}: {value}").into()
}

fn seconds(value: &[u8], what: &str) -> Result<u64, Vec<u8>> {
    let number = decimal(value).ok_or_else(|| format!("ERR {what} is not an integer or out of range"))?;
    Ok(u64::try_from(number)
        .ok()
        .filter(|&number| number > 0)
        .ok_or_else(|| format!("ERR {what} should be greater than 0"))?)
}

fn positive(text: &[u8]) -> Option<u64> {
    u64::try_from(decimal(text)?).ok().filter(|&number| number > 0)
}

#[cfg(test)]
mod tests;

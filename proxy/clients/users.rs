//! The proxy's own users, who are none of the nodes': their passwords, where they work, what they may do, and how much they may
//! have.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{
            AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

use super::refused::RefusedLog;
use crate::{
    commands::{
        database::Databases,
        rules::{Rights, Rules},
        table::CommandTable,
    },
    config::{Config, Secret, UserConfig},
};

/// What may come at once of what may come in a second.
const BURST: Duration = Duration::from_secs(1);

/// All of them.
#[derive(Default)]
pub struct Users(RwLock<HashMap<Box<[u8]>, Arc<OwnUser>>>);

/// Users whose clients a new configuration concerns at once.
#[derive(Debug, Default)]
pub struct Adopted {
    /// Those who are none any more.
    pub gone: Vec<Box<str>>,
    /// Users who have lost channels: their subscribers are closed, as by servers.
    pub with_fewer_channels: Vec<Box<str>>,
}

/// One of them.
pub struct OwnUser {
    /// The name.
    pub name: Box<str>,
    databases: Mutex<Option<Arc<Databases>>>,
    passwords: Mutex<Vec<Secret>>,
    /// `None`: it may do everything.
    rules: Mutex<Option<Arc<Rules>>>,
    /// Grows when the rules change.
    rules_version: AtomicU64,
    /// What it was refused by its rules.
    pub refused: RefusedLog,
    limits: Limits,
    clients: AtomicUsize,
    buffered: AtomicUsize,
    since: Instant,
    /// When all requests so far would have come at the allowed rate, in nanoseconds after `since`.
    due: AtomicU64,
}

/// How much a user may have; 0: as much as there is.
#[derive(Debug)]
struct Limits {
    clients: AtomicUsize,
    requests: AtomicU32,
    buffered: AtomicUsize,
}

impl Limits {
    fn of(config: &UserConfig) -> Limits {
        Limits {
            clients: config.max_clients.into(),
            requests: config.max_requests_per_second.into(),
            buffered: config.max_buffered.into(),
        }
    }
}

impl Users {
    /// Those of the configuration.
    pub fn of(config: &Config) -> Users {
        let users = Users::default();
        users.adopt(config);
        users
    }

    /// From now on it is those of this configuration: who is in both keeps clients and counts, and works by the new rules,
    /// limits and passwords, and from the next login on in the new database.
    pub fn adopt(&self, config: &Config) -> Adopted {
        let mut adopted = Adopted::default();
        let databases = config.own_databases().unwrap_or_default();
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut former = std::mem::take(&mut *all);
        for (name, settings) in &config.users {
            let own = settings.database.as_ref().and_then(|name| databases.get(name)).cloned();
            let user = match former.remove(name.as_bytes()) {
                Some(user) => {
                    if user.adopt(settings, own) {
                        adopted.with_fewer_channels.push(user.name.clone());
                    }
                    user
                }
                None => Arc::new(OwnUser::new(name, settings, own)),
            };
            all.insert(name.as_bytes().into(), user);
        }
        adopted.gone = former.into_values().map(|user| user.name.clone()).collect();
        adopted
    }

    /// The user of this name.
    pub fn find(&self, name: &[u8]) -> Option<Arc<OwnUser>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl OwnUser {
    fn new(name: &str, config: &UserConfig, databases: Option<Arc<Databases>>) -> OwnUser {
        OwnUser {
            name: name.into(),
            databases: Mutex::new(databases),
            passwords: Mutex::new(config.passwords.clone()),
            rules: Mutex::new(config.rules.clone()),
            rules_version: AtomicU64::new(0),
            refused: RefusedLog::default(),
            limits: Limits::of(config),
            clients: AtomicUsize::new(0),
            buffered: AtomicUsize::new(0),
            since: Instant::now(),
            due: AtomicU64::new(0),
        }
    }

    /// Says whether it has lost channels.
    fn adopt(&self, config: &UserConfig, databases: Option<Arc<Databases>>) -> bool {
        *lock(&self.databases) = databases;
        let mut own = lock(&self.rules);
        let loses_channels = match (&*own, &config.rules) {
            (_, None) => false,
            (Some(before), Some(rules)) => before.lose_channels(rules),
            (None, Some(rules)) => Rules::all().lose_channels(rules),
        };
        if *own != config.rules {
            own.clone_from(&config.rules);
            self.rules_version.fetch_add(1, Release);
        }
        drop(own);
        self.change_passwords(config.passwords.clone());
        let (limits, new) = (&self.limits, Limits::of(config));
        limits.clients.store(new.clients.into_inner(), Relaxed);
        limits.requests.store(new.requests.into_inner(), Relaxed);
        limits.buffered.store(new.buffered.into_inner(), Relaxed);
        loses_channels
    }

    /// What it may do; `None`: everything.
    pub fn rules(&self) -> Option<Arc<Rules>> {
        lock(&self.rules).clone()
    }

    /// The databases of its own that it works in, by their numbers; `None`: what its listener says.
    pub fn databases(&self) -> Option<Arc<Databases>> {
        lock(&self.databases).clone()
    }

    /// Whether it is one of the user's passwords, compared in constant time.
    pub fn has(&self, password: &[u8]) -> bool {
        lock(&self.passwords).iter().fold(false, |found, own| found | own.is(password))
    }

    /// Replaces its passwords. Clients that have logged in by an old one stay.
    pub fn change_passwords(&self, passwords: Vec<Secret>) {
        *lock(&self.passwords) = passwords;
    }

    /// Logs one more client in; `None` where the user has as many as it may.
    pub fn log_in(self: &Arc<Self>) -> Option<LoggedIn> {
        let limit = self.limits.clients.load(Relaxed);
        let is_free = |count: usize| limit == 0 || count < limit;
        let taken = self.clients.fetch_update(Relaxed, Relaxed, |count| is_free(count).then_some(count + 1));
        taken.is_ok().then(|| LoggedIn { user: self.clone(), held: AtomicUsize::new(0), rights: RefCell::default() })
    }

    /// How many requests it may send in a second, where it has sent them by now; else one more is counted.
    pub fn counts(&self, now: Instant) -> Result<(), u32> {
        let limit = self.limits.requests.load(Relaxed);
        let Some(each) = u64::from(1_000_000_000_u32).checked_div(limit.into()) else { return Ok(()) };
        let now = u64::try_from(now.saturating_duration_since(self.since).as_nanos()).unwrap_or(u64::MAX);
        let latest = now.saturating_add(u64::try_from(BURST.as_nanos()).unwrap_or(u64::MAX));
        let one_more = |due: u64| Some(due.max(now) + each).filter(|due| *due <= latest);
        self.due.fetch_update(Relaxed, Relaxed, one_more).map(drop).map_err(|_| limit)
    }
}

/// A client that has logged in as a user of the proxy's own. It counts among those of the user until this is dropped.
pub struct LoggedIn {
    /// Whose it is.
    pub user: Arc<OwnUser>,
    held: AtomicUsize,
    rights: RefCell<KnownRights>,
}

/// What the user's rules of this version mean.
#[derive(Default)]
struct KnownRights {
    /// One more than the version; 0: nothing is known.
    next_version: u64,
    rights: Option<Rc<Rights>>,
}

impl LoggedIn {
    /// What the user may do with the commands of `table`; `None`: everything.
    pub fn rights(&self, table: &Arc<CommandTable>) -> Option<Rc<Rights>> {
        let next_version = self.user.rules_version.load(Acquire) + 1;
        let mut known = self.rights.borrow_mut();
        let is_fresh = known.rights.as_ref().is_none_or(|rights| rights.are_of(table));
        if known.next_version != next_version || !is_fresh {
            let rights = self.user.rules().map(|rules| Rc::new(Rights::of(&rules, table)));
            *known = KnownRights { next_version, rights };
        }
        known.rights.clone()
    }

    /// So many bytes are held for the client now. Whether that is too much for all clients of the user.
    pub fn account(&self, held: usize) -> bool {
        let before = self.held.swap(held, Relaxed);
        let all = &self.user.buffered;
        if held <= before {
            all.fetch_sub(before - held, Relaxed);
            return false;
        }
        let total = all.fetch_add(held - before, Relaxed) + held - before;
        let limit = self.user.limits.buffered.load(Relaxed);
        limit > 0 && total > limit
    }
}

impl Drop for LoggedIn {
    fn drop(&mut self) {
        self.account(0);
        self.user.clients.fetch_sub(1, Relaxed);
    }
}

/// Locks, also where a holder has panicked: every change is made in one step, so that the data is sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(clients: usize, requests: u32, buffered: usize) -> Arc<OwnUser> {
        Arc::new(OwnUser {
            name: "celery".into(),
            databases: Mutex::default(),
            passwords: Mutex::new(vec![Secret::new("old"), Secret::new("new")]),
            rules: Mutex::default(),
            rules_version: AtomicU64::new(0),
            refused: RefusedLog::default(),
            limits: Limits { clients: clients.into(), requests: requests.into(), buffered: buffered.into() },
            clients: AtomicUsize::new(0),
            buffered: AtomicUsize::new(0),
            since: Instant::now(),
            due: AtomicU64::new(0),
        })
    }

    #[test]
    fn each_of_the_passwords_is_right() {
        let user = user(0, 0, 0);
        let right = |password: &str| user.has(password.as_bytes());
        assert_eq!(["old", "new", "ol", "olds", ""].map(right), [true, true, false, false, false]);
        user.change_passwords(vec![Secret::new("newest")]);
        assert_eq!(["old", "newest"].map(right), [false, true]);
    }

    #[test]
    fn seats_are_as_many_as_allowed_and_given_back() {
        let one = user(1, 0, 0);
        let logged_in = one.log_in();
        assert!(logged_in.is_some() && one.log_in().is_none());
        drop(logged_in);
        assert!(one.log_in().is_some());
        let any = user(0, 0, 0);
        assert!((0..100).map(|_| any.log_in()).collect::<Vec<_>>().iter().all(Option::is_some));
    }

    #[test]
    fn requests_come_at_the_rate_that_is_allowed() {
        let user = user(0, 10, 0);
        let at = |millis: u64| user.since + Duration::from_millis(millis);
        let counted = |millis: u64| (0..100).filter(|_| user.counts(at(millis)).is_ok()).count();
        assert_eq!(counted(0), 10, "a second's worth at once");
        assert_eq!(counted(100), 1);
        assert_eq!(counted(1100), 10);
        assert_eq!(user.counts(at(1100)), Err(10));
        assert_eq!(counted(60_000), 10, "what was not sent is not saved up");
    }

    #[test]
    fn bytes_of_all_clients_are_counted_together() {
        let user = user(0, 0, 100);
        let (one, other) = (user.log_in().unwrap(), user.log_in().unwrap());
        assert!(!one.account(60) && !other.account(40) && other.account(41));
        assert!(!one.account(10) && !other.account(90));
        drop(one);
        assert!(!other.account(100));
        drop(other);
        assert_eq!(user.buffered.load(Relaxed), 0);
    }
}

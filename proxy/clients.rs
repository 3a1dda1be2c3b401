//! Who is connected: what CLIENT LIST shows, and how a client is told to leave.
//!
//! The one registry of the process, since CLIENT LIST, CLIENT KILL and `max_clients` are about the clients of all
//! workers. It is locked when a client comes, goes or is looked up, never for a request, unless somebody monitors.

mod apart;
mod client;
mod held;
mod listener;
mod log_throttle;
mod mail;
mod monitors;
mod patterns;
mod pause;
pub mod refused;
pub mod rights;
mod usage;
pub mod users;

pub use self::{
    client::{About, ChangeOfUsers, Client, Mark, Order, Unblock},
    held::Held,
    listener::ListenerSettings,
    log_throttle::{Complaints, LogThrottle},
    mail::Mail,
    monitors::Monitoring,
    patterns::Patterns,
    pause::{Function, Pause, Paused},
    usage::{PEAK_RESET, Usage},
};

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

use self::monitors::Monitors;
use crate::protocol::endpoint::Endpoint;

/// All clients of the process.
pub struct Clients {
    last_id: AtomicU64,
    live: Mutex<BTreeMap<u64, Arc<Client>>>,
    /// Bytes held for all clients, and how many they may be.
    buffered: AtomicUsize,
    most_buffered: AtomicUsize,
    /// The right to read on where memory is short: one client at a time has it.
    turn: Arc<Semaphore>,
    pause: Pause,
    /// Patterns of those who have channels of their own.
    pub patterns: Patterns,
    monitors: Monitors,
    /// What the log has been told of clients and TLS.
    pub complaints: Complaints,
    /// When the process began to serve.
    pub since: Instant,
}

impl Clients {
    /// No clients yet; `most_buffered` bytes may be held for all of them.
    pub fn new(most_buffered: usize) -> Clients {
        Clients {
            last_id: AtomicU64::new(0),
            live: Mutex::default(),
            buffered: AtomicUsize::new(0),
            most_buffered: AtomicUsize::new(most_buffered),
            turn: Arc::new(Semaphore::new(1)),
            pause: Pause::default(),
            patterns: Patterns::default(),
            monitors: Monitors::default(),
            complaints: Complaints::default(),
            since: Instant::now(),
        }
    }

    /// Whether clients are paused or anybody monitors: what is asked for each request.
    #[inline]
    pub fn is_any_apart(&self) -> bool {
        self.pause.apart.is_any()
    }

    /// CLIENT PAUSE.
    pub fn pause(&self) -> &Pause {
        &self.pause
    }

    /// From now on so many bytes may be held for all of them.
    pub fn set_most_buffered(&self, most: usize) {
        self.most_buffered.store(most, Relaxed);
    }

    /// Bytes held for all clients: see [`Usage`].
    pub fn buffered(&self) -> usize {
        self.buffered.load(Relaxed)
    }

    /// Whether memory is short, at three quarters of the limit: then one client at a time may send more of a long request, so that
    /// each becomes whole in its turn.
    pub fn is_short(&self) -> bool {
        self.buffered() >= self.most_buffered.load(Relaxed) / 4 * 3
    }

    /// The turn to read on where memory is short.
    pub fn turn(&self) -> &Arc<Semaphore> {
        &self.turn
    }

    /// A client now costs `new` bytes instead of `old`. Where all of them cost too much, the one that costs most is
    /// told to leave (as by `maxmemory-clients` of Redis): memory is bounded whatever clients do.
    pub fn account(&self, old: usize, new: usize) {
        if new < old {
            self.buffered.fetch_sub(old - new, Relaxed);
            return;
        }
        let total = self.buffered.fetch_add(new - old, Relaxed) + new - old;
        if total > self.most_buffered.load(Relaxed)
            && let Some(dearest) = lock(&self.live).values().max_by_key(|client| client.cost())
        {
            dearest.tell(Order::Evict);
        }
    }

    /// The clients of `user` cost too much together: the one that costs most is told to leave.
    pub fn evict_one_of(&self, user: &str) {
        let live = lock(&self.live);
        let dearest = live.values().filter(|client| client.about().user == user).max_by_key(|client| client.cost());
        if let Some(dearest) = dearest {
            dearest.tell(Order::Evict);
        }
    }

    /// Counts so many more bytes as held for some client, where that is not too much for all; says whether it is not. They
    /// are given back by [`Clients::account`].
    fn hold(&self, more: usize) -> bool {
        let fits = self.buffered.fetch_add(more, Relaxed) + more <= self.most_buffered.load(Relaxed);
        if !fits {
            self.buffered.fetch_sub(more, Relaxed);
        }
        fits
    }

    /// Registers a client that has come by this listener, and gives it the next id.
    pub fn join(&self, peer: Endpoint, local: Endpoint, listener: Arc<ListenerSettings>) -> Arc<Client> {
        let id = self.last_id.fetch_add(1, Relaxed) + 1;
        let client = Arc::new(Client::new(id, peer, local, listener));
        lock(&self.live).insert(id, client.clone());
        client
    }

    /// Forgets a client that has gone.
    pub fn leave(&self, id: u64) {
        lock(&self.live).remove(&id);
    }

    /// The client with this number.
    pub fn find(&self, id: u64) -> Option<Arc<Client>> {
        lock(&self.live).get(&id).cloned()
    }

    /// How many wait in a blocking command.
    pub fn blocked(&self) -> usize {
        lock(&self.live).values().filter(|client| client.waits()).count()
    }

    /// How many are told which keys have changed (CLIENT TRACKING).
    pub fn tracking(&self) -> usize {
        lock(&self.live).values().filter(|client| client.has(Mark::Tracking)).count()
    }

    /// How many have subscriptions.
    pub fn subscribed(&self) -> usize {
        let subscribes = |client: &&Arc<Client>| client.subscriptions.iter().any(|count| count.load(Relaxed) > 0);
        lock(&self.live).values().filter(subscribes).count()
    }

    /// How many have come since the process began.
    pub fn ever(&self) -> u64 {
        self.last_id.load(Relaxed)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        lock(&self.live).len()
    }

    /// Wakes the sessions of those who have been silent for so long: each sees for itself whether it is over.
    pub fn wake_idle(&self, limit: Duration) {
        lock(&self.live).values().filter(|client| client.idle() >= limit).for_each(|client| client.wake());
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Vec<Arc<Client>> {
        lock(&self.live).values().cloned().collect()
    }
}

/// Locks, also where a holder has panicked: every change is made in one step, so that the data is sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Who is connected: what CLIENT LIST shows, and how a client is told to leave.
//!
//! The one registry of the process, since CLIENT LIST, CLIENT KILL and `max_clients` are about the clients of all
//! workers. It is locked when a client comes, goes or is looked up, never for a request, unless somebody monitors.

mod apart;
mod held;
mod mail;
mod monitors;
mod pause;
pub mod rights;
mod seldom;
mod usage;
pub mod users;

pub use self::{
    held::Held,
    mail::Mail,
    monitors::Monitoring,
    pause::{Function, Pause, Paused},
    seldom::{Complaints, Seldom},
    usage::{PEAK_RESET, Usage},
};

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::Waker,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::Semaphore;

use self::{mail::Mailbox, monitors::Monitors};
use crate::metrics::CommandId;
use crate::protocol::endpoint::Endpoint;

/// A client's last command where there was none.
const NO_COMMAND: u16 = u16::MAX;

/// All clients of the process.
pub struct Clients {
    last_id: AtomicU64,
    live: Mutex<BTreeMap<u64, Arc<Client>>>,
    /// Bytes held for all clients, and how many they may be.
    buffered: AtomicUsize,
    most_buffered: usize,
    /// Who may read on where memory is short: one client at a time.
    turn: Arc<Semaphore>,
    pause: Pause,
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
            most_buffered,
            turn: Arc::new(Semaphore::new(1)),
            pause: Pause::default(),
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

    /// Bytes held for all clients: see [`Usage`].
    pub fn buffered(&self) -> usize {
        self.buffered.load(Relaxed)
    }

    /// Whether so much is held that only one client at a time may send more of a long request: each then comes to its
    /// end, where all together would come to none.
    pub fn is_short(&self) -> bool {
        self.buffered() >= self.most_buffered / 4 * 3
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
        if total > self.most_buffered
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
        let fits = self.buffered.fetch_add(more, Relaxed) + more <= self.most_buffered;
        if !fits {
            self.buffered.fetch_sub(more, Relaxed);
        }
        fits
    }

    /// Registers a client and gives it the next id.
    /// It has come by the listener with that number.
    pub fn join(&self, peer: Endpoint, local: Endpoint, listener: usize) -> Arc<Client> {
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

/// One client, as others may see it.
pub struct Client {
    /// Its number, never used twice.
    pub id: u64,
    /// Its own address.
    pub peer: Endpoint,
    /// The address it connected to.
    pub local: Endpoint,
    /// The number of the listener that it came by.
    pub listener: usize,
    /// When it connected.
    pub since: Instant,
    /// What it says of itself.
    pub about: Mutex<About>,
    /// The RESP version, 2 or 3.
    pub resp: AtomicU8,
    /// The database selected.
    pub database: AtomicU32,
    /// When its last request came, in milliseconds after `since`.
    pub heard: AtomicU64,
    /// Requests queued in its transaction; `usize::MAX` outside of one.
    pub queued: AtomicUsize,
    /// Channel, pattern and shard channel subscriptions.
    pub subscriptions: [AtomicUsize; 3],
    /// Bytes that it has sent, and that it has been sent.
    pub traffic: [AtomicU64; 2],
    /// How many commands it has sent.
    pub commands: AtomicU64,
    /// To whom its invalidation messages go (CLIENT TRACKING ... REDIRECT); 0: to itself.
    pub redirect: AtomicI64,
    usage: Mutex<Usage>,
    inbox: Mailbox,
    command: AtomicU16,
    marks: AtomicU16,
    order: AtomicU8,
    wait: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

/// What others may see of a client's state, as a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Mark {
    /// CLIENT TRACKING is on.
    Tracking = 1,
    /// In its mode BCAST.
    Broadcast = 2,
    /// The client that its invalidation messages go to has gone.
    BrokenRedirect = 4,
    /// CLIENT NO-EVICT is on.
    NoEvict = 8,
    /// CLIENT NO-TOUCH is on.
    NoTouch = 16,
    /// CLIENT CAPA redirect.
    CapaRedirect = 32,
    /// It is to be closed once it has its reply.
    Closing = 64,
    /// It monitors.
    Monitor = 128,
}

/// How a blocked client's wait is ended (CLIENT UNBLOCK).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unblock {
    /// As if its time were over.
    Timeout,
    /// With an error.
    Error,
}

/// States of [`Client::wait`].
mod wait {
    pub const NOT: u8 = 0;
    pub const WAITS: u8 = 1;
    pub const ENDS_AS_TIMEOUT: u8 = 2;
    pub const ENDS_AS_ERROR: u8 = 3;
    pub const PAUSED: u8 = 4;
}

/// The texts of a client.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// CLIENT SETNAME.
    pub name: Vec<u8>,
    /// CLIENT SETINFO lib-name.
    pub library: Vec<u8>,
    /// CLIENT SETINFO lib-ver.
    pub library_version: Vec<u8>,
    /// The user it authenticated as.
    pub user: String,
    /// The nodes' user that it works as, where that is not the proxy's own.
    pub login: Option<Bytes>,
}

impl About {
    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        self.name.len() + self.library.len() + self.library_version.len() + self.user.len()
    }
}

/// What a client's session is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Serve it.
    Serve,
    /// Answer what is under way, then close.
    Drain,
    /// Close now.
    Leave,
    /// Close now, since it is owed too much.
    Evict,
}

impl Client {
    fn new(id: u64, peer: Endpoint, local: Endpoint, listener: usize) -> Client {
        Client {
            id,
            peer,
            local,
            listener,
            since: Instant::now(),
            about: Mutex::new(About { user: "default".to_owned(), ..About::default() }),
            resp: AtomicU8::new(2),
            database: AtomicU32::new(0),
            heard: AtomicU64::new(0),
            queued: AtomicUsize::new(usize::MAX),
            subscriptions: Default::default(),
            traffic: Default::default(),
            commands: AtomicU64::new(0),
            redirect: AtomicI64::new(0),
            usage: Mutex::default(),
            inbox: Mailbox::default(),
            command: AtomicU16::new(NO_COMMAND),
            marks: AtomicU16::new(0),
            order: AtomicU8::new(Order::Serve as u8),
            wait: AtomicU8::new(wait::NOT),
            waker: Mutex::default(),
        }
    }

    /// The texts, locked.
    pub fn about(&self) -> MutexGuard<'_, About> {
        lock(&self.about)
    }

    /// Bytes that it has sent.
    pub fn received(&self) -> u64 {
        self.traffic[0].load(Relaxed)
    }

    /// Bytes held for it.
    pub fn cost(&self) -> usize {
        self.usage().total()
    }

    /// What is held for it.
    pub fn usage(&self) -> Usage {
        *lock(&self.usage)
    }

    /// So much is held for it now.
    pub fn uses(&self, usage: Usage) {
        *lock(&self.usage) = usage;
    }

    /// It has sent something.
    pub fn heard(&self, now: Instant) {
        self.heard.store(now.saturating_duration_since(self.since).as_millis() as u64, Relaxed);
    }

    /// For how long it has sent nothing.
    pub fn idle(&self) -> Duration {
        self.since.elapsed().saturating_sub(Duration::from_millis(self.heard.load(Relaxed)))
    }

    /// Tells the session what to do; a later, stronger order wins.
    pub fn tell(&self, order: Order) {
        self.order.fetch_max(order as u8, Relaxed);
        self.wake();
    }

    /// What the session is to do.
    pub fn order(&self) -> Order {
        match self.order.load(Relaxed) {
            0 => Order::Serve,
            1 => Order::Drain,
            2 => Order::Leave,
            _ => Order::Evict,
        }
    }

    /// It begins to wait in a blocking command, or has done so.
    pub fn set_waiting(&self, waits: bool) {
        self.wait.store(if waits { wait::WAITS } else { wait::NOT }, Relaxed);
    }

    /// It begins to wait since clients are paused; nobody can unblock it.
    pub fn set_paused(&self) {
        self.wait.store(wait::PAUSED, Relaxed);
    }

    /// Whether it has logged in as this user of the nodes.
    pub fn works_as(&self, user: &[u8]) -> bool {
        lock(&self.about).login.as_deref() == Some(user)
    }

    /// Sets a flag, or takes it away.
    pub fn mark(&self, mark: Mark, set: bool) {
        if set {
            self.marks.fetch_or(mark as u16, Relaxed);
        } else {
            self.marks.fetch_and(!(mark as u16), Relaxed);
        }
    }

    /// Whether a flag is set.
    pub fn has(&self, mark: Mark) -> bool {
        self.marks.load(Relaxed) & mark as u16 != 0
    }

    /// Its command of the moment. Only its session says so, so that counting needs no lock on the bus.
    #[inline]
    pub fn says(&self, command: CommandId) {
        self.command.store(command.index(), Relaxed);
        self.commands.store(self.commands.load(Relaxed) + 1, Relaxed);
    }

    /// The name of its last command, as `get` or `config|get`; `NULL` where there was none.
    pub fn last_command(&self) -> String {
        CommandId::name_at(self.command.load(Relaxed)).unwrap_or_else(|| "NULL".to_owned())
    }

    /// More was received from it (0), or sent to it (1). Only its session counts.
    pub fn count_traffic(&self, way: usize, bytes: usize) {
        let counter = &self.traffic[way];
        counter.store(counter.load(Relaxed) + bytes as u64, Relaxed);
    }

    /// Leaves it a message that belongs to no request of its own. One that does not fetch its messages has to go once
    /// there are more than `most` bytes.
    pub fn deliver(&self, mail: Mail, most: usize) {
        if !self.inbox.put(mail, most) {
            return self.tell(Order::Evict);
        }
        self.wake();
    }

    /// Whether there are messages for it.
    #[inline]
    pub fn has_mail(&self) -> bool {
        self.inbox.has_mail()
    }

    /// Takes them.
    pub fn take_mail(&self) -> Vec<Mail> {
        self.inbox.take()
    }

    fn wake(&self) {
        if let Some(waker) = &*lock(&self.waker) {
            waker.wake_by_ref();
        }
    }

    /// Whether it waits in a blocking command, or is paused.
    pub fn waits(&self) -> bool {
        self.wait.load(Relaxed) != wait::NOT
    }

    /// Ends its wait; false where it does not wait.
    pub fn unblock(&self, how: Unblock) -> bool {
        let state = match how {
            Unblock::Timeout => wait::ENDS_AS_TIMEOUT,
            Unblock::Error => wait::ENDS_AS_ERROR,
        };
        let waited = self.wait.compare_exchange(wait::WAITS, state, Relaxed, Relaxed).is_ok();
        if waited {
            self.wake();
        }
        waited
    }

    /// Whether and how its wait is to end.
    pub fn unblocked(&self) -> Option<Unblock> {
        match self.wait.load(Relaxed) {
            wait::ENDS_AS_TIMEOUT => Some(Unblock::Timeout),
            wait::ENDS_AS_ERROR => Some(Unblock::Error),
            _ => None,
        }
    }

    /// Who is to be woken by an order.
    pub fn wake_with(&self, waker: &Waker) {
        *lock(&self.waker) = Some(waker.clone());
    }
}

/// A lock whose holder has panicked is as good as any: all that it guards is set in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

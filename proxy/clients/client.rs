//! One client, as others may see it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::Waker,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{ListenerSettings, Mail, Usage, lock, mail::Mailbox};
use crate::{metrics::CommandId, protocol::endpoint::Endpoint};

/// A client's last command where there was none.
const NO_COMMAND: u16 = u16::MAX;

/// One client, as others may see it.
pub struct Client {
    /// Its number, never used twice.
    pub id: u64,
    connected: Ends,
    /// Those of the client that a load balancer has connected for.
    stands_for: OnceLock<Ends>,
    /// What is so where it came in.
    pub listener: Arc<ListenerSettings>,
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
    /// How many changes of users it has begun whose end is not seen yet.
    changes_of_users: AtomicU32,
    usage: Mutex<Usage>,
    inbox: Mailbox,
    command: AtomicU16,
    marks: AtomicU16,
    order: AtomicU8,
    wait: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

/// The two ends of a connection.
struct Ends {
    peer: Endpoint,
    local: Endpoint,
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
    /// The client is to be closed once it has its reply.
    Closing = 64,
    /// The client monitors.
    Monitor = 128,
}

/// A change of users that a client has begun. As long as this lives, the client has a reply due, even where its own user goes.
pub struct ChangeOfUsers(Arc<Client>);

impl Drop for ChangeOfUsers {
    fn drop(&mut self) {
        self.0.changes_of_users.fetch_sub(1, Relaxed);
    }
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
    /// Whether it has subscriptions of any kind.
    pub fn is_subscribed(&self) -> bool {
        self.subscriptions.iter().any(|count| count.load(Relaxed) > 0)
    }

    pub(super) fn new(id: u64, peer: Endpoint, local: Endpoint, listener: Arc<ListenerSettings>) -> Client {
        Client {
            id,
            connected: Ends { peer, local },
            stands_for: OnceLock::new(),
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
            changes_of_users: AtomicU32::new(0),
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

    /// The client's own address.
    pub fn peer(&self) -> &Endpoint {
        &self.ends().peer
    }

    /// The address that the client connected to.
    pub fn local(&self) -> &Endpoint {
        &self.ends().local
    }

    /// This is a load balancer's connection, for a client that has connected from `peer` to `local`. Said once.
    pub fn stands_for(&self, peer: Endpoint, local: Endpoint) {
        let _ = self.stands_for.set(Ends { peer, local });
    }

    fn ends(&self) -> &Ends {
        self.stands_for.get().unwrap_or(&self.connected)
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

    /// The client has sent something.
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

    /// The client begins to wait in a blocking command, or has done so.
    pub fn set_waiting(&self, waits: bool) {
        self.wait.store(if waits { wait::WAITS } else { wait::NOT }, Relaxed);
    }

    /// The client begins to wait since clients are paused; nobody can unblock it.
    pub fn set_paused(&self) {
        self.wait.store(wait::PAUSED, Relaxed);
    }

    /// Whether it has logged in as this user of the nodes.
    pub fn works_as(&self, user: &[u8]) -> bool {
        lock(&self.about).login.as_deref() == Some(user)
    }

    /// It begins to change users.
    pub fn changes_users(self: &Arc<Client>) -> ChangeOfUsers {
        self.changes_of_users.fetch_add(1, Relaxed);
        ChangeOfUsers(self.clone())
    }

    /// Its user has been deleted: it is closed, as by Redis, but gets its reply first where it is deleting users itself.
    pub fn loses_its_user(&self) {
        self.tell(if self.changes_of_users.load(Relaxed) > 0 { Order::Drain } else { Order::Leave });
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

    /// Its command of the moment. Only its session writes this, so that counting needs no atomic addition.
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

    /// Leaves it a message from another session. A client that does not fetch its messages is evicted once more than `most` bytes
    /// wait.
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

    pub(super) fn wake(&self) {
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

    /// Sets the waker of its session, for orders and mail.
    pub fn wake_with(&self, waker: &Waker) {
        *lock(&self.waker) = Some(waker.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Arc<Client> {
        let end = || Endpoint::Tcp("127.0.0.1:1".parse().expect("an address"));
        Arc::new(Client::new(1, end(), end(), Arc::default()))
    }

    #[test]
    fn who_loses_its_user_leaves_but_has_the_reply_to_its_own_change_first() {
        let client = client();
        let (first, second) = (client.changes_users(), client.changes_users());
        drop(first);
        client.loses_its_user();
        assert_eq!(client.order(), Order::Drain);
        drop(second);
        client.loses_its_user();
        assert_eq!(client.order(), Order::Leave);
    }
}
